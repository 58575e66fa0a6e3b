// Where a unit's time goes: trains one of two models on random tokens and prints, for every operation and shape,
// its time, rate, and share of the matrix-product peak measured in the same run.
//
//   accrue_bench_ops [small|gpt2] [fp32|bf16] [threads] [units]
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

#include "common/check.h"
#include "common/philox.h"
#include "worker/backend/backend.h"
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

// What one operation and shape did in a unit, and the least over units.
struct Row {
  int calls = 0;
  double seconds = 0;
  double least_seconds = std::numeric_limits<double>::infinity();
};

// Passes everything on and takes the time.
class TimedOps : public ModelOps {
 public:
  TimedOps(ModelOps& ops, bool one_thread) : ops_(ops), one_thread_(one_thread) {}

  void LinearForward(const LinearForwardArgs& a) override {
    const std::string name = Shape("linear forward", {a.rows, a.in, a.out}) + (a.gelu_input ? " gelu" : "");
    Time(name, 2.0 * a.rows * a.in * a.out, 0, [&] { ops_.LinearForward(a); });
  }
  void LinearBackwardInput(const LinearBackwardInputArgs& a) override {
    const std::string name = Shape("linear input gradient", {a.rows, a.in, a.out}) + (a.gelu_input ? " gelu" : "");
    Time(name, 2.0 * a.rows * a.in * a.out, 0, [&] { ops_.LinearBackwardInput(a); });
  }
  void LinearBackwardWeight(const LinearBackwardWeightArgs& a) override {
    const std::string name = Shape("linear weight gradient", {a.rows, a.in, a.out}) + (a.accumulate ? " +=" : "");
    Time(name, 2.0 * a.rows * a.in * a.out, 0, [&] { ops_.LinearBackwardWeight(a); });
  }
  void EmbeddingForward(const EmbeddingForwardArgs& a) override {
    Time("embedding forward", 0, 3.0 * a.rows * a.width * SizeOf(a.y.dtype), [&] { ops_.EmbeddingForward(a); });
  }
  void EmbeddingBackward(const EmbeddingBackwardArgs& a) override {
    Time("embedding backward", 0, 3.0 * a.rows * a.width * SizeOf(a.dy.dtype), [&] { ops_.EmbeddingBackward(a); });
  }
  void NormForward(const NormForwardArgs& a) override {
    const double bytes = (a.delta ? 4.0 : 2.0) * a.rows * a.width * SizeOf(a.y.dtype);
    Time(a.delta ? "norm forward with sum" : "norm forward", 0, bytes, [&] { ops_.NormForward(a); });
  }
  void NormBackward(const NormBackwardArgs& a) override {
    const double bytes = (a.ddelta ? 5.0 : 4.0) * a.rows * a.width * SizeOf(a.dy.dtype);
    Time("norm backward", 0, bytes, [&] { ops_.NormBackward(a); });
  }
  void Rope(const RopeArgs& a) override {
    Time("rope", 0, 2.0 * a.rows * a.heads * a.head_size * SizeOf(a.x.dtype), [&] { ops_.Rope(a); });
  }
  void AttentionForward(const AttentionArgs& a) override {
    Time(AttentionName("attention forward", a), 2 * AttentionFlops(a), 0, [&] { ops_.AttentionForward(a); });
  }
  void AttentionBackward(const AttentionArgs& a) override {
    Time(AttentionName("attention backward", a), 5 * AttentionFlops(a), 0, [&] { ops_.AttentionBackward(a); });
  }
  void SwiGluForward(const SwiGluArgs& a) override {
    Time("swiglu forward", 0, 3.0 * a.rows * a.hidden * SizeOf(a.y.dtype), [&] { ops_.SwiGluForward(a); });
  }
  void SwiGluBackward(const SwiGluArgs& a) override {
    Time("swiglu backward", 0, 5.0 * a.rows * a.hidden * SizeOf(a.dy.dtype), [&] { ops_.SwiGluBackward(a); });
  }
  void CrossEntropy(const CrossEntropyArgs& a) override {
    Time("cross-entropy", 0, 2.0 * a.rows * a.vocabulary * SizeOf(a.logits.dtype), [&] { ops_.CrossEntropy(a); });
  }
  void ConvertToBf16(const float* from, void* to, int64_t elements) override { ops_.ConvertToBf16(from, to, elements); }

  // counts: whether the unit enters the least times.
  void EndUnit(bool counts) {
    for (auto& [name, row] : rows_) {
      if (counts) row.least_seconds = std::min(row.least_seconds, row.seconds);
      last_calls_[name] = row.calls;
      row.seconds = 0;
      row.calls = 0;
    }
  }
  void PrintTable(double peak, double total_seconds) const;
  double least_total_seconds() const {
    double total = 0;
    for (const auto& [name, row] : rows_) total += row.least_seconds;
    return total;
  }
  double linear_flops() const {
    double total = 0;
    for (const auto& [name, flops] : flops_) total += name.starts_with("linear") ? flops * last_calls_.at(name) : 0;
    return total;
  }

