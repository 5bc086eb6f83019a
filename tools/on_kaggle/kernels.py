"""Writes a kernel for every recipe, or for some, or checks them: python tools/kernels.py [RECIPE ...] [--check]"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import jaguar_kit
import yaml
from jaguar_kit import (
    ROOMS,
    WORDS,
    Component,
    DataConfig,
    KitError,
    Recipe,
    echo,
    expand,
    load_recipe,
    one_line,
    read_json,
    recipe_path,
    recipe_to_dict,
    settings_of,
    without_passwords,
    write_text,
)

from ..experiments.session import kit_sha256
from .notebooks import run_notebook

MODULE = Path(jaguar_kit.__file__).resolve()
OWN = (MODULE.parent / "recipes", MODULE.parent / ROOMS / "recipes")  # in a clone, and where pip puts them
RECIPES = next((place for place in OWN if place.is_dir()), OWN[0])
PLACEHOLDER = "YOUR-KAGGLE-NAME"


def check_user(user: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9-]+", user):
        raise KitError(
            f"--user: {user!r} is not a Kaggle user name (letters, digits and '-', as in your profile's address)"
        )
    if user == PLACEHOLDER:
        raise KitError(f"--user: {user} stands for your own name (as in your profile's address)")


def check_no_password(recipe: Recipe, where: str | Path) -> None:
    """Refuses to let a recipe travel that tells the password of its storage."""
    plain = recipe_to_dict(recipe)
    if without_passwords(plain) != plain:
        raise KitError(
            f"{where}: search.storage: tells a password, which must not travel (give it by -o search.storage=...)"
        )


DEFAULT_OVERRIDES = 'OVERRIDES = []  # such as "train.epochs=3"'


KERNEL_SCRIPT = '''\
"""recipes/{name}.yaml on Kaggle, offline. Written by tools/kernels.py: edit the recipe, not this."""

{finder}
{overrides}
RECIPE = """
{recipe}"""

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, [RECIPE, *OVERRIDES]))
'''


SETTINGS_FIRST = """\
import hashlib
import os
import sys
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")  # before anything reads it
KIT = "{sha256}"  # of its jaguar_kit.py and tools/experiments

"""
IN_THE_INPUT = """\
mounts = ("*", "*/*", "datasets/*/*")  # /kaggle/input/<slug>, or /kaggle/input/datasets/<owner>/<slug>
kits = sorted(file.parent for mount in mounts for file in Path("/kaggle/input").glob(f"{{mount}}/jaguar_kit.py"))
files = {{kit: [kit / "jaguar_kit.py", *sorted(kit.glob("tools/experiments/*.py"))] for kit in kits}}
sums = {{hashlib.sha256(b"".join(f.read_bytes() for f in files[kit])).hexdigest(): kit for kit in reversed(kits)}}
if KIT not in sums:
    other = f"{{kits[0]}}: another kit than this kernel was written for; update the dataset with" if kits else ""
    remedy = "tools/package.py --update (which uploads its folder tools/ too), or this kernel with tools/kernels.py"
    none = "no jaguar_kit.py under /kaggle/input; attach the dataset that tools/package.py built"
    sys.exit(f"error: {{other}} {{remedy}} and push it again" if kits else f"error: {{none}}")
sys.path[:0] = [str(sums[KIT]), *map(str, sums[KIT].glob("*.whl"))]
"""
IMPORT = """
import jaguar_kit  # noqa: E402
"""
KIT_FINDER = SETTINGS_FIRST + IN_THE_INPUT + IMPORT
NOTEBOOK_FINDER = f"""{SETTINGS_FIRST}if Path("/kaggle/input").is_dir():
{textwrap.indent(IN_THE_INPUT, "    ")}else:  # elsewhere it is installed, or lies in this folder or one above it
    sys.path += [str(place) for place in (Path.cwd(), *Path.cwd().parents) if (place / "jaguar_kit.py").is_file()]
{IMPORT}"""


def kernel_slug(name: str) -> str:
    return "jaguar-kit-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def part_slug(slug: str, number: int, count: int) -> str:
    """The slug of a kernel that makes one of several parts of another's runs."""
    ending = f"-{number}-of-{count}"
    return slug[: 50 - len(ending)].rstrip("-") + ending


