// The kernels around the matrix products. Each call is one task's share of an operation; its instruction set is
// chosen at run time. Scratch is the caller's, 64-byte aligned, of the size said.
#pragma once

#include <cstdint>

#include "worker/backend/cpu/bf16.h"
#include "worker/backend/model_ops.h"

namespace accrue::cpu {

// "avx512", "avx2", "sse4", Highway's name of another set, or "portable": what the kernels below use here; in bf16
// "avx512_bf16" or "avx512_amx", where they have it.
const char* KernelInstructionSet(DType precision);
// Whether kernels of bf16 data may use AVX-512's dot product of bf16 pairs here.
bool HasBf16Dot();

// c[m, n] = a[m, k] b[k, n] in binary32, all row-major, plus c where accumulate is set, else plus bias[n] if given.
struct GemmTileArgs {
  int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  int64_t a_row = 0;
  const float* b = nullptr;
  int64_t b_row = 0;
  float* c = nullptr;
  int64_t c_row = 0;
  const float* bias = nullptr;
  bool accumulate = false;
};
constexpr int64_t kGemmDepth = 256;  // docs/numerics.md, section 4: products
void GemmTile(const GemmTileArgs& args, float* scratch);
// Floats, for the widest vectors.
constexpr int64_t GemmTileScratch(int64_t rows) { return (kGemmDepth + rows) * 64; }

// A rectangle of a row-major matrix with row stride `stride`.
struct Rectangle {
  int64_t first_row = 0, rows = 0, first_column = 0, columns = 0, stride = 0;
};

// y = gelu_tanh(z) over a rectangle of two matrices of the same shape.
void GeluForward(const Tensor& z, const Tensor& y, const Rectangle& where);
// dx *= gelu_tanh'(z) over a rectangle.
void GeluBackward(const Tensor& z, const Tensor& dx, const Rectangle& where);
// sums[c] for the rectangle's columns: rows in blocks of 64, each summed top to bottom, blocks in order. sums is
// indexed by the matrix's column.
void ColumnSums(const Tensor& matrix, const Rectangle& where, float* sums);

// Rows [first, end). Floats of scratch: DropoutScratch(width).
constexpr int64_t DropoutScratch(int64_t elements) { return elements + 128; }
void EmbeddingForwardRows(const EmbeddingForwardArgs& args, int64_t first, int64_t end, float* scratch);
// Columns [first, end) of dtoken, all rows. Scratch: DropoutScratch(end - first).
void EmbeddingBackwardTokens(const EmbeddingBackwardArgs& args, int64_t first, int64_t end, float* scratch);
// Positions [first, end). Scratch: DropoutScratch(width).
void EmbeddingBackwardPositions(const EmbeddingBackwardArgs& args, int64_t first, int64_t end, float* scratch);

constexpr int64_t kColumnBlockRows = 64;  // docs/numerics.md, section 4: column reductions
void NormForwardRows(const NormForwardArgs& args, int64_t first, int64_t end, float* scratch);
// Rows [first, end), at most kColumnBlockRows; their sums for dgamma and dbeta go to column_sums[2, width].
void NormBackwardRows(const NormBackwardArgs& args, int64_t first, int64_t end, float* column_sums, float* scratch);
// Columns [first, end) of dgamma and dbeta: the blocks' column_sums[blocks, 2, width], in order.
void NormBackwardColumns(const NormBackwardArgs& args, int64_t blocks, const float* column_sums, int64_t first,
                         int64_t end);

void RopeRows(const RopeArgs& args, int64_t first, int64_t end);
void SwiGluForwardRows(const SwiGluArgs& args, int64_t first, int64_t end);
void SwiGluBackwardRows(const SwiGluArgs& args, int64_t first, int64_t end);
void CrossEntropyRow(const CrossEntropyArgs& args, int64_t row);
// to[i] = from[i] for i in [first, first + elements), rounded to nearest even where to's type is the smaller.
void ConvertElements(const Tensor& from, const Tensor& to, int64_t first, int64_t elements);

// Attention works on blocks of kAttentionBlock queries or keys.
constexpr int64_t kAttentionBlock = 64;
int64_t AttentionForwardScratch(const AttentionArgs& args);   // floats
int64_t AttentionBackwardScratch(const AttentionArgs& args);  // floats
// One block of queries of one head of one sequence.
void AttentionForwardBlock(const AttentionArgs& args, int64_t sequence, int64_t head, int64_t block, float* scratch);
// One query head of one sequence. With grouped queries, its dk and dv go to group_gradients
// [batch, heads, 2, sequence_length, head_size], else (null) to args.dk and args.dv.
void AttentionBackwardHead(const AttentionArgs& args, int64_t sequence, int64_t head, float* group_gradients,
                           float* scratch);
// dk and dv of one key/value head: the sum over its query heads in ascending order.
void AttentionBackwardGroup(const AttentionArgs& args, int64_t sequence, int64_t kv_head,
                            const float* group_gradients);

}  // namespace accrue::cpu
