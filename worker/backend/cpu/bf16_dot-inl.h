// Products of bf16 matrices that lie in cache, by AVX-512's dot product of pairs (vdpbf16ps), for attention.
// A word is two bf16 that a dot product adds up: the even element below, the odd one above.
//
// Only for code that runs where HasBf16Dot() says so. Nothing of the standard library is instantiated between
// the attributes below: such a copy would be compiled for AVX-512 and might serve the whole program.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "hwy/base.h"
#include "worker/backend/cpu/bf16.h"

#define ACCRUE_BF16_DOT_TARGET "avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16"
// For lambdas, which the attributes below do not reach with every compiler.
#define ACCRUE_BF16_DOT_ATTR __attribute__((target(ACCRUE_BF16_DOT_TARGET), always_inline))

HWY_PUSH_ATTRIBUTES(ACCRUE_BF16_DOT_TARGET)
namespace accrue::cpu::bf16_dot {

constexpr int64_t kLanes = 16;

HWY_INLINE __m512 Load(const float* p) { return _mm512_loadu_ps(p); }
HWY_INLINE void Store(__m512 v, float* p) { _mm512_storeu_ps(p, v); }
HWY_INLINE __m512bh Pairs(__m512i words) { return (__m512bh)words; }
HWY_INLINE __m512i Words(__m512bh pairs) { return (__m512i)pairs; }

// c[m, n] = a[m, k] b[k, n], or, where accumulate, c (times row_factors[m], if given) plus that. a and b are
// words, so that k counts pairs. a's word (i, l) is at a[i * a_row + l * a_column]; b and c are row-major; n
// is a multiple of kLanes. Each element of c is a chain over k in ascending order, whatever the blocking.
struct DotProduct {
  int64_t m = 0, n = 0, k = 0;
  const uint32_t* a = nullptr;
  int64_t a_row = 0, a_column = 0;
  const uint32_t* b = nullptr;
  int64_t b_stride = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  bool accumulate = false;
  const float* row_factors = nullptr;
};

// Rows [row, row + kRows) and kVectors vectors of columns from `column`, held in registers.
template <int kRows, int kVectors>
HWY_INLINE void DotTile(const DotProduct& g, int64_t row, int64_t column) {
  __m512 sums[kRows][kVectors];
  float* c = g.c + row * g.c_stride + column;
  if (!g.accumulate) {
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kVectors; ++j) sums[i][j] = _mm512_setzero_ps();
    }
  } else if (g.row_factors == nullptr) {
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kVectors; ++j) sums[i][j] = Load(c + i * g.c_stride + j * kLanes);
    }
  } else {
    for (int i = 0; i < kRows; ++i) {
      const __m512 factor = _mm512_set1_ps(g.row_factors[row + i]);
      for (int j = 0; j < kVectors; ++j)
        sums[i][j] = _mm512_mul_ps(Load(c + i * g.c_stride + j * kLanes), factor);
    }
  }
  const uint32_t* a = g.a + row * g.a_row;
  const uint32_t* b = g.b + column;
  for (int64_t l = 0; l < g.k; ++l, a += g.a_column, b += g.b_stride) {
    __m512i right[kVectors];
    for (int j = 0; j < kVectors; ++j) right[j] = _mm512_loadu_si512(b + j * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const __m512i left = _mm512_set1_epi32(static_cast<int>(a[i * g.a_row]));
      for (int j = 0; j < kVectors; ++j)
        sums[i][j] = _mm512_dpbf16_ps(sums[i][j], Pairs(left), Pairs(right[j]));
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) Store(sums[i][j], c + i * g.c_stride + j * kLanes);
  }
}

template <int kRows, int kVectors>
HWY_INLINE int64_t DotRows(const DotProduct& g, int64_t row, int64_t column) {
  for (; row + kRows <= g.m; row += kRows) DotTile<kRows, kVectors>(g, row, column);
  return row;
}

