// run: one job on this machine, in one command. Starts a coordinator and workers as children, submits,
// watches, starts again what dies, stops.
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "client/format.h"
#include "client/interrupts.h"
#include "client/job_file.h"
#include "client/supervised_child.h"
#include "client/watch.h"
#include "common/option_checks.h"

namespace accrue {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kStartTimeoutMs = 60000;
constexpr int64_t kStopTimeoutMs = 8000;
constexpr int kPollMs = 20, kRepaintMs = 100;
constexpr int kLogLines = 12;

struct RunOptions {
  std::string path, output;
  std::string backend;  // empty: left to the workers
  int workers = 1, threads = 0;
  std::string trace;           // empty: none
  std::optional<int64_t> trace_windows, resume_from, until;
  bool fresh = false;
};

// Keeps a second `accrue run` out of the folder; the kernel frees it with the process.
class FolderLock {
 public:
  ~FolderLock() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  absl::Status Acquire(const std::string& folder) {
    const std::string path = JoinPath(folder, "run.lock");
    descriptor_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor_ < 0) return absl::InternalError(absl::StrCat(path, ": ", std::strerror(errno)));
    if (flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("another accrue run is at work in ", folder, "; wait for it, or use another --output"));
  }

 private:
  int descriptor_ = -1;
};

class LocalRun {
 public:
  LocalRun(CommandContext& context, const RunOptions& options, const JobFile& file)
      : context_(context), options_(options), file_(file), output_(OutputFolder()) {}

  void Run() {
    if (Start() && Submit()) Follow();
    Stop();
  }

