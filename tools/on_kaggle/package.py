"""Builds the Kaggle Dataset folder: python tools/package.py --user YOUR-KAGGLE-NAME --weights weights/*.safetensors"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path

import timm
import torch
from jaguar_kit import (
    KitError,
    __version__,
    atomic,
    echo,
    expand,
    first_few,
    known_backbone,
    load_recipe,
    open_safetensors,
    progress,
    remove_path,
    weights_path,
    write_json,
)

from ..experiments.runs import folder_bytes
from ..experiments.session import file_facts, read_manifest
from .client import kaggle_api, upload_package
from .kernels import MODULE, RECIPES, check_no_password, check_user


def package_kit(
    out: str | Path,
    user: str,
    weights: Sequence[str | Path] = (),
    wheels: Sequence[str | Path] = (),
    slug: str = "jaguar-kit",
    weights_only: bool = False,
) -> Path:
    """Builds the folder of a Kaggle Dataset: module, rooms, recipes, weights, dataset-metadata.json and a manifest.

    All files lie side by side but the rooms of tools/experiments, which the client uploads as an archive that Kaggle
    unpacks; Kaggle's client leaves folders out unless told otherwise, by `--dir-mode zip`. Weights must be
    safetensors files; those of a run, given as its weights.safetensors or its folder, get the name
    experiment-variant-seed.safetensors. Wheels must be pure Python; Kaggle's image lacks nothing that the kit needs.
    weights_only: without module and recipes, as a dataset of its own that is seldom uploaded. An earlier package in
    `out` is replaced; anything else there is left alone. Raises KitError.
    """
    out = Path(out)
    check_user(user)
    check_slug(slug)
    check_out(out)
    own = [] if weights_only else [MODULE, *sorted(RECIPES.glob("*.yaml"))]
    if weights_only and not weights:
        raise KitError("--weights-only: no weights were given (expected --weights FILE ...)")
    files = [(path.name, path) for path in own]
    files += [(packaged_name(path), weights_path(path)) for path in map(Path, weights)]
    files += [(path.name, path) for path in map(Path, wheels)]
    check_file_names([name for name, _ in files])
    files += [] if weights_only else [(f"tools/experiments/{path.name}", path) for path in ROOM_FILES]
    for name, path in files:
        check_packaged(name, path)
    total = sum(path.stat().st_size for _, path in files)
    if total > MOST_BYTES:
        raise KitError(f"--weights: {total / 2**30:.0f} GiB, but a dataset takes {MOST_BYTES / 2**30:.0f}")
    with atomic(out) as temporary:
        temporary.mkdir()
        for name, path in progress(files, "packaging"):
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, temporary / name)
        metadata = {"id": f"{user}/{slug}", "title": slug, "licenses": [{"name": "other"}]}
        write_json(temporary / "dataset-metadata.json", metadata)
        facts = {name: file_facts(temporary / name) for name, _ in files}
        versions = {"python": sys.version.split()[0], "torch": torch.__version__, "timm": timm.__version__}
        write_json(temporary / "manifest.json", {"jaguar_kit": __version__, "packaged_with": versions, "files": facts})
        remove_path(out)
    return out


def check_out(out: Path) -> None:
    """Refuses to build over anything but an earlier package, of which the manifest tells every file."""
    if out.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise KitError(f"--out: {out}: is the folder that you are in, or one around it (expected a folder of its own)")
    if out.exists() and not out.is_dir():
        raise KitError(f"--out: {out}: is a file (expected a new folder, or an earlier package)")
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir() or path.is_symlink()}
    with suppress(KitError):  # it is no package, so that nothing there is its own
        there -= {"manifest.json", "dataset-metadata.json", *read_manifest(out)}
    if there:
        raise KitError(
            f"--out: {out}: holds something other than a package ({first_few(sorted(there), 3)}), which building would "
            "delete; choose a new folder"
        )


ROOM_FILES = sorted(Path(__file__).resolve().parents[1].joinpath("experiments").glob("*.py"))  # what a kernel loads


def check_slug(slug: str) -> None:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) or not 6 <= len(slug) <= 50:
        raise KitError(
            f"--slug: {slug!r} can't name a dataset (expected 6 to 50 lower-case letters, digits and single '-')"
        )


def packaged_name(path: Path) -> str:
    """A weights file's name in the dataset; a run's weights are called by experiment, variant and seed."""
    file = weights_path(path)
    if file.name != "weights.safetensors":
        return file.name
    parts = file.resolve().parent.parts[-3:]
    return re.sub(r"[^A-Za-z0-9._+=-]", "-", "-".join(parts)) + ".safetensors"


def check_packaged(name: str, path: Path) -> None:
    """Refuses what must not travel: pickled or damaged weights, recipes that do not load, wheels with binaries."""
    if path.suffix == ".yaml":
        check_no_password(load_recipe(path), path)
    elif path.suffix == ".safetensors":
        with open_safetensors(path):
            pass
    elif path.suffix == ".whl":
        if not path.is_file() or not name.endswith("-none-any.whl"):
            raise KitError(f"{path}: not a wheel of pure Python (expected a file named ...-none-any.whl)")
    elif path not in (MODULE, *ROOM_FILES):
        raise KitError(
            f"{path}: only safetensors weights are packaged, nothing pickled; save it with safetensors first"
        )


MOST_FILES, MOST_BYTES = 50, 200 * 2**30  # of one Kaggle dataset: files at its top level, and in all


def check_file_names(file_names: Sequence[str]) -> None:
    for name in file_names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._+=@-]{0,99}", name):
            raise KitError(
                f"--weights: {name!r} is no name for a file on Kaggle (expected up to 100 letters, digits and ._+=@-)"
            )
    twice = [name for name in file_names if file_names.count(name) > 1]
    if twice:
        raise KitError(f"--weights: two files are called {twice[0]}; rename one")
    if len(file_names) + 2 > MOST_FILES:
        raise KitError(
            f"--weights: {len(file_names) + 2} files with manifest and tools, but a dataset takes {MOST_FILES}; put "
            "weights into a dataset of their own with --weights-only"
        )


def what_runs(packed: Container[str]) -> list[str]:
    """Lines that tell which recipes run with these backbones in the dataset, and what the others lack."""
    able, lacking = ["starter"], []
    for path in sorted(RECIPES.glob("*.yaml")):
        recipes = [spec.recipe for spec in expand(load_recipe(path))]
        models = [one.model for one in recipes if one.model.pretrained and not one.model.weights]
        needed = {model.backbone for model in models} - {None}
        away = sorted(n for n in needed if n not in packed and known_backbone(n).architecture not in packed)
        trained = sorted({run for one in recipes for run in (one.checkpoint, *one.soup) if run})
        away += [f"what {trained[0]} trained"] if trained else []
        if away:
            lacking.append(f"  {path.stem} wants {', '.join(away[:3])}{' and others' * (len(away) > 3)}")
        else:
            able.append(path.stem)
    return [f"  run with what is packed: {', '.join(able)}", *lacking]


def package_command(argv: Sequence[str] | None = None) -> int:
    """`tools/package.py --user NAME [--weights FILE ...] [--out DIR] [--create | --update]`."""
    parser = argparse.ArgumentParser(
        prog="package.py", description="Builds the Kaggle Dataset folder of the kit, and uploads it where asked to."
    )
    parser.add_argument("--user", required=True, help="your Kaggle user name")
    parser.add_argument(
        "--weights", nargs="*", default=[], help="safetensors files: backbones, or runs/NAME/VARIANT/SEED"
    )
    parser.add_argument(
        "--wheels", nargs="*", default=[], help="wheels of pure Python that Kaggle's image lacks (none)"
    )
    parser.add_argument("--weights-only", action="store_true", help="a dataset of weights, without module and recipes")
    parser.add_argument("--slug", help="the dataset's name in its address (jaguar-kit, or jaguar-kit-weights)")
    parser.add_argument("--out", help="folder to build (dist/SLUG)")
    upload = parser.add_mutually_exclusive_group()
    upload.add_argument("--create", action="store_true", help="upload it as a new dataset, and wait until it is ready")
    upload.add_argument("--update", action="store_true", help="upload it as a new version of the dataset, and wait")
    parser.add_argument("--drop", action="store_true", help="with --update: weights not named here leave the dataset")
    parser.add_argument("-m", "--message", default="update", help="what the new version brings")
    given = parser.parse_args(argv)
    if given.drop and not given.update:
        raise KitError("--drop: lets weights leave a dataset (expected --update with it)")
    if given.create or given.update:
        kaggle_api()  # without credentials nothing is worth packaging
    slug = given.slug or ("jaguar-kit-weights" if given.weights_only else "jaguar-kit")
    out = Path(given.out or f"dist/{slug}")
    out = package_kit(out, given.user, given.weights, given.wheels, slug, given.weights_only)
    packed = sorted(path for path in out.rglob("*") if path.is_file())
    for path in packed:
        echo(f"  wrote {path} ({path.stat().st_size:,} bytes)")
    if not given.weights_only:
        echo("\n".join(what_runs({path.stem for path in out.glob("*.safetensors")})))
    echo(f"{given.user}/{slug}: {len(packed) - 1} files to upload, {folder_bytes(out):,} bytes")
    if given.create or given.update:
        upload_package(out, given.create, given.message, drop=given.drop)
    else:
        echo(f"upload it: tools/package.py with --create, then --update; or kaggle datasets create -r zip -p {out}")
    return 0
