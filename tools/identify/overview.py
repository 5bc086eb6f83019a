"""A page over all weeks of a ledger, on which every decision can be corrected, settled, and asked again."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
from jaguar_kit import core_count, progress

from .decisions import Decisions
from .ledger import ASKED, Ledger, where_it_lies
from .review import address, page_mark, picture_of, pictures_by_animal

MOST_OF_ANIMAL = 60  # pictures of the catalogue, beside all sightings
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True, eq=False)
class Earlier:
    """The pages of earlier weeks: what each showed of a photograph, and where its pictures are."""

    items: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = field(default_factory=dict)  # week, its own, all
    pictures: dict[str, tuple[Path, dict[str, Any]]] = field(default_factory=dict)  # of photographs and the catalogue
    met: dict[str, dict[str, Any]] = field(default_factory=dict)  # encounters, as the first page told them

    @staticmethod
    def of(weeks: Sequence[tuple[int, Path]]) -> Earlier:
        """weeks: number and folder, the oldest first; what a later page shows goes before."""
        found = Earlier()
        for week, folder in weeks:
            page = folder / "review.html"
            told = DATA.search(page.read_text(encoding="utf-8", errors="replace")) if page.is_file() else None
            try:
                data = json.loads(told[1]) if told else {}
            except ValueError:  # a page that somebody damaged shows nothing
                data = {}
            for item in data.get("items", ()):
                told = {"e": f"{week} {item.get('e', item['m'])}", "en": item.get("en", ""), "ep": item.get("ep")}
                found.met.setdefault(item["m"], told)
                found.items[item["m"]] = (week, item, data)
            for one in (*data.get("pics", ()), *data.get("items", ())):
                if one.get("m") and one.get("t") and (folder / one["t"]).is_file():
                    found.pictures[one["m"]] = (folder, one)
        return found


@dataclass(frozen=True, eq=False)
class Drawer:
    """Copies thumbnails of earlier pages into a new folder, and makes those that no page has."""

    out: Path
    ledger: Ledger
    earlier: Earlier

    def __call__(self, number: int, mark: str) -> dict[str, str]:
        """Where the thumbnail and the original of a picture are, "" where there is none."""
        picture = next(self.ledger.pictures.loc[[mark]].itertuples())
        lies = where_it_lies(picture)
        folder, name = self.out / "pictures", f"p{number:06d}"
        if mark not in self.earlier.pictures:
            if lies is None:
                return {"t": "", "f": ""}
            return picture_of(lies, lambda: _unreadable(lies), folder, name, self.out)
        there, one = self.earlier.pictures[mark]
        told = {"t": f"pictures/{name}.jpg", "f": f"pictures/{name}.jpg"}
        shutil.copyfile(there / one["t"], folder / f"{name}.jpg")
        large = there / unquote(one["f"])
        if one["f"].startswith("pictures/") and one["f"] != one["t"] and large.is_file():
            shutil.copyfile(large, folder / f"{name}-large.jpg")
            return {**told, "f": f"pictures/{name}-large.jpg"}
        file = lies or (large if large.is_file() and not one["f"].startswith("pictures/") else None)
        return {**told, "f": address(file, self.out)} if file else told


def _unreadable(file: Path) -> Any:
    raise OSError(f"{file}: can't be read")


def words_of(decisions: Decisions) -> dict[str, dict[str, dict[str, Any]]]:
    """By mark and person, what each holds of a photograph, as the page's script keeps it."""
    kinds = decisions.rows.decision.tolist()
    return {
        mark: {
            by: {
                "name": word.name, "decision": kinds[word.row] if word.row >= 0 else "", "skipped": word.skipped,
                "out": sorted(word.ruled_out),
            }
            for by, word in people.items()
        }
        for mark, people in decisions.words.items()
    }  # fmt: skip


