"""A Kaggle session laid out in a temporary folder, and a kernel's code run in it, in a process without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import jaguar_kit
import pandas as pd
import torch
from jaguar_kit import (
    KitError,
    cache_dir,
    duration,
    echo,
    process_alive,
    read_json,
    remove_path,
    sha_of,
    write_json,
)
from safetensors.torch import save_file

from ..experiments.mini_dataset import make_mini_dataset
from ..experiments.runs import folder_bytes
from ..experiments.session import REHEARSAL_VARIABLE, file_facts, read_manifest
from .client import dataset_file, dataset_status
from .counting import SAVED
from .kernels import PLACEHOLDER, RECIPES, kernel_slug, part_slug
from .package import package_kit

Files = Mapping[str, Mapping[str, Any]]  # bytes and sha256 by name, as a manifest tells them


@dataclass(frozen=True)
class Rehearsal:
    """How a kernel is rehearsed."""

    data: str | None = None  # folder in the competition's layout; None: a synthetic one
    packages: Sequence[str] = ()  # folders that tools/package.py built
    weights: Sequence[str] = ()  # of a package that is built for the rehearsal
    attach: Sequence[str] = ()  # folders that other kernels left, as they are attached
    layouts: Sequence[str] = ("flat", "nested")
    runs: bool = True  # False: it is only looked at
    whole: bool = False  # the recipe in its own size
    minutes: float = 10.0  # that the run may take


# what is attached


@dataclass
class Attached:
    """A dataset that a kernel attaches, as far as it is known: its files, and a folder of it here."""

    source: str  # owner/slug
    files: Files | None = None  # None: nobody looked at it
    folder: Path | None = None
    recipes: dict[str, bytes] = field(default_factory=dict)  # those that differ from this clone's

    @property
    def slug(self) -> str:
        return self.source.rpartition("/")[2]

    @property
    def holds_kit(self) -> bool:
        return self.files is not None and "jaguar_kit.py" in self.files


def of_folder(folder: Path) -> Attached:
    """A package that lies here, as it would be attached."""
    files, path = read_manifest(folder), folder / "dataset-metadata.json"
    try:
        source = str(read_json(path)["id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KitError(
            f"{path}: does not tell the dataset's id ({error}); build it again with tools/package.py"
        ) from None
    return Attached(source, files, folder)


def of_kaggle(api: Any, owner: str, source: str) -> Attached:
    """A dataset as Kaggle has it, by its manifest; recipes of a kit that are others than here come with it.

    KitError where it is the owner's own and is not there; of others' nothing may be known.
    """
    text = dataset_file(api, source, "manifest.json")
    try:
        files = json.loads(text)["files"] if text else None
        known = files is not None and all({"bytes", "sha256"} <= facts.keys() for facts in files.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        if source.startswith(f"{owner}/") and dataset_status(api, source) is None:
            raise KitError(f"{source}: there is no such dataset on Kaggle; upload it with tools/package.py --create")
        return Attached(source)
    differing = [n for n, path in own_recipes().items() if n in files and files[n]["sha256"] != sha_of(path)]
    read = {name: dataset_file(api, source, name) for name in differing}
    return Attached(source, files, recipes={name: content for name, content in read.items() if content})


def own_recipes() -> dict[str, Path]:
    return {path.name: path for path in RECIPES.glob("*.yaml")}


def built_here() -> list[Attached]:
    """Packages that tools/package.py left in its own place."""
    found = []
    for path in sorted(Path("dist").glob("*/manifest.json")):
        with suppress(KitError):  # what is no package is not looked at
            found.append(of_folder(path.parent))
    return found


def packages_of(
    metadata: Mapping[str, Any], options: Rehearsal, place: Path, online: Callable[[str], Attached] | None = None
) -> list[Attached]:
    """The datasets that the kernel attaches: as they are on Kaggle where that is asked, from folders, or built now."""
    given = [of_folder(Path(folder)) for folder in options.packages]
    known = {one.slug: one for one in (*([] if options.weights else built_here()), *given)}
    found = []
    for source in metadata.get("dataset_sources", []):
        local = known.get(source.rpartition("/")[2])
        if online is not None and not given and not options.weights:
            remote = online(source)
            same = local is not None and remote.files == local.files
            remote.folder = local.folder if same else None
            found.append(remote)
        else:
            found.append(Attached(source, local.files, local.folder) if local else Attached(source))
    if online is None and not any(one.holds_kit for one in found):  # what tools/package.py would build now
        owner, _, slug = next(iter(metadata.get("dataset_sources", [])), f"{PLACEHOLDER}/jaguar-kit").partition("/")
        owner = "rehearsal" if owner == PLACEHOLDER else owner
        folder = package_kit(place / "package", owner, options.weights, slug=slug)
        built = Attached(f"{owner}/{slug}", read_manifest(folder), folder)
        found = [built, *(one for one in found if one.slug != slug)]
        echo(f"  built the package as tools/package.py does, with {len(options.weights)} weights files")
    return found


@dataclass
class Output:
    """What another kernel's session, or a dataset of runs, brings into this session, as far as it is known."""

    source: str  # owner/slug
    kind: str  # kernel or dataset
    folder: Path | None = None  # of it here
    runs: frozenset[str] | None = None  # folders of its finished runs; None: nobody looked
    named: bool = True  # by the kernel's metadata

    @property
    def slug(self) -> str:
        return self.source.rpartition("/")[2]


