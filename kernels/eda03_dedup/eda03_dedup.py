"""recipes/eda03_dedup.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: eda03_dedup
question: Does it help to train without near-duplicates, how strict should one be, and within identities
  or across?
hypothesis: Near-duplicates add little; leaving them out costs little mAP and saves time, until good images
  go too.
intervention: Which near-duplicates leave the training images; the validation images stay the same.
protocol: 'The baseline''s head on the training images that are left; every variant is validated on the
  same images, so that only training differs. Of each group of near-duplicates the sharpest stays. Near-duplicates
  are looked for within identities, since those across identities are errors of labels or scenes shared
  by chance, and teach what to tell apart.

  '
readings:
- about: what early stopping watches
  text:
    train:
      monitor: val_loss
  code: validation mAP
  why: the published epochs were counted by the code
- about: scale of ArcFace
  text: 64, and 30 in the comparison table
  code: '64'
  taken: both
- about: precision
  text:
    train:
      precision: fp32
  code:
    train:
      precision: fp32
  taken: neither
  why: on a GPU mixed precision is several times faster; on a CPU fp32 is what auto means
- about: interpolation
  text: not told
  code: stored bilinear, shown to the backbone bicubic, affine maps and rotations by the nearest pixel
  taken: neither
  why: stored bicubic, all else bilinear with antialiasing; the nearest pixel tears thin lines of a coat
data:
  size: 384
  split: stratified
  subset_applies_to: training
model:
  backbone: megadescriptor_l_384
  input_size: 384
  head:
    name: mlp
    init: kaiming
loss: arcface
train:
  schedule: plateau
analysis:
- duplicates
seeds:
- 42
- 123
- 456
variants:
  all:
    why: nothing left out
  exact:
    why: equal pixels as stored
    data:
      subset: analysis/kept-exact_hash.csv
  phash:
    why: perceptual hashes that nearly agree
    data:
      subset: analysis/kept-perceptual_hash.csv
  ssim:
    why: structural similarity
    data:
      subset: analysis/kept-ssim.csv
  embedding:
    why: cosine above 0.95 within an identity
    data:
      subset: analysis/kept-embedding.csv
  embedding_strict:
    why: cosine above 0.99
    data:
      subset: analysis/kept-embedding_0.99.csv
  embedding_loose:
    why: cosine above 0.90
    data:
      subset: analysis/kept-embedding_0.9.csv
  across:
    why: the same threshold across identities too
    data:
      subset: analysis/kept-embedding_across.csv
  clustering:
    why: groups by average linkage
    data:
      subset: analysis/kept-clustering.csv
  knn:
    why: mutual nearest neighbours above the threshold
    data:
      subset: analysis/kept-knn_graph.csv
  hybrid:
    why: perceptual hash and embedding both agree
    data:
      subset: analysis/kept-hybrid.csv
  all_triplet:
    why: a loss that mines hard pairs, nothing left out
    loss:
      name: triplet
      margin: 0.3
    train:
      sampler:
        name: pk
        identities: 8
        images: 4
  embedding_triplet:
    why: the same without near-duplicates
    loss:
      name: triplet
      margin: 0.3
    train:
      sampler:
        name: pk
        identities: 8
        images: 4
    data:
      subset: analysis/kept-embedding.csv
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
