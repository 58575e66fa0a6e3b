#!/usr/bin/env python3
"""Cut links between real processes: a worker or two are cut off, one way or both, and come back.

    link_test.py PROGRAMS [CASE]

Exits with 77 (skipped) where there can be no network namespaces.
"""
import os
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import fleet  # noqa: E402
import harness  # noqa: E402
import network  # noqa: E402
import oracle  # noqa: E402

WINDOWS = 150  # some 6 s: a healed link must be used again well before that
PARAMETERS = 20_000
WORKERS = ("a", "b", "c")
SKIPPED = 77


def job_text(min_workers):
    return harness.job_text(batch={"sequences": 18, "micro_batch": 2}, windows=WINDOWS, data={"validation": None},
                            schedule={"name": "constant", "warmup_windows": None}, checkpoint={"every_windows": 50},
                            workers={"min": min_workers, "max": 3})


class LinkTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="accrue-link-")
        self.addCleanup(folder.cleanup)
        self.network = network.Network(["coordinator", *WORKERS]).__enter__()
        self.addCleanup(self.network.__exit__)
        self.fleet = fleet.Fleet(folder.name, worker_timeout=1.0, prefix=self.prefix,
                                 listen=self.network.address["coordinator"] + ":0")
        self.addCleanup(self.fleet.__exit__)
        self.reference = oracle.undisturbed(job_text(1), PARAMETERS, WINDOWS,
                                            os.path.join(os.path.dirname(harness.BIN), "chaos-references"))
        self.fleet.start_coordinator()
        self.fleet.wait_for_serving()
        self.assertEqual(self.fleet.submit(job_text(2)), harness.OK, self.fleet.logs())
        for worker in WORKERS:
            self.fleet.start_worker(worker, "--synthetic", f"8,{PARAMETERS}", "--collective-address",
                                    self.network.address[worker])
        self.fleet.wait_for_windows(5)

    def prefix(self, name):
        return self.network.prefix("coordinator" if name == "client" else name)

    def cut_and_heal(self, *directions, windows=10):
        """Cuts, lets the others commit so many windows without who is cut off, and heals."""
        for direction in directions:
            self.network.cut(*direction)
        self.fleet.until(self.is_given_up, "the worker is given up")
        self.fleet.wait_for_windows(self.fleet.windows_committed() + windows)
        for direction in directions:
            self.network.heal(*direction)

    def is_given_up(self, _):
        return self.lines_without("a", self.fleet.lines())

    @staticmethod
    def lines_without(worker, lines):
        return [line["window"] for line in lines if worker not in {share["name"] for share in line["workers"]}]

    def finish(self):
        """The job ends as if nothing had been; `a` was away for some windows, and has come back."""
        oracle.compare(self.fleet, self.reference, self.fleet.wait_for_end(WINDOWS))
        away = self.lines_without("a", self.fleet.lines())
        self.assertTrue(away)
        self.assertLess(away[-1], WINDOWS - 1, f"it has not come back\n{self.fleet.logs()}")
        self.assertFalse(self.fleet.deaths, "nobody was to die")

    def test_worker_cut_off_both_ways(self):
        self.cut_and_heal(*[(x, y) for other in ("coordinator", "b", "c") for x, y in (("a", other), (other, "a"))])
        self.finish()

    def test_worker_is_not_heard(self):
        self.cut_and_heal(("a", "coordinator"))
        self.finish()

    def test_worker_does_not_hear(self):
        self.cut_and_heal(("coordinator", "a"))
        self.finish()


if __name__ == "__main__":
    if reason := network.Network.why_not():
        print(f"skipped: no network namespaces: {reason}")
        sys.exit(SKIPPED)
    harness.main()
