// Where a unit's time goes: trains one of two models on random tokens and prints, for every operation and shape,
// its time, rate, and share of the matrix-product peak measured in the same run.
//
//   accrue_bench_ops [small|gpt2] [fp32|bf16|fp16] [threads] [units]
//
// Times are the least over the units: on a busy machine their ratios are better than any one of them.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/timed_ops.h"
#include "common/check.h"
#include "common/philox.h"
#include "worker/backend/backend.h"
#include "worker/backend/cpu/amx.h"
#include "worker/backend/cpu/gemm.h"
#include "worker/backend/cpu/scratch.h"
#include "worker/backend/cpu/thread_pool.h"
#include "worker/model/transformer.h"

namespace accrue {
namespace {

// Seconds of this thread's processor time where one thread computes, so that other work on the machine hardly
// counts; of the wall clock where several do.
class Stopwatch {
 public:
  explicit Stopwatch(bool one_thread) : clock_(one_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC), start_(Now()) {}
  double Seconds() const { return Now() - start_; }

 private:
  double Now() const {
    timespec now;
    ACCRUE_CHECK(clock_gettime(clock_, &now) == 0);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }

  clockid_t clock_;
  double start_;
};

// The CPU backend with its model operations timed.
class TimedBackend : public Backend {
 public:
  explicit TimedBackend(int threads)
      : backend_(CreateCpuBackend(threads)), ops_(backend_->model_ops(), [watch = Stopwatch(threads == 1)] { return watch.Seconds(); }) {}
  std::string DeviceName() const override { return backend_->DeviceName(); }
  std::string NumericClass(DType precision) const override { return backend_->NumericClass(precision); }
  bool Supports(DType precision) const override { return backend_->Supports(precision); }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size_bytes) override {
    return backend_->Allocate(size_bytes);
  }
  void CopyToHost(void* host, const void* device, size_t bytes) override { backend_->CopyToHost(host, device, bytes); }
  void CopyToDevice(void* device, const void* host, size_t bytes) override {
    backend_->CopyToDevice(device, host, bytes);
  }
  void Copy(void* to, const void* from, size_t bytes) override { backend_->Copy(to, from, bytes); }
  void Zero(void* device, size_t bytes) override { backend_->Zero(device, bytes); }
  void Synchronize() override { backend_->Synchronize(); }
  ModelOps& model_ops() override { return ops_; }
  StateOps& state_ops() override { return backend_->state_ops(); }
  TimedOps& timed_ops() { return ops_; }

 private:
  const std::unique_ptr<Backend> backend_;
  TimedOps ops_;
};

// The best rate of what multiplies matrices here (the library, or in bf16 the processor's matrix tiles) on this many
// threads: products that stay in each core's cache.
class Peak {
 public:
  Peak(DType dtype, int threads)
      : dtype_(dtype == DType::kF16 ? DType::kF32 : dtype),  // whose products these are
        pool_(threads),
        gemm_(threads),
        scratch_(threads),
        arrays_(threads) {
    for (cpu::Scratch& array : arrays_) std::fill_n(array.Floats(3 * kSide * kSide), 3 * kSide * kSide, 0.0f);
  }

  // Measures once more; the best so far, in operations per second.
  double Measure() {
    const cpu::GemmPlan& plan = gemm_.Get({.m = kSide, .n = kSide, .k = kSide, .a_row = kSide, .a_column = 1,
                                           .b_row = kSide, .b_column = 1, .c_row = kSide, .input = dtype_});
    cpu::AmxTileArgs tile{.m = kSide, .n = kSide, .k = kSide, .a_row = kSide, .a_column = 1, .b_row = kSide,
                          .b_column = 1, .c_row = kSide};
    const bool by_amx = dtype_ == DType::kBF16 && cpu::HasAmx();
    scratch_.Reserve(by_amx ? cpu::AmxTileScratch(tile) : gemm_.scratch_bytes());
    constexpr int kRepeats = 16;
    const Stopwatch stopwatch(pool_.threads() == 1);
    pool_.ParallelFor(pool_.threads(), [&](int64_t task) {
      float* array = static_cast<float*>(arrays_[task].data());
      cpu::AmxTileArgs own = tile;
      own.a = reinterpret_cast<const cpu::Bf16*>(array);
      own.b = reinterpret_cast<const cpu::Bf16*>(array + kSide * kSide);
      own.c = {array + 2 * kSide * kSide, DType::kF32};
      for (int i = 0; i < kRepeats; ++i) {
        if (by_amx) {
          cpu::AmxTile(own, scratch_.OfThisThread());
          continue;
        }
        plan.Run(ThreadPool::CurrentThread(), array, array + kSide * kSide, array + 2 * kSide * kSide, nullptr,
                 scratch_.OfThisThread());
      }
    });
    best_ = std::max(best_, 2.0 * kSide * kSide * kSide * kRepeats * pool_.threads() / stopwatch.Seconds());
    return best_;
  }

