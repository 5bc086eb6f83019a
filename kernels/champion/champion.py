"""recipes/champion.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: champion
question: 'How far do three large backbones go, trained whole with all that the best public systems use?'
data: {size: 448, split: all}
background: {name: mixed, of: {original: 0.5, black: 0.3, gray: 0.2}}
evaluated_background: original
augment:
- name: affine
  degrees: 15.0
  translate: 0.1
  scale: [0.85, 1.15]
- colour_jitter
- name: erasing
  p: 0.3
  area: [0.02, 0.2]
model: {freeze: false, gradient_checkpointing: true, head: {name: bn_neck, output: 512, dropout: 0.2}}
loss: {name: subcenter_arcface, margins: [0.2, 0.5], scale: 30.0}
train:
  epochs: 20
  batch_size: 16
  sampler: by_rarity
  backbone_lr: 0.06
  layer_decay: 0.8
  weight_decay: 0.01
  clip_norm: 1.0
  ema: 0.99
  schedule: cosine_warmup
  select: last
  patience: 0
pseudo: {}
postprocess: [tta, {name: posterior, form: product, temperature: 2.0}, local, fuse]
ensemble: evidence
variants:
  eva02:
    why: the backbone of the best public system
    model: {backbone: eva02_l_448, pooling: {name: gem}, drop_path: 0.2}
  dinov3:
    why: the best single model of the study
    model: {backbone: dinov3_l, input_size: 448, pooling: {name: gem}, drop_path: 0.2}
  miewid:
    why: trained on coats of many species
    model: {backbone: miewid, input_size: 440}
    train: {layer_decay: 1.0}
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
