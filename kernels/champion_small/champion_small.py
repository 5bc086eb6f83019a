"""recipes/champion_small.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: champion_small
question: 'Which of the champion''s parts add something on photographs, before any large backbone is trained?'
data: {split: {name: encounter_safe, encounters: 2}}
model: {backbone: tf_efficientnet_lite0, input_size: 224, head: {name: bn_neck, output: 256}}
loss: {name: arcface, scale: 16.0, margin: 0.3}
train:
  epochs: 10
  lr: 0.001
  weight_decay: 0.001
  schedule: cosine
  select: last
  monitor: map_across
  patience: 0
pseudo: {epochs: 3, least: 0.5, cap: 5}
postprocess: [tta, {name: posterior, form: product, temperature: 2.0}, local, fuse]
ensemble: evidence
seeds: [42, 123, 456]
variants:
  plain: {why: a head of one layer and batch norm behind ArcFace}
  subcenter: {why: three centres for each identity, loss: {name: subcenter_arcface, margin: 0.3, scale: 16}}
  margins: {why: dynamic margins by rarity, loss: {margins: [0.2, 0.5]}}
  center:
    why: centre loss beside it
    loss: {name: sum, parts: [{name: arcface, margin: 0.3, scale: 16}, {name: center}], weights: [1, 0.001]}
  rarity: {why: rare individuals drawn more often, train: {sampler: by_rarity}}
  encounters: {why: every encounter counts once an epoch, train: {sampler: encounter, epochs: 20}}
  ema: {why: a moving average of the weights, train: {ema: 0.98}}
  dropout: {why: dropout behind the neck, model: {head: {dropout: 0.2}}}
  gem: {why: GeM pooling of the last maps, model: {pooling: gem}}
  whiten: {why: whitened by the scatter within individuals, model: {head: {name: whiten}}}
  cross_entropy: {why: plain classification, loss: cross_entropy}
  together:
    why: 'those of loss, sampler and average at once'
    loss: {name: subcenter_arcface, margins: [0.2, 0.5], scale: 16}
    model: {head: {dropout: 0.2}}
    train: {ema: 0.98, sampler: by_rarity}
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
