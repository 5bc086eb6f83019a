"""Where in an image a likeness or a name rests: maps by occlusion and by integrated gradients, put to the test."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaguar_kit import Count, KitError, Range, class_logits, mean_interval, progress
from PIL import Image
from torch import Tensor, nn

from .figures import INK, OTHER, SAME, Tile, sheet
from .looking import LookContext, look
from .looks import Look, Network
from .page import Page
from .spots import CENTRE

Grid = Annotated[int, Range(low=2, high=32)]


class Scorer(nn.Module):
    """What is asked of a network: how alike an image is to another, and how sure a name is."""

    def __init__(self, network: Network):
        super().__init__()
        self.embedder, self.loss = network.embedder, network.loss if network.names else None
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor, asked: Question) -> Tensor:
        """Scores (B,) of images (B, 3, H, W)."""
        points = self.embedder(images)
        if asked.name is not None:
            return class_logits(self.loss, points).log_softmax(1)[:, asked.name]
        geometry, other = self.embedder.geometry, self.embedder(asked.other[None])
        return geometry.similarity(geometry.project(points), geometry.project(other))[:, 0]


@dataclass(frozen=True, eq=False)
class Question:
    """Of an image, as the embedder takes it: how alike is it to another, or how sure is a name."""

    image: Tensor  # (3, H, W)
    animal: Tensor  # share of each pixel that is animal (H, W): the mask, or the central box
    other: Tensor | None = None  # (3, H, W)
    name: int | None = None  # of the classes of the loss

    @property
    def kind(self) -> str:
        return "likeness" if self.name is None else "name"


# maps: importance of each cell of a grid (G, G); what is taken away becomes the mean colour of all images


def cells_of(values: Tensor, grid: int) -> Tensor:
    """Means of values (..., H, W) over the cells of a grid (..., G, G)."""
    return F.adaptive_avg_pool2d(values[None], grid)[0]


def kept_cells(kept: Tensor, side: tuple[int, int]) -> Tensor:
    """Grids (B, G, G) of ones and zeros as factors of pixels (B, 1, H, W)."""
    return F.interpolate(kept[:, None].float(), side, mode="nearest")


@torch.no_grad()
def scores_of(scorer: Scorer, asked: Question, kept: Tensor, batch: int = 32) -> Tensor:
    """Scores (B,) of the image with those cells alone that are kept (B, G, G)."""
    factors = kept_cells(kept, tuple(asked.image.shape[-2:])).to(asked.image)
    return torch.cat([scorer(asked.image * part, asked) for part in factors.split(batch)])


def by_occlusion(scorer: Scorer, asked: Question, grid: int) -> Tensor:
    """How much the score falls where a cell is hidden (G, G) (Zeiler & Fergus 2014)."""
    kept = torch.ones(grid * grid + 1, grid * grid)
    kept[1:] -= torch.eye(grid * grid)
    whole, *without = scores_of(scorer, asked, kept.view(-1, grid, grid)).cpu()
    return (whole - torch.stack(without)).view(grid, grid)


def by_gradients(scorer: Scorer, asked: Question, grid: int, steps: int = 8) -> Tensor:
    """Integrated gradients from the mean colour to the image, summed over cells (G, G) (Sundararajan et al. 2017)."""
    total = torch.zeros_like(asked.image)
    for places in ((torch.arange(steps) + 0.5) / steps).split(16):
        images = (asked.image * places.to(asked.image)[:, None, None, None]).requires_grad_()
        with torch.enable_grad():
            total += torch.autograd.grad(scorer(images, asked).sum(), images)[0].sum(0)
    return cells_of((asked.image * total).sum(0) / steps, grid).cpu() * (asked.image.shape[-1] // grid) ** 2


METHODS: dict[str, Callable[[Scorer, Question, int], Tensor]] = {
    "occlusion": by_occlusion,
    "integrated gradients": by_gradients,
}


def animal_share(importance: Tensor, asked: Question) -> float:
    """The share of all importance, of either sign, that lies on the animal; NaN where there is none."""
    weight, cover = importance.abs(), cells_of(asked.animal[None], importance.shape[-1])[0].cpu()
    return float((weight * cover).sum() / weight.sum()) if weight.sum() > 0 else math.nan


# the test by deletion


def deletion_gain(scorer: Scorer, asked: Question, importance: Tensor, orders: int = 3, steps: int = 7) -> float:
    """How much faster the score falls where cells are deleted by importance than in random orders (mean of `orders`).

    Difference of the areas below both curves, as a share of the reach of all scores: above 0 the map names what
    matters (Petsiuk et al. 2018).
    """
    grid, rng = importance.shape[-1], np.random.default_rng(0)
    ranks = [importance.flatten().argsort(descending=True).numpy()]
    ranks += [rng.permutation(grid * grid) for _ in range(orders)]
    ends = np.linspace(0, grid * grid, steps + 1).round().astype(int)
    kept = torch.ones(len(ranks), len(ends), grid * grid)
    for one, order in enumerate(ranks):
        for step, end in enumerate(ends):
            kept[one, step, order[:end].copy()] = 0
    scores = scores_of(scorer, asked, kept.view(-1, grid, grid)).view(len(ranks), -1).cpu().double()
    areas = ((scores[:, 1:] + scores[:, :-1]) / 2).mean(1)
    reach = float(scores.max() - scores.min())
    return float(areas[1:].mean() - areas[0]) / reach if reach > 1e-9 else math.nan


# the test by randomisation


def shuffled_from_top(scorer: Scorer, share: float, seed: int) -> Scorer:
    """A copy in which that share of the weights' tensors, those nearest to the output first, has its values shuffled
    (Adebayo et al. 2018)."""
    other = copy.deepcopy(scorer)
    weights = [*other.parameters()]
    generator = torch.Generator().manual_seed(seed)
    for weight in weights[len(weights) - math.ceil(share * len(weights)) :]:
        order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
        weight.data = weight.data.flatten()[order].view_as(weight)
    return other


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's, of the absolute importance in two maps; 0 where one of them is flat."""
    from scipy.stats import rankdata

    ranks = [rankdata(values.abs().numpy().ravel()) for values in (one, other)]
    if min(np.ptp(values) for values in ranks) == 0 or not all(torch.isfinite(values).all() for values in (one, other)):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


