"""Kaggle's client, held to its word: signing in, uploading, pushing, waiting, fetching and submitting.

Every refusal ends in one line, every reply is checked, and what fails in passing is tried again.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jaguar_kit import (
    KitError,
    atomic,
    check_submission_values,
    check_unique,
    echo,
    one_line,
    progress,
    quiet,
    read_json,
    read_table,
    remove_path,
    sha_of,
)

from ..experiments.open_set import validate_answers
from ..experiments.session import check_manifest, read_manifest
from .kernels import check_kernel


class KaggleError(KitError):
    """Kaggle refused something or failed; exit code 1, for what was asked was not at fault."""

    exit_code = 1

    def __init__(self, message: str, code: int = 0):
        super().__init__(message)
        self.code = code  # of HTTP, where there is one


CREDENTIALS = ("kaggle.json", "access_token", "access_token.txt", "credentials.json")


def credentials_there() -> bool:
    """Whether the client would find a token or a key, in the environment or in one of its folders."""
    if os.environ.get("KAGGLE_API_TOKEN") or (os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY")):
        return True
    own, config = os.environ.get("KAGGLE_CONFIG_DIR"), os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    folders = [Path.home() / ".kaggle", Path(config) / "kaggle", *([Path(own)] if own else [])]
    return any((folder / name).is_file() for folder in folders for name in CREDENTIALS)


KAGGLE_CLIENT = "2.2.2"  # the first version of Kaggle's client that speaks as the kit expects


def check_kaggle_client() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("kaggle")
    except PackageNotFoundError:
        found = "none"
    parts = [[int(part) for part in re.findall(r"\d+", text)[:3]] for text in (found, KAGGLE_CLIENT)]
    if parts[0] < parts[1]:
        raise KitError(
            f"Kaggle: needs its client in version {KAGGLE_CLIENT} or later, found {found} (expected Python 3.11 or "
            "later, and pip install -U kaggle)"
        )


def kaggle_api() -> Any:
    """The authenticated KaggleApi; KitError without client or credentials, before anything is sent."""
    check_kaggle_client()
    if not credentials_there():
        raise KitError(
            "Kaggle: no credentials in KAGGLE_API_TOKEN, in KAGGLE_USERNAME and KAGGLE_KEY, or in "
            f"{Path.home()}/.kaggle/kaggle.json; make a token at https://www.kaggle.com/settings and put it there"
        )
    with told_by_kaggle("signing in"), quiet():
        try:
            from kaggle.api.kaggle_api_extended import KaggleApi
        except ModuleNotFoundError as error:
            raise KitError(f"Kaggle: its client can't start ({error}); pip install kaggle six") from None
        api = KaggleApi()
        try:
            api.authenticate()
        except SystemExit:
            raise KaggleError("Kaggle: the credentials were not accepted; make a new token in your settings") from None
    return api


MEANINGS = {
    401: "the credentials are not valid; make a new token at https://www.kaggle.com/settings",
    403: "not allowed; is it yours, is its name right, and have the competition's rules been accepted?",
    404: "there is no such thing; is its name right?",
    429: "too many requests; try again in some minutes",
}

FINAL = (401, 403, 404)  # what asking again does not change


@contextmanager
def told_by_kaggle(doing: str) -> Iterator[None]:
    """Turns a refusal, a failure, a broken connection or a strange reply into one line."""
    import requests

    try:
        yield
    except requests.exceptions.JSONDecodeError as error:
        raise KaggleError(f"Kaggle: {doing}: an unreadable reply: {one_line(error)}; try again later") from None
    except requests.exceptions.HTTPError as error:
        raise refusal(doing, error) from None
    except requests.exceptions.RequestException as error:
        raise KaggleError(f"Kaggle: {doing}: no connection: {one_line(error)}; try again later") from None
    except (
        ValueError,
        KeyError,
        TypeError,
    ) as error:  # so the client tells wrong metadata, and values it does not know
        if isinstance(error.__context__, requests.exceptions.HTTPError):  # and a 401 or 403 on a kernel
            raise refusal(doing, error.__context__) from None
        raise KaggleError(
            f"Kaggle: {doing}: a reply that its client does not know, or refuses: {one_line(error)}"
        ) from None


def refusal(doing: str, error: Any) -> KaggleError:
    """What an error of HTTP means; Kaggle may tell its code in the body of a reply that is called successful."""
    code = error.response.status_code if error.response is not None else 0
    if code == 200:
        with suppress(ValueError, KeyError, TypeError):
            code = int(error.response.json()["code"])
    meaning = MEANINGS.get(code, "Kaggle itself has a fault; try again later" if code >= 500 else "refused")
    return KaggleError(f"Kaggle: {doing}: {code} {one_line(error)}: {meaning}", code)


@dataclass(frozen=True)
class Patience:
    """How long to wait for Kaggle, in seconds."""

    every: float = 30.0  # between two questions
    stale: float = 180.0  # for a session or a version that was asked for to show up
    longest: float = 13 * 3600.0  # for it to end
    failures: int = 60  # questions in a row that may fail on the way


def patiently(ask: Callable[[], Any], patience: Patience) -> Any:
    """What `ask` gives; asked again while Kaggle or the connection fail in passing, up to `patience.failures` times."""
    for left in reversed(range(patience.failures + 1)):
        try:
            return ask()
        except KaggleError as error:
            if not left or error.code in FINAL:
                raise
        time.sleep(patience.every)


def check_replaced(there: Iterable[str], files: Iterable[str], drop: bool) -> None:
    """Refuses a new version, which replaces the old one whole, that lacks weights that the old one has."""
    lost = sorted(name for name in set(there) - set(files) if name.endswith(".safetensors"))
    if lost and not drop:
        raise KitError(
            f"--update: the dataset has weights that the new version lacks: {', '.join(lost)}; name them in --weights, "
            "or let them go with --drop"
        )


def upload_package(
    folder: str | Path, create: bool, message: str = "update", patience: Patience | None = None, drop: bool = False
) -> str:
    """Uploads a package as a new dataset, or as a new version of one; waits until Kaggle has all of it.

    drop: whether a new version may lack weights that the earlier one has. Returns owner/slug. Raises KaggleError when
    Kaggle refuses it, or holds less than the manifest lists.
    """
    folder, patience = Path(folder), patience or Patience(longest=3600.0)
    check_manifest(folder)
    api = kaggle_api()
    dataset = read_json(folder / "dataset-metadata.json")["id"]
    there = dataset_status(api, dataset) is not None
    if create and there:
        raise KaggleError(f"Kaggle: {dataset} exists already; use --update for a new version of it")
    if not create and not there:
        raise KaggleError(f"Kaggle: there is no dataset {dataset} yet; use --create")
    if not create:
        check_replaced(listed_files(api, dataset), read_manifest(folder), drop)
    try:
        with told_by_kaggle(f"uploading {dataset}"), quiet():
            how = {"quiet": True, "convert_to_csv": False, "dir_mode": "zip"}  # Kaggle unpacks the archive of a folder
            if create:
                reply = api.dataset_create_new(str(folder), **how)
            else:
                reply = api.dataset_create_version(str(folder), message, **how)
    except KaggleError as error:
        raise KaggleError(f"{error}; then run tools/package.py again", error.code) from None
    if reply.error or str(reply.status).lower() == "error":
        raise KaggleError(f"Kaggle: {dataset}: {reply.error or 'the upload failed'}; nothing can be used of it")
    await_dataset(api, dataset, folder, patience)
    return dataset


def dataset_status(api: Any, dataset: str) -> str | None:
    """Kaggle's word for the state of a dataset, None where there is none."""
    try:
        with told_by_kaggle(f"status of {dataset}"):
            return str(api.dataset_status(dataset))
    except KaggleError as error:
        if error.code == 404:
            return None
        raise


