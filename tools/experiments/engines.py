"""Engines: what makes several runs of an experiment at a time, in processes here or on the workers of a Dask cluster.

Both are driven by joblib. A run goes out as an order of plain values, so that a worker needs nothing but the kit.
"""

from __future__ import annotations

import io
import logging
import os
import tarfile
import time
import uuid
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaguar_kit
import numpy as np
import torch
from jaguar_kit import (
    REGISTRY,
    ROOMS,
    WEIGHTS_VARIABLE,
    Experiment,
    KitError,
    Recipe,
    RunFolder,
    RunSpec,
    TrainingFailed,
    atomic,
    core_count,
    echo,
    embedder_for,
    end_with_parent,
    find_backbone_weights,
    fingerprint,
    interrupt,
    make_task,
    on_sigterm,
    progress,
    recipe_from_dict,
    recipe_to_dict,
    sha_of,
    world_size,
)

from .parts import MAKE_WHERE_BUSY, where_busy
from .runs import Between, features_key, images_for
from .session import kit_sha256
from .spots import at_hand as aliked_at_hand
from .spots import detector_weights


@dataclass(frozen=True, eq=False)
class Workers:
    """Those of an engine: how many, what joblib has to know of them, and what goes to them besides orders."""

    count: int
    backend: Mapping[str, Any]
    threads: int  # of each
    parent: bool = False  # whether they are children of this process, and end with it
    luggage: bytes | None = None  # data and weights, zipped, where they can't be seen there
    carry: bool = False  # whether a run's folder comes back with its result


def run_side_by_side(
    experiment: Experiment, numbers: Sequence[int], jobs: int, engine: str, address: str | None
) -> dict[str, str]:
    """Makes the runs of these numbers, several at a time; why by folder for those that failed."""
    from joblib import Parallel, delayed, parallel_config

    failed, between = {}, Between(experiment)
    with cluster(experiment, jobs, address) if engine == "dask" else processes(experiment, jobs) as workers:
        if workers.carry:  # what is finished need not be sent for
            numbers = [n for n in numbers if not experiment.run_folder(experiment.specs[n - 1]).done]
        kit, parts = None if workers.parent else kit_sha256(), own_parts()  # children run the same kit
        orders = [{**order_of(experiment, number, workers), "kit": kit} for number in numbers]
        with on_sigterm(interrupt), parallel_config(**workers.backend), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*still being processed.*")  # by whoever interrupts
            ended = Parallel(workers.count, batch_size=1, pre_dispatch="all", return_as="generator_unordered")(
                delayed(work)(kit_paths(), parts, order, workers.luggage) for order in orders
            )
            for number, reason, packed in progress(ended, "runs", len(orders)):
                spec = experiment.specs[number - 1]
                if packed is not None:
                    unpack_run(packed, experiment.folder / spec.folder)
                failed.update({spec.folder: reason} if reason else {})
                between.report()
    return failed


# orders


def order_of(experiment: Experiment, number: int, workers: Workers) -> dict[str, Any]:
    """A run by its number, in plain values."""
    spec, busy = experiment.specs[number - 1], where_busy(experiment)
    return {
        "spec": {"variant": spec.variant, "why": spec.why, "derived": spec.derived},
        "recipe": recipe_to_dict(spec.recipe),
        "number": number,
        "runs": len(experiment.specs),
        "folder": str(experiment.folder.resolve()),
        "data": None if experiment.data is None else str(Path(experiment.data).resolve()),
        "device": str(experiment.device),
        "force": experiment.force,
        "ends": time.time() + experiment.deadline - time.monotonic(),
        "first": number == 1,
        "threads": workers.threads,
        "busy": busy if busy != "raise" or workers.parent else "wait",  # a killed command's workers may still be at it
        "carry": workers.carry,
        "parent": os.getpid() if workers.parent else None,
    }


def kit_paths() -> list[str]:
    """Where a worker finds the kit, if it sees what this process sees."""
    return [str(Path(jaguar_kit.__file__).resolve().parent)]


def own_parts() -> dict[tuple[str, str], Any]:
    """Parts that were registered by neither the module nor its rooms, such as those of a notebook's cells."""
    ours = {"jaguar_kit", jaguar_kit.__name__}
    return {
        key: part
        for key, part in REGISTRY.items()
        if part.__module__ not in ours and not part.__module__.startswith(f"{ROOMS}.")
    }


def sent_whole(function: Any) -> Any:
    """Marks a function to be pickled by value: rooms are found by their path, which a worker is yet to learn."""
    function.__module__ = "__main__"
    return function


@sent_whole
def work(
    paths: Sequence[str], parts: Mapping[tuple[str, str], Any], order: Mapping[str, Any], luggage: bytes | None
) -> tuple[int, str, bytes | None]:
    """A run by its order, in another process."""
    import sys

    sys.path[:0] = [path for path in paths if path not in sys.path]
    import jaguar_kit

    jaguar_kit.REGISTRY.update(parts)
    return jaguar_kit.call_in_room("experiments.engines", "run_order", order, luggage)


