// A warp's matrix instructions, and on the CPU the same by lanes: which lane holds which element is the same text,
// tested there. What differs is rounding within a product: the CPU sums a product of 16 in binary64, the device as its
// tensor cores do.
//
// Layout (PTX ISA, mma.m16n8k16 and ldmatrix), for lane = 4 g + t:
//   a[16, 16]  word 0: (g, 2t..2t+1), 1: (g + 8, same), 2: (g, 2t + 8..), 3: (g + 8, 2t + 8..)
//   b[16, 8]   word 0: (2t..2t+1, g), 1: (2t + 8.., g)
//   c[16, 8]   0, 1: (g, 2t..2t+1), 2, 3: (g + 8, 2t..2t+1)
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "worker/backend/cuda/kernels/elements.h"
#include "worker/backend/cuda/kernels/warp.h"

namespace accrue::cuda {

struct Words4 {
  PerLane<uint32_t> at[4];
};

#ifdef __CUDA_ARCH__

ACCRUE_BODY uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// Four 8 x 8 matrices of 16-bit elements out of shared memory; row(lane) is where row lane % 8 of matrix lane / 8
// lies, aligned to 16. Word i of lane 4 g + t: elements 2t, 2t + 1 of row g of matrix i; transposed: of its column g.
template <bool kTransposed, typename F>
ACCRUE_BODY void LoadMatrices(Words4& to, const F& row) {
  const uint32_t address = SharedAddress(row(static_cast<int>(threadIdx.x) % kLanes));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.at[0].value), "=r"(to.at[1].value), "=r"(to.at[2].value), "=r"(to.at[3].value)
                 : "r"(address));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.at[0].value), "=r"(to.at[1].value), "=r"(to.at[2].value), "=r"(to.at[3].value)
                 : "r"(address));
  }
}

// c += a b, of elements T: Bf16 or F16.
template <typename T>
ACCRUE_BODY void MultiplyAdd(PerLane<float> (&c)[4], const Words4& a, const PerLane<uint32_t>& b0,
                             const PerLane<uint32_t>& b1) {
  if constexpr (std::is_same<T, Bf16>::value) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0].value), "+f"(c[1].value), "+f"(c[2].value), "+f"(c[3].value)
        : "r"(a.at[0].value), "r"(a.at[1].value), "r"(a.at[2].value), "r"(a.at[3].value), "r"(b0.value),
          "r"(b1.value));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0].value), "+f"(c[1].value), "+f"(c[2].value), "+f"(c[3].value)
        : "r"(a.at[0].value), "r"(a.at[1].value), "r"(a.at[2].value), "r"(a.at[3].value), "r"(b0.value),
          "r"(b1.value));
  }
}

// Two elements in a word, the first one low, each rounded to nearest even.
template <typename T>
ACCRUE_BODY uint32_t PackPair(float low, float high) {
  uint32_t word;
  if constexpr (std::is_same<T, Bf16>::value) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  }
  return word;
}

// 2^x within 2 ulp; results below 2^-126 are zero.
ACCRUE_BODY float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
ACCRUE_BODY float Log2(float x) { return log2f(x); }

// Lanes see what other lanes of their warp wrote to shared memory before.
ACCRUE_BODY void MeetInWarp() { __syncwarp(); }

// Starts a copy of kBytes (4 or 16) from device to shared memory, both aligned to them; zeros where not valid.
template <int kBytes>
ACCRUE_BODY void StartCopy(void* shared, const void* device, bool valid) {
  const int size = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)), "l"(device), "r"(size)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(SharedAddress(shared)), "l"(device), "r"(size)
                 : "memory");
  }
}

#else

template <bool kTransposed, typename F>
ACCRUE_BODY void LoadMatrices(Words4& to, const F& row) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    for (int lane = 0; lane < kLanes; ++lane) {
      uint32_t word = 0;
      for (int i = 0; i < 2; ++i) {
        const int from_row = kTransposed ? lane % 4 * 2 + i : lane / 4;
        const int column = kTransposed ? lane / 4 : lane % 4 * 2 + i;
        word |= static_cast<uint32_t>(row(matrix * 8 + from_row)[column].bits) << (16 * i);
      }
      to.at[matrix][lane] = word;
    }
  }
}

template <typename T>
ACCRUE_BODY double HalfOf(uint32_t word, int i) {
  return ToFloat(T{static_cast<uint16_t>(i == 0 ? word : word >> 16)});
}

template <typename T>
ACCRUE_BODY void MultiplyAdd(PerLane<float> (&c)[4], const Words4& a, const PerLane<uint32_t>& b0,
                             const PerLane<uint32_t>& b1) {
  double left[16][16], right[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 2; ++i) {
      for (int word = 0; word < 4; ++word) {
        left[g + word % 2 * 8][2 * t + i + word / 2 * 8] = HalfOf<T>(a.at[word][lane], i);
      }
      right[2 * t + i][g] = HalfOf<T>(b0[lane], i);
      right[2 * t + i + 8][g] = HalfOf<T>(b1[lane], i);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      double sum = c[i][lane];
      for (int k = 0; k < 16; ++k) sum += left[row][k] * right[k][column];
      c[i][lane] = static_cast<float>(sum);
    }
  }
}

template <typename T>
ACCRUE_BODY uint32_t PackPair(float low, float high) {
  return FromFloat<T>(low).bits | static_cast<uint32_t>(FromFloat<T>(high).bits) << 16;
}

ACCRUE_BODY float Exp2(float x) { return x < -126.0f ? 0.0f : std::exp2(x); }
ACCRUE_BODY float Log2(float x) { return std::log2(x); }

ACCRUE_BODY void MeetInWarp() {}

template <int kBytes>
ACCRUE_BODY void StartCopy(void* shared, const void* device, bool valid) {
  if (valid) {
    __builtin_memcpy(shared, device, kBytes);
  } else {
    __builtin_memset(shared, 0, kBytes);
  }
}

#endif

}  // namespace accrue::cuda
