"""What only a GPU can tell, in one table: python tools/bench.py gpu [--json FILE] [--quick --device cpu].

Needs no network and no data: images are synthetic, weights random. Each part runs in a process of its own with a limit
of time, and has its lines in the table even when it fails. Targets stand beside what was measured.

    first_steps   fine-tuning of three CNNs at 224 px: the first step, and an epoch beside its step times
    final         training steps of the final recipe beside plain fp32, and their share of a matrix product's rate
    compile       the same with train.compile: seconds until the first step is done, and images a second
    map           identity_balanced_map, checked against the CPU's
    top_k         the 100 nearest of a large gallery, beside three lines of torch
    precision     fine-tuning in fp16 and in bf16: validation mAP of three seeds
    small_gpu     a step of the largest recipes within the memory of a T4
    grid          30 runs of a head on cached features, one after the other
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jaguar_kit as jk
import numpy as np
import torch

from .final import RECIPES, Steps, matmul_rate
from .measuring import gigabytes, machine, output_file, waiting
from .samples import DIMENSIONS, SPREAD, clustered, unit_rows
from .trainers import head_run, trainer_on

T4_BYTES = 14.5e9


@dataclass(frozen=True)
class Line:
    """One line of the table; `most` and `least` are targets."""

    what: str
    value: float
    unit: str
    most: float = math.inf
    least: float = -math.inf
    said: str = ""

    def words(self) -> str:
        target = f"at most {self.most:g}" if self.most < math.inf else ""
        target = f"at least {self.least:g}" if self.least > -math.inf else target
        met = ("yes" if self.least <= self.value <= self.most else "no") if target else ""
        value = "failed" if math.isnan(self.value) else f"{self.value:,.4g} {self.unit}"
        return f"{self.what:<58}{value:>18}  {target:<18}{met:<5}{self.said}"


@dataclass(frozen=True)
class Size:
    """How large things are: as they count, or as small as they can be to try the script."""

    device: torch.device
    quick: bool

    def pick(self, real: Any, tiny: Any) -> Any:
        return tiny if self.quick else real

    def seconds(self, function: Callable[[], Any], repeat: int = 1) -> float:
        """Of the function on the device, best of `repeat`."""
        wait, best = waiting(self.device), math.inf
        for _ in range(repeat):
            wait()
            started = time.perf_counter()
            function()
            wait()
            best = min(best, time.perf_counter() - started)
        return best


def trainer_of(recipe: jk.Recipe, size: Size, images: int, side: int, held_out: int = 0) -> jk.Trainer:
    """A trainer on noise with a pattern for each of some identities, random weights."""
    rng, identities = np.random.default_rng(0), 8
    labels = np.arange(images) % identities
    patterns = rng.integers(0, 256, (identities, side, side, 3))
    pixels = np.full((images, side, side, 4), 255, np.uint8)
    for i, label in enumerate(labels):
        pixels[i, ..., :3] = (patterns[label] + rng.integers(0, 128, (side, side, 1))) // 2
    torch.manual_seed(recipe.seed)
    return trainer_on(recipe, size.device, pixels, labels, held_out)


def fine_tuning(backbone: str, side: int, **train: Any) -> jk.Recipe:
    model = {"backbone": backbone, "pretrained": False, "input_size": side, "freeze": False, "head": "bn_neck"}
    settings = {"batch_size": 32, "lr": 1e-3, "patience": 0, **train}
    augment = ["flip", "affine", "erasing"]
    raw = {"name": "bench", "data": {"size": side}, "augment": augment, "model": model, "train": settings}
    return jk.recipe_from_dict({**raw, "loss": {"name": "arcface", "margin": 0.3, "scale": 30}})


def first_steps(size: Size) -> list[Line]:
    lines = []
    for name in size.pick(("resnet50", "tf_efficientnet_lite0", "convnext_base"), ("test_resnet",)):
        images = size.pick(540, 70)
        trainer = trainer_of(fine_tuning(name, size.pick(224, 64)), size, images, size.pick(224, 64))
        steps = math.ceil(images / 32)

        def until(count: int, trainer: jk.Trainer = trainer) -> Callable[[], Any]:
            left = [count]

            def stop() -> bool:
                left[0] -= 1
                return left[0] <= 0

            return lambda: trainer.train_epoch(1, 0, stop)

        first, second = size.seconds(until(1)), size.seconds(until(10**9))
        epoch = size.seconds(until(10**9), 2)
        lines.append(Line(f"{name}: first step", first, "s", most=10))
        lines.append(Line(f"{name}: the first whole epoch, {steps} steps", second, "s"))
        lines.append(Line(f"{name}: a later epoch", epoch, "s", said=f"{1e3 * epoch / steps:.1f} ms a step"))
    return lines


def final_steps(size: Size, plain: bool = False, compiled: bool = False) -> Steps:
    options = argparse.Namespace(
        backbone=size.pick("dinov3_l", "vit_tiny_patch16_224"),
        batch=size.pick(32, 4),
        side=size.pick(256, 64),
        steps=size.pick(20, 2),
        device=size.device.type,
        override=[f"train.compile={str(compiled).lower()}"],
    )
    return Steps(options, plain)


def final(size: Size) -> list[Line]:
    kit, plain = final_steps(size), final_steps(size, plain=True)
    count, batch = size.pick(20, 2), len(kit.batch)
    kit.epoch()
    rate = batch * count / min(kit.epoch() for _ in range(3))
    plain.plain_step()
    beside = batch * count / min(plain.seconds(lambda: [plain.plain_step() for _ in range(count)]) for _ in range(2))
    reached = plain.flops() / batch * rate
    share = reached / matmul_rate(size.device, kit.trainer.precision or torch.float32, 3)
    parts = ", ".join(f"{part} {1e3 * seconds:.1f} ms" for part, seconds in kit.parts(3).items())
    return [
        Line("final: images a second", rate, "images/s", said=parts),
        Line("final: times plain fp32", rate / beside, "x", least=6),
        Line("final: of a matrix product's rate", 100 * share, "%", least=40, said=f"{reached / 1e12:.1f} TFLOP/s"),
    ]


def compiled(size: Size) -> list[Line]:
    kit = final_steps(size, compiled=True)
    first = size.seconds(kit.forward_and_backward)
    kit.epoch()
    rate = len(kit.batch) * size.pick(20, 2) / min(kit.epoch() for _ in range(3))
    return [
        Line("final with train.compile: the first step", first, "s", most=20),
        Line("final with train.compile: images a second", rate, "images/s"),
    ]


def mean_average_precision(size: Size) -> list[Line]:
    lines = []
    for count, most in size.pick(((2000, 3), (5000, 10), (20000, 80)), ((300, 3),)):
        embeddings, labels = clustered(count) if count <= 5000 else spread_out(count)
        points = torch.from_numpy(unit_rows(embeddings)).float().to(size.device)
        matrix = points @ points.T
        score = jk.identity_balanced_map(matrix, labels)
        other = jk.identity_balanced_map(matrix.cpu(), labels) if count <= 5000 else score
        if abs(score - other) > 1e-9:
            raise AssertionError(f"N = {count}: mAP {score} on the device, {other} on the CPU")
        milliseconds = 1e3 * size.seconds(lambda m=matrix, own=labels: jk.identity_balanced_map(m, own), 5)
        lines.append(Line(f"identity_balanced_map, N = {count:,}", milliseconds, "ms", most=most, said=f"{score:.4f}"))
    return lines


def spread_out(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and long-tailed labels as `clustered` makes them, near ties left as they are."""
    rng, identities = np.random.default_rng(count), count // 15
    shares = 1 / np.arange(1, identities + 1)
    labels = rng.choice(identities, count, p=shares / shares.sum())
    noise = SPREAD * rng.standard_normal((count, DIMENSIONS), dtype=np.float32)
    return rng.standard_normal((identities, DIMENSIONS), dtype=np.float32)[labels] + noise, labels


