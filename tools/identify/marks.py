"""Marks by which photographs, pictures and animals are known again, wherever their files lie."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from jaguar_kit import core_count, open_image

# files


def mark_of(path: Path) -> str:
    """A short mark of what a file holds, by which a photograph is known again wherever it lies."""
    size, piece = path.stat().st_size, 1 << 16
    with path.open("rb") as file:
        told = file.read(piece)
        file.seek(max(piece, size - piece))
        told += file.read()
    return hashlib.sha256(size.to_bytes(8, "little") + told).hexdigest()[:16]


# pictures

_TEXT = {*range(0xE0, 0xF0), 0xFE}  # segments of a JPEG that hold EXIF, captions and comments
_NEXT = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # the end of a JPEG's coded pixels
COMPRESSED = {".jpg", ".jpeg", ".png", ".webp", ".heic"}  # whose ends tell one picture from another


def picture_mark(path: Path) -> str:
    """A short mark of the picture that a file holds, which no caption, date or name of the file changes.

    Of a JPEG it is that of its coded pixels, which no other version of a decoder changes; else of the pixels.
    """
    content = path.read_bytes()
    told = _coded_pixels(content) if content[:2] == b"\xff\xd8" else b""
    if not told:
        try:
            with open_image(path) as image:
                image = image.convert("RGBA") if image.mode in ("P", "PA") else image
                told = repr((image.mode, image.size)).encode() + image.tobytes()
        except Exception:  # noqa: BLE001 - PIL raises nearly anything on a broken file, which is its own mark then
            return mark_of(path)
    return hashlib.sha256(told).hexdigest()[:16]


def _coded_pixels(content: bytes) -> bytes:
    """A JPEG without the segments that hold no pixels; empty where it is broken."""
    parts, at = [], 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        kind = content[at + 1]
        if kind == 0xD9:
            break
        if kind == 0xFF:  # a byte that fills
            at += 1
            continue
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if kind == 0xDA:
            found = _NEXT.search(content, end)
            end = found.start() if found else len(content)
        if kind not in _TEXT:
            parts.append(content[at:end])
        at = end
    return b"".join(parts)


def part_mark(picture: str, box: str) -> str:
    """The mark of the pixels of a picture that lie in a box: of the picture's own and where they lie in it."""
    return hashlib.sha256(f"{picture} {box}".encode()).hexdigest()[:16]


def with_picture_marks(root: Path, table: pd.DataFrame, known: Mapping[str, str]) -> pd.DataFrame:
    """The table with marks of pictures as `mark`, and those of files as `file_mark`.

    known: marks of pictures by those of their files, which need not be read again.
    """

    def look(path: str, old: str) -> str:
        if old in known and Path(path).suffix.lower() in COMPRESSED:
            return known[old]
        try:
            return picture_mark(root / path) if old else ""
        except OSError:  # what can't be read is told when it is decoded
            return old

    with ThreadPoolExecutor(2 * core_count()) as pool:
        marks = list(pool.map(look, table.path, table.mark))
    return table.assign(file_mark=table.mark, mark=marks)
