"""accrue run: what it prints and leaves behind, and that the result does not depend on workers or threads."""
import json
import math
import os

import harness
from harness import CliTest, write_shard, tokens_of

RESULT_FIELDS = ("state", "window", "loss", "validation_loss", "tokens_per_second", "digest")
WINDOW_FIELDS = ("window", "loss", "gradient_norm", "learning_rate", "tokens", "digest")


class RunTest(CliTest):

    def test_job_larger_than_the_machine_ends_before_it_is_loaded(self):
        # 2^20 tokens a unit, at 800 KB of activations for each.
        job = self.write_job(tokens=1_200_000, batch={"sequences": 65536, "micro_batch": 65536}, windows=1,
                             model={"layers": 24, "width": 512}, evaluation={"sequences": 65536})
        outcome = self.accrue("run", job, "--output", self.path("out"), code=harness.JOB_FAILED)
        self.assert_says(outcome.out, "the job takes ", ": available is ", "it would fit with ", "batch.micro_batch: ")
        self.assertFalse(os.path.exists(self.path("out", "windows.jsonl")) and self.read("out", "windows.jsonl"))

    def test_json_result_and_files(self):
        write_shard(self.path("validation.bin"), tokens_of(700, seed=5))
        job = self.write_job(data={"validation": ["validation.bin"]}, evaluation={"every_windows": 4, "sequences": 8},
                             checkpoint={"every_windows": 3, "keep": 2})
        outcome = self.run_job(job, workers=2)
        result = outcome.result
        for field in RESULT_FIELDS:
            self.assertIn(field, result)
        self.assertEqual(len(outcome.out.splitlines()), 1, "nothing but the result on standard output")
        self.assertEqual((result["state"], result["window"], result["reproducible"]), ("succeeded", 6, True))
        self.assertTrue(0 < result["validation_loss"] < math.log(harness.VOCABULARY) + 1)
        self.assertGreater(result["tokens_per_second"], 0)

        windows = self.windows()
        self.assertEqual([line["window"] for line in windows], list(range(6)))
        for line in windows:
            for field in WINDOW_FIELDS:
                self.assertIn(field, line)
            self.assertEqual(line["tokens"], 8 * harness.SEQUENCE_LENGTH)
        self.assertEqual((windows[-1]["loss"], windows[-1]["digest"]), (result["loss"], result["digest"]))
        self.assertAlmostEqual(windows[0]["loss"], math.log(harness.VOCABULARY), delta=0.3)
        self.assertLess(windows[-1]["loss"], windows[0]["loss"])
        # Warmup of two windows: rate * (w + 1) / 2.
        self.assertEqual([line["learning_rate"] for line in windows[:2]], [0.005, 0.01])
        self.assertAlmostEqual(windows[-1]["learning_rate"], 0.001)  # minimum_ratio of the peak
        self.assertEqual(self.checkpoints(), [3, 6])

    def test_same_digest_for_any_workers_and_threads(self):
        job = self.write_job(windows=4, batch={"sequences": 10, "micro_batch": 1})
        digests = {}
        for workers, threads in ((1, 1), (2, 2), (3, 7), (5, 1)):
            output = f"out-{workers}-{threads}"
            self.run_job(job, output=output, workers=workers, threads=threads)
            digests[(workers, threads)] = [line["digest"] for line in self.windows(output)]
        for shape, found in digests.items():
            self.assertEqual(found, digests[(1, 1)], shape)
        self.assertEqual(len(set(digests[(1, 1)])), 4)

    def test_no_validation_is_null(self):
        result = self.run_job(self.write_job(windows=1)).result
        self.assertIsNone(result["validation_loss"])
        self.assertEqual(result["window"], 1)

    def test_plain_output_is_lines(self):
        job = self.write_job(windows=2)
        outcome = self.accrue("run", job, "--output", self.path("out"))
        self.assert_says(outcome.out, "window 1/2", "window 2/2", "succeeded", "digest ")
        self.assertNotIn("\x1b", outcome.out + outcome.err)

    def test_default_output_is_runs_and_the_name(self):
        self.accrue("run", self.write_job(windows=1))
        self.assertTrue(os.path.exists(self.path("runs", "tiny", "windows.jsonl")))

    def test_paths_are_relative_to_the_job_file(self):
        os.makedirs(self.path("elsewhere", "data"))
        write_shard(self.path("elsewhere", "data", "train-1.bin"), tokens_of(1000))
        self.write("elsewhere/job.yaml", harness.job_text(windows=1, data={"train": ["data/train-*.bin"]}))
        self.run_job(os.path.join("elsewhere", "job.yaml"))

    def test_output_that_cannot_be_made(self):
        self.write("file", "x")
        outcome = self.accrue("run", self.write_job(), "--output", self.path("file"), code=harness.ERROR)
        self.assert_says(outcome.err, self.path("file"))

    def test_second_run_in_the_same_folder_is_refused(self):
        job = self.write_job(windows=100000)
        first = self.start("accrue", "run", job, "--output", self.path("out"))
        first.wait_for_line("window 1/")
        outcome = self.run_job(job, code=harness.REFUSED)
        self.assert_says(outcome.err, "another accrue run is at work in", self.path("out"))

    def test_usage(self):
        job = self.write_job()
        for arguments in ((), ("run",), ("run", job, "--workers", "0"), ("run", job, "--workers", "many"),
                          ("run", job, "--treads", "1"), ("run", job, "--fresh", "--resume-from", "1"),
                          ("run", job, "-o", "xml"), ("wacth", "x"), ("submit",), ("checkpoint",)):
            with self.subTest(arguments=arguments):
                outcome = self.accrue(*arguments, code=harness.USAGE)
                self.assertEqual(outcome.out, "")
                self.assertNotEqual(outcome.err, "")
        self.assert_says(self.accrue("wacth", code=harness.USAGE).err, 'did you mean "watch"')

    def test_version(self):
        self.assert_says(self.accrue("version").out, "accrue ")
        self.assertIn("version", json.loads(self.accrue("version", "-o", "json").out))
        for name in ("accrued", "accrue-worker"):
            outcome = self.start(name, "--version").wait()
            self.assertEqual(outcome.code, 0, outcome)


if __name__ == "__main__":
    harness.main()
