#include "common/exponents.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace accrue {
namespace {

TEST(CeilLog2, OfFloats_IsTheLeastPowerNotBelow) {
  EXPECT_EQ(CeilLog2(1.0f), 0);
  EXPECT_EQ(CeilLog2(std::nextafter(1.0f, 2.0f)), 1);
  EXPECT_EQ(CeilLog2(std::nextafter(1.0f, 0.0f)), 0);
  EXPECT_EQ(CeilLog2(0.5f), -1);
  EXPECT_EQ(CeilLog2(3.0f), 2);
  EXPECT_EQ(CeilLog2(4.0f), 2);
  EXPECT_EQ(CeilLog2(std::numeric_limits<float>::max()), 128);
  EXPECT_EQ(CeilLog2(0.0f), kZeroExponent);
}

TEST(CeilLog2, OfSubnormals_CountsTheirBits) {
  const float least = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(CeilLog2(least), -149);
  EXPECT_EQ(CeilLog2(2 * least), -148);
  EXPECT_EQ(CeilLog2(3 * least), -147);
  EXPECT_EQ(CeilLog2(std::numeric_limits<float>::min()), -126);
  EXPECT_EQ(CeilLog2(std::nextafter(std::numeric_limits<float>::min(), 0.0f)), -126);
}

TEST(CeilLog2, OfEveryExponent_AgreesWithFrexp) {
  for (int e = -148; e <= 127; ++e) {
    for (float factor : {1.0f, 1.5f}) {
      const float value = std::ldexp(factor, e);
      int exponent = 0;
      const bool power = std::frexp(value, &exponent) == 0.5f;
      EXPECT_EQ(CeilLog2(value), power ? exponent - 1 : exponent) << value;
    }
  }
}

TEST(CeilLog2, OfUnits_RoundsUp) {
  const std::vector<int> expected = {0, 1, 2, 2, 3, 3, 3, 3, 4};
  for (int64_t units = 1; units <= 9; ++units) EXPECT_EQ(CeilLog2(units), expected[units - 1]) << units;
  EXPECT_EQ(CeilLog2((int64_t{1} << 40) + 1), 41);
}

TEST(NextExponents, OrdinaryTensors_LeaveTenBitsOfHeadroom) {
  EXPECT_EQ(NextExponents(16, {0, -5, 7}), (std::vector<int>{48, 53, 41}));
}

TEST(NextExponents, ZeroTensor_TakesTheLargestOverTensors) {
  EXPECT_EQ(NextExponents(16, {kZeroExponent, -5, 7}), (std::vector<int>{41, 53, 41}));
}

TEST(NextExponents, AllZero_TakesExponentZero) {
  EXPECT_EQ(NextExponents(1, {kZeroExponent, kZeroExponent}), (std::vector<int>{52, 52}));
}

TEST(NextExponents, ExtremeTensors_AreClamped) {
  EXPECT_EQ(NextExponents(1, {-149, -75, -74, -73}), (std::vector<int>{126, 126, 126, 125}));
  EXPECT_EQ(NextExponents(int64_t{1} << 62, {128, 116, 115}), (std::vector<int>{-126, -126, -125}));
}

TEST(NeedsReplay, AtTheEdge_PassesAndOneMoreDoesNot) {
  for (int64_t units : {int64_t{1}, int64_t{3}, int64_t{16}, int64_t{17}}) {
    const int edge = 62 - CeilLog2(units);
    EXPECT_FALSE(NeedsReplay(units, edge - 40, 40)) << units;
    EXPECT_TRUE(NeedsReplay(units, edge - 39, 40)) << units;
  }
  EXPECT_FALSE(NeedsReplay(4, std::vector<int>{kZeroExponent, 20}, std::vector<int>{126, 40}));
  EXPECT_TRUE(NeedsReplay(4, std::vector<int>{kZeroExponent, 21}, std::vector<int>{126, 40}));
}

TEST(NeedsReplay, FreshExponentsFromTheSameUnits_Never) {
  for (int e = -149; e <= 128; ++e) {
    for (int64_t units : {1, 7, 4096}) EXPECT_FALSE(NeedsReplay(units, {e}, NextExponents(units, {e}))) << e;
  }
}

TEST(Merge, OverUnits_TakesMaximaAndWrapsChecksums) {
  std::vector<int> largest;
  MergeMaxExponents({kZeroExponent, 3}, largest);
  MergeMaxExponents({-7, 2}, largest);
  EXPECT_EQ(largest, (std::vector<int>{-7, 3}));
  std::vector<uint64_t> sum;
  AddChecksums({~uint64_t{0}, 1}, sum);
  AddChecksums({2, 1}, sum);
  EXPECT_EQ(sum, (std::vector<uint64_t>{1, 2}));
}

TEST(Weights, OfElementsAndChunks_AreOddAndDiffer) {
  for (int64_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(ElementWeight(i) & 1, 1u);
    EXPECT_EQ(ChunkWeight(i) & 1, 1u);
    EXPECT_NE(ElementWeight(i), ElementWeight(i + 1));
    EXPECT_NE(ElementWeight(i), ChunkWeight(i));
  }
  // From the definition: splitmix64(0), the generator's first published output for seed 0.
  EXPECT_EQ(ElementWeight(0), uint64_t{0xE220A8397B1DCDAF} | 1);
}

}  // namespace
}  // namespace accrue