 private:
  std::string OutputFolder() const {
    return AbsolutePath(options_.output.empty() ? JoinPath("runs", file_.job.spec.name()) : options_.output);
  }
  int Threads() const {
    if (options_.threads > 0) return options_.threads;
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / options_.workers);
  }
  std::string ToGoOn() const {
    return absl::StrCat("To go on: accrue run ", options_.path, " --workers ", options_.workers, " --output ",
                        output_);
  }

  // Fails the command; false, for the steps to return.
  bool Fail(const absl::Status& status) {
    context_.Fail(status);
    return false;
  }
  bool FailOfChild(ChildProcess& child) {
    const std::string tail = child.LogTail(kLogLines);
    context_.Fail(kExitError, absl::StrCat(child.name(), " ", child.HowItEnded(), "; the end of ",
                                           child.log_path(), ":\n", tail.empty() ? "  (nothing)" : tail));
    return false;
  }
  bool Interrupted() {
    if (Interrupts::Count() == 0) return false;
    context_.Fail(kExitJobCancelled, absl::StrCat("interrupted before the job started. ", ToGoOn()));
    return true;
  }

  bool Start() {
    for (const char* const name : {"", "logs", "coordinator"}) {
      if (const absl::Status made = context_.file_system->CreateDirectories(JoinPath(output_, name));
          !made.ok()) {
        return Fail(made);
      }
    }
    if (const absl::Status locked = lock_.Acquire(output_); !locked.ok()) return Fail(locked);
    return StartCoordinator() && CancelLeftOvers() && StartWorkers();
  }

  std::unique_ptr<SupervisedChild> StartChild(const std::string& name, const std::vector<std::string>& argv,
                                              SupervisedChild::WhenDone when_done) {
    auto child = std::make_unique<SupervisedChild>(
        name, argv, JoinPath(output_, absl::StrCat("logs/", name, ".log")), when_done, *context_.clock);
    const absl::Status started = child->Start();
    if (started.ok()) return child;
    context_.Fail(kExitError, started.message());
    return nullptr;
  }

  std::vector<std::string> CoordinatorArguments(const std::string& listen, const std::string& http) const {
    const std::string state = JoinPath(output_, "coordinator");
    return {JoinPath(context_.binary_directory, "accrued"), "--listen", listen, "--http", http, "--state", state,
            "--ready-file", JoinPath(state, "ready.json")};
  }

  bool StartCoordinator() {
    const std::string ready_file = JoinPath(output_, "coordinator/ready.json");
    if (const absl::Status gone = context_.file_system->RemoveAll(ready_file); !gone.ok()) return Fail(gone);
    coordinator_ = StartChild("coordinator", CoordinatorArguments("127.0.0.1:0", "127.0.0.1:0"),
                              SupervisedChild::WhenDone::kRestart);
    if (coordinator_ == nullptr) return false;
    for (int64_t waited_ms = 0; !context_.file_system->Exists(ready_file); waited_ms += kPollMs) {
      if (!coordinator_->process().Running()) return FailOfChild(coordinator_->process());
      if (Interrupted()) return false;
      if (waited_ms >= kStartTimeoutMs)
        return Fail(absl::InternalError("the coordinator is not ready after a minute"));
      poll(nullptr, 0, kPollMs);
    }
    const absl::StatusOr<std::string> text = context_.file_system->ReadAll(ready_file, 1 << 16);
    if (!text.ok()) return Fail(text.status());
    const ordered_json ready = ordered_json::parse(*text, nullptr, false);
    if (!ready.is_object() || !ready.contains("grpc") || !ready["grpc"].is_string()) {
      return Fail(absl::InternalError(
          absl::StrCat(ready_file, ": expected the coordinator's addresses, found ", *text)));
    }
    address_ = ready["grpc"].get<std::string>();
    if (ready.contains("http") && ready["http"].is_string()) http_address_ = ready["http"].get<std::string>();
    // One that is started again is found where this one was.
    coordinator_->SetArguments(CoordinatorArguments(address_, http_address_.empty() ? "none" : http_address_));
    client_ = JobClient::Create(address_);
    return true;
  }

  // A run that was killed left its job unfinished, and the coordinator has taken it up again. This run
  // submits it anew, so that what resumes is checked against the job file and the options given now.
  bool CancelLeftOvers() {
    const absl::StatusOr<v1::ListResponse> jobs = client_->List();
    if (!jobs.ok()) return Fail(jobs.status());
    for (const v1::JobStatus& job : jobs->jobs()) {
      if (HasEnded(job.state())) continue;
      absl::StatusOr<v1::JobStatus> status = client_->Cancel(job.job_id(), "run again by accrue run", false);
      for (int64_t waited_ms = 0; status.ok() && !HasEnded(status->state()); waited_ms += kPollMs) {
        if (waited_ms >= kStartTimeoutMs)
          return Fail(absl::InternalError(absl::StrCat(job.job_id(), " cannot be cancelled")));
        poll(nullptr, 0, kPollMs);
        const absl::StatusOr<v1::DescribeResponse> now = client_->Describe(job.job_id());
        status = now.ok() ? absl::StatusOr<v1::JobStatus>(now->status()) : now.status();
      }
      if (!status.ok() && status.status().code() != absl::StatusCode::kFailedPrecondition)
        return Fail(status.status());
    }
    return true;
  }

  std::vector<std::string> WorkerArguments(const std::string& name) const {
    std::vector<std::string> arguments = {JoinPath(context_.binary_directory, "accrue-worker"), "--coordinator",
                                          address_, "--threads", absl::StrCat(Threads()), "--name", name};
    if (!options_.backend.empty()) arguments.insert(arguments.end(), {"--backend", options_.backend});
    if (!options_.trace.empty()) arguments.insert(arguments.end(), {"--trace", TraceFile(name)});
    if (options_.trace_windows.has_value()) {
      arguments.insert(arguments.end(), {"--trace-windows", absl::StrCat(*options_.trace_windows)});
    }
    return arguments;
  }

  // The file's name with the worker's before its last dot.
  std::string TraceFile(const std::string& worker) const {
    const std::string path = AbsolutePath(options_.trace);
    const size_t dot = path.rfind('.');
    const bool has_extension = dot != std::string::npos && dot > path.rfind('/') + 1;
    return absl::StrCat(path.substr(0, has_extension ? dot : path.size()), "-", worker,
                        has_extension ? path.substr(dot) : "");
  }

  bool StartWorkers() {
    for (int i = 1; i <= options_.workers; ++i) {
      const std::string name = absl::StrCat("worker-", i);
      std::unique_ptr<SupervisedChild> worker =
          StartChild(name, WorkerArguments(name), SupervisedChild::WhenDone::kLeave);
      if (worker == nullptr) return false;
      workers_.push_back(std::move(worker));
    }
    // The job begins with all of them.
    for (int64_t waited_ms = 0;; waited_ms += kPollMs) {
      if (!coordinator_->process().Running()) return FailOfChild(coordinator_->process());
      for (const auto& worker : workers_) {
        if (!worker->process().Running()) return FailOfChild(worker->process());
      }
      if (Interrupted()) return false;
      const absl::StatusOr<v1::ListWorkersResponse> there = client_->ListWorkers();
      if (!there.ok()) return Fail(there.status());
      if (there->workers_size() >= options_.workers) return true;
      if (waited_ms >= kStartTimeoutMs) {
        return Fail(absl::InternalError(absl::StrCat(
            "only ", there->workers_size(), " of ", options_.workers,
            " workers have joined after a minute; their logs are in ", JoinPath(output_, "logs"))));
      }
      poll(nullptr, 0, kPollMs);
    }
  }

  // Hashing the data may take minutes; an interrupt ends the call, and the coordinator with it.
  absl::StatusOr<v1::SubmitResponse> CallSubmit(const v1::SubmitRequest& request) {
    absl::StatusOr<v1::SubmitResponse> response = absl::UnknownError("not answered");
    absl::Notification answered;
    std::thread call([&] {
      response = client_->Submit(request);
      answered.Notify();
    });
    while (!answered.WaitForNotificationWithTimeout(absl::Milliseconds(kRepaintMs))) {
      if (Interrupts::Count() > 0) coordinator_->process().Signal(SIGKILL);
    }
    call.join();
    return response;
  }

  bool Submit() {
    v1::SubmitRequest request;
    *request.mutable_spec() = file_.job.spec;
    // The workers are those of this command, whatever fleet the file has in mind.
    request.mutable_spec()->mutable_workers()->set_min(1);
    v1::WorkersSpec& workers = *request.mutable_spec()->mutable_workers();
    if (workers.has_max()) workers.set_max(std::max<int64_t>(workers.max(), options_.workers));
    request.set_output_directory(output_);
    request.set_base_directory(file_.directory);
    request.set_closed_fleet(true);
    request.set_fresh(options_.fresh);
    if (options_.resume_from.has_value()) request.set_resume_from(*options_.resume_from);
    if (options_.until.has_value()) request.set_until(*options_.until);
    const absl::StatusOr<v1::SubmitResponse> response = CallSubmit(request);
    if (Interrupted()) return false;
    if (!response.ok()) return Fail(response.status());
    for (const std::string& warning : response->warnings()) context_.Warn(Printable(warning));
    job_id_ = response->job_id();
    first_window_ = response->first_window();
    return true;
  }

  Presenter::Options ProgressOptions() const {
    Presenter::Options options = PresenterOptions(context_, 0);
    if (context_.json()) {  // standard output is for the result
      options.out = context_.err;
      options.terminal = context_.err_terminal;
      options.mode = options.terminal.interactive ? Presenter::Mode::kLive : Presenter::Mode::kPlain;
    }
    return options;
  }

  void Greet(Presenter& presenter) {
    presenter.Say(
        absl::StrCat("Training ", file_.job.spec.name(), " with ", options_.workers,
                     options_.workers == 1 ? " worker" : " workers", " of ", Threads(),
                     Threads() == 1 ? " thread" : " threads", " in ", output_,
                     http_address_.empty() ? "" : absl::StrCat("; status page http://", http_address_, "/")));
    if (first_window_ > 0) {
      presenter.Say(
          absl::StrCat("Resuming after window ", FormatCount(first_window_), ", from its checkpoint"));
    }
  }

  void Follow() {
    std::optional<Presenter> presenter(ProgressOptions());
    Greet(*presenter);
    Follower follower(*client_, job_id_, first_window_);
    CheckpointPoller checkpoints;
    FollowEvent event;
    while (true) {
      bool ended = false;
      if (follower.Next(event, kRepaintMs)) {
        do {
          presenter->Apply(event);
          ended = event.kind == FollowEvent::Kind::kEnded;
        } while (!ended && Interrupts::Count() == interrupts_seen_ && follower.Next(event, 0));
      }
      presenter->Paint();
      if (ended) break;
      if (!LookAfterChildren(presenter) || !HandleInterrupts(*presenter)) return;
      checkpoints.MaybePoll(*context_.clock, *client_, job_id_, *presenter);
    }
    const std::optional<double> tokens_per_second = presenter->model().MeanTokensPerSecond();
    const v1::JobStatus last = presenter->model().status();
    presenter.reset();
    if (!event.status.ok()) {
      Fail(event.status);
      return;
    }
    Report(last, tokens_per_second);
  }

  // False when the run is to stop at once.
  bool HandleInterrupts(Presenter& presenter) {
    const int count = Interrupts::Count();
    if (count > 1 && count != interrupts_seen_) {
      interrupts_seen_ = count;
      kill_ = true;
      context_.Fail(kExitJobCancelled,
                    absl::StrCat("stopped at once; windows since the last checkpoint are lost. ", ToGoOn()));
      return false;
    }
    if (count != interrupts_seen_) {
      presenter.SetNotice("Interrupted: writing a checkpoint, then stopping. Ctrl-C again stops at once.");
      cancel_owed_ = true;
    }
    interrupts_seen_ = count;
    return !cancel_owed_ || Cancel();
  }

  // Tried again while the coordinator is away.
  bool Cancel() {
    const absl::StatusOr<v1::JobStatus> status = client_->Cancel(job_id_, "interrupted", /*checkpoint=*/true);
    if (absl::IsUnavailable(status.status()) || absl::IsDeadlineExceeded(status.status())) return true;
    cancel_owed_ = false;
    // A job that is over needs no cancel.
    return status.ok() || absl::IsFailedPrecondition(status.status()) || Fail(status.status());
  }

  // Starts again what died, and says so. False when the run cannot go on.
  bool LookAfterChildren(std::optional<Presenter>& presenter) {
    if (const std::optional<std::string> news = coordinator_->LookAfter()) {
      presenter->Say(*news);
      cancel_owed_ = interrupts_seen_ > 0;  // the one before may have taken the wish with it
    }
    bool all_over = true;
    for (const auto& worker : workers_) {
      if (const std::optional<std::string> news = worker->LookAfter()) presenter->Say(*news);
      all_over = all_over && worker->over();
    }
    if (!coordinator_->over() && !all_over) return true;
    presenter.reset();
    FailOfChild(coordinator_->over() ? coordinator_->process() : workers_.back()->process());
    *context_.err << ToGoOn() << std::endl;
    return false;
  }

  int64_t WorkerRestarts() const {
    int64_t restarts = 0;
    for (const auto& worker : workers_) restarts += worker->restarts();
    return restarts;
  }

  void Report(v1::JobStatus status, std::optional<double> tokens_per_second) {
    // The last update may be older than the last number.
    if (const absl::StatusOr<v1::DescribeResponse> now = client_->Describe(job_id_); now.ok())
      status = now->status();
    context_.exit_code = OutcomeOf(status);
    if (tokens_per_second.has_value()) status.set_tokens_per_second(*tokens_per_second);
    if (context_.json()) {
      ordered_json result = ToJson(status);
      if (status.window() == 0) result["loss"] = nullptr;
      result["coordinator_restarts"] = coordinator_->restarts();
      result["worker_restarts"] = WorkerRestarts();
      *context_.out << result.dump() << std::endl;
    } else {
      *context_.out << EndLine(status) << "\n";
      if (status.window() > 0) {
        if (status.tokens_per_second() > 0) {
          *context_.out << FormatCount(static_cast<int64_t>(status.tokens_per_second())) << " tokens/s, ";
        }
        *context_.out << "digest " << status.digest() << "\n";
      }
      if (coordinator_->restarts() + WorkerRestarts() > 0) {
        *context_.out << "started again: the coordinator " << coordinator_->restarts() << " times, workers "
                      << WorkerRestarts() << " times\n";
      }
      *context_.out << std::flush;
    }
    if (status.state() == v1::JOB_STATE_SUCCEEDED) {
      *context_.err << "Checkpoints are in " << JoinPath(output_, "checkpoints")
                    << "; for weights to use elsewhere: accrue export " << output_ << " FOLDER" << std::endl;
    } else {
      *context_.err << ToGoOn() << std::endl;
    }
  }

  // Workers first, so that the coordinator sees them leave.
  void Stop() {
    client_.reset();  // an open but idle connection would hold up the coordinator's shutdown
    std::vector<ChildProcess*> children;
    for (const auto& worker : workers_) children.push_back(&worker->process());
    StopAll(children);
    client_.reset();  // the coordinator waits for open connections, used or not
    if (coordinator_ != nullptr) StopAll({&coordinator_->process()});
    workers_.clear();
    coordinator_.reset();
  }
  void StopAll(const std::vector<ChildProcess*>& children) {
    for (ChildProcess* const child : children) child->Signal(kill_ ? SIGKILL : SIGTERM);
    int64_t left_ms = kStopTimeoutMs;
    for (ChildProcess* const child : children) {
      // A Ctrl-C that comes now ends the patience.
      while (left_ms > 0 && Interrupts::Count() <= std::max(1, interrupts_seen_) &&
             !child->WaitUntilEnded(kPollMs)) {
        left_ms -= kPollMs;
      }
      if (child->Running()) child->Signal(SIGKILL);
    }
  }

  CommandContext& context_;
  const RunOptions& options_;
  const JobFile& file_;
  const std::string output_;
  const Interrupts interrupts_;
  FolderLock lock_;
  std::unique_ptr<SupervisedChild> coordinator_;
  std::vector<std::unique_ptr<SupervisedChild>> workers_;
  std::string address_, http_address_, job_id_;
  int64_t first_window_ = 0;
  std::unique_ptr<JobClient> client_;
  int interrupts_seen_ = 0;
  bool cancel_owed_ = false;  // the coordinator is still to be told of the interrupt
  bool kill_ = false;
};

}  // namespace

