"""Matching spots, the posterior of classes, and fusion: python tools/bench.py evidence.

On random values, with the memory that they take.
"""

from __future__ import annotations

import argparse
import math
import os

import numpy as np

from .measuring import add_repeat, count, machine, peak_memory, reset_peak, seconds_of, waiting


def run(options: argparse.Namespace) -> None:
    import jaguar_kit as jk
    import torch

    device = jk.pick_device(options.device)
    wait = waiting(device)
    draw = np.random.default_rng(0)
    images = options.images
    described = torch.nn.functional.normalize(
        torch.from_numpy(draw.standard_normal((images, 512, 128), np.float32)), dim=2
    )
    features = jk.LocalFeatures(torch.rand(images, 512, 2), described.half())
    logits = torch.from_numpy(draw.standard_normal((options.size, 31), np.float32)).to(device)
    matrices = {
        name: torch.rand(options.size, options.size, device=device) for name in ("likeness", "posterior", "local")
    }
    state = jk.Retrieval(logits, matrices["likeness"], jk.Cosine(), evidence=matrices)
    spots, ensemble = jk.room("experiments.spots"), jk.room("experiments.ensemble")
    encounters = jk.room("experiments.encounters")
    met = draw.integers(0, options.size // 3, options.size)
    whitening, codes = jk.build("head", "whiten", in_features=1280), np.arange(options.size) % 100
    vectors = torch.from_numpy(draw.standard_normal((options.size, 1280), np.float32))
    known = [
        ensemble.Evidence(np.arange(options.size).astype(str), one, one, shares=share)
        for one, share in zip(
            (matrices[name].cpu().numpy() for name in ("likeness", "local")), np.full((2, options.size, 31), 1 / 31)
        )
    ]
    known = [jk.replace(one, identities=tuple(map(str, range(31)))) for one in known]
    pairs = images * (images - 1) // 2
    detectors = [name for name in ("sift", "aliked") if name == "sift" or jk.find_weights(["aliked_n16"], None, "")]
    textures = np.kron(draw.integers(0, 256, (8, 60, 60, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    found = {name: spots.load_detector(name, 512) for name in detectors}
    pixels = torch.from_numpy(textures).permute(0, 3, 1, 2).float() / 255
    timed = {f"spots by {name}, an image of 480 px": lambda d=detect: d(pixels[:1]) for name, detect in found.items()}
    timed |= {
        f"local_similarity, {pairs:,} pairs of 512 spots": lambda: jk.local_similarity(features, device=device),
        f"closed_set_posterior, {options.size:,} x 31": lambda: jk.closed_set_posterior(logits),
        f"spots fixed to a camera, of {images:,} images": lambda: spots.fixed_to_camera(features, np.arange(images)),
        f"fuse, three matrices of {options.size:,} x {options.size:,}": lambda: jk.fuse_step(state),
        "the same, standardised by query": lambda: jk.fuse_step(state, by="query"),
        f"encounters, {options.size:,} images of {options.size // 3:,}": lambda: encounters.mean_over_encounters(
            state.raw, met
        ),
        f"whitening fitted to {options.size:,} x 1,280": lambda: whitening.fit_scatter(vectors, codes),
        f"ensemble of two members' evidence, {options.size:,} images": lambda: ensemble.fused_evidence(known, [1, 1]),
    }
    print(", ".join(f"{key} {value}" for key, value in machine(os.cpu_count() or 1).items()))
    for name, function in timed.items():
        reset_peak()
        before = peak_memory()
        best = math.inf
        for _ in range(1 if "local" in name else options.repeat):
            with torch.no_grad():
                best = min(best, seconds_of(lambda f=function: (f(), wait()), []))
        print(f"{name:<56}{best:>9.3f} s{peak_memory() - before:>8.0f} MB", flush=True)


def add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--images", type=count, default=375, metavar="N", help="images whose spots are matched, all pairs (375)")
    add("--size", type=count, default=5000, metavar="N", help="images of posterior and fusion (5000)")
    add_repeat(command)
    add("--device", default="auto", help="auto, cpu or cuda")
