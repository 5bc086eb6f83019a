"""recipes/lbe07.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe07
question: How small may training images be, and does growing them help?
hypothesis: Small images are enough at first, and save time; fine patterns need large ones in the end.
intervention: The size in which images are stored, fixed or growing in stages; patience that runs out
  ends the run.
protocol: 'Stratified 80/20 split with the split seed 42; identity-balanced mAP of the validation images
  as their own gallery; the epoch with the best mAP gives the weights.

  '
published:
  px128: 0.7830 (23 of 33 epochs, 3.3 min)
  px256: 0.7882 (34 of 44, 4.0)
  px384: 0.7955 (42 of 52, 4.9)
  px128_256_384: 0.7949 (60 of 70, 5.6)
  px256_384: 0.7882 (34 of 50, 4.0)
conclusion: 'Of the fixed sizes the largest is best and slowest; growing from 128 px reaches nearly the
  same in more epochs, since each change of size is learned anew. Growing is given up.

  '
readings:
- about: size of validation images
  text:
    train:
      validate_at: size
  code: that of the stage; 384 px for the submission alone
  why: so .7830 is the mAP of 128 px on images of 128 px; on images of 384 px it would be another number
- about: when patience runs out in an early stage
  text:
    train:
      patience_ends: stage
  code: the whole run ends
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
  size: 384
  split: stratified
model:
  backbone: megadescriptor_l_384
  input_size: 384
  head:
    name: mlp
    init: kaiming
loss: arcface
train:
  schedule: plateau
  patience_ends: run
  validate_at: stage
variants:
  px128:
    why: small
    train:
      stages:
      - epochs: 100
        size: 128
  px256:
    why: middling
    train:
      stages:
      - epochs: 100
        size: 256
  px384:
    why: the backbone's own size
    train:
      stages:
      - epochs: 100
        size: 384
  px128_256_384:
    why: three stages
    train:
      stages:
      - epochs: 30
        size: 128
      - epochs: 30
        size: 256
      - epochs: 40
        size: 384
  px256_384:
    why: two stages
    train:
      stages:
      - epochs: 40
        size: 256
      - epochs: 60
        size: 384
  px256_384_early:
    why: the same with an earlier switch
    train:
      stages:
      - epochs: 20
        size: 256
      - epochs: 80
        size: 384
  px256_384_late:
    why: the same with a later switch
    train:
      stages:
      - epochs: 60
        size: 256
      - epochs: 40
        size: 384
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
