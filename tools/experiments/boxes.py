"""Boxes of animals on photographs: a detector's file, a data set's, or columns of a table.

A file of boxes is MegaDetector's JSON, a COCO JSON, or a CSV with a path and a box in each row. Boxes are kept as
shares of the upright photograph: x and y of the upper left corner, width and height.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from jaguar_kit import KitError, ends_alike, first_few, open_image, read_json, read_table

ANIMAL, PERSON, VEHICLE, BLANK = "animal", "person", "vehicle", "blank"
KINDS = {"1": ANIMAL, "2": PERSON, "3": VEHICLE, "human": PERSON, "person": PERSON, "vehicle": VEHICLE}
KINDS |= {"empty": BLANK, "blank": BLANK}  # any other name is that of an animal
PATHS = ("path", "filepath", "file_path", "image_path", "filename", "file_name", "file", "image_id")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """What somebody found on a photograph."""

    kind: str  # ANIMAL, PERSON, VEHICLE or BLANK
    box: Box | None  # None: the whole photograph
    sure: float = 1.0  # how sure a detector is, from 0 to 1
    pixels: bool = False  # whether the box is in pixels, not in shares of the frame
    frame: tuple[int, int] | None = None  # width and height that the pixels count in, where they are told


@dataclass(eq=False)
class Boxes:
    """The detections of a file, by the photographs' names as it tells them; none where nothing was found."""

    path: Path
    found: dict[str, list[Detection]] = field(default_factory=lambda: defaultdict(list))
    failed: int = 0  # photographs that a detector could not read
    unread: int = 0  # boxes that are none

    def notes(self) -> list[str]:
        said = []
        if self.failed:
            said.append(f"{self.path}: {self.failed} photographs could not be read there, and are looked at whole")
        if self.unread:
            said.append(f"{self.path}: {self.unread} rows tell no box, and are left out")
        return said


# files


