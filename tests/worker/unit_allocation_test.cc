// No memory is taken from the heap while a unit is computed and accumulated, on any thread, but by the GEMM library: it
// allocates some blocks a product for itself, which is not in our hands (see the figures that the test records).
#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
constexpr int64_t kMostRecorded = 1 << 16;
struct Allocation {
  size_t size_bytes;
  void* caller;
} recorded[kMostRecorded];

void Count(size_t size_bytes, void* caller) {
  if (!counting.load(std::memory_order_relaxed)) return;
  const int64_t place = allocations.fetch_add(1, std::memory_order_relaxed);
  if (place < kMostRecorded) recorded[place] = {size_bytes, caller};
}

}  // namespace

#if ACCRUE_COUNTS_ALLOCATIONS
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* old, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* memory);

void* malloc(size_t size) {
  Count(size, __builtin_return_address(0));
  return __libc_malloc(size);
}
void* calloc(size_t count, size_t size) {
  Count(count * size, __builtin_return_address(0));
  return __libc_calloc(count, size);
}
void* realloc(void* old, size_t size) {
  Count(size, __builtin_return_address(0));
  return __libc_realloc(old, size);
}
void* memalign(size_t alignment, size_t size) {
  Count(size, __builtin_return_address(0));
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  Count(size, __builtin_return_address(0));
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, size_t alignment, size_t size) {
  Count(size, __builtin_return_address(0));
  *result = __libc_memalign(alignment, size);
  return *result == nullptr ? ENOMEM : 0;
}
}  // extern "C"

void* operator new(size_t size) {
  Count(size, __builtin_return_address(0));
  if (void* memory = __libc_malloc(size)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept { __libc_free(memory); }
void operator delete(void* memory, size_t) noexcept { __libc_free(memory); }
#endif

namespace accrue {
namespace {

using testing::IsEmpty;

// The file that the code at this address is of.
std::string FileOf(void* address) {
  Dl_info info{};
  return dladdr(address, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "unknown";
}

// Who allocated how often during one unit, from its begin to its stats.
std::map<std::string, int64_t> AllocationsOfUnit(Engine& engine, Accumulator& accumulator, const UnitInput& input) {
  allocations = 0;
  counting = true;
  accumulator.BeginUnit(input.unit);
  const bool computed = engine.ComputeUnit(input, accumulator).ok();
  const UnitStats& stats = accumulator.FinishUnit();
  counting = false;
  EXPECT_TRUE(computed);
  EXPECT_EQ(stats.unit, input.unit);
  EXPECT_LE(allocations, kMostRecorded);
  std::map<std::string, int64_t> by_file;
  for (int64_t i = 0; i < allocations; ++i) ++by_file[FileOf(recorded[i].caller)];
  return by_file;
}

// Without those of the GEMM library, which are recorded.
std::map<std::string, int64_t> OwnAllocations(std::map<std::string, int64_t> by_file) {
  std::erase_if(by_file, [](const auto& entry) {
    const bool is_library = entry.first.find("libdnnl") != std::string::npos;
    if (is_library) testing::Test::RecordProperty("library_allocations", static_cast<int>(entry.second));
    return is_library;
  });
  return by_file;
}

class UnitAllocation
    : public testing::TestWithParam<std::tuple<ModelConfig, DType, AccumulationMode, Recompute>> {};

TEST_P(UnitAllocation, AfterTheFirstUnit_NoneOfOurs) {
  if (!ACCRUE_COUNTS_ALLOCATIONS) GTEST_SKIP() << "this build has an allocator of its own";
  auto [model, precision, mode, recompute] = GetParam();
  const std::unique_ptr<Backend> backend = CreateCpuBackend(2);
  if (!backend->Supports(precision)) GTEST_SKIP() << "not a precision of this machine";
  model.width = 64;
  model.hidden = 160;
  model.context = 70;
  model.dropout = 0.1;
  const TransformerOptions options{.model = model,
                                   .precision = precision,
                                   .rows = 2,
                                   .sequence_length = 70,
                                   .seed = 11,
                                   .recompute = recompute};
  TestModel test(options, *backend);
  const ParameterLayout& layout = test.engine->layout();
  const std::unique_ptr<Accumulator> accumulator = *Accumulator::Create(mode, layout, *backend);
  const bool exact = mode == AccumulationMode::kExact;
  accumulator->Reset(std::vector<int>(exact ? layout.tensors().size() : 0, 40));
  const TestUnit unit(options, 1, /*masked=*/true);
  // The first one may: threads start, libraries look at the machine.
  AllocationsOfUnit(*test.engine, *accumulator, unit.Input(3, 0));
  for (int64_t number : {1, 2}) {
    EXPECT_THAT(OwnAllocations(AllocationsOfUnit(*test.engine, *accumulator, unit.Input(3, number))), IsEmpty());
  }
}

// What the test above would see of ours.
TEST(OwnAllocations, AnAllocation_IsCountedHere) {
  if (!ACCRUE_COUNTS_ALLOCATIONS) GTEST_SKIP() << "this build has an allocator of its own";
  allocations = 0;
  counting = true;
  void* volatile memory = std::malloc(7);
  auto* volatile object = new int64_t(7);
  counting = false;
  std::free(memory);
  delete object;
  EXPECT_EQ(allocations, 2);
  EXPECT_NE(FileOf(recorded[0].caller).find("unit_allocation_test"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Models, UnitAllocation,
                         testing::Combine(testing::Values(TinyGpt2(), TinyLlama()),
                                          testing::Values(DType::kF32, DType::kBF16, DType::kF16),
                                          testing::Values(AccumulationMode::kExact, AccumulationMode::kFast),
                                          testing::Values(Recompute::kNone, Recompute::kBlock)));

}  // namespace
}  // namespace accrue
