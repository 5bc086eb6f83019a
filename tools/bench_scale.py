"""How seconds and memory grow with the number of images: python tools/bench.py scale [--whole] [--json FILE].

Every measurement has a fresh process with one thread to itself, which calls the function once on little, then counts
the most memory that one call takes beyond its inputs, the result included. Seconds are those that the process had a
core, the best of up to three calls, so that what else the machine does counts little. Memory of what works on matrices
is in matrices of N x N float32, of all else in MiB. Below the sizes stands the exponent by which seconds grow (the
slope of their logarithms), and what the target's size takes: measured, or else carried on, seconds by that exponent,
memory from the two largest sizes: in matrices by a line in N x N, which blocks of rows blur, else by a power of N.

Data: seeded; tables of N images and N / 5 identities with a long tail, twenty images of a date; matrices of N / 15
identities with a long tail, from embeddings of 64 dimensions. Of a size nothing is measured that may not fit what
memory is free, or may take longer than --limit. --quick tells sizes alone: blocks of rows hide what is small.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import bench
import jaguar_kit as jk
import numpy as np
import pandas as pd
import torch

MIB = 2**20
DIMENSIONS, CLASSES = 64, 31
NEAREST = 100
N_LOG_N = 1.2  # the largest exponent that passes for n log n at these sizes, for which the slope is 1.1
FEW = 300  # images of the call before what is measured

Call = Callable[[], Any]


# Inputs: each returns what is then measured


def long_tailed(size: int, identities: int) -> np.ndarray:
    """Labels (N,), the k-th identity's images being about 1 / k of the first's, at least one of each."""
    shares = 1 / np.arange(1, identities + 1)
    rng = np.random.default_rng(size)
    drawn = rng.choice(identities, size - identities, p=shares / shares.sum())
    return rng.permutation(np.r_[np.arange(identities), drawn])


def table_of(size: int) -> pd.DataFrame:
    """Images in the order of their files, numbered within a folder for each identity."""
    labels = np.sort(long_tailed(size, size // 5))
    names = pd.Series([f"id{label}" for label in labels])
    files = [f"{name}/IMG_{i:06d}.jpg" for i, name in enumerate(names)]
    dates = [f"2026-{i // 20 // 28 % 12 + 1:02d}-{i // 20 % 28 + 1:02d}" for i in range(size)]
    return pd.DataFrame({"filename": files, "path": files, "identity": names, "date": dates})


def hashes_of(size: int) -> np.ndarray:
    """Perceptual hashes, bool (N, 64), alike by twos."""
    return np.random.default_rng(size).integers(0, 2, (size // 2 + 1, 64), np.uint8).astype(bool).repeat(2, 0)[:size]


def embeddings_of(size: int) -> tuple[torch.Tensor, np.ndarray]:
    labels, rng = long_tailed(size, size // 15), np.random.default_rng(size)
    centres = rng.standard_normal((size // 15, DIMENSIONS), np.float32)
    noise = bench.SPREAD * rng.standard_normal((size, DIMENSIONS), np.float32)
    return torch.from_numpy(centres[labels] + noise), labels


def matrix_of(size: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([size, seed]).random((size, size), np.float32))


def logits_of(size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(size).standard_normal((size, CLASSES), np.float32))


def pk(size: int) -> Call:
    rows, codes = np.arange(size), long_tailed(size, size // 5)
    return lambda: jk.pk_batches(rows, codes, 0, np.random.default_rng(0))


def pk_of_one(size: int) -> Call:
    """Half of the images show one identity, so that most batches draw others again."""
    rows, codes = np.arange(size), np.arange(size) % (size // 5)
    codes[size // 2 :] = 0
    return lambda: jk.pk_batches(rows, codes, 0, np.random.default_rng(0))


def apart(size: int) -> Call:
    table, groups = table_of(size), np.arange(size) // 2
    return lambda: jk.apart(table, groups, 0, 0.2)


def encounters_in(size: int) -> Call:
    table = table_of(size)
    return lambda: jk.encounters_in(table, "date")


def encounters_of(size: int) -> Call:
    table, hashes, identifying = table_of(size), hashes_of(size), jk.room("identify.identify")
    return lambda: identifying.encounters_of(table, hashes)


def likeness_of_pairs(size: int) -> Call:
    """Four pairs of each image."""
    identifying = jk.room("identify.identify")
    likeness = identifying.Likeness(embeddings_of(size)[0], jk.as_geometry(None))
    pairs = np.stack([np.arange(4 * size) // 4, np.random.default_rng(0).integers(0, size, 4 * size)], 1)
    return lambda: identifying.likeness_of_pairs(likeness, pairs)


def find_bursts(size: int) -> Call:
    table, hashes = table_of(size), hashes_of(size)
    return lambda: jk.find_bursts(table, hashes)


def closed_set_posterior(size: int) -> Call:
    logits = logits_of(size)
    return lambda: jk.closed_set_posterior(logits)


def evidence_of(size: int) -> jk.Retrieval:
    """Two kinds of evidence, as they stand before fusion."""
    one, other = matrix_of(size), matrix_of(size, 1)
    return jk.Retrieval(torch.zeros(size, 1), one, jk.as_geometry(None), evidence={"likeness": one, "posterior": other})


def fuse(size: int) -> Call:
    """By isotonic regression, fitted on few pairs."""
    scores, rng = [matrix_of(size), matrix_of(size, 1)], np.random.default_rng(0)
    fitted = jk.fit_calibration(values := rng.random(1000), rng.random(1000) < values)
    return lambda: jk.fuse(scores, [fitted, fitted])


def fuse_step(size: int) -> Call:
    state = evidence_of(size)
    return lambda: jk.fuse_step(state)


def rank_average(size: int) -> Call:
    scores = list(evidence_of(size).evidence.values())
    return lambda: jk.rank_average(*scores)


def posterior_step(size: int) -> Call:
    """With the logarithms that `fuse` takes."""
    logits, raw = logits_of(size), matrix_of(size)
    state = jk.Retrieval(logits, raw, jk.as_geometry(None), logits=lambda _: logits, similarity=raw)
    return lambda: jk.posterior_step(state)


def retrieval_metrics(size: int) -> Call:
    embeddings, labels = embeddings_of(size)
    similarity = jk.similarity_matrix(embeddings)
    return lambda: jk.retrieval_metrics(similarity, labels)


def metrics_of_embeddings(size: int) -> Call:
    embeddings, labels = embeddings_of(size)
    return lambda: jk.identity_balanced_map(jk.similarity_rows(embeddings), labels)


def top_k(size: int) -> Call:
    embeddings = embeddings_of(size)[0]
    return lambda: jk.top_k(embeddings, embeddings, min(NEAREST, size))


def shortlist_rescore(size: int) -> Call:
    similarity = matrix_of(size)
    return lambda: jk.shortlist_rescore(similarity, lambda queries, candidates: candidates % 7)


def k_reciprocal_rerank(size: int) -> Call:
    embeddings = embeddings_of(size)[0]
    return lambda: jk.k_reciprocal_rerank(embeddings)


@dataclass(frozen=True)
class Case:
    """What is measured at which sizes; targets hold at the size `at`, of memory in the case's unit."""

    make: Callable[[int], Call]
    sizes: tuple[int, ...]
    whole: tuple[int, ...] = ()  # sizes of --whole
    square: bool = False  # memory in matrices of N x N float32
    at: int = 0
    seconds: float = math.inf
    memory: float = math.inf
    exponent: float = math.inf

    def unit(self, size: int) -> int:
        return 4 * size**2 if self.square else MIB

    def memory_words(self, value: float) -> str:
        return f"{value:.2f} x N x N" if self.square else f"{value:,.0f} MiB"


