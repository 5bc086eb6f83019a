"""What individuals are called: they are renamed, merged and split, by a file or on the page, and the history stays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jaguar_kit import KitError, clean_label, suggest

from .written import MARK, check_name, read_written

INDIVIDUALS = "individuals.csv"
ACTS = ("rename", "merge", "split")


ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:")  # how the page writes times, which can be compared


@dataclass(frozen=True)
class Act:
    """An individual was renamed, merged into another, or some of its pictures became another."""

    week: int  # names said until then are meant
    kind: str
    name: str
    to: str
    marks: frozenset[str] = frozenset()  # of the pictures, where it was split
    when: str = ""

    def before(self, week: float, when: str) -> bool:
        """Whether it was done before a week, or in it and before a time, as far as both times are known."""
        told = bool(ISO.match(self.when) and ISO.match(when))
        return self.week < week or (self.week == week and told and self.when < when)

    def means(self, mark: str, said: int, when: str) -> bool:
        """Whether it changes the name that a picture was given in the week `said`.

        Who is split stays, so that what is said of a picture after that, of the same name, is meant as it is said.
        """
        if self.kind == "split":
            return mark in self.marks and not self.before(said, when)
        return said <= self.week


@dataclass(frozen=True)
class Names:
    """What individuals are called now, after some of them were renamed, merged or split."""

    acts: tuple[Act, ...] = ()  # in their order

    def at(
        self, name: str, mark: str = "", said: int = 0, when: str = "", until: tuple[float, str] = (float("inf"), "")
    ) -> str:
        """What the animal on a picture, who was called so in the week `said`, was called at a later week and time."""
        for act in self.acts:
            if act.name == name and act.before(*until) and act.means(mark, said, when):
                name = act.to
        return name


def read_individuals(path: Path) -> pd.DataFrame:
    """A file of renamed, merged and split individuals: action, from, to, marks (of the pictures that are split off).

    by and time may be told too. KitError names the line that can't be meant.
    """
    needed = ("action", "from", "to", "marks")
    table = read_written(path, needed)
    if missing := [name for name in needed[:3] if name not in table]:
        raise KitError(f"{path}: column {missing[0]!r} is missing (expected {','.join(needed)})")
    table = table.reindex(columns=[*needed, "by", "time"], fill_value="")
    rows = []
    for number, row in enumerate(table.to_dict("records"), 2):
        told = {key: clean_label(value) for key, value in row.items()}
        if not any(told.values()):
            continue
        where = f"{path}: line {number}"
        told["action"] = told["action"].lower()
        if told["action"] not in ACTS:
            raise KitError(f"{where}: action: {row['action']!r}; {suggest(told['action'], ACTS)}")
        for key in ("from", "to"):
            check_name(told[key], f"{where}: {key}")
        if told["from"] == told["to"]:
            raise KitError(f"{where}: to: {told['to']!r} is the name itself (expected another one)")
        marks = re.findall(r"[^\s;,]+", told["marks"])
        if strange := [mark for mark in marks if not MARK.fullmatch(mark)]:
            raise KitError(f"{where}: marks: {strange[0]!r} is none (expected marks as in captures.csv)")
        if (told["action"] == "split") != bool(marks):
            wanted = (
                "marks of the pictures that are another individual" if not marks else f"none with {told['action']!r}"
            )
            raise KitError(f"{where}: marks: {told['marks']!r} (expected {wanted})")
        rows.append({**told, "marks": tuple(dict.fromkeys(marks)), "where": where})
    return pd.DataFrame(rows, columns=[*needed, "by", "time", "where"])


def acts_of(table: pd.DataFrame) -> tuple[pd.DataFrame, set[tuple[str, str]]]:
    """What decisions of the page say of individuals, as `read_individuals` gives it, and by whom and when (of the act)
    such a thing was taken back."""
    taken_back = table[(table.decision == "undo") & (table.mark == "")]
    rows = []
    groups = table[table.decision.isin(ACTS)].groupby(["time", "by", "decision", "of", "identity"], sort=True)
    for (time, by, kind, name, to), own in groups:
        where = f"{own['where'].iloc[0]} ({by})"
        marks = tuple(dict.fromkeys(own.mark[own.mark != ""]))
        rows.append({"action": kind, "from": name, "to": to, "marks": marks, "by": by, "time": time, "where": where})
    acts = pd.DataFrame(rows, columns=["action", "from", "to", "marks", "by", "time", "where"])
    return acts, set(zip(taken_back.by, taken_back.identity))
