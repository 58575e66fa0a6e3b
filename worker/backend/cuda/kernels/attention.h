// What the attention kernels share: where things lie, and the arithmetic of one score. FlashAttention (Dao et al.,
// 2022; 2023): no T x T matrix, a row's log-sum-exp saved for the backward pass, and every sum in one warp's registers
// in ascending order of what it is over, so nothing depends on which block runs when.
//
// A kernel is built for heads of 64 and of 128 elements (kHead); smaller heads are padded with zeros.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/dropout.h"
#include "worker/backend/cuda/kernels/tile_loop.h"

namespace accrue::cuda {

struct AttentionKernelArgs {
  AttentionArgs op;
  DropoutKey dropout;
  float scale;           // 1 / sqrt(head_size)
  float scale2;          // scale * log2(e)
  bool aligned;          // as RowSource's, of all matrices
  float* row_products;   // backward: [batch, heads, T], sums of dout * out
};

inline constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
inline constexpr int kMaxHead = 128;

// One head of one sequence, and the first of its rows that a block takes.
struct HeadPlace {
  int sequence, head, kv_head, first;
};

template <typename T>
ACCRUE_BODY RowSource<T> HeadRows(const AttentionKernelArgs& args, const Tensor& matrix, int64_t stride,
                                  int64_t sequence, int64_t head) {
  const AttentionArgs& op = args.op;
  return {static_cast<const T*>(matrix.data) + sequence * op.sequence_length * stride + head * op.head_size, stride,
          static_cast<int>(op.sequence_length), static_cast<int>(op.head_size), args.aligned};
}

// Where log_sum_exp and row_products of a head begin.
ACCRUE_BODY int64_t StatisticsOf(const AttentionArgs& op, int64_t sequence, int64_t head) {
  return (sequence * op.heads + head) * op.sequence_length;
}

// Of a probability's dropout.
ACCRUE_BODY int64_t ProbabilityOf(const AttentionArgs& op, int64_t sequence, int64_t head, int64_t query, int64_t key) {
  return (StatisticsOf(op, sequence, head) + query) * op.sequence_length + key;
}

ACCRUE_BODY int64_t BlocksOf(int64_t length, int64_t block) { return (length + block - 1) / block; }
// The same in 32 bits, for what is computed while a kernel runs; a sequence is shorter than 2^31.
ACCRUE_BODY int Blocks32(int64_t length, int block) { return (static_cast<int>(length) + block - 1) / block; }

// The lower and upper row of a lane's part of a stripe.
using RowPair = PerLane<float>[2];

}  // namespace accrue::cuda
