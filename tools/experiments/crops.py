"""Crops of animals: which box of a photograph is looked at, what is said of the others, and files to read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaguar_kit import (
    Competition,
    DataConfig,
    KitError,
    atomic,
    cache_dir,
    core_count,
    echo,
    fingerprint,
    mask_paths,
    open_image,
    read_image,
)
from PIL import Image

from .boxes import (
    ANIMAL,
    BLANK,
    PERSON,
    VEHICLE,
    Box,
    Boxes,
    Detection,
    Upright,
    box_text,
    by_photograph,
    in_pixels,
    parsed_box,
    read_boxes,
)

CONFIDENCE = 0.2  # from which on a detector's box counts, as MegaDetector's makers advise
MARGIN = 0.1  # of a box's sides that a crop has around it
SIDE = 1024  # px of the longer side of a crop
MASKS = "masks"  # in place of a file: the boxes of masks
ASIDE = "set_aside.csv"


# what is looked at


@dataclass(frozen=True, eq=False)
class Look:
    """Which part of photographs is looked at."""

    boxes: Sequence[Boxes] = ()
    masks: bool = False  # boxes of masks, where nothing else tells
    least: float = CONFIDENCE
    every: bool = False  # photographs without an animal are asked for as well


@dataclass(frozen=True, eq=False)
class Seen:
    """What boxes tell of the photographs of a table."""

    table: pd.DataFrame  # a row for each animal, with box ("" where the whole photograph is looked at)
    aside: pd.DataFrame  # photographs without one, with why and sure
    notes: Sequence[str]
    meant: Sequence[set[str]]  # names that each file of boxes tells and that are of this table


def look_at(what: str, root: Path, table: pd.DataFrame, look: Look, labelled: bool, masks: str | None) -> Seen:
    """A row for each animal on the photographs of a table, by its own columns box and seen, else by files of boxes.

    labelled: an individual is known for each, so that of several boxes the largest is its, and none is set aside.
    """
    found, meant = [], []
    for boxes in look.boxes:
        own, names = by_photograph(boxes, table.path)
        found.append(own)
        meant.append(names)
    texts = table.box if "box" in table else pd.Series("", table.index)
    kinds = table.seen if "seen" in table else pd.Series("", table.index)
    plain = table.drop(columns=["box", "seen"], errors="ignore").assign(box="")
    if not look.boxes and not look.masks and not (texts != "").any() and not (kinds != "").any():
        return Seen(plain, plain.iloc[:0].assign(why="", sure=""), [], meant)
    reader = Reader(root, look, found, labelled, in_pixels(texts), masks, list(table.path))
    rows: list[int] = []
    shown: list[str] = []
    without: list[tuple[int, str, float]] = []
    for row, (path, text, kind) in enumerate(zip(table.path, texts, kinds)):
        boxes, why, sure = reader.animals(path, text, kind)
        if why:
            without.append((row, why, sure))
        if why and not look.every:
            continue
        rows += [row] * len(boxes)
        shown += boxes
    aside = plain.iloc[[row for row, *_ in without]].assign(
        why=[why for _, why, _ in without], sure=[f"{sure:.3f}" for *_, sure in without]
    )
    seen = plain.iloc[rows].assign(box=shown).reset_index(drop=True)
    notes = [f"{what}: {note}" for note in (*reader.notes(seen), *notes_on_aside(aside, look))]
    return Seen(seen, aside.iloc[: 0 if look.every else None].reset_index(drop=True), notes, meant)


class Reader:
    """Finds the animals of one photograph after the other, and counts what is to be said."""

    def __init__(
        self,
        root: Path,
        look: Look,
        found: Sequence[Mapping[str, list[Detection]]],
        labelled: bool,
        pixels: bool,
        masks: str | None,
        paths: Sequence[str],
    ):
        self.root, self.look, self.found, self.labelled, self.pixels = root, look, found, labelled, pixels
        self.masks, self.paths = masks, paths
        self.upright, self.counts = Upright(), Counter()

    def animals(self, path: str, text: str, kind: str) -> tuple[list[str], str, float]:
        """Boxes of the animals on a photograph, "" for a whole one; and why it is set aside, and how sure that is."""
        if kind and kind != ANIMAL and not self.labelled:
            return [""], kind, 1.0
        if text:
            box = parsed_box(text)
            self.counts["unread"] += box is None
            box = box and self.upright.box(Detection(ANIMAL, box, pixels=self.pixels), self.root / path)
            return [box_text(box) if box else ""], "", 1.0
        told = next((own[path] for own in self.found if path in own), None)
        if told is None:
            return [self.by_mask(path)], "", 1.0
        sure = [one for one in told if one.sure >= self.look.least]
        boxes = [one.box and self.upright.box(one, self.root / path) for one in sure if one.kind == ANIMAL]
        whole = any(one.kind == ANIMAL and one.box is None for one in sure)
        boxes = [box for box in boxes if box]
        if self.labelled:
            self.counts["several"] += len(boxes) > 1
            self.counts["none"] += not boxes and not whole
            return [box_text(max(boxes, key=lambda box: box[2] * box[3])) if boxes else ""], "", 1.0
        if boxes or whole:
            self.counts["shared"] += len(boxes) > 1
            return [box_text(box) for box in sorted(boxes)] or [""], "", 1.0
        others = {kind: max((o.sure for o in sure if o.kind == kind), default=0.0) for kind in (PERSON, VEHICLE)}
        why = max(others, key=others.get)
        if others[why]:
            return [""], why, others[why]
        return [""], BLANK, 1 - max((one.sure for one in told if one.kind == ANIMAL), default=0.0)

    @cached_property
    def mask_files(self) -> dict[str, Path]:
        there = self.masks and (self.root / self.masks).is_dir()
        return dict(zip(self.paths, mask_paths(self.root, self.paths, self.masks))) if there else {}

    def by_mask(self, path: str) -> str:
        box = box_of_mask(self.root / path, self.mask_files.get(path))
        self.counts["by mask" if box else "whole"] += 1
        return box_text(box) if box else ""

    def notes(self, seen: pd.DataFrame) -> list[str]:
        boxes, counts = seen[seen.box != ""], self.counts
        shared = f", {counts['shared']} of which show several" if counts["shared"] else ""
        said = [f"{len(boxes)} animals in boxes on {boxes.path.nunique()} photographs{shared}"] if len(boxes) else []
        told = (
            ("unread", "rows tell no box that can be read, and are looked at whole"),
            ("several", "photographs show several animals, of which the largest is taken for the one that is named"),
            ("none", "named photographs show no animal by their boxes, and are looked at whole"),
            ("by mask", "photographs have no entry among the boxes, and are looked at where their mask is"),
            ("whole", "photographs have no entry among the boxes, and are looked at whole"),
        )
        said += [f"{counts[key]} {words}" for key, words in told if counts[key]]
        return [*said, *self.upright.notes()]


def notes_on_aside(aside: pd.DataFrame, look: Look) -> list[str]:
    """How many photographs are set aside, and why."""
    if aside.empty:
        return []
    counts = Counter(aside.why)
    told = ", ".join(f"{counts[why]} {why}" for why in sorted(counts, key=lambda why: (-counts[why], why)))
    what = f"show no animal from confidence {look.least:g} on: {told}"
    if look.every:
        return [f"{len(aside)} photographs {what}; they are asked for all the same"]
    return [f"{len(aside)} photographs {what}; they are set aside in {ASIDE} (--all asks for them too)"]


# parts of pictures


def box_of_mask(path: Path, mask: Path | None) -> Box | None:
    """The box around what a mask or alpha holds; None where there is none, or where it tells no animal."""
    try:
        with open_image(path) as image:
            plain = mask is None and not (image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info)
        if plain:
            return None
        alpha = read_image(path, mask)[1]
    except Exception:  # noqa: BLE001 - PIL raises nearly anything; decoding tells what is wrong
        return None
    there = np.asarray(alpha) > 127
    if there.all() or not there.any():
        return None
    (top, bottom), (left, right) = ((v[0], v[-1] + 1) for v in map(np.flatnonzero, (there.any(1), there.any(0))))
    high, wide = there.shape
    return left / wide, top / high, (right - left) / wide, (bottom - top) / high


def pixels_of(box: Box, size: tuple[int, int], margin: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom in pixels of a box with a margin, within a picture of this size."""
    x, y, w, h = box
    ends = (x - margin * w, y - margin * h, x + (1 + margin) * w, y + (1 + margin) * h)
    left, top, right, bottom = (round(v * size[k % 2]) for k, v in enumerate(ends))
    left, top = min(max(left, 0), size[0] - 1), min(max(top, 0), size[1] - 1)
    return left, top, max(min(right, size[0]), left + 1), max(min(bottom, size[1]), top + 1)


