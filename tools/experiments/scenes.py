"""How much a model goes by the scene: the same images with other backgrounds behind the animals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from jaguar_kit import Component, Trainer, chance_map, echo, embed, identity_balanced_map, part_words, similarity_matrix


def map_on_backgrounds(trainer: Trainer, labels: np.ndarray) -> dict[str, float]:
    """Validation mAP with other backgrounds behind the animals, queries and gallery alike; NaN where none changes."""
    told, task = {}, trainer.task
    looked_at = task.pixels.store.read(task.validation[:64])
    plain = task.pixels.preparation.on_background(Component("background", "original")).images(looked_at, False)[0]
    for background in trainer.recipe.test_backgrounds:
        preparation = task.pixels.preparation.on_background(background)
        if background.name != "original" and torch.equal(plain, preparation.images(looked_at, False)[0]):
            told[part_words(background)] = math.nan  # it touches no pixel, so that nothing is measured
            echo(f"  note: test_backgrounds: {background.name} changes no pixel of the validation images: not measured")
            continue
        pixels = replace(task.pixels, preparation=preparation)
        mixed = np.random.default_rng(0).permutation(len(labels))  # neighbours of one burst must not swap alike
        embeddings = embed(trainer.network, pixels, task.validation[mixed])[np.argsort(mixed)]
        similarity = similarity_matrix(embeddings, geometry=trainer.embedder.geometry)
        told[part_words(background)] = identity_balanced_map(similarity, labels)
    told["chance"] = chance_map(labels, 50)
    return told
