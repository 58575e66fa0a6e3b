// Whether peers can be reached over the network, apart from any communicator: what a collective operation waits for may
// be a peer that is dead, or one that waits itself for somebody else; a connection of its own tells these apart.
//
// A Doorbell listens on a port of its own and never answers: the kernel completes connections to it as long as the
// process lives and the network between is whole, also while the process is stopped or busy.
//
// Thread-safe. Doorbells speak plain TCP: bind them where the communicators are.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace accrue {

class Doorbell {
 public:
  // host: a name or an address of this machine; else INVALID_ARGUMENT.
  static absl::StatusOr<std::unique_ptr<Doorbell>> Listen(const std::string& host);
  ~Doorbell();
  Doorbell(const Doorbell&) = delete;
  Doorbell& operator=(const Doorbell&) = delete;

  // A socket address of the machine's own form, for Unreachable on machines of the same kind.
  const std::string& address() const { return address_; }
  // Forgets who has rung: to be called now and then, since the kernel keeps only so many.
  void Drain();

 private:
  Doorbell(int descriptor, std::string address) : descriptor_(descriptor), address_(std::move(address)) {}

  const int descriptor_;
  const std::string address_;
};

// Indices of the addresses that refuse a connection, or do not complete one within timeout_ms; ascending. All are tried
// at once, so this takes as long as the slowest. What is no address counts as unreachable.
std::vector<int> Unreachable(const std::vector<std::string>& addresses, int64_t timeout_ms);

}  // namespace accrue
