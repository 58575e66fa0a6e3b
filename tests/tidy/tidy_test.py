#!/usr/bin/env python3
"""The tidy check finds each kind of breach that it is there for."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

TIDY = pathlib.Path(__file__).resolve().parent / "tidy.py"


def run(files):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        subprocess.run(["git", "init", "-q", folder], check=True)
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        result = subprocess.run([sys.executable, TIDY, folder], capture_output=True, text=True)
        return result.returncode, result.stdout


class TidyTest(unittest.TestCase):
    def expect_breach(self, files, words):
        code, output = run(files)
        self.assertEqual(code, 1, output)
        self.assertIn(words, output)

    def test_clean_tree_passes(self):
        code, output = run({"common/a.cc": '#include "common/b.h"\n', "CMakeLists.txt": "a.cc\n"})
        self.assertEqual(code, 0, output)

    def test_include_against_the_direction_fails(self):
        self.expect_breach({"common/a.cc": '#include "worker/core/x.h"\n', "CMakeLists.txt": "a.cc\n"}, "dependencies point one way")
        self.expect_breach({"coordinator/core/a.cc": "#include <mutex>\n", "CMakeLists.txt": "a.cc\n"}, "pure state machine")
        self.expect_breach({"worker/core/a.cc": '#include "worker/backend/cpu/gemm.h"\n', "CMakeLists.txt": "a.cc\n"}, "must not include")

    def test_unregistered_source_fails(self):
        self.expect_breach({"tests/x/a_test.cc": "\n"}, "no build file names it")

    def test_sleeping_test_fails(self):
        self.expect_breach({"tests/x/a_test.cc": "std::this_thread::sleep_for(s);\n", "CMakeLists.txt": "a_test.cc\n"}, "must not sleep")

    def test_real_clock_fails(self):
        self.expect_breach({"common/a.cc": "auto t = std::chrono::steady_clock::now();\n", "CMakeLists.txt": "a.cc\n"}, "real clock")

    def test_fault_point_that_nothing_passes_fails(self):
        points = "#pragma once\n#define POINTS(X) X(kSeal, 1) X(kStep, 2)\n"
        self.expect_breach({"common/fault_points.h": points, "worker/core/a.cc": "PassFaultPoint(FaultPoint::kSeal);\n",
                            "CMakeLists.txt": "a.cc\n"}, "fault point kStep")

    def test_empty_tree_fails(self):
        self.expect_breach({"README.md": "\n"}, "no sources")


if __name__ == "__main__":
    unittest.main()
