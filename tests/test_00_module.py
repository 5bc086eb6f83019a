"""The module as a whole: its table of contents, its order, what importing it does, and what it can do alone."""

import ast
import doctest
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from functools import cache
from pathlib import Path

import jaguar_kit
import pandas as pd
import pytest
from cases import every

SOURCE = Path(jaguar_kit.__file__).read_text(encoding="utf-8")
TREE = ast.parse(SOURCE)
BANNER = re.compile(r"^# (\d+\. [A-Z].*)\n# -{118}$", re.MULTILINE)


@cache
def section_of_line() -> dict[str, int]:
    """Line at which each section begins, by its title."""
    return {m.group(1): SOURCE[: m.start()].count("\n") + 1 for m in BANNER.finditer(SOURCE)}


@cache
def definitions() -> dict[str, int]:
    """Line of each top-level definition."""
    found = {}
    for node in TREE.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node.lineno
        elif isinstance(node, ast.Assign):
            targets = [n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            found.update(dict.fromkeys(targets, node.lineno))
    return found


@cache
def section_number(line: int) -> int:
    return sum(start <= line for start in section_of_line().values())


def test_banners_and_all_agree():
    exported = re.findall(
        r"^    # (\d+\. .*)$", SOURCE[SOURCE.index("__all__") : SOURCE.index("# fmt: on")], re.MULTILINE
    )
    assert exported == list(section_of_line())
    assert [int(title.split(".")[0]) for title in exported] == list(range(1, len(exported) + 1))


def test_what_the_docstring_says_decides_is_there():
    index = jaguar_kit.__doc__.partition("Where it is decided:")[2].partition("\nSections")[0]
    lines = [line for line in index.splitlines() if line.strip()]
    assert len(lines) >= 10
    for line in lines:
        names = re.findall(r"\b(?:[A-Z][a-z]\w+(?:\.\w+)?|[a-z]+(?:_\w+)+|MEASURES)", line[49:])
        assert names, line
        for name in names:
            owner, _, attribute = name.partition(".")
            assert hasattr(jaguar_kit, owner), name
            assert not attribute or hasattr(getattr(jaguar_kit, owner), attribute), name


def test_exported_names_stand_in_the_section_that_lists_them():
    lines = SOURCE[SOURCE.index("__all__") : SOURCE.index("# fmt: on")].splitlines()
    where, number = definitions(), 0
    for line in lines:
        if title := re.match(r"^    # (\d+)\. ", line):
            number = int(title.group(1))
        for name in re.findall(r'"(\w+)"', line):
            assert name in jaguar_kit.__all__
            assert section_number(where[name]) == number, f"{name} is listed under section {number}"


def test_each_section_uses_only_what_stands_above_it():
    where, late = definitions(), []
    for node in TREE.body:
        here = section_number(node.lineno)
        used = [n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load) and n.id in where]
        late += [f"line {n.lineno}: {n.id}" for n in used if section_number(where[n.id]) > here]
    assert not late


def test_public_functions_have_docstrings():
    bare = [n for n in jaguar_kit.__all__ if not (getattr(jaguar_kit, n).__doc__ or "").strip()]
    assert not [n for n in bare if n != "on_kaggle"]


def test_registered_parts_have_a_docstring_and_checked_settings():
    for (kind, name), factory in jaguar_kit.REGISTRY.items():
        assert factory.__doc__, f"{kind} {name}"
        hints = jaguar_kit.hints_of(factory)
        for setting in jaguar_kit.settings_of(kind, name):
            assert setting in hints, f"{kind} {name}: {setting} has no type"


def test_every_default_of_a_registered_part_passes_its_own_check():
    for kind, name in jaguar_kit.REGISTRY:
        settings = jaguar_kit.settings_of(kind, name)
        given = jaguar_kit.component(kind, {"name": name, **settings}, "here").settings
        assert {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in given.items()} == settings


