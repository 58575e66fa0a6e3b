// What `accrue data prepare` shows while it works: one bar that is repainted on a terminal, plain lines
// elsewhere.
//
// Not thread-safe. Shows nothing after it is destroyed, and leaves no bar behind.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "client/commands.h"
#include "common/data_tools/prepare.h"

namespace accrue {

class DataProgress {
 public:
  explicit DataProgress(CommandContext& context);
  ~DataProgress();

  // May be called often: shows ten times a second, or a line every five seconds.
  void Update(const PrepareProgress& progress);
  // A line that stays.
  void Say(const std::string& message);

 private:
  std::string Text(const PrepareProgress& progress, double seconds) const;

  CommandContext& context_;
  std::unique_ptr<Painter> painter_;  // null where nothing can be repainted
  std::string stage_;
  int64_t stage_began_ns_ = 0;
  uint64_t stage_began_bytes_ = 0;
  int64_t shown_ns_ = 0;
};

}  // namespace accrue
