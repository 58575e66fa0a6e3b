#include "common/data/dataset.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/data/data_manifest.h"
#include "common/data/mask.h"
#include "common/data/shard.h"
#include "common/hash.h"
#include "common/permutation.h"
#include "common/status.h"

namespace accrue {
namespace {

// A shard with its mask, opened and checked.
struct OpenShard {
  std::unique_ptr<Shard> tokens;
  std::unique_ptr<MaskSidecar> mask;
};

absl::Status CheckHash(const std::string& path, const MappedFile& file, const std::string& expected) {
  if (expected.empty()) return absl::OkStatus();
  const std::string found = HashBytes(file.data(), file.size_bytes()).Hex();
  if (found == expected) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(path, ": expected XXH3-128 ", expected,
                                                    " (as pinned by the job), found ", found,
                                                    "; the file has changed, or this is another copy"));
}

absl::StatusOr<OpenShard> OpenAndCheck(FileSystem& file_system, const ShardReference& reference,
                                       int64_t vocabulary) {
  // The size first: a shard that was replaced is reported as changed, not as whatever it happens to be now.
  ACCRUE_ASSIGN_OR_RETURN(const uint64_t size_bytes, file_system.SizeBytes(reference.path));
  if (reference.size_bytes != 0 && reference.size_bytes != size_bytes) {
    const std::string expected_hash =
        reference.xxh3_128.empty() ? "" : absl::StrCat(", XXH3-128 ", reference.xxh3_128);
    const auto found_hash = HashFile(file_system, reference.path);
    return absl::FailedPreconditionError(
        absl::StrCat(reference.path, ": expected ", reference.size_bytes, " bytes", expected_hash,
                     " (as pinned by the job), found ", size_bytes, " bytes",
                     found_hash.ok() ? absl::StrCat(", XXH3-128 ", *found_hash) : "",
                     "; the file has changed, or this is another copy"));
  }
  OpenShard shard;
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, file_system.Map(reference.path));
  ACCRUE_RETURN_IF_ERROR(CheckHash(reference.path, *file, reference.xxh3_128));
  ACCRUE_ASSIGN_OR_RETURN(shard.tokens, Shard::Open(file_system, reference.path));
  ACCRUE_RETURN_IF_ERROR(shard.tokens->CheckTokens(vocabulary));
  if (!reference.mask_path.empty()) {
    ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> mask_file, file_system.Map(reference.mask_path));
    ACCRUE_RETURN_IF_ERROR(CheckHash(reference.mask_path, *mask_file, reference.mask_xxh3_128));
    ACCRUE_ASSIGN_OR_RETURN(shard.mask,
                            MaskSidecar::Open(file_system, reference.mask_path, shard.tokens->tokens()));
  }
  return shard;
}

// Opens all, several at a time; of several errors the first shard's is returned.
absl::StatusOr<std::vector<OpenShard>> OpenAll(FileSystem& file_system,
                                               const std::vector<ShardReference>& references,
                                               int64_t vocabulary) {
  std::vector<absl::StatusOr<OpenShard>> opened(references.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < references.size(); i = next++) {
      opened[i] = OpenAndCheck(file_system, references[i], vocabulary);
    }
  };
  std::vector<std::thread> threads;
  const size_t wanted =
      std::min<size_t>(references.size(), std::max(1u, std::thread::hardware_concurrency()));
  for (size_t i = 1; i < wanted; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  std::vector<OpenShard> shards;
  for (absl::StatusOr<OpenShard>& shard : opened) {
    if (!shard.ok()) return shard.status();
    shards.push_back(*std::move(shard));
  }
  return shards;
}

class ShardedDataset : public Dataset {
 public:
  // first_tokens_ and first_examples_ number tokens and examples over all shards.
  ShardedDataset(std::vector<OpenShard> shards, const Options& options)
      : shards_(std::move(shards)), options_(options), masked_(shards_.front().mask != nullptr) {
    int64_t examples = 0;
    for (const OpenShard& shard : shards_) {
      first_tokens_.push_back(tokens_);
      first_examples_.push_back(examples);
      tokens_ += shard.tokens->tokens();
      if (masked_) examples += shard.mask->examples();
    }
    sequences_ = masked_ ? examples : std::max<int64_t>(0, tokens_ - 1) / options_.sequence_length;
  }

