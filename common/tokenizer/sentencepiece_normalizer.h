// SentencePiece's normaliser: replaces characters by the model's compiled map and makes spaces visible.
//
// The map is a little-endian u32 with the size of a double-array trie (as darts-clone lays it out), the trie,
// and zero-terminated replacements that the trie's values are offsets of. Immutable; thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/tokenizer/sentencepiece_model.h"

namespace accrue {

// The longest of a set of symbols at the beginning of a text.
class PrefixMatcher {
 public:
  void Add(std::string symbol);
  // Its bytes; 0 when there is none.
  size_t Match(absl::string_view text) const;
  bool empty() const { return symbols_.empty(); }

 private:
  absl::flat_hash_set<std::string> symbols_;
  size_t longest_ = 0;
};

class SentencePieceNormalizer {
 public:
  // INVALID_ARGUMENT for a map whose sizes lie.
  static absl::StatusOr<SentencePieceNormalizer> Create(const SentencePieceModel& model,
                                                        const PrefixMatcher& symbols,
                                                        const std::string& place);

  // Text that continues what was normalised before gets no dummy prefix and keeps the spaces that it begins
  // with.
  std::string Normalize(absl::string_view text, bool continues) const;

 private:
  struct Prefix {
    absl::string_view normalized;
    size_t length = 0;  // bytes of the text that it stands for
  };
  Prefix NormalizePrefix(absl::string_view text) const;
  // The longest match: its length, and where its replacement begins.
  size_t LongestMatch(absl::string_view text, uint32_t* replacement) const;

  bool add_dummy_prefix_ = true;
  bool remove_extra_whitespaces_ = true;
  bool escape_whitespaces_ = true;
  bool whitespace_as_suffix_ = false;
  bool changes_nothing_ = false;  // in well-formed text, but for how spaces look and the dummy prefix
  std::vector<uint32_t> trie_;
  std::string replacements_;
  PrefixMatcher symbols_;
};

}  // namespace accrue
