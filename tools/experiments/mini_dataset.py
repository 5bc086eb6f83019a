"""The synthetic competitions: cats with rosettes on both flanks, and three species of an open set.

`jaguar_kit.make_mini_dataset` draws them, where this file lies in tools/ beside the module. They are for trying and for
tests: what was built into them (bursts, scenes, flanks, strangers) is told in views.csv, metadata.csv and solution.csv.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaguar_kit import (
    KitError,
    MiniConfig,
    atomic,
    convert_section,
    only_one,
    progress,
    read_record,
    remove_path,
    write_json,
)
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

CAT_ELLIPSES = (  # torso, shoulder, haunch, neck, head, muzzle, ears: x, y, radii; body lengths, head at +x, y down
    (0.0, 0.0, 0.66, 0.27),
    (0.40, 0.01, 0.28, 0.30),
    (-0.44, 0.02, 0.27, 0.30),
    (0.66, -0.12, 0.22, 0.18),
    (0.86, -0.19, 0.17, 0.15),
    (1.0, -0.14, 0.10, 0.08),
    (0.79, -0.33, 0.05, 0.06),
    (0.91, -0.33, 0.05, 0.06),
)
CAT_HIPS = ((0.50, 1), (0.36, -1), (-0.42, 1), (-0.56, -1))  # x of each leg, direction of its stride
COAT_SCALE = 200  # px of coat texture for one body length
SCENES = (  # colours of each place at its top and at its bottom
    ((0.62, 0.72, 0.80), (0.35, 0.42, 0.20)),
    ((0.20, 0.30, 0.16), (0.28, 0.22, 0.14)),
    ((0.78, 0.70, 0.50), (0.62, 0.50, 0.30)),
    ((0.30, 0.38, 0.42), (0.16, 0.22, 0.24)),
    ((0.45, 0.55, 0.28), (0.55, 0.58, 0.36)),
    ((0.50, 0.42, 0.36), (0.36, 0.20, 0.12)),
)


def capsule(u: np.ndarray, v: np.ndarray, start: tuple, end: tuple, radius: float) -> np.ndarray:
    """Where (u, v) lies within `radius` of the line from start to end."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / (du * du + dv * dv), 0, 1)
    return (u - start[0] - along * du) ** 2 + (v - start[1] - along * dv) ** 2 < radius * radius


def cat_silhouette(u: np.ndarray, v: np.ndarray, stride: float, sway: float) -> np.ndarray:
    """Where body coordinates lie inside a cat in side view."""
    inside = np.zeros(u.shape, bool)
    for x, y, rx, ry in CAT_ELLIPSES:
        inside |= ((u - x) / rx) ** 2 + ((v - y) / ry) ** 2 < 1
    for hip, way in CAT_HIPS:
        knee = (hip + 0.5 * way * stride, 0.36)
        inside |= capsule(u, v, (hip, 0.15), knee, 0.09) | capsule(u, v, knee, (hip + way * stride, 0.58), 0.06)
    tail = (-0.95, 0.05 + sway)
    return inside | capsule(u, v, (-0.66, -0.08), tail, 0.05) | capsule(u, v, tail, (-1.15, 0.3 + sway), 0.04)


CAT_COLOURS = ((196, 148, 84), (58, 38, 22), (158, 106, 56), (50, 32, 20))
COAT_STYLE = {
    "spacing": (0.19, 0.40),
    "radius": (0.05, 0.115),
    "ring": (0.2, 0.75),
    "length": (0.75, 1.5),
    "dots": (0, 1),
}


def coat_styles(rng: np.random.Generator, identities: int, ranges: Mapping = COAT_STYLE) -> list[dict[str, float]]:
    """A style for each identity, spread evenly over every range (a Latin hypercube), so that no two are much alike."""
    spread = {
        key: low + (high - low) * (rng.permutation(identities) + rng.uniform(size=identities)) / identities
        for key, (low, high) in ranges.items()
    }
    return [{key: float(values[i]) for key, values in spread.items()} for i in range(identities)]


