"""Photographs of a catalogue and of a season: their embeddings, and the spots of their coats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
import torch
from jaguar_kit import (
    Embedder,
    ImageStore,
    KitError,
    PixelSource,
    Preparation,
    Recipe,
    computed_by,
    echo,
    embed,
    fingerprint,
    first_few,
    in_precision,
    module_fingerprint,
    native_size,
    perceptual_hashes,
    precision_of,
    sha_of,
)
from PIL import Image
from torch import Tensor

from ..experiments.crops import MARGIN, cut, files_to_read
from ..experiments.spots import CENTRE, LocalFeatures, detector_weights, spot_finder
from .kept import kept_rows
from .reading import Readable

AT_ONCE = 64  # pictures that are read and embedded before they may be written


@dataclass(frozen=True, eq=False)
class Album:
    """Photographs that could be read, their embeddings and perceptual hashes."""

    table: pd.DataFrame  # path and what else is known, a row for each
    embeddings: Tensor
    hashes: np.ndarray | None = None  # bool (N, 64)
    files: Readable | None = None  # that were read: photographs, or crops of them
    notes: tuple[str, ...] = ()  # what a reader of the answers must know
    root: Path = Path()
    margin: float = MARGIN
    size: int = 256  # px of the square as which they are read
    fit: str = "squash"

    def part(self, rows: np.ndarray) -> Album:
        """These photographs alone."""
        return replace(
            self,
            table=self.table.iloc[rows].reset_index(drop=True),
            embeddings=self.embeddings[rows],
            hashes=None if self.hashes is None else self.hashes[rows],
            files=None if self.files is None else self.files.subset(rows),
        )

    def store(self, position: int) -> ImageStore:
        """The picture alone, as the network is given it."""
        return self.files.store(position, self.size, self.fit)

    def thumbnail(self, position: int) -> Image.Image:
        """The picture as it is looked at, gray where it can no longer be read."""
        try:
            return self.store(position).thumbnail(0)
        except Exception:  # noqa: BLE001 - PIL raises nearly anything on a broken file
            return Image.new("RGB", (self.size, self.size), "gray")

    def file(self, position: int) -> Path:
        return self.root / self.table.path.iloc[position]

    def crop(self, position: int, image: Image.Image) -> Image.Image:
        """The part of an upright photograph that is looked at."""
        return cut(image, self.table.box.iloc[position] if "box" in self.table else "", self.margin)


def embed_album(
    recipe: Recipe,
    embedder: Embedder,
    root: Path,
    table: pd.DataFrame,
    device: torch.device,
    label: str,
    margin: float = MARGIN,
) -> Album:
    """Reads and embeds photographs, those that are not in the cache; unreadable ones are told and left out."""
    data, notes = recipe.data, []
    turns = [data.turn.get(value, 0.0) for value in table.get("orientation", ())]
    masks = data.masks if data.masks and (root / data.masks).is_dir() else None
    files, masks = files_to_read(root, table, masks, margin)
    readable = Readable.of(root, table, files, masks, turns)
    rows, found = looked_at(recipe, embedder, readable, device, label)
    unread = np.setdiff1d(np.arange(len(table)), rows)
    if len(unread):
        broken = first_few(list(table.path.iloc[unread]))
        notes.append(f"{len(unread)} images in {root} can't be read and are left out: {broken}")
    if recipe.background.build().needs_masks and not readable.masked.any():
        notes.append(f"the weights were trained with background {recipe.background.name}, but {root} has no masks")
    if data.turn and "orientation" not in table:
        notes.append(f"the weights were trained on images turned by their orientation, which {root} does not tell")
    if not len(rows):
        raise KitError(f"{root}: none of its {len(table)} images can be read")
    for note in notes:
        echo(f"  note: {note}")
    table, hashes = table.iloc[rows].reset_index(drop=True), found["hash"].numpy().astype(bool)
    files = readable.subset(rows)
    return Album(table, found["embedding"], hashes, files, tuple(notes), root, margin, data.size, data.fit)


def looked_at(
    recipe: Recipe, embedder: Embedder, files: Readable, device: torch.device, label: str
) -> tuple[np.ndarray, dict[str, Tensor]]:
    """Which pictures can be read, and embedding (N, D) and hash (N, 64) of each.

    On a CPU each goes through the network alone, and on a GPU in batches of one shape, so that no other picture changes
    a digit of what is kept of it.
    """
    data, cfg, precision = recipe.data, embedder.backbone.pretrained_cfg, precision_of("auto", device)
    size = recipe.model.input_size or native_size(embedder.backbone)
    prepare = Preparation(recipe.background, (), size, cfg["mean"], cfg["std"], recipe.model.crop)
    network = in_precision(embedder, precision)
    settings = (asdict(recipe.background), asdict(recipe.model), size, tuple(cfg["mean"]), tuple(cfg["std"]))
    settings += (*computed_by(precision, device), data.size, data.fit, PIL.__version__)
    many = device.type == "cuda" and not prepare.background.drawn

    def make(positions: np.ndarray) -> tuple[np.ndarray, dict[str, Tensor]]:
        good, pixels = files.decoded(positions, data.size, data.fit)
        vectors: dict[int, Tensor] = {}
        for rows in alike_in_shape(pixels) if many else ([row] for row in range(len(pixels))):
            source = PixelSource(ImageStore(np.stack([pixels[row] for row in rows]), ""), prepare, device)
            vectors |= zip(rows, embed(network, source))
        if not pixels:
            return good, {}
        hashes = torch.from_numpy(perceptual_hashes(np.stack([one[..., :3] for one in pixels])).astype(np.uint8))
        return good, {"embedding": torch.stack([vectors[row] for row in range(len(pixels))]), "hash": hashes}

    kind = fingerprint("embeddings 1", module_fingerprint(embedder), *settings)
    return kept_rows(f"embeddings-{kind}", files.keys, make, label, AT_ONCE)


def alike_in_shape(pixels: Sequence[np.ndarray]) -> list[list[int]]:
    """Places of pictures without masks, and of those with one."""
    found = [[row for row, one in enumerate(pixels) if one.shape[-1] == channels] for channels in (3, 4)]
    return [rows for rows in found if rows]


@dataclass(frozen=True, eq=False)
class Shelf:
    """Several albums, one behind the other: those of a catalogue and of the weeks that went before."""

    albums: tuple[Album, ...]

    @cached_property
    def table(self) -> pd.DataFrame:
        return pd.concat([album.table for album in self.albums], ignore_index=True).fillna("")

    @property
    def embeddings(self) -> Tensor:
        return torch.cat([album.embeddings for album in self.albums])

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(note for album in self.albums for note in album.notes)

    def where(self, position: int) -> tuple[Album, int]:
        """The album that has an image, and its position there."""
        for album in self.albums:
            if position < len(album.table):
                return album, position
            position -= len(album.table)
        raise IndexError(position)

    def thumbnail(self, position: int) -> Image.Image:
        album, own = self.where(position)
        return album.thumbnail(own)

    def file(self, position: int) -> Path:
        album, own = self.where(position)
        return album.file(own)


LOCAL_SIZE, LOCAL_POINTS = 480, 512  # px of the square that is looked at for spots, and spots of an image


def spots_of(albums: Sequence[Album], device: torch.device) -> LocalFeatures:
    """The spots of the animals on all photographs of these albums: those in its mask or crop, else in the middle of the
    image; by ALIKED where its weights are there, else by SIFT; kept."""
    detector, weights = "sift", None
    try:
        weights = detector_weights("aliked", None)
        detector = "aliked" if weights else "sift"
    except KitError as error:
        echo(f"  note: matching spots by SIFT: {error}")
    by = ("" if weights is None else sha_of(weights), *computed_by(None, device), PIL.__version__)
    parts = [spots_of_album(album, detector, by, device) for album in albums]
    return LocalFeatures(*(torch.cat([found[name] for found in parts]) for name in ("places", "descriptors")))


def spots_of_album(album: Album, detector: str, by: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """Places and descriptors of the spots of each photograph, from the cache or looked for; by: what else they are
    found by, which changes them."""
    files, box = album.files, None if "box" in album.table and (album.table.box != "").any() else CENTRE
    find = spot_finder(detector, LOCAL_POINTS, None, device, box)

    def make(positions: np.ndarray) -> tuple[np.ndarray, dict[str, Tensor]]:
        good, pixels = files.decoded(positions, LOCAL_SIZE, "squash")
        found = [find(torch.from_numpy(one)[None].permute(0, 3, 1, 2)) for one in pixels]
        rows = dict(zip(("places", "descriptors"), map(torch.stack, zip(*found))))
        return good, rows

    kind = fingerprint("spots 1", detector, LOCAL_SIZE, LOCAL_POINTS, box, *by)
    there, rows = kept_rows(f"spots-{kind}", files.keys, make, "looking for spots", batch=16)
    if len(there) < len(files):
        gone = np.setdiff1d(np.arange(len(files)), there)
        raise KitError(f"{album.file(int(gone[0]))}: could be read before, and can't now: {files.faults[int(gone[0])]}")
    return rows
