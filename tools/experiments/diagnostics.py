"""What a model goes by: flanks, encounters, and why first matches are wrong, from a run's retrievals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaguar_kit import (
    FEWEST,
    ImageStore,
    KitError,
    Recipe,
    chance_precision,
    compare,
    interval_over_identities,
    mean_by_identity,
    mean_or_nan,
    perceptual_hashes,
    score_queries,
    similarity_matrix,
)
from PIL import Image
from torch import nn

from .figures import INK, OTHER, SAME, Tile, sheet
from .looks import Look
from .page import Page
from .quality import differing_bits, quality_signals
from .scenes import BY_MASKS, BY_PLACE, report_scene


@dataclass(frozen=True, eq=False)
class Matches:
    """What validation images retrieve: each is a query, all others are its gallery."""

    similarity: np.ndarray  # (N, N)
    labels: np.ndarray  # (N,)
    flanks: np.ndarray | None = None  # (N,), "" where untold; None where the table does not tell
    encounters: np.ndarray | None = None  # (N,), where some share one
    scenes: np.ndarray | None = None  # (N,), "" where untold
    counts: Mapping[str, int] = field(default_factory=dict)  # images that each identity trained on

    @staticmethod
    def of(look: Look) -> Matches:
        return Matches(look.similarity, look.labels, look.flanks, look.encounters, look.scenes, look.counts)

    @property
    def same(self) -> np.ndarray:
        """Which pairs show one animal, bool (N, N), none of them an image with itself."""
        return (self.labels[:, None] == self.labels) & ~np.eye(len(self.labels), dtype=bool)

    @property
    def others(self) -> np.ndarray:
        """Similarities (N, N) in which no image finds itself."""
        return np.where(np.eye(len(self.labels), dtype=bool), -np.inf, self.similarity)

    @property
    def first(self) -> np.ndarray:
        """The nearest other image of each (N,)."""
        return self.others.argmax(1)

    @property
    def asked(self) -> np.ndarray:
        """Which images have another of their animal to find, bool (N,)."""
        return self.same.any(1)

    @property
    def wrong(self) -> np.ndarray:
        """Which images have a first match that shows another animal, though their own is there, bool (N,)."""
        return self.asked & (self.labels[self.first] != self.labels)

    @property
    def right(self) -> np.ndarray:
        return self.asked & ~self.wrong

    @property
    def other_flank_only(self) -> np.ndarray:
        """Which images find their animal from another flank only, bool (N,); where both are told."""
        if self.flanks is None:
            return np.zeros(len(self.labels), bool)
        told = (self.flanks != "")[:, None] & (self.flanks != "")
        own = self.same & ~(told & (self.flanks[:, None] != self.flanks))
        return self.asked & ~own.any(1)


# flanks


def scored(matches: Matches, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Average precision, whether the first is right, and average precision by chance (3, N) of the queries against a
    part of the gallery; NaN for what nobody can find."""
    found = np.full((3, len(matches.labels)), math.nan)
    told, met = matches.labels, matches.encounters
    if not np.isin(told[queries], told[gallery]).any():
        return found
    block = matches.similarity[np.ix_(queries, gallery)]
    own = np.array_equal(queries, gallery)
    of_gallery = (None, None) if own else (told[gallery], None if met is None else met[gallery])
    compared = compare(block, told[queries], None if met is None else met[queries], *of_gallery)
    scores = score_queries(compared)
    first = np.where(np.isnan(scores.first), math.nan, scores.first <= 1)
    found[:, queries] = scores.precision, first, chance_precision(compared)
    return found


def by_flank(matches: Matches) -> pd.DataFrame:
    """mAP and top-1 against images of the query's own flank, and against those of other flanks, each with interval.

    Pairs of one encounter are left out where encounters are told. chance: the mAP that a random order has on average.
    """
    rows, codes = [], np.unique(matches.labels, return_inverse=True)[1]
    flanks, told = matches.flanks, matches.flanks != ""
    for within, name in ((True, "its own flank"), (False, "another flank")):
        precision, top, chance = np.full((3, len(codes)), math.nan)
        for flank in np.unique(flanks[told]):
            queries, gallery = flanks == flank, told & ((flanks == flank) == within)
            found = scored(matches, np.flatnonzero(queries), np.flatnonzero(gallery))
            precision[queries], top[queries], chance[queries] = found[:, queries]
        low, high = interval_over_identities(precision, codes)
        counted = ~np.isnan(precision)
        rows.append(
            {
                "gallery": name,
                "queries": int(counted.sum()),
                "identities": len(np.unique(codes[counted])),
                "map": mean_or_nan(mean_by_identity(precision, codes)),
                "low": max(low, 0.0),
                "high": min(high, 1.0),
                "top1": mean_or_nan(top),
                "chance": mean_or_nan(mean_by_identity(chance, codes)),
            }
        )
    return pd.DataFrame(rows)


