"""Tables of photographs, and what their files tell of them: when, where, and by which camera they were taken."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from jaguar_kit import (
    FolderScan,
    KitError,
    clean_labels,
    core_count,
    load_competition,
    open_image,
    refuse_results,
)
from PIL import ExifTags

from .clocks import places_of, times_of
from .field_tables import read_field_table
from .marks import mark_of

# tables of photographs


def load_catalogue(path: str | Path, masks: str | None = None) -> tuple[Path, pd.DataFrame, list[str]]:
    """Root, a table with path and identity of known individuals, from a folder or a CSV, and what is to be said of it.

    A folder is read as `load_competition` does. A CSV has a column path or filename (below its own folder), and
    identity or ground_truth, or columns as a program of the field names them; flank, burst and more may be told too.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        competition = load_competition(path, masks)
        return competition.root, competition.train, list(competition.notes)
    table, kind, notes = read_field_table(path)
    if "identity" not in table:
        raise KitError(
            f"{path}: column 'identity' is missing (expected path,identity; found {','.join(table.columns)})"
        )
    if kind and (nameless := table.identity == "").any():
        notes.append(f"{path}: {nameless.sum()} images name nobody and are left out of the catalogue")
        table = table[~nameless].reset_index(drop=True)
        if table.empty:
            raise KitError(f"{path}: identity: names nobody (expected an individual for some images)")
    boxes = table.box if "box" in table else ""
    table = table.assign(filename=(table.path + " " + boxes).str.rstrip())  # of one file there is one row, or one a box
    notes += clean_labels(path, table, "identity")
    return path.parent, table.assign(filename=table.path), notes


def load_queries(path: str | Path) -> tuple[Path, pd.DataFrame, list[str]]:
    """Root, a table with the paths of the photographs to identify, those below a folder or of a CSV, and notes."""
    path = Path(path)
    if path.suffix.lower() == ".csv":
        table, _, notes = read_field_table(path)
        return path.parent, table, notes
    if not path.is_dir():
        raise KitError(f"--queries: {path}: there is no such folder (expected one with images, or a CSV with paths)")
    if (path / "train.csv").is_file() or (path / "metadata.csv").is_file():
        competition = load_competition(path)
        if competition.test.empty:
            raise KitError(f"--queries: {path}: its tables name no test images")
        return path, competition.test.fillna(""), []
    refuse_results(path)
    found = FolderScan(path)
    if not found.images:
        raise KitError(f"--queries: {path}: has no images that can be read here ({found.others() or 'empty'})")
    return path, pd.DataFrame({"path": list(map(str, found.images))}), found.notes


# what a file tells of itself

# tags of EXIF: DateTimeOriginal and DateTimeDigitized; Make and Model; BodySerialNumber; DateTime; Software
WHEN, WHO, SERIAL, CHANGED, PROGRAM = (0x9003, 0x9004), (0x010F, 0x0110), 0xA431, 0x0132, 0x0131


def degrees_of(values: Sequence[float], reference: str) -> float:
    """Degrees, minutes and seconds as a number, negative in the south and west."""
    degrees, minutes, seconds = (float(v) for v in values)
    return round((degrees + minutes / 60 + seconds / 3600) * (-1 if reference in ("S", "W") else 1), 6)


def clean_clock(text: str) -> str:
    """A date and time of EXIF, "" where a camera wrote that it knows none."""
    text = text.replace("\0", "").strip()
    return "" if re.fullmatch(r"[0: ]*", text) else text


def exif_of(path: Path) -> dict[str, str]:
    """taken, camera, latitude and longitude as EXIF has them, as far as it does.

    DateTime is when a file was last changed: it tells when a picture was taken where nothing else does, and no program
    has put its name there.
    """
    told: dict[str, str] = {}
    try:
        with open_image(path) as image:
            exif = image.getexif()
            inner, place = exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo)
        clean = {tag: str(exif.get(tag) or "").replace("\0", "").strip() for tag in WHO}
        serial = str(inner.get(SERIAL) or "").replace("\0", "").strip()
        told["camera"] = " ".join(part for part in (*clean.values(), serial) if part)
        told["serial"] = serial
        when = [str(inner.get(tag) or "") for tag in WHEN]
        when += [str(exif.get(CHANGED) or "")] if not exif.get(PROGRAM) else []
        told["taken"] = next((text for text in map(clean_clock, when) if text), "")
        if {1, 2, 3, 4} <= set(place):
            told["latitude"], told["longitude"] = (
                str(degrees_of(place[tag + 1], str(place[tag])[:1].upper())) for tag in (1, 3)
            )
    except Exception:  # noqa: BLE001 - PIL raises nearly anything on broken metadata, and the pixels are good
        return {key: value for key, value in told.items() if value}
    return {key: value for key, value in told.items() if value}


TOLD = ("taken", "camera", "latitude", "longitude", "mark")


def with_facts(root: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The table with columns taken, camera, latitude, longitude and mark: its own where it tells them, else the files'.

    A camera that does not tell its own number is known by its folder as well. Where a table has a `date` it goes before
    EXIF's day, whose time is kept where the day is the same. Returns what is to be said, too.
    """

    def look(path: str) -> dict[str, str]:
        try:
            return {**exif_of(root / path), "mark": mark_of(root / path)}
        except OSError:  # what can't be read is told when it is decoded
            return {}

    with ThreadPoolExecutor(2 * core_count()) as pool:
        found = pd.DataFrame(list(pool.map(look, table.path)), index=table.index)
    found = found.reindex(columns=[*TOLD, "serial"]).astype(object)
    found = found.where(found.notna(), "").astype(str)
    folder = table.path.map(lambda path: os.path.dirname(path).replace(os.sep, "/"))
    found["camera"] = found.camera.where(found.serial != "", (found.camera + " " + folder).str.strip())
    found["taken"], strange = times_of(found.taken)
    found, notes = found.drop(columns="serial"), strange.notes(f"{root}: EXIF")
    for column in TOLD:
        told = column in table and column != "mark"  # which a file alone has, whatever a column of that name says
        own = table[column].fillna("").astype(str) if told else pd.Series("", table.index)
        for name in ("taken", "date") if column == "taken" else ():
            if name in table:
                times, strange = times_of(table[name])
                times = found.taken.where((times.str.len() == 10) & (found.taken.str[:10] == times), times)
                own = times if name == "taken" else own.where(own != "", times)
                notes += strange.notes(f"{root}: column {name}")
        found[column] = own.where(own != "", found[column])
    found["latitude"], found["longitude"], nowhere = places_of(found.latitude, found.longitude)
    if nowhere:
        notes.append(f"{root}: {nowhere} places are none (such as 0, 0), and left out")
    return table.drop(columns=[c for c in TOLD if c in table]).assign(**found), notes


def facts_nobody_has(what: str, table: pd.DataFrame) -> list[str]:
    """What neither files nor tables tell of photographs, with a count."""
    table = table.drop_duplicates("path")
    words = {"taken": "date", "camera": "camera", "latitude": "place"}
    lacking = {word: int((table[column] == "").sum()) for column, word in words.items()}
    told = [f"{count} no {word}" for word, count in lacking.items() if count]
    return [f"{what}: of {len(table)} photographs {', '.join(told)} (neither in the files nor in a table)"] * bool(told)
