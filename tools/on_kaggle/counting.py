"""What a recipe asks of a Kaggle session, by counting: memory of a GPU, floating-point operations, bytes it leaves.

Nothing is measured on a GPU: networks are built without memory, one batch goes through them in shapes alone, and what
would be saved for the backward pass is added up. `least` of a number is what no machine can do with less, the number
itself an estimate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaguar_kit import (
    KAGGLE_HOURS,
    REGISTRY,
    KitError,
    Recipe,
    RunSpec,
    build_embedder,
    create_backbone,
    expand,
    native_size,
    one_line,
    recipe_from_dict,
    recipe_to_dict,
    settings_of,
    stages_of,
)
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..experiments.parts import deal, part_of
from ..experiments.runs import KAGGLE_OUTPUT, features_key
from ..experiments.search import search_baseline


@dataclass(frozen=True)
class Machine:
    """A Kaggle accelerator."""

    name: str
    gpus: int
    memory: float  # bytes of a GPU that are free for tensors
    half: float  # FLOP/s of a GPU in fp16, by its data sheet
    single: float  # the same in fp32


GIB = 2**30
MACHINES = {"NvidiaTeslaT4": Machine("T4 x2", 2, 15 * GIB, 65e12, 8.1e12)}  # by machine_shape
REACHED = 0.3  # share of the data sheet's FLOP/s that training reaches, for an estimate
OVERHEAD = 0.6 * GIB  # of CUDA's context and the libraries' work space, for an estimate
SESSION_HOURS = 12.0
SAVED = 20e9  # bytes of output that Kaggle saves
IMAGES = {"jaguar-re-id": (1895, 371, 31), "animal-clef-2025": (13074, 2135, 1102)}  # training, test, identities
IMAGES["round-2-jaguar-reidentification-challenge"] = IMAGES["jaguar-re-id"]
BYTES_OF_ROW = 26  # of a submission


@dataclass(frozen=True)
class Sizes:
    """Of the data: training images, test images, identities."""

    train: int
    test: int
    identities: int


@dataclass(frozen=True)
class Network:
    """What one batch of a recipe's network takes."""

    parameters: int  # elements, of backbone, head and loss
    learning: int  # those that have gradients
    kept: int  # elements of a weights file
    saved: int  # bytes that the forward pass of the batch keeps for the backward pass
    flops: float  # of the forward pass of one image


@dataclass(frozen=True)
class Memory:
    """Bytes of a GPU that training takes."""

    parameters: float
    gradients: float
    optimizer: float
    average: float
    activations: float
    batch: int  # images that go through the backbone at a time
    divisible: bool  # whether fewer images are taken at a time where these do not fit

    @property
    def least(self) -> float:
        """Gradients come as activations go, so that the larger of both must fit at least."""
        return self.parameters + self.optimizer + self.average + max(self.gradients, self.activations)

    @property
    def bytes(self) -> float:
        parts = self.parameters + self.gradients + self.optimizer + self.average + self.activations
        return parts + OVERHEAD


@dataclass(frozen=True)
class Cost:
    """What a run takes."""

    least_hours: float  # at the data sheet's full speed, with the earliest stop
    hours: float  # estimated, with all its epochs
    left: float  # bytes of its folder
    weights: float  # bytes of its weights file


def drawn(recipe: Recipe) -> bool:
    """Whether training images are new in every epoch."""
    part = REGISTRY[("background", recipe.background.name)]
    return bool(recipe.augment) or recipe.train.mixes or getattr(part, "drawn", False)


def processes_on(recipe: Recipe, machine: Machine, search: bool) -> int:
    """How many processes share a batch there, as `jaguar_kit.processes_for` has it."""
    return 1 if search or recipe.train.mixes or recipe.model.freeze else machine.gpus


def images_of_a_batch(recipe: Recipe, sizes: Sizes) -> int:
    """Of the largest batch that the recipe's sampler makes of such data."""
    rows = np.arange(round(sizes.train * (1 - share_that_validates(recipe)[0])))
    batches = recipe.train.sampler(rows, rows % sizes.identities, recipe.train.batch_size, np.random.default_rng(0))
    return max(map(len, batches))


def half_precision(recipe: Recipe) -> bool:
    return recipe.train.precision != "fp32"


# a network in shapes alone


