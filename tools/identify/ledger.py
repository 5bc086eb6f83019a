"""The ledger of sightings: which pictures there were, and what was said of each; it only grows, week by week.

Every row says one thing of one picture: that it belongs to the catalogue, that it was asked for and what was answered,
what a person said of it; or that an individual was renamed, merged or split. Whatever is known of a season, who was
seen when and where, what is still open, is worked out from these rows.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaguar_kit import KitError, damaged, first_few, suggest, write_table

from .animals import notes_on_parts, with_animal_marks
from .confidence import FRESH, LOOK, SURE
from .decisions import COLUMNS, KINDS, SETTINGS, Decisions, earlier_settings, read_decisions, read_folder
from .facts import with_facts
from .individuals import ACTS, INDIVIDUALS, ISO, Act, Names, acts_of, read_individuals
from .marks import COMPRESSED, mark_of, picture_mark, with_picture_marks
from .photographs import Photographs, Placed
from .season import Season
from .written import FOR_SPREADSHEETS, MARK, PHOTO, read_written

LEDGER = "ledger.csv"
FACTS = (  # that are kept of an animal on a picture; box: where it is; picture: its mark, where the animal has another
    "taken", "camera", "station", "latitude", "longitude", "flank", "orientation", "species", "box", "picture",
)  # fmt: skip
KNOWN, ASKED, FOUND, ASIDE = "catalogue", "asked", "found", "aside"  # what a row says, beside decisions and acts
ENTRY = (
    "week", "answers", "said", "mark", "name", "to", "basis", "probability", "who", "when", "image", "root",
    *FACTS, "file_mark",
)  # fmt: skip
NEEDED = ("week", "said", "mark", "name", "basis", "who", "when", "image", "root")  # what every version tells
PERSON = "person"  # a basis of sightings, beside sure and catalogue
DONE = "was done before, and is not done again"


# the ledger


@dataclass(frozen=True, eq=False)
class Ledger:
    """All that was said of pictures, a row for each thing, in the order in which it was said."""

    entries: pd.DataFrame  # of the columns ENTRY, text but for the week
    week: int = 1  # that is being answered
    answers: str = ""  # the folder where its answers go

    # views

    @cached_property
    def names(self) -> Names:
        """What individuals are called now."""
        acts: dict[tuple, list[str]] = {}
        for row in self.acts.itertuples():
            acts.setdefault((row.week, row.said, row.name, row.to, row.when), []).append(row.mark)
        return Names(tuple(Act(*key[:4], frozenset(marks) - {""}, key[4]) for key, marks in acts.items()))

    @cached_property
    def acts(self) -> pd.DataFrame:
        """The rows by which individuals were renamed, merged and split, without those that were taken back."""
        back = self.entries[(self.entries.said == "undo") & (self.entries.mark == "")]
        gone = set(zip(back.who, back.name))
        rows = self.entries[self.entries.said.isin(ACTS)]
        return rows[np.array([pair not in gone for pair in zip(rows.who, rows.when)], bool)]

    @cached_property
    def decisions(self) -> Decisions:
        """What people said."""
        rows = self.entries[self.entries.said.isin(KINDS) & (self.entries.mark != "")]
        table = rows.sort_values("when", kind="stable")
        table = table.rename(columns={"said": "decision", "name": "identity", "who": "by", "when": "time"})
        return Decisions(table[[*COLUMNS, "week"]].reset_index(drop=True), self.names)

    @cached_property
    def pictures(self) -> pd.DataFrame:
        """A row for each picture, by its mark: where it lay last, and all that was ever known of it."""
        rows = self.entries[~self.entries.said.isin(ACTS) & (self.entries.mark != "")]
        told = rows[["mark", "image", "root", *FACTS, "file_mark"]]
        by_page = rows.said.isin(KINDS)  # which tells no more than what it was made of
        told = pd.concat([told[by_page], told[~by_page]])
        told = told.where(told != "").groupby("mark", sort=False).last().fillna("").astype(str)
        return told.loc[rows.mark.unique()]

    @cached_property
    def known_by_file(self) -> dict[str, str]:
        """Marks of pictures by those of their files, where one file's mark stands for one picture."""
        rows = self.entries[(self.entries.file_mark != "") & (self.entries.file_mark != self.entries.mark)]
        rows = rows[rows.said != ASIDE].assign(mark=rows.mark.where(rows.picture == "", rows.picture))
        told = rows.drop_duplicates(["file_mark", "mark"])
        return dict(zip(*told.drop_duplicates("file_mark", keep=False)[["file_mark", "mark"]].to_numpy().T))

    @cached_property
    def catalogue(self) -> dict[str, str]:
        """The individuals of the catalogue by the marks of its pictures, as they are called now."""
        rows = self.entries[self.entries.said == KNOWN]
        return {row.mark: self.names.at(row.name, row.mark) for row in rows[["mark", "name"]].itertuples()}

    @cached_property
    def sure(self) -> dict[str, str]:
        """Sure answers that nothing speaks against, by mark: neither a person, nor a later answer of another name."""
        found: dict[str, str] = {}
        rows = self.entries[self.entries.said == ASKED]
        for row in rows[["week", "mark", "name", "basis"]].itertuples():
            name = self.names.at(row.name, row.mark, row.week)
            if row.basis == SURE:
                found[row.mark] = name
            elif row.basis == FRESH or found.get(row.mark) != name:
                found.pop(row.mark, None)
        out, others = self.decisions.rejected, {*self.decisions.disputed, *self.decisions.nothing}
        return {m: name for m, name in found.items() if m not in others and name not in out.get(m, ())}

    @cached_property
    def sightings(self) -> pd.DataFrame:
        """A row for each picture whose animal is known, by the catalogue, a person, or a sure answer."""
        named = dict(zip(self.decisions.named.mark, self.decisions.named.identity))
        basis = {**dict.fromkeys(self.sure, SURE), **dict.fromkeys(named, PERSON)}
        basis = {**basis, **dict.fromkeys(self.catalogue, KNOWN)}
        identity = {**self.sure, **named, **self.catalogue}
        marks = [mark for mark in self.pictures.index if mark in identity]
        table = self.pictures.loc[marks].reset_index()
        last = self._last_word(identity)
        who, when, week = zip(*(last.get(mark, ("", "", "")) for mark in marks)) if marks else ((), (), ())
        table = table.assign(
            identity=table.mark.map(identity), basis=table.mark.map(basis), occasion=table.taken.str[:10],
            who=who, when=when, week=week, history=table.mark.map(self.history),
        )  # fmt: skip
        first = ["identity", "occasion", "taken", "camera", "latitude", "longitude", "image", "basis"]
        return table[
            [
                *first,
                "station",
                "flank",
                "orientation",
                "species",
                "mark",
                "box",
                "picture",
                "who",
                "when",
                "week",
                "root",
                "history",
            ]
        ]

    def _last_word(self, identity: Mapping[str, str]) -> dict[str, tuple[str, str, str]]:
        """By mark, who said last that the picture shows this animal, when, and in which week."""
        found = {}
        for row in self.entries[["week", "said", "mark", "name", "basis", "who", "when"]].itertuples():
            if row.mark in identity and (row.said in ("yes", "new", KNOWN) or row.basis == SURE):
                since = 0 if row.said == KNOWN else row.week
                if self.names.at(row.name, row.mark, since, row.when) == identity[row.mark]:
                    found[row.mark] = (row.who, row.when, str(row.week))
        return found

    @cached_property
    def history(self) -> dict[str, str]:
        """By mark, all that was said of a picture, in words."""
        acts = []
        for row in self.acts.itertuples():
            by = f" by {row.who}" if row.who else ""
            acts.append((row, f"week {row.week}: {row.said} {row.name} to {row.to}{by}"))
        lines: dict[str, list[tuple[int, str]]] = {}
        called: dict[str, set[str]] = {}
        for row in self.entries.itertuples():
            if row.said in (*ACTS, FOUND, ASIDE) or not row.mark:
                continue
            what = f"{row.basis} {row.name} {row.probability}" if row.said == ASKED else f"{row.said} {row.name}"
            what = "undo" if row.said == "undo" else what
            by = f" by {row.who}" if row.who else ""
            lines.setdefault(row.mark, []).append((row.week, f"week {row.week}: {' '.join(what.split())}{by}"))
            called.setdefault(row.mark, set()).add(row.name)
        for mark, own in lines.items():
            for act, words in acts:
                if act.name in called[mark] and act.mark in ("", mark):
                    own.append((act.week, words))
                    called[mark].add(act.to)
        return {
            mark: "; ".join(words for _, words in sorted(own, key=lambda one: one[0])) for mark, own in lines.items()
        }

    @cached_property
    def open(self) -> dict[str, str]:
        """Photographs that are not settled, by mark: disputed, skipped, or undecided; sure answers are no question."""
        settled = {*self.decisions.named.mark, *self.decisions.nothing, *self.catalogue, *self.sure}
        asked = dict.fromkeys(self.entries.mark[self.entries.said == ASKED])
        words, apart = self.decisions, self.whole(self.pictures.picture)  # whose animals are asked for one by one
        return {
            mark: "disputed" if mark in words.disputed else "skipped" if mark in words.skipped else "undecided"
            for mark in [*asked, *sorted(words.disputed - asked.keys())]
            if mark not in apart and (mark not in settled or (mark in words.skipped and mark in self.sure))
        }

    @cached_property
    def seen_beside(self) -> pd.DataFrame:
        """The photographs that were asked for and whose animal nobody knows for certain: all but people's and known."""
        settled = {*self.catalogue, *self.decisions.named.mark}
        rest = [mark for mark in self.entries.mark[self.entries.said == ASKED].unique() if mark not in settled]
        return self.pictures.loc[rest].reset_index()

    def animals(self, marks: Iterable[str] | None = None) -> dict[str, list[tuple[str, str]]]:
        """By picture, the marks and boxes of the animals that were known there; marks: of these alone."""
        found: dict[str, list[tuple[str, str]]] = {}
        marks = set(self.entries.mark[self.entries.said != ASIDE] if marks is None else marks)
        for row in self.pictures[self.pictures.index.isin(marks)].itertuples():
            found.setdefault(row.picture or row.Index, []).append((row.Index, row.box))
        return found

    def whole(self, marks: Iterable[str]) -> set[str]:
        """Those of these marks that stand for a whole picture here."""
        return set(marks) & set(self.pictures.index[self.pictures.box == ""])

    # how it grows

    def grown(self, rows: Sequence[Mapping[str, Any]]) -> Ledger:
        """With further rows; what they do not tell is empty."""
        if not rows:
            return self
        usual = {**dict.fromkeys(ENTRY, ""), "week": self.week, "answers": self.answers}
        more = pd.DataFrame([{**usual, **row} for row in rows])[list(ENTRY)]
        return replace(self, entries=pd.concat([self.entries, more], ignore_index=True).astype({"week": int}))

    def with_decisions(self, table: pd.DataFrame, week: int, answers: str) -> Ledger:
        """With decisions on photographs that it lacks, made on the page of a week."""
        table = table[table.decision.isin(KINDS) & (table.mark != "")]
        table = table.assign(**_with_marks(table, self.known_by_file)) if len(table) else table
        key = ["mark", "decision", "identity", "by", "time"]
        there = set(map(tuple, self.decisions.rows[key].to_numpy()))
        fresh = [
            row for row in table.drop_duplicates(key).to_dict("records") if tuple(row[k] for k in key) not in there
        ]
        return self.grown(
            [
                {
                    "week": week, "answers": answers, "said": row["decision"], "mark": row["mark"],
                    "name": row["identity"], "basis": PERSON, "who": row["by"], "when": row["time"],
                    "image": row["image"], "root": row["root"], "file_mark": row.get("file_mark", ""),
                }
                for row in fresh
            ]
        )  # fmt: skip

    def with_individuals(
        self, table: pd.DataFrame, week: int, answers: str, refuse: bool = True
    ) -> tuple[Ledger, list[str]]:
        """With individuals renamed, merged and split, each act once; and what is to be said of it.

        refuse: KitError where one can't be done, which is left out and told otherwise.
        """
        ledger, notes = self, []
        rows = self.entries[self.entries.said.isin(ACTS)]
        done = set(zip(rows.said, rows.name, rows.to, rows.mark, rows.when))
        for row in table.to_dict("records"):
            act = (row["action"], row["from"], row["to"])
            marks = [mark for mark in row["marks"] or ("",) if (*act, mark, row["time"]) not in done]
            if not marks:
                notes.append(f"{row['where']}: {DONE}")
                continue
            try:
                ledger._check_act(row)
            except KitError as error:
                if refuse:
                    raise
                notes.append(f"not done: {error}")
                continue
            told = {"week": week, "answers": answers, "said": act[0], "name": act[1], "to": act[2]}
            told |= {"basis": PERSON, "who": row["by"], "when": row["time"]}
            before = (ledger.sightings.identity == act[1]).sum()
            ledger = ledger.grown([{**told, "mark": mark} for mark in marks])
            moved = before - (ledger.sightings.identity == act[1]).sum()
            notes.append(f"{act[0]}: {act[1]!r} to {act[2]!r}, with {moved} sightings")
        return ledger, notes

    def with_acts_of_pages(self, table: pd.DataFrame, week: int) -> tuple[Ledger, list[str]]:
        """With what decisions of pages say of individuals, in the order of time; and what is to be said of it."""
        acts, back = acts_of(table)
        there = set(zip(self.acts.who, self.acts.when))
        rows = [{"said": "undo", "week": week, "name": when, "who": who} for who, when in sorted(back & there)]
        left = acts[np.array([pair not in back for pair in zip(acts.by, acts.time)], bool)]
        ledger, notes = self.grown(rows).with_individuals(left, week, self.answers, refuse=False)
        notes += [f"{row['name']}: what {row['who']} did to individuals then is taken back" for row in rows]
        return ledger, [note for note in notes if not note.endswith(DONE)]

    def _check_act(self, row: Mapping[str, Any]) -> None:
        """KitError where an individual can't be renamed, merged or split so."""
        seen, last = self.sightings, self.decisions.last
        if ISO.match(row["time"]):  # what was said later may have the new name already
            seen, last = seen[~(seen.when > row["time"])], last[~(last.time > row["time"])]
        named = {*seen.identity, *last.identity}
        if row["from"] not in named:
            raise KitError(f"{row['where']}: from: {row['from']!r} is nobody here; {suggest(row['from'], named)}")
        if row["action"] == "merge" and row["to"] not in named:
            raise KitError(f"{row['where']}: to: {row['to']!r} is nobody here; {suggest(row['to'], named)}")
        if row["action"] == "rename" and row["to"] in named:
            raise KitError(f"{row['where']}: to: {row['to']!r} is another animal already (expected action merge)")
        own = {*self.sightings.mark[self.sightings.identity == row["from"]]}
        own |= {
            mark for mark, people in self.decisions.words.items() if row["from"] in {w.name for w in people.values()}
        }
        if strange := [mark for mark in row["marks"] if mark not in own]:
            raise KitError(f"{row['where']}: marks: {strange[0]!r} is no picture of {row['from']!r}")

    def with_file_marks(self, known: Mapping[str, str]) -> Ledger:
        """With marks of pictures in place of those of files, which an earlier version had; known: one by the other."""
        if not set(self.entries.mark) & known.keys() - set(known.values()):
            return self
        old = self.entries.mark
        entries = self.entries.assign(
            mark=old.map(lambda mark: known.get(mark, mark)),
            name=_translated_links(self.entries.name, known),
            file_mark=self.entries.file_mark.where((self.entries.file_mark != "") | ~old.isin(list(known)), old),
        )
        return replace(self, entries=entries)

    def with_season(self, season: Season, answers: pd.DataFrame) -> Ledger:
        """With the catalogue's pictures, where that is news, answers for new ones, and those that were set aside."""
        catalogue, new = season.shelf.albums[0], season.new
        where = str(catalogue.root.resolve())
        latest = {}
        for row in self.entries[self.entries.said == KNOWN].itertuples():
            latest[row.mark] = (row.name, row.root, row.image, *(getattr(row, fact) for fact in FACTS))
        rows = []
        for row in _facts(catalogue.table).to_dict("records"):
            told = (row["called"], where, row["path"], *(row[fact] for fact in FACTS))
            if row["mark"] and latest.get(row["mark"]) != told:
                facts = {key: row[key] for key in (*FACTS, "mark", "file_mark")}
                rows.append(
                    {**facts, "said": KNOWN, "name": row["called"], "basis": KNOWN, "image": row["path"], "root": where}
                )
                latest[row["mark"]] = told
        earlier = self.pictures
        for row, kind, name, probability in zip(
            _facts(new.table).drop_duplicates("mark").to_dict("records"),
            *(answers.drop_duplicates("mark")[key] for key in ("class", "identity", "probability")),
        ):
            facts = {key: row[key] for key in (*FACTS, "mark", "file_mark")}
            image, there = row["path"], str(new.root.resolve())
            if image.startswith("..") and row["mark"] in earlier.index:  # of another week's folder
                image, there = earlier.loc[row["mark"], ["image", "root"]]
            told = {"said": ASKED, "name": name, "basis": kind, "image": image, "root": there}
            rows.append({**facts, **told, "probability": "" if pd.isna(probability) else f"{probability:.4f}"})
        known = set(self.entries.mark[self.entries.said == ASIDE])
        for row, why in zip(_facts(season.aside).to_dict("records"), season.aside.why):
            if row["mark"] and row["mark"] not in known:
                told = {"said": ASIDE, "basis": why, "image": row["path"], "root": str(new.root.resolve())}
                rows.append({**{key: row[key] for key in (*FACTS, "mark", "file_mark")}, **told})
        return self.grown(rows)

    def notes_since(self, sure: Mapping[str, str]) -> list[str]:
        """What is to be said of names that were sure before, and are so no longer."""
        gone = [mark for mark in sure if mark not in {*self.sure, *self.catalogue, *self.decisions.named.mark}]
        images = first_few([str(self.pictures.image[mark]) for mark in gone])
        return [f"{len(gone)} photographs that had a sure name are answered otherwise now: {images}"] if gone else []

    def with_places(self, root: Path, found: pd.DataFrame) -> Ledger:
        """With pictures as they were found now, though not asked for: where they lie, and what their files tell."""
        there, before, rows = str(root.resolve()), self.pictures, []
        for row in _facts(found).drop_duplicates("mark").to_dict("records"):
            told = {**{key: row[key] for key in ("mark", *FACTS, "file_mark")}, "image": row["path"], "root": there}
            old = before.loc[row["mark"]] if row["mark"] in before.index else {}
            if any(value and old.get(key) != value for key, value in told.items() if key != "mark"):
                rows.append({**told, "said": FOUND})
        return self.grown(rows)

    def write(self, path: Path) -> None:
        write_table(path, self.entries, FOR_SPREADSHEETS)


