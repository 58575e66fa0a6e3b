// accrue-worker: one worker process.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/config.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "common/option_checks.h"
#include "common/synthetic.h"
#include "common/version.h"
#include "worker/app/job_factory.h"
#include "worker/backend/plugin/choose_backend.h"
#include "worker/collective/device_and_host.h"
#include "worker/collective/gloo_collective.h"
#include "worker/core/checkpoint_writer.h"
#include "worker/core/session_grpc.h"
#include "worker/core/worker.h"
#include "worker/synthetic/synthetic_engine.h"
#include "worker/trace/traced_collectives.h"
#include "worker/trace/tracer.h"

namespace accrue {
namespace {

struct Flags {
  std::string coordinator = "127.0.0.1:7437";
  std::string backend = "auto";
  std::string cuda_plugin;  // empty: where PluginPlaces says
  int gpu = -1;
  std::string name;
  int threads = 0;
  std::vector<std::string> data_roots;
  std::string collective_address = "127.0.0.1";
  int64_t coordinator_timeout_s = 3600;
  double stall_timeout_s = 30;
  std::string synthetic;  // as given; empty: none
  std::vector<std::string> faults;
  std::string fault_once;
  std::string trace;  // file; empty: none
  int64_t trace_windows = TraceOptions().windows;
  bool list_fault_points = false;
};

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "localhost";
}

v1::Hello HelloOf(const Flags& flags, const std::optional<SyntheticOptions>& synthetic, const ChosenBackend& chosen) {
  const Backend& backend = *chosen.backend;
  v1::Hello hello;
  hello.set_version(kVersion);
  hello.set_host(HostName());
  hello.set_process_id(getpid());
  hello.set_name(flags.name.empty() ? absl::StrCat(hello.host(), "-", getpid()) : flags.name);
  hello.set_numeric_class(backend.NumericClass(DType::kF32));
  hello.set_bf16_numeric_class(backend.NumericClass(DType::kBF16));
  hello.set_fp16_numeric_class(backend.NumericClass(DType::kF16));
  hello.set_tf32_numeric_class(backend.Tf32NumericClass());
  hello.set_backend(chosen.name);
  hello.set_device(backend.DeviceName());
  hello.set_threads(flags.threads > 0 ? flags.threads : static_cast<int>(std::thread::hardware_concurrency()));
  if (synthetic) {
    // The unit's time is no part of the class: workers of different speeds may share a job.
    const std::string prefix = absl::StrCat(kSyntheticPrefix, synthetic->parameters, " ");
    hello.set_numeric_class(absl::StrCat(prefix, hello.numeric_class()));
    hello.set_bf16_numeric_class(absl::StrCat(prefix, hello.bf16_numeric_class()));
    hello.set_fp16_numeric_class(absl::StrCat(prefix, hello.fp16_numeric_class()));
    hello.set_tf32_numeric_class(hello.numeric_class());  // nothing is computed
    hello.set_backend(std::string(kSyntheticBackend));
    hello.set_device(absl::StrCat("synthetic units of ", static_cast<double>(synthetic->unit_ns) * 1e-6, " ms, ",
                                  synthetic->parameters, " parameters"));
  }
  return hello;
}

// Turns the first SIGTERM or SIGINT into a drain; with the second one the process hands its units back and ends at once.
// Signals must be blocked in all threads: BlockSignals, before any is started.
class SignalWatcher {
 public:
  static void BlockSignals() {
    const sigset_t signals = Signals();
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signal(SIGPIPE, SIG_IGN);
  }

  explicit SignalWatcher(Worker& worker) : thread_([this, &worker] { Watch(worker); }) {}
  ~SignalWatcher() {
    stopping_ = true;
    pthread_kill(thread_.native_handle(), SIGTERM);
    thread_.join();
  }

 private:
  static sigset_t Signals() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    return signals;
  }

