// The device's state operations on the CPU: their kernels' bodies in loops, in several orders of threads,
// equal to the CPU's own operations bit for bit. docs/cuda.md says what this shows and what only a device
// can.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "common/hash.h"
#include "tests/backend/cuda/host_run.h"
#include "tests/backend/cuda/state_ops_cases.h"
#include "worker/backend/cuda/kernel_state_ops.h"

namespace accrue {
namespace {

class HostMemory : public TestMemory {
 public:
  std::unique_ptr<DeviceBuffer> Allocate(size_t size_bytes) override {
    return std::make_unique<Buffer>(size_bytes);
  }
  void CopyToDevice(void* device, const void* host, size_t size_bytes) override {
    std::memcpy(device, host, size_bytes);
  }
  void CopyToHost(void* host, const void* device, size_t size_bytes) override {
    std::memcpy(host, device, size_bytes);
  }

 private:
  class Buffer : public DeviceBuffer {
   public:
    explicit Buffer(size_t size_bytes)
        : size_bytes_(size_bytes), data_(std::aligned_alloc(64, (size_bytes + 63) / 64 * 64)) {}
    ~Buffer() override { std::free(data_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    void* data() const override { return data_; }
    size_t size_bytes() const override { return size_bytes_; }

   private:
    const size_t size_bytes_;
    void* const data_;
  };
};

class StateKernelsTest : public testing::TestWithParam<cuda::ThreadOrder> {
 protected:
  StateKernelsTest() : device_(GetParam()), ops_(cuda::CreateKernelStateOps(device_)) {}

  HostMemory memory_;
  cuda::HostStateDevice device_;
  const std::unique_ptr<StateOps> ops_;
};

TEST_P(StateKernelsTest, QuantizeAdd_OfAnySize_EqualsTheCpus) { ExpectQuantizeAddEqual(*ops_, memory_); }
TEST_P(StateKernelsTest, QuantizeAdd_AtTheEdgesOfRounding_EqualsTheCpus) {
  ExpectRoundingEdgesEqual(*ops_, memory_);
}
TEST_P(StateKernelsTest, InspectAndFloatAdd_OfAnySize_EqualTheCpus) {
  ExpectInspectAndFloatAddEqual(*ops_, memory_);
}
TEST_P(StateKernelsTest, Scans_OfNonFiniteElements_EqualTheCpus) {
  ExpectNonFiniteScansEqual(*ops_, memory_);
}
TEST_P(StateKernelsTest, WeightedSums_OfAnySize_EqualTheCpus) { ExpectWeightedSumsEqual(*ops_, memory_); }
TEST_P(StateKernelsTest, SquareSums_OfAnySize_EqualTheCpus) { ExpectSquareSumsEqual(*ops_, memory_); }
TEST_P(StateKernelsTest, Update_OfBothOptimizers_EqualsTheCpusAndHashes) {
  ExpectUpdatesEqual(*ops_, memory_);
}
TEST_P(StateKernelsTest, HashChunks_OfAnySize_EqualTheCpus) { ExpectHashesEqual(*ops_, memory_); }

std::string NameOf(cuda::ThreadOrder order) {
  switch (order) {
    case cuda::ThreadOrder::kUp:
      return "Up";
    case cuda::ThreadOrder::kDown:
      return "Down";
    case cuda::ThreadOrder::kOddFirst:
      return "OddFirst";
  }
  return "";
}

INSTANTIATE_TEST_SUITE_P(Orders, StateKernelsTest,
                         testing::Values(cuda::ThreadOrder::kUp, cuda::ThreadOrder::kDown,
                                         cuda::ThreadOrder::kOddFirst),
                         [](const auto& info) { return NameOf(info.param); });

TEST(HashShort, OfEveryLength_EqualsTheLibrary) {
  uint64_t secret[cuda::xxh3::kSecretWords];
  for (int i = 0; i < cuda::xxh3::kSecretWords; ++i) secret[i] = cuda::xxh3::SecretWord(i);
  std::vector<unsigned char> data(cuda::xxh3::kShortBytes + 8);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<unsigned char>(SplitMix64(i));
  for (int shift = 0; shift < 8; ++shift) {
    for (int size = 1; size <= cuda::xxh3::kShortBytes; ++size) {
      const cuda::xxh3::Canonical got = cuda::xxh3::HashShort(data.data() + shift, size, secret);
      const Hash128 expected = HashBytes(data.data() + shift, size);
      ASSERT_EQ(std::memcmp(&got, &expected, sizeof(got)), 0) << size << " bytes from " << shift;
    }
  }
}

}  // namespace
}  // namespace accrue
