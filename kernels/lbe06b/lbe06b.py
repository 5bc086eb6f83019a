"""recipes/lbe06b.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe06b
question: Do class-balanced losses help with the long tail of identities?
intervention: Each of five losses, plain and weighted by the effective number of images (beta 0.999).
protocol: 'Stratified 80/20 split with the split seed 42; identity-balanced mAP of the validation images
  as their own gallery; the epoch with the best mAP gives the weights.

  '
published:
  arcface_balanced: among the fastest and best
  focal_arcface: among the fastest and best
data:
  split: stratified
model:
  backbone: dinov3_l
  input_size: 256
  head: mlp
loss: arcface
train:
  batch_size: 32
  schedule: plateau
variants:
  arcface:
    loss:
      name: arcface
      margin: 0.5
      scale: 64
  arcface_balanced:
    loss:
      name: arcface
      margin: 0.5
      scale: 64
      beta: 0.999
  triplet:
    loss:
      name: triplet
      margin: 0.3
    train:
      sampler:
        name: pk
        identities: 8
        images: 4
  triplet_balanced:
    loss:
      name: triplet
      margin: 0.3
      beta: 0.999
    train:
      sampler:
        name: pk
        identities: 8
        images: 4
  cosface:
    loss:
      name: cosface
      margin: 0.35
      scale: 64
  cosface_balanced:
    loss:
      name: cosface
      margin: 0.35
      scale: 64
      beta: 0.999
  subcenter_arcface:
    loss:
      name: subcenter_arcface
      margin: 0.5
      scale: 64
      subcenters: 3
  subcenter_arcface_balanced:
    loss:
      name: subcenter_arcface
      margin: 0.5
      scale: 64
      subcenters: 3
      beta: 0.999
  focal_arcface:
    loss:
      name: focal_arcface
      margin: 0.5
      scale: 64
      gamma: 2
  focal_arcface_balanced:
    loss:
      name: focal_arcface
      margin: 0.5
      scale: 64
      gamma: 2
      beta: 0.999
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
