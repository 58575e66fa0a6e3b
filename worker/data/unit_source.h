// Where the inputs of units come from.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/engine/engine.h"

namespace accrue {

struct UnitName {
  int64_t window = 0;
  int64_t unit = 0;
  friend bool operator==(const UnitName&, const UnitName&) = default;
  friend auto operator<=>(const UnitName&, const UnitName&) = default;
};

// Used by one thread. What a function returns is readable until the next call of either.
class UnitSource {
 public:
  virtual ~UnitSource() = default;
  // The units that will be asked for, in this order, as far as is known: for reading ahead. Replaces what was expected
  // before; a unit that is not expected may be asked for all the same.
  virtual void Expect(const std::vector<UnitName>& units) = 0;
  virtual UnitInput Training(const UnitName& name) = 0;
  // Held-out sequences unit * rows and following, the same ones at every evaluation.
  virtual UnitInput Evaluation(int64_t unit) = 0;
};

}  // namespace accrue
