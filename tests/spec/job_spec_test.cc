// What follows from a spec: defaults, canonical form, differences, schedule; and that no text crashes the
// reader.
#include "common/spec/job_spec.h"

#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/spec/job_text.h"

namespace accrue {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kLeast[] =
    "name: a\nmodel: {architecture: llama, vocabulary: 64, context: 8, layers: 1, heads: 4, width: 96}\n"
    "data: {train: [a.bin]}\nbatch: {sequences: 6}\nwindows: 10\n";

v1::JobSpec Parsed(const std::string& text) {
  absl::StatusOr<v1::JobSpec> spec = ParseJobText(text, "job.yaml");
  EXPECT_TRUE(spec.ok()) << spec.status();
  return *spec;
}
v1::JobSpec WithDefaults(const std::string& text) {
  v1::JobSpec spec = Parsed(text);
  EXPECT_TRUE(FillDefaults(spec).ok());
  EXPECT_TRUE(ValidateSpec(spec).ok()) << ValidateSpec(spec);
  return spec;
}

TEST(FillDefaults, LeastJob_EveryDefaultAsDocumented) {
  EXPECT_EQ(
      CanonicalJson(WithDefaults(kLeast)),
      R"({"name":"a","model":{"architecture":"llama","vocabulary":64,"context":8,"layers":1,"heads":4,"kv_heads":4,)"
      R"("width":96,"hidden":256,"dropout":0,"tie_embeddings":false,"qkv_bias":false,"rope_theta":10000,)"
      R"("norm_epsilon":1e-05},"data":{"train":["a.bin"],"order":"shuffled"},"batch":{"sequences":6,"micro_batch":2,)"
      R"("sequence_length":8},"accumulation":{"mode":"exact"},"precision":"fp32","optimizer":{"name":"adamw",)"
      R"("learning_rate":0.001,"betas":[0.9,0.95],"epsilon":1e-08,"weight_decay":0.1,"batch_rule":"none",)"
      R"("base_sequences":6},"schedule":{"name":"cosine","warmup_windows":0,"minimum_ratio":0.1},"clip_norm":1,)"
      R"("windows":10,"evaluation":{"every_windows":0,"sequences":64},"checkpoint":{"every_windows":500,"keep":3},)"
      R"("workers":{"min":1,"max":3},"seed":0,"audit":{"fraction":0},"recompute":"none"})");
}

TEST(FillDefaults, Gpt2AndSgd_TheirOwnDefaults) {
  const v1::JobSpec spec = WithDefaults(
      absl::StrReplaceAll(kLeast, {{"llama", "gpt2"}, {"windows", "optimizer: {name: sgd}\nwindows"}}));
  EXPECT_EQ(spec.model().hidden(), 384);
  EXPECT_TRUE(spec.model().tie_embeddings());
  EXPECT_TRUE(spec.model().qkv_bias());
  EXPECT_FALSE(spec.model().has_rope_theta());
  EXPECT_EQ(spec.optimizer().momentum(), 0.9);
  EXPECT_EQ(spec.optimizer().weight_decay(), 0);
  EXPECT_THAT(spec.optimizer().betas(), IsEmpty());
}

TEST(FillDefaults, WrittenZeros_Kept) {
  const v1::JobSpec spec =
      WithDefaults(std::string(kLeast) + "clip_norm: 0\ncheckpoint: {every_windows: 0}\nseed: 0\n");
  EXPECT_EQ(spec.clip_norm(), 0);
  EXPECT_EQ(spec.checkpoint().every_windows(), 0);
}

TEST(FillDefaults, FromAlone_ShapeStaysUnknown) {
  const v1::JobSpec spec = WithDefaults(
      "name: a\nmodel: {from: weights}\ndata: {train: [a.bin]}\nbatch: {sequences: 6}\nwindows: 10\n");
  EXPECT_FALSE(spec.batch().has_sequence_length());
  EXPECT_FALSE(spec.model().has_hidden());
}

TEST(ValidateSpec, WithSource_PlacesErrorsFoundLater) {
  absl::StatusOr<ParsedJob> job = ParseJob(
      "name: a\nmodel:\n  from: weights\ndata: {train: [a.bin]}\nbatch: {sequences: 6, sequence_length: "
      "64}\nwindows: 10\n",
      "job.yaml");
  ASSERT_TRUE(job.ok()) << job.status();
  v1::JobSpec spec = job->spec;
  v1::ModelSpec& model = *spec.mutable_model();  // as its config.json says
  model.set_architecture("gpt2");
  model.set_vocabulary(64);
  model.set_context(32);
  model.set_layers(1);
  model.set_heads(5);
  model.set_width(96);
  ASSERT_TRUE(FillDefaults(spec).ok());
  EXPECT_EQ(ValidateSpec(spec, &job->source).message(),
            "job.yaml:2:1: model.heads: expected a divisor of model.width 96, found 5\n"
            "job.yaml:5:40: batch.sequence_length: expected at most model.context 32, found 64");
  EXPECT_EQ(ValidateSpec(spec).message(),
            "model.heads: expected a divisor of model.width 96, found 5\n"
            "batch.sequence_length: expected at most model.context 32, found 64");
}

TEST(ValidateSpec, Precision_OneOfFour) {
  v1::JobSpec spec = WithDefaults(kLeast);
  for (const std::string precision : {"fp32", "tf32", "bf16", "fp16"}) {
    spec.set_precision(precision);
    EXPECT_TRUE(ValidateSpec(spec).ok()) << precision;
  }
  spec.set_precision("float16");
  EXPECT_EQ(ValidateSpec(spec).message(),
            "precision: expected fp32, tf32, bf16 or fp16, found \"float16\"");
}

TEST(LossScale, Fp16_DefaultsAndBounds) {
  const auto spec_with = [](const std::string& more) { return absl::StrCat(kLeast, more); };
  EXPECT_FALSE(LossScaleOf(WithDefaults(kLeast)).has_value());
  EXPECT_FALSE(WithDefaults(kLeast).has_loss_scale());
  EXPECT_EQ(LossScaleOf(WithDefaults(spec_with("precision: fp16\n"))), (LossScaleConfig{10, 2000}));
  EXPECT_EQ(LossScaleOf(WithDefaults(spec_with("precision: fp16\nloss_scale: {initial: 1, growth_windows: 7}\n"))),
            (LossScaleConfig{0, 7}));
  EXPECT_EQ(LossScaleOf(WithDefaults(spec_with("precision: fp16\nloss_scale: {initial: 16777216}\n"))),
            (LossScaleConfig{24, 2000}));
  for (const char* initial : {"0", "-2", "3", "65535", "33554432"}) {
    const std::string text = spec_with(absl::StrCat("precision: fp16\nloss_scale: {initial: ", initial, "}\n"));
    EXPECT_EQ(ParseJobText(text, "job.yaml").status().message(),
              absl::StrCat("job.yaml:7:23: loss_scale.initial: expected a power of two from 1 to 16777216, found ", initial));
  }
  const std::string text = spec_with("precision: fp16\nloss_scale: {growth_windows: 0}\n");
  EXPECT_THAT(std::string(ParseJobText(text, "job.yaml").status().message()),
              HasSubstr("loss_scale.growth_windows: expected an integer from 1"));
}

TEST(SpecWarnings, Precision_WhatItNeeds) {
  EXPECT_THAT(SpecWarnings(WithDefaults(absl::StrCat(kLeast, "precision: tf32\n"))),
              ElementsAre(HasSubstr("workers on a CPU are refused")));
  EXPECT_THAT(SpecWarnings(WithDefaults(absl::StrCat(kLeast, "precision: bf16\nloss_scale: {initial: 8}\n"))),
              ElementsAre("loss_scale has no effect unless precision is fp16"));
}

TEST(SpecWarnings, WithoutEffect_Said) {
  EXPECT_THAT(SpecWarnings(WithDefaults(kJob)), IsEmpty());
  EXPECT_THAT(SpecWarnings(WithDefaults(absl::StrReplaceAll(
                  kJob, {{"name: adamw", "name: sgd"}, {"windows: 2000", "windows: 50"}}))),
              ElementsAre("optimizer.betas has no effect with sgd, which has optimizer.momentum",
                          "optimizer.epsilon has no effect with sgd",
                          "schedule.warmup_windows 100 is not over when the job's 50 windows are"));
}

TEST(CanonicalJson, ReadBack_Equal) {
  const v1::JobSpec spec = WithDefaults(kJob);
  const absl::StatusOr<v1::JobSpec> back = SpecFromJson(CanonicalJson(spec));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(CanonicalJson(*back), CanonicalJson(spec));
  EXPECT_EQ(SpecHash(*back), SpecHash(spec));
  EXPECT_EQ(SpecHash(spec).size(), 32u);
  EXPECT_EQ(SpecFromJson("{\"nmae\":1}").status().code(), absl::StatusCode::kDataLoss);
}

TEST(CanonicalJson, KeyOrderOfTheFile_DoesNotMatter) {
  const std::string other =
      "windows: 10\nbatch: {sequences: 6}\ndata: {train: [a.bin]}\n"
      "model: {width: 96, heads: 4, layers: 1, context: 8, vocabulary: 64, architecture: llama}\nname: a\n";
  EXPECT_EQ(SpecHash(Parsed(other)), SpecHash(Parsed(kLeast)));
}

TEST(SpecDifferences, ChangedFields_BeforeAndAfter) {
  const v1::JobSpec from = WithDefaults(kJob);
  const v1::JobSpec to = WithDefaults(absl::StrReplaceAll(kJob, {{"  sequences: 64 ", "  sequences: 128 "},
                                                                 {"train-*.bin", "part-*.bin"},
                                                                 {"windows: 2000", "epochs: 3"}}));
  EXPECT_THAT(SpecDifferences(from, to),
              ElementsAre("data.train: [\"data/headers/train-*.bin\"] -> [\"data/headers/part-*.bin\"]",
                          "batch.sequences: 64 -> 128", "optimizer.base_sequences: 64 -> 128",
                          "windows: 2000 -> not set", "epochs: not set -> 3"));
  EXPECT_THAT(SpecDifferences(from, from), IsEmpty());
}

TEST(ScheduleOf, BatchRule_ScalesThePeakRate) {
  const auto rate = [](const std::string& rule) {
    return ScheduleOf(WithDefaults(absl::StrReplaceAll(
                          kJob, {{"weight_decay: 0.1", "batch_rule: " + rule + ", base_sequences: 16"}})),
                      2000)
        .learning_rate;
  };
  EXPECT_EQ(rate("none"), 1e-3);
  EXPECT_EQ(rate("linear"), 4e-3);
  EXPECT_EQ(rate("sqrt"), 2e-3);
}

TEST(ScheduleOf, Wsd_DecayIsATenthUnlessWritten) {
  const v1::JobSpec spec = WithDefaults(absl::StrReplaceAll(kJob, {{"name: cosine", "name: wsd"}}));
  EXPECT_EQ(ScheduleOf(spec, 2000).kind, ScheduleKind::kWarmupStableDecay);
  EXPECT_EQ(ScheduleOf(spec, 2000).decay_windows, 200);
  EXPECT_EQ(ScheduleOf(spec, 3).decay_windows, 1);
  EXPECT_EQ(ScheduleOf(spec, 2000).warmup_windows, 100);
  EXPECT_EQ(ScheduleOf(spec, 2000).beta2, 0.95);
}

TEST(TotalWindows, Epochs_LastWindowIsWhole) {
  const v1::JobSpec spec = WithDefaults(absl::StrReplaceAll(kJob, {{"windows: 2000", "epochs: 3"}}));
  EXPECT_EQ(TotalWindows(spec, 640), 30);
  EXPECT_EQ(TotalWindows(spec, 641), 31);
  EXPECT_EQ(TotalWindows(spec, 1), 1);
  EXPECT_EQ(TotalWindows(WithDefaults(kJob), 1), 2000);
}

TEST(UnitCounts, FromBatchAndEvaluation) {
  const v1::JobSpec spec = WithDefaults(kJob);
  EXPECT_EQ(UnitsPerWindow(spec), 16);
  EXPECT_EQ(EvaluationUnits(spec), 16);
  EXPECT_EQ(TokensPerWindow(spec), 64 * 256);
  EXPECT_EQ(EvaluationUnits(WithDefaults(kLeast)), 0);
}

// Whatever the text, the reader answers: with a spec whose defaults and checks work too, or with
// INVALID_ARGUMENT.
void MustNotCrash(const std::string& text) {
  const absl::StatusOr<ParsedJob> parsed = ParseJob(text, "job.yaml");
  if (!parsed.ok()) {
    ASSERT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    ASSERT_FALSE(parsed.status().message().empty());
    return;
  }
  v1::JobSpec spec = parsed->spec;
  ASSERT_TRUE(FillDefaults(spec).ok()) << text;
  ASSERT_TRUE(ValidateSpec(spec).ok()) << text;
}

TEST(ParseJob, Truncated_NeverCrashes) {
  const std::string text = kJob;
  for (size_t length = 0; length < text.size(); ++length) MustNotCrash(text.substr(0, length));
}

TEST(ParseJob, Mutated_NeverCrashes) {
  const std::string alphabet = "\n\t :[]{},-?!&*#|>'\"%@`0129.eE+~abc\\\xc3\xa9<=";
  const std::string original = kJob;
  std::mt19937 random(7);
  for (int round = 0; round < 4000; ++round) {
    std::string text = original;
    const int edits = 1 + static_cast<int>(random() % 6);
    for (int i = 0; i < edits; ++i) {
      const size_t at = random() % text.size();
      const char c = alphabet[random() % alphabet.size()];
      switch (random() % 4) {
        case 0:
          text[at] = c;
          break;
        case 1:
          text.insert(at, 1 + random() % 3, c);
          break;
        case 2:
          text.erase(at, 1 + random() % 8);
          break;
        default:
          text.insert(at, original.substr(random() % original.size(), random() % 30));
          break;
      }
    }
    MustNotCrash(text);
  }
}

TEST(ParseJob, Noise_NeverCrashes) {
  const std::string alphabet = "\n  :[]{},-?!&*#|>'\"%ab1";
  std::mt19937 random(11);
  for (int round = 0; round < 4000; ++round) {
    std::string text;
    for (size_t i = 0, size = random() % 60; i < size; ++i) text += alphabet[random() % alphabet.size()];
    MustNotCrash(text);
  }
}

}  // namespace
}  // namespace accrue
