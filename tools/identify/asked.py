"""What identify was asked for: its settings, given or as in the week before, and the model that they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaguar_kit import KitError, Recipe, __version__, known_backbone, load_weights, recipe_from_dict, weights_path

from ..experiments.crops import CONFIDENCE, MARGIN
from .learned import AUTO, MODES

FOLDERS = ("catalogue", "queries")
USUAL = {"local": False, "head": AUTO, "sure": 0.95, "new": 0.75, "box_confidence": CONFIDENCE, "box_margin": MARGIN}


def settled(given: Mapping[str, Any], model: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """What was given, what is not as it was in the week before, else as usual; weights and backbone go together.

    The share of new animals is a week's own: that of the week before is none.
    """
    model = model or {key: before.get(key) for key in ("weights", "backbone")}
    before = {key: value for key, value in before.items() if key != "share_new"}
    chosen = {**model, **{k: before.get(k, USUAL.get(k)) if value is None else value for k, value in given.items()}}
    for name, value in (("--sure", "sure"), ("--new", "new"), ("--share-new", "share_new")):
        if chosen[value] is None and value == "share_new":
            continue
        if not isinstance(chosen[value], float) or not 0 < chosen[value] < 1:
            raise KitError(f"{name}: {chosen[value]} (expected a share above 0 and below 1)")
    for name, value, most in (("--box-confidence", "box_confidence", 1), ("--box-margin", "box_margin", 2)):
        if not isinstance(chosen[value], float) or not 0 <= chosen[value] <= most:
            raise KitError(f"{name}: {chosen[value]} (expected a number from 0 to {most})")
    if chosen["head"] not in MODES:
        raise KitError(f"--head: {chosen['head']!r} (expected {', '.join(MODES)})")
    for folder in FOLDERS:
        if chosen[folder] is None:
            raise KitError(f"--{folder}: is missing (expected a folder of photographs)")
    return chosen


def model_of(weights: str | Path | None, backbone: str | None) -> tuple[Recipe, set[str]]:
    """The recipe of a trained run with its identities, or one of a backbone's features as they are, which has none."""
    if (weights is None) == (backbone is None):
        raise KitError("--weights, --backbone: give one of them (a trained run, or the name or file of a backbone)")
    if weights is not None:
        check_is_run(Path(weights))
        _, metadata = load_weights(weights)
        recipe = recipe_from_dict(metadata["recipe"], str(weights))
        return replace(recipe, checkpoint=str(weights_path(weights)), soup=()), set(metadata["identities"])
    name, file = str(backbone), None
    if Path(name).suffix == ".safetensors":
        if not Path(name).is_file():
            raise KitError(
                f"--backbone: {name}: there is no such file (expected safetensors, or the name of a backbone)"
            )
        name, file = Path(name).stem, name
    known_backbone(name)
    model = {"backbone": name, "weights": file, "head": "none", "pretrained": True, "freeze": True}
    return recipe_from_dict({"name": "identify", "model": model, "background": "original"}), set()


def check_is_run(folder: Path) -> None:
    """Refuses the folder of a whole experiment, and lists its runs."""
    if folder.is_dir() and not (folder / "weights.safetensors").is_file():
        runs = sorted(path.parent for path in folder.glob("*/*/weights.safetensors"))
        if runs:
            shown = ", ".join(map(str, runs[:6])) + (", ..." if len(runs) > 6 else "")
            raise KitError(f"--weights: {folder}: is an experiment of {len(runs)} runs (expected one of them: {shown})")


def settings_to_keep(
    chosen: Mapping[str, Any], root: Path, earlier: Path | None, week: int, learned: Mapping[str, Any]
) -> dict[str, Any]:
    """What the next week goes on with: all settings, with folders that hold from anywhere; root: of the photographs;
    learned: what became of the head."""
    paths = {key: None if chosen[key] is None else str(Path(chosen[key]).resolve()) for key in ("weights", *FOLDERS)}
    settings = {"jaguar_kit": __version__, **chosen, **paths, "root": str(root.resolve()), "week": week}
    settings["learned"] = dict(learned)
    return {**settings, "previous": None if earlier is None else str(earlier.resolve())}
