#include "worker/engine/layout.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

namespace accrue {

absl::StatusOr<ParameterLayout> ParameterLayout::Build(const std::vector<TensorShape>& shapes,
                                                       int64_t bucket_elements) {
  if (shapes.empty()) return absl::InvalidArgumentError("a model needs at least one parameter tensor");
  ParameterLayout layout;
  absl::flat_hash_set<std::string> names;
  for (const TensorShape& shape : shapes) {
    if (!names.insert(shape.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", shape.name, "\" is named twice"));
    }
    TensorInfo tensor{.name = shape.name, .shape = shape.shape, .elements = 1};
    for (int64_t size : shape.shape) {
      if (size < 1) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor \"", shape.name, "\" has a dimension of ", size, "; expected at least 1"));
      }
      tensor.elements *= size;
    }
    tensor.decays = shape.shape.size() >= 2;
    tensor.arena_offset = layout.arena_elements_;
    tensor.first_chunk = static_cast<int64_t>(layout.chunks_.size());
    for (int64_t begin = 0; begin < tensor.elements; begin += kChunkElements) {
      const int64_t elements = std::min(kChunkElements, tensor.elements - begin);
      const int64_t offset = tensor.arena_offset + begin;
      if (layout.buckets_.empty() ||
          offset + elements - layout.buckets_.back().arena_offset > bucket_elements) {
        layout.buckets_.push_back(
            {.first_chunk = static_cast<int64_t>(layout.chunks_.size()), .arena_offset = offset});
      }
      Bucket& bucket = layout.buckets_.back();
      bucket.chunks += 1;
      bucket.elements = offset + elements - bucket.arena_offset;
      layout.chunks_.push_back({.tensor = static_cast<int32_t>(layout.tensors_.size()),
                                .bucket = static_cast<int32_t>(layout.buckets_.size() - 1),
                                .arena_offset = offset,
                                .elements = elements});
    }
    tensor.chunks = static_cast<int64_t>(layout.chunks_.size()) - tensor.first_chunk;
    layout.parameters_ += tensor.elements;
    layout.arena_elements_ += (tensor.elements + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
    layout.tensors_.push_back(std::move(tensor));
  }
  return layout;
}

int ParameterLayout::TensorIndex(absl::string_view name) const {
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (name == tensors_[i].name) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace accrue
