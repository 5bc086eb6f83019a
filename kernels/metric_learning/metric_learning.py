"""recipes/metric_learning.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: metric_learning
question: 'Which loss tells individuals apart best, as it is usually measured and across encounters?'
data: {split: {name: encounter_safe, encounters: 2}}
model: {backbone: tf_efficientnet_lite0, input_size: 224, head: {name: bn_neck, output: 256}}
loss: arcface
train: {epochs: 10, lr: 0.001, weight_decay: 0.001, schedule: cosine, select: last, patience: 0}
postprocess: [tta]
seeds: [42, 123, 456]
variants:
  arcface: {why: angular margin, loss: {name: arcface, margin: 0.3, scale: 16}}
  margins: {why: angular margins by rarity, loss: {name: arcface, margins: [0.2, 0.5], scale: 16}}
  subcenter: {why: three centres, loss: {name: subcenter_arcface, margin: 0.3, scale: 16}}
  cosface: {why: margin on the cosine, loss: {name: cosface, margin: 0.2, scale: 16}}
  sphereface: {why: multiplied angle, loss: {name: sphereface, margin: 1.5, scale: 16}}
  adaface: {why: margin by length, loss: {name: adaface, margin: 0.3, scale: 16}}
  focal: {why: easy images count less, loss: {name: focal_arcface, margin: 0.3, scale: 16}}
  cross_entropy: {why: plain classification, loss: cross_entropy}
  center: {why: classification and centres, loss: {name: sum, parts: [cross_entropy, center], weights: [1, 0.001]}}
  proxy_anchor: {why: proxies and pairs, loss: proxy_anchor}
  triplet: {why: hardest triplets, loss: triplet, train: {sampler: {name: pk, identities: 8, images: 4}}}
  circle:
    why: weighted pairs
    loss: {name: circle, scale: 32}
    train: {sampler: {name: pk, identities: 8, images: 4}}
  supcon: {why: contrast of a batch, loss: supcon, train: {sampler: {name: pk, identities: 8, images: 4}}}
  neck:
    why: 'triplets before the neck, classification behind it'
    loss:
      name: sum
      parts: [{name: cross_entropy, label_smoothing: 0.1}, {name: triplet, before_neck: true}]
      weights: [1, 1]
    train: {sampler: {name: pk, identities: 8, images: 4}}
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