def nearest(size: Size) -> list[Line]:
    queries, gallery = size.pick((2000, 1_000_000), (50, 1000))
    one, other = (torch.randn(rows, 256, device=size.device) for rows in (queries, gallery))

    def plain() -> None:
        unit, others = (torch.nn.functional.normalize(x) for x in (one, other))
        for part in unit.split(500):
            (part @ others.T).topk(100, dim=1)

    jk.top_k(one, other, 100)
    seconds, beside = size.seconds(lambda: jk.top_k(one, other, 100), 5), size.seconds(plain, 5)
    words = f"{1e3 * seconds:.1f} ms beside {1e3 * beside:.1f} ms"
    return [Line(f"top_k of {gallery:,}: times plain torch's time", seconds / beside, "x", most=1.1, said=words)]


def precision(size: Size) -> list[Line]:
    found: dict[str, list[float]] = {}
    for name in size.pick(("bf16", "fp16"), ("fp32", "bf16")):
        for seed in (0, 1, 2):
            side, epochs = size.pick(96, 32), size.pick(6, 1)
            recipe = fine_tuning(size.pick("resnet18", "test_resnet"), side, precision=name, epochs=epochs)
            trainer = trainer_of(jk.with_seed(recipe, seed), size, 240, side, held_out=80)
            with tempfile.TemporaryDirectory() as folder, jk.quiet():
                trainer.fit(Path(folder))
            found.setdefault(name, []).append(max(row["map"] for row in trainer.history[1:]))
    one, other = (np.array(values) for values in found.values())
    noise = 2 * max(one.std(ddof=1), other.std(ddof=1), 0.01)
    words = f"{' and '.join(found)}: {one.mean():.4f} and {other.mean():.4f}, three seeds"
    return [Line("mAP in fp16 less that in bf16", float(other.mean() - one.mean()), "", least=-noise, said=words)]


