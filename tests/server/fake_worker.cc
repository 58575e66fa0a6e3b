#include "tests/server/fake_worker.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "accrue/v1/worker.grpc.pb.h"
#include "common/checkpoint/manifest.h"
#include "common/file_system.h"
#include "common/hash.h"
#include "common/version.h"

namespace accrue {

constexpr std::chrono::seconds kPatience(20);

struct FakeWorker::Stream {
  std::unique_ptr<v1::WorkerService::Stub> stub;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>> stream;
  std::mutex write_mutex;
};

FakeWorker::FakeWorker(FakeWorkerOptions options) : options_(std::move(options)), stream_(std::make_unique<Stream>()) {
  stream_->stub =
      v1::WorkerService::NewStub(grpc::CreateChannel(options_.address, grpc::InsecureChannelCredentials()));
  stream_->stream = stream_->stub->Session(&stream_->context);
  v1::WorkerMessage hello;
  hello.mutable_hello()->set_version(options_.version.empty() ? kVersion : options_.version);
  hello.mutable_hello()->set_name(options_.name);
  hello.mutable_hello()->set_numeric_class(options_.numeric_class);
  hello.mutable_hello()->set_bf16_numeric_class(options_.numeric_class);
  hello.mutable_hello()->set_backend("cpu");
  hello.mutable_hello()->set_threads(1);
  hello.mutable_hello()->set_process_id(4711);
  hello.mutable_hello()->set_incarnation(options_.resume.incarnation);
  Send(hello);
  reader_ = std::thread([this] { Read(); });
}

FakeWorker::~FakeWorker() {
  Kill();
  if (reader_.joinable()) reader_.join();
}

FakeWorkerLife FakeWorker::Outlive() {
  Kill();
  if (reader_.joinable()) reader_.join();
  return {incarnation_, tokens_per_unit_, Holds()};
}

void FakeWorker::Kill() { stream_->context.TryCancel(); }

void FakeWorker::Send(const v1::WorkerMessage& message) {
  const std::lock_guard<std::mutex> lock(stream_->write_mutex);
  stream_->stream->Write(message);
}

void FakeWorker::Read() {
  v1::CoordinatorMessage message;
  while (stream_->stream->Read(&message)) {
    const bool answer = options_.filter == nullptr || options_.filter(message);
    if (answer) Answer(message);
    const std::lock_guard<std::mutex> lock(mutex_);
    messages_.push_back(message);
    changed_.notify_all();
  }
  stream_->stream->Finish();
  const std::lock_guard<std::mutex> lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

bool FakeWorker::WaitFor(v1::CoordinatorMessage::MessageCase kind) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] {
    for (const auto& message : messages_) {
      if (message.message_case() == kind) return true;
    }
    return false;
  });
}

bool FakeWorker::WaitForEnd() {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return ended_; });
}

std::vector<v1::CoordinatorMessage> FakeWorker::Messages() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return messages_;
}

double FakeWorker::UnitLoss(int64_t window, int64_t unit) {
  return 100.0 / static_cast<double>(window + 1) + 0.1 * static_cast<double>(unit);
}

std::string FakeWorker::DigestAfter(int64_t window) {
  const std::string text = "state " + std::to_string(window);
  return HashBytes(text.data(), text.size()).Hex();
}