def read_boxes(path: Path) -> Boxes:
    """A file of boxes; KitError names what is none."""
    if path.suffix.lower() == ".csv":
        return boxes_of_table(path)
    try:
        told = read_json(path)
    except FileNotFoundError:
        raise KitError(f"{path}: there is no such file (expected boxes as JSON or CSV)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise KitError(f"{path}: can't be read: {' '.join(str(error).split())} (expected JSON or CSV)") from None
    images = told.get("images") if isinstance(told, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise KitError(f"{path}: images: is missing (expected MegaDetector's JSON, or COCO's)")
    if isinstance(told.get("annotations"), list):
        return boxes_of_coco(path, told)
    if any("detections" in image or "failure" in image for image in images):
        return boxes_of_detector(path, told)
    raise KitError(f"{path}: holds neither detections nor annotations (expected MegaDetector's JSON, or COCO's)")


def boxes_of_detector(path: Path, told: Mapping[str, Any]) -> Boxes:
    """MegaDetector's: images[].file, detections[].category, conf, and bbox in shares of the frame."""
    names = told.get("detection_categories")
    names = names if isinstance(names, dict) else {}
    boxes = Boxes(path)
    for i, image in enumerate(told["images"]):
        name = text_of(image.get("file"), f"{path}: images[{i}].file")
        if image.get("failure") or image.get("detections") is None:
            boxes.failed += 1
            continue
        own = boxes.found[name]
        if not isinstance(image["detections"], list):
            raise KitError(f"{path}: images[{i}].detections: {image['detections']!r} (expected a list)")
        for j, one in enumerate(image["detections"]):
            where = f"{path}: images[{i}].detections[{j}]"
            if not isinstance(one, dict):
                raise KitError(f"{where}: {one!r} (expected category, conf and bbox)")
            number = str(one.get("category", "1"))
            kind = kind_of(str(names.get(number, number)))
            sure = number_of(one.get("conf", 1.0), f"{where}.conf")
            own.append(Detection(kind, box_of(one.get("bbox"), f"{where}.bbox"), sure))
    return boxes


def boxes_of_coco(path: Path, told: Mapping[str, Any]) -> Boxes:
    """COCO's: images with id and file_name, annotations with image_id and bbox in pixels."""
    boxes, by_id = Boxes(path), {}
    categories = told.get("categories")
    categories = categories if isinstance(categories, list) else []
    names = {str(one.get("id")): str(one.get("name", "")) for one in categories if isinstance(one, dict)}
    for i, image in enumerate(told["images"]):
        name = text_of(image.get("file_name"), f"{path}: images[{i}].file_name")
        size = (image.get("width"), image.get("height"))
        by_id[str(image.get("id"))] = name, size if all(isinstance(side, int) and side > 0 for side in size) else None
        boxes.found[name]  # that nothing was found on it is told as well
    for i, one in enumerate(told["annotations"]):
        where = f"{path}: annotations[{i}]"
        key = str(one.get("image_id")) if isinstance(one, dict) else ""
        if key not in by_id:
            raise KitError(f"{where}.image_id: {key!r} is no image (expected the id of one of {len(by_id)})")
        name, frame = by_id[key]
        kind = kind_of(names.get(str(one.get("category_id")), ""))
        box = None if one.get("bbox") is None else box_of(one["bbox"], f"{where}.bbox")
        sure = number_of(one.get("score", 1.0), f"{where}.score")
        boxes.found[name].append(Detection(kind, box, sure, True, frame))
    return boxes


def boxes_of_table(path: Path) -> Boxes:
    """A CSV with the name of a photograph and a box in each row, of several animals in several rows."""
    table = read_table(path, ()).fillna("")
    table = table.set_axis([str(name).strip().lower() for name in table], axis=1)
    table = table.loc[:, ~table.columns.duplicated()]
    name = next((column for column in PATHS if column in table), None)
    columns = box_columns(table)
    if name is None or columns is None:
        missing = "path" if name is None else "bbox"
        raise KitError(
            f"{path}: column {missing!r} is missing (expected path, and bbox or x,y,w,h; found {','.join(table)})"
        )
    boxes, texts = Boxes(path), box_texts(table, columns)
    sure = next((table[c] for c in ("conf", "confidence", "score", "detection_conf") if c in table), None)
    kind = next((table[c] for c in ("category", "label", "class", "observationtype") if c in table), None)
    pixels = in_pixels(texts, columns)
    for row, (photo, text) in enumerate(zip(table[name], texts)):
        where = f"{path}: line {row + 2}"
        own = boxes.found[text_of(photo, f"{where}: {name}")]
        box = parsed_box(text)
        what = ANIMAL if kind is None else kind_of(kind.iloc[row])
        if box is None and text:
            boxes.unread += 1
        elif box is not None or what == BLANK:
            told = 1.0 if sure is None or not sure.iloc[row] else number_of(sure.iloc[row], f"{where}: confidence")
            own.append(Detection(what, box, told, pixels))
    return boxes


# values


def text_of(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise KitError(f"{where}: {value!r} (expected the name of a photograph)")
    return value


def number_of(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0 <= number <= 1:
        raise KitError(f"{where}: {value!r} (expected a number from 0 to 1)")
    return number


def kind_of(name: str) -> str:
    return KINDS.get(name.strip().lower(), ANIMAL)


def box_of(value: Any, where: str) -> Box:
    fine = isinstance(value, list) and len(value) == 4 and all(type(v) in (int, float) for v in value)
    if not fine or not all(abs(v) < 1e9 for v in value):
        raise KitError(f"{where}: {value!r} (expected x, y, width and height)")
    return tuple(map(float, value))


# columns of a table

_CORNER = (("bboxx", "bboxy"), ("bbox_x", "bbox_y"), ("x", "y"), ("left", "top"))
_SIZE = (
    ("bboxwidth", "bboxheight"),
    ("bbox_width", "bbox_height"),
    ("bbox_w", "bbox_h"),
    ("w", "h"),
    ("width", "height"),
)
_ENDS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"))
ONE_COLUMN = ("bbox", "box", "bounding_box")


def box_columns(table: Iterable[str]) -> tuple[str, ...] | None:
    """The columns that tell boxes: one, or four of corner and size, or of two corners."""
    there = set(table)
    if one := next((name for name in ONE_COLUMN if name in there), None):
        return (one,)
    corner, size = (next((pair for pair in pairs if set(pair) <= there), None) for pairs in (_CORNER, _SIZE))
    if corner and size:
        return (*corner, *size)
    return next((four for four in _ENDS if set(four) <= there), None)


def box_texts(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """What these columns tell of each row, as "x y width height"; "" where they tell nothing."""
    if len(columns) == 1:
        return table[columns[0]].str.strip()
    four = table[list(columns)].apply(lambda column: column.str.strip())
    texts = four.agg(" ".join, axis=1).where((four != "").all(axis=1), "")
    if columns not in _ENDS:
        return texts
    numbers = four.apply(pd.to_numeric, errors="coerce").to_numpy(float, copy=True)
    with np.errstate(invalid="ignore"):  # of infinite ones, which no box holds
        numbers[:, 2:] -= numbers[:, :2]
    told = [" ".join(f"{v:.10g}" for v in row) for row in numbers]
    return pd.Series(told, table.index).where(texts != "", "")


def parsed_box(text: str) -> Box | None:
    """The box that a text such as "[12, 30, 200.5, 90]" tells; None where it tells none."""
    found = re.findall(r"-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?", text)
    left = re.sub(r"-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|[\s,;\[\]()]", "", text)
    return tuple(map(float, found)) if len(found) == 4 and not left else None


def in_pixels(texts: Iterable[str], columns: Sequence[str] = ()) -> bool:
    """Whether boxes are in pixels: where any reaches beyond 1; those of Camtrap DP never are."""
    boxes = [box for box in map(parsed_box, texts) if box]
    return "bboxwidth" not in columns and any(max(box) > 1.5 for box in boxes)


# on the upright photograph


def sizes_of(path: Path) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Width and height of a photograph, upright and as it is stored, and its orientation in EXIF; zeros: unreadable."""
    try:
        with open_image(path) as image:
            stored, turned = image.size, int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - PIL raises nearly anything; decoding tells what is wrong
        return (0, 0), (0, 0), 1
    return (stored[::-1] if turned in (5, 6, 7, 8) else stored), stored, turned


def turned_box(box: Box, orientation: int) -> Box:
    """A box in shares of a stored photograph as one of the upright photograph."""
    x, y, w, h = box
    ends = {2: (1 - x - w, y), 3: (1 - x - w, 1 - y - h), 4: (x, 1 - y - h)}
    if orientation in ends:
        return (*ends[orientation], w, h)
    ends = {5: (y, x), 6: (1 - y - h, x), 7: (1 - y - h, 1 - x - w), 8: (y, 1 - x - w)}
    return (*ends[orientation], h, w) if orientation in ends else box


@dataclass
class Upright:
    """Turns detections into boxes of upright photographs, and counts what is to be said of them."""

    outside: int = 0  # reach beyond the frame, and are cut there
    nowhere: int = 0  # have no part in it, and are left out
    turned: int = 0  # were of the photograph as it is stored

    def box(self, one: Detection, path: Path) -> Box | None:
        """A box in shares of the upright photograph; None where none of it lies there."""
        box = one.box
        if one.pixels:
            upright, stored, orientation = sizes_of(path)
            frame = one.frame or upright
            if not all(frame):
                return None
            box = tuple(v / frame[k % 2] for k, v in enumerate(box))
            if frame == stored != upright:
                box, self.turned = turned_box(box, orientation), self.turned + 1
        x, y = max(box[0], 0.0), max(box[1], 0.0)
        w, h = min(box[0] + box[2], 1.0) - x, min(box[1] + box[3], 1.0) - y
        if w < 1e-3 or h < 1e-3:
            self.nowhere += 1
            return None
        self.outside += min(box[:2]) < -0.01 or box[0] + box[2] > 1.01 or box[1] + box[3] > 1.01
        return x, y, w, h

    def notes(self) -> list[str]:
        told = (
            (self.outside, "boxes reach beyond their photograph, and are cut at its edge"),
            (self.nowhere, "boxes hold no part of their photograph, and are left out"),
            (self.turned, "boxes are of photographs as they are stored, and are turned upright with them"),
        )
        return [f"{count} {words}" for count, words in told if count]


def box_text(box: Box) -> str:
    """A box as tables of the kit tell it."""
    return " ".join(f"{v:.4f}" for v in box)


def overlap(one: Box, other: Box) -> float:
    """The share of two boxes that both have: intersection over union."""
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(wide, 0.0) * max(high, 0.0)
    return both / max(one[2] * one[3] + other[2] * other[3] - both, 1e-12)


# which photograph is meant


def by_photograph(boxes: Boxes, paths: Iterable[str]) -> tuple[dict[str, list[Detection]], set[str]]:
    """The detections of each of these photographs that a file of boxes knows, and its names that are meant by one.

    A name may tell more folders than a path, or fewer, as long as it fits one photograph alone.
    """
    by_last: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        parts = parts_of(path)
        by_last[parts[-1]].append((parts, path))
    found: dict[str, list[Detection]] = {}
    meant = set()
    for name, detections in boxes.found.items():
        parts = parts_of(name)
        fits = [(own, path) for own, path in by_last.get(parts[-1], ()) if ends_alike(own, parts)]
        exact = [path for own, path in fits if own == parts]
        if exact or len(fits) == 1:
            found.setdefault(exact[0] if exact else fits[0][1], []).extend(detections)
            meant.add(name)
    return found, meant


def parts_of(name: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(name.strip().replace("\\", "/")).parts if part not in (".", "/"))


def unknown_files(boxes: Boxes, meant: set[str]) -> list[str]:
    """What is to be said of boxes of files that are not among the photographs."""
    rest = [name for name in boxes.found if name not in meant]
    if not rest:
        return []
    return [
        f"{boxes.path}: {len(rest)} of its {len(boxes.found)} files are none of these photographs: {first_few(rest)}"
    ]
