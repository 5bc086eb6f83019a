"""recipes/eda02.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: eda02
question: How much does a re-identification model rely on the background, and what is lost when it is
  taken away?
hypothesis: A model trained with the background has learned some of the places; behind swapped backgrounds
  it is worse.
intervention: What stands behind the animal, in training and validation alike.
protocol: 'The same head on the same frozen backbone for every background; validated on the own background,
  behind the backgrounds of other images (swap) and on the background alone. Reliance on background is
  map@original - map@swap.

  '
published:
  original: about 0.86
  black: about 0.81
  blur: about 0.81 (in effect one colour)
  noise: about 0.81 (in effect one gray)
  random: about 0.81 (in effect one gray)
conclusion: 'With the background about 0.86; without it about 0.81, whatever takes its place: the surroundings
  tell much, and a model relies on them.

  '
readings:
- about: rate and batch
  text:
    train:
      lr: 5e-4
      batch_size: 64
  code:
    train:
      lr: 1e-4
      batch_size: 32
  why: the text has the baseline's for all that it does not name
- about: noise and random
  text: additive noise, and stochastic RGB noise
  code:
    variants:
      noise:
        background:
          name: random
          grain: 18
      random:
        background:
          name: random
          grain: 15
  taken: text
  why: 'The code draws at full resolution and makes the image small afterwards, which leaves flat gray,
    and its sum overflows 8 bits; it draws once for all epochs. Drawn at the size that the model sees,
    and anew each time, noise is noise, and the experiment tells more than five shades of gray would

    '
- about: blur
  text: a Gaussian blur of large radius
  code:
    variants:
      blur:
        background:
          name: blur
          radius: 0.5
          whole: true
  taken: text
  why: the code's 1,000 px of the whole image leave almost one colour, in which the animal's own takes
    part
- about: gray
  text: none
  code: none
  taken: neither
  why: a flat colour that is not black, for comparison; nobody published a number of it
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
  backbone: dinov3_l
  input_size: 256
  head:
    name: mlp
    init: kaiming
loss: arcface
train:
  batch_size: 32
  lr: 0.0001
  schedule: plateau
test_backgrounds:
- original
- swap
- background_only
variants:
  original:
    why: the image as it is
    background: original
  black:
    why: segmented
    background: black
  gray:
    why: a neutral colour
    background: gray
  blur:
    why: colours and light without shapes
    background:
      name: blur
      radius: 0.08
  noise:
    why: additive noise over the surroundings
    background:
      name: noise
      strength: 0.3
  random:
    why: nothing of the surroundings is left
    background: random
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
