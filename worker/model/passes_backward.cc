#include <algorithm>

#include "worker/model/passes.h"

namespace accrue {
namespace {

// Where the second tensor of a pair begins in the scratch, after `elements` of the first.
int64_t SecondOffset(int64_t elements) {
  return (elements + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
}

}  // namespace

// The most that one operation writes of gradients, the table's aside.
int64_t Passes::ScratchElements() const {
  int64_t most = 2 * SecondOffset(model_.width);  // a norm's two
  for (const LayerTensors& layer : tensors_.layers) {
    std::vector<LinearTensors> linears = {layer.attention_out, layer.mlp_out};
    linears.insert(linears.end(), layer.attention_in.begin(), layer.attention_in.end());
    linears.insert(linears.end(), layer.mlp_in.begin(), layer.mlp_in.end());
    for (const LinearTensors& linear : linears)
      most = std::max(most, SecondOffset(linear.in * linear.out) + linear.out);
  }
  if (tensors_.position_table >= 0)
    most = std::max(most, layout_.tensors()[tensors_.position_table].elements);
  return most;
}

void Passes::LinearInputGradient(const LinearTensors& linear, int64_t rows, void* dy, void* dx,
                                 void* gelu_input, bool accumulate) {
  ops_.LinearBackwardInput({.rows = rows,
                            .in = linear.in,
                            .out = linear.out,
                            .layout = linear.layout,
                            .dy = View(dy),
                            .weight = Weight(linear.weight),
                            .dx = View(dx),
                            .gelu_input = View(gelu_input),
                            .accumulate = accumulate,
                            .tf32 = tf32_});
}

void Passes::LinearWeightGradient(const LinearTensors& linear, int64_t rows, void* x, void* dy,
                                  GradientSink& sink) {
  float* dweight = scratch_->as<float>();
  float* dbias = linear.bias < 0 ? nullptr : dweight + SecondOffset(linear.in * linear.out);
  ops_.LinearBackwardWeight({.rows = rows,
                             .in = linear.in,
                             .out = linear.out,
                             .layout = linear.layout,
                             .x = View(x),
                             .dy = View(dy),
                             .dweight = dweight,
                             .dbias = dbias,
                             .tf32 = tf32_});
  sink.Add(linear.weight, dweight);
  if (dbias != nullptr) sink.Add(linear.bias, dbias);
}

void Passes::Head(const Pass& pass, bool backward) {
  const ActivationPlan& plan = pass.plan;
  for (int64_t begin = 0; begin < plan.Rows(); begin += plan.head_rows) {
    const int64_t rows = std::min(plan.head_rows, plan.Rows() - begin);
    HeadForward(pass, begin, rows);
    ops_.CrossEntropy({.rows = rows,
                       .vocabulary = model_.vocabulary,
                       .logits = View(pass.At(plan.logits)),
                       .targets = static_cast<const int32_t*>(pass.At(plan.targets)) + begin,
                       .losses = static_cast<double*>(pass.At(plan.losses)) + begin,
                       .write_gradient = backward,
                       .gradient_scale = pass.loss_scale});
    if (!backward) continue;
    LinearInputGradient(tensors_.head, rows, pass.At(plan.logits),
                        Row(pass, plan.dnorm, begin, model_.width));
    ops_.LinearBackwardWeight({.rows = rows,
                               .in = tensors_.head.in,
                               .out = tensors_.head.out,
                               .layout = tensors_.head.layout,
                               .x = View(Row(pass, plan.final_norm, begin, model_.width)),
                               .dy = View(pass.At(plan.logits)),
                               .dweight = table_gradient_->as<float>(),
                               .accumulate = begin > 0,
                               .tf32 = tf32_});
  }
}

void Passes::BackwardNorm(const Pass& pass, const NormTensors& norm, const NormPlace& place, bool first,
                          absl::optional<uint32_t> branch_site, GradientSink& sink) {
  float* dgamma = scratch_->as<float>();
  float* dbeta = norm.beta < 0 ? nullptr : dgamma + SecondOffset(model_.width);
  NormBackwardArgs args{.rows = pass.plan.Rows(),
                        .width = model_.width,
                        .kind = norm_kind(),
                        .x = View(pass.At(place.x)),
                        .gamma = Weight(norm.gamma),
                        .dy = View(pass.At(pass.plan.dnorm)),
                        .dresidual = View(pass.At(pass.plan.dresidual)),
                        .mean = pass.Floats(place.mean),
                        .rstd = pass.Floats(place.rstd),
                        .dgamma = dgamma,
                        .dbeta = dbeta,
                        .first = first};
  if (branch_site && pass.dropout > 0) {
    args.ddelta = View(pass.At(pass.plan.ddelta));
    args.dropout = DropoutAt(pass, *branch_site);
  }
  ops_.NormBackward(args);
  sink.Add(norm.gamma, dgamma);
  if (dbeta != nullptr) sink.Add(norm.beta, dbeta);
}

void Passes::Backward(const Pass& pass, GradientSink& sink) {
  float* table_gradient = table_gradient_->as<float>();
  if (!model_.tie_embeddings) {
    sink.Add(tensors_.head.weight, table_gradient);
    backend_.Zero(table_gradient, table_gradient_->size_bytes());
  }
  BackwardNorm(pass, tensors_.final_norm, FinalNormPlace(pass), /*first=*/true, sites_.back().mlp_out, sink);
  for (int64_t i = model_.layers - 1; i >= 0; --i) {
    const LayerTensors& layer = tensors_.layers[i];
    RecomputeForMlp(pass, i);
    BackwardMlp(pass, i, sink);
    BackwardNorm(pass, layer.mlp_norm, MlpNormPlace(pass, i), /*first=*/false, sites_[i].attention_out, sink);
    RecomputeForAttention(pass, i);
    BackwardAttention(pass, i, sink);
    absl::optional<uint32_t> before;
    if (i > 0) before = sites_[i - 1].mlp_out;
    BackwardNorm(pass, layer.attention_norm, AttentionNormPlace(pass, i), /*first=*/false, before, sink);
  }
  float* dposition = tensors_.position_table < 0 ? nullptr : scratch_->as<float>();
  ops_.EmbeddingBackward({.rows = pass.plan.Rows(),
                          .sequence_length = pass.plan.sequence_length,
                          .width = model_.width,
                          .vocabulary = model_.vocabulary,
                          .context = model_.context,
                          .tokens = static_cast<const int32_t*>(pass.At(pass.plan.tokens)),
                          .dy = View(pass.At(pass.plan.dresidual)),
                          .dtoken = table_gradient,
                          .dposition = dposition,
                          .dropout = DropoutAt(pass, embedding_site_)});
  if (dposition != nullptr) sink.Add(tensors_.position_table, dposition);
  sink.Add(tensors_.token_table, table_gradient);
}

void Passes::RecomputeForMlp(const Pass& pass, int64_t i) {
  const Recompute level = pass.plan.recompute;
  // The last layer is the last that used the shared place: what its forward pass left there is there still.
  if (level == Recompute::kNone || i == model_.layers - 1) return;
  const LayerTensors& layer = tensors_.layers[i];
  if (level == Recompute::kBlock) {
    ForwardNorm(pass, layer.attention_norm, AttentionNormPlace(pass, i), absl::nullopt);
    ForwardToMlpNorm(pass, i);
  } else {
    ForwardNorm(pass, layer.mlp_norm, MlpNormPlace(pass, i), absl::nullopt);
  }
  ForwardMlpMid(pass, i, /*again=*/level != Recompute::kBlock);
}

void Passes::RecomputeForAttention(const Pass& pass, int64_t i) {
  const Recompute level = pass.plan.recompute;
  if (level == Recompute::kNone || level == Recompute::kBlock) return;  // there, or made with the MLP's
  ForwardNorm(pass, tensors_.layers[i].attention_norm, AttentionNormPlace(pass, i), absl::nullopt);
  if (level == Recompute::kAttention) ForwardAttention(pass, i);
}

void Passes::BackwardMlp(const Pass& pass, int64_t i, GradientSink& sink) {
  const ActivationPlan& plan = pass.plan;
  const LayerTensors& layer = tensors_.layers[i];
  const int64_t rows = plan.Rows();
  void* dbranch = pass.At(plan.ddelta);
  void* x = pass.At(plan.layer.mlp_norm.Of(i));
  LinearWeightGradient(layer.mlp_out, rows, pass.At(plan.layer.mlp_mid.Of(i)), dbranch, sink);
  if (gpt2()) {
    LinearInputGradient(layer.mlp_out, rows, dbranch, pass.At(plan.dmlp_in),
                        /*gelu_input=*/pass.At(plan.layer.mlp_in.Of(i)));
  } else {
    LinearInputGradient(layer.mlp_out, rows, dbranch, pass.At(plan.dmlp_mid));
    ops_.SwiGluBackward(SwiGlu(pass, i));
  }
  BackwardInto(pass, layer.mlp_in, plan.dmlp_in, x, sink);
}

void Passes::BackwardAttention(const Pass& pass, int64_t i, GradientSink& sink) {
  const ActivationPlan& plan = pass.plan;
  const LayerTensors& layer = tensors_.layers[i];
  void* dbranch = pass.At(plan.ddelta);
  LinearWeightGradient(layer.attention_out, plan.Rows(), pass.At(plan.layer.attention.Of(i)), dbranch, sink);
  LinearInputGradient(layer.attention_out, plan.Rows(), dbranch, pass.At(plan.dattention));
  const AttentionViews gradients = SplitAttention(pass, plan.dattention_in);
  AttentionArgs args = Attention(pass, i);
  args.dout = View(pass.At(plan.dattention));
  args.dq = gradients.q;
  args.dk = gradients.k;
  args.dv = gradients.v;
  ops_.AttentionBackward(args);
  Rotate(pass, gradients, /*inverse=*/true);
  BackwardInto(pass, layer.attention_in, plan.dattention_in, pass.At(plan.layer.attention_norm.Of(i)), sink);
}

void Passes::BackwardInto(const Pass& pass, const std::vector<LinearTensors>& linears, int64_t dy, void* x,
                          GradientSink& sink) {
  const int64_t rows = pass.plan.Rows();
  for (const LinearTensors& linear : linears) {
    LinearWeightGradient(linear, rows, x, pass.At(dy), sink);
    LinearInputGradient(linear, rows, pass.At(dy), pass.At(pass.plan.dnorm), nullptr,
                        /*accumulate=*/&linear != &linears.front());
    dy += rows * linear.out * SizeOf(precision_);
  }
}

}  // namespace accrue
