#!/usr/bin/env python3
"""Runs the README's three-terminal recipe as it is written, with the binaries of this build in place of the release's.

Usage: recipe_test.py BIN_DIRECTORY
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def recipe(part):
    text = (ROOT / "README.md").read_text()
    match = re.search(rf"<!-- recipe: {part} -->\n```sh\n(.*?)```", text, re.S)
    if not match:
        sys.exit(f"README.md has no recipe for {part}")
    path_line, rest = match.group(1).split("\n", 1)
    if path_line != "export PATH=$PWD/build/release/bin:$PATH":
        sys.exit(f"the recipe for {part} begins with an unexpected line: {path_line}")
    return rest


def start(script, environment, folder, log):
    return subprocess.Popen(["bash", "-euc", "exec " + script.strip()], cwd=folder, env=environment, stdout=log, stderr=log)


def main():
    binaries = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shutil.copy(ROOT / "README.md", folder)
        shutil.copytree(ROOT / "docs", folder / "docs")
        environment = dict(os.environ, PATH=f"{binaries}:{os.environ['PATH']}", XDG_STATE_HOME=str(folder / "state"))
        environment.pop("ACCRUE_COORDINATOR", None)
        log_path = folder / "services.log"
        with open(log_path, "w") as log:
            (folder / "data").mkdir()
            services = [start(recipe("coordinator"), environment, folder, log)]
            try:
                # A worker that comes before its coordinator waits for it: so does the recipe.
                services.append(start(recipe("worker"), environment, folder, log))
                client = subprocess.run(["bash", "-euxc", recipe("client")], cwd=folder, env=environment, capture_output=True,
                                        text=True, timeout=240)
            finally:
                for service in reversed(services):
                    service.send_signal(signal.SIGTERM)
                codes = [service.wait(timeout=30) for service in services]
        output = client.stdout + client.stderr
        if client.returncode != 0:
            sys.exit(f"the client's part ended with {client.returncode}:\n{output}\n--- services:\n{log_path.read_text()[-4000:]}")
        if codes != [0, 0]:
            sys.exit(f"coordinator and worker ended with {codes} on SIGTERM:\n{log_path.read_text()[-4000:]}")
        exported = folder / "exported-docs"
        config = json.loads((exported / "config.json").read_text())
        if config.get("model_type") != "gpt2" or not (exported / "model.safetensors").exists():
            sys.exit(f"exported-docs holds no GPT-2: {sorted(p.name for p in exported.iterdir())}")
        print(output)


if __name__ == "__main__":
    main()
