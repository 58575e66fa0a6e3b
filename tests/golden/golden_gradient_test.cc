// The engine's loss and every gradient tensor against PyTorch's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/golden/golden_backends.h"
#include "tests/golden/golden_model.h"

namespace accrue {
namespace {

class GoldenGradientTest : public ::testing::TestWithParam<std::tuple<BackendCase, const char*>> {};

// Keeps, of every tensor, what the golden file tells.
class SummarySink : public GradientSink {
 public:
  explicit SummarySink(const ParameterLayout& layout)
      : norms(layout.tensors().size()), products(layout.tensors().size()), layout_(layout) {}

  void Add(int tensor, const float* gradient) override {
    double square = 0, product = 0;
    for (int64_t i = 0; i < layout_.tensors()[tensor].elements; ++i) {
      square += double{gradient[i]} * gradient[i];
      product += double{gradient[i]} * GoldenCentered(GoldenSalt::kDirection, tensor, i);
    }
    norms[tensor] = std::sqrt(square);
    products[tensor] = product;
  }

  std::vector<double> norms, products;

 private:
  const ParameterLayout& layout_;
};

TEST_P(GoldenGradientTest, ComputeUnit_GoldenUnit_HasLossAndGradientsOfPyTorch) {
  const auto& [backend_case, name] = GetParam();
  const GoldenModel golden(name);
  const std::unique_ptr<Backend> backend = backend_case.create();
  auto engine = CreateTransformer(golden.options, *backend);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const ParameterLayout& layout = (*engine)->layout();
  const std::vector<float> host = golden.Parameters(layout);
  const std::unique_ptr<DeviceBuffer> parameters = *backend->Allocate(host.size() * sizeof(float));
  backend->CopyToDevice(parameters->data(), host.data(), host.size() * sizeof(float));
  (*engine)->BindParameters(parameters->as<float>());
  (*engine)->ParametersChanged();

  SummarySink sink(layout);
  const GoldenUnit unit = golden.Unit(0, 0);
  const UnitLoss loss = *(*engine)->ComputeUnit(unit.input, sink);
  EXPECT_EQ(loss.valid_tokens, golden.json["valid_tokens"]);
  EXPECT_NEAR(loss.loss_sum / golden.json["loss_sum"].get<double>(), 1, 1e-5);
  ASSERT_EQ(layout.tensors().size(), golden.json["tensors"].size());
  for (size_t i = 0; i < layout.tensors().size(); ++i) {
    const nlohmann::json& expected = golden.json["tensors"][i];
    EXPECT_EQ(layout.tensors()[i].name, expected["name"]);
    EXPECT_EQ(layout.tensors()[i].shape, expected["shape"].get<std::vector<int64_t>>());
    const double norm = expected["gradient_norm"];
    ASSERT_GT(norm, 0);
    EXPECT_NEAR(sink.norms[i] / norm, 1, 1e-4) << layout.tensors()[i].name;
    EXPECT_NEAR(sink.products[i] / norm, expected["gradient_product"].get<double>() / norm, 1e-4)
        << layout.tensors()[i].name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenGradientTest,
                         ::testing::Combine(::testing::ValuesIn(GoldenBackends()),
                                            ::testing::Values("gpt2", "gpt2_untied", "gpt2_chunked_head",
                                                              "llama", "qwen2", "llama3_rope")),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param);
                         });

}  // namespace
}  // namespace accrue
