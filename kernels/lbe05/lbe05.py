"""recipes/lbe05.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe05
question: In which geometry should embeddings live?
intervention: The geometry of embeddings and loss; for the Poincare ball its curvature k and clipping
  radius r.
protocol: 'Stratified 80/20 split with the split seed 42; identity-balanced mAP of the validation images
  as their own gallery; the epoch with the best mAP gives the weights.

  '
published:
  k1_r0.6: 0.886
  k0.05_r0.7: 0.8778
  euclidean: 0.8699
  hyperspherical: 0.8624
  k1_r0.5: 0.8414
  k1_r0.95: 0.7521
  k0.1_r0.8: 0.6291
  k2_r0.7: 0.6018
data:
  size: 384
  split: stratified
model:
  backbone: dinov3_l
  input_size: 384
  head: mlp
loss: arcface
train:
  schedule: plateau
variants:
  euclidean:
    why: ranked by Euclidean distance
    model:
      geometry: euclidean
  hyperspherical:
    why: ranked by cosine
    model:
      geometry: hyperspherical
  k1_r0.5:
    why: Poincare ball
    loss:
      name: hyperbolic_arcface
      margin: 0.5
      scale: 64
    model:
      geometry:
        name: poincare
        curvature: 1
        radius: 0.5
  k1_r0.6:
    why: Poincare ball
    loss:
      name: hyperbolic_arcface
      margin: 0.5
      scale: 64
    model:
      geometry:
        name: poincare
        curvature: 1
        radius: 0.6
  k1_r0.95:
    why: Poincare ball
    loss:
      name: hyperbolic_arcface
      margin: 0.5
      scale: 64
    model:
      geometry:
        name: poincare
        curvature: 1
        radius: 0.95
  k0.05_r0.7:
    why: Poincare ball
    loss:
      name: hyperbolic_arcface
      margin: 0.5
      scale: 64
    model:
      geometry:
        name: poincare
        curvature: 0.05
        radius: 0.7
  k0.1_r0.8:
    why: Poincare ball
    loss:
      name: hyperbolic_arcface
      margin: 0.5
      scale: 64
    model:
      geometry:
        name: poincare
        curvature: 0.1
        radius: 0.8
  k2_r0.7:
    why: Poincare ball
    loss:
      name: hyperbolic_arcface
      margin: 0.5
      scale: 64
    model:
      geometry:
        name: poincare
        curvature: 2
        radius: 0.7
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
