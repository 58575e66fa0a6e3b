#include "worker/backend/cpu/cpu_model_ops.h"

#include <algorithm>

#include "common/check.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/cpu/linear.h"
#include "worker/backend/cpu/scratch.h"

namespace accrue {
namespace {

using namespace cpu;  // NOLINT: the kernels that this file drives

// Rows that one task takes of the operations that work row by row; by shape alone.
constexpr int64_t kRowsPerTask = 16;
// Columns that one task takes of sums over rows: whole cache lines, and vectors of every width.
constexpr int64_t kColumnsPerTask = 64;
constexpr int64_t kConvertPerTask = 65536;

int64_t Parts(int64_t total, int64_t part) { return (total + part - 1) / part; }

class CpuModelOps : public ModelOps {
 public:
  explicit CpuModelOps(ThreadPool& pool) : pool_(pool), thread_scratch_(pool.threads()), linear_(pool, thread_scratch_) {}

  void LinearForward(const LinearForwardArgs& args) override { linear_.Forward(args); }
  void LinearBackwardInput(const LinearBackwardInputArgs& args) override { linear_.BackwardInput(args); }
  void LinearBackwardWeight(const LinearBackwardWeightArgs& args) override { linear_.BackwardWeight(args); }

  void EmbeddingForward(const EmbeddingForwardArgs& args) override {
    ReserveFloats(DropoutScratch(args.width));
    ForParts(args.rows, kRowsPerTask, [&](int64_t first, int64_t end) {
      EmbeddingForwardRows(args, first, end, Floats());
    });
  }

  void EmbeddingBackward(const EmbeddingBackwardArgs& args) override {
    ReserveFloats(DropoutScratch(args.width));
    const int64_t slices = Parts(args.width, kColumnsPerTask);
    const int64_t positions = args.dposition != nullptr ? Parts(args.context, kRowsPerTask) : 0;
    pool_.ParallelFor(slices + positions, [&](int64_t task) {
      if (task < slices) {
        const int64_t first = task * kColumnsPerTask;
        EmbeddingBackwardTokens(args, first, std::min(first + kColumnsPerTask, args.width), Floats());
      } else {
        const int64_t first = (task - slices) * kRowsPerTask;
        EmbeddingBackwardPositions(args, first, std::min(first + kRowsPerTask, args.context), Floats());
      }
    });
  }

  void NormForward(const NormForwardArgs& args) override {
    ReserveFloats(DropoutScratch(args.width));
    ForParts(args.rows, kRowsPerTask, [&](int64_t first, int64_t end) { NormForwardRows(args, first, end, Floats()); });
  }

  void NormBackward(const NormBackwardArgs& args) override {
    ReserveFloats(DropoutScratch(args.width));
    const int64_t blocks = Parts(args.rows, kColumnBlockRows);
    float* sums = shared_scratch_.Floats(blocks * 2 * args.width);
    pool_.ParallelFor(blocks, [&](int64_t block) {
      const int64_t first = block * kColumnBlockRows;
      NormBackwardRows(args, first, std::min(first + kColumnBlockRows, args.rows), sums + block * 2 * args.width,
                       Floats());
    });
    ForParts(args.width, 4 * kColumnsPerTask, [&](int64_t first, int64_t end) {
      NormBackwardColumns(args, blocks, sums, first, end);
    });
  }

  void Rope(const RopeArgs& args) override {
    ACCRUE_CHECK(args.head_size % 2 == 0);
    ForParts(args.rows, kRowsPerTask, [&](int64_t first, int64_t end) { RopeRows(args, first, end); });
  }

  void AttentionForward(const AttentionArgs& args) override {
    ACCRUE_CHECK(args.kv_heads > 0 && args.heads % args.kv_heads == 0);
    ReserveFloats(AttentionForwardScratch(args));
    const int64_t blocks = Parts(args.sequence_length, kAttentionBlock);
    // A head's blocks follow each other, so that its keys and values stay in cache; the last sees the most keys and
    // goes first.
    pool_.ParallelFor(args.batch * args.heads * blocks, [&](int64_t task) {
      const int64_t row = task / blocks, block = blocks - 1 - task % blocks;
      AttentionForwardBlock(args, row / args.heads, row % args.heads, block, Floats());
    });
  }

  void AttentionBackward(const AttentionArgs& args) override {
    ACCRUE_CHECK(args.kv_heads > 0 && args.heads % args.kv_heads == 0);
    ReserveFloats(AttentionBackwardScratch(args));
    const bool grouped = args.heads != args.kv_heads;
    float* gradients = nullptr;
    if (grouped) {
      gradients = shared_scratch_.Floats(args.batch * args.heads * 2 * args.sequence_length * args.head_size);
    }
    pool_.ParallelFor(args.batch * args.heads, [&](int64_t task) {
      AttentionBackwardHead(args, task / args.heads, task % args.heads, gradients, Floats());
    });
    if (!grouped) return;
    pool_.ParallelFor(args.batch * args.kv_heads, [&](int64_t task) {
      AttentionBackwardGroup(args, task / args.kv_heads, task % args.kv_heads, gradients);
    });
  }

  void SwiGluForward(const SwiGluArgs& args) override {
    ForParts(args.rows, kRowsPerTask, [&](int64_t first, int64_t end) { SwiGluForwardRows(args, first, end); });
  }

  void SwiGluBackward(const SwiGluArgs& args) override {
    ForParts(args.rows, kRowsPerTask, [&](int64_t first, int64_t end) { SwiGluBackwardRows(args, first, end); });
  }

  void CrossEntropy(const CrossEntropyArgs& args) override {
    pool_.ParallelFor(args.rows, [&](int64_t row) { CrossEntropyRow(args, row); });
  }

  void Convert(const float* from, const Tensor& to, int64_t elements) override {
    const Tensor values{const_cast<float*>(from), DType::kF32};
    ForParts(elements, kConvertPerTask, [&](int64_t first, int64_t end) {
      ConvertElements(values, to, first, end - first);
    });
  }

 private:
  template <typename F>
  void ForParts(int64_t total, int64_t part, F f) {
    pool_.ParallelFor(Parts(total, part), [&](int64_t task) { f(task * part, std::min(task * part + part, total)); });
  }

  void ReserveFloats(int64_t floats) { thread_scratch_.Reserve(floats * sizeof(float)); }
  float* Floats() { return static_cast<float*>(thread_scratch_.OfThisThread()); }

  ThreadPool& pool_;
  ThreadScratch thread_scratch_;
  Scratch shared_scratch_;
  Linear linear_;
};

}  // namespace

std::unique_ptr<ModelOps> CreateCpuModelOps(ThreadPool& pool) { return std::make_unique<CpuModelOps>(pool); }

}  // namespace accrue
