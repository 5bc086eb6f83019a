"""recipes/lbe01.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe01
question: Which backbone gives the best features for telling jaguars apart, without training it?
intervention: The backbone, at its own size; head, loss and training are the baseline's.
protocol: 'Stratified 80/20 split with the split seed 42; identity-balanced mAP of the validation images
  as their own gallery; the epoch with the best mAP gives the weights.

  '
published:
  dinov3: about 0.86
  eva02: below DINOv3 and above the others
  megadescriptor: about 0.79 to 0.80
  efficientnet_b4: about 0.79 to 0.80
  mobilenetv3: about 0.79 to 0.80
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
variants:
  dinov3:
    why: self-supervised ViT-L
    data:
      size: 256
    model:
      backbone: dinov3_l
      input_size: 256
  megadescriptor:
    why: trained on animals
    data:
      size: 384
    model:
      backbone: megadescriptor_l_384
      input_size: 384
  efficientnet_b4:
    why: a convolutional network
    data:
      size: 380
    model:
      backbone: efficientnet_b4
      input_size: 380
  mobilenetv3:
    why: a small one
    data:
      size: 224
    model:
      backbone: mobilenetv3_large
      input_size: 224
  eva02:
    why: masked image modelling
    data:
      size: 448
    model:
      backbone: eva02_l_448
      input_size: 448
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
