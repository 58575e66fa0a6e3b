// Workers as a table, and when one of them is called slow.
//
// Pure functions.
#pragma once

#include <string>

#include "accrue/v1/client.pb.h"

namespace accrue {

// From so many times the median of its job's unit times on, a worker is called slow.
inline constexpr double kSlowFactor = 1.5;

std::string WorkersTable(const google::protobuf::RepeatedPtrField<v1::WorkerStatus>& workers);

}  // namespace accrue
