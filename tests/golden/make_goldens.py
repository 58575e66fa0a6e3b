#!/usr/bin/env python3
"""Makes the golden files of the model tests with PyTorch: python3 make_goldens.py [FOLDER]

The models below have the architecture of Hugging Face's GPT-2, Llama and Qwen2, written plainly and run
in float64. Parameters and tokens come from integer formulas that tests/golden/golden_test.cc repeats, so
nothing but results is stored: losses, for every gradient tensor its norm and its product with a fixed
direction, and ten windows of AdamW as docs/numerics.md, section 7, has it.

Needs PyTorch 1.13 or newer and NumPy; the committed files were made with Debian 12's python3-torch.
"""

import json
import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

MODELS = {
    "gpt2": dict(
        architecture="gpt2", vocabulary=97, context=24, layers=3, heads=4, kv_heads=4, head_size=12,
        width=48, hidden=192, tie_embeddings=True, qkv_bias=False, norm_epsilon=1e-05, rows=3,
        sequence_length=20, windows=10),
    "gpt2_untied": dict(
        architecture="gpt2", vocabulary=61, context=9, layers=2, heads=2, kv_heads=2, head_size=16,
        width=32, hidden=100, tie_embeddings=False, qkv_bias=False, norm_epsilon=1e-05, rows=2,
        sequence_length=9, windows=0),
    # More tokens than the head takes at a time, and than a block of a column sum.
    "gpt2_chunked_head": dict(
        architecture="gpt2", vocabulary=33000, context=160, layers=1, heads=2, kv_heads=2, head_size=8,
        width=16, hidden=64, tie_embeddings=True, qkv_bias=False, norm_epsilon=1e-05, rows=2,
        sequence_length=150, windows=0),
    "llama": dict(
        architecture="llama", vocabulary=101, context=32, layers=3, heads=4, kv_heads=2, head_size=12,
        width=48, hidden=128, tie_embeddings=False, qkv_bias=False, rope_theta=10000.0,
        norm_epsilon=1e-06, rows=3, sequence_length=20, windows=10),
    "qwen2": dict(
        architecture="llama", vocabulary=89, context=40, layers=2, heads=6, kv_heads=2, head_size=8,
        width=48, hidden=80, tie_embeddings=True, qkv_bias=True, rope_theta=1000000.0, norm_epsilon=1e-06,
        rows=2, sequence_length=33, windows=10),
    "llama3_rope": dict(
        architecture="llama", vocabulary=53, context=64, layers=2, heads=4, kv_heads=4, head_size=16,
        width=32, hidden=48, tie_embeddings=False, qkv_bias=False, rope_theta=100.0,
        rope_scaling=dict(kind="llama3", factor=4.0, low_frequency_factor=1.0, high_frequency_factor=4.0,
        original_context=32), norm_epsilon=1e-05, rows=2, sequence_length=50, windows=0),
}
OPTIMIZER = dict(beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1, clip_norm=1.0, learning_rate=3e-3)
UNITS = 3  # in a window

# Salts of the formulas.
PARAMETER, DIRECTION, TOKEN, TARGET, MASK = 1, 2, 3, 4, 5


def splitmix64(x):
    x = np.asarray(x, dtype=np.uint64)
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def draw(salt, stream, count):
    """`count` 64-bit numbers of a stream below 2^16."""
    begin = np.uint64((salt << 56) | (stream << 40))
    return splitmix64(begin + np.arange(count, dtype=np.uint64))


def centered(salt, stream, count):
    """Multiples of 2^-24 in [-0.5, 0.5)."""
    return ((draw(salt, stream, count) >> np.uint64(40)).astype(np.int64) - (1 << 23)) * 2.0**-24


