"""recipes/nas.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: nas
question: Which head, pooling and backbone does a search find, and is it better than the baseline with
  the same budget?
hypothesis: ''
intervention: Depth, width, dropout and output of the head, the pooling, and the backbone.
protocol: 'The best trial beside the baseline as it is, and beside the baseline''s own learning rate and
  weight decay searched with as many trials: what is gained beyond the second is gained by the architecture.

  '
interpretation: ''
published:
  baseline: 0.7798, the study's own
data:
  root: null
  competition: jaguar-re-id
  mini: null
  masks: null
  unmasked: stop
  size: 384
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
  backbone: megadescriptor_l_384
  pretrained: true
  weights: null
  input_size: 384
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
  batch_size: 64
  accumulate: 1
  micro_batch: null
  sampler:
    name: random
  mix:
    name: none
  lr: 0.0005
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
search:
  trials: 30
  space:
    model.backbone:
      choices:
      - megadescriptor_l_384
      - dinov3_l
    model.pooling:
      choices:
      - native
      - average
      - gem
    model.head.layers:
      choices:
      - 1
      - 2
      - 3
      - 4
    model.head.hidden:
      choices:
      - 256
      - 512
      - 1024
      - 2048
    model.head.output:
      choices:
      - 128
      - 256
      - 512
    model.head.dropout:
      low: 0.0
      high: 0.5
  matched:
    train.lr:
      low: 1e-5
      high: 5e-3
      log: true
    train.weight_decay:
      low: 1e-5
      high: 1e-2
      log: true
  seed: 0
  storage: null
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
