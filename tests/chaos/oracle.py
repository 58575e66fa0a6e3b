"""What every chaos run must end with: the results of an undisturbed run of one worker, each window once and in order."""
import hashlib
import json
import os
import tempfile

import fleet
import harness


def key_of(text, synthetic):
    """Of what the results depend on: the job, the synthetic engine's size, and the program."""
    with open(harness.program("accrue-worker"), "rb") as file:
        program = hashlib.sha256(file.read()).hexdigest()
    return hashlib.sha256(json.dumps([text, synthetic, program]).encode()).hexdigest()[:16]


def undisturbed(text, parameters, windows, cache=None):
    """Lines of windows.jsonl and evaluations.jsonl of one worker that nothing happens to. `cache`: a folder."""
    path = os.path.join(cache, key_of(text, parameters) + ".json") if cache else None
    if path and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    with tempfile.TemporaryDirectory(prefix="accrue-reference-") as folder, fleet.Fleet(folder) as one:
        one.start_coordinator()
        one.wait_for_serving()
        one.start_worker("alone", "--synthetic", f"0,{parameters}")
        if one.submit(text) != harness.OK:
            raise fleet.FleetError(f"submit: {one.last_error}")
        status = one.wait_for_end(windows)
        if status["state"] != "succeeded":
            raise fleet.FleetError(f"the undisturbed run: {status}")
        result = {"windows": one.lines(), "evaluations": one.lines("evaluations.jsonl")}
    if path:
        os.makedirs(cache, exist_ok=True)
        with open(f"{path}.{os.getpid()}", "w", encoding="utf-8") as file:
            json.dump(result, file)
        os.replace(f"{path}.{os.getpid()}", path)
    return result


def compare(disturbed, reference, status):
    """Raises FleetError unless the run ended as the undisturbed one did."""
    problems = []
    if status["state"] != "succeeded":
        problems.append(f"the job ended {status['state']}: {status.get('reason')}")
    windows, expected = disturbed.lines(), reference["windows"]
    numbers = [line["window"] for line in windows]
    if numbers != list(range(len(expected))):
        problems.append(f"windows.jsonl has the windows {numbers}, expected 0 to {len(expected) - 1}, each once")
    for found, wanted in zip(windows, expected):
        different = [name for name in ("digest", "loss", "tokens", "gradient_norm", "skipped")
                     if found[name] != wanted[name]]
        if different:
            problems.append(f"window {wanted['window']}: {different} differ: {found} instead of {wanted}")
            break
    def results(lines):
        return [{name: line[name] for name in ("window", "loss", "tokens")} for line in lines]
    if results(disturbed.lines("evaluations.jsonl")) != results(reference["evaluations"]):
        problems.append(f"evaluations are {results(disturbed.lines('evaluations.jsonl'))}, "
                        f"expected {results(reference['evaluations'])}")
    if problems:
        raise fleet.FleetError("\n".join(problems) + "\n" + disturbed.logs())
