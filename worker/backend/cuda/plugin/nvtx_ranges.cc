#include "worker/backend/cuda/plugin/nvtx_ranges.h"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define ACCRUE_HAS_NVTX 1
#endif

namespace accrue::cuda {

#ifdef ACCRUE_HAS_NVTX
namespace {

class Nvtx : public ProfilerRanges {
 public:
  void Push(const char* name, int64_t number) override {
    nvtxEventAttributes_t attributes = {};
    attributes.version = NVTX_VERSION;
    attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
    attributes.message.ascii = name;
    if (number >= 0) {
      attributes.payloadType = NVTX_PAYLOAD_TYPE_INT64;
      attributes.payload.llValue = number;
    }
    nvtxRangePushEx(&attributes);
  }
  void Pop() override { nvtxRangePop(); }
};

}  // namespace

ProfilerRanges* NvtxRanges() {
  static Nvtx ranges;
  return &ranges;
}
#else
ProfilerRanges* NvtxRanges() { return nullptr; }
#endif

}  // namespace accrue::cuda
