#include "worker/data/unit_reader.h"

#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace accrue {
namespace {

constexpr UnitShape kShape{.sequences_per_window = 12, .rows = 3, .sequence_length = 4};

// Sequence number n, drawn from a data set of `size` sequences, holds n's sequence everywhere.
class CountedData : public Dataset {
 public:
  explicit CountedData(int64_t size) : size_(size) {}
  int64_t sequences() const override { return size_; }
  int64_t tokens() const override { return size_ * 4; }
  bool masked() const override { return false; }
  int64_t SequenceAt(int64_t number) const override { return (number * 7) % size_; }
  std::vector<Range> RangesOf(int64_t) const override { return {}; }
  void Read(int64_t sequence, int32_t* tokens, int32_t* targets) const override {
    for (int i = 0; i < 4; ++i) {
      tokens[i] = static_cast<int32_t>(sequence * 10 + i);
      targets[i] = static_cast<int32_t>(sequence * 10 + i + 1);
    }
  }

 private:
  const int64_t size_;
};

void ExpectUnit(const UnitInput& input, const Dataset& data, int64_t first_number) {
  ASSERT_EQ(input.rows, 3);
  ASSERT_EQ(input.sequence_length, 4);
  for (int64_t row = 0; row < 3; ++row) {
    const int64_t sequence = data.SequenceAt(first_number + row);
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(input.tokens[row * 4 + i], sequence * 10 + i);
      EXPECT_EQ(input.targets[row * 4 + i], sequence * 10 + i + 1);
    }
  }
}

TEST(UnitReader, Training_AnyOrder_SequencesOfNumericsSection10) {
  const CountedData data(1000);
  UnitReader reader(&data, nullptr, kShape);
  for (const UnitName name : {UnitName{0, 0}, UnitName{5, 3}, UnitName{2, 1}}) {
    const UnitInput input = reader.Training(name);
    EXPECT_EQ(input.window, name.window);
    EXPECT_EQ(input.unit, name.unit);
    ExpectUnit(input, data, name.window * 12 + name.unit * 3);
  }
}

TEST(UnitReader, Training_Expected_SameAsUnexpected) {
  const CountedData data(1000);
  UnitReader reader(&data, nullptr, kShape, /*read_ahead=*/2);
  std::vector<UnitName> names;
  for (int64_t window = 0; window < 5; ++window) {
    for (int64_t unit = 0; unit < 4; ++unit) names.push_back({window, unit});
  }
  reader.Expect(names);
  for (const UnitName& name : names) ExpectUnit(reader.Training(name), data, name.window * 12 + name.unit * 3);
}

TEST(UnitReader, Expect_Changed_OtherUnitsStillRight) {
  const CountedData data(1000);
  UnitReader reader(&data, nullptr, kShape, 2);
  reader.Expect({{0, 0}, {0, 1}, {0, 2}});
  ExpectUnit(reader.Training({0, 0}), data, 0);
  reader.Expect({{7, 0}, {7, 1}});
  ExpectUnit(reader.Training({0, 2}), data, 6);
  ExpectUnit(reader.Training({7, 1}), data, 87);
  ExpectUnit(reader.Training({7, 0}), data, 84);
}

TEST(UnitReader, Evaluation_Units_FromTheStartOfTheHeldOutData) {
  const CountedData train(1000), validation(50);
  UnitReader reader(&train, &validation, kShape);
  for (int64_t unit = 0; unit < 3; ++unit) ExpectUnit(reader.Evaluation(unit), validation, unit * 3);
}

}  // namespace
}  // namespace accrue
