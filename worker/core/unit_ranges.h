// Units as the fewest ranges, ascending.
//
// Pure function.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "accrue/v1/worker.pb.h"

namespace accrue {

inline void AppendRanges(std::vector<int64_t> units, google::protobuf::RepeatedPtrField<v1::UnitRange>* ranges) {
  std::sort(units.begin(), units.end());
  v1::UnitRange* range = nullptr;
  for (int64_t unit : units) {
    if (range != nullptr && range->first() + range->count() == unit) {
      range->set_count(range->count() + 1);
      continue;
    }
    range = ranges->Add();
    range->set_first(unit);
    range->set_count(1);
  }
}

}  // namespace accrue
