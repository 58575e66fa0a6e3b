// The binary32 product of matrices that lie as they are multiplied, which the library packs for nothing. Panels of
// b's columns are gathered to stay in the first-level cache while all rows of a pass by; sums are held in registers.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/backend/cpu/gemm_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target:
#include <algorithm>

#include "hwy/cache_control.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace accrue::cpu::HWY_NAMESPACE {
namespace {

// 32 registers hold 6 x 4 vectors of sums, 16 hold 6 x 2, with room for a row of b.
constexpr int kRegisterRows = 6;
constexpr int kPanelVectors = HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3 ? 4 : 2;
constexpr int64_t kPanel = kPanelVectors * kLanes;
static_assert((kGemmDepth + 1) * kPanel <= GemmTileScratch(1));

// What one block of K adds to some rows and one panel of c.
struct PanelProduct {
  int64_t rows = 0, depth = 0;
  const float* a = nullptr;
  int64_t a_row = 0;
  const float* b = nullptr;     // [depth, kPanel]
  const float* base = nullptr;  // what sums are added to, with base_row from row to row; null: nothing
  int64_t base_row = 0;
  float* c = nullptr;
  int64_t c_row = 0;
};

template <int kRows, int kVectors>
HWY_INLINE void RegisterTile(const PanelProduct& p, int64_t row) {
  VF sums[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) sums[i][j] = hn::Zero(DF());
  }
  // The sums' places arrive while the products run.
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kVectors; ++j) hwy::Prefetch(p.c + (row + i) * p.c_row + j * kLanes);
  }
  const float* a = p.a + row * p.a_row;
  const float* b = p.b;
  for (int64_t l = 0; l < p.depth; ++l, b += kPanel) {
    VF right[kVectors];
    for (int j = 0; j < kVectors; ++j) right[j] = hn::Load(DF(), b + j * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const VF left = hn::Set(DF(), a[i * p.a_row + l]);
      for (int j = 0; j < kVectors; ++j) sums[i][j] = hn::MulAdd(left, right[j], sums[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    float* c = p.c + (row + i) * p.c_row;
    const float* base = p.base + (row + i) * p.base_row;
    for (int j = 0; j < kVectors; ++j) {
      Store(p.base != nullptr ? hn::Add(Load(base + j * kLanes), sums[i][j]) : sums[i][j], c + j * kLanes);
    }
  }
}

template <int kVectors>
HWY_NOINLINE void MultiplyPanel(const PanelProduct& p) {
  int64_t row = 0;
  for (; row + kRegisterRows <= p.rows; row += kRegisterRows) RegisterTile<kRegisterRows, kVectors>(p, row);
  for (; row + 4 <= p.rows; row += 4) RegisterTile<4, kVectors>(p, row);
  for (; row < p.rows; ++row) RegisterTile<1, kVectors>(p, row);
}

void MultiplyVectors(const PanelProduct& p, int64_t vectors) {
  if (vectors > kPanelVectors / 2 || kPanelVectors == 1) return MultiplyPanel<kPanelVectors>(p);
  if (vectors > 1 || kPanelVectors == 2) return MultiplyPanel<(kPanelVectors + 1) / 2>(p);
  MultiplyPanel<1>(p);
}

// to[depth, kPanel] = columns of b, zero beyond.
void GatherPanel(const float* b, int64_t b_row, int64_t depth, int64_t columns, float* to) {
  for (int64_t l = 0; l < depth; ++l) {
    ForVectors(columns, [&](int64_t i, int64_t n) HWY_ATTR { Store(LoadN(b + l * b_row + i, n), to + l * kPanel + i); });
  }
}

// A last, narrow panel: vectors would reach beyond c's rows, so its products go to scratch, and from there what is
// c's is added.
void MultiplyNarrow(const PanelProduct& p, int64_t columns, float* scratch) {
  PanelProduct to_scratch = p;
  to_scratch.base = nullptr;
  to_scratch.c = scratch;
  to_scratch.c_row = kPanel;
  MultiplyVectors(to_scratch, (columns + kLanes - 1) / kLanes);
  for (int64_t r = 0; r < p.rows; ++r) {
    ForVectors(columns, [&](int64_t i, int64_t n) HWY_ATTR {
      VF sum = LoadN(scratch + r * kPanel + i, n);
      if (p.base != nullptr) sum = hn::Add(LoadN(p.base + r * p.base_row + i, n), sum);
      StoreN(sum, p.c + r * p.c_row + i, n);
    });
  }
}

void GemmTile(const GemmTileArgs& g, float* scratch) {
  float* panel = scratch;
  float* narrow = panel + kGemmDepth * kPanel;
  for (int64_t first = 0; first < g.k; first += kGemmDepth) {
    PanelProduct p{.rows = g.m, .depth = std::min(kGemmDepth, g.k - first), .a = g.a + first, .a_row = g.a_row,
                   .b = panel, .c_row = g.c_row};
    for (int64_t column = 0; column < g.n; column += kPanel) {
      const int64_t columns = std::min(kPanel, g.n - column);
      GatherPanel(g.b + first * g.b_row + column, g.b_row, p.depth, columns, panel);
      p.c = g.c + column;
      const bool adds = first > 0 || g.accumulate;
      p.base = adds ? p.c : g.bias != nullptr ? g.bias + column : nullptr;
      p.base_row = adds ? g.c_row : 0;
      if (columns == kPanel) {
        MultiplyPanel<kPanelVectors>(p);
      } else {
        MultiplyNarrow(p, columns, narrow);
      }
    }
  }
}

}  // namespace
}  // namespace accrue::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace accrue::cpu {

HWY_EXPORT(GemmTile);

void GemmTile(const GemmTileArgs& args, float* scratch) { HWY_DYNAMIC_DISPATCH(GemmTile)(args, scratch); }

}  // namespace accrue::cpu
#endif
