#include "worker/collective/gloo_mesh.h"

#include <gloo/transport/address.h>
#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/address.h>
#include <gloo/transport/unbound_buffer.h>
#include <netinet/in.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "common/status.h"
#include "worker/collective/reachability.h"

namespace accrue {
namespace {

// No collective uses this slot: Gloo puts a small prefix into the topmost byte.
constexpr uint64_t kAbortSlot = uint64_t{0xFF} << 56;
// Of waiting for the store, after which a call to stop is looked for.
constexpr int64_t kStoreSliceMs = 250;
// For the connections to all members once all are there. Who dies just then is waited for as long.
constexpr int64_t kConnectBaseMs = 2'000, kConnectPerMemberMs = 50;
// A pair waits for its connection as many times longer than it was told to.
constexpr int64_t kConnectTimeoutFactor = 5;

std::string KeyOf(int rank) { return absl::StrCat("member_", rank); }

// A member's value: for each other rank, ascending, the address of its pair; then its doorbell.
absl::StatusOr<std::vector<char>> PairAddress(const std::string& value, size_t address_bytes, int own, int peer) {
  const size_t place = static_cast<size_t>(own < peer ? own : own - 1) * address_bytes;
  if (value.size() < place + address_bytes) {
    return absl::UnavailableError(absl::StrCat("rank ", peer, " published ", value.size(), " bytes of addresses"));
  }
  return std::vector<char>(value.begin() + place, value.begin() + place + address_bytes);
}

// Of a pair's two ends, the one with the larger address opens the connection: Gloo's rule.
bool Opens(const std::vector<char>& own, const std::vector<char>& peer) {
  const sockaddr_storage a = gloo::transport::tcp::Address(own).getSockaddr();  // copies: what is referred to goes at once
  const sockaddr_storage b = gloo::transport::tcp::Address(peer).getSockaddr();
  if (a.ss_family != b.ss_family) return false;
  const auto compare = [&](const auto& left, const auto& right, size_t size, auto left_port, auto right_port) {
    const int order = std::memcmp(&left, &right, size);
    return order != 0 ? order > 0 : left_port > right_port;
  };
  if (a.ss_family == AF_INET6) {
    const auto &x = reinterpret_cast<const sockaddr_in6&>(a), &y = reinterpret_cast<const sockaddr_in6&>(b);
    return compare(x.sin6_addr, y.sin6_addr, sizeof(x.sin6_addr), x.sin6_port, y.sin6_port);
  }
  const auto &x = reinterpret_cast<const sockaddr_in&>(a), &y = reinterpret_cast<const sockaddr_in&>(b);
  return compare(x.sin_addr, y.sin_addr, sizeof(x.sin_addr), x.sin_port, y.sin_port);
}

}  // namespace

bool IsTimeOut(const std::exception& error) {
  return absl::StrContains(error.what(), "imed out") || absl::StrContains(error.what(), "Connect timeout");
}

GlooMesh::GlooMesh(int rank, int size, std::shared_ptr<gloo::transport::Device> device) : gloo::Context(rank, size) {
  device_ = std::move(device);
}

absl::Status GlooMesh::Meet(const std::string& name, const std::string& doorbell, int64_t deadline_ms,
                            RendezvousStore& store) {
  ACCRUE_RETURN_IF_ERROR(CreatePairs(deadline_ms));
  ACCRUE_RETURN_IF_ERROR(store.Set(name, KeyOf(rank), OwnAddresses(doorbell)));
  ACCRUE_ASSIGN_OR_RETURN(const std::vector<std::string> addresses, AddressesOfAll(name, deadline_ms, store));
  const size_t pairs_bytes = static_cast<size_t>(size - 1) * getPair(rank == 0 ? 1 : 0)->address().bytes().size();
  for (const std::string& value : addresses) doorbells_.push_back(value.substr(std::min(pairs_bytes, value.size())));
  ACCRUE_RETURN_IF_ERROR(Connect(addresses));
  absl::MutexLock lock(&mutex_);
  if (stopped_) return absl::AbortedError("stopped");
  connected_ = true;
  return absl::OkStatus();
}

absl::Status GlooMesh::CreatePairs(int64_t deadline_ms) {
  if (stopped()) return absl::AbortedError("stopped");
  try {
    const int64_t connect_ms = std::min(deadline_ms, kConnectBaseMs + kConnectPerMemberMs * size);
    std::shared_ptr<gloo::transport::Context> transport = device_->createContext(rank, size);
    transport->setTimeout(std::chrono::milliseconds(std::max<int64_t>(connect_ms / kConnectTimeoutFactor, 1)));
    for (int peer = 0; peer < size; ++peer) {
      if (peer != rank) transport->createPair(peer)->setLocalRank(0);
    }
    transport->setTimeout(std::chrono::milliseconds(deadline_ms));
    transport_ = std::make_shared<AbortableTransport>(std::move(transport));
    transportContext_ = transport_;
    setTimeout(std::chrono::milliseconds(deadline_ms));
  } catch (const std::exception& error) {
    return absl::UnavailableError(error.what());
  }
  return absl::OkStatus();
}

std::string GlooMesh::OwnAddresses(const std::string& doorbell) const {
  std::string value;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    const std::vector<char> bytes = transportContext_->getPair(peer)->address().bytes();
    value.append(bytes.begin(), bytes.end());
  }
  return value + doorbell;
}

