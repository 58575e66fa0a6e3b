#!/usr/bin/env python3
"""One fault at one point of the protocol, in a fleet of real processes; it must end as an undisturbed run does.

    fault_test.py PROGRAMS POINT ACTION [--seed N] [--keep FOLDER]
    fault_test.py PROGRAMS --ctest            ctest commands, one for each point and action
    fault_test.py PROGRAMS --all [--seed N]   every point and every action

PROGRAMS is the folder of the programs.
"""
import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import fleet  # noqa: E402
import harness  # noqa: E402
import oracle  # noqa: E402
import points  # noqa: E402
import scenarios  # noqa: E402

# Of each point, what ctest tries, and of some what else; --all tries all.
IN_CTEST = ("kill",)
ALSO_IN_CTEST = {
    "worker.unit_begun": ("stop", "hang", "error"), "worker.seal_taken": ("stop", "exit"),
    "worker.bucket_reducing": ("error",), "worker.shard_begun": ("error",), "worker.synced": ("exit",),
    "worker.copy_run_received": ("stop", "error"), "worker.copy_run_sent": ("stop", "hang", "error"),
    "worker.copied": ("exit",),
    "coordinator.commit_recorded": ("stop", "exit", "hang"), "coordinator.manifest_renaming": ("error",),
}
FLIP = "flip"  # tests of their own: flip_test.py


def run(point, action, seed, folder, cache):
    """Raises FleetError when the run does not end as it should."""
    scenario = scenarios.make(point, action, seed)
    reference = oracle.undisturbed(scenarios.job_text(point.scenario, min_workers=1), scenarios.PARAMETERS,
                                   scenarios.windows_of(point.scenario), cache)
    with fleet.Fleet(folder) as disturbed:
        status = scenario.run(disturbed)
        if scenario.fault() not in disturbed.faults_made():
            raise fleet.FleetError(f"no process came by: {scenario.fault()}\n{disturbed.logs()}")
        killed = [death.process.name for death in disturbed.deaths if death.code == -9]
        if action == "kill" and not killed:
            raise fleet.FleetError(f"nobody was killed: {disturbed.deaths}")
        oracle.compare(disturbed, reference, status)
    return scenario.fault()


def print_ctest(script):
    print("# made by fault_test.py --ctest from what the programs list; not to be edited")
    for point in points.listed():
        for action in point.actions:
            if action not in IN_CTEST + ALSO_IN_CTEST.get(point.name, ()):
                continue
            name = f"chaos.{point.name}.{action}"
            print(f'add_test([=[{name}]=] "{sys.executable}" "{script}" "{harness.BIN}" {point.name} {action})')
            print(f"set_tests_properties([=[{name}]=] PROPERTIES LABELS fault TIMEOUT 180)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs")
    parser.add_argument("point", nargs="?")
    parser.add_argument("action", nargs="?")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="run in this folder and leave it there")
    parser.add_argument("--ctest", action="store_true")
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    harness.BIN = os.path.abspath(arguments.programs)
    if arguments.ctest:
        return print_ctest(os.path.abspath(__file__))
    if arguments.all:
        chosen = [(point, action) for point in points.listed() for action in point.actions if action != FLIP]
    elif arguments.point and arguments.action:
        chosen = [(points.find(arguments.point), arguments.action)]
    else:
        parser.error("expected POINT and ACTION, --all or --ctest")
    cache = os.path.join(os.path.dirname(harness.BIN), "chaos-references")
    failed = 0
    for point, action in chosen:
        folder = arguments.keep or tempfile.mkdtemp(prefix="accrue-chaos-")
        begin = time.monotonic()
        try:
            fault = run(point, action, arguments.seed, folder, cache)
            print(f"ok   {fault}  {time.monotonic() - begin:.1f} s", flush=True)
        except fleet.FleetError as error:
            failed += 1
            print(f"FAIL {point.name} {action}, seed {arguments.seed}: {error}", flush=True)
        finally:
            if not arguments.keep:
                shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
