"""Training: schedules, optimizers, steps, interruptions of every kind, several processes."""

import errno
import functools
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import socket
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from jaguar_kit import Component, KitError, TrainingFailed, recipe_from_dict
from jaguar_kit_tools.experiments import report as report_room
from safetensors.torch import load_file
from timm.optim import list_optimizers
from torch import nn

TOOL = str(Path(jaguar_kit.__file__).parent / "tools" / "run_recipe.py")
TIMES = ["images_per_second", "data_seconds", "compute_seconds", "memory_mb", "seconds"]
TINY = {
    "name": "tiny",
    "data": {"size": 32},
    "background": "black",
    "model": {
        "backbone": "test_resnet",
        "pretrained": False,
        "input_size": 32,
        "head": {"name": "mlp", "layers": 2, "hidden": 32, "output": 16},
    },
    "loss": {"name": "arcface", "margin": 0.2, "scale": 16},
    "train": {"epochs": 3, "batch_size": 16, "lr": 2e-3},
}
LEARNING = {"freeze": False}
AUGMENTED = {"augment": ["flip", {"name": "affine", "degrees": 5}], "model": LEARNING}


def raw_recipe(**changes) -> dict:
    return jaguar_kit.merge_recipe(TINY, changes)


def recipe_of(**changes):
    return recipe_from_dict(raw_recipe(**changes))


def metrics_of(folder: Path) -> dict:
    told = json.loads((folder / "metrics.json").read_text())
    del told["seconds"], told["embedded_per_second"]
    return told


def log_of(source) -> pd.DataFrame:
    """A run's log without what differs from one time to the next, from its folder or its history."""
    table = pd.read_csv(source / "log.csv") if isinstance(source, Path) else pd.DataFrame(source)
    return table.drop(columns=TIMES, errors="ignore")


def assert_same_run(one: Path, other: Path):
    assert metrics_of(one) == metrics_of(other)
    pd.testing.assert_frame_equal(log_of(one), log_of(other), check_exact=True)
    left = {p.name for p in one.iterdir()}
    assert left == {p.name for p in other.iterdir()}
    assert "checkpoint.safetensors" not in left


def place_of(folder: Path, mini: Path, variant: str = "default", seed: int = 42) -> Path:
    return folder / f"tiny@{mini.name}" / variant / f"seed{seed}"


@contextmanager
def without_figures():
    """Within the block reports have words and tables only, which take no time."""
    with pytest.MonkeyPatch.context() as patch:
        for part in ("report_curves", "report_detail", "run_details"):
            patch.setattr(report_room, part, lambda *_: None)
        yield


def run_recipe(*arguments, **settings):
    with without_figures():
        return jaguar_kit.run_recipe(*arguments, **settings)


def called(*arguments) -> int:
    """Exit code of the command, run in this process, one run after the other."""
    with without_figures():
        return jaguar_kit.main(jaguar_kit.run_command, [*map(str, arguments), "--jobs", "1"])


def written(folder: Path, **changes) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(raw_recipe(**changes)))
    return str(path)


CATS, IMAGES, TRAINED, WIDTH = 4, 48, 40, 6


def head_run(seed: int = 1, **train):
    """A trainer of a linear head, of features of four identities that a little training tells apart."""
    train = {"epochs": 3, "batch_size": 16, "lr": 0.02, "schedule": "none", **train}
    head = {"name": "linear", "output": 8}
    recipe = recipe_from_dict({"name": "heads", "model": {"head": head}, "loss": "cross_entropy", "train": train})
    generator, labels = torch.Generator().manual_seed(0), torch.arange(IMAGES) % CATS
    centres = torch.randn(CATS, WIDTH, generator=generator)
    features = centres[labels] + torch.randn(IMAGES, WIDTH, generator=generator)
    torch.manual_seed(seed)
    head = recipe.model.head.build(in_features=WIDTH)
    embedder = jaguar_kit.Embedder(nn.Identity(), jaguar_kit.NativePooling(), head, frozen=True)
    loss = recipe.loss.build(embedding_dim=8, num_identities=CATS)
    rows = np.arange(IMAGES)
    source = jaguar_kit.FeatureSource(features, torch.device("cpu"))
    sources = (source,) * len(jaguar_kit.stages_of(recipe.train))
    task = jaguar_kit.Task(None, source, sources, labels, rows[:TRAINED], rows[TRAINED:])
    return jaguar_kit.Trainer(
        recipe, embedder, loss, jaguar_kit.Trainer.make_optimizer(recipe.train, embedder, loss), task
    )


def trained_head(folder: Path, **settings):
    trainer = head_run(**settings)
    trainer.fit(folder)
    return trainer


def assert_same_tensors(one, other, **tolerance):
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], **(tolerance or {"rtol": 0, "atol": 0}), msg=key)


# schedules


LR, EPOCHS, STEPS = 0.1, 8, 5  # learning rate, epochs, steps of an epoch


