#!/usr/bin/env python3
"""Trains small models, exports them, and has Hugging Face's transformers load and judge them.

  PYTHON tests/export/check_transformers.py [BIN]

PYTHON needs torch and transformers, which the project itself does not; so this is no part of ctest. For each family and
tokenizer: AutoModelForCausalLM and AutoTokenizer load the exported folder without a warning about weights, their loss over
the held-out sequences equals what the run recorded, greedy sampling gives the text that `accrue sample` gives, and
transformers' tokenizer turns the held-out text into the tokens of the shards. A model that transformers saves is taken
up by `accrue run` again (model: {from: DIR}), with the same loss.
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/release/bin")
SEQUENCE, SEQUENCES = 64, 16
MODELS = {
    "gpt2": "{architecture: gpt2, vocabulary: VOCABULARY, context: 64, layers: 2, heads: 4, width: 64}",
    "gpt2-untied": "{architecture: gpt2, vocabulary: VOCABULARY, context: 64, layers: 2, heads: 4, width: 64, "
                   "tie_embeddings: false}",
    "llama": "{architecture: llama, vocabulary: VOCABULARY, context: 64, layers: 2, heads: 4, kv_heads: 2, width: 64, "
             "hidden: 160}",
    "llama-tied": "{architecture: llama, vocabulary: VOCABULARY, context: 64, layers: 2, heads: 4, kv_heads: 4, width: 64, "
                  "hidden: 160, tie_embeddings: true}",
    "qwen2": "{architecture: llama, vocabulary: VOCABULARY, context: 64, layers: 2, heads: 4, kv_heads: 2, width: 64, "
             "hidden: 160, qkv_bias: true}",
}
TOKENIZERS = {"bytes": [], "sentencepiece": ["--vocabulary", "600"]}


def accrue(*arguments):
    result = subprocess.run([str(BIN / "accrue"), *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"accrue {' '.join(map(str, arguments))}: exit code {result.returncode}\n{result.stderr}")
    return result.stdout


def tokens(path):
    raw = path.read_bytes()
    _, version, count = struct.unpack("<3i", raw[:12])
    return torch.tensor(struct.unpack(f"<{count}{'H' if version == 1 else 'I'}", raw[1024:]), dtype=torch.long)


def job_text(model, data, windows):
    return f"""name: export
model: {model}
data: {{train: ["{data}/train-00000.bin"], validation: ["{data}/validation-00000.bin"]}}
batch: {{sequences: 8, micro_batch: 4, sequence_length: {SEQUENCE}}}
optimizer: {{name: adamw, learning_rate: 3.0e-3}}
windows: {windows}
evaluation: {{every_windows: {windows}, sequences: {SEQUENCES}}}
"""


def last_evaluation(output):
    return json.loads((output / "evaluations.jsonl").read_text().splitlines()[-1])["loss"]


def loss_of(model, held_out):
    count = min(SEQUENCES, (len(held_out) - 1) // SEQUENCE)
    inputs = torch.stack([held_out[i * SEQUENCE:(i + 1) * SEQUENCE] for i in range(count)])
    targets = torch.stack([held_out[i * SEQUENCE + 1:(i + 1) * SEQUENCE + 1] for i in range(count)])
    with torch.no_grad():
        logits = model(inputs).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), targets.flatten()).item()


def check(condition, what):
    print(f"  {'ok' if condition else 'FAILED'}: {what}", flush=True)
    if not condition:
        check.failures += 1


check.failures = 0


def main():
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        texts = folder / "texts"
        texts.mkdir()
        for source in sorted((ROOT / "docs").glob("*.md")):
            (texts / source.name).write_text(source.read_text())
        for tokenizer, options in TOKENIZERS.items():
            data = folder / tokenizer
            accrue("data", "prepare", texts, "--tokenizer", tokenizer, *options, "--output", data)
            manifest = json.loads((data / "manifest.json").read_text())
            held_out = tokens(data / "validation-00000.bin")
            for label, model in MODELS.items():
                print(f"{label}, {tokenizer}")
                output, exported = folder / f"run-{label}-{tokenizer}", folder / f"hf-{label}-{tokenizer}"
                job = folder / "job.yaml"
                job.write_text(job_text(model.replace("VOCABULARY", str(manifest["vocabulary"])), data, 30))
                accrue("run", job, "--workers", 2, "--threads", 1, "--output", output)
                accrue("export", output, exported)
                loaded, info = transformers.AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True)
                check(not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")),
                      f"{type(loaded).__name__} finds the weights that it expects")
                recorded, theirs = last_evaluation(output), loss_of(loaded.float().eval(), held_out)
                check(abs(recorded - theirs) < 1e-5 * recorded, f"held-out loss {recorded:.7f}, transformers {theirs:.7f}")
                # AutoTokenizer takes Qwen2's own byte-level rules for every model of type qwen2, whatever its files say.
                loader = transformers.PreTrainedTokenizerFast if label == "qwen2" else transformers.AutoTokenizer
                encoder = loader.from_pretrained(exported)
                document = next(p.read_text() for p in sorted(texts.iterdir()))
                check(encoder.decode(encoder(document, add_special_tokens=False)["input_ids"],
                                     clean_up_tokenization_spaces=False).strip() == document.strip(),
                      f"{type(encoder).__name__} gives a text back")
                every = [t for split in ("train", "validation") for t in tokens(data / f"{split}-00000.bin").tolist()]
                ids = encoder(document, add_special_tokens=False)["input_ids"]
                check(any(every[i:i + len(ids)] == ids for i in range(len(every) - len(ids) + 1) if every[i] == ids[0]),
                      "and the tokens that the shards hold")
                prompt = "The coordinator"
                sampled = json.loads(accrue("sample", output, "--prompt", prompt, "--temperature", 0, "--tokens", 16, "-o",
                                            "json"))
                ours = next(v for k, v in sampled.items() if k in ("text", "completion"))
                start = encoder(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
                generated = loaded.generate(start, max_new_tokens=16, do_sample=False, pad_token_id=0)[0]
                check(ours.strip().endswith(encoder.decode(generated[start.shape[1]:]).strip()) or
                      encoder.decode(generated).strip().endswith(ours.strip()), f"the same continuation: {ours!r}")
                saved = folder / f"saved-{label}-{tokenizer}"
                loaded.save_pretrained(saved)
                job.write_text(job_text(f"{{from: {saved}}}", data, 1).replace("3.0e-3", "1.0e-30"))
                again = folder / f"again-{label}-{tokenizer}"
                accrue("run", job, "--workers", 1, "--threads", 1, "--output", again)
                check(abs(last_evaluation(again) - recorded) < 1e-6 * recorded, "taken up again from what transformers saved")
    print(f"{check.failures} failed" if check.failures else "all passed")
    return 1 if check.failures else 0


if __name__ == "__main__":
    sys.exit(main())
