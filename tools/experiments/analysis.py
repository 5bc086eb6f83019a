"""Analyses of the training images: quality, near-duplicates, curation, and what a dataset is like."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from jaguar_kit import (
    Component,
    Count,
    Fraction,
    Images,
    ImageStore,
    KitError,
    Range,
    Recipe,
    as_matrix,
    check_model,
    column_groups,
    compare,
    convert,
    echo,
    embedder_for,
    hints_of,
    l2_normalize,
    make_task,
    perceptual_hashes,
    progress,
    register,
    registered,
    suggest,
    write_table,
)
from PIL import Image
from torch import Tensor

from . import attribution, cards  # noqa: F401 - which register looks
from .analysis_words import pairs_words, points_of_counts, points_of_curation, points_of_duplicates, separation
from .figures import (
    Tile,
    collisions_figure,
    counts_figure,
    histograms_figure,
    map_figure,
    roc_figure,
    sheet,
    similarity_figure,
    tiles,
)
from .looking import check_looks, is_look
from .page import Page
from .quality import differing_bits, gray_levels, quality_of_files


def to_unit_range(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / max(np.ptp(values), 1e-12)


def square_of(similarity: Any) -> np.ndarray:
    """Similarities (N, N) as an array; KitError where they are none."""
    matrix = as_matrix(similarity).cpu().numpy()
    if matrix.shape[0] != matrix.shape[1]:
        raise KitError(f"similarity: shape {matrix.shape} is not square")
    return matrix


def representativeness(similarity: np.ndarray, identities: np.ndarray) -> np.ndarray:
    """The cosine of each image with the centre of its identity, scaled to [0, 1] (N,)."""
    compared = compare(similarity, identities)
    similarity, identities = compared.matrix.cpu().numpy(), compared.labels
    same = identities[:, None] == identities
    towards = (similarity * same).sum(1) / same.sum(1)  # times the centre's length
    lengths = np.sqrt(np.maximum((same * towards).sum(1) / same.sum(1), 1e-12))
    return to_unit_range(towards / lengths)


def uniqueness(similarity: np.ndarray, k: int = 3) -> np.ndarray:
    """Mean cosine distance of each image to its k nearest others, in [0, 1] (N,)."""
    similarity = square_of(similarity)
    convert(k, Count, "uniqueness: k")
    others = np.where(np.eye(len(similarity), dtype=bool), -np.inf, similarity)
    nearest = np.sort(others, axis=1)[:, -min(k, len(others) - 1) :]
    return to_unit_range(1 - nearest.mean(1))


# near-duplicates: a method says of pairs of images whether they are; groups are what such pairs connect


@dataclass(frozen=True, eq=False)
class PairSimilarity:
    """What methods for near-duplicates look at, computed when first asked for."""

    pixels: np.ndarray | ImageStore  # uint8 (N, S, S, 3 or 4)
    similarity: np.ndarray  # cosines of embeddings (N, N)
    found: dict[int, np.ndarray] = field(default_factory=dict)  # structural similarity by the bits of its candidates

    @cached_property
    def hash_distance(self) -> np.ndarray:
        """Bits in which the perceptual hashes differ, int (N, N)."""
        hashes = perceptual_hashes(self.pixels)
        return differing_bits(hashes, hashes)

    @cached_property
    def small(self) -> Tensor:
        """Gray images (N, 1, 64, 64) in [0, 1]."""
        gray = [
            Image.fromarray(gray_levels(p).astype(np.uint8)).resize((64, 64), Image.Resampling.BOX) for p in self.pixels
        ]
        return torch.from_numpy(np.stack([np.asarray(g) for g in gray])[:, None] / np.float32(255))

    def structural(self, candidates: int) -> np.ndarray:
        """Mean structural similarity (N, N) of pairs whose hashes differ in at most `candidates` bits, 0 for others."""
        from kornia.metrics import ssim

        if candidates not in self.found:
            found = np.zeros(self.similarity.shape, np.float32)
            pairs = np.argwhere(np.triu(self.hash_distance <= candidates, 1))
            for part in progress(np.array_split(pairs, math.ceil(len(pairs) / 4096) or 1), "structural similarity"):
                if len(part):
                    values = ssim(self.small[part[:, 0]], self.small[part[:, 1]], 11).mean((1, 2, 3)).numpy()
                    found[part[:, 0], part[:, 1]] = values
            self.found[candidates] = np.maximum(found, found.T)
        return self.found[candidates]


CosineRange = Annotated[float, Range(low=-1, high=1)]

Bits = Annotated[int, Range(low=0, high=64)]

Method = Callable[[PairSimilarity], np.ndarray]  # -> which pairs are near-duplicates, bool (N, N)


@register("duplicates", "exact_hash")
def exact_duplicates(likeness: PairSimilarity) -> np.ndarray:
    """Equal pixels."""
    digests = np.array([hashlib.sha256(np.ascontiguousarray(p).tobytes()).hexdigest() for p in likeness.pixels])
    return digests[:, None] == digests


@register("duplicates", "perceptual_hash")
def hash_duplicates(likeness: PairSimilarity, distance: Bits = 11) -> np.ndarray:
    """Perceptual hashes that differ in at most `distance` of 64 bits."""
    return likeness.hash_distance <= distance


@register("duplicates", "ssim")
def ssim_duplicates(likeness: PairSimilarity, threshold: Fraction = 0.75, candidates: Bits = 24) -> np.ndarray:
    """Mean structural similarity of 64 x 64 gray images, where hashes differ in at most `candidates` bits."""
    return likeness.structural(candidates) >= threshold


@register("duplicates", "embedding")
def embedding_duplicates(likeness: PairSimilarity, threshold: CosineRange = 0.95) -> np.ndarray:
    """Cosine of the embeddings above `threshold`."""
    return likeness.similarity > threshold


@register("duplicates", "clustering")
def cluster_duplicates(likeness: PairSimilarity, threshold: CosineRange = 0.95) -> np.ndarray:
    """Groups by average linkage, cut where the mean cosine falls below `threshold`."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distance = np.clip(1 - likeness.similarity.astype(np.float64), 0, None)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform((distance + distance.T) / 2, checks=False), "average")
    groups = fcluster(tree, 1 - threshold, "distance")
    return groups[:, None] == groups


