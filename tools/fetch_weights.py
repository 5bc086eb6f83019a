"""Downloads backbones as safetensors: python tools/fetch_weights.py dinov3_l miewid"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jaguar_kit import download_backbone, echo, known_backbone, load_safetensors, main, save_backbone


def fetch_backbone(name: str, out: str | Path) -> Path:
    """Downloads a backbone's weights into the folder `out`, as <name>.safetensors; one that is there is kept."""
    path = Path(out) / f"{name}.safetensors"
    if not path.is_file():
        save_backbone(path, download_backbone(name, None), name)
    return path


def fetch_command(argv: Sequence[str] | None = None) -> int:
    """`tools/fetch_weights.py NAME ... [--out weights/]`."""
    parser = argparse.ArgumentParser(
        prog="fetch_weights.py",
        description="Downloads backbones from the hub as safetensors that recipes find by name.",
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="a short name, such as dinov3_l, or one of timm's")
    parser.add_argument("--out", default="weights", help="folder (weights)")
    given = parser.parse_args(argv)
    for name in given.names:
        known_backbone(name)
    for name in given.names:
        path = fetch_backbone(name, given.out)
        _, metadata = load_safetensors(path)
        told = ", ".join(f"{key} {metadata[key]}" for key in ("architecture", "source", "licence") if metadata.get(key))
        echo(f"  {path}: {told} ({path.stat().st_size:,} bytes)")
    return 0


if __name__ == "__main__":
    sys.exit(main(fetch_command))
