"""Parts: the runs of one experiment dealt out to several sessions or machines, and brought together again."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch
from jaguar_kit import (
    EXPERIMENT,
    Busy,
    Experiment,
    KitError,
    Recipe,
    Result,
    RunFolder,
    RunSpec,
    atomic,
    claim,
    create_backbone,
    differing_settings,
    echo,
    expand,
    native_size,
    recipe_to_dict,
    refuse_other_contents,
    run_one,
    write_json,
)

from .remaking import experiment_in, remake_report
from .runs import features_key


def part_of(recipe: Recipe) -> tuple[int, int]:
    """Which part of how many; KitError where the text tells no part."""
    told = re.fullmatch(r"([1-9]\d{0,4})/([1-9]\d{0,4})", recipe.part or "")
    if not told or int(told[1]) > int(told[2]):
        raise KitError(
            f"{recipe.name}: part: {recipe.part!r} is no part (expected k/n, such as 2/5 for the second of 5)"
        )
    return int(told[1]), int(told[2])


def check_part(recipe: Recipe, specs: Sequence[RunSpec]) -> None:
    """Refuses a part that holds no run, and what can't be dealt out."""
    part, parts = part_of(recipe)
    if recipe.search:
        raise KitError(
            f"{recipe.name}: part: a search draws its trials one after the other (expected search.storage, which "
            "several sessions share)"
        )
    if parts > len(specs):
        raise KitError(f"{recipe.name}: part: {part}/{parts}, but there are {len(specs)} runs (expected no more parts)")


# dealing out


@lru_cache(maxsize=64)
def parameters_of_backbone(name: str) -> int:
    """How many numbers a backbone holds; 0 where it can't be built without its weights."""
    try:
        with torch.device("meta"):
            return sum(p.numel() for p in create_backbone(name, pretrained=False).parameters())
    except Exception:  # noqa: BLE001 - a backbone of somebody's own may need what is not there
        return 0


def pass_cost(recipe: Recipe) -> float:
    """What one pass of all images through the backbone costs: its parameters times the pixels of an image."""
    name = recipe.model.backbone
    size = recipe.model.input_size or native_size(name)
    return max(parameters_of_backbone(name), 1e6) * size**2


def run_cost(recipe: Recipe) -> float:
    """What a run costs besides the features that it may share: of a pass, three an epoch where the backbone learns.

    A head on features of a frozen backbone is counted as half a pass, however many epochs it has.
    """
    return pass_cost(recipe) * (0.5 if recipe.model.freeze else 3 * max(recipe.train.epochs, 1))


def deal(specs: Sequence[RunSpec], parts: int) -> list[list[int]]:
    """Numbers (from 1 on) of the runs of each part, in the order of the recipe.

    The costliest goes first, each to the part that is then the least laden (Graham 1969): run by run, or all that share
    the features of a frozen backbone at once, whichever ends sooner. Features are counted once for each part.
    """
    recipes = [spec.recipe for spec in specs]
    keys = [features_key(recipe) if recipe.model.freeze else f"learns {at}" for at, recipe in enumerate(recipes)]
    costs = [run_cost(recipe) for recipe in recipes]
    shared = {  # what extracting the features of each key costs
        key: max(1, recipe.train.views) * pass_cost(recipe) for key, recipe in zip(keys, recipes) if recipe.model.freeze
    }
    alone = [[at] for at in range(len(specs))]
    together = [[at for at, other in enumerate(keys) if other == key] for key in dict.fromkeys(keys)]
    ways = [dealt_out(costs, keys, shared, groups, parts) for groups in (together, alone) if len(groups) >= parts]
    return min(ways, key=lambda way: way[0])[1]


def dealt_out(
    costs: Sequence[float],
    keys: Sequence[str],
    shared: Mapping[str, float],
    groups: Sequence[Sequence[int]],
    parts: int,
) -> tuple[float, list[list[int]]]:
    """The longest part's cost, and the numbers of each, where groups of runs are dealt out whole."""
    dealt: list[list[int]] = [[] for _ in range(parts)]

    def cost(own: Sequence[int]) -> float:
        return sum(shared.get(key, 0) for key in {keys[at] for at in own}) + sum(costs[at] for at in own)

    for group in sorted(groups, key=lambda group: (-cost(group), group)):
        least = min(range(parts), key=lambda part: (cost([*dealt[part], *group]), len(dealt[part]), part))
        dealt[least] += group
    while empty := [own for own in dealt if not own]:  # features are never worth an idle session
        empty[0].append(max(dealt, key=len).pop())
    return max(map(cost, dealt)), [sorted(at + 1 for at in own) for own in dealt]


def numbers_of_part(recipe: Recipe, specs: Sequence[RunSpec]) -> list[int]:
    """Numbers of the runs that are made here."""
    part, parts = part_of(recipe)
    own = deal(specs, parts)[part - 1]
    echo(f"  part {part} of {parts}: {len(own)} of {len(specs)} runs")
    return own


