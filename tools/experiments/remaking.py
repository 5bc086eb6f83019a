"""What an experiment's folder tells of it, and its report made again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaguar_kit import KitError, Recipe, Result, damaged, read_record, recipe_from_dict, run_recipe

from .looking import looking_at


def experiment_in(folder: Path) -> tuple[Recipe, str | None]:
    """The recipe that an experiment was run by, and its data folder; KitError where the folder does not tell."""
    record = folder / "experiment.json"
    if not record.is_file():
        raise KitError(f"{folder}: no experiment of this kit (expected its experiment.json, written by run_recipe.py)")
    told = read_record(record, {"recipe": dict}, "run its recipe again, which writes it anew")
    if not isinstance(told.get("data"), (str, type(None))):
        raise damaged(record, f"data: {told['data']!r}", "run its recipe again, which writes it anew")
    return recipe_from_dict(told["recipe"], str(record)), told.get("data")


def remake_report(folder: str | Path, device: str = "auto", looks: Sequence[str] = ()) -> Result:
    """Makes the report of an experiment's folder again, from what is finished there, with looks at its runs."""
    recipe, data = experiment_in(Path(folder))
    with looking_at(looks):
        return run_recipe(recipe, data, device=device, report_only=True, folder=Path(folder))