def flank_errors(matches: Matches) -> dict[str, float]:
    """Of first matches, wrong and right: the share whose animal is there from another flank only, so that no spot of it
    can be found; and of the wrong ones the share that shows another flank than the query."""
    wrong, right, only = matches.wrong, matches.right, matches.other_flank_only
    flanks = matches.flanks
    told = wrong & (flanks != "") & (flanks[matches.first] != "")
    return {
        "errors": int(wrong.sum()),
        "flank errors": int((wrong & only).sum()),
        "share of errors": share_of(only, wrong),
        "share of right": share_of(only, right),
        "wrong match of another flank": share_of(flanks != flanks[matches.first], told),
    }


def flank_words(look: Look) -> str:
    """One sentence on a run."""
    own, other = by_flank(Matches.of(look)).to_dict("records")
    told = [
        f"{row['map']:.4f}" + ("" if math.isnan(row["low"]) else f" [{row['low']:.4f}, {row['high']:.4f}]")
        for row in (own, other)
    ]
    errors = flank_errors(Matches.of(look))
    share = f" ({errors['share of errors']:.0%})" if errors["errors"] else ""
    return (
        f"{look.spec.variant}: mAP {told[0]} against images of the same flank, {told[1]} against another, where a "
        f"random order has {other['chance']:.4f}; {errors['flank errors']} of {errors['errors']} wrong first matches"
        f"{share} are flank errors, whose animal is there from another flank only."
    )


def share_of(what: np.ndarray, among: np.ndarray) -> float:
    return float(what[among].mean()) if among.any() else math.nan


def laterality(look: Look) -> pd.DataFrame:
    """How alike each image is to its own mirror image, beside images of its animal and of others."""
    matches = Matches.of(look)
    mirrored = look.network.embeddings(look.positions, lambda images: images.flip(-1))
    plain = look.network.embeddings(look.positions)
    similarity = np.asarray(similarity_matrix(plain, mirrored, look.network.geometry))
    return mirror_table(matches, similarity)


def mirror_table(matches: Matches, mirrored: np.ndarray) -> pd.DataFrame:
    """mirrored: similarities (N, N) of images (rows) with mirror images (columns)."""
    same, met = matches.same, matches.encounters
    far = same if met is None else same & (met[:, None] != met)
    kinds: dict[str, np.ndarray] = {}
    if matches.flanks is not None:
        told = (matches.flanks != "")[:, None] & (matches.flanks != "")
        alike = matches.flanks[:, None] == matches.flanks
        kinds = {"its animal, same flank": far & told & alike, "its animal, another flank": far & told & ~alike}
    else:
        kinds = {"its animal": far}
    others = np.where(same | np.eye(len(same), dtype=bool), -np.inf, matches.similarity)
    values = {"its own mirror image": np.diag(mirrored)}
    values |= {name: matches.similarity[pairs] for name, pairs in kinds.items() if pairs.any()}
    values["the nearest other animal"] = others.max(1)
    beyond = [float((values["its own mirror image"] > others.max(1)).mean())] + [math.nan] * (len(values) - 1)
    quartiles = {name: np.quantile(own, [0.25, 0.5, 0.75]) for name, own in values.items()}
    rows = [
        {"image and": n, "pairs": len(values[n]), "median": q[1], "from": q[0], "to": q[2]}
        for n, q in quartiles.items()
    ]
    return pd.DataFrame(rows).assign(**{"above the nearest other": beyond})


def flips_of(recipe: Recipe) -> list[str]:
    """Where images are mirrored: in training, and where embeddings are averaged."""

    def modules(part: Any) -> list[nn.Module]:
        return [*part.modules()] if isinstance(part, nn.Module) else [part]

    steps = [module for part in recipe.augment for module in modules(part.build())]
    found = ["training mirrors images"] if any("HorizontalFlip" in type(one).__name__ for one in steps) else []
    averaged = any(step.name == "tta" and step.settings.get("flip", True) for step in recipe.postprocess)
    return found + (["test-time augmentation averages an image with its mirror image"] if averaged else [])


