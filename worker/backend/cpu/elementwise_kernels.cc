#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/backend/cpu/elementwise_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target:
#include <algorithm>
#include <type_traits>

#include "hwy/cache_control.h"
#include "worker/backend/cpu/amx.h"
#include "worker/backend/cpu/bf16_kernels.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace accrue::cpu::HWY_NAMESPACE {
namespace {

// With u = sqrt(2 / pi) (z + 0.044715 z^3): gelu_tanh(z) = z (1 + tanh u) / 2 = z sigmoid(2u).
constexpr float kGelu1 = 1.5957691216057308f;              // 2 sqrt(2 / pi)
constexpr float kGelu3 = 1.5957691216057308f * 0.044715f;  // its cubic term
constexpr float kGelu3Slope = 3 * kGelu3;

VF GeluSigmoid(VF z, VF z_squared) {
  const VF slope = hn::MulAdd(z_squared, hn::Set(DF(), kGelu3), hn::Set(DF(), kGelu1));
  return Sigmoid(hn::Mul(z, slope));
}

VF Gelu(VF z) { return hn::Mul(z, GeluSigmoid(z, hn::Mul(z, z))); }

// s + z s (1 - s) d(2u)/dz
VF GeluSlope(VF z) {
  const VF z_squared = hn::Mul(z, z);
  const VF s = GeluSigmoid(z, z_squared);
  const VF slope = hn::MulAdd(z_squared, hn::Set(DF(), kGelu3Slope), hn::Set(DF(), kGelu1));
  return hn::MulAdd(hn::Mul(z, hn::NegMulAdd(s, s, s)), slope, s);
}

bool HasWideRegisters() { return HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3; }

const char* InstructionSetName() {
#if HWY_TARGET == HWY_AVX3
  return "avx512";
#elif HWY_TARGET == HWY_AVX2
  return "avx2";
#elif HWY_TARGET == HWY_SSE4
  return "sse4";
#elif HWY_TARGET == HWY_SCALAR
  return "portable";
#else
  return hwy::TargetName(HWY_TARGET);  // a class of its own: later Highways know processors one by one
#endif
}

// A rectangle's rows are too short for the processor to foresee the next: it is fetched this many rows ahead.
constexpr int64_t kRowsAhead = 2;

template <typename T, typename F>
void ForRectangle(const Tensor& from, const Tensor& to, const Rectangle& where, F f) {
  for (int64_t r = 0; r < where.rows; ++r) {
    const int64_t start = (where.first_row + r) * where.stride + where.first_column;
    const T* in = static_cast<const T*>(from.data) + start;
    T* out = static_cast<T*>(to.data) + start;
    const int64_t ahead = r + kRowsAhead < where.rows ? kRowsAhead * where.stride : 0;
    ForVectors(where.columns, [&](int64_t i, int64_t n) HWY_ATTR {
      hwy::Prefetch(in + i + ahead);
      hwy::Prefetch(out + i + ahead);
      f(in + i, out + i, n);
    });
  }
}

void GeluForward(const Tensor& z, const Tensor& y, const Rectangle& where) {
  WithElement(y.dtype, [&](auto* type) HWY_ATTR {
    using T = std::remove_pointer_t<decltype(type)>;
    ForRectangle<T>(z, y, where, [](const T* in, T* out, int64_t n) HWY_ATTR { StoreN(Gelu(LoadN(in, n)), out, n); });
  });
}

void GeluBackward(const Tensor& z, const Tensor& dx, const Rectangle& where) {
  WithElement(dx.dtype, [&](auto* type) HWY_ATTR {
    using T = std::remove_pointer_t<decltype(type)>;
    ForRectangle<T>(z, dx, where, [](const T* in, T* out, int64_t n) HWY_ATTR {
      StoreN(hn::Mul(LoadN(out, n), GeluSlope(LoadN(in, n))), out, n);
    });
  });
}

// kVectors vectors of columns at once, the last of them `count` columns wide: a row's part is read in one go.
template <int kVectors, typename T>
void SumColumns(const T* matrix, int64_t rows, int64_t stride, int64_t count, float* sums) {
  const auto load = [&](int64_t r, int j) HWY_ATTR {
    return LoadN(matrix + r * stride + j * kLanes, j == kVectors - 1 ? count : kLanes);
  };
  VF total[kVectors], sum[kVectors];
  for (int64_t block = 0; block < rows; block += kColumnBlockRows) {
    const int64_t block_end = std::min(block + kColumnBlockRows, rows);
    for (int j = 0; j < kVectors; ++j) sum[j] = load(block, j);
    for (int64_t r = block + 1; r < block_end; ++r) {
      const int64_t ahead = std::min(r + 4 * kRowsAhead, rows - 1);
      for (int j = 0; j < kVectors; ++j) {
        hwy::Prefetch(matrix + ahead * stride + j * kLanes);
        sum[j] = hn::Add(sum[j], load(r, j));
      }
    }
    for (int j = 0; j < kVectors; ++j) total[j] = block == 0 ? sum[j] : hn::Add(total[j], sum[j]);
  }
  for (int j = 0; j < kVectors; ++j) StoreN(total[j], sums + j * kLanes, j == kVectors - 1 ? count : kLanes);
}

template <typename T>
void ColumnSumsOf(const T* matrix, const Rectangle& where, float* sums) {
  constexpr int kTogether = 4;
  const T* from = matrix + where.first_row * where.stride + where.first_column;
  sums += where.first_column;
  int64_t i = 0;
  for (; i + kTogether * kLanes <= where.columns; i += kTogether * kLanes) {
    SumColumns<kTogether>(from + i, where.rows, where.stride, kLanes, sums + i);
  }
  for (; i < where.columns; i += kLanes) {
    SumColumns<1>(from + i, where.rows, where.stride, std::min(kLanes, where.columns - i), sums + i);
  }
}

void ColumnSums(const Tensor& matrix, const Rectangle& where, float* sums) {
  WithElement(matrix.dtype, [&](auto* type) HWY_ATTR {
    using T = std::remove_pointer_t<decltype(type)>;
    ColumnSumsOf(static_cast<const T*>(matrix.data), where, sums);
  });
}

template <typename T>
void RopeRowsOf(const RopeArgs& args, int64_t first, int64_t end) {
  const int64_t half = args.head_size / 2;
  for (int64_t r = first; r < end; ++r) {
    const float* cosine = args.cosine + r % args.sequence_length * half;
    const float* sine = args.sine + r % args.sequence_length * half;
    for (int64_t h = 0; h < args.heads; ++h) {
      T* x = static_cast<T*>(args.x.data) + r * args.stride + h * args.head_size;
      ForVectors(half, [&](int64_t i, int64_t n) HWY_ATTR {
        const VF c = LoadN(cosine + i, n), s = LoadN(sine + i, n);
        const VF sign = args.inverse ? hn::Neg(s) : s;
        const VF a = LoadN(x + i, n), b = LoadN(x + half + i, n);
        StoreN(hn::NegMulAdd(b, sign, hn::Mul(a, c)), x + i, n);
        StoreN(hn::MulAdd(a, sign, hn::Mul(b, c)), x + half + i, n);
      });
    }
  }
}

void RopeRows(const RopeArgs& args, int64_t first, int64_t end) {
  WithElement(args.x.dtype, [&](auto* type) HWY_ATTR {
    RopeRowsOf<std::remove_pointer_t<decltype(type)>>(args, first, end);
  });
}

template <typename T>
void SwiGluForwardOf(const SwiGluArgs& args, int64_t first, int64_t end) {
  for (int64_t r = first; r < end; ++r) {
    const T* gate = static_cast<const T*>(args.gate.data) + r * args.gate_stride;
    const T* up = static_cast<const T*>(args.up.data) + r * args.gate_stride;
    T* y = static_cast<T*>(args.y.data) + r * args.hidden;
    ForVectors(args.hidden, [&](int64_t i, int64_t n) HWY_ATTR {
      const VF g = LoadN(gate + i, n);
      StoreN(hn::Mul(hn::Mul(g, Sigmoid(g)), LoadN(up + i, n)), y + i, n);
    });
  }
}

void SwiGluForwardRows(const SwiGluArgs& args, int64_t first, int64_t end) {
  WithElement(args.y.dtype, [&](auto* type) HWY_ATTR {
    SwiGluForwardOf<std::remove_pointer_t<decltype(type)>>(args, first, end);
  });
}

template <typename T>
void SwiGluBackwardOf(const SwiGluArgs& args, int64_t first, int64_t end) {
  const VF one = hn::Set(DF(), 1.0f);
  for (int64_t r = first; r < end; ++r) {
    const T* gate = static_cast<const T*>(args.gate.data) + r * args.gate_stride;
    const T* up = static_cast<const T*>(args.up.data) + r * args.gate_stride;
    const T* dy = static_cast<const T*>(args.dy.data) + r * args.hidden;
    T* dgate = static_cast<T*>(args.dgate.data) + r * args.gate_stride;
    T* dup = static_cast<T*>(args.dup.data) + r * args.gate_stride;
    ForVectors(args.hidden, [&](int64_t i, int64_t n) HWY_ATTR {
      const VF g = LoadN(gate + i, n), u = LoadN(up + i, n), d = LoadN(dy + i, n);
      const VF s = Sigmoid(g);
      // d silu(g) / dg = s (1 + g (1 - s))
      const VF slope = hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));
      StoreN(hn::Mul(hn::Mul(d, u), slope), dgate + i, n);
      StoreN(hn::Mul(d, hn::Mul(g, s)), dup + i, n);
    });
  }
}

