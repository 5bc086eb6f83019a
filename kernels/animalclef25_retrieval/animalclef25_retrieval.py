"""recipes/animalclef25_retrieval.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: animalclef25_retrieval
question: How far does a metric head on the frozen MegaDescriptor go, with nearest neighbours and calibrated
  scores?
hypothesis: ''
intervention: Nothing varies.
protocol: 'A tenth of the identities of each species held out whole, of the other identities'' pictures
  a fifth; each query is compared with the training pictures of its species; sqrt(BAKS x BAUS) with a
  threshold for each species, fitted on the held-out identities, cross-fitted over halves of the identities.

  '
interpretation: ''
published: {}
data:
  root: null
  competition: animal-clef-2025
  mini: null
  masks: null
  unmasked: stop
  size: 384
  fit: squash
  turn: {}
  bad_images: stop
  split:
    name: open_set
    validation: 0.2
    unknown: 0.1
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
    hidden: 1024
    output: 512
    dropout: 0.2
  geometry:
    name: cosine
loss:
  name: arcface
  margin: 0.3
  scale: 32.0
  beta: 0.0
train:
  epochs: 60
  stages: []
  batch_size: 128
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
    name: cosine
    t_max: null
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
open_set:
  decide: nearest
  thresholds: per_species
  threshold: null
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
