"""Members of an ensemble, which other sessions made: which source of a kernel brings each, and whether it holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jaguar_kit import Recipe, RunFolder, echo, first_few

from .findings import Finding, certain
from .kernels import experiment_of, kernel_slug, members_named, runs_named
from .mounts import Output


def lies_below(run: str, member: str) -> bool:
    """Whether a run's folder in an output is that of a member, or lies below it, however deep the output is mounted."""
    own, wanted = PurePosixPath(run).parts, Path(member).parts
    return any(own[at : at + len(wanted)] == wanted for at in range(len(own)))


def runs_of_member(member: str, output: Output) -> list[str]:
    """The finished runs of a member in an output."""
    return sorted(run for run in output.runs or () if lies_below(run, member))


def kernel_of_member(member: str, metadata: Mapping[str, Any]) -> str:
    """The kernel that should have left a member, or "" where the member's path tells none."""
    experiment = experiment_of(member)
    return f"{str(metadata['id']).partition('/')[0]}/{kernel_slug(experiment)}" if experiment else ""


def member_findings(metadata: Mapping[str, Any], recipe: Recipe, outputs: Sequence[Output]) -> list[Finding]:
    """Says of each member which source brings it, and finds those that none does."""
    found = []
    for member in runs_named(recipe):
        holding = [one for one in outputs if runs_of_member(member, one)]
        if any(one.named for one in holding):
            for one in [one for one in holding if one.named]:
                count = len(runs_of_member(member, one))
                echo(f"  member {member}: {count} finished run{'s' * (count > 1)} in {one.source} ({one.kind}_sources)")
        else:
            found.append(lacking_member(member, metadata, outputs, holding))
    return found


def lacking_member(
    member: str, metadata: Mapping[str, Any], outputs: Sequence[Output], holding: Sequence[Output]
) -> Finding:
    """A member that no source is known to bring, and what to do."""
    named = [one for one in outputs if one.named]
    unseen, seen = ([one.source for one in named if (one.runs is None) == unknown] for unknown in (True, False))
    kernel = kernel_of_member(member, metadata)
    wanted = f"{kernel} among kernel_sources, or a dataset of its runs among dataset_sources" if kernel else "a dataset"
    if holding:
        where = f"lies in {holding[0].folder}, which no source of the kernel brings"
        return certain(f"member {member}: {where} (expected {wanted}); run tools/kernels.py")
    if unseen:
        likely = [one for one in unseen if kernel and one.startswith(kernel)] or unseen
        where = f"should lie in {first_few(likely)}, of which nothing is here (expected a finished run below {member})"
        return Finding(f"member {member}: {where}; --attach names a folder of it, or --fetch it into results/")
    if seen:
        made = f"kernels/{experiment_of(member)}" if kernel else "what makes it"
        where = f"{first_few(seen)} holds no finished run of it (expected metrics.json and recipe.yaml below {member})"
        return certain(f"member {member}: {where}; let {made} end first, or name what holds it among kernel_sources")
    return certain(f"member {member}: no source of the kernel brings it (expected {wanted}); run tools/kernels.py")


def test_images_of(recipe: Recipe, outputs: Sequence[Output]) -> list[str]:
    """The test images that the members know, where all members lie here in sources of the kernel; else none."""
    members, images = members_named(recipe), []
    for member in members:
        runs = [one.folder / run for one in outputs if one.named and one.folder for run in runs_of_member(member, one)]
        if not runs:
            return []
        folds = sorted(runs[0].glob("fold*/test.npz"))
        place = RunFolder(folds[0].parent if folds else runs[0])
        images = images or [str(name) for name in place.arrays("test.npz", "images")["images"]]
    return images
