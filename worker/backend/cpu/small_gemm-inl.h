// Products of blocks that lie in cache, for attention; included once per instruction set.
#if defined(ACCRUE_WORKER_BACKEND_CPU_SMALL_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ACCRUE_WORKER_BACKEND_CPU_SMALL_GEMM_INL_H_
#undef ACCRUE_WORKER_BACKEND_CPU_SMALL_GEMM_INL_H_
#else
#define ACCRUE_WORKER_BACKEND_CPU_SMALL_GEMM_INL_H_
#endif

#include "worker/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace accrue::cpu::HWY_NAMESPACE {

// c[m, n] (+)= a[m, k] b[k, n]. a's element (i, l) is at a[i * a_row + l * a_column]; b and c are row-major. n is a
// multiple of kLanes. Each element of c is a chain over k in ascending order, whatever the blocking.
struct SmallGemmArgs {
  int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  int64_t a_row = 0, a_column = 0;
  const float* b = nullptr;
  int64_t b_stride = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  bool accumulate = false;
};

// Rows [row, row + kRows) and kVectors vectors of columns from `column`, held in registers.
template <int kRows, int kVectors>
HWY_INLINE void SmallGemmTile(const SmallGemmArgs& g, int64_t row, int64_t column) {
  VF sums[kRows][kVectors];
  float* c = g.c + row * g.c_stride + column;
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) {
      sums[i][j] = g.accumulate ? Load(c + i * g.c_stride + j * kLanes) : hn::Zero(DF());
    }
  }
  const float* a = g.a + row * g.a_row;
  const float* b = g.b + column;
  for (int64_t l = 0; l < g.k; ++l, a += g.a_column, b += g.b_stride) {
    VF right[kVectors];
    for (int j = 0; j < kVectors; ++j) right[j] = Load(b + j * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const VF left = hn::Set(DF(), a[i * g.a_row]);
      for (int j = 0; j < kVectors; ++j) sums[i][j] = hn::MulAdd(left, right[j], sums[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) Store(sums[i][j], c + i * g.c_stride + j * kLanes);
  }
}

template <int kRows, int kVectors>
HWY_INLINE int64_t SmallGemmRows(const SmallGemmArgs& g, int64_t row, int64_t column) {
  for (; row + kRows <= g.m; row += kRows) SmallGemmTile<kRows, kVectors>(g, row, column);
  return row;
}

// A panel of kVectors vectors of columns, all rows. 32 registers take 24 sums, 16 take 12.
template <int kVectors>
HWY_NOINLINE void SmallGemmPanel(const SmallGemmArgs& g, int64_t column) {
  constexpr int kMostRows = (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3 ? 24 : 12) / kVectors;
  int64_t row = SmallGemmRows<kMostRows, kVectors>(g, 0, column);
  if constexpr (kMostRows > 8) row = SmallGemmRows<8, kVectors>(g, row, column);
  if constexpr (kMostRows > 4) row = SmallGemmRows<4, kVectors>(g, row, column);
  if constexpr (kMostRows > 2) row = SmallGemmRows<2, kVectors>(g, row, column);
  SmallGemmRows<1, kVectors>(g, row, column);
}

inline void SmallGemm(const SmallGemmArgs& g) {
  int64_t column = 0;
  for (; column + 4 * kLanes <= g.n; column += 4 * kLanes) SmallGemmPanel<4>(g, column);
  switch ((g.n - column) / kLanes) {
    case 3: return SmallGemmPanel<3>(g, column);
    case 2: return SmallGemmPanel<2>(g, column);
    case 1: return SmallGemmPanel<1>(g, column);
    default: return;
  }
}

// to[columns, to_stride] = scale * transposed from[rows, columns], 4 x 4 at a time.
template <typename T>
void PackTransposed(const T* from, int64_t from_stride, int64_t rows, int64_t columns, float scale, float* to,
                    int64_t to_stride) {
  const hn::CappedTag<float, 4> d4;
  const hn::RepartitionToWide<decltype(d4)> d2;
  const auto scale4 = hn::Set(d4, scale);
  HWY_ALIGN float block[4 * kLanes];
  const int64_t whole_rows = rows / 4 * 4;
  for (int64_t r = 0; r < whole_rows; r += 4) {
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      for (int i = 0; i < 4; ++i) Store(Load(from + (r + i) * from_stride + c), block + i * kLanes);
      for (int64_t j = 0; j < kLanes; j += 4) {
        const auto r0 = hn::LoadU(d4, block + j), r1 = hn::LoadU(d4, block + kLanes + j);
        const auto r2 = hn::LoadU(d4, block + 2 * kLanes + j), r3 = hn::LoadU(d4, block + 3 * kLanes + j);
        const auto low01 = hn::BitCast(d2, hn::InterleaveLower(d4, r0, r1));
        const auto low23 = hn::BitCast(d2, hn::InterleaveLower(d4, r2, r3));
        const auto high01 = hn::BitCast(d2, hn::InterleaveUpper(d4, r0, r1));
        const auto high23 = hn::BitCast(d2, hn::InterleaveUpper(d4, r2, r3));
        float* out = to + (c + j) * to_stride + r;
        const auto put = [&](auto v, float* p) HWY_ATTR { hn::StoreU(hn::Mul(hn::BitCast(d4, v), scale4), d4, p); };
        put(hn::InterleaveLower(d2, low01, low23), out);
        put(hn::InterleaveUpper(d2, low01, low23), out + to_stride);
        put(hn::InterleaveLower(d2, high01, high23), out + 2 * to_stride);
        put(hn::InterleaveUpper(d2, high01, high23), out + 3 * to_stride);
      }
    }
    for (; c < columns; ++c) {
      for (int i = 0; i < 4; ++i) {
        to[c * to_stride + r + i] = scale * hn::GetLane(LoadN(from + (r + i) * from_stride + c, 1));
      }
    }
  }
  for (int64_t r = whole_rows; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      to[c * to_stride + r] = scale * hn::GetLane(LoadN(from + r * from_stride + c, 1));
    }
  }
}

}  // namespace accrue::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
