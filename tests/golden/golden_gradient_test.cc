// The engine's loss and every gradient tensor against PyTorch's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "tests/golden/golden_backends.h"
#include "tests/golden/golden_model.h"

namespace accrue {
namespace {

class GoldenGradientTest : public ::testing::TestWithParam<std::tuple<BackendCase, const char*, DType>> {};

// Keeps, of every tensor, what the golden file tells.
class SummarySink : public GradientSink {
 public:
  SummarySink(const ParameterLayout& layout, Backend& backend)
      : norms(layout.tensors().size()), products(layout.tensors().size()), layout_(layout), backend_(backend) {}

  void Add(int tensor, const float* gradient) override {
    std::vector<float> host(static_cast<size_t>(layout_.tensors()[tensor].elements));
    backend_.CopyToHost(host.data(), gradient, host.size() * sizeof(float));
    double square = 0, product = 0;
    for (size_t i = 0; i < host.size(); ++i) {
      square += double{host[i]} * host[i];
      product += double{host[i]} * GoldenCentered(GoldenSalt::kDirection, tensor, static_cast<int64_t>(i));
    }
    norms[tensor] = std::sqrt(square);
    products[tensor] = product;
  }

  std::vector<double> norms, products;

 private:
  const ParameterLayout& layout_;
  Backend& backend_;
};

// Keeps every gradient.
class CopyingSink : public GradientSink {
 public:
  CopyingSink(const ParameterLayout& layout, Backend& backend)
      : gradients(layout.tensors().size()), layout_(layout), backend_(backend) {}

  void Add(int tensor, const float* gradient) override {
    std::vector<float>& host = gradients[tensor];
    host.resize(static_cast<size_t>(layout_.tensors()[tensor].elements));
    backend_.CopyToHost(host.data(), gradient, host.size() * sizeof(float));
  }

  std::vector<std::vector<float>> gradients;

 private:
  const ParameterLayout& layout_;
  Backend& backend_;
};

// An engine with the golden file's parameters.
struct LoadedEngine {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<DeviceBuffer> parameters;
};

absl::StatusOr<LoadedEngine> Load(const GoldenModel& golden, Backend& backend) {
  LoadedEngine loaded;
  ACCRUE_ASSIGN_OR_RETURN(loaded.engine, CreateTransformer(golden.options, backend));
  const std::vector<float> host = golden.Parameters(loaded.engine->layout());
  ACCRUE_ASSIGN_OR_RETURN(loaded.parameters, backend.Allocate(host.size() * sizeof(float)));
  backend.CopyToDevice(loaded.parameters->data(), host.data(), host.size() * sizeof(float));
  loaded.engine->BindParameters(loaded.parameters->as<float>());
  loaded.engine->ParametersChanged();
  return loaded;
}

// Bounds of a relative error. In bf16 the model's own roundings are of 2^-9, against a PyTorch that computed in fp32.
struct Bounds {
  double loss, gradient;
};
Bounds BoundsOf(DType precision) {
  return precision == DType::kF32 ? Bounds{1e-5, 1e-4} : precision == DType::kBF16 ? Bounds{2e-3, 5e-2} : Bounds{3e-4, 8e-3};
}
// Of fp16's loss scale; gradients are compared without it.
constexpr int kScaleExponent = 8;

TEST_P(GoldenGradientTest, ComputeUnit_GoldenUnit_HasLossAndGradientsOfPyTorch) {
  const auto& [backend_case, name, precision] = GetParam();
  GoldenModel golden(name);
  golden.options.precision = precision;
  const absl::StatusOr<std::unique_ptr<Backend>> created = backend_case.create();
  if (!created.ok()) GTEST_SKIP() << created.status();
  const std::unique_ptr<Backend>& backend = *created;
  if (!backend->Supports(precision)) GTEST_SKIP() << backend->DeviceName() << " does not compute in " << NameOf(precision);
  const Bounds bounds = BoundsOf(precision);
  const absl::StatusOr<LoadedEngine> loaded = Load(golden, *backend);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const ParameterLayout& layout = loaded->engine->layout();

  SummarySink sink(layout, *backend);
  GoldenUnit unit = golden.Unit(0, 0);
  const double scale = precision == DType::kF16 ? std::ldexp(1.0, kScaleExponent) : 1;
  if (precision == DType::kF16) unit.input.loss_scale_exponent = kScaleExponent;
  const UnitLoss loss = *loaded->engine->ComputeUnit(unit.input, sink);
  EXPECT_EQ(loss.valid_tokens, golden.json["valid_tokens"]);
  EXPECT_NEAR(loss.loss_sum / golden.json["loss_sum"].get<double>(), 1, bounds.loss);
  ASSERT_EQ(layout.tensors().size(), golden.json["tensors"].size());
  for (size_t i = 0; i < layout.tensors().size(); ++i) {
    const nlohmann::json& expected = golden.json["tensors"][i];
    EXPECT_EQ(layout.tensors()[i].name, expected["name"]);
    EXPECT_EQ(layout.tensors()[i].shape, expected["shape"].get<std::vector<int64_t>>());
    const double norm = scale * expected["gradient_norm"].get<double>();
    ASSERT_GT(norm, 0);
    EXPECT_NEAR(sink.norms[i] / norm, 1, bounds.gradient) << layout.tensors()[i].name;
    EXPECT_NEAR(sink.products[i] / norm, scale * expected["gradient_product"].get<double>() / norm, bounds.gradient)
        << layout.tensors()[i].name;
  }
}

// docs/numerics.md, section 2: what is computed again has the bits that were not kept.
TEST_P(GoldenGradientTest, ComputeUnit_AnyRecomputeLevel_GivesSameBits) {
  const auto& [backend_case, name, precision] = GetParam();
  GoldenModel golden(name);
  golden.options.precision = precision;
  golden.options.model.dropout = 0.1;
  const absl::StatusOr<std::unique_ptr<Backend>> created = backend_case.create();
  if (!created.ok()) GTEST_SKIP() << created.status();
  Backend& backend = **created;
  if (!backend.Supports(precision)) GTEST_SKIP() << backend.DeviceName() << " does not compute in " << NameOf(precision);
  const GoldenUnit unit = golden.Unit(0, 0);
  std::vector<std::vector<float>> expected;
  for (const Recompute recompute : kRecomputeLevels) {
    golden.options.recompute = recompute;
    const absl::StatusOr<LoadedEngine> loaded = Load(golden, backend);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    CopyingSink sink(loaded->engine->layout(), backend);
    ASSERT_TRUE(loaded->engine->ComputeUnit(unit.input, sink).ok());
    if (recompute == Recompute::kNone) expected = sink.gradients;
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(sink.gradients[i].size(), expected[i].size());
      EXPECT_EQ(std::memcmp(sink.gradients[i].data(), expected[i].data(), expected[i].size() * sizeof(float)),
                0)
          << loaded->engine->layout().tensors()[i].name << ", level " << static_cast<int>(recompute);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenGradientTest,
                         ::testing::Combine(::testing::ValuesIn(GoldenBackends()),
                                            ::testing::Values("gpt2", "gpt2_untied", "gpt2_chunked_head",
                                                              "llama", "qwen2", "llama3_rope"),
                                            ::testing::Values(DType::kF32, DType::kBF16, DType::kF16)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param) +
                                  "_" + NameOf(std::get<2>(info.param));
                         });

}  // namespace
}  // namespace accrue
