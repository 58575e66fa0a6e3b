// Every default of docs/job_file.md.
#include <algorithm>

#include "common/loss_scale.h"
#include "common/spec/job_spec.h"

namespace accrue {
namespace {

void FillModel(v1::ModelSpec& model) {
  if (!model.has_dropout()) model.set_dropout(0);
  if (model.architecture().empty()) return;  // model.from, not read yet
  const bool gpt2 = model.architecture() == "gpt2";
  if (!model.has_kv_heads() && model.has_heads()) model.set_kv_heads(model.heads());
  if (!model.has_hidden() && model.width() > 0 && model.width() < (int64_t{1} << 40)) {
    // Llama's SwiGLU has three matrices of width x hidden where GPT-2 has two: 8/3 keeps their sizes equal.
    model.set_hidden(gpt2 ? 4 * model.width() : (8 * model.width() / 3 + 63) / 64 * 64);
  }
  if (!model.has_tie_embeddings()) model.set_tie_embeddings(gpt2);
  if (!model.has_qkv_bias()) model.set_qkv_bias(gpt2);
  if (!model.has_rope_theta() && !gpt2) model.set_rope_theta(10000);
  if (!model.has_norm_epsilon()) model.set_norm_epsilon(1e-5);
}

void FillBatch(const v1::ModelSpec& model, v1::BatchSpec& batch) {
  if (!batch.has_micro_batch() && batch.has_sequences()) {
    batch.set_micro_batch(batch.sequences() % 4 == 0 ? 4 : batch.sequences() % 2 == 0 ? 2 : 1);
  }
  if (!batch.has_sequence_length() && model.has_context()) batch.set_sequence_length(model.context());
}

void FillOptimizer(const v1::BatchSpec& batch, v1::OptimizerSpec& optimizer) {
  if (optimizer.name().empty()) optimizer.set_name("adamw");
  const bool adamw = optimizer.name() == "adamw";
  if (!optimizer.has_learning_rate()) optimizer.set_learning_rate(1e-3);
  if (adamw && optimizer.betas().empty()) {
    optimizer.add_betas(0.9);
    optimizer.add_betas(0.95);
  }
  if (adamw && !optimizer.has_epsilon()) optimizer.set_epsilon(1e-8);
  if (!adamw && !optimizer.has_momentum()) optimizer.set_momentum(0.9);
  if (!optimizer.has_weight_decay()) optimizer.set_weight_decay(adamw ? 0.1 : 0);
  if (optimizer.batch_rule().empty()) optimizer.set_batch_rule("none");
  if (!optimizer.has_base_sequences() && batch.has_sequences())
    optimizer.set_base_sequences(batch.sequences());
}

void FillEvaluation(const v1::JobSpec& spec, v1::EvaluationSpec& evaluation) {
  if (!evaluation.has_every_windows())
    evaluation.set_every_windows(spec.data().validation().empty() ? 0 : 100);
  const int64_t unit = spec.batch().micro_batch();
  if (!evaluation.has_sequences() && unit >= 1 && unit <= (1 << 20)) {
    evaluation.set_sequences((64 + unit - 1) / unit * unit);
  }
}

}  // namespace

absl::Status FillDefaults(v1::JobSpec& spec) {
  FillModel(*spec.mutable_model());
  if (spec.data().order().empty()) spec.mutable_data()->set_order("shuffled");
  FillBatch(spec.model(), *spec.mutable_batch());
  if (spec.accumulation().mode().empty()) spec.mutable_accumulation()->set_mode("exact");
  if (spec.precision().empty()) spec.set_precision("fp32");
  if (spec.precision() == "fp16") {
    v1::LossScaleSpec& scale = *spec.mutable_loss_scale();
    if (!scale.has_initial()) scale.set_initial(kDefaultInitialLossScale);
    if (!scale.has_growth_windows()) scale.set_growth_windows(kDefaultGrowthWindows);
  }
  if (spec.recompute().empty()) spec.set_recompute("none");
  FillOptimizer(spec.batch(), *spec.mutable_optimizer());
  v1::ScheduleSpec& schedule = *spec.mutable_schedule();
  if (schedule.name().empty()) schedule.set_name("cosine");
  if (!schedule.has_warmup_windows()) schedule.set_warmup_windows(0);
  if (!schedule.has_minimum_ratio()) schedule.set_minimum_ratio(0.1);
  if (!spec.has_clip_norm()) spec.set_clip_norm(1);
  FillEvaluation(spec, *spec.mutable_evaluation());
  v1::CheckpointSpec& checkpoint = *spec.mutable_checkpoint();
  if (!checkpoint.has_every_windows()) checkpoint.set_every_windows(500);
  if (!checkpoint.has_keep()) checkpoint.set_keep(3);
  v1::WorkersSpec& workers = *spec.mutable_workers();
  if (!workers.has_min()) workers.set_min(1);
  if (!spec.has_seed()) spec.set_seed(0);
  if (!spec.audit().has_fraction()) spec.mutable_audit()->set_fraction(0);

  if (!spec.batch().has_sequences() || spec.batch().sequences() < 1 || spec.batch().micro_batch() < 1) {
    return absl::InvalidArgumentError("batch.sequences and batch.micro_batch: expected integers from 1 on");
  }
  if (!workers.has_max()) {
    workers.set_max(std::max(workers.min(), spec.batch().sequences() / spec.batch().micro_batch()));
  }
  return absl::OkStatus();
}

}  // namespace accrue