ALIKE = 0.5  # rank correlation with maps of shuffled weights, from which a map does not hang on them


@dataclass(frozen=True)
class Trial:
    """What a kind of map says of several images, and how it did in its tests."""

    asked: str  # likeness, name
    method: str
    shares: tuple[float, ...]  # of importance on the animal, by image
    area: float  # of the animal
    gains: tuple[float, ...]  # by deletion, by image
    correlation: dict[str, float]  # with maps of shuffled weights, by what was shuffled
    share: float  # as `shares`, of the images that the weights were shuffled for
    shuffled: tuple[float, ...]  # the same of networks all of whose weights are shuffled

    @property
    def expected(self) -> tuple[float, float]:
        """Where the share of one more network with shuffled weights would lie, at 95 %."""
        from scipy.stats import t

        told = [value for value in self.shuffled if not math.isnan(value)]
        if len(told) < 2:
            return math.nan, math.nan
        reach = t.ppf(0.975, len(told) - 1) * np.std(told, ddof=1) * math.sqrt(1 + 1 / len(told))
        return float(np.mean(told) - reach), float(np.mean(told) + reach)

    @property
    def map_failures(self) -> list[str]:
        """Which tests the maps themselves fail."""
        _, fall = deletion_interval(self.gains)
        return [
            *(["it hardly changes when weights are shuffled"] if self.correlation["all"] >= ALIKE else []),
            *(["deleting by it is no better than at random"] if not fall > 0 else []),
        ]

    @property
    def failures(self) -> list[str]:
        """Which tests the maps fail, or what they say of the animal."""
        low, high = self.expected
        beyond = self.share < low or self.share > high
        return self.map_failures + ([] if beyond else ["shuffled weights point as much at the animal"])


