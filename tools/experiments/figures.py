"""Figures of reports, and sheets of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaguar_kit import (
    ImageStore,
    Preparation,
    Recipe,
    Retrieval,
    as_store,
    one_line,
    seed_everything,
    variant_label,
)
from PIL import Image, ImageDraw, ImageOps

from .open_set import SOURCE_THRESHOLDS, threshold_curve
from .spots import LocalFeatures, extract_local

# figures

SAME, OTHER, INK, PAPER = (
    "#0072b2",
    "#d55e00",
    "#222222",
    "#ffffff",
)  # blue and vermilion: told apart by the colour-blind
EFFECT = "#4c78a8"
# of curves: blue, vermilion, ink and green, which deuteranopes tell apart too; then the same with other strokes
PALETTE = (SAME, OTHER, INK, "#009e73")
DASHES = ("", "7 3", "2 3", "8 3 2 3")  # px of line and gap


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    """A matplotlib figure (inches) and its axes, apart from any global state."""
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots(rows, columns)
    for ax in np.ravel(axes):
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_prop_cycle(color=PALETTE)
    return figure, axes


def image_type(data: bytes) -> str:
    return "jpeg" if data.startswith(b"\xff\xd8") else "png"


@cache
def sheet_font(size: int) -> Any:
    """DejaVu Sans, which matplotlib brings: it has the letters of most alphabets."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def shortened_to(text: str, width: int, size: int = 11) -> str:
    """The text where it is at most `width` px wide, else its beginning and its end, by which names differ."""
    text, font = one_line(text, 300), sheet_font(size)
    shown, kept = text, len(text)
    while kept > 2 and font.getlength(shown) > width:
        kept -= 1
        shown = f"{text[: kept // 2]}\u2026{text[len(text) - kept + kept // 2 :]}"
    return shown


MARKS = {SAME: "\u2713", OTHER: "\u2717"}  # a tick and a cross


@dataclass(frozen=True, eq=False)
class Tile:
    """An image of a sheet, a line of text under it, and the colour of its frame."""

    image: Image.Image | None  # None: a gap
    caption: str = ""
    frame: str = PAPER
    tag: str = ""  # in the corner of the image


def sheet(rows: Sequence[Sequence[Tile]], side: int = 120, gap: int = 0, whole: bool = False) -> Image.Image:
    """Rows of tiles of `side` px; `gap` px set the first column apart; `whole` images are padded instead of cropped."""
    wide, high, font = side + 12, side + 30, sheet_font(11)
    page = Image.new("RGB", (wide * max(map(len, rows), default=0) + gap, high * len(rows)), PAPER)
    draw, fit = ImageDraw.Draw(page), partial(ImageOps.pad, color=PAPER) if whole else ImageOps.fit
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            if tile.image is not None:
                x, y = j * wide + (gap if j else 0), i * high
                draw.rectangle((x + 2, y + 2, x + side + 9, y + side + 9), fill=tile.frame)
                page.paste(fit(tile.image.convert("RGB"), (side, side)), (x + 6, y + 6))
                draw.text((x + 6, y + side + 11), shortened_to(tile.caption, side + 6), INK, font)
                if mark := MARKS.get(tile.frame):  # what tells frames apart beside their colour
                    draw.rectangle((x + side - 8, y + 2, x + side + 9, y + 19), fill=tile.frame)
                    draw.text((x + side - 4, y + 3), mark, PAPER, sheet_font(13))
                if tile.tag:
                    draw.rectangle((x + 6, y + 6, x + 12 + font.getlength(tile.tag), y + 21), fill=INK)
                    draw.text((x + 9, y + 7), tile.tag, PAPER, font)
    return page


def tiles(
    images: Sequence[Image.Image | None], captions: Sequence[str], columns: int = 8, side: int = 120
) -> Image.Image:
    """Images in rows, with a caption under each; None leaves a gap."""
    every = [Tile(image, caption) for image, caption in zip(images, captions)]
    return sheet([every[i : i + columns] for i in range(0, len(every), columns)], side)


