// Matrix products in bf16 by the processor's matrix tiles (Intel AMX). docs/numerics.md, section 4, has their
// order of sums, which is a function of K alone: an output may be cut into tiles in any way.
#pragma once

#include <cstdint>

#include "worker/backend/cpu/bf16.h"
#include "worker/backend/model_ops.h"

namespace accrue::cpu {

// Whether this process may use the processor's tiles for bf16: asks the system for them when first called.
bool HasAmx();
// Whether they are used where they are there, which is so at first: for tests of what is used elsewhere.
void UseAmxForTest(bool use);

// c[m, n] = a[m, k] b[k, n], plus c where accumulate is set, plus bias[n] if given. Element (i, j) of a is at
// i * a_row + j * a_column, one of which is 1; b likewise; c's columns are contiguous.
struct AmxTileArgs {
  int64_t m = 0, n = 0, k = 0;
  const Bf16* a = nullptr;
  int64_t a_row = 0, a_column = 0;
  const Bf16* b = nullptr;
  int64_t b_row = 0, b_column = 0;
  Tensor c;
  int64_t c_row = 0;
  Tensor bias;
  bool accumulate = false;
};
// scratch: AmxTileScratch bytes, aligned to 64.
void AmxTile(const AmxTileArgs& args, void* scratch);
int64_t AmxTileScratch(const AmxTileArgs& args);  // its sizes, strides and c's type count

}  // namespace accrue::cpu
