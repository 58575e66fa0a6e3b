// That the disk is asked to keep what was recorded, before Record returns.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <map>
#include <string>

#include "tests/journal/journal_test_util.h"

namespace accrue {
namespace {

// The system's files, with their syncs counted by kind of file.
struct CountedFiles {
  sqlite3_vfs vfs;
  sqlite3_vfs* real = nullptr;
  std::map<const sqlite3_file*, sqlite3_io_methods> counted;
  std::map<const sqlite3_file*, const sqlite3_io_methods*> originals;
  std::map<const sqlite3_file*, bool> is_wal;
  int wal_syncs = 0;
};
CountedFiles& Files() {
  static CountedFiles* const files = new CountedFiles;
  return *files;
}

int CountSync(sqlite3_file* file, int flags) {
  if (Files().is_wal[file]) ++Files().wal_syncs;
  return Files().originals[file]->xSync(file, flags);
}

int OpenCounted(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out_flags) {
  CountedFiles& files = Files();
  const int result = files.real->xOpen(files.real, name, file, flags, out_flags);
  if (file->pMethods == nullptr) return result;
  files.originals[file] = file->pMethods;
  files.counted[file] = *file->pMethods;
  files.counted[file].xSync = CountSync;
  files.is_wal[file] = (flags & SQLITE_OPEN_WAL) != 0;
  file->pMethods = &files.counted[file];
  return result;
}

class JournalSyncTest : public JournalTestBase {
 protected:
  void SetUp() override {
    CountedFiles& files = Files();
    files.real = sqlite3_vfs_find(nullptr);
    files.vfs = *files.real;
    files.vfs.zName = "counted";
    files.vfs.xOpen = OpenCounted;
    ASSERT_EQ(sqlite3_vfs_register(&files.vfs, /*makeDflt=*/1), SQLITE_OK);
  }
  void TearDown() override {
    sqlite3_vfs_unregister(&Files().vfs);
    sqlite3_vfs_register(Files().real, 1);
  }
};

TEST_F(JournalSyncTest, Record_EachCommit_IsSyncedOnceBeforeItReturns) {
  const OpenedJournal opened = Open();
  ASSERT_TRUE(opened.journal->AddJob(MakeJob("headers-1")).ok());
  for (int64_t window = 0; window < 3; ++window) {
    const int before = Files().wal_syncs;
    const std::vector<core::Effect> effects = {MakeCommit("headers-1", window)};
    ASSERT_TRUE(opened.journal->Record(effects, 5).ok());
    EXPECT_EQ(Files().wal_syncs, before + 1) << "window " << window;
  }
}

}  // namespace
}  // namespace accrue