def runs_among(files: Iterable[str]) -> frozenset[str]:
    """The folders of finished runs among files of an output, told by path."""
    known = {*files}
    folders = {name.rpartition("/")[0] for name in known if name.rpartition("/")[2] == "metrics.json"}
    return frozenset(folder for folder in folders if f"{folder}/recipe.yaml" in known)


def runs_below(folder: Path) -> frozenset[str]:
    found = [path for name in ("metrics.json", "recipe.yaml") for path in folder.rglob(name)]
    return runs_among(path.relative_to(folder).as_posix() for path in found)


def record_of(folder: Path) -> dict[str, Any]:
    """run.json of an output that lies here; {} where it has none."""
    with suppress(OSError, ValueError):
        told = read_json(folder / "run.json")
        return told if isinstance(told, dict) else {}
    return {}


def slug_of(folder: Path) -> str | None:
    """The slug of the kernel that left an output, by its run.json and its place among those of several sessions."""
    kernel = record_of(folder).get("kernel")
    if not isinstance(kernel, str):
        return None
    part = re.fullmatch(r"part(\d+)", folder.resolve().parent.name)
    if part:
        with suppress(OSError, ValueError, KeyError, TypeError):
            count = len(read_json(folder.resolve().parents[1] / "sessions.json")["parts"])
            return part_slug(kernel_slug(kernel), int(part[1]), count)
    return kernel_slug(kernel)


def outputs_here() -> list[Path]:
    """Outputs that tools/kaggle_run.py fetched into the folder results, the latest session first."""
    found = [file.parent for name in ("*/run.json", "*/part*/session*/run.json") for file in Path("results").glob(name)]
    return sorted(found, key=lambda folder: (-float(record_of(folder).get("begun") or 0), folder))


def outputs_of(
    metadata: Mapping[str, Any],
    options: Rehearsal,
    attached: Sequence[Attached] = (),
    record: Callable[[str], Mapping[str, Any] | None] | None = None,
) -> list[Output]:
    """What other kernels and datasets leave for this one: folders that lie here, known by their run.json or by their
    own name, or given in the order of kernel_sources. record: tells a kernel's run.json as Kaggle serves it, where that
    is asked; a folder of another session than that is left out."""
    given = [Path(folder) for folder in options.attach]
    found = [Output(source, "kernel") for source in metadata.get("kernel_sources", [])]
    found += [Output(one.source, "dataset") for one in attached if one.files is None]
    by_slug: dict[str, Path] = {}
    for folder in [*given, *outputs_here()]:
        by_slug.setdefault(slug_of(folder) or folder.resolve().name, folder)
    for one in found:
        one.folder = by_slug.get(one.slug)
    left = [folder for folder in given if all(one.folder != folder for one in found)]
    unknown = [folder for folder in left if slug_of(folder) is None]
    for one, folder in zip([one for one in found if one.folder is None and one.kind == "kernel"], unknown):
        one.folder = folder
        left.remove(folder)
    found += [Output(f"here/attached{n}", "kernel", folder, named=False) for n, folder in enumerate(left)]
    for one in found:
        if record is not None and one.kind == "kernel" and one.named and one.folder not in given:
            told = record(one.source) or {}
            one.runs = runs_among(told.get("files", {}))
            if one.folder is None or record_of(one.folder).get("begun") != told.get("begun"):
                one.folder = None
        elif one.folder is not None:
            one.runs = runs_below(one.folder)
    return found


# its folders

LAYOUTS = {  # where a mount lies below /kaggle/input, by what it is of
    "flat": {"dataset": "{slug}", "competition": "{slug}", "kernel": "{slug}"},
    "nested": {
        "dataset": "datasets/{owner}/{slug}",
        "competition": "competitions/{slug}",
        "kernel": "notebooks/{owner}/{slug}",
    },
}


