#!/usr/bin/env python3
"""deploy/bundle: what it packs runs where it is unpacked, with the libraries that it brings.

Packs the programs of the folder given first: a build of any preset will do. Skipped where a tool is missing.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "cli"))
import harness  # noqa: E402
from harness import CliTest  # noqa: E402

SKIPPED = 77
TOOLS = ("cmake", "objdump", "strip", "tar", "gzip", "ldd", "readelf")
# What a system has: glibc, and the compiler's runtime.
SYSTEM = re.compile(r"(linux-vdso|ld-linux.*|lib(c|m|mvec|dl|rt|pthread|resolv|util|anl|stdc\+\+|gcc_s))\.so(\.\d+)?$")
# What a system with a GPU has; of the plugin alone.
NVIDIA = re.compile(r"lib(cuda|cublasLt|nccl)\.so\.\d+$")
PLUGIN = "libaccrue_cuda.so"


def dynamic_section(path):
    """(needed libraries, RPATHs, RUNPATHs) of an ELF file."""
    text = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True).stdout
    return tuple(re.findall(rf"\({tag}\).*\[(.*)\]", text) for tag in ("NEEDED", "RPATH", "RUNPATH"))


class BundleTest(CliTest):

    @classmethod
    def setUpClass(cls):
        cls.built = harness.BIN
        cls.scratch = pathlib.Path(tempfile.mkdtemp(prefix="accrue-bundle-"))
        cls.addClassCleanup(shutil.rmtree, cls.scratch, ignore_errors=True)
        cls.archive = cls.pack("bundle.tar.gz")
        with tarfile.open(cls.archive) as archive:
            archive.extractall(cls.scratch / "unpacked")
        unpacked, = (cls.scratch / "unpacked").iterdir()
        # Nobody can have meant this path.
        cls.place = cls.scratch / "an other place" / "here"
        cls.place.parent.mkdir()
        unpacked.rename(cls.place)
        cls.libraries = cls.place / "lib" / "accrue"
        cls.programs = sorted((cls.place / "bin").iterdir())
        harness.BIN = str(cls.place / "bin")

    @classmethod
    def tearDownClass(cls):
        harness.BIN = cls.built

    @classmethod
    def pack(cls, name):
        path = cls.scratch / name
        done = subprocess.run([ROOT / "deploy" / "bundle", "--build", pathlib.Path(cls.built).parent, path],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise AssertionError(done.stdout)
        return path

    # ---- libraries ----

    def test_every_library_is_packed_or_the_systems(self):
        packed = {path.name for path in self.libraries.iterdir()}
        for path in [*self.programs, *self.libraries.iterdir()]:
            for name in dynamic_section(path)[0]:
                is_systems = SYSTEM.match(name) or (path.name == PLUGIN and NVIDIA.match(name))
                self.assertTrue(is_systems or name in packed, f"{path.name} needs {name}, which nobody has")
        for name in packed:
            self.assertFalse(SYSTEM.match(name) or NVIDIA.match(name), f"{name} is the system's own")

    def test_the_loader_takes_what_is_packed(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LD_")}
        for path in self.programs:
            text = subprocess.run(["ldd", path], check=True, capture_output=True, text=True, env=environment).stdout
            found = re.findall(r"^\s*(\S+)(?: => (.*))? \(0x", text, re.MULTILINE)
            self.assertGreater(len(found), 10, text)
            self.assertNotIn("not found", text)
            for name, where in found:
                if SYSTEM.match(os.path.basename(name)):
                    continue
                self.assertEqual(os.path.realpath(where), str(self.libraries / name), path.name)

    def test_no_file_knows_where_it_was_built(self):
        for path in self.programs:
            self.assertEqual(dynamic_section(path)[1:], (["$ORIGIN/../lib/accrue"], []), path.name)
        for path in self.libraries.iterdir():
            _, rpaths, runpaths = dynamic_section(path)
            self.assertIn(rpaths + runpaths, ([], ["$ORIGIN"]), path.name)

    def test_what_it_needs_is_said(self):
        files = [*self.programs, *self.libraries.iterdir()]
        text = subprocess.run(["objdump", "-T", *files], check=True, capture_output=True, text=True).stdout
        versions = [tuple(map(int, version.split("."))) for version in re.findall(r"\(GLIBC_([0-9.]+)\)", text)]
        self.assertIn("glibc %d.%d or later" % max(versions)[:2], (self.place / "README.txt").read_text())

    # ---- programs ----

    def test_the_readmes_first_lines(self):
        """Data, a job and two workers; the bits are those of the programs that were packed."""
        lines = re.findall(r"^    (.*(?:bin/accrue |accrue-try).*)$", (self.place / "README.txt").read_text(), re.MULTILINE)
        self.assertEqual(len(lines), 3)
        for line in lines:
            done = subprocess.run(line.replace("/tmp/accrue-try", self.path("try")), shell=True, cwd=self.place,
                                  env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        harness.BIN = self.built
        self.addCleanup(setattr, harness, "BIN", str(self.place / "bin"))
        self.accrue("run", self.path("try", "docs.yaml"), "--output", self.path("built"))
        self.accrue("verify", self.path("try", "run"), self.path("built"))
        self.assertEqual(len(self.windows("built")), 40)

    def test_the_plugins_place(self):
        place = self.libraries / PLUGIN
        if place.exists():
            self.skipTest("the plugin is packed: nothing can stand for it")
        fakes = pathlib.Path(self.built).parent / "tests" / "fakes"
        self.environment["LD_LIBRARY_PATH"] = str(fakes / "driver")
        worker = ("accrue-worker", "--coordinator", "127.0.0.1:1", "--backend")
        outcome = self.start(*worker, "cuda").wait()
        self.assert_says(outcome.err, "not installed: looked for ", self.place / "bin" / PLUGIN,
                         self.place / "bin" / ".." / "lib" / "accrue" / PLUGIN)
        shutil.copy(fakes / "plugin" / PLUGIN, place)
        self.addCleanup(os.remove, place)
        line = self.start(*worker, "auto").wait_for_line("backend chosen")
        self.assert_says(line, "backend=cuda ")

    def test_configuration_files(self):
        for name in ("accrued", "accrue-worker"):
            outcome = self.start(name, "--config", self.place / "share" / "accrue" / f"{name}.yaml",
                                 "--list-fault-points").wait()
            self.assertEqual(outcome.code, harness.OK, outcome)

    def test_units(self):
        folder = self.place / "share" / "accrue" / "systemd"
        units = sorted(folder.glob("*.service"))
        self.assertEqual([unit.stem for unit in units], ["accrue-worker", "accrued"])
        for unit in units:
            text = unit.read_text()
            for path in re.findall(r"/opt/accrue/(\S+)", text):
                self.assertTrue((self.place / path).is_file(), path)
            self.assertIn(f"--config /etc/accrue/{unit.stem}.yaml\n", text)
        if shutil.which("systemd-analyze"):
            copies = self.path("units")
            os.mkdir(copies)
            for unit in units:
                with open(os.path.join(copies, unit.name), "w") as file:
                    file.write(unit.read_text().replace("/opt/accrue/bin/", f"{self.built}/"))
            done = subprocess.run(["systemd-analyze", "verify", *(os.path.join(copies, unit.name) for unit in units)],
                                  capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)

    # ---- the archive ----

    def test_nothing_of_who_packed_it_or_when(self):
        with open(self.archive, "rb") as file:
            self.assertEqual(file.read(8)[3:], bytes(5), "a name or a time in gzip's header")
        with tarfile.open(self.archive) as archive:
            members = archive.getmembers()
        names = [member.name.split("/") for member in members]
        self.assertEqual(names, sorted(names))
        self.assertEqual({(member.uid, member.gid, member.uname, member.gname) for member in members}, {(0, 0, "", "")})
        self.assertEqual(len({member.mtime for member in members}), 1)


if __name__ == "__main__":
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        print(f"skipped: this machine lacks {', '.join(missing)}")
        sys.exit(SKIPPED)
    harness.main()