def overview_data(out: Path, ledger: Ledger, weeks: Sequence[tuple[int, Path]]) -> dict[str, Any]:
    """What the page over all weeks knows, with thumbnails in out/pictures; weeks: number and folder of each."""
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    earlier, catalogue = Earlier.of(weeks), ledger.catalogue
    decided = [mark for mark in ledger.decisions.words if mark in ledger.pictures.index]
    asked = ledger.entries[(ledger.entries.said == ASKED) & (ledger.entries["mark"] != "")]
    marks = [mark for mark in dict.fromkeys([*asked["mark"], *decided]) if mark not in catalogue]
    known = ledger.pictures.loc[list(catalogue)].reset_index()
    known = known.assign(
        identity=known["mark"].map(catalogue), flank=known.flank.where(known.flank != "", known.orientation)
    )
    looked_up = pictures_by_animal(known, "flank", MOST_OF_ANIMAL)
    candidates = [mark for one in marks if one in earlier.items for mark in offered(*earlier.items[one][1:])]
    shown = list(dict.fromkeys([*candidates, *(known["mark"][k] for own, _ in looked_up.values() for k in own)]))
    shown = [mark for mark in shown if mark in ledger.pictures.index]
    jobs = list(enumerate([*shown, *marks]))
    draw = Drawer(out, ledger, earlier)
    with ThreadPoolExecutor(core_count()) as pool:
        made = list(progress(pool.map(lambda job: safely(draw, *job), jobs), "drawing pictures", len(jobs)))
    number = {mark: k for k, mark in enumerate(shown)}
    facts = ledger.pictures.loc[shown].itertuples()
    pics = [{**one, "n": row.image, "l": row.flank or row.orientation, "d": row.taken, "m": row.Index}
            for one, row in zip(made, facts)]  # fmt: skip
    animals = [{"n": name, "k": [number[known["mark"][k]] for k in own], "more": more}
               for name, (own, more) in looked_up.items()]  # fmt: skip
    items = items_of(ledger, earlier, marks, asked, made[len(shown) :], number)
    acts = ledger.acts.drop_duplicates(["week", "said", "name", "to", "when"])
    acts = acts.rename(columns={"said": "kind", "name": "of", "who": "by"})[["week", "kind", "of", "to", "by"]]
    rows = ledger.decisions.rows
    run = page_mark(out, marks)
    return {
        "title": "All weeks", "run": run, "prefix": "new-", "weeks": True, "root": "", "cautions": [], "pics": pics,
        "animals": animals, "items": items, "words": words_of(ledger.decisions), "acts": acts.to_dict("records"),
        "names": sorted({*catalogue.values(), *ledger.decisions.last.identity}),
        "known": rows[["mark", "decision", "by", "time"]].to_numpy().tolist(),
    }  # fmt: skip


def safely(draw: Drawer, number: int, mark: str) -> dict[str, str]:
    try:
        return draw(number, mark)
    except OSError:  # the file went, or can't be read any more
        return {"t": "", "f": ""}


def offered(item: dict[str, Any], data: dict[str, Any]) -> list[str]:
    """The marks of the catalogue's pictures that a page offered for a photograph."""
    pics = data.get("pics", ())
    return [pics[k]["m"] for one in item["q"] for k in one["k"] if pics[k].get("m")]


def items_of(
    ledger: Ledger, earlier: Earlier, marks: Sequence[str], asked: pd.DataFrame, made: Sequence[dict[str, str]],
    number: dict[str, int],
) -> list[dict[str, Any]]:  # fmt: skip
    """A photograph each, as `review_data` tells it, with its week, its folder, and its name where that is sure."""
    last = asked.drop_duplicates("mark", keep="last").set_index("mark")
    first = asked.drop_duplicates("mark").set_index("mark").week
    place = {mark: i for i, mark in enumerate(marks)}
    items = []
    for mark, one, row in zip(marks, made, ledger.pictures.loc[list(marks)].itertuples()):
        week, item, data = earlier.items.get(mark, (0, {}, {}))
        told = last.loc[mark] if mark in last.index else None
        pics = data.get("pics", ())
        candidates = []
        for own in item.get("q", ()):
            kept = [number[pics[k]["m"]] for k in own["k"] if pics[k].get("m") in number]
            spots = {"s": own["s"]} if "s" in own and len(kept) == len(own["k"]) else {}
            candidates.append({"n": ledger.names.at(own["n"], "", week), "p": own["p"], "k": kept, **spots})
        there = data.get("items", ())
        kin = [place[there[k]["m"]] for k in item.get("gm", ()) if there[k]["m"] in place]
        probability = told.probability if told is not None else ""
        items.append(
            {
                **one, "m": mark, "i": row.image, "r": row.root, "c": told.basis if told is not None else "",
                "p": float(probability) if probability else None, "w": item.get("w"), "d": row.taken, "k": row.camera,
                "l": row.flank or row.orientation, "e": mark, "en": "", "ep": None, **earlier.met.get(mark, {}),
                "g": f"{item['g']} of week {week}" if kin else "", "gp": item.get("gp"), "gm": kin,
                "q": candidates, "wk": int(first.get(mark, week or 0)), "sure": ledger.sure.get(mark, ""),
                **({"b": item["b"]} if "b" in item else {}),
            }
        )  # fmt: skip
    sizes = Counter(item["e"] for item in items)
    return [{**item, "es": sizes[item["e"]]} for item in items]
