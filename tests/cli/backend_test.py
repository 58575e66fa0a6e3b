"""--backend: what is chosen, and what is said where what was asked for cannot be had. A library that stands for the
driver, and a plugin that computes on the CPU, make machines of every kind."""
import os

import harness
from harness import CliTest


class BackendTest(CliTest):

    def setUp(self):
        super().setUp()
        self.fakes = os.path.join(os.path.dirname(harness.BIN), "tests", "fakes")
        self.plugin = os.path.join(self.fakes, "plugin", "libaccrue_cuda.so")

    def give_driver(self, **settings):
        """The fake driver in place of the machine's own; keywords are its settings."""
        self.environment["LD_LIBRARY_PATH"] = os.path.join(self.fakes, "driver")
        for name, value in settings.items():
            self.environment["FAKE_GPU_" + name.upper()] = str(value)

    def take_driver_away(self):
        """A folder is looked through first in which the driver's name leads to what is no library."""
        self.write("broken/libcuda.so.1", "no library\n")
        self.environment["LD_LIBRARY_PATH"] = self.path("broken")

    def worker(self, *arguments):
        return self.start("accrue-worker", "--coordinator", "127.0.0.1:1", *arguments)

    def assert_refused(self, *parts, plugin=None):
        outcome = self.worker("--backend", "cuda", "--cuda-plugin", plugin or self.plugin).wait()
        self.assertEqual(outcome.code, harness.ERROR, outcome)
        self.assert_says(outcome.err, "accrue-worker: --backend cuda: ", *parts)

    def assert_chooses(self, chosen, *parts, backend="auto"):
        worker = self.worker("--backend", backend, "--cuda-plugin", self.plugin)
        line = worker.wait_for_line("backend chosen")
        self.assert_says(line, f"backend={chosen} ", f"asked_for={backend} ", *parts)

    def test_gpu_without_a_gpu_backend(self):
        for given in (("--backend", "cpu"), ("--synthetic", "5")):
            outcome = self.worker("--gpu", "7", *given).wait()
            self.assertEqual(outcome.code, harness.USAGE, outcome)
            self.assert_says(outcome.err, "--gpu 7: ", given[0], "takes no GPU")

    # ---- cuda: an error, before anything is asked of a coordinator ----

    def test_no_plugin(self):
        self.assert_refused("the CUDA backend is not installed: looked for ", "/nowhere.so", plugin="/nowhere.so")

    def test_no_driver(self):
        self.take_driver_away()
        self.assert_refused("no NVIDIA driver on this machine: ", "libcuda.so.1")

    def test_old_driver(self):
        self.give_driver(driver=12040)
        self.assert_refused("driver is too old: found one for CUDA 12.4, needed is one for CUDA 13.0 or later")

    def test_unsupported_gpu(self):
        self.give_driver(capability=75)
        self.assert_refused("GPU 0 (Fake GPU 0) is not supported: found compute capability 7.5, needed is 8.0 or 9.0")

    def test_small_gpu(self):
        self.give_driver(mib=600)
        self.assert_refused("too little memory: found 600 MiB, needed are 1024 MiB")

    def test_no_gpu(self):
        self.give_driver(count=0)
        self.assert_refused("but no GPU: found 0, needed is one of compute capability 8.0 or 9.0")

    def test_driver_that_fails(self):
        self.give_driver(init_error=803)
        self.assert_refused("cuInit (driver for CUDA 13.0): error 803, a made-up error")

    def test_plugin_of_another_build(self):
        self.give_driver()
        self.assert_refused("of another build than this program: found ", "another compiler; needed is",
                            plugin=os.path.join(self.fakes, "other_build", "libaccrue_cuda.so"))

    def test_plugin_that_is_none(self):
        self.give_driver()
        self.assert_refused("the CUDA backend cannot be loaded: ", self.write("text.so", "text\n"),
                            plugin=self.path("text.so"))

    def test_number_that_is_not(self):
        self.give_driver(count=2)
        outcome = self.worker("--backend", "cuda", "--cuda-plugin", self.plugin, "--gpu", 2).wait()
        self.assertEqual(outcome.code, harness.ERROR, outcome)
        self.assert_says(outcome.err, "no GPU 2: found 2, numbered from 0")

    def test_wrong_words(self):
        for arguments in (("--backend", "tpu"), ("--gpu", "-1"), ("--backend", "cuda", "--synthetic", "1")):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.worker(*arguments).wait().code, harness.USAGE)

    # ---- auto: the log says what, and why ----

    def test_auto_takes_the_gpu(self):
        self.give_driver()
        self.assert_chooses("cuda", "GPU 0 (Fake GPU 0) can be used")

    def test_auto_without_a_usable_gpu(self):
        self.give_driver(capability=70)
        self.assert_chooses("cpu", "found compute capability 7.0", "warn")

    def test_cpu_asked_for(self):
        self.give_driver()
        self.assert_chooses("cpu", "asked for", backend="cpu")

    # ---- accrue run passes it on ----

    def test_run(self):
        self.take_driver_away()
        job = self.write_job(windows=2)
        outcome = self.accrue("run", job, "--output", "refused", "--backend", "cuda", code=harness.ERROR)
        self.assert_says(outcome.err, "worker-1 exited with code 1", "accrue-worker: --backend cuda: ")
        self.accrue("run", job, "--output", "cpu", "--backend", "cpu")
        self.assert_says(self.read("cpu", "logs", "worker-1.log"), "backend=cpu asked_for=cpu")
        self.accrue("run", job, "--output", "x", "--backend", "fast", code=harness.USAGE)


if __name__ == "__main__":
    harness.main()
