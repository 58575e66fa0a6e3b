// export, verify and sample: what is done with checkpoints once they are there.
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/checkpoint_source.h"
#include "client/commands.h"
#include "client/compare.h"
#include "client/format.h"
#include "client/job_file.h"
#include "client/sampler.h"
#include "common/option_checks.h"
#include "common/status.h"
#include "worker/backend/backend.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/model/transformer.h"

namespace accrue {
namespace {

using nlohmann::ordered_json;

constexpr char kSourceHelp[] = "A run's output folder, a checkpoint's folder, a job";

// ---- export ----

struct ExportOptions {
  std::string source, folder, tokenizer;
  std::optional<int64_t> window;
  bool force = false;
};

void Describe(const Tokenizer& tokenizer, const std::string& directory, HuggingFaceExport& description) {
  for (const Tokenizer::File& file : tokenizer.Files()) {
    description.tokenizer_files.push_back(JoinPath(directory, file.name));
  }
  const int32_t end = tokenizer.end_of_document();
  if (end >= 0 && end < description.model.vocabulary) description.bos_token = description.eos_token = end;
}

void Export(CommandContext& context, const ExportOptions& options) {
  FileSystem& file_system = *context.file_system;
  const absl::StatusOr<std::vector<std::string>> there = file_system.List(options.folder);
  if (there.ok() && !there->empty() && !options.force) {
    return context.Fail(kExitRefused,
                        absl::StrCat(options.folder, " is not empty; --force writes into it all the same"));
  }
  const absl::StatusOr<WeightSource> weights = OpenWeights(context, options.source, options.window);
  if (!weights.ok()) return context.Fail(weights.status());

  HuggingFaceExport description{.model = weights->model};
  std::string tokenizer_directory =
      options.tokenizer.empty() ? weights->tokenizer_directory : options.tokenizer;
  if (!tokenizer_directory.empty()) {
    const auto tokenizer = Tokenizer::Load(file_system, tokenizer_directory);
    if (tokenizer.ok()) {
      Describe(**tokenizer, tokenizer_directory, description);
    } else if (options.tokenizer.empty() && absl::IsNotFound(tokenizer.status())) {
      tokenizer_directory.clear();
    } else {
      return context.Fail(tokenizer.status());
    }
  }
  if (tokenizer_directory.empty()) {
    context.Warn("no tokenizer is known for these weights; add one with --tokenizer DIR");
  }
  const absl::Status written =
      WriteHuggingFaceFolder(file_system, options.folder, description, weights->layout, weights->read);
  if (!written.ok()) return context.Fail(written);
  if (context.json()) {
    *context.out << ordered_json{{"folder", AbsolutePath(options.folder)},
                                 {"window", weights->window},
                                 {"parameters", weights->layout.parameters()},
                                 {"tokenizer", tokenizer_directory}}
                        .dump()
                 << "\n";
    return;
  }
  *context.out << "Exported " << weights->description << " ("
               << FormatParameters(weights->layout.parameters()) << " parameters) to " << options.folder
               << "\n";
  *context.err << "Load it: AutoModelForCausalLM.from_pretrained(\"" << options.folder << "\")\n";
}

// ---- verify ----

// The digest that windows.jsonl recorded for the window before the checkpoint; empty when there is none.
std::string RecordedDigest(FileSystem& file_system, const CheckpointEntry& entry) {
  const std::string path = JoinPath(DirectoryOf(DirectoryOf(entry.directory)), "windows.jsonl");
  const absl::StatusOr<std::unique_ptr<MappedFile>> file = file_system.Map(path);
  if (!file.ok()) return "";
  const absl::string_view text(reinterpret_cast<const char*>((*file)->data()), (*file)->size_bytes());
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const ordered_json record = ordered_json::parse(line.begin(), line.end(), nullptr, false);
    if (!record.is_object() || record.value("window", int64_t{-1}) != entry.window - 1) continue;
    const auto digest = record.find("digest");
    return digest != record.end() && digest->is_string() ? digest->get<std::string>() : "";
  }
  return "";
}

struct Verification {
  CheckpointEntry entry;
  std::string recorded, computed;
  absl::Status status;
};

Verification VerifyCheckpoint(FileSystem& file_system, const CheckpointEntry& entry) {
  Verification result{entry, "", "", absl::OkStatus()};
  const absl::StatusOr<CheckpointManifest> manifest = ReadManifest(file_system, entry.directory);
  if (!manifest.ok()) {
    result.status = manifest.status();
    return result;
  }
  result.entry.window = manifest->window;
  result.recorded = manifest->digest;
  const absl::StatusOr<Hash128> digest = ComputeCheckpointDigest(file_system, entry.directory);
  if (!digest.ok()) {
    result.status = digest.status();
    return result;
  }
  result.computed = digest->Hex();
  if (result.computed != result.recorded) {
    result.status = absl::DataLossError(absl::StrCat(entry.directory, ": expected digest ", result.recorded,
                                                     " (its manifest), found ", result.computed));
    return result;
  }
  const std::string logged = RecordedDigest(file_system, result.entry);
  if (!logged.empty() && logged != result.computed) {
    result.status = absl::DataLossError(absl::StrCat(entry.directory, ": expected digest ", logged,
                                                     " (windows.jsonl), found ", result.computed));
  }
  return result;
}

void Verify(CommandContext& context, const std::string& source) {
  const absl::StatusOr<std::vector<CheckpointEntry>> entries = FindCheckpoints(context, source);
  if (!entries.ok()) return context.Fail(entries.status());
  ordered_json list = ordered_json::array();
  bool all_good = true;
  ordered_json newest;
  for (const CheckpointEntry& entry : *entries) {
    const Verification result = VerifyCheckpoint(*context.file_system, entry);
    all_good = all_good && result.status.ok();
    newest = {{"window", result.entry.window}, {"directory", entry.directory},
              {"ok", result.status.ok()},      {"digest", result.computed},
              {"expected", result.recorded},   {"error", std::string(result.status.message())}};
    list.push_back(newest);
    if (!result.status.ok()) {
      context.Fail(kExitError, result.status.message());
    } else if (!context.json()) {
      *context.out << "window " << FormatCount(result.entry.window) << "  digest " << result.computed
                   << "  verified\n";
    }
  }
  if (!context.json()) return;
  *context.out << ordered_json{{"ok", all_good},
                               {"window", newest["window"]},
                               {"digest", newest["digest"]},
                               {"checkpoints", list}}
                      .dump()
               << "\n";
}

// ---- sample ----

struct SampleOptions {
  std::string source, prompt, tokenizer;
  std::optional<int64_t> window;
  int64_t tokens = 200;
  int threads = 0;
  SamplerOptions sampler;
};

// The model with its weights in memory.
class LoadedModel {
 public:
  static absl::StatusOr<std::unique_ptr<LoadedModel>> Load(const WeightSource& weights, int threads) {
    auto model = std::unique_ptr<LoadedModel>(new LoadedModel);
    model->backend_ = CreateCpuBackend(threads);
    ACCRUE_ASSIGN_OR_RETURN(
        model->engine_,
        CreateTransformer({.model = weights.model, .rows = 1, .sequence_length = weights.model.context},
                          *model->backend_));
    const ParameterLayout& layout = model->engine_->layout();
    const size_t elements = static_cast<size_t>(layout.arena_elements());
    std::vector<float> host(elements);
    for (size_t i = 0; i < layout.tensors().size(); ++i) {
      ACCRUE_RETURN_IF_ERROR(
          weights.read(static_cast<int>(i), host.data() + layout.tensors()[i].arena_offset));
    }
    ACCRUE_ASSIGN_OR_RETURN(model->parameters_, model->backend_->Allocate(elements * sizeof(float)));
    model->backend_->CopyToDevice(model->parameters_->data(), host.data(), elements * sizeof(float));
    model->engine_->BindParameters(model->parameters_->as<float>());
    model->engine_->ParametersChanged();
    return model;
  }
  Engine& engine() { return *engine_; }

