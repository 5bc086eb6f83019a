"""Who was seen when and where: capture histories for capture-recapture software, and a summary to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from jaguar_kit import write_table

from ..experiments.figures import new_figure, plain_label
from ..experiments.page import Page
from .confidence import SURE
from .decisions import FOR_SPREADSHEETS
from .season import Season

COLUMNS = ("identity", "occasion", "taken", "camera", "latitude", "longitude", "image", "basis")


def sightings_table(season: Season, answers: pd.DataFrame) -> pd.DataFrame:
    """A row for each photograph whose animal is known: of the catalogue, named by a person, or a sure answer."""
    known = season.known
    basis = np.repeat(
        ["catalogue", *["named"] * (len(season.shelf.albums) - 1)], [len(a.table) for a in season.shelf.albums]
    )
    first = known.assign(image=known.path, basis=basis)
    asked = season.new.table
    sure = (answers["class"] == SURE).to_numpy()
    second = asked[sure].assign(image=asked.path[sure], identity=answers.identity[sure], basis="sure")
    table = pd.concat([first, second], ignore_index=True).reindex(columns=[c for c in COLUMNS if c != "occasion"])
    table = table.fillna("").astype(str)
    table.insert(1, "occasion", table.taken.str[:10])
    return table


def histories(seen: pd.DataFrame) -> pd.DataFrame:
    """Animal x occasion: 1 where the animal was photographed on that day, else 0; days without a date are left out."""
    dated = seen[seen.occasion != ""]
    return pd.crosstab(dated.identity, dated.occasion).clip(upper=1).reset_index()


def effort_table(seen: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """For each occasion: photographs, cameras that took some, photographs with a name, and animals."""
    photographs = pd.concat(
        [seen[seen.basis != "sure"], asked.assign(occasion=asked.taken.str[:10])], ignore_index=True
    )
    photographs = photographs[photographs.occasion != ""].groupby("occasion")
    named = seen[seen.occasion != ""].groupby("occasion")
    table = pd.DataFrame({"photographs": photographs.size(), "cameras": photographs.camera.nunique()})
    return (
        table.join(pd.DataFrame({"named": named.size(), "animals": named.identity.nunique()}))
        .fillna(0)
        .astype(int)
        .reset_index()
    )


def write_captures(out: Path, seen: pd.DataFrame, asked: pd.DataFrame) -> None:
    """captures.csv (a row for each sighting), capture_history.csv (animal x occasion) and effort.csv."""
    tables = {"captures": seen, "capture_history": histories(seen), "effort": effort_table(seen, asked)}
    for name, table in tables.items():
        write_table(out / f"{name}.csv", table, FOR_SPREADSHEETS)


def sightings_page(page: Page, seen: pd.DataFrame, most: int = 200) -> None:
    """Who was seen how often, when and where; a map only where photographs tell coordinates."""
    if seen.empty:
        return
    page.heading("Who was seen")
    by = seen.groupby("identity")
    dated = seen[seen.occasion != ""].groupby("identity").occasion
    table = pd.DataFrame({"photographs": by.size(), "days": dated.nunique(), "first": dated.min(), "last": dated.max()})
    table["where"] = by.camera.agg(lambda cameras: ", ".join(sorted(set(cameras) - {""})[:4]))
    table = table.fillna({"days": 0, "first": "", "last": "", "where": ""}).astype({"days": int})
    shown = table.sort_values("photographs", ascending=False).head(most).reset_index()
    page.table(shown, f"{len(table)} animals, by the catalogue, by what people named, and by sure answers.")
    place = seen.assign(x=pd.to_numeric(seen.longitude, "coerce"), y=pd.to_numeric(seen.latitude, "coerce")).dropna()
    if len(place):
        figure, ax = new_figure(7, 5)
        for number, (name, own) in enumerate(place.groupby("identity")):
            ax.scatter(
                own.x, own.y, s=24, marker="osv^DP*X"[number % 8], label=plain_label(name) if number < 24 else None
            )
        ax.set(xlabel="longitude", ylabel="latitude", aspect="equal")
        ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        page.figure("map", figure, f"Where {len(place)} photographs were taken, by animal (the first 24 named).")
