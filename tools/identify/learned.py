"""A head that is learned on the names of a catalogue: a linear layer behind the features, used only where it helps.

A part of the encounters is asked for by a head that was fitted on the others, in turn. A head is used where they are
recognised better so than by the features as they are: where more first names are right, by a 95 % interval above 0.
Fitted on the whole catalogue it then compares the new photographs. What is calibrated on the catalogue is asked for by
heads that were fitted without the encounter, and as a stranger's without its animal (`CrossFitted`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaguar_kit import build, echo, l2_normalize
from torch import Tensor

from .evidence import LEAST, TRIED, Recognised, recognised
from .likeness import CrossFitted, Gallery, Likeness

AUTO, NEVER, ALWAYS = MODES = ("auto", "never", "always")
PARTS = 5  # of encounters, and of individuals
STEPS, AT_ONCE, WIDTH, MARGIN, SCALE, RATE, DECAY = 150, 2048, 256, 0.2, 16.0, 2e-3, 0.05

Map = Callable[[Tensor], Tensor]  # of features
Fit = Callable[[Tensor, np.ndarray], Map]  # of features and identities


def head(features: Tensor, identity: np.ndarray) -> Map:
    """A linear layer, trained with a margin between the angles of individuals; the same each time."""
    features, codes = l2_normalize(features.float()), torch.from_numpy(np.unique(identity, return_inverse=True)[1])
    order = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        layer = torch.nn.Linear(features.shape[1], WIDTH, bias=False)
        centres = torch.nn.Parameter(torch.randn(int(codes.max()) + 1, WIDTH))
    optimizer = torch.optim.AdamW([*layer.parameters(), centres], lr=RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        rows = slice(None) if len(codes) <= AT_ONCE else torch.randperm(len(codes), generator=order)[:AT_ONCE]
        with torch.enable_grad():
            cosine = l2_normalize(layer(features[rows])) @ l2_normalize(centres).T
            margin = MARGIN * torch.nn.functional.one_hot(codes[rows], cosine.shape[1])
            loss = torch.nn.functional.cross_entropy(SCALE * (cosine - margin), codes[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lambda found: layer(l2_normalize(found.float())).detach()


@dataclass(frozen=True, eq=False)
class Learned:
    """What became of the head."""

    used: bool = False
    words: str = "A head learned on the catalogue was not tried."
    crossed: CrossFitted | None = None  # where it is used: by what the catalogue's own encounters are asked for
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, Any]:
        """What stands among the settings, so that weeks can be compared."""
        return {"used": self.used, "why": self.words, **self.figures}


def with_head(
    likeness: Likeness, identity: np.ndarray, met: np.ndarray, mode: str = AUTO, fit: Fit = head
) -> tuple[Likeness, Learned]:
    """The likeness by a head that is learned on the catalogue, where that helps, with all other evidence as it was.

    identity and met (K,): of the catalogue's images; mode: auto, never, or always.
    """
    if mode == NEVER:
        return likeness, Learned(words="A head learned on the catalogue was not tried (--head never).")
    gallery = Gallery.of(identity, met)
    animals, sizes = np.unique(gallery.identity, return_counts=True)
    if mode == AUTO and (sizes > 1).sum() < LEAST:
        few = f"{(sizes > 1).sum()} individuals have two encounters (of {LEAST} at least)"
        return likeness, told(Learned(words=f"No head was learned on the catalogue: {few}."))
    part = parts_of(gallery)
    known = fitted_without(likeness, gallery, part, fit)
    asked = np.random.default_rng(0).permutation(len(part))[:TRIED]
    plain, there = recognised(likeness, identity, gallery.met, asked), recognised_by(known, part, gallery, asked)
    figures = figures_of(plain, there)
    better = figures.get("least", -1.0) > 0
    if mode == AUTO and not better:
        words = f"No head learned on the catalogue is used: {in_words(figures)}."
        return likeness, told(Learned(words=words, figures=figures))
    group = np.random.default_rng(1).permutation(len(animals)) % PARTS
    group = group[np.searchsorted(animals, gallery.identity)]
    strange = fitted_without(likeness, gallery, group, fit)
    why = "" if better else " (--head always)"
    words = f"A head learned on the catalogue is used{why}: {in_words(figures)}."
    change = fit(likeness.embeddings[: len(met)], identity)
    learned = Learned(True, words, CrossFitted(known, part, strange, group), figures)
    return through(likeness, change(likeness.embeddings)), told(learned)


def told(learned: Learned) -> Learned:
    echo(f"  {learned.words}")
    return learned


def parts_of(gallery: Gallery, parts: int = PARTS) -> np.ndarray:
    """Which part each encounter is of (G,): those of an animal are of different ones as far as they go."""
    turn = np.random.default_rng(0).permutation(len(gallery.identity))
    part = np.empty(len(turn), int)
    part[np.lexsort([turn, gallery.identity])] = np.arange(len(turn)) % parts
    return part


def fitted_without(likeness: Likeness, gallery: Gallery, part: np.ndarray, fit: Fit) -> list[Likeness]:
    """The likeness of the catalogue's images that was fitted without each part of its encounters (G,)."""
    identity = gallery.identity[gallery.met]
    return [mapped(likeness, identity, part[gallery.met] != one, fit) for one in range(part.max() + 1)]


