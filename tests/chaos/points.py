"""The fault points, as the programs list them."""
import collections
import subprocess

import harness

Point = collections.namedtuple("Point", "name scenario actions windowed where")


def listed():
    points = []
    for program in ("accrue-worker", "accrued"):
        text = subprocess.run([harness.program(program), "--list-fault-points"], check=True, capture_output=True,
                              text=True).stdout
        for line in text.splitlines():
            name, scenario, actions, windowed, where = line.split("\t")
            points.append(Point(name, scenario, tuple(actions.split(",")), windowed == "windowed", where))
    return points


def find(name):
    for point in listed():
        if point.name == name:
            return point
    raise SystemExit(f"no fault point {name}: see accrue-worker --list-fault-points and accrued --list-fault-points")