  int64_t sequences() const override { return sequences_; }
  int64_t tokens() const override { return tokens_; }
  bool masked() const override { return masked_; }

  int64_t SequenceAt(int64_t number) const override {
    ACCRUE_CHECK(number >= 0);
    const uint64_t index = static_cast<uint64_t>(number) % static_cast<uint64_t>(sequences_);
    if (options_.order == DataOrder::kSequential) return static_cast<int64_t>(index);
    const uint64_t epoch = static_cast<uint64_t>(number) / static_cast<uint64_t>(sequences_);
    return static_cast<int64_t>(Permutation(static_cast<uint64_t>(sequences_), options_.seed, epoch)(index));
  }

  std::vector<Range> RangesOf(int64_t sequence) const override {
    std::vector<Range> ranges;
    ForEachRange(sequence, [&](const Range& range) { ranges.push_back(range); });
    return ranges;
  }

  void Read(int64_t sequence, int32_t* tokens, int32_t* targets) const override {
    const int64_t length = options_.sequence_length;
    int64_t filled =
        0;  // tokens of the sequence so far; the first T are inputs, all but the first are targets
    ForEachRange(sequence, [&](const Range& range) {
      const OpenShard& shard = shards_[static_cast<size_t>(range.shard)];
      const int64_t inputs = std::min(range.count, length - filled);
      shard.tokens->Copy(range.first_token, inputs, tokens + filled);
      const int64_t skipped = filled == 0 ? 1 : 0;
      int32_t* const out = targets + filled - 1 + skipped;
      shard.tokens->Copy(range.first_token + skipped, range.count - skipped, out);
      for (int64_t i = skipped; masked_ && i < range.count; ++i) {
        if (!shard.mask->is_target(range.first_token + i)) out[i - skipped] = -1;
      }
      filled += range.count;
    });
    std::fill(tokens + std::min(filled, length), tokens + length, 0);
    std::fill(targets + std::max<int64_t>(filled, 1) - 1, targets + length, -1);
  }

 private:
  // The shard that holds `value`, given each shard's first: the last whose first is not above it. Shards that
  // hold nothing share their first with the next one and are passed over.
  static size_t Find(const std::vector<int64_t>& firsts, int64_t value) {
    return static_cast<size_t>(std::upper_bound(firsts.begin(), firsts.end(), value) - firsts.begin()) - 1;
  }

  template <typename Visit>
  void ForEachRange(int64_t sequence, Visit visit) const {
    ACCRUE_CHECK(sequence >= 0 && sequence < sequences_);
    if (masked_) {
      const size_t shard = Find(first_examples_, sequence);
      const int64_t example = sequence - first_examples_[shard];
      const int64_t first = shards_[shard].mask->offset(example);
      const int64_t count = shards_[shard].mask->offset(example + 1) - first;
      visit(Range{static_cast<int32_t>(shard), first, std::min(count, options_.sequence_length + 1)});
      return;
    }
    int64_t next = sequence * options_.sequence_length;
    const int64_t end = next + options_.sequence_length + 1;
    for (size_t shard = Find(first_tokens_, next); next < end; ++shard) {
      const int64_t first = next - first_tokens_[shard];
      const int64_t count = std::min(end - next, shards_[shard].tokens->tokens() - first);
      if (count == 0) continue;
      visit(Range{static_cast<int32_t>(shard), first, count});
      next += count;
    }
  }

  const std::vector<OpenShard> shards_;
  const Options options_;
  const bool masked_;
  int64_t tokens_ = 0;
  int64_t sequences_ = 0;
  std::vector<int64_t> first_tokens_;
  std::vector<int64_t> first_examples_;
};

