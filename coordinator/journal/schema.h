// The tables of the SQLite journal.
#pragma once

namespace accrue {

// Raised when the tables change, with a step in migrate.cc; in the store's user_version.
//   4  positions.loss_scale, commits.loss_scale, layouts.mixed
//   3  positions.parameter_hash
//   2  jobs.paused (some stores of version 1 have it), ledger.detail, layouts, positions
//   1  the first
inline constexpr int kSchemaVersion = 4;
// Tells the store from any other SQLite file ("accr").
inline constexpr int kApplicationId = 0x61636372;

inline constexpr char kSchema[] = R"sql(
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs(
  id TEXT PRIMARY KEY, name TEXT NOT NULL, resolved TEXT NOT NULL, output_directory TEXT NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL, submitted_unix_ns INTEGER NOT NULL, until_window INTEGER NOT NULL,
  timeline INTEGER NOT NULL, start_window INTEGER NOT NULL, paused INTEGER NOT NULL);
-- current: 0 once a later timeline began at or before this window.
CREATE TABLE IF NOT EXISTS commits(
  job TEXT NOT NULL, window INTEGER NOT NULL, timeline INTEGER NOT NULL, current INTEGER NOT NULL,
  unix_ns INTEGER NOT NULL, epoch INTEGER NOT NULL, attempt INTEGER NOT NULL, loss REAL, gradient_norm REAL,
  learning_rate REAL, tokens INTEGER NOT NULL, digest TEXT NOT NULL, skipped INTEGER NOT NULL,
  sequences INTEGER NOT NULL, clip_coefficient REAL, vanished_fraction REAL, duration_ns INTEGER NOT NULL,
  steps INTEGER NOT NULL, next_exponents TEXT NOT NULL, workers TEXT NOT NULL,
  loss_scale TEXT NOT NULL DEFAULT '',
  PRIMARY KEY(job, window, timeline)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epochs(
  job TEXT NOT NULL, timeline INTEGER NOT NULL, epoch INTEGER NOT NULL, attempt INTEGER NOT NULL,
  members TEXT NOT NULL, PRIMARY KEY(job, timeline, epoch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts(
  job TEXT NOT NULL, window INTEGER NOT NULL, attempt INTEGER NOT NULL, exponents TEXT NOT NULL,
  PRIMARY KEY(job, window, attempt)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS exponents(job TEXT PRIMARY KEY, exponents TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evaluations(
  job TEXT NOT NULL, window INTEGER NOT NULL, current INTEGER NOT NULL, loss REAL, tokens INTEGER NOT NULL,
  PRIMARY KEY(job, window)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoints(
  job TEXT NOT NULL, window INTEGER NOT NULL, digest TEXT NOT NULL, unix_ns INTEGER NOT NULL,
  PRIMARY KEY(job, window)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger(
  job TEXT NOT NULL, sequence INTEGER NOT NULL, unix_ns INTEGER NOT NULL, kind TEXT NOT NULL,
  timeline INTEGER NOT NULL, epoch INTEGER NOT NULL, window INTEGER NOT NULL, attempt INTEGER NOT NULL,
  incarnation INTEGER NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, PRIMARY KEY(job, sequence))
  WITHOUT ROWID;
-- What the members of a job's present timeline hold; attempt: of the window on the way.
CREATE TABLE IF NOT EXISTS positions(
  job TEXT PRIMARY KEY, timeline INTEGER NOT NULL, window INTEGER NOT NULL, steps INTEGER NOT NULL,
  digest TEXT NOT NULL, attempt INTEGER NOT NULL, exponents TEXT NOT NULL, parameter_hash TEXT NOT NULL,
  loss_scale TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layouts(
  job TEXT PRIMARY KEY, numeric_class TEXT NOT NULL, tensors TEXT NOT NULL, tensor_elements TEXT NOT NULL,
  buckets INTEGER NOT NULL, mixed TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file_hashes(
  path TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, modified_unix_ns INTEGER NOT NULL, xxh3_128 TEXT NOT NULL)
  WITHOUT ROWID;
)sql";

}  // namespace accrue
