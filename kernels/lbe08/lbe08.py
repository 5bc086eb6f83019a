"""recipes/lbe08.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe08
question: Which optimizer trains the head best, and how surely?
intervention: The optimizer, with the learning rate that the study gives it.
protocol: 'Five seeds, a split for each; a run diverges when its best mAP up to epoch 20 is below 0.75;
  loss variance and gradient norms beside mAP.

  '
published:
  adam: 0.8841 +- 0.0151, 0 %, 34 epochs
  adamw: 0.8850 +- 0.0158, 0 %, 34
  sgd: 0.8697 +- 0.0178, 80 %, 98
  nesterov: 0.8695 +- 0.0175, 80 %, 98
  rmsprop: 0.8905 +- 0.0174, 0 %, 22
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
  adam:
    train:
      optimizer: adam
      lr: 5e-4
  adamw:
    train:
      optimizer: adamw
      lr: 5e-4
  sgd:
    train:
      optimizer:
        name: sgd
        momentum: 0.9
      lr: 5e-5
  nesterov:
    train:
      optimizer:
        name: nesterov
        momentum: 0.9
      lr: 5e-5
  rmsprop:
    train:
      optimizer:
        name: rmsprop
        alpha: 0.99
      lr: 5e-5
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
