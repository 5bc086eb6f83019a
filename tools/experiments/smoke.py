"""The same experiment in seconds: tiny backbone, two epochs, synthetic images."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

import torch
from jaguar_kit import (
    KitError,
    MiniConfig,
    Recipe,
    backbone_groups,
    build_embedder,
    cache_dir,
    create_backbone,
    detached,
    echo,
    embedder_for,
    expand,
    known_backbone,
    load_safetensors,
    merge_recipe,
    only_one,
    parse_override,
    quiet,
    recipe_from_dict,
    recipe_to_dict,
    remove_path,
    run_recipe,
    save_tensors,
    sha_of,
)
from torch import nn

SMOKE_SETTINGS = (
    "data.root=null",
    "data.masks=null",
    "data.boxes=null",
    "data.encounter=null",
    "checkpoint=null",
    "soup=[]",
    "data.size=64",
    "model.backbone=test_resnet",
    "model.input_size=64",
    "train.epochs=2",
    "train.batch_size=16",
    "train.accumulate=1",
    "train.compile=false",
    "model.gradient_checkpointing=false",
)


def smoke(recipe: Recipe, weights: str | Path | None = None, masks: bool = False) -> Recipe:
    """The same experiment small enough for seconds on a CPU: tiny backbone, two epochs, one seed, small images.

    `weights` are those of a tiny backbone that has learned something; without them it has random ones. `masks`: whether
    the recipe's own masks are there, as for data of its own; the synthetic images have theirs in alpha.
    """
    small = MiniConfig(identities=8, images=120)
    if recipe.data.split.name == "open_set" or recipe.open_set:
        small = MiniConfig(identities=9, images=150, layout="animalclef")
    name, mini = f"{recipe.name}-smoke", recipe.data.mini or small
    trained = recipe.model.pretrained and weights is not None
    raw = recipe_to_dict(recipe)
    for part in raw["analysis"]:
        part.pop("against", None)  # a second backbone
        part.update({"duplicate": 0.99} if "duplicate" in part else {})  # a tiny backbone's cosines are high
    for settings in [raw, *raw["variants"].values()]:
        shrink_stages(settings or {}, recipe.data.size)
        model = (settings or {}).get("model") or {}
        if model.get("pooling") in ("logits", {"name": "logits"}):  # the tiny backbone's weights have no classifier
            model["pooling"] = "native"
    for step in raw["postprocess"]:
        small_spots = {"detector": "sift", "size": 64, "points": 32, "weights": None}
        step.update(small_spots if step["name"] == "local" else {})
    if raw["search"]:
        raw["search"]["trials"] = 2
    trains = bool(recipe.train.epochs or any(spec.recipe.checkpoint for spec in expand(recipe)))
    if raw["ensemble"].get("members"):  # which are not there: a member is trained in their place
        raw["ensemble"]["members"], trains = [], True
    if raw["pseudo"]:  # whose rule other runs would measure
        raw["pseudo"]["measured_on"] = None
    raw.update(name=name, seeds=[], checkpoint=None, soup=[], data={**raw["data"], "mini": asdict(mini)})
    small = recipe_from_dict(raw, name)
    column = ["data.split.column=burst"] if recipe.data.split.settings.get("column") else []  # the mini-dataset's
    column += [] if trains else ["train.epochs=0"]
    own = [f"model.pretrained={str(trained).lower()}", f"model.weights={json.dumps(str(weights) if trained else None)}"]
    settings = [text for text in SMOKE_SETTINGS if not (masks and text.startswith("data.masks="))]
    changed, texts = recipe_to_dict(small), (*settings, *own, *column)
    for text in texts:
        changed = merge_recipe(changed, parse_override(text))
    return recipe_from_dict({**changed, "overrides": [*small.overrides, *texts]}, name)


def shrink_stages(settings: dict, size: int) -> None:
    """Stages of one epoch at proportionally small sizes, in plain settings."""
    for stage in (settings.get("train") or {}).get("stages") or ():
        stage["epochs"] = 1
        if stage.get("size"):
            stage["size"] = max(16, stage["size"] * 64 // max(size, 64))


@lru_cache(maxsize=8)
def backbone_without_memory(name: str, input_size: int | None, classifier: bool) -> nn.Module:
    with torch.device("meta"):
        return create_backbone(name, input_size, classifier=classifier)


def check_buildable(recipe: Recipe) -> None:
    """Refuses a model, or learning rates by layer, that can't be made as the recipe has it; takes no memory for it."""
    model = recipe.model
    known_backbone(model.backbone)
    for part in recipe.analysis:
        if part.settings.get("against"):
            known_backbone(part.settings["against"])
    try:
        backbone = backbone_without_memory(model.backbone, model.input_size, model.pooling.name == "logits")
        with torch.device("meta"):
            embedder = build_embedder(replace(model, pretrained=False), backbone)
            if not model.freeze:
                backbone_groups(embedder, recipe.train.lr, recipe.train.layer_decay)
    except (RuntimeError, NotImplementedError, TypeError):  # some old models can't be made without memory
        return


def small_backbone() -> Path:
    """Weights of a tiny backbone that has learned to tell other synthetic cats apart; made once, then in the cache.

    They stand in for real weights where an experiment is only to be tried.
    """
    path = cache_dir() / "weights" / "small 2" / "test_resnet.safetensors"
    with only_one(path, wait=True):
        if path.is_file():
            try:
                load_safetensors(path)
            except KitError:
                remove_path(path)
        if not path.is_file():
            echo("  training a small backbone on other synthetic cats, once")
            recipe = recipe_from_dict(
                {
                    "name": "small",
                    "data": {"mini": {"identities": 16, "images": 200, "seed": 1000}, "size": 96},
                    "background": "black",
                    "augment": ["affine", {"name": "erasing", "p": 0.3, "area": [0.02, 0.15]}],
                    "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 96, "freeze": False},
                    "loss": {"name": "arcface", "margin": 0.2, "scale": 16},
                    "train": {"epochs": 10, "batch_size": 16, "lr": 2e-3, "weight_decay": 1e-2, "schedule": "cosine"},
                }
            )
            with quiet():
                result = run_recipe(recipe, out=path.parent / "runs", device="cpu")
            embedder, _, _ = embedder_for(replace(recipe, checkpoint=str(result.folder / "default" / "seed42")))
            save_backbone(path, embedder.backbone, "test_resnet")
    return path


def made_small(recipe: Recipe, masks: bool = False) -> Recipe:
    """The recipe's small version with weights of a tiny backbone; refuses what could not be built in its own size."""
    for spec in expand(recipe):
        check_buildable(spec.recipe)
    return smoke(recipe, small_backbone(), masks)


def save_backbone(path: str | Path, backbone: nn.Module, name: str) -> Path:
    """Writes a backbone's tensors with architecture, source, licence, sha256 and normalisation as metadata.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "test_resnet.safetensors"
    >>> save_backbone(path, timm.create_model("test_resnet", num_classes=0), "test_resnet").name
    'test_resnet.safetensors'
    """
    known, cfg = known_backbone(name), backbone.pretrained_cfg
    tensors = {key: detached(value) for key, value in backbone.state_dict().items()}
    metadata = {
        "format": "jaguar_kit backbone 1",
        "architecture": known.architecture,
        "source": known.hub or cfg.get("hf_hub_id") or "",
        "licence": cfg.get("license") or "unknown",
        "sha256": sha_of(tensors),
        "config": json.dumps({key: cfg[key] for key in ("mean", "std", "input_size") if key in cfg}),
    }
    save_tensors(path, tensors, metadata)
    return Path(path)
