// Gloo's transport, with waits that can be ended. When a connection breaks, Gloo wakes who waits for a message that is
// still to come, but not who waits for the one that is under way: half received, or queued behind another. That wait
// would last until its time-out.
#pragma once

#include <gloo/transport/context.h>

#include <memory>

namespace accrue {

class LiveBuffers;

// Thread-safety: as the transport below; Abort by any thread, at any time.
class AbortableTransport : public gloo::transport::Context {
 public:
  // transport: with all its pairs and time-outs, which are set there.
  explicit AbortableTransport(std::shared_ptr<gloo::transport::Context> transport);
  ~AbortableTransport() override;

  // Makes every wait for a buffer of this transport, also one to come, throw gloo::IoException.
  void Abort();

  std::unique_ptr<gloo::transport::Pair>& getPair(int rank) override;
  std::unique_ptr<gloo::transport::Pair>& createPair(int rank) override;
  std::unique_ptr<gloo::transport::UnboundBuffer> createUnboundBuffer(void* ptr, size_t size) override;

 private:
  const std::shared_ptr<gloo::transport::Context> transport_;
  const std::shared_ptr<LiveBuffers> buffers_;
};

}  // namespace accrue
