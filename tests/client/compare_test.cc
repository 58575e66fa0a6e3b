// compare A B and verify A B: output folders written here, and a job of a scripted coordinator.
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/spec/job_spec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/client/client_runner.h"
#include "tests/client/fake_job_service.h"
#include "tests/spec/job_text.h"

namespace accrue {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

std::string DigestOf(int64_t window) { return absl::StrCat("0123456789abcdef01234567", 10000000 + window); }

class CompareTest : public ::testing::Test {
 protected:
  CompareTest() {
    char name[] = "/tmp/accrue-compare-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~CompareTest() override { FileSystem::Real().RemoveAll(folder_).IgnoreError(); }

  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }
  void Write(const std::string& name, absl::string_view text) {
    ASSERT_TRUE(FileSystem::Real().CreateDirectories(DirectoryOf(Path(name))).ok());
    ASSERT_TRUE(FileSystem::Real().WriteAtomically(Path(name), text).ok());
  }
  static std::string Line(int64_t window, double loss, const std::string& digest) {
    return absl::StrCat("{\"window\":", window, ",\"loss\":", loss, ",\"gradient_norm\":0.5,\"digest\":\"", digest,
                        "\",\"skipped\":false}\n");
  }
  static std::string Lines(int64_t first, int64_t end) {
    std::string text;
    for (int64_t window = first; window < end; ++window) text += Line(window, 4.25, DigestOf(window));
    return text;
  }
  // job.json with a spec that has these words of the example replaced, and one shard of this hash.
  static std::string Job(const std::vector<std::pair<absl::string_view, absl::string_view>>& changes = {},
                         const std::string& hash = "00000000000000000000000000000001") {
    v1::JobSpec spec = *ParseJobText(absl::StrReplaceAll(kJob, changes), "job.yaml");
    EXPECT_TRUE(FillDefaults(spec).ok());
    return absl::StrCat(R"({"jobId":"headers-1","spec":)", CanonicalJson(spec),
                        R"(,"train":[{"path":"/data/train-0.bin","xxh3128":")", hash, R"("}]})");
  }
  // A run's folder; its path.
  std::string Run(const std::string& name, const std::string& windows, const std::string& job = Job()) {
    Write(name + "/windows.jsonl", windows);
    if (!job.empty()) Write(name + "/job.json", job);
    return Path(name);
  }
  json Compare(const std::string& a, const std::string& b, int exit_code) {
    const ClientResult result = RunAccrue({"compare", a, b, "-o", "json"});
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    return json::parse(result.out);
  }

  std::string folder_;
};

TEST_F(CompareTest, Compare_SameRuns_EqualAndExitCode0) {
  const std::string a = Run("a", Lines(0, 6)), b = Run("b", Lines(0, 6));
  const ClientResult result = RunAccrue({"compare", a, b});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, absl::StrCat("A  ", a, ": headers-1, windows 0 to 5\nB  ", b,
                                     ": headers-1, windows 0 to 5\n\nEqual: 6 windows with the same digests.\n\n"
                                     "The specs ask for the same.\n"));
  const json object = Compare(a, b, 0);
  EXPECT_EQ(object["equal"], true);
  EXPECT_EQ(object["verdict"], "equal");
  EXPECT_EQ(object["windows_compared"], 6);
  EXPECT_TRUE(object["first_difference"].is_null());
  EXPECT_THAT(object["spec_differences"], SizeIs(0));
}

TEST_F(CompareTest, Compare_ADigestDiffers_FirstWindowWithLossNormAndDigestOfBoth) {
  const std::string a = Run("a", Lines(0, 6));
  const std::string b =
      Run("b", Lines(0, 3) + Line(3, 4.5, DigestOf(93)) + Line(4, 4.5, DigestOf(94)) + Line(5, 4.25, DigestOf(5)),
          Job({{"learning_rate: 1.0e-3", "learning_rate: 2.0e-3"}}));
  const ClientResult result = RunAccrue({"compare", a, b});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out,
              HasSubstr(absl::StrCat("Different from window 3 on; 4 windows of 6 equal.\n"
                                     "  A  loss 4.25  norm 0.5  digest ", DigestOf(3), "\n"
                                     "  B  loss 4.5  norm 0.5  digest ", DigestOf(93), "\n")));
  EXPECT_THAT(result.out,
              HasSubstr("The specs differ, from A to B:\n  optimizer.learning_rate: 0.001 -> 0.002\n"));
  const json object = Compare(a, b, 1);
  EXPECT_EQ(object["verdict"], "digests");
  EXPECT_EQ(object["first_difference"]["window"], 3);
  EXPECT_EQ(object["first_difference"]["a"]["loss"], 4.25);
  EXPECT_EQ(object["first_difference"]["b"]["digest"], DigestOf(93));
  EXPECT_EQ(object["spec_differences"][0],
            json::parse(R"({"field":"optimizer.learning_rate","a":0.001,"b":0.002,"affects_result":true})"));
}

