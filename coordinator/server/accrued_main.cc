// accrued: the coordinator's daemon.
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/config.h"
#include "common/fault_points.h"
#include "common/file_system.h"
#include "common/log.h"
#include "coordinator/server/address.h"
#include "coordinator/server/server.h"

namespace {

constexpr int kExitError = 1;

std::string DefaultStateDirectory() {
  const char* const state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && state[0] == '/') return accrue::JoinPath(state, "accrue");
  const char* const home = std::getenv("HOME");
  return accrue::JoinPath(home != nullptr && home[0] == '/' ? home : "/tmp", ".local/state/accrue");
}

int Fail(const absl::Status& status) {
  std::cerr << "accrued: " << status.message() << "\n";
  return kExitError;
}

// What is wrong with an address to listen on; nothing when it will do. A wrong flag, which no supervisor mends by trying
// again.
std::string WhyNotLoopback(const std::string& text) {
  return std::string(accrue::ParseLoopbackAddress(text).status().message());
}

absl::Status WriteReadyFile(const std::string& path, const accrue::Server& server) {
  const nlohmann::ordered_json ready = {
      {"grpc", server.grpc_address()}, {"http", server.http_address()}, {"pid", ::getpid()}};
  return accrue::FileSystem::Real().WriteAtomically(path, ready.dump() + "\n");
}

}  // namespace

int main(int argc, char** argv) {
  // Before any thread is made, so that all inherit it: the main thread alone waits for these.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  signal(SIGPIPE, SIG_IGN);

  accrue::ServerOptions server_options;
  server_options.state_directory = DefaultStateDirectory();
  std::string ready_file;
  accrue::DaemonOptions options("accrued", "The coordinator: hands out work, decides what counts, keeps the record.");
  CLI::App& app = options.app();
  app.add_option("--listen", server_options.listen, "Loopback address for gRPC; port 0: any")
      ->type_name("HOST:PORT")
      ->check(WhyNotLoopback, "")
      ->capture_default_str();
  app.add_option("--http", server_options.http, "Loopback address for metrics, health and the status page; or none")
      ->type_name("HOST:PORT")
      ->check([](const std::string& text) { return text == "none" ? "" : WhyNotLoopback(text); }, "")
      ->capture_default_str();
  app.add_option("--state", server_options.state_directory, "Folder for the journal, and for jobs submitted without --output; locked while in use")
      ->type_name("DIR")
      ->capture_default_str();
  app.add_option("--data-root", server_options.data_roots,
                 "Folder under which submitted jobs find data and weights; may be given more than once. Without one "
                 "no job can be submitted with accrue submit")
      ->type_name("DIR");
  app.add_option("--worker-timeout", server_options.worker_timeout_seconds,
                 "Seconds of silence after which a worker is given up")
      ->capture_default_str()
      ->check(CLI::Range(0.5, 3600.0))
      ->type_name("SECONDS");
  app.add_option("--reconnect-timeout", server_options.reconnect_timeout_seconds,
                 "Seconds after a restart for which the workers of unfinished jobs are awaited; 0: as --worker-timeout")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0))
      ->type_name("SECONDS");
  app.add_option("--background-joins", server_options.background_joins,
                 "Whether workers that join copy the state beside the members' work, for which one member needs memory for "
                 "two more accumulators; false: while the next window waits")
      ->type_name("BOOL")
      ->default_str("true");
  app.add_option("--stall-timeout", server_options.stall_timeout_seconds,
                 "Seconds of standing still (a disk that does not answer, say) after which accrued ends itself, with code "
                 "75, to be started again")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 1e6))
      ->type_name("SECONDS");
  app.add_option("--ready-file", ready_file, "Written, as JSON with addresses and process id, once serving")
      ->type_name("FILE");
  std::vector<std::string> faults;
  app.add_option("--fault", faults,
                 "NAME[@WINDOW][#N][=kill|stop|exit|hang|error]: for tests of recovery, fail at this point")
      ->type_name("POINT");
  std::string fault_once;
  app.add_option("--fault-once", fault_once,
                 "Folder in which processes mark the faults that were made, so that each is made once")
      ->type_name("DIR");
  bool list_fault_points = false;
  app.add_flag("--list-fault-points", list_fault_points, "Print the points that --fault knows");
  if (const std::optional<int> exit_code = options.Parse(argc, argv)) return *exit_code;
  if (list_fault_points) {
    std::cout << accrue::ListFaultPoints(accrue::FaultProcess::kCoordinator);
    return 0;
  }
  if (const absl::Status armed = accrue::ArmFaults(accrue::FaultProcess::kCoordinator, faults, fault_once);
      !armed.ok()) {
    Fail(absl::InvalidArgumentError(absl::StrCat("--fault: ", armed.message())));
    return accrue::kUsageExitCode;
  }

  absl::StatusOr<std::unique_ptr<accrue::Server>> server = accrue::Server::Start(server_options);
  if (!server.ok()) return Fail(server.status());
  if (!ready_file.empty()) {
    if (const absl::Status written = WriteReadyFile(ready_file, **server); !written.ok()) return Fail(written);
  }
  int received = 0;
  while (sigwait(&ends, &received) != 0) {
  }
  accrue::LogInfo("shutting down", {{"signal", strsignal(received)}});
  // A second signal ends the process at once.
  pthread_sigmask(SIG_UNBLOCK, &ends, nullptr);
  if (!ready_file.empty()) accrue::FileSystem::Real().RemoveAll(ready_file).IgnoreError();
  server->reset();
  return 0;
}