def shapes(m):
    d, hidden, out = m["width"], m["hidden"], []
    if m["architecture"] == "gpt2":
        out += [("wte.weight", [m["vocabulary"], d]), ("wpe.weight", [m["context"], d])]
        for i in range(m["layers"]):
            p = f"h.{i}."
            out += [(p + "ln_1.weight", [d]), (p + "ln_1.bias", [d])]
            out += [(p + "attn.c_attn.weight", [d, 3 * d]), (p + "attn.c_attn.bias", [3 * d])]
            out += [(p + "attn.c_proj.weight", [d, d]), (p + "attn.c_proj.bias", [d])]
            out += [(p + "ln_2.weight", [d]), (p + "ln_2.bias", [d])]
            out += [(p + "mlp.c_fc.weight", [d, hidden]), (p + "mlp.c_fc.bias", [hidden])]
            out += [(p + "mlp.c_proj.weight", [hidden, d]), (p + "mlp.c_proj.bias", [d])]
        out += [("ln_f.weight", [d]), ("ln_f.bias", [d])]
    else:
        q, kv = m["heads"] * m["head_size"], m["kv_heads"] * m["head_size"]
        out += [("model.embed_tokens.weight", [m["vocabulary"], d])]
        for i in range(m["layers"]):
            p = f"model.layers.{i}."
            out += [(p + "input_layernorm.weight", [d])]
            for name, size in ("q", q), ("k", kv), ("v", kv):
                out += [(p + f"self_attn.{name}_proj.weight", [size, d])]
                if m["qkv_bias"]:
                    out += [(p + f"self_attn.{name}_proj.bias", [size])]
            out += [(p + "self_attn.o_proj.weight", [d, q]), (p + "post_attention_layernorm.weight", [d])]
            out += [(p + "mlp.gate_proj.weight", [hidden, d]), (p + "mlp.up_proj.weight", [hidden, d])]
            out += [(p + "mlp.down_proj.weight", [d, hidden])]
        out += [("model.norm.weight", [d])]
    if not m["tie_embeddings"]:
        out += [("lm_head.weight", [m["vocabulary"], d])]
    return out


def is_norm_weight(name):
    return name.endswith("weight") and any(part in name for part in ("ln_", "norm"))


def make_parameters(m):
    parameters = {}
    for stream, (name, shape) in enumerate(shapes(m)):
        values = centered(PARAMETER, stream, math.prod(shape)).reshape(shape) * 0.5
        parameters[name] = torch.tensor(values + (1 if is_norm_weight(name) else 0), requires_grad=True)
    return parameters


def make_unit(m, window, unit):
    """Tokens and targets; about one target in 2 + unit is masked."""
    stream, count = window * UNITS + unit, m["rows"] * m["sequence_length"]
    shape = (m["rows"], m["sequence_length"])
    tokens = draw(TOKEN, stream, count) % np.uint64(m["vocabulary"])
    targets = (draw(TARGET, stream, count) % np.uint64(m["vocabulary"])).astype(np.int64)
    targets[draw(MASK, stream, count) % np.uint64(2 + unit) == 0] = -1
    return torch.tensor(tokens.astype(np.int64).reshape(shape)), torch.tensor(targets.reshape(shape))


def attention(q, k, v):
    """q, k, v: [batch, heads, T, head_size]."""
    length = q.shape[2]
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    out = scores.masked_fill(~causal, -math.inf).softmax(-1) @ v
    return out.transpose(1, 2).reshape(q.shape[0], length, -1)


def heads(x, count):
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def gpt2_logits(m, p, tokens):
    def norm(x, name):
        return F.layer_norm(x, [m["width"]], p[name + ".weight"], p[name + ".bias"], m["norm_epsilon"])

    def conv1d(x, name):
        return x @ p[name + ".weight"] + p[name + ".bias"]

    def gelu(x):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    x = p["wte.weight"][tokens] + p["wpe.weight"][: tokens.shape[1]]
    for i in range(m["layers"]):
        h = f"h.{i}."
        q, k, v = conv1d(norm(x, h + "ln_1"), h + "attn.c_attn").split(m["width"], dim=2)
        x = x + conv1d(attention(*(heads(t, m["heads"]) for t in (q, k, v))), h + "attn.c_proj")
        x = x + conv1d(gelu(conv1d(norm(x, h + "ln_2"), h + "mlp.c_fc")), h + "mlp.c_proj")
    return norm(x, "ln_f") @ (p["wte.weight"] if m["tie_embeddings"] else p["lm_head.weight"]).T


