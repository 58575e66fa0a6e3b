#include "coordinator/server/translate.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <limits>

namespace accrue {
namespace {

using google::protobuf::util::MessageDifferencer;
using testing::ElementsAre;
using testing::HasSubstr;

core::Key MakeKey() {
  return {Term(1), "headers-1", Timeline(2), Epoch(3), Incarnation(4), Window(5), Attempt(6)};
}

template <typename Event>
Event Translate(const v1::WorkerMessage& message) {
  const absl::StatusOr<core::Event> event = EventFromProto(message, Incarnation(4));
  EXPECT_TRUE(event.ok()) << event.status();
  const Event* const found = std::get_if<Event>(&*event);
  EXPECT_NE(found, nullptr);
  EXPECT_EQ(found->from, Incarnation(4));
  return *found;
}

TEST(TranslateTest, Key_RoundTrip_IsTheSame) {
  const v1::Key proto = KeyToProto(MakeKey());
  EXPECT_EQ(proto.term(), 1);
  EXPECT_EQ(proto.job_id(), "headers-1");
  EXPECT_EQ(proto.timeline(), 2);
  EXPECT_EQ(proto.epoch(), 3);
  EXPECT_EQ(proto.incarnation(), 4);
  EXPECT_EQ(proto.window(), 5);
  EXPECT_EQ(proto.attempt(), 6);
  EXPECT_TRUE(MessageDifferencer::Equals(KeyToProto(KeyFromProto(proto)), proto));
}

TEST(TranslateTest, EventFromProto_UnitReports_KeepEveryField) {
  v1::WorkerMessage message;
  v1::UnitReports& reports = *message.mutable_unit_reports();
  *reports.mutable_key() = KeyToProto(MakeKey());
  reports.set_probe(true);
  v1::UnitReport& report = *reports.add_reports();
  report.set_unit(7);
  report.set_loss_sum(0.1 + 0.2);
  report.set_valid_tokens(8);
  report.set_non_finite(true);
  report.add_max_exponents(-1000);
  report.add_max_exponents(3);
  report.add_bucket_checksums(std::numeric_limits<uint64_t>::max());
  report.set_vanished_elements(9);
  report.set_compute_ns(10);
  const auto event = Translate<core::UnitsReported>(message);
  EXPECT_TRUE(event.probe);
  EXPECT_EQ(event.key.window, Window(5));
  ASSERT_EQ(event.reports.size(), 1u);
  EXPECT_EQ(event.reports[0].unit, 7);
  EXPECT_EQ(event.reports[0].loss_sum, 0.1 + 0.2);
  EXPECT_EQ(event.reports[0].valid_tokens, 8);
  EXPECT_TRUE(event.reports[0].non_finite);
  EXPECT_THAT(event.reports[0].max_exponents, ElementsAre(-1000, 3));
  EXPECT_THAT(event.reports[0].bucket_checksums, ElementsAre(std::numeric_limits<uint64_t>::max()));
  EXPECT_EQ(event.reports[0].vanished_elements, 9);
  EXPECT_EQ(event.reports[0].compute_ns, 10);
}

TEST(TranslateTest, EventFromProto_EveryKind_IsTaken) {
  v1::WorkerMessage message;
  message.mutable_heartbeat()->set_memory_bytes(11);
  EXPECT_EQ(Translate<core::WorkerHeartbeat>(message).memory_bytes, 11);

  v1::JobLoaded& loaded = *message.mutable_job_loaded();
  loaded.set_digest("d");
  loaded.add_tensors("w");
  loaded.add_tensor_elements(12);
  loaded.set_buckets(2);
  loaded.add_exponents(-5);
  const auto job_loaded = Translate<core::JobLoaded>(message);
  EXPECT_EQ(job_loaded.digest, "d");
  EXPECT_THAT(job_loaded.tensor_elements, ElementsAre(12));
  EXPECT_EQ(job_loaded.buckets, 2);
  EXPECT_THAT(job_loaded.exponents, ElementsAre(-5));

  v1::WindowComputed& computed = *message.mutable_window_computed();
  computed.set_parameter_hash("p");
  computed.set_local_gradient_norm(0.5);
  v1::BucketManifest& bucket = *computed.add_buckets();
  bucket.set_final(true);
  bucket.add_units()->set_first(1);
  bucket.mutable_units(0)->set_count(3);
  const auto window_computed = Translate<core::WindowComputed>(message);
  EXPECT_EQ(window_computed.parameter_hash, "p");
  EXPECT_EQ(window_computed.local_gradient_norm, 0.5);
  ASSERT_EQ(window_computed.buckets.size(), 1u);
  EXPECT_TRUE(window_computed.buckets[0].final);
  EXPECT_THAT(window_computed.buckets[0].units, ElementsAre(core::UnitRange{1, 3}));

  v1::Stepped& stepped = *message.mutable_stepped();
  stepped.set_digest("e");
  stepped.set_gradient_norm(2);
  stepped.set_clip_coefficient(0.5);
  stepped.set_memory_bytes(13);
  stepped.mutable_phases()->set_compute_ns(1);
  stepped.mutable_phases()->set_accumulate_ns(2);
  stepped.mutable_phases()->set_wait_seal_ns(3);
  stepped.mutable_phases()->set_reduce_ns(4);
  stepped.mutable_phases()->set_step_ns(5);
  stepped.mutable_phases()->set_data_ns(6);
  stepped.mutable_phases()->set_evaluate_ns(7);
  stepped.mutable_phases()->set_checkpoint_ns(8);
  const auto worker_stepped = Translate<core::WorkerStepped>(message);
  EXPECT_EQ(worker_stepped.digest, "e");
  EXPECT_EQ(worker_stepped.gradient_norm, 2);
  EXPECT_EQ(worker_stepped.clip_coefficient, 0.5);
  EXPECT_EQ(worker_stepped.memory_bytes, 13);
  const core::PhaseTimes& phases = worker_stepped.phases;
  EXPECT_THAT((std::vector<int64_t>{phases.compute_ns, phases.accumulate_ns, phases.wait_seal_ns, phases.reduce_ns,
                                    phases.step_ns, phases.data_ns, phases.evaluate_ns, phases.checkpoint_ns}),
              ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));