def deletion_interval(gains: Iterable[float]) -> tuple[float, float]:
    """The mean gain, and the lower end of its 95 % interval; of less than three the gain itself stands for that."""
    told = [gain for gain in gains if not math.isnan(gain)]
    if not told:
        return math.nan, math.nan
    low, _ = mean_interval(told, 0.95, 3)
    return float(np.mean(told)), min(told) if math.isnan(low) else low


SHUFFLED = {"top": 0.1, "half": 0.5}  # shares of the weights' tensors that are shuffled, beside all of them


def tried(
    scorer: Scorer, questions: Sequence[Question], method: str, grid: int = 7, shuffles: int = 5, few: int = 2
) -> tuple[Trial, list[Tensor]]:
    """A kind of map of several questions, put to its tests, and the maps (G, G); `few` of them see shuffled weights."""
    draw = METHODS[method]
    maps = [draw(scorer, asked, grid) for asked in questions]
    shares = [animal_share(one, asked) for one, asked in zip(maps, questions)]
    gains = [deletion_gain(scorer, asked, one) for one, asked in zip(maps, questions)]
    asked_again = questions[:few]

    def again(share: float, seed: int) -> tuple[float, float]:
        other = shuffled_from_top(scorer, share, seed)
        drawn = [draw(other, asked, grid) for asked in asked_again]
        alike = float(np.mean([rank_correlation(a, b) for a, b in zip(maps, drawn)]))
        on_animal = [animal_share(one, asked) for one, asked in zip(drawn, asked_again)]
        return alike, float(np.mean(on_animal)) if np.isfinite(on_animal).all() else math.nan

    correlation = {name: again(share, 0)[0] for name, share in SHUFFLED.items()}
    every = [again(1.0, seed) for seed in range(1, shuffles + 1)]
    correlation["all"] = float(np.mean([alike for alike, _ in every]))
    area = float(np.mean([float(asked.animal.mean()) for asked in questions]))
    shown = tuple(share for _, share in every)
    of_few = float(np.mean(shares[:few]))
    trial = Trial(questions[0].kind, method, tuple(shares), area, tuple(gains), correlation, of_few, shown)
    return trial, maps


# questions of a run


def animals_in(network: Network, positions: np.ndarray) -> Tensor:
    """Where the animal is in images as the embedder takes them (B, H, W): by their masks, else the central box."""
    pixels, prepare = network.source.store.read(positions).float() / 255, network.source.preparation
    side = prepare.input_size
    whole = round(side / prepare.crop)
    edge = (whole - side) // 2
    box = torch.zeros(whole, whole)
    left, top, right, bottom = (round(end * whole) for end in CENTRE)
    box[top:bottom, left:right] = 1
    alpha = pixels[:, 3:] if pixels.shape[1] == 4 else box.expand(len(pixels), 1, -1, -1)
    alpha = F.interpolate(alpha, (whole, whole), mode="bilinear", antialias=True, align_corners=False)[:, 0]
    flat = alpha.amin((1, 2)) == alpha.amax((1, 2))  # a mask of one value tells no animal
    alpha[flat] = box
    return alpha[:, edge : edge + side, edge : edge + side]


def pairs_to_ask(run: Look, count: int) -> np.ndarray:
    """Pairs (P, 2) of validation images of one animal, of two encounters where these are told, an animal once as far as
    there are enough; the same for all runs that validated on the same images."""
    rng, labels, met = np.random.default_rng(0), run.labels, run.encounters
    same = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
    same &= True if met is None else met[:, None] != met
    found, seen = [], {}
    for query in rng.permutation(len(labels)):
        if same[query].any():
            seen[labels[query]] = seen.get(labels[query], 0) + 1
            found.append((seen[labels[query]], len(found), query, int(same[query].argmax())))
    return np.array([pair[2:] for pair in sorted(found)[:count]], int).reshape(-1, 2)


