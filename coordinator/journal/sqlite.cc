#include "coordinator/journal/sqlite.h"

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace accrue {

void Statement::Check(int code) {
  if (code != SQLITE_OK && status_.ok()) status_ = database_->Error(code);
}

Statement& Statement::Bind(int64_t value) {
  if (status_.ok()) Check(sqlite3_bind_int64(statement_.get(), ++bound_, value));
  return *this;
}
Statement& Statement::Bind(double value) {
  if (status_.ok()) Check(sqlite3_bind_double(statement_.get(), ++bound_, value));
  return *this;
}
Statement& Statement::Bind(absl::string_view value) {
  if (status_.ok()) {
    // A null pointer would bind NULL.
    const char* const data = value.data() == nullptr ? "" : value.data();
    Check(sqlite3_bind_text64(statement_.get(), ++bound_, data, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
  }
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  if (!status_.ok()) return status_;
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  status_ = database_->Error(code);
  return status_;
}

absl::Status Statement::Run() { return Step().status(); }

std::string Statement::Text(int column) const {
  const unsigned char* text = sqlite3_column_text(statement_.get(), column);
  const int size_bytes = sqlite3_column_bytes(statement_.get(), column);
  return text == nullptr ? "" : std::string(reinterpret_cast<const char*>(text), static_cast<size_t>(size_bytes));
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& path) {
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  std::unique_ptr<Database> database(new Database(handle, path));
  if (code != SQLITE_OK) return database->Error(code);
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, 5000);
  return database;
}

Database::~Database() { sqlite3_close_v2(handle_); }

Statement Database::Prepare(absl::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(handle_, sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  return Statement(this, statement, code == SQLITE_OK ? absl::OkStatus() : Error(code));
}

absl::Status Database::Execute(const char* sql) {
  const int code = sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code);
}

absl::Status Database::QuickCheck() {
  Statement check = Prepare("PRAGMA quick_check(1)");
  ACCRUE_ASSIGN_OR_RETURN(const bool row, check.Step());
  const std::string answer = row ? check.Text(0) : "no answer";
  if (answer == "ok") return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path_, ": ", answer));
}

absl::Status Database::CopyFrom(Database& from) {
  sqlite3_backup* const backup = sqlite3_backup_init(handle_, "main", from.handle_, "main");
  if (backup == nullptr) return Error(sqlite3_extended_errcode(handle_));
  sqlite3_backup_step(backup, -1);
  const int code = sqlite3_backup_finish(backup);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code);
}

absl::Status Database::Error(int code) const {
  const std::string message =
      absl::StrCat(path_, ": ", handle_ == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(handle_));
  const int system_error = handle_ == nullptr ? 0 : sqlite3_system_errno(handle_);
  switch (code & 0xff) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(absl::StrCat(message, "; free some space on that disk"));
    case SQLITE_IOERR:
      if (system_error == ENOSPC || system_error == EDQUOT || system_error == EFBIG) {
        return absl::ResourceExhaustedError(absl::StrCat(message, "; free some space on that disk"));
      }
      return absl::InternalError(message);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(message);
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      return absl::PermissionDeniedError(message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(message);
    case SQLITE_CONSTRAINT:
      return absl::AlreadyExistsError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace accrue
