"""Draining workers, and following the ledger through a coordinator's death."""
import json
import signal

import harness
from harness import CliTest

ENDLESS = 1000000


class SteerTest(CliTest):

    def start_job(self, workers=("a", "b"), windows=ENDLESS):
        """A coordinator, named workers, and a job at work with all of them. Returns the workers by name."""
        coordinator = self.start_coordinator()
        job = self.write_job(windows=windows, schedule={"name": "constant"}, checkpoint={"every_windows": 10},
                             workers={"min": len(workers), "max": len(workers)})
        self.accrue("submit", job, "--output", self.path("out"))
        running = {name: self.start_worker("--name", name) for name in workers}
        self.wait_for_windows(2)
        return coordinator, running

    def ledger(self, job="tiny"):
        return [json.loads(line) for line in self.accrue("events", job, "--no-follow", "-o", "json").out.splitlines()]

    def worker_names(self):
        return [one["name"] for one in json.loads(self.accrue("workers", "-o", "json").out)["workers"]]

    def drain_one_of_two(self, *options):
        """Drains worker a while it computes; the result must be that of one worker. The ledger's entries on workers."""
        job = self.write_job("alone.yaml", windows=60, schedule={"name": "constant"})
        self.run_job(job, output="undisturbed")
        self.start_coordinator()
        job = self.write_job(windows=60, schedule={"name": "constant"}, workers={"min": 1, "max": 2})
        self.accrue("submit", job, "--output", self.path("out"))
        workers = {name: self.start_worker("--name", name) for name in ("a", "b")}
        self.wait_for_windows(2)
        outcome = self.accrue("worker", "drain", "a", "--reason", "maintenance", *options)
        self.assert_says(outcome.out, "a (incarnation ")
        self.assertEqual(workers["a"].wait().code, 0)
        self.accrue("wait", "tiny")
        self.accrue("verify", self.path("out"), self.path("undisturbed"))
        self.assertEqual(self.worker_names(), ["b"])
        return [entry["reason"] for entry in self.ledger() if entry["kind"] == "worker"]

    def test_drained_worker_ends_and_the_result_is_the_same(self):
        self.assert_says("\n".join(self.drain_one_of_two()), "leaves: maintenance")

    def test_worker_drained_at_once_ends_and_the_result_is_the_same(self):
        self.assert_says("\n".join(self.drain_one_of_two("--now")), "leaves at once: maintenance")

    def test_drain_of_a_worker_without_a_job(self):
        self.start_coordinator()
        worker = self.start_worker("--name", "idle")
        worker.wait_for_line("joined")
        self.assert_says(self.accrue("worker", "drain", "idle").out, "its process ends")
        self.assertEqual(worker.wait().code, 0)
        self.assert_says(self.accrue("worker", "drain", "idle", code=harness.NOT_FOUND).err, '"idle"')

    def test_drain_by_a_name_that_two_have(self):
        self.start_coordinator()
        workers = [self.start_worker("--name", "same") for _ in range(2)]
        for worker in workers:
            worker.wait_for_line("joined")
        self.assert_says(self.accrue("worker", "drain", "same", code=harness.REFUSED).err, "incarnation: 1, 2")
        self.accrue("worker", "drain", "2")

    def test_events_follow_through_the_coordinators_death(self):
        coordinator, _ = self.start_job()
        events = self.start("accrue", "events", "tiny", "-o", "json")
        events.wait_for_line('"kind":"commit"')
        coordinator.signal(signal.SIGKILL)
        coordinator.wait()
        events.wait_for_line("connection lost; trying again from entry ")
        before = len(self.windows())
        self.start_coordinator(listen=coordinator.address)
        self.wait_for_windows(before + 2)
        self.accrue("cancel", "tiny", "--no-checkpoint", "--reason", "enough of it")
        outcome = events.wait()
        self.assertEqual(outcome.code, 0, outcome)
        entries = [json.loads(line) for line in outcome.out.splitlines()]
        self.assertEqual([entry["sequence"] for entry in entries], list(range(1, len(entries) + 1)))
        self.assert_says(entries[-1]["reason"], "cancelled")
        self.assertEqual({entry["timeline"] for entry in entries}, {0})  # its worker outlived the coordinator
        begins = [entry for entry in entries if entry["kind"] in ("submitted", "restart")]
        self.assertEqual([entry["kind"] for entry in begins], ["submitted", "restart"])
        self.assertRegex(begins[1]["reason"], "; if no member is left, from (scratch|the checkpoint at window [0-9]+)$")
        self.assertEqual(entries, self.ledger())


if __name__ == "__main__":
    harness.main()
