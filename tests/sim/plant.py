#!/usr/bin/env python3
"""Plants bugs in a copy of the coordinator's core, one at a time, and lets the soak find them.

Run: tests/sim/plant.py [--only NAME...] [--seconds N] [--first SEED] [--build FOLDER]

Prints a table: what was planted, the seed that showed it, after how many seconds, and what was said. The seed is run
once more, to see that it replays. Exits 1 if a bug was not found, or if the soak found one where none was planted.
"""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CORE = "coordinator/core/"
# What the core asserts of itself is taken out of a file with this, to see what the simulator sees without it.
UNCHECKED = "\n#undef ACCRUE_CHECK\n#define ACCRUE_CHECK(condition) static_cast<void>(condition)\n"


class Plant:
    """Changes: (file, line as it is, what it becomes). unchecked: files whose assertions are taken out."""

    def __init__(self, name, what, changes, unchecked=(), scenario="chaos"):
        self.name, self.what, self.changes = name, what, changes
        self.unchecked, self.scenario = unchecked, scenario


ONE_SHORT = [
    ("seal.cc", "if (!run.leases.complete() || run.evaluation) return false;",
     "if (run.leases.done() + 1 < run.leases.size() || run.evaluation) return false;"),
    ("seal.cc", "if (run.computed < static_cast<int64_t>(job.members.size())) return false;",
     "if (run.computed + 1 < static_cast<int64_t>(job.members.size())) return false;"),
]
SEAL_EARLY = [
    ("machine.cc", "if (job.current && job.current->sealed) return FinishAbort(job) || TryCommit(job);",
     """if (job.current && job.current->sealed) {
    if (FinishAbort(job) || TryCommit(job)) return true;
    if (!job.next || job.next->sealed || !job.next->leases.complete()) return false;
    std::swap(job.current, job.next);
    SealWindow(job, job.current->Sum());
    std::swap(job.current, job.next);
    return true;
  }"""),
]

