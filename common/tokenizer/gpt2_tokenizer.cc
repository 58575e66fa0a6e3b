#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/check.h"
#include "common/status.h"
#include "common/tokenizer/gpt2_bytes.h"
#include "common/tokenizer/gpt2_pretokenizer.h"
#include "common/tokenizer/token_cache.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/utf8.h"

namespace accrue {
namespace {

constexpr char kEndOfDocumentName[] = "<|endoftext|>";

// Constant after it is built.
struct Vocabulary {
  std::array<int32_t, 256> byte_ids{};
  struct Merge {
    int32_t rank = 0;  // lower merges first
    int32_t id = 0;    // of the merged pair
  };
  absl::flat_hash_map<std::pair<int32_t, int32_t>, Merge> merges;
  std::vector<std::string> bytes_of;  // by id: the bytes that a token stands for
  int32_t end_of_document = -1;
};

// Merges the pairs of one word: always the lowest rank, and of equal ones the leftmost, as GPT-2 does. O(n
// log n).
class Merger {
 public:
  explicit Merger(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

  void Append(absl::string_view word, std::vector<int32_t>* ids) {
    symbols_.clear();
    for (size_t i = 0; i < word.size(); ++i) {
      const int32_t at = static_cast<int32_t>(i);
      symbols_.push_back(
          {vocabulary_.byte_ids[static_cast<uint8_t>(word[i])], at - 1, i + 1 < word.size() ? at + 1 : -1});
    }
    for (size_t i = 0; i + 1 < symbols_.size(); ++i) Consider(static_cast<int32_t>(i));
    while (!candidates_.empty()) {
      const Candidate best = candidates_.top();
      candidates_.pop();
      Symbol& left = symbols_[best.left];
      // Stale when either side has been merged since.
      if (left.id != best.left_id || left.next < 0 || symbols_[left.next].id != best.right_id) continue;
      Symbol& right = symbols_[left.next];
      left.id = best.merged_id;
      right.id = -1;
      left.next = right.next;
      if (left.next >= 0) symbols_[left.next].previous = best.left;
      if (left.previous >= 0) Consider(left.previous);
      Consider(best.left);
    }
    for (const Symbol& symbol : symbols_) {
      if (symbol.id >= 0) ids->push_back(symbol.id);
    }
  }

 private:
  struct Symbol {
    int32_t id = 0;  // -1: merged into one before
    int32_t previous = -1;
    int32_t next = -1;
  };
  struct Candidate {
    int32_t rank, left, left_id, right_id, merged_id;
    bool operator>(const Candidate& other) const {
      return std::pair(rank, left) > std::pair(other.rank, other.left);
    }
  };

  void Consider(int32_t left) {
    const Symbol& symbol = symbols_[left];
    if (symbol.next < 0) return;
    const int32_t right_id = symbols_[symbol.next].id;
    const auto it = vocabulary_.merges.find({symbol.id, right_id});
    if (it != vocabulary_.merges.end()) {
      candidates_.push({it->second.rank, left, symbol.id, right_id, it->second.id});
    }
  }

  const Vocabulary& vocabulary_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates_;
};

class Gpt2Encoder : public Encoder {
 public:
  Gpt2Encoder(const Vocabulary& vocabulary, const Gpt2Pretokenizer& pretokenizer)
      : splitter_(pretokenizer), merger_(vocabulary) {}

  absl::Status EncodePart(absl::string_view text, bool /*continues*/, std::vector<int32_t>* ids) override {
    if (!IsValidUtf8(text)) return EncodeValid(ReplaceInvalidUtf8(text), ids);
    return EncodeValid(text, ids);
  }

 private:
  absl::Status EncodeValid(absl::string_view text, std::vector<int32_t>* ids) {
    for (size_t at = 0, length = 0; at < text.size(); at += length) {
      ACCRUE_RETURN_IF_ERROR(splitter_.Next(text, at, &length));
      ACCRUE_RETURN_IF_ERROR(cache_.Append(text.substr(at, length), ids,
                                           [this](absl::string_view word, std::vector<int32_t>* out) {
                                             merger_.Append(word, out);
                                             return absl::OkStatus();
                                           }));
    }
    return absl::OkStatus();
  }

  Gpt2Pretokenizer::Splitter splitter_;
  Merger merger_;
  TokenCache cache_;
};

class Gpt2Tokenizer : public Tokenizer {
 public:
  Gpt2Tokenizer(std::string vocabulary_json, std::string merges, Vocabulary vocabulary)
      : vocabulary_json_(std::move(vocabulary_json)),
        merges_(std::move(merges)),
        vocabulary_(std::move(vocabulary)) {}

  absl::string_view kind() const override { return "gpt2"; }
  int64_t vocabulary_size() const override { return static_cast<int64_t>(vocabulary_.bytes_of.size()); }
  int32_t end_of_document() const override { return vocabulary_.end_of_document; }
  std::unique_ptr<Encoder> NewEncoder() const override {
    return std::make_unique<Gpt2Encoder>(vocabulary_, pretokenizer_);
  }

