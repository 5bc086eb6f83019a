"""A Kaggle session rehearsed here: its folders, its package, its code in a process without a network, and its limits.

What is certain to fail there is told apart from what may. A kernel runs small unless it is asked to run whole.
"""

from __future__ import annotations

import argparse
import ast
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaguar_kit import (
    KitError,
    Recipe,
    cache_dir,
    convert,
    duration,
    echo,
    find_data,
    interrupt,
    known_backbone,
    load_competition,
    on_sigterm,
    only_tells,
    open_safetensors,
    override,
    read_json,
    read_yaml,
    recipe_from_dict,
    sha_of,
)

from ..experiments.runs import folder_bytes
from ..experiments.session import LACKING
from ..experiments.smoke import backbone_without_memory, small_backbone
from .counting import (
    GIB,
    IMAGES,
    MACHINES,
    SAVED,
    SESSION_HOURS,
    Machine,
    Memory,
    Sizes,
    by_network,
    costs_of,
    fewest_images,
    memory_of,
    most_hours,
    runs_of,
    runs_that_fit,
)
from .findings import Finding, certain
from .kernels import MODULE, PLACEHOLDER, check_kernel
from .members import member_findings, test_images_of
from .mounts import (
    Attached,
    Ended,
    Output,
    Rehearsal,
    lay_out,
    outputs_of,
    packages_of,
    plain_path,
    run_session,
    session_folder,
    stand_in,
    without_network,
)
from .package import ROOM_FILES


def add_rehearsal_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("rehearsal, which a push begins with").add_argument
    add("--rehearse", action="store_true", help="rehearse the session here, and push nothing")
    add("--unrehearsed", action="store_true", help="push without a rehearsal")
    add("--no-run", action="store_true", help="look at everything, but run nothing")
    add("--whole", action="store_true", help="run the recipe in its own size, not its small version")
    add("--data", metavar="DIR", help="the competition's data (a small synthetic set)")
    add("--package", metavar="DIR", action="append", default=[], help="a package that tools/package.py built (dist/*)")
    add("--weights", metavar="FILE", nargs="*", default=[], help="build a package with these weights instead")
    add(
        "--attach",
        metavar="DIR",
        action="append",
        default=[],
        help="what a kernel left that is needed (results/*)",
    )
    add("--mounts", choices=("flat", "nested"), help="one of Kaggle's two layouts (both)")
    add("--minutes", type=float, default=10.0, help="that the run may take (10)")


# what is attached


def carried_recipe(path: Path) -> Recipe | None:
    """The recipe that a code file carries, with its OVERRIDES; None for a notebook or a script that makes its own."""
    if path.suffix == ".ipynb":
        return None
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        told = {node.targets[0].id: ast.literal_eval(node.value) for node in body if constant(node)}
    except (SyntaxError, ValueError) as error:
        raise KitError(f"{path}: is no code file of a kernel: {error}; run tools/kernels.py") from None
    if not isinstance(told.get("RECIPE"), str):
        return None
    recipe = recipe_from_dict(convert(read_yaml(told["RECIPE"], str(path)), dict, f"{path}: RECIPE"), str(path))
    for change in convert(told.get("OVERRIDES", []), tuple[str, ...], f"{path}: OVERRIDES"):
        recipe = override(recipe, change, f"{path}: OVERRIDES: {change}")
    return recipe


def constant(node: ast.stmt) -> bool:
    named = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    return named and node.targets[0].id in ("RECIPE", "OVERRIDES")


NEEDED_ROOMS: dict[str, tuple[str, Callable[[Recipe], Any]]] = {  # what of a recipe needs a room
    "search": ("a search", lambda recipe: recipe.search),
    "analysis": ("an analysis", lambda recipe: recipe.analysis),
    "open_set": ("an open set", lambda recipe: recipe.open_set or recipe.data.split.name == "open_set"),
    "tracking": ("train.track", lambda recipe: recipe.train.track != "none"),
}


