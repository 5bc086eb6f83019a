"""What people decided about photographs, from one week to the next: files of decisions, merged, and never lost."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from jaguar_kit import KitError, clean_label, damaged, first_few, read_record, read_table, suggest, write_table

COLUMNS = ("mark", "image", "root", "decision", "identity", "by", "time")
KINDS = ("yes", "no", "new", "skip", "undo")  # yes: it is `identity`; no: it is not; new: a new animal, `identity`
MARK = re.compile(r"[0-9a-f]{16}")
PHOTO = "photo:"  # before the mark of another photograph, where a decision is about two of them and no name
FOR_SPREADSHEETS = "utf-8-sig"  # with the mark by which they know UTF-8
SETTINGS, HISTORY = "identify.json", "history.csv"
KINDS_OF_SETTINGS = {"weights": str, "backbone": str, "catalogue": str, "queries": str, "local": bool, "sure": float}
KINDS_OF_SETTINGS |= {"new": float, "share_new": float}


def read_decisions(path: Path) -> pd.DataFrame:
    """A file of decisions as the page exports it; KitError names the line that is none."""
    if path.is_file() and path.stat().st_size < 1000:
        header = path.read_text(encoding="utf-8-sig", errors="replace").strip()
        if sorted(name.strip(' "') for name in re.split("[,;]", header)) == sorted(COLUMNS):
            return pd.DataFrame(columns=list(COLUMNS), dtype=str)  # a header alone: nothing was decided yet
    with_semicolons = path.is_file() and path.read_bytes()[:200].lstrip(b"\xef\xbb\xbf").lstrip(b'"').startswith(
        (b"mark;", b'mark";')
    )
    table = read_table(path, (), separator=";" if with_semicolons else ",")  # as some spreadsheets save it
    table = table.rename(columns=str.strip)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise KitError(
            f"{path}: column {missing[0]!r} is missing (expected a file that the page exported: {','.join(COLUMNS)})"
        )
    table = table[list(COLUMNS)].fillna("").astype(str)
    table["identity"] = table.identity.map(clean_label)
    table["by"] = table.by.str.strip().where(table.by.str.strip() != "", f"({path.name})")  # nobody is everybody
    for number, row in enumerate(table.itertuples(), 2):
        if not any((row.mark, row.image, row.decision, row.identity)):
            continue
        if row.decision not in KINDS:
            raise KitError(f"{path}: line {number}: decision: {row.decision!r}; {suggest(row.decision, KINDS)}")
        if not MARK.fullmatch(row.mark):
            raise KitError(
                f"{path}: line {number}: mark: {row.mark!r} is none (expected 16 letters and digits; a spreadsheet "
                "that saved this file may have changed it: export it again)"
            )
        if row.decision in ("yes", "no", "new") and not row.identity:
            raise KitError(f"{path}: line {number}: identity: is empty (expected a name with {row.decision!r})")
    return table[table.mark != ""].reset_index(drop=True)


def write_decisions(path: Path, table: pd.DataFrame) -> None:
    write_table(path, table[list(COLUMNS)], FOR_SPREADSHEETS)


@dataclass(frozen=True, eq=False)
class Ledger:
    """All decisions so far, a row for each, of everybody and every week."""

    rows: pd.DataFrame

    @staticmethod
    def read(previous: Path | None, more: Sequence[Path] = ()) -> Ledger:
        """Those of an earlier folder of answers (its history, and every decisions*.csv in it) and of further files."""
        files = [] if previous is None else [previous / HISTORY, *sorted(previous.glob("*decisions*.csv"))]
        found = [read_decisions(path) for path in files if path.name != HISTORY or os.path.lexists(path)]
        found += [read_decisions(path) for path in more]
        table = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(COLUMNS), dtype=str)
        return Ledger(table.drop_duplicates().sort_values("time", kind="stable").reset_index(drop=True))

    @cached_property
    def last(self) -> pd.DataFrame:
        """The last word of each person on each photograph, yes or new with a name, unless it was undone or skipped."""
        names = (self.rows.decision != "no") & ~self.rows.identity.str.startswith(PHOTO)
        final = self.rows[names].drop_duplicates(["mark", "by"], keep="last")
        return final[final.decision.isin(("yes", "new"))]

    @cached_property
    def disputed(self) -> set[str]:
        """Marks of photographs that people name differently; they are asked for again."""
        names = self.last.groupby("mark").identity.nunique()
        return set(names.index[names > 1])

    @cached_property
    def named(self) -> pd.DataFrame:
        """A row for each photograph that has a name that nobody disputes."""
        return self.last[~self.last.mark.isin(self.disputed)].drop_duplicates("mark").reset_index(drop=True)

    @cached_property
    def rejected(self) -> dict[str, set[str]]:
        """By mark, whom a photograph does not show, as somebody said after their last undo of it."""
        told: dict[tuple[str, str], set[str]] = {}
        for row in self.rows.itertuples():
            own = told.setdefault((row.mark, row.by), set())
            if row.decision == "no":
                own.add(row.identity)
            elif row.decision == "undo":
                own.clear()
            elif row.decision in ("yes", "new"):
                own.discard(row.identity)
        found: dict[str, set[str]] = {}
        for (mark, _), names in told.items():
            if names:
                found.setdefault(mark, set()).update(names)
        return found

    def links(self, decision: str) -> list[tuple[str, str]]:
        """Marks of two photographs that, by the last word, show one new animal (yes) or do not (no)."""
        last: dict[tuple[str, str, str], str] = {}
        for row in self.rows.itertuples():
            if row.identity.startswith(PHOTO):
                last[row.mark, row.identity.removeprefix(PHOTO), row.by] = row.decision
            elif row.decision == "undo":
                last = {key: said for key, said in last.items() if (key[0], key[2]) != (row.mark, row.by)}
        return [(mark, other) for (mark, other, _), said in last.items() if said == decision]

    def notes(self, known: Iterable[str]) -> list[str]:
        """What is to be said of these decisions beside a catalogue of `known` individuals."""
        said, last = [], self.last
        strange = last[(last.decision == "yes") & ~last.identity.isin({*known, *last.identity[last.decision == "new"]})]
        if len(strange):
            names = first_few(sorted(set(strange.identity)))
            said.append(
                f"{strange.mark.nunique()} photographs are confirmed as somebody whom the catalogue lacks: {names}"
            )
        several = last[last.decision == "new"].groupby("identity").by.nunique()
        if len(several := several[several > 1]):
            said.append(f"{len(several)} new animals were named by several people: {first_few(list(several.index))}")
        if self.disputed:
            images = self.rows[self.rows.mark.isin(self.disputed)].drop_duplicates("mark").image
            said.append(
                f"{len(self.disputed)} photographs are named differently, and asked for again: {first_few(images)}"
            )
        return said


def earlier_settings(previous: Path | None) -> dict[str, Any]:
    """How an earlier folder of answers was made."""
    if previous is None:
        return {}
    path = previous / SETTINGS
    if not path.is_file():
        raise KitError(f"--previous: {previous}: holds no {SETTINGS} (expected a folder that identify wrote)")
    remedy = "answer that week again, or give its catalogue and queries without --previous"
    told = read_record(path, {}, remedy)
    for key, kind in KINDS_OF_SETTINGS.items():
        value = told.get(key)
        if value is not None and (type(value) is not kind or "\0" in str(value)):
            raise damaged(path, f"{key}: {value!r}", remedy)
    return told
