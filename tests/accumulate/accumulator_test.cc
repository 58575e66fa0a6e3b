// docs/numerics.md, sections 5 and 6.
#include "worker/accumulate/accumulator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "common/check.h"
#include "tests/accumulate/host_backend.h"
#include "tests/accumulate/units.h"

namespace accrue {
namespace {

ParameterLayout SmallLayout() {
  return *ParameterLayout::Build(
      {{"embedding", {300, 70}}, {"bias", {33}}, {"weight", {64, 64}}, {"scale", {1}}});
}

std::unique_ptr<Accumulator> Make(AccumulationMode mode, const ParameterLayout& layout, Backend& backend,
                                  const std::vector<int>& exponents) {
  std::unique_ptr<Accumulator> accumulator = *Accumulator::Create(mode, layout, backend);
  accumulator->Reset(exponents);
  return accumulator;
}

// k from the E of these units themselves, as after a replay.
std::vector<int> ExponentsFor(const ParameterLayout& layout, Backend& backend, int64_t units) {
  auto probe = Make(AccumulationMode::kFast, layout, backend, {});
  std::vector<int> largest;
  for (int64_t unit = 0; unit < units; ++unit)
    MergeMaxExponents(AddUnit(*probe, layout, unit).max_exponents, largest);
  return NextExponents(units, largest);
}

std::vector<int64_t> AllSums(Accumulator& accumulator, const ParameterLayout& layout) {
  std::vector<int64_t> sums;
  for (size_t b = 0; b < layout.buckets().size(); ++b) {
    const int64_t* bucket = accumulator.ExactBucket(static_cast<int>(b));
    sums.insert(sums.end(), bucket, bucket + layout.buckets()[b].elements);
  }
  return sums;
}

TEST(Accumulator, AnyGroupingAndOrder_GivesTheSameSumsAndChecksums) {
  const ParameterLayout layout = SmallLayout();
  constexpr int64_t kUnits = 12;
  HostBackend backend;
  const std::vector<int> exponents = ExponentsFor(layout, backend, kUnits);
  std::vector<int64_t> expected;
  std::vector<uint64_t> expected_checksums;
  for (uint64_t trial = 0; trial < 10; ++trial) {
    const int members = 1 + static_cast<int>(trial % 5);
    std::vector<int64_t> order(kUnits);
    std::iota(order.begin(), order.end(), 0);
    for (int64_t i = kUnits - 1; i > 0; --i)
      std::swap(order[i], order[SplitMix64(trial * 100 + i) % (i + 1)]);
    std::vector<std::unique_ptr<Accumulator>> accumulators;
    std::vector<Accumulator*> pointers;
    for (int m = 0; m < members; ++m) {
      accumulators.push_back(Make(AccumulationMode::kExact, layout, backend, exponents));
      pointers.push_back(accumulators.back().get());
    }
    std::vector<uint64_t> checksums;
    for (int64_t unit : order) {
      const size_t member = SplitMix64(trial * 1000 + unit) % members;
      AddChecksums(AddUnit(*pointers[member], layout, unit).bucket_checksums, checksums);
    }
    ReduceExact(pointers, layout);
    const std::vector<int64_t> sums = AllSums(*pointers[0], layout);
    if (trial == 0) expected = sums, expected_checksums = checksums;
    EXPECT_EQ(sums, expected) << "trial " << trial;
    EXPECT_EQ(checksums, expected_checksums);
    EXPECT_EQ(pointers[0]->BucketChecksum(0), checksums[0]);
  }
}

TEST(Accumulator, AnyThreadCount_GivesTheSameSumsAndReports) {
  const ParameterLayout layout = SmallLayout();
  std::vector<int64_t> expected;
  UnitStats expected_stats;
  double expected_norm = 0;
  for (int threads : {1, 2, 3, 7, 64}) {
    HostBackend backend(threads);
    auto accumulator = Make(AccumulationMode::kExact, layout, backend, {40, 41, 42, 43});
    AddUnit(*accumulator, layout, 0);
    const UnitStats stats = AddUnit(*accumulator, layout, 1);
    const double norm = accumulator->Norm(100);
    if (threads == 1) expected = AllSums(*accumulator, layout), expected_stats = stats, expected_norm = norm;
    EXPECT_EQ(AllSums(*accumulator, layout), expected);
    EXPECT_EQ(stats.max_exponents, expected_stats.max_exponents);
    EXPECT_EQ(stats.bucket_checksums, expected_stats.bucket_checksums);
    EXPECT_EQ(stats.vanished_elements, expected_stats.vanished_elements);
    EXPECT_EQ(norm, expected_norm);
  }
}

// docs/numerics.md, section 12: a power of two that is taken off leaves no trace.
TEST(Accumulator, ScaledGradients_SameSumsReportsAndNorm) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  for (AccumulationMode mode : {AccumulationMode::kExact, AccumulationMode::kFast}) {
    const std::vector<int> exponents = mode == AccumulationMode::kExact ? std::vector<int>{40, 41, -126, 126} : std::vector<int>();
    auto plain = Make(mode, layout, backend, exponents), scaled = Make(mode, layout, backend, exponents);
    for (int scale : {0, 1, 15, 24}) {
      plain->Reset(exponents);
      scaled->Reset(exponents);
      scaled->SetLossScale(scale);
      for (int64_t unit = 0; unit < 3; ++unit) {
        std::vector<std::vector<float>> gradients, multiplied;
        for (size_t t = 0; t < layout.tensors().size(); ++t) {
          gradients.push_back(UnitGradient(layout, unit, static_cast<int>(t)));
          multiplied.push_back(gradients.back());
          for (float& value : multiplied.back()) value = std::ldexp(value, scale);
        }
        const UnitStats expected = AddValues(*plain, layout, unit, gradients);
        const UnitStats stats = AddValues(*scaled, layout, unit, multiplied);
        EXPECT_EQ(stats.max_exponents, expected.max_exponents) << scale;
        EXPECT_EQ(stats.bucket_checksums, expected.bucket_checksums) << scale;
        EXPECT_EQ(stats.vanished_elements, expected.vanished_elements) << scale;
      }
      EXPECT_EQ(scaled->Norm(77), plain->Norm(77)) << scale;
      if (mode == AccumulationMode::kFast) continue;
      EXPECT_EQ(AllSums(*scaled, layout), AllSums(*plain, layout)) << scale;
    }
  }
}

TEST(Accumulator, ProbeAndAuditOfScaledGradients_SayWhatTheUnscaledSay) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {40, 41, 42, 43});
  std::vector<std::vector<float>> zero_and_eight;
  for (const TensorInfo& tensor : layout.tensors()) zero_and_eight.emplace_back(tensor.elements);
  zero_and_eight[1][0] = 8;
  accumulator->SetLossScale(10);
  const auto add = [&] {
    for (size_t t = 0; t < layout.tensors().size(); ++t) accumulator->Add(static_cast<int>(t), zero_and_eight[t].data());
    return accumulator->FinishUnit().max_exponents;
  };
  const std::vector<int> expected = {kZeroExponent, 3 - 10, kZeroExponent, kZeroExponent};
  accumulator->BeginProbe();
  EXPECT_EQ(add(), expected);
  accumulator->BeginAudit(3);
  EXPECT_EQ(add(), expected);
}

