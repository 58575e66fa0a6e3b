// Turns the accumulator's own sums into the sums over all members of a seal; and copies a state from one member to
// others. The communicator of an epoch is formed at its first reduce, unless it was formed ahead, and kept.
//
// A bucket becomes final, in order, when its sum has come whole into the staging buffer and has the seal's checksum: an
// error or an abort leaves every other bucket as it was, so that the reduce can be tried again with other members.
//
// Not thread-safe: of the compute thread. What it refers to must outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "accrue/v1/worker.pb.h"
#include "worker/collective/collective.h"
#include "worker/core/collective_guard.h"
#include "worker/core/job.h"
#include "worker/core/preparer.h"

namespace accrue {

class Reducer {
 public:
  // deadline_ms bounds a meeting of members, and each wait for progress. preparer: where a communicator may
  // be formed already; null: nowhere.
  Reducer(CollectiveFactory& collectives, CollectiveGuard& guard, int64_t deadline_ms,
          Preparer* preparer = nullptr)
      : collectives_(collectives), guard_(guard), deadline_ms_(deadline_ms), preparer_(preparer) {}

  // All buckets of the job's accumulator become final, or an error says why not: ABORTED, UNAVAILABLE, DEADLINE_EXCEEDED
  // and CANCELLED of the members and the coordinator, with the ranks that could not be reached; DATA_LOSS for sums that
  // do not have the seal's checksums; INVALID_ARGUMENT for a seal that cannot be followed. Buckets that are final
  // already are sent to who lacks them. bucket_checksums: of the accumulator's buckets as they are (exact mode); those
  // of the sums take their places as buckets become final.
  absl::Status Reduce(const v1::Seal& seal, std::vector<uint64_t>& bucket_checksums, Job& job);

  // Sends or receives the state. Codes as above; INVALID_ARGUMENT too for a state of another layout. After an error the
  // receiver's state is void.
  absl::Status SyncState(const v1::StateSync& sync, Job& job);

 private:
  absl::StatusOr<int> RankOf(int64_t incarnation, const std::vector<int64_t>& members) const;
  absl::Status ReduceBuckets(const v1::Seal& seal, std::vector<uint64_t>& bucket_checksums, Job& job);
  absl::Status FetchSums(int bucket, int source, int64_t window, Job& job);
  absl::Status EnsureStaging(const Job& job);
  absl::Status CopyState(Communicator& communicator, int root, Job& job);

  CollectiveFactory& collectives_;
  CollectiveGuard& guard_;
  const int64_t deadline_ms_;
  Preparer* const preparer_;

  std::unique_ptr<Communicator> communicator_;  // of `name_`; null before the first and after a failure
  std::string name_;
  std::unique_ptr<DeviceBuffer> staging_;  // one bucket
};

}  // namespace accrue
