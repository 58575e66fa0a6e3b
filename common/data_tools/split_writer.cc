#include "common/data_tools/split_writer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/data/mask.h"
#include "common/data/shard.h"
#include "common/hash.h"
#include "common/status.h"

namespace accrue {

SplitWriter::SplitWriter(FileSystem& file_system, Options options, OnShard on_shard)
    : file_system_(file_system),
      options_(std::move(options)),
      on_shard_(std::move(on_shard)),
      next_shard_(options_.next_shard) {
  ACCRUE_CHECK(options_.shard_tokens >= 1 && options_.shard_tokens <= kLlmcMaxTokens);
  Clear();
}

void SplitWriter::Clear() {
  bytes_.assign(kLlmcHeaderBytes, '\0');
  in_shard_ = 0;
  documents_ = 0;
  mask_.clear();
  offsets_.assign(1, 0);
}

void SplitWriter::Append(const TokenRun& run, int64_t from, int64_t to) {
  const size_t before = bytes_.size();
  const size_t width = static_cast<size_t>(options_.token_bytes);
  bytes_.resize(before + static_cast<size_t>(to - from) * width);
  char* out = bytes_.data() + before;
  for (int64_t i = from; i < to; ++i, out += width) {
    const uint32_t token = static_cast<uint32_t>(run.tokens[static_cast<size_t>(i)]);
    std::memcpy(out, &token, width);  // little-endian: the low bytes come first
  }
  const auto begin = std::lower_bound(run.starts.begin(), run.starts.end(), from);
  documents_ += std::lower_bound(begin, run.starts.end(), to) - begin;
  in_shard_ += to - from;
  tokens_ += to - from;
}

absl::Status SplitWriter::Add(int64_t ordinal, const TokenRun& run) {
  if (ordinal < options_.start.item) return absl::OkStatus();
  const int64_t skip = ordinal == options_.start.item ? options_.start.tokens : 0;
  if (options_.masked) return AddExamples(ordinal, run, skip);
  const int64_t count = static_cast<int64_t>(run.tokens.size());
  for (int64_t from = skip; from < count;) {
    const int64_t to = std::min(count, from + options_.shard_tokens - in_shard_);
    Append(run, from, to);
    from = to;
    if (in_shard_ == options_.shard_tokens) ACCRUE_RETURN_IF_ERROR(Flush({ordinal, from}));
  }
  return absl::OkStatus();
}

absl::Status SplitWriter::AddExamples(int64_t ordinal, const TokenRun& run, int64_t skip) {
  for (size_t i = 0; i < run.starts.size(); ++i) {
    const int64_t from = run.starts[i];
    const int64_t to =
        i + 1 < run.starts.size() ? run.starts[i + 1] : static_cast<int64_t>(run.tokens.size());
    if (from < skip) continue;
    if (in_shard_ > 0 && in_shard_ + (to - from) > options_.shard_tokens) {
      ACCRUE_RETURN_IF_ERROR(Flush({ordinal, from}));
    }
    Append(run, from, to);
    mask_.insert(mask_.end(), run.mask.begin() + from, run.mask.begin() + to);
    offsets_.push_back(static_cast<uint64_t>(in_shard_));
  }
  return absl::OkStatus();
}

absl::Status SplitWriter::Finish(int64_t items) {
  return in_shard_ > 0 ? Flush({items, 0}) : absl::OkStatus();
}

absl::Status SplitWriter::Flush(SplitPosition end) {
  const std::string stem = absl::StrFormat("%s-%05d", SplitName(options_.split), next_shard_);
  DataManifestShard shard;
  shard.split = std::string(SplitName(options_.split));
  if (options_.masked) {
    const std::string mask = MaskSidecar::Encode(offsets_, mask_);
    shard.mask_name = stem + ".mask";
    shard.mask_xxh3_128 = HashBytes(mask.data(), mask.size()).Hex();
    ACCRUE_RETURN_IF_ERROR(file_system_.WriteAtomically(JoinPath(options_.directory, shard.mask_name), mask));
  }
  const std::string header = LlmcHeader(in_shard_, options_.token_bytes);
  std::copy(header.begin(), header.end(), bytes_.begin());
  shard.name = stem + ".bin";
  shard.size_bytes = bytes_.size();
  shard.tokens = in_shard_;
  shard.documents = documents_;
  shard.xxh3_128 = HashBytes(bytes_.data(), bytes_.size()).Hex();
  ACCRUE_RETURN_IF_ERROR(file_system_.WriteAtomically(JoinPath(options_.directory, shard.name), bytes_));
  ++next_shard_;
  Clear();
  return on_shard_(shard, end);
}

}  // namespace accrue
