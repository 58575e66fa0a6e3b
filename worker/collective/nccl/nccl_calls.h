// The calls of NCCL and of its device that a communicator makes, in NCCL's own terms: so that a test can stand for both,
// and no header of theirs is needed here.
//
// One thread makes the calls. Operations are queued on one stream of their own, in call order.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace accrue::nccl {

// ncclResult_t. Any other value is an error.
inline constexpr int kSuccess = 0, kInProgress = 7;

using Handle = void*;  // ncclComm_t
using UniqueId = std::array<char, 128>;

enum class Element { kInt64, kFloat32, kByte };

class Calls {
 public:
  virtual ~Calls() = default;

  // ---- NCCL; each gives its result ----
  virtual int GetUniqueId(UniqueId& id) = 0;
  // Non-blocking: kInProgress, and AsyncError says how it goes on.
  virtual int InitRank(Handle& handle, int size, const UniqueId& id, int rank) = 0;
  virtual int AsyncError(Handle handle, int& state) = 0;
  virtual int Finalize(Handle handle) = 0;
  virtual int Destroy(Handle handle) = 0;
  virtual int Abort(Handle handle) = 0;
  virtual int AllReduce(const void* in, void* out, size_t count, Element element, Handle handle) = 0;
  virtual int Broadcast(void* data, size_t size_bytes, int root, Handle handle) = 0;
  // What a result means, with what NCCL last said of this communicator, which may be null.
  virtual std::string ResultText(int result, Handle handle) = 0;

  // ---- the device ----
  // What is queued next begins after all that was computed so far.
  virtual void FollowCompute() = 0;
  // Whether all that was queued is done.
  virtual bool IsIdle() = 0;
  // Device memory for what comes from the host or goes there.
  virtual void* bounce() = 0;
  virtual size_t bounce_bytes() const = 0;
  // Done on return.
  virtual void CopyToDevice(void* device, const void* host, size_t size_bytes) = 0;
  virtual void CopyToHost(void* host, const void* device, size_t size_bytes) = 0;
  virtual void Copy(void* to, const void* from, size_t size_bytes) = 0;
};

}  // namespace accrue::nccl
