"""How much a model goes by the scene: the same images with other backgrounds behind the animals, or parts hidden."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaguar_kit import (
    Component,
    Trainer,
    average_precision,
    chance_map,
    echo,
    embed,
    identity_balanced_map,
    interval_over_identities,
    mean_by_identity,
    mean_or_nan,
    part_words,
    similarity_matrix,
)
from torch import Tensor

from .looks import Look, Network
from .page import Page


def map_on_backgrounds(trainer: Trainer, labels: np.ndarray) -> dict[str, float]:
    """Validation mAP with other backgrounds behind the animals, queries and gallery alike; NaN where none changes."""
    told, task = {}, trainer.task
    looked_at = task.pixels.store.read(task.validation[:64])
    plain = task.pixels.preparation.on_background(Component("background", "original")).images(looked_at, False)[0]
    for background in trainer.recipe.test_backgrounds:
        preparation = task.pixels.preparation.on_background(background)
        if background.name != "original" and torch.equal(plain, preparation.images(looked_at, False)[0]):
            told[part_words(background)] = math.nan  # it touches no pixel, so that nothing is measured
            echo(f"  note: test_backgrounds: {background.name} changes no pixel of the validation images: not measured")
            continue
        pixels = replace(task.pixels, preparation=preparation)
        mixed = np.random.default_rng(0).permutation(len(labels))  # neighbours of one burst must not swap alike
        embeddings = embed(trainer.network, pixels, task.validation[mixed])[np.argsort(mixed)]
        similarity = similarity_matrix(embeddings, geometry=trainer.embedder.geometry)
        told[part_words(background)] = identity_balanced_map(similarity, labels)
    told["chance"] = chance_map(labels)
    return told


# what hides a part of an image: the centre is a square of half the image's area, the border the other half

Change = Callable[[Tensor], Tensor]  # images (B, 3, H, W), as the embedder takes them


def in_centre(height: int, width: int) -> Tensor:
    """Which pixels lie in the central half, bool (H, W)."""
    lines = [(torch.arange(side) + 0.5).sub(side / 2).abs() * 2 / side < math.sqrt(0.5) for side in (height, width)]
    return lines[0][:, None] & lines[1]


def hide_border(images: Tensor) -> Tensor:
    """The centre alone, before the mean colour of all images, which is 0 to a network."""
    return images * in_centre(*images.shape[-2:]).to(images)


def hide_centre(images: Tensor) -> Tensor:
    """The border alone, around that colour."""
    return images * (~in_centre(*images.shape[-2:])).to(images)


# reliance on context

ORIGINAL = "original"
BY_MASKS = {"swapped": "swap", "inpainted": "inpaint", "background alone": "background_only"}
BY_MASKS |= {"silhouette": "silhouette_only"}
BY_PLACE: dict[str, Change] = {"border hidden": hide_border, "centre hidden": hide_centre}
CONTEXT, ANIMAL = ("swapped", "border hidden"), ("background alone", "centre hidden")  # what takes which away


@dataclass(frozen=True, eq=False)
class Seen:
    """Validation images in one state: embeddings (N, D) and the average precision of each as a query (N,)."""

    embeddings: Tensor
    precision: np.ndarray


def seen_as(look: Look, network: Network, change: Change | None = None) -> Seen:
    """The validation images of a run as this network sees them, in an order in which no burst swaps within itself."""
    mixed = np.random.default_rng(0).permutation(len(look.positions))
    embeddings = network.embeddings(look.positions[mixed], change)[np.argsort(mixed)]
    similarity = similarity_matrix(embeddings, geometry=network.geometry)
    return Seen(embeddings, average_precision(similarity, look.labels))


def states_of(look: Look) -> dict[str, Seen]:
    """The validation images as they are, without their context, and without the animal: by masks, else by place."""
    plain = look.network.on_background(ORIGINAL)
    found = {ORIGINAL: seen_as(look, plain)}
    if look.images.store.has_masks:
        return found | {name: seen_as(look, plain.on_background(part)) for name, part in BY_MASKS.items()}
    return found | {name: seen_as(look, plain, change) for name, change in BY_PLACE.items()}


def balanced(values: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    """Mean over identities of values of queries, and its interval."""
    codes = np.unique(labels, return_inverse=True)[1]
    return mean_or_nan(mean_by_identity(values, codes)), *interval_over_identities(values, codes)


def reliance(look: Look, states: dict[str, Seen] | None = None) -> dict[str, float | str]:
    """How much of a run's mAP goes with the context, with its interval over identities, and what it rests on.

    reliance: mAP lost where the animals stand before the scenes of others (swapped), or where masks are missing, where
    the border of half the image's area is hidden. share of change: of how far the embeddings move, without the context
    and without the animal, the part without the context; 0 for a network that sees nothing but the animal, 1 for one
    that sees nothing but the scene.
    """
    states = states_of(look) if states is None else states
    without, alone = (next(name for name in names if name in states) for names in (CONTEXT, ANIMAL))
    plain = states[ORIGINAL]
    value, low, high = balanced(plain.precision - states[without].precision, look.labels)
    moved = [how_far(look, plain, states[name]) for name in (without, alone)]
    share = moved[0] / np.maximum(moved[0] + moved[1], 1e-12)
    told = {"variant": look.spec.variant, "trained on": part_words(look.spec.recipe.background)}
    told |= {"reliance": value, "low": low, "high": high}
    told |= {f"mAP {name}": balanced(one.precision, look.labels)[0] for name, one in states.items()}
    told |= {"chance": chance_map(look.labels), "share of change": balanced(share, look.labels)[0]}
    return {**told, "leans more on": leans_on(share, look.labels)}


def how_far(look: Look, one: Seen, other: Seen) -> np.ndarray:
    """1 - similarity of each image's embeddings in two states (N,)."""
    similarity = similarity_matrix(one.embeddings, other.embeddings, look.network.geometry)
    return np.maximum(1 - np.asarray(similarity.diagonal()), 0)