def await_dataset(api: Any, dataset: str, folder: Path, patience: Patience) -> None:
    """Waits until the version that lies in `folder` is ready, and compares what Kaggle lists with the manifest."""
    wanted = {name: facts["bytes"] for name, facts in read_manifest(folder).items()}
    wanted["manifest.json"] = (folder / "manifest.json").stat().st_size
    ready, complaint = math.inf, "it is not ready"
    echo(f"  uploaded {len(wanted)} files to {dataset}; waiting until they are ready")
    for _ in questions(patience, f"{dataset} to be ready"):
        status = patiently(partial(dataset_status, api, dataset), patience)
        if status in ("failed", "deleted"):
            raise KaggleError(f"Kaggle: {dataset}: its version is {status}; upload it again")
        if status == "ready":
            complaint = listing_fault(patiently(partial(listed_files, api, dataset), patience), wanted)
            complaint = complaint or patiently(partial(manifest_fault, api, dataset, folder), patience)
            if not complaint:
                echo(f"  {dataset}: ready, all {len(wanted)} files are there")
                return
            ready = min(ready, time.monotonic())
            if time.monotonic() - ready > patience.stale:
                break
    raise KaggleError(f"Kaggle: {dataset}: {complaint}; run tools/package.py --update again")


def questions(patience: Patience, what: str) -> Iterator[int]:
    """Numbers, one each time to ask again, until patience ends."""
    begun = time.monotonic()
    for number in itertools.count():
        yield number
        if time.monotonic() - begun > patience.longest:
            raise KaggleError(f"Kaggle: waited {patience.longest / 3600:.1f} h for {what}; look at it on Kaggle")
        time.sleep(patience.every)


