#include "worker/trace/tracer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/trace/traced_collectives.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class NotedRanges : public ProfilerRanges {
 public:
  void Push(const char* name, int64_t number) override {
    notes.push_back(absl::StrCat("+", name, " ", number));
  }
  void Pop() override { notes.push_back("-"); }
  std::vector<std::string> notes;
};

class TracerTest : public testing::Test {
 protected:
  TracerTest() { FileSystem::Real().RemoveAll(path_).IgnoreError(); }
  ~TracerTest() override { FileSystem::Real().RemoveAll(path_).IgnoreError(); }

  TraceOptions Options(int64_t windows) const {
    return {.path = path_, .windows = windows, .process = "worker \"1\"", .process_id = 7};
  }
  Tracer Make(const TraceOptions& options) { return Tracer(options, clock_, FileSystem::Real(), nullptr); }

  // A window of one unit that takes 3 us, of which 1 for a tensor.
  void RunWindow(Tracer& tracer, int64_t window) {
    tracer.BeginWindow(window);
    {
      const TraceSpan unit(&tracer, Span::kUnit, 4);
      clock_.AdvanceNs(2000);
      const TraceSpan add(&tracer, Span::kQuantizeAndAdd, 1);
      clock_.AdvanceNs(1000);
    }
    tracer.EndWindow();
  }

  bool Written() const { return FileSystem::Real().Exists(path_); }
  std::string Text() const { return FileSystem::Real().ReadAll(path_, 1 << 20).value_or("(no file)"); }

  const std::string path_ =
      absl::StrCat(testing::TempDir(), "/accrue_tracer_",
                   testing::UnitTest::GetInstance()->current_test_info()->name(), ".json");
  FakeClock clock_;  // begins at 1 ns
};

TEST_F(TracerTest, Committed_LastWindow_WritesExactlyThis) {
  Tracer tracer = Make(Options(1));
  tracer.BeginJob({"a", "b\n"});
  RunWindow(tracer, 10);
  tracer.Committed(10);
  RunWindow(tracer, 11);
  EXPECT_FALSE(Written());
  clock_.AdvanceNs(499);
  tracer.Committed(11);
  EXPECT_EQ(
      Text(),
      R"({"displayTimeUnit":"ms","otherData":{"version":"0.1.0","windows":1,"spans_dropped":0},"traceEvents":[
{"name":"process_name","ph":"M","pid":7,"tid":1,"args":{"name":"worker \"1\""}},
{"name":"thread_name","ph":"M","pid":7,"tid":1,"args":{"name":"compute thread"}},
{"name":"commit 10","cat":"commit","ts":3.001,"pid":7,"tid":1,"ph":"i","s":"t","args":{"window":10}},
{"name":"quantise and add","cat":"quantise and add","ts":5.001,"pid":7,"tid":1,"ph":"X","dur":1.000,"args":{"tensor":"b\n"}},
{"name":"unit 4","cat":"unit","ts":3.001,"pid":7,"tid":1,"ph":"X","dur":3.000,"args":{"unit":4}},
{"name":"window 11","cat":"window","ts":3.001,"pid":7,"tid":1,"ph":"X","dur":3.000,"args":{"window":11}},
{"name":"commit 11","cat":"commit","ts":6.500,"pid":7,"tid":1,"ph":"i","s":"t","args":{"window":11}}
]}
)");
}

TEST_F(TracerTest, Committed_OnceWritten_RecordsNoMore) {
  Tracer tracer = Make(Options(1));
  for (int64_t window = 0; window < 2; ++window) {
    RunWindow(tracer, window);
    tracer.Committed(window);
  }
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("window 1"));
  RunWindow(tracer, 2);
  tracer.Committed(2);
  tracer.EndJob();
  EXPECT_EQ(Text(), text);
}

TEST_F(TracerTest, BeginWindow_WhileTheLastOneAwaitsItsCommit_IsNotRecorded) {
  Tracer tracer = Make(Options(1));
  RunWindow(tracer, 0);
  RunWindow(tracer, 1);
  RunWindow(tracer, 2);
  tracer.Committed(1);
  EXPECT_THAT(Text(), Not(HasSubstr("window 2")));
}

TEST_F(TracerTest, Committed_AnEarlierWindow_DoesNotWrite) {
  Tracer tracer = Make(Options(1));
  RunWindow(tracer, 0);
  RunWindow(tracer, 1);
  tracer.Committed(0);
  EXPECT_FALSE(Written());
  tracer.Committed(1);
  EXPECT_TRUE(Written());
}

TEST_F(TracerTest, BeginWindow_AnotherAttempt_EndsTheOneBefore) {
  Tracer tracer = Make(Options(1));
  RunWindow(tracer, 0);
  tracer.BeginWindow(1);
  tracer.Begin(Span::kWaitForSeal, -1, clock_.SteadyNowNs());
  clock_.AdvanceNs(5000);
  RunWindow(tracer, 1);
  tracer.Committed(1);
  EXPECT_THAT(Text(),
              HasSubstr(R"("window 1","cat":"window","ts":3.001,"pid":7,"tid":1,"ph":"X","dur":5.000)"));
  EXPECT_THAT(Text(), HasSubstr(R"("wait for seal","ts":3.001,"pid":7,"tid":1,"ph":"X","dur":5.000)"));
  EXPECT_THAT(Text(),
              HasSubstr(R"("window 1","cat":"window","ts":8.001,"pid":7,"tid":1,"ph":"X","dur":3.000)"));
}

