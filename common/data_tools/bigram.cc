#include "common/data_tools/bigram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/data/data_manifest.h"
#include "common/data/mask.h"
#include "common/data/shard.h"
#include "common/status.h"

namespace accrue {
namespace {

constexpr int64_t kBlockTokens = 1 << 16;
constexpr int64_t kHeldOutShare = 20;  // one pair in so many chooses k
constexpr int64_t kHeldOutRuns = 16;   // in so many runs, spread over the training pairs
constexpr int kLowestLog2 = -3, kHighestLog2 = 14;

struct OpenShard {
  std::unique_ptr<Shard> tokens;
  std::unique_ptr<MaskSidecar> mask;  // null: none
};

absl::StatusOr<std::vector<OpenShard>> OpenAll(FileSystem& file_system,
                                               const std::vector<ShardReference>& references,
                                               int64_t vocabulary) {
  std::vector<OpenShard> shards;
  for (const ShardReference& reference : references) {
    OpenShard shard;
    ACCRUE_ASSIGN_OR_RETURN(shard.tokens, Shard::Open(file_system, reference.path));
    ACCRUE_RETURN_IF_ERROR(shard.tokens->CheckTokens(vocabulary));
    if (!reference.mask_path.empty()) {
      ACCRUE_ASSIGN_OR_RETURN(shard.mask,
                              MaskSidecar::Open(file_system, reference.mask_path, shard.tokens->tokens()));
    }
    shards.push_back(std::move(shard));
  }
  return shards;
}

// visit(a, b) for every pair, in order.
template <typename Visit>
void ForEachPair(const std::vector<OpenShard>& shards, Visit visit) {
  std::vector<int32_t> block(kBlockTokens);
  int64_t previous = -1;  // the token before; -1: none
  for (const OpenShard& shard : shards) {
    int64_t example = 0;  // the one whose begin comes next
    if (shard.mask != nullptr) previous = -1;
    for (int64_t at = 0; at < shard.tokens->tokens(); at += kBlockTokens) {
      const int64_t count = std::min(kBlockTokens, shard.tokens->tokens() - at);
      shard.tokens->Copy(at, count, block.data());
      for (int64_t i = 0; i < count; ++i) {
        bool is_target = true;
        if (shard.mask != nullptr) {
          is_target = shard.mask->is_target(at + i);
          if (shard.mask->offset(example) == at + i) {
            previous = -1;
            ++example;
          }
        }
        if (previous >= 0 && is_target)
          visit(static_cast<uint32_t>(previous), static_cast<uint32_t>(block[i]));
        previous = block[i];
      }
    }
    if (shard.mask != nullptr) previous = -1;
  }
}

class Counts {
 public:
  explicit Counts(int64_t vocabulary)
      : vocabulary_(vocabulary),
        firsts_(static_cast<size_t>(vocabulary)),
        seconds_(static_cast<size_t>(vocabulary)) {}

  void Add(uint32_t a, uint32_t b) {
    ++pairs_[uint64_t{a} << 32 | b];
    ++firsts_[a];
    ++seconds_[b];
    ++total_;
  }
  int64_t total() const { return total_; }

  // -log p(b | a) under this model, of every pair of `other`; nats in all.
  double LossOf(const Counts& other, double k) const {
    // In a fixed order, so that the sum is the same every time.
    std::vector<std::pair<uint64_t, uint64_t>> sorted(other.pairs_.begin(), other.pairs_.end());
    std::sort(sorted.begin(), sorted.end());
    double loss = 0;
    for (const auto& [pair, count] : sorted) {
      const uint32_t a = static_cast<uint32_t>(pair >> 32), b = static_cast<uint32_t>(pair);
      const double unigram = static_cast<double>(seconds_[b] + 1) / static_cast<double>(total_ + vocabulary_);
      const auto it = pairs_.find(pair);
      const double seen = it == pairs_.end() ? 0 : static_cast<double>(it->second);
      loss -=
          static_cast<double>(count) * std::log((seen + k * unigram) / (static_cast<double>(firsts_[a]) + k));
    }
    return loss;
  }

