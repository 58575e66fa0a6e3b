// Where every activation of a pass lies in one arena: planned from shapes alone, so that nothing is allocated
// while training.
//
// A training pass keeps per layer what backward reads: residuals, norm outputs, q/k/v, attention outputs, MLP
// inputs and outputs of the activation function. What a recompute level does not keep has one layer's place,
// which all layers use in turn, in the forward pass and again in the backward pass; in a forward-only pass
// that is everything.
#pragma once

#include <cstdint>

#include "worker/backend/model_ops.h"
#include "worker/model/config.h"

namespace accrue {

// What the backward pass computes again instead of reading what the forward pass left. Each level includes
// the ones before it. The operations are the same, on the same inputs, so no bit of a gradient depends on the
// level.
enum class Recompute {
  kNone,
  kNorms,      // outputs of the norms and of the activation function
  kAttention,  // also q, k, v and attention's output
  kBlock,      // all of a layer but its input
};

constexpr Recompute kRecomputeLevels[] = {Recompute::kNone, Recompute::kNorms, Recompute::kAttention,
                                          Recompute::kBlock};

// Where a tensor that every layer has lies in the arena.
struct LayerPlace {
  int64_t begin = 0;   // layer 0's
  int64_t stride = 0;  // to the next layer's; 0: they share it

  int64_t Of(int64_t layer) const { return begin + layer * stride; }
};

struct LayerActivations {
  LayerPlace residual_in;  // [N, width]: sum before the attention norm
  LayerPlace attention_norm;
  LayerPlace attention_mean, attention_rstd;  // f32[N]
  LayerPlace attention_in;                    // the outputs of attention_in, one matrix after the other
  LayerPlace attention;                       // [N, heads x head_size]
  LayerPlace log_sum_exp;                     // f32[batch, heads, T]
  LayerPlace residual_mid;                    // [N, width]: sum before the MLP's norm
  LayerPlace mlp_norm;
  LayerPlace mlp_mean, mlp_rstd;  // f32[N]
  LayerPlace mlp_in;              // outputs of mlp_in, one matrix after the other
  LayerPlace mlp_mid;             // [N, hidden]: after the activation function
};

// Byte offsets within the arena; N = batch x sequence_length.
struct ActivationPlan {
  int64_t batch = 0, sequence_length = 0;
  Recompute recompute = Recompute::kNone;
  int64_t head_rows = 0;  // tokens whose logits exist at a time
  LayerActivations layer;
  int64_t tokens = 0, targets = 0, losses = 0;
  int64_t residual_out = 0, final_norm = 0, final_mean = 0, final_rstd = 0;
  int64_t logits = 0;  // [head_rows, vocabulary]
  int64_t delta = 0;   // [N, width]: a branch's output on its way into the residual
  // Backward only. logits, dattention* and dmlp* share their place: none outlives its step.
  int64_t dresidual = 0, ddelta = 0;  // [N, width]
  int64_t dnorm = 0;                  // [N, width], in delta's place
  int64_t dattention = 0;             // [N, heads x head_size]
  int64_t dattention_in = 0;          // as attention_in
  int64_t dmlp_in = 0, dmlp_mid = 0;  // as mlp_in and mlp_mid
  int64_t size_bytes = 0;

  int64_t Rows() const { return batch * sequence_length; }
};

// Of a unit's forward and backward pass.
ActivationPlan PlanTraining(const ModelConfig& model, DType precision, int64_t batch, int64_t sequence_length,
                            Recompute recompute);
// Of a forward pass alone.
ActivationPlan PlanForward(const ModelConfig& model, DType precision, int64_t batch, int64_t sequence_length);

}  // namespace accrue