def cut(image: Image.Image, box: str, margin: float) -> Image.Image:
    """The part of an upright image that a box tells, with its margin; all of it for ""."""
    return image.crop(pixels_of(parsed_box(box), image.size, margin)) if box else image


def crop_file(path: Path, box: str, margin: float, mask: Path | None) -> Path:
    """A file in the cache with the part of a photograph that a box tells, made unless it is there.

    A photograph that can't be read is returned itself, so that whoever reads it tells so.
    """
    try:
        of = [(str(one.absolute()), os.stat(one).st_size, os.stat(one).st_mtime_ns) for one in (path, mask) if one]
        kept = cache_dir() / "crops" / fingerprint("crop 1", of, box, margin, SIDE)
        for there in (kept.with_suffix(".jpg"), kept.with_suffix(".png")):
            if there.is_file():
                return there
        rgb, alpha = read_image(path, mask)
        image = rgb if alpha is None else Image.merge("RGBA", (*rgb.split(), alpha))
        image = cut(image, box, margin)
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        how = {"format": "JPEG", "quality": 95, "subsampling": 0} if alpha is None else {"format": "PNG"}
        with atomic(kept.with_suffix(".jpg" if alpha is None else ".png")) as temporary:
            image.save(temporary, **how)
    except Exception:  # noqa: BLE001 - PIL raises nearly anything on a broken file
        return path
    return kept.with_suffix(".jpg" if alpha is None else ".png")


