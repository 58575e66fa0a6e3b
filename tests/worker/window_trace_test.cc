// What a runner's windows look like in a trace. Time passes only where a test lets it, all on the runner's
// own thread.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/worker/memory_collectives.h"
#include "tests/worker/runner_testing.h"
#include "worker/trace/traced_collectives.h"

namespace accrue {
namespace {

using worker_testing::kUnits;
using worker_testing::MakeJob;
using worker_testing::Member;
using worker_testing::MemoryCollectives;
using worker_testing::MemoryOperation;
using worker_testing::SealOf;
using worker_testing::TellSeal;

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kDataMs = 1, kUnitMs = 10, kReduceMs = 100;

// Units whose reading takes time.
class SlowUnits : public worker_testing::NamedUnits {
 public:
  explicit SlowUnits(FakeClock& clock) : clock_(clock) {}
  UnitInput Training(const UnitName& name) override {
    clock_.AdvanceNs(kDataMs * kMs);
    return NamedUnits::Training(name);
  }

 private:
  FakeClock& clock_;
};

class WindowTraceTest : public testing::Test {
 protected:
  WindowTraceTest()
      : tracer_({.path = path_, .windows = 1, .process = "first", .process_id = 1}, clock_,
                FileSystem::Real(), nullptr),
        traced_(collectives_, tracer_) {
    FileSystem::Real().RemoveAll(path_).IgnoreError();
    collectives_.before = [this](const MemoryOperation& operation) {
      if (operation.rank == 0) clock_.AdvanceNs(kReduceMs * kMs);
      return absl::OkStatus();
    };
  }
  ~WindowTraceTest() override { FileSystem::Real().RemoveAll(path_).IgnoreError(); }

  // Three buckets; time passes for this member alone.
  std::unique_ptr<Member> AddTraced() {
    std::unique_ptr<Job> job = MakeJob(true, AccumulationMode::kExact, OptimizerKind::kAdamW,
                                       {{"a", {40}}, {"b.weight", {200, 100}}}, kChunkElements);
    static_cast<worker_testing::QuadraticEngine&>(*job->engine).before_unit = [this](int64_t) {
      clock_.AdvanceNs(kUnitMs * kMs);
    };
    job->units = std::make_unique<SlowUnits>(clock_);
    return std::make_unique<Member>(1, traced_, std::move(job), clock_, &tracer_);
  }
  std::unique_ptr<Member> AddOther() {
    return std::make_unique<Member>(2, collectives_,
                                    MakeJob(true, AccumulationMode::kExact, OptimizerKind::kAdamW,
                                            {{"a", {40}}, {"b.weight", {200, 100}}}, kChunkElements));
  }

  // The first member has two units of a window.
  v1::Stepped RunWindow(Member& first, Member& second, int64_t window) {
    const std::vector<int> exponents = window == 0 ? std::vector<int>{30, 30} : std::vector<int>{};
    std::vector<v1::UnitReport> reports;
    first.Plan(window, {{0, 2}}, exponents);
    first.TakeComputed(&reports);
    second.Plan(window, {{2, kUnits - 2}}, exponents);
    second.TakeComputed(&reports);
    for (Member* member : {&first, &second}) TellSeal(*member, SealOf(reports, {1, 2}, "c"), window);
    const v1::Stepped stepped = first.TakeStepped();
    EXPECT_EQ(second.TakeStepped().digest(), stepped.digest());
    for (Member* member : {&first, &second}) member->Commit(window, stepped.digest());
    return stepped;
  }

  // "begin+duration name", in milliseconds, in the order of the file; tensors' spans take no time here, and
  // are counted.
  std::vector<std::string> Spans(int* tensors) const {
    std::vector<std::string> spans;
    const absl::StatusOr<std::string> text = FileSystem::Real().ReadAll(path_, 1 << 20);
    if (!text.ok()) return {std::string(text.status().message())};
    const nlohmann::json trace = nlohmann::json::parse(*text);
    for (const nlohmann::json& event : trace["traceEvents"]) {
      if (event["ph"] == "M") continue;
      if (event["name"] == "quantise and add") {
        ++*tensors;
        continue;
      }
      const std::string duration =
          event["ph"] == "X" ? absl::StrCat("+", event["dur"].get<double>() / 1000) : "";
      spans.push_back(absl::StrCat(event["ts"].get<double>() / 1000 - 0.000'001, duration, " ",
                                   event["name"].get<std::string>()));
    }
    return spans;
  }

  const std::string path_ = absl::StrCat(testing::TempDir(), "/accrue_window_trace.json");
  FakeClock clock_;
  MemoryCollectives collectives_;
  Tracer tracer_;
  TracedCollectives traced_;
};

TEST_F(WindowTraceTest, Run_SecondWindow_GivesThisTimeline) {
  auto first = AddTraced();
  auto second = AddOther();
  RunWindow(*first, *second, 0);  // 2 units, 3 buckets: 322 ms
  const v1::Stepped stepped = RunWindow(*first, *second, 1);
  first->Release();
  int tensors = 0;
  EXPECT_THAT(Spans(&tensors),
              testing::ElementsAre("322 commit 0", "322+1 data", "323+10 forward and backward",
                                   "322+11 unit 0", "333+1 data", "334+10 forward and backward",
                                   "333+11 unit 1", "344+0 parameter hash", "344+0 manifest",
                                   "344+0 wait for seal", "344+100 all-reduce 0", "444+100 all-reduce 1",
                                   "544+100 all-reduce 2", "344+300 reduce", "644+0 step",
                                   "644+0 parameter hash", "322+322 window 1", "644 commit 1"));
  EXPECT_EQ(tensors, 2 * 2);
  EXPECT_EQ(stepped.phases().reduce_ns(), 300 * kMs);
  EXPECT_EQ(stepped.phases().data_ns(), 2 * kMs);
}

}  // namespace
}  // namespace accrue
