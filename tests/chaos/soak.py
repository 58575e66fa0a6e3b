#!/usr/bin/env python3
"""A long job whose workers die one after the other, at seeded points of the protocol, and whose coordinator dies too.

    soak.py PROGRAMS [--windows 300] [--kills 60] [--coordinator-kills 10] [--seed N] [--keep FOLDER]

Every dead worker is replaced, every dead coordinator started again. It must end with the digest of an undisturbed run,
each window once and in order; and a unit may be computed again only if the worker that had computed it was lost. Prints
what happened, and the seed that makes it happen again. A fresh seed each time, unless one is given.
"""
import argparse
import collections
import datetime
import json
import math
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import fleet  # noqa: E402
import harness  # noqa: E402
import oracle  # noqa: E402
import points  # noqa: E402

WORKERS = ("a", "b", "c", "d")
UNITS = 16
PARAMETERS = 20_000


def job_text(windows, min_workers):
    return harness.job_text(batch={"sequences": UNITS * 2, "micro_batch": 2}, windows=windows,
                            schedule={"name": "constant", "warmup_windows": None}, checkpoint={"every_windows": 20},
                            data={"validation": ["train.bin"]}, evaluation={"every_windows": 10, "sequences": 4},
                            workers={"min": min_workers, "max": len(WORKERS)})


def plan_deaths(rng, candidates, names, windows, count):
    """{name: [fault, ...]}: so many deaths at even distances, none of a worker that has just come back."""
    faults = {name: [] for name in names}
    recent = []
    for i in range(count):
        window = 3 + i * (windows - 8) // count
        name = rng.choice([name for name in names if name not in recent])
        recent = (recent + [name])[-min(2, len(names) - 1):] if len(names) > 1 else []
        faults[name].append(f"{rng.choice(candidates).name}@{window}=kill")
    return faults


class Soak:

    def __init__(self, arguments, folder):
        self.windows, self.unit_ms = arguments.windows, arguments.unit_ms
        rng = random.Random(arguments.seed)
        train = [point for point in points.listed() if point.scenario == "train" and point.windowed]
        worker_points = [point for point in train if point.name.startswith("worker.")]
        coordinator_points = [point for point in train if point.name.startswith("coordinator.")]
        # Some may find nothing to fail at: a worker that is joining has no unit to begin.
        self.planned = plan_deaths(rng, worker_points, WORKERS, self.windows, arguments.kills * 5 // 4)
        self.coordinator_planned = plan_deaths(rng, coordinator_points, ("coordinator",), self.windows,
                                               arguments.coordinator_kills)["coordinator"]
        self.fleet = fleet.Fleet(folder, worker_timeout=2.0)

    def run(self):
        with self.fleet:
            for fault in self.coordinator_planned:
                self.fleet.coordinator_arguments += ["--fault", fault]
            self.fleet.start_coordinator()
            self.fleet.wait_for_serving()
            if self.fleet.submit(job_text(self.windows, 2)) != harness.OK:
                raise fleet.FleetError(f"submit: {self.fleet.last_error}")
            for worker in WORKERS:
                faults = [part for fault in self.planned[worker] for part in ("--fault", fault)]
                self.fleet.start_worker(worker, "--synthetic", f"{self.unit_ms},{PARAMETERS}", "--log-level", "debug",
                                        "--log-format", "json", *faults)
            begin = time.monotonic()
            status = self.fleet.wait_for_end(self.windows)
            self.seconds = time.monotonic() - begin
            self.ledger = self.fleet.ledger()
            return status

    def read_lives(self):
        """When each incarnation was over, as {life: unix seconds}, and what was added: [(when, window, unit, life)]."""
        over, added = {}, []
        for worker in WORKERS:
            deaths = [death.at_unix_s for death in self.fleet.deaths if death.process.name == worker]
            process, joins = -1, 0
            for entry in entries_of(self.fleet.path(f"{worker}.log")):
                at, life = seconds_of(entry["time"]), (worker, process, joins)
                if entry["message"] == "worker starts":  # the processes of a name write one log, in turn
                    process, joins = process + 1, 0
                elif entry["message"] == "joined":
                    over.setdefault(life, at)
                    joins += 1
                    if process < len(deaths):
                        over[worker, process, joins] = deaths[process]
                elif entry["message"] in ("job left", "no coordinator; trying again"):
                    over[life] = min(over.get(life, at), at)
                elif entry["message"] == "unit added":
                    added.append((at, entry["window"], entry["unit"], life))
        return over, sorted(added)

    def count_units(self):
        """Units computed in all; those computed again; and of these, those whose former worker was still alive."""
        over, added = self.read_lives()
        holder, again, needless = {}, 0, []
        for at, window, unit, life in added:
            former = holder.get((window, unit))
            if former is not None:
                again += 1
                if over.get(former, math.inf) > at:
                    needless.append((window, unit, former, life))
            holder[window, unit] = life
        return len(added), again, needless


def entries_of(path):
    """The JSON lines of a log; a line that death has cut short is none."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and "message" in entry:
                yield entry


def seconds_of(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs")
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--coordinator-kills", type=int, default=10)
    parser.add_argument("--unit-ms", type=float, default=25)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", help="run in this folder and leave it there")
    arguments = parser.parse_args()
    harness.BIN = os.path.abspath(arguments.programs)
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {arguments.seed}", flush=True)
    folder = arguments.keep or tempfile.mkdtemp(prefix="accrue-soak-")
    try:
        soak = Soak(arguments, folder)
        status = soak.run()
        reference = oracle.undisturbed(job_text(arguments.windows, 1), PARAMETERS, arguments.windows,
                                       os.path.join(os.path.dirname(harness.BIN), "chaos-references"))
        oracle.compare(soak.fleet, reference, status)
        deaths = collections.Counter("coordinator" if death.process is None or death.process.name == "coordinator"
                                     else "worker" for death in soak.fleet.deaths if death.code == -9)
        added, again, needless = soak.count_units()
        expected = arguments.windows * UNITS
        print(f"{arguments.windows} windows in {soak.seconds:.1f} s, digest {status['digest']}: as undisturbed\n"
              f"worker deaths {deaths['worker']}, coordinator deaths {deaths['coordinator']}, "
              f"epochs {status['epoch']}, timeline {status['timeline']}\n"
              f"units {expected}, computed {added}, again {again}, needlessly {len(needless)}", flush=True)
        problems = []
        if deaths["worker"] < arguments.kills:
            problems.append(f"expected at least {arguments.kills} deaths of workers")
        if deaths["coordinator"] < arguments.coordinator_kills:
            problems.append(f"expected {arguments.coordinator_kills} deaths of the coordinator")
        if needless:
            problems.append(f"computed again though whoever had computed them lived: {needless[:5]}")
        for problem in problems:
            print(f"FAIL {problem}")
        return 1 if problems else 0
    except fleet.FleetError as error:
        print(f"FAIL seed {arguments.seed}: {error}")
        return 1
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