PLANTS = [
    Plant("timeline fence", "skip the fence: what is said of a timeline that was left counts",
          [("machine.cc", "if (key.timeline != job->timeline) return refuse(\"timeline is old\");", "")]),
    Plant("attempt fence", "skip the fence: reports of a void attempt count",
          [("reports.cc", "if ((*run)->attempt == key.attempt) return &**run;", "return &**run;")]),
    Plant("epoch fence", "skip the fence: a step that followed an older seal counts",
          [("commit.cc", "if (!run->sealed || event.key.epoch != run->sealed->epoch) return Drop(\"seal is old\");",
            "if (!run->sealed) return Drop(\"seal is old\");")]),
    Plant("failure fence", "skip the fence: a failure in the reduce of an older seal counts",
          [("recovery.cc", "if (!run->sealed || event.key.epoch != run->sealed->epoch || sender->worker->role != Role::kMember) {",
            "if (!run->sealed || sender->worker->role != Role::kMember) {")]),
    Plant("life fence", "skip the fence: a worker that is not awaited any more is heard when it comes back",
          [("restore.cc", "if (job->restoring && job->restoring->awaited.count(incarnation) > 0) return \"\";",
            "if (job->restoring) return \"\";"),
           ("restore.cc", "return job->restoring && job->restoring->awaited.count(incarnation) > 0;",
            "return job->restoring.has_value();")]),
    Plant("one short", "seal one unit short", ONE_SHORT),
    Plant("one short, unchecked", "the same, the core's own assertions taken out", ONE_SHORT,
          ["seal.cc", "window_run.cc", "machine.cc"]),
    Plant("twice", "count a unit twice: lease one that has begun to a second worker (a hedge), and let both count",
          [("balance.cc", "SendTo(worker, Recall{KeyFor(job, worker, run.number, run.attempt), units});",
            """for (int64_t unit = run.leases.size() - 1; unit >= 0 && part.recalled > 0; --unit) {
    if (!run.leases.Holds(worker, unit) || run.leases.Done(unit)) continue;
    run.leases.Return(worker, unit);
    --part.recalled;
  }
  --run.recalls;"""),
           ("reports.cc", "if (!wrong.empty())\n    return ExpelWorker(event.from, absl::StrCat(\"its accumulator",
            "if (false)\n    return ExpelWorker(event.from, absl::StrCat(\"its accumulator")]),
    Plant("epoch", "forget to persist the epoch",
          [("members.cc", "Persist(job, PersistEpoch{job.config.id, job.timeline, job.epoch, attempt, job.members});",
            "static_cast<void>(attempt);")]),
    Plant("seal early", "seal the next window before this one commits", SEAL_EARLY),
    Plant("seal early, unchecked", "the same, the core's own assertions taken out", SEAL_EARLY,
          ["seal.cc", "window_run.cc", "machine.cc"]),
    Plant("vote", "commit with the first member's vote",
          [("commit.cc", "if (sealed.steps.size() < job.members.size()) return false;",
            "if (sealed.steps.empty()) return false;")]),
]


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def write(path, text):
    """Only what differs, so that only that is built again."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Copy:
    """The sources as they are, and the soak built from them."""

    def __init__(self, folder):
        self.source, self.build = folder / "source", folder / "build"
        names = run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True).stdout.splitlines()
        names = [name for name in names if (ROOT / name).is_file()]
        for stale in set(str(path.relative_to(self.source)) for path in self.source.rglob("*") if path.is_file()):
            if stale not in names:
                (self.source / stale).unlink()
        for name in names:
            target = self.source / name
            if not target.exists() or target.read_bytes() != (ROOT / name).read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, target)
        self.planted = set()

    def plant(self, plant):
        texts = {}
        for name, line, planted in plant.changes:
            text = texts.get(name, (ROOT / CORE / name).read_text())
            if text.count(line) != 1:
                sys.exit(f"{plant.name}: {CORE}{name} has this line {text.count(line)} times, expected once:\n{line}")
            texts[name] = text.replace(line, planted)
        for name in plant.unchecked:
            text = texts.get(name, (ROOT / CORE / name).read_text())
            last = [match.end() for match in re.finditer(r"^#include .*$", text, re.M)][-1]
            texts[name] = text[:last] + UNCHECKED + text[last:]
        for name in self.planted - set(texts):
            write(self.source / CORE / name, (ROOT / CORE / name).read_text())
        for name, text in texts.items():
            write(self.source / CORE / name, text)
        self.planted = set(texts)

    def make(self):
        if not (self.build / "CMakeCache.txt").exists():
            done = run(["cmake", "-S", self.source, "--preset", "dev", "-B", self.build])
            if done.returncode != 0:
                sys.exit(done.stdout)
        done = run(["cmake", "--build", self.build, "-j", "1", "--target", "sim_soak"])
        if done.returncode != 0:
            sys.exit(done.stdout)

    def soak(self, *options):
        begin = time.monotonic()
        done = run([self.build / "tests/sim_soak", *options])
        return done.returncode, done.stdout, time.monotonic() - begin


def finding(output):
    """(seed, what was said)."""
    seed = re.search(r"replay: .*--seed (\d+)", output)
    check = re.search(r"^.*ACCRUE_CHECK.*$|^.*[Cc]heck failed.*$", output, re.M)
    failed = re.search(r"^FAILED after .* s\n(.*)$", output, re.M)
    what = failed.group(1) if failed else check.group(0) if check else "the core ended the program"
    return seed.group(1) if seed else "?", re.sub(r"^seed \d+ ", "", what)[:120]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these bugs alone")
    parser.add_argument("--seconds", type=float, default=60, help="of soaking, at most, for each")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/planted")
    arguments = parser.parse_args()
    plants = [plant for plant in PLANTS if not arguments.only or plant.name in arguments.only]
    if not plants:
        sys.exit(f"no such bug; there are: {', '.join(plant.name for plant in PLANTS)}")

    copy = Copy(arguments.build)
    missed = 0
    print("| planted | found by seed | after, s | what was said |\n|---|---|---|---|", flush=True)
    soaking = ["--seconds", str(arguments.seconds), "--first", str(arguments.first)]
    for plant in [Plant("nothing", "nothing", []), *plants]:
        copy.plant(plant)
        copy.make()
        code, output, seconds = copy.soak(*soaking, "--scenario", plant.scenario)
        if (code == 0) != (plant.name == "nothing"):
            missed += 1
        if code == 0:
            print(f"| {plant.what} | none | {seconds:.1f} | every check held |", flush=True)
            continue
        seed, what = finding(output)
        replayed = copy.soak("--seed", seed, "--scenario", plant.scenario)[0] != 0
        print(f"| {plant.what} | {seed}{'' if replayed else ', does not replay'} | {seconds:.1f} | {what} |", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
