"""Files of pictures as they are read: upright, with their masks, turned, and by what their pixels are known again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaguar_kit import ImageStore, core_count, decode, mask_paths, open_image, refuse

from .kept import row_key
from .marks import picture_mark
from .written import MARK

ORIENTATION = 0x0112  # the tag of EXIF that says which way is up


@dataclass(frozen=True, eq=False)
class Readable:
    """Files of pictures, and how each is read."""

    root: Path
    files: tuple[str, ...]  # photographs, or crops of them
    masks: tuple[Path | None, ...]
    turns: tuple[float, ...]  # degrees counter-clockwise
    masked: np.ndarray  # bool (N,): a mask or alpha comes along
    keys: np.ndarray  # int64 (N,), which change with the pixels and with how they are read
    faults: dict[int, str] = field(default_factory=dict)  # by position, what could not be read

    @staticmethod
    def of(
        root: Path, table: pd.DataFrame, files: Sequence[str], masks: str | None, turns: Sequence[float]
    ) -> Readable:
        """table: path, and marks of pictures, by which a photograph is known without reading all of it."""
        refuse([str(root / file) for file in files if not (root / file).is_file()], "images are not there", root)
        given, turned = mask_paths(root, files, masks), list(turns) or [0.0] * len(files)
        jobs = list(zip(table.path, marks_told(table), files, given, turned))
        with ThreadPoolExecutor(2 * core_count()) as pool:
            found = list(pool.map(lambda job: known_by(root, *job), jobs))
        masked, keys = (np.array(column) for column in zip(*found))
        return Readable(root, tuple(files), tuple(given), tuple(turned), masked, keys)

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, rows: np.ndarray) -> Readable:
        files, masks, turns = (tuple(own[row] for row in rows) for own in (self.files, self.masks, self.turns))
        return replace(self, files=files, masks=masks, turns=turns, masked=self.masked[rows], keys=self.keys[rows])

    def pixels(self, position: int, size: int, fit: str) -> np.ndarray:
        """A picture, uint8 (S, S, 3), or with its mask (S, S, 4)."""
        channels = 4 if self.masked[position] else 3
        path = self.root / self.files[position]
        return decode(path, self.masks[position], size, fit, channels, self.turns[position])

    def store(self, position: int, size: int, fit: str) -> ImageStore:
        """A picture alone."""
        return ImageStore(self.pixels(position, size, fit)[None], str(self.keys[position]))

    def decoded(self, positions: np.ndarray, size: int, fit: str) -> tuple[np.ndarray, list[np.ndarray]]:
        """Which of these could be read, bool, and their pixels."""

        def read(position: int) -> np.ndarray | None:
            try:
                return self.pixels(position, size, fit)
            except Exception as error:  # noqa: BLE001 - PIL raises nearly anything on a broken file
                self.faults[position] = str(error)
                return None

        with ThreadPoolExecutor(core_count()) as pool:
            found = list(pool.map(read, positions.tolist()))
        return np.array([one is not None for one in found]), [one for one in found if one is not None]


def marks_told(table: pd.DataFrame) -> list[str]:
    """Marks of pictures as a table of photographs tells them, "" where it does not."""
    marks = table.mark if "mark" in table else pd.Series("", table.index)
    if "picture" in table:
        marks = marks.where(table.picture == "", table.picture)
    return [mark if MARK.fullmatch(mark) else "" for mark in marks]


def known_by(root: Path, path: str, mark: str, file: str, mask: Path | None, turn: float) -> tuple[bool, int]:
    """Whether a mask comes along with a picture, and its key."""
    masked, orientation = mask is not None, 1
    try:
        with open_image(root / file) as image:
            masked |= image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - PIL raises nearly anything on a broken file; decoding will name it
        pass
    if file != path:
        mark = content_mark(root / file)
    shape = "" if mask is None else content_mark(mask)
    return masked, row_key(mark or picture_mark(root / file), str(orientation), shape, float(turn))


def content_mark(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