def contact_sheet(
    images: Sequence[Image.Image],
    labels: Sequence[str],
    similarity: np.ndarray,
    queries: Sequence[int],
    captions: Sequence[str],
    nearest: int = 5,
    side: int = 120,
    tag: Callable[[int, int], str] | None = None,
) -> Image.Image:
    """A row for each query: the query, its nearest images, framed blue (same identity) or orange, and its true match.

    images, labels: N images and their identities; similarity (N, N); queries: positions of the rows; captions: one
    for each query. `side` is the side of an image in px. tag: what to write into the corner of an image, by the query
    and the image, such as its flank.
    """
    tag = tag or (lambda query, image: "")
    rows = []
    for query, caption in zip(queries, captions):
        scores = similarity[query].copy()
        scores[query] = -np.inf
        ranked = np.argsort(-scores, kind="stable")[: len(images) - 1]
        best = ranked[:nearest]
        frames = [SAME if labels[other] == labels[query] else OTHER for other in best]
        told = [f"{scores[i]:.2f}  {labels[i]}" for i in best]
        found = [Tile(images[i], text, frame, tag(query, i)) for i, text, frame in zip(best, told, frames)]
        true = ranked[np.asarray(labels)[ranked] == labels[query]]
        match = [
            Tile(images[i], f"its match, rank {1 + int(np.flatnonzero(ranked == i)[0])}", SAME, tag(query, i))
            for i in true[:1]
        ]
        rows.append([Tile(images[query], caption, INK, tag(query, query)), *found, *match])
    return sheet(rows, side, gap=24)


def match_figure(
    images: ImageStore | np.ndarray, one: int, other: int, features: LocalFeatures | None = None, most: int = 40
) -> Image.Image:
    """Two images of uint8 (N, S, S, 3 or 4) side by side, lines between the spots that match, the strongest boldest.

    features: of these images, from `extract_local`; SIFT's where none are given.
    """
    store = as_store(images)
    features = features or extract_local(store, "sift")
    here, there, strength = (x[:most].tolist() for x in features.matches(one, other))
    spots = [[*xy, *uv, weight] for xy, uv, weight in zip(here, there, strength)]
    return spots_figure(store.thumbnail(one), store.thumbnail(other), spots)


def spots_figure(one: Image.Image, other: Image.Image, spots: Sequence[Sequence[float]]) -> Image.Image:
    """Two squares side by side and lines between their spots, each x, y in the one, x, y in the other, and strength."""
    side = one.width
    page = Image.new("RGB", (2 * side + 8, side), PAPER)
    page.paste(one, (0, 0))
    page.paste(other, (side + 8, 0))
    draw = ImageDraw.Draw(page)
    for number, (*places, strength) in reversed([*enumerate(spots)]):
        x, y, u, v = (place * (side - 1) for place in places)
        ends, width = (x, y, u + side + 8, v), 1 + round(2 * strength / spots[0][-1])
        draw.line(ends, fill=("#ffd23f", "#5bc0eb", "#f45b69")[number % 3], width=width)
        for centre in ((x, y), (u + side + 8, v)):
            draw.ellipse([c - 2 for c in centre] + [c + 2 for c in centre], outline=INK)
    return page


