"""Rehearses, pushes, waits, fetches and submits: python tools/kaggle_run.py kernels/final --fetch DIR --submit -m X"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jaguar_kit import KitError, NonNegative, convert, echo, read_json

from ..experiments.leaderboard import SCORES
from .client import (
    KaggleError,
    Patience,
    await_kernel,
    fetch_output,
    kaggle_api,
    patiently,
    push_kernel,
    session_begun,
    session_record,
    submit_file,
    submit_kernel,
)
from .findings import Finding
from .kernels import check_kernel, check_up_to_date
from .mounts import Rehearsal, of_kaggle
from .rehearsal import add_rehearsal_options, rehearse
from .scores import (
    NotScored,
    await_score,
    check_not_submitted,
    keep_score,
    list_sessions,
    new_row,
    read_pending,
    scoring_patience,
    tell_left,
)
from .sessions import AT_A_TIME, begin_sessions, run_in_sessions

SINGLE = ("no_push", "submit", "rehearse", "list")  # what is of one session, not of several


def kaggle_options(argv: Sequence[str] | None) -> Any:
    """What the command line of `push_command` asks for; KitError where options contradict each other."""
    parser = argparse.ArgumentParser(
        prog="kaggle_run.py",
        description="Rehearses a kernel's session and pushes it to Kaggle; waits, fetches and submits where asked to.",
    )
    parser.add_argument("folder", nargs="?", help="folder of a kernel, such as kernels/final")
    parser.add_argument("--wait", action="store_true", help="until its session has ended")
    parser.add_argument("--fetch", metavar="DIR", help="download its output into a new folder, and check it (waits)")
    parser.add_argument("--submit", action="store_true", help="submit its submission.csv (waits, and needs --fetch)")
    parser.add_argument("-m", "--message", help="a few words for the submission")
    parser.add_argument("--scores", metavar="FILE", default=str(SCORES), help=f"table that keeps scores ({SCORES})")
    parser.add_argument("--list", action="store_true", help="show sessions and scores, of one kernel or of all")
    parser.add_argument(
        "--code-competition", action="store_true", help="submit the kernel's version, where CSV uploads are not taken"
    )
    parser.add_argument(
        "--sessions", type=int, metavar="N", help="deal the runs out to N sessions, and merge (needs --fetch)"
    )
    parser.add_argument(
        "--at-a-time", type=int, default=AT_A_TIME, help=f"sessions that Kaggle runs at once ({AT_A_TIME})"
    )
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two looks at the session (30)")
    parser.add_argument("--stale", type=float, default=180.0, help="seconds for the new session to show up (180)")
    parser.add_argument(
        "--no-push",
        action="store_true",
        help="wait for, fetch or submit what the latest session made, without a new one",
    )
    add_rehearsal_options(parser)
    given = parser.parse_args(argv)
    if given.folder is None and not given.list:
        raise KitError("kaggle_run.py: which kernel? (expected its folder, such as kernels/final, or --list)")
    if given.sessions is not None and not given.fetch:
        raise KitError("--sessions: leave what they made in a folder (expected --fetch DIR with it)")
    if given.sessions is not None and (wrong := next((n for n in SINGLE if getattr(given, n)), None)):
        raise KitError(f"--sessions: expected no --{wrong.replace('_', '-')} with it")
    acts = ("wait", "fetch", "submit", "no_push", "unrehearsed", "list")
    if given.rehearse and (wrong := next((name for name in acts if getattr(given, name)), None)):
        raise KitError(f"--rehearse: pushes nothing (expected no --{wrong.replace('_', '-')} with it)")
    for option in ("every", "stale"):
        convert(getattr(given, option), NonNegative, f"--{option}")
    if (given.message or given.code_competition) and not given.submit:
        raise KitError("-m, --code-competition: are about a submission (expected --submit with them)")
    if given.no_push and given.code_competition:
        raise KitError("--code-competition: submits the version that was just pushed (expected no --no-push)")
    if given.submit and not given.message:
        raise KitError("--submit: needs a few words about it (expected -m MESSAGE)")
    if given.submit and not given.fetch:
        raise KitError("--submit: what is submitted is checked first (expected --fetch DIR)")
    going_on = given.sessions is not None and Path(given.fetch, "sessions.json").is_file()
    there = Path(given.fetch) if given.fetch and not going_on else None
    if there is not None and there.exists() and (there.is_file() or any(there.iterdir())):
        raise KitError(f"--fetch: {given.fetch}: holds something already; choose a new folder")
    return given


def push_command(argv: Sequence[str] | None = None) -> int:
    """`tools/kaggle_run.py kernels/X [--rehearse] [--wait] [--fetch DIR] [--submit -m MESSAGE] | --list`."""
    given = kaggle_options(argv)
    if given.list:
        return list_command(given)
    folder, options = Path(given.folder), rehearsal_of(given)
    if given.rehearse:
        check_up_to_date(folder)
        refuse_certain(folder, rehearse(folder, options))
        return 0
    if given.sessions is not None:
        return sessions_command(given, folder, options)
    metadata = check_kernel(folder)
    if given.submit and not metadata.get("competition_sources"):
        raise KitError(f"{folder / 'kernel-metadata.json'}: competition_sources: is empty (expected one to submit to)")
    if not given.no_push:
        check_up_to_date(folder)
    api, kernel = kaggle_api(), metadata["id"]
    if not given.no_push and not given.unrehearsed:
        found = rehearse_online(folder, options, api)
        refuse_certain(folder, found, " (--unrehearsed pushes all the same)")
    patience = Patience(every=given.every, stale=given.stale)
    waits = given.wait or given.fetch
    before = begun_before(api, kernel, patience) if waits and not given.no_push else None
    version = 0 if given.no_push else push_kernel(folder)[1]
    try:
        if waits:
            await_kernel(kernel, before, patience)
        out = fetch_output(kernel, given.fetch) if given.fetch else Path()
        if given.submit:
            submit_output(out, kernel, version if given.code_competition else 0, metadata, given, patience)
        failed = read_json(out / "run.json").get("failed") if given.fetch else None
        for place, reason in (failed or {}).items():
            echo(f"  {place} failed there: {reason}")
        return 1 if failed else 0
    except NotScored:
        raise
    except KaggleError as error:
        if error.code >= 429 or "no connection" in str(error):
            raise KaggleError(f"{error}; its session goes on: --no-push waits for it again", error.code) from None
        raise
    except KeyboardInterrupt:
        print("interrupted; its session goes on: --no-push waits for it again", file=sys.stderr)
        return 130


def sessions_command(given: Any, folder: Path, options: Rehearsal) -> int:
    """`tools/kaggle_run.py kernels/X --sessions N --fetch DIR`."""
    check_up_to_date(folder)

    def rehearsed(place: Path) -> None:
        found = [] if given.unrehearsed else rehearse_online(place, options, api)
        refuse_certain(place, found, " (--unrehearsed pushes all the same)")

    patience = Patience(every=given.every, stale=given.stale)
    job = begin_sessions(folder, given.sessions, Path(given.fetch), patience, rehearsed, given.at_a_time)
    api = kaggle_api()
    try:
        return run_in_sessions(job, api, given.data)
    except KeyboardInterrupt:
        print("interrupted; its sessions go on: the same command waits for them again", file=sys.stderr)
        return 130


def rehearsal_of(given: Any) -> Rehearsal:
    return Rehearsal(
        data=given.data,
        packages=given.package,
        weights=given.weights,
        attach=given.attach,
        layouts=(given.mounts,) if given.mounts else ("flat", "nested"),
        runs=not given.no_run,
        whole=given.whole,
        minutes=given.minutes,
    )


def rehearse_online(folder: Path, options: Rehearsal, api: Any) -> list[Finding]:
    """A rehearsal by what Kaggle holds of the kernel's sources."""
    owner = check_kernel(folder)["id"].partition("/")[0]
    return rehearse(folder, options, partial(of_kaggle, api, owner), partial(session_record, api))