ALONE = """
import pathlib, sys, threading
import kornia.augmentation, numpy, pandas, safetensors.torch, timm, torch, yaml, PIL.Image, PIL.ImageDraw, PIL.ImageOps
LOADED = set(sys.modules)
before = threading.active_count()
opened = []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        if not (arguments[0].endswith(".py") or ".pyc" in arguments[0]):
            opened.append(arguments[0])
    if event in ("socket.connect", "subprocess.Popen"):
        opened.append(event)
sys.addaudithook(hook)
sys.argv = ["notebook", "--strange", "arguments"]
import jaguar_kit
assert not opened, opened
assert threading.active_count() == before
assert not torch.cuda.is_initialized()
heavy = {"matplotlib.pyplot", "optuna", "kaggle", "sklearn", "scipy.ndimage"} & set(sys.modules)
print("HEAVY", sorted(heavy - LOADED), flush=True)
assert pathlib.Path(jaguar_kit.__file__).parent == pathlib.Path.cwd()
from jaguar_kit import *  # what is promised and lives elsewhere does not stand in its way
recipe = {"name": "alone", "data": {"size": 32}, "train": {"epochs": 1, "batch_size": 8}, "seeds": [1, 2],
    "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32, "freeze": False}}
for data in ("competition", "animals"):
    result = run_recipe({**recipe, "analysis": ["characteristics"]} if data == "animals" else recipe, data=data)
    print("TRAINED", data, result.report, result._repr_html_().count("<tr"), flush=True)
for refused in ({"analysis": ["characteristics"], "train": {"epochs": 0}}, {"search": {"space": {"train.lr": {}}}}):
    print(main(lambda _: run_recipe({**recipe, **refused}, data="animals")), flush=True)
print(main(argv=["list"]), flush=True)
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder with the module and data alone, and the process that imported it there, trained and listed."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copy(jaguar_kit.__file__, folder)
    mini = jaguar_kit.make_mini_dataset(folder / "competition", identities=4, images=40)
    for row in pd.read_csv(mini / "train.csv").itertuples():
        (folder / "animals" / row.ground_truth).mkdir(parents=True, exist_ok=True)
        shutil.copy(mini / "train" / "train" / row.filename, folder / "animals" / row.ground_truth)
    env = {**os.environ, "PYTHONPATH": str(folder)}
    words = [sys.executable, "-c", ALONE]
    begun = time.monotonic()
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return folder, done, time.monotonic() - begun


def test_import_is_quiet_and_opens_nothing(alone):
    assert alone[1].stdout.startswith("HEAVY []\n"), alone[1].stderr


def test_the_module_alone_trains_evaluates_and_submits(alone):
    folder, done, seconds = alone
    assert [line for line in done.stdout.splitlines() if line.startswith("TRAINED")] == [
        "TRAINED competition None 3",
        "TRAINED animals None 3",
    ], done.stderr
    missing = f"there is no tools/ beside {folder / 'jaguar_kit.py'}"
    assert done.stdout.count(f"note: no report, but results.csv: {missing}") == 2
    assert done.stdout.count("note: no analysis (characteristics)") == 1
    assert seconds < 60
    for data, submitted in (("competition", True), ("animals", False)):
        place = folder / "runs" / f"alone@{data}"
        table = pd.read_csv(place / "results.csv")
        assert list(table.seed) == [1, 2]
        assert table["map"].between(0, 1).all()
        run = {path.name for path in (place / "default" / "seed1").iterdir()}
        assert {"metrics.json", "weights.safetensors", "log.csv", "recipe.yaml", "validation.npz"} <= run
        assert ("submission.csv" in run) == submitted
    submission = folder / "runs" / "alone@competition" / "default" / "seed1" / "submission.csv"
    assert jaguar_kit.validate_submission(submission, folder / "competition" / "test.csv")["rows"] > 0


def test_what_needs_tools_is_refused_in_a_line_that_says_where_they_come_from(alone):
    folder, done, _ = alone
    needs = f"needs tools/, which does not lie beside {folder / 'jaguar_kit.py'} (expected there as in a clone of the "
    needs += "kit's repository, in a pip install of it, or in the dataset that its tools/package.py builds)"
    told = [f"error: {who}: {needs}" for who in ("alone: analysis: characteristics", "alone: a search", "list")]
    assert done.stderr.splitlines()[-3:] == told
    assert done.stdout.splitlines()[-3:] == ["2", "2", "2"]
    assert sorted(p.name for p in (folder / "runs").iterdir()) == ["alone@animals", "alone@competition"]


def test_the_quick_start_of_the_docstring_needs_nothing_beside_the_module(tmp_path, monkeypatch):
    (example,) = re.findall(r"this one file:\n\n((?:    .*\n)+)", jaguar_kit.__doc__)
    given = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jaguar_kit, "run_recipe", lambda *arguments, **named: given.append((arguments, named)))
    exec(textwrap.dedent(example), {})
    ((recipe,), named) = given[0]
    assert isinstance(recipe, dict), "a name would need recipes/"
    assert jaguar_kit.recipe_from_dict(recipe).name == recipe["name"]
    assert list(named) == ["data"]


TOOLS = Path(jaguar_kit.__file__).parent / "tools"
ROOMS = sorted(path.relative_to(TOOLS).with_suffix("").as_posix() for path in TOOLS.glob("*/*.py"))


@every("name", ROOMS)
def test_every_room_opens_and_says_what_it_holds(name):
    assert jaguar_kit.room(name.replace("/", ".")).__doc__


def test_promised_names_are_in_their_rooms_and_others_are_not_made_up():
    assert set(jaguar_kit.ROOM_OF) <= set(dir(jaguar_kit))
    for name, place in jaguar_kit.ROOM_OF.items():
        assert getattr(jaguar_kit, name) is getattr(jaguar_kit.room(place), name), name
        assert name not in jaguar_kit.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jaguar_kit.nothing


@pytest.mark.ci
def test_an_installed_kit_works_from_another_folder_and_takes_no_name_that_others_may_have(tmp_path):
    source, site, here = tmp_path / "source", tmp_path / "site", tmp_path / "here"
    root = Path(jaguar_kit.__file__).parent
    for name in ("jaguar_kit.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(root / name, source)
    for name in ("tools", "recipes"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    plain = [
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--no-compile",
        "--disable-pip-version-check",
    ]
    subprocess.run([sys.executable, "-m", "pip", "install", *plain, "--target", site, source], check=True)
    names = {path.name for path in site.iterdir() if path.suffix != ".dist-info"}
    assert names == {"jaguar_kit.py", "jaguar_kit_tools"}
    here.mkdir()
    env = {**os.environ, "PYTHONPATH": str(site), "JAGUAR_KIT_CACHE": str(tmp_path / "cache")}
    small = ["train.epochs=1", "data.size=32", "model.input_size=32", "data.mini.images=40", "data.mini.identities=4"]
    for words in (["run", "quickstart", *(word for one in small for word in ("-o", one))], ["list", "loss"]):
        command = [sys.executable, "-m", "jaguar_kit", *words]
        done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "arcface" in done.stdout
    assert (here / "runs" / "quickstart" / "report.html").is_file()


WITH_EXAMPLES = ("6. ", "7. ", "8. ", "9. ", "10. ")  # models, losses, samplers, metrics, retrieval


def test_examples_in_docstrings_run():
    done = doctest.testmod(jaguar_kit, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert done.attempted > 50
    assert not done.failed


def test_help_of_every_part_says_what_goes_in_and_has_an_example():
    kinds = ("loss", "pooling", "head", "geometry", "background", "augmentation", "mix", "postprocess")
    for (kind, name), factory in jaguar_kit.REGISTRY.items():
        if kind in kinds:
            assert ">>> " in factory.__doc__, f"{kind} {name}"
            assert kind == "loss" or "\nIn: " in factory.__doc__, f"{kind} {name}"


def test_public_parts_of_models_losses_and_retrieval_have_an_example():
    where, titles = definitions(), list(section_of_line())
    shown = [n for n in jaguar_kit.__all__ if titles[section_number(where[n]) - 1].startswith(WITH_EXAMPLES)]
    assert len(shown) > 30
    assert [name for name in shown if ">>>" not in getattr(jaguar_kit, name).__doc__] == []


def test_the_module_grows_no_larger():
    """To be lowered with whatever makes it smaller; GitHub shows no file above 512 KiB."""
    lines = SOURCE.splitlines()
    defined = [node for node in TREE.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert len(SOURCE.encode()) <= 475 * 1024
    assert len(lines) <= 9_900
    assert len(defined) <= 570
    written = [line for line in lines if line.strip()]
    assert sum(len(line) > 110 for line in written) <= 0.1 * len(written), "lines are won by shape, not by longer ones"


WITH_ANOTHER_MEASURE = """
import jaguar_kit, pandas as pd
recipe = {"name": "measured", "data": {"size": 32}, "train": {"epochs": 2, "batch_size": 8, "select": "minp"}}
recipe["model"] = {"backbone": "test_resnet", "pretrained": False, "input_size": 32, "head": "none"}
recipe["model"]["freeze"] = False
result = jaguar_kit.run_recipe(recipe, data="data", device="cpu")
run = jaguar_kit.RunFolder(result.folder / "default" / "seed42")
kept, log = pd.read_csv(result.folder / "results.csv"), run.log()
assert log.minp.notna().all()
assert kept.minp[0] == log.minp[1:].max() == run.metrics()["minp"], "the epoch is chosen by it"
page = (result.folder / "report.md").read_text()
assert "mean inverse negative penalty; empty where nothing validates" in page
assert "| minp (used) |" in page
"""


@pytest.mark.ci
def test_a_new_measure_is_one_entry(mini, tmp_path):
    entry = (
        '        Measure("minp", "mean inverse negative penalty", "", "higher", "nothing validates", logged=True,\n'
        "                averaged=True),\n"
    )
    before, found, after = SOURCE.partition('        *with_twins("map_postprocessed"')
    (tmp_path / "jaguar_kit.py").write_text(before + entry + found + after)
    (tmp_path / "tools").symlink_to(Path(jaguar_kit.__file__).parent / "tools")
    (tmp_path / "data").symlink_to(mini)
    done = subprocess.run(
        [sys.executable, "-c", WITH_ANOTHER_MEASURE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


FOR_ROOMS = """
ANSWERS AS_TEXT BACKBONES Busy COMPARISON Cosine Count DataConfig Divergence ENCOUNTERS EXPERIMENT EXTRA Experiment
FEWEST FolderScan Fraction Images KAGGLE_HOURS KAGGLE_INPUT KAGGLE_WORKING MEASURES METRICS Measure MiniConfig NEW
NUMBER Natural NonNegative OpenSet PARENT_VARIABLE PathText PixelSource Pixels PseudoLabels REGISTRY ROOMS Range
Retrieval RunFolder SAID_BEFORE Split Tensor Trainer WEIGHTS_VARIABLE WORDS add_overrides as_array as_given as_labels
as_matrix as_store backbone_groups backbone_version best_epoch by_kind call_in_room chance_map chance_precision
check_images check_model check_pixels check_steps check_submission_values check_unique checked claim class_logits
clean_label clean_labels column_groups compare computed_by convert convert_section core_count create_backbone
cut_batches damaged data_key decode describe_steps detached device_name differing_settings download_backbone duration
echo embedder_for end_with_parent ends_alike execute_run file_sample find_backbone_weights find_weights fingerprint
first_few gain_interval hints_of in_precision interrupt interval_over_identities is_own kept_or_made known_backbone
l2_normalize load_competitions load_safetensors load_strictly lookup make_task mask_paths mean_by_identity mean_or_nan
median_runs memory_format merge_recipe module_fingerprint most_similar native_size nearest_is_right nested on_sigterm
one_line only_one only_tells open_data open_image open_safetensors override own_rows parse_override part_words
precision_of process_alive progress quiet rank ranked_neighbours read_arrays read_json read_own_table read_record
read_table read_yaml recipe_path refuse refuse_other_contents refuse_results remove_path room rooms_folder
rows_at_a_time rows_by_code run_one run_steps save_tensors score_queries seed_everything settings_that_count sha_of
shared_encounters stages_of standardised_sum stratified_split submission_of submit suggest sys tell to_unit_scale
turns_of upright variant_label wait_for_all weights_path without_fitting without_passwords world_size write_json
write_table write_text
"""  # what rooms use beyond what is promised


def test_rooms_use_what_is_promised_and_a_second_short_list():
    used = set()
    for path in (path for room in ("experiments", "identify", "on_kaggle") for path in (TOOLS / room).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "jaguar_kit":
                used.update(name.name for name in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "jaguar_kit":
                used.add(node.attr)
    beyond = {name for name in used - set(dir(jaguar_kit)) if not name.startswith("__")}
    assert beyond == set(FOR_ROOMS.split())
    assert len(dir(jaguar_kit)) <= 125, "what a notebook's tab key shows"
