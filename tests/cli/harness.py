"""What the tests of the command line share: tiny jobs and data, and processes that never outlive a test.

Programs come from the folder given as the script's first argument. Every test has its own temporary folder,
which is also where state would go that a test does not place elsewhere. Nothing here sleeps: waits block on a
process, on a pipe or on an inotify descriptor, and each has a deadline.
"""
import ctypes
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

BIN = ""
TIMEOUT_S = 120

OK, ERROR, USAGE, INVALID_SPEC, NOT_FOUND, REFUSED, UNREACHABLE = 0, 1, 2, 3, 4, 5, 6
JOB_FAILED, JOB_CANCELLED = 10, 11

VOCABULARY = 97
SEQUENCE_LENGTH = 16

_JOB = {
    "name": "tiny",
    "model": {"architecture": "gpt2", "vocabulary": VOCABULARY, "context": 32, "layers": 2, "heads": 4, "width": 32},
    "data": {"train": ["train.bin"]},
    "batch": {"sequences": 8, "micro_batch": 2, "sequence_length": SEQUENCE_LENGTH},
    "optimizer": {"name": "adamw", "learning_rate": 1.0e-2},
    "schedule": {"name": "cosine", "warmup_windows": 2},
    "windows": 6,
    "seed": 7,
}

_INOTIFY = ctypes.CDLL(None, use_errno=True)
_WRITTEN = 0x00000002 | 0x00000008 | 0x00000080 | 0x00000100  # modify, close after writing, moved to, create


def main():
    """Runs the script's tests with the programs of the folder given first."""
    global BIN
    if len(sys.argv) < 2 or not os.path.isdir(sys.argv[1]):
        sys.exit(f"usage: {sys.argv[0]} FOLDER_WITH_THE_PROGRAMS [TEST...]")
    BIN = os.path.abspath(sys.argv.pop(1))
    unittest.main(module="__main__", verbosity=2)


def program(name):
    return os.path.join(BIN, name)


def merged(base, changes):
    """`base` with `changes`; None takes a field away, and mappings are merged."""
    result = dict(base)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


def job_text(**changes):
    """A job file; a mapping is written as JSON, which YAML contains."""
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in merged(_JOB, changes).items())


def tokens_of(count, seed=1, vocabulary=VOCABULARY):
    """Tokens in which each follows from the one before more often than not, so that there is something to learn."""
    state, token, tokens = seed, 0, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        token = (5 * token + 3) % vocabulary if (state >> 40) % 4 else (state >> 33) % vocabulary
        tokens.append(token)
    return tokens


def write_shard(path, tokens, magic=20240520, version=1, count=None, width="H"):
    """A token shard in llm.c's format. The keyword arguments make it a lie."""
    header = struct.pack("<256i", magic, version, len(tokens) if count is None else count, *([0] * 253))
    with open(path, "wb") as file:
        file.write(header + struct.pack(f"<{len(tokens)}{width}", *tokens))
    return path


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def process_exists(process_id):
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        with open(f"/proc/{process_id}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children_of(process_id):
    """The processes whose parent this is, as {process id: program}."""
    children = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8") as file:
                before, _, after = file.read().rpartition(")")
        except OSError:
            continue
        if int(after.split()[1]) == process_id and after.split()[0] not in "ZX":
            children[int(name)] = before.partition("(")[2]
    return children


def wait_for_exit(process_ids, timeout_s=TIMEOUT_S):
    """Until none of the processes, which need not be children, runs. False when some still do."""
    deadline = time.monotonic() + timeout_s
    for process_id in process_ids:
        try:
            descriptor = os.pidfd_open(process_id)
        except ProcessLookupError:
            continue
        try:
            if not select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
                return False
        finally:
            os.close(descriptor)
    return True


class FolderWatch:
    """Wakes up whenever something in a folder is written, created or moved there."""

    def __init__(self, folder):
        self._descriptor = _INOTIFY.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0 or _INOTIFY.inotify_add_watch(self._descriptor, os.fsencode(folder), _WRITTEN) < 0:
            raise OSError(ctypes.get_errno(), f"inotify on {folder}")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        os.close(self._descriptor)

    def until(self, condition, timeout_s=TIMEOUT_S):
        """Until condition() is true, asked again after every change. Its value; what is false when time is up."""
        deadline = time.monotonic() + timeout_s
        while True:
            value = condition()
            left_s = deadline - time.monotonic()
            if value or left_s <= 0:
                return value
            if select.select([self._descriptor], [], [], left_s)[0]:
                os.read(self._descriptor, 65536)


class Outcome:
    """How a program ended."""

    def __init__(self, argv, code, out, err):
        self.argv, self.code, self.out, self.err = argv, code, out, err

    def __str__(self):
        return f"{' '.join(self.argv)}\nexit code {self.code}\n-- stdout\n{self.out}\n-- stderr\n{self.err}"

    @property
    def result(self):
        """The JSON object in the last line of standard output."""
        return json.loads(self.out.strip().splitlines()[-1])


class Running:
    """A program at work, its streams read by threads so that no pipe fills."""

    def __init__(self, argv, **options):
        self.argv = argv
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, errors="replace", **options)
        self._changed = threading.Condition()
        self._lines = {"out": [], "err": []}
        self._open = 2
        self._threads = [threading.Thread(target=self._read, args=(name, stream), daemon=True)
                         for name, stream in (("out", self.process.stdout), ("err", self.process.stderr))]
        for thread in self._threads:
            thread.start()

    def _read(self, name, stream):
        for line in stream:
            with self._changed:
                self._lines[name].append(line)
                self._changed.notify_all()
        stream.close()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()

    def text(self, name):
        with self._changed:
            return "".join(self._lines[name])

    def wait_for_line(self, part, timeout_s=TIMEOUT_S):
        """The first line of either stream that has `part` in it. AssertionError when the program ends without."""
        def find():
            return next((line for lines in self._lines.values() for line in lines if part in line), None)

        with self._changed:
            self._changed.wait_for(lambda: find() is not None or self._open == 0, timeout_s)
            line = find()
        if line is None:
            raise AssertionError(f"no line with {part!r} from {self.argv}\n{self.text('out')}\n{self.text('err')}")
        return line

    def wait_for_count(self, part, count, timeout_s=TIMEOUT_S):
        """Until so many lines of standard error have `part` in them. AssertionError when the program ends before."""
        def enough():
            return sum(part in line for line in self._lines["err"]) >= count

        with self._changed:
            self._changed.wait_for(lambda: enough() or self._open == 0, timeout_s)
            found = enough()
        if not found:
            raise AssertionError(f"not {count} lines with {part!r} from {self.argv}\n{self.text('err')}")

    def signal(self, number=signal.SIGINT):
        self.process.send_signal(number)

    def wait(self, timeout_s=TIMEOUT_S):
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {timeout_s} s: {self.argv}\n{self.text('out')}\n"
                                 f"{self.text('err')}") from None
        for thread in self._threads:
            thread.join(timeout_s)
        return Outcome(self.argv, self.process.returncode, self.text("out"), self.text("err"))

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(TIMEOUT_S)


