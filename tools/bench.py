"""Measures the kit against other ways to do the same: python tools/bench.py retrieval (--help lists the commands).

`augment` gives images a second through each policy: the kit's, a batch at a time, beside torchvision v2's, an image
at a time as in a DataLoader. Neither is checked against the other, since both draw at random; all cores are used.

`train` times an epoch of head training on cached features, validation included, beside the usual loop of a DataLoader
that loads a tensor file for each image and one for its features; and a whole grid of 6 schedules x 5 seeds, up to 100
epochs each, with its report, by the real command.

`final` times training steps of the final recipe (ViT-L, 256 px, batch 32) on the GPU: the kit's from stored images,
in the precision that it chooses, beside a plain loop in fp32 without TF32 on images that lie prepared on the GPU.
Model FLOPs are torch's count for one batch, forward and backward; utilisation is their share of what a large matrix
product reaches there in the same precision. It says what a step's time goes into, each part timed alone.

`evidence` times matching spots, the posterior of classes and fusion on random values, with the memory that they take.

`season` answers three weeks of photographs with decisions in between, and says what was right (`bench_season.py`).

`gpu` runs what only a GPU can tell within eight minutes, each line beside its target (`bench_gpu.py`).

`scale` says how seconds and memory grow with the number of images, each beside its target (`bench_scale.py`).

`data` times warm reads of stored images beside one float32 tensor file for each, and cold decoding of large RGBA
PNGs on all cores beside one core.

`retrieval` times the steps that follow the embeddings, for each N in --sizes:

    identity_balanced_map   peers: a loop over queries; the ranked matrix of re-ID toolboxes; pytorch-metric-learning
    k_reciprocal_rerank     peers: loops over all pairs; the paper's inverted index; faiss as in re-ID toolboxes
    query_expansion         peer: a loop over rows
    write_submission        peer: a loop that collects rows; the kit also reads its file back, the loop does not

What stands in for the toolboxes and for the paper's algorithm is code of this file, in numpy; compiled versions that
some toolboxes have, for the ranking above all, were not used. pytorch-metric-learning is itself, set to rank all N - 1
others and to take the mean per identity; it starts from embeddings, so its time includes the search for neighbours.
It and faiss are measured where they are installed (`pip install .[bench]`).

Data: seeded, N images of long-tailed identities, D = 256, float32; images whose order of neighbours would hang on
rounding are drawn again, since no two implementations need agree on those.

Correctness comes first: each implementation is called once and compared with the reference, the first peer that runs at
that N; a difference over 1e-5 ends the benchmark with exit code 1. Then it is timed, best of --repeat; one that took
longer than 20 s is not called again (marked *). Each has a fresh process with one thread to itself. Peak memory is what
the first call needs beyond what was there before it, its result included.

Letters for shapes: N images, D embedding, K neighbours.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

IDENTITIES = {371: 31, 2000: 100, 5000: 300}  # other sizes: one for every 15 images
DIMENSIONS = 256
SPREAD = 2.0  # standard deviation within an identity, that of the identities' centres being 1
K1, K2, LAMBDA = 20, 6, 0.3  # of re-ranking
HALF = round(K1 / 2) + 1  # length of the lists by which neighbours of neighbours join
EXPANSION_K, EXPANSION_ALPHA = 3, 0.0
TOLERANCE = 1e-5
ONCE = 20.0  # seconds; slower calls are not repeated
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


# Data


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def nearly_tied(embeddings: np.ndarray, margin: float = 1e-6) -> np.ndarray:
    """Rows whose nearest K1 + 1 neighbours are not all told apart by `margin` in cosine."""
    unit = unit_rows(embeddings)
    nearest = np.sort(np.partition(-(unit @ unit.T), K1 + 1, axis=1)[:, : K1 + 2], axis=1)
    return np.flatnonzero((np.diff(nearest, axis=1) < margin).any(axis=1))


def clustered(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, D) and labels (N,); the k-th identity has about 1/k as many images as the first."""
    random = np.random.default_rng(size)
    identities = IDENTITIES.get(size, max(2, size // 15))
    shares = 1 / np.arange(1, identities + 1)
    shares[-1] = 0  # the last has a single image, which has no positive to find
    drawn = random.choice(identities, size - identities, p=shares / shares.sum())
    labels = random.permutation(np.concatenate([np.arange(identities), drawn]))
    centres = random.standard_normal((identities, DIMENSIONS))
    embeddings = np.empty((size, DIMENSIONS), np.float32)
    rows = np.arange(size)
    while len(rows):
        embeddings[rows] = centres[labels[rows]] + SPREAD * random.standard_normal((len(rows), DIMENSIONS))
        rows = nearly_tied(embeddings)
    return embeddings, labels


def write_inputs(folder: Path, size: int) -> str:
    """Saves what the implementations take; returns a line that describes it."""
    embeddings, labels = clustered(size)
    unit = unit_rows(embeddings)
    arrays = {"embeddings": embeddings, "unit": unit, "similarity": unit @ unit.T, "labels": labels}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    counts = np.bincount(labels)
    score = map_loop(arrays["similarity"], labels)
    return f"N = {size}: {len(counts)} identities of {counts.min()} to {counts.max()} images, mAP {score:.4f}"


def read_input(folder: Path, name: str) -> Any:
    if name == "output":
        return folder / "submission.csv"
    if name == "pairs":
        return all_pairs(read_input(folder, "images"))
    if name == "images":
        return [f"test_{i:05d}.jpg" for i in range(len(read_input(folder, "labels")))]
    return np.load(folder / f"{name}.npy")


def all_pairs(images: list[str]) -> pd.DataFrame:
    """The test table: every ordered pair of two images."""
    query, gallery = np.nonzero(~np.eye(len(images), dtype=bool))
    columns = {"query_image": query, "gallery_image": gallery}
    named = {key: pd.Categorical.from_codes(codes, images) for key, codes in columns.items()}
    return pd.DataFrame({"row_id": np.arange(len(query)), **named})


# Mean average precision


def mean_over_identities(precision: np.ndarray, labels: np.ndarray) -> float:
    scored = ~np.isnan(precision)
    return float(np.mean([precision[scored & (labels == k)].mean() for k in np.unique(labels[scored])]))


def map_loop(similarity: np.ndarray, labels: np.ndarray) -> float:
    """Query by query; what ties is retrieved together."""
    precision = np.full(len(labels), np.nan)
    for query, row in enumerate(similarity):
        distance, match = -np.delete(row, query), np.delete(labels, query) == labels[query]
        if match.any():
            order = np.argsort(distance)
            distance, match = distance[order], match[order]
            retrieved = np.searchsorted(distance, distance[match], "right")
            precision[query] = (np.cumsum(match)[retrieved - 1] / retrieved).mean()
    return mean_over_identities(precision, labels)


def map_ranked_matrix(similarity: np.ndarray, labels: np.ndarray) -> float:
    """Ranks the whole distance matrix, then counts matches query by query; ties fall in any order."""
    order = np.argsort(1 - similarity, axis=1)
    matches = labels[order] == labels[:, None]
    precision = np.full(len(labels), np.nan)
    for query in range(len(labels)):
        found = matches[query, order[query] != query]
        if found.any():
            precision[query] = (found.cumsum() / np.arange(1, len(labels)))[found].mean()
    return mean_over_identities(precision, labels)


def map_metric_learning(unit: np.ndarray, labels: np.ndarray) -> float:
    """k=None ranks all others; "max_bin_count" would stop at the size of the largest identity."""
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    wanted = "mean_average_precision"
    calculator = AccuracyCalculator(include=(wanted,), avg_of_avgs=True, k=None, device=torch.device("cpu"))
    return calculator.get_accuracy(unit, labels)[wanted]


# Re-ranking


def relative_distance(unit: np.ndarray) -> np.ndarray:
    """2 - 2 cos, each row divided by its maximum, (N, N)."""
    distance = 2 - 2 * (unit @ unit.T)
    return distance / distance.max(axis=1, keepdims=True)


def final_similarity(shared: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """From the sums of minima of each two rows' weights, (N, N), and the relative distances."""
    jaccard = 1 - shared / (2 - shared)
    return 1 - ((1 - LAMBDA) * jaccard + LAMBDA * distance)


def rerank_loops(embeddings: np.ndarray) -> np.ndarray:
    """Word by word, in float64: sets, a dense matrix of weights, and minima over all pairs."""
    distance = relative_distance(unit_rows(embeddings.astype(np.float64)))
    order = np.argsort(distance, axis=1)

    def mutual(i: int, length: int) -> set[int]:
        return {j for j in order[i, :length].tolist() if i in order[j, :length]}

    weights = np.zeros_like(distance)
    for i in range(len(order)):
        neighbours = mutual(i, K1 + 1)
        members = set(neighbours)
        for j in neighbours:
            half = mutual(j, HALF)
            if 3 * len(half & neighbours) > 2 * len(half):
                members |= half
        for j in members:
            weights[i, j] = np.exp(-distance[i, j])
        weights[i] /= weights[i].sum()
    weights = np.stack([weights[nearest].mean(axis=0) for nearest in order[:, :K2]])
    shared = np.stack([np.minimum(row, weights).sum(axis=1) for row in weights])
    return final_similarity(shared, distance)


def mutual_neighbours(lists: np.ndarray, i: int, length: int) -> np.ndarray:
    near = lists[i, :length]
    return near[(lists[near, :length] == i).any(axis=1)]


def expanded_neighbours(lists: np.ndarray, i: int) -> np.ndarray:
    """The mutual neighbours of i, joined by those of a neighbour that lie mostly among them."""
    neighbours = mutual_neighbours(lists, i, K1 + 1)
    parts = [neighbours]
    for j in neighbours:
        half = mutual_neighbours(lists, j, HALF)
        if 3 * len(np.intersect1d(half, neighbours, assume_unique=True)) > 2 * len(half):
            parts.append(half)
    return np.unique(np.concatenate(parts))


def normalised_weights(distance: np.ndarray) -> np.ndarray:
    weights = np.exp(-distance)
    return weights / weights.sum()


def rerank_inverted_index(embeddings: np.ndarray) -> np.ndarray:
    """In the manner of the paper's authors: a dense matrix of weights, minima only where both are not zero."""
    distance = relative_distance(unit_rows(embeddings))
    lists = np.argpartition(distance, np.arange(K1 + 1), axis=1)[:, : K1 + 1]
    weights = np.zeros_like(distance)
    for i in range(len(lists)):
        members = expanded_neighbours(lists, i)
        weights[i, members] = normalised_weights(distance[i, members])
    weights = np.stack([weights[nearest].mean(axis=0) for nearest in lists[:, :K2]])
    holders = [np.flatnonzero(column) for column in weights.T]
    shared = np.zeros_like(distance)
    for i, row in enumerate(weights):
        for j in np.flatnonzero(row):
            shared[i, holders[j]] += np.minimum(row[j], weights[holders[j], j])
    return final_similarity(shared, distance)


def rerank_faiss(embeddings: np.ndarray) -> np.ndarray:
    """As re-ID toolboxes do with faiss: it finds the neighbours, and only weights that are not zero are kept."""
    import faiss

    unit = unit_rows(embeddings)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    lists = index.search(unit, K1 + 1)[1]
    distance = relative_distance(unit)
    members = [expanded_neighbours(lists, i) for i in range(len(lists))]
    weights = [normalised_weights(distance[i, near]) for i, near in enumerate(members)]
    spread = [mean_of_sparse([members[j] for j in near], [weights[j] for j in near]) for near in lists[:, :K2]]
    rows = np.repeat(np.arange(len(lists)), [len(columns) for columns, _ in spread])
    columns, values = (np.concatenate(part) for part in zip(*spread))
    by_column = np.argsort(columns, kind="stable")
    ends = np.cumsum(np.bincount(columns, minlength=len(lists)))[:-1]
    holders, held = np.split(rows[by_column], ends), np.split(values[by_column], ends)
    shared = np.zeros_like(distance)
    for i, (near, own) in enumerate(spread):
        for j, weight in zip(near, own):
            shared[i, holders[j]] += np.minimum(weight, held[j])
    return final_similarity(shared, distance)


def mean_of_sparse(columns: list[np.ndarray], values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of sparse rows, as the columns and values that are not zero."""
    found, places = np.unique(np.concatenate(columns), return_inverse=True)
    return found, (np.bincount(places, np.concatenate(values)) / len(columns)).astype(values[0].dtype)


# Query expansion and submission


def expansion_loop(embeddings: np.ndarray) -> np.ndarray:
    """Each row as the mean of itself and its K nearest others, weighted by cosine ** alpha, scaled to length 1."""
    unit = unit_rows(embeddings)
    expanded = np.empty_like(unit)
    for i, row in enumerate(unit):
        cosines = unit @ row
        nearest = np.argsort(-cosines)[: EXPANSION_K + 1]
        total = (np.maximum(cosines[nearest], 0)[:, None] ** EXPANSION_ALPHA * unit[nearest]).sum(axis=0)
        expanded[i] = total / np.linalg.norm(total)
    return expanded


def submission_loop(path: Path, similarity: np.ndarray, images: list[str], pairs: pd.DataFrame) -> Path:
    """As notebooks do: a row after the other into a list, which becomes a table, which is written."""
    position = {name: i for i, name in enumerate(images)}
    rows = []
    for row in pairs.itertuples(index=False):
        cosine = float(similarity[position[row.query_image], position[row.gallery_image]])
        rows.append({"row_id": row.row_id, "similarity": (cosine + 1) / 2})
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


# Measuring


@dataclass(frozen=True)
class Implementation:
    name: str
    run: Callable
    takes: tuple[str, ...]
    modules: tuple[str, ...] = ()  # to be installed; imported before the clock starts


def ours(function: str, takes: tuple[str, ...], **settings: Any) -> Implementation:
    def run(*arguments: Any) -> Any:
        return getattr(import_module("jaguar_kit"), function)(*arguments, **settings)

    return Implementation("ours", run, takes, ("jaguar_kit",))


MAP, RERANK, EXPANSION = ("similarity", "labels"), ("embeddings",), ("embeddings",)
SUBMISSION = ("output", "similarity", "images", "pairs")
METRIC_LEARNING = ("torch", "faiss", "pytorch_metric_learning.utils.accuracy_calculator")

# The first peer that runs is the reference; the kit comes last.
FUNCTIONS = {
    "identity_balanced_map": (
        Implementation("loop", map_loop, MAP),
        Implementation("ranked matrix", map_ranked_matrix, MAP),
        Implementation("pytorch-metric-learning", map_metric_learning, ("unit", "labels"), METRIC_LEARNING),
        ours("identity_balanced_map", MAP),
    ),
    "k_reciprocal_rerank": (
        Implementation("loops", rerank_loops, RERANK),
        Implementation("inverted index", rerank_inverted_index, RERANK),
        Implementation("faiss", rerank_faiss, RERANK, ("faiss",)),
        ours("k_reciprocal_rerank", RERANK, k1=K1, k2=K2, lambda_value=LAMBDA),
    ),
    "query_expansion": (
        Implementation("loop", expansion_loop, EXPANSION),
        ours("query_expansion", EXPANSION, k=EXPANSION_K, alpha=EXPANSION_ALPHA),
    ),
    "write_submission": (
        Implementation("loop", submission_loop, SUBMISSION),
        ours("write_submission", SUBMISSION),
    ),
}


@dataclass(frozen=True)
class Measurement:
    name: str
    not_run: str = ""  # why, where it was not
    seconds: float = 0.0
    repeats: int = 0  # the best of which is the time; 0: the call that was checked is the one that was timed
    peak_mb: float = 0.0
    difference: float = 0.0  # largest absolute one from the reference


def one_thread() -> None:
    """The environment has set the numerical libraries; torch and faiss are told as well, where they are loaded."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(1)


def reset_peak() -> None:
    """Sets the kernel's record of this process's peak memory back to what is in use now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Largest resident memory since the last reset, in MB.

    VmHWM and not getrusage's ru_maxrss: that one keeps the peak of the process that started this one, and both would
    hide a call behind the peak of loading its inputs, had they not been reset.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


def as_values(result: Any) -> np.ndarray:
    """A result as float64; a submission as its similarities in the order of row_id."""
    if isinstance(result, Path):
        return pd.read_csv(result, index_col="row_id").similarity.sort_index().to_numpy(np.float64)
    return np.asarray(result, np.float64)


def largest_difference(values: np.ndarray, reference: Path) -> float:
    """From the saved reference, which these values become where there is none; infinite where one is not finite."""
    if not reference.is_file():
        np.save(reference, values)
    expected = np.load(reference)
    if expected.shape != values.shape:
        return float("inf")
    return float(np.nan_to_num(np.abs(values - expected), nan=np.inf).max())


def measure(function: str, name: str, folder: Path, repeat: int) -> Measurement:
    """Checks and times one implementation; to be called in a process of its own."""
    chosen = next(i for i in FUNCTIONS[function] if i.name == name)
    for module in chosen.modules:
        import_module(module)
    one_thread()
    arguments = [read_input(folder, takes) for takes in chosen.takes]
    reset_peak()
    before = peak_memory()
    started = time.perf_counter()
    result = chosen.run(*arguments)
    seconds, repeats = time.perf_counter() - started, 0
    peak = peak_memory() - before
    difference = largest_difference(as_values(result), folder / f"{function}.npy")
    del result
    if difference <= TOLERANCE and seconds <= ONCE:
        seconds, repeats = min(seconds_of(chosen.run, arguments) for _ in range(repeat)), repeat
    return Measurement(name, "", seconds, repeats, peak, difference)


def seconds_of(function: Callable, arguments: list[Any]) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def in_fresh_process(function: Callable, *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def installed(module: str) -> bool:
    return find_spec(module.partition(".")[0]) is not None


def reason_not_to_run(chosen: Implementation, size: int, naive_limit: int) -> str:
    missing = [m.partition(".")[0] for m in chosen.modules if not installed(m)]
    if missing:
        return f"{missing[0]} is not installed"
    return f"N over {naive_limit}" if chosen.run is rerank_loops and size > naive_limit else ""


def compare(function: str, size: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A row of the table; the process ends with exit code 1 where an implementation differs."""
    measured = []
    for chosen in FUNCTIONS[function]:
        reason = reason_not_to_run(chosen, size, options.naive_limit)
        if reason:
            measured.append(Measurement(chosen.name, reason))
            continue
        measured.append(in_fresh_process(measure, function, chosen.name, folder, options.repeat))
        if measured[-1].difference > TOLERANCE:
            sys.exit(f"error: {function}, N = {size}: '{chosen.name}' differs by {measured[-1].difference:.2g}")
    run = [m for m in measured if not m.not_run]
    return {
        "function": function,
        "size": size,
        "reference": run[0].name,
        "ratio": run[-1].seconds / min(m.seconds for m in run[:-1]),
        "difference": max(m.difference for m in run),
        "implementations": [asdict(m) for m in measured],
    }


# Showing


def machine(cores: int = 1) -> dict[str, str]:
    """Hardware and versions."""
    information = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in information if line.startswith("model name")), "unknown")
    packages = ("numpy", "torch", "pandas", "faiss-cpu", "pytorch-metric-learning")
    versions = {p: metadata.version(p) for p in packages if list(metadata.distributions(name=p))}
    return {"CPU": f"{model}, {cores} core{'s' * (cores > 1)} used", "python": platform.python_version(), **versions}


def in_words(row: dict[str, Any]) -> str:
    *peers, kit_row = (
        f"{m['name']} not run ({m['not_run']})"
        if m["not_run"]
        else f"{m['name']} {m['seconds']:.4g} s{'' if m['repeats'] else '*'} {m['peak_mb']:.0f} MB"
        for m in row["implementations"]
    )
    facts = f"{row['function']:<22}{row['size']:>6}  {kit_row:<26}{row['ratio']:>7.2f}{row['difference']:>9.1e}"
    return f"{facts}  {'; '.join(peers)}"


def retrieval(options: argparse.Namespace) -> None:
    told = machine()
    print(", ".join(f"{key} {value}" for key, value in told.items()))
    print(f"best of {options.repeat}; * called once; ratio: ours / fastest peer; MB: peak of a call beyond its inputs")
    print(f"{'function':<22}{'N':>6}  {'kit':<26}{'ratio':>7}{'differs':>9}  peers", flush=True)
    rows = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            print(in_fresh_process(write_inputs, Path(folder), size), flush=True)
            for function in options.functions:
                rows.append(compare(function, size, Path(folder), options))
                print(in_words(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": told, "rows": rows}, indent=2) + "\n", encoding="utf-8")


# Training


FEATURES, CATS = 675, 31  # cached features, identities
HEADS = {"baseline": (1536, 384), "lbe09": (1024, 256)}  # length of a feature, and px of the image it comes from


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


def kit_epochs(folder: Path, epochs: int, width: int) -> float:
    """Seconds an epoch."""

    trainer = head_run(epochs, width)
    started = time.perf_counter()
    trainer.fit(folder)
    return (time.perf_counter() - started) / epochs


def file_epochs(folder: Path, epochs: int, width: int, side: int) -> float:
    """Seconds an epoch of a loop that reads two files for each image and step; same head, loss and metric."""
    import jaguar_kit as jk
    import torch

    trainer = head_run(epochs, width)
    task = trainer.task
    for i, feature in enumerate(task.source.features):
        torch.save(torch.zeros(3, side, side), folder / f"image{i}.pt")
        torch.save(feature.clone(), folder / f"feature{i}.pt")

    class Files(torch.utils.data.Dataset):
        def __init__(self, positions: np.ndarray):
            self.positions = positions

        def __len__(self) -> int:
            return len(self.positions)

        def __getitem__(self, item: int) -> tuple:
            i = self.positions[item]
            image, feature = (torch.load(folder / f"{kind}{i}.pt", weights_only=True) for kind in ("image", "feature"))
            return image, feature, task.labels[i]

    head, loss = trainer.embedder.head, trainer.loss
    training = torch.utils.data.DataLoader(Files(task.train), batch_size=64, shuffle=True)
    validation = torch.utils.data.DataLoader(Files(task.validation), batch_size=64)
    optimizer = torch.optim.AdamW([*head.parameters(), *loss.parameters()], lr=5e-4, weight_decay=1e-4)
    started = time.perf_counter()
    for _ in range(epochs):
        head.train()
        for _, features, labels in training:
            optimizer.zero_grad()
            loss(head(features), labels).backward()
            optimizer.step()
        head.eval()
        with torch.no_grad():
            embeddings = torch.cat([head(features) for _, features, _ in validation])
        jk.identity_balanced_map(jk.similarity_matrix(embeddings), task.labels[task.validation])
    return (time.perf_counter() - started) / epochs


SCHEDULES = {
    "none": {"schedule": "none"},
    "step": {"schedule": "step"},
    "cosine": {"schedule": {"name": "cosine", "t_max": 100}},
    "onecycle": {"schedule": "onecycle"},
    "exponential": {"schedule": "exponential"},
    "plateau": {"schedule": "plateau"},
}


def grid_seconds(folder: Path) -> tuple[float, int, int]:
    """Seconds of the grid by the real command once its features are cached, its runs, and its training images."""
    import jaguar_kit as jk

    jk.save_backbone(folder / "convnext_base.safetensors", jk.create_backbone("convnext_base"), "convnext_base")
    model = {"backbone": "convnext_base", "weights": str(folder / "convnext_base.safetensors"), "input_size": 64}
    data = {"mini": {"identities": CATS, "images": 850}, "size": 64}
    variants = {name: {"train": settings} for name, settings in SCHEDULES.items()}
    grid = {"name": "grid", "data": data, "model": model, "variants": variants, "seeds": [42, 123, 456, 789, 2024]}
    once = {**grid, "name": "once", "variants": {}, "seeds": [], "train": {"epochs": 1}}
    for recipe in (once, grid):
        (folder / f"{recipe['name']}.yaml").write_text(json.dumps(recipe))
        started = time.perf_counter()
        command = ["run", str(folder / f"{recipe['name']}.yaml"), "--out", str(folder / "runs"), "--device", "cpu"]
        told = subprocess.run(
            [sys.executable, jk.__file__, *command], check=True, capture_output=True, text=True
        ).stdout
    images = next(int(line.split()[1]) for line in told.splitlines() if "training images" in line)
    return time.perf_counter() - started, len(pd.read_csv(folder / "runs/grid/results.csv")), images


def train(options: argparse.Namespace) -> None:
    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["JAGUAR_KIT_CACHE"] = str(folder / "cache")
        for name, (width, side) in HEADS.items():
            kit = min(kit_epochs(fresh(folder, f"kit{i}"), 20, width) for i in range(options.repeat))
            files = min(file_epochs(fresh(folder, f"files{i}"), 2, width, side) for i in range(options.repeat))
            print(f"head epoch, {FEATURES} features of {width}, images of {side} px ({name}), best of", end=" ")
            print(
                f"{options.repeat}: kit {kit * 1e3:.1f} ms, files {files * 1e3:.0f} ms, {files / kit:.1f} x", flush=True
            )
        if not options.no_grid:
            seconds, runs, images = grid_seconds(folder)
            print(f"grid of {runs} runs on {images} training images' features of 1024, once: {seconds:.1f} s")


# Optimizers in both readings


COUNTS = (183, 179, 170, 120, 113, 105, 104, 86, 86, 79, 63, 63, 62, 60, 50, 45, 36, 34, 31, 27, 23, 22, 21, 20, 19)
COUNTS += (19, 17, 16, 16, 13, 13)  # images of each jaguar of the competition
# How far images of one identity lie from its centre, and how many directions of what strength tell nothing of it, as
# those that pose and light make.
DESIGNS = {"alike in all directions": (3.0, 0, 0.0), "with four strong directions of pose and light": (2.75, 4, 10.0)}


def optimizer_run(recipe: Any, folder: Path, seed: int, spread: float, nuisance: int, strength: float) -> pd.DataFrame:
    """The log of a variant of lbe08 on synthetic features of 1,024, as many of each identity as of jaguars."""
    import torch
    from sklearn.model_selection import train_test_split

    torch.manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    features = torch.randn(len(COUNTS), 1024)[labels] + spread * torch.randn(len(labels), 1024)
    features += strength * torch.randn(len(labels), nuisance) @ torch.randn(nuisance, 1024) / max(nuisance, 1) ** 0.5
    rows = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    trainer = head_trainer(recipe, recipe.model.head.build(in_features=1024), features, labels, rows)
    trainer.fit(folder)
    return pd.DataFrame(trainer.history)


OPTIMIZERS = ("adam", "adamw", "sgd", "nesterov", "rmsprop")


def optimizer_runs(named: Sequence[str], init: str) -> list[tuple[Any, str]]:
    """The named variants of lbe08 by code, and by text where rate or momentum differ; the head begun as `init` says."""
    import jaguar_kit as jk

    path = Path(jk.__file__).parent / "recipes" / "lbe08.yaml"
    read = {}
    for reading in ("code", "text"):
        recipe = jk.load_recipe(path, [f"reading={reading}", f"model.head.init={init}", "seeds=[]"])
        read[reading] = [spec for spec in jk.expand(recipe) if spec.variant in named]
    told = {r: [(spec.recipe.train.optimizer, spec.recipe.train.lr) for spec in specs] for r, specs in read.items()}
    differ = [spec for spec, one, two in zip(read["text"], told["code"], told["text"]) if one != two]
    return [*((spec, "code") for spec in read["code"]), *((spec, "text") for spec in differ)]


def optimizer_seed(recipe: Any, seed: int, how: tuple[float, int, float]) -> tuple[float, ...]:
    """Best mAP, its epoch, epochs, mAP at epoch 20 or where the run ended before, best up to there."""
    import jaguar_kit as jk

    with tempfile.TemporaryDirectory() as folder:
        log = optimizer_run(jk.with_seed(recipe, seed), Path(folder), seed, *how)
    trained = log[log.epoch > 0]
    best, early = trained["map"].idxmax(), trained["map"][trained.epoch <= 20]
    return trained["map"][best], trained.epoch[best], len(trained), early.iloc[-1], early.max()


def optimizer_row(told: np.ndarray) -> str:
    """Means over seeds (S, 5), the spread of what decides, and the share of seeds that diverge by the study's rule."""
    best, epoch, epochs, at, by = told.mean(0)
    (low, first, *_), (high, last, *_) = told.min(0), told.max(0)
    score = f"{best:.3f} ({low:.3f}..{high:.3f})"
    return f"{score:<22}{epoch:4.0f} ({first:.0f}..{last:.0f}) of {epochs:3.0f}".ljust(44) + (
        f"{at:8.3f}{by:9.3f}{(told[:, 4] < 0.75).mean():10.0%}"
    )


def optimizers(options: argparse.Namespace) -> None:
    """lbe08 by text and by code, its head begun as the source's code does and as torch does; means over the seeds."""
    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    for design, how in DESIGNS.items():
        print(f"{sum(COUNTS)} synthetic features of 1,024, {len(COUNTS)} identities, {design}; {options.seeds} seeds")
        print("means (least..most of the seeds); at 20: at epoch 20, or the last before; by 20: the best up to there")
        print(f"{'optimizer':<11}{'reading':<9}{'init':<9}{'best mAP':<22}{'at epoch, of':<22}{'at 20':>8}", end="")
        print(f"{'by 20':>9}{'diverged':>10}", flush=True)
        for init in ("kaiming", "default"):
            for spec, reading in optimizer_runs(options.optimizers, init):
                told = [optimizer_seed(spec.recipe, seed, how) for seed in range(42, 42 + options.seeds)]
                print(f"{spec.variant:<11}{reading:<9}{init:<9}{optimizer_row(np.array(told))}", flush=True)


def waiting(device: Any) -> Callable[[], None]:
    """What returns once the device has done all that it was given."""
    import torch

    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


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


# The final recipe on a GPU


class Steps:
    """Training steps of the final recipe on random images and weights, and their parts."""

    def __init__(self, options: argparse.Namespace, plain: bool):
        import jaguar_kit as jk
        import torch

        settings = [f"model.backbone={options.backbone}", "model.pretrained=false", f"model.input_size={options.side}"]
        settings += [f"data.size={options.side}", f"train.batch_size={options.batch}", *options.override]
        settings += ["train.precision=fp32", "train.compile=false"] if plain else []
        recipe = jk.load_recipe(Path(__file__).parents[1] / "recipes" / "final.yaml", settings)
        self.device = jk.pick_device(options.device)
        rng, count = np.random.default_rng(0), options.batch * options.steps
        pixels = rng.integers(0, 256, (count, options.side, options.side, 4), dtype=np.uint8)
        pixels[..., 3] = 255 * (np.abs(np.linspace(-1, 1, options.side)) < 0.7)  # the animal fills the middle
        labels = np.arange(count) % CATS
        torch.manual_seed(0)
        self.trainer = trainer_on(recipe, self.device, pixels, labels)
        self.task, embedder, loss = self.trainer.task, self.trainer.embedder, self.trainer.loss
        if plain:  # as torch comes, without TF32
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = False
            embedder.to(memory_format=torch.contiguous_format)
        self.batch = np.arange(options.batch)
        self.labels = torch.from_numpy(labels[: options.batch]).to(self.device)
        self.ready = self.task.pixels(self.batch, training=True).contiguous()  # prepared, on the device
        self.optimizer = torch.optim.AdamW([*embedder.parameters(), *loss.parameters()]) if plain else None

    def epoch(self) -> float:
        """Seconds of one epoch by the kit, as a recipe runs it."""
        return self.seconds(lambda: self.trainer.train_epoch(1, 0, lambda: False))

    def forward_and_backward(self) -> None:
        """In the trainer's precision, on images that are prepared; gradients add up."""
        import jaguar_kit as jk

        trainer = self.trainer
        embeddings = jk.in_precision(trainer.embedder, trainer.precision)(self.ready)
        trainer.scaler.scale(trainer.loss(embeddings, self.labels)).backward()

    def plain_step(self) -> None:
        self.optimizer.zero_grad()
        self.trainer.loss(self.trainer.embedder(self.ready), self.labels).backward()
        self.optimizer.step()

    def seconds(self, function: Callable[[], Any]) -> float:
        wait = waiting(self.device)
        wait()
        started = time.perf_counter()
        function()
        wait()
        return time.perf_counter() - started

    def parts(self, repeat: int) -> dict[str, float]:
        """Seconds that each part of a step takes alone, best of `repeat`."""
        source, read = self.task.pixels, self.task.pixels.read(self.batch)
        self.trainer.embedder.train()
        timed = {
            "reading": lambda: source.read(self.batch),
            "background and augmentation": lambda: source.prepare(read, training=True),
            "forward and backward": self.forward_and_backward,
        }

        def optimizer() -> float:
            self.forward_and_backward()  # a step uses its gradients up
            return self.seconds(self.trainer.optimizer_step)

        told = {name: min(self.seconds(function) for _ in range(repeat)) for name, function in timed.items()}
        return {**told, "optimizer": min(optimizer() for _ in range(repeat))}

    def flops(self) -> int:
        """Of forward and backward of one batch."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.forward_and_backward()
        return counter.get_total_flops()


def matmul_rate(device: Any, dtype: Any, repeat: int) -> float:
    """FLOP a second of a large square matrix product."""
    import torch

    side = 8192 if device.type == "cuda" else 1024
    one = torch.randn(side, side, device=device, dtype=dtype)
    wait = waiting(device)

    def product() -> None:
        for _ in range(10):
            one @ one
        wait()

    product()
    return 20 * side**3 / min(seconds_of(product, []) for _ in range(repeat))


def gigabytes(device: Any) -> float:
    """The most memory of the GPU that was in use since the last call."""
    import torch

    if device.type != "cuda":
        return math.nan
    most = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return most


def final(options: argparse.Namespace) -> None:
    import torch

    steps = Steps(options, plain=False)
    device, precision = steps.device, steps.trainer.precision
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else machine(os.cpu_count() or 1)["CPU"]
    print(f"{name}, torch {torch.__version__}; {options.backbone}, {options.side} px, batch {options.batch}")
    gigabytes(device)
    steps.epoch()  # the first one finds its kernels
    rate = options.batch * options.steps / min(steps.epoch() for _ in range(options.repeat))
    memory, parts = [gigabytes(device)], steps.parts(options.repeat)
    del steps
    dtypes = precision or torch.float32, torch.float32
    reached = [matmul_rate(device, dtypes[0], options.repeat)]
    plain = Steps(options, plain=True)
    flops = plain.flops()
    plain.plain_step()
    gigabytes(device)
    each = [plain.seconds(lambda: [plain.plain_step() for _ in range(options.steps)]) for _ in range(options.repeat)]
    memory.append(gigabytes(device))
    reached.append(matmul_rate(device, dtypes[1], options.repeat))
    beside = options.batch * options.steps / min(each)
    for told, speed, dtype, most, used in zip(("kit", "plain"), (rate, beside), dtypes, reached, memory):
        done = flops / options.batch * speed
        print(
            f"{told:<6}{str(dtype).removeprefix('torch.'):<9}{speed:9.1f} images/s  {done / 1e12:7.2f} TFLOP/s, "
            f"{100 * done / most:.0f} % of the {most / 1e12:.1f} of a matrix product"
            + ("" if math.isnan(used) else f"  {used:.1f} GB")
        )
    print(f"kit / plain: {rate / beside:.2f}, best of {options.repeat} epochs of {options.steps} steps")
    step = options.batch / rate
    print(f"a step of {step * 1e3:.1f} ms, its parts alone:", end=" ")
    print(", ".join(f"{part} {seconds * 1e3:.1f} ms" for part, seconds in parts.items()))


def fresh(folder: Path, name: str) -> Path:
    """An empty folder, in place of an earlier one of that name."""
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).mkdir()
    return folder / name


# Data


def data(options: argparse.Namespace) -> None:
    import jaguar_kit as jk
    import torch
    from PIL import Image

    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = jk.make_mini_dataset(folder / "mini", images=240)
        paths = jk.load_competition(root).paths
        store = jk.open_store(root, paths, 256, cache=folder / "cache")
        for i in range(len(store)):
            torch.save(store.read([i])[0, :3].float() / 255, folder / f"{i}.pt")
        batches = np.array_split(np.random.default_rng(0).permutation(len(store)), len(store) // 32)
        kit = min(seconds_of(lambda: [store.read(b) for b in batches], []) for _ in range(options.repeat))

        def load(batch: np.ndarray) -> Any:
            return torch.stack([torch.load(folder / f"{i}.pt", weights_only=True) for i in batch])

        files = min(seconds_of(lambda: [load(b) for b in batches], []) for _ in range(options.repeat))
        on_disk = sum(p.stat().st_size for p in folder.glob("*.pt")), store.pixels.nbytes
        print(f"warm reads of {len(store)} images of 256 px with masks, best of {options.repeat}: kit", end=" ")
        print(
            f"{len(store) / kit:,.0f} images a second, float32 files {len(store) / files:,.0f} (without masks),",
            end=" ",
        )
        print(f"ratio {files / kit:.1f}; disk {on_disk[1] / 1e6:.0f} MB, files {on_disk[0] / 1e6:.0f} MB")
        noise = np.random.default_rng(0).normal(size=(2000, 3000)).cumsum(1)
        image = Image.fromarray((np.stack([noise, noise * 2, noise * 3, noise * 0 + 255], -1) % 256).astype(np.uint8))
        large = [f"large{i}.png" for i in range(16)]
        for path in large:
            image.save(folder / path, compress_level=1)
        one = min(seconds_of(jk.decode, [folder / large[0], None, 256, "squash", 4]) for _ in range(options.repeat))
        cold = min(
            seconds_of(jk.open_store, [folder, large, 256, "squash", None, "stop", folder / f"cold{i}"])
            for i in range(options.repeat)
        )
        cores = os.cpu_count() or 1
        print(
            f"cold decoding of 3000 x 2000 RGBA PNGs, best of {options.repeat}: one core {1 / one:.2f} a second,",
            end=" ",
        )
        print(
            f"kit on {cores} cores {len(large) / cold:.2f}, {one * len(large) / cold / cores:.2f} of cores x one core"
        )


# Augmentation


def torchvision_policies() -> dict[str, Any]:
    """The kit's policies in torchvision v2, for float images (3, H, W)."""
    from torchvision.transforms import InterpolationMode, v2

    bilinear = InterpolationMode.BILINEAR  # as the kit's; torchvision's own is the nearest pixel
    flip, rotation = v2.RandomHorizontalFlip(), partial(v2.RandomRotation, interpolation=bilinear)
    affine = v2.RandomAffine(10, (0.05, 0.05), (0.95, 1.05), interpolation=bilinear)
    return {
        "affine_erasing": [flip, affine, v2.RandomErasing(0.7, (0.02, 0.25))],
        "elastic_rotation_perspective": [
            flip,
            v2.ElasticTransform(50.0, 5.0),
            rotation(20),
            v2.RandomPerspective(0.2, 0.5),
        ],
        "mimic_camera": [
            flip,
            v2.RandomApply([v2.ElasticTransform(35.0, 8.0)], 0.5),
            v2.RandomPerspective(0.3, 0.5),
            rotation(30),
            v2.RandomErasing(0.5, (0.02, 0.3)),
        ],
        "combined": [
            flip,
            affine,
            v2.RandomApply([v2.ElasticTransform(35.0, 8.0)], 0.5),
            v2.RandomPerspective(0.2, 0.5),
            rotation(20),
            v2.RandomErasing(0.5, (0.02, 0.25)),
        ],
        "autoaugment": [v2.AutoAugment(interpolation=bilinear)],
        "randaugment": [v2.RandAugment(interpolation=bilinear)],
        "full": [
            lambda side: v2.RandomResizedCrop(side, (0.5, 1.0), antialias=True),
            flip,
            rotation(15),
            v2.RandomApply([v2.ColorJitter(0.2, 0.2, 0.2, 0.05)], 0.8),
            v2.AutoAugment(interpolation=bilinear),
            v2.RandomErasing(0.25, (0.02, 0.2)),
        ],
    }


def augment(options: argparse.Namespace) -> None:
    import jaguar_kit
    import torch
    from torchvision.transforms import v2

    device = jaguar_kit.pick_device(options.device)
    pixels = torch.randint(0, 256, (options.batch, 4, options.side, options.side), dtype=torch.uint8).to(device)
    wait = waiting(device)
    print(f"{options.batch} images of {options.side} px on {device}, best of {options.repeat}; images a second")
    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    print(f"{'policy':<30}{'kit':>8}{'torchvision':>13}{'ratio':>7}", flush=True)
    for name, steps in torchvision_policies().items():
        policy = (jaguar_kit.Component("augmentation", name),)
        prepare = jaguar_kit.Preparation(
            jaguar_kit.Component("background", "original"), policy, options.side, (0, 0, 0), (1, 1, 1)
        )
        theirs = v2.Compose([step(options.side) if type(step).__name__ == "function" else step for step in steps])

        def kit(prepare: Any = prepare) -> None:
            prepare.images(pixels, training=True)
            wait()

        def peer(theirs: Any = theirs) -> None:
            for image in pixels[:, :3]:
                theirs(image.float() / 255)
            wait()

        rates = []
        for run in (kit, peer):
            run()  # the first call builds tables
            rates.append(options.batch / min(seconds_of(run, []) for _ in range(options.repeat)))
        print(f"{name:<30}{rates[0]:>8.0f}{rates[1]:>13.0f}{rates[0] / rates[1]:>7.2f}", flush=True)


def evidence(options: argparse.Namespace) -> None:
    import jaguar_kit as jk
    import torch

    device = jk.pick_device(options.device)
    wait = waiting(device)
    draw = np.random.default_rng(0)
    images = options.images
    described = torch.nn.functional.normalize(
        torch.from_numpy(draw.standard_normal((images, 512, 128), np.float32)), dim=2
    )
    features = jk.LocalFeatures(torch.zeros(images, 512, 2), described.half())
    logits = torch.from_numpy(draw.standard_normal((options.size, 31), np.float32)).to(device)
    matrices = {
        name: torch.rand(options.size, options.size, device=device) for name in ("likeness", "posterior", "local")
    }
    state = jk.Retrieval(logits, matrices["likeness"], jk.Cosine(), evidence=matrices)
    pairs = images * (images - 1) // 2
    detectors = [name for name in ("sift", "aliked") if name == "sift" or jk.find_weights(["aliked_n16"], None, "")]
    textures = np.kron(draw.integers(0, 256, (8, 60, 60, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    found = {name: jk.load_detector(name, 512) for name in detectors}
    pixels = torch.from_numpy(textures).permute(0, 3, 1, 2).float() / 255
    timed = {f"spots by {name}, an image of 480 px": lambda d=detect: d(pixels[:1]) for name, detect in found.items()}
    timed |= {
        f"local_similarity, {pairs:,} pairs of 512 spots": lambda: jk.local_similarity(features, device=device),
        f"closed_set_posterior, {options.size:,} x 31": lambda: jk.closed_set_posterior(logits),
        f"fuse, three matrices of {options.size:,} x {options.size:,}": lambda: jk.fuse_step(state),
    }
    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    for name, function in timed.items():
        reset_peak()
        before = peak_memory()
        best = math.inf
        for _ in range(1 if "local" in name else options.repeat):
            with torch.no_grad():
                best = min(best, seconds_of(lambda f=function: (f(), wait()), []))
        print(f"{name:<52}{best:>9.3f} s{peak_memory() - before:>8.0f} MB", flush=True)


def gpu(options: argparse.Namespace) -> None:
    import bench_gpu
    from jaguar_kit import KitError, suggest

    for part in set(options.parts or ()) - set(bench_gpu.PARTS):
        raise KitError(f"--parts: {part!r} is not known; {suggest(part, bench_gpu.PARTS)}")
    bench_gpu.gpu(options)


def season(options: argparse.Namespace) -> None:
    from bench_season import season as run

    table = run(options)
    if options.out:
        table.to_json(options.out, orient="records", indent=2)


def scale(options: argparse.Namespace) -> None:
    from bench_scale import scale as run

    run(options)


def whole_number(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def output_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file in an existing folder")
    return path


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.py", description="Measures the kit against other ways to do the same.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("retrieval", help="mAP, re-ranking, query expansion, submission: checked, then timed")
    command.set_defaults(run=retrieval)
    size, count, sizes = partial(whole_number, least=2 * K1), partial(whole_number, least=1), [*IDENTITIES]
    add = command.add_argument
    add("--sizes", type=size, nargs="+", default=sizes, metavar="N", help="numbers of images (371 2000 5000)")
    add("--functions", choices=FUNCTIONS, nargs="+", default=[*FUNCTIONS], metavar="F", help="only these (all four)")
    add("--repeat", type=count, default=3, metavar="R", help="timed calls, the best of which counts (3)")
    add("--naive-limit", type=whole_number, default=2000, metavar="N", help="largest N to re-rank by loops (2000)")
    add("--json", type=output_file, metavar="FILE", help="file for the rows as JSON")
    command = commands.add_parser("augment", help="images a second through each policy, beside torchvision v2")
    command.set_defaults(run=augment)
    add = command.add_argument
    add("--batch", type=count, default=32, metavar="B", help="images in a batch (32)")
    add("--side", type=count, default=256, metavar="PX", help="side of an image (256)")
    add("--repeat", type=count, default=5, metavar="R", help="timed calls, the best of which counts (5)")
    add("--device", default="auto", help="auto, cpu or cuda")
    command = commands.add_parser("train", help="head epochs on cached features, and a whole grid")
    command.set_defaults(run=train)
    command.add_argument(
        "--repeat", type=count, default=3, metavar="R", help="timed runs, the best of which counts (3)"
    )
    command.add_argument("--no-grid", action="store_true", help="leave the grid out")
    command = commands.add_parser(
        "optimizers", help="lbe08 by its source's text and by its code, on synthetic features"
    )
    command.set_defaults(run=optimizers)
    add, few = command.add_argument, ["adamw", "sgd", "rmsprop"]
    add("--seeds", type=count, default=5, metavar="S", help="runs of each (5)")
    add("--optimizers", choices=OPTIMIZERS, nargs="+", default=few, metavar="O", help="only these (adamw sgd rmsprop)")
    command = commands.add_parser("final", help="training steps of the final recipe on a GPU, beside plain fp32")
    command.set_defaults(run=final)
    add = command.add_argument
    add("--backbone", default="dinov3_l", help="as in a recipe (dinov3_l)")
    add("--batch", type=count, default=32, metavar="B", help="images in a batch (32)")
    add("--side", type=count, default=256, metavar="PX", help="side of an image (256)")
    add("--steps", type=count, default=30, metavar="S", help="steps of an epoch (30)")
    add("--repeat", type=count, default=3, metavar="R", help="timed epochs, the best of which counts (3)")
    add("--device", default="cuda", help="cuda or cpu")
    add("-o", "--override", action="append", default=[], metavar="SETTING=VALUE", help="a setting of the recipe")
    command = commands.add_parser("evidence", help="matching spots, posterior and fusion: seconds and memory")
    command.set_defaults(run=evidence)
    add = command.add_argument
    add("--images", type=count, default=375, metavar="N", help="images whose spots are matched, all pairs (375)")
    add("--size", type=count, default=5000, metavar="N", help="images of posterior and fusion (5000)")
    add("--repeat", type=count, default=3, metavar="R", help="timed calls, the best of which counts (3)")
    add("--device", default="auto", help="auto, cpu or cuda")
    command = commands.add_parser("gpu", help="what only a GPU can tell, within eight minutes, beside its targets")
    command.set_defaults(run=gpu)
    add = command.add_argument
    add("--device", default="cuda", help="cuda or cpu")
    add("--quick", action="store_true", help="tiny sizes, to try the script itself")
    add("--parts", nargs="+", metavar="PART", help="only these (all)")
    add("--json", type=output_file, metavar="FILE", help="file for the lines as JSON")
    command = commands.add_parser("season", help="three weeks of photographs, with decisions in between")
    command.set_defaults(run=season)
    add = command.add_argument
    add("--data", required=True, help="folder in the competition's layout, with solution.csv")
    model = command.add_mutually_exclusive_group(required=True)
    model.add_argument("--backbone", help="name or safetensors file")
    model.add_argument("--weights", help="a trained run, of other individuals")
    add("--local", action="store_true", help="matching spots as well")
    add("--sure", type=float, default=0.95, help="least probability of a sure name (0.95)")
    add("--seed", type=int, default=0, help="of strangers, weeks and errors (0)")
    add("--out", type=output_file, help="a JSON file")
    command = commands.add_parser("scale", help="how seconds and memory grow with the number of images")
    command.set_defaults(run=scale)
    add = command.add_argument
    add("--whole", action="store_true", help="up to 50,000 images, where memory allows")
    add("--quick", action="store_true", help="a tenth of the sizes, to try the script itself")
    add("--functions", nargs="+", metavar="F", help="only these (all)")
    add("--limit", type=count, default=120, metavar="S", help="seconds that a call may be expected to take (120)")
    add("--json", type=output_file, metavar="FILE", help="file for the rows as JSON")
    command = commands.add_parser("data", help="warm reads and cold decoding of images")
    command.set_defaults(run=data)
    command.add_argument(
        "--repeat", type=count, default=3, metavar="R", help="timed calls, the best of which counts (3)"
    )
    options = parser.parse_args(argv)
    if not installed("jaguar_kit"):
        parser.error("jaguar_kit is not installed (expected: pip install -e . in the project's folder)")
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if options.run in (retrieval, scale):
        os.environ.update(ONE_THREAD)  # read by the processes started from here, before they import numpy or torch
    from jaguar_kit import KitError

    try:
        options.run(options)
    except KitError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