def mapped(likeness: Likeness, identity: np.ndarray, kept: np.ndarray, fit: Fit) -> Likeness:
    """The likeness of the catalogue's images by a map that was fitted on those that are kept, bool (K,)."""
    features = likeness.embeddings[: len(kept)]
    change = fit(features[torch.from_numpy(kept)], identity[kept]) if kept.any() else lambda found: found
    return through(likeness, change(features))


def through(likeness: Likeness, embeddings: Tensor) -> Likeness:
    """The likeness by embeddings of a head, standardised for each photograph: to a catalogue that a head knows as a
    whole all new ones are less alike than its own encounters are to what is left of it."""
    return replace(likeness, embeddings=embeddings, geometry=build("geometry", "cosine"), by_query=True)


def recognised_by(known: list[Likeness], part: np.ndarray, gallery: Gallery, asked: np.ndarray) -> Recognised:
    """The `asked` encounters, each by the likeness that was fitted without it."""
    identity, ranks, animals = gallery.identity[gallery.met], np.full(len(asked), np.nan), np.zeros(len(asked), int)
    for one, likeness in enumerate(known):
        own = np.flatnonzero(part[asked] == one)
        if len(own):
            found = recognised(likeness, identity, gallery.met, asked[own])
            ranks[own], animals[own] = found.rank, found.animal
    return Recognised(ranks, animals)


def figures_of(plain: Recognised, there: Recognised) -> dict[str, Any]:
    """What a head changes: how many more encounters have a right first name, as a share of all, with the 95 % interval
    of that over individuals, whose encounters are drawn together."""
    from scipy.stats import t

    fine = np.isfinite(plain.rank) & np.isfinite(there.rank)
    before, after = (one.rank[fine] == 1 for one in (plain, there))
    codes = np.unique(plain.animal[fine], return_inverse=True)[1]
    sizes = np.bincount(codes)
    figures: dict[str, Any] = {"encounters": len(codes), "individuals": len(sizes)}
    figures |= {"features_right": int(before.sum()), "head_right": int(after.sum())}
    if len(sizes) < 2:
        return figures
    more = np.bincount(codes, after * 1.0 - before)
    gain = float(more.sum() / sizes.sum())
    apart = more - gain * sizes
    half = t.ppf(0.975, len(sizes) - 1) * np.sqrt(len(sizes) / (len(sizes) - 1) * (apart**2).sum()) / sizes.sum()
    least, most = gain - float(half), gain + float(half)
    return {**figures, "gain": round(gain, 4), "least": round(least, 4), "most": round(most, 4)}


def in_words(figures: dict[str, Any]) -> str:
    """How encounters that it was not fitted on are recognised by it, and by the features."""
    said = (
        f"of {figures['encounters']} encounters of the catalogue that it was not fitted on it names "
        f"{figures['head_right']} rightly, the features as they are {figures['features_right']}"
    )
    if "gain" not in figures:
        return said
    span = f"[{figures['least']:+.1%} to {figures['most']:+.1%}]"
    return f"{said}: {figures['gain']:+.1%} {span} over {figures['individuals']} individuals"
