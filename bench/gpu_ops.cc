// How fast a GPU trains: whole windows of one of two models on random tokens, then a unit's operations one by one, each
// with its rate and its share of what the library's largest product reached in the same run.
//
//   accrue_bench_gpu_ops [small|gpt2] [fp32|bf16|fp16] [micro_batch] [units] [sequence_length]
//
// The second part waits for the device around every operation, so that the sum of its times is more than a unit's.
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bench/timed_ops.h"
#include "common/check.h"
#include "common/philox.h"
#include "worker/accumulate/accumulator.h"
#include "worker/backend/cuda/cuda_backend.h"
#include "worker/model/transformer.h"
#include "worker/optimizer/training_state.h"

namespace accrue {
namespace {

double Now() {
  timespec now;
  ACCRUE_CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Another backend with its model operations timed.
class TimedGpu : public Backend {
 public:
  explicit TimedGpu(Backend& backend)
      : backend_(backend), ops_(backend.model_ops(), [this] {
          backend_.Synchronize();
          return Now();
        }) {}
  std::string DeviceName() const override { return backend_.DeviceName(); }
  std::string NumericClass(DType precision) const override { return backend_.NumericClass(precision); }
  bool Supports(DType precision) const override { return backend_.Supports(precision); }
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> Allocate(size_t size) override { return backend_.Allocate(size); }
  void CopyToHost(void* host, const void* device, size_t size) override { backend_.CopyToHost(host, device, size); }
  void CopyToDevice(void* device, const void* host, size_t size) override {
    backend_.CopyToDevice(device, host, size);
  }
  void Copy(void* to, const void* from, size_t size) override { backend_.Copy(to, from, size); }
  void Zero(void* device, size_t size) override { backend_.Zero(device, size); }
  void Synchronize() override { backend_.Synchronize(); }
  ModelOps& model_ops() override { return ops_; }
  StateOps& state_ops() override { return backend_.state_ops(); }
  TimedOps& timed_ops() { return ops_; }

 private:
  Backend& backend_;
  TimedOps ops_;
};

// Operations per second of a product of 8192 x 8192 x 8192, at best.
double MeasurePeak(Backend& backend, DType precision) {
  constexpr int64_t kSide = 8192;
  const size_t bytes = kSide * kSide * SizeOf(precision);
  const auto x = *backend.Allocate(bytes), weight = *backend.Allocate(bytes), y = *backend.Allocate(bytes);
  double best_seconds = std::numeric_limits<double>::infinity();
  for (int repeat = 0; repeat < 8; ++repeat) {
    backend.Synchronize();
    const double start = Now();
    constexpr int kProducts = 4;
    for (int i = 0; i < kProducts; ++i) {
      backend.model_ops().LinearForward({.rows = kSide, .in = kSide, .out = kSide, .x = {x->data(), precision},
                                         .weight = {weight->data(), precision}, .y = {y->data(), precision}});
    }
    backend.Synchronize();
    best_seconds = std::min(best_seconds, (Now() - start) / kProducts);
  }
  return 2.0 * kSide * kSide * kSide / best_seconds;
}

// Bytes read and written per second by a copy within the device, at best.
double MeasureCopy(Backend& backend) {
  constexpr size_t kBytes = size_t{1} << 30;
  const auto from = *backend.Allocate(kBytes), to = *backend.Allocate(kBytes);
  double best_seconds = std::numeric_limits<double>::infinity();
  for (int repeat = 0; repeat < 8; ++repeat) {
    backend.Synchronize();
    const double start = Now();
    backend.Copy(to->data(), from->data(), kBytes);
    backend.Synchronize();
    best_seconds = std::min(best_seconds, Now() - start);
  }
  return 2.0 * kBytes / best_seconds;
}

class IgnoreGradients : public GradientSink {
 public:
  void Add(int, const float*) override {}
};

struct Options {
  ModelConfig model;
  DType precision;
  int64_t rows, sequence_length;
  int units;
};

std::unique_ptr<Engine> MakeEngine(const Options& options, Backend& backend) {
  auto engine = CreateTransformer({.model = options.model, .precision = options.precision, .rows = options.rows,
                                   .sequence_length = options.sequence_length}, backend);
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", std::string(engine.status().message()).c_str());
    std::exit(1);
  }
  return *std::move(engine);
}

int Run(const Options& options) {
  absl::StatusOr<std::unique_ptr<cuda::CudaBackend>> created = cuda::CreateCudaBackend(0);
  if (!created.ok()) {
    std::fprintf(stderr, "%s\n", std::string(created.status().message()).c_str());
    return 1;
  }
  Backend& backend = **created;
  const int64_t T = options.sequence_length, tokens_of_unit = options.rows * T;
  std::vector<int32_t> tokens(tokens_of_unit), targets(tokens_of_unit);
  for (int64_t i = 0; i < tokens_of_unit; ++i) {
    tokens[i] = static_cast<int32_t>(SplitMix64(i) % options.model.vocabulary);
    targets[i] = static_cast<int32_t>(SplitMix64(~i) % options.model.vocabulary);
  }
  const UnitInput input{.rows = options.rows, .sequence_length = T, .tokens = tokens.data(), .targets = targets.data()};
  const double peak = MeasurePeak(backend, options.precision), copy = MeasureCopy(backend);
  std::printf("%s; %s\n", backend.DeviceName().c_str(), backend.NumericClass(options.precision).c_str());
  std::printf("measured: products %.1f TFLOP/s, copies %.2f TB/s (read and written)\n", peak / 1e12, copy / 1e12);

  std::vector<float> values;
  {
    const std::unique_ptr<Engine> engine = MakeEngine(options, backend);
    const ParameterLayout& layout = engine->layout();
    const auto state = *TrainingState::Create({}, AccumulationMode::kExact, layout, backend);
    const auto accumulator = *Accumulator::Create(AccumulationMode::kExact, layout, backend);
    values.resize(layout.arena_elements());
    engine->InitializeParameters(1, values.data());
    state->Start(values.data());
    engine->BindParameters(state->parameters());
    engine->ParametersChanged();
    const std::vector<int> exponents(layout.tensors().size(), 20);
    state->SetExponents(exponents);
    std::vector<double> window_seconds, step_seconds;
    for (int window = 0; window < 6; ++window) {
      const double start = Now();
      accumulator->Reset(exponents);
      for (int unit = 0; unit < options.units; ++unit) {
        accumulator->BeginUnit(unit);
        ACCRUE_CHECK(engine->ComputeUnit(input, *accumulator).ok());
        accumulator->FinishUnit();
      }
      for (size_t bucket = 0; bucket < layout.buckets().size(); ++bucket) accumulator->MarkFinal(static_cast<int>(bucket));
      const double computed = Now();
      state->Step(*accumulator, {.learning_rate = 1e-4f, .valid_tokens = options.units * tokens_of_unit,
                                 .next_exponents = exponents});
      engine->ParametersChanged();
      backend.Synchronize();
      if (window == 0) continue;  // algorithms are chosen, scratch grows
      window_seconds.push_back(Now() - start);
      step_seconds.push_back(Now() - computed);
    }
    std::sort(window_seconds.begin(), window_seconds.end());
    std::sort(step_seconds.begin(), step_seconds.end());
    const double median = window_seconds[window_seconds.size() / 2];
    const double rate = options.units * static_cast<double>(tokens_of_unit) / median;
    const double flops_of_token = 6.0 * static_cast<double>(layout.parameters()) +
                                  12.0 * static_cast<double>(options.model.layers * options.model.width * T);
    std::printf("windows of %d units of %lld x %lld tokens: %.0f tokens/s (median of %zu), %.1f TFLOP/s, %.1f%% of the "
                "measured rate; the step %.2f ms\n\n",
                options.units, static_cast<long long>(options.rows), static_cast<long long>(T), rate,
                window_seconds.size(), rate * flops_of_token / 1e12, 100 * rate * flops_of_token / peak,
                1e3 * step_seconds[step_seconds.size() / 2]);
  }

  TimedGpu timed(backend);
  const std::unique_ptr<Engine> engine = MakeEngine(options, timed);
  const auto parameters = *backend.Allocate(values.size() * sizeof(float));
  backend.CopyToDevice(parameters->data(), values.data(), values.size() * sizeof(float));
  engine->BindParameters(parameters->as<float>());
  engine->ParametersChanged();
  IgnoreGradients sink;
  for (int unit = 0; unit < 4; ++unit) {
    ACCRUE_CHECK(engine->ComputeUnit(input, sink).ok());
    timed.timed_ops().EndUnit(/*counts=*/unit > 0);
  }
  timed.timed_ops().PrintTable(peak, timed.timed_ops().least_total_seconds());
  return 0;
}

}  // namespace
}  // namespace accrue

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "gpt2", precision = argc > 2 ? argv[2] : "bf16";
  const int rows = argc > 3 ? std::atoi(argv[3]) : 16, units = argc > 4 ? std::atoi(argv[4]) : 8;
  const int sequence_length = argc > 5 ? std::atoi(argv[5]) : 1024;
  const bool known = precision == "fp32" || precision == "bf16" || precision == "fp16";
  if ((name != "small" && name != "gpt2") || !known || rows < 1 || units < 1 ||
      sequence_length < 1) {
    std::fprintf(stderr,
                 "usage: accrue_bench_gpu_ops [small|gpt2] [fp32|bf16|fp16] [micro_batch] [units] [sequence_length]\n");
    return 2;
  }
  const accrue::DType dtype = precision == "fp32"   ? accrue::DType::kF32
                              : precision == "bf16" ? accrue::DType::kBF16
                                                    : accrue::DType::kF16;
  accrue::ModelConfig model{.architecture = accrue::Architecture::kGpt2, .vocabulary = 50257, .context = 1024,
                            .layers = 12, .heads = 12, .kv_heads = 12, .width = 768, .hidden = 3072,
                            .tie_embeddings = true};
  if (name == "small") {
    model.vocabulary = 8192;
    model.layers = 6;
    model.heads = model.kv_heads = 4;
    model.width = 256;
    model.hidden = 1024;
  }
  return accrue::Run({.model = model,
                      .precision = dtype,
                      .rows = rows,
                      .sequence_length = sequence_length,
                      .units = units});
}
