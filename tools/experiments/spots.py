"""Spots that match: found on the animal, compared as mutual nearest neighbours, and the step `local`."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import kornia
import numpy as np
import torch
import torch.nn.functional as F
from jaguar_kit import (
    KAGGLE_INPUT,
    WEIGHTS_VARIABLE,
    Count,
    Fraction,
    ImageStore,
    KitError,
    Natural,
    PathText,
    Pixels,
    Range,
    Retrieval,
    as_array,
    as_given,
    as_matrix,
    as_store,
    cache_dir,
    checked,
    computed_by,
    duration,
    echo,
    find_weights,
    fingerprint,
    is_own,
    kept_or_made,
    l2_normalize,
    load_safetensors,
    load_strictly,
    most_similar,
    one_line,
    progress,
    ranked_neighbours,
    register,
    rows_by_code,
    sha_of,
    to_unit_scale,
)
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """Spots of N images: where they are, in [0, 1] of width and height, and what they look like, at unit length.

    >>> spots = LocalFeatures(torch.zeros(2, 3, 2), torch.eye(3).repeat(2, 1, 1))
    >>> spots.matches(0, 1)[2]  # of three spots that match, each 1 - 0.7
    tensor([0.3000, 0.3000, 0.3000])
    """

    places: Tensor  # (N, K, 2), x and y
    descriptors: Tensor  # (N, K, D), zero where an image has fewer than K
    key: str = ""  # changes with the images, the detector and its weights

    def matches(self, one: int, other: int, margin: float = 0.7) -> tuple[Tensor, Tensor, Tensor]:
        """Places (P, 2) in one image and in the other that match, and the strength (P,), the strongest first."""
        cosine = self.descriptors[one].float() @ self.descriptors[other].float().T
        strength, column = mutual_matches(cosine[None], margin)
        kept = torch.nonzero(strength[0] > 0)[:, 0]
        kept = kept[strength[0, kept].argsort(descending=True)]
        return self.places[one, kept], self.places[other, column[0, kept]], strength[0, kept]


def mutual_matches(cosine: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Of cosines (B, K, L) each spot's strength, (cosine - margin)+ where two are each other's nearest, else 0, and its
    nearest column: (B, K) both."""
    best, column = cosine.max(2)
    rows = torch.arange(cosine.shape[1], device=cosine.device)
    mutual = cosine.argmax(1).gather(1, column) == rows
    return torch.where(mutual, F.relu(best - margin), 0), column


# finding spots

Detector = Literal["aliked", "disk", "sift"]
DETECTORS = {  # kornia's class, and what the file of its weights is called
    "aliked": ("ALIKED", "aliked_n16"),
    "disk": ("DISK", "disk"),
    "sift": ("SIFTFeature", ""),
}
Box = tuple[Fraction, Fraction, Fraction, Fraction]  # left, top, right, bottom, as shares of width and height
CENTRE: Box = (0.2, 0.25, 0.85, 0.75)  # where an animal stands that a camera has photographed


def detector_weights(name: str, given: str | None) -> Path | None:
    """The file of a detector's weights, None where it needs none; KitError where file or detector are missing."""
    from kornia import feature

    kind, file = DETECTORS[name]
    if not hasattr(feature, kind):
        raise KitError(
            f"local.detector: kornia {kornia.__version__} has no {name!r} (expected a newer kornia, or sift)"
        )
    path = find_weights([file], given, "local.weights") if file else None
    if file and path is None:
        raise KitError(
            f"local.detector: no weights for {name!r} (expected {file}.safetensors in local.weights, "
            f"${WEIGHTS_VARIABLE}, {KAGGLE_INPUT} or weights/; or detector: sift, which needs none)"
        )
    return path


def at_hand() -> bool:
    """Whether ALIKED can look for spots here without being asked for."""
    try:
        return detector_weights("aliked", None) is not None
    except KitError:
        return False


def load_detector(name: str, points: int, weights: str | None = None) -> Callable[[Tensor], list[tuple]]:
    """RGB (B, 3, H, W) in [0, 1] -> for each image places (K, 2) in px and descriptors (K, D), the surest first.

    ALIKED (Zhao et al. 2023) and DISK (Tyszkiewicz et al. 2020) need weights; SIFT (Lowe 2004) does not, and is
    compared by the roots of its values (RootSIFT, Arandjelovic & Zisserman 2012).
    """
    from kornia import feature

    path = detector_weights(name, weights)
    if name == "sift":
        sift = feature.SIFTFeature(points)  # whose descriptors are RootSIFT by default

        def described(images: Tensor) -> list[tuple]:
            frames, response, descriptors = sift(images.mean(1, keepdim=True))  # filled up with spots of no response
            return [(f[r > 1e-6][:, :, 2], d[r > 1e-6]) for f, r, d in zip(frames, response, descriptors)]

        return described
    model = feature.ALIKED("aliked-n16", points, 0.0) if name == "aliked" else feature.DISK()
    load_strictly(model, load_safetensors(path)[0], path)
    model.eval()

    def found(images: Tensor) -> list[tuple]:
        told = model(images) if name == "aliked" else model(images, points, pad_if_not_divisible=True)
        scores = [one.keypoint_scores if hasattr(one, "keypoint_scores") else one.detection_scores for one in told]
        orders = [score.argsort(descending=True) for score in scores]
        return [(one.keypoints[order], one.descriptors[order]) for one, order in zip(told, orders)]

    found.model = model
    return found


