"""What benches measure with: seconds, memory, one thread, processes of their own, and the types of their options."""

from __future__ import annotations

import argparse
import math
import platform
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


# seconds


def seconds_of(function: Callable, arguments: list[Any]) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def waiting(device: Any) -> Callable[[], None]:
    """What returns once the device has done all that it was given."""
    import torch

    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


# memory


def reset_peak() -> None:
    """Sets the kernel's record of this process's peak memory back to what is in use now."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """Largest resident memory since the last reset, in MB.

    VmHWM and not getrusage's ru_maxrss: that one keeps the peak of the process that started this one, and both would
    hide a call behind the peak of loading its inputs, had they not been reset.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


def gigabytes(device: Any) -> float:
    """The most memory of the GPU that was in use since the last call."""
    import torch

    if device.type != "cuda":
        return math.nan
    most = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return most


# processes


def one_thread() -> None:
    """The environment has set the numerical libraries; torch and faiss are told as well, where they are loaded."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(1)


def in_fresh_process(function: Callable, *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def installed(module: str) -> bool:
    return find_spec(module.partition(".")[0]) is not None


# what it runs on, and where


def machine(cores: int = 1) -> dict[str, str]:
    """Hardware and versions."""
    information = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in information if line.startswith("model name")), "unknown")
    packages = ("numpy", "torch", "pandas", "faiss-cpu", "pytorch-metric-learning")
    versions = {p: metadata.version(p) for p in packages if list(metadata.distributions(name=p))}
    return {"CPU": f"{model}, {cores} core{'s' * (cores > 1)} used", "python": platform.python_version(), **versions}


def fresh(folder: Path, name: str) -> Path:
    """An empty folder, in place of an earlier one of that name."""
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).mkdir()
    return folder / name


# options


def whole_number(text: str, least: int = 0) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def a_share(text: str) -> float:
    """An option's value from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def output_file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a file in an existing folder")
    return path


count = partial(whole_number, least=1)


def add_repeat(command: argparse.ArgumentParser, what: str = "calls", usual: int = 3) -> None:
    """The option --repeat, which most benches have."""
    said = f"timed {what}, the best of which counts ({usual})"
    command.add_argument("--repeat", type=count, default=usual, metavar="R", help=said)