TABLES = (12_500, 25_000, 50_000, 100_000)
MATRICES, SMALL = (2_000, 4_000, 6_000, 8_000), (2_500, 5_000, 10_000, 20_000)
WHOLE = (16_000, 32_000, 50_000)


def of_table(make: Callable[[int], Call], **target: float) -> Case:
    return Case(make, TABLES, at=TABLES[-1], exponent=N_LOG_N, **target)


def of_matrix(make: Callable[[int], Call], **target: float) -> Case:
    return Case(make, MATRICES, WHOLE, square=True, at=WHOLE[-1], **target)


def of_embeddings(make: Callable[[int], Call], sizes: tuple[int, ...] = SMALL) -> Case:
    return Case(make, sizes, WHOLE[-1:], at=WHOLE[-1], memory=2048)


CASES = {
    "pk_batches": of_table(pk, seconds=5),
    "pk_batches, half of one": of_table(pk_of_one, seconds=5),
    "apart": of_table(apart),
    "encounters_in": of_table(encounters_in),
    "find_bursts": of_table(find_bursts),
    "encounters_of": of_table(encounters_of),
    "likeness_of_pairs": of_table(likeness_of_pairs),
    "closed_set_posterior": of_matrix(closed_set_posterior, memory=1.3),
    "posterior_step": of_matrix(posterior_step),
    "fuse": of_matrix(fuse, memory=1.3),
    "fuse_step": of_matrix(fuse_step, memory=1.3),
    "rank_average": of_matrix(rank_average, memory=1.3),
    "retrieval_metrics": of_matrix(retrieval_metrics),
    "shortlist_rescore": of_matrix(shortlist_rescore),
    "k_reciprocal_rerank": of_matrix(k_reciprocal_rerank),
    "top_k": of_embeddings(top_k),
    "metrics of embeddings": of_embeddings(metrics_of_embeddings, MATRICES),
}


