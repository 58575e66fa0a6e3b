#include "worker/model/activations.h"

#include <algorithm>

namespace accrue {
namespace {

constexpr int64_t kAlignmentBytes = 64;
// About this much of binary32 logits at a time, but enough rows to keep the head's products efficient: the
// weight and its gradient are read once per chunk.
constexpr int64_t kLogitsBytes = int64_t{32} << 20;
constexpr int64_t kLeastHeadRows = 256;
constexpr int64_t kHeadRowsMultiple = 64;

class Planner {
 public:
  int64_t Take(int64_t size_bytes) {
    const int64_t offset = used_;
    used_ += (size_bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
    peak_ = std::max(peak_, used_);
    return offset;
  }
  int64_t used() const { return used_; }
  int64_t peak() const { return peak_; }
  void Return(int64_t to) { used_ = to; }

 private:
  int64_t used_ = 0;
  int64_t peak_ = 0;
};

int64_t HeadRows(int64_t vocabulary, int64_t rows) {
  const int64_t fitting = kLogitsBytes / (4 * vocabulary) / kHeadRowsMultiple * kHeadRowsMultiple;
  return std::min(rows, std::max(kLeastHeadRows, fitting));
}

}  // namespace

ActivationPlan PlanActivations(const ModelConfig& model, DType precision, int64_t batch,
                               int64_t sequence_length, bool training) {
  const int64_t rows = batch * sequence_length, element = SizeOf(precision);
  const int64_t heads_width = model.heads * model.HeadSize();
  const int64_t stream = rows * model.width * element;
  const int64_t attention = rows * heads_width * element;
  const int64_t attention_in = rows * (heads_width + 2 * model.kv_heads * model.HeadSize()) * element;
  const int64_t mlp_mid = rows * model.hidden * element;
  const bool gated = model.architecture == Architecture::kLlama;
  const int64_t mlp_in = (gated ? 2 : 1) * mlp_mid;
  const int64_t statistic = rows * 4;

  ActivationPlan plan{.batch = batch, .sequence_length = sequence_length};
  plan.head_rows = HeadRows(model.vocabulary, rows);
  Planner layer;
  plan.layer = {.residual_in = layer.Take(stream),
                .attention_norm = layer.Take(stream),
                .attention_mean = layer.Take(statistic),
                .attention_rstd = layer.Take(statistic),
                .attention_in = layer.Take(attention_in),
                .attention = layer.Take(attention),
                .log_sum_exp = layer.Take(statistic * model.heads),
                .residual_mid = layer.Take(stream),
                .mlp_norm = layer.Take(stream),
                .mlp_mean = layer.Take(statistic),
                .mlp_rstd = layer.Take(statistic),
                .mlp_in = layer.Take(mlp_in),
                .mlp_mid = layer.Take(mlp_mid)};
  plan.layer_bytes = training ? layer.used() : 0;

  Planner arena;
  plan.tokens = arena.Take(statistic);
  plan.targets = arena.Take(statistic);
  plan.losses = arena.Take(rows * 8);
  plan.layers_begin = arena.Take((training ? model.layers : 1) * layer.used());
  plan.residual_out = arena.Take(stream);
  plan.final_norm = arena.Take(stream);
  plan.final_mean = arena.Take(statistic);
  plan.final_rstd = arena.Take(statistic);
  plan.delta = plan.dnorm = arena.Take(stream);
  if (training) {
    plan.dresidual = arena.Take(stream);
    plan.ddelta = model.dropout > 0 ? arena.Take(stream) : plan.dresidual;
  }
  const int64_t shared = arena.used();
  plan.logits = arena.Take(plan.head_rows * model.vocabulary * element);
  if (training) {
    arena.Return(shared);
    plan.dattention = arena.Take(attention);
    plan.dattention_in = arena.Take(attention_in);
    arena.Return(shared);
    plan.dmlp_in = arena.Take(mlp_in);
    plan.dmlp_mid = gated ? arena.Take(mlp_mid) : 0;
  }
  plan.size_bytes = arena.peak();
  return plan;
}

}  // namespace accrue
