"""The runs that come by the fault points: what a job is, and what happens to its fleet besides the fault.

A fault point names its scenario (common/fault_points.h); a point with one that is not here fails its test.
"""
import random
import signal

import harness
from fleet import Committed, FleetError, Stopped

PARAMETERS = 20_000
WINDOWS = 12
LONG = 48  # windows, of a run that goes on meanwhile
EVERY = 3  # windows: checkpoints and evaluations
WORKERS = ("a", "b", "c")
JOINER = "d"
UNIT_MS = 4
STALL_TIMEOUT = "0.5"  # seconds

_JOB = {
    "batch": {"sequences": 18, "micro_batch": 2},
    "schedule": {"name": "constant", "warmup_windows": None},
    "checkpoint": {"every_windows": EVERY},
    "data": {"validation": ["train.bin"]},
    "evaluation": {"every_windows": EVERY, "sequences": 6},
    "workers": {"min": 2, "max": 4},
}


def job_text(scenario, min_workers=2):
    changes = harness.merged(_JOB, {"workers": {"min": min_workers}, "windows": windows_of(scenario)})
    if scenario in ("audit", "lie"):
        changes = harness.merged(changes, {"audit": {"fraction": 1.0}})
    if scenario.startswith("replay"):
        # Parameters, and gradients with them, outgrow the exponents with the first step.
        changes = harness.merged(changes, {"optimizer": {"learning_rate": 1000.0, "weight_decay": 0.0}})
    return harness.job_text(**changes)


def windows_of(scenario):
    return SCENARIOS[scenario].windows if scenario in SCENARIOS else WINDOWS


class Scenario:
    """One run. Subclasses say who gets the fault, and what else happens."""

    spread = True       # the fault may be at any window, and be asked for by it
    of_a_later_life = False  # of the coordinator: its first life has no fault
    windows = WINDOWS
    coordinator_arguments = ()
    workers = WORKERS
    extra_workers = ()  # that come at window `joins_at`
    joins_at = 3

    def __init__(self, point, action, rng):
        self.point, self.action, self.rng = point, action, rng
        self.of_coordinator = point.name.startswith("coordinator.")
        self.window = rng.randrange(2, WINDOWS - 4)
        self.victim = rng.choice(self.workers)
        self.count = self.choose_count()

    def fault(self):
        if self.spread and self.point.windowed:
            return f"{self.point.name}@{self.window}={self.action}"
        return f"{self.point.name}#{self.count}={self.action}"

    def choose_count(self):
        return 1

    def arms(self, worker):
        """Whether this worker is given the fault."""
        return not self.of_coordinator and worker == self.victim

    def more_faults(self, worker):
        """Faults that are part of the scenario."""
        return []

    def unit_ms(self, worker):
        return UNIT_MS

    # ---- the run ----

    def worker_arguments(self, worker):
        faults = [*self.more_faults(worker), *([self.fault()] if self.arms(worker) else [])]
        arguments = ["--synthetic", f"{self.unit_ms(worker)},{PARAMETERS}", "--stall-timeout", STALL_TIMEOUT]
        for fault in faults:
            arguments += ["--fault", fault]
        return arguments

    def run(self, fleet):
        """From the first process to the job's end; the job's status."""
        fleet.coordinator_stops_for = 2 * fleet.worker_timeout  # nobody may be able to do anything meanwhile
        fleet.coordinator_arguments += ["--stall-timeout", STALL_TIMEOUT, *self.coordinator_arguments]
        if self.of_coordinator and not self.of_a_later_life:
            fleet.coordinator_arguments += ["--fault", self.fault()]
        fleet.start_coordinator()
        fleet.wait_for_serving()
        while fleet.submit(job_text(self.point.scenario)) == harness.UNREACHABLE:
            fleet.wait_for_serving()
        for worker in self.workers:
            fleet.start_worker(worker, *self.worker_arguments(worker))
        fleet.watch_windows()
        self.disturb(fleet)
        self.handle_stop(fleet)
        return fleet.wait_for_end(self.windows)

    def disturb(self, fleet):
        """What happens besides the fault."""
        for worker in self.extra_workers:
            fleet.wait_for_windows(self.joins_at)
            fleet.start_worker(worker, *self.worker_arguments(worker))

    def arm_next_life(self, fleet):
        if self.of_coordinator:
            fleet.coordinator_arguments += ["--fault", self.fault()]

    def handle_stop(self, fleet):
        """A stopped worker goes on once the others have done without it for a while."""
        if self.action != "stop" or self.of_coordinator:
            return
        stopped = fleet.take_stopped()
        if stopped is None:
            stopped = fleet.until(lambda event: isinstance(event, Stopped), "a process stops")
        goal = min(fleet.windows_committed() + 2, self.windows)
        if fleet.windows_committed() < goal:
            fleet.until(lambda event: isinstance(event, Committed) and event.windows >= goal,
                        f"the others commit window {goal} without {stopped.process.name}")
        stopped.process.signal(signal.SIGCONT)


