#include <cmath>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/loss_scale.h"
#include "common/precision.h"
#include "common/spec/hints.h"
#include "common/spec/job_spec.h"
#include "common/spec/problems.h"

namespace accrue::spec {
namespace {

constexpr int64_t kMaxSequences = 1 << 24;
constexpr int64_t kMaxWindows = 1'000'000'000;

// "none, norms or block"
std::string OneOf(const std::vector<std::string>& words) {
  return absl::StrCat(absl::StrJoin(words.begin(), words.end() - 1, ", "), words.size() > 1 ? " or " : "", words.back());
}

class Checker {
 public:
  Checker(const v1::JobSpec& spec, Problems& problems) : spec_(spec), problems_(problems) {}

  void CheckAll() {
    CheckName();
    CheckModel();
    CheckData();
    CheckBatch();
    Word("recompute", spec_.recompute(), {"none", "norms", "attention", "block"});
    Word("accumulation.mode", spec_.accumulation().mode(), {"exact", "fast"});
    CheckPrecision();
    CheckOptimizer();
    CheckSchedule();
    CheckLength();
    CheckEvaluation();
    Integer("checkpoint.every_windows", spec_.checkpoint().every_windows(), 0, kMaxWindows);
    Integer("checkpoint.keep", spec_.checkpoint().keep(), 1, 1000000);
    CheckWorkers();
    CheckAudit();
  }

 private:
  void CheckPrecision() {
    std::vector<std::string> precisions;
    for (Precision precision : kPrecisions) precisions.push_back(PrecisionName(precision));
    Word("precision", spec_.precision(), precisions);
    if (!spec_.has_loss_scale()) return;
    const v1::LossScaleSpec& scale = spec_.loss_scale();
    constexpr int64_t kMostInitial = int64_t{1} << kMostInitialLossScale;
    const int64_t initial = scale.initial();
    if (scale.has_initial() && (initial < 1 || initial > kMostInitial || (initial & (initial - 1)) != 0)) {
      problems_.Add("loss_scale.initial", absl::StrCat("loss_scale.initial: expected a power of two from 1 to ",
                                                       kMostInitial, ", found ", initial));
    }
    if (scale.has_growth_windows()) {
      Integer("loss_scale.growth_windows", scale.growth_windows(), 1, kMaxWindows);
    }
  }

  bool Integer(const std::string& path, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return !problems_.Spoiled(path);
    problems_.Add(path,
                  absl::StrCat(path, ": expected an integer from ", least, " to ", most, ", found ", value));
    return false;
  }

  // A finite number for which `good` holds; `range` says which those are.
  bool Number(const std::string& path, double value, bool good, absl::string_view range) {
    if (std::isfinite(value) && good) return !problems_.Spoiled(path);
    problems_.Add(path, absl::StrCat(path, ": expected a number ", range, ", found ", value));
    return false;
  }

  bool Word(const std::string& path, const std::string& word, const std::vector<std::string>& allowed) {
    for (const std::string& one : allowed) {
      if (word == one) return !problems_.Spoiled(path);
    }
    problems_.Add(path, absl::StrCat(path, ": expected ", OneOf(allowed), ", found \"",
                                     absl::Utf8SafeCEscape(word.substr(0, 100)), "\"",
                                     HintForUnknownWord(word, allowed)));
    return false;
  }

