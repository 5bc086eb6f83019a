"""Several sessions for one kernel: its runs dealt out, pushed, fetched, gone on with, and brought together."""

from __future__ import annotations

import ast
import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from jaguar_kit import KitError, Recipe, RunFolder, atomic, echo, expand, read_json, write_json, write_text

from ..experiments.parts import check_part, deal, merge_parts
from .client import KaggleError, Patience, Watch, fetch_output, push_kernel, session_begun
from .kernels import check_kernel, own_overrides, part_slug, read_code
from .rehearsal import carried_recipe

AT_A_TIME = 2  # sessions with a GPU that Kaggle runs for one person


@dataclass
class Part:
    """A part of a kernel's runs, and how far its sessions have come; kept in sessions.json between calls."""

    number: int
    runs: list[str]  # their folders below runs/<recipe>/
    pushed: int = 0  # sessions that were begun
    fetched: int = 0  # of those
    before: float | None = None  # `session_begun` before the latest push
    done: bool = False
    why: str = ""  # it can't be gone on with
    watch: Any = field(default=None, repr=False, compare=False)

    def kept(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "watch"}

    def output(self, out: Path, session: int) -> Path:
        return out / f"part{self.number}" / f"session{session}"


@dataclass(frozen=True, eq=False)
class Sessions:
    """What `run_in_sessions` needs to know."""

    folder: Path  # of the kernel
    recipe: Recipe
    count: int
    out: Path
    patience: Patience
    rehearse: Callable[[Path], None]  # refuses a kernel folder that is certain to fail
    at_a_time: int = AT_A_TIME

    @property
    def record(self) -> Path:
        return self.out / "sessions.json"

    def kernel_of(self, part: Part) -> Path:
        return self.out / f"part{part.number}" / self.folder.name


def begin_sessions(
    folder: Path, count: int, out: Path, patience: Patience, rehearse: Callable[[Path], None], at_a_time: int
) -> Sessions:
    """KitError where a kernel can't be dealt out to so many sessions."""
    metadata = check_kernel(folder)
    recipe = carried_recipe(folder / metadata["code_file"])
    if recipe is None:
        raise KitError(f"--sessions: {folder} carries no recipe whose runs could be dealt out (expected a script's)")
    if count < 2 or at_a_time < 1:
        raise KitError(
            f"--sessions: {count}, --at-a-time: {at_a_time} (expected 2 or more sessions, 1 or more at a time)"
        )
    parts_of_kernel(recipe, count)
    return Sessions(folder, recipe, count, out, patience, rehearse, at_a_time)


def parts_of_kernel(recipe: Recipe, count: int) -> list[Part]:
    specs = expand(recipe)
    check_part(replace(recipe, part=f"1/{count}"), specs)
    return [Part(n, [specs[at - 1].folder for at in own]) for n, own in enumerate(deal(specs, count), 1)]


def read_parts(job: Sessions) -> list[Part]:
    """The parts as an earlier call left them, or new ones."""
    fresh = parts_of_kernel(job.recipe, job.count)
    if not job.record.is_file():
        return fresh
    try:
        kept = [Part(**told) for told in read_json(job.record)["parts"]]
    except (ValueError, KeyError, TypeError):
        raise KitError(f"{job.record}: is damaged; choose a new --fetch") from None
    if [part.runs for part in kept] != [part.runs for part in fresh]:
        raise KitError(f"{job.out}: holds sessions of other runs, or of another number; choose a new --fetch")
    return [Part(**{**part.kept(), "why": ""}) for part in kept]


def keep(job: Sessions, parts: Sequence[Part]) -> None:
    write_json(job.record, {"kernel": job.folder.name, "parts": [part.kept() for part in parts]})


# a part's kernel


def write_part_kernel(job: Sessions, part: Part, again: bool) -> Path:
    """The kernel's folder with this part among its OVERRIDES; again: with its own earlier output attached."""
    metadata, place = check_kernel(job.folder), job.kernel_of(part)
    code_file = metadata["code_file"]
    code = read_code(job.folder / code_file)
    told = own_overrides(code, job.folder / code_file)
    changes = [*ast.literal_eval(ast.parse(told).body[0].value), f"part={part.number}/{job.count}"]
    owner, _, slug = metadata["id"].partition("/")
    slug = part_slug(slug, part.number, job.count)
    metadata |= {"id": f"{owner}/{slug}", "title": slug}
    metadata["kernel_sources"] = [*metadata.get("kernel_sources", []), *([metadata["id"]] if again else [])]
    with atomic(place) as temporary:
        shutil.copytree(job.folder, temporary)
        (temporary / code_file).write_text(code.replace(told, f"OVERRIDES = {json.dumps(changes)}"), encoding="utf-8")
        write_text(temporary / "kernel-metadata.json", json.dumps(metadata, indent=2) + "\n")
        if place.exists():
            shutil.rmtree(place)
    return place


