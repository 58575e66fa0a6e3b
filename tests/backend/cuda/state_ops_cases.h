// State operations of a device against the CPU's, bit for bit: one list of cases for kernels on a device and
// for their bodies in the CPU's loops.
#pragma once

#include "worker/backend/backend.h"
#include "worker/backend/state_ops.h"

namespace accrue {

// Where the operations' arrays lie.
class TestMemory {
 public:
  virtual ~TestMemory() = default;
  virtual std::unique_ptr<DeviceBuffer> Allocate(size_t size_bytes) = 0;
  virtual void CopyToDevice(void* device, const void* host, size_t size_bytes) = 0;
  virtual void CopyToHost(void* host, const void* device, size_t size_bytes) = 0;
};

// Each checks every size, with arrays that lie at multiples of 64 bytes and with arrays that lie at the least
// alignment that StateOps allows, and that nothing beside an array is written.
void ExpectQuantizeAddEqual(StateOps& ops, TestMemory& memory);
void ExpectInspectAndFloatAddEqual(StateOps& ops, TestMemory& memory);
void ExpectNonFiniteScansEqual(StateOps& ops, TestMemory& memory);
void ExpectRoundingEdgesEqual(StateOps& ops, TestMemory& memory);
void ExpectWeightedSumsEqual(StateOps& ops, TestMemory& memory);
void ExpectSquareSumsEqual(StateOps& ops, TestMemory& memory);
void ExpectUpdatesEqual(StateOps& ops, TestMemory& memory);
void ExpectHashesEqual(StateOps& ops, TestMemory& memory);

}  // namespace accrue
