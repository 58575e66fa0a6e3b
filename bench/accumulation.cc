// How exact is exact? Trains the 6-layer model on a token shard for some windows, then sums the gradients of one
// more window's units in three ways: int64 with per-tensor exponents (exact mode), binary32 in unit order (what
// fast mode does), and binary64, which the other two are compared with.
//
//   accrue_bench_accumulation SHARD.bin [windows, 20] [units, 16] [threads, 2]
//
// Errors are relative to the binary64 sum of the same tensor: of the largest element's magnitude (max) and of the
// L2 norm. "vanished" is the share of elements that are not zero in a unit and round to zero in its int64 form.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/data/dataset.h"
#include "common/exponents.h"
#include "common/file_system.h"
#include "common/schedule.h"
#include "worker/accumulate/accumulator.h"
#include "worker/backend/backend.h"
#include "worker/data/unit_reader.h"
#include "worker/model/transformer.h"
#include "worker/optimizer/training_state.h"

namespace accrue {
namespace {

constexpr int64_t kRows = 4, kSequenceLength = 256;

// Passes gradients on to the accumulator, and sums them by itself too.
class ThreeSums : public GradientSink {
 public:
  ThreeSums(Accumulator& exact, const ParameterLayout& layout) : exact_(exact), layout_(layout) {
    for (const TensorInfo& tensor : layout.tensors()) {
      binary32.emplace_back(tensor.elements, 0.0f);
      binary64.emplace_back(tensor.elements, 0.0);
    }
  }
  void Add(int tensor, const float* gradient) override {
    exact_.Add(tensor, gradient);
    const int64_t elements = layout_.tensors()[tensor].elements;
    for (int64_t i = 0; i < elements; ++i) {
      binary32[tensor][i] += gradient[i];
      binary64[tensor][i] += gradient[i];
    }
  }

  std::vector<std::vector<float>> binary32;
  std::vector<std::vector<double>> binary64;

 private:
  Accumulator& exact_;
  const ParameterLayout& layout_;
};

struct Errors {
  double max = 0, l2 = 0;
};

template <typename ValueAt>
Errors ErrorsOf(const std::vector<double>& reference, ValueAt value_at) {
  double largest = 0, largest_error = 0, squares = 0, error_squares = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double error = std::abs(value_at(i) - reference[i]);
    largest = std::max(largest, std::abs(reference[i]));
    largest_error = std::max(largest_error, error);
    squares += reference[i] * reference[i];
    error_squares += error * error;
  }
  if (largest == 0) return {};
  return {largest_error / largest, std::sqrt(error_squares / squares)};
}

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", std::string(value.status().message()).c_str());
  std::exit(1);
}

