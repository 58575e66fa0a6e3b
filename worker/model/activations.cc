#include "worker/model/activations.h"

#include <algorithm>
#include <vector>

namespace accrue {
namespace {

constexpr int64_t kAlignmentBytes = 64;
// About this much of binary32 logits at a time, but enough rows to keep the head's products efficient, and few chunks in
// a unit: the weight and its gradient are read once per chunk.
constexpr int64_t kLogitsBytes = int64_t{32} << 20;
constexpr int64_t kLeastHeadRows = 256;
constexpr int64_t kMostHeadChunks = 8;
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
  const int64_t share = kHeadRowsMultiple * kMostHeadChunks;
  const int64_t for_few_chunks = (rows + share - 1) / share * kHeadRowsMultiple;
  return std::min(rows, std::max({kLeastHeadRows, fitting, for_few_chunks}));
}

// The parts of a layer's activations. Attention's and the MLP's are never read together, unless the whole
// layer is computed again before either is.
enum class Part { kResidual, kAttention, kMlp };

struct LayerTensor {
  LayerPlace LayerActivations::*place;
  Part part;
  int64_t size_bytes;
  Recompute dropped;  // the first level that does not keep it; kNone: every level does
};

std::vector<LayerTensor> TensorsOfLayer(const ModelConfig& model, DType precision, int64_t rows) {
  using L = LayerActivations;
  const int64_t element = SizeOf(precision), statistic = rows * 4;
  const int64_t queries = model.heads * model.HeadSize(), keys = model.kv_heads * model.HeadSize();
  const int64_t stream = rows * model.width * element;
  const int64_t mlp_mid = rows * model.hidden * element;
  const int64_t mlp_in = model.architecture == Architecture::kLlama ? 2 * mlp_mid : mlp_mid;
  return {{&L::residual_in, Part::kResidual, stream, Recompute::kNone},
          {&L::attention_norm, Part::kAttention, stream, Recompute::kNorms},
          {&L::attention_mean, Part::kAttention, statistic, Recompute::kNorms},
          {&L::attention_rstd, Part::kAttention, statistic, Recompute::kNorms},
          {&L::attention_in, Part::kAttention, rows * (queries + 2 * keys) * element, Recompute::kAttention},
          {&L::attention, Part::kAttention, rows * queries * element, Recompute::kAttention},
          {&L::log_sum_exp, Part::kAttention, statistic * model.heads, Recompute::kAttention},
          {&L::residual_mid, Part::kResidual, stream, Recompute::kBlock},
          {&L::mlp_norm, Part::kMlp, stream, Recompute::kNorms},
          {&L::mlp_mean, Part::kMlp, statistic, Recompute::kNorms},
          {&L::mlp_rstd, Part::kMlp, statistic, Recompute::kNorms},
          {&L::mlp_in, Part::kMlp, mlp_in, Recompute::kBlock},
          {&L::mlp_mid, Part::kMlp, mlp_mid, Recompute::kNorms}};
}

void PlaceKept(const std::vector<LayerTensor>& tensors, int64_t layers, Planner& arena,
               LayerActivations& places) {
  Planner layer;
  for (const LayerTensor& tensor : tensors) places.*tensor.place = {layer.Take(tensor.size_bytes), 0};
  const int64_t begin = arena.Take(layers * layer.used());
  for (const LayerTensor& tensor : tensors) {
    (places.*tensor.place).begin += begin;
    (places.*tensor.place).stride = layer.used();
  }
}

void PlaceShared(const std::vector<LayerTensor>& tensors, bool apart, Planner& arena,
                 LayerActivations& places) {
  const auto place = [&](Part part) {
    for (const LayerTensor& tensor : tensors) {
      if (tensor.part == part) places.*tensor.place = {arena.Take(tensor.size_bytes), 0};
    }
  };
  place(Part::kResidual);
  const int64_t begin = arena.used();
  place(Part::kAttention);
  const int64_t end = arena.used();
  if (!apart) arena.Return(begin);
  place(Part::kMlp);
  arena.Return(std::max(end, arena.used()));
}

// Layers, and what is around them in both kinds of pass.
void PlaceForward(const ModelConfig& model, DType precision, const std::vector<LayerTensor>& kept,
                  const std::vector<LayerTensor>& shared, bool apart, Planner& arena, ActivationPlan& plan) {
  const int64_t rows = plan.Rows(), stream = rows * model.width * SizeOf(precision), statistic = rows * 4;
  plan.head_rows = HeadRows(model.vocabulary, rows);
  plan.tokens = arena.Take(statistic);
  plan.targets = arena.Take(statistic);
  plan.losses = arena.Take(rows * 8);
  PlaceKept(kept, model.layers, arena, plan.layer);
  PlaceShared(shared, apart, arena, plan.layer);
  plan.residual_out = arena.Take(stream);
  plan.final_norm = arena.Take(stream);
  plan.final_mean = arena.Take(statistic);
  plan.final_rstd = arena.Take(statistic);
  plan.delta = plan.dnorm = arena.Take(stream);
}

}  // namespace

ActivationPlan PlanForward(const ModelConfig& model, DType precision, int64_t batch,
                           int64_t sequence_length) {
  ActivationPlan plan{.batch = batch, .sequence_length = sequence_length};
  Planner arena;
  PlaceForward(model, precision, {}, TensorsOfLayer(model, precision, plan.Rows()), /*apart=*/false, arena,
               plan);
  plan.logits = arena.Take(plan.head_rows * model.vocabulary * SizeOf(precision));
  plan.size_bytes = arena.peak();
  return plan;
}

ActivationPlan PlanTraining(const ModelConfig& model, DType precision, int64_t batch, int64_t sequence_length,
                            Recompute recompute) {
  ActivationPlan plan{.batch = batch, .sequence_length = sequence_length, .recompute = recompute};
  const int64_t rows = plan.Rows(), element = SizeOf(precision);
  const int64_t queries = model.heads * model.HeadSize(), keys = model.kv_heads * model.HeadSize();
  const bool gated = model.architecture == Architecture::kLlama;
  const int64_t mlp_mid = rows * model.hidden * element;
  std::vector<LayerTensor> kept = TensorsOfLayer(model, precision, rows), shared;
  const auto first_shared = std::stable_partition(kept.begin(), kept.end(), [&](const LayerTensor& tensor) {
    return tensor.dropped == Recompute::kNone || recompute < tensor.dropped;
  });
  shared.assign(first_shared, kept.end());
  kept.erase(first_shared, kept.end());

  Planner arena;
  PlaceForward(model, precision, kept, shared, /*apart=*/recompute == Recompute::kBlock, arena, plan);
  plan.dresidual = arena.Take(rows * model.width * element);
  plan.ddelta = model.dropout > 0 ? arena.Take(rows * model.width * element) : plan.dresidual;
  const int64_t begin = arena.used();
  plan.logits = arena.Take(plan.head_rows * model.vocabulary * element);
  arena.Return(begin);
  plan.dattention = arena.Take(rows * queries * element);
  plan.dattention_in = arena.Take(rows * (queries + 2 * keys) * element);
  arena.Return(begin);
  plan.dmlp_in = arena.Take((gated ? 2 : 1) * mlp_mid);
  plan.dmlp_mid = gated ? arena.Take(mlp_mid) : 0;
  plan.size_bytes = arena.peak();
  return plan;
}

}  // namespace accrue
