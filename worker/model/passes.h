// The forward and backward passes of a transformer, written once for both families over a backend's
// operations.
//
// Not thread-safe. Owns the gradient scratch, the parameters in 16 bits and the rotary tables; the activations are
// the caller's arena, laid out by an ActivationPlan. Nothing is allocated but by Allocate and PrepareRope.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "worker/backend/backend.h"
#include "worker/engine/engine.h"
#include "worker/model/activations.h"
#include "worker/model/parameters.h"

namespace accrue {

// One pass, and where its activations lie. tokens and targets are in their places in the arena.
struct Pass {
  const ActivationPlan& plan;
  std::byte* arena;
  float dropout;  // 0 in evaluation
  int64_t window, unit;
  float loss_scale = 1;  // of the gradients, a power of two

  void* At(int64_t offset) const { return arena + offset; }
  float* Floats(int64_t offset) const { return static_cast<float*>(At(offset)); }
};

class Passes {
 public:
  // What is referred to must outlive this. seed: of dropout.
  Passes(const ModelConfig& model, DType precision, bool tf32, uint64_t seed, const TransformerTensors& tensors,
         const ParameterLayout& layout, Backend& backend);

  absl::Status Allocate(int64_t sequence_length);
  // Makes the rotary tables reach this far.
  absl::Status PrepareRope(int64_t positions);
  int64_t SizeBytes() const;

  void BindParameters(const float* parameters) { parameters_ = parameters; }
  void ParametersChanged();
  const void* ComputeCopy() const { return compute_copy_ ? compute_copy_->data() : nullptr; }

  // From the tokens to the final norm's output.
  void Forward(const Pass& pass);
  // Logits of tokens [begin, begin + rows), in the plan's place for them.
  void HeadForward(const Pass& pass, int64_t begin, int64_t rows);
  // All losses, by chunks of tokens so that the logits need little memory; backward: also the gradients of
  // the final norm's output and of the head's weight, which is summed over the chunks.
  void Head(const Pass& pass, bool backward);
  // From there to the embeddings. Hands every tensor's gradient to the sink once.
  void Backward(const Pass& pass, GradientSink& sink);

 private:
  // Dropout's places within a layer.
  struct LayerSites {
    uint32_t attention = 0, attention_out = 0, mlp_out = 0;
  };
  struct AttentionViews {
    Tensor q, k, v;
    int64_t q_stride = 0, kv_stride = 0;
  };
  // Where a norm's input, output and statistics lie in the arena.
  struct NormPlace {
    int64_t x = 0, y = 0, mean = 0, rstd = 0;
  };
  // A branch whose output, in `delta`, is to be added to the residual at this place.
  struct Branch {
    int64_t residual = 0;
    uint32_t site = 0;
  };

  bool gpt2() const { return model_.architecture == Architecture::kGpt2; }
  NormKind norm_kind() const { return gpt2() ? NormKind::kLayerNorm : NormKind::kRmsNorm; }
  int64_t heads_width() const { return model_.heads * model_.HeadSize(); }
  int64_t ScratchElements() const;
  Tensor View(void* data) const { return {data, precision_}; }
  Tensor Weight(int tensor) const;
  void* Row(const Pass& pass, int64_t offset, int64_t row, int64_t width) const;
  Dropout DropoutAt(const Pass& pass, uint32_t site) const;
  NormPlace AttentionNormPlace(const Pass& pass, int64_t layer) const;
  NormPlace MlpNormPlace(const Pass& pass, int64_t layer) const;
  NormPlace FinalNormPlace(const Pass& pass) const;
  // q, k and v lie side by side in GPT-2's one matrix, else in matrices of their own, one after the other.
  AttentionViews SplitAttention(const Pass& pass, int64_t offset) const;
  AttentionArgs Attention(const Pass& pass, int64_t layer) const;
  SwiGluArgs SwiGlu(const Pass& pass, int64_t layer) const;
  void Rotate(const Pass& pass, const AttentionViews& views, bool inverse);

  void Linear(const LinearTensors& linear, int64_t rows, void* x, void* y, void* gelu_input = nullptr,
              bool again = false);
  void LinearInputGradient(const LinearTensors& linear, int64_t rows, void* dy, void* dx,
                           void* gelu_input = nullptr, bool accumulate = false);
  void LinearWeightGradient(const LinearTensors& linear, int64_t rows, void* x, void* dy, GradientSink& sink);
  // Norms place.x; with a branch, place.x is first set to the sum.
  void ForwardNorm(const Pass& pass, const NormTensors& norm, const NormPlace& place,
                   absl::optional<Branch> branch);
  // Takes dnorm through a norm into dresidual, and on into the branch that was added before it (none after
  // the embedding). Without dropout that branch's gradient is dresidual itself.
  void BackwardNorm(const Pass& pass, const NormTensors& norm, const NormPlace& place, bool first,
                    absl::optional<uint32_t> branch_site, GradientSink& sink);
  // From the attention norm's output to attention's.
  void ForwardAttention(const Pass& pass, int64_t layer);
  // From the attention norm's output to the MLP's norm.
  void ForwardToMlpNorm(const Pass& pass, int64_t layer);
  // From the MLP's norm to the output of the activation function; again: what the function reads is there.
  void ForwardMlpMid(const Pass& pass, int64_t layer, bool again);
  // What the plan did not keep of the layer and BackwardMlp, or BackwardAttention, is to read.
  void RecomputeForMlp(const Pass& pass, int64_t layer);
  void RecomputeForAttention(const Pass& pass, int64_t layer);
  void BackwardAttention(const Pass& pass, int64_t layer, GradientSink& sink);
  void BackwardMlp(const Pass& pass, int64_t layer, GradientSink& sink);
  // Through the linears that share the input x, whose output gradients lie one after the other at dy, into
  // dnorm.
  void BackwardInto(const Pass& pass, const std::vector<LinearTensors>& linears, int64_t dy, void* x,
                    GradientSink& sink);

  const ModelConfig& model_;
  const DType precision_;
  const bool tf32_;
  const uint64_t seed_;
  const TransformerTensors& tensors_;
  const ParameterLayout& layout_;
  Backend& backend_;
  ModelOps& ops_;
  const uint32_t embedding_site_;
  std::vector<LayerSites> sites_;

  const float* parameters_ = nullptr;
  std::unique_ptr<DeviceBuffer> table_gradient_;  // of the head, and of the token table
  std::unique_ptr<DeviceBuffer> scratch_;         // of the tensors that one operation gives
  std::unique_ptr<DeviceBuffer> compute_copy_;    // bf16 and fp16 only
  std::unique_ptr<DeviceBuffer> rope_cosine_, rope_sine_;
  int64_t rope_positions_ = 0;
};

}  // namespace accrue
