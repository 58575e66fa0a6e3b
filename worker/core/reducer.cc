#include "worker/core/reducer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fault_points.h"
#include "common/status.h"
#include "worker/core/flip_bit.h"
#include "worker/core/state_copy.h"

namespace accrue {
namespace {

// Of a broadcast, so that an abort is never far away.
constexpr size_t kSyncChunkBytes = size_t{16} << 20;

// What goes ahead of a state. All fields are int64 in the machine's order: members share a numeric class.
struct StateHeader {
  int64_t format = 2;
  int64_t window = 0;
  int64_t steps = 0;
  int64_t exponents = 0;  // how many follow
  int64_t arrays = 0;
  int64_t elements = 0;  // of all arrays
  PackedLossScale loss_scale;
};

// send: Broadcast or BroadcastHost.
absl::Status BroadcastInChunks(Communicator& communicator,
                               absl::Status (Communicator::*send)(void* data, size_t size_bytes, int root), void* data,
                               size_t size_bytes, int root, int64_t window) {
  for (size_t offset = 0; offset < size_bytes; offset += kSyncChunkBytes) {
    ACCRUE_RETURN_IF_ERROR((communicator.*send)(static_cast<char*>(data) + offset,
                                                std::min(kSyncChunkBytes, size_bytes - offset), root));
    ACCRUE_RETURN_IF_ERROR(FaultStatus(
        communicator.rank() == root ? FaultPoint::kWorkerSyncSent : FaultPoint::kWorkerSyncReceived, window));
  }
  return absl::OkStatus();
}

absl::Status MeetOthers(Communicator& communicator, int64_t window) {
  ACCRUE_RETURN_IF_ERROR(FaultStatus(FaultPoint::kWorkerForming, window));
  ACCRUE_RETURN_IF_ERROR(communicator.Meet());
  PassFaultPoint(FaultPoint::kWorkerFormed, window);
  return absl::OkStatus();
}

// The all-reduce of exact sums, with what --fault does to it: a bit that is wrong on the wire alone, or in what arrived.
absl::Status ReduceExact(Communicator& communicator, int64_t* own, int64_t* sums, int64_t elements, int64_t window,
                         Backend& backend) {
  const bool flips = FaultFires(FaultPoint::kFlipWire, window);
  if (flips) FlipBit(backend, own);
  const absl::Status status = communicator.AllReduce(own, sums, elements);
  if (flips) FlipBit(backend, own);
  if (status.ok() && FaultFires(FaultPoint::kFlipReducedBucket, window)) FlipBit(backend, sums);
  return status;
}

// Between Enter and Leave of a guard.
class Guarded {
 public:
  Guarded(CollectiveGuard& guard, CollectiveGuard::Kind kind, const v1::Key& key, const std::string& name,
          Communicator& communicator)
      : guard_(guard), status_(guard.Enter(kind, key, name, communicator)) {}
  ~Guarded() {
    if (status_.ok()) guard_.Leave();
  }
  const absl::Status& status() const { return status_; }

 private:
  CollectiveGuard& guard_;
  absl::Status status_;
};

constexpr int kNobody = -1;

// The rank that sends a bucket: the first that holds it final.
int SourceOf(const v1::Seal& seal, int bucket) {
  for (int rank = 0; rank < seal.final_buckets_size(); ++rank) {
    if (seal.final_buckets(rank) > bucket) return rank;
  }
  return kNobody;
}

// That the seal fits this member's accumulator.
absl::Status CheckSeal(const v1::Seal& seal, int rank, const Job& job) {
  const int64_t buckets = static_cast<int64_t>(job.engine->layout().buckets().size());
  if (job.accumulator->mode() == AccumulationMode::kExact && seal.bucket_checksums_size() != buckets) {
    return absl::InvalidArgumentError(absl::StrCat("the seal has ", seal.bucket_checksums_size(),
                                                   " bucket checksums; the layout has ", buckets, " buckets"));
  }
  if (seal.final_buckets_size() != 0 && seal.final_buckets_size() != seal.members_size()) {
    return absl::InvalidArgumentError(absl::StrCat("the seal says for ", seal.final_buckets_size(),
                                                   " members how many buckets they hold final; it has ",
                                                   seal.members_size(), " members"));
  }
  const int64_t said = seal.final_buckets_size() == 0 ? 0 : seal.final_buckets(rank);
  if (said != job.accumulator->final_buckets()) {
    return absl::InvalidArgumentError(absl::StrCat("the seal says that this member holds ", said,
                                                   " buckets final; it holds ", job.accumulator->final_buckets()));
  }
  return absl::OkStatus();
}

absl::Status CheckSum(const v1::Seal& seal, int bucket, uint64_t found) {
  if (found == seal.bucket_checksums(bucket)) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("bucket ", bucket, " of window ", seal.key().window(),
                                          " was reduced to checksum ", absl::Hex(found, absl::kZeroPad16),
                                          "; its units add up to ",
                                          absl::Hex(seal.bucket_checksums(bucket), absl::kZeroPad16)));
}

size_t BucketBytes(int bucket, const Job& job) {
  const size_t element_bytes = job.accumulator->mode() == AccumulationMode::kExact ? sizeof(int64_t) : sizeof(float);
  return static_cast<size_t>(job.engine->layout().buckets()[bucket].elements) * element_bytes;
}

void* BucketSums(int bucket, Job& job) {
  if (job.accumulator->mode() == AccumulationMode::kExact) return job.accumulator->ExactBucket(bucket);
  return job.accumulator->FastBucket(bucket);
}

}  // namespace