void FakeWorker::Answer(const v1::CoordinatorMessage& message) {
  using M = v1::CoordinatorMessage;
  v1::WorkerMessage reply;
  switch (message.message_case()) {
    case M::kWelcome:
      return OnWelcome(message.welcome());
    case M::kAssignJob:
      return OnAssign(message.assign_job());
    case M::kProbe: {
      v1::UnitReports& reports = *reply.mutable_unit_reports();
      *reports.mutable_key() = message.probe().key();
      reports.set_probe(true);
      v1::UnitReport& report = *reports.add_reports();
      report.add_max_exponents(-3);
      report.add_bucket_checksums(0);
      return Send(reply);
    }
    case M::kPlan:
      if (message.plan().key().window() > committed_) {
        waiting_plan_ = message.plan();
        has_waiting_plan_ = true;
        return;
      }
      return OnPlan(message.plan());
    case M::kSeal:
      return OnSeal(message.seal());
    case M::kCommit:
      step_.reset();
      if (message.commit().key().window() < committed_) return;  // told once more after a restart
      committed_ = message.commit().key().window() + 1;
      attempt_ = 0;
      units_.clear();
      if (has_waiting_plan_) {
        has_waiting_plan_ = false;
        OnPlan(waiting_plan_);
      }
      return;
    case M::kStateSync:
      *reply.mutable_state_synced()->mutable_key() = message.state_sync().key();
      reply.mutable_state_synced()->set_digest(DigestAfter(message.state_sync().key().window()));
      if (message.state_sync().source() != message.state_sync().key().incarnation()) {  // the source keeps its own
        committed_ = message.state_sync().key().window();
        has_waiting_plan_ = false;
        units_.clear();
      }
      return Send(reply);
    case M::kCopyState:
      if (message.copy_state().end() || message.copy_state().source() == message.copy_state().key().incarnation()) return;
      committed_ = message.copy_state().key().window();
      has_waiting_plan_ = false;
      units_.clear();
      *reply.mutable_state_copied()->mutable_key() = message.copy_state().key();
      reply.mutable_state_copied()->set_communicator(message.copy_state().communicator());
      reply.mutable_state_copied()->set_digest(DigestAfter(committed_));
      return Send(reply);
    case M::kCheckpointNow:
      return WriteShard(message.checkpoint_now().key(), message.checkpoint_now().checkpoint(),
                        message.checkpoint_now().key().window());
    default:
      return;
  }
}

void FakeWorker::OnAssign(const v1::AssignJob& assign) {
  const v1::JobSpec& spec = assign.job().spec();
  units_per_window_ = spec.batch().sequences() / spec.batch().micro_batch();
  tokens_per_unit_ = spec.batch().micro_batch() * spec.batch().sequence_length();
  committed_ = assign.key().window();
  has_waiting_plan_ = false;
  units_.clear();
  v1::WorkerMessage reply;
  v1::JobLoaded& loaded = *reply.mutable_job_loaded();
  *loaded.mutable_key() = assign.key();
  loaded.add_tensors("weight");
  loaded.add_tensor_elements(10);
  loaded.set_buckets(1);
  if (!assign.from_members()) loaded.set_digest(DigestAfter(assign.key().window()));
  Send(reply);
}

void FakeWorker::OnWelcome(const v1::Welcome& welcome) {
  incarnation_ = welcome.incarnation();
  if (!welcome.resumed()) return;
  tokens_per_unit_ = options_.resume.tokens_per_unit;
  const v1::Holding& holding = options_.resume.holding;
  committed_ = holding.has_stepped() ? holding.stepped().key().window() : holding.key().window();
  attempt_ = holding.key().attempt();
  key_ = holding.key();
  for (const v1::UnitReport& report : holding.reports()) {
    v1::UnitRange& unit = units_.emplace_back();
    unit.set_first(report.unit());
    unit.set_count(1);
  }
  if (holding.has_stepped()) step_ = holding;
  v1::WorkerMessage reply;
  *reply.mutable_holding() = holding;
  Send(reply);
}

v1::Holding FakeWorker::Holds() const {
  v1::Holding holding;
  if (step_.has_value()) {
    holding = *step_;
    *holding.mutable_key() = step_->stepped().key();
    holding.mutable_key()->set_window(committed_ + 1);
    holding.mutable_key()->set_attempt(0);
  } else {
    *holding.mutable_key() = key_;
    holding.mutable_key()->set_window(committed_);
    holding.mutable_key()->set_attempt(attempt_);
    for (const v1::UnitRange& range : units_) {
      for (int64_t unit = range.first(); unit < range.first() + range.count(); ++unit) {
        *holding.add_reports() = ReportOf(committed_, unit);
      }
    }
  }
  holding.set_digest(DigestAfter(holding.key().window()));
  return holding;
}

