#include "coordinator/journal/sqlite_journal.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/types/variant.h"
#include "common/fault_points.h"
#include "common/file_system.h"
#include "common/status.h"
#include "coordinator/journal/migrate.h"
#include "coordinator/journal/records.h"
#include "coordinator/journal/schema.h"
#include "coordinator/journal/sqlite.h"

namespace accrue {
namespace {

// SQLite stores a NaN as NULL.
double RealOrNan(const Statement& row, int column) {
  return row.IsNull(column) ? std::numeric_limits<double>::quiet_NaN() : row.Real(column);
}

// Writes one effect; those that are not Persist effects are none of the journal's business.
class EffectWriter {
 public:
  EffectWriter(Database& database, int64_t now_unix_ns) : database_(database), now_unix_ns_(now_unix_ns) {}

  template <typename Other>
  absl::Status operator()(const Other&) {
    return absl::OkStatus();
  }

  absl::Status operator()(const core::PersistEpoch& e) {
    // The core goes back to a checkpoint by itself; the next coordinator's timeline must be above that.
    ACCRUE_RETURN_IF_ERROR(database_.Prepare("UPDATE jobs SET timeline = ?1 WHERE id = ?2 AND timeline < ?1")
                               .Bind(e.timeline.value()).Bind(e.job).Run());
    return database_.Prepare("INSERT OR REPLACE INTO epochs VALUES(?, ?, ?, ?, ?)")
        .Bind(e.job).Bind(e.timeline.value()).Bind(e.epoch.value()).Bind(e.attempt.value())
        .Bind(MembersToText(e.members)).Run();
  }

  absl::Status operator()(const core::PersistPosition& e) {
    return database_.Prepare("INSERT OR REPLACE INTO positions VALUES(?, ?, ?, ?, ?, 0, ?, ?, ?)")
        .Bind(e.job).Bind(e.timeline.value()).Bind(e.window.value()).Bind(e.steps).Bind(e.digest)
        .Bind(ExponentsToText(e.exponents)).Bind(e.parameter_hash).Bind(LossScaleToText(e.loss_scale)).Run();
  }

  absl::Status operator()(const core::PersistLayout& e) {
    return database_.Prepare("INSERT OR REPLACE INTO layouts VALUES(?, ?, ?, ?, ?, ?)")
        .Bind(e.job).Bind(e.layout.numeric_class).Bind(NamesToText(e.layout.tensors))
        .Bind(SizesToText(e.layout.tensor_elements)).Bind(e.layout.buckets).Bind(e.layout.mixed).Run();
  }

  absl::Status operator()(const core::PersistExponents& e) {
    ACCRUE_RETURN_IF_ERROR(database_.Prepare("UPDATE positions SET exponents = ? WHERE job = ?")
                               .Bind(ExponentsToText(e.exponents)).Bind(e.job).Run());
    return database_.Prepare("INSERT OR REPLACE INTO exponents VALUES(?, ?)")
        .Bind(e.job).Bind(ExponentsToText(e.exponents)).Run();
  }

  absl::Status operator()(const core::PersistAttempt& e) {
    ACCRUE_RETURN_IF_ERROR(
        database_.Prepare("UPDATE positions SET attempt = ?, exponents = ? WHERE job = ? AND window = ?")
            .Bind(e.attempt.value()).Bind(ExponentsToText(e.exponents)).Bind(e.job).Bind(e.window.value()).Run());
    return database_.Prepare("INSERT OR REPLACE INTO attempts VALUES(?, ?, ?, ?)")
        .Bind(e.job).Bind(e.window.value()).Bind(e.attempt.value()).Bind(ExponentsToText(e.exponents)).Run();
  }

