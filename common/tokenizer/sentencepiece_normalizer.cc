#include "common/tokenizer/sentencepiece_normalizer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/tokenizer/utf8.h"

namespace accrue {
namespace {

constexpr absl::string_view kReplacementCharacter = "\xEF\xBF\xBD";

// Units of a double-array trie. Source: Darts::Details::DoubleArrayUnit of darts-clone.
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t ValueOf(uint32_t unit) { return unit & 0x7FFFFFFFu; }
uint32_t LabelOf(uint32_t unit) { return unit & (0x80000000u | 0xFFu); }
uint32_t OffsetOf(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

// Bytes of the well-formed sequence at the beginning of text; 0 when it is ill-formed.
size_t SequenceLength(absl::string_view text) {
  const uint8_t first = static_cast<uint8_t>(text[0]);
  const size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  return length <= text.size() && IsValidUtf8(text.substr(0, length)) ? length : 0;
}

// Appends text with `space` for every space.
void AppendEscaped(absl::string_view text, absl::string_view space, std::string* out) {
  while (!text.empty()) {
    const size_t length = std::min(text.find(' '), text.size());
    out->append(text.data(), length);
    text.remove_prefix(length);
    if (text.empty()) return;
    out->append(space.data(), space.size());
    text.remove_prefix(1);
  }
}

}  // namespace

void PrefixMatcher::Add(std::string symbol) {
  longest_ = std::max(longest_, symbol.size());
  symbols_.insert(std::move(symbol));
}

size_t PrefixMatcher::Match(absl::string_view text) const {
  for (size_t length = std::min(longest_, text.size()); length > 0; --length) {
    if (symbols_.contains(text.substr(0, length))) return length;
  }
  return 0;
}

absl::StatusOr<SentencePieceNormalizer> SentencePieceNormalizer::Create(const SentencePieceModel& model,
                                                                        const PrefixMatcher& symbols,
                                                                        const std::string& place) {
  SentencePieceNormalizer normalizer;
  normalizer.add_dummy_prefix_ = model.add_dummy_prefix;
  normalizer.remove_extra_whitespaces_ = model.remove_extra_whitespaces;
  normalizer.escape_whitespaces_ = model.escape_whitespaces;
  normalizer.whitespace_as_suffix_ = model.whitespace_as_suffix;
  normalizer.symbols_ = symbols;
  normalizer.changes_nothing_ = model.character_map.empty() && symbols.empty() &&
                                !model.remove_extra_whitespaces && !model.whitespace_as_suffix;
  if (model.character_map.empty()) return normalizer;
  uint32_t trie_bytes = 0;
  const size_t size = model.character_map.size();
  if (size > sizeof(trie_bytes)) std::memcpy(&trie_bytes, model.character_map.data(), sizeof(trie_bytes));
  if (size <= sizeof(trie_bytes) || trie_bytes > size - sizeof(trie_bytes) || trie_bytes % 4 != 0 ||
      trie_bytes == 0) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": the normaliser's character map of ", size,
                                                   " bytes says that its trie has ", trie_bytes));
  }
  normalizer.trie_.resize(trie_bytes / 4);
  std::memcpy(normalizer.trie_.data(), model.character_map.data() + 4, trie_bytes);
  normalizer.replacements_ = model.character_map.substr(4 + trie_bytes);
  return normalizer;
}

size_t SentencePieceNormalizer::LongestMatch(absl::string_view text, uint32_t* replacement) const {
  if (trie_.empty()) return 0;
  size_t longest = 0;
  uint32_t at = OffsetOf(trie_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    at ^= byte;
    if (at >= trie_.size() || LabelOf(trie_[at]) != byte) break;
    const uint32_t unit = trie_[at];
    at ^= OffsetOf(unit);
    if (!HasLeaf(unit)) continue;
    if (at >= trie_.size() || ValueOf(trie_[at]) >= replacements_.size()) break;
    longest = i + 1;
    *replacement = ValueOf(trie_[at]);
  }
  return longest;
}

SentencePieceNormalizer::Prefix SentencePieceNormalizer::NormalizePrefix(absl::string_view text) const {
  if (const size_t length = symbols_.Match(text); length > 0) return {text.substr(0, length), length};
  uint32_t replacement = 0;
  if (const size_t length = LongestMatch(text, &replacement); length > 0) {
    // c_str() ends it where the map does not.
    return {absl::string_view(replacements_.c_str() + replacement), length};
  }
  const size_t length = SequenceLength(text);
  if (length == 0) return {kReplacementCharacter, 1};
  return {text.substr(0, length), length};
}

std::string SentencePieceNormalizer::Normalize(absl::string_view text, bool continues) const {
  const absl::string_view space = escape_whitespaces_ ? kSpaceSymbol : absl::string_view(" ");
  std::string out;
  if (remove_extra_whitespaces_ && !continues) {
    while (!text.empty()) {
      const Prefix prefix = NormalizePrefix(text);
      if (prefix.normalized != " ") break;
      text.remove_prefix(prefix.length);
    }
  }
  if (text.empty()) return out;
  out.reserve(text.size() + text.size() / 2);
  if (!whitespace_as_suffix_ && add_dummy_prefix_ && !continues) absl::StrAppend(&out, space);
  if (changes_nothing_ && IsValidUtf8(text)) {
    AppendEscaped(text, space, &out);
    return out;
  }
  bool after_space = remove_extra_whitespaces_ && !continues;
  while (!text.empty()) {
    const Prefix prefix = NormalizePrefix(text);
    absl::string_view normalized = prefix.normalized;
    while (after_space && absl::ConsumePrefix(&normalized, " ")) {
    }
    if (!normalized.empty()) {
      AppendEscaped(normalized, space, &out);
      after_space = remove_extra_whitespaces_ && absl::EndsWith(normalized, " ");
    }
    text.remove_prefix(prefix.length);
  }
  if (remove_extra_whitespaces_) {
    while (absl::EndsWith(out, space)) out.erase(out.size() - space.size());
  }
  if (whitespace_as_suffix_ && add_dummy_prefix_ && !continues) absl::StrAppend(&out, space);
  return out;
}

}  // namespace accrue
