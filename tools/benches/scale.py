"""How seconds and memory grow with the number of images: python tools/bench.py scale [--whole] [--json FILE].

Every measurement has a fresh process with one thread to itself, which calls the function once on little, then counts
the most memory that one call takes beyond its inputs, the result included. Seconds are those that the process had a
core, the best of up to three calls, so that what else the machine does counts little. Memory of what works on matrices
is in matrices of N x N float32, of all else in MiB. Below the sizes stands the exponent by which seconds grow (the
slope of their logarithms), and what the target's size takes: measured, or else carried on, seconds by that exponent,
memory from the two largest sizes: in matrices by a line in N x N, which blocks of rows blur, else by a power of N.

Of a size nothing is measured that may not fit what memory is free, or may take longer than --limit. --quick tells sizes
alone: blocks of rows hide what is small. The functions, their inputs and the targets are in scale_cases.py.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import jaguar_kit as jk
import numpy as np

from .measuring import ONE_THREAD, count, machine, one_thread, output_file, peak_memory, reset_peak
from .scale_cases import CASES, MIB, Call, Case

FEW = 300  # images of the call before what is measured


@dataclass(frozen=True)
class Measurement:
    size: int
    seconds: float
    memory: float  # bytes of a call beyond its inputs
    inputs: float  # bytes


def resident() -> float:
    """Bytes in use now; the record of the most begins anew, what was freed goes back first."""
    ctypes.CDLL(None).malloc_trim(0)
    reset_peak()
    return peak_memory() * 1e6


def core_seconds(call: Call) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def measure(name: str, size: int, kit: str) -> Measurement:
    """To be called in a process of its own, which must have loaded the same kit."""
    if kit != jk.__file__:
        raise RuntimeError(f"loaded {jk.__file__} in place of {kit}")
    one_thread()
    case = CASES[name]
    case.make(min(size, FEW))()  # loads what is loaded when first needed
    empty = resident()
    call = case.make(size)
    before = resident()
    seconds = [core_seconds(call)]
    most = peak_memory() * 1e6
    while len(seconds) < 3 and sum(seconds) < 2:
        seconds.append(core_seconds(call))
    return Measurement(size, min(seconds), most - before, before - empty)


def in_new_process(name: str, size: int) -> Measurement:
    """`measure` in a child of a process that has loaded the kit but measured nothing."""
    paths = os.pathsep.join(filter(None, sys.path))
    os.environ.update(PYTHONPATH=paths, PYTHONSAFEPATH="1")  # which that process reads, to load the same modules
    context = get_context("forkserver")
    context.set_forkserver_preload(["jaguar_kit"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(jk.call_in_room, "benches.scale", "measure", name, size, jk.__file__).result()


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


def run(options: argparse.Namespace) -> None:
    """Measures all functions, or those asked for, and prints the table as it grows."""
    for name in sorted(set(options.functions or ()) - set(CASES)):
        raise jk.KitError(f"--functions: {name!r} is not known; {jk.suggest(name, CASES)}")
    os.environ.update(ONE_THREAD)  # read by the processes started from here
    told, rows, begun = machine(), [], time.monotonic()
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


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--whole", action="store_true", help="up to 50,000 images, where memory allows")
    add("--quick", action="store_true", help="a tenth of the sizes, to try the script itself")
    add("--functions", nargs="+", metavar="F", help="only these (all)")
    add("--limit", type=count, default=120, metavar="S", help="seconds that a call may be expected to take (120)")
    add("--json", type=output_file, metavar="FILE", help="file for the rows as JSON")
