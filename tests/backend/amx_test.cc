// Products by the processor's matrix tiles: the order of their sums (docs/numerics.md, section 4), to the
// bit.
#include "worker/backend/cpu/amx.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/backend/reference_ops.h"
#include "worker/backend/backend.h"

namespace accrue::cpu {
namespace {

class Amx : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasAmx()) GTEST_SKIP() << "no matrix tiles here";
  }
  uint32_t Draw() { return static_cast<uint32_t>(state_ = SplitMix64(state_)); }
  // Of any sign, between 2^-8 and 2^4.
  uint16_t DrawHalf() { return static_cast<uint16_t>((Draw() & 0x807F) | (119 + Draw() % 12) << 7); }
  float DrawFloat() { return (static_cast<float>(Draw()) * 0x1p-31f - 1) * 16; }

 private:
  uint64_t state_ = 11;
};

// One product, its inputs as they lie, and what it must give.
struct Case {
  int64_t m = 0, n = 0, k = 0;
  bool a_transposed = false, b_transposed = false, accumulate = false, bias = false;
  DType output = DType::kF32;
  std::vector<Bf16> a, b, biases, c_half;
  std::vector<float> c;

  float A(int64_t i, int64_t l) const { return Bf16ToFloat(a[a_transposed ? l * m + i : i * k + l].bits); }
  float B(int64_t l, int64_t j) const { return Bf16ToFloat(b[b_transposed ? j * k + l : l * n + j].bits); }

  // Blocks of 32 of K in ascending order; in each the even and the odd elements are chains of multiply-adds
  // from zero, whose sum is added.
  float Expected(int64_t i, int64_t j) const {
    float sum = 0;
    if (accumulate) sum = output == DType::kF32 ? c[i * n + j] : Bf16ToFloat(c_half[i * n + j].bits);
    for (int64_t block = 0; block < k; block += 32) {
      float parts[2] = {};
      for (int64_t l = block; l < std::min(block + 32, k); ++l) {
        parts[l % 2] = std::fma(A(i, l), B(l, j), parts[l % 2]);
      }
      sum += parts[0] + parts[1];
    }
    if (bias) sum += Bf16ToFloat(biases[j].bits);
    return output == DType::kF32 ? sum : Bf16ToFloat(RoundToBf16(sum));
  }

  AmxTileArgs Args() {
    return {.m = m,
            .n = n,
            .k = k,
            .a = a.data(),
            .a_row = a_transposed ? 1 : k,
            .a_column = a_transposed ? m : 1,
            .b = b.data(),
            .b_row = b_transposed ? 1 : n,
            .b_column = b_transposed ? k : 1,
            .c = output == DType::kF32 ? Tensor{c.data(), output} : Tensor{c_half.data(), output},
            .c_row = n,
            .bias = {bias ? biases.data() : nullptr, DType::kBF16},
            .accumulate = accumulate};
  }
};

// Runs it with what an earlier product may have left in scratch.
void Multiply(const AmxTileArgs& args) {
  std::vector<uint8_t> memory(AmxTileScratch(args) + 64, 0xFF);
  AmxTile(args, reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64));
}

TEST_F(Amx, Tile_AnyShape_AddsEvenAndOddChainsOf32) {
  for (const int64_t m : {1, 32, 50, 96}) {
    for (const int64_t n : {1, 16, 33, 160}) {
      for (const int64_t k : {1, 31, 64, 300, 544}) {
        for (int flags = 0; flags < 32; ++flags) {
          Case c{.m = m,
                 .n = n,
                 .k = k,
                 .a_transposed = (flags & 1) != 0,
                 .b_transposed = (flags & 2) != 0,
                 .accumulate = (flags & 4) != 0,
                 .bias = (flags & 8) != 0,
                 .output = (flags & 16) != 0 ? DType::kBF16 : DType::kF32,
                 .a = std::vector<Bf16>(m * k),
                 .b = std::vector<Bf16>(k * n),
                 .biases = std::vector<Bf16>(n),
                 .c_half = std::vector<Bf16>(m * n),
                 .c = std::vector<float>(m * n)};
          for (std::vector<Bf16>* values : {&c.a, &c.b, &c.biases, &c.c_half}) {
            for (Bf16& value : *values) value.bits = DrawHalf();
          }
          for (float& value : c.c) value = DrawFloat();
          Case run = c;
          Multiply(run.Args());
          // A sample of elements suffices: the reference takes its time.
          for (int64_t at = Draw() % 3; at < m * n; at += 1 + Draw() % 197) {
            const float got = c.output == DType::kF32 ? run.c[at] : Bf16ToFloat(run.c_half[at].bits);
            ASSERT_EQ(got, c.Expected(at / n, at % n))
                << m << " x " << n << " x " << k << " flags " << flags << " at " << at;
          }
        }
      }
    }
  }
}

// What lies beyond a matrix must not be read: neighbours may be anything.
TEST_F(Amx, Tile_WithinLargerMatrices_LeavesAndIgnoresWhatIsAround) {
  constexpr int64_t kM = 40, kN = 50, kK = 45, kStride = 128;
  std::vector<Bf16> a(64 * kStride, Bf16{0x7FC0}), b(64 * kStride, Bf16{0x7FC0});
  std::vector<float> c(64 * kStride, 7.0f);
  for (int64_t i = 0; i < kM; ++i) {
    for (int64_t l = 0; l < kK; ++l) a[i * kStride + l].bits = 0x3F80;
  }
  for (int64_t l = 0; l < kK; ++l) {
    for (int64_t j = 0; j < kN; ++j) b[l * kStride + j].bits = 0x3F80;
  }
  Multiply({.m = kM,
            .n = kN,
            .k = kK,
            .a = a.data(),
            .a_row = kStride,
            .a_column = 1,
            .b = b.data(),
            .b_row = kStride,
            .b_column = 1,
            .c = {c.data(), DType::kF32},
            .c_row = kStride});
  for (int64_t i = 0; i < 64; ++i) {
    for (int64_t j = 0; j < kStride; ++j) {
      ASSERT_EQ(c[i * kStride + j], i < kM && j < kN ? static_cast<float>(kK) : 7.0f) << i << ", " << j;
    }
  }
}

// A unit whose gradient is not finite is skipped: so what is not finite must come through.
TEST_F(Amx, Tile_NotFinite_ReachesItsRow) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Case c{.m = 40,
           .n = 33,
           .k = 40,
           .a = std::vector<Bf16>(40 * 40),
           .b = std::vector<Bf16>(40 * 33),
           .c = std::vector<float>(40 * 33)};
    for (std::vector<Bf16>* values : {&c.a, &c.b}) {
      for (Bf16& value : *values) value.bits = DrawHalf();
    }
    c.a[35 * 40 + 39].bits = RoundToBf16(bad);
    Multiply(c.Args());
    for (int64_t i = 0; i < 40; ++i) {
      for (int64_t j = 0; j < 33; ++j) ASSERT_EQ(std::isfinite(c.c[i * 33 + j]), i != 35) << i << ", " << j;
    }
  }
}

TEST_F(Amx, NumericClass_OfBf16_NamesIt) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend(1);
  EXPECT_EQ(backend->NumericClass(DType::kBF16).rfind("cpu/avx512_amx/", 0), 0u);
  EXPECT_EQ(backend->NumericClass(DType::kF32).rfind("cpu/avx512/", 0), 0u);
}

}  // namespace
}  // namespace accrue::cpu