absl::StatusOr<int> Reducer::RankOf(int64_t incarnation, const std::vector<int64_t>& members) const {
  const auto found = std::find(members.begin(), members.end(), incarnation);
  if (found == members.end()) {
    return absl::InvalidArgumentError(absl::StrCat("incarnation ", incarnation, " is not among the ", members.size(),
                                                   " members of the communicator"));
  }
  return static_cast<int>(found - members.begin());
}

absl::Status Reducer::Reduce(const v1::Seal& seal, std::vector<uint64_t>& bucket_checksums, Job& job) {
  const std::vector<int64_t> members(seal.members().begin(), seal.members().end());
  ACCRUE_ASSIGN_OR_RETURN(const int rank, RankOf(seal.key().incarnation(), members));
  ACCRUE_RETURN_IF_ERROR(CheckSeal(seal, rank, job));
  const int size = static_cast<int>(members.size());
  bool is_new = false;
  if (communicator_ == nullptr || name_ != seal.communicator()) {
    name_ = seal.communicator();
    communicator_ = preparer_ == nullptr ? nullptr : preparer_->Take(name_, rank, size);
    is_new = communicator_ == nullptr;
    if (is_new) {
      ACCRUE_ASSIGN_OR_RETURN(communicator_, collectives_.Create(name_, rank, size, deadline_ms_));
    }
  }
  absl::Status status;
  {
    const Guarded guarded(guard_, CollectiveGuard::Kind::kReduce, seal.key(), name_, *communicator_);
    status = guarded.status();
    if (status.ok() && is_new) status = MeetOthers(*communicator_, seal.key().window());
    if (status.ok()) status = ReduceBuckets(seal, bucket_checksums, job);
  }
  if (!status.ok()) communicator_.reset();
  return status;
}

absl::Status Reducer::ReduceBuckets(const v1::Seal& seal, std::vector<uint64_t>& bucket_checksums, Job& job) {
  const bool exact = job.accumulator->mode() == AccumulationMode::kExact;
  const int buckets = static_cast<int>(job.engine->layout().buckets().size());
  const bool alone = communicator_->size() == 1;
  if (!alone) ACCRUE_RETURN_IF_ERROR(EnsureStaging(job));
  for (int bucket = 0; bucket < buckets; ++bucket) {
    const bool held = job.accumulator->final(bucket);
    if (exact && (held || alone)) ACCRUE_RETURN_IF_ERROR(CheckSum(seal, bucket, bucket_checksums[bucket]));
    ACCRUE_RETURN_IF_ERROR(FaultStatus(FaultPoint::kWorkerBucketReducing, seal.key().window()));
    if (!alone) ACCRUE_RETURN_IF_ERROR(FetchSums(bucket, SourceOf(seal, bucket), seal.key().window(), job));
    PassFaultPoint(FaultPoint::kWorkerBucketReduced, seal.key().window());
    if (held) continue;
    if (!alone) {
      if (exact) {
        const uint64_t found = job.accumulator->StagingChecksum(bucket, staging_->as<int64_t>());
        ACCRUE_RETURN_IF_ERROR(CheckSum(seal, bucket, found));
        bucket_checksums[bucket] = found;
      }
      job.backend->Copy(BucketSums(bucket, job), staging_->data(), BucketBytes(bucket, job));
    }
    job.accumulator->MarkFinal(bucket);
    PassFaultPoint(FaultPoint::kWorkerBucketFinal, seal.key().window());
  }
  return absl::OkStatus();
}

