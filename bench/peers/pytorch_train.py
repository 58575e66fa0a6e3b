#!/usr/bin/env python3
"""The peer: PyTorch training the same model on the same batch, tuned as well as we know how.

Prints one JSON object: tokens per second of the median and the best window, after warm-up windows are left out.
GPT-2 as in Hugging Face (tanh-GELU, tied head, biases), scaled_dot_product_attention, fused or foreach AdamW.

  pytorch_train.py --layers 6 --width 256 --heads 8 --vocabulary 8192 --sequence 256 --micro-batch 4 --units 16 \
                   --threads 2 --precision fp32 [--compile] [--processes 2]
"""
import argparse
import json
import os
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


def attention(q, k, v):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    t = q.shape[2]  # PyTorch before 2.0
    scores = (q @ k.transpose(2, 3)) * q.shape[3] ** -0.5
    mask = torch.ones(t, t, dtype=torch.bool).triu(1)
    return F.softmax(scores.masked_fill(mask, float("-inf")), dim=3).to(v.dtype) @ v


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(width)
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_out = nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(d, dim=2)
        q, k, v = (z.view(b, t, self.heads, d // self.heads).transpose(1, 2) for z in (q, k, v))
        y = attention(q, k, v)
        x = x + self.c_proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt2(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.wte = nn.Embedding(a.vocabulary, a.width)
        self.wpe = nn.Embedding(a.sequence, a.width)
        self.blocks = nn.ModuleList(Block(a.width, a.heads) for _ in range(a.layers))
        self.ln_f = nn.LayerNorm(a.width)
        # GPT-2's initial values. PyTorch's own (unit variance embeddings) saturate the softmax, and gradients become
        # denormal, which makes binary32 products several times slower.
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1))


def work(rank, a, results):
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    torch.set_flush_denormal(True)
    model = Gpt2(a)
    distributed = a.processes > 1
    if distributed:
        import torch.distributed as dist
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(a.port))
        dist.init_process_group("gloo", rank=rank, world_size=a.processes)
        model = nn.parallel.DistributedDataParallel(model)
    step_model = torch.compile(model) if a.compile else model
    decay = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                                  lr=1e-3, betas=(0.9, 0.95), **({"fused": True} if a.fused else {}))
    units = a.units // a.processes
    tokens = torch.randint(0, a.vocabulary, (units, a.micro_batch, a.sequence + 1))
    seconds = []
    for window in range(a.warmup + a.windows):
        begin = time.perf_counter()
        for unit in range(units):
            last = unit == units - 1
            sync = model.no_sync() if distributed and not last else _nothing()
            with sync, torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.precision == "bf16"):
                loss = step_model(tokens[unit, :, :-1], tokens[unit, :, 1:]) / units
                loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - begin)
    if rank == 0:
        results.extend(seconds[a.warmup:])


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def spawned(rank, a, queue):
    results = []
    work(rank, a, results)
    if rank == 0:
        queue.put(results)


def main():
    p = argparse.ArgumentParser()
    for name, default in dict(layers=6, width=256, heads=8, vocabulary=8192, sequence=256, micro_batch=4, units=16, threads=2,
                              processes=1, windows=5, warmup=2, port=29511).items():
        p.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--fused", action="store_true")
    a = p.parse_args()
    results = []
    if a.processes == 1:
        work(0, a, results)
    else:
        import torch.multiprocessing as mp
        context = mp.get_context("spawn")
        queue = context.Queue()
        children = [context.Process(target=spawned, args=(r, a, queue)) for r in range(a.processes)]
        for child in children:
            child.start()
        results = queue.get()
        for child in children:
            child.join()
    window_tokens = a.units * a.micro_batch * a.sequence
    seconds = sorted(results)
    print(json.dumps({"torch": torch.__version__, "precision": a.precision, "compile": a.compile, "processes": a.processes,
                      "threads": a.threads, "tokens_per_second": window_tokens / seconds[len(seconds) // 2],
                      "best_tokens_per_second": window_tokens / seconds[0]}))


if __name__ == "__main__":
    main()
