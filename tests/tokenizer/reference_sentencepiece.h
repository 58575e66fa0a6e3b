// The SentencePiece library, as what ours is compared with. Behind a header of its own: its headers define
// absl::string_view as std::string_view, which Abseil's contradict.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace accrue::reference {

class SentencePiece {
 public:
  // Null when the library refuses the model.
  static std::unique_ptr<SentencePiece> Load(const std::string& serialized);
  // Empty when the library cannot train. Options are those of spm_train.
  static std::string Train(const std::vector<std::string>& lines,
                           const std::unordered_map<std::string, std::string>& options);
  ~SentencePiece();

  std::vector<int> Encode(const std::string& text) const;
  std::string Decode(const std::vector<int>& ids) const;
  int size() const;

 private:
  SentencePiece();
  struct Library;
  std::unique_ptr<Library> library_;
};

}  // namespace accrue::reference
