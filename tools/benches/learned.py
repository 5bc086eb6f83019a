"""Whether what is learned on a catalogue names more photographs: python tools/bench.py learned --data DIR.

Weeks without strangers are drawn as by `strangers`, and as many half of which are strangers: known apart is how often a
photograph of a known animal is more like its first name than one of a stranger is. Beside the features as they are
stand two maps of them that are fitted on the catalogue of each draw: whitening by the scatter within individuals, and a
head of one layer behind which individuals are told apart by their angles with a margin. Each is tried on the catalogue
itself first, in five parts: encounters of a part are asked for where the map was fitted without them, and the map is
chosen where more of them are named rightly than by the features as they are, by a 95 % interval over individuals above
0, as identify does it (`identify/learned.py`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jaguar_kit as jk
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..identify.answers import rank_animals
from ..identify.decisions import Decisions
from ..identify.evidence import Recognised, recognised
from ..identify.learned import NEVER, Fit, figures_of, fitted_without, head, parts_of, recognised_by, through
from ..identify.likeness import Gallery
from ..identify.season import Season
from .measuring import count
from .strangers import photographed

SHRINKAGE = 0.3


def whitening(features: Tensor, identity: np.ndarray) -> Callable[[Tensor], Tensor]:
    """Divides by the scatter within individuals, shrunk towards the same in all directions."""
    features = jk.l2_normalize(features.double())
    codes = torch.from_numpy(np.unique(identity, return_inverse=True)[1])
    members = torch.nn.functional.one_hot(codes).double()
    means = (members.T @ features) / members.sum(0)[:, None]
    within = (features - means[codes]).T.cov()
    even = torch.eye(len(within)).double() * within.diagonal().mean()
    values, vectors = torch.linalg.eigh((1 - SHRINKAGE) * within + SHRINKAGE * even)
    return lambda found: (jk.l2_normalize(found.double()) @ (vectors / values.sqrt())).float()


WAYS: dict[str, Fit] = {"whitened": whitening, "head": head}


def seen_through(season: Season, change: Callable[[Tensor], Tensor]) -> Season:
    """The season by a map of its features."""
    return replace(season, likeness=through(season.likeness, change(season.likeness.embeddings)))


def by_parts(season: Season, fit: Fit) -> Recognised:
    """The catalogue's encounters, each asked for where the map was fitted without it."""
    gallery = Gallery.of(season.known.identity.to_numpy(str), season.known_met)
    part = parts_of(gallery)
    known = fitted_without(season.likeness, gallery, part, fit)
    return recognised_by(known, part, gallery, np.arange(len(part)))


def right_names(season: Season, truth: np.ndarray) -> int:
    return int((rank_animals(season, Decisions.none()).names[:, 0] == truth).sum())


def known_apart(season: Season, truth: np.ndarray) -> float:
    """How often a known animal's photograph is more like its first name than a stranger's is."""
    score, known = rank_animals(season, Decisions.none()).score[:, 0], np.isin(truth, season.known.identity)
    more = score[known, None] - score[~known]
    return float((more > 0).mean() + 0.5 * (more == 0).mean())


def strangers_told(season: Season, truth: np.ndarray) -> dict[str, float]:
    """How well each way tells known animals from strangers."""
    features, identity = season.likeness.embeddings, season.known.identity.to_numpy(str)
    told = {"plain apart": known_apart(season, truth)}
    for name, fit in WAYS.items():
        told[f"{name} apart"] = known_apart(seen_through(season, fit(features[: len(identity)], identity)), truth)
    return told


def measured(season: Season, truth: np.ndarray) -> dict[str, float]:
    """First names right in a week by each way, whether the catalogue chooses it, and seconds to fit and to choose."""
    identity, met = season.known.identity.to_numpy(str), season.known_met
    codes = np.unique(met, return_inverse=True)[1]
    plain = recognised(season.likeness, identity, codes, np.arange(codes.max() + 1))
    told = {"photographs": len(truth), "plain": right_names(season, truth), "plain rank": np.nanmean(plain.rank)}
    for name, fit in WAYS.items():
        begun = time.perf_counter()
        there = by_parts(season, fit)
        change = fit(season.likeness.embeddings[: len(met)], identity)
        told |= {f"{name} seconds": time.perf_counter() - begun, f"{name} rank": np.nanmean(there.rank)}
        told[name] = right_names(seen_through(season, change), truth)
        told[f"{name} chosen"] = figures_of(plain, there).get("least", -1.0) > 0
    return told


def run(options: argparse.Namespace) -> None:
    draw, rows = photographed(Path(options.data), options.backbone, None, NEVER), []
    for seed in range(options.draws):
        rows.append({**measured(*draw(seed, 0.0)), **strangers_told(*draw(seed, 0.5))})
        print("  ".join(f"{key} {float(value):.4g}" for key, value in rows[-1].items()), flush=True)
    table = pd.DataFrame(rows)
    print(f"\nof {table.photographs.sum()} photographs in {len(table)} weeks:")
    for name in ("plain", *WAYS):
        gain = (table[name] - table.plain) / table.photographs
        rank, apart = (table[f"{name} {what}"].mean() for what in ("rank", "apart"))
        line = (
            f"{name}: {table[name].sum()} right, reciprocal rank in the catalogue {rank:.3f}, known apart {apart:.3f}"
        )
        if name in WAYS:
            error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.nan
            line += f", {gain.mean():+.3f} (standard error {error:.3f}), chosen {table[f'{name} chosen'].sum()} times"
        print(line, flush=True)


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", required=True, help="folder in the competition's layout, with solution.csv")
    add("--backbone", default="tf_efficientnet_lite0", help="name or safetensors file (tf_efficientnet_lite0)")
    add("--draws", type=count, default=10, metavar="N", help="weeks (10)")
