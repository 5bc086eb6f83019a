"""The steps that follow the embeddings, checked, then timed: python tools/bench.py retrieval.

For each N in --sizes:

    identity_balanced_map   peers: a loop over queries; the ranked matrix of re-ID toolboxes; pytorch-metric-learning
    k_reciprocal_rerank     peers: loops over all pairs; the paper's inverted index; faiss as in re-ID toolboxes
    query_expansion         peer: a loop over rows
    write_submission        peer: a loop that collects rows; the kit also reads its file back, the loop does not

The peers are in peers.py. pytorch-metric-learning is set to rank all N - 1 others and to take the mean per identity; it
starts from embeddings, so its time includes the search for neighbours. It and faiss are measured where they are
installed (`pip install .[bench]`).

Data: seeded, N images of long-tailed identities, D = 256, float32; images whose order of neighbours would hang on
rounding are drawn again, since no two implementations need agree on those.

Correctness comes first: each implementation is called once and compared with the reference, the first peer that runs at
that N; a difference over 1e-5 ends the benchmark with exit code 1. Then it is timed, best of --repeat; one that took
longer than 20 s is not called again (marked *). Each has a fresh process with one thread to itself. Peak memory is what
the first call needs beyond what was there before it, its result included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .measuring import (
    ONE_THREAD,
    add_repeat,
    in_fresh_process,
    installed,
    machine,
    one_thread,
    output_file,
    peak_memory,
    reset_peak,
    seconds_of,
    whole_number,
)
from .peers import (
    EXPANSION_ALPHA,
    EXPANSION_K,
    K2,
    LAMBDA,
    expansion_loop,
    map_loop,
    map_metric_learning,
    map_ranked_matrix,
    rerank_faiss,
    rerank_inverted_index,
    rerank_loops,
    submission_loop,
)
from .samples import IDENTITIES, K1, clustered, unit_rows

TOLERANCE = 1e-5
ONCE = 20.0  # seconds; slower calls are not repeated


# Inputs


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


# Implementations


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


# Measuring


@dataclass(frozen=True)
class Measurement:
    name: str
    not_run: str = ""  # why, where it was not
    seconds: float = 0.0
    repeats: int = 0  # the best of which is the time; 0: the call that was checked is the one that was timed
    peak_mb: float = 0.0
    difference: float = 0.0  # largest absolute one from the reference


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


def in_words(row: dict[str, Any]) -> str:
    *peers, kit_row = (
        f"{m['name']} not run ({m['not_run']})"
        if m["not_run"]
        else f"{m['name']} {m['seconds']:.4g} s{'' if m['repeats'] else '*'} {m['peak_mb']:.0f} MB"
        for m in row["implementations"]
    )
    facts = f"{row['function']:<22}{row['size']:>6}  {kit_row:<26}{row['ratio']:>7.2f}{row['difference']:>9.1e}"
    return f"{facts}  {'; '.join(peers)}"


def run(options: argparse.Namespace) -> None:
    os.environ.update(ONE_THREAD)  # read by the processes started from here, before they import numpy or torch
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


def add_options(command: argparse.ArgumentParser) -> None:
    add, size, sizes = command.add_argument, partial(whole_number, least=2 * K1), [*IDENTITIES]
    add("--sizes", type=size, nargs="+", default=sizes, metavar="N", help="numbers of images (371 2000 5000)")
    add("--functions", choices=FUNCTIONS, nargs="+", default=[*FUNCTIONS], metavar="F", help="only these (all four)")
    add_repeat(command)
    add("--naive-limit", type=whole_number, default=2000, metavar="N", help="largest N to re-rank by loops (2000)")
    add("--json", type=output_file, metavar="FILE", help="file for the rows as JSON")