def refuse_certain(folder: Path, found: Sequence[Finding], otherwise: str = "") -> None:
    """KitError, and so exit code 2, where a rehearsal found what is certain to fail."""
    sure = sum(finding.certain for finding in found)
    if sure:
        what = "1 thing is" if sure == 1 else f"{sure} things are"
        raise KitError(f"{folder}: {what} certain to fail its session, as told above{otherwise}")


def list_command(given: Any) -> int:
    """`tools/kaggle_run.py [kernels/X] --list`: sessions and their state, submissions and their scores."""
    kernel = check_kernel(Path(given.folder))["id"] if given.folder else None
    api = kaggle_api()
    if not list_sessions(api, kernel):
        echo("  no kernel of the kit is on Kaggle; tools/kaggle_run.py kernels/starter pushes one")
    read_pending(api, Path(given.scores))
    return 0


def begun_before(api: Any, kernel: str, patience: Patience) -> float | None:
    """`session_begun`, or NaN where Kaggle does not tell; the push may go well all the same."""
    try:
        return patiently(partial(session_begun, api, kernel), patience)
    except KaggleError as error:
        if error.code == 401:
            raise
        return math.nan


def submit_output(
    out: Path, kernel: str, version: int, metadata: Mapping[str, Any], given: Any, patience: Patience
) -> None:
    """Submits what was fetched, or with a version that version of the kernel, and waits for the score."""
    file, scores = out / "submission.csv", Path(given.scores)
    if not file.is_file():
        raise KaggleError(f"Kaggle: {kernel}: its output has no submission.csv, so there is nothing to submit")
    competition = metadata["competition_sources"][0]
    meant = read_json(out / "run.json").get("competition", competition)
    if meant != competition:
        raise KaggleError(f"Kaggle: {kernel}: its output is for {meant}, not for {competition}; run it again first")
    check_not_submitted(scores, file, competition)
    api = kaggle_api()
    tell_left(api, competition)
    if version:
        ref = submit_kernel(kernel, version, competition, given.message)
    else:
        ref = submit_file(file, competition, given.message)
    row = new_row(out, kernel, competition, given.message, ref)
    keep_score(scores, row)
    await_score(api, row, scores, scoring_patience(patience, code=bool(version)))
    echo(f"  wrote {scores}")
