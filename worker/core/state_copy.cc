#include "worker/core/state_copy.h"

#include <algorithm>
#include <type_traits>

namespace accrue {
namespace {

constexpr int64_t kRunChunks = 16;  // 3 MiB of p, m and v
static_assert(std::is_trivially_copyable_v<CopyHeader>);

}  // namespace

std::vector<StateRun> StateRunsOf(const ParameterLayout& layout) {
  std::vector<StateRun> runs;
  for (int tensor = 0; tensor < static_cast<int>(layout.tensors().size()); ++tensor) {
    const int64_t elements = layout.tensors()[tensor].elements;
    for (int64_t first = 0; first < elements; first += kRunChunks * kChunkElements) {
      runs.push_back({tensor, first, std::min(kRunChunks * kChunkElements, elements - first)});
    }
  }
  return runs;
}

int64_t FloatsOf(const StateRun& run, const TrainingState& state) {
  return run.elements * static_cast<int64_t>(state.arrays().size() / state.layout().tensors().size());
}

int64_t LongestRun(const std::vector<StateRun>& runs) {
  int64_t longest = 0;
  for (const StateRun& run : runs) longest = std::max(longest, run.elements);
  return longest;
}

}  // namespace accrue