@register("duplicates", "knn_graph")
def knn_duplicates(likeness: PairSimilarity, k: Count = 5, threshold: CosineRange = 0.9) -> np.ndarray:
    """Each among the other's k nearest, and their cosine above `threshold`."""
    others = np.where(np.eye(len(likeness.similarity), dtype=bool), -np.inf, likeness.similarity)
    near = others >= np.sort(others, axis=1)[:, -min(k, len(others) - 1)][:, None]
    return near & near.T & (others > threshold)


@register("duplicates", "hybrid")
def hybrid_duplicates(likeness: PairSimilarity, distance: Bits = 16, threshold: CosineRange = 0.9) -> np.ndarray:
    """Hashes and embeddings agree: at most `distance` bits apart and a cosine above `threshold`."""
    return (likeness.hash_distance <= distance) & (likeness.similarity > threshold)


def duplicate_pairs(
    method: Method, likeness: PairSimilarity, identities: np.ndarray, scope: str = "within"
) -> np.ndarray:
    """Near-duplicate pairs i < j, int (P, 2); scope "within": of one identity only, "across": of any."""
    if scope not in ("within", "across"):
        raise KitError(f"duplicate_pairs: scope: {scope!r} is not known; {suggest(scope, ('within', 'across'))}")
    found = np.triu(method(likeness), 1)
    if scope == "within":
        found &= identities[:, None] == identities
    return np.argwhere(found)