def listed_files(api: Any, dataset: str) -> dict[str, int]:
    """Bytes by name of the files that Kaggle lists of a dataset, all pages."""
    found, token = {}, None
    with told_by_kaggle(f"listing {dataset}"):
        while True:
            reply = api.dataset_list_files(dataset, page_token=token, page_size=200)
            if reply.error_message:
                raise KaggleError(f"Kaggle: listing {dataset}: {reply.error_message}")
            found.update({file.name: file.total_bytes for file in reply.files})
            token = reply.next_page_token
            if not token:
                return found


def listing_fault(found: Mapping[str, int], wanted: Mapping[str, int]) -> str:
    """What of a package Kaggle does not list, or lists otherwise; files of a folder by path, or by their name alone."""
    found = {name: found[by] for name in wanted for by in (name, Path(name).name) if by in found}
    missing = sorted(wanted.keys() - found.keys())
    differing = [name for name in sorted(wanted.keys() & found.keys()) if wanted[name] != found[name]]
    if missing:
        return f"{len(missing)} files did not arrive: {', '.join(missing[:10])}"
    return f"{differing[0]}: {found[differing[0]]} bytes there, {wanted[differing[0]]} here" if differing else ""


def manifest_fault(api: Any, dataset: str, folder: Path) -> str:
    """Whether the version that Kaggle serves is that of `folder`, by its manifest."""
    same = dataset_file(api, dataset, "manifest.json") == (folder / "manifest.json").read_bytes()
    return "" if same else "Kaggle still serves an earlier version"


def dataset_file(api: Any, dataset: str, name: str) -> bytes | None:
    """A file of a dataset as Kaggle serves it; None where there is none."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        try:
            with told_by_kaggle(f"reading {dataset}"), quiet():
                api.dataset_download_file(dataset, name, path=place, force=True, quiet=True)
        except KaggleError as error:
            if error.code in (403, 404):
                return None
            raise
        return next((path.read_bytes() for path in Path(place).iterdir()), None)


def push_kernel(folder: str | Path) -> tuple[str, int]:
    """Pushes a kernel folder, which starts its session; ("owner/slug", version).

    Raises KaggleError on any part of the reply that says that not all went well.
    """
    folder = Path(folder)
    metadata = check_kernel(folder)
    api = kaggle_api()
    with told_by_kaggle(f"pushing {folder}"), quiet():
        reply = api.kernels_push(str(folder))
    if reply is None or reply.error:
        raise KaggleError(f"Kaggle: pushing {folder}: {one_line(reply.error) if reply else 'no reply'}")
    kinds = ("tags", "dataset_sources", "competition_sources", "kernel_sources", "model_sources")
    refused = {kind: list(getattr(reply, f"invalid_{kind}", None) or []) for kind in kinds}
    wrong = "; ".join(f"{kind}: {', '.join(map(str, names))}" for kind, names in refused.items() if names)
    if wrong:
        raise KaggleError(
            f"Kaggle: {folder}: pushed, but without its {wrong}; are the names right, are they yours or public, and "
            "have the competition's rules been accepted? Then push again"
        )
    there = "/".join(str(reply.url or reply.ref).rstrip("/").split("/")[-2:])
    if there.lower() != metadata["id"].lower():
        raise KaggleError(
            f"Kaggle: {folder}: became another kernel, {reply.url or reply.ref}; title and id must agree: "
            f"title: {metadata['title']!r}, id: {metadata['id']!r}"
        )
    if not reply.version_number:
        raise KaggleError(f"Kaggle: pushing {folder}: no version came of it; look at {reply.url}")
    echo(f"  pushed {metadata['id']} version {reply.version_number}: {reply.url}")
    return metadata["id"], int(reply.version_number)


def session_record(api: Any, kernel: str) -> dict[str, Any] | None:
    """run.json of the session whose output Kaggle now serves; None where there is none."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        try:
            with told_by_kaggle(f"output of {kernel}"), quiet():
                api.kernels_output(kernel, place, file_pattern=r"^run\.json$", force=True, quiet=True)
        except KaggleError as error:
            if error.code in (403, 404):  # so it tells a kernel that was never pushed
                return None
            raise
        with suppress(OSError, ValueError):
            told = read_json(Path(place) / "run.json")
            return told if isinstance(told, dict) else None
    return None