  std::string Decode(absl::Span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      ACCRUE_CHECK(id >= 0 && id < vocabulary_size());
      text += vocabulary_.bytes_of[static_cast<size_t>(id)];
    }
    return text;
  }

  std::vector<File> Files() const override {
    nlohmann::ordered_json config{{"tokenizer_class", "GPT2Tokenizer"},
                                  {"add_prefix_space", false},
                                  {"clean_up_tokenization_spaces", false}};
    if (vocabulary_.end_of_document >= 0) {
      for (const char* token : {"bos_token", "eos_token", "unk_token"}) config[token] = kEndOfDocumentName;
    }
    return {{"vocab.json", vocabulary_json_},
            {"merges.txt", merges_},
            {"tokenizer_config.json", config.dump(2) + "\n"}};
  }

 private:
  const std::string vocabulary_json_;
  const std::string merges_;
  const Vocabulary vocabulary_;
  const Gpt2Pretokenizer pretokenizer_;
};

using TokenIds = absl::flat_hash_map<std::string, int32_t>;

// Token names and ids; ids are 0..n-1, each once.
absl::StatusOr<TokenIds> ParseTokenIds(const std::string& text, const std::string& place) {
  const auto bad = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": vocab.json: ", parts...));
  };
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return bad("expected a JSON object of tokens and ids");
  TokenIds ids;
  std::vector<bool> seen(json.size(), false);
  for (const auto& [token, value] : json.items()) {
    if (!value.is_number_integer()) return bad("token \"", token, "\" has no integer id");
    const int64_t id = value.get<int64_t>();
    if (id < 0 || id >= static_cast<int64_t>(seen.size())) {
      return bad("token \"", token, "\" has id ", id, ", expected 0 to ", seen.size() - 1);
    }
    if (seen[static_cast<size_t>(id)]) return bad("id ", id, " is given twice, to \"", token, "\" too");
    seen[static_cast<size_t>(id)] = true;
    ids.emplace(token, static_cast<int32_t>(id));
  }
  return ids;
}

// The bytes that a token's characters stand for; a special token stands for its name.
std::string BytesOf(const std::string& token, const absl::flat_hash_map<std::string, uint8_t>& byte_of) {
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    size_t length = 1;
    while (i + length < token.size() && (static_cast<uint8_t>(token[i + length]) & 0xC0) == 0x80) ++length;
    const auto it = byte_of.find(token.substr(i, length));
    if (it == byte_of.end()) return token;
    bytes.push_back(static_cast<char>(it->second));
    i += length;
  }
  return bytes;
}

absl::Status ParseMerges(const std::string& text, const TokenIds& ids, const std::string& place,
                         Vocabulary* vocabulary) {
  int32_t rank = 0;
  int64_t line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty() || (line_number == 1 && line.substr(0, 8) == "#version")) continue;
    const std::vector<std::string> parts = absl::StrSplit(line, ' ');
    const auto bad = [&](auto&&... what) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": merges.txt:", line_number, ": ", what...));
    };
    if (parts.size() != 2)
      return bad("expected two tokens and one space between them, found \"", line.substr(0, 100), "\"");
    const auto left = ids.find(parts[0]), right = ids.find(parts[1]), merged = ids.find(parts[0] + parts[1]);
    if (left == ids.end() || right == ids.end() || merged == ids.end()) {
      return bad("\"", line.substr(0, 100), "\" names or makes a token that vocab.json does not have");
    }
    vocabulary->merges.try_emplace({left->second, right->second}, Vocabulary::Merge{rank++, merged->second});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> NewGpt2Tokenizer(std::string vocabulary_json, std::string merges,
                                                            const std::string& place) {
  ACCRUE_ASSIGN_OR_RETURN(const TokenIds ids, ParseTokenIds(vocabulary_json, place));
  Vocabulary vocabulary;
  absl::flat_hash_map<std::string, uint8_t> byte_of;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string symbol = Gpt2Symbol(static_cast<uint8_t>(byte));
    const auto it = ids.find(symbol);
    if (it == ids.end()) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": vocab.json: byte ", byte, " (\"", symbol,
                                                     "\") has no id; is this a byte-level BPE?"));
    }
    vocabulary.byte_ids[static_cast<size_t>(byte)] = it->second;
    byte_of.emplace(symbol, static_cast<uint8_t>(byte));
  }
  vocabulary.bytes_of.resize(ids.size());
  for (const auto& [token, id] : ids) vocabulary.bytes_of[static_cast<size_t>(id)] = BytesOf(token, byte_of);
  if (const auto it = ids.find(kEndOfDocumentName); it != ids.end()) {
    vocabulary.end_of_document = it->second;
    vocabulary.bytes_of[static_cast<size_t>(it->second)] = kEndOfDocumentName;
  }
  ACCRUE_RETURN_IF_ERROR(ParseMerges(merges, ids, place, &vocabulary));
  return std::unique_ptr<Tokenizer>(
      std::make_unique<Gpt2Tokenizer>(std::move(vocabulary_json), std::move(merges), std::move(vocabulary)));
}

}  // namespace accrue
