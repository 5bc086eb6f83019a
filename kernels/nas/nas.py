"""recipes/nas.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: nas
question: Which head, pooling and backbone does a search find, and is it better than the baseline
  with the same budget?
data: {size: 384, split: stratified}
model: {backbone: megadescriptor_l_384, input_size: 384, head: {name: mlp, init: kaiming}}
loss: arcface
train: {schedule: plateau}
search:
  space:
    model.backbone: {choices: [megadescriptor_l_384, dinov3_l]}
    model.pooling: {choices: [native, average, gem]}
    model.head.layers: {choices: [1, 2, 3, 4]}
    model.head.hidden: {choices: [256, 512, 1024, 2048]}
    model.head.output: {choices: [128, 256, 512]}
    model.head.dropout: {low: 0.0, high: 0.5}
  matched: {train.lr: {low: 1e-5, high: 5e-3, log: true}, train.weight_decay: {low: 1e-5, high: 1e-2, log: true}}
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
