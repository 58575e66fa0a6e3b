#include "coordinator/journal/migrate.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/journal/schema.h"

namespace accrue {
namespace {

absl::StatusOr<bool> HasColumn(Database& database, const char* table, const char* column) {
  Statement found = database.Prepare("SELECT 1 FROM pragma_table_info(?) WHERE name = ?");
  return found.Bind(absl::string_view(table)).Bind(absl::string_view(column)).Step();
}

absl::Status AddColumn(Database& database, const char* table, const char* column, const char* type) {
  ACCRUE_ASSIGN_OR_RETURN(const bool there, HasColumn(database, table, column));
  if (there) return absl::OkStatus();
  return database.Execute(absl::StrCat("ALTER TABLE ", table, " ADD COLUMN ", column, " ", type).c_str());
}

// The columns; new tables come with kSchema.
absl::Status From1To2(Database& database) {
  ACCRUE_RETURN_IF_ERROR(AddColumn(database, "jobs", "paused", "INTEGER NOT NULL DEFAULT 0"));
  return AddColumn(database, "ledger", "detail", "TEXT NOT NULL DEFAULT ''");
}

absl::Status From2To3(Database& database) {
  return AddColumn(database, "positions", "parameter_hash", "TEXT NOT NULL DEFAULT ''");
}

absl::Status From3To4(Database& database) {
  ACCRUE_RETURN_IF_ERROR(AddColumn(database, "positions", "loss_scale", "TEXT NOT NULL DEFAULT ''"));
  ACCRUE_RETURN_IF_ERROR(AddColumn(database, "commits", "loss_scale", "TEXT NOT NULL DEFAULT ''"));
  return AddColumn(database, "layouts", "mixed", "TEXT NOT NULL DEFAULT ''");
}

}  // namespace

absl::Status CheckSchemaVersion(int64_t version) {
  if (version > kSchemaVersion) {
    return absl::FailedPreconditionError(absl::StrCat("it was written by a newer accrued (layout ", version,
                                                      ", this one knows ", kSchemaVersion,
                                                      "); use that one, or another --state folder"));
  }
  if (version < 0) {
    return absl::FailedPreconditionError(absl::StrCat("its layout ", version, " is none that an accrued ever wrote; use "
                                                      "another --state folder, and submit with the same output folders"));
  }
  return absl::OkStatus();
}

absl::Status MigrateSchema(Database& database, int64_t version) {
  if (version == 1) ACCRUE_RETURN_IF_ERROR(From1To2(database));
  if (version == 2) ACCRUE_RETURN_IF_ERROR(From2To3(database));
  ACCRUE_RETURN_IF_ERROR(database.Execute(kSchema));
  if (version >= 1 && version < 4) ACCRUE_RETURN_IF_ERROR(From3To4(database));  // after kSchema: version 1 has tables from it
  return database.Execute(absl::StrCat("PRAGMA user_version = ", kSchemaVersion).c_str());
}

}  // namespace accrue
