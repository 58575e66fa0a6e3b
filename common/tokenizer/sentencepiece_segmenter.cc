#include "common/tokenizer/sentencepiece_segmenter.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"

namespace accrue {
namespace {

using Type = SentencePieceModel::Type;

constexpr float kUnknownPenalty = 10;  // below the least score, as SentencePiece has it

// Bytes of the character at the beginning of well-formed text.
size_t CharacterLength(absl::string_view text) {
  const uint8_t first = static_cast<uint8_t>(text[0]);
  const size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  return std::min(length, text.size());
}

// A piece within which no cut can fall: spaces only at its beginning, no line feed beside anything.
bool StaysWithinAWord(absl::string_view piece) {
  if (piece == "\n") return true;
  if (absl::StrContains(piece, '\n') || absl::StrContains(piece, ' ')) return false;
  while (absl::ConsumePrefix(&piece, kSpaceSymbol)) {
  }
  return !absl::StrContains(piece, kSpaceSymbol);
}

}  // namespace

SentencePieceSegmenter::SentencePieceSegmenter(const SentencePieceModel& model, const PrefixMatcher& symbols)
    : model_(model), symbols_(symbols) {
  words_are_independent_ = model.algorithm == SentencePieceModel::Algorithm::kBpe && symbols.empty();
  lowest_score_ = std::numeric_limits<float>::max();
  highest_score_ = std::numeric_limits<float>::lowest();
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    const SentencePieceModel::Piece& piece = model.pieces[i];
    const int32_t id = static_cast<int32_t>(i);
    if (piece.type == Type::kUnknown) unknown_id_ = id;
    if (piece.type == Type::kNormal) {
      lowest_score_ = std::min(lowest_score_, piece.score);
      highest_score_ = std::max(highest_score_, piece.score);
    }
    if (piece.type != Type::kNormal && piece.type != Type::kUserDefined && piece.type != Type::kUnused)
      continue;
    ids_.emplace(piece.text, id);
    words_are_independent_ = words_are_independent_ && StaysWithinAWord(piece.text);
  }
  if (model.byte_fallback) {
    absl::flat_hash_map<absl::string_view, int32_t> bytes;
    for (size_t i = 0; i < model.pieces.size(); ++i) {
      if (model.pieces[i].type == Type::kByte) bytes.emplace(model.pieces[i].text, static_cast<int32_t>(i));
    }
    for (int byte = 0; byte < 256; ++byte) byte_ids_[byte] = bytes[BytePieceName(static_cast<uint8_t>(byte))];
  }
  if (model.algorithm == SentencePieceModel::Algorithm::kUnigram) BuildTrie();
}

void SentencePieceSegmenter::BuildTrie() {
  ends_.assign(1, -1);
  for (const auto& [text, id] : ids_) {
    if (model_.pieces[static_cast<size_t>(id)].type == Type::kUnused) continue;
    uint32_t node = 0;
    for (const char c : text) {
      const auto [it, inserted] = children_.try_emplace(uint64_t{node} << 8 | static_cast<uint8_t>(c),
                                                        static_cast<uint32_t>(ends_.size()));
      if (inserted) ends_.push_back(-1);
      node = it->second;
    }
    ends_[node] = id;
  }
}

void SentencePieceSegmenter::Segment(absl::string_view text, std::vector<int32_t>* ids) const {
  std::vector<Part> parts;
  if (model_.algorithm == SentencePieceModel::Algorithm::kBpe) {
    SegmentBpe(text, &parts);
  } else {
    SegmentUnigram(text, &parts);
  }
  bool after_unknown = false;
  for (const Part& part : parts) {
    const bool unknown = part.id < 0 || part.id == unknown_id_;
    if (!unknown) {
      ids->push_back(part.id);
    } else if (model_.byte_fallback) {
      for (const char c : part.text) ids->push_back(byte_ids_[static_cast<uint8_t>(c)]);
    } else if (!after_unknown) {
      ids->push_back(unknown_id_);
    }
    after_unknown = unknown;
  }
}

