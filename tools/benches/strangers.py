"""How honest identify is at any share of strangers: python tools/bench.py strangers [--data DIR].

Weeks are drawn of which 0, 50 and 100 % (--shares) show animals that the catalogue lacks; how many first names are
right stands beside how many the headline expects, and behind it what probabilities were told, and how often it was so:
of names, of new animals, and of two encounters of a group of new animals. Simulated features by default: of each flank
of an animal, encounter and photograph. With --data those of real photographs: half of the individuals are the
catalogue's in each draw, encounters are left out of it whole, and animals keep two at least. With --local spots are
matched as well, of each photograph and its --nearest others by features. What is worked out is kept. alone: first names
that would be right if each photograph were an encounter.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jaguar_kit as jk
import numpy as np
import pandas as pd
import torch

from ..experiments.spots import without_fixed
from ..identify.albums import Album, Shelf, embed_album, spots_of
from ..identify.answers import answer_table, rank_animals
from ..identify.asked import USUAL, model_of
from ..identify.confidence import FRESH, SURE
from ..identify.decisions import Decisions
from ..identify.encounters import encounters_of
from ..identify.evidence import chosen
from ..identify.learned import AUTO, MODES, with_head
from ..identify.likeness import Likeness, kept_strengths, nearest_pairs, symmetric
from ..identify.odds import interval_of
from ..identify.season import Season
from ..identify.trust import trust_in
from .calibration import Calibrations, calibration_table, pairs_of_groups, print_calibration
from .measuring import a_share, count

WEEK = 120  # photographs
SHARES = (0.0, 0.5, 1.0)  # of strangers in a week
STRENGTHS = {"weak": 3.5, "middling": 1.4, "strong": 0.9}  # noise of simulated photographs, that of animals being 1
CHOSEN = {**USUAL, "weights": None, "share_new": None}

Draw = Callable[[int, float], tuple[Season, np.ndarray]]  # of a seed and a share of strangers: a season, and the truth


def season_of(
    known: Album, new: Album, met: np.ndarray, encounters: np.ndarray, spots: Any = None, head: str = AUTO
) -> Season:
    """A season of albums that were embedded, of encounters that are known, and of spots that were matched (N, N)."""
    plain = Likeness(torch.cat([known.embeddings, new.embeddings]), jk.build("geometry", "cosine"))
    matched = None if spots is None else partial(replace, spots=spots, by_query=True)
    identity = known.table.identity.to_numpy(str)
    likeness, words = chosen(plain, identity, met, matched)
    with jk.quiet():
        likeness, learned = with_head(likeness, identity, met, head)
    return Season(Shelf((known,)), new, likeness, met, encounters, evidence=words, learned=learned)


# simulated


def simulated(noise: float, animals: int = 60, size: int = 64, head: str = AUTO) -> Draw:
    """Features of animals with two flanks, which seven times of ten are as of two animals; two to four encounters each
    in the catalogue, two photographs in each encounter."""
    strangers = animals // 2

    def draw(seed: int, share: float) -> tuple[Season, np.ndarray]:
        rng = np.random.default_rng(seed)
        flanks = rng.normal(size=(animals + strangers, 2, size))
        flanks[:, 1] = np.where(rng.random((len(flanks), 1)) < 0.3, flanks[:, 0], flanks[:, 1])
        own, others = rng.integers(0, animals, WEEK // 2), rng.integers(animals, len(flanks), WEEK // 2)
        week = np.where(np.arange(WEEK // 2) < share * (WEEK // 2), others, own)
        kept = np.repeat(np.arange(animals), rng.integers(2, 5, animals))
        albums = []
        for seen in (kept, week):
            met = flanks[seen, rng.integers(0, 2, len(seen))] + noise / 2 * rng.normal(size=(len(seen), size))
            features = np.repeat(met, 2, 0) + noise * rng.normal(size=(2 * len(seen), size))
            table = pd.DataFrame(
                {"identity": [f"a{code:03d}" for code in np.repeat(seen, 2)], "taken": "", "camera": ""}
            )
            table = table.assign(
                path=[f"{i}.jpg" for i in range(len(table))], mark=[f"m{i}" for i in range(len(table))]
            )
            albums.append(Album(table, torch.from_numpy(features).float()))
        met, encounters = (np.repeat(np.arange(len(seen)), 2) for seen in (kept, week))
        return season_of(*albums, met, encounters, head=head), albums[1].table.identity.to_numpy(str)

    return draw


# of photographs


def photographed(data: Path, backbone: str, nearest: int | None, head: str = AUTO) -> Draw:
    """Weeks of a folder in the competition's layout whose test identities are known; with matching spots of each
    photograph and its `nearest` others, all for 0, none for None."""
    competition, recipe = jk.load_competition(data), model_of(None, backbone)[0]
    asked = competition.test.assign(identity=competition.solution.loc[competition.test.filename].to_numpy(str))
    table = pd.concat([competition.train, asked], ignore_index=True).fillna("").assign(taken="", camera="", mark="")
    device = jk.pick_device("auto")
    embedder = jk.embedder_for(recipe)[0].to(device).eval()
    album = embed_album(recipe, embedder, competition.root, table, device, "embedding the photographs")
    album.table["mark"] = [f"m{i}" for i in range(len(album.table))]
    met = encounters_of(album.table, album.hashes)
    strength = None if nearest is None else spots_between(album, met, nearest, device)

    def draw(seed: int, share: float) -> tuple[Season, np.ndarray]:
        kept, week = parted(album.table.identity.to_numpy(str), met, share, np.random.default_rng(seed))
        known, new = album.part(kept), album.part(week)
        rows = np.r_[kept, week]
        spots = None if strength is None else strength[rows][:, rows]
        return season_of(known, new, met[kept], met[week], spots, head), new.table.identity.to_numpy(str)

    return draw


def spots_between(album: Album, met: np.ndarray, nearest: int, device: torch.device) -> Any:
    """log(1 + strength) of the matching spots of images and their nearest others (N, N), sparse, but for those of one
    encounter."""
    rows, plain = np.arange(len(met)), Likeness(album.embeddings, jk.build("geometry", "cosine"))
    pairs = nearest_pairs(plain, rows, rows, met, nearest or len(met))
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    print(f"{len(pairs):,} pairs of {len(met)} photographs", flush=True)
    features = without_fixed(spots_of([album], device), met)
    return symmetric(pairs, np.log1p(kept_strengths(features, pairs, device).numpy()), len(met))


def parted(identity: np.ndarray, met: np.ndarray, share: float, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Images of a catalogue of half of the individuals, and of a week, `share` of which show the other half."""
    names = rng.permutation(np.unique(identity))
    there = np.isin(identity, names[: len(names) // 2])
    encounters = pd.DataFrame({"met": met, "identity": identity, "there": there}).groupby("met").first()
    left, week = encounters.identity.value_counts().to_dict(), np.zeros(len(met), bool)
    for known, wanted in ((True, WEEK * (1 - share)), (False, WEEK * share)):
        taken = 0
        for row in encounters[encounters.there == known].sample(frac=1, random_state=rng).itertuples():
            if taken < wanted and (not known or left[row.identity] > 2):
                left[row.identity] -= 1
                week |= met == row.Index
                taken = int((week & (there == known)).sum())
    return np.flatnonzero(there & ~week), np.flatnonzero(week)


# what is told of them, and what is so


def told_of(season: Season, truth: np.ndarray) -> tuple[dict[str, Any], Calibrations]:
    """What the headline tells of a week, beside what is so; and the probabilities of its answers."""
    decisions = Decisions.none()
    ranked = rank_animals(season, decisions)
    trust = trust_in(season, ranked, set(), CHOSEN)
    answers, _ = answer_table(season, ranked, trust.odds, decisions, *trust.levels, trust.weak)
    right = (answers.identity == truth).to_numpy()
    expected, low, high = interval_of(trust.right)
    certain, fresh = ((answers["class"] == kind).to_numpy() for kind in (SURE, FRESH))
    calibrations = {
        "names": (answers.probability.to_numpy(float), right),
        "new animals": (answers.probability_new.to_numpy(float), ~np.isin(truth, season.known.identity)),
        "groups of new animals": pairs_of_groups(season, truth),
    }
    told = {
        "photographs": len(truth),
        "right": int(right.sum()),
        "alone": int((rank_animals(one_by_one(season), decisions).names[:, 0] == truth).sum()),
        "expected": expected,
        "low": low,
        "high": high,
        "holds": low <= right.sum() <= high,
        "share": trust.odds.share if trust.odds else np.nan,
        "told": bool(not trust.share_told),
        "sure": int(certain.sum()),
        "sure and right": int(right[certain].sum()),
        "head": int(season.learned.used),
        "new": int(fresh.sum()),
        "new and so": int((~np.isin(truth, season.known.identity))[fresh].sum()),
    }
    return told, calibrations


def one_by_one(season: Season) -> Season:
    """As if each photograph, of the catalogue too, were an encounter."""
    return replace(season, known_met=np.arange(len(season.known)), encounters=np.arange(len(season.new.table)))


def shares_told(draw: Draw, draws: int, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """A row for each share of strangers, of that many draws; prints it, and what probabilities were told."""
    rows, tables = [], []
    for share in shares:
        weeks = [told_of(*draw(seed, share)) for seed in range(draws)]
        found = pd.DataFrame([told for told, _ in weeks])
        total = found[
            ["photographs", "right", "alone", "expected", "sure", "sure and right", "new", "new and so", "head"]
        ].sum()
        wide = (found.high - found.low).mean()
        means = {"holds": found.holds.sum(), "width": wide, "share": found["share"].mean(), "told": found.told.sum()}
        rows.append({"strangers": share, "draws": draws, **total, **means})
        print("  ".join(f"{key} {value:.4g}" for key, value in rows[-1].items()), flush=True)
        tables.append(calibration_table([told for _, told in weeks]).assign(strangers=share))
    print_calibration(pd.concat(tables))
    return pd.DataFrame(rows)


def run(options: argparse.Namespace) -> None:
    if options.data:
        nearest = options.nearest if options.local else None
        draw = photographed(Path(options.data), options.backbone, nearest, options.head)
        shares_told(draw, options.draws, options.shares)
        return
    for name, noise in STRENGTHS.items():
        print(f"simulated, {name}:")
        shares_told(simulated(noise, head=options.head), options.draws, options.shares)


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", help="folder in the competition's layout, with solution.csv (simulated features)")
    add("--backbone", default="tf_efficientnet_lite0", help="name or safetensors file (tf_efficientnet_lite0)")
    add("--local", action="store_true", help="matching spots as well")
    add("--nearest", type=int, default=60, metavar="N", help="others that each is matched with, 0 for all (60)")
    add("--head", choices=MODES, default=AUTO, help="learned on the catalogue (auto)")
    add("--shares", type=a_share, nargs="+", default=SHARES, metavar="S", help="of strangers in a week (0 0.5 1)")
    add("--draws", type=count, default=40, metavar="N", help="weeks at each share (40)")
