// Tokens a second and core of `data prepare`, against the SentencePiece library alone, in one run.
//
//   accrue_bench_data_prepare FOLDER [INCLUDE]       such as  /usr/include '*.h'
//
// Trains a model, then times, on one thread and with the files in the page cache: the whole of PrepareData with that
// model (reading, hashing, tokenising, writing shards), and the library's Encode over the same text in a loop, once
// by document and once by line, of which the faster counts. Processor time decides: other load does not disturb it.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "bench/sentencepiece_library.h"
#include "common/data_tools/inputs.h"
#include "common/data_tools/prepare.h"

namespace accrue::bench {
namespace {

constexpr int kRounds = 3;

double ProcessorSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The best of some rounds, in tokens a second.
template <typename Work>
double BestRate(Work work) {
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    const double began = ProcessorSeconds();
    const int64_t tokens = work();
    best = std::max(best, static_cast<double>(tokens) / (ProcessorSeconds() - began));
  }
  return best;
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  return 1;
}

int64_t EncodeByLine(const SentencePieceLibrary& library, const std::string& text) {
  int64_t tokens = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    tokens += library.Encode(std::string_view(text).substr(at, end - at));
    at = end;
  }
  return tokens;
}

int Run(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s FOLDER [INCLUDE]\n", argv[0]);
    return 2;
  }
  FileSystem& file_system = FileSystem::Real();
  const std::filesystem::path scratch = std::filesystem::temp_directory_path() / "accrue-bench-data-prepare";
  PrepareOptions options;
  options.inputs = {argv[1]};
  if (argc > 2) options.include = {argv[2]};
  options.tokenizer = "sentencepiece";
  options.threads = 1;
  options.output = (scratch / "train").string();
  std::filesystem::remove_all(scratch);
  if (const auto trained = PrepareData(file_system, options, PrepareHooks()); !trained.ok()) return Fail(trained.status());
  options.model = options.output + "/tokenizer/tokenizer.model";

  absl::Status status;
  const double prepare = BestRate([&]() -> int64_t {
    options.output = (scratch / "again").string();
    std::filesystem::remove_all(options.output);
    const auto report = PrepareData(file_system, options, PrepareHooks());
    status.Update(report.status());
    return report.ok() ? report->train_tokens + report->validation_tokens : 0;
  });
  if (!status.ok()) return Fail(status);

  const auto plan = PlanInputs(file_system, {.inputs = options.inputs, .include = options.include});
  if (!plan.ok()) return Fail(plan.status());
  std::vector<std::string> texts;
  for (const InputFile& file : plan->files) {
    auto text = file_system.ReadAll(file.path, size_t{1} << 32);
    if (!text.ok()) return Fail(text.status());
    texts.push_back(*std::move(text));
  }
  const auto model = file_system.ReadAll(options.model, size_t{1} << 28);
  if (!model.ok()) return Fail(model.status());
  const auto library = SentencePieceLibrary::Load(*model);
  if (library == nullptr) return Fail(absl::InternalError("the library refuses the model"));
  const double by_document = BestRate([&] {
    int64_t tokens = 0;
    for (const std::string& text : texts) tokens += library->Encode(text);
    return tokens;
  });
  const double by_line = BestRate([&] {
    int64_t tokens = 0;
    for (const std::string& text : texts) tokens += EncodeByLine(*library, text);
    return tokens;
  });
  std::filesystem::remove_all(scratch);
  std::printf("text %.1f MB in %zu documents\n", static_cast<double>(plan->total_bytes) * 1e-6, texts.size());
  std::printf("data prepare           %7.2f M tokens/s a core\n", prepare * 1e-6);
  std::printf("library, by document   %7.2f M tokens/s\n", by_document * 1e-6);
  std::printf("library, by line       %7.2f M tokens/s\n", by_line * 1e-6);
  std::printf("ratio                  %7.2f\n", prepare / std::max(by_document, by_line));
  return 0;
}

}  // namespace
}  // namespace accrue::bench

int main(int argc, char** argv) { return accrue::bench::Run(argc, argv); }