TEST_F(CompareTest, Compare_OneIsLonger_SaysWhich) {
  const std::string a = Run("a", Lines(0, 4)), b = Run("b", Lines(0, 6));
  const ClientResult result = RunAccrue({"compare", a, b});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("Equal in the 4 common windows; only B has 2 further windows.\n"));
  const json object = Compare(b, a, 1);
  EXPECT_EQ(object["verdict"], "longer");
  EXPECT_EQ(object["only_in_a"], 2);
  EXPECT_EQ(object["only_in_b"], 0);
}

TEST_F(CompareTest, Compare_OnlyTheSpecsDiffer_SaysSo) {
  const std::string a = Run("a", Lines(0, 6)), b = Run("b", Lines(0, 6), Job({{"windows: 2000", "windows: 3000"}}));
  const ClientResult result = RunAccrue({"compare", a, b});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("Only the specs differ: 6 windows with the same digests.\n"));
  EXPECT_THAT(result.out, HasSubstr("  windows: 2000 -> 3000\n"));
  EXPECT_EQ(Compare(a, b, 1)["verdict"], "specs");
}

TEST_F(CompareTest, Compare_OtherShards_DifferThoughThePatternsAreTheSame) {
  const std::string a = Run("a", Lines(0, 6)), b = Run("b", Lines(0, 6), Job({}, "00000000000000000000000000000002"));
  const ClientResult result = RunAccrue({"compare", a, b});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("  shards.train[0]: \"/data/train-0.bin, XXH3-128 00000000000000000000000000000001\""
                                    " -> \"/data/train-0.bin, XXH3-128 00000000000000000000000000000002\"\n"));
  EXPECT_EQ(Compare(a, b, 1)["verdict"], "specs");
}

TEST_F(CompareTest, Compare_NameFleetAndPlaceOfTheSameData_DoNotCount) {
  const std::string a = Run("a", Lines(0, 6));
  const std::string b = Run("b", Lines(0, 6),
                            Job({{"name: headers", "name: again"},
                                 {"max: 8", "max: 2"},
                                 {"seed: 1234", "seed: 1234\nrecompute: block"},
                                 {"data/headers/train-*.bin", "elsewhere/train-*.bin"}}));
  const ClientResult result = RunAccrue({"compare", a, b});
  EXPECT_EQ(result.exit_code, 0) << result.out;
  EXPECT_THAT(result.out, HasSubstr("The specs ask for the same.\n\nDifferent too, without effect on the result:\n"
                                    "  name: \"headers\" -> \"again\"\n"));
  EXPECT_THAT(result.out, HasSubstr("  workers.max: 8 -> 2\n"));
  EXPECT_THAT(result.out, HasSubstr("  recompute: "));
  EXPECT_EQ(Compare(a, b, 0)["spec_differences"][0]["affects_result"], false);
}

TEST_F(CompareTest, Compare_NoJobFile_DigestsStillCompared) {
  const std::string a = Run("a", Lines(0, 2), ""), b = Run("b", Lines(0, 2));
  const ClientResult result = RunAccrue({"compare", a, b});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("The specs are not compared: a folder has no job.json.\n"));
  EXPECT_TRUE(Compare(a, b, 0)["spec_differences"].is_null());
}

TEST_F(CompareTest, Compare_NothingThere_ExitCode4) {
  const std::string a = Run("a", Lines(0, 2));
  Write("empty/checkpoints/x", "");
  const ClientResult none = RunAccrue({"compare", a, Path("none")});
  EXPECT_EQ(none.exit_code, 4);
  EXPECT_THAT(none.err, HasSubstr(Path("none") + ": no such folder"));
  const ClientResult empty = RunAccrue({"compare", Path("empty"), a});
  EXPECT_EQ(empty.exit_code, 4);
  EXPECT_THAT(empty.err, HasSubstr(Path("empty") + " holds no windows.jsonl"));
  FakeJobService service;
  const ClientResult job = RunAccrue({"compare", a, "nothing", "--coordinator", service.Start()});
  EXPECT_EQ(job.exit_code, 4);
  EXPECT_THAT(job.err, HasSubstr("no job \"nothing\""));
  EXPECT_EQ(RunAccrue({"compare", a, "headers", "--coordinator", "127.0.0.1:1"}).exit_code, 6);
  EXPECT_EQ(RunAccrue({"compare", a}).exit_code, 2);
}

