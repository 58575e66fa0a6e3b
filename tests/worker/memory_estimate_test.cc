// The estimate against what is allocated when the same parts are built on the real backend.
#include "worker/app/memory_estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
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

  absl::optional<int64_t> free_bytes;

  std::string DeviceName() const override { return "a small device"; }
  absl::optional<int64_t> FreeBytes() override { return free_bytes; }
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

// Small enough to be planned, large enough for each level to take less than the one before it.
constexpr char kGpt2124M[] =
    "{architecture: gpt2, vocabulary: 50257, context: 1024, layers: 12, heads: 12, width: 768}";

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
  ExpectEstimateIsWhatIsAllocated(Spec(kLlama, "precision: fp16\n"));
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

TEST(MemoryEstimateTest, EstimateMemory_EveryLevel_IsWhatIsAllocated) {
  for (const char* model : {kGpt2, kLlama}) {
    for (const Recompute recompute : kRecomputeLevels) {
      SCOPED_TRACE(RecomputeName(recompute));
      ExpectEstimateIsWhatIsAllocated(
          Spec(model, absl::StrCat("recompute: ", RecomputeName(recompute), "\n")));
    }
  }
}

// DESIGN section 6: 22 bytes a parameter in bf16 (2 + 4 + 8 + 8), 20 in fp32.
TEST(MemoryEstimateTest, EstimateMemory_StateOfAdamW_TwentyBytesAParameterAndTwoMoreInBf16) {
  for (const auto& [precision, bytes] : {std::pair{"fp32", 20}, std::pair{"tf32", 20}, std::pair{"bf16", 22}, std::pair{"fp16", 22}}) {
    const MemoryEstimate estimate =
        *EstimateMemory(Spec(kGpt2124M, absl::StrCat("precision: ", precision, "\n")));
    EXPECT_EQ(estimate.parameters, 124'439'808);
    EXPECT_EQ(estimate.StateBytes(), bytes * estimate.parameter_bytes / 4);
    EXPECT_NEAR(static_cast<double>(estimate.StateBytes()) / static_cast<double>(estimate.parameters), bytes,
                1e-3);
  }
}

TEST(EstimateLevelsTest, EstimateLevels_EachLevel_IsTheEstimateOfAJobThatAsksForIt) {
  v1::JobSpec spec = Spec(kGpt2124M, "recompute: norms\n");
  const std::vector<LevelEstimate> levels = *EstimateLevels(spec, *EstimateMemory(spec), 0);
  ASSERT_EQ(levels.size(), 4u);
  for (size_t i = 0; i < levels.size(); ++i) {
    spec.set_recompute(RecomputeName(levels[i].recompute));
    const MemoryEstimate estimate = *EstimateMemory(spec);
    EXPECT_EQ(levels[i].activation_bytes, estimate.activation_bytes);
    EXPECT_EQ(levels[i].total_bytes, estimate.total_bytes);
    if (i > 0) {
      EXPECT_LT(levels[i].total_bytes, levels[i - 1].total_bytes);
    }
    EXPECT_EQ(levels[i].largest_micro_batch, 0);
  }
}

TEST(EstimateLevelsTest, EstimateLevels_JustEnoughForADivisor_NamesIt) {
  v1::JobSpec spec = Spec(kGpt2, "");
  spec.mutable_batch()->set_sequences(12);
  const MemoryEstimate two = *EstimateMemory(spec);
  spec.mutable_batch()->set_micro_batch(6);
  const int64_t six_bytes = EstimateMemory(spec)->total_bytes;
  spec.mutable_batch()->set_micro_batch(2);
  EXPECT_EQ((*EstimateLevels(spec, two, six_bytes))[0].largest_micro_batch, 6);
  EXPECT_EQ((*EstimateLevels(spec, two, six_bytes - 1))[0].largest_micro_batch, 4);
  EXPECT_EQ((*EstimateLevels(spec, two, int64_t{1} << 40))[0].largest_micro_batch, 12);
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

// Of a job that does not fit, on a device with so much memory.
std::string ErrorWith(const v1::JobSpec& spec, bool reserves, int64_t free_bytes) {
  SmallDevice device(reserves);
  device.free_bytes = free_bytes;
  const absl::Status status = ReserveMemory(spec, device);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  return std::string(status.message());
}

int64_t TotalBytes(v1::JobSpec spec, const char* recompute, int64_t micro_batch) {
  spec.set_recompute(recompute);
  spec.mutable_batch()->set_micro_batch(micro_batch);
  return EstimateMemory(spec)->total_bytes;
}

TEST(ReserveMemoryTest, ReserveMemory_MemoryOfTheSystemJustEnough_IsTaken) {
  const v1::JobSpec spec = Spec(kGpt2124M, "");
  SmallDevice device(/*reserves=*/false);
  device.free_bytes = TotalBytes(spec, "none", 2);
  EXPECT_TRUE(ReserveMemory(spec, device).ok());
  EXPECT_THAT(ErrorWith(spec, false, *device.free_bytes - 1),
              HasSubstr("; it would fit with recompute: norms ("));
}

TEST(ReserveMemoryTest, ReserveMemory_OtherLevelsFit_TheLeastOfThemAndTheLargestUnitAreNamed) {
  const v1::JobSpec spec = Spec(kGpt2124M, "");
  for (const bool reserves : {false, true}) {
    const int64_t free_bytes = std::max(TotalBytes(spec, "attention", 2), TotalBytes(spec, "none", 1));
    ASSERT_LT(free_bytes, TotalBytes(spec, "norms", 2));
    const std::string error = ErrorWith(spec, reserves, free_bytes);
    EXPECT_THAT(error, HasSubstr("the job takes "));
    EXPECT_THAT(
        error, HasSubstr(reserves ? ": free: 10 bytes; it would fit"
                                  : absl::StrCat(": available is ", free_bytes >> 20, " MiB; it would fit")));
    EXPECT_THAT(error, HasSubstr("it would fit with recompute: attention ("));
    EXPECT_THAT(error, HasSubstr(", or with batch.micro_batch: 1 (other units, so other results)"));
  }
}

TEST(ReserveMemoryTest, ReserveMemory_RefusedThoughSoMuchIsFree_NamesLess) {
  const std::string error = ErrorWith(Spec(kGpt2124M, ""), true, int64_t{1} << 40);
  EXPECT_THAT(error, HasSubstr("it would fit with recompute: norms ("));
  EXPECT_THAT(error, HasSubstr(", or with batch.micro_batch: 1 "));
}

TEST(ReserveMemoryTest, ReserveMemory_OnlyBothFit_BothAreNamed) {
  const v1::JobSpec spec = Spec(kGpt2124M, "recompute: attention\n");
  const int64_t free_bytes = TotalBytes(spec, "block", 1);
  ASSERT_LT(free_bytes, TotalBytes(spec, "attention", 1));
  ASSERT_LT(free_bytes, TotalBytes(spec, "block", 2));
  EXPECT_THAT(ErrorWith(spec, false, free_bytes),
              HasSubstr("it would fit with recompute: block and batch.micro_batch: 1 "));
}

TEST(ReserveMemoryTest, ReserveMemory_NothingFits_SaysSo) {
  EXPECT_THAT(ErrorWith(Spec(kGpt2124M, ""), false, 1000),
              HasSubstr("no recompute level and no micro_batch would fit"));
}

}  // namespace
}  // namespace accrue