def files_to_read(root: Path, table: pd.DataFrame, masks: str | None, margin: float) -> tuple[list[str], str | None]:
    """What is read of each row: its photograph, or a crop in the cache; and the masks of these, which crops carry."""
    boxes = table.box if "box" in table else pd.Series("", table.index)
    if not (boxes != "").any():
        return list(table.path), masks
    mask = mask_paths(root, list(table.path), masks)
    jobs = [(path, box, one) for path, box, one in zip(table.path, boxes, mask)]

    def read(job: tuple[str, str, Path | None]) -> str:
        path, box, own = job
        return str(crop_file(root / path, box, margin, own).resolve()) if box or own else path

    with ThreadPoolExecutor(core_count()) as pool:
        return list(pool.map(read, jobs)), None


# the data of a recipe


def cropped(competition: Competition, data: DataConfig) -> tuple[list[str], str | None]:
    """The files that are read of a recipe's images, cut out by `data.boxes`, and the masks of these, which crops carry.

    `data.boxes` names a column of the tables, a file of boxes below the data's folder or anywhere, or says masks. Of
    several boxes of an image the largest is taken; what has none is looked at whole.
    """
    root, column = competition.root, data.boxes
    told = [
        table[[name for name in ("path", column) if name in table]] for table in (competition.train, competition.test)
    ]
    table = pd.concat(told, ignore_index=True).fillna("").astype(str)
    if column in table:
        files: list[Boxes] = []
        table = table.rename(columns={column: "box"})
    else:
        known = column == MASKS or (root / column).is_file()
        if not known:
            columns = ",".join(dict.fromkeys([*competition.train, *competition.test]))
            raise KitError(f"data.boxes: {column!r} is no file in {root} and no column (expected one of {columns})")
        files = [] if column == MASKS else [read_boxes(root / column)]
    seen = look_at("data.boxes", root, table, Look(files, column == MASKS), True, data.masks)
    if files and files[0].found and not seen.meant[0]:
        raise KitError(f"data.boxes: {root / column}: names none of the images in {root}")
    for note in seen.notes:
        echo(f"  note: {note}")
    return files_to_read(root, seen.table, data.masks, MARGIN)
