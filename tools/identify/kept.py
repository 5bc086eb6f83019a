"""What was worked out of single pictures, kept in the cache: an added photograph costs its own work and no other's.

Each kind of work has a folder below by_image/ there, with rows of tensors and their keys in safetensors files. A file
is written once, and small ones are gathered when there are many, so that processes need not wait for each other. All of
it may be removed at any time; what was used longest ago goes when there is more than `MOST`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from jaguar_kit import (
    Busy,
    KitError,
    cache_dir,
    echo,
    fingerprint,
    load_safetensors,
    only_one,
    open_safetensors,
    progress,
    save_tensors,
)
from torch import Tensor

FOLDER, KEYS, SUFFIX = "by_image", "keys", ".safetensors"
MOST = 20 << 30  # bytes of all files together
SMALL, MANY = 16 << 20, 16  # bytes of a small file, and how many of these are gathered
ROWS, SECONDS = 256, 10.0  # after which what was worked out is written
DAY = 86400.0  # seconds after which it is told anew that a file was used

Rows = dict[str, Tensor]
Part = tuple[np.ndarray, Rows]  # places among what is wanted (n,), and rows (n, ...) for them
Make = Callable[[np.ndarray], tuple[np.ndarray, Rows]]  # of positions: which could be worked out (bool), and their rows

_used: set[Path] = set()  # by this process, which keeps them


def row_key(*parts: object) -> int:
    """64 bits that change with any of these plain values."""
    return int.from_bytes(bytes.fromhex(fingerprint(*parts)), "little", signed=True)


def kept_rows(kind: str, keys: np.ndarray, make: Make, label: str, batch: int = 64) -> Part:
    """Which of the keys, int64 (N,), have rows, as positions, and these rows: from the cache, or as `make` gives them.

    make is asked for a batch of positions at a time, once for each key; what it gives is written on the way.
    """
    folder = cache_dir() / FOLDER / kind
    wanted, first, of = np.unique(keys, return_index=True, return_inverse=True)
    parts = found_rows(folder, wanted)
    missing = np.setdiff1d(np.arange(len(wanted)), np.concatenate([np.zeros(0, int), *(places for places, _ in parts)]))
    if len(missing):
        parts += worked_out(
            folder, wanted, [missing[i : i + batch] for i in range(0, len(missing), batch)], first, make, label
        )
        gather(folder)
        keep_below(folder.parent)
    return joined(parts, len(wanted), of)


def joined(parts: Sequence[Part], count: int, of: np.ndarray) -> Part:
    """The rows of all parts for `of`, places among `count`, and the positions that have one."""
    place, total = np.full(count, -1), 0
    for places, _ in parts:
        place[places] = np.arange(total, total + len(places))
        total += len(places)
    rows = place[of.reshape(-1)]
    positions = np.flatnonzero(rows >= 0)
    names = parts[0][1] if parts else ()
    order = torch.from_numpy(rows[positions])
    return positions, {name: torch.cat([own[name] for _, own in parts])[order] for name in names}


def worked_out(
    folder: Path, wanted: np.ndarray, batches: Sequence[np.ndarray], first: np.ndarray, make: Make, label: str
) -> list[Part]:
    """Rows for batches of places among what is wanted, written every now and then, and when something stops it."""
    parts: list[Part] = []
    waiting: list[Part] = []
    since = time.monotonic()

    def write() -> None:
        if waiting:
            places = np.concatenate([own for own, _ in waiting])
            rows = {name: torch.cat([own[name] for _, own in waiting]).contiguous() for name in waiting[0][1]}
            waiting.clear()
            parts.append((places, rows))
            write_rows(folder, wanted[places], rows)

    try:
        for places in progress(batches, label):
            good, rows = make(first[places])
            if good.any():
                waiting.append((places[good], rows))
            if sum(len(own) for own, _ in waiting) >= ROWS or time.monotonic() - since > SECONDS:
                write()
                since = time.monotonic()
    finally:
        write()
    return parts


# files


def write_rows(folder: Path, keys: np.ndarray, rows: Rows) -> Path:
    path = folder / f"{fingerprint(keys.tolist())}{SUFFIX}"
    if not path.exists():
        save_tensors(path, {KEYS: torch.from_numpy(keys.astype(np.int64)), **rows})
    _used.add(path)
    return path


def read_rows(path: Path, wanted: np.ndarray) -> Part:
    """The places of a file's keys among those that are wanted (rising), and their rows; only a file that has some is
    read whole."""
    with open_safetensors(path) as file:
        keys = file.get_tensor(KEYS).numpy()
    places = np.searchsorted(wanted, keys).clip(max=len(wanted) - 1)
    mine = wanted[places] == keys
    if not mine.any():
        return places[mine], {}
    tensors = load_safetensors(path)[0]
    if any(len(tensor) != len(keys) for tensor in tensors.values()):
        raise KitError(f"{path}: has other numbers of keys and of rows")
    rows = torch.from_numpy(np.flatnonzero(mine))
    return places[mine], {name: tensor[rows] for name, tensor in tensors.items() if name != KEYS}


def found_rows(folder: Path, wanted: np.ndarray, tries: int = 3) -> list[Part]:
    """What the files of a folder have of the wanted keys (rising), each once."""
    parts: list[Part] = []
    for _ in range(tries if len(wanted) else 0):
        parts, gone, have = [], False, np.zeros(len(wanted), bool)
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                places, rows = read_rows(path, wanted)
            except KitError:
                gone |= not path.exists()  # another process has gathered it
                if path.exists():
                    echo(f"  note: {path}: was damaged and is made anew")
                    path.unlink(missing_ok=True)
                continue
            fresh = ~have[places]
            have[places] = True
            if fresh.any():
                use(path)
                parts.append((places[fresh], {name: rows[name][torch.from_numpy(fresh)] for name in rows}))
        if not gone:
            break
    return parts


def use(path: Path) -> None:
    """Tells that a file was used, so that it is kept."""
    _used.add(path)
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > DAY:
            os.utime(path)


def gather(folder: Path) -> None:
    """Puts small files together where there are many, unless another process does."""

    def small() -> list[Path]:
        found = []
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            with suppress(OSError):
                found += [path] if path.stat().st_size < SMALL else []
        return found

    if len(small()) < MANY:
        return
    try:
        with only_one(folder / "gathering"):
            files, parts = small(), []
            for path in files:
                with suppress(KitError):  # is told when it is read
                    rows = load_safetensors(path)[0]
                    parts.append((rows.pop(KEYS).numpy(), rows))
            keys, first = np.unique(np.concatenate([own for own, _ in parts]), return_index=True)
            order = torch.from_numpy(first)
            together = {name: torch.cat([rows[name] for _, rows in parts])[order] for name in parts[0][1]}
            kept = write_rows(folder, keys, together)
            for path in files:
                if path != kept:
                    path.unlink(missing_ok=True)
    except Busy:
        return


def keep_below(root: Path, most: int = MOST) -> None:
    """Removes the files that were used longest ago until all together have no more than so many bytes."""
    found = []
    for path in root.glob(f"*/*{SUFFIX}"):
        with suppress(OSError):
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    if total <= most:
        return
    echo(f"  note: {root}: more than {most / 2**30:.0f} GB; what was used longest ago is removed")
    for _, size, path in sorted(found):
        if total > most and path not in _used:
            path.unlink(missing_ok=True)
            total -= size
