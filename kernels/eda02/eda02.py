"""recipes/eda02.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: eda02
question: How much does a re-identification model rely on the background, and what is lost when it is
  taken away?
hypothesis: A model trained with the background has learned some of the places; behind swapped backgrounds
  it is worse.
intervention: What stands behind the animal, in training and validation alike.
protocol: 'The same head on the same frozen backbone for every background; validated on the own background,
  behind the backgrounds of other pictures (swap) and on the background alone. Reliance on background
  is map@original - map@swap.

  '
interpretation: ''
published:
  original: about 0.86
  black: about 0.81
  gray: about 0.81
  blur: about 0.81
  noise: about 0.81
  random: about 0.81
data:
  root: null
  competition: jaguar-re-id
  mini: null
  masks: null
  unmasked: stop
  size: 256
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
  backbone: dinov3_l
  pretrained: true
  weights: null
  input_size: 256
  freeze: true
  train_blocks: null
  gradient_checkpointing: false
  pooling:
    name: native
  head:
    name: mlp
    layers: 2
    hidden: 512
    output: 256
    dropout: 0.3
  geometry:
    name: cosine
loss:
  name: arcface
  margin: 0.5
  scale: 64.0
  beta: 0.0
train:
  epochs: 100
  stages: []
  batch_size: 32
  accumulate: 1
  micro_batch: null
  sampler:
    name: random
  mix:
    name: none
  lr: 0.0001
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
    name: plateau
    factor: 0.5
    patience: 5
    monitor: val_loss
  select: map
  monitor: map
  patience: 10
  patience_from: 0
  max_hours: null
  checkpoint_minutes: 10.0
  track: none
analysis: []
search: null
divergence: null
open_set: null
test_backgrounds:
- name: original
- name: swap
  radius: 0.08
- name: background_only
  radius: 0.08
postprocess: []
checkpoint: null
soup: []
ensemble: none
seed: 42
seeds: []
variants:
  original:
    why: the picture as it is
    background: original
  black:
    why: segmented
    background: black
  gray:
    why: a neutral colour
    background: gray
  blur:
    why: colours and light without shapes
    background:
      name: blur
      radius: 0.08
  noise:
    why: additive noise over the surroundings
    background:
      name: noise
      strength: 0.3
  random:
    why: nothing of the surroundings is left
    background: random
grid: {}
overrides: []
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
