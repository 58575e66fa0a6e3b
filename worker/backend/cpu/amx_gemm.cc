// A tile of an output goes through K in blocks, so that a panel of 32 columns of the right matrix stays in
// the first-level cache while all rows pass by. Blocks of 32 x 32 sums are held in the processor's tiles;
// between blocks of K they lie in the output, where that is binary32, else in scratch: both keep them as they
// are.
#include "worker/backend/cpu/amx.h"

#include <atomic>

#include "common/check.h"
#include "hwy/base.h"

#if HWY_ARCH_X86_64 && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/backend/cpu/amx-inl.h"
#include "worker/backend/cpu/bf16_dot-inl.h"
#include "worker/backend/cpu/kernels.h"

HWY_PUSH_ATTRIBUTES(ACCRUE_BF16_DOT_TARGET)
namespace accrue::cpu {
namespace {

using bf16_dot::HalfMatrix;

constexpr int64_t kSide = 32;                        // of a block of sums
constexpr int64_t kStepBytes = 2 * amx::kTileBytes;  // of a packed panel, for 32 of K
constexpr int64_t kMostDepth = 256;
constexpr int64_t kPanelsAtOnce = 4;
constexpr int64_t kRowsAhead = 16;

constexpr int64_t Parts(int64_t total, int64_t part) { return (total + part - 1) / part; }
HWY_INLINE int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

// K is cut into even blocks.
int64_t DepthOf(int64_t k) { return Parts(Parts(k, Parts(k, kMostDepth)), kSide) * kSide; }
int64_t StepsOf(int64_t depth) { return Parts(depth, amx::kTileDepth); }
bool PacksLeft(const AmxTileArgs& g) {
  return g.a_column != 1 || g.m % kSide != 0 || g.k % amx::kTileDepth != 0;
}
bool KeepsSums(const AmxTileArgs& g) { return g.c.dtype == DType::kBF16 && g.k > DepthOf(g.k); }

struct Scratch {
  char* right = nullptr;   // [kPanelsAtOnce][steps] pairs of tiles
  char* left = nullptr;    // [panels of 32 rows][steps] pairs of tiles
  float* block = nullptr;  // [32, 32]
  float* sums = nullptr;   // [panels of columns][panels of rows][32, 32]
  int64_t bytes = 0;
};

Scratch Cut(const AmxTileArgs& g, void* memory) {
  const int64_t steps = StepsOf(DepthOf(g.k)), row_panels = Parts(g.m, kSide),
                column_panels = Parts(g.n, kSide);
  constexpr int64_t kBlockBytes = kSide * kSide * sizeof(float);
  char* const begin = static_cast<char*>(memory);
  Scratch s;
  const auto cut = [&](int64_t bytes) {
    char* at = begin + s.bytes;
    s.bytes += bytes;
    return at;
  };
  s.right = cut(kPanelsAtOnce * steps * kStepBytes);
  s.left = cut(PacksLeft(g) ? row_panels * steps * kStepBytes : 0);
  s.block = reinterpret_cast<float*>(cut(kBlockBytes));
  s.sums = reinterpret_cast<float*>(cut(KeepsSums(g) ? row_panels * column_panels * kBlockBytes : 0));
  return s;
}

// Pairs of tiles of a right matrix [k, n] that lies as it is multiplied: columns [32 p, 32 p + 32) of panel
// p.
void PackRight(const HalfMatrix& b, int64_t panels, int64_t steps, char* to) {
  for (int64_t l = 0; l < steps * amx::kTileDepth; l += 2) {
    char* at = to + l / amx::kTileDepth * kStepBytes + l % amx::kTileDepth * 32;
    b.From(l + kRowsAhead).Fetch(0, 2, panels * kSide);
    for (int64_t p = 0; p < panels; ++p, at += steps * kStepBytes) {
      const __m512i even = b.At(l, p * kSide), odd = b.At(l + 1, p * kSide);
      _mm512_store_si512(at, bf16_dot::InterleaveLow(even, odd));
      _mm512_store_si512(at + amx::kTileBytes, bf16_dot::InterleaveHigh(even, odd));
    }
  }
}

// The same of its transpose [n, k].
void PackRightTransposed(const HalfMatrix& b, int64_t panels, int64_t steps, char* to) {
  for (int64_t p = 0; p < 2 * panels; ++p) {
    for (int64_t s = 0; s < steps; ++s) {
      __m512i tile[16];
      for (int64_t i = 0; i < 16; ++i) tile[i] = b.At(p * amx::kTileRows + i, s * amx::kTileDepth);
      bf16_dot::Transpose16(tile);
      char* at = to + (p / 2 * steps + s) * kStepBytes + p % 2 * amx::kTileBytes;
      for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(at + 64 * i, tile[i]);
    }
  }
}

// Pairs of tiles of a left matrix [m, k].
void PackLeft(const HalfMatrix& a, int64_t panels, int64_t steps, char* to) {
  for (int64_t row = 0; row < panels * kSide; ++row) {
    char* at = to + row / kSide * steps * kStepBytes + row % kSide * 64;
    for (int64_t s = 0; s < steps; ++s)
      _mm512_store_si512(at + s * kStepBytes, a.At(row, s * amx::kTileDepth));
  }
}

// The same of its transpose [k, m].
void PackLeftTransposed(const HalfMatrix& a, int64_t panels, int64_t steps, char* to) {
  for (int64_t s = 0; s < steps; ++s) {
    for (int64_t p = 0; p < panels; ++p) {
      __m512i upper[16], lower[16];
      for (int64_t i = 0; i < 16; ++i) {
        const __m512i even = a.At(s * amx::kTileDepth + 2 * i, p * kSide);
        const __m512i odd = a.At(s * amx::kTileDepth + 2 * i + 1, p * kSide);
        upper[i] = bf16_dot::InterleaveLow(even, odd);
        lower[i] = bf16_dot::InterleaveHigh(even, odd);
      }
      bf16_dot::Transpose16(upper);
      bf16_dot::Transpose16(lower);
      char* at = to + (p * steps + s) * kStepBytes;
      for (int64_t i = 0; i < 16; ++i) {
        _mm512_store_si512(at + 64 * i, upper[i]);
        _mm512_store_si512(at + amx::kTileBytes + 64 * i, lower[i]);
      }
    }
  }
}

// Where a block of sums goes.
struct Block {
  int64_t row = 0, column = 0, rows = 0, columns = 0;
};

HWY_INLINE __mmask16 Lanes(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xFFFF : count <= 0 ? 0 : (1u << count) - 1);
}
HWY_INLINE uint32_t Halves(int64_t count) { return count >= 32 ? ~0u : (1u << count) - 1; }

// 32 elements of a row, of which `count` are there.
struct Row32 {
  __m512 low, high;
};
HWY_INLINE __m512 Widen(__m256i halves) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
HWY_INLINE Row32 LoadRow(const Tensor& from, int64_t element, int64_t count) {
  if (from.dtype == DType::kF32) {
    const float* at = from.f32() + element;
    return {_mm512_maskz_loadu_ps(Lanes(count), at), _mm512_maskz_loadu_ps(Lanes(count - 16), at + 16)};
  }
  const __m512i halves =
      _mm512_maskz_loadu_epi16(Halves(count), static_cast<const Bf16*>(from.data) + element);
  return {Widen(_mm512_castsi512_si256(halves)), Widen(_mm512_extracti64x4_epi64(halves, 1))};
}
HWY_INLINE void StoreRow(const Row32& row, const Tensor& to, int64_t element, int64_t count) {
  if (to.dtype == DType::kF32) {
    float* at = to.f32() + element;
    _mm512_mask_storeu_ps(at, Lanes(count), row.low);
    _mm512_mask_storeu_ps(at + 16, Lanes(count - 16), row.high);
  } else {
    _mm512_mask_storeu_epi16(static_cast<Bf16*>(to.data) + element, Halves(count),
                             bf16_dot::RoundTwo(row.low, row.high));
  }
}

// The output's block to sums[32, 32], zero beyond it.
void TakeBlock(const AmxTileArgs& g, const Block& block, float* sums) {
  for (int64_t r = 0; r < kSide; ++r) {
    Row32 row = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    if (r < block.rows) row = LoadRow(g.c, (block.row + r) * g.c_row + block.column, block.columns);
    bf16_dot::Store(row.low, sums + r * kSide);
    bf16_dot::Store(row.high, sums + r * kSide + 16);
  }
}

void GiveBlock(const AmxTileArgs& g, const Block& block, const float* sums, bool last) {
  Row32 bias = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  const bool biased = last && g.bias;
  if (biased) bias = LoadRow(g.bias, block.column, block.columns);
  for (int64_t r = 0; r < block.rows; ++r) {
    Row32 row = {bf16_dot::Load(sums + r * kSide), bf16_dot::Load(sums + r * kSide + 16)};
    if (biased) row = {_mm512_add_ps(row.low, bias.low), _mm512_add_ps(row.high, bias.high)};
    StoreRow(row, g.c, (block.row + r) * g.c_row + block.column, block.columns);
  }
}

// What the blocks of one part of K share.
struct Part {
  int64_t k = 0, depth = 0, steps = 0;
  bool first = false, last = false;
};

void PackLeftPart(const AmxTileArgs& g, const Part& part, const Scratch& s) {
  Bf16* const a = const_cast<Bf16*>(g.a) + part.k * g.a_column;
  const int64_t panels = Parts(g.m, kSide);
  if (g.a_column == 1) return PackLeft({a, g.a_row, g.m, part.depth}, panels, part.steps, s.left);
  PackLeftTransposed({a, g.a_column, part.depth, g.m}, panels, part.steps, s.left);
}

void PackRightPart(const AmxTileArgs& g, const Part& part, int64_t column, int64_t panels, const Scratch& s) {
  Bf16* const b = const_cast<Bf16*>(g.b) + part.k * g.b_row + column * g.b_column;
  if (g.b_column == 1) return PackRight({b, g.b_row, part.depth, g.n - column}, panels, part.steps, s.right);
  PackRightTransposed({b, g.b_column, g.n - column, part.depth}, panels, part.steps, s.right);
}

// The output's memory of a block, to be asked for over the steps of another's products.
HWY_INLINE amx::Fetch FetchOf(const AmxTileArgs& g, const Block& block, int64_t steps) {
  const int64_t size = g.c.dtype == DType::kF32 ? 4 : 2;
  const char* first = static_cast<const char*>(g.c.data) + (block.row * g.c_row + block.column) * size;
  return {.first = first,
          .last = first + block.columns * size - 1,
          .row_bytes = g.c_row * size,
          .rows = block.rows > 0 ? block.rows / steps : 0};
}

HWY_INLINE Block BlockAt(const AmxTileArgs& g, int64_t row, int64_t column) {
  return {
      .row = row, .column = column, .rows = Least(kSide, g.m - row), .columns = Least(kSide, g.n - column)};
}

HWY_INLINE void MultiplyBlock(const AmxTileArgs& g, const Part& part, const Block& block, const char* right,
                              bool packs_left, bool keeps_sums, const Scratch& s) {
  const int64_t row_panel = block.row / kSide;
  const bool direct = g.c.dtype == DType::kF32 && !g.bias && block.rows == kSide && block.columns == kSide;
  const bool kept = direct || keeps_sums;
  float* sums = s.block;
  if (direct) {
    sums = g.c.f32() + block.row * g.c_row + block.column;
  } else if (keeps_sums) {
    sums = s.sums + (block.column / kSide * Parts(g.m, kSide) + row_panel) * kSide * kSide;
  }
  const int64_t sums_bytes = (direct ? g.c_row : kSide) * static_cast<int64_t>(sizeof(float));
  if (part.first && !g.accumulate) {
    amx::ZeroSums();
  } else {
    if (!direct && (part.first || !kept)) TakeBlock(g, block, sums);
    amx::LoadSums(sums, sums_bytes);
  }
  // The next rows of the output arrive while the products run.
  amx::Fetch fetch;
  if (direct || part.last) fetch = FetchOf(g, BlockAt(g, block.row + kSide, block.column), part.steps);
  if (packs_left) {
    const char* left = s.left + row_panel * part.steps * kStepBytes;
    amx::DotPairs({left, 64, amx::kTileBytes, kStepBytes}, right, part.steps, fetch);
  } else {
    const int64_t row_bytes = g.a_row * 2;
    amx::DotPairs({g.a + block.row * g.a_row + part.k, row_bytes, 16 * row_bytes, 64}, right, part.steps,
                  fetch);
  }
  amx::StoreSums(sums, sums_bytes);
  if (!direct && (part.last || !kept)) GiveBlock(g, block, sums, part.last);
}

void Multiply(const AmxTileArgs& g, void* memory) {
  const Scratch s = Cut(g, memory);
  const int64_t depth = DepthOf(g.k);
  const bool packs_left = PacksLeft(g), keeps_sums = KeepsSums(g);
  const amx::Tiles tiles;
  for (int64_t k = 0; k < g.k; k += depth) {
    Part part{.k = k, .depth = Least(depth, g.k - k), .first = k == 0, .last = k + depth >= g.k};
    part.steps = StepsOf(part.depth);
    if (packs_left) PackLeftPart(g, part, s);
    for (int64_t column = 0; column < g.n; column += kPanelsAtOnce * kSide) {
      const int64_t panels = Least(kPanelsAtOnce, Parts(g.n - column, kSide));
      PackRightPart(g, part, column, panels, s);
      // Blocks beside each other in turn: what they share of the output's rows lies together in memory.
      for (int64_t row = 0; row < g.m; row += kSide) {
        for (int64_t panel = 0; panel < panels; ++panel) {
          MultiplyBlock(g, part, BlockAt(g, row, column + panel * kSide),
                        s.right + panel * part.steps * kStepBytes, packs_left, keeps_sums, s);
        }
      }
    }
  }
}

bool AskForTiles() {
  unsigned a, b, c, d;
  constexpr unsigned kBf16Tiles = 1u << 22, kTiles = 1u << 24;  // leaf 7, EDX
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kBf16Tiles) == 0 || (d & kTiles) == 0) return false;
  constexpr int kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
}

}  // namespace
}  // namespace accrue::cpu
HWY_POP_ATTRIBUTES

namespace accrue::cpu {

namespace {
std::atomic<bool> use_amx{true};
}  // namespace

bool HasAmx() {
  static const bool given = AskForTiles();
  return given && use_amx.load(std::memory_order_relaxed) && HasBf16Dot();
}
void UseAmxForTest(bool use) { use_amx.store(use); }
int64_t AmxTileScratch(const AmxTileArgs& args) { return Cut(args, nullptr).bytes; }
void AmxTile(const AmxTileArgs& args, void* scratch) { Multiply(args, scratch); }

}  // namespace accrue::cpu

#else

namespace accrue::cpu {

bool HasAmx() { return false; }
void UseAmxForTest(bool) {}
int64_t AmxTileScratch(const AmxTileArgs&) { return 0; }
void AmxTile(const AmxTileArgs&, void*) { ACCRUE_CHECK(false); }

}  // namespace accrue::cpu
#endif