 private:
  LoadedModel() = default;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<DeviceBuffer> parameters_;
  std::unique_ptr<Engine> engine_;
};

// Prints text as it grows, but never half a character: the end of a text that is still being drawn may be
// one.
class TextPrinter {
 public:
  explicit TextPrinter(std::ostream& out) : out_(out) {}
  void Update(const std::string& text) {
    size_t end = text.size();
    while (end > 0 && end + 4 > text.size() && (static_cast<unsigned char>(text[end - 1]) & 0x80) != 0) --end;
    Print(text, end);
  }
  void Finish(const std::string& text) { Print(text, text.size()); }

 private:
  void Print(const std::string& text, size_t end) {
    if (end > printed_) out_ << text.substr(printed_, end - printed_) << std::flush;
    printed_ = std::max(printed_, end);
  }
  std::ostream& out_;
  size_t printed_ = 0;
};

absl::StatusOr<std::vector<int32_t>> EncodePrompt(const Tokenizer& tokenizer, const std::string& prompt,
                                                  int64_t vocabulary) {
  ACCRUE_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer.Encode(prompt));
  // A document begins where the one before it ended.
  if (ids.empty() && tokenizer.end_of_document() >= 0) ids.push_back(tokenizer.end_of_document());
  if (ids.empty())
    return absl::InvalidArgumentError("--prompt is empty, and the tokenizer has no token to begin with");
  for (const int32_t id : ids) {
    if (id >= vocabulary) {
      return absl::FailedPreconditionError(absl::StrCat("the tokenizer gives token ", id,
                                                        " but the model's vocabulary is ", vocabulary,
                                                        ": this is not the tokenizer of this model"));
    }
  }
  return ids;
}

