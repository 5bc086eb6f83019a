"""recipes/lbe04a.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe04a
question: 'Which augmentation helps, and which part of it?'
data: {split: stratified}
background: black
model: {backbone: dinov3_l, input_size: 256, head: {name: mlp, init: kaiming}}
loss: arcface
train: {batch_size: 32, lr: 0.005, schedule: plateau}
variants:
  none: {why: the images as they are, augment: []}
  affine_erasing: {why: policy 1, augment: affine_erasing}
  elastic_rotation_perspective: {why: policy 2, augment: elastic_rotation_perspective}
  mimic_camera: {why: policy 3, augment: mimic_camera}
  combined: {why: policy 4, augment: combined}
  only_flip: {why: one part alone, augment: flip}
  only_affine: {why: one part alone, augment: {name: affine, degrees: 10, translate: 0.05, scale: [0.95, 1.05]}}
  only_erasing: {why: one part alone, augment: {name: erasing, p: 0.7, area: [0.02, 0.25]}}
  only_elastic: {why: one part alone, augment: {name: elastic, alpha: 50, sigma: 5, p: 1.0}}
  only_rotation: {why: one part alone, augment: {name: rotation, degrees: 20}}
  only_perspective: {why: one part alone, augment: {name: perspective, distortion: 0.2, p: 0.5}}
  without_flip:
    why: the combination less one part
    augment: [affine, {name: elastic, alpha: 50, sigma: 5, p: 1.0}, rotation, perspective, {name: erasing, p: 0.7}]
  without_affine:
    why: the combination less one part
    augment: [flip, {name: elastic, alpha: 50, sigma: 5, p: 1.0}, rotation, perspective, {name: erasing, p: 0.7}]
  without_elastic:
    why: the combination less one part
    augment: [flip, affine, rotation, perspective, {name: erasing, p: 0.7}]
  without_rotation:
    why: the combination less one part
    augment: [flip, affine, {name: elastic, alpha: 50, sigma: 5, p: 1.0}, perspective, {name: erasing, p: 0.7}]
  without_perspective:
    why: the combination less one part
    augment: [flip, affine, {name: elastic, alpha: 50, sigma: 5, p: 1.0}, rotation, {name: erasing, p: 0.7}]
  without_erasing:
    why: the combination less one part
    augment: [flip, affine, {name: elastic, alpha: 50, sigma: 5, p: 1.0}, rotation, perspective]
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
