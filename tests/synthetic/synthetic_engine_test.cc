#include "worker/synthetic/synthetic_engine.h"

#include <cmath>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace accrue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kMillisecond = 1'000'000;

// The gradient of one unit, tensor by tensor.
struct Gradients : GradientSink {
  explicit Gradients(const ParameterLayout& the_layout) : layout(the_layout) {}
  void Add(int tensor, const float* gradient) override {
    tensors.emplace_back(gradient, gradient + layout.tensors()[tensor].elements);
    order.push_back(tensor);
  }
  const ParameterLayout& layout;
  std::vector<std::vector<float>> tensors;
  std::vector<int> order;
};

class SyntheticEngineTest : public testing::Test {
 protected:
  SyntheticEngineTest() { Create({.unit_ns = 20 * kMillisecond, .parameters = 100, .seed = 7}); }

  void Create(const SyntheticOptions& options) {
    engine_ = *CreateSyntheticEngine(options, clock_);
    parameters_.assign(engine_->layout().arena_elements(), -1.0f);
    engine_->InitializeParameters(options.seed, parameters_.data());
    engine_->BindParameters(parameters_.data());
  }

  UnitInput Input(int64_t window, int64_t unit) const {
    return {.rows = 2, .sequence_length = 3, .tokens = tokens_, .targets = targets_, .window = window, .unit = unit};
  }
  std::vector<std::vector<float>> GradientsOf(int64_t window, int64_t unit) {
    Gradients gradients(engine_->layout());
    EXPECT_TRUE(engine_->ComputeUnit(Input(window, unit), gradients).ok());
    EXPECT_THAT(gradients.order, ElementsAre(0, 1));
    return gradients.tensors;
  }

  FakeClock clock_;
  std::unique_ptr<Engine> engine_;
  std::vector<float> parameters_;
  const int32_t tokens_[6] = {1, 2, 3, 4, 5, 6};
  const int32_t targets_[6] = {1, 2, -1, 4, -1, 6};  // four valid
};

TEST_F(SyntheticEngineTest, Layout_HasTheParametersAskedFor) {
  EXPECT_EQ(engine_->layout().parameters(), 100);
  ASSERT_EQ(engine_->layout().tensors().size(), 2u);
  EXPECT_TRUE(engine_->layout().tensors()[0].decays);
  EXPECT_FALSE(engine_->layout().tensors()[1].decays);
  for (const TensorInfo& tensor : engine_->layout().tensors()) EXPECT_THAT(tensor.name, testing::StartsWith("synthetic."));
}

TEST_F(SyntheticEngineTest, ComputeUnit_IsTheDocumentedFunction) {
  const std::vector<std::vector<float>> before = GradientsOf(3, 5);
  // Doubling one parameter moves that element by n * p / 16, and no other.
  const float was = parameters_[10];
  parameters_[10] = 2 * was;
  const std::vector<std::vector<float>> after = GradientsOf(3, 5);
  for (size_t i = 0; i < before[0].size(); ++i) {
    EXPECT_EQ(after[0][i] == before[0][i], i != 10) << i;
  }
  EXPECT_EQ(after[1], before[1]);
  EXPECT_NEAR(after[0][10] - before[0][10], 4 * was / 16, 1e-8);
  // Without parameters the noise alone is left, within its bounds.
  std::fill(parameters_.begin(), parameters_.end(), 0.0f);
  double largest = 0;
  const std::vector<std::vector<float>> noise = GradientsOf(3, 5);
  for (float value : noise[0]) {
    EXPECT_LT(std::abs(value), 4 * std::ldexp(1.0, -6) + 1e-12);
    largest = std::max<double>(largest, std::abs(value));
  }
  EXPECT_GT(largest, std::ldexp(1.0, -6));
}

TEST_F(SyntheticEngineTest, ComputeUnit_SameUnitOnAnotherEngine_SameBits) {
  GradientsOf(0, 1);  // what was computed before does not matter
  const auto here = GradientsOf(2, 4);
  Create({.unit_ns = 3 * kMillisecond, .parameters = 100, .seed = 7});
  EXPECT_EQ(GradientsOf(2, 4), here);
}

TEST_F(SyntheticEngineTest, ComputeUnit_OtherUnitWindowOrSeed_OtherBits) {
  const auto here = GradientsOf(2, 4);
  EXPECT_NE(GradientsOf(2, 5), here);
  EXPECT_NE(GradientsOf(3, 4), here);
  EXPECT_NE(GradientsOf(4, 2), here);
  const std::vector<float> parameters = parameters_;
  Create({.parameters = 100, .seed = 8});
  parameters_ = parameters;
  EXPECT_NE(GradientsOf(2, 4), here);
}

TEST_F(SyntheticEngineTest, Loss_CountsValidTargets) {
  Gradients gradients(engine_->layout());
  std::fill(parameters_.begin(), parameters_.end(), 0.5f);
  const UnitLoss loss = *engine_->ComputeUnit(Input(0, 0), gradients);
  EXPECT_EQ(loss.valid_tokens, 4);
  EXPECT_DOUBLE_EQ(loss.loss_sum, 4 * 1.25);
  EXPECT_DOUBLE_EQ(engine_->EvaluateUnit(Input(0, 0))->loss_sum, loss.loss_sum);
}

TEST_F(SyntheticEngineTest, Units_TakeTheTimeGiven) {
  const int64_t begin_ns = clock_.SteadyNowNs();
  GradientsOf(0, 0);
  EXPECT_EQ(clock_.SteadyNowNs() - begin_ns, 20 * kMillisecond);
  ASSERT_TRUE(engine_->EvaluateUnit(Input(0, 0)).ok());
  EXPECT_EQ(clock_.SteadyNowNs() - begin_ns, 40 * kMillisecond);
}

TEST_F(SyntheticEngineTest, InitializeParameters_DiffersBySeedAndZeroesPadding) {
  std::vector<float> other(parameters_.size(), -1.0f);
  engine_->InitializeParameters(8, other.data());
  EXPECT_NE(other, parameters_);
  // 94 of the first tensor, then two of padding.
  EXPECT_EQ(parameters_[94], 0.0f);
  EXPECT_EQ(parameters_[95], 0.0f);
  EXPECT_NE(parameters_[96], 0.0f);
}

TEST(ParseSynthetic, TimeAndSize) {
  EXPECT_EQ(ParseSynthetic("20")->unit_ns, 20 * kMillisecond);
  EXPECT_EQ(ParseSynthetic("20")->parameters, SyntheticOptions::kDefaultParameters);
  EXPECT_EQ(ParseSynthetic("0.5,1000")->unit_ns, kMillisecond / 2);
  EXPECT_EQ(ParseSynthetic("0.5,1000")->parameters, 1000);
  EXPECT_EQ(ParseSynthetic("0")->unit_ns, 0);
}

TEST(ParseSynthetic, Nonsense_IsRefusedWithWhatIsExpected) {
  for (const char* text : {"", "x", "-1", "20,", "20,1", "20,x", "20,99999999999", "1,2,3", "4000000", "nan", "inf"}) {
    const auto parsed = ParseSynthetic(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(text));
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("MILLISECONDS,PARAMETERS"));
  }
}

}  // namespace
}  // namespace accrue
