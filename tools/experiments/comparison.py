"""Makes an experiment's report again, or compares several: python tools/report.py runs/lbe09 [runs/lbe08 ...]"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaguar_kit import (
    COMPARISON,
    KitError,
    Recipe,
    RunFolder,
    claim,
    damaged,
    differing_settings,
    echo,
    read_own_table,
    refuse_other_contents,
    run_recipe,
)

from .curves import put_bands
from .figures import variants_figure
from .findings import compare_variants, over_seeds
from .page import Page, show_value
from .parts import merge_parts
from .remaking import experiment_in, remake_report


def compare_experiments(folders: Sequence[str | Path], out: str | Path) -> Path:
    """A page over several experiments: every variant of each, and differences paired by seed to the first of all."""
    tables, named = [], distinct_names([Path(folder) for folder in folders])
    refuse_other_contents(Path(out), COMPARISON)
    for folder in map(Path, folders):
        if not (folder / "results.csv").is_file():
            raise KitError(f"{folder}: has no results.csv (expected the folder of an experiment with finished runs)")
        table = read_own_table(folder / "results.csv", f"tools/report.py {folder} makes it again")
        whole = (
            {"variant", "seed", "map"} <= set(table) and table.variant.notna().all() and table["map"].dtype.kind in "if"
        )
        whole &= all(table[c].dtype.kind in "iuf" for c in ("epochs", "seconds") if c in table)
        if not whole or np.isinf(table["map"]).any():
            raise damaged(folder / "results.csv", "it lacks mAP", f"tools/report.py {folder} makes it again")
        tables.append(table.assign(variant=f"{named[folder]}: " + table.variant.astype(str)))
    table = pd.concat(tables, ignore_index=True)
    by_variant = table.groupby("variant", sort=False)["map"]
    summary = pd.DataFrame([{"variant": name, **over_seeds(runs)} for name, runs in by_variant])
    summary = summary[["variant", "n", "map", "sd", "low", "high"]]
    page = Page(f"{' and '.join(named.values())}")
    recipes = {name: experiment_in(folder)[0] for folder, name in named.items()}
    for note in differing_protocols(recipes):
        page.note(f"Note: {note}")
    page.table(
        summary, "Identity-balanced validation mAP over n seeds, with its 95 % interval; settings are in each report."
    )
    if len(means := means_in_common(summary, list(named.values()))):
        page.table(means, "Means over the variants that all experiments have, each counted once.")
    page.figure(
        "map", variants_figure(summary), "Mean validation mAP, with its 95 % interval where there are several seeds."
    )
    page.heading("Differences, paired by seed")
    page.table(compare_variants(table), "To the first variant, on the seeds that both have; p: paired t-test.")
    if curves := curves_of(named, table):
        page.heading("Curves")
        shown = [("map", "validation mAP"), ("train_loss", "training loss")]
        caption = f"By epoch, of the {len(curves)} variants that are best by their mean: mean over seeds and band."
        put_bands(page, "curves", curves, shown, caption)
    page.heading("Settings that differ")
    (first, one), *others = recipes.items()
    for name, other in others:
        rows = [(key, show_value(a), show_value(b)) for key, a, b in differing_settings(one, other)]
        page.table(pd.DataFrame(rows, columns=["setting", first, name]))
    claim(Path(out), COMPARISON)
    return page.write(Path(out))


def means_in_common(summary: pd.DataFrame, experiments: Sequence[str]) -> pd.DataFrame:
    """The mean mAP of each experiment over the variants that all of them have; no rows below two such variants."""
    parts = summary.variant.str.partition(": ")
    by_variant = summary.assign(experiment=parts[0], own=parts[2]).pivot(
        index="own", columns="experiment", values="map"
    )
    shared = by_variant.dropna()
    told = {"variants": len(shared), "names": ", ".join(shared.index)}
    rows = [{"experiment": name, "map": shared[name].mean(), **told} for name in experiments if name in shared]
    return pd.DataFrame(rows if len(shared) > 1 and len(rows) == len(experiments) else [])


PROTOCOL = (
    "data.split",
    "data.split_seed",
    "data.split_by_seed",
    "data.competition",
    "data.root",
    "data.subset_applies_to",
)
PROTOCOL += ("train.select", "train.validate_at")  # settings that decide what mAP is measured on, and at which epoch


def differing_protocols(recipes: Mapping[str, Recipe]) -> list[str]:
    """Where the mAP of two experiments is measured on other images or at another epoch: it does not compare."""
    (first, one), *others = recipes.items()
    notes = []
    for name, other in others:
        differ = [row for row in differing_settings(one, other) if row[0].startswith(PROTOCOL)]
        told = "; ".join(f"{key}: {a} in {first}, {b} in {name}" for key, a, b in differ)
        notes += (
            [f"{first} and {name} differ in how mAP is measured, so that it does not compare: {told}"] if told else []
        )
    return notes


def curves_of(named: Mapping[Path, str], table: pd.DataFrame, most: int = 8) -> dict[str, dict[str, pd.DataFrame]]:
    """The logs of the variants that are best by their mean, by "experiment: variant" and seed."""
    where = {name: folder for folder, name in named.items()}
    best = table.groupby("variant")["map"].mean().nlargest(most).index
    curves: dict[str, dict[str, pd.DataFrame]] = {}
    for row in table[table.variant.isin(best)].itertuples():
        experiment = max((name for name in where if row.variant.startswith(f"{name}: ")), key=len)
        variant = row.variant[len(experiment) + 2 :]
        log = RunFolder(where[experiment] / variant / f"seed{row.seed}").log()
        if log.epoch.max() > 0:
            curves.setdefault(row.variant, {})[str(row.seed)] = log
    return curves


def distinct_names(folders: Sequence[Path]) -> dict[Path, str]:
    """What to call each folder: its name, with as many folders above it as tell it from the others."""
    whole = {folder: folder.resolve().parts for folder in folders}
    if len(set(whole.values())) < len(folders):
        twice = next(one for n, one in enumerate(folders) if whole[one] in [whole[other] for other in folders[:n]])
        raise KitError(f"{twice}: is named twice (expected several experiments, each once)")
    for depth in range(1, max(map(len, whole.values())) + 1):
        names = {folder: "/".join(parts[-depth:]) for folder, parts in whole.items()}
        if len(set(names.values())) == len(names):
            break
    return names


def report_command(argv: Sequence[str] | None = None) -> int:
    """`tools/report.py FOLDER [FOLDER ...] [--look NAME ...] [--out DIR | --again DIR | --merge DIR] [--device D]`."""
    parser = argparse.ArgumentParser(
        prog="report.py",
        description="Makes an experiment's report, or all of it, again, or compares several experiments.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="such as runs/lbe09")
    parser.add_argument("--out", help="folder for a comparison (runs/comparison)")
    parser.add_argument("--merge", metavar="DIR", help="brings the parts of one experiment together there")
    parser.add_argument("--data", metavar="DIR", help="where the images of what is merged lie here")
    parser.add_argument("--again", metavar="DIR", help="runs the experiment of FOLDER again, with results below DIR")
    parser.add_argument(
        "--look", nargs="+", default=[], metavar="NAME", help="also look at the runs: scene, attribution, cards"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    given = parser.parse_args(argv)
    if given.merge and (given.out or given.again):
        raise KitError("--merge: says itself where results go (expected it without --out and --again)")
    if given.data and not given.merge:
        raise KitError("--data: is for --merge; an experiment tells itself where its images lie")
    if given.merge:
        merged = merge_parts(given.folders, given.merge, given.device, given.data)
        return 1 if merged.failed else 0
    if given.again and (len(given.folders) > 1 or given.out):
        raise KitError("--again: is for one folder, and says itself where results go (expected it without --out)")
    if given.look and (given.again or len(given.folders) > 1):
        raise KitError("--look: is for the report of one folder (expected it with one, and without --again)")
    if given.again:
        recipe, data = experiment_in(Path(given.folders[0]))
        return 1 if run_recipe(recipe, data, given.again, given.device).failed else 0
    if len(given.folders) == 1 and given.out:
        raise KitError("--out: is for a comparison of several folders; the report of one lies in it")
    if len(given.folders) == 1:
        remake_report(given.folders[0], given.device, given.look)
    else:
        echo(f"  wrote {compare_experiments(given.folders, given.out or 'runs/comparison')}")
    return 0
