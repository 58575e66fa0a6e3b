#!/usr/bin/env python3
"""Rules of the code base that a compiler does not know. Prints each breach with its place; exits 1 if there is one.

Run: tests/tidy/tidy.py [REPOSITORY]
"""
import pathlib
import re
import subprocess
import sys

# Which folders a folder may include from. The longest matching prefix decides; a folder may include itself.
# Dependencies point one way: docs/architecture.md.
ALLOWED = {
    "common": {"common"},
    "common/spec": {"common", "accrue/v1"},
    "coordinator/core": {"common"},
    "coordinator/journal": {"coordinator/core", "common"},
    "coordinator/server": {"coordinator/journal", "coordinator/core", "common", "accrue/v1"},
    "worker/engine": {"common"},
    "worker/backend": {"common"},
    "worker/backend/cpu": {"worker/backend", "common"},
    "worker/backend/cpu_state": {"worker/backend", "common"},
    "worker/backend/cuda": {"worker/backend/*.h", "worker/backend/plugin/gpu_probe.h", "common"},
    "worker/backend/cuda/plugin": {"worker/backend/cuda", "worker/backend/*.h", "worker/backend/plugin",
                                   "worker/collective", "common"},
    "worker/backend/plugin": {"worker/backend/*.h", "worker/collective/collective.h", "common"},
    "worker/accumulate": {"worker/engine", "worker/backend/*.h", "common"},
    "worker/optimizer": {"worker/accumulate", "worker/engine", "worker/backend/*.h", "common"},
    "worker/model": {"worker/engine", "worker/backend/*.h", "worker/checkpoint/safetensors.h", "common"},
    "worker/model/spec": {"worker/model", "common", "accrue/v1"},
    "worker/collective": {"common"},
    "worker/synthetic": {"worker/engine", "common"},
    "worker/checkpoint": {"worker/optimizer", "worker/accumulate", "worker/engine", "worker/backend/*.h", "common"},
    "worker/data": {"worker/engine", "common"},
    "worker/trace": {"worker/collective/collective.h", "common"},
    "worker/core": {"worker/engine", "worker/accumulate", "worker/optimizer", "worker/checkpoint", "worker/data",
                    "worker/trace", "worker/collective/collective.h", "worker/backend/*.h", "common", "accrue/v1"},
    "worker/app": {"worker", "common", "accrue/v1"},
    "client": {"common", "worker", "accrue/v1"},
    "tests": {"common", "coordinator", "worker", "client", "tests", "accrue/v1"},
    "bench": {"common", "coordinator", "worker", "client", "bench", "tests", "accrue/v1"},
}
PROJECT_ROOTS = ("common/", "coordinator/", "worker/", "client/", "tests/", "bench/", "deploy/", "accrue/v1/")

# Real time is read in one place only, so that tests own the clock. Names where the ban is lifted, and why.
CLOCK_EXEMPT = {
    "common/clock.cc",  # the one place
    "worker/backend/cpu/thread_pool.cc",  # how long to spin before blocking; no result depends on it
}
CLOCK = re.compile(r"(steady_clock|system_clock|high_resolution_clock)::now|\bgettimeofday\(|\bclock_gettime\(|absl::Now\(")
SLEEP = re.compile(r"\bsleep_for\b|\bsleep_until\b|\bSleepFor\(|\busleep\(|\bnanosleep\(")
LONGEST_FILE_LINES = 600


def longest_prefix(folder, table):
    best = None
    for key in table:
        if (folder == key or folder.startswith(key + "/")) and (best is None or len(key) > len(best)):
            best = key
    return best


def allowed(own, include, rules):
    if include.startswith(own + "/"):
        return True
    for rule in rules:
        if rule.endswith("/*.h"):
            if str(pathlib.PurePosixPath(include).parent) == rule[:-4]:
                return True
        elif include == rule or include.startswith(rule + "/"):
            return True
    return False


def check_source(name, text, complain):
    folder = str(pathlib.PurePosixPath(name).parent)
    own = longest_prefix(folder, ALLOWED)
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name}:{number}"
        match = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
        if match and own:
            include = match.group(1)
            if include.startswith(PROJECT_ROOTS) and not allowed(own, include, ALLOWED[own]):
                complain(where, f"{own} must not include {include}: dependencies point one way (docs/architecture.md)")
            if own == "coordinator/core" and re.match(r"(grpc|google/protobuf|thread|mutex|fstream|chrono|sqlite)", include):
                complain(where, f"the core is a pure state machine: no {include}")
            if "cuda" in include and not name.startswith(("worker/backend/cuda", "tests/", "bench/")) \
                    and re.match(r"(cuda|cublas|nccl|nv)", include):
                complain(where, f"CUDA headers appear only in worker/backend/cuda: {include}")
        code = line.split("//")[0]
        if CLOCK.search(code) and name not in CLOCK_EXEMPT and not name.startswith("bench/"):
            complain(where, "reads the real clock: take a Clock (common/clock.h)")
        if name.startswith("tests/") and SLEEP.search(code):
            complain(where, "a test must not sleep: advance the clock or wait for the event")
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            complain(where, "an open end: finish it, or write it down as an issue")
        if re.search(r"[ \t]+$", line):
            complain(where, "trailing white space")
    lines = text.count("\n")
    if lines > LONGEST_FILE_LINES:
        complain(name, f"{lines} lines: a file of more than {LONGEST_FILE_LINES} holds more than one idea")


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2])
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True)
    names = [n for n in listed.stdout.splitlines() if (root / n).is_file()]
    breaches = []

    def complain(where, what):
        breaches.append(f"{where}: {what}")

    build_files = "\n".join((root / n).read_text() for n in names if n.endswith(("CMakeLists.txt", ".cmake")))
    sources = [n for n in names if n.endswith((".cc", ".h", ".cu", ".cuh"))]
    for name in sources:
        check_source(name, (root / name).read_text(), complain)
        if name.endswith((".cc", ".cu")) and not re.search(r"\b" + re.escape(pathlib.PurePosixPath(name).name), build_files):
            complain(name, "no build file names it, so it is never compiled or run")
        if name.endswith("_test.cc") and not name.startswith("tests/"):
            complain(name, "tests live under tests/")
        # -inl.h: vector code that is compiled once per instruction set, so included many times on purpose.
        if name.endswith(".h") and not name.endswith("-inl.h") and "#pragma once" not in (root / name).read_text():
            complain(name, "a header begins with #pragma once")
    # A point that nothing passes would be a test that cannot fail.
    points = "common/fault_points.h"
    if points in names:
        code = "\n".join((root / n).read_text() for n in sources if n != points and not n.startswith("tests/"))
        for point in re.findall(r"\bX\((k\w+),", (root / points).read_text()):
            if f"FaultPoint::{point}" not in code:
                complain(points, f"no code passes the fault point {point}")
    if not sources:
        complain(str(root), "found no sources: is this the repository?")

    for breach in breaches:
        print(breach)
    print(f"tidy: {len(sources)} source files, {len(breaches)} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
