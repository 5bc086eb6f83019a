"""The page on which a person confirms or rejects answers: one HTML file, and pictures beside it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from jaguar_kit import core_count, open_image, progress, upright, write_text
from PIL import Image

from .season import Season

HERE = Path(__file__).parent
SHOWN_BY_BROWSERS = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".avif"}
THUMB, LARGE = 384, 2048  # px of the longer side
MOST_SPOTS = 40  # that are drawn between two pictures


def save_small(image: Image.Image, path: Path, side: int) -> None:
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.convert("RGB").save(path, "JPEG", quality=82)


def picture_of(file: Path, fallback: Callable[[], Image.Image], folder: Path, number: str, out: Path) -> dict[str, str]:
    """A thumbnail of a photograph, and where its original is; a large copy of what browsers do not show.

    Addresses are relative to `out`, with every sign that has a meaning there escaped.
    """
    small = folder / f"{number}.jpg"
    try:
        with open_image(file) as opened:
            opened.draft("RGB", (2 * THUMB, 2 * THUMB))
            save_small(upright(opened), small, THUMB)
        full = quote(os.fsencode(os.path.relpath(file.absolute(), out.resolve()).replace(os.sep, "/")))
        if file.suffix.lower() not in SHOWN_BY_BROWSERS:
            with open_image(file) as opened:
                save_small(upright(opened), folder / f"{number}-large.jpg", LARGE)
            full = f"pictures/{number}-large.jpg"
    except Exception:  # noqa: BLE001 - what was decoded once is shown, whatever PIL says the second time
        save_small(fallback(), small, THUMB)
        full = f"pictures/{number}.jpg"
    return {"t": f"pictures/{number}.jpg", "f": full}


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
    jobs = [
        (season.shelf.file(k), partial(season.shelf.thumbnail, k), folder, f"k{n:06d}", out)
        for n, k in enumerate(shown)
    ]
    jobs += [
        (season.new.file(i), partial(season.new.thumbnail, i), folder, f"q{i:06d}", out) for i in range(len(asked))
    ]
    with ThreadPoolExecutor(core_count()) as pool:
        made = list(progress(pool.map(lambda job: picture_of(*job), jobs), "drawing pictures", len(jobs)))
    flank = next((c for c in ("flank", "orientation") if c in known and c in asked), None)
    pics = [{**one, "n": known.path.iloc[k], "l": known[flank].iloc[k] if flank else ""} for one, k in zip(made, shown)]
    number = {k: n for n, k in enumerate(shown)}
    groups = answers[answers.group != ""].groupby("group").groups
    together = answers.encounter.map(answers.encounter.value_counts())
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