  absl::Status operator()(const core::PersistCommit& e) {
    const core::WindowRecord& r = e.record;
    // A rollback within a run raises the timeline; what the older one committed from here on is history.
    ACCRUE_RETURN_IF_ERROR(
        database_.Prepare("UPDATE commits SET current = 0 WHERE job = ? AND window >= ? AND timeline < ?")
            .Bind(e.job).Bind(r.window.value()).Bind(r.timeline.value()).Run());
    return database_.Prepare("INSERT INTO commits VALUES(?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .Bind(e.job).Bind(r.window.value()).Bind(r.timeline.value()).Bind(now_unix_ns_).Bind(r.epoch.value())
        .Bind(r.attempt.value()).Bind(r.loss).Bind(r.gradient_norm).Bind(r.learning_rate).Bind(r.tokens)
        .Bind(r.digest).Bind(int64_t{r.skipped}).Bind(r.sequences).Bind(r.clip_coefficient)
        .Bind(r.vanished_fraction).Bind(r.duration_ns).Bind(r.steps).Bind(ExponentsToText(r.next_exponents))
        .Bind(WorkersToText(r.workers)).Bind(LossScaleToText(r.loss_scale)).Run();
  }

  absl::Status operator()(const core::PersistEvaluation& e) {
    return database_.Prepare("INSERT OR REPLACE INTO evaluations VALUES(?, ?, 1, ?, ?)")
        .Bind(e.job).Bind(e.window.value()).Bind(e.loss).Bind(e.tokens).Run();
  }

  absl::Status operator()(const core::PersistCheckpoint& e) {
    return database_.Prepare("INSERT OR REPLACE INTO checkpoints VALUES(?, ?, ?, ?)")
        .Bind(e.job).Bind(e.window.value()).Bind(e.digest).Bind(now_unix_ns_).Run();
  }

  absl::Status operator()(const core::PersistState& e) {
    return database_.Prepare("UPDATE jobs SET state = ?, reason = ? WHERE id = ?")
        .Bind(JobStateName(e.state)).Bind(e.reason).Bind(e.job).Run();
  }

  absl::Status operator()(const core::PersistLedger& e) {
    return database_
        .Prepare("INSERT INTO ledger SELECT ?1, COALESCE(MAX(sequence), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10"
                 " FROM ledger WHERE job = ?1")
        .Bind(e.job).Bind(now_unix_ns_).Bind(e.entry.kind).Bind(e.entry.timeline.value()).Bind(e.entry.epoch.value())
        .Bind(e.entry.window.value()).Bind(e.entry.attempt.value()).Bind(e.entry.incarnation.value())
        .Bind(e.entry.reason).Bind(e.entry.detail).Run();
  }

 private:
  Database& database_;
  const int64_t now_unix_ns_;
};

constexpr char kCommitColumns[] =
    "SELECT c.window, c.timeline, c.unix_ns, c.epoch, c.attempt, c.loss, c.gradient_norm, c.learning_rate, c.tokens,"
    " c.digest, c.skipped, c.sequences, c.clip_coefficient, c.vanished_fraction, c.duration_ns, c.steps,"
    " c.next_exponents, c.workers, e.window, e.loss, c.loss_scale FROM commits c"
    " LEFT JOIN evaluations e ON e.job = c.job AND e.window = c.window + 1 AND e.current = 1";

absl::StatusOr<CommitRecord> ReadCommit(const Statement& row) {
  CommitRecord commit;
  core::WindowRecord& r = commit.window;
  r.window = Window(row.Integer(0));
  r.timeline = Timeline(row.Integer(1));
  commit.committed_unix_ns = row.Integer(2);
  r.epoch = Epoch(row.Integer(3));
  r.attempt = Attempt(row.Integer(4));
  r.loss = RealOrNan(row, 5);
  r.gradient_norm = RealOrNan(row, 6);
  r.learning_rate = RealOrNan(row, 7);
  r.tokens = row.Integer(8);
  r.digest = row.Text(9);
  r.skipped = row.Integer(10) != 0;
  r.sequences = row.Integer(11);
  r.clip_coefficient = RealOrNan(row, 12);
  r.vanished_fraction = RealOrNan(row, 13);
  r.duration_ns = row.Integer(14);
  r.steps = row.Integer(15);
  ACCRUE_ASSIGN_OR_RETURN(r.next_exponents, ExponentsFromText(row.Text(16)));
  ACCRUE_ASSIGN_OR_RETURN(r.workers, WorkersFromText(row.Text(17)));
  ACCRUE_ASSIGN_OR_RETURN(r.loss_scale, LossScaleFromText(row.Text(20)));
  if (!row.IsNull(18)) commit.validation_loss = RealOrNan(row, 19);
  return commit;
}

// From five columns, the first of which is this one.
absl::StatusOr<core::Layout> ReadLayout(const Statement& row, int column) {
  core::Layout layout;
  layout.numeric_class = row.Text(column);
  ACCRUE_ASSIGN_OR_RETURN(layout.tensors, NamesFromText(row.Text(column + 1)));
  ACCRUE_ASSIGN_OR_RETURN(layout.tensor_elements, SizesFromText(row.Text(column + 2)));
  layout.buckets = row.Integer(column + 3);
  layout.mixed = row.Text(column + 4);
  return layout;
}

class SqliteJournal : public Journal {
 public:
  SqliteJournal(std::string directory, std::unique_ptr<Database> database)
      : directory_(std::move(directory)), database_(std::move(database)) {}