def run_order(order: Mapping[str, Any], luggage: bytes | None) -> tuple[int, str, bytes | None]:
    """Number of the run, why it failed, if it did, and its folder where that has to be carried back."""
    if order["kit"] not in (None, kit_sha256()):
        raise KitError(
            f"{Path(jaguar_kit.__file__).resolve()}: is another version of the kit than the one that deals out runs "
            "(expected the same on every worker)"
        )
    if order["parent"] and not watching:
        watching.append(order["parent"])
        end_with_parent(order["parent"])
    if order["threads"]:
        torch.set_num_threads(order["threads"])
    folder, data = Path(order["folder"]), order["data"]
    if luggage is not None:
        place = unpacked(luggage)
        os.environ[WEIGHTS_VARIABLE] = str(place / "weights")
        data = str(place / "data") if (place / "data").is_dir() else data
    if order["carry"]:
        folder = worker_folder() / fingerprint(order["folder"]) / folder.name
    spec = RunSpec(recipe=recipe_from_dict(order["recipe"]), **order["spec"])
    deadline = time.monotonic() + order["ends"] - time.time()
    experiment = Experiment(spec.recipe, folder, torch.device(order["device"]), data, order["force"], deadline)
    experiment.specs = [spec] * order["runs"]  # of which this process is to know its own alone
    if not order["first"] and time.time() > order["ends"] and not experiment.run_folder(spec).done:
        echo(f"  {spec.folder}: not begun, for train.max_hours is over")
        return order["number"], "", None
    experiment.opened = {jaguar_kit.data_key(spec.recipe): images_for(spec.recipe, data, folder)}
    reason = MAKE_WHERE_BUSY[order["busy"]](experiment, order["number"])
    there = experiment.run_folder(spec).path
    return order["number"], reason, pack_run(there) if order["carry"] and there.is_dir() else None


watching: list[int] = []  # the parent that this process ends with


# processes here


