// Numeric classes: who may compute a job, and when it is no longer computed in one class alone. docs/job_file.md,
// "Workers of different classes".
#include "absl/strings/str_cat.h"
#include "coordinator/core/machine.h"

namespace accrue::core {
namespace {

// What a class's name begins with: "cpu" of "cpu/avx2/...".
std::string BackendOf(const std::string& numeric_class) { return numeric_class.substr(0, numeric_class.find('/')); }

}  // namespace

// "" if a worker of that class may be the job's.
std::string Machine::WhyClassRefused(const Job& job, const std::string& numeric_class) const {
  if (numeric_class == job.numeric_class) return "";
  const std::string differs =
      absl::StrCat("is of numeric class ", numeric_class, ", the job is computed in ", job.numeric_class);
  if (!job.config.mixed_classes) return absl::StrCat(differs, ": equal bits need equal classes");
  if (BackendOf(numeric_class) == BackendOf(job.numeric_class)) return "";
  return absl::StrCat(differs, ": workers of different backends do not reduce together");
}

// Those about to be members: from the first that is of another class on, the job is marked. Durable before the epoch
// that it is a member of.
void Machine::NoteClasses(Job& job, const std::vector<Incarnation>& members) {
  if (!job.mixed.empty() || members.empty()) return;
  const std::string& computed_in = job.origin.computed_in;
  if (!computed_in.empty() && computed_in != job.numeric_class) {
    job.mixed = absl::StrCat("from window ", job.committed, " on it is computed in numeric class ", job.numeric_class,
                             "; before that it was ", computed_in);
  }
  for (Incarnation member : members) {
    const std::string& numeric_class = workers_.at(member).identity.ClassFor(job.config);
    if (numeric_class == job.numeric_class || !job.mixed.empty()) continue;
    job.mixed = absl::StrCat(NameOf(member), " of numeric class ", numeric_class, " joined at window ", job.committed,
                             ", the job is computed in ", job.numeric_class);
  }
  if (job.mixed.empty()) return;
  Record(job, "mixed", absl::StrCat("not reproducible any more: ", job.mixed));
  PersistLayoutOf(job);
}

// False where one of them is gone from a mixed job.
bool Machine::SameClass(const Job& job, Incarnation a, Incarnation b) const {
  if (job.mixed.empty()) return true;
  const auto first = workers_.find(a), second = workers_.find(b);
  return first != workers_.end() && second != workers_.end() &&
         first->second.identity.ClassFor(job.config) == second->second.identity.ClassFor(job.config);
}

void Machine::PersistLayoutOf(Job& job) {
  Persist(job, PersistLayout{job.config.id,
                             {job.numeric_class, job.tensors, job.tensor_elements, job.buckets, job.mixed}});
}

}  // namespace accrue::core
