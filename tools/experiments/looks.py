"""A finished run to look at: its validation images, what their table tells of them, and its network."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaguar_kit import (
    Component,
    Embedder,
    Geometry,
    Images,
    PixelSource,
    Preparation,
    RunFolder,
    RunSpec,
    class_logits,
    damaged,
    embed,
    embedder_for,
    native_size,
    shared_encounters,
    similarity_matrix,
)
from torch import Tensor, nn

FLANK_COLUMNS = ("flank", "orientation", "viewpoint", "side")  # of a table, the first that is there
SCENE_COLUMNS = ("scene", "station", "camera", "location", "place")
UNTOLD = ("", "unknown", "nan", "none", "n/a", "?")  # what a table says where nobody knows


def told_by(table: pd.DataFrame, columns: tuple[str, ...]) -> tuple[str, np.ndarray]:
    """The first of these columns that tells anything, and its values as text (N,), "" where untold; "" for none."""
    for column in columns:
        if column in table:
            values = table[column].fillna("").astype(str).str.strip()
            values = values.where(~values.str.lower().isin(UNTOLD), "").to_numpy(str)
            if (values != "").any():
                return column, values
    return "", np.full(len(table), "", dtype="U1")


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network as its run evaluates: from images to embeddings, and from those to names."""

    embedder: Embedder
    source: PixelSource  # the images, prepared as for validation
    loss: nn.Module | None = None
    identities: tuple[str, ...] = ()  # that its loss has learned, in their order

    @property
    def geometry(self) -> Geometry:
        return self.embedder.geometry

    @property
    def names(self) -> bool:
        """Whether the loss has a class for each identity."""
        return bool(self.identities) and getattr(self.loss, "logits", None) is not None

    def logits(self, embeddings: Tensor) -> Tensor:
        return class_logits(self.loss, embeddings)

    def inputs(self, positions: np.ndarray) -> Tensor:
        """Images as the embedder takes them (B, 3, H, W)."""
        return self.source.prepare(self.source.read(np.asarray(positions)), training=False)

    def on_background(self, background: str | Component) -> Network:
        """The same, with another background behind the animals."""
        part = Component("background", background) if isinstance(background, str) else background
        preparation = self.source.preparation.on_background(part)
        return replace(self, source=replace(self.source, preparation=preparation))

    @torch.no_grad()
    def embeddings(self, positions: np.ndarray, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """(N, D); change: what is done to the images (B, 3, H, W) that the embedder takes."""
        network = self.embedder.eval()
        return embed(network if change is None else lambda x: network(change(x)), self.source, positions, 32)


@dataclass(frozen=True, eq=False)
class Look:
    """A finished run, of which more is asked than its metrics tell; of folds the first."""

    spec: RunSpec
    images: Images
    there: RunFolder  # with the log
    device: torch.device

    @property
    def name(self) -> str:
        return self.spec.folder

    @cached_property
    def kept(self) -> dict[str, np.ndarray]:
        return self.there.arrays("validation.npz", "embeddings", "images", "labels")

    @property
    def labels(self) -> np.ndarray:
        return self.kept["labels"]

    @cached_property
    def positions(self) -> np.ndarray:
        """Of the validation images in the store, and rows of the table of training images."""
        place = {name: i for i, name in enumerate(self.images.competition.train.filename)}
        if strange := [name for name in self.kept["images"] if name not in place]:
            raise damaged(self.there.path / "validation.npz", f"{strange[0]} is none of the training images")
        return np.array([place[name] for name in self.kept["images"]], np.int64)

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each validation image."""
        return self.images.competition.train.iloc[self.positions].reset_index(drop=True)

    @cached_property
    def geometry(self) -> Geometry:
        return self.spec.recipe.model.geometry.build()

    @cached_property
    def similarity(self) -> np.ndarray:
        """Of the validation images (N, N), before any post-processing."""
        return similarity_matrix(self.kept["embeddings"], geometry=self.geometry)

    @cached_property
    def flanks(self) -> np.ndarray | None:
        """What each image shows of its animal, by the table; None where it does not tell."""
        column, values = told_by(self.table, FLANK_COLUMNS)
        return values if column else None

    @property
    def flank_column(self) -> str:
        return told_by(self.table, FLANK_COLUMNS)[0]

    @cached_property
    def scenes(self) -> np.ndarray | None:
        """Where each image was taken, by the table; None where it does not tell."""
        column, values = told_by(self.table, SCENE_COLUMNS)
        return values if column else None

    @cached_property
    def encounters(self) -> np.ndarray | None:
        return shared_encounters(self.table)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many images each identity trained on."""
        train = self.images.competition.train
        trained = set(self.kept["trained"]) if "trained" in self.kept else set()
        rows = train.path.isin(trained) if trained else train.index.isin(self.images.splits[0][0])
        return train.identity[rows].value_counts().to_dict()

    @cached_property
    def network(self) -> Network:
        """Read from the run's weights; KitError where they, or the backbone that they need, are not there."""
        recipe = replace(self.spec.recipe, checkpoint=str(self.there.path), soup=())
        embedder, tensors, identities = embedder_for(recipe)
        embedder.to(self.device).eval()
        size, known = recipe.model.input_size or native_size(embedder.backbone), embedder.backbone.pretrained_cfg
        behind = recipe.evaluated_background or recipe.background
        prepare = Preparation(behind, (), size, known["mean"], known["std"], recipe.model.crop)
        source = PixelSource(self.images.store, prepare, self.device)
        return Network(embedder, source, self.loss_of(embedder, tensors, identities), tuple(identities))

    def loss_of(self, embedder: Embedder, tensors: dict[str, Any], identities: list[str]) -> nn.Module | None:
        """The loss with what it has learned of the classes; None where it kept nothing."""
        own = {key.removeprefix("loss."): value for key, value in tensors.items() if key.startswith("loss.")}
        if not own:
            return None
        sizes = {"embedding_dim": embedder.embedding_dim, "num_identities": len(identities)}
        counts = [max(1, self.counts.get(name, 1)) for name in identities]
        loss = self.spec.recipe.loss.build(**sizes, counts=counts, geometry=embedder.geometry)
        loss.load_state_dict(own)
        return loss.to(self.device).eval()

    @cached_property
    def seconds_each(self) -> float:
        """What one image takes from store to embedding, about; on a CPU whatever else runs there."""
        alone, threads = self.device.type == "cpu", torch.get_num_threads()
        clock = (lambda: time.process_time() / threads) if alone else time.monotonic
        some = self.positions[:8]
        self.network.embeddings(some[:1])
        begun = clock()
        self.network.embeddings(some)
        return (clock() - begun) / max(len(some), 1)
