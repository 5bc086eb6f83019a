"""recipes/lbe06a.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe06a
question: Which loss makes the best embeddings?
intervention: The loss. Losses on pairs get batches of 8 identities x 4 images, the others random batches
  of 32.
protocol: 'Stratified 80/20 split with the split seed 42; identity-balanced mAP of the validation images
  as their own gallery; the epoch with the best mAP gives the weights.

  '
published:
  triplet: needs twice the epochs
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
    why: additive angular margin
    loss:
      name: arcface
      margin: 0.5
      scale: 64
  triplet:
    why: batch-hard
    loss:
      name: triplet
      margin: 0.3
    train:
      sampler:
        name: pk
        identities: 8
        images: 4
  cosface:
    why: margin on the cosine
    loss:
      name: cosface
      margin: 0.35
      scale: 64
  subcenter_arcface:
    why: three proxies an identity
    loss:
      name: subcenter_arcface
      margin: 0.5
      scale: 64
      subcenters: 3
  focal_arcface:
    why: easy images count less
    loss:
      name: focal_arcface
      margin: 0.5
      scale: 64
      gamma: 2
  cross_entropy:
    why: plain classification
    loss: cross_entropy
  adaface:
    why: margins by quality
    loss: adaface
  circle:
    why: pairs weighted by how far they are off
    loss: circle
    train:
      sampler:
        name: pk
        identities: 8
        images: 4
  supcon:
    why: every positive against all
    loss: supcon
    train:
      sampler:
        name: pk
        identities: 8
        images: 4
  proxy_anchor:
    why: proxies as anchors
    loss: proxy_anchor
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
