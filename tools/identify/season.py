"""A season: a catalogue, its new photographs, and how alike all of them are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
import torch
from jaguar_kit import (
    Embedder,
    Recipe,
    check_model,
    device_name,
    echo,
    embedder_for,
    memory_format,
)

from ..experiments.crops import MARGIN
from ..experiments.spots import LocalFeatures, without_fixed
from .albums import Album, Shelf, embed_album, spots_of
from .encounters import Alike, encounters_of, encounters_of_queries
from .evidence import chosen
from .learned import AUTO, Learned, with_head
from .likeness import Likeness, with_spots
from .photographs import Photographs

TOO_UNLIKE = 0.02  # share of one animal's images, each beside the most similar of another encounter, that are so
LEAST_KNOWN = 20  # images of the catalogue that were met twice, by which it is known what is too unlike


@dataclass(frozen=True, eq=False)
class Season:
    """A catalogue, the photographs of a season, and how alike all of them are."""

    shelf: Shelf
    new: Album
    likeness: Likeness
    known_met: np.ndarray  # encounters of the catalogue's images
    encounters: np.ndarray  # and of the photographs
    features: LocalFeatures | None = None
    aside: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["why", "sure"]))  # that show no animal
    evidence: str = "features"  # by which they are compared, in words
    learned: Learned = field(default_factory=Learned)

    @property
    def known(self) -> pd.DataFrame:
        return self.shelf.table


def read_season(
    recipe: Recipe,
    photographs: Photographs,
    local: bool,
    device: torch.device,
    margin: float = MARGIN,
    head: str = AUTO,
) -> Season:
    """Embeds all photographs, finds encounters, and chooses the evidence; matches spots where asked to, and learns a
    head on the catalogue where that helps."""
    check_model(recipe)
    embedder = embedder_for(recipe)[0].to(device, memory_format=memory_format(device)).eval()
    *albums, new = embed_all(recipe, embedder, photographs, device, margin)
    shelf = Shelf(tuple(albums))
    table = shelf.table.assign(day=lambda t: t.taken.str[:10])
    identity = table.identity.to_numpy(str)
    known_met = encounters_of(table, np.concatenate([album.hashes for album in albums]))
    likeness = Likeness(torch.cat([shelf.embeddings, new.embeddings]), embedder.geometry)
    encounters = encounters_of_queries(new.table, new.hashes, alike_as_known(likeness, identity, known_met))
    features, match_spots = None, None
    if local:
        met = np.r_[known_met, known_met.max(initial=0) + 1 + encounters]
        features = without_fixed(spots_of([*albums, new], device), met)
        match_spots = partial(with_spots, features=features, known=len(identity), met=met, device=device)
    likeness, words = chosen(likeness, identity, known_met, match_spots)
    likeness, learned = with_head(likeness, identity, known_met, head)
    words = f"{words}, through a head that was learned on the catalogue" if learned.used else words
    return Season(shelf, new, likeness, known_met, encounters, features, photographs.aside, words, learned)


def embed_all(
    recipe: Recipe, embedder: Embedder, photographs: Photographs, device: torch.device, margin: float
) -> list[Album]:
    """Albums of the catalogue, of what was named since, and of the new photographs, which come last."""
    known, grown, asked = photographs.known, photographs.grown, photographs.asked
    count, individuals = sum(len(table) for _, table in (known, *grown)), known[1].identity.nunique()
    pictures, animals = asked[1].path.nunique(), len(asked[1])
    what = f"{pictures} photographs" if pictures == animals else f"{animals} animals on {pictures} photographs"
    echo(f"{what} against {count} of {individuals} individuals on {device_name(device)}")
    labels = ["embedding the catalogue", *["embedding what was named"] * len(grown), "embedding the photographs"]
    return [
        embed_album(recipe, embedder, *one, device, label, margin) for one, label in zip((known, *grown, asked), labels)
    ]


def alike_as_known(likeness: Likeness, identity: np.ndarray, met: np.ndarray) -> Alike:
    """What likenesses of new photographs say, by those of a catalogue's images of one animal in two encounters.

    identity and met (K,): of the catalogue's images, 500 of which or somewhat more are looked at. Usual is the median
    of all pairs of one animal; too unlike is what is below 98 of 100 of the most similar image of each, which shows the
    same flank, as a rule.
    """
    total = len(identity)
    part = np.arange(total)[:: max(1, total // 500)]
    values = likeness(part, part)
    own = (identity[part, None] == identity[part]) & (met[part, None] != met[part])
    usual = float(np.median(values[own])) if own.any() else math.inf
    nearest = np.where(own, values, -np.inf).max(1, initial=-np.inf)
    nearest = nearest[np.isfinite(nearest)]
    least = float(np.quantile(nearest, TOO_UNLIKE)) if len(nearest) >= LEAST_KNOWN else -math.inf
    return Alike(lambda rows: likeness(rows + total, rows + total), usual, min(least, usual))
