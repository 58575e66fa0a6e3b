#include "coordinator/server/worker_status.h"

#include <algorithm>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace accrue {
namespace {

// The lower one of two in the middle: of a fast and a slow worker it is the slow one that stands out.
double Median(std::vector<double> values) {
  const size_t middle = (values.size() - 1) / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle), values.end());
  return values[middle];
}

}  // namespace

std::vector<v1::WorkerStatus> StatusOfWorkers(const std::vector<core::WorkerView>& workers) {
  std::map<JobId, std::vector<double>> unit_seconds;
  for (const core::WorkerView& worker : workers) {
    if (!worker.job.empty() && worker.unit_seconds > 0) unit_seconds[worker.job].push_back(worker.unit_seconds);
  }
  std::map<JobId, double> medians;
  for (const auto& [job, seconds] : unit_seconds) medians[job] = Median(seconds);

  std::vector<v1::WorkerStatus> result;
  for (const core::WorkerView& worker : workers) {
    v1::WorkerStatus& status = result.emplace_back();
    status.set_incarnation(worker.incarnation.value());
    status.set_name(worker.name);
    status.set_host(worker.host);
    status.set_process_id(worker.process_id);
    status.set_backend(worker.backend);
    status.set_device(worker.device);
    status.set_threads(worker.threads);
    status.set_state(worker.state);
    status.set_job_id(worker.job);
    status.set_unit_seconds(worker.unit_seconds);
    status.set_memory_bytes(worker.memory_bytes);
    status.set_windows(worker.windows);
    const auto median = medians.find(worker.job);
    if (median != medians.end()) status.set_relative_unit_time(worker.unit_seconds / median->second);
  }
  return result;
}

absl::StatusOr<core::WorkerView> FindWorker(const std::vector<core::WorkerView>& workers,
                                            const std::string& incarnation_or_name) {
  int64_t incarnation = 0;
  const bool number = absl::SimpleAtoi(incarnation_or_name, &incarnation);
  std::vector<const core::WorkerView*> named;
  for (const core::WorkerView& worker : workers) {
    if (number && worker.incarnation.value() == incarnation) return worker;
    if (worker.name == incarnation_or_name) named.push_back(&worker);
  }
  if (named.size() == 1) return *named[0];
  if (named.empty()) {
    return absl::NotFoundError(absl::StrCat("no worker \"", incarnation_or_name,
                                            "\" is connected; accrue workers lists those that are"));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      named.size(), " workers have the name \"", incarnation_or_name, "\"; name one by its incarnation: ",
      absl::StrJoin(named, ", ", [](std::string* out, const core::WorkerView* worker) {
        absl::StrAppend(out, worker->incarnation.value());
      })));
}

}  // namespace accrue