def _facts(table: pd.DataFrame) -> pd.DataFrame:
    """The facts of photographs that a ledger keeps, "" where nobody tells."""
    columns = ("path", "mark", "file_mark", "called", *FACTS)
    table = table.reindex(columns=columns).astype(object)
    return table.where(table.notna(), "").astype(str)


def _with_marks(table: pd.DataFrame, known: Mapping[str, str]) -> dict[str, pd.Series]:
    """Marks of pictures for decisions that have those of files."""
    return {
        "file_mark": table.mark.where(table.mark.isin(list(known)), ""),
        "mark": table.mark.map(lambda mark: known.get(mark, mark)),
        "identity": _translated_links(table.identity, known),
    }


def _translated_links(names: pd.Series, known: Mapping[str, str]) -> pd.Series:
    """Names, of which those that link to another photograph have the mark of its picture for that of its file."""
    other = names.str.removeprefix(PHOTO)
    linked = (other != names) & other.isin(list(known))
    return names.where(~linked, PHOTO + other.map(lambda mark: known.get(mark, mark)))


def read_ledger(path: Path) -> pd.DataFrame:
    """The rows of a ledger that the kit wrote; KitError where it is damaged."""
    remedy = "take it from a copy of that folder; it is the only one that has all sightings"
    table = read_written(path, NEEDED)
    if missing := [name for name in NEEDED if name not in table]:
        raise damaged(path, f"column {missing[0]!r} is missing", remedy)
    for number, row in enumerate(table.itertuples(), 2):
        if row.said not in (KNOWN, ASKED, FOUND, ASIDE, *KINDS, *ACTS):
            raise damaged(path, f"line {number}: said: {row.said!r}", remedy)
        if not (MARK.fullmatch(row.mark) or (row.said in ("rename", "merge", "undo") and not row.mark)):
            raise damaged(path, f"line {number}: mark: {row.mark!r}", remedy)
        if not re.fullmatch(r"\d{1,6}", row.week):
            raise damaged(path, f"line {number}: week: {row.week!r}", remedy)
    return table.reindex(columns=list(ENTRY), fill_value="").astype({"week": int})


