#include "common/tokenizer/tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace accrue {
namespace {

constexpr size_t kFileLimitBytes = size_t{256} << 20;

}  // namespace

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text) const {
  std::vector<int32_t> ids;
  ACCRUE_RETURN_IF_ERROR(NewEncoder()->Encode(text, &ids));
  return ids;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(FileSystem& file_system,
                                                           const std::string& directory) {
  const auto path = [&](const char* name) { return JoinPath(directory, name); };
  const auto read = [&](const char* name) { return file_system.ReadAll(path(name), kFileLimitBytes); };
  if (file_system.Exists(path("tokenizer.model"))) {
    ACCRUE_ASSIGN_OR_RETURN(std::string model, read("tokenizer.model"));
    return NewSentencePieceTokenizer(std::move(model), path("tokenizer.model"));
  }
  if (file_system.Exists(path("vocab.json")) && file_system.Exists(path("merges.txt"))) {
    ACCRUE_ASSIGN_OR_RETURN(std::string vocabulary, read("vocab.json"));
    ACCRUE_ASSIGN_OR_RETURN(std::string merges, read("merges.txt"));
    return NewGpt2Tokenizer(std::move(vocabulary), std::move(merges), directory);
  }
  if (file_system.Exists(path("tokenizer.json"))) {
    ACCRUE_ASSIGN_OR_RETURN(const std::string json, read("tokenizer.json"));
    std::unique_ptr<Tokenizer> bytes = NewByteTokenizer();
    if (json == bytes->Files()[0].contents) return bytes;
    return absl::InvalidArgumentError(
        absl::StrCat(path("tokenizer.json"),
                     ": expected the byte tokenizer; others are read from tokenizer.model (SentencePiece) or "
                     "vocab.json and merges.txt (GPT-2)"));
  }
  return absl::NotFoundError(absl::StrCat(
      directory,
      " holds no tokenizer: expected tokenizer.model, vocab.json and merges.txt, or tokenizer.json"));
}

}  // namespace accrue
