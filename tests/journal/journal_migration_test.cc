// Stores of former versions: taken over whole, or refused with what to do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <map>

#include "coordinator/journal/schema.h"
#include "tests/journal/journal_test_util.h"

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The tables as accrued made them before the schema's version was raised to 2. The first builds had no `paused`.
std::string TablesOfVersion1(bool with_paused) {
  return std::string(R"sql(
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs(
  id TEXT PRIMARY KEY, name TEXT NOT NULL, resolved TEXT NOT NULL, output_directory TEXT NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL, submitted_unix_ns INTEGER NOT NULL, until_window INTEGER NOT NULL,
  timeline INTEGER NOT NULL, start_window INTEGER NOT NULL)sql") + (with_paused ? ", paused INTEGER NOT NULL" : "") + R"sql();
CREATE TABLE commits(
  job TEXT NOT NULL, window INTEGER NOT NULL, timeline INTEGER NOT NULL, current INTEGER NOT NULL,
  unix_ns INTEGER NOT NULL, epoch INTEGER NOT NULL, attempt INTEGER NOT NULL, loss REAL, gradient_norm REAL,
  learning_rate REAL, tokens INTEGER NOT NULL, digest TEXT NOT NULL, skipped INTEGER NOT NULL,
  sequences INTEGER NOT NULL, clip_coefficient REAL, vanished_fraction REAL, duration_ns INTEGER NOT NULL,
  steps INTEGER NOT NULL, next_exponents TEXT NOT NULL, workers TEXT NOT NULL,
  PRIMARY KEY(job, window, timeline)) WITHOUT ROWID;
CREATE TABLE epochs(
  job TEXT NOT NULL, timeline INTEGER NOT NULL, epoch INTEGER NOT NULL, attempt INTEGER NOT NULL,
  members TEXT NOT NULL, PRIMARY KEY(job, timeline, epoch)) WITHOUT ROWID;
CREATE TABLE attempts(
  job TEXT NOT NULL, window INTEGER NOT NULL, attempt INTEGER NOT NULL, exponents TEXT NOT NULL,
  PRIMARY KEY(job, window, attempt)) WITHOUT ROWID;
CREATE TABLE exponents(job TEXT PRIMARY KEY, exponents TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE evaluations(
  job TEXT NOT NULL, window INTEGER NOT NULL, current INTEGER NOT NULL, loss REAL, tokens INTEGER NOT NULL,
  PRIMARY KEY(job, window)) WITHOUT ROWID;
CREATE TABLE checkpoints(
  job TEXT NOT NULL, window INTEGER NOT NULL, digest TEXT NOT NULL, unix_ns INTEGER NOT NULL,
  PRIMARY KEY(job, window)) WITHOUT ROWID;
CREATE TABLE ledger(
  job TEXT NOT NULL, sequence INTEGER NOT NULL, unix_ns INTEGER NOT NULL, kind TEXT NOT NULL,
  timeline INTEGER NOT NULL, epoch INTEGER NOT NULL, window INTEGER NOT NULL, attempt INTEGER NOT NULL,
  incarnation INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY(job, sequence)) WITHOUT ROWID;
CREATE TABLE file_hashes(
  path TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, modified_unix_ns INTEGER NOT NULL, xxh3_128 TEXT NOT NULL)
  WITHOUT ROWID;
PRAGMA application_id = 0x61636372; PRAGMA user_version = 1; PRAGMA journal_mode = WAL;
INSERT INTO meta VALUES('term', 6), ('jobs', 1);
INSERT INTO commits VALUES('headers-1', 0, 0, 1, 9, 1, 0, 2.5, 1.0, 0.1, 64, 'd0', 0, 8, 1.0, 0.0, 5, 1, '[3]', '[]');
INSERT INTO epochs VALUES('headers-1', 0, 1, 0, '[2,5]');
INSERT INTO ledger VALUES('headers-1', 1, 8, 'epoch', 0, 1, 0, 0, 7, '2 members: start');
INSERT INTO jobs VALUES('headers-1', 'headers', '{}', '/out', 'running', '', 5, 10, 0, 0)sql" +
         (with_paused ? ", 1" : "") + ");";
}

class MigrationTest : public JournalTestBase {
 protected:
  void Execute(const std::string& sql) {
    sqlite3* handle = nullptr;
    ASSERT_EQ(sqlite3_open((directory_ + "/journal.db").c_str(), &handle), SQLITE_OK);
    char* error = nullptr;
    EXPECT_EQ(sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
    sqlite3_free(error);
    sqlite3_close(handle);
  }

  // Tables with their columns, and user_version.
  std::map<std::string, std::vector<std::string>> Layout() {
    std::map<std::string, std::vector<std::string>> layout;
    sqlite3* handle = nullptr;
    EXPECT_EQ(sqlite3_open((directory_ + "/journal.db").c_str(), &handle), SQLITE_OK);
    const auto take = [](void* to, int, char** values, char**) {
      (*static_cast<std::map<std::string, std::vector<std::string>>*>(to))[values[0]].push_back(values[1]);
      return 0;
    };
    const char* sql = "SELECT m.name, c.name || ' ' || c.type || ' ' || c.pk FROM sqlite_master m, pragma_table_info(m.name) c"
                      " WHERE m.type = 'table' ORDER BY m.name, c.cid;"
                      "SELECT 'user_version', user_version FROM pragma_user_version";
    EXPECT_EQ(sqlite3_exec(handle, sql, take, &layout, nullptr), SQLITE_OK);
    sqlite3_close(handle);
    return layout;
  }

  absl::Status OpenStatus() {
    SqliteJournalOptions options;
    options.directory = directory_;
    return OpenSqliteJournal(options).status();
  }
};

class FromVersion1 : public MigrationTest, public testing::WithParamInterface<bool> {};

TEST_P(FromVersion1, Open_EverythingIsThere) {
  Execute(TablesOfVersion1(GetParam()));
  {
    OpenedJournal opened = Open();
    EXPECT_THAT(opened.warnings, IsEmpty());
    Journal& journal = *opened.journal;
    ASSERT_EQ(journal.Jobs()->size(), 1u);
    EXPECT_EQ(journal.Jobs()->front().name, "headers");
    EXPECT_EQ(journal.Jobs()->front().paused, GetParam());
    EXPECT_EQ((*journal.LastCommit("headers-1"))->window.digest, "d0");
    EXPECT_EQ(journal.Ledger("headers-1", 0, 10)->front().entry.reason, "2 members: start");
    EXPECT_EQ(journal.Ledger("headers-1", 0, 10)->front().entry.detail, "");
    EXPECT_EQ(journal.HighestIncarnation()->value(), 7);
    EXPECT_EQ(journal.RaiseTerm()->value(), 7);
    EXPECT_EQ(*journal.NewJobId("headers"), "headers-2");
    // What the old accrued did not know is not made up.
    EXPECT_EQ(*journal.Live("headers-1"), std::nullopt);
  }
  // And it is written like any other.
  auto journal = Open().journal;
  core::PersistLedger ledger{"headers-1", {}};
  ledger.entry.detail = "{}";
  core::PersistPosition position{"headers-1", Timeline(0), Window(1), 1, "d0", {3}, "hash"};
  ASSERT_TRUE(journal->Record({MakeCommit("headers-1", 1), ledger, position}, 1).ok());
  ASSERT_TRUE(journal->SetPaused("headers-1", !GetParam()).ok());
  EXPECT_EQ(journal->Jobs()->front().paused, !GetParam());
  EXPECT_THAT(Windows(*journal, "headers-1"), ElementsAre(0, 1));
  EXPECT_EQ(journal->Ledger("headers-1", 2, 10)->front().entry.detail, "{}");
  ASSERT_TRUE(journal->AddJob(MakeJob("another")).ok());
}

TEST_P(FromVersion1, Open_TablesAreThoseOfAFreshStore) {
  Execute(TablesOfVersion1(GetParam()));
  Open();
  const auto migrated = Layout();
  ASSERT_TRUE(FileSystem::Real().RemoveAll(directory_).ok());
  Open();
  EXPECT_EQ(migrated, Layout());
}

TEST_P(FromVersion1, Open_FailsHalfWay_NothingIsChanged) {
  // An index in the way of a new table: a late step fails.
  Execute(TablesOfVersion1(GetParam()) + "CREATE INDEX positions ON jobs(name);");
  const auto before = Layout();
  EXPECT_FALSE(OpenStatus().ok());
  EXPECT_EQ(Layout(), before);
  EXPECT_THAT(before.at("user_version"), ElementsAre("1"));
  Execute("DROP INDEX positions");
  EXPECT_EQ(Open().journal->Jobs()->size(), 1u);
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutPaused, FromVersion1, testing::Bool());

TEST_F(MigrationTest, Open_Version2_KnowsWhatMembersHold) {
  {
    auto journal = Open().journal;
    ASSERT_TRUE(journal->AddJob(MakeJob("j")).ok());
    core::PersistPosition position{"j", Timeline(0), Window(1), 1, "d0", {3}, "hash"};
    core::PersistEpoch epoch{"j", Timeline(0), Epoch(1), Attempt(0), {Incarnation(4)}};
    ASSERT_TRUE(journal->Record({core::PersistLayout{"j", {"cpu", {"w"}, {10}, 1}}, position, epoch}, 1).ok());
  }
  const auto fresh = Layout();
  Execute("ALTER TABLE positions DROP COLUMN loss_scale; ALTER TABLE commits DROP COLUMN loss_scale;"
          " ALTER TABLE layouts DROP COLUMN mixed;"
          " ALTER TABLE positions DROP COLUMN parameter_hash; PRAGMA user_version = 2");
  const auto live = Open().journal->Live("j");
  ASSERT_TRUE(live.ok() && live->has_value()) << live.status();
  EXPECT_EQ((*live)->digest, "d0");
  EXPECT_EQ((*live)->parameter_hash, "");
  EXPECT_EQ(Layout(), fresh);
}

TEST_F(MigrationTest, Open_Version3_JobsHaveNoLossScale) {
  {
    auto journal = Open().journal;
    ASSERT_TRUE(journal->AddJob(MakeJob("j")).ok());
    core::PersistPosition position{"j", Timeline(0), Window(1), 1, "d0", {3}, "hash"};
    core::PersistEpoch epoch{"j", Timeline(0), Epoch(1), Attempt(0), {Incarnation(4)}};
    ASSERT_TRUE(journal->Record({MakeCommit("j", 0), core::PersistLayout{"j", {"cpu", {"w"}, {10}, 1}}, position, epoch},
                                1).ok());
  }
  const auto fresh = Layout();
  Execute("ALTER TABLE positions DROP COLUMN loss_scale; ALTER TABLE commits DROP COLUMN loss_scale;"
          " PRAGMA user_version = 3");
  auto journal = Open().journal;
  const auto live = journal->Live("j");
  ASSERT_TRUE(live.ok() && live->has_value()) << live.status();
  EXPECT_EQ((*live)->parameter_hash, "hash");
  EXPECT_EQ((*live)->loss_scale, std::nullopt);
  EXPECT_EQ((*journal->LastCommit("j"))->window.loss_scale, std::nullopt);
  EXPECT_EQ(Layout(), fresh);
}

TEST_F(MigrationTest, Open_Version3_ItsJobsAreOfOneClass) {
  {
    auto journal = Open().journal;
    ASSERT_TRUE(journal->AddJob(MakeJob("j")).ok());
    ASSERT_TRUE(journal->Record({core::PersistLayout{"j", {"cpu", {"w"}, {10}, 1}}}, 1).ok());
  }
  const auto fresh = Layout();
  Execute("ALTER TABLE layouts DROP COLUMN mixed; PRAGMA user_version = 3");
  const auto layout = Open().journal->LayoutOf("j");
  ASSERT_TRUE(layout.ok() && layout->has_value()) << layout.status();
  EXPECT_EQ((*layout)->numeric_class, "cpu");
  EXPECT_EQ((*layout)->mixed, "");
  EXPECT_EQ(Layout(), fresh);
}

TEST_F(MigrationTest, Open_NewerVersion_IsRefusedWithWhatToDo) {
  Open();
  Execute("PRAGMA user_version = 99");
  const absl::Status status = OpenStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr(directory_));
  EXPECT_THAT(status.message(), HasSubstr("written by a newer accrued (layout 99"));
  EXPECT_THAT(status.message(), HasSubstr("another --state folder"));
}

TEST_F(MigrationTest, Open_VersionThatNeverWas_IsRefusedWithWhatToDo) {
  Open();
  Execute("PRAGMA user_version = -3");
  const absl::Status status = OpenStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("another --state folder"));
}

// Whoever changes a table raises kSchemaVersion, adds a step to migrate.cc, and only then this.
TEST_F(MigrationTest, Fresh_TablesAreThoseOfTheVersion) {
  Open();
  const auto layout = Layout();
  EXPECT_THAT(layout.at("user_version"), ElementsAre(std::to_string(kSchemaVersion)));
  std::map<std::string, size_t> columns;
  for (const auto& [table, names] : layout) columns[table] = names.size();
  columns.erase("user_version");
  const std::map<std::string, size_t> version_4 = {
      {"attempts", 4},  {"checkpoints", 4}, {"commits", 21}, {"epochs", 5},    {"evaluations", 5}, {"exponents", 2},
      {"file_hashes", 4}, {"jobs", 11},     {"layouts", 6},  {"ledger", 11},   {"meta", 2},        {"positions", 9}};
  EXPECT_EQ(columns, version_4);
}

}  // namespace
}  // namespace accrue
