#include "worker/model/transformer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "tests/backend/reference_ops.h"
#include "tests/model/model_testing.h"
#include "worker/backend/measuring_backend.h"

namespace accrue {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

struct ModelCase {
  const char* name;
  ModelConfig model;
};

struct BackendCase {
  const char* name;
  std::unique_ptr<Backend> (*create)();
};

using Case = std::tuple<ModelCase, BackendCase>;

ModelConfig With(ModelConfig model, void (*change)(ModelConfig&)) {
  change(model);
  return model;
}

class TransformerTest : public ::testing::TestWithParam<Case> {
 protected:
  TransformerOptions Options(int64_t rows = 2, int64_t sequence_length = 5) const {
    return {.model = model_, .rows = rows, .sequence_length = sequence_length, .seed = 11};
  }

  const ModelConfig model_ = std::get<0>(GetParam()).model;
  const std::unique_ptr<Backend> backend_ = std::get<1>(GetParam()).create();
};

TEST_P(TransformerTest, ComputeUnit_AnyTensor_GradientIsSlopeOfLoss) {
  const TransformerOptions options = Options();
  TestModel model(options, *backend_);
  const TestUnit unit(options, 1, /*masked=*/true);
  KeepingSink sink(model.engine->layout());
  ASSERT_TRUE(model.engine->ComputeUnit(unit.Input(3, 4), sink).ok());
  EXPECT_THAT(sink.times_added, Each(1));

  auto loss_at = [&](int64_t element, float value) {
    const float saved = model.parameters[element];
    model.parameters[element] = value;
    KeepingSink ignored(model.engine->layout());
    const UnitLoss loss = *model.engine->ComputeUnit(unit.Input(3, 4), ignored);
    model.parameters[element] = saved;
    return loss.loss_sum;
  };
  for (const TensorInfo& tensor : model.engine->layout().tensors()) {
    for (int64_t i = 0; i < tensor.elements; i += 1 + tensor.elements / 4) {
      const int64_t element = tensor.arena_offset + i;
      const float at = model.parameters[element], step = 0x1p-7f;
      auto change = [&](float distance) {
        return loss_at(element, at + distance) - loss_at(element, at - distance);
      };
      // Fourth-order central difference.
      const double slope = (8 * change(step) - change(2 * step)) / (12 * step);
      EXPECT_NEAR(sink.gradient[element], slope, 1e-3 * std::max(1.0, std::abs(slope)))
          << tensor.name << " " << i;
    }
  }
}

TEST_P(TransformerTest, ComputeUnit_TwoRows_IsSumOfUnitsOfOneRow) {
  TransformerOptions both_options = Options(2), one_options = Options(1);
  both_options.model.dropout = one_options.model.dropout = 0;  // its draws depend on the place in the unit
  TestModel both(both_options, *backend_), one(one_options, *backend_);
  const TestUnit unit(both_options, 1, /*masked=*/true);
  KeepingSink sum(both.engine->layout()), parts(both.engine->layout());
  const UnitLoss whole = *both.engine->ComputeUnit(unit.Input(), sum);
  UnitLoss total;
  for (int64_t row = 0; row < 2; ++row) {
    UnitInput input = unit.Input();
    input.rows = 1;
    input.tokens += row * unit.T;
    input.targets += row * unit.T;
    const UnitLoss loss = *one.engine->ComputeUnit(input, parts);
    total.loss_sum += loss.loss_sum;
    total.valid_tokens += loss.valid_tokens;
  }
  EXPECT_EQ(whole.valid_tokens, total.valid_tokens);
  EXPECT_NEAR(whole.loss_sum, total.loss_sum, 1e-5);
  for (size_t i = 0; i < sum.gradient.size(); ++i) EXPECT_NEAR(sum.gradient[i], parts.gradient[i], 1e-5) << i;
}

TEST_P(TransformerTest, ComputeUnit_MaskedTargets_CarryNothing) {
  const TransformerOptions options = Options();
  TestModel model(options, *backend_);
  // Only the first three targets count, so later tokens must not matter: neither to loss nor to gradient.
  TestUnit unit(options, 1, false), other(options, 2, false);
  for (int64_t i = 3; i < unit.rows * unit.T; ++i) unit.targets[i] = -1;
  for (int64_t i = 0; i < 3; ++i) other.tokens[i] = unit.tokens[i];
  other.targets = unit.targets;
  KeepingSink sink(model.engine->layout()), other_sink(model.engine->layout());
  const UnitLoss loss = *model.engine->ComputeUnit(unit.Input(), sink);
  const UnitLoss other_loss = *model.engine->ComputeUnit(other.Input(), other_sink);
  EXPECT_EQ(loss.valid_tokens, 3);
  EXPECT_GT(loss.loss_sum, 0);
  EXPECT_EQ(loss.loss_sum, other_loss.loss_sum);
  EXPECT_EQ(sink.gradient, other_sink.gradient);
}

TEST_P(TransformerTest, ComputeUnit_NoValidTarget_GivesZeroGradient) {
  const TransformerOptions options = Options();
  TestModel model(options, *backend_);
  TestUnit unit(options, 1, false);
  std::fill(unit.targets.begin(), unit.targets.end(), -1);
  KeepingSink sink(model.engine->layout());
  const UnitLoss loss = *model.engine->ComputeUnit(unit.Input(), sink);
  EXPECT_EQ(loss.valid_tokens, 0);
  EXPECT_EQ(loss.loss_sum, 0);
  EXPECT_THAT(sink.gradient, Each(0.0f));
  EXPECT_THAT(sink.times_added, Each(1));
}

TEST_P(TransformerTest, ComputeUnit_Dropout_DependsOnWindowAndUnitOnly) {
  const TransformerOptions options = Options();
  TestModel model(options, *backend_), again(options, *backend_);
  const TestUnit unit(options, 1, true), other(options, 2, false);
  auto compute = [](TestModel& m, const UnitInput& input) {
    KeepingSink sink(m.engine->layout());
    return std::pair(m.engine->ComputeUnit(input, sink)->loss_sum, sink.gradient);
  };
  const auto first = compute(model, unit.Input(2, 3));
  compute(again, other.Input(9, 9));  // what was computed before must not matter
  EXPECT_EQ(first, compute(again, unit.Input(2, 3)));
  const bool drops = model_.dropout > 0;
  EXPECT_EQ(first != compute(model, unit.Input(3, 3)), drops);
  EXPECT_EQ(first != compute(model, unit.Input(2, 4)), drops);
  TransformerOptions reseeded_options = options;
  reseeded_options.seed += 1;
  TestModel reseeded(reseeded_options, *backend_);
  EXPECT_EQ(first != compute(reseeded, unit.Input(2, 3)), drops);
}

TEST_P(TransformerTest, EvaluateUnit_WithoutDropout_HasLossOfComputeUnit) {
  const TransformerOptions options = Options();
  TestModel model(options, *backend_);
  const TestUnit unit(options, 1, true);
  KeepingSink sink(model.engine->layout());
  const UnitLoss evaluated = *model.engine->EvaluateUnit(unit.Input());
  const UnitLoss computed = *model.engine->ComputeUnit(unit.Input(), sink);
  EXPECT_EQ(evaluated.valid_tokens, computed.valid_tokens);
  EXPECT_EQ(evaluated.loss_sum == computed.loss_sum, model_.dropout == 0);
}

TEST_P(TransformerTest, EvaluateUnit_FewerRows_IsTheirShare) {
  const TransformerOptions options = Options(2);
  TestModel model(options, *backend_);
  const TestUnit unit(options, 1, true);
  double total = 0;
  for (int64_t row = 0; row < 2; ++row) {
    UnitInput input = unit.Input();
    input.rows = 1;
    input.tokens += row * unit.T;
    input.targets += row * unit.T;
    total += model.engine->EvaluateUnit(input)->loss_sum;
  }
  EXPECT_NEAR(model.engine->EvaluateUnit(unit.Input())->loss_sum, total, 1e-5);
}

TEST_P(TransformerTest, NextTokenLogits_AnyPosition_GivesLossOfThatPosition) {
  const TransformerOptions options = Options(1, 5);
  TestModel model(options, *backend_);
  TestUnit unit(options, 1, false);
  for (int64_t i = 0; i < 5; ++i) {
    std::vector<float> logits(options.model.vocabulary);
    ASSERT_TRUE(model.engine->NextTokenLogits(unit.tokens.data(), i + 1, logits.data()).ok());
    double sum = 0;
    for (float logit : logits) sum += std::exp(logit);
    TestUnit only = unit;
    for (int64_t j = 0; j < 5; ++j) only.targets[j] = j == i ? unit.targets[j] : -1;
    EXPECT_NEAR(std::log(sum) - logits[unit.targets[i]], model.engine->EvaluateUnit(only.Input())->loss_sum,
                1e-5);
  }
}

TEST_P(TransformerTest, NextTokenLogits_LongerThanUnit_Works) {
  TransformerOptions small_options = Options(1, 1), options = Options(1, model_.context);
  TestModel small(small_options, *backend_), model(options, *backend_);
  const TestUnit unit(options, 1, false);
  std::vector<float> expected(options.model.vocabulary), logits(options.model.vocabulary);
  ASSERT_TRUE(model.engine->NextTokenLogits(unit.tokens.data(), unit.T, expected.data()).ok());
  ASSERT_TRUE(small.engine->NextTokenLogits(unit.tokens.data(), unit.T, logits.data()).ok());
  EXPECT_EQ(logits, expected);
}

TEST_P(TransformerTest, ComputeUnit_TokenOutsideVocabulary_SaysWhere) {
  const TransformerOptions options = Options();
  TestModel model(options, *backend_);
  TestUnit unit(options, 1, false);
  unit.tokens[7] = static_cast<int32_t>(options.model.vocabulary);
  KeepingSink sink(model.engine->layout());
  const absl::Status status = model.engine->ComputeUnit(unit.Input(3, 4), sink).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("unit 4 of window 3"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("sequence 1, position 2"));
  unit.tokens[7] = 0;
  unit.targets[9] = -2;
  EXPECT_THAT(std::string(model.engine->EvaluateUnit(unit.Input()).status().message()),
              HasSubstr("target -2 at sequence 1, position 4"));
}

TEST_P(TransformerTest, ComputeUnit_WrongShape_SaysWhichIsRight) {
  const TransformerOptions options = Options(), wrong = Options(3);
  TestModel model(options, *backend_);
  const TestUnit unit(wrong, 1, false);
  KeepingSink sink(model.engine->layout());
  const absl::Status status = model.engine->ComputeUnit(unit.Input(), sink).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("3 sequences of 5 tokens; expected 2 of 5"));
}

