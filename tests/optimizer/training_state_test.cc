// docs/numerics.md, sections 7 and 9.
#include "worker/optimizer/training_state.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "tests/accumulate/host_backend.h"
#include "tests/accumulate/units.h"

namespace accrue {
namespace {

using Gradients = std::vector<std::vector<float>>;

ParameterLayout TinyLayout() { return *ParameterLayout::Build({{"bias", {3}}, {"weight", {2, 2}}}); }

// A state of the tiny layout that begins with bias 1, 2, 3 and weight 4, 5, 6, 7.
class Fixture {
 public:
  explicit Fixture(const OptimizerConfig& config, AccumulationMode mode = AccumulationMode::kExact)
      : layout(TinyLayout()),
        state(*TrainingState::Create(config, mode, layout, backend)),
        accumulator(*Accumulator::Create(mode, layout, backend)),
        exact(mode == AccumulationMode::kExact) {
    std::vector<float> arena(layout.arena_elements());
    for (int i = 0; i < 3; ++i) arena[i] = 1.0f + static_cast<float>(i);
    for (int i = 0; i < 4; ++i) arena[layout.tensors()[1].arena_offset + i] = 4.0f + static_cast<float>(i);
    state->Start(arena.data());
    if (exact) state->SetExponents({40, 40});
    accumulator->Reset(state->exponents());
  }

  // One window of these units.
  StepOutcome Step(const std::vector<Gradients>& units, StepInput input) {
    accumulator->Reset(state->exponents());
    for (size_t u = 0; u < units.size(); ++u)
      AddValues(*accumulator, layout, static_cast<int64_t>(u), units[u]);
    return StepHeld(input);
  }
  StepOutcome StepHeld(StepInput input) {
    if (exact) {
      ReduceExact({accumulator.get()}, layout);
      if (input.next_exponents.empty()) input.next_exponents = {40, 40};
    } else {
      accumulator->FastBucket(0);
      accumulator->MarkFinal(0);
    }
    return state->Step(*accumulator, input);
  }

  std::vector<float> Values(int array) const {
    std::vector<float> values(state->arrays()[array].elements);
    state->ReadArray(array, values.data());
    return values;
  }