  message.mutable_reduce_failed()->set_reason("r");
  message.mutable_reduce_failed()->add_unreachable_incarnations(9);
  EXPECT_THAT(Translate<core::ReduceFailed>(message).unreachable, ElementsAre(Incarnation(9)));

  v1::EvaluationReport& evaluation = *message.mutable_evaluation_reports()->add_reports();
  evaluation.set_unit(1);
  evaluation.set_loss_sum(1.5);
  evaluation.set_valid_tokens(2);
  EXPECT_EQ(Translate<core::EvaluationReported>(message).reports[0].loss_sum, 1.5);

  v1::CheckpointWritten& written = *message.mutable_checkpoint_written();
  written.set_checkpoint_window(14);
  written.set_error("full");
  v1::CheckpointFile& file = *written.add_files();
  file.set_path("f");
  file.set_size_bytes(15);
  file.set_xxh3_128("h");
  const auto shard = Translate<core::CheckpointShardWritten>(message);
  EXPECT_EQ(shard.checkpoint_window, Window(14));
  EXPECT_EQ(shard.error, "full");
  EXPECT_EQ(shard.files[0].path, "f");
  EXPECT_EQ(shard.files[0].size_bytes, 15u);
  EXPECT_EQ(shard.files[0].xxh3_128, "h");

