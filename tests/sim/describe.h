// Effects as text: to compare two runs, and to read one.
#pragma once

#include <string>

#include "coordinator/core/effects.h"

namespace accrue::core {

std::string Describe(const Effect& effect);

}  // namespace accrue::core