// docs/numerics.md, section 2: what is computed again has the bits that were not kept.
TEST_P(TransformerTest, ComputeUnit_AnyRecomputeLevel_GivesSameBits) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    if (!backend_->Supports(precision)) continue;
    TransformerOptions options = Options();
    options.precision = precision;
    const TestUnit unit(options, 1, /*masked=*/true), other(options, 2, false);
    std::vector<float> expected;
    double expected_loss = 0;
    for (const Recompute recompute : kRecomputeLevels) {
      SCOPED_TRACE(static_cast<int>(recompute));
      options.recompute = recompute;
      TestModel model(options, *backend_);
      KeepingSink sink(model.engine->layout()), ignored(model.engine->layout());
      ASSERT_TRUE(
          model.engine->ComputeUnit(other.Input(9, 9), ignored).ok());  // leaves other activations behind
      const UnitLoss loss = *model.engine->ComputeUnit(unit.Input(1, 2), sink);
      EXPECT_THAT(sink.times_added, Each(1));
      if (recompute == Recompute::kNone) {
        expected = sink.gradient;
        expected_loss = loss.loss_sum;
      }
      EXPECT_EQ(loss.loss_sum, expected_loss);
      for (const TensorInfo& tensor : model.engine->layout().tensors()) {
        const size_t begin = tensor.arena_offset, bytes = tensor.elements * sizeof(float);
        EXPECT_EQ(std::memcmp(&sink.gradient[begin], &expected[begin], bytes), 0) << tensor.name;
      }
    }
  }
}