def flip_words(recipe: Recipe, table: pd.DataFrame) -> str:
    """What mirrored copies are to this network, and what that means for its flanks."""
    mirror, *_, other = table["median"]
    found = flips_of(recipe)
    done = " and ".join(found) if found else "neither training nor test-time augmentation mirrors images"
    beyond = table["above the nearest other"].iloc[0]
    told = (
        f"{beyond:.0%} of images are more like their own mirror image ({mirror:.3f}) than like the nearest other animal"
    )
    meaning = (
        "it hardly tells the two apart, so that spots of one flank, mirrored, pass as the other's"
        if beyond > 0.9
        else "it tells the two apart"
        if beyond < 0.5
        else "it tells the two apart in part"
    )
    return f"{told} ({other:.3f}): {meaning}; {done}."


# encounters


def encounter_shares(matches: Matches) -> dict[str, float]:
    """Of right first matches the share from the query's own encounter; of queries the share with one to find there."""
    met = matches.encounters
    together = matches.same & (met[:, None] == met)
    own = met[matches.first] == met
    return {
        "right first matches": int(matches.right.sum()),
        "of the same encounter": share_of(own, matches.right),
        "queries with one there": share_of(together.any(1), matches.asked),
    }


# errors by cause

FEW_IMAGES = 5  # training images of an identity, below which they are few
LOW_SHARE = 0.1  # of images, that count as least sharp, darkest or brightest


def causes_of(matches: Matches, signals: pd.DataFrame | None = None) -> dict[str, np.ndarray]:
    """For each cause that the data can tell of: which queries it holds for, right and wrong ones, bool (N,).

    signals: `quality_signals` of the images.
    """
    found, first = {}, matches.first
    if matches.scenes is not None:
        there = matches.scenes != ""
        found["first match of the same scene"] = there & (matches.scenes == matches.scenes[first])
    if matches.flanks is not None:
        found["its animal from another flank only"] = matches.other_flank_only
    if matches.counts:
        images = np.array([matches.counts.get(name, 0) for name in matches.labels])
        found[f"fewer than {FEW_IMAGES} images of its animal trained"] = images < FEW_IMAGES
    found["one image of its animal to find"] = matches.same.sum(1) == 1
    if signals is not None and len(signals):
        for name, column, ends in (("blurred", "sharpness", (0,)), ("dark or bright", "brightness", (0, 1))):
            values = signals[column].to_numpy()
            low, high = np.quantile(values, [LOW_SHARE / len(ends), 1 - LOW_SHARE / 2])
            found[name] = (values < low) | ((values > high) if 1 in ends else False)
    return found


