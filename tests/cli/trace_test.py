"""--trace: the file is a timeline whose spans nest, and whose sums are the phases that windows.jsonl tells."""
import collections
import json
import os

import harness
from harness import CliTest


class TraceTest(CliTest):

    def trace(self, worker):
        with open(self.path(f"trace-{worker}.json"), encoding="utf-8") as file:
            return json.load(file)

    def spans(self, trace):
        """Spans in order, each with its `path`: the kinds of those that it lies in, and its own."""
        spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
        # In ns: as binary fractions of microseconds they would not add up.
        for span in spans:
            span["begin"] = round(span["ts"] * 1000)
            span["end"] = span["begin"] + round(span["dur"] * 1000)
        open_spans = []
        for span in sorted(spans, key=lambda span: (span["begin"], -span["end"])):
            while open_spans and open_spans[-1]["end"] <= span["begin"]:
                open_spans.pop()
            if open_spans:
                self.assertLessEqual(span["end"], open_spans[-1]["end"], f"{span} does not nest in {open_spans[-1]}")
            open_spans.append(span)
            span["path"] = "/".join(outer["cat"] for outer in open_spans)
        return spans

    def times(self, spans, window):
        """Nanoseconds by path of what lies in the window's span."""
        outer, = (span for span in spans if span["name"] == f"window {window}")
        times = collections.Counter()
        for span in spans:
            if outer["begin"] <= span["begin"] and span["end"] <= outer["end"]:
                times[span["path"].removeprefix("window/")] += span["end"] - span["begin"]
        return times

    def last_wait(self, spans, window):
        outer, = (span for span in spans if span["name"] == f"window {window}")
        waits = [span for span in spans if span["cat"] == "wait for seal" and outer["begin"] <= span["begin"] < outer["end"]]
        return waits[-1]["end"] - waits[-1]["begin"]

    def assert_same(self, seconds, ns, what):
        self.assertAlmostEqual(seconds, ns / 1e9, delta=2e-9, msg=what)

    def test_two_workers(self):
        job = self.write_job(windows=8, checkpoint={"every_windows": 2, "keep": 2})
        self.run_job(job, "--trace", self.path("trace.json"), "--trace-windows", 4, workers=2)
        windows = {line["window"]: line for line in self.windows()}
        for worker in ("worker-1", "worker-2"):
            trace = self.trace(worker)
            self.assertEqual(trace["otherData"], {"version": "0.1.0", "windows": 4, "spans_dropped": 0})
            names = [event["args"]["name"] for event in trace["traceEvents"] if event["ph"] == "M"]
            self.assertEqual(names, [worker, "compute thread"])
            spans = self.spans(trace)
            self.assertEqual([span["name"] for span in spans if span["cat"] == "window"],
                             [f"window {window}" for window in range(1, 5)])
            commits = [event["args"]["window"] for event in trace["traceEvents"] if event["ph"] == "i"]
            self.assertEqual(commits[-4:], [1, 2, 3, 4])
            for window in range(1, 5):
                said, = (w for w in windows[window]["workers"] if w["name"] == worker)
                times, seconds = self.times(spans, window), said["seconds"]
                adds = times["unit/forward and backward/quantise and add"]
                self.assert_same(seconds["data"], times["unit/data"], "data")
                self.assert_same(seconds["compute"], times["unit/forward and backward"] - adds, "compute")
                self.assert_same(seconds["accumulate"], adds + times["manifest"], "accumulate")
                # Units may have come while it waited; the phase is the last wait.
                self.assert_same(seconds["wait_seal"], self.last_wait(spans, window), "wait_seal")
                self.assert_same(seconds["reduce"], times["reduce"], "reduce")
                self.assert_same(seconds["step"], times["step"], "step")
                self.assertGreater(times["reduce/all-reduce"], 0)
                self.assertGreater(times["manifest/parameter hash"], 0)
            # A snapshot is told with the phases of the window after it.
            snapshots = [span for span in spans if span["path"] == "window/snapshot"]
            self.assertEqual(len(snapshots), 2)
            said, = (w for w in windows[2]["workers"] if w["name"] == worker)
            self.assert_same(said["seconds"]["checkpoint"], snapshots[0]["end"] - snapshots[0]["begin"], "checkpoint")

    def test_units_are_all_there(self):
        self.run_job(self.write_job(windows=3), "--trace", self.path("trace.json"))
        spans = self.spans(self.trace("worker-1"))
        units = [span["args"]["unit"] for span in spans if span["path"] == "window/unit"]
        self.assertEqual(units, [0, 1, 2, 3] * 2, "windows 1 and 2: the job ended before the fifth")
        tensors = {span["args"]["tensor"] for span in spans if span["cat"] == "quantise and add"}
        self.assertIn("wte.weight", tensors)

    def test_the_bits_do_not_depend_on_it(self):
        job = self.write_job(windows=3)
        traced = self.run_job(job, "--trace", self.path("trace.json"), output="traced").result
        self.assertEqual(traced["digest"], self.run_job(job).result["digest"])

    def test_a_job_of_one_window_has_no_trace(self):
        self.run_job(self.write_job(windows=1), "--trace", self.path("trace.json"))
        self.assertFalse(os.path.exists(self.path("trace-worker-1.json")))
        self.assert_says(self.read("out", "logs", "worker-1.log"), "no trace: the job ended before its second window was done")

    def test_wrong_words(self):
        job = self.write_job(windows=1)
        outcome = self.accrue("run", job, "--trace", "nowhere/trace.json", code=harness.USAGE)
        self.assert_says(outcome.err, "--trace nowhere/trace.json: there is no folder ", self.path("nowhere"))
        self.assert_says(self.accrue("run", job, "--trace", ".", code=harness.USAGE).err, "--trace .: this is a folder")
        self.accrue("run", job, "--trace-windows", 3, code=harness.USAGE)
        for arguments, words in ((("--trace", self.path("nowhere", "trace.json")), "there is no folder " + self.path("nowhere")),
                                 (("--trace", self.path()), "this is a folder"),
                                 (("--trace-windows", "3"), "--trace-windows requires --trace")):
            outcome = self.start("accrue-worker", *arguments).wait()
            self.assertEqual(outcome.code, harness.USAGE, outcome)
            self.assert_says(outcome.err, words)


if __name__ == "__main__":
    harness.main()