  absl::StatusOr<Term> RaiseTerm() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::string path = JoinPath(directory_, "term");
    int64_t term = 0;
    if (const auto text = FileSystem::Real().ReadAll(path, 64); text.ok()) {
      if (!absl::SimpleAtoi(*text, &term)) term = 0;  // torn by a crash of the machine: the store knows
    }
    Statement known = database_->Prepare("SELECT value FROM meta WHERE name = 'term'");
    ACCRUE_ASSIGN_OR_RETURN(const bool found, known.Step());
    if (found) term = std::max(term, known.Integer(0));
    ++term;
    ACCRUE_RETURN_IF_ERROR(
        database_->Prepare("INSERT OR REPLACE INTO meta VALUES('term', ?)").Bind(term).Run());
    ACCRUE_RETURN_IF_ERROR(FileSystem::Real().WriteAtomically(path, absl::StrCat(term, "\n")));
    return Term(term);
  }

  absl::StatusOr<Incarnation> HighestIncarnation() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement highest = database_->Prepare(
        "SELECT MAX(COALESCE((SELECT MAX(incarnation) FROM ledger), 0),"
        " COALESCE((SELECT MAX(m.value) FROM epochs, json_each(epochs.members) m), 0))");
    ACCRUE_RETURN_IF_ERROR(highest.Step().status());
    return Incarnation(highest.Integer(0));
  }

  absl::StatusOr<JobId> NewJobId(const std::string& name) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement next = database_->Prepare(
        "INSERT INTO meta VALUES('jobs', 1) ON CONFLICT(name) DO UPDATE SET value = value + 1 RETURNING value");
    ACCRUE_ASSIGN_OR_RETURN(const bool row, next.Step());
    if (!row) return absl::InternalError("the journal gave no job number");
    const int64_t number = next.Integer(0);
    ACCRUE_RETURN_IF_ERROR(next.Run());
    return absl::StrCat(name, "-", number);
  }

  absl::Status AddJob(const JobRecord& job) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return database_->Prepare("INSERT INTO jobs VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .Bind(job.id).Bind(job.name).Bind(job.resolved_json).Bind(job.output_directory)
        .Bind(JobStateName(job.state)).Bind(job.reason).Bind(job.submitted_unix_ns).Bind(job.until_window)
        .Bind(job.timeline.value()).Bind(job.start_window.value()).Bind(int64_t{job.paused}).Run();
  }

