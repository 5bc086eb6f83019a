"""What people decided about photographs and individuals: files of decisions, merged, and never lost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from jaguar_kit import KitError, clean_label, damaged, first_few, read_record, suggest, write_table

from .individuals import ACTS, INDIVIDUALS, Names
from .written import FOR_SPREADSHEETS, MARK, PHOTO, check_name, read_written

COLUMNS = ("mark", "image", "root", "decision", "identity", "by", "time")
NOTHING = ("blank", "unusable")  # a photograph shows no animal, or none that anybody could tell
# yes: it is `identity`; no: it is not; new: a new animal, `identity`; undo: what was said at the time `identity`
KINDS = ("yes", "no", "new", "skip", "undo", *NOTHING)
SETTINGS, HISTORY = "identify.json", "history.csv"
KINDS_OF_SETTINGS = {"weights": str, "backbone": str, "catalogue": str, "queries": str, "local": bool, "sure": float}
KINDS_OF_SETTINGS |= {"new": float, "share_new": float, "root": str, "previous": str, "week": int, "closed": bool}
KINDS_OF_SETTINGS |= {"head": str, "learned": dict, "tables": list, "box_confidence": float, "box_margin": float}
OWN_TABLES = {f"{name}.csv" for name in ("answers", "catalogue", "captures", "capture_history", "effort", "ledger")}
OWN_TABLES |= {HISTORY, INDIVIDUALS, "open.csv"}

# files


def read_decisions(path: Path) -> pd.DataFrame:
    """A file of decisions as the page exports it; KitError names the line that is none."""
    table = read_written(path, COLUMNS)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise KitError(
            f"{path}: column {missing[0]!r} is missing (expected a file that the page exported: {','.join(COLUMNS)})"
        )
    table = table.reindex(columns=[*COLUMNS, "of"], fill_value="")
    table["identity"], table["of"] = table.identity.map(clean_label), table.of.map(clean_label)
    table["by"] = table.by.str.strip().where(table.by.str.strip() != "", f"({path.name})")  # nobody is everybody
    table["where"] = [f"{path}: line {number}" for number in range(2, len(table) + 2)]
    for row in table.itertuples():
        if any((row.mark, row.image, row.decision, row.identity)):
            check_decision(row, row.where)
    return table[table.decision != ""].reset_index(drop=True)


def check_decision(row: Any, where: str) -> None:
    """KitError where a row of a file of decisions says nothing that can be meant."""
    if row.decision not in (*KINDS, *ACTS):
        raise KitError(f"{where}: decision: {row.decision!r}; {suggest(row.decision, KINDS)}")
    if row.decision in ACTS:
        check_name(row.identity, f"{where}: identity")
        check_name(row.of, f"{where}: of")
    no_photograph = row.decision in ("rename", "merge") or (row.decision == "undo" and row.identity)
    if not MARK.fullmatch(row.mark) and (row.mark or not no_photograph):
        raise KitError(
            f"{where}: mark: {row.mark!r} is none (expected 16 letters and digits; a spreadsheet "
            "that saved this file may have changed it: export it again)"
        )
    if row.decision not in ("yes", "no", "new"):
        return
    if not row.identity:
        raise KitError(f"{where}: identity: is empty (expected a name with {row.decision!r})")
    other = row.identity.removeprefix(PHOTO)
    if row.decision != "new" and other != row.identity and MARK.fullmatch(other):
        if other == row.mark:
            raise KitError(f"{where}: identity: {row.identity!r} is the photograph itself (expected another one)")
        return
    check_name(row.identity, f"{where}: identity")


def write_decisions(path: Path, table: pd.DataFrame) -> None:
    write_table(path, table[list(COLUMNS)], FOR_SPREADSHEETS)


def read_folder(folder: Path, own: Iterable[str] = ()) -> tuple[pd.DataFrame, list[str]]:
    """The decisions in a folder of answers: of its history, and of every file that holds some, whatever it is called.

    own: names of further tables that the kit wrote there. Returns what is to be said of other files, too.
    """
    tables, notes = [Decisions.none().rows[list(COLUMNS)]], []
    if (folder / HISTORY).exists():
        tables.append(read_decisions(folder / HISTORY))
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name, suffix = path.name.lower(), path.suffix.lower()
        if name in OWN_TABLES or name.startswith("."):
            continue
        if suffix == ".csv":
            start = path.read_bytes()[:2000] if path.is_file() else b""
            header = start.decode("utf-8-sig", "replace").lower().partition("\n")[0]
            if "decision" in name or "decision" in re.findall(r"\w+", header):
                tables.append(read_decisions(path))
            elif path.name not in own:
                wanted = f"a file that the page exported: {','.join(COLUMNS)}"
                notes.append(f"{path} is no file of decisions and is not read (expected {wanted})")
        elif suffix in (".xlsx", ".xls", ".ods", ".tsv", ".numbers") or ("decision" in name and path.is_file()):
            notes.append(f"{path} is no CSV and is not read (expected a file that the page exported)")
    return pd.concat(tables, ignore_index=True), notes


# what all of it comes to


@dataclass
class Word:
    """What one person holds of one photograph."""

    name: str = ""  # of the animal; or that there is none, PHOTO and a word of NOTHING
    week: int = 0  # in which, and when it was called so
    when: str = ""
    row: int = -1  # of the table
    ruled_out: dict[str, tuple[int, str]] = field(default_factory=dict)  # names, and when they were said
    skipped: bool = False


@dataclass(frozen=True, eq=False)
class Decisions:
    """All decisions so far, a row for each, of everybody and every week, in the order of their time."""

    rows: pd.DataFrame  # COLUMNS, and the week of the page
    names: Names = field(default_factory=Names)

    @staticmethod
    def none() -> Decisions:
        return Decisions(pd.DataFrame(columns=[*COLUMNS, "week"], dtype=str))

    @staticmethod
    def read(folder: Path) -> Decisions:
        """Those that lie in one folder of answers."""
        table = read_folder(folder)[0][list(COLUMNS)]
        table = table[table.decision.isin(KINDS) & (table.mark != "")]
        return Decisions(table.drop_duplicates().sort_values("time", kind="stable").reset_index(drop=True))

    def _standing(self) -> Iterator[tuple[int, Any, int]]:
        """The rows that nobody took back, each with its number and week.

        An undo names the time of what it takes back; of earlier versions it takes back the last of its person.
        """
        rows, said, gone = list(self.rows.itertuples()), {}, set()
        exact = {(row.mark, row.by, row.identity) for row in rows if row.decision == "undo" and row.identity}
        for number, row in enumerate(rows):
            own = said.setdefault((row.mark, row.by), [])
            if row.decision != "undo":
                if (row.mark, row.by, row.time) in exact:
                    gone.add(number)
                else:
                    own.append(number)
            else:
                gone.add(number)
                if not row.identity:
                    gone.update(own[-1:])
                    del own[-1:]
        weeks = self.rows.week.astype(int) if "week" in self.rows else [0] * len(rows)
        return ((number, row, week) for number, (row, week) in enumerate(zip(rows, weeks)) if number not in gone)

    @cached_property
    def words(self) -> dict[str, dict[str, Word]]:
        """By mark and person, the last word of each; names as they are called now."""
        told: dict[str, dict[str, Word]] = {}
        for number, row, week in self._standing():
            if row.identity.startswith(PHOTO):
                continue
            people = told.setdefault(row.mark, {})
            own = people.setdefault(row.by, Word())
            if row.decision == "no":
                until = (week, row.time)
                if own.name and self.names.at(own.name, row.mark, own.week, own.when, until) == row.identity:
                    own.name = ""  # thought again
                own.ruled_out[row.identity] = until
                continue
            name = PHOTO + row.decision if row.decision in NOTHING else row.identity
            own.name, own.skipped = name, row.decision == "skip"
            own.week, own.when, own.row = week, row.time, number
            own.ruled_out.pop(row.identity, None)
        for mark, people in told.items():
            for own in people.values():
                own.name = self.names.at(own.name, mark, own.week, own.when)
                own.ruled_out = {self.names.at(name, mark, *said): said for name, said in own.ruled_out.items()}
                own.ruled_out.pop(own.name, None)  # who were two names once
        return told

    @cached_property
    def _verdicts(self) -> dict[str, str | None]:
        """By mark, the name that more people hold than speak against it; None where they have come to no end."""
        found: dict[str, str | None] = {}
        for mark, people in self.words.items():
            held = Counter(own.name for own in people.values() if own.name)
            against = {
                name: sum(name in own.ruled_out or own.name not in ("", name) for own in people.values())
                for name in held
            }
            agreed = [name for name in held if held[name] > against[name]]
            outvoted = len(held) == 1 and not agreed and all(against[name] > held[name] for name in held)
            if held and not outvoted:
                found[mark] = agreed[0] if agreed else None
        return found

    @cached_property
    def last(self) -> pd.DataFrame:
        """The last word of each person on each photograph, yes or new with a name, unless it was taken back."""
        words = (own for people in self.words.values() for own in people.values())
        held = {own.row: own.name for own in words if own.name and not own.name.startswith(PHOTO)}
        rows = sorted(held)
        return self.rows.iloc[rows].assign(identity=[held[row] for row in rows])

    @cached_property
    def disputed(self) -> set[str]:
        """Marks of photographs that people name differently, or one as another says it is not."""
        return {mark for mark, name in self._verdicts.items() if name is None}

    @cached_property
    def nothing(self) -> dict[str, str]:
        """By mark, why a photograph will never have a name: it is blank, or unusable."""
        empty = {PHOTO + word: word for word in NOTHING}
        return {mark: empty[name] for mark, name in self._verdicts.items() if name in empty}

    @cached_property
    def skipped(self) -> set[str]:
        """Marks of photographs that somebody could not tell, and nobody else did."""
        return {
            mark
            for mark, people in self.words.items()
            if mark not in self._verdicts and any(own.skipped for own in people.values())
        }

    @cached_property
    def named(self) -> pd.DataFrame:
        """A row for each photograph that has a name, the last that says so."""
        agreed = self.last[self.last.identity == self.last.mark.map(self._verdicts)]
        return agreed.drop_duplicates("mark", keep="last").reset_index(drop=True)

    @cached_property
    def rejected(self) -> dict[str, set[str]]:
        """By mark, whom a photograph does not show, as more people say than hold the contrary."""
        found: dict[str, set[str]] = {}
        for mark, people in self.words.items():
            out = Counter(name for own in people.values() for name in own.ruled_out)
            held = Counter(own.name for own in people.values())
            if names := {name for name, count in out.items() if count > held[name]}:
                found[mark] = names
        return found

    def links(self, decision: str) -> list[tuple[str, str]]:
        """Marks of two photographs that, by the last word, show one new animal (yes) or do not (no)."""
        last: dict[tuple[str, str, str], str] = {}
        for _, row, _ in self._standing():
            if row.identity.startswith(PHOTO):
                last[row.mark, row.identity.removeprefix(PHOTO), row.by] = row.decision
        return [(mark, other) for (mark, other, _), said in last.items() if said == decision]

    def notes(self, known: Iterable[str]) -> list[str]:
        """What is to be said of these decisions beside a catalogue of `known` individuals."""
        said, last, known = [], self.last, set(known)
        fresh = last[last.decision == "new"]
        strange = last[(last.decision == "yes") & ~last.identity.isin({*known, *fresh.identity})]
        if len(strange):
            names = first_few(sorted(set(strange.identity)))
            said.append(
                f"{strange.mark.nunique()} photographs are confirmed as somebody whom the catalogue lacks: {names}"
            )
        several = fresh.groupby(
            self.rows.identity[fresh.index]
        ).by.nunique()  # as they said, for no merging is a chance
        if len(several := several[several > 1]):
            said.append(f"{len(several)} new animals were named by several people: {first_few(list(several.index))}")
        if len(old := fresh[fresh.identity.isin(known)]):
            names = first_few(sorted(set(old.identity)))
            said.append(f"{old.mark.nunique()} photographs are called new under a name of the catalogue: {names}")
        if self.disputed:
            images = self.rows[self.rows.mark.isin(self.disputed)].drop_duplicates("mark").image
            said.append(
                f"{len(self.disputed)} photographs are named differently, and asked for again: {first_few(images)}"
            )
        return [*said, *alike_names({*known, *last.identity})]


def alike_names(names: Iterable[str]) -> list[str]:
    """What is to be said of names that differ by capitals alone."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        groups.setdefault(name.casefold(), []).append(name)
    return [
        f"{' and '.join(map(repr, group))} are taken for different animals; if they are one, "
        f"put merge,{group[1]},{group[0]}, into {INDIVIDUALS}"
        for group in groups.values()
        if len(group) > 1
    ]


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
