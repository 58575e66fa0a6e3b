// Whether two workers say the same of a unit: its report is a function of the attempt and the unit alone.
#pragma once

#include <string>

#include "coordinator/core/types.h"

namespace accrue::core {

// "" if they do; else the first thing in which they differ, with both values. How long it took does not count.
std::string Difference(const UnitReport& one, const UnitReport& other);

}  // namespace accrue::core