@contextmanager
def processes(experiment: Experiment, jobs: int) -> Iterator[Workers]:
    """As many processes as there are jobs, each with its share of the cores, which end with this one."""
    from multiprocessing import active_children

    from joblib.externals.loky import get_reusable_executor

    extract_features(experiment)
    threads = max(1, core_count() // jobs)
    try:
        yield Workers(jobs, {"backend": "loky", "inner_max_num_threads": threads}, threads, parent=True)
    except BaseException as error:
        for child in active_children():
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise TrainingFailed(
                f"{experiment.folder}: one of {jobs} processes died; the same command goes on from the last checkpoints"
            ) from None
        raise
    finally:
        get_reusable_executor().shutdown(wait=False)


def extract_features(experiment: Experiment) -> None:
    """Extracts the features of frozen backbones once, before several processes need them."""
    for spec in {features_key(c.recipe): c for c in experiment.unfinished}.values():
        images = experiment.images(spec)
        embedder = embedder_for(spec.recipe)[0].to(experiment.device)
        labels = torch.zeros(len(images.competition.train), dtype=torch.int64)
        make_task(spec.recipe, embedder, images, labels, images.splits[0], experiment.device)


# a Dask cluster


@contextmanager
def cluster(experiment: Experiment, jobs: int, address: str | None) -> Iterator[Workers]:
    """The workers of the scheduler at that address, or as many of its own as there are jobs."""
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError:
        raise KitError("--engine dask: needs the package distributed (pip install distributed)") from None
    if world_size() > 1:
        raise KitError("--engine dask: deals out whole runs (expected it without torchrun, which shares batches)")
    own = (
        None
        if address
        else LocalCluster(jobs, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR)
    )
    try:
        client = connected(Client, own or address)
        try:
            check_workers(client)
            backend: dict[str, Any] = {"backend": "dask", "client": client}
            if own:
                yield Workers(-1, backend, max(1, core_count() // jobs))
            else:
                luggage, carry = pack_luggage(client, experiment), not all_see(client, experiment.folder)
                tell_cluster(client, luggage, carry)
                backend["scatter"] = [] if luggage is None else [luggage]
                yield Workers(-1, backend, 0, luggage=luggage, carry=carry)
        finally:
            client.close()
    finally:
        if own:
            own.close()


def connected(client: Any, to: Any) -> Any:
    """A client of the scheduler; KitError where none answers at its address."""
    try:
        return client(to, timeout=20, set_as_default=False)
    except (OSError, ValueError) as error:
        raise KitError(
            f"--address: {to}: no scheduler of Dask answers there ({type(error).__name__}; expected one such as "
            "tcp://host:8786, where `dask scheduler` runs)"
        ) from None


def check_workers(client: Any) -> None:
    """Refuses a cluster without workers, and workers that would make several runs in one process."""
    try:
        client.wait_for_workers(1, timeout=60)
    except TimeoutError:
        raise KitError("--address: the scheduler has no worker (expected some, started by `dask worker`)") from None
    threads = max(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
    if threads > 1:
        raise KitError(
            f"--address: a worker has {threads} threads, and a run needs a process of its own (expected workers "
            "started with --nthreads 1, and --nworkers for several on a machine)"
        )


def tell_cluster(client: Any, luggage: bytes | None, carry: bool) -> None:
    sent = "data and weights are seen there" if luggage is None else f"{len(luggage) / 1e6:.0f} MB go there once"
    back = "results come back with each run" if carry else "results are written to the folder that all see"
    echo(f"  Dask: {len(client.nthreads())} workers; {sent}; {back}")


@sent_whole
def folder_told(path: str) -> list[tuple[str, int]]:
    """Names and sizes of a file, or of all files of a folder."""
    from pathlib import Path

    place = Path(path)
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    return [(p.relative_to(place).as_posix(), p.stat().st_size) for p in files if p.is_file()]


def all_see(client: Any, path: Path) -> bool:
    """Whether every worker sees this file or folder as it is here; a folder of results by what is put into it."""
    path = path.resolve()
    mark = path / f".seen-{uuid.uuid4().hex}" if path.is_dir() else None
    try:
        if mark is not None and os.access(path, os.W_OK):
            mark.touch()
        ours = folder_told(str(path))
        return all(told == ours for told in client.run(folder_told, str(path)).values())
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)


def pack_luggage(client: Any, experiment: Experiment) -> bytes | None:
    """Data and weights that some worker does not see, zipped; None where all is seen."""
    recipes, files = [spec.recipe for spec in experiment.specs], {}
    for path in outside(experiment):
        if not all_see(client, path):
            raise KitError(f"{path}: is not seen by all workers (expected it on a folder that they share)")
    roots = {recipe.data.root for recipe in recipes} if experiment.data is None else {str(experiment.data)}
    unseen = [Path(root) for root in sorted(filter(None, roots)) if not all_see(client, Path(root))]
    if len(unseen) > 1:
        raise KitError(f"{unseen[1]}: is not seen by all workers, as {unseen[0]} is not (expected one folder of data)")
    for root in unseen:
        files |= {f"data/{name}": root / name for name, _ in folder_told(str(root.resolve()))}
    for path in weights_of(recipes):
        files |= {} if all_see(client, path) else {f"weights/{path.name}": path}
    if not files:
        return None
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, path in files.items():
            archive.write(path, name)
    return packed.getvalue()


def outside(experiment: Experiment) -> list[Path]:
    """What the recipe names by a path of its own, besides its data."""
    recipes = [spec.recipe for spec in experiment.specs]
    named = [path for one in recipes for path in (one.checkpoint, *one.soup, *one.data.extra, one.model.weights)]
    named += [one.data.masks for one in recipes if one.data.masks and Path(one.data.masks).is_absolute()]
    return [Path(path) for path in dict.fromkeys(filter(None, named))]


def weights_of(recipes: Sequence[Recipe]) -> list[Path]:
    """The files that the runs' backbones and detectors of spots begin with, as far as they lie here."""
    named = {(one.model.backbone, one.model.weights) for one in recipes if one.model.pretrained}
    paths = [find_backbone_weights(*name) for name in sorted(named, key=str)]
    spots = {step.name for one in recipes for step in one.postprocess} & {"local", "auto"}
    paths += [detector_weights("aliked", None)] if spots and aliked_at_hand() else []
    return [path for path in dict.fromkeys(paths) if path is not None]


# on a worker


def worker_folder() -> Path:
    """A folder of this worker's own."""
    from dask.distributed import get_worker

    return Path(get_worker().local_directory) / "jaguar_kit"


def unpacked(luggage: bytes) -> Path:
    """The folder in which data and weights lie on this worker, unpacked once."""
    place = worker_folder() / f"luggage-{sha_of(np.frombuffer(luggage, np.uint8))[:16]}"
    if not place.is_dir():
        with atomic(place) as temporary, zipfile.ZipFile(io.BytesIO(luggage)) as archive:
            archive.extractall(temporary)
    return place


def pack_run(folder: Path) -> bytes:
    """A run's folder as a tar; its checkpoint too where it is not finished."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder, ".", filter=lambda member: None if "/." in member.name else member)
    return packed.getvalue()


def unpack_run(packed: bytes, folder: Path) -> None:
    """Puts a run that came back in its place, unless it is finished there; what is begun there is set aside."""
    there = RunFolder(folder)
    if there.finished:
        return
    if folder.exists():
        there.set_aside()
    with atomic(folder) as temporary, tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(temporary, filter="data")
