"""recipes/frozen_dino.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

import hashlib
import os
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")  # before anything reads it
KIT = "cb1dd322a518144718a6e17eb858136791eb7a079df25749dd9ede34e278004d"  # of its jaguar_kit.py and tools/experiments

mounts = ("*", "*/*", "datasets/*/*")  # /kaggle/input/<slug>, or /kaggle/input/datasets/<owner>/<slug>
kits = sorted(file.parent for mount in mounts for file in Path("/kaggle/input").glob(f"{mount}/jaguar_kit.py"))
fitting = []
for kit in kits:
    files = [kit / "jaguar_kit.py", *sorted(kit.glob("tools/experiments/*.py"))]
    if hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() == KIT:
        fitting.append(kit)
if not kits:
    sys.exit("error: no jaguar_kit.py under /kaggle/input; attach the dataset that tools/package.py built")
if not fitting:
    sys.exit(
        f"error: {kits[0]}: another kit than this kernel was written for; update the dataset with tools/package.py "
        "--update (which uploads its folder tools/ too), or this kernel with tools/kernels.py and push it again"
    )
sys.path[:0] = [str(fitting[0]), *map(str, fitting[0].glob("*.whl"))]

import jaguar_kit  # noqa: E402

OVERRIDES = []  # such as "train.epochs=3"
RECIPE = """
name: frozen_dino
question: How good is the baseline's head on a frozen DINOv3 ViT-L?
intervention: Nothing varies.
protocol: 'Stratified 80/20 split with the split seed 42; identity-balanced mAP of the validation images
  as their own gallery; the epoch with the best mAP gives the weights.

  '
readings:
- about: what early stopping watches
  text:
    train:
      monitor: val_loss
  code: validation mAP
  why: the published epochs were counted by the code
- about: scale of ArcFace
  text: 64, and 30 in the comparison table
  code: '64'
  taken: both
- about: precision
  text:
    train:
      precision: fp32
  code:
    train:
      precision: fp32
  taken: neither
  why: on a GPU mixed precision is several times faster; on a CPU fp32 is what auto means
- about: interpolation
  text: not told
  code: stored bilinear, shown to the backbone bicubic, affine maps and rotations by the nearest pixel
  taken: neither
  why: stored bicubic, all else bilinear with antialiasing; the nearest pixel tears thin lines of a coat
data:
  split: stratified
model:
  backbone: dinov3_l
  input_size: 256
  head:
    name: mlp
    init: kaiming
loss: arcface
train:
  schedule: plateau
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
