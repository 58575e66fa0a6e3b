"""accrue compare and accrue verify of two runs."""
import json

import harness
from harness import CliTest


class CompareTest(CliTest):

    def compare(self, a, b, code):
        return json.loads(self.accrue("compare", a, b, "-o", "json", code=code).out)

    def test_other_fleet_is_equal(self):
        job = self.write_job(workers={"min": 1, "max": 4})
        self.run_job(job, output="one")
        self.run_job(job, output="two", workers=2)
        result = self.compare(self.path("one"), self.path("two"), harness.OK)
        self.assertEqual((result["verdict"], result["windows_compared"]), ("equal", 6))
        self.assert_says(self.accrue("compare", self.path("one"), self.path("two")).out, "Equal: 6 windows")
        self.assert_says(self.accrue("verify", self.path("one"), self.path("two")).out, "6 of 6 common windows")

    def test_other_rate_differs_from_the_first_window_on(self):
        self.run_job(self.write_job(), output="one")
        other = self.write_job("other.yaml", optimizer={"learning_rate": 2.0e-2})
        self.run_job(other, output="two")
        result = self.compare(self.path("one"), self.path("two"), harness.ERROR)
        self.assertEqual(result["verdict"], "digests")
        first = result["first_difference"]
        self.assertEqual(first["window"], 0)
        self.assertEqual(first["a"]["digest"], self.windows("one")[0]["digest"])
        self.assertEqual(first["b"]["digest"], self.windows("two")[0]["digest"])
        self.assertEqual(first["a"]["loss"], first["b"]["loss"])  # of the same initial parameters
        fields = [one["field"] for one in result["spec_differences"] if one["affects_result"]]
        self.assertEqual(fields, ["optimizer.learning_rate"])
        self.assert_says(self.accrue("verify", self.path("one"), self.path("two"), code=harness.ERROR).out,
                         "0 of 6 common windows", "window 0")

    def test_one_is_only_longer(self):
        job = self.write_job()
        self.run_job(job, output="one")
        self.run_job(job, "--until", 4, output="two", code=harness.OK)
        result = self.compare(self.path("one"), self.path("two"), harness.ERROR)
        self.assertEqual((result["verdict"], result["only_in_a"], result["only_in_b"]), ("longer", 2, 0))
        verified = json.loads(self.accrue("verify", self.path("one"), self.path("two"), "-o", "json").out)
        self.assertEqual((verified["ok"], verified["windows_equal"], verified["first_difference"]), (True, 4, None))

    def test_job_at_a_coordinator_against_a_folder(self):
        job = self.write_job()
        self.run_job(job, output="one")
        self.start_coordinator()
        self.start_worker()
        self.accrue("submit", job)
        self.accrue("wait", "tiny")
        self.assertEqual(self.compare("tiny-1", self.path("one"), harness.OK)["verdict"], "equal")
        self.assertEqual(self.compare("tiny", "tiny-1", harness.OK)["windows_compared"], 6)
        outcome = self.accrue("compare", "tiny", "elsewhere", code=harness.NOT_FOUND)
        self.assert_says(outcome.err, "elsewhere")
        self.accrue("verify", self.path("nowhere"), "tiny", code=harness.NOT_FOUND)


if __name__ == "__main__":
    harness.main()