// A panel of kVectors vectors of columns, all rows; 24 sums of the 32 registers.
template <int kVectors>
HWY_NOINLINE void DotPanel(const DotProduct& g, int64_t column) {
  constexpr int kMostRows = 24 / kVectors;
  int64_t row = DotRows<kMostRows, kVectors>(g, 0, column);
  if constexpr (kMostRows > 8) row = DotRows<8, kVectors>(g, row, column);
  row = DotRows<4, kVectors>(g, row, column);
  DotRows<1, kVectors>(g, row, column);
}

HWY_INLINE void Multiply(const DotProduct& g) {
  int64_t column = 0;
  for (; column + 4 * kLanes <= g.n; column += 4 * kLanes) DotPanel<4>(g, column);
  switch ((g.n - column) / kLanes) {
    case 3:
      return DotPanel<3>(g, column);
    case 2:
      return DotPanel<2>(g, column);
    case 1:
      return DotPanel<1>(g, column);
    default:
      return;
  }
}

// Words (even row, odd row) of two rows' elements 0 to 15, and of 16 to 31.
HWY_INLINE __m512i InterleaveLow(__m512i even, __m512i odd) {
  const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7,
                                         38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  return _mm512_permutex2var_epi16(even, order, odd);
}
HWY_INLINE __m512i InterleaveHigh(__m512i even, __m512i odd) {
  const __m512i order = _mm512_set_epi16(63, 31, 62, 30, 61, 29, 60, 28, 59, 27, 58, 26, 57, 25, 56, 24, 55,
                                         23, 54, 22, 53, 21, 52, 20, 51, 19, 50, 18, 49, 17, 48, 16);
  return _mm512_permutex2var_epi16(even, order, odd);
}

// Rounds two vectors to bf16, to nearest even: `even` in the lower half of the result, `odd` in the upper.
HWY_INLINE __m512i RoundTwo(__m512 even, __m512 odd) { return Words(_mm512_cvtne2ps_pbh(odd, even)); }
// The same, as words (even, odd).
HWY_INLINE __m512i InterleaveRounded(__m512i rounded) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                         22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, rounded);
}