def kit_findings(attached: Sequence[Attached], recipe: Recipe | None) -> list[Finding]:
    """Whether the packaged kit is the one that the kernel was written for: this clone's."""
    kits = [one for one in attached if one.holds_kit]
    unknown = [one.source for one in attached if one.files is None]
    if not kits:
        what = f"{', '.join(one.source for one in attached) or 'no dataset'}: holds no jaguar_kit.py"
        return [Finding(f"{what}; build it with tools/package.py", certain=not unknown)]
    wanted = {"jaguar_kit.py": MODULE, **{f"tools/experiments/{path.name}": path for path in ROOM_FILES}}
    found = []
    for kit in kits:
        missing = [name for name in wanted if name not in kit.files]
        other = [n for n, path in wanted.items() if n in kit.files and kit.files[n]["sha256"] != sha_of(path)]
        strange = [n for n in kit.files if n.startswith("tools/experiments/") and n not in wanted]
        told = [f"{name}: is not packed{needed_by(name, recipe)}" for name in missing]
        if other or strange:
            names = ", ".join([*other, *strange][:3]) + " and others" * (len(other) + len(strange) > 3)
            told.append(f"another kit than the kernel was written for ({names})")
        found.append([certain(f"{kit.source}: {text}; run tools/package.py with --update") for text in told])
    return min(found, key=len)  # one that fits is enough


def needed_by(name: str, recipe: Recipe | None) -> str:
    what, needs = NEEDED_ROOMS.get(Path(name).stem, ("", lambda recipe: None))
    return f", and recipe {recipe.name} needs it for {what}" if recipe is not None and needs(recipe) else ""


def source_findings(metadata: Mapping[str, Any], recipe: Recipe | None, options: Rehearsal) -> list[Finding]:
    """What of the kernel's metadata does not fit its recipe."""
    found = []
    if str(metadata["id"]).partition("/")[0] == PLACEHOLDER:
        found.append(
            Finding(f"id: {metadata['id']!r} lacks your name, so that it can't be pushed; tools/kernels.py --user NAME")
        )
    if recipe is None:
        return found
    competition = recipe.data.competition
    if competition not in metadata.get("competition_sources", []):
        found.append(certain(f"competition_sources: lacks {competition}, which the recipe wants; run tools/kernels.py"))
    learning = [s.recipe.model for s in runs_of(recipe)[0] if s.recipe.train.epochs and not s.recipe.model.freeze]
    large = [model.backbone for model in learning if not model.backbone.startswith("test_")]
    if large and metadata.get("enable_gpu") is False:
        found.append(certain(f"enable_gpu: false, but {large[0]} is to be trained (expected true)"))
    return found


def weights_findings(recipe: Recipe, attached: Sequence[Attached]) -> list[Finding]:
    """Whether files of backbones that lie here have as many elements as their networks, by their headers alone."""
    models = [one.recipe.model for one in runs_of(recipe)[0] if one.recipe.checkpoint is None]
    found = []
    for name, size in {(m.backbone, m.input_size) for m in models if m.pretrained and m.weights is None}:
        known = known_backbone(name)
        called = {f"{one}.safetensors" for one in (name, known.hub.rpartition("/")[2], known.architecture) if one}
        folders = [one for one in attached if one.folder is not None]
        for path in [one.folder / file for one in folders for file in sorted(called & one.files.keys())]:
            with open_safetensors(path) as file, suppress(RuntimeError, NotImplementedError, TypeError):
                there = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
                own = sum(p.numel() for p in backbone_without_memory(name, size, False).parameters())
                if there < FEWEST_ELEMENTS * own:
                    found.append(certain(f"weights: {path}: holds {there:,} numbers, but {name} has {own:,}"))
    return found


FEWEST_ELEMENTS = 0.9  # of a backbone's, in a file of its weights: what is fitted to the image size may be smaller


# limits, by counting