TEST_P(TransformerTest, ComputeUnit_Bf16_IsNearFp32) {
  if (!backend_->Supports(DType::kBF16)) GTEST_SKIP() << backend_->DeviceName() << " has no bf16";
  TransformerOptions options = Options();
  options.model.dropout = 0;
  TestModel exact(options, *backend_);
  options.precision = DType::kBF16;
  TestModel rounded(options, *backend_);
  ASSERT_NE(rounded.engine->ComputeCopy(), nullptr);
  const TestUnit unit(options, 1, true);
  KeepingSink sink(exact.engine->layout()), rounded_sink(exact.engine->layout());
  const UnitLoss loss = *exact.engine->ComputeUnit(unit.Input(), sink);
  const UnitLoss rounded_loss = *rounded.engine->ComputeUnit(unit.Input(), rounded_sink);
  EXPECT_NE(loss.loss_sum, rounded_loss.loss_sum);
  EXPECT_NEAR(rounded_loss.loss_sum / loss.loss_sum, 1, 0.01);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < sink.gradient.size(); ++i) {
    difference += std::pow(sink.gradient[i] - rounded_sink.gradient[i], 2);
    norm += std::pow(sink.gradient[i], 2);
  }
  EXPECT_LT(std::sqrt(difference / norm), 0.03);
}

