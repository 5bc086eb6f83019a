"""What a recipe can name, and what it makes of images: python tools/describe.py list [KIND ...] | sheet RECIPE"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import types
import typing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import jaguar_kit
import pandas as pd
import timm
from jaguar_kit import (
    BACKBONES,
    REGISTRY,
    Component,
    KitError,
    MiniConfig,
    Range,
    __version__,
    add_overrides,
    atomic,
    echo,
    expand,
    find_data,
    hints_of,
    load_competition,
    load_recipe,
    lookup,
    open_image,
    open_store,
    registered,
    settings_of,
    suggest,
    turns_of,
)
from PIL.PngImagePlugin import PngInfo

from .crops import cropped
from .figures import augmentation_sheet
from .page import Page

LEFT_OUT = {  # what others have and is not here, by the word that asks for it: why
    word: f"left out: {why}"
    for words, why in {
        "queue memory_bank xbm": "a queue adds negatives, of which batches of few individuals have enough "
        "(expected a larger train.batch_size, or sampler pk)",
        "lightglue superglue matcher": "a learned matcher's weights are no part of the kit (expected local, whose "
        "spots match as mutual nearest neighbours)",
        "concat concatenated multi_stage": "concatenated stages gained .03 to .05 on photographs of nyala by the usual "
        "measure and nothing across encounters, for they tell scenes (expected native or gem)",
        "boosting xgboost": "fusion by boosting lost .03 to .07 against the sum on photographs of nyala (expected sum)",
        "sinkhorn": "it changed mAP by less than .007 on photographs of nyala (expected fuse)",
    }.items()
    for word in words.split()
}


def type_name(hint: Any) -> str:
    """A setting's type in a few words: "number above 0", "one of: a, b"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        if arguments[0] is Component:
            return arguments[1]
        ranges = [str(extra) for extra in arguments[1:] if isinstance(extra, Range)]
        return " ".join([type_name(arguments[0]), *filter(None, ranges)])
    if origin in (typing.Union, types.UnionType):
        return f"{type_name(next(a for a in arguments if a is not type(None)))}, or null"
    if origin is Literal:
        return f"one of: {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"list of {type_name(arguments[0])}"
    return {float: "number", int: "whole number", bool: "true or false", str: "text"}.get(hint, "mapping")


def describe_part(kind: str, name: str) -> list[str]:
    """Lines that tell a registered part: what it is, then its settings with defaults and types."""
    factory = lookup(kind, name)
    meaning, hints = (inspect.getdoc(factory) or "").splitlines()[0], hints_of(factory)
    lines = [f"  {name:<30}{meaning}"]
    for key, default in settings_of(kind, name).items():
        shown = [part.name for part in default] if isinstance(default, tuple) and is_parts(default) else default
        shown = json.dumps(list(shown) if isinstance(shown, tuple) else shown)
        lines.append(f"      {key + ': ' + shown:<26}{type_name(hints[key])}")
    return lines


def is_parts(values: tuple) -> bool:
    return bool(values) and all(isinstance(value, Component) for value in values)


def reference_page(kinds: Sequence[str]) -> Page:
    """All that a recipe can name, with settings, and all that a notebook can call, with signatures and examples."""
    page = Page(f"jaguar_kit {__version__}: what recipes can name, and notebooks can call")
    page.text(
        "A recipe names parts with their settings; a notebook builds the same ones by jaguar_kit.build(kind, name)."
    )
    for kind in kinds:
        page.heading(kind)
        rows = []
        for name in registered(kind):
            first, *settings = describe_part(kind, name)
            meaning = first.strip().removeprefix(name).strip()
            rows.append(
                {"name": name, "meaning": meaning, "settings": "; ".join(" ".join(s.split()) for s in settings)}
            )
        if kind == "optimizer":  # timm's are many, and alike
            rows = [row for row in rows if not row["meaning"].startswith("timm's ")]
        page.table(pd.DataFrame(rows))
    page.heading("Functions and classes")
    for name in sorted(set(jaguar_kit.__all__), key=str.lower):
        thing = getattr(jaguar_kit, name)
        page.heading(name, 3)
        with contextlib.suppress(ValueError, TypeError):
            page.code(
                f"{name}{inspect.signature(thing)}".replace(" -> None", "" if inspect.isclass(thing) else " -> None")
            )
        words, _, example = (inspect.getdoc(thing) or "").partition(">>>")
        page.prose(words)
        if example:
            page.code(">>>" + example)
    return page


