#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/backend/cpu/norm_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target:
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "worker/backend/cpu/dropout-inl.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace accrue::cpu::HWY_NAMESPACE {
namespace {

// sum = x + dropout(delta), rounded to T; returns the sum over the row of what was stored.
template <typename T>
float AddDelta(const T* x, const T* delta, const float* factors, int64_t width, T* sum) {
  return SumVectors(width, [&](int64_t i, int64_t n) HWY_ATTR {
    VF d = LoadN(delta + i, n);
    if (factors != nullptr) d = hn::Mul(d, LoadN(factors + i, n));
    StoreN(hn::Add(LoadN(x + i, n), d), sum + i, n);
    return LoadN(sum + i, n);
  });
}

template <typename T>
void NormForwardOf(const NormForwardArgs& args, int64_t first, int64_t end, float* scratch) {
  const bool layer_norm = args.kind == NormKind::kLayerNorm;
  const int64_t width = args.width;
  const T* gamma = static_cast<const T*>(args.gamma.data);
  const T* beta = static_cast<const T*>(args.beta.data);
  for (int64_t r = first; r < end; ++r) {
    const T* x = static_cast<const T*>(args.x.data) + r * width;
    float total = 0;
    if (args.delta) {
      const float* factors = nullptr;
      if (args.dropout.probability > 0) factors = DropoutFactors(args.dropout, r * width, width, scratch);
      T* sum = static_cast<T*>(args.sum.data) + r * width;
      total = AddDelta(x, static_cast<const T*>(args.delta.data) + r * width, factors, width, sum);
      x = sum;
    } else if (layer_norm) {
      total = SumVectors(width, [&](int64_t i, int64_t n) HWY_ATTR { return LoadN(x + i, n); });
    }
    const float mean = layer_norm ? total / static_cast<float>(width) : 0.0f;
    const VF mean_vector = hn::Set(DF(), mean);
    const float square = SumVectors(width, [&](int64_t i, int64_t n) HWY_ATTR {
      const VF centred = hn::Sub(LoadN(x + i, n), mean_vector);
      return hn::Mul(centred, centred);
    });
    const float rstd = 1.0f / std::sqrt(square / static_cast<float>(width) + args.epsilon);
    if (layer_norm) args.mean[r] = mean;
    args.rstd[r] = rstd;
    const VF rstd_vector = hn::Set(DF(), rstd);
    T* y = static_cast<T*>(args.y.data) + r * width;
    ForVectors(width, [&](int64_t i, int64_t n) HWY_ATTR {
      const VF normed = hn::Mul(hn::Sub(LoadN(x + i, n), mean_vector), rstd_vector);
      VF value = hn::Mul(normed, LoadN(gamma + i, n));
      if (beta != nullptr) value = hn::Add(value, LoadN(beta + i, n));
      StoreN(value, y + i, n);
    });
  }
}

void NormForwardRows(const NormForwardArgs& args, int64_t first, int64_t end, float* scratch) {
  WithElement(args.y.dtype, [&](auto* type) HWY_ATTR {
    NormForwardOf<std::remove_pointer_t<decltype(type)>>(args, first, end, scratch);
  });
}

// Means over one row of dy gamma and dy gamma normed.
struct RowMeans {
  float scaled = 0;
  float product = 0;
};

template <typename T>
RowMeans MeansOfRow(const NormBackwardArgs& args, const T* x, const T* dy, VF mean, VF rstd) {
  const T* gamma = static_cast<const T*>(args.gamma.data);
  const float width = static_cast<float>(args.width);
  RowMeans means;
  if (args.kind == NormKind::kLayerNorm) {
    means.scaled = SumVectors(args.width, [&](int64_t i, int64_t n) HWY_ATTR {
                     return hn::Mul(LoadN(dy + i, n), LoadN(gamma + i, n));
                   }) / width;
  }
  means.product = SumVectors(args.width, [&](int64_t i, int64_t n) HWY_ATTR {
                    const VF normed = hn::Mul(hn::Sub(LoadN(x + i, n), mean), rstd);
                    return hn::Mul(hn::Mul(LoadN(dy + i, n), LoadN(gamma + i, n)), normed);
                  }) / width;
  return means;
}

template <typename T>
void NormBackwardRow(const NormBackwardArgs& args, int64_t r, bool first_of_block, float* column_sums,
                     const float* factors) {
  const int64_t width = args.width;
  const T* gamma = static_cast<const T*>(args.gamma.data);
  const T* x = static_cast<const T*>(args.x.data) + r * width;
  const T* dy = static_cast<const T*>(args.dy.data) + r * width;
  T* dresidual = static_cast<T*>(args.dresidual.data) + r * width;
  T* ddelta = args.ddelta ? static_cast<T*>(args.ddelta.data) + r * width : nullptr;
  float* dgamma = column_sums;
  float* dbeta = args.dbeta != nullptr ? column_sums + width : nullptr;
  const VF mean = hn::Set(DF(), args.kind == NormKind::kLayerNorm ? args.mean[r] : 0.0f);
  const VF rstd = hn::Set(DF(), args.rstd[r]);
  const RowMeans means = MeansOfRow(args, x, dy, mean, rstd);
  const VF mean_scaled = hn::Set(DF(), means.scaled), mean_product = hn::Set(DF(), means.product);
  ForVectors(width, [&](int64_t i, int64_t n) HWY_ATTR {
    const VF d = LoadN(dy + i, n);
    const VF normed = hn::Mul(hn::Sub(LoadN(x + i, n), mean), rstd);
    const VF weight = hn::Mul(d, normed);
    StoreN(first_of_block ? weight : hn::Add(LoadN(dgamma + i, n), weight), dgamma + i, n);
    if (dbeta != nullptr) StoreN(first_of_block ? d : hn::Add(LoadN(dbeta + i, n), d), dbeta + i, n);
    const VF centred = hn::Sub(hn::Mul(d, LoadN(gamma + i, n)), mean_scaled);
    VF gradient = hn::Mul(hn::NegMulAdd(normed, mean_product, centred), rstd);
    if (!args.first) gradient = hn::Add(LoadN(dresidual + i, n), gradient);
    StoreN(gradient, dresidual + i, n);
    if (ddelta != nullptr) {
      const VF stored = LoadN(dresidual + i, n);
      StoreN(factors != nullptr ? hn::Mul(stored, LoadN(factors + i, n)) : stored, ddelta + i, n);
    }
  });
}

void NormBackwardRows(const NormBackwardArgs& args, int64_t first, int64_t end, float* column_sums, float* scratch) {
  WithElement(args.dy.dtype, [&](auto* type) HWY_ATTR {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t r = first; r < end; ++r) {
      const float* factors = nullptr;
      if (args.ddelta && args.dropout.probability > 0) {
        factors = DropoutFactors(args.dropout, r * args.width, args.width, scratch);
      }
      NormBackwardRow<T>(args, r, r == first, column_sums, factors);
    }
  });
}

