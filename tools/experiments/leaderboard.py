"""The leaderboard beside the validation, by scores.csv, which grows with every submission that kaggle_run.py makes."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from jaguar_kit import MEASURES, KitError, Recipe, one_line

from .figures import EFFECT, OTHER, new_figure, plain_label
from .page import Page

SCORES = Path("results/scores.csv")  # below the folder in which commands are given

COLUMNS = {  # of scores.csv
    "date": "of the submission, UTC",
    "competition": "its slug",
    "kernel": "owner/slug",
    "recipe": "name of the experiment",
    "recipe_hash": "of the settings that count",
    "message": "as it was submitted with",
    "run": "whose submission it is: variant/seed, or ensemble",
    "map": "of the validation images",
    "map_across": "the same across encounters",
    "public": "score",
    "private": "score, where Kaggle shows it",
    "status": "pending, complete, or error and the competition's own words",
    "ref": "Kaggle's number of the submission",
    "sha256": "of the file",
}


def read_scores(path: Path) -> pd.DataFrame:
    """The rows of scores.csv, all as text; none where there is no such file."""
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS), dtype=str)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise KitError(
            f"{path}: can't be read: {one_line(error)} (expected the scores of earlier submissions)"
        ) from None
    if list(table.columns) != list(COLUMNS):
        raise KitError(
            f"{path}: columns {', '.join(table.columns)} (expected {', '.join(COLUMNS)}); choose another --scores"
        )
    return table


def scored_submissions(recipe: Recipe, path: Path = SCORES) -> pd.DataFrame:
    """The submissions to the recipe's competition that have a score and a validation; map and public as numbers."""
    table = read_scores(path)
    numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in ("map", "public")}
    table = table.assign(**numbers).dropna(subset=["map", "public"])
    return table[table.competition == recipe.data.competition].reset_index(drop=True)


def report_leaderboard(recipe: Recipe, path: Path = SCORES) -> Page | None:
    """Scores against validation mAP, this experiment's among them; None where none of it was submitted."""
    page = Page()
    try:
        table = scored_submissions(recipe, path)
    except KitError as error:  # a report is not lost for it
        page.note(f"Note: the leaderboard is not shown: {error}")
        return page
    if not table.recipe.eq(recipe.name).any():
        return None
    page.heading("On the leaderboard")
    shown = table.assign(experiment=table.recipe).sort_values("public", ascending=False)
    page.table(shown[["experiment", "run", "date", "map", "public"]], f"Submissions to {recipe.data.competition}.")
    if len(table) > 1:
        page.figure("leaderboard", leaderboard_figure(table, recipe.name), agreement(table))
    return page


def agreement(table: pd.DataFrame) -> str:
    """How often the validation tells which of two submissions the leaderboard puts first."""
    pairs = [(a, b) for a, b in combinations(table.itertuples(), 2) if a.map != b.map and a.public != b.public]
    right = sum((a.map > b.map) == (a.public > b.public) for a, b in pairs)
    told = f"Public score against validation mAP of {len(table)} submissions, each on images of its own."
    if not pairs:
        return f"{told} No two of them differ in both."
    return f"{told} In {right} of {len(pairs)} pairs the better one by validation is the better one there."


def leaderboard_figure(table: pd.DataFrame, name: str) -> Any:
    """A point for each submission, those of this experiment in another colour; on the line both say the same."""
    figure, ax = new_figure(7, 4.5)
    low, high = table[["map", "public"]].min().min(), table[["map", "public"]].max().max()
    ax.axline((low, low), (high, high) if high > low else None, slope=None if high > low else 1, color="#bbbbbb", lw=1)
    for row in table.itertuples():
        mine = row.recipe == name
        ax.scatter(row.map, row.public, color=OTHER if mine else EFFECT, marker="D" if mine else "o", zorder=3)
        ax.annotate(plain_label(str(row.recipe)), (row.map, row.public), (5, 4), textcoords="offset points", fontsize=8)
    ax.set(xlabel=f"{MEASURES['map'].label} of the validation images", ylabel="public score")
    return figure
