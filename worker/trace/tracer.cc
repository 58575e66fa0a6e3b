#include "worker/trace/tracer.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/log.h"
#include "common/version.h"

namespace accrue {
namespace {

struct SpanKind {
  const char* name;
  const char* number;      // what the number is; null: there is none
  bool named_with = true;  // the number is part of what a timeline shows
};

// In the order of Span.
constexpr SpanKind kKinds[] = {{"window", "window"},
                               {"unit", "unit"},
                               {"data", nullptr},
                               {"forward and backward", nullptr},
                               {"quantise and add", "tensor", false},
                               {"audit unit", "unit"},
                               {"evaluate unit", "unit"},
                               {"manifest", nullptr},
                               {"parameter hash", nullptr},
                               {"wait for seal", nullptr},
                               {"reduce", nullptr},
                               {"meet", nullptr},
                               {"all-reduce", "bucket"},
                               {"broadcast", "bucket"},
                               {"step", nullptr},
                               {"snapshot", nullptr},
                               {"commit", "window"}};
static_assert(std::size(kKinds) == static_cast<size_t>(Span::kCommit) + 1);

const SpanKind& KindOf(Span span) { return kKinds[static_cast<size_t>(span)]; }

std::string Quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// The format's unit is the microsecond.
std::string Microseconds(int64_t ns) { return absl::StrFormat("%d.%03d", ns / 1000, ns % 1000); }

}  // namespace

Tracer::Tracer(const TraceOptions& options, const Clock& clock, FileSystem& file_system,
               ProfilerRanges* ranges)
    : options_(options), clock_(clock), file_system_(file_system), ranges_(ranges) {
  if (options_.path.empty()) {
    state_ = State::kDone;
  } else {
    events_.reserve(options_.most_spans);
  }
}

void Tracer::BeginJob(std::vector<std::string> tensors) {
  if (state_ != State::kDone) tensors_ = std::move(tensors);
}

void Tracer::BeginWindow(int64_t window) {
  const int64_t now_ns = Now();
  EndOpen(Span::kWindow, now_ns);
  events_before_window_ = events_.size();
  Begin(Span::kWindow, window, now_ns);
}

void Tracer::EndWindow() {
  const int64_t window = depth_ > 0 && open_[0].span == Span::kWindow ? open_[0].number : -1;
  EndOpen(Span::kWindow, Now());
  if (state_ == State::kBefore) {
    state_ = State::kRecording;
  } else if (state_ == State::kRecording) {
    ++windows_;
    last_window_ = window;
    // Whole windows are worth more than the beginning of one more.
    const size_t taken = events_.size() - events_before_window_;
    if (windows_ == options_.windows || options_.most_spans - events_.size() < taken)
      state_ = State::kAwaitingCommit;
  }
}

void Tracer::Committed(int64_t window) {
  if (state_ != State::kRecording && state_ != State::kAwaitingCommit) return;
  const int64_t now_ns = Now();
  Record({now_ns, now_ns, window, Span::kCommit});
  if (state_ == State::kAwaitingCommit && window == last_window_) Write();
}

void Tracer::EndJob() {
  EndDownTo(0, Now());
  if (state_ == State::kDone) return;
  if (windows_ > 0) return Write();
  LogWarning("no trace: the job ended before its second window was done here", {{"file", options_.path}});
  state_ = State::kBefore;
  events_.clear();
  dropped_ = 0;
}

int Tracer::Begin(Span span, int64_t number, int64_t at_ns) {
  ACCRUE_CHECK(depth_ < kDeepest);
  if (span == Span::kReduce) operations_ = 0;
  if (ranges_ != nullptr) ranges_->Push(KindOf(span).name, number);
  open_[depth_] = {at_ns, number, span, state_ == State::kRecording};
  return depth_++;
}

void Tracer::EndDownTo(int depth, int64_t at_ns) {
  while (depth_ > depth) {
    const Open& open = open_[--depth_];
    if (ranges_ != nullptr) ranges_->Pop();
    if (open.recorded) Record({open.begin_ns, at_ns, open.number, open.span});
  }
}

void Tracer::EndOpen(Span span, int64_t at_ns) {
  for (int depth = depth_ - 1; depth >= 0; --depth) {
    if (open_[depth].span == span) return EndDownTo(depth, at_ns);
  }
}

void Tracer::Record(const Event& event) {
  if (state_ != State::kRecording && state_ != State::kAwaitingCommit) return;
  if (events_.size() < options_.most_spans) {
    events_.push_back(event);
  } else {
    ++dropped_;
  }
}

void Tracer::Write() {
  state_ = State::kDone;
  const absl::Status written = file_system_.WriteAtomically(options_.path, Json());
  if (written.ok()) {
    LogInfo("trace written", {{"file", options_.path},
                              {"windows", windows_},
                              {"spans", static_cast<int64_t>(events_.size())},
                              {"spans_dropped", dropped_}});
  } else {
    LogError("the trace cannot be written", {{"file", options_.path}, {"reason", written}});
  }
  events_ = {};
}

std::string Tracer::Json() const {
  const std::string where = absl::StrCat("\"pid\":", options_.process_id, ",\"tid\":1");
  std::string json = absl::StrCat(
      "{\"displayTimeUnit\":\"ms\",\"otherData\":{\"version\":\"", kVersion, "\",\"windows\":", windows_,
      ",\"spans_dropped\":", dropped_, "},\"traceEvents\":[\n", "{\"name\":\"process_name\",\"ph\":\"M\",",
      where, ",\"args\":{\"name\":", Quoted(options_.process), "}},\n",
      "{\"name\":\"thread_name\",\"ph\":\"M\",", where, ",\"args\":{\"name\":\"compute thread\"}}");
  for (const Event& event : events_) {
    const SpanKind& kind = KindOf(event.span);
    const bool has_number = kind.number != nullptr && event.number >= 0;
    absl::StrAppend(&json, ",\n{\"name\":\"", kind.name);
    if (has_number && kind.named_with) absl::StrAppend(&json, " ", event.number);
    absl::StrAppend(&json, "\",\"cat\":\"", kind.name, "\",\"ts\":", Microseconds(event.begin_ns), ",",
                    where);
    if (event.span == Span::kCommit) {
      absl::StrAppend(&json, ",\"ph\":\"i\",\"s\":\"t\"");
    } else {
      absl::StrAppend(&json, ",\"ph\":\"X\",\"dur\":", Microseconds(event.end_ns - event.begin_ns));
    }
    const bool is_tensor =
        event.span == Span::kQuantizeAndAdd && static_cast<size_t>(event.number) < tensors_.size();
    if (has_number) {
      absl::StrAppend(&json, ",\"args\":{\"", kind.number,
                      "\":", is_tensor ? Quoted(tensors_[event.number]) : absl::StrCat(event.number), "}");
    }
    json += '}';
  }
  json += "\n]}\n";
  return json;
}

}  // namespace accrue
