// The products of attention in bf16 (docs/numerics.md, section 4) on blocks that lie packed in cache, by
// either engine: the processor's matrix tiles (kAmx), or AVX-512's dot product of bf16 pairs. A word is two
// bf16 that a product adds up.
//
// Only for code that runs where HasBf16Dot() says so, and HasAmx() where kAmx.
#pragma once

#include <cstdint>

#include "worker/backend/cpu/amx-inl.h"
#include "worker/backend/cpu/bf16_dot-inl.h"
#include "worker/backend/cpu/kernels.h"

HWY_PUSH_ATTRIBUTES(ACCRUE_BF16_DOT_TARGET)
namespace accrue::cpu::bf16_attention {

using namespace bf16_dot;  // NOLINT: the vocabulary of this file

constexpr int64_t kBlock = kAttentionBlock;
// On the diagonal, products skip what is masked by steps of this many queries or keys: one vector, or what a
// tile's product adds up.
template <bool kAmx>
constexpr int64_t kGranule = kAmx ? amx::kTileDepth : kLanes;
static_assert(kBlock % (2 * kGranule<false>) == 0 && kBlock % kGranule<true> == 0);

constexpr int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
constexpr int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

// How a head lies in scratch.
struct HeadShape {
  explicit HeadShape(const AttentionArgs& args)
      : size(args.head_size),
        words((size + 1) / 2),
        pairs(RoundUp(words, kLanes)),
        width(RoundUp(size, kLanes)),
        padded(2 * pairs) {}
  int64_t size;
  int64_t words;   // that hold a row
  int64_t pairs;   // words of a packed row
  int64_t width;   // of sums: whole vectors
  int64_t padded;  // elements of a packed row, words of a packed pair of rows
};

// A block of queries and one of keys; `queries` and `keys` are in whole granules.
struct Pair {
  int64_t granule = 0;
  int64_t first_query = 0, queries = 0;
  int64_t first_key = 0, keys = 0;
  bool diagonal() const { return first_query == first_key; }
  // Steps in which products go through a block.
  int64_t step() const { return diagonal() ? granule : kBlock; }
  // Keys that some query of the granule of `lane` sees.
  int64_t VisibleKeys(int64_t lane) const { return diagonal() ? lane / granule * granule + granule : keys; }
  // The first lane of the granule that sees a key of the granule of `key`.
  int64_t FirstLane(int64_t key) const { return diagonal() ? key / granule * granule : 0; }
};

// c[m, n] = a[m, k] b[k, n], or, where accumulate, c plus that: both engines take it. a and b are words; a's
// row stride and b's are theirs. m, n and k are multiples of 16.
struct WordProduct {
  int64_t m = 0, n = 0, k = 0;
  const uint32_t* a = nullptr;
  int64_t a_stride = 0;
  const uint32_t* b = nullptr;
  int64_t b_stride = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  bool accumulate = false;
};

template <int kColumns>
HWY_INLINE void TileRow(const WordProduct& g, int64_t row, int64_t column) {
  float* c = g.c + row * g.c_stride + column;
  if (g.accumulate) {
    amx::LoadRow<kColumns>(c, g.c_stride * 4);
  } else {
    amx::ZeroRow<kColumns>();
  }
  amx::DotRow<kColumns>(g.a + row * g.a_stride, g.a_stride * 4, g.b + column, g.b_stride * 4, g.k / kLanes);
  amx::StoreRow<kColumns>(c, g.c_stride * 4);
}

HWY_INLINE void MultiplyTiles(const WordProduct& g) {
  for (int64_t row = 0; row < g.m; row += amx::kTileRows) {
    int64_t column = 0;
    for (; column + 64 <= g.n; column += 64) TileRow<4>(g, row, column);
    if (column + 32 <= g.n) {
      TileRow<2>(g, row, column);
      column += 32;
    }
    if (column < g.n) TileRow<1>(g, row, column);
  }
}

template <bool kAmx>
HWY_INLINE void MultiplyWords(const WordProduct& g) {
  if constexpr (kAmx) {
    MultiplyTiles(g);
  } else {
    Multiply({.m = g.m,
              .n = g.n,
              .k = g.k,
              .a = g.a,
              .a_row = g.a_stride,
              .a_column = 1,
              .b = g.b,
              .b_stride = g.b_stride,
              .c = g.c,
              .c_stride = g.c_stride,
              .accumulate = g.accumulate});
  }
}

// scores[keys, kBlock] of `count` keys from `key` = a[keys, pairs] columns[pairs, kBlock], from the first
// lane that sees any of them.
template <bool kAmx>
HWY_INLINE void ScoreProduct(const Pair& pair, const HeadShape& head, int64_t key, int64_t count,
                             const uint32_t* a, const uint32_t* columns, float* scores) {
  const int64_t lane = pair.FirstLane(key);
  MultiplyWords<kAmx>({.m = count,
                       .n = pair.queries - lane,
                       .k = kAmx ? head.pairs : head.words,
                       .a = a + key * head.pairs,
                       .a_stride = head.pairs,
                       .b = columns + lane,
                       .b_stride = kBlock,
                       .c = scores + lane,
                       .c_stride = kBlock});
}

// Sums over keys, c[queries, width] (+)= transposed scores[keys / 2, kBlock] rows[keys / 2, width], words of
// two keys; what c held is first multiplied by its query's factor, where these are given. By tiles all of it
// lies transposed: c[width, kBlock] (+)= columns[width, kBlock / 2] scores.
struct QuerySums {
  const uint32_t* scores = nullptr;
  const uint32_t* keys = nullptr;  // rows, or columns
  float* c = nullptr;
  bool accumulate = false;
  const float* factors = nullptr;
};
template <bool kAmx>
void AddByQueries(const Pair& pair, const HeadShape& head, const QuerySums& sums) {
  const int64_t step = Least(pair.step(), pair.queries);
  if (kAmx && sums.accumulate && sums.factors != nullptr) {
    for (int64_t lane = 0; lane < pair.queries; lane += kLanes) {
      const __m512 factor = Load(sums.factors + lane);
      for (float* c = sums.c + lane; c < sums.c + head.width * kBlock; c += kBlock)
        Store(_mm512_mul_ps(Load(c), factor), c);
    }
  }
  for (int64_t query = 0; query < pair.queries; query += step) {
    if constexpr (kAmx) {
      MultiplyTiles({.m = head.width,
                     .n = step,
                     .k = pair.VisibleKeys(query) / 2,
                     .a = sums.keys,
                     .a_stride = kBlock / 2,
                     .b = sums.scores + query,
                     .b_stride = kBlock,
                     .c = sums.c + query,
                     .c_stride = kBlock,
                     .accumulate = sums.accumulate});
    } else {
      Multiply({.m = step,
                .n = head.width,
                .k = pair.VisibleKeys(query) / 2,
                .a = sums.scores + query,
                .a_row = 1,
                .a_column = kBlock,
                .b = sums.keys,
                .b_stride = head.padded,
                .c = sums.c + query * head.width,
                .c_stride = head.width,
                .accumulate = sums.accumulate,
                .row_factors = sums.factors == nullptr ? nullptr : sums.factors + query});
    }
  }
}

// Keys as AddByQueries takes them.
template <bool kAmx>
HWY_INLINE void PackKeysForQueries(const HalfMatrix& from, int64_t keys, const HeadShape& head,
                                   uint32_t* to) {
  if constexpr (kAmx) {
    PackColumnPairs(from, keys, head.width, to, kBlock / 2);
  } else {
    PackRowPairs(from, keys, head.padded, to);
  }
}

// A block of its sums, a query a row: where they lie, or in `rows`.
template <bool kAmx>
const float* QueryRows(const float* sums, const HeadShape& head, float* rows) {
  if constexpr (!kAmx) return sums;
  for (int64_t r = 0; r < kBlock; r += kLanes) {
    for (int64_t i = 0; i < head.width; i += kLanes) {
      __m512i words[16];
      for (int64_t l = 0; l < 16; ++l) words[l] = _mm512_loadu_si512(sums + (i + l) * kBlock + r);
      Transpose16(words);
      for (int64_t l = 0; l < 16; ++l) _mm512_storeu_si512(rows + (r + l) * head.width + i, words[l]);
    }
  }
  return rows;
}

// c[keys, width] (+)= scores[keys, kBlock / 2] rows[queries / 2, width], words of two queries.
template <bool kAmx>
void AddByKeys(const Pair& pair, const HeadShape& head, const uint32_t* scores, const uint32_t* rows,
               float* c, bool accumulate) {
  const int64_t step = Least(pair.step(), pair.keys);
  for (int64_t key = 0; key < pair.keys; key += step) {
    const int64_t query = pair.FirstLane(key);
    MultiplyWords<kAmx>({.m = step,
                         .n = head.width,
                         .k = (pair.queries - query) / 2,
                         .a = scores + (key * kBlock + query) / 2,
                         .a_stride = kBlock / 2,
                         .b = rows + query / 2 * head.padded,
                         .b_stride = head.padded,
                         .c = c + key * head.width,
                         .c_stride = head.width,
                         .accumulate = accumulate});
  }
}

}  // namespace accrue::cpu::bf16_attention
HWY_POP_ATTRIBUTES