TEST_F(CompareTest, Compare_DamagedLog_NamesTheLine) {
  const std::string a = Run("a", Lines(0, 2));
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"nonsense\n", "/windows.jsonl:3: expected a JSON object"},
      {"{\"digest\":\"x\"}\n", "/windows.jsonl:3: \"window\": expected a whole number"},
      {"{\"window\":2}\n", "/windows.jsonl:3: \"digest\": expected a string"},
      {"{\"window\":2,\"digest\":\"x\",\"loss\":\"low\"}\n", "/windows.jsonl:3: \"loss\""},
      {Line(1, 4, DigestOf(1)), "/windows.jsonl:3: window 1 comes after window 1; expected each once, in order"}};
  for (const auto& [line, error] : cases) {
    const ClientResult result = RunAccrue({"compare", a, Run("b", Lines(0, 2) + line)});
    EXPECT_EQ(result.exit_code, 1) << line;
    EXPECT_THAT(result.err, HasSubstr(error));
  }
}

TEST_F(CompareTest, Compare_LastLineStillBeingWritten_LeftOut) {
  const std::string a = Run("a", Lines(0, 2)), b = Run("b", Lines(0, 2) + "{\"window\":2,\"dig");
  EXPECT_EQ(Compare(a, b, 0)["b"]["windows"], 2);
}

TEST_F(CompareTest, Compare_LossNotFinite_IsNullAndShown) {
  const std::string a = Run("a", "{\"window\":0,\"loss\":null,\"gradient_norm\":null,\"digest\":\"x\",\"skipped\":true}\n");
  const std::string b = Run("b", Lines(0, 1));
  EXPECT_TRUE(Compare(a, b, 1)["first_difference"]["a"]["loss"].is_null());
  EXPECT_THAT(RunAccrue({"compare", a, b}).out, HasSubstr("A  loss not finite  norm not finite  digest x  skipped\n"));
}

TEST_F(CompareTest, Compare_JobAtWork_WhatIsCommittedSoFar) {
  FakeJobService service;
  service.watches = {{{FakeJobService::Update(MakeStatus(v1::JOB_STATE_RUNNING, 2)),
                       FakeJobService::Update(MakeRecord(0, 4)), FakeJobService::Update(MakeRecord(1, 3.5))},
                      grpc::Status::OK}};
  const std::string address = service.Start();
  const std::string a = Run("a", Line(0, 4, "") + Line(1, 3.5, "") + Line(2, 3, ""));
  const ClientResult result = RunAccrue({"compare", a, "headers", "-o", "json", "--coordinator", address});
  EXPECT_EQ(result.exit_code, 1) << result.err;
  const json object = json::parse(result.out);
  EXPECT_EQ(object["verdict"], "longer");
  EXPECT_EQ(object["only_in_a"], 1);
  EXPECT_EQ(object["b"]["job_id"], "headers-1");
  EXPECT_TRUE(service.watched_only_past());
}

TEST_F(CompareTest, Verify_TwoRuns_CountsEqualWindowsThatBothHave) {
  const std::string a = Run("a", Lines(0, 4)), b = Run("b", Lines(0, 6), Job({{"seed: 1234", "seed: 1"}}));
  const ClientResult result = RunAccrue({"verify", a, b});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "Equal digests in 4 of 4 common windows; only B has 2 further windows\n");
  const json object = json::parse(RunAccrue({"verify", a, b, "-o", "json"}).out);
  EXPECT_EQ(object["ok"], true);
  EXPECT_EQ(object["windows_compared"], 4);
  EXPECT_EQ(object["only_in_b"], 2);
}

TEST_F(CompareTest, Verify_TwoRunsThatPart_FirstWindowAndExitCode1) {
  const std::string a = Run("a", Lines(0, 4));
  const std::string b = Run("b", Lines(0, 1) + Line(1, 4, DigestOf(91)) + Lines(2, 4));
  const ClientResult result = RunAccrue({"verify", a, b});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("Equal digests in 3 of 4 common windows\nThe first that differs is window 1:\n"
                                    "  A  loss 4.25"));
  const json object = json::parse(RunAccrue({"verify", a, b, "-o", "json"}).out);
  EXPECT_EQ(object["ok"], false);
  EXPECT_EQ(object["first_difference"]["b"]["digest"], DigestOf(91));
}

TEST_F(CompareTest, Verify_NoWindowThatBothHave_ProvesNothing) {
  const ClientResult result = RunAccrue({"verify", Run("a", Lines(0, 2)), Run("b", Lines(2, 4))});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("there is no window that both runs have"));
}

}  // namespace
}  // namespace accrue