class Train(Scenario):
    pass


class Checkpoint(Scenario):
    """Points that only some windows come by."""
    spread = False

    def choose_count(self):
        return 1 + self.rng.randrange(2)


class Start(Scenario):
    """Points of a job's beginning."""
    spread = False

    def arms(self, worker):
        return not self.of_coordinator


class Replay(Scenario):
    """A window is computed again with other exponents: windows 1 and on of a rate that explodes."""
    spread = False


class Join(Scenario):
    """A worker joins beside the members' work; the fault is the newcomer's."""
    spread = False
    extra_workers = (JOINER,)
    windows = LONG  # the members do not wait for it

    def unit_ms(self, worker):
        return 2 * UNIT_MS

    def arms(self, worker):
        return not self.of_coordinator and worker == JOINER


class Source(Join):
    """A worker joins; the fault is whoever's that sends the state."""

    def arms(self, worker):
        return worker != JOINER


class Follow(Join):
    """Windows end while a worker copies the state: it stops in the middle for so long. The fault is the newcomer's."""

    def more_faults(self, worker):
        return ["worker.copy_run_received=stop"] if worker == JOINER else []

    def disturb(self, fleet):
        super().disturb(fleet)
        stopped = fleet.until(lambda event: isinstance(event, Stopped), "the newcomer stops in the middle of its copy")
        fleet.take_stopped()
        fleet.wait_for_windows(min(fleet.windows_committed() + 2, self.windows))
        stopped.process.signal(signal.SIGCONT)


class FollowSource(Follow):
    """The same; the fault is whoever's that sends the state."""

    def arms(self, worker):
        return worker != JOINER


class Sync(Join):
    """A worker joins while the seal waits; the fault is the newcomer's."""
    windows = WINDOWS
    coordinator_arguments = ("--background-joins", "false")


class SyncSource(Sync):
    """The same; the fault is whoever's that sends the state."""

    def arms(self, worker):
        return worker != JOINER


class Abort(Scenario):
    """Another worker dies in the reduce of the window."""

    def more_faults(self, worker):
        other = WORKERS[(WORKERS.index(self.victim) + 1) % len(WORKERS)]
        return [f"worker.bucket_reducing@{self.window}=kill"] if worker == other else []


class Drain(Scenario):
    """A worker is told to leave."""
    spread = False

    def disturb(self, fleet):
        fleet.wait_for_windows(3)
        fleet.workers[self.victim].signal(signal.SIGTERM)


class Leave(Scenario):
    """A worker is told to leave, and then to leave at once."""
    spread = False

    def disturb(self, fleet):
        fleet.wait_for_windows(3)
        for number in (signal.SIGTERM, signal.SIGINT):
            fleet.workers[self.victim].signal(number)


class Audit(Scenario):
    """All units are computed twice."""


class Recall(Scenario):
    """One worker is slow: units that it has not begun are asked back before it is known to be."""
    spread = False

    def unit_ms(self, worker):
        return 10 * UNIT_MS if worker == self.victim else UNIT_MS


class Lie(Scenario):
    """One bit of one gradient of another worker is wrong, in a job that audits all units."""
    spread = False

    def more_faults(self, worker):
        return [f"flip-gradient@{self.window}"] if worker == self.victim else []


class Disagree(Scenario):
    """One of two workers steps to another state: back to the checkpoint."""
    spread = False
    workers = WORKERS[:2]

    def more_faults(self, worker):
        return [f"flip-moment@{self.window}"] if worker == self.victim else []


class Restart(Scenario):
    """The coordinator is killed."""
    spread = False
    of_a_later_life = True

    def disturb(self, fleet):
        fleet.wait_for_windows(3)
        self.arm_next_life(fleet)
        fleet.coordinator.signal(signal.SIGKILL)


class Rollback(Scenario):
    """Everything is killed at once."""
    spread = False
    of_a_later_life = True

    def arms(self, worker):
        return not self.of_coordinator

    def disturb(self, fleet):
        fleet.wait_for_windows(EVERY + 2)
        self.arm_next_life(fleet)
        for process in [*fleet.workers.values(), fleet.coordinator]:
            process.signal(signal.SIGKILL)


SCENARIOS = {
    "train": Train, "checkpoint": Checkpoint, "start": Start, "replay": Replay, "join": Join, "source": Source,
    "follow": Follow, "follow_source": FollowSource, "sync": Sync, "sync_source": SyncSource,
    "abort": Abort, "drain": Drain, "leave": Leave, "audit": Audit, "recall": Recall, "lie": Lie, "disagree": Disagree,
    "restart": Restart, "rollback": Rollback,
}


def make(point, action, seed):
    if point.scenario not in SCENARIOS:
        raise FleetError(f"{point.name} is of scenario \"{point.scenario}\", expected one of {sorted(SCENARIOS)}")
    return SCENARIOS[point.scenario](point, action, random.Random(f"{seed} {point.name} {action}"))