def leans_on(share: np.ndarray, labels: np.ndarray) -> str:
    """Whether embeddings move further without the context or without the animal, by the interval over identities."""
    _, low, high = balanced(share, labels)
    return "the context" if low > 0.5 else "the animal" if high < 0.5 else "not to be told"


def reliance_words(row: dict[str, float | str]) -> str:
    """One sentence on a run."""
    how = "behind the backgrounds of other images" if "mAP swapped" in row else "with the border hidden"
    value, low, high = (row[name] for name in ("reliance", "low", "high"))
    few, trained = math.isnan(low), row["trained on"]
    told = f"{row['variant']}: {how} it loses {value:.4f}" + ("" if few else f" [{low:+.4f}, {high:+.4f}]")
    told += f" of its mAP {row['mAP original']:.4f} on images as they are"
    told += "" if trained == ORIGINAL else f" (it was trained with the background {trained})"
    if few:
        return f"{told}; too few identities for an interval."
    verdict = "it leans on the context" if low > 0 else "no reliance on the context is shown"
    more = "" if row["leans more on"] == "not to be told" else f"; its embeddings hang more on {row['leans more on']}"
    return f"{told}: {verdict}{more}."


def report_scene(page: Page, looks: Sequence[Look]) -> None:
    """A row for each run: reliance on context, its interval, and mAP in every state."""
    rows = [reliance(look) for look in looks]
    page.bullets([reliance_words(row) for row in rows])
    masks = looks[0].images.store.has_masks
    how = (
        "swapped: before the scene of another image; inpainted: the animal's own colours around it; background alone: "
        "the animal filled in from its surroundings; silhouette: its outline alone"
        if masks
        else "there are no masks: the centre is a square of half the image's area, the border the other half, and what "
        "is hidden has the mean colour of all images"
    )
    page.table(
        pd.DataFrame(rows),
        f"reliance: mAP lost {'where scenes are swapped' if masks else 'where the border is hidden'}, with its 95 % "
        f"interval over identities; {how}. share of change: of how far embeddings move without the context and without "
        "the animal, the part without the context (0: it sees the animal alone; 1: the scene alone). Runs: the median "
        "one of each variant.",
    )


# training and testing, each with and without background

BARE = ("black", "gray", "mean_colour", "blur", "inpaint")  # backgrounds that show no scene, and are the same each time


def two_by_two(looks: Sequence[Look], most: int = 3) -> pd.DataFrame:
    """mAP of a run trained with and of runs trained without background, each tested with and without; no rows where an
    experiment has no such pair."""
    behind = [look.spec.recipe.background for look in looks]
    masked = [look for look in looks if look.images.store.has_masks]
    with_scene = next((look for look, one in zip(looks, behind) if one.name == ORIGINAL and look in masked), None)
    bare = [(look, one) for look, one in zip(looks, behind) if one.name in BARE and look in masked]
    rows = []
    for look, part in bare[:most] if with_scene is not None else ():
        for trained, own in ((with_scene, ORIGINAL), (look, part_words(part))):
            states = [seen_as(trained, trained.network.on_background(one)).precision for one in (ORIGINAL, part)]
            lost, low, high = balanced(states[0] - states[1], trained.labels)
            told = {"variant": trained.spec.variant, "trained on": own}
            told |= {"mAP tested with": balanced(states[0], trained.labels)[0], "tested without by": part_words(part)}
            told |= {"mAP tested without": balanced(states[1], trained.labels)[0], "lost without": lost}
            rows.append({**told, "low": low, "high": high})
    return pd.DataFrame(rows)
