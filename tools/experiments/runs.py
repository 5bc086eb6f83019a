"""Many runs: what they share, and what happens between one and the next."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import jaguar_kit
from jaguar_kit import (
    PARENT_VARIABLE,
    Experiment,
    Images,
    Recipe,
    RunSpec,
    TrainingFailed,
    core_count,
    data_key,
    echo,
    fingerprint,
    interrupt,
    load_competitions,
    on_kaggle,
    on_sigterm,
    open_data,
    rank,
    recipe_from_dict,
    recipe_to_dict,
    sys,
    tell,
)


def images_for(recipe: Recipe, data: str | Path | None, folder: Path) -> Images:
    """The images of a recipe; runs that differ in nothing that matters to them share them."""
    plain = {key: recipe_to_dict(recipe)[key] for key in ("name", "data", "background")}
    return opened_once(json.dumps(plain), data, folder)


@lru_cache(maxsize=8)
def opened_once(recipe: str, data: str | Path | None, folder: Path) -> Images:
    """The images of a recipe, of which JSON gives what matters to them."""
    read = recipe_from_dict(json.loads(recipe))
    return open_data(read, load_competitions([RunSpec("", "", read)], data)[data_key(read)], folder)


def features_key(recipe: Recipe) -> str:
    """The same only for runs that read the same features of a frozen backbone."""
    told, drawn = recipe_to_dict(recipe), recipe.train.views or not recipe.model.pretrained
    parts = [told["model"], told["background"], told["train"]["precision"], told["train"]["stages"]]
    views = [told["augment"], recipe.train.views] if recipe.train.views else []
    return fingerprint(data_key(recipe), parts, views, recipe.seed if drawn else 0)


REPORTS = 60  # seconds between reports while runs go on
FIRST_REPORT = 15  # seconds that runs must have taken before the first
KAGGLE_OUTPUT = 19.5e9  # bytes, of the 20 GB that are saved


class Between:
    """What is done between two runs: a report of what there is so far, and a look at the room that is left."""

    def __init__(self, experiment: Experiment):
        self.experiment, self.told = experiment, time.monotonic() + FIRST_REPORT - REPORTS

    def __call__(self) -> str:
        """Why no further run may begin; "" where it may."""
        if rank() > 0:
            return ""
        self.report()
        return out_of_room(self.experiment)

    def report(self) -> None:
        """When the first run has ended, and again every minute; no error ends runs."""
        if self.experiment.force or time.monotonic() - self.told < REPORTS or not self.experiment.unfinished:
            return  # force: what lies there is old
        try:
            tell(self.experiment, {}, going_on=True)
        except Exception as error:  # noqa: BLE001 - whatever a report stumbles over, training goes on
            echo(f"  note: the report is not there yet: {type(error).__name__}: {error}")
        self.told = time.monotonic()


def folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def out_of_room(experiment: Experiment) -> str:
    """Why no further run fits what Kaggle saves of a session; "" where it does."""
    if not on_kaggle():
        return ""
    weights = [experiment.folder / spec.folder / "weights.safetensors" for spec in experiment.specs]
    largest = max((path.stat().st_size for path in weights if path.is_file()), default=0)
    needed = 9 * largest  # a checkpoint holds the weights four times, and is replaced by another before it goes
    full = folder_bytes(jaguar_kit.KAGGLE_WORKING) + needed > KAGGLE_OUTPUT
    return f"{jaguar_kit.KAGGLE_WORKING} has no room for another run (Kaggle saves 20 GB)" if full else ""


# several processes that share each batch of one run


def run_in_processes(
    recipe: Recipe, data: str | Path | None, out: str | Path | None, device: str, force: bool, count: int
) -> None:
    """Runs the recipe in `count` processes that share each batch, and waits for them; one that dies ends them all."""
    import socket
    import subprocess
    import tempfile

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{recipe.name}.yaml"
        path.write_text(json.dumps(recipe_to_dict(recipe), ensure_ascii=False), encoding="utf-8")
        command = [
            sys.executable,
            jaguar_kit.__file__,
            "run",
            str(path),
            "--device",
            device,
            *(["--force"] if force else []),
        ]
        command += ["--data", str(data)] if data is not None else []
        command += ["--out", str(out)] if out is not None else []
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
        shared[PARENT_VARIABLE] = str(os.getpid())
        shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, core_count() // count)))
        started = [
            subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(count)
        ]
        try:
            with on_sigterm(interrupt):
                await_processes(started, recipe.name)
        finally:
            end_processes(started)


def await_processes(started: Sequence[Any], name: str) -> None:
    """Waits until all have ended well; TrainingFailed as soon as one has not."""
    while (codes := [process.poll() for process in started]).count(0) < len(started):
        if any(codes):
            raise TrainingFailed(
                f"{name}: one of {len(started)} processes ended with exit code {next(filter(None, codes))}; the same "
                "command goes on from the last checkpoint"
            )
        time.sleep(0.2)


def end_processes(started: Sequence[Any], patience: float = 10.0) -> None:
    """Ends processes that still run, and kills those that do not heed it."""
    for process in started:
        if process.poll() is None:
            process.terminate()
    limit = time.monotonic() + patience
    while any(process.poll() is None for process in started) and time.monotonic() < limit:
        time.sleep(0.1)
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