  absl::StatusOr<std::vector<JobRecord>> Jobs() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement row = database_->Prepare(
        "SELECT id, name, resolved, output_directory, state, reason, submitted_unix_ns, until_window, timeline,"
        " start_window, paused FROM jobs ORDER BY submitted_unix_ns, rowid");
    std::vector<JobRecord> jobs;
    while (true) {
      ACCRUE_ASSIGN_OR_RETURN(const bool more, row.Step());
      if (!more) return jobs;
      ACCRUE_ASSIGN_OR_RETURN(const core::JobState state, ParseJobState(row.Text(4)));
      jobs.push_back({row.Text(0), row.Text(1), row.Text(2), row.Text(3), state, row.Text(5), row.Integer(6),
                      row.Integer(7), Timeline(row.Integer(8)), Window(row.Integer(9)), row.Integer(10) != 0});
    }
  }

  absl::Status StartTimeline(const JobId& job, Timeline timeline, Window start_window) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return database_->Transact([&]() -> absl::Status {
      ACCRUE_RETURN_IF_ERROR(database_->Prepare("UPDATE jobs SET timeline = ?, start_window = ? WHERE id = ?")
                                 .Bind(timeline.value()).Bind(start_window.value()).Bind(job).Run());
      ACCRUE_RETURN_IF_ERROR(database_->Prepare("UPDATE commits SET current = 0 WHERE job = ? AND window >= ?")
                                 .Bind(job).Bind(start_window.value()).Run());
      return database_->Prepare("UPDATE evaluations SET current = 0 WHERE job = ? AND window > ?")
          .Bind(job).Bind(start_window.value()).Run();
    });
  }

  absl::Status SetPaused(const JobId& job, bool paused) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return database_->Prepare("UPDATE jobs SET paused = ? WHERE id = ?").Bind(int64_t{paused}).Bind(job).Run();
  }

  absl::Status Record(absl::Span<const core::Effect> effects, int64_t now_unix_ns) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return database_->Transact([&]() -> absl::Status {
      EffectWriter writer(*database_, now_unix_ns);
      for (const core::Effect& effect : effects) {
        ACCRUE_RETURN_IF_ERROR(std::visit(writer, effect));
        if (const auto* commit = std::get_if<core::PersistCommit>(&effect)) {
          PassFaultPoint(FaultPoint::kCoordinatorCommitWritten, commit->record.window.value());
        }
      }
      return absl::OkStatus();
    });
  }

  absl::StatusOr<std::vector<CommitRecord>> Commits(const JobId& job, Window first_window, int64_t limit) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement row = database_->Prepare(absl::StrCat(
        kCommitColumns, " WHERE c.job = ? AND c.current = 1 AND c.window >= ? ORDER BY c.window LIMIT ?"));
    row.Bind(job).Bind(first_window.value()).Bind(limit);
    std::vector<CommitRecord> commits;
    while (true) {
      ACCRUE_ASSIGN_OR_RETURN(const bool more, row.Step());
      if (!more) return commits;
      ACCRUE_ASSIGN_OR_RETURN(CommitRecord commit, ReadCommit(row));
      commits.push_back(std::move(commit));
    }
  }

  absl::StatusOr<std::optional<CommitRecord>> LastCommit(const JobId& job) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement row = database_->Prepare(
        absl::StrCat(kCommitColumns, " WHERE c.job = ? AND c.current = 1 ORDER BY c.window DESC LIMIT 1"));
    ACCRUE_ASSIGN_OR_RETURN(const bool found, row.Bind(job).Step());
    if (!found) return std::nullopt;
    ACCRUE_ASSIGN_OR_RETURN(CommitRecord commit, ReadCommit(row));
    return std::make_optional(std::move(commit));
  }

  absl::StatusOr<std::optional<core::LiveState>> Live(const JobId& job) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement row = database_->Prepare(
        "SELECT p.timeline, p.window, p.steps, p.digest, p.attempt, p.exponents, e.epoch, e.members, l.numeric_class,"
        " l.tensors, l.tensor_elements, l.buckets, l.mixed, p.parameter_hash, p.loss_scale FROM jobs j"
        " JOIN positions p ON p.job = j.id AND p.timeline = j.timeline"
        " JOIN epochs e ON e.job = j.id AND e.timeline = j.timeline"
        " JOIN layouts l ON l.job = j.id WHERE j.id = ? ORDER BY e.epoch DESC LIMIT 1");
    ACCRUE_ASSIGN_OR_RETURN(const bool found, row.Bind(job).Step());
    if (!found) return std::nullopt;
    core::LiveState live;
    live.timeline = Timeline(row.Integer(0));
    live.window = Window(row.Integer(1));
    live.steps = row.Integer(2);
    live.digest = row.Text(3);
    live.attempt = Attempt(row.Integer(4));
    ACCRUE_ASSIGN_OR_RETURN(live.exponents, ExponentsFromText(row.Text(5)));
    live.epoch = Epoch(row.Integer(6));
    ACCRUE_ASSIGN_OR_RETURN(live.members, MembersFromText(row.Text(7)));
    ACCRUE_ASSIGN_OR_RETURN(live.layout, ReadLayout(row, 8));
    live.parameter_hash = row.Text(13);
    ACCRUE_ASSIGN_OR_RETURN(live.loss_scale, LossScaleFromText(row.Text(14)));
    if (live.members.empty()) return std::nullopt;
    return std::make_optional(std::move(live));
  }

  absl::StatusOr<std::optional<core::Layout>> LayoutOf(const JobId& job) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement row =
        database_->Prepare("SELECT numeric_class, tensors, tensor_elements, buckets, mixed FROM layouts WHERE job = ?");
    ACCRUE_ASSIGN_OR_RETURN(const bool found, row.Bind(job).Step());
    if (!found) return std::nullopt;
    ACCRUE_ASSIGN_OR_RETURN(core::Layout layout, ReadLayout(row, 0));
    return std::make_optional(std::move(layout));
  }

  absl::StatusOr<std::string> SupersededDigest(const JobId& job, Window window) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement row = database_->Prepare(
        "SELECT digest FROM commits WHERE job = ? AND window = ? AND current = 0 ORDER BY timeline DESC LIMIT 1");
    ACCRUE_ASSIGN_OR_RETURN(const bool found, row.Bind(job).Bind(window.value()).Step());
    return found ? row.Text(0) : std::string();
  }

  absl::StatusOr<std::vector<EvaluationRecord>> Evaluations(const JobId& job, Window first_window) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement row = database_->Prepare(
        "SELECT window, loss, tokens FROM evaluations WHERE job = ? AND current = 1 AND window >= ? ORDER BY window");
    row.Bind(job).Bind(first_window.value());
    std::vector<EvaluationRecord> evaluations;
    while (true) {
      ACCRUE_ASSIGN_OR_RETURN(const bool more, row.Step());
      if (!more) return evaluations;
      evaluations.push_back({Window(row.Integer(0)), RealOrNan(row, 1), row.Integer(2)});
    }
  }

  absl::StatusOr<std::vector<CheckpointRecord>> Checkpoints(const JobId& job) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement row =
        database_->Prepare("SELECT window, digest, unix_ns FROM checkpoints WHERE job = ? ORDER BY window");
    row.Bind(job);
    std::vector<CheckpointRecord> checkpoints;
    while (true) {
      ACCRUE_ASSIGN_OR_RETURN(const bool more, row.Step());
      if (!more) return checkpoints;
      checkpoints.push_back({Window(row.Integer(0)), row.Text(1), row.Integer(2)});
    }
  }

  absl::StatusOr<std::vector<LedgerRecord>> Ledger(const JobId& job, int64_t first_sequence, int64_t limit) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement row = database_->Prepare(
        "SELECT sequence, unix_ns, kind, timeline, epoch, window, attempt, incarnation, reason, detail FROM ledger"
        " WHERE job = ? AND sequence >= ? ORDER BY sequence LIMIT ?");
    row.Bind(job).Bind(first_sequence).Bind(limit);
    std::vector<LedgerRecord> ledger;
    while (true) {
      ACCRUE_ASSIGN_OR_RETURN(const bool more, row.Step());
      if (!more) return ledger;
      ledger.push_back({row.Integer(0), row.Integer(1),
                        {row.Text(2), Timeline(row.Integer(3)), Epoch(row.Integer(4)), Window(row.Integer(5)),
                         Attempt(row.Integer(6)), Incarnation(row.Integer(7)), row.Text(8), row.Text(9)}});
    }
  }

  absl::StatusOr<std::string> FindFileHash(const FileHash& file) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Statement row = database_->Prepare(
        "SELECT xxh3_128 FROM file_hashes WHERE path = ? AND size_bytes = ? AND modified_unix_ns = ?");
    row.Bind(file.path).Bind(static_cast<int64_t>(file.size_bytes)).Bind(file.modified_unix_ns);
    ACCRUE_ASSIGN_OR_RETURN(const bool found, row.Step());
    return found ? row.Text(0) : std::string();
  }

  absl::Status PutFileHash(const FileHash& file) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return database_->Prepare("INSERT OR REPLACE INTO file_hashes VALUES(?, ?, ?, ?)")
        .Bind(file.path).Bind(static_cast<int64_t>(file.size_bytes)).Bind(file.modified_unix_ns).Bind(file.xxh3_128)
        .Run();
  }

  absl::Status BackUp() override {
    const std::lock_guard<std::mutex> lock(backup_mutex_);
    const std::string path = JoinPath(directory_, "journal.db.backup"), partial = path + ".partial";
    FileSystem& files = FileSystem::Real();
    ACCRUE_RETURN_IF_ERROR(files.RemoveAll(partial));
    {
      // A connection of its own: in WAL mode a reader sees one instant and holds up nobody.
      ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<Database> from, Database::Open(JoinPath(directory_, "journal.db")));
      ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<Database> to, Database::Open(partial));
      ACCRUE_RETURN_IF_ERROR(to->CopyFrom(*from));
      // Pages are copied as they are: damage must not replace the last good copy.
      ACCRUE_RETURN_IF_ERROR(to->QuickCheck());
      // A file that stands alone.
      ACCRUE_RETURN_IF_ERROR(to->Execute("PRAGMA journal_mode = DELETE"));
    }
    ACCRUE_RETURN_IF_ERROR(files.Rename(partial, path));
    return files.SyncDirectory(directory_);
  }

 private:
  const std::string directory_;
  std::mutex mutex_;
  const std::unique_ptr<Database> database_ ABSL_GUARDED_BY(mutex_);
  std::mutex backup_mutex_;  // one backup at a time
};

