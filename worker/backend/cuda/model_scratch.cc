#include "worker/backend/cuda/model_scratch.h"

#include "worker/backend/cuda/model_bodies.h"

namespace accrue::cuda {

size_t ScratchBytes(const ColumnSumsArgs& args) {
  return (args.rows + kColumnRows - 1) / kColumnRows * args.columns * sizeof(float);
}

size_t ScratchBytes(const EmbeddingBackwardArgs& args) {
  return 2 * EmbeddingScratch::KeyBytes(args.rows) + EmbeddingScratch::PartialBytes(args.rows, args.width);
}

size_t ScratchBytes(const NormBackwardArgs& args) {
  return (args.rows + kNormBackwardRows - 1) / kNormBackwardRows * 2 * args.width * sizeof(float);
}

size_t ScratchBytes(const AttentionArgs& args) {
  return args.batch * args.heads * args.sequence_length * sizeof(float);
}

bool AttentionSupports(const AttentionArgs& args) { return args.head_size >= 1 && args.head_size <= kMaxHead; }

}  // namespace accrue::cuda