class CliTest(unittest.TestCase):
    """A test with a temporary folder of its own, in which programs run."""

    maxDiff = None

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="accrue-cli-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.environment = dict(os.environ, XDG_STATE_HOME=self.path("state"), HOME=self.folder)
        self.environment.pop("ACCRUE_COORDINATOR", None)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    # ---- inputs ----

    def write(self, name, content):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w" if isinstance(content, str) else "wb") as file:
            file.write(content)
        return path

    def write_job(self, job_name="job.yaml", tokens=2000, **changes):
        """A job file and, unless it is there, its train.bin. Keywords change fields of the job."""
        if not os.path.exists(self.path("train.bin")):
            write_shard(self.path("train.bin"), tokens_of(tokens))
        return self.write(job_name, job_text(**changes))

    def read(self, *parts):
        with open(self.path(*parts), encoding="utf-8", errors="replace") as file:
            return file.read()

    # ---- programs ----

    def start(self, name, *arguments, **options):
        running = Running([program(name), *map(str, arguments)], env=self.environment, cwd=self.folder, **options)
        self.addCleanup(running.kill)
        return running

    def accrue(self, *arguments, code=OK, **options):
        """Runs accrue to its end and checks its exit code."""
        outcome = self.start("accrue", *arguments, **options).wait()
        self.assertEqual(outcome.code, code, outcome)
        return outcome

    def run_job(self, job, *arguments, output="out", workers=1, threads=1, code=OK):
        """accrue run -o json; its Outcome."""
        return self.accrue("run", job, "--workers", workers, "--threads", threads, "--output", self.path(output),
                           "-o", "json", *arguments, code=code)

    def start_coordinator(self, *arguments, state="state/accrue", listen="127.0.0.1:0"):
        """accrued on a free port; its address is then what accrue talks to. Returns the process."""
        ready = self.path("ready.json")
        if os.path.exists(ready):
            os.remove(ready)
        if "--http" not in arguments:
            arguments = ("--http", "none", *arguments)
        coordinator = self.start("accrued", "--listen", listen, "--state", self.path(state),
                                 "--data-root", self.folder, "--ready-file", ready, *arguments)
        with FolderWatch(self.folder) as watch:
            there = watch.until(lambda: os.path.exists(ready) or coordinator.process.poll() is not None)
        if not there or coordinator.process.poll() is not None:
            raise AssertionError(f"accrued did not start: {coordinator.text('err')}")
        with open(ready, encoding="utf-8") as file:
            addresses = json.load(file)
        coordinator.address, coordinator.http = addresses["grpc"], addresses["http"]
        self.environment["ACCRUE_COORDINATOR"] = coordinator.address
        return coordinator

    def start_worker(self, *arguments):
        return self.start("accrue-worker", "--coordinator", self.environment["ACCRUE_COORDINATOR"], "--threads", "1",
                          *arguments)

    # ---- checks ----

    def windows(self, output="out"):
        return read_lines(self.path(output, "windows.jsonl"))

    def checkpoints(self, output="out"):
        """Windows of the checkpoints that are whole, ascending."""
        folder = self.path(output, "checkpoints")
        return sorted(int(name.rpartition("-")[2]) for name in os.listdir(folder)
                      if os.path.exists(os.path.join(folder, name, "manifest.json")))

    def checkpoint_folder(self, window, output="out"):
        folder = self.path(output, "checkpoints")
        return next(os.path.join(folder, name) for name in os.listdir(folder)
                    if int(name.rpartition("-")[2]) == window)

    def wait_for_windows(self, count, output="out", running=None):
        """Until windows.jsonl has at least so many lines."""
        folder = self.path(output)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "windows.jsonl")

        def enough():
            if running is not None and running.process.poll() is not None:
                raise AssertionError(f"it ended first:\n{running.text('out')}\n{running.text('err')}")
            if not os.path.exists(path):
                return False
            with open(path, encoding="utf-8") as file:
                return sum(1 for _ in file) >= count

        with FolderWatch(folder) as watch:
            self.assertTrue(watch.until(enough), f"{path} has no {count} lines")

    def assert_says(self, text, *parts):
        for part in parts:
            self.assertIn(str(part), text)