# from one week to the next


def weeks_until(previous: Path) -> tuple[list[tuple[int, Path, dict[str, Any]]], str]:
    """The folders of answers up to one, the oldest first, each with its week and settings; and one that has gone."""
    found, folder, gone = [], previous, ""
    while True:
        settings = earlier_settings(folder)
        found.append((folder, settings))
        before = settings.get("previous")
        if before is None:
            break
        folder = next((f for f in (Path(before), folder.parent / Path(before).name) if (f / SETTINGS).is_file()), None)
        if folder is None or folder.resolve() in {one.resolve() for one, _ in found}:
            gone = before
            break
    weeks, number = [], 0
    for folder, settings in reversed(found):
        number = settings.get("week") or number + 1
        weeks.append((number, folder, settings))
    return weeks, gone


def open_ledger(previous: Path | None, more: Sequence[Path], out: Path) -> tuple[Ledger, list[str]]:
    """The ledger of an earlier folder of answers, with all that people said since; and what is to be said of it.

    Where that folder has none, as those of an earlier version, it is made of its answers and of those before.
    """
    ledger = Ledger(pd.DataFrame(columns=list(ENTRY)).astype({"week": int}), 1, out.name)
    weeks, gone = weeks_until(previous) if previous is not None else ([], "")
    notes, newest, tables = [], weeks[-1][0] if weeks else 0, []
    kept = max((i for i, (_, folder, _) in enumerate(weeks) if (folder / LEDGER).exists()), default=-1)
    if kept >= 0:
        ledger = replace(ledger, entries=read_ledger(weeks[kept][1] / LEDGER))
    elif gone:
        notes.append(
            f"{gone}, the answers before {weeks[0][1]}, are no longer there; their sightings are not taken over"
        )
    for i, (week, folder, settings) in enumerate(weeks):
        table, said = read_folder(folder, settings.get("tables") or ())
        tables.append(table)
        notes += said
        if i > kept:
            ledger = taken_over(ledger, week, folder, settings, table)
        count = len(ledger.entries)
        ledger = ledger.with_decisions(table, week, folder.name)
        if i < len(weeks) - 1 and i <= kept and len(ledger.entries) > count:
            notes.append(f"{len(ledger.entries) - count} decisions were put into {folder} later, and count too")
    for path in more:
        tables.append(read_decisions(path))
        ledger = ledger.with_decisions(tables[-1], newest, path.parent.name)
    ledger = with_pixels(ledger)
    for _, folder, _ in weeks:
        if (folder / INDIVIDUALS).exists():
            ledger, said = ledger.with_individuals(read_individuals(folder / INDIVIDUALS), newest, folder.name)
            notes += said if folder == previous else [note for note in said if not note.endswith(DONE)]
    if tables:
        ledger, said = ledger.with_acts_of_pages(pd.concat(tables, ignore_index=True), newest)
        notes += said
    return replace(ledger, week=newest + 1), notes


