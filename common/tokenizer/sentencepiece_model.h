// libsentencepiece behind a header of its own: its headers define absl::string_view as std::string_view, which
// Abseil's contradict, so no file includes both.
//
// SentencePieceModel is immutable after Load; thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace accrue {

class SentencePieceModel {
 public:
  // Null, and the reason in *error, when the bytes are no model.
  static std::unique_ptr<SentencePieceModel> Load(const std::string& serialized, std::string* error);
  // See TrainSentencePiece. False, and the reason in *error, when it fails.
  static bool Train(const std::function<bool(std::string* line)>& next_line, int64_t vocabulary, std::string* serialized,
                    std::string* error);
  ~SentencePieceModel();

  int size() const;
  int end_of_sentence() const;  // -1: none
  // Whether text may be cut before a run of spaces and around a line feed, and each part encoded alone, with the same
  // ids: a BPE model with byte fallback that changes nothing in the text, and no piece of which goes over such a cut.
  bool words_are_independent() const { return words_are_independent_; }
  bool adds_dummy_prefix() const { return adds_dummy_prefix_; }

  // Appends. False, and the reason in *error, when the library fails.
  bool Encode(std::string_view text, std::vector<int32_t>* ids, std::string* error) const;
  std::string Decode(const std::vector<int>& ids) const;

 private:
  struct Library;
  SentencePieceModel();
  bool ComputeWordsAreIndependent(const struct SentencePieceSpec& spec) const;

  std::unique_ptr<Library> library_;
  bool words_are_independent_ = false;
  bool adds_dummy_prefix_ = true;
};

}  // namespace accrue