// Opens, checks and sets up one file. DATA_LOSS: it is not a sound journal.
absl::StatusOr<std::unique_ptr<Database>> OpenChecked(const std::string& path, int64_t max_page_count) {
  const auto size_bytes = FileSystem::Real().SizeBytes(path);
  const bool fresh = !size_bytes.ok() || *size_bytes == 0;
  int64_t version = 0;
  ACCRUE_ASSIGN_OR_RETURN(std::unique_ptr<Database> database, Database::Open(path));
  if (!fresh) {
    ACCRUE_RETURN_IF_ERROR(database->QuickCheck());
    Statement identity = database->Prepare("SELECT a.application_id, u.user_version"
                                           " FROM pragma_application_id a, pragma_user_version u");
    ACCRUE_RETURN_IF_ERROR(identity.Step().status());
    if (identity.Integer(0) != kApplicationId) {
      return absl::DataLossError(absl::StrCat(path, " is not a journal of accrue"));
    }
    version = identity.Integer(1);
    ACCRUE_RETURN_IF_ERROR(Annotate(CheckSchemaVersion(version), path));
  }
  ACCRUE_RETURN_IF_ERROR(database->Execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"));
  if (max_page_count > 0) {
    ACCRUE_RETURN_IF_ERROR(database->Execute(absl::StrCat("PRAGMA max_page_count = ", max_page_count).c_str()));
  }
  ACCRUE_RETURN_IF_ERROR(database->Transact([&]() -> absl::Status {
    ACCRUE_RETURN_IF_ERROR(MigrateSchema(*database, version));
    return database->Execute(absl::StrCat("PRAGMA application_id = ", kApplicationId).c_str());
  }));
  return database;
}

// Moves a damaged store out of the way, with what belongs to it. Returns its new name.
absl::StatusOr<std::string> SetAside(const std::string& path, int64_t now_unix_ns) {
  const std::string aside = absl::StrCat(path, ".damaged-", now_unix_ns / 1'000'000'000);
  for (const char* suffix : {"", "-wal", "-shm"}) {
    if (!FileSystem::Real().Exists(path + suffix)) continue;
    ACCRUE_RETURN_IF_ERROR(FileSystem::Real().Rename(path + suffix, aside + suffix));
  }
  return aside;
}

// Makes `path` from the backup. NOT_FOUND without one, DATA_LOSS when it is damaged too.
absl::Status Restore(const std::string& backup, const std::string& path) {
  if (!FileSystem::Real().Exists(backup)) return absl::NotFoundError("there is no backup yet");
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<Database> from, Database::Open(backup));
  ACCRUE_RETURN_IF_ERROR(from->QuickCheck());
  ACCRUE_ASSIGN_OR_RETURN(const std::unique_ptr<Database> to, Database::Open(path));
  return to->CopyFrom(*from);
}

}  // namespace