// The figures of exactness: neither the largest error nor the L2 error of a tensor exceeds that of fp32 sums.
TEST(Accumulator, ExactSums_AgainstBinary64_AreAtLeastAsGoodAsBinary32Sums) {
  const ParameterLayout layout = SmallLayout();
  constexpr int64_t kUnits = 16;
  HostBackend backend;
  auto exact = Make(AccumulationMode::kExact, layout, backend, ExponentsFor(layout, backend, kUnits));
  auto fast = Make(AccumulationMode::kFast, layout, backend, {});
  std::vector<std::vector<double>> truth;
  for (const TensorInfo& tensor : layout.tensors()) truth.emplace_back(tensor.elements);
  for (int64_t unit = 0; unit < kUnits; ++unit) {
    AddUnit(*exact, layout, unit);
    AddUnit(*fast, layout, unit);
    for (size_t t = 0; t < truth.size(); ++t) {
      const std::vector<float> gradient = UnitGradient(layout, unit, static_cast<int>(t));
      for (size_t i = 0; i < gradient.size(); ++i) truth[t][i] += gradient[i];
    }
  }
  for (size_t t = 0; t < truth.size(); ++t) {
    double exact_largest = 0, exact_squares = 0, fast_largest = 0, fast_squares = 0;
    for (size_t i = 0; i < truth[t].size(); ++i) {
      const float sum =
          std::ldexp(static_cast<float>(exact->ExactTensor(static_cast<int>(t))[i]), -exact->exponents()[t]);
      const double exact_error = std::fabs(sum - truth[t][i]);
      const double fast_error = std::fabs(fast->FastTensor(static_cast<int>(t))[i] - truth[t][i]);
      exact_largest = std::max(exact_largest, exact_error);
      fast_largest = std::max(fast_largest, fast_error);
      exact_squares += exact_error * exact_error;
      fast_squares += fast_error * fast_error;
    }
    EXPECT_LE(exact_largest, fast_largest) << layout.tensors()[t].name;
    EXPECT_LE(exact_squares, fast_squares) << layout.tensors()[t].name;
  }
}