void SwiGluBackwardRows(const SwiGluArgs& args, int64_t first, int64_t end) {
  WithElement(args.dy.dtype, [&](auto* type) HWY_ATTR {
    SwiGluBackwardOf<std::remove_pointer_t<decltype(type)>>(args, first, end);
  });
}

void ConvertElements(const Tensor& from, const Tensor& to, int64_t first, int64_t elements) {
  WithElement(from.dtype, [&](auto* from_type) HWY_ATTR {
    WithElement(to.dtype, [&](auto* to_type) HWY_ATTR {
      const auto* in = static_cast<decltype(from_type)>(from.data) + first;
      auto* out = static_cast<decltype(to_type)>(to.data) + first;
      ForVectors(elements, [&](int64_t i, int64_t n) HWY_ATTR { StoreN(LoadN(in + i, n), out + i, n); });
    });
  });
}

}  // namespace
}  // namespace accrue::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace accrue::cpu {

HWY_EXPORT(InstructionSetName);
HWY_EXPORT(HasWideRegisters);
HWY_EXPORT(GeluForward);
HWY_EXPORT(GeluBackward);
HWY_EXPORT(ColumnSums);
HWY_EXPORT(RopeRows);
HWY_EXPORT(SwiGluForwardRows);
HWY_EXPORT(SwiGluBackwardRows);
HWY_EXPORT(ConvertElements);