def taken_over(ledger: Ledger, week: int, folder: Path, settings: Mapping[str, Any], decided: pd.DataFrame) -> Ledger:
    """The ledger with the catalogue and the answers of a folder that has no ledger."""

    def table_of(name: str) -> pd.DataFrame:
        found = read_written(folder / name, ()) if (folder / name).is_file() else pd.DataFrame()
        return found if {"mark", "taken"} <= set(found) else pd.DataFrame(columns=["mark", "path", "identity"])

    named = set(decided.mark[decided.decision.isin(("yes", "new"))])
    known = table_of("catalogue.csv")
    known = known[~known.mark.isin(named) & known.mark.map(lambda mark: bool(MARK.fullmatch(mark)))]
    source = Path(settings.get("catalogue") or "")
    there = set(ledger.entries.mark[ledger.entries.said == KNOWN])
    about = {"week": week, "answers": folder.name}
    root = str(source.parent if source.suffix.lower() == ".csv" else source)
    rows = [
        {**about, **row, "said": KNOWN, "name": row["identity"], "basis": KNOWN, "image": row["path"], "root": root}
        for row in known.to_dict("records") if row["mark"] not in there
    ]  # fmt: skip
    answers = table_of("answers.csv")
    answers = answers[answers.mark.map(lambda mark: bool(MARK.fullmatch(mark)))]
    places = _places(folder / "captures.csv")
    for row in answers.to_dict("records"):
        told = {"said": ASKED, "name": row["identity"], "basis": row.get("class", LOOK)}
        told |= {"root": settings.get("root") or settings.get("queries") or "", **places.get(row["image"], {})}
        rows.append({**about, **row, **told})
    rows = [{**{key: row[key] for key in ENTRY if key in row}, "file_mark": row["mark"]} for row in rows]
    return ledger.grown(rows)


