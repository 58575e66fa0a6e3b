"""accrue run under signals: Ctrl-C checkpoints and exits with 11, and no child outlives the command."""
import os
import shutil
import signal

import harness
from harness import CliTest

ENDLESS = 1000000


class InterruptTest(CliTest):

    def start_run(self, job, *arguments, workers=2):
        running = self.start("accrue", "run", job, "--workers", workers, "--threads", 1, "--output", self.path("out"),
                             "-o", "json", *arguments)
        running.wait_for_line("window 1/")
        children = harness.children_of(running.process.pid)
        self.assertEqual(len(children), workers + 1, children)
        return running, children

    def test_interrupt_checkpoints_and_exits_with_11(self):
        job = self.write_job(windows=ENDLESS, schedule={"name": "constant"})
        running, children = self.start_run(job)
        self.wait_for_windows(3)
        running.signal(signal.SIGINT)
        outcome = running.wait()
        self.assertEqual(outcome.code, harness.JOB_CANCELLED, outcome)
        self.assertTrue(harness.wait_for_exit(children))
        result = outcome.result
        self.assertEqual(result["state"], "cancelled")
        self.assertEqual(self.checkpoints(), [result["window"]])
        self.assertEqual(len(self.windows()), result["window"])
        self.assertEqual(self.windows()[-1]["digest"], result["digest"])
        self.assert_says(outcome.err, "To go on: accrue run")
        resumed = self.run_job(job, "--until", result["window"] + 2)
        self.assert_says(resumed.err, "Resuming after window")
        self.assertEqual([line["window"] for line in self.windows()], list(range(result["window"] + 2)))

    def test_terminate_and_hangup_are_interrupts(self):
        job = self.write_job(windows=ENDLESS, schedule={"name": "constant"})
        for number in (signal.SIGTERM, signal.SIGHUP):
            running, children = self.start_run(job, workers=1)
            running.signal(number)
            self.assertEqual(running.wait().code, harness.JOB_CANCELLED)
            self.assertTrue(harness.wait_for_exit(children))
            shutil.rmtree(self.path("out"))

    def test_second_interrupt_stops_at_once(self):
        job = self.write_job(windows=ENDLESS)
        running, children = self.start_run(job)
        # Stopped workers can never write the checkpoint that the first one asks for.
        workers = [child for child, name in children.items() if name.startswith("accrue-worker")]
        self.assertEqual(len(workers), 2)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        running.signal(signal.SIGINT)
        running.wait_for_line("Ctrl-C")
        running.signal(signal.SIGINT)
        outcome = running.wait()
        self.assertEqual(outcome.code, harness.JOB_CANCELLED, outcome)
        self.assertTrue(harness.wait_for_exit(children))

    def test_killed_run_leaves_no_child_and_resumes(self):
        job = self.write_job(windows=ENDLESS, schedule={"name": "constant"}, checkpoint={"every_windows": 2, "keep": 2})
        running, children = self.start_run(job)
        os.makedirs(self.path("out", "checkpoints"), exist_ok=True)
        with harness.FolderWatch(self.path("out", "checkpoints")) as watch:
            self.assertTrue(watch.until(lambda: len(os.listdir(self.path("out", "checkpoints"))) >= 2))
        running.signal(signal.SIGKILL)
        self.assertEqual(running.wait().code, -signal.SIGKILL)
        self.assertTrue(harness.wait_for_exit(children), "children outlive a killed accrue run")
        newest = self.checkpoints()[-1]
        before = self.windows()
        resumed = self.run_job(job, "--until", newest + 2)
        self.assert_says(resumed.err, f"Resuming after window {newest:,}")
        after = self.windows()
        self.assertEqual([line["window"] for line in after], list(range(newest + 2)))
        shared = min(len(before), len(after))
        self.assertEqual([line["digest"] for line in after[:shared]], [line["digest"] for line in before[:shared]])


if __name__ == "__main__":
    harness.main()
