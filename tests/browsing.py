"""Pages in a browser, and what a person does there; a synthetic page to review."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from jaguar_kit_tools.identify import decisions, review
from PIL import Image

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


def page_data(out: Path) -> dict:
    text = (out / "review.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def synthetic_page(folder: Path, count: int, **more: object) -> Path:
    """A page of `count` photographs that share a few pictures; more: of its data."""
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (288, 384, 3), np.uint8)).save(folder / "pictures" / f"{number}.jpg")
    pics = [
        {
            "t": f"pictures/{i % 8}.jpg", "f": f"pictures/{i % 8}.jpg", "n": f"k{i}.jpg", "l": ("left", "right")[i % 2],
            "d": f"2025-0{i % 9 + 1}-11", "m": f"c{i:015x}",
        }
        for i in range(900)
    ]  # fmt: skip
    items = []
    for i in range(count):
        own = {"n": "", "p": 0.3, "k": [i % 900, (i + 1) % 900, (i + 2) % 900]}
        items.append(
            {
                "t": f"pictures/{i % 8}.jpg", "f": f"pictures/{i % 8}.jpg", "m": f"{i:016x}", "p": i / count,
                "i": f"card{i % 9}/IMG_{i}.jpg", "c": ("sure", "look", "new")[i % 3], "w": 1 - i / count,
                "d": f"2026-05-{i % 28 + 1:02d} 10:00:00", "k": f"camera {i % 9}", "l": "left",
                "e": i, "en": "animal 1", "ep": 0.5, "es": 1, "g": "", "gp": None, "gm": [],
                "q": [{**own, "n": f"animal {(i + k) % 60}"} for k in range(5)],
            }
        )  # fmt: skip
    data = {
        "title": "Who is who",
        "run": f"r{count}",
        "root": "/w",
        "headline": ["many"],
        "cautions": [],
        "prefix": "new-",
    }
    animals = [{"n": f"animal {k}", "k": list(range(k, 900, 60)), "more": k % 3} for k in range(60)]
    data |= {"names": [f"animal {k}" for k in range(60)], "pics": pics, "animals": animals, "items": items}
    data |= more
    return review.write_page(folder / "review.html", data)


class Opened:
    """A page in a browser, and what went wrong there."""

    def __init__(self, browser, path: Path, width: int = 1280, ready: str = ".row", **more: object):
        """ready: what is there when the page is; more: of the browser's context, such as its color_scheme."""
        self.path, self.faults = path, []
        view = {"width": width, "height": 860}
        self.page = browser.new_context(viewport=view, accept_downloads=True, **more).new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "console", lambda line: self.faults.append(line.text) if line.type in ("error", "warning") else None
        )
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(ready)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def count(self) -> str:
        return self.page.inner_text("#count")

    def wait_for_count(self, words: str) -> None:
        """Until the line of counts says so; the page's own policy forbids to wait by a text that is evaluated in it."""
        self.page.locator("#count", has_text=words).wait_for()

    def export(self, path: Path) -> None:
        with self.page.expect_download() as waited:
            self.page.click("#export")
        waited.value.save_as(path)

    def exported(self, path: Path) -> pd.DataFrame:
        self.export(path)
        return decisions.read_decisions(path)

    def words(self, row: int) -> str:
        """What a row says that was decided."""
        return self.page.inner_text(f"#row{row} .said")