def _places(path: Path) -> dict[str, dict[str, str]]:
    """Coordinates of the images in captures.csv of an earlier version."""
    table = read_written(path, ()) if path.is_file() else pd.DataFrame()
    if not {"image", "latitude", "longitude"} <= set(table):
        return {}
    return table.drop_duplicates("image").set_index("image")[["latitude", "longitude"]].to_dict("index")


def with_pixels(ledger: Ledger) -> Ledger:
    """The ledger with marks of pictures in place of those of files, where these still lie where they were."""
    told = ledger.entries[(ledger.entries.file_mark != "") & (ledger.entries.file_mark != ledger.entries.mark)]
    found, rows = {}, []
    for picture in ledger.pictures.loc[lambda t: ~t.index.isin(set(told.mark))].itertuples():
        file = Path(picture.root) / picture.image
        if picture.root and file.is_file() and mark_of(file) == picture.Index:
            found[picture.Index] = picture_mark(file)
            rows.append({**_as_kept(picture), "mark": found[picture.Index], "file_mark": picture.Index})
    ledger = ledger.with_file_marks(found)
    for folder, own in _by_folder(rows):
        ledger = ledger.with_places(folder, own)
    return ledger


def where_it_lies(row: Any) -> Path | None:
    """The file of a picture, if it still lies where it lay last."""
    file = Path(row.root) / row.image
    if not row.root or not file.is_file():
        return None
    if file.suffix.lower() in COMPRESSED and mark_of(file) == row.file_mark:
        return file
    return file if picture_mark(file) == (row.picture or row.Index) else None


