"""accrue-worker --synthetic: fleets whose units take time and nothing else, with any job file."""
import json
import urllib.request

import harness
from harness import CliTest


class SyntheticTest(CliTest):

    def start_fleet(self, *units, state="state/accrue"):
        self.start_coordinator(state=state)
        for milliseconds in units:
            self.start_worker("--synthetic", milliseconds)

    def run_fleet(self, output, *units, **changes):
        self.start_fleet(*units, state=f"state/{output}")
        job = self.write_job(workers={"min": len(units), "max": len(units)}, **changes)
        self.accrue("submit", job, "--output", self.path(output))
        return json.loads(self.accrue("wait", "tiny", "-o", "json").out)

    def test_any_fleet_gives_the_same_digests(self):
        self.run_fleet("one", 0, evaluation={"every_windows": 2, "sequences": 4}, data={"validation": ["train.bin"]})
        self.run_fleet("three", 1, 5, 2, evaluation={"every_windows": 2, "sequences": 4},
                       data={"validation": ["train.bin"]})
        one, three = self.windows("one"), self.windows("three")
        self.assertEqual([line["digest"] for line in one], [line["digest"] for line in three])
        self.assertEqual(len({line["digest"] for line in one}), 6)
        self.assertEqual(max(len(line["workers"]) for line in three), 3)

    def test_status_and_metrics_say_that_it_is_synthetic(self):
        ready = self.start_coordinator("--http", "127.0.0.1:0")
        self.start_worker("--synthetic", "1,5000")
        self.accrue("submit", self.write_job(), "--output", self.path("out"))
        self.accrue("wait", "tiny")
        self.assert_says(self.accrue("describe", "tiny").out, "synthetic", "nothing is learnt", "5.0k")
        self.assertTrue(json.loads(self.accrue("describe", "tiny", "-o", "json").out)["status"]["synthetic"])
        self.assert_says(self.accrue("workers", "-o", "json").out, '"synthetic"', "1 ms, 5000 parameters")
        with urllib.request.urlopen(f"http://{ready.http}/metrics", timeout=harness.TIMEOUT_S) as answer:
            self.assert_says(answer.read().decode(), 'accrue_job_synthetic{accrue_job="tiny-1"} 1')
        with urllib.request.urlopen(f"http://{ready.http}/", timeout=harness.TIMEOUT_S) as answer:
            self.assert_says(answer.read().decode(), "synthetic: nothing is learnt")

    def test_a_real_worker_is_no_part_of_it(self):
        self.start_fleet(1)
        self.accrue("submit", self.write_job(windows=1000000, schedule={"name": "constant"}),
                    "--output", self.path("out"))
        self.wait_for_windows(1)
        self.start_worker()
        events = self.start("accrue", "events", "tiny", "--follow")
        self.assert_says(events.wait_for_line("numeric class"), "synthetic")
        self.accrue("cancel", "tiny", "--no-checkpoint")

    def test_nonsense_is_a_usage_error(self):
        outcome = self.start("accrue-worker", "--synthetic", "soon").wait()
        self.assertEqual(outcome.code, harness.USAGE)
        self.assert_says(outcome.err, "--synthetic", "soon", "MILLISECONDS")


if __name__ == "__main__":
    harness.main()
