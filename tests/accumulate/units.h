// Made-up units for tests: gradients that are a function of (unit, tensor, element), and what windows do with
// them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/philox.h"
#include "worker/accumulate/accumulator.h"
#include "worker/engine/layout.h"

namespace accrue {

// About normal values of scale 2^-tensor; every 16th is far smaller, every 17th zero.
inline std::vector<float> UnitGradient(const ParameterLayout& layout, int64_t unit, int tensor) {
  std::vector<float> gradient(layout.tensors()[tensor].elements);
  for (size_t i = 0; i < gradient.size(); ++i) {
    const PhiloxBlock random = Philox4x32(
        {static_cast<uint32_t>(i), static_cast<uint32_t>(unit), static_cast<uint32_t>(tensor), 0}, 77);
    double sum = -2;
    for (uint32_t word : random) sum += word * 0x1p-32;
    if (i % 16 == 3) sum = std::ldexp(sum, -30);
    if (i % 17 == 5) sum = 0;
    gradient[i] = static_cast<float>(std::ldexp(sum, -tensor));
  }
  return gradient;
}

inline UnitStats AddUnit(Accumulator& accumulator, const ParameterLayout& layout, int64_t unit) {
  accumulator.BeginUnit(unit);
  for (size_t t = 0; t < layout.tensors().size(); ++t) {
    accumulator.Add(static_cast<int>(t), UnitGradient(layout, unit, static_cast<int>(t)).data());
  }
  return accumulator.FinishUnit();
}

// A unit with these gradients, one list per tensor.
inline UnitStats AddValues(Accumulator& accumulator, const ParameterLayout& layout, int64_t unit,
                           const std::vector<std::vector<float>>& gradients) {
  accumulator.BeginUnit(unit);
  for (size_t t = 0; t < layout.tensors().size(); ++t)
    accumulator.Add(static_cast<int>(t), gradients[t].data());
  return accumulator.FinishUnit();
}

// Sums members' buckets as an int64 all-reduce does, into the first member, and declares them final.
inline void ReduceExact(const std::vector<Accumulator*>& members, const ParameterLayout& layout) {
  for (size_t b = 0; b < layout.buckets().size(); ++b) {
    const int bucket = static_cast<int>(b);
    int64_t* sums = members[0]->ExactBucket(bucket);
    for (size_t member = 1; member < members.size(); ++member) {
      const int64_t* theirs = members[member]->ExactBucket(bucket);
      for (int64_t i = 0; i < layout.buckets()[b].elements; ++i) {
        sums[i] = static_cast<int64_t>(static_cast<uint64_t>(sums[i]) + static_cast<uint64_t>(theirs[i]));
      }
    }
    members[0]->MarkFinal(bucket);
  }
}

}  // namespace accrue
