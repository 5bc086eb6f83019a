"""The page on which a person confirms or rejects answers: one HTML file, and pictures beside it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
SHOWN_BY_BROWSERS = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".avif"}
THUMB, LARGE = 384, 2048  # px of the longer side
MOST_SPOTS = 40  # that are drawn between two pictures


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


def picture_of(one: Shown, folder: Path, out: Path) -> dict[str, str]:
    """A thumbnail of an animal, and where its photograph is; a large copy of a crop, and of what browsers do not show.

    Of a crop there is a small picture of the whole photograph as well, with a frame around the animal. Addresses are
    relative to `out`, with every sign that has a meaning there escaped.
    """
    file, number = one.file, one.number
    small = folder / f"{number}.jpg"
    if one.box:
        return crop_of(one, folder, out)
    try:
        with open_image(file) as opened:
            opened.draft("RGB", (2 * THUMB, 2 * THUMB))
            save_small(upright(opened), small, THUMB)
        full = address_of(file, out)
        if file.suffix.lower() not in SHOWN_BY_BROWSERS:
            with open_image(file) as opened:
                save_small(upright(opened), folder / f"{number}-large.jpg", LARGE)
            full = f"pictures/{number}-large.jpg"
    except Exception:  # noqa: BLE001 - what was decoded once is shown, whatever PIL says the second time
        save_small(one.album.thumbnail(one.position), small, THUMB)
        full = f"pictures/{number}.jpg"
    return {"t": f"pictures/{number}.jpg", "f": full}


def crop_of(one: Shown, folder: Path, out: Path) -> dict[str, str]:
    """As `picture_of`, of an animal in a box."""
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
    address = address_of(one.file, out) if shown else f"pictures/{number}-whole.jpg"
    told = {"t": f"pictures/{number}.jpg", "f": f"pictures/{number}-large.jpg"}
    return {**told, "o": f"pictures/{number}-whole.jpg", "a": address}


def framed(image: Image.Image, box: str) -> Image.Image:
    """A small picture with a frame around a box."""
    small = image.convert("RGB")
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    place = pixels_of(parsed_box(box), small.size, 0)
    draw = ImageDraw.Draw(small)
    for colour, width in (("black", 10), ("yellow", 6)):
        draw.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), outline=colour, width=width)
    return small


def address_of(file: Path, out: Path) -> str:
    return quote(os.fsencode(os.path.relpath(file.absolute(), out.resolve()).replace(os.sep, "/")))


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


def review_data(
    out: Path, season: Season, answers: pd.DataFrame, pictures: Sequence[Sequence[Sequence[int]]]
) -> dict[str, Any]:
    """What the page knows of photographs and pictures, of which it writes thumbnails into out/pictures.

    Beside it `write_page` wants headline and cautions (texts), root (of the photographs), and names that are taken.
    """
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    known, asked = season.known, season.new.table
    shown = sorted({k for rows in pictures for own in rows for k in own})
    jobs = [Shown(*season.shelf.where(k), f"k{n:06d}") for n, k in enumerate(shown)]
    jobs += [Shown(season.new, i, f"q{i:06d}") for i in range(len(asked))]
    with ThreadPoolExecutor(core_count()) as pool:
        made = list(progress(pool.map(lambda one: picture_of(one, folder, out), jobs), "drawing pictures", len(jobs)))
    flank = next((c for c in ("flank", "orientation") if c in known and c in asked), None)
    pics = [{**one, "n": known.path.iloc[k], "l": known[flank].iloc[k] if flank else ""} for one, k in zip(made, shown)]
    number = {k: n for n, k in enumerate(shown)}
    groups = answers[answers.group != ""].groupby("group").groups
    together = answers.encounter.map(answers.encounter.value_counts())
    animals = asked.groupby("path").cumcount() + 1, asked.groupby("path").path.transform("size")
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
        if animals[1].iloc[i] > 1:
            own = {**own, "b": f"animal {animals[0].iloc[i]} of {animals[1].iloc[i]}"}
        kin = [int(k) for k in groups.get(row["group"], ()) if k != i][:3]
        items.append(
            {
                **own, "m": row["mark"], "i": row["image"], "c": row["class"], "p": number_or_none(row["probability"]),
                "w": number_or_none(row["probability_new"]), "d": row.get("taken", ""), "k": row.get("camera", ""),
                "l": asked[flank].iloc[i] if flank else "", "e": int(row["encounter"]),
                "en": row["encounter_identity"],
                "ep": number_or_none(row["encounter_probability"]), "es": int(together.iloc[i]), "g": row["group"],
                "gp": number_or_none(row["group_probability"]), "gm": kin, "q": candidates,
            }
        )  # fmt: skip
    run = hashlib.sha256("".join(answers.mark).encode() + str(out.resolve()).encode()).hexdigest()[:16]
    return {"title": "Who is who", "run": run, "prefix": "new-", "pics": pics, "items": items}


def write_page(path: Path, data: dict[str, Any]) -> Path:
    """A page of review data: script and data are inside, so that it opens by a double click, without a server.

    It loads nothing but pictures, and runs nothing but its own script, whose hash its policy names.
    """
    script = (HERE / "review.js").read_text(encoding="utf-8")
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
