// GPT-2's pre-tokeniser: cuts text into the words within which byte pairs are merged.
//
// Immutable; thread-safe. A Splitter keeps the working memory of one thread.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace accrue {

class Gpt2Pretokenizer {
 public:
  Gpt2Pretokenizer();
  ~Gpt2Pretokenizer();

  class Splitter {
   public:
    explicit Splitter(const Gpt2Pretokenizer& owner);
    ~Splitter();
    // Bytes of the word that begins at `from`. Requires valid UTF-8 and from < text.size(). INTERNAL when the
    // library fails.
    absl::Status Next(absl::string_view text, size_t from, size_t* length);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Pattern;
  std::unique_ptr<Pattern> pattern_;
};

}  // namespace accrue