def sizes_of(recipe: Recipe, data: str | None) -> Sizes | None:
    """Of the data that are given, else of the competition, where the kit knows it."""
    if data is not None:
        competition = load_competition(find_data(recipe, data), recipe.data.masks)
        return Sizes(len(competition.train), len(competition.test), len(competition.identities))
    known = IMAGES.get(recipe.data.competition)
    return Sizes(*known) if known else None


def counted_findings(recipe: Recipe, shape: str, data: str | None) -> list[Finding]:
    """Memory of a GPU, hours and output by counting; tells the numbers, and finds what is over the limits."""
    machine, sizes = MACHINES.get(shape), sizes_of(recipe, data)
    if machine is None or sizes is None:
        what = f"machine_shape {shape}" if machine is None else f"the number of images in {recipe.data.competition}"
        return [Finding(f"{what} is not known here: memory, hours and output are not counted")]
    if all(only_tells(one.recipe) for one in runs_of(recipe)[0]):
        return []
    try:
        return [
            *memory_findings(recipe, machine, sizes),
            *cost_findings(recipe, machine, sizes),
        ]
    except KitError as error:
        return [Finding(f"memory, hours and output are not counted: {error}")]


def memory_findings(recipe: Recipe, machine: Machine, sizes: Sizes) -> list[Finding]:
    found, told, search = [], [], bool(recipe.search)
    for one in by_network(runs_of(recipe)[0]).values():
        if not one.train.epochs:
            continue
        memory = memory_of(one, machine, sizes, search)
        told.append((memory, one.model.backbone))
        text = memory_line(memory, one.model.backbone, machine)
        if memory.least <= machine.memory:
            found += [Finding(f"{text}; it may not fit")] * (memory.bytes > machine.memory)
        elif memory.divisible and memory_of(fewest_images(one), machine, sizes, search).least <= machine.memory:
            found.append(Finding(f"{text}; fewer will go through the backbone at a time, which takes longer"))
        else:
            found.append(
                certain(
                    f"{text}; try train.micro_batch, model.gradient_checkpointing: true or a smaller train.batch_size"
                )
            )
    if told:
        most, name = max(told, key=lambda pair: pair[0].bytes)
        echo(f"  counted: {memory_line(most, name, machine)}")
    return found


def memory_line(memory: Memory, backbone: str, machine: Machine) -> str:
    parts = {"parameters": memory.parameters, "gradients": memory.gradients, "optimizer": memory.optimizer}
    parts |= {"moving average": memory.average, "activations": memory.activations}
    told = ", ".join(f"{name} {value / GIB:.1f}" for name, value in parts.items() if value > 0.05 * GIB)
    return (
        f"memory: {backbone} with {memory.batch} images at a time takes {memory.least / GIB:.1f} to "
        f"{memory.bytes / GIB:.1f} GiB of the {machine.memory / GIB:.0f} of a {machine.name.partition(' ')[0]}"
        + (f" ({told})" if told else "")
    )


def cost_findings(recipe: Recipe, machine: Machine, sizes: Sizes) -> list[Finding]:
    costs, limit, found = costs_of(recipe, machine, sizes), most_hours(recipe), []
    hours, left = sum(cost.hours for cost in costs), sum(cost.left for cost in costs)
    echo(
        f"  counted: {len(costs)} run{'s' * (len(costs) > 1)}: at most {in_hours(hours)} of {in_hours(limit)}, "
        f"{left / 1e9:.2f} of {SAVED / 1e9:.0f} GB of output (an estimate, from operations and parameters)"
    )
    asked = recipe.train.max_hours
    if asked and asked > SESSION_HOURS:
        found.append(Finding(f"train.max_hours: {asked:g}, but a session ends after {SESSION_HOURS:g} h"))
    first = costs[0].least_hours
    if first > limit:
        found.append(
            certain(
                f"hours: the first run takes {in_hours(first)} at least, at the full speed of {machine.name} and "
                f"with the earliest stop, and training ends after {in_hours(limit)}"
            )
        )
    elif hours > limit:
        fit = sum(sum(cost.hours for cost in costs[: number + 1]) <= limit for number in range(len(costs)))
        found.append(
            Finding(
                f"hours: about {in_hours(hours)} if no run stops early, and training ends after {in_hours(limit)}"
                + (f" ({fit} of {len(costs)} runs)" if len(costs) > 1 else "")
                + "; attach the output to the next version, which goes on from it"
            )
        )
    fit = runs_that_fit(costs)
    if left > SAVED:
        found.append(
            certain(
                f"output: {len(costs)} runs leave {left / 1e9:.1f} GB, and Kaggle saves {SAVED / 1e9:.0f}; "
                f"{fit} are made in a session; deal them out (--sessions {math.ceil(len(costs) / max(fit, 1))})"
            )
        )
    elif fit < len(costs):
        found.append(
            Finding(
                f"output: after {fit} of {len(costs)} runs no other begins, for want of room in {SAVED / 1e9:.0f} GB; "
                "more --sessions make each part smaller"
            )
        )
    return found


