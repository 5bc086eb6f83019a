"""Logs that go to TensorBoard or Weights & Biases, too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from jaguar_kit import Recipe, echo, on_kaggle, recipe_to_dict, without_passwords


@contextmanager
def tracking(recipe: Recipe, folder: Path) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yields a function that hands a row of the log to the tracker that the recipe asks for, if it is installed.

    A run is called by experiment, variant and seed (and fold), as its folder is.
    """
    parts = folder.resolve().parts
    wanted, name = recipe.train.track, "/".join(parts[-4:] if re.fullmatch(r"fold\d+", parts[-1]) else parts[-3:])
    try:
        if wanted == "wandb":
            import wandb

            mode = "offline" if on_kaggle() else None
            told = {
                **without_passwords(recipe_to_dict(recipe)),
                "variant": folder.resolve().parent.name,
                "seed": recipe.seed,
            }
            where = {"project": "jaguar_kit", "group": name.partition("/")[0], "name": name, "dir": folder}
            run = wandb.init(**where, mode=mode, config=told)
            log, close = (lambda row: run.log(dict(row), step=int(row["epoch"]))), run.finish
        else:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(folder / "tensorboard")
            log, close = partial(write_scalars, writer), writer.close
    except ImportError:
        echo(f"  note: train.track: {wanted} is not installed; log.csv has all that it would show")
        log, close = (lambda row: None), (lambda: None)
    try:
        yield log
    finally:
        close()


def write_scalars(writer: Any, row: Mapping[str, float]) -> None:
    for key, value in row.items():
        writer.add_scalar(key, value, int(row["epoch"]))
