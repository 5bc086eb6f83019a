"""recipes/eda04.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: eda04
question: Is a smaller, cleaner training set as good as all images?
hypothesis: Curation saves time; whether it costs mAP depends on what it takes away.
intervention: Training images, all or curated.
protocol: '(1) near-duplicates, cosine above 0.95 within an identity, keep the sharpest; (2) below the
  5th percentile of sharpness or contrast; (3) below the 1st percentile of representativeness; (4) at
  most mean + 1 sd images of an identity, kept by 0.5 rank(representativeness) + 0.3 rank(uniqueness)
  + 0.2 rank(sharpness).

  '
published:
  full: 0.7798 (epoch 35 of 45, 2.9 min)
  curated: 0.7130 (epoch 24 of 34, 1.5 min)
  images: 1895 -> 1216 -> 1121 -> 1116 -> 1053 (871 pairs; thresholds 11.53, 27.54, 0.3331, cap 95)
  means before and after: sharpness 85.10/118.88, contrast 49.07/50.99, representativeness .6648/.6986,
    uniqueness .2831/.3801
data:
  size: 384
  split: stratified
model:
  backbone: megadescriptor_l_384
  input_size: 384
  head: mlp
loss: arcface
train:
  schedule: plateau
analysis:
- curation
variants:
  full:
    why: all images
  curated:
    why: 'the study''s protocol: split and validated among the curated images'
    data:
      subset: analysis/curated.csv
  curated_training:
    why: the curated ones of the full training images, validated on the full validation set
    data:
      subset: analysis/curated.csv
      subset_applies_to: training
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
