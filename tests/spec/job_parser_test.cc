// The reader of job files: what it accepts, and the exact words and places of what it refuses.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/spec/job_spec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/spec/job_text.h"

namespace accrue {
namespace {

using ::testing::HasSubstr;

// The message for kJob with `from` replaced by `to`.
std::string ErrorOf(absl::string_view from, absl::string_view to) {
  const std::string text = absl::StrReplaceAll(kJob, {{from, to}});
  EXPECT_NE(text, kJob) << "the job has no " << from;
  const absl::StatusOr<ParsedJob> parsed = ParseJob(text, "job.yaml");
  if (parsed.ok()) return "accepted";
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(parsed.status().message());
}

TEST(ParseJob, IssueExample_Accepted) {
  const absl::StatusOr<ParsedJob> parsed = ParseJob(kJob, "job.yaml");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const v1::JobSpec& spec = parsed->spec;
  EXPECT_EQ(spec.name(), "headers");
  EXPECT_EQ(spec.model().kv_heads(), 8);
  EXPECT_EQ(spec.data().train(0), "data/headers/train-*.bin");
  EXPECT_EQ(spec.optimizer().betas(1), 0.95);
  EXPECT_EQ(spec.optimizer().epsilon(), 1e-8);
  EXPECT_FALSE(spec.has_epochs());
  EXPECT_EQ(spec.seed(), 1234u);
  EXPECT_EQ(parsed->source.marks.at("batch.micro_batch").line, 17);
  EXPECT_EQ(parsed->source.marks.at("batch.micro_batch").column, 16);
}

TEST(ParseJob, OnlyRequiredFields_Accepted) {
  const absl::StatusOr<v1::JobSpec> spec = ParseJobText(
      "name: a\nmodel: {architecture: llama, vocabulary: 64, context: 8, layers: 1, heads: 2, width: 8}\n"
      "data: {train: [a.bin]}\nbatch: {sequences: 6}\nepochs: 0.5\n",
      "job.yaml");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->epochs(), 0.5);
}

TEST(ParseJob, Misspelled_NearestNameIsOffered) {
  EXPECT_EQ(ErrorOf("clip_norm:", "clip_nrom:"),
            "job.yaml:23:1: unknown field \"clip_nrom\" (did you mean \"clip_norm\"?)");
  EXPECT_EQ(
      ErrorOf("gpt2  ", "gtp2  "),
      "job.yaml:3:17: model.architecture: expected gpt2 or llama, found \"gtp2\" (did you mean \"gpt2\"?)");
  EXPECT_EQ(ErrorOf("seed: 1234", "learning_rate: 1234"),
            "job.yaml:28:1: unknown field \"learning_rate\": it belongs at optimizer.learning_rate");
  EXPECT_EQ(ErrorOf("seed: 1234", "Seed: 1234"), "job.yaml:28:1: unknown field \"Seed\" (did you mean \"seed\"?)");
}

TEST(ParseJob, OtherToolsNames_SaidWhatToWrite) {
  const auto hint = [](absl::string_view name) { return ErrorOf("seed: 1234", absl::StrCat(name, ": 8")); };
  EXPECT_EQ(hint("gradient_accumulation_steps"),
            "job.yaml:28:1: unknown field \"gradient_accumulation_steps\": write batch.sequences, the "
            "effective batch, instead: "
            "each worker's accumulation steps follow from it and from the worker's speed");
  EXPECT_THAT(hint("global_batch_size"), HasSubstr("write batch.sequences"));
  EXPECT_THAT(hint("train_batch_size"), HasSubstr("write batch.sequences"));
  EXPECT_THAT(hint("per_device_train_batch_size"), HasSubstr("write batch.micro_batch"));
  EXPECT_THAT(hint("hidden_size"), HasSubstr("write model.width"));
  EXPECT_THAT(hint("n_embd"), HasSubstr("write model.width"));
  EXPECT_THAT(hint("n_layer"), HasSubstr("write model.layers"));
  EXPECT_THAT(hint("num_hidden_layers"), HasSubstr("write model.layers"));
  EXPECT_THAT(hint("n_head"), HasSubstr("write model.heads"));
  EXPECT_THAT(hint("max_steps"), HasSubstr("write windows"));
  EXPECT_THAT(hint("num_train_epochs"), HasSubstr("write epochs"));
  EXPECT_THAT(hint("lr"), HasSubstr("write optimizer.learning_rate"));
  EXPECT_THAT(hint("lr_scheduler_type"), HasSubstr("write schedule.name"));
  EXPECT_THAT(hint("max_grad_norm"), HasSubstr("write clip_norm"));
  EXPECT_THAT(hint("warmup_steps"), HasSubstr("write schedule.warmup_windows"));
  EXPECT_THAT(hint("bf16"), HasSubstr("write precision: bf16"));
  EXPECT_THAT(hint("FP16"), HasSubstr("write precision: fp16"));
  EXPECT_THAT(hint("growth_interval"), HasSubstr("write loss_scale.growth_windows"));
  EXPECT_THAT(hint("seq_length"), HasSubstr("write batch.sequence_length"));
  EXPECT_THAT(hint("block_size"), HasSubstr("write batch.sequence_length"));
}

TEST(ParseJob, Duplicate_BothLinesNamed) {
  EXPECT_EQ(ErrorOf("seed: 1234", "name: again"),
            "job.yaml:28:1: duplicate field \"name\": it is already written in line 1");
  EXPECT_EQ(ErrorOf("{min: 1, max: 8}", "{min: 1, min: 8}"),
            "job.yaml:27:19: duplicate field \"min\": it is already written in line 27");
}

TEST(ParseJob, WrongType_ExpectedAndFound) {
  EXPECT_EQ(
      ErrorOf("layers: 6", "layers: \"6\""),
      "job.yaml:6:11: model.layers: expected an integer, found the quoted text \"6\": remove the quotes");
  EXPECT_EQ(ErrorOf("layers: 6", "layers: six"),
            "job.yaml:6:11: model.layers: expected an integer, found \"six\"");
  EXPECT_EQ(ErrorOf("layers: 6", "layers: 6.5"),
            "job.yaml:6:11: model.layers: expected an integer, found the number 6.5");
  EXPECT_EQ(ErrorOf("layers: 6", "layers: [6]"),
            "job.yaml:6:11: model.layers: expected an integer, found a list");
  EXPECT_EQ(ErrorOf("layers: 6", "layers:"),
            "job.yaml:6:3: model.layers has no value: write one, or leave the field out");
  EXPECT_EQ(ErrorOf("windows: 2000", "windows: 2e3"),
            "job.yaml:24:10: windows: expected an integer, found the number 2e3: write 2000");
  EXPECT_EQ(ErrorOf("windows: 2000", "windows: 99999999999999999999"),
            "job.yaml:24:10: windows: expected an integer, found the number 99999999999999999999, which does "
            "not fit 64 bits");
  EXPECT_EQ(ErrorOf("windows: 2000", "windows: 0100"),
            "job.yaml:24:10: windows: expected an integer, found the number 0100, which some YAML readers "
            "take as octal: "
            "write it without leading zeros");
  EXPECT_EQ(ErrorOf("seed: 1234", "seed: -4"),
            "job.yaml:28:7: seed: expected an integer that is not negative, found the number -4");
  EXPECT_EQ(ErrorOf("seed: 1234", "audit: 0.01"),
            "job.yaml:28:8: audit: expected a mapping such as {fraction: ...}, found the number 0.01");
  EXPECT_EQ(ErrorOf("seed: 1234", "audit_fraction: 0.01"),
            "job.yaml:28:1: unknown field \"audit_fraction\": write audit: {fraction: 0.01}, the share of units "
            "that two workers compute");
  EXPECT_EQ(
      ErrorOf("seed: 1234", "gradient_checkpointing: true"),
      "job.yaml:28:1: unknown field \"gradient_checkpointing\": write recompute: norms, attention or block, "
      "each of which computes more again in the backward pass and keeps less");
  EXPECT_EQ(ErrorOf("{mode: exact}", "exact"),
            "job.yaml:19:15: accumulation: expected a mapping such as {mode: ...}, found \"exact\"");
  EXPECT_EQ(ErrorOf("[\"data/headers/train-*.bin\"]", "data/a.bin"),
            "job.yaml:12:10: data.train: expected a list such as [data/a.bin], found \"data/a.bin\"");
  EXPECT_EQ(ErrorOf("seed: 1234", "model: 5"),
            "job.yaml:28:1: duplicate field \"model\": it is already written in line 2");
  EXPECT_EQ(ErrorOf("clip_norm: 1.0", "clip_norm: .nan"),
            "job.yaml:23:12: clip_norm: expected a finite number, found \".nan\"");
  EXPECT_EQ(
      ErrorOf("clip_norm: 1.0", "clip_norm: 1e999"),
      "job.yaml:23:12: clip_norm: expected a number that fits 64-bit floating point, found the number 1e999");
  EXPECT_EQ(ErrorOf("kv_heads: 8 ", "tie_embeddings: yes "),
            "job.yaml:8:19: model.tie_embeddings: expected true or false, found \"yes\"");
}

TEST(ParseJob, Missing_NamedWithWhatToWrite) {
  EXPECT_EQ(ErrorOf("name: headers\n", ""),
            "job.yaml:1:1: missing required field \"name\": the job's name, such as name: headers");
  EXPECT_EQ(ErrorOf("windows: 2000", ""),
            "job.yaml:1:1: missing required field \"windows\" (or \"epochs\"): how long to train, in "
            "optimizer steps");
  EXPECT_EQ(ErrorOf("  train: [\"data/headers/train-*.bin\"]\n", ""),
            "job.yaml:11:1: missing required field \"data.train\": a list of token shards, such as "
            "[\"data/train-*.bin\"]");
  EXPECT_EQ(ErrorOf("  width: 256\n", ""),
            "job.yaml:2:1: missing required field \"model.width\": an integer from 1 on");
  EXPECT_EQ(ErrorOf("  sequences: 64 ", "  micro_batch: 4\n  # "),
            "job.yaml:15:1: missing required field \"batch.sequences\": the effective batch, the sequences "
            "of a window\n"
            "job.yaml:18:3: duplicate field \"micro_batch\": it is already written in line 16");
}

TEST(ParseJob, Impossible_PlacedAtTheField) {
  EXPECT_EQ(ErrorOf("micro_batch: 4", "micro_batch: 5"),
            "job.yaml:16:14: batch.sequences: expected a multiple of batch.micro_batch 5 (a window is made "
            "of whole units), "
            "found 64; 60 and 65 are near\n"
            "job.yaml:25:45: evaluation.sequences: expected a multiple of batch.micro_batch 5 (an evaluation "
            "is made of whole "
            "units), found 64; 60 and 65 are near");
  EXPECT_EQ(ErrorOf("micro_batch: 4", "micro_batch: 0"),
            "job.yaml:17:16: batch.micro_batch: expected an integer from 1 to 65536, found 0");
  EXPECT_EQ(ErrorOf("heads: 8\n", "heads: 7\n"),
            "job.yaml:7:10: model.heads: expected a divisor of model.width 256, found 7");
  EXPECT_EQ(ErrorOf("kv_heads: 8", "kv_heads: 3"),
            "job.yaml:8:13: model.kv_heads: expected a divisor of model.heads 8, found 3");
  EXPECT_EQ(ErrorOf("kv_heads: 8", "kv_heads: 4"),
            "job.yaml:8:13: model.kv_heads: gpt2 has as many as model.heads, 8, found 4: leave it out, or "
            "write architecture: "
            "llama");
  EXPECT_EQ(ErrorOf("sequence_length: 256", "sequence_length: 257"),
            "job.yaml:18:20: batch.sequence_length: expected at most model.context 256, found 257");
  EXPECT_EQ(ErrorOf("seed: 1234", "epochs: 3"),
            "job.yaml:28:9: both windows and epochs are written: keep one, the other follows from it");
  EXPECT_EQ(ErrorOf("{min: 1, max: 8}", "{min: 9, max: 8}"),
            "job.yaml:27:16: workers.min: expected at most workers.max 8, found 9");
  EXPECT_EQ(ErrorOf("seed: 1234", "audit: {fraction: 1.01}"),
            "job.yaml:28:19: audit.fraction: expected a number from 0 to 1, found 1.01");
  EXPECT_EQ(ErrorOf("seed: 1234", "audit: {fraction: -0.5}"),
            "job.yaml:28:19: audit.fraction: expected a number from 0 to 1, found -0.5");
  EXPECT_EQ(ErrorOf("accumulation: {mode: exact}", "audit: {fraction: 0.01}\naccumulation: {mode: fast}"),
            "job.yaml:19:19: audit.fraction: expected 0 with accumulation.mode fast (only exact units have "
            "checksums to compare), found 0.01: write accumulation: {mode: exact}, or leave audit out");
  EXPECT_EQ(ErrorOf("accumulation: {mode: exact}", "audit: {fraction: 0}\naccumulation: {mode: fast}"), "accepted");
  EXPECT_EQ(ErrorOf("seed: 1234", "audit: {fraction: 1}"), "accepted");
  EXPECT_EQ(ErrorOf("seed: 1234", "recompute: blocks"),
            "job.yaml:28:12: recompute: expected none, norms, attention or block, found \"blocks\" (did you mean "
            "\"block\"?)");
  EXPECT_EQ(ErrorOf("seed: 1234", "recompute: attention"), "accepted");
  EXPECT_EQ(ErrorOf("learning_rate: 1.0e-3", "learning_rate: -1.0e-3"),
            "job.yaml:21:41: optimizer.learning_rate: expected a number above 0, found -0.001");
  EXPECT_EQ(ErrorOf("[0.9, 0.95]", "[0.9, 1]"),
            "job.yaml:21:62: optimizer.betas[1]: expected a number from 0 to below 1, found 1");
  EXPECT_EQ(ErrorOf("[0.9, 0.95]", "[0.9]"),
            "job.yaml:21:56: optimizer.betas: expected two numbers such as [0.9, 0.95], found 1");
  EXPECT_EQ(ErrorOf("windows: 2000", "windows: 0"),
            "job.yaml:24:10: windows: expected an integer from 1 to 1000000000, found 0");
  EXPECT_EQ(ErrorOf("name: headers", "name: ../up"),
            "job.yaml:1:7: name: expected at most 64 letters, digits, \"-\", \"_\" and \".\", a letter or "
            "digit first (it becomes "
            "a folder's name), found \"../up\"");
  EXPECT_THAT(ErrorOf("  architecture: gpt2 ", "  from: weights\n  architecture: gpt2 "),
              HasSubstr("job.yaml:4:17: model.architecture is written beside model.from, whose config.json "
                        "decides it: remove one\n"));
}

TEST(ParseJob, ManyErrors_AllReportedInOrder) {
  const absl::StatusOr<ParsedJob> parsed = ParseJob("nmae: a\nbatch: 3\nwindows: x\nseed: [1]\n", "j.yaml");
  EXPECT_EQ(parsed.status().message(),
            "j.yaml:1:1: unknown field \"nmae\" (did you mean \"name\"?)\n"
            "j.yaml:1:1: missing required field \"name\": the job's name, such as name: headers\n"
            "j.yaml:1:1: missing required field \"model\": write its shape, or from: a Hugging Face folder\n"
            "j.yaml:1:1: missing required field \"data.train\": a list of token shards, such as "
            "[\"data/train-*.bin\"]\n"
            "j.yaml:2:8: batch: expected a mapping such as {sequences: ...}, found the number 3\n"
            "j.yaml:3:10: windows: expected an integer, found \"x\"\n"
            "j.yaml:4:7: seed: expected an integer that is not negative, found a list");
}

TEST(ParseJob, NotYaml_PlaceOfTheFault) {
  EXPECT_EQ(ParseJob("", "j").status().message(),
            "j:1:1: the file is empty; a job file begins with name: and the sections of docs/job_file.md");
  EXPECT_EQ(ParseJob("just text", "j").status().message(),
            "j:1:1: expected a mapping of fields such as name: headers, found \"just text\"");
  EXPECT_THAT(std::string(ParseJob("name: [a\nseed: 1", "j").status().message()),
              HasSubstr("not valid YAML"));
  EXPECT_EQ(ParseJob("name: a\nmodel:\n\tarchitecture: gpt2\n", "j").status().message(),
            "j:3:1: not valid YAML: a tab cannot indent, write spaces");
  EXPECT_EQ(ParseJob("name: a\n---\nname: b\n", "j").status().message(),
            "j:1:1: expected one YAML document, found another after \"---\": write one job a file");
  EXPECT_EQ(ParseJob(std::string("name: a\nseed: \0", 15), "j").status().message(),
            "j:2:7: expected text, found the control character 0x00");
  EXPECT_EQ(ParseJob("name: a\xff", "j").status().message(),
            "j:1:8: expected UTF-8 text, found a byte that is none");
}

TEST(ParseJob, HostileYaml_Bounded) {
  EXPECT_EQ(ParseJob("a: &a [x, x]\nb: [*a, *a]\n", "j").status().message(),
            "j:1:4: YAML anchors (&name) are not accepted in a job file: write the value out");
  EXPECT_THAT(std::string(ParseJob("a: !!python/object x\n", "j").status().message()),
              HasSubstr("j:1:4: YAML tags are not accepted"));
  EXPECT_THAT(std::string(ParseJob(std::string(40, '['), "j").status().message()),
              HasSubstr("nested deeper than 32 levels"));
  EXPECT_FALSE(ParseJob(std::string(100000, '['), "j").ok());
  EXPECT_FALSE(ParseJob(std::string(100000, '{'), "j").ok());
  EXPECT_THAT(
      std::string(ParseJob(absl::StrCat("a: [", absl::StrJoin(std::vector<int>(70000, 1), ","), "]"), "j")
                      .status()
                      .message()),
      HasSubstr("more than 65536 values"));
  EXPECT_THAT(std::string(ParseJob(std::string(2 << 20, 'a'), "j").status().message()),
              HasSubstr("at most 1048576"));
  std::string many;
  for (int i = 0; i < 500; ++i) absl::StrAppend(&many, "zzz", i, "qq: 1\n");
  EXPECT_THAT(std::string(ParseJob(many, "j").status().message()), HasSubstr("... and 455 more"));
}

}  // namespace
}  // namespace accrue