def questions_of(run: Look, pairs: np.ndarray, kind: str) -> list[Question]:
    """Of the first image of each pair; a name that the loss has not learned is not asked for."""
    network, (one, other) = run.network, run.positions[pairs.T]
    images, animals = network.inputs(one), animals_in(network, one)
    if kind == "likeness":
        return [Question(*both, other=image) for *both, image in zip(images, animals, network.inputs(other))]
    place = {name: i for i, name in enumerate(network.identities)}
    names = [place.get(name) for name in run.labels[pairs[:, 0]]]
    return [Question(*both, name=name) for *both, name in zip(images, animals, names) if name is not None]


# pictures


def overlay(picture: Image.Image, importance: Tensor, side: int = 160) -> Image.Image:
    """The picture, with what supports the score glowing over it."""
    from matplotlib import colormaps

    weight = importance.clamp(min=0)
    heat = F.interpolate((weight / weight.max().clamp(min=1e-12))[None, None], (side, side), mode="bicubic")[0, 0]
    heat = heat.clamp(0, 1).numpy()
    colours = colormaps["inferno"](heat)[..., :3] * 255
    below = np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), float)
    gray = below.mean(-1, keepdims=True) * 0.6 + below * 0.4
    shade = (0.25 + 0.6 * heat)[..., None]
    return Image.fromarray((gray * (1 - shade) + colours * shade).clip(0, 255).astype(np.uint8))


def seen_picture(asked: Question, network: Network) -> Image.Image:
    """The image as the embedder sees it."""
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (network.source.preparation.mean, network.source.preparation.std)
    )
    pixels = (asked.image.cpu() * std + mean).clamp(0, 1)
    return Image.fromarray((255 * pixels).byte().permute(1, 2, 0).numpy())


def maps_sheet(
    questions: Sequence[Question],
    network: Network,
    drawn: Sequence[tuple[Trial, Sequence[Tensor]]],
    names: Sequence[str],
) -> Image.Image:
    """A row for each question: the image, then a map by each method, framed as failed where a test has failed."""
    rows = []
    for number, (asked, name) in enumerate(zip(questions, names)):
        picture = seen_picture(asked, network)
        row = [Tile(picture, name, INK)]
        for trial, maps in drawn:
            failed = bool(trial.failures)
            caption = f"{'FAILED ' * failed}{trial.shares[number]:.0%} on the animal"
            row.append(Tile(overlay(picture, maps[number]), caption, OTHER if failed else SAME, trial.method[:10]))
        rows.append(row)
    return sheet(rows, side=160)


# the page


def row_of(variant: str, trial: Trial) -> dict[str, Any]:
    """What the table tells of a kind of map."""
    low, high = mean_interval(trial.shares, 0.95, 3)
    expected, (gain, least) = trial.expected, deletion_interval(trial.gains)
    return {
        "variant": variant,
        "of": trial.asked,
        "by": trial.method,
        "images": len(trial.shares),
        "on the animal": float(np.nanmean(trial.shares)),
        "low": low,
        "high": high,
        "area": trial.area,
        "shuffled from": expected[0],
        "shuffled to": expected[1],
        **{f"alike, {name} shuffled": value for name, value in trial.correlation.items()},
        "deletion gain": gain,
        "at least": least,
        "tests": "passes" if not trial.failures else f"FAILED: {'; '.join(trial.failures)}",
    }


