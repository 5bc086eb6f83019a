"""Evidence cards of photographs to look at, each beside the picture of the catalogue that is most like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaguar_kit import PixelSource, Preparation, Recipe, embedder_for, native_size, progress, similarity_matrix
from PIL import Image

from ..experiments.attribution import Question, animals_in, seen_picture
from ..experiments.cards import Card, Evidence, about_each, maps_of_pair
from ..experiments.figures import spots_figure
from ..experiments.looks import FLANK_COLUMNS, Network, told_by
from ..experiments.scenes import hide_border
from .answers import Pictures
from .confidence import LOOK
from .review import spots_between
from .season import Season


def write_cards(
    out: Path, recipe: Recipe, season: Season, answers: pd.DataFrame, pictures: Pictures, count: int, device: Any
) -> list[Path]:
    """Cards of the `count` photographs to look at whose names are most probable, below out/cards; their paths."""
    rows = answers.index[answers["class"] == LOOK]
    shown = answers.loc[rows].sort_values("score", ascending=False, kind="stable").index[:count]
    maker = Maker(recipe, season, embedder_for(recipe)[0].to(device).eval(), device) if len(shown) else None
    told = [(int(i), answers.loc[i].to_dict(), pictures[i][0][0]) for i in shown]
    return [maker.card(*one).write(out / "cards") for one in progress(told, "evidence cards")]


@dataclass(frozen=True, eq=False)
class Maker:
    """What cards of a season are made with."""

    recipe: Recipe
    season: Season
    embedder: Any
    device: torch.device

    def network(self, album: Any, position: int) -> Network:
        """The network, as it sees a photograph of an album."""
        recipe, backbone = self.recipe, self.embedder.backbone
        size, cfg = recipe.model.input_size or native_size(backbone), backbone.pretrained_cfg
        behind = recipe.evaluated_background or recipe.background
        prepare = Preparation(behind, (), size, cfg["mean"], cfg["std"], recipe.model.crop)
        return Network(self.embedder, PixelSource(album.store(position), prepare, self.device))

    def card(self, row: int, answer: Mapping[str, Any], known: int) -> Card:
        """row: of the photograph; known: the catalogue's picture."""
        season, (album, own) = self.season, self.season.shelf.where(known)
        networks = [self.network(season.new, row), self.network(album, own)]
        images, animals = (
            torch.cat([make(network, np.zeros(1, int)) for network in networks])
            for make in (Network.inputs, lambda network, at: animals_in(network, at))
        )
        maps, failed = maps_of_pair(networks[0], about_each(images, animals))
        likeness = float(season.likeness(np.array([row + len(season.known)]), np.array([known]))[0, 0])
        with torch.no_grad():
            plain, bare = (self.alike(self.embedder(one)) for one in (images, hide_border(images)))
        told = f"with the border hidden the likeness is {bare:.3f} in place of {plain:.3f}"
        names = candidates_of(answer)
        spots, spots_told = self.spots(row, known)
        facts = [
            (
                "Together",
                f"{answer['identity']} {shown(answer['probability'])}; a new animal {shown(answer['probability_new'])}",
            ),
            ("Likeness", f"{likeness:.3f}, with spots where they were matched"),
            self.flanks(row, known),
            (
                "Encounter",
                f"number {answer['encounter']} of the new photographs; if the catalogue's is the same is not known",
            ),
            ("Without scenes", told),
            ("Spots", spots_told),
            ("Where it rests", "; ".join(failed) if failed else "the map passes both tests"),
        ]
        bordered = tuple(seen_picture(Question(one, one[0]), networks[0]) for one in hide_border(images))
        evidence = Evidence(
            (season.new.thumbnail(row), season.shelf.thumbnail(known)),
            (str(answer["image"]), f"{answer['identity']}  {season.known.path.iloc[known]}"),
            tuple(facts),
            (names, ()),
            spots,
            spots_told,
            maps,
            tuple(failed),
            bordered,
            f"likeness {bare:.3f} in place of {plain:.3f}",
        )
        return Card(evidence, f"{row:04d}-{Path(str(answer['image'])).stem}")

    def alike(self, embeddings: torch.Tensor) -> float:
        return float(similarity_matrix(embeddings.cpu(), geometry=self.embedder.geometry)[0, 1])

    def flanks(self, row: int, known: int) -> tuple[str, str]:
        tables = self.season.new.table, self.season.known
        values = [told_by(table, FLANK_COLUMNS)[1][i] for table, i in zip(tables, (row, known))]
        return "Flanks", " and ".join(value or "untold" for value in values)

    def spots(self, row: int, known: int) -> tuple[Image.Image | None, str]:
        if self.season.features is None:
            return None, "not matched (--local matches them)"
        lines = spots_between(self.season, row, known)
        if not lines:
            return None, "none matches"
        both = self.season.new.thumbnail(row), self.season.shelf.thumbnail(known)
        side = max(one.width for one in both)
        return spots_figure(*(one.resize((side, side)) for one in both), lines), f"{len(lines)} match"


def candidates_of(answer: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The candidates of a photograph that have a probability."""
    keys = [("identity", "probability"), *((f"identity_{n}", f"probability_{n}") for n in (2, 3))]
    found = [(answer.get(name, ""), answer.get(share)) for name, share in keys]
    return [(str(name), float(share)) for name, share in found if name and share is not None and not pd.isna(share)]


def shown(share: Any) -> str:
    """A probability in words."""
    return "without a probability" if pd.isna(share) else f"with probability {float(share):.0%}"