  void CheckName() {
    const std::string& name = spec_.name();
    if (name.empty()) {
      return problems_.Add("name", "missing required field \"name\": the job's name, such as name: headers");
    }
    bool good = name.size() <= 64 && absl::ascii_isalnum(static_cast<unsigned char>(name[0]));
    for (const char c : name) {
      good = good && (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.');
    }
    if (good) return;
    problems_.Add(
        "name",
        absl::StrCat("name: expected at most 64 letters, digits, \"-\", \"_\" and \".\", a letter or digit "
                     "first (it becomes a folder's name), found \"",
                     absl::Utf8SafeCEscape(name.substr(0, 100)), "\""));
  }

  void CheckModel() {
    const v1::ModelSpec& model = spec_.model();
    Number("model.dropout", model.dropout(), model.dropout() >= 0 && model.dropout() < 1,
           "from 0 to below 1");
    const bool from_alone = !model.from().empty() && model.architecture().empty();
    if (from_alone) return;
    if (!HasShape(model)) {
      return problems_.Add(
          "model", "missing required field \"model\": write its shape, or from: a Hugging Face folder");
    }
    if (model.architecture().empty()) {
      problems_.Add("model.architecture",
                    "missing required field \"model.architecture\": gpt2 or llama (or model.from)");
    } else {
      Word("model.architecture", model.architecture(), {"gpt2", "llama"});
    }
    Shape("vocabulary", model.has_vocabulary(), model.vocabulary(), 2, 1 << 24);
    Shape("context", model.has_context(), model.context(), 1, 1 << 20);
    Shape("layers", model.has_layers(), model.layers(), 1, 1024);
    const bool heads = Shape("heads", model.has_heads(), model.heads(), 1, 4096);
    const bool width = Shape("width", model.has_width(), model.width(), 1, 1 << 17);
    if (model.has_hidden() && width) Integer("model.hidden", model.hidden(), 1, 1 << 20);
    if (heads && width) CheckHeads(model);
    if (model.has_rope_theta()) {
      Number("model.rope_theta", model.rope_theta(), model.rope_theta() > 1 && model.rope_theta() < 1e12,
             "above 1");
    }
    if (model.has_rope_scaling()) CheckRopeScaling(model.rope_scaling());
    if (model.has_norm_epsilon()) {
      Number("model.norm_epsilon", model.norm_epsilon(),
             model.norm_epsilon() >= 1e-12 && model.norm_epsilon() < 1, "from 1e-12 to below 1");
    }
    if (model.architecture() == "gpt2" && model.has_qkv_bias() && !model.qkv_bias()) {
      problems_.Add("model.qkv_bias",
                    "model.qkv_bias: gpt2 always has these biases: write true, or leave the field out");
    }
  }

  // A dimension that has no default.
  bool Shape(const std::string& name, bool present, int64_t value, int64_t least, int64_t most) {
    const std::string path = absl::StrCat("model.", name);
    if (present) return Integer(path, value, least, most);
    problems_.Add(path,
                  absl::StrCat("missing required field \"", path, "\": an integer from ", least, " on"));
    return false;
  }

  void CheckRopeScaling(const v1::RopeScalingSpec& scaling) {
    const std::string path = "model.rope_scaling";
    if (!Word(path + ".type", scaling.type(), {"linear", "llama3"})) return;
    Number(path + ".factor", scaling.factor(), scaling.factor() >= 1 && scaling.factor() <= 1e6, "from 1 on");
    if (scaling.type() == "linear") return;
    const double low = scaling.low_freq_factor(), high = scaling.high_freq_factor();
    Number(path + ".low_freq_factor", low, low > 0 && low <= 1e6, "above 0");
    Number(path + ".high_freq_factor", high, high > low && high <= 1e6, "above low_freq_factor");
    Integer(path + ".original_max_position_embeddings", scaling.original_max_position_embeddings(), 1,
            1 << 24);
  }

  void CheckHeads(const v1::ModelSpec& model) {
    const int64_t heads = model.heads(), width = model.width();
    if (width % heads != 0) {
      return problems_.Add("model.heads", absl::StrCat("model.heads: expected a divisor of model.width ",
                                                       width, ", found ", heads));
    }
    if (model.architecture() == "llama" && width / heads % 2 != 0) {
      problems_.Add("model.heads",
                    absl::StrCat("model.heads: expected an even head size for rotary positions, found ",
                                 width / heads, " (model.width ", width, " / ", heads, " heads)"));
    }
    if (!Integer("model.kv_heads", model.kv_heads(), 1, 4096)) return;
    if (heads % model.kv_heads() != 0) {
      problems_.Add("model.kv_heads", absl::StrCat("model.kv_heads: expected a divisor of model.heads ",
                                                   heads, ", found ", model.kv_heads()));
    } else if (model.architecture() == "gpt2" && model.kv_heads() != heads) {
      problems_.Add("model.kv_heads",
                    absl::StrCat("model.kv_heads: gpt2 has as many as model.heads, ", heads, ", found ",
                                 model.kv_heads(), ": leave it out, or write architecture: llama"));
    }
  }

  void CheckData() {
    const v1::DataSpec& data = spec_.data();
    Word("data.order", data.order(), {"shuffled", "sequential"});
    if (data.train().empty()) {
      problems_.Add(
          "data.train",
          "missing required field \"data.train\": a list of token shards, such as [\"data/train-*.bin\"]");
    }
    for (int i = 0; i < data.train_size(); ++i) CheckPath(absl::StrCat("data.train[", i, "]"), data.train(i));
    for (int i = 0; i < data.validation_size(); ++i) {
      CheckPath(absl::StrCat("data.validation[", i, "]"), data.validation(i));
    }
    if (!spec_.model().from().empty()) CheckPath("model.from", spec_.model().from());
  }

  void CheckPath(const std::string& path, const std::string& value) {
    if (value.empty()) {
      problems_.Add(path, absl::StrCat(path, ": expected a path, found empty text"));
    } else if (value.size() > 4096 || value.find('\0') != std::string::npos) {
      problems_.Add(path, absl::StrCat(path, ": expected a path of at most 4096 bytes without NUL"));
    }
  }

  void CheckBatch() {
    const v1::BatchSpec& batch = spec_.batch();
    if (!batch.has_sequences()) {
      return problems_.Add(
          "batch.sequences",
          "missing required field \"batch.sequences\": the effective batch, the sequences of a window");
    }
    const bool sequences = Integer("batch.sequences", batch.sequences(), 1, kMaxSequences);
    unit_good_ = Integer("batch.micro_batch", batch.micro_batch(), 1, 1 << 16);
    if (sequences && unit_good_)
      Multiple("batch.sequences", batch.sequences(), "a window is made of whole units");
    if (!batch.has_sequence_length()) return;  // follows model.context, which is reported when it is missing
    const bool length = Integer("batch.sequence_length", batch.sequence_length(), 1, 1 << 20);
    if (length && spec_.model().has_context() && spec_.model().context() >= 1 &&
        !problems_.Spoiled("model.context") && batch.sequence_length() > spec_.model().context()) {
      problems_.Add("batch.sequence_length",
                    absl::StrCat("batch.sequence_length: expected at most model.context ",
                                 spec_.model().context(), ", found ", batch.sequence_length()));
    }
  }

  // Whether `value` is made of whole units.
  void Multiple(const std::string& path, int64_t value, absl::string_view why) {
    const int64_t unit = spec_.batch().micro_batch();
    if (value % unit == 0) return;
    const int64_t below = value / unit * unit;
    problems_.Add(path, absl::StrCat(path, ": expected a multiple of batch.micro_batch ", unit, " (", why,
                                     "), found ", value, "; ", below > 0 ? absl::StrCat(below, " and ") : "",
                                     below + unit, below > 0 ? " are near" : " is the nearest"));
  }

  void CheckOptimizer() {
    const v1::OptimizerSpec& o = spec_.optimizer();
    Word("optimizer.name", o.name(), {"adamw", "sgd"});
    Number("optimizer.learning_rate", o.learning_rate(), o.learning_rate() > 0 && o.learning_rate() <= 1e6,
           "above 0");
    if (o.betas_size() != 0 && o.betas_size() != 2) {
      problems_.Add(
          "optimizer.betas",
          absl::StrCat("optimizer.betas: expected two numbers such as [0.9, 0.95], found ", o.betas_size()));
    }
    for (int i = 0; i < o.betas_size(); ++i) {
      Number(absl::StrCat("optimizer.betas[", i, "]"), o.betas(i), o.betas(i) >= 0 && o.betas(i) < 1,
             "from 0 to below 1");
    }
    if (o.has_epsilon()) {
      Number("optimizer.epsilon", o.epsilon(), o.epsilon() >= 1e-30 && o.epsilon() <= 1, "from 1e-30 to 1");
    }
    Number("optimizer.weight_decay", o.weight_decay(), o.weight_decay() >= 0 && o.weight_decay() <= 1000,
           "from 0 to 1000");
    if (o.has_momentum()) {
      Number("optimizer.momentum", o.momentum(), o.momentum() >= 0 && o.momentum() < 1, "from 0 to below 1");
    }
    Word("optimizer.batch_rule", o.batch_rule(), {"none", "linear", "sqrt"});
    if (o.has_base_sequences()) Integer("optimizer.base_sequences", o.base_sequences(), 1, kMaxSequences);
  }

  void CheckSchedule() {
    const v1::ScheduleSpec& schedule = spec_.schedule();
    Word("schedule.name", schedule.name(), {"constant", "linear", "cosine", "wsd"});
    Integer("schedule.warmup_windows", schedule.warmup_windows(), 0, kMaxWindows);
    Number("schedule.minimum_ratio", schedule.minimum_ratio(),
           schedule.minimum_ratio() >= 0 && schedule.minimum_ratio() <= 1, "from 0 to 1");
    if (schedule.has_decay_windows())
      Integer("schedule.decay_windows", schedule.decay_windows(), 1, kMaxWindows);
  }

  void CheckLength() {
    const bool spoiled = problems_.Spoiled("windows") || problems_.Spoiled("epochs");
    if (spec_.has_windows() && spec_.has_epochs()) {
      problems_.Add("epochs", "both windows and epochs are written: keep one, the other follows from it");
    } else if (!spec_.has_windows() && !spec_.has_epochs() && !spoiled) {
      problems_.Add(
          "windows",
          "missing required field \"windows\" (or \"epochs\"): how long to train, in optimizer steps");
    }
    Number("clip_norm", spec_.clip_norm(), spec_.clip_norm() >= 0, "from 0 on (0: no clipping)");
    if (spec_.has_windows()) Integer("windows", spec_.windows(), 1, kMaxWindows);
    if (spec_.has_epochs())
      Number("epochs", spec_.epochs(), spec_.epochs() > 0 && spec_.epochs() <= 1e6, "above 0, at most 1e6");
  }

  void CheckEvaluation() {
    const v1::EvaluationSpec& evaluation = spec_.evaluation();
    Integer("evaluation.every_windows", evaluation.every_windows(), 0, kMaxWindows);
    if (!unit_good_ || !evaluation.has_sequences()) return;
    if (Integer("evaluation.sequences", evaluation.sequences(), 1, kMaxSequences)) {
      Multiple("evaluation.sequences", evaluation.sequences(), "an evaluation is made of whole units");
    }
  }

  void CheckWorkers() {
    const v1::WorkersSpec& workers = spec_.workers();
    const bool least = Integer("workers.min", workers.min(), 1, 100000);
    if (!workers.has_max()) return;  // follows the batch, whose faults are reported
    const bool most = Integer("workers.max", workers.max(), 1, kMaxSequences);
    if (least && most && workers.min() > workers.max()) {
      problems_.Add("workers.min", absl::StrCat("workers.min: expected at most workers.max ", workers.max(),
                                                ", found ", workers.min()));
    }
  }

  void CheckAudit() {
    const double fraction = spec_.audit().fraction();
    const bool good = Number("audit.fraction", fraction, fraction >= 0 && fraction <= 1, "from 0 to 1");
    if (good && fraction > 0 && spec_.accumulation().mode() == "fast") {
      problems_.Add("audit.fraction",
                    absl::StrCat("audit.fraction: expected 0 with accumulation.mode fast (only exact units have "
                                 "checksums to compare), found ",
                                 fraction, ": write accumulation: {mode: exact}, or leave audit out"));
    }
  }

  static bool HasShape(const v1::ModelSpec& model) {
    return !model.architecture().empty() || model.has_vocabulary() || model.has_context() ||
           model.has_layers() || model.has_heads() || model.has_width() || model.has_hidden();
  }

  const v1::JobSpec& spec_;
  Problems& problems_;
  bool unit_good_ = false;
};

}  // namespace

void CheckSpec(const v1::JobSpec& spec, Problems& problems) { Checker(spec, problems).CheckAll(); }

}  // namespace accrue::spec