def falling(done: float) -> float:
    """From 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * done)) / 2


def rising_then(steps: int, warmup: float, fall) -> list[float]:
    """For each step, counted from 1: its share of the warm-up, or `fall` of its share of what comes after."""
    last = warmup * steps
    return [n / last if n < last else fall((n - last) / (steps - last)) for n in range(1, steps + 1)]


def one_cycle(steps: int, peak: float, warmup: float) -> list[float]:
    """Half a cosine from peak / 25 to the peak, which is at the share `warmup`; half a cosine to 1e-4 of that."""
    turn, last, least = warmup * steps - 1, steps - 1, peak / 25
    rates = []
    for step in range(steps):
        if step <= turn:
            rates.append(least + (peak - least) * (1 - falling(step / turn)))
        else:
            rates.append(least / 1e4 + (peak - least / 1e4) * falling((step - turn) / (last - turn)))
    return rates


def by_epoch(factor) -> list[float]:
    return [LR * factor(epoch) for epoch in range(EPOCHS) for _ in range(STEPS)]


CURVES = [
    ("none", {}, by_epoch(lambda epoch: 1)),
    ("step", {"factor": 0.3, "every": 3}, by_epoch(lambda epoch: 0.3 ** (epoch // 3))),
    ("exponential", {"factor": 0.8}, by_epoch(lambda epoch: 0.8**epoch)),
    ("cosine", {}, by_epoch(lambda epoch: falling(epoch / EPOCHS))),
    ("cosine", {"t_max": 20}, by_epoch(lambda epoch: falling(epoch / 20))),
    ("onecycle", {"max_lr": 0.5, "warmup": 0.25}, one_cycle(EPOCHS * STEPS, 0.5, 0.25)),
    ("linear", {"warmup": 0.2}, [LR * x for x in rising_then(EPOCHS * STEPS, 0.2, lambda done: 1 - done)]),
    ("linear", {"warmup": 0}, [LR * x for x in rising_then(EPOCHS * STEPS, 0, lambda done: 1 - done)]),
    ("linear", {"warmup": 0.33}, [LR * x for x in rising_then(EPOCHS * STEPS, 0.33, lambda done: 1 - done)]),
    ("cosine_warmup", {"warmup": 0.2}, [LR * x for x in rising_then(EPOCHS * STEPS, 0.2, falling)]),
]


def scheduled(name: str, steps: int = EPOCHS * STEPS, **settings):
    """A schedule and its optimizer, whose second group learns at a tenth of the rate."""
    slow, fast = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [fast], "lr": LR}, {"params": [slow], "lr": LR / 10}], lr=LR)
    schedule = Component("schedule", name, settings).build(optimizer=optimizer, epochs=EPOCHS, steps=steps, lr=LR)
    return schedule, optimizer


def rates_of(schedule, optimizer, rows=({},) * EPOCHS, steps: int = STEPS) -> np.ndarray:
    """Learning rates of both groups at every step."""
    told = []
    for row in rows:
        for _ in range(steps):
            told.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(row)
    return np.array(told)


def test_schedules_follow_their_formulas_and_keep_the_groups_ratio():
    for name, settings, expected in CURVES:
        rates, about = rates_of(*scheduled(name, **settings)), f"{name} {settings}"
        np.testing.assert_allclose(rates[:, 0], expected, rtol=1e-9, atol=1e-12, err_msg=about)
        np.testing.assert_allclose(rates[:, 1], rates[:, 0] / 10, rtol=1e-9, err_msg=about)


def slow_plateau(values, factor: float, patience: int, lower: bool) -> list[float]:
    """The rate of each epoch, cut when more than `patience` epochs in a row were no better; NaN counts for nothing."""
    rate, best, without, rates = LR, math.inf, 0, []
    for value in values:
        rates.append(rate)
        if math.isnan(value):
            continue
        value = value if lower else -value
        best, without = (value, 0) if value < best else (best, without + 1)
        if without > patience:
            rate, without = rate * factor, 0
    return rates


@pytest.mark.parametrize("monitor", ["val_loss", "map"])
def test_plateau_cuts_the_rate_when_its_metric_stands_still(monitor):
    values = [0.5, 0.4, 0.6, 0.7, 0.65, 0.8, 0.3, 0.3, 0.3, 0.3, 0.9, 0.2, math.nan, 0.1]
    rows = [{"val_loss": math.nan, "map": math.nan, monitor: value} for value in values]
    for patience in (0, 1, 2):
        rates = rates_of(*scheduled("plateau", monitor=monitor, factor=0.5, patience=patience), rows)
        expected = slow_plateau(values, 0.5, patience, lower=monitor == "val_loss")
        np.testing.assert_allclose(rates[::STEPS, 0], expected, err_msg=f"patience {patience}")
        np.testing.assert_allclose(rates[:, 1], rates[:, 0] / 10)


@pytest.mark.parametrize("name", ["onecycle", "linear", "cosine_warmup"])
def test_epochs_longer_than_the_first_keep_the_last_rate_and_a_single_step_has_one(name):
    rates = rates_of(*scheduled(name), steps=STEPS + 3)[:, 0]
    assert rates[EPOCHS * STEPS :] == pytest.approx(rates[EPOCHS * STEPS - 1])
    assert np.isfinite(rates_of(*scheduled(name, steps=1), steps=1)).all()


def test_a_schedule_counts_steps_of_the_optimizer_not_batches(tmp_path):
    trainer = trained_head(tmp_path, epochs=4, batch_size=8, accumulate=2, schedule={"name": "linear", "warmup": 0})
    steps = 4 * 3  # five batches to an epoch, two to a step
    expected = [0.02] + [0.02 * (1 - 3 * epoch / steps) for epoch in range(4)]  # of what comes before training first
    rates = [row["lr"] for row in trainer.history]
    assert rates[1:] == pytest.approx([rate - 0.02 / steps for rate in expected[1:]])


# optimizers


LEARNING_RATES = {"adam": 0.05, "adamw": 0.05, "sgd": 0.1, "nesterov": 0.1, "rmsprop": 0.02, "lion": 0.01, "muon": 0.02}
OPTIMIZERS = [name for name in LEARNING_RATES if name != "muon" or "muon" in list_optimizers()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name, tmp_path):
    losses = log_of(trained_head(tmp_path, optimizer=name, epochs=8, lr=LEARNING_RATES[name]).history).train_loss[1:]
    assert losses.iloc[-1] < 0.7 * losses.iloc[0]


def test_settings_reach_the_optimizer():
    for name, settings, there in (
        ("adam", {}, {"betas": (0.9, 0.999)}),
        ("adamw", {}, {}),
        ("sgd", {"momentum": 0.7}, {"momentum": 0.7, "nesterov": False}),
        ("nesterov", {"momentum": 0.6}, {"momentum": 0.6, "nesterov": True}),
        ("rmsprop", {"alpha": 0.8}, {"alpha": 0.8}),
        ("lion", {}, {}),
        ("sgdw", {"momentum": 0.5}, {"momentum": 0.5}),
    ):
        trainer = head_run(optimizer={"name": name, **settings}, weight_decay=0.01, lr=0.03)
        expected = {**there, "weight_decay": 0.01, "lr": 0.03}
        for group in trainer.optimizer.param_groups:
            assert {key: group[key] for key in expected} == expected, name


def test_adam_adds_weight_decay_to_the_gradient_and_adamw_to_the_weights():
    assert type(head_run(optimizer="adam").optimizer) is torch.optim.Adam
    assert type(head_run(optimizer="adamw").optimizer) is torch.optim.AdamW


def test_an_unknown_optimizer_suggests_the_nearest():
    with pytest.raises(KitError, match=r"train\.optimizer: there is no optimizer 'adamv'; did you mean 'adam"):
        head_run(optimizer="adamv")


def test_an_optimizer_that_can_not_be_made_is_told_before_features_are_extracted(mini, tmp_path, monkeypatch):
    def refused(parameters, lr, weight_decay):
        raise KitError("train.optimizer: a package is missing")

    monkeypatch.setitem(jaguar_kit.REGISTRY, ("optimizer", "adam"), refused)
    monkeypatch.setattr(jaguar_kit, "cached_features", lambda *_, **__: pytest.fail("features were extracted"))
    with pytest.raises(KitError, match="a package is missing"):
        run_recipe(recipe_of(train={"optimizer": "adam"}), data=mini, out=tmp_path)


def test_a_setting_that_an_optimizer_lacks_is_refused():
    with pytest.raises(KitError, match=r"train\.optimizer\.momentum: optimizer 'adam' has no such setting"):
        head_run(optimizer={"name": "adam", "momentum": 0.9})


@pytest.mark.skipif(torch.cuda.is_available(), reason="made where there is a GPU")
@pytest.mark.skipif("fusedadam" not in list_optimizers(), reason=f"timm {timm.__version__} has none")
def test_an_optimizer_that_timm_can_not_make_here_is_told_in_one_line():
    with pytest.raises(KitError, match=r"train\.optimizer: timm can't make 'fusedadam' here"):
        head_run(optimizer="fusedadam")


# what of a backbone learns


def pixel_trainer(seed: int = 0, train=None, **model):
    """A trainer of a backbone with a linear head; images (8, 3, 32, 32) and their labels."""
    recipe = recipe_of(model={**LEARNING, "head": "linear", **model}, train=train or {})
    torch.manual_seed(seed)
    embedder = jaguar_kit.build_embedder(recipe.model)
    loss = recipe.loss.build(embedding_dim=embedder.embedding_dim, num_identities=CATS)
    rows, labels = np.arange(8), torch.arange(8) % CATS
    task = jaguar_kit.Task(None, None, (), labels, rows, rows[:0])
    trainer = jaguar_kit.Trainer(
        recipe, embedder, loss, jaguar_kit.Trainer.make_optimizer(recipe.train, embedder, loss), task
    )
    return trainer, torch.randn(8, 3, 32, 32), torch.arange(8) % CATS


def changed_by_steps(trainer, images, labels, steps: int = 3) -> set[str]:
    """Names of the embedder's tensors, statistics included, that training changes (a ResNet begins with zeros)."""
    before = {key: value.clone() for key, value in trainer.embedder.state_dict().items()}
    trainer.embedder.train()
    for _ in range(steps):
        trainer.loss(trainer.embedder(images), labels).backward()
        trainer.optimizer_step()
    return {key for key, value in trainer.embedder.state_dict().items() if not torch.equal(value, before[key])}


LAST_BLOCK = {"test_vit": ("blocks.5.", "norm."), "test_resnet": ("layer4.",)}


@pytest.mark.parametrize("backbone", LAST_BLOCK)
def test_with_one_block_only_the_last_and_what_is_behind_it_changes(backbone):
    trainer, images, labels = pixel_trainer(backbone=backbone, train_blocks=1)
    changed = changed_by_steps(trainer, images, labels)
    inside = {key.removeprefix("backbone.") for key in changed if key.startswith("backbone.")}
    own = {key for key in trainer.embedder.backbone.state_dict() if key.startswith(LAST_BLOCK[backbone])}
    assert inside == own  # the last block's batch-norm statistics too, and no others
    assert {"head.weight", "head.bias"} <= changed


@pytest.mark.parametrize("backbone", LAST_BLOCK)
def test_without_a_number_of_blocks_all_of_the_backbone_changes(backbone):
    trainer, images, labels = pixel_trainer(backbone=backbone)
    assert changed_by_steps(trainer, images, labels) == {*trainer.embedder.state_dict()}


def test_a_frozen_backbone_keeps_its_statistics():
    trainer, images, labels = pixel_trainer(freeze=True)
    assert changed_by_steps(trainer, images, labels) == {"head.weight", "head.bias"}


def test_more_blocks_than_there_are_is_told():
    with pytest.raises(KitError, match=r"model\.train_blocks: 9 is more than the \d blocks"):
        pixel_trainer(train_blocks=9)


def layer_of(name: str) -> int:
    """The layer of test_vit: 0 up to the first block, then one for each of six blocks; the norm is in the last."""
    found = re.match(r"blocks\.(\d)\.", name)
    return 1 + int(found[1]) if found else 6 if name.startswith("norm") else 0


def rates_by_name(trainer) -> dict[str, float]:
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    return {name: rates[id(p)] for name, p in trainer.embedder.named_parameters() if p.requires_grad}


def test_layer_decay_lowers_the_rate_from_the_last_layer_to_the_first():
    train = {"lr": 0.1, "backbone_lr": 0.5, "layer_decay": 0.8}
    rates = rates_by_name(pixel_trainer(backbone="test_vit", train=train)[0])
    assert rates.pop("head.weight") == rates.pop("head.bias") == 0.1
    assert rates == {name: pytest.approx(0.05 * 0.8 ** (6 - layer_of(name[9:]))) for name in rates}
    assert len(set(rates.values())) == 7


def test_layer_decay_begins_at_the_last_block_where_only_some_learn():
    train = {"lr": 0.1, "layer_decay": 0.5}
    rates = rates_by_name(pixel_trainer(backbone="test_vit", train_blocks=2, train=train)[0])
    assert rates["backbone.norm.weight"] == rates["backbone.blocks.5.mlp.fc1.weight"] == 0.1
    assert rates["backbone.blocks.4.mlp.fc1.weight"] == 0.05
    assert not [name for name in rates if name.startswith(("backbone.blocks.3", "backbone.patch"))]


def test_the_optimizer_holds_each_parameter_that_learns_once():
    trainer, _, _ = pixel_trainer(pooling="gem", train={"layer_decay": 0.9})
    held = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
    learn = [p for module in (trainer.embedder, trainer.loss) for p in module.parameters() if p.requires_grad]
    assert sorted(held) == sorted(map(id, learn))


# steps


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_parts_of_a_batch_give_the_step_of_the_whole(optimizer, tmp_path):
    whole, told = trained_head(tmp_path / "whole", optimizer=optimizer), ["train_loss", "val_loss", "grad_norm"]
    for settings in ({"batch_size": 8, "accumulate": 2}, {"micro_batch": 5}, {"micro_batch": 2}):
        parts = trained_head(tmp_path / str(settings), optimizer=optimizer, **settings)
        assert_same_tensors(parts.live(), whole.live(), rtol=1e-4, atol=1e-6)
        expected = log_of(whole.history)[told]
        np.testing.assert_allclose(log_of(parts.history)[told], expected, rtol=1e-4, err_msg=str(settings))


def test_the_last_group_of_an_epoch_may_be_smaller_and_its_batches_unequal(tmp_path):
    whole = trained_head(tmp_path / "whole", batch_size=24, optimizer="sgd")  # 24 and 16 of 40
    for size, count in ((12, 2), (8, 3), (4, 6)):
        parts = trained_head(tmp_path / str(size), batch_size=size, accumulate=count, optimizer="sgd")
        assert_same_tensors(parts.live(), whole.live(), rtol=1e-4, atol=1e-6)


