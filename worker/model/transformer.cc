#include "worker/model/transformer.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"
#include "worker/model/activations.h"
#include "worker/model/parameters.h"
#include "worker/model/rope.h"

namespace accrue {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 30;  // of a unit: rows fit an int32 with room

// Dropout's places within a layer.
struct LayerSites {
  uint32_t attention = 0, attention_out = 0, mlp_out = 0;
};

// One forward pass and what it runs on.
struct Pass {
  const ActivationPlan& plan;
  std::byte* arena;
  float dropout;  // 0 in evaluation
  int64_t window, unit;

  void* At(int64_t offset) const { return arena + offset; }
  float* Floats(int64_t offset) const { return static_cast<float*>(At(offset)); }
};

class Transformer : public Engine {
 public:
  Transformer(const TransformerOptions& options, TransformerTensors tensors, ParameterLayout layout, Backend& backend)
      : options_(options),
        model_(options_.model),
        tensors_(std::move(tensors)),
        layout_(std::move(layout)),
        backend_(backend),
        ops_(backend.model_ops()),
        training_plan_(PlanActivations(model_, options.precision, options.rows, options.sequence_length, true)),
        embedding_site_(NameHash("embedding")),
        host_losses_(training_plan_.Rows()),
        host_logits_(SizeOf(options.precision) * model_.vocabulary) {
    for (int64_t i = 0; i < model_.layers; ++i) {
      const std::string prefix = absl::StrCat("layers.", i, ".");
      sites_.push_back({.attention = NameHash(prefix + "attention"),
                        .attention_out = NameHash(prefix + "attention_out"),
                        .mlp_out = NameHash(prefix + "mlp_out")});
    }
  }

  absl::Status Allocate() {
    const int64_t forward_bytes = ForwardPlan(options_.rows, options_.sequence_length).size_bytes;
    ACCRUE_ASSIGN_OR_RETURN(arena_, backend_.Allocate(std::max(training_plan_.size_bytes, forward_bytes)));
    const int64_t table = layout_.tensors()[tensors_.token_table].elements;
    ACCRUE_ASSIGN_OR_RETURN(table_gradient_, backend_.Allocate(table * sizeof(float)));
    ACCRUE_ASSIGN_OR_RETURN(scratch_, backend_.Allocate(ScratchElements() * sizeof(float)));
    if (options_.precision == DType::kBF16) {
      ACCRUE_ASSIGN_OR_RETURN(compute_copy_, backend_.Allocate(layout_.arena_elements() * 2));
    }
    return PrepareRope(options_.sequence_length);
  }

  const ParameterLayout& layout() const override { return layout_; }
  void BindParameters(const float* parameters) override { parameters_ = parameters; }
  void ParametersChanged() override {
    ACCRUE_CHECK(parameters_ != nullptr);
    if (compute_copy_) ops_.ConvertToBf16(parameters_, compute_copy_->data(), layout_.arena_elements());
  }
  const void* ComputeCopy() const override { return compute_copy_ ? compute_copy_->data() : nullptr; }
  void InitializeParameters(uint64_t seed, float* host_arena) const override {
    InitializeArena(layout_, tensors_.initial, seed, host_arena);
  }
  int64_t vocabulary() const override { return model_.vocabulary; }

  absl::StatusOr<UnitLoss> ComputeUnit(const UnitInput& input, GradientSink& sink) override {
    if (input.rows != options_.rows) return WrongShape(input, absl::StrCat(options_.rows));
    ACCRUE_RETURN_IF_ERROR(CheckInput(input));
    const Pass pass{training_plan_, arena_->as<std::byte>(), static_cast<float>(model_.dropout), input.window,
                    input.unit};
    CopyInput(pass, input);
    Forward(pass);
    Head(pass, /*backward=*/true);
    Backward(pass, sink);
    return Loss(pass, input);
  }

  absl::StatusOr<UnitLoss> EvaluateUnit(const UnitInput& input) override {
    if (input.rows < 1 || input.rows > options_.rows) {
      return WrongShape(input, absl::StrCat("1 to ", options_.rows));
    }
    ACCRUE_RETURN_IF_ERROR(CheckInput(input));
    const ActivationPlan plan = ForwardPlan(input.rows, input.sequence_length);
    const Pass pass{plan, arena_->as<std::byte>(), 0, 0, 0};
    CopyInput(pass, input);
    Forward(pass);
    Head(pass, /*backward=*/false);
    return Loss(pass, input);
  }

