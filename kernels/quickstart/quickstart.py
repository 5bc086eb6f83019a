"""recipes/quickstart.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: quickstart
question: Does everything work on this machine, and does training help?
hypothesis: A small network trained from nothing tells twelve synthetic cats apart far better than an
  untrained one.
intervention: Nothing varies; one small network is trained from random weights.
protocol: 'Stratified 80/20 split of the training pictures; every validation picture is a query against
  all other validation pictures; identity-balanced mAP before training and at the best epoch.

  '
interpretation: ''
published: {}
data:
  root: null
  competition: jaguar-re-id
  mini:
    identities: 12
    images: 360
    seed: 0
    round: 1
    layout: jaguar
  masks: null
  unmasked: keep
  size: 160
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
  name: black
augment:
- name: affine
  degrees: 10.0
  translate: 0.05
  scale:
  - 0.9
  - 1.1
  p: 1.0
- name: erasing
  p: 0.3
  area:
  - 0.02
  - 0.15
  ratio:
  - 0.3
  - 3.3
model:
  backbone: test_resnet
  pretrained: false
  weights: null
  input_size: 160
  freeze: false
  train_blocks: null
  gradient_checkpointing: false
  pooling:
    name: native
  head:
    name: linear
    output: 128
  geometry:
    name: cosine
loss:
  name: arcface
  margin: 0.2
  scale: 16.0
  beta: 0.0
train:
  epochs: 30
  stages: []
  batch_size: 16
  accumulate: 1
  micro_batch: null
  sampler:
    name: random
  mix:
    name: none
  lr: 0.002
  backbone_lr: 1.0
  layer_decay: 1.0
  weight_decay: 0.01
  clip_norm: null
  ema: 0.0
  precision: auto
  compile: false
  optimizer:
    name: adamw
  schedule:
    name: cosine
    t_max: null
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
postprocess:
- name: auto
checkpoint: null
soup: []
ensemble: none
seed: 0
seeds: []
variants: {}
grid: {}
overrides: []
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
