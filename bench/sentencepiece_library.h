// The SentencePiece library alone, to compare with. Behind a header of its own: its headers define absl::string_view
// as std::string_view, which Abseil's contradict.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace accrue::bench {

class SentencePieceLibrary {
 public:
  // Null when the library refuses the model.
  static std::unique_ptr<SentencePieceLibrary> Load(const std::string& serialized);
  ~SentencePieceLibrary();
  // Number of ids of text.
  int64_t Encode(std::string_view text) const;

 private:
  SentencePieceLibrary();
  struct Processor;
  std::unique_ptr<Processor> processor_;
};

}  // namespace accrue::bench