def connected_groups(pairs: np.ndarray, total: int) -> np.ndarray:
    """A group number for each of `total` images: what pairs connect shares one (N,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(total, total))
    return connected_components(links, directed=False)[1]


def keep_sharpest(groups: np.ndarray, sharpness: np.ndarray) -> np.ndarray:
    """Which images stay when of each group only the sharpest does, bool (N,)."""
    order = np.lexsort((-sharpness, groups))
    first = np.r_[True, groups[order][1:] != groups[order][:-1]]
    kept = np.zeros(len(groups), bool)
    kept[order[first]] = True
    return kept


def keep_sharper(pairs: np.ndarray, sharpness: np.ndarray) -> tuple[np.ndarray, int]:
    """Which images stay, bool (N,), when of one pair (P, 2) after the other the less sharp goes; and of how many pairs
    neither was gone yet."""
    kept, seen = np.ones(len(sharpness), bool), 0
    for one, other in pairs:
        if kept[one] and kept[other]:
            seen += 1
            kept[other if sharpness[one] >= sharpness[other] else one] = False
    return kept, seen


def pair_decisions(similarity: np.ndarray, identities: np.ndarray, thresholds: Sequence[float]) -> pd.DataFrame:
    """For each threshold on the cosine: the confusion of "same identity" over unordered pairs, and the FDR."""
    upper = np.triu_indices(len(identities), 1)
    values, same = similarity[upper], (identities[:, None] == identities)[upper]
    rows = []
    for threshold in thresholds:
        above = values > threshold
        hit, wrong = int((above & same).sum()), int((above & ~same).sum())
        rows.append(
            {
                "threshold": threshold,
                "pairs above": hit + wrong,
                "same identity": hit,
                "across identities": wrong,
                "missed": int(same.sum()) - hit,
                "rightly apart": int((~same).sum()) - wrong,
                "fdr": wrong / (hit + wrong) if hit + wrong else math.nan,
            }
        )
    return pd.DataFrame(rows)


# curation: four stages, each of which takes images away and says why


@dataclass(frozen=True)
class Curation:
    """What is left after the stages, and why the others went."""

    kept: np.ndarray  # bool (N,)
    reason: np.ndarray  # text (N,), "" for what is kept
    stages: pd.DataFrame
    signals: pd.DataFrame  # of each image


Percentiles = Literal["left", "all"]  # of which images

Cap = Literal["mean", "median"]

Removal = Literal["groups", "greedy"]


def curate(
    signals: pd.DataFrame,
    similarity: np.ndarray,
    identities: np.ndarray,
    duplicate: float = 0.95,
    quality: float = 5.0,
    typical: float = 1.0,
    percentiles: Percentiles = "left",
    cap: Cap = "mean",
    removal: Removal = "groups",
) -> Curation:
    """Near-duplicates, bad images, untypical images and too many of one identity, taken away in this order.

    (1) cosine above `duplicate` within an identity, the sharpest of each connected group stays (removal "groups"), or
    the sharper of one such pair after the other, in the order of rows ("greedy"); (2) sharpness or contrast below the
    percentile `quality` of what is left, or of all images (percentiles "all"); (3) representativeness below the
    percentile `typical`; (4) at most mean + sd of the identities' counts that are left, or of all counts median + sd
    (n - 1) (cap "median"), kept by 0.5 rank(representativeness) + 0.3 rank(uniqueness) + 0.2 rank(sharpness) within
    the identity.
    """
    for name, value in {"percentiles": percentiles, "cap": cap, "removal": removal}.items():
        convert(value, hints_of(curate)[name], f"curate: {name}")
    lacking = [c for c in ("sharpness", "contrast") if not isinstance(signals, pd.DataFrame) or c not in signals]
    if lacking or len(signals) != len(square_of(similarity)):
        raise KitError("curate: signals: expected a table of quality_signals, a row for each image of similarity")
    signals = signals.assign(
        representativeness=representativeness(similarity, identities), uniqueness=uniqueness(similarity)
    )
    total = len(identities)
    kept, reason, rows = np.ones(total, bool), np.full(total, "", dtype=object), []

    def take_away(gone: np.ndarray, name: str, rule: str) -> None:
        gone = gone & kept
        reason[gone] = name
        kept[gone] = False
        rows.append({"stage": name, "rule": rule, "removed": int(gone.sum()), "left": int(kept.sum())})

    pairs = np.argwhere(np.triu((similarity > duplicate) & (identities[:, None] == identities), 1))
    seen, sharpness = len(pairs), signals.sharpness.to_numpy()
    if removal == "groups":
        sharpest = keep_sharpest(connected_groups(pairs, total), sharpness)
    else:
        sharpest, seen = keep_sharper(pairs, sharpness)
    take_away(~sharpest, "near-duplicate", f"{seen} pairs with cosine > {duplicate:g} within an identity")
    counted = np.ones(total, bool) if percentiles == "all" else kept  # which the stages change
    low = {c: float(np.percentile(signals[c][counted], quality)) for c in ("sharpness", "contrast")}
    bad = np.any([signals[c] < value for c, value in low.items()], axis=0)
    take_away(bad, "quality", ", ".join(f"{c} < {value:.2f}" for c, value in low.items()))
    least = float(np.percentile(signals.representativeness[counted], typical))
    take_away((signals.representativeness < least).to_numpy(), "untypical", f"representativeness < {least:.4f}")
    counts = pd.Series(identities[kept]).value_counts()
    if cap == "median":
        counts = pd.Series(identities).value_counts()
        most = int(counts.median() + counts.std())
    else:
        most = int(counts.mean() + counts.std(ddof=0))
    left = signals[kept].assign(identity=identities[kept])
    ranks = left.groupby("identity")[["representativeness", "uniqueness", "sharpness"]].rank(pct=True)
    value = ranks @ np.array([0.5, 0.3, 0.2])
    place = value.groupby(left.identity).rank(ascending=False, method="first")
    surplus = np.zeros(total, bool)
    surplus[left.index[place > most]] = True
    take_away(surplus, "too many", f"more than {most} of an identity")
    signals["value"] = value.reindex(signals.index)
    return Curation(kept, reason, pd.DataFrame(rows), signals)


# analyses of the training images


@dataclass(frozen=True, eq=False)
class AnalysisContext:
    """What an analysis looks at, and where it leaves its files."""

    recipe: Recipe
    images: Images
    folder: Path  # for lists and tables
    device: torch.device
    rows: np.ndarray | None = None  # which of the training images are looked at; None: all

    def within(self, images: Literal["all", "training"]) -> AnalysisContext:
        """All images with a label, or those alone that the first split trains on."""
        return self if images == "all" else replace(self, rows=np.sort(self.images.splits[0][0]))

    @cached_property
    def train(self) -> pd.DataFrame:
        table = self.images.competition.train
        return table if self.rows is None else table.iloc[self.rows].reset_index(drop=True)

    @property
    def positions(self) -> np.ndarray:
        return np.arange(len(self.train)) if self.rows is None else self.rows

    @property
    def identities(self) -> np.ndarray:
        return self.train.identity.to_numpy(str)

    @cached_property
    def pixels(self) -> ImageStore:
        return self.images.store.subset(self.positions)

    @cached_property
    def signals(self) -> pd.DataFrame:
        """Of the files as they are: what tells sharpness is lost where they are stored small."""
        root = self.images.competition.root
        signals = quality_of_files(root, list(self.train.path), self.recipe.data.masks, self.pixels.key)
        self.keep("quality", pd.concat([self.train[["filename", "identity"]], signals], axis=1))
        return signals

    @cached_property
    def embeddings(self) -> Tensor:
        return self.embeddings_of(self.recipe)

    def embeddings_of(self, recipe: Recipe) -> Tensor:
        """Unit vectors (N, D) that the recipe's backbone makes, without a head."""
        everything = self.images.competition.train
        model = replace(recipe.model, freeze=True, pooling=Component("pooling", "native"))
        plain = replace(recipe.train, views=0, stages=())
        recipe = replace(recipe, model=model, augment=(), train=plain, checkpoint=None)
        embedder = embedder_for(recipe)[0].to(self.device)
        task = make_task(
            recipe,
            embedder,
            self.images,
            torch.zeros(len(everything), dtype=torch.int64),
            (np.arange(len(everything)), np.arange(0)),
            self.device,
        )
        return l2_normalize(task.source.read(self.positions).cpu())

    def keep(self, name: str, table: pd.DataFrame) -> None:
        write_table(self.folder / f"{name}.csv", table)

    def thumbnails(self, positions: Iterable[int]) -> list[Image.Image]:
        return [self.images.store.thumbnail(int(self.positions[i])) for i in positions]


