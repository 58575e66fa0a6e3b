#include "worker/collective/reachability.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/clock.h"

namespace accrue {
namespace {

// Closes a descriptor with the scope.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(Descriptor&& other) noexcept : number_(other.Release()) {}
  Descriptor& operator=(Descriptor&&) = delete;
  int number() const { return number_; }
  int Release() {
    const int number = number_;
    number_ = -1;
    return number;
  }

 private:
  int number_;
};

// The port is any.
Descriptor ListenOn(const addrinfo& info) {
  Descriptor descriptor(socket(info.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, info.ai_protocol));
  if (descriptor.number() < 0 || bind(descriptor.number(), info.ai_addr, info.ai_addrlen) != 0 ||
      listen(descriptor.number(), SOMAXCONN) != 0) {
    return Descriptor(-1);
  }
  return descriptor;
}

// -1 if the connection is refused at once.
Descriptor BeginConnect(const std::string& address) {
  sockaddr_storage to{};
  if (address.size() < sizeof(sa_family_t) || address.size() > sizeof(to)) return Descriptor(-1);
  std::memcpy(&to, address.data(), address.size());
  Descriptor descriptor(socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (descriptor.number() < 0) return Descriptor(-1);
  const int result =
      connect(descriptor.number(), reinterpret_cast<const sockaddr*>(&to), static_cast<socklen_t>(address.size()));
  return result == 0 || errno == EINPROGRESS ? std::move(descriptor) : Descriptor(-1);
}

bool Connected(int descriptor) {
  int error = 0;
  socklen_t size = sizeof(error);
  return getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Doorbell>> Doorbell::Listen(const std::string& host) {
  const absl::Status wrong = absl::InvalidArgumentError(absl::StrCat(
      "cannot bind communicators to \"", host, "\": expected a name or an address of this machine"));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return wrong;
  Descriptor descriptor(-1);
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    Descriptor candidate = ListenOn(*entry);
    if (candidate.number() < 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof(own);
    if (getsockname(candidate.number(), reinterpret_cast<sockaddr*>(&own), &size) != 0) continue;
    freeaddrinfo(found);
    return std::unique_ptr<Doorbell>(
        new Doorbell(candidate.Release(), std::string(reinterpret_cast<const char*>(&own), size)));
  }
  freeaddrinfo(found);
  return wrong;
}

Doorbell::~Doorbell() { close(descriptor_); }

void Doorbell::Drain() {
  while (true) {
    const Descriptor rung(accept4(descriptor_, nullptr, nullptr, SOCK_CLOEXEC));
    if (rung.number() < 0 && errno != EINTR && errno != ECONNABORTED) return;
  }
}

std::vector<int> Unreachable(const std::vector<std::string>& addresses, int64_t timeout_ms) {
  std::vector<Descriptor> connections;
  std::vector<pollfd> waiting;
  for (const std::string& address : addresses) {
    connections.push_back(BeginConnect(address));
    waiting.push_back({.fd = connections.back().number(), .events = POLLOUT, .revents = 0});
  }
  const Clock& clock = Clock::Real();
  const int64_t end_ns = clock.SteadyNowNs() + timeout_ms * 1'000'000;
  const auto undecided = [&] {
    return std::any_of(waiting.begin(), waiting.end(), [](const pollfd& entry) { return entry.fd >= 0; });
  };
  while (undecided()) {
    const int64_t rest_ms = std::max<int64_t>((end_ns - clock.SteadyNowNs() + 999'999) / 1'000'000, 0);
    if (poll(waiting.data(), waiting.size(), static_cast<int>(rest_ms)) < 0 && errno != EINTR) break;
    for (pollfd& entry : waiting) {
      if (entry.revents != 0) entry.fd = -1;  // decided; poll passes over it
    }
    if (rest_ms == 0) break;
  }
  std::vector<int> unreachable;
  for (size_t i = 0; i < addresses.size(); ++i) {
    const bool decided = waiting[i].fd < 0;
    const int connection = connections[i].number();
    if (connection < 0 || !decided || !Connected(connection)) unreachable.push_back(static_cast<int>(i));
  }
  return unreachable;
}

}  // namespace accrue
