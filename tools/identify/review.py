"""The page on which a person confirms or rejects answers: one HTML file, and pictures beside it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from jaguar_kit import core_count, open_image, progress, read_image, upright, write_text
from PIL import Image, ImageDraw

from ..experiments.boxes import parsed_box
from ..experiments.crops import pixels_of
from .albums import Album
from .season import Season

HERE = Path(__file__).parent
PARTS = ("decisions", "rows", "compare", "individuals", "keys")  # of the page's script, in their order
SHOWN_BY_BROWSERS = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".avif"}
THUMB, LARGE = 384, 2048  # px of the longer side
MOST_SPOTS = 40  # that are drawn between two pictures
MOST_PICTURES = 12  # of an animal that is looked up, beside those that are most like a photograph


def save_small(image: Image.Image, path: Path, side: int) -> None:
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.convert("RGB").save(path, "JPEG", quality=82)


@dataclass(frozen=True)
class Shown:
    """A picture for the page."""

    album: Album
    position: int
    number: str  # what its files are called

    @property
    def file(self) -> Path:
        return self.album.file(self.position)

    @property
    def box(self) -> str:
        return self.album.table.box.iloc[self.position] if "box" in self.album.table else ""


def address(file: Path, out: Path) -> str:
    """Where a file is, as a page in `out` says it, with every sign that has a meaning there escaped."""
    return quote(os.fsencode(os.path.relpath(file.absolute(), out.resolve()).replace(os.sep, "/")))


def animal_of(one: Shown, folder: Path, out: Path) -> dict[str, str]:
    """A thumbnail of an animal, and where its photograph is; of one in a box, what `crop_of` makes."""
    if one.box:
        return crop_of(one, folder, out)
    return picture_of(one.file, partial(one.album.thumbnail, one.position), folder, one.number, out)


def picture_of(file: Path, fallback: Callable[[], Image.Image], folder: Path, number: str, out: Path) -> dict[str, str]:
    """A thumbnail of a photograph, and where its original is; a large copy of what browsers do not show."""
    small = folder / f"{number}.jpg"
    try:
        with open_image(file) as opened:
            opened.draft("RGB", (2 * THUMB, 2 * THUMB))
            save_small(upright(opened), small, THUMB)
        full = address(file, out)
        if file.suffix.lower() not in SHOWN_BY_BROWSERS:
            with open_image(file) as opened:
                save_small(upright(opened), folder / f"{number}-large.jpg", LARGE)
            full = f"pictures/{number}-large.jpg"
    except Exception:  # noqa: BLE001 - what was decoded once is shown, whatever PIL says the second time
        save_small(fallback(), small, THUMB)
        full = f"pictures/{number}.jpg"
    return {"t": f"pictures/{number}.jpg", "f": full}


def crop_of(one: Shown, folder: Path, out: Path) -> dict[str, str]:
    """As `picture_of`, of an animal in a box: also a small picture of the whole photograph, with a frame around it."""
    number = one.number
    try:
        whole = read_image(one.file)[0]
        crop = one.album.crop(one.position, whole)
        save_small(crop.copy(), folder / f"{number}-large.jpg", LARGE)
        save_small(crop, folder / f"{number}.jpg", THUMB)
        save_small(framed(whole, one.box), folder / f"{number}-whole.jpg", THUMB)
    except Exception:  # noqa: BLE001 - what was decoded once is shown, whatever PIL says the second time
        save_small(one.album.thumbnail(one.position), folder / f"{number}.jpg", THUMB)
        return {"t": f"pictures/{number}.jpg", "f": f"pictures/{number}.jpg"}
    shown = one.file.suffix.lower() in SHOWN_BY_BROWSERS
    whole_at = address(one.file, out) if shown else f"pictures/{number}-whole.jpg"
    told = {"t": f"pictures/{number}.jpg", "f": f"pictures/{number}-large.jpg"}
    return {**told, "o": f"pictures/{number}-whole.jpg", "a": whole_at}


def framed(image: Image.Image, box: str) -> Image.Image:
    """A small picture with a frame around a box."""
    small = image.convert("RGB")
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    place = pixels_of(parsed_box(box), small.size, 0)
    draw = ImageDraw.Draw(small)
    for colour, width in (("black", 10), ("yellow", 6)):
        draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), outline=colour, width=width)
    return small


def spots_between(season: Season, row: int, known: int) -> list[list[float]] | None:
    """The strongest spots that match, x and y in both pictures, and how strong each is beside the strongest."""
    if season.features is None:
        return None
    here, there, strength = season.features.matches(len(season.known) + row, known)
    if not len(strength):
        return None
    told = np.concatenate([here, there, (strength / strength.max())[:, None]], 1)[:MOST_SPOTS]
    return [[round(float(v), 4) for v in line] for line in told]


def number_or_none(value: Any) -> float | None:
    return None if pd.isna(value) else round(float(value), 4)


def told_of(table: pd.DataFrame, column: str | None) -> list[str]:
    """What a table tells in a column that it may lack."""
    return [""] * len(table) if column not in table else table[column].fillna("").astype(str).tolist()


def pictures_by_animal(
    known: pd.DataFrame, flank: str | None, most: int = MOST_PICTURES
) -> dict[str, tuple[list[int], int]]:
    """For each animal of a catalogue the images by which it can be looked up, and how many more there are.

    Where there are too many, they are taken evenly from all flanks and dates.
    """
    order = pd.DataFrame({"flank": told_of(known, flank), "taken": told_of(known, "taken")})
    order = order.sort_values(["flank", "taken"], kind="stable").index.to_numpy()
    found = {}
    for name, rows in known.iloc[order].groupby("identity", sort=True).indices.items():
        own = order[rows]
        kept = own[np.unique(np.linspace(0, len(own) - 1, min(len(own), most)).round().astype(int))]
        found[name] = kept.tolist(), len(own) - len(kept)
    return found


def review_data(
    out: Path, season: Season, answers: pd.DataFrame, pictures: Sequence[Sequence[Sequence[int]]]
) -> dict[str, Any]:
    """What the page knows of photographs and pictures, of which it writes thumbnails into out/pictures.

    Beside it `write_page` wants headline and cautions (texts), root (of the photographs), and names that are taken.
    """
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    known, asked = season.known, season.new.table
    flank, shows = (next((c for c in ("flank", "orientation") if c in table), None) for table in (known, asked))
    looked_up = pictures_by_animal(known, flank)
    shown = sorted(
        {k for rows in pictures for own in rows for k in own} | {k for own, _ in looked_up.values() for k in own}
    )
    jobs = [Shown(*season.shelf.where(k), f"k{n:06d}") for n, k in enumerate(shown)]
    jobs += [Shown(season.new, i, f"q{i:06d}") for i in range(len(asked))]
    with ThreadPoolExecutor(core_count()) as pool:
        made = list(progress(pool.map(lambda one: animal_of(one, folder, out), jobs), "drawing pictures", len(jobs)))
    facts = list(zip(told_of(known, "path"), told_of(known, flank), told_of(known, "taken"), told_of(known, "mark")))
    pics = [{**one, **dict(zip("nldm", facts[k]))} for one, k in zip(made, shown)]
    number = {k: n for n, k in enumerate(shown)}
    groups = answers[answers.group != ""].groupby("group").groups
    together = answers.encounter.map(answers.encounter.value_counts())
    which, several = asked.groupby("path").cumcount() + 1, asked.groupby("path").path.transform("size")
    items = []
    for i, (row, own) in enumerate(zip(answers.to_dict("records"), made[len(shown) :])):
        candidates = []
        for rank, images in enumerate(pictures[i], 1):
            name = row["identity"] if rank == 1 else row.get(f"identity_{rank}", "")
            p = row["probability"] if rank == 1 else row.get(f"probability_{rank}")
            if name:
                spots = spots_between(season, i, images[0]) if rank <= 3 else None
                told = {"n": name, "p": number_or_none(p), "k": [number[k] for k in images]}
                candidates.append({**told, **({"s": spots} if spots else {})})
        if several.iloc[i] > 1:
            own = {**own, "b": f"animal {which.iloc[i]} of {several.iloc[i]}"}
        kin = [int(k) for k in groups.get(row["group"], ()) if k != i][:3]
        items.append(
            {
                **own, "m": row["mark"], "i": row["image"], "c": row["class"], "p": number_or_none(row["probability"]),
                "w": number_or_none(row["probability_new"]), "d": row.get("taken", ""), "k": row.get("camera", ""),
                "l": asked[shows].iloc[i] if shows else "", "e": int(row["encounter"]),
                "en": row["encounter_identity"],
                "ep": number_or_none(row["encounter_probability"]), "es": int(together.iloc[i]), "g": row["group"],
                "gp": number_or_none(row["group_probability"]), "gm": kin, "q": candidates,
            }
        )  # fmt: skip
    run = page_mark(out, answers.mark)
    animals = [{"n": name, "k": [number[k] for k in own], "more": more} for name, (own, more) in looked_up.items()]
    return {"title": "Who is who", "run": run, "prefix": "new-", "pics": pics, "animals": animals, "items": items}


def page_mark(out: Path, marks: Iterable[str]) -> str:
    """By what a browser knows the decisions of a page again: the photographs that it asks for, and where it lies."""
    return hashlib.sha256("".join(marks).encode() + str(out.resolve()).encode()).hexdigest()[:16]


def write_page(path: Path, data: dict[str, Any]) -> Path:
    """A page of review data: script and data are inside, so that it opens by a double click, without a server.

    It loads nothing but pictures, and runs nothing but its own script, whose hash its policy names.
    """
    script = "\n".join((HERE / f"review_{part}.js").read_text(encoding="utf-8") for part in PARTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src 'self' data: blob: file:; base-uri 'none'; form-action 'none'"
    )
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = (HERE / "review.html").read_text(encoding="utf-8")
    for sign, value in (
        ("@TITLE@", html.escape(data["title"])),
        ("@POLICY@", html.escape(policy)),
        ("@SCRIPT@", script),
        ("@DATA@", text),
    ):
        page = page.replace(sign, value, 1)
    write_text(path, page)
    return path
