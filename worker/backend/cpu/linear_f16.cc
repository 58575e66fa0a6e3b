// Linear layers of binary16: what is multiplied is first copied as binary32, which is exact; then it is fp32's product
// of that shape, whose result is rounded once. docs/numerics.md, section 4.
#include <algorithm>

#include "common/check.h"
#include "worker/backend/cpu/linear.h"

namespace accrue::cpu {
namespace {

constexpr int64_t kConvertPerTask = 65536;
constexpr int64_t kGeluRowsPerTask = 16;

}  // namespace

Tensor Linear::WideScratch(int64_t elements, Place place) { return {wide_[place].Floats(elements), DType::kF32}; }

void Linear::ConvertAll(const Tensor& from, const Tensor& to, int64_t elements) {
  pool_.ParallelFor((elements + kConvertPerTask - 1) / kConvertPerTask, [&](int64_t task) {
    const int64_t first = task * kConvertPerTask;
    ConvertElements(from, to, first, std::min(kConvertPerTask, elements - first));
  });
}

Tensor Linear::Widened(const Tensor& from, int64_t elements, Place place) {
  const Tensor wide = WideScratch(elements, place);
  ConvertAll(from, wide, elements);
  return wide;
}

void Linear::Narrow(const Tensor& from, const Tensor& to, int64_t elements) {
  ACCRUE_CHECK(to.dtype == DType::kF16);
  ConvertAll(from, to, elements);
}

void Linear::ForwardF16(const LinearForwardArgs& args) {
  ACCRUE_CHECK(args.weight.dtype == DType::kF16 && (!args.bias || args.bias.dtype == DType::kF16));
  LinearForwardArgs wide = args;
  wide.x = Widened(args.x, args.rows * args.in, kLeft);
  wide.weight = Widened(args.weight, args.in * args.out, kRight);
  if (args.bias) wide.bias = Widened(args.bias, args.out, kBias);
  wide.y = WideScratch(args.rows * args.out, kResult);
  wide.gelu_input = {};
  Forward(wide);
  Narrow(wide.y, args.gelu_input ? args.gelu_input : args.y, args.rows * args.out);
  if (args.gelu_input) GeluAgain(args);
}

void Linear::BackwardInputF16(const LinearBackwardInputArgs& args) {
  ACCRUE_CHECK(args.weight.dtype == DType::kF16);
  LinearBackwardInputArgs wide = args;
  wide.dy = Widened(args.dy, args.rows * args.out, kLeft);
  wide.weight = Widened(args.weight, args.in * args.out, kRight);
  wide.dx = args.accumulate ? Widened(args.dx, args.rows * args.in, kResult) : WideScratch(args.rows * args.in, kResult);
  wide.gelu_input = {};
  BackwardInput(wide);
  Narrow(wide.dx, args.dx, args.rows * args.in);
  if (!args.gelu_input) return;
  ACCRUE_CHECK(!args.accumulate);
  pool_.ParallelFor((args.rows + kGeluRowsPerTask - 1) / kGeluRowsPerTask, [&](int64_t task) {
    const int64_t row = task * kGeluRowsPerTask;
    GeluBackward(args.gelu_input, args.dx,
                 {.first_row = row,
                  .rows = std::min(kGeluRowsPerTask, args.rows - row),
                  .columns = args.in,
                  .stride = args.in});
  });
}

void Linear::BackwardWeightF16(const LinearBackwardWeightArgs& args) {
  ACCRUE_CHECK(args.dy.dtype == DType::kF16);
  LinearBackwardWeightArgs wide = args;
  wide.x = Widened(args.x, args.rows * args.in, kLeft);
  wide.dy = Widened(args.dy, args.rows * args.out, kRight);
  BackwardWeight(wide);
}

}  // namespace accrue::cpu
