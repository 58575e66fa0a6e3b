// A thin cover over SQLite's C interface: statuses instead of codes, statements that close themselves. Not
// thread-safe.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace accrue {

class Database;

// One prepared statement. Parameters count from 1, columns from 0. The first error is kept and returned by Step.
class Statement {
 public:
  Statement& Bind(int64_t value);
  Statement& Bind(double value);
  Statement& Bind(absl::string_view value);

  // True with a row, false at the end.
  absl::StatusOr<bool> Step();
  // For a statement without rows.
  absl::Status Run();

  int64_t Integer(int column) const { return sqlite3_column_int64(statement_.get(), column); }
  double Real(int column) const { return sqlite3_column_double(statement_.get(), column); }
  std::string Text(int column) const;
  bool IsNull(int column) const { return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL; }

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  Statement(Database* database, sqlite3_stmt* statement, absl::Status status)
      : database_(database), statement_(statement), status_(std::move(status)) {}
  void Check(int code);

  Database* database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  absl::Status status_;
  int bound_ = 0;
};

class Database {
 public:
  // Creates the file if need be.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& path);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // Any error of the text shows at the first Step.
  Statement Prepare(absl::string_view sql);
  // One or more statements without parameters; rows are thrown away.
  absl::Status Execute(const char* sql);
  // Between BEGIN IMMEDIATE and COMMIT; rolled back when `body` or the commit fails.
  template <typename Body>
  absl::Status Transact(Body body) {
    absl::Status status = Execute("BEGIN IMMEDIATE");
    if (status.ok()) status = body();
    if (status.ok()) status = Execute("COMMIT");
    // Some errors have rolled back already; then this one has nothing to do and may say so.
    if (!status.ok() && sqlite3_get_autocommit(handle_) == 0) Execute("ROLLBACK").IgnoreError();
    return status;
  }
  // DATA_LOSS when SQLite finds the file damaged.
  absl::Status QuickCheck();
  // A copy of `from` as it was at one instant; durable when it returns.
  absl::Status CopyFrom(Database& from);

  // The status for SQLite's code: RESOURCE_EXHAUSTED, DATA_LOSS, PERMISSION_DENIED, UNAVAILABLE or INTERNAL.
  absl::Status Error(int code) const;
  sqlite3* handle() { return handle_; }

 private:
  Database(sqlite3* handle, std::string path) : handle_(handle), path_(std::move(path)) {}
  sqlite3* const handle_;
  const std::string path_;
};

}  // namespace accrue
