// accrued as an object: journal, coordinator, gRPC and HTTP, put together. For the daemon, and for tests in one process.
//
// Start and the destructor belong to one thread; what is in between is thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/file_system.h"

namespace accrue {

struct ServerOptions {
  std::string listen = "127.0.0.1:7437";  // port 0: any
  std::string http = "127.0.0.1:7438";    // port 0: any; "none"
  std::string state_directory;
  std::vector<std::string> data_roots;
  double worker_timeout_seconds = 3;  // silence after which a worker is given up
  // How long a job's members are awaited after a restart before it goes on without them; 0: worker_timeout_seconds.
  double reconnect_timeout_seconds = 0;
  bool background_joins = true;       // newcomers copy the state beside the members' work, where a job allows it
  double stall_timeout_seconds = 30;  // for which the event loop may stand still, until the process ends itself
  int64_t journal_max_page_count = 0;  // 0: no limit
  const Clock* clock = &Clock::Real();
  FileSystem* file_system = &FileSystem::Real();
};

class Server {
 public:
  // Serving when it returns. FAILED_PRECONDITION: an address that needs TLS, or a state folder in use; UNAVAILABLE: a
  // port in use, by its number; INVALID_ARGUMENT; the codes of OpenSqliteJournal.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& given);
  // Ends the streams of workers and watchers, then itself.
  ~Server();

  // "127.0.0.1:PORT"; empty without HTTP.
  const std::string& grpc_address() const;
  const std::string& http_address() const;
  // What was found wrong with the journal and mended: one sentence each.
  const std::vector<std::string>& warnings() const;

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace accrue
