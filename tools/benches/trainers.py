"""Trainers for benches: of a head on cached features, and of a whole model on images, all synthetic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .samples import SPREAD

FEATURES, CATS = 675, 31  # cached features, identities


def head_run(epochs: int, width: int, device: Any = "cpu") -> Any:
    """A trainer of the baseline's head on cached features."""
    import jaguar_kit as jk
    import torch

    torch.manual_seed(0)
    labels = torch.randint(CATS, (FEATURES,)).sort().values
    features = torch.randn(CATS, width)[labels] + SPREAD * torch.randn(FEATURES, width)
    recipe = jk.recipe_from_dict({"name": "bench", "train": {"epochs": epochs, "patience": 0}})
    head = recipe.model.head.build(in_features=width)
    order = torch.randperm(FEATURES).numpy()
    return head_trainer(recipe, head, features, labels, np.split(order, [FEATURES * 4 // 5]), device)


def head_trainer(
    recipe: Any, head: Any, features: Any, labels: Any, split: Sequence[np.ndarray], device: Any = "cpu"
) -> Any:
    """A trainer of a head on cached features (N, D) of images with labels (N,), split into training and validation."""
    import jaguar_kit as jk
    import torch

    embedder = jk.Embedder(torch.nn.Identity(), jk.NativePooling(), head, frozen=True).to(device)
    identities = int(labels.max()) + 1
    loss = recipe.loss.build(embedding_dim=embedder.embedding_dim, num_identities=identities).to(device)
    source = jk.FeatureSource(features.to(device), torch.device(device))
    task = jk.Task(None, source, (source,), labels, *map(np.sort, split))
    return jk.Trainer(recipe, embedder, loss, jk.Trainer.make_optimizer(recipe.train, embedder, loss), task)


def trainer_on(recipe: Any, device: Any, pixels: np.ndarray, labels: np.ndarray, held_out: int = 0) -> Any:
    """A trainer of the recipe's whole model on uint8 images (N, S, S, 4), of which the first ones validate."""
    import jaguar_kit as jk
    import torch

    embedder = jk.build_embedder(recipe.model).to(device, memory_format=jk.memory_format(device))
    counts = np.bincount(labels).tolist()
    sizes = {"embedding_dim": embedder.embedding_dim, "num_identities": len(counts), "counts": counts}
    loss = recipe.loss.build(**sizes, geometry=embedder.geometry).to(device)
    images = jk.Images(None, jk.ImageStore(pixels, key=""), None, [], ("", ""))
    split = np.arange(held_out, len(pixels)), np.arange(held_out)
    task = jk.make_task(recipe, embedder, images, torch.from_numpy(labels), split, device)
    return jk.Trainer(recipe, embedder, loss, jk.Trainer.make_optimizer(recipe.train, embedder, loss), task)
