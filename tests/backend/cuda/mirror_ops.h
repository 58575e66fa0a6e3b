// The model's operations of a backend with memory of its own, on a case's arrays in host memory: before each operation
// all arrays are copied to the device, with the guards behind them, and afterwards back.
//
// Not thread-safe. What it is given must outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "common/check.h"
#include "tests/backend/op_cases.h"
#include "worker/backend/backend.h"

namespace accrue {

class MirrorOps : public ModelOps {
 public:
  MirrorOps(Backend& backend, OpArrays& arrays) : backend_(backend), ops_(backend.model_ops()), arrays_(arrays) {}

  void LinearForward(const LinearForwardArgs& args) override {
    Run(args, &ModelOps::LinearForward, [](auto& a, auto map) { Map(map, a.x, a.weight, a.bias, a.y, a.gelu_input); });
  }
  void LinearBackwardInput(const LinearBackwardInputArgs& args) override {
    Run(args, &ModelOps::LinearBackwardInput, [](auto& a, auto map) { Map(map, a.dy, a.weight, a.dx, a.gelu_input); });
  }
  void LinearBackwardWeight(const LinearBackwardWeightArgs& args) override {
    Run(args, &ModelOps::LinearBackwardWeight, [](auto& a, auto map) { Map(map, a.x, a.dy, a.dweight, a.dbias); });
  }
  void EmbeddingForward(const EmbeddingForwardArgs& args) override {
    Run(args, &ModelOps::EmbeddingForward,
        [](auto& a, auto map) { Map(map, a.tokens, a.token_table, a.position_table, a.y); });
  }
  void EmbeddingBackward(const EmbeddingBackwardArgs& args) override {
    Run(args, &ModelOps::EmbeddingBackward, [](auto& a, auto map) { Map(map, a.tokens, a.dy, a.dtoken, a.dposition); });
  }
  void NormForward(const NormForwardArgs& args) override {
    Run(args, &ModelOps::NormForward, [](auto& a, auto map) {
      Map(map, a.x, a.delta, a.sum, a.gamma, a.beta, a.y, a.mean, a.rstd);
    });
  }
  void NormBackward(const NormBackwardArgs& args) override {
    Run(args, &ModelOps::NormBackward, [](auto& a, auto map) {
      Map(map, a.x, a.gamma, a.dy, a.dresidual, a.ddelta, a.mean, a.rstd, a.dgamma, a.dbeta);
    });
  }
  void Rope(const RopeArgs& args) override {
    Run(args, &ModelOps::Rope, [](auto& a, auto map) { Map(map, a.x, a.cosine, a.sine); });
  }
  void AttentionForward(const AttentionArgs& args) override {
    Run(args, &ModelOps::AttentionForward, [](auto& a, auto map) { MapAttention(map, a); });
  }
  void AttentionBackward(const AttentionArgs& args) override {
    Run(args, &ModelOps::AttentionBackward, [](auto& a, auto map) { MapAttention(map, a); });
  }
  void SwiGluForward(const SwiGluArgs& args) override {
    Run(args, &ModelOps::SwiGluForward, [](auto& a, auto map) { Map(map, a.gate, a.up, a.y, a.dy, a.dgate, a.dup); });
  }
  void SwiGluBackward(const SwiGluArgs& args) override {
    Run(args, &ModelOps::SwiGluBackward, [](auto& a, auto map) { Map(map, a.gate, a.up, a.y, a.dy, a.dgate, a.dup); });
  }
  void CrossEntropy(const CrossEntropyArgs& args) override {
    Run(args, &ModelOps::CrossEntropy, [](auto& a, auto map) { Map(map, a.logits, a.targets, a.losses); });
  }
  void Convert(const float* from, const Tensor& to, int64_t elements) override {
    CopyThere();
    ops_.Convert(static_cast<const float*>(OnDevice(from)), {OnDevice(to.data), to.dtype}, elements);
    CopyBack();
  }

 private:
  struct Mirror {
    char* host = nullptr;
    size_t size_bytes = 0;
    std::unique_ptr<DeviceBuffer> device;
  };

  template <typename MapOne, typename... Fields>
  static void Map(const MapOne& map, Fields&... fields) {
    (map(fields), ...);
  }
  template <typename MapOne>
  static void MapAttention(const MapOne& map, AttentionArgs& a) {
    Map(map, a.q, a.k, a.v, a.out, a.log_sum_exp, a.dout, a.dq, a.dk, a.dv);
  }

  template <typename Args, typename MapAll>
  void Run(Args args, void (ModelOps::*operation)(const Args&), const MapAll& map_all) {
    CopyThere();
    map_all(args, [this](auto& field) {
      if constexpr (std::is_same_v<std::decay_t<decltype(field)>, Tensor>) {
        field.data = OnDevice(field.data);
      } else {
        field = static_cast<std::decay_t<decltype(field)>>(OnDevice(field));
      }
    });
    (ops_.*operation)(args);
    CopyBack();
  }

  void CopyThere() {
    size_t i = 0;
    arrays_.ForEach([&](char* memory, size_t size_bytes) {
      if (i == mirrors_.size()) {
        mirrors_.push_back({memory, size_bytes, *backend_.Allocate(size_bytes)});
      }
      ACCRUE_CHECK(mirrors_[i].host == memory && mirrors_[i].size_bytes == size_bytes);
      backend_.CopyToDevice(mirrors_[i++].device->data(), memory, size_bytes);
    });
  }
  void CopyBack() {
    for (const Mirror& mirror : mirrors_) backend_.CopyToHost(mirror.host, mirror.device->data(), mirror.size_bytes);
  }
  void* OnDevice(const void* host) const {
    if (host == nullptr) return nullptr;
    for (const Mirror& mirror : mirrors_) {
      const ptrdiff_t offset = static_cast<const char*>(host) - mirror.host;
      if (offset >= 0 && static_cast<size_t>(offset) < mirror.size_bytes) return mirror.device->as<char>() + offset;
    }
    ACCRUE_CHECK(false);
    return nullptr;
  }

  Backend& backend_;
  ModelOps& ops_;
  OpArrays& arrays_;
  std::vector<Mirror> mirrors_;
};

}  // namespace accrue
