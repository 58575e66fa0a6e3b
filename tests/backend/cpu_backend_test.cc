#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "worker/backend/backend.h"

namespace accrue {
namespace {

TEST(CpuBackend, Allocate_AnySize_ZeroedAndAligned) {
  const std::unique_ptr<Backend> backend = CreateCpuBackend(1);
  for (size_t size_bytes : {size_t{0}, size_t{1}, size_t{4097}, size_t{5} << 20}) {
    auto buffer = backend->Allocate(size_bytes);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    EXPECT_EQ(reinterpret_cast<uintptr_t>((*buffer)->data()) % 64, 0u);
    EXPECT_GE((*buffer)->size_bytes(), size_bytes);
    for (size_t i = 0; i < size_bytes; ++i) ASSERT_EQ((*buffer)->as<char>()[i], 0);
  }
}

TEST(CpuBackend, Allocate_MoreThanThereCanBe_SaysHowMuchAndWhatIsFree) {
  const auto buffer = CreateCpuBackend(1)->Allocate(size_t{1} << 62);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(buffer.status().message()), testing::HasSubstr("4611686018427387904 bytes"));
}

TEST(CpuBackend, NumericClass_OfThreadCounts_IsTheSame) {
  const auto one = CreateCpuBackend(1), three = CreateCpuBackend(3);
  EXPECT_EQ(one->NumericClass(DType::kF32), three->NumericClass(DType::kF32));
  EXPECT_NE(one->NumericClass(DType::kF32), one->NumericClass(DType::kBF16));
  EXPECT_NE(one->DeviceName(), three->DeviceName());
}

TEST(CpuBackend, Fp16_OnEveryMachine_OfAClassOfItsOwn) {
  const auto backend = CreateCpuBackend(1);
  EXPECT_TRUE(backend->Supports(DType::kF16));
  EXPECT_NE(backend->NumericClass(DType::kF16), backend->NumericClass(DType::kF32));
  EXPECT_THAT(backend->NumericClass(DType::kF16), testing::HasSubstr("/fp16/"));
  EXPECT_EQ(backend->Tf32NumericClass(), "");
}

TEST(CpuBackend, Copy_ThereAndBack_KeepsBytes) {
  const auto backend = CreateCpuBackend(2);
  auto a = *backend->Allocate(1000), b = *backend->Allocate(1000);
  char bytes[1000], back[1000];
  for (int i = 0; i < 1000; ++i) bytes[i] = static_cast<char>(i);
  backend->CopyToDevice(a->data(), bytes, 1000);
  backend->Copy(b->data(), a->data(), 1000);
  backend->Zero(a->data(), 1000);
  backend->Synchronize();
  backend->CopyToHost(back, b->data(), 1000);
  EXPECT_EQ(std::memcmp(bytes, back, 1000), 0);
}

}  // namespace
}  // namespace accrue
