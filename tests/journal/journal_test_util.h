// Shared by the journal's tests: a fresh folder each, and short ways to make records.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/file_system.h"
#include "coordinator/journal/sqlite_journal.h"

namespace accrue {

class JournalTestBase : public testing::Test {
 protected:
  JournalTestBase() {
    std::string pattern = testing::TempDir() + "/accrue_journal_XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  ~JournalTestBase() override { FileSystem::Real().RemoveAll(directory_).IgnoreError(); }

  OpenedJournal Open(int64_t max_page_count = 0) { return OpenIn(directory_, max_page_count); }
  static OpenedJournal OpenIn(const std::string& directory, int64_t max_page_count = 0) {
    SqliteJournalOptions options;
    options.directory = directory;
    options.max_page_count = max_page_count;
    absl::StatusOr<OpenedJournal> opened = OpenSqliteJournal(options);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return opened.ok() ? *std::move(opened) : OpenedJournal{};
  }

  static JobRecord MakeJob(const std::string& id) {
    JobRecord job;
    job.id = id;
    job.name = "headers";
    job.resolved_json = "{}";
    job.output_directory = "/out/" + id;
    job.submitted_unix_ns = 5;
    job.until_window = 10;
    return job;
  }

  static core::PersistCommit MakeCommit(const std::string& job, int64_t window, int64_t timeline = 0) {
    core::PersistCommit commit{job, {}};
    commit.record.window = Window(window);
    commit.record.timeline = Timeline(timeline);
    commit.record.loss = 1.0 / (window + 3);
    commit.record.tokens = 100 + window;
    commit.record.digest = "digest-" + std::to_string(window) + "-" + std::to_string(timeline);
    return commit;
  }

  static std::vector<int64_t> Windows(Journal& journal, const std::string& job, int64_t first = 0) {
    std::vector<int64_t> windows;
    const auto commits = journal.Commits(job, Window(first), 1000);
    EXPECT_TRUE(commits.ok()) << commits.status();
    for (const CommitRecord& commit : *commits) windows.push_back(commit.window.window.value());
    return windows;
  }

  std::string directory_;
};

}  // namespace accrue
