// Where every activation of a pass lies in one arena: planned from shapes alone, so that nothing is allocated
// while training.
//
// A training pass keeps per layer what backward reads: residuals, norm outputs, q/k/v, attention outputs, MLP
// inputs and outputs of the activation function. A forward-only pass has one layer's place, used by all
// layers in turn.
#pragma once

#include <cstdint>

#include "worker/backend/model_ops.h"
#include "worker/model/config.h"

namespace accrue {

// Byte offsets within a layer's part.
struct LayerActivations {
  int64_t residual_in = 0;  // [N, width]: sum before the attention norm
  int64_t attention_norm = 0;
  int64_t attention_mean = 0, attention_rstd = 0;  // f32[N]
  int64_t attention_in = 0;                        // the outputs of attention_in, one matrix after the other
  int64_t attention = 0;                           // [N, heads x head_size]
  int64_t log_sum_exp = 0;                         // f32[batch, heads, T]
  int64_t residual_mid = 0;                        // [N, width]: sum before the MLP's norm
  int64_t mlp_norm = 0;
  int64_t mlp_mean = 0, mlp_rstd = 0;  // f32[N]
  int64_t mlp_in = 0;                  // outputs of mlp_in, one matrix after the other
  int64_t mlp_mid = 0;                 // [N, hidden]: after the activation function
};

// Byte offsets within the arena; N = batch x sequence_length.
struct ActivationPlan {
  int64_t batch = 0, sequence_length = 0;
  int64_t head_rows = 0;  // tokens whose logits exist at a time
  LayerActivations layer;
  int64_t layer_bytes = 0;  // 0 in a forward-only pass: all layers share a place
  int64_t tokens = 0, targets = 0, losses = 0;
  int64_t layers_begin = 0;
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
  int64_t Layer(int64_t index) const { return layers_begin + index * layer_bytes; }
};

ActivationPlan PlanActivations(const ModelConfig& model, DType precision, int64_t batch,
                               int64_t sequence_length, bool training);

}  // namespace accrue