def draw_coat(rng: np.random.Generator, style: Mapping[str, float], colours: tuple = CAT_COLOURS) -> np.ndarray:
    """One flank's rosettes as float32 (H, W, 3) in [0, 1]; `style` belongs to the animal, the places to the flank.

    colours: RGB of the ground, of the rosettes, of what they enclose, and of the dots in them.
    """
    width, height = int(2.4 * COAT_SCALE), int(1.4 * COAT_SCALE)
    ground, rosette, inside, speck = colours
    coat = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(coat)
    step = style["spacing"] * COAT_SCALE
    for row, y in enumerate(np.arange(0, height + step, 0.87 * step)):
        for x in np.arange((row % 2) * step / 2, width + step, step):
            centre = np.array([x, y]) + rng.normal(0, 0.2 * step, 2)
            turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
            radius = style["radius"] * COAT_SCALE * rng.uniform(0.75, 1.25) * (1 + rng.normal(0, 0.1, turn.size))
            outline = np.stack([radius * np.cos(turn) * style["length"], radius * np.sin(turn) / style["length"]], 1)
            if rng.uniform() < 0.12:
                continue  # a gap in the pattern
            draw.polygon([tuple(p) for p in centre + outline], fill=rosette)
            draw.polygon([tuple(p) for p in centre + outline * (1 - style["ring"])], fill=inside)
            if rng.uniform() < style["dots"]:
                dot = 0.25 * style["radius"] * COAT_SCALE
                draw.ellipse((*(centre - dot), *(centre + dot)), fill=speck)
    return np.asarray(coat, np.float32) / 255


def draw_scene(rng: np.random.Generator, colours: tuple, size: tuple[int, int]) -> np.ndarray:
    """A place in the forest as float32 (H, W, 3) in [0, 1]: from top to bottom colour, with patches and trunks."""
    height, width = size
    top, bottom = map(np.array, colours)
    scene = top + (bottom - top) * np.linspace(0, 1, height)[:, None, None] + np.zeros((height, width, 3))
    for sigma in (3, 12, 30):
        patches = gaussian_filter(rng.normal(size=(height, width)), sigma)
        scene += 0.07 * (patches / patches.std())[..., None] * (top + bottom + 0.2)
    for _ in range(rng.integers(1, 6)):
        x, thick = rng.integers(0, width), rng.integers(3, 14)
        scene[:, x : x + thick] = 0.6 * scene[:, x : x + thick] + 0.4 * rng.uniform(0.05, 0.4, 3)
    return np.clip(scene, 0, 1).astype(np.float32)


VIEW = {  # how a burst sees an animal: pose, place, light, blur and what stands before it; how each value is drawn
    "turn": ("normal", 0, 0.10),
    "zoom": ("uniform", 0.8, 1.3),
    "yaw": ("uniform", 0.72, 1.0),
    "x": ("normal", 0, 0.10),
    "y": ("normal", 0, 0.06),
    "stride": ("uniform", -0.12, 0.16),
    "sway": ("uniform", -0.15, 0.25),
    "gain": ("uniform", 0.6, 1.35),
    "warmth": ("normal", 0, 0.07),
    "shade": ("normal", 0, 0.25),
    "blur": ("uniform", 0, 0.9),
    "leaves": ("integers", 0, 4),
    "leaf_seed": ("integers", 0, 1 << 30),
    "scene_x": ("uniform", 0, 1),
    "scene_y": ("uniform", 0, 1),
    "width": ("integers", 150, 230),
    "height": ("integers", 112, 150),
}
JITTER = {"turn": 0.008, "x": 0.012, "y": 0.008, "stride": 0.01}  # standard deviations from one image to the next


