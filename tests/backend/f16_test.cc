// binary16 in the CPU's kernels: the same bits on every instruction set, whether it converts them itself or not.
#include <bit>
#include <cmath>
#include <cstdint>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "common/binary16.h"
#include "common/philox.h"
#include "hwy/targets.h"
#include "tests/backend/reference_ops.h"
#include "worker/backend/cpu/kernels.h"

namespace accrue {
namespace {

// f(name of the set) with kernels of each instruction set that this processor has.
template <typename F>
void OnEveryInstructionSet(const F& f) {
  std::set<std::string> seen;
  for (int64_t left = hwy::SupportedTargets(); left != 0; left &= left - 1) {
    hwy::SetSupportedTargetsForTest(left & -left);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    const std::string name = cpu::KernelInstructionSet(DType::kF16);
    if (seen.insert(name).second) f(name);
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  EXPECT_GE(seen.size(), 1u);
}

bool IsNan(uint16_t half) { return (half & 0x7FFF) > 0x7C00; }

TEST(Binary16, ToFloat_EveryValue_IsTheDefinitions) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  OnEveryInstructionSet([&](const std::string& set) {
    std::vector<float> floats(halves.size());
    cpu::ConvertElements({halves.data(), DType::kF16}, {floats.data(), DType::kF32}, 0, 65536);
    for (size_t i = 0; i < halves.size(); ++i) {
      const float expected = F16ToFloat(halves[i]);
      if (IsNan(halves[i])) {
        ASSERT_TRUE(std::isnan(floats[i]) && std::isnan(Binary16ToFloat(halves[i]))) << set << " " << i;
        // Quiet, and its payload kept: as the processor's own instruction does it.
        ASSERT_EQ(std::bit_cast<uint32_t>(floats[i]), (halves[i] & 0x8000u) << 16 | 0x7FC00000 | (halves[i] & 0x3FFu) << 13);
        continue;
      }
      ASSERT_EQ(std::bit_cast<uint32_t>(floats[i]), std::bit_cast<uint32_t>(expected)) << set << " " << i;
      ASSERT_EQ(std::bit_cast<uint32_t>(Binary16ToFloat(halves[i])), std::bit_cast<uint32_t>(expected)) << i;
    }
  });
}

// All values, what lies half way between neighbours, a little to either side of it, and bits at random.
TEST(Binary16, FromFloat_NeighboursAndHalves_RoundedToNearestEven) {
  std::vector<float> floats;
  for (uint32_t half = 0; half < 0x7C00; ++half) {
    const float value = F16ToFloat(static_cast<uint16_t>(half));
    const float next = half == 0x7BFF ? 65536.0f : F16ToFloat(static_cast<uint16_t>(half + 1));
    const float middle = value + (next - value) / 2;
    for (float x : {value, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e9f)}) {
      floats.push_back(x);
      floats.push_back(-x);
    }
  }
  for (uint32_t i = 0; i < 200'000; ++i) floats.push_back(std::bit_cast<float>(static_cast<uint32_t>(SplitMix64(i))));
  for (float x : {65519.99f, 65520.0f, 1e30f, INFINITY, -INFINITY, 1e-40f, 0.0f, -0.0f}) floats.push_back(x);
  OnEveryInstructionSet([&](const std::string& set) {
    std::vector<uint16_t> halves(floats.size());
    cpu::ConvertElements({floats.data(), DType::kF32}, {halves.data(), DType::kF16}, 0, static_cast<int64_t>(floats.size()));
    for (size_t i = 0; i < floats.size(); ++i) {
      if (std::isnan(floats[i])) {
        const uint32_t bits = std::bit_cast<uint32_t>(floats[i]);
        ASSERT_EQ(halves[i], (bits >> 16 & 0x8000) | 0x7E00 | (bits >> 13 & 0x3FF)) << set;
      } else {
        ASSERT_EQ(halves[i], RoundToF16(floats[i])) << set << " " << floats[i];
      }
    }
  });
}

}  // namespace
}  // namespace accrue
