#include "common/spec/hints.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "accrue/v1/job.pb.h"

namespace accrue::spec {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

constexpr char kEffectiveBatch[] =
    "write batch.sequences, the sequences of a whole window over all workers; it stays the same however many "
    "workers there are";
constexpr char kAccumulationSteps[] =
    "write batch.sequences, the effective batch, instead: each worker's accumulation steps follow from it "
    "and from the worker's speed";
constexpr char kMicroBatch[] =
    "write batch.micro_batch, the sequences computed at once; it belongs to the job, not to a device";
constexpr char kPrecision[] = "write precision: bf16, fp16, tf32 or fp32";
constexpr char kLossScale[] =
    "write precision: fp16, and loss_scale: {initial: 1024} where the first loss scale is to be another";
constexpr char kGrowthWindows[] = "write loss_scale.growth_windows, counted in optimizer steps";
constexpr char kWindows[] = "write windows: a window is one optimizer step";
constexpr char kEpochs[] = "write epochs";
constexpr char kRate[] = "write optimizer.learning_rate";
constexpr char kScheduleName[] = "write schedule.name: constant, linear, cosine or wsd";
constexpr char kWarmup[] = "write schedule.warmup_windows, counted in optimizer steps";
constexpr char kClip[] = "write clip_norm: the largest global gradient norm, 0 for no clipping";
constexpr char kSequenceLength[] = "write batch.sequence_length";
constexpr char kContext[] = "write model.context";
constexpr char kWidth[] = "write model.width";
constexpr char kLayers[] = "write model.layers";
constexpr char kHeads[] = "write model.heads";
constexpr char kKvHeads[] = "write model.kv_heads";
constexpr char kHidden[] = "write model.hidden";
constexpr char kVocabulary[] = "write model.vocabulary";
constexpr char kFrom[] = "write model.from: a Hugging Face folder to start from";
constexpr char kTie[] = "write model.tie_embeddings";
constexpr char kDropout[] = "write model.dropout: one probability for all places";
constexpr char kCheckpointEvery[] = "write checkpoint.every_windows";
constexpr char kKeep[] = "write checkpoint.keep";
constexpr char kEvaluateEvery[] = "write evaluation.every_windows";
constexpr char kEvaluateSize[] = "write evaluation.sequences";
constexpr char kWorkers[] =
    "write workers: {min: 1, max: 8}; workers come and go while the job runs, and accrue run takes --workers";
constexpr char kOutput[] =
    "the output folder is not part of the job: accrue run and accrue submit take --output";
constexpr char kResume[] =
    "accrue run --output DIR resumes by itself; --resume-from W chooses another checkpoint";
constexpr char kThreads[] = "threads are not part of the job: accrue run and accrue-worker take --threads";
constexpr char kDataWorkers[] = "there is nothing to write: workers prefetch by themselves";
constexpr char kAudit[] = "write audit: {fraction: 0.01}, the share of units that two workers compute";
constexpr char kRecompute[] =
    "write recompute: norms, attention or block, each of which computes more again in the backward pass and "
    "keeps less";
constexpr char kBeta[] = "write optimizer.betas: [0.9, 0.95]";
constexpr char kTrain[] = "write data.train: a list of token shards, such as [\"data/train-*.bin\"]";
constexpr char kValidation[] = "write data.validation: a list of token shards";
constexpr char kTokenizer[] =
    "the tokenizer is not part of the job: accrue data prepare uses it and keeps it beside the token shards";
constexpr char kOrder[] = "write data.order: shuffled or sequential";
constexpr char kSchedule[] = "write schedule.minimum_ratio: the last rate as a share of the peak";

// Other tools' names, in words, and what to write instead.
struct Habit {
  const char* advice;
  const char* names;
};

constexpr Habit kHabits[] = {
    {kAccumulationSteps,
     "gradient_accumulation_steps gradient_accumulation grad_accum_steps grad_accumulation_steps "
     "accumulation_steps accumulate_grad_batches update_freq"},
    {kEffectiveBatch,
     "global_batch_size train_batch_size total_batch_size effective_batch_size batch_size global_batch "
     "effective_batch"},
    {kMicroBatch,
     "per_device_train_batch_size per_device_batch_size micro_batch_size train_micro_batch_size_per_gpu "
     "device_batch_size local_batch_size microbatch_size"},
    {kPrecision, "bf16 tf32 mixed_precision dtype torch_dtype amp"},
    {kLossScale, "fp16 half_precision grad_scaler init_scale initial_scale_power initial_loss_scale dynamic_loss_scale"},
    {kGrowthWindows, "growth_interval loss_scale_window scale_window"},
    {kWindows,
     "max_steps steps train_steps num_steps total_steps max_iters train_iters num_iterations max_train_steps "
     "iterations num_train_steps"},
    {kEpochs, "num_train_epochs num_epochs max_epochs n_epochs"},
    {kRate, "lr max_lr peak_lr base_lr learning_rate_max"},
    {kScheduleName, "lr_scheduler_type lr_scheduler lr_decay_style scheduler decay_lr lr_schedule"},
    {kSchedule, "min_lr min_lr_ratio final_lr lr_end"},
    {kWarmup, "warmup_steps num_warmup_steps warmup_iters warmup_ratio lr_warmup_iters warmup"},
    {kClip,
     "max_grad_norm gradient_clipping grad_clip clip_grad gradient_clip_val clip_grad_norm max_norm "
     "gradient_clip"},
    {kSequenceLength, "seq_length seq_len max_seq_length max_length block_size cutoff_len sequence_len"},
    {kContext, "context_length n_positions n_ctx max_position_embeddings max_seq_len"},
    {kWidth, "hidden_size n_embd d_model dim embed_dim model_dim embedding_size"},
    {kLayers, "n_layer n_layers num_layers num_hidden_layers depth"},
    {kHeads, "n_head n_heads num_heads num_attention_heads"},
    {kKvHeads, "n_kv_heads num_key_value_heads num_kv_heads num_query_groups multi_query_group_num"},
    {kHidden, "intermediate_size ffn_hidden_size n_inner d_ff ffn_dim mlp_dim hidden_dim"},
    {kVocabulary, "vocab_size n_vocab padded_vocab_size vocab"},
    {kFrom,
     "model_name_or_path pretrained pretrained_model_name_or_path init_from base_model model_name "
     "model_path"},
    {kTie, "tie_word_embeddings tied_embeddings weight_tying"},
    {kDropout, "resid_pdrop attn_pdrop embd_pdrop attention_dropout hidden_dropout"},
    {"write model.qkv_bias", "attention_bias"},
    {kCheckpointEvery,
     "save_steps save_interval save_every checkpoint_interval checkpoint_every save_strategy"},
    {kKeep, "save_total_limit keep_last"},
    {kEvaluateEvery, "eval_steps eval_interval eval_every evaluation_strategy eval_strategy"},
    {kEvaluateSize, "eval_iters per_device_eval_batch_size"},
    {kWorkers,
     "nproc_per_node num_workers world_size num_gpus n_gpus nnodes num_processes devices min_workers "
     "max_workers"},
    {kOutput, "output_dir output_directory out_dir save_dir output"},
    {kResume, "resume resume_from_checkpoint load"},
    {kThreads, "threads num_threads"},
    {kDataWorkers, "dataloader_num_workers prefetch_factor pin_memory"},
    {kAudit, "audit_fraction audit_rate audit_share"},
    {kRecompute,
     "gradient_checkpointing gradient_checkpointing_kwargs activation_checkpointing activation_checkpoint "
     "activations_checkpoint_granularity checkpoint_activations recompute_activations recompute_granularity "
     "recompute_method recompute_modules recompute_num_layers selective_recompute activation_recompute "
     "activation_checkpoint_mode use_gradient_checkpointing rematerialization remat"},
    {kBeta, "beta1 beta2 adam_beta1 adam_beta2 betas_adam"},
    {"write optimizer.epsilon", "eps adam_epsilon"},
    {"write optimizer.weight_decay", "wd"},
    {"write optimizer.name: adamw or sgd", "optim"},
    {kTrain,
     "train_file train_files train_data train_data_path data_path dataset datasets train_bin data_dir"},
    {kValidation, "validation_file valid_data_path val_data val_bin eval_dataset"},
    {kTokenizer, "tokenizer tokenizer_path tokenizer_name"},
    {kOrder, "shuffle"},
    {"write seed", "random_seed manual_seed"},
    {"write seed: one seed keys everything that is random", "data_seed"},
};

const absl::flat_hash_map<std::string, const char*>& Habits() {
  static const auto* const kByName = [] {
    auto* by_name = new absl::flat_hash_map<std::string, const char*>;
    for (const Habit& habit : kHabits) {
      for (const absl::string_view name : absl::StrSplit(habit.names, ' '))
        by_name->emplace(name, habit.advice);
    }
    return by_name;
  }();
  return *kByName;
}

// The paths at which a field of this name exists, under `descriptor`.
void FindPaths(const Descriptor& descriptor, const std::string& prefix, absl::string_view name,
               std::vector<std::string>& found) {
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    const std::string path = prefix.empty() ? field.name() : absl::StrCat(prefix, ".", field.name());
    if (field.name() == name) found.push_back(path);
    if (field.message_type() != nullptr) FindPaths(*field.message_type(), path, name, found);
  }
}

