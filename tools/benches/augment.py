"""Images a second through each policy: python tools/bench.py augment.

The kit's, a batch at a time, beside torchvision v2's, an image at a time as in a DataLoader. Neither is checked against
the other, since both draw at random; all cores are used.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import Any

from .measuring import add_repeat, count, machine, seconds_of, waiting


def torchvision_policies() -> dict[str, Any]:
    """The kit's policies in torchvision v2, for float images (3, H, W)."""
    from torchvision.transforms import InterpolationMode, v2

    bilinear = InterpolationMode.BILINEAR  # as the kit's; torchvision's own is the nearest pixel
    flip, rotation = v2.RandomHorizontalFlip(), partial(v2.RandomRotation, interpolation=bilinear)
    affine = v2.RandomAffine(10, (0.05, 0.05), (0.95, 1.05), interpolation=bilinear)
    return {
        "affine_erasing": [flip, affine, v2.RandomErasing(0.7, (0.02, 0.25))],
        "elastic_rotation_perspective": [
            flip,
            v2.ElasticTransform(50.0, 5.0),
            rotation(20),
            v2.RandomPerspective(0.2, 0.5),
        ],
        "mimic_camera": [
            flip,
            v2.RandomApply([v2.ElasticTransform(35.0, 8.0)], 0.5),
            v2.RandomPerspective(0.3, 0.5),
            rotation(30),
            v2.RandomErasing(0.5, (0.02, 0.3)),
        ],
        "combined": [
            flip,
            affine,
            v2.RandomApply([v2.ElasticTransform(35.0, 8.0)], 0.5),
            v2.RandomPerspective(0.2, 0.5),
            rotation(20),
            v2.RandomErasing(0.5, (0.02, 0.25)),
        ],
        "autoaugment": [v2.AutoAugment(interpolation=bilinear)],
        "randaugment": [v2.RandAugment(interpolation=bilinear)],
        "full": [
            lambda side: v2.RandomResizedCrop(side, (0.5, 1.0), antialias=True),
            flip,
            rotation(15),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.2, 0.05)], 0.8),
            v2.AutoAugment(interpolation=bilinear),
            v2.RandomErasing(0.25, (0.02, 0.2)),
        ],
    }


def run(options: argparse.Namespace) -> None:
    import jaguar_kit
    import torch
    from torchvision.transforms import v2

    device = jaguar_kit.pick_device(options.device)
    pixels = torch.randint(0, 256, (options.batch, 4, options.side, options.side), dtype=torch.uint8).to(device)
    wait = waiting(device)
    print(f"{options.batch} images of {options.side} px on {device}, best of {options.repeat}; images a second")
    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    print(f"{'policy':<30}{'kit':>8}{'torchvision':>13}{'ratio':>7}", flush=True)
    for name, steps in torchvision_policies().items():
        policy = (jaguar_kit.Component("augmentation", name),)
        prepare = jaguar_kit.Preparation(
            jaguar_kit.Component("background", "original"), policy, options.side, (0, 0, 0), (1, 1, 1)
        )
        theirs = v2.Compose([step(options.side) if type(step).__name__ == "function" else step for step in steps])

        def kit(prepare: Any = prepare) -> None:
            prepare.images(pixels, training=True)
            wait()

        def peer(theirs: Any = theirs) -> None:
            for image in pixels[:, :3]:
                theirs(image.float() / 255)
            wait()

        rates = []
        for run in (kit, peer):
            run()  # the first call builds tables
            rates.append(options.batch / min(seconds_of(run, []) for _ in range(options.repeat)))
        print(f"{name:<30}{rates[0]:>8.0f}{rates[1]:>13.0f}{rates[0] / rates[1]:>7.2f}", flush=True)


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--batch", type=count, default=32, metavar="B", help="images in a batch (32)")
    add("--side", type=count, default=256, metavar="PX", help="side of an image (256)")
    add_repeat(command, usual=5)
    add("--device", default="auto", help="auto, cpu or cuda")