absl::StatusOr<std::vector<std::string>> GlooMesh::AddressesOfAll(const std::string& name, int64_t deadline_ms,
                                                                  RendezvousStore& store) {
  std::vector<std::string> keys;
  for (int member = 0; member < size; ++member) keys.push_back(KeyOf(member));
  const Clock& clock = Clock::Real();
  const int64_t end_ns = clock.SteadyNowNs() + deadline_ms * 1'000'000;
  while (true) {
    if (stopped()) return absl::AbortedError("stopped while it waited for the other members");
    const int64_t rest_ms = (end_ns - clock.SteadyNowNs()) / 1'000'000;
    absl::StatusOr<std::vector<std::string>> values =
        store.Get(name, keys, std::clamp<int64_t>(rest_ms, 0, kStoreSliceMs));
    if (values.ok() && values->size() != keys.size()) {
      return absl::InternalError(absl::StrCat("the rendezvous store answered with ", values->size(),
                                              " values; expected ", keys.size()));
    }
    if (values.ok() || !absl::IsDeadlineExceeded(values.status())) return values;
    if (rest_ms <= 0) return WhoIsMissing(name, deadline_ms, store);
  }
}

absl::Status GlooMesh::WhoIsMissing(const std::string& name, int64_t deadline_ms, RendezvousStore& store) {
  std::vector<int> missing;
  for (int member = 0; member < size; ++member) {
    if (!store.Get(name, {KeyOf(member)}, 0).ok()) missing.push_back(member);
  }
  absl::Status status = absl::DeadlineExceededError(absl::StrCat(
      "rank ", absl::StrJoin(missing, ", "), " of ", size, " did not come within ", deadline_ms, " ms"));
  SetUnreachableRanks(missing, status);
  return status;
}

absl::Status GlooMesh::Connect(const std::vector<std::string>& addresses) {
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    const size_t address_bytes = transportContext_->getPair(peer)->address().bytes().size();
    ACCRUE_ASSIGN_OR_RETURN(const std::vector<char> address, PairAddress(addresses[peer], address_bytes, rank, peer));
    ACCRUE_RETURN_IF_ERROR(ConnectTo(peer, address));
  }
  return absl::OkStatus();
}

absl::Status GlooMesh::ConnectTo(int peer, const std::vector<char>& address) {
  auto& pair = transportContext_->getPair(peer);
  const bool opens = Opens(pair->address().bytes(), address);
  {
    absl::MutexLock lock(&mutex_);
    if (stopped_) return absl::AbortedError("stopped while it connected to the other members");
    if (!opens) awaited_ = peer;
  }
  absl::Status status;
  try {
    pair->connect(address);
  } catch (const std::exception& error) {
    const std::string message = absl::StrCat("rank ", peer, ": ", error.what());
    status = IsTimeOut(error) ? absl::DeadlineExceededError(message) : absl::UnavailableError(message);
  }
  absl::MutexLock lock(&mutex_);
  awaited_ = -1;
  return stopped_ ? absl::AbortedError("stopped while it connected to the other members") : status;
}

// A meeting that waits for a peer's connection is ended by closing what it listens on. No other pair is closed: Gloo
// resets the connection then, and a peer that is about to take it up would die of that (an exception on its event loop).
void GlooMesh::Stop() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
  if (connected_) {
    FailPairs();
    transport_->Abort();  // what waited for a message under way on a pair that had failed before
    return;
  }
  if (awaited_ >= 0) transportContext_->getPair(awaited_)->close();
}

// Closing connected pairs would leave this side's call blocked; a receive that times out on any pair fails all of them.
void GlooMesh::FailPairs() {
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    try {
      char nothing = 0;
      auto buffer = createUnboundBuffer(&nothing, 1);
      buffer->recv(peer, kAbortSlot);
      buffer->waitRecv(nullptr, std::chrono::milliseconds(1));
    } catch (const std::exception&) {
      // Wanted; or this pair had failed before, then the next one is tried.
    }
  }
}

std::vector<int> GlooMesh::UnreachablePeers(int64_t timeout_ms) const {
  if (doorbells_.empty()) return {};
  std::vector<std::string> others;
  for (int peer = 0; peer < size; ++peer) {
    if (peer != rank) others.push_back(doorbells_[peer]);
  }
  std::vector<int> unreachable = Unreachable(others, timeout_ms);
  for (int& peer : unreachable) peer += peer >= rank ? 1 : 0;
  return unreachable;
}

bool GlooMesh::stopped() const {
  absl::MutexLock lock(&mutex_);
  return stopped_;
}

}  // namespace accrue
