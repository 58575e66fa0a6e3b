#include "worker/model/passes.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/model/rope.h"

namespace accrue {

Passes::Passes(const ModelConfig& model, DType precision, bool tf32, uint64_t seed, const TransformerTensors& tensors,
               const ParameterLayout& layout, Backend& backend)
    : model_(model),
      precision_(precision),
      tf32_(tf32),
      seed_(seed),
      tensors_(tensors),
      layout_(layout),
      backend_(backend),
      ops_(backend.model_ops()),
      embedding_site_(NameHash("embedding")) {
  for (int64_t i = 0; i < model_.layers; ++i) {
    const std::string prefix = absl::StrCat("layers.", i, ".");
    sites_.push_back({.attention = NameHash(prefix + "attention"),
                      .attention_out = NameHash(prefix + "attention_out"),
                      .mlp_out = NameHash(prefix + "mlp_out")});
  }
}

absl::Status Passes::Allocate(int64_t sequence_length) {
  const int64_t table = layout_.tensors()[tensors_.token_table].elements;
  ACCRUE_ASSIGN_OR_RETURN(table_gradient_, backend_.Allocate(table * sizeof(float)));
  ACCRUE_ASSIGN_OR_RETURN(scratch_, backend_.Allocate(ScratchElements() * sizeof(float)));
  if (precision_ != DType::kF32) {
    ACCRUE_ASSIGN_OR_RETURN(compute_copy_, backend_.Allocate(layout_.arena_elements() * 2));
  }
  return PrepareRope(sequence_length);
}

int64_t Passes::SizeBytes() const {
  size_t size_bytes = 0;
  for (const auto* buffer : {&table_gradient_, &scratch_, &compute_copy_, &rope_cosine_, &rope_sine_}) {
    if (*buffer) size_bytes += (*buffer)->size_bytes();
  }
  return static_cast<int64_t>(size_bytes);
}

void Passes::ParametersChanged() {
  ACCRUE_CHECK(parameters_ != nullptr);
  if (compute_copy_) ops_.Convert(parameters_, {compute_copy_->data(), precision_}, layout_.arena_elements());
}

absl::Status Passes::PrepareRope(int64_t positions) {
  if (gpt2() || positions <= rope_positions_) return absl::OkStatus();
  const RopeTables tables = MakeRopeTables(model_, positions);
  const size_t size_bytes = tables.cosine.size() * sizeof(float);
  ACCRUE_ASSIGN_OR_RETURN(rope_cosine_, backend_.Allocate(size_bytes));
  ACCRUE_ASSIGN_OR_RETURN(rope_sine_, backend_.Allocate(size_bytes));
  backend_.CopyToDevice(rope_cosine_->data(), tables.cosine.data(), size_bytes);
  backend_.CopyToDevice(rope_sine_->data(), tables.sine.data(), size_bytes);
  rope_positions_ = positions;
  return absl::OkStatus();
}

Tensor Passes::Weight(int tensor) const {
  if (tensor < 0) return {};
  const int64_t offset = layout_.tensors()[tensor].arena_offset;
  if (compute_copy_) return {compute_copy_->as<uint16_t>() + offset, precision_};
  return {const_cast<float*>(parameters_) + offset, DType::kF32};
}

void* Passes::Row(const Pass& pass, int64_t offset, int64_t row, int64_t width) const {
  return pass.At(offset + row * width * SizeOf(precision_));
}

Dropout Passes::DropoutAt(const Pass& pass, uint32_t site) const {
  return {.probability = pass.dropout, .seed = seed_, .window = pass.window, .unit = pass.unit, .site = site};
}

Passes::AttentionViews Passes::SplitAttention(const Pass& pass, int64_t offset) const {
  const int64_t q = heads_width(), kv = model_.kv_heads * model_.HeadSize();
  std::byte* begin = pass.arena + offset;
  const int64_t element = SizeOf(precision_), rows = gpt2() ? 1 : pass.plan.Rows();
  return {.q = View(begin),
          .k = View(begin + rows * q * element),
          .v = View(begin + rows * (q + kv) * element),
          .q_stride = gpt2() ? 3 * q : q,
          .kv_stride = gpt2() ? 3 * q : kv};
}

AttentionArgs Passes::Attention(const Pass& pass, int64_t layer) const {
  const ActivationPlan& plan = pass.plan;
  const LayerActivations& a = plan.layer;
  const AttentionViews views = SplitAttention(pass, a.attention_in.Of(layer));
  return {.batch = plan.batch,
          .sequence_length = plan.sequence_length,
          .heads = model_.heads,
          .kv_heads = model_.kv_heads,
          .head_size = model_.HeadSize(),
          .q = views.q,
          .k = views.k,
          .v = views.v,
          .out = View(pass.At(a.attention.Of(layer))),
          .q_stride = views.q_stride,
          .k_stride = views.kv_stride,
          .v_stride = views.kv_stride,
          .out_stride = heads_width(),
          .log_sum_exp = pass.Floats(a.log_sum_exp.Of(layer)),
          .dropout = DropoutAt(pass, sites_[layer].attention)};
}

void Passes::Rotate(const Pass& pass, const AttentionViews& views, bool inverse) {
  if (gpt2()) return;
  RopeArgs args{.rows = pass.plan.Rows(),
                .sequence_length = pass.plan.sequence_length,
                .heads = model_.heads,
                .head_size = model_.HeadSize(),
                .stride = views.q_stride,
                .x = views.q,
                .cosine = rope_cosine_->as<float>(),
                .sine = rope_sine_->as<float>(),
                .inverse = inverse};
  ops_.Rope(args);
  args.heads = model_.kv_heads;
  args.stride = views.kv_stride;
  args.x = views.k;
  ops_.Rope(args);
}

void Passes::Linear(const LinearTensors& linear, int64_t rows, void* x, void* y, void* gelu_input,
                    bool again) {
  ops_.LinearForward({.rows = rows,
                      .in = linear.in,
                      .out = linear.out,
                      .layout = linear.layout,
                      .x = View(x),
                      .weight = Weight(linear.weight),
                      .bias = Weight(linear.bias),
                      .y = View(y),
                      .gelu_input = View(gelu_input),
                      .again = again,
                      .tf32 = tf32_});
}

Passes::NormPlace Passes::AttentionNormPlace(const Pass& pass, int64_t layer) const {
  const LayerActivations& a = pass.plan.layer;
  return {a.residual_in.Of(layer), a.attention_norm.Of(layer), a.attention_mean.Of(layer),
          a.attention_rstd.Of(layer)};
}

Passes::NormPlace Passes::MlpNormPlace(const Pass& pass, int64_t layer) const {
  const LayerActivations& a = pass.plan.layer;
  return {a.residual_mid.Of(layer), a.mlp_norm.Of(layer), a.mlp_mean.Of(layer), a.mlp_rstd.Of(layer)};
}

Passes::NormPlace Passes::FinalNormPlace(const Pass& pass) const {
  const ActivationPlan& plan = pass.plan;
  return {plan.residual_out, plan.final_norm, plan.final_mean, plan.final_rstd};
}

void Passes::ForwardNorm(const Pass& pass, const NormTensors& norm, const NormPlace& place,
                         absl::optional<Branch> branch) {
  NormForwardArgs args{.rows = pass.plan.Rows(),
                       .width = model_.width,
                       .kind = norm_kind(),
                       .epsilon = static_cast<float>(model_.norm_epsilon),
                       .x = View(pass.At(place.x)),
                       .gamma = Weight(norm.gamma),
                       .beta = Weight(norm.beta),
                       .y = View(pass.At(place.y)),
                       .mean = pass.Floats(place.mean),
                       .rstd = pass.Floats(place.rstd)};
  if (branch) {
    args.x = View(pass.At(branch->residual));
    args.delta = View(pass.At(pass.plan.delta));
    args.sum = View(pass.At(place.x));
    args.dropout = DropoutAt(pass, branch->site);
  }
  ops_.NormForward(args);
}

void Passes::Forward(const Pass& pass) {
  const ActivationPlan& plan = pass.plan;
  ops_.EmbeddingForward({.rows = plan.Rows(),
                         .sequence_length = plan.sequence_length,
                         .width = model_.width,
                         .tokens = static_cast<const int32_t*>(pass.At(plan.tokens)),
                         .token_table = Weight(tensors_.token_table),
                         .position_table = Weight(tensors_.position_table),
                         .y = View(pass.At(AttentionNormPlace(pass, 0).x)),
                         .dropout = DropoutAt(pass, embedding_site_)});
  // Every branch leaves its output in `delta`; the norm that follows adds it to the residual.
  absl::optional<Branch> mlp;
  for (int64_t i = 0; i < model_.layers; ++i) {
    const LayerTensors& layer = tensors_.layers[i];
    ForwardNorm(pass, layer.attention_norm, AttentionNormPlace(pass, i), mlp);
    ForwardToMlpNorm(pass, i);
    ForwardMlpMid(pass, i, /*again=*/false);
    Linear(layer.mlp_out, plan.Rows(), pass.At(plan.layer.mlp_mid.Of(i)), pass.At(plan.delta));
    mlp = Branch{.residual = MlpNormPlace(pass, i).x, .site = sites_[i].mlp_out};
  }
  ForwardNorm(pass, tensors_.final_norm, FinalNormPlace(pass), mlp);
}

void Passes::ForwardAttention(const Pass& pass, int64_t i) {
  const ActivationPlan& plan = pass.plan;
  const int64_t begin = plan.layer.attention_in.Of(i);
  int64_t out = begin;
  for (const LinearTensors& linear : tensors_.layers[i].attention_in) {
    Linear(linear, plan.Rows(), pass.At(plan.layer.attention_norm.Of(i)), pass.At(out));
    out += plan.Rows() * linear.out * SizeOf(precision_);
  }
  Rotate(pass, SplitAttention(pass, begin), /*inverse=*/false);
  ops_.AttentionForward(Attention(pass, i));
}

void Passes::ForwardToMlpNorm(const Pass& pass, int64_t i) {
  const LayerTensors& layer = tensors_.layers[i];
  ForwardAttention(pass, i);
  Linear(layer.attention_out, pass.plan.Rows(), pass.At(pass.plan.layer.attention.Of(i)),
         pass.At(pass.plan.delta));
  const Branch attention{.residual = AttentionNormPlace(pass, i).x, .site = sites_[i].attention_out};
  ForwardNorm(pass, layer.mlp_norm, MlpNormPlace(pass, i), attention);
}

void Passes::ForwardMlpMid(const Pass& pass, int64_t i, bool again) {
  const ActivationPlan& plan = pass.plan;
  const LayerTensors& layer = tensors_.layers[i];
  void* x = pass.At(plan.layer.mlp_norm.Of(i));
  if (gpt2()) {
    Linear(layer.mlp_in[0], plan.Rows(), x, pass.At(plan.layer.mlp_mid.Of(i)),
           /*gelu_input=*/pass.At(plan.layer.mlp_in.Of(i)), again);
    return;
  }
  const SwiGluArgs args = SwiGlu(pass, i);
  if (!again) {
    Linear(layer.mlp_in[0], plan.Rows(), x, args.gate.data);
    Linear(layer.mlp_in[1], plan.Rows(), x, args.up.data);
  }
  ops_.SwiGluForward(args);
}

SwiGluArgs Passes::SwiGlu(const Pass& pass, int64_t i) const {
  const ActivationPlan& plan = pass.plan;
  const int64_t mlp_in = plan.layer.mlp_in.Of(i), rows = plan.Rows();
  return {.rows = rows,
          .hidden = model_.hidden,
          .gate_stride = model_.hidden,
          .gate = View(pass.At(mlp_in)),
          .up = View(Row(pass, mlp_in, rows, model_.hidden)),
          .y = View(pass.At(plan.layer.mlp_mid.Of(i))),
          .dy = View(pass.At(plan.dmlp_mid)),
          .dgate = View(pass.At(plan.dmlp_in)),
          .dup = View(Row(pass, plan.dmlp_in, rows, model_.hidden))};
}

void Passes::HeadForward(const Pass& pass, int64_t begin, int64_t rows) {
  Linear(tensors_.head, rows, Row(pass, pass.plan.final_norm, begin, model_.width),
         pass.At(pass.plan.logits));
}

}  // namespace accrue
