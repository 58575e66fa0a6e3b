// The state operations on a GPU, equal to the CPU's bit for bit, and to themselves a thousand times. Skipped,
// with the reason, where there is no GPU.
#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "tests/accumulate/state_values.h"
#include "tests/backend/cuda/state_ops_cases.h"
#include "worker/backend/cuda/cuda_device.h"
#include "worker/backend/cuda/cuda_state_device.h"
#include "worker/backend/cuda/kernel_state_ops.h"

namespace accrue {
namespace {

class DeviceMemory : public TestMemory {
 public:
  explicit DeviceMemory(cuda::CudaDevice& device) : device_(device) {}
  std::unique_ptr<DeviceBuffer> Allocate(size_t size_bytes) override {
    return device_.Allocate(size_bytes).value();
  }
  void CopyToDevice(void* device, const void* host, size_t size_bytes) override {
    device_.CopyToDevice(device, host, size_bytes);
  }
  void CopyToHost(void* host, const void* device, size_t size_bytes) override {
    device_.CopyToHost(host, device, size_bytes);
  }

 private:
  cuda::CudaDevice& device_;
};

class CudaStateOpsTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<cuda::CudaDevice>> device = cuda::CudaDevice::Open(0);
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *std::move(device);
    memory_ = std::make_unique<DeviceMemory>(*device_);
    state_device_ = cuda::CreateCudaStateDevice(*device_).value();
    ops_ = cuda::CreateKernelStateOps(*state_device_);
  }

  std::unique_ptr<cuda::CudaDevice> device_;
  std::unique_ptr<DeviceMemory> memory_;
  std::unique_ptr<cuda::StateDevice> state_device_;
  std::unique_ptr<StateOps> ops_;
};

TEST_F(CudaStateOpsTest, QuantizeAdd_OfAnySize_EqualsTheCpus) { ExpectQuantizeAddEqual(*ops_, *memory_); }
TEST_F(CudaStateOpsTest, QuantizeAdd_AtTheEdgesOfRounding_EqualsTheCpus) {
  ExpectRoundingEdgesEqual(*ops_, *memory_);
}
TEST_F(CudaStateOpsTest, InspectAndFloatAdd_OfAnySize_EqualTheCpus) {
  ExpectInspectAndFloatAddEqual(*ops_, *memory_);
}
TEST_F(CudaStateOpsTest, Scans_OfNonFiniteElements_EqualTheCpus) {
  ExpectNonFiniteScansEqual(*ops_, *memory_);
}
TEST_F(CudaStateOpsTest, WeightedSums_OfAnySize_EqualTheCpus) { ExpectWeightedSumsEqual(*ops_, *memory_); }
TEST_F(CudaStateOpsTest, SquareSums_OfAnySize_EqualTheCpus) { ExpectSquareSumsEqual(*ops_, *memory_); }
TEST_F(CudaStateOpsTest, Update_OfBothOptimizers_EqualsTheCpusAndHashes) {
  ExpectUpdatesEqual(*ops_, *memory_);
}
TEST_F(CudaStateOpsTest, HashChunks_OfAnySize_EqualTheCpus) { ExpectHashesEqual(*ops_, *memory_); }

// A tensor of production size: what a race would spoil now and then.
TEST_F(CudaStateOpsTest, QuantizeAddAndHash_Repeated_GiveTheSameBits) {
  constexpr int64_t kElements = 768 * 50257;
  constexpr int64_t kChunks = (kElements + kChunkElements - 1) / kChunkElements;
  const std::vector<float> gradient = Gradient(kElements, 3);
  const std::unique_ptr<DeviceBuffer> held = memory_->Allocate(kElements * sizeof(float));
  const std::unique_ptr<DeviceBuffer> sums = memory_->Allocate(kElements * sizeof(int64_t));
  memory_->CopyToDevice(held->data(), gradient.data(), kElements * sizeof(float));
  std::vector<ChunkStats> stats(kChunks);
  std::vector<Hash128> first(2 * kChunks), again(2 * kChunks);
  for (int repeat = 0; repeat < 1000; ++repeat) {
    std::vector<Hash128>& hashes = repeat == 0 ? first : again;
    ops_->QuantizeAdd(held->as<float>(), kElements, 40, true, sums->as<int64_t>(), stats.data());
    ops_->HashChunks(held->data(), kElements, 4, hashes.data());
    ops_->HashChunks(sums->data(), kElements, 4, hashes.data() + kChunks);  // the first half of the sums
    if (repeat > 0) {
      ASSERT_EQ(again, first) << "repeat " << repeat;
    }
  }
}

}  // namespace
}  // namespace accrue
