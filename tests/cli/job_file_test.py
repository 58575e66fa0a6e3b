"""Job files that are wrong: line and column, what was expected, the nearest name; and nothing is left behind."""
import json
import os

import harness
from harness import CliTest

JOB = """name: tiny
model:
  architecture: gpt2
  vocabulary: 97
  context: 32
  layers: 2
  heads: 4
  width: 32
data:
  train: ["train.bin"]
batch:
  sequences: 8
  micro_batch: 2
  sequence_length: 16
optimizer: {name: adamw, learning_rate: 1.0e-2}
windows: 2
"""

# What is replaced by what; the place that the error names; what it says.
MISTAKES = (
    ("windows: 2", "windws: 2", "16:1", ("windws", "windows")),
    ("windows: 2", "clip_nrom: 1\nwindows: 2", "16:1", ("clip_nrom", 'did you mean "clip_norm"')),
    ("  heads: 4", "  head: 4", "7:3", ("head", 'did you mean "heads"')),
    ("  width: 32", "  hidden_size: 32", "8:3", ("hidden_size", "width")),
    ("windows: 2", "max_steps: 2", "16:1", ("max_steps", "windows")),
    ("windows: 2", "windows: 2\ngradient_accumulation_steps: 4", "17:1", ("gradient_accumulation_steps", "batch.")),
    ("  sequences: 8", "  sequences: 8\n  global_batch_size: 8", "13:3", ("global_batch_size", "batch.sequences")),
    ("name: tiny\n", "", "1:1", ("name", "required")),
    ("  train: [\"train.bin\"]", "  order: shuffled", "9:1", ("data.train", "required")),
    ("  sequences: 8\n", "", "11:1", ("batch.sequences", "required")),
    ("windows: 2\n", "", "1:1", ("windows", "epochs")),
    ("windows: 2", "windows: 2\nepochs: 1", "17:9", ("windows", "epochs")),
    ("  layers: 2", "  layers: 2\n  layers: 3", "7:3", ("duplicate", "layers", "line 6")),
    ("  layers: 2", "  layers: two", "6:11", ("model.layers", "integer", "two")),
    ("  layers: 2", "  layers: \"2\"", "6:11", ("model.layers", "integer", "text")),
    ("  layers: 2", "  layers: 2.5", "6:11", ("model.layers", "integer", "2.5")),
    ("  layers: 2", "  layers: 0", "6:11", ("model.layers", "from 1 to", "found 0")),
    ("  layers: 2", "  layers: 99999999999999999999", "6:11", ("model.layers",)),
    ("  layers: 2", "  layers:", "6:3", ("model.layers",)),
    ("  heads: 4", "  heads: 5", "7:10", ("model.heads", "32", "5")),
    ("  micro_batch: 2", "  micro_batch: 3", "12:14", ("batch.sequences", "micro_batch 3", "found 8")),
    ("  sequence_length: 16", "  sequence_length: 64", "14:20", ("sequence_length", "64", "context", "32")),
    ("  architecture: gpt2", "  architecture: gtp2", "3:17", ("gtp2", "gpt2")),
    ("  architecture: gpt2", "  architecture: mamba", "3:17", ("mamba", "gpt2", "llama")),
    ("1.0e-2", "-1", "15:41", ("learning_rate", "-1")),
    ("1.0e-2", ".nan", "15:41", ("learning_rate",)),
    ("name: tiny", "name: ../tiny", "1:7", ("name", "../tiny")),
    ("windows: 2", "precision: fp8\nwindows: 2", "16:12", ("precision", "fp8", "bf16")),
    ("windows: 2", "precision: fp16\nloss_scale: {initial: 3}\nwindows: 2", "17:23", ("loss_scale.initial", "power of two", "3")),
    ("windows: 2", "schedule: {name: cosin}\nwindows: 2", "16:18", ("cosin", "cosine")),
    ("windows: 2", "schedule: {warmup_windows: -1}\nwindows: 2", "16:28", ("warmup_windows", "-1")),
    ("windows: 2", "workers: {min: 3, max: 2}\nwindows: 2", "16:", ("workers.m", "3", "2")),
    ("windows: 2", "checkpoint: {keep: 0}\nwindows: 2", "16:20", ("checkpoint.keep", "0")),
    ("windows: 2", "windows: [2]", "16:10", ("windows", "list")),
    ("windows: 2", "windows: 2\nmodel: [", "18:", ()),
    ("windows: 2", "windows: &a 2", "16:10", ("anchor",)),
)


class JobFileTest(CliTest):

    def setUp(self):
        super().setUp()
        harness.write_shard(self.path("train.bin"), harness.tokens_of(1000))

    def test_every_mistake_is_placed_and_explained(self):
        for old, new, place, parts in MISTAKES:
            with self.subTest(new=new):
                self.assertIn(old, JOB)
                job = self.write("job.yaml", JOB.replace(old, new, 1))
                outcome = self.accrue("validate", job, code=harness.INVALID_SPEC)
                self.assertEqual(outcome.out, "")
                self.assert_says(outcome.err, f"{job}:{place}", *parts)

    def test_run_and_submit_say_the_same_and_leave_nothing(self):
        job = self.write("job.yaml", JOB.replace("windows", "windws"))
        validated = self.accrue("validate", job, code=harness.INVALID_SPEC).err
        for command in (("run", job, "--output", self.path("out")), ("submit", job)):
            self.assertEqual(self.accrue(*command, code=harness.INVALID_SPEC).err, validated)
        self.assertFalse(os.path.exists(self.path("out")))

    def test_all_mistakes_at_once(self):
        text = JOB.replace("heads: 4", "heads: 5").replace("windows: 2", "windows: -2\nsede: 3")
        outcome = self.accrue("validate", self.write("job.yaml", text), code=harness.INVALID_SPEC)
        self.assert_says(outcome.err, "job.yaml:7:", "job.yaml:16:", "job.yaml:17:")

    def test_validate_prints_every_default(self):
        job = self.write("job.yaml", JOB)
        self.assert_says(self.accrue("validate", job).out, "is valid", "precision: \"fp32\"", "keep: 3",
                         "4 units", "128 tokens")
        result = json.loads(self.accrue("validate", job, "-o", "json").out)
        self.assertEqual((result["valid"], result["units_per_window"], result["tokens_per_window"]), (True, 4, 128))
        self.assertEqual(result["spec"]["accumulation"]["mode"], "exact")
        broken = self.write("broken.yaml", JOB.replace("windows", "windws"))
        outcome = self.accrue("validate", broken, "-o", "json", code=harness.INVALID_SPEC)
        self.assertEqual(json.loads(outcome.out)["valid"], False)

    def test_field_without_effect_is_a_warning(self):
        job = self.write("job.yaml", JOB + "evaluation: {every_windows: 2}\n")
        self.assert_says(self.accrue("validate", job).err, "warning: evaluation has no effect without data.validation")

    def test_file_that_is_not_there(self):
        for command in ("validate", "run", "submit"):
            outcome = self.accrue(command, self.path("none.yaml"), code=harness.NOT_FOUND)
            self.assert_says(outcome.err, self.path("none.yaml"))

    def test_files_that_are_no_job(self):
        for content in ("", "\x00\x01", "[]", "just text", "---\nname: a\n---\nname: b\n", "a: " * 100,
                        "#" * (2 << 20), "[" * 5000):
            with self.subTest(content=content[:20]):
                self.accrue("validate", self.write("job.yaml", content), code=harness.INVALID_SPEC)
        self.accrue("validate", self.folder, code=harness.INVALID_SPEC)


if __name__ == "__main__":
    harness.main()
