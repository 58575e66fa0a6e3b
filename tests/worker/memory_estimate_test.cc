// The estimate against what is allocated when the same parts are built on the real backend.
#include "worker/app/memory_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/spec/job_spec.h"
#include "worker/app/job_parts.h"
#include "worker/backend/measuring_backend.h"

namespace accrue {
namespace {

using testing::HasSubstr;

// The CPU's backend, with a sum of the sizes of its buffers.
class CountingBackend : public Backend {
 public:
  CountingBackend() : cpu_(CreateCpuBackend(1)) {}
  int64_t allocated_bytes() const { return allocated_bytes_; }
  int buffers() const { return buffers_; }

  std::string DeviceName() const override { return cpu_->DeviceName(); }
  std::string NumericClass(DType precision) const override { return cpu_->NumericClass(precision); }
  bool Supports(DType precision) const override { return cpu_->Supports(precision); }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size_bytes) override {
    auto buffer = cpu_->Allocate(size_bytes);
    if (buffer.ok()) allocated_bytes_ += static_cast<int64_t>((*buffer)->size_bytes());
    ++buffers_;
    return buffer;
  }
  void CopyToHost(void* host, const void* device, size_t size) override { cpu_->CopyToHost(host, device, size); }
  void CopyToDevice(void* device, const void* host, size_t size) override { cpu_->CopyToDevice(device, host, size); }
  void Copy(void* to, const void* from, size_t size) override { cpu_->Copy(to, from, size); }
  void Zero(void* device, size_t size) override { cpu_->Zero(device, size); }
  void Synchronize() override { cpu_->Synchronize(); }
  ModelOps& model_ops() override { return cpu_->model_ops(); }
  StateOps& state_ops() override { return cpu_->state_ops(); }

 private:
  const std::unique_ptr<Backend> cpu_;
  int64_t allocated_bytes_ = 0;
  int buffers_ = 0;
};

// A device that wants its memory asked for at once, and has little.
class SmallDevice : public CountingBackend {
 public:
  explicit SmallDevice(bool reserves) : reserves_(reserves) {}
  size_t asked_bytes = 0;
  int asked_buffers = 0;

  std::string DeviceName() const override { return "a small device"; }
  bool ReservesMemory() const override { return reserves_; }
  absl::Status Reserve(size_t size_bytes, int buffers) override {
    asked_bytes = size_bytes;
    asked_buffers = buffers;
    return absl::ResourceExhaustedError("free: 10 bytes");
  }

