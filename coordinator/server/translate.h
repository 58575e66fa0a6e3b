// Between the wire (proto accrue.v1) and the core's plain values. Only translation: what a message means is the
// core's business.
//
// Thread-safe: pure functions. What comes from a worker is checked for form only (counts that could not be, enumerators
// that are not there): INVALID_ARGUMENT says which field.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "accrue/v1/client.pb.h"
#include "accrue/v1/job.pb.h"
#include "accrue/v1/worker.pb.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/events.h"
#include "coordinator/journal/journal.h"

namespace accrue {

core::Key KeyFromProto(const v1::Key& key);
v1::Key KeyToProto(const core::Key& key);

// The join of a new life. Whether its version fits is not looked at.
core::WorkerJoined JoinFromProto(const v1::Hello& hello, Incarnation incarnation);

// Every message but Hello.
absl::StatusOr<core::Event> EventFromProto(const v1::WorkerMessage& message, Incarnation from);

// What a message to a worker needs from outside of the core.
struct JobContext {
  const v1::ResolvedJob* job = nullptr;
  // The tokens of some units of a window, in order; null: leave them out.
  std::function<std::vector<v1::SequenceRange>(Window, const std::vector<core::UnitRange>&)> sequences_of;
};
v1::CoordinatorMessage MessageToProto(const core::WorkerMessage& message, const JobContext& context);

// The job whose key a message to a worker carries.
const core::Key& KeyOf(const core::WorkerMessage& message);

// DIR/checkpoints, where a job's checkpoints are.
std::string CheckpointRoot(const v1::ResolvedJob& job);

v1::JobState JobStateToProto(core::JobState state);
// For people and metrics: "running".
const char* JobStateName(v1::JobState state);
bool IsTerminal(core::JobState state);
v1::WindowRecord WindowToProto(const CommitRecord& commit);
v1::LedgerEntry LedgerToProto(const LedgerRecord& record);

}  // namespace accrue
