// One list of cases of the model's operations, for every test and backend: odd sizes, strides, sequences that are no
// multiple of a block, grouped queries, masked rows, long sums.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "worker/backend/model_ops.h"

namespace accrue {

// The arrays of one run of a case. The n-th array of a run has the same contents in every run; outputs are NaN.
// Every array ends in a guard that no operation may touch.
class OpArrays {
 public:
  struct Output {
    std::vector<char> bytes;  // without the guard
    DType dtype = DType::kF32;
    bool is_double = false;
    double tolerance = 0;  // of an element's error, relative to the largest element
  };

  // Normal-like numbers of about the given size.
  Tensor In(DType dtype, int64_t elements, float size = 1.0f);
  Tensor InOut(DType dtype, int64_t elements, float size = 1.0f, double tolerance = 0);
  Tensor Out(DType dtype, int64_t elements, double tolerance = 0);
  double* OutDoubles(int64_t elements, double tolerance = 0);
  // In [low, high).
  const int32_t* Integers(int64_t elements, int32_t low, int32_t high);

  // visit(memory, size_bytes) for each array so far, with the guard behind it.
  template <typename Visit>
  void ForEach(const Visit& visit) {
    for (Array& array : arrays_) {
      visit(array.contents(), static_cast<size_t>(array.memory.data() + array.memory.size() - array.contents()));
    }
  }

  // What outputs hold now; fails the test where a guard was touched.
  std::vector<Output> Outputs() const;

 private:
  struct Array {
    std::vector<char> memory;  // alignment slack, contents, guard
    size_t size_bytes = 0;
    DType dtype = DType::kF32;
    bool is_output = false;
    bool is_double = false;
    double tolerance = 0;
    char* contents();
    const char* contents() const { return const_cast<Array*>(this)->contents(); }
  };

  Array& Add(size_t size_bytes, DType dtype);
  Tensor AddRandom(DType dtype, int64_t elements, float size);

  std::vector<Array> arrays_;
};

struct OpCase {
  std::string name;
  std::function<void(ModelOps&, OpArrays&, DType)> run;
};

const std::vector<OpCase>& OpCases();

// The outputs of one run.
std::vector<OpArrays::Output> RunCase(const OpCase& op, ModelOps& ops, DType dtype);
// Within the expected output's tolerance; what was not written is still NaN.
void ExpectNear(const OpArrays::Output& expected, const OpArrays::Output& actual);

}  // namespace accrue