absl::StatusOr<OpenedJournal> OpenSqliteJournal(const SqliteJournalOptions& options) {
  ACCRUE_RETURN_IF_ERROR(FileSystem::Real().CreateDirectories(options.directory));
  const std::string path = JoinPath(options.directory, "journal.db"), backup = path + ".backup";
  OpenedJournal opened;
  absl::StatusOr<std::unique_ptr<Database>> database = OpenChecked(path, options.max_page_count);
  if (absl::IsDataLoss(database.status())) {
    const std::string damage(database.status().message());
    ACCRUE_ASSIGN_OR_RETURN(const std::string aside, SetAside(path, options.clock->WallNowUnixNs()));
    const absl::Status restored = Restore(backup, path);
    if (!restored.ok() && !absl::IsDataLoss(restored) && !absl::IsNotFound(restored)) return restored;
    if (!restored.ok()) {
      for (const char* suffix : {"", "-wal", "-shm"}) {
        ACCRUE_RETURN_IF_ERROR(FileSystem::Real().RemoveAll(path + suffix));
      }
    }
    opened.warnings.push_back(absl::DataLossError(absl::StrCat(
        "the journal ", path, " is damaged (", damage, "); it is kept as ", aside, ". ",
        restored.ok() ? absl::StrCat("Going on from the copy ", backup)
                      : absl::StrCat("Going on with an empty journal, since ", restored.message()),
        ". Submit again what is missing: with the same output folder a job resumes from its checkpoints")));
    database = OpenChecked(path, options.max_page_count);
  }
  if (!database.ok()) return Annotate(database.status(), "cannot open the journal");
  opened.journal = std::make_unique<SqliteJournal>(options.directory, *std::move(database));
  return opened;
}

}  // namespace accrue