def rope_angles(m):
    size = m["head_size"]
    frequency = [m["rope_theta"] ** (-2 * i / size) for i in range(size // 2)]
    if "rope_scaling" in m:
        s = m["rope_scaling"]
        for i, f in enumerate(frequency):
            wavelength, context = 2 * math.pi / f, s["original_context"]
            if wavelength > context / s["low_frequency_factor"]:
                frequency[i] = f / s["factor"]
            elif wavelength >= context / s["high_frequency_factor"]:
                smooth = (context / wavelength - s["low_frequency_factor"]) / (
                    s["high_frequency_factor"] - s["low_frequency_factor"])
                frequency[i] = (1 - smooth) * f / s["factor"] + smooth * f
    return torch.outer(torch.arange(m["sequence_length"], dtype=torch.float64), torch.tensor(frequency * 2))


def llama_logits(m, p, tokens):
    def norm(x, name):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + m["norm_epsilon"]) * p[name + ".weight"]

    def linear(x, name):
        return F.linear(x, p[name + ".weight"], p.get(name + ".bias"))

    def rotate(x):
        angles, half = rope_angles(m), x.shape[3] // 2
        return x * angles.cos() + torch.cat([-x[..., half:], x[..., :half]], dim=3) * angles.sin()

    x = p["model.embed_tokens.weight"][tokens]
    group = m["heads"] // m["kv_heads"]
    for i in range(m["layers"]):
        h = f"model.layers.{i}."
        y = norm(x, h + "input_layernorm")
        q = rotate(heads(linear(y, h + "self_attn.q_proj"), m["heads"]))
        k = rotate(heads(linear(y, h + "self_attn.k_proj"), m["kv_heads"])).repeat_interleave(group, dim=1)
        v = heads(linear(y, h + "self_attn.v_proj"), m["kv_heads"]).repeat_interleave(group, dim=1)
        x = x + linear(attention(q, k, v), h + "self_attn.o_proj")
        y = norm(x, h + "post_attention_layernorm")
        y = F.silu(linear(y, h + "mlp.gate_proj")) * linear(y, h + "mlp.up_proj")
        x = x + linear(y, h + "mlp.down_proj")
    head = p["model.embed_tokens.weight" if m["tie_embeddings"] else "lm_head.weight"]
    return norm(x, "model.norm") @ head.T


def add_unit(m, p, window, unit):
    """Adds a unit's gradient, of the SUM of its token losses, to .grad; returns that sum and the count."""
    tokens, targets = make_unit(m, window, unit)
    logits = (gpt2_logits if m["architecture"] == "gpt2" else llama_logits)(m, p, tokens)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum")
    loss.backward()
    return loss.item(), int((targets >= 0).sum())


def train(m):
    p, o, windows = make_parameters(m), OPTIMIZER, []
    state = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in p.items()}
    for window in range(m["windows"]):
        for value in p.values():
            value.grad = None
        units = [add_unit(m, p, window, unit) for unit in range(UNITS)]
        loss, valid = sum(u[0] for u in units), sum(u[1] for u in units)
        norm = math.sqrt(sum((v.grad**2).sum().item() for v in p.values())) / valid
        coefficient = min(1.0, o["clip_norm"] / (norm + 1e-6))
        with torch.no_grad():
            for name, value in p.items():
                g, (first, second) = value.grad * (coefficient / valid), state[name]
                first.mul_(o["beta1"]).add_(g, alpha=1 - o["beta1"])
                second.mul_(o["beta2"]).add_(g * g, alpha=1 - o["beta2"])
                step = first / (1 - o["beta1"] ** (window + 1))
                step = step / ((second / (1 - o["beta2"] ** (window + 1))).sqrt() + o["epsilon"])
                if value.dim() >= 2:
                    step = step + o["weight_decay"] * value
                value.sub_(step * o["learning_rate"])
        windows.append(dict(loss=loss / valid, gradient_norm=norm, valid_tokens=valid))
    return windows


def make_golden(m):
    p = make_parameters(m)
    loss, valid = add_unit(m, p, 0, 0)
    tensors = []
    for stream, (name, shape) in enumerate(shapes(m)):
        g = p[name].grad
        direction = torch.tensor(centered(DIRECTION, stream, math.prod(shape)).reshape(shape))
        tensors.append(dict(name=name, shape=shape, gradient_norm=g.norm().item(),
                            gradient_product=(g * direction).sum().item()))
    golden = dict(model=m, loss_sum=loss, valid_tokens=valid, tensors=tensors)
    if m["windows"]:
        golden.update(optimizer=OPTIMIZER, units=UNITS, windows=train(m))
    return golden


def main():
    torch.set_num_threads(1)  # so that the files repeat to the last digit
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "data")
    os.makedirs(folder, exist_ok=True)
    for name, model in MODELS.items():
        with open(os.path.join(folder, name + ".json"), "w") as file:
            json.dump(make_golden(model), file, indent=1)
            file.write("\n")
        print(name)


if __name__ == "__main__":
    main()
