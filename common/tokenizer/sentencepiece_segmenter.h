// Cuts normalised text into a model's pieces: by merging pairs (BPE) or by the most probable path (unigram).
//
// Immutable; thread-safe. Sources: bpe::Model::SampleEncode and unigram::Model::EncodeOptimized of
// SentencePiece.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/tokenizer/sentencepiece_model.h"
#include "common/tokenizer/sentencepiece_normalizer.h"

namespace accrue {

class SentencePieceSegmenter {
 public:
  // Both must outlive the segmenter.
  SentencePieceSegmenter(const SentencePieceModel& model, const PrefixMatcher& symbols);

  // Appends the ids of normalised text; what no piece covers becomes bytes, or the unknown piece, once for a
  // run.
  void Segment(absl::string_view text, std::vector<int32_t>* ids) const;

  // Whether text may be cut before a run of spaces and around a line feed with the same result, since no
  // piece goes over such a cut.
  bool words_are_independent() const { return words_are_independent_; }

 private:
  struct Part {
    absl::string_view text;
    int32_t id = -1;  // -1: unknown
  };
  void SegmentBpe(absl::string_view text, std::vector<Part>* parts) const;
  void SegmentUnigram(absl::string_view text, std::vector<Part>* parts) const;
  void BuildTrie();

  const SentencePieceModel& model_;
  const PrefixMatcher& symbols_;
  bool words_are_independent_ = false;
  int32_t unknown_id_ = 0;
  int32_t byte_ids_[256] = {};
  // Pieces that text can be cut into, by text.
  absl::flat_hash_map<absl::string_view, int32_t> ids_;
  // Of unigram models: children by (node, byte), and the piece that ends at a node or -1.
  absl::flat_hash_map<uint64_t, uint32_t> children_;
  std::vector<int32_t> ends_;
  float lowest_score_ = 0, highest_score_ = 0;  // of normal pieces
};

}  // namespace accrue
