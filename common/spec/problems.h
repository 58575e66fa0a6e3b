// Errors of a job file, gathered so that one reading reports them all. Internal to common/spec.
//
// Not thread-safe.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/spec/job_spec.h"

namespace accrue::spec {

class Problems {
 public:
  // Without a source, problems are reported by path alone.
  explicit Problems(const SourceMap* source) : source_(source) {}

  // At a place of the file.
  void AddAt(SourceMark mark, std::string message);
  // At the field's place, or else at the nearest enclosing one that the file has. Dropped when the path, or
  // one it lies in, is spoiled.
  void Add(const std::string& path, std::string message);
  // The field's value could not be read: later checks would only report the consequences.
  void Spoil(const std::string& path) { spoiled_.insert(path); }
  bool Spoiled(absl::string_view path) const;

  bool empty() const { return entries_.empty(); }
  // INVALID_ARGUMENT, one problem a line in the order of the file, the first 50 of them; OK when there is
  // none.
  absl::Status ToStatus() const;

 private:
  struct Entry {
    bool placed = false;
    SourceMark mark;
    std::string text;
  };

  const SourceMap* source_;
  std::vector<Entry> entries_;
  std::set<std::string> spoiled_;
};

// Every check of ValidateSpec, added to `problems`.
void CheckSpec(const v1::JobSpec& spec, Problems& problems);

}  // namespace accrue::spec
