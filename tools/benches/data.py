"""Warm reads and cold decoding of images: python tools/bench.py data.

Warm reads of stored images stand beside one float32 tensor file for each, cold decoding of large RGBA PNGs on all cores
beside one core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .measuring import add_repeat, machine, seconds_of


def run(options: argparse.Namespace) -> None:
    import jaguar_kit as jk
    import torch
    from PIL import Image

    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = jk.make_mini_dataset(folder / "mini", images=240)
        paths = jk.load_competition(root).paths
        store = jk.open_store(root, paths, 256, cache=folder / "cache")
        for i in range(len(store)):
            torch.save(store.read([i])[0, :3].float() / 255, folder / f"{i}.pt")
        batches = np.array_split(np.random.default_rng(0).permutation(len(store)), len(store) // 32)
        kit = min(seconds_of(lambda: [store.read(b) for b in batches], []) for _ in range(options.repeat))

        def load(batch: np.ndarray) -> Any:
            return torch.stack([torch.load(folder / f"{i}.pt", weights_only=True) for i in batch])

        files = min(seconds_of(lambda: [load(b) for b in batches], []) for _ in range(options.repeat))
        on_disk = sum(p.stat().st_size for p in folder.glob("*.pt")), store.pixels.nbytes
        print(f"warm reads of {len(store)} images of 256 px with masks, best of {options.repeat}: kit", end=" ")
        print(
            f"{len(store) / kit:,.0f} images a second, float32 files {len(store) / files:,.0f} (without masks),",
            end=" ",
        )
        print(f"ratio {files / kit:.1f}; disk {on_disk[1] / 1e6:.0f} MB, files {on_disk[0] / 1e6:.0f} MB")
        noise = np.random.default_rng(0).normal(size=(2000, 3000)).cumsum(1)
        image = Image.fromarray((np.stack([noise, noise * 2, noise * 3, noise * 0 + 255], -1) % 256).astype(np.uint8))
        large = [f"large{i}.png" for i in range(16)]
        for path in large:
            image.save(folder / path, compress_level=1)
        one = min(seconds_of(jk.decode, [folder / large[0], None, 256, "squash", 4]) for _ in range(options.repeat))
        cold = min(
            seconds_of(jk.open_store, [folder, large, 256, "squash", None, "stop", folder / f"cold{i}"])
            for i in range(options.repeat)
        )
        cores = os.cpu_count() or 1
        print(
            f"cold decoding of 3000 x 2000 RGBA PNGs, best of {options.repeat}: one core {1 / one:.2f} a second,",
            end=" ",
        )
        print(
            f"kit on {cores} cores {len(large) / cold:.2f}, {one * len(large) / cold / cores:.2f} of cores x one core"
        )


def add_options(command: argparse.ArgumentParser) -> None:
    add_repeat(command)
