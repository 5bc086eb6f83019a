"""Pairs of settings, drawn from a fixed seed, and what must hold whatever their values are.

SETTINGS has values by section, each a piece of a recipe that is valid alone. `planned` draws pairs of two sections and
two invariants for each, so that every value and every invariant comes as often as any other.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import socket
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import tiny
import torch
import yaml
from jaguar_kit import KitError, Recipe, RunSpec, expand, merge_recipe, recipe_from_dict, recipe_to_dict
from joblib.externals import loky
from safetensors.torch import load_file

report_room, engines_room = jaguar_kit.room("experiments.report"), jaguar_kit.room("experiments.engines")

# settings, by section

WORLD = "WORLD"  # stands for the folder in which everything lies that settings name
BASE = merge_recipe(
    {**tiny.TINY, "loss": tiny.ARCFACE},
    {
        "name": "pair",
        "model": {"backbone": "test_vit", "freeze": False},
        "train": {"epochs": 2, "lr": 2e-3, "patience": 0},
    },
)
EARLIER = [f"{WORLD}/earlier/pair@cats/default/seed{seed}" for seed in (1, 2)]  # runs of BASE
HYPERBOLIC = {"name": "hyperbolic_arcface", "scale": 16}


def of_model(**settings: Any) -> dict:
    return {"model": settings}


def of_training(**settings: Any) -> dict:
    return {"train": settings}


def of_data(**settings: Any) -> dict:
    return {"data": settings}


def steps(*named: Any) -> dict:
    return {"postprocess": list(named)}


SETTINGS: dict[str, dict[str, dict]] = {
    "masks": {
        "in a folder": {**of_data(masks="masks"), "background": "mean_colour"},
        "in a folder, unused": of_data(masks="masks"),
    },
    "turn": {
        "left flanks upright": of_data(turn={"left": 90}),
        "both flanks a little": of_data(turn={"left": 12.5, "right": -30}),
    },
    "crop": {
        "of the model": of_model(crop=0.7),
        "of the store": of_data(fit="crop"),
        "none, but padded": of_data(fit="pad"),
    },
    "background": {
        name: {"background": name} for name in ("black", "blur", "random", "swap", "inpaint", "background_only")
    },
    "augmentation": {
        "flip": {"augment": ["flip"]},
        "affine and erasing": {"augment": ["affine_erasing"]},
        "mixup": of_training(mix="mixup"),
        "cutmix": of_training(mix={"name": "cutmix", "p": 0.5}),
    },
    "TTA": {
        "mirrored": steps("tta"),
        "zoomed, expanded": steps({"name": "tta", "scales": [1.0, 0.8], "flip": False}, "query_expansion"),
        "re-ranked": steps({"name": "k_reciprocal", "k1": 5, "k2": 2}, "blend"),
        "re-ranked with training images": steps({"name": "k_reciprocal", "k1": 5, "k2": 2, "training": True}),
        "posterior": steps("posterior", {"name": "fuse", "kind": "logistic"}),
        "spots": steps({"name": "local", "detector": "sift", "size": 64, "points": 32, "shortlist": 3}, "fuse"),
        "chosen": steps("auto"),
    },
    "encounters": {
        "scenes": of_data(encounter="scene"),
        "kept whole": of_data(split={"name": "encounter_safe", "validation": 0.4}),
        "bursts kept whole": of_data(split={"name": "burst_safe", "column": "burst", "validation": 0.4}),
        "chosen across": of_training(select="map_across"),
    },
    "extra": {
        "a folder": of_data(extra=[f"{WORLD}/zoo"]),
        "two folders": of_data(extra=[f"{WORLD}/zoo", f"{WORLD}/park"]),
        "half of the images": of_data(subset=f"{WORLD}/some.csv", subset_applies_to="training"),
    },
    "runs": {
        "two seeds": {"seeds": [3, 4]},
        "two variants": {"variants": {"slow": of_training(lr=1e-3), "fast": of_training(lr=4e-3)}},
        "a grid": {"grid": {"train.weight_decay": [0.0, 0.1]}},
    },
    "folds": {
        "two": of_data(split={"name": "kfold", "folds": 2}),
        "three": of_data(split={"name": "kfold", "folds": 3}),
        "none": of_data(split="all"),
        "by seed": {**of_data(split_by_seed=True), "seeds": [3, 4]},
        "of an open set": of_data(split={"name": "open_set", "validation": 0.3, "unknown": 0.3}),
    },
    "ensemble": {kind: {"seeds": [3, 4], "ensemble": kind} for kind in ("mean", "rank", "calibrated", "posterior")},
    "geometry": {
        "euclidean": of_model(geometry="euclidean"),
        "hyperspherical": of_model(geometry="hyperspherical"),
        "poincare": {**of_model(geometry="poincare"), "loss": HYPERBOLIC},
        "lorentz": {**of_model(geometry="lorentz"), "loss": HYPERBOLIC},
    },
    "loss": {
        name: {"loss": name}
        for name in ("cross_entropy", "triplet", "supcon", "proxy_anchor", "subcenter_arcface", "adaface")
    },
    "head": {
        "mlp": of_model(head={"name": "mlp", "hidden": 16, "output": 8}),
        "neck": of_model(head="bn_neck"),
        "gem": of_model(pooling="gem"),
    },
    "backbone": {
        "frozen": of_model(freeze=True),
        "frozen, with views": {**of_model(freeze=True), "augment": ["flip"], **of_training(views=2)},
        "learns its last block": of_model(train_blocks=1),
        "learns with batch norm": of_model(backbone="test_resnet"),
        "frozen batch norm": of_model(backbone="test_resnet", freeze=True),
    },
    "sampler": {
        "balanced": of_training(sampler="class_balanced"),
        "pk": of_training(sampler={"name": "pk", "identities": 3, "images": 3}),
    },
    "micro-batch": {
        "of four": of_training(micro_batch=4),
        "of five, in two batches a step": of_training(micro_batch=5, batch_size=8, accumulate=2),
        "of validation": of_training(loss_batch=4),
    },
    "EMA": {"fast": of_training(ema=0.5), "slow": of_training(ema=0.95)},
    "processes": {
        "checkpointed gradients": of_model(gradient_checkpointing=True),
        "half precision": of_training(precision="bf16"),
    },
    "soup": {
        "of two": {"checkpoint": EARLIER[0], "soup": [EARLIER[1]]},
        "of two, only evaluated": {"checkpoint": EARLIER[0], "soup": [EARLIER[1]], **of_training(epochs=0)},
        "of one": {"checkpoint": EARLIER[1]},
    },
    "stages": {
        "growing": of_training(stages=[{"epochs": 1, "size": 24}, {"epochs": 1}]),
        "validated as they train": of_training(stages=[{"size": 24, "epochs": 2}, {"epochs": 1}], validate_at="stage"),
        "impatient": of_training(stages=[{"epochs": 3}, {"epochs": 1}], patience=1, patience_ends="run"),
    },
    "optimizer": {
        "one cycle": of_training(optimizer="sgd", schedule="onecycle"),
        "clipped": of_training(clip_norm=0.1, schedule="cosine_warmup", layer_decay=0.8),
        "other backgrounds": {"test_backgrounds": ["black", "swap"]},
    },
}
VALUES = [(section, name) for section, values in SETTINGS.items() for name in values]
Value = tuple[str, str]  # section and name


def settings_of(pair: Sequence[Value]) -> dict:
    """The recipe of a pair, as plain settings in which WORLD stands for a folder."""
    settings = BASE
    for section, name in pair:
        settings = merge_recipe(settings, SETTINGS[section][name])
    return settings


def placed(settings: Any, world: Path) -> Any:
    """Settings whose paths lie in this folder."""
    return json.loads(json.dumps(settings).replace(WORLD, str(world)))


# what the settings are tried on


@dataclass(frozen=True)
class World:
    """The mini-dataset of four cats, copies of it with one thing changed, and what settings name."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "cats"

    def make(self) -> World:
        cats = jaguar_kit.make_mini_dataset(self.data, identities=4, images=44, seed=3)
        views = pd.read_csv(cats / "views.csv")
        views.assign(orientation=views.flank).to_csv(cats / "views.csv", index=False)
        for path in views.path:
            mask = cats / "masks" / path
            mask.parent.mkdir(parents=True, exist_ok=True)
            jaguar_kit.open_image(cats / path).getchannel("A").save(mask)
        train = pd.read_csv(cats / "train.csv")
        train[["filename"]].to_csv(self.folder / "all.csv", index=False)
        train[["filename"]].iloc[::2].to_csv(self.folder / "some.csv", index=False)
        for seed, name in enumerate(("zoo", "park"), 11):
            self.make_album(seed, name)
        early = {**BASE, "seeds": [1, 2], **of_training(**{**BASE["train"], "epochs": 1})}
        run(early, cats, self.folder / "earlier")
        return self

    def make_album(self, seed: int, name: str) -> None:
        """A folder of images by identity, beside the data."""
        other = jaguar_kit.make_mini_dataset(self.folder / f"{name}-drawn", identities=2, images=12, seed=seed)
        for identity, own in pd.read_csv(other / "train.csv").groupby("ground_truth"):
            (self.folder / name / identity).mkdir(parents=True)
            for file in own.filename:
                shutil.copy(other / "train" / "train" / file, self.folder / name / identity / file)

    def copied(self, name: str) -> Path:
        return Path(shutil.copytree(self.data, self.folder / name))

    @cached_property
    def elsewhere(self) -> Path:
        return self.copied("Großkatzen, neu")

    @cached_property
    def with_unused_columns(self) -> Path:
        copy = self.copied("columns")
        for table in ("train.csv", "test.csv", "views.csv"):
            rows = pd.read_csv(copy / table, dtype=str)
            rows.insert(0, "remark", [f"seen, {i % 3}" if i % 4 else "" for i in range(len(rows))])
            rows.assign(weight=np.arange(len(rows))[::-1]).to_csv(copy / table, index=False)
        return copy

    @cached_property
    def with_other_names(self) -> Path:
        """Each identity is called otherwise, and their order stays."""
        copy = self.copied("names")
        for table, column in (
            ("train.csv", "ground_truth"),
            ("solution.csv", "ground_truth"),
            ("views.csv", "identity"),
        ):
            rows = pd.read_csv(copy / table, dtype=str)
            rows.assign(**{column: rows[column].map(renamed)}).to_csv(copy / table, index=False)
        return copy

    @cached_property
    def with_permuted_pairs(self) -> Path:
        copy = self.copied("permuted")
        rows = pd.read_csv(copy / "test.csv", dtype=str)
        rows.sample(frac=1, random_state=5).to_csv(copy / "test.csv", index=False)
        return copy