  void Watch(Worker& worker) {
    const sigset_t signals = Signals();
    bool draining = false;
    while (true) {
      int number = 0;
      if (sigwait(&signals, &number) != 0) continue;
      if (stopping_) return;
      if (draining) {
        LogWarning("leaving at once", {{"signal", number}});
        worker.LeaveAtOnce(absl::StrCat("signal ", number));
        _exit(EXIT_SUCCESS);
      }
      draining = true;
      LogInfo("draining: the window at hand is finished first; a second signal ends at once", {{"signal", number}});
      worker.Drain(absl::StrCat("signal ", number));
    }
  }

  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

absl::StatusOr<ChosenBackend> ChooseWorkersBackend(const Flags& flags, bool is_synthetic) {
  BackendOptions options{.threads = flags.threads, .plugin = flags.cuda_plugin, .gpu = flags.gpu};
  options.choice = flags.backend == "cuda"                  ? BackendChoice::kCuda
                   : flags.backend == "cpu" || is_synthetic ? BackendChoice::kCpu
                                                            : BackendChoice::kAuto;
  absl::StatusOr<ChosenBackend> chosen = ChooseBackend(options, RealBackendSources(options));
  if (!chosen.ok()) return chosen;
  Log(chosen->is_fallback ? LogLevel::kWarning : LogLevel::kInfo, "backend chosen",
      {{"backend", chosen->name}, {"asked_for", flags.backend}, {"because", chosen->reason}});
  return chosen;
}

// Gradients are exchanged where they are computed.
absl::StatusOr<std::unique_ptr<CollectiveFactory>> MakeCollectives(const Flags& flags, const ChosenBackend& chosen,
                                                                   GrpcCoordinator& coordinator) {
  absl::StatusOr<std::unique_ptr<CollectiveFactory>> host =
      CreateGlooFactory({.bind_address = flags.collective_address}, &coordinator.store());
  if (chosen.plugin == nullptr || !host.ok()) return host;
  absl::StatusOr<std::unique_ptr<CollectiveFactory>> device = chosen.plugin->create_collectives(
      *chosen.backend, {.bind_address = flags.collective_address, .slot = chosen.slot->number()}, &coordinator.store());
  if (!device.ok()) return device;
  return std::make_unique<DeviceAndHostCollectives>(*std::move(device), *std::move(host));
}

// Null where neither a file nor a profiler could get anything.
std::unique_ptr<Tracer> MakeTracer(const Flags& flags, const v1::Hello& hello, const ChosenBackend& chosen) {
  ProfilerRanges* const ranges = chosen.plugin == nullptr ? nullptr : chosen.plugin->profiler_ranges;
  if (flags.trace.empty() && ranges == nullptr) return nullptr;
  const TraceOptions options{.path = flags.trace,
                             .windows = flags.trace_windows,
                             .process = hello.name(),
                             .process_id = hello.process_id()};
  return std::make_unique<Tracer>(options, Clock::Real(), FileSystem::Real(), ranges);
}

// Asked at the start: a trace is written long after, when nobody looks.
absl::Status CheckTraceFile(const std::string& trace) {
  if (trace.empty()) return absl::OkStatus();
  const std::string folder = DirectoryOf(trace);
  if (!FileSystem::Real().IsDirectory(folder)) {
    return absl::NotFoundError(absl::StrCat("--trace ", trace, ": there is no folder ", folder));
  }
  if (FileSystem::Real().IsDirectory(trace)) {
    return absl::InvalidArgumentError(absl::StrCat("--trace ", trace, ": this is a folder; name a file in it"));
  }
  return absl::OkStatus();
}

int Run(const Flags& flags) {
  if (const absl::Status status = CheckTraceFile(flags.trace); !status.ok()) {
    std::cerr << "accrue-worker: " << status.message() << "\n";
    return kUsageExitCode;
  }
  std::optional<SyntheticOptions> synthetic;
  if (!flags.synthetic.empty()) {
    absl::StatusOr<SyntheticOptions> parsed = ParseSynthetic(flags.synthetic);
    if (!parsed.ok()) {
      std::cerr << "accrue-worker: --synthetic: " << parsed.status().message() << "\n";
      return kUsageExitCode;
    }
    synthetic = *parsed;
  }
  if (synthetic && flags.backend == "cuda") {
    std::cerr << "accrue-worker: --synthetic computes nothing, so it takes no GPU: leave --backend cuda out\n";
    return kUsageExitCode;
  }
  if (flags.gpu >= 0 && (synthetic || flags.backend == "cpu")) {
    std::cerr << "accrue-worker: --gpu " << flags.gpu << ": " << (synthetic ? "--synthetic" : "--backend cpu")
              << " takes no GPU: leave one of the two out\n";
    return kUsageExitCode;
  }
  const absl::StatusOr<ChosenBackend> chosen = ChooseWorkersBackend(flags, synthetic.has_value());
  if (!chosen.ok()) {
    std::cerr << "accrue-worker: --backend " << flags.backend << ": " << chosen.status().message() << "\n";
    return EXIT_FAILURE;
  }
  const std::shared_ptr<Backend> backend = chosen->backend;
  const std::unique_ptr<GrpcCoordinator> coordinator = GrpcCoordinator::Create(flags.coordinator);
  absl::StatusOr<std::unique_ptr<CollectiveFactory>> collectives = MakeCollectives(flags, *chosen, *coordinator);
  if (!collectives.ok()) {
    std::cerr << "accrue-worker: " << collectives.status().message() << "\n";
    return EXIT_FAILURE;
  }
  const v1::Hello hello = HelloOf(flags, synthetic, *chosen);
  const std::unique_ptr<Tracer> tracer = MakeTracer(flags, hello, *chosen);
  std::unique_ptr<CollectiveFactory> traced;
  if (tracer != nullptr) traced = std::make_unique<TracedCollectives>(**collectives, *tracer);
  JobFactoryOptions factory{.data_roots = flags.data_roots};
  if (synthetic) {
    factory.make_engine = [options = *synthetic](const v1::JobSpec& spec) mutable {
      options.seed = spec.seed();
      options.vocabulary = spec.model().vocabulary();
      return CreateSyntheticEngine(options, Clock::Real());
    };
  }
  NativeJobFactory jobs(factory, FileSystem::Real(), backend);
  Worker worker({.session = {.hello = hello,
                             .keep_ms = flags.coordinator_timeout_s * 1000},
                  .stall_ms = static_cast<int64_t>(flags.stall_timeout_s * 1000)},
                {.links = coordinator->links(),
                 .jobs = jobs,
                 .collectives = traced != nullptr ? *traced : **collectives,
                 .make_checkpoint_sink = [](CoordinatorLink& link) -> std::unique_ptr<CheckpointSink> {
                   return std::make_unique<CheckpointWriter>(FileSystem::Real(), link);
                 },
                 .clock = Clock::Real(),
                 .tracer = tracer.get()});
  SignalWatcher watcher(worker);
  LogInfo("worker starts", {{"version", kVersion}, {"coordinator", flags.coordinator},
                            {"device", backend->DeviceName()},
                            {"numeric_class", backend->NumericClass(DType::kF32)}});
  if (absl::Status status = worker.Run(); !status.ok()) {
    std::cerr << "accrue-worker: " << status.message() << "\n";
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace accrue

int main(int argc, char** argv) {
  accrue::SignalWatcher::BlockSignals();
  accrue::Flags flags;
  accrue::DaemonOptions options("accrue-worker", "Computes units of training jobs for a coordinator (accrued).");
  options.app()
      .add_option("--coordinator", flags.coordinator, "Address of accrued")
      ->type_name("HOST:PORT")
      ->check(
          [](const std::string& text) {
            return accrue::IsHostPort(text) ? "" : "expected HOST:PORT, such as 127.0.0.1:7437; found \"" + text + "\"";
          },
          "")
      ->capture_default_str();
  options.app()
      .add_option("--threads", flags.threads, "Threads that compute; 0: all of the machine. Results do not depend on it")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  options.app()
      .add_option("--backend", flags.backend,
                  "What computes: cpu, cuda (a GPU, or an error that says why not), or auto: a GPU where one can be used, "
                  "else the CPU; the log says which and why")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->type_name("WHAT")
      ->capture_default_str();
  options.app()
      .add_option("--gpu", flags.gpu,
                  "Number of the GPU that computes, of those that CUDA_VISIBLE_DEVICES leaves (default: the one that the "
                  "fewest workers of this machine have taken)")
      ->check(CLI::Range(0, 1023));
  options.app()
      .add_option("--cuda-plugin", flags.cuda_plugin,
                  "The CUDA backend (default: libaccrue_cuda.so beside this program, then in ../lib/accrue from there)")
      ->type_name("FILE");
  options.app().add_option("--name", flags.name, "Name shown to people (default: host and process)")->type_name("NAME");
  options.app()
      .add_option("--data-root", flags.data_roots,
                  "Folder that training data lie under; may be given more than once. Without one, any absolute path is "
                  "read")
      ->type_name("DIR");
  options.app()
      .add_option("--collective-address", flags.collective_address,
                  "Address of this machine for the exchange of gradients with other workers")
      ->type_name("HOST")
      ->capture_default_str();
  options.app()
      .add_option("--coordinator-timeout", flags.coordinator_timeout_s,
                  "Seconds for which what is held of a job is kept while no coordinator answers. The worker goes on to "
                  "look for one afterwards, with nothing held")
      ->check(CLI::Range(int64_t{0}, int64_t{30'000'000}))
      ->type_name("SECONDS")
      ->capture_default_str();
  options.app()
      .add_option("--stall-timeout", flags.stall_timeout_s,
                  "Seconds after which a unit that does not end ends the process, if units took no more than a twentieth of "
                  "that before (else 20 times the longest one's time); anything but a unit is given 20 times as long")
      ->check(CLI::Range(0.1, 1e6))
      ->type_name("SECONDS")
      ->capture_default_str();
  options.app()
      .add_option("--synthetic", flags.synthetic,
                  "MILLISECONDS[,PARAMETERS]: for tests of a fleet. Units take this time and no processor; nothing is "
                  "learnt")
      ->type_name("UNIT");
  CLI::Option* const trace = options.app().add_option(
      "--trace", flags.trace,
      "Write what the worker does in a few windows to this file, a Chrome trace for Perfetto or chrome://tracing: from its "
      "second window on, once the last of them commits or its job ends");
  trace->type_name("FILE");
  options.app()
      .add_option("--trace-windows", flags.trace_windows, "How many windows --trace records")
      ->check(CLI::Range(int64_t{1}, int64_t{10'000}))
      ->needs(trace)
      ->capture_default_str();
  options.app()
      .add_option("--fault", flags.faults,
                  "NAME[@WINDOW][#N][=kill|stop|exit|hang|error]: for tests of recovery, fail at this point")
      ->type_name("POINT");
  options.app()
      .add_option("--fault-once", flags.fault_once,
                  "Folder in which processes mark the faults that were made, so that each is made once")
      ->type_name("DIR");
  options.app().add_flag("--list-fault-points", flags.list_fault_points, "Print the points that --fault knows");
  if (std::optional<int> exit_code = options.Parse(argc, argv)) return *exit_code;
  if (flags.list_fault_points) {
    std::cout << accrue::ListFaultPoints(accrue::FaultProcess::kWorker);
    return EXIT_SUCCESS;
  }
  if (const absl::Status armed = accrue::ArmFaults(accrue::FaultProcess::kWorker, flags.faults, flags.fault_once);
      !armed.ok()) {
    std::cerr << "accrue-worker: --fault: " << armed.message() << "\n";
    return accrue::kUsageExitCode;
  }
  return accrue::Run(flags);
}