TEST(FinishUnit, ElementsBelowTheGrid_AreCountedAsVanished) {
  const ParameterLayout layout = *ParameterLayout::Build({{"a", {6}}});
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {10});
  const UnitStats stats =
      AddValues(*accumulator, layout, 4, {{0x1p-11f, -0x1p-30f, 0x1.8p-11f, 0, 1, -0.0f}});
  EXPECT_EQ(stats.unit, 4);
  EXPECT_EQ(stats.vanished_elements, 2);  // a tie at half a step rounds to zero; 0.75 of one does not
  EXPECT_EQ(stats.max_exponents, std::vector<int>{0});
  EXPECT_EQ(AllSums(*accumulator, layout), (std::vector<int64_t>{0, 0, 1, 0, 1024, 0}));
}

// At the edge of the replay condition every unit may bring its largest value of one sign: the sum must still
// fit.
TEST(Accumulator, UnitsAtTheReplayEdge_SumWithoutOverflow) {
  const ParameterLayout layout = *ParameterLayout::Build({{"a", {2}}});
  HostBackend backend;
  for (int64_t units : {1, 2, 3, 8, 9}) {
    const int k = 20, edge = 62 - CeilLog2(units) - k;
    auto accumulator = Make(AccumulationMode::kExact, layout, backend, {k});
    const float largest = std::ldexp(1.0f, edge);
    for (int64_t unit = 0; unit < units; ++unit) {
      const UnitStats stats = AddValues(*accumulator, layout, unit, {{largest, -largest}});
      EXPECT_EQ(stats.max_exponents[0] + k, 62 - CeilLog2(units));
      EXPECT_FALSE(NeedsReplay(units, stats.max_exponents, accumulator->exponents()));
    }
    const int64_t sum = units * (int64_t{1} << (62 - CeilLog2(units)));
    EXPECT_EQ(AllSums(*accumulator, layout), (std::vector<int64_t>{sum, -sum})) << units;
    const UnitStats beyond = AddValues(*accumulator, layout, units, {{std::nextafter(largest, INFINITY), 0}});
    EXPECT_TRUE(NeedsReplay(units, beyond.max_exponents, accumulator->exponents()));
  }
}

TEST(FinishUnit, NonFiniteElement_IsFlaggedAndLeavesTheMaximumFinite) {
  const ParameterLayout layout = *ParameterLayout::Build({{"a", {3}}, {"b", {2}}});
  HostBackend backend;
  for (AccumulationMode mode : {AccumulationMode::kExact, AccumulationMode::kFast}) {
    auto accumulator = Make(mode, layout, backend, {30, 30});
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_FALSE(AddValues(*accumulator, layout, 0, {{1, 2, 3}, {4, 5}}).non_finite);
    const UnitStats stats = AddValues(*accumulator, layout, 1, {{1, nan, 3}, {4, 5}});
    EXPECT_TRUE(stats.non_finite);
    EXPECT_EQ(stats.max_exponents, (std::vector<int>{2, 3}));
    EXPECT_FALSE(AddValues(*accumulator, layout, 2, {{1, 2, 3}, {4, 5}}).non_finite);
  }
}

