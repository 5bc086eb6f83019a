"""recipes/convnext_triplet.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: convnext_triplet
question: What does a small ConvNeXt reach with classification and a triplet loss, at a fraction
  of EVA-02's time?
data: {size: 224, split: stratified, split_seed: 314159}
model: {backbone: convnext_tiny.in12k_ft_in1k, input_size: 224, freeze: false, head: {name: bn_neck, output: 512}}
loss: cross_entropy_triplet
train:
  epochs: 12
  sampler: pk
  lr: 0.0001
  weight_decay: 0.01
  schedule: cosine
  select: pair_auc
  monitor: pair_auc
  patience: 0
variants:
  p8_k4: {why: many identities, train: {sampler: {name: pk, identities: 8, images: 4}}}
  p4_k8: {why: many images of each, train: {sampler: {name: pk, identities: 4, images: 8}}}
  p16_k4: {why: a large batch, train: {sampler: {name: pk, identities: 16, images: 4}}}
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