def recipe_in_short(recipe: Recipe) -> dict:
    """What of the recipe is not the default, as plain YAML values of which `recipe_from_dict` makes it again."""

    def plain(value: Any, default: Any) -> Any:
        if isinstance(value, Component):
            known = settings_of(value.kind, value.name)
            own = {key: plain(v, None) for key, v in value.settings.items() if v != known[key]}
            return {"name": value.name, **own} if own else value.name
        if is_dataclass(value):
            base = default if isinstance(default, type(value)) else type(value)()
            pairs = [(f.name, getattr(value, f.name), getattr(base, f.name)) for f in fields(value)]
            return {name: plain(own, usual) for name, own, usual in pairs if own != usual}
        return [plain(v, None) for v in value] if isinstance(value, tuple) else value

    return {"name": recipe.name, **plain(recipe, Recipe(name=recipe.name))}


def in_few_lines(value: Mapping[str, Any], indent: str = "", width: int = 116) -> str:
    """A mapping as YAML: each entry in one line where it fits there."""
    lines = []
    for key, inner in value.items():
        told = {"sort_keys": False, "allow_unicode": True}
        flow = yaml.safe_dump({key: inner}, default_flow_style=True, width=10**6, **told).strip()[1:-1]
        if len(indent + flow) <= width:
            lines.append(indent + flow)
        elif isinstance(inner, Mapping):
            name = yaml.safe_dump({key: None}, **told).partition(": null")[0]
            lines += [f"{indent}{name}:", in_few_lines(inner, f"{indent}  ", width)]
        else:
            style = None if isinstance(inner, list) else False
            block = yaml.safe_dump({key: inner}, default_flow_style=style, width=width - 25 - len(indent), **told)
            lines.append(textwrap.indent(block.rstrip("\n"), indent))
    return "\n".join(lines) + ("" if indent else "\n")


def kernel_script(recipe: Recipe) -> str:
    """The code file of a kernel: a few lines that find the kit, and all settings of the recipe that are no defaults.

    Its words (hypothesis, readings, what others published) travel in the package, where they lie but once.
    """
    check_no_password(recipe, f"recipes/{recipe.name}.yaml")
    packaged = (RECIPES / f"{recipe.name}.yaml").is_file()
    left = set(WORDS) - {"question"} if packaged else set()
    told = {key: value for key, value in recipe_in_short(recipe).items() if key not in left}
    text = in_few_lines(told)
    text = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    finder = KIT_FINDER.format(sha256=kit_sha256())
    return KERNEL_SCRIPT.format(name=recipe.name, finder=finder, overrides=DEFAULT_OVERRIDES, recipe=text)


def kernel_notebook(text: str, where: Path) -> str:
    """A notebook with the code that finds the kit brought up to date; it stands in the first cell of code."""
    try:
        notebook = json.loads(text)
        cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    except (ValueError, KeyError, TypeError, StopIteration, RecursionError) as error:
        told = str(error) or "it has none"
        raise KitError(
            f"{where}: is no notebook with a cell of code: {one_line(told, 200)} (expected one, for "
            "the lines that find the kit)"
        ) from None
    cell["source"] = NOTEBOOK_FINDER.format(sha256=kit_sha256()).rstrip().splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def earlier_experiments(recipe: Recipe) -> list[str]:
    """Names of the experiments whose weights a recipe begins with, or whose runs it fuses, such as final of
    runs/final/default/seed42."""
    used = [path for cell in expand(recipe) for path in (cell.recipe.checkpoint, *cell.recipe.soup) if path]
    begun = {Path(path).parts[1] for path in used if path.startswith("runs/") and len(Path(path).parts) > 2}
    return sorted({*begun, *filter(None, map(experiment_of, runs_named(recipe)))})


def members_named(recipe: Recipe) -> tuple[str, ...]:
    """The folders of finished runs that a recipe fuses besides its own."""
    return tuple(recipe.ensemble.settings.get("members", ()))


def runs_named(recipe: Recipe) -> tuple[str, ...]:
    """The folders of finished runs that a recipe needs: to fuse them, or to measure its pseudo-labels by."""
    measured = recipe.pseudo.measured_on if recipe.pseudo else None
    return (*members_named(recipe), *([measured] if measured else []))


def experiment_of(member: str) -> str | None:
    """The experiment that a member belongs to, such as champion of runs/champion/eva02; None where it does not tell."""
    parts = Path(member).parts
    return parts[1] if parts[:1] == ("runs",) and len(parts) > 1 else None