void SentencePieceSegmenter::SegmentBpe(absl::string_view text, std::vector<Part>* parts) const {
  struct Symbol {
    absl::string_view text;  // empty: merged into one before
    int32_t previous = -1, next = -1;
    bool frozen = false;  // user-defined: never merged
  };
  struct Candidate {
    float score;
    int32_t left, right;
    size_t length;  // of the pair, to see whether either side has changed since
    bool operator<(const Candidate& other) const {
      return score < other.score || (score == other.score && left > other.left);
    }
  };
  std::vector<Symbol> symbols;
  std::priority_queue<Candidate> agenda;
  // How pieces that are unused in the end were made, to take them apart again.
  absl::flat_hash_map<absl::string_view, std::pair<absl::string_view, absl::string_view>> made_of;

  while (!text.empty()) {
    const size_t matched = symbols_.Match(text);
    const size_t length = matched > 0 ? matched : CharacterLength(text);
    const int32_t at = static_cast<int32_t>(symbols.size());
    symbols.push_back({text.substr(0, length), at - 1, at + 1, matched > 0});
    text.remove_prefix(length);
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  const auto consider = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0 || symbols[left].frozen || symbols[right].frozen) return;
    const absl::string_view pair(symbols[left].text.data(),
                                 symbols[left].text.size() + symbols[right].text.size());
    const auto it = ids_.find(pair);
    if (it == ids_.end()) return;
    const SentencePieceModel::Piece& piece = model_.pieces[static_cast<size_t>(it->second)];
    agenda.push({piece.score, left, right, pair.size()});
    if (piece.type == Type::kUnused) made_of[pair] = {symbols[left].text, symbols[right].text};
  };
  for (size_t i = 1; i < symbols.size(); ++i) consider(static_cast<int32_t>(i) - 1, static_cast<int32_t>(i));
  while (!agenda.empty()) {
    const Candidate best = agenda.top();
    agenda.pop();
    Symbol& left = symbols[best.left];
    Symbol& right = symbols[best.right];
    if (left.text.empty() || right.text.empty() || left.text.size() + right.text.size() != best.length)
      continue;
    left.text = absl::string_view(left.text.data(), best.length);
    right.text = {};
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = best.left;
    consider(left.previous, best.left);
    consider(best.left, left.next);
  }
  const std::function<void(absl::string_view)> emit = [&](absl::string_view piece) {
    const auto it = ids_.find(piece);
    const int32_t id = it == ids_.end() ? -1 : it->second;
    const auto parts_of = made_of.find(piece);
    if (id < 0 || model_.pieces[static_cast<size_t>(id)].type != Type::kUnused || parts_of == made_of.end()) {
      parts->push_back({piece, id});
      return;
    }
    emit(parts_of->second.first);
    emit(parts_of->second.second);
  };
  for (int32_t i = 0; i >= 0; i = symbols[i].next) emit(symbols[i].text);
}

void SentencePieceSegmenter::SegmentUnigram(absl::string_view text, std::vector<Part>* parts) const {
  struct End {
    int32_t id = -1;
    float score = 0;         // of the best path that ends here
    int64_t begins_at = -1;  // -1: none does
  };
  const float unknown_score = lowest_score_ - kUnknownPenalty;
  std::vector<End> ends(text.size() + 1);
  const auto offer = [&](size_t begin, size_t end, int32_t id, float score) {
    if (ends[end].begins_at < 0 || score > ends[end].score)
      ends[end] = {id, score, static_cast<int64_t>(begin)};
  };
  for (size_t begin = 0; begin < text.size();) {
    const float score_here = ends[begin].score;
    const size_t character = CharacterLength(text.substr(begin));
    bool character_is_a_piece = false;
    uint32_t node = 0;
    for (size_t end = begin; end < text.size();) {
      const auto it = children_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[end]));
      if (it == children_.end()) break;
      node = it->second;
      ++end;
      if (ends_[node] < 0) continue;
      const SentencePieceModel::Piece& piece = model_.pieces[static_cast<size_t>(ends_[node])];
      // User-defined symbols always win.
      const float score = piece.type == Type::kUserDefined
                              ? static_cast<float>(static_cast<float>(end - begin) * highest_score_ - 0.1)
                              : piece.score;
      offer(begin, end, ends_[node], score + score_here);
      character_is_a_piece = character_is_a_piece || end - begin == character;
    }
    if (!character_is_a_piece) offer(begin, begin + character, unknown_id_, unknown_score + score_here);
    begin += character;
  }
  const size_t before = parts->size();
  for (int64_t end = static_cast<int64_t>(text.size()); end > 0; end = ends[end].begins_at) {
    const size_t begin = static_cast<size_t>(ends[end].begins_at);
    parts->push_back({text.substr(begin, static_cast<size_t>(end) - begin), ends[end].id});
  }
  std::reverse(parts->begin() + static_cast<std::ptrdiff_t>(before), parts->end());
}

}  // namespace accrue
