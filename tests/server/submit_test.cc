// What Submit refuses, and with what words.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "common/data/data_manifest.h"
#include "common/file_system.h"
#include "tests/server/server_test_util.h"

namespace accrue {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class SubmitTest : public ServerTestBase {
 protected:
  void SetUp() override { StartServer(); }

  void ExpectRefused(const v1::SubmitRequest& request, grpc::StatusCode code, const std::string& text) const {
    const grpc::Status status = Submit(request);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  }
};

TEST_F(SubmitTest, InvalidSpec_IsRefused) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_batch()->set_micro_batch(3);
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "micro_batch");
}

TEST_F(SubmitTest, TooLittleData_IsRefusedWithBothNumbers) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_batch()->set_sequences(100);
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "batch.sequences is 100, the shards hold 62 sequences");
}

TEST_F(SubmitTest, NoSuchFile_IsNotFound) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_data()->set_train(0, "nothing-*.bin");
  ExpectRefused(request, grpc::StatusCode::NOT_FOUND, "nothing-*.bin");
}

TEST_F(SubmitTest, OutsideOfTheDataRoots_IsRefused) {
  v1::SubmitRequest request = Request();
  WriteShard(folder_ + "/secret.bin", 1000);
  for (const std::string& path : {folder_ + "/secret.bin", std::string("../secret.bin")}) {
    request.mutable_spec()->mutable_data()->set_train(0, path);
    ExpectRefused(request, grpc::StatusCode::PERMISSION_DENIED, "data root");
  }
  ASSERT_EQ(symlink((folder_ + "/secret.bin").c_str(), (folder_ + "/data/link.bin").c_str()), 0);
  request.mutable_spec()->mutable_data()->set_train(0, "link.bin");
  EXPECT_FALSE(Submit(request).ok());
}

TEST_F(SubmitTest, WithABaseDirectory_AnyPathIsTaken) {
  v1::SubmitRequest request = Request();
  WriteShard(folder_ + "/elsewhere.bin", 1000);
  request.set_base_directory(folder_ + "/out/..");
  request.mutable_spec()->mutable_data()->set_train(0, "elsewhere.bin");
  request.set_output_directory("relative-out");
  const grpc::Status status = Submit(request);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(FileSystem::Real().Exists(folder_ + "/relative-out/job.json"));
}

TEST_F(SubmitTest, DamagedShard_IsRefused) {
  v1::SubmitRequest request = Request();
  ASSERT_TRUE(FileSystem::Real().WriteAtomically(folder_ + "/data/train-1.bin", "no shard").ok());
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "train-1.bin");
}

TEST_F(SubmitTest, TokenBeyondTheVocabulary_IsRefused) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_model()->set_vocabulary(999);
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "train-0.bin");
}

TEST_F(SubmitTest, ShardThatItsManifestContradicts_IsRefused) {
  DataManifest manifest;
  manifest.tokenizer = "bytes";
  manifest.vocabulary = 1024;
  DataManifestShard shard;
  shard.name = "train-0.bin";
  shard.split = "train";
  shard.size_bytes = 3024;
  shard.tokens = 1000;
  shard.xxh3_128 = std::string(32, '0');
  manifest.shards = {shard};
  ASSERT_TRUE(
      FileSystem::Real().WriteAtomically(folder_ + "/data/manifest.json", DataManifestToJson(manifest)).ok());
  ExpectRefused(Request(), grpc::StatusCode::FAILED_PRECONDITION, "prepare the data again");
}

TEST_F(SubmitTest, Until_IsChecked) {
  v1::SubmitRequest request = Request();
  request.set_until(0);
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "until");
  request.set_until(100);
  v1::SubmitResponse response;
  ASSERT_TRUE(Submit(request, &response).ok());
  ASSERT_THAT(response.warnings(), SizeIs(1));
  EXPECT_THAT(response.warnings(0), HasSubstr("ends after 4 windows"));
}

TEST_F(SubmitTest, SmallValidation_IsUsedWholeWithAWarning) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_data()->add_validation("validation-0.bin");
  v1::SubmitResponse response;
  const grpc::Status status = Submit(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_THAT(response.warnings(), SizeIs(1));
  EXPECT_THAT(response.warnings(0), HasSubstr("evaluating on 12"));
  grpc::ClientContext context;
  v1::DescribeRequest describe;
  describe.set_job(response.job_id());
  v1::DescribeResponse described;
  ASSERT_TRUE(client_->Describe(&context, describe, &described).ok());
  EXPECT_EQ(described.job().spec().evaluation().sequences(), 12);
  EXPECT_EQ(described.job().train_size(), 1);
  EXPECT_THAT(described.job().train(0).xxh3_128(), SizeIs(32));
  EXPECT_EQ(described.job().train(0).tokens(), 1000u);
}

