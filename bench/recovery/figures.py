#!/usr/bin/env python3
"""What recovery costs: kills, stalls, a slow worker, the coordinator's death, and the overhead when nothing fails.

    figures.py PROGRAMS FIGURE [--trials N] [--seed N] [--at-seal]

FIGURE: kill, stop, coordinator, join, serve, overhead, slow, streams. PROGRAMS is the folder of the programs (and, for overhead and
streams, of the benchmarks). Workers are synthetic: units take a fixed time and no processor, so that what is measured is the
service. Prints one table: median, worst, and the 95% confidence interval of the median (by order statistics) or of the mean
(by its normal approximation). An interval wider than the bound that it is held against says "unresolved".
"""
import argparse
import math
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "chaos"))
import fleet  # noqa: E402
import harness  # noqa: E402

ENDLESS = 1_000_000
WORKERS = ("a", "b", "c", "d")


def median_interval(values):
    """A 95% confidence interval of the median, distribution-free."""
    ordered, n = sorted(values), len(values)
    half = 0.98 * math.sqrt(n)
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return ordered[low], ordered[high]


def mean_interval(values):
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def verdict(value, interval, bound):
    if interval[1] - interval[0] > bound:
        return "unresolved"
    return "met" if value < bound else "missed"


def row(name, values, unit, scale, bounds):
    """One line of the table. bounds: {"median": reach, "worst": reach}, in the values' own unit."""
    low, high = median_interval(values)
    median, worst = statistics.median(values), max(values)
    said = []
    if "median" in bounds:
        said.append(f"median < {bounds['median'] * scale:g}: {verdict(median, (low, high), bounds['median'])}")
    if "worst" in bounds:
        said.append(f"worst < {bounds['worst'] * scale:g}: {'met' if worst < bounds['worst'] else 'missed'}")
    digits = 3 if scale == 1 else 1
    print(f"| {name} | {len(values)} | {median * scale:.{digits}f} | {low * scale:.{digits}f} to {high * scale:.{digits}f} | "
          f"{worst * scale:.{digits}f} | {unit} | {'; '.join(said) or 'measured'} |", flush=True)


def header():
    print("| figure | trials | median | 95% interval | worst | unit | reach |\n|---|---|---|---|---|---|---|")


def job_text(units, workers=4, min_workers=1, **changes):
    return harness.job_text(**harness.merged(
        {"batch": {"sequences": units, "micro_batch": 1}, "windows": ENDLESS,
         "schedule": {"name": "constant", "warmup_windows": None}, "checkpoint": {"every_windows": 0},
         "workers": {"min": min_workers, "max": workers}}, changes))


class Figure:

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.rng = random.Random(arguments.seed)

    def start(self, text, unit_ms, parameters=100_000, worker_timeout=3.0, http="none"):
        """A fleet at work on an endless job: past its first windows."""
        running = fleet.Fleet(self.folder, worker_timeout=worker_timeout, http=http)
        running.start_coordinator()
        running.wait_for_serving()
        if running.submit(text) != harness.OK:
            raise fleet.FleetError(running.last_error)
        for worker in WORKERS:
            running.start_worker(worker, "--synthetic", f"{unit_ms.get(worker, unit_ms['all'])},{parameters}")
        running.watch_windows()
        self.wait_until_settled(running)
        return running

    def wait_until_settled(self, running, windows=4):
        """Until all four have had a share of so many windows in a row."""
        def settled(_):
            lines = running.lines()[-windows:]
            return len(lines) == windows and all(
                len([share for share in line["workers"] if share["units"] > 0]) == len(WORKERS) for line in lines)
        running.until(settled, "all four workers have their share")

    def commits_after(self, running, at_unix_s, count=1):
        """The times of the first commits after then."""
        def there(_):
            return len([1 for line in running.lines()[-50:] if line["unix_seconds"] > at_unix_s]) >= count
        if not there(None):
            running.until(there, "the next commit")
        return [line["unix_seconds"] for line in running.lines()[-50:] if line["unix_seconds"] > at_unix_s][:count]

    def somewhere_in_a_window(self, running, seconds):
        """Lets the fleet be for a part of a window, so that faults meet every phase."""
        self.commits_after(running, time.time())
        running.hold(self.rng.random() * seconds)


