"""recipes/lbe12.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

import hashlib
import os
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")  # before anything reads it
KIT = "cb1dd322a518144718a6e17eb858136791eb7a079df25749dd9ede34e278004d"  # of its jaguar_kit.py and tools/experiments

mounts = ("*", "*/*", "datasets/*/*")  # /kaggle/input/<slug>, or /kaggle/input/datasets/<owner>/<slug>
kits = sorted(file.parent for mount in mounts for file in Path("/kaggle/input").glob(f"{mount}/jaguar_kit.py"))
fitting = []
for kit in kits:
    files = [kit / "jaguar_kit.py", *sorted(kit.glob("tools/experiments/*.py"))]
    if hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() == KIT:
        fitting.append(kit)
if not kits:
    sys.exit("error: no jaguar_kit.py under /kaggle/input; attach the dataset that tools/package.py built")
if not fitting:
    sys.exit(
        f"error: {kits[0]}: another kit than this kernel was written for; update the dataset with tools/package.py "
        "--update (which uploads its folder tools/ too), or this kernel with tools/kernels.py and push it again"
    )
sys.path[:0] = [str(fitting[0]), *map(str, fitting[0].glob("*.whl"))]

import jaguar_kit  # noqa: E402

OVERRIDES = []  # such as "train.epochs=3"
RECIPE = """
name: lbe12
question: What do test-time augmentation, query expansion and re-ranking add, alone and together?
intervention: The steps between embeddings and scores.
protocol: 'Stratified 80/20 split with the split seed 456; identity-balanced mAP of the validation images
  as their own gallery, at the best epoch.

  '
conclusion: 'Expansion moves a query towards the middle of its cluster, re-ranking presses down what has
  no neighbours in common, and mirror images make the descriptor steadier; no number is printed of any
  of them.

  '
readings:
- about: expansion in k-reciprocal re-ranking
  text: not told
  code:
    variants:
      rerank:
        postprocess:
        - name: k_reciprocal
          k1: 20
          k2: 6
          lambda_value: 0.3
          growing: true
      tta_rerank:
        postprocess:
        - tta
        - name: k_reciprocal
          k1: 20
          k2: 6
          lambda_value: 0.3
          growing: true
      qe_rerank:
        postprocess:
        - name: query_expansion
          k: 3
        - name: k_reciprocal
          k1: 20
          k2: 6
          lambda_value: 0.3
          growing: true
      tta_qe_rerank:
        postprocess:
        - tta
        - name: query_expansion
          k: 3
        - name: k_reciprocal
          k1: 20
          k2: 6
          lambda_value: 0.3
          growing: true
  taken: neither
  why: compared with the first set, as the paper has it; the code compares with the set as it grows
- about: whose embeddings are expanded
  text:
    variants:
      qe:
        postprocess:
        - name: query_expansion
          k: 3
          sides: query
      tta_qe:
        postprocess:
        - tta
        - name: query_expansion
          k: 3
          sides: query
      qe_rerank:
        postprocess:
        - name: query_expansion
          k: 3
          sides: query
        - name: k_reciprocal
          k1: 20
          k2: 6
          lambda_value: 0.3
      tta_qe_rerank:
        postprocess:
        - tta
        - name: query_expansion
          k: 3
          sides: query
        - name: k_reciprocal
          k1: 20
          k2: 6
          lambda_value: 0.3
  code: those of queries and gallery, which are the same images
- about: which model, and which combinations
  text: all three refinements
  code: 'a head on the frozen DINOv3, trained on black with elastic_rotation_perspective and fed with
    the background; re-ranking alone

    '
  taken: neither
  why: all eight combinations of the final recipe's run; -o checkpoint=runs/lbe04a/elastic_rotation_perspective/seed42
    with that recipe's model and -o background=original is the code's
- about: seed of training
  text: not told
  code:
    seed: 456
  taken: neither
  why: 42 as everywhere else; the split's seed is 456 in both
- about: what early stopping watches
  text:
    train:
      monitor: val_loss
  code: validation mAP
- about: what validation scores
  text: embeddings after TTA, query expansion and re-ranking
  code: raw cosines
  taken: both
  why: map is of raw cosines, map_postprocessed of what follows the steps
- about: precision
  text:
    train:
      precision: fp32
  code:
    train:
      precision: fp32
  taken: neither
  why: on a GPU mixed precision is several times faster
data:
  split: stratified
  split_seed: 456
background: black
augment:
- flip
- affine
- erasing
model:
  backbone: dinov3_l
  input_size: 256
  freeze: false
  head:
    name: mlp
    layers: 3
    hidden: 1024
    dropout: 0.2
    init: kaiming
loss:
  name: focal_arcface
  scale: 17.570478141393707
  margin: 0.3600732565980775
  gamma: 2.111056877247217
train:
  epochs: 0
  batch_size: 32
  lr: 0.00015993740640441972
  backbone_lr: 0.054143381201692535
  weight_decay: 0.00014063618588945403
  schedule:
    name: plateau
    patience: 3
postprocess:
- tta
- query_expansion
- k_reciprocal
checkpoint: runs/final/default/seed42
variants:
  none:
    why: plain cosines
    postprocess: []
  tta:
    why: mirror images
    postprocess:
    - tta
  qe:
    why: neighbours speak too
    postprocess:
    - name: query_expansion
      k: 3
  rerank:
    why: mutual neighbours
    postprocess:
    - name: k_reciprocal
      k1: 20
      k2: 6
      lambda_value: 0.3
  tta_qe:
    why: two of them
    postprocess:
    - tta
    - name: query_expansion
      k: 3
  tta_rerank:
    why: two of them
    postprocess:
    - tta
    - name: k_reciprocal
      k1: 20
      k2: 6
      lambda_value: 0.3
  qe_rerank:
    why: two of them
    postprocess:
    - name: query_expansion
      k: 3
    - name: k_reciprocal
      k1: 20
      k2: 6
      lambda_value: 0.3
  tta_qe_rerank:
    why: all
    postprocess:
    - tta
    - name: query_expansion
      k: 3
    - name: k_reciprocal
      k1: 20
      k2: 6
      lambda_value: 0.3
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
