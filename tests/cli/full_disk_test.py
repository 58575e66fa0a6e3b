"""A disk that takes no more: checkpoints and the journal fail with the reason, and what was kept is still good.

A limit on the size of files stands in for the disk where none can be mounted: a write beyond it fails.
"""
import os
import resource
import signal
import subprocess

import harness
from harness import CliTest


def limit_files_to(size_bytes):
    """For preexec_fn: files grow no further, and the attempt is an error, not a signal."""
    def apply():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))
    return {"preexec_fn": apply, "restore_signals": False}


class FullDiskTest(CliTest):

    def test_checkpoint_that_does_not_fit_fails_the_job_and_keeps_the_one_before(self):
        job = self.write_job(windows=12, model={"width": 128}, checkpoint={"every_windows": 2, "keep": 9})
        self.run_job(job, "--until", 4)
        # About 5 MB a checkpoint; journal and logs stay far below.
        outcome = self.start("accrue", "run", job, "--output", self.path("out"), "-o", "json", "--threads", "1",
                             **limit_files_to(2 << 20)).wait()
        self.assertEqual(outcome.code, harness.JOB_FAILED, outcome)
        self.assertEqual(outcome.result["state"], "failed")
        self.assert_says(outcome.result["reason"], "checkpoints in a row failed", self.path("out", "checkpoints"))
        self.assertEqual(self.checkpoints(), [2, 4])
        before = self.windows()
        resumed = self.run_job(job, workers=2)
        self.assert_says(resumed.err, "Resuming after window 4")
        after = self.windows()
        self.assertEqual([line["window"] for line in after], list(range(12)))
        shared = min(len(before), len(after))
        self.assertEqual([line["digest"] for line in after[:shared]], [line["digest"] for line in before[:shared]])

    def test_journal_that_cannot_grow_fails_with_the_reason(self):
        job = self.write_job(windows=100000, checkpoint={"every_windows": 0})
        outcome = self.start("accrue", "run", job, "--output", self.path("out"), "-o", "json", "--threads", "1",
                             **limit_files_to(1 << 20)).wait()
        self.assertIn(outcome.code, (harness.ERROR, harness.JOB_FAILED), outcome)
        said = outcome.err + outcome.out
        self.assertTrue("journal" in said or "windows.jsonl" in said, outcome)
        windows = self.windows()
        self.assertEqual([line["window"] for line in windows], list(range(len(windows))))
        # With room again it starts over, to the same bits.
        self.run_job(job, "--until", 3, output="fresh")
        self.run_job(job, "--until", 3)
        self.assertEqual([line["digest"] for line in self.windows("fresh")], [line["digest"] for line in windows[:3]])

    def test_full_file_system(self):
        disk = self.path("disk")
        os.makedirs(disk)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True).returncode != 0:
            self.skipTest("no file system can be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", disk], check=True)
        job = self.write_job(windows=12, model={"width": 128}, checkpoint={"every_windows": 2, "keep": 9})
        outcome = self.run_job(job, output="disk/out", code=harness.JOB_FAILED)
        # Whichever comes to the end of the disk first, a checkpoint or the journal.
        self.assertRegex(outcome.result["reason"], "No space left on device|disk is full")
        self.assertTrue(harness.wait_for_exit(harness.children_of(os.getpid())))


if __name__ == "__main__":
    harness.main()
