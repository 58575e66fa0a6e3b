// Trains a SentencePiece BPE model: merges the most frequent pair of pieces within a word, again and again.
//
// Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units" (ACL 2016),
// with counts kept up to date for the words that a merge changes. One thread, and every order fixed: by
// counts, then ids.
#include <algorithm>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/tokenizer/sentencepiece_model.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/utf8.h"

namespace accrue {
namespace {

constexpr double kCharacterCoverage = 0.9995;  // of the text; rarer characters are spelled in bytes
constexpr int kMaxPieceCharacters = 16;
constexpr size_t kMaxWordCharacters = 256;

enum class CharacterClass { kSpace, kTab, kDigit, kLetter, kPunctuation };

CharacterClass ClassOf(absl::string_view character) {
  const char c = character[0];
  if (c == ' ') return CharacterClass::kSpace;
  if (c == '\t') return CharacterClass::kTab;
  if (c >= '0' && c <= '9') return CharacterClass::kDigit;
  const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || character.size() > 1;
  return letter ? CharacterClass::kLetter : CharacterClass::kPunctuation;
}

absl::string_view TakeCharacter(absl::string_view* text) {
  const uint8_t first = static_cast<uint8_t>(text->front());
  const size_t length = std::min<size_t>(text->size(), first < 0x80   ? 1
                                                       : first < 0xE0 ? 2
                                                       : first < 0xF0 ? 3
                                                                      : 4);
  const absl::string_view character = text->substr(0, length);
  text->remove_prefix(length);
  return character;
}

// Words, within which pieces are merged: a run of letters, of punctuation or of tabs, with the spaces before
// it, or one digit.
class WordCounter {
 public:
  void AddLine(absl::string_view line) {
    std::string word;
    size_t characters = 0;
    CharacterClass last = CharacterClass::kSpace;
    while (!line.empty()) {
      const absl::string_view character = TakeCharacter(&line);
      const CharacterClass now = ClassOf(character);
      const bool joins = now != CharacterClass::kDigit && (last == now || last == CharacterClass::kSpace);
      if (!word.empty() && (!joins || characters == kMaxWordCharacters)) {
        ++words_[word];
        word.clear();
        characters = 0;
      }
      absl::StrAppend(&word, now == CharacterClass::kSpace ? kSpaceSymbol : character);
      ++characters;
      last = now;
    }
    if (!word.empty()) ++words_[word];
  }
  // In order of the text, so that nothing depends on the hash table.
  std::vector<std::pair<std::string, int64_t>> Take() {
    std::vector<std::pair<std::string, int64_t>> words(words_.begin(), words_.end());
    std::sort(words.begin(), words.end());
    return words;
  }