void Sample(CommandContext& context, const SampleOptions& options) {
  const absl::StatusOr<WeightSource> weights = OpenWeights(context, options.source, options.window);
  if (!weights.ok()) return context.Fail(weights.status());
  const std::string tokenizer_directory =
      options.tokenizer.empty() ? weights->tokenizer_directory : options.tokenizer;
  if (tokenizer_directory.empty()) {
    return context.Fail(kExitNotFound,
                        "no tokenizer is known for these weights; name its folder with --tokenizer DIR");
  }
  const auto tokenizer = Tokenizer::Load(*context.file_system, tokenizer_directory);
  if (!tokenizer.ok()) return context.Fail(tokenizer.status());
  absl::StatusOr<std::vector<int32_t>> prompt =
      EncodePrompt(**tokenizer, options.prompt, weights->model.vocabulary);
  if (!prompt.ok()) return context.Fail(kExitError, prompt.status().message());
  const absl::StatusOr<std::unique_ptr<LoadedModel>> model = LoadedModel::Load(*weights, options.threads);
  if (!model.ok()) return context.Fail(model.status());

  std::vector<int32_t> ids = *std::move(prompt);
  const std::string prefix = (*tokenizer)->Decode(ids);
  const int64_t drawable = std::min((*tokenizer)->vocabulary_size(), weights->model.vocabulary);
  std::vector<float> logits(static_cast<size_t>(weights->model.vocabulary));
  Sampler sampler(options.sampler);
  TextPrinter printer(*context.out);
  // What the tokens after the prompt add to it.
  const auto continuation = [&] {
    const std::string text = (*tokenizer)->Decode(ids);
    return absl::StartsWith(text, prefix) ? options.prompt + text.substr(prefix.size()) : text;
  };
  int64_t drawn = 0;
  bool ended = false;
  while (drawn < options.tokens && !ended) {
    const size_t count = std::min(ids.size(), static_cast<size_t>(weights->model.context));
    const absl::Status status = (*model)->engine().NextTokenLogits(
        ids.data() + ids.size() - count, static_cast<int64_t>(count), logits.data());
    if (!status.ok()) return context.Fail(status);
    const int32_t id = sampler.Draw(logits.data(), drawable);
    ended = id == (*tokenizer)->end_of_document();
    if (ended) break;
    ids.push_back(id);
    ++drawn;
    if (!context.json()) printer.Update(continuation());
  }
  if (!context.json()) {
    printer.Finish(continuation());
    *context.out << std::endl;
    return;
  }
  const ordered_json object = {{"prompt", options.prompt},
                               {"text", continuation()},
                               {"tokens", drawn},
                               {"ended", ended},
                               {"window", weights->window}};
  *context.out << object.dump(-1, ' ', false, ordered_json::error_handler_t::replace) << "\n";
}

