// The engine's loss and every gradient tensor against PyTorch's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

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

// Bounds of a relative error. In bf16 the model's own roundings are of 2^-9, against a PyTorch that computed in fp32.
struct Bounds {
  double loss, gradient;
};
Bounds BoundsOf(DType precision) { return precision == DType::kF32 ? Bounds{1e-5, 1e-4} : Bounds{2e-3, 5e-2}; }

TEST_P(GoldenGradientTest, ComputeUnit_GoldenUnit_HasLossAndGradientsOfPyTorch) {
  const auto& [backend_case, name, precision] = GetParam();
  GoldenModel golden(name);
  golden.options.precision = precision;
  const absl::StatusOr<std::unique_ptr<Backend>> created = backend_case.create();
  if (!created.ok()) GTEST_SKIP() << created.status();
  const std::unique_ptr<Backend>& backend = *created;
  if (!backend->Supports(precision)) GTEST_SKIP() << backend->DeviceName() << " does not compute in bf16";
  const Bounds bounds = BoundsOf(precision);
  auto engine = CreateTransformer(golden.options, *backend);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const ParameterLayout& layout = (*engine)->layout();
  const std::vector<float> host = golden.Parameters(layout);
  const std::unique_ptr<DeviceBuffer> parameters = *backend->Allocate(host.size() * sizeof(float));
  backend->CopyToDevice(parameters->data(), host.data(), host.size() * sizeof(float));
  (*engine)->BindParameters(parameters->as<float>());
  (*engine)->ParametersChanged();

  SummarySink sink(layout, *backend);
  const GoldenUnit unit = golden.Unit(0, 0);
  const UnitLoss loss = *(*engine)->ComputeUnit(unit.input, sink);
  EXPECT_EQ(loss.valid_tokens, golden.json["valid_tokens"]);
  EXPECT_NEAR(loss.loss_sum / golden.json["loss_sum"].get<double>(), 1, bounds.loss);
  ASSERT_EQ(layout.tensors().size(), golden.json["tensors"].size());
  for (size_t i = 0; i < layout.tensors().size(); ++i) {
    const nlohmann::json& expected = golden.json["tensors"][i];
    EXPECT_EQ(layout.tensors()[i].name, expected["name"]);
    EXPECT_EQ(layout.tensors()[i].shape, expected["shape"].get<std::vector<int64_t>>());
    const double norm = expected["gradient_norm"];
    ASSERT_GT(norm, 0);
    EXPECT_NEAR(sink.norms[i] / norm, 1, bounds.gradient) << layout.tensors()[i].name;
    EXPECT_NEAR(sink.products[i] / norm, expected["gradient_product"].get<double>() / norm, bounds.gradient)
        << layout.tensors()[i].name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenGradientTest,
                         ::testing::Combine(::testing::ValuesIn(GoldenBackends()),
                                            ::testing::Values("gpt2", "gpt2_untied", "gpt2_chunked_head",
                                                              "llama", "qwen2", "llama3_rope"),
                                            ::testing::Values(DType::kF32, DType::kBF16)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param) +
                                  (std::get<2>(info.param) == DType::kF32 ? "_fp32" : "_bf16");
                         });

}  // namespace
}  // namespace accrue
