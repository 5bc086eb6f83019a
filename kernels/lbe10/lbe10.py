"""recipes/lbe10.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

import hashlib
import os
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")  # before anything reads it
KIT = "b8a896b40e3691f040ecdecc97bf782a325e2d9ec20f974fa07d1d4929543e76"  # of its jaguar_kit.py and tools/experiments

mounts = ("*", "*/*", "datasets/*/*")  # /kaggle/input/<slug>, or /kaggle/input/datasets/<owner>/<slug>
kits = sorted(file.parent for mount in mounts for file in Path("/kaggle/input").glob(f"{mount}/jaguar_kit.py"))
files = {kit: [kit / "jaguar_kit.py", *sorted(kit.glob("tools/experiments/*.py"))] for kit in kits}
sums = {hashlib.sha256(b"".join(f.read_bytes() for f in files[kit])).hexdigest(): kit for kit in reversed(kits)}
if KIT not in sums:
    other = f"{kits[0]}: another kit than this kernel was written for; update the dataset with" if kits else ""
    remedy = "tools/package.py --update (which uploads its folder tools/ too), or this kernel with tools/kernels.py"
    none = "no jaguar_kit.py under /kaggle/input; attach the dataset that tools/package.py built"
    sys.exit(f"error: {other} {remedy} and push it again" if kits else f"error: {none}")
sys.path[:0] = [str(sums[KIT]), *map(str, sums[KIT].glob("*.whl"))]

import jaguar_kit  # noqa: E402

OVERRIDES = []  # such as "train.epochs=3"
RECIPE = """
name: lbe10
question: 'Which settings does a Bayesian search find for the whole backbone?'
data: {split: stratified, split_seed: 456}
background: black
augment: [flip, affine, erasing]
model:
  backbone: dinov3_l
  input_size: 256
  freeze: false
  head: {name: mlp, hidden: 1024, dropout: 0.2, init: kaiming}
loss: {name: focal_arcface, scale: 17.570478141393707, margin: 0.3600732565980775, gamma: 2.111056877247217}
train:
  batch_size: 32
  lr: 0.00015993740640441972
  backbone_lr: 0.054143381201692535
  weight_decay: 0.00014063618588945403
  schedule: none
search:
  space:
    train.lr: {low: 1e-5, high: 5e-4, log: true}
    train.backbone_lr: {low: 0.001, high: 0.2, log: true}
    loss.margin: {low: 0.3, high: 0.5}
    loss.scale: {low: 16.0, high: 64.0}
    loss.gamma: {low: 0.0, high: 5.0}
    train.weight_decay: {low: 1e-5, high: 1e-2, log: true}
    model.head.hidden: {choices: [256, 512, 1024]}
    model.head.dropout: {choices: [0.0, 0.1, 0.2, 0.3, 0.4]}
    train.batch_size: {choices: [16, 32]}
  seed: 456
  prune: false
  baseline:
    loss: {name: arcface, margin: 0.5, scale: 64}
    model.head.hidden: 512
    model.head.dropout: 0.3
    train.lr: 1e-4
    train.backbone_lr: 1.0
    train.weight_decay: 1e-4
postprocess: [tta, query_expansion, k_reciprocal]
seed: 456
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