def kernel_metadata(
    name: str,
    code_file: str,
    user: str,
    competition: str,
    kernels: Sequence[str] = (),
    datasets: Sequence[str] = (),
    earlier: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """kernel-metadata.json of a kernel; of an `earlier` one it keeps further sources, machine and privacy."""
    kept, slug, notebook = earlier or {}, kernel_slug(name), code_file.endswith(".ipynb")

    def sources(kind: str, own: Iterable[str]) -> list[str]:
        named = [re.sub(rf"^{PLACEHOLDER}/", f"{user}/", source) for source in kept.get(kind, [])]
        owned = [f"{user}/{source.partition('/')[2]}" if source.startswith(f"{old}/") else source for source in named]
        return list(dict.fromkeys([*own, *owned]))

    old = str(kept.get("id", user)).partition("/")[0]
    return {
        "id": f"{user}/{slug}",
        "title": slug,  # of which Kaggle makes the slug
        "code_file": code_file,
        "language": "python",
        "kernel_type": "notebook" if notebook else "script",
        "is_private": kept.get("is_private", True),
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": False,
        "machine_shape": kept.get("machine_shape", "NvidiaTeslaT4"),
        "docker_image_pinning_type": kept.get("docker_image_pinning_type", "latest"),
        "dataset_sources": sources("dataset_sources", [f"{user}/jaguar-kit", *datasets]),
        "competition_sources": [competition],
        "kernel_sources": sources("kernel_sources", [f"{user}/{kernel_slug(kernel)}" for kernel in kernels]),
        "model_sources": kept.get("model_sources", []),
    }


def read_kernel(folder: Path) -> dict[str, Any]:
    """kernel-metadata.json of a folder; {} where there is none."""
    path = folder / "kernel-metadata.json"
    if not path.is_file():
        return {}
    try:
        told = read_json(path)
    except ValueError as error:
        raise KitError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(told, dict):
        raise KitError(f"{path}: holds no settings (expected a JSON object)")
    for key in (key for key in told if key.endswith("_sources")):
        if not isinstance(told[key], list) or not all(isinstance(one, str) for one in told[key]):
            raise KitError(f"{path}: {key}: {told[key]!r} (expected a list of owner/slug, or of slugs)")
    return told


def read_code(path: Path) -> str:
    """The text of a kernel's code file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise KitError(f"{path}: is not UTF-8: {error.reason}; mend it, or remove it to have it written anew") from None


def kernel_files(
    folder: Path,
    recipe: Recipe | None,
    user: str | None = None,
    competition: str | None = None,
    datasets: Sequence[str] = (),
) -> dict[str, str]:
    """What the folder of a kernel should hold, by file name; what is not given stays as its metadata say.

    recipe: what the kernel runs, None for a notebook of its own that lies there.
    """
    earlier, name = read_kernel(folder), folder.name
    user = user or str(earlier.get("id", PLACEHOLDER)).partition("/")[0]
    known = next(iter(earlier.get("competition_sources", [])), None)
    usual, own = DataConfig().competition, recipe.data.competition if recipe else DataConfig().competition
    competition = (competition or known or own) if own == usual else own  # round 2 stands in for round 1 alone
    code_file = f"{name}.py" if recipe else f"{name}.ipynb"
    before = earlier_experiments(recipe) if recipe else []
    metadata = kernel_metadata(name, code_file, user, competition, before, datasets, earlier)
    if recipe is None:
        code = kernel_notebook(read_code(folder / code_file), folder / code_file)
    else:
        code = kernel_script(replace(recipe, data=replace(recipe.data, competition=competition)))
        there = read_code(folder / code_file) if (folder / code_file).is_file() else ""
        code = code.replace(DEFAULT_OVERRIDES, own_overrides(there, folder / code_file))
    return {"kernel-metadata.json": json.dumps(metadata, indent=2) + "\n", code_file: code}


def own_overrides(code: str, path: Path) -> str:
    """The statement OVERRIDES = [...] of a kernel's code, however many lines it has: a person's, so it stays."""
    import ast

    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError) as error:
        raise KitError(f"{path}: is no Python: {error}; mend it, or remove it to have it written anew") from None
    targets = ((node, t.id) for node in body if isinstance(node, ast.Assign) for t in node.targets if hasattr(t, "id"))
    found = next((node for node, name in targets if name == "OVERRIDES"), None)
    return "\n".join(code.splitlines()[found.lineno - 1 : found.end_lineno]) if found else DEFAULT_OVERRIDES


def kernel_folders(kernels: Path, recipes: Path) -> dict[Path, Recipe | None]:
    """Every kernel that there is or should be: one for each recipe, and notebooks of their own."""
    of_recipes = {kernels / path.stem: load_recipe(path) for path in sorted(recipes.glob("*.yaml"))}
    notebooks = {path.parent: None for path in sorted(kernels.glob("*/*.ipynb")) if path.parent not in of_recipes}
    by_slug: dict[str, Path] = {}
    for folder in (*of_recipes, *notebooks):
        other = by_slug.setdefault(kernel_slug(folder.name), folder)
        if other != folder:
            raise KitError(
                f"{folder.name}, {other.name}: both would be the kernel {kernel_slug(folder.name)!r}; rename one"
            )
    return {**of_recipes, **notebooks}


def kernels_of(kernels: Path, recipes: Sequence[str | Path]) -> dict[Path, Recipe | None]:
    """The kernel of each of these recipes, which is named by the recipe's file."""
    found = {}
    for path in map(recipe_path, recipes):
        recipe = load_recipe(path)
        if not 5 <= len(kernel_slug(path.stem)) <= 50:
            raise KitError(f"{path}: {kernel_slug(path.stem)!r} is no name for a kernel (expected at most 50 letters)")
        found[kernels / path.stem] = recipe
    return found


def write_kernels(
    kernels: str | Path,
    recipes: str | Path,
    user: str | None = None,
    competition: str | None = None,
    datasets: Sequence[str] = (),
    only: Sequence[str | Path] = (),
) -> list[Path]:
    """Writes a kernel folder for every recipe, and brings those that are there up to date; returns what changed.

    only: recipes, by path or name; nothing else is written, and no other folder is looked at. user: Kaggle name that
    goes into ids and sources, null: that of each folder. competition: slug of the competition to attach, null: the
    folder's, or the recipe's. datasets: owner/slug of further datasets to attach.
    """
    if user is not None:
        check_user(user)
    for source in datasets:
        if not re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9-]+", source):
            raise KitError(f"--dataset: {source!r} is no dataset (expected owner/slug, as in its address)")
    if competition is not None and not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", competition):
        raise KitError(f"--competition: {competition!r} is no slug (expected it as in the competition's address)")
    changed = []
    folders = kernels_of(Path(kernels), only) if only else kernel_folders(Path(kernels), Path(recipes))
    for folder, recipe in folders.items():
        for name, text in kernel_files(folder, recipe, user, competition, datasets).items():
            path = folder / name
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_text(path, text)
                changed.append(path)
    return changed