def match_examples(
    state: Retrieval, names: Sequence[str], labels: np.ndarray, met: np.ndarray | None, most: int = 40
) -> list[dict[str, Any]]:
    """Pairs that `local` matched, with their strongest spots, for a report to draw.

    The strongest and the median pair of one identity, of two encounters where those are told, and the strongest of two
    identities. A spot: x, y in the one image, x, y in the other (of its side), strength.
    """
    first, second = np.triu_indices(len(labels), 1)
    features, strength = state.matched[0], state.matched[1].cpu().numpy()[first, second]
    same = labels[first] == labels[second]
    own = np.flatnonzero(same if met is None else same & (met[first] != met[second]))
    own, others = own[np.argsort(-strength[own], kind="stable")], np.flatnonzero(~same)
    chosen = [*own[:1], *own[len(own) // 2 : len(own) // 2 + 1][: len(own) - 1]]
    chosen += [others[strength[others].argmax()]] if len(others) else []
    found = []
    for one, other, value in zip(first[chosen], second[chosen], strength[chosen]):
        here, there, weights = (x[:most].tolist() for x in features.matches(one, other))
        spots = [[*xy, *uv, weight] for xy, uv, weight in zip(here, there, weights)]
        told = {"images": [names[one], names[other]], "identities": [str(labels[one]), str(labels[other])]}
        found.append({**told, "strength": float(np.expm1(value)), "spots": spots})
    return found


def augmentation_sheet(store: ImageStore, recipe: Recipe, drawn: int = 5, side: int = 128) -> Image.Image:
    """A row for each image of the store: as stored, as evaluated, then as trained on, drawn anew `drawn` times."""
    prepare = Preparation(recipe.background, recipe.augment, recipe.data.size, (0, 0, 0), (1, 1, 1))
    pixels = store.read(np.arange(len(store)))
    columns = [pixels[:, :3].float() / 255, prepare.images(pixels, training=False)[0]]
    for number in range(drawn):
        seed_everything(recipe.seed, number)
        columns.append(prepare.images(pixels, training=True)[0])
    shown = [(255 * column.clamp(0, 1)).byte().permute(0, 2, 3, 1).numpy() for column in columns]
    titles = ["stored", "evaluated", *["trained on"] * drawn]
    rows = [[Tile(Image.fromarray(image), title) for image, title in zip(row, titles)] for row in zip(*shown)]
    return sheet(rows, side)


def counts_figure(table: pd.DataFrame, parts: tuple[str, str] = ("training", "validation")) -> Any:
    """Images of each identity as stacked bars; columns training and validation, named by `parts`."""
    figure, ax = new_figure(max(6, 0.28 * len(table)), 3.6)
    names = [plain_label(str(name)) for name in table.index]
    ax.bar(names, table.training, color="#4c78a8", label=parts[0])
    ax.bar(names, table.validation, bottom=table.training, color="#f58518", label=parts[1])
    ax.tick_params(axis="x", rotation=90, labelsize=8)
    ax.set(ylabel="images")
    ax.legend(frameon=False)
    return figure


def histograms_figure(tables: Mapping[str, pd.DataFrame]) -> Any:
    """A histogram of each column, the tables laid over each other."""
    columns = list(next(iter(tables.values())).columns)
    figure, axes = new_figure(3.2 * len(columns), 3, len(columns))
    for ax, column in zip(np.ravel(axes), columns):
        every = np.concatenate([table[column] for table in tables.values()])
        edges = np.linspace(every.min(), np.quantile(every, 0.99) + 1e-9, 31)
        for name, table in tables.items():
            ax.hist(table[column].clip(upper=edges[-1]), edges, alpha=0.6, label=name)
        ax.set(xlabel=column, ylabel="images")
    if len(tables) > 1:
        np.ravel(axes)[-1].legend(frameon=False)
    return figure


def roc_figure(models: Mapping[str, np.ndarray], identities: np.ndarray, areas: Mapping[str, float]) -> Any:
    """ROC of "same identity" by similarity, whose areas are told, and the share of false pairs above each threshold,
    for each model."""
    from sklearn.metrics import roc_curve

    figure, (left, right) = new_figure(10, 4, 2)
    upper = np.triu_indices(len(identities), 1)
    same = (identities[:, None] == identities)[upper]
    for name, similarity in models.items():
        values = similarity[upper]
        false, true, _ = roc_curve(same, values)
        left.plot(false, true, label=f"{plain_label(name)}, AUC {areas[name]:.4f}")
        order = np.argsort(-values, kind="stable")
        share = np.cumsum(~same[order]) / np.arange(1, len(order) + 1)
        right.plot(values[order], share, label=plain_label(name))
    left.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.8)
    left.set(xlabel="false positive rate", ylabel="true positive rate")
    right.set(xlabel="threshold on the similarity", ylabel="FDR: pairs above it of two identities")
    left.legend(frameon=False, fontsize=8)
    return figure


def collisions_figure(distance: np.ndarray, identities: np.ndarray) -> Any:
    """How many pairs of one identity, and of two, have hashes that differ in at most so many bits."""
    figure, ax = new_figure(7, 3.2)
    first, second = np.triu_indices(len(identities), 1)
    bits, same = distance[first, second], identities[first] == identities[second]
    for own, label, style in ((same, "one identity", "-"), (~same, "two identities", "--")):
        ax.plot(np.cumsum(np.bincount(bits[own], minlength=33))[:33], style, label=label, color=INK)
    ax.set(xlabel="bits of 64 that may differ", ylabel="pairs", yscale="symlog")
    ax.legend(frameon=False)
    return figure


def plain_label(name: str) -> str:
    """A name as matplotlib shows it to the letter: no formula at a $, no hiding at a leading underscore."""
    return name.replace("$", r"\$") if not name.startswith("_") else " " + name.replace("$", r"\$")


def bars_figure(values: Mapping[str, float], label: str, digits: int = 2, errors: np.ndarray | None = None) -> Any:
    """A bar for each name, the first on top, with its value, and errors (2, N) below and above it."""
    figure, ax = new_figure(7, 1 + 0.26 * len(values))
    names = [plain_label(str(name)) for name in values]
    bars = ax.barh(names, list(values.values()), color="#4c78a8", xerr=errors, ecolor=INK, capsize=3)
    ax.bar_label(bars, fmt=f"%.{digits}f", padding=4, fontsize=8)
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize=8)
    ax.margins(y=0.01)
    ends = np.array(list(values.values()), float) + (0 if errors is None else errors[1])
    ax.set(xlabel=label, xlim=(0, 1.15 * np.nanmax([*ends, 1e-9])))
    return figure