def with_moved_folders(ledger: Ledger) -> tuple[Ledger, list[str]]:
    """The ledger with folders of photographs that were renamed since, and lie beside where they lay, and notes."""
    notes = []
    for root, own in ledger.pictures.groupby("root"):
        folder = Path(root)
        if not root or folder.is_dir() or not folder.parent.is_dir():
            continue
        for other in sorted(path for path in folder.parent.iterdir() if path.is_dir()):
            there = own.assign(root=str(other))
            if any(where_it_lies(picture) for picture in there.head(3).itertuples()):
                ledger = ledger.with_places(other, there.reset_index().rename(columns={"image": "path"}))
                notes.append(f"{folder} is called {other} now")
                break
    return ledger, notes


def take_up(ledger: Ledger, found: Photographs) -> tuple[Ledger, Photographs]:
    """The photographs of a week with what the ledger knows: marks of pictures, present names, who is named, who open.

    Photographs of earlier weeks are known again by their pixels, wherever they lie now. Those that are settled are not
    asked for again, but join the catalogue; those that are not are asked for until they are.
    """
    (known_root, known), (root, asked) = found.known, found.asked
    known = with_picture_marks(known_root, known, ledger.known_by_file)
    asked = with_picture_marks(root, asked, ledger.known_by_file)
    aside = with_picture_marks(root, found.aside, ledger.known_by_file)
    of_catalogue = set(ledger.entries.mark[ledger.entries.said == KNOWN])
    known, _ = with_animal_marks(known, ledger.animals(of_catalogue), True)
    asked, parted = with_animal_marks(asked, ledger.animals(), False)
    asked, aside = (asked, aside) if found.every else _without_aside(ledger, asked, aside)
    tables = pd.concat([known[["file_mark", "mark"]], asked[["file_mark", "mark"]]]).drop_duplicates()
    single = tables[(tables.file_mark != "")].drop_duplicates("file_mark", keep=False)
    ledger = ledger.with_file_marks(dict(zip(single.file_mark, single.mark)))
    known = known.assign(called=known.identity)
    known["identity"] = [ledger.names.at(name, mark) for name, mark in zip(known.identity, known.mark)]
    notes = [*found.notes, *notes_on_parts(parted), *notes_on_catalogue(ledger, known_root, known)]
    if len(copies := asked[asked.mark.isin(set(known.mark) - {""})]):
        notes.append(f"{len(copies)} photographs are pictures of the catalogue as well: {first_few(list(copies.path))}")
    notes += ledger.decisions.notes(known.identity)
    ledger, moved = with_moved_folders(ledger)
    notes += moved
    grown, lost = _named_since(ledger, known, root, asked)
    for folder, own in grown:
        ledger = ledger.with_places(folder, own)
    empty = asked.mark.isin(list(ledger.decisions.nothing))
    if empty.any():
        notes.append(f"{empty.sum()} photographs show no animal or are unusable, as people said, and are not asked for")
    settled = asked.mark.isin(set(ledger.decisions.named.mark)) | empty
    asked = asked[~settled].reset_index(drop=True)
    again, told = _open_still(ledger, known, root, asked)
    asked = pd.concat([asked, again], ignore_index=True).fillna("") if len(again) else asked
    if asked.empty:
        raise KitError(
            f"--queries: {root}: all of its photographs are decided (expected new ones; --close ends a season without)"
        )
    if lost:
        notes.append(f"{lost} photographs that were named are no longer where they were; their sightings are kept")
    if count := sum(len(table) for _, table in grown):
        notes.append(f"the catalogue grows by {count} photographs that were named; they are not asked for again")
    return ledger, Photographs((known_root, known), grown, (root, asked), [*notes, *told], aside)


