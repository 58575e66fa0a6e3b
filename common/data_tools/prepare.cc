#include "common/data_tools/prepare.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/data/dataset.h"
#include "common/data/shard.h"
#include "common/data_tools/inputs.h"
#include "common/data_tools/parallel.h"
#include "common/data_tools/prepare_state.h"
#include "common/data_tools/split_writer.h"
#include "common/data_tools/tokenize.h"
#include "common/data_tools/training_sample.h"
#include "common/hash.h"
#include "common/status.h"
#include "common/tokenizer/tokenizer.h"

namespace accrue {
namespace {

// Raised when the same inputs and options would make other bytes.
constexpr int kPrepareRevision = 1;
constexpr char kTokenizerDirectory[] = "tokenizer";
constexpr size_t kModelLimitBytes = size_t{256} << 20;
constexpr int64_t kMaxUint16Vocabulary = 65536;

absl::Status CheckOptions(const PrepareOptions& options) {
  const auto bad = [](auto&&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  if (options.inputs.empty()) return bad("expected at least one input: a file or a folder");
  if (options.output.empty()) return bad("expected a folder for the output");
  if (options.tokenizer != "bytes" && options.tokenizer != "sentencepiece" && options.tokenizer != "gpt2") {
    return bad("expected the tokenizer bytes, sentencepiece or gpt2, found \"", options.tokenizer, "\"");
  }
  if (options.tokenizer == "gpt2" && options.model.empty()) {
    return bad("the tokenizer gpt2 needs its vocab.json and merges.txt: give their folder as the model");
  }
  if (options.tokenizer == "bytes" && !options.model.empty())
    return bad("the tokenizer bytes takes no model");
  if (options.vocabulary < 300 || options.vocabulary > (1 << 20)) {
    return bad("expected a vocabulary of 300 to ", 1 << 20, " pieces, found ", options.vocabulary);
  }
  if (!(options.validation_fraction >= 0 && options.validation_fraction <= 0.5)) {
    return bad("expected a validation fraction of 0 to 0.5, found ", options.validation_fraction);
  }
  if (options.shard_tokens < 1 || options.shard_tokens > kLlmcMaxTokens) {
    return bad("expected 1 to ", kLlmcMaxTokens, " tokens a shard, found ", options.shard_tokens);
  }
  if (options.sample_bytes == 0) return bad("expected a sample of at least one byte to train on");
  if (options.threads < 0 || options.threads > 1024)
    return bad("expected 0 to 1024 threads, found ", options.threads);
  return absl::OkStatus();
}

// The files of a tokenizer that is given rather than trained; empty for bytes and for a model to train.
using ModelFiles = std::vector<Tokenizer::File>;

absl::StatusOr<std::string> ReadModelFile(FileSystem& file_system, const std::string& path) {
  absl::StatusOr<std::string> contents = file_system.ReadAll(path, kModelLimitBytes);
  if (absl::IsResourceExhausted(contents.status()))
    return absl::InvalidArgumentError(contents.status().message());
  return contents;
}

absl::StatusOr<ModelFiles> ReadModelFiles(FileSystem& file_system, const PrepareOptions& options) {
  if (options.model.empty()) return ModelFiles{};
  const auto read = [&](std::initializer_list<const char*> names) -> absl::StatusOr<Tokenizer::File> {
    for (const char* name : names) {
      const std::string path = JoinPath(options.model, name);
      if (!file_system.Exists(path)) continue;
      ACCRUE_ASSIGN_OR_RETURN(std::string contents, ReadModelFile(file_system, path));
      return Tokenizer::File{path, std::move(contents)};
    }
    return absl::NotFoundError(absl::StrCat("expected ", *names.begin(), " in the folder ", options.model));
  };
  if (options.tokenizer == "gpt2") {
    ACCRUE_ASSIGN_OR_RETURN(Tokenizer::File vocabulary, read({"vocab.json", "encoder.json"}));
    ACCRUE_ASSIGN_OR_RETURN(Tokenizer::File merges, read({"merges.txt", "vocab.bpe"}));
    return ModelFiles{std::move(vocabulary), std::move(merges)};
  }
  if (file_system.IsDirectory(options.model)) {
    ACCRUE_ASSIGN_OR_RETURN(Tokenizer::File model, read({"tokenizer.model"}));
    return ModelFiles{std::move(model)};
  }
  ACCRUE_ASSIGN_OR_RETURN(std::string contents, ReadModelFile(file_system, options.model));
  return ModelFiles{{options.model, std::move(contents)}};
}

nlohmann::ordered_json OptionsJson(const PrepareOptions& options) {
  return {{"inputs", options.inputs},
          {"include", options.include},
          {"tokenizer", options.tokenizer},
          {"model", options.model},
          {"vocabulary", options.vocabulary},
          {"sample_bytes", options.sample_bytes},
          {"validation_fraction", options.validation_fraction},
          {"seed", options.seed},
          {"shard_tokens", options.shard_tokens}};
}

// Everything that the output depends on.
std::string Fingerprint(const PrepareOptions& options, const ModelFiles& model_files, const InputPlan& plan) {
  Hasher hasher;
  nlohmann::ordered_json json = OptionsJson(options);
  json["revision"] = kPrepareRevision;
  json.erase("inputs");  // what is in them counts, not what they are called here
  json.erase("model");
  json.erase("include");
  hasher.Update(json.dump());
  for (const Tokenizer::File& file : model_files) {
    hasher.Update(HashBytes(file.contents.data(), file.contents.size()).Hex());
  }
  for (const InputFile& file : plan.files) {
    hasher.Update(absl::StrCat("\n", file.name, "\n", file.kind == InputKind::kJsonl ? "jsonl" : "text", " ",
                               file.size_bytes, " ", file.hash.Hex()));
  }
  return hasher.Finish().Hex();
}

std::string HashOfFiles(const Tokenizer& tokenizer) {
  Hasher hasher;
  for (const Tokenizer::File& file : tokenizer.Files()) {
    hasher.Update(absl::StrCat(file.name, "\n", file.contents.size(), "\n", file.contents));
  }
  return hasher.Finish().Hex();
}

class Preparation {
 public:
  Preparation(FileSystem& file_system, const PrepareOptions& options, const PrepareHooks& hooks)
      : file_system_(file_system),
        options_(options),
        hooks_(hooks),
        threads_(options.threads > 0 ? options.threads : DefaultThreads()) {}

  absl::StatusOr<PrepareReport> Run() {
    ACCRUE_RETURN_IF_ERROR(CheckOptions(options_));
    ACCRUE_ASSIGN_OR_RETURN(model_files_, ReadModelFiles(file_system_, options_));
    hooks_.progress({.stage = "reading"});
    ACCRUE_ASSIGN_OR_RETURN(plan_,
                            PlanInputs(file_system_, {.inputs = options_.inputs,
                                                      .include = options_.include,
                                                      .exclude_directory = options_.output,
                                                      .validation_fraction = options_.validation_fraction,
                                                      .seed = options_.seed,
                                                      .threads = threads_}));
    SayWhatWasFound();
    ACCRUE_RETURN_IF_ERROR(OpenOutput());
    if (state_.complete) return Report(/*was_complete=*/true);
    ACCRUE_RETURN_IF_ERROR(MakeTokenizer());
    ACCRUE_RETURN_IF_ERROR(WriteShards());
    ACCRUE_RETURN_IF_ERROR(WriteManifest());
    return Report(/*was_complete=*/false);
  }

 private:
  std::string Path(absl::string_view name) const { return JoinPath(options_.output, name); }

  void SayWhatWasFound() {
    if (plan_.skipped_binary > 0) {
      hooks_.message(absl::StrCat("skipped ", plan_.skipped_binary,
                                  plan_.skipped_binary == 1 ? " file that is not text" : " files that are not text"));
    }
    if (plan_.cut_at_byte != 0) {
      hooks_.message(absl::StrCat("there is one document only: what follows its byte ", plan_.cut_at_byte,
                                  " is the validation part"));
    } else if (options_.validation_fraction > 0 && plan_.held_out_below == 0) {
      hooks_.message("there is one document only, so there is no validation part");
    }
  }

  // Decides what of the folder is kept, and removes the rest of what an earlier run left.
  absl::Status OpenOutput() {
    ACCRUE_RETURN_IF_ERROR(file_system_.CreateDirectories(options_.output));
    const std::string fingerprint = Fingerprint(options_, model_files_, plan_);
    absl::StatusOr<PrepareState> found = ReadPrepareState(file_system_, options_.output);
    if (absl::IsNotFound(found.status())) {
      ACCRUE_RETURN_IF_ERROR(CheckFolderIsFree());
    } else if (!found.ok()) {
      hooks_.message(absl::StrCat(found.status().message(), ": starting again"));
    } else if (found->fingerprint != fingerprint) {
      hooks_.message(absl::StrCat(options_.output, " was made from other inputs or options: starting again"));
    } else {
      state_ = *std::move(found);
      if (const size_t dropped = DropUnverified(file_system_, options_.output, &state_); dropped > 0) {
        hooks_.message(absl::StrCat(dropped, dropped == 1 ? " shard is missing or changed: making it again"
                                                         : " shards are missing or changed: making them again"));
        state_.complete = false;
      }
    }
    state_.fingerprint = fingerprint;
    if (state_.complete && TokenizerAndManifestAreThere()) return absl::OkStatus();
    state_.complete = false;
    if (!state_.manifest.shards.empty()) {
      hooks_.message(absl::StrCat("going on after ", state_.manifest.shards.size(),
                                  state_.manifest.shards.size() == 1 ? " finished shard" : " finished shards"));
    }
    ACCRUE_RETURN_IF_ERROR(RemoveLeftovers());
    // Before anything else is written, so that the folder is known as ours.
    return WritePrepareState(file_system_, options_.output, state_);
  }

  // Data that this command did not make is never overwritten.
  absl::Status CheckFolderIsFree() {
    ACCRUE_ASSIGN_OR_RETURN(const std::vector<std::string> names, file_system_.List(options_.output));
    for (const std::string& name : names) {
      if (name == kDataManifestName || name == kTokenizerDirectory || IsShardFileName(name)) {
        return absl::FailedPreconditionError(absl::StrCat(
            options_.output, " holds ", name, ", which this command did not make here: name another folder"));
      }
    }
    return absl::OkStatus();
  }

  bool TokenizerAndManifestAreThere() {
    const auto tokenizer = Tokenizer::Load(file_system_, Path(kTokenizerDirectory));
    if (!tokenizer.ok() || HashOfFiles(**tokenizer) != state_.tokenizer_hash) return false;
    const auto manifest = file_system_.ReadAll(Path(kDataManifestName), kModelLimitBytes);
    return manifest.ok() && *manifest == DataManifestToJson(state_.manifest);
  }

  absl::Status RemoveLeftovers() {
    absl::flat_hash_set<std::string> kept;
    for (const DataManifestShard& shard : state_.manifest.shards) {
      kept.insert(shard.name);
      kept.insert(shard.mask_name);
    }
    ACCRUE_ASSIGN_OR_RETURN(const std::vector<std::string> names, file_system_.List(options_.output));
    for (const std::string& name : names) {
      const bool ours = name == kDataManifestName || IsShardFileName(name);
      if (ours && !kept.contains(name)) ACCRUE_RETURN_IF_ERROR(file_system_.RemoveAll(Path(name)));
    }
    return absl::OkStatus();
  }

  absl::Status MakeTokenizer() {
    if (options_.tokenizer == "bytes") {
      tokenizer_ = NewByteTokenizer();
    } else if (options_.tokenizer == "gpt2") {
      ACCRUE_ASSIGN_OR_RETURN(
          tokenizer_, NewGpt2Tokenizer(model_files_[0].contents, model_files_[1].contents, options_.model));
    } else if (!model_files_.empty()) {
      ACCRUE_ASSIGN_OR_RETURN(tokenizer_,
                              NewSentencePieceTokenizer(model_files_[0].contents, model_files_[0].name));
    } else {
      ACCRUE_RETURN_IF_ERROR(TrainOrReload());
    }
    if (tokenizer_->end_of_document() < 0) {
      hooks_.message("the tokenizer has no token that ends a document: documents run into each other");
    }
    const std::string hash = HashOfFiles(*tokenizer_);
    if (hash != state_.tokenizer_hash) {
      // Shards of another tokenizer are of no use; there are some only if its files were lost.
      state_.manifest.shards.clear();
      state_.ends.clear();
      ACCRUE_RETURN_IF_ERROR(RemoveLeftovers());
      ACCRUE_RETURN_IF_ERROR(file_system_.RemoveAll(Path(kTokenizerDirectory)));
    }
    ACCRUE_RETURN_IF_ERROR(file_system_.CreateDirectories(Path(kTokenizerDirectory)));
    for (const Tokenizer::File& file : tokenizer_->Files()) {
      ACCRUE_RETURN_IF_ERROR(
          file_system_.WriteAtomically(JoinPath(Path(kTokenizerDirectory), file.name), file.contents));
    }
    state_.tokenizer_hash = hash;
    state_.manifest.tokenizer = options_.tokenizer;
    state_.manifest.tokenizer_directory = kTokenizerDirectory;
    state_.manifest.vocabulary = tokenizer_->vocabulary_size();
    state_.manifest.end_of_document = tokenizer_->end_of_document();
    nlohmann::ordered_json made_with = OptionsJson(options_);
    made_with["fingerprint"] = state_.fingerprint;
    state_.manifest.options_json =
        made_with.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    return WritePrepareState(file_system_, options_.output, state_);
  }

  absl::Status TrainOrReload() {
    if (!state_.tokenizer_hash.empty()) {
      auto saved = Tokenizer::Load(file_system_, Path(kTokenizerDirectory));
      if (saved.ok() && HashOfFiles(**saved) == state_.tokenizer_hash) {
        tokenizer_ = *std::move(saved);
        return absl::OkStatus();
      }
    }
    hooks_.progress({.stage = "training the tokenizer"});
    ACCRUE_ASSIGN_OR_RETURN(const std::vector<std::string> lines,
                            SampleTrainingLines(file_system_, plan_, options_.sample_bytes));
    size_t next = 0;
    ACCRUE_ASSIGN_OR_RETURN(std::string model, TrainSentencePiece(
                                                   [&](std::string* line) {
                                                     if (next == lines.size()) return false;
                                                     *line = lines[next++];
                                                     return true;
                                                   },
                                                   options_.vocabulary));
    ACCRUE_ASSIGN_OR_RETURN(tokenizer_, NewSentencePieceTokenizer(std::move(model), "the trained model"));
    if (tokenizer_->vocabulary_size() != options_.vocabulary) {
      hooks_.message(absl::StrCat("the text gives ", tokenizer_->vocabulary_size(), " pieces only, of ",
                                  options_.vocabulary, " asked for"));
    }
    return absl::OkStatus();
  }

  std::unique_ptr<SplitWriter> NewWriter(Split split) {
    SplitWriter::Options writer;
    writer.directory = options_.output;
    writer.split = split;
    writer.token_bytes = tokenizer_->vocabulary_size() <= kMaxUint16Vocabulary ? 2 : 4;
    writer.masked = plan_.record_kind == RecordKind::kPromptCompletion;
    writer.shard_tokens = options_.shard_tokens;
    for (size_t i = 0; i < state_.ends.size(); ++i) {
      if (state_.manifest.shards[i].split != SplitName(split)) continue;
      ++writer.next_shard;
      writer.start = state_.ends[i];
    }
    return std::make_unique<SplitWriter>(file_system_, writer,
                                         [this](const DataManifestShard& shard, SplitPosition end) {
                                           AddShard(&state_, shard, end);
                                           return WritePrepareState(file_system_, options_.output, state_);
                                         });
  }

  absl::Status WriteShards() {
    FirstNeeded first_needed{};
    for (size_t i = 0; i < state_.ends.size(); ++i) {
      first_needed[state_.manifest.shards[i].split == SplitName(Split::kTrain) ? 0 : 1] = state_.ends[i].item;
    }
    const std::array<std::unique_ptr<SplitWriter>, kSplits> writers = {NewWriter(Split::kTrain),
                                                                       NewWriter(Split::kValidation)};
    int64_t items = *std::max_element(first_needed.begin(), first_needed.end());
    ACCRUE_RETURN_IF_ERROR(TokenizeAll(file_system_, plan_, *tokenizer_, first_needed, threads_,
                                       [&](const TokenizedItem& item) -> absl::Status {
                                         for (size_t split = 0; split < kSplits; ++split) {
                                           ACCRUE_RETURN_IF_ERROR(
                                               writers[split]->Add(item.ordinal, item.runs[split]));
                                         }
                                         items = item.ordinal + 1;
                                         hooks_.progress({"tokenizing", item.end_in_data, plan_.total_bytes,
                                                          writers[0]->tokens() + writers[1]->tokens()});
                                         return absl::OkStatus();
                                       }));
    for (const auto& writer : writers) ACCRUE_RETURN_IF_ERROR(writer->Finish(items));
    return absl::OkStatus();
  }

  absl::Status WriteManifest() {
    const DataManifest& manifest = state_.manifest;
    if (manifest.shards.empty() || manifest.shards.front().split != SplitName(Split::kTrain)) {
      return absl::InvalidArgumentError("the inputs gave no training tokens: every document is empty");
    }
    if (plan_.held_out > 0 && manifest.shards.back().split != SplitName(Split::kValidation)) {
      hooks_.message("the documents that were held out are empty, so there is no validation part");
    }
    ACCRUE_RETURN_IF_ERROR(
        file_system_.WriteAtomically(Path(kDataManifestName), DataManifestToJson(manifest)));
    state_.complete = true;
    return WritePrepareState(file_system_, options_.output, state_);
  }

  PrepareReport Report(bool was_complete) const {
    PrepareReport report;
    report.manifest = state_.manifest;
    report.was_complete = was_complete;
    for (const DataManifestShard& shard : report.manifest.shards) {
      const bool train = shard.split == SplitName(Split::kTrain);
      (train ? report.train_tokens : report.validation_tokens) += shard.tokens;
      (train ? report.train_documents : report.validation_documents) += shard.documents;
    }
    return report;
  }

  FileSystem& file_system_;
  const PrepareOptions& options_;
  const PrepareHooks& hooks_;
  const int threads_;
  ModelFiles model_files_;
  InputPlan plan_;
  std::unique_ptr<Tokenizer> tokenizer_;
  PrepareState state_;
};

}  // namespace

absl::StatusOr<PrepareReport> PrepareData(FileSystem& file_system, const PrepareOptions& options,
                                          const PrepareHooks& hooks) {
  absl::StatusOr<PrepareReport> report = Preparation(file_system, options, hooks).Run();
  if (absl::IsResourceExhausted(report.status())) {
    return absl::ResourceExhaustedError(
        absl::StrCat(report.status().message(),
                     "; free some space and run the same command again: it goes on where it stopped"));
  }
  return report;
}

}  // namespace accrue
