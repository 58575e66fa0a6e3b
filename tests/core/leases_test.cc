#include "coordinator/core/leases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/core/window_run.h"

namespace accrue::core {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Incarnation kA{1}, kB{2};

TEST(Leases, Grant_TakesLowestFreeUnitsAsRanges) {
  Leases leases(10);
  EXPECT_THAT(leases.Grant(kA, 4), ElementsAre(UnitRange{0, 4}));
  EXPECT_THAT(leases.Grant(kB, 6), ElementsAre(UnitRange{4, 6}));
  leases.MarkDone(1);
  leases.Revoke(kA);
  EXPECT_EQ(leases.free(), 4);
  EXPECT_EQ(leases.done(), 0);
  EXPECT_THAT(leases.Grant(kB, 2), ElementsAre(UnitRange{0, 2}));
  EXPECT_THAT(leases.RangesOf(kB), ElementsAre(UnitRange{0, 2}, UnitRange{4, 6}));
}

TEST(Leases, RevokeUnfinished_KeepsWhatIsDone) {
  Leases leases(4);
  leases.Grant(kA, 4);
  leases.MarkDone(1);
  leases.RevokeUnfinished(kA);
  EXPECT_EQ(leases.done(), 1);
  EXPECT_THAT(leases.Grant(kB, 3), ElementsAre(UnitRange{0, 1}, UnitRange{2, 2}));
  for (int64_t unit : {0, 2, 3}) leases.MarkDone(unit);
  EXPECT_TRUE(leases.complete());
}

TEST(Leases, ForgetDone_KeepsLeases) {
  Leases leases(2);
  leases.Grant(kA, 2);
  leases.MarkDone(0);
  leases.ForgetDone();
  EXPECT_EQ(leases.ShareOf(kA).done, 0);
  EXPECT_EQ(leases.ShareOf(kA).leased, 2);
  EXPECT_FALSE(leases.Done(0));
}

TEST(Leases, FreeOrphans_FreesWhatWorkersThatAreGoneHadDone) {
  Leases leases(4);
  leases.Grant(kA, 2);
  leases.Grant(kB, 2);
  for (int64_t unit : {0, 1, 2}) leases.MarkDone(unit);
  leases.RevokeUnfinished(kA);
  EXPECT_EQ(leases.orphans(), 2);
  EXPECT_EQ(leases.done(), 3);
  leases.FreeOrphans();
  EXPECT_EQ(leases.orphans(), 0);
  EXPECT_EQ(leases.done(), 1);
  leases.Check();
  EXPECT_THAT(leases.Grant(kB, 2), ElementsAre(UnitRange{0, 2}));
}

class Manifest : public ::testing::Test {
 protected:
  Manifest() : run_(0, 4, 3) {
    run_.Grant(kA, 2);
    run_.Grant(kB, 2);
    run_.Take({.unit = 0});
    run_.Take({.unit = 1});
  }
  std::string Check(std::vector<UnitRange> units, int64_t buckets = 1) const {
    return run_.CheckManifest(kA, std::vector<BucketManifest>(static_cast<size_t>(buckets), {false, units}));
  }
  WindowRun run_;
};

TEST_F(Manifest, ExactlyTheLeases_Passes) {
  EXPECT_EQ(Check({{0, 2}}), "");
  EXPECT_EQ(Check({{1, 1}, {0, 1}}, 3), "");
}

TEST_F(Manifest, AnythingElse_SaysWhat) {
  EXPECT_THAT(Check({{0, 1}}), HasSubstr("holds 1 unit, but 2 were reported"));
  EXPECT_THAT(Check({{0, 2}, {1, 1}}), HasSubstr("unit 1 twice"));
  EXPECT_THAT(Check({{0, 3}}), HasSubstr("unit 2, which this worker did not report"));
  EXPECT_THAT(Check({{0, 2}}, 2), HasSubstr("2 buckets, expected 1 or 3"));
  EXPECT_THAT(Check({{-1, 2}}), HasSubstr("the window has 4"));
  EXPECT_THAT(Check({{1, INT64_MAX}}), HasSubstr("the window has 4"));
  EXPECT_THAT(run_.CheckManifest(kA, {{.final = true}}), HasSubstr("bucket 0 is said to be final; 0 of 3"));
}

TEST_F(Manifest, AfterABrokenReduce_FinalBucketsThenUnits) {
  run_.parts[kA].final_buckets = 2;
  const BucketManifest final_bucket{true, {}}, open{false, {{0, 2}}};
  EXPECT_EQ(run_.CheckManifest(kA, {final_bucket, final_bucket, open}), "");
  EXPECT_THAT(run_.CheckManifest(kA, {final_bucket, open, open}), HasSubstr("bucket 1 is said to be open; 2 of 3"));
  EXPECT_THAT(run_.CheckManifest(kA, {final_bucket, final_bucket, final_bucket}),
              HasSubstr("bucket 2 is said to be final; 2 of 3"));
  EXPECT_THAT(run_.CheckManifest(kA, {{true, {{0, 2}}}, final_bucket, open}), HasSubstr("is final and names units"));
  EXPECT_THAT(run_.CheckManifest(kA, {final_bucket, final_bucket, {false, {{0, 1}}}}),
              HasSubstr("bucket 2 holds 1 unit, but 2 were reported"));
  EXPECT_THAT(run_.CheckManifest(kA, {open}), HasSubstr("one entry for 3 buckets, of which 2 are final"));
}

TEST_F(Manifest, AllFinal_OneEntryStandsForAll) {
  run_.parts[kA].final_buckets = 3;
  EXPECT_EQ(run_.CheckManifest(kA, {{true, {}}}), "");
}

}  // namespace
}  // namespace accrue::core
