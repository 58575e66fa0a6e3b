// The operations a transformer is written over; docs/numerics.md, section 4, fixes their arithmetic.
//
// Pointers are the backend's memory. Matrices are row-major; a stride is the distance between rows in elements.
// `Tensor` carries no shape: the arguments do. Activations, weights and activation gradients have the compute
// precision (f32, bf16 or f16); weight gradients, row statistics and losses are f32 or f64 as stated. Every output is
// written in full (never read) unless its comment says that it is added to.
#pragma once

#include <cstdint>

#include "common/philox.h"

namespace accrue {

enum class DType { kF32, kBF16, kF16 };

// "fp32", "bf16" or "fp16", as the job file and a numeric class spell it.
inline const char* NameOf(DType type) {
  return type == DType::kF32 ? "fp32" : type == DType::kBF16 ? "bf16" : "fp16";
}

inline int64_t SizeOf(DType type) { return type == DType::kF32 ? 4 : 2; }

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;

  float* f32() const { return static_cast<float*>(data); }
  explicit operator bool() const { return data != nullptr; }
};

// How a weight matrix lies: Hugging Face's Linear is [out, in], GPT-2's Conv1D is [in, out].
enum class WeightLayout { kOutIn, kInOut };

// Keeps element e of a site when Philox(seed; window, unit, site, e) is below 1 - probability. Probability 0: off.
// Four elements share a block: element e takes word e mod 4 of DropoutBlock(e / 4).
struct Dropout {
  float probability = 0;
  uint64_t seed = 0;
  int64_t window = 0;
  int64_t unit = 0;
  uint32_t site = 0;  // from the name of the place in the model
};

inline PhiloxBlock DropoutBlock(const Dropout& dropout, uint64_t block) {
  return Philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(dropout.window),
                     static_cast<uint32_t>(dropout.unit), dropout.site ^ static_cast<uint32_t>(block >> 32)},
                    dropout.seed);
}
// A word of a block keeps its element when it is below this.
inline uint64_t DropoutThreshold(const Dropout& dropout) {
  return static_cast<uint64_t>((1.0 - static_cast<double>(dropout.probability)) * 4294967296.0);
}
// What a kept value is multiplied by.
inline float DropoutScale(const Dropout& dropout) {
  return static_cast<float>(1.0 / (1.0 - static_cast<double>(dropout.probability)));
}

// y[rows, out] = x[rows, in] W (+ bias). With gelu_input: that is z, written there, and y = gelu_tanh(z).
// again: the same operation on the same arguments has left its z in gelu_input, so that a backend may begin
// there, where this gives the same bits.
struct LinearForwardArgs {
  int64_t rows = 0, in = 0, out = 0;
  WeightLayout layout = WeightLayout::kOutIn;
  Tensor x, weight, bias, y;
  Tensor gelu_input;
  bool again = false;
  bool tf32 = false;  // f32 inputs are rounded to TF32 before they are multiplied; for backends that have a class for it
};

// dx[rows, in] = dy[rows, out] W^T, times gelu_tanh'(gelu_input[rows, in]) where that is given; added to dx when
// accumulate is set (then gelu_input must be absent).
struct LinearBackwardInputArgs {
  int64_t rows = 0, in = 0, out = 0;
  WeightLayout layout = WeightLayout::kOutIn;
  Tensor dy, weight, dx;
  Tensor gelu_input;
  bool accumulate = false;
  bool tf32 = false;  // as forward
};

// dweight (in the weight's layout, f32) = x^T dy, added to when accumulate is set; dbias[out] (f32, may be null) =
// column sums of dy, always written.
struct LinearBackwardWeightArgs {
  int64_t rows = 0, in = 0, out = 0;
  WeightLayout layout = WeightLayout::kOutIn;
  Tensor x, dy;
  float* dweight = nullptr;
  float* dbias = nullptr;
  bool accumulate = false;
  bool tf32 = false;  // as forward
};

// y[r, :] = dropout(token[tokens[r], :] + position[r mod sequence_length, :]); position may be absent.
struct EmbeddingForwardArgs {
  int64_t rows = 0, sequence_length = 0, width = 0;
  const int32_t* tokens = nullptr;
  Tensor token_table, position_table, y;
  Dropout dropout;
};

// dtoken[vocabulary, width] (f32) is ADDED to (the caller zeroes it, or has the head's gradient there);
// dposition[context, width] (f32, may be null) is written, zero beyond sequence_length. dy is not changed.
struct EmbeddingBackwardArgs {
  int64_t rows = 0, sequence_length = 0, width = 0, vocabulary = 0, context = 0;
  const int32_t* tokens = nullptr;
  Tensor dy;
  float* dtoken = nullptr;
  float* dposition = nullptr;
  Dropout dropout;
};