int Run(const std::string& shard, int64_t windows, int64_t units, int threads) {
  std::shared_ptr<Backend> backend = CreateCpuBackend(threads);
  const ModelConfig model{.vocabulary = 8192, .context = 256, .layers = 6, .heads = 8, .kv_heads = 8, .width = 256,
                          .hidden = 1024};
  std::unique_ptr<Engine> engine = OrDie(
      CreateTransformer({.model = model, .rows = kRows, .sequence_length = kSequenceLength}, *backend));
  const ParameterLayout& layout = engine->layout();

  std::unique_ptr<Dataset> data = OrDie(Dataset::Open(
      FileSystem::Real(), {{.path = shard}},
      {.sequence_length = kSequenceLength, .order = DataOrder::kShuffled, .seed = 1, .vocabulary = 8192}));
  UnitReader reader(data.get(), nullptr,
                    {.sequences_per_window = units * kRows, .rows = kRows, .sequence_length = kSequenceLength});
  std::unique_ptr<TrainingState> state = OrDie(TrainingState::Create({}, AccumulationMode::kExact, layout, *backend));
  std::unique_ptr<Accumulator> sums = OrDie(Accumulator::Create(AccumulationMode::kExact, layout, *backend));
  std::vector<float> initial(layout.arena_elements());
  engine->InitializeParameters(1, initial.data());
  state->Start(initial.data());
  engine->BindParameters(state->parameters());
  engine->ParametersChanged();

  sums->BeginProbe();
  OrDie(engine->ComputeUnit(reader.Training({0, 0}), *sums));
  std::vector<int> exponents = NextExponents(units, sums->FinishUnit().max_exponents);
  const ScheduleConfig schedule{.warmup_windows = 10, .total_windows = windows + 1};
  for (int64_t window = 0; window <= windows; ++window) {
    const bool last = window == windows;
    std::unique_ptr<ThreeSums> three = last ? std::make_unique<ThreeSums>(*sums, layout) : nullptr;
    GradientSink& sink = last ? static_cast<GradientSink&>(*three) : *sums;
    sums->Reset(exponents);
    std::vector<int> largest;
    int64_t tokens = 0, vanished = 0;
    double loss = 0;
    for (int64_t unit = 0; unit < units; ++unit) {
      sums->BeginUnit(unit);
      const UnitLoss result = OrDie(engine->ComputeUnit(reader.Training({window, unit}), sink));
      const UnitStats stats = sums->FinishUnit();
      MergeMaxExponents(stats.max_exponents, largest);
      tokens += result.valid_tokens;
      loss += result.loss_sum;
      vanished += stats.vanished_elements;
    }
    const bool replay = NeedsReplay(units, largest, exponents);
    if (!last && !replay) {
      for (int bucket = 0; bucket < static_cast<int>(layout.buckets().size()); ++bucket) sums->MarkFinal(bucket);
      const StepScalars scalars = ScalarsOf(schedule, window, state->steps());
      state->Step(*sums, {.learning_rate = std::bit_cast<float>(scalars.learning_rate_bits),
                          .bias_correction1 = std::bit_cast<float>(scalars.bias_correction1_bits),
                          .bias_correction2 = std::bit_cast<float>(scalars.bias_correction2_bits),
                          .valid_tokens = tokens,
                          .next_exponents = NextExponents(units, largest)});
      engine->ParametersChanged();
    }
    exponents = NextExponents(units, largest);
    if (replay) {  // once more, with room
      --window;
      continue;
    }
    if (!last) continue;

    std::printf("%lld parameters, %lld units of %lld tokens, after %lld windows; loss %.4f nats\n\n",
                static_cast<long long>(layout.parameters()), static_cast<long long>(units),
                static_cast<long long>(kRows * kSequenceLength), static_cast<long long>(windows),
                loss / static_cast<double>(tokens));
    std::printf("%-38s %10s %10s %10s %10s\n", "tensor", "max int64", "max fp32", "L2 int64", "L2 fp32");
    int worse = 0;
    Errors worst_exact, worst_fp32;
    for (size_t t = 0; t < layout.tensors().size(); ++t) {
      const int64_t* q = sums->ExactTensor(static_cast<int>(t));
      const int k = sums->exponents()[t];
      const std::vector<double>& reference = three->binary64[t];
      const Errors exact =
          ErrorsOf(reference, [&](size_t i) { return std::ldexp(static_cast<double>(q[i]), -k); });
      const Errors fp32 = ErrorsOf(reference, [&](size_t i) { return static_cast<double>(three->binary32[t][i]); });
      if (exact.max > fp32.max || exact.l2 > fp32.l2) ++worse;
      worst_exact = {std::max(worst_exact.max, exact.max), std::max(worst_exact.l2, exact.l2)};
      worst_fp32 = {std::max(worst_fp32.max, fp32.max), std::max(worst_fp32.l2, fp32.l2)};
      std::printf("%-38s %10.2e %10.2e %10.2e %10.2e\n", layout.tensors()[t].name.c_str(), exact.max, fp32.max,
                  exact.l2, fp32.l2);
    }
    const double elements = static_cast<double>(layout.parameters() * units);
    std::printf("%-38s %10.2e %10.2e %10.2e %10.2e\n\n", "worst of all", worst_exact.max, worst_fp32.max,
                worst_exact.l2, worst_fp32.l2);
    std::printf("tensors whose int64 error is above the fp32 error: %d of %zu\n", worse, layout.tensors().size());
    std::printf("vanished: %.3g of all elements\n", static_cast<double>(vanished) / elements);
  }
  return 0;
}

}  // namespace
}  // namespace accrue

int main(int argc, char** argv) {
  const int64_t windows = argc > 2 ? std::atoll(argv[2]) : 20, units = argc > 3 ? std::atoll(argv[3]) : 16;
  const int threads = argc > 4 ? std::atoi(argv[4]) : 2;
  if (argc < 2 || windows < 0 || units < 1 || threads < 1) {
    std::fprintf(stderr, "usage: %s SHARD.bin [windows] [units] [threads]\n", argv[0]);
    return 2;
  }
  return accrue::Run(argv[1], windows, units, threads);
}
