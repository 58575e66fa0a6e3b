// accrue data prepare, inspect, bigram.
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands.h"
#include "client/data_progress.h"
#include "client/format.h"
#include "common/data_tools/bigram.h"
#include "common/data_tools/inspect.h"
#include "common/data_tools/prepare.h"

namespace accrue {
namespace {

using Json = nlohmann::ordered_json;

// What cannot be used as it was asked for is this program's error 1, not an invalid job file.
void FailData(CommandContext& context, const absl::Status& status) {
  if (absl::IsInvalidArgument(status)) {
    context.Fail(kExitError, status.message());
  } else {
    context.Fail(status);
  }
}

void PrintReport(CommandContext& context, const PrepareOptions& options, const PrepareReport& report) {
  const DataManifest& manifest = report.manifest;
  if (context.json()) {
    const Json json{{"output", options.output},
                    {"manifest", JoinPath(options.output, kDataManifestName)},
                    {"tokenizer", manifest.tokenizer},
                    {"vocabulary", manifest.vocabulary},
                    {"shards", manifest.shards.size()},
                    {"train_tokens", report.train_tokens},
                    {"train_documents", report.train_documents},
                    {"validation_tokens", report.validation_tokens},
                    {"validation_documents", report.validation_documents},
                    {"was_complete", report.was_complete}};
    *context.out << json.dump() << "\n";
    return;
  }
  std::vector<std::vector<std::string>> rows = {
      {"part", "documents", "tokens"},
      {"train", FormatCount(report.train_documents), FormatCount(report.train_tokens)}};
  if (report.validation_tokens > 0) {
    rows.push_back(
        {"validation", FormatCount(report.validation_documents), FormatCount(report.validation_tokens)});
  }
  const bool one = manifest.shards.size() == 1;
  *context.out << (report.was_complete ? "Nothing to do: " : "Wrote ") << manifest.shards.size()
               << (one ? " shard" : " shards");
  if (report.was_complete) *context.out << (one ? " is complete in " : " are complete in ");
  *context.out << (report.was_complete ? "" : " to ") << options.output << ", tokenizer " << manifest.tokenizer
               << ", vocabulary " << manifest.vocabulary << "\n"
               << FormatTable(rows);
}

void RunPrepare(CommandContext& context, const PrepareOptions& options) {
  absl::StatusOr<PrepareReport> report = absl::InternalError("not run");
  {
    DataProgress progress(context);
    PrepareHooks hooks;
    hooks.progress = [&](const PrepareProgress& now) { progress.Update(now); };
    hooks.message = [&](const std::string& message) { progress.Say(message); };
    report = PrepareData(*context.file_system, options, hooks);
  }
  if (!report.ok()) return FailData(context, report.status());
  PrintReport(context, options, *report);
}

void RegisterPrepare(CLI::App& data, CommandContext& context) {
  CLI::App* const command = AddCommand(
      data, "prepare", "Turn text into token shards, with a validation part held out by document.",
      "accrue data prepare /usr/include --include '*.h' --tokenizer sentencepiece --vocabulary 8192 --output "
      "data/headers\n"
      "accrue data prepare questions.jsonl --tokenizer gpt2 --model gpt2-files --output data/questions",
      /*asks_coordinator=*/false);
  const auto options = std::make_shared<PrepareOptions>();
  command
      ->add_option("INPUT", options->inputs,
                   "Files, folders, and JSONL files (text, or prompt and completion)")
      ->required();
  command->add_option("--output", options->output, "Folder for shards, manifest and tokenizer")
      ->type_name("DIR")
      ->required();
  command->add_option("--tokenizer", options->tokenizer, "bytes, sentencepiece or gpt2")
      ->type_name("KIND")
      ->check(CLI::IsMember({"bytes", "sentencepiece", "gpt2"}))
      ->required();
  command->add_option(
      "--model", options->model,
      "A SentencePiece model file to use instead of training one, or the folder of GPT-2's vocab.json "
      "and merges.txt")
      ->type_name("PATH");
  command->add_option("--vocabulary", options->vocabulary, "Pieces of a SentencePiece model that is trained")
      ->capture_default_str();
  command
      ->add_option("--sample-bytes", options->sample_bytes, "Text that a SentencePiece model is trained on")
      ->capture_default_str();
  command->add_option(
      "--include", options->include,
      "Only files of folders whose name matches (* and ?; with a slash, whose path there does); may be given more "
      "than once (default: every text file)")
      ->type_name("PATTERN");
  command
      ->add_option("--validation-fraction", options->validation_fraction,
                   "Share of documents to hold out, 0 to 0.5")
      ->capture_default_str();
  command
      ->add_option("--seed", options->seed,
                   "Which documents are held out, which lines a SentencePiece model is trained on")
      ->capture_default_str();
  command->add_option("--shard-tokens", options->shard_tokens, "Tokens in a shard, which is built in memory")
      ->capture_default_str();
  command
      ->add_option("--threads", options->threads,
                   "Threads; 0: one for each core. The result does not depend on it")
      ->capture_default_str();
  command->callback([&context, options] { RunPrepare(context, *options); });
}

void RegisterInspect(CLI::App& data, CommandContext& context) {
  CLI::App* const command = AddCommand(
      data, "inspect", "Show what shards hold, and check them against their manifest.",
      "accrue data inspect data/headers\naccrue data inspect data/headers/train-00000.bin -o json",
      /*asks_coordinator=*/false);
  struct Options {
    std::string path;
    int64_t first_tokens = 16;
  };
  const auto options = std::make_shared<Options>();
  command->add_option("PATH", options->path, "A shard, a folder, or its manifest.json")->required();
  command->add_option("--first", options->first_tokens, "How many of the first tokens to show")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  command->callback([&context, options] {
    const auto report = InspectData(*context.file_system, options->path, options->first_tokens);
    if (!report.ok()) return FailData(context, report.status());
    *context.out << (context.json() ? DataReportToJson(*report) : DataReportToText(*report));
    if (!report->ok) context.Fail(kExitError, "the data is not what it should be; see above");
  });
}

void RegisterBigram(CLI::App& data, CommandContext& context) {
  CLI::App* const command =
      AddCommand(data, "bigram",
                 "Print the validation loss of a smoothed bigram model, in nats a token: a mark to beat.",
                 "accrue data bigram data/headers\naccrue data bigram data/headers -o json", /*asks_coordinator=*/false);
  const auto directory = std::make_shared<std::string>();
  command->add_option("DIR", *directory, "A folder that `data prepare` made")->required();
  command->callback([&context, directory] {
    const auto result = BigramLossOfFolder(*context.file_system, *directory);
    if (!result.ok()) return FailData(context, result.status());
    if (context.json()) {
      *context.out << Json{{"loss", result->loss},
                           {"k", result->k},
                           {"vocabulary", result->vocabulary},
                           {"train_pairs", result->train_pairs},
                           {"validation_pairs", result->validation_pairs}}
                          .dump()
                   << "\n";
      return;
    }
    *context.out << absl::StrFormat(
        "%.4f nats a token: bigram model of %s training pairs, k = %g, over %s validation pairs\n",
        result->loss, FormatCount(result->train_pairs), result->k, FormatCount(result->validation_pairs));
  });
}

}  // namespace

void RegisterDataCommands(CLI::App& app, CommandContext& context) {
  CLI::App* const data = AddCommand(app, "data", "Prepare and inspect training data.", "");
  data->require_subcommand(1);
  RegisterPrepare(*data, context);
  RegisterInspect(*data, context);
  RegisterBigram(*data, context);
}

}  // namespace accrue