def steps_of(monkeypatch, seen) -> None:
    """Lets `seen(trainer)` look at the gradients just before each step of the optimizer."""
    take = torch.optim.SGD.step

    def step(self, *arguments, **settings):
        seen(self)
        return take(self, *arguments, **settings)

    monkeypatch.setattr(torch.optim.SGD, "step", step)


def gradient_norms(monkeypatch) -> list[float]:
    norms: list[float] = []

    def seen(optimizer):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(math.sqrt(sum(float(g.double().square().sum()) for g in gradients)))

    steps_of(monkeypatch, seen)
    return norms


def test_clip_norm_shortens_only_what_is_longer(tmp_path, monkeypatch):
    norms = gradient_norms(monkeypatch)
    free = trained_head(tmp_path / "free", optimizer="sgd", batch_size=TRAINED)
    longest = np.array(norms)
    norms.clear()
    limit = float(np.median(longest))
    clipped = trained_head(tmp_path / "clipped", optimizer="sgd", batch_size=TRAINED, clip_norm=limit)
    assert max(norms) == pytest.approx(limit, rel=1e-4)
    assert norms[0] == pytest.approx(min(longest[0], limit), rel=1e-4)
    assert [row["grad_norm"] for row in free.history[1:]] == pytest.approx(list(longest))
    assert clipped.history[1]["grad_norm"] == pytest.approx(longest[0])  # the log tells the length before


DECAY = 0.8


def test_ema_is_the_moving_average_and_the_best_weights_are_its(tmp_path, monkeypatch):
    seen, step = [], jaguar_kit.Trainer.optimizer_step

    def watched(trainer, *more):
        norm = step(trainer, *more)
        seen.append({key: value.double().clone() for key, value in trainer.live().items()})
        return norm

    trainer = head_run(ema=DECAY, epochs=1)
    average = {key: value.double().clone() for key, value in trainer.live().items()}
    monkeypatch.setattr(jaguar_kit.Trainer, "optimizer_step", watched)
    trainer.fit(tmp_path)
    for weights in seen:
        average = {key: DECAY * average[key] + (1 - DECAY) * value for key, value in weights.items()}
    average = {key: value.float() for key, value in average.items()}
    assert len(seen) == 3
    assert_same_tensors(trainer.average, average, rtol=1e-5, atol=1e-7)
    assert_same_tensors(trainer.best, average, rtol=1e-5, atol=1e-7)
    assert_same_tensors(trainer.live(), {key: value.float() for key, value in seen[-1].items()})
    trainer.restore(trainer.best)
    trainer.average = {}
    assert trainer.validate()[0]["val_loss"] == pytest.approx(trainer.history[1]["val_loss"])


def test_ema_leaves_the_weights_that_learn_as_they_are(tmp_path):
    with_average, without = trained_head(tmp_path / "with", ema=0.9), trained_head(tmp_path / "without")
    assert_same_tensors(with_average.live(), without.live())
    assert with_average.history[-1]["val_loss"] != without.history[-1]["val_loss"]


def test_ema_averages_statistics_and_counts_batches(tmp_path):
    trainer, images, labels = pixel_trainer(train={"ema": 0.5})
    trainer.update_average()
    start = trainer.average["embedder.backbone.bn1.running_mean"].clone()
    changed_by_steps(trainer, images, labels, steps=1)
    now = trainer.live()["embedder.backbone.bn1.running_mean"]
    torch.testing.assert_close(trainer.average["embedder.backbone.bn1.running_mean"], (start + now) / 2)
    assert trainer.average["embedder.backbone.bn1.num_batches_tracked"] == 1


def slow_mining(geometry, embeddings, labels, met) -> list[int]:
    similarity = geometry.similarity(geometry.project(embeddings), geometry.project(embeddings))
    agreeing = paired = 0
    hardest, nearest, again = 0.0, 0.0, 0
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        own = [j for j in others if labels[j] == labels[i]]
        if own:
            paired += 1
            agreeing += int(labels[max(others, key=lambda j: float(similarity[i, j]))] == labels[i])
            least = min(own, key=lambda j: float(similarity[i, j]))
            hardest += float(similarity[i, least])
            nearest += max(float(similarity[i, j]) for j in others if j not in own)
            again += int(met[least] == met[i])
    return [agreeing, paired, hardest, nearest, again]


@pytest.mark.parametrize("geometry", ["cosine", "euclidean", "poincare"])
def test_mining_of_with_a_loop(geometry):
    space = jaguar_kit.build("geometry", geometry)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 8, (14,), generator=generator)
        embeddings = torch.randn(14, 4, generator=generator) + torch.eye(8, 4)[labels] * 2
        met = torch.randint(0, 3, (14,), generator=generator)
        found = jaguar_kit.mining_of(space, embeddings, labels, met).tolist()
        assert found == pytest.approx(slow_mining(space, embeddings, labels, met), rel=1e-5), f"seed {seed}"
        assert jaguar_kit.mining_of(space, embeddings, labels).tolist() == [*found[:4], 0]


def test_mining_of_finds_nothing_where_each_identity_has_one_image():
    space = jaguar_kit.build("geometry", "cosine")
    assert jaguar_kit.mining_of(space, torch.eye(3), torch.arange(3)).tolist() == [0] * 5


# memory that does not suffice


def short_of_memory(monkeypatch, room: int) -> list[int]:
    """Trainer.pool that raises where more than `room` images come at a time; sizes that were tried."""
    forward, tried = jaguar_kit.Trainer.pool, []

    def limited(trainer, source, part):
        tried.append(len(part.images))
        result = forward(trainer, source, part)
        if len(part.images) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    monkeypatch.setattr(jaguar_kit.Trainer, "pool", limited)
    return tried


def test_out_of_memory_halves_the_images_at_a_time_aloud(tmp_path, monkeypatch, capsys):
    whole = trained_head(tmp_path / "whole", batch_size=16)
    tried = short_of_memory(monkeypatch, 4)
    halved = trained_head(tmp_path / "halved", batch_size=16)
    told = [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]
    assert [re.search(r": (\d+) images at a time", line)[1] for line in told] == ["8", "4"]
    assert tried[:3] == [16, 8, 4]
    assert max(tried[3:]) == 4
    assert halved.micro_batch == 4
    np.testing.assert_allclose(log_of(halved.history).train_loss, log_of(whole.history).train_loss, rtol=1e-4)
    assert_same_tensors(halved.live(), whole.live(), rtol=1e-4, atol=1e-6)


def test_gradients_from_before_memory_ran_out_do_not_count_twice(tmp_path, monkeypatch):
    whole = trained_head(tmp_path / "whole", batch_size=16, optimizer="sgd")
    forward, calls = jaguar_kit.Trainer.loss_of_pooled, []

    def second_fails(*arguments):
        calls.append(1)
        if len(calls) == 2:  # the gradients of the group's first batch are there by now
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*arguments)

    monkeypatch.setattr(jaguar_kit.Trainer, "loss_of_pooled", second_fails)
    again = trained_head(tmp_path / "again", batch_size=8, accumulate=2, optimizer="sgd")
    assert again.micro_batch == 4
    assert_same_tensors(again.live(), whole.live(), rtol=1e-4, atol=1e-6)


def test_what_never_fits_names_the_setting(tmp_path, monkeypatch):
    short_of_memory(monkeypatch, 0)
    with pytest.raises(KitError, match=r"train\.micro_batch: 2 images at a time do not fit"):
        trained_head(tmp_path)


def test_a_smaller_micro_batch_wins_over_the_checkpoint_s(tmp_path):
    for found in (None, 8):
        head_run(micro_batch=found).save(tmp_path / "checkpoint.safetensors")
        later = head_run(micro_batch=4)  # what the error line advises
        later.load(tmp_path / "checkpoint.safetensors")
        assert later.micro_batch == 4, found


# stages and patience


def scripted(monkeypatch, metric: str, values) -> list[dict]:
    """`validate` that gives these values, the first before training; the weights at each of its calls."""
    left, weights = iter(values), []

    def validate(trainer):
        weights.append(trainer.learned())
        return {**dict.fromkeys(jaguar_kit.METRICS, 0.5), metric: next(left)}, torch.zeros(0)

    monkeypatch.setattr(jaguar_kit.Trainer, "validate", validate)
    return weights


def slow_patience(values, patience: int, patience_from: int) -> int:
    """How many epochs are trained: until the best of those that count is `patience` epochs old."""
    best, age = -math.inf, 0
    for epoch, value in enumerate(values, 1):
        if epoch <= patience_from:
            continue
        best, age = (value, 0) if value > best else (best, age + 1)
        if patience and age >= patience:
            return epoch
    return len(values)


@pytest.mark.parametrize("metric", ["map", "val_loss"])
def test_patience_ends_training(metric, tmp_path, monkeypatch):
    values = [0.5, 0.4, 0.6, 0.6, 0.55, 0.7, 0.3, 0.2, 0.1, 0.1]
    sign = -1 if metric == "val_loss" else 1
    for patience, first in itertools.product((0, 1, 2, 3), (0, 2, 5)):
        scripted(monkeypatch, metric, [0, *(sign * value for value in values)])
        patient = {"monitor": metric, "patience": patience, "patience_from": first}
        trainer = trained_head(tmp_path / f"{patience} {first}", epochs=len(values), batch_size=TRAINED, **patient)
        assert len(trainer.history) - 1 == slow_patience(values, patience, first), patient