  HostBackend backend;
  ParameterLayout layout;
  std::unique_ptr<TrainingState> state;
  std::unique_ptr<Accumulator> accumulator;
  const bool exact;
};

OptimizerConfig PlainSgd() {
  return {.kind = OptimizerKind::kSgd, .weight_decay = 0, .momentum = 0, .clip_norm = 0};
}

std::string Bytes(const std::vector<float>& values) {
  std::string bytes(values.size() * 4, '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &values[i], 4);
    for (int b = 0; b < 4; ++b) bytes[4 * i + b] = static_cast<char>(bits >> (8 * b) & 0xff);
  }
  return bytes;
}
std::string ChunkHash(const std::string& bytes) {
  const Hash128 hash = HashBytes(bytes.data(), bytes.size());
  return std::string(reinterpret_cast<const char*>(hash.bytes.data()), 16);
}
std::string HexHash(const std::string& bytes) { return HashBytes(bytes.data(), bytes.size()).Hex(); }

// ---- the digest ----

TEST(Digest, OfATinyState_IsWhatTheDocumentSays) {
  Fixture fixture(OptimizerConfig{});
  const std::string hashes = ChunkHash(Bytes({1, 2, 3})) + ChunkHash(Bytes({0, 0, 0})) +
                             ChunkHash(Bytes({0, 0, 0})) + ChunkHash(Bytes({4, 5, 6, 7})) +
                             ChunkHash(Bytes({0, 0, 0, 0})) + ChunkHash(Bytes({0, 0, 0, 0}));
  EXPECT_EQ(
      fixture.state->Digest().Hex(),
      HexHash("accrue-state-1\nwindow 0\nsteps 0\noptimizer adamw\ntensor bias 3 40\ntensor weight 4 40\n" +
              hashes));
}

TEST(Digest, WithALossScale_HasALineOfIt) {
  Fixture fixture(OptimizerConfig{});
  const std::string before = fixture.state->Digest().Hex();
  fixture.state->SetLossScale(LossScale{14, 1999});
  const std::string hashes = ChunkHash(Bytes({1, 2, 3})) + ChunkHash(Bytes({0, 0, 0})) +
                             ChunkHash(Bytes({0, 0, 0})) + ChunkHash(Bytes({4, 5, 6, 7})) +
                             ChunkHash(Bytes({0, 0, 0, 0})) + ChunkHash(Bytes({0, 0, 0, 0}));
  EXPECT_EQ(fixture.state->Digest().Hex(),
            HexHash("accrue-state-1\nwindow 0\nsteps 0\noptimizer adamw\nloss_scale 14 1999\n"
                    "tensor bias 3 40\ntensor weight 4 40\n" + hashes));
  fixture.state->SetLossScale(std::nullopt);
  EXPECT_EQ(fixture.state->Digest().Hex(), before);
}

TEST(Step, ScaledLoss_SameStateAsWithoutAScale) {
  for (AccumulationMode mode : {AccumulationMode::kExact, AccumulationMode::kFast}) {
    OptimizerConfig config;
    config.clip_norm = 0.25;
    Fixture plain(config, mode), scaled(config, mode);
    scaled.accumulator->SetLossScale(13);
    const std::vector<Gradients> units = {{{1, 0.25, -1}, {2, 2, -0.5, 2}}, {{0.125, 0, 3}, {1, 0, 0, 1}}};
    std::vector<Gradients> multiplied = units;
    for (Gradients& unit : multiplied) {
      for (auto& tensor : unit) {
        for (float& value : tensor) value *= 0x1p13f;
      }
    }
    const StepInput input{.learning_rate = 0.5f, .bias_correction1 = 0.1f, .bias_correction2 = 0.05f, .valid_tokens = 3};
    const StepOutcome expected = plain.Step(units, input), outcome = scaled.Step(multiplied, input);
    EXPECT_EQ(outcome.gradient_norm, expected.gradient_norm);
    EXPECT_EQ(outcome.clip_coefficient, expected.clip_coefficient);
    EXPECT_EQ(outcome.digest, expected.digest);
  }
}

TEST(Digest, AfterSgdInFastMode_HasNoExponentsAndNoSecondMoment) {
  Fixture fixture(PlainSgd(), AccumulationMode::kFast);
  const StepOutcome outcome =
      fixture.Step({{{1, 0, -1}, {2, 2, 2, 2}}}, {.learning_rate = 0.5f, .valid_tokens = 2});
  const std::string hashes = ChunkHash(Bytes({0.75, 2, 3.25})) + ChunkHash(Bytes({0.5, 0, -0.5})) +
                             ChunkHash(Bytes({3.5, 4.5, 5.5, 6.5})) + ChunkHash(Bytes({1, 1, 1, 1}));
  const std::string text =
      "accrue-state-1\nwindow 1\nsteps 1\noptimizer sgd\ntensor bias 3 -\ntensor weight 4 -\n" + hashes;
  EXPECT_EQ(outcome.digest.Hex(), HexHash(text));
  EXPECT_EQ(fixture.state->Digest().Hex(), HexHash(text));
}

TEST(Digest, OfSeveralChunks_HashesEachArrayChunkByChunk) {
  const ParameterLayout layout = *ParameterLayout::Build({{"a", {kChunkElements + 5}}, {"b", {1}}});
  HostBackend backend;
  auto state = *TrainingState::Create(PlainSgd(), AccumulationMode::kFast, layout, backend);
  std::vector<float> a(kChunkElements + 5), arena(layout.arena_elements());
  for (size_t i = 0; i < a.size(); ++i) arena[i] = a[i] = static_cast<float>(i);
  state->Start(arena.data());
  const std::vector<float> first(a.begin(), a.begin() + kChunkElements),
      second(a.begin() + kChunkElements, a.end());
  const std::string zeros(first.size() * 4, '\0');
  EXPECT_EQ(state->Digest().Hex(),
            HexHash("accrue-state-1\nwindow 0\nsteps 0\noptimizer sgd\ntensor a 16389 -\ntensor b 1 -\n" +
                    ChunkHash(Bytes(first)) + ChunkHash(Bytes(second)) + ChunkHash(zeros) +
                    ChunkHash(zeros.substr(0, 20)) + ChunkHash(Bytes({0})) + ChunkHash(Bytes({0}))));
}

TEST(Digest, OfAnyChangeOfTheState_Changes) {
  Fixture fixture(OptimizerConfig{});
  std::vector<std::string> digests = {fixture.state->Digest().Hex()};
  for (int array = 0; array < 6; ++array) {
    std::vector<float> values = fixture.Values(array);
    const float before = values.back();
    values.back() = std::nextafter(before, 100.0f);
    fixture.state->WriteArray(array, values.data());
    digests.push_back(fixture.state->Digest().Hex());
    values.back() = before;
    fixture.state->WriteArray(array, values.data());
    EXPECT_EQ(fixture.state->Digest().Hex(), digests[0]);
  }
  for (const auto& [window, steps, exponents] : std::vector<std::tuple<int64_t, int64_t, std::vector<int>>>{
           {1, 0, {40, 40}}, {0, 1, {40, 40}}, {0, 0, {40, 41}}, {0, 0, {}}}) {
    fixture.state->SetProgress(window, steps, exponents);
    digests.push_back(fixture.state->Digest().Hex());
  }
  std::sort(digests.begin(), digests.end());
  EXPECT_EQ(std::unique(digests.begin(), digests.end()), digests.end());
}

TEST(ParameterHash, WithAndWithoutAComputeCopy_IsWhatTheDocumentSays) {
  Fixture fixture(OptimizerConfig{});
  const std::string bias = ChunkHash(Bytes({1, 2, 3})), weight = ChunkHash(Bytes({4, 5, 6, 7}));
  EXPECT_EQ(fixture.state->ParameterHash(nullptr).Hex(), HexHash("accrue-parameters-1\n" + bias + weight));
  std::vector<uint16_t> copy(fixture.layout.arena_elements());
  for (size_t i = 0; i < copy.size(); ++i) copy[i] = static_cast<uint16_t>(0x100 * i + 7);
  const auto copy_hash = [&](int64_t begin, int64_t count) {
    return ChunkHash(std::string(reinterpret_cast<const char*>(copy.data() + begin), 2 * count));
  };
  EXPECT_EQ(fixture.state->ParameterHash(copy.data()).Hex(),
            HexHash("accrue-parameters-1\n" + bias + copy_hash(0, 3) + weight +
                    copy_hash(fixture.layout.tensors()[1].arena_offset, 4)));
}

TEST(HeldParameterHash, AfterEveryChangeOfTheState_IsTheParameterHash) {
  Fixture fixture(OptimizerConfig{});
  std::vector<uint16_t> copy(fixture.layout.arena_elements(), 9);
  std::vector<std::string> hashes;
  const auto compare = [&](const char* when) {
    for (const void* compute_copy : {static_cast<const void*>(nullptr), static_cast<const void*>(copy.data())}) {
      hashes.push_back(fixture.state->HeldParameterHash(compute_copy).Hex());
      EXPECT_EQ(hashes.back(), fixture.state->ParameterHash(compute_copy).Hex()) << when;
    }
  };
  compare("loaded");
  fixture.state->Digest();
  fixture.state->WriteArray(0, std::vector<float>{8, 8, 8}.data());
  compare("written");
  fixture.state->Digest();
  fixture.Step({{{1, 0, -1}, {2, 2, 2, 2}}}, {.learning_rate = 0.5f, .valid_tokens = 2});
  compare("stepped");
  fixture.state->Skip();
  copy[1] = 3;
  compare("skipped");
  const std::vector<float> arena(fixture.layout.arena_elements(), 5);
  fixture.state->Start(arena.data());
  compare("started");
  std::sort(hashes.begin(), hashes.end());
  EXPECT_EQ(std::unique(hashes.begin(), hashes.end()) - hashes.begin(), 9);  // one was skipped: the same parameters
}

// A flipped bit is for ParameterHash to find: the held one is of what the step wrote.
TEST(HeldParameterHash, MemoryChangedAfterTheStep_Differs) {
  Fixture fixture(OptimizerConfig{});
  fixture.Step({{{1, 0, -1}, {2, 2, 2, 2}}}, {.learning_rate = 0.5f, .valid_tokens = 2});
  fixture.state->parameters()[1] += 1;
  EXPECT_NE(fixture.state->HeldParameterHash(nullptr).Hex(), fixture.state->ParameterHash(nullptr).Hex());
}

// ---- the division ----

// Two units of 1 and 3 valid tokens in one window: the gradient is the sum over the sum of tokens, not a mean
// of means (transformers #34191).
TEST(Step, UnitsOfUnequalTokens_WeighEachTokenAlike) {
  Fixture fixture(PlainSgd());
  fixture.Step({{{1, 0, 0}, {0, 0, 0, 0}}, {{6, 0, 0}, {3, 0, 0, 0}}},
               {.learning_rate = 1, .valid_tokens = 4});
  EXPECT_EQ(fixture.Values(0), (std::vector<float>{1 - 7.0f / 4, 2, 3}));
  EXPECT_EQ(fixture.Values(2), (std::vector<float>{4 - 3.0f / 4, 5, 6, 7}));
}

// The same two units on two workers (transformers #34242): the same bits as on one.
TEST(Step, WorkersOfUnequalTokens_GiveTheSameDigestAsOne) {
  const std::vector<Gradients> units = {{{1, 0.1f, 0}, {0, 0, 1e-3f, 0}}, {{6, 0, 0.3f}, {3, 0, 0.7f, 0}}};
  const StepInput input{.learning_rate = 1, .valid_tokens = 4, .next_exponents = {40, 40}};
  Fixture one(PlainSgd()), two(PlainSgd());
  const StepOutcome expected = one.Step(units, input);
  auto other = *Accumulator::Create(AccumulationMode::kExact, two.layout, two.backend);
  other->Reset({40, 40});
  AddValues(*two.accumulator, two.layout, 1, units[1]);
  AddValues(*other, two.layout, 0, units[0]);
  ReduceExact({two.accumulator.get(), other.get()}, two.layout);
  EXPECT_EQ(two.state->Step(*two.accumulator, input).digest, expected.digest);
}

TEST(Step, WithAMaskedOutUnit_IsTheStepWithoutIt) {
  const Gradients unit = {{1, 0.1f, 0}, {0, 0, 1e-3f, 0}}, masked = {{0, 0, 0}, {0, 0, 0, 0}};
  Fixture with(OptimizerConfig{}), without(OptimizerConfig{});
  const StepInput input{
      .learning_rate = 1e-3f, .bias_correction1 = 0.1f, .bias_correction2 = 0.05f, .valid_tokens = 9};
  EXPECT_EQ(with.Step({masked, unit}, input).digest, without.Step({unit}, input).digest);
}

// ---- norm and clip ----

TEST(Step, BeyondTheClipNorm_ScalesTheGradient) {
  OptimizerConfig config = PlainSgd();
  config.clip_norm = 1;
  Fixture fixture(config);
  const StepOutcome outcome =
      fixture.Step({{{6, 0, 0}, {0, 0, 0, 8}}}, {.learning_rate = 1, .valid_tokens = 2});
  EXPECT_EQ(outcome.gradient_norm, 5.0);
  EXPECT_EQ(outcome.clip_coefficient, 1 / (5 + 1e-6));
  const float scale = static_cast<float>(1 / (5 + 1e-6) / 2);
  EXPECT_EQ(fixture.Values(0)[0], 1 - 6 * scale);
  EXPECT_EQ(fixture.Values(2)[3], 7 - 8 * scale);
}

TEST(Step, WithinTheClipNormOrWithoutOne_KeepsTheGradient) {
  for (double clip : {0.0, 5.1}) {
    OptimizerConfig config = PlainSgd();
    config.clip_norm = clip;
    Fixture fixture(config);
    const StepOutcome outcome =
        fixture.Step({{{6, 0, 0}, {0, 0, 0, 8}}}, {.learning_rate = 1, .valid_tokens = 2});
    EXPECT_EQ(outcome.clip_coefficient, 1.0);
    EXPECT_EQ(fixture.Values(0)[0], -2.0f);
  }
}

// ---- the optimizers against binary64 ----

struct Reference {
  std::vector<double> p, m, v;
};

TEST(Step, TenWindowsOfAdamW_FollowABinary64Reference) {
  OptimizerConfig config{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1, .clip_norm = 0};
  Fixture fixture(config);
  Reference reference[2] = {{{1, 2, 3}, {0, 0, 0}, {0, 0, 0}}, {{4, 5, 6, 7}, {0, 0, 0, 0}, {0, 0, 0, 0}}};
  for (int window = 1; window <= 10; ++window) {
    const Gradients unit = {UnitGradient(fixture.layout, window, 0), UnitGradient(fixture.layout, window, 1)};
    const double c1 = 1 - std::pow(0.9, window), c2 = 1 - std::pow(0.95, window), rate = 1e-2;
    fixture.Step({unit}, {.learning_rate = static_cast<float>(rate),
                          .bias_correction1 = static_cast<float>(c1),
                          .bias_correction2 = static_cast<float>(c2),
                          .valid_tokens = 3});
    for (int t = 0; t < 2; ++t) {
      Reference& r = reference[t];
      const double decay = t == 1 ? 0.1 : 0;  // matrices only
      for (size_t i = 0; i < r.p.size(); ++i) {
        const double g = unit[t][i] / 3.0;
        r.m[i] = 0.9 * r.m[i] + 0.1 * g;
        r.v[i] = 0.95 * r.v[i] + 0.05 * g * g;
        r.p[i] -= rate * (r.m[i] / c1 / (std::sqrt(r.v[i] / c2) + 1e-8) + decay * r.p[i]);
      }
    }
  }
  for (int t = 0; t < 2; ++t) {
    const std::vector<double>* arrays[] = {&reference[t].p, &reference[t].m, &reference[t].v};
    for (int a = 0; a < 3; ++a) {
      const std::vector<float> values = fixture.Values(3 * t + a);
      for (size_t i = 0; i < values.size(); ++i) {
        EXPECT_NEAR(values[i], (*arrays[a])[i], 2e-6 * std::fabs((*arrays[a])[i]) + 3e-8) << t << a << i;
      }
    }
  }
  EXPECT_EQ(fixture.state->steps(), 10);
}

TEST(Step, TenWindowsOfSgd_FollowABinary64Reference) {
  OptimizerConfig config{.kind = OptimizerKind::kSgd, .weight_decay = 0.1, .momentum = 0.9, .clip_norm = 0};
  Fixture fixture(config);
  Reference reference[2] = {{{1, 2, 3}, {0, 0, 0}, {}}, {{4, 5, 6, 7}, {0, 0, 0, 0}, {}}};
  for (int window = 1; window <= 10; ++window) {
    const Gradients unit = {UnitGradient(fixture.layout, window, 0), UnitGradient(fixture.layout, window, 1)};
    fixture.Step({unit}, {.learning_rate = 0.05f, .valid_tokens = 3});
    for (int t = 0; t < 2; ++t) {
      Reference& r = reference[t];
      for (size_t i = 0; i < r.p.size(); ++i) {
        r.m[i] = 0.9 * r.m[i] + unit[t][i] / 3.0 + (t == 1 ? 0.1 : 0) * r.p[i];
        r.p[i] -= 0.05 * r.m[i];
      }
    }
  }
  for (int t = 0; t < 2; ++t) {
    const std::vector<float> p = fixture.Values(2 * t), m = fixture.Values(2 * t + 1);
    for (size_t i = 0; i < p.size(); ++i) {
      EXPECT_NEAR(p[i], reference[t].p[i], 2e-6 * (1 + std::fabs(reference[t].p[i])));
      EXPECT_NEAR(m[i], reference[t].m[i], 2e-6 * (1 + std::fabs(reference[t].m[i])));
    }
  }
}

// ---- windows ----

TEST(Skip, OfAWindow_KeepsMomentsExponentsAndSteps) {
  Fixture fixture(OptimizerConfig{});
  const Gradients unit = {{1, 2, 3}, {4, 5, 6, 7}};
  fixture.Step({unit}, {.learning_rate = 1e-3f, .valid_tokens = 2, .next_exponents = {38, 39}});
  std::vector<std::vector<float>> before;
  for (int array = 0; array < 6; ++array) before.push_back(fixture.Values(array));
  const StepOutcome outcome = fixture.state->Skip();
  for (int array = 0; array < 6; ++array) EXPECT_EQ(fixture.Values(array), before[array]);
  EXPECT_EQ(fixture.state->window(), 2);
  EXPECT_EQ(fixture.state->steps(), 1);
  EXPECT_EQ(fixture.state->exponents(), (std::vector<int>{38, 39}));
  EXPECT_EQ(outcome.digest, fixture.state->Digest());
  EXPECT_EQ(outcome.gradient_norm, 0);
}

ParameterLayout SmallLayout() {
  return *ParameterLayout::Build({{"embedding", {300, 70}}, {"bias", {33}}, {"weight", {64, 64}}});
}

// Two windows over a number of accumulators and threads.
std::string DigestOfRun(OptimizerKind kind, int members, int threads) {
  const ParameterLayout layout = SmallLayout();
  HostBackend backend(threads);
  auto state = *TrainingState::Create({.kind = kind}, AccumulationMode::kExact, layout, backend);
  std::vector<float> arena(layout.arena_elements(), 0.25f);
  state->Start(arena.data());
  state->SetExponents({45, 46, 47});
  std::vector<std::unique_ptr<Accumulator>> owned;
  std::vector<Accumulator*> accumulators;
  for (int m = 0; m < members; ++m) {
    owned.push_back(*Accumulator::Create(AccumulationMode::kExact, layout, backend));
    accumulators.push_back(owned.back().get());
  }
  for (int64_t window = 0; window < 2; ++window) {
    for (Accumulator* accumulator : accumulators) accumulator->Reset(state->exponents());
    for (int64_t unit = 0; unit < 6; ++unit) {
      AddUnit(*accumulators[SplitMix64(unit + members) % members], layout, window * 6 + unit);
    }
    ReduceExact(accumulators, layout);
    state->Step(*accumulators[0], {.learning_rate = 1e-3f,
                                   .bias_correction1 = 0.1f,
                                   .bias_correction2 = 0.05f,
                                   .valid_tokens = 600,
                                   .next_exponents = {44, 45, 46}});
  }
  EXPECT_EQ(state->Digest(), state->Digest());
  return state->Digest().Hex();
}

TEST(Digest, OverAccumulatorsAndThreads_IsTheSame) {
  for (OptimizerKind kind : {OptimizerKind::kAdamW, OptimizerKind::kSgd}) {
    const std::string expected = DigestOfRun(kind, 1, 1);
    for (int members : {1, 2, 3, 5}) {
      for (int threads : {1, 2, 3, 7, 64}) EXPECT_EQ(DigestOfRun(kind, members, threads), expected);
    }
  }
}

TEST(WriteArray, OfEveryArrayAndProgress_RestoresTheDigest) {
  Fixture fixture(OptimizerConfig{});
  const Gradients unit = {{1, 2, 3}, {4, 5, 6, 7}};
  const StepOutcome outcome =
      fixture.Step({unit}, {.learning_rate = 1e-3f, .valid_tokens = 2, .next_exponents = {38, 39}});
  Fixture other(OptimizerConfig{});
  ASSERT_EQ(fixture.state->arrays().size(), 6u);
  for (int array = 0; array < 6; ++array) other.state->WriteArray(array, fixture.Values(array).data());
  other.state->SetProgress(1, 1, {38, 39});
  EXPECT_EQ(other.state->Digest(), outcome.digest);
}

TEST(Arrays, OfAState_AreInDigestOrder) {
  Fixture fixture(OptimizerConfig{});
  std::string names;
  for (const StateArray& array : fixture.state->arrays()) {
    names += array.tensor + "|" + array.array + " ";
  }
  EXPECT_EQ(names, "bias|p bias|m bias|v weight|p weight|m weight|v ");
  EXPECT_EQ(fixture.state->arrays()[5].shape, (std::vector<int64_t>{2, 2}));
}

TEST(Create, WithoutMemory_SaysSo) {
  const ParameterLayout layout = TinyLayout();
  HostBackend backend;
  backend.allocations_left = 2;
  EXPECT_EQ(TrainingState::Create({}, AccumulationMode::kExact, layout, backend).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace accrue