@contextmanager
def session_folder() -> Iterator[Path]:
    """A temporary folder, swept away when the block ends, and by the next rehearsal where a process was killed."""
    prefix = "jaguar_kit-rehearsal-"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid = left.name[len(prefix) :].partition("-")[0]
        if pid.isdigit() and not process_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def mount_package(one: Attached, place: Path, root: Path) -> None:
    """Lays a package out as Kaggle mounts it; weights that are not here are stood in for by small files."""
    if one.folder is not None:
        for name in (*one.files, "manifest.json"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".safetensors"):
                (place / name).symlink_to((one.folder / name).resolve())
            elif (one.folder / name).is_file():  # what is missing the session tells
                shutil.copyfile(one.folder / name, place / name)
        return
    if one.holds_kit:
        shutil.copytree(package_kit(root / "kit", "rehearsal"), place)
        (place / "dataset-metadata.json").unlink()
        for name, content in one.recipes.items():
            (place / name).write_bytes(content)
    place.mkdir(parents=True, exist_ok=True)
    for name in one.files:
        if name.endswith(".safetensors"):
            save_file({"stands_in": torch.zeros(1)}, place / name)
    files = {p.relative_to(place).as_posix(): file_facts(p) for p in sorted(place.rglob("*")) if p.is_file()}
    files.pop("manifest.json", None)
    write_json(place / "manifest.json", {"jaguar_kit": jaguar_kit.__version__, "files": files})


def lay_out(
    root: Path,
    layout: str,
    attached: Sequence[Attached],
    outputs: Sequence[Output],
    metadata: Mapping[str, Any],
    data: str | Path | None,
) -> None:
    """The folders input, working and scratch below `root`; data: of the competition, None: a synthetic one."""
    where = LAYOUTS[layout]
    for name in ("input", "working", "scratch"):
        (root / name).mkdir(parents=True)
    for one in attached:
        if one.files is not None:
            owner, _, slug = one.source.partition("/")
            mount_package(one, root / "input" / where["dataset"].format(owner=owner, slug=slug), root)
    for competition in metadata.get("competition_sources", []):
        place = root / "input" / where["competition"].format(slug=competition)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(Path(data).resolve() if data else synthetic(root.parent, competition))
    for one in outputs:
        if one.folder is not None:
            owner, _, slug = one.source.partition("/")
            place = root / "input" / where[one.kind].format(owner=owner, slug=slug)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(one.folder.resolve())


def synthetic(place: Path, competition: str) -> Path:
    """A small synthetic competition, drawn once and then in the cache, without its solution."""
    folder = place / "data" / competition
    if not folder.is_dir():
        kind = "animalclef" if "animal" in competition else "round2" if "round-2" in competition else "round1"
        told = {"layout": kind} if kind == "animalclef" else {"round": int(kind[-1])}
        drawn = make_mini_dataset(cache_dir() / "mini" / f"rehearsal-{kind}", identities=9, images=150, **told)
        shutil.copytree(drawn, folder)
        remove_path(folder / "solution.csv")
    return folder


def stand_in(place: Path, competition: str, images: Sequence[str]) -> Path:
    """The synthetic competition with test images of these names, each pair of which is asked for."""
    folder = place / "data" / f"{competition}-stand-in"
    if not folder.is_dir():
        shutil.copytree(synthetic(place, competition), folder)
        drawn = sorted((folder / "test").rglob("*.png"))
        picture = drawn[0].read_bytes()
        for path in drawn:
            path.unlink()
        for name in images:
            (drawn[0].parent / name).write_bytes(picture)
        pairs = pd.DataFrame(permutations(images, 2), columns=["query_image", "gallery_image"])
        pairs.insert(0, "row_id", range(len(pairs)))
        pairs.to_csv(folder / "test.csv", index=False)
        for name in ("sample_submission.csv", "views.csv"):  # which tell of the others
            remove_path(folder / name)
    return folder


# its process