def test_the_earliest_of_equally_good_epochs_gives_the_weights(tmp_path, monkeypatch):
    for metric, values, best in (
        ("map", [0.2, 0.7, 0.7, 0.1], 2),
        ("val_loss", [0.2, 0.1, 0.4, 0.1], 2),
        ("map", [math.nan, 0.3, math.nan, 0.3], 2),
        ("map", [math.nan] * 3, 3),
        ("top1", [0.0, 0.0], 1),
    ):
        assert jaguar_kit.best_epoch([{metric: value} for value in values], metric) == best - 1, (metric, values)
        weights = scripted(monkeypatch, metric, [0.9, *values])
        trainer = trained_head(tmp_path / f"{metric} {values}", epochs=len(values), select=metric, patience=0)
        assert jaguar_kit.run_facts(trainer)["best_epoch"] == best, (metric, values)
        assert_same_tensors(trainer.best, weights[best])


def test_patience_begins_anew_with_each_stage(tmp_path, monkeypatch):
    scripted(monkeypatch, "map", [0, 0.9, 0.1, 0.1, 0.3, 0.5, 0.4, 0.4, 0.8])
    stages = [{"epochs": 6}, {"epochs": 4}]
    trainer = trained_head(tmp_path, stages=stages, patience=2)
    assert [row["stage"] for row in trainer.history[1:]] == [0, 0, 0, 1, 1, 1, 1]


def spied(monkeypatch) -> list:
    """(trainer, task) of every training that ends."""
    run, seen = jaguar_kit.Trainer.fit, []

    def watched(trainer, *others):
        run(trainer, *others)
        seen.append((trainer, trainer.task))

    monkeypatch.setattr(jaguar_kit.Trainer, "fit", watched)
    return seen


@pytest.mark.parametrize("model", [LEARNING, {"freeze": True}], ids=["learning", "frozen"])
def test_stages_train_on_images_of_their_sizes(model, mini, tmp_path, monkeypatch):
    read, sides = jaguar_kit.ImageStore.read, []

    def watched(self, positions):
        sides.append((self.pixels.shape[1], len(positions)))
        return read(self, positions)

    monkeypatch.setattr(jaguar_kit.ImageStore, "read", watched)
    seen, stages = spied(monkeypatch), [{"epochs": 1, "size": 16}, {"epochs": 2, "size": 48}, {"epochs": 1}]
    recipe = recipe_of(model=model, train={"stages": stages, "patience": 0})
    place = run_recipe(recipe, data=mini, out=tmp_path).folder / "default" / "seed42"
    assert list(log_of(place).stage.dropna()) == [0, 1, 1, 2]
    (_, task), trained = seen[0], len(seen[0][1].train)
    assert task.pixels.store.pixels.shape[1] == 32
    if model is LEARNING:
        assert [stage.store.pixels.shape[1] for stage in task.stages] == [16, 48, 32]
        sizes = [side for side, count in sides if count <= 16]
        batches = math.ceil(trained / 16)
        at = [i for i, side in enumerate(sizes) if side != 32]
        assert [sizes[i] for i in at] == [16] * batches + [48] * 2 * batches
    else:
        assert task.stages[2] is task.source
        assert len({stage.features.numpy().tobytes() for stage in task.stages}) == 3


def test_without_validation_all_images_train_and_the_last_epoch_counts(mini, tmp_path, monkeypatch):
    seen = spied(monkeypatch)
    recipe = recipe_of(data={"split": "all"}, train={"patience": 1})
    result = run_recipe(recipe, data=mini, out=tmp_path)
    place, (trainer, task) = result.folder / "default" / "seed42", seen[0]
    table = pd.read_csv(mini / "train.csv")
    assert sorted(task.train) == list(range(len(table)))
    told = metrics_of(place)
    assert math.isnan(told["map"])
    assert (told["epochs"], told["best_epoch"]) == (3, 3)
    assert log_of(place)["map"].isna().all()
    kept = load_file(place / "weights.safetensors")
    assert_same_tensors({key: kept[key] for key in trainer.live()}, trainer.live())
    assert jaguar_kit.validate_submission(place / "submission.csv", mini / "test.csv")["rows"] > 0
    assert result.report.is_file()


# precision


def test_precision_auto_is_fp32_on_a_cpu():
    assert jaguar_kit.precision_of("auto", torch.device("cpu")) is None
    assert jaguar_kit.precision_of("fp32", torch.device("cpu")) is None
    assert jaguar_kit.precision_of("bf16", torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)])
def test_precision_auto_on_a_gpu_is_what_it_computes_in(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    cuda = torch.device("cuda")
    assert jaguar_kit.precision_of("auto", cuda) is dtype
    assert jaguar_kit.precision_of("fp16", cuda) is torch.float16
    assert jaguar_kit.precision_of("fp32", cuda) is None


def test_fp16_on_a_cpu_is_refused_before_any_work(mini, tmp_path, capsys):
    path = written(tmp_path, train={"precision": "fp16"})
    assert called(path, "--data", mini, "--out", tmp_path / "out", "--device", "cpu") == 2
    told = capsys.readouterr()
    assert told.err == "error: train.precision: fp16 needs a GPU (expected auto, fp32 or bf16 on a CPU)\n"
    assert told.out == ""
    assert not (tmp_path / "out").exists()


def test_bf16_trains_on_a_cpu(mini, tmp_path, monkeypatch):
    seen = spied(monkeypatch)
    recipe = recipe_of(model=LEARNING, train={"precision": "bf16", "epochs": 1})
    place = run_recipe(recipe, data=mini, out=tmp_path, device="cpu").folder / "default" / "seed42"
    assert np.isfinite(log_of(place)[["train_loss", "val_loss", "map"]].iloc[1]).all()
    trainer, _ = seen[0]
    with jaguar_kit.mixed_precision(trainer.device, trainer.precision):
        first = trainer.embedder.head[0]
        assert first(torch.zeros(2, first.in_features)).dtype is torch.bfloat16
    assert all(value.dtype is torch.float32 for key, value in trainer.best.items() if value.is_floating_point())


def scaled_head(sick: range, epochs: int, **settings):
    """A trainer under a real GradScaler, whose gradients are infinite in these of its steps."""
    trainer = head_run(epochs=epochs, **settings)
    trainer.scaler = torch.amp.GradScaler("cpu")
    steps = []

    def spoil(gradient):
        steps.append(1)
        return gradient * math.inf if len(steps) - 1 in sick else gradient

    trainer.learning_parameters()[0].register_hook(spoil)
    return trainer


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "nesterov", "rmsprop"])
def test_first_steps_that_the_scaler_skips_do_no_harm(name, tmp_path):
    trainer = scaled_head(range(2), epochs=8, optimizer=name, lr=LEARNING_RATES[name])
    trainer.fit(tmp_path)
    losses = log_of(trainer.history).train_loss[1:]
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]
    assert trainer.scaler.get_scale() == 2.0**14


def test_gradients_that_are_no_numbers_at_any_scale_fail_the_run(tmp_path):
    trainer = scaled_head(range(1000), epochs=50, patience=0)
    with pytest.raises(TrainingFailed, match=r"no numbers in fp16 at any scale.*set train\.precision: fp32"):
        trainer.fit(tmp_path)
    assert len(trainer.history) < 10


