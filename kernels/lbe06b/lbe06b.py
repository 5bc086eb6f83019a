"""recipes/lbe06b.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe06b
question: Do class-balanced losses help with the long tail of identities?
hypothesis: Rare identities gain when they count as much as the common ones.
intervention: Each of five losses, plain and weighted by the effective number of images (beta 0.999).
protocol: 'Stratified 80/20 split with the split seed 42; identity-balanced mAP of the validation images
  as their own gallery; the epoch with the best mAP gives the weights.

  '
published:
  arcface_balanced: among the fastest and best
  focal_arcface: among the fastest and best
conclusion: 'Class-balanced ArcFace is, with focal ArcFace, the fastest and best; focal ArcFace is kept.

  '
readings:
- about: batch size
  text:
    train:
      batch_size: 64
    variants:
      triplet:
        train:
          loss_batch: 64
      triplet_balanced:
        train:
          loss_batch: 64
  code:
    train:
      batch_size: 32
  why: the text has the baseline's 64 for all that it does not name
- about: distances of triplet
  text:
    variants:
      triplet:
        loss:
          squared: true
      triplet_balanced:
        loss:
          squared: true
  code: plain Euclidean distances
  why: the formula of the text squares them
- about: batches of triplet
  text: random sampling
  code: the shuffled batches of 32 that all losses get
  taken: both
  why: 'Batches of 8 identities x 4 images, in which every anchor has positives, are how such losses are
    meant; lbe06a has both

    '
- about: anchors without a positive
  text: not told
  code: they count, with distance 0 to themselves
- about: validation loss of losses on pairs
  text: not told
  code: batch-hard within validation batches of 32, the mean of batches
  why: it drives the learning rate; over all images at once it would be another number
- about: class-balanced losses
  text: of all five
  code: of ArcFace and Triplet, of which one runs
  taken: text
  why: weights of mean 1 by the effective number of images, for each of the five
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
  batch_size: 32
  schedule: plateau
variants:
  arcface:
    why: additive angular margin
    loss:
      name: arcface
      margin: 0.5
      scale: 64
  arcface_balanced:
    why: rare identities count more
    loss:
      name: arcface
      margin: 0.5
      scale: 64
      beta: 0.999
  triplet:
    why: batch-hard in random batches
    loss:
      name: triplet
      margin: 0.3
      alone: itself
    train:
      loss_batch: 32
  triplet_balanced:
    why: rare identities count more
    loss:
      name: triplet
      margin: 0.3
      alone: itself
      beta: 0.999
    train:
      loss_batch: 32
  cosface:
    why: margin on the cosine
    loss:
      name: cosface
      margin: 0.35
      scale: 64
  cosface_balanced:
    why: rare identities count more
    loss:
      name: cosface
      margin: 0.35
      scale: 64
      beta: 0.999
  subcenter_arcface:
    why: three proxies an identity
    loss:
      name: subcenter_arcface
      margin: 0.5
      scale: 64
      subcenters: 3
  subcenter_arcface_balanced:
    why: rare identities count more
    loss:
      name: subcenter_arcface
      margin: 0.5
      scale: 64
      subcenters: 3
      beta: 0.999
  focal_arcface:
    why: easy images count less
    loss:
      name: focal_arcface
      margin: 0.5
      scale: 64
      gamma: 2
  focal_arcface_balanced:
    why: rare identities and hard images count more
    loss:
      name: focal_arcface
      margin: 0.5
      scale: 64
      gamma: 2
      beta: 0.999
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
