"""recipes/lbe01.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: lbe01
question: Which backbone gives the best features for telling jaguars apart, without training it?
hypothesis: Features learned without labels from very many images tell single animals apart better than
  others.
intervention: The backbone, at its own size; head, loss and training are the baseline's.
protocol: 'Stratified 80/20 split with the split seed 42; identity-balanced mAP of the validation images
  as their own gallery; the epoch with the best mAP gives the weights.

  '
published:
  dinov3: about 0.86
  eva02: below DINOv3 and above the others
  megadescriptor: about 0.79 to 0.80
  efficientnet_b4: about 0.79 to 0.80
  mobilenetv3: about 0.79 to 0.80
conclusion: DINOv3 is best, EVA-02 next; the other three are alike.
readings:
- about: features of EVA-02, EfficientNet-B4 and MobileNetV3
  text:
    variants:
      efficientnet_b4:
        model:
          pooling: native
      mobilenetv3:
        model:
          pooling: native
      eva02:
        model:
          pooling: native
  code: 1,000 logits of ImageNet, since timm's classifier stayed on
  why: the study's own count of trainable parameters proves it, about 650,000 for all three
- about: what EfficientNet-B4 and MobileNetV3 see
  text:
    variants:
      efficientnet_b4:
        model:
          input_size: 380
          crop: 1.0
      mobilenetv3:
        data:
          size: 224
        model:
          crop: 1.0
  code: centres of 320 px of 365, and of 224 px of 256
  why: the code's transforms are timm's own
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
variants:
  dinov3:
    why: a ViT-L of 304 M parameters that learned without labels from 1.7 billion images
    data:
      size: 256
    model:
      backbone: dinov3_l
      input_size: 256
  megadescriptor:
    why: a Swin-L of 197 M trained to tell individual animals apart
    data:
      size: 384
    model:
      backbone: megadescriptor_l_384
      input_size: 384
  efficientnet_b4:
    why: a convolutional network of 19 M, trained on ImageNet
    data:
      size: 380
    model:
      backbone: efficientnet_b4
      input_size: 320
      crop: 0.875
      pooling: logits
  mobilenetv3:
    why: the smallest, 5 M, for devices in the field
    data:
      size: 256
    model:
      backbone: mobilenetv3_large
      input_size: 224
      crop: 0.875
      pooling: logits
  eva02:
    why: a ViT-L of 305 M that learned to fill in masked images, then ImageNet
    data:
      size: 448
    model:
      backbone: eva02_l_448
      input_size: 448
      pooling: logits
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