TEST_P(TransformerTest, ComputeUnit_LossScale_MultipliesEveryGradientAndNothingElse) {
  const TransformerOptions options = Options();
  TestModel model(options, *backend_);
  const TestUnit unit(options, 1, true);
  KeepingSink sink(model.engine->layout()), scaled_sink(model.engine->layout());
  const UnitLoss loss = *model.engine->ComputeUnit(unit.Input(1, 2), sink);
  UnitInput input = unit.Input(1, 2);
  input.loss_scale_exponent = 12;
  const UnitLoss scaled_loss = *model.engine->ComputeUnit(input, scaled_sink);
  EXPECT_EQ(scaled_loss.loss_sum, loss.loss_sum);
  for (size_t i = 0; i < sink.gradient.size(); ++i) ASSERT_EQ(scaled_sink.gradient[i], std::ldexp(sink.gradient[i], 12)) << i;
}

TEST_P(TransformerTest, ComputeUnit_Fp16_IsNearFp32) {
  TransformerOptions options = Options();
  options.model.dropout = 0;
  TestModel exact(options, *backend_);
  options.precision = DType::kF16;
  TestModel rounded(options, *backend_);
  ASSERT_NE(rounded.engine->ComputeCopy(), nullptr);
  const TestUnit unit(options, 1, true);
  KeepingSink sink(exact.engine->layout());
  const UnitLoss loss = *exact.engine->ComputeUnit(unit.Input(), sink);
  double errors[2];
  for (int scale : {0, 8}) {
    KeepingSink rounded_sink(exact.engine->layout());
    UnitInput input = unit.Input();
    input.loss_scale_exponent = scale;
    const UnitLoss rounded_loss = *rounded.engine->ComputeUnit(input, rounded_sink);
    EXPECT_NEAR(rounded_loss.loss_sum / loss.loss_sum, 1, 0.001);
    double difference = 0, norm = 0;
    for (size_t i = 0; i < sink.gradient.size(); ++i) {
      difference += std::pow(sink.gradient[i] - std::ldexp(rounded_sink.gradient[i], -scale), 2);
      norm += std::pow(sink.gradient[i], 2);
    }
    errors[scale / 8] = std::sqrt(difference / norm);
    EXPECT_LT(errors[scale / 8], 0.004) << scale;
  }
  EXPECT_LE(errors[1], errors[0] * 1.1);
}

// What leaves binary16 backward shows in a gradient, which is then not finite.
TEST_P(TransformerTest, ComputeUnit_Fp16WithAScaleThatIsTooHigh_SomeGradientIsNotFinite) {
  TransformerOptions options = Options();
  options.precision = DType::kF16;
  TestModel model(options, *backend_);
  const TestUnit unit(options, 1, true);
  KeepingSink sink(model.engine->layout());
  UnitInput input = unit.Input();
  input.loss_scale_exponent = 24;
  const UnitLoss loss = *model.engine->ComputeUnit(input, sink);
  EXPECT_TRUE(std::isfinite(loss.loss_sum));
  EXPECT_TRUE(std::any_of(sink.gradient.begin(), sink.gradient.end(), [](float g) { return !std::isfinite(g); }));
}

