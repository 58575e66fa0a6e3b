// A coordinator and workers, real processes on ephemeral ports, with a folder of their own that goes away with them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "accrue/v1/client.grpc.pb.h"
#include "tests/integration/process.h"

namespace accrue::integration {

// A line of windows.jsonl.
struct WindowLine {
  int64_t window = 0;
  double loss = 0;
  std::string digest;
  int64_t tokens = 0;
  std::vector<int64_t> units;  // of each worker
  int64_t timeline = 0;
  bool skipped = false;
  int64_t loss_scale = 0;  // 0: there is none
};

// A small GPT-2 with dropout on a few thousand made-up tokens: a window takes milliseconds. 12 units a window.
v1::JobSpec TinyJob(int64_t windows, int64_t min_workers, int64_t max_workers);
inline constexpr int64_t kTinyUnits = 12;

// Where the programs lie: as built, or, for a build that was moved, what the environment's ACCRUE_BINARY_DIRECTORY says.
std::string BinaryDirectory();

class Cluster {
 public:
  explicit Cluster(const std::vector<std::string>& coordinator_arguments = {});
  ~Cluster();

  const std::string& folder() const { return folder_; }
  std::string output() const { return folder_ + "/output"; }
  const std::string& train_shard() const { return train_shard_; }

  Process& AddWorker(int threads = 1, const std::vector<std::string>& more_arguments = {});
  // Ends accrued, and starts another one on the same state and address.
  void StopCoordinator(int signal);
  void StartCoordinatorAgain();
  // Both, without warning.
  void ReplaceCoordinator();

  // Into output(). Fails the test and returns "" when the job is refused.
  std::string Submit(v1::JobSpec spec, int64_t until = 0);
  // Follows the job until it ends, or until on_window returns false. Returns the last status.
  v1::JobStatus Watch(const std::string& job, const std::function<bool(const v1::WindowRecord&)>& on_window = {});
  // Submit and Watch, expecting success.
  void Run(const v1::JobSpec& spec, int64_t until = 0);
  void Cancel(const std::string& job);
  v1::JobStatus Describe(const std::string& job);
  // The reasons in a job's ledger, one a line.
  std::string Ledger(const std::string& job);
  // Follows the ledger until an entry's reason contains `text`.
  void WaitForLedger(const std::string& job, const std::string& text);

  // Of output(). Fails the test unless each window is there once and in order.
  std::vector<WindowLine> Windows() const;
  std::vector<std::string> Digests() const;

 private:
  void StartCoordinator(const std::string& listen);

  const std::vector<std::string> coordinator_arguments_;
  std::string folder_, train_shard_, validation_shard_;
  std::string address_;
  std::unique_ptr<Process> coordinator_;
  std::vector<std::unique_ptr<Process>> workers_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
};

}  // namespace accrue::integration
