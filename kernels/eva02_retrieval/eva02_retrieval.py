"""recipes/eva02_retrieval.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: eva02_retrieval
question: What does EVA-02 L, trained whole with ArcFace, reach with query expansion and re-ranking?
intervention: Nothing varies.
protocol: Stratified 80/20 split with a seed of its own; selected by pair AUC over all ordered validation
  pairs.
published:
  public leaderboard: 0.871 (0.807 without post-processing)
data:
  size: 448
  split: stratified
  split_seed: 314159
model:
  backbone: eva02_l_448
  input_size: 448
  freeze: false
  gradient_checkpointing: true
  pooling: gem
  head:
    name: linear
    output: 512
loss:
  name: arcface
  scale: 30.0
train:
  epochs: 10
  batch_size: 4
  accumulate: 8
  lr: 2.0e-05
  weight_decay: 0.001
  schedule: cosine
  select: pair_auc
  monitor: pair_auc
  patience: 0
postprocess:
- tta
- name: query_expansion
  alpha: 3.0
- k_reciprocal
- blend
seeds:
- 42
- 1337
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
