// Faults, drawn from the seed.
#pragma once

#include <cstdint>

namespace accrue::core {

class SimulatedWorker;
class Simulator;

class Faults {
 public:
  explicit Faults(Simulator& simulator) : simulator_(simulator) {}
  // Draws when they strike.
  void Plan();

 private:
  enum class Kind { kKill, kLose, kFreeze, kLeave, kJoin, kBreak, kDrop, kCut, kSplit, kCrash, kBlackout, kPause, kSlow, kFlip, kHang };

  void Strike(Kind kind);
  void StrikeWorker(Kind kind, SimulatedWorker& victim);
  void Split();
  void Blackout();
  int64_t Within(double least_s, double most_s);

  Simulator& simulator_;
};

}  // namespace accrue::core
