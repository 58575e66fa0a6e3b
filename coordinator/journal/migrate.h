// Brings a store of an older accrued to the present tables.
#pragma once

#include "absl/status/status.h"
#include "coordinator/journal/sqlite.h"

namespace accrue {

// FAILED_PRECONDITION, with what to do, for a version that is not known: of a newer accrued, or none that ever was.
absl::Status CheckSchemaVersion(int64_t version);
// Within the caller's transaction; what of it fails, fails the whole. Makes the tables of a fresh store (version 0) too.
absl::Status MigrateSchema(Database& database, int64_t version);

}  // namespace accrue
