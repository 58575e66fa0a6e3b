#include "worker/collective/abortable_transport.h"

#include <gloo/common/error.h>
#include <gloo/transport/unbound_buffer.h>

#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace accrue {

using gloo::transport::UnboundBuffer;

// The transport's own buffers that exist just now.
class LiveBuffers {
 public:
  void Add(UnboundBuffer* buffer) {
    absl::MutexLock lock(&mutex_);
    buffers_.insert(buffer);
  }

  void Remove(UnboundBuffer* buffer) {
    absl::MutexLock lock(&mutex_);
    buffers_.erase(buffer);
  }

  // A wait that begins just now ends too: a buffer remembers that it was told so.
  void Abort() {
    absl::MutexLock lock(&mutex_);
    aborted_ = true;
    for (UnboundBuffer* buffer : buffers_) {
      buffer->abortWaitRecv();
      buffer->abortWaitSend();
    }
  }

  void ThrowIfAborted() const {
    absl::MutexLock lock(&mutex_);
    if (aborted_) throw gloo::IoException("aborted");
  }

 private:
  mutable absl::Mutex mutex_;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<UnboundBuffer*> buffers_ ABSL_GUARDED_BY(mutex_);
};

namespace {

class AbortableBuffer : public UnboundBuffer {
 public:
  AbortableBuffer(std::unique_ptr<UnboundBuffer> buffer, std::shared_ptr<LiveBuffers> live)
      : UnboundBuffer(buffer->ptr, buffer->size), live_(std::move(live)), buffer_(std::move(buffer)) {
    live_->Add(buffer_.get());
  }
  ~AbortableBuffer() override { live_->Remove(buffer_.get()); }

  bool waitRecv(int* rank, std::chrono::milliseconds timeout) override {
    live_->ThrowIfAborted();
    const bool completed = buffer_->waitRecv(rank, timeout);
    if (!completed) live_->ThrowIfAborted();
    return completed;
  }

  bool waitSend(int* rank, std::chrono::milliseconds timeout) override {
    live_->ThrowIfAborted();
    const bool completed = buffer_->waitSend(rank, timeout);
    if (!completed) live_->ThrowIfAborted();
    return completed;
  }

  void abortWaitRecv() override { buffer_->abortWaitRecv(); }
  void abortWaitSend() override { buffer_->abortWaitSend(); }

  void send(int rank, uint64_t slot, size_t offset, size_t bytes) override { buffer_->send(rank, slot, offset, bytes); }
  void recv(int rank, uint64_t slot, size_t offset, size_t bytes) override { buffer_->recv(rank, slot, offset, bytes); }
  void recv(std::vector<int> ranks, uint64_t slot, size_t offset, size_t bytes) override {
    buffer_->recv(std::move(ranks), slot, offset, bytes);
  }

 private:
  const std::shared_ptr<LiveBuffers> live_;
  const std::unique_ptr<UnboundBuffer> buffer_;
};

}  // namespace

AbortableTransport::AbortableTransport(std::shared_ptr<gloo::transport::Context> transport)
    : gloo::transport::Context(transport->rank, transport->size),
      transport_(std::move(transport)),
      buffers_(std::make_shared<LiveBuffers>()) {
  setTimeout(transport_->getTimeout());
}

AbortableTransport::~AbortableTransport() = default;

void AbortableTransport::Abort() { buffers_->Abort(); }

std::unique_ptr<gloo::transport::Pair>& AbortableTransport::getPair(int rank) { return transport_->getPair(rank); }

std::unique_ptr<gloo::transport::Pair>& AbortableTransport::createPair(int rank) { return transport_->createPair(rank); }

std::unique_ptr<UnboundBuffer> AbortableTransport::createUnboundBuffer(void* ptr, size_t size) {
  return std::make_unique<AbortableBuffer>(transport_->createUnboundBuffer(ptr, size), buffers_);
}

}  // namespace accrue