def renamed(identity: str) -> str:
    """What one of the data's identities is called in the copy `with_other_names`."""
    return identity.replace("cat", "dame Agáta ")


def renamed_back(value: Any) -> Any:
    """Results in which the identities have their own names again."""
    back = partial(re.sub, r"(?<!/)dame Agáta ", "cat")
    if isinstance(value, Mapping):
        return {back(key): renamed_back(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return np.array([back(text) for text in value.ravel()], str).reshape(value.shape)
    return back(value) if isinstance(value, str) else value


# runs, and what came out of them

TIMES = {"images_per_second", "data_seconds", "compute_seconds", "memory_mb", "seconds", "embedded_per_second"}
REPORT = {"report.html", "report.md"}


@dataclass(frozen=True)
class Outcome:
    """What a run left behind, by file and by what in it; or what was said in place of results."""

    told: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""
    folder: Path = Path("nowhere")

    def __sub__(self, other: Outcome) -> str:
        """What differs between two outcomes; "" where nothing does."""
        return difference(self, other)


@contextmanager
def without_figures() -> Iterator[None]:
    """Within the block reports have words and tables only, which take no time."""
    with pytest.MonkeyPatch.context() as patch:
        for part in ("report_curves", "report_detail", "run_details"):
            patch.setattr(report_room, part, lambda *_: None)
        yield


@contextmanager
def steps_watched(last: int | None = None, kept: Sequence[str] = ()) -> Iterator[list[int]]:
    """Counts the optimizer's steps within the block; that of the number `last` is an interruption.

    kept: the moments at which a checkpoint is taken, of the methods of the Checkpointer; as usual where it is empty.
    """
    step, made = jaguar_kit.Trainer.optimizer_step, []

    def watched(trainer: jaguar_kit.Trainer) -> torch.Tensor:
        made.append(1)
        if len(made) == last:
            raise KeyboardInterrupt
        return step(trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaguar_kit.Trainer, "optimizer_step", watched)
        for moment in kept:
            patch.setattr(jaguar_kit.Checkpointer, moment, jaguar_kit.Checkpointer.keep)
        yield made


def run(recipe: Mapping | Path, data: Path, out: Path, **how: Any) -> Outcome:
    """Runs settings, or a recipe's file, without kept features; a refusal must be a KitError of one line."""
    jaguar_kit.remove_path(jaguar_kit.cache_dir() / "features")
    try:
        with without_figures(), jaguar_kit.quiet():
            result = jaguar_kit.run_recipe(recipe, data=data, out=out, device="cpu", **how)
    except KitError as error:
        return Outcome(refusal=one_line_of(str(error), data, out, recipe))
    return Outcome(results_in(result.folder), folder=result.folder)


def one_line_of(message: str, data: Path, out: Path, recipe: Mapping | Path) -> str:
    """What was said, without the places that differ from run to run."""
    message = message.replace(str(recipe), "recipe") if isinstance(recipe, Path) else message
    assert message.strip(), "an error without a word"
    assert "\n" not in message, f"an error of several lines: {message!r}"
    assert len(message) <= 2000, f"an error that is too long: {message!r}"
    message = message.replace(f"{out}/pair@{data.name}", "OUT")
    return message.replace(str(out), "OUT").replace(str(data), "DATA")


def results_in(folder: Path) -> dict[str, Any]:
    """Everything that a result folder tells, by file and place in it, but for times."""
    told: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and "figures" not in p.parts):
        name = str(path.relative_to(folder))
        told[name] = "there"
        told.update({f"{name}: {key}": value for key, value in contents_of(path).items()})
    return told


def contents_of(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        found = jaguar_kit.read_json(path)
        return {} if path.name == "experiment.json" else dict(flat({k: v for k, v in found.items() if k not in TIMES}))
    if path.suffix == ".npz":
        return jaguar_kit.read_arrays(path)
    if path.suffix == ".safetensors":
        return {key: tensor.float().numpy() for key, tensor in load_file(path).items()}
    if path.suffix == ".csv":
        table = pd.read_csv(path, keep_default_na=False, na_values=["nan", "NaN", ""])
        table = table.sort_values("row_id", ignore_index=True) if "row_id" in table else table
        return {column: array_of(table[column]) for column in table if column not in TIMES}
    return {}


def array_of(column: pd.Series) -> np.ndarray:
    plain = column.fillna("") if column.dtype == object or pd.api.types.is_string_dtype(column) else column
    return plain.to_numpy(str if plain is not column or column.dtype == object else None)


def flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Plain values by the dotted place that they have in nested ones."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{place}.{key}" if place else key)
    else:
        yield place, value if isinstance(value, (int, float, str)) else json.dumps(value)


def difference(
    one: Outcome, other: Outcome, asked: str = "", rtol: float = 0.0, atol: float = 0.0, more: bool = False
) -> str:
    """The first thing that differs between two outcomes; "" where none does.

    asked: a pattern of what is compared; more: the second may tell what the first does not.
    """
    if one.refusal != other.refusal:
        return f"{one.refusal or 'results'!r}, and {other.refusal or 'results'!r}"
    told, there = ({k: v for k, v in o.told.items() if re.search(asked, k)} for o in (one, other))
    if lacking := [*(told.keys() - there.keys()), *([] if more else there.keys() - told.keys())]:
        return f"{min(lacking)}: {'only in the first' if min(lacking) in told else 'only in the second'}"
    for key, value in told.items():
        if not alike(value, there[key], rtol, atol):
            return f"{key}: {shown(value, there[key])}"
    return ""


def alike(one: Any, other: Any, rtol: float, atol: float) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape or (one.dtype.kind in "US") != (other.dtype.kind in "US"):
        return False
    if one.dtype.kind in "USO":
        return bool((one == other).all())
    return np.allclose(one.astype(float), other.astype(float), rtol=rtol, atol=atol, equal_nan=True)


def shown(one: Any, other: Any) -> str:
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return f"of shapes {one.shape} and {other.shape}"
    if not one.ndim or one.dtype.kind in "USO":
        return f"{str(one)[:300]} and {str(other)[:300]}"
    return f"up to {np.nanmax(np.abs(one.astype(float) - other.astype(float))):.3g} apart in {one.shape}"


@dataclass(eq=False)
class Trial:
    """A recipe that is tried in a folder of its own."""

    settings: Mapping
    world: World
    place: Path
    rng: random.Random
    made: Counter = field(default_factory=Counter)

    def run(
        self, changes: Mapping | None = None, data: Path | None = None, again: Path | None = None, **how
    ) -> Outcome:
        """Runs the recipe with changes; again: in the folder of an earlier run of it."""
        number = len(list(self.place.iterdir()))
        out = again or self.place / str(number)
        out.mkdir(exist_ok=True)
        return run(merge_recipe(self.settings, changes or {}), data or self.world.data, out, **how)

    @cached_property
    def plain(self) -> Outcome:
        """What comes of the recipe as it is."""
        with steps_watched() as made:
            found = self.run()
        self.made["steps"] = len(made)
        return found

    @cached_property
    def runs(self) -> list[RunSpec]:
        """All runs of the recipe; none where its settings do not go together."""
        try:
            return expand(recipe_from_dict(self.settings))
        except KitError:
            return []

    @property
    def written(self) -> dict:
        """The recipe as it is written to a file: with every setting, where it is one."""
        return recipe_to_dict(recipe_from_dict(self.settings)) if self.runs else dict(self.settings)


# what must hold

Runs = Sequence[Recipe]  # of all runs of a recipe
Check = Callable[[Trial], str]  # what differs, "" where nothing does
INVARIANTS: dict[str, tuple[Check, Callable[[Recipe, Runs], bool]]] = {}


def must_hold(where: Callable[[Recipe, Runs], bool] = lambda recipe, runs: True) -> Callable[[Check], Check]:
    """Makes a function one of the invariants, for the recipes for which `where` says so."""

    def keep(check: Check) -> Check:
        INVARIANTS[check.__name__] = (check, where)
        return check

    return keep


def single(recipe: Recipe, runs: Runs) -> bool:
    """Whether there is one run, of one model."""
    return len(runs) == 1 and recipe.data.split.name != "kfold"


def trains(recipe: Recipe, runs: Runs) -> bool:
    return all(one.train.epochs or one.train.stages for one in runs)


def shares_batches(recipe: Recipe, runs: Runs) -> bool:
    """Whether several processes do what one does: no batch norm in the backbone, and nothing that each draws itself."""
    drawn = recipe.background.build().drawn or recipe.augment or recipe.train.mixes
    return not drawn and not recipe.model.freeze and recipe.model.backbone == "test_vit"


def validates_in_one_size(recipe: Recipe, runs: Runs) -> bool:
    """Whether the weights are measured as a recipe without stages measures them."""
    return recipe.train.validate_at == "size" and recipe.data.split.name != "kfold"


@must_hold()
def two_runs_at_a_time_give_what_one_at_a_time_gives(trial: Trial) -> str:
    several = {} if len(trial.runs) > 1 else {"seeds": [5, 6]}
    with pytest.MonkeyPatch.context() as patch:
        kept = SimpleNamespace(shutdown=lambda **_: None)  # processes stay, and import the kit once for all
        patch.setattr(loky, "get_reusable_executor", lambda: kept)
        patch.setattr(engines_room, "core_count", lambda: 1)  # so that sums are added up by one thread in both
        at_a_time = trial.run(several, jobs=2)
    return (trial.run(several) if several else trial.plain) - at_a_time


# How far two processes may be from one, for they add up in another order. A bias before batch norm has no gradient but
# what rounding leaves, of which Adam makes whole steps: batch norm takes them out in training, later in validation.
TRAINED, VALIDATED, RANKED = 1e-3, 0.03, 0.05


@must_hold(shares_batches)
def two_processes_give_what_one_gives(trial: Trial) -> str:
    two = in_two_processes(trial)
    compare = partial(difference, trial.plain, two)
    return (
        compare(r"log\.csv: (epoch|stage|lr|train_loss)$", rtol=TRAINED)
        or compare(r"log\.csv: val_loss$", rtol=VALIDATED)
        or compare(r"log\.csv: map|metrics\.json: map$", atol=RANKED)
    )


@must_hold()
def columns_that_nobody_uses_change_nothing(trial: Trial) -> str:
    return trial.plain - trial.run(data=trial.world.with_unused_columns)


@must_hold()
def a_renamed_folder_changes_nothing(trial: Trial) -> str:
    return trial.plain - trial.run(data=trial.world.elsewhere)


def knows_nobody_yet(recipe: Recipe, runs: Runs) -> bool:
    """Whether no identity has a class from an earlier run, whose name it would have to keep."""
    return all(one.checkpoint is None for one in runs)


@must_hold(knows_nobody_yet)
def renamed_identities_change_nothing(trial: Trial) -> str:
    other = trial.run(data=trial.world.with_other_names)
    return trial.plain - Outcome(renamed_back(other.told), renamed_back(other.refusal))


@must_hold()
def permuted_rows_of_the_test_change_nothing_but_their_order(trial: Trial) -> str:
    permuted = trial.world.with_permuted_pairs
    found = trial.run(data=permuted)
    asked = list(pd.read_csv(permuted / "test.csv").row_id)
    submitted = {path: list(pd.read_csv(path).row_id) for path in found.folder.rglob("submission.csv")}
    moved = [f"{path.name}: rows in another order" for path, rows in submitted.items() if rows != asked]
    return trial.plain - found or "".join(moved[:1])


SCORES = [name for name, measure in jaguar_kit.MEASURES.items() if measure.better]
MEASURED = "|".join([*SCORES, "per_identity.*", "validated.*", "cmc.*", "fnmr.*", "minp"])
MEASURED = rf"metrics\.json: ({MEASURED})$|\.npz: (?!trained)|submission\.csv|weights\.safetensors: "


@must_hold(validates_in_one_size)
def saved_weights_evaluated_again_give_the_same_results(trial: Trial) -> str:
    if trial.plain.refusal:
        return ""  # there are no weights
    spec = trial.runs[0]
    place = trial.plain.folder / spec.folder
    evaluated = {"checkpoint": str(place), "soup": [], **of_training(epochs=0, stages=[])}
    alone = {"variants": {}, "grid": {}, "seeds": [], "ensemble": trial.settings.get("ensemble", "none")}
    settings = merge_recipe(recipe_to_dict(spec.recipe), {**alone, **evaluated})
    again = run(settings, trial.world.data, trial.place / "again")
    one = Outcome(results_in(place))
    found = Outcome(results_in(again.folder / "default" / place.name), again.refusal)
    return difference(one, found, MEASURED, rtol=1e-6, atol=1e-6)


@must_hold(trains)
def a_resumed_run_equals_one_without_a_break(trial: Trial) -> str:
    plain = trial.plain
    if plain.refusal:
        return plain - trial.run()
    out, last = trial.place / "stopped", trial.rng.randint(1, trial.made["steps"])
    kept = trial.rng.choice([("after_step", "after_epoch"), ("after_epoch",)])
    with steps_watched(last, kept), suppress(KeyboardInterrupt):
        trial.run(again=out)
        return f"was not interrupted in step {last} of {trial.made['steps']}"
    return plain - trial.run(again=out)


@must_hold()
def a_finished_run_called_again_changes_no_file(trial: Trial) -> str:
    if trial.plain.refusal:
        return trial.plain - trial.run()
    before = bytes_in(trial.plain.folder)
    again = trial.run(again=trial.plain.folder.parent)
    after = bytes_in(trial.plain.folder)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return trial.plain - again or (f"other bytes: {', '.join(changed)}" if changed else "")


def bytes_in(folder: Path) -> dict[str, bytes]:
    """The bytes of all files, but for the minute at which a report was made."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d", b"", b) if name in REPORT else b for name, b in found.items()}


@must_hold()
def a_recipe_that_was_written_and_read_gives_the_same_runs(trial: Trial) -> str:
    path = trial.place / "pair.yaml"
    path.write_text(yaml.safe_dump(trial.written, sort_keys=False), encoding="utf-8")
    return trial.plain - run(path, trial.world.data, trial.place / "written")


@must_hold(single)
def a_run_among_others_is_the_run_alone(trial: Trial) -> str:
    seed = 42  # of a recipe that tells none
    among = trial.run({"seeds": [seed + 1, seed]})
    alone = Outcome({k: v for k, v in trial.plain.told.items() if f"seed{seed}/" in k}, trial.plain.refusal)
    return difference(alone, Outcome({k: v for k, v in among.told.items() if f"seed{seed}/" in k}, among.refusal))


NOTHING: dict[str, tuple[dict, Callable[[Recipe], bool]]] = {  # settings that do nothing, and where they do
    "a turn by no degrees": (of_data(turn={"left": 0}), lambda r: not r.data.turn),
    "an endless gradient": (of_training(clip_norm=1e9), lambda r: r.train.clip_norm is None),
    "a micro-batch of all": (of_training(micro_batch=512), lambda r: r.train.micro_batch is None),
    "years of time": (of_training(max_hours=1e5), lambda r: True),
    "no checkpoints in an epoch": (of_training(checkpoint_minutes=0), lambda r: True),
    "masks that may lack": (of_data(unmasked="keep"), lambda r: True),
    "images that may be bad": (of_data(bad_images="skip"), lambda r: True),
    "a list of all images": (of_data(subset=f"{WORLD}/all.csv"), lambda r: r.data.subset is None),
    "endless patience": (of_training(patience=1000), lambda r: not r.train.patience),
    "encounters as they are": (of_data(encounter="burst"), lambda r: r.data.encounter is None),
    "a variant like the recipe": ({"variants": {"default": {}}}, lambda r: not r.variants and not r.grid),
    "words": ({"question": "Why?", "conclusion": "Because."}, lambda r: True),
    "a background as it is": ({"test_backgrounds": ["original"]}, lambda r: not r.test_backgrounds),
    "gradients found twice": (of_model(gradient_checkpointing=True), lambda r: not r.model.gradient_checkpointing),
    "an ensemble of one": (
        {"ensemble": "mean"},
        lambda r: r.ensemble.name == "none" and not (r.seeds or r.variants or r.grid or r.data.split.name == "kfold"),
    ),
}
WORDS_ABOUT = "results.csv|report|recipe.yaml"  # which tell of what was added


@must_hold()
def what_does_nothing_changes_nothing(trial: Trial) -> str:
    recipe = recipe_from_dict(trial.settings if trial.runs else BASE)
    name = trial.rng.choice([name for name, (_, where) in NOTHING.items() if where(recipe)])
    found = trial.run(placed(NOTHING[name][0], trial.world.folder))
    different = difference(trial.plain, found, rf"^(?!{WORDS_ABOUT})", more=True)
    return f"{name}: {different}" if different else ""


# several processes

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["jaguar_kit"])


def in_two_processes(trial: Trial) -> Outcome:
    """The recipe's runs by two processes that share each batch."""
    out, path = trial.place / "two", trial.place / "two.yaml"
    path.write_text(json.dumps(trial.written), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
    shared[jaguar_kit.CACHE_VARIABLE] = os.environ[jaguar_kit.CACHE_VARIABLE]
    line = ["run", str(path), "--data", str(trial.world.data), "--out", str(out), "--device", "cpu"]
    both = []
    for rank in map(str, range(2)):
        process = PROCESSES.Process(
            target=share, args=({**shared, "RANK": rank, "LOCAL_RANK": rank}, line, trial.place / f"said{rank}.txt")
        )
        process.start()
        both.append(process)
    try:
        for process in both:
            process.join(120)
    finally:
        for process in both:
            process.kill()
    said = (trial.place / "said0.txt").read_text(encoding="utf-8")
    if errors := re.findall(r"^error: (.*)$", said, re.MULTILINE):
        return Outcome(refusal=one_line_of(errors[-1], trial.world.data, out, path))
    assert [process.exitcode for process in both] == [0, 0], said[-2000:]
    folder = out / f"{trial.settings['name']}@{trial.world.data.name}"
    return Outcome(results_in(folder), folder=folder)


def share(settings: Mapping[str, str], line: Sequence[str], said: Path) -> None:
    """What each of the processes does; it ends with the exit code of the command."""
    os.environ.update(settings)
    torch.set_num_threads(1)
    output = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    with without_figures():
        raise SystemExit(jaguar_kit.main(argv=line))


# pairs


@dataclass(frozen=True)
class Planned:
    """A pair of settings, and the invariants that are tried on it."""

    number: int
    pair: tuple[Value, Value]
    invariants: tuple[str, ...]

    @property
    def words(self) -> str:
        return f"pair {self.number} ({'; '.join(': '.join(value) for value in self.pair)})"

    def broken(self, world: World, place: Path) -> tuple[list[str], str]:
        """What was found not to hold, and why the kit refused the pair, where it did."""
        place.mkdir()
        trial = Trial(placed(settings_of(self.pair), world.folder), world, place, random.Random(self.number))
        told = []
        for name in self.invariants:
            try:
                wrong = INVARIANTS[name][0](trial)
            except Exception:  # noqa: BLE001 - whatever it is, it is told with the pair that brought it about
                wrong = traceback.format_exc()[-2000:]
            told += [f"{self.words}: {name}: {wrong}"] if wrong else []
        refusal = trial.plain.refusal if "plain" in vars(trial) else ""
        shutil.rmtree(place)
        return told, refusal


def holds_for(pair: Sequence[Value]) -> list[str]:
    """The invariants that hold for a pair's recipe; all of them where it is refused."""
    try:
        recipe = recipe_from_dict(settings_of(pair))
    except KitError:
        return list(INVARIANTS)
    runs = [spec.recipe for spec in expand(recipe)]
    return [name for name, (_, where) in INVARIANTS.items() if where(recipe, runs)]


@cache
def drawn_pairs(count: int, seed: int) -> list[tuple[Value, Value]]:
    """Pairs of two sections, no two alike, of values that came least often before."""
    rng, used, pairs = random.Random(seed), Counter(), []

    def next_of(values: Iterable[Value]) -> Value:
        shuffled = sorted(values, key=lambda _: rng.random())
        return min(shuffled, key=lambda value: used[value])

    while len(pairs) < count:
        first = next_of(VALUES)
        second = next_of(v for v in VALUES if v[0] != first[0] and not {(first, v), (v, first)} & {*pairs})
        used.update((first, second))
        pairs.append((first, second) if VALUES.index(first) < VALUES.index(second) else (second, first))
    return pairs


@cache
def planned(count: int, seed: int = 0) -> list[Planned]:
    """Pairs, each with two invariants that hold for it: those that its sections met least often, then the rarest."""
    rng, tried, met, plan = random.Random(seed), Counter(), Counter(), []
    for number, pair in enumerate(drawn_pairs(count, seed)):
        sections = [section for section, _ in pair]

        def often(name: str, sections: Sequence[str] = sections) -> tuple[int, int]:
            return sum(met[name, section] for section in sections), tried[name]

        chosen = sorted(sorted(holds_for(pair), key=lambda _: rng.random()), key=often)[:2]
        tried.update(chosen)
        met.update((name, section) for name in chosen for section in sections)
        plan.append(Planned(number, pair, tuple(chosen)))
    return plan