def with_backbone(recipe: Recipe, name: str) -> Recipe:
    """The recipe with a second backbone to compare, whose weights are looked for by its own name."""
    folder = recipe.model.weights if recipe.model.weights and Path(recipe.model.weights).is_dir() else None
    model = replace(recipe.model, backbone=name, weights=folder)
    return replace(recipe, model=model, checkpoint=None, analysis=())


def check_weights(recipe: Recipe) -> None:
    """Refuses an analysis by a backbone that is not there, before any work."""
    check_looks(recipe)
    for part in recipe.analysis:
        if part.name != "characteristics" and not is_look(part):  # which look at files alone, or at runs
            check_model(recipe)
        if part.settings.get("against"):
            check_model(with_backbone(recipe, part.settings["against"]))


def analyse(recipe: Recipe, images: Images, folder: Path, device: torch.device) -> list[Page]:
    """Parts of the report, one for each analysis of the recipe; lists and tables go below folder/analysis."""
    context, found = AnalysisContext(recipe, images, folder / "analysis", device), []
    for part in (part for part in recipe.analysis if not is_look(part)):
        echo(f"  analysis: {part.name}")
        found.append(part(context))
    return found


@register("analysis", "characteristics")
def characteristics(context: AnalysisContext, images: Literal["all", "training"] = "all") -> Page:
    """Counts by identity and species, proportions of the split, and quality of all images or those of training."""
    train, (rows, held_out), page = context.train, context.images.splits[0], Page()
    counts = train.identity.value_counts()
    parts = {"all": counts, "training": train.identity.iloc[rows].value_counts()}
    parts["validation"] = train.identity.iloc[held_out].value_counts()
    table = pd.DataFrame(parts).fillna(0).astype(int).sort_values("all", ascending=False)
    table["validation share"] = table.validation / table["all"]
    share = len(held_out) / len(train)
    page.heading("Characteristics")
    page.text(
        f"{len(train)} images of {len(counts)} identities, {counts.min()} to {counts.max()} each (median "
        f"{counts.median():g}); {len(held_out)} of them, {share:.1%}, validate; by identity this share lies "
        f"between {table['validation share'].min():.1%} and {table['validation share'].max():.1%}."
    )
    page.figure("counts", counts_figure(table), "Images of each identity, split into training and validation.")
    page.table(counts_by_size(counts), "Identities by how many images they have.")
    kind = next((c for c in ("species", "dataset") if c in train and (train[c].fillna("") != "").all()), None)
    if kind:
        page.table(counts_by_kind(train, context.images.competition.test, kind), f"Images and individuals by {kind}.")
    signals = context.within(images).signals
    caption = f"Quality on the animal's own pixels, at full resolution; {len(signals)} images."
    page.figure("quality", histograms_figure({"all images": signals}), caption)
    described = signals.describe(percentiles=[0.05, 0.5, 0.95]).T.assign(skewness=signals.skew())
    described.insert(0, "signal", described.index)
    page.table(described)
    page.table(table.reset_index())
    page.points = points_of_counts(counts, table["validation share"], bool((signals.foreground < 1).any()))
    return page


