"""recipes/animalclef25_retrieval.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: animalclef25_retrieval
question: How far does a metric head on the frozen MegaDescriptor go, with nearest neighbours and calibrated
  scores?
intervention: Nothing varies.
protocol: 'A tenth of the identities of each species held out whole, of the other identities'' images
  a fifth; each query is compared with the training images of its species; sqrt(BAKS x BAUS) with a threshold
  for each species, fitted on the held-out identities, cross-fitted over halves of the identities.

  '
data:
  competition: animal-clef-2025
  size: 384
  encounter: date
  split: open_set
model:
  backbone: megadescriptor_l_384
  input_size: 384
  head:
    name: mlp
    hidden: 1024
    output: 512
    dropout: 0.2
loss:
  name: arcface
  scale: 32.0
  margin: 0.3
train:
  epochs: 60
  batch_size: 128
  schedule: cosine
analysis:
- characteristics
open_set:
  thresholds: per_species
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
