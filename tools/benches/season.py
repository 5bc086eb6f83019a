"""Three weeks of photographs, with decisions in between: python tools/bench.py season --data DIR.

A fifth of the individuals are strangers: no catalogue has them. Encounters are dealt to the weeks whole. After a week a
person decides, right with 95 %: yes where the animal is among the candidates, new where it is a stranger, else nothing.
Photographs that are asked for again count in their own week alone.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaguar_kit import KitError, load_competition, quiet

from ..identify.confidence import FRESH, SURE
from ..identify.decisions import COLUMNS, write_decisions
from ..identify.identify import identify
from .measuring import output_file


def lay_out(
    data: Path, place: Path, weeks: int, seed: int, share: float, box: float
) -> tuple[Path, list[Path], dict[str, str], set[str]]:
    """A catalogue and a folder for each week, of copies; who is on each photograph, and who is a stranger.

    share: of the individuals that are strangers. box: share of the sides of a box in the middle, which stands in for a
    detector's; 1: none.
    """
    competition, rng = load_competition(data), np.random.default_rng(seed)
    if competition.solution is None:
        raise KitError(f"--data: {data}: has no solution.csv, so that nobody knows who is right")
    identity = competition.solution.loc[competition.test.filename].to_numpy(str)
    asked = competition.test.assign(identity=identity)
    names = sorted(set(competition.train.identity))
    strangers = set(rng.permutation(names)[: int(share * len(names))])
    unknown = competition.train.identity.isin(strangers)
    table = pd.concat([asked, competition.train[unknown]], ignore_index=True).fillna("")
    known = competition.train[~unknown]
    told = next((c for c in ("encounter", "sighting", "burst") if c in table), None)
    groups = table[told].where(table[told] != "", table.path) if told else table.path
    order = {group: i % weeks for i, group in enumerate(rng.permutation(sorted(set(groups))))}
    truth, folders = {}, []
    (place / "catalogue").mkdir(parents=True)
    for week in range(-1, weeks):
        rows = known if week < 0 else table[groups.map(order) == week]
        folder = place / ("catalogue" if week < 0 else f"week{week + 1}")
        folder.mkdir(exist_ok=True)
        for path in rows.path:
            shutil.copyfile(competition.root / path, folder / Path(path).name)
        own = rows.assign(path=[Path(path).name for path in rows.path])
        kept = ["path", *(["identity"] if week < 0 else []), *(c for c in (told, "flank") if c and c in own)]
        if box < 1:
            own["bbox"] = f"{(1 - box) / 2:.4f} {(1 - box) / 2:.4f} {box:.4f} {box:.4f}"
            kept.append("bbox")
        own[kept].to_csv(folder / "table.csv", index=False)
        truth.update({} if week < 0 else dict(zip(own.path, own.identity)))
        folders.append(folder / "table.csv")
    return folders[0], folders[1:], truth, strangers


def decide(answers: pd.DataFrame, truth: dict[str, str], strangers: set[str], rng: Any, root: Path) -> pd.DataFrame:
    """What a person says of these answers, who errs once in twenty times."""
    rows = []
    for number, row in enumerate(answers.to_dict("records")):
        names = [row[key] for key in ("identity", *(f"identity_{k}" for k in range(2, 6))) if row.get(key)]
        right, own = rng.random() < 0.95, truth[row["image"]]
        if own in names:
            decision, name = "yes", own if right else names[0] if names[0] != own or len(names) < 2 else names[1]
        elif own in strangers:
            decision, name = ("new", own) if right else ("yes", names[0])
        else:
            continue
        rows.append((row["mark"], row["image"], str(root), decision, name, "person", f"2026-01-01T{number:06d}"))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def scored(answers: pd.DataFrame, truth: dict[str, str], known: set[str]) -> dict[str, Any]:
    own = answers.image.map(truth)
    there, first = own.isin(known), answers.identity == own
    three = first | (answers.identity_2 == own) | (answers.identity_3 == own)
    sure, fresh = answers["class"] == SURE, answers["class"] == FRESH
    return {
        "photographs": len(answers),
        "known": int(there.sum()),
        "first": round(float(first[there].mean()), 3),
        "among three": round(float(three[there].mean()), 3),
        "expected right": round(float(answers.probability.sum()), 1),
        "right": int(first.sum()),
        "sure": int(sure.sum()),
        "sure and right": int(first[sure].sum()),
        "new": int(fresh.sum()),
        "new and so": int((~there[fresh]).sum()),
    }


def season(options: argparse.Namespace) -> pd.DataFrame:
    """A row for each week, and for the last one also with the catalogue as it was at first."""
    rows, rng = [], np.random.default_rng(options.seed)
    model = {"backbone": options.backbone, "weights": options.weights, "local": options.local, "sure": options.sure}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        catalogue, weeks, truth, strangers = lay_out(
            Path(options.data), place, options.weeks, options.seed, options.strangers, options.box
        )
        known, previous = set(pd.read_csv(catalogue, dtype=str).identity), None
        for number, week in enumerate(weeks, 1):
            for grown in [True, False] if number == len(weeks) > 1 else [True]:
                out, begun = place / f"answers{number}{'' if grown else 'alone'}", time.monotonic()
                with quiet():
                    answers = identify(
                        queries=week, catalogue=catalogue, out=out, previous=previous if grown else None, **model
                    )
                answers = answers[~answers.image.str.startswith("..")]  # of earlier weeks
                named = set(pd.read_csv(out / "catalogue.csv", dtype=str).identity)
                row = {"week": number, "catalogue": "grown" if grown and number > 1 else "at first"}
                rows.append({**row, **scored(answers, truth, named), "seconds": round(time.monotonic() - begun)})
                print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
                if grown:
                    write_decisions(out / "decisions.csv", decide(answers, truth, strangers, rng, week.parent))
                    kept = out
            previous = kept
    print(f"{len(strangers)} strangers of {len(strangers) + len(known)} individuals, seed {options.seed}")
    return pd.DataFrame(rows)


def run(options: argparse.Namespace) -> None:
    table = season(options)
    if options.out:
        table.to_json(options.out, orient="records", indent=2)


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--data", required=True, help="folder in the competition's layout, with solution.csv")
    model = command.add_mutually_exclusive_group(required=True)
    model.add_argument("--backbone", help="name or safetensors file")
    model.add_argument("--weights", help="a trained run, of other individuals")
    add("--local", action="store_true", help="matching spots as well")
    add("--weeks", type=int, default=3, help="number of weeks (3)")
    add("--strangers", type=float, default=0.2, help="share of individuals that no catalogue has (0.2)")
    add("--box", type=float, default=1.0, help="share of the sides of a box in the middle, in place of a detector (1)")
    add("--sure", type=float, default=0.95, help="least probability of a sure name (0.95)")
    add("--seed", type=int, default=0, help="of strangers, weeks and errors (0)")
    add("--out", type=output_file, help="a JSON file")
