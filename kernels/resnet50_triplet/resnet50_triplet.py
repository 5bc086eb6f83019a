"""recipes/resnet50_triplet.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

import hashlib
import sys
from pathlib import Path

MODULE = "10f1fab773aa54a5d496b3c22d986b59eb28de341ad86878600b49e8997df242"  # of its jaguar_kit.py

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
name: resnet50_triplet
question: What does a plain ResNet-50 with classification and a triplet loss reach?
hypothesis: ''
intervention: Nothing varies.
protocol: Stratified 80/20 split; identity-balanced mAP of the validation pictures as their own gallery.
interpretation: ''
published:
  public leaderboard: 0.421
data:
  root: null
  competition: jaguar-re-id
  mini: null
  masks: null
  unmasked: stop
  size: 224
  fit: squash
  turn: {}
  bad_images: stop
  split:
    name: stratified
    validation: 0.2
  split_seed: 42
  split_by_seed: false
  subset: null
  subset_applies_to: all
background:
  name: original
augment: []
model:
  backbone: resnet50
  pretrained: true
  weights: null
  input_size: 224
  freeze: false
  train_blocks: null
  gradient_checkpointing: false
  pooling:
    name: native
  head:
    name: linear
    output: 512
  geometry:
    name: cosine
loss:
  name: cross_entropy_triplet
  label_smoothing: 0.1
  triplet_weight: 0.2
  margin: 0.2
  beta: 0.0
train:
  epochs: 8
  stages: []
  batch_size: 64
  accumulate: 1
  micro_batch: null
  sampler:
    name: pk
    identities: 8
    images: 4
  mix:
    name: none
  lr: 0.0003
  backbone_lr: 1.0
  layer_decay: 1.0
  weight_decay: 0.0001
  clip_norm: null
  ema: 0.0
  precision: auto
  compile: false
  optimizer:
    name: adamw
  schedule:
    name: none
  select: map
  monitor: map
  patience: 0
  patience_from: 0
  max_hours: null
  checkpoint_minutes: 10.0
  track: none
analysis: []
search: null
divergence: null
open_set: null
test_backgrounds: []
postprocess: []
checkpoint: null
soup: []
ensemble: none
seed: 42
seeds: []
variants: {}
grid: {}
overrides: []
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