def draw_view(rng: np.random.Generator) -> dict[str, float]:
    return {key: getattr(rng, kind)(low, high) for key, (kind, low, high) in VIEW.items()}


def jitter_view(rng: np.random.Generator, view: Mapping[str, float]) -> dict[str, float]:
    """The next image of a burst: nearly the same view."""
    moved = {key: view[key] + rng.normal(0, spread) for key, spread in JITTER.items()}
    return {**view, **moved, "gain": view["gain"] * (1 + rng.normal(0, 0.015))}


def draw_animal(
    coat: np.ndarray,
    scene: np.ndarray,
    view: Mapping[str, float],
    facing: int,
    silhouette: Callable[..., np.ndarray] = cat_silhouette,
) -> Image.Image:
    """An RGBA image of an animal in a scene: alpha is its visible mask, RGB keeps the scene around it."""
    width, height = 2 * int(view["width"]), 2 * int(view["height"])  # drawn at twice the size, for smooth edges
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x / width - 0.5 - view["x"]) * facing, (y / height - 0.48 - view["y"]) * height / width
    cos, sin, reach = math.cos(view["turn"]), math.sin(view["turn"]), 2.5 / view["zoom"]
    u, v = (cos * x + sin * y) * reach / view["yaw"], (cos * y - sin * x) * reach
    visible = silhouette(u, v, view["stride"], view["sway"])
    leaves = np.random.default_rng(view["leaf_seed"])
    for _ in range(view["leaves"]):
        foot, tip = leaves.uniform(-1.1, 1.1), leaves.normal(0, 0.25)
        visible &= ~capsule(u, v, (foot, 0.7), (foot + tip, leaves.uniform(-0.3, 0.3)), leaves.uniform(0.02, 0.06))
    places = [(v + 0.7) * COAT_SCALE, (u + 1.2) * COAT_SCALE]
    fur = np.stack([map_coordinates(coat[..., c], places, order=1, mode="nearest") for c in range(3)], -1)
    fur *= (1 + view["shade"] * np.clip(v, -0.5, 0.7))[..., None]
    top, left = int(view["scene_y"] * (scene.shape[0] - height)), int(view["scene_x"] * (scene.shape[1] - width))
    image = np.where(visible[..., None], fur, scene[top : top + height, left : left + width])
    image = image * view["gain"] * (1 + view["warmth"] * np.array([1, 0, -1]))
    image = gaussian_filter(np.clip(image, 0, 1), (2 * view["blur"], 2 * view["blur"], 0))
    rgba = np.dstack([image * 255, visible * 255.0]).astype(np.uint8)
    shrunk = [Image.fromarray(rgba[..., c]).resize((width // 2, height // 2), Image.Resampling.BOX) for c in range(4)]
    return Image.merge("RGBA", shrunk)


def long_tail(identities: int, images: int, least: int = 6) -> np.ndarray:
    """Image counts (C,) that fall from many to `least`, summing to `images`."""
    weights = (np.arange(identities) + 2.0) ** -0.8
    counts = least + np.floor(weights / weights.sum() * (images - least * identities)).astype(int)
    counts[: images - counts.sum()] += 1
    return counts


def plan_identity(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """The images of one identity: bursts of one to three on alternating flanks, about a quarter of them for test."""
    rows, burst = [], 0
    while len(rows) < count:
        length = min(int(rng.choice([1, 1, 1, 1, 2, 3])), count - len(rows))
        rows += [{"burst": burst, "flank": ("left", "right")[burst % 2]}] * length
        burst += 1
    held_out: list[int] = []
    longest = max(range(1, burst), key=[row["burst"] for row in rows].count, default=0)
    for b in rng.permutation(np.arange(2, burst)) if burst > 3 else [longest]:
        if len(held_out) < max(2, count // 5):
            held_out += [i for i, row in enumerate(rows) if row["burst"] == b]
    return [{**row, "split": "test" if i in held_out else "train"} for i, row in enumerate(rows)]


def draw_mini_dataset(root: Path, identities: int, images: int, seed: int, round: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng, colours, (420, 640)) for colours in SCENES]
    styles = coat_styles(rng, identities)
    rows, drawings = [], []
    for identity, count in enumerate(long_tail(identities, images)):
        coats = {flank: draw_coat(rng, styles[identity]) for flank in ("left", "right")}
        home = int(rng.integers(len(SCENES)))
        last = None
        for row in plan_identity(rng, count):
            if row["burst"] != last:
                view, last = draw_view(rng), row["burst"]
                scene = home if rng.uniform() < 0.4 else int(rng.integers(len(SCENES)))
            else:
                view = jitter_view(rng, view)
            rows.append(
                {
                    **row,
                    "identity": f"cat{identity:02d}",
                    "burst": f"cat{identity:02d}-{row['burst']:02d}",
                    "scene": scene,
                }
            )
            drawings.append(
                partial(draw_animal, coats[row["flank"]], scenes[scene], view, 1 if row["flank"] == "right" else -1)
            )
    views = number_images(pd.DataFrame(rows), rng if round == 2 else None)
    for part in ("train", "test"):
        (root / part / part).mkdir(parents=True)
    for path, draw in zip(views.path, progress(drawings, "drawing the mini-dataset")):
        image = draw()
        if round == 2:
            image = Image.composite(
                image, Image.new("RGBA", image.size), image.getchannel("A").point(lambda a: 255 * (a > 0))
            )
        image.save(root / path, compress_level=1)
    write_mini_tables(root, views)


def salamander_silhouette(u: np.ndarray, v: np.ndarray, stride: float, sway: float) -> np.ndarray:
    """Where body coordinates lie inside a salamander seen from above, head at +u."""
    bent = v - 0.35 * sway * np.minimum(u, 0) ** 2
    inside = (u / 0.62) ** 2 + (bent / 0.2) ** 2 < 1
    inside |= ((u - 0.68) / 0.22) ** 2 + (bent / 0.19) ** 2 < 1
    inside |= capsule(u, bent, (-0.5, 0.0), (-1.1, 0.0), 0.09)
    for hip, way in ((0.36, 1), (-0.36, -1)):
        for side in (-1, 1):
            inside |= capsule(u, bent, (hip, 0.1 * side), (hip + way * (0.12 + stride * side), 0.42 * side), 0.06)
    return inside


def turtle_silhouette(u: np.ndarray, v: np.ndarray, stride: float, sway: float) -> np.ndarray:
    """Where body coordinates lie inside a sea turtle seen from above, head at +u."""
    inside = (u / 0.62) ** 2 + (v / 0.5) ** 2 < 1
    inside |= ((u - 0.78) / 0.24) ** 2 + ((v - 0.2 * sway) / 0.17) ** 2 < 1
    for side in (-1, 1):
        inside |= capsule(u, v, (0.4, 0.3 * side), (0.15 + stride, 0.68 * side), 0.1)
        inside |= capsule(u, v, (-0.45, 0.25 * side), (-0.75 - stride, 0.42 * side), 0.08)
    return inside


@dataclass(frozen=True)
class Species:
    """How a species of the open-set mini-dataset looks."""

    name: str
    dataset: str
    silhouette: Callable[..., np.ndarray]
    colours: tuple
    style: Mapping[str, tuple[float, float]]  # of its coats; the narrower, the harder to tell apart
    orientations: Mapping[str, int]  # degrees counter-clockwise that an image is turned, by label


OPEN_SPECIES = (
    Species(
        "lynx",
        "LynxID2025",
        cat_silhouette,
        ((168, 142, 112), (66, 48, 36), (92, 68, 50), (60, 44, 34)),
        {"spacing": (0.14, 0.3), "radius": (0.03, 0.075), "ring": (0.6, 0.95), "length": (0.8, 1.6), "dots": (0, 0.2)},
        {"left": 0, "right": 0},
    ),
    Species(
        "salamander",
        "SalamanderID2025",
        salamander_silhouette,
        ((28, 25, 24), (226, 184, 40), (206, 160, 30), (28, 25, 24)),
        {"spacing": (0.18, 0.42), "radius": (0.05, 0.12), "ring": (0.7, 1.0), "length": (0.6, 1.8), "dots": (0, 0.6)},
        {"right": 0, "top": 90},
    ),
    Species(
        "loggerhead turtle",
        "SeaTurtleID2022",
        turtle_silhouette,
        ((74, 66, 44), (146, 118, 70), (120, 92, 54), (74, 66, 44)),
        {"spacing": (0.22, 0.3), "radius": (0.08, 0.12), "ring": (0.2, 0.5), "length": (0.85, 1.2), "dots": (0, 1)},
        {"right": 0},
    ),
)


def draw_open_dataset(root: Path, identities: int, images: int, seed: int, round: int) -> None:
    """Three species in AnimalCLEF's layout: a database of known individuals, and queries of known and unknown ones."""
    rng = np.random.default_rng((seed, 3))
    scenes = [draw_scene(rng, colours, (420, 640)) for colours in SCENES]
    rows, drawings = [], []
    for number, species in enumerate(OPEN_SPECIES):
        known = identities // 3 + (number < identities % 3)
        unknown, single = max(2, known // 2), max(1, known // 4)
        share = images // 3 + (number < images % 3)
        counts = long_tail(known, share - 3 * unknown - single, least=4)
        plans = [plan_identity(rng, count) for count in counts]
        plans += [[{**row, "split": "test"} for row in plan_identity(rng, 3)] for _ in range(unknown)]
        plans += [[{"burst": 0, "flank": "left", "split": "train"}] for _ in range(single)]
        styles = coat_styles(rng, len(plans), species.style)
        for animal, plan in enumerate(plans):
            coats = {flank: draw_coat(rng, styles[animal], species.colours) for flank in ("left", "right")}
            view, last, labels = {}, None, list(species.orientations)
            for row in plan:
                view, last = jitter_view(rng, view) if row["burst"] == last else draw_view(rng), row["burst"]
                above = "left" not in labels  # where there are no flanks
                flank = "left" if above else row["flank"]
                label = str(rng.choice(labels)) if above else flank
                scene = scenes[int(rng.integers(len(scenes)))]
                rows.append(
                    {
                        "identity": f"{species.dataset}_{species.name.partition(' ')[0]}_{animal:02d}",
                        "date": f"2024-{1 + row['burst'] % 12:02d}-{1 + animal % 28:02d}",
                        "orientation": label,
                        "species": species.name,
                        "split": "database" if row["split"] == "train" else "query",
                        "dataset": species.dataset,
                    }
                )
                facing = 1 if above or flank == "right" else -1
                draw = partial(draw_animal, coats[flank], scene, view, facing, species.silhouette)
                drawings.append((draw, species.orientations[label]))
    write_open_dataset(root, pd.DataFrame(rows), drawings, rng)


def write_open_dataset(root: Path, table: pd.DataFrame, images: Sequence[tuple], rng: np.random.Generator) -> None:
    table.insert(0, "image_id", rng.permutation(len(table)))  # the order tells nothing
    folders = "images/" + table.dataset + "/" + table.split + "/"
    table.insert(2, "path", folders + [f"{i:05d}.jpg" for i in table.image_id])
    for path, (draw, turn) in zip(table.path, progress(images, "drawing the mini-dataset")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        draw().convert("RGB").rotate(turn, expand=True).save(root / path, quality=92)
    table = table.sort_values("image_id")
    query = table.split == "query"
    table[query][["image_id", "identity"]].to_csv(root / "solution.csv", index=False)
    table.assign(identity=table.identity.where(~query, "")).to_csv(root / "metadata.csv", index=False)
    table[query][["image_id"]].assign(identity="new_individual").to_csv(root / "sample_submission.csv", index=False)


def number_images(views: pd.DataFrame, rng: np.random.Generator | None) -> pd.DataFrame:
    """Adds filename and path, numbered by identity and burst as in the competition; `rng` shuffles the test numbers."""
    number = views.groupby("split").cumcount() + 1
    if rng is not None:
        test = (views.split == "test").to_numpy()
        number[test] = rng.permutation(number[test].to_numpy())
    views["filename"] = views.split + "_" + number.astype(str).str.zfill(4) + ".png"
    views["path"] = views.split + "/" + views.split + "/" + views.filename
    return views


def write_mini_tables(root: Path, views: pd.DataFrame) -> None:
    solution = views[["filename", "identity"]].rename(columns={"identity": "ground_truth"})
    test = views.split == "test"
    solution[~test].to_csv(root / "train.csv", index=False)
    solution[test].sort_values("filename").to_csv(root / "solution.csv", index=False)
    views[["filename", "path", "identity", "flank", "burst", "scene", "split"]].to_csv(root / "views.csv", index=False)
    pairs = pd.DataFrame(
        itertools.permutations(sorted(views.filename[test]), 2), columns=["query_image", "gallery_image"]
    )
    pairs.insert(0, "row_id", np.arange(len(pairs)))
    pairs.to_csv(root / "test.csv", index=False)
    pairs[["row_id"]].assign(similarity=0.5).to_csv(root / "sample_submission.csv", index=False)


def make_mini_dataset(
    root: str | Path, identities: int = 12, images: int = 240, seed: int = 0, round: int = 1, layout: str = "jaguar"
) -> Path:
    """Draws a small competition of spotted cats into `root`, in the layout of Jaguar Re-ID; returns `root`.

    Each identity has its own rosettes, others on its left flank than on its right. Images differ in pose, place,
    light, blur and occlusion; some come in bursts of near-duplicates; counts have a long tail; scenes recur, and each
    identity has a favourite one. RGBA with the animal's mask in alpha: round 1 keeps the scene under alpha = 0,
    round 2 blackens it and renumbers the test images. `images` counts training and test images together (at least
    6 for each identity). views.csv tells identity, flank, burst and scene of every image, solution.csv the test
    identities. The same arguments draw the same pixels. A folder that holds this very dataset is left as it is.

    layout="animalclef" draws three species without masks, in the layout of AnimalCLEF 2025: metadata.csv with a
    database of known individuals, some with a single image, and queries, of which a part shows individuals that
    nobody knows. `identities` counts the known ones with several images, at least two of each species; salamanders
    lie upright or turned, as their orientation tells.
    """
    root = Path(root)
    made_with = {"identities": identities, "images": images, "seed": seed, "round": round, "layout": layout}
    convert_section(made_with, MiniConfig, "mini-dataset")
    open_set = layout == "animalclef"
    if open_set and identities < 6:
        raise KitError(f"mini-dataset.identities: {identities} is too few for three species (expected at least 6)")
    least = (9 if open_set else 6) * identities
    if images < least:
        raise KitError(
            f"mini-dataset.images: {images} is too few for {identities} identities (expected at least {least})"
        )
    record = root / "mini.json"
    if record.is_file() and {"layout": "jaguar", **read_record(record, {}, "remove the folder")} == made_with:
        return root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise KitError(f"{root}: holds something else already; choose a new folder for the mini-dataset")
    with only_one(root, wait=True):
        if not record.is_file():  # nobody made it while we waited
            draw = draw_open_dataset if open_set else draw_mini_dataset
            with atomic(root) as temporary:
                draw(temporary, identities=identities, images=images, seed=seed, round=round)
                write_json(temporary / "mini.json", made_with)
                remove_path(root)
    return root