  absl::Status NextTokenLogits(const int32_t* tokens, int64_t count, float* host_logits) override {
    if (count < 1 || count > model_.context) {
      return absl::InvalidArgumentError(
          absl::StrCat("a prompt of ", count, " tokens; expected 1 to ", model_.context, ", the model's context"));
    }
    ACCRUE_RETURN_IF_ERROR(CheckTokens(tokens, count, count));
    ACCRUE_RETURN_IF_ERROR(PrepareRope(count));
    const ActivationPlan plan = ForwardPlan(1, count);
    std::unique_ptr<DeviceBuffer> own;  // a prompt may be longer than a unit
    if (plan.size_bytes > static_cast<int64_t>(arena_->size_bytes())) {
      ACCRUE_ASSIGN_OR_RETURN(own, backend_.Allocate(plan.size_bytes));
    }
    const Pass pass{plan, (own ? own : arena_)->as<std::byte>(), 0, 0, 0};
    backend_.CopyToDevice(pass.At(plan.tokens), tokens, count * sizeof(int32_t));
    Forward(pass);
    HeadForward(pass, count - 1, 1);
    backend_.CopyToHost(host_logits_.data(), pass.At(plan.logits), host_logits_.size());
    ReadLogits(host_logits);
    return absl::OkStatus();
  }

  int64_t WorkspaceBytes() const override {
    size_t size_bytes = arena_->size_bytes() + table_gradient_->size_bytes() + scratch_->size_bytes();
    for (const auto* buffer : {&compute_copy_, &rope_cosine_, &rope_sine_}) {
      if (*buffer) size_bytes += (*buffer)->size_bytes();
    }
    return static_cast<int64_t>(size_bytes);
  }

 private:
  bool gpt2() const { return model_.architecture == Architecture::kGpt2; }
  NormKind norm_kind() const { return gpt2() ? NormKind::kLayerNorm : NormKind::kRmsNorm; }
  DType precision() const { return options_.precision; }
  int64_t heads_width() const { return model_.heads * model_.HeadSize(); }

  ActivationPlan ForwardPlan(int64_t rows, int64_t sequence_length) const {
    return PlanActivations(model_, options_.precision, rows, sequence_length, /*training=*/false);
  }

