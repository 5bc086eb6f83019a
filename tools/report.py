"""Makes an experiment's report again, or compares several: python tools/report.py runs/lbe09 [runs/lbe08 ...]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaguar_kit import (
    COMPARISON,
    KitError,
    Page,
    Result,
    claim,
    compare_variants,
    damaged,
    echo,
    main,
    mean_interval,
    read_own_table,
    read_record,
    recipe_from_dict,
    refuse_other_contents,
    run_recipe,
    variants_figure,
)


def remake_report(folder: str | Path, device: str = "auto") -> Result:
    """Makes the report of an experiment's folder again, from what is finished there."""
    folder = Path(folder)
    record = folder / "experiment.json"
    if not record.is_file():
        raise KitError(f"{folder}: no experiment of this kit (expected its experiment.json, written by run_recipe.py)")
    told = read_record(record, {"recipe": dict}, "run its recipe again, which writes it anew")
    if not isinstance(told.get("data"), (str, type(None))):
        raise damaged(record, f"data: {told['data']!r}", "run its recipe again, which writes it anew")
    recipe = recipe_from_dict(told["recipe"], str(record))
    return run_recipe(recipe, told.get("data"), device=device, report_only=True, folder=folder)


def compare_experiments(folders: Sequence[str | Path], out: str | Path) -> Path:
    """A page over several experiments: every variant of each, and differences paired by seed to the first of all."""
    tables = []
    refuse_other_contents(Path(out), COMPARISON)
    for folder in map(Path, folders):
        if not (folder / "results.csv").is_file():
            raise KitError(f"{folder}: has no results.csv (expected the folder of an experiment with finished runs)")
        table = read_own_table(folder / "results.csv", f"tools/report.py {folder} makes it again")
        whole = (
            {"variant", "seed", "map"} <= set(table) and table.variant.notna().all() and table["map"].dtype.kind in "if"
        )
        if not whole or np.isinf(table["map"]).any():
            raise damaged(folder / "results.csv", "it lacks mAP", f"tools/report.py {folder} makes it again")
        tables.append(table.assign(variant=f"{folder.name}/" + table.variant.astype(str)))
    table = pd.concat(tables, ignore_index=True)
    by_variant = table.groupby("variant", sort=False)
    summary = by_variant["map"].agg(n="size", map="mean", sd="std").reset_index()
    intervals = [mean_interval(runs) for _, runs in by_variant["map"]]
    summary["low"], summary["high"] = zip(*intervals)
    page = Page(f"{' and '.join(Path(f).name for f in folders)}")
    page.table(
        summary, "Identity-balanced validation mAP over n seeds, with its 95 % interval; settings are in each report."
    )
    page.figure(
        "map", variants_figure(summary), "Mean validation mAP, with its 95 % interval where there are several seeds."
    )
    page.heading("Differences, paired by seed")
    page.table(compare_variants(table), "To the first variant, on the seeds that both have; p: paired t-test.")
    claim(Path(out), COMPARISON)
    return page.write(Path(out))


def report_command(argv: Sequence[str] | None = None) -> int:
    """`tools/report.py FOLDER [FOLDER ...] [--out DIR]`."""
    parser = argparse.ArgumentParser(
        prog="report.py", description="Makes an experiment's report again, or compares several experiments."
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="such as runs/lbe09")
    parser.add_argument("--out", help="folder for a comparison (runs/comparison)")
    given = parser.parse_args(argv)
    if len(given.folders) == 1 and given.out:
        raise KitError("--out: is for a comparison of several folders; the report of one lies in it")
    if len(given.folders) == 1:
        remake_report(given.folders[0])
    else:
        echo(f"  wrote {compare_experiments(given.folders, given.out or 'runs/comparison')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(report_command))
