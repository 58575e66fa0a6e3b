#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/check.h"
#include "common/status.h"
#include "common/tokenizer/sentencepiece_json.h"
#include "common/tokenizer/sentencepiece_model.h"
#include "common/tokenizer/sentencepiece_normalizer.h"
#include "common/tokenizer/sentencepiece_segmenter.h"
#include "common/tokenizer/token_cache.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/utf8.h"

namespace accrue {
namespace {

using Type = SentencePieceModel::Type;

// Bytes of the first word of normalised text: up to where a run of spaces begins, or a line feed, which is a
// word of its own.
size_t WordLength(absl::string_view text) {
  if (text.front() == '\n') return 1;
  size_t i = 0;
  while (absl::StartsWith(text.substr(i), kSpaceSymbol)) i += kSpaceSymbol.size();
  for (; i < text.size(); ++i) {
    if (text[i] == '\n' || (text[i] == kSpaceSymbol[0] && absl::StartsWith(text.substr(i), kSpaceSymbol)))
      return i;
  }
  return i;
}

class SentencePieceEncoder : public Encoder {
 public:
  SentencePieceEncoder(const SentencePieceNormalizer& normalizer, const SentencePieceSegmenter& segmenter,
                       int32_t unknown_id)
      : normalizer_(normalizer), segmenter_(segmenter), unknown_id_(unknown_id) {}

  absl::Status EncodePart(absl::string_view text, bool continues, std::vector<int32_t>* ids) override {
    const std::string normalized = normalizer_.Normalize(text, continues);
    if (!segmenter_.words_are_independent()) {
      segmenter_.Segment(normalized, ids);
      return absl::OkStatus();
    }
    const size_t begin = ids->size();
    for (absl::string_view rest = normalized; !rest.empty();) {
      const size_t length = WordLength(rest);
      const size_t word_begin = ids->size();
      ACCRUE_RETURN_IF_ERROR(cache_.Append(rest.substr(0, length), ids,
                                           [this](absl::string_view word, std::vector<int32_t>* out) {
                                             segmenter_.Segment(word, out);
                                             return absl::OkStatus();
                                           }));
      // A run of unknown characters is one token, over words too.
      if (word_begin > begin && ids->size() > word_begin && (*ids)[word_begin] == unknown_id_ &&
          (*ids)[word_begin - 1] == unknown_id_) {
        ids->erase(ids->begin() + static_cast<std::ptrdiff_t>(word_begin));
      }
      rest.remove_prefix(length);
    }
    return absl::OkStatus();
  }

 private:
  const SentencePieceNormalizer& normalizer_;
  const SentencePieceSegmenter& segmenter_;
  const int32_t unknown_id_;
  TokenCache cache_;
};

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string serialized, SentencePieceModel model, PrefixMatcher symbols,
                         SentencePieceNormalizer normalizer)
      : serialized_(std::move(serialized)),
        model_(std::move(model)),
        symbols_(std::move(symbols)),
        normalizer_(std::move(normalizer)),
        segmenter_(model_, symbols_) {
    for (size_t i = 0; i < model_.pieces.size(); ++i) {
      const SentencePieceModel::Piece& piece = model_.pieces[i];
      if (piece.type == Type::kUnknown) unknown_id_ = static_cast<int32_t>(i);
      if (piece.type == Type::kControl && piece.text == model_.end_of_sentence)
        end_ = static_cast<int32_t>(i);
    }
  }

  absl::string_view kind() const override { return "sentencepiece"; }
  int64_t vocabulary_size() const override { return static_cast<int64_t>(model_.pieces.size()); }
  int32_t end_of_document() const override { return end_; }
  std::unique_ptr<Encoder> NewEncoder() const override {
    return std::make_unique<SentencePieceEncoder>(normalizer_, segmenter_, unknown_id_);
  }

  std::string Decode(absl::Span<const int32_t> ids) const override {
    std::string text, bytes;
    const auto flush_bytes = [&] {
      absl::StrAppend(&text, ReplaceInvalidUtf8(bytes));
      bytes.clear();
    };
    bool begins = true;  // nothing has been shown or dropped yet
    for (const int32_t id : ids) {
      ACCRUE_CHECK(id >= 0 && id < vocabulary_size());
      const SentencePieceModel::Piece& piece = model_.pieces[static_cast<size_t>(id)];
      if (piece.type == Type::kByte) {
        bytes += absl::HexStringToBytes(piece.text.substr(3, 2));  // of <0x0A>, as Parse has checked
        begins = false;
        continue;
      }
      flush_bytes();
      if (piece.type == Type::kControl) continue;
      const bool unknown = piece.type == Type::kUnknown;
      absl::string_view shown = unknown ? model_.unknown_surface : piece.text;
      // The space that the normaliser put before the text, or all that it would have removed there.
      bool dropped = false;
      if (begins && !unknown && (model_.add_dummy_prefix || model_.remove_extra_whitespaces)) {
        dropped = absl::ConsumePrefix(&shown, kSpaceSymbol) && !model_.remove_extra_whitespaces;
      }
      absl::StrAppend(&text, absl::StrReplaceAll(shown, {{kSpaceSymbol, " "}}));
      begins = begins && text.empty() && !dropped;
    }
    flush_bytes();
    return text;
  }

  std::vector<File> Files() const override {
    const std::optional<std::string> json = SentencePieceToJson(model_);
    const nlohmann::ordered_json config{{"tokenizer_class", json ? "PreTrainedTokenizerFast" : "LlamaTokenizer"},
                                        {"bos_token", "<s>"},
                                        {"eos_token", model_.end_of_sentence},
                                        {"unk_token", model_.pieces[static_cast<size_t>(unknown_id_)].text},
                                        {"add_bos_token", false},
                                        {"add_eos_token", false},
                                        {"add_prefix_space", model_.add_dummy_prefix},
                                        {"legacy", false},
                                        {"clean_up_tokenization_spaces", false}};
    std::vector<File> files{{"tokenizer.model", serialized_},
                            {"tokenizer_config.json",
                             config.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n"}};
    if (json) files.push_back({"tokenizer.json", *json});
    return files;
  }

 private:
  const std::string serialized_;
  const SentencePieceModel model_;
  const PrefixMatcher symbols_;  // user-defined
  const SentencePieceNormalizer normalizer_;
  const SentencePieceSegmenter segmenter_;  // of model_ and symbols_
  int32_t unknown_id_ = 0;
  int32_t end_ = -1;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> NewSentencePieceTokenizer(std::string bytes,
                                                                     const std::string& place) {
  ACCRUE_ASSIGN_OR_RETURN(SentencePieceModel model, SentencePieceModel::Parse(bytes, place));
  PrefixMatcher symbols;
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    if (piece.type == Type::kUserDefined) symbols.Add(piece.text);
  }
  ACCRUE_ASSIGN_OR_RETURN(SentencePieceNormalizer normalizer,
                          SentencePieceNormalizer::Create(model, symbols, place));
  return std::unique_ptr<Tokenizer>(std::make_unique<SentencePieceTokenizer>(
      std::move(bytes), std::move(model), std::move(symbols), std::move(normalizer)));
}

}  // namespace accrue
