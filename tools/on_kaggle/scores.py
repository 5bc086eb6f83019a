"""Scores of submissions: how many are left, waiting for one, and scores.csv, which keeps them beside the validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from jaguar_kit import (
    KitError,
    echo,
    fingerprint,
    one_line,
    only_one,
    read_json,
    recipe_from_dict,
    settings_that_count,
    sha_of,
    write_table,
)

from ..experiments.leaderboard import COLUMNS, read_scores
from .client import KaggleError, Patience, patiently, questions, told_by_kaggle


class NotScored(KaggleError):
    """A submission that was made, but has no score."""


def keep_score(path: Path, row: Mapping[str, Any]) -> None:
    """Adds a row to scores.csv, or replaces that of the same file and competition."""
    with only_one(path, wait=True):
        table = read_scores(path)
        same = (table.sha256 == row["sha256"]) & (table.competition == row["competition"])
        added = pd.DataFrame([{name: str(row.get(name, "")) for name in COLUMNS}])
        write_table(path, pd.concat([table[~same], added], ignore_index=True))


def check_not_submitted(path: Path, file: Path, competition: str) -> None:
    """Refuses a file that was submitted to the competition before."""
    table, digest = read_scores(path), sha_of(file)
    there = table[(table.sha256 == digest) & (table.competition == competition)]
    for row in there.itertuples():
        score = f"public score {row.public}" if row.public else row.status
        raise KitError(
            f"{file}: was submitted to {competition} on {row.date} as {row.message!r} ({score}); the same file scores "
            "the same"
        )


def validation_of(out: Path, file: Path) -> dict[str, Any]:
    """Of a session's output, the run whose submission the file is: its recipe, and what validation said of it."""
    digest = sha_of(file)
    for path in sorted(out.glob("runs/*/**/submission.csv")):
        if sha_of(path) != digest:
            continue
        experiment = next(p for p in path.parents if p.parent.name == "runs")
        told: dict[str, Any] = {"recipe": experiment.name, "run": path.parent.relative_to(experiment).as_posix()}
        with suppress(OSError, ValueError, KeyError, TypeError, KitError):
            recipe = recipe_from_dict(read_json(experiment / "experiment.json")["recipe"])
            told["recipe_hash"] = fingerprint(settings_that_count(recipe), recipe.variants, recipe.grid, recipe.seeds)
        with suppress(OSError, ValueError, AttributeError):
            metrics = read_json(path.parent / "metrics.json")
            numbers = {name: metrics.get(name) for name in ("map", "map_across")}
            told |= {n: f"{v:.6f}" for n, v in numbers.items() if isinstance(v, (int, float)) and math.isfinite(v)}
        return told
    return {}


def tell_left(api: Any, competition: str) -> None:
    """Says how many submissions are left today, where the client can ask."""
    if not hasattr(api, "competition_get_submission_limits"):
        return
    with suppress(KaggleError), told_by_kaggle(f"submissions left for {competition}"):
        limits = api.competition_get_submission_limits(competition)
        if not (limits.num_allowed_now or limits.num_total):
            return  # so Kaggle tells it of somebody who is on no team yet
        cap = " by the competition's total" if limits.limited_by_total else ""
        echo(f"  {competition}: {limits.num_allowed_now} submissions left today{cap}, {limits.num_today} made")


def submission_of_kaggle(api: Any, competition: str, ref: int, message: str) -> Any:
    """A submission as Kaggle tells it, by its number or else the latest of these words; None where it is not there."""
    with told_by_kaggle(f"score of a submission to {competition}"):
        if ref and hasattr(api, "get_submission"):
            try:
                with told_by_kaggle("a submission"):
                    return api.get_submission(ref)
            except KaggleError as error:
                if error.code == 404:
                    return None
                raise
        listed = api.competition_submissions(competition) or []
    return next((one for one in listed if (one.ref == ref if ref else one.description == message)), None)


def facts_of(submission: Any) -> dict[str, str]:
    """Columns of scores.csv that Kaggle tells."""
    status = submission.status.name.lower() if submission is not None else "pending"
    if status == "pending":
        return {"status": status}
    if status == "error":
        words = one_line((submission.error_description or "").strip() or "no reason was given")
        return {"status": f"error: {words}"}
    return {"status": status, "public": submission.public_score, "private": submission.private_score}


