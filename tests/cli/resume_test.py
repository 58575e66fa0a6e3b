"""accrue run in a folder that holds a job: resuming, going back, stopping early, starting anew, and refusals."""
import os

import harness
from harness import CliTest, read_lines


class ResumeTest(CliTest):

    def digests(self, output="out"):
        return [line["digest"] for line in self.windows(output)]

    def test_until_then_resume_on_other_workers_equals_one_run(self):
        job = self.write_job(windows=8, checkpoint={"every_windows": 2, "keep": 9})
        self.run_job(job, output="whole")
        stopped = self.run_job(job, "--until", 4, workers=2).result
        self.assertEqual((stopped["state"], stopped["window"]), ("succeeded", 4))
        self.assertEqual(self.checkpoints()[-1], 4)
        resumed = self.run_job(job, workers=3, threads=2)
        self.assert_says(resumed.err, "Resuming after window 4")
        self.assertEqual(self.digests(), self.digests("whole"))
        self.assertEqual([line["window"] for line in self.windows()], list(range(8)))
        self.assertEqual(resumed.result["digest"], self.digests("whole")[-1])

    def test_resume_with_another_recompute_level_equals_one_run(self):
        model = {"layers": 3, "dropout": 0.1}
        job = self.write_job(windows=6, model=model)
        self.run_job(job, output="whole")
        for until, level in ((2, "block"), (4, "attention"), (6, "norms")):
            other = self.write_job(f"{level}.yaml", windows=6, model=model, recompute=level)
            self.run_job(other, "--until", until, workers=2)
        self.assertEqual(self.digests(), self.digests("whole"))
        self.assertEqual(self.accrue("compare", self.path("whole"), self.path("out")).code, 0)

    def test_resume_from_goes_back_and_reports_windows_once(self):
        job = self.write_job(windows=8, checkpoint={"every_windows": 4, "keep": 9})
        self.run_job(job, workers=2)
        before = self.windows()
        outcome = self.run_job(job, "--resume-from", 4, workers=3)
        self.assert_says(outcome.err, "the checkpoint at window 8 is removed", "Resuming after window 4")
        after = self.windows()
        self.assertEqual([line["digest"] for line in after], [line["digest"] for line in before])
        self.assertEqual([line["window"] for line in after], list(range(8)))
        self.assertEqual(self.checkpoints(), [4, 8])

    def test_resume_from_where_there_is_none(self):
        job = self.write_job(checkpoint={"every_windows": 3, "keep": 9})
        self.run_job(job)
        before = self.read("out", "windows.jsonl")
        outcome = self.run_job(job, "--resume-from", 5, code=harness.NOT_FOUND)
        self.assert_says(outcome.err, "no checkpoint at window 5", "it has 3, 6")
        self.assertEqual(self.read("out", "windows.jsonl"), before)
        self.assertEqual(self.checkpoints(), [3, 6])

    def test_finished_job_run_again_changes_nothing(self):
        job = self.write_job()
        first = self.run_job(job).result
        before = self.read("out", "windows.jsonl")
        again = self.run_job(job, workers=2).result
        self.assertEqual((again["state"], again["window"], again["digest"], again["loss"]),
                         ("succeeded", 6, first["digest"], first["loss"]))
        self.assertEqual(self.read("out", "windows.jsonl"), before)

    def test_another_spec_is_refused_with_the_difference(self):
        job = self.write_job()
        self.run_job(job)
        before = self.read("out", "windows.jsonl")
        other = self.write_job("other.yaml", optimizer={"learning_rate": 2.0e-2}, batch={"sequences": 16})
        outcome = self.run_job(other, code=harness.REFUSED)
        self.assert_says(outcome.err, "holds another job", "batch.sequences: 8 -> 16",
                         "optimizer.learning_rate: 0.01 -> 0.02", "--fresh")
        self.assertEqual(self.read("out", "windows.jsonl"), before)
        self.assertEqual(self.checkpoints(), [6])

    def test_other_data_of_the_same_name_is_refused(self):
        job = self.write_job()
        self.run_job(job)
        harness.write_shard(self.path("train.bin"), harness.tokens_of(2000, seed=99))
        outcome = self.run_job(job, code=harness.REFUSED)
        self.assert_says(outcome.err, "data.train[0]", self.path("train.bin"), "XXH3-128")

    def test_fresh_starts_anew(self):
        job = self.write_job()
        first = self.run_job(job).result
        other = self.write_job("other.yaml", seed=8)
        anew = self.run_job(other, "--fresh").result
        self.assertNotEqual(anew["digest"], first["digest"])
        self.assertEqual([line["window"] for line in self.windows()], list(range(6)))

    def test_fresh_does_not_discard_a_job_of_another_name(self):
        self.run_job(self.write_job())
        before = self.read("out", "windows.jsonl")
        outcome = self.run_job(self.write_job("other.yaml", name="other"), "--fresh", code=harness.REFUSED)
        self.assert_says(outcome.err, 'holds the job "tiny"', '"other"')
        self.assertEqual(self.read("out", "windows.jsonl"), before)

    def test_keep_bounds_the_checkpoints(self):
        self.run_job(self.write_job(windows=9, checkpoint={"every_windows": 1, "keep": 2}))
        self.assertEqual(self.checkpoints(), [8, 9])

    def test_checkpoints_are_where_the_job_says(self):
        self.run_job(self.write_job(windows=12, checkpoint={"every_windows": 3, "keep": 9}), workers=2)
        self.assertEqual(self.checkpoints(), [3, 6, 9, 12])

    def test_until_a_window_that_is_past(self):
        job = self.write_job(windows=6)
        first = self.run_job(job, "--until", 4).result
        again = self.accrue("run", job, "--workers", 1, "--threads", 1, "--output", self.path("out"), "--until", 2)
        self.assert_says(again.out, "after window 4,", "window 4 was already reached", first["digest"])
        self.assertNotIn("tokens/s", again.out)

    def test_evaluations_are_not_lost_or_repeated(self):
        harness.write_shard(self.path("validation.bin"), harness.tokens_of(700, seed=5))
        job = self.write_job(windows=6, data={"validation": ["validation.bin"]}, checkpoint={"every_windows": 3},
                             evaluation={"every_windows": 2, "sequences": 8})
        whole = self.run_job(job, output="whole").result
        self.run_job(job, "--until", 3, workers=2)
        resumed = self.run_job(job).result
        self.assertEqual(resumed["validation_loss"], whole["validation_loss"])
        windows = [line["window"] for line in read_lines(self.path("out", "evaluations.jsonl"))]
        self.assertEqual(windows, sorted(set(windows)))
        losses = {line["window"]: line["loss"] for line in read_lines(self.path("whole", "evaluations.jsonl"))}
        self.assertEqual(sorted(losses), [2, 4, 6])
        for line in read_lines(self.path("out", "evaluations.jsonl")):
            if line["window"] in losses:
                self.assertEqual(line["loss"], losses[line["window"]])


if __name__ == "__main__":
    harness.main()
