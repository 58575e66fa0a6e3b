#include "common/spec/job_spec.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/exponents.h"
#include "common/spec/problems.h"

namespace accrue {

absl::Status ValidateSpec(const v1::JobSpec& spec, const SourceMap* source) {
  spec::Problems problems(source);
  spec::CheckSpec(spec, problems);
  return problems.ToStatus();
}

std::vector<std::string> SpecWarnings(const v1::JobSpec& spec) {
  std::vector<std::string> warnings;
  const v1::OptimizerSpec& optimizer = spec.optimizer();
  if (optimizer.name() == "sgd" && !optimizer.betas().empty()) {
    warnings.push_back("optimizer.betas has no effect with sgd, which has optimizer.momentum");
  }
  if (optimizer.name() == "sgd" && optimizer.has_epsilon()) {
    warnings.push_back("optimizer.epsilon has no effect with sgd");
  }
  if (optimizer.name() != "sgd" && optimizer.has_momentum()) {
    warnings.push_back("optimizer.momentum has no effect with adamw, which has optimizer.betas");
  }
  if (spec.model().architecture() == "gpt2" && spec.model().has_rope_theta()) {
    warnings.push_back("model.rope_theta has no effect with gpt2, which learns its positions");
  }
  if (spec.model().architecture() == "gpt2" && spec.model().has_rope_scaling()) {
    warnings.push_back("model.rope_scaling has no effect with gpt2, which learns its positions");
  }
  if (spec.precision() == "tf32") {
    warnings.push_back("precision tf32 is computed on GPUs only: workers on a CPU are refused");
  }
  if (spec.has_loss_scale() && spec.precision() != "fp16") {
    warnings.push_back("loss_scale has no effect unless precision is fp16");
  }
  const v1::ScheduleSpec& schedule = spec.schedule();
  if (schedule.has_decay_windows() && schedule.name() != "wsd") {
    warnings.push_back("schedule.decay_windows has no effect unless schedule.name is wsd");
  }
  if (spec.has_windows() && schedule.warmup_windows() >= spec.windows()) {
    warnings.push_back(absl::StrCat("schedule.warmup_windows ", schedule.warmup_windows(),
                                    " is not over when the job's ", spec.windows(), " windows are"));
  }
  if (spec.data().validation().empty() && spec.evaluation().every_windows() > 0) {
    warnings.push_back("evaluation has no effect without data.validation");
  }
  if (!spec.data().validation().empty() && spec.evaluation().has_every_windows() &&
      spec.evaluation().every_windows() == 0) {
    warnings.push_back("data.validation has no effect while evaluation.every_windows is 0");
  }
  if (optimizer.batch_rule() != "none" && !optimizer.batch_rule().empty() &&
      optimizer.base_sequences() == spec.batch().sequences()) {
    warnings.push_back(
        "optimizer.batch_rule has no effect while optimizer.base_sequences equals batch.sequences");
  }
  return warnings;
}

int64_t UnitsPerWindow(const v1::JobSpec& spec) {
  ACCRUE_CHECK(spec.batch().micro_batch() >= 1);
  return spec.batch().sequences() / spec.batch().micro_batch();
}

int64_t EvaluationUnits(const v1::JobSpec& spec) {
  ACCRUE_CHECK(spec.batch().micro_batch() >= 1);
  if (spec.evaluation().every_windows() == 0 || spec.data().validation().empty()) return 0;
  return spec.evaluation().sequences() / spec.batch().micro_batch();
}

int64_t TokensPerWindow(const v1::JobSpec& spec) {
  return spec.batch().sequences() * spec.batch().sequence_length();
}

int64_t TotalWindows(const v1::JobSpec& spec, int64_t data_sequences) {
  if (spec.has_windows()) return spec.windows();
  ACCRUE_CHECK(spec.batch().sequences() >= 1 && data_sequences >= 0);
  const double windows =
      spec.epochs() * static_cast<double>(data_sequences) / static_cast<double>(spec.batch().sequences());
  // A product that is whole but for its rounding does not open a window of its own.
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(windows - 1e-9 * std::max(1.0, windows))));
}

std::optional<LossScaleConfig> LossScaleOf(const v1::JobSpec& spec) {
  if (spec.precision() != "fp16") return std::nullopt;
  LossScaleConfig config;
  config.initial_exponent = CeilLog2(spec.loss_scale().initial());
  config.growth_windows = spec.loss_scale().growth_windows();
  return config;
}

ScheduleConfig ScheduleOf(const v1::JobSpec& spec, int64_t total_windows) {
  const v1::OptimizerSpec& optimizer = spec.optimizer();
  const v1::ScheduleSpec& schedule = spec.schedule();
  ScheduleConfig config;
  if (schedule.name() == "constant") config.kind = ScheduleKind::kConstant;
  if (schedule.name() == "linear") config.kind = ScheduleKind::kLinear;
  if (schedule.name() == "cosine") config.kind = ScheduleKind::kCosine;
  if (schedule.name() == "wsd") config.kind = ScheduleKind::kWarmupStableDecay;
  config.learning_rate = optimizer.learning_rate();
  if (optimizer.base_sequences() >= 1) {
    const double ratio =
        static_cast<double>(spec.batch().sequences()) / static_cast<double>(optimizer.base_sequences());
    if (optimizer.batch_rule() == "linear") config.learning_rate *= ratio;
    if (optimizer.batch_rule() == "sqrt")
      config.learning_rate *= std::sqrt(ratio);  // correctly rounded by IEEE 754
  }
  config.warmup_windows = schedule.warmup_windows();
  config.total_windows = total_windows;
  config.decay_windows =
      schedule.has_decay_windows() ? schedule.decay_windows() : std::max<int64_t>(1, total_windows / 10);
  config.minimum_ratio = schedule.minimum_ratio();
  if (optimizer.betas_size() == 2) {
    config.beta1 = optimizer.betas(0);
    config.beta2 = optimizer.betas(1);
  }
  return config;
}

}  // namespace accrue