// 16 x 16 words, transposed in place.
HWY_INLINE void Transpose16(__m512i (&rows)[16]) {
  __m512i pairs[16], quads[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    quads[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    quads[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    quads[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    quads[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  // quads[4g + c] holds rows 4g to 4g + 3 of column 4k + c in its k-th quarter.
  for (int c = 0; c < 4; ++c) {
    const __m512i even0 = _mm512_shuffle_i32x4(quads[c], quads[4 + c], 0x88);
    const __m512i even1 = _mm512_shuffle_i32x4(quads[8 + c], quads[12 + c], 0x88);
    const __m512i odd0 = _mm512_shuffle_i32x4(quads[c], quads[4 + c], 0xDD);
    const __m512i odd1 = _mm512_shuffle_i32x4(quads[8 + c], quads[12 + c], 0xDD);
    rows[c] = _mm512_shuffle_i32x4(even0, even1, 0x88);
    rows[4 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0x88);
    rows[8 + c] = _mm512_shuffle_i32x4(even0, even1, 0xDD);
    rows[12 + c] = _mm512_shuffle_i32x4(odd0, odd1, 0xDD);
  }
}

// A matrix in memory: `rows` x `columns`, row r at data + r * stride. Reading it pads it with zeros.
struct HalfMatrix {
  Bf16* data = nullptr;
  int64_t stride = 0, rows = 0, columns = 0;

  // Its rows from `row` on.
  HWY_INLINE HalfMatrix From(int64_t row) const { return {data + row * stride, stride, rows - row, columns}; }

  // 32 elements of a row; those beyond the matrix are zero, and not read.
  HWY_INLINE __m512i At(int64_t row, int64_t column) const {
    const int64_t left = row < rows ? columns - column : 0;
    const uint32_t mask = left >= 32 ? ~uint32_t{0} : left <= 0 ? 0 : (uint32_t{1} << left) - 1;
    return _mm512_maskz_loadu_epi16(mask, data + row * stride + column);
  }

  // Asks for the rows [row, row + count), which are needed soon.
  HWY_INLINE void Fetch(int64_t row, int64_t count) const { Fetch(row, count, columns); }
  // Of these, the first `width` columns.
  HWY_INLINE void Fetch(int64_t row, int64_t count, int64_t width) const {
    const int64_t end = row + count < rows ? row + count : rows;
    if (width > columns) width = columns;
    for (; row < end; ++row) {
      for (int64_t column = 0; column < width; column += 2 * kLanes) {
        _mm_prefetch(reinterpret_cast<const char*>(data + row * stride + column), _MM_HINT_T0);
      }
    }
  }
};

// to[rows, words], a word being two neighbours in a row. words: a multiple of kLanes.
HWY_INLINE void PackRows(const HalfMatrix& from, int64_t rows, int64_t words, uint32_t* to) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t w = 0; w < words; w += kLanes) _mm512_storeu_si512(to + r * words + w, from.At(r, 2 * w));
  }
}

// to[words, to_stride], transposed: a word is two neighbours in a row; as many words as fill whole vectors.
// rows: a multiple of 16.
HWY_INLINE void PackColumns(const HalfMatrix& from, int64_t rows, uint32_t* to, int64_t to_stride) {
  const int64_t words = (from.columns + 2 * kLanes - 1) / (2 * kLanes) * kLanes;
  for (int64_t r = 0; r < rows; r += 16) {
    for (int64_t w = 0; w < words; w += 16) {
      __m512i block[16];
      for (int i = 0; i < 16; ++i) block[i] = from.At(r + i, 2 * w);
      Transpose16(block);
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + (w + i) * to_stride + r, block[i]);
    }
  }
}

// to[rows / 2, width]: a word is two neighbours in a column. rows is even, width a multiple of 2 * kLanes.
HWY_INLINE void PackRowPairs(const HalfMatrix& from, int64_t rows, int64_t width, uint32_t* to) {
  for (int64_t r = 0; r < rows; r += 2, to += width) {
    for (int64_t c = 0; c < width; c += 2 * kLanes) {
      const __m512i even = from.At(r, c), odd = from.At(r + 1, c);
      _mm512_storeu_si512(to + c, InterleaveLow(even, odd));
      _mm512_storeu_si512(to + c + kLanes, InterleaveHigh(even, odd));
    }
  }
}

// to[columns, to_stride], transposed: a word is two neighbours in a column. rows: a multiple of 32; columns:
// of 16.
HWY_INLINE void PackColumnPairs(const HalfMatrix& from, int64_t rows, int64_t columns, uint32_t* to,
                                int64_t to_stride) {
  for (int64_t r = 0; r < rows; r += 32) {
    for (int64_t c = 0; c < columns; c += 32) {
      __m512i low[16], high[16];
      for (int i = 0; i < 16; ++i) {
        const __m512i even = from.At(r + 2 * i, c), odd = from.At(r + 2 * i + 1, c);
        low[i] = InterleaveLow(even, odd);
        high[i] = InterleaveHigh(even, odd);
      }
      Transpose16(low);
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + (c + i) * to_stride + r / 2, low[i]);
      if (c + 16 >= columns) break;
      Transpose16(high);
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(to + (c + 16 + i) * to_stride + r / 2, high[i]);
    }
  }
}

// 2^x, relative error below 2^-18; 2^0 is 1, 2^-inf is 0, NaN stays NaN. Coefficients: least relative error
// on [0, 1].
HWY_INLINE __m512 Exp2(__m512 x) {
  constexpr int kFractionAboveFloor = 0x09;
  const __m512 r = _mm512_reduce_ps(x, kFractionAboveFloor);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.013426683843135834f), r, _mm512_set1_ps(0.052242472767829895f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.241280198097229f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6930448412895203f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);  // p * 2^floor(x)
}

// Sum of 16 lanes: halves added to halves.
HWY_INLINE float SumOfLanes(__m512 v) {
  v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4E));
  v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xB1));
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4E));
  v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xB1));
  return _mm512_cvtss_f32(v);
}

}  // namespace accrue::cpu::bf16_dot
HWY_POP_ATTRIBUTES
