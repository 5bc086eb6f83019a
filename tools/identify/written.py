"""Tables that people write, and what is meant by names and marks in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from jaguar_kit import NEW, KitError, read_table

MARK = re.compile(r"[0-9a-f]{16}")
PHOTO = "photo:"  # before the mark of another photograph, where a decision is about two of them and no name
FOR_SPREADSHEETS = "utf-8-sig"  # with the mark by which they know UTF-8


def read_written(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV of these columns, empty where it is a header alone; with semicolons, as some spreadsheets save it, too."""
    start = path.read_bytes()[:2000].decode("utf-8-sig", "replace") if path.is_file() else ""
    header = re.split("[\r\n]", start, maxsplit=1)[0]
    separator = ";" if header.count(";") > header.count(",") else ","
    names = [name.strip(' "').lower() for name in header.split(separator)]
    if start.strip() == header.strip() and set(columns) <= set(names):
        return pd.DataFrame(columns=names, dtype=str)
    table = read_table(path, (), separator=separator).fillna("").astype(str)
    return table.rename(columns=lambda name: str(name).strip().lower())


def check_name(name: str, where: str) -> None:
    """KitError where an individual may not be called so."""
    if not name:
        raise KitError(f"{where}: is empty (expected a name)")
    if name.casefold().startswith(PHOTO) or name.casefold() == NEW:
        raise KitError(f"{where}: {name!r} is no name of an individual (expected one that means nothing else here)")