def list_command(argv: Sequence[str] | None = None) -> int:
    """`python -m jaguar_kit list [KIND ...]`: everything that a recipe can name."""
    kinds = sorted({kind for kind, _ in REGISTRY})
    parser = argparse.ArgumentParser(prog="jaguar_kit list", description="Lists what a recipe can name.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"only these: backbone, {', '.join(kinds)}")
    parser.add_argument(
        "--html", metavar="DIR", help="a page of all that recipes and notebooks can use, into this folder"
    )
    given = parser.parse_args(argv)
    if given.html:
        echo(f"  wrote {reference_page(kinds).write(Path(given.html))}")
        return 0
    wanted = given.kinds or ["backbone", *kinds]
    for kind in wanted:
        if kind not in ("backbone", *kinds):
            raise KitError(f"list: there is no kind of part '{kind}'; {suggest(kind, ('backbone', *kinds))}")
        echo(f"{kind}")
        if kind == "backbone":
            for name, known in BACKBONES.items():
                echo(f"  {name:<30}{known.architecture}{f' of {known.hub}' if known.hub else ''}")
            echo(f"  {'...':<30}any of the {len(timm.list_models())} names that timm knows")
        else:
            for name in registered(kind):
                echo("\n".join(describe_part(kind, name)))
    return 0


def sheet_command(argv: Sequence[str] | None = None) -> int:
    """`python -m jaguar_kit sheet RECIPE [--data DIR] [--out sheet.png] [-o dotted=value ...]`."""
    parser = argparse.ArgumentParser(
        prog="jaguar_kit sheet", description="Draws what a recipe's background and augmentation make of its images."
    )
    parser.add_argument("recipe", help="YAML file, such as recipes/final.yaml")
    parser.add_argument("--data", help="folder in the competition's layout, or of identity/*.jpg")
    parser.add_argument("--out", default="sheet.png", help="image to write (sheet.png)")
    add_overrides(parser)
    given = parser.parse_args(argv)
    recipe = expand(load_recipe(given.recipe, given.overrides))[0].recipe
    with_mini = replace(recipe, data=replace(recipe.data, mini=recipe.data.mini or MiniConfig()))
    competition = load_competition(find_data(with_mini, given.data), recipe.data.masks)
    shown = competition.paths[:: max(1, len(competition.paths) // 6)][:6]
    turn = dict(zip(competition.paths, turns_of(competition, recipe.data.turn)))
    turns = [turn.get(path, 0.0) for path in shown]
    files, masks = cropped(competition, recipe.data) if recipe.data.boxes else (competition.paths, recipe.data.masks)
    files = [dict(zip(competition.paths, files))[path] for path in shown]
    store = open_store(competition.root, files, recipe.data.size, recipe.data.fit, masks, turns=turns)
    if recipe.background.build().needs_masks and not store.has_masks:
        echo(f"  note: background {recipe.background.name!r} needs masks, which these images lack: it stays")
    sheet = augmentation_sheet(store, recipe)
    check_own_sheet(Path(given.out))
    marked = PngInfo()
    marked.add_text("Software", f"jaguar_kit {__version__}")
    with atomic(given.out) as temporary:
        sheet.save(temporary, "PNG", pnginfo=marked)
    echo(f"  wrote {given.out}")
    return 0


def check_own_sheet(path: Path) -> None:
    """Refuses to write over a file that is no earlier sheet."""
    if path.is_dir() or (path.exists() and not was_drawn_here(path)):
        raise KitError(f"--out: {path}: is something else than an earlier sheet; choose another name")


def was_drawn_here(path: Path) -> bool:
    try:
        with open_image(path) as image:
            return str(image.info.get("Software", "")).startswith("jaguar_kit")
    except Exception:  # noqa: BLE001 - PIL raises nearly anything on what is no image
        return False