void RegisterRunCommand(CLI::App& app, CommandContext& context) {
  CLI::App* const run =
      AddCommand(app, "run",
                 "Train a job on this machine: starts a coordinator and workers, shows progress, and stops "
                 "them at the end. "
                 "Run it again to go on from the newest checkpoint. Ctrl-C writes a checkpoint, then stops.",
                 "accrue run job.yaml --workers 2\naccrue run job.yaml --output runs/try -o json\n"
                 "accrue run job.yaml --output runs/try --resume-from 500",
                 /*asks_coordinator=*/false);
  const auto options = std::make_shared<RunOptions>();
  run->add_option("JOB.yaml", options->path, "The job file; its paths are relative to it")->required();
  run->add_option("--workers", options->workers,
                  "Worker processes; the result does not depend on their number")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  run->add_option("--threads", options->threads,
                  "Threads of each worker; the result does not depend on them (default: cores / workers)")
      ->check(CLI::Range(1, 1024));
  run->add_option("--backend", options->backend,
                  "What the workers compute on: auto, cpu or cuda (default: auto, a GPU where one can be used)")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->type_name("WHAT");
  run->add_option("--output", options->output,
                  "Folder for checkpoints, windows.jsonl and logs (default: ./runs/NAME)")
      ->type_name("DIR");
  CLI::Option* const resume_from =
      run->add_option("--resume-from", options->resume_from, "Go back to the checkpoint of this window")
          ->check(NonNegativeNumber());
  run->add_option("--until", options->until, "Stop, with a checkpoint, once this many windows of the job are done (default: all)")
      ->check(PositiveNumber());
  CLI::Option* const trace =
      run->add_option("--trace", options->trace,
                      "Write what each worker does in a few windows, from its second one on, to this file with the "
                      "worker's name in it (x.json: x-worker-1.json): a Chrome trace for Perfetto or chrome://tracing")
          ->type_name("FILE");
  run->add_option("--trace-windows", options->trace_windows, "How many windows --trace records (default: 5)")
      ->check(CLI::Range(int64_t{1}, int64_t{10'000}))
      ->needs(trace);
  run->add_flag("--fresh", options->fresh, "Discard what the folder holds of this job")
      ->excludes(resume_from);
  run->callback([&context, options] {
    if (!options->trace.empty()) {
      const std::string path = AbsolutePath(options->trace), folder = DirectoryOf(path);
      if (!context.file_system->IsDirectory(folder)) {
        return context.Fail(kExitUsage, absl::StrCat("--trace ", options->trace, ": there is no folder ", folder));
      }
      if (context.file_system->IsDirectory(path)) {
        return context.Fail(kExitUsage, absl::StrCat("--trace ", options->trace, ": this is a folder; name a file in it"));
      }
    }
    const std::unique_ptr<JobFile> file = LoadJobFile(context, options->path);
    if (file == nullptr) return;
    if (options->backend == "cpu" && file->job.spec.precision() == "tf32") {
      return context.Fail(kExitUsage, "--backend cpu: the job's precision is tf32, which only GPUs compute; leave --backend "
                                      "out where there is a GPU, or write precision: fp32");
    }
    LocalRun(context, *options, *file).Run();
  });
}

}  // namespace accrue
