// What a job computes in: the job file's `precision`. docs/numerics.md, sections 4 and 12.
#pragma once

#include <cstdint>
#include <string>

#include "common/check.h"

namespace accrue {

enum class Precision {
  kFp32,
  kTf32,  // stored as fp32; products of linear layers read 10 bits of a fraction. GPUs alone
  kBf16,
  kFp16,  // with a loss scale (common/loss_scale.h)
};
inline constexpr Precision kPrecisions[] = {Precision::kFp32, Precision::kTf32, Precision::kBf16, Precision::kFp16};

// As the job file and a numeric class spell it.
inline const char* PrecisionName(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "fp32";
    case Precision::kTf32:
      return "tf32";
    case Precision::kBf16:
      return "bf16";
    case Precision::kFp16:
      return "fp16";
  }
  ACCRUE_CHECK(false && "a precision that is none");
  return "";
}

// The inverse, of a valid spec's word; fp32 where there is none.
inline Precision PrecisionOf(const std::string& name) {
  if (name.empty()) return Precision::kFp32;
  for (Precision precision : kPrecisions) {
    if (name == PrecisionName(precision)) return precision;
  }
  ACCRUE_CHECK(false && "a precision that no job file has");
  return Precision::kFp32;
}

}  // namespace accrue
