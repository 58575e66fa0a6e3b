// No memory is taken from the heap while a unit is computed and accumulated: by this code, by the libraries below it, on
// any thread.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <tuple>
#include <vector>

#include "tests/model/model_testing.h"
#include "worker/accumulate/accumulator.h"
#include "worker/backend/backend.h"
#include "worker/model/transformer.h"

// glibc's own; what stands before them counts. Sanitizers have theirs.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ACCRUE_COUNTS_ALLOCATIONS 1
#else
#define ACCRUE_COUNTS_ALLOCATIONS 0
#endif

namespace {

std::atomic<bool> counting{false};
std::atomic<int64_t> allocations{0};

void Count() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

#if ACCRUE_COUNTS_ALLOCATIONS
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* old, size_t size);
void* __libc_memalign(size_t alignment, size_t size);

void* malloc(size_t size) {
  Count();
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  Count();
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  Count();
  return __libc_realloc(old, size);
}
void* memalign(size_t alignment, size_t size) {
  Count();
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  Count();
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, size_t alignment, size_t size) {
  Count();
  *result = __libc_memalign(alignment, size);
  return *result == nullptr ? ENOMEM : 0;
}
}  // extern "C"
#endif

namespace accrue {
namespace {

// Allocations of one unit, from its begin to its stats.
int64_t AllocationsOfUnit(Engine& engine, Accumulator& accumulator, const UnitInput& input) {
  allocations = 0;
  counting = true;
  accumulator.BeginUnit(input.unit);
  const bool computed = engine.ComputeUnit(input, accumulator).ok();
  const UnitStats& stats = accumulator.FinishUnit();
  counting = false;
  EXPECT_TRUE(computed);
  EXPECT_EQ(stats.unit, input.unit);
  return allocations;
}

class UnitAllocation : public testing::TestWithParam<std::tuple<ModelConfig, DType, AccumulationMode>> {};

TEST_P(UnitAllocation, AfterTheFirstUnit_None) {
  if (!ACCRUE_COUNTS_ALLOCATIONS) GTEST_SKIP() << "this build has an allocator of its own";
  auto [model, precision, mode] = GetParam();
  const std::unique_ptr<Backend> backend = CreateCpuBackend(2);
  if (!backend->Supports(precision)) GTEST_SKIP() << "not a precision of this machine";
  model.width = 64;
  model.hidden = 160;
  model.context = 70;
  model.dropout = 0.1;
  const TransformerOptions options{
      .model = model, .precision = precision, .rows = 2, .sequence_length = 70, .seed = 11};
  TestModel test(options, *backend);
  const ParameterLayout& layout = test.engine->layout();
  const std::unique_ptr<Accumulator> accumulator = *Accumulator::Create(mode, layout, *backend);
  const bool exact = mode == AccumulationMode::kExact;
  accumulator->Reset(std::vector<int>(exact ? layout.tensors().size() : 0, 40));
  const TestUnit unit(options, 1, /*masked=*/true);
  // The first one may: threads start, libraries look at the machine.
  AllocationsOfUnit(*test.engine, *accumulator, unit.Input(3, 0));
  EXPECT_EQ(AllocationsOfUnit(*test.engine, *accumulator, unit.Input(3, 1)), 0);
  EXPECT_EQ(AllocationsOfUnit(*test.engine, *accumulator, unit.Input(3, 2)), 0);
}

TEST(AllocationCount, AnAllocation_IsCounted) {
  if (!ACCRUE_COUNTS_ALLOCATIONS) GTEST_SKIP() << "this build has an allocator of its own";
  allocations = 0;
  counting = true;
  void* volatile memory = std::malloc(7);
  auto* volatile object = new int64_t(7);
  counting = false;
  std::free(memory);
  delete object;
  EXPECT_EQ(allocations, 2);
}

INSTANTIATE_TEST_SUITE_P(Models, UnitAllocation,
                         testing::Combine(testing::Values(TinyGpt2(), TinyLlama()),
                                          testing::Values(DType::kF32, DType::kBF16),
                                          testing::Values(AccumulationMode::kExact, AccumulationMode::kFast)));

}  // namespace
}  // namespace accrue
