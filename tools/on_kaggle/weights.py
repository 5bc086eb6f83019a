"""Downloads backbones and detectors as safetensors: python tools/fetch_weights.py dinov3_l miewid aliked_n16"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import kornia
from jaguar_kit import (
    KitError,
    download_backbone,
    echo,
    known_backbone,
    load_safetensors,
    one_line,
    save_backbone,
    save_tensors,
)

from ..experiments.spots import DETECTORS

SPOTS = {file: name for name, (_, file) in DETECTORS.items() if file}  # detectors by the file of their weights


def fetch_backbone(name: str, out: str | Path) -> Path:
    """Downloads a backbone's weights into the folder `out`, as <name>.safetensors; one that is there is kept."""
    path = Path(out) / f"{name.rpartition('/')[2]}.safetensors"
    if not path.is_file():
        try:
            downloaded = download_backbone(name, None)
        except KitError as error:
            looked, found, _ = str(error).partition("; fetch them where there is internet")
            if not found:
                raise
            raise KitError(
                f"{looked}; where the hub asks for it, accept the licence on the model's page and set HF_TOKEN; "
                f"without internet download it elsewhere, and copy {path} here"
            ) from None
        save_backbone(path, downloaded, name)
    return path


def fetch_detector(file: str, out: str | Path) -> Path:
    """Lets kornia download a detector's weights, and keeps them in the folder `out`; those that are there are kept."""
    from kornia import feature

    path = Path(out) / f"{file}.safetensors"
    if not path.is_file():
        if find_spec("kornia.core.download") is None:  # an older one would unpickle whatever comes
            raise KitError(f"{file}: kornia {kornia.__version__} does not download it safely (expected a newer kornia)")
        aliked = SPOTS[file] == "aliked"
        try:
            model = feature.ALIKED.from_pretrained("aliked-n16") if aliked else feature.DISK.from_pretrained("depth")
        except (OSError, RuntimeError) as error:
            raise KitError(
                f"{file}: can't be downloaded: {one_line(error, 200)}; download it where there is internet, and "
                f"copy {path} here"
            ) from None
        source = "https://github.com/Shiaoming/ALIKED" if aliked else "https://github.com/cvlab-epfl/disk"
        save_tensors(path, model.state_dict(), {"architecture": file, "source": source})
    return path


def fetch_command(argv: Sequence[str] | None = None) -> int:
    """`tools/fetch_weights.py NAME ... [--out weights/]`."""
    parser = argparse.ArgumentParser(
        prog="fetch_weights.py",
        description="Downloads backbones and detectors as safetensors that recipes find by name.",
    )
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="a short name, such as dinov3_l, one of timm's, or aliked_n16"
    )
    parser.add_argument("--out", default="weights", help="folder (weights)")
    given = parser.parse_args(argv)
    for name in given.names:
        if name not in SPOTS:
            known_backbone(name)
    for name in given.names:
        path = (fetch_detector if name in SPOTS else fetch_backbone)(name, given.out)
        _, metadata = load_safetensors(path)
        told = ", ".join(f"{key} {metadata[key]}" for key in ("architecture", "source", "licence") if metadata.get(key))
        echo(f"  {path}: {told} ({path.stat().st_size:,} bytes)")
    return 0