// A unit whose targets are all masked: an all-zero gradient.
TEST(FinishUnit, MaskedOutUnit_ReportsZeroExponentsAndChangesNoSum) {
  const ParameterLayout layout = *ParameterLayout::Build({{"a", {3}}, {"b", {2}}});
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {30, 30});
  AddValues(*accumulator, layout, 0, {{1, 2, 3}, {4, 5}});
  const std::vector<int64_t> before = AllSums(*accumulator, layout);
  const UnitStats stats = AddValues(*accumulator, layout, 1, {{0, 0, -0.0f}, {0, 0}});
  EXPECT_EQ(stats.max_exponents, (std::vector<int>{kZeroExponent, kZeroExponent}));
  EXPECT_EQ(stats.bucket_checksums, std::vector<uint64_t>{0});
  EXPECT_EQ(stats.vanished_elements, 0);
  EXPECT_EQ(AllSums(*accumulator, layout), before);
}

TEST(BeginProbe, OfAUnit_TakesTheMaximaAndAccumulatesNothing) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {40, 40, 40, 40});
  accumulator->BeginProbe();
  for (int t = 0; t < 4; ++t) accumulator->Add(t, UnitGradient(layout, 0, t).data());
  const UnitStats probe = accumulator->FinishUnit();
  EXPECT_TRUE(probe.bucket_checksums.empty());
  EXPECT_TRUE(accumulator->units().empty());
  for (int64_t sum : AllSums(*accumulator, layout)) ASSERT_EQ(sum, 0);
  EXPECT_EQ(AddUnit(*accumulator, layout, 0).max_exponents, probe.max_exponents);
}

TEST(Reset, AfterUnits_ForgetsThemAndTakesTheNewExponents) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {40, 40, 40, 40});
  AddUnit(*accumulator, layout, 0);
  AddUnit(*accumulator, layout, 1);
  accumulator->MarkFinal(0);
  EXPECT_EQ(accumulator->units(), (std::vector<int64_t>{0, 1}));
  accumulator->Reset({30, 31, 32, 33});
  EXPECT_FALSE(accumulator->final(0));
  EXPECT_TRUE(accumulator->units().empty());
  AddUnit(*accumulator, layout, 2);
  auto fresh = Make(AccumulationMode::kExact, layout, backend, {30, 31, 32, 33});
  AddUnit(*fresh, layout, 2);
  EXPECT_EQ(AllSums(*accumulator, layout), AllSums(*fresh, layout));
}

TEST(Reset, WithinAUnit_ForgetsIt) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {40, 40, 40, 40});
  accumulator->BeginUnit(0);
  accumulator->Add(0, UnitGradient(layout, 0, 0).data());
  accumulator->Reset({40, 40, 40, 40});
  EXPECT_TRUE(accumulator->units().empty());
  for (int64_t sum : AllSums(*accumulator, layout)) ASSERT_EQ(sum, 0);
}

TEST(Reset, WithoutUnits_LeavesZeroSums) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {40, 40, 40, 40});
  AddUnit(*accumulator, layout, 0);
  accumulator->Reset({40, 40, 40, 40});
  EXPECT_EQ(accumulator->BucketChecksum(0), 0u);
  EXPECT_EQ(accumulator->Norm(5), 0);
  EXPECT_EQ(accumulator->Norm(0), 0);
  for (int64_t sum : AllSums(*accumulator, layout)) ASSERT_EQ(sum, 0);
}

