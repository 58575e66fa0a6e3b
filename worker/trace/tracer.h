// What the compute thread does in a few windows, as a Chrome trace that Perfetto and chrome://tracing show as
// a timeline (docs/tracing.md); and as ranges for a profiler, as long as the process lives.
//
// Recorded are `windows` windows in a row, from the second one of a job that this worker takes part in: the
// first one pays for what is made once. The file is written when the last of them commits, or when the job ends
// before; after that nothing is recorded any more. Spans are kept in memory taken ahead: most_spans of them. Who
// does not trace passes a null pointer.
//
// Spans nest: whoever ends one ends those within it. Not thread-safe: of the compute thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/file_system.h"
#include "common/profiler_ranges.h"

namespace accrue {

enum class Span : uint8_t {
  kWindow,  // from its first work to its step, and the snapshot after it
  kUnit,
  kData,
  kForwardBackward,
  kQuantizeAndAdd,
  kAuditUnit,
  kEvaluateUnit,
  kManifest,
  kParameterHash,
  kWaitForSeal,
  kReduce,
  kMeet,
  kAllReduce,
  kBroadcast,
  kStep,
  kSnapshot,
  kCommit,  // a moment
};

struct TraceOptions {
  std::string path;  // empty: nothing is recorded
  int64_t windows = 5;
  std::string process;  // its name, for people
  int64_t process_id = 0;
  size_t most_spans = size_t{1} << 18;  // of 32 bytes
};

class Tracer {
 public:
  // ranges: null where there is no profiler to tell. All that is referred to must outlive the tracer.
  Tracer(const TraceOptions& options, const Clock& clock, FileSystem& file_system, ProfilerRanges* ranges);

  // ---- a job's life ----
  void BeginJob(std::vector<std::string> tensors);  // the names that kQuantizeAndAdd's numbers stand for
  void BeginWindow(int64_t window);                 // again for each attempt
  void EndWindow();                                 // it has stepped here
  void Committed(int64_t window);
  void EndJob();

  // ---- spans; TraceSpan is for those of one block ----
  // number: which window, unit, tensor or bucket; negative: none. Returns what EndDownTo takes.
  int Begin(Span span, int64_t number, int64_t at_ns);
  // Ends what is open beyond the first `depth` spans.
  void EndDownTo(int depth, int64_t at_ns);
  // Ends the innermost open span of this kind, if there is one.
  void EndOpen(Span span, int64_t at_ns);
  // Number of the next collective operation since the reduce began.
  int64_t NextOperation() { return operations_++; }

  int64_t Now() const { return clock_.SteadyNowNs(); }

 private:
  enum class State { kBefore, kRecording, kAwaitingCommit, kDone };
  struct Event {
    int64_t begin_ns, end_ns, number;
    Span span;
  };
  struct Open {
    int64_t begin_ns, number;
    Span span;
    bool recorded;
  };
  static constexpr int kDeepest = 16;

  void Record(const Event& event);
  void Write();
  std::string Json() const;

  const TraceOptions options_;
  const Clock& clock_;
  FileSystem& file_system_;
  ProfilerRanges* const ranges_;

  State state_ = State::kBefore;
  std::vector<Event> events_;
  int64_t dropped_ = 0;       // for want of room
  int64_t windows_ = 0;       // recorded whole
  int64_t last_window_ = -1;  // of these
  size_t events_before_window_ = 0;
  std::array<Open, kDeepest> open_;
  int depth_ = 0;
  int64_t operations_ = 0;
  std::vector<std::string> tensors_;
};

// A span of a block. Ended by End, or at the end of the block, also by an error.
class TraceSpan {
 public:
  TraceSpan(Tracer* tracer, Span span, int64_t number = -1) : tracer_(tracer) {
    if (tracer_ != nullptr) depth_ = tracer_->Begin(span, number, tracer_->Now());
  }
  TraceSpan(Tracer* tracer, Span span, int64_t number, int64_t begin_ns) : tracer_(tracer) {
    if (tracer_ != nullptr) depth_ = tracer_->Begin(span, number, begin_ns);
  }
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;
  ~TraceSpan() {
    if (tracer_ != nullptr) tracer_->EndDownTo(depth_, tracer_->Now());
  }
  void End(int64_t end_ns) {
    if (tracer_ != nullptr) tracer_->EndDownTo(depth_, end_ns);
    tracer_ = nullptr;
  }

 private:
  Tracer* tracer_;
  int depth_ = 0;
};

}  // namespace accrue
