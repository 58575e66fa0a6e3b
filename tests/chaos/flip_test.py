#!/usr/bin/env python3
"""One wrong bit, in each place where one can be: which check sees it, and that the result is the right one.

    flip_test.py PROGRAMS [CASE]
"""
import os
import pathlib
import re
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import fleet  # noqa: E402
import harness  # noqa: E402
import oracle  # noqa: E402
import points  # noqa: E402

WINDOWS = 16
PARAMETERS = 20_000
WORKERS = ("a", "b", "c")
WINDOW = 6  # of the flip

# What the ledger says of each, which is who has seen it.
SEEN = {
    "flip-parameter": r"quarantined.*parameters of hash",
    "flip-gradient": r"quarantined|audit",
    "flip-accumulator": r"cannot be trusted",
    "flip-wire": r"was reduced to checksum",
    "flip-reduced-bucket": r"was reduced to checksum",
    "flip-moment": r"quarantined: after window",
}


def job_text(min_workers, **changes):
    return harness.job_text(**harness.merged(
        {"batch": {"sequences": 18, "micro_batch": 2}, "windows": WINDOWS, "checkpoint": {"every_windows": 4},
         "schedule": {"name": "constant", "warmup_windows": None}, "workers": {"min": min_workers, "max": 3}}, changes))


class FlipTest(unittest.TestCase):

    def run_with(self, flip, workers=WORKERS, **changes):
        """Runs a job in which the second worker, or the only one, flips the bit; status and ledger."""
        folder = tempfile.TemporaryDirectory(prefix="accrue-flip-")
        self.addCleanup(folder.cleanup)
        self.fleet = fleet.Fleet(folder.name)
        self.addCleanup(self.fleet.__exit__)
        self.fleet.start_coordinator()
        self.fleet.wait_for_serving()
        self.assertEqual(self.fleet.submit(job_text(len(workers), **changes)), harness.OK, self.fleet.logs())
        for worker in workers:
            fault = ["--fault", f"{flip}@{WINDOW}"] if worker == workers[len(workers) // 2] else []
            self.fleet.start_worker(worker, "--synthetic", f"4,{PARAMETERS}", *fault)
        status = self.fleet.wait_for_end(WINDOWS)
        self.assertEqual(self.fleet.faults_made(), [f"{flip}@{WINDOW}"])
        return status, self.fleet.ledger()

    def reference(self, **changes):
        return oracle.undisturbed(job_text(1, **changes), PARAMETERS, WINDOWS,
                                  os.path.join(os.path.dirname(harness.BIN), "chaos-references"))

    def check_seen(self, ledger, pattern):
        found = [entry["reason"] for entry in ledger if re.search(pattern, entry["reason"])]
        self.assertTrue(found, f"nobody saw it: {pattern}\n" + "\n".join(entry["reason"] for entry in ledger))

    def check(self, flip, **changes):
        status, ledger = self.run_with(flip, **changes)
        self.check_seen(ledger, SEEN[flip])
        oracle.compare(self.fleet, self.reference(), status)

    def test_every_flip_has_a_case(self):
        listed = {point.name for point in points.listed() if point.actions == ("flip",)}
        self.assertEqual(listed, set(SEEN))
        for flip in listed:
            self.assertTrue(hasattr(self, "test_" + flip.replace("-", "_")), flip)

    def test_flip_parameter(self):
        self.check("flip-parameter")

    def test_flip_gradient(self):
        self.check("flip-gradient", audit={"fraction": 1.0})

    def test_flip_accumulator(self):
        self.check("flip-accumulator")

    def test_flip_wire(self):
        self.check("flip-wire")

    def test_flip_reduced_bucket(self):
        self.check("flip-reduced-bucket")

    def test_flip_moment(self):
        self.check("flip-moment")

    def test_moment_of_one_of_two_has_no_majority_and_goes_back_to_the_checkpoint(self):
        status, ledger = self.run_with("flip-moment", workers=("a", "b"))
        self.check_seen(ledger, "no majority")
        self.assertGreater(status["timeline"], 0)
        oracle.compare(self.fleet, self.reference(), status)

    def test_gradient_of_a_unit_that_is_not_audited_goes_unseen(self):
        _, ledger = self.run_with("flip-gradient")
        digests = [line["digest"] for line in self.fleet.lines()]
        expected = [line["digest"] for line in self.reference()["windows"]]
        self.assertEqual(digests[:WINDOW], expected[:WINDOW])
        for digest, other in zip(digests[WINDOW:], expected[WINDOW:]):
            self.assertNotEqual(digest, other)
        self.assertFalse([entry for entry in ledger if "quarantined" in entry["reason"]])


if __name__ == "__main__":
    harness.main()