def kernel_faults(kernels: str | Path, recipes: str | Path) -> list[str]:
    """A line for each file that is not what `write_kernels` would write, and for each folder without a recipe."""
    kernels, faults = Path(kernels), []
    wanted = kernel_folders(kernels, Path(recipes))
    for folder, recipe in wanted.items():
        for name, text in kernel_files(folder, recipe).items():
            path = folder / name
            if not path.is_file():
                faults.append(f"{path}: is missing")
            elif path.read_text(encoding="utf-8") != text:
                faults.append(f"{path}: {kernel_difference(path.read_text(encoding='utf-8'), text)}")
    strange = [path for path in sorted(kernels.glob("*")) if path.is_dir() and path not in wanted]
    return faults + [f"{path}: there is no recipe of that name" for path in strange]


def kernel_difference(there: str, expected: str) -> str:
    lines = zip(there.splitlines(), expected.splitlines())
    first = next((pair for pair in lines if pair[0] != pair[1]), None)
    if first is None:
        return "is not as long as it should be"
    return f"{first[0].strip()[:100]!r} (expected {first[1].strip()[:100]!r})"


def check_kernel(folder: Path, named: bool = True) -> dict[str, Any]:
    """The metadata of a kernel folder that may be pushed; KitError names what Kaggle would refuse or misread.

    named: whether it must tell its owner's name.
    """
    metadata, path = read_kernel(folder), folder / "kernel-metadata.json"
    if not metadata:
        raise KitError(f"{path}: there is no such file (expected a folder such as kernels/final)")
    owner, _, slug = str(metadata.get("id", "")).partition("/")
    if not owner or (named and owner == PLACEHOLDER):
        raise KitError(f"{path}: id: {metadata.get('id')!r} lacks your name; run tools/kernels.py --user NAME")
    checks = {
        "id": re.fullmatch(r"[a-z0-9-]{5,50}", slug),
        "title": re.sub(r"[^a-z0-9]+", "-", str(metadata.get("title", "")).lower()).strip("-") == slug,
        "code_file": (folder / str(metadata.get("code_file", "?"))).is_file(),
        "enable_internet": metadata.get("enable_internet") is False,
        "machine_shape": bool(metadata.get("machine_shape")),
    }
    expected = {
        "id": "owner/slug with a slug of 5 to 50 letters, digits and '-'",
        "title": f"{slug!r}, or Kaggle makes another kernel of it",
        "code_file": "a file of this folder",
        "enable_internet": "false; left out it is true",
        "machine_shape": "such as NvidiaTeslaT4; left out it may be a GPU that torch can't use",
    }
    wrong = next((name for name, fine in checks.items() if not fine), None)
    if wrong:
        raise KitError(f"{path}: {wrong}: {metadata.get(wrong)!r} (expected {expected[wrong]}); run tools/kernels.py")
    code = folder / metadata["code_file"]
    carried = re.search(r'KIT = \\?"([0-9a-f]{64})', code.read_text(encoding="utf-8"))
    if carried and carried[1] != kit_sha256():
        raise KitError(f"{code}: was written for another version of the kit; run tools/kernels.py")
    return metadata


