#include "coordinator/server/server.h"

#include <arpa/inet.h>
#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/service_type.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/fault_points.h"
#include "common/folder_lock.h"
#include "common/log.h"
#include "common/status.h"
#include "coordinator/journal/sqlite_journal.h"
#include "coordinator/server/address.h"
#include "coordinator/server/coordinator.h"
#include "coordinator/server/http_server.h"
#include "coordinator/server/metrics.h"
#include "coordinator/server/rendezvous_store.h"
#include "coordinator/server/services.h"
#include "coordinator/server/status_page.h"

namespace accrue {
namespace {

constexpr int kMaxMessageBytes = 256 << 20;
constexpr int64_t kShutdownGraceMs = 500;

// While gRPC tries to listen its errors are told by WhyNot, in words.
std::atomic<bool> g_is_trying_to_listen = false;

// gRPC's own lines go where ours go.
void TakeOverGrpcLog() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function([](gpr_log_func_args* line) {
      const bool is_news = line->severity == GPR_LOG_SEVERITY_ERROR && !g_is_trying_to_listen;
      const LogLevel level = is_news ? LogLevel::kWarning : LogLevel::kDebug;
      Log(level, "grpc", {{"text", line->message}});
    });
  });
}

// Why gRPC, which does not say, could not listen there.
absl::Status WhyNot(const Address& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  const std::string place = AddressText(address.host, address.port);
  const int fd = ::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int error = errno;
  if (fd >= 0) {
    sockaddr_in6 six{};
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(static_cast<uint16_t>(address.port));
    ::inet_pton(AF_INET6, address.host.c_str(), &six.sin6_addr);
    sockaddr_in four{};
    four.sin_family = AF_INET;
    four.sin_port = six.sin6_port;
    ::inet_pton(AF_INET, address.host.c_str(), &four.sin_addr);
    const int yes = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    const bool bound = v6 ? ::bind(fd, reinterpret_cast<sockaddr*>(&six), sizeof(six)) == 0
                          : ::bind(fd, reinterpret_cast<sockaddr*>(&four), sizeof(four)) == 0;
    error = bound ? 0 : errno;
    if (bound && ::listen(fd, 1) != 0) error = errno;
    ::close(fd);
  }
  if (error == EADDRINUSE) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", place, ": port ", address.port, " is in use; stop "
                                               "what uses it, or choose another with --listen"));
  }
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", place, error == 0 ? "" : absl::StrCat(": ", std::strerror(error))));
}

HttpAnswer Plain(int status, std::string text) { return {status, "text/plain; charset=utf-8", std::move(text)}; }

}  // namespace

// In the order of their making; taken down in the reverse one.
struct Server::State {
  std::unique_ptr<FolderLock> lock;
  std::unique_ptr<Journal> journal;
  RendezvousStore rendezvous;
  Metrics metrics;
  std::unique_ptr<Coordinator> coordinator;
  std::unique_ptr<grpc::Service> worker_service, job_service;
  std::unique_ptr<grpc::Server> grpc;
  std::unique_ptr<HttpServer> http;
  std::string grpc_address, http_address;
  std::vector<std::string> warnings;

  absl::Status OpenJournal(const ServerOptions& options, core::CoreOptions& core);
  absl::Status ServeGrpc(const Address& address);
  absl::Status ServeHttp(const Address& address);
};

absl::Status Server::State::OpenJournal(const ServerOptions& options, core::CoreOptions& core) {
  absl::StatusOr<std::unique_ptr<FolderLock>> acquired = FolderLock::Acquire(options.state_directory);
  if (absl::IsFailedPrecondition(acquired.status())) {
    return absl::FailedPreconditionError(absl::StrCat("state folder ", acquired.status().message(),
                                                      "; stop that accrued, or give this one another folder with --state"));
  }
  ACCRUE_RETURN_IF_ERROR(acquired.status());
  lock = *std::move(acquired);
  SqliteJournalOptions journal_options;
  journal_options.directory = options.state_directory;
  journal_options.max_page_count = options.journal_max_page_count;
  journal_options.clock = options.clock;
  ACCRUE_ASSIGN_OR_RETURN(OpenedJournal opened, OpenSqliteJournal(journal_options));
  for (const absl::Status& warning : opened.warnings) {
    LogError("journal", {{"error", warning}});
    warnings.emplace_back(warning.message());
  }
  journal = std::move(opened.journal);
  ACCRUE_ASSIGN_OR_RETURN(core.term, journal->RaiseTerm());
  PassFaultPoint(FaultPoint::kCoordinatorTermRaised);
  ACCRUE_ASSIGN_OR_RETURN(const Incarnation highest, journal->HighestIncarnation());
  core.first_incarnation = highest.value() + 1;
  return absl::OkStatus();
}