def session_begun(api: Any, kernel: str) -> float | None:
    """When that session began; None where nothing tells it."""
    with suppress(KeyError, TypeError, ValueError):
        return float((session_record(api, kernel) or {})["begun"])
    return None


def log_lines(api: Any, kernel: str) -> list[str]:
    """The lines of the latest session's log so far, which Kaggle keeps as JSON records."""
    with told_by_kaggle(f"log of {kernel}"):
        log = api.kernels_logs(kernel)
    with suppress(ValueError, AttributeError, TypeError):  # or it is plain text already
        log = "".join(str(record.get("data", "")) for record in json.loads(log))
    return [line.rstrip() for line in log.strip().splitlines()]


def end_of_log(api: Any, kernel: str, lines: int = 15) -> str:
    """The last lines of a session's log, in one."""
    try:
        return " | ".join(line.strip() for line in log_lines(api, kernel)[-lines:]) or "its log is empty"
    except KaggleError:
        return "its log can't be read"


class Watch:
    """A look now and then at the session that was just pushed, showing its log as it grows.

    before: `session_begun` of the kernel before the push, NaN where that could not be learned. Kaggle tells the status
    of the latest session whatever version is asked for, so that an end without a beginning may be an earlier one's.
    """

    def __init__(self, kernel: str, before: float | None, patience: Patience | None = None):
        self.api, self.kernel, self.before, self.patience = kaggle_api(), kernel, before, patience or Patience()
        self.begun = self.heard = time.monotonic()
        self.seen, self.told, self.shown = False, "", 0

    def ask(self) -> Any:
        with told_by_kaggle(f"status of {self.kernel}"):
            return self.api.kernels_status(self.kernel)

    def ended(self) -> bool:
        """Whether it has ended well; KaggleError with the end of its log if it failed, was cancelled, or never came."""
        reply = patiently(self.ask, self.patience)
        status, passed = reply.status.name, time.monotonic() - self.begun
        if status != self.told or time.monotonic() - self.heard > 600:
            echo(f"  {self.kernel}: {status.lower().replace('_', ' ')} after {passed / 60:.0f} min")
            self.told, self.heard = status, time.monotonic()
        if status in ("QUEUED", "RUNNING", "NEW_SCRIPT"):
            self.seen = True
            with suppress(KaggleError):  # the log is a help, no more
                lines = log_lines(self.api, self.kernel) if status == "RUNNING" else []
                for line in lines[self.shown :]:
                    echo(f"    {line}")
                self.shown = max(self.shown, len(lines))
            return False
        if status == "COMPLETE" and not self.seen and not math.isnan(self.before or 0):
            now = patiently(partial(session_begun, self.api, self.kernel), self.patience)
            self.seen = now not in (None, self.before)
        if status == "COMPLETE" and self.seen:
            return True
        end = partial(end_of_log, self.api, self.kernel)
        if self.seen:
            raise KaggleError(f"Kaggle: {self.kernel}: ended as {status}: {reply.failure_message or end()}")
        if passed > self.patience.stale:
            raise KaggleError(
                f"Kaggle: {self.kernel}: ended as {status}, which may be an earlier session: no new one was seen to "
                f"begin within {self.patience.stale:.0f} s; its end: {reply.failure_message or end()}; look at "
                f"https://www.kaggle.com/code/{self.kernel}"
            )
        return False