bool HasBf16Dot() {
#if HWY_ARCH_X86_64
  static const bool in_processor = __builtin_cpu_supports("avx512bf16") != 0;
  // The system's support of such registers is what Highway looks at.
  return in_processor && HWY_DYNAMIC_DISPATCH(HasWideRegisters)();
#else
  return false;
#endif
}
const char* KernelInstructionSet(DType precision) {
  if (precision == DType::kBF16 && HasAmx()) return "avx512_amx";
  if (precision == DType::kBF16 && HasBf16Dot()) return "avx512_bf16";
  return HWY_DYNAMIC_DISPATCH(InstructionSetName)();
}
void GeluForward(const Tensor& z, const Tensor& y, const Rectangle& where) {
  if (y.dtype == DType::kBF16 && HasBf16Dot()) return GeluForwardBf16(z, y, where);
  HWY_DYNAMIC_DISPATCH(GeluForward)(z, y, where);
}
void GeluBackward(const Tensor& z, const Tensor& dx, const Rectangle& where) {
  if (dx.dtype == DType::kBF16 && HasBf16Dot()) return GeluBackwardBf16(z, dx, where);
  HWY_DYNAMIC_DISPATCH(GeluBackward)(z, dx, where);
}
void ColumnSums(const Tensor& matrix, const Rectangle& where, float* sums) {
  HWY_DYNAMIC_DISPATCH(ColumnSums)(matrix, where, sums);
}
void RopeRows(const RopeArgs& args, int64_t first, int64_t end) {
  HWY_DYNAMIC_DISPATCH(RopeRows)(args, first, end);
}
void SwiGluForwardRows(const SwiGluArgs& args, int64_t first, int64_t end) {
  HWY_DYNAMIC_DISPATCH(SwiGluForwardRows)(args, first, end);
}
void SwiGluBackwardRows(const SwiGluArgs& args, int64_t first, int64_t end) {
  HWY_DYNAMIC_DISPATCH(SwiGluBackwardRows)(args, first, end);
}
void ConvertElements(const Tensor& from, const Tensor& to, int64_t first, int64_t elements) {
  HWY_DYNAMIC_DISPATCH(ConvertElements)(from, to, first, elements);
}

}  // namespace accrue::cpu
#endif
