"""A large catalogue in identify, by stored features: python tools/bench.py catalogue [--images N].

Random features stand for those of photographs: five images of each animal in three encounters, a week of new
photographs of which half show animals that the catalogue lacks. Each step behind the embedding is timed, with the most
memory of the process.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..identify.albums import Album
from ..identify.answers import answer_table, rank_animals
from ..identify.decisions import Decisions
from ..identify.trust import trust_in
from .measuring import count, machine, peak_memory, reset_peak
from .strangers import CHOSEN, season_of

EACH, NOISE = np.array([0, 0, 1, 1, 2]), 0.7  # encounters of an animal's images; noise, that of animals being 1


def albums(images: int, photographs: int, size: int) -> tuple[Album, Album, np.ndarray, np.ndarray]:
    """A catalogue and a week as they are once embedded, with their encounters; photographs come in pairs."""
    rng = np.random.default_rng(0)
    animals = images // len(EACH)
    centres = rng.standard_normal((2 * animals, size), np.float32)
    kept, seen = np.repeat(np.arange(animals), len(EACH)), np.repeat(rng.integers(0, 2 * animals, photographs // 2), 2)
    met, encounters = kept * 3 + np.tile(EACH, animals), np.arange(len(seen)) // 2
    found = []
    for codes in (kept, seen):
        features = centres[codes] + NOISE * rng.standard_normal((len(codes), size), np.float32)
        told = {"identity": np.char.add("a", codes.astype(str)), "path": [f"{i}.jpg" for i in range(len(codes))]}
        table = pd.DataFrame({**told, "taken": "", "camera": "", "mark": [f"m{i}" for i in range(len(codes))]})
        found.append(Album(table, torch.from_numpy(features)))
    return *found, met, encounters


def run(options: argparse.Namespace) -> None:
    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    known, new, met, encounters = albums(options.images, options.photographs, options.size)
    no = Decisions.none()

    def timed(what: str, step: Callable[[], Any]) -> Any:
        reset_peak()
        begun, before = time.monotonic(), time.process_time()
        found = step()
        spent = time.monotonic() - begun, time.process_time() - before
        print(f"{what:<40}{spent[0]:>9.1f} s ({spent[1]:.1f} of a core){peak_memory():>9,.0f} MB", flush=True)
        return found

    print(f"{len(known.table):,} images of {known.table.identity.nunique():,} animals, {len(new.table):,} photographs")
    season = timed("choosing evidence", lambda: season_of(known, new, met, encounters))
    ranked = timed("ranking animals", lambda: rank_animals(season, no))
    trust = timed("fitting confidence", lambda: trust_in(season, ranked, set(), CHOSEN))
    levels = CHOSEN["sure"], CHOSEN["new"], trust.weak
    answers, _ = timed(
        "answers, and groups of new animals", lambda: answer_table(season, ranked, trust.odds, no, *levels)
    )
    right = (answers.identity == new.table.identity).mean()
    print(f"{right:.0%} of first names right, {', '.join(trust.headline(answers))}")


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--images", type=count, default=50_000, metavar="N", help="images of the catalogue (50000)")
    add("--photographs", type=count, default=1000, metavar="N", help="new ones (1000)")
    add("--size", type=count, default=256, metavar="N", help="length of the features (256)")