  // The most that one operation writes of gradients, the table's aside.
  int64_t ScratchElements() const {
    int64_t most = 2 * BiasOffset(model_.width);  // a norm's two
    for (const LayerTensors& layer : tensors_.layers) {
      std::vector<LinearTensors> linears = {layer.attention_out, layer.mlp_out};
      linears.insert(linears.end(), layer.attention_in.begin(), layer.attention_in.end());
      linears.insert(linears.end(), layer.mlp_in.begin(), layer.mlp_in.end());
      for (const LinearTensors& linear : linears) most = std::max(most, BiasOffset(linear.in * linear.out) + linear.out);
    }
    if (tensors_.position_table >= 0) most = std::max(most, layout_.tensors()[tensors_.position_table].elements);
    return most;
  }
  // Where the second tensor of a pair begins in the scratch, after `elements` of the first.
  static int64_t BiasOffset(int64_t elements) {
    return (elements + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
  }

  absl::Status PrepareRope(int64_t positions) {
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

  absl::Status WrongShape(const UnitInput& input, absl::string_view rows) const {
    return absl::InvalidArgumentError(absl::StrCat("unit ", input.unit, " of window ", input.window, " has ", input.rows,
                                                   " sequences of ", input.sequence_length, " tokens; expected ", rows,
                                                   " of ", options_.sequence_length));
  }

  absl::Status CheckTokens(const int32_t* tokens, int64_t count, int64_t sequence_length) const {
    for (int64_t i = 0; i < count; ++i) {
      if (tokens[i] >= 0 && tokens[i] < model_.vocabulary) continue;
      return absl::InvalidArgumentError(absl::StrCat("token ", tokens[i], " at sequence ", i / sequence_length,
                                                     ", position ", i % sequence_length,
                                                     "; expected 0 to ", model_.vocabulary - 1));
    }
    return absl::OkStatus();
  }

  absl::Status CheckInput(const UnitInput& input) const {
    if (input.sequence_length != options_.sequence_length) return WrongShape(input, absl::StrCat(options_.rows));
    const int64_t T = input.sequence_length;
    const std::string unit = absl::StrCat("unit ", input.unit, " of window ", input.window);
    ACCRUE_RETURN_IF_ERROR(Annotate(CheckTokens(input.tokens, input.rows * T, T), unit));
    for (int64_t i = 0; i < input.rows * T; ++i) {
      if (input.targets[i] >= -1 && input.targets[i] < model_.vocabulary) continue;
      return absl::InvalidArgumentError(absl::StrCat(unit, ": target ", input.targets[i], " at sequence ", i / T,
                                                     ", position ", i % T, "; expected -1 to ",
                                                     model_.vocabulary - 1));
    }
    return absl::OkStatus();
  }

  void CopyInput(const Pass& pass, const UnitInput& input) {
    const size_t size_bytes = pass.plan.Rows() * sizeof(int32_t);
    backend_.CopyToDevice(pass.At(pass.plan.tokens), input.tokens, size_bytes);
    backend_.CopyToDevice(pass.At(pass.plan.targets), input.targets, size_bytes);
  }

  UnitLoss Loss(const Pass& pass, const UnitInput& input) {
    UnitLoss loss;
    backend_.CopyToHost(host_losses_.data(), pass.At(pass.plan.losses), pass.plan.Rows() * sizeof(double));
    for (int64_t r = 0; r < pass.plan.Rows(); ++r) {
      if (input.targets[r] < 0) continue;
      loss.loss_sum += host_losses_[r];
      ++loss.valid_tokens;
    }
    return loss;
  }

  void ReadLogits(float* logits) const {
    for (int64_t i = 0; i < model_.vocabulary; ++i) {
      if (precision() == DType::kF32) {
        logits[i] = reinterpret_cast<const float*>(host_logits_.data())[i];
      } else {
        const uint32_t bits = uint32_t{reinterpret_cast<const uint16_t*>(host_logits_.data())[i]} << 16;
        logits[i] = std::bit_cast<float>(bits);
      }
    }
  }

  // Of the computation: activations and their gradients.
  Tensor View(void* data) const { return {data, precision()}; }
  Tensor Weight(int tensor) const {
    if (tensor < 0) return {};
    const int64_t offset = layout_.tensors()[tensor].arena_offset;
    if (compute_copy_) return {compute_copy_->as<uint16_t>() + offset, DType::kBF16};
    return {const_cast<float*>(parameters_) + offset, DType::kF32};
  }
  void* Row(const Pass& pass, int64_t offset, int64_t row, int64_t width) const {
    return pass.At(offset + row * width * SizeOf(precision()));
  }

  Dropout DropoutAt(const Pass& pass, uint32_t site) const {
    return {.probability = pass.dropout, .seed = options_.seed, .window = pass.window, .unit = pass.unit, .site = site};
  }

  // q, k and v lie side by side in GPT-2's one matrix, else in matrices of their own, one after the other.
  struct AttentionViews {
    Tensor q, k, v;
    int64_t q_stride = 0, kv_stride = 0;
  };
  AttentionViews SplitAttention(const Pass& pass, int64_t offset) const {
    const int64_t q = heads_width(), kv = model_.kv_heads * model_.HeadSize();
    std::byte* begin = pass.arena + offset;
    const int64_t element = SizeOf(precision()), rows = gpt2() ? 1 : pass.plan.Rows();
    return {.q = View(begin),
            .k = View(begin + rows * q * element),
            .v = View(begin + rows * (q + kv) * element),
            .q_stride = gpt2() ? 3 * q : q,
            .kv_stride = gpt2() ? 3 * q : kv};
  }
  AttentionArgs Attention(const Pass& pass, int64_t layer) const {
    const ActivationPlan& plan = pass.plan;
    const LayerActivations& a = plan.layer;
    const int64_t begin = plan.Layer(layer);
    const AttentionViews views = SplitAttention(pass, begin + a.attention_in);
    return {.batch = plan.batch,
            .sequence_length = plan.sequence_length,
            .heads = model_.heads,
            .kv_heads = model_.kv_heads,
            .head_size = model_.HeadSize(),
            .q = views.q,
            .k = views.k,
            .v = views.v,
            .out = View(pass.At(begin + a.attention)),
            .q_stride = views.q_stride,
            .k_stride = views.kv_stride,
            .v_stride = views.kv_stride,
            .out_stride = heads_width(),
            .log_sum_exp = pass.Floats(begin + a.log_sum_exp),
            .dropout = DropoutAt(pass, sites_[layer].attention)};
  }

  void Rotate(const Pass& pass, const AttentionViews& views, bool inverse) {
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

  void Linear(const LinearTensors& linear, int64_t rows, void* x, void* y, void* gelu_input = nullptr) {
    ops_.LinearForward({.rows = rows,
                        .in = linear.in,
                        .out = linear.out,
                        .layout = linear.layout,
                        .x = View(x),
                        .weight = Weight(linear.weight),
                        .bias = Weight(linear.bias),
                        .y = View(y),
                        .gelu_input = View(gelu_input)});
  }
  void LinearInputGradient(const LinearTensors& linear, int64_t rows, void* dy, void* dx, void* gelu_input = nullptr,
                           bool accumulate = false) {
    ops_.LinearBackwardInput({.rows = rows,
                              .in = linear.in,
                              .out = linear.out,
                              .layout = linear.layout,
                              .dy = View(dy),
                              .weight = Weight(linear.weight),
                              .dx = View(dx),
                              .gelu_input = View(gelu_input),
                              .accumulate = accumulate});
  }
  void LinearWeightGradient(const LinearTensors& linear, int64_t rows, void* x, void* dy, GradientSink& sink) {
    float* dweight = scratch_->as<float>();
    float* dbias = linear.bias < 0 ? nullptr : dweight + BiasOffset(linear.in * linear.out);
    ops_.LinearBackwardWeight({.rows = rows,
                               .in = linear.in,
                               .out = linear.out,
                               .layout = linear.layout,
                               .x = View(x),
                               .dy = View(dy),
                               .dweight = dweight,
                               .dbias = dbias});
    sink.Add(linear.weight, dweight);
    if (dbias != nullptr) sink.Add(linear.bias, dbias);
  }

  NormForwardArgs Norm(const Pass& pass, const NormTensors& norm) const {
    return {.rows = pass.plan.Rows(),
            .width = model_.width,
            .kind = norm_kind(),
            .epsilon = static_cast<float>(model_.norm_epsilon),
            .gamma = Weight(norm.gamma),
            .beta = Weight(norm.beta)};
  }

  // Adds the branch that lies in `delta` to the residual x, giving `sum`, and norms that.
  void AddAndNorm(const Pass& pass, const NormTensors& norm, int64_t x, int64_t sum, int64_t y, int64_t mean,
                  int64_t rstd, uint32_t site) {
    NormForwardArgs args = Norm(pass, norm);
    args.x = View(pass.At(x));
    args.delta = View(pass.At(pass.plan.delta));
    args.sum = View(pass.At(sum));
    args.y = View(pass.At(y));
    args.mean = pass.Floats(mean);
    args.rstd = pass.Floats(rstd);
    args.dropout = DropoutAt(pass, site);
    ops_.NormForward(args);
  }

  void Forward(const Pass& pass) {
    const ActivationPlan& plan = pass.plan;
    const LayerActivations& a = plan.layer;
    ops_.EmbeddingForward({.rows = plan.Rows(),
                           .sequence_length = plan.sequence_length,
                           .width = model_.width,
                           .tokens = static_cast<const int32_t*>(pass.At(plan.tokens)),
                           .token_table = Weight(tensors_.token_table),
                           .position_table = Weight(tensors_.position_table),
                           .y = View(pass.At(plan.Layer(0) + a.residual_in)),
                           .dropout = DropoutAt(pass, embedding_site_)});
    for (int64_t i = 0; i < model_.layers; ++i) {
      const LayerTensors& layer = tensors_.layers[i];
      const int64_t begin = plan.Layer(i);
      if (i == 0) {
        NormForwardArgs args = Norm(pass, layer.attention_norm);
        args.x = View(pass.At(begin + a.residual_in));
        args.y = View(pass.At(begin + a.attention_norm));
        args.mean = pass.Floats(begin + a.attention_mean);
        args.rstd = pass.Floats(begin + a.attention_rstd);
        ops_.NormForward(args);
      } else {
        AddAndNorm(pass, layer.attention_norm, plan.Layer(i - 1) + a.residual_mid, begin + a.residual_in,
                   begin + a.attention_norm, begin + a.attention_mean, begin + a.attention_rstd,
                   sites_[i - 1].mlp_out);
      }
      ForwardAttention(pass, i);
      AddAndNorm(pass, layer.mlp_norm, begin + a.residual_in, begin + a.residual_mid, begin + a.mlp_norm,
                 begin + a.mlp_mean, begin + a.mlp_rstd, sites_[i].attention_out);
      ForwardMlp(pass, i);
    }
    AddAndNorm(pass, tensors_.final_norm, plan.Layer(model_.layers - 1) + a.residual_mid, plan.residual_out,
               plan.final_norm, plan.final_mean, plan.final_rstd, sites_.back().mlp_out);
  }

  void ForwardAttention(const Pass& pass, int64_t i) {
    const ActivationPlan& plan = pass.plan;
    const LayerTensors& layer = tensors_.layers[i];
    const int64_t begin = plan.Layer(i);
    int64_t out = begin + plan.layer.attention_in;
    for (const LinearTensors& linear : layer.attention_in) {
      Linear(linear, plan.Rows(), pass.At(begin + plan.layer.attention_norm), pass.At(out));
      out += plan.Rows() * linear.out * SizeOf(precision());
    }
    Rotate(pass, SplitAttention(pass, begin + plan.layer.attention_in), /*inverse=*/false);
    ops_.AttentionForward(Attention(pass, i));
    Linear(layer.attention_out, plan.Rows(), pass.At(begin + plan.layer.attention), pass.At(plan.delta));
  }

  void ForwardMlp(const Pass& pass, int64_t i) {
    const ActivationPlan& plan = pass.plan;
    const LayerTensors& layer = tensors_.layers[i];
    const int64_t begin = plan.Layer(i);
    void* x = pass.At(begin + plan.layer.mlp_norm);
    void* mid = pass.At(begin + plan.layer.mlp_mid);
    if (gpt2()) {
      Linear(layer.mlp_in[0], plan.Rows(), x, mid, /*gelu_input=*/pass.At(begin + plan.layer.mlp_in));
    } else {
      const SwiGluArgs args = SwiGlu(pass, i);
      Linear(layer.mlp_in[0], plan.Rows(), x, args.gate.data);
      Linear(layer.mlp_in[1], plan.Rows(), x, args.up.data);
      ops_.SwiGluForward(args);
    }
    Linear(layer.mlp_out, plan.Rows(), mid, pass.At(plan.delta));
  }

  SwiGluArgs SwiGlu(const Pass& pass, int64_t i) const {
    const ActivationPlan& plan = pass.plan;
    const int64_t begin = plan.Layer(i), rows = plan.Rows();
    return {.rows = rows,
            .hidden = model_.hidden,
            .gate_stride = model_.hidden,
            .gate = View(pass.At(begin + plan.layer.mlp_in)),
            .up = View(Row(pass, begin + plan.layer.mlp_in, rows, model_.hidden)),
            .y = View(pass.At(begin + plan.layer.mlp_mid)),
            .dy = View(pass.At(plan.dmlp_mid)),
            .dgate = View(pass.At(plan.dmlp_in)),
            .dup = View(Row(pass, plan.dmlp_in, rows, model_.hidden))};
  }

  void HeadForward(const Pass& pass, int64_t begin, int64_t rows) {
    Linear(tensors_.head, rows, Row(pass, pass.plan.final_norm, begin, model_.width), pass.At(pass.plan.logits));
  }

  // Losses, by chunks of tokens so that the logits need little memory; backward: the gradients of the final norm's
  // output and of the head's weight, which is summed over the chunks.
  void Head(const Pass& pass, bool backward) {
    const ActivationPlan& plan = pass.plan;
    for (int64_t begin = 0; begin < plan.Rows(); begin += plan.head_rows) {
      const int64_t rows = std::min(plan.head_rows, plan.Rows() - begin);
      HeadForward(pass, begin, rows);
      ops_.CrossEntropy({.rows = rows,
                         .vocabulary = model_.vocabulary,
                         .logits = View(pass.At(plan.logits)),
                         .targets = static_cast<const int32_t*>(pass.At(plan.targets)) + begin,
                         .losses = static_cast<double*>(pass.At(plan.losses)) + begin,
                         .write_gradient = backward});
      if (!backward) continue;
      LinearInputGradient(tensors_.head, rows, pass.At(plan.logits), Row(pass, plan.dnorm, begin, model_.width));
      ops_.LinearBackwardWeight({.rows = rows,
                                 .in = tensors_.head.in,
                                 .out = tensors_.head.out,
                                 .layout = tensors_.head.layout,
                                 .x = View(Row(pass, plan.final_norm, begin, model_.width)),
                                 .dy = View(pass.At(plan.logits)),
                                 .dweight = table_gradient_->as<float>(),
                                 .accumulate = begin > 0});
    }
  }

  // Takes dnorm through a norm into dresidual, and on into the branch that was added before it (site; none for the
  // embedding). Without dropout that branch's gradient is dresidual itself.
  void BackwardNorm(const Pass& pass, const NormTensors& norm, int64_t x, int64_t mean, int64_t rstd, bool first,
                    const uint32_t* site, GradientSink& sink) {
    float* dgamma = scratch_->as<float>();
    float* dbeta = norm.beta < 0 ? nullptr : dgamma + BiasOffset(model_.width);
    NormBackwardArgs args{.rows = pass.plan.Rows(),
                          .width = model_.width,
                          .kind = norm_kind(),
                          .x = View(pass.At(x)),
                          .gamma = Weight(norm.gamma),
                          .dy = View(pass.At(pass.plan.dnorm)),
                          .dresidual = View(pass.At(pass.plan.dresidual)),
                          .mean = pass.Floats(mean),
                          .rstd = pass.Floats(rstd),
                          .dgamma = dgamma,
                          .dbeta = dbeta,
                          .first = first};
    if (site != nullptr && pass.dropout > 0) {
      args.ddelta = View(pass.At(pass.plan.ddelta));
      args.dropout = DropoutAt(pass, *site);
    }
    ops_.NormBackward(args);
    sink.Add(norm.gamma, dgamma);
    if (dbeta != nullptr) sink.Add(norm.beta, dbeta);
  }

  void Backward(const Pass& pass, GradientSink& sink) {
    const ActivationPlan& plan = pass.plan;
    const LayerActivations& a = plan.layer;
    float* table_gradient = table_gradient_->as<float>();
    if (!model_.tie_embeddings) {
      sink.Add(tensors_.head.weight, table_gradient);
      backend_.Zero(table_gradient, table_gradient_->size_bytes());
    }
    BackwardNorm(pass, tensors_.final_norm, plan.residual_out, plan.final_mean, plan.final_rstd, /*first=*/true,
                 &sites_.back().mlp_out, sink);
    for (int64_t i = model_.layers - 1; i >= 0; --i) {
      const LayerTensors& layer = tensors_.layers[i];
      const int64_t begin = plan.Layer(i);
      BackwardMlp(pass, i, sink);
      BackwardNorm(pass, layer.mlp_norm, begin + a.residual_mid, begin + a.mlp_mean, begin + a.mlp_rstd,
                   /*first=*/false, &sites_[i].attention_out, sink);
      BackwardAttention(pass, i, sink);
      BackwardNorm(pass, layer.attention_norm, begin + a.residual_in, begin + a.attention_mean,
                   begin + a.attention_rstd, /*first=*/false, i > 0 ? &sites_[i - 1].mlp_out : nullptr, sink);
    }
    float* dposition = tensors_.position_table < 0 ? nullptr : scratch_->as<float>();
    ops_.EmbeddingBackward({.rows = plan.Rows(),
                            .sequence_length = plan.sequence_length,
                            .width = model_.width,
                            .vocabulary = model_.vocabulary,
                            .context = model_.context,
                            .tokens = static_cast<const int32_t*>(pass.At(plan.tokens)),
                            .dy = View(pass.At(plan.dresidual)),
                            .dtoken = table_gradient,
                            .dposition = dposition,
                            .dropout = DropoutAt(pass, embedding_site_)});
    if (dposition != nullptr) sink.Add(tensors_.position_table, dposition);
    sink.Add(tensors_.token_table, table_gradient);
  }

  void BackwardMlp(const Pass& pass, int64_t i, GradientSink& sink) {
    const ActivationPlan& plan = pass.plan;
    const LayerTensors& layer = tensors_.layers[i];
    const int64_t begin = plan.Layer(i), rows = plan.Rows();
    void* dbranch = pass.At(plan.ddelta);
    void* x = pass.At(begin + plan.layer.mlp_norm);
    LinearWeightGradient(layer.mlp_out, rows, pass.At(begin + plan.layer.mlp_mid), dbranch, sink);
    if (gpt2()) {
      LinearInputGradient(layer.mlp_out, rows, dbranch, pass.At(plan.dmlp_in),
                          /*gelu_input=*/pass.At(begin + plan.layer.mlp_in));
    } else {
      LinearInputGradient(layer.mlp_out, rows, dbranch, pass.At(plan.dmlp_mid));
      ops_.SwiGluBackward(SwiGlu(pass, i));
    }
    BackwardInto(pass, layer.mlp_in, plan.dmlp_in, x, sink);
  }

  void BackwardAttention(const Pass& pass, int64_t i, GradientSink& sink) {
    const ActivationPlan& plan = pass.plan;
    const LayerTensors& layer = tensors_.layers[i];
    const int64_t begin = plan.Layer(i);
    void* dbranch = pass.At(plan.ddelta);
    LinearWeightGradient(layer.attention_out, plan.Rows(), pass.At(begin + plan.layer.attention), dbranch, sink);
    LinearInputGradient(layer.attention_out, plan.Rows(), dbranch, pass.At(plan.dattention));
    const AttentionViews gradients = SplitAttention(pass, plan.dattention_in);
    AttentionArgs args = Attention(pass, i);
    args.dout = View(pass.At(plan.dattention));
    args.dq = gradients.q;
    args.dk = gradients.k;
    args.dv = gradients.v;
    ops_.AttentionBackward(args);
    Rotate(pass, gradients, /*inverse=*/true);
    BackwardInto(pass, layer.attention_in, plan.dattention_in, pass.At(begin + plan.layer.attention_norm), sink);
  }

  // Through the linears that share the input x, whose output gradients lie one after the other at dy, into dnorm.
  void BackwardInto(const Pass& pass, const std::vector<LinearTensors>& linears, int64_t dy, void* x,
                    GradientSink& sink) {
    const int64_t rows = pass.plan.Rows();
    for (const LinearTensors& linear : linears) {
      LinearWeightGradient(linear, rows, x, pass.At(dy), sink);
      LinearInputGradient(linear, rows, pass.At(dy), pass.At(pass.plan.dnorm), nullptr,
                          /*accumulate=*/&linear != &linears.front());
      dy += rows * linear.out * SizeOf(precision());
    }
  }

  const TransformerOptions options_;
  const ModelConfig& model_;
  const TransformerTensors tensors_;
  const ParameterLayout layout_;
  Backend& backend_;
  ModelOps& ops_;
  const ActivationPlan training_plan_;
  const uint32_t embedding_site_;
  std::vector<LayerSites> sites_;

  const float* parameters_ = nullptr;
  std::unique_ptr<DeviceBuffer> arena_;
  std::unique_ptr<DeviceBuffer> table_gradient_;  // of the head, and of the token table
  std::unique_ptr<DeviceBuffer> scratch_;         // of the tensors that one operation gives
  std::unique_ptr<DeviceBuffer> compute_copy_;    // bf16 only
  std::unique_ptr<DeviceBuffer> rope_cosine_, rope_sine_;
  int64_t rope_positions_ = 0;
  std::vector<double> host_losses_;
  std::vector<std::byte> host_logits_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateTransformer(const TransformerOptions& options, Backend& backend) {
  ACCRUE_RETURN_IF_ERROR(ValidateModelConfig(options.model));
  if (options.sequence_length < 1 || options.sequence_length > options.model.context) {
    return absl::InvalidArgumentError(absl::StrCat("sequence_length is ", options.sequence_length,
                                                   "; expected 1 to model.context, ", options.model.context));
  }
  if (options.rows < 1 || options.rows > kMostTokens / options.sequence_length) {
    return absl::InvalidArgumentError(absl::StrCat("micro_batch is ", options.rows, "; expected 1 to ",
                                                   kMostTokens / options.sequence_length));
  }
  if (!backend.Supports(options.precision)) {
    return absl::UnimplementedError(absl::StrCat(backend.DeviceName(), " does not compute in ",
                                                 options.precision == DType::kF32 ? "fp32" : "bf16",
                                                 "; use another precision or device"));
  }
  TransformerTensors tensors = DescribeTensors(options.model);
  ACCRUE_ASSIGN_OR_RETURN(ParameterLayout layout, ParameterLayout::Build(tensors.shapes));
  auto transformer =
      std::make_unique<Transformer>(options, std::move(tensors), std::move(layout), backend);
  ACCRUE_RETURN_IF_ERROR(Annotate(transformer->Allocate(), "memory for activations and scratch"));
  return std::unique_ptr<Engine>(std::move(transformer));
}

}  // namespace accrue
