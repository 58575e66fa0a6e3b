#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "worker/backend/cpu/embedding_kernels.cc"
#include "hwy/foreach_target.h"
// After foreach_target:
#include <algorithm>
#include <type_traits>

#include "worker/backend/cpu/dropout-inl.h"
#include "worker/backend/cpu/kernels.h"
#include "worker/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace accrue::cpu::HWY_NAMESPACE {
namespace {

// dropout's factors of columns [first, end) of a row, or null when it is off.
const float* FactorsOf(const Dropout& dropout, int64_t row, int64_t width, int64_t first, int64_t end,
                       float* scratch) {
  if (dropout.probability <= 0) return nullptr;
  return DropoutFactors(dropout, row * width + first, end - first, scratch);
}

template <typename T>
void EmbeddingForwardOf(const EmbeddingForwardArgs& args, int64_t first, int64_t end, float* scratch) {
  const int64_t width = args.width;
  for (int64_t r = first; r < end; ++r) {
    const T* token = static_cast<const T*>(args.token_table.data) + args.tokens[r] * width;
    const T* position = static_cast<const T*>(args.position_table.data);
    if (position != nullptr) position += r % args.sequence_length * width;
    const float* factors = FactorsOf(args.dropout, r, width, 0, width, scratch);
    T* y = static_cast<T*>(args.y.data) + r * width;
    ForVectors(width, [&](int64_t i, int64_t n) HWY_ATTR {
      VF value = LoadN(token + i, n);
      if (position != nullptr) value = hn::Add(value, LoadN(position + i, n));
      if (factors != nullptr) value = hn::Mul(value, LoadN(factors + i, n));
      StoreN(value, y + i, n);
    });
  }
}

void EmbeddingForwardRows(const EmbeddingForwardArgs& args, int64_t first, int64_t end, float* scratch) {
  WithElement(args.y.dtype, [&](auto* type) HWY_ATTR {
    EmbeddingForwardOf<std::remove_pointer_t<decltype(type)>>(args, first, end, scratch);
  });
}

// to[i] += dy[i] * factors[i]
template <typename T>
void AddRow(const T* dy, const float* factors, int64_t count, float* to) {
  ForVectors(count, [&](int64_t i, int64_t n) HWY_ATTR {
    VF d = LoadN(dy + i, n);
    if (factors != nullptr) d = hn::Mul(d, LoadN(factors + i, n));
    StoreN(hn::Add(LoadN(to + i, n), d), to + i, n);
  });
}

void EmbeddingBackwardTokens(const EmbeddingBackwardArgs& args, int64_t first, int64_t end, float* scratch) {
  WithElement(args.dy.dtype, [&](auto* type) HWY_ATTR {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t r = 0; r < args.rows; ++r) {
      const float* factors = FactorsOf(args.dropout, r, args.width, first, end, scratch);
      AddRow(static_cast<const T*>(args.dy.data) + r * args.width + first, factors, end - first,
             args.dtoken + args.tokens[r] * args.width + first);
    }
  });
}

void EmbeddingBackwardPositions(const EmbeddingBackwardArgs& args, int64_t first, int64_t end, float* scratch) {
  WithElement(args.dy.dtype, [&](auto* type) HWY_ATTR {
    using T = std::remove_pointer_t<decltype(type)>;
    for (int64_t position = first; position < end; ++position) {
      float* to = args.dposition + position * args.width;
      std::fill(to, to + args.width, 0.0f);
      if (position >= args.sequence_length) continue;
      for (int64_t r = position; r < args.rows; r += args.sequence_length) {
        const float* factors = FactorsOf(args.dropout, r, args.width, 0, args.width, scratch);
        AddRow(static_cast<const T*>(args.dy.data) + r * args.width, factors, args.width, to);
      }
    }
  });
}

}  // namespace
}  // namespace accrue::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace accrue::cpu {

HWY_EXPORT(EmbeddingForwardRows);
HWY_EXPORT(EmbeddingBackwardTokens);
HWY_EXPORT(EmbeddingBackwardPositions);

void EmbeddingForwardRows(const EmbeddingForwardArgs& args, int64_t first, int64_t end, float* scratch) {
  HWY_DYNAMIC_DISPATCH(EmbeddingForwardRows)(args, first, end, scratch);
}
void EmbeddingBackwardTokens(const EmbeddingBackwardArgs& args, int64_t first, int64_t end, float* scratch) {
  HWY_DYNAMIC_DISPATCH(EmbeddingBackwardTokens)(args, first, end, scratch);
}
void EmbeddingBackwardPositions(const EmbeddingBackwardArgs& args, int64_t first, int64_t end, float* scratch) {
  HWY_DYNAMIC_DISPATCH(EmbeddingBackwardPositions)(args, first, end, scratch);
}

}  // namespace accrue::cpu
#endif
