// Where every parameter tensor lies: arena offsets, chunks and buckets. docs/numerics.md, section 3.
//
// Immutable after construction; thread-safe. All sizes are in elements.
//
// Invariants:
//  1. Tensors are in canonical order; their arena ranges are disjoint, ascending, and start at multiples of 16.
//  2. A chunk lies within one tensor; the chunks of a tensor, in order, are the tensor.
//  3. A bucket is a run of whole chunks; the buckets, in order, are all chunks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/exponents.h"  // kChunkElements

namespace accrue {

inline constexpr int64_t kBucketElements = 4194304;
inline constexpr int64_t kTensorAlignment = 16;

struct TensorShape {
  std::string name;  // its Hugging Face name
  std::vector<int64_t> shape;
};

struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;
  int64_t elements = 0;
  int64_t arena_offset = 0;
  int64_t first_chunk = 0;
  int64_t chunks = 0;
  bool decays = false;  // weight decay applies: two or more dimensions
};

struct Chunk {
  int32_t tensor = 0;
  int32_t bucket = 0;
  int64_t arena_offset = 0;
  int64_t elements = 0;
};

struct Bucket {
  int64_t first_chunk = 0;
  int64_t chunks = 0;
  int64_t arena_offset = 0;  // of its first chunk
  int64_t elements = 0;      // up to the end of its last chunk, padding between tensors included
};

class ParameterLayout {
 public:
  // INVALID_ARGUMENT for an empty list, a repeated name, or a dimension below 1. Every job's buckets have at most
  // kBucketElements; tests take smaller ones.
  static absl::StatusOr<ParameterLayout> Build(const std::vector<TensorShape>& shapes,
                                               int64_t bucket_elements = kBucketElements);

  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const std::vector<Chunk>& chunks() const { return chunks_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  int64_t arena_elements() const { return arena_elements_; }  // with padding
  int64_t parameters() const { return parameters_; }          // without
  // -1 when there is none.
  int TensorIndex(absl::string_view name) const;

 private:
  ParameterLayout() = default;

  std::vector<TensorInfo> tensors_;
  std::vector<Chunk> chunks_;
  std::vector<Bucket> buckets_;
  int64_t arena_elements_ = 0;
  int64_t parameters_ = 0;
};

}  // namespace accrue
