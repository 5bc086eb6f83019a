"""What probabilities identify told, and how often it was so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..identify.decisions import Decisions
from ..identify.grouping import grouped
from ..identify.season import Season

EDGES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 0.95, 1.0)

Calibrations = Mapping[str, tuple[np.ndarray, np.ndarray]]  # by what is told, probabilities (N,) and what is so (N,)


def pairs_of_groups(season: Season, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each two encounters of a group of new animals the group's probability, and whether they show one animal.

    Groups are those of all photographs that the catalogue lacks, as if each were called new.
    """
    rows = np.flatnonzero(~np.isin(truth, season.known.identity))
    if len(rows) < 2:
        return np.zeros(0), np.zeros(0, bool)
    groups, probable = grouped(season, rows, Decisions.none())
    table = pd.DataFrame({"group": groups, "probable": probable, "truth": truth[rows], "met": season.encounters[rows]})
    table = table[table.group != ""].drop_duplicates("met")
    told, so = [], []
    for _, own in table.groupby("group"):
        one, other = np.triu_indices(len(own), 1)
        names = own.truth.to_numpy(str)
        told += [own.probable.iloc[0]] * len(one)
        so += (names[one] == names[other]).tolist()
    return np.array(told, float), np.array(so, bool)


def calibration_table(weeks: Sequence[Calibrations]) -> pd.DataFrame:
    """A row for each kind of probability and each step of it that was told: how many, their mean, and how often it was
    so."""
    rows = []
    for kind in weeks[0]:
        told, so = (np.concatenate([week[kind][part] for week in weeks]) for part in (0, 1))
        steps = np.clip(np.searchsorted(EDGES, told, "right") - 1, 0, len(EDGES) - 2)
        for step in np.unique(steps[np.isfinite(told)]):
            own = np.isfinite(told) & (steps == step)
            words = f"{EDGES[step]:.2f} to {EDGES[step + 1]:.2f}"
            rows.append(
                {"of": kind, "told": words, "number": own.sum(), "mean": told[own].mean(), "so": so[own].mean()}
            )
    return pd.DataFrame(rows)


def print_calibration(table: pd.DataFrame) -> None:
    """A table for a README: number, mean told and share that is so, a column for each share of strangers."""
    shares, kinds = list(dict.fromkeys(table.strangers)), list(dict.fromkeys(table["of"]))
    table = table.assign(kind=table["of"].map(kinds.index)).sort_values(["kind", "told"], kind="stable")
    print("| of | told | " + " | ".join(f"{share:.0%} strangers: number, told, so" for share in shares) + " |")
    print("|---|---|" + "---|" * len(shares))
    for (kind, words), own in table.groupby(["of", "told"], sort=False):
        cells = []
        for share in shares:
            found = own[own.strangers == share]
            cells.append("" if found.empty else "{number:,}, {mean:.3f}, {so:.3f}".format(**found.iloc[0]))
        print(f"| {kind} | {words} | " + " | ".join(cells) + " |", flush=True)
