"""Parts of one's own: every kind, by class and by function, from a module beside the kit, as a notebook has them."""

from __future__ import annotations

import importlib.util
import sys

import jaguar_kit
import pandas as pd
import pytest
import tiny
import torch
from jaguar_kit import KitError, recipe_from_dict, run_recipe

NOTEBOOK = '''
from __future__ import annotations

from typing import Annotated, Literal

import jaguar_kit as jk
import numpy as np
import torch
from torch import nn

Share = Annotated[float, jk.Range(low=0, high=1)]


@jk.register("loss", "own_class")
class OwnLoss(jk.IdentityLoss):
    """Distance to a centre of each identity."""

    weight: Share = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.centres = nn.Parameter(torch.zeros(self.num_identities, self.embedding_dim))

    def per_sample_loss(self, embeddings, labels):
        return self.weight * (embeddings - self.centres[labels]).square().sum(1), torch.ones(len(labels), dtype=bool)


@jk.register("loss", "own_subclass")
class OwnArcFace(jk.ArcFace):
    easier: Share = 0.5

    def with_margin(self, cosines, angles, lengths=None):
        return super().with_margin(cosines, angles, lengths) if lengths is not None else super().with_margin(
            cosines, angles
        )


@jk.register("loss", "own_function")
def own_loss(embedding_dim: int, num_identities: int, sharpness: Share = 0.5) -> nn.Module:
    return jk.build("loss", "cosface", embedding_dim=embedding_dim, num_identities=num_identities, scale=20 * sharpness)


@jk.register("pooling", "own_class")
class OwnPooling(jk.Pooling):
    share: Share = 0.5

    def reduce(self, places):
        return self.share * places.mean((2, 3)) + (1 - self.share) * places.amax((2, 3))


@jk.register("head", "own_function")
def own_head(in_features: int, output: Annotated[int, jk.Range(low=1)] = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(in_features, output), nn.Tanh())


@jk.register("head", "own_class")
class OwnHead(nn.Module):
    def __init__(self, in_features: int, output: Annotated[int, jk.Range(low=1)] = 6):
        super().__init__()
        self.num_features = output
        self.weight = nn.Parameter(torch.ones(in_features, output) / in_features)

    def forward(self, vectors):
        return vectors @ self.weight


@jk.register("background", "own_class")
class OwnBackground(jk.Background):
    level: Share = 0.5

    def paint(self, rgb, alpha):
        return torch.full_like(rgb, self.level)


@jk.register("augmentation", "own_function")
def own_augmentation(strength: Share = 0.1) -> nn.Module:
    return jk.build("augmentation", "rotation", degrees=10 * strength)


@jk.register("augmentation", "own_class")
class Brighter(nn.Module):
    def __init__(self, strength: Share = 0.1):
        super().__init__()
        self.strength = strength

    def forward(self, images):
        return (images * (1 + self.strength * torch.rand(len(images), 1, 1, 1))).clamp(0, 1)


@jk.register("optimizer", "own_function")
def own_optimizer(parameters: list, lr: float, weight_decay: float, power: Share = 0.9) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=power)


@jk.register("schedule", "own_function")
def own_schedule(optimizer: torch.optim.Optimizer, epochs: int, fall: Share = 0.5) -> jk.Schedule:
    return jk.Schedule(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: fall**epoch))


@jk.register("sampler", "own_function")
def own_sampler(
    rows: np.ndarray, codes: np.ndarray, batch_size: int, rng: np.random.Generator, order: Literal["up", "down"] = "up"
) -> list[np.ndarray]:
    rows = np.sort(rows)[:: 1 if order == "up" else -1]
    return [rows[i : i + batch_size] for i in range(0, len(rows) - 1, batch_size)]


@jk.register("mix", "own_function")
def own_mix(images: torch.Tensor, share: Share = 0.9):
    partner = torch.arange(len(images)).flip(0)
    return share * images + (1 - share) * images[partner], partner, torch.full((len(images),), share)


@jk.register("split", "own_function")
def own_split(train, hashes, split_seed: int, every: Annotated[int, jk.Range(low=2)] = 4):
    held_out = np.arange(len(train)) % every == 0
    return [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]


@jk.register("geometry", "own_class")
class OwnGeometry(jk.Cosine):
    stretch: Share = 0.5

    def forward(self, outputs):
        return outputs * (1 + self.stretch)


@jk.register("postprocess", "own_function", reads="similarity", makes="similarity")
def own_step(state: jk.Retrieval, power: Share = 0.5) -> jk.Retrieval:
    matrix = state.matrix()
    return jk.replace(state, similarity=matrix.sign() * matrix.abs() ** power)
'''
BY_CLASS = {
    "loss": {"name": "own_class", "weight": 0.25},
    "background": {"name": "own_class", "level": 0.25},
    "augment": [{"name": "own_class", "strength": 0.2}],
    "model": {
        "pooling": {"name": "own_class", "share": 0.25},
        "head": {"name": "own_class", "output": 5},
        "geometry": {"name": "own_class", "stretch": 0.25},
    },
}
BY_FUNCTION = {
    "data": {"split": {"name": "own_function", "every": 5}},
    "loss": "own_function",
    "augment": [{"name": "own_function", "strength": 0.2}],
    "model": {"head": {"name": "own_function", "output": 5}},
    "train": {
        "optimizer": {"name": "own_function", "power": 0.8},
        "schedule": {"name": "own_function", "fall": 0.8},
        "sampler": {"name": "own_function", "order": "down"},
        "mix": {"name": "own_function", "share": 0.8},
    },
    "postprocess": [{"name": "own_function", "power": 0.25}],
}
BY_SUBCLASS = {"loss": {"name": "own_subclass", "easier": 0.25, "scale": 16}}


