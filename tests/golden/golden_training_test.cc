// Ten windows of AdamW over units of unequal token counts against PyTorch's: losses and gradient norms.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "common/exponents.h"
#include "tests/golden/golden_backends.h"
#include "tests/golden/golden_model.h"
#include "worker/accumulate/accumulator.h"
#include "worker/optimizer/training_state.h"

namespace accrue {
namespace {

using Parameters = std::tuple<BackendCase, AccumulationMode, const char*>;

class GoldenTrainingTest : public ::testing::TestWithParam<Parameters> {
 protected:
  GoldenTrainingTest() : golden_(std::get<2>(GetParam())), mode_(std::get<1>(GetParam())) {
    const nlohmann::json& o = golden_.json["optimizer"];
    config_ = {.beta1 = o["beta1"],
               .beta2 = o["beta2"],
               .epsilon = o["epsilon"],
               .weight_decay = o["weight_decay"],
               .clip_norm = o["clip_norm"]};
    learning_rate_ = o["learning_rate"];
    units_ = golden_.json["units"];
  }

  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Backend>> backend = std::get<0>(GetParam()).create();
    if (!backend.ok()) GTEST_SKIP() << backend.status();
    backend_ = *std::move(backend);
    engine_ = *CreateTransformer(golden_.options, *backend_);
    state_ = *TrainingState::Create(config_, mode_, engine_->layout(), *backend_);
    accumulator_ = *Accumulator::Create(mode_, engine_->layout(), *backend_);
    state_->Start(golden_.Parameters(engine_->layout()).data());
    engine_->BindParameters(state_->parameters());
    engine_->ParametersChanged();
  }

  struct WindowResult {
    double loss = 0, gradient_norm = 0;
    int64_t valid_tokens = 0;
  };

  // Window 0's exponents come from a probe of its unit 0.
  void Probe() {
    if (mode_ == AccumulationMode::kFast) return;
    const GoldenUnit unit = golden_.Unit(0, 0);
    accumulator_->BeginProbe();
    ASSERT_TRUE(engine_->ComputeUnit(unit.input, *accumulator_).ok());
    state_->SetExponents(NextExponents(units_, accumulator_->FinishUnit().max_exponents));
  }

  WindowResult RunWindow(int64_t window) {
    WindowResult result;
    std::vector<int> max_exponents;
    accumulator_->Reset(state_->exponents());
    for (int64_t u = 0; u < units_; ++u) {
      const GoldenUnit unit = golden_.Unit(window, u);
      accumulator_->BeginUnit(u);
      const UnitLoss loss = *engine_->ComputeUnit(unit.input, *accumulator_);
      const UnitStats stats = accumulator_->FinishUnit();
      EXPECT_FALSE(stats.non_finite);
      MergeMaxExponents(stats.max_exponents, max_exponents);
      result.loss += loss.loss_sum;
      result.valid_tokens += loss.valid_tokens;
    }
    result.loss /= static_cast<double>(result.valid_tokens);
    for (int bucket = 0; bucket < static_cast<int>(engine_->layout().buckets().size()); ++bucket) {
      accumulator_->MarkFinal(bucket);
    }
    const double step = static_cast<double>(window + 1);
    StepInput input{.learning_rate = static_cast<float>(learning_rate_),
                    .bias_correction1 = static_cast<float>(1 - std::pow(config_.beta1, step)),
                    .bias_correction2 = static_cast<float>(1 - std::pow(config_.beta2, step)),
                    .valid_tokens = result.valid_tokens};
    if (mode_ == AccumulationMode::kExact) {
      EXPECT_FALSE(NeedsReplay(units_, max_exponents, state_->exponents()));
      input.next_exponents = NextExponents(units_, max_exponents);
    }
    result.gradient_norm = state_->Step(*accumulator_, input).gradient_norm;
    engine_->ParametersChanged();
    return result;
  }

  const GoldenModel golden_;
  const AccumulationMode mode_;
  OptimizerConfig config_;
  double learning_rate_ = 0;
  int64_t units_ = 0;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<TrainingState> state_;
  std::unique_ptr<Accumulator> accumulator_;
};

TEST_P(GoldenTrainingTest, Step_TenWindows_HaveLossesAndNormsOfPyTorch) {
  Probe();
  const nlohmann::json& windows = golden_.json["windows"];
  ASSERT_EQ(windows.size(), 10u);
  for (int64_t window = 0; window < 10; ++window) {
    const WindowResult result = RunWindow(window);
    EXPECT_EQ(result.valid_tokens, windows[window]["valid_tokens"]);
    EXPECT_NEAR(result.loss / windows[window]["loss"].get<double>(), 1, 1e-4) << window;
    EXPECT_NEAR(result.gradient_norm / windows[window]["gradient_norm"].get<double>(), 1, 1e-4) << window;
  }
}

std::string CaseName(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [backend, mode, model] = info.param;
  return std::string(backend.name) + "_" + model + (mode == AccumulationMode::kExact ? "_exact" : "_fast");
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTrainingTest,
                         ::testing::Combine(::testing::ValuesIn(GoldenBackends()),
                                            ::testing::Values(AccumulationMode::kExact,
                                                              AccumulationMode::kFast),
                                            ::testing::Values("gpt2", "llama", "qwen2")),
                         CaseName);

}  // namespace
}  // namespace accrue