class EfficientAttention(TorchFunctionMode):
    """Attention as a GPU computes it, by the kernel that keeps no matrix of all pairs."""

    def __torch_function__(
        self, function: Callable, types: Any, args: Sequence = (), kwargs: dict | None = None
    ) -> Any:
        if function is not nn.functional.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, args)), **(kwargs or {})}
        query, key, value, mask = (given.get(name) for name in names[:4])
        if torch.is_autocast_enabled("cuda"):
            query, key, value = (part.to(torch.float16) for part in (query, key, value))
        if mask is not None:
            mask = mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
        dropout, causal = given.get("dropout_p", 0.0), given.get("is_causal", False)
        operation = torch.ops.aten._scaled_dot_product_efficient_attention
        return operation(query, key, value, mask, True, dropout, causal)[0]


@contextmanager
def in_fp16(enabled: bool) -> Iterator[None]:
    """Autocast as on a GPU, which torch.autocast refuses to a machine that has none."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", enabled)
    torch.set_autocast_dtype("cuda", torch.float16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()


def network_of(recipe: Recipe, images: int, half: bool, identities: int) -> Network:
    """The recipe's network, and what a batch of so many images takes in it; KitError where that can't be counted."""
    parts = {key: recipe_to_dict(recipe)[key] for key in ("model", "loss")}
    return counted(json.dumps({"name": "counted", **parts}), images, half, identities)


@lru_cache(maxsize=64)
def counted(recipe: str, images: int, half: bool, identities: int) -> Network:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    read = recipe_from_dict(json.loads(recipe))
    model = replace(read.model, pretrained=False)
    try:
        with torch.device("meta"):
            backbone = create_backbone(model.backbone, model.input_size, classifier=model.pooling.name == "logits")
            embedder = build_embedder(model, backbone)
            counts = [2] * identities
            known = {"embedding_dim": embedder.embedding_dim, "num_identities": identities, "counts": counts}
            loss = read.loss.build(**known, geometry=embedder.geometry)
        modules, side = (embedder, loss), model.input_size or native_size(backbone)
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            kept.setdefault(tensor.untyped_storage()._cdata, tensor)
            return tensor

        counter = FlopCounterMode(display=False)
        with FakeTensorMode(allow_non_fake_inputs=True):
            for module in modules:
                module.to_empty(device="cuda")
            embedder.train()
            own = {p.untyped_storage()._cdata for module in modules for p in module.parameters()}
            batch = torch.zeros(images, 3, side, side, device="cuda")
            hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
            with in_fp16(half), counter, hooks, EfficientAttention():
                embedder(batch)
        saved = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)
    except KitError:
        raise
    except Exception as error:  # noqa: BLE001 - some networks look at values, which shapes do not have
        raise KitError(f"{model.backbone}: can't be counted without running it: {one_line(error, 120)}") from None
    parameters = [p for module in modules for p in module.parameters()]
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    frozen = sum(p.numel() for p in backbone.parameters()) if model.freeze else 0
    total = sum(p.numel() for p in parameters)
    return Network(total, learning, total - frozen, saved, counter.get_total_flops() / images)


@lru_cache(maxsize=64)
def state_of(optimizer: str) -> float:
    """Elements that an optimizer remembers of each element of a matrix, by one step on a small one."""
    read = recipe_from_dict({"name": "counted", "train": {"optimizer": json.loads(optimizer)}})
    matrix = nn.Parameter(torch.ones(64, 64))
    made = read.train.optimizer.build(parameters=[{"params": [matrix]}], lr=1e-3, weight_decay=0.0)
    matrix.grad = torch.ones_like(matrix)
    made.step()
    remembered = made.state.get(matrix, {}).values()
    return sum(v.numel() for v in remembered if isinstance(v, Tensor) and v.numel() > 1) / matrix.numel()


# what a session takes


def images_at_a_time(recipe: Recipe, machine: Machine, sizes: Sizes, search: bool) -> int:
    """How many images go through the backbone of one GPU at a time."""
    whole = math.ceil(images_of_a_batch(recipe, sizes) / processes_on(recipe, machine, search))
    return min(whole, recipe.train.micro_batch or whole)


def memory_of(recipe: Recipe, machine: Machine, sizes: Sizes, search: bool) -> Memory:
    """Of one GPU, in training with the whole batch, or with the part that goes through the backbone at a time."""
    images = images_at_a_time(recipe, machine, sizes, search)
    network = network_of(recipe, images, half_precision(recipe), sizes.identities)
    plain = recipe_to_dict(recipe)["train"]["optimizer"]
    return Memory(
        parameters=4 * network.parameters,
        gradients=4 * network.learning,
        optimizer=4 * network.learning * state_of(json.dumps(plain)),
        average=4 * network.kept * (recipe.train.ema > 0),
        activations=network.saved,
        batch=images,
        divisible=processes_on(recipe, machine, search) == 1 and images >= 4,
    )


def fewest_images(recipe: Recipe) -> Recipe:
    """The recipe with the smallest part of a batch that goes through the backbone at a time."""
    return replace(recipe, train=replace(recipe.train, micro_batch=2))


def share_that_validates(recipe: Recipe) -> tuple[float, int]:
    """Of the training images, and how many models are trained in turn."""
    split = recipe.data.split
    told = {**settings_of(split.kind, split.name), **split.settings}
    folds = told.get("folds", 1)
    return (1 / folds if folds > 1 else float(told.get("validation", 0.0))), folds


def epochs_of(recipe: Recipe) -> tuple[int, int]:
    """The fewest epochs after which a run may stop, and the most."""
    config, stages = recipe.train, stages_of(recipe.train)
    soonest = config.patience_from + config.patience if config.patience else math.inf
    least = [min(stage.epochs, soonest) for stage in stages]
    return int(least[0] if config.patience_ends == "run" else sum(least)), sum(stage.epochs for stage in stages)


def flops_of(recipe: Recipe, network: Network, sizes: Sizes, epochs: int, known_features: bool) -> float:
    """Of a run with so many epochs; known_features: what its frozen backbone makes of fixed images is there already."""
    share, folds = share_that_validates(recipe)
    train, validation = sizes.train * (1 - share), sizes.train * share
    passes = 3 + recipe.model.gradient_checkpointing + (recipe.train.micro_batch is not None)
    again = drawn(recipe) and not recipe.train.views
    if not recipe.model.freeze:
        images = epochs * (passes * train + validation) + sizes.test
    elif again:
        images = epochs * train + sizes.train * share + sizes.test
    else:
        images = 0 if known_features else (sizes.train * (1 + recipe.train.views) + sizes.test)
    return folds * images * network.flops


def costs_of(recipe: Recipe, machine: Machine, sizes: Sizes) -> list[Cost]:
    """What each run takes, in their order; a search counts as so many runs as it has trials, and leaves one."""
    specs, again = runs_of(recipe)
    found, seen = [], set()
    for spec in specs:
        one = spec.recipe
        search, half = bool(recipe.search), half_precision(one)
        network = network_of(one, images_at_a_time(one, machine, sizes, search), half, sizes.identities)
        key = features_key(one)
        least, most = (flops_of(one, network, sizes, epochs, key in seen) for epochs in epochs_of(one))
        seen.add(key)
        rate = processes_on(one, machine, search) * (machine.half if half else machine.single)
        whole = one.model.freeze and (one.checkpoint is not None or not one.model.pretrained)
        folds = share_that_validates(one)[1]
        weights = 4 * (network.parameters if whole else network.kept)
        left = folds * (weights + 4 * sizes.test**2) + BYTES_OF_ROW * sizes.test**2
        found.append(Cost(again * least / rate / 3600, again * most / (REACHED * rate) / 3600, left, weights))
    return found


def runs_of(recipe: Recipe) -> tuple[list[RunSpec], int]:
    """The runs of an experiment, or of its part, and how often each is made: a search is its baseline's trials."""
    if recipe.part:
        part, parts = part_of(recipe)
        specs = expand(recipe)
        return [specs[number - 1] for number in deal(specs, parts)[part - 1]], 1
    if not recipe.search:
        return expand(recipe), 1
    spaces = bool(recipe.search.space) + bool(recipe.search.matched)
    return [search_baseline(recipe)], 1 + spaces * recipe.search.trials


def runs_that_fit(costs: Sequence[Cost]) -> int:
    """How many runs of an experiment begin before the 20 GB are too full, as `runs.out_of_room` has it."""
    largest = there = 0.0
    for number, cost in enumerate(costs):
        if there + 9 * largest > KAGGLE_OUTPUT:
            return number
        largest, there = max(largest, cost.weights), there + cost.left
    return len(costs)


def most_hours(recipe: Recipe) -> float:
    """After which training stops: the recipe's own, or the session's."""
    return min(KAGGLE_HOURS, recipe.train.max_hours or math.inf)


def by_network(specs: Sequence[RunSpec]) -> dict[str, Recipe]:
    """One recipe for each network, batch and optimizer that the runs have."""

    def key(recipe: Recipe) -> str:
        plain = recipe_to_dict(recipe)
        train = {name: plain["train"][name] for name in ("batch_size", "micro_batch", "sampler", "optimizer", "ema")}
        return json.dumps([plain["model"], train, plain["train"]["precision"], recipe.train.mixes])

    return {key(spec.recipe): spec.recipe for spec in specs}
