"""A session on Kaggle: the package is checked, a kernel's recipe runs, and what it leaves is told by hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jaguar_kit
import pandas as pd
from jaguar_kit import (
    WORDS,
    DataConfig,
    KitError,
    Recipe,
    Result,
    __version__,
    atomic,
    cache_dir,
    check_model,
    convert,
    differing_settings,
    echo,
    expand,
    find_mounted,
    load_competitions,
    load_recipe,
    on_kaggle,
    only_tells,
    open_safetensors,
    override,
    pick_device,
    progress,
    read_json,
    read_yaml,
    recipe_from_dict,
    rooms_folder,
    run_recipe,
    sha_of,
    submission_of,
    weights_path,
    write_json,
)

from .smoke import made_small

# the dataset


def file_facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha_of(path)}


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """What a package should hold: bytes and sha256 by file name."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise KitError(f"{path}: is missing; build the dataset again with tools/package.py")
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        told = read_json(path)["files"]
        within = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in told)
        if within and all({"bytes", "sha256"} <= facts.keys() for facts in told.values()):
            return told
    raise KitError(f"{path}: not the manifest of a packaged kit; build the dataset again with tools/package.py")


def check_manifest(kit: Path) -> None:
    """Compares a package with its manifest; KitError names what is missing or damaged."""
    for name, told in progress(read_manifest(kit).items(), "checking the kit"):
        path = kit / name
        if not path.is_file():
            raise KitError(f"{path}: is missing from the packaged kit; upload the dataset again")
        if path.stat().st_size != told["bytes"] or sha_of(path) != told["sha256"]:
            raise KitError(f"{path}: differs from the packaged kit's manifest; upload the dataset again")


def kit_sha256() -> str:
    """Of all that a kernel runs: this file, and the rooms that travel with it."""
    folder = rooms_folder()
    rooms = sorted((folder / "experiments").glob("*.py")) if folder else []
    files = (Path(jaguar_kit.__file__).resolve(), *rooms)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


# in a kernel


def working_folder() -> Path:
    return jaguar_kit.KAGGLE_WORKING if on_kaggle() else Path.cwd()


def with_words(recipe: Recipe, kit: Path) -> Recipe:
    """The recipe with what the packaged one of its name says beside its settings, where a kernel carries none of it."""
    path = kit / f"{recipe.name}.yaml"
    if not path.is_file():
        return recipe
    packaged = load_recipe(path)
    return replace(recipe, **{word: getattr(recipe, word) or getattr(packaged, word) for word in WORDS})


def check_carried(recipe: Recipe, kit: Path) -> None:
    """Refuses to run a recipe when the packaged one of that name has other settings: one of the two is out of date."""
    path = kit / f"{recipe.name}.yaml"
    if not path.is_file():
        return
    packaged = load_recipe(path)
    anywhere = replace(recipe, data=replace(recipe.data, competition=packaged.data.competition))
    differing = differing_settings(packaged, anywhere)
    if differing:
        told = "; ".join(f"{key}: {here} here, {there} there" for key, there, here in differing[:5])
        raise KitError(
            f"recipe {recipe.name}: differs from {path} ({told}); update the dataset (tools/package.py --update, with "
            "its weights) or this kernel with tools/kernels.py and push it again (a quick change goes into OVERRIDES)"
        )


def resume_earlier(folder: Path, recipe: Recipe) -> None:
    """Copies what an earlier version of the kernel left of this experiment, where its output is attached."""
    if folder.exists():
        return
    for record in find_mounted("experiment.json"):
        if record.parent.name != folder.name:
            continue
        try:
            there = recipe_from_dict(read_json(record)["recipe"], str(record))
        except (KitError, ValueError, KeyError, TypeError):
            echo(f"  note: {record.parent}: is of another version of the kit, not taken up")
            continue
        if differing_settings(there, recipe):
            echo(f"  note: {record.parent}: has other settings, not taken up")
            continue
        with atomic(folder) as temporary:
            shutil.copytree(record.parent, temporary)
        echo(f"  going on from {record.parent}")
        return


def begin_kernel(name: str, competition: str = DataConfig().competition) -> Path:
    """Checks all that was packaged, and writes run.json, by which a session's output is told from an earlier one's.

    competition: the slug of what the output is for. Returns the path of run.json.
    """
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ[variable] = "1"  # processes that are started later heed it too
    os.environ["WANDB_MODE"] = "offline"
    kit = Path(jaguar_kit.__file__).resolve().parent
    if (kit / "manifest.json").is_file():
        check_manifest(kit)
    for path in find_mounted("manifest.json"):  # weights in datasets of their own
        if path.parent != kit and path.read_text(encoding="utf-8", errors="replace").startswith('{\n  "jaguar_kit":'):
            check_manifest(path.parent)
    path = working_folder() / "run.json"
    told = {"kernel": name, "competition": competition, "begun": time.time(), "kit": kit_sha256()}
    write_json(path, {**told, "jaguar_kit": __version__})
    return path


