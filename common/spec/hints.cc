#include "common/spec/hints.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "accrue/v1/job.pb.h"

namespace accrue::spec {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

constexpr char kEffectiveBatch[] =
    "write batch.sequences, the sequences of a whole window over all workers; it stays the same however many workers "
    "there are";
constexpr char kAccumulationSteps[] =
    "write batch.sequences, the effective batch, instead: each worker's accumulation steps follow from it and from the "
    "worker's speed";
constexpr char kMicroBatch[] =
    "write batch.micro_batch, the sequences computed at once; it belongs to the job, not to a device";
constexpr char kPrecision[] = "write precision: bf16 or precision: fp32";
constexpr char kNoLossScale[] =
    "write precision: bf16 or precision: fp32; there is no fp16 here, and so no loss scale";
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
constexpr char kOutput[] = "the output folder is not part of the job: accrue run and accrue submit take --output";
constexpr char kResume[] = "accrue run --output DIR resumes by itself; --resume-from W chooses another checkpoint";
constexpr char kThreads[] = "threads are not part of the job: accrue run and accrue-worker take --threads";
constexpr char kDataWorkers[] = "there is nothing to write: workers prefetch by themselves";
constexpr char kBeta[] = "write optimizer.betas: [0.9, 0.95]";
constexpr char kTrain[] = "write data.train: a list of token shards, such as [\"data/train-*.bin\"]";
constexpr char kValidation[] = "write data.validation: a list of token shards";
constexpr char kTokenizer[] =
    "the tokenizer is not part of the job: accrue data prepare uses it and keeps it beside the token shards";
constexpr char kOrder[] = "write data.order: shuffled or sequential";
constexpr char kSchedule[] = "write schedule.minimum_ratio: the last rate as a share of the peak";

const absl::flat_hash_map<std::string, const char*>& Habits() {
  static const auto* const kHabits = new absl::flat_hash_map<std::string, const char*>{
      {"gradient_accumulation_steps", kAccumulationSteps}, {"gradient_accumulation", kAccumulationSteps},
      {"grad_accum_steps", kAccumulationSteps}, {"grad_accumulation_steps", kAccumulationSteps},
      {"accumulation_steps", kAccumulationSteps}, {"accumulate_grad_batches", kAccumulationSteps},
      {"update_freq", kAccumulationSteps},
      {"global_batch_size", kEffectiveBatch}, {"train_batch_size", kEffectiveBatch},
      {"total_batch_size", kEffectiveBatch}, {"effective_batch_size", kEffectiveBatch},
      {"batch_size", kEffectiveBatch}, {"global_batch", kEffectiveBatch}, {"effective_batch", kEffectiveBatch},
      {"per_device_train_batch_size", kMicroBatch}, {"per_device_batch_size", kMicroBatch},
      {"micro_batch_size", kMicroBatch}, {"train_micro_batch_size_per_gpu", kMicroBatch},
      {"device_batch_size", kMicroBatch}, {"local_batch_size", kMicroBatch}, {"microbatch_size", kMicroBatch},
      {"bf16", kPrecision}, {"tf32", kPrecision}, {"mixed_precision", kPrecision}, {"dtype", kPrecision},
      {"torch_dtype", kPrecision}, {"amp", kPrecision}, {"fp16", kNoLossScale}, {"loss_scale", kNoLossScale},
      {"half_precision", kNoLossScale}, {"grad_scaler", kNoLossScale},
      {"max_steps", kWindows}, {"steps", kWindows}, {"train_steps", kWindows}, {"num_steps", kWindows},
      {"total_steps", kWindows}, {"max_iters", kWindows}, {"train_iters", kWindows}, {"num_iterations", kWindows},
      {"max_train_steps", kWindows}, {"iterations", kWindows}, {"num_train_steps", kWindows},
      {"num_train_epochs", kEpochs}, {"num_epochs", kEpochs}, {"max_epochs", kEpochs}, {"n_epochs", kEpochs},
      {"lr", kRate}, {"max_lr", kRate}, {"peak_lr", kRate}, {"base_lr", kRate}, {"learning_rate_max", kRate},
      {"lr_scheduler_type", kScheduleName}, {"lr_scheduler", kScheduleName}, {"lr_decay_style", kScheduleName},
      {"scheduler", kScheduleName}, {"decay_lr", kScheduleName}, {"lr_schedule", kScheduleName},
      {"min_lr", kSchedule}, {"min_lr_ratio", kSchedule}, {"final_lr", kSchedule}, {"lr_end", kSchedule},
      {"warmup_steps", kWarmup}, {"num_warmup_steps", kWarmup}, {"warmup_iters", kWarmup}, {"warmup_ratio", kWarmup},
      {"lr_warmup_iters", kWarmup}, {"warmup", kWarmup},
      {"max_grad_norm", kClip}, {"gradient_clipping", kClip}, {"grad_clip", kClip}, {"clip_grad", kClip},
      {"gradient_clip_val", kClip}, {"clip_grad_norm", kClip}, {"max_norm", kClip}, {"gradient_clip", kClip},
      {"seq_length", kSequenceLength}, {"seq_len", kSequenceLength}, {"max_seq_length", kSequenceLength},
      {"max_length", kSequenceLength}, {"block_size", kSequenceLength}, {"cutoff_len", kSequenceLength},
      {"sequence_len", kSequenceLength}, {"context_length", kContext}, {"n_positions", kContext}, {"n_ctx", kContext},
      {"max_position_embeddings", kContext}, {"max_seq_len", kContext},
      {"hidden_size", kWidth}, {"n_embd", kWidth}, {"d_model", kWidth}, {"dim", kWidth}, {"embed_dim", kWidth},
      {"model_dim", kWidth}, {"embedding_size", kWidth},
      {"n_layer", kLayers}, {"n_layers", kLayers}, {"num_layers", kLayers}, {"num_hidden_layers", kLayers},
      {"depth", kLayers},
      {"n_head", kHeads}, {"n_heads", kHeads}, {"num_heads", kHeads}, {"num_attention_heads", kHeads},
      {"n_kv_heads", kKvHeads}, {"num_key_value_heads", kKvHeads}, {"num_kv_heads", kKvHeads},
      {"num_query_groups", kKvHeads}, {"multi_query_group_num", kKvHeads},
      {"intermediate_size", kHidden}, {"ffn_hidden_size", kHidden}, {"n_inner", kHidden}, {"d_ff", kHidden},
      {"ffn_dim", kHidden}, {"mlp_dim", kHidden}, {"hidden_dim", kHidden},
      {"vocab_size", kVocabulary}, {"n_vocab", kVocabulary}, {"padded_vocab_size", kVocabulary}, {"vocab", kVocabulary},
      {"model_name_or_path", kFrom}, {"pretrained", kFrom}, {"pretrained_model_name_or_path", kFrom},
      {"init_from", kFrom}, {"base_model", kFrom}, {"model_name", kFrom}, {"model_path", kFrom},
      {"tie_word_embeddings", kTie}, {"tied_embeddings", kTie}, {"weight_tying", kTie},
      {"resid_pdrop", kDropout}, {"attn_pdrop", kDropout}, {"embd_pdrop", kDropout}, {"attention_dropout", kDropout},
      {"hidden_dropout", kDropout}, {"attention_bias", "write model.qkv_bias"},
      {"save_steps", kCheckpointEvery}, {"save_interval", kCheckpointEvery}, {"save_every", kCheckpointEvery},
      {"checkpoint_interval", kCheckpointEvery}, {"checkpoint_every", kCheckpointEvery},
      {"save_strategy", kCheckpointEvery}, {"save_total_limit", kKeep}, {"keep_last", kKeep},
      {"eval_steps", kEvaluateEvery}, {"eval_interval", kEvaluateEvery}, {"eval_every", kEvaluateEvery},
      {"evaluation_strategy", kEvaluateEvery}, {"eval_strategy", kEvaluateEvery},
      {"eval_iters", kEvaluateSize}, {"per_device_eval_batch_size", kEvaluateSize},
      {"nproc_per_node", kWorkers}, {"num_workers", kWorkers}, {"world_size", kWorkers}, {"num_gpus", kWorkers},
      {"n_gpus", kWorkers}, {"nnodes", kWorkers}, {"num_processes", kWorkers}, {"devices", kWorkers},
      {"min_workers", kWorkers}, {"max_workers", kWorkers},
      {"output_dir", kOutput}, {"output_directory", kOutput}, {"out_dir", kOutput}, {"save_dir", kOutput},
      {"output", kOutput}, {"resume", kResume}, {"resume_from_checkpoint", kResume}, {"load", kResume},
      {"threads", kThreads}, {"num_threads", kThreads},
      {"dataloader_num_workers", kDataWorkers}, {"prefetch_factor", kDataWorkers}, {"pin_memory", kDataWorkers},
      {"beta1", kBeta}, {"beta2", kBeta}, {"adam_beta1", kBeta}, {"adam_beta2", kBeta}, {"betas_adam", kBeta},
      {"eps", "write optimizer.epsilon"}, {"adam_epsilon", "write optimizer.epsilon"},
      {"wd", "write optimizer.weight_decay"}, {"optim", "write optimizer.name: adamw or sgd"},
      {"train_file", kTrain}, {"train_files", kTrain}, {"train_data", kTrain}, {"train_data_path", kTrain},
      {"data_path", kTrain}, {"dataset", kTrain}, {"datasets", kTrain}, {"train_bin", kTrain}, {"data_dir", kTrain},
      {"validation_file", kValidation}, {"valid_data_path", kValidation}, {"val_data", kValidation},
      {"val_bin", kValidation}, {"eval_dataset", kValidation}, {"tokenizer", kTokenizer},
      {"tokenizer_path", kTokenizer}, {"tokenizer_name", kTokenizer}, {"shuffle", kOrder},
      {"random_seed", "write seed"}, {"data_seed", "write seed: one seed keys everything that is random"},
      {"manual_seed", "write seed"},
  };
  return *kHabits;
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
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

std::string HintForUnknownField(absl::string_view name, const Descriptor& where) {
  const std::string lower = absl::AsciiStrToLower(name);
  if (const auto habit = Habits().find(lower); habit != Habits().end()) return absl::StrCat(": ", habit->second);
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
