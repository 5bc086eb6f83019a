"""The page to review: python tools/bench.py review --data DIR --backbone NAME.

Key presses a photograph: a person goes through the page of one week of a season (that of `season`, where a fifth of the
animals are strangers) in a browser, and knows the animals by sight. Where one is among the candidates its number is
pressed, unless it is the first, and `a`; else it is found by the part of its name that tells it, one letter after the
other until it is the first that is found; who is new is named as the page proposes, and found by that name later. Once
in twenty times the first candidate is confirmed by mistake, and taken back. Every key counts, Shift too. Beside it, by
arithmetic, `typed`: the same person where names that are not offered are written out for each photograph.

Fluid: how long a page of many photographs takes until it can be worked with, and a decision, in ms.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaguar_kit import KitError, quiet

from ..identify.identify import identify
from ..identify.overview import DATA
from ..identify.review import write_page
from .measuring import count, output_file
from .season import lay_out

MISTAKES = 0.05
BROWSERS = ("chromium", "google-chrome", "chromium-browser")


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A page in a browser without a screen."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise KitError("review: Playwright is not installed (expected: pip install playwright)") from None
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as play:
        window = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = window.new_context(viewport={"width": 1280, "height": 860}).new_page()
        page.goto(path.resolve().as_uri())
        page.wait_for_selector(".row")
        yield page
        window.close()


class Person:
    """Presses keys on the page, and counts them."""

    def __init__(self, page: Any, data: dict[str, Any], truth: dict[str, str], strangers: set[str], rng: Any):
        self.page, self.items, self.truth, self.strangers, self.rng = page, data["items"], truth, strangers, rng
        self.called: dict[str, str] = {}  # strangers, by the names that the page proposed
        self.pressed = 0

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            self.pressed += 1 + key.startswith("Shift+")

    def here(self) -> int:
        return int(self.page.locator(".row.here").get_attribute("id")[3:])

    def decided(self) -> set[int]:
        """The photographs that have a name; which costs no key."""
        found = self.page.evaluate("items.map((item, i) => settled(outcome(item.m)) ? i : -1)")
        return {i for i in found if i >= 0}

    def find(self, name: str) -> None:
        """Any animal, by what tells its name: the digits at its end, else its beginning."""
        digits = name[len(name.rstrip("0123456789")) :]
        self.press("f")
        for letter in digits or name:
            self.press(letter)
            if self.page.locator("#c-found li span").first.text_content() == name:
                break
        else:
            while self.page.locator("#c-found li[aria-selected=true] span").first.text_content() != name:
                self.press("ArrowDown")
        self.press("Enter")

    def decide(self) -> None:
        """The photograph at hand, with its encounter."""
        item = self.items[self.here()]
        own = self.truth[item["i"]]
        if self.rng.random() < MISTAKES:
            self.press("y", "u")
        names = [one["n"] for one in item["q"]]
        own = self.called.get(own, own)
        if own in names:
            number = names.index(own)
            self.press(*([str(number + 1)] if number else []), "a" if item["es"] > 1 else "y")
        elif own in self.strangers:
            self.press("w")
            self.called[own] = self.page.input_value("#n-name")
            self.press("Enter")
        else:
            self.find(own)


def presses(out: Path, truth: dict[str, str], strangers: set[str], seed: int) -> dict[str, Any]:
    """Key presses for each photograph of a page, those of an encounter in equal shares."""
    data = json.loads(DATA.search((out / "review.html").read_text(encoding="utf-8"))[1])
    items, rng = data["items"], np.random.default_rng(seed)
    share, left = np.zeros(len(items)), set(range(len(items)))
    with opened(out / "review.html") as page:
        person = Person(page, data, truth, strangers, rng)
        while left:
            before = person.pressed
            person.decide()
            if not (now := left & person.decided()):
                raise KitError(f"review: {items[person.here()]['i']} can't be decided by the keys of {__name__}")
            share[list(now)] = (person.pressed - before) / len(now)
            left -= now
    typed = typed_presses(items, truth, strangers)
    return {
        "photographs": len(items),
        "encounters": len({item["e"] for item in items}),
        "strangers": sum(truth[item["i"]] in strangers for item in items),
        "offered": sum(truth[item["i"]] in [one["n"] for one in item["q"]] for item in items),
        "mean": round(float(share.mean()), 2),
        "median": round(float(np.median(share)), 2),
        "typed mean": round(float(typed.mean()), 2),
        "typed median": round(float(np.median(typed)), 2),
    }


def typed_presses(items: list[dict[str, Any]], truth: dict[str, str], strangers: set[str]) -> np.ndarray:
    """Key presses for each photograph where a name that is not offered is written out, photograph by photograph."""
    share, met = np.full(len(items), -1.0), set()
    for i, item in enumerate(items):
        own, names = truth[item["i"]], [one["n"] for one in item["q"]]
        if share[i] >= 0:  # was confirmed with its encounter
            continue
        if own in names:
            together = [k for k, other in enumerate(items) if other["e"] == item["e"] and share[k] < 0]
            share[together] = (1 if own == names[0] else 2) / len(together)
        else:  # w, the name unless it is the one that the page proposes, and Enter
            share[i] = 2 if own in strangers - met else 2 + len("new-001" if own in strangers else own)
        met.add(own)
    return share


def many_photographs(out: Path, copies: int, folder: Path) -> Path:
    """The page of answers again, its photographs copied until there are so many."""
    data = json.loads(DATA.search((out / "review.html").read_text(encoding="utf-8"))[1])
    own, items = data["items"], []
    for number in range(copies):
        item = own[number % len(own)]
        items.append({**item, "m": f"{number:016x}", "e": number, "es": 1, "g": "", "gm": []})
    shutil.copytree(out / "pictures", folder / "pictures")
    return write_page(folder / "review.html", {**data, "items": items, "run": f"{copies}"})


def fluid(path: Path, decisions: int = 40) -> dict[str, float]:
    """Milliseconds until the page can be worked with, and for a decision."""
    with opened(path) as page:
        ready, begun = page.evaluate("performance.now()"), time.perf_counter()
        for _ in range(decisions):
            page.keyboard.press("y")
        page.locator("#count", has_text=f"{decisions} of").wait_for()
        return {"ready": round(ready), "decision": round((time.perf_counter() - begun) * 1000 / decisions, 1)}


def run(options: argparse.Namespace) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        catalogue, weeks, truth, strangers = lay_out(Path(options.data), place, options.weeks, options.seed)
        for number, week in enumerate(weeks[: options.measured], 1):
            out = place / f"answers{number}"
            with quiet():
                identify(queries=week, catalogue=catalogue, out=out, backbone=options.backbone, local=options.local)
            rows.append({"week": number, **presses(out, truth, strangers, options.seed)})
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        best = [fluid(many_photographs(out, options.size, place / f"many{k}")) for k in range(options.repeat)]
        told = {key: min(one[key] for one in best) for key in best[0]}
        print(
            f"{options.size} photographs: ready after {told['ready']} ms, {told['decision']} ms a decision", flush=True
        )
        rows.append({"photographs": options.size, **told})
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", required=True, help="folder in the competition's layout, with solution.csv")
    add("--backbone", required=True, help="name or safetensors file")
    add("--local", action="store_true", help="matching spots as well")
    add("--weeks", type=count, default=3, help="into which encounters are dealt (3)")
    add("--measured", type=count, default=1, help="weeks whose pages are worked through (1)")
    add("--size", type=count, default=5000, help="photographs of the page that is timed (5000)")
    add("--repeat", type=count, default=3, help="timings, of which the best counts (3)")
    add("--seed", type=int, default=0, help="of strangers, weeks and mistakes (0)")
    add("--out", type=output_file, help="a JSON file")
