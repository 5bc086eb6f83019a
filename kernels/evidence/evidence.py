"""recipes/evidence.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

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
name: evidence
question: How much of mAP is the scene, and what do a classifier's posterior, matching spots and encounters
  add to likeness?
hypothesis: 'mAP rewards recognising the scene, so that it understates what training brings; across encounters
  the posterior and the fused evidence gain, since the three kinds of evidence agree on little, and the
  mean over encounters gains most.

  '
intervention: One step of evidence after the other, by one trained head; then the three seeds together.
protocol: 'A fifth of the images held out, two whole encounters of each identity among them; identity-balanced
  mAP of the validation images and, where a solution is known, of the test images, as they are and across
  encounters, after each step.

  '
data:
  split:
    name: encounter_safe
    encounters: 2
model:
  backbone: tf_efficientnet_lite0
  input_size: 224
  head:
    name: bn_neck
    output: 256
loss:
  name: arcface
  scale: 16.0
  margin: 0.3
train:
  epochs: 10
  lr: 0.001
  weight_decay: 0.001
  schedule: cosine
  select: last
  monitor: map_across
  patience: 0
postprocess:
- tta
- name: posterior
  form: product
  temperature: 2.0
- local
- fuse
- encounters
ensemble:
  name: evidence
  steps:
  - encounters
seeds:
- 42
- 123
- 456
"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
