#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/tokenizer/sentencepiece_model.h"
#include "common/tokenizer/token_cache.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/utf8.h"

namespace accrue {
namespace {

constexpr absl::string_view kSpaceSymbol = "\xE2\x96\x81";

// Bytes of the first word of text: up to where a run of spaces begins, or a line feed, which is a word of its own.
size_t WordLength(absl::string_view text) {
  if (text.front() == '\n') return 1;
  size_t i = 0;
  while (i < text.size() && text[i] == ' ') ++i;
  for (; i < text.size(); ++i) {
    if (text[i] == '\n') return i;
    // A symbol that looks like a space to the model may belong to the run.
    if (text[i] == ' ' && !absl::EndsWith(text.substr(0, i), kSpaceSymbol)) {
      if (text[i - 1] != ' ') return i;
    }
  }
  return i;
}

class SentencePieceEncoder : public Encoder {
 public:
  explicit SentencePieceEncoder(const SentencePieceModel& model) : model_(model) {}

  absl::Status Encode(absl::string_view text, std::vector<int32_t>* ids) override {
    if (text.empty()) return absl::OkStatus();
    if (!IsValidUtf8(text)) return EncodeValid(ReplaceInvalidUtf8(text), ids);
    return EncodeValid(text, ids);
  }

 private:
  absl::Status EncodeValid(absl::string_view text, std::vector<int32_t>* ids) {
    if (!model_.words_are_independent()) return EncodeWhole(text, ids);
    while (!text.empty()) {
      const size_t length = WordLength(text);
      absl::Status status =
          cache_.Append(text.substr(0, length), ids,
                        [this](absl::string_view word, std::vector<int32_t>* out) { return EncodeWhole(word, out); });
      if (!status.ok()) return status;
      text.remove_prefix(length);
    }
    return absl::OkStatus();
  }

  absl::Status EncodeWhole(absl::string_view text, std::vector<int32_t>* ids) {
    std::string error;
    if (model_.Encode(std::string_view(text.data(), text.size()), ids, &error)) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("SentencePiece cannot encode: ", error));
  }

  const SentencePieceModel& model_;
  TokenCache cache_;
};

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string serialized, std::unique_ptr<SentencePieceModel> model)
      : serialized_(std::move(serialized)), model_(std::move(model)) {}

  absl::string_view kind() const override { return "sentencepiece"; }
  int64_t vocabulary_size() const override { return model_->size(); }
  int32_t end_of_document() const override { return model_->end_of_sentence(); }
  std::unique_ptr<Encoder> NewEncoder() const override { return std::make_unique<SentencePieceEncoder>(*model_); }

  std::string Decode(absl::Span<const int32_t> ids) const override {
    for (const int32_t id : ids) ACCRUE_CHECK(id >= 0 && id < model_->size());
    return model_->Decode(std::vector<int>(ids.begin(), ids.end()));
  }

  std::vector<File> Files() const override {
    const nlohmann::ordered_json config{{"tokenizer_class", "LlamaTokenizer"},
                                        {"bos_token", "<s>"},
                                        {"eos_token", "</s>"},
                                        {"unk_token", "<unk>"},
                                        {"add_bos_token", false},
                                        {"add_eos_token", false},
                                        {"add_prefix_space", model_->adds_dummy_prefix()},
                                        {"legacy", false},
                                        {"clean_up_tokenization_spaces", false}};
    return {{"tokenizer.model", serialized_}, {"tokenizer_config.json", config.dump(2) + "\n"}};
  }

 private:
  const std::string serialized_;
  const std::unique_ptr<SentencePieceModel> model_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> NewSentencePieceTokenizer(std::string model, const std::string& place) {
  std::string error;
  std::unique_ptr<SentencePieceModel> loaded = SentencePieceModel::Load(model, &error);
  if (loaded == nullptr) return absl::InvalidArgumentError(absl::StrCat(place, ": ", error));
  if (loaded->size() <= 0) return absl::InvalidArgumentError(absl::StrCat(place, ": the model has no pieces"));
  return std::unique_ptr<Tokenizer>(std::make_unique<SentencePieceTokenizer>(std::move(model), std::move(loaded)));
}

absl::StatusOr<std::string> TrainSentencePiece(const std::function<bool(std::string* line)>& next_line,
                                               int64_t vocabulary) {
  std::string serialized, error;
  if (SentencePieceModel::Train(next_line, vocabulary, &serialized, &error)) return serialized;
  return absl::InvalidArgumentError(absl::StrCat("cannot train a SentencePiece model of ", vocabulary,
                                                 " pieces: ", error));
}

}  // namespace accrue
