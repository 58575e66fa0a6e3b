// Where a message stands in a job's history; what is older than the receiver is refused.
//
// Pure functions of messages.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "accrue/v1/worker.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace accrue {

// The key that a message carries; null for Hello, Heartbeat and Leaving, which have none.
inline const v1::Key* KeyOf(const v1::WorkerMessage& message) {
  const google::protobuf::Reflection& outer = *message.GetReflection();
  const auto* const kind = outer.GetOneofFieldDescriptor(message, message.GetDescriptor()->oneof_decl(0));
  if (kind == nullptr) return nullptr;
  const google::protobuf::Message& inner = outer.GetMessage(message, kind);
  const auto* const key = inner.GetDescriptor()->FindFieldByName("key");
  return key == nullptr ? nullptr : &static_cast<const v1::Key&>(inner.GetReflection()->GetMessage(inner, key));
}

inline std::string KeyToString(const v1::Key& key) {
  return absl::StrCat("term ", key.term(), ", job ", key.job_id(), ", timeline ", key.timeline(), ", epoch ",
                      key.epoch(), ", incarnation ", key.incarnation(), ", window ", key.window(), ", attempt ",
                      key.attempt());
}

// FAILED_PRECONDITION unless `key` is for this life and this job, and of no older term, timeline or window than `own`
// (whose window is the next to be computed).
inline absl::Status CheckCurrent(const v1::Key& own, const v1::Key& key) {
  const char* problem = nullptr;
  if (key.job_id() != own.job_id()) problem = "another job";
  else if (key.incarnation() != own.incarnation()) problem = "another incarnation";
  else if (key.term() < own.term()) problem = "an older term";
  else if (key.timeline() != own.timeline()) problem = "another timeline";
  else if (key.window() < own.window()) problem = "an older window";
  if (problem == nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("of ", problem, ": ", KeyToString(key), "; here is ", KeyToString(own)));
}

}  // namespace accrue