TEST_F(TracerTest, EndJob_BeforeTheLastWindow_WritesWhatThereIs) {
  Tracer tracer = Make(Options(5));
  RunWindow(tracer, 0);
  RunWindow(tracer, 1);
  tracer.BeginWindow(2);
  tracer.EndJob();
  EXPECT_THAT(Text(), HasSubstr(R"("windows":1,)"));
  EXPECT_THAT(Text(), HasSubstr("window 2"));
}

TEST_F(TracerTest, EndJob_BeforeTheSecondWindow_LeavesTheTraceToTheNextJob) {
  Tracer tracer = Make(Options(5));
  RunWindow(tracer, 7);
  tracer.Committed(7);
  tracer.BeginWindow(8);
  tracer.EndJob();
  EXPECT_FALSE(Written());
  RunWindow(tracer, 0);
  RunWindow(tracer, 1);
  tracer.EndJob();
  EXPECT_THAT(Text(), HasSubstr("window 1"));
  EXPECT_THAT(Text(), Not(HasSubstr("window 8")));
  EXPECT_THAT(Text(), Not(HasSubstr("window 0")));
}

TEST_F(TracerTest, EndWindow_NoRoomForAnother_StopsWithWholeWindows) {
  TraceOptions options = Options(5);
  options.most_spans = 8;  // three a window
  Tracer tracer = Make(options);
  for (int64_t window = 0; window < 5; ++window) RunWindow(tracer, window);
  tracer.Committed(2);
  EXPECT_THAT(Text(), HasSubstr(R"("windows":2,"spans_dropped":0)"));
  EXPECT_THAT(Text(), Not(HasSubstr("window 3")));
}

TEST_F(TracerTest, Begin_MoreThanThereIsRoomFor_CountsWhatIsDropped) {
  TraceOptions options = Options(1);
  options.most_spans = 2;
  Tracer tracer = Make(options);
  RunWindow(tracer, 0);
  RunWindow(tracer, 1);
  tracer.EndJob();
  EXPECT_THAT(Text(), HasSubstr(R"("windows":1,"spans_dropped":1)"));
}

TEST_F(TracerTest, Begin_WithoutAFile_TellsTheProfilerAlone) {
  NotedRanges ranges;
  Tracer tracer({}, clock_, FileSystem::Real(), &ranges);
  RunWindow(tracer, 3);
  tracer.EndJob();
  EXPECT_THAT(ranges.notes, ElementsAre("+window 3", "+unit 4", "+quantise and add 1", "-", "-", "-"));
}

// Does nothing, and says that it went well.
class IdleCommunicator : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  absl::Status Meet() override { return absl::OkStatus(); }
  absl::Status AllReduce(const int64_t*, int64_t*, int64_t) override { return absl::OkStatus(); }
  absl::Status AllReduce(const float*, float*, int64_t) override { return absl::OkStatus(); }
  absl::Status Broadcast(void*, size_t, int) override { return absl::OkStatus(); }
  void Abort() override {}
};

class IdleCollectives : public CollectiveFactory {
 public:
  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string&, int, int, int64_t) override {
    return std::make_unique<IdleCommunicator>();
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string&, int, int, int64_t) override {
    return std::make_unique<IdleCommunicator>();
  }
};

// The tracer is the compute thread's, and a communicator made ahead meets on another one.
TEST_F(TracerTest, Meet_OfACommunicatorMadeAhead_TellsNobody) {
  NotedRanges ranges;
  Tracer tracer({}, clock_, FileSystem::Real(), &ranges);
  IdleCollectives idle;
  TracedCollectives collectives(idle, tracer);
  std::unique_ptr<Communicator> ahead = *collectives.CreateAhead("ahead", 0, 1, 1);
  EXPECT_TRUE(ahead->Meet().ok());
  int64_t sum = 0;
  const int64_t one = 1;
  EXPECT_TRUE(ahead->AllReduce(&one, &sum, 1).ok());
  EXPECT_TRUE((*collectives.Create("now", 0, 1, 1))->Meet().ok());
  EXPECT_THAT(ranges.notes, ElementsAre("+all-reduce 0", "-", "+meet -1", "-"));
}

TEST_F(TracerTest, EndJob_InAFolderThatIsNotThere_GoesOn) {
  TraceOptions options = Options(1);
  options.path = path_ + "/nowhere/trace.json";
  Tracer tracer = Make(options);
  RunWindow(tracer, 0);
  RunWindow(tracer, 1);
  tracer.Committed(1);
  tracer.EndJob();
  EXPECT_FALSE(FileSystem::Real().Exists(options.path));
}

}  // namespace
}  // namespace accrue
