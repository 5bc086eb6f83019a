"""jaguar_kit: re-identify individual jaguars, and other patterned animals, from photographs.

Quick start, in any notebook or folder that holds this one file:

    import jaguar_kit
    recipe = {"name": "first", "model": {"backbone": "resnet50"}}  # all else as by default; a .yaml file does as well
    result = jaguar_kit.run_recipe(recipe, data="folder/in/the/competition/layout")
    result  # the table of results; metrics, weights and submission lie in result.folder

It trains, evaluates and submits alone. Where tools/ lies beside it, its rooms tell, search and analyse as well.

Letters for shapes, the same in every docstring:
    B batch   N images   D embedding   C identities   H W height and width in pixels

The way from a recipe to results, by the nouns that one must know:

    recipe.yaml --load_recipe--> Recipe --expand--> [RunSpec]              variants x grid x seeds
    data folder --load_competition--> Competition --open_data--> Images    tables, decoded images, splits
    RunSpec + Images --execute_run--> Trainer(Embedder, IdentityLoss, Task) fit: epochs, steps, checkpoints
    Trainer --retrieval--> Retrieval --steps--> similarities               likeness, posterior, spots, fusion
    Trainer --write_results--> RunFolder                                   metrics, weights, embeddings, submission
    Experiment --plan, open_experiment, run, tell--> results.csv           and report.html by tools/

What a recipe names is a Component of the REGISTRY: a function that is called with its settings, or a Part, a class
whose annotated fields are its settings. Experiment holds what is at work; RunFolder reads a run's files and tells its
state: new, begun, failed, stopped, done.

Where it is decided:

    which settings and values a recipe may have    Recipe and the sections above it, check_parts, check_steps
    which images train, validate and are queries   split_images, compare; which share an encounter: with_encounters
    whether a run is run again                     RunFolder.fate
    which epoch's weights are kept                 best_epoch
    which post-processing is used                  choose_steps; of auto the first list is first_choice
    what metrics.json and page tell of steps       choose_steps; write_results puts it at "postprocess"
    where the names of a posterior go              posterior_step, Retrieval.shares, kept_for_ensembles
    what of a run log, tables and page show        MEASURES, of what Trainer.validate and retrieval_metrics find
    when training ends before its time             out_of_patience; SIGTERM, hours: Checkpointer.save_or_stop
    what gives way where memory is short           Trainer.backward_that_fits, to embed in_parts; rows_at_a_time
    whose weights a run begins with                embedder_for, find_backbone_weights
    what is submitted, and kept for ensembles      submission_of, write_submission; kept_for_ensembles (ensemble.py)

Sections and what each promises stand in __all__; a section uses only what stands above it.
"""

from __future__ import annotations

import difflib
import errno
import fnmatch
import hashlib
import heapq
import importlib
import importlib.util
import inspect
import io
import itertools
import json
import logging
import math
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
import traceback
import types
import typing
import unicodedata
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from datetime import timedelta
from functools import cache, cached_property, lru_cache, partial, wraps
from glob import escape as glob_escape
from pathlib import Path
from typing import Annotated, Any, Literal

import kornia
import kornia.augmentation as kornia_augmentation
import numpy as np
import pandas as pd
import PIL
import timm
import torch
import torch.nn.functional as F
import yaml
from kornia.filters import gaussian_blur2d
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.layers import DropPath
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, list_optimizers
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

__version__ = "0.2.0"

# fmt: off
__all__ = [
    # 1. Errors and registry
    "KitError", "register", "build", "registered", "settings_of", "Component", "Part",
    # 2. Recipe
    "Recipe", "RunSpec", "recipe_from_dict", "recipe_to_dict", "expand",
    # 3. Runtime
    "on_kaggle", "find_mounted", "pick_device", "cache_dir", "atomic", "load_recipe",
    # 4. Data
    "Competition", "load_competition", "ImageStore", "open_store", "read_image",
    "perceptual_hashes", "find_bursts", "find_data",
    # 5. Background and augmentation
    "Background", "Preparation",
    # 6. Backbones and heads
    "Geometry", "Embedder", "build_embedder",
    # 7. Losses
    "IdentityLoss", "CrossEntropy", "ArcFace", "FocalArcFace", "SubcenterArcFace", "CosFace", "SphereFace", "AdaFace",
    "HyperbolicArcFace", "Triplet", "Circle", "SupervisedContrastive", "ProxyAnchor", "CrossEntropyTriplet",
    "SumOfLosses",
    # 8. Samplers
    "random_batches", "balanced_batches", "pk_batches",
    # 9. Metrics
    "average_precision", "identity_balanced_map", "retrieval_metrics", "mean_interval",
    # 10. Re-ranking and fusion
    "similarity_matrix", "similarity_rows", "top_k", "query_expansion", "database_augmentation", "k_reciprocal_rerank",
    "blend", "rank_average", "Calibrator", "fit_calibration", "fuse", "closed_set_posterior",
    "postprocess", "choose_steps",
    # 11. Embedding and feature cache
    "embed", "flip_tta", "multi_scale_tta",
    # 12. Training
    "TrainingFailed", "load_weights",
    # 13. Submission
    "write_submission", "validate_submission",
    # 14. Experiments
    "Result", "run_recipe",
    # 15. Command line
    "main",
]
# fmt: on


# 1. Errors and registry
# ----------------------------------------------------------------------------------------------------------------------


def one_line(text: object, most: int = 1500) -> str:
    """The text in one line that any terminal can show; of a long one the beginning and the end."""
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", str(text)).encode("utf-8", "backslashreplace").decode()
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"


def without_secrets(text: str) -> str:
    """The text whose addresses (scheme://user:password@host?key=value) tell neither user nor what is asked of them."""
    return re.sub(r"(://[^\s?'\"]*)\?[^\s'\"]+", r"\1?***", re.sub(r"://[^\s'\"]*@", "://***@", text))


class KitError(Exception):
    """Bad input, told in one line: where, the value, what was expected, how to mend it."""

    exit_code = 2

    def __init__(self, message: str):
        super().__init__(one_line(without_secrets(str(message))))


def suggest(word: object, known: Iterable[str], otherwise: str = "") -> str:
    """The end of an error line: the nearest known name; where none is near, `otherwise`, or all of them."""
    known = sorted(known)
    if rooms_folder() and (why := room("experiments.reference").LEFT_OUT.get(str(word))):
        return why
    if near := difflib.get_close_matches(str(word)[:80], known, n=1, cutoff=0.6):
        return f"did you mean '{near[0]}'?"
    shown = ", ".join(known[:40]) + (f" and {len(known) - 40} more" if len(known) > 40 else "")
    return f"expected {otherwise or 'one of: ' + (shown or 'nothing')}"


# what tells, searches and packages lies in rooms, the modules of tools/, and is loaded when it is asked for

ROOMS = "jaguar_kit_tools"  # the package that the rooms form, wherever they lie
ROOM_OF_KIND = {  # where parts of these kinds are registered
    **dict.fromkeys(("analysis", "duplicates"), "experiments.analysis"),
    "ensemble": "experiments.ensemble",
}
ROOM_OF_PART = {  # single parts, likewise
    ("postprocess", "local"): "experiments.spots",
    ("postprocess", "encounters"): "experiments.encounters",
    ("split", "open_set"): "experiments.open_set",
    ("head", "whiten"): "experiments.whitening",
}
ROOM_OF = {  # promised names that live in a room
    name: f"experiments.{room}"
    for room, names in {
        "analysis": "representativeness uniqueness PairSimilarity duplicate_pairs connected_groups "
        "keep_sharpest pair_decisions curate",
        "cards": "evidence_card",
        "figures": "contact_sheet tiles match_figure augmentation_sheet",
        "findings": "summarise compare_variants bootstrap_interval",
        "mini_dataset": "make_mini_dataset",
        "open_set": "open_set_score nearest_identities answers_of threshold_curve fit_thresholds cross_fitted_score "
        "write_answers validate_answers",
        "page": "Page",
        "quality": "quality_signals",
        "report": "write_report",
        "session": "run_kernel begin_kernel leave_results",
        "smoke": "smoke small_backbone save_backbone",
        "spots": "LocalFeatures extract_local local_similarity shortlist_rescore",
    }.items()
    for name in names.split()
}


def rooms_folder() -> Path | None:
    """Where the rooms lie: in tools/ beside this file, or where pip puts them; None where this file is alone."""
    here = Path(__file__).resolve().parent
    return next((place for place in (here / "tools", here / ROOMS) if (place / "experiments").is_dir()), None)


def room(name: str, who: str = "jaguar_kit") -> types.ModuleType:
    """A room, such as "experiments.report", by its path; KitError says that `who` needs it where there is none."""
    folder = rooms_folder()
    if folder is None:
        raise KitError(
            f"{who}: needs tools/, which does not lie beside {Path(__file__).resolve()} (expected there as in a clone "
            "of the kit's repository, in a pip install of it, or in the dataset that its tools/package.py builds)"
        )
    sys.modules.setdefault("jaguar_kit", sys.modules[__name__])  # run as a program, the module has another name
    if ROOMS not in sys.modules:
        package = types.ModuleType(ROOMS)
        package.__path__ = [str(folder)]
        sys.modules[ROOMS] = package
    return importlib.import_module(f"{ROOMS}.{name}")


def call_in_room(name: str, function: str, *arguments: Any) -> Any:
    """Calls a function of a room, in a process that may not have opened it yet."""
    return getattr(room(name), function)(*arguments)


def __getattr__(name: str) -> Any:
    if name in ROOM_OF:
        return getattr(room(ROOM_OF[name], name), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *ROOM_OF})


@dataclass(frozen=True)
class Range:
    """The values that a number may take; `above` excludes its bound, `low` and `high` include theirs."""

    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf

    def __str__(self) -> str:
        parts = [f"above {self.above:g}"] if self.above > -math.inf else []
        parts += [f"at least {self.low:g}"] if self.low > -math.inf else []
        parts += [f"at most {self.high:g}"] if self.high < 2**31 else []
        return " and ".join(parts)

    def check(self, value: float, where: str) -> None:
        if not (self.low <= value <= self.high and value > self.above):
            expected = f"at most {self.high:g}" if value > self.high >= 2**31 else self
            raise KitError(f"{where}: {value!r} is out of range (expected {expected})")


class Rising:
    """A pair whose second number is not below its first."""

    def check(self, pair: tuple[float, float], where: str) -> None:
        if pair[0] > pair[1]:
            raise KitError(f"{where}: {list(pair)} falls (expected [smallest, largest])")


class NotEmpty:
    """A text or a list that holds something."""

    def check(self, value: Sequence, where: str) -> None:
        if not len(value) or (isinstance(value, str) and not value.strip()):
            raise KitError(f"{where}: {value!r} is empty (expected a value; null leaves a setting out)")
        if isinstance(value, str) and "\0" in value:
            raise KitError(f"{where}: {value!r} names no file (expected text without NUL)")


Natural = Annotated[int, Range(low=0, high=2**31)]
Count = Annotated[int, Range(low=1, high=2**31)]
Width = Annotated[int, Range(low=1, high=1 << 16)]  # of a layer
Seed = Annotated[int, Range(low=0, high=2**32 - 1)]  # as numpy and scikit-learn take it
PathText = Annotated[str, NotEmpty()]
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(low=0)]
Fraction = Annotated[float, Range(low=0, high=1)]
Angle = Annotated[float, Range(low=0, high=math.pi / 2)]  # radians
Zoom = Annotated[float, Range(low=0.1, high=10)]
ZoomSpan = Annotated[tuple[Zoom, Zoom], Rising()]
FractionSpan = Annotated[tuple[Fraction, Fraction], Rising()]
Pixels = Annotated[int, Range(low=16, high=4096)]
Views = Annotated[int, Range(low=0, high=1000)]

REGISTRY: dict[tuple[str, str], Callable] = {}
SUPPLIED = ("counts", "geometry")  # have a default, yet come from the kit
# fmt: off
USES = {  # of each kind: what goes in and comes out, a call of {} that runs, and the shape that it gives
    "background": ("In: images (B, 3, H, W) of 0 to 1 and masks (B, 1, H, W); out: images.",
        'build("background", "{}")(torch.rand(2, 3, 32, 32), torch.ones(2, 1, 32, 32))', [2, 3, 32, 32]),
    "augmentation": ("In: images (B, 3, H, W) of 0 to 1; out: images.",
        'build("augmentation", "{}")(torch.rand(2, 3, 32, 32))', [2, 3, 32, 32]),
    "mix": ("In: images (B, 3, H, W); out: mixed ones, the positions (B,) of their other halves, their own weight.",
        'build("mix", "{}", images=torch.rand(4, 3, 32, 32))[0]', [4, 3, 32, 32]),
    "pooling": ("In: a backbone and images (B, 3, H, W); out: vectors (B, C).",
        'build_embedder({"backbone": "test_resnet", "pretrained": False, "pooling": "{}", "head": "none"}).eval()(\n'
        '...     torch.rand(2, 3, 64, 64))', [2, 96]),
    "head": ("In: pooled features (B, C); out: outputs (B, D) for the geometry.",
        'build("head", "{}", in_features=256).eval()(torch.rand(2, 256))', [2, 256]),
    "geometry": ("In: a head's outputs (B, D); out: embeddings (B, D).",
        'build("geometry", "{}")(torch.rand(2, 8))', [2, 8]),
    "postprocess": ("In: embeddings (N, D); out: similarities (N, N).",
        'postprocess(["{}"], torch.eye(8))', [8, 8]),
}
# fmt: on


def register(kind: str, name: str, **facts: Any) -> Callable:
    """Puts a function or class under a name that recipes can use.

    Parameters with a default are its settings, for recipes to set; those without are what the kit supplies. facts:
    attributes that tell what it needs and gives, such as reads= and makes= of a post-processing step.
    """

    def add(factory: Callable) -> Callable:
        REGISTRY[kind, name] = factory
        for fact, value in facts.items():
            setattr(factory, fact, value)
        if kind in USES:
            told, call, shape = USES[kind]
            written, example = inspect.cleandoc(factory.__doc__ or name), f">>> {call.replace('{}', name)}.shape"
            shown = "" if ">>>" in written else f"\n{example}\ntorch.Size({shape})\n"
            factory.__doc__ = f"{written}\n\n{told}\n{shown}"
        return factory

    return add


def registered(kind: str) -> list[str]:
    """All registered names of a kind, sorted."""
    if kind in ROOM_OF_KIND:
        room(ROOM_OF_KIND[kind])
    return sorted({name for k, name in (*REGISTRY, *ROOM_OF_PART) if k == kind})


def lookup(kind: str, name: str, where: str = "") -> Callable:
    place = ROOM_OF_PART.get((kind, name)) or ROOM_OF_KIND.get(kind)
    if place and (kind, name) not in REGISTRY:
        room(place, where or kind)
    if (kind, name) not in REGISTRY:
        if known := registered(kind):
            raise KitError(f"{where or kind}: there is no {kind} '{name}'; {suggest(name, known)}")
        kinds = {k for k, _ in REGISTRY}
        raise KitError(f"{where or 'build'}: there is no kind of part '{kind}'; {suggest(kind, kinds)}")
    return REGISTRY[kind, name]


@cache
def parameters_of(factory: Callable) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(factory).parameters


@cache
def hints_of(factory: Callable) -> dict[str, Any]:
    """Types of the parameters of a function or of a class, whose inherited fields are read where they were written."""
    annotated = factory if is_dataclass(factory) or not inspect.isclass(factory) else factory.__init__
    hints = typing.get_type_hints(annotated, include_extras=True)
    return {name: hints[name] for name in parameters_of(factory) if name in hints}


@cache
def hints_of_settings(factory: Callable) -> dict[str, Any]:
    """Types of those parameters that recipes may set: they have a default, and the kit does not supply them."""
    parameters, hints = parameters_of(factory).values(), hints_of(factory)
    names = [p.name for p in parameters if p.default is not p.empty and p.name not in SUPPLIED]
    return {name: hints.get(name, Any) for name in names}


def settings_of(kind: str, name: str) -> dict[str, Any]:
    """The settings of a registered part with their defaults."""
    if kind in ROOM_OF_KIND and rooms_folder() is None:
        return {}
    factory = lookup(kind, name)
    return {key: parameters_of(factory)[key].default for key in hints_of_settings(factory)}


def build(kind: str, name: str, **settings: Any) -> Any:
    """Builds a registered part; refuses unknown names, unknown settings, wrong types and values out of range.

    >>> build("loss", "arcface", embedding_dim=256, num_identities=31, margin=0.5).scale
    64.0
    """
    factory = lookup(kind, name)
    parameters = parameters_of(factory)
    for key in settings:
        if key not in parameters:
            raise KitError(f"{kind} {name}: unknown setting '{key}'; {suggest(key, parameters)}")
    if missing := [p.name for p in parameters.values() if p.default is p.empty and p.name not in settings]:
        given = f"given: {', '.join(settings) or 'nothing'}"
        raise KitError(f"{kind} {name}: {', '.join(missing)} must be given ({given}; a setting needs a default)")
    return factory(**convert_each(settings, hints_of_settings(factory), f"{kind} {name}: "))


@dataclass(frozen=True)
class Component:
    """A registered part as a recipe names it: `{name: arcface, margin: 0.5}`, or just `arcface`."""

    kind: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self, **supplied: Any) -> Any:
        """Builds the part from its settings and from what it asks for of that which the kit supplies."""
        wanted = parameters_of(lookup(self.kind, self.name))
        return build(self.kind, self.name, **self.settings, **{k: v for k, v in supplied.items() if k in wanted})

    def __call__(self, *arguments: Any) -> Any:
        """Calls a part that is a function with its settings behind the arguments."""
        return lookup(self.kind, self.name)(*arguments, **self.settings)


class Part(nn.Module):
    """A module that a recipe names: its annotated fields are what it is built from, those with a default its settings.

    `__post_init__` makes its parameters, as in any dataclass.
    """

    def __init_subclass__(cls) -> None:
        dataclass(eq=False, repr=False, kw_only=True)(cls)
        make = cls.__init__

        @wraps(make)
        def checked_init(self: Part, **given: Any) -> None:
            make(self, **convert_each(given, hints_of_settings(type(self)), f"{type(self).__name__}: "))

        cls.__init__ = checked_init

    def __new__(cls, *_: Any, **__: Any) -> Part:
        part = super().__new__(cls)
        nn.Module.__init__(part)  # before the fields are set, some of which are modules
        return part


def component(kind: str, value: Any, where: str) -> Component:
    """Reads a part from a recipe's plain value, a name or a mapping with a name and settings."""
    if isinstance(value, Component) and value.kind == kind:
        value = {"name": value.name, **value.settings}
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise KitError(f"{where}: {value!r} names no {kind} (example: {{name: {registered(kind)[0]}}})")
    name, settings = value["name"], {key: given for key, given in value.items() if key != "name"}
    if kind in ROOM_OF_KIND and rooms_folder() is None:  # nothing here knows its settings; who runs it will say so
        return Component(kind, name, settings)
    hints, unknown = hints_of_settings(lookup(kind, name, where)), f"{kind} '{name}' has no such setting"
    return Component(kind, name, convert_each(settings, hints, f"{where}.", unknown))


def part_words(part: Component) -> str:
    """A part's name, and those of its settings that are not the defaults."""
    part = getattr(part, "part", part)  # of a Calibrated
    defaults = settings_of(part.kind, part.name)
    changed = ", ".join(f"{key} {value}" for key, value in part.settings.items() if value != defaults.get(key))
    return f"{part.name} ({changed})" if changed else part.name


PLAIN = "what JSON and YAML both can tell"
EXAMPLES = {
    float: "a number (example: 5e-4)",
    int: "a whole number (example: 32)",
    bool: "true or false",
    str: "text (quote it if it looks like a number)",
}


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type that `hint` asks for, or a KitError that starts with `where`."""
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is None and (dict in (hint, origin) or (origin is tuple and arguments[-1] is Ellipsis)):
        return () if origin is tuple else {}  # null empties what a base recipe filled
    if origin is Annotated:
        base, *extras = arguments
        if base is Component:
            return component(extras[0], value, where)
        value = convert(value, base, where)
        for extra in extras:
            extra.check(value, where)
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return convert(value, next(a for a in arguments if a is not type(None)), where)
    if origin is Literal:
        if not any(type(value) is type(a) and value == a for a in arguments):
            raise KitError(f"{where}: {value!r} is not known; {suggest(value, map(str, arguments))}")
        return value
    if origin is tuple:
        return convert_list(value, arguments, where)
    if dict in (hint, origin):
        if not isinstance(value, Mapping):
            raise KitError(f"{where}: {value!r} is not a mapping (expected 'key: value' lines)")
        if len({str(k) for k in value}) < len(value):
            raise KitError(f"{where}: two of its keys are the same text")
        inner = arguments[1] if arguments else PLAIN
        return {convert(str(k), str, where): convert(v, inner, f"{where}.{k}") for k, v in value.items()}
    if hint == PLAIN:
        return convert_plain(value, where)
    if is_dataclass(hint):
        return convert_section(value, hint, where)
    return convert_scalar(value, origin or hint, where)


def convert_plain(value: Any, where: str) -> Any:
    """Numbers, texts, lists and mappings as they are; KitError for what a result file could not tell again."""
    if isinstance(value, Mapping):
        return convert(value, dict, where)
    if isinstance(value, (list, tuple)):
        return [convert_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return convert_scalar(value, str, where)
    raise KitError(f"{where}: {value!r} is a {type(value).__name__} (expected a number or text; quote it: '{value}')")


def convert_scalar(value: Any, hint: type, where: str) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise KitError(f"{where}: {value!r} holds what no file can (expected text in Unicode)")
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML reads 5e-4 as text
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise KitError(f"{where}: {value!r} is not {EXAMPLES.get(hint, getattr(hint, '__name__', hint))}")


def convert_list(value: Any, arguments: tuple, where: str) -> tuple:
    if isinstance(value, (str, Mapping)) and getattr(arguments[0], "__origin__", None) is Component:
        value = [value]  # one part may stand for a list of one
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise KitError(f"{where}: {value!r} is not a list (example: [1, 2])")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise KitError(f"{where}: {list(value)!r} has {len(value)} values, expected {len(arguments)}")
    return tuple(convert(v, a, f"{where}[{i}]") for i, (v, a) in enumerate(zip(value, arguments)))


def convert_section(value: Any, section: type, where: str) -> Any:
    if isinstance(value, section):
        return value
    if not isinstance(value, Mapping):
        raise KitError(f"{where}: {value!r} is not a section (expected 'key: value' lines)")
    prefix = where if where.endswith(": ") else f"{where}."  # "recipes/x.yaml: " or "recipes/x.yaml: train"
    return section(**convert_each(value, hints_of(section), prefix, "there is no such setting"))


def convert_each(given: Mapping, hints: Mapping[str, Any], prefix: str, unknown: str = "") -> dict[str, Any]:
    """Values as the types of their names; a name without a type is refused as `unknown`, or its value left alone."""
    for key in given if unknown else ():
        if key not in hints:
            raise KitError(f"{prefix}{key}: {unknown}; {suggest(key, hints)}")
    return {key: convert(value, hints.get(key, Any), f"{prefix}{key}") for key, value in given.items()}


def checked(function: Callable) -> Callable:
    """The function, which converts and checks what its annotations bound: numbers within a Range, and choices."""
    signature = inspect.signature(function)

    @cache
    def bounded() -> dict[str, Any]:
        kinds = (Annotated, Literal, typing.Union, types.UnionType)
        hints = {name: hint for name, hint in hints_of(function).items() if typing.get_origin(hint) in kinds}
        return {name: hint for name, hint in hints.items() if re.search("Annotated|Literal", repr(hint))}

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        given = signature.bind(*arguments, **named)
        given.arguments.update(convert_each(given.arguments, bounded(), f"{function.__name__}: "))
        return function(*given.args, **given.kwargs)

    return call


# 2. Recipe
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A number that tells of a run, and all that logs, choices, tables and reports need to know of it.

    Its value is what `retrieval_metrics` has under its name, or metrics.json; log, tables and page follow.
    """

    name: str  # of its column
    meaning: str
    label: str = ""  # on axes
    better: Literal["higher", "lower", ""] = ""
    missing: str = ""  # where it is not measured
    logged: bool = False  # whether log.csv has it of every epoch, so that an epoch may be chosen by it
    within: tuple[str, ...] = ()  # keys of metrics.json that lead to it, unless its own name does
    instead: tuple[str, ...] = ()  # others, where these lead nowhere
    folds: Literal["mean", "sum", "first"] = "mean"  # what becomes of the values of several folds
    averaged: bool = False  # whether a summary has its mean over seeds
    of_runs: bool = True  # whether a page's table of runs shows it; results.csv has all
    digits: int = 4

    def of(self, metrics: Mapping[str, Any]) -> float:
        """Its value by the metrics of a run, NaN where it was not measured."""
        for path in (self.within or (self.name,), self.instead):
            value: Any = metrics if path else {}
            for key in path:
                value = value.get(key, {}) if isinstance(value, Mapping) else {}
            if isinstance(value, (int, float)):
                return value
        return math.nan

    def shown(self, value: float) -> str:
        return f"{value:.{self.digits}f}" if self.digits else f"{round(value, 1):.10g}"


def with_twins(name: str, meaning: str, missing: str, **others: Any) -> list[Measure]:
    """A measure of mAP, and the same across encounters."""
    both = {"": meaning, "_across": "the same across encounters"}
    return [Measure(name + end, what, missing=missing, better="higher", **others) for end, what in both.items()]


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("map", "identity-balanced mAP on the validation images, each a query against all others",
                "validation mAP", "higher", "nothing validates", logged=True),
        Measure("plain", "mAP of the plain backbone: its pooled features by their cosine, without any head",
                better="higher", within=("plain", "map"), averaged=True),
        Measure("plain_across", "the same across encounters", better="higher", within=("plain", "map_across"),
                averaged=True, of_runs=False),
        Measure("untrained", "mAP before training: of a head with random weights, where there is one", better="higher",
                within=("untrained", "map"), of_runs=False),
        Measure("untrained_across", "mAP before training, across encounters", better="higher",
                within=("untrained", "map_across"), of_runs=False),
        Measure("val_loss", "of the validation images", "validation loss", "lower", "nothing validates", logged=True,
                of_runs=False),
        Measure("accuracy", "of the classifier", "accuracy", "higher", "the loss has no classes", logged=True,
                averaged=True),
        Measure("map_across", "the same, pairs of one encounter left out: who is told across encounters",
                "the same across encounters", "higher", "no encounter has two images", logged=True, averaged=True),
        Measure("retrieval_map", "mAP over queries, whoever they show", "", "higher", logged=True, of_runs=False),
        Measure("top1", "share of queries whose nearest image shows their identity", "", "higher", logged=True,
                averaged=True),
        Measure("pair_auc", "area under the ROC curve of pairs", "", "higher", logged=True, averaged=True),
        Measure("pair_ap", "average precision of pairs", "", "higher", logged=True, of_runs=False),
        *with_twins("map_postprocessed", "mAP after post-processing", "there are no steps", averaged=True),
        *with_twins("test_map", "mAP on the test images", "no solution is known", averaged=True),
        *with_twins("test_map_postprocessed", "mAP on the test images after post-processing",
                    "there are no steps, or no solution is known", averaged=True),
        Measure("open_set", "sqrt(BAKS x BAUS), cross-fitted", "", "higher", "the set is closed", averaged=True,
                within=("open_set", "cross_fitted", "score"), instead=("open_set", "given", "score")),
        Measure("test_open_set", "sqrt(BAKS x BAUS) on the test", "", "higher", "the set is closed", averaged=True,
                within=("open_set", "test", "score")),
        Measure("best_epoch", "whose weights are kept", digits=0),
        Measure("epochs", "that were trained, early stopping included", digits=0),
        Measure("seconds", "of training, validation included", folds="sum", digits=0),
        Measure("parameters", "of backbone, head and loss", folds="first", of_runs=False, digits=0),
        Measure("trainable", "those that learn", within=("trainable_parameters",), folds="first", digits=0),
        Measure("learns", "parameters before the embeddings that learn", folds="first", of_runs=False, digits=0),
        Measure("embedded_per_second", "images a second in validation, where the backbone sees them", averaged=True,
                of_runs=False, digits=0),
        Measure("trained_images", "images that trained", averaged=True, of_runs=False, digits=0),
        Measure("validated_images", "images that validated", within=("validated", "images"), averaged=True,
                of_runs=False, digits=0),
        Measure("identities", "with several validation images, which mAP is balanced over", of_runs=False,
                within=("validated", "identities"), digits=0),
        Measure("identities_across", "those with images of several encounters", of_runs=False,
                within=("validated", "across", "identities"), digits=0),
    )
}  # fmt: skip
METRICS = tuple(name for name, measure in MEASURES.items() if measure.logged)
Metric = Literal[METRICS]
OutOfMemoryError = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)  # its name before torch 2.5
Choice = Literal[Metric, "loss_and_accuracy", "last"]  # both better than at the epoch kept before; or no choice


@dataclass(frozen=True)
class MiniConfig:
    """The synthetic mini-dataset that stands in when no data folder is given."""

    identities: Annotated[int, Range(low=2, high=500)] = 12
    images: Annotated[int, Range(low=12, high=50000)] = 240  # train and test together
    seed: Seed = 0
    round: Literal[1, 2] = 1  # 2: background blackened, test images renumbered
    layout: Literal["jaguar", "animalclef"] = "jaguar"  # animalclef: three species, queries of individuals nobody knows


@dataclass(frozen=True)
class DataConfig:
    root: PathText | None = None  # folder with the data; null: --data, a Kaggle mount, or the mini-dataset
    competition: PathText = "jaguar-re-id"  # Kaggle slug; tells the right mount from others
    mini: MiniConfig | None = None  # the synthetic mini-dataset, for when no folder is given
    extra: tuple[PathText, ...] = ()  # more folders to train on, never to validate, whose identities are kept apart
    masks: PathText | None = None  # folder of mask images named like the images; null: masks lie in alpha
    boxes: PathText | None = None  # file or column of boxes around animals, which are cut out; or "masks": around these
    unmasked: Literal["stop", "keep"] = "stop"  # keep: without masks the background stays; stop: that is an error
    size: Pixels = 256  # px, side of the square in which an image is stored
    fit: Literal["squash", "pad", "crop"] = "squash"  # how an image becomes that square
    encounter: PathText | None = None  # column that tells encounters; null: one of ENCOUNTERS, else near-duplicates
    turn: dict[str, float] = field(default_factory=dict)  # degrees counter-clockwise, by label of column orientation
    bad_images: Literal["stop", "skip"] = "stop"  # what an unreadable image does to the run
    split: Annotated[Component, "split"] = Component("split", "stratified")  # training and validation images
    split_seed: Seed = 42  # apart from `seed`, so that seeds can vary on one split
    split_by_seed: bool = False  # true: every seed makes a split of its own
    subset: PathText | None = None  # CSV with a column filename; looked for below the result folder first
    subset_applies_to: Literal["all", "training"] = "all"  # all: before the split; training: validation stays whole
    pseudo: PathText | None = None  # CSV with filename and identity of test images that train as well; likewise


@dataclass(frozen=True)
class ModelConfig:
    backbone: str = "resnet50"  # a short name of the kit (dinov3_l), or any architecture that timm knows
    pretrained: bool = True  # false: random weights, never silently
    weights: PathText | None = None  # safetensors file of the backbone, or a folder; null: looked for by the name
    input_size: Pixels | None = None  # px that the backbone sees; null: its native size
    crop: Annotated[float, Range(low=0.1, high=1)] = 1.0  # share of the side that it sees, from the centre
    freeze: bool = True  # only the head learns
    train_blocks: Count | None = None  # of a backbone that learns, how many of its last blocks do; null: all
    gradient_checkpointing: bool = False  # less memory for more time, in a backbone that learns
    drop_path: Fraction = (
        0.0  # share of a backbone's last block that is skipped at random as it learns; the first: none
    )
    pooling: Annotated[Component, "pooling"] = Component("pooling", "native")
    head: Annotated[Component, "head"] = Component("head", "mlp")
    geometry: Annotated[Component, "geometry"] = Component("geometry", "cosine")  # how embeddings are compared


@dataclass(frozen=True)
class Stage:
    """A part of training with images of its own size; patience begins anew."""

    epochs: Count = 30
    size: Pixels | None = None  # px in which training images are stored; null: data.size


@dataclass(frozen=True)
class TrainConfig:
    epochs: Natural = 100  # 0 with `checkpoint`: evaluate and write the submission, nothing else
    stages: tuple[Stage, ...] = ()  # progressive resizing, in place of epochs; validation stays at data.size
    batch_size: Annotated[int, Range(low=2, high=1 << 16)] = 64  # the pk sampler has its own
    accumulate: Count = 1  # batches to one step of the optimizer
    micro_batch: Annotated[int, Range(low=2)] | None = None  # images in a backbone at a time; null: all that fit.
    # The loss sees the whole batch all the same; batch norm in a backbone that learns sees a part at a time.
    sampler: Annotated[Component, "sampler"] = Component("sampler", "random")
    mix: Annotated[Component, "mix"] = Component("mix", "none")  # images laid over each other
    views: Views = 0  # random views of an image that a frozen backbone sees, kept and used in turn; 0: always new
    lr: Positive = 5e-4  # learning rate of head and loss
    backbone_lr: NonNegative = 1.0  # learning rate of a backbone that learns, as a multiple of lr
    layer_decay: Annotated[float, Range(above=0, high=1)] = 1.0  # learning rate of a backbone's layer by the next one's
    weight_decay: NonNegative = 1e-4
    clip_norm: Positive | None = None  # longest gradient; longer ones are shortened to it
    ema: Annotated[float, Range(low=0, high=0.99999)] = 0.0  # decay of a moving average of the weights; 0: none
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # auto: bf16 or fp16 on a GPU, fp32 on a CPU
    compile: bool = False  # torch.compile of the backbone's blocks: slow at first, then faster
    optimizer: Annotated[Component, "optimizer"] = Component("optimizer", "adamw")
    schedule: Annotated[Component, "schedule"] = Component("schedule", "plateau")
    select: Choice = "map"  # the epoch that is best in it gives the weights
    monitor: Metric = "map"  # early stopping watches it
    patience: Natural = 10  # epochs without improvement before stopping; 0: never stops early
    patience_from: Natural = 0  # epochs before patience begins to count
    patience_ends: Literal["stage", "run"] = "stage"  # what ends when it runs out; the next stage begins, or nothing
    validate_at: Literal["size", "stage"] = "size"  # px in which validation images are stored: data.size, or a stage's
    loss_batch: Annotated[int, Range(low=2)] | None = None  # validation loss as the mean over batches; null: of all
    max_hours: Positive | None = None  # time for the whole experiment; null: none, on Kaggle 11.5
    checkpoint_minutes: NonNegative = 10.0  # longest time between checkpoints within an epoch; 0: only between epochs
    track: Literal["none", "tensorboard", "wandb"] = "none"  # where the log goes besides log.csv

    @property
    def mixes(self) -> bool:
        return self.mix.name != "none"


@dataclass(frozen=True)
class Search:
    """Settings to search by Optuna: dotted names with {low, high, log} or {choices}."""

    trials: Annotated[int, Range(low=1, high=100000)] = 30
    space: dict = field(default_factory=dict)
    matched: dict = field(default_factory=dict)  # a second space, for the recipe's own parts, with the same budget
    random: bool = False  # the space once more, drawn at random, with the same budget
    seed: Seed = 0
    storage: PathText | None = None  # a shared .journal file or an Optuna URL, for several sessions
    prune: bool = True  # ends a trial whose mAP falls behind the median of the others at an epoch
    baseline: dict = field(default_factory=dict)  # settings of the run that the best is compared with


@dataclass(frozen=True)
class OpenSet:
    """How queries of individuals that nobody knows are told from those of known ones."""

    decide: Literal["nearest", "softmax"] = "nearest"  # by the most similar image, or the most probable class
    thresholds: Literal["auto", "one", "per_species"] = "auto"  # auto: per species where that is better, cross-fitted
    threshold: Fraction | None = None  # least probability, for nearest least similarity; null: fitted in validation


@dataclass(frozen=True)
class PseudoLabels:
    """Test images that all runs name alike train with them for some more epochs, where the rule is measured right."""

    rounds: Annotated[int, Range(low=1, high=10)] = 1
    epochs: Count = 5  # of a round, from the weights of the one before
    least: Fraction = 0.9  # mean probability of the name
    cap: Count = 10  # images of an identity, the surest
    accuracy: Fraction = 0.8  # share of right names, on images whose names are known and were not trained on, to begin
    measured_on: PathText | None = None  # folder of runs that tell it; null: these runs' own validation images


@dataclass(frozen=True)
class Divergence:
    """When a run counts as diverged: where it failed, since a loss was no number, or where its best validation mAP of
    all epochs up to `epoch` is below `map`; or by the loss alone."""

    by: Literal["map", "loss"] = "map"
    map: Fraction = 0.75
    epoch: Count = 20


@dataclass(frozen=True)
class Reading:
    """Where a source's text and its code differ, or this recipe from either: what each has, in words or as settings.

    What is taken stands in the recipe's own settings already; `-o reading=text` or `code` lays the others upon them.
    """

    about: str = ""
    text: Any = ""  # a sentence, or settings as a recipe writes them
    code: Any = ""
    taken: Literal["text", "code", "both", "neither"] = "code"
    why: str = ""


@dataclass(frozen=True)
class Recipe:
    """An experiment: what is asked, all settings, and what varies between its runs."""

    name: str  # names the result folder too
    question: str = ""
    hypothesis: str = ""
    expects: dict[str, Literal["higher", "lower", "same"]] = field(default_factory=dict)  # by variant, "*": all others
    intervention: str = ""  # what varies and what stays fixed
    protocol: str = ""  # how it is measured
    interpretation: str = ""  # what was learned, in a person's words
    published: dict = field(default_factory=dict)  # others' numbers, shown beside ours and marked as theirs
    leaderboard: dict = field(default_factory=dict)  # scores of others' submissions, likewise
    conclusion: str = ""  # what the source made of its numbers, in other words; not ours
    reading: Literal["published", "text", "code"] = "published"  # of the source; published: what made its numbers
    readings: tuple[Reading, ...] = ()  # where its text, its code and this recipe differ
    data: DataConfig = DataConfig()
    background: Annotated[Component, "background"] = Component("background", "original")
    evaluated_background: Annotated[Component, "background"] | None = None  # of all but training; null: the same
    augment: tuple[Annotated[Component, "augmentation"], ...] = ()
    model: ModelConfig = ModelConfig()
    loss: Annotated[Component, "loss"] = Component("loss", "arcface")
    train: TrainConfig = TrainConfig()
    analysis: tuple[Annotated[Component, "analysis"], ...] = ()  # of the training images, before anything is trained
    search: Search | None = None  # for the best settings, in place of variants and grid
    pseudo: PseudoLabels | None = None  # rounds behind the runs
    divergence: Divergence | None = None  # when a run counts as diverged, for the report
    open_set: OpenSet | None = None  # null: the defaults, where the data are of an open set
    test_backgrounds: tuple[Annotated[Component, "background"], ...] = ()  # also validate with these, for the report
    postprocess: tuple[Annotated[Component, "postprocess"], ...] = ()  # steps from embeddings to scores, or auto
    checkpoint: PathText | None = None  # weights.safetensors of an earlier run, or its folder, to start from
    soup: tuple[PathText, ...] = ()  # further weights of the same model, averaged with the checkpoint's
    ensemble: Annotated[Component, "ensemble"] = Component("ensemble", "none")  # of all runs: one more submission
    seed: Seed = 42
    seeds: tuple[Seed, ...] = ()  # each variant runs once with each of them
    variants: dict = field(default_factory=dict)  # name: {why: one line, then the settings that differ}
    grid: dict = field(default_factory=dict)  # dotted setting: list of values; every combination runs
    part: PathText | None = None  # k/n: of n parts of the runs the k-th, the others are made elsewhere
    overrides: tuple[str, ...] = ()  # dotted.setting=value from the command line; they win over variants


# These do not vary between runs.
EXPERIMENT_WIDE = ("name", "variants", "grid", "seeds", "part", "overrides", "ensemble", "reading", "readings")
SAID_BEFORE = ("question", "hypothesis", "intervention", "protocol")  # of an experiment, before its results
# These change no result.
WORDS = (*SAID_BEFORE, "expects", "interpretation", "published", "leaderboard", "conclusion", "reading", "readings")


MOST_RUNS, MOST_BYTES_OF_TEXT = 10_000, 1 << 20  # of an experiment, and of its recipe
MOST_VALUES, MOST_LEVELS = 100_000, 40  # of a YAML text, whose few aliases may stand for millions of values


class StrictLoader(yaml.SafeLoader):
    """YAML without Python objects, and without keys that silently replace each other; of a recipe's size at most."""

    def construct_document(self, node: yaml.Node) -> Any:
        """Refuses what stands for very many values, or nests very deeply, before anything is made of it."""
        waiting, values = [(node, 1)], 1
        while waiting:
            outer, level = waiting.pop()
            inner = outer.value if isinstance(outer, yaml.CollectionNode) else []
            inner = list(itertools.chain(*inner)) if isinstance(outer, yaml.MappingNode) else inner
            values += len(inner)
            if values > MOST_VALUES or level > MOST_LEVELS:
                allowed = f"at most {MOST_VALUES:,} values in {MOST_LEVELS} levels"
                fault = f"for a recipe, with its aliases it stands for too much (expected {allowed})"
                raise yaml.MarkedYAMLError(None, None, fault, node.start_mark)
            waiting += [(one, level + 1) for one in inner]
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        written = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]  # before "<<" brings in others
        keys = [self.construct_object(key, deep=True) for key in written]
        if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
            raise yaml.MarkedYAMLError(None, None, f"key '{twice[0]}' stands twice in one section", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, where: str) -> Any:
    try:
        return StrictLoader(text).get_single_data()  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise KitError(f"{where}: {line}not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise KitError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def merge_settings(base: Any, over: Any) -> Any:
    """`over` laid upon `base`: mappings key by key, except that a part whose name changes is replaced whole."""
    if isinstance(base, str) and isinstance(over, Mapping) and "name" not in over:
        base = {"name": base}
    if isinstance(over, str) and isinstance(base, Mapping) and base.get("name") == over:
        return base
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    if "name" in base and over.get("name", base["name"]) != base["name"]:
        return over
    return {**base, **{key: merge_settings(base[key], value) if key in base else value for key, value in over.items()}}


def merge_recipe(base: Mapping, over: Mapping) -> dict:
    """`merge_settings` at the top of a recipe, whose name does not name a part; null takes a variant of `base` away."""
    name, before = over.get("name", base.get("name")), base.get("variants") or {}
    merged = merge_settings({**base, "name": name}, {**over, "name": name})
    if isinstance(merged.get("variants"), Mapping) and isinstance(over.get("variants"), Mapping):
        gone = {key for key, given in over["variants"].items() if given is None and key in before}
        merged["variants"] = {key: given for key, given in merged["variants"].items() if key not in gone}
    return merged


def nested(dotted: str, value: Any) -> dict:
    """{"train": {"lr": 1}} from ("train.lr", 1)."""
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


def parse_override(text: str) -> dict:
    dotted, equals, value = text.partition("=")
    if not equals or not all(dotted.strip().split(".")):
        raise KitError(f"-o {text}: expected dotted.setting=value (example: -o train.epochs=3)")
    return nested(dotted.strip(), read_yaml(value, f"-o {text}"))


def recipe_to_dict(recipe: Recipe) -> dict:
    """The recipe as plain YAML values, every setting spelled out."""

    def plain(value: Any) -> Any:
        if isinstance(value, Component):
            settings = {**settings_of(value.kind, value.name), **value.settings}
            return {"name": value.name, **{key: plain(v) for key, v in settings.items()}}
        if is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    return plain(recipe)


def without_passwords(value: Any) -> Any:
    """Plain values whose addresses do not tell their password, for what is written."""
    if isinstance(value, Mapping):
        return {key: without_passwords(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_passwords(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value


def recipe_from_dict(raw: Mapping, where: str = "recipe") -> Recipe:
    """Checks plain values and makes a Recipe of them.

    Raises KitError with `where`, dotted setting, value and expectation on the first fault, in variants too.
    """
    if not isinstance(raw, Mapping):
        raise KitError(f"{where}: {raw!r} holds no settings (expected a mapping, such as {{'name': 'first'}})")
    defaults, raw = recipe_to_dict(Recipe(name="recipe")), dict(raw)
    if "splits" in raw:  # the same with each of several splits
        raw["grid"] = {**convert(raw.get("grid"), dict, f"{where}: grid"), "data.split": raw.pop("splits")}
    recipe = convert_section(merge_recipe(defaults, raw), Recipe, f"{where}: ")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+@-]{0,99}", recipe.name):
        raise KitError(f"{where}: name: {recipe.name!r} can't name a folder (use up to 100 letters, digits, '_-.')")
    expand(recipe, where)
    if recipe.search and rooms_folder() is not None:  # where there is no room for it, nothing runs it either
        room("experiments.search").check_space(recipe, f"{where}: ")
    return recipe


def check_steps(steps: Sequence[Component], where: str) -> None:
    """Refuses steps of post-processing that go back, or of which one makes what nothing reads.

    A step says what it reads and makes (`register`): images, embeddings, similarity, or evidence, which stands beside
    the likeness until fuse reads both. What the last one makes is what is submitted.
    """
    named, read, compared = [step.name for step in steps], set(), False
    place = f"{where}: {named}"
    if "auto" in named and len(steps) > 1:
        raise KitError(f"{where}: auto chooses the steps itself and stands alone")
    # which steps made what lies there, None for none; the first evidence is the likeness
    made: dict[str, list[int | None]] = {"embeddings": [None], "similarity": [None], "evidence": []}
    for number, step in enumerate(steps):
        part, evidence = lookup("postprocess", step.name), made["evidence"]
        reads, makes = getattr(part, "reads", "similarity"), getattr(part, "makes", "similarity")
        reads = "similarity" if step.settings.get("shortlist") else reads
        reads = "embeddings" if step.settings.get("training") else reads
        makes = "similarity" if step.settings.get("sides") == "query" else makes
        if compared and (reads, makes) == ("embeddings", "similarity"):
            raise KitError(f"{where}: {step.name}.training starts from embeddings (expected before all similarities)")
        if compared and makes == "embeddings":
            raise KitError(
                f"{place} is out of order (expected tta, then query_expansion or database_augmentation, then what "
                "makes similarities, such as k_reciprocal, posterior and blend)"
            )
        if step.name == "blend" and made["similarity"] == [None]:
            raise KitError(f"{place}: blend finds raw similarities alone (expected a step before it)")
        if reads == "evidence" and not evidence:
            raise KitError(f"{place}: {step.name} has no evidence to add (expected posterior or local before it)")
        weights = step.settings.get("weights") if reads == "evidence" else None
        if weights and len(weights) != len(evidence):
            raise KitError(f"{where}: {step.name}.weights: {len(weights)} for {len(evidence)} (likeness and evidence)")
        kind, shown = step.settings.get("kind", "sum"), f"{where}: {step.name}.weights: {list(weights or ())}"
        if weights and (not any(weights) or max(map(abs, weights)) > 1e30 or (kind == "rank" and min(weights) < 0)):
            raise KitError(f"{shown} (expected numbers up to 1e30, not all 0, and by ranks none below 0)")
        if weights and kind == "isotonic":
            raise KitError(f"{shown}: kind isotonic weighs nothing (expected sum)")
        read.update(made.get(reads, []))
        if makes == "embeddings":
            made["embeddings"] = [number]
        elif makes == "evidence":
            made["evidence"] = [*(evidence or made["similarity"]), number]
        elif reads == "evidence":
            made["evidence"] = []
        made["similarity"], compared = [number], compared or makes != "embeddings"
    if unread := [name for number, name in enumerate(named) if number not in {*read, *made["similarity"]}]:
        raise KitError(
            f"{place}: nothing reads what {unread[0]} makes (expected fuse behind all evidence, and no step "
            "between evidence and fuse)"
        )


def loss_parts(recipe: Recipe) -> list[Callable]:
    """The loss, or those of which it is the sum."""
    return [lookup("loss", part.name) for part in recipe.loss.settings.get("parts", [recipe.loss])]


def check_parts(recipe: Recipe, where: str) -> None:
    """Refuses what does not go together: a loss in another space than its model's, or mixing for a loss on pairs."""
    model, train, open_set = recipe.model, recipe.train, recipe.open_set or OpenSet()
    parts, geometry, named = loss_parts(recipe), model.geometry.build(), f"'{recipe.loss.name}'"
    if recipe.soup and recipe.checkpoint is None:
        raise KitError(f"{where}: soup: {list(recipe.soup)} is averaged with a checkpoint, but there is none (set it)")
    if any(geometry.hyperbolic != getattr(part, "hyperbolic", False) for part in parts):
        raise KitError(
            f"{where}: loss: {named} and model.geometry '{model.geometry.name}' are of two spaces (expected "
            "hyperbolic_arcface with poincare or lorentz, every other loss with the others)"
        )
    if geometry.unit and any(getattr(part, "reads_lengths", False) for part in parts):
        raise KitError(
            f"{where}: loss: {named} takes the length of an embedding for its quality, but those of model.geometry "
            "'hyperspherical' are all of length 1 (expected cosine)"
        )
    loss = recipe.loss.build(embedding_dim=2, num_identities=2, counts=(1, 1), geometry=geometry)
    wants_classes = {
        "open_set.decide: softmax": open_set.decide == "softmax",
        "postprocess: posterior": any(step.name == "posterior" for step in recipe.postprocess),
        "ensemble: posterior": recipe.ensemble.name == "posterior",
        f"train.select: {train.select}": "accuracy" in train.select,
        f"train.monitor: {train.monitor}": "accuracy" in train.monitor,
    }
    asked = next((what for what, wanted in wants_classes.items() if wanted), None)
    if asked and getattr(loss, "logits", lambda _: None)(torch.ones(1, 2)) is None:
        raise KitError(
            f"{where}: {asked} needs a loss with a class for each identity, such as arcface or cross_entropy; "
            f"{named} compares images"
        )
    split = recipe.data.split.name
    if open_set.decide == "softmax" and open_set.threshold is None and split != "open_set":
        raise KitError(
            f"{where}: open_set.threshold: null is fitted on identities held out whole, but data.split '{split}' holds "
            "out none (expected data.split: open_set, or a number such as 0.65)"
        )
    if hasattr(lookup("head", model.head.name), "fit_where_better") and not model.freeze:
        raise KitError(
            f"{where}: model.head: '{model.head.name}' is fitted to features that stay (expected freeze: true)"
        )
    if model.drop_path and model.freeze:
        raise KitError(
            f"{where}: model.drop_path: {model.drop_path} of a frozen backbone (expected 0, or freeze: false)"
        )
    before = [part for part in recipe.loss.settings.get("parts", [recipe.loss]) if part.settings.get("before_neck")]
    if before and (model.head.name != "bn_neck" or recipe.loss.name != "sum"):
        raise KitError(f"{where}: loss: before_neck needs model.head bn_neck, and a classifier beside it in a sum")
    if train.mixes and not loss.per_sample:
        needs = "needs a loss on single images, such as arcface"
        raise KitError(f"{where}: train.mix: '{train.mix.name}' {needs}; {named} looks at pairs")
    if train.views and (not model.freeze or train.mixes):
        found = f"has its images mixed ({train.mix.name})" if model.freeze else "learns (model.freeze: false)"
        raise KitError(
            f"{where}: train.views: {train.views} views can be kept of a frozen backbone only, and this one {found} "
            "(expected train.views: 0)"
        )


def notes_on_settings(recipe: Recipe) -> list[str]:
    """What a reader must know of settings that are allowed, and say less than they seem to."""
    of_directions = all(getattr(part, "of_directions", False) for part in loss_parts(recipe))
    if recipe.model.geometry.name == "euclidean" and of_directions:
        return [
            f"model.geometry: euclidean ranks by lengths, too, of which the loss '{recipe.loss.name}' teaches nothing: "
            "it compares directions"
        ]
    return []


def override(recipe: Recipe, text: str, where: str) -> Recipe:
    given = parse_override(text)
    for dotted in recipe.grid:
        if replaces(given, dotted.split(".")):
            raise KitError(f"{where}: the recipe's grid varies {dotted}; override grid instead")
    raw = merge_recipe(recipe_to_dict(recipe), {"seeds": [], **given} if "seed" in given else given)
    raw = read_as(raw, where) if "reading" in given else raw
    recorded = [] if "part" in given else [text]  # which changes no run
    return recipe_from_dict({**raw, "overrides": [*recipe.overrides, *recorded]}, where)


def replaces(given: Any, keys: Sequence[str], part: bool = False) -> bool:
    """Whether plain settings that are laid upon a recipe set what lies at these keys, or the whole of what it is in."""
    if not keys or not isinstance(given, Mapping) or (part and "name" in given):
        return True
    return keys[0] in given and replaces(given[keys[0]], keys[1:], part=True)


def read_as(raw: dict, where: str) -> dict:
    """Plain settings with those of the reading that they name laid upon them, as far as that is one of settings."""
    readings = convert(raw.get("readings"), tuple[Reading, ...], f"{where}: readings")
    reading = convert(raw["reading"], hints_of(Recipe)["reading"], f"{where}: reading")
    for number, changes in enumerate(getattr(entry, reading, "") for entry in readings):
        convert(changes, dict if isinstance(changes, Mapping) else str, f"{where}: readings[{number}].{reading}")
        raw = merge_recipe(raw, changes) if isinstance(changes, Mapping) else raw
    return raw


@dataclass(frozen=True)
class RunSpec:
    """One run of an experiment: a variant with a seed, and a recipe without variants, grid or seeds."""

    variant: str
    why: str
    recipe: Recipe
    derived: bool = False  # its settings come from other runs, so that an earlier result of other settings gives way

    @property
    def folder(self) -> str:
        return f"{self.variant}/seed{self.recipe.seed}"


OWN_FILES = ("experiment.json", "results.csv", "report.html", "report.md", "interpretation.md")  # beside its variants


def expand(recipe: Recipe, where: str = "recipe") -> list[RunSpec]:
    """All runs: variants x grid x seeds."""
    variants, dotted = recipe.variants or {"default": {}}, list(recipe.grid)
    for key, values in recipe.grid.items():
        if not isinstance(values, list) or not values:
            raise KitError(f"{where}: grid.{key}: {values!r} is not a list of values (example: [256, 512])")
        if key.partition(".")[0] in EXPERIMENT_WIDE:
            raise KitError(f"{where}: grid.{key}: can't vary between runs")
        if (settings := next((v for v in values if isinstance(v, (list, dict))), None)) is not None:
            raise KitError(
                f"{where}: grid.{key}: {settings!r} can't name a folder (expected names or numbers; what has "
                "settings of its own goes into variants)"
            )
    runs = math.prod(map(len, recipe.grid.values())) * len(variants) * max(len(recipe.seeds), 1)
    if runs > MOST_RUNS:
        raise KitError(f"{where}: variants, grid and seeds make {runs:,} runs (expected at most {MOST_RUNS:,})")
    base = {**recipe_to_dict(recipe), "variants": {}, "grid": {}, "seeds": [], "part": None, "overrides": []}
    specs = []
    for (name, settings), values in itertools.product(variants.items(), itertools.product(*recipe.grid.values())):
        place = f"{where}: variants.{name}" if recipe.variants else where
        settings = convert(settings, dict, place)
        why = convert(settings.pop("why", ""), str, f"{place}.why")
        if forbidden := {*EXPERIMENT_WIDE, "seed"} & settings.keys():
            raise KitError(f"{place}.{min(forbidden)}: can't vary between variants")
        for change in [settings, *map(nested, dotted, values), *map(parse_override, recipe.overrides)]:
            settings = merge_recipe(settings, change)
        settings = {key: value for key, value in settings.items() if key not in EXPERIMENT_WIDE}
        label = variant_label(str(name) if recipe.variants else "", dotted, values)
        if not re.fullmatch(r"[A-Za-z0-9_.,=+@-]{1,200}", label) or label.startswith("."):
            raise KitError(f"{place}: {label!r} can't name a folder (use up to 200 letters, digits, '_-.')")
        if label in OWN_FILES:
            raise KitError(f"{place}: {label!r} is a file of every experiment (expected another name)")
        once = convert_section(merge_recipe(base, settings), Recipe, f"{place}: ")
        check_steps(once.postprocess, f"{place}: postprocess")
        check_parts(once, place)
        specs += [RunSpec(label, why, with_seed(once, seed)) for seed in recipe.seeds or (once.seed,)]
    folders = [spec.folder for spec in specs]
    if len(set(folders)) < len(folders):
        shared = next(folder for folder in folders if folders.count(folder) > 1)
        raise KitError(
            f"{where}: two runs would share the folder '{shared}' (seeds, variants and grid values must differ)"
        )
    return specs


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    split = {"split_seed": seed} if recipe.data.split_by_seed else {}
    return replace(recipe, seed=seed, data=replace(recipe.data, **split))


def variant_label(name: str, dotted: Sequence[str], values: Sequence[Any]) -> str:
    """The folder name of a variant: "default", "arcface" or "arcface,layers=2,hidden=512"."""
    settings = [f"{key.rpartition('.')[2]}={value}" for key, value in zip(dotted, values)]
    return ",".join(([name] if name else []) + settings) or "default"


# 3. Runtime
# ----------------------------------------------------------------------------------------------------------------------

KAGGLE_INPUT, KAGGLE_WORKING, KAGGLE_SCRATCH = Path("/kaggle/input"), Path("/kaggle/working"), Path("/tmp")
WEIGHTS_VARIABLE, CACHE_VARIABLE = "JAGUAR_KIT_WEIGHTS", "JAGUAR_KIT_CACHE"
SESSION_VARIABLE = "JAGUAR_KIT_SESSION_START"  # when a Kaggle session began, in seconds since 1970
PARENT_VARIABLE = "JAGUAR_KIT_PARENT"  # process number of the one that started several to share the work


def on_kaggle() -> bool:
    return bool(os.environ.get("KAGGLE_KERNEL_RUN_TYPE"))


def session_age() -> float:
    """Seconds since this Kaggle session began, as its first process did, or as $JAGUAR_KIT_SESSION_START tells it.

    0 where that can't be told, or is longer ago than a session lasts.
    """
    age = 0.0
    with suppress(OSError, ValueError, IndexError):
        if began := os.environ.get(SESSION_VARIABLE):
            age = time.time() - float(began)
        else:
            ticks = int(Path("/proc/1/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
            age = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    return age if 0 < age < 12 * 3600 else 0.0


def find_mounted(pattern: str, root: Path = KAGGLE_INPUT, depth: int = 8) -> list[Path]:
    """Files below `root` whose name matches `pattern`, however deep a Kaggle mount puts them; nearest first.

    A folder with a match, or with more than 200 folders in it, is not searched further.
    """
    found: list[Path] = []
    for folder, below, files in os.walk(root, followlinks=True):  # what may not be looked into holds nothing for us
        paths = [Path(folder, name) for name in fnmatch.filter(files, pattern)]
        matches = [path for path in paths if path.is_file()]
        found += matches
        if matches or len(below) > 200 or len(Path(folder).relative_to(root).parts) >= depth - 1:
            below.clear()
    return sorted(found, key=lambda path: (len(path.parts), path))


def cache_dir() -> Path:
    """Where decoded images and features are kept: $JAGUAR_KIT_CACHE, Kaggle's scratch, or ~/.cache/jaguar_kit."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    if on_kaggle():
        return KAGGLE_SCRATCH / "jaguar_kit"
    try:
        return Path.home() / ".cache" / "jaguar_kit"
    except RuntimeError:
        raise KitError(f"HOME: this user has no home folder; set ${CACHE_VARIABLE} to a folder for the cache") from None


def pick_device(name: str = "auto") -> torch.device:
    """The device called "auto", "cpu" or "cuda"; "auto" takes the GPU that torch sees.

    A GPU on which a real operation fails, such as one too old for this torch, is refused with its name.
    """
    convert(name, Literal["auto", "cpu", "cuda"], "device")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise KitError("device: 'cuda' was asked for, but torch sees no GPU; use --device cpu or auto")
    try:
        torch.ones(8, device="cuda").square().sum().item()
    except RuntimeError as error:
        gpu, built_for = torch.cuda.get_device_name(), ", ".join(torch.cuda.get_arch_list())
        reason = str(error).splitlines()[0]
        raise KitError(
            f"device: torch {torch.__version__} can't use the {gpu} (built for {built_for}): {reason}; "
            "choose another accelerator (on Kaggle: T4 x2) or --device cpu"
        ) from None
    return torch.device("cuda")


def memory_format(device: torch.device) -> torch.memory_format:
    """How images, and the weights of convolutions, lie in memory: by what it costs and brings on that device."""
    # On a GPU each new shape costs a search: 13 s with channels last, 1.2 s without (resnet50, bf16, H200, torch 2.11),
    # for steps that are no faster. A CPU searches for nothing, and convolves faster with channels last.
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def core_count() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent(parent: int) -> None:
    """Ends this process soon after its parent, which a SIGKILL leaves no time to tell it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def process_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        return state != "Z"  # ended, though nobody has asked how
    except ProcessLookupError:
        return False
    except OSError:  # another user's, or where there is no /proc
        return True


@contextmanager
def on_sigterm(act: Callable[[], None]) -> Iterator[None]:
    """Within the block a SIGTERM does this instead of ending the process; in the main thread, which alone may ask."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def interrupt() -> None:
    raise KeyboardInterrupt


UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
    *(errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EFBIG, errno.EIO, errno.ELOOP),
)


@contextmanager
def unwritable_in_one_line(path: Path) -> Iterator[None]:
    """Turns a full disk, or a place that may not be written to, into one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in UNWRITABLE:
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise KitError(
            f"{path}: can't be written: {reason}; make room, or choose another --out or ${CACHE_VARIABLE}"
        ) from None


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`, renamed to it when the block ends well and removed when it fails.

    What a killed process left behind under the same name is swept away first. KitError when the disk is full or may
    not be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    with unwritable_in_one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob_escape(path.name)}.*.tmp*"):
            pid = left.name[len(path.name) + 2 :].partition(".")[0]
            if pid.isdigit() and (int(pid) == os.getpid() or not process_alive(int(pid))):
                remove_path(left)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            remove_path(temporary)


def remove_path(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


MEND_RUN = "set the run aside with --force, or remove it, and run it again"


def damaged(path: Path, what: object, remedy: str = MEND_RUN) -> KitError:
    """What to say of a file of the kit's own that is no longer what it wrote."""
    return KitError(f"{path}: is damaged: {one_line(what, 200) or 'unreadable'}; {remedy}")


def read_record(path: Path, needed: Mapping[str, type | tuple[type, ...]], remedy: str = MEND_RUN) -> dict[str, Any]:
    """A JSON object that the kit wrote, with values of these types; KitError with the remedy where it is damaged."""
    try:
        record = read_json(path)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error, remedy) from None
    if not isinstance(record, dict):
        raise damaged(path, "it is no JSON object", remedy)
    for key, kind in needed.items():
        if not isinstance(record.get(key), kind) or isinstance(record[key], bool):
            raise damaged(path, f"{key}: {record.get(key)!r}", remedy)
    return record


class Whole(dict):
    """The shape of a table that lacks none of these keys."""


def misfit(value: Any, shape: Any, where: str) -> str:
    """What of a value from JSON is not of this shape; "" where it is."""
    if isinstance(shape, tuple | type):
        return "" if isinstance(value, shape) and not isinstance(value, bool) else f"{where}: {value!r}"
    whole = not isinstance(shape, Whole) or (isinstance(value, dict) and shape.keys() <= value.keys())
    if not isinstance(value, list if isinstance(shape, list) else dict) or not whole:
        return f"{where}: {value!r}"
    inner = enumerate(value) if isinstance(shape, list) else value.items()
    shapes = ((key, one, shape[0] if isinstance(shape, list) else shape.get(key, shape.get(""))) for key, one in inner)
    found = (misfit(one, kind, f"{where}.{key}".lstrip(".")) for key, one, kind in shapes if kind is not None)
    return next(filter(None, found), "")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_table(path: str | Path, table: pd.DataFrame, encoding: str = "utf-8") -> None:
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, encoding=encoding)


class Busy(KitError):
    """Another process is at work there."""


@contextmanager
def only_one(path: Path, wait: bool = False) -> Iterator[None]:
    """Keeps a second process away from a file or folder, or makes it wait; the lock dies with its process."""
    import fcntl

    lock = path.with_name(f".{path.name}.lock")
    with unwritable_in_one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(lock, "w")  # noqa: SIM115 - held until the block ends
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                file.close()
                raise Busy(f"{path}: another process is at work on it; wait for it or choose another --out") from None
            if lock.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                break
            file.close()  # the one before us removed it as we opened it
    try:
        yield
    finally:
        remove_path(lock)
        file.close()


def world_size() -> int:
    """How many processes share the work."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is; the first alone speaks and writes."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def is_watched(stream: Any = None) -> bool:
    """Whether somebody looks on, in a notebook or at the terminal that a stream goes to (stdout unless given)."""
    with suppress(ValueError, OSError):
        return "ipykernel" in sys.modules or (stream or sys.stdout).isatty()
    return False


def duration(seconds: float) -> str:
    """A time in words, such as "45 s", "12 min" or "3.5 h"."""
    minutes = seconds / 60
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


class LinesOfProgress(io.TextIOBase):
    """A stream that takes a progress bar's updates as lines, where nobody looks on."""

    def write(self, text: str) -> None:
        if line := text.strip():
            echo(f"    {line}")


def progress(items: Iterable, label: str, total: int | None = None) -> Iterable:
    """A progress bar with an ETA on a terminal and in a notebook; elsewhere a line every half minute."""
    from tqdm.auto import tqdm

    settings: dict[str, Any] = {}
    if not is_watched(sys.stderr):
        settings = {"file": LinesOfProgress(), "delay": 30, "mininterval": 30, "maxinterval": 30}
        settings["bar_format"] = "{desc}: {n_fmt} of {total_fmt}, {remaining} left"
    return tqdm(items, desc=label, total=total, disable=rank() > 0, leave=False, **settings)


def echo(text: str) -> None:
    """Prints a line in the first process; where nobody can read it any more, work goes on all the same."""
    if rank() > 0:
        return
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        print(text.encode(sys.stdout.encoding or "ascii", "backslashreplace").decode("ascii", "replace"), flush=True)
    except OSError as error:  # the reader, such as head, has enough, or the disk that takes the output is full
        with suppress(OSError, ValueError):  # ValueError: no file stands behind it, as in a notebook
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError):
                print(f"note: the output can't be written any more: {error.strerror}", file=sys.stderr)


def quiet() -> redirect_stdout:
    """Nothing is printed within the block."""
    return redirect_stdout(io.StringIO())


def rooms_for(what: str) -> bool:
    """Whether tools/ is there; where it is not, a line tells what goes without it."""
    if rooms_folder() is None:
        echo(f"  note: {what}: there is no tools/ beside {Path(__file__).resolve()}")
    return rooms_folder() is not None


def bytes_of(what: Any) -> Iterator[Any]:
    """The bytes that tell versions apart, in pieces: of a file (its path), an array, named tensors, plain values."""
    if isinstance(what, str | Path):
        with open(what, "rb") as file:
            while piece := file.read(1 << 20):
                yield piece
    elif isinstance(what, Mapping):
        for name in sorted(what):
            tensor = what[name].detach().cpu().contiguous()
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield tensor.view(-1).view(torch.uint8).numpy() if tensor.numel() else b""
    else:
        yield what.tobytes() if isinstance(what, np.ndarray) else json.dumps(what, sort_keys=True, default=str).encode()


def sha_of(what: Any) -> str:
    """The SHA-256, in hexadecimal digits, of whatever `bytes_of` reads."""
    digest = hashlib.sha256()
    for piece in bytes_of(what):
        digest.update(piece)
    return digest.hexdigest()


def fingerprint(*parts: Any) -> str:
    """The key of whatever is kept: 16 hexadecimal digits that change when any of the plain values changes."""
    return sha_of(parts)[:16]


def file_version(path: Path) -> tuple[Path, int, int]:
    """What tells a file's versions apart without reading them: its path, when it was last written, and its size."""
    status = os.stat(path)
    return path, status.st_mtime_ns, status.st_size


def once_per_version(function: Callable) -> Callable:
    """A function of a file's path that is worked out once for each `file_version`."""
    kept = lru_cache(maxsize=64)(lambda version: function(version[0]))
    call = wraps(function)(lambda path: kept(file_version(path)))
    call.cache_clear = kept.cache_clear
    return call


version_of = once_per_version(sha_of)


def file_sample(path: Path, block: int = 4096) -> tuple[int, int]:
    """A file's size, and a checksum of its beginning, middle and end: quick, and other for nearly any other file."""
    with open(path, "rb") as file:
        size, value = os.fstat(file.fileno()).st_size, 0
        for place in (0, size // 2, max(size - block, 0)):
            file.seek(place)
            value = zlib.crc32(file.read(block), value)
    return size, value


def seed_everything(*numbers: int) -> None:
    """Seeds Python, numpy and torch from a tuple of numbers, such as (seed, epoch, step).

    Every step seeds itself, so that a resumed run draws what the uninterrupted one would have drawn.
    """
    seed = int.from_bytes(hashlib.sha256(repr(tuple(map(int, numbers))).encode()).digest()[:4], "little")
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a millisecond on a machine without a GPU
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def recipe_path(name: str | Path) -> Path:
    """A recipe's file, by its path, or by its name: here, in recipes/, beside the module, or in Kaggle's input."""
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    here = Path(__file__).resolve().parent
    places = [Path("recipes"), Path(), here / "recipes", here / ROOMS / "recipes"]
    found = [place / f"{name}.yaml" for place in places] + find_mounted(f"{glob_escape(str(name))}.yaml")
    if file := next(filter(Path.is_file, found), None):
        return file
    there = sorted({file.stem for place in places if place.is_dir() for file in place.glob("*.yaml")})
    looked = ", ".join(map(str, [*places, KAGGLE_INPUT]))
    raise KitError(f"{name}: there is no recipe of this name in {looked}; {suggest(name, there, 'the path of one')}")


def base_path(path: Path, base: str) -> Path:
    """The file that a recipe is based on: from its own folder, or what comes with the kit and has that name."""
    beside = path.parent / (base if Path(base).suffix else f"{base}.yaml")
    if beside.exists() or len(Path(base).parts) != 1 or beside.suffix != ".yaml":
        return beside
    try:
        return recipe_path(Path(base).stem)
    except KitError as error:
        raise KitError(f"{path}: base: {error}") from None


def read_recipe(path: Path, seen: tuple[Path, ...]) -> Recipe:
    if path.resolve() in seen:
        raise KitError(f"{path}: base: recipes are based on each other in a circle")
    try:
        if path.exists() and not path.is_file():
            raise IsADirectoryError(errno.EISDIR, "not a file" if not path.is_dir() else "a folder")
        if path.is_file() and path.stat().st_size > MOST_BYTES_OF_TEXT:
            raise OSError(errno.EFBIG, f"more than {MOST_BYTES_OF_TEXT:,} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        near = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise KitError(
            f"{path}: can't be read ({getattr(error, 'strerror', None) or error}); {suggest(path, near)}"
        ) from None
    raw = read_yaml(text, str(path))
    if not isinstance(raw, Mapping):
        raise KitError(f"{path}: holds no settings (expected 'key: value' lines)")
    raw = {"name": path.stem, **raw}
    if (base := raw.pop("base", None)) is not None:
        base = base_path(path, convert(base, str, f"{path}: base"))
        below = recipe_to_dict(read_recipe(base, (*seen, path.resolve())))
        if below["reading"] != "published" and raw.get("reading", below["reading"]) != below["reading"]:
            raise KitError(
                f"{path}: reading: {raw['reading']!r}, but its base {base} was read as {below['reading']!r} already "
                "(expected the same, or a base that is read as published)"
            )
        numbers = ("published", "leaderboard")  # of others belong to one experiment
        own_words = {"conclusion": "", **{key: {} for key in numbers if set(numbers) & raw.keys()}}
        readings = convert(raw.get("readings"), tuple[dict, ...], f"{path}: readings")
        inherited = [entry for entry in below["readings"] if entry["about"] not in [t.get("about") for t in readings]]
        raw = merge_recipe({**below, **own_words, **({"seeds": []} if "seed" in raw else {})}, raw)
        raw["readings"] = [*readings, *inherited]
    return recipe_from_dict(read_as(raw, str(path)) if "reading" in raw else raw, str(path))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a YAML recipe, the one it is based on first (`base: other.yaml` from its own folder, or by name).

    path: of a file, or a name such as "quickstart", as `recipe_path` has it.
    `overrides` are texts like "train.epochs=3". Raises KitError on anything that is not understood.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise KitError(
            f"recipe: {path!r} (expected the path or the name of a recipe, a mapping of settings, or a Recipe)"
        )
    path = recipe_path(path)
    recipe = read_recipe(path, seen=())
    read = [text for text in overrides if text.partition("=")[0].strip() == "reading"]
    if len({text.partition("=")[2].strip() for text in read}) > 1:
        raise KitError(f"{path}: -o {' -o '.join(read)}: lay two readings over each other (expected one of them)")
    for text in sorted(overrides, key=lambda text: not text.lstrip().startswith("reading")):  # others go before it
        recipe = override(recipe, text, f"{path} with -o {text}")
    return recipe


# 4. Data
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Competition:
    """Labelled training images and, where there is one, a test table whose images are query and gallery alike."""

    root: Path
    train: pd.DataFrame  # filename, identity, path (below root), and further columns of train.csv and views.csv
    pairs: pd.DataFrame | None = None  # row_id, query_image, gallery_image; None when there is nothing to submit
    # filename, path of every image that the pairs name, and further columns of views.csv
    test: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"filename": [], "path": []}, dtype=str))
    solution: pd.Series | None = None  # identity by test filename, where solution.csv tells it; for scoring only
    notes: tuple[str, ...] = ()  # what is unusual but no fault
    open_set: bool = False  # a test image may show an individual that nobody knows; the submission names identities

    def noted(self, *notes: str) -> Competition:
        """The same data with more notes; an empty one is none."""
        return replace(self, notes=(*self.notes, *filter(None, notes)))

    @property
    def identities(self) -> list[str]:
        return sorted(self.train.identity.unique())

    @property
    def paths(self) -> list[str]:
        """Paths below root, training images first, then test images: the order of the image store."""
        return [*self.train.path, *self.test.path]

    @cached_property
    def fingerprint(self) -> str:
        """Changes with every column of the tables and with file sizes, so that other data are not taken for these."""
        tables = [name for name in ("train.csv", "test.csv", "metadata.csv") if (self.root / name).is_file()]
        sizes = [file_sample(self.root / path) for path in [*self.paths, *tables]]
        train = self.train
        if EXTRA in train:  # whose paths are absolute, and change where a project is moved
            train = train.assign(path=train.path.where(train[EXTRA] == "", train.filename))
        columns = [(name, list(table[name].map(str))) for table in (train, self.test) for name in table]
        solution = [] if self.solution is None else [list(self.solution.map(str))]
        return fingerprint(columns, sizes, *solution)


def first_few(listed: Sequence[str], most: int = 12) -> str:
    """The first names of a list that may be long, and how many more there are."""
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def listing(names: Sequence[str], what: str, where: object = "") -> str:
    """A line on names: where they are, how many, what is with them, and the first few; "" where there are none."""
    return f"{where}{': ' if where else ''}{len(names)} {what}: {first_few(names)}" if names else ""


def refuse(names: Sequence[str], what: str, where: object = "", remedy: str = "") -> None:
    """KitError with a line on these names, unless there are none."""
    if names:
        raise KitError(listing(names, what, where) + remedy)


AS_TEXT = {"keep_default_na": False, "encoding": "utf-8-sig", "index_col": False}  # how a CSV is read
CHUNK = 1 << 19  # rows of a long table that are worked on at a time


def read_table(
    path: Path, columns: Sequence[str], dtypes: Mapping[str, str] | None = None, separator: str = ","
) -> pd.DataFrame:
    """A CSV whose cells are text unless `dtypes` says otherwise; KitError when it lacks a column or has no rows.

    columns: those that it must have; "path or filename" asks for one of the two.
    """
    try:
        if path.exists() and not path.is_file():
            raise KitError(f"{path}: is {'a folder' if path.is_dir() else 'no file'} (expected a CSV)")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with more cells than the header
            table = pd.read_csv(path, dtype=dtypes or str, sep=separator, **AS_TEXT)
    except FileNotFoundError:
        raise KitError(f"{path}: there is no such file") from None
    except OSError as error:
        raise KitError(f"{path}: can't be read: {error.strerror or error}") from None
    except (pd.errors.ParserWarning, UnicodeDecodeError, ValueError) as error:
        raise KitError(f"{path}: not a readable CSV: {' '.join(str(error).split())}") from None
    missing = [wanted[0] for wanted in (c.split(" or ") for c in columns) if table.columns.intersection(wanted).empty]
    if missing:
        raise KitError(
            f"{path}: column '{missing[0]}' is missing (expected {','.join(columns)}; "
            f"found {','.join(map(str, table.columns))})"
        )
    if table.empty:
        raise KitError(f"{path}: has no rows below its header")
    return table


def check_names(table: Path, column: str, filenames: Iterable[str]) -> None:
    """Refuses empty image names and names that lead out of the data folder."""
    for name in filenames:
        parts = re.split(r"[/\\]", name)
        if not name.strip() or ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise KitError(f"{table}: {column}: {name!r} is not an image inside the data folder")


def check_images(table: Path, column: str, root: Path, paths: Iterable[str]) -> None:
    """Refuses names that lead out of the data folder, and lists all images of a table that are not below `root`."""
    check_names(table, column, paths)
    missing = [path for path in paths if not (root / path).is_file()]
    refuse(missing, f"images are not in {root}", f"{table}: {column}")


def locate_images(root: Path, part: str, filenames: Sequence[str], table: Path, column: str) -> list[str]:
    """Paths below `root` of images in part/part/, part/ or root itself; KitError lists all that are missing."""
    check_names(table, column, filenames)
    folders = [f for f in (f"{part}/{part}", part, ".") if (root / f).is_dir()]
    there = {folder: {e.name for e in os.scandir(root / folder) if e.is_file()} for folder in folders}
    homes = {
        name: next((f for f in folders if name in there[f] or ("/" in name and (root / f / name).is_file())), None)
        for name in filenames
    }
    refuse([name for name in filenames if homes[name] is None], f"images are not in {root / part}", table)
    return [str(Path(homes[name]) / name) for name in filenames]


# Formats of photographs: PIL would else try all that it knows, and start other programs for some, such as Ghostscript.
FORMATS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "QOI", "SGI"),
    *("TGA", "TIFF", "WEBP"),
)
MARKER = ".jaguar_kit"  # a file in every folder of results, by which it is told from data
RESULTS = (MARKER, "experiment.json", "answers.csv")  # one of these makes a folder one of results
# What a system, a NAS or a program leaves anywhere, in lower case.
LITTER = {
    *("@eadir", "@tmp", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "~snapshot", "__macosx"),
    *("$recycle.bin", "recycler", "lost+found", "lost.dir", "found.000", "system volume information", "__pycache__"),
}
MASKS = re.compile(r"(segmentation_?)?masks?(_\w+)?|segmentations?", re.IGNORECASE)  # folders of masks
NOBODY = re.compile(  # names of splits and of what a camera's card holds at its top
    r"(train|val|valid|validation|test|eval|holdout)(ing|[-_]?sets?|[-_]?images?|20\d\d)?"
    r"|quer(y|ies)|gallery|database|dcim|avf_info|android|thumbnails",
    re.IGNORECASE,
)
CAMERA_FOLDER = re.compile(  # DCF's, such as 100CANON
    r"[1-9]\d\d(CANON|NIKON|MEDIA|MSDCF|_PANA|OLYMP|GOPRO|APPLE|ANDRO|CASIO|RICOH|PENTX|LEICA|_FUJI|RECNX|BTCF_?|STLTH)"
)


@cache
def image_formats() -> tuple[str, ...]:
    """Those of FORMATS that can be read here; HEIF where pillow-heif is installed."""
    Image.init()
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


RAW = frozenset({".nef", ".cr2", ".cr3", ".arw", ".dng", ".orf", ".raf", ".rw2", ".pef", ".srw"})  # of cameras


@cache
def image_suffixes() -> frozenset[str]:
    formats = image_formats()
    readable = {suffix for suffix, name in Image.EXTENSION.items() if name in formats}
    return frozenset(readable | (RAW if importlib.util.find_spec("rawpy") else set()))


def refuse_results(root: Path) -> None:
    """Refuses to take the pictures of a report, or of answers, for photographs."""
    if any((root / name).is_file() for name in RESULTS):
        raise KitError(f"{root}: holds results of this kit, no photographs (expected a folder of images)")


class FolderScan:
    """What lies below a folder, in folders that are links too: its images, and in `notes` all that was not read.

    Hidden files, folders of results, litter of systems, and `leave_out` (paths below root) are left out. KitError on
    names that are no text.
    """

    def __init__(self, root: Path, leave_out: Sequence[str] = ()):
        self.root, self.images = root, []  # paths relative to the root, in order
        self.unread: dict[str, Counter[str]] = {}  # by folder at the top, how many other files by their ending
        self.left: list[str] = []  # folders that are left out, and how many files are in them
        self.linked: list[str] = []  # links to folders
        self.dead_links: list[str] = []  # links that lead nowhere, or where a folder was read already
        away, seen = {os.path.realpath(root / path) for path in leave_out}, set()
        for folder, folders, files in self.walk():
            here, status = folder.relative_to(root), os.stat(folder)
            if here != Path() and any(name in files for name in RESULTS):
                self.left.append(f"{here} (results of this kit)")
                folders.clear()
            elif (status.st_dev, status.st_ino) in seen:
                self.dead_links.append(str(here))
                folders.clear()
            else:
                seen.add((status.st_dev, status.st_ino))
                self.read(folder, here, folders, files, away)
        self.images.sort()

    def walk(self) -> Iterator[tuple[Path, list[str], list[str]]]:
        """os.walk that goes into links to folders too, after all real folders, so that a link stands for none."""

        def stop(error: OSError) -> None:
            raise KitError(f"{error.filename}: can't be read: {error.strerror}; make it readable, or move it away")

        waiting = [str(self.root)]
        while waiting:
            for folder, folders, files in os.walk(waiting.pop(0), onerror=stop):
                odd = next((name for name in (*folders, *files) if re.search("[\ud800-\udfff]", name)), None)
                if odd is not None:  # no table and no page could tell it
                    raise KitError(f"{folder}: the name {os.fsencode(odd)!r} is not UTF-8; rename it (convmv does)")
                yield Path(folder), folders, files
                waiting += [path for path in (os.path.join(folder, name) for name in folders) if os.path.islink(path)]

    def read(self, folder: Path, here: Path, folders: list[str], files: list[str], away: set[str]) -> None:
        self.linked += [str(here)] if here != Path() and folder.is_symlink() else []
        for name in list(folders):
            litter = name.startswith(".") or name.lower() in LITTER or name.lower().endswith(".lrdata")
            masks = bool(here.parts) and MASKS.fullmatch(name) is not None
            if litter or masks or os.path.realpath(folder / name) in away:
                count = sum(len(names) for _, _, names in os.walk(folder / name))
                self.left.append(f"{here / name} ({count} files)" if count else str(here / name))
                folders.remove(name)
        folders.sort()
        counts = self.unread.setdefault(here.parts[0] if here.parts else "", Counter())
        for name in sorted(n for n in files if not n.startswith(".") and (here.parts or n != "views.csv")):
            kind = Path(name).suffix.lower() or "without ending"
            if kind in image_suffixes() and (folder / name).is_file():
                self.images.append(here / name)
                continue
            lost = (folder / name).is_symlink() and not (folder / name).exists()
            self.dead_links += [str(here / name)] if lost else []
            counts[kind] += 1

    def others(self, *tops: str) -> str:
        """How many files that are no images there are of each ending, in words; in all folders, or these at the top."""
        kinds = sum((counts for top, counts in self.unread.items() if not tops or top in tops), Counter())
        return one_line(", ".join(f"{n} {kind}" for kind, n in kinds.most_common()), 400)

    @property
    def notes(self) -> list[str]:
        others = self.others()
        hint = "; pip install pillow-heif reads .heic" if re.search(r"\.hei[cf]\b", others) else ""
        raw = RAW & set(re.findall(r"\.\w+", others))
        hint += f"; pip install rawpy reads the previews in {', '.join(sorted(raw))}" if raw else ""
        notes = [
            f"{self.root}: files that are no images that can be read here: {others}{hint}" if others else "",
            listing(self.left, "folders hold no data and are left out", self.root),
            listing(sorted(self.linked), "links to folders were followed", self.root),
            listing(sorted(self.dead_links), "links lead nowhere, or where a folder was read already", self.root),
        ]
        return [note for note in notes if note]


def load_competition(root: str | Path, masks: str | None = None) -> Competition:
    """Reads and checks a data folder: Jaguar Re-ID's layout, AnimalCLEF's, or a plain folder of `identity/*.jpg`.

    masks: a folder below root that holds masks, no individual.

    Every fault is found before any work begins: missing columns, duplicate rows, images that are not there
    (all of them are named), names that lead out of the folder, an empty table. The pairs of test.csv may come in
    any order and need not be complete.
    """
    root = Path(root)
    if not root.is_dir():
        raise KitError(f"{root}: there is no such folder (expected one with train.csv and test.csv, or identity/*.jpg)")
    if (root / "train.csv").is_file():
        found = load_tables(root)
    else:
        tells = room("experiments.open_set", str(root / "metadata.csv")) if (root / "metadata.csv").is_file() else None
        found = tells.load_metadata(root) if tells else load_folders(root, masks)
    unnamed = sorted(p.name for p in root.iterdir() if p.is_dir() and MASKS.fullmatch(p.name)) if masks is None else []
    note = f"{root}: {first_few(unnamed)} may hold masks, and is not read (name it in data.masks)"
    return with_views(with_solution(found)).noted(note if unnamed else "")


def load_tables(root: Path) -> Competition:
    table = root / "train.csv"
    train = read_table(table, ("filename", "ground_truth")).drop(columns=["identity", "path"], errors="ignore")
    train = train.rename(columns={"ground_truth": "identity"})
    notes = clean_labels(table, train, "ground_truth")
    train["path"] = locate_images(root, "train", train.filename, table, "filename")
    check_unique(train.path.map(os.path.normpath), table, "filename")
    notes.append(note_on_unlisted(root, "train", train.path))
    if not (root / "test.csv").is_file():
        return Competition(root, train).noted(*notes)
    pairs = load_pairs(root / "test.csv")
    filenames = sorted({*pairs.query_image.cat.categories, *pairs.gallery_image.cat.categories})
    paths = locate_images(root, "test", filenames, root / "test.csv", "query_image, gallery_image")
    test = pd.DataFrame({"filename": filenames, "path": paths})
    return Competition(root, train, pairs, test).noted(*notes, note_on_unlisted(root, "test", paths))


NEW = "new_individual"  # the answer for an animal that nobody knows
VAGUE = re.compile(  # labels that may be no name
    r"(unknown|unidentified|un-?named|unassigned|undefined|not[ _]?(identified|known)|no[ _]?(id|name)|unk|n\.?/?_?a"
    r"|nan|none|null|tbd|x|-|\?+)[ ._#]*(individual|animal|jaguar)?[ _]*\d*",
    re.IGNORECASE,
)
# What nobody sees; joiners stay between letters of scripts that need them, and in emoji.
JOINED = "\u0600-\u0fff\u1780-\u17ff\u2600-\u27bf\U0001f000-\U0010ffff"
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
    f"|(?<![{JOINED}])[\u200c\u200d]|[\u200c\u200d](?![{JOINED}])"
)


def clean_label(text: str) -> str:
    """A label as it is read: composed accents (NFC), nothing invisible, no blanks at its ends, single ones within."""
    return " ".join(INVISIBLE.sub("", unicodedata.normalize("NFC", text)).split())


def read_labels(written: pd.Series) -> pd.Series:
    """Labels as they are read; a column of whole numbers that a spreadsheet made 1.0, 2.0 is read as 1, 2."""
    labels = written.map(clean_label)
    names = labels[labels != ""]
    return labels.str.replace(r"\.0+$", "", regex=True) if names.str.fullmatch(r"-?\d+\.0+").all() else labels


def clean_labels(table: Path, train: pd.DataFrame, column: str) -> list[str]:
    """Cleans the labels of a table in place and checks them; what is to be said about them."""
    written = train.identity
    train["identity"] = read_labels(written)
    check_labels(table, train, column)
    other = written != train.identity
    pairs = dict.fromkeys(f"{a!a} as {b!r}" for a, b in zip(written[other], train.identity[other]))
    note = f"{table}: {column}: {other.sum()} labels are read without what nobody sees: {first_few([*pairs])}"
    return [*filter(None, (note if pairs else "", *notes_on_labels(train)))]


def check_labels(table: Path, train: pd.DataFrame, column: str) -> None:
    unlabelled = train.filename[train.identity == ""]
    if len(unlabelled):
        raise KitError(f"{table}: {column}: empty for {first_few(list(unlabelled))}")
    new = train.identity.map(lambda name: re.sub("[ _-]+", "_", name.casefold()) == NEW)
    if new.any():
        raise KitError(
            f"{table}: {column}: {NEW!r} is the answer for animals that nobody knows, no label (expected a name; "
            f"leave these {new.sum()} images out)"
        )
    check_unique(train.filename, table, "filename")
    if train.identity.nunique() < 2:
        raise KitError(f"{table}: {column}: only one identity, '{train.identity.iloc[0]}'; at least two are needed")


def load_pairs(table: Path) -> pd.DataFrame:
    """test.csv with its image columns as categories, so that 25 million rows fit in memory.

    Row ids are int64 where every one is written as such a number is, and text otherwise, so that they are told again to
    the letter: 0007 is not 7, nor is +7.
    """
    columns = ("row_id", "query_image", "gallery_image")
    types = dict.fromkeys(("query_image", "gallery_image"), "category")
    pairs = read_table(table, columns, types)
    if pairs.row_id.dtype != np.int64 or not written_plainly(table, pairs.row_id.to_numpy()):
        pairs = read_table(table, columns, {**types, "row_id": "str"})
    check_unique(pairs.row_id, table)
    return pairs


def written_plainly(table: Path, row_ids: np.ndarray) -> bool:
    """Whether the numbers stand in the table without signs, blanks or leading zeros: by how long their texts are."""
    if row_ids.min() < 0:
        return False
    chunks = pd.read_csv(table, usecols=["row_id"], dtype=str, chunksize=CHUNK, **AS_TEXT)
    return all((chunk.row_id.str.len() == digit_counts(row_ids[chunk.index])).all() for chunk in chunks)


def digit_counts(numbers: np.ndarray) -> np.ndarray:
    """How many decimal digits whole numbers from 0 on have."""
    return np.searchsorted(10 ** np.arange(1, 19), numbers, "right") + 1


def check_unique(values: pd.Series, table: str | Path, column: str = "row_id") -> None:
    """Refuses values of which a table has several rows."""
    if values.dtype.kind in "iu" and (values.to_numpy()[1:] > values.to_numpy()[:-1]).all():
        return  # rising numbers, as nearly always; hashing them all takes a hundred times longer
    twice = values[values.duplicated()].unique()
    if len(twice):
        raise KitError(f"{table}: {column}: more than one row for {first_few(list(map(str, twice)))}")


def with_solution(competition: Competition) -> Competition:
    """The data with the identity of each test image where solution.csv tells all of them; a note where it does not."""
    table, test = competition.root / "solution.csv", list(competition.test.filename)
    if not table.is_file() or (competition.pairs is None and not competition.open_set):
        return competition
    key, value = ("image_id", "identity") if competition.open_set else ("filename", "ground_truth")
    solution = read_labels(read_table(table, (key, value)).set_index(key)[value])
    check_unique(solution.index.to_series(), table, key)
    known = sum(solution.get(name, "") != "" for name in test)
    if known < len(test):
        return competition.noted(f"{table}: tells {known} of {len(test)} test images, so that nothing is scored by it")
    solution = solution.reindex(test)
    others = 0 if competition.open_set else int((~solution.isin(competition.train.identity)).sum())
    note = f"{table}: {others} of {len(solution)} test images show nobody of train.csv"
    return replace(competition, solution=solution).noted(note if others else "")


def with_views(competition: Competition) -> Competition:
    """The data with the columns of an optional views.csv (flank, burst, sighting, ...); of how many images it tells.

    Its rows are fitted to the images of both tables at once, so that none tells of two.
    """
    table, train, test = competition.root / "views.csv", competition.train, competition.test
    if not table.is_file():
        return competition
    views = read_table(table, ("path or filename",))
    key = "path" if "path" in views else "filename"
    rows = np.split(match_images(table, views, key, pd.concat([train, test], ignore_index=True)), [len(train)])
    joined, notes = [], []
    for part, found, called in zip((train, test), rows, ("training", "test")):
        taken = [column for column in views if column not in (*part.columns, "identity", "ground_truth")]
        columns = views[taken].iloc[found].set_axis(part.index)
        columns[found < 0] = None
        joined.append(pd.concat([part, columns], axis=1))
        count = int((found >= 0).sum())
        note = f"{table}: tells {', '.join(taken) or 'nothing new'} of {count} of {len(part)} {called} images"
        if not count and called == "training":
            note += f" (it names {views[key].iloc[0]}, the images are called {train.path.iloc[0]})"
        notes += [note] if count or called == "training" else []
    return replace(competition, train=joined[0], test=joined[1]).noted(*notes)


def ends_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether the shorter of two paths is the end of the longer."""
    length = min(len(one), len(other))
    return one[-length:] == other[-length:]


def match_images(table: Path, views: pd.DataFrame, key: str, images: pd.DataFrame) -> np.ndarray:
    """The row of `views` that tells of each image (N,), -1 where none does.

    An image is known by its path below the root, of which a row may tell more or less folders, as long as that fits
    one image and one row alone.
    """
    written = [Path(os.path.normpath(name.replace("\\", "/"))).parts for name in views[key]]
    content = list(zip(*(views[column] for column in views if column not in ("path", "filename")))) or [()] * len(views)
    rows: dict[tuple[str, ...], int] = {}
    by_name: dict[str, list[int]] = {}
    for row, parts in enumerate(written):
        if content[rows.setdefault(parts, row)] != content[row]:
            raise KitError(f"{table}: more than one row for {'/'.join(parts)}, with different values")
        by_name.setdefault(parts[-1] if parts else "", []).append(row)
    found = []
    for names in ([Path(path).parts, Path(name).parts] for path, name in zip(images.path, images.filename)):
        exact = next((rows[parts] for parts in names if parts in rows), None)
        last = by_name.get(names[0][-1], ())
        alike = {rows[written[row]] for row in last if any(ends_alike(written[row], name) for name in names)}
        found.append(exact if exact is not None else alike.pop() if len(alike) == 1 else -1)
    times = Counter(found)
    sure = [times[row] == 1 or written[row] == Path(path).parts for row, path in zip(found, images.path)]
    return np.where(sure, found, -1)


def notes_on_labels(train: pd.DataFrame) -> list[str]:
    """What is unusual: identities of one image, names that may be none, names that differ by case alone."""
    counts = train.identity.value_counts().sort_index()
    singles, vague = [*counts.index[counts == 1]], [*filter(VAGUE.fullmatch, counts.index)]
    folded = itertools.groupby(sorted(counts.index, key=str.casefold), str.casefold)
    alike = [" and ".join(names) for names in (list(group) for _, group in folded) if len(names) > 1]
    return [
        listing(singles, "identities have one image and stay in training"),
        *(f"{counts[n]} images are of an individual called {n!r}; leave them out if it is none" for n in vague),
        f"individuals whose names differ by case alone are taken for several: {first_few(alike)}" if alike else "",
    ]


def note_on_unlisted(root: Path, part: str, listed: Iterable[str]) -> str:
    """A note on images below the folder of a part that are not among the listed paths (below root) of its table."""
    folder = next((root / f for f in (f"{part}/{part}", part) if (root / f).is_dir()), None)
    known = {os.path.normpath(root / path) for path in listed}
    images = FolderScan(folder).images if folder else []
    found = [str(path) for path in images if os.path.normpath(folder / path) not in known]
    return listing(found, f"images in {part}/ stand in no table and are not used")


def is_nobody(name: str) -> bool:
    """Whether a folder is called like a split, like masks, or as a camera calls it."""
    return any(kind.fullmatch(name) for kind in (NOBODY, MASKS, CAMERA_FOLDER))


def load_folders(root: Path, masks: str | None = None) -> Competition:
    """A plain folder with a folder of images for each individual; what no individual is called is left out, aloud."""
    refuse_results(root)
    found = FolderScan(root, [masks] if masks else [])
    loose = [str(path) for path in found.images if len(path.parts) == 1]
    counts = Counter(path.parts[0] for path in found.images if len(path.parts) > 1)
    nobody = sorted(filter(is_nobody, counts))
    if nobody and len(nobody) == len(counts):
        raise KitError(
            f"{root}: {first_few(nobody)} are names of splits, masks or cameras, no individuals (expected a folder of "
            f"images for each individual; give --data {root / nobody[0]}, or a train.csv)"
        )
    if not counts:
        others = f"; there are {found.others()}" if found.others() else ""
        raise KitError(f"{root}: has neither train.csv nor folders of images (identity/*.jpg){others}")
    images = [path for path in found.images if len(path.parts) > 1 and path.parts[0] not in nobody]
    paths = [str(path) for path in images]
    train = pd.DataFrame({"filename": paths, "identity": [path.parts[0] for path in images], "path": paths})
    left = [f"{name} ({counts[name]} images)" for name in nobody]
    empty = sorted(name for name in found.unread if name and name not in counts and not is_nobody(name))
    without = [f"{name} ({found.others(name) or 'empty'})" for name in empty]
    return Competition(root, train).noted(
        *clean_labels(root, train, "identity"),
        *found.notes,
        listing(left, "folders called like splits, masks or cameras are no individuals and are left out", root),
        listing(without, "folders have no image that can be read", root),
        listing(loose, "images lie in no identity's folder and are not used"),
    )


# images and their store


def open_image(path: str | Path) -> Image.Image:
    """An open image of one of FORMATS, or the preview that a camera put into its RAW file; PIL's own error where it is
    none, OSError where it is no file (a pipe)."""
    if not os.path.isfile(path):
        raise OSError(errno.ENOENT, "is no file", str(path))
    if Path(path).suffix.lower() in RAW and importlib.util.find_spec("rawpy"):
        import rawpy

        with rawpy.imread(str(path)) as raw:
            preview = raw.extract_thumb()
        bitmap = preview.format == rawpy.ThumbFormat.BITMAP
        return Image.fromarray(preview.data) if bitmap else Image.open(io.BytesIO(preview.data), formats=["JPEG"])
    return Image.open(path, formats=image_formats())


# What turns an image upright, for EXIF's orientations from 2 on.
UPRIGHT = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"]


def upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF tag; as it is where that can't be read."""
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # noqa: BLE001 - PIL raises nearly anything on broken metadata, and the pixels are good
        orientation = None
    turned = orientation in range(2, 9)
    return image.transpose(Image.Transpose[UPRIGHT[orientation - 2]]) if turned else image


def read_upright(path: str | Path) -> Image.Image:
    """The whole image, turned by its EXIF tag, deep gray values in 8 bits."""
    with open_image(path) as opened:
        image = upright(opened)
        image.load()
        return gray_from_deep(image) if image.mode.startswith("I") or image.mode == "F" else image


def read_image(path: str | Path, mask: str | Path | None = None) -> tuple[Image.Image, Image.Image | None]:
    """An image as (RGB, mask or None), upright by its EXIF tag, from any mode that PIL reads.

    The mask is `mask`'s gray values, or the image's own alpha. RGB keeps what lies under alpha = 0.
    """
    image = read_upright(path)
    if "transparency" in image.info and image.mode in ("P", "L", "RGB"):
        image = image.convert("RGBA")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA", "PA") else None
    rgb = image.convert("RGB")
    if mask is not None:
        alpha = read_mask(mask)
        if alpha.size != rgb.size:
            raise OSError(f"its mask is {alpha.width} x {alpha.height} px, the image {rgb.width} x {rgb.height}")
    return rgb, alpha


def read_mask(path: str | Path) -> Image.Image:
    """A mask in gray values, 255 for the animal: of labels (a palette, or a few small numbers) all but 0 are it; alpha
    counts where it varies."""
    image = read_upright(path)
    if "A" in image.getbands():
        alpha = image.getchannel("A")
        image = alpha if alpha.getextrema()[0] < alpha.getextrema()[1] else image.convert("RGB")
    mask = image if image.mode == "P" else image.convert("L")
    low, high = mask.getextrema() or (0, 0)
    labels = mask.mode == "P" or high < 16 or (low == 0 and mask.getcolors(2) is not None)
    return Image.fromarray(np.where(np.asarray(mask) > 0, 255, 0).astype(np.uint8)) if labels else mask


DEPTHS = (255, 1023, 4095, 16383, 65535)  # the largest value of 8, 10, 12, 14 and 16 bits


def gray_from_deep(image: Image.Image) -> Image.Image:
    """8-bit gray from 16-bit, 32-bit or floating values, of which the largest tell the range; no data become black."""
    values = np.asarray(image, np.float64)
    there = np.isfinite(values) & (np.abs(values) < 1e30)  # beyond lies what stands for no data
    if not there.any():
        raise OSError("none of its values is a number")
    low, top = min(values[there].min(), 0.0), float(np.percentile(values[there], 99.9))  # a few hot pixels tell nothing
    values = np.where(there, values, np.where(np.isposinf(values), top, low)) - low
    top -= low
    most = 1.0 if top <= 1 and image.mode == "F" else next((depth for depth in DEPTHS if top <= depth), top)
    return Image.fromarray(np.rint(values * (255 / most)).clip(0, 255).astype(np.uint8))


def fit_square(image: Image.Image, size: int, fit: str) -> Image.Image:
    """The image as a square of `size` px: squashed, padded with zeros, or cropped at the centre."""
    shrink = partial(Image.Image.resize, resample=Image.Resampling.BICUBIC, reducing_gap=3.0)
    if fit == "squash":
        return shrink(image, (size, size))
    side = max(image.size) if fit == "pad" else min(image.size)
    width, height = (max(1, round(length * size / side)) for length in image.size)
    square = Image.new(image.mode, (size, size))
    square.paste(shrink(image, (width, height)), ((size - width) // 2, (size - height) // 2))
    return square


def decode(path: Path, mask: Path | None, size: int, fit: str, channels: int, turn: float = 0.0) -> np.ndarray:
    """An image as uint8 (S, S, 3 or 4), first turned by degrees counter-clockwise, whole.

    RGB and mask are resized apart: PIL would blacken RGB under alpha = 0.
    """
    rgb, alpha = read_image(path, mask)
    if turn:
        whole = partial(Image.Image.rotate, angle=turn, resample=Image.Resampling.BICUBIC, expand=True)
        rgb, alpha = whole(rgb), None if alpha is None else whole(alpha)
    pixels = np.full((size, size, channels), 255, np.uint8)
    pixels[..., :3] = np.asarray(fit_square(rgb, size, fit))
    if channels == 4:
        alpha = Image.new("L", rgb.size, 255) if alpha is None else alpha
        pixels[..., 3] = np.asarray(fit_square(alpha, size, fit))
    return pixels


def has_alpha(path: Path) -> bool:
    try:
        with open_image(path) as image:
            return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    except Exception:  # noqa: BLE001 - PIL raises nearly anything on a broken file; decoding will name it
        return False


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Decoded images in one memory-mapped array, or some of them; reading one is reading memory."""

    pixels: np.ndarray  # uint8 (M, S, S, 3 or 4), of all that were decoded
    key: str  # changes with the images, their order, the size and the fit
    unreadable: tuple[int, ...] = ()  # positions of unreadable images, stored black
    rows: np.ndarray | None = None  # where in `pixels` these N images are; None: all, in order

    def __len__(self) -> int:
        return len(self.pixels) if self.rows is None else len(self.rows)

    def __getitem__(self, position: int) -> np.ndarray:
        """uint8 (S, S, 3 or 4)."""
        return self.pixels[position if self.rows is None else self.rows[position]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.__getitem__, range(len(self)))

    @property
    def has_masks(self) -> bool:
        return self.pixels.shape[3] == 4

    def subset(self, positions: np.ndarray) -> ImageStore:
        """The images at these positions, without a copy."""
        rows = positions if self.rows is None else self.rows[positions]
        return replace(self, rows=np.asarray(rows), key=fingerprint(self.key, np.asarray(positions).tolist()))

    def read(self, positions: Sequence[int] | Tensor) -> Tensor:
        """uint8 (B, 3 or 4, S, S) of the images at `positions`, channels last in memory."""
        positions = np.asarray(positions, np.int64)
        rows = torch.as_tensor(positions if self.rows is None else self.rows[positions])
        return torch.from_numpy(self.pixels).index_select(0, rows).permute(0, 3, 1, 2)  # five times as fast as numpy's

    def thumbnail(self, position: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self[position][..., :3]))


PIECE = 1 << 26  # bytes of a large file whose checksum is taken at a time


@once_per_version
def checksums_of(path: Path) -> list[int]:
    """CRC-32 of each piece of an .npy file's array."""
    values = memoryview(np.load(path, mmap_mode="r").reshape(-1))
    with ThreadPoolExecutor(core_count()) as pool:
        return list(pool.map(zlib.crc32, (values[i : i + PIECE] for i in range(0, len(values), PIECE))))


def mask_paths(root: Path, paths: Sequence[str], masks: str | None) -> list[Path | None]:
    """The mask image of each image in the folder `masks` (below root, or anywhere): same name, any suffix."""
    if masks is None:
        return [None] * len(paths)
    folder = root / masks
    if not folder.is_dir():
        raise KitError(f"data.masks: {folder}: there is no such folder")
    by_stem: dict[str, Path] = {}
    for p in FolderScan(folder).images:
        other = by_stem.setdefault(p.with_suffix("").as_posix(), folder / p)
        if other != folder / p:
            raise KitError(f"data.masks: {folder}: {p} and {other.name} are both the mask of one image; remove one")
    stems = [Path(p).with_suffix("") for p in paths]
    times = Counter(stem.name for stem in stems)  # several images of one name can't have one mask
    found = [by_stem.get(s.as_posix()) or (by_stem.get(s.name) if times[s.name] == 1 else None) for s in stems]
    missing = [p for p, mask in zip(paths, found) if mask is None]
    if missing:
        raise KitError(f"data.masks: {folder}: has no mask for {len(missing)} images: {first_few(missing)}")
    return found


@checked
def open_store(
    root: str | Path,
    paths: Sequence[str],
    size: Annotated[int, Range(low=1, high=1 << 14)],
    fit: Literal["squash", "pad", "crop"] = "squash",
    masks: str | None = None,
    bad_images: Literal["stop", "skip"] = "stop",
    cache: Path | None = None,
    turns: Sequence[float] = (),
) -> ImageStore:
    """The images at `paths` below `root`, decoded once in parallel into the cache and memory-mapped from there.

    The cache is keyed by names, file sizes and modification times, so a changed image is decoded anew. Unreadable
    images stop the run with all their names, or with bad_images="skip" are stored black and listed in `.unreadable`.
    turns: degrees counter-clockwise by which each image is turned first; none where it is empty.
    """
    root = Path(root)
    if isinstance(paths, str):
        raise KitError(f"paths: {paths!r} is a text (expected a list of paths below {root})")
    if len(turns) not in (0, len(paths)) or not np.isfinite(np.asarray(turns, float)).all():
        raise KitError(f"turns: {len(turns)} for {len(paths)} images (expected none, or finite degrees for each)")
    images, masks_found = [root / p for p in paths], mask_paths(root, paths, masks)
    refuse([str(p) for p in images if not p.is_file()], "images are not there", root)
    stats = [(str(p), os.stat(p).st_size, os.stat(p).st_mtime_ns) for p in [*images, *masks_found] if p is not None]
    turned = [list(map(float, turns))] if any(turns) else []
    parts = (PIL.__version__, [str(p) for p in paths], stats, size, fit, masks is not None, *turned)
    key = fingerprint("pictures 2", *parts)
    target = (cache or cache_dir()) / "pictures" / f"{key}.npy"
    if (faults := stored_faults(target)) is None:
        faults = write_store(target, images, masks_found, size, fit, bad_images, turns or [0.0] * len(paths))
        record = {"root": str(root), "size": size, "fit": fit, "broken": faults, "crc32": checksums_of(target)}
        write_json(target.with_suffix(".json"), record)
    check_readable(paths, faults, bad_images)
    return ImageStore(np.load(target, mmap_mode="c"), key, tuple(map(int, faults)))  # as torch wants it: writable


def stored_faults(target: Path) -> dict[str, str] | None:
    """What could not be read of the images that lie decoded in the cache; None where they are to be decoded anew.

    That is so where they are not there, or are not, to the last bit, what was written.
    """
    record = target.with_suffix(".json")
    if not (target.is_file() and record.is_file()):
        return None
    try:
        stored = read_record(record, {"broken": dict, "crc32": list}, "")
        intact = checksums_of(target) == stored["crc32"] and all(key.isdigit() for key in stored["broken"])
    except (KitError, ValueError, EOFError):  # cut short by a full disk or a careless hand
        intact = False
    if intact:
        return stored["broken"]
    echo(f"  note: {target}: was damaged and is made anew")
    remove_path(record)
    return None


def check_readable(paths: Sequence[str | Path], faults: Mapping[str, str], bad_images: str) -> None:
    if bad_images == "stop":
        listed = [f"{paths[int(i)]} ({fault})" for i, fault in faults.items()]
        refuse(listed, "images can't be read", remedy="; mend them, or leave them out with data.bad_images: skip")


def write_store(
    target: Path,
    images: Sequence[Path],
    masks: Sequence[Path | None],
    size: int,
    fit: str,
    bad_images: str,
    turns: Sequence[float],
) -> dict[str, str]:
    """Decodes all images into one .npy file; returns {position: what is wrong with it}."""
    with ThreadPoolExecutor(core_count()) as pool:
        masked = any(m is not None for m in masks) or any(pool.map(has_alpha, images))
        with atomic(target) as temporary:
            shape = (len(images), size, size, 4 if masked else 3)
            pixels = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            if hasattr(os, "posix_fallocate"):  # a full disk would else kill the process at some later write
                with open(temporary, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)

            def put(position: int) -> str | None:
                try:
                    pixels[position] = decode(images[position], masks[position], size, fit, shape[3], turns[position])
                except Exception as error:  # noqa: BLE001 - PIL raises nearly anything on a broken file
                    return " ".join(str(error).replace(str(images[position]), "it").split()) or type(error).__name__
                return None

            found = progress(pool.map(put, range(len(images))), "decoding images", len(images))
            faults = {str(i): fault for i, fault in enumerate(found) if fault is not None}
            check_readable(images, faults, bad_images)
            pixels.flush()
    return faults


# folders of results


EXPERIMENT, ANSWERS, COMPARISON = MARKED = ("an experiment", "answers", "a comparison")  # what markers say


def refuse_other_contents(folder: Path, holds: str) -> None:
    """Refuses to write results where something else lies already; a result of the same kind is gone on with."""
    marker, known = folder / MARKER, "experiment.json" if holds == EXPERIMENT else None
    marked = marker.read_text(encoding="utf-8", errors="replace").strip() if marker.is_file() else ""
    if marked in MARKED:
        there = marked
    elif folder.is_dir():
        mine = {"interpretation.md", "trials", *((p.name for p in folder.iterdir() if p.is_dir()) if known else ())}
        others = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and p.name not in mine)
        there = holds if not others or known in others else f"something else ({others[0]})"
    else:
        there = "a file" if folder.exists() else holds
    if there != holds:
        raise KitError(f"{folder}: holds {there}; choose another --out, so that nothing is overwritten")


def claim(folder: Path, holds: str) -> None:
    """Marks a folder by the results that it holds, so that nothing takes it for data or writes over it."""
    refuse_other_contents(folder, holds)
    if not (folder / MARKER).is_file() or (folder / MARKER).read_bytes().strip() != holds.encode():
        write_text(folder / MARKER, f"{holds}\n")


# splits

Split = tuple[np.ndarray, np.ndarray]  # training and validation rows


def with_singles(train: pd.DataFrame, split: Callable[[pd.DataFrame], list]) -> list[Split]:
    """Splits the rows whose identity has two images or more; the others join every training part."""
    counts = train.identity.map(train.identity.value_counts()).to_numpy()
    several, singles = np.flatnonzero(counts > 1), np.flatnonzero(counts == 1)
    if not len(several):
        raise KitError("data.split: every identity has only one image; validation needs identities with two or more")
    parts = [(several[a], several[b]) for a, b in split(train.iloc[several])]
    return [(np.sort(np.r_[a, singles]), np.sort(b)) for a, b in parts]


@register("split", "stratified")
def stratified_split(
    train: pd.DataFrame,
    hashes: Callable[[], np.ndarray],
    split_seed: int,
    validation: Annotated[float, Range(above=0, high=0.9)] = 0.2,
) -> list[Split]:
    """scikit-learn's `train_test_split`, stratified by identity, on the rows in CSV order.

    Returns [(training rows, validation rows)]. Identities with one image stay in training.
    """
    from sklearn.model_selection import train_test_split

    def split(rows: pd.DataFrame) -> list:
        identities, held_out = rows.identity.nunique(), math.ceil(validation * len(rows))
        if min(held_out, len(rows) - held_out) < identities:
            raise KitError(
                f"data.split.validation: {validation} of {len(rows)} images is {held_out}, but a stratified split "
                f"needs an image of each of {identities} identities on both sides; try "
                f"{math.ceil(100 * identities / len(rows)) / 100} or {{name: kfold}}"
            )
        return [
            train_test_split(
                np.arange(len(rows)), test_size=validation, stratify=rows.identity, random_state=split_seed
            )
        ]

    return with_singles(train, split)


@register("split", "kfold")
def kfold_split(
    train: pd.DataFrame,
    hashes: Callable[[], np.ndarray],
    split_seed: int,
    folds: Annotated[int, Range(low=2, high=20)] = 5,
) -> list[Split]:
    """Every image is validated once, by the one of `folds` models that has not seen it.

    Identities with one image stay in every training part.
    """
    from sklearn.model_selection import StratifiedKFold

    def split(rows: pd.DataFrame) -> list:
        most = int(rows.identity.value_counts().max())
        if most < folds:
            raise KitError(f"data.split.folds: {folds} is more than the {most} images of the most frequent identity")
        return list(StratifiedKFold(folds, shuffle=True, random_state=split_seed).split(rows, rows.identity))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # rare identities can't be in every fold
        return with_singles(train, split)


@register("split", "all")
def no_split(train: pd.DataFrame, hashes: Callable[[], np.ndarray], split_seed: int) -> list[Split]:
    """Every image trains and none validates, for a fixed number of epochs; the last one gives the weights."""
    return [(np.arange(len(train)), np.arange(0))]


@register("split", "burst_safe")
def burst_safe_split(
    train: pd.DataFrame,
    hashes: Callable[[], np.ndarray],
    split_seed: int,
    validation: Fraction = 0.2,
    column: str | None = None,
    distance: Annotated[int, Range(low=0, high=32)] = 11,
) -> list[Split]:
    """No burst of near-duplicates has images on both sides; each identity keeps at least one burst in training.

    Bursts come from a column of train.csv or views.csv, or from neighbouring file numbers whose perceptual hashes
    differ in at most `distance` of 64 bits.
    """
    if column is not None:
        check_column(train, column, "data.split.column")
    bursts = column_groups(train[column]) if column is not None else find_bursts(train, hashes(), distance)
    return apart(train, bursts, split_seed, validation)


@register("split", "encounter_safe")
def encounter_safe_split(
    train: pd.DataFrame,
    hashes: Callable[[], np.ndarray],
    split_seed: int,
    validation: Fraction = 0.2,
    encounters: Annotated[int, Range(low=1, high=20)] = 1,
) -> list[Split]:
    """No encounter has images on both sides; each identity keeps at least one in training. `data.encounter` says which
    images are of one.

    encounters: 1 validates as many identities as it can; 2 or more hold out that many encounters of fewer identities,
    so that matches across encounters can be measured, and leave each two training images at least.
    """
    groups = train.encounter.to_numpy()
    if encounters == 1:
        return apart(train, groups, split_seed, validation)
    return apart_by_identity(train, groups, split_seed, validation, encounters)


def apart(train: pd.DataFrame, groups: np.ndarray, split_seed: int, validation: float) -> list[Split]:
    """A split of whole groups, drawn in turn as long as no identity gives away more than its share."""
    identities = pd.factorize(train.identity)[0]
    counts = np.bincount(identities)
    held_out, held = np.zeros(len(train), bool), np.zeros(len(counts))
    members = list(rows_by_code(np.arange(len(train)), groups).values())
    for number in np.random.default_rng(split_seed).permutation(len(members)):
        here, images = np.unique(identities[members[number]], return_counts=True)
        after = held[here] + images
        if (after <= validation * counts[here] + 0.5).all() and (after < counts[here]).all():
            held_out[members[number]], held[here] = True, after
    return [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]


def apart_by_identity(
    train: pd.DataFrame, groups: np.ndarray, split_seed: int, validation: float, encounters: int
) -> list[Split]:
    """A split that holds out several whole groups of one identity after the other, as long as the share allows."""
    identities = pd.factorize(train.identity)[0]
    kept, held_out, most = np.bincount(identities), np.zeros(len(train), bool), validation * len(train) + 0.5
    members, rng = rows_by_code(np.arange(len(train)), groups), np.random.default_rng(split_seed)
    of_identity = rows_by_code(np.arange(len(train)), identities)
    for identity in rng.permutation(len(kept)):
        taken = []
        for group in rng.permutation(np.unique(groups[of_identity[identity]])):
            here, images = np.unique(identities[members[group]], return_counts=True)
            free = len(taken) < encounters and not held_out[members[group]].any()
            if free and (kept[here] - images >= 2).all():
                taken.append(members[group])
                kept[here] -= images
        rows = np.concatenate(taken) if taken else np.arange(0)
        if len(taken) == encounters and len(rows) <= most:
            held_out[rows], most = True, most - len(rows)
        else:
            np.add.at(kept, identities[rows], 1)
    if not held_out.any():
        raise KitError(
            f"data.split.encounters: no identity has {encounters} encounters to hold out within {validation} of the "
            f"{len(train)} images, and two images besides (fewer encounters, or a larger data.split.validation)"
        )
    return [(np.flatnonzero(~held_out), np.flatnonzero(held_out))]


def rows_by_code(rows: np.ndarray, codes: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each code, codes rising."""
    order = np.argsort(codes, kind="stable")
    present, starts = np.unique(codes[order], return_index=True)
    return dict(zip(present.tolist(), np.split(rows[order], starts[1:])))


def check_column(train: pd.DataFrame, column: str, where: str) -> None:
    """Refuses a column that the tables lack, or that tells nothing of any training image."""
    if column not in train:
        raise KitError(f"{where}: {column!r} is in no table of the data; {suggest(column, train.columns)}")
    if not train[column].fillna("").astype(str).str.strip().any():
        raise KitError(f"{where}: {column!r} is empty for all {len(train)} training images (is views.csv about these?)")


def column_groups(values: pd.Series) -> np.ndarray:
    """A group number for each row (N,); rows without a value are groups of their own."""
    values = values.fillna("").astype(str).str.strip()
    groups = pd.factorize(values)[0]
    alone = (values == "").to_numpy()
    groups[alone] = len(groups) + np.arange(alone.sum())
    return groups


def check_pixels(pixels: Any) -> None:
    """Refuses what is no set of images; the first stands for all."""
    if not hasattr(pixels, "__len__") or not hasattr(pixels, "__getitem__") or isinstance(pixels, (str, Mapping)):
        raise KitError(f"pixels: a {type(pixels).__name__} (expected uint8 (N, S, S, 3 or 4), or an ImageStore)")
    for number, one in enumerate(pixels if isinstance(pixels, (list, tuple)) else pixels[:1] if len(pixels) else ()):
        if not isinstance(one, np.ndarray) or one.ndim != 3 or one.shape[2] not in (3, 4) or one.dtype != np.uint8:
            kind = f"{getattr(one, 'dtype', type(one).__name__)} of shape {getattr(one, 'shape', ())}"
            raise KitError(f"pixels: image {number} is {kind} (expected uint8 (S, S, 3 or 4))")


def perceptual_hashes(pixels: np.ndarray | ImageStore) -> np.ndarray:
    """64 bits for each image, bool (N, 64): signs of the lowest 8 x 8 cosine coefficients against their median.

    pixels: uint8 (N, S, S, 3 or 4). Near-duplicates differ in few bits.
    """
    from scipy.fft import dctn

    check_pixels(pixels)
    bits = np.empty((len(pixels), 64), bool)
    for i, image in enumerate(pixels):
        gray = Image.fromarray(np.ascontiguousarray(image[..., :3])).convert("L").resize((32, 32), Image.Resampling.BOX)
        low = dctn(np.asarray(gray, np.float64), norm="ortho")[:8, :8].ravel()
        bits[i] = low > np.median(low[1:])  # the first coefficient is the brightness
    return bits


@checked
def find_bursts(
    train: pd.DataFrame, hashes: np.ndarray, distance: Annotated[int, Range(low=0, high=64)] = 11
) -> np.ndarray:
    """A burst number for each row (N,): runs of one identity's neighbouring file numbers with similar hashes.

    Numbers are neighbours in one folder only, and between names that are alike but for them: several cards hold an
    IMG_0001.
    """
    missing = [c for c in ("filename", "identity") if not isinstance(train, pd.DataFrame) or c not in train]
    hashes = np.asarray(hashes)
    if missing or hashes.shape[:1] != (len(train),) or hashes.ndim != 2 or train.columns.has_duplicates:
        raise KitError(
            "find_bursts: expected a table with filename and identity, each column once, and hashes bool (N, 64) for "
            "its rows"
        )
    train = train[[c for c in ("filename", "identity", "path") if c in train]].astype(str)
    stems = train.get("path", train.filename).str.replace(r"\.[^./]*$", "", regex=True)
    parts = stems.str.extract(r"^(?P<before>.*?)(?P<number>\d{1,15})(?P<after>[^\d/]*)$")
    number = parts.number.fillna("-1").astype("int64").to_numpy()
    series = pd.factorize(train.identity + "\0" + parts.before.fillna(stems) + "\0" + parts.after.fillna(""))[0]
    order = np.lexsort((number, series))
    before, after = order[:-1], order[1:]
    near = (
        (series[before] == series[after])
        & (number[after] - number[before] == 1)
        & ((hashes[before] != hashes[after]).sum(1) <= distance)
    )
    bursts = np.empty(len(train), int)
    bursts[order] = np.r_[0, np.cumsum(~near)]
    return bursts


# the data of a run

ENCOUNTERS = ("encounter", "sighting", "burst")  # columns that tell encounters
EXTRA = "jaguar_kit: folder of data.extra"  # a column of the kit's own, whose name no table has


def told_encounters(table: pd.DataFrame, column: str) -> pd.Series:
    """What a column tells of each image's encounter (N,), "" for nothing; a date is one of each identity, and each
    folder of `data.extra` has its own."""
    values = table[column].fillna("").astype(str).str.strip()
    values = values.where(values == "", table.get(EXTRA, pd.Series("", table.index)).fillna("") + "\0" + values)
    if column == "date":  # of images whose animal nobody knows a date tells none
        values = (table.identity + "\0" + values).where((values != "") & table.identity.notna(), "")
    return values


def with_encounters(
    competition: Competition, asked: str | None, hashes: Callable[[int, int], np.ndarray]
) -> Competition:
    """The tables with a column encounter, and a note on what tells it; hashes: (first, count) of the stored images.

    A column of the training table tells it, or else near-duplicates do; so they do among the test images where that
    column tells of none of these, as a date does of animals that nobody knows.
    """
    train, test = competition.train, competition.test
    if asked is not None:
        check_column(train, asked, "data.encounter")
    column = asked or next((c for c in ENCOUNTERS if c in train and train[c].fillna("").astype(str).any()), None)
    told = pd.Series("", range(len(train) + len(test)))
    if column is not None:  # an encounter may have images in both tables
        told = told_encounters(pd.concat([train, test], ignore_index=True), column)
    codes = column_groups(told) if column else find_bursts(train, hashes(0, len(train)))
    untold = len(test) and not told[len(train) :].any()
    if untold:
        found = find_bursts(test.assign(identity=""), hashes(len(train), len(test)))
        codes = np.r_[codes[: len(train)], codes.max(initial=0) + 1 + found]
    train, of_test = train.assign(encounter=codes[: len(train)]), codes[len(train) :]
    shared = int(train.encounter.duplicated(keep=False).sum())
    alike = "are near-duplicates with neighbouring file numbers"
    how = f"are told by the column {column}" if column else alike
    again = int(pd.Series(of_test).duplicated(keep=False).sum())
    note = f"encounters {how}: {shared} of {len(train)} training images share one with another"
    test = test.assign(encounter=of_test) if len(of_test) else test
    if again:
        note += f", and {again} of {len(test)} test images do" + (f", which {alike}" if untold and column else "")
    return replace(competition, train=train, test=test).noted(note if shared or again else "")


def shared_encounters(table: pd.DataFrame) -> np.ndarray | None:
    """The encounters of a table's images (N,), where at least two images share one."""
    return table.encounter.to_numpy() if "encounter" in table and table.encounter.duplicated().any() else None


def find_data(recipe: Recipe, data: str | Path | None = None) -> Path:
    """The data folder: the one given, the recipe's, the competition's Kaggle mount, or the mini-dataset."""
    given = data if data is not None else recipe.data.root
    if given is not None:
        return Path(given)
    mounted = [str(p.parent) for p in find_mounted("train.csv") if (p.parent / "test.csv").is_file()]
    mounted += [str(p.parent) for p in find_mounted("metadata.csv")]
    named = [folder for folder in mounted if recipe.data.competition in Path(folder).parts]
    if len(named) == 1:
        return Path(named[0])
    if named:
        raise KitError(f"data.root: several mounts could be the data: {', '.join(named)}; name one in data.root")
    if mounted:
        raise KitError(
            f"{recipe.name}: the competition {recipe.data.competition} is not attached, but {first_few(mounted)} is "
            "(attach it, or name the folder that is meant in data.root)"
        )
    if on_kaggle():
        raise KitError(
            f"{recipe.name}: no train.csv and test.csv (or metadata.csv) under {KAGGLE_INPUT}; attach the competition "
            f"{recipe.data.competition} (its rules must have been accepted)"
        )
    if recipe.data.mini is None:
        raise KitError(
            f"{recipe.name}: no data: give its folder with --data DIR (train.csv and test.csv, or metadata.csv), "
            f"or try the recipe on synthetic images with --smoke"
        )
    mini = recipe.data.mini
    kind = f"round{mini.round}" if mini.layout == "jaguar" else mini.layout
    root = cache_dir() / "mini" / f"{mini.identities}x{mini.images}-seed{mini.seed}-{kind}"
    drawing = room("experiments.mini_dataset", f"{recipe.name}: data.mini")
    draw = partial(drawing.make_mini_dataset, root, **asdict(mini))
    with suppress(KitError):
        return draw()
    remove_path(root)  # damaged: it is drawn anew
    return draw()


@dataclass(frozen=True, eq=False)
class Images:
    """The data of a run: its tables, its decoded images, and its splits."""

    competition: Competition
    store: ImageStore
    at_size: Callable[[int], ImageStore]  # the same images in squares of another size
    splits: list[Split]
    fingerprint: str  # of the data as they were found, unreadable images included


def data_key(recipe: Recipe) -> str:
    """Runs with the same key share their images and splits."""
    other = recipe.evaluated_background
    return fingerprint(asdict(recipe.data), recipe.background.name, *([] if other is None else [other.name]))


def subset_path(subset: str, folder: Path | None) -> Path:
    """Where a list of images lies: below the result folder, or anywhere."""
    below = (folder or Path()) / subset
    return below if below.is_file() else Path(subset)


def data_fingerprint(recipe: Recipe, competition: Competition, folder: Path | None) -> str:
    """Changes with the data and their masks, and with the list of those that are used."""
    masks = mask_paths(competition.root, competition.paths, recipe.data.masks)
    samples = [(str(path), file_sample(path)) for path in masks if path is not None]
    more: list[Any] = [samples] if samples else []
    boxes = recipe.data.boxes and str(competition.root / recipe.data.boxes)
    for listed in filter(None, (recipe.data.subset, recipe.data.pseudo, boxes)):
        path = subset_path(listed, folder)
        more.append(sha_of(path) if path.is_file() else "not there yet")
    return fingerprint(competition.fingerprint, *more) if more else competition.fingerprint


def turns_of(competition: Competition, turn: Mapping[str, float]) -> list[float]:
    """Degrees by which each image of the store is turned, by its label in the column orientation; [] for none."""
    if not turn:
        return []
    if "orientation" not in competition.train:
        raise KitError(f"data.turn: {competition.root}: its tables have no column orientation")
    labels = [*competition.train.orientation, *competition.test.get("orientation", [""] * len(competition.test))]
    unknown = [label for label in turn if label not in labels]
    if unknown:
        raise KitError(f"data.turn.{unknown[0]}: no image has this orientation; {suggest(unknown[0], set(labels))}")
    return [turn.get(label, 0.0) for label in labels]


def open_data(recipe: Recipe, competition: Competition, folder: Path | None = None) -> Images:
    """Decodes (or finds) the images and splits them; unreadable ones leave the table with `bad_images: skip`.

    `folder` is where data.subset is looked for first.
    """
    data, paths, root = recipe.data, competition.paths, competition.root
    found_as, turns = data_fingerprint(recipe, competition, folder), turns_of(competition, data.turn)
    crops = data.boxes and room("experiments.crops", f"{recipe.name}: data.boxes").cropped(competition, data)
    files, masks = crops or (paths, data.masks)
    sized = partial(open_store, root, files, fit=data.fit, masks=masks, bad_images=data.bad_images, turns=turns)
    store = sized(data.size)
    broken = [paths[i] for i in store.unreadable]
    listed, of_subset = listed_images(data, competition.train, folder)
    competition = competition.noted(
        *notes_on_masks(recipe, store, root),
        listing(broken, "unreadable images left out (test images count as black)"),
        of_subset,
    )
    keep = ~competition.train.path.isin(broken).to_numpy() & (listed | (data.subset_applies_to == "training"))
    chosen = [np.flatnonzero(keep), np.arange(len(keep), len(store))]  # positions of training and test images
    if broken or of_subset:
        competition = replace(competition, train=competition.train[keep].reset_index(drop=True))
    store = store.subset(np.concatenate(chosen))
    hashes = cache(lambda first, count: perceptual_hashes(store.subset(first + np.arange(count))))
    competition = with_encounters(competition, data.encounter, hashes)
    if data.pseudo is not None:
        join = room("experiments.pseudo", f"{recipe.name}: data.pseudo").with_pseudo
        competition, joining = join(competition, subset_path(data.pseudo, folder))
        chosen.insert(1, chosen[1][joining])
        listed = np.r_[listed[keep], np.ones(len(joining), bool)]
    else:
        listed = listed[keep]
    positions = np.concatenate(chosen)

    def at_size(size: int) -> ImageStore:
        whole = sized(size)
        return whole if np.array_equal(positions, np.arange(len(whole))) else whole.subset(positions)

    store = at_size(data.size)
    for key in ("select", "monitor"):
        if getattr(recipe.train, key) == "map_across" and shared_encounters(competition.train) is None:
            raise KitError(
                f"train.{key}: map_across needs encounters, but none has two images (name their column in "
                "data.encounter, or expected map)"
            )
    splits, notes = split_images(data, competition.train, listed, hashes)
    return Images(competition.noted(*notes), store, at_size, splits, found_as)


def listed_images(data: DataConfig, train: pd.DataFrame, folder: Path | None) -> tuple[np.ndarray, str]:
    """Which training images the list of data.subset names, bool (N,), all without one; and a note on it."""
    if data.subset is None:
        return np.ones(len(train), bool), ""
    path = subset_path(data.subset, folder)
    wanted = set(read_table(path, ("filename",)).filename)
    refuse(sorted(wanted - set(train.filename)), "are no training images", f"{path}: filename")
    listed = train.filename.isin(wanted).to_numpy() | ~own_rows(train)
    return listed, f"{path}: {listed.sum()} of {len(listed)} training images ({data.subset_applies_to})"


def split_images(
    data: DataConfig, train: pd.DataFrame, listed: np.ndarray, hashes: Callable
) -> tuple[list[Split], list[str]]:
    """Splits of the data's own images, and notes; those of `data.extra` train in each, none that is not listed."""
    inside, met = own_rows(train), train.encounter.to_numpy()
    column = data.split.settings.get("column")
    own_hashes = partial(hashes, 0, int(inside.sum()))
    splits = data.split.build(train=train[inside], hashes=own_hashes, split_seed=data.split_seed)
    splits = [(np.r_[rows, np.flatnonzero(~inside)].astype(int), held_out) for rows, held_out in splits]
    splits = [(rows[listed[rows]], held_out) for rows, held_out in splits]
    for rows, held_out in splits:
        paired = data.split.name == "all" or train.identity.iloc[held_out].duplicated().any()
        if len(rows) < 2 or not paired:
            raise KitError(
                f"data.split: {len(rows)} training and {len(held_out)} validation images; validation needs at "
                "least one identity with two images (more images, or a larger data.split.validation)"
            )
    untold = int((train[column].fillna("") == "").sum()) if column in train else 0
    alone = f"{untold} of {len(train)} training images have no {column}; each counts as one of its own"
    parted = max(len(np.intersect1d(met[rows], met[held_out])) for rows, held_out in splits)
    seen = (
        f"data.split: {data.split.name} parts {parted} of {len(np.unique(met))} encounters, so that validation "
        "sees scenes that were trained on (encounter_safe keeps them whole)"
    )
    return splits, [alone if untold else "", seen if parted else ""]


def notes_on_masks(recipe: Recipe, store: ImageStore, root: Path, most: int = 256) -> Iterator[str]:
    """Where masks are not there, are of one value, so that they tell no animal, or so faint that most of it is lost.

    KitError where the background needs them, unless `data.unmasked` keeps it.
    """
    behind = [recipe.background, *([] if recipe.evaluated_background is None else [recipe.evaluated_background])]
    needed = any(one.build().needs_masks for one in behind)
    if not store.has_masks:
        found = f"background: {recipe.background.name!r} needs masks, but the images in {root} have no alpha"
        if needed and recipe.data.unmasked == "stop":
            raise KitError(
                f"{found}; name the masks' folder in data.masks, or set background: original or data.unmasked: keep"
            )
        yield f"{found}: it stays as it is" if needed else ""
    elif needed or recipe.data.masks is not None:
        looked_at = np.unique(np.linspace(0, len(store) - 1, min(len(store), most)).astype(int))
        ends = np.array([(store[i][..., 3].min(), store[i][..., 3].max()) for i in looked_at])
        varied = ends[:, 0] < ends[:, 1]
        flat, faint = int((~varied).sum()), int((varied & (ends[:, 1] < 128)).sum())
        yield f"{root}: {flat} of {len(ends)} masks looked at are of one value: they tell no animal" if flat else ""
        yield f"{root}: {faint} of {len(ends)} masks looked at are nowhere above one half" if faint else ""


def own_rows(train: pd.DataFrame) -> np.ndarray:
    """Which images are the data's own, not of `data.extra`, bool (N,)."""
    return (train[EXTRA] == "").to_numpy() if EXTRA in train else np.ones(len(train), bool)


def load_competitions(specs: Sequence[RunSpec], data: str | Path | None) -> dict[str, Competition]:
    """The data of every run by its `data_key`, each folder read once."""
    load, recipes = cache(load_competition), {data_key(spec.recipe): spec.recipe for spec in specs}
    read = {key: load(find_data(recipe, data), recipe.data.masks) for key, recipe in recipes.items()}
    for key, recipe in recipes.items():
        if recipe.data.extra:
            read[key] = room("experiments.extra", f"{recipe.name}: data.extra").with_extra(read[key], recipe.data)
    return read


# 5. Background and augmentation
# ----------------------------------------------------------------------------------------------------------------------


class Background(Part):
    """What becomes of the pixels around the animal.

    Called with RGB (B, 3, H, W) in [0, 1] and alpha (B, 1, H, W) in [0, 1], or None without masks; gives RGB.
    """

    needs_masks = True
    drawn = False  # anew in every epoch, so that what is behind it is cached as a view only

    def forward(self, rgb: Tensor, alpha: Tensor | None) -> Tensor:
        return self.change(rgb, alpha) if self.needs_masks and alpha is not None else rgb

    def change(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        """The animal before what `paint` makes of the image."""
        return alpha * rgb + (1 - alpha) * self.paint(rgb, alpha)


def weighted_mean_colour(rgb: Tensor, weight: Tensor) -> Tensor:
    """Mean colours (B, 3, 1, 1) of images (B, 3, H, W), each pixel by its weight (B, 1, H, W)."""
    return (rgb * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1e-6)


def spread_colours(rgb: Tensor, weight: Tensor, radius: float) -> Tensor:
    """A Gaussian blur that sees only pixels by their weight (B, 1, H, W); `radius`: sigma as a share of the side."""
    sigma = radius * rgb.shape[-1]
    kernel = 2 * max(1, min(round(3 * sigma), min(rgb.shape[-2:]) - 1)) + 1
    blurred = gaussian_blur2d(torch.cat([rgb * weight, weight], 1), (kernel, kernel), (sigma, sigma), "replicate")
    faint = 1e-3  # where nothing that counts is near, the colours fade into their mean
    return ((blurred[:, :3] + faint * weighted_mean_colour(rgb, weight)) / (blurred[:, 3:] + faint)).clamp(0, 1)


Radius = Annotated[float, Range(low=0.005, high=1)]  # share of the side
Grain = Annotated[float, Range(low=1, high=1000)]  # px of the image as it was photographed for one as it is stored
Degrees = Annotated[float, Range(low=0, high=180)]
BlurWidth = Annotated[float, Range(low=0.05, high=100)]  # standard deviation in px


@register("background", "original")
class OriginalBackground(Background):
    """The image as it is."""

    needs_masks = False


@register("background", "black")
class BlackBackground(Background):
    """Black around the animal (segmented)."""

    def change(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        return alpha * rgb


@register("background", "gray")
class GrayBackground(Background):
    """One gray around the animal."""

    level: Fraction = 0.5

    def paint(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        return torch.full_like(rgb, self.level)


@register("background", "mean_colour")
class MeanColourBackground(Background):
    """The animal's own mean colour around it."""

    def paint(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        return weighted_mean_colour(rgb, alpha)


@register("background", "blur")
class BlurBackground(Background):
    """The surroundings blurred (sigma: a share of the side), without the animal's colours in them unless `whole`."""

    radius: Radius = 0.08
    whole: bool = False  # the animal is blurred into its surroundings, too

    def paint(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        return spread_colours(rgb, torch.ones_like(alpha) if self.whole else 1 - alpha, self.radius)


@register("background", "noise")
class NoiseBackground(Background):
    """Gaussian noise added to the surroundings, of that standard deviation in [0, 1]; drawn anew each time."""

    drawn = True
    strength: Fraction = 0.3

    def paint(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        return (rgb + self.strength * torch.randn_like(rgb)).clamp(0, 1)


@register("background", "random")
class RandomBackground(Background):
    """Uniform RGB noise around the animal; drawn anew each time.

    Of noise that was drawn in an image `grain` times as wide, and made small with it, means of grain ** 2 are left.
    """

    drawn = True
    grain: Grain = 1.0

    def paint(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        if self.grain == 1:
            return torch.rand_like(rgb)
        return (0.5 + torch.randn_like(rgb) / (math.sqrt(12) * self.grain)).clamp(0, 1)


@register("background", "background_only")
class BackgroundOnly(Background):
    """The animal removed and filled in from its surroundings: what can be told without it."""

    radius: Radius = 0.08

    def change(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        return (1 - alpha) * rgb + alpha * spread_colours(rgb, 1 - alpha, self.radius)


@register("background", "swap")
class SwapBackground(BackgroundOnly):
    """The surroundings of another image of the batch, its animal filled in from them; drawn anew each time."""

    drawn = True

    def change(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        other = (torch.arange(len(rgb)) + int(torch.randint(1, max(2, len(rgb)), ()))) % len(rgb)
        other = other.to(rgb.device, non_blocking=True)
        return alpha * rgb + (1 - alpha) * super().change(rgb[other], alpha[other])


@register("background", "mixed")
class MixedBackground(Background):
    """For each image one of several backgrounds, drawn anew each time by their shares.

    of: their shares by their names; null: original and gray, as often.
    """

    drawn = True
    of: dict[str, Fraction] | None = None

    def __post_init__(self) -> None:
        self.shares = {"original": 0.5, "gray": 0.5} if self.of is None else self.of
        if sum(self.shares.values()) <= 0 or "mixed" in self.shares:
            raise KitError(f"background mixed: of: {self.of} (expected names of others, and shares above 0)")
        self.parts = nn.ModuleList([build("background", name) for name in self.shares])

    def change(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        drawn = torch.multinomial(torch.tensor([*self.shares.values()]), len(rgb), replacement=True).to(rgb.device)
        painted = torch.stack([part(rgb, alpha) for part in self.parts])
        return painted[drawn, torch.arange(len(rgb), device=rgb.device)]


@register("background", "inpaint")
class InpaintBackground(Background):
    """The animal's colours spread outwards, so that the surroundings are gone and no edge is left."""

    radius: Radius = 0.08

    def paint(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        return spread_colours(rgb, alpha, self.radius)


@register("background", "silhouette_only")
class SilhouetteOnly(Background):
    """The mask alone, white on black: what can be told from the outline."""

    def change(self, rgb: Tensor, alpha: Tensor) -> Tensor:
        return alpha.expand_as(rgb)


@register("augmentation", "flip")
def flip_images(p: Fraction = 0.5) -> nn.Module:
    """Mirrors left and right."""
    return kornia_augmentation.RandomHorizontalFlip(p=p)


@register("augmentation", "affine")
def affine(
    degrees: Degrees = 10.0,
    translate: Fraction = 0.05,
    scale: ZoomSpan = (0.95, 1.05),
    p: Fraction = 1.0,
) -> nn.Module:
    """Turns (by up to `degrees`), shifts (by up to a share `translate` of the side) and scales."""
    return kornia_augmentation.RandomAffine(degrees, (translate, translate), scale, p=p)


@register("augmentation", "erasing")
def erasing(p: Fraction = 0.5, area: FractionSpan = (0.02, 0.25), ratio: ZoomSpan = (0.3, 3.3)) -> nn.Module:
    """Blackens a rectangle of a share `area` of the image, with sides in `ratio`."""
    return kornia_augmentation.RandomErasing(scale=area, ratio=ratio, p=p)


@register("augmentation", "rotation")
def rotation(degrees: Degrees = 20.0, p: Fraction = 1.0) -> nn.Module:
    """Turns by up to `degrees` either way."""
    return kornia_augmentation.RandomRotation(degrees, p=p)


@register("augmentation", "perspective")
def perspective(distortion: Fraction = 0.2, p: Fraction = 0.5) -> nn.Module:
    """Moves the corners inwards, by up to half the side times `distortion`."""
    return kornia_augmentation.RandomPerspective(distortion, p=p)


@cache
def blur_matrix(side: int, sigma: float) -> Tensor:
    """Gaussian blur of a line of `side` px, reflected at its ends, as a matrix (side, side).

    Multiplying from both sides blurs an image in a quarter of the time of a convolution with such wide kernels.
    """
    reach = math.ceil(4 * sigma)
    kernel = torch.exp(-torch.arange(-reach, reach + 1).float().square() / (2 * sigma**2))
    targets = torch.arange(side)[:, None] + torch.arange(-reach, reach + 1)  # (side, kernel)
    targets = (targets.abs() % (2 * side - 2)).clamp(max=2 * side - 2)
    targets = torch.minimum(targets, 2 * side - 2 - targets)
    weights = (kernel / kernel.sum()).expand(side, -1)
    return torch.zeros(side, side).scatter_add_(1, targets, weights)


@register("augmentation", "elastic")
class Elastic(Part):
    """Moves every pixel by noise from [-1, 1], blurred by `sigma` px and scaled by alpha / side (as torchvision)."""

    moves = True
    alpha: Annotated[float, Range(low=0, high=10000)] = 50.0
    sigma: BlurWidth = 5.0
    p: Fraction = 0.5

    def forward(self, images: Tensor) -> Tensor:
        rows = torch.nonzero(torch.rand(len(images)) < self.p)[:, 0].to(images.device, non_blocking=True)
        if not len(rows):
            return images
        chosen, side = images[rows], images.shape[-1]
        blur = blur_matrix(side, self.sigma).to(images)
        noise = torch.rand(len(rows), 2, side, side, device=images.device) * 2 - 1
        shift = (blur @ noise @ blur.T) * (self.alpha / side)  # in half sides, as grid_sample counts
        still = torch.eye(2, 3).to(images).expand(len(rows), 2, 3)
        grid = F.affine_grid(still, list(chosen.shape), align_corners=False) + shift.permute(0, 2, 3, 1)
        moved = F.grid_sample(chosen, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return images.index_copy(0, rows, moved)


@register("augmentation", "resized_crop")
class ResizedCrop(Part):
    """A part of the image, of a share `area` and sides in `ratio`, at full size; of every image."""

    moves = True
    area: FractionSpan = (0.5, 1.0)
    ratio: ZoomSpan = (0.75, 1.3333)

    @staticmethod
    @cache
    def crop(size: tuple[int, int], area: tuple[float, float], ratio: tuple[float, float]) -> nn.Module:
        return kornia_augmentation.RandomResizedCrop(size, scale=area, ratio=ratio, p=1.0)

    def forward(self, images: Tensor) -> Tensor:
        return self.crop(tuple(images.shape[-2:]), self.area, self.ratio)(images)


@register("augmentation", "colour_jitter")
def colour_jitter(
    brightness: Fraction = 0.2,
    contrast: Fraction = 0.2,
    saturation: Fraction = 0.2,
    hue: Annotated[float, Range(low=0, high=0.5)] = 0.02,
    p: Fraction = 0.8,
) -> nn.Module:
    """Brightness, contrast and saturation by factors of 1 plus or minus the value; hue as a share of the circle."""
    return kornia_augmentation.ColorJitter(brightness, contrast, saturation, hue, p=p)


@register("augmentation", "grayscale")
def grayscale(p: Fraction = 0.1) -> nn.Module:
    """Takes the colour away."""
    return kornia_augmentation.RandomGrayscale(p=p)


@register("augmentation", "gaussian_blur")
def gaussian_blur(sigma: Annotated[tuple[BlurWidth, BlurWidth], Rising()] = (0.1, 2.0), p: Fraction = 0.2) -> nn.Module:
    """Blurs with a standard deviation drawn from `sigma`, in px."""
    kernel = 2 * math.ceil(3 * sigma[1]) + 1
    return kornia_augmentation.RandomGaussianBlur((kernel, kernel), sigma, p=p)


class EachImage(nn.Module):
    """One of torchvision's policies, which draw for one image at a time, on each image of a batch."""

    def __init__(self, policy: str, *settings: Any):
        from torchvision.transforms import v2

        super().__init__()
        self.policy = getattr(v2, policy)(*settings, interpolation=v2.InterpolationMode.BILINEAR)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([self.policy(image) for image in images]).clamp(0, 1)


@register("augmentation", "autoaugment")
def autoaugment() -> nn.Module:
    """AutoAugment's policy for ImageNet, drawn for each image (Cubuk et al. 2019)."""
    return EachImage("AutoAugment")


@register("augmentation", "randaugment")
def randaugment(operations: Annotated[int, Range(low=1, high=20)] = 2, level: Fraction = 0.3) -> nn.Module:
    """RandAugment, drawn for each image; a level of 0.3 is torchvision's magnitude 9 of 30 (Cubuk et al. 2020)."""
    return EachImage("RandAugment", operations, round(30 * level))


# policies: several in a row, as they were published; what they do not set is as above


@register("augmentation", "affine_erasing")
def affine_erasing() -> nn.Module:
    """The published policy: flip, a slight affine map, erasing with p = 0.7."""
    return nn.Sequential(flip_images(), affine(), erasing(0.7))


@register("augmentation", "elastic_rotation_perspective")
def elastic_rotation_perspective() -> nn.Module:
    """The published policy: flip, elastic warp, rotation by up to 20 degrees, perspective."""
    return nn.Sequential(flip_images(), Elastic(p=1.0), rotation(20.0), perspective())


@register("augmentation", "mimic_camera")
def mimic_camera() -> nn.Module:
    """The published policy: flip, elastic warp, perspective, rotation by up to 30 degrees, erasing."""
    warp = Elastic(alpha=35.0, sigma=8.0)
    return nn.Sequential(flip_images(), warp, perspective(0.3), rotation(30.0), erasing(0.5, (0.02, 0.3)))


@register("augmentation", "combined")
def combined() -> nn.Module:
    """The published policies together, as their code has it: flip, affine, elastic, rotation, perspective, erasing."""
    return nn.Sequential(flip_images(), affine(), Elastic(p=1.0), rotation(20.0), perspective(), erasing(0.7))


@register("augmentation", "full")
def full_policy() -> nn.Module:
    """AnimalCLEF's policy: resized crop, flip, rotation, colour jitter, AutoAugment, erasing."""
    moves = (ResizedCrop(), flip_images(), rotation(15.0))
    return nn.Sequential(*moves, colour_jitter(hue=0.05), autoaugment(), erasing(0.25, (0.02, 0.2)))


def flat_steps(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The augmentations of nested policies one after the other."""
    return [step for m in modules for step in (flat_steps(m) if type(m) is nn.Sequential else [m])]


class Preparation:
    """Turns stored pixels into what a backbone takes, on the pixels' own device.

    uint8 (B, 3 or 4, S, S) -> background -> augmentation when training -> resize -> normalised (B, 3, H, W).
    Augmentations that move pixels, up to the first that does not, move image and mask together, and the background
    is painted after them, so that a colour fills the corners too; of other backgrounds the corners stay dark.
    """

    def __init__(
        self,
        background: Component,
        augment: Sequence[Component],
        input_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        crop: float = 1.0,
    ):
        self.behind, self.background = background, background.build()
        steps = flat_steps(a.build() for a in augment)
        geometric = kornia_augmentation.GeometricAugmentationBase2D
        self.moving = list(itertools.takewhile(lambda step: getattr(step, "moves", isinstance(step, geometric)), steps))
        self.changing = steps[len(self.moving) :]
        self.input_size, self.mean, self.std, self.crop = input_size, tuple(mean), tuple(std), crop
        self.scaling = torch.tensor((self.mean, self.std)).view(2, 1, 3, 1, 1)

    def on_background(self, background: Component) -> Preparation:
        """The same with another background, for evaluation."""
        return Preparation(background, (), self.input_size, self.mean, self.std, self.crop)

    @property
    def fixed(self) -> bool:
        """Whether training images look the same in every epoch."""
        return not (self.moving or self.changing or self.background.drawn)

    @torch.no_grad()
    def images(self, pixels: Tensor, training: bool) -> tuple[Tensor, Tensor | None]:
        """RGB (B, 3, S, S) in [0, 1] after background and augmentation, and the mask (B, 1, S, S) moved with it."""
        pixels = pixels.float() / 255
        for step in self.moving if training else ():
            pixels = step(pixels)
        alpha = pixels[:, 3:] if pixels.shape[1] == 4 else None
        rgb = self.background(pixels[:, :3], alpha)
        for step in self.changing if training else ():
            rgb = step(rgb)
        return rgb, alpha

    @torch.no_grad()
    def __call__(self, pixels: Tensor, training: bool) -> Tensor:
        rgb, _ = self.images(pixels, training)
        whole = round(self.input_size / self.crop)
        if rgb.shape[-2:] != (whole, whole):
            rgb = F.interpolate(rgb, (whole, whole), mode="bilinear", antialias=True, align_corners=False)
        edge = (whole - self.input_size) // 2
        rgb = rgb[..., edge : edge + self.input_size, edge : edge + self.input_size]
        mean, std = self.scaling.to(rgb.device, non_blocking=True)
        return ((rgb - mean) / std).contiguous(memory_format=memory_format(rgb.device))


# mixing: images of a batch laid over each other, for losses that look at one image at a time

Mixed = tuple[Tensor, Tensor, Tensor]  # images (B, 3, H, W), partners (B,), shares of its own in each image (B,)


def own_share(alpha: float, p: float, batch: int) -> Tensor:
    """How much of each image stays (B,): from Beta(alpha, alpha) with probability p, else all of it."""
    share = torch.distributions.Beta(alpha, alpha).sample((batch,))
    return torch.where(torch.rand(batch) < p, share, 1.0)


@register("mix", "none")
def no_mix(images: Tensor) -> Mixed:
    """Images stay apart."""
    return images, torch.arange(len(images), device=images.device), torch.ones(len(images), device=images.device)


@register("mix", "mixup")
def mixup(images: Tensor, alpha: Annotated[float, Range(low=1e-3, high=1000)] = 0.2, p: Fraction = 1.0) -> Mixed:
    """Weighted means of two images; the loss is weighted alike (Zhang et al. 2018)."""
    partner, share = torch.randperm(len(images)).to(images.device), own_share(alpha, p, len(images)).to(images)
    weight = share[:, None, None, None]
    return weight * images + (1 - weight) * images[partner], partner, share


@register("mix", "cutmix")
def cutmix(images: Tensor, alpha: Annotated[float, Range(low=1e-3, high=1000)] = 1.0, p: Fraction = 1.0) -> Mixed:
    """A rectangle of another image; the loss is weighted by the areas (Yun et al. 2019)."""
    batch, (height, width) = len(images), images.shape[-2:]
    partner, side = torch.randperm(batch).to(images.device), (1 - own_share(alpha, p, batch)).sqrt()
    bounds = [cut_interval(side, length, images.device) for length in (height, width)]
    inside = bounds[0][:, :, None] & bounds[1][:, None, :]  # (B, H, W)
    return torch.where(inside[:, None], images[partner], images), partner, 1 - inside.float().mean((1, 2))


def cut_interval(share: Tensor, length: int, device: torch.device) -> Tensor:
    """Which of `length` places lie within an interval of a share (B,) about a random centre: bool (B, length)."""
    centre, places = torch.rand(len(share), 1) * length, torch.arange(length) + 0.5
    return ((places - centre).abs() < share[:, None] * length / 2).to(device)


# 6. Backbones and heads
# ----------------------------------------------------------------------------------------------------------------------


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in fp32, or as it is in fp64."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def l2_normalize(embeddings: Tensor) -> Tensor:
    """Embeddings (B, D) at unit length, in fp32 or better also under autocast."""
    return F.normalize(full_precision(embeddings), dim=-1)


# pooling


def feature_map(backbone: nn.Module, features: Tensor) -> Tensor:
    """Output of `forward_features` as (B, D, h, w), whatever the family: CNN, Swin (NHWC) or ViT (tokens)."""
    if not isinstance(features, Tensor):
        raise KitError(
            f"model.pooling: {type(backbone).__name__} gives several maps, not one (expected pooling: native)"
        )
    if features.ndim == 3:  # (B, prefix + h*w, D), class and register tokens first
        one = math.isqrt(features.shape[1] - 1) ** 2 == features.shape[1] - 1  # CoaT and VOLO do not tell their token
        tokens = features[:, getattr(backbone, "num_prefix_tokens", int(one)) :]
        if not tokens.shape[1] or math.isqrt(tokens.shape[1]) ** 2 != tokens.shape[1]:
            raise KitError(f"model.pooling: {type(backbone).__name__} gives no square map (expected pooling: native)")
        return tokens.transpose(1, 2).unflatten(2, (math.isqrt(tokens.shape[1]), -1))
    return features.permute(0, 3, 1, 2) if getattr(backbone, "output_fmt", "NCHW") == "NHWC" else features


def norm_behind(backbone: nn.Module) -> nn.Module | None:
    """The norm that timm's model has behind its pooling, as EVA-02 and ConvNeXt do; None where it has none there, or
    one between a classifier's layers, as InceptionNeXt."""
    width = getattr(backbone, "num_features", None)
    found = (getattr(backbone, "fc_norm", None), getattr(getattr(backbone, "head", None), "norm", None))
    norms = (n for n in found if isinstance(n, nn.Module) and not isinstance(n, nn.Identity))
    return next((n for n in norms if getattr(n, "normalized_shape", (width,)) == (width,)), None)


def normalised_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """Output of `forward_features`, each place normalised where the backbone would do that behind its pooling."""
    features, norm = backbone.forward_features(images), norm_behind(backbone)
    if norm is None:
        return features
    first = features.ndim == 4 and getattr(backbone, "output_fmt", "NCHW") != "NHWC"  # where the channels stand
    if first == type(norm).__name__.endswith("2d"):
        return norm(features)
    if first:
        return norm(features.movedim(1, -1)).movedim(-1, 1)
    return norm(features.movedim(-1, 1)).movedim(1, -1)


class Pooling(Part):
    """From images to one vector each, in two steps: `features` is what a frozen backbone makes, `pool` may learn.

    Here the features are what the backbone saw at each place (B, D, h, w), and `reduce` takes them to (B, D), in fp32.
    """

    kind = "map"  # of the features; poolings of one kind share those of a frozen backbone

    def width(self, backbone: nn.Module) -> int:
        return backbone.num_features

    def features(self, backbone: nn.Module, images: Tensor) -> Tensor:
        return feature_map(backbone, normalised_features(backbone, images))

    def pool(self, features: Tensor) -> Tensor:
        """Vectors (B, D) of the features, each of its image alone, so that a batch may come in parts."""
        return self.reduce(full_precision(features))

    def finish(self, vectors: Tensor) -> Tensor:
        """What becomes of the vectors of a whole batch, such as batch norm."""
        return vectors

    def finishing(self) -> list[nn.Parameter]:
        """What `finish` learns."""
        return []

    def forward(self, backbone: nn.Module, images: Tensor) -> Tensor:
        return self.finish(self.pool(self.features(backbone, images)))


@register("pooling", "native")
class NativePooling(Pooling):
    """The backbone's own pooling: timm's `forward_head(..., pre_logits=True)`."""

    kind = "vector"

    def width(self, backbone: nn.Module) -> int:
        return getattr(backbone, "head_hidden_size", None) or backbone.num_features

    def features(self, backbone: nn.Module, images: Tensor) -> Tensor:
        return backbone.forward_head(backbone.forward_features(images), pre_logits=True)

    def pool(self, features: Tensor) -> Tensor:
        return features


@register("pooling", "logits")
class LogitsPooling(NativePooling):
    """What the backbone's own classifier says, such as 1,000 logits of ImageNet.

    >>> model = {"backbone": "test_resnet", "pretrained": False, "pooling": "logits", "head": "none"}
    >>> build_embedder(model).eval()(torch.rand(2, 3, 64, 64)).shape
    torch.Size([2, 1000])
    """

    kind = "logits"

    def width(self, backbone: nn.Module) -> int:
        if not backbone.num_classes:
            raise KitError(
                f"model.pooling: {type(backbone).__name__} comes without a classifier, so that there are no logits "
                "(expected weights that have one, or another pooling such as native)"
            )
        return backbone.num_classes

    def features(self, backbone: nn.Module, images: Tensor) -> Tensor:
        return backbone.forward_head(backbone.forward_features(images))


@register("pooling", "average")
class AveragePooling(Pooling):
    """The mean over places."""

    def reduce(self, places: Tensor) -> Tensor:
        return places.mean((2, 3))


@register("pooling", "max")
class MaxPooling(Pooling):
    """The largest value over places."""

    def reduce(self, places: Tensor) -> Tensor:
        return places.amax((2, 3))


class GeM(nn.Module):
    """Generalised mean over places (B, D, h, w): (mean of x ** p) ** (1 / p), p learned (Radenovic et al. 2018).

    What learns is the logarithm of p, so that p stays above 0, or p itself.
    """

    def __init__(self, p: float, learns: str = "log_p"):
        super().__init__()
        if learns == "p":
            self.p = nn.Parameter(torch.tensor([p]))
        else:
            self.log_p = nn.Parameter(torch.tensor(math.log(p)))

    @property
    def exponent(self) -> Tensor:
        return self.p if hasattr(self, "p") else self.log_p.exp()

    def forward(self, places: Tensor) -> Tensor:
        p = self.exponent
        places = places.clamp(min=1e-6)  # (B, D, h, w)
        largest = places.detach().amax((2, 3), keepdim=True)  # taken out, so that no power overflows or vanishes
        return (places / largest).pow(p).mean((2, 3)).pow(1 / p) * largest[..., 0, 0]


GeMExponent = Annotated[float, Range(low=1, high=100)]


@register("pooling", "gem")
class GeMPooling(Pooling):
    """Generalised mean with a learnable exponent: (mean over places of x ** p) ** (1 / p)."""

    p: GeMExponent = 3.0
    learns: Literal["log_p", "p"] = "log_p"

    def __post_init__(self) -> None:
        self.reduce = GeM(self.p, self.learns)


@register("pooling", "gem_bn")
class GeMBatchNormPooling(GeMPooling):
    """Generalised mean with a learnable exponent, then batch norm, which sees a whole batch."""

    num_features: int  # of the backbone

    def __post_init__(self) -> None:
        super().__post_init__()
        self.reduce = nn.Sequential(self.reduce, nn.BatchNorm1d(self.num_features))

    def pool(self, features: Tensor) -> Tensor:
        return self.reduce[0](full_precision(features))

    def finish(self, vectors: Tensor) -> Tensor:
        return self.reduce[1](vectors)

    def finishing(self) -> list[nn.Parameter]:
        return list(self.reduce[1].parameters())


@register("pooling", "class_token")
class ClassTokenPooling(Pooling):
    """A ViT's class token.

    >>> model = {"backbone": "test_vit", "pretrained": False, "pooling": "class_token", "head": "none"}
    >>> build_embedder(model).eval()(torch.rand(2, 3, 160, 160)).shape
    torch.Size([2, 64])
    """

    kind = "class token"

    def width(self, backbone: nn.Module) -> int:
        if getattr(backbone, "cls_token", None) is None:
            raise KitError(
                f"model.pooling: {type(backbone).__name__} has no class token (expected a ViT that has one, or another "
                "pooling such as gem)"
            )
        return backbone.num_features

    def features(self, backbone: nn.Module, images: Tensor) -> Tensor:
        return normalised_features(backbone, images)[:, :1]  # (B, 1, D)

    def pool(self, features: Tensor) -> Tensor:
        return full_precision(features)[:, 0]


@register("pooling", "class_gem")
class ClassGeMPooling(ClassTokenPooling):
    """A ViT's class token and the generalised mean of its patches, one behind the other.

    >>> model = {"backbone": "test_vit", "pretrained": False, "pooling": "class_gem", "head": "none"}
    >>> build_embedder(model).eval()(torch.rand(2, 3, 160, 160)).shape
    torch.Size([2, 128])
    """

    kind = "class token and patches"
    p: GeMExponent = 3.0

    def __post_init__(self) -> None:
        self.reduce = GeM(self.p)

    def width(self, backbone: nn.Module) -> int:
        return 2 * super().width(backbone)

    def features(self, backbone: nn.Module, images: Tensor) -> Tensor:
        tokens = normalised_features(backbone, images)
        return torch.cat([tokens[:, :1], tokens[:, backbone.num_prefix_tokens :]], 1)  # (B, 1 + h * w, D)

    def pool(self, features: Tensor) -> Tensor:
        tokens = full_precision(features)
        return torch.cat([tokens[:, 0], self.reduce(tokens[:, 1:].transpose(1, 2)[..., None])], 1)


# heads


Init = Literal["default", "kaiming"]  # of linear layers: torch's own, or Kaiming normal (fan out, ReLU), biases 0


def initialised(module: nn.Module, init: Init) -> nn.Module:
    for layer in module.modules() if init == "kaiming" else ():
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return module


@register("head", "linear")
def linear_head(in_features: int, output: Width = 256, init: Init = "default") -> nn.Module:
    """One linear layer; `init`: torch's own, or kaiming (He et al. 2015)."""
    return initialised(nn.Linear(in_features, output), init)


@register("head", "mlp")
def mlp_head(
    in_features: int,
    layers: Annotated[int, Range(low=1, high=64)] = 2,
    hidden: Width = 512,
    output: Width = 256,
    dropout: Fraction = 0.3,
    init: Init = "default",
) -> nn.Module:
    """`layers` linear layers: each but the last with batch norm, ReLU and dropout, the last with batch norm.

    init: torch's own, or kaiming (He et al. 2015).
    """
    modules: list[nn.Module] = []
    for width in [hidden] * (layers - 1):
        modules += [nn.Linear(in_features, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        in_features = width
    return initialised(nn.Sequential(*modules, nn.Linear(in_features, output), nn.BatchNorm1d(output)), init)


class Neck(nn.Sequential):
    """A layer, or none, then batch norm, and dropout where it is asked for."""

    @property
    def layer(self) -> nn.Module:
        return self[0] if isinstance(self[0], nn.Linear) else nn.Identity()

    @property
    def behind(self) -> nn.Module:
        return self[1:] if isinstance(self[0], nn.Linear) else self[:]


@register("head", "bn_neck")
def bn_neck(in_features: int, output: Width | None = None, dropout: Fraction = 0.0) -> nn.Module:
    """Batch norm without a shift upon the features, or upon a linear layer to `output` of them (Luo et al. 2019), and
    dropout behind it."""
    neck = nn.BatchNorm1d(output or in_features)
    neck.bias.requires_grad_(False)
    layer = [nn.Linear(in_features, output, bias=False)] if output else []
    return Neck(*layer, neck, *([nn.Dropout(dropout)] if dropout else []))


@register("head", "none")
def no_head(in_features: int) -> nn.Module:
    """The pooled features are the embeddings, as for a plain classifier."""
    head = nn.Identity()
    head.num_features = in_features
    return head


def head_width(head: nn.Module) -> int:
    """Length of the embeddings that a head gives: its own `num_features`, or what its last layer that tells gives."""
    for module in (head, *reversed(list(head.modules()))):
        width = getattr(module, "num_features", getattr(module, "out_features", None))
        if isinstance(width, int):
            return width
    raise KitError(
        f"model.head: a {type(head).__name__} does not tell the length of its embeddings (expected an attribute "
        "num_features, or a Linear or BatchNorm1d as its last layer)"
    )


# geometries: the space that embeddings live in, and how alike two of them are


class Geometry(Part):
    """Makes embeddings of a head's outputs and compares them, by 1 - d ** 2 / 2 of the space's own distance d.

    On the unit sphere that is the cosine. `project` gives what may be compared, `logmap0` vectors of which means make
    sense (in a curved space those of the tangent space at its origin), `expmap0` their way back.

    >>> ball = build("geometry", "poincare", curvature=1.0)
    >>> ball.distance(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.5, 0.0]]))  # 2 atanh(0.5)
    tensor([[1.0986]])
    """

    hyperbolic = False
    unit = False  # whether all embeddings are of length 1

    def forward(self, outputs: Tensor) -> Tensor:
        """Embeddings (B, D) of a head's outputs (B, D)."""
        return outputs

    def project(self, embeddings: Tensor) -> Tensor:
        return full_precision(embeddings)

    def distance(self, points: Tensor, others: Tensor) -> Tensor:
        """Distances (N, M) of points (N, D) and (M, D)."""
        return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")

    def similarity(self, points: Tensor, others: Tensor) -> Tensor:
        """1 - d ** 2 / 2 (N, M): falls with distance, 1 for what is the same."""
        return 1 - self.distance(points, others).square() / 2

    def logmap0(self, points: Tensor) -> Tensor:
        return points

    def expmap0(self, vectors: Tensor) -> Tensor:
        return vectors


@register("geometry", "euclidean")
class Euclidean(Geometry):
    """Embeddings of any length, compared by the Euclidean distance |x - y|."""


@register("geometry", "cosine")
class Cosine(Geometry):
    """Embeddings of any length, compared by the cosine x . y / (|x| |y|)."""

    def project(self, embeddings: Tensor) -> Tensor:
        return l2_normalize(embeddings)

    def similarity(self, points: Tensor, others: Tensor) -> Tensor:
        return points @ others.T

    def expmap0(self, vectors: Tensor) -> Tensor:
        return l2_normalize(vectors)


@register("geometry", "hyperspherical")
class Hyperspherical(Cosine):
    """Embeddings of unit length, compared by the cosine."""

    unit = True

    def forward(self, outputs: Tensor) -> Tensor:
        return l2_normalize(outputs)


def norms(vectors: Tensor) -> Tensor:
    """Euclidean norms (B, 1), never 0, so that one may divide by them."""
    return vectors.norm(dim=-1, keepdim=True).clamp(min=1e-7)


def shorten(vectors: Tensor, limit: float) -> Tensor:
    """Vectors (B, D) shortened to a Euclidean norm of `limit`."""
    return vectors * (limit / norms(vectors)).clamp(max=1)


class Hyperbolic(Geometry):
    """A space of curvature -k. A head's outputs are tangent vectors at the origin, taken in by the exponential map.

    What would land further out than `radius`, measured in the Poincare ball, lands there. Computed in fp32 or better.
    """

    hyperbolic = True
    curvature: Positive = 1.0  # k
    radius: Positive | None = None  # the largest norm in the Poincare ball; null: 0.95 of the rim's

    def __post_init__(self) -> None:
        self.k, self.c = self.curvature, math.sqrt(self.curvature)
        self.radius = 0.95 / self.c if self.radius is None else self.radius
        if self.radius * self.c > 0.9999:
            raise KitError(
                f"model.geometry.radius: {self.radius:g} reaches the rim of the ball, which is at "
                f"1 / sqrt(curvature) = {1 / self.c:g} (expected a radius below it)"
            )

    @property
    def longest(self) -> float:
        """Distance from the origin to `radius`."""
        return 2 / self.c * math.atanh(self.c * self.radius)

    def forward(self, outputs: Tensor) -> Tensor:
        with torch.autocast(outputs.device.type, enabled=False):
            return self.expmap0(full_precision(outputs))


@register("geometry", "poincare")
class Poincare(Hyperbolic):
    """The Poincare ball, points x with c |x| < 1: d(x, y) = 2 / c asinh(c |x - y| / sqrt((1 - k x.x)(1 - k y.y))).

    c = sqrt(k); exponential map at the origin v / |v| tanh(c |v|) / c, as in Ganea et al. 2018.
    """

    def project(self, embeddings: Tensor) -> Tensor:
        return shorten(full_precision(embeddings), self.radius)

    def distance(self, points: Tensor, others: Tensor) -> Tensor:
        gap = super().distance(points, others)
        room, others_room = (1 - self.k * x.square().sum(1) for x in (points, others))
        return 2 / self.c * torch.asinh(self.c * gap / (room[:, None] * others_room).sqrt())

    def logmap0(self, points: Tensor) -> Tensor:
        norm = norms(points)
        return points / norm * torch.atanh((self.c * norm).clamp(max=1 - 1e-6)) / self.c

    def expmap0(self, vectors: Tensor) -> Tensor:
        norm = norms(vectors)
        return vectors / norm * (torch.tanh(self.c * norm) / self.c).clamp(max=self.radius)


@register("geometry", "lorentz")
class Lorentz(Hyperbolic):
    """The same space as a hyperboloid: d(x, y) = 2 / c asinh(c / 2 sqrt(|x - y| ** 2 - (x_0 - y_0) ** 2)).

    Embeddings are its space coordinates x, time is x_0 = sqrt(1 / k + x.x), c = sqrt(k); exponential map at the origin
    v / |v| sinh(c |v|) / c (Nickel & Kiela 2018). `radius` is measured in the Poincare ball all the same.
    """

    def project(self, embeddings: Tensor) -> Tensor:
        return shorten(full_precision(embeddings), math.sinh(self.c * self.longest) / self.c)

    def distance(self, points: Tensor, others: Tensor) -> Tensor:
        squares, others_squares = (x.square().sum(1) for x in (points, others))
        times, others_times = ((1 / self.k + s).sqrt() for s in (squares, others_squares))
        later = (squares[:, None] - others_squares) / (times[:, None] + others_times)  # difference of the times
        interval = super().distance(points, others).square() - later.square()
        return 2 / self.c * torch.asinh(self.c / 2 * interval.clamp(min=1e-14).sqrt())

    def logmap0(self, points: Tensor) -> Tensor:
        norm = norms(points)
        return points / norm * torch.asinh(self.c * norm) / self.c

    def expmap0(self, vectors: Tensor) -> Tensor:
        norm = norms(vectors)
        return vectors / norm * torch.sinh(self.c * norm.clamp(max=self.longest)) / self.c


class Embedder(nn.Module):
    """Backbone, pooling, head and geometry: normalised images (B, 3, H, W) to embeddings (B, D).

    >>> embedder = build_embedder({"backbone": "test_resnet", "pretrained": False, "head": "linear"})
    >>> embedder.eval()(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 256])
    """

    def __init__(
        self, backbone: nn.Module, pooling: nn.Module, head: nn.Module, frozen: bool, geometry: Geometry | None = None
    ):
        super().__init__()
        self.backbone, self.pooling, self.head, self.frozen = backbone, pooling, head, frozen
        self.geometry = geometry or Cosine()
        self.backbone_fingerprint = ""  # of the weights of a frozen backbone, once they are known
        self.trained_before: tuple[str, ...] = ()  # images that its checkpoint was trained on, by their paths
        self.input_size: int | None = None  # px that it is made for; None: the backbone's own
        self.crop = 1.0  # share of an image's side that it sees
        backbone.requires_grad_(not frozen)
        self.train()  # of which a frozen backbone takes no part

    def train(self, mode: bool = True) -> Embedder:
        if self.frozen:  # its modules are many, and stay as they are
            self.training = mode
            self.pooling.train(mode)
            self.head.train(mode)
            if self.backbone.training:
                self.backbone.eval()
            return self
        super().train(mode)
        for module in self.backbone.modules():  # what does not learn keeps its batch norm statistics too
            parameters = list(module.parameters(recurse=False))
            module.training = mode and (not parameters or any(p.requires_grad for p in parameters))
        return self

    @property
    def embedding_dim(self) -> int:
        return head_width(self.head)

    def pooled(self, images: Tensor) -> Tensor:
        """Pooled vectors (B, D), before what sees a whole batch."""
        return self.pooling.pool(self.pooling.features(self.backbone, images))

    def from_pooled(self, vectors: Tensor) -> Tensor:
        """Embeddings (B, D) of what `pooled` gave."""
        return self.around_neck(vectors)[1]

    def around_neck(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """What a bn_neck is given, or any other head, and the embeddings (B, D)."""
        before, neck = self.pooling.finish(vectors), self.head
        if isinstance(neck, Neck):
            before, neck = neck.layer(before), neck.behind
        return before, self.geometry(neck(before))

    def from_features(self, features: Tensor) -> Tensor:
        """Embeddings (B, D) of the features of a frozen backbone."""
        return self.from_pooled(self.pooling.pool(features))

    def forward(self, images: Tensor) -> Tensor:
        return self.from_pooled(self.pooled(images))


# backbones and their weights


@dataclass(frozen=True)
class Backbone:
    """What a short name stands for."""

    architecture: str  # as timm calls it, with the tag of the weights where there are several
    hub: str = ""  # repository of the weights on the Hugging Face hub; "": timm's own
    prefix: str = ""  # of the backbone's tensors in that repository's file
    config: Mapping[str, Any] = field(default_factory=dict)  # what differs from timm's configuration
    neck: Mapping[str, str] = field(default_factory=dict)  # GeM and batch norm of its own pooling, by their names
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of timm's model, where the repository tells some


BACKBONES = {
    "megadescriptor_l_384": Backbone(
        "swin_large_patch4_window12_384",
        "BVRA/MegaDescriptor-L-384",
        config={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "license": "cc-by-nc-4.0"},
    ),
    "dinov3_l": Backbone("vit_large_patch16_dinov3.lvd1689m"),
    "eva02_l_448": Backbone("eva02_large_patch14_448.mim_m38m_ft_in22k_in1k"),
    "efficientnet_b4": Backbone("efficientnet_b4"),
    "mobilenetv3_large": Backbone("mobilenetv3_large_100"),
    "resnet50": Backbone("resnet50.a1_in1k"),
    "vit_b_384": Backbone("vit_base_patch16_384"),
    "vit_l_384": Backbone("vit_large_patch16_384"),
    "vit_h": Backbone("vit_huge_patch14_224.orig_in21k"),
    "convnext_xl_384": Backbone("convnext_xlarge.fb_in22k_ft_in1k_384"),
    "swin_l_384": Backbone("swin_large_patch4_window12_384"),
    "miewid": Backbone(
        "efficientnetv2_rw_m",
        "conservationxlabs/miewid-msv3",
        prefix="backbone.",
        neck={"pooling.": "global_pool.0.", "bn.": "global_pool.1."},
        config={"input_size": (3, 440, 440), "license": "see the repository"},
    ),
}


def known_backbone(name: str) -> Backbone:
    """What a short name or hf-hub:OWNER/NAME stands for, or timm's architecture of that name; KitError names the
    nearest."""
    repository = re.fullmatch(r"hf[-_]hub:([\w.-]+/[\w.-]+)", name)
    backbone = hub_backbone(repository[1]) if repository else BACKBONES.get(name) or Backbone(name)
    architecture, _, tag = backbone.architecture.partition(".")
    if not timm.is_model(architecture):
        known, otherwise = [*BACKBONES, *timm.list_models()], f"{', '.join(BACKBONES)} or any of timm.list_models()"
        raise KitError(f"model.backbone: timm {timm.__version__} has no {name!r}; {suggest(name, known, otherwise)}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise KitError(f"model.backbone: timm {timm.__version__} has no {name!r}; {suggest(tag, tags)}")
    return backbone


@cache
def hub_backbone(repository: str) -> Backbone:
    """What a repository of the Hugging Face hub holds, by what lies here of it, or else by its config.json there."""
    path = find_weights([repository.rpartition("/")[2]], None, "model.weights")
    if path is None and not hub_answers():
        raise no_weights(f"hf-hub:{repository}")
    if path is None:
        with asking_the_hub(f"hf-hub:{repository}") as download:
            path = Path(download(repository, HUB_CONFIG)).with_name(HUB_FILE)
    metadata = config_beside(path) or (load_safetensors(path)[1] if path.is_file() else {})
    if "architecture" not in metadata:
        raise KitError(
            f"model.backbone: hf-hub:{repository}: {path}: nothing tells which of timm's architectures it holds "
            f"(expected timm's {HUB_CONFIG} beside it; or name the architecture, and this file in model.weights)"
        )
    config = normalisation_in(path, metadata.get("config", "{}"))
    arguments = json.loads(metadata.get("arguments", "{}"))
    return Backbone(metadata["architecture"], repository, config=config, arguments=arguments)


def hub_answers() -> bool:
    """Whether the Hugging Face hub may be asked here."""
    return not on_kaggle() and os.environ.get("HF_HUB_OFFLINE", "").lower() not in ("1", "true", "yes", "on")


@contextmanager
def asking_the_hub(name: str) -> Iterator[Callable[[str, str], str]]:
    """The hub's function that fetches a file of a repository; KitError where the weights of `name` can't be had."""
    echo(f"  asking the hub for the weights of {name}")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells each of its many tries
    try:
        from huggingface_hub import hf_hub_download

        yield hf_hub_download
    except KitError:
        raise
    except Exception as error:  # noqa: BLE001 - the hub's client raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise no_weights(name, f", nor from the hub ({reason})") from None


def create_backbone(
    name: str, input_size: int | None = None, online: bool = False, classifier: bool = False
) -> nn.Module:
    """A backbone for images of `input_size` px (null: its native size); without its classifier, unless asked."""
    known = known_backbone(name)
    cfg = timm.get_pretrained_cfg(known.architecture)
    sized = {"img_size": input_size} if input_size is not None and cfg and cfg.fixed_input_size else {}
    sized |= {} if classifier else {"num_classes": 0}
    source = f"hf-hub:{known.hub}" if online and known.hub else known.architecture
    backbone = timm.create_model(source, pretrained=online, **{**known.arguments, **sized})
    backbone.pretrained_cfg = {**backbone.pretrained_cfg, **known.config}
    if known.neck:
        backbone.global_pool = nn.Sequential(GeM(3.0, "p"), nn.BatchNorm1d(backbone.num_features))
    check_input_size(backbone, input_size)
    return backbone


def check_input_size(backbone: nn.Module, size: int | None) -> None:
    patch = getattr(getattr(backbone, "patch_embed", None), "patch_size", None)
    step = patch[0] if isinstance(patch, tuple) else patch
    if size is not None and step and size % step:
        raise KitError(
            f"model.input_size: {size} is not a multiple of the backbone's patches of {step} px; "
            f"try {max(size // step, 1) * step}"
        )


def native_size(backbone: nn.Module) -> int:
    return backbone.pretrained_cfg["input_size"][-1]


PICKLED = {".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".h5", ".tar"}


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """An open safetensors file; KitError when it is missing, cut short, or of another kind, and what to do about it."""
    try:
        if path.suffix.lower() in PICKLED and path.is_file():
            raise KitError(
                f"{path}: a {path.suffix} file may run code when it is read, so that it is not (expected safetensors: "
                "save its tensors with safetensors.torch.save_file where you trust it)"
            )
        if path.exists() and not path.is_file():
            raise KitError(f"{path}: is no weights file (expected a file in safetensors format)")
        with open(path, "rb") as file:
            if file.read(23) == b"version https://git-lfs":
                raise KitError(f"{path}: a pointer of Git LFS, not the weights (git lfs pull brings them)")
        with safe_open(path, "pt") as file:
            yield file
    except FileNotFoundError:
        raise KitError(f"{path}: there is no such weights file") from None
    except (SafetensorError, OSError) as error:
        raise KitError(f"{path}: not a complete safetensors file: {error}") from None


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Their CRC-32, by which damage is told."""
    value = 0
    for piece in bytes_of(tensors):
        value = zlib.crc32(piece, value)
    return f"{value:08x}"


CHECKED: set[tuple[Path, int, int]] = set()  # versions of files whose checksum was taken in this process


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; nothing in it is executed.

    KitError where the file tells a checksum, as the kit's own do, that is not that of its tensors.
    """
    with open_safetensors(path) as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    version = file_version(path)
    if "crc32" in metadata and version not in CHECKED:
        if metadata["crc32"] != checksum(tensors):
            raise KitError(f"{path}: damaged: its tensors are not those that were written; make it again")
        CHECKED.add(version)
    return tensors, metadata


def save_tensors(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file with a checksum, atomically; what a killed process left is swept away by the next."""
    metadata = {**(metadata or {}), "crc32": checksum(tensors)}
    with atomic(path) as temporary:
        place = temporary.with_name(f"{temporary.name}.folder")
        place.mkdir()  # safetensors makes a temporary file of its own beside the one it writes
        try:
            save_file(tensors, place / "tensors", metadata)
            os.replace(place / "tensors", temporary)
        finally:
            remove_path(place)


def kept_tensor(path: Path, name: str, rows: int) -> Tensor | None:
    """A tensor (rows, ...) from the cache; None where there is none, or it is damaged and must be made anew."""
    if not path.is_file():
        return None
    try:
        tensor = load_safetensors(path)[0][name]
        if len(tensor) == rows:
            return tensor
    except (KitError, KeyError):
        echo(f"  note: {path}: was damaged and is made anew")
    return None


def kept_or_made(
    path: Path, names: Sequence[str], rows: int, make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Tensors (rows, ...) from the cache, or as they are made by one process while others wait for it."""
    with only_one(path, wait=True):
        found = {name: kept_tensor(path, name, rows) for name in names}
        if any(tensor is None for tensor in found.values()):
            found = make()
            save_tensors(path, found)
    return found


def computed_by(precision: torch.dtype | None, device: torch.device) -> tuple[str, ...]:
    """What beside weights and images may change the digits of what a network gives."""
    return str(precision), device.type, torch.__version__, timm.__version__, kornia.__version__


HUB_FILE, HUB_CONFIG = "model.safetensors", "config.json"  # what lies in a folder that was downloaded from the hub


def config_beside(path: Path) -> dict[str, str]:
    """What timm's config.json beside the hub's file tells, as the metadata of the kit's own files do; {} for none."""
    config = path.with_name(HUB_CONFIG)
    settings = read_record(config, {}, "fetch it again") if path.name == HUB_FILE and config.is_file() else {}
    if not isinstance(settings.get("architecture"), str):
        return {}  # there is none, or another library's
    shown = settings.get("pretrained_cfg", settings)
    name = settings["architecture"].partition(".")[0]
    tagged = f"{name}.{shown.get('tag')}"
    return {
        "architecture": tagged if tagged in timm.list_pretrained() else name,
        "config": json.dumps({key: shown[key] for key in ("mean", "std", "input_size") if key in shown}),
        "arguments": json.dumps(settings.get("model_args", {})),
    }


def find_backbone_weights(name: str, given: str | None) -> Path | None:
    """The safetensors file of a backbone, by its short or its whole name, as `find_weights` has it.

    None where there is none but the hub may be asked; KitError where it may not.
    """
    known = known_backbone(name)
    called = (name, known.hub.rpartition("/")[2], known.architecture)  # in the recipe, on the hub, in timm
    found = find_weights(dict.fromkeys(filter(None, called)), given, "model.weights")
    if found is None and not hub_answers():
        raise no_weights(name)
    return found


def find_weights(called: Iterable[str], given: str | None, where: str) -> Path | None:
    """The safetensors file of a network by one of the names that it is called by; None where there is none.

    Looked for as the recipe's own file (in the setting `where`) or in its folder, in $JAGUAR_KIT_WEIGHTS, in Kaggle's
    input, in weights/.
    """
    if given and Path(given, HUB_FILE).is_file():
        return Path(given, HUB_FILE)
    if given and not Path(given).is_dir():
        if not Path(given).exists():
            raise KitError(f"{where}: {given}: there is no such weights file, nor a folder of them")
        return Path(given)
    usual = (os.environ.get(WEIGHTS_VARIABLE), KAGGLE_INPUT, "weights", Path(__file__).parent / "weights")
    folders, names = [given] if given else filter(None, usual), [*called]
    for folder, name in itertools.product(map(Path, folders), names):
        found = find_mounted(f"{glob_escape(name)}.safetensors", folder)
        found += filter(Path.is_file, [folder / name / HUB_FILE])
        if found:
            return found[0]
    if given:  # what is named is never replaced by what lies elsewhere
        raise KitError(f"{where}: {given}: holds no weights of {names[0]} (expected {names[-1]}.safetensors there)")
    return None


def no_weights(name: str, reason: str = "") -> KitError:
    return KitError(
        f"model.backbone: no weights for {name!r} in model.weights, ${WEIGHTS_VARIABLE}, {KAGGLE_INPUT}, "
        f"weights/{reason}; fetch them where there is internet (tools/fetch_weights.py {name}), put "
        f"{name.rpartition('/')[2]}.safetensors into one of these, or set model.pretrained: false for random weights"
    )


def load_backbone(
    name: str, input_size: int | None, pretrained: bool, weights: str | None, classifier: bool = False
) -> nn.Module:
    """A backbone with random weights, with those of a file, or with those of the hub.

    Keys that are missing from the file, or that the backbone does not know, are errors; a classifier is dropped, unless
    it is asked for.
    """
    if not pretrained:
        return create_backbone(name, input_size, classifier=classifier)
    path = find_backbone_weights(name, weights)
    if path is None:
        return download_backbone(name, input_size, classifier)
    return read_backbone(path, name, input_size, classifier)


def download_backbone(name: str, input_size: int | None, classifier: bool = False) -> nn.Module:
    """A backbone with its weights from the hub; KitError when they can't be had."""
    known = known_backbone(name)
    with asking_the_hub(name) as download:
        if not known.prefix:
            return create_backbone(name, input_size, online=True, classifier=classifier)
        path = Path(download(known.hub, HUB_FILE))
    return read_backbone(path, name, input_size)


def read_backbone(path: Path, name: str, input_size: int | None, classifier: bool = False) -> nn.Module:
    """A backbone with the weights of a file, which is held to what it says of itself."""
    backbone = create_backbone(name, input_size, classifier=classifier)
    tensors, metadata = load_safetensors(path)
    metadata = {**config_beside(path), **metadata}
    if metadata.get("format", "").startswith("jaguar_kit 1"):
        raise KitError(f"{path}: holds a whole run, not a backbone (expected it in `checkpoint`, not in model.weights)")
    wanted, kind = known_backbone(name).architecture, metadata.get("architecture")
    if kind is not None and kind.partition(".")[0] != wanted.partition(".")[0]:
        raise KitError(f"{path}: weights of another architecture: {kind}, but model.backbone {name!r} is {wanted}")
    if "sha256" in metadata and metadata["sha256"] != sha_of(tensors):
        raise KitError(f"{path}: damaged: its tensors are not those of which it tells the sha256; fetch it again")
    backbone.pretrained_cfg.update(normalisation_in(path, metadata.get("config", "{}")))
    tensors = by_own_names(known_backbone(name), backbone, tensors, path)
    layers = () if classifier else backbone.pretrained_cfg.get("classifier") or ()  # to be left out
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    dropped = [key for key in tensors if key.startswith(tuple(f"{layer}." for layer in layers))]
    if dropped:  # no embedding passes through it
        echo(f"  note: {path}: left out the classifier ({', '.join(dropped)})")
    tensors = {key: value for key, value in tensors.items() if key not in dropped}
    adapt = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)  # position embeddings
    if adapt:  # timm's own files have a classifier, and some of its filters take one without for an older kind
        tensors = adapt({**tensors, **{f"{layer}.weight": torch.zeros(0) for layer in layers}}, backbone)
        tensors = {key: value for key, value in tensors.items() if key.rpartition(".")[0] not in layers}
    load_strictly(backbone, tensors, path)
    return backbone


def normalisation_in(path: Path, text: str, where: str = "config") -> dict[str, Any]:
    """Mean, standard deviation and input size of images, as far as a weights file's metadata tell them as JSON."""
    with suppress(ValueError, TypeError, AttributeError, RecursionError):
        settings = json.loads(text)
        config = {key: tuple(map(float, settings[key])) for key in ("mean", "std") if key in settings}
        config |= {key: tuple(map(int, settings[key])) for key in ("input_size",) if key in settings}
        small = all(math.isfinite(v) and abs(v) < 1e4 for values in config.values() for v in values)
        if small and all(len(v) == 3 for v in config.values()) and all(s > 0 for s in config.get("std", ())):
            return config
    raise KitError(
        f"{path}: its metadata '{where}' are {text!r} (expected JSON with mean, std and input_size, three numbers "
        "each); save it again with save_backbone, or without metadata"
    )


WRAPPINGS = ("module.", "backbone.", "model.", "encoder.", "net.", "_orig_mod.")  # what trainers put before names
WRAPPINGS += tuple(one + other for one in WRAPPINGS for other in WRAPPINGS)


def by_own_names(known: Backbone, backbone: nn.Module, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors by the backbone's own names, where they stand in a larger model or behind a wrapping; says so."""

    def inner(names: Mapping[str, str]) -> dict[str, Tensor]:
        return {names[p] + key[len(p) :]: v for key, v in tensors.items() for p in names if key.startswith(p)}

    if known.prefix and any(key.startswith(known.prefix) for key in tensors):  # the file as it was published
        names = {known.prefix: "", **known.neck}
        others = sorted({key.partition(".")[0] for key in tensors if not key.startswith(tuple(names))})
        echo(f"  note: {known.hub}: left out what is not the backbone's ({', '.join(others) or 'nothing'})")
        tensors = inner(names)
    wanted = backbone.state_dict().keys()
    for prefix in () if wanted <= tensors.keys() else WRAPPINGS:
        found = inner({prefix: ""})
        if wanted <= found.keys():
            others = f", and left out {len(tensors) - len(found)} others" if len(found) < len(tensors) else ""
            echo(f"  note: {path}: took its tensors without the prefix {prefix!r}{others}")
            return found
    return tensors


def backbone_sha256(backbone: nn.Module) -> str:
    """The hash of a frozen backbone's tensors, but for what is fitted to the input size; taken once."""
    if not hasattr(backbone, "kit_sha256"):
        state = {k: v for k, v in backbone.state_dict().items() if not re.search("pos_embed|relative_position", k)}
        backbone.kit_sha256 = sha_of(state)
    return backbone.kit_sha256


def detached(tensor: Tensor) -> Tensor:
    """A copy on the CPU, laid out as safetensors wants it."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    state = module.state_dict()
    counters = {k: v for k, v in state.items() if k.endswith("num_batches_tracked") and k not in tensors}
    tensors = {**tensors, **counters}  # which some savers leave out, and evaluation never reads
    missing, unknown = sorted(state.keys() - tensors.keys()), sorted(tensors.keys() - state.keys())
    other = sorted(k for k in state.keys() & tensors.keys() if state[k].shape != tensors[k].shape)
    if missing or unknown or other:
        faults = [f"'{name}' is missing" for name in missing] + [f"'{name}' is unknown" for name in unknown]
        faults += [f"'{k}' is {tuple(tensors[k].shape)}, expected {tuple(state[k].shape)}" for k in other]
        raise KitError(
            f"{path}: weights of another architecture: {faults[0]} "
            f"({len(missing)} missing, {len(unknown)} unknown, {len(other)} of another shape)"
        )
    usual = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    odd = next((k for k in sorted(state) if state[k].is_floating_point() and tensors[k].dtype not in usual), None)
    if odd or any(not torch.isfinite(value).all() for value in tensors.values() if value.is_floating_point()):
        fault = f"'{odd}' is {tensors[odd].dtype}, as of quantised weights" if odd else "not all of them are numbers"
        raise KitError(f"{path}: {fault} (expected the finite float weights of {type(module).__name__})")
    module.load_state_dict(tensors)


def layer_of_parameters(backbone: nn.Module) -> dict[str, int]:
    """The layer of each of a backbone's parameters, counted from the input, as timm groups them."""
    if not hasattr(backbone, "group_matcher"):
        raise KitError(f"model.train_blocks, train.layer_decay: timm knows no layers of a {type(backbone).__name__}")
    return group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)


def learn_last_blocks(backbone: nn.Module, count: int) -> None:
    """Lets only the last `count` blocks learn, and what comes behind them, such as a last norm."""
    layers, named = layer_of_parameters(backbone), dict(backbone.named_parameters())
    blocks = sorted({layers[name] for name, parameter in named.items() if parameter.ndim > 1})
    if count > len(blocks):
        raise KitError(f"model.train_blocks: {count} is more than the {len(blocks)} blocks of the backbone")
    for name, parameter in named.items():
        parameter.requires_grad_(layers[name] >= blocks[-count])


def set_drop_path(backbone: nn.Module, rate: float) -> None:
    """Stochastic depth (Huang et al. 2016): blocks are skipped at random in training, the last one at this rate."""
    names = ("drop_path", "drop_path1", "drop_path2")
    blocks = [block for block in backbone.modules() if any(hasattr(block, name) for name in names)]
    if not blocks:
        raise KitError(f"model.drop_path: a {type(backbone).__name__} has no blocks to skip (expected 0)")
    for number, block in enumerate(blocks):
        for name in filter(partial(hasattr, block), names):
            setattr(block, name, DropPath(rate * number / max(len(blocks) - 1, 1)))


def build_embedder(model: ModelConfig | Mapping | str, backbone: nn.Module | None = None) -> Embedder:
    """Backbone (loaded, unless it is given), pooling, head and geometry of a recipe; weights on the CPU.

    model: the recipe's `model`, or plain settings as a recipe writes them, or just the name of a backbone.

    >>> build_embedder({"backbone": "test_resnet", "pretrained": False}).embedding_dim
    256
    """
    model = convert({"backbone": model} if isinstance(model, str) else model, ModelConfig, "model")
    if backbone is None:
        asked = (model.backbone, model.input_size, model.pretrained, model.weights, model.pooling.name == "logits")
        backbone = load_backbone(*asked)
    pooling = model.pooling.build(num_features=backbone.num_features)
    head = model.head.build(in_features=pooling.width(backbone))
    embedder = Embedder(backbone, pooling, head, model.freeze, model.geometry.build())
    embedder.input_size, embedder.crop = model.input_size, model.crop
    if model.train_blocks and not model.freeze:
        learn_last_blocks(backbone, model.train_blocks)
    if model.drop_path:
        set_drop_path(backbone, model.drop_path)
    if model.gradient_checkpointing and not model.freeze:
        if not hasattr(backbone, "set_grad_checkpointing"):
            raise KitError(f"model.gradient_checkpointing: a {type(backbone).__name__} can't do it; set it to false")
        backbone.set_grad_checkpointing(True)
    return embedder


# 7. Losses
# ----------------------------------------------------------------------------------------------------------------------

Counts = Sequence[int]  # training images of each identity (C,), which the kit supplies
Beta = Annotated[float, Range(low=0, high=0.99999)]
Smoothing = Annotated[float, Range(low=0, high=0.9)]


def class_weights(counts: Counts, beta: float) -> Tensor:
    """A weight for each identity (C,): (1 - beta) / (1 - beta ** n), divided by the mean (Cui et al. 2019)."""
    weights = (1 - beta) / (1 - beta ** torch.tensor(counts, dtype=torch.float64))
    return (weights / weights.mean()).float()


class IdentityLoss(Part):
    """Called as loss(embeddings (B, D), labels (B,) int64[, sample_weight (B,)]) -> scalar, in fp32 or better.

    A loss says in `per_sample_loss` what each image contributes (B,) and which images count, bool (B,); the loss is the
    mean over those that count, each weighted by its identity when classes are balanced, and by its sample weight.

    >>> loss = build("loss", "cosface", embedding_dim=8, num_identities=4, beta=0.9, counts=[1, 2, 3, 4])
    >>> loss(torch.randn(16, 8), torch.arange(16) % 4).shape
    torch.Size([])
    """

    per_sample = False  # whether an image's loss depends on it alone, so that images may be mixed
    of_directions = False  # whether it normalises embeddings, so that it teaches nothing of their lengths

    embedding_dim: int
    num_identities: int
    beta: Beta = 0.0  # 0: every image counts alike; towards 1: rare identities count more
    counts: Counts | None = None

    def __post_init__(self) -> None:
        convert(self.embedding_dim, Count, "loss: embedding_dim")
        classes, counts = convert(self.num_identities, Count, "loss: num_identities"), self.counts
        if self.beta and (counts is None or len(counts) != classes or min(counts) < 1):
            raise KitError(f"loss: beta: {self.beta} needs counts, at least one image for each of {classes} identities")
        balance = class_weights(counts, self.beta) if self.beta else torch.ones(classes)
        self.register_buffer("balance", balance, persistent=False)

    def as_batch(self, embeddings: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) and labels (B,) as tensors on one device; KitError where they are none or do not fit.

        That labels are below the number of identities is checked where they lie on the CPU.
        """
        try:
            embeddings = torch.as_tensor(embeddings)
            labels = torch.as_tensor(labels, device=embeddings.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise KitError(f"loss: embeddings and labels: {error} (expected numbers (B, D) and (B,))") from None
        learned = isinstance(getattr(self, "weight", None), Tensor)  # proxies, which fit one length alone
        width, classes = self.embedding_dim if learned else embeddings.shape[-1], self.num_identities
        if embeddings.ndim != 2 or embeddings.shape[1] != width or not embeddings.is_floating_point():
            kind = f"{embeddings.dtype} of shape {tuple(embeddings.shape)}"
            raise KitError(f"loss: embeddings: {kind} (expected numbers with a point, (B, {width}))")
        if labels.shape != embeddings.shape[:1] or labels.is_floating_point() or labels.dtype is torch.bool:
            kind = f"{labels.dtype} of shape {tuple(labels.shape)}"
            raise KitError(
                f"loss: labels: {kind} (expected whole numbers, one for each of {len(embeddings)} embeddings)"
            )
        if labels.device.type == "cpu" and len(labels) and not (0 <= int(labels.min()) <= int(labels.max()) < classes):
            wrong = next(label for label in labels.tolist() if not 0 <= label < classes)
            raise KitError(f"loss: labels: {wrong} is none of {classes} identities (expected 0 to {classes - 1})")
        return embeddings, labels.long()

    def logits(self, embeddings: Tensor) -> Tensor | None:
        """(B, C), whose softmax are the probabilities of the identities; None for a loss that compares images."""
        return None

    def forward(self, embeddings: Tensor, labels: Tensor, sample_weight: Tensor | float = 1.0) -> Tensor:
        embeddings, labels = self.as_batch(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            losses, counted = self.per_sample_loss(full_precision(embeddings), labels)
            weighted = torch.where(counted, sample_weight * self.balance.to(losses)[labels] * losses, 0)
            return weighted.sum() / counted.sum().clamp(min=1)


# losses with a class for each identity


@register("loss", "cross_entropy")
class CrossEntropy(IdentityLoss):
    """Softmax classification: -log softmax(W x + b)_y, with label smoothing.

    >>> build("loss", "cross_entropy", embedding_dim=2, num_identities=3).logits(torch.ones(4, 2)).shape
    torch.Size([4, 3])
    """

    per_sample = True
    label_smoothing: Smoothing = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.num_identities, self.embedding_dim)))
        self.bias = nn.Parameter(torch.zeros(self.num_identities))

    def logits(self, embeddings: Tensor) -> Tensor:
        return F.linear(embeddings, self.weight.to(embeddings), self.bias.to(embeddings))

    def per_sample_loss(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        smoothing = self.label_smoothing
        losses = F.cross_entropy(self.logits(embeddings), labels, reduction="none", label_smoothing=smoothing)
        return losses, torch.ones_like(losses, dtype=torch.bool)


class MarginSoftmax(IdentityLoss):
    """-log softmax(s cos(theta))_y over all identities, the target's cos(theta_y) (B, 1) after `with_margin`.

    theta_j is the angle between an embedding and identity j's proxy, row j of `weight` (C, D).
    """

    of_directions = True
    per_sample = True
    scale: Positive = 64.0  # s

    def __post_init__(self) -> None:
        super().__post_init__()
        self.weight = nn.Parameter(self.new_proxies())

    def new_proxies(self) -> Tensor:
        return nn.init.xavier_uniform_(torch.empty(self.num_identities, self.embedding_dim))

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Cosines with all proxies, (B, C)."""
        return l2_normalize(embeddings) @ l2_normalize(self.weight).to(embeddings).T

    def logits(self, embeddings: Tensor) -> Tensor:
        return self.scale * self.cosines(embeddings)

    def per_sample_loss(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        cosine = self.cosines(embeddings)
        margins = [] if getattr(self, "margins", None) is None else [self.margins_by_identity[labels, None]]
        target = self.with_margin(cosine.gather(1, labels[:, None]), embeddings, *margins)
        logits = self.scale * cosine.scatter(1, labels[:, None], target)
        losses = F.cross_entropy(logits, labels, reduction="none")
        return losses, torch.ones_like(losses, dtype=torch.bool)


def safe_angle(cosine: Tensor) -> Tensor:
    """The angle in radians, with a finite gradient at |cos| = 1."""
    return torch.arccos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))


@register("loss", "arcface")
class ArcFace(MarginSoftmax):
    """Additive angular margin: cos(theta_y + m), m in radians (Deng et al. 2019).

    Beyond theta_y = pi - m it goes on as cos(theta_y) - m sin(m), which keeps falling. margins: dynamic ones, from that
    of the identity with most images to that of the one with fewest, linear in n ** -1/4 of their n (Ha et al. 2020).

    >>> build("loss", "arcface", embedding_dim=2, num_identities=3, margin=0.5).with_margin(torch.tensor(1.0), None)
    tensor(0.8776)
    """

    margin: Angle = 0.5  # m
    margins: Annotated[tuple[Angle, Angle], Rising()] | None = None  # least and greatest, in place of the one

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margins is not None:
            if self.counts is None:
                raise KitError(f"loss: margins: {list(self.margins)} need counts, the images of each identity")
            rarity = torch.tensor(self.counts, dtype=torch.float64).clamp(min=1) ** -0.25
            span = (rarity - rarity.min()) / (rarity.max() - rarity.min()).clamp(min=1e-12)
            margins = self.margins[0] + (self.margins[1] - self.margins[0]) * span
            self.register_buffer("margins_by_identity", margins.float(), persistent=False)

    def with_margin(self, cosine: Tensor, embeddings: Tensor, margin: Tensor | None = None) -> Tensor:
        m = self.margin if margin is None else margin
        cos, sin = (math.cos(m), math.sin(m)) if margin is None else (m.cos(), m.sin())
        sine = (1 - cosine.square()).clamp(min=1e-12).sqrt()  # the clamp keeps the gradient finite at |cos| = 1
        return torch.where(cosine > -cos, cosine * cos - sine * sin, cosine - m * sin)


@register("loss", "focal_arcface")
class FocalArcFace(ArcFace):
    """ArcFace's loss l times (1 - exp(-l)) ** gamma, so that easy images count less (Lin et al. 2017).

    >>> build("loss", "focal_arcface", embedding_dim=2, num_identities=3).gamma
    2.0
    """

    gamma: NonNegative = 2.0

    def per_sample_loss(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        losses, counted = super().per_sample_loss(embeddings, labels)
        focus = (-torch.expm1(-losses)).clamp(min=1e-12).pow(self.gamma) if self.gamma else 1.0
        return focus * losses, counted


@register("loss", "subcenter_arcface")
class SubcenterArcFace(ArcFace):
    """ArcFace to the nearest of K proxies of each identity: cos(theta_j) = max_k cos(theta_jk) (Deng et al. 2020).

    `weight` is (C, K, D); the margin comes after the maximum.

    >>> build("loss", "subcenter_arcface", embedding_dim=2, num_identities=3).weight.shape
    torch.Size([3, 3, 2])
    """

    subcenters: Annotated[int, Range(low=1, high=50)] = 3  # K

    def new_proxies(self) -> Tensor:
        proxies = nn.init.xavier_uniform_(torch.empty(self.num_identities * self.subcenters, self.embedding_dim))
        return proxies.view(self.num_identities, self.subcenters, self.embedding_dim)

    def cosines(self, embeddings: Tensor) -> Tensor:
        proxies = l2_normalize(self.weight).to(embeddings).flatten(0, 1)  # (C * K, D)
        return (l2_normalize(embeddings) @ proxies.T).unflatten(1, (-1, self.subcenters)).amax(2)


@register("loss", "cosface")
class CosFace(MarginSoftmax):
    """Additive margin on the cosine: cos(theta_y) - m (Wang et al. 2018).

    >>> build("loss", "cosface", embedding_dim=2, num_identities=3, margin=0.25).with_margin(torch.tensor(1.0), None)
    tensor(0.7500)
    """

    margin: Fraction = 0.35  # m

    def with_margin(self, cosine: Tensor, embeddings: Tensor) -> Tensor:
        return cosine - self.margin


@register("loss", "sphereface")
class SphereFace(MarginSoftmax):
    """The angle multiplied: (-1) ** k cos(m theta_y) - 2 k with k = floor(m theta_y / pi), falling over the half turn.

    On unit embeddings with a scale (Liu et al. 2017).

    >>> build("loss", "sphereface", embedding_dim=2, num_identities=3, margin=2).with_margin(torch.tensor(0.5), None)
    tensor(-0.5000)
    """

    margin: Annotated[float, Range(low=1, high=8)] = 1.5  # m
    scale: Positive = 30.0

    def with_margin(self, cosine: Tensor, embeddings: Tensor) -> Tensor:
        angle = self.margin * safe_angle(cosine)
        turns = (angle / math.pi).floor().detach()
        return (1 - 2 * (turns % 2)) * torch.cos(angle) - 2 * turns


@register("loss", "adaface")
class AdaFace(MarginSoftmax):
    """Margins by the embedding's norm, a sign of quality: cos(theta_y - m q) - m q - m (Kim et al. 2022).

    q is h times the norm's deviation from the running mean, in running standard deviations, within [-1, 1].

    >>> loss = build("loss", "adaface", embedding_dim=2, num_identities=3).eval()
    >>> loss.with_margin(torch.tensor([[0.5]]), 20 * torch.eye(1, 2))  # of the mean norm, so that q is 0
    tensor([[0.1000]])
    """

    reads_lengths = True
    margin: Angle = 0.4  # m
    h: Positive = 0.333
    momentum: Fraction = 0.01  # of the running mean and standard deviation

    def __post_init__(self) -> None:
        super().__post_init__()
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("std", torch.tensor(100.0))

    def with_margin(self, cosine: Tensor, embeddings: Tensor) -> Tensor:
        norm = embeddings.detach().norm(dim=1, keepdim=True).clamp(1e-3, 100)  # (B, 1)
        if self.training and len(norm) > 1:
            self.mean.lerp_(norm.mean().to(self.mean), self.momentum)
            self.std.lerp_(norm.std().to(self.std), self.momentum)
        quality = ((norm - self.mean) / (self.std + 1e-3) * self.h).clamp(-1, 1)
        angle = (safe_angle(cosine) - self.margin * quality).clamp(1e-3, math.pi - 1e-3)
        return torch.cos(angle) - self.margin * quality - self.margin


@register("loss", "hyperbolic_arcface")
class HyperbolicArcFace(ArcFace):
    """ArcFace where 2 exp(-d) - 1 of the hyperbolic distance d stands for the cosine, in the model's own geometry.

    The proxies are tangent vectors at the origin, taken in by the exponential map: small ones (normal, of norm 0.5) or
    those of the other losses (xavier), no further out than the embeddings or, in the Poincare ball, than
    `proxy_radius`.

    >>> build("loss", "hyperbolic_arcface", embedding_dim=2, num_identities=3).cosines(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    hyperbolic = True
    proxies: Literal["normal", "xavier"] = "normal"  # how they begin
    proxy_radius: Positive | None = None  # the largest norm of a proxy in the ball; null: that of embeddings
    geometry: Geometry = field(default_factory=Poincare)

    def __post_init__(self) -> None:
        if not self.geometry.hyperbolic:
            raise KitError("loss hyperbolic_arcface: needs model.geometry poincare or lorentz")
        radius = None if self.proxy_radius is None else min(self.proxy_radius, 0.999 / self.geometry.c)
        self.proxy_space = type(self.geometry)(curvature=self.geometry.k, radius=radius or self.geometry.radius)
        super().__post_init__()

    def new_proxies(self) -> Tensor:
        proxies = super().new_proxies()
        small = self.proxies == "normal"
        return nn.init.normal_(proxies, std=0.5 / math.sqrt(self.embedding_dim)) if small else proxies

    def cosines(self, embeddings: Tensor) -> Tensor:
        points, proxies = self.geometry.project(embeddings), self.proxy_space(self.weight.to(embeddings))
        return 2 * torch.exp(-self.geometry.distance(points, proxies)) - 1


@register("loss", "center")
class CenterLoss(IdentityLoss):
    """Half the squared distance to the centre of its identity (Wen et al. 2016): 1/2 |x - c_y| ** 2.

    A centre moves towards its images of a batch, in training, by alpha sum(x - c) / (1 + n). It pulls together and
    pushes nothing apart, and wants a loss beside it that does.

    >>> build("loss", "center", embedding_dim=2, num_identities=3).eval()(torch.ones(4, 2), torch.zeros(4).long())
    tensor(1.)
    """

    per_sample = True
    alpha: Fraction = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.register_buffer("weight", torch.zeros(self.num_identities, self.embedding_dim))

    @torch.no_grad()
    def move(self, offsets: Tensor, labels: Tensor) -> None:
        total = torch.zeros_like(self.weight).index_add_(0, labels, offsets.to(self.weight))
        times = torch.bincount(labels, minlength=len(self.weight))[:, None]
        self.weight += self.alpha * total / (1 + times)

    def per_sample_loss(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        offsets = embeddings - self.weight[labels].to(embeddings)
        if self.training:
            self.move(offsets.detach(), labels)
        losses = offsets.square().sum(1) / 2
        return losses, torch.ones_like(losses, dtype=torch.bool)


# losses on the pairs of a batch


def same_identity(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs of a batch show one identity, an image with itself left out, and which show two: bool (B, B)."""
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def masked_logsumexp(values: Tensor, counted: Tensor, dim: int) -> Tensor:
    """log sum exp over what counts; where nothing does very low instead of -inf, whose gradient is no number."""
    return values.masked_fill(~counted, torch.finfo(values.dtype).min / 4).logsumexp(dim)


@register("loss", "triplet")
class Triplet(IdentityLoss):
    """max(0, m + d(anchor, positive) - d(anchor, negative)) by Euclidean distance of unit embeddings.

    batch_hard: each anchor's farthest positive and nearest negative (Hermans et al. 2017). semi_hard: for each positive
    the nearest negative beyond it, or the farthest if there is none (Schroff et al. 2015). An anchor without a positive
    is left out, or counts as one whose positive is itself (alone: itself). squared: by squared distances, as FaceNet's.
    before_neck: in training by what a bn_neck is given, beside a classifier behind it (Luo et al. 2019).

    >>> embeddings, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1, 1])
    >>> float(build("loss", "triplet", embedding_dim=2, num_identities=2)(embeddings, labels))
    0.0
    """

    of_directions = True
    margin: NonNegative = 0.3  # m
    mining: Literal["batch_hard", "semi_hard"] = "batch_hard"
    alone: Literal["left_out", "itself"] = "left_out"  # an anchor without a positive, in batch_hard
    squared: bool = False
    before_neck: bool = False

    def per_sample_loss(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        vectors = l2_normalize(embeddings)
        distance = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")  # (B, B), exact when near
        distance = distance.square() if self.squared else distance
        positive, negative = same_identity(labels)
        counted = positive.any(1) & negative.any(1)
        if self.mining == "batch_hard":
            if self.alone == "itself":
                positive, counted = ~negative, negative.any(1)
            farthest = distance.masked_fill(~positive, -torch.inf).amax(1)
            nearest = distance.masked_fill(~negative, torch.inf).amin(1)
            return torch.where(counted, F.relu(self.margin + farthest - nearest), 0), counted
        beyond = negative[:, None, :] & (distance[:, None, :] > distance[:, :, None])  # (anchor, positive, negative)
        next_one = distance[:, None, :].masked_fill(~beyond, torch.inf).amin(2)  # (B, B)
        farthest = distance.masked_fill(~negative, -torch.inf).amax(1, keepdim=True).expand_as(next_one)
        chosen = torch.where(beyond.any(2), next_one, farthest)
        hinges = torch.where(positive & counted[:, None], F.relu(self.margin + distance - chosen), 0)
        return hinges.sum(1) / positive.sum(1).clamp(min=1), counted


@register("loss", "circle")
class Circle(IdentityLoss):
    """log(1 + sum_n exp(s a_n (c_n - m)) sum_p exp(-s a_p (c_p - 1 + m))) over positives p and negatives n.

    c are cosines; the weights a_n = max(0, c_n + m), a_p = max(0, 1 + m - c_p) pull and push the harder the farther a
    pair is off, and carry no gradient (Sun et al. 2020).

    >>> embeddings, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1, 1])
    >>> round(float(build("loss", "circle", embedding_dim=2, num_identities=2)(embeddings, labels)), 3)
    0.0
    """

    of_directions = True
    margin: Fraction = 0.25  # m
    scale: Positive = 80.0  # s

    def per_sample_loss(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        vectors = l2_normalize(embeddings)
        cosine = vectors @ vectors.T  # (B, B)
        positive, negative = same_identity(labels)
        pull = -self.scale * F.relu(1 + self.margin - cosine.detach()) * (cosine - 1 + self.margin)
        push = self.scale * F.relu(cosine.detach() + self.margin) * (cosine - self.margin)
        both = masked_logsumexp(pull, positive, 1) + masked_logsumexp(push, negative, 1)
        return F.softplus(both), positive.any(1) & negative.any(1)


@register("loss", "supcon")
class SupervisedContrastive(IdentityLoss):
    """-mean over positives p of log(exp(c_p / t) / sum_a exp(c_a / t)), a all others: L_out (Khosla et al. 2020).

    >>> embeddings, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 1, 1])
    >>> round(float(build("loss", "supcon", embedding_dim=2, num_identities=2)(embeddings, labels)), 3)
    0.0
    """

    of_directions = True
    temperature: Positive = 0.1  # t

    def per_sample_loss(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        vectors = l2_normalize(embeddings)
        logits = vectors @ vectors.T / self.temperature  # (B, B)
        positive, negative = same_identity(labels)
        log_share = logits - masked_logsumexp(logits, positive | negative, 1)[:, None]
        return -torch.where(positive, log_share, 0).sum(1) / positive.sum(1).clamp(min=1), positive.any(1)


@register("loss", "proxy_anchor")
class ProxyAnchor(IdentityLoss):
    """mean_q+ log(1 + sum_p exp(-s (c_pq - m))) + mean_q log(1 + sum_n exp(s (c_nq + m))) (Kim et al. 2020).

    q are proxies, rows of `weight` (C, D), q+ those with images in the batch; p their own images, n all others.

    >>> build("loss", "proxy_anchor", embedding_dim=2, num_identities=3)(torch.ones(1, 2), torch.tensor([0])).isfinite()
    tensor(True)
    """

    of_directions = True
    margin: Fraction = 0.1  # m
    scale: Positive = 32.0  # s

    def __post_init__(self) -> None:
        super().__post_init__()
        proxies = torch.empty(self.num_identities, self.embedding_dim)
        self.weight = nn.Parameter(nn.init.kaiming_normal_(proxies, mode="fan_out"))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        embeddings, labels = self.as_batch(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            vectors = l2_normalize(embeddings)
            cosine = vectors @ l2_normalize(self.weight).to(vectors).T  # (B, C)
            same = labels[:, None] == torch.arange(len(self.weight), device=labels.device)
            pull = F.softplus(masked_logsumexp(-self.scale * (cosine - self.margin), same, 0))  # (C,)
            push = F.softplus(masked_logsumexp(self.scale * (cosine + self.margin), ~same, 0))
            balance = self.balance.to(cosine)
            return (balance * pull).sum() / same.any(0).sum() + (balance * push).mean()


# sums of losses


class WeightedSum(Part):
    """A sum of losses, each times its weight; `summands` says which."""

    embedding_dim: int
    num_identities: int
    beta: Beta = 0.0  # of each summand that sets none of its own
    counts: Counts | None = None
    geometry: Geometry | None = None  # the model's own

    def __post_init__(self) -> None:
        summands, self.factors = self.summands()
        supplied = {name: getattr(self, name) for name in ("embedding_dim", "num_identities", "counts", "geometry")}
        balanced = [replace(part, settings={"beta": self.beta, **part.settings}) for part in summands]
        self.losses = nn.ModuleList([part.build(**supplied) for part in balanced])
        self.per_sample = all(loss.per_sample for loss in self.losses)

    def logits(self, embeddings: Tensor) -> Tensor | None:
        return next((logits for loss in self.losses if (logits := loss.logits(embeddings)) is not None), None)

    def forward(
        self, embeddings: Tensor, labels: Tensor, *sample_weight: Tensor, before: Tensor | None = None
    ) -> Tensor:
        def seen(loss: nn.Module) -> Tensor:
            return before if before is not None and getattr(loss, "before_neck", False) else embeddings

        return sum(w * loss(seen(loss), labels, *sample_weight) for w, loss in zip(self.factors, self.losses))


@register("loss", "cross_entropy_triplet")
class CrossEntropyTriplet(WeightedSum):
    """Classification plus a batch-hard triplet loss.

    >>> build("loss", "cross_entropy_triplet", embedding_dim=2, num_identities=3).factors
    (1.0, 0.2)
    """

    label_smoothing: Smoothing = 0.1
    triplet_weight: NonNegative = 0.2
    margin: NonNegative = 0.2

    def summands(self) -> tuple[Sequence[Component], Sequence[float]]:
        classify = Component("loss", "cross_entropy", {"label_smoothing": self.label_smoothing})
        return (classify, Component("loss", "triplet", {"margin": self.margin})), (1.0, self.triplet_weight)


@register("loss", "sum")
class SumOfLosses(WeightedSum):
    """Other losses, weighted and added; beta balances each part that sets none of its own.

    >>> build("loss", "sum", embedding_dim=2, num_identities=3, parts=["arcface"], weights=[2]).factors
    (2.0,)
    """

    parts: tuple[Annotated[Component, "loss"], ...] = (
        Component("loss", "cross_entropy"),
        Component("loss", "triplet"),
    )
    weights: tuple[Positive, ...] = (1.0, 0.2)

    def summands(self) -> tuple[Sequence[Component], Sequence[float]]:
        if len(self.parts) != len(self.weights) or not self.parts:
            raise KitError(
                f"loss sum: {len(self.parts)} parts and {len(self.weights)} weights (expected one weight for each part)"
            )
        return self.parts, self.weights


# 8. Samplers
# ----------------------------------------------------------------------------------------------------------------------

# A sampler is called once an epoch: (rows (N,), identity codes (N,), batch size, generator) -> batches of rows.


def cut_batches(rows: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Rows in batches; a last batch of one row joins the one before it: batch norm can't learn from one row."""
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


@register("sampler", "random")
def random_batches(rows: np.ndarray, codes: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every image once an epoch, in random order.

    >>> [len(batch) for batch in random_batches(np.arange(10), np.zeros(10), 4, np.random.default_rng(0))]
    [4, 4, 2]
    """
    return cut_batches(rng.permutation(rows), batch_size)


def repeat_rows(rows: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """`length` of the rows in random order, each drawn again only when all have been."""
    rounds = [rng.permutation(rows) for _ in range(math.ceil(length / len(rows)))]
    return np.concatenate(rounds)[:length]


@register("sampler", "class_balanced")
def balanced_batches(
    rows: np.ndarray,
    codes: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    per_identity: Annotated[int, Range(low=1, high=100000)] | None = None,
) -> list[np.ndarray]:
    """As many images of every identity, in random order: `per_identity` (null: as many as the largest has).

    >>> [batch] = balanced_batches(np.arange(4), np.array([0, 0, 0, 1]), 8, np.random.default_rng(0))
    >>> sorted(batch.tolist())
    [0, 1, 2, 3, 3, 3]
    """
    members = list(rows_by_code(rows, codes).values())
    length = per_identity or max(map(len, members))
    drawn = np.concatenate([repeat_rows(rows_of_one, length, rng) for rows_of_one in members])
    return cut_batches(rng.permutation(drawn), batch_size)


@register("sampler", "encounter")
def encounter_batches(
    rows: np.ndarray, codes: np.ndarray, batch_size: int, rng: np.random.Generator, met: np.ndarray
) -> list[np.ndarray]:
    """One image of every encounter an epoch, drawn anew each time, in random order; met: their encounters (N,).

    >>> met = np.array([0, 0, 0, 1])
    >>> [len(batch) for batch in encounter_batches(np.arange(4), met, 8, np.random.default_rng(0), met)]
    [2]
    """
    drawn = [rng.choice(together) for together in rows_by_code(rows, met).values()]
    return cut_batches(rng.permutation(drawn), batch_size)


@register("sampler", "by_rarity")
def rarity_batches(
    rows: np.ndarray, codes: np.ndarray, batch_size: int, rng: np.random.Generator, power: Fraction = 0.5
) -> list[np.ndarray]:
    """As many images as there are, each drawn with a chance of n ** -power of its identity's n images (power 0.5: 1 /
    sqrt(n), Mahajan et al. 2018).

    >>> [len(batch) for batch in rarity_batches(np.arange(9), np.arange(9) // 6, 4, np.random.default_rng(0))]
    [4, 5]
    """
    counts = np.bincount(pd.factorize(codes)[0])[pd.factorize(codes)[0]]
    chance = counts.astype(float) ** -power
    return cut_batches(rng.choice(rows, len(rows), p=chance / chance.sum()), batch_size)


@register("sampler", "pk")
def pk_batches(
    rows: np.ndarray,
    codes: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    identities: Annotated[int, Range(low=2, high=4096)] = 8,
    images: Annotated[int, Range(low=2, high=4096)] = 4,
) -> list[np.ndarray]:
    """Batches of `identities` x `images` images for losses on pairs, until every image has been in one.

    Each identity's rows are cut into groups of `images`, the last filled up with rows of that identity. A batch takes a
    group of each of the identities with most groups left, and rows drawn again of others where too few have any left.

    >>> batches = pk_batches(np.arange(8), np.arange(8) // 2, 0, np.random.default_rng(0), identities=2, images=2)
    >>> [len(batch) for batch in batches]
    [4, 4]
    """
    members = rows_by_code(rows, codes)
    present = np.array(list(members))
    identities = min(identities, len(members))
    waiting = {
        code: list(repeat_rows(rows_of_one, math.ceil(len(rows_of_one) / images) * images, rng).reshape(-1, images))
        for code, rows_of_one in members.items()
    }
    queue = [(-len(groups), rng.random(), code) for code, groups in waiting.items()]  # most groups left, else by lot
    heapq.heapify(queue)
    batches = []
    while queue:
        taken = [heapq.heappop(queue)[2] for _ in range(min(identities, len(queue)))]
        groups = {code: waiting[code].pop() for code in taken}
        for code in [code for code in taken if waiting[code]]:
            heapq.heappush(queue, (-len(waiting[code]), rng.random(), code))
        while len(groups) < identities:
            again = present[rng.integers(len(present))].item()
            if again not in groups:
                groups[again] = repeat_rows(members[again], images, rng)
        batches.append(np.concatenate(list(groups.values())))
    return batches


# 9. Metrics
# ----------------------------------------------------------------------------------------------------------------------

RADIX_SHARE = 8  # a row's values are many when they are more than this part of it
CACHE_SIZE = 1 << 18  # numbers that a processor's cache holds
BLOCK_SIZE = 1 << 24  # similarities that are worked on at a time, to bound the memory beyond input and result
GPU_BLOCK_SIZE = 1 << 27  # the same on a GPU, which small blocks leave idle
FEW_POSITIVES = 32  # of a query, which a GPU compares with all candidates one after the other
FALSE_MATCH_RATES = (0.001, 0.01, 0.1)
CMC_RANKS = (1, 5, 10)


def as_matrix(values: Any, name: str = "similarity") -> Tensor:
    """A finite matrix as a float32 or float64 tensor on its own device; KitError names what is not finite."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise KitError(
            f"{name}: {np.ma.count_masked(values)} of its values are masked (expected a number in each place)"
        )
    if isinstance(values, Tensor) and (values.layout != torch.strided or values.is_quantized or values.is_meta):
        kind = "quantized" if values.is_quantized else "meta" if values.is_meta else str(values.layout)
        raise KitError(f"{name}: is a tensor of kind {kind} (expected a dense one, such as .to_dense() gives)")
    if not isinstance(values, Tensor):
        try:
            array = np.require(values, requirements=("C", "W"))
        except ValueError as error:
            raise KitError(f"{name}: is no matrix: {error}") from None
        if array.dtype.kind not in "fiub":
            raise KitError(f"{name}: holds {array.dtype}, expected numbers")
        if array.dtype.itemsize > 8 or not array.dtype.isnative:  # which torch does not know
            array = array.astype(np.float64)
        values = torch.from_numpy(array)
    matrix = full_precision(values.detach())
    if matrix.ndim != 2:
        raise KitError(f"{name}: shape {tuple(matrix.shape)} is not a matrix")
    for rows, block in row_blocks(matrix):
        if not torch.isfinite(block.sum()) and len(wrong := torch.nonzero(~torch.isfinite(block))):
            i, j = wrong[0].tolist()
            place = f"row {rows.start + i}, column {j}"
            raise KitError(f"{name}: {block[i, j].item()} in {place}; every value must be finite")
    return matrix


def rows_at_a_time(columns: int, device: torch.device | None = None) -> int:
    """How many rows of a matrix are worked on at a time."""
    on_gpu = device is not None and device.type == "cuda"
    return max(1, (GPU_BLOCK_SIZE if on_gpu else BLOCK_SIZE) // max(columns, 1))


def row_blocks(
    matrix: Tensor | SimilarityRows, diagonal: float | None = None, copies: int = 1
) -> Iterator[tuple[slice, Tensor]]:
    """A matrix by blocks of rows, so few that `copies` of them fit: where each lies, and its values, in a copy of their
    own where another `diagonal` is wanted."""
    step = rows_at_a_time(copies * matrix.shape[1], matrix.device)
    for start in range(0, matrix.shape[0], step):
        block = matrix[start : start + step]
        if diagonal is not None:
            block = block.clone() if isinstance(matrix, Tensor) else block
            block.diagonal(start).fill_(diagonal)
        yield slice(start, start + step), block


def as_given(result: Tensor, given: Any) -> Any:
    """The result as the caller's kind: a tensor for a tensor, on its device, else an array."""
    return result.to(given.device) if isinstance(given, Tensor) else result.cpu().numpy()


def check_room(rows: int, columns: int, device: torch.device) -> None:
    """Refuses a matrix of float32 that the free memory can't hold, in a line that names what does without one."""
    wanted, free = 4 * rows * columns, math.inf
    if wanted > 1 << 30 and device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    elif wanted > 1 << 30:
        with suppress(OSError, IndexError, ValueError):  # where no system tells it
            meminfo = Path("/proc/meminfo").read_text(encoding="utf-8")
            free = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", meminfo)[1])
    if wanted > free:
        raise KitError(
            f"similarity: {rows:,} x {columns:,} take {wanted / 2**30:.0f} GiB, but {free / 2**30:.0f} are free "
            "(expected a shortlist: top_k gives the nearest of each, and similarity_rows scores by rows)"
        )


@dataclass(frozen=True, eq=False)
class SimilarityRows:
    """Similarities (Q, M) of embeddings that are worked out by rows, each time they are asked for."""

    points: Tensor  # (Q, D)
    others: Tensor  # (M, D)
    geometry: Any

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.points), len(self.others)

    @property
    def device(self) -> torch.device:
        return self.points.device

    def __getitem__(self, rows: Any) -> Tensor:
        return self.geometry.similarity(self.points[rows], self.others)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Similarities (Q, M) of queries and a gallery, with the codes of the identities and encounters that they show.

    Pairs of one encounter are neither right nor wrong.
    """

    matrix: Tensor | SimilarityRows
    labels: np.ndarray  # (Q,)
    gallery: np.ndarray  # (M,)
    met: np.ndarray  # encounters of the queries (Q,)
    gallery_met: np.ndarray  # and of the gallery (M,)
    names: np.ndarray  # of the identities, by code

    def sizes(self) -> tuple[np.ndarray, np.ndarray]:
        """How many images of the gallery show each query's identity, and how many of them count (Q,)."""
        base = max(self.met.max(initial=0), self.gallery_met.max(initial=0)) + 1
        *both, _ = numbered(self.labels * base + self.met, self.gallery * base + self.gallery_met)
        same = count_codes(self.labels, self.gallery)
        return same, same - count_codes(*both)


def numbered(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values of two lists as codes, and the values by code."""
    values, codes = np.unique(np.concatenate([one, other]), return_inverse=True)
    return *np.split(codes.reshape(-1), [len(one)]), values


def count_codes(wanted: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How often each wanted code is among the codes."""
    return np.bincount(codes, minlength=max(wanted.max(initial=-1), codes.max(initial=-1)) + 1)[wanted]


def compare(
    similarity: Any,
    labels: Any,
    encounters: Any = None,
    gallery_labels: Any = None,
    gallery_encounters: Any = None,
) -> Comparison:
    """Checks similarities (Q, M), labels and encounters; KitError when they do not fit.

    Without gallery_labels the set is its own gallery, where an image is not compared with itself.
    """
    matrix = similarity if isinstance(similarity, SimilarityRows) else as_matrix(similarity)
    asked, alone = as_labels(labels), gallery_labels is None
    gallery = asked if alone else as_labels(gallery_labels, "gallery_labels")
    if matrix.shape != (len(asked), len(gallery)):
        found = f"{len(asked)} labels (expected N x N)" if alone else f"{len(asked)} and {len(gallery)} labels"
        raise KitError(f"similarity: shape {tuple(matrix.shape)} does not fit {found}")
    if (gallery_encounters is not None) != (encounters is not None and not alone):
        raise KitError("gallery_encounters: expected where encounters and gallery_labels are given, and only there")
    if encounters is None:
        met = np.arange(len(asked))
        gallery_met = met if alone else -1 - np.arange(len(gallery))
    else:
        met = as_labels(encounters, "encounters")
        gallery_met = met if alone else as_labels(gallery_encounters, "gallery_encounters")
    for name, groups, wanted in (("encounters", met, asked), ("gallery_encounters", gallery_met, gallery)):
        if len(groups) != len(wanted):
            raise KitError(f"{name}: {len(groups)} for {len(wanted)} images (expected one for each)")
    (*codes, names), (*meetings, _) = numbered(asked, gallery), numbered(met, gallery_met)
    if len(asked) and len(gallery) and not np.isin(*codes).any():
        examples = f"such as {str(gallery[0])!r} there and {str(asked[0])!r} here"
        raise KitError(f"gallery_labels: none of them is among the labels ({examples})")
    return Comparison(matrix, *codes, *meetings, names)


def as_array(values: Any, dtype: Any = None) -> np.ndarray:
    """What is given, a tensor too, as an array."""
    values = values.detach().cpu() if isinstance(values, Tensor) else values
    values = full_precision(values) if isinstance(values, Tensor) and values.is_floating_point() else values  # no bf16
    return np.asarray(values, dtype)


def as_labels(labels: Any, name: str = "labels") -> np.ndarray:
    """Labels (N,) as an array of whole numbers, or of text without blanks at its ends; KitError where one is missing
    (None, NaN), is a broken number, or where they are no list."""
    try:  # as objects first, for numpy makes texts of what is missing in a list of texts
        array = as_array(labels)
        whole = array if array.ndim != 1 or isinstance(labels, Tensor) else np.asarray(labels, object)
    except ValueError as error:
        raise KitError(f"{name}: are no list: {error}") from None
    if array.ndim != 1:
        raise KitError(f"{name}: shape {array.shape} is no list (expected one label for each image)")
    missing = np.flatnonzero(pd.isna(whole))
    if len(missing):
        raise KitError(
            f"{name}: row {missing[0]} has none ({whole[missing[0]]}), as {len(missing)} rows in all (expected a label "
            "for each image; leave out those that have none)"
        )
    if array.dtype.kind == "f":
        broken = array[(array != np.rint(array)) | (np.abs(array) >= 2**53)]  # beyond, neighbours are one number
        if len(broken):
            raise KitError(f"{name}: {broken[0]} names nothing (expected whole numbers, or texts)")
        array = array.astype(np.int64)
    try:
        return array if array.dtype.kind in "iub" else np.char.strip(array.astype(str))
    except (ValueError, TypeError) as error:
        raise KitError(f"{name}: hold {whole[0]!r}: {error} (expected whole numbers, or texts)") from None


def ascending(matrix: Tensor) -> Tensor:
    """Rows sorted; on the CPU by numpy, which moves values alone and is several times faster."""
    if matrix.device.type == "cpu":
        return torch.from_numpy(np.sort(matrix.numpy(), axis=-1))
    return matrix.sort(dim=-1).values


def count_at_least(block: Tensor, values: Tensor) -> Tensor:
    """How many entries of each row (R, N) are at least as large as each of its values (R, P), ascending: int64 (R, P).

    The values must be among the row's entries. Rows are sorted as 16-bit codes, by radix in a fifth of the time that
    floats take; where several entries share a value's code, they are counted exactly. That pays while the values are
    few.
    """
    total = block.shape[1]
    if values.shape[1] > total // RADIX_SHARE:
        return total - torch.searchsorted(ascending(block), values)
    low, high = values[:, :1], values[:, -1:]
    centre, scale = (low + high) / 2, 65530 / (high - low).clamp(min=1e-30)
    # int16 codes, which never fall where values rise
    codes, wanted = (((x - centre).mul_(scale)).clamp_(-32768, 32767).to(torch.int16) for x in (block, values))
    codes.numpy().sort(axis=1, kind="stable")
    after = torch.searchsorted(codes, wanted, right=True)
    shared = codes.gather(1, (after - 2).clamp_(min=0)) == wanted
    shared &= after > 1
    counts = total + 1 - after
    entries, numbers, exact = block.numpy(), values.numpy(), counts.numpy()
    for row, column in np.argwhere(shared.numpy()).tolist():
        exact[row, column] = np.count_nonzero(entries[row] >= numbers[row, column])
    return counts


@dataclass(frozen=True, eq=False)
class QueryScores:
    """What each query retrieved, float64 (Q,) each; NaN for a query without another image of its identity."""

    precision: np.ndarray  # average precision
    first: np.ndarray  # rank of the best positive, images of other identities first among equals
    last: np.ndarray  # how many images are at least as similar as the worst positive
    positives: np.ndarray  # how many there are to find


def score_queries(compared: Comparison) -> QueryScores:
    """Scores every row as a query against all columns but those of its encounter.

    Nothing is ranked: for each positive it is counted how many candidates, and how many of them positives, are at
    least as similar. Blocks of rows have about as many positives each; shorter lists begin with their lowest again.
    """
    matrix, device, total = compared.matrix, compared.matrix.device, compared.matrix.shape[1]
    images, positives = compared.sizes()
    scores = np.full((4, len(images)), np.nan)
    order = np.lexsort((compared.labels, images))
    order = order[positives[order] > 0]
    by_identity = np.argsort(compared.gallery, kind="stable")
    first = np.searchsorted(compared.gallery[by_identity], compared.labels)
    met, gallery_met = (torch.from_numpy(codes).to(device) for codes in (compared.met, compared.gallery_met))
    step = max(1, CACHE_SIZE // max(total, 1)) if device.type == "cpu" else rows_at_a_time(total, device)
    count = count_at_least if device.type == "cpu" else count_in_bins
    for rows in (order[i : i + step] for i in range(0, len(order), step)):
        queries, found, length = torch.from_numpy(rows).to(device), positives[rows], int(positives[rows].max())
        block = matrix[queries]
        block.masked_fill_(met[queries, None] == gallery_met, -torch.inf)  # no candidates
        places = np.arange(images[rows].max())
        beyond = places >= images[rows, None]
        places_of_matches = by_identity[np.where(beyond, first[rows, None], first[rows, None] + places)]
        mine = block.gather(1, torch.from_numpy(places_of_matches).to(device))
        mine = ascending(mine.masked_fill_(torch.from_numpy(beyond).to(device), -torch.inf))[:, -length:]
        missing = torch.from_numpy(length - found)[:, None].to(device)
        mine = torch.maximum(mine, mine.gather(1, missing)).contiguous()
        at_least = count(block, mine)
        hits = (length - torch.searchsorted(mine, mine)).clamp(max=length - missing)
        shares = torch.where(torch.arange(length, device=device) >= missing, hits / at_least.double(), 0).sum(1)
        ranks = torch.stack([shares, (at_least[:, -1] - hits[:, -1] + 1).double(), at_least[:, 0].double()])
        scores[:3, rows] = ranks.cpu().numpy()
        scores[0, rows] /= found
        scores[3, rows] = found
    return QueryScores(*scores)


def count_in_bins(block: Tensor, values: Tensor) -> Tensor:
    """`count_at_least` for a GPU, which sorts no row.

    A few values are compared with all entries; of many each entry is told how many it reaches, and those are counted.
    """
    rows, width = values.shape
    if width <= FEW_POSITIVES:
        return torch.stack([(block >= values[:, i, None]).sum(1) for i in range(width)], 1)
    reached = torch.searchsorted(values, block, right=True)
    reached += torch.arange(rows, device=block.device)[:, None] * (width + 1)
    counts = torch.bincount(reached.flatten(), minlength=rows * (width + 1)).view(rows, width + 1)
    return counts.flip(1).cumsum(1).flip(1)[:, 1:]


def average_precision(
    similarity: Any, labels: Any, encounters: Any = None, gallery_labels: Any = None, gallery_encounters: Any = None
) -> np.ndarray:
    """Average precision of each image as a query against all others, float64 (N,); NaN without a positive.

    similarity (N, N), labels (N,). encounters (N,): pairs of one encounter, whose light and background they share,
    count as neither right nor wrong, as pairs of one camera in person re-identification (Zheng et al. 2015). With
    gallery_labels (M,), and gallery_encounters where encounters are told, queries are compared with a gallery, (N, M).
    Images of equal similarity are retrieved together, as scikit-learn's `average_precision_score` has it, so the
    result does not depend on the order of rows. Of more images than a matrix can hold, `similarity_rows` stands for it.

    >>> average_precision([[1.0, 0.9, 0.5], [0.9, 1.0, 0.1], [0.5, 0.1, 1.0]], ["a", "b", "a"]).tolist()
    [0.5, nan, 1.0]
    """
    return score_queries(compare(similarity, labels, encounters, gallery_labels, gallery_encounters)).precision


def mean_by_identity(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Mean of the values that are not NaN for each identity code (C,); NaN for an identity that has none."""
    scored = ~np.isnan(values)
    length = codes.max(initial=-1) + 1
    counts = np.bincount(codes[scored], minlength=length)
    with np.errstate(invalid="ignore"):
        return np.bincount(codes[scored], values[scored], minlength=length) / counts


def mean_or_nan(values: np.ndarray) -> float:
    """Mean of the values that are not NaN."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def identity_balanced_map(
    similarity: Any, labels: Any, encounters: Any = None, gallery_labels: Any = None, gallery_encounters: Any = None
) -> float:
    """Mean over identities of the mean average precision of their queries (the competition's metric).

    similarity (N, N), labels (N,). The set is its own gallery: a query is not compared with itself, and one without
    another image of its identity is left out; NaN when that leaves none. Ties, encounters and a gallery of its own as
    in `average_precision`.

    >>> similarity = [[1.0, 0.9, 0.1, 0.2], [0.9, 1.0, 0.3, 0.2], [0.1, 0.3, 1.0, 0.8], [0.2, 0.2, 0.8, 1.0]]
    >>> identity_balanced_map(similarity, ["a", "a", "b", "b"])
    1.0
    """
    compared = compare(similarity, labels, encounters, gallery_labels, gallery_encounters)
    return mean_or_nan(mean_by_identity(score_queries(compared).precision, compared.labels))


def sorted_pairs(compared: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Similarities of all ordered pairs of one identity that count, and of two, each ascending."""
    matrix = compared.matrix.cpu()
    counts = compared.sizes()[1]
    met = count_codes(compared.met, compared.gallery_met)  # of a query's encounter, whoever they show
    others = len(compared.gallery) - met - counts
    kinds = [np.empty(int(number.sum()), matrix.numpy().dtype) for number in (counts, others)]
    filled = [0, 0]
    for rows, block in row_blocks(matrix):
        same = compared.labels[rows, None] == compared.gallery
        counted = compared.met[rows, None] != compared.gallery_met
        for kind, wanted in enumerate((same & counted, ~same & counted)):
            found = block.numpy()[wanted]
            kinds[kind][filled[kind] : filled[kind] + len(found)] = found
            filled[kind] += len(found)
    for kind in kinds:
        kind.sort()
    return kinds[0], kinds[1]


def verification_metrics(positives: np.ndarray, negatives: np.ndarray) -> dict[str, float]:
    """How well a threshold tells pairs of one identity from pairs of two; both ascending.

    pair_auc: area under the ROC curve. pair_ap: average precision. fnmr@f: share of same-identity pairs that are missed
    at the lowest threshold that lets at most a share f of the others through.
    """
    names = [f"fnmr@{rate:g}" for rate in FALSE_MATCH_RATES]
    if not len(positives) or not len(negatives):
        return dict.fromkeys(["pair_auc", "pair_ap", *names], math.nan)
    below, not_above = (np.searchsorted(negatives, positives, side) for side in ("left", "right"))
    hits = len(positives) - np.searchsorted(positives, positives, "left")
    limits = [negatives[-math.floor(rate * len(negatives)) - 1] for rate in FALSE_MATCH_RATES]
    missed = np.searchsorted(positives, limits, "right") / len(positives)
    return {
        "pair_auc": float((below + not_above).sum(dtype=np.float64) / (2.0 * len(positives) * len(negatives))),
        "pair_ap": float((hits / (hits + len(negatives) - below)).mean()),
        **dict(zip(names, missed.tolist())),
    }


def retrieval_metrics(
    similarity: Any, labels: Any, encounters: Any = None, gallery_labels: Any = None, gallery_encounters: Any = None
) -> dict[str, Any]:
    """All retrieval metrics of a set that is its own gallery; similarity (N, N), labels (N,).

    map: identity-balanced mAP. retrieval_map: plain mean over queries. cmc@k: share of queries with an image of the
    same identity among the k most similar, a tie with another identity counting as a miss; top1 is cmc@1. minp: mean
    of positives / rank of the last one (Ye et al. 2021). pair_auc, pair_ap and fnmr@f over all ordered pairs.
    per_identity: mean AP by identity. Queries without a positive are left out; NaN where nothing can be scored.
    Encounters and a gallery of its own as in `average_precision`; what is said of pairs leaves those of one encounter
    out.

    >>> similarity = [[1.0, 0.9, 0.1, 0.2], [0.9, 1.0, 0.3, 0.2], [0.1, 0.3, 1.0, 0.8], [0.2, 0.2, 0.8, 1.0]]
    >>> retrieval_metrics(similarity, ["a", "a", "b", "b"])["top1"]
    1.0
    """
    if isinstance(similarity, SimilarityRows):
        raise KitError("retrieval_metrics: metrics of pairs need the whole matrix (identity_balanced_map takes rows)")
    compared = compare(similarity, labels, encounters, gallery_labels, gallery_encounters)
    scores = score_queries(compared)
    by_identity = mean_by_identity(scores.precision, compared.labels)
    first = scores.first[~np.isnan(scores.first)]
    cmc = {f"cmc@{k}": mean_or_nan((first <= k).astype(float)) for k in CMC_RANKS}
    return {
        "map": mean_or_nan(by_identity),
        "retrieval_map": mean_or_nan(scores.precision),
        "top1": cmc["cmc@1"],
        **verification_metrics(*sorted_pairs(compared)),
        **cmc,
        "minp": mean_or_nan(scores.positives / scores.last),
        "per_identity": {str(name): float(ap) for name, ap in zip(compared.names, by_identity) if not np.isnan(ap)},
    }


FEWEST = 10  # identities, below which no interval is told, and nothing is chosen by them


def mean_interval(values: Any, level: float = 0.95, fewest: int = 2) -> tuple[float, float]:
    """Student's interval of the mean of independent values, NaN left out; NaN for fewer than `fewest`.

    >>> [round(end, 3) for end in mean_interval([0.1, 0.2, 0.3])]
    [-0.048, 0.448]
    """
    from scipy.stats import t

    try:
        values = np.asarray(values, float).reshape(-1)
    except (ValueError, TypeError) as error:
        raise KitError(f"mean_interval: values: {error} (expected numbers)") from None
    values = values[~np.isnan(values)]
    if len(values) < max(fewest, 2):
        return math.nan, math.nan
    half = t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def interval_over_identities(values: np.ndarray, codes: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """`mean_interval` over identities (codes) of the means of their values (N,); NaN below FEWEST of them."""
    return mean_interval(mean_by_identity(values, codes), level, FEWEST)


# 10. Re-ranking and fusion
# ----------------------------------------------------------------------------------------------------------------------


def as_geometry(geometry: Geometry | str | None) -> Geometry:
    """A geometry, by its name too; the sphere, whose similarity is the cosine, where none is given."""
    if isinstance(geometry, str):
        return build("geometry", geometry)
    if geometry is not None and not isinstance(geometry, Geometry):
        raise KitError(f"geometry: a {type(geometry).__name__} (expected build('geometry', name), or a name)")
    return geometry or Cosine()


def comparable(queries: Any, gallery: Any, geometry: Geometry | None) -> tuple[Tensor, Tensor, Geometry]:
    """Both sets of embeddings (Q, D) and (M, D) as points of the geometry, in one type and on one device."""
    geometry = as_geometry(geometry)
    points = geometry.project(as_matrix(queries, "embeddings"))
    others = points if gallery is None else geometry.project(as_matrix(gallery, "gallery").to(points))
    if points.shape[1] != others.shape[1]:
        raise KitError(f"gallery: embeddings of length {others.shape[1]}, but the queries' have {points.shape[1]}")
    return points, others, geometry


def similarity_matrix(embeddings: Any, gallery: Any = None, geometry: Geometry | None = None) -> Any:
    """Similarities (N, M) of embeddings (N, D) with gallery (M, D), or among themselves (N, N).

    Cosines, or 1 - d ** 2 / 2 of the distance d of another `geometry`, such as `build("geometry", "poincare")`.

    >>> similarity_matrix(np.array([[1.0, 0.0], [0.0, 2.0]])).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    points, others, geometry = comparable(embeddings, gallery, geometry)
    check_room(len(points), len(others), points.device)
    return as_given(geometry.similarity(points, others), embeddings)


def similarity_rows(embeddings: Any, gallery: Any = None, geometry: Geometry | None = None) -> SimilarityRows:
    """What `similarity_matrix` gives, for the mean average precision of more images than a matrix can hold.

    >>> identity_balanced_map(similarity_rows(np.eye(4)[[0, 0, 1, 1]]), ["a", "a", "b", "b"])
    1.0
    """
    return SimilarityRows(*comparable(embeddings, gallery, geometry))


@checked
def top_k(queries: Any, gallery: Any, k: Count, geometry: Geometry | None = None) -> tuple[Any, Any]:
    """The k most similar gallery embeddings of each query, best first: values (Q, k) and positions int64 (Q, k).

    queries (Q, D), gallery (M, D); `geometry` as in `similarity_matrix`. Works through the queries in blocks and never
    holds Q x M similarities.

    >>> top_k(np.eye(3), np.eye(3), k=1)[1].ravel().tolist()
    [0, 1, 2]
    """
    similarities = similarity_rows(queries, gallery, geometry)
    if k > (most := similarities.shape[1]):
        raise KitError(f"top_k: k: {k} is out of range (expected 1 to {most}, the size of the gallery)")
    values, positions = most_similar(similarities, k)
    return as_given(values, queries), as_given(positions, queries)


def most_similar(similarity: Tensor | SimilarityRows, k: int, without_self: bool = False) -> tuple[Tensor, Tensor]:
    """The k largest values of each row, and where they are, (N, k) each; of one set perhaps without the diagonal."""
    blocks = (block for _, block in row_blocks(similarity, -torch.inf if without_self else None))
    found = [block.topk(k, dim=1) for block in blocks] or [similarity[:0].topk(k, dim=1)]
    return torch.cat([values for values, _ in found]), torch.cat([places for _, places in found])


def average_with_nearest(embeddings: Any, k: int, geometry: Geometry | None, weigh: Callable[[Tensor], Tensor]) -> Any:
    """Each embedding's mean with its k nearest others, weighted by `weigh` of their similarities (N, k)."""
    points, _, geometry = comparable(embeddings, None, geometry)
    if k < 1 or len(points) < 2:
        return as_given(points, embeddings)
    alike = SimilarityRows(points, points, geometry)
    similarities, positions = most_similar(alike, min(k, len(points) - 1), without_self=True)
    weights, vectors = weigh(similarities), geometry.logmap0(points)
    total = vectors.clone()
    for column in range(positions.shape[1]):
        total.addcmul_(weights[:, column, None], vectors[positions[:, column]])
    return as_given(geometry.expmap0(total / (1 + weights.sum(1, keepdim=True))), embeddings)


@checked
def query_expansion(embeddings: Any, k: Natural = 3, alpha: NonNegative = 0.0, geometry: Geometry | None = None) -> Any:
    """Each embedding averaged with its k nearest others, of unit length, (N, D) (Chum et al. 2007).

    A neighbour weighs max(cosine, 0) ** alpha and the embedding itself 1: alpha = 0 is the plain average, alpha = 3 the
    alpha query expansion of Radenovic et al. 2018. The embedding itself is not counted among the k. In another
    `geometry` its similarity stands for the cosine, and hyperbolic embeddings are averaged in the tangent space of the
    origin.

    >>> query_expansion(np.array([[1.0, 0.0], [0.0, 1.0]]), k=1).round(2).tolist()
    [[0.71, 0.71], [0.71, 0.71]]
    """
    return average_with_nearest(embeddings, k, geometry, lambda similarity: similarity.clamp(min=0).pow(alpha))


@checked
def database_augmentation(embeddings: Any, k: Natural = 3, geometry: Geometry | None = None) -> Any:
    """Each embedding averaged with its k nearest others, weighted by rank: (k + 1 - r) / (k + 1) for the r-th, (N, D).

    After Turcot & Lowe 2009 as used by Arandjelovic & Zisserman 2012; the embedding itself weighs 1. `geometry` as in
    `query_expansion`.

    >>> database_augmentation(np.array([[1.0, 0.0], [0.0, 1.0]]), k=1).round(2).tolist()
    [[0.89, 0.45], [0.45, 0.89]]
    """

    def by_rank(similarity: Tensor) -> Tensor:
        found = similarity.shape[1]
        return (1 - torch.arange(1, found + 1).to(similarity) / (found + 1)).expand_as(similarity)

    return average_with_nearest(embeddings, k, geometry, by_rank)


# k-reciprocal re-ranking works on sparse rows: a row is a run of sorted keys row * N + column.

MEETINGS = 1 << 17  # pairs of entries that are compared at a time


def ranked_neighbours(similarity: Tensor, k: int) -> Tensor:
    """The k most similar columns of each row (N, k), the row itself first, equal ones in the order of columns."""
    ranked = torch.empty(len(similarity), k, dtype=torch.int64, device=similarity.device)
    for rows, block in row_blocks(similarity, diagonal=torch.inf):
        values, columns = block.topk(min(k + 1, block.shape[1]), dim=1)
        tied = (values[:, 1:] == values[:, :-1]).any(1)  # topk leaves the order of equals open
        if tied.any():
            columns[tied] = block[tied].sort(dim=1, descending=True, stable=True).indices[:, : columns.shape[1]]
        ranked[rows] = columns[:, :k]
    return ranked


def contains(keys: Tensor, wanted: Tensor) -> Tensor:
    """Which of the wanted keys are among the sorted keys."""
    places = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return keys[places] == wanted


def reciprocal_lists(ranked: Tensor) -> Tensor:
    """Which neighbours have the row among theirs, bool like `ranked` (N, k)."""
    total = len(ranked)
    rows = torch.arange(total, device=ranked.device)[:, None]
    return contains((rows * total + ranked).flatten().sort().values, ranked * total + rows)


def expanded_reciprocal_keys(ranked: Tensor, half: int) -> Tensor:
    """Sorted keys of each row's k-reciprocal set, with the sets of those members that mostly agree with it.

    A member's own set, over its `half` nearest, joins when more than 2/3 of it lies in the row's first set.
    """
    total = len(ranked)
    mutual = reciprocal_lists(ranked)
    rows, places = mutual.nonzero(as_tuple=True)
    members = ranked[rows, places]
    keys = (rows * total + members).sort().values
    candidates, mine = ranked[:, :half], reciprocal_lists(ranked[:, :half])
    joined = [keys]
    step = max(1, BLOCK_SIZE // half)
    for start in range(0, len(rows), step):
        row, member = rows[start : start + step], members[start : start + step]
        theirs, valid = row[:, None] * total + candidates[member], mine[member]
        shared = (contains(keys, theirs) & valid).sum(1)
        agree = 3 * shared > 2 * valid.sum(1)
        joined.append(theirs[agree][valid[agree]])
    return torch.unique(torch.cat(joined))


def grown_reciprocal_keys(ranked: Tensor, half: int) -> Tensor:
    """`expanded_reciprocal_keys`, each member's set being compared with the row's set as it has grown so far."""
    total, columns = len(ranked), ranked.tolist()
    near, nearer = (reciprocal_lists(ranked[:, :k]).tolist() for k in (ranked.shape[1], half))
    mutuals = [{c for c, mutual in zip(*row) if mutual} for row in zip(columns, nearer)]
    keys: list[int] = []
    for row, (members, mutual) in enumerate(zip(columns, near)):
        first = [c for c, there in zip(members, mutual) if there]
        grown = set(first)
        for member in first:
            if 3 * len(mutuals[member] & grown) > 2 * len(mutuals[member]):
                grown |= mutuals[member]
        keys += [row * total + column for column in grown]
    return torch.tensor(keys, device=ranked.device).sort().values


def expanded_weights(keys: Tensor, values: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over each row's nearest (N, k2), itself among them, of their sparse rows: sorted keys and values."""
    total, k2 = nearest.shape
    pointer = torch.searchsorted(keys, torch.arange(total + 1, device=keys.device) * total)
    all_keys, all_values = [], []
    longest = max(1, int(pointer.diff().max()))
    step = max(1, BLOCK_SIZE // (4 * longest * k2))
    for start in range(0, total, step):
        sources = nearest[start : start + step].flatten()
        entry, source = ragged(pointer[sources], pointer[sources + 1])
        row = start + source // k2
        merged, place = torch.unique(row * total + keys[entry] % total, return_inverse=True)
        all_keys.append(merged)
        all_values.append(values.new_zeros(len(merged)).index_add_(0, place, values[entry] / k2))
    return torch.cat(all_keys), torch.cat(all_values)


def ragged(starts: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Positions start..end-1 of every range one after the other, and which range each belongs to."""
    lengths = ends - starts
    which = torch.repeat_interleave(torch.arange(len(starts), device=starts.device), lengths)
    shift = starts - (lengths.cumsum(0) - lengths)
    return torch.arange(len(which), device=starts.device) + shift.index_select(0, which), which


def sum_of_minima(keys: Tensor, values: Tensor, total: int) -> Tensor:
    """For all pairs of sparse rows the sum over columns of the smaller value, (N, N).

    A row's entry meets the entries of the same and later rows in its column; the rest follows by symmetry. Entries go
    in the order of rows, and few enough at a time that the processor's cache holds what they touch.
    """
    rows, columns = keys // total, keys % total
    by_column = columns.argsort(stable=True)
    place = torch.empty_like(by_column)
    place[by_column] = torch.arange(len(keys), device=keys.device)
    ends = torch.bincount(columns, minlength=total).cumsum(0)[columns]
    met_rows, met_values, offsets = rows[by_column], values[by_column], rows * total
    meetings = (ends - place).cumsum(0)
    bounds = torch.arange(0, int(meetings[-1]) + MEETINGS, MEETINGS, device=keys.device)
    bounds = [*torch.searchsorted(meetings, bounds).unique().tolist(), len(keys)]
    result = values.new_zeros(total * total)
    for start, end in itertools.pairwise(bounds):
        met, entry = ragged(place[start:end], ends[start:end])
        smaller = torch.minimum(met_values.index_select(0, met), values[start:end].index_select(0, entry))
        pair = offsets[start:end].index_select(0, entry) + met_rows.index_select(0, met)
        result.index_add_(0, pair, smaller)
    return mirror_upper(result.view(total, total))


def mirror_upper(matrix: Tensor, step: int = 1024) -> Tensor:
    """The symmetric matrix (N, N) that has this upper triangle, in place, by blocks."""
    for i in range(0, len(matrix), step):
        block = matrix[i : i + step, i : i + step]
        block.copy_(block.triu() + block.triu(1).T)
        matrix[i + step :, i : i + step] = matrix[i : i + step, i + step :].T
    return matrix


@checked
def k_reciprocal_rerank(
    embeddings: Any = None,
    gallery: Any = None,
    *,
    similarity: Any = None,
    queries: Count | None = None,
    k1: Count = 20,
    k2: Count = 6,
    lambda_value: Fraction = 0.3,
    geometry: Geometry | None = None,
    growing: bool = False,
) -> Any:
    """Re-ranked similarity by k-reciprocal encoding (Zhong et al. 2017); larger is more alike, at most 1.

    embeddings (N, D) as one set: result (N, N). With gallery (M, D): queries against gallery, result (N, M), neighbours
    taken from both sets together. Instead of embeddings, similarity (N, N) of one set, at most 1 and 1 for an image
    with itself; with `queries`, the number of leading rows that are queries, the rest being the gallery.

    Conventions: the original distance is 2 - 2 cos, or of another `geometry` its own squared, each row divided by its
    maximum. Neighbour lists hold the row itself first, then k1 more; equals stand in the order of columns. The
    reciprocal set is expanded by its members' sets over around(k1 / 2) neighbours where more than 2/3 of such a set
    lies in the first, unexpanded set. Weights are exp(-row-normalised distance), made to sum to 1, and averaged over
    the k2 nearest, the row itself among them. The distance is (1 - lambda_value) Jaccard + lambda_value original, the
    similarity 1 - distance. `growing`: a member's set is compared with the set as it has grown so far, as some
    published code does; slower.

    >>> k_reciprocal_rerank(np.eye(6), k1=3, k2=2).shape
    (6, 6)
    """
    given = embeddings if similarity is None else similarity
    if (embeddings is None) == (similarity is None):
        raise KitError("k_reciprocal_rerank: give either embeddings or similarity=")
    unused = {"gallery": gallery, "geometry": geometry} if similarity is not None else {}
    unused |= {"queries": queries} if gallery is not None else {}
    if odd := [name for name, value in unused.items() if value is not None]:
        instead = "gallery= (expected one of the two)" if similarity is None else "similarity= (expected queries=)"
        raise KitError(f"k_reciprocal_rerank: {odd[0]}= says nothing with {instead}")
    if similarity is None:
        points, others, geometry = comparable(embeddings, gallery, geometry)
        if gallery is not None:
            queries, points = len(points), torch.cat([points, others])
        matrix = geometry.similarity(points, points)
    else:
        matrix = as_matrix(similarity)
        shape = tuple(matrix.shape)
        if shape[0] != shape[1]:
            raise KitError(f"similarity: shape {shape} is not square (one set, or queries and gallery together)")
        if len(matrix) and float(matrix.max()) > 1.001:
            raise KitError(f"similarity: {float(matrix.max()):g} is more than 1, which an image has with itself")
        if len(same := matrix.diagonal()) and float(same.min()) < 0.99:
            raise KitError(
                f"similarity: an image has {float(same.min()):g} with itself (expected 1; is it a distance?)"
            )
    if queries is not None and queries >= len(matrix):
        raise KitError(f"k_reciprocal_rerank: queries: {queries} of {len(matrix)} rows (expected at least 1, not all)")
    reranked = rerank_square(matrix, k1, k2, lambda_value, growing)
    return as_given(reranked if queries is None else reranked[:queries, queries:].clone(), given)


def rerank_square(similarity: Tensor, k1: int, k2: int, lambda_value: float, growing: bool) -> Tensor:
    """k_reciprocal_rerank of one set, from its similarities (N, N)."""
    total = len(similarity)
    if not total:
        return similarity.clone()
    farthest = 2 - 2 * similarity.amin(1)  # (N,) each row's maximum
    farthest[farthest <= 1e-6] = torch.inf  # rows that are like all others: every distance is 0, not rounding noise
    nearest = ranked_neighbours(similarity, min(max(k1 + 1, k2), total))
    ranked = nearest[:, : k1 + 1]
    expand = grown_reciprocal_keys if growing else expanded_reciprocal_keys
    keys = expand(ranked, min(round(k1 / 2) + 1, ranked.shape[1]))
    rows = keys // total
    weights = torch.exp(-(2 - 2 * similarity[rows, keys % total]) / farthest[rows])
    weights = weights / similarity.new_zeros(total).index_add_(0, rows, weights)[rows]
    if k2 > 1:
        keys, weights = expanded_weights(keys, weights, nearest[:, :k2])
    shared = sum_of_minima(keys, weights, total)
    # similarity = 1 - (1 - lambda) (1 - m / (2 - m)) - lambda (2 - 2 cos) / farthest, with m the sum of minima
    slope = (2 * lambda_value / farthest)[:, None]
    for start in range(0, total, 256):  # a band of rows that the processor's cache holds
        band = slice(start, start + 256)
        shared[band] /= 2 - shared[band]
        shared[band] *= 1 - lambda_value
        shared[band].addcmul_(similarity[band], slope[band]).add_(lambda_value - slope[band])
    return shared


@checked
def blend(raw: Any, reranked: Any, raw_weight: Fraction) -> Any:
    """raw_weight * raw + (1 - raw_weight) * reranked, both (N, M).

    >>> blend(np.ones((2, 2)), np.zeros((2, 2)), 0.25).tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    one, other = as_matrix(raw, "raw"), as_matrix(reranked, "reranked")
    check_shapes("blend", [one, other])
    return as_given(raw_weight * one + (1 - raw_weight) * other.to(one), raw)


def check_shapes(name: str, matrices: Sequence[Any]) -> None:
    shapes = [tuple(matrix.shape) for matrix in matrices]
    if not shapes or any(shape != shapes[0] for shape in shapes):
        raise KitError(f"{name}: shapes {', '.join(map(str, shapes)) or 'of nothing'} (expected matrices of one shape)")


def rank_average(*similarities: Any, weights: Sequence[float] = (), own_gallery: bool | None = None) -> Any:
    """Mean over score matrices of each score's rank in its matrix, scaled to [0, 1]; equals share their mean rank.

    Matrices (N, M) of any scale; what counts is only the order within each. weights: one for each, all alike where none
    are given. own_gallery: whether they are of one set that is its own gallery, and ranked without their diagonal,
    which becomes 1; None: square ones are.

    >>> rank_average(np.array([[0.1, 0.9, 0.4]]), np.array([[3.0, 9.0, 5.0]])).tolist()
    [[0.0, 1.0, 0.5]]
    """
    from scipy.stats import rankdata

    matrices = [as_matrix(s).cpu().numpy() for s in similarities]
    check_shapes("rank_average", matrices)
    mean = np.zeros(matrices[0].shape)
    counted = ~np.eye(*mean.shape, dtype=bool) if is_own(mean, own_gallery) else np.ones(mean.shape, bool)
    try:
        shares = np.asarray([1.0] * len(matrices) if np.size(weights) == 0 else weights, float)
    except (ValueError, TypeError):
        shares = np.empty(0)
    if shares.shape != (len(matrices),) or not 0 < shares.sum() < math.inf or not (shares >= 0).all():
        raise KitError(
            f"rank_average: weights: {weights!r} (expected {len(matrices)} numbers, of 0 or more, not all 0)"
        )
    for matrix, share in zip(matrices, shares / shares.sum()):
        mean[counted] += share * (rankdata(matrix[counted]) - 1) / max(counted.sum() - 1, 1)
    mean[~counted] = 1
    return as_given(torch.from_numpy(mean), similarities[0])


def is_own(matrix: Any, said: bool | None) -> bool:
    """Whether similarities are of one set that is its own gallery, as told, or by their shape."""
    square = matrix.shape[0] == matrix.shape[1]
    if said and not square:
        raise KitError(f"own_gallery: similarities of shape {tuple(matrix.shape)} are not of one set (expected N x N)")
    return square if said is None else said


@dataclass(frozen=True, eq=False)
class Calibrator:
    """Maps scores to the probability of one identity, strictly rising, so that the order of scores is kept.

    >>> Calibrator(np.abs, centre=0.0, spread=1.0, gap=0.0)([0.25, 0.5]).tolist()
    [0.25, 0.5]
    """

    probability: Callable[[np.ndarray], np.ndarray]  # rising, perhaps with plateaus
    centre: float
    spread: float
    gap: float  # the share of what rises everywhere

    def __call__(self, scores: Any) -> np.ndarray:
        """float64 in [0, 1], of the shape of `scores`."""
        try:
            values = as_array(scores, np.float64)
        except (ValueError, TypeError) as error:
            raise KitError(f"scores: {error} (expected numbers)") from None
        if not np.isfinite(values).all():
            raise KitError(f"scores: {values[~np.isfinite(values)][0]} (expected finite numbers)")
        if not values.size:
            return values
        within = 0.5 + np.arctan((values - self.centre) / self.spread) / np.pi  # orders what shares a plateau
        return (1 - self.gap) * self.probability(values.ravel()).reshape(values.shape) + self.gap * within


@checked
def fit_calibration(scores: Any, same: Any, kind: Literal["isotonic", "logistic"] = "isotonic") -> Calibrator:
    """Fits how probable it is, given a pair's score, that both images show one identity.

    scores: validation pairs' scores of any shape; same: bool of that shape. kind="isotonic" pools adjacent violators
    (Zadrozny & Elkan 2002) and orders its plateaus by the raw score; "logistic" is Platt's fit (1999), or where that
    would fall, the share of `same` for every score.

    >>> fit_calibration([0.1, 0.2, 0.8, 0.9], [False, False, True, True])([0.1, 0.9]).round(1).tolist()
    [0.0, 1.0]
    """
    try:
        values, pairs = (as_array(given, np.float64).ravel() for given in (scores, same))
        truth = pairs == 1
        if not np.isin(pairs, (0, 1)).all():
            raise ValueError("same holds more than true and false")
    except (ValueError, TypeError) as error:
        raise KitError(f"fit_calibration: {error} (expected numbers, and true or false for each)") from None
    if values.shape != truth.shape or not np.isfinite(values).all() or truth.all() or not truth.any():
        raise KitError("fit_calibration: needs finite scores, one truth for each, and pairs of both kinds")
    centre, spread = float(np.median(values)), float(values.std()) or 1.0
    if kind == "logistic":
        from sklearn.linear_model import LogisticRegression

        positives, negatives = truth.sum(), (~truth).sum()
        target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))  # as Platt's, never certain
        x, yes = np.tile((values - centre)[:, None] / spread, (2, 1)), np.repeat([True, False], len(values))
        model = LogisticRegression(C=1e6).fit(x, yes, np.r_[target, 1 - target])
        if model.coef_[0, 0] <= 0:
            return Calibrator(lambda x: np.full(x.shape, truth.mean()), centre, spread, 1e-3)
        return Calibrator(lambda x: model.predict_proba((x - centre)[:, None] / spread)[:, 1], centre, spread, 1e-6)
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, truth)
    return Calibrator(model.predict, centre, spread, 1e-3)


def fuse(scores: Sequence[Any], calibrators: Sequence[Callable]) -> np.ndarray:
    """Mean of calibrated scores, float64: any score matrices (N, M), each with its calibrator, on one scale.

    >>> fuse([np.zeros((2, 2)), np.ones((2, 2))], [np.asarray, np.asarray]).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    lengths = [len(given) if isinstance(given, Sequence) else 0 for given in (scores, calibrators)]
    if lengths[0] != lengths[1] or not lengths[0] or not all(map(callable, calibrators)):
        raise KitError(f"fuse: {lengths[0]} score matrices and {lengths[1]} calibrators (expected lists, one for each)")
    return mean_of_calibrated(scores, calibrators).numpy()


def mean_of_calibrated(
    scores: Sequence[Any], calibrators: Sequence[Callable], dtype: torch.dtype = torch.float64
) -> Tensor:
    """`fuse` in the type that is asked for, by rows, so that nothing but the result is as large as the matrices."""
    scores = [as_matrix(score, "scores") for score in scores]
    check_shapes("fuse", scores)
    fused = torch.empty(scores[0].shape, dtype=dtype)
    by_rows = all(isinstance(calibrator, Calibrator) for calibrator in calibrators)  # others may look at a whole matrix
    for rows, block in row_blocks(fused, copies=4 if by_rows else 0):
        calibrated = [np.asarray(calibrator(score[rows])) for score, calibrator in zip(scores, calibrators)]
        check_shapes("fuse", [*calibrated, block])
        block.copy_(torch.from_numpy(np.mean(calibrated, axis=0)))
    return fused


# evidence beyond the likeness of embeddings: whom a classifier would name, and spots that match


Agreement = Literal["hellinger", "product"]  # of two images' probabilities


@checked
def closed_set_posterior(logits: Any, form: Agreement = "hellinger", temperature: Positive = 1.0) -> Any:
    """Probability that two images show one identity, where each shows one of C that are known: (N, N) in [0, 1].

    logits (N, C) of the loss, or a list of such from several models or folds, whose probabilities are averaged. With
    p = softmax(logits / temperature), form "product" is sum_c p_c q_c, the probability if both are drawn independently;
    "hellinger" is sum_c sqrt(p_c q_c), 1 less the squared Hellinger distance (Bhattacharyya 1943).

    >>> closed_set_posterior(np.array([[9.0, 0.0], [9.0, 0.0], [0.0, 9.0]])).round(1).tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    given = logits if isinstance(logits, (list, tuple)) and logits and np.ndim(logits[0]) == 2 else [logits]
    by_member = [as_matrix(one, "logits").double() for one in given]
    check_shapes("closed_set_posterior", by_member)
    share = torch.stack([(one / temperature).softmax(1) for one in by_member]).mean(0)
    share = share.sqrt() if form == "hellinger" else share
    check_room(len(share), len(share), share.device)
    found = torch.empty(len(share), len(share), device=share.device)
    for rows, block in row_blocks(found):  # no second copy of what may be large
        block.copy_(share[rows] @ share.T)
    return as_given(found, given[0])


def as_store(images: Any) -> ImageStore:
    """Images as a store, whose key changes with their pixels."""
    check_pixels(images)
    if isinstance(images, ImageStore):
        return images
    pixels = np.ascontiguousarray(images)
    return ImageStore(pixels, fingerprint(pixels.shape, sha_of(pixels)))


# post-processing: a recipe's steps from embeddings to the similarities that are submitted

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Retrieval:
    """What post-processing steps hand on: embeddings first, similarities from the first step that makes them."""

    embeddings: Tensor  # (N, D)
    raw: Tensor  # (N, N) similarities before any step
    geometry: Geometry  # by which embeddings are compared
    views: Callable[[Sequence[float], bool], Tensor] | None = None  # (scales, flip) -> embeddings averaged over them
    logits: Callable[[Tensor], Tensor] | None = None  # embeddings (N, D) -> (N, C), of the loss's classes
    images: Callable[[int], ImageStore] | None = None  # px -> the images in squares of that size
    device: torch.device = CPU
    training: Callable[[], Tensor] | None = None  # embeddings of the training images (M, D)
    encounters: np.ndarray | None = None  # (N,), where some share one
    similarity: Tensor | Callable[[], Tensor] | None = None  # (N, N)
    evidence: Mapping[str, Tensor] = field(default_factory=dict)  # (N, N) by what it is: larger, more alike
    matched: tuple[Any, Tensor] | None = None  # the spots that `local` has looked at, and what matched (N, N)
    lengths: Tensor | None = None  # (N, 1) of the embeddings before a step replaced them
    shares: Tensor | None = None  # (N, C) how probably each image shows each identity, by `posterior`
    form: Agreement = "hellinger"

    @staticmethod
    def of(embeddings: Any, views: Any = None, geometry: Any = None, *others: Any) -> Retrieval:
        """The state before any step."""
        if views is not None and not callable(views):
            raise KitError(f"postprocess: views: a {type(views).__name__} (expected a function of scales and flip)")
        points, geometry = as_matrix(embeddings, "embeddings"), as_geometry(geometry)
        return Retrieval(points, similarity_matrix(points, geometry=geometry), geometry, views, *others)

    def matrix(self) -> Tensor:
        if self.similarity is None:
            return self.raw if self.lengths is None else similarity_matrix(self.embeddings, geometry=self.geometry)
        return self.similarity() if callable(self.similarity) else self.similarity

    def with_embeddings(self, found: Any, what: str = "embeddings") -> Retrieval:
        """The state with embeddings (N, D) that a step made."""
        points = as_matrix(found, what).to(self.embeddings)
        if points.shape != self.embeddings.shape:
            raise KitError(f"postprocess: {what}: {tuple(points.shape)} (expected {tuple(self.embeddings.shape)})")
        lengths = norms(self.embeddings) if self.lengths is None else self.lengths
        return replace(self, embeddings=points, lengths=lengths)

    def lengthened(self) -> Tensor:
        """Embeddings (N, D) as long as they were before any step, where the geometry compares directions only: a loss
        such as cross_entropy names by their lengths, too."""
        kept = self.lengths is None or not isinstance(self.geometry, Cosine)
        return self.embeddings if kept else l2_normalize(self.embeddings) * self.lengths

    def with_evidence(self, name: str, strength: Tensor, shown: Callable[[Tensor], Tensor]) -> Retrieval:
        """The state with evidence of another kind, as strong as `fuse` adds it; `shown` makes similarities in [0, 1] of
        it where no fusion follows."""
        if strength.shape != self.raw.shape:
            raise KitError(f"postprocess: {name}: of {len(strength)} images (expected {len(self.raw)})")
        before = self.evidence or {"likeness": self.matrix()}
        count = sum(known.partition(" ")[0] == name for known in before)
        name = f"{name} {count + 1}" if count else name
        return replace(self, similarity=partial(shown, strength), evidence={**before, name: strength})

    def fused(self, similarity: Tensor) -> Retrieval:
        """The state with all evidence in one similarity, which is the likeness that later evidence stands beside."""
        return replace(self, similarity=similarity.to(self.raw), evidence={})


@register("postprocess", "auto")
def auto_step(state: Retrieval) -> Retrieval:
    """Stands for all evidence that there is, fused: tta, posterior where the loss has classes, local where its weights
    lie; or for other steps, where validation images show them to be better (`choose_steps`).

    >>> choose_steps(["auto"], torch.eye(4), np.array(["a", "a", "b", "b"])).parts
    ()
    """
    raise AssertionError("auto is resolved on the validation images before any step is taken")


Scales = Annotated[tuple[Zoom, ...], NotEmpty()]  # of views


@register("postprocess", "tta", reads="images", makes="embeddings")
def tta_step(state: Retrieval, scales: Scales = (1.0,), flip: bool = True) -> Retrieval:
    """Mean of the embeddings of mirrored and zoomed views.

    >>> postprocess(["tta"], torch.eye(4), views=lambda scales, flip: torch.eye(4)).shape
    torch.Size([4, 4])
    """
    if state.views is None:
        raise KitError("postprocess: tta looks at the images again, but there are embeddings alone (give views)")
    return state.with_embeddings(state.views(scales, flip), "views")


@register("postprocess", "query_expansion", reads="embeddings", makes="embeddings")
def query_expansion_step(
    state: Retrieval, k: Count = 3, alpha: NonNegative = 0.0, sides: Literal["both", "query"] = "both"
) -> Retrieval:
    """Mean of each embedding and its k nearest, weighted by cosine ** alpha; of queries alone, which are compared with
    the gallery as it was, or of both sides."""
    expanded = query_expansion(state.embeddings, k, alpha, state.geometry)
    if sides == "both":
        return state.with_embeddings(expanded)
    found = similarity_matrix(expanded, state.embeddings, state.geometry)
    return replace(state, similarity=found.fill_diagonal_(1))  # of an image with itself, whatever it was averaged with


@register("postprocess", "database_augmentation", reads="embeddings", makes="embeddings")
def database_augmentation_step(state: Retrieval, k: Count = 3) -> Retrieval:
    """Mean of each embedding and its k nearest, weighted by rank."""
    return state.with_embeddings(database_augmentation(state.embeddings, k, state.geometry))


@register("postprocess", "k_reciprocal")
def k_reciprocal_step(
    state: Retrieval,
    k1: Count = 20,
    k2: Count = 6,
    lambda_value: Fraction = 0.3,
    training: bool = False,
    growing: bool = False,
) -> Retrieval:
    """Re-ranking by k-reciprocal encoding; `training`: the training images are neighbours in the graph, too."""
    rerank = partial(k_reciprocal_rerank, k1=k1, k2=k2, lambda_value=lambda_value, growing=growing)
    if not training:
        return replace(state, similarity=rerank(similarity=state.matrix()))
    if state.training is None:
        raise KitError("postprocess: k_reciprocal.training needs the training images' embeddings (give training)")
    others = state.training()
    if others.shape[1] != state.embeddings.shape[1]:
        raise KitError(
            f"postprocess: training: embeddings of length {others.shape[1]} (expected {state.embeddings.shape[1]}, as "
            "the others)"
        )
    total, graph = len(state.embeddings), torch.cat([state.embeddings, others.to(state.embeddings)])
    return replace(state, similarity=rerank(graph, geometry=state.geometry)[:total, :total].contiguous())


@register("postprocess", "diffusion")
def diffusion_step(
    state: Retrieval, k: Count = 10, alpha: Annotated[float, Range(low=0, high=0.999)] = 0.9
) -> Retrieval:
    """Likeness that spreads over the graph of mutual k nearest: (1 - alpha) (I - alpha S) ** -1 (Zhou et al. 2004)."""
    matrix = state.matrix().double()
    ranked = ranked_neighbours(matrix, min(k + 1, len(matrix)))
    near = torch.zeros_like(matrix, dtype=torch.bool).scatter_(1, ranked, True)
    weights = torch.where(near & near.T, matrix.clamp(min=0) ** 3, 0).fill_diagonal_(0)
    scale = weights.sum(1).clamp(min=1e-12).rsqrt()
    spread = torch.eye(len(matrix), dtype=torch.float64).to(matrix) - alpha * scale[:, None] * weights * scale
    found = (1 - alpha) * torch.linalg.inv(spread)
    return replace(state, similarity=to_unit_scale(found + 1e-3 * matrix).to(state.raw))


@register("postprocess", "blend")
def blend_step(state: Retrieval, raw_weight: Fraction = 0.2) -> Retrieval:
    """Weighted mean of the cosines before any step and the similarities so far.

    >>> postprocess(["query_expansion", "blend"], torch.eye(4)).shape
    torch.Size([4, 4])
    """
    return replace(state, similarity=blend(state.raw, state.matrix(), raw_weight))


@register("postprocess", "posterior", reads="embeddings", makes="evidence")
def posterior_step(state: Retrieval, form: Agreement = "hellinger", temperature: Positive | None = None) -> Retrieval:
    """`closed_set_posterior` by the loss's logits; the temperature is fitted in validation where it is null.

    >>> postprocess(["posterior"], torch.eye(4), logits=torch.eye(4)).shape
    torch.Size([4, 4])
    """
    if state.logits is None:
        raise KitError(
            "postprocess: posterior needs a loss with a class for each identity, such as arcface, and their logits"
        )
    logits = as_matrix(state.logits(state.lengthened()), "logits") / (temperature or 1.0)
    found = torch.as_tensor(closed_set_posterior(logits, form))
    named = state.with_evidence("posterior", found.to(state.raw).clamp_(min=1e-12).log_(), torch.exp)
    return replace(named, shares=logits.softmax(1), form=form)


@register("postprocess", "fuse", reads="evidence", makes="similarity")
def fuse_step(
    state: Retrieval,
    kind: Literal["sum", "logistic", "isotonic", "rank"] = "sum",
    weights: tuple[float, ...] = (),
    by: Literal["pairs", "query"] = "pairs",
) -> Retrieval:
    """Likeness and the evidence of earlier steps together: each standardised and added (sum), weighted by logistic
    regression or calibrated by isotonic regression, both fitted in validation, or by mean ranks. A sum is standardised
    `by` all pairs, or by those of each query.

    >>> postprocess(["posterior", "fuse"], torch.eye(4), logits=torch.eye(4)).shape
    torch.Size([4, 4])
    """
    strengths = list(state.evidence.values())
    if weights and len(weights) != len(strengths):
        raise KitError(f"postprocess: fuse.weights: {len(weights)} for {', '.join(state.evidence)} (expected one each)")
    if kind == "rank":
        return state.fused(rank_average(*strengths, weights=weights, own_gallery=True))
    if weights and by == "pairs":
        return state.fused(weighted_to_unit_scale(strengths, weights, state.raw))
    return state.fused(standardised_sum(strengths, weights or [1.0] * len(strengths), by))


def standardised_sum(matrices: Sequence[Tensor], weights: Sequence[float], by: str = "pairs") -> Tensor:
    """The weighted sum of evidence (N, N), each standardised over all pairs, or over the pairs of each query, mapped to
    [0, 1]."""
    if by == "query":
        return weighted_to_unit_scale(list(map(standardised_by_query, matrices)), weights, matrices[0])
    factors = [weight / max(spread_of_pairs(one), 1e-12) for weight, one in zip(weights, matrices)]
    return weighted_to_unit_scale(matrices, factors, matrices[0])


def standardised_by_query(matrix: Tensor) -> Tensor:
    """Each row (N, N) with mean 0 and standard deviation 1 over the other images; 0 where they are all alike."""
    found, others = torch.empty_like(matrix), max(len(matrix) - 1, 1)
    for rows, block in row_blocks(matrix, diagonal=0.0):
        block = block - block.sum(1, keepdim=True) / others
        block.diagonal(rows.start).fill_(0)
        found[rows] = block / (block.square().sum(1, keepdim=True) / others).sqrt().clamp(min=1e-12)
    return found


def weighted_rows(
    matrices: Sequence[Tensor], factors: Sequence[float], diagonal: float
) -> Iterator[tuple[slice, Tensor]]:
    """The weighted sum of matrices (N, N) in float64, but for its diagonal, as `row_blocks` gives it."""
    for rows, _ in row_blocks(matrices[0], copies=4):
        block = sum(factor * one[rows].double() for factor, one in zip(factors, matrices))
        block.diagonal(rows.start).fill_(diagonal)
        yield rows, block


def spread_of_pairs(matrix: Tensor) -> float:
    """The standard deviation of a matrix (N, N) without its diagonal; 0 where there is no pair."""
    number = len(matrix) * (len(matrix) - 1)
    if not number:
        return 0.0
    mean = sum(float(block.sum()) / number for _, block in weighted_rows([matrix], [1.0], diagonal=0.0))
    apart = (block.sub_(mean) for _, block in weighted_rows([matrix], [1.0], diagonal=mean))
    return math.sqrt(sum(float(block.square_().sum()) for block in apart) / (number - 1))


def weighted_to_unit_scale(matrices: Sequence[Tensor], factors: Sequence[float], like: Tensor) -> Tensor:
    """`to_unit_scale` of the weighted sum of matrices, in the type of `like`, worked out by rows."""
    low, high = math.inf, -math.inf
    for rows, block in weighted_rows(matrices, factors, diagonal=torch.inf):
        low = min(low, float(block.min()))
        block.diagonal(rows.start).fill_(-torch.inf)
        high = max(high, float(block.max()))
    found = torch.empty_like(like)
    for rows, block in weighted_rows(matrices, factors, diagonal=1.0):
        found[rows] = block.sub_(low).div_(max(high - low, 1e-30))
    return found.fill_diagonal_(1)


def to_unit_scale(matrix: Tensor) -> Tensor:
    """Similarities (N, N) mapped affinely to [0, 1], 1 for an image with itself."""
    return weighted_to_unit_scale([matrix], [1.0], matrix)


Step = Callable[[Retrieval], Retrieval]


def run_steps(steps: Sequence[Step], state: Retrieval) -> Retrieval:
    for step in steps:
        state = step(state)
    return state


def as_steps(steps: Sequence[Component | str | Mapping]) -> tuple[Component, ...]:
    parts = convert(steps, tuple[Annotated[Component, "postprocess"], ...], "postprocess")
    check_steps(parts, "postprocess")
    return parts


def postprocess(
    steps: Sequence[Component | str | Mapping],
    embeddings: Any,
    views: Callable | None = None,
    geometry: Geometry | None = None,
    logits: Any = None,
    images: Any = None,
    training: Any = None,
    encounters: Any = None,
) -> Any:
    """Similarities (N, N) after the steps, from embeddings (N, D).

    steps: parts, or what names them in a recipe, such as "k_reciprocal"; views: (scales, flip) -> embeddings (N, D) of
    such views, which tta asks for; logits (N, C), for posterior; images: uint8 (N, S, S, 3 or 4) or an ImageStore, or
    a function of px that gives them, for local; training: embeddings (M, D), for k_reciprocal; encounters (N,), for
    encounters. Nothing is fitted; the posterior's temperature is 1.

    >>> postprocess(["query_expansion", {"name": "k_reciprocal", "k1": 2}], np.eye(4)).shape
    (4, 4)
    """
    parts = as_steps(steps)
    if any(part.name == "auto" for part in parts):
        raise KitError("postprocess: auto needs labelled images to choose by (expected steps; choose_steps chooses)")
    named = None if logits is None else logits if callable(logits) else lambda _: as_matrix(logits, "logits")
    sized = None if images is None else images if callable(images) else lambda _: as_store(images)
    graph = None if training is None else lambda: as_matrix(training, "training")
    met = None if encounters is None else as_labels(encounters, "encounters")
    state = Retrieval.of(embeddings, views, geometry, named, sized, CPU, graph, met)
    if met is not None and len(met) != len(state.raw):
        raise KitError(f"postprocess: encounters: {len(met)} for {len(state.raw)} images (expected one for each)")
    return as_given(run_steps(without_fitting(parts), state).matrix(), embeddings)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """`fuse` by isotonic calibration, once it is fitted."""

    part: Component
    calibrators: Sequence[Calibrator]

    def __call__(self, state: Retrieval) -> Retrieval:
        scores = [one.cpu() for one in state.evidence.values()]
        return state.fused(mean_of_calibrated(scores, self.calibrators, state.raw.dtype).fill_diagonal_(1))


def needs_fitting(part: Component) -> bool:
    setting = part.settings.get
    if part.name == "posterior":
        return setting("temperature") is None
    return part.name == "fuse" and setting("kind") in ("logistic", "isotonic") and not setting("weights")


TEMPERATURES = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def fit_temperature(logits: Tensor, form: str, labels: np.ndarray, encounters: np.ndarray | None) -> float:
    """Of TEMPERATURES whose mAP is not told from the best one's the nearest to 1; 1 below FEWEST identities."""
    codes = np.unique(labels, return_inverse=True)[1].reshape(-1)

    def by_identity(temperature: float) -> np.ndarray:
        found = average_precision(closed_set_posterior(logits, form, temperature), labels, encounters)
        return mean_by_identity(found, codes)

    plain = by_identity(1.0)
    if (~np.isnan(plain)).sum() < FEWEST:
        return 1.0
    means = {t: plain if t == 1.0 else by_identity(t) for t in TEMPERATURES}
    best = max(means, key=lambda t: mean_or_nan(means[t]))
    alike = [t for t in TEMPERATURES if not mean_interval(means[best] - means[t], fewest=FEWEST)[0] > 0]
    return min(alike, key=lambda t: abs(math.log(t)))


def fit_step(
    part: Component, state: Retrieval, labels: np.ndarray, encounters: np.ndarray | None, rows: np.ndarray
) -> Step:
    """The step with what validation decides: fitted on the images of `rows`, bool (N,), and pairs of two encounters."""
    if not needs_fitting(part):
        return part
    kept = np.flatnonzero(rows)
    truth = labels[kept], None if encounters is None else encounters[kept]
    if part.name == "posterior":
        logits, form = state.logits(state.lengthened())[torch.from_numpy(kept)], part.settings.get("form", "hellinger")
        return replace(part, settings={**part.settings, "temperature": fit_temperature(logits, form, *truth)})
    first, second = np.triu_indices(len(kept), 1)
    apart = np.ones(len(first), bool) if encounters is None else truth[1][first] != truth[1][second]
    same = (truth[0][first] == truth[0][second])[apart]
    if same.all() or not same.any():
        return replace(part, settings={"kind": "sum"})
    values = [one.cpu().numpy()[np.ix_(kept, kept)][first, second][apart] for one in state.evidence.values()]
    if part.settings["kind"] == "isotonic":
        return Calibrated(part, [fit_calibration(one, same) for one in values])
    from sklearn.linear_model import LogisticRegression

    spread = np.array([max(one.std(), 1e-12) for one in values])
    model = LogisticRegression(max_iter=1000).fit(np.stack(values, 1) / spread, same)
    weights = tuple(float(f"{weight:.4g}") for weight in model.coef_[0] / spread)
    return replace(part, settings={**part.settings, "weights": weights})


def fit_steps(
    parts: Sequence[Component], state: Retrieval, labels: np.ndarray, encounters: np.ndarray | None, rows: np.ndarray
) -> tuple[list[Step], list[Retrieval]]:
    """The steps, fitted on the images of `rows`, and the states before any of them and after each."""
    fitted, states = [], [state]
    for part in parts:
        fitted.append(fit_step(part, states[-1], labels, encounters, rows))
        states.append(fitted[-1](states[-1]))
    return fitted, states


def without_fitting(parts: Sequence[Component], named: bool = False) -> tuple[Component, ...]:
    """The steps where no image was validated: of auto its first choice, and what would be fitted at its default."""
    chosen = as_steps(first_choice(named, seen=True)) if [part.name for part in parts] == ["auto"] else parts
    return tuple(replace(p, settings={}) if needs_fitting(p) and p.name == "fuse" else p for p in chosen)


def measure_steps(
    parts: Sequence[Component], state: Retrieval, labels: np.ndarray, encounters: np.ndarray | None, first: int = 0
) -> list[dict[str, np.ndarray]]:
    """Average precision of each query, `by_kind`, before any step and after each; of these states from `first` on.

    By TOP1 whether its nearest image shows its identity, 1 or 0. What is fitted is fitted on one half of the identities
    and measured on the other, in turn.
    """
    found, identities = [{} for _ in range(len(parts) + 1)][first:], np.unique(labels)
    if any(map(needs_fitting, parts)):
        identities = np.random.default_rng(0).permutation(identities)[::2]
    halves = np.isin(labels, identities)
    for half_rows in (halves == half for half in np.unique(halves)):
        _, states = fit_steps(parts, state, labels, encounters, half_rows if half_rows.all() else ~half_rows)
        for row, reached in zip(found, states[first:]):
            matrix = reached.matrix()
            measured = by_kind(average_precision, matrix, labels, encounters)
            for kind, values in {**measured, TOP1: nearest_is_right(matrix, labels)}.items():
                row.setdefault(kind, np.full(len(labels), math.nan))[half_rows] = values[half_rows]
    return found


TOP1 = "_top1"


def nearest_is_right(similarity: Any, labels: np.ndarray) -> np.ndarray:
    """1 where a query's nearest other image shows its identity, 0 where not (N,); NaN where no other image does."""
    matrix = as_matrix(similarity).clone().fill_diagonal_(-torch.inf)
    right = (labels[matrix.argmax(1).cpu().numpy()] == labels).astype(float) if len(labels) else np.zeros(0)
    return np.where(pd.Series(labels).duplicated(keep=False), right, math.nan)


def gain_interval(gains: np.ndarray, codes: np.ndarray, tries: int) -> tuple[float, float]:
    """The interval of a mean gain, wide enough that one in twenty of all tries is a false gain (Bonferroni)."""
    return interval_over_identities(gains, codes, 1 - 0.05 / max(tries, 1))


def rows_of_steps(
    names: Iterable[str], measured: Sequence[Mapping[str, np.ndarray]], codes: np.ndarray
) -> list[dict[str, Any]]:
    """mAP of each list of steps, and the interval of its gain over the first, by the average precision of queries."""
    rows = []
    for name, found in zip(names, measured):
        row: dict[str, Any] = {"steps": name}
        for kind, values in found.items():
            if kind == TOP1:
                changed = (values - measured[0][kind])[~np.isnan(values)]
                row |= {"mended": float((changed > 0).mean()), "broken": float((changed < 0).mean())}
                continue
            low, high = gain_interval(values - measured[0][kind], codes, len(measured) - 1)
            score, base = (mean_or_nan(mean_by_identity(v, codes)) for v in (values, measured[0][kind]))
            row |= {f"map{kind}": score, f"gain{kind}": score - base, f"low{kind}": low, f"high{kind}": high}
        rows.append(row)
    return rows


def by_kind(metric: Callable[..., Any], similarity: Any, labels: Any, encounters: np.ndarray | None) -> dict[str, Any]:
    """A metric of all pairs by "", and by "_across" without those of one encounter, where encounters are told."""
    kinds = {"": None} if encounters is None else {"": None, "_across": encounters}
    return {kind: metric(similarity, labels, met) for kind, met in kinds.items()}


SMALL = {"name": "k_reciprocal", "k1": 7, "k2": 3}
MIDDLE = {"name": "k_reciprocal", "k1": 10, "k2": 4}
AUTO_CANDIDATES = (  # as a recipe tells steps
    [],
    ["tta"],
    ["query_expansion"],
    [SMALL],
    [MIDDLE],
    ["k_reciprocal"],
    ["diffusion"],
    ["tta", "query_expansion"],
    ["tta", SMALL],
    ["tta", MIDDLE],
    ["query_expansion", MIDDLE],
    ["tta", "query_expansion", MIDDLE],
)
GRAPH_CANDIDATES = ([{**MIDDLE, "training": True}],)
# where the loss has classes
NAMING_CANDIDATES = (["posterior"], ["tta", "posterior"], ["posterior", "fuse"])


def first_choice(named: bool, seen: bool) -> list[str | dict]:
    """The steps that auto begins with: the evidence that there is, fused. named: by classes; seen: images are there."""
    spots = seen and rooms_folder() is not None and room("experiments.spots").at_hand()
    evidence = [*([{"name": "posterior", "form": "product"}] if named else []), *(["local"] if spots else [])]
    return [*(["tta"] if seen else []), *evidence, *(["fuse"] if evidence else [])]


def describe_steps(steps: Sequence[Component]) -> str:
    """The steps in a few words, such as "tta, k_reciprocal (k1 10)"."""
    return ", ".join(map(part_words, steps)) or "raw"


@dataclass(frozen=True, eq=False)
class ChosenSteps:
    """The steps to use, fitted, and a row for every candidate that was measured on the validation images."""

    parts: tuple[Component, ...]
    fitted: Sequence[Step]
    rows: list[dict[str, Any]]
    states: Sequence[Retrieval]  # before the steps that are used, and after each
    why: str = ""  # nothing was chosen where something was to be

    def scores(self, suffix: str) -> dict[str, float]:
        """mAP after the steps that are used, and across encounters."""
        used = next(row for row in self.rows if row["used"])
        return {key.replace("map", f"map{suffix}"): used[key] for key in ("map", "map_across") if key in used}


def choose_steps(
    steps: Sequence[Component | str | Mapping], embeddings: Any, labels: Any, encounters: Any = None
) -> ChosenSteps:
    """The steps to use, and what each candidate gave on the validation images beside raw similarities.

    embeddings (N, D), or a `Retrieval`, which has more to look at; labels and encounters (N,). Fixed steps are used as
    they are, and measured one after the other. `auto` begins with all evidence that there is, fused, and leaves it for
    the best of AUTO_CANDIDATES and the like whose gain over it has an interval above 0: Student's, over identities,
    wider the more candidates there are (Bonferroni). The mAP across encounters decides, or, where fewer than FEWEST
    identities have one, the usual. What is fitted, such as the posterior's temperature, is fitted on one half of the
    identities and measured on the other; what is used then is fitted on all. Below FEWEST the first list stays.

    >>> choose_steps(["k_reciprocal"], torch.eye(4), np.array(["a", "a", "b", "b"])).parts[0].name
    'k_reciprocal'
    """
    parts, labels = as_steps(steps), as_labels(labels)
    encounters = None if encounters is None else as_labels(encounters, "encounters")
    state = (
        embeddings if isinstance(embeddings, Retrieval) else replace(Retrieval.of(embeddings), encounters=encounters)
    )
    if not len(labels):
        raise KitError("choose_steps: labels: there are none (expected one for each of the validation images)")
    automatic = [part.name for part in parts] == ["auto"]
    truth, codes = (labels, encounters), np.unique(labels, return_inverse=True)[1].reshape(-1)
    if automatic:
        every = (*AUTO_CANDIDATES, *(GRAPH_CANDIDATES if state.training else ()))
        every += NAMING_CANDIDATES if state.logits else ()
        first = as_steps(first_choice(state.logits is not None, state.views is not None))
        others = [as_steps(candidate) for candidate in every if state.views or "tta" not in candidate]
        candidates = [*others, *([] if first in others else [first])]
        measured = [measure_steps(candidate, state, *truth, first=-1)[0] for candidate in candidates]
    else:
        candidates = [parts[:i] for i in range(len(parts) + 1)]
        measured = measure_steps(parts, state, *truth)
    chosen, why = len(candidates) - 1, ""
    counted = {kind: len(np.unique(codes[~np.isnan(values)])) for kind, values in measured[0].items() if kind != TOP1}
    kind = next((kind for kind in ("_across", "") if counted.get(kind, 0) >= FEWEST), None)
    if automatic:
        chosen = candidates.index(first)
    if automatic and kind is None:
        why = f"auto keeps its first list: {counted.get('', 0)} identities are too few to choose by (expected {FEWEST})"
    elif automatic:
        gains = [found[kind] - measured[chosen][kind] for found in measured]
        better = [i for i, gain in enumerate(gains) if gain_interval(gain, codes, len(gains) - 1)[0] > 0]
        chosen = max(better, key=lambda i: mean_or_nan(mean_by_identity(gains[i], codes)), default=chosen)
    rows = rows_of_steps(map(describe_steps, candidates), measured, codes)
    rows = [{**row, "used": number == chosen} for number, row in enumerate(rows)]
    fitted, states = fit_steps(candidates[chosen], state, *truth, np.ones(len(labels), bool))
    if any(map(needs_fitting, candidates[chosen])):
        rows[chosen]["fitted"] = describe_steps(fitted)
    return ChosenSteps(candidates[chosen], fitted, rows, states, why)


# 11. Embedding and feature cache
# ----------------------------------------------------------------------------------------------------------------------


def precision_of(name: str, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision, None for fp32; auto: bf16 where the GPU computes in it, else fp16; fp32 on a CPU."""
    if name == "fp16" and device.type != "cuda":
        raise KitError("train.precision: fp16 needs a GPU (expected auto, fp32 or bf16 on a CPU)")
    if name == "auto" and device.type == "cuda":
        name = "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    return {"auto": None, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def mixed_precision(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def in_precision(network: Callable[[Tensor], Tensor], dtype: torch.dtype | None) -> Callable[[Tensor], Tensor]:
    """The network, computing in mixed precision where a type is given."""

    def compute(inputs: Tensor) -> Tensor:
        with mixed_precision(inputs.device, dtype):
            return network(inputs)

    return compute


class Source:
    """Where a network's inputs come from: `read`, which a thread may do ahead, then `prepare` on the device."""

    device: torch.device
    at_hand = False  # whether what is read lies on the device already, so that reading ahead would gain nothing

    def __len__(self) -> int:
        """How many images there are, where that is told."""
        raise KitError(
            f"embed: positions: a {type(self).__name__} does not tell how many images it has (give positions)"
        )

    def read(self, positions: np.ndarray) -> Tensor:
        raise NotImplementedError

    def prepare(self, read: Tensor, training: bool) -> Tensor:
        return read.to(self.device, non_blocking=True)

    def of_epoch(self, epoch: int) -> Source:
        """What training reads from in that epoch, counted from 1."""
        return self


@dataclass(frozen=True, eq=False)
class PixelSource(Source):
    """Prepared images, read from the store and prepared anew each time."""

    store: ImageStore
    preparation: Preparation
    device: torch.device

    def __len__(self) -> int:
        return len(self.store)

    def read(self, positions: np.ndarray) -> Tensor:
        pixels = self.store.read(positions)
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    def prepare(self, read: Tensor, training: bool) -> Tensor:
        return self.preparation(read.to(self.device, non_blocking=True), training)


@dataclass(frozen=True, eq=False)
class FeatureSource(Source):
    """What a frozen backbone made of the images (N, ...), computed once."""

    features: Tensor
    device: torch.device

    def __len__(self) -> int:
        return len(self.features)

    @property
    def at_hand(self) -> bool:
        return self.features.device.type == self.device.type

    def read(self, positions: np.ndarray) -> Tensor:
        rows = self.features.index_select(0, torch.from_numpy(np.asarray(positions)).to(self.features.device))
        return rows if self.at_hand else rows.pin_memory()


@dataclass(frozen=True, eq=False)
class ViewSource(Source):
    """What a frozen backbone made of several random views of every training image; epochs see them in turn."""

    views: tuple[FeatureSource, ...]

    def of_epoch(self, epoch: int) -> Source:
        return self.views[(epoch - 1) % len(self.views)]


def read_ahead(source: Source, batches: Sequence[np.ndarray]) -> Iterator[Tensor]:
    """What the source reads for each batch, the next one while this one is worked on."""
    if source.at_hand or not len(batches):
        yield from map(source.read, batches)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(source.read, batches[0])
        for following in [*batches[1:], None]:
            ready = waiting.result()
            waiting = pool.submit(source.read, following) if following is not None else None
            yield ready


def wants_one_shape(device: torch.device) -> bool:
    """Whether a backbone's first step at each new shape of its batches takes long there."""
    return device.type == "cuda"


def whole_batches(positions: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Positions in batches of one size, the last filled up with the first ones again."""
    return list(np.resize(positions, (math.ceil(len(positions) / batch_size), batch_size)))


def in_parts(network: Callable[[Tensor], Tensor], inputs: Tensor, parts: int = 1) -> tuple[Tensor, int]:
    """What the network makes of the inputs in so many parts, or in twice as many until memory suffices; the parts."""
    while True:
        try:
            return torch.cat([network(part) for part in inputs.chunk(parts)]), parts
        except OutOfMemoryError:
            if parts >= len(inputs):
                raise
        parts *= 2
        if inputs.is_cuda:
            torch.cuda.empty_cache()


def plain_source(embedder: Embedder, images: np.ndarray | ImageStore) -> PixelSource:
    """Images as they are, prepared for the embedder's backbone: of the size and the crop that its model asks for."""
    cfg, device = embedder.backbone.pretrained_cfg, next(embedder.parameters()).device
    size = embedder.input_size or native_size(embedder.backbone)
    prepare = Preparation(Component("background", "original"), (), size, cfg["mean"], cfg["std"], embedder.crop)
    return PixelSource(as_store(images), prepare, device)


@contextmanager
def evaluating(network: Any) -> Iterator[None]:
    """Within the block a module is in evaluation, and what draws leaves the caller's generators as they were."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    training = [module for module in modules if module.training]
    states = random.getstate(), np.random.get_state()
    if training:
        network.eval()  # as a whole, for a module may do more than its parts
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
            yield
    finally:
        for module in training:  # each as it was: some may have been in evaluation
            module.training = True
        random.setstate(states[0])
        np.random.set_state(states[1])


@checked
@torch.no_grad()
def embed(
    network: Callable[[Tensor], Tensor],
    source: Source | Tensor | np.ndarray | ImageStore,
    positions: np.ndarray | None = None,
    batch_size: Count = 64,
    label: str = "",
    dtype: torch.dtype = torch.float32,
    view_seed: tuple[int, ...] = (),
) -> Tensor:
    """(N, ...) on the CPU, float32 or `dtype`: what `network` makes of the images at `positions`.

    source: a `Source`, a tensor (M, ...) of what the network takes, or for an `Embedder` images as they are, uint8
    (M, S, S, 3 or 4) or an `ImageStore`, which are resized and normalised as its model wants; positions: numbers, or
    true where an image is meant, all unless given. A module is in evaluation meanwhile. Images are not augmented, and a
    background that is drawn is the same whenever the same positions are asked for; where `view_seed` is given, it seeds
    a random view of each image as training sees it.
    """
    if isinstance(source, (np.ndarray, ImageStore)) and isinstance(network, Embedder):
        source = plain_source(network, source)
    source = FeatureSource(source, source.device) if isinstance(source, Tensor) else source
    if not isinstance(source, Source):
        raise KitError(f"embed: source: a {type(source).__name__} (expected a Source, or a tensor of prepared images)")
    if isinstance(network, Embedder) and isinstance(source, FeatureSource):
        check_prepared(source.features)
    counted = positions is None or type(source).__len__ is not Source.__len__
    positions = positions_in(positions, len(source) if counted else None)
    one_shape = isinstance(source, PixelSource) and wants_one_shape(source.device)
    filled = one_shape and len(positions) >= batch_size  # with other images, or, where there are too few, behind them
    batches = whole_batches(positions, batch_size) if filled else cut_batches(positions, batch_size)
    done, parts = 0, 1
    result = torch.zeros(0, *([network.embedding_dim] if isinstance(network, Embedder) else []))
    with evaluating(network):
        reading = read_ahead(source, batches)
        for batch in progress(batches, label) if label else batches:
            seed_everything(*view_seed, *batch[:1])
            inputs = source.prepare(next(reading), training=bool(view_seed))
            if one_shape and not filled:
                inputs = inputs[torch.arange(max(batch_size, len(inputs)), device=inputs.device) % len(inputs)]
            rows, parts = in_parts(network, inputs, parts)
            rows = rows[: min(len(batch), len(positions) - done)]
            if not done:
                result = torch.empty(len(positions), *rows.shape[1:], dtype=dtype)
            result[done : done + len(rows)] = rows.to(dtype)
            done += len(rows)
    return result


def positions_in(asked: Any, count: int | None) -> np.ndarray:
    """Rows of `count` images (None: nobody knows), by number, or by what is true where one is meant; all for None."""
    given = np.arange(count) if asked is None else np.asarray(asked)
    if given.dtype == object and all(isinstance(one, (bool, np.bool_)) for one in given.flat):
        given = given.astype(bool)
    if given.dtype == bool and given.ndim == 1 and count in (None, len(given)):
        return np.flatnonzero(given)
    whole = given if given.size else np.zeros(given.shape, np.int64)
    if given.ndim != 1 or whole.dtype.kind not in "iuf" or (whole != np.rint(whole)).any():
        raise KitError(
            f"positions: {given.dtype} of shape {given.shape} (expected whole numbers, or {count} times true or false)"
        )
    if given.size and count is not None and not 0 <= whole.min() <= whole.max() < count:
        raise KitError(f"positions: {whole.min():g} to {whole.max():g} (expected 0 to {count - 1}, of {count} images)")
    return whole.astype(np.int64)


def check_prepared(images: Any) -> None:
    """Refuses what no backbone takes."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        kind = f"{getattr(images, 'dtype', type(images).__name__)} of shape {tuple(getattr(images, 'shape', ()))}"
        raise KitError(f"images: {kind} (expected a tensor of prepared images, float (B, 3, H, W))")


def flip_tta(network: Callable[[Tensor], Tensor], images: Tensor, geometry: Geometry | None = None) -> Tensor:
    """Mean of the unit embeddings of the images (B, 3, H, W) and their mirror images, of unit length (B, D)."""
    return multi_scale_tta(network, images, (1.0,), True, geometry)


@checked
def multi_scale_tta(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    scales: Scales = (1.0, 0.85, 1.15),
    flip: bool = True,
    geometry: Geometry | None = None,
) -> Tensor:
    """Mean of the unit embeddings of zoomed, and mirrored, views of the images (B, 3, H, W), of unit length (B, D).

    A scale above 1 cuts out the centre, one below 1 shows the image smaller on zeros; every view has the images' own
    size, so that `network` sees one shape. `geometry` as in `query_expansion`.
    """
    geometry = as_geometry(geometry)
    if flip or any(scale != 1 for scale in scales):
        check_prepared(images)
    views = [zoom(images, scale) for scale in scales]
    views += [view.flip(-1) for view in views] if flip else []
    with evaluating(network):
        vectors = [geometry.logmap0(geometry.project(network(view))) for view in views]
    return geometry.expmap0(torch.stack(vectors).mean(0))


def zoom(images: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return images
    shift = torch.tensor([[1 / scale, 0.0, 0.0], [0.0, 1 / scale, 0.0]], device=images.device, dtype=images.dtype)
    grid = F.affine_grid(shift.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def module_fingerprint(module: nn.Module) -> str:
    """Changes with any of the module's tensors."""
    return fingerprint(type(module).__name__, sha_of(module.state_dict()))


def cached_features(
    embedder: Embedder,
    source: PixelSource,
    config: Recipe,
    precision: torch.dtype | None = None,
    view: int | None = None,
    first: int | None = None,
) -> FeatureSource:
    """Features of the store's images, or its first ones, from the cache if they are there; maps and tokens as fp16.

    With `view` they are of the random view of that number, which augmentations and the recipe's seed decide too.
    """
    total = len(source.store) if first is None else first
    embedder.backbone_fingerprint = embedder.backbone_fingerprint or module_fingerprint(embedder.backbone)
    drawn = () if view is None else (config.seed, view)
    mixed = bool(drawn) or source.preparation.background.drawn
    key = features_cache_key(embedder, source, config, precision, drawn, total)
    path = cache_dir() / "features" / f"{key}.safetensors"
    if (features := kept_tensor(path, "features", total)) is None:
        embedder.eval()
        small = embedder.pooling.kind in ("vector", "logits")  # maps and tokens are large
        kept_as = torch.float32 if small else torch.float16
        label = "extracting features" + (f", view {view + 1} of {config.train.views}" if drawn else "")
        order = np.arange(total)
        if mixed:  # images of one burst must not lend each other their backgrounds
            order = np.random.default_rng((total, *drawn)).permutation(total)
        compute = in_precision(partial(embedder.pooling.features, embedder.backbone), precision)
        features = embed(compute, source, order, label=label, dtype=kept_as, view_seed=drawn)[np.argsort(order)]
        if not torch.isfinite(features).all():
            raise KitError(
                f"{config.model.backbone}: its features are not all numbers in {precision or 'fp32'}; set "
                "train.precision: fp32"
            )
        save_tensors(path, {"features": features})
        features = load_safetensors(path)[0]["features"]  # mapped from the file: takes no memory of the process
    return FeatureSource(where_they_fit(features, source.device), source.device)


def features_cache_key(
    embedder: Embedder,
    source: PixelSource,
    config: Recipe,
    precision: torch.dtype | None,
    drawn: tuple[int, ...],
    total: int,
) -> str:
    """Changes with all that decides the features of a frozen backbone, and with nothing that does not.

    Poolings of one kind share a file. `drawn`: what seeds a random view; () where the images are as evaluated.
    """
    preparation = source.preparation
    return fingerprint(
        "features 6",
        source.store.key,
        total,
        embedder.backbone_fingerprint,
        config.model.backbone,
        embedder.pooling.kind,
        asdict(preparation.behind),
        (preparation.input_size, preparation.mean, preparation.std, preparation.crop),
        computed_by(precision, source.device),
        *(([asdict(step) for step in config.augment], *drawn) if drawn else ()),
    )


def where_they_fit(features: Tensor, device: torch.device) -> Tensor:
    """On the device, unless they would take more than a quarter of a GPU's free memory."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return features.to(device) if features.nbytes <= free / 4 else features


# 12. Training
# ----------------------------------------------------------------------------------------------------------------------


class TrainingFailed(KitError):
    """A run that can't go on, such as one whose loss is no longer a number."""


# optimizers and schedules


@register("optimizer", "adam")
def adam(parameters: list, lr: float, weight_decay: float) -> Optimizer:
    """Adam (Kingma & Ba 2015)."""
    return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)


@register("optimizer", "adamw")
def adamw(parameters: list, lr: float, weight_decay: float) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)


# SGD is not fused: on a GPU its fused momentum begins with what was in memory where GradScaler skips the first step.


@register("optimizer", "sgd")
def sgd(parameters: list, lr: float, weight_decay: float, momentum: Fraction = 0.9) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum)


@register("optimizer", "nesterov")
def nesterov(
    parameters: list, lr: float, weight_decay: float, momentum: Annotated[float, Range(above=0, high=1)] = 0.9
) -> Optimizer:
    """Stochastic gradient descent with Nesterov's momentum."""
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=True)


@register("optimizer", "rmsprop")
def rmsprop(
    parameters: list, lr: float, weight_decay: float, alpha: Fraction = 0.99, momentum: Fraction = 0.0
) -> Optimizer:
    """RMSprop; `alpha` smooths the squared gradients."""
    return torch.optim.RMSprop(parameters, lr=lr, weight_decay=weight_decay, alpha=alpha, momentum=momentum)


def timm_optimizer(name: str) -> Callable:
    def make(parameters: list, lr: float, weight_decay: float, momentum: Fraction = 0.9) -> Optimizer:
        try:
            return create_optimizer_v2(parameters, name, lr=lr, weight_decay=weight_decay, momentum=momentum)
        except (ImportError, AssertionError, RuntimeError) as error:
            reason = str(error) or "a package is missing"
            raise KitError(f"train.optimizer: timm can't make {name!r} here: {reason}") from None

    make.__doc__ = f"timm's {name}."
    return make


for _name in list_optimizers():
    if ("optimizer", _name) not in REGISTRY:
        register("optimizer", _name)(timm_optimizer(_name))


@dataclass(frozen=True, eq=False)
class Schedule:
    """A learning-rate schedule, stepped after every optimizer step or every epoch, with the metric that it watches."""

    scheduler: Any
    monitor: str | None = None
    every_step: bool = False

    def after_step(self) -> None:
        over = self.scheduler.last_epoch >= getattr(self.scheduler, "total_steps", math.inf) - 1
        if self.every_step and not over:  # an epoch may turn out longer than the first
            self.scheduler.step()

    def after_epoch(self, row: Mapping[str, float]) -> None:
        watched = [row[self.monitor]] if self.monitor else []
        if not self.every_step and not any(map(math.isnan, watched)):  # NaN: nothing was validated
            self.scheduler.step(*watched)


Decay = Annotated[float, Range(above=0, high=0.9999)]
Share = Annotated[float, Range(low=0, high=0.9)]


@register("schedule", "none")
def constant_schedule(optimizer: Optimizer) -> Schedule:
    """The same learning rate throughout."""
    return Schedule(lr_scheduler.ConstantLR(optimizer, factor=1.0))


@register("schedule", "plateau")
def plateau_schedule(
    optimizer: Optimizer, factor: Decay = 0.5, patience: Natural = 5, monitor: Metric = "val_loss"
) -> Schedule:
    """Multiplies the learning rate by `factor` when `monitor` has not improved for `patience` epochs."""
    mode = "min" if MEASURES[monitor].better == "lower" else "max"
    return Schedule(lr_scheduler.ReduceLROnPlateau(optimizer, mode, factor, patience), monitor)


@register("schedule", "step")
def step_schedule(optimizer: Optimizer, factor: Decay = 0.5, every: Count = 10) -> Schedule:
    """Multiplies the learning rate by `factor` every so many epochs."""
    return Schedule(lr_scheduler.StepLR(optimizer, every, factor))


@register("schedule", "exponential")
def exponential_schedule(optimizer: Optimizer, factor: Decay = 0.95) -> Schedule:
    """Multiplies the learning rate by `factor` every epoch."""
    return Schedule(lr_scheduler.ExponentialLR(optimizer, factor))


@register("schedule", "cosine")
def cosine_schedule(optimizer: Optimizer, epochs: int, t_max: Count | None = None) -> Schedule:
    """Half a cosine from the learning rate to zero within `t_max` epochs (null: all epochs)."""
    return Schedule(lr_scheduler.CosineAnnealingLR(optimizer, t_max or max(epochs, 1)))


@register("schedule", "onecycle")
def onecycle_schedule(
    optimizer: Optimizer, steps: int, lr: float, max_lr: Positive = 1e-3, warmup: Decay = 0.3
) -> Schedule:
    """Up to `max_lr` over the share `warmup` of all steps, then down to nearly nothing (Smith & Topin 2018)."""
    peaks = [max_lr * group["lr"] / lr for group in optimizer.param_groups]
    one = lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=max(steps, 2), pct_start=warmup)
    return Schedule(one, every_step=True)


def warm_up_then(optimizer: Optimizer, steps: int, warmup: float, fall: Callable[[float], float]) -> Schedule:
    """A rise from zero over the share `warmup` of the steps; then `fall` of how much of the rest is done, 0 to 1."""
    rising = warmup * steps

    def factor(step: int) -> float:
        if step < rising - 1:
            return (step + 1) / rising
        return fall(min(1.0, (step + 1 - rising) / max(steps - rising, 1)))

    return Schedule(lr_scheduler.LambdaLR(optimizer, factor), every_step=True)


@register("schedule", "linear")
def linear_schedule(optimizer: Optimizer, steps: int, warmup: Share = 0.1) -> Schedule:
    """A linear rise over the share `warmup` of all steps, then a linear fall to zero."""
    return warm_up_then(optimizer, steps, warmup, lambda done: 1 - done)


@register("schedule", "cosine_warmup")
def cosine_warmup_schedule(optimizer: Optimizer, steps: int, warmup: Share = 0.1) -> Schedule:
    """A linear rise over the share `warmup` of all steps, then half a cosine to zero."""
    return warm_up_then(optimizer, steps, warmup, lambda done: (1 + math.cos(math.pi * done)) / 2)


def best_epoch(history: Sequence[Mapping[str, float]], metric: str) -> int:
    """Position of the best row, the earliest of equals; the last where nothing was validated.

    loss_and_accuracy: of the rows in which both are better than in the one kept before, the last.
    """
    both = metric == "loss_and_accuracy"
    values = np.array([row["val_loss" if both else metric] for row in history if metric != "last"], float)
    if np.isnan(values).all():
        return len(history) - 1
    if not both:
        return int(np.nanargmin(values) if MEASURES[metric].better == "lower" else np.nanargmax(values))
    kept = 0
    for i, row in enumerate(history):
        if row["val_loss"] < history[kept]["val_loss"] and row["accuracy"] > history[kept]["accuracy"]:
            kept = i
    return kept


# several processes: each takes its part of every batch through the backbone; head and loss see the whole batch


def shard(positions: np.ndarray) -> np.ndarray:
    """What this process takes of a batch; all of it where there is less than one for each."""
    return np.array_split(positions, world_size())[rank()] if len(positions) >= world_size() else positions


def own_part(source: Source, positions: np.ndarray) -> np.ndarray:
    """What this process embeds of these images: its own part, or all where features are cheap."""
    return shard(positions) if isinstance(source, PixelSource) else positions


def gather_rows(computed: Tensor, total: int) -> Tensor:
    """All processes' rows of a batch of `total`, in order, from this one's `shard`."""
    if world_size() == 1:
        return computed
    if total < world_size():
        return computed if rank() == 0 else computed.detach()  # all computed all of it; one gradient is enough
    sizes = [len(part) for part in np.array_split(np.arange(total), world_size())]
    padded = computed.new_zeros(max(sizes), *computed.shape[1:])
    padded[: len(computed)] = computed.detach()
    gathered = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(gathered, padded)
    rows = [part[:size] for part, size in zip(gathered, sizes)]
    rows[rank()] = computed  # every process computes the same loss of all rows, so each keeps its own gradient
    return torch.cat(rows)


@contextmanager
def adding_gradients(parameters: Iterable[nn.Parameter], total: int) -> Iterator[None]:
    """Sums the gradients of parameters that saw only this process's part of a batch of `total` over all processes.

    Each is under way while backward, within the block, goes on to the next; at the end of the block all are there.
    """
    learning = [p for p in parameters if p.requires_grad] if world_size() > 1 else []
    sent: dict[nn.Parameter, Any] = {}

    def send(parameter: nn.Parameter) -> None:
        sent[parameter] = torch.distributed.all_reduce(parameter.grad, async_op=True)

    alike = total >= world_size()  # else the first process alone has a gradient, and the order would differ
    handles = [parameter.register_post_accumulate_grad_hook(send) for parameter in learning if alike]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for parameter in learning:
        if parameter not in sent:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            send(parameter)
    for work in sent.values():
        work.wait()


def any_rank(*flags: bool) -> list[bool]:
    """For each flag whether it is raised in any process; all must ask. It is told from CPU to CPU."""
    if world_size() == 1:
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.float32)
    torch.distributed.all_reduce(raised, op=torch.distributed.ReduceOp.MAX)
    return raised.bool().tolist()


# versions of weights, layers that learn, and the state of a checkpoint


def pack_state(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Nested state as JSON, its tensors moved into `tensors` under their place; `unpack_state` reverses it."""
    if isinstance(value, Tensor):
        tensors[place] = detached(value)
        return {"tensor": place}
    if isinstance(value, Mapping):
        return {"map": [[key, pack_state(v, f"{place}/{key}", tensors)] for key, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [pack_state(v, f"{place}/{i}", tensors) for i, v in enumerate(value)]}
    return value


def unpack_state(text: str, tensors: Mapping[str, Tensor]) -> Any:
    kinds = {"tensor": tensors.__getitem__, "map": dict, "list": list}

    def unpack(packed: dict[str, Any]) -> Any:
        [(kind, value)] = packed.items()
        return kinds[kind](value)

    return json.loads(text, object_hook=unpack)


def backbone_groups(embedder: Embedder, lr: float, layer_decay: float) -> list[dict[str, Any]]:
    """Parameters of the backbone that learn, with a learning rate that falls from the last layer to the first."""
    named = {name: p for name, p in embedder.backbone.named_parameters() if p.requires_grad}
    layers = layer_of_parameters(embedder.backbone) if named and layer_decay != 1 else dict.fromkeys(named, 0)
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in named.items():
        groups.setdefault(layers[name], []).append(parameter)
    last = max(layers.values(), default=0)
    return [{"params": learned, "lr": lr * layer_decay ** (last - layer)} for layer, learned in sorted(groups.items())]


def backbone_version(model: ModelConfig) -> str:
    """The hash of the file that a backbone's weights come from; "" where it is none of this machine."""
    path = find_backbone_weights(model.backbone, model.weights) if model.pretrained else None
    return "" if path is None else version_of(path)


def weights_version(recipe: Recipe) -> str:
    """Changes with the files of weights that a run begins with; "" where they are not all on this machine."""
    try:
        versions = [version_of(weights_path(path)) for path in (recipe.checkpoint, *recipe.soup) if path]
        versions += [] if brings_backbone(recipe) else [backbone_version(recipe.model)]
    except (KitError, OSError):
        return ""
    return fingerprint(versions) if any(versions) else ""


@lru_cache(maxsize=1)
def shared_backbone(asked: tuple, seed: int, version: str) -> tuple:
    """A frozen backbone, as `load_backbone` is asked for it, and the fingerprint of its weights.

    The runs of a grid share it; `version`: of its file.
    """
    seed_everything(seed)
    backbone = load_backbone(*asked)
    return backbone, module_fingerprint(backbone)


def stages_of(config: TrainConfig) -> tuple[Stage, ...]:
    return config.stages or (Stage(epochs=config.epochs),)


def out_of_patience(rows: Sequence[Mapping[str, float]], config: TrainConfig) -> bool:
    rows = rows[config.patience_from :]
    if not config.patience or not rows or math.isnan(rows[-1][config.monitor]):
        return False
    return len(rows) - 1 - best_epoch(rows, config.monitor) >= config.patience


def class_logits(loss: nn.Module, embeddings: Tensor) -> Tensor | None:
    """(B, C), where the loss has a class for every identity; None where it compares images."""
    logits = getattr(loss, "logits", None)
    return None if logits is None else logits(full_precision(embeddings))


@torch.no_grad()
def classifier_metrics(
    loss: IdentityLoss, embeddings: Tensor, labels: Tensor, batch: int | None = None
) -> dict[str, float]:
    """Loss and accuracy on the images whose identity is one that is learned; NaN where there is none, or no class.

    batch: the loss is the mean over batches of that size, of whose pairs a loss on pairs sees no others.
    """
    embeddings, labels = embeddings[labels >= 0], labels[labels >= 0]
    if not len(labels):
        return {"val_loss": math.nan, "accuracy": math.nan}
    logits = class_logits(loss, embeddings)
    accuracy = math.nan if logits is None else float((logits.argmax(1) == labels).double().mean())
    parts = zip(embeddings.split(batch or len(labels)), labels.split(batch or len(labels)))
    return {"val_loss": float(np.mean([float(loss(*part)) for part in parts])), "accuracy": accuracy}


def mining_of(geometry: Geometry, embeddings: Tensor, labels: Tensor, met: Tensor | None = None) -> Tensor:
    """What a batch offers to learn from, summed over its images that have another one of their identity there (5,).

    Images whose nearest other shows their identity; all; the similarity of the least similar of their identity and of
    the most similar of others; and where `met` (B,) tells encounters, those whose least similar is of their own.
    """
    points = geometry.project(embeddings.detach())
    similarity = geometry.similarity(points, points).double().fill_diagonal_(-torch.inf)
    positive, negative = same_identity(labels)
    paired = positive.any(1)
    agrees = (labels[similarity.argmax(1)] == labels) & paired
    hardest, least = similarity.masked_fill(~positive, torch.inf).min(1)
    nearest = similarity.masked_fill(~negative, -torch.inf).amax(1)
    apart = paired & negative.any(1)
    again = torch.zeros_like(paired) if met is None else (met[least] == met) & paired
    sums = (agrees, paired, torch.where(paired, hardest, 0), torch.where(apart, nearest, 0), again)
    return torch.stack([one.sum().double() for one in sums])


def mixed_loss(loss: nn.Module, embeddings: Tensor, labels: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """Each image's loss under its own label and under its partner's, weighted by the shares (B,) of the two."""
    both = torch.cat([labels, labels[partner]])
    return 2 * loss(torch.cat([embeddings, embeddings]), both, torch.cat([share, 1 - share]))


def even_out(batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same rows in as many batches, whose sizes differ by one at most: a backbone sees two shapes at most."""
    uneven = len({len(batch) for batch in batches}) > 1
    return np.array_split(np.concatenate(batches), len(batches)) if uneven else list(batches)


def cut_micro_batches(batch: np.ndarray, size: int | None) -> list[np.ndarray]:
    """A batch in equal parts that go through the backbone at a time, in each process of `size` images at most."""
    return np.array_split(batch, math.ceil(len(batch) / (size * world_size()))) if size else [batch]


def before_the_batch(embedder: Embedder) -> list[nn.Parameter]:
    """Parameters of what sees each image alone: the backbone's, and the pooling's but for what finishes a batch."""
    behind = set(embedder.pooling.finishing())
    return [p for m in (embedder.backbone, embedder.pooling) for p in m.parameters() if p not in behind]


def changing_buffers(modules: Iterable[nn.Module]) -> list[tuple[Tensor, Tensor]]:
    """The modules' buffers, such as batch norm's statistics, each with a copy of what it holds now."""
    return [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]


@torch.no_grad()
def put_back(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    for buffer, before in buffers:
        buffer.copy_(before)


SMALLEST_SCALE = 2.0**-6  # of the loss in fp16: reached from 2**16 by 22 steps in a row that were skipped


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that was in use: the GPU's, or the process's where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


# a run


def tracking(recipe: Recipe, folder: Path) -> Any:
    """Gives, within a block, a function that hands a row of the log to the tracker that the recipe asks for, if any."""
    if recipe.train.track == "none" or rank() > 0 or not rooms_for(f"train.track: {recipe.train.track} is left out"):
        return nullcontext()
    return room("experiments.tracking").tracking(recipe, folder)


@dataclass(frozen=True, eq=False)
class Task:
    """What a trainer learns from: where inputs come from, labels, and who trains and validates."""

    pixels: PixelSource
    source: Source  # the pixels, or a frozen backbone's features, of validation and test images too
    stages: tuple[Source, ...]  # of training images, one for each stage
    labels: Tensor  # (N,) int64 on the CPU, by store position of training images
    train: np.ndarray  # positions
    validation: np.ndarray  # positions; empty where all images train
    encounters: np.ndarray | None = None  # of the validation images, where some share one
    met: Tensor | None = None  # encounters by store position of the images with a label, likewise
    at_size: Callable[[int], ImageStore] | None = None  # all images in squares of another size
    evaluated: tuple[Source, ...] = ()  # where validation images are stored as a stage's: what it evaluates, by stage

    def evaluated_at(self, stage: int) -> Source:
        return self.evaluated[stage] if self.evaluated else self.source


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Images of a batch that go through the backbone at a time: those of this process, and how many of all."""

    images: Tensor
    total: int
    seeds: tuple[int, ...]


@dataclass(eq=False)
class Trainer:
    """One training run, to be read from `fit` downwards; everything that changes goes into its checkpoint."""

    recipe: Recipe
    embedder: Embedder
    loss: nn.Module
    optimizer: Optimizer
    task: Task
    deadline: float = math.inf  # by time.monotonic()
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)  # the learned tensors of the best epoch
    average: dict[str, Tensor] = field(default_factory=dict)  # moving average of the learned tensors, where asked for
    epoch_so_far: dict[str, Any] = field(default_factory=dict)  # sums over the steps of an epoch that is not over
    seconds: float = 0.0  # spent, over all sessions
    stopped: str = ""  # why training ended before its time
    stage: int = 0  # that of the epoch that is trained, or of the weights that are evaluated
    embedded_per_second: float = math.nan  # images, where the backbone sees those that validate

    @staticmethod
    def make_optimizer(config: TrainConfig, embedder: Embedder, loss: nn.Module) -> Optimizer:
        """The optimizer of all that learns: head, pooling, loss, and what of the backbone does."""
        head = [*embedder.head.parameters(), *embedder.pooling.parameters(), *loss.parameters()]
        groups = [{"params": head}, *backbone_groups(embedder, config.lr * config.backbone_lr, config.layer_decay)]
        if config.epochs and not any(p.requires_grad for group in groups for p in group["params"]):
            raise KitError("train.epochs: nothing learns (expected train.epochs: 0, a head, or model.freeze: false)")
        return config.optimizer.build(parameters=groups, lr=config.lr, weight_decay=config.weight_decay)

    def __post_init__(self) -> None:
        config = self.recipe.train
        self.epochs = sum(stage.epochs for stage in stages_of(config))  # at most
        steps = self.epochs * math.ceil(len(self.batches(1)) / config.accumulate)
        self.schedule = config.schedule.build(optimizer=self.optimizer, epochs=self.epochs, steps=steps, lr=config.lr)
        self.precision = precision_of(config.precision, self.device)  # of mixed precision; None: fp32
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.micro_batch = config.micro_batch  # images in the backbone at a time; None: the whole batch

    @property
    def device(self) -> torch.device:
        modules = (self.embedder.head, self.loss, self.embedder)
        return next((p for module in modules for p in module.parameters()), torch.zeros(0)).device

    # the loop: epochs, steps, gradients

    def fit(self, folder: Path, epoch_ended: Callable[[Mapping[str, float]], None] | None = None) -> None:
        """Trains to the end, to early stopping or to the deadline; goes on from the checkpoint of an interrupted run.

        `epoch_ended` is told every row of the log, and may end the run by an error. Afterwards `best` holds the learned
        tensors of the best epoch and `history` a row for each epoch, the first (epoch 0) measured before training.
        """
        config, checkpoint, begun = self.recipe.train, folder / "checkpoint.safetensors", time.monotonic()
        if checkpoint.is_file():
            self.load(checkpoint)
            for row in self.history[1:] if epoch_ended else ():  # it must know what went before
                epoch_ended(row)
            echo(f"  going on after epoch {self.history[-1]['epoch']} from {checkpoint}")
        else:
            self.fit_head()
            self.update_average()
            nothing = {"epoch": 0, "train_loss": math.nan, "batch_top1": math.nan}
            measured = {**self.validate()[0], **self.learned_exponent(), **self.plain_map()}
            self.history, self.best = [{**nothing, **measured, "lr": config.lr}], self.learned()
        validating, written, spoken = time.monotonic() - begun, 0.0, time.monotonic()
        until = begun + 0.97 * (self.deadline - begun) - 4 * validating  # the rest is for what comes behind training
        keeper = Checkpointer(self, checkpoint, config.checkpoint_minutes, until)
        with on_sigterm(self.end_soon), tracking(self.recipe, folder) as track:
            while (stage := self.next_stage()) is not None:
                begun, epoch, self.stage = time.monotonic(), self.history[-1]["epoch"] + 1, stage
                trained = self.train_epoch(epoch, stage, keeper.after_step)
                metrics, embeddings = self.validate()
                seconds = time.monotonic() - begun
                row = {"epoch": epoch, **({"stage": stage} if config.stages else {}), **trained, **metrics}
                row.update(self.learned_exponent(), **self.where_embeddings_lie(embeddings), seconds=seconds)
                self.history.append(row)
                self.seconds += seconds
                if best_epoch(self.history[1:], config.select) == len(self.history) - 2:
                    self.best = self.learned()
                for listener in filter(None, (self.schedule.after_epoch, track, epoch_ended)):
                    listener(row)
                if rank() == 0 and time.monotonic() - written > 1:
                    write_table(folder / "log.csv", pd.DataFrame(self.history))
                    written = time.monotonic()
                if time.monotonic() - spoken > (1 if is_watched() else 30):
                    echo(f"    {'/'.join(folder.parts[-2:])} {self.epoch_words()}")
                    spoken = time.monotonic()
                if self.stopped == "max_hours":  # the epoch that was cut short has its checkpoint
                    echo(f"  stopped in epoch {epoch}: train.max_hours is nearly over")
                    break
                keeper.after_epoch()

    def epoch_words(self) -> str:
        """How far training is, and how good, in a line."""
        row, trained = self.history[-1], self.history[1:]
        best = trained[best_epoch(trained, self.recipe.train.select)]
        left = (self.epochs - row["epoch"]) * self.seconds / len(trained)
        across = "" if math.isnan(row["map_across"]) else f", across encounters {row['map_across']:.4f}"
        return (
            f"epoch {row['epoch']}: loss {row['train_loss']:.4f}, validation {row['val_loss']:.4f}, mAP "
            f"{row['map']:.4f}{across} (best {best['map']:.4f} in epoch {best['epoch']}), "
            f"{row['images_per_second']:,.0f} images/s, at most {duration(left)} left"
        )

    def end_soon(self) -> None:
        """What a SIGTERM does, as a machine that is shut down sends it: the step ends, and a checkpoint is written."""
        self.stopped = self.stopped or "SIGTERM"

    def next_stage(self) -> int | None:
        """The stage that the next epoch belongs to; None when training is over."""
        config, trained = self.recipe.train, self.history[1:]
        stages, begun = stages_of(config), int(trained[-1].get("stage", 0)) if trained else 0
        for stage in range(begun, len(stages)):
            rows = [row for row in trained if row.get("stage", 0) == stage]
            tired = out_of_patience(rows, config)
            if len(rows) < stages[stage].epochs and not tired:
                return stage
            if tired and config.patience_ends == "run":
                break
        return None

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, the same whenever they are asked for."""
        rows, rng = self.task.train, np.random.default_rng((self.recipe.seed, epoch))
        codes = self.task.labels[torch.from_numpy(rows)].numpy()
        sampler, encounters = self.recipe.train.sampler, []
        if "met" in parameters_of(lookup("sampler", sampler.name)):
            encounters = [rows if self.task.met is None else self.task.met[torch.from_numpy(rows)].numpy()]
        drawn = sampler(rows, codes, self.recipe.train.batch_size, rng, *encounters)
        return [np.ascontiguousarray(batch, np.int64) for batch in drawn]

    def train_epoch(self, epoch: int, stage: int, step_ended: Callable[[], bool]) -> dict[str, float]:
        """One pass over the training images, or what is left of one; what the log says of it.

        `step_ended` is called after every step of the optimizer, when a checkpoint may be taken, and says whether to
        stop here.
        """
        self.embedder.train()
        self.loss.train()
        source, batches = self.task.stages[stage].of_epoch(epoch), self.batches(epoch)
        batches = even_out(batches) if isinstance(source, PixelSource) else batches
        every = self.recipe.train.accumulate  # batches to a step
        if not self.epoch_so_far:
            start = {"epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"], "step": 0}
            self.epoch_so_far = {**start, "sums": torch.zeros(0, 6, dtype=torch.float64), "new": [], "norms": []}
        sums, begun, waiting, images = self.epoch_so_far, time.monotonic(), 0.0, 0
        ahead = batches[sums["step"] :]
        cut = [cut_micro_batches(batch, self.micro_batch) for batch in ahead]
        read = [np.concatenate([own_part(source, part) for part in parts]) for parts in cut]  # of each micro-batch
        reading, bar = read_ahead(source, read), progress(ahead, f"epoch {epoch}")
        while sums["step"] < len(batches):
            before, first = time.monotonic(), sums["step"]
            group = [(first + i, batch, next(reading)) for i, batch in enumerate(batches[first : first + every])]
            waiting += time.monotonic() - before
            sums["new"] += self.backward_that_fits(source, group, epoch)
            sums["norms"].append(self.optimizer_step())
            sums["step"] += len(group)
            images += sum(len(positions) for _, positions, _ in group)
            bar.update(len(group))
            if len(sums["new"]) >= 50:
                self.check_losses()
            if step_ended():
                break
        bar.close()
        self.check_losses()
        self.synchronise()
        spent, self.epoch_so_far = time.monotonic() - begun, {}
        sizes = torch.tensor([len(b) for b in batches[: sums["step"]]], dtype=torch.float64)
        offered = sums["sums"][:, 1:].sum(0)
        agreeing, _, hardest, nearest, again = (offered / offered[1]).tolist()  # NaN: no image had another one there
        norms = np.array([float(norm) for norm in sums["norms"]])
        return {
            "train_loss": float((sums["sums"][:, 0] * sizes).sum() / sizes.sum()),
            "batch_top1": agreeing,
            "hardest_positive": hardest,
            "hardest_negative": nearest,
            "hardest_met": math.nan if self.task.met is None else again,
            "lr": sums["lr"],
            "grad_norm": mean_or_nan(np.where(np.isfinite(norms), norms, math.nan)),
            "steps_skipped": int((~np.isfinite(norms)).sum()),
            "images_per_second": images / spent,
            "data_seconds": waiting,
            "compute_seconds": spent - waiting,
            "memory_mb": peak_memory_mb(self.device),
        }

    def optimizer_step(self) -> Tensor:
        """One step of optimizer, schedule and moving average; the norm of the gradients before clipping."""
        self.scaler.unscale_(self.optimizer)
        parameters, longest = self.learning_parameters(), self.recipe.train.clip_norm
        if longest is None and hasattr(nn.utils, "get_total_norm"):  # since torch 2.6; spares a multiplication by one
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        else:
            norm = nn.utils.clip_grad_norm_(parameters, longest or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.after_step()
        self.update_average()
        return norm.detach().double()

    def learning_parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def backward_that_fits(self, source: Source, group: Sequence[tuple], epoch: int) -> list[Tensor]:
        """`backward`, begun anew with half as many images at a time as often as the memory does not suffice.

        What a failed try changed, such as batch norm's and AdaFace's statistics, is undone.
        """
        embedder = self.embedder
        changing = (embedder.pooling, embedder.head, self.loss, *(() if embedder.frozen else (embedder.backbone,)))
        while True:
            buffers = changing_buffers(changing)
            try:
                return self.backward(source, group, epoch)
            except OutOfMemoryError:
                size = self.micro_batch or self.recipe.train.batch_size
                if size < 4 or world_size() > 1:
                    where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "this machine"
                    raise KitError(
                        f"train.micro_batch: {size} images at a time do not fit the memory of {where}; try "
                        f"{max(size // 2, 2)}, model.gradient_checkpointing: true or a smaller model.input_size"
                    ) from None
            put_back(buffers)
            self.optimizer.zero_grad(set_to_none=True)
            self.micro_batch = math.ceil(size / 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            echo(f"  out of memory: {self.micro_batch} images at a time go through the backbone from now on")

    def backward(self, source: Source, group: Sequence[tuple[int, np.ndarray, Tensor]], epoch: int) -> list[Tensor]:
        """Gradients of the batches (step, positions, images) of one optimizer step, each weighted by its size.

        Gives for each its loss and the sums of `mining_of`, float64 (6,).
        """
        total, found = sum(len(positions) for _, positions, _ in group), []
        for number, (step, positions, images) in enumerate(group, 1):
            known = [self.task.labels, *([] if self.task.met is None else [self.task.met])]
            labels = [one[torch.from_numpy(positions)].to(self.device, non_blocking=True) for one in known]
            parts, used = [], 0
            for part in cut_micro_batches(positions, self.micro_batch):
                tensors = images[used : used + len(own_part(source, part))]
                parts.append(MicroBatch(tensors, len(part), (self.recipe.seed, epoch, step, *([used] if used else []))))
                used += len(tensors)
            loss, agrees = self.backward_batch(source, parts, labels, len(positions) / total, number == len(group))
            found.append(torch.cat([loss.detach().double()[None], agrees]))
        return found

    def backward_batch(
        self, source: Source, parts: Sequence[MicroBatch], labels: Sequence[Tensor], weight: float, last: bool
    ) -> tuple[Tensor, Tensor]:
        """Loss of a batch, what `mining_of` says of it, and its gradients, weighted.

        Where it goes through the backbone part by part, the loss is that of the whole batch all the same. The backbone
        runs twice then (gradient caching, Gao et al. 2021): without gradients, for the loss and its gradient at the
        pooled vectors of the whole batch, then with them, each part taking on its share of that gradient.

        last: of the batches of a step, after which the processes add up their gradients.
        """
        embedder, shared, whole = self.embedder, isinstance(source, PixelSource), len(parts) == 1
        split = before_the_batch(embedder) if shared and last else []  # what sees only this process's part of a batch
        with torch.set_grad_enabled(whole):
            seen = [self.pool(source, part) for part in parts]
            vectors = [gather_rows(pooled, part.total) if shared else pooled for (pooled, _), part in zip(seen, parts)]
        pooled, mixed = vectors[0], seen[0][1]
        if not whole:
            pooled = torch.cat(vectors).requires_grad_()
        if not whole and mixed:
            starts = np.cumsum([0, *(part.total for part in parts)]).tolist()
            partners = [mix[0] + start for (_, mix), start in zip(seen, starts)]  # they are counted within a part
            mixed = [torch.cat(partners), torch.cat([mix[1] for _, mix in seen])]
        if not whole or (shared and world_size() > 1):
            seed_everything(*parts[0].seeds)  # what is shared draws the same everywhere
        loss, agrees = self.loss_of_pooled(pooled, labels, mixed)
        with adding_gradients(split if whole else [], parts[0].total):
            self.scaler.scale(loss * weight).backward()
        if whole or not any(p.requires_grad for p in before_the_batch(embedder)):
            return loss, agrees
        buffers = changing_buffers((embedder.backbone, embedder.pooling))  # the first pass has moved batch norm's
        for part, gradient in zip(parts, pooled.grad.split([part.total for part in parts])):
            if shared and len(gradient) >= world_size():
                gradient = gradient.tensor_split(world_size())[rank()]  # as `shard` does
            elif shared and rank() > 0:
                gradient = gradient[:0]  # the first process alone counts
            with adding_gradients(split if part is parts[-1] else [], part.total):
                if len(gradient):
                    self.pool(source, part)[0].backward(gradient)
        put_back(buffers)
        return loss, agrees

    def pool(self, source: Source, part: MicroBatch) -> tuple[Tensor, list[Tensor]]:
        """Pooled vectors (B, D) of a part, and partners and shares (B,) where its images are mixed."""
        seed_everything(*part.seeds, *([rank()] if rank() else []))  # each process draws for its own images
        inputs, mixed = source.prepare(part.images, training=True), []
        if self.recipe.train.mixes:
            inputs, *mixed = self.recipe.train.mix(inputs)
        with mixed_precision(inputs.device, self.precision):
            pool = self.embedder.pooled if isinstance(source, PixelSource) else self.embedder.pooling.pool
            return pool(inputs), mixed

    def loss_of_pooled(
        self, pooled: Tensor, labels: Sequence[Tensor], mixed: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The loss of a whole batch (B, D), and what `mining_of` says of it (nothing of mixed images).

        labels: identities (B,), and encounters where they are told.
        """
        with mixed_precision(pooled.device, self.precision):
            before, embeddings = self.embedder.around_neck(pooled)
        if mixed:
            return mixed_loss(self.loss, embeddings, labels[0], *mixed), labels[0].new_zeros(5)
        given = {"before": before} if any(getattr(one, "before_neck", False) for one in self.loss.modules()) else {}
        loss = self.loss(embeddings, labels[0], **given)
        return loss, mining_of(self.embedder.geometry, embeddings, *labels)

    def check_losses(self) -> None:
        """Moves what the last steps measured to the CPU; TrainingFailed names the first loss that is not a number.

        It is raised too where fp16 gives no gradients that could be used.
        """
        sums, fp16 = self.epoch_so_far, self.scaler.is_enabled()
        if not sums or not sums["new"]:
            return
        values = torch.stack(sums["new"]).cpu()
        wrong = torch.nonzero(~torch.isfinite(values[:, 0]))
        if len(wrong):
            raise TrainingFailed(
                f"{self.recipe.name}: the loss is no longer a number in epoch {sums['epoch']}, step "
                f"{len(sums['sums']) + int(wrong[0]) + 1}; lower train.lr (now {self.recipe.train.lr:g})"
                + (" or set train.precision: fp32" if fp16 else "")
            )
        if fp16 and self.scaler.get_scale() < SMALLEST_SCALE:
            raise TrainingFailed(
                f"{self.recipe.name}: the gradients are no numbers in fp16 at any scale, so that nothing is learned; "
                "set train.precision: fp32"
            )
        sums["sums"], sums["new"] = torch.cat([sums["sums"], values]), []
        sums["norms"] = [norm.cpu() for norm in sums["norms"]]

    def synchronise(self) -> None:
        """Makes all processes' models one again: batch norm saw its own part only, and kernels may round otherwise."""
        if world_size() == 1:
            return
        buffers = [*self.embedder.backbone.buffers(), *self.embedder.pooling.buffers()]
        for tensor in [*buffers, *self.average.values()]:  # whose buffers followed those of this process
            if tensor.is_floating_point():
                torch.distributed.all_reduce(tensor)
                tensor /= world_size()
        for tensor in [*self.live().values(), *self.average.values()]:
            torch.distributed.broadcast(tensor, 0)

    # evaluation

    def validate(self) -> tuple[dict[str, float], Tensor]:
        """Metrics of the validation images as their own gallery (NaN without any), and their embeddings (N, D)."""
        if not len(self.task.validation):
            return dict.fromkeys(METRICS, math.nan), torch.zeros(0, self.embedder.embedding_dim)
        self.embedder.eval()
        self.loss.eval()
        with self.averaged():
            source, begun = self.task.evaluated_at(self.stage), time.monotonic()
            embeddings = self.embed_shared(self.task.validation, source)
            if isinstance(source, PixelSource):
                self.embedded_per_second = len(embeddings) / (time.monotonic() - begun)
            if not torch.isfinite(embeddings).all():
                raise TrainingFailed(
                    f"{self.recipe.name}: the validation embeddings are no longer numbers in epoch "
                    f"{len(self.history)}; lower train.lr (now {self.recipe.train.lr:g})"
                )
            labels = self.task.labels[torch.from_numpy(self.task.validation)]
            seen = embeddings.to(self.device), labels.to(self.device)
            found = classifier_metrics(self.loss, *seen, self.recipe.train.loss_batch)
            similarity = similarity_matrix(embeddings, geometry=self.embedder.geometry)
            found.update(retrieval_metrics(similarity, labels), map_across=math.nan)
            if self.task.encounters is not None:
                found["map_across"] = identity_balanced_map(similarity, labels, self.task.encounters)
        return {metric: found[metric] for metric in METRICS}, embeddings

    def without_head(self, positions: np.ndarray) -> Tensor:
        """Pooled features (N, D) of the images at these positions."""
        embedder = self.embedder
        whole = embedder.head, embedder.geometry
        embedder.head, embedder.geometry = nn.Identity(), Cosine()
        try:
            return self.embed_shared(positions, self.task.evaluated_at(self.stage))
        finally:
            embedder.head, embedder.geometry = whole

    def fit_head(self) -> None:
        """Fits a head that is fitted, not learned, to the training images."""
        rows, head = torch.from_numpy(self.task.train), self.embedder.head
        if hasattr(head, "fit_where_better"):
            met = None if self.task.met is None else self.task.met[rows].numpy()
            features, codes = self.without_head(self.task.train).float(), self.task.labels[rows].numpy()
            if why := head.cpu().fit_where_better(features, codes, met):
                echo(f"  note: model.head: {self.recipe.model.head.name} is left out: {why}")
            head.to(next(self.embedder.backbone.parameters()).device)

    def plain_map(self) -> dict[str, float]:
        """mAP of the pooled features by their cosine, without any head: what training is to add to."""
        positions = self.task.validation
        if not len(positions):
            return {"plain_map": math.nan, "plain_map_across": math.nan}
        similarity = similarity_matrix(self.without_head(positions))
        labels = self.task.labels[torch.from_numpy(positions)]
        found = by_kind(identity_balanced_map, similarity, labels, self.task.encounters)
        return {f"plain_map{kind}": value for kind, value in found.items()}

    @property
    def network(self) -> Callable[[Tensor], Tensor]:
        """From prepared images to embeddings, in the trainer's precision."""
        return in_precision(self.embedder, self.precision)

    def embed(self, positions: np.ndarray, source: Source | None = None, **settings: Any) -> Tensor:
        """Embeddings (N, D) of what a source, the task's unless another is given, has at these positions."""
        source = source or self.task.source
        network = self.embedder if isinstance(source, PixelSource) else self.embedder.from_features
        return embed(in_precision(network, self.precision), source, positions, **settings)

    def embed_shared(self, positions: np.ndarray, source: Source) -> Tensor:
        """`embed`, each process having embedded its own part."""
        if not isinstance(source, PixelSource):
            return self.embed(positions, source, batch_size=1024)
        part = self.embed(shard(positions), source)
        return part if len(part) == len(positions) else gather_rows(part.to(self.device), len(positions)).cpu()

    def retrieval(self, positions: np.ndarray, embeddings: Tensor, encounters: np.ndarray | None) -> Retrieval:
        """What post-processing may look at of the images at `positions`, whose embeddings are (N, D)."""
        pixels, geometry = self.task.pixels, self.embedder.geometry

        @cache  # several candidates for post-processing begin with the same views
        def views(scales: tuple[float, ...], flip: bool) -> Tensor:
            averaged = partial(multi_scale_tta, self.network, scales=scales, flip=flip, geometry=geometry)
            return embed(averaged, pixels, positions)

        @torch.no_grad()
        def logits(vectors: Tensor) -> Tensor:
            return class_logits(self.loss, vectors.to(self.device)).cpu()

        names_them = class_logits(self.loss, embeddings[:1].to(self.device)) is not None
        return Retrieval.of(
            embeddings,
            views,
            geometry,
            logits if names_them else None,
            lambda size: self.task.at_size(size).subset(positions),
            pixels.device,
            cache(lambda: self.embed(self.task.train)),
            encounters,
        )

    def where_embeddings_lie(self, embeddings: Tensor) -> dict[str, float]:
        """Mean norm of validation embeddings (N, D), and in a Poincare ball how near the outermost is to the rim."""
        if not len(embeddings):
            return {"embedding_norm": math.nan}
        norm, geometry = embeddings.norm(dim=1), self.embedder.geometry
        rim = {"distance_to_rim": float(1 / geometry.c - norm.max())} if isinstance(geometry, Poincare) else {}
        return {"embedding_norm": float(norm.mean()), **rim}

    def learned_exponent(self) -> dict[str, float]:
        """The exponent that a GeM pooling has come to."""
        gem = next((module for module in self.embedder.pooling.modules() if isinstance(module, GeM)), None)
        return {} if gem is None else {"gem_p": float(gem.exponent.detach())}

    # state: what is learned, its average, and the checkpoint

    def live(self) -> dict[str, Tensor]:
        """All that training changes: head, loss, and what of the backbone learns, buffers included."""
        fixed = "backbone." if self.embedder.frozen else "\0"
        state = {f"embedder.{k}": v for k, v in self.embedder.state_dict().items() if not k.startswith(fixed)}
        return {**state, **{f"loss.{k}": v for k, v in self.loss.state_dict().items()}}

    def learned(self) -> dict[str, Tensor]:
        """Copies of `live`, or of its moving average."""
        return {key: detached(value) for key, value in (self.average or self.live()).items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.embedder.load_state_dict(tensors_below("embedder.", tensors), strict=False)
        self.loss.load_state_dict(tensors_below("loss.", tensors), strict=False)

    def update_average(self) -> None:
        decay = self.recipe.train.ema
        for key, value in self.live().items() if decay else ():
            if key not in self.average or not value.is_floating_point():
                self.average[key] = value.detach().clone()
            else:
                self.average[key].lerp_(value.detach().to(self.average[key]), 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the modules hold the moving average, where there is one."""
        if not self.average:
            yield
            return
        live = {key: value.detach().clone() for key, value in self.live().items()}
        self.restore(self.average)
        try:
            yield
        finally:
            self.restore(live)

    def save(self, path: Path) -> None:
        kept = ("best", "average", "history", "seconds", "micro_batch")
        parts = {"optimizer": self.optimizer, "scaler": self.scaler, "schedule": self.schedule.scheduler}
        state = {name: getattr(self, name) for name in kept} | {key: part.state_dict() for key, part in parts.items()}
        state |= {"learned": self.live(), "partial": self.epoch_so_far}
        state["backbone"] = backbone_sha256(self.embedder.backbone) if self.embedder.frozen else ""
        tensors: dict[str, Tensor] = {}
        packed = pack_state(state, "", tensors)
        save_tensors(path, tensors, {"state": json.dumps(packed)})

    def load(self, path: Path) -> None:
        """Goes on from a checkpoint; KitError where it is damaged, of other settings, or of another frozen backbone."""
        try:
            tensors, metadata = load_safetensors(path)
            state = unpack_state(metadata["state"], tensors)
            self.load_state(state)
        except KitError as error:
            raise KitError(f"{error}; remove it to begin this run anew, or use --force") from None
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise damaged(path, f"no checkpoint of this run ({error})", "remove it to begin this run anew") from None
        known = backbone_sha256(self.embedder.backbone) if self.embedder.frozen else ""
        if state.get("backbone", known) != known:
            raise KitError(
                f"{path}: the weights of backbone {self.recipe.model.backbone!r} are others than this run began with; "
                "give them back (model.weights), or begin anew with --force"
            )

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.restore(state["learned"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, moments in self.optimizer.state.items():
            for key, value in moments.items():  # laid out in memory as their parameters are, for fused steps
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    moments[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        self.schedule.scheduler.load_state_dict(state["schedule"])
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.average = {key: value.to(self.device) for key, value in state["average"].items()}
        self.best, self.history, self.epoch_so_far = state["best"], state["history"], state["partial"]
        self.seconds = state["seconds"]
        sizes = [size for size in (self.micro_batch, state["micro_batch"]) if size]
        self.micro_batch = min(sizes, default=None)  # what was found to fit, or less where the recipe says so
        if not all(isinstance(row, Mapping) and "epoch" in row and "map" in row for row in self.history):
            raise ValueError("its history lacks epochs")


@dataclass(eq=False)
class Checkpointer:
    """Takes checkpoints: at least every so many minutes, yet so that they cost at most a fiftieth of the time.

    Takes one too where the process is told to end, or time is over.
    """

    trainer: Trainer
    path: Path
    minutes: float  # 0: only between epochs
    until: float = math.inf  # by time.monotonic(), when training must stop
    saving: float = 0.0  # seconds that the last one took
    saved: float = field(default_factory=time.monotonic)

    def keep(self) -> None:
        self.trainer.check_losses()  # a checkpoint must not hold what can't go on
        if rank() == 0:
            begun = time.monotonic()
            self.trainer.save(self.path)
            self.saving = time.monotonic() - begun
        self.saved = time.monotonic()

    def save_or_stop(self, due: bool, late: bool = False) -> bool:
        """A checkpoint where one is due; whether time is over.

        A SIGTERM (`Trainer.end_soon`) lets the step end; then a checkpoint is taken here in any case, and
        KeyboardInterrupt ends the process, with exit code 130.
        """
        due = due and rank() == 0 and time.monotonic() - self.saved >= 50 * self.saving
        ended, late, due = any_rank(self.trainer.stopped == "SIGTERM", late, due)
        if late and not ended:
            self.trainer.stopped = "max_hours"  # from here the same command goes on, when there is time again
        if ended or late or due:
            self.keep()
        if ended:
            raise KeyboardInterrupt
        return late

    def after_step(self) -> bool:
        """Whether to stop here."""
        due = self.minutes > 0 and time.monotonic() - self.saved >= 60 * self.minutes
        return self.save_or_stop(due, late=time.monotonic() > self.until)

    def after_epoch(self) -> None:
        self.save_or_stop(due=True)


# trained weights


def save_weights(
    path: Path, trainer: Trainer, identities: Sequence[str], metrics: Mapping[str, float], trained: Iterable[str] = ()
) -> None:
    """The best epoch's tensors with recipe, identities and metrics as metadata.

    A frozen backbone is left out when its weights are those of a file or the hub, to be read from there again.
    """
    tensors, recipe, backbone = dict(trainer.best), trainer.recipe, trainer.embedder.backbone
    if trainer.embedder.frozen and (recipe.checkpoint or not recipe.model.pretrained):
        tensors |= {f"embedder.backbone.{k}": detached(v) for k, v in backbone.state_dict().items()}
    cfg, size = backbone.pretrained_cfg, recipe.model.input_size or native_size(backbone)
    metadata = {
        "recipe": without_passwords(recipe_to_dict(recipe)),
        "identities": list(identities),
        "metrics": metrics,
        "trained": sorted({*trained, *trainer.embedder.trained_before}),
        "normalisation": {"mean": list(cfg["mean"]), "std": list(cfg["std"]), "input_size": [3, size, size]},
        "backbone_sha256": "" if holds_backbone(tensors) else backbone_sha256(backbone),  # to be found beside these
    }
    as_text = {key: json.dumps(value) for key, value in metadata.items()}
    save_tensors(path, tensors, {"format": "jaguar_kit 1", **as_text})


def weights_path(path: str | Path) -> Path:
    """The weights file of a trained run, from its folder or its own name; on Kaggle also from what is mounted."""
    path = Path(path)
    file = path / "weights.safetensors" if path.is_dir() or not path.suffix else path
    mounted = [] if file.is_file() or file.is_absolute() else find_mounted(glob_escape(file.name))
    return next((p for p in mounted if p.parts[-len(file.parts) :] == file.parts), file)


NAMED = Whole(name=str)
SHAPE_OF_WEIGHTS = {  # of what a run's weights tell
    "recipe": Whole(model=Whole(backbone=str, pooling=NAMED, geometry=NAMED), loss=NAMED),
    **{key: [str] for key in ("identities", "trained")},
}


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a trained run: its folder, or its weights.safetensors.

    Metadata: recipe, identities, metrics; and what files of earlier versions lack: trained (paths of the images that
    it has seen in training), normalisation (mean, std, input_size), and backbone_sha256 of a frozen backbone that is
    needed beside it.
    """
    tensors, metadata = load_safetensors(weights_path(path))
    if metadata.get("format") != "jaguar_kit 1":
        raise KitError(f"{path}: not written by a run of this kit (for a backbone's weights use model.weights)")
    try:
        lacking = {"normalisation": '""', "backbone_sha256": '""', "trained": "[]"}  # in files of earlier versions
        known = ("recipe", "identities", "metrics", *lacking)
        facts = {key: json.loads({**lacking, **metadata}[key]) for key in known}
        if wrong := misfit(facts, SHAPE_OF_WEIGHTS, ""):
            raise ValueError(wrong)
    except (ValueError, KeyError, RecursionError) as error:
        raise damaged(weights_path(path), f"metadata: {error}", "train it again, or give another file") from None
    return tensors, facts


def holds_backbone(keys: Iterable[str]) -> bool:
    """Whether a trained run's weights include its backbone; a frozen pretrained one is left out."""
    return any(key.startswith("embedder.backbone.") for key in keys)


def brings_backbone(recipe: Recipe) -> bool:
    """Whether the checkpoint that the recipe begins with, if any, includes its backbone."""
    if recipe.checkpoint is None:
        return False
    with open_safetensors(weights_path(recipe.checkpoint)) as file:
        return holds_backbone(file.keys())


def average_weights(paths: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The mean of the weights of several runs of one model (a soup, Wortsman et al. 2022), metadata of the first.

    KitError where they are of different models, see or need other things, or where their classes mean other animals.
    """
    tensors, metadata = load_weights(paths[0])
    for number, path in enumerate(paths[1:], 2):
        others, there = load_weights(path)
        if misfits(tensors, others):
            raise KitError(f"soup: {path}: weights of another model than {paths[0]}")
        if there["identities"] != metadata["identities"]:
            raise KitError(
                f"soup: {path}: trained on other individuals than {paths[0]} ({len(there['identities'])} and "
                f"{len(metadata['identities'])}), so that their classes can't be averaged (expected the same)"
            )
        metadata["trained"] = sorted({*metadata["trained"], *there["trained"]})
        for what, (one, other) in differing_meanings(metadata, there).items():
            raise KitError(f"soup: {path}: {what}: {other} there, {one} in {paths[0]} (expected the same)")
        for key, value in tensors.items():
            if value.is_floating_point():
                tensors[key] = torch.lerp(value, others[key], 1 / number)
    return tensors, metadata


def differing_meanings(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What decides the meaning of two runs' weights, beside their shapes, and is not the same, by what it is."""

    def meaning(metadata: Mapping[str, Any]) -> dict[str, Any]:
        recipe, seen = metadata["recipe"], metadata["normalisation"] or {}
        return {
            "model.pooling": {"name": recipe["model"]["pooling"]["name"]},
            "model.geometry": recipe["model"]["geometry"],
            "loss": recipe["loss"]["name"],
            "the frozen backbone's hash": metadata["backbone_sha256"],
            "mean and std": [seen.get(key) for key in ("mean", "std")],
        }

    pairs = {what: (value, meaning(other)[what]) for what, value in meaning(one).items()}
    return {what: (a, b) for what, (a, b) in pairs.items() if a != b}


def misfits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not in both with the same shape."""
    shapes = [{(name, tensor.shape) for name, tensor in tensors.items()} for tensors in (one, other)]
    return sorted({name for name, _ in shapes[0] ^ shapes[1]})


def tensors_below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def embedder_for(recipe: Recipe) -> tuple[Embedder, dict[str, Tensor], list[str]]:
    """The recipe's embedder, with the learned tensors and the identities of its checkpoint, if it names one.

    Every part is seeded on its own, so that a backbone that was loaded before changes nothing behind it.
    """
    model, seed = recipe.model, recipe.seed
    seed_everything(seed)
    if recipe.checkpoint is None:
        asked = (model.backbone, model.input_size, model.pretrained, model.weights, model.pooling.name == "logits")
        drawn = 0 if model.pretrained else seed  # weights that are read are the same for every seed
        version = backbone_version(model)
        backbone, known = shared_backbone(asked, drawn, version) if model.freeze else (load_backbone(*asked), "")
        seed_everything(seed, 1)
        embedder = build_embedder(model, backbone)
        embedder.backbone_fingerprint = known
        return embedder, {}, []
    tensors, metadata = average_weights([recipe.checkpoint, *recipe.soup])
    whole = holds_backbone(tensors)
    check_same_model(recipe, metadata)
    embedder = build_embedder(replace(model, pretrained=False) if whole else model)
    state = {k: v for k, v in embedder.state_dict().items() if whole or not k.startswith("backbone.")}
    given = tensors_below("embedder.", tensors)
    if other := misfits(state, given):
        raise KitError(
            f"{recipe.checkpoint}: weights of another model: '{other[0]}' differs; model should be as in its recipe: "
            f"{json.dumps(metadata['recipe']['model'])}"
        )
    if not whole and metadata["backbone_sha256"] not in ("", backbone_sha256(embedder.backbone)):
        raise KitError(
            f"{recipe.checkpoint}: the weights found for backbone {model.backbone!r} are not those that this run was "
            "trained with; give the right file in model.weights, or in $" + WEIGHTS_VARIABLE
        )
    embedder.load_state_dict(given, strict=False)
    where, seen = weights_path(recipe.checkpoint), metadata["normalisation"]  # as the run saw its images
    if seen:
        embedder.backbone.pretrained_cfg.update(normalisation_in(where, json.dumps(seen), "normalisation"))
    elif whole:
        echo(f"  note: {where}: does not tell the mean and std of its images: taken from timm's model")
    embedder.trained_before = tuple(metadata["trained"])
    return embedder, tensors, metadata["identities"]


def check_same_model(recipe: Recipe, metadata: Mapping[str, Any]) -> None:
    """Refuses to use a run's weights in a model in which they would mean something else."""
    there, here = metadata["recipe"]["model"]["backbone"], recipe.model.backbone
    if known_backbone(there).architecture != known_backbone(here).architecture:
        raise KitError(f"{recipe.checkpoint}: trained on backbone {there!r}, the recipe's is {here!r}")
    differing = differing_meanings(metadata, {**metadata, "recipe": recipe_to_dict(recipe)})
    differing.pop("loss", None)  # of which no more than the classes is taken over, where it fits
    for what, (trained, asked) in differing.items():
        raise KitError(
            f"{recipe.checkpoint}: trained with {what} {json.dumps(trained)}, the recipe's is {json.dumps(asked)} "
            "(expected the same)"
        )


def take_over_classes(trainer: Trainer, tensors: Mapping[str, Tensor], same_identities: bool) -> None:
    """Begins the loss with what a checkpoint learned of the classes, where they are the same; says where not."""
    classes, given = trainer.loss.state_dict(), tensors_below("loss.", tensors)
    if same_identities and not misfits(classes, given):
        trainer.loss.load_state_dict(given)
    elif classes:
        reason = "its loss has other parts" if same_identities else "it knows other individuals"
        echo(f"  note: {trainer.recipe.checkpoint}: {reason}, so that the recipe's loss begins with new class weights")


# 13. Submission
# ----------------------------------------------------------------------------------------------------------------------

DECIMALS = 16  # written digits behind the point
FOUR_DIGITS = np.frombuffer("".join(f"{i:04d}" for i in range(10000)).encode(), np.uint32)  # four characters each


def unit_interval(similarity: Tensor) -> Callable[[np.ndarray], np.ndarray]:
    """The increasing affine map that takes these similarities into [0, 1]: (s + 1) / 2 for any within [-1, 1].

    Computed in float64 so that different similarities stay different; clipping would tie them.
    """
    least, most = float(similarity.min()), float(similarity.max())
    low, high = min(-1.0, least), max(1.0, most)
    if least < -1.001 or most > 1.001:  # beyond what rounding does to a cosine
        echo(f"  note: similarities of {least:.4g} to {most:.4g}, no cosines: [{low:.4g}, {high:.4g}] becomes [0, 1]")
    return lambda values: (values.astype(np.float64) - low) / (high - low)


def digit_columns(numbers: np.ndarray, groups: int) -> np.ndarray:
    """The last 4 * groups decimal digits of whole numbers as characters, uint8 (rows, digits)."""
    text = np.empty((len(numbers), groups), np.uint32)
    for group in range(groups - 1, -1, -1):
        left = numbers // 10000
        text[:, group] = FOUR_DIGITS[numbers - left * 10000]
        numbers = left
    return text.view(np.uint8)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if re.search('[",\\r\\n]', text) else text


def format_rows(row_ids: np.ndarray, values: np.ndarray) -> bytes:
    """Lines `row_id,0.5123456789012345`; values float64 in [0, 1] with more decimals than a float32 tells apart."""
    scaled = np.rint(values * 10**DECIMALS).astype(np.int64)
    tail = np.empty((len(values), DECIMALS + 4), np.uint8)
    tail[:, 0], tail[:, 2], tail[:, -1] = ord(","), ord("."), ord("\n")
    tail[:, 1] = ord("0") + (scaled == 10**DECIMALS)
    tail[:, 3:-1] = digit_columns(scaled, DECIMALS // 4)
    if row_ids.dtype.kind not in "iu" or row_ids.min() < 0:
        return b"".join(quoted(str(i)).encode() + line.tobytes() for i, line in zip(row_ids, tail))
    row_ids = row_ids.astype(np.int64)
    lengths = digit_counts(row_ids)
    lines = np.concatenate([digit_columns(row_ids, math.ceil(lengths.max() / 4)), tail], axis=1)
    unused = lines.shape[1] - tail.shape[1] - lengths  # leading zeros
    if (unused == unused[0]).all():
        return lines[:, unused[0] :].tobytes()
    return lines[np.arange(lines.shape[1]) >= unused[:, None]].tobytes()


def load_test_pairs(test: pd.DataFrame | str | Path) -> pd.DataFrame:
    if not isinstance(test, pd.DataFrame):
        return load_pairs(Path(test))
    missing = [c for c in ("row_id", "query_image", "gallery_image") if c not in test]
    if missing:
        raise KitError(f"test: column '{missing[0]}' is missing (expected row_id,query_image,gallery_image)")
    if test.empty:
        raise KitError("test: the table has no rows")
    if test.row_id.dtype.kind == "f":
        raise KitError("test: row_id: holds numbers with a point (expected them as written: read it with dtype str)")
    if test.row_id.dtype.kind in "iu":
        small = int(test.row_id.max()) < 2**63 and int(test.row_id.min()) >= 0
        test = test.assign(row_id=test.row_id.astype("int64" if small else str))
    check_unique(test.row_id, "test")
    return test


def image_positions(column: pd.Series, images: Sequence[str]) -> Callable[[slice], np.ndarray]:
    """A function from rows of a test column to where their images stand in `images`."""
    column, known = column.astype("category"), pd.Index(images)
    if known.has_duplicates:
        raise KitError(f"images: {known[known.duplicated()][0]} is named more than once")
    codes, names = column.cat.codes.to_numpy(), column.cat.categories
    if (codes < 0).any():
        raise KitError(f"test: {column.name}: row {int(np.argmax(codes < 0))} names no image")
    places = known.get_indexer(names)
    unknown = [str(names[code]) for code in np.unique(codes) if places[code] < 0]
    if unknown:
        raise KitError(f"test: {column.name}: no similarity is known for {', '.join(unknown)}")
    return lambda rows: places[codes[rows]]


def write_submission(path: str | Path, similarity: Any, images: Sequence[str], test: pd.DataFrame | str | Path) -> Path:
    """Writes `row_id,similarity` for every pair of the test table, joined by image names, and reads the file back.

    similarity (N, N) with rows as queries, in the order of `images` (N names); `test` is the table or its path, with
    rows in any order. Cosines are mapped affinely to [0, 1] (s -> (s + 1) / 2) and written with 16 decimals, never
    clipped, so that only what agrees to 2e-16 ties. Works in chunks of rows, so that 25 million pairs need little
    memory. Raises KitError on NaN, on a wrong shape, and on images without a similarity.
    """
    matrix = as_matrix(similarity)
    if matrix.shape != (len(images), len(images)):
        raise KitError(f"similarity: shape {tuple(matrix.shape)} does not fit {len(images)} images (expected N x N)")
    pairs = load_test_pairs(test)
    query, gallery = (image_positions(pairs[c], images) for c in ("query_image", "gallery_image"))
    to_unit, values, row_ids = unit_interval(matrix), matrix.cpu().numpy(), pairs.row_id.to_numpy()
    with atomic(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(b"row_id,similarity\n")
            for start in progress(range(0, len(pairs), CHUNK), "writing the submission"):
                rows = slice(start, start + CHUNK)
                file.write(format_rows(row_ids[rows], to_unit(values[query(rows), gallery(rows)])))
        read_back(temporary, pairs.row_id, path)
    return Path(path)


def validate_submission(path: str | Path, test: pd.DataFrame | str | Path) -> dict[str, int]:
    """Checks a submission: its columns, every row_id of the test table once, finite values in [0, 1].

    Returns {"rows": how many}; raises KitError naming the first fault.
    """
    return {"rows": read_back(Path(path), load_test_pairs(test).row_id, path)}


def read_back(path: Path, expected: pd.Series, shown: str | Path) -> int:
    """Reads a submission in chunks and checks it; the number of rows. `shown` is the name that errors give the file."""
    types = {"row_id": "int64" if expected.dtype.kind in "iu" else "str", "similarity": "float64"}
    try:
        chunks = pd.read_csv(path, dtype=types, keep_default_na=False, chunksize=CHUNK, encoding="utf-8-sig")
        row_ids = [check_submission_values(chunk, shown) for chunk in chunks]
    except (OSError, ValueError):  # not even numbers: look again, as text, for what to tell
        row_ids = [check_submission_values(read_table(path, ()), shown)]
    found = np.concatenate(row_ids)
    if not np.array_equal(found, expected.to_numpy()):
        check_row_ids(pd.Series(found), expected, shown)
    return len(found)


def check_submission_values(chunk: pd.DataFrame, shown: str | Path) -> np.ndarray:
    """The row_ids of rows of a submission, whose columns and similarities are as they must be."""
    if list(chunk.columns) != ["row_id", "similarity"]:
        raise KitError(f"{shown}: columns {','.join(map(str, chunk.columns))} (expected row_id,similarity)")
    values = pd.to_numeric(chunk.similarity, errors="coerce").to_numpy(np.float64)
    wrong = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if len(wrong):
        row_id, value = chunk.row_id.iloc[wrong[0]], str(chunk.similarity.iloc[wrong[0]])
        raise KitError(f"{shown}: row_id {row_id}: similarity: {value!r} is not a number in [0, 1]")
    return chunk.row_id.to_numpy()


def check_row_ids(found: pd.Series, expected: pd.Series, shown: str | Path) -> None:
    found, expected = found.astype(str), expected.astype(str)
    if len(twice := found[found.duplicated()]):
        raise KitError(f"{shown}: row_id {twice.iloc[0]} stands more than once")
    missing, unknown = expected[~expected.isin(found)], found[~found.isin(expected)]
    if wrong := [*missing, *unknown]:
        raise KitError(
            f"{shown}: {len(missing)} row_ids of the test table are missing and {len(unknown)} are unknown "
            f"(first: {wrong[0]}); expected {len(expected)} rows, found {len(found)}"
        )


# 14. Experiments
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Result:
    """What an experiment left behind."""

    folder: Path
    table: pd.DataFrame  # a row for each finished run
    report: Path | None  # None where there is no tools/ to write one
    failed: Mapping[str, str] = field(default_factory=dict)  # why, by the folder of the run

    def _repr_html_(self) -> str:
        return self.table.to_html(index=False, na_rep="") + f"<p>report: {self.report or 'none'}</p>"

    def image(self, name: str) -> Image.Image:
        """A figure of the report, such as "curves" or "run0-retrievals", which a notebook shows in place."""
        path = self.folder / "figures" / f"{name}.png"
        if not path.is_file():
            there = [p.stem for p in path.parent.glob("*.png")]
            raise KitError(f"{self.folder}: its report has no figure {name!r}; {suggest(name, there)}")
        return Image.open(path)


NUMBER = (int, float)
NUMBERS_OF_RUN = ("map", "epochs", "best_epoch", "seconds", "parameters", "trainable_parameters")


NUMBERS, BASIS = {"": NUMBER}, dict.fromkeys(("queries", "identities", "pairs", "chance"), NUMBER)
SHAPE_OF_METRICS = {  # what of metrics.json is read, where it is there; "": every other key
    **dict.fromkeys(("untrained", "per_identity", "plain", "other_backgrounds"), NUMBERS),
    **{key: [{}] for key in ("postprocess", "postprocess_test", "matches")},
    **dict.fromkeys([name for name, measure in MEASURES.items() if not measure.within], NUMBER),
    "versions": {"": str},
    "validated": {**BASIS, "images": NUMBER, "across": Whole(BASIS)},
    "open_set": {key: Whole(score=NUMBER) for key in ("given", "cross_fitted", "test")},
}


ARRAYS = dict.fromkeys(("embeddings", "similarity", "likeness", "strength", "shares"), (2, "f"))  # dimensions, kind
ARRAYS |= dict.fromkeys(("images", "labels", "paths", "trained", "identities"), (1, "U"))


def read_arrays(path: Path, *needed: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz that the kit wrote, all of one length; KitError where it is damaged."""
    from zipfile import BadZipFile

    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
            arrays = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays.items()}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error, NotImplementedError) as error:
        raise damaged(path, error) from None
    lengths = {len(arrays[name]) for name in needed if name in arrays and arrays[name].ndim}
    odd = [n for n, array in arrays.items() if n in ARRAYS and (array.ndim, array.dtype.kind) != ARRAYS[n]]
    odd += [n for n, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if odd:
        raise damaged(path, f"{odd[0]}: {arrays[odd[0]].dtype} of shape {arrays[odd[0]].shape}")
    if not set(needed) <= arrays.keys() or len(lengths) > 1:
        raise damaged(path, f"it lacks {', '.join(set(needed) - arrays.keys()) or 'rows'}")
    return arrays


def save_arrays(path: Path, **arrays: Any) -> None:
    """An .npz of plain arrays; texts as fixed-width unicode, so that nothing is pickled."""
    plain = {key: np.asarray(v, str if isinstance(v, (list, pd.Series)) else None) for key, v in arrays.items()}
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **plain)


def read_own_table(path: Path, remedy: str = MEND_RUN) -> pd.DataFrame:
    """A CSV that the kit wrote; KitError where it can't be read, or ends within a line."""
    try:
        whole = path.read_bytes().endswith(b"\n")
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise damaged(path, error, remedy) from None
    if not whole:
        raise damaged(path, "it ends within a line", remedy)
    return table


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, or of one of its folds: what its files tell, and so its state.

    Begun: recipe.yaml is there; failed: failed.json, too; finished: metrics.json. A run that is finished may have been
    stopped by train.max_hours, and goes on where its checkpoint is left; else it is done. What is read is checked;
    KitError names a damaged file and the remedy.
    """

    path: Path

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").is_file()

    @property
    def stopped(self) -> bool:
        """Whether a finished run ended before its time, by train.max_hours."""
        return self.finished and "stopped" in self.metrics()

    @property
    def done(self) -> bool:
        """Whether nothing is left to train: finished, and not merely stopped by train.max_hours."""
        folds = (self.path / "fold0").is_dir()  # of which some may not have begun
        return self.finished and not (self.stopped and (folds or any(self.path.rglob("checkpoint.safetensors"))))

    @property
    def failure(self) -> str:
        """Why training in this folder can't go on; "" where it can."""
        record = self.path / "failed.json"
        return read_record(record, {"reason": str})["reason"] if record.is_file() else ""

    @property
    def has_results(self) -> bool:
        """Whether there is anything in it that took time."""
        kept = ("checkpoint.safetensors", "metrics.json", "failed.json")
        return any(True for name in kept for _ in self.path.rglob(name))

    @property
    def with_log(self) -> RunFolder:
        """Where the run's log lies: with folds, in that of the first."""
        return RunFolder(self.path / "fold0") if (self.path / "fold0").is_dir() else self

    def metrics(self) -> dict[str, Any]:
        path = self.path / "metrics.json"
        found = read_record(path, {**dict.fromkeys(NUMBERS_OF_RUN, NUMBER), "untrained": dict, "per_identity": dict})
        wrong = misfit(found, SHAPE_OF_METRICS, "")
        wrong = wrong or ("untrained lacks map" if "map" not in found["untrained"] else "")
        if not wrong and "images" in (counted := found.get("validated", {})):
            wrong = misfit(counted, Whole(BASIS), "validated")
        if wrong or not math.isfinite(found["epochs"]):
            raise damaged(path, wrong or f"epochs: {found['epochs']}")
        return found

    def log(self) -> pd.DataFrame:
        """A row of numbers for each epoch of a finished run."""
        folder = self.with_log
        path, epochs = folder.path / "log.csv", folder.metrics()["epochs"]
        log = read_own_table(path)
        lacking = {"epoch", "train_loss", "map", "val_loss", "lr"} - set(log)
        wrong = [column for column in log if not pd.api.types.is_numeric_dtype(log[column])]
        if lacking or wrong or list(log.epoch) != list(range(int(epochs) + 1)):
            raise damaged(path, f"it lacks {', '.join(sorted(lacking) or wrong) or 'epochs'}")
        return log

    def arrays(self, name: str, *needed: str) -> dict[str, np.ndarray]:
        return read_arrays(self.path / name, *needed)

    def guesses(self) -> pd.DataFrame | None:
        """What was guessed about the validation queries of an open set; None where there was none."""
        path = self.path / "validation_guesses.csv"
        if not path.is_file():
            return None
        try:
            table = read_table(path, ("species", "identity", "score", "truth", "known"))
            return table.assign(score=table.score.astype(float), known=table.known == "True")
        except (KitError, ValueError) as error:
            raise damaged(path, error) from None

    def settings(self) -> dict[str, Any]:
        """The settings that it was made with, the fingerprint of its data, and that of the weights it began with."""
        path = self.path / "recipe.yaml"
        try:
            kept = read_yaml(path.read_text(encoding="utf-8"), str(path))
            recipe = {key: value for key, value in kept.items() if key not in ("data_fingerprint", "weights")}
            recipe_from_dict(recipe, str(path))
            kept["data_fingerprint"]  # at its end
        except (KeyError, KitError, ValueError, AttributeError, TypeError) as error:
            raise damaged(path, str(error).removeprefix(f"{path}: ")) from None
        return kept

    def begin(self, recipe: Recipe, data: str) -> None:
        """Writes recipe.yaml; data: their fingerprint."""
        settings = {**without_passwords(recipe_to_dict(recipe)), "data_fingerprint": data}
        settings["weights"] = weights_version(recipe)
        write_text(self.path / "recipe.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def changed(self, recipe: Recipe, data: str) -> list[str]:
        """What its settings and data differ in from those of now; nothing where it has no results."""
        if not (self.path / "recipe.yaml").is_file() or not self.has_results:
            return []
        earlier = self.settings()
        fingerprint_before, weights = earlier.pop("data_fingerprint", data), earlier.pop("weights", "")
        earlier = recipe_to_dict(recipe_from_dict(earlier, str(self.path)))  # with what was no setting yet
        changed = [f"{key}: {then} there, {now} now" for key, then, now in differing_settings(earlier, recipe)]
        changed += ["the data: other images or labels"] if fingerprint_before != data else []
        now = weights_version(recipe) if weights else ""
        other = weights and now and now != weights
        return [*changed, *(["the weights that it begins with: another file"] if other else [])]

    def fate(
        self, spec: RunSpec, data: str, force: bool = False
    ) -> Literal["make", "done", "failed", "aside", "refuse"]:
        """Decides what becomes of what lies here when `spec` is to be run on data of this fingerprint.

        make: it is begun, or gone on with; done and failed: it stays; aside: it gives way to a new run, by force, or
        where its settings are others and it failed, or those of now come from other runs; refuse: they are others.
        """
        changed = not force and self.changed(spec.recipe, data)
        if changed or force:
            return "aside" if force or spec.derived or self.failure else "refuse"
        return "done" if self.done else "failed" if self.failure else "make"

    def set_aside(self) -> None:
        """Renames it, so that nothing is lost."""
        path = self.path
        number = next(n for n in itertools.count(1) if not path.with_name(f"{path.name}.old{n}").exists())
        path.rename(path.with_name(f"{path.name}.old{number}"))
        echo(f"  earlier result moved to {path.with_name(f'{path.name}.old{number}')}")


NO_MATTER = ("train.max_hours", "train.checkpoint_minutes", "train.track")  # to a run's result


def settings_that_count(recipe: Recipe | Mapping) -> dict[str, Any]:
    """What a run's result depends on, flat by dotted name, in the plain values that a file gives back."""
    raw = without_passwords(recipe_to_dict(recipe) if isinstance(recipe, Recipe) else recipe)
    flat: dict[str, Any] = {}

    def walk(value: Any, dotted: str) -> None:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                walk(inner, f"{dotted}.{key}" if dotted else key)
        else:
            flat[dotted] = value

    walk({k: v for k, v in raw.items() if k not in (*WORDS, "name", "ensemble", "part", "analysis")}, "")
    drawn = getattr(REGISTRY.get(("background", flat.get("background.name"))), "drawn", False)
    drawn = drawn or flat.get("augment") or flat.get("train.mix.name", "none") != "none"
    alike = flat.get("model.freeze") and not drawn  # parts of a batch draw for themselves, and batch norm sees them
    ignored = (*NO_MATTER, *(("train.micro_batch",) if alike else ()))
    return {key: value for key, value in flat.items() if key not in ignored}


def differing_settings(then: Recipe | Mapping, now: Recipe | Mapping) -> list[tuple[str, Any, Any]]:
    """Dotted name, value then and value now of every setting that counts and is not the same in both."""
    before, after = settings_that_count(then), settings_that_count(now)
    both = ((key, before.get(key), after.get(key)) for key in sorted(before.keys() | after.keys()))
    return [(key, old, new) for key, old, new in both if old != new]


def check_model(recipe: Recipe) -> None:
    """Refuses an unknown backbone, and weights or a checkpoint that are not there, before any work."""
    known_backbone(recipe.model.backbone)
    whole = brings_backbone(recipe)
    if recipe.model.pretrained and not whole:
        find_backbone_weights(recipe.model.backbone, recipe.model.weights)
    for step in recipe.postprocess:
        check = getattr(lookup(step.kind, step.name), "check", None)
        if check is not None:
            check({**settings_of(step.kind, step.name), **step.settings})


# several processes that share the work


def processes_for(recipe: Recipe, specs: Sequence[RunSpec], device: torch.device, asked: int | None) -> int:
    """How many processes to start that share the batches: those asked for, or one for each GPU; 1 under torchrun."""
    alone = "a search" if recipe.search else "train.mix" if any(spec.recipe.train.mixes for spec in specs) else ""
    if alone and max(asked or 1, world_size()) > 1:
        raise KitError(f"{recipe.name}: {alone} runs in one process (expected --gpus 1, and no torchrun)")
    frozen = all(spec.recipe.model.freeze for spec in specs)
    if frozen and (asked or 1) > 1:
        echo(f"  note: --gpus: {asked} processes share batches of a backbone that learns; this one is frozen")
    if alone or world_size() > 1 or frozen:
        return 1
    if device.type == "cuda":
        check_gpus(asked or 1)
    several = asked or (torch.cuda.device_count() if device.type == "cuda" else 1)
    return several if several == 1 or rooms_for("one process (torchrun starts several)") else 1


@contextmanager
def distributed(device: str) -> Iterator[torch.device]:
    """The device to work on; under torchrun, or started by the kit, with all processes joined."""
    if "RANK" not in os.environ or torch.distributed.is_initialized():
        yield pick_device(device)
        return
    if PARENT_VARIABLE in os.environ:
        end_with_parent(int(os.environ[PARENT_VARIABLE]))
    number = int(os.environ.get("LOCAL_RANK", 0))
    if device != "cpu" and torch.cuda.is_available():
        check_gpus(number + 1)
        torch.cuda.set_device(number)
    chosen = pick_device(device)
    chosen = torch.device("cuda", number) if chosen.type == "cuda" else chosen
    patience = timedelta(hours=12)  # the others wait while the first decodes images or writes reports
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"  # what lies on the CPU waits for no GPU
    torch.distributed.init_process_group(backend, timeout=patience)
    yield chosen
    torch.distributed.destroy_process_group()  # which waits for all, so not when this one alone has failed


def check_gpus(wanted: int) -> None:
    found = torch.cuda.device_count()
    if wanted > found:
        raise KitError(f"--gpus: {wanted} processes, but torch sees {found} GPU{'s' * (found != 1)} (expected {found})")


def end_process(code: int) -> int:
    """The exit code; a process that shared its work with others ends here, for its exit would wait for theirs."""
    if torch.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


@contextmanager
def first_process_first() -> Iterator[None]:
    """Lets the first process fill the caches that the others then find."""
    if rank() > 0:
        wait_for_all()
    yield
    if rank() == 0:
        wait_for_all()


def wait_for_all() -> None:
    """Waits until all processes are here; on the CPU, for a barrier of GPUs would have to be set up by all at once."""
    if world_size() > 1:
        torch.distributed.all_reduce(torch.zeros(1))


def from_first_process(value: Any) -> Any:
    """The first process's value, for all."""
    if world_size() == 1:
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box)
    return box[0]


def device_name(device: torch.device) -> str:
    if device.type == "cpu":
        return "cpu"
    name = torch.cuda.get_device_name(device)
    return f"{world_size()} x {name}" if world_size() > 1 else name


def execute_run(
    spec: RunSpec,
    images: Images,
    place: Path,
    device: torch.device,
    deadline: float = math.inf,
    watch: Callable[[Mapping[str, float]], None] | None = None,
) -> None:
    """Trains and evaluates one variant with one seed; with several folds, each in a folder of its own."""
    recipe, splits = spec.recipe, images.splits
    if rank() == 0:
        RunFolder(place).begin(recipe, images.fingerprint)
    try:
        if len(splits) == 1:
            run_split(recipe, images, splits[0], place, device, deadline, watch)
            return
        for number, split in enumerate(splits):
            fold = place / f"fold{number}"
            if number and from_first_process(time.monotonic() > deadline and not RunFolder(fold).finished):
                echo(f"    train.max_hours is over: {len(splits) - number} of {len(splits)} folds are left for later")
                splits = splits[:number]
                break
            if not from_first_process(RunFolder(fold).done):
                echo(f"    fold {number + 1} of {len(splits)}")
                fold.mkdir(exist_ok=True)
                run_split(recipe, images, split, fold, device, deadline, watch if number == 0 else None)
        if rank() == 0:
            short = len(splits) < len(images.splits)
            combine_folds(images.competition, place, len(splits), recipe.model.geometry.build(), short)
    except TrainingFailed as error:
        if rank() == 0:
            write_json(place / "failed.json", {"reason": str(error)})
        raise
    except KitError:
        if rank() == 0 and not RunFolder(place).has_results:
            remove_path(place)  # nothing was trained yet
        raise


def run_split(
    recipe: Recipe,
    images: Images,
    split: tuple[np.ndarray, np.ndarray],
    place: Path,
    device: torch.device,
    deadline: float,
    watch: Callable[[Mapping[str, float]], None] | None = None,
) -> None:
    """One trained model: log, weights, embeddings, submission, and metrics.json, which marks the run as finished."""
    identities, codes = identity_codes(images.competition.train.identity, split[0])
    embedder, tensors, known = embedder_for(recipe)
    embedder.to(device, memory_format=memory_format(device))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    counts = np.bincount(codes[split[0]], minlength=len(identities)).tolist()
    sizes = {"embedding_dim": embedder.embedding_dim, "num_identities": len(identities), "counts": counts}
    loss = recipe.loss.build(**sizes, geometry=embedder.geometry).to(device)
    labels = torch.from_numpy(codes)
    optimizer = Trainer.make_optimizer(recipe.train, embedder, loss)  # before the long extraction of features
    with first_process_first():
        task = make_task(recipe, embedder, images, labels, split, device)
    met, every = (shared_encounters(images.competition.train.iloc[rows]) for rows in (task.validation, slice(None)))
    every = None if every is None else torch.tensor(every)
    task = replace(task, encounters=met, met=every, at_size=images.at_size)
    if recipe.train.select == "map_across":
        validated = basis_of(images.competition.train.identity.to_numpy(str)[task.validation], [], met)
        if (few := validated.get("across", {}).get("identities", 0)) < FEWEST:
            echo(f"  note: train.select: map_across: {few} identities are too few to choose by: the last epoch is kept")
            recipe = replace(recipe, train=replace(recipe.train, select="last"))
    trainer = Trainer(recipe, embedder, loss, optimizer, task, deadline)
    if tensors:
        take_over_classes(trainer, tensors, known == identities)
    try:
        trainer.fit(place, watch)
    except TrainingFailed:
        if rank() == 0 and trainer.best:  # what was good so far
            rows = images.competition.train.path.iloc[task.train]
            save_weights(place / "weights.safetensors", trainer, identities, {}, rows)
        raise
    trainer.restore(trainer.best)
    trainer.average = {}
    if trained := trainer.history[1:]:
        trainer.stage = int(trained[best_epoch(trained, recipe.train.select)].get("stage", 0))
    metrics, embeddings = trainer.validate()
    if rank() == 0:
        write_results(trainer, images, identities, metrics, embeddings, place)


def identity_codes(identity: pd.Series, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The identities of the training rows, and every row's code (N,): below 0 for identities that none of them has."""
    learned = sorted(identity.iloc[rows].unique())
    others = sorted(set(identity) - set(learned))
    codes = {name: code for code, name in enumerate(learned)} | {name: -1 - i for i, name in enumerate(others)}
    return learned, np.array([codes[name] for name in identity], np.int64)


def write_results(
    trainer: Trainer,
    images: Images,
    identities: Sequence[str],
    measured: Mapping[str, float],
    embeddings: Tensor,
    place: Path,
) -> None:
    """Everything that a trained model leaves behind; `identities` are those that it has learned."""
    recipe, embedder, task, competition = trainer.recipe, trainer.embedder, trainer.task, images.competition
    write_table(place / "log.csv", pd.DataFrame(trainer.history))
    labels = competition.train.identity.to_numpy(str)[task.validation]
    rows = competition.train.filename.iloc[task.validation]
    paths = competition.train.path
    kept = {"embeddings": embeddings.numpy(), "images": rows, "labels": labels}
    trained = [*paths.iloc[task.train]] if trainer.history[1:] else []
    seen = sorted({*trained, *embedder.trained_before})
    kept |= {"paths": paths.iloc[task.validation], "trained": seen}
    if known := set(paths.iloc[task.validation]) & set(embedder.trained_before):
        echo(f"  note: the checkpoint was trained on {len(known)} of {len(rows)} validation images, which flatters mAP")
    metrics = {**measured, "per_identity": {}}
    if len(labels):
        state = trainer.retrieval(task.validation, embeddings, task.encounters)
        metrics.update(retrieval_metrics(state.raw, labels))
        metrics["validated"] = basis_of(labels, list(kept["paths"]), task.encounters)
        chosen = choose_steps(recipe.postprocess, state, labels, task.encounters)
        steps = chosen.fitted
        if recipe.postprocess:
            metrics.update(chosen.scores("_postprocessed"), postprocess=chosen.rows)
        if chosen.why:
            echo(f"  note: postprocess: {chosen.why}")
        kept |= kept_for_ensembles(chosen.states, identities)
        if chosen.states[-1].matched:
            draw = room("experiments.figures").match_examples
            metrics["matches"] = draw(chosen.states[-1], [*rows], labels, task.encounters)
    else:
        vector = torch.zeros(1, embedder.embedding_dim, device=trainer.device)
        steps = without_fitting(recipe.postprocess, class_logits(trainer.loss, vector) is not None)
    save_arrays(place / "validation.npz", **kept)
    if competition.pairs is not None:
        metrics.update(write_test_results(competition, trainer, steps, identities, place))
    if asks_who_is_new(recipe, competition) and (competition.open_set or len(labels)):
        judge = room("experiments.open_set").OpenSetJudge(trainer, competition, identities)
        metrics["open_set"] = judge.judge(embeddings, place)
    if recipe.test_backgrounds and len(labels):
        looked = rooms_for("test_backgrounds are left out")
        metrics["other_backgrounds"] = room("experiments.scenes").map_on_backgrounds(trainer, labels) if looked else {}
    save_weights(place / "weights.safetensors", trainer, identities, {m: metrics[m] for m in METRICS}, trained)
    write_json(place / "metrics.json", {**metrics, **run_facts(trainer)})
    if trainer.stopped != "max_hours":
        remove_path(place / "checkpoint.safetensors")


def chance_precision(compared: Comparison) -> np.ndarray:
    """The average precision that a random order has on average (Q,), NaN without positives: of R positives among N
    images it is (H + (R - 1) (N - H) / (N - 1)) / N, where H is the N-th harmonic number (Bestgen 2015)."""
    positives = compared.sizes()[1]
    images = len(compared.gallery) - count_codes(*numbered(compared.met, compared.gallery_met)[:2])
    harmonic = np.r_[0.0, np.cumsum(1 / np.arange(1, len(compared.gallery) + 1))][images]
    expected = harmonic + (positives - 1) * (images - harmonic) / np.maximum(images - 1, 1)
    return np.where(positives > 0, expected / np.maximum(images, 1), np.nan)


def chance_map(labels: np.ndarray, encounters: np.ndarray | None = None) -> float:
    """The mAP that a random order has on average."""
    compared = compare(np.zeros((len(labels), len(labels)), np.float32), labels, encounters)
    return mean_or_nan(mean_by_identity(chance_precision(compared), compared.labels))


def basis_of(labels: np.ndarray, paths: Sequence[str], met: np.ndarray | None) -> dict[str, Any]:
    """How much mAP rests on: images, those that count as queries, their identities, pairs of one identity, and the mAP
    that a random order has; the same across encounters; `on` changes with the images."""

    def counts(encounters: np.ndarray | None) -> dict[str, Any]:
        _, positives = compare(np.zeros((len(labels), len(labels)), np.float32), labels, encounters).sizes()
        found = {"queries": int((positives > 0).sum()), "identities": len(np.unique(labels[positives > 0]))}
        return {**found, "pairs": int(positives.sum() // 2), "chance": chance_map(labels, encounters)}

    across = {} if met is None else {"across": counts(met)}
    return {"images": len(labels), **counts(None), **across, "on": fingerprint(sorted(paths))}


def compile_backbone(backbone: nn.Module) -> None:
    """Compiles the block of a ViT once for all its layers, of another backbone the whole; once, however often asked."""
    if getattr(backbone, "kit_compiled", False):
        return
    backbone.kit_compiled, blocks = True, list(getattr(backbone, "blocks", ()))
    if len({type(block) for block in blocks}) == 1 and not isinstance(blocks[0], nn.Sequential):
        if torch.__version__ < "2.5":  # later ones always do: blocks that are alike share what was compiled
            torch._dynamo.config.inline_inbuilt_nn_modules = True
        for block in blocks:
            block.compile()
    else:
        backbone.forward_features = torch.compile(backbone.forward_features)


def quicken(device: torch.device, precision: torch.dtype | None) -> None:
    """On a GPU, TF32 for products in fp32 (none where precision is mixed), and the quickest convolutions."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision is None else "highest")
        torch.backends.cudnn.benchmark = True


def make_task(
    recipe: Recipe,
    embedder: Embedder,
    images: Images,
    labels: Tensor,
    split: tuple[np.ndarray, np.ndarray],
    device: torch.device,
) -> Task:
    """What training and evaluation read: images, or the cached features of a frozen backbone.

    Where training images are mixed or random they are read as images, or with `train.views` as the features of so
    many random views of each; a frozen backbone is evaluated by features all the same.
    """
    size = recipe.model.input_size or native_size(embedder.backbone)
    cfg, precision = embedder.backbone.pretrained_cfg, precision_of(recipe.train.precision, device)
    if recipe.train.compile:
        compile_backbone(embedder.backbone)
    quicken(device, precision)
    prepare = Preparation(recipe.background, recipe.augment, size, cfg["mean"], cfg["std"], recipe.model.crop)
    features = cache(partial(cached_features, embedder, config=recipe, precision=precision))

    trained = PixelSource(images.store, prepare, device)
    other = recipe.evaluated_background
    pixels = trained if other is None else replace(trained, preparation=prepare.on_background(other))

    def stored(source: PixelSource, size: int | None) -> PixelSource:
        return source if size in (None, recipe.data.size) else replace(source, store=images.at_size(size))

    def trained_on(size: int | None) -> Source:
        images_of_size = stored(trained, size)
        if not embedder.frozen or recipe.train.mixes:
            return images_of_size
        if prepare.fixed:
            return features(images_of_size)
        drawn = [features(images_of_size, view=view, first=len(labels)) for view in range(recipe.train.views)]
        return ViewSource(tuple(drawn)) if drawn else images_of_size

    def evaluated_on(source: PixelSource) -> Source:
        return features(source) if embedder.frozen else source

    stages = stages_of(recipe.train)
    task = Task(pixels, evaluated_on(pixels), tuple(trained_on(stage.size) for stage in stages), labels, *split)
    by_stage = recipe.train.validate_at == "stage"
    return replace(task, evaluated=tuple(evaluated_on(stored(pixels, s.size)) for s in stages)) if by_stage else task


def kept_for_ensembles(states: Sequence[Retrieval], identities: Sequence[str]) -> dict[str, Any]:
    """What of a run's states an ensemble asks for, in validation.npz and test.npz beside embeddings, images and labels:
    `similarity` (N, N) at the end; `likeness` and the `strength` of spots, before they are fused; `shares` (N, C), how
    probably each image shows each of the `identities`, and the `form` in which they were compared."""
    final, known = states[-1], next((state for state in reversed(states) if state.evidence), None)
    kept = {"similarity": final.matrix()} if len(states) > 1 else {}
    if known is not None:
        kept |= {key: known.evidence[name] for key, name in EVIDENCE.items() if name in known.evidence}
    shares = next((state.shares for state in states if state.shares is not None), None)
    if shares is None and final.logits is not None:
        shares = final.logits(final.lengthened()).softmax(1)
    kept = {key: one.float().numpy() for key, one in kept.items()}
    named = {"identities": [*identities], "form": [final.form]}
    return kept if shares is None else {**kept, "shares": shares.float().numpy(), **named}


EVIDENCE = {"likeness": "likeness", "strength": "local"}  # arrays of evidence that a run keeps, and whose they are


def write_test_results(
    competition: Competition, trainer: Trainer, steps: Sequence[Component], identities: Sequence[str], place: Path
) -> dict[str, Any]:
    """Test embeddings, and the submission after the steps; the test's mAP where a solution is known."""
    positions = len(competition.train) + np.arange(len(competition.test))
    trainer.embedder.eval()
    embeddings, images = trainer.embed(positions), competition.test.filename
    before = trainer.retrieval(positions, embeddings, shared_encounters(competition.test))
    states = list(itertools.accumulate(steps, lambda state, step: step(state), initial=before))
    state, raw = states[-1], score_test(competition, before.raw.numpy()) if trainer.recipe.postprocess else None
    similarity = state.matrix().numpy()
    kept = {**kept_for_ensembles(states, identities), "embeddings": embeddings.numpy(), "similarity": similarity}
    save_arrays(place / "test.npz", **kept, images=images)
    metrics: dict[str, Any] = submit(competition, similarity, raw, place)
    if competition.solution is not None and steps:
        truth, met = competition.solution.to_numpy(str), shared_encounters(competition.test)
        measured = [by_kind(average_precision, one.matrix(), truth, met) for one in states]
        names_of = ["raw", *(f"+ {part_words(step)}" for step in steps)]
        metrics["postprocess_test"] = rows_of_steps(names_of, measured, np.unique(truth, return_inverse=True)[1])
    return metrics


def score_test(competition: Competition, similarity: np.ndarray) -> dict[str, float]:
    """mAP on the test images, and across encounters where some share one; nothing without a solution."""
    if competition.solution is None:
        return {}
    truth, met = competition.solution.to_numpy(str), shared_encounters(competition.test)
    found = by_kind(identity_balanced_map, similarity, truth, met)
    return {f"test_map{kind}": value for kind, value in found.items()}


def submit(
    competition: Competition, final: np.ndarray, raw: Mapping[str, float] | None, place: Path
) -> dict[str, float]:
    """Writes the submission; what `score_test` says of raw similarities, where they are others, and of final ones."""
    write_submission(place / "submission.csv", final, list(competition.test.filename), competition.pairs)
    scores = score_test(competition, final)
    if raw is None:
        return scores
    return {**raw, **{key.replace("test_map", "test_map_postprocessed"): value for key, value in scores.items()}}


def run_facts(trainer: Trainer) -> dict[str, Any]:
    trained = trainer.history[1:]
    parameters = list(trainer.embedder.parameters()) + list(trainer.loss.parameters())
    return {
        "untrained": {m: trainer.history[0].get(m, math.nan) for m in METRICS},
        "plain": {m: trainer.history[0].get(f"plain_{m}", math.nan) for m in ("map", "map_across")},
        "epochs": len(trained),
        "best_epoch": best_epoch(trained, trainer.recipe.train.select) + 1 if trained else 0,
        "seconds": trainer.seconds,
        **({"stopped": "max_hours"} if trainer.stopped == "max_hours" else {}),
        "device": device_name(trainer.device),
        "embedded_per_second": trainer.embedded_per_second,
        "trained_images": len(trainer.task.train),
        "learns": sum(p.numel() for p in trainer.embedder.parameters() if p.requires_grad) if trained else 0,
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "versions": {
            "jaguar_kit": __version__,
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "timm": timm.__version__,
        },
    }


def combine_folds(competition: Competition, place: Path, folds: int, geometry: Geometry, short: bool = False) -> None:
    """Mean metrics over folds, out-of-fold similarities, and a submission from the mean of the folds' similarities.

    short: further folds are not there yet, for time was over.
    """
    metrics = [RunFolder(place / f"fold{k}").metrics() for k in range(folds)]
    held_out = [RunFolder(place / f"fold{k}").arrays("validation.npz", "embeddings", "images") for k in range(folds)]
    blocks = {
        f"similarity{k}": similarity_matrix(fold["embeddings"], geometry=geometry) for k, fold in enumerate(held_out)
    }
    save_arrays(
        place / "oof_similarity.npz", **blocks, **{f"images{k}": fold["images"] for k, fold in enumerate(held_out)}
    )
    facts = {**mean_of_folds(metrics), "folds": folds, "versions": metrics[0]["versions"]}
    facts["validated"] = {"on": fingerprint([t.get("validated", {}).get("on") for t in metrics])}
    facts.update({"stopped": "max_hours"} if short or any("stopped" in t for t in metrics) else {})
    if competition.pairs is not None:
        tests = [RunFolder(place / f"fold{k}").arrays("test.npz", "embeddings", "similarity") for k in range(folds)]
        used = {row["steps"] for t in metrics for row in t.get("postprocess", []) if row["used"]} or {"raw"}
        final = [test["similarity"] for test in tests]
        fused = np.mean(final, 0) if len(used) == 1 else rank_average(*final)  # other steps, other scales
        raw = np.mean([similarity_matrix(test["embeddings"], geometry=geometry) for test in tests], 0)
        facts.update(
            submit(competition, fused, score_test(competition, raw) if "postprocess" in metrics[0] else None, place)
        )
    write_json(place / "metrics.json", facts)


def mean_of_folds(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The folds of folds in one: each measure as MEASURES has it, tables by the means of what several folds have."""
    found: dict[str, Any] = {}
    for key in ("untrained", "plain", "per_identity", "other_backgrounds"):
        if key in folds[0]:
            found[key] = pd.DataFrame([t[key] for t in folds]).mean().to_dict()
    if "open_set" in folds[0]:
        kinds = [kind for kind in ("given", "fitted", "cross_fitted") if kind in folds[0]["open_set"]]
        found["open_set"] = {k: pd.DataFrame([t["open_set"][k] for t in folds]).mean().to_dict() for k in kinds}
    for name, measure in MEASURES.items():
        (*tables, key), values = measure.within or (name,), np.array([measure.of(t) for t in folds])
        told_once = bool(tables) or name.startswith("test_")  # one submission tells the test
        if any(key in t for t in folds) and not told_once:
            both = {"mean": values.mean(), "sum": values.sum(), "first": values[0]}
            found[key] = float(both[measure.folds])
    return found


def runs_table(specs: Sequence[RunSpec], folder: Path) -> pd.DataFrame:
    rows = []
    for spec in specs:
        metrics = RunFolder(folder / spec.folder).metrics()
        values = {name: (measure, measure.of(metrics)) for name, measure in MEASURES.items()}
        values = {n: v for n, (m, v) in values.items() if m.logged or not m.missing or not math.isnan(v)}
        row = {"variant": spec.variant, "seed": spec.recipe.seed, "background": part_words(spec.recipe.background)}
        behind = {f"map@{name}": value for name, value in metrics.get("other_backgrounds", {}).items()}
        rows.append({**row, **values, **behind, "validated_on": metrics.get("validated", {}).get("on", "")})
    return pd.DataFrame(rows)


RESULT = {  # what a line says of a run, as far as it was measured
    "map": "validation mAP {}",
    "plain": " (plain backbone {})",
    "map_across": ", across encounters {}",
    "plain_across": " (plain backbone {})",
    "map_postprocessed": ", {} after post-processing",
    "best_epoch": ", epoch {}",
    "epochs": " of {}",
    "seconds": ", {} s",
    "test_map": "; test mAP {}",
    "open_set": "; open-set score {} cross-fitted",
    "test_open_set": "; open-set score {} on the test",
}


def result_line(row: pd.Series) -> str:
    """What came out of a run, in a line."""
    values = {name: row.get(name, math.nan) for name in RESULT}
    said = (RESULT[name].format(MEASURES[name].shown(v)) for name, v in values.items() if not math.isnan(v))
    return f"  {row.variant}/seed{row.seed}: {''.join(said)}"


def submission_of(result: Result) -> Path | None:
    """The submission of an experiment: its ensemble's, or that of the median run of the variant that is best by its
    mean, by the open-set score where there is one, else by mAP after post-processing."""
    fused = result.folder / "ensemble" / "submission.csv"
    if fused.is_file() or not len(result.table):
        return fused if fused.is_file() else None
    table = result.table
    measure = next((c for c in ("open_set", "map_postprocessed", "map") if c in table and table[c].notna().any()), None)
    if measure == "map_postprocessed":  # what has no steps submits its raw similarities
        table = table.assign(map_postprocessed=table.map_postprocessed.fillna(table["map"]))
    best = table.iloc[median_runs(table, measure)[0]] if measure else table.iloc[0]
    return result.folder / best.variant / f"seed{best.seed}" / "submission.csv"


def median_runs(table: pd.DataFrame, measure: str = "map") -> list[int]:
    """Rows of the median run (of two, the lower) of each variant, those with the best mean first."""
    scored = table.dropna(subset=[measure])
    order = scored.groupby("variant")[measure].mean().sort_values(ascending=False, kind="stable").index
    runs = {name: rows.sort_values(measure, kind="stable").index for name, rows in scored.groupby("variant")}
    return [int(runs[name][(len(runs[name]) - 1) // 2]) for name in order]


MOST_LISTED = 12  # variants in a terminal


def closing_lines(result: Result, analysed: bool) -> list[str]:
    """The end of an experiment in a terminal: the best variants, and where to look."""
    lines, table, folder = [], result.table, result.folder
    if len(table) > 1:
        columns = [c for c in ("map", "map_across", "test_map") if c in table and table[c].notna().any()]
        means = table.groupby("variant", sort=False)[columns].mean()
        means = means.sort_values("map", ascending=False) if "map" in means else means
        means.insert(0, "n", table.groupby("variant").size())
        lines += ["", *(f"  {line}" for line in means.head(MOST_LISTED).round(4).to_string().splitlines())]
        lines += [f"  and {len(means) - MOST_LISTED} more variants"] if len(means) > MOST_LISTED else []
    chosen = submission_of(result)
    where = {"weights and metrics": f"{folder}/<variant>/<seed>" if len(table) else None}
    where |= {"submission": chosen if chosen is not None and chosen.is_file() else None}
    where |= {"lists and tables": folder / "analysis" if analysed else None}
    where |= {"report, open it": result.report} if result.report else {"results": folder / "results.csv"}
    return [*lines, *(f"  {what}: {path}" for what, path in where.items() if path is not None)]


# an experiment: planned, opened, run, told


@dataclass(eq=False)
class Experiment:
    """An experiment at work: its runs, their data, where they go, and what analyses found."""

    recipe: Recipe
    folder: Path
    device: torch.device = CPU
    data: str | Path | None = None  # the folder that was asked for
    force: bool = False  # finished runs are set aside and made again
    deadline: float = math.inf  # by time.monotonic()
    specs: Sequence[RunSpec] = ()
    competitions: Mapping[str, Competition] = field(default_factory=dict)  # by data_key
    opened: Mapping[str, Images] = field(default_factory=dict)  # by data_key
    analyses: Sequence[Any] = ()  # parts of the report

    def images(self, spec: RunSpec) -> Images:
        return self.opened[data_key(spec.recipe)]

    def run_folder(self, spec: RunSpec) -> RunFolder:
        return RunFolder(self.folder / spec.folder)

    @property
    def notes(self) -> list[str]:
        """What is unusual of the data and the settings, each once."""
        of_data = [note for images in self.opened.values() for note in images.competition.notes]
        return [*dict.fromkeys([*of_data, *(note for spec in self.specs for note in notes_on_settings(spec.recipe))])]

    @property
    def finished(self) -> list[RunSpec]:
        return [spec for spec in self.specs if self.run_folder(spec).finished]

    @property
    def unfinished(self) -> list[RunSpec]:
        """The runs that are to be made."""
        return [spec for spec in self.specs if self.force or not self.run_folder(spec).done]

    @property
    def failures(self) -> dict[str, str]:
        """Why, by folder, for the runs that failed."""
        folders = {spec.folder: self.run_folder(spec) for spec in self.specs}
        return {name: there.failure for name, there in folders.items() if there.failure and not there.finished}


KAGGLE_HOURS = 11.5  # of a session's 12


def plan(
    recipe: Recipe, folder: Path, device: torch.device, data: str | Path | None, force: bool, begun: float
) -> Experiment:
    """The runs, their tables, and where they go: whatever can be refused is, before any work. begun: when it was."""
    if recipe.search:  # of which the first run is known, the others are found
        specs = [room("experiments.search", f"{recipe.name}: a search").search_baseline(recipe)]
    else:
        specs = expand(recipe)
    if recipe.analysis and (rooms_folder() is not None or nothing_to_train(recipe)):
        room("experiments.analysis", f"{recipe.name}: analysis: {recipe.analysis[0].name}").check_weights(recipe)
    if recipe.ensemble.name != "none":
        room("experiments.ensemble", f"{recipe.name}: ensemble").check_ensemble(recipe, specs)
    if recipe.pseudo and recipe.pseudo.measured_on:
        room("experiments.ensemble", f"{recipe.name}: pseudo").members_in(
            recipe.pseudo.measured_on, "pseudo.measured_on"
        )
    if recipe.part is not None:
        room("experiments.parts", f"{recipe.name}: part").check_part(recipe, specs)
    competitions = load_competitions(specs, data)
    for spec in [] if only_tells(recipe) else specs:
        if asks_who_is_new(spec.recipe, competition := competitions[data_key(spec.recipe)]):
            room("experiments.open_set", f"{recipe.name}: an open set").check_open_set(spec.recipe, competition)
        check_model(spec.recipe)
        precision_of(spec.recipe.train.precision, device)
    check_earlier(folder, specs, competitions, force)
    deadline = begun + 3600 * (recipe.train.max_hours or math.inf)
    if on_kaggle():  # whose clock runs since the session began
        deadline = min(deadline, begun + 3600 * KAGGLE_HOURS - session_age())
    return Experiment(recipe, folder, device, data, force, deadline, specs, competitions)


def asks_who_is_new(recipe: Recipe, competition: Competition) -> bool:
    """Whether the data are of an open set, or individuals are held out whole as if they were."""
    return competition.open_set or recipe.open_set is not None or recipe.data.split.name == "open_set"


def nothing_to_train(recipe: Recipe) -> bool:
    return not recipe.train.epochs and recipe.checkpoint is None


def only_tells(recipe: Recipe) -> bool:
    """Whether no run is to be made: there are analyses, or runs that others made."""
    return nothing_to_train(recipe) and bool(recipe.analysis or recipe.ensemble.settings.get("members"))


def check_earlier(folder: Path, specs: Sequence[RunSpec], competitions: Mapping[str, Competition], force: bool) -> None:
    """Refuses to mix results of other settings or other data, unless they failed or `force` sets them aside."""
    if force:  # whatever lies there is set aside, unread
        for spec in specs:
            checkpoint, place = spec.recipe.checkpoint, (folder / spec.folder).resolve()
            if checkpoint and place in weights_path(checkpoint).resolve().parents:
                raise KitError(f"checkpoint: {checkpoint}: --force would set it aside; choose another --out")
        return
    recipes = {data_key(spec.recipe): spec.recipe for spec in specs}
    fingerprints = {key: data_fingerprint(recipe, competitions[key], folder) for key, recipe in recipes.items()}
    for spec in specs:
        there, data = RunFolder(folder / spec.folder), fingerprints[data_key(spec.recipe)]
        if there.fate(spec, data) == "refuse":
            raise other_settings(there, there.changed(spec.recipe, data))


def open_experiment(experiment: Experiment, searching: bool = True) -> None:
    """Decodes the images, makes the analyses, and finds the runs of a search, whose trials are made unless they are
    only to be told."""
    recipe, folder, competitions = experiment.recipe, experiment.folder, experiment.competitions
    for competition in {id(c): c for c in competitions.values()}.values():
        train, test = competition.train, competition.test
        echo(
            f"  {competition.root}: {len(train)} training images of {len(competition.identities)} identities, "
            f"{len(test)} test images"
        )
    if recipe.analysis and rooms_for(f"no analysis ({', '.join(part.name for part in recipe.analysis)})"):
        whole = replace(recipe, data=replace(recipe.data, subset=None))
        images = open_data(whole, competitions[data_key(experiment.specs[0].recipe)])
        experiment.analyses = room("experiments.analysis").analyse(recipe, images, folder, experiment.device)
    if recipe.search:
        experiment.specs = room("experiments.search").run_search(experiment, searching)
        experiment.competitions = load_competitions(experiment.specs, experiment.data)
    opened: dict[str, Images] = {}
    for spec in [] if recipe.analysis and only_tells(recipe) else experiment.specs:
        key = data_key(spec.recipe)
        opened[key] = opened.get(key) or open_data(spec.recipe, experiment.competitions[key], folder)
    experiment.opened, experiment.specs = opened, [] if only_tells(recipe) else experiment.specs
    for note in experiment.notes:
        echo(f"  note: {note}")


def run(experiment: Experiment, jobs: int | None = 1, engine: str = "loky", address: str | None = None) -> dict:
    """Makes the runs of this part that are not finished, several at a time where asked to; why by folder for those that
    failed."""
    specs, numbers, make = experiment.specs, range(1, len(experiment.specs) + 1), run_one
    if experiment.recipe.part or experiment.recipe.search:  # whose runs several sessions may share
        numbers, make = room("experiments.parts").shared_out(experiment)
    if jobs is None:
        quick = experiment.device.type == "cpu" and all(spec.recipe.model.freeze for spec in specs)
        jobs = core_count() if quick else 1
    jobs = min(jobs, len(experiment.unfinished), len(numbers)) if world_size() == 1 else 1
    if jobs and (engine != "loky" or (jobs > 1 and rooms_for("one run at a time"))):
        return room("experiments.engines", f"--engine {engine}").run_side_by_side(
            experiment, numbers, jobs, engine, address
        )
    between = str if rooms_folder() is None else room("experiments.runs").Between(experiment)
    failed, stopped = {}, False
    for place, number in enumerate(numbers):
        late, spec = time.monotonic() > experiment.deadline or stopped, specs[number - 1]
        reason = from_first_process("train.max_hours is over" if late else between()) if place else ""
        if reason:
            echo(f"  {reason}: {len(numbers) - place} runs were not begun")
            break
        reason = make(experiment, number)
        failed.update({spec.folder: reason} if reason else {})
        stopped = experiment.run_folder(spec).stopped
    return failed


def other_settings(there: RunFolder, changed: Sequence[str]) -> KitError:
    return KitError(
        f"{there.path}: holds a run with other settings ({'; '.join(changed)}); choose another --out, or set it aside "
        "with --force"
    )


def run_one(experiment: Experiment, number: int) -> str:
    """Makes a run, by its number from 1 on, as `RunFolder.fate` decides; why it failed, if it did."""
    spec = experiment.specs[number - 1]
    there, images = experiment.run_folder(spec), experiment.images(spec)
    with only_one(there.path) if rank() == 0 else nullcontext():
        first = rank() == 0 and os.path.lexists(there.path)
        fate = there.fate(spec, images.fingerprint, experiment.force) if first else "make"
        fate, failure = from_first_process((fate, there.failure if fate == "failed" else ""))
        if fate == "refuse":
            raise other_settings(there, there.changed(spec.recipe, images.fingerprint))
        if fate == "aside" and first:
            there.set_aside()
        if fate == "done":
            echo(f"  {spec.folder}: finished before")
            if rank() == 0:
                remove_path(there.path / "checkpoint.safetensors")  # of a process that was killed as it finished
        elif fate == "failed":
            echo(f"  {spec.folder}: failed before ({failure}); other settings or --force run it again")
        else:
            echo(f"  {spec.folder} ({number} of {len(experiment.specs)})")
            try:
                execute_run(spec, images, there.path, experiment.device, experiment.deadline)
                if rank() == 0 and there.finished:
                    echo(result_line(runs_table([spec], experiment.folder).iloc[0]))
            except TrainingFailed as error:
                failure = str(error)
                echo(f"  {spec.folder}: failed: {failure}")
    return failure


def tell(
    experiment: Experiment, failed: Mapping[str, str], ensemble: Mapping[str, Any] | None = None, going_on: bool = False
) -> Result:
    """results.csv over the finished runs, or over those that are so far, and the report where tools/ lies beside."""
    table, folder, report = runs_table(experiment.finished, experiment.folder), experiment.folder, None
    write_table(folder / "results.csv", table)
    if rooms_for("no report, but results.csv"):
        report = room("experiments.report").tell(experiment, table, failed, ensemble, going_on)
    return Result(folder, table, report, failed)


def finish(experiment: Experiment, failed: Mapping[str, str]) -> Result:
    """Fuses the runs where the recipe asks for it, tells, and ends with lines: what came out, and where it lies."""
    recipe, specs, ensemble = experiment.recipe, experiment.finished, None
    if not specs and not only_tells(recipe):
        raise TrainingFailed(next(iter(failed.values()), f"{experiment.folder}: no run is finished there"))
    elsewhere = recipe.part and room("experiments.parts").tell_missing(experiment)
    if recipe.ensemble.name != "none" and not elsewhere:
        ensemble = room("experiments.ensemble").combine(experiment)
    result = tell(experiment, failed, ensemble)
    for line in closing_lines(result, bool(experiment.analyses)):
        echo(line)
    return result


def run_recipe(
    recipe: Recipe | Mapping | str | Path,
    data: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    force: bool = False,
    jobs: int | None = 1,
    gpus: int | None = None,
    report_only: bool = False,
    folder: Path | None = None,
    engine: str = "loky",
    address: str | None = None,
) -> Result:
    """Runs every variant and seed of a recipe and writes results, submissions and a report below out/<recipe>/.

    recipe: a Recipe, its settings as a dict with a name, or the path of one. data: a folder in the competition's
    layout. out: "runs" unless given. A run that is finished is not run again, an interrupted one goes on; `force` sets
    the old result aside and starts anew. jobs: runs at a time (None: as many as there are cores, for frozen backbones
    on a CPU). gpus: processes that share each batch of a backbone that learns (None: one for each GPU); under torchrun
    its own. report_only: makes the report of what is finished, in `folder` where that is given, and trains nothing.
    engine, address: what makes several runs at a time, processes here (loky) or a Dask cluster (dask), whose scheduler
    answers at tcp://... (None: of as many processes as jobs).
    Without tools/ analyses and report are left out, and a line says so. Raises KitError on bad input before any work
    begins, and TrainingFailed when no run succeeds.

    >>> run_recipe({"name": "first", "model": {"backbone": "resnet18"}}, data="photographs")  # doctest: +SKIP
    """
    begun = time.monotonic()
    if isinstance(recipe, Mapping):
        recipe = recipe_from_dict(read_as(dict(recipe), "recipe") if "reading" in recipe else recipe)
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    data = None if data is None else str(data)
    for name, number in {"--jobs": jobs, "--gpus": gpus}.items():
        convert(number, Count | None, name)
    convert(engine, Literal["loky", "dask"], "--engine")
    if address is not None and engine != "dask":
        raise KitError(f"--address: {address}: is of a cluster (expected --engine dask with it)")
    for name, path in {"--data": data, "--out": out}.items():
        convert(None if path is None else str(path), PathText | None, name)
    named = recipe.name if data is None else f"{recipe.name}@{Path(data).resolve().name}"
    folder = folder or Path(out or "runs") / named
    refuse_other_contents(folder, EXPERIMENT)
    with distributed(device) as chosen, nothing_left_on_error(folder):
        experiment = plan(recipe, folder, chosen, data, force, begun)
        together = 1 if engine == "dask" else processes_for(recipe, experiment.specs, chosen, gpus)
        if together > 1 and not report_only:
            room("experiments.runs").run_in_processes(recipe, data, out, device, force, together)
            experiment.force = False
        runs, writing = 0 if only_tells(recipe) else len(experiment.specs), rank() == 0 and not report_only
        echo(f"{recipe.name}: {runs} run{'s' * (runs != 1)} on {device_name(chosen)}")
        if writing:
            claim(folder, EXPERIMENT)
        with first_process_first():
            open_experiment(experiment, searching=not report_only)
        if writing:
            facts = {"data": None if data is None else str(Path(data).resolve())}
            whole = without_passwords(recipe_to_dict(replace(recipe, part=None)))
            write_json(folder / "experiment.json", {"recipe": whole, **facts})
        by_others = report_only or (together > 1 and world_size() == 1)
        make = (lambda: experiment.failures) if by_others else partial(run, experiment, jobs, engine, address)
        failed = make()
        if recipe.pseudo and not recipe.part and rooms_for("no rounds of pseudo-labels"):
            failed = {**failed, **room("experiments.pseudo").run_rounds(experiment, make)}
        return Result(folder, pd.DataFrame(), None) if rank() > 0 else finish(experiment, failed)


@contextmanager
def nothing_left_on_error(folder: Path) -> Iterator[None]:
    """On bad input removes what of a result folder holds nothing: empty folders, and with them its marker."""
    try:
        yield
    except KitError:
        if rank() == 0 and folder.is_dir():
            for inner in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
                with suppress(OSError):  # it holds something
                    inner.rmdir()
            if {path.name for path in folder.iterdir()} <= {MARKER, "experiment.json"}:
                remove_path(folder)
                with suppress(OSError):
                    folder.parent.rmdir()
        raise


# 15. Command line
# ----------------------------------------------------------------------------------------------------------------------


def add_overrides(parser: Any) -> None:
    words = "overrides a setting of the recipe"
    parser.add_argument("-o", dest="overrides", metavar="dotted.setting=value", action="append", default=[], help=words)


def run_command(argv: Sequence[str] | None = None) -> int:
    """`tools/run_recipe.py RECIPE [--data DIR] [--out DIR] [--device D] [-o dotted=value ...] [--smoke] [--force]`."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="run_recipe.py", description="Runs a recipe: trains, validates, writes submission and report."
    )
    parser.add_argument("recipe", help="YAML file, such as recipes/quickstart.yaml")
    parser.add_argument("--data", help="folder in the competition's layout, or of identity/*.jpg")
    parser.add_argument("--out", help="folder for results (runs)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    add_overrides(parser)
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="seconds instead of hours: tiny backbone, two epochs, and synthetic images unless there is data",
    )
    parser.add_argument("--force", action="store_true", help="set finished results aside and run again")
    parser.add_argument("--jobs", type=int, help="runs at a time (as many as cores, with frozen backbones on a CPU)")
    parser.add_argument("--gpus", type=int, help="processes that share each batch of a learning backbone (all GPUs)")
    parser.add_argument("--part", metavar="K/N", help="make the K-th of N parts of the runs, dealt out by their cost")
    parser.add_argument("--engine", choices=("loky", "dask"), default="loky", help="what makes several runs at a time")
    parser.add_argument("--address", metavar="tcp://HOST:PORT", help="of Dask's scheduler; its workers make the runs")
    given = parser.parse_args(argv)
    recipe = load_recipe(given.recipe, [*given.overrides, *([f"part={given.part}"] if given.part else [])])
    if given.smoke:
        recipe = room("experiments.smoke", "--smoke").made_small(recipe, masks=given.data is not None)
    result = run_recipe(
        recipe,
        given.data,
        given.out,
        given.device,
        given.force,
        given.jobs,
        given.gpus,
        engine=given.engine,
        address=given.address,
    )
    return 1 if result.failed else 0


def kernel_command(argv: Sequence[str]) -> int:
    """What a kernel calls: runs the recipe whose text comes first, with overrides behind it.

    Runs that fail do not fail it: a session that Kaggle calls failed would not hand out what succeeded.
    """
    room("experiments.session", "a kernel").run_kernel(argv[0], argv[1:])
    return 0


def any_command(argv: Sequence[str] | None = None) -> int:
    """`python -m jaguar_kit COMMAND ...`; `COMMAND --help` tells more. All but `run` are those of rooms."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    return run_command(rest) if name == "run" else room("experiments.commands", name or "help").call(name, rest)


def main(command: Callable[[Sequence[str] | None], int] = any_command, argv: Sequence[str] | None = None) -> int:
    """Runs a command; bad input, and what the file system refuses, end in one line and exit code 2, interrupts in 130.

    Whoever reads the output may have enough of it, as head has: the work goes on all the same.
    """
    try:
        return command(argv)
    except KitError as error:
        return end_with_line(f"error: {error}", error.exit_code)
    except KeyboardInterrupt:
        return end_with_line("interrupted; the same command goes on where it stopped", 130)
    except OSError as error:
        if error.errno not in FILE_SYSTEM:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return end_with_line(
            f"error: {where}{error.strerror}; is it there, may it be read and written, is there room?", 2
        )
    except Exception:
        if torch.distributed.is_initialized():
            traceback.print_exc()
            end_process(1)
        raise


# What a file system answers where names, permissions or room are at fault.
FILE_SYSTEM = (*UNWRITABLE, errno.ENOENT, errno.EINVAL, errno.ESTALE, errno.ENOSYS, errno.EMFILE)


def end_with_line(line: str, code: int) -> int:
    """Prints a last line where errors go, and ends with the exit code."""
    with suppress(OSError, ValueError):
        print(one_line(line), file=sys.stderr, flush=True)
    return end_process(code)


if __name__ == "__main__":
    sys.exit(main())
