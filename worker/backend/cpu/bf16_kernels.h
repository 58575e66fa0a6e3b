// What surrounds matrix products in bf16, where AVX-512 converts binary32 to bf16: arguments are those of
// kernels.h, which calls these for bf16 where HasBf16Dot() says so. docs/numerics.md, section 4, says how
// they differ from fp32's.
#pragma once

#include "worker/backend/cpu/kernels.h"

namespace accrue::cpu {

void GeluForwardBf16(const Tensor& z, const Tensor& y, const Rectangle& where);
void GeluBackwardBf16(const Tensor& z, const Tensor& dx, const Rectangle& where);
void CrossEntropyRowBf16(const CrossEntropyArgs& args, int64_t row);

}  // namespace accrue::cpu