def _without_aside(ledger: Ledger, asked: pd.DataFrame, aside: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is asked for, and what is set aside, with whole photographs that were set aside in an earlier week."""
    entries = ledger.entries
    why = dict(entries.loc[entries.said == ASIDE, ["mark", "basis"]].to_numpy())
    again = asked.mark.isin(why.keys() - set(entries.mark[entries.said == ASKED])) & (asked.box == "")
    before = asked[again]
    before = before.assign(why=[why[mark] for mark in before.mark], sure="")
    return asked.drop(before.index).reset_index(drop=True), pd.concat([aside, before], ignore_index=True).fillna("")


def notes_on_catalogue(ledger: Ledger, root: Path, known: pd.DataFrame) -> list[str]:
    """What is to be said of a catalogue beside what is known of earlier weeks; known: with `called`, as it says."""
    notes = []
    other = known[known.called != known.identity]
    for called, name in dict.fromkeys(zip(other.called, other.identity)):
        count = ((other.called == called) & (other.identity == name)).sum()
        notes.append(f"{root}: {count} pictures of {called!r} count as {name!r}, as {INDIVIDUALS} says")
    several = known[known.mark != ""].groupby("mark").identity.nunique()
    if len(several := several[several > 1]):
        images = known.path[known.mark.isin(several.index)]
        notes.append(f"{root}: {len(several)} pictures are there under several names: {first_few(list(images))}")
    now = dict(zip(known.mark, known.identity))
    named = ledger.decisions.named
    contrary = named[[name != now.get(mark, name) for mark, name in zip(named.mark, named.identity)]]
    if len(contrary):
        images = first_few(list(contrary.image))
        notes.append(
            f"{len(contrary)} photographs are in the catalogue under another name than people gave them: {images}"
        )
    before = ledger.catalogue
    moved: dict[tuple[str, str], int] = {}
    for mark, name in now.items():
        if before.get(mark, name) != name:
            moved[before[mark], name] = moved.get((before[mark], name), 0) + 1
    people = set(ledger.decisions.last.identity)
    for (old, new), count in moved.items():
        words = f"{root}: {count} pictures of {old!r} lie under {new!r} now"
        left = old in people and old not in set(known.identity)
        notes.append(
            words + (f"; put merge,{old},{new}, into {INDIVIDUALS} to take its other sightings along" if left else "")
        )
    if gone := len(before.keys() - now.keys()):
        notes.append(
            f"{root}: {gone} pictures of earlier weeks are no longer in the catalogue; their sightings are kept"
        )
    return notes


def _by_folder(rows: Sequence[Mapping[str, str]]) -> list[Placed]:
    """Tables of pictures with what their files tell, by their folders; rows with path, root, mark and more."""
    tables: list[Placed] = []
    for folder, own in pd.DataFrame(rows).fillna("").groupby("root", sort=False) if rows else ():
        own = own.drop(columns=["root"]).reset_index(drop=True)
        found = with_facts(Path(folder), own.assign(filename=own.path))[0]
        tables.append((Path(folder), found.assign(mark=own.mark)))
    return tables


def _as_kept(picture: Any) -> dict[str, str]:
    """A picture of the ledger, as a row for `_by_folder`."""
    facts = {name: getattr(picture, name) for name in FACTS if getattr(picture, name)}
    told = {"path": picture.image, "root": picture.root, "mark": picture.Index, "file_mark": picture.file_mark}
    return {**facts, **told}


def _named_since(ledger: Ledger, known: pd.DataFrame, root: Path, asked: pd.DataFrame) -> tuple[list[Placed], int]:
    """Tables of photographs that people named, by their folders, and how many are no longer there."""
    here = asked.drop_duplicates("mark").set_index("mark")
    rows, gone, there = [], 0, set(known.mark)
    named = dict(zip(ledger.decisions.named.mark, ledger.decisions.named.identity))
    for picture in ledger.pictures.loc[[mark for mark in named if mark not in there]].itertuples():
        mark = picture.Index
        if mark in here.index:
            rows.append({**here.loc[mark].to_dict(), "root": str(root), "mark": mark, "identity": named[mark]})
        elif where_it_lies(picture):
            rows.append({**_as_kept(picture), "identity": named[mark]})
        else:
            gone += 1
    return _by_folder(rows), gone


def _open_still(ledger: Ledger, known: pd.DataFrame, root: Path, asked: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A table of photographs of earlier weeks that are not settled and not asked for yet, and what is to be said."""
    here = {*asked.mark, *known.mark, *ledger.whole(asked.picture)}
    waiting = {mark: why for mark, why in ledger.open.items() if mark not in here}
    pictures = list(ledger.pictures.loc[list(waiting)].itertuples())
    there = [picture for picture in pictures if where_it_lies(picture)]
    lying = {picture.Index for picture in there}
    gone = [picture for picture in pictures if picture.Index not in lying]
    tables, notes = [], []
    for folder, own in _by_folder([_as_kept(picture) for picture in there]):
        way = os.path.relpath(os.path.realpath(folder), os.path.realpath(root))
        tables.append(own.drop(columns="filename").assign(path=[os.path.join(way, path) for path in own.path]))
    if there:
        why = counted(waiting[picture.Index] for picture in there)
        notes.append(f"{len(there)} photographs of earlier weeks are asked for again: {why}")
    if gone:
        why, images = counted(waiting[picture.Index] for picture in gone), first_few([one.image for one in gone])
        notes.append(f"{len(gone)} open photographs of earlier weeks ({why}) are no longer where they were: {images}")
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(), notes


def counted(words: Iterable[str]) -> str:
    """How often each of these words is there: "2 disputed, 1 skipped"."""
    counts = Counter(words)
    return ", ".join(f"{counts[word]} {word}" for word in sorted(counts, key=lambda word: (-counts[word], word)))