TEST(BucketChecksum, AnySingleBitFlip_Shows) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {40, 40, 40, 40});
  const uint64_t checksum = AddUnit(*accumulator, layout, 0).bucket_checksums[0];
  ASSERT_EQ(accumulator->BucketChecksum(0), checksum);
  int64_t* sums = accumulator->ExactBucket(0);
  for (const TensorInfo& tensor : layout.tensors()) {
    for (int64_t element : {int64_t{0}, tensor.elements / 2, tensor.elements - 1}) {
      for (int bit = 0; bit < 64; ++bit) {
        const uint64_t mask = uint64_t{1} << bit;
        int64_t& sum = sums[tensor.arena_offset + element];
        sum = static_cast<int64_t>(static_cast<uint64_t>(sum) ^ mask);
        EXPECT_NE(accumulator->BucketChecksum(0), checksum)
            << tensor.name << " " << element << " bit " << bit;
        sum = static_cast<int64_t>(static_cast<uint64_t>(sum) ^ mask);
      }
    }
  }
  EXPECT_EQ(accumulator->BucketChecksum(0), checksum);
}

// A double count and two swapped elements: what a plain sum would miss.
TEST(BucketChecksum, DoubleCountOrExchange_Shows) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {40, 40, 40, 40});
  const uint64_t one = AddUnit(*accumulator, layout, 0).bucket_checksums[0];
  AddUnit(*accumulator, layout, 0);
  EXPECT_NE(accumulator->BucketChecksum(0), one);
  EXPECT_EQ(accumulator->BucketChecksum(0), 2 * one);
  int64_t* sums = accumulator->ExactBucket(0);
  std::swap(sums[0], sums[kChunkElements]);
  EXPECT_NE(accumulator->BucketChecksum(0), 2 * one);
}

// The definition of section 6, written out.
TEST(StagingChecksum, OverSeveralTensors_FollowsTheDocument) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {40, 40, 40, 40});
  std::vector<int64_t> staging(layout.buckets()[0].elements);
  for (size_t i = 0; i < staging.size(); ++i) staging[i] = static_cast<int64_t>(SplitMix64(i));
  uint64_t expected = 0;
  for (size_t c = 0; c < layout.chunks().size(); ++c) {
    const Chunk& chunk = layout.chunks()[c];
    uint64_t sum = 0;
    for (int64_t j = 0; j < chunk.elements; ++j) {
      sum += (SplitMix64(j) | 1) * static_cast<uint64_t>(staging[chunk.arena_offset + j]);
    }
    expected += (SplitMix64(c + (uint64_t{1} << 32)) | 1) * sum;
  }
  EXPECT_EQ(accumulator->StagingChecksum(0, staging.data()), expected);
}

// Three buckets, the middle tensor in all of them.
ParameterLayout LargeLayout() {
  ParameterLayout layout =
      *ParameterLayout::Build({{"a", {100}}, {"big", {2 * kBucketElements + 20000}}, {"b", {50}}});
  ACCRUE_CHECK(layout.buckets().size() == 3);
  return layout;
}

// Each element a function of its place; some vanish at the exponent of 20.
std::vector<std::vector<float>> LargeGradients(const ParameterLayout& layout, int64_t unit) {
  std::vector<std::vector<float>> gradients;
  for (const TensorInfo& tensor : layout.tensors()) {
    std::vector<float>& values = gradients.emplace_back(tensor.elements);
    for (size_t i = 0; i < values.size(); ++i) {
      const uint64_t random = SplitMix64(static_cast<uint64_t>(unit * 1'000'003 + tensor.arena_offset) + i);
      values[i] = std::ldexp(static_cast<float>(random >> 40) - 0x1p23f, random % 16 == 0 ? -46 : -20);
    }
  }
  return gradients;
}

void ExpectSameReport(const UnitStats& found, const UnitStats& expected) {
  EXPECT_EQ(found.unit, expected.unit);
  EXPECT_EQ(found.non_finite, expected.non_finite);
  EXPECT_EQ(found.max_exponents, expected.max_exponents);
  EXPECT_EQ(found.bucket_checksums, expected.bucket_checksums);
  EXPECT_EQ(found.vanished_elements, expected.vanished_elements);
}

