"""recipes/final_evidence.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: final_evidence
question: 'What do the posterior of the classes and matching spots add to the final configuration?'
data: {split: stratified, split_seed: 456}
background: black
augment: [flip, affine, erasing]
model:
  backbone: dinov3_l
  input_size: 256
  freeze: false
  head: {name: mlp, layers: 3, hidden: 1024, dropout: 0.2, init: kaiming}
loss: {name: focal_arcface, scale: 17.570478141393707, margin: 0.3600732565980775, gamma: 2.111056877247217}
train:
  batch_size: 32
  lr: 0.00015993740640441972
  backbone_lr: 0.054143381201692535
  weight_decay: 0.00014063618588945403
  schedule: {name: plateau, patience: 3}
postprocess: [tta, posterior, local, fuse]
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