std::vector<ModelCase> Models() {
  return {{"gpt2", TinyGpt2()},
          {"gpt2_untied", With(TinyGpt2(), [](ModelConfig& m) { m.tie_embeddings = false; })},
          {"gpt2_dropout", With(TinyGpt2(), [](ModelConfig& m) { m.dropout = 0.3; })},
          {"llama", With(TinyLlama(), [](ModelConfig& m) { m.qkv_bias = false; })},
          {"llama_wide_heads", With(TinyLlama(), [](ModelConfig& m) { m.head_size = 6; })},
          {"llama_dropout", With(TinyLlama(), [](ModelConfig& m) { m.dropout = 0.3; })},
          {"qwen2", With(TinyLlama(), [](ModelConfig& m) { m.tie_embeddings = true; })}};
}

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  return std::string(std::get<1>(info.param).name) + "_" + std::get<0>(info.param).name;
}

INSTANTIATE_TEST_SUITE_P(
    Models, TransformerTest,
    ::testing::Combine(::testing::ValuesIn(Models()),
                       ::testing::Values(BackendCase{"reference", [] { return CreateReferenceBackend(); }},
                                         BackendCase{"cpu", [] { return CreateCpuBackend(2); }})),
    CaseName);

// docs/numerics.md, section 2: a unit's bits depend neither on the number of threads nor on what is kept in
// memory.
TEST(CpuTransformer, ComputeUnit_AnyThreadCountAndRecomputeLevel_GivesSameBits) {
  ModelConfig gpt2 = TinyGpt2(), llama = TinyLlama();
  gpt2.width = llama.width = 64;
  gpt2.hidden = llama.hidden = 200;
  gpt2.context = llama.context = 150;
  gpt2.vocabulary = llama.vocabulary = 700;
  gpt2.layers = llama.layers = 3;
  gpt2.dropout = 0.1;
  for (const ModelConfig& model : {gpt2, llama}) {
    for (const DType precision : {DType::kF32, DType::kBF16, DType::kF16}) {
      if (!CreateCpuBackend(1)->Supports(precision)) continue;
      TransformerOptions options{.model = model, .precision = precision, .rows = 3, .sequence_length = 130};
      const TestUnit unit(options, 1, /*masked=*/true);
      std::vector<float> expected;
      double expected_loss = 0;
      for (const int threads : {1, 2, 3, 7, 16}) {
        const std::unique_ptr<Backend> backend = CreateCpuBackend(threads);
        for (const Recompute recompute : kRecomputeLevels) {
          options.recompute = recompute;
          TestModel test(options, *backend);
          KeepingSink sink(test.engine->layout());
          const UnitLoss loss = *test.engine->ComputeUnit(unit.Input(1, 2), sink);
          if (expected.empty()) {
            expected = sink.gradient;
            expected_loss = loss.loss_sum;
          }
          EXPECT_EQ(loss.loss_sum, expected_loss) << threads;
          EXPECT_TRUE(sink.gradient == expected)
              << threads << " threads, level " << static_cast<int>(recompute);
        }
      }
    }
  }
}

TEST(CreateTransformer, Tf32OnACpu_IsRefused) {
  const auto backend = CreateCpuBackend(1);
  const auto created = CreateTransformer({.model = TinyGpt2(), .tf32 = true, .rows = 1, .sequence_length = 3}, *backend);
  EXPECT_EQ(created.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(created.status().message().find("does not compute in tf32"), std::string::npos) << created.status();
}

TEST(CreateTransformer, SequenceBeyondContext_IsRefused) {
  const auto backend = CreateReferenceBackend();
  const auto created = CreateTransformer({.model = TinyGpt2(), .rows = 1, .sequence_length = 8}, *backend);
  EXPECT_EQ(created.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(created.status().message()), HasSubstr("expected 1 to model.context, 7"));
}

// A device whose kernels hold small heads only.
class SmallHeads : public MeasuringBackend {
 public:
  using MeasuringBackend::MeasuringBackend;
  int64_t LargestHeadSize() const override { return size; }
  int64_t size = 0;
};

TEST(CreateTransformer, HeadsBeyondTheDevice_AreRefused) {
  const auto lender = CreateReferenceBackend();
  SmallHeads backend(*lender);
  const TransformerOptions options{.model = TinyGpt2(), .rows = 1, .sequence_length = 4};
  backend.size = options.model.HeadSize();
  EXPECT_TRUE(CreateTransformer(options, backend).ok());
  --backend.size;
  const absl::Status status = CreateTransformer(options, backend).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr(" computes heads of up to "));
}

}  // namespace
}  // namespace accrue