def await_score(api: Any, row: Mapping[str, Any], path: Path, patience: Patience) -> dict[str, Any]:
    """Waits until a submission is scored, keeps that in scores.csv, and gives the row.

    NotScored tells a scoring error in the competition's own words, and how to go on where there is no score yet.
    """
    competition, later = row["competition"], "it is submitted: --list reads its score later"
    ask = partial(submission_of_kaggle, api, competition, int(row["ref"] or 0), row["message"])
    echo(f"  waiting for the score of {competition}")
    try:
        for _ in questions(patience, f"a score of {competition}"):
            facts = facts_of(patiently(ask, patience))
            if facts["status"] != "pending":
                break
    except KeyboardInterrupt:
        echo(f"  {later}")
        raise
    except KaggleError as error:
        raise NotScored(f"{error}; {later}", error.code) from None
    row = {**row, **facts}
    keep_score(path, row)
    if row["status"].startswith("error: "):
        raise NotScored(
            f"Kaggle: {competition}: the submission was not scored: {row['status'].removeprefix('error: ')}"
        )
    echo(score_line(row))
    return row


def score_line(row: Mapping[str, Any]) -> str:
    told = [f"public score {row.get('public') or 'not published'}"]
    told += [f"private {row['private']}"] if row.get("private") else []
    known = {"validation mAP": row.get("map"), "across encounters": row.get("map_across")}
    told += [f"{name} {float(value):.4f}" for name, value in known.items() if value]
    return f"  {row['competition']}: {', '.join(told)}"


def new_row(out: Path, kernel: str, competition: str, message: str, ref: int) -> dict[str, Any]:
    file = out / "submission.csv"
    told = {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"), "competition": competition, "kernel": kernel}
    told |= {"message": message, "status": "pending", "ref": str(ref or ""), "sha256": sha_of(file)}
    return {**told, **validation_of(out, file)}


def read_pending(api: Any, path: Path) -> None:
    """Asks for the scores of submissions that had none yet, and shows all that are kept."""
    table = read_scores(path)
    for row in table[table.status == "pending"].to_dict("records"):
        with suppress(KaggleError):
            facts = facts_of(submission_of_kaggle(api, row["competition"], int(row["ref"] or 0), row["message"]))
            keep_score(path, {**row, **facts})
    for row in read_scores(path).to_dict("records"):
        state = score_line(row).strip() if row["status"] == "complete" else f"{row['competition']}: {row['status']}"
        echo(f"  {row['date']}  {row['kernel'] or row['recipe']}, {row['message']!r}: {state}")


# sessions


def list_sessions(api: Any, only: str | None = None) -> int:
    """Shows the state of every session of the kit's kernels, or of one kernel; how many there are."""
    kernels = {only: None} if only else own_kernels(api)
    for kernel, when in kernels.items():
        try:
            with told_by_kaggle(f"status of {kernel}"):
                reply = api.kernels_status(kernel)
            state = reply.status.name.lower().replace("_", " ")
            state += f": {one_line(reply.failure_message)}" if reply.failure_message else ""
        except KaggleError as error:
            if error.code not in (403, 404):
                raise
            state = "never pushed"
        echo(f"  {kernel}: {state}" + (f", last run {when}" if when else ""))
    return len(kernels)


def own_kernels(api: Any) -> dict[str, str]:
    """The kit's kernels that the user has on Kaggle, the latest first, and when each ran last."""
    found, page = {}, 1
    while True:
        with told_by_kaggle("listing kernels"):
            listed = api.kernels_list(page=page, page_size=100, mine=True, search="jaguar-kit", sort_by="dateRun") or []
        for one in listed:
            if one.ref.partition("/")[2].startswith("jaguar-kit-"):
                found[one.ref] = one.last_run_time.strftime("%Y-%m-%d %H:%M") if one.last_run_time else ""
        if len(listed) < 100:
            return found
        page += 1


def scoring_patience(patience: Patience, code: bool) -> Patience:
    """A file is scored in minutes, a kernel's version runs again first."""
    return replace(patience, longest=min(patience.longest, (13 if code else 1) * 3600.0))
