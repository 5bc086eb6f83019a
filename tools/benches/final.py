"""Training steps of the final recipe (ViT-L, 256 px, batch 32) on a GPU: python tools/bench.py final.

The kit's steps, from stored images and in the precision that it chooses, stand beside a plain loop in fp32 without TF32
on images that lie prepared on the GPU. Model FLOPs are torch's count for one batch, forward and backward; utilisation
is their share of what a large matrix product reaches there in the same precision. It says what a step's time goes into,
each part timed alone.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .measuring import add_repeat, count, gigabytes, machine, seconds_of, waiting
from .trainers import CATS, trainer_on

RECIPES = Path(__file__).parents[2] / "recipes"


class Steps:
    """Training steps of the final recipe on random images and weights, and their parts."""

    def __init__(self, options: argparse.Namespace, plain: bool):
        import jaguar_kit as jk
        import torch

        settings = [f"model.backbone={options.backbone}", "model.pretrained=false", f"model.input_size={options.side}"]
        settings += [f"data.size={options.side}", f"train.batch_size={options.batch}", *options.override]
        settings += ["train.precision=fp32", "train.compile=false"] if plain else []
        recipe = jk.load_recipe(RECIPES / "final.yaml", settings)
        self.device = jk.pick_device(options.device)
        rng, count = np.random.default_rng(0), options.batch * options.steps
        pixels = rng.integers(0, 256, (count, options.side, options.side, 4), dtype=np.uint8)
        pixels[..., 3] = 255 * (np.abs(np.linspace(-1, 1, options.side)) < 0.7)  # the animal fills the middle
        labels = np.arange(count) % CATS
        torch.manual_seed(0)
        self.trainer = trainer_on(recipe, self.device, pixels, labels)
        self.task, embedder, loss = self.trainer.task, self.trainer.embedder, self.trainer.loss
        if plain:  # as torch comes, without TF32
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = False
            embedder.to(memory_format=torch.contiguous_format)
        self.batch = np.arange(options.batch)
        self.labels = torch.from_numpy(labels[: options.batch]).to(self.device)
        self.ready = self.task.pixels(self.batch, training=True).contiguous()  # prepared, on the device
        self.optimizer = torch.optim.AdamW([*embedder.parameters(), *loss.parameters()]) if plain else None

    def epoch(self) -> float:
        """Seconds of one epoch by the kit, as a recipe runs it."""
        return self.seconds(lambda: self.trainer.train_epoch(1, 0, lambda: False))

    def forward_and_backward(self) -> None:
        """In the trainer's precision, on images that are prepared; gradients add up."""
        import jaguar_kit as jk

        trainer = self.trainer
        embeddings = jk.in_precision(trainer.embedder, trainer.precision)(self.ready)
        trainer.scaler.scale(trainer.loss(embeddings, self.labels)).backward()

    def plain_step(self) -> None:
        self.optimizer.zero_grad()
        self.trainer.loss(self.trainer.embedder(self.ready), self.labels).backward()
        self.optimizer.step()

    def seconds(self, function: Callable[[], Any]) -> float:
        wait = waiting(self.device)
        wait()
        started = time.perf_counter()
        function()
        wait()
        return time.perf_counter() - started

    def parts(self, repeat: int) -> dict[str, float]:
        """Seconds that each part of a step takes alone, best of `repeat`."""
        source, read = self.task.pixels, self.task.pixels.read(self.batch)
        self.trainer.embedder.train()
        timed = {
            "reading": lambda: source.read(self.batch),
            "background and augmentation": lambda: source.prepare(read, training=True),
            "forward and backward": self.forward_and_backward,
        }

        def optimizer() -> float:
            self.forward_and_backward()  # a step uses its gradients up
            return self.seconds(self.trainer.optimizer_step)

        told = {name: min(self.seconds(function) for _ in range(repeat)) for name, function in timed.items()}
        return {**told, "optimizer": min(optimizer() for _ in range(repeat))}

    def flops(self) -> int:
        """Of forward and backward of one batch."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.forward_and_backward()
        return counter.get_total_flops()


def matmul_rate(device: Any, dtype: Any, repeat: int) -> float:
    """FLOP a second of a large square matrix product."""
    import torch

    side = 8192 if device.type == "cuda" else 1024
    one = torch.randn(side, side, device=device, dtype=dtype)
    wait = waiting(device)

    def product() -> None:
        for _ in range(10):
            one @ one
        wait()

    product()
    return 20 * side**3 / min(seconds_of(product, []) for _ in range(repeat))


def run(options: argparse.Namespace) -> None:
    import torch

    steps = Steps(options, plain=False)
    device, precision = steps.device, steps.trainer.precision
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine(os.cpu_count() or 1)["CPU"]
    print(f"{name}, torch {torch.__version__}; {options.backbone}, {options.side} px, batch {options.batch}")
    gigabytes(device)
    steps.epoch()  # the first one finds its kernels
    rate = options.batch * options.steps / min(steps.epoch() for _ in range(options.repeat))
    memory, parts = [gigabytes(device)], steps.parts(options.repeat)
    del steps
    dtypes = precision or torch.float32, torch.float32
    reached = [matmul_rate(device, dtypes[0], options.repeat)]
    plain = Steps(options, plain=True)
    flops = plain.flops()
    plain.plain_step()
    gigabytes(device)
    each = [plain.seconds(lambda: [plain.plain_step() for _ in range(options.steps)]) for _ in range(options.repeat)]
    memory.append(gigabytes(device))
    reached.append(matmul_rate(device, dtypes[1], options.repeat))
    beside = options.batch * options.steps / min(each)
    for told, speed, dtype, most, used in zip(("kit", "plain"), (rate, beside), dtypes, reached, memory):
        done = flops / options.batch * speed
        print(
            f"{told:<6}{str(dtype).removeprefix('torch.'):<9}{speed:9.1f} images/s  {done / 1e12:7.2f} TFLOP/s, "
            f"{100 * done / most:.0f} % of the {most / 1e12:.1f} of a matrix product"
            + ("" if math.isnan(used) else f"  {used:.1f} GB")
        )
    print(f"kit / plain: {rate / beside:.2f}, best of {options.repeat} epochs of {options.steps} steps")
    step = options.batch / rate
    print(f"a step of {step * 1e3:.1f} ms, its parts alone:", end=" ")
    print(", ".join(f"{part} {seconds * 1e3:.1f} ms" for part, seconds in parts.items()))


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--backbone", default="dinov3_l", help="as in a recipe (dinov3_l)")
    add("--batch", type=count, default=32, metavar="B", help="images in a batch (32)")
    add("--side", type=count, default=256, metavar="PX", help="side of an image (256)")
    add("--steps", type=count, default=30, metavar="S", help="steps of an epoch (30)")
    add_repeat(command, "epochs")
    add("--device", default="cuda", help="cuda or cpu")
    add("-o", "--override", action="append", default=[], metavar="SETTING=VALUE", help="a setting of the recipe")
