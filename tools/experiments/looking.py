"""Analyses of finished runs, which a recipe asks for by `analysis`, and a report by `--look`."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jaguar_kit import (
    Component,
    KitError,
    Recipe,
    RunSpec,
    echo,
    fingerprint,
    lookup,
    read_record,
    register,
    registered,
    suggest,
    write_json,
    write_table,
)

from .figures import image_type
from .looks import Look
from .page import Page
from .scenes import report_scene, two_by_two

ASKED: ContextVar[tuple[Component, ...]] = ContextVar("looks that a command asks for", default=())


@dataclass(frozen=True, eq=False)
class LookContext:
    """What an analysis of finished runs looks at, and where it leaves its tables."""

    shown: Sequence[Look]  # the runs that the report shows in detail, the control first
    every: Sequence[Look]  # the median run of each variant, the control first
    folder: Path

    def keep(self, name: str, table: pd.DataFrame) -> None:
        write_table(self.folder / f"{name}.csv", table)


Part = Callable[..., Page]


def look(name: str) -> Callable[[Part], Part]:
    """Registers an analysis of finished runs: a function of a LookContext, and of settings."""

    def registering(part: Part) -> Part:
        part.of_runs = True
        return register("analysis", name)(part)

    return registering


def is_look(part: Component) -> bool:
    """Whether an analysis looks at finished runs, and not at the training images."""
    return getattr(lookup("analysis", part.name), "of_runs", False)


def looks_there() -> list[str]:
    return [name for name in registered("analysis") if is_look(Component("analysis", name))]


def asked_of(recipe: Recipe) -> list[Component]:
    """The looks that the recipe asks for, and those of the command, each once."""
    found = {part.name: part for part in (*recipe.analysis, *ASKED.get()) if is_look(part)}
    for name in found:
        echo(f"  look: {name}")
    return list(found.values())


@contextmanager
def looking_at(names: Sequence[str]) -> Iterator[None]:
    """Within the block reports look at what is named too."""
    for name in names:
        if name not in looks_there():
            raise KitError(f"--look: {name!r} is not known; {suggest(name, looks_there())}")
    token = ASKED.set(tuple(Component("analysis", name) for name in names))
    try:
        yield
    finally:
        ASKED.reset(token)


# what a look found stays on the page when the report is drawn again


def state_of(folder: Path, specs: Sequence[RunSpec]) -> str:
    """Changes when a finished run of the experiment is made anew, and when there are others."""
    told = [(spec.folder, sorted((folder / spec.folder).rglob("metrics.json"))) for spec in specs]
    return fingerprint([[name, [path.read_text(encoding="utf-8") for path in paths]] for name, paths in told])


def keep_looks(folder: Path, found: dict[str, Page], state: str) -> None:
    """Leaves what each look put on the page beside the experiment; its pictures lie in figures/."""
    for name, page in found.items():
        told = {"html": page.html, "lines": page.lines, "images": list(page.images)}
        write_json(kept_at(folder, name), {"state": state, "made": time.strftime("%Y-%m-%d %H:%M"), **told})


def kept_at(folder: Path, name: str) -> Path:
    return folder / "analysis" / f"look-{name}.json"


def kept_looks(folder: Path, state: str, besides: Container[str] = ()) -> dict[str, Page]:
    """What earlier looks left, but for those named, each with a word where the runs are others by now."""
    names = [name for name in looks_there() if name not in besides and kept_at(folder, name).is_file()]
    return {name: kept_look(folder, name, state) for name in names}


def kept_look(folder: Path, name: str, state: str) -> Page:
    again, page = f"tools/report.py {folder} --look {name} makes it again", Page()
    try:
        told = read_record(kept_at(folder, name), {"html": list, "lines": list, "images": list, "made": str}, again)
    except KitError as error:
        page.note(f"Note: {error}")
        return page
    page.html, page.lines = list(map(str, told["html"])), list(map(str, told["lines"]))
    if told.get("state") != state:
        older = Page()
        older.note(f"Note: of an older state of the runs, made {told['made']}; {again}.")
        page.html[1:1], page.lines[1:1] = older.html, older.lines  # behind the heading
    for image in map(str, told["images"]):
        for path in (folder / "figures").glob(f"{image}.*"):
            page.images |= {image: path.read_bytes()} if image_type(path.read_bytes()) == path.suffix[1:] else {}
    return page


def check_looks(recipe: Recipe) -> None:
    """Refuses to look at runs where none are made."""
    for part in recipe.analysis:
        if is_look(part) and not recipe.train.epochs and recipe.checkpoint is None:
            raise KitError(f"{recipe.name}: analysis: {part.name}: looks at trained runs, and none is made here")


@look("scene")
def scene(context: LookContext) -> Page:
    """Reliance of every variant on context, and training and testing each with and without background."""
    page, table = Page(), None
    page.heading("Scene", 3)
    report_scene(page, context.every)
    table = two_by_two(context.every)
    if len(table):
        context.keep("two-by-two", table)
        page.table(
            table,
            "Trained with and without background, each tested with and without: lost without: mAP, with its 95 % "
            "interval over identities. A model that learned the animal loses little; one trained without background "
            "may lose where it meets one.",
        )
    return page