 private:
  const bool reserves_;
};

v1::JobSpec Spec(const std::string& model, const std::string& rest) {
  absl::StatusOr<v1::JobSpec> spec = ParseJobText(
      "name: estimate\nmodel: " + model + "\ndata: {train: [a.bin]}\nbatch: {sequences: 8, micro_batch: 2}\n" + rest +
          "windows: 10\n",
      "job.yaml");
  EXPECT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(FillDefaults(*spec).ok());
  EXPECT_TRUE(ValidateSpec(*spec).ok());
  return *spec;
}

constexpr char kGpt2[] = "{architecture: gpt2, vocabulary: 1000, context: 64, layers: 3, heads: 4, width: 64}";
constexpr char kLlama[] =
    "{architecture: llama, vocabulary: 1000, context: 64, layers: 3, heads: 4, kv_heads: 2, width: 64}";

void ExpectEstimateIsWhatIsAllocated(const v1::JobSpec& spec) {
  CountingBackend backend;
  const auto engine = MakeTransformer(spec, backend);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const int64_t engine_bytes = backend.allocated_bytes();
  const auto state = MakeState(spec, (*engine)->layout(), backend);
  const int64_t state_bytes = backend.allocated_bytes() - engine_bytes;
  const auto accumulator = MakeAccumulator(spec, (*engine)->layout(), backend);
  const auto estimate = EstimateMemory(spec);
  ASSERT_TRUE(estimate.ok()) << estimate.status();

  EXPECT_EQ(estimate->parameters, (*engine)->layout().parameters());
  EXPECT_EQ(estimate->activation_bytes + estimate->compute_copy_bytes + estimate->gradient_bytes,
            (*engine)->WorkspaceBytes());
  EXPECT_GT(estimate->gradient_bytes, 0);
  EXPECT_EQ(estimate->parameter_bytes + estimate->optimizer_bytes, state_bytes);
  EXPECT_EQ(estimate->accumulator_bytes, backend.allocated_bytes() - engine_bytes - state_bytes);
  EXPECT_EQ(estimate->total_bytes, backend.allocated_bytes() + estimate->staging_bytes);
  EXPECT_EQ(estimate->buffers, backend.buffers() + 1);
  EXPECT_EQ(estimate->compute_copy_bytes > 0, (*engine)->ComputeCopy() != nullptr);
}

TEST(MemoryEstimateTest, EstimateMemory_Gpt2_IsWhatIsAllocated) {
  const v1::JobSpec spec = Spec(kGpt2, "");
  ExpectEstimateIsWhatIsAllocated(spec);
  // 4 parameters, 8 moments, 8 accumulator: bytes an element of the arena.
  const MemoryEstimate estimate = *EstimateMemory(spec);
  EXPECT_EQ(estimate.optimizer_bytes, 2 * estimate.parameter_bytes);
  EXPECT_EQ(estimate.accumulator_bytes, 2 * estimate.parameter_bytes);
  EXPECT_EQ(estimate.checkpoint_bytes, 3 * 4 * estimate.parameters);
  EXPECT_EQ(estimate.joining_bytes, 4 * estimate.parameter_bytes);
}

TEST(MemoryEstimateTest, EstimateMemory_MoreRows_TakeActivationsAlone) {
  v1::JobSpec spec = Spec(kGpt2, "");
  const MemoryEstimate two = *EstimateMemory(spec);
  spec.mutable_batch()->set_micro_batch(4);
  const MemoryEstimate four = *EstimateMemory(spec);
  EXPECT_GT(four.activation_bytes, two.activation_bytes);
  EXPECT_EQ(four.gradient_bytes, two.gradient_bytes);
  EXPECT_EQ(four.total_bytes - two.total_bytes, four.activation_bytes - two.activation_bytes);
}

TEST(MemoryEstimateTest, EstimateMemory_LlamaWithSgdFast_IsWhatIsAllocated) {
  const v1::JobSpec spec = Spec(kLlama, "optimizer: {name: sgd}\naccumulation: {mode: fast}\n");
  ExpectEstimateIsWhatIsAllocated(spec);
  const MemoryEstimate estimate = *EstimateMemory(spec);
  EXPECT_EQ(estimate.optimizer_bytes, estimate.parameter_bytes);
  EXPECT_EQ(estimate.accumulator_bytes, estimate.parameter_bytes);
  EXPECT_EQ(estimate.joining_bytes, 0);
}

TEST(MemoryEstimateTest, EstimateMemory_Bf16_HasACopyWhateverThisMachineCan) {
  const v1::JobSpec spec = Spec(kLlama, "precision: bf16\n");
  const MemoryEstimate estimate = *EstimateMemory(spec);
  EXPECT_EQ(estimate.compute_copy_bytes, estimate.parameter_bytes / 2);
  EXPECT_LT(estimate.activation_bytes, EstimateMemory(Spec(kLlama, ""))->activation_bytes);
  if (CountingBackend().Supports(DType::kBF16)) ExpectEstimateIsWhatIsAllocated(spec);
}

TEST(MemoryEstimateTest, EstimateMemory_HugeModel_IsEstimatedOnASmallMachine) {
  const v1::JobSpec spec = Spec(
      "{architecture: llama, vocabulary: 128256, context: 8192, layers: 80, heads: 64, kv_heads: 8, width: 8192, "
      "hidden: 28672}",
      "");
  const MemoryEstimate estimate = *EstimateMemory(spec);
  EXPECT_GT(estimate.parameters, 70'000'000'000);
  EXPECT_GT(estimate.total_bytes, 20 * estimate.parameters);
}

TEST(MemoryEstimateTest, EstimateMemory_ShapeThatCannotBe_IsRefused) {
  v1::JobSpec spec = Spec(kGpt2, "");
  spec.mutable_model()->set_heads(5);
  const absl::Status status = EstimateMemory(spec).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("heads"));
}

TEST(ReserveMemoryTest, ReserveMemory_DeviceIsTooSmall_SaysWhatTheJobTakes) {
  const v1::JobSpec spec = Spec(kGpt2, "");
  SmallDevice device(/*reserves=*/true);
  const absl::Status status = ReserveMemory(spec, device);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("MiB on a small device: parameters "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(": free: 10 bytes"));
  const MemoryEstimate estimate = *EstimateMemory(spec);
  EXPECT_EQ(device.asked_bytes, static_cast<size_t>(estimate.total_bytes));
  EXPECT_EQ(device.asked_buffers, estimate.buffers);
}

TEST(ReserveMemoryTest, ReserveMemory_MemoryOfTheSystem_NothingAsked) {
  SmallDevice device(/*reserves=*/false);
  EXPECT_TRUE(ReserveMemory(Spec(kGpt2, ""), device).ok());
  EXPECT_EQ(device.asked_bytes, 0u);
}

}  // namespace
}  // namespace accrue