std::vector<std::string> FieldNames(const Descriptor& descriptor) {
  std::vector<std::string> names;
  for (int i = 0; i < descriptor.field_count(); ++i) names.push_back(descriptor.field(i)->name());
  return names;
}

// The nearest of `names` that is near enough to be a slip of the keyboard; empty without one.
std::string Nearest(absl::string_view word, const std::vector<std::string>& names) {
  const std::string lower = absl::AsciiStrToLower(word);
  std::string best;
  int least = std::min<int>(3, 1 + static_cast<int>(word.size()) / 4) + 1;
  for (const std::string& name : names) {
    if (const int distance = EditDistance(lower, name); distance < least) {
      least = distance;
      best = name;
    }
  }
  return best;
}

}  // namespace

int EditDistance(absl::string_view a, absl::string_view b) {
  if (a.size() > 100 || b.size() > 100) return 1000;
  std::vector<std::vector<int>> cost(a.size() + 1, std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) cost[i][0] = static_cast<int>(i);
  for (size_t j = 0; j <= b.size(); ++j) cost[0][j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      cost[i][j] =
          std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

std::string HintForUnknownField(absl::string_view name, const Descriptor& where) {
  const std::string lower = absl::AsciiStrToLower(name);
  if (const auto habit = Habits().find(lower); habit != Habits().end())
    return absl::StrCat(": ", habit->second);
  if (where.FindFieldByName(lower) != nullptr) return absl::StrCat(" (did you mean \"", lower, "\"?)");
  std::vector<std::string> elsewhere;
  FindPaths(*v1::JobSpec::descriptor(), "", lower, elsewhere);
  if (!elsewhere.empty()) return absl::StrCat(": it belongs at ", absl::StrJoin(elsewhere, " or "));
  if (const std::string nearest = Nearest(name, FieldNames(where)); !nearest.empty()) {
    return absl::StrCat(" (did you mean \"", nearest, "\"?)");
  }
  return absl::StrCat("; the fields here are ", absl::StrJoin(FieldNames(where), ", "));
}

std::string HintForUnknownWord(absl::string_view word, const std::vector<std::string>& allowed) {
  const std::string nearest = Nearest(word, allowed);
  return nearest.empty() ? "" : absl::StrCat(" (did you mean \"", nearest, "\"?)");
}

}  // namespace accrue::spec
