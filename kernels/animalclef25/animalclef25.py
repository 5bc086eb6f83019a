"""recipes/animalclef25.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: animalclef25
question: 'Which backbone and augmentation name known individuals of three species best, and tell unknown ones?'
data: {competition: animal-clef-2025, size: 384, encounter: date, split: open_set}
model: {backbone: vit_l_384, input_size: 384, freeze: false, head: none}
loss: cross_entropy
train:
  epochs: 10
  batch_size: 16
  lr: 5.0e-05
  weight_decay: 0.01
  schedule: linear
  select: loss_and_accuracy
  patience: 0
analysis: [characteristics]
open_set: {decide: softmax}
variants:
  vit_b: {why: configuration 1, model: {backbone: vit_b_384}, train: {batch_size: 32}}
  vit_l: {why: configuration 2}
  vit_l_full: {why: configuration 3, augment: full, train: {lr: 8e-5}}
  vit_l_full_warm: {why: configuration 4, augment: full, train: {lr: 2e-4, schedule: {warmup: 0.2}}}
  vit_h: {why: configuration 5, model: {backbone: vit_h, input_size: 378}}
  convnext_xl:
    why: configuration 6
    augment: full
    model: {backbone: convnext_xl_384}
    train: {batch_size: 8, lr: 8e-5}
  convnext_xl_long:
    why: configuration 7
    augment: full
    model: {backbone: convnext_xl_384}
    train: {batch_size: 8, lr: 8e-5, epochs: 30}
  swin_l: {why: configuration 8, augment: full, model: {backbone: swin_l_384}, train: {batch_size: 8, lr: 8e-5}}
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