# Measuring


@dataclass(frozen=True)
class Measurement:
    size: int
    seconds: float
    memory: float  # bytes of a call beyond its inputs
    inputs: float  # bytes


def resident() -> float:
    """Bytes in use now; the record of the most begins anew, what was freed goes back first."""
    ctypes.CDLL(None).malloc_trim(0)
    bench.reset_peak()
    return bench.peak_memory() * 1e6


def core_seconds(call: Call) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def measure(name: str, size: int, kit: str) -> Measurement:
    """To be called in a process of its own, which must have loaded the same kit."""
    if kit != jk.__file__:
        raise RuntimeError(f"loaded {jk.__file__} in place of {kit}")
    bench.one_thread()
    case = CASES[name]
    case.make(min(size, FEW))()  # loads what is loaded when first needed
    empty = resident()
    call = case.make(size)
    before = resident()
    seconds = [core_seconds(call)]
    most = bench.peak_memory() * 1e6
    while len(seconds) < 3 and sum(seconds) < 2:
        seconds.append(core_seconds(call))
    return Measurement(size, min(seconds), most - before, before - empty)


def in_new_process(name: str, size: int) -> Measurement:
    """`measure` in a child of a process that has loaded all modules but measured nothing."""
    paths = os.pathsep.join(filter(None, sys.path))
    os.environ.update(PYTHONPATH=paths, PYTHONSAFEPATH="1")  # which that process reads, to load the same modules
    context = get_context("forkserver")
    context.set_forkserver_preload(["bench_scale"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, name, size, jk.__file__).result()


def free_memory() -> float:
    """Bytes that processes can have without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def reason_against(done: Sequence[Measurement], size: int, limit: float) -> str:
    """Why a size is not tried, by what the one before took if all grows with N x N; else nothing."""
    if not done:
        return ""
    growth = (size / done[-1].size) ** 2
    needed, free = growth * (done[-1].memory + done[-1].inputs), 0.9 * free_memory()
    seconds = growth * done[-1].seconds
    if needed > free:
        return f"not run: takes up to {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free"
    return f"not run: takes up to {seconds:,.0f} s (--limit)" if seconds > limit else ""


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The power of N by which values grow."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0]) if len(sizes) > 1 else math.nan


def carried_on(case: Case, done: Sequence[Measurement]) -> tuple[float, float]:
    """Seconds, and memory in the case's unit, at the target's size: as measured, or carried on."""
    last = done[-1]
    if last.size == case.at or len(done) < 2:
        known = last.size == case.at
        return (last.seconds, last.memory / case.unit(last.size)) if known else (math.nan, math.nan)
    sizes = [one.size for one in done[-2:]]
    ratio = case.at / last.size
    seconds = last.seconds * ratio ** slope([one.size for one in done], [one.seconds for one in done])
    memories = [one.memory for one in done[-2:]]
    if case.square:
        rise = (memories[1] - memories[0]) / (sizes[1] ** 2 - sizes[0] ** 2)
        return seconds, (last.memory + rise * (case.at**2 - last.size**2)) / case.unit(case.at)
    return seconds, last.memory * ratio ** slope(sizes, memories) / MIB


def judged(value: float, words: str, most: float, most_words: str) -> str:
    """A value beside its target."""
    if math.isinf(most):
        return words
    met = "cannot be told" if math.isnan(value) else "met" if value <= most else "MISSED"
    return f"{words} (at most {most_words}: {met})"


def summary(case: Case, done: Sequence[Measurement]) -> str:
    """The exponent, and seconds and memory at the target's size, each beside its target."""
    seconds, memory = carried_on(case, done)
    exponent = slope([one.size for one in done], [one.seconds for one in done])
    how = "" if done and done[-1].size == case.at else ", carried on"
    told = [
        judged(exponent, f"N ** {exponent:.2f}", case.exponent, f"{case.exponent:g}"),
        judged(seconds, f"at {case.at:,}{how}: {seconds:,.1f} s", case.seconds, f"{case.seconds:g} s"),
        judged(memory, case.memory_words(memory), case.memory, case.memory_words(case.memory)),
    ]
    return ", ".join(told)


def measured(name: str, case: Case, options: argparse.Namespace) -> list[Measurement]:
    """A line for each size, until one takes too much."""
    done: list[Measurement] = []
    sizes = case.sizes + (case.whole if options.whole else ())
    for size in (s // 10 for s in sizes) if options.quick else sizes:
        reason = reason_against(done, size, options.limit)
        try:
            told = None if reason else in_new_process(name, size)
        except BrokenProcessPool:
            told, reason = None, "its process was killed"
        if told is None:
            print(f"{name:<26}{size:>9,}  {reason}", flush=True)
            break
        done.append(told)
        memory = case.memory_words(told.memory / case.unit(size))
        print(f"{name:<26}{size:>9,}{told.seconds:>11.3f} s{memory:>17}", flush=True)
    return done


def scale(options: argparse.Namespace) -> None:
    """Measures all functions, or those asked for, and prints the table as it grows."""
    for name in sorted(set(options.functions or ()) - set(CASES)):
        raise jk.KitError(f"--functions: {name!r} is not known; {jk.suggest(name, CASES)}")
    told, rows, begun = bench.machine(), [], time.monotonic()
    print(", ".join(f"{key} {value}" for key, value in told.items()))
    print(f"{'function':<26}{'N':>9}{'seconds':>13}{'extra memory':>17}", flush=True)
    for name in options.functions or CASES:
        done = measured(name, CASES[name], options)
        line = summary(CASES[name], done) if done and not options.quick else ""
        if line:
            print(f"{'':<11}{line}", flush=True)
        rows.append({"function": name, "sizes": [asdict(one) for one in done], "summary": line})
    print(f"{time.monotonic() - begun:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps({"machine": told, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit("bench_scale.py is a part of tools/bench.py")
