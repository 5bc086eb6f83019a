"""lbe08 by its source's text and by its code, on synthetic features: python tools/bench.py optimizers."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .measuring import count, machine
from .trainers import head_trainer

COUNTS = (183, 179, 170, 120, 113, 105, 104, 86, 86, 79, 63, 63, 62, 60, 50, 45, 36, 34, 31, 27, 23, 22, 21, 20, 19)
COUNTS += (19, 17, 16, 16, 13, 13)  # images of each jaguar of the competition
# How far images of one identity lie from its centre, and how many directions of what strength tell nothing of it, as
# those that pose and light make.
DESIGNS = {"alike in all directions": (3.0, 0, 0.0), "with four strong directions of pose and light": (2.75, 4, 10.0)}
OPTIMIZERS = ("adam", "adamw", "sgd", "nesterov", "rmsprop")


def optimizer_run(recipe: Any, folder: Path, seed: int, spread: float, nuisance: int, strength: float) -> pd.DataFrame:
    """The log of a variant of lbe08 on synthetic features of 1,024, as many of each identity as of jaguars."""
    import torch
    from sklearn.model_selection import train_test_split

    torch.manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    features = torch.randn(len(COUNTS), 1024)[labels] + spread * torch.randn(len(labels), 1024)
    features += strength * torch.randn(len(labels), nuisance) @ torch.randn(nuisance, 1024) / max(nuisance, 1) ** 0.5
    rows = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    trainer = head_trainer(recipe, recipe.model.head.build(in_features=1024), features, labels, rows)
    trainer.fit(folder)
    return pd.DataFrame(trainer.history)


def optimizer_runs(named: Sequence[str], init: str) -> list[tuple[Any, str]]:
    """The named variants of lbe08 by code, and by text where rate or momentum differ; the head begun as `init` says."""
    import jaguar_kit as jk

    path = Path(jk.__file__).parent / "recipes" / "lbe08.yaml"
    read = {}
    for reading in ("code", "text"):
        recipe = jk.load_recipe(path, [f"reading={reading}", f"model.head.init={init}", "seeds=[]"])
        read[reading] = [spec for spec in jk.expand(recipe) if spec.variant in named]
    told = {r: [(spec.recipe.train.optimizer, spec.recipe.train.lr) for spec in specs] for r, specs in read.items()}
    differ = [spec for spec, one, two in zip(read["text"], told["code"], told["text"]) if one != two]
    return [*((spec, "code") for spec in read["code"]), *((spec, "text") for spec in differ)]


def optimizer_seed(recipe: Any, seed: int, how: tuple[float, int, float]) -> tuple[float, ...]:
    """Best mAP, its epoch, epochs, mAP at epoch 20 or where the run ended before, best up to there."""
    import jaguar_kit as jk

    with tempfile.TemporaryDirectory() as folder:
        log = optimizer_run(jk.with_seed(recipe, seed), Path(folder), seed, *how)
    trained = log[log.epoch > 0]
    best, early = trained["map"].idxmax(), trained["map"][trained.epoch <= 20]
    return trained["map"][best], trained.epoch[best], len(trained), early.iloc[-1], early.max()


def optimizer_row(told: np.ndarray) -> str:
    """Means over seeds (S, 5), the spread of what decides, and the share of seeds that diverge by the study's rule."""
    best, epoch, epochs, at, by = told.mean(0)
    (low, first, *_), (high, last, *_) = told.min(0), told.max(0)
    score = f"{best:.3f} ({low:.3f}..{high:.3f})"
    return f"{score:<22}{epoch:4.0f} ({first:.0f}..{last:.0f}) of {epochs:3.0f}".ljust(44) + (
        f"{at:8.3f}{by:9.3f}{(told[:, 4] < 0.75).mean():10.0%}"
    )


def run(options: argparse.Namespace) -> None:
    """lbe08 by text and by code, its head begun as the source's code does and as torch does; means over the seeds."""
    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    for design, how in DESIGNS.items():
        print(f"{sum(COUNTS)} synthetic features of 1,024, {len(COUNTS)} identities, {design}; {options.seeds} seeds")
        print("means (least..most of the seeds); at 20: at epoch 20, or the last before; by 20: the best up to there")
        print(f"{'optimizer':<11}{'reading':<9}{'init':<9}{'best mAP':<22}{'at epoch, of':<22}{'at 20':>8}", end="")
        print(f"{'by 20':>9}{'diverged':>10}", flush=True)
        for init in ("kaiming", "default"):
            for spec, reading in optimizer_runs(options.optimizers, init):
                told = [optimizer_seed(spec.recipe, seed, how) for seed in range(42, 42 + options.seeds)]
                print(f"{spec.variant:<11}{reading:<9}{init:<9}{optimizer_row(np.array(told))}", flush=True)


def add_options(command: argparse.ArgumentParser) -> None:
    add, few = command.add_argument, ["adamw", "sgd", "rmsprop"]
    add("--seeds", type=count, default=5, metavar="S", help="runs of each (5)")
    add("--optimizers", choices=OPTIMIZERS, nargs="+", default=few, metavar="O", help="only these (adamw sgd rmsprop)")
