// Communicators for a device's memory from one factory, and for the host's from another: NCCL is for the thread that
// computes, and what goes from host to host need not come by a GPU.
//
// Thread-safe as the two are.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "worker/collective/collective.h"

namespace accrue {

class DeviceAndHostCollectives : public CollectiveFactory {
 public:
  DeviceAndHostCollectives(std::unique_ptr<CollectiveFactory> device, std::unique_ptr<CollectiveFactory> host)
      : device_(std::move(device)), host_(std::move(host)) {}

  absl::StatusOr<std::unique_ptr<Communicator>> Create(const std::string& name, int rank, int size,
                                                       int64_t deadline_ms) override {
    return device_->Create(name, rank, size, deadline_ms);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateForHost(const std::string& name, int rank, int size,
                                                              int64_t deadline_ms) override {
    return host_->Create(name, rank, size, deadline_ms);
  }
  absl::StatusOr<std::unique_ptr<Communicator>> CreateAhead(const std::string& name, int rank, int size,
                                                            int64_t deadline_ms) override {
    return device_->CreateAhead(name, rank, size, deadline_ms);
  }

 private:
  const std::unique_ptr<CollectiveFactory> device_, host_;
};

}  // namespace accrue