def push_part(job: Sessions, part: Part, api: Any) -> None:
    again = part.fetched > 0
    place = write_part_kernel(job, part, again)
    if not again:
        job.rehearse(place)
    kernel = check_kernel(place)["id"]
    part.before = session_begun(api, kernel)
    push_kernel(place)
    part.pushed += 1


# from session to session


def run_in_sessions(job: Sessions, api: Any, data: str | None = None, device: str = "auto") -> int:
    """Pushes each part, as many at a time as Kaggle allows, until its runs are over; then brings them together.

    The same command goes on where it was interrupted. Returns 1 where a run failed or is missing, else 0.
    """
    parts = read_parts(job)
    job.out.mkdir(parents=True, exist_ok=True)
    keep(job, parts)
    waiting, running = deque(part for part in parts if not part.done), []
    while waiting or running:
        while waiting and len(running) < job.at_a_time:
            part = waiting.popleft()
            if part.pushed == part.fetched:
                push_part(job, part, api)
                keep(job, parts)
            part.watch = Watch(check_kernel(job.kernel_of(part))["id"], part.before, job.patience)
            running.append(part)
        for part in [part for part in running if has_ended(part)]:
            running.remove(part)
            if not part.why:
                fetch_part(job, part)
            keep(job, parts)
            if not part.done and not part.why:
                waiting.append(part)
        if running:
            time.sleep(job.patience.every)
    return merge_sessions(job, parts, data, device)


def has_ended(part: Part) -> bool:
    """Whether its session has ended, in any way; a session that failed ends the part, not the others."""
    try:
        return part.watch.ended()
    except KaggleError as error:
        echo(f"  {error}")
        part.why = str(error)
        return True


def fetch_part(job: Sessions, part: Part) -> None:
    """Fetches a session's output, and sees whether its runs are over; one that brought nothing new is the last."""
    place = part.output(job.out, part.pushed)
    if not place.is_dir():  # an earlier call may have been interrupted behind it
        fetch_output(part.watch.kernel, place)
    earlier = part.output(job.out, part.fetched) if part.fetched else None
    part.fetched = part.pushed
    left = [run for run in part.runs if not is_over(job, place, run)]
    part.done = not left
    if part.done:
        echo(f"  part {part.number} of {job.count}: its {len(part.runs)} runs are over")
    elif earlier is not None and progress_in(job, place, part) <= progress_in(job, earlier, part):
        part.why = f"part {part.number} of {job.count}: two sessions ended alike, {len(left)} runs are left"
        echo(f"  {part.why}")
    else:
        echo(f"  part {part.number} of {job.count}: {len(left)} of {len(part.runs)} runs are left for another session")


def run_in(job: Sessions, place: Path, run: str) -> RunFolder:
    return RunFolder(place / "runs" / job.recipe.name / run)


def is_over(job: Sessions, place: Path, run: str) -> bool:
    there = run_in(job, place, run)
    return there.done or bool(there.failure)


def progress_in(job: Sessions, place: Path, part: Part) -> int:
    """Epochs that the runs of a part have behind them, and one for each that is over."""
    logs = (run_in(job, place, run) for run in part.runs)
    epochs = sum(len(there.log()) for there in logs if (there.path / "log.csv").is_file())
    return epochs + sum(is_over(job, place, run) for run in part.runs)


def merge_sessions(job: Sessions, parts: Sequence[Part], data: str | None, device: str) -> int:
    """Brings together what the last session of each part left, in out/<recipe>."""
    left = [part.output(job.out, part.fetched) / "runs" / job.recipe.name for part in parts if part.fetched]
    if not left:
        raise KaggleError(f"Kaggle: {job.folder}: no session left anything; {parts[0].why}")
    result = merge_parts(left, job.out / job.recipe.name, device, data)
    missing = sum(not RunFolder(result.folder / run).done for part in parts for run in part.runs)
    return 1 if missing or result.failed else 0
