"""recipes/nas.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: nas
question: Which head, pooling and backbone does a search find, and is it better than the baseline with
  the same budget?
hypothesis: A head of another shape gains less than another rate would.
intervention: Depth, width, dropout and output of the head, the pooling, and the backbone.
protocol: 'The best trial beside the baseline as it is, and beside the baseline''s own learning rate and
  weight decay searched with as many trials: what is gained beyond the second is gained by the architecture.

  '
published:
  baseline: 0.7798, the study's own
readings:
- about: size of DINOv3
  text: not told
  code: not told
  taken: neither
  why: 384 px for both backbones, so that they compare; everywhere else DINOv3 sees 256 px
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
  schedule: plateau
search:
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
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