@pytest.fixture(scope="module", autouse=True)
def notebook(tmp_path_factory):
    """The module of one's own, imported by its path as somebody's file is; its parts leave the registry afterwards."""
    before = dict(jaguar_kit.REGISTRY)
    path = tmp_path_factory.mktemp("own") / "own_parts.py"
    path.write_text(NOTEBOOK)
    spec = importlib.util.spec_from_file_location("own_parts", path)
    sys.modules["own_parts"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["own_parts"])
    yield
    del sys.modules["own_parts"]
    jaguar_kit.REGISTRY.clear()
    jaguar_kit.REGISTRY.update(before)


def recipe_with(*changes):
    raw = {**tiny.TINY, "name": "own"}
    for change in changes:
        raw = jaguar_kit.merge_recipe(raw, change)
    return recipe_from_dict(raw)


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize("parts", [BY_CLASS, BY_FUNCTION, BY_SUBCLASS], ids=["class", "function", "subclass"])
def test_parts_of_ones_own_train_go_on_after_a_kill_and_evaluate_again(parts, mini, tmp_path, monkeypatch):
    recipe = recipe_with({"train": {"epochs": 2, "checkpoint_minutes": 0}}, parts)
    monkeypatch.setattr(jaguar_kit, "rooms_folder", lambda: None)
    whole = run_recipe(recipe, data=mini, out=tmp_path / "whole", device="cpu")
    fit = jaguar_kit.Trainer.fit

    def killed(self, folder, watch=None):
        def see(row):
            if row["epoch"] == 2:
                raise Killed

        fit(self, folder, see)

    with monkeypatch.context() as patch:
        patch.setattr(jaguar_kit.Trainer, "fit", killed)
        with pytest.raises(Killed):
            run_recipe(recipe, data=mini, out=tmp_path / "parts", device="cpu")
    parted = run_recipe(recipe, data=mini, out=tmp_path / "parts", device="cpu")
    times = ["seconds", "embedded_per_second"]
    pd.testing.assert_frame_equal(parted.table.drop(columns=times), whole.table.drop(columns=times))
    evaluation = {"checkpoint": str(whole.folder / "default" / "seed42"), "train": {"epochs": 0}}
    raw = jaguar_kit.merge_recipe(jaguar_kit.recipe_to_dict(recipe), {**evaluation, "name": "again"})
    again = run_recipe(recipe_from_dict(raw), data=mini, out=tmp_path / "again", device="cpu")
    assert again.table["map"][0] == pytest.approx(whole.table["map"][0], abs=1e-6)
    assert torch.isfinite(torch.tensor(whole.table["map"][0]))


def test_settings_of_ones_own_parts_are_checked_by_their_hints():
    for where, part, words in (
        ("loss", {"name": "own_subclass", "easier": 2}, r"loss\.easier: 2\.0 is out of range"),
        ("loss", {"name": "own_subclass", "margin": "x"}, r"loss\.margin: 'x' is not a number"),
        ("train.sampler", {"name": "own_function", "order": "left"}, r"train\.sampler\.order: 'left'"),
        ("model.pooling", {"name": "own_class", "shares": 1}, r"did you mean 'share'"),
    ):
        with pytest.raises(KitError, match=words):
            recipe_with(jaguar_kit.nested(where, part))