SIZES = (0, 1, 5, 20, 60, math.inf)  # bounds of groups of identities, by how many images they have


def counts_by_size(counts: pd.Series) -> pd.DataFrame:
    """How many identities have how many images, in a few groups."""
    names = [
        f"{low + 1:g} to {high:g}" if math.isfinite(high) else f"more than {low:g}"
        for low, high in itertools.pairwise(SIZES)
    ]
    groups = pd.cut(counts, SIZES, labels=["1", *names[1:]])
    found = pd.DataFrame(
        {"identities": groups.value_counts(sort=False), "total": counts.groupby(groups, observed=False).sum()}
    )
    return (
        found[found.identities > 0]
        .rename_axis("images of an identity")
        .rename(columns={"total": "images"})
        .reset_index()
    )


def counts_by_kind(train: pd.DataFrame, test: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Images, individuals, those with one image, and test images, for each value of the column `kind`."""
    rows = []
    for name, own in train.groupby(kind):
        counts = own.identity.value_counts()
        asked = int((test[kind] == name).sum()) if kind in test else 0
        rows.append(
            {
                kind: name,
                "images": len(own),
                "individuals": len(counts),
                "with one image": int((counts == 1).sum()),
                "largest": int(counts.max()),
                "test images": asked,
            }
        )
    return pd.DataFrame(rows)


SENSITIVITY = {  # other thresholds at which the methods for near-duplicates are tried
    "perceptual_hash": ("distance", (4, 8, 11, 16, 20)),
    "ssim": ("threshold", (0.65, 0.75, 0.85)),
    "clustering": ("threshold", (0.9, 0.95, 0.99)),
    "knn_graph": ("threshold", (0.85, 0.9, 0.95)),
    "hybrid": ("threshold", (0.85, 0.9, 0.95)),
}


@register("analysis", "duplicates")
def duplicates(
    context: AnalysisContext,
    thresholds: tuple[CosineRange, ...] = (0.90, 0.95, 0.99),
    against: str | None = None,
    threshold: CosineRange = 0.95,
    images: Literal["all", "training"] = "all",
) -> Page:
    """Near-duplicates by every method, lists of what stays without them, and how well the cosine tells identities.

    `thresholds` of the cosine are compared, `threshold` is that of the methods that take one; `against` names a second
    backbone, whose weights are never the file in model.weights.
    """
    context = context.within(images)
    similarity, identities, page = (context.embeddings @ context.embeddings.T).numpy(), context.identities, Page()
    likeness = PairSimilarity(context.pixels, similarity)
    methods = {name: Component("duplicates", name) for name in registered("duplicates")}
    for name in ("embedding", "clustering", "knn_graph", "hybrid"):
        methods[name] = replace(methods[name], settings={"threshold": threshold})
    for value in thresholds:
        methods[f"embedding_{value:g}"] = Component("duplicates", "embedding", {"threshold": value})
    truth = column_groups(context.train.burst) if "burst" in context.train else None
    rows, groups = [], {}
    runs = [(name, part, "within") for name, part in methods.items()]
    trained = np.isin(context.positions, context.images.splits[0][0])
    for name, part, scope in [*runs, ("embedding_across", methods["embedding"], "across")]:
        pairs = duplicate_pairs(part, likeness, identities, scope)
        groups[name] = connected_groups(pairs, len(identities))
        kept = keep_sharpest(groups[name], context.signals.sharpness.to_numpy())
        context.keep(f"kept-{name}", context.train.loc[kept, ["filename", "identity"]])
        found = {"method": name, "scope": scope, "pairs": len(pairs), "kept": int(kept.sum())}
        found["across identities"] = int((identities[pairs[:, 0]] != identities[pairs[:, 1]]).sum())
        found["across the split"] = int((trained[pairs[:, 0]] != trained[pairs[:, 1]]).sum())
        rows.append({**found, **(recovered(pairs, truth) if truth is not None else {})})
    table = pd.DataFrame(rows)
    context.keep("duplicates", table)
    page.heading("Near-duplicates")
    bursts = "; precision and recall: of the pairs within the data's own column burst." if truth is not None else "."
    page.table(
        table,
        "pairs: near-duplicates that the method finds; across the split: of which one image trains and the other "
        f"validates; kept: images when of each connected group only the sharpest stays{bursts}",
    )
    page.table(
        thresholds_tried(likeness, identities),
        "How much each method hangs on its threshold: pairs within identities, those it would add across identities, "
        "and the images that stay.",
    )
    page.figure(
        "hashes",
        collisions_figure(likeness.hash_distance, identities),
        f"{hash_words(likeness.hash_distance, identities)} Pairs of images by the bits in which their perceptual "
        "hashes differ.",
    )
    for name in ("perceptual_hash", "embedding"):
        if (largest := groups_sheet(context, groups[name])) is not None:
            page.image(f"groups-{name}", largest, groups_words(name, groups[name]))
    models = {context.recipe.model.backbone: similarity}
    if against is not None:
        other = context.embeddings_of(with_backbone(context.recipe, against))
        models[against] = (other @ other.T).numpy()
    page.heading("Does the cosine tell identities apart?", 3)
    apart = separation(models, identities)
    page.table(
        apart,
        "auc: how often a pair of one identity is more alike than one of two, of all pairs; of an identity: the same "
        "of each identity's images, the mean over identities with its 95 % interval.",
    )
    decisions = {model: pair_decisions(values, identities, thresholds) for model, values in models.items()}
    for model, values in models.items():
        page.note(model)
        page.table(decisions[model])
        area = apart.set_index("model").auc[model]
        caption = f"{pairs_words(area)}Cosines of pairs of training images, {model}."
        page.figure(f"pairs-{model}", similarity_figure(values, identities), caption)
    best = apart.loc[apart.auc.fillna(0).idxmax()]
    message = f"{best.model} ranks {'best' if len(apart) > 1 else 'pairs'} with AUC {best.auc:.3f}."
    caption = f"{message} ROC of 'same identity' by cosine, and FDR by threshold."
    page.figure("roc", roc_figure(models, identities, dict(zip(apart.model, apart.auc))), caption)
    first = next(iter(decisions.values()))
    page.points = points_of_duplicates(context.recipe, table, apart, first, len(identities))
    return page


def hash_words(distance: np.ndarray, identities: np.ndarray) -> str:
    """From how many bits on pairs of two identities outnumber those of one."""
    first, second = np.triu_indices(len(identities), 1)
    bits, same = distance[first, second], identities[first] == identities[second]
    one, two = (np.bincount(bits[kind], minlength=65).cumsum() for kind in (same, ~same))
    more = np.flatnonzero(two > one)
    if not len(more):
        return "At no number of bits are more pairs of two identities than of one."
    return f"Where {more[0]} bits may differ, more pairs show two identities than one."


def groups_words(method: str, groups: np.ndarray) -> str:
    """How many groups a method finds, and how large the largest is."""
    sizes = np.unique(groups, return_counts=True)[1]
    several = int((sizes > 1).sum())
    found = f"{several} group{'' if several == 1 else 's'}"
    return f"{method} finds {found}, the largest of {sizes.max()} images. The largest groups, a row for each."


def thresholds_tried(likeness: PairSimilarity, identities: np.ndarray) -> pd.DataFrame:
    """What each method finds at each threshold of `SENSITIVITY`."""
    rows = []
    for method, (setting, values) in SENSITIVITY.items():
        for value in values:
            part = Component("duplicates", method, {setting: value})
            pairs = duplicate_pairs(part, likeness, identities, "across")
            own = pairs[identities[pairs[:, 0]] == identities[pairs[:, 1]]]
            kept = len(np.unique(connected_groups(own, len(identities))))
            told = {"method": method, "threshold": value, "pairs": len(own), "across": len(pairs) - len(own)}
            rows.append({**told, "kept": kept})
    return pd.DataFrame(rows)


def recovered(pairs: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Precision and recall of pairs, against all pairs that share a true group."""
    right = int((truth[pairs[:, 0]] == truth[pairs[:, 1]]).sum())
    sizes = np.bincount(np.unique(truth, return_inverse=True)[1])
    every = int((sizes * (sizes - 1) // 2).sum())
    return {
        "precision": right / len(pairs) if len(pairs) else math.nan,
        "recall": right / every if every else math.nan,
    }


@register("analysis", "curation")
def curation(
    context: AnalysisContext,
    duplicate: CosineRange = 0.95,
    quality: Annotated[float, Range(low=0, high=50)] = 5.0,
    typical: Annotated[float, Range(low=0, high=50)] = 1.0,
    percentiles: Percentiles = "left",
    cap: Cap = "mean",
    removal: Removal = "groups",
) -> Page:
    """The four stages of `curate`; writes curated.csv for data.subset, and why each other image went."""
    similarity, page = (context.embeddings @ context.embeddings.T).numpy(), Page()
    how = (duplicate, quality, typical, percentiles, cap, removal)
    done = curate(context.signals, similarity, context.identities, *how)
    train = context.train.assign(reason=done.reason)
    context.keep("curated", train.loc[done.kept, ["filename", "identity"]])
    context.keep("removed", train.loc[~done.kept, ["filename", "identity", "reason"]])
    signals = done.signals[["sharpness", "contrast", "representativeness", "uniqueness"]]
    parts = {"before": signals, "after": signals[done.kept], "excluded": signals[~done.kept]}
    means = pd.DataFrame({"signal": signals.columns, **{k: part.mean().to_numpy() for k, part in parts.items()}})
    page.heading("Curation")
    page.table(done.stages)
    page.table(means, "Means over all images, those kept, and those excluded; the last two signals within [0, 1].")
    compared = {"kept": parts["after"], **({"excluded": parts["excluded"]} if len(parts["excluded"]) else {})}
    page.figure("curation-quality", histograms_figure(compared), "Quality of what was kept and of what was excluded.")
    counts = pd.DataFrame({"all": train.identity.value_counts()})
    counts["training"] = train.identity[done.kept].value_counts().reindex(counts.index).fillna(0).astype(int)
    counts["validation"] = counts["all"] - counts.training
    page.figure("curation-counts", counts_figure(counts, ("kept", "removed")), "Images of each identity.")
    shown = np.where(done.kept, "kept", done.reason.astype(str))
    page.figure("curation-map", map_figure(context.embeddings.numpy(), shown), "All images, by what became of them.")
    for name in done.stages.stage:
        gone = np.flatnonzero(done.reason == name)[:24]
        if len(gone):
            removed = tiles(context.thumbnails(gone), [context.identities[i] for i in gone])
            page.image(f"removed-{name.replace(' ', '-')}", removed, f"Removed: {name}.")
    left, before = train.identity[done.kept].value_counts(), train.identity.value_counts()
    gone, single = len(before) - len(left), int((left == 1).sum() - (before == 1).sum())
    page.note(
        f"{gone} identities have no image left, and {single} that had several have one, which can't train and validate."
    )
    if (context.signals.foreground == 1).all():
        page.note("There are no masks: sharpness and contrast are those of whole images, background included.")
    sizes = train.groupby("identity").identity.transform("size").to_numpy()
    ranked = done.kept & (sizes >= 5)  # ranks among few say little
    best = done.signals.value[ranked].nlargest(24).index
    captions = [f"{context.identities[i]} {done.signals.value[i]:.2f}" for i in best]
    page.image("most-valuable", tiles(context.thumbnails(best), captions), "The most valuable images that stay.")
    page.points = points_of_curation(context.recipe, done.stages, done.kept, gone)
    return page


def groups_sheet(context: AnalysisContext, groups: np.ndarray, rows: int = 6, columns: int = 8) -> Image.Image | None:
    """The largest groups, a row for each; None where all images stand alone."""
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    largest = sorted((m for m in members if len(m) > 1), key=len, reverse=True)[:rows]
    if not largest:
        return None
    names_of, thumbnails = context.train.filename, context.thumbnails
    return sheet([[Tile(*pair) for pair in zip(thumbnails(own[:columns]), names_of.iloc[own])] for own in largest])
