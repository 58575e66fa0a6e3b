#include "common/data_tools/tokenize.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status.h"

namespace accrue {
namespace {

// Encodes in parts of bounded size: libraries take memory in proportion to what they are given.
absl::Status EncodeInParts(absl::string_view text, Encoder* encoder, std::vector<int32_t>* ids) {
  for (bool continues = false; !text.empty(); continues = true) {
    const uint64_t length = CutNear(text, DocumentSource::kBatchBytes, DocumentSource::kBatchBytes);
    ACCRUE_RETURN_IF_ERROR(encoder->EncodePart(text.substr(0, length), continues, ids));
    text.remove_prefix(length);
  }
  return absl::OkStatus();
}

void AppendEndOfDocument(const Tokenizer& tokenizer, TokenRun* run) {
  if (tokenizer.end_of_document() >= 0) run->tokens.push_back(tokenizer.end_of_document());
}

absl::Status AppendRecord(const Record& record, const Tokenizer& tokenizer, Encoder* encoder, TokenRun* run) {
  const int64_t start = static_cast<int64_t>(run->tokens.size());
  if (record.kind == RecordKind::kText) {
    if (record.text.empty()) return absl::OkStatus();
    ACCRUE_RETURN_IF_ERROR(EncodeInParts(record.text, encoder, &run->tokens));
    AppendEndOfDocument(tokenizer, run);
  } else {
    // Apart, so that the prompt has the tokens that it will have when the model is asked.
    ACCRUE_RETURN_IF_ERROR(EncodeInParts(record.prompt, encoder, &run->tokens));
    run->mask.resize(run->tokens.size(), 0);
    ACCRUE_RETURN_IF_ERROR(EncodeInParts(record.completion, encoder, &run->tokens));
    AppendEndOfDocument(tokenizer, run);
    run->mask.resize(run->tokens.size(), 1);
  }
  if (static_cast<int64_t>(run->tokens.size()) > start) run->starts.push_back(start);
  return absl::OkStatus();
}

absl::Status TokenizeLines(const Item& item, const InputPlan& plan, const Tokenizer& tokenizer,
                           const FirstNeeded& first_needed, Encoder* encoder, TokenizedItem* out) {
  absl::string_view text = item.text;
  for (int64_t line_number = item.first_line; !text.empty(); ++line_number) {
    const absl::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (IsBlank(line)) continue;
    const bool held_out = DocumentHash(plan.seed, item.file->name, line_number) < plan.held_out_below;
    const size_t split = held_out ? 1 : 0;
    if (item.ordinal < first_needed[split]) continue;
    const std::string place = absl::StrCat(item.file->path, ":", line_number);
    ACCRUE_ASSIGN_OR_RETURN(const Record record, ParseRecord(line, place));
    if (record.kind != plan.record_kind) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": expected ", RecordKindName(plan.record_kind),
                                                     " as in the first record, found ",
                                                     RecordKindName(record.kind)));
    }
    ACCRUE_RETURN_IF_ERROR(AppendRecord(record, tokenizer, encoder, &out->runs[split]));
  }
  return absl::OkStatus();
}

// Hands batches out to threads and takes their results back in order.
class Pipeline {
 public:
  Pipeline(DocumentSource* source, const InputPlan& plan, const Tokenizer& tokenizer,
           const FirstNeeded& first_needed)
      : source_(source), plan_(plan), tokenizer_(tokenizer), first_needed_(first_needed) {}

  absl::Status Run(int threads, const std::function<absl::Status(const TokenizedItem&)>& consume) {
    std::vector<std::thread> pool;
    for (int i = 0; i < threads; ++i) pool.emplace_back([this] { Work(); });
    const absl::Status status = Consume(consume);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : pool) thread.join();
    return status;
  }

 private:
  struct Result {
    absl::Status status;
    std::vector<TokenizedItem> items;
    bool end = false;  // there was no more
  };
  // Batches in flight or waiting for their turn; bounds memory.
  static constexpr int64_t kMaxAhead = 64;

  void Work() {
    const std::unique_ptr<Encoder> encoder = tokenizer_.NewEncoder();
    while (true) {
      Result result;
      std::vector<Item> batch;
      int64_t index = 0;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || exhausted_ || next_ < consumed_ + kMaxAhead; });
        if (stopping_ || exhausted_) return;
        index = next_++;
        absl::StatusOr<std::vector<Item>> next = source_->NextBatch();
        result.status = next.status();
        if (next.ok()) batch = *std::move(next);
        result.end = batch.empty();
        exhausted_ = result.end;
      }
      result.items.resize(batch.size());
      for (size_t i = 0; i < batch.size() && result.status.ok(); ++i) {
        result.status =
            TokenizeItem(batch[i], plan_, tokenizer_, first_needed_, encoder.get(), &result.items[i]);
      }
      const std::lock_guard<std::mutex> lock(mutex_);
      results_.emplace(index, std::move(result));
      changed_.notify_all();
    }
  }

  absl::Status Consume(const std::function<absl::Status(const TokenizedItem&)>& consume) {
    while (true) {
      Result result;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return results_.contains(consumed_); });
        result = std::move(results_.extract(consumed_).mapped());
        ++consumed_;
      }
      changed_.notify_all();
      ACCRUE_RETURN_IF_ERROR(result.status);
      if (result.end) return absl::OkStatus();
      for (const TokenizedItem& item : result.items) ACCRUE_RETURN_IF_ERROR(consume(item));
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  DocumentSource* const source_ ABSL_PT_GUARDED_BY(mutex_);
  int64_t next_ ABSL_GUARDED_BY(mutex_) = 0;      // batch that is handed out next
  int64_t consumed_ ABSL_GUARDED_BY(mutex_) = 0;  // batches taken back
  bool exhausted_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<int64_t, Result> results_ ABSL_GUARDED_BY(mutex_);
  const InputPlan& plan_;
  const Tokenizer& tokenizer_;
  const FirstNeeded first_needed_;
};

}  // namespace

absl::Status TokenizeItem(const Item& item, const InputPlan& plan, const Tokenizer& tokenizer,
                          const FirstNeeded& first_needed, Encoder* encoder, TokenizedItem* out) {
  out->ordinal = item.ordinal;
  out->end_in_data = item.end_in_data;
  if (item.file->kind == InputKind::kJsonl) {
    return TokenizeLines(item, plan, tokenizer, first_needed, encoder, out);
  }
  if (item.ordinal < first_needed[static_cast<size_t>(item.split)]) return absl::OkStatus();
  TokenRun& run = out->runs[static_cast<size_t>(item.split)];
  if (item.begins_document) run.starts.push_back(0);
  ACCRUE_RETURN_IF_ERROR(encoder->EncodePart(item.text, !item.begins_document, &run.tokens));
  if (item.ends_document) AppendEndOfDocument(tokenizer, &run);
  return absl::OkStatus();
}

absl::Status TokenizeAll(FileSystem& file_system, const InputPlan& plan, const Tokenizer& tokenizer,
                         const FirstNeeded& first_needed, int threads,
                         const std::function<absl::Status(const TokenizedItem&)>& consume) {
  ACCRUE_CHECK(threads >= 1);
  DocumentSource source(file_system, plan, *std::min_element(first_needed.begin(), first_needed.end()));
  return Pipeline(&source, plan, tokenizer, first_needed).Run(threads, consume);
}

}  // namespace accrue
