"""accrued, accrue-worker and the commands that talk to them: refusals, steering, and outcomes as exit codes."""
import json
import os
import signal
import socket

import harness
from harness import CliTest, write_shard, tokens_of

ENDLESS = 1000000


class DaemonTest(CliTest):

    def submit(self, job, *arguments, **options):
        return self.accrue("submit", job, "-o", "json", *arguments, **options)

    def describe(self, name="tiny"):
        return json.loads(self.accrue("describe", name, "-o", "json").out)["status"]

    def start_endless(self):
        """A coordinator, a worker and a job that goes on for ever; a watcher that has seen its first window."""
        self.start_coordinator()
        self.worker = self.start_worker()
        self.submit(self.write_job(windows=ENDLESS, schedule={"name": "constant"}), "--output", self.path("out"))
        watch = self.start("accrue", "watch", "tiny", "-o", "json")
        watch.wait_for_line('"type":"window"')
        return watch

    # ---- the coordinator is not there, or not the right one ----

    def test_no_coordinator(self):
        with socket.socket() as taken:  # bound and not listening: nothing else gets the port
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            job = self.write_job()
            for command in (("list",), ("describe", "x"), ("submit", job), ("watch", "x"), ("wait", "x"),
                            ("cancel", "x"), ("events", "x"), ("workers",), ("checkpoint", "list", "x")):
                with self.subTest(command=command):
                    outcome = self.accrue("--coordinator", address, *command, code=harness.UNREACHABLE)
                    self.assert_says(outcome.err, "no coordinator answers at " + address)
                    self.assertEqual(outcome.out, "")

    def test_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            for flags in (("--listen", f"127.0.0.1:{port}", "--http", "none"),
                          ("--listen", "127.0.0.1:0", "--http", f"127.0.0.1:{port}")):
                outcome = self.start("accrued", *flags).wait()
                self.assertEqual(outcome.code, harness.ERROR, outcome)
                self.assert_says(outcome.err, port, "in use")
                self.assertNotIn("grpc", outcome.err)

    def test_two_coordinators_on_one_state(self):
        self.start_coordinator()
        outcome = self.start("accrued", "--listen", "127.0.0.1:0", "--http", "none", "--state",
                             self.path("state/accrue")).wait()
        self.assertEqual(outcome.code, harness.ERROR, outcome)
        self.assert_says(outcome.err, self.path("state/accrue"))

    def test_no_listening_beyond_loopback(self):
        for address in ("0.0.0.0:0", "[::]:0", "nonsense"):
            for flag in ("--listen", "--http"):
                outcome = self.start("accrued", flag, address).wait()
                self.assertEqual(outcome.code, harness.USAGE, outcome)
                self.assert_says(outcome.err, flag, "expected an address" if address == "nonsense" else "loopback")

    def test_data_root_that_is_no_folder(self):
        outcome = self.start("accrued", "--listen", "127.0.0.1:0", "--http", "none", "--state", self.path("state"),
                             "--data-root", self.path("nowhere")).wait()
        self.assertEqual(outcome.code, harness.ERROR, outcome)  # what supervises it tries again: it may be mounted late
        self.assert_says(outcome.err, "--data-root", self.path("nowhere"), "no such folder")
        self.assertFalse(os.path.exists(self.path("state")))

    def test_worker_with_no_address(self):
        outcome = self.start("accrue-worker", "--coordinator", "nonsense").wait()
        self.assertEqual(outcome.code, harness.USAGE, outcome)
        self.assert_says(outcome.err, "--coordinator: expected HOST:PORT", '"nonsense"')

    def test_worker_of_another_version(self):
        with open(harness.program("accrue-worker"), "rb") as file:
            program = file.read()
        version = self.start("accrue-worker", "--version").wait().out.split()[-1]
        other = version[:-1] + chr(ord(version[-1]) + 1)
        altered = self.write("accrue-worker", program.replace(version.encode() + b"\0", other.encode() + b"\0"))
        os.chmod(altered, 0o755)
        if other not in self.start("accrue-worker", "--version", executable=altered).wait().out:
            self.skipTest("this build does not hold its version as plain text")
        self.start_coordinator()
        outcome = self.start("accrue-worker", "--coordinator", self.environment["ACCRUE_COORDINATOR"], "--threads", "1",
                             executable=altered).wait()
        self.assertNotEqual(outcome.code, 0, outcome)
        self.assert_says(outcome.err, version, other)

    def test_worker_waits_for_its_coordinator(self):
        coordinator = self.start_coordinator()
        worker = self.start_worker()
        worker.wait_for_line("joined")
        coordinator.signal(signal.SIGTERM)
        self.assertEqual(coordinator.wait().code, 0)
        worker.signal(signal.SIGTERM)
        self.assertEqual(worker.wait().code, 0)

    # ---- jobs ----

    def test_unknown_job(self):
        self.start_coordinator()
        for command in (("describe", "x"), ("watch", "x"), ("wait", "x"), ("cancel", "x"), ("pause", "x"),
                        ("resume", "x"), ("events", "x"), ("checkpoint", "list", "x")):
            with self.subTest(command=command):
                outcome = self.accrue(*command, code=harness.NOT_FOUND)
                self.assert_says(outcome.err, 'no job "x"')

    def test_second_job_of_the_same_name_is_refused(self):
        self.start_coordinator()
        job = self.write_job()
        self.submit(job)
        self.assert_says(self.submit(job, code=harness.REFUSED).err, "tiny-1", '"tiny"')
        self.accrue("cancel", "tiny")
        self.accrue("wait", "tiny", code=harness.JOB_CANCELLED)
        self.submit(job)

    def test_data_outside_the_data_roots(self):
        self.start_coordinator()
        for place in ("../train.bin", "/etc/hostname"):
            outcome = self.submit(self.write_job(data={"train": [place]}), code=harness.REFUSED)
            self.assert_says(outcome.err, place, "data root")

    def test_shard_changed_since_submit(self):
        self.start_coordinator()
        self.submit(self.write_job())
        shard = self.path("train.bin")
        pinned = json.loads(self.accrue("describe", "tiny", "-o", "json").out)["job"]["train"][0]["xxh3_128"]
        write_shard(shard, tokens_of(2000, seed=99))
        self.start_worker()
        outcome = self.accrue("wait", "tiny", code=harness.JOB_FAILED)
        self.assert_says(outcome.out, "failed", shard, pinned)
        reason = self.describe()["reason"]
        self.assertEqual(len(set(word.strip(",;.()") for word in reason.split() if len(word.strip(",;.()")) == 32)), 2,
                         f"both hashes in: {reason}")

    def test_whole_life(self):
        self.start_coordinator()
        self.start_worker()
        job_id = json.loads(self.submit(self.write_job(), "--output", self.path("out")).out)["job_id"]
        result = json.loads(self.accrue("wait", job_id, "-o", "json").out)
        self.assertEqual((result["state"], result["window"]), ("succeeded", 6))
        self.assertEqual(result["digest"], self.windows()[-1]["digest"])
        self.assert_says(self.accrue("list").out, job_id, "succeeded")
        jobs = json.loads(self.accrue("list", "-o", "json").out)["jobs"]
        self.assertEqual([job["job_id"] for job in jobs], [job_id])
        listed = json.loads(self.accrue("checkpoint", "list", job_id, "-o", "json").out)["checkpoints"]
        self.assertEqual([(one["window"], one["digest"], one["verified"]) for one in listed],
                         [(6, result["digest"], True)])
        kinds = [json.loads(line)["kind"] for line in self.accrue("events", job_id, "-o", "json").out.splitlines()]
        self.assertIn("commit", kinds)
        chosen = self.accrue("events", job_id, "--kind", "commit,nonsense", "-o", "json")
        self.assertEqual([json.loads(line)["kind"] for line in chosen.out.splitlines()],
                         [kind for kind in kinds if kind == "commit"])
        self.assert_says(chosen.err, "nonsense", "the kinds here are: ", "seal")
        watched = [json.loads(line) for line in self.accrue("watch", job_id, "-o", "json").out.splitlines()]
        self.assertEqual([one["window"] for one in watched if one["type"] == "window"], list(range(6)))
        self.accrue("cancel", job_id, code=harness.REFUSED)

    def test_cancel_with_a_checkpoint(self):
        watch = self.start_endless()
        self.accrue("cancel", "tiny", "--reason", "enough of it")
        outcome = self.accrue("wait", "tiny", "-o", "json", code=harness.JOB_CANCELLED)
        self.assertEqual(outcome.result["state"], "cancelled")
        self.assert_says(outcome.result["reason"], "enough of it")
        self.assertEqual(watch.wait().code, harness.JOB_CANCELLED)
        self.assertEqual(self.checkpoints(), [outcome.result["window"]])

    def test_cancel_without_a_checkpoint(self):
        watch = self.start_endless()
        self.accrue("cancel", "tiny", "--no-checkpoint")
        self.assertEqual(watch.wait().code, harness.JOB_CANCELLED)
        self.assertEqual(self.checkpoints(), [])

    def test_pause_and_resume(self):
        watch = self.start_endless()
        self.accrue("pause", "tiny")
        watch.wait_for_line('"state":"paused"')
        paused = self.describe()
        self.accrue("resume", "tiny")
        self.wait_for_windows(paused["window"] + 2)
        self.accrue("cancel", "tiny")
        self.accrue("wait", "tiny", code=harness.JOB_CANCELLED)
        self.assertEqual([line["window"] for line in self.windows()], list(range(len(self.windows()))))

    def test_wait_gives_up(self):
        self.start_coordinator()
        self.submit(self.write_job())
        outcome = self.accrue("wait", "tiny", "--timeout", "0.05", code=harness.ERROR)
        self.assert_says(outcome.err, "has not ended within")

    def test_coordinator_killed_goes_on_where_it_was(self):
        coordinator = self.start_coordinator()
        self.start_worker()
        job = self.write_job(windows=ENDLESS, schedule={"name": "constant"}, checkpoint={"every_windows": 2})
        self.submit(job, "--output", self.path("out"))
        self.wait_for_windows(4)
        coordinator.signal(signal.SIGKILL)
        coordinator.wait()
        before = self.windows()
        self.start_coordinator(listen=coordinator.address)
        self.wait_for_windows(len(before) + 2)
        self.accrue("cancel", "tiny")
        self.accrue("wait", "tiny", code=harness.JOB_CANCELLED)
        after = self.windows()
        self.assertEqual([line["digest"] for line in after[:len(before)]], [line["digest"] for line in before])
        self.assertEqual([line["window"] for line in after], list(range(len(after))))


if __name__ == "__main__":
    harness.main()
