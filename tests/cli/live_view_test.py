"""accrue watch on a terminal: it goes on while the coordinator is stopped, and says for how long that has been."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import harness
from harness import CliTest


class OnATerminal:
    """A program whose three streams are a terminal of 100 columns; what it wrote is in `text`."""

    def __init__(self, argv, environment, folder):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        environment = dict(environment, TERM="xterm-256color", LC_ALL="C.UTF-8")
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=environment, cwd=folder)
        os.close(slave)
        self.text = ""

    def read_until(self, condition, what):
        """Reads on until condition(text) is true; its value."""
        deadline = time.monotonic() + harness.TIMEOUT_S
        while not (value := condition(self.text)):
            if not select.select([self._master], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"never saw {what}:\n{self.text[-3000:]}")
            try:
                self.text += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # its other end is closed
                raise AssertionError(f"ended without {what}:\n{self.text[-3000:]}") from None
        return value

    def forget(self):
        self.text = ""

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)


def last_window(text):
    found = re.findall(r"window ([\d,]+) / ", text)
    return int(found[-1].replace(",", "")) if found else 0


class LiveViewTest(CliTest):

    def test_stopped_coordinator(self):
        coordinator = self.start_coordinator()
        self.start_worker()
        self.accrue("submit", self.write_job(windows=1000000, schedule={"name": "constant"}))
        view = OnATerminal([harness.program("accrue"), "watch", "tiny"], self.environment, self.folder)
        self.addCleanup(view.close)
        view.read_until(lambda text: last_window(text) > 2, "the first windows")

        coordinator.signal(signal.SIGSTOP)
        self.addCleanup(coordinator.signal, signal.SIGCONT)
        view.read_until(lambda text: "no answer from the coordinator for 4 s" in text, "how long nobody has answered")
        view.read_until(lambda text: "no answer from the coordinator for 5 s" in text, "a view that goes on")
        before = last_window(view.text)
        view.forget()
        coordinator.signal(signal.SIGCONT)
        view.read_until(lambda text: last_window(text) > before + 1, "further windows")
        view.forget()
        view.read_until(lambda text: last_window(text) and "no answer" not in text, "a view without the notice")

        coordinator.signal(signal.SIGSTOP)
        view.read_until(lambda text: "no answer from the coordinator for " in text, "the notice again")
        view.process.send_signal(signal.SIGINT)
        view.read_until(lambda text: "tiny goes on. Watch it again: accrue watch tiny" in text, "how to go on")
        self.assertEqual(view.process.wait(harness.TIMEOUT_S), 0)


if __name__ == "__main__":
    harness.main()
