"""Head epochs on cached features, and a whole grid: python tools/bench.py train.

An epoch of head training, validation included, stands beside the usual loop of a DataLoader that loads a tensor file
for each image and one for its features. The grid has 6 schedules x 5 seeds, up to 100 epochs each, with its report, and
runs by the real command.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .measuring import add_repeat, fresh, machine
from .trainers import CATS, FEATURES, head_run

HEADS = {"baseline": (1536, 384), "lbe09": (1024, 256)}  # length of a feature, and px of the image it comes from


def kit_epochs(folder: Path, epochs: int, width: int) -> float:
    """Seconds an epoch."""

    trainer = head_run(epochs, width)
    started = time.perf_counter()
    trainer.fit(folder)
    return (time.perf_counter() - started) / epochs


def file_epochs(folder: Path, epochs: int, width: int, side: int) -> float:
    """Seconds an epoch of a loop that reads two files for each image and step; same head, loss and metric."""
    import jaguar_kit as jk
    import torch

    trainer = head_run(epochs, width)
    task = trainer.task
    for i, feature in enumerate(task.source.features):
        torch.save(torch.zeros(3, side, side), folder / f"image{i}.pt")
        torch.save(feature.clone(), folder / f"feature{i}.pt")

    class Files(torch.utils.data.Dataset):
        def __init__(self, positions: np.ndarray):
            self.positions = positions

        def __len__(self) -> int:
            return len(self.positions)

        def __getitem__(self, item: int) -> tuple:
            i = self.positions[item]
            image, feature = (torch.load(folder / f"{kind}{i}.pt", weights_only=True) for kind in ("image", "feature"))
            return image, feature, task.labels[i]

    head, loss = trainer.embedder.head, trainer.loss
    training = torch.utils.data.DataLoader(Files(task.train), batch_size=64, shuffle=True)
    validation = torch.utils.data.DataLoader(Files(task.validation), batch_size=64)
    optimizer = torch.optim.AdamW([*head.parameters(), *loss.parameters()], lr=5e-4, weight_decay=1e-4)
    started = time.perf_counter()
    for _ in range(epochs):
        head.train()
        for _, features, labels in training:
            optimizer.zero_grad()
            loss(head(features), labels).backward()
            optimizer.step()
        head.eval()
        with torch.no_grad():
            embeddings = torch.cat([head(features) for _, features, _ in validation])
        jk.identity_balanced_map(jk.similarity_matrix(embeddings), task.labels[task.validation])
    return (time.perf_counter() - started) / epochs


SCHEDULES = {
    "none": {"schedule": "none"},
    "step": {"schedule": "step"},
    "cosine": {"schedule": {"name": "cosine", "t_max": 100}},
    "onecycle": {"schedule": "onecycle"},
    "exponential": {"schedule": "exponential"},
    "plateau": {"schedule": "plateau"},
}


def write_grid(folder: Path, **train: Any) -> None:
    """Writes once.yaml, a run of one epoch that caches the features, and grid.yaml; train: settings of the grid."""
    import jaguar_kit as jk

    jk.save_backbone(folder / "convnext_base.safetensors", jk.create_backbone("convnext_base"), "convnext_base")
    model = {"backbone": "convnext_base", "weights": str(folder / "convnext_base.safetensors"), "input_size": 64}
    data = {"mini": {"identities": CATS, "images": 850}, "size": 64}
    variants = {name: {"train": {**settings, **train}} for name, settings in SCHEDULES.items()}
    grid = {"name": "grid", "data": data, "model": model, "variants": variants, "seeds": [42, 123, 456, 789, 2024]}
    once = {**grid, "name": "once", "variants": {}, "seeds": [], "train": {"epochs": 1}}
    for recipe in (once, grid):
        (folder / f"{recipe['name']}.yaml").write_text(json.dumps(recipe))


def command(folder: Path, name: str, out: str = "runs", *options: str) -> list[str]:
    """The real command that runs a recipe of `write_grid`."""
    import jaguar_kit as jk

    line = [sys.executable, jk.__file__, "run", str(folder / f"{name}.yaml"), "--out", str(folder / out)]
    return [*line, "--device", "cpu", *options]


def timed(*commands: list[str]) -> tuple[float, str]:
    """Seconds of commands that are started at once, and what the last of them says."""
    started = time.perf_counter()
    begun = [subprocess.Popen(one, stdout=subprocess.PIPE, text=True) for one in commands]
    said = [one.communicate()[0] for one in begun]
    if any(one.returncode for one in begun):
        raise RuntimeError(f"{commands[-1]}: ended with {[one.returncode for one in begun]}")
    return time.perf_counter() - started, said[-1]


def grid_seconds(folder: Path) -> tuple[float, int, int]:
    """Seconds of the grid by the real command once its features are cached, its runs, and its training images."""
    write_grid(folder)
    timed(command(folder, "once"))
    seconds, told = timed(command(folder, "grid"))
    images = next(int(line.split()[1]) for line in told.splitlines() if "training images" in line)
    return seconds, len(pd.read_csv(folder / "runs/grid/results.csv")), images


def run(options: argparse.Namespace) -> None:
    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["JAGUAR_KIT_CACHE"] = str(folder / "cache")
        for name, (width, side) in HEADS.items():
            kit = min(kit_epochs(fresh(folder, f"kit{i}"), 20, width) for i in range(options.repeat))
            files = min(file_epochs(fresh(folder, f"files{i}"), 2, width, side) for i in range(options.repeat))
            print(f"head epoch, {FEATURES} features of {width}, images of {side} px ({name}), best of", end=" ")
            print(
                f"{options.repeat}: kit {kit * 1e3:.1f} ms, files {files * 1e3:.0f} ms, {files / kit:.1f} x", flush=True
            )
        if not options.no_grid:
            seconds, runs, images = grid_seconds(folder)
            print(f"grid of {runs} runs on {images} training images' features of 1024, once: {seconds:.1f} s")


def add_options(command: argparse.ArgumentParser) -> None:
    add_repeat(command, "runs")
    command.add_argument("--no-grid", action="store_true", help="leave the grid out")
