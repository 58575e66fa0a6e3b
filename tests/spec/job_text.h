// The job file of the examples, for tests to spoil.
#pragma once

namespace accrue {

inline constexpr char kJob[] = R"(name: headers
model:                        # either  from: DIR  (a Hugging Face folder), or:
  architecture: gpt2          # gpt2 | llama
  vocabulary: 8192
  context: 256
  layers: 6
  heads: 8
  kv_heads: 8                 # llama
  width: 256
  hidden: 1024
data:
  train: ["data/headers/train-*.bin"]
  validation: ["data/headers/validation-*.bin"]
  order: shuffled             # shuffled | sequential
batch:
  sequences: 64               # effective batch: sequences in a window
  micro_batch: 4              # sequences in a unit
  sequence_length: 256        # T
accumulation: {mode: exact}   # exact | fast
precision: fp32               # fp32 | tf32 | bf16 | fp16
optimizer: {name: adamw, learning_rate: 1.0e-3, betas: [0.9, 0.95], epsilon: 1.0e-8, weight_decay: 0.1}
schedule: {name: cosine, warmup_windows: 100, minimum_ratio: 0.1}
clip_norm: 1.0                # coefficient min(1, clip / (norm + 1e-6))
windows: 2000                 # or  epochs: 3
evaluation: {every_windows: 100, sequences: 64}
checkpoint: {every_windows: 500, keep: 3}
workers: {min: 1, max: 8}
seed: 1234
)";

}  // namespace accrue
