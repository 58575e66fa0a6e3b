"""accrue run as a supervisor: what dies is started again, and the windows are those of an undisturbed run."""
import os
import signal

import harness
from harness import CliTest

ENDLESS = 1000000


class SupervisorTest(CliTest):

    def start_run(self, workers=2, **changes):
        self.job = self.write_job(windows=ENDLESS, schedule={"name": "constant"}, **changes)
        running = self.start("accrue", "run", self.job, "--workers", workers, "--threads", 1, "--output",
                             self.path("out"), "-o", "json")
        running.wait_for_line("window 1/")
        return running

    def victim(self, running, program):
        children = harness.children_of(running.process.pid)
        return next(child for child, name in sorted(children.items()) if name.startswith(program))

    def kill(self, running, program):
        """kill -9 of a child; returns when windows are committed after its successor has started."""
        victim = self.victim(running, program)
        lines = running.text("err").count("it is started again")
        os.kill(victim, signal.SIGKILL)
        self.assertTrue(harness.wait_for_exit([victim]))
        running.wait_for_count("it is started again", lines + 1)
        self.wait_for_windows(len(self.windows()) + 5, running=running)

    def finish(self, running):
        """Ctrl-C; the run's last line, after checking every window against an undisturbed run."""
        children = harness.children_of(running.process.pid)
        running.signal(signal.SIGINT)
        outcome = running.wait()
        self.assertEqual(outcome.code, harness.JOB_CANCELLED, outcome)
        self.assertTrue(harness.wait_for_exit(children), "a child outlives accrue run")
        result = outcome.result
        disturbed = self.windows()
        self.assertEqual([line["window"] for line in disturbed], list(range(result["window"])))
        self.run_job(self.job, "--until", result["window"], output="undisturbed")
        self.assertEqual([line["digest"] for line in disturbed],
                         [line["digest"] for line in self.windows("undisturbed")])
        self.assertEqual(disturbed[-1]["digest"], result["digest"])
        return result

    def test_workers_killed(self):
        running = self.start_run()
        self.wait_for_windows(3, running=running)
        self.kill(running, "accrue-worker")
        self.kill(running, "accrue-worker")
        result = self.finish(running)
        self.assertEqual((result["worker_restarts"], result["coordinator_restarts"]), (2, 0))

    def test_only_worker_killed(self):
        running = self.start_run(workers=1, checkpoint={"every_windows": 5})
        self.wait_for_windows(7, running=running)
        self.kill(running, "accrue-worker")
        result = self.finish(running)
        self.assertEqual((result["worker_restarts"], result["coordinator_restarts"]), (1, 0))

    def test_coordinator_killed(self):
        running = self.start_run(checkpoint={"every_windows": 5})
        self.wait_for_windows(7, running=running)
        self.kill(running, "accrued")
        result = self.finish(running)
        self.assertEqual((result["worker_restarts"], result["coordinator_restarts"]), (0, 1))

    def test_coordinator_and_worker_killed(self):
        running = self.start_run(workers=3, checkpoint={"every_windows": 5})
        self.wait_for_windows(3, running=running)
        os.kill(self.victim(running, "accrue-worker"), signal.SIGKILL)
        self.kill(running, "accrued")
        result = self.finish(running)
        self.assertEqual((result["worker_restarts"], result["coordinator_restarts"]), (1, 1), running.text("err"))

    def test_interrupt_while_the_coordinator_is_away(self):
        running = self.start_run()
        self.wait_for_windows(3, running=running)
        coordinator = self.victim(running, "accrued")
        os.kill(coordinator, signal.SIGKILL)
        self.assertTrue(harness.wait_for_exit([coordinator]))
        self.assertEqual(self.finish(running)["state"], "cancelled")

    def test_worker_that_was_asked_to_end_stays_away(self):
        running = self.start_run()
        self.wait_for_windows(3, running=running)
        os.kill(self.victim(running, "accrue-worker"), signal.SIGTERM)
        running.wait_for_line("worker-1 has left")
        self.wait_for_windows(len(self.windows()) + 3, running=running)
        self.assertEqual(self.finish(running)["worker_restarts"], 0)


if __name__ == "__main__":
    harness.main()