SITE = '''\
"""Makes jaguar_kit find the rehearsal's folders, and refuses connections."""
import errno, importlib.abc, importlib.machinery, os, socket, sys
from pathlib import Path

ROOT = Path(os.environ["JAGUAR_KIT_REHEARSAL_ROOT"])

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "jaguar_kit":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            load = spec.loader.exec_module
            def exec_module(module):
                load(module)
                module.KAGGLE_INPUT, module.KAGGLE_WORKING = ROOT / "input", ROOT / "working"
                module.KAGGLE_SCRATCH = ROOT / "scratch"
                module.find_mounted.__defaults__ = (ROOT / "input", 8)
            spec.loader.exec_module = exec_module
        return spec

def guarded(connect):
    def refuse(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(("127.", "::1")):
            with open(ROOT / "connections", "a") as file:
                file.write(f"{address[0]}:{address[1]}\\n")
            raise OSError(errno.ENETUNREACH, "a session has no internet")
        return connect(self, address)
    return refuse

def resolve(host, *arguments, resolve=socket.getaddrinfo, **named):
    if host not in (None, "", "localhost", b"localhost") and not str(host).startswith("127."):
        with open(ROOT / "connections", "a") as file:
            file.write(f"{host}\\n")
        raise socket.gaierror(socket.EAI_AGAIN, "a session has no internet")
    return resolve(host, *arguments, **named)

sys.meta_path.insert(0, Finder())
socket.socket.connect, socket.socket.connect_ex = guarded(socket.socket.connect), guarded(socket.socket.connect_ex)
socket.getaddrinfo = resolve
'''


RUNNER = '''\
"""Runs a code file, or the cells of a notebook one after the other, in the session's working folder."""
import json, os, sys, threading, time

def watch(parent):
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)

if __name__ == "__main__":
    root, file = os.environ["JAGUAR_KIT_REHEARSAL_ROOT"], sys.argv[1]
    threading.Thread(target=watch, args=(int(sys.argv[2]),), daemon=True).start()
    os.chdir(os.path.join(root, "working"))
    with open(file, encoding="utf-8") as code:
        text = code.read()
    cells = [text]
    if file.endswith(".ipynb"):
        cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        cells = ["\\n".join(line for line in cell.splitlines() if line[:1] not in "%!") for cell in cells]
    for cell in cells:
        exec(compile(cell, file, "exec"), globals())
'''


@dataclass
class Ended:
    """How a process of a rehearsal ended."""

    code: int
    lines: list[str]
    stopped: str = ""  # why it was ended before its time
    full: bool = False  # whether that was for the size of its output

    @property
    def last(self) -> str:
        return next((line for line in reversed(self.lines) if line.strip()), "it said nothing")


@cache
def without_network() -> list[str]:
    """What a command begins with so that it has no network, where the system allows it."""
    try:
        done = subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ["unshare", "-rn"] if done.returncode == 0 else []


def run_session(root: Path, code: Path, how: str, minutes: float, show: bool) -> Ended:
    """Runs a kernel's code file in a process of its own, with the folders below `root` as /kaggle."""
    (root / "site").mkdir()
    (root / "site" / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    (root / "runner.py").write_text(RUNNER, encoding="utf-8")
    alone = root / code.name
    text = code.read_text(encoding="utf-8")
    for name in ("input", "working"):
        text = text.replace(f"/kaggle/{name}", str(root / name))
    alone.write_text(text, encoding="utf-8")
    hidden = ("KAGGLE_", "JAGUAR_KIT_", "HF_", "WANDB_", "PYTHON")
    env = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    env |= {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "JAGUAR_KIT_REHEARSAL_ROOT": str(root), REHEARSAL_VARIABLE: how}
    env |= {"PYTHONPATH": str(root / "site"), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    env |= {"TMPDIR": str(root / "scratch"), "JAGUAR_KIT_SESSION_START": str(time.time()), "HF_HUB_OFFLINE": "1"}
    env |= {"CUDA_VISIBLE_DEVICES": env.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]}
    command = [*without_network(), sys.executable, str(root / "runner.py"), str(alone), str(os.getpid())]
    return watched(command, env, root / "working", minutes, show)


def watched(command: Sequence[str], env: Mapping[str, str], working: Path, minutes: float, show: bool) -> Ended:
    """Runs a command to its end, or until time or room is over; shows its lines as they come."""
    process = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    ended, over = Ended(0, []), time.monotonic() + 60 * minutes

    def watch() -> None:
        while process.poll() is None:
            if time.monotonic() > over:
                ended.stopped = f"was not over after {duration(60 * minutes)}"
            elif folder_bytes(working) > SAVED:
                ended.full = True
                ended.stopped = f"left more than the {SAVED / 1e9:.0f} GB that Kaggle saves"
            if ended.stopped:
                end_group(process)
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()
    try:
        for line in process.stdout:
            ended.lines.append(plain_path(line.rstrip(), working.parent))
            if show:
                echo(f"    {ended.lines[-1]}")
        ended.code = process.wait()
    finally:
        end_group(process)
    return ended


def end_group(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def plain_path(text: str, root: Path) -> str:
    """A line as the real session would say it."""
    return text.replace(str(root), "/kaggle")
