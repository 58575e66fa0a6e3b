// Shows the updates of a job as they come: a live view on a terminal, plain lines elsewhere, or JSON lines.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>

#include "client/follower.h"
#include "client/terminal.h"
#include "client/watch_view.h"
#include "common/clock.h"

namespace accrue {

class Presenter {
 public:
  enum class Mode { kLive, kPlain, kJson };
  struct Options {
    Mode mode = Mode::kPlain;
    std::ostream* out = nullptr;  // of the view, the lines or the objects
    std::ostream* err = nullptr;  // of what is said beside JSON
    Terminal terminal;            // of `out`
    int64_t every = 0;            // plain lines: windows apart; 0: about a hundred for the whole job
    const Clock* clock = nullptr;
  };
  explicit Presenter(const Options& options);

  // Adds what happened and shows it.
  void Apply(const FollowEvent& event);
  // A line for the person: above the live view, or on err beside JSON.
  void Say(const std::string& text);
  // Stays below the live view until it is replaced; a line elsewhere.
  void SetNotice(const std::string& text);
  void SetLastCheckpoint(const v1::CheckpointInfo& checkpoint) { model_.SetLastCheckpoint(checkpoint); }
  // For so many whole seconds the coordinator has not answered; 0: it does. Shown in the live view.
  void SetSilence(int64_t seconds) { model_.SetSilence(seconds); }
  // Repaints the live view.
  void Paint();

  bool live() const { return options_.mode == Mode::kLive; }
  const WatchModel& model() const { return model_; }

 private:
  void ShowUpdate(const v1::WatchResponse& update);
  void ShowPlain(const v1::WatchResponse& update);

  const Options options_;
  WatchModel model_;
  std::unique_ptr<Painter> painter_;
  std::string last_status_line_;
};

}  // namespace accrue