// The sums over all members, into staging; from the accumulator where this member is the source.
absl::Status Reducer::FetchSums(int bucket, int source, int64_t window, Job& job) {
  void* const own = BucketSums(bucket, job);
  job.backend->Synchronize();
  if (source != kNobody) {
    void* const data = source == communicator_->rank() ? own : staging_->data();
    return communicator_->Broadcast(data, BucketBytes(bucket, job), source);
  }
  const int64_t elements = job.engine->layout().buckets()[bucket].elements;
  if (job.accumulator->mode() == AccumulationMode::kExact) {
    return ReduceExact(*communicator_, static_cast<int64_t*>(own), staging_->as<int64_t>(), elements, window,
                       *job.backend);
  }
  return communicator_->AllReduce(static_cast<const float*>(own), staging_->as<float>(), elements);
}

absl::Status Reducer::EnsureStaging(const Job& job) {
  if (staging_ != nullptr) return absl::OkStatus();
  int64_t largest = 0;
  for (const Bucket& info : job.engine->layout().buckets()) largest = std::max(largest, info.elements);
  ACCRUE_ASSIGN_OR_RETURN(staging_, job.backend->Allocate(static_cast<size_t>(largest) * sizeof(int64_t)));
  return absl::OkStatus();
}

absl::Status Reducer::SyncState(const v1::StateSync& sync, Job& job) {
  constexpr auto kKind = CollectiveGuard::Kind::kStateSync;
  const std::vector<int64_t> members(sync.members().begin(), sync.members().end());
  ACCRUE_ASSIGN_OR_RETURN(const int rank, RankOf(sync.key().incarnation(), members));
  ACCRUE_ASSIGN_OR_RETURN(const int root, RankOf(sync.source(), members));
  ACCRUE_ASSIGN_OR_RETURN(
      std::unique_ptr<Communicator> communicator,
      collectives_.Create(sync.communicator(), rank, static_cast<int>(members.size()), deadline_ms_));
  const Guarded guarded(guard_, kKind, sync.key(), sync.communicator(), *communicator);
  ACCRUE_RETURN_IF_ERROR(guarded.status());
  ACCRUE_RETURN_IF_ERROR(MeetOthers(*communicator, sync.key().window()));
  return CopyState(*communicator, root, job);
}

absl::Status Reducer::CopyState(Communicator& communicator, int root, Job& job) {
  TrainingState& state = *job.state;
  const bool sends = communicator.rank() == root;
  StateHeader own{.window = state.window(),
                  .steps = state.steps(),
                  .exponents = static_cast<int64_t>(state.exponents().size()),
                  .arrays = static_cast<int64_t>(state.arrays().size()),
                  .loss_scale = Pack(state.loss_scale())};
  for (const StateArray& array : state.arrays()) own.elements += array.elements;
  StateHeader header = own;
  ACCRUE_RETURN_IF_ERROR(communicator.BroadcastHost(&header, sizeof(header), root));
  const int64_t tensors = static_cast<int64_t>(job.engine->layout().tensors().size());
  if (header.format != own.format || header.arrays != own.arrays || header.elements != own.elements ||
      (header.exponents != 0 && header.exponents != tensors)) {
    return absl::InvalidArgumentError(absl::StrCat("the source's state has ", header.arrays, " arrays of ",
                                                   header.elements, " elements and ", header.exponents,
                                                   " exponents; here are ", own.arrays, " arrays of ", own.elements,
                                                   " elements and ", tensors, " tensors"));
  }
  std::vector<int> exponents = state.exponents();
  exponents.resize(static_cast<size_t>(header.exponents));
  ACCRUE_RETURN_IF_ERROR(BroadcastInChunks(communicator, &Communicator::BroadcastHost, exponents.data(),
                                           exponents.size() * sizeof(int), root, header.window));
  job.backend->Synchronize();
  for (int index = 0; index < static_cast<int>(state.arrays().size()); ++index) {
    const size_t size_bytes = static_cast<size_t>(state.arrays()[index].elements) * sizeof(float);
    void* const data = sends ? const_cast<float*>(state.ArrayData(index)) : state.MutableArrayData(index);
    ACCRUE_RETURN_IF_ERROR(
        BroadcastInChunks(communicator, &Communicator::Broadcast, data, size_bytes, root, header.window));
  }
  if (!sends) {
    state.SetProgress(header.window, header.steps, exponents);
    state.SetLossScale(Unpack(header.loss_scale));
    job.engine->ParametersChanged();
  }
  return absl::OkStatus();
}

}  // namespace accrue
