"""recipes/convnext_triplet.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: convnext_triplet
question: What does a small ConvNeXt reach with classification and a triplet loss, at a fraction of EVA-02's
  time?
intervention: The identities and images of a batch.
protocol: Stratified 80/20 split with a seed of its own; selected by pair AUC over all ordered validation
  pairs.
readings:
- about: seed of the split
  text: 314159 throughout
  code: not public
  taken: text
- about: selection, size, batches, rate and schedule
  text: not told of this system; later ones are selected by pair AUC
  code: not public
  taken: neither
  why: mAP, 224 px, batches of 8 x 4, 3e-4 at a constant rate
data:
  size: 224
  split: stratified
  split_seed: 314159
model:
  backbone: convnext_tiny.in12k_ft_in1k
  input_size: 224
  freeze: false
  head:
    name: bn_neck
    output: 512
loss: cross_entropy_triplet
train:
  epochs: 12
  sampler: pk
  lr: 0.0001
  weight_decay: 0.01
  schedule: cosine
  select: pair_auc
  monitor: pair_auc
  patience: 0
variants:
  p8_k4:
    why: many identities
    train:
      sampler:
        name: pk
        identities: 8
        images: 4
  p4_k8:
    why: many images of each
    train:
      sampler:
        name: pk
        identities: 4
        images: 8
  p16_k4:
    why: a large batch
    train:
      sampler:
        name: pk
        identities: 16
        images: 4
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
