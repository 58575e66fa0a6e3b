// The job file: from YAML text to a checked v1::JobSpec, and what follows from one.
//
// A spec goes through three forms. As written: ParseJob, fields that the file leaves out are absent.
// Completed: where model.from names a Hugging Face folder, its shape is merged in (huggingface_config.h).
// With defaults: FillDefaults, after which every field that applies is present; this form is what is hashed,
// journaled and sent to workers.
//
// Thread-safe: pure functions of their arguments. docs/job_file.md documents every field and default.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "accrue/v1/job.pb.h"
#include "common/loss_scale.h"
#include "common/schedule.h"

namespace accrue {

// A place in a file; both count from 1.
struct SourceMark {
  int line = 1;
  int column = 1;
};

// Where each field of a spec was written, so that what is found wrong later is still reported at its place.
// Keys are paths such as "batch.sequences", "data.train[1]", and "" for the file itself.
struct SourceMap {
  std::string file_name;
  std::map<std::string, SourceMark> marks;
};

struct ParsedJob {
  v1::JobSpec spec;  // as written
  SourceMap source;
};

// INVALID_ARGUMENT lists every error of the text, one a line, each as "job.yaml:12:5: what, what was
// expected, what to do". A file that is only impossible as a whole (a batch that its unit does not divide) is
// refused here too.
absl::StatusOr<ParsedJob> ParseJob(absl::string_view text, const std::string& file_name);
absl::StatusOr<v1::JobSpec> ParseJobText(absl::string_view text, const std::string& file_name);

// Fills every field that is absent and has a default (docs/job_file.md). What depends on a model shape that
// is not known yet (model.from before its folder is read) stays absent. INVALID_ARGUMENT for a field without
// which no default can be told, such as a micro_batch below 1.
absl::Status FillDefaults(v1::JobSpec& spec);

// Checks values, not just their presence, of a spec with defaults: INVALID_ARGUMENT lists every error, one a
// line, at the field's place in the file where `source` is given. A model that is still only a `from` passes
// without the checks on its shape.
absl::Status ValidateSpec(const v1::JobSpec& spec, const SourceMap* source = nullptr);

// What is valid and yet without effect, such as optimizer.betas with sgd: a sentence each.
std::vector<std::string> SpecWarnings(const v1::JobSpec& spec);

// JSON with the fields present, in the order of their numbers, numbers in their shortest exact form, no white
// space. Equal specs give equal text on every machine.
std::string CanonicalJson(const v1::JobSpec& spec);
// XXH3-128 of CanonicalJson.
std::string SpecHash(const v1::JobSpec& spec);
// The inverse of CanonicalJson, for what a checkpoint recorded. DATA_LOSS when it is no such text.
absl::StatusOr<v1::JobSpec> SpecFromJson(absl::string_view json);

// A field that two specs have differently, such as "batch.sequences", with its values as JSON; empty: not set.
struct SpecDifference {
  std::string field, from, to;
};
// In the order of the fields' numbers; empty for equal specs.
std::vector<SpecDifference> CompareSpecs(const v1::JobSpec& from, const v1::JobSpec& to);
// The same as lines like "batch.sequences: 64 -> 128".
std::vector<std::string> SpecDifferences(const v1::JobSpec& from, const v1::JobSpec& to);

// The functions below take a valid spec with defaults.

// batch.sequences / batch.micro_batch.
int64_t UnitsPerWindow(const v1::JobSpec& spec);
// Units of one evaluation; 0 where the job never evaluates.
int64_t EvaluationUnits(const v1::JobSpec& spec);
// Target tokens in a window, masked ones included.
int64_t TokensPerWindow(const v1::JobSpec& spec);
// `windows`, or the windows that `epochs` passes over a data set of this many sequences take. The last window
// of the last epoch is always whole: it goes on with sequences of the next one.
int64_t TotalWindows(const v1::JobSpec& spec, int64_t data_sequences);
// optimizer.batch_rule is applied to the peak rate: linear multiplies it by sequences / base_sequences, sqrt
// by the square root of that.
ScheduleConfig ScheduleOf(const v1::JobSpec& spec, int64_t total_windows);
// Of fp16; nothing in another precision.
std::optional<LossScaleConfig> LossScaleOf(const v1::JobSpec& spec);

}  // namespace accrue