 private:
  static std::string Shape(const char* what, std::vector<int64_t> sizes) {
    std::string name = what;
    char separator = ' ';
    for (int64_t size : sizes) {
      name.append(1, separator).append(std::to_string(size));
      separator = 'x';
    }
    return name;
  }
  static std::string AttentionName(const char* what, const AttentionArgs& a) {
    return Shape(what, {a.batch, a.heads, a.sequence_length, a.head_size});
  }
  // Of one of its products, above the diagonal left out.
  static double AttentionFlops(const AttentionArgs& a) {
    return 1.0 * a.batch * a.heads * a.head_size * a.sequence_length * (a.sequence_length + 1);
  }

  template <typename F>
  void Time(const std::string& name, double flops, double bytes, F f) {
    const Stopwatch stopwatch(one_thread_);
    f();
    Row& row = rows_[name];
    row.seconds += stopwatch.Seconds();
    ++row.calls;
    flops_[name] = flops;
    bytes_[name] = bytes;
  }

  ModelOps& ops_;
  const bool one_thread_;
  std::map<std::string, Row> rows_;
  std::map<std::string, int> last_calls_;
  // Of one call: of matrix products, masked attention left out; read and written at least.
  std::map<std::string, double> flops_, bytes_;
};

void TimedOps::PrintTable(double peak, double total_seconds) const {
  std::vector<std::string> names;
  for (const auto& [name, row] : rows_) names.push_back(name);
  std::sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    return rows_.at(a).least_seconds > rows_.at(b).least_seconds;
  });
  std::printf("%-46s %5s %9s %7s %9s %7s\n", "operation", "calls", "ms", "of unit", "rate", "of peak");
  for (const std::string& name : names) {
    const double seconds = rows_.at(name).least_seconds;
    const int calls = last_calls_.at(name);
    const double flops = flops_.at(name) * calls, bytes = bytes_.at(name) * calls;
    std::printf("%-46s %5d %9.3f %6.1f%% ", name.c_str(), calls, seconds * 1e3, 100 * seconds / total_seconds);
    if (flops > 0) {
      std::printf("%5.0f GF/s %6.1f%%\n", flops / seconds / 1e9, 100 * flops / seconds / peak);
    } else {
      std::printf("%5.1f GB/s\n", bytes / seconds / 1e9);
    }
  }
}

// The CPU backend with its model operations timed.
class TimedBackend : public Backend {
 public:
  explicit TimedBackend(int threads)
      : backend_(CreateCpuBackend(threads)), ops_(backend_->model_ops(), threads == 1) {}
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

// The library's best rate on this many threads: products that stay in each core's cache.
class Peak {
 public:
  Peak(DType dtype, int threads) : dtype_(dtype), pool_(threads), gemm_(threads), scratch_(threads), arrays_(threads) {
    for (cpu::Scratch& array : arrays_) std::fill_n(array.Floats(3 * kSide * kSide), 3 * kSide * kSide, 0.0f);
  }

  // Measures once more; the best so far, in operations per second.
  double Measure() {
    const cpu::GemmPlan& plan = gemm_.Get({.m = kSide, .n = kSide, .k = kSide, .a_row = kSide, .a_column = 1,
                                           .b_row = kSide, .b_column = 1, .c_row = kSide, .input = dtype_});
    scratch_.Reserve(gemm_.scratch_bytes());
    constexpr int kRepeats = 16;
    const Stopwatch stopwatch(pool_.threads() == 1);
    pool_.ParallelFor(pool_.threads(), [&](int64_t task) {
      float* array = static_cast<float*>(arrays_[task].data());
      for (int i = 0; i < kRepeats; ++i) {
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
  if ((name != "small" && name != "gpt2") || (precision != "fp32" && precision != "bf16") || threads < 1 || units < 1) {
    std::fprintf(stderr, "usage: %s [small|gpt2] [fp32|bf16] [threads, at least 1] [units, at least 1]\n", argv[0]);
    return 2;
  }
  accrue::ModelConfig model{.vocabulary = 8192, .context = 256, .layers = 6, .heads = 8, .kv_heads = 8, .width = 256,
                            .hidden = 1024};
  if (name == "gpt2") {
    model = {.vocabulary = 50257, .context = 1024, .layers = 12, .heads = 12, .kv_heads = 12, .width = 768,
             .hidden = 3072};
  }
  return accrue::Run(model, precision == "fp32" ? accrue::DType::kF32 : accrue::DType::kBF16, threads, units);
}
