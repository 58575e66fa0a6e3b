#include "worker/data/unit_reader.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace accrue {

UnitReader::UnitReader(const Dataset* train, const Dataset* validation, const UnitShape& shape, int read_ahead)
    : train_(train),
      validation_(validation),
      shape_(shape),
      read_ahead_(static_cast<size_t>(read_ahead)),
      thread_([this] { ReadAhead(); }) {
  ACCRUE_CHECK(shape.rows >= 1 && shape.sequence_length >= 1 && shape.sequences_per_window >= shape.rows);
}

UnitReader::~UnitReader() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void UnitReader::Expect(const std::vector<UnitName>& units) {
  absl::MutexLock lock(&mutex_);
  for (auto it = ready_.begin(); it != ready_.end();) {
    it = std::find(units.begin(), units.end(), it->first) == units.end() ? ready_.erase(it) : std::next(it);
  }
  expected_.clear();
  for (const UnitName& name : units) {
    if (ready_.count(name) == 0 && reading_ != name) expected_.push_back(name);
  }
}

UnitInput UnitReader::Training(const UnitName& name) {
  {
    absl::MutexLock lock(&mutex_);
    auto not_being_read = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return reading_ != name; };
    mutex_.Await(absl::Condition(&not_being_read));
    if (auto found = ready_.find(name); found != ready_.end()) {
      current_ = std::move(found->second);
      ready_.erase(found);
      return InputOf(name);
    }
    expected_.erase(std::remove(expected_.begin(), expected_.end(), name), expected_.end());
  }
  current_ = ReadTraining(name);
  return InputOf(name);
}

UnitInput UnitReader::Evaluation(int64_t unit) {
  ACCRUE_CHECK(validation_ != nullptr);
  current_ = Read(*validation_, unit * shape_.rows);
  return InputOf({.window = 0, .unit = unit});
}

void UnitReader::ReadAhead() {
  while (true) {
    UnitName name;
    {
      absl::MutexLock lock(&mutex_);
      auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        return stopping_ || (!expected_.empty() && ready_.size() < read_ahead_);
      };
      mutex_.Await(absl::Condition(&has_work));
      if (stopping_) return;
      name = expected_.front();
      expected_.pop_front();
      reading_ = name;
    }
    Buffer buffer = ReadTraining(name);
    absl::MutexLock lock(&mutex_);
    ready_[name] = std::move(buffer);
    reading_.reset();
  }
}

UnitReader::Buffer UnitReader::ReadTraining(const UnitName& name) const {
  return Read(*train_, name.window * shape_.sequences_per_window + name.unit * shape_.rows);
}

UnitReader::Buffer UnitReader::Read(const Dataset& data, int64_t first_sequence) const {
  Buffer buffer;
  buffer.tokens.resize(static_cast<size_t>(shape_.rows * shape_.sequence_length));
  buffer.targets.resize(buffer.tokens.size());
  for (int64_t row = 0; row < shape_.rows; ++row) {
    const int64_t offset = row * shape_.sequence_length;
    data.Read(data.SequenceAt(first_sequence + row), buffer.tokens.data() + offset, buffer.targets.data() + offset);
  }
  return buffer;
}

UnitInput UnitReader::InputOf(const UnitName& name) const {
  return {.rows = shape_.rows,
          .sequence_length = shape_.sequence_length,
          .tokens = current_.tokens.data(),
          .targets = current_.targets.data(),
          .window = name.window,
          .unit = name.unit};
}

}  // namespace accrue
