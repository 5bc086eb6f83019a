"""What is written of a season: tables, the report, and the page to review."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jaguar_kit import KitError, write_json, write_table

from ..experiments.figures import threshold_figure
from ..experiments.open_set import cross_fitted_score, fit_thresholds
from ..experiments.page import Page
from .answers import Pictures
from .captures import sightings_page, sightings_table, write_captures
from .decisions import FOR_SPREADSHEETS, HISTORY, SETTINGS, Ledger, write_decisions
from .review import review_data, write_page
from .season import Season
from .trust import Trust


def write_season(
    out: Path,
    season: Season,
    trust: Trust,
    headline: Sequence[str],
    answers: pd.DataFrame,
    pictures: Pictures,
    ledger: Ledger,
    settings: Mapping[str, Any],
    notes: Sequence[str],
) -> tuple[Path, Path, Path]:
    """Everything about a season's answers; returns answers.csv, the report, and the page to review."""
    write_decisions(out / HISTORY, ledger.rows)
    write_json(out / SETTINGS, settings)
    catalogue_now = season.known.drop(columns=["filename"], errors="ignore")
    write_table(out / "catalogue.csv", catalogue_now, FOR_SPREADSHEETS)
    seen = sightings_table(season, answers)
    write_captures(out, seen, season.new.table)
    page = report_page(trust, headline, answers, dict.fromkeys([*notes, *season.shelf.notes, *season.new.notes]))
    sightings_page(page, seen)
    report, names = page.write(out), sorted({*season.known.identity, *ledger.last.identity})
    told = {"headline": headline, "cautions": trust.cautions(), "root": settings["root"], "names": names}
    review = write_page(out / "review.html", {**review_data(out, season, answers, pictures), **told})
    table = out / "answers.csv"  # last: it says that all is there
    write_table(table, answers.drop(columns=["score"]), FOR_SPREADSHEETS)
    return table, report, review


def report_page(trust: Trust, headline: Sequence[str], answers: pd.DataFrame, notes: Iterable[str]) -> Page:
    """How far the answers can be trusted; the pictures are on the page to review."""
    page = Page("Who is who")
    page.bullets(list(headline))
    page.text("The photographs, to confirm or reject one by one, are in review.html beside this page.")
    for note in (*trust.cautions(), *(f"Note: {note}" for note in notes)):
        page.note(note)
    if trust.odds is None:
        return page
    known, honest = trust.guesses[trust.guesses.known], cross_fitted_score(trust.guesses)
    page.heading("What to expect")
    page.text(
        "Identity-balanced mAP of the catalogue's images across encounters: "
        f"{known.groupby('truth').precision.mean().mean():.3f}."
    )
    if not math.isnan(honest["score"]):
        page.text(
            "With one threshold, fitted on the other half of the individuals, "
            f"{honest['baks']:.0%} of known individuals' photographs are named rightly and {honest['baus']:.0%} of new "
            "ones' are told to be new (means over individuals)."
        )
    scaled = trust.guesses.assign(score=trust.odds.of_right(trust.guesses.score))
    try:
        threshold = fit_thresholds(scaled)[""]
    except KitError:
        return page
    page.figure(
        "confidence",
        threshold_figure(scaled, {"": threshold}, fixed=()),
        "The catalogue's images as queries. Left, by the least probability of an answer: share of known individuals "
        "named rightly, of unknown ones told to be new, and the geometric mean of both; right, how sure answers are.",
    )
    counts = answers["class"].value_counts()
    page.heading("Answers")
    page.table(pd.DataFrame({"class": counts.index, "photographs": counts.to_numpy()}), "By class.")
    return page