 private:
  static constexpr int64_t kSide = 384;

  const DType dtype_;
  ThreadPool pool_;
  cpu::Gemm gemm_;
  cpu::ThreadScratch scratch_;
  std::vector<cpu::Scratch> arrays_;
  double best_ = 0;
};

class IgnoreGradients : public GradientSink {
 public:
  void Add(int, const float*) override {}
};

int Run(const ModelConfig& model, DType precision, int threads, int units) {
  constexpr int64_t kRows = 4, kSequenceLength = 256;
  TimedBackend backend(threads);
  auto engine = CreateTransformer({.model = model, .precision = precision, .rows = kRows,
                                   .sequence_length = kSequenceLength}, backend);
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", std::string(engine.status().message()).c_str());
    return 1;
  }
  const int64_t elements = (*engine)->layout().arena_elements();
  std::vector<float> parameters(elements);
  (*engine)->InitializeParameters(1, parameters.data());
  (*engine)->BindParameters(parameters.data());
  (*engine)->ParametersChanged();
  std::vector<int32_t> tokens(kRows * kSequenceLength), targets(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>(SplitMix64(i) % model.vocabulary);
    targets[i] = static_cast<int32_t>(SplitMix64(~i) % model.vocabulary);
  }
  IgnoreGradients sink;
  Peak peak(precision, threads);
  double least_unit_seconds = std::numeric_limits<double>::infinity(), best_peak = 0;
  for (int unit = 0; unit <= units; ++unit) {
    best_peak = peak.Measure();
    const Stopwatch stopwatch(threads == 1);
    ACCRUE_CHECK((*engine)->ComputeUnit({.rows = kRows, .sequence_length = kSequenceLength, .tokens = tokens.data(),
                                         .targets = targets.data()}, sink).ok());
    const bool counts = unit > 0;  // the first compiles the products
    if (counts) least_unit_seconds = std::min(least_unit_seconds, stopwatch.Seconds());
    backend.timed_ops().EndUnit(counts);
  }
  const TimedOps& ops = backend.timed_ops();
  const double total = ops.least_total_seconds(), roofline = ops.linear_flops() / best_peak;
  std::printf("%s; %s\n", backend.DeviceName().c_str(), backend.NumericClass(precision).c_str());
  std::printf("peak of matrix products %.0f GF/s\n", best_peak / 1e9);
  std::printf("unit %.2f ms at best, %.2f ms with every operation at its best; linear layers alone at peak %.2f ms, "
              "%.1f%% of that\n", least_unit_seconds * 1e3, total * 1e3, roofline * 1e3, 100 * roofline / total);
  std::printf("tokens/s %.0f at best, %.0f with every operation at its best\n\n",
              kRows * kSequenceLength / least_unit_seconds, kRows * kSequenceLength / total);
  ops.PrintTable(best_peak, total);
  return 0;
}

}  // namespace
}  // namespace accrue

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "small", precision = argc > 2 ? argv[2] : "fp32";
  const int threads = argc > 3 ? std::atoi(argv[3]) : 2, units = argc > 4 ? std::atoi(argv[4]) : 10;
  const bool known = precision == "fp32" || precision == "bf16" || precision == "fp16";
  if ((name != "small" && name != "gpt2") || !known || threads < 1 || units < 1) {
    std::fprintf(stderr, "usage: %s [small|gpt2] [fp32|bf16|fp16] [threads, at least 1] [units, at least 1]\n", argv[0]);
    return 2;
  }
  const accrue::DType dtype = precision == "fp32"   ? accrue::DType::kF32
                              : precision == "bf16" ? accrue::DType::kBF16
                                                    : accrue::DType::kF16;
  accrue::ModelConfig model{.vocabulary = 8192, .context = 256, .layers = 6, .heads = 8, .kv_heads = 8, .width = 256,
                            .hidden = 1024};
  if (name == "gpt2") {
    model = {.vocabulary = 50257, .context = 1024, .layers = 12, .heads = 12, .kv_heads = 12, .width = 768,
             .hidden = 3072};
  }
  return accrue::Run(model, dtype, threads, units);
}