 private:
  const int64_t vocabulary_;
  absl::flat_hash_map<uint64_t, uint64_t> pairs_;
  std::vector<int64_t> firsts_;
  std::vector<int64_t> seconds_;
  int64_t total_ = 0;
};

int32_t LargestToken(const std::vector<OpenShard>& shards) {
  int32_t largest = 0;
  std::vector<int32_t> block(kBlockTokens);
  for (const OpenShard& shard : shards) {
    for (int64_t at = 0; at < shard.tokens->tokens(); at += kBlockTokens) {
      const int64_t count = std::min(kBlockTokens, shard.tokens->tokens() - at);
      shard.tokens->Copy(at, count, block.data());
      largest = std::max(largest, *std::max_element(block.begin(), block.begin() + count));
    }
  }
  return largest;
}

}  // namespace

absl::StatusOr<BigramResult> BigramLoss(FileSystem& file_system, const std::vector<ShardReference>& train,
                                        const std::vector<ShardReference>& validation, int64_t vocabulary) {
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<OpenShard> train_shards, OpenAll(file_system, train, vocabulary));
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<OpenShard> validation_shards,
                          OpenAll(file_system, validation, vocabulary));
  BigramResult result;
  result.vocabulary =
      vocabulary > 0 ? vocabulary
                     : int64_t{std::max(LargestToken(train_shards), LargestToken(validation_shards))} + 1;
  ForEachPair(train_shards, [&](uint32_t, uint32_t) { ++result.train_pairs; });
  if (result.train_pairs < kHeldOutShare) {
    return absl::InvalidArgumentError(absl::StrCat("expected at least ", kHeldOutShare,
                                                   " pairs of training tokens for a bigram model, found ",
                                                   result.train_pairs));
  }
  Counts validation_counts(result.vocabulary);
  ForEachPair(validation_shards, [&](uint32_t a, uint32_t b) { validation_counts.Add(a, b); });
  result.validation_pairs = validation_counts.total();
  if (result.validation_pairs == 0)
    return absl::InvalidArgumentError("the validation part has no pair of tokens");

  const int64_t run_pairs = std::max<int64_t>(1, result.train_pairs / (kHeldOutShare * kHeldOutRuns));
  const auto is_held_out = [&](int64_t pair) {
    return pair / run_pairs % kHeldOutShare == kHeldOutShare - 1;
  };
  Counts counts(result.vocabulary), held_out(result.vocabulary);
  int64_t at = 0;
  ForEachPair(train_shards,
              [&](uint32_t a, uint32_t b) { (is_held_out(at++) ? held_out : counts).Add(a, b); });
  double least = std::numeric_limits<double>::infinity();
  for (int log2 = kLowestLog2; log2 <= kHighestLog2; ++log2) {
    const double loss = counts.LossOf(held_out, std::ldexp(1.0, log2));
    if (loss < least) least = loss, result.k = std::ldexp(1.0, log2);
  }
  at = 0;
  ForEachPair(train_shards, [&](uint32_t a, uint32_t b) {
    if (is_held_out(at++)) counts.Add(a, b);
  });
  result.loss = counts.LossOf(validation_counts, result.k) / static_cast<double>(result.validation_pairs);
  return result;
}

absl::StatusOr<BigramResult> BigramLossOfFolder(FileSystem& file_system, const std::string& directory) {
  ACCRUE_ASSIGN_OR_RETURN(const DataManifest manifest, ReadDataManifest(file_system, directory));
  std::vector<ShardReference> train, validation;
  for (const DataManifestShard& shard : manifest.shards) {
    ShardReference reference;
    reference.path = JoinPath(directory, shard.name);
    if (!shard.mask_name.empty()) reference.mask_path = JoinPath(directory, shard.mask_name);
    (shard.split == "train" ? train : validation).push_back(std::move(reference));
  }
  return BigramLoss(file_system, train, validation, manifest.vocabulary);
}

}  // namespace accrue
