// The launches that make up each model operation, in order: for the device and for the CPU's loops.
// run(body, args, blocks), body a value of the body's type; blocks may be 0. Scratch is of model_scratch.h's size.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "worker/backend/cuda/kernels/attention_backward.h"
#include "worker/backend/cuda/kernels/attention_forward.h"
#include "worker/backend/cuda/kernels/columns.h"
#include "worker/backend/cuda/kernels/cross_entropy.h"
#include "worker/backend/cuda/kernels/elementwise.h"
#include "worker/backend/cuda/kernels/embedding.h"
#include "worker/backend/cuda/kernels/norm_backward.h"
#include "worker/backend/cuda/kernels/norm_forward.h"
#include "worker/backend/cuda/model_scratch.h"

namespace accrue::cuda {

template <typename Body, typename Run>
void RunBlocks(const typename Body::Args& args, const Run& run) {
  run(Body(), args, Body::Blocks(args));
}

template <template <typename> typename Body, typename Args, typename Run>
void RunTyped(DType dtype, const Args& args, const Run& run) {
  if (dtype == DType::kF32) {
    RunBlocks<Body<float>>(args, run);
  } else if (dtype == DType::kBF16) {
    RunBlocks<Body<Bf16>>(args, run);
  } else {
    RunBlocks<Body<F16>>(args, run);
  }
}

// f(value of the element type)
template <typename F>
void WithElementType(DType dtype, const F& f) {
  if (dtype == DType::kF32) {
    f(float());
  } else if (dtype == DType::kBF16) {
    f(Bf16());
  } else {
    f(F16());
  }
}

// Whether packs of 16 bytes fit rows of `width` elements of T at all of these addresses; null ones do not matter.
template <typename T, typename... Pointers>
bool FullPacks(int64_t width, const Pointers*... pointers) {
  return width % kFullPack<T> == 0 && (IsAligned(pointers, 16) && ...);
}

template <typename Run>
void ForConvert(const ConvertArgs& args, const Run& run) {
  if (args.to.dtype == DType::kBF16) {
    RunBlocks<ConvertBody<Bf16>>(args, run);
  } else {
    RunBlocks<ConvertBody<F16>>(args, run);
  }
}
template <typename Run>
void ForGeluForward(const GeluArgs& args, const Run& run) {
  RunTyped<GeluForwardBody>(args.y.dtype, args, run);
}
template <typename Run>
void ForGeluBackward(const GeluArgs& args, const Run& run) {
  RunTyped<GeluBackwardBody>(args.y.dtype, args, run);
}
template <typename Run>
void ForRope(const RopeArgs& args, const Run& run) {
  WithElementType(args.x.dtype, [&](auto element) {
    using T = decltype(element);
    const int64_t half = args.head_size / 2;
    if (FullPacks<T>(half, args.x.data, args.cosine, args.sine) && args.stride % kFullPack<T> == 0) {
      RunBlocks<RopeBody<T, kFullPack<T>>>(args, run);
    } else {
      RunBlocks<RopeBody<T, 1>>(args, run);
    }
  });
}
template <typename Run>
void ForSwiGluForward(const SwiGluArgs& args, const Run& run) {
  RunTyped<SwiGluForwardBody>(args.y.dtype, args, run);
}
template <typename Run>
void ForSwiGluBackward(const SwiGluArgs& args, const Run& run) {
  RunTyped<SwiGluBackwardBody>(args.dy.dtype, args, run);
}
template <typename Run>
void ForCrossEntropy(const CrossEntropyArgs& args, const Run& run) {
  RunTyped<CrossEntropyBody>(args.logits.dtype, args, run);
}

template <typename Run>
void ForColumnSums(const ColumnSumsArgs& args, void* scratch, const Run& run) {
  const ColumnSumsKernelArgs kernel = {args, static_cast<float*>(scratch)};
  WithElementType(args.matrix.dtype, [&](auto element) {
    using T = decltype(element);
    if (FullPacks<T>(args.columns, args.matrix.data) && args.stride % kFullPack<T> == 0) {
      RunBlocks<ColumnSumsBody<T, kFullPack<T>>>(kernel, run);
    } else {
      RunBlocks<ColumnSumsBody<T, 1>>(kernel, run);
    }
  });
  const int64_t parts = (args.rows + kColumnRows - 1) / kColumnRows;
  RunBlocks<FoldBody>({kernel.partial, parts, args.columns, args.columns, args.sums, nullptr}, run);
}

template <typename Run>
void ForEmbeddingForward(const EmbeddingForwardArgs& args, const Run& run) {
  const EmbeddingForwardKernelArgs kernel = {args, KeyOf(args.dropout)};
  WithElementType(args.y.dtype, [&](auto element) {
    using T = decltype(element);
    if (FullPacks<T>(args.width, args.token_table.data, args.position_table.data, args.y.data)) {
      RunBlocks<EmbeddingForwardBody<T, kFullPack<T>>>(kernel, run);
    } else {
      RunBlocks<EmbeddingForwardBody<T, 1>>(kernel, run);
    }
  });
}

// What the embedding's backward pass keeps in scratch.
struct EmbeddingScratch {
  uint64_t* keys[2];
  float* partial;
  static int64_t KeyBytes(int64_t rows) { return (rows * 8 + 255) / 256 * 256; }
  static int64_t PartialBytes(int64_t rows, int64_t width) { return (rows / kEmbeddingPart + 1) * width * 4; }
  EmbeddingScratch(void* scratch, int64_t rows) {
    char* const begin = static_cast<char*>(scratch);
    keys[0] = reinterpret_cast<uint64_t*>(begin);
    keys[1] = reinterpret_cast<uint64_t*>(begin + KeyBytes(rows));
    partial = reinterpret_cast<float*>(begin + 2 * KeyBytes(rows));
  }
};

template <typename Run>
void ForEmbeddingBackward(const EmbeddingBackwardArgs& args, void* scratch, const Run& run) {
  EmbeddingScratch held(scratch, args.rows);
  RunBlocks<SortTileBody>({args.tokens, args.rows, held.keys[0]}, run);
  for (int64_t length = kSortTile; length < args.rows; length *= 2) {
    RunBlocks<MergeBody>({held.keys[0], held.keys[1], args.rows, length}, run);
    std::swap(held.keys[0], held.keys[1]);
  }
  const EmbeddingBackwardKernelArgs kernel = {args, KeyOf(args.dropout), held.keys[0], held.partial};
  const auto run_packs = [&](auto element, auto pack) {
    using T = decltype(element);
    constexpr int kPack = decltype(pack)::value;
    RunBlocks<EmbeddingPartsBody<T, kPack>>(kernel, run);
    RunBlocks<EmbeddingFoldBody<kPack>>(kernel, run);
    if (args.dposition != nullptr) RunBlocks<PositionGradientBody<T, kPack>>(kernel, run);
  };
  WithElementType(args.dy.dtype, [&](auto element) {
    using T = decltype(element);
    if (FullPacks<T>(args.width, args.dy.data, args.dtoken, args.dposition)) {
      run_packs(element, std::integral_constant<int, kFullPack<T>>());
    } else {
      run_packs(element, std::integral_constant<int, 1>());
    }
  });
}

// f(integral constants of a lane's packs: how many elements, how many packs are held). lane_elements: how many a
// lane may hold, ascending, each a multiple of a pack; rows that are too long for all of them are not held.
template <typename T, int... kLaneElements, typename F>
void WithRowLayout(bool full_packs, int64_t width, std::integer_sequence<int, kLaneElements...>, const F& f) {
  if (!full_packs) {
    f(std::integral_constant<int, 1>(), std::integral_constant<int, 0>());
    return;
  }
  using Pack = std::integral_constant<int, kFullPack<T>>;
  const bool held = (... || (width <= kLaneElements * kLanes &&
                             (f(Pack(), std::integral_constant<int, kLaneElements / kFullPack<T>>()), true)));
  if (!held) f(Pack(), std::integral_constant<int, 0>());
}

template <typename Run>
void ForNormForward(const NormForwardArgs& args, const Run& run) {
  const NormForwardKernelArgs kernel = {args, KeyOf(args.dropout)};
  WithElementType(args.y.dtype, [&](auto element) {
    using T = decltype(element);
    const bool packs = FullPacks<T>(args.width, args.x.data, args.delta.data, args.sum.data, args.gamma.data,
                                    args.beta.data, args.y.data);
    WithRowLayout<T>(packs, args.width, std::integer_sequence<int, 8, 24, 32, 64>(), [&](auto pack, auto held) {
      RunBlocks<NormForwardBody<T, decltype(pack)::value, decltype(held)::value>>(kernel, run);
    });
  });
}

template <typename Run>
void ForNormBackward(const NormBackwardArgs& args, void* scratch, const Run& run) {
  const NormBackwardKernelArgs kernel = {args, KeyOf(args.dropout), static_cast<float*>(scratch)};
  WithElementType(args.dy.dtype, [&](auto element) {
    using T = decltype(element);
    const bool packs =
        FullPacks<T>(args.width, args.x.data, args.gamma.data, args.dy.data, args.dresidual.data, args.ddelta.data);
    WithRowLayout<T>(packs, args.width, std::integer_sequence<int, 8, 24, 32>(), [&](auto pack, auto held) {
      RunBlocks<NormBackwardBody<T, decltype(pack)::value, decltype(held)::value>>(kernel, run);
    });
  });
  const int64_t parts = (args.rows + kNormBackwardRows - 1) / kNormBackwardRows;
  RunBlocks<FoldBody>({kernel.partial, parts, 2 * args.width, args.width, args.dgamma, args.dbeta}, run);
}

// Whether rows of a head begin at multiples of 16 bytes, whichever head it is, and are whole pieces of that size.
template <typename T>
bool AttentionAligned(const AttentionArgs& args) {
  const auto fits = [](const Tensor& matrix, int64_t stride) {
    return FullPacks<T>(stride, static_cast<const char*>(matrix.data));
  };
  return args.head_size % kFullPack<T> == 0 && fits(args.q, args.q_stride) && fits(args.k, args.k_stride) &&
         fits(args.v, args.v_stride) && fits(args.out, args.out_stride) && fits(args.dout, args.out_stride) &&
         fits(args.dq, args.q_stride) && fits(args.dk, args.k_stride) && fits(args.dv, args.v_stride);
}

// f(kernel arguments, value of the element type, integral constant of the kernel's head size)
template <typename F>
void WithAttention(const AttentionArgs& args, void* scratch, const F& f) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(args.head_size));
  AttentionKernelArgs kernel = {args, KeyOf(args.dropout), scale, scale * kLog2E, false, static_cast<float*>(scratch)};
  WithElementType(args.q.dtype, [&](auto element) {
    kernel.aligned = AttentionAligned<decltype(element)>(args);
    if (args.head_size <= 64) {
      f(kernel, element, std::integral_constant<int, 64>());
    } else {
      f(kernel, element, std::integral_constant<int, 128>());
    }
  });
}

template <typename Run>
void ForAttentionForward(const AttentionArgs& args, const Run& run) {
  WithAttention(args, nullptr, [&](const AttentionKernelArgs& kernel, auto element, auto head) {
    RunBlocks<AttentionForwardBody<decltype(element), decltype(head)::value>>(kernel, run);
  });
}

template <typename Run>
void ForAttentionBackward(const AttentionArgs& args, void* scratch, const Run& run) {
  WithAttention(args, scratch, [&](const AttentionKernelArgs& kernel, auto element, auto head) {
    using T = decltype(element);
    constexpr int kHead = decltype(head)::value;
    RunBlocks<RowProductsBody<T, kHead>>(kernel, run);
    RunBlocks<AttentionKeyGradientBody<T, kHead>>(kernel, run);
    RunBlocks<AttentionQueryGradientBody<T, kHead>>(kernel, run);
  });
}

}  // namespace accrue::cuda