TEST(Add, WithFinalBuckets_AddsToTheOpenOnesAndReportsTheWholeUnit) {
  const ParameterLayout layout = LargeLayout();
  HostBackend backend;
  const auto first = LargeGradients(layout, 0), second = LargeGradients(layout, 1);
  for (AccumulationMode mode : {AccumulationMode::kExact, AccumulationMode::kFast}) {
    auto other = Make(mode, layout, backend, {20, 20, 20});
    AddValues(*other, layout, 0, first);
    const UnitStats expected = AddValues(*other, layout, 1, second);
    EXPECT_EQ(expected.vanished_elements > 0, mode == AccumulationMode::kExact);
    auto accumulator = Make(mode, layout, backend, {20, 20, 20});
    const UnitStats before = AddValues(*accumulator, layout, 0, first);
    accumulator->MarkFinal(0);
    accumulator->MarkFinal(1);
    ExpectSameReport(AddValues(*accumulator, layout, 1, second), expected);
    EXPECT_EQ(accumulator->units(), (std::vector<int64_t>{0, 1}));
    EXPECT_EQ(accumulator->final_buckets(), 2);
    if (mode == AccumulationMode::kFast) {
      const int64_t place = layout.buckets()[1].arena_offset + 7 - layout.tensors()[1].arena_offset;
      EXPECT_EQ(accumulator->FastBucket(1)[7], first[1][place]);
      const float last = first[2].back() + second[2].back();
      EXPECT_EQ(accumulator->FastTensor(2)[49], last);
      continue;
    }
    for (int bucket : {0, 1, 2}) {
      const uint64_t added = bucket == 2 ? expected.bucket_checksums[bucket] : 0;
      EXPECT_EQ(accumulator->BucketChecksum(bucket), before.bucket_checksums[bucket] + added) << bucket;
    }
  }
}

TEST(BeginAudit, OfAUnit_ReportsItAndAccumulatesNothing) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  auto other = Make(AccumulationMode::kExact, layout, backend, {40, 40, 40, 40});
  const UnitStats expected = AddUnit(*other, layout, 3);
  auto accumulator = Make(AccumulationMode::kExact, layout, backend, {40, 40, 40, 40});
  for (bool holds_units : {false, true}) {
    if (holds_units) AddUnit(*accumulator, layout, 0);
    const std::vector<int64_t> units = accumulator->units();
    accumulator->BeginAudit(3);
    for (int t = 0; t < 4; ++t) accumulator->Add(t, UnitGradient(layout, 3, t).data());
    ExpectSameReport(accumulator->FinishUnit(), expected);
    EXPECT_EQ(accumulator->units(), units);
  }
  other->Reset({40, 40, 40, 40});
  AddUnit(*other, layout, 0);
  EXPECT_EQ(AllSums(*accumulator, layout), AllSums(*other, layout));
}

TEST(Create, WithoutMemory_SaysSo) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend;
  backend.allocations_left = 0;
  const auto accumulator = Accumulator::Create(AccumulationMode::kExact, layout, backend);
  EXPECT_EQ(accumulator.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(accumulator.status().message().find("accumulator"), absl::string_view::npos);
}

TEST(Fast, Units_AreAddedInBinary32InTheirOrder) {
  const ParameterLayout layout = *ParameterLayout::Build({{"a", {2}}});
  HostBackend backend;
  auto accumulator = Make(AccumulationMode::kFast, layout, backend, {});
  AddValues(*accumulator, layout, 0, {{1, 0x1p-24f}});
  AddValues(*accumulator, layout, 1, {{0x1p-24f, 1}});
  const UnitStats stats = AddValues(*accumulator, layout, 2, {{0x1p-24f, 0x1p-24f}});
  EXPECT_TRUE(stats.bucket_checksums.empty());
  EXPECT_EQ(accumulator->FastBucket(0)[0], 1.0f);
  EXPECT_EQ(accumulator->FastBucket(0)[1], 1.0f);
  EXPECT_EQ(accumulator->Norm(2), std::sqrt(2.0) / 2);
}

}  // namespace
}  // namespace accrue
