// Windows without a coordinator: what training with a plain all-reduce per window costs, to compare a fleet of
// accrue-worker --synthetic with. Each worker is a thread with its own sockets.
//
//   accrue_bench_plain_loop WORKERS UNITS_EACH MILLISECONDS[,PARAMETERS] WINDOWS
//
// Prints "WINDOW SECONDS" a line: from one step's end to the next, of the slowest worker, windows after the first. What a
// window does here: units, all-reduce of every bucket, step. What it does not: plans, reports, seals, votes, commits, the
// journal, checksums and parameter hashes.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "common/check.h"
#include "common/clock.h"
#include "worker/accumulate/accumulator.h"
#include "worker/backend/backend.h"
#include "worker/collective/gloo_collective.h"
#include "worker/collective/testing/memory_rendezvous.h"
#include "worker/optimizer/training_state.h"
#include "worker/synthetic/synthetic_engine.h"

namespace accrue {
namespace {

constexpr int64_t kDeadlineMs = 60'000;
constexpr int kExponent = 40;  // leaves room for the gradients of any window here
constexpr int64_t kTokens = 32;

struct Plan {
  int workers = 1;
  int64_t units_each = 1;
  SyntheticOptions synthetic;
  int64_t windows = 1;
};

// All buckets' sums, in place.
void Reduce(Communicator& communicator, Accumulator& accumulator, const ParameterLayout& layout,
            std::vector<int64_t>& staging) {
  for (int bucket = 0; bucket < static_cast<int>(layout.buckets().size()); ++bucket) {
    const int64_t elements = layout.buckets()[bucket].elements;
    ACCRUE_CHECK(communicator.AllReduce(accumulator.ExactBucket(bucket), staging.data(), elements).ok());
    std::copy_n(staging.data(), elements, accumulator.ExactBucket(bucket));
    accumulator.MarkFinal(bucket);
  }
}

// When each of its windows ended.
std::vector<int64_t> RunWorker(const Plan& plan, int rank, RendezvousStore* rendezvous) {
  const Clock& clock = Clock::Real();
  const std::unique_ptr<Backend> backend = CreateCpuBackend(1);
  const std::unique_ptr<Engine> engine = *CreateSyntheticEngine(plan.synthetic, clock);
  const ParameterLayout& layout = engine->layout();
  const auto accumulator = *Accumulator::Create(AccumulationMode::kExact, layout, *backend);
  const auto state = *TrainingState::Create({}, AccumulationMode::kExact, layout, *backend);
  std::vector<float> values(layout.arena_elements());
  engine->InitializeParameters(0, values.data());
  state->Start(values.data());
  engine->BindParameters(state->parameters());
  const auto factory = *CreateGlooFactory({.bind_address = "127.0.0.1"}, rendezvous);
  const auto communicator = *factory->Form("plain", rank, plan.workers, kDeadlineMs);
  int64_t largest = 0;
  for (const Bucket& bucket : layout.buckets()) largest = std::max(largest, bucket.elements);
  std::vector<int64_t> staging(static_cast<size_t>(largest));
  const std::vector<int32_t> tokens(kTokens, 1);
  const std::vector<int> exponents(layout.tensors().size(), kExponent);

  std::vector<int64_t> ends_ns;
  for (int64_t window = 0; window < plan.windows; ++window) {
    accumulator->Reset(exponents);
    for (int64_t i = 0; i < plan.units_each; ++i) {
      const int64_t unit = rank * plan.units_each + i;
      accumulator->BeginUnit(unit);
      ACCRUE_CHECK(engine->ComputeUnit({.rows = 1, .sequence_length = kTokens, .tokens = tokens.data(),
                                        .targets = tokens.data(), .window = window, .unit = unit},
                                       *accumulator).ok());
      accumulator->FinishUnit();
    }
    Reduce(*communicator, *accumulator, layout, staging);
    state->Step(*accumulator, {.learning_rate = 1e-3f,
                               .valid_tokens = plan.workers * plan.units_each * kTokens,
                               .next_exponents = exponents});
    engine->ParametersChanged();
    ends_ns.push_back(clock.SteadyNowNs());
  }
  return ends_ns;
}

int Run(const Plan& plan) {
  MemoryRendezvous rendezvous;
  std::vector<std::vector<int64_t>> ends_ns(plan.workers);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < plan.workers; ++rank) {
    threads.emplace_back([&, rank] { ends_ns[rank] = RunWorker(plan, rank, &rendezvous); });
  }
  for (std::thread& thread : threads) thread.join();
  int64_t before_ns = 0;
  for (int64_t window = 0; window < plan.windows; ++window) {
    int64_t end_ns = 0;
    for (const auto& ends : ends_ns) end_ns = std::max(end_ns, ends[window]);
    if (window > 0) std::printf("%ld %.9f\n", static_cast<long>(window), static_cast<double>(end_ns - before_ns) * 1e-9);
    before_ns = end_ns;
  }
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace accrue

int main(int argc, char** argv) {
  accrue::Plan plan;
  absl::StatusOr<accrue::SyntheticOptions> synthetic = absl::InvalidArgumentError("no arguments");
  if (argc == 5) {
    plan.workers = std::atoi(argv[1]);
    plan.units_each = std::atoll(argv[2]);
    synthetic = accrue::ParseSynthetic(argv[3]);
    plan.windows = std::atoll(argv[4]);
  }
  if (!synthetic.ok() || plan.workers < 1 || plan.units_each < 1 || plan.windows < 2) {
    std::fprintf(stderr, "usage: %s WORKERS UNITS_EACH MILLISECONDS[,PARAMETERS] WINDOWS (%s)\n", argv[0],
                 std::string(synthetic.status().message()).c_str());
    return 2;
  }
  plan.synthetic = *synthetic;
  return accrue::Run(plan);
}
