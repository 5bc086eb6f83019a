"""30 short runs by a plain loop, by processes, by Dask and in parts at once: python tools/bench.py engines.

The grid is that of `train`, with few epochs, on features that lie in the cache: what is left is what an engine costs.
All add up by one thread, so that sums are the same.
Every way runs by the real command, its report included, and must leave the same results.csv.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import pandas as pd

from .measuring import machine
from .train import command, timed, write_grid

TIMES = ["seconds", "images_per_second", "embedded_per_second"]


def results(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "grid" / "results.csv")
    return table.drop(columns=TIMES, errors="ignore")


def run(options: argparse.Namespace) -> None:
    cores = os.cpu_count() or 1
    print(", ".join(f"{key} {value}" for key, value in machine(cores).items()))
    jobs = ("--jobs", str(options.jobs))
    ways = {
        "plain loop": [("--jobs", "1")],
        f"{options.jobs} processes (loky)": [jobs],
        f"Dask, {options.jobs} workers of its own": [(*jobs, "--engine", "dask")],
        f"{options.jobs} parts at once on one folder": [
            ("--jobs", "1", "--part", f"{part + 1}/{options.jobs}") for part in range(options.jobs)
        ],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update(JAGUAR_KIT_CACHE=str(folder / "cache"), OMP_NUM_THREADS="1")
        write_grid(folder, epochs=options.epochs)
        timed(command(folder, "once"))
        plain = None
        for number, (way, sessions) in enumerate(ways.items()):
            out = f"runs{number}"
            seconds, _ = timed(*[command(folder, "grid", out, *session) for session in sessions])
            if len(sessions) > 1:  # the last word on all parts
                seconds += timed(command(folder, "grid", out, "--jobs", "1"))[0]
            found = results(folder / out)
            plain = found if plain is None else plain
            same = "the same results" if found.equals(plain) else "OTHER RESULTS"
            print(f"{len(found)} runs of {options.epochs} epochs, {way}: {seconds:.1f} s, {same}", flush=True)


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--epochs", type=int, default=5, help="of each run (5)")
    command.add_argument("--jobs", type=int, default=2, help="runs at a time (2)")
