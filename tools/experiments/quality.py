"""How good images are, and how near two of them are to being the same."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaguar_kit import (
    ImageStore,
    cache_dir,
    check_pixels,
    core_count,
    fingerprint,
    kept_or_made,
    mask_paths,
    progress,
    read_image,
)
from torch import Tensor


def gray_levels(image: np.ndarray) -> np.ndarray:
    """Luminance float64 (H, W) in [0, 255] of uint8 (H, W, 3 or 4)."""
    return image[..., :3] @ np.array([0.299, 0.587, 0.114])


SIGNALS = ("sharpness", "brightness", "contrast", "foreground", "ratio")


def quality_of(image: np.ndarray) -> tuple[float, ...]:
    """`SIGNALS` of an image, uint8 (H, W, 3 or 4)."""
    gray = gray_levels(image)
    padded = np.pad(gray, 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * gray
    animal = image[..., 3] > 0 if image.shape[-1] == 4 else np.ones(gray.shape, bool)
    animal = animal if animal.any() else np.ones(gray.shape, bool)
    share = float(animal.mean())
    return laplacian[animal].var(), gray[animal].mean(), gray[animal].std(), share, share / max(1 - share, 1e-6)


def quality_signals(pixels: np.ndarray | ImageStore) -> pd.DataFrame:
    """How good each image of uint8 (N, S, S, 3 or 4) is, on the animal's own pixels where there are masks.

    sharpness: variance of the Laplacian, which falls as an image is made small; brightness, contrast: mean and standard
    deviation of gray levels in [0, 255]; foreground: the animal's share of the image; ratio: its area to the
    background's.
    """
    check_pixels(pixels)
    return pd.DataFrame([quality_of(image) for image in pixels], columns=list(SIGNALS))


def quality_of_files(root: Path, paths: Sequence[str], masks: str | None, key: str) -> pd.DataFrame:
    """`quality_signals` of image files as they are, at full resolution; kept in the cache by `key`."""

    def measure() -> dict[str, Tensor]:
        mask_files = mask_paths(root, paths, masks)

        def one(number: int) -> tuple[float, ...]:
            rgb, alpha = read_image(root / paths[number], mask_files[number])
            return quality_of(np.dstack([rgb, alpha] if alpha else [rgb]))

        with ThreadPoolExecutor(min(4, core_count())) as pool:  # a large image takes a hundred times its file
            rows = list(progress(pool.map(one, range(len(paths))), "measuring quality", len(paths)))
        return {"signals": torch.tensor(rows, dtype=torch.float64)}

    path = cache_dir() / "quality" / f"{fingerprint('quality 1', key, len(paths))}.safetensors"
    told = kept_or_made(path, ("signals",), len(paths), measure)["signals"]
    return pd.DataFrame(told.numpy(), columns=list(SIGNALS))


def differing_bits(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """In how many bits each hash of one (N, 64) differs from each of the other (M, 64), int (N, M)."""
    a, b = one.astype(np.float32), other.astype(np.float32)
    return np.rint(a.sum(1)[:, None] + b.sum(1) - 2 * a @ b.T).astype(int)
