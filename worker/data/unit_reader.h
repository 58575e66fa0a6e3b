// Units from data sets (docs/numerics.md, section 10), read ahead on a thread of its own.
//
// Used by one thread. The data sets must outlive the reader.
//
// Invariants:
//  1. What is read ahead never exceeds `read_ahead` units.
//  2. A unit's content depends on its name and the data alone, read ahead or not.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/data/dataset.h"
#include "worker/data/unit_source.h"

namespace accrue {

struct UnitShape {
  int64_t sequences_per_window = 0;
  int64_t rows = 0;  // sequences in a unit
  int64_t sequence_length = 0;
};

class UnitReader : public UnitSource {
 public:
  // validation may be null: Evaluation must then not be called.
  UnitReader(const Dataset* train, const Dataset* validation, const UnitShape& shape, int read_ahead = 4);
  ~UnitReader() override;

  void Expect(const std::vector<UnitName>& units) override;
  UnitInput Training(const UnitName& name) override;
  UnitInput Evaluation(int64_t unit) override;

 private:
  struct Buffer {
    std::vector<int32_t> tokens, targets;
  };

  void ReadAhead();
  Buffer Read(const Dataset& data, int64_t first_sequence) const;
  Buffer ReadTraining(const UnitName& name) const;
  UnitInput InputOf(const UnitName& name) const;

  const Dataset* const train_;
  const Dataset* const validation_;
  const UnitShape shape_;
  const size_t read_ahead_;

  Buffer current_;  // what the caller was last given

  absl::Mutex mutex_;
  std::deque<UnitName> expected_ ABSL_GUARDED_BY(mutex_);  // not read yet
  std::optional<UnitName> reading_ ABSL_GUARDED_BY(mutex_);
  std::map<UnitName, Buffer> ready_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace accrue