def end_kernel(record: Path, failed: Mapping[str, str] | None = None) -> None:
    """Adds to run.json which runs failed, and what the working folder holds, by which a download is checked."""
    told, working = read_json(record), record.parent
    told["failed"] = dict(failed or {})
    paths = [
        p for p in sorted(working.rglob("*")) if p.is_file() and p != record and not p.name.startswith((".", "__"))
    ]
    told["files"] = {p.relative_to(working).as_posix(): file_facts(p) for p in paths}
    write_json(record, told)
    echo(f"  {len(paths)} files of {sum(f['bytes'] for f in told['files'].values()) / 1e9:.2f} GB in {working}")


def check_accelerator(recipe: Recipe) -> None:
    """Refuses to spend a session's hours on training a large backbone without a GPU."""
    learning = [spec.recipe.model.backbone for spec in expand(recipe) if not spec.recipe.model.freeze]
    large = [name for name in learning if not name.startswith("test_")]
    if large and recipe.train.epochs and pick_device().type == "cpu":
        raise KitError(
            f"{recipe.name}: {large[0]} is to be trained, but this session has no GPU; choose one as accelerator "
            "(machine_shape in kernel-metadata.json)"
        )


REHEARSAL_VARIABLE = "JAGUAR_KIT_REHEARSAL"  # "look": ends once it is known what is lacking; "small", "whole": runs
LACKING = "lacking.json"  # in the cache of a rehearsal


def lacking(recipe: Recipe) -> list[dict[str, str]]:
    """What the runs of a recipe would not find in this session: `kind` is weights, trained or data, `text` a line."""

    def opens(path: str) -> None:
        with open_safetensors(weights_path(path)):
            pass

    if recipe.search:
        named = recipe.search.space.get("model.backbone") or {}
        own = [recipe.model.backbone] if not named else named.get("choices", [])
        recipes = [replace(recipe, model=replace(recipe.model, backbone=name)) for name in own]
        specs = [spec for one in recipes for spec in expand(replace(one, search=None))]
    else:
        specs = expand(recipe)
    checks = [("data", partial(load_competitions, specs, None))]
    for one in [spec.recipe for spec in specs]:
        trained = [path for path in (one.checkpoint, *one.soup) if path]
        checks += [("trained", partial(opens, path)) for path in trained]
        checks += [] if only_tells(one) else [("weights", partial(check_model, one))]
    if recipe.analysis:
        from .analysis import check_weights  # which few kernels need

        checks.append(("weights", partial(check_weights, recipe)))
    faults = {fault_of(check): kind for kind, check in reversed(checks)}  # of what is lacked twice, the first kind
    faults.pop("", None)
    return [{"kind": kind, "text": text} for text, kind in reversed(faults.items())]


def fault_of(check: Callable[[], Any]) -> str:
    """What a check finds wrong; "" for nothing."""
    try:
        check()
    except KitError as error:
        return str(error)
    return ""


def fuses_what_is_there(recipe: Recipe) -> bool:
    """Whether a recipe trains nothing and all runs that it fuses are there, so that it takes no longer than a try."""
    members = recipe.ensemble.settings.get("members", ())
    if not members or recipe.analysis or not only_tells(recipe):
        return False
    from .ensemble import members_in  # which few kernels need

    return not any(fault_of(partial(members_in, member)) for member in members)


def run_kernel(text: str, overrides: Sequence[str] = ()) -> Result:
    """Runs the recipe that a kernel's code file carries, in a Kaggle session.

    Leaves submission.csv and report.html in the working folder, and all results in runs/ there. With
    JAGUAR_KIT_SMOKE=1 in the environment it runs the recipe's small version, to see that everything is attached, or
    fuses what is attached where it trains nothing; a rehearsal is told first what the recipe in its own size would
    lack.
    """
    kit, where = Path(jaguar_kit.__file__).resolve().parent, "the kernel's RECIPE"
    carried = recipe_from_dict(convert(read_yaml(text, where), dict, where), where)
    record = begin_kernel(carried.name, carried.data.competition)
    check_carried(carried, kit)
    recipe = carried = with_words(carried, kit)
    for change in overrides:
        recipe = override(recipe, change, f"the kernel's OVERRIDES: {change}")
    rehearsed = os.environ.get(REHEARSAL_VARIABLE)
    if rehearsed:
        write_json(cache_dir() / LACKING, lacking(recipe))
    if rehearsed == "look":
        return Result(record.parent, pd.DataFrame(), None)
    if os.environ.get("JAGUAR_KIT_SMOKE") == "1" or rehearsed == "small":
        recipe = recipe if fuses_what_is_there(recipe) else made_small(recipe)
    elif on_kaggle() and not rehearsed:
        check_accelerator(recipe)
    out = working_folder() / "runs"
    resume_earlier(out / recipe.name, recipe)
    return leave_results(run_recipe(recipe, out=out), record)


def leave_results(result: Result, record: Path) -> Result:
    """Copies submission and report beside run.json (from `begin_kernel`), and completes that; returns the result."""
    for source in (submission_of(result), result.report or result.folder / "results.csv"):
        if source is not None and source.is_file():
            with atomic(record.parent / source.name) as temporary:
                shutil.copyfile(source, temporary)
            echo(f"  wrote {record.parent / source.name}")
    end_kernel(record, result.failed)
    return result
