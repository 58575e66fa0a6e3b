"""A coordinator and workers as processes, with a supervisor that starts again whatever dies.

Events (a process ended, stopped, or serves; a window was committed) come to one queue; nothing polls. Every process and
file lives in the fleet's folder, and nothing outlives the fleet.
"""
import collections
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
import harness  # noqa: E402
from harness import FolderWatch  # noqa: E402

LIMIT_S = 90  # for anything that is waited for
MOST_LIVES = 100  # of one worker

Exited = collections.namedtuple("Exited", "process code at_ns at_unix_s")  # code: of exit, or minus the signal
Stopped = collections.namedtuple("Stopped", "process at_ns")
Serving = collections.namedtuple("Serving", "process at_ns")
Committed = collections.namedtuple("Committed", "windows at_ns")  # so many are in windows.jsonl


class FleetError(AssertionError):
    """What the fleet did is not what it should have done."""


class Process:
    """One life of a program. A thread waits for what becomes of it."""

    def __init__(self, name, argv, log_path, events, stops_for=None):
        """stops_for: seconds after which it goes on when it has stopped; None: whoever wants that sees to it."""
        self.name, self.argv, self.log_path, self.stops_for = name, argv, log_path, stops_for
        self._events = events
        self.running = True
        with open(log_path, "ab") as log:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = self.popen.pid
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self):
        while True:
            info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
            at_ns, at_unix_s = time.monotonic_ns(), time.time()
            if info.si_code == os.CLD_STOPPED:
                os.waitid(os.P_PID, self.pid, os.WSTOPPED)
                self._events.put(Stopped(self, at_ns))
                if self.stops_for is not None:
                    threading.Timer(self.stops_for, self.signal, [signal.SIGCONT]).start()
                continue
            with self._lock:  # after this the number may be another process's
                os.waitid(os.P_PID, self.pid, os.WEXITED)
                self.running = False
            code = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
            self.popen.returncode = code
            self._events.put(Exited(self, code, at_ns, at_unix_s))
            return

    def signal(self, number):
        with self._lock:
            if self.running:
                os.kill(self.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self._thread.join(LIMIT_S)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()


class Fleet:
    """Used as a context. `prefix` is put before a command, by name: ("ip", "netns", "exec", ...)."""

    def __init__(self, folder, worker_timeout=0.8, http="none", prefix=None, listen="127.0.0.1:0",
                 coordinator_arguments=()):
        self.folder = folder
        self.events = queue.Queue()
        self.worker_timeout = worker_timeout
        self.http = http
        self.coordinator_arguments = list(coordinator_arguments)
        self.prefix = prefix or (lambda name: [])
        self.address, self._listen = None, listen
        self.coordinator = None
        self.workers = {}  # by name
        self._worker_arguments = {}
        self._lives = collections.Counter()
        self.deaths = []  # Exited events, in order
        self._stopped = []
        self.supervised = True
        self.coordinator_stops_for = None  # seconds, as Process
        self.output = os.path.join(folder, "out")
        self._watched = False
        os.makedirs(os.path.join(folder, "once"), exist_ok=True)
        os.makedirs(self.output, exist_ok=True)
        if not os.path.exists(self.path("train.bin")):
            harness.write_shard(self.path("train.bin"), harness.tokens_of(2000))

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.supervised = False
        for process in [*self.workers.values(), self.coordinator]:
            if process is not None:
                process.kill()

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    # ---- processes ----

    def start_coordinator(self, *arguments):
        """`arguments` are those of this life only. Serving is queued once it answers."""
        ready = self.path("ready", "ready.json")
        os.makedirs(self.path("ready"), exist_ok=True)
        if os.path.exists(ready):
            os.remove(ready)
        argv = [*self.prefix("coordinator"), harness.program("accrued"), "--listen", self.address or self._listen,
                "--http", self.http, "--state", self.path("state"), "--data-root", self.folder,
                "--worker-timeout", str(self.worker_timeout), "--ready-file", ready,
                "--fault-once", self.path("once"), *self.coordinator_arguments, *arguments]
        process = self.coordinator = Process("coordinator", argv, self.path("coordinator.log"), self.events,
                                             self.coordinator_stops_for)

        def wait_until_ready():
            with FolderWatch(self.path("ready")) as watch:
                def look():
                    try:
                        with open(ready, encoding="utf-8") as file:
                            return json.load(file)["grpc"]
                    except (OSError, ValueError):
                        return not process.running
                address = watch.until(look, LIMIT_S)
            if isinstance(address, str):
                self.address = address
                self.events.put(Serving(process, time.monotonic_ns()))

        threading.Thread(target=wait_until_ready, daemon=True).start()
        return process

    def start_worker(self, name, *arguments):
        """Starts a worker, or starts it again with what it had."""
        if arguments:
            self._worker_arguments[name] = [str(argument) for argument in arguments]
        argv = [*self.prefix(name), harness.program("accrue-worker"), "--coordinator", self.address, "--name", name,
                "--threads", "1", "--fault-once", self.path("once"), *self._worker_arguments[name]]
        self._lives[name] += 1
        if self._lives[name] > MOST_LIVES:
            raise FleetError(f"{name} was started {MOST_LIVES} times\n{self.logs()}")
        self.workers[name] = Process(name, argv, self.path(f"{name}.log"), self.events)
        return self.workers[name]

    def accrue(self, *arguments):
        """Runs a command of the client; its exit code and standard output."""
        environment = dict(os.environ, ACCRUE_COORDINATOR=self.address, HOME=self.folder)
        done = subprocess.run([*self.prefix("client"), harness.program("accrue"), *map(str, arguments)],
                              env=environment, cwd=self.folder, capture_output=True, text=True, timeout=LIMIT_S,
                              check=False)
        self.last_error = done.stderr
        return done.returncode, done.stdout

    # ---- events ----

    def next_event(self, limit_s=LIMIT_S):
        """The next event, after supervision had its turn."""
        try:
            event = self.events.get(timeout=limit_s)
        except queue.Empty:
            raise FleetError(f"nothing happened for {limit_s} s\n{self.logs()}") from None
        if isinstance(event, Stopped):
            self._stopped.append(event)
        if isinstance(event, Exited):
            self.deaths.append(event)
            if self.supervised and event.process is self.coordinator:
                self.start_coordinator()
            elif self.supervised and self.workers.get(event.process.name) is event.process and event.code != 0:
                self.start_worker(event.process.name)
        return event

    def take_stopped(self):
        """A process that has stopped since this was last asked; None without one."""
        return self._stopped.pop(0) if self._stopped else None

    def hold(self, seconds):
        """Lets the fleet be for so long: the length of a fault, not a wait for something."""
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                self.next_event(left_s)
            except FleetError:
                return

    def until(self, condition, what, limit_s=LIMIT_S):
        """Handles events until condition(event) is true; that event."""
        deadline = time.monotonic() + limit_s
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise FleetError(f"{what}: not within {limit_s} s\n{self.logs()}")
            try:
                event = self.next_event(left_s)
            except FleetError as error:
                raise FleetError(f"{what}: {error}") from None
            if condition(event):
                return event

    def wait_for_serving(self):
        process = self.coordinator
        return self.until(lambda event: isinstance(event, Serving) and event.process is self.coordinator,
                          f"the coordinator ({process.pid}) serves")

    def windows_committed(self):
        try:
            with open(os.path.join(self.output, "windows.jsonl"), "rb") as file:
                return file.read().count(b"\n")
        except OSError:
            return 0

    def watch_windows(self):
        """From now on, Committed is queued whenever windows.jsonl grows."""
        if self._watched:
            return
        self._watched = True

        def watch_log():
            seen = 0
            with FolderWatch(self.output) as watch:
                while True:
                    def grown():
                        return self.windows_committed() > seen or not self.supervised
                    watch.until(grown, 3600)
                    if not self.supervised:
                        return
                    seen = self.windows_committed()
                    self.events.put(Committed(seen, time.monotonic_ns()))

        threading.Thread(target=watch_log, daemon=True).start()

    def wait_for_windows(self, count):
        self.watch_windows()
        if self.windows_committed() >= count:
            return
        self.until(lambda event: isinstance(event, Committed) and event.windows >= count, f"window {count} commits")

    # ---- jobs ----

    def submit(self, text, name="tiny"):
        self.name = name
        with open(self.path("job.yaml"), "w", encoding="utf-8") as file:
            file.write(text)
        code, _ = self.accrue("submit", self.path("job.yaml"), "--output", self.output)
        return code

    def describe(self):
        code, out = self.accrue("describe", self.name, "-o", "json")
        return json.loads(out)["status"] if code == harness.OK else None

    def ledger(self):
        code, out = self.accrue("events", self.name, "--no-follow", "-o", "json")
        if code != harness.OK:
            raise FleetError(f"accrue events: exit code {code}: {self.last_error}\n{self.logs()}")
        return [json.loads(line) for line in out.splitlines()]

    def wait_for_end(self, windows):
        """Until all windows are committed and the job is over; its status."""
        self.wait_for_windows(windows)
        while True:
            code, out = self.accrue("wait", self.name, "-o", "json", "--timeout", "30")
            if code in (harness.OK, harness.JOB_FAILED, harness.JOB_CANCELLED):
                return json.loads(out.strip().splitlines()[-1])
            if code == harness.ERROR and "has not ended" in self.last_error:
                raise FleetError(f"all windows are committed, the job does not end\n{out}\n{self.logs()}")
            if code != harness.UNREACHABLE:
                raise FleetError(f"accrue wait: exit code {code}: {self.last_error}\n{self.logs()}")
            if self.coordinator.running and self.served_by(self.coordinator):
                continue
            self.wait_for_serving()

    def served_by(self, process):
        """Whether this life of the coordinator has said that it serves."""
        try:
            with open(self.path("ready", "ready.json"), encoding="utf-8") as file:
                return json.load(file)["pid"] == process.pid
        except (OSError, ValueError):
            return False

    def lines(self, name="windows.jsonl"):
        path = os.path.join(self.output, name)
        return harness.read_lines(path) if os.path.exists(path) else []

    def faults_made(self):
        return sorted(os.listdir(self.path("once")))

    def logs(self, lines=25):
        text = []
        for name in sorted(os.listdir(self.folder)):
            if name.endswith(".log"):
                with open(self.path(name), encoding="utf-8", errors="replace") as file:
                    text.append(f"---- {name}\n" + "".join(file.readlines()[-lines:]))
        return "\n".join(text)