  message.mutable_state_synced()->set_digest("s");
  EXPECT_EQ(Translate<core::StateSynced>(message).digest, "s");
  message.mutable_leaving()->set_reason("bye");
  EXPECT_EQ(Translate<core::WorkerLeaving>(message).reason, "bye");
  EXPECT_FALSE(Translate<core::WorkerLeaving>(message).at_once);
  message.mutable_leaving()->set_at_once(true);
  EXPECT_TRUE(Translate<core::WorkerLeaving>(message).at_once);
  message.mutable_job_failed()->set_status("DATA_LOSS");
  message.mutable_job_failed()->set_fatal_for_job(true);
  EXPECT_TRUE(Translate<core::WorkerFailedJob>(message).fatal_for_job);
}

TEST(TranslateTest, EventFromProto_WhatMakesNoSense_IsRefused) {
  v1::WorkerMessage message;
  EXPECT_TRUE(absl::IsInvalidArgument(EventFromProto(message, Incarnation(1)).status()));
  message.mutable_hello();
  EXPECT_THAT(EventFromProto(message, Incarnation(1)).status().message(), HasSubstr("second Hello"));
  message.mutable_job_loaded()->add_tensors("w");
  EXPECT_THAT(EventFromProto(message, Incarnation(1)).status().message(), HasSubstr("tensor_elements"));
}

TEST(TranslateTest, MessageToProto_Plan_CarriesSharesScalarsAndSequences) {
  core::Plan plan{MakeKey(), {{0, 2}, {5, 1}}, {1, 2, 3}, {-4, 40}, {{7, 8}}, true};
  JobContext context;
  context.sequences_of = [](Window window, const std::vector<core::UnitRange>& units) {
    v1::SequenceRange range;
    range.set_first_token(window.value() * 100 + static_cast<int64_t>(units.size()));
    return std::vector<v1::SequenceRange>{range};
  };
  const v1::Plan proto = MessageToProto(plan, context).plan();
  EXPECT_EQ(proto.key().attempt(), 6);
  ASSERT_EQ(proto.units_size(), 2);
  EXPECT_EQ(proto.units(1).first(), 5);
  EXPECT_EQ(proto.units(1).count(), 1);
  EXPECT_EQ(proto.scalars().learning_rate_bits(), 1u);
  EXPECT_EQ(proto.scalars().bias_correction1_bits(), 2u);
  EXPECT_EQ(proto.scalars().bias_correction2_bits(), 3u);
  EXPECT_THAT(proto.exponents(), ElementsAre(-4, 40));
  EXPECT_EQ(proto.evaluation_units(0).count(), 8);
  EXPECT_TRUE(proto.evaluation_only());
  EXPECT_EQ(proto.sequences(0).first_token(), 502);
  EXPECT_FALSE(proto.has_loss_scale());
  plan.loss_scale = LossScale{0, 7};
  const v1::Plan scaled = MessageToProto(plan, context).plan();
  ASSERT_TRUE(scaled.has_loss_scale());
  EXPECT_EQ(scaled.loss_scale().exponent(), 0);
  EXPECT_EQ(scaled.loss_scale().good_windows(), 7);
}

TEST(TranslateTest, MessageToProto_Seal_NamesTheCheckpointsFolder) {
  core::Seal seal{MakeKey(), core::Verdict::kSkip, {Incarnation(4), Incarnation(9)}, "c", 10, {11}, {12}};
  seal.checkpoint = core::CheckpointOrder{Window(6), 1, 2};
  seal.reason = "why";
  v1::ResolvedJob job;
  job.set_output_directory("/out");
  JobContext context;
  context.job = &job;
  const v1::Seal proto = MessageToProto(seal, context).seal();
  EXPECT_EQ(proto.verdict(), v1::VERDICT_SKIP);
  EXPECT_THAT(proto.members(), ElementsAre(4, 9));
  EXPECT_EQ(proto.communicator(), "c");
  EXPECT_EQ(proto.valid_tokens(), 10);
  EXPECT_THAT(proto.bucket_checksums(), ElementsAre(11));
  EXPECT_THAT(proto.next_exponents(), ElementsAre(12));
  EXPECT_EQ(proto.checkpoint().directory(), "/out/checkpoints/window-00000006");
  EXPECT_EQ(proto.checkpoint().shard(), 1);
  EXPECT_EQ(proto.checkpoint().shards(), 2);
  EXPECT_EQ(proto.reason(), "why");
  EXPECT_FALSE(proto.has_next_loss_scale());
  seal.next_loss_scale = LossScale{14, 3};
  const v1::Seal scaled = MessageToProto(seal, context).seal();
  EXPECT_EQ(scaled.next_loss_scale().exponent(), 14);
  EXPECT_EQ(scaled.next_loss_scale().good_windows(), 3);

  // And back, with what a worker holds.
  v1::WorkerMessage message;
  *message.mutable_holding()->mutable_stepped_seal() = scaled;
  message.mutable_holding()->mutable_stepped()->set_digest("d");
  EXPECT_EQ(std::get<core::WorkerHolds>(*EventFromProto(message, Incarnation(1))).step->next_loss_scale, (LossScale{14, 3}));
  *message.mutable_holding()->mutable_stepped_seal() = proto;
  EXPECT_EQ(std::get<core::WorkerHolds>(*EventFromProto(message, Incarnation(1))).step->next_loss_scale, std::nullopt);
}

TEST(TranslateTest, MessageToProto_Probe_HasTheLossScaleIfThereIsOne) {
  const JobContext none;
  EXPECT_FALSE(MessageToProto(core::ProbeOrder{MakeKey(), std::nullopt}, none).probe().has_loss_scale());
  EXPECT_EQ(MessageToProto(core::ProbeOrder{MakeKey(), LossScale{6, 0}}, none).probe().loss_scale().exponent(), 6);
}

TEST(TranslateTest, MessageToProto_Others_CarryKeyAndContent) {
  const JobContext none;
  v1::ResolvedJob job;
  job.set_job_id("headers-1");
  JobContext context;
  context.job = &job;
  using Start = core::AssignJob::Start;
  const auto assign = MessageToProto(core::AssignJob{MakeKey(), Start::kFromCheckpoint, "/c"}, context).assign_job();
  EXPECT_EQ(assign.checkpoint_directory(), "/c");
  EXPECT_EQ(assign.job().job_id(), "headers-1");
  EXPECT_TRUE(MessageToProto(core::AssignJob{MakeKey(), Start::kFromScratch}, context).assign_job().from_scratch());
  EXPECT_TRUE(MessageToProto(core::AssignJob{MakeKey(), Start::kFromMembers}, context).assign_job().from_members());
  EXPECT_EQ(MessageToProto(core::ProbeOrder{MakeKey()}, none).probe().key().window(), 5);
  EXPECT_EQ(MessageToProto(core::Replay{MakeKey(), "r"}, none).replay().reason(), "r");
  EXPECT_EQ(MessageToProto(core::Commit{MakeKey(), "d"}, none).commit().digest(), "d");
  EXPECT_EQ(MessageToProto(core::Abort{MakeKey(), "a"}, none).abort().reason(), "a");
  EXPECT_EQ(MessageToProto(core::Release{MakeKey(), "x"}, none).release().reason(), "x");
  const auto sync =
      MessageToProto(core::StateSync{MakeKey(), {Incarnation(2), Incarnation(3)}, "c", Incarnation(2)}, none);
  EXPECT_THAT(sync.state_sync().members(), ElementsAre(2, 3));
  EXPECT_EQ(sync.state_sync().source(), 2);
  const auto copy =
      MessageToProto(core::CopyState{MakeKey(), "c", Incarnation(2), Incarnation(3), true, "e"}, none).copy_state();
  EXPECT_EQ(copy.communicator(), "c");
  EXPECT_EQ(copy.source(), 2);
  EXPECT_EQ(copy.receiver(), 3);
  EXPECT_TRUE(copy.end());
  EXPECT_EQ(copy.reason(), "e");
  const auto now = MessageToProto(core::CheckpointNow{MakeKey(), {Window(8), 0, 1}}, context).checkpoint_now();
  EXPECT_THAT(now.checkpoint().directory(), HasSubstr("window-00000008"));
}

TEST(TranslateTest, WindowToProto_KeepsEveryField) {
  CommitRecord commit;
  core::WindowRecord& w = commit.window;
  w.window = Window(3);
  w.loss = 1.0 / 3;
  w.gradient_norm = 2;
  w.learning_rate = 1e-3;
  w.tokens = 500;
  w.digest = "d";
  w.skipped = true;
  w.attempt = Attempt(1);
  w.sequences = 8;
  w.clip_coefficient = 0.25;
  w.vanished_fraction = 0.125;
  w.loss_scale = LossScale{12, 5};
  w.timeline = Timeline(4);
  w.epoch = Epoch(5);
  w.duration_ns = 2'000'000'000;
  w.workers.push_back({Incarnation(6), "name", 7, 0.5, {}, 9});
  commit.committed_unix_ns = 11;
  commit.validation_loss = 2.5;
  const v1::WindowRecord proto = WindowToProto(commit);
  EXPECT_EQ(proto.window(), 3);
  EXPECT_EQ(proto.loss(), 1.0 / 3);
  EXPECT_EQ(proto.gradient_norm(), 2);
  EXPECT_EQ(proto.learning_rate(), 1e-3);
  EXPECT_EQ(proto.tokens(), 500);
  EXPECT_EQ(proto.digest(), "d");
  EXPECT_TRUE(proto.skipped());
  EXPECT_EQ(proto.attempt(), 1);
  EXPECT_EQ(proto.sequences(), 8);
  EXPECT_EQ(proto.clip_coefficient(), 0.25);
  EXPECT_EQ(proto.vanished_fraction(), 0.125);
  EXPECT_EQ(proto.loss_scale(), 4096);
  EXPECT_EQ(proto.timeline(), 4);
  EXPECT_EQ(proto.epoch(), 5);
  EXPECT_EQ(proto.window_seconds(), 2);
  EXPECT_EQ(proto.tokens_per_second(), 250);
  EXPECT_EQ(proto.committed_unix_ns(), 11);
  EXPECT_EQ(proto.validation_loss(), 2.5);
  ASSERT_EQ(proto.workers_size(), 1);
  EXPECT_EQ(proto.workers(0).incarnation(), 6);
  EXPECT_EQ(proto.workers(0).units(), 7);
  EXPECT_EQ(proto.workers(0).memory_bytes(), 9);
}

TEST(TranslateTest, JobStates_AreTheSameOnBothSides) {
  for (int state = 0; state <= static_cast<int>(core::JobState::kCancelled); ++state) {
    const auto core_state = static_cast<core::JobState>(state);
    EXPECT_EQ(static_cast<int>(JobStateToProto(core_state)), state + 1);
    EXPECT_EQ(IsTerminal(core_state), state >= static_cast<int>(core::JobState::kSucceeded));
  }
}

}  // namespace
}  // namespace accrue
