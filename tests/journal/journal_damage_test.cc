// What is left of the journal after a crash, on a full disk, and when its file is damaged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/journal/journal_test_util.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class JournalDamageTest : public JournalTestBase {
 protected:
  std::string Path() const { return directory_ + "/journal.db"; }

  void FillAndClose() {
    auto journal = Open().journal;
    ASSERT_TRUE(journal->AddJob(MakeJob("j")).ok());
    for (int window = 0; window < 200; ++window) ASSERT_TRUE(journal->Record({MakeCommit("j", window)}, 1).ok());
  }

  void Overwrite(int64_t offset, const std::string& bytes) {
    std::fstream file(Path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset);
    file << bytes;
    ASSERT_TRUE(file.good());
  }

  std::vector<std::string> FilesAside() {
    std::vector<std::string> aside;
    const auto names = FileSystem::Real().List(directory_);
    for (const std::string& name : *names) {
      if (name.rfind("journal.db.damaged-", 0) == 0) aside.push_back(name);
    }
    return aside;
  }
};

TEST_F(JournalDamageTest, Open_CopyTakenWhileWriting_HasEveryFinishedTransaction) {
  auto journal = Open().journal;
  ASSERT_TRUE(journal->AddJob(MakeJob("j")).ok());
  for (int window = 0; window < 5; ++window) ASSERT_TRUE(journal->Record({MakeCommit("j", window)}, 1).ok());
  // What a crash leaves: the files as they are on the disk, the store still open.
  const std::string crashed = directory_ + "/crashed";
  std::filesystem::create_directory(crashed);
  for (const char* suffix : {"", "-wal"}) std::filesystem::copy_file(Path() + suffix, crashed + "/journal.db" + suffix);
  OpenedJournal opened = OpenIn(crashed);
  EXPECT_THAT(opened.warnings, IsEmpty());
  EXPECT_THAT(Windows(*opened.journal, "j"), ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(JournalDamageTest, Open_LogTornByACrash_KeepsTheFinishedTransactions) {
  auto journal = Open().journal;
  ASSERT_TRUE(journal->AddJob(MakeJob("j")).ok());
  ASSERT_TRUE(journal->Record({MakeCommit("j", 0)}, 1).ok());
  ASSERT_TRUE(journal->Record({MakeCommit("j", 1)}, 1).ok());
  const std::string crashed = directory_ + "/crashed";
  std::filesystem::create_directory(crashed);
  for (const char* suffix : {"", "-wal"}) std::filesystem::copy_file(Path() + suffix, crashed + "/journal.db" + suffix);
  std::filesystem::resize_file(crashed + "/journal.db-wal",
                               std::filesystem::file_size(crashed + "/journal.db-wal") - 100);
  OpenedJournal opened = OpenIn(crashed);
  EXPECT_THAT(opened.warnings, IsEmpty());
  EXPECT_THAT(Windows(*opened.journal, "j"), ElementsAre(0));
}

TEST_F(JournalDamageTest, Open_HeaderDamagedWithBackup_GoesOnFromIt) {
  FillAndClose();
  {
    auto journal = Open().journal;
    ASSERT_TRUE(journal->BackUp().ok());
    ASSERT_TRUE(journal->Record({MakeCommit("j", 200)}, 1).ok());
  }
  Overwrite(0, "this is no database at all");
  OpenedJournal opened = Open();
  ASSERT_THAT(opened.warnings, SizeIs(1));
  EXPECT_EQ(opened.warnings[0].code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(opened.warnings[0].message(), HasSubstr(Path()));
  EXPECT_THAT(opened.warnings[0].message(), HasSubstr("Going on from the copy"));
  EXPECT_THAT(FilesAside(), SizeIs(1));
  EXPECT_THAT(Windows(*opened.journal, "j", 198), ElementsAre(198, 199));
  EXPECT_TRUE(opened.journal->Record({MakeCommit("j", 200)}, 1).ok());
  opened.journal.reset();
  EXPECT_THAT(Open().warnings, IsEmpty());
}

TEST_F(JournalDamageTest, Open_PageDamaged_IsNoticed) {
  FillAndClose();
  ASSERT_TRUE(Open().journal->BackUp().ok());
  const auto size_bytes = std::filesystem::file_size(Path());
  ASSERT_GT(size_bytes, 12u * 4096);
  // Every page after the first: at least one belongs to a table's tree.
  for (uint64_t offset = 4096; offset < size_bytes; offset += 4096) Overwrite(offset, std::string(64, '\xa5'));
  OpenedJournal opened = Open();
  ASSERT_THAT(opened.warnings, SizeIs(1));
  EXPECT_THAT(Windows(*opened.journal, "j", 198), ElementsAre(198, 199));
}

TEST_F(JournalDamageTest, Open_DamagedWithoutBackup_StartsEmptyAndSaysSo) {
  FillAndClose();
  Overwrite(0, "this is no database at all");
  OpenedJournal opened = Open();
  ASSERT_THAT(opened.warnings, SizeIs(1));
  EXPECT_THAT(opened.warnings[0].message(), HasSubstr("empty journal"));
  EXPECT_THAT(*opened.journal->Jobs(), IsEmpty());
  EXPECT_THAT(FilesAside(), SizeIs(1));
}

TEST_F(JournalDamageTest, Open_BackupDamagedToo_StartsEmpty) {
  FillAndClose();
  Overwrite(0, "this is no database at all");
  ASSERT_TRUE(FileSystem::Real().WriteAtomically(Path() + ".backup", "neither is this, not by a long way").ok());
  OpenedJournal opened = Open();
  ASSERT_THAT(opened.warnings, SizeIs(1));
  EXPECT_THAT(*opened.journal->Jobs(), IsEmpty());
}

TEST_F(JournalDamageTest, BackUp_StoreDamaged_KeepsTheOldCopy) {
  FillAndClose();
  auto journal = Open().journal;
  ASSERT_TRUE(journal->BackUp().ok());
  const auto good = FileSystem::Real().ReadAll(Path() + ".backup", 1 << 24);
  for (uint64_t offset = 4096; offset < std::filesystem::file_size(Path()); offset += 4096) {
    Overwrite(offset, std::string(64, '\xa5'));
  }
  EXPECT_TRUE(absl::IsDataLoss(journal->BackUp()));
  EXPECT_EQ(*FileSystem::Real().ReadAll(Path() + ".backup", 1 << 24), *good);
}

TEST_F(JournalDamageTest, Open_NewerLayout_IsRefused) {
  FillAndClose();
  Overwrite(60, std::string("\0\0\0\x09", 4));  // user_version in the file's header
  SqliteJournalOptions options;
  options.directory = directory_;
  const absl::Status status = OpenSqliteJournal(options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("newer accrued"));
}

TEST_F(JournalDamageTest, Record_Full_IsAllOrNothingAndRecovers) {
  auto journal = Open(/*max_page_count=*/40).journal;
  ASSERT_TRUE(journal->AddJob(MakeJob("j")).ok());
  int64_t window = 0;
  absl::Status status;
  while (status.ok()) {
    ASSERT_LT(window, 10000);
    core::PersistLedger ledger{"j", {}};
    ledger.entry.kind = "commit";
    ledger.entry.reason = std::string(500, 'x');
    status = journal->Record({ledger, MakeCommit("j", window)}, 1);
    if (status.ok()) ++window;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(status.message(), HasSubstr(Path()));
  EXPECT_THAT(Windows(*journal, "j"), SizeIs(window));
  EXPECT_THAT(*journal->Ledger("j", 0, 10000), SizeIs(window));
  journal.reset();
  // With room again it goes on where it stopped.
  journal = Open().journal;
  EXPECT_TRUE(journal->Record({MakeCommit("j", window)}, 1).ok());
  EXPECT_THAT(Windows(*journal, "j"), SizeIs(window + 1));
}

}  // namespace
}  // namespace accrue
