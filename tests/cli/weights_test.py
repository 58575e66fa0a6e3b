"""model.from: Hugging Face folders that lie, lack or are not what they seem fail the job with file and reason."""
import json
import os
import shutil
import struct

import harness
from harness import CliTest, write_shard, tokens_of

WIDTH, LAYERS, CONTEXT, HIDDEN = 16, 1, 32, 64
CONFIG = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": harness.VOCABULARY,
          "n_positions": CONTEXT, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_inner": HIDDEN,
          "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}


def tensors_of_gpt2():
    shapes = {"wte.weight": [harness.VOCABULARY, WIDTH], "wpe.weight": [CONTEXT, WIDTH], "ln_f.weight": [WIDTH],
              "ln_f.bias": [WIDTH]}
    for layer in range(LAYERS):
        for name, shape in {"ln_1.weight": [WIDTH], "ln_1.bias": [WIDTH], "attn.c_attn.weight": [WIDTH, 3 * WIDTH],
                            "attn.c_attn.bias": [3 * WIDTH], "attn.c_proj.weight": [WIDTH, WIDTH],
                            "attn.c_proj.bias": [WIDTH], "ln_2.weight": [WIDTH], "ln_2.bias": [WIDTH],
                            "mlp.c_fc.weight": [WIDTH, HIDDEN], "mlp.c_fc.bias": [HIDDEN],
                            "mlp.c_proj.weight": [HIDDEN, WIDTH], "mlp.c_proj.bias": [WIDTH]}.items():
            shapes[f"h.{layer}.{name}"] = shape
    return shapes


def size_of(shape):
    size = 4
    for extent in shape:
        size *= extent
    return size


def header_of(shapes):
    header, offset = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size_of(shape)]}
        offset += size_of(shape)
    return header, offset


def safetensors(header, size, length=None):
    """The file of a header and so many bytes of data (0.02 everywhere); `length` lies about the header's."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + struct.pack("<f", 0.02) * (size // 4)


class WeightsTest(CliTest):

    def setUp(self):
        super().setUp()
        write_shard(self.path("train.bin"), tokens_of(1000))
        self.header, self.size = header_of(tensors_of_gpt2())
        self.write("weights/config.json", json.dumps(CONFIG))
        self.job = self.write("job.yaml", harness.job_text(model=None, windows=2) + "model: {from: weights}\n")

    def write_weights(self, header=None, size=None, length=None):
        return self.write("weights/model.safetensors", safetensors(self.header if header is None else header,
                                                                   self.size if size is None else size, length))

    def refuse(self, *parts):
        """The run ends, soon and not well, saying all of `parts`, before any window."""
        running = self.start("accrue", "run", self.job, "--output", self.path("out"), "-o", "json")
        outcome = running.wait(30)
        self.assertIn(outcome.code, (harness.INVALID_SPEC, harness.NOT_FOUND, harness.JOB_FAILED), outcome)
        self.assert_says(outcome.err + outcome.out, *parts)
        windows = self.path("out", "windows.jsonl")
        self.assertFalse(os.path.exists(windows) and os.path.getsize(windows), outcome)
        shutil.rmtree(self.path("out"), ignore_errors=True)
        return outcome

    def test_good_weights_train(self):
        self.write_weights()
        self.assertEqual(self.run_job(self.job, workers=2).result["state"], "succeeded")

    def test_lying_offsets(self):
        path = self.write_weights(size=self.size - 4)
        self.refuse(path)
        header = json.loads(json.dumps(self.header))
        header["wpe.weight"]["data_offsets"] = [0, 1 << 62]
        self.write_weights(header)
        self.refuse(path, "wpe.weight")
        header["wpe.weight"]["data_offsets"] = [-4, 2044]
        self.write_weights(header)
        self.refuse(path, "wpe.weight")

    def test_overlapping_tensors(self):
        header = json.loads(json.dumps(self.header))
        header["wpe.weight"]["data_offsets"] = [0, size_of([CONTEXT, WIDTH])]
        self.refuse(self.write_weights(header), "overlap")

    def test_wrong_shape_and_type(self):
        header = json.loads(json.dumps(self.header))
        header["wpe.weight"]["shape"] = [WIDTH, CONTEXT]
        self.refuse(self.write_weights(header), "wpe.weight")
        header = json.loads(json.dumps(self.header))
        header["wpe.weight"]["dtype"] = "I32"
        self.refuse(self.write_weights(header), "wpe.weight", "I32")

    def test_missing_and_surplus_tensors(self):
        shapes = tensors_of_gpt2()
        del shapes["h.0.ln_2.bias"]
        header, size = header_of(shapes)
        self.write_weights(header, size)
        self.refuse(self.path("weights"), "h.0.ln_2.bias")
        header, size = header_of(dict(tensors_of_gpt2(), **{"h.7.ln_2.bias": [WIDTH]}))
        self.write_weights(header, size)
        self.refuse(self.path("weights"), "h.7.ln_2.bias")

    def test_absurd_header(self):
        for length in (1 << 63, 1 << 40, 0, 7):
            self.refuse(self.write_weights(length=length))
        path = self.write("weights/model.safetensors", b"\x01\x02")
        self.refuse(path)

    def test_no_weights(self):
        self.refuse(self.path("weights"), "model.safetensors")

    def test_no_folder(self):
        shutil.rmtree(self.path("weights"))
        self.refuse(self.path("weights"))

    def test_unsupported_architecture(self):
        self.write_weights()
        self.write("weights/config.json", json.dumps(dict(CONFIG, architectures=["MambaForCausalLM"])))
        running = self.start("accrue", "run", self.job, "--output", self.path("out"))
        outcome = running.wait(30)
        self.assertNotEqual(outcome.code, 0)
        self.assert_says(outcome.err, "MambaForCausalLM", "GPT2LMHeadModel", "config.json")
        self.assertIn(outcome.code, (harness.INVALID_SPEC, harness.ERROR))

    def test_broken_config(self):
        self.write_weights()
        for config in ("", "{", "[]", json.dumps(dict(CONFIG, n_head=3)), json.dumps(dict(CONFIG, n_embd=-16))):
            self.write("weights/config.json", config)
            self.refuse(self.path("weights", "config.json"))


if __name__ == "__main__":
    harness.main()