def await_kernel(kernel: str, before: float | None, patience: Patience | None = None) -> None:
    """Waits until the session that was just pushed has ended well, as `Watch` tells."""
    watch = Watch(kernel, before, patience)
    for _ in questions(watch.patience, kernel):
        if watch.ended():
            return


def download_output(api: Any, kernel: str, folder: Path) -> None:
    with told_by_kaggle(f"output of {kernel}"), quiet():
        api.kernels_output(kernel, str(folder), force=True, quiet=True)


def fetch_output(kernel: str, out: str | Path) -> Path:
    """Downloads a kernel's output into the new folder `out` and checks every file against run.json; returns `out`."""
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise KitError(f"{out}: holds something already; choose a new folder, so that nothing is overwritten")
    api = kaggle_api()
    with atomic(out) as temporary:
        temporary.mkdir()
        patiently(partial(download_output, api, kernel, temporary), Patience(failures=2, every=5))
        check_output(temporary, kernel)
        remove_path(out)
    for path in sorted(p for p in out.iterdir()):
        echo(f"  wrote {path}")
    return out


def check_output(folder: Path, kernel: str) -> None:
    """Refuses a download that lacks files, or that has error pages in their place."""
    try:
        files = read_json(folder / "run.json")["files"]
        facts_there = all({"bytes", "sha256"} <= facts.keys() for facts in files.values())
    except FileNotFoundError:
        raise KaggleError(f"Kaggle: {kernel}: its output has no run.json: {end_of_folder(folder)}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        facts_there = False
    if not facts_there:
        raise KaggleError(
            f"Kaggle: {kernel}: run.json is not what a session that ended well leaves; look at its log, or "
            f"{FETCH_AGAIN}"
        )
    for name, facts in progress(files.items(), "checking the output"):
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise KaggleError(f"Kaggle: {kernel}: run.json names {name!r}, outside the output")
        if not path.is_file():
            raise KaggleError(f"Kaggle: {kernel}: {name} did not come down; {FETCH_AGAIN}")
        if path.stat().st_size != facts["bytes"] or sha_of(path) != facts["sha256"]:
            start = path.read_bytes()[:60].decode("utf-8", "replace")
            raise KaggleError(
                f"Kaggle: {kernel}: {name} is not what the session wrote (it begins with {start!r}); {FETCH_AGAIN}"
            )
    if (folder / "submission.csv").is_file():
        try:
            check_submission_file(folder / "submission.csv")
        except KitError as error:
            raise KaggleError(f"Kaggle: {kernel}: {str(error).replace(f'{folder}/', '')}") from None


FETCH_AGAIN = "fetch again with --no-push"


def end_of_folder(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return f"there is {', '.join(names[:10])}" if names else "nothing came down"


def check_submission_file(path: Path) -> None:
    """Checks a submission without its test table: columns, distinct rows, and values in [0, 1], or answers."""
    table = read_table(path, ())
    if list(table.columns) == ["image_id", "identity"]:
        validate_answers(path, table.image_id.unique(), set(table.identity))
        return
    check_submission_values(table, path)
    check_unique(table.row_id, path)


def submit_file(path: str | Path, competition: str, message: str) -> int:
    """Uploads a CSV to a competition, as for Jaguar Re-ID; Kaggle's number of it. KaggleError unless Kaggle took it."""
    path = Path(path)
    check_submission_file(path)
    api = kaggle_api()
    with told_by_kaggle(f"submitting to {competition}"), quiet():
        reply = api.competition_submit(str(path), message, competition, quiet=True)
    return tell_submission(reply, competition, path)


def submit_kernel(kernel: str, version: int, competition: str, message: str) -> int:
    """Submits submission.csv of a kernel's version, as code competitions want it; as `submit_file`."""
    api = kaggle_api()
    with told_by_kaggle(f"submitting to {competition}"), quiet():
        reply = api.competition_submit_code("submission.csv", message, competition, kernel, version, quiet=True)
    return tell_submission(reply, competition, kernel)


def tell_submission(reply: Any, competition: str, what: str | Path) -> int:
    said = one_line(getattr(reply, "message", "") or "")
    if not getattr(reply, "ref", 0) and "success" not in said.lower():
        raise KaggleError(f"Kaggle: {competition} did not take {what}: {said or 'no reason was given'}")
    echo(f"  submitted {what} to {competition}: {said}")
    return int(getattr(reply, "ref", 0) or 0)
