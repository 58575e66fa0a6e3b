// The validation loss of a smoothed bigram model: what a trained model must beat to have learned more than
// which token follows which.
//
//   p(b | a) = (c(a, b) + k p1(b)) / (c(a) + k),   p1(b) = (c(b) + 1) / (n + V)
//
// with counts c over the n pairs of the training tokens, c(a) pairs that begin with a and c(b) pairs that end
// with b, and V the vocabulary. k is the power of two in [2^-3, 2^14] with the least loss on a twentieth of
// the training pairs (16 runs of neighbours, evenly spread), counts taken from the others; then all are
// counted. With masks, pairs are within an example and b is a target.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/data/dataset.h"
#include "common/file_system.h"

namespace accrue {

struct BigramResult {
  double loss = 0;  // nats per validation token
  double k = 0;
  int64_t vocabulary = 0;
  int64_t train_pairs = 0;
  int64_t validation_pairs = 0;
};

// vocabulary 0: the largest token plus one. INVALID_ARGUMENT for bad shards and for fewer than 20 training
// pairs or no validation pair.
absl::StatusOr<BigramResult> BigramLoss(FileSystem& file_system, const std::vector<ShardReference>& train,
                                        const std::vector<ShardReference>& validation, int64_t vocabulary);

// With the shards that the folder's manifest names. NOT_FOUND without a manifest.
absl::StatusOr<BigramResult> BigramLossOfFolder(FileSystem& file_system, const std::string& directory);

}  // namespace accrue
