// What the exit code of `accrue` says. docs/client.md lists them; scripts rely on them.
#pragma once

#include "absl/status/status.h"

namespace accrue {

enum ExitCode {
  kExitOk = 0,
  kExitError = 1,
  kExitUsage = 2,
  kExitInvalidSpec = 3,
  kExitNotFound = 4,
  kExitRefused = 5,
  kExitUnreachable = 6,
  kExitJobFailed = 10,
  kExitJobCancelled = 11,
};

// Of a call to the coordinator, or of a file that was asked for.
inline ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
      return kExitInvalidSpec;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kAborted:
      return kExitRefused;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kExitUnreachable;
    default:
      return kExitError;
  }
}

}  // namespace accrue