TEST_F(SubmitTest, SameShardTwice_Warns) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->mutable_data()->add_validation("train-0.bin");
  request.mutable_spec()->mutable_evaluation()->set_sequences(8);
  v1::SubmitResponse response;
  ASSERT_TRUE(Submit(request, &response).ok());
  ASSERT_THAT(response.warnings(), SizeIs(1));
  EXPECT_THAT(response.warnings(0), HasSubstr("in data.train and in data.validation"));
}

TEST_F(SubmitTest, Epochs_BecomeWindows) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->clear_windows();
  request.mutable_spec()->set_epochs(2);  // of 62 sequences, 8 a window
  ASSERT_TRUE(Submit(request).ok());
  EXPECT_EQ(Status("headers").total_windows(), 16);
}

TEST_F(SubmitTest, SecondOfTheName_WhileTheFirstRuns_AlreadyExists) {
  ASSERT_TRUE(Submit(Request()).ok());
  v1::SubmitRequest second = Request();
  second.set_output_directory(folder_ + "/other");
  ExpectRefused(second, grpc::StatusCode::ALREADY_EXISTS, "headers-1");
  second.mutable_spec()->set_name("another");
  second.set_output_directory(folder_ + "/out");
  ExpectRefused(second, grpc::StatusCode::ALREADY_EXISTS, folder_ + "/out");
}

TEST_F(SubmitTest, WithoutAnOutputFolder_OneIsMadeUnderTheState) {
  v1::SubmitRequest request = Request();
  request.clear_output_directory();
  ASSERT_TRUE(Submit(request).ok());
  EXPECT_EQ(Status("headers").output_directory(), folder_ + "/state/jobs/headers-1");
}

TEST_F(SubmitTest, ModelFolder_ThatIsNotThere_IsNotFound) {
  v1::SubmitRequest request = Request();
  request.mutable_spec()->clear_model();
  request.mutable_spec()->mutable_model()->set_from("gpt2");
  ExpectRefused(request, grpc::StatusCode::NOT_FOUND, "gpt2");
}

TEST_F(SubmitTest, UnknownJob_IsNotFoundEverywhere) {
  grpc::ClientContext contexts[6];
  v1::DescribeResponse described;
  v1::CancelResponse cancelled;
  v1::PauseResponse paused;
  v1::ListCheckpointsResponse checkpoints;
  v1::DescribeRequest describe;
  describe.set_job("nobody");
  v1::CancelRequest cancel;
  cancel.set_job("nobody");
  v1::PauseRequest pause;
  pause.set_job("nobody");
  v1::ListCheckpointsRequest list;
  list.set_job("nobody");
  EXPECT_EQ(client_->Describe(&contexts[0], describe, &described).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(client_->Cancel(&contexts[1], cancel, &cancelled).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(client_->Pause(&contexts[2], pause, &paused).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(client_->ListCheckpoints(&contexts[3], list, &checkpoints).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Watch("nobody").end.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(SubmitTest, FolderOfAnotherCoordinatorsJob_IsRefusedUntilThatIsOver) {
  ASSERT_TRUE(Submit(Request()).ok());
  ServerOptions options = Options();
  options.state_directory = folder_ + "/other-state";
  const auto other = Server::Start(options);
  ASSERT_TRUE(other.ok()) << other.status();
  const auto client =
      v1::JobService::NewStub(grpc::CreateChannel((*other)->grpc_address(), grpc::InsecureChannelCredentials()));
  const auto submit = [&] {
    grpc::ClientContext context;
    v1::SubmitResponse response;
    return client->Submit(&context, Request(), &response);
  };
  const grpc::Status refused = submit();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr(folder_ + "/out is in use by process " + std::to_string(getpid())));
  grpc::ClientContext context;
  v1::CancelRequest cancel;
  cancel.set_job("headers");
  v1::CancelResponse response;
  ASSERT_TRUE(client_->Cancel(&context, cancel, &response).ok());
  const grpc::Status taken = submit();
  EXPECT_TRUE(taken.ok()) << taken.error_message();
}

TEST_F(SubmitTest, FolderTakenWhileTheCoordinatorWasAway_ItsJobFailsAndSaysWhy) {
  ASSERT_TRUE(Submit(Request()).ok());
  StopServer();
  ServerOptions options = Options();
  options.state_directory = folder_ + "/other-state";
  const auto other = Server::Start(options);
  ASSERT_TRUE(other.ok()) << other.status();
  const auto client =
      v1::JobService::NewStub(grpc::CreateChannel((*other)->grpc_address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::SubmitResponse response;
  const grpc::Status submitted = client->Submit(&context, Request(), &response);
  ASSERT_TRUE(submitted.ok()) << submitted.error_message();
  StartServer();
  const v1::JobStatus status = Status("headers");
  EXPECT_EQ(status.state(), v1::JOB_STATE_FAILED);
  EXPECT_THAT(status.reason(), HasSubstr(folder_ + "/out is in use by process"));
}

}  // namespace
}  // namespace accrue