enum class NormKind { kLayerNorm, kRmsNorm };

// sum = x + dropout(delta) (without delta: sum = x, and `sum` is not written); y = norm(sum) * gamma (+ beta).
// mean (LayerNorm only) and rstd are f32[rows]. sum may be x's memory.
struct NormForwardArgs {
  int64_t rows = 0, width = 0;
  NormKind kind = NormKind::kLayerNorm;
  float epsilon = 0;
  Tensor x, delta, sum, gamma, beta, y;
  float* mean = nullptr;
  float* rstd = nullptr;
  Dropout dropout;  // of delta
};

// dresidual[rows, width] += gradient of norm's input (x is the `sum` of the forward pass). Then, where ddelta is
// given, ddelta = dropout'(dresidual): the gradient of the branch that was added before this norm.
// dgamma, dbeta (f32[width], dbeta null for RMSNorm) are written.
struct NormBackwardArgs {
  int64_t rows = 0, width = 0;
  NormKind kind = NormKind::kLayerNorm;
  Tensor x, gamma, dy, dresidual, ddelta;
  const float* mean = nullptr;
  const float* rstd = nullptr;
  float* dgamma = nullptr;
  float* dbeta = nullptr;
  bool first = false;  // dresidual is written instead of added to
  Dropout dropout;     // of the delta that was added in the forward pass
};

// Rotates pairs (i, i + head_size / 2) of each head in place by position * frequency[i]; inverse turns back (the
// backward pass). cosine, sine: f32[sequence_length, head_size / 2].
struct RopeArgs {
  int64_t rows = 0, sequence_length = 0, heads = 0, head_size = 0, stride = 0;
  Tensor x;
  const float* cosine = nullptr;
  const float* sine = nullptr;
  bool inverse = false;
};

// Causal softmax(q k^T / sqrt(head_size)) v. Query head h reads key/value head h / (heads / kv_heads). Row r of
// sequence b, head h, is at data + (b * sequence_length + r) * stride + h * head_size.
struct AttentionArgs {
  int64_t batch = 0, sequence_length = 0, heads = 0, kv_heads = 0, head_size = 0;
  Tensor q, k, v, out;
  int64_t q_stride = 0, k_stride = 0, v_stride = 0, out_stride = 0;
  float* log_sum_exp = nullptr;  // f32[batch, heads, sequence_length], written forward, read backward
  Dropout dropout;               // of the probabilities; element ((b * heads + h) * T + row) * T + column
  // Backward only: reads dout (out_stride), writes dq, dk, dv with the strides of q, k, v.
  Tensor dout, dq, dk, dv;
};

// y[rows, hidden] = silu(gate) * up. gate and up have row stride gate_stride (they may share a matrix); y and dy
// have row stride hidden. Backward writes dgate and dup with stride gate_stride.
struct SwiGluArgs {
  int64_t rows = 0, hidden = 0, gate_stride = 0;
  Tensor gate, up, y;
  Tensor dy, dgate, dup;
};

// losses[rows] (f64; 0 where targets is -1). Where write_gradient, logits become gradient_scale * (softmax - onehot),
// zero in rows without a target; the scale is a power of two.
struct CrossEntropyArgs {
  int64_t rows = 0, vocabulary = 0;
  Tensor logits;  // of the compute precision [rows, vocabulary]
  const int32_t* targets = nullptr;
  double* losses = nullptr;
  bool write_gradient = true;
  float gradient_scale = 1;
};

class ModelOps {
 public:
  virtual ~ModelOps() = default;
  virtual void LinearForward(const LinearForwardArgs& args) = 0;
  virtual void LinearBackwardInput(const LinearBackwardInputArgs& args) = 0;
  virtual void LinearBackwardWeight(const LinearBackwardWeightArgs& args) = 0;
  virtual void EmbeddingForward(const EmbeddingForwardArgs& args) = 0;
  virtual void EmbeddingBackward(const EmbeddingBackwardArgs& args) = 0;
  virtual void NormForward(const NormForwardArgs& args) = 0;
  virtual void NormBackward(const NormBackwardArgs& args) = 0;
  virtual void Rope(const RopeArgs& args) = 0;
  virtual void AttentionForward(const AttentionArgs& args) = 0;
  virtual void AttentionBackward(const AttentionArgs& args) = 0;
  virtual void SwiGluForward(const SwiGluArgs& args) = 0;
  virtual void SwiGluBackward(const SwiGluArgs& args) = 0;
  virtual void CrossEntropy(const CrossEntropyArgs& args) = 0;
  // to[i] = round_to_nearest_even(from[i]) in bf16 or f16.
  virtual void Convert(const float* from, const Tensor& to, int64_t elements) = 0;
};

}  // namespace accrue
