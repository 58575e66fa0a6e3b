// The embedded journal: one SQLite file in the state folder (WAL, synchronous FULL), and a copy of it for the day when
// it is damaged.
//
//   STATE/journal.db           the store (with -wal and -shm beside it while it is open)
//   STATE/journal.db.backup    the copy, replaced whole by BackUp
//   STATE/journal.db.damaged-* what was found damaged, kept for people to look at
//   STATE/term                 the term once more, so that it rises even when the store is lost
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "coordinator/journal/journal.h"

namespace accrue {

struct SqliteJournalOptions {
  std::string directory;     // the state folder, locked by the caller (common/folder_lock.h)
  int64_t max_page_count = 0;  // the store's size limit, in pages of 4 KiB; 0: SQLite's own
  const Clock* clock = &Clock::Real();
};

struct OpenedJournal {
  std::unique_ptr<Journal> journal;
  // What people must know: DATA_LOSS for each damaged file, with where it is kept and what the journal goes on from.
  std::vector<absl::Status> warnings;
};

// FAILED_PRECONDITION for a store of a newer accrued; PERMISSION_DENIED, RESOURCE_EXHAUSTED or INTERNAL when the folder
// cannot be used. A damaged store is no error: see warnings.
absl::StatusOr<OpenedJournal> OpenSqliteJournal(const SqliteJournalOptions& options);

}  // namespace accrue