 private:
  absl::flat_hash_map<std::string, int64_t> words_;
};

using WordCounts = std::vector<std::pair<std::string, int64_t>>;

// The most frequent characters that cover the text, most frequent first.
std::vector<std::string> ChooseCharacters(const WordCounts& words) {
  absl::flat_hash_map<std::string, int64_t> counts;
  int64_t total = 0;
  for (const auto& [word, count] : words) {
    for (absl::string_view rest = word; !rest.empty(); total += count)
      counts[std::string(TakeCharacter(&rest))] += count;
  }
  std::vector<std::pair<std::string, int64_t>> sorted(counts.begin(), counts.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  std::vector<std::string> characters;
  int64_t covered = 0;
  for (const auto& [character, count] : sorted) {
    if (static_cast<double>(covered) >= kCharacterCoverage * static_cast<double>(total)) break;
    characters.push_back(character);
    covered += count;
  }
  return characters;
}

class PairMerger {
 public:
  PairMerger(const WordCounts& words, const std::vector<std::string>& characters) {
    for (const std::string& character : characters) AddSymbol(character, 1);
    for (const auto& [text, count] : words) AddWord(text, count);
    for (const auto& [pair, uses] : pairs_) queue_.push({uses.count, pair});
  }

  // Texts of up to `limit` merged pieces, in order of merging.
  std::vector<std::string> Merge(size_t limit) {
    std::vector<std::string> pieces;
    while (pieces.size() < limit && !queue_.empty()) {
      const Candidate best = queue_.top();
      queue_.pop();
      const auto it = pairs_.find(best.pair);
      if (it == pairs_.end() || it->second.count > best.count)
        continue;  // merged, or queued again when it grew
      if (it->second.count < best.count) {
        queue_.push({it->second.count, best.pair});  // it shrank since
        continue;
      }
      if (best.count < 2) break;
      const std::vector<uint32_t> changed = std::move(it->second.words);
      pairs_.erase(it);
      const Pair pair = best.pair;
      const std::string text = symbols_[pair.first].text + symbols_[pair.second].text;
      const auto known = ids_.find(text);
      const int32_t merged =
          known != ids_.end()
              ? known->second
              : AddSymbol(text, symbols_[pair.first].characters + symbols_[pair.second].characters);
      if (known == ids_.end()) pieces.push_back(text);
      for (const uint32_t word : changed) Replace(word, pair, merged);
      std::sort(grown_.begin(), grown_.end());
      grown_.erase(std::unique(grown_.begin(), grown_.end()), grown_.end());
      for (const Pair& grown : grown_) queue_.push({pairs_[grown].count, grown});
      grown_.clear();
    }
    return pieces;
  }

 private:
  using Pair = std::pair<int32_t, int32_t>;
  struct Symbol {
    std::string text;
    int characters = 1;
  };
  struct Word {
    std::vector<int32_t> symbols;  // -1: a character that is spelled in bytes
    int64_t count = 0;
  };
  struct Uses {
    int64_t count = 0;
    std::vector<uint32_t> words;  // that may have the pair, some more than once
  };
  struct Candidate {
    int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  int32_t AddSymbol(const std::string& text, int characters) {
    const int32_t id = static_cast<int32_t>(symbols_.size());
    symbols_.push_back({text, characters});
    ids_.emplace(text, id);
    return id;
  }

  void AddWord(absl::string_view text, int64_t count) {
    Word word;
    word.count = count;
    while (!text.empty()) {
      const auto it = ids_.find(TakeCharacter(&text));
      word.symbols.push_back(it == ids_.end() ? -1 : it->second);
    }
    const uint32_t index = static_cast<uint32_t>(words_.size());
    words_.push_back(std::move(word));
    const std::vector<int32_t>& symbols = words_.back().symbols;
    for (size_t i = 1; i < symbols.size(); ++i) Count({symbols[i - 1], symbols[i]}, count, index);
    grown_.clear();
  }

  bool MayMerge(const Pair& pair) const {
    return pair.first >= 0 && pair.second >= 0 &&
           symbols_[pair.first].characters + symbols_[pair.second].characters <= kMaxPieceCharacters;
  }

  void Count(const Pair& pair, int64_t change, uint32_t word) {
    if (!MayMerge(pair)) return;
    Uses& uses = pairs_[pair];
    uses.count += change;
    if (change < 0) return;
    if (uses.words.empty() || uses.words.back() != word) uses.words.push_back(word);
    grown_.push_back(pair);
  }

  // Every occurrence of the pair in a word, from the left.
  void Replace(uint32_t index, const Pair& pair, int32_t merged) {
    Word& word = words_[index];
    std::vector<int32_t>& symbols = word.symbols;
    const auto at = std::adjacent_find(symbols.begin(), symbols.end(), [&](int32_t a, int32_t b) {
      return a == pair.first && b == pair.second;
    });
    if (at == symbols.end()) return;
    for (size_t i = 1; i < symbols.size(); ++i) {
      const Pair old{symbols[i - 1], symbols[i]};
      if (old != pair) Count(old, -word.count, index);
    }
    std::vector<int32_t> replaced;
    for (size_t i = 0; i < symbols.size(); ++i) {
      const bool here = i + 1 < symbols.size() && symbols[i] == pair.first && symbols[i + 1] == pair.second;
      replaced.push_back(here ? merged : symbols[i]);
      if (here) ++i;
    }
    symbols = std::move(replaced);
    for (size_t i = 1; i < symbols.size(); ++i) {
      const Pair now{symbols[i - 1], symbols[i]};
      if (now != pair) Count(now, word.count, index);
    }
  }

  struct PairHash {
    size_t operator()(const Pair& pair) const { return absl::HashOf(pair.first, pair.second); }
  };
  std::vector<Symbol> symbols_;
  absl::flat_hash_map<std::string, int32_t> ids_;
  std::vector<Word> words_;
  absl::flat_hash_map<Pair, Uses, PairHash> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<Pair> grown_;  // pairs that may count more than when they were queued
};

}  // namespace

absl::StatusOr<std::string> TrainSentencePiece(const std::function<bool(std::string* line)>& next_line,
                                               int64_t vocabulary) {
  WordCounter counter;
  for (std::string line; next_line(&line);) {
    counter.AddLine(IsValidUtf8(line) ? line : ReplaceInvalidUtf8(line));
  }
  const WordCounts words = counter.Take();
  const auto bad = [&](auto&&... why) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot train a SentencePiece model of ", vocabulary, " pieces: ", why...));
  };
  if (words.empty()) return bad("there is no text to train on");
  const std::vector<std::string> characters = ChooseCharacters(words);

  using Type = SentencePieceModel::Type;
  SentencePieceModel model;
  model.algorithm = SentencePieceModel::Algorithm::kBpe;
  model.byte_fallback = true;
  model.add_dummy_prefix = false;          // nothing is changed in a text,
  model.remove_extra_whitespaces = false;  // so that code keeps its spaces
  model.pieces = {{"<unk>", 0, Type::kUnknown}, {"<s>", 0, Type::kControl}, {"</s>", 0, Type::kControl}};
  for (int byte = 0; byte < 256; ++byte) {
    model.pieces.push_back({BytePieceName(static_cast<uint8_t>(byte)), 0, Type::kByte});
  }
  const int64_t fixed = static_cast<int64_t>(model.pieces.size() + characters.size());
  if (vocabulary < fixed) return bad("its characters and bytes alone are ", fixed, "; ask for more");

  // Merged pieces first, then characters: a merge that came earlier has the higher score.
  std::vector<std::string> texts =
      PairMerger(words, characters).Merge(static_cast<size_t>(vocabulary - fixed));
  texts.insert(texts.end(), characters.begin(), characters.end());
  for (size_t i = 0; i < texts.size(); ++i) {
    model.pieces.push_back({std::move(texts[i]), -static_cast<float>(i), Type::kNormal});
  }
  return model.Serialize();
}

}  // namespace accrue