def in_hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 0.1 else duration(3600 * hours)


# from beginning to end


def lacking_findings(
    root: Path, attached: Sequence[Attached], outputs: Sequence[Output], metadata: Mapping[str, Any]
) -> list[Finding]:
    """What the session told that the recipe would not find in its own size."""
    path = root / "scratch" / "jaguar_kit" / LACKING
    unknown = [one.source for one in attached if one.files is None] + list(metadata.get("model_sources", []))
    unseen = [one.source for one in outputs if one.kind == "kernel" and one.folder is None]
    found = []
    for told in read_json(path) if path.is_file() else []:
        elsewhere = {"weights": unknown, "trained": [*unknown, *unseen]}.get(told["kind"], [])
        text = plain_path(told["text"], root).partition("; fetch them where")[0]
        text += "; pack them: tools/package.py --weights" if told["kind"] == "weights" else ""
        hint = f" (unless in {', '.join(elsewhere)}, which was not looked at)" if elsewhere else ""
        found.append(Finding(f"{told['kind']}: {text}{hint}", certain=not elsewhere))
    return found


def run_findings(ended: Ended, root: Path, what: str) -> list[Finding]:
    """How a process ended, as far as that would fail a session, and whom it tried to reach."""
    found = []
    if ended.stopped:
        found.append(Finding(f"{what} {ended.stopped}", certain=ended.full))
    elif ended.code:
        found.append(certain(f"{what} ended with exit code {ended.code}: {ended.last.removeprefix('error: ')}"))
    asked = root / "connections"
    if asked.is_file():
        hosts = ", ".join(dict.fromkeys(asked.read_text(encoding="utf-8").split()))
        found.append(Finding(f"{what} asked for the internet ({hosts}), which a session does not have"))
    return found


def output_findings(working: Path, competition: bool) -> list[Finding]:
    """What a session that ended well left."""
    try:
        told = read_json(working / "run.json")
    except (OSError, ValueError):
        return [Finding("output: no run.json, so that it can't be told from an earlier session's and is not fetched")]
    found = [Finding(f"{folder}: failed: {reason}") for folder, reason in told.get("failed", {}).items()]
    if "files" not in told:
        return [Finding("output: run.json does not tell its files; the code should end with leave_results")]
    if competition and "submission.csv" not in told["files"]:
        found.append(Finding("output: no submission.csv, so that there is nothing to submit"))
    return found


