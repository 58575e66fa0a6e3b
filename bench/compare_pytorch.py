#!/usr/bin/env python3
"""Tokens per second of training windows: Accrue against PyTorch on the same model, batch and machine, in one run.

  bench/compare_pytorch.py --python PYTHON [--python OTHER] [--model small|gpt2-124m] [--precision fp32|bf16] [--rounds 3]

--python: an interpreter with PyTorch; give several to take the best of them. The peer is tried eager and compiled, as one
process of two threads and two processes of one (no_sync and Gloo), with glibc's allocator settings that help it; the best
of all is the one compared with. Rounds alternate between the two sides, and the ratio is taken per round, so that a machine
whose speed drifts does not decide. Prints a table and, last, one JSON object.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODELS = {
    # units of micro_batch x sequence tokens; windows of `units` units
    "small": dict(layers=6, width=256, heads=8, vocabulary=8192, sequence=256, micro_batch=4, units=16),
    "gpt2-124m": dict(layers=12, width=768, heads=12, vocabulary=50257, sequence=256, micro_batch=4, units=4),
}
PEER_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296",
                    "MALLOC_TOP_PAD_": "268435456"}
HARMFUL = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OMP_NUM_THREADS")


def clean_environment(extra):
    environment = {k: v for k, v in os.environ.items() if k not in HARMFUL}
    environment.update(extra)
    return environment


def write_tokens(path, vocabulary, count):
    """A shard of pseudo-random tokens in llm.c's format: speed does not depend on what they say."""
    state, ids = 12345, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((state >> 33) % vocabulary)
    with open(path, "wb") as f:
        f.write(struct.pack("<256i", 20240520, 1, count, *([0] * 253)))
        f.write(struct.pack(f"<{count}H", *ids))


def accrue(m, a, folder, workers, threads):
    job = folder / "job.yaml"
    windows = a.windows + 1
    job.write_text(f"""name: throughput
model: {{architecture: gpt2, vocabulary: {m['vocabulary']}, context: {m['sequence']}, layers: {m['layers']},
        heads: {m['heads']}, width: {m['width']}}}
data: {{train: ["{folder}/tokens.bin"]}}
batch: {{sequences: {m['units'] * m['micro_batch']}, micro_batch: {m['micro_batch']}, sequence_length: {m['sequence']}}}
accumulation: {{mode: {a.accumulation}}}
precision: {a.precision}
windows: {windows}
workers: {{min: {workers}, max: {workers}}}
checkpoint: {{every_windows: 0, keep: 1}}
""")
    output = folder / "run"
    shutil.rmtree(output, ignore_errors=True)
    result = subprocess.run([str(pathlib.Path(a.bin) / "accrue"), "run", str(job), "--workers", str(workers), "--threads",
                             str(threads), "--output", str(output), "-o", "json"], capture_output=True, text=True,
                            env=clean_environment({}))
    if result.returncode != 0:
        sys.exit(f"accrue run failed ({result.returncode}):\n{result.stderr[-2000:]}")
    return json.loads(result.stdout.strip().splitlines()[-1])["tokens_per_second"]


def peer(m, a, python, options):
    command = [python, str(ROOT / "bench/peers/pytorch_train.py"), "--windows", str(a.windows), "--warmup", "2",
               "--precision", a.precision, *options]
    for key, value in m.items():
        command += ["--" + key.replace("_", "-"), str(value)]
    result = subprocess.run(command, capture_output=True, text=True, env=clean_environment(PEER_ENVIRONMENT), timeout=1800)
    if result.returncode != 0:
        return None, result.stderr.strip().splitlines()[-1:] or ["failed"]
    return json.loads(result.stdout.strip().splitlines()[-1]), None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--python", action="append", required=True)
    p.add_argument("--bin", default=str(ROOT / "build/release/bin"))
    p.add_argument("--model", choices=MODELS, default="small")
    p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    p.add_argument("--accumulation", choices=["exact", "fast"], default="exact")
    p.add_argument("--windows", type=int, default=4)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--workers", default="1x2,2x1", help="Accrue's layouts, as WORKERSxTHREADS; the best counts")
    a = p.parse_args()
    m = MODELS[a.model]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        window = m["units"] * m["micro_batch"] * m["sequence"]
        write_tokens(folder / "tokens.bin", m["vocabulary"], max(window + 1, 300_000))

        # One trial of every way, then rounds of the best on both sides.
        peers = {}
        for python in a.python:
            for threads in (["--threads", "2"], ["--threads", "1", "--processes", "2"]):
                for extra in ([], ["--fused"], ["--compile"], ["--compile", "--fused"]):
                    options = threads + extra
                    result, error = peer(m, a, python, options)
                    if result is None:
                        print(f"  peer {python} {' '.join(options)}: {error[0][:100]}", flush=True)
                        continue
                    label = f"torch {result['torch']} {' '.join(options)}"
                    print(f"  {label}: {result['tokens_per_second']:.0f} tok/s", flush=True)
                    peers[label] = (result["tokens_per_second"], python, options)
        ours = {}
        for layout in a.workers.split(","):
            workers, threads = map(int, layout.split("x"))
            ours[layout] = accrue(m, a, folder, workers, threads)
            print(f"  accrue {workers} workers x {threads} threads: {ours[layout]:.0f} tok/s", flush=True)
        best_layout = max(ours, key=ours.get)
        best_peer = max(peers, key=lambda k: peers[k][0])
        rows = []
        for _ in range(a.rounds):
            workers, threads = map(int, best_layout.split("x"))
            mine = accrue(m, a, folder, workers, threads)
            theirs = peer(m, a, peers[best_peer][1], peers[best_peer][2])[0]["tokens_per_second"]
            rows.append((mine, theirs, mine / theirs))
            print(f"  round: accrue {mine:.0f}, peer {theirs:.0f}, ratio {mine / theirs:.3f}", flush=True)
    median = [statistics.median(column) for column in zip(*rows)]
    print(f"\n{a.model} {a.precision}: accrue ({best_layout}) {median[0]:.0f} tok/s, best peer ({best_peer}) {median[1]:.0f} tok/s, "
          f"ratio {median[2]:.2f}")
    print(json.dumps({"model": a.model, "precision": a.precision, "accumulation": a.accumulation, "accrue": median[0],
                      "accrue_layout": best_layout, "peer": median[1], "peer_name": best_peer, "ratio": median[2]}))


if __name__ == "__main__":
    main()