def small_gpu(size: Size) -> list[Line]:
    if size.device.type == "cuda":
        whole = torch.cuda.get_device_properties(size.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, T4_BYTES / whole))
    named = size.pick(("final", "eva02_retrieval", "animalclef25:convnext_xl", "animalclef25:swin_l"), ("quickstart",))
    lines = []
    for name in named:
        file, _, variant = name.partition(":")
        settings = ["model.pretrained=false", *(["train.precision=fp16"] if size.device.type == "cuda" else [])]
        spec = jk.expand(jk.load_recipe(RECIPES / f"{file}.yaml", settings))
        recipe = next(s.recipe for s in spec if s.variant == (variant or s.variant))
        side = recipe.data.size
        images = recipe.train.batch_size * recipe.train.accumulate
        said, used = "", math.nan
        try:
            trainer = trainer_of(recipe, size, images, side)
            trainer.train_epoch(1, 0, lambda: True)
            used = gigabytes(size.device) if size.device.type == "cuda" else 0.0
            said = f"{trainer.micro_batch or recipe.train.batch_size} images at a time"
        except jk.KitError as error:
            said = str(error)
        lines.append(Line(f"{name} in fp16: peak memory of a step", used, "GB", most=14.5, said=said))
        trainer = None
        if size.device.type == "cuda":
            torch.cuda.empty_cache()
    return lines


def grid(size: Size) -> list[Line]:
    runs, epochs = size.pick((30, 50), (2, 2))

    def run() -> None:
        for _ in range(runs):
            trainer = head_run(epochs, 1024, size.device)
            with tempfile.TemporaryDirectory() as folder, jk.quiet():
                trainer.fit(Path(folder))

    return [Line(f"{runs} runs of {epochs} epochs on cached features, one by one", size.seconds(run), "s")]


PARTS: dict[str, tuple[Callable[[Size], list[Line]], int]] = {  # and the seconds that each may take
    "first_steps": (first_steps, 80),
    "final": (final, 90),
    "compile": (compiled, 60),
    "map": (mean_average_precision, 40),
    "top_k": (nearest, 25),
    "precision": (precision, 60),
    "small_gpu": (small_gpu, 75),
    "grid": (grid, 50),
}


PART = """
import sys
sys.path.insert(0, sys.argv[1])
import jaguar_kit
jaguar_kit.call_in_room("benches.gpu", "print_part", *sys.argv[2:])
"""


def print_part(name: str, device: str, kind: str) -> None:
    """Prints the lines of a part as JSON, behind whatever else its process prints."""
    lines = PARTS[name][0](Size(jk.pick_device(device), kind == "quick"))
    print(json.dumps([asdict(line) for line in lines]))


def run_part(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The lines of a part, made in a process of its own; one that says why where it failed."""
    kit = str(Path(jk.__file__).resolve().parent)  # the same one, whatever lies where the command is called
    command = [sys.executable, "-c", PART, kit, name, options.device, "quick" if options.quick else "whole"]
    limit = PARTS[name][1] * (4 if options.quick else 1)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        reason = (done.stderr.strip().splitlines() or ["it died"])[-1]
    except subprocess.TimeoutExpired:
        reason = f"no result within {limit} s"
    return [asdict(Line(name, math.nan, "", said=reason))]


def run(options: argparse.Namespace) -> None:
    """Runs all parts, or those asked for, and prints the table as it grows."""
    for part in set(options.parts or ()) - set(PARTS):
        raise jk.KitError(f"--parts: {part!r} is not known; {jk.suggest(part, PARTS)}")
    device = jk.pick_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine(2)["CPU"]
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    print(f"{name}, {versions}; {'tiny sizes, to try the script' if options.quick else 'best of several calls'}")
    print(f"{'what':<58}{'measured':>18}  {'target':<18}{'met':<5}", flush=True)
    lines = []
    for part in options.parts or PARTS:
        for told in run_part(part, options):
            lines.append(told)
            print(Line(**told).words(), flush=True)
    if options.json:
        told = {"device": name, "versions": versions, "quick": options.quick, "lines": lines}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--device", default="cuda", help="cuda or cpu")
    add("--quick", action="store_true", help="tiny sizes, to try the script itself")
    add("--parts", nargs="+", metavar="PART", help="only these (all)")
    add("--json", type=output_file, metavar="FILE", help="file for the lines as JSON")
