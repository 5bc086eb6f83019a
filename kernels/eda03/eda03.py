"""recipes/eda03.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: eda03
question: Which images are near-duplicates, and does the similarity of embeddings tell identities apart?
intervention: The threshold on the cosine of two images' embeddings (0.90, 0.95, 0.99), and the method.
protocol: 'Frozen backbone, no head. All pairs of training images; ROC and FDR of "same identity" by cosine;
  near-duplicates by exact hash, perceptual hash, SSIM, embedding, clustering, kNN graph and hybrids,
  within identities or across.

  '
published:
  AUC: 0.6793
  at 0.95: 1,307 pairs, 112 of them across identities
conclusion: 'The cosine of plain features ranks pairs with an AUC of .68; of the pairs above 0.95 nine
  in ten show one identity. Higher thresholds lose most of the true pairs; near-duplicates are called
  hard and are kept, and the features must be trained.

  '
readings:
- about: what the backbones see
  text: not told
  code: stored at 256 px, and shown at each backbone's own size
- about: which images
  text:
    data:
      size: 384
    analysis:
    - name: duplicates
      thresholds:
      - 0.9
      - 0.95
      - 0.99
      against: dinov3_l
  code: the 1,516 that train, stored at 256 px
  why: 1,307, 112 and .6793 are of their 1,148,370 pairs
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
  split: stratified
model:
  backbone: megadescriptor_l_384
  input_size: 384
  head:
    name: mlp
    init: kaiming
loss: arcface
train:
  epochs: 0
  schedule: plateau
analysis:
- name: duplicates
  against: dinov3_l
  images: training
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
