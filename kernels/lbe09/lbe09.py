"""recipes/lbe09.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe09
question: Does a learning-rate schedule help a head on frozen features?
hypothesis: A head on frozen features converges in any case; a schedule changes when, not how well.
intervention: The schedule; AdamW, 5e-4, everything else as in the baseline.
protocol: Five seeds, a split for each; paired by seed.
published:
  none: 0.8844
  step: 0.8767 +- 0.0204
  cosine: 0.8859 +- 0.0150
  onecycle: 0.8879 +- 0.0134
  exponential: 0.8768 +- 0.0191
conclusion: 'All schedules lie within about .01 of each other, and none diverges; OneCycle is highest,
  by its slow start. Plateau, of which no number is printed, is called quicker and better in practice,
  and is what the final configuration has.

  '
readings:
- about: when a run diverges
  text:
    divergence:
      by: map
      map: 0.75
      epoch: 20
  code:
    divergence:
      by: loss
  taken: text
  why: the code counts runs whose loss is no number, and finds none
- about: factor of plateau
  text:
    variants:
      plateau:
        train:
          schedule:
            factor: 0.5
  code: .1 after five epochs
- about: patience of cosine
  text:
    variants:
      cosine:
        train:
          patience: 10
  code: 20 epochs, all others 10
  why: the rate is still high when the others would stop
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
  split_by_seed: true
model:
  backbone: dinov3_l
  input_size: 256
  head:
    name: mlp
    init: kaiming
loss: arcface
train:
  schedule: plateau
divergence: {}
seeds:
- 42
- 123
- 456
- 789
- 2024
variants:
  none:
    why: constant
    train:
      schedule: none
  step:
    why: halved every 10 epochs
    train:
      schedule:
        name: step
        factor: 0.5
        every: 10
  cosine:
    why: half a cosine over 100 epochs
    train:
      schedule:
        name: cosine
        t_max: 100
      patience: 20
  onecycle:
    why: up to 1e-3 and down
    train:
      schedule:
        name: onecycle
        max_lr: 1e-3
  exponential:
    why: 0.95 an epoch
    train:
      schedule:
        name: exponential
        factor: 0.95
  plateau:
    why: a tenth when validation loss stalls
    train:
      schedule:
        name: plateau
        factor: 0.1
        patience: 5
  step_fast:
    why: sensitivity to twice the rate
    train:
      schedule:
        name: step
        factor: 0.5
        every: 10
      lr: 1e-3
  cosine_small_batch:
    why: sensitivity to the batch
    train:
      schedule:
        name: cosine
        t_max: 100
      patience: 20
      batch_size: 16
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