absl::Status Server::State::ServeGrpc(const Address& address) {
  TakeOverGrpcLog();
  // Some builds of Abseil look for cycles at each lock, which costs gRPC a tenth of its time.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(AddressText(address.host, address.port), grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(worker_service.get());
  builder.RegisterService(job_service.get());
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  // Else two servers bind one port in silence.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A silent connection is found by pings; clients may ping as often without a GOAWAY.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Messages are small: nothing is gained by pings that measure how much a connection could carry.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500);
  g_is_trying_to_listen = true;
  grpc = builder.BuildAndStart();
  g_is_trying_to_listen = false;
  if (grpc == nullptr || port == 0) return WhyNot(address);
  grpc_address = AddressText(address.host, port);
  grpc->GetHealthCheckService()->SetServingStatus(true);
  return absl::OkStatus();
}

absl::Status Server::State::ServeHttp(const Address& address) {
  const Coordinator& shown = *coordinator;
  std::map<std::string, HttpServer::Handler> handlers;
  handlers["/metrics"] = [this] {
    return HttpAnswer{200, "text/plain; version=0.0.4; charset=utf-8", metrics.Text()};
  };
  handlers["/healthz"] = [] { return Plain(200, "ok\n"); };
  handlers["/readyz"] = [&shown] {
    return shown.board().Get()->shutting_down ? Plain(503, "shutting down\n") : Plain(200, "ready\n");
  };
  handlers["/"] = [this, &shown] {
    return HttpAnswer{200, "text/html; charset=utf-8", StatusPage(*shown.board().Get(), *journal)};
  };
  ACCRUE_ASSIGN_OR_RETURN(http, HttpServer::Start(address.host, address.port, std::move(handlers)));
  http_address = AddressText(address.host, http->port());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& given) {
  ServerOptions options = given;
  // Workers, which run elsewhere, are told of folders in it.
  std::error_code error;
  options.state_directory = std::filesystem::absolute(given.state_directory, error).lexically_normal().string();
  if (error) return absl::InvalidArgumentError(absl::StrCat("state folder ", given.state_directory, ": ", error.message()));
  // Everything that needs no state first, so that a mistyped flag leaves no trace.
  ACCRUE_ASSIGN_OR_RETURN(const Address listen, ParseLoopbackAddress(options.listen));
  Address http_address;
  if (options.http != "none") {
    ACCRUE_ASSIGN_OR_RETURN(http_address, ParseLoopbackAddress(options.http));
  }
  for (const std::string& root : options.data_roots) {
    if (options.file_system->IsDirectory(root)) continue;
    return absl::NotFoundError(absl::StrCat("--data-root ", root, ": no such folder; submitted jobs would find nothing there"));
  }
  std::unique_ptr<Server> server(new Server(std::make_unique<State>()));
  State& state = *server->state_;
  CoordinatorOptions coordinator_options;
  coordinator_options.state_directory = options.state_directory;
  coordinator_options.clock = options.clock;
  coordinator_options.file_system = options.file_system;
  coordinator_options.stall_ms = static_cast<int64_t>(options.stall_timeout_seconds * 1000);
  coordinator_options.core.dead_after_ns = static_cast<int64_t>(options.worker_timeout_seconds * 1e9);
  const double reconnect_seconds =
      options.reconnect_timeout_seconds > 0 ? options.reconnect_timeout_seconds : options.worker_timeout_seconds;
  coordinator_options.core.reconnect_ns = static_cast<int64_t>(reconnect_seconds * 1e9);
  coordinator_options.core.copy_beside = options.background_joins;
  ACCRUE_RETURN_IF_ERROR(state.OpenJournal(options, coordinator_options.core));
  state.coordinator =
      std::make_unique<Coordinator>(coordinator_options, *state.journal, state.rendezvous, state.metrics);
  state.worker_service = MakeWorkerService(*state.coordinator, state.rendezvous, *options.clock);
  state.job_service =
      MakeJobService(*state.coordinator, *state.journal, *options.file_system, options.data_roots);
  ACCRUE_RETURN_IF_ERROR(state.coordinator->Start());
  PassFaultPoint(FaultPoint::kCoordinatorTakenUp);
  ACCRUE_RETURN_IF_ERROR(state.ServeGrpc(listen));
  if (options.http != "none") ACCRUE_RETURN_IF_ERROR(state.ServeHttp(http_address));
  LogInfo("serving", {{"grpc", state.grpc_address}, {"http", state.http_address}, {"state", options.state_directory},
                      {"term", coordinator_options.core.term}});
  return server;
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Server::~Server() {
  if (state_->coordinator != nullptr) state_->coordinator->Stop("the coordinator is shutting down");
  if (state_->grpc != nullptr) {
    state_->grpc->GetHealthCheckService()->SetServingStatus(false);
    // Streams have been ended; those whose other side does not listen are cut.
    state_->grpc->Shutdown(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(kShutdownGraceMs, GPR_TIMESPAN)));
    state_->grpc->Wait();
  }
}

const std::string& Server::grpc_address() const { return state_->grpc_address; }
const std::string& Server::http_address() const { return state_->http_address; }
const std::vector<std::string>& Server::warnings() const { return state_->warnings; }

}  // namespace accrue
