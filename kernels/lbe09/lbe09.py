"""recipes/lbe09.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

import hashlib
import os
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")  # before anything reads it
MODULE = "d4d93274ecad2c10de270edf4343fdb1c9e51c87976858b1f49b8a80103b07d2"  # of its jaguar_kit.py

mounts = ("*", "*/*", "datasets/*/*")  # /kaggle/input/<slug>, or /kaggle/input/datasets/<owner>/<slug>
kits = sorted(kit for mount in mounts for kit in Path("/kaggle/input").glob(f"{mount}/jaguar_kit.py"))
fitting = [kit for kit in kits if hashlib.sha256(kit.read_bytes()).hexdigest() == MODULE]
if not kits:
    sys.exit("error: no jaguar_kit.py under /kaggle/input; attach the dataset that tools/package.py built")
if not fitting:
    sys.exit(
        f"error: {kits[0]}: another version than this kernel was written for; update the dataset with "
        "tools/package.py --update, or this kernel with tools/kernels.py and push it again"
    )
sys.path[:0] = [str(fitting[0].parent), *map(str, fitting[0].parent.glob("*.whl"))]

import jaguar_kit  # noqa: E402

OVERRIDES = []  # such as "train.epochs=3"
RECIPE = """
name: lbe09
question: Does a learning-rate schedule help a head on frozen features?
intervention: The schedule; AdamW, 5e-4, everything else as in the baseline.
protocol: Five seeds, a split for each; paired by seed.
published:
  none: 0.8844
  step: 0.8767 +- 0.0204
  cosine: 0.8859 +- 0.0150
  onecycle: 0.8879 +- 0.0134
  exponential: 0.8768 +- 0.0191
data:
  split: stratified
  split_by_seed: true
model:
  backbone: dinov3_l
  input_size: 256
  head: mlp
loss: arcface
train:
  schedule: plateau
divergence: {}
seeds:
- 42
- 123
- 456
- 789
- 2024
variants:
  none:
    why: constant
    train:
      schedule: none
  step:
    why: halved every 10 epochs
    train:
      schedule:
        name: step
        factor: 0.5
        every: 10
  cosine:
    why: half a cosine over 100 epochs
    train:
      schedule:
        name: cosine
        t_max: 100
  onecycle:
    why: up to 1e-3 and down
    train:
      schedule:
        name: onecycle
        max_lr: 1e-3
  exponential:
    why: 0.95 an epoch
    train:
      schedule:
        name: exponential
        factor: 0.95
  plateau:
    why: halved when validation loss stalls
    train:
      schedule:
        name: plateau
        factor: 0.5
        patience: 5
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