def rehearse(
    folder: Path,
    options: Rehearsal,
    online: Callable[[str], Attached] | None = None,
    record: Callable[[str], Mapping[str, Any] | None] | None = None,
) -> list[Finding]:
    """Rehearses a kernel's session; says what it does, and gives what would fail there or might.

    online, record: tell what Kaggle holds of a dataset, and what a kernel's session left there, where that is asked.
    """
    metadata = check_kernel(folder, named=online is not None)
    code = folder / metadata["code_file"]
    recipe = carried_recipe(code)
    check_options(options, recipe)
    with on_sigterm(interrupt), session_folder() as place:
        begun = time.monotonic()
        echo(f"rehearsing {folder}")
        found = source_findings(metadata, recipe, options)
        attached = packages_of(metadata, options, place, online)
        for one in attached:
            where = one.folder or ("Kaggle" if one.files is not None else "nowhere here: not looked at")
            echo(f"  {one.source}: {where}")
        outputs = outputs_of(metadata, options, attached, record)
        for one in [one for one in outputs if one.folder is not None]:
            echo(f"  {one.source}: {one.folder}")
        kit = kit_findings(attached, recipe)
        found += kit
        if recipe is not None:
            found += member_findings(metadata, recipe, outputs)
            found += weights_findings(recipe, attached)
            found += counted_findings(recipe, metadata["machine_shape"], options.data)
        if not any(finding.certain for finding in kit):
            hopeless = any(finding.certain for finding in found)
            found += sessions(code, recipe, attached, outputs, metadata, options, place, hopeless)
        found = list({str(finding): finding for finding in found}.values())
        for finding in found:
            echo(str(finding))
        sure = sum(finding.certain for finding in found)
        what = f"{sure} certain to fail, {len(found) - sure} to look at" if found else "nothing found"
        echo(f"rehearsed {folder} in {duration(time.monotonic() - begun)}: {what}")
    return found


def check_options(options: Rehearsal, recipe: Recipe | None) -> None:
    if options.packages and options.weights:
        raise KitError("--weights: go into a package that is built (expected no --package with them)")
    if options.whole and not options.runs:
        raise KitError("--whole: runs the recipe in its own size (expected no --no-run)")
    if not options.minutes > 0:
        raise KitError(f"--minutes: {options.minutes:g} (expected more than 0)")
    for folder in (*options.attach, *([options.data] if options.data else [])):
        if not Path(folder).is_dir():
            raise KitError(f"{'--data' if folder == options.data else '--attach'}: {folder}: there is no such folder")


def sessions(
    code: Path,
    recipe: Recipe | None,
    attached: Sequence[Attached],
    outputs: Sequence[Output],
    metadata: Mapping[str, Any],
    options: Rehearsal,
    place: Path,
    hopeless: bool,
) -> list[Finding]:
    """Looks at the session in one layout of its mounts, and runs it in the other.

    Where all members of an ensemble are here, they are fused: on test images of the names that they know, unless data
    are given.
    """
    found: list[Finding] = []
    data, fused = options.data, test_images_of(recipe, outputs) if recipe is not None else []
    if data is None and fused:
        data = stand_in(place, recipe.data.competition, fused)
    for number, layout in enumerate(options.layouts, 1):
        last = number == len(options.layouts)
        hopeless = hopeless or any(finding.certain for finding in found)
        if hopeless and number > 1:
            break
        runs = options.runs and last and not hopeless
        if recipe is None and not runs:
            continue  # a notebook only runs
        how = ("whole" if options.whole else "small") if runs else "look"
        what = f"the {how} run" if runs else "a look at the session"
        cut = "without network" if without_network() else "with connections refused"
        echo(f"  {layout} mounts, {cut}: {what}")
        root = place / layout
        lay_out(root, layout, attached, outputs, metadata, data)
        if how == "small" and recipe is not None and not fused:
            small = small_backbone().parent  # the session need not train another
            shutil.copytree(small, root / "scratch" / "jaguar_kit" / small.relative_to(cache_dir()))
        ended = run_session(root, code, how, options.minutes, show=runs)
        found += lacking_findings(root, attached, outputs, metadata)
        refused = how == "look" and found and ended.code
        found += [] if refused else run_findings(ended, root, f"{what} ({layout} mounts)")
        if runs and not ended.code and not ended.stopped:
            found += output_findings(root / "working", bool(metadata.get("competition_sources")))
            echo(f"  its output: {folder_bytes(root / 'working') / 1e6:.1f} MB")
    if options.runs and hopeless:
        echo("  the run is left out, for what is certain already")
    return found