def make_unless_elsewhere(experiment: Experiment, number: int) -> str:
    """`run_one`, but for a run that another process is making in the same folder: that is passed over."""
    try:
        return run_one(experiment, number)
    except Busy:
        echo(f"  {experiment.specs[number - 1].folder}: is being made elsewhere, passed over")
        return ""


def make_when_free(experiment: Experiment, number: int) -> str:
    """`run_one`, once no other process is making that run, as one whose command was killed may still be."""
    while True:
        with suppress(Busy):
            return run_one(experiment, number)
        time.sleep(1)


MAKE_WHERE_BUSY = {"raise": run_one, "wait": make_when_free, "pass": make_unless_elsewhere}


def where_busy(experiment: Experiment) -> str:
    """What becomes of a run that another process is making, as MAKE_WHERE_BUSY names it."""
    if experiment.recipe.part:
        return "pass"
    search = experiment.recipe.search
    return "wait" if search and search.storage else "raise"


def shared_out(experiment: Experiment) -> tuple[Sequence[int], Callable[[Experiment, int], str]]:
    """Numbers of the runs that are made here, and what makes each."""
    numbers: Sequence[int] = range(1, len(experiment.specs) + 1)
    if experiment.recipe.part:
        numbers = numbers_of_part(experiment.recipe, experiment.specs)
    return numbers, MAKE_WHERE_BUSY[where_busy(experiment)]


def tell_missing(experiment: Experiment) -> list[str]:
    """The folders of runs that are neither over nor failed, and a line that tells which parts lack them."""
    failed = experiment.failures
    missing = [s.folder for s in experiment.specs if s.folder not in failed and not experiment.run_folder(s).done]
    if missing:
        _, parts = part_of(experiment.recipe)
        folders = [[experiment.specs[n - 1].folder for n in own] for own in deal(experiment.specs, parts)]
        counts = {part: len({*own} & {*missing}) for part, own in enumerate(folders, 1)}
        lacking = ", ".join(f"{part}/{parts} ({count} runs)" for part, count in counts.items() if count)
        echo(f"  not there yet: {lacking}; results.csv and the report are over what is")
        recipe = experiment.recipe
        if recipe.ensemble.name != "none" or recipe.pseudo:
            echo("  what is made of all runs: when all parts are there, by the same command without a part")
    return missing


# bringing together


def merge_parts(
    folders: Sequence[str | Path], out: str | Path, device: str = "auto", data: str | None = None
) -> Result:
    """Copies the runs of one experiment from several folders into `out`, and tells of all of them.

    A run that is over in one folder wins over one that time stopped or that is begun; of two that are over, the first
    counts, and a line says so where their results differ. data: where the images lie, else as the first folder tells
    it. KitError where the folders hold different experiments.
    """
    folders, out = [Path(folder) for folder in folders], Path(out)
    recipe, told = experiment_in(folders[0])
    for other in folders[1:]:
        differ = differing_settings(recipe, experiment_in(other)[0])
        if differ:
            said = "; ".join(f"{key}: {a} in {folders[0]}, {b} in {other}" for key, a, b in differ[:5])
            raise KitError(f"{other}: is no part of the experiment in {folders[0]} ({said})")
    refuse_other_contents(out, EXPERIMENT)
    claim(out, EXPERIMENT)
    missing = [spec.folder for spec in expand(recipe) if not gather_run(spec, folders, out)]
    write_json(out / "experiment.json", {"recipe": recipe_to_dict(recipe), "data": data or told})
    result = remake_report(out, device)
    if missing:
        echo(f"  {len(missing)} of {len(expand(recipe))} runs are in none of them: {', '.join(missing[:5])}")
    return result


def gather_run(spec: RunSpec, folders: Sequence[Path], out: Path) -> bool:
    """Copies a run from where it is furthest into `out`, unless it is over there; whether it is over."""
    found = [RunFolder(folder / spec.folder) for folder in folders]
    done, there = [run for run in found if run.done], RunFolder(out / spec.folder)
    results = {(run.path / "metrics.json").read_bytes() for run in done}
    if len(results) > 1:
        unlike = f"is finished in {len(done)} folders with unlike results"
        echo(f"  note: {spec.folder}: {unlike}; that of {done[0].path} counts")
    if there.done:
        return True
    begun = [run for run in found if (run.path / "log.csv").is_file()]
    source = next(iter([*done, *sorted(begun, key=lambda run: -math.inf if run.failure else -len(run.log()))]), None)
    if source is None or source.path.resolve() == there.path.resolve():
        return False
    if there.path.exists():
        there.set_aside()
    with atomic(there.path) as temporary:
        shutil.copytree(source.path, temporary, ignore=shutil.ignore_patterns(".*"))
    return bool(done)
