// Several elements in one memory transaction where the addresses allow it, with the same result where they do
// not.
#pragma once

#include <cstdint>

#include "worker/backend/cuda/kernels/body.h"

namespace accrue::cuda {

ACCRUE_BODY bool IsAligned(const void* pointer, int bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

// kBytes from `from` to `to`, which are aligned to kFromAlignment and kToAlignment.
template <int kBytes, int kFromAlignment, int kToAlignment = 1>
ACCRUE_BODY void CopyAligned(void* to, const void* from) {
  __builtin_memcpy(__builtin_assume_aligned(to, kToAlignment), __builtin_assume_aligned(from, kFromAlignment),
                   kBytes);
}

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount <= 16 ? sizeof(T) * kCount : 16) Pack {
  T at[kCount];
};

// kCount elements; `aligned` says that every pack of this array lies at a multiple of its own alignment.
// One transaction for 16 bytes; a longer pack is moved in several, each between registers and memory.
template <int kCount, typename T>
ACCRUE_BODY Pack<T, kCount> Load(const T* from, bool aligned) {
  using P = Pack<T, kCount>;
  constexpr int kPart = alignof(P) / sizeof(T);
  P pack;
  if (aligned) {
    ACCRUE_UNROLL
    for (int i = 0; i < kCount; i += kPart) {
      Pack<T, kPart> part;
      CopyAligned<sizeof(part), alignof(P), alignof(P)>(&part, from + i);
      ACCRUE_UNROLL
      for (int n = 0; n < kPart; ++n) pack.at[i + n] = part.at[n];
    }
  } else {
    ACCRUE_UNROLL
    for (int i = 0; i < kCount; ++i) pack.at[i] = from[i];
  }
  return pack;
}

template <int kCount, typename T>
ACCRUE_BODY void Store(T* to, const Pack<T, kCount>& pack, bool aligned) {
  using P = Pack<T, kCount>;
  constexpr int kPart = alignof(P) / sizeof(T);
  if (aligned) {
    ACCRUE_UNROLL
    for (int i = 0; i < kCount; i += kPart) {
      Pack<T, kPart> part;
      ACCRUE_UNROLL
      for (int n = 0; n < kPart; ++n) part.at[n] = pack.at[i + n];
      CopyAligned<sizeof(part), alignof(P), alignof(P)>(to + i, &part);
    }
  } else {
    ACCRUE_UNROLL
    for (int i = 0; i < kCount; ++i) to[i] = pack.at[i];
  }
}

template <int kCount, typename T>
ACCRUE_BODY bool PacksAligned(const T* array) {
  return IsAligned(array, alignof(Pack<T, kCount>));
}

}  // namespace accrue::cuda
