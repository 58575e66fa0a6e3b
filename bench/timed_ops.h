// Passes model operations on to a backend's, and keeps how long each took, by operation and shape.
//
// Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdio>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "worker/backend/model_ops.h"

namespace accrue {

// What one operation and shape did in a unit, and the least over units.
struct Row {
  int calls = 0;
  double seconds = 0;
  double least_seconds = std::numeric_limits<double>::infinity();
};

// Passes everything on and takes the time.
class TimedOps : public ModelOps {
 public:
  // now: seconds from some instant on; it waits for what is queued, where operations are.
  TimedOps(ModelOps& ops, std::function<double()> now) : ops_(ops), now_(std::move(now)) {}

  void LinearForward(const LinearForwardArgs& a) override {
    const std::string name = Shape("linear forward", {a.rows, a.in, a.out}) + (a.gelu_input ? " gelu" : "");
    Time(name, 2.0 * a.rows * a.in * a.out, 0, [&] { ops_.LinearForward(a); });
  }
  void LinearBackwardInput(const LinearBackwardInputArgs& a) override {
    const std::string name = Shape("linear input gradient", {a.rows, a.in, a.out}) + (a.gelu_input ? " gelu" : "");
    Time(name, 2.0 * a.rows * a.in * a.out, 0, [&] { ops_.LinearBackwardInput(a); });
  }
  void LinearBackwardWeight(const LinearBackwardWeightArgs& a) override {
    const std::string name = Shape("linear weight gradient", {a.rows, a.in, a.out}) + (a.accumulate ? " +=" : "");
    Time(name, 2.0 * a.rows * a.in * a.out, 0, [&] { ops_.LinearBackwardWeight(a); });
  }
  void EmbeddingForward(const EmbeddingForwardArgs& a) override {
    Time("embedding forward", 0, 3.0 * a.rows * a.width * SizeOf(a.y.dtype), [&] { ops_.EmbeddingForward(a); });
  }
  void EmbeddingBackward(const EmbeddingBackwardArgs& a) override {
    Time("embedding backward", 0, 3.0 * a.rows * a.width * SizeOf(a.dy.dtype), [&] { ops_.EmbeddingBackward(a); });
  }
  void NormForward(const NormForwardArgs& a) override {
    const double bytes = (a.delta ? 4.0 : 2.0) * a.rows * a.width * SizeOf(a.y.dtype);
    Time(a.delta ? "norm forward with sum" : "norm forward", 0, bytes, [&] { ops_.NormForward(a); });
  }
  void NormBackward(const NormBackwardArgs& a) override {
    const double bytes = (a.ddelta ? 5.0 : 4.0) * a.rows * a.width * SizeOf(a.dy.dtype);
    Time("norm backward", 0, bytes, [&] { ops_.NormBackward(a); });
  }
  void Rope(const RopeArgs& a) override {
    Time("rope", 0, 2.0 * a.rows * a.heads * a.head_size * SizeOf(a.x.dtype), [&] { ops_.Rope(a); });
  }
  void AttentionForward(const AttentionArgs& a) override {
    Time(AttentionName("attention forward", a), 2 * AttentionFlops(a), 0, [&] { ops_.AttentionForward(a); });
  }
  void AttentionBackward(const AttentionArgs& a) override {
    Time(AttentionName("attention backward", a), 5 * AttentionFlops(a), 0, [&] { ops_.AttentionBackward(a); });
  }
  void SwiGluForward(const SwiGluArgs& a) override {
    Time("swiglu forward", 0, 3.0 * a.rows * a.hidden * SizeOf(a.y.dtype), [&] { ops_.SwiGluForward(a); });
  }
  void SwiGluBackward(const SwiGluArgs& a) override {
    Time("swiglu backward", 0, 5.0 * a.rows * a.hidden * SizeOf(a.dy.dtype), [&] { ops_.SwiGluBackward(a); });
  }
  void CrossEntropy(const CrossEntropyArgs& a) override {
    Time("cross-entropy", 0, 2.0 * a.rows * a.vocabulary * SizeOf(a.logits.dtype), [&] { ops_.CrossEntropy(a); });
  }
  void Convert(const float* from, const Tensor& to, int64_t elements) override { ops_.Convert(from, to, elements); }

  // counts: whether the unit enters the least times.
  void EndUnit(bool counts) {
    for (auto& [name, row] : rows_) {
      if (counts) row.least_seconds = std::min(row.least_seconds, row.seconds);
      last_calls_[name] = row.calls;
      row.seconds = 0;
      row.calls = 0;
    }
  }
  void PrintTable(double peak, double total_seconds) const;
  double least_total_seconds() const {
    double total = 0;
    for (const auto& [name, row] : rows_) total += row.least_seconds;
    return total;
  }
  double linear_flops() const {
    double total = 0;
    for (const auto& [name, flops] : flops_) total += name.starts_with("linear") ? flops * last_calls_.at(name) : 0;
    return total;
  }

 private:
  static std::string Shape(const char* what, std::vector<int64_t> sizes) {
    std::string name = what;
    char separator = ' ';
    for (int64_t size : sizes) {
      name.append(1, separator).append(std::to_string(size));
      separator = 'x';
    }
    return name;
  }
  static std::string AttentionName(const char* what, const AttentionArgs& a) {
    return Shape(what, {a.batch, a.heads, a.sequence_length, a.head_size});
  }
  // Of one of its products, above the diagonal left out.
  static double AttentionFlops(const AttentionArgs& a) {
    return 1.0 * a.batch * a.heads * a.head_size * a.sequence_length * (a.sequence_length + 1);
  }

  template <typename F>
  void Time(const std::string& name, double flops, double bytes, F f) {
    const double start = now_();
    f();
    Row& row = rows_[name];
    row.seconds += now_() - start;
    ++row.calls;
    flops_[name] = flops;
    bytes_[name] = bytes;
  }

  ModelOps& ops_;
  const std::function<double()> now_;
  std::map<std::string, Row> rows_;
  std::map<std::string, int> last_calls_;
  // Of one call: of matrix products, masked attention left out; read and written at least.
  std::map<std::string, double> flops_, bytes_;
};

inline void TimedOps::PrintTable(double peak, double total_seconds) const {
  std::vector<std::string> names;
  for (const auto& [name, row] : rows_) names.push_back(name);
  std::sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
    return rows_.at(a).least_seconds > rows_.at(b).least_seconds;
  });
  std::printf("%-46s %5s %9s %7s %11s %7s\n", "operation", "calls", "ms", "of unit", "rate", "of peak");
  for (const std::string& name : names) {
    const double seconds = rows_.at(name).least_seconds;
    const int calls = last_calls_.at(name);
    const double flops = flops_.at(name) * calls, bytes = bytes_.at(name) * calls;
    std::printf("%-46s %5d %9.3f %6.1f%% ", name.c_str(), calls, seconds * 1e3, 100 * seconds / total_seconds);
    if (flops > 0) {
      std::printf("%7.0f GF/s %6.1f%%\n", flops / seconds / 1e9, 100 * flops / seconds / peak);
    } else {
      std::printf("%7.1f GB/s\n", bytes / seconds / 1e9);
    }
  }
}

}  // namespace accrue