def kernels_command(argv: Sequence[str] | None = None) -> int:
    """`tools/kernels.py [RECIPE ...] [--user NAME] [--competition SLUG] [--dataset OWNER/SLUG ...] | --check`."""
    parser = argparse.ArgumentParser(
        prog="kernels.py", description="Writes a Kaggle kernel folder for every recipe, or checks those that are there."
    )
    parser.add_argument("only", nargs="*", metavar="RECIPE", help="recipes to write kernels of, by path or name (all)")
    parser.add_argument("--user", help="your Kaggle user name (as it stands in each folder)")
    parser.add_argument("--competition", help="slug of the competition to attach (the recipe's)")
    parser.add_argument("--dataset", action="append", default=[], help="owner/slug of a further dataset to attach")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 when folders and recipes differ"
    )
    parser.add_argument("--show", action="store_true", help="run the notebooks here, and keep what their cells show")
    parser.add_argument("--kernels", default="kernels", help="folder of the kernels (kernels)")
    parser.add_argument("--recipes", default="recipes", help="folder of the recipes (recipes)")
    given = parser.parse_args(argv)
    if given.check and given.only:
        raise KitError("--check: looks at all kernels (expected no recipe beside it)")
    if not given.only and not Path(given.recipes).is_dir():
        raise KitError(f"--recipes: {given.recipes}: there is no such folder; run this in the kit's own folder")
    if given.check:
        faults = kernel_faults(given.kernels, given.recipes)
        for fault in faults:
            echo(f"  {fault}")
        echo(f"{len(faults)} files are out of date; run tools/kernels.py" if faults else "kernels and recipes agree")
        return 1 if faults else 0
    if given.show and given.check:
        raise KitError("--show: writes notebooks (expected no --check with it)")
    changed = write_kernels(given.kernels, given.recipes, given.user, given.competition, given.dataset, given.only)
    for path in changed:
        echo(f"  wrote {path}")
    echo(f"{len(changed)} files written" if changed else "nothing to do: kernels and recipes agree")
    for notebook in sorted(Path(given.kernels).glob("*/*.ipynb")) if given.show else ():
        run_notebook(notebook)
    return 0


def check_up_to_date(folder: Path) -> None:
    """Refuses the kernel of a recipe that has been edited since."""
    recipe = RECIPES / f"{folder.resolve().name}.yaml"
    expected = kernel_files(folder.resolve(), load_recipe(recipe)) if recipe.is_file() else {}
    for name, text in expected.items():
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text:
            raise KitError(f"{folder / name}: is not what {recipe.name} and the module give now; run tools/kernels.py")