def errors_by_cause(matches: Matches, signals: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row for each cause, those first that are more frequent among wrong first matches than among right ones."""
    wrong, right = matches.wrong, matches.right
    causes, rows = causes_of(matches, signals), []
    for name, holds in causes.items():
        rows.append(
            {
                "cause": name,
                "errors with it": int((wrong & holds).sum()),
                "share of errors": share_of(holds, wrong),
                "share of right": share_of(holds, right),
                "wrong with it": share_of(wrong, matches.asked & holds),
                "wrong without": share_of(wrong, matches.asked & ~holds),
            }
        )
    none = ~np.any([*causes.values()], axis=0) if causes else np.ones(len(wrong), bool)
    rows.append({"cause": "none of these", "errors with it": int((wrong & none).sum())})
    rows[-1] |= {"share of errors": share_of(none, wrong), "share of right": share_of(none, right)}
    table = pd.DataFrame(rows)
    excess = (table["share of errors"] - table["share of right"]).fillna(-1)
    excess.iloc[-1] = -2
    return table.iloc[np.argsort(-excess.to_numpy(), kind="stable")].reset_index(drop=True)


# perhaps a wrong label

ALIKE_BITS = 8  # of 64, in which near-duplicates differ at most
MOST_HASHED = 6000  # images whose pairs are looked at


def doubtful_labels(pixels: ImageStore | np.ndarray, labels: np.ndarray, bits: int = ALIKE_BITS) -> pd.DataFrame:
    """Near-duplicates of two identities, by their hashes: one and other (numbers), bits in which they differ."""
    hashes = perceptual_hashes(pixels)
    pairs = np.argwhere(np.triu(differing_bits(hashes, hashes) <= bits, 1) & (labels[:, None] != labels))
    table = pd.DataFrame({"one": pairs[:, 0], "other": pairs[:, 1]})
    table["bits"] = (hashes[table.one] != hashes[table.other]).sum(1)
    return table.sort_values("bits", kind="stable").reset_index(drop=True)


# sheets


def tag(matches: Matches, query: int, image: int) -> str:
    """Marks of a retrieved image: its flank, and = for the encounter of the query."""
    flank = "" if matches.flanks is None else matches.flanks[image][:5]
    met = matches.encounters
    again = met is not None and query != image and met[query] == met[image]
    return f"{flank} ="[not flank :] if again else flank


def confusions_sheet(images: Sequence[Image.Image], matches: Matches, most: int = 8) -> Image.Image | None:
    """The wrong first matches that lie furthest above the right ones: query, wrong match, best right match."""
    others = matches.others
    own = np.where(matches.same, others, -np.inf)
    margin = np.where(matches.wrong, others.max(1) - own.max(1), -np.inf)
    rows = []
    for query in np.argsort(-margin, kind="stable")[: min(most, int(matches.wrong.sum()))]:
        wrong, right = matches.first[query], own[query].argmax()
        row = [Tile(images[query], f"{matches.labels[query]}", INK, tag(matches, query, query))]
        for image, frame in ((wrong, OTHER), (right, SAME)):
            caption = f"{matches.similarity[query, image]:.2f}  {matches.labels[image]}"
            row.append(Tile(images[image], caption, frame, tag(matches, query, image)))
        rows.append(row)
    pairs = [[*one, Tile(None), *other] for one, other in zip(rows[::2], [*rows[1::2], []])] if len(rows) > 1 else rows
    return sheet(pairs, gap=12) if pairs else None


# parts of a report

CHEAP_SECONDS = 60.0  # that passes through networks may take in every report, all runs together


def unread(look: Look, seconds: float) -> str:
    """Why a run's network is not looked through in so many seconds; "" where it is."""
    try:
        passes = 3 + len(BY_MASKS if look.images.store.has_masks else BY_PLACE)
        needed = look.seconds_each * passes * len(look.positions)
    except KitError as error:
        return f"its network can't be read here: {error}"
    dear = needed > seconds
    return f"it takes more than {seconds:.0f} s a run (tools/report.py FOLDER --look scene measures it)" if dear else ""


def report_diagnostics(page: Page, looks: Sequence[Look], scene: Page | None = None) -> None:
    """What the runs go by, a row for each; of the first, and so of the control, more.

    scene: what was found of their reliance on context, where that was asked for.
    """
    looks = [look for look in looks if len(look.labels) > 1 and Matches.of(look).asked.any()]
    if not looks:
        return
    page.heading("What did it look at?")
    reasons = [unread(look, CHEAP_SECONDS / len(looks)) for look in looks]
    read = [look for look, reason in zip(looks, reasons) if not reason]
    if scene is not None:
        page.add(scene)
    elif read:
        page.heading("Scene", 3)
        report_scene(page, read)
    unseen: dict[str, list[str]] = {}
    for look, reason in zip(looks, reasons):
        if reason and scene is None:
            unseen.setdefault(reason, []).append(look.spec.variant)
    for reason, names in unseen.items():
        page.note(f"Reliance on context of {', '.join(names)} is not measured: {reason}.")
    report_encounters(page, looks)
    report_flanks(page, looks, mirrored=not reasons[0])
    report_errors(page, looks[0])


def report_encounters(page: Page, looks: Sequence[Look]) -> None:
    told = [look for look in looks if look.encounters is not None]
    if not told:
        return
    rows = [{"variant": look.spec.variant, **encounter_shares(Matches.of(look))} for look in told]
    page.heading("Encounters", 3)
    first = rows[0]
    share = first["of the same encounter"]
    page.text(
        f"{first['variant']}: of {first['right first matches']} right first matches "
        + (f"{share:.0%} come" if not math.isnan(share) else "none comes")
        + f" from the query's own encounter, with its light and background; {first['queries with one there']:.0%} of "
        "queries have such an image to find."
    )
    page.table(
        pd.DataFrame(rows), "Shares of first matches that show the right animal; of the same encounter: of those."
    )


def report_flanks(page: Page, looks: Sequence[Look], mirrored: bool) -> None:
    """Within and across flanks, errors that are flank errors, and mirror images."""
    told = [look for look in looks if look.flanks is not None]
    page.heading("Flank and view", 3)
    if not told:
        page.note(
            "No column of the table tells what an image shows of its animal (flank, orientation, viewpoint or side, in "
            "views.csv, say), so that nothing is said of flanks."
        )
    else:
        rows = [
            {"variant": look.spec.variant, **row}
            for look in told
            for row in by_flank(Matches.of(look)).to_dict("records")
        ]
        page.bullets([flank_words(look) for look in told])
        apart = " Pairs of one encounter are left out." if told[0].encounters is not None else ""
        page.table(
            pd.DataFrame(rows),
            f"Flanks by the column {told[0].flank_column}: each query against images of its own flank, and against "
            f"those of others, with 95 % intervals over identities (from {FEWEST}).{apart}",
        )
        errors = pd.DataFrame([{"variant": look.spec.variant, **flank_errors(Matches.of(look))} for look in told])
        page.table(
            errors,
            "flank errors: wrong first matches whose animal is there from another flank only, which shares no spots; "
            "beside them the share of right first matches for which that holds; last, of wrong first matches those "
            "that show another flank than the query.",
        )
    if mirrored:
        table = laterality(looks[0])
        page.text(f"{looks[0].spec.variant}: {flip_words(looks[0].spec.recipe, table)}")
        page.table(
            table,
            "How alike an image is to its mirror image, and to others: median and quartiles; pairs of one animal are "
            "of two encounters where these are told. above the nearest other: share of images.",
        )


def report_errors(page: Page, look: Look) -> None:
    """Wrong first matches by cause, the worst of them as pictures, and labels to check."""
    matches, store = Matches.of(look), look.images.store
    signals = quality_signals(store.subset(look.positions))
    page.heading("Errors by cause", 3)
    asked, wrong = int(matches.asked.sum()), int(matches.wrong.sum())
    page.text(
        f"{look.spec.variant}: {wrong} of {asked} first matches are wrong. A cause explains errors where its share of "
        "them is larger than its share of right first matches; one error may have several."
    )
    if wrong:
        page.table(
            errors_by_cause(matches, signals),
            "wrong with it, wrong without: shares of queries with a wrong first match. blurred: the least sharp tenth "
            "of the validation images; dark or bright: the darkest and the brightest twentieth.",
        )
        thumbnails = {i: store.thumbnail(int(look.positions[i])) for i in range(len(look.positions))}
        page.image(
            "confusions",
            confusions_sheet(thumbnails, matches),
            "The worst confusions, two in a row: query, its wrong first match, and the best match that is right. In "
            "the corners: the flank, where it is told, and = for the query's own encounter.",
        )
    report_labels(page, look)


def report_labels(page: Page, look: Look, most: int = 12) -> None:
    """Near-duplicates that bear two names, both images side by side."""
    train, store = look.images.competition.train, look.images.store
    if len(train) > MOST_HASHED:
        page.note(f"Labels are not checked: {len(train)} images are more than {MOST_HASHED}.")
        return
    labels = train.identity.to_numpy(str)
    pairs = doubtful_labels(store.subset(np.arange(len(train))), labels)
    page.heading("Labels to check", 3)
    if pairs.empty:
        page.note("No two images of two animals are near-duplicates.")
        return
    rows = []
    for pair in pairs.head(most).itertuples():
        both = [Tile(store.thumbnail(i), f"{labels[i]}  {train.filename[i]}") for i in (pair.one, pair.other)]
        rows.append([*both, Tile(None)])
    wide = [[tile for row in rows[i : i + 2] for tile in row][:-1] for i in range(0, len(rows), 2)]
    page.text(
        f"{len(pairs)} pairs of near-duplicates bear the names of two animals, so that one label is perhaps wrong"
        f"{f'; the {most} most alike are shown' if len(pairs) > most else ''}."
    )
    names = train.filename.to_numpy()
    page.image("labels", sheet(wide, whole=True), "Pairs that bear two names, the most alike first: please check them.")
    page.fold(
        f"{len(pairs)} pairs",
        pd.DataFrame(
            {
                "one": names[pairs.one],
                "named": labels[pairs.one],
                "other": names[pairs.other],
                "named ": labels[pairs.other],
                "bits": pairs.bits,
            }
        ),
        f"bits: of 64 of their perceptual hashes, in which they differ (at most {ALIKE_BITS}).",
    )