void NormBackwardColumns(const NormBackwardArgs& args, int64_t blocks, const float* column_sums, int64_t first,
                         int64_t end) {
  const auto sum_blocks = [&](const float* from, float* to) HWY_ATTR {
    ForVectors(end - first, [&](int64_t i, int64_t n) HWY_ATTR {
      VF total = LoadN(from + first + i, n);
      for (int64_t b = 1; b < blocks; ++b) total = hn::Add(total, LoadN(from + b * 2 * args.width + first + i, n));
      StoreN(total, to + first + i, n);
    });
  };
  sum_blocks(column_sums, args.dgamma);
  if (args.dbeta != nullptr) sum_blocks(column_sums + args.width, args.dbeta);
}

}  // namespace
}  // namespace accrue::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace accrue::cpu {

HWY_EXPORT(NormForwardRows);
HWY_EXPORT(NormBackwardRows);
HWY_EXPORT(NormBackwardColumns);

void NormForwardRows(const NormForwardArgs& args, int64_t first, int64_t end, float* scratch) {
  HWY_DYNAMIC_DISPATCH(NormForwardRows)(args, first, end, scratch);
}
void NormBackwardRows(const NormBackwardArgs& args, int64_t first, int64_t end, float* column_sums, float* scratch) {
  HWY_DYNAMIC_DISPATCH(NormBackwardRows)(args, first, end, column_sums, scratch);
}
void NormBackwardColumns(const NormBackwardArgs& args, int64_t blocks, const float* column_sums, int64_t first,
                         int64_t end) {
  HWY_DYNAMIC_DISPATCH(NormBackwardColumns)(args, blocks, column_sums, first, end);
}

}  // namespace accrue::cpu
#endif
