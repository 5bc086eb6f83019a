"""The animals of a season: what is asked of boxes, and the marks by which each animal is known again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jaguar_kit import KitError, first_few

from ..experiments.boxes import overlap, parsed_box, read_boxes, unknown_files
from ..experiments.crops import MASKS, Look, Seen
from .marks import part_mark

SAME = 0.5  # overlap from which on two boxes of a photograph are of one animal


# what is asked of boxes


@dataclass(frozen=True)
class Wanted:
    """What somebody asks of boxes; None: as in the week before, else as usual."""

    files: Sequence[str | Path] = ()  # of boxes, or "masks"
    confidence: float | None = None
    margin: float | None = None
    every: bool = False  # photographs without an animal are asked for as well

    def look(self, confidence: float) -> Look:
        files = [str(file) for file in self.files]
        boxes = [read_boxes(Path(file)) for file in files if file != MASKS]
        return Look(boxes, bool(files), confidence, self.every)


def notes_on_parts(count: int) -> list[str]:
    words = "photographs that were looked at whole show several animals, which are asked for one by one"
    return [f"{count} {words}"] if count else []


def notes_on_files(look: Look, *seen: Seen) -> list[str]:
    """What is to be said of files of boxes, which may be of the catalogue, of the queries, or of both."""
    said = []
    for number, boxes in enumerate(look.boxes):
        meant = set().union(*(one.meant[number] for one in seen))
        if boxes.found and not meant:
            names = first_few(list(boxes.found))
            raise KitError(f"--boxes: {boxes.path}: names none of these photographs: {names}")
        said += [*boxes.notes(), *unknown_files(boxes, meant)]
    return said


# marks


def with_animal_marks(
    table: pd.DataFrame, earlier: Mapping[str, Sequence[tuple[str, str]]], labelled: bool
) -> tuple[pd.DataFrame, int]:
    """The table with the mark of each animal as `mark`, and as `picture` that of its photograph where it is another.

    mark: of pictures so far. earlier: by picture, marks and boxes of the animals that were known there. An animal alone
    on its photograph has the photograph's mark; of several each has that of its part; a box that is about where one was
    before has its mark. Photographs without a box that had some before have them again. Returns how many photographs
    that were whole before have several animals now, too.
    """
    rows: list[dict[str, str]] = []
    parted = 0
    for (picture, _), own in table.groupby(["mark", "path"], sort=False):
        told = own.to_dict("records")
        known = dict(earlier.get(picture, ()))
        boxed = {mark: box for mark, box in known.items() if box}
        if picture and boxed and not any(row["box"] for row in told):
            if labelled and len(told) == len(boxed):
                told = [{**row, "box": box} for row, box in zip(told, boxed.values())]
            elif not labelled:
                told = [{**told[0], "box": box} for box in boxed.values()]
        for row in told:
            box = parsed_box(row["box"])
            near = {mark: overlap(box, parsed_box(old)) for mark, old in boxed.items()} if box else {}
            best = max(near, key=near.get, default="")
            if best and near[best] >= SAME:
                row["mark"] = best
                del boxed[best]
            elif box and (len(told) > 1 or any(known.values())):
                row["mark"] = part_mark(picture, row["box"]) if picture else ""
            row["picture"] = picture if row["mark"] != picture else ""
        parted += len(told) > 1 and picture in known and not known[picture]
        rows += told
    found = pd.DataFrame(rows, columns=[*table.columns, "picture"])
    return found.astype({**table.dtypes.to_dict(), "picture": str}), parted
