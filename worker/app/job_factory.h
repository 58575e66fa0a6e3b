// Puts a job together from what the coordinator sends: data, model, state.
//
// Used by the compute thread. What it is given must outlive it and its jobs.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/file_system.h"
#include "worker/core/job.h"

namespace accrue {

struct JobFactoryOptions {
  // Where data with relative paths are looked for, in this order. With any, absolute paths must lie under one of them.
  std::vector<std::string> data_roots;
  // What computes the job's units. Empty: the transformer that the job names, with the weights that it names. Else a new
  // job starts from this engine's own initial values.
  std::function<absl::StatusOr<std::unique_ptr<Engine>>(const v1::JobSpec&)> make_engine;
};

class NativeJobFactory : public JobFactory {
 public:
  NativeJobFactory(const JobFactoryOptions& options, FileSystem& file_system, std::shared_ptr<Backend> backend);

  // Codes of JobFactory::Load.
  absl::StatusOr<std::unique_ptr<Job>> Load(const v1::AssignJob& assignment) override;

 private:
  absl::StatusOr<std::unique_ptr<Dataset>> OpenData(const v1::JobSpec& spec,
                                                    const google::protobuf::RepeatedPtrField<v1::ShardPin>& pins,
                                                    DataOrder order);
  absl::StatusOr<std::string> ResolvePath(const std::string& path) const;
  absl::Status FillState(const v1::AssignJob& assignment, Job& job);

  const JobFactoryOptions options_;
  FileSystem& file_system_;
  const std::shared_ptr<Backend> backend_;
};

}  // namespace accrue
