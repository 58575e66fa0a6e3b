// Workers as a table.
//
// Pure functions.
#pragma once

#include <string>

#include "accrue/v1/client.pb.h"

namespace accrue {

std::string WorkersTable(const google::protobuf::RepeatedPtrField<v1::WorkerStatus>& workers);

}  // namespace accrue
