"""What is written of a season: tables, the report, and the page to review."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jaguar_kit import KitError, write_json, write_table

from ..experiments.crops import ASIDE
from ..experiments.figures import threshold_figure
from ..experiments.open_set import cross_fitted_score, fit_thresholds
from ..experiments.page import Page
from .answers import Pictures
from .captures import sightings_page, write_captures
from .decisions import HISTORY, SETTINGS, write_decisions
from .ledger import LEDGER, Ledger, counted
from .overview import overview_data
from .review import review_data, write_page
from .season import Season
from .trust import Trust
from .written import FOR_SPREADSHEETS

OPEN = "open.csv"  # photographs that are not settled when a season is closed


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
    write_sightings(out, ledger)
    catalogue_now = season.known.drop(columns=["filename", "called", "file_mark"], errors="ignore")
    catalogue_now = catalogue_now.drop(columns=[c for c in ("box", "picture") if (catalogue_now[c] == "").all()])
    write_table(out / "catalogue.csv", catalogue_now, FOR_SPREADSHEETS)
    if len(season.aside):
        shown = season.aside.rename(columns={"path": "image"})[["image", "why", "sure", "taken", "camera", "mark"]]
        write_table(out / ASIDE, shown, FOR_SPREADSHEETS)
    page = report_page(trust, headline, answers, dict.fromkeys([*notes, *season.shelf.notes, *season.new.notes]))
    sightings_page(page, ledger.sightings)
    report, names = page.write(out), sorted({*season.known.identity, *ledger.decisions.last.identity})
    told = {"headline": headline, "cautions": trust.cautions(), "root": settings["root"], "names": names}
    review = write_page(out / "review.html", {**review_data(out, season, answers, pictures), **told})
    write_json(out / SETTINGS, {**settings, "tables": tables_in(out)})
    table = out / "answers.csv"  # last: it says that all is there
    write_table(table, answers.drop(columns=["score"]), FOR_SPREADSHEETS)
    return table, report, review


def tables_in(out: Path) -> list[str]:
    """The tables that were written, so that nothing later takes them for a person's."""
    return sorted(path.name for path in out.glob("*.csv"))


def write_sightings(out: Path, ledger: Ledger) -> None:
    """The ledger, and what is worked out from it: all decisions, captures, their histories, and effort."""
    ledger.write(out / LEDGER)
    write_decisions(out / HISTORY, ledger.decisions.rows)
    write_captures(out, ledger.sightings, ledger.seen_beside)


def write_close(
    out: Path, ledger: Ledger, settings: Mapping[str, Any], notes: Sequence[str], weeks: Sequence[tuple[int, Path]] = ()
) -> list[Path]:
    """The tables and the report of a season that has come to its end, and where its weeks are given (number and folder)
    the page over all of them; returns captures.csv, the report, and the page."""
    seen, still_open = ledger.sightings, ledger.open
    write_sightings(out, ledger)
    table = ledger.pictures.loc[list(still_open)].assign(why=list(still_open.values())).reset_index()
    write_table(out / OPEN, table[["image", "why", "taken", "camera", "root", "mark"]], FOR_SPREADSHEETS)
    page = Page("The season")
    page.bullets(closing_lines(ledger))
    for note in notes:
        page.note(f"Note: {note}")
    sightings_page(page, seen)
    acts = ledger.acts.drop_duplicates(["week", "said", "name", "to"])
    if len(acts):
        page.heading("Individuals")
        shown = acts[["week", "said", "name", "to", "who", "when"]].rename(columns={"said": "action", "name": "from"})
        page.table(shown, "Renamed, merged and split.")
    if len(table):
        page.heading("What is open")
        page.table(table[["image", "why", "taken", "camera"]].head(200), f"All {len(table)} are in {OPEN}.")
    written = [out / "captures.csv", page.write(out)]
    if weeks:
        data = {**overview_data(out, ledger, weeks), "headline": closing_lines(ledger)}
        written.append(write_page(out / "review.html", data))
    write_json(out / SETTINGS, {**settings, "tables": tables_in(out)})  # last: it says that all is there
    return written


def closing_lines(ledger: Ledger) -> list[str]:
    """How many sightings of how many animals there are by which basis, and what is open."""
    seen, still_open = ledger.sightings, ledger.open
    told = [f"{len(seen)} sightings of {seen.identity.nunique()} animals: {counted(seen.basis) or 'none'}"]
    if empty := ledger.decisions.nothing:
        told.append(f"{len(empty)} photographs without an animal that can be told: {counted(empty.values())}")
    left = f": {counted(still_open.values())}" if still_open else ""
    return [*told, f"{len(still_open)} photographs are not settled{left}"]


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