void RegisterExport(CLI::App& app, CommandContext& context) {
  CLI::App* const command =
      AddCommand(app, "export",
                 "Write a checkpoint as a Hugging Face folder: config, weights in safetensors, tokenizer.",
                 "accrue export runs/headers weights\naccrue export headers weights --window 500");
  const auto options = std::make_shared<ExportOptions>();
  command->add_option("SOURCE", options->source, kSourceHelp)->required();
  command->add_option("DIR", options->folder, "The folder to write; created if need be")->required();
  command->add_option("--window", options->window, "The checkpoint of this window (default: the newest)");
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "Folder of the tokenizer (default: that of the training data)")
      ->type_name("DIR");
  command->add_flag("--force", options->force, "Write into a folder that is not empty");
  command->callback([&context, options] { Export(context, *options); });
}

void RegisterVerify(CLI::App& app, CommandContext& context) {
  CLI::App* const command =
      AddCommand(app, "verify",
                 "Check the digests of checkpoints, or of two runs: computed again from a checkpoint's files and "
                 "compared with its manifest and windows.jsonl; or one run's windows with the other's.",
                 "accrue verify runs/headers\naccrue verify runs/headers/checkpoints/window-00000500\n"
                 "accrue verify runs/first runs/second");
  const auto source = std::make_shared<std::string>(), other = std::make_shared<std::string>();
  command->add_option("SOURCE", *source, kSourceHelp)->required();
  command->add_option("OTHER", *other, "Another run's output folder, or job: both must have equal digests");
  command->callback([&context, source, other] {
    other->empty() ? Verify(context, *source) : VerifyRuns(context, *source, *other);
  });
}

void RegisterSample(CLI::App& app, CommandContext& context) {
  CLI::App* const command = AddCommand(
      app, "sample", "Let a checkpoint, or a Hugging Face folder, continue a text. One seed gives one text.",
      "accrue sample runs/headers --prompt '#include <' --tokens 100 --temperature 0.7");
  const auto options = std::make_shared<SampleOptions>();
  command->add_option("SOURCE", options->source, absl::StrCat(kSourceHelp, ", or a Hugging Face folder"))
      ->required();
  command->add_option("--prompt", options->prompt,
                      "The text to continue (default: the beginning of a document)");
  command->add_option("--tokens", options->tokens, "How many tokens to draw at most")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  command
      ->add_option("--temperature", options->sampler.temperature,
                   "Above 1 wilder, below 1 tamer, 0 the likeliest")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command->add_option("--top-k", options->sampler.top_k, "Only among the k likeliest tokens; 0: all")
      ->check(NonNegativeNumber())
      ->capture_default_str();
  command->add_option("--seed", options->sampler.seed, "Another seed, another text")->capture_default_str();
  command->add_option("--window", options->window, "The checkpoint of this window (default: the newest)");
  command
      ->add_option("--tokenizer", options->tokenizer,
                   "Folder of the tokenizer (default: that of the training data)")
      ->type_name("DIR");
  command
      ->add_option("--threads", options->threads,
                   "Threads that compute, 0: all; the text does not depend on them")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->callback([&context, options] { Sample(context, *options); });
}

}  // namespace

void RegisterModelCommands(CLI::App& app, CommandContext& context) {
  RegisterExport(app, context);
  RegisterVerify(app, context);
  RegisterSample(app, context);
}

}  // namespace accrue
