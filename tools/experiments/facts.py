"""The facts of an experiment for its report: what ran on what, made with what, and how to make it again."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaguar_kit import (
    FEWEST,
    Competition,
    Images,
    KitError,
    Recipe,
    RunFolder,
    RunSpec,
    backbone_version,
    cache_dir,
    core_count,
    data_key,
    load_recipe,
    recipe_to_dict,
    without_passwords,
)

PUBLISHED_ON = {  # training images and identities of what published figures were measured on, by competition
    "jaguar-re-id": (1895, 31),
    "round-2-jaguar-reidentification-challenge": (1895, 31),
    "animal-clef-2025": (13074, 1102),
}


def published_on(competition: Competition, slug: str) -> bool:
    """Whether the data are those that published figures were measured on, as far as their numbers tell."""
    return (len(competition.train), len(competition.identities)) == PUBLISHED_ON.get(slug)


def is_drawn(competition: Competition) -> bool:
    """Whether the images are those that the kit draws."""
    return competition.root.resolve().is_relative_to((cache_dir() / "mini").resolve())


def data_words(images: Competition) -> str:
    met = f" in {images.train.encounter.nunique()} encounters" if "encounter" in images.train else ""
    count = f"{len(images.train)} images of {len(images.identities)} identities"
    return f"{images.root}: {count}{met}, {len(images.test)} test images"


def measured_words(recipe: Recipe, specs: Sequence[RunSpec]) -> str:
    """By which split, seeds and epochs was measured, whatever the recipe's own protocol tells."""
    data, train = recipe.data, recipe.train
    seeds = sorted({spec.recipe.seed for spec in specs})
    split = "a split of its own for each seed" if data.split_by_seed else f"one split (seed {data.split_seed})"
    many = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    length = f"up to {train.epochs} epochs" if train.epochs else "no training"
    early = (
        f", ended after {train.patience} without a gain in {train.monitor}" if train.patience and train.epochs else ""
    )
    kept = f", of which the one best in {train.select} is kept" if train.epochs > 1 and train.select != "last" else ""
    kept = ", of which the last is kept" if train.epochs > 1 and train.select == "last" else kept
    return (
        f"Identity-balanced mAP of validation images, split {data.split.name}, {split}; {many}; {length}{early}{kept}. "
        "Settings of single variants may differ."
    )


def facts_of(recipe: Recipe, specs: Sequence[RunSpec], opened: Mapping[str, Images], folder: Path) -> dict[str, str]:
    """What was run, on what data, and how much its mAP rests on, for the top of a report."""
    facts = {}
    if recipe.overrides:
        changed = ", ".join(without_passwords(list(recipe.overrides)))
        facts["Changed on the command line"] = f"{changed}. What is said above is of the recipe without these changes."
    if not specs:
        return facts
    model, told = specs[0].recipe.model, RunFolder(folder / specs[0].folder).with_log.metrics()
    images = opened[data_key(specs[0].recipe)].competition
    facts["Data"] = data_words(images)
    if (seen := told.get("validated", {})).get("images"):
        facts["Validation"] = (
            f"{seen['images']} images, of which {seen['queries']} are queries that count, of {seen['identities']} "
            f"identities; {seen['pairs']} pairs of one identity are to be found. A random order has mAP "
            f"{seen['chance']:.3f}{across_basis(seen)}" + ("." if len(opened) == 1 else f" ({specs[0].folder}).")
        )
    facts["How it was measured"] = measured_words(recipe, specs)
    backbones = sorted({spec.recipe.model.backbone for spec in specs})
    learns = "frozen" if all(spec.recipe.model.freeze for spec in specs) else "learning"
    with suppress(KitError):
        version = backbone_version(model) if len(backbones) == 1 and not specs[0].recipe.checkpoint else ""
        weights = f", weights {version[:12]}" if version else "" if model.pretrained else ", random weights"
        facts["Backbone"] = f"{', '.join(backbones)}, {learns}{weights}"
    versions = ", ".join(f"{name} {version}" for name, version in told.get("versions", {}).items())
    facts["Made with"] = (
        f"{versions}; {told.get('device', 'cpu')}, {core_count()} cores; {time.strftime('%Y-%m-%d %H:%M')}"
    )
    return facts


def across_basis(seen: Mapping[str, Any]) -> str:
    """What mAP across encounters rests on."""
    told = seen.get("across")
    if not told:
        return ""
    few = f", too few to choose by (at least {FEWEST})" if told["identities"] < FEWEST else ""
    return (
        f"; across encounters {told['queries']} queries of {told['identities']} identities{few} and {told['pairs']} "
        f"pairs, by chance {told['chance']:.3f}"
    )


def alike_once(notes: Iterable[str]) -> list[str]:
    """Each note once; of those that differ in their numbers alone the first, and how many there are."""
    groups: dict[str, dict[str, None]] = {}
    for note in notes:
        groups.setdefault(re.sub(r"\d+", "#", note), {})[note] = None
    return [f"{next(iter(own))}{f' (one of {len(own)} such notes)' if len(own) > 1 else ''}" for own in groups.values()]


def kept_views(specs: Sequence[RunSpec]) -> list[tuple[int, str]]:
    """How many random views were kept as features, and the variants that were trained on them."""
    found: dict[int, dict[str, None]] = {}
    for spec in specs:
        changing = spec.recipe.augment or spec.recipe.background.build().drawn
        if spec.recipe.train.views and changing:
            found.setdefault(spec.recipe.train.views, {})[spec.variant] = None
    return [(views, ", ".join(variants)) for views, variants in found.items()]


# the same again


def again_words(recipe: Recipe, folder: Path, data: str | Path | None, device: str, versions: Mapping[str, str]) -> str:
    """A command that makes this very experiment again, with what it was made with in comments.

    By the recipe's name, where that with these overrides is this very one, else by the record in its folder.
    """
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    seeds = ", ".join(map(str, recipe.seeds or [recipe.seed]))
    head = [f"# {made}" if made else "", f"# seed{'s' * (len(recipe.seeds) > 1)}: {seeds}"]
    if same_by_name(recipe):
        words = ["run", recipe.name, *(word for text in recipe.overrides for word in ("-o", text))]
        words += [] if data is None else ["--data", str(data)]
        words += ["--device", device, "--out", "again"]
    else:
        words = ["report", folder.as_posix(), "--again", "again", "--device", device]
    return "\n".join([*filter(None, head), shlex.join(["python", "-m", "jaguar_kit", *words])])


def same_by_name(recipe: Recipe) -> bool:
    """Whether the recipe of this name, as anybody finds it, with these overrides is this very one, and may be told."""
    told = recipe_to_dict(recipe)
    try:
        return told == recipe_to_dict(load_recipe(recipe.name, recipe.overrides)) == without_passwords(told)
    except KitError:
        return False
