"""recipes/lbe06a.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe06a
question: 'Which loss makes the best embeddings?'
data: {split: stratified}
model: {backbone: dinov3_l, input_size: 256, head: {name: mlp, init: kaiming}}
loss: arcface
train: {batch_size: 32, schedule: plateau}
variants:
  arcface: {why: additive angular margin, loss: {name: arcface, margin: 0.5, scale: 64}}
  triplet:
    why: batch-hard in random batches
    loss: {name: triplet, margin: 0.3, alone: itself}
    train: {loss_batch: 32}
  triplet_pk:
    why: batch-hard where every anchor has positives
    loss: {name: triplet, margin: 0.3}
    train: {sampler: {name: pk, identities: 8, images: 4}}
  arcface_pk:
    why: 'the margin on the batches that losses on pairs get, so that loss and batch are told apart'
    loss: {name: arcface, margin: 0.5, scale: 64}
    train: {sampler: {name: pk, identities: 8, images: 4}}
  cosface: {why: margin on the cosine, loss: {name: cosface, margin: 0.35, scale: 64}}
  subcenter_arcface:
    why: three proxies an identity
    loss: {name: subcenter_arcface, margin: 0.5, scale: 64, subcenters: 3}
  focal_arcface: {why: easy images count less, loss: {name: focal_arcface, margin: 0.5, scale: 64, gamma: 2}}
  cross_entropy: {why: plain classification, loss: cross_entropy}
  adaface: {why: margins by quality, loss: adaface}
  circle:
    why: pairs weighted by how far they are off
    loss: circle
    train: {sampler: {name: pk, identities: 8, images: 4}}
  supcon: {why: every positive against all, loss: supcon, train: {sampler: {name: pk, identities: 8, images: 4}}}
  proxy_anchor: {why: proxies as anchors, loss: proxy_anchor}
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