def inside(places: Tensor, pixels: Tensor, box: Box | None) -> Tensor:
    """Which spots (K, 2), in px of an image (3 or 4, H, W), lie on the animal, bool (K,): in its mask, or the box."""
    if len(pixels) == 4:
        x, y = places.round().long().T.clamp(0, pixels.shape[-1] - 1)
        return pixels[3, y, x] > 0.5
    if box is None:
        return torch.ones(len(places), dtype=torch.bool, device=places.device)
    low, high = places.new_tensor(box).mul(pixels.shape[-1] - 1).view(2, 2)
    return ((places >= low) & (places <= high)).all(1)


def spot_finder(
    detector: str, points: int, weights: str | None, device: Any, box: Box | None
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A picture, uint8 (1, 3 or 4, S, S) -> places (points, 2) and descriptors (points, D) of its surest spots, inside
    its mask where it has one, else inside the box where that is given, filled up with zeros."""
    loaded: dict[int, Callable] = {}

    @torch.no_grad()
    def find(picture: Tensor) -> tuple[Tensor, Tensor]:
        masked = picture.shape[1] == 4
        looked_at = points * (2 if masked else 3 if box else 1)
        if looked_at not in loaded:
            loaded[looked_at] = load_detector(detector, looked_at, weights)
            if hasattr(loaded[looked_at], "model"):
                loaded[looked_at].model.to(device)
        pixels = picture.to(device).float() / 255
        where, what = loaded[looked_at](pixels[:, :3])[0]
        own = inside(where, pixels[0], box)
        where, what = where[own][:points] / (pixels.shape[-1] - 1), l2_normalize(what[own][:points])
        places, described = (F.pad(x, (0, 0, 0, points - len(x))).cpu() for x in (where.float(), what.half()))
        return places, described

    return find


@checked
@torch.no_grad()
def extract_local(
    images: ImageStore | np.ndarray,
    detector: Detector = "aliked",
    points: Count = 512,
    weights: str | None = None,
    device: Any = "cpu",
    box: Box | None = None,
) -> LocalFeatures:
    """The surest `points` spots of each image, inside its mask where there is one, else inside the box (left, top,
    right, bottom, as shares of the sides) where that is given; kept in the cache.

    They are looked for in the whole image and left out afterwards, so that a border makes none.

    >>> extract_local(np.zeros((2, 64, 64, 3), np.uint8), "sift", points=8).descriptors.shape
    torch.Size([2, 8, 128])
    """
    images = as_store(images)
    if not len(images):
        raise KitError("extract_local: images: there are none (expected uint8 (N, S, S, 3 or 4), or an ImageStore)")
    if (side := min(images[0].shape[:2])) < 16:
        raise KitError(f"extract_local: images: of {side} px (expected 16 px or more, to find spots in)")
    check_box(box, "extract_local: box")
    device, box = usable_device(device), None if images.has_masks else box
    path = detector_weights(detector, weights)
    version, by = "" if path is None else sha_of(path), computed_by(None, torch.device(device))
    parts = ("local 4" if detector == "sift" else "local 2", images.key, detector, points, version, by)
    key = fingerprint(*parts, *([] if box is None else [box]))

    def look() -> dict[str, Tensor]:
        find = spot_finder(detector, points, weights, device, box)
        rows = [find(images.read([position])) for position in progress(range(len(images)), "looking for spots")]
        return dict(zip(("places", "descriptors"), map(torch.stack, zip(*rows))))

    path = cache_dir() / "local" / f"{key}.safetensors"
    return LocalFeatures(**kept_or_made(path, ("places", "descriptors"), len(images), look), key=key)


def check_box(box: Box | None, where: str) -> None:
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        raise KitError(f"{where}: {list(box)} is empty (expected [left, top, right, bottom], each below its opposite)")


def usable_device(device: Any) -> torch.device:
    """The device of this name; KitError where there is none."""
    try:
        return torch.zeros(1, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise KitError(
            f"device: {device!r}: {one_line(error, 120)} (expected cpu, or cuda where there is a GPU)"
        ) from None


CELL = 0.02  # of the side: spots of two images that far apart at most stand at one place


def fixed_to_camera(features: LocalFeatures, met: np.ndarray, least: int = 3, alike: float = 0.9) -> Tensor:
    """Spots that stand at one place and look alike in images of `least` further encounters, bool (N, K).

    They are the camera's (a bar of text, a logo) or its scene's, not an animal's. met (N,): encounters.
    """
    where, there = features.places.numpy(), (features.descriptors != 0).any(2).numpy()
    found = np.zeros(there.shape, bool)
    image, spot = np.nonzero(there)
    for shift in (0.0, 0.5):  # what lies at the border of a cell lies within one of the shifted cells
        cell = np.floor(where[image, spot] / CELL + shift).astype(np.int64)
        for rows in rows_by_code(np.arange(len(image)), cell[:, 0] * 1000 + cell[:, 1]).values():
            codes = np.unique(met[image[rows]], return_inverse=True)[1].reshape(-1)
            if codes.max(initial=0) < least:
                continue
            described = features.descriptors[image[rows], spot[rows]].float()
            seen = torch.zeros(len(rows), int(codes.max()) + 1)
            seen[torch.arange(len(rows)), torch.from_numpy(codes)] = 1
            times = (((described @ described.T) > alike).float() @ seen > 0).sum(1)
            found[image[rows], spot[rows]] |= (times > least).numpy()
    return torch.from_numpy(found)


def without_fixed(features: LocalFeatures, met: np.ndarray) -> LocalFeatures:
    """The features without the spots that are `fixed_to_camera`; a line says how many there were."""
    fixed = fixed_to_camera(features, met)
    if not fixed.any():
        return features
    echo(f"  note: local: {int(fixed.sum())} spots of {int(fixed.any(1).sum())} images are fixed to a camera: left out")
    described = features.descriptors.masked_fill(fixed[..., None], 0)
    return replace(features, descriptors=described, key=fingerprint(features.key, "fixed 1", met.tolist()))


# matching them


@checked
@torch.no_grad()
def local_similarity(
    features: LocalFeatures, margin: Fraction = 0.7, pairs: Any = None, device: Any = "cpu", block: Count = 32
) -> Tensor:
    """Sum over matching spots of (cosine - margin)+ for all pairs of images, or where `pairs` (N, N) is true: (N, N).

    Two spots match where each is the other's nearest. An image with itself has 0.

    >>> local_similarity(LocalFeatures(torch.zeros(2, 3, 2), torch.eye(3).repeat(2, 1, 1)))
    tensor([[0.0000, 0.9000],
            [0.9000, 0.0000]])
    """
    if not isinstance(features, LocalFeatures):
        raise KitError(f"local_similarity: features: a {type(features).__name__} (expected what extract_local gives)")
    total = len(features.descriptors)
    wanted = torch.ones(total, total, dtype=torch.bool) if pairs is None else torch.as_tensor(pairs)
    if wanted.shape != (total, total):
        raise KitError(f"local_similarity: pairs: shape {tuple(wanted.shape)} (expected {total} x {total})")
    wanted = wanted != 0
    wanted = (wanted | wanted.T).triu(1)
    described = features.descriptors.to(device)
    described = described if described.is_cuda else described.float()
    found = torch.zeros(total, total)
    for i in progress(range(total), "matching spots"):
        for others in wanted[i].nonzero()[:, 0].split(block):
            cosine = torch.einsum("kd,bld->bkl", described[i], described[others.to(described.device)]).float()
            found[i, others] = mutual_matches(cosine, margin)[0].sum(1).cpu()
    return found + found.T


ALL_PAIRS = 300_000  # pairs that are matched without a shortlist: some minutes on two cores
SHORTEST = 30  # images whose spots are compared with an image's at least


def compared(matrix: Tensor, shortlist: int | None) -> Tensor | None:
    """Of similarities (N, N) the `shortlist` nearest of each image, bool (N, N); None for all pairs.

    shortlist: 0 for all; None: all of few images, of many as many as ALL_PAIRS allow.
    """
    total = len(matrix)
    if shortlist is None:
        shortlist = 0 if total * (total - 1) // 2 <= ALL_PAIRS else max(SHORTEST, ALL_PAIRS // total)
    if not shortlist or shortlist >= total - 1:
        return None
    nearest = ranked_neighbours(matrix, shortlist + 1).cpu()
    return torch.zeros(total, total).scatter_(1, nearest, 1).bool()


def tell_cost(features: LocalFeatures, pairs: Tensor | None, device: torch.device) -> None:
    """Says how many pairs are to be matched, and by a first few of them how long that takes."""
    total = len(features.descriptors)
    number = total * (total - 1) // 2 if pairs is None else int((pairs | pairs.T).triu(1).sum())
    tried = min(64, total)
    few = replace(features, places=features.places[:tried], descriptors=features.descriptors[:tried])
    mask, begun = torch.zeros(tried, tried).index_fill_(0, torch.tensor(0), 1), time.monotonic()
    local_similarity(few, pairs=mask, device=device)
    seconds = (time.monotonic() - begun) / max(tried - 1, 1) * number
    if seconds > 20:
        what = "all pairs" if pairs is None else "the nearest pairs"
        echo(f"  matching the spots of {number:,} pairs ({what}), about {duration(seconds)}")


def check_local(settings: dict[str, Any]) -> None:
    """Refuses a step whose detector can't work, before any work."""
    detector_weights(settings["detector"], settings["weights"])
    check_box(settings["box"], "local.box")


@register("postprocess", "local", reads="images", makes="evidence", check=check_local)
def local_step(
    state: Retrieval,
    detector: Detector = "aliked",
    size: Pixels = 480,
    points: Annotated[int, Range(low=1, high=8192)] = 512,
    margin: Fraction = 0.7,
    shortlist: Natural | None = None,
    weights: PathText | None = None,
    box: Box | None = CENTRE,
    fixed: bool = False,
) -> Retrieval:
    """Spots of the animal that match (`local_similarity`), in images of `size` px: those in its mask, else in the `box`
    (null: everywhere); without those that are fixed to a camera, unless `fixed`.

    Of the `shortlist` nearest of each image; null: of all pairs where that takes minutes; 0: of all.

    >>> images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    >>> postprocess([{"name": "local", "detector": "sift", "size": 64}], torch.eye(2), images=images).shape
    torch.Size([2, 2])
    """
    if state.images is None:
        raise KitError("postprocess: local looks at the images again, but there are embeddings alone (give images)")
    images = state.images(size)
    features = extract_local(images, detector, points, weights, state.device, box)
    met = np.arange(len(images)) if state.encounters is None else state.encounters
    features = features if fixed else without_fixed(features, met)
    pairs = compared(state.matrix(), shortlist)
    told = None if pairs is None else [len(pairs), zlib.crc32(np.packbits(pairs.numpy()).tobytes())]
    path = cache_dir() / "local" / f"{fingerprint('matches 3', features.key, margin, told)}.safetensors"

    def match() -> dict[str, Tensor]:
        tell_cost(features, pairs, state.device)
        return {"strength": local_similarity(features, margin, pairs, state.device)}

    strength = kept_or_made(path, ("strength",), len(images), match)["strength"].to(state.raw).log1p()
    return replace(state.with_evidence("local", strength, to_unit_scale), matched=(features, strength))


@checked
def shortlist_rescore(
    similarity: Any,
    score_pairs: Callable[[np.ndarray, np.ndarray], Any],
    k: Natural = 20,
    own_gallery: bool | None = None,
) -> Any:
    """Orders each query's k best candidates anew by a pair function; all other candidates stay behind them.

    similarity (N, M); own_gallery as in `jaguar_kit.rank_average`. score_pairs(queries, candidates), both int64
    (P,), gives P scores of any scale, such as counts of matched keypoints. Within a row the new scores are mapped to
    the range of values that the shortlist had, so that they compare with the rest (a little above it where all are
    alike there).

    >>> similarity = np.array([[0.9, 0.8, 0.1]])
    >>> shortlist_rescore(similarity, lambda queries, candidates: candidates == 1, k=2).tolist()
    [[0.8, 0.9, 0.1]]
    """
    matrix = as_matrix(similarity).clone()
    own = is_own(matrix, own_gallery)
    k = min(k, matrix.shape[1] - own)
    if k < 2:
        return as_given(matrix, similarity)
    values, candidates = most_similar(matrix, k, own)
    queries = np.repeat(np.arange(len(matrix)), k)
    if not callable(score_pairs):
        raise KitError(f"shortlist_rescore: score_pairs: a {type(score_pairs).__name__} (expected a function of pairs)")
    scores = score_pairs(queries, candidates.cpu().numpy().ravel())
    try:
        scores = torch.as_tensor(as_array(scores, np.float64))
    except (ValueError, TypeError) as error:
        raise KitError(f"shortlist_rescore: score_pairs: {error} (expected {len(queries)} numbers)") from None
    if scores.shape != (len(queries),) or not torch.isfinite(scores).all():
        raise KitError(
            f"shortlist_rescore: score_pairs must give {len(queries)} finite scores, gave shape {tuple(scores.shape)}"
        )
    scores = scores.view(-1, k).to(matrix.device)
    low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    share = ((scores - low) / (high - low).clamp(min=1e-300)).to(matrix)
    least = values[:, -1:]
    mapped = least + share * torch.maximum(values[:, :1] - least, 1e-4 * least.abs().clamp(min=1))
    matrix.scatter_(1, candidates, torch.where(high == low, values, mapped))
    return as_given(matrix, similarity)