def variants_figure(summary: pd.DataFrame, table: pd.DataFrame | None = None) -> Any:
    """Mean validation mAP of each variant, the first on top, on a scale that shows what they differ in: with the 95 %
    interval over seeds, a dot for each run of the table, and a stroke at what the plain backbone has."""
    figure, ax = new_figure(7, 1 + 0.26 * len(summary))
    low, high = (summary.get(c, pd.Series(math.nan, summary.index)) for c in ("low", "high"))
    places = np.arange(len(summary))
    ax.hlines(places, low, high, color=EFFECT, lw=2)
    ax.scatter(summary["map"], places, s=36, color=EFFECT, zorder=3, label="mean")
    if table is not None and len(table) > len(summary):
        scored, rows = table.dropna(subset=["map"]), dict(zip(summary.variant, places))
        ax.scatter(scored["map"], scored.variant.map(rows) + 0.2, s=9, color=INK, zorder=3, label="single runs")
    if "plain" in summary:
        stroke = {"marker": "|", "s": 160, "color": INK, "lw": 1.5, "zorder": 3, "label": "plain backbone"}
        ax.scatter(summary.plain, places, **stroke)
    for place, value in zip(places, summary["map"]):
        ax.annotate(f"{value:.4f}", (1, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    ax.set_yticks(places, [plain_label(str(name)) for name in summary.variant], fontsize=8)
    ax.set(xlabel="validation mAP (identity-balanced)", ylim=(len(summary) - 0.5, -0.5))
    ax.grid(axis="y", color="#eeeeee")
    ax.margins(x=0.08)
    return figure


def effects_figure(told: pd.DataFrame, by_seed: pd.DataFrame, names: Sequence[str], limit: float, label: str) -> Any:
    """Paired differences of one measure to the control, the variants in the order of names.

    told: of `effects`, for one measure; by_seed: differences by seed and variant. A thick line is the interval over
    seeds, with a dot for each, a thin one that over identities; filled: told from the control. What reaches beyond the
    scale, -limit to limit, ends in an arrow.
    """
    figure, ax = new_figure(min(4.2 + 0.075 * max(map(len, names)), 8), 1.1 + 0.3 * len(names))
    ax.axvline(0, color=INK, lw=1.2, zorder=1)
    for place, row in enumerate(told.set_index("variant").reindex(names).itertuples()):
        if math.isnan(row.difference):
            continue
        for low, high, width in ((row.identity_low, row.identity_high, 1), (row.low, row.high, 4)):
            interval_line(ax, place, low, high, width, limit)
        if row.n > 1:
            seeds = by_seed[row.Index].dropna()
            ax.scatter(seeds, np.full(len(seeds), place + 0.25), s=9, color=INK, zorder=3)
        colour = EFFECT if row.verdict in ("higher", "lower") else PAPER
        ax.scatter(row.difference, place, s=44, color=colour, edgecolor=EFFECT, zorder=4)
        words = "the same" if row.verdict == "same" else f"{row.difference:+.4f}"
        beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center", "fontsize": 9}
        ax.annotate(words, (1, place), (8, 0), **beside)  # beside the arrows
    ax.set_yticks(range(len(names)), [plain_label(str(name)) for name in names])
    ax.set(xlabel=label, xlim=(-limit, limit), ylim=(len(names) - 0.5, -0.5))
    ax.grid(axis="y", color="#eeeeee")
    ax.xaxis.get_major_locator().set_params(nbins=5)
    return figure


def interval_line(ax: Any, place: float, low: float, high: float, width: float, limit: float) -> None:
    """An interval as a line that ends in an arrow where it reaches beyond the scale."""
    if math.isnan(low):
        return
    ax.hlines(place, max(low, -limit), min(high, limit), color=EFFECT, lw=width, alpha=0.55 if width > 1 else 1)
    for end, mark in ((low, "<"), (high, ">")):
        if abs(end) > limit:
            ax.plot(math.copysign(limit, end), place, mark, color=EFFECT, ms=6, clip_on=False)


def scale_of(own: pd.DataFrame, most: float = 8) -> float:
    """How far the scale of differences reaches: over all intervals, unless these are many times what is shown."""
    ends = own[["difference", "low", "high", "identity_low", "identity_high"]].abs()
    widths, largest = ends.max(axis=1).dropna(), ends.difference.max()
    reach = min(widths.max(), max(most * largest, widths.median())) if len(widths) else 0
    return 1.08 * reach if reach > 0 else 0.001


def similarity_figure(similarity: np.ndarray, labels: np.ndarray) -> Any:
    """How alike images of one identity are, and images of two."""
    figure, ax = new_figure(7, 3.2)
    same, pairs = labels[:, None] == labels, ~np.eye(len(labels), dtype=bool)
    edges = np.linspace(min(similarity.min(), 0), 1, 61)
    kinds = ((~same, "different identities", OTHER, "///"), (same & pairs, "same identity", SAME, ""))
    for mask, name, colour, hatch in (kind for kind in kinds if kind[0].any()):
        told = {"label": f"{name} ({mask.sum() // 2:,} pairs)", "hatch": hatch, "edgecolor": "white", "lw": 0}
        ax.hist(similarity[mask], edges, density=True, alpha=0.6, color=colour, **told)
    ax.set(xlabel="similarity", ylabel="density")
    if pairs.any():
        ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)  # above: bars may be anywhere
    return figure


def threshold_figure(
    guesses: pd.DataFrame, thresholds: Mapping[str, float], fixed: Sequence[float] = SOURCE_THRESHOLDS
) -> Any:
    """For all queries, and for each species with a threshold of its own: the score by threshold, and how sure the best
    guesses are about known individuals, rightly and wrongly told, and about unknown ones. Dotted: fixed thresholds."""
    shown = [name for name in thresholds if name] if len(thresholds) > 1 else [""]
    figure, axes = new_figure(10, 2.6 * len(shown), 2, len(shown))
    for row, (name, pair) in enumerate(zip(shown, np.reshape(axes, (-1, 2)))):
        own = guesses[guesses.species == name] if name else guesses
        curve = threshold_curve(own)
        for column, label, colour, style in (
            ("baks", "known (BAKS)", SAME, "--"),
            ("baus", "unknown (BAUS)", OTHER, "-."),
            ("score", "score", INK, "-"),
        ):
            width = 2 if column == "score" else 1
            pair[0].plot(curve.threshold, curve[column], style, color=colour, lw=width, label=label)
        for value in fixed:
            pair[0].axvline(value, color="#999999", lw=0.8, ls=":")
        right = own.truth == own.identity
        kinds = (
            (own.known & right, "known, right", SAME),
            (own.known & ~right, "known, wrong", "#e0a030"),
            (~own.known, "unknown", OTHER),
        )
        edges = np.linspace(min(0.0, own.score.min()), max(1.0, own.score.max()), 41)
        pair[1].hist(
            [own.score[k] for k, _, _ in kinds],
            edges,
            stacked=True,
            color=[c for _, _, c in kinds],
            label=[f"{t} ({k.sum()})" for k, t, _ in kinds],
        )
        for ax in pair:
            ax.axvline(thresholds[name], color=INK, lw=1, ls="--")
            ax.set_xlabel("confidence" if row == len(shown) - 1 else "")
            ax.legend(frameon=False, fontsize=7)
        pair[0].set(ylabel=name or "all queries", ylim=(0, 1.02))
        pair[1].set_ylabel("queries")
    return figure


MOST_NAMED = 40  # identities that a legend tells apart


def map_figure(embeddings: np.ndarray, labels: np.ndarray) -> Any | None:
    """The embeddings in two dimensions by t-SNE (van der Maaten & Hinton 2008), one colour a label of the
    MOST_NAMED that have most images, which a legend names, and grey for all others.

    None where there are fewer than four, or they are all alike, so that there is nothing to lay out.
    """
    from matplotlib import colormaps
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    vectors = np.pad(embeddings, ((0, 0), (0, max(0, 2 - embeddings.shape[1]))))  # t-SNE wants two to begin with
    if (
        len(vectors) < 4
        or not np.isfinite(vectors).all()
        or np.ptp(vectors, axis=0).max() < 1e-6 * np.abs(vectors).max()
    ):
        return None
    first = PCA(2, random_state=0).fit_transform(vectors.astype(np.float64))
    if not first[:, 0].std() > 0:
        return None
    first *= 1e-4 / first[:, 0].std()
    vectors = vectors / np.abs(vectors).max()  # so that no square overflows or vanishes
    perplexity = min(30, (len(vectors) - 1) / 3)
    places = TSNE(perplexity=perplexity, init=first.astype(np.float32), random_state=0).fit_transform(vectors)
    figure, ax = new_figure(8, 6)
    counts = pd.Series(labels).value_counts()
    known = sorted(counts.index[:MOST_NAMED])
    rest = ~np.isin(labels, known)
    if rest.any():
        ax.scatter(*places[rest].T, s=14, color="#bbbbbb", label=f"{len(counts) - len(known)} others")
    for i, name in enumerate(known):
        rows = labels == name
        ax.scatter(
            *places[rows].T,
            s=26,
            color=colormaps["turbo"]((i + 0.5) / len(known)),
            marker="osD^v"[i % 5],
            label=plain_label(name),
        )
    ax.set(xticks=[], yticks=[], title="t-SNE; distances between far groups mean little")
    ax.title.set_fontsize(9)
    ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + len(known) // 25)
    return figure


MOST_BANDS = 6  # variants whose bands can be told apart


def by_epoch(runs: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """A column of the logs by epoch (rows) and run (columns); NaN where a log of an earlier version lacks it."""
    return pd.concat([log.set_index("epoch").reindex(columns=[column])[column] for log in runs.values()], axis=1)


def bands_figure(
    logs: Mapping[str, Mapping[str, pd.DataFrame]],
    columns: Sequence[tuple[str, str]],
    one_scale: bool = False,
    places: Mapping[str, int] | None = None,
) -> Any:
    """Columns of the logs by epoch, a panel for each: every variant's mean over its seeds, and a band from lowest to
    highest, as far as all of its runs go; beyond, the single runs that still went on, thinly. `logs`: by variant, by
    seed; `columns`: names and what to write at the axis; one_scale: all panels have the same; places: of the variants
    among all, which give their colours, as they come unless given."""
    figure, axes = new_figure(min(5 * len(columns), 11), 3.6, len(columns))
    for panel in np.ravel(axes)[1:] if one_scale else ():
        panel.sharey(np.ravel(axes)[0])
    for ax, (column, label) in zip(np.ravel(axes), columns):
        for i, (variant, runs) in enumerate(logs.items()):
            wide = by_epoch(runs, column)
            place = i if places is None else places[variant]
            colour, mark = PALETTE[place % len(PALETTE)], "o" if len(wide) < 5 else None
            style = ("-", "--", ":", "-.")[place // len(PALETTE) % 4]
            every = wide.loc[: min(log.epoch.max() for log in runs.values())]
            ax.plot(every.index, every.mean(axis=1), style, color=colour, marker=mark, label=plain_label(variant))
            if wide.shape[1] > 1 and len(logs) <= MOST_BANDS:
                ax.fill_between(every.index, every.min(axis=1), every.max(axis=1), color=colour, alpha=0.15, lw=0)
                ax.plot(wide.loc[every.index[-1] :], color=colour, lw=0.6, alpha=0.5)
        ax.set_xlabel("epoch")
        ax.set_ylabel(label, fontsize=10 if len(columns) < 3 else 8)
        if column == "lr":
            ax.set_yscale("log")
        ax.xaxis.get_major_locator().set_params(integer=True)
    if len(logs) > 1 and len(logs) <= 24:
        across = max(1, int(13 * figure.get_figwidth() / (max(map(len, logs)) + 5)))  # as many names as a line holds
        known = np.ravel(axes)[0].get_legend_handles_labels()
        figure.legend(*known, fontsize=8, frameon=False, loc="outside lower left", ncols=min(across, len(logs)))
    return figure


def other_scales(logs: Mapping[str, Mapping[str, pd.DataFrame]], times: float = 4, most: int = 12) -> list[str]:
    """The variants whose losses need axes of their own, since their first ones lie `times` apart; [] where none do."""
    sizes = {name: np.nanmedian([log.train_loss.abs().iloc[1] for log in runs.values()]) for name, runs in logs.items()}
    apart = max(sizes.values()) > times * min(sizes.values())
    return list(sizes)[:most] if apart else []


def losses_figure(logs: Mapping[str, Mapping[str, pd.DataFrame]], columns: int = 3) -> Any:
    """Training (solid) and validation loss (dashed) by epoch, a panel with its own axis for each variant."""
    rows = math.ceil(len(logs) / columns)
    figure, axes = new_figure(11, 2.4 * rows, columns, rows)
    for ax in np.ravel(axes)[len(logs) :]:
        ax.set_visible(False)
    for ax, (variant, runs) in zip(np.ravel(axes), logs.items()):
        for column, style, label in (("train_loss", "-", "training"), ("val_loss", "--", "validation")):
            wide = by_epoch(runs, column)
            ax.plot(
                wide.index, wide.mean(axis=1), style, color=SAME, marker="o" if len(wide) < 5 else None, label=label
            )
        ax.set(xlabel="epoch", ylabel="loss", title=plain_label(variant))
        ax.xaxis.get_major_locator().set_params(integer=True)
    np.ravel(axes)[0].legend(frameon=False, fontsize=8)
    return figure


def heat_figure(values: pd.DataFrame, label: str) -> Any:
    """A table of numbers as colours, with the numbers in them; rows and columns named by index and columns."""
    figure, ax = new_figure(2 + 0.9 * values.shape[1], 1.4 + 0.5 * values.shape[0])
    image = ax.imshow(values.to_numpy(float), cmap="viridis", aspect="auto")
    ax.set_xticks(range(values.shape[1]), [str(c) for c in values.columns])
    ax.set_yticks(range(values.shape[0]), [str(r) for r in values.index])
    ax.set(xlabel=str(values.columns.name or ""), ylabel=str(values.index.name or ""))
    middle = np.nanmean(values.to_numpy(float))
    for (i, j), value in np.ndenumerate(values.to_numpy(float)):
        ax.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=8, color="white" if value < middle else INK)
    figure.colorbar(image, label=label)
    return figure


def scatter_figure(summary: pd.DataFrame, column: str, label: str) -> Any:
    """A column of the summary against mAP, a labelled point for each variant."""
    figure, ax = new_figure(7, 4)
    ax.scatter(summary[column], summary["map"], color="#4c78a8")
    for row in summary.itertuples():
        ax.annotate(
            plain_label(row.variant), (getattr(row, column), row.map), (5, 4), textcoords="offset points", fontsize=8
        )
    ax.set(xlabel=label, ylabel="validation mAP (identity-balanced)")
    if summary[column].max() > 20 * max(summary[column].min(), 1):
        ax.set_xscale("log")
    return figure


def grid_heat(recipe: Recipe, summary: pd.DataFrame) -> pd.DataFrame | None:
    """Mean mAP as a table of the grid's two settings, where it has two and nothing else varies."""
    if len(recipe.grid) != 2 or recipe.variants:
        return None
    (row_key, rows), (column_key, columns) = recipe.grid.items()
    by_name = summary.set_index("variant")["map"]
    names = [[variant_label("", [row_key, column_key], [r, c]) for c in columns] for r in rows]
    values = [[by_name.get(name, math.nan) for name in line] for line in names]
    return pd.DataFrame(
        values,
        index=pd.Index(rows, name=row_key.rpartition(".")[2]),
        columns=pd.Index(columns, name=column_key.rpartition(".")[2]),
    )


def rarity_figure(counts: Mapping[str, int], precision: Mapping[str, float]) -> Any:
    """Average precision of identities against their training images, and the rank correlation of the two."""
    from scipy.stats import spearmanr

    figure, ax = new_figure(6, 3.2)
    told = [(counts.get(name, 0), value) for name, value in precision.items()]
    images, values = np.array(told, float).reshape(-1, 2).T
    ax.scatter(images, values, s=18, color="#4c78a8")
    if len(told) > 2 and np.ptp(images) and np.ptp(values):
        ax.set_title(f"rank correlation {spearmanr(images, values).statistic:+.2f}", fontsize=9)
    ax.set(xlabel="training images of the identity", ylabel="average precision", ylim=(-0.02, 1.02))
    return figure


def marginal_figure(recipe: Recipe, logs: Mapping[str, pd.DataFrame]) -> Any | None:
    """mAP by epoch for each value of a grid's settings, mean and standard error over all else; None without two."""
    if len(recipe.grid) < 2:
        return None
    figure, axes = new_figure(5 * len(recipe.grid), 3.4, len(recipe.grid))
    for ax, (key, values) in zip(np.ravel(axes), recipe.grid.items()):
        setting = key.rpartition(".")[2]
        for number, value in enumerate(values):
            own = [log for run, log in logs.items() if f"{setting}={value}" in run.rpartition("/")[0].split(",")]
            if not own:
                continue
            wide = pd.concat([log.set_index("epoch")["map"] for log in own], axis=1)
            wide = wide.loc[: min(log.epoch.max() for log in own)]
            mean, error = wide.mean(axis=1), wide.sem(axis=1).fillna(0)
            ax.plot(mean.index, mean, ("-", "--", ":", "-.")[number % 4], label=f"{setting} {value}")
            ax.fill_between(mean.index, mean - error, mean + error, alpha=0.15, lw=0)
        ax.set(xlabel="epoch", ylabel="validation mAP")
        ax.legend(frameon=False, fontsize=8)
    return figure
