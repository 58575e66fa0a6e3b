#!/usr/bin/env python3
"""What each level of `recompute` takes and costs, in one run.

  bench/recompute.py [--bin build/release/bin] [--model small|gpt2-124m] [--precision fp32|bf16|fp16] [--windows 3] [--rounds 3]

Runs `accrue run` with two workers of one thread at each level, in turns, and reads windows.jsonl:
  measured     the largest resident memory that a worker reported
  estimated    what `accrue validate --estimate` says, and the process itself (23 MiB)
  unit         seconds of forward and backward of a unit; its ratio to that without recompute, round by round
The first window of each run is left out. The digests of all runs must be equal. Prints a table and, last, one JSON object.
"""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile

import compare_pytorch
import windows

LEVELS = ["none", "norms", "attention", "block"]
PROCESS_BYTES = 23 << 20


def unit_seconds(run):
    seconds = sum(w["seconds"]["compute"] for window in run for w in window["workers"])
    return seconds / sum(w["units"] for window in run for w in window["workers"])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", default=str(compare_pytorch.ROOT / "build/release/bin"))
    p.add_argument("--model", choices=compare_pytorch.MODELS, default="small")
    p.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    p.add_argument("--windows", type=int, default=3)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    m = compare_pytorch.MODELS[a.model]
    seconds, memory, estimated, digests = ({level: [] for level in LEVELS} for _ in range(4))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        compare_pytorch.write_tokens(folder / "tokens.bin", m["vocabulary"], 300_000)
        for round in range(a.rounds):
            for level in LEVELS[round % len(LEVELS):] + LEVELS[:round % len(LEVELS)]:
                a.recompute = level
                job = windows.write_job(m, a, folder, "exact")
                run = windows.run(a, folder, job)
                seconds[level].append(unit_seconds(run))
                memory[level].append(max(w["memory_bytes"] for window in run for w in window["workers"]))
                digests[level].append([window["digest"] for window in run])
                estimated[level] = windows.estimate_bytes(a, job)
                print(f"  round {round + 1}, {level}: {seconds[level][-1]:.4f} s a unit", flush=True)
    if any(digest != digests["none"][0] for level in LEVELS for digest in digests[level]):
        sys.exit("the digests differ")
    print(f"\n{a.model} {a.precision}, 2 workers x 1 thread, {a.rounds} rounds of {a.windows} windows, equal digests\n"
          "| recompute | measured, MiB | estimated, MiB | ratio | unit, s | to none |\n|---|---|---|---|---|---|")
    result = {}
    for level in LEVELS:
        total, most = estimated[level] + PROCESS_BYTES, max(memory[level])
        ratios = [one / other for one, other in zip(seconds[level], seconds["none"])]
        result[level] = {"memory_bytes": most, "estimated_bytes": total, "unit_seconds": seconds[level], "ratios": ratios}
        print(f"| {level} | {most / 2**20:.0f} | {total / 2**20:.0f} | {most / total:.2f} | "
              f"{statistics.median(seconds[level]):.3f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")
    print(json.dumps({"model": a.model, "precision": a.precision, "levels": result}))


if __name__ == "__main__":
    main()
