#include "coordinator/server/http_server.h"

#include <httplib.h>

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace accrue {
namespace {

constexpr size_t kThreads = 2;

}  // namespace

struct HttpServer::State {
  httplib::Server server;
  int port = 0;
  std::thread thread;
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& host, int port,
                                                              std::map<std::string, Handler> handlers) {
  auto state = std::make_unique<State>();
  httplib::Server& server = state->server;
  // The library's default lets two processes bind one port in silence.
  server.set_socket_options([](auto socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  server.set_keep_alive_max_count(100);
  server.set_read_timeout(5, 0);
  server.set_write_timeout(5, 0);
  server.set_payload_max_length(1 << 16);
  for (auto& [path, handler] : handlers) {
    server.Get(path, [handler = std::move(handler)](const httplib::Request&, httplib::Response& response) {
      HttpAnswer answer = handler();
      response.status = answer.status;
      response.set_content(std::move(answer.body), answer.content_type.c_str());
    });
  }
  state->port = port == 0 ? server.bind_to_any_port(host.c_str()) : (server.bind_to_port(host.c_str(), port) ? port : -1);
  if (state->port < 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen for HTTP on ", host, ":", port,
                                               ": the port is in use, or the address is not this machine's; choose another "
                                               "with --http, or --http none"));
  }
  state->thread = std::thread([&server] { server.listen_after_bind(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

HttpServer::~HttpServer() {
  // stop() does nothing before the loop runs, and would leave it running.
  while (!state_->server.is_running() && state_->thread.joinable()) std::this_thread::yield();
  state_->server.stop();
  state_->thread.join();
}

int HttpServer::port() const { return state_->port; }

}  // namespace accrue
