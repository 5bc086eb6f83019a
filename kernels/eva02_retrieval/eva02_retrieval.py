"""recipes/eva02_retrieval.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: eva02_retrieval
question: What does EVA-02 L, trained whole with ArcFace, reach with query expansion and re-ranking?
hypothesis: ''
intervention: Nothing varies.
protocol: Stratified 80/20 split with a seed of its own; selected by pair AUC over all ordered validation
  pairs.
interpretation: ''
published:
  public leaderboard: 0.871 (0.807 without post-processing)
data:
  root: null
  competition: jaguar-re-id
  mini: null
  masks: null
  unmasked: stop
  size: 448
  fit: squash
  turn: {}
  bad_images: stop
  split:
    name: stratified
    validation: 0.2
  split_seed: 314159
  split_by_seed: false
  subset: null
  subset_applies_to: all
background:
  name: original
augment: []
model:
  backbone: eva02_l_448
  pretrained: true
  weights: null
  input_size: 448
  freeze: false
  train_blocks: null
  gradient_checkpointing: true
  pooling:
    name: gem
    p: 3.0
  head:
    name: linear
    output: 512
  geometry:
    name: cosine
loss:
  name: arcface
  margin: 0.5
  scale: 30.0
  beta: 0.0
train:
  epochs: 10
  stages: []
  batch_size: 4
  accumulate: 8
  micro_batch: null
  sampler:
    name: random
  mix:
    name: none
  lr: 2.0e-05
  backbone_lr: 1.0
  layer_decay: 1.0
  weight_decay: 0.001
  clip_norm: null
  ema: 0.0
  precision: auto
  compile: false
  optimizer:
    name: adamw
  schedule:
    name: cosine
    t_max: null
  select: pair_auc
  monitor: pair_auc
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
- name: tta
  scales:
  - 1.0
  flip: true
- name: query_expansion
  k: 3
  alpha: 3.0
- name: k_reciprocal
  k1: 20
  k2: 6
  lambda_value: 0.3
- name: blend
  raw_weight: 0.2
checkpoint: null
soup: []
ensemble: none
seed: 42
seeds:
- 42
- 1337
variants: {}
grid: {}
overrides: []
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
