#!/usr/bin/env python3
"""Where a window's time goes, what exact accumulation costs, and how much memory a worker takes, in one run.

  bench/windows.py [--bin build/release/bin] [--model small|gpt2-124m] [--precision fp32|bf16|fp16] [--windows 20] [--rounds 5]
                   [--recompute none|norms|attention|block]

Runs `accrue run` with two workers of one thread, in turn with exact and with fast accumulation, and reads windows.jsonl:
  outside      accumulate, reduce, step, data and control: all that is neither forward nor backward, of a window's time.
               Control is what the last worker to finish waits for the seal, and what no phase of a worker accounts for.
  imbalance    what the other worker waits for the last one; it is not counted as outside, and is shown.
  exact/fast   time of a window's units (compute and accumulate), reduce and step, exact over fast, round by round
  memory       the largest resident memory that a worker reported, against `accrue validate --estimate`
The first window of each run is left out. Intervals are 95 % bootstrap intervals: of windows, and of rounds for the ratio.
Prints a table and, last, one JSON object. Needs a quiet machine: an interval wider than what one asks is no answer.
"""
import argparse
import json
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

import compare_pytorch


def interval(values, statistic=statistics.mean, draws=2000):
    generator = random.Random(1)
    drawn = sorted(statistic(generator.choices(values, k=len(values))) for _ in range(draws))
    return statistic(values), drawn[int(draws * 0.025)], drawn[int(draws * 0.975)]


def write_job(m, a, folder, mode):
    job = folder / f"{mode}.yaml"
    job.write_text(f"""name: windows-{mode}
model: {{architecture: gpt2, vocabulary: {m['vocabulary']}, context: {m['sequence']}, layers: {m['layers']},
        heads: {m['heads']}, width: {m['width']}}}
data: {{train: ["{folder}/tokens.bin"]}}
batch: {{sequences: {16 * m['micro_batch']}, micro_batch: {m['micro_batch']}, sequence_length: {m['sequence']}}}
accumulation: {{mode: {mode}}}
precision: {a.precision}
recompute: {a.recompute}
windows: {a.windows + 1}
workers: {{min: 2, max: 2}}
checkpoint: {{every_windows: 0, keep: 1}}
""")
    return job


def run(a, folder, job):
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    result = subprocess.run([f"{a.bin}/accrue", "run", str(job), "--workers", "2", "--threads", "1", "--output", str(output),
                             "-o", "json"], capture_output=True, text=True, env=compare_pytorch.clean_environment({}))
    if result.returncode != 0:
        sys.exit(f"accrue run failed ({result.returncode}):\n{result.stderr[-2000:]}")
    return [json.loads(line) for line in open(output / "windows.jsonl")][1:]


def shares(window):
    """Of the window's time, by worker-second: each phase, control, imbalance."""
    workers = window["workers"]
    total = len(workers) * window["window_seconds"]
    result = {phase: sum(w["seconds"][phase] for w in workers) / total for phase in workers[0]["seconds"]}
    control = min(w["seconds"]["wait_seal"] for w in workers)
    result["imbalance"] = result.pop("wait_seal") - len(workers) * control / total
    unaccounted = 1 - sum(sum(w["seconds"].values()) for w in workers) / total
    result["control"] = len(workers) * control / total + unaccounted
    result["outside"] = sum(result[k] for k in ("accumulate", "reduce", "step", "data", "control"))
    return result


def busy(windows):
    """Seconds of the workers' own work, per unit."""
    seconds = sum(w["seconds"][phase] for window in windows for w in window["workers"]
                  for phase in ("compute", "accumulate", "reduce", "step"))
    return seconds / sum(w["units"] for window in windows for w in window["workers"])


def estimate_bytes(a, job):
    result = subprocess.run([f"{a.bin}/accrue", "validate", str(job), "--estimate", "-o", "json"],
                            capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"accrue validate --estimate failed ({result.returncode}):\n{result.stderr[-2000:]}")
    return json.loads(result.stdout)["memory"]["total_bytes"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", default=str(compare_pytorch.ROOT / "build/release/bin"))
    p.add_argument("--model", choices=compare_pytorch.MODELS, default="small")
    p.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    p.add_argument("--recompute", choices=["none", "norms", "attention", "block"], default="none")
    p.add_argument("--windows", type=int, default=20)
    p.add_argument("--rounds", type=int, default=5)
    a = p.parse_args()
    m = compare_pytorch.MODELS[a.model]
    windows, ratios, memory = [], [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        compare_pytorch.write_tokens(folder / "tokens.bin", m["vocabulary"], 300_000)
        jobs = {mode: write_job(m, a, folder, mode) for mode in ("exact", "fast")}
        for round in range(a.rounds):
            taken = {}
            for mode in ("exact", "fast") if round % 2 == 0 else ("fast", "exact"):
                taken[mode] = run(a, folder, jobs[mode])
            windows += taken["exact"]
            memory = max([memory] + [w["memory_bytes"] for window in taken["exact"] for w in window["workers"]])
            ratios.append(busy(taken["exact"]) / busy(taken["fast"]))
            print(f"  round {round + 1}: exact/fast {ratios[-1]:.4f}", flush=True)
        estimated = estimate_bytes(a, jobs["exact"])
    table = {key: interval([shares(w)[key] for w in windows]) for key in
             ("compute", "accumulate", "reduce", "step", "data", "control", "outside", "imbalance")}
    print(f"\n{a.model} {a.precision}, 2 workers x 1 thread, 16 units, {len(windows)} windows, "
          f"{statistics.mean(w['window_seconds'] for w in windows):.2f} s each\n| share of a window | mean | 95 % |\n|---|---|---|")
    for key, (mean, low, high) in table.items():
        print(f"| {key} | {100 * mean:.2f} % | {100 * low:.2f} to {100 * high:.2f} |")
    ratio = interval(ratios, statistics.median)
    print(f"| exact/fast | {ratio[0]:.4f} | {ratio[1]:.4f} to {ratio[2]:.4f} |")
    print(f"| worker's memory | {memory / 2**20:.0f} MiB | estimate {estimated / 2**20:.0f} MiB: {memory / estimated:.2f} |")
    print(json.dumps({"model": a.model, "precision": a.precision, "shares": table, "exact_over_fast": ratio,
                      "memory_bytes": memory, "estimated_bytes": estimated}))


if __name__ == "__main__":
    main()