@pytest.mark.parametrize(
    ("device", "precision", "wanted"),
    [("cuda", None, "high"), ("cuda", torch.bfloat16, "highest"), ("cpu", None, "medium")],
)
def test_tf32_is_for_fp32_on_a_gpu(device, precision, wanted, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        jaguar_kit.quicken(torch.device(device), precision)
        assert torch.get_float32_matmul_precision() == wanted
        assert torch.backends.cudnn.benchmark == (device == "cuda")
    finally:
        torch.set_float32_matmul_precision(before)


# the log


@pytest.fixture(scope="module")
def logged(mini, tmp_path_factory):
    """The folder of a run with gem pooling."""
    recipe = recipe_of(model={"pooling": "gem"})
    result = run_recipe(recipe, data=mini, out=tmp_path_factory.mktemp("logged"))
    return result.folder / "default" / "seed42"


def test_the_log_has_a_row_for_each_epoch_and_tells_of_speed_and_memory(logged):
    log = pd.read_csv(logged / "log.csv")
    columns = {"epoch", "train_loss", "batch_top1", "val_loss", "map", "lr", "grad_norm", *TIMES, *jaguar_kit.METRICS}
    assert columns <= set(log.columns)
    assert list(log.epoch) == [0, 1, 2, 3]
    trained = log[1:]
    plain = [name for name in log if name.startswith("plain_map")]
    assert plain[:1] == ["plain_map"]
    assert log[plain][1:].isna().all(axis=None)
    assert np.isfinite(trained.drop(columns=["batch_top1", *plain])).all(axis=None)
    assert trained.batch_top1.between(0, 1).all()
    assert (trained[["grad_norm", "images_per_second", "compute_seconds", "memory_mb", "seconds"]] > 0).all(axis=None)
    assert (trained.data_seconds >= 0).all()
    assert log.train_loss[:1].isna().all()


def test_the_log_tells_the_exponent_of_gem_pooling(logged):
    exponents = pd.read_csv(logged / "log.csv").gem_p
    assert exponents[0] == pytest.approx(3)
    assert exponents.nunique() == 4


def test_without_gem_pooling_the_log_has_no_exponent(tmp_path):
    assert "gem_p" not in trained_head(tmp_path, epochs=1).history[-1]


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(tmp_path, monkeypatch):
    forward, seen = jaguar_kit.Trainer.loss_of_pooled, []

    def watched(trainer, pooled, labels, mixed):
        loss, agrees = forward(trainer, pooled, labels, mixed)
        seen.append((float(loss.detach()), len(labels[0]), agrees.tolist()))
        return loss, agrees

    monkeypatch.setattr(jaguar_kit.Trainer, "loss_of_pooled", watched)
    row = trained_head(tmp_path, epochs=1, micro_batch=5).history[1]
    assert sum(count for _, count, _ in seen) == TRAINED
    assert row["train_loss"] == pytest.approx(sum(loss * count for loss, count, _ in seen) / TRAINED)
    agreeing, paired, hardest, nearest, again = np.sum([agrees for _, _, agrees in seen], axis=0)
    assert row["batch_top1"] == pytest.approx(agreeing / paired)
    assert row["hardest_positive"] == pytest.approx(hardest / paired)
    assert row["hardest_negative"] == pytest.approx(nearest / paired)
    assert math.isnan(row["hardest_met"])
    assert again == 0


@pytest.mark.parametrize(("track", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_tracker_that_is_missing_is_told_and_does_no_harm(track, module, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    tracked = trained_head(tmp_path / "tracked", track=track)
    told = [line for line in capsys.readouterr().out.splitlines() if "note" in line]
    assert told == [f"  note: train.track: {track} is not installed; log.csv has all that it would show"]
    pd.testing.assert_frame_equal(log_of(tracked.history), log_of(trained_head(tmp_path / "not").history))


class Writer:
    """Stands in for tensorboard's."""

    def __init__(self, folder):
        self.folder, self.rows, self.closed = folder, [], False
        Writer.last = self

    def add_scalar(self, key, value, step):
        self.rows.append((key, value, step))

    def close(self):
        self.closed = True


def test_a_tracker_gets_every_row_of_the_log(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    trainer = trained_head(tmp_path, track="tensorboard")
    assert Writer.last.closed
    expected = [(key, value, row["epoch"]) for row in trainer.history[1:] for key, value in row.items()]
    assert Writer.last.rows == expected


# losses that are no numbers


SICK = {"train": {"lr": 1e30}}


@pytest.fixture(scope="module")
def half_failed(mini, tmp_path_factory):
    """A grid of a healthy variant and one that can't learn: what the command said, its exit code, and the result."""
    folder = tmp_path_factory.mktemp("sick")
    path = written(folder, variants={"sick": SICK, "healthy": {}}, train={"epochs": 1})
    with pytest.MonkeyPatch.context() as patch:
        results, run = [], jaguar_kit.run_recipe
        patch.setattr(jaguar_kit, "run_recipe", lambda *a, **k: results.append(run(*a, **k)) or results[-1])
        code = called(path, "--data", mini, "--out", folder / "out")
    return SimpleNamespace(folder=folder / "out", recipe=path, code=code, result=results[0])


def test_a_failed_run_ends_neither_the_others_nor_goes_unnoticed(half_failed):
    assert half_failed.code == 1
    assert list(half_failed.result.failed) == ["sick/seed42"]
    assert list(half_failed.result.table.variant) == ["healthy"]
    assert "sick/seed42 failed: " in half_failed.result.report.with_suffix(".md").read_text()


def test_a_failed_run_tells_epoch_and_step_and_keeps_what_was_good(half_failed, mini):
    place = place_of(half_failed.folder, mini, "sick")
    reason = json.loads((place / "failed.json").read_text())["reason"]
    assert re.search(r"the loss is no longer a number in epoch 1, step 2; lower train\.lr \(now 1e\+30\)", reason)
    assert reason == half_failed.result.failed["sick/seed42"]
    kept = load_file(place / "weights.safetensors")
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert jaguar_kit.load_weights(place)[1]["identities"]
    assert not (place / "metrics.json").exists()


def test_a_failed_run_is_not_run_again_unless_its_settings_change(half_failed, mini, tmp_path, capsys):
    out = Path(shutil.copytree(half_failed.folder, tmp_path / "out"))
    place, before = place_of(out, mini, "sick"), sorted(out.rglob("*"))
    assert called(half_failed.recipe, "--data", mini, "--out", out) == 1
    told = capsys.readouterr().out
    assert "sick/seed42: failed before (" in told
    assert "healthy/seed42: finished before" in told
    assert {p.name for p in place.parent.iterdir()} == {"seed42"}
    assert [p for p in before if not p.exists()] == []
    mended = written(tmp_path, variants={"sick": {}, "healthy": {}}, train={"epochs": 1})
    assert called(mended, "--data", mini, "--out", out) == 0
    aside = place.with_name("seed42.old1")
    assert {p.name for p in aside.iterdir()} == {"failed.json", "recipe.yaml", "weights.safetensors"}
    assert metrics_of(place) == metrics_of(place_of(out, mini, "healthy"))


def test_the_first_loss_that_is_no_number_is_named(tmp_path, monkeypatch):
    forward, left = jaguar_kit.Trainer.loss_of_pooled, []

    def spoiled(*arguments):
        loss, agrees = forward(*arguments)
        return loss * left.pop(), agrees

    monkeypatch.setattr(jaguar_kit.Trainer, "loss_of_pooled", spoiled)
    for epoch, step in ((1, 1), (1, 2), (2, 2)):
        good = 3 * (epoch - 1) + step - 1
        left[:] = [math.nan] * (10 - good) + [1] * good
        with pytest.raises(TrainingFailed, match=rf"heads: .* in epoch {epoch}, step {step};"):
            trained_head(tmp_path / f"{epoch} {step}")


def test_weights_that_give_no_numbers_at_validation_fail_the_run_too(mini, tmp_path):
    with pytest.raises(TrainingFailed, match="epoch 1"):  # a single step, whose loss was still a number
        run_recipe(recipe_of(**jaguar_kit.merge_settings(SICK, {"train": {"batch_size": 64}})), data=mini, out=tmp_path)
    place = place_of(tmp_path, mini)
    assert (place / "failed.json").is_file()
    assert all(torch.isfinite(value).all() for value in load_file(place / "weights.safetensors").values())


# soups


@pytest.fixture(scope="module")
def two_runs(mini, tmp_path_factory):
    """The folders of two runs of one model, and of one of another."""
    out = tmp_path_factory.mktemp("cooked")
    grid = {"seeds": [1, 2], "variants": {"one": {}, "other": {"model": {"head": {"hidden": 8}}}}}
    folder = run_recipe(recipe_of(train={"epochs": 1}, **grid), data=mini, out=out).folder
    return folder / "one" / "seed1", folder / "one" / "seed2", folder / "other" / "seed1"


def test_a_soup_has_the_mean_of_its_weights(two_runs, mini, tmp_path):
    first, second, _ = two_runs
    recipe = recipe_of(checkpoint=str(first), soup=[str(second)], train={"epochs": 0})
    place = run_recipe(recipe, data=mini, out=tmp_path).folder / "default" / "seed42"
    one, two, mean = (load_file(p / "weights.safetensors") for p in (first, second, place))
    for key in mean:
        expected = (one[key].double() + two[key].double()) / 2 if one[key].is_floating_point() else one[key]
        torch.testing.assert_close(mean[key].double(), expected.double(), msg=key)
    kept = np.load(place / "validation.npz")
    similarity = jaguar_kit.similarity_matrix(kept["embeddings"])
    assert jaguar_kit.identity_balanced_map(similarity, kept["labels"]) == pytest.approx(metrics_of(place)["map"])


def test_a_soup_of_three_weighs_all_alike(two_runs):
    first, second, _ = two_runs
    mean, _ = jaguar_kit.average_weights([str(first), str(second), str(second)])
    one, two = (load_file(p / "weights.safetensors") for p in (first, second))
    key = "embedder.head.0.weight"
    torch.testing.assert_close(mean[key], (one[key] + 2 * two[key]) / 3)


def test_a_soup_of_two_models_is_refused(two_runs, mini, tmp_path):
    first, _, other = two_runs
    recipe = recipe_of(checkpoint=str(first), soup=[str(other)], train={"epochs": 0})
    with pytest.raises(KitError, match=r"^soup: .*other.seed1: weights of another model than .*one.seed1"):
        run_recipe(recipe, data=mini, out=tmp_path)
    assert not place_of(tmp_path, mini).exists()


# what ends without an interruption, to compare with


MODES = {
    "short": {},
    "frozen": {"model": {"freeze": True}, "train": {"epochs": 120, "patience": 0}},
    "whole": {
        **AUGMENTED,
        "train": {"epochs": 8, "patience": 0, "batch_size": 4, "checkpoint_minutes": 0.0005, "schedule": "onecycle"},
    },
    "grid": {
        "variants": {"slow": {}, "fast": {"train": {"lr": 4e-3}}},
        "seeds": [1, 2],
        "train": {"epochs": 30, "patience": 0},
    },
}


def cells_of(mode: str) -> list[tuple[str, int]]:
    changes = MODES[mode]
    return [(v, s) for v in changes.get("variants", {"default": {}}) for s in changes.get("seeds", [42])]


@pytest.fixture(scope="module")
def uninterrupted(mini, tmp_path_factory):
    """uninterrupted(mode) -> its recipe, results and the seconds that training took, run one after the other."""

    @functools.cache
    def run(mode: str):
        folder = tmp_path_factory.mktemp(mode)
        recipe = written(folder, **MODES[mode])
        assert called(recipe, "--data", mini, "--out", folder / "out") == 0
        places = [place_of(folder / "out", mini, *cell) for cell in cells_of(mode)]
        training = [json.loads((place / "metrics.json").read_text())["seconds"] for place in places]
        return SimpleNamespace(recipe=recipe, out=folder / "out", training=sum(training))

    return run


def assert_same_results(mode: str, out: Path, expected: Path, mini: Path):
    for cell in cells_of(mode):
        assert_same_run(place_of(out, mini, *cell), place_of(expected, mini, *cell))
    one, other = (pd.read_csv(folder / f"tiny@{mini.name}" / "results.csv") for folder in (out, expected))
    timed = [column for column in one.columns if "second" in column]
    pd.testing.assert_frame_equal(one.drop(columns=timed), other.drop(columns=timed), check_exact=True)


# interruptions within this process


def often(monkeypatch) -> None:
    """Checkpoints after every step and every epoch."""
    monkeypatch.setattr(jaguar_kit.Checkpointer, "after_step", jaguar_kit.Checkpointer.keep)
    monkeypatch.setattr(jaguar_kit.Checkpointer, "after_epoch", jaguar_kit.Checkpointer.keep)


def stopped_before_step(number: int, folder: Path, monkeypatch, **settings) -> None:
    """A run of the head that is interrupted before this step, and leaves a checkpoint of the one before."""
    step, calls = jaguar_kit.Trainer.optimizer_step, []

    def limited(trainer, *more):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return step(trainer, *more)

    with monkeypatch.context() as patch:
        often(patch)
        patch.setattr(jaguar_kit.Trainer, "optimizer_step", limited)
        with pytest.raises(KeyboardInterrupt):
            trained_head(folder, **settings)


SCHEDULES = jaguar_kit.registered("schedule")
GOES_ON = [
    *({"schedule": one, "optimizer": other} for one, other in zip(SCHEDULES, itertools.cycle(OPTIMIZERS))),
    {"ema": 0.7, "batch_size": 8, "accumulate": 2},
    {"stages": [{"epochs": 1}, {"epochs": 2}], "sampler": {"name": "pk", "identities": 2, "images": 4}},
]


@pytest.mark.parametrize("settings", GOES_ON, ids=str)
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(settings, tmp_path, monkeypatch):
    whole = trained_head(tmp_path / "whole", **settings)
    stopped_before_step(5, tmp_path / "stopped", monkeypatch, **settings)
    resumed = trained_head(tmp_path / "stopped", seed=7, **settings)  # other weights, which the checkpoint replaces
    pd.testing.assert_frame_equal(log_of(resumed.history), log_of(whole.history), check_exact=True)
    assert_same_tensors(resumed.best, whole.best)
    assert_same_tensors(resumed.live(), whole.live())


def test_a_checkpoint_holds_an_epoch_that_is_not_over(tmp_path, monkeypatch, capsys):
    stopped_before_step(5, tmp_path, monkeypatch)
    later = head_run()
    later.load(tmp_path / "checkpoint.safetensors")
    assert [row["epoch"] for row in later.history] == [0, 1]
    assert (later.epoch_so_far["epoch"], later.epoch_so_far["step"]) == (2, 1)
    trained_head(tmp_path)
    assert f"going on after epoch 1 from {tmp_path}" in capsys.readouterr().out


def told_to_end(monkeypatch, function: str, number: int) -> None:
    """Sends this process a SIGTERM at the `number`-th call of one of the trainer's methods."""
    original, calls = getattr(jaguar_kit.Trainer, function), []

    def watched(*arguments):
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(jaguar_kit.Trainer, function, watched)


@pytest.mark.parametrize(
    ("function", "number"), [("optimizer_step", 2), ("validate", 3)], ids=["in a step", "in a validation"]
)
def test_a_sigterm_keeps_a_checkpoint_and_the_same_command_goes_on(
    function, number, uninterrupted, mini, tmp_path, monkeypatch, capsys
):
    whole, earlier = uninterrupted("short"), signal.getsignal(signal.SIGTERM)
    line = [whole.recipe, "--data", mini, "--out", tmp_path / "told"]
    with monkeypatch.context() as patch:
        told_to_end(patch, function, number)
        capsys.readouterr()
        code = called(*line)
    assert code == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on where it stopped\n"
    assert signal.getsignal(signal.SIGTERM) == earlier
    place = place_of(tmp_path / "told", mini)
    assert (place / "checkpoint.safetensors").is_file()
    assert not (place / "metrics.json").exists()
    assert called(*line) == 0
    assert "going on after epoch" in capsys.readouterr().out
    assert_same_results("short", tmp_path / "told", whole.out, mini)


def test_a_full_disk_at_a_checkpoint_leaves_the_earlier_one(uninterrupted, mini, tmp_path, monkeypatch, capsys):
    whole = uninterrupted("short")
    line = [whole.recipe, "--data", mini, "--out", tmp_path / "full"]
    place, save, calls = place_of(tmp_path / "full", mini), jaguar_kit.save_file, []
    with monkeypatch.context() as patch:
        often(patch)

        def full(tensors, path, *metadata):
            calls.append(str(path))
            if len(calls) == 2:
                Path(path).write_bytes(b"begun")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            save(tensors, path, *metadata)

        patch.setattr(jaguar_kit, "save_file", full)
        capsys.readouterr()
        assert called(*line) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(r"error: .*checkpoint\.safetensors: can't be written: No space left on device", told)
    assert all("checkpoint.safetensors" in call for call in calls)
    assert {p.name for p in place.iterdir()} == {"recipe.yaml", "checkpoint.safetensors"}
    jaguar_kit.load_safetensors(place / "checkpoint.safetensors")
    assert called(*line) == 0
    assert_same_results("short", tmp_path / "full", whole.out, mini)


def test_an_epoch_that_time_cut_short_goes_on_where_it_stopped(tmp_path, monkeypatch):
    whole, calls = trained_head(tmp_path / "whole"), []

    def late_at_the_fifth(keeper):
        calls.append(1)
        stop = keeper.save_or_stop(False, late=len(calls) == 5)
        keeper.saving = 0.0  # so that checkpoints are always due
        return stop

    with monkeypatch.context() as patch:
        patch.setattr(jaguar_kit.Checkpointer, "after_step", late_at_the_fifth)
        assert trained_head(tmp_path / "cut").stopped == "max_hours"
    resumed = trained_head(tmp_path / "cut", seed=7)
    pd.testing.assert_frame_equal(log_of(resumed.history), log_of(whole.history), check_exact=True)
    assert_same_tensors(resumed.best, whole.best)


# time


def test_a_run_whose_time_is_over_still_leaves_a_result(mini, tmp_path):
    recipe = recipe_of(train={"max_hours": 1e-6, "epochs": 50})
    place = run_recipe(recipe, data=mini, out=tmp_path).folder / "default" / "seed42"
    told = metrics_of(place)
    assert told["stopped"] == "max_hours"
    assert told["epochs"] <= 1
    assert (place / "weights.safetensors").is_file()
    assert jaguar_kit.validate_submission(place / "submission.csv", mini / "test.csv")["rows"] > 0


def test_a_run_ends_before_its_time_is_over(mini, tmp_path):
    begun = time.monotonic()
    recipe = recipe_of(train={"max_hours": 1.5 / 3600, "epochs": 100000, "patience": 0})
    place = run_recipe(recipe, data=mini, out=tmp_path).folder / "default" / "seed42"
    assert time.monotonic() - begun < 5  # the report comes on top
    told, log = metrics_of(place), pd.read_csv(place / "log.csv")
    assert told["stopped"] == "max_hours"
    assert 1 <= told["epochs"] == len(log) - 1
    assert told["best_epoch"] == log["map"][1:].idxmax()


def test_a_run_without_a_limit_is_not_called_stopped(logged):
    assert "stopped" not in metrics_of(logged)


def test_runs_that_time_does_not_suffice_for_are_told_and_done_by_the_next_command(mini, tmp_path, monkeypatch, capsys):
    path, run_cell = written(tmp_path, seeds=[1, 2, 3], train={"epochs": 1}), jaguar_kit.execute_run

    def slow(cell, images, place, device, deadline):
        run_cell(cell, images, place, device, deadline)
        time.sleep(max(0, deadline - time.monotonic()))

    arguments = [path, "--data", mini, "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr(jaguar_kit, "execute_run", slow)
        assert called(*arguments, "-o", f"train.max_hours={1 / 3600}") == 0
    assert "train.max_hours is over: 2 runs were not begun" in capsys.readouterr().out
    report = tmp_path / "out" / f"tiny@{mini.name}" / "report.md"
    assert "2 of 3 runs are not there yet" in report.read_text()
    assert called(*arguments) == 0
    told = capsys.readouterr().out
    assert "default/seed1: finished before" in told
    assert "not there yet" not in report.read_text()
    table = pd.read_csv(report.with_name("results.csv"))
    assert list(table.seed) == [1, 2, 3]


def test_folds_that_time_does_not_suffice_for_are_left_out_and_made_by_the_next_command(
    mini, tmp_path, monkeypatch, capsys
):
    path = written(tmp_path, data={"split": {"name": "kfold", "folds": 3}}, train={"epochs": 2})
    line, place = [path, "--data", mini, "--out", tmp_path / "out"], place_of(tmp_path / "out", mini)
    train_fold, clock = jaguar_kit.run_split, time.monotonic
    with monkeypatch.context() as patch:

        def last(*arguments):
            train_fold(*arguments)
            patch.setattr(time, "monotonic", lambda: clock() + 7200)

        patch.setattr(jaguar_kit, "run_split", last)
        assert called(*line, "-o", "train.max_hours=1") == 0
    told, first = metrics_of(place), metrics_of(place / "fold0")
    assert "train.max_hours is over: 2 of 3 folds are left for later" in capsys.readouterr().out
    assert [path.name for path in sorted(place.glob("fold*"))] == ["fold0"]
    assert (told["stopped"], told["map"]) == ("max_hours", first["map"])
    assert "stopped" not in first
    before = (place / "submission.csv").read_bytes()
    assert before == (place / "fold0" / "submission.csv").read_bytes()
    assert called(*line) == 0
    told, folds = metrics_of(place), [metrics_of(place / f"fold{number}") for number in range(3)]
    assert "stopped" not in told
    assert folds[0] == first
    assert [fold["epochs"] for fold in folds] == [2, 2, 2]
    assert told["map"] == pytest.approx(np.mean([fold["map"] for fold in folds]))
    assert (place / "submission.csv").read_bytes() != before


def test_a_recipe_in_which_nothing_learns_is_refused_in_one_line(mini, tmp_path, capsys):
    path = written(tmp_path, model={"freeze": True, "head": "none"}, loss="triplet")
    line = [path, "--data", mini, "--out", tmp_path / "out"]
    assert called(*line) == 2
    told = capsys.readouterr().err
    assert told == ("error: train.epochs: nothing learns (expected train.epochs: 0, a head, or model.freeze: false)\n")
    assert not (tmp_path / "out").exists()
    assert called(*line, "-o", "train.epochs=0") == 0


# processes of their own


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["jaguar_kit"])  # imported once for all of them


def run_tool(arguments, output: str, settings, fresh: bool) -> None:
    """Becomes the command `tools/run_recipe.py`, in a process group of its own; `fresh`: in a fresh interpreter."""
    os.setsid()
    os.environ.update({"OMP_NUM_THREADS": "1", **settings})
    said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if fresh:
        os.execv(sys.executable, [sys.executable, TOOL, *arguments])
    torch.set_num_threads(1)
    sys.argv = [TOOL, *arguments]
    runpy.run_path(TOOL, run_name="__main__")


def started(arguments, output: Path, fresh: bool = False, **settings):
    """A process of the command, whose output is added to a file."""
    settings[jaguar_kit.CACHE_VARIABLE] = os.environ[jaguar_kit.CACHE_VARIABLE]
    arguments = [str(argument) for argument in arguments]
    process = CONTEXT.Process(target=run_tool, args=(arguments, str(output), settings, fresh))
    process.start()
    return process


def ended(process, limit: float = 120) -> int:
    """The exit code of a process once it is over."""
    process.join(limit)
    if process.exitcode is None:
        kill_group(process)
        raise AssertionError(f"still at work after {limit} s")
    return process.exitcode


def kill_group(process) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet, or nothing is left of it
        process.kill()
    process.join()


def there(folder, name):
    """Whether a file of that name lies below the folder, in which others are at work."""
    with suppress(FileNotFoundError):
        return any(folder.rglob(name))
    return False


def wait_for(condition, process=None, limit: float = 120) -> bool:
    """Waits until the condition holds; False where the process ends, or time is over, before that."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline or (process is not None and process.exitcode is not None):
            return bool(condition())
        time.sleep(0.005)
    return True


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")

SHARED = {
    "model": {**LEARNING, "backbone": "test_vit", "head": {"name": "linear", "output": 16}},
    "train": {"epochs": 8, "patience": 0, "batch_size": 15, "lr": 2e-4},
}


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def kill_while_training(line, out: Path, seconds: float, mode: str, mini: Path, fresh: bool = False) -> None:
    """Starts the command and kills it at a random moment of training: earlier when it was over before."""
    done, said = [place_of(out, mini, *cell) / "metrics.json" for cell in cells_of(mode)], out.with_suffix(".txt")

    def begun() -> int:
        return len(re.findall(r"\(\d+ of \d+\)$", text_of(said), re.MULTILINE))

    for attempt in range(1, 9):
        if all(path.exists() for path in done):
            shutil.rmtree(out)
        before = begun()
        process = started([*line, "--out", out], said, fresh)
        assert wait_for(lambda before=before: begun() > before, process), text_of(said)
        time.sleep(random.uniform(0, seconds / attempt))
        kill_group(process)
        if process.exitcode == -signal.SIGKILL and not all(path.exists() for path in done):
            return
    raise AssertionError("the run always ended before it was killed")


@pytest.mark.ci
def test_a_killed_run_ends_as_if_nothing_had_been(uninterrupted, mini, tmp_path):
    whole, out = uninterrupted("whole"), tmp_path / "out"
    line = [whole.recipe, "--data", mini, "--out", out]
    process = started(line, tmp_path / "said.txt")
    assert wait_for((place_of(out, mini) / "checkpoint.safetensors").exists, process), text_of(tmp_path / "said.txt")
    kill_group(process)
    assert process.exitcode == -signal.SIGKILL
    assert called(*line) == 0
    assert_same_results("whole", out, whole.out, mini)


@pytest.fixture(scope="module")
def killed_grid(uninterrupted, mini, tmp_path_factory):
    """A grid, two runs at a time, that was killed without its workers when its first run was over, then completed."""
    whole, out = uninterrupted("grid"), tmp_path_factory.mktemp("killed") / "out"
    line, said = [whole.recipe, "--data", mini, "--out", out], out.with_suffix(".txt")
    process = started([*line, "--jobs", 2], said)
    marks = [place_of(out, mini, *cell) / "metrics.json" for cell in cells_of("grid")]
    assert wait_for(lambda: any(mark.exists() for mark in marks), process), text_of(said)
    workers = children_of(process.pid)
    process.kill()
    process.join()
    wait_for(lambda: not any(map(alive, workers)), limit=5)
    left = [pid for pid in workers if alive(pid)]
    kill_group(process)
    ready = [cell for cell in cells_of("grid") if (place_of(out, mini, *cell) / "metrics.json").exists()]
    with pytest.MonkeyPatch.context() as patch:
        again = []
        patch.setattr(jaguar_kit, "echo", again.append)
        code = called(*line)
    return SimpleNamespace(out=out, whole=whole, workers=workers, left=left, ready=ready, code=code, again=again)


@pytest.mark.slow
def test_a_killed_grid_side_by_side_ends_as_one_after_the_other_does(killed_grid, mini):
    assert killed_grid.code == 0, killed_grid.again
    assert 0 < len(killed_grid.ready) < len(cells_of("grid"))
    assert sum("finished before" in line for line in killed_grid.again) == len(killed_grid.ready)
    assert_same_results("grid", killed_grid.out, killed_grid.whole.out, mini)


@needs_proc
@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(killed_grid):
    assert len(killed_grid.workers) >= 2
    assert killed_grid.left == []  # they would hold memory for ever, and their runs' locks


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "kills"), [("frozen", 7), ("whole", 7), ("grid", 6)])
def test_runs_that_are_killed_again_and_again_end_as_if_nothing_had_been(mode, kills, uninterrupted, mini, tmp_path):
    whole, out = uninterrupted(mode), tmp_path / "out"
    line = [whole.recipe, "--data", mini, *(["--jobs", "2"] if mode == "grid" else [])]
    for _ in range(kills):
        kill_while_training(line, out, whole.training / 2, mode, mini, fresh=True)
    assert ended(started([*line, "--out", out], tmp_path / "out.txt", fresh=True)) == 0
    assert_same_results(mode, out, whole.out, mini)


@pytest.mark.slow
def test_a_sigterm_to_the_real_command_ends_with_130(uninterrupted, mini, tmp_path):
    whole, out = uninterrupted("whole"), tmp_path / "out"
    line, place = [whole.recipe, "--data", mini, "--out", out], place_of(out, mini)
    process = started(line, tmp_path / "out.txt", fresh=True)
    assert wait_for((place / "log.csv").exists, process)
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process) == 130
    assert "interrupted; the same command goes on where it stopped" in text_of(tmp_path / "out.txt")
    assert (place / "checkpoint.safetensors").is_file()
    assert ended(started(line, tmp_path / "out.txt", fresh=True)) == 0
    assert_same_results("whole", out, whole.out, mini)


@pytest.mark.slow
def test_runs_side_by_side_share_the_time(mini, tmp_path):
    settings = {"train": {"epochs": 100000, "patience": 0, "max_hours": 15 / 3600}, "seeds": [1, 2, 3, 4]}
    line = [written(tmp_path, **settings), "--data", mini, "--out", tmp_path, "--jobs", 2]
    assert ended(started(line, tmp_path / "said.txt", fresh=True)) == 0
    spent = [json.loads(path.read_text())["seconds"] for path in tmp_path.rglob("metrics.json")]
    assert 0 < sum(spent) < 2 * 15


@needs_proc
@pytest.mark.slow
def test_a_worker_that_dies_is_told_in_one_line_and_spoils_no_other_run(uninterrupted, mini, tmp_path):
    whole, out, said = uninterrupted("grid"), tmp_path / "out", tmp_path / "said.txt"
    line = [whole.recipe, "--data", mini, "--out", out, "--jobs", 2]
    process = started(line, said, fresh=True)
    assert wait_for(lambda: "(2 of 4)" in text_of(said), process)
    workers = [pid for pid in children_of(process.pid) if b"loky" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(random.choice(workers), signal.SIGKILL)
    assert ended(process) == 2, text_of(said)
    assert "Traceback" not in text_of(said)
    assert len([line for line in text_of(said).splitlines() if line.startswith("error: ")]) == 1
    assert ended(started(line, said, fresh=True)) == 0
    assert_same_results("grid", out, whole.out, mini)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("several", [["--jobs", 2], ["--gpus", 2]], ids=["jobs", "gpus"])
def test_a_sigterm_to_the_first_of_several_processes_ends_all_of_them(several, mini, tmp_path):
    settings = SHARED if "--gpus" in several else MODES["grid"]
    path = written(tmp_path, **jaguar_kit.merge_settings(settings, {"train": {"epochs": 4000, "patience": 0}}))
    line = [path, "--data", mini, "--device", "cpu", "--out", tmp_path / "out", *several]
    process = started(line, tmp_path / "said.txt", fresh=True)
    assert wait_for(lambda: there(tmp_path / "out", "checkpoint.safetensors"), process)
    others = children_of(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    code = ended(process)
    wait_for(lambda: not any(map(alive, others)), limit=15)
    left = [pid for pid in others if alive(pid)]
    kill_group(process)
    assert left == []
    assert code == 130
    assert "interrupted; the same command goes on where it stopped" in text_of(tmp_path / "said.txt")


# several processes at one batch


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ranks(port: int, count: int = 2) -> list[dict[str, str]]:
    """The settings by which torchrun tells each process its place."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def test_gpus_that_are_there_are_all_used_and_more_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    recipe = recipe_of(model=LEARNING)
    processes = partial(jaguar_kit.processes_for, recipe, jaguar_kit.expand(recipe), torch.device("cuda"))
    assert processes(None) == processes(2) == 2
    with pytest.raises(KitError, match=r"^--gpus: 3 processes, but torch sees 2 GPUs \(expected 2\)$"):
        processes(3)


def rows_and_layers():
    """Seven rows, the layer that each process takes its part through, the one behind, and labels."""
    torch.manual_seed(3)
    return torch.randn(7, 5), nn.Linear(5, 4), nn.Linear(4, 4), torch.tensor([0, 1, 0, 1, 2, 2, 0])


def loss_of_all(embeddings, labels):
    """A loss in which every row depends on every other; of a single row its length."""
    if len(embeddings) == 1:
        return embeddings.square().sum()
    return jaguar_kit.build("loss", "supcon", embedding_dim=4, num_identities=3)(embeddings, labels)


def gathered(settings, folder: str) -> None:
    """What one of two processes gets: rows and gradients, for batches of seven rows and of one."""
    os.environ.update(settings)
    torch.set_num_threads(1)
    with jaguar_kit.distributed("cpu"):
        number = jaguar_kit.rank()
        told = {"agreed": torch.tensor(jaguar_kit.any_rank(number == 1, False, number == 0))}
        for count in (7, 1):
            rows, layer, behind, labels = rows_and_layers()
            inputs = rows[torch.from_numpy(jaguar_kit.shard(np.arange(count)))].requires_grad_()
            whole = jaguar_kit.gather_rows(layer(inputs), count)
            with jaguar_kit.adding_gradients(layer.parameters(), count):
                loss_of_all(behind(whole), labels[:count]).backward()
            told[f"rows{count}"], told[f"layer{count}"] = whole.detach(), layer.weight.grad
            told[f"behind{count}"] = behind.weight.grad
            told[f"inputs{count}"] = torch.zeros_like(inputs) if inputs.grad is None else inputs.grad
        torch.save(told, Path(folder) / f"{number}.pt")


@pytest.fixture(scope="module")
def two_parts(tmp_path_factory):
    """What each of two processes got."""
    folder = tmp_path_factory.mktemp("gathered")
    processes = [CONTEXT.Process(target=gathered, args=(rank, str(folder))) for rank in ranks(free_port())]
    for process in processes:
        process.start()
    assert [ended(process) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("count", [7, 1], ids=["more rows than processes", "fewer"])
def test_gathered_rows_and_their_gradients_are_those_of_one_process(count, two_parts):
    rows, layer, behind, labels = rows_and_layers()
    inputs = rows[:count].clone().requires_grad_()
    whole = layer(inputs)
    loss_of_all(behind(whole), labels[:count]).backward()
    for part in two_parts:
        torch.testing.assert_close(part[f"rows{count}"], whole.detach())
        torch.testing.assert_close(part[f"layer{count}"], layer.weight.grad)
        torch.testing.assert_close(part[f"behind{count}"], behind.weight.grad)  # every process computes all of it
    if count == 7:
        torch.testing.assert_close(torch.cat([part["inputs7"] for part in two_parts]), inputs.grad)


def test_processes_agree_when_any_says_so(two_parts):
    assert [part["agreed"].tolist() for part in two_parts] == [[True, False, True]] * 2


def shared_by_two(line, folder: Path) -> list[str]:
    """What each of two processes said, started as torchrun does."""
    both = [started(line, folder / f"{number}.txt", **rank) for number, rank in enumerate(ranks(free_port()))]
    assert [ended(process) for process in both] == [0, 0], text_of(folder / "0.txt")
    return [text_of(folder / f"{number}.txt") for number in range(2)]


@pytest.fixture(scope="module")
def shared(mini, tmp_path_factory):
    """A run in two processes, of which one was killed after its first checkpoint, and how two others ended it."""
    folder = tmp_path_factory.mktemp("shared")
    line = [written(folder, **SHARED), "--data", mini, "--device", "cpu", "--out", folder / "two"]
    place, said = place_of(folder / "two", mini), folder / "said.txt"
    process = started([*line, "--gpus", 2], said)
    assert wait_for((place / "checkpoint.safetensors").exists, process), text_of(said)
    both = children_of(process.pid)
    os.kill(random.choice(both), signal.SIGKILL)
    code = ended(process)
    left, finished = [pid for pid in both if alive(pid)], (place / "metrics.json").exists()
    again = shared_by_two(line, folder)
    return SimpleNamespace(
        recipe=line[0], both=both, code=code, said=text_of(said), left=left, finished=finished, place=place, again=again
    )


@needs_proc
@pytest.mark.slow
def test_a_process_that_dies_ends_all_and_the_same_command_completes(shared):
    assert len(shared.both) == 2
    assert shared.code == 2, shared.said
    errors = [line for line in shared.said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "the same command goes on from the last checkpoint" in errors[0]
    assert shared.left == []
    assert not shared.finished
    assert "going on after epoch" in shared.again[0]
    assert list(log_of(shared.place).epoch) == list(range(9))
    assert metrics_of(shared.place)["epochs"] == 8


@needs_proc
@pytest.mark.slow
def test_two_processes_give_the_metrics_of_one_and_the_first_alone_speaks(shared, mini, tmp_path):
    assert called(shared.recipe, "--data", mini, "--device", "cpu", "--out", tmp_path) == 0
    assert [line for line in shared.again[1].splitlines() if not line.startswith("[Gloo]")] == []
    one, two = place_of(tmp_path, mini), shared.place
    assert {p.name for p in one.iterdir()} == {p.name for p in two.iterdir()}
    assert metrics_of(two)["map"] == pytest.approx(metrics_of(one)["map"], abs=1e-6)
    log, expected = log_of(two), log_of(one)
    np.testing.assert_allclose(log["map"], expected["map"], atol=1e-6)
    np.testing.assert_allclose(log[["train_loss", "val_loss"]], expected[["train_loss", "val_loss"]], atol=1e-2)
    np.testing.assert_allclose(log.batch_top1, expected.batch_top1, atol=0.03)  # one image, with two all but as near


PAIRS = {  # pairs of which each process, and each part, sees some alone; no batch norm, which would see parts
    "model": {"backbone": "test_vit", "freeze": False, "head": {"name": "linear", "output": 8}},
    "loss": {"name": "triplet", "margin": 0.3},
    "train": {"epochs": 2, "sampler": {"name": "pk", "identities": 4, "images": 3}, "schedule": "none", "lr": 1e-3},
}


@pytest.mark.ci
def test_two_processes_with_batches_in_parts_have_the_loss_of_one_with_whole_batches(mini, tmp_path):
    line = ["--data", mini, "--device", "cpu", "--out"]
    assert called(written(tmp_path / "whole", **PAIRS), *line, tmp_path / "one") == 0
    path = written(tmp_path / "parts", **jaguar_kit.merge_settings(PAIRS, {"train": {"micro_batch": 2}}))
    shared_by_two([path, *line, tmp_path / "two"], tmp_path)
    one, two = (log_of(place_of(tmp_path / name, mini)) for name in ("one", "two"))
    np.testing.assert_allclose(two.train_loss[1:], one.train_loss[1:], rtol=1e-5)
    np.testing.assert_allclose(two.grad_norm[1:], one.grad_norm[1:], rtol=1e-3)


AVERAGED = {  # batch norm, of which each process sees other images
    "model": {**LEARNING, "head": {"name": "linear", "output": 8}},
    "train": {"epochs": 2, "ema": 0.8, "patience": 0},
}


def run_unreported(settings, recipe: str, data: Path, out: Path) -> None:
    """A process of several that make a run, without its report."""
    os.environ.update(settings)
    torch.set_num_threads(1)
    jaguar_kit.rooms_for = lambda _: False
    jaguar_kit.run_recipe(recipe, data, out, "cpu")


@pytest.mark.slow
def test_weights_that_two_processes_averaged_have_the_map_that_is_told(mini, tmp_path):
    cache = {jaguar_kit.CACHE_VARIABLE: os.environ[jaguar_kit.CACHE_VARIABLE]}
    job = (written(tmp_path / "learned", **AVERAGED), mini, tmp_path / "two")
    both = [CONTEXT.Process(target=run_unreported, args=({**cache, **rank}, *job)) for rank in ranks(free_port())]
    for process in both:
        process.start()
    assert [ended(process) for process in both] == [0, 0]
    place = place_of(tmp_path / "two", mini)
    again = jaguar_kit.merge_settings(AVERAGED, {"checkpoint": str(place), "train": {"epochs": 0}})
    run_recipe(recipe_of(**again), data=mini, out=tmp_path / "one", device="cpu")
    told, found = metrics_of(place), metrics_of(place_of(tmp_path / "one", mini))
    assert told["map"] != pytest.approx(told["untrained"]["map"], abs=1e-3)
    for metric in ("map", "retrieval_map", "pair_auc", "test_map"):
        assert found[metric] == pytest.approx(told[metric], abs=1e-6), metric


def test_the_log_tells_where_embeddings_lie_in_the_ball():
    geometry = jaguar_kit.build("geometry", "poincare", curvature=4.0, radius=0.4)
    trainer = SimpleNamespace(embedder=SimpleNamespace(geometry=geometry))
    told = jaguar_kit.Trainer.where_embeddings_lie(trainer, torch.tensor([[0.3, 0.0], [0.0, -0.1]]))
    assert told == pytest.approx({"embedding_norm": 0.2, "distance_to_rim": 0.2})


def test_the_log_tells_only_lengths_of_embeddings_in_other_spaces():
    trainer = SimpleNamespace(embedder=SimpleNamespace(geometry=jaguar_kit.build("geometry", "cosine")))
    where = partial(jaguar_kit.Trainer.where_embeddings_lie, trainer)
    assert where(torch.tensor([[3.0, 4.0]])) == {"embedding_norm": 5.0}
    assert math.isnan(where(torch.zeros(0, 2))["embedding_norm"])