class Kill(Figure):
    """SIGKILL of one of four to the next commit, beyond the time that its units take the other three."""
    UNIT_S, UNITS = 0.04, 24  # six each: 0.24 s a window

    def run(self):
        lost, window_s = self.UNITS // 4, self.UNITS // 4 * self.UNIT_S
        again_s = math.ceil(lost / 3) * self.UNIT_S
        beyond, total = [], []
        with self.start(job_text(self.UNITS), {"all": self.UNIT_S * 1000}) as running:
            for trial in range(self.arguments.trials or 30):
                self.somewhere_in_a_window(running, window_s)
                victim = running.workers[self.rng.choice(WORKERS)]
                before = running.lines()[-1]["unix_seconds"]
                killed_at = time.time()
                victim.signal(signal.SIGKILL)
                took_s = self.commits_after(running, killed_at)[0] - killed_at
                left_s = max(0.0, before + window_s - killed_at)  # that the window would have taken anyway
                total.append(took_s)
                beyond.append(took_s - left_s - again_s)
                self.wait_until_settled(running)
        row("SIGKILL of one of 4 to the next commit", total, "ms", 1000, {})
        row("the same, beyond the window's rest and recomputing", beyond, "ms", 1000, {"median": 0.5, "worst": 1.0})


class Stop(Figure):
    """SIGSTOP of one of four to its being given up, and to the next commit, at default settings."""
    UNIT_S, UNITS = 0.04, 24

    def run(self):
        given_up, committed = [], []
        with self.start(job_text(self.UNITS), {"all": self.UNIT_S * 1000}) as running:
            for trial in range(self.arguments.trials or 10):
                self.somewhere_in_a_window(running, self.UNITS // 4 * self.UNIT_S)
                victim = running.workers[self.rng.choice(WORKERS)]
                stopped_at = time.time()
                victim.signal(signal.SIGSTOP)
                # A window without the stopped one's word.
                def goes_on(_):
                    return any(line["unix_seconds"] > stopped_at and victim.name not in
                               [share["name"] for share in line["workers"]] for line in running.lines()[-50:])
                running.until(goes_on, "a window without the stopped worker")
                line = next(line for line in running.lines()[-50:] if line["unix_seconds"] > stopped_at and victim.name
                            not in [share["name"] for share in line["workers"]])
                committed.append(line["unix_seconds"] - stopped_at)
                epochs = [entry for entry in running.ledger() if entry["kind"] == "epoch"
                          and entry["unix_ns"] > stopped_at * 1e9]
                given_up.append(epochs[0]["unix_ns"] * 1e-9 - stopped_at)
                victim.signal(signal.SIGCONT)
                self.wait_until_settled(running)
        row("SIGSTOP to declared dead, its units leased to others", given_up, "ms", 1000, {"worst": 3.5})
        row("SIGSTOP to the first commit without it", committed, "ms", 1000, {})


class Coordinator(Figure):
    """kill -9 of the coordinator; the supervisor starts it again at once."""
    UNIT_S, UNITS = 0.04, 24

    def run(self):
        beyond, restart = [], []
        with self.start(job_text(self.UNITS), {"all": self.UNIT_S * 1000}) as running:
            for trial in range(self.arguments.trials or 20):
                self.somewhere_in_a_window(running, self.UNITS // 4 * self.UNIT_S)
                killed_at = time.time()
                offset = time.time() - time.monotonic()
                running.coordinator.signal(signal.SIGKILL)
                running.until(lambda event: isinstance(event, fleet.Exited), "the coordinator dies")
                serving_at = running.wait_for_serving().at_ns * 1e-9 + offset
                commit = self.commits_after(running, killed_at)[0]
                restart.append(serving_at - killed_at)
                beyond.append(max(0.0, commit - serving_at))
                self.wait_until_settled(running)
        row("kill -9 of the coordinator to serving again", restart, "ms", 1000, {})
        row("from there to the next commit", beyond, "ms", 1000, {"worst": 1.0})


class Join(Figure):
    """Windows of three members while a fourth worker joins, against those before.

    A window has three units of a second, so that no unit can be moved to the newcomer and shorten a window that it made longer.
    The stall of a join is what windows took longer, added up from the newcomer's start to the second window with it as a member:
    than the median of the quiet windows of three before it was a member, then than that of the quiet windows of four (whose
    reduces and steps take longer where all share two cores, which is no stall). The same of as many quiet windows is taken off.
    With --at-seal the newcomer copies while the seal waits.

    The newcomer has one core, members and coordinator share the other: it would come on a machine of its own, whose work is not
    the members' to bear. What its copy costs its source, which sends beside its work on the members' core, is in the figure.
    With --share-cores all share both.
    """
    NEWCOMER = "d"
    UNIT_S, UNITS = 1.0, 3
    QUIET, AFTER = 6, 2  # windows

    def run(self):
        stalls, longest = [], []
        with fleet.Fleet(self.folder, coordinator_arguments=self.coordinator_arguments(), prefix=self.core_of) as running:
            running.start_coordinator()
            running.wait_for_serving()
            if running.submit(job_text(self.UNITS)) != harness.OK:
                raise fleet.FleetError(running.last_error)
            for worker in WORKERS:
                running.start_worker(worker, "--synthetic", f"{self.UNIT_S * 1000},{self.arguments.parameters}")
            running.watch_windows()
            for trial in range(self.arguments.trials or 20):
                three, joining, entering, four = self.join(running, self.NEWCOMER)
                usual = statistics.median(three)
                beyond = self.beyond(joining, three) + self.beyond(entering, four)
                placebo = self.beyond(three[-len(joining):], three) + self.beyond(four[-len(entering):], four)
                stalls.append((sum(beyond) - sum(placebo)) / usual)
                longest.append(max(beyond) / usual)
                print(f"three {three}, joining {joining}, entering {entering}, four {four}", file=sys.stderr, flush=True)
        low, high = mean_interval(stalls)
        mean = statistics.fmean(stalls)
        print(f"| stall of the members by a join (mean) | {len(stalls)} | {mean * 100:.2f} | {low * 100:.2f} to "
              f"{high * 100:.2f} | {max(stalls) * 100:.2f} | % of a window | < 2: {verdict(mean, (low, high), 0.02)} |")
        row("longest window of a join, above the median of the quiet ones", longest, "% of a window", 100, {})

    def core_of(self, name):
        return [] if self.arguments.share_cores else ["taskset", "-c", "1" if name == self.NEWCOMER else "0"]

    def coordinator_arguments(self):
        return ("--background-joins", "false") if self.arguments.at_seal else ()

    @staticmethod
    def beyond(windows, quiet):
        return [seconds - statistics.median(quiet) for seconds in windows]

    def join(self, running, name):
        """Has it leave, and come back somewhere in a window. Lengths of windows: without it; from its start to its membership;
        the first ones with it; the quiet ones after these."""
        def is_member(line):
            return name in [share["name"] for share in line["workers"]]
        process = running.workers[name]
        running.until(lambda _: running.lines() and is_member(running.lines()[-1]), f"{name} is a member")
        process.signal(signal.SIGTERM)
        running.until(lambda event: isinstance(event, fleet.Exited) and event.process is process, f"{name} leaves")
        running.wait_for_windows(running.windows_committed() + 2 + self.QUIET)
        quiet = [line["window_seconds"] for line in running.lines()[-self.QUIET:]]
        running.hold(self.rng.random() * quiet[-1])
        begin = running.windows_committed()
        running.start_worker(name)
        members = self.AFTER + self.QUIET
        running.until(lambda _: len([line for line in running.lines()[begin:] if is_member(line)]) >= members,
                      f"{name} is a member again")
        lines = running.lines()[begin:]
        seconds = [line["window_seconds"] for line in lines]
        first = next(index for index, line in enumerate(lines) if is_member(line))
        return quiet, seconds[:first], seconds[first:first + self.AFTER], seconds[first + self.AFTER:]


class Serve(Join):
    """A member that computes a real model, on a core of its own, while a newcomer on the other core copies its state.

    The source's sending thread has no core of its own here, which is the worst case: what windows take longer is what a copy
    costs its source. Each window has one unit, so that none can be moved. Needs two cores and taskset.
    """
    MODEL = {"architecture": "gpt2", "vocabulary": 8192, "context": 64, "layers": 8, "heads": 8, "width": 384}
    SOURCE, NEWCOMER = "a", "b"

    def run(self):
        text = job_text(1, workers=2, model=self.MODEL, batch={"sequences": 32, "micro_batch": 32, "sequence_length": 32})
        with fleet.Fleet(self.folder, worker_timeout=10, coordinator_arguments=self.coordinator_arguments(),
                         prefix=lambda name: ["taskset", "-c", "0" if name == self.SOURCE else "1"]) as running:
            running.start_coordinator()
            running.wait_for_serving()
            if running.submit(text) != harness.OK:
                raise fleet.FleetError(running.last_error)
            running.start_worker(self.SOURCE, "--name", self.SOURCE)
            running.wait_for_windows(2)
            running.start_worker(self.NEWCOMER, "--name", self.NEWCOMER)
            costs, slowest = [], []
            for trial in range(self.arguments.trials or 20):
                one, joining, entering, two = self.join(running, self.NEWCOMER)
                beyond = self.beyond(joining, one) + self.beyond(entering, two)
                costs.append(sum(beyond))
                slowest.append(max(beyond) / statistics.median(one))
                print(f"one {one}, joining {joining}, entering {entering}, two {two}", file=sys.stderr, flush=True)
        row("what a copy costs its source: windows above the quiet ones, added up", costs, "ms", 1000, {})
        row("the slowest of these windows, above the quiet ones", slowest, "% of a window", 100, {})


class Overhead(Figure):
    """Windows of a fleet and of a plain all-reduce loop, at the same time, both of four workers."""
    UNIT_MS, UNITS_EACH, PARAMETERS = 250, 4, 1_000_000

    def run(self):
        windows = self.arguments.trials or 200
        plain_loop = os.path.join(harness.BIN, "accrue_bench_plain_loop")
        with self.start(job_text(self.UNITS_EACH * 4), {"all": self.UNIT_MS}, parameters=self.PARAMETERS) as running:
            plain = subprocess.run([plain_loop, "4", str(self.UNITS_EACH), f"{self.UNIT_MS},{self.PARAMETERS}",
                                    str(windows + 1)], capture_output=True, text=True, check=True)
            ours = [line["window_seconds"] for line in running.lines()][-windows:]
        theirs = [float(line.split()[1]) for line in plain.stdout.splitlines()][-len(ours):]
        row("a window of the fleet", ours, "ms", 1000, {})
        row("a window of the plain loop", theirs, "ms", 1000, {})
        differences = [mine - other for mine, other in zip(ours, theirs)]
        low, high = mean_interval(differences)
        share = statistics.fmean(differences) / statistics.fmean(theirs)
        interval = (low / statistics.fmean(theirs), high / statistics.fmean(theirs))
        print(f"| overhead of the mean window | {len(differences)} | {share * 100:.2f} | {interval[0] * 100:.2f} to "
              f"{interval[1] * 100:.2f} | | % | < 1: {verdict(share, interval, 0.01)} |")


class Slow(Figure):
    """One worker of four at a third of the speed, against the ideal for the summed speed."""
    UNIT_S, UNITS = 0.02, 40  # ideally 12, 12, 12 and 4: 0.24 s

    def run(self):
        windows = self.arguments.trials or 200
        ideal_s = self.UNITS * self.UNIT_S / (3 + 1 / 3)
        with self.start(job_text(self.UNITS), {"all": self.UNIT_S * 1000, "d": 3 * self.UNIT_S * 1000}) as running:
            running.wait_for_windows(running.windows_committed() + 10)
            begin = running.windows_committed()
            running.wait_for_windows(begin + windows)
            ratios = [line["window_seconds"] / ideal_s for line in running.lines()[begin:begin + windows]]
        row("a window with one of four at a third of the speed, against the ideal", ratios, "x", 1, {"median": 1.10})


class Streams(Figure):
    """A thousand connections whose workers are timers."""
    UNIT_MS = 1000

    def run(self):
        count = self.arguments.trials or 1000
        windows = 30
        harness.write_shard(os.path.join(self.folder, "train.bin"), harness.tokens_of(20 * count))  # one window's, and more
        with fleet.Fleet(self.folder, worker_timeout=30) as running:
            running.start_coordinator()
            running.wait_for_serving()
            text = job_text(count, workers=count, min_workers=count, windows=windows, data={"train": ["train.bin"]})
            if running.submit(text) != harness.OK:
                raise fleet.FleetError(running.last_error)
            bench = subprocess.Popen([os.path.join(harness.BIN, "accrue_bench_streams"), running.address, str(count),
                                      str(self.UNIT_MS), str(windows)], stdout=subprocess.PIPE, text=True)
            try:
                running.wait_for_windows(windows - 1)
                running.supervised = False
                running.coordinator.signal(signal.SIGTERM)
                print(bench.communicate(timeout=fleet.LIMIT_S)[0], flush=True)
            finally:
                bench.kill()


FIGURES = {"kill": Kill, "stop": Stop, "coordinator": Coordinator, "join": Join, "serve": Serve, "overhead": Overhead, "slow": Slow,
           "streams": Streams}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs")
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-seal", action="store_true", help="join and serve: newcomers copy while the seal waits")
    parser.add_argument("--parameters", type=int, default=1_000_000,
                        help="join: of the synthetic model, 12 bytes of state and 8 of sums each (default 1 million)")
    parser.add_argument("--share-cores", action="store_true", help="join: the newcomer has no core of its own")
    arguments = parser.parse_args()
    harness.BIN = os.path.abspath(arguments.programs)
    folder = tempfile.mkdtemp(prefix="accrue-figures-")
    try:
        print(f"{arguments.figure}, seed {arguments.seed}: {FIGURES[arguments.figure].__doc__}\n")
        header()
        FIGURES[arguments.figure](arguments, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
