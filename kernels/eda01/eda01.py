"""recipes/eda01.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: eda01
question: What are the images like, how unequal are the identities, and does the split keep their proportions?
hypothesis: Images differ much in sharpness and light, and a few identities have most of them.
intervention: Nothing varies and nothing is trained; the images are measured.
protocol: 'Sharpness is the variance of the Laplacian, brightness the mean and contrast the standard deviation
  of gray values, all on the animal''s own pixels and at full resolution; foreground is the animal''s
  share of the image, ratio its area to the background''s. Of the images that the split trains on, as
  the study measured them.

  '
published:
  sharpness: right-skewed
  foreground: peaks near 0.5
conclusion: 'Few individuals have most of the images; sharpness has a long right tail; the animal takes
  about half of an image. Rare individuals need a loss or a sampler that heeds them.

  '
readings:
- about: where quality is measured
  text: on each image
  code: at full resolution, where alpha is above 0
  why: the variance of the Laplacian falls as an image is made small
- about: animal to background
  text: called a ratio of animal to background
  code: the animal's share of the image
  why: the published figure is of the share, which is the signal foreground here
- about: which images
  text:
    analysis:
    - characteristics
  code: the 1,516 that train
  why: the text speaks of a test split; read as all images that have a label
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
- name: characteristics
  images: training
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