// The shard's line of the manifest beside it, if there is one.
absl::StatusOr<DataManifestShard> ManifestEntryOf(FileSystem& file_system, const std::string& path) {
  const std::string directory = DirectoryOf(path);
  if (!file_system.Exists(JoinPath(directory, kDataManifestName))) return absl::NotFoundError("no manifest");
  ACCRUE_ASSIGN_OR_RETURN(const DataManifest manifest, ReadDataManifest(file_system, directory));
  for (const DataManifestShard& shard : manifest.shards) {
    if (shard.name == BaseName(path)) return shard;
  }
  return absl::NotFoundError("not in the manifest");
}

}  // namespace

absl::StatusOr<ShardInfo> InspectShard(FileSystem& file_system, const std::string& path) {
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<Shard> shard, Shard::Open(file_system, path));
  return shard->info();
}

absl::StatusOr<std::string> HashFile(FileSystem& file_system, const std::string& path) {
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file, file_system.Map(path));
  return HashBytes(file->data(), file->size_bytes()).Hex();
}

absl::StatusOr<ShardReference> PinShard(FileSystem& file_system, const std::string& path) {
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<Shard> shard, Shard::Open(file_system, path));
  ShardReference reference;
  reference.path = path;
  reference.size_bytes = shard->info().size_bytes;
  reference.xxh3_128 = HashBytes(shard->file().data(), shard->file().size_bytes()).Hex();
  const absl::StatusOr<DataManifestShard> entry = ManifestEntryOf(file_system, path);
  if (absl::IsNotFound(entry.status())) return reference;
  ACCRUE_RETURN_IF_ERROR(entry.status());
  if (entry->size_bytes != reference.size_bytes || entry->xxh3_128 != reference.xxh3_128) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": expected ", entry->size_bytes, " bytes, XXH3-128 ", entry->xxh3_128,
                     " (manifest.json beside it), found ", reference.size_bytes, " bytes, XXH3-128 ",
                     reference.xxh3_128, "; prepare the data again"));
  }
  if (entry->mask_name.empty()) return reference;
  reference.mask_path = JoinPath(DirectoryOf(path), entry->mask_name);
  ACCRUE_ASSIGN_OR_RETURN(reference.mask_xxh3_128, HashFile(file_system, reference.mask_path));
  if (reference.mask_xxh3_128 != entry->mask_xxh3_128) {
    return absl::FailedPreconditionError(absl::StrCat(
        reference.mask_path, ": expected XXH3-128 ", entry->mask_xxh3_128,
        " (manifest.json beside it), found ", reference.mask_xxh3_128, "; prepare the data again"));
  }
  return reference;
}

absl::StatusOr<std::unique_ptr<Dataset>> Dataset::Open(FileSystem& file_system,
                                                       const std::vector<ShardReference>& shards,
                                                       const Options& options) {
  ACCRUE_CHECK(options.sequence_length >= 1);
  if (shards.empty()) return absl::InvalidArgumentError("a data set needs at least one shard, found none");
  for (const ShardReference& shard : shards) {
    if (shard.mask_path.empty() != shards.front().mask_path.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          shards.front().path, shards.front().mask_path.empty() ? " has no mask, " : " has a mask, ",
          shard.path, shard.mask_path.empty() ? " has none" : " has one",
          ": expected masks for all shards of a data set, or for none"));
    }
  }
  ACCRUE_ASSIGN_OR_RETURN(std::vector<OpenShard> opened, OpenAll(file_system, shards, options.vocabulary));
  auto dataset = std::make_unique<ShardedDataset>(std::move(opened), options);
  if (dataset->sequences() == 0) {
    return absl::InvalidArgumentError(
        dataset->masked() ? absl::StrCat(shards.front().path, ": too little data: the masks of ",
                                         shards.size(), " shards name no example")
                          : absl::StrCat(shards.front().path, ": too little data: ", dataset->tokens(),
                                         " tokens in ", shards.size(), " shards, expected at least ",
                                         options.sequence_length + 1, " (sequence_length + 1)"));
  }
  return dataset;
}

}  // namespace accrue