@look("attribution")
def attribution(
    context: LookContext, images: Count = 6, grid: Grid = 7, shuffles: Annotated[int, Range(low=2, high=100)] = 5
) -> Page:
    """Where in the image likeness and names rest, by variant, and whether the maps hold what they promise.

    images: of validation, each with another of its animal; grid: cells along a side; shuffles: networks with shuffled
    weights.
    """
    page, rows = Page(), []
    page.heading("Where in the image", 3)
    for run in context.shown:
        pairs = pairs_to_ask(run, images)
        if not len(pairs):
            page.note(f"{run.spec.variant}: no animal has two validation images of two encounters.")
            continue
        try:
            scorer = Scorer(run.network)
        except KitError as error:
            page.note(f"{run.spec.variant}: its network can't be read here: {error}.")
            continue
        for kind in ("likeness", "name") if run.network.names else ("likeness",):
            asked = questions_of(run, pairs, kind)
            if not asked:
                page.note(f"{run.spec.variant}: none of these animals has a name that was learned.")
                continue
            told = f"{run.spec.variant}: {kind}"
            drawn = [tried(scorer, asked, method, grid, shuffles) for method in progress(METHODS, told)]
            rows += [row_of(run.spec.variant, trial) for trial, _ in drawn]
            if run is context.shown[0]:
                told = [f"{run.labels[one]} ({kind})" for one, _ in pairs]
                page.image(
                    f"attribution-{kind}", maps_sheet(asked[:4], run.network, drawn, told), map_caption(run, kind)
                )
    if rows:
        table = pd.DataFrame(rows)
        context.keep("attribution", table)
        page.bullets([share_words(row) for row in rows])
        with page.folded("All numbers of the maps, and their tests"):
            page.table(as_told(table), ABOUT_MAPS)
    return page


def map_caption(run: Look, kind: str) -> str:
    what = "the likeness to another image of the animal" if kind == "likeness" else "the probability of its name"
    where = "its mask" if run.images.store.has_masks else "the central box, for there are no masks"
    return (
        f"{run.spec.variant}: what {what} rests on glows. Left the image as the network sees it, then the maps. An "
        "orange frame with a cross: this kind of map FAILED a test, so that it explains nothing. The animal is "
        f"{where}."
    )


def as_told(table: pd.DataFrame) -> pd.DataFrame:
    """The table in few columns, which a sheet of paper holds."""
    alike = [name for name in table if name.startswith("alike, ")]
    return pd.DataFrame(
        {
            "variant": table.variant,
            "of": table.of,
            "by": table.by,
            "on the animal": [
                f"{a:.0%} [{b:.0%}, {c:.0%}]" for a, b, c in table[["on the animal", "low", "high"]].to_numpy()
            ],
            "area": [f"{area:.0%}" for area in table.area],
            "shuffled": [f"{a:.0%} to {b:.0%}" for a, b in zip(table["shuffled from"], table["shuffled to"])],
            "alike": [", ".join(f"{value:.2f}" for value in row) for row in table[alike].to_numpy()],
            "deletion": [f"{a:+.2f} (from {b:+.2f})" for a, b in zip(table["deletion gain"], table["at least"])],
            "tests": [told.partition(":")[0] for told in table.tests],
        }
    )


ABOUT_MAPS = (
    "on the animal: share of importance, with its 95 % interval over images; area: the animal's share of the image, "
    "which a map that knows nothing would have; shuffled: where that share lies for networks with shuffled weights; "
    "alike: rank correlation with their maps, when the top tenth, half and all of the weights' tensors are shuffled "
    f"(it fails from {ALIKE:g}); deletion: how much faster the score falls where cells go by importance than at "
    "random, and the lower end of its interval. attribution.csv has all digits."
)


def share_words(row: dict[str, Any]) -> str:
    """One sentence on a kind of map."""
    said = f"{row['variant']}, {row['of']} by {row['by']}: {row['on the animal']:.0%} of importance lies on the animal"
    told = f"{said}, which covers {row['area']:.0%} of the image"
    return f"{told}. {row['tests']}." if row["tests"] != "passes" else f"{told}; the map passes its tests."
