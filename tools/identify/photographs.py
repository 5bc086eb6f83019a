"""Which photographs a season has: those of a catalogue, those that were named since, and those to be asked for.

Of each of them every animal has a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaguar_kit import KitError

from ..experiments.crops import Look, look_at
from .animals import notes_on_files
from .decisions import Decisions
from .facts import facts_nobody_has, load_catalogue, load_queries, with_facts
from .marks import mark_of

Placed = tuple[Path, pd.DataFrame]  # a table of photographs, and the folder that its paths start from


@dataclass(frozen=True, eq=False)
class Photographs:
    """All photographs of a season, before they are read."""

    known: Placed  # of the catalogue
    grown: Sequence[Placed]  # named in earlier weeks
    asked: Placed  # new ones
    notes: Sequence[str]  # what a reader of the answers must know
    aside: pd.DataFrame  # those that show no animal, as boxes tell, with why
    every: bool = False  # those without an animal are asked for as well


def find_photographs(
    catalogue: str | Path, queries: str | Path, masks: str | None, ledger: Decisions, look: Look
) -> Photographs:
    """The photographs of a catalogue and of queries, with what their files tell; the catalogue grown by decisions."""
    (known_root, known, said), (asked_root, asked, more) = load_catalogue(catalogue, masks), load_queries(queries)
    (known, of_known), (asked, of_asked) = with_facts(known_root, known), with_facts(asked_root, asked)
    asked, left = without_known(asked_root, asked, known_root, known)
    grown, asked, told = split_by_decisions(ledger, asked_root, asked)
    of_boxes = [
        look_at("catalogue", known_root, known, look, True, masks),
        look_at("queries", asked_root, asked, look, False, masks),
    ]
    left += notes_on_files(look, *of_boxes)
    lacking = [*facts_nobody_has("catalogue", known), *facts_nobody_has("queries", asked)]
    notes = [*said, *more, *of_known, *of_asked, *lacking, *left, *ledger.notes(known.identity), *told]
    known, asked = (one.table for one in of_boxes)
    notes += [note for one in of_boxes for note in one.notes]
    return Photographs((known_root, known), grown, (asked_root, asked), notes, of_boxes[1].aside, look.every)


def without_known(
    root: Path, asked: pd.DataFrame, known_root: Path, known: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """The queries without images that are the catalogue's own, and what is to be said about those."""
    there = {(known_root / path).resolve() for path in known.path}
    own = np.array([(root / path).resolve() in there for path in asked.path], bool)
    if own.all():
        raise KitError(f"--queries: {root}: all of its {len(asked)} images are in the catalogue")
    notes = [f"{own.sum()} of the photographs are in the catalogue itself and are left out"] if own.any() else []
    return asked[~own].reset_index(drop=True), notes


def split_by_decisions(
    ledger: Decisions, root: Path, asked: pd.DataFrame
) -> tuple[list[Placed], pd.DataFrame, list[str]]:
    """Tables of photographs that were named, by their folders; those still to be asked for; and what is to be said.

    A photograph is known again by what its file holds, wherever it lies now.
    """
    named, notes = ledger.named, []
    if named.empty:
        return [], asked, notes
    here = asked.drop_duplicates("mark").set_index("mark")
    rows, gone = [], 0
    for row in named.itertuples():
        if row.mark in here.index:
            rows.append({**here.loc[row.mark].to_dict(), "root": str(root), "mark": row.mark, "identity": row.identity})
        elif (file := Path(row.root) / row.image).is_file() and mark_of(file) == row.mark:
            rows.append({"path": row.image, "root": row.root, "mark": row.mark, "identity": row.identity})
        else:
            gone += 1
    if gone:
        notes.append(f"{gone} photographs that were named are no longer where they were; their decisions are kept")
    asked = asked[~asked.mark.isin(set(named.mark))].reset_index(drop=True)
    if asked.empty:
        raise KitError(f"--queries: {root}: all of its photographs are decided (expected new ones)")
    tables = []
    for folder, own in pd.DataFrame(rows).groupby("root", sort=False) if rows else ():
        own = own.drop(columns=["root"]).fillna("").reset_index(drop=True)
        tables.append((Path(folder), with_facts(Path(folder), own.assign(filename=own.path))[0]))
    notes.append(f"the catalogue grows by {len(rows)} photographs that were named; they are not asked for again")
    return tables, asked, notes