v1::UnitReport FakeWorker::ReportOf(int64_t window, int64_t unit) const {
  v1::UnitReport report;
  report.set_unit(unit);
  report.set_loss_sum(UnitLoss(window, unit) * static_cast<double>(tokens_per_unit_));
  report.set_valid_tokens(tokens_per_unit_);
  report.add_max_exponents(-3);
  report.add_bucket_checksums(static_cast<uint64_t>(unit + 1));
  report.set_compute_ns(1000);
  return report;
}

void FakeWorker::OnPlan(const v1::Plan& plan) {
  key_ = plan.key();
  v1::WorkerMessage reply;
  if (plan.evaluation_units_size() > 0) {
    *reply.mutable_evaluation_reports()->mutable_key() = plan.key();
    for (const v1::UnitRange& range : plan.evaluation_units()) {
      for (int64_t unit = range.first(); unit < range.first() + range.count(); ++unit) {
        v1::EvaluationReport& report = *reply.mutable_evaluation_reports()->add_reports();
        report.set_unit(unit);
        report.set_loss_sum(2.0 * static_cast<double>(tokens_per_unit_));
        report.set_valid_tokens(tokens_per_unit_);
      }
    }
    Send(reply);
  }
  if (plan.evaluation_only()) return;
  if (plan.key().attempt() > attempt_) units_.clear();
  attempt_ = plan.key().attempt();
  reply.Clear();
  v1::UnitReports& reports = *reply.mutable_unit_reports();
  *reports.mutable_key() = plan.key();
  for (const v1::UnitRange& range : plan.units()) {
    units_.push_back(range);
    for (int64_t unit = range.first(); unit < range.first() + range.count(); ++unit) {
      *reports.add_reports() = ReportOf(plan.key().window(), unit);
    }
  }
  Send(reply);
  reply.Clear();
  v1::WindowComputed& computed = *reply.mutable_window_computed();
  *computed.mutable_key() = plan.key();
  computed.set_parameter_hash("parameters " + std::to_string(plan.key().window()));
  computed.set_local_gradient_norm(0.5);
  v1::BucketManifest& bucket = *computed.add_buckets();
  for (const v1::UnitRange& range : units_) *bucket.add_units() = range;
  computed_ = computed;
  Send(reply);
}

void FakeWorker::OnSeal(const v1::Seal& seal) {
  const int64_t applied = seal.key().window() + 1;
  v1::WorkerMessage reply;
  v1::Stepped& stepped = *reply.mutable_stepped();
  *stepped.mutable_key() = seal.key();
  stepped.set_digest(DigestAfter(applied));
  stepped.set_gradient_norm(1.0 / static_cast<double>(applied));
  stepped.set_clip_coefficient(1);
  stepped.mutable_phases()->set_compute_ns(2'000'000);
  stepped.mutable_phases()->set_reduce_ns(1'000'000);
  stepped.set_memory_bytes(1 << 20);
  step_.emplace();
  *step_->mutable_stepped() = stepped;
  *step_->mutable_stepped_seal() = seal;
  *step_->mutable_computed() = computed_;
  Send(reply);
  if (seal.has_checkpoint()) WriteShard(seal.key(), seal.checkpoint(), applied);
}

void FakeWorker::WriteShard(const v1::Key& key, const v1::CheckpointOrder& order, int64_t window) {
  const std::string contents = "shard of window " + std::to_string(window);
  const std::string name = ShardFileName(order.shard(), order.shards());
  v1::WorkerMessage reply;
  v1::CheckpointWritten& written = *reply.mutable_checkpoint_written();
  *written.mutable_key() = key;
  written.set_checkpoint_window(window);
  absl::Status status = FileSystem::Real().CreateDirectories(order.directory());
  if (status.ok()) status = FileSystem::Real().WriteAtomically(JoinPath(order.directory(), name), contents);
  if (!status.ok()) {
    written.set_error(std::string(status.message()));
  } else {
    v1::CheckpointFile& file = *written.add_files();
    file.set_path(name);
    file.set_size_bytes(contents.size());
    file.set_xxh3_128(HashBytes(contents.data(), contents.size()).Hex());
  }
  Send(reply);
}

}  // namespace accrue
