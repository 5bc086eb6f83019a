"""The packaged kit, and the kernel as Kaggle runs it: offline, on read-only mounts, from its code file alone."""

import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jaguar_kit
import kornia.feature
import numpy as np
import pandas as pd
import pytest
import torch
from jaguar_kit import KitError
from jaguar_kit_tools.experiments import runs as runs_room
from jaguar_kit_tools.experiments import session
from jaguar_kit_tools.on_kaggle import client as kaggle_client
from jaguar_kit_tools.on_kaggle import kernels as kernels_tool
from jaguar_kit_tools.on_kaggle import notebooks
from jaguar_kit_tools.on_kaggle import package as package_tool
from jaguar_kit_tools.on_kaggle.package import package_kit
from safetensors.torch import save_file
from tiny import TINY

ROOT = Path(jaguar_kit.__file__).parent
KERNELS = sorted(p.parent for p in (ROOT / "kernels").glob("*/kernel-metadata.json"))
LAYOUTS = {  # where Kaggle mounts the kit, and where the competition
    "flat mounts": ("jaguar-kit", "jaguar-re-id"),
    "nested mounts": ("datasets/a-user/jaguar-kit", "competitions/jaguar-re-id"),
}

# a root of its own with the machine's folders, a read-only /kaggle/input and no network interface
SESSION = """
set -e
PATH=$PATH:/usr/sbin:/sbin  # where chroot may lie
mount -t tmpfs tmpfs "$1/root"
for folder in /*; do
    name=$(basename "$folder")
    if [ "$name" = kaggle ]; then continue
    elif [ -L "$folder" ]; then cp -a "$folder" "$1/root/$name"
    elif [ -d "$folder" ]; then mkdir "$1/root/$name"; mount --rbind "$folder" "$1/root/$name"; fi
done
mkdir -p "$1/root/kaggle/input" "$1/root/kaggle/working"
mount --bind "$1/input" "$1/root/kaggle/input"
mount -o remount,bind,ro "$1/root/kaggle/input"
mount --bind "$1/working" "$1/root/kaggle/working"
root=$1 python=$2 runner=$3
shift 3
exec chroot "$root/root" "$python" -c "$runner" "$@"
"""

RUN_SCRIPTS = """
import os, runpy, sys
os.chdir("/kaggle/working")
for code_file in sys.argv[1:]:
    try:
        runpy.run_path(code_file)
    except SystemExit as ended:
        if ended.code:
            raise
"""
RUN_NOTEBOOK = """
import json, os, sys
from IPython.core.interactiveshell import InteractiveShell
os.chdir("/kaggle/working")
shell = InteractiveShell.instance()
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["cell_type"] == "code":
        done = shell.run_cell("".join(cell["source"]))
        done.raise_error()
        formats, _ = shell.display_formatter.format(done.result)
        print("SHOWN", type(done.result).__name__, *sorted(formats))
"""
NO_NETWORK = """
import socket
def refuse(self, address, connect=socket.socket.connect):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        open("/kaggle/working/connections", "a").write(f"{address}\\n")
    return connect(self, address)
socket.socket.connect = refuse
"""


def can_isolate() -> bool:
    try:
        return subprocess.run(["unshare", "-rmn", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def kaggle_session(
    place: Path, *code_files: Path, empty_cache: bool = False, small: bool = True
) -> subprocess.CompletedProcess:
    """Runs code files, alone in a folder and in few epochs, with place/input mounted, place/working to write to."""
    for name in ("root", "working", "src", "spy", "cache"):
        (place / name).mkdir()
    alone = [place / "src" / code_file.name for code_file in code_files]
    for path, code_file in zip(alone, code_files):
        path.write_text(code_file.read_text().replace("train.epochs=8", "train.epochs=2"))
    if small and not empty_cache:
        trained = jaguar_kit.small_backbone().parent  # the session need not train another
        shutil.copytree(trained, place / "cache" / trained.relative_to(jaguar_kit.cache_dir()))
    (place / "session.sh").write_text(SESSION)
    (place / "spy" / "sitecustomize.py").write_text(NO_NETWORK)
    settings = {jaguar_kit.CACHE_VARIABLE: str(place / "cache"), "JAGUAR_KIT_SMOKE": str(int(small))}
    settings |= {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "TMPDIR": str(place / "working"), "PYTHONPATH": str(place / "spy")}
    runner = RUN_NOTEBOOK if alone[0].suffix == ".ipynb" else RUN_SCRIPTS
    command = ["unshare", "-rmn", "bash", place / "session.sh", place, sys.executable, runner, *alone]
    return subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)


def mount(place: Path, package: Path, mini: Path, layout: str = "flat mounts") -> None:
    kit, data = LAYOUTS[layout]
    shutil.copytree(package, place / "input" / kit)
    shutil.copytree(mini, place / "input" / data)
    (place / "input" / data / "solution.csv").unlink()


def check_outputs(working: Path, mini: Path) -> None:
    """A valid submission, a page, every file in run.json, and nothing that was ever connected to."""
    rows = jaguar_kit.validate_submission(working / "submission.csv", mini / "test.csv")["rows"]
    assert rows == len(jaguar_kit.load_pairs(mini / "test.csv"))
    assert "<html" in (working / "report.html").read_text()
    assert not (working / "connections").exists()
    kaggle_client.check_output(working, "a kernel")
    told = json.loads((working / "run.json").read_text())
    assert told["kit"] == session.kit_sha256()
    assert {"submission.csv", "report.html"} <= set(told["files"])


isolated = pytest.mark.skipif(not can_isolate(), reason="needs user, mount and network namespaces (unshare -rmn)")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    weights = tmp_path_factory.mktemp("weights") / "some_backbone.safetensors"
    save_file({"weight": torch.zeros(3)}, weights)
    return package_kit(tmp_path_factory.mktemp("dist") / "jaguar-kit", "a-user", [weights])


def test_package_lists_every_file_with_its_hash(package):
    manifest = json.loads((package / "manifest.json").read_text())
    metadata = json.loads((package / "dataset-metadata.json").read_text())
    packed = {p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file()}
    assert set(manifest["files"]) == packed - {"manifest.json", "dataset-metadata.json"}
    assert {"jaguar_kit.py", "final.yaml", "some_backbone.safetensors"} <= set(manifest["files"])
    assert metadata["id"] == "a-user/jaguar-kit"
    assert 6 <= len(metadata["title"]) <= 50
    assert len(metadata["licenses"]) == 1
    folders = {p.name for p in package.iterdir() if p.is_dir()}
    assert folders == {"tools"}  # which the client sends as an archive where it is told to
    assert len(list(package.iterdir())) - 1 <= package_tool.MOST_FILES
    session.check_manifest(package)


def test_package_refuses_pickled_and_damaged_weights(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    for name, words in (("model.pth", "only safetensors"), ("cut.safetensors", "not a complete safetensors")):
        with pytest.raises(KitError, match=words):
            package_kit(tmp_path / "out", "a-user", [tmp_path / name], weights_only=True)
    assert not (tmp_path / "out").exists()


def test_package_replaces_an_earlier_one_and_nothing_else(package, tmp_path):
    weights = [package / "some_backbone.safetensors"]
    first = package_kit(tmp_path / "out", "a-user", weights, weights_only=True)
    assert package_kit(tmp_path / "out", "b-user", weights, weights_only=True) == first
    assert json.loads((first / "dataset-metadata.json").read_text())["id"] == "b-user/jaguar-kit"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(KitError, match="something other"):
        package_kit(tmp_path / "mine", "a-user", weights)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "a web app"}')
    (first / "mine.txt").write_text("precious")
    for folder, named in (("app", "manifest.json"), ("out", "mine.txt")):
        with pytest.raises(KitError, match=f"something other than a package .*{named}.*choose a new folder"):
            package_kit(tmp_path / folder, "a-user", weights, weights_only=True)
        assert (tmp_path / folder / named).is_file()


def test_a_damaged_package_is_named(package, tmp_path):
    copy = Path(shutil.copytree(package, tmp_path / "kit"))
    whole = (copy / "some_backbone.safetensors").read_bytes()
    for content in (whole + b"x", bytes(len(whole))):
        (copy / "some_backbone.safetensors").write_bytes(content)
        with pytest.raises(KitError, match=r"some_backbone\.safetensors: differs"):
            session.check_manifest(copy)
    (copy / "some_backbone.safetensors").unlink()
    with pytest.raises(KitError, match=r"some_backbone\.safetensors: is missing"):
        session.check_manifest(copy)


def test_package_names_the_weights_of_runs_and_takes_wheels_of_pure_python(tmp_path):
    run = tmp_path / "runs" / "lbe11" / "default" / "seed7"
    run.mkdir(parents=True)
    save_file({"weight": torch.zeros(3)}, run / "weights.safetensors")
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    wheel.write_bytes(b"PK")
    kit = package_kit(tmp_path / "kit", "a-user", [run], [wheel])
    assert {"lbe11-default-seed7.safetensors", wheel.name, "jaguar_kit.py"} <= set(session.read_manifest(kit))
    alone = package_kit(tmp_path / "weights", "a-user", [run], slug="cat-weights", weights_only=True)
    assert set(session.read_manifest(alone)) == {"lbe11-default-seed7.safetensors"}
    assert json.loads((alone / "dataset-metadata.json").read_text())["id"] == "a-user/cat-weights"


REFUSED = [
    ({"user": "two words"}, "not a Kaggle user name"),
    ({"user": "YOUR-KAGGLE-NAME"}, "stands for your own name"),
    ({"slug": "kit"}, "can't name a dataset"),
    ({"slug": "Jaguar_Kit"}, "can't name a dataset"),
    ({"weights": []}, "no weights were given"),
    ({"weights": ["bad:name.safetensors"]}, "no name for a file"),
    ({"weights": [f"w{i}.safetensors" for i in range(50)]}, "a dataset takes 50"),
    ({"wheels": ["thing-1.0-cp311-linux_x86_64.whl"]}, "not a wheel of pure Python"),
    ({"weights": ["missing.safetensors"]}, "no such weights file"),
]


def test_package_refuses_what_kaggle_would(tmp_path):
    for change, words in REFUSED:
        given = {"user": "a-user", "weights": ["w0.safetensors"], "wheels": [], "weights_only": True, **change}
        for key in ("weights", "wheels"):
            given[key] = [tmp_path / name for name in given[key]]
            for path in given[key]:
                if path.name != "missing.safetensors":
                    save_file({"weight": torch.zeros(1)}, path)
        with pytest.raises(KitError, match=words):
            package_kit(tmp_path / "out", **given)
        assert not (tmp_path / "out").exists(), words


def test_a_wrong_manifest_is_named(tmp_path):
    for text in ("", "{}", "[]", '{"files": {"a": 1}}', '{"files": {"../a": {"bytes": 1, "sha256": ""}}}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(KitError, match=r"manifest\.json: not the manifest of a packaged kit"):
            print(text, session.check_manifest(tmp_path))


# Kaggle's client


def test_a_client_that_is_not_there_or_too_old_is_told_before_anything_else(monkeypatch):
    def version(name):
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    for found in (None, "1.7.4.5", "2.2.1"):
        words = rf"version 2\.2\.2 or later, found {found or 'none'} \(expected Python 3\.11"
        with pytest.raises(KitError, match=words):
            kaggle_client.kaggle_api()


def test_a_client_that_is_new_enough_will_do(monkeypatch):
    for found in ("2.2.2", "2.10.0", "2.2.4", "2.3.0b1"):
        monkeypatch.setattr(metadata, "version", lambda name, found=found: found)
        kaggle_client.check_kaggle_client()


# the folders of kernels


def test_kernels_and_recipes_agree():
    assert kernels_tool.kernel_faults(ROOT / "kernels", ROOT / "recipes") == []
    assert {k.name for k in KERNELS} == {p.stem for p in (ROOT / "recipes").glob("*.yaml")} | {"starter"}


@pytest.fixture
def two_kernels(tmp_path):
    """Folders recipes/ with two recipes, and kernels/ of a user with their kernels."""
    (tmp_path / "recipes").mkdir()
    for name in ("quickstart", "lbe12", "final"):
        shutil.copy(ROOT / "recipes" / f"{name}.yaml", tmp_path / "recipes")
    kernels_tool.write_kernels(tmp_path / "kernels", tmp_path / "recipes", user="a-user")
    return tmp_path


def test_an_edited_recipe_an_edited_kernel_and_a_strange_folder_are_told(two_kernels):
    kernels, recipes = two_kernels / "kernels", two_kernels / "recipes"
    assert kernels_tool.kernel_faults(kernels, recipes) == []
    recipe = recipes / "quickstart.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 2e-3", "lr: 3e-3"))
    (kernels / "strange").mkdir()
    (kernels / "final" / "final.py").unlink()
    faults = "\n".join(kernels_tool.kernel_faults(kernels, recipes))
    assert re.search(r"quickstart\.py: '.*lr: 0\.002.*' \(expected '.*lr: 0\.003", faults)
    assert "strange: there is no recipe" in faults
    assert "final.py: is missing" in faults
    kernels_tool.write_kernels(kernels, recipes)
    assert kernels_tool.kernel_faults(kernels, recipes) == [f"{kernels / 'strange'}: there is no recipe of that name"]


def test_a_new_name_and_sources_go_into_every_kernel_and_own_changes_stay(two_kernels):
    kernels, recipes = two_kernels / "kernels", two_kernels / "recipes"
    path = kernels / "lbe12" / "kernel-metadata.json"
    told = json.loads(path.read_text())
    assert told["kernel_sources"] == ["a-user/jaguar-kit-final"]  # whose weights it begins with
    told["dataset_sources"].append("somebody/else")
    told["machine_shape"] = "NvidiaL4"
    path.write_text(json.dumps(told, indent=2) + "\n")
    assert kernels_tool.kernel_faults(kernels, recipes) == []
    kernels_tool.write_kernels(
        kernels, recipes, "b-user", "round-2-jaguar-reidentification-challenge", ["b-user/weights"]
    )
    told = json.loads(path.read_text())
    assert told["id"] == "b-user/jaguar-kit-lbe12"
    assert told["dataset_sources"] == ["b-user/jaguar-kit", "b-user/weights", "somebody/else"]
    assert told["kernel_sources"] == ["b-user/jaguar-kit-final"]
    assert told["competition_sources"] == ["round-2-jaguar-reidentification-challenge"]
    assert told["machine_shape"] == "NvidiaL4"
    assert kernels_tool.kernel_faults(kernels, recipes) == []


def test_overrides_in_a_code_file_stay_and_are_no_fault(two_kernels):
    kernels, recipes = two_kernels / "kernels", two_kernels / "recipes"
    code = kernels / "final" / "final.py"
    code.write_text(code.read_text().replace("OVERRIDES = []", 'OVERRIDES = ["train.epochs=3"]'))
    assert kernels_tool.kernel_faults(kernels, recipes) == []
    kernels_tool.write_kernels(kernels, recipes, "b-user")
    assert 'OVERRIDES = ["train.epochs=3"]' in code.read_text()


def test_the_second_round_is_carried_and_other_competitions_stay(two_kernels):
    kernels, recipes, slug = (
        two_kernels / "kernels",
        two_kernels / "recipes",
        "round-2-jaguar-reidentification-challenge",
    )
    shutil.copy(ROOT / "recipes" / "animalclef25.yaml", recipes)
    kernels_tool.write_kernels(kernels, recipes, "a-user", slug)
    sources = {k.name: kernels_tool.read_kernel(k)["competition_sources"] for k in kernels.iterdir()}
    assert sources["final"] == [slug]
    assert sources["animalclef25"] == ["animal-clef-2025"]
    assert f"competition: {slug}" in (kernels / "final" / "final.py").read_text()
    assert kernels_tool.kernel_faults(kernels, recipes) == []


def test_a_code_file_carries_all_settings_of_its_recipe_and_the_package_its_words(two_kernels, tmp_path):
    code = (two_kernels / "kernels" / "lbe12" / "lbe12.py").read_text()
    names = {"RECIPE": None}
    start = code.index('RECIPE = """')
    exec(compile(code[start : code.index('"""', start + 12) + 3], "kernel", "exec"), names)
    carried = jaguar_kit.recipe_from_dict(jaguar_kit.read_yaml(names["RECIPE"], "carried"))
    written = jaguar_kit.load_recipe(two_kernels / "recipes" / "lbe12.yaml")
    assert jaguar_kit.settings_that_count(carried) == jaguar_kit.settings_that_count(written)
    assert (carried.question, carried.hypothesis, carried.readings) == (written.question, "", ())
    for path in (two_kernels / "recipes").glob("*.yaml"):
        shutil.copy(path, tmp_path)
    told = session.with_words(carried, tmp_path)
    assert jaguar_kit.recipe_to_dict(told) == jaguar_kit.recipe_to_dict(written)


def test_all_code_files_together_are_short_enough_to_be_read():
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "kernels").glob("*/*.py")]
    assert sum(lines) <= 2000


def test_texts_with_quotes_and_backslashes_survive_the_code_file():
    recipe = jaguar_kit.recipe_from_dict({"name": "odd", "question": 'a """quoted""" \\n path C:\\new "'})
    code = kernels_tool.kernel_script(recipe)
    start = code.index('RECIPE = """')
    names = {}
    exec(compile(code[start : code.index("sys.exit(jaguar_kit")], "kernel", "exec"), names)
    assert jaguar_kit.recipe_from_dict(jaguar_kit.read_yaml(names["RECIPE"], "carried")) == recipe


def test_kernel_metadata_are_what_kaggle_takes():
    for kernel in KERNELS:
        check_metadata(kernel)


def check_metadata(kernel: Path) -> None:
    metadata = json.loads((kernel / "kernel-metadata.json").read_text())
    owner, slug = metadata["id"].split("/")
    assert 5 <= len(slug) <= 50
    assert metadata["title"].lower().replace(" ", "-") == slug  # or Kaggle makes another kernel
    assert (kernel / metadata["code_file"]).is_file()
    assert metadata["enable_internet"] is False
    assert metadata["enable_gpu"] is True
    assert metadata["machine_shape"] == "NvidiaTeslaT4"
    assert metadata["dataset_sources"] == [f"{owner}/jaguar-kit"]
    assert len(metadata["competition_sources"]) == 1
    if metadata["kernel_type"] == "notebook":
        assert json.loads((kernel / metadata["code_file"]).read_text())["metadata"]["kernelspec"]["name"] == "python3"


# a session on Kaggle


@pytest.fixture
def on_kaggle(tmp_path, monkeypatch):
    """Kaggle's folders below a temporary one, for what runs in this process; figures of reports stay undrawn."""
    for variable, name in (("KAGGLE_INPUT", "input"), ("KAGGLE_WORKING", "working"), ("KAGGLE_SCRATCH", "scratch")):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(jaguar_kit, variable, tmp_path / name)
    monkeypatch.setattr(jaguar_kit.find_mounted, "__defaults__", (tmp_path / "input", 8))
    monkeypatch.setattr(jaguar_kit.Page, "figure", lambda *_: None)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    for variable in (
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_HUB_DISABLE_TELEMETRY",
        "DO_NOT_TRACK",
        "WANDB_MODE",
    ):
        monkeypatch.setenv(variable, "")
    return tmp_path


@pytest.fixture
def session_here(on_kaggle, monkeypatch, capsys):
    """session_here(code file) -> exit code and what it said at its end, in this process, as if run from the mounts."""

    def connect(self, address, connect=socket.socket.connect):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            (on_kaggle / "working" / "connections").write_text(f"{address}\n")
        return connect(self, address)

    def run(code_file: Path, smoke: bool = True) -> tuple[int, str]:
        kits = [*(on_kaggle / "input").rglob("jaguar_kit.py"), Path(jaguar_kit.__file__)]
        alone = on_kaggle / "code.py"
        alone.write_text(code_file.read_text().replace("/kaggle/input", str(on_kaggle / "input")))
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(jaguar_kit, "__file__", str(kits[0]))
            patch.setattr(sys, "path", [*sys.path])
            patch.setattr(socket.socket, "connect", connect)
            patch.setenv("JAGUAR_KIT_SMOKE", str(int(smoke)))
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(alone))
        code = ended.value.code
        return (code, capsys.readouterr().err) if isinstance(code, int) else (1, code)

    return run


def as_text(recipe: dict) -> str:
    return json.dumps(jaguar_kit.recipe_to_dict(jaguar_kit.recipe_from_dict(recipe)))


def test_a_kernel_without_competition_says_what_to_attach(on_kaggle):
    with pytest.raises(KitError, match="attach the competition jaguar-re-id"):
        jaguar_kit.run_kernel(as_text(TINY))


def test_a_large_backbone_is_not_trained_without_a_gpu(on_kaggle, monkeypatch):
    monkeypatch.setattr(jaguar_kit.torch.cuda, "is_available", lambda: False)
    large = {**TINY, "model": {**TINY["model"], "backbone": "resnet50", "freeze": False}}
    with pytest.raises(KitError, match="has no GPU"):
        jaguar_kit.run_kernel(as_text(large))


def test_weights_in_a_dataset_of_their_own_are_checked_too(on_kaggle, tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "big.safetensors")
    place = on_kaggle / "input" / "jaguar-kit-weights"
    package_kit(place, "a-user", [tmp_path / "big.safetensors"], slug="jaguar-kit-weights", weights_only=True)
    assert jaguar_kit.begin_kernel("x").is_file()
    with open(place / "big.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(KitError, match=r"big\.safetensors: differs"):
        jaguar_kit.begin_kernel("x")


def test_a_failed_run_does_not_fail_the_session_but_is_recorded(on_kaggle, mini):
    shutil.copytree(mini, on_kaggle / "input" / "jaguar-re-id")
    variants = {"good": {}, "bad": {"train": {"lr": 1e38, "weight_decay": 1e30}}}
    assert jaguar_kit.kernel_command([as_text({**TINY, "variants": variants})]) == 0
    told = json.loads((on_kaggle / "working" / "run.json").read_text())
    assert list(told["failed"]) == ["bad/seed42"]
    check_outputs(on_kaggle / "working", mini)


def test_a_carried_recipe_that_differs_from_the_packaged_one_stops_at_once(tmp_path):
    recipe = jaguar_kit.recipe_from_dict(TINY)
    packaged = {**TINY, "train": {**TINY["train"], "lr": 1e-3}, "question": "words change nothing"}
    (tmp_path / "tiny.yaml").write_text(json.dumps(packaged))
    with pytest.raises(KitError, match=r"train\.lr: 0\.0005 here, 0\.001 there.*--update.*tools/kernels\.py"):
        session.check_carried(recipe, tmp_path)
    (tmp_path / "tiny.yaml").write_text(json.dumps({**TINY, "question": "words change nothing"}))
    session.check_carried(recipe, tmp_path)


@pytest.mark.ci
def test_an_earlier_output_is_taken_up_and_one_of_other_settings_is_not(on_kaggle, mini, capsys):
    shutil.copytree(mini, on_kaggle / "input" / "jaguar-re-id")
    jaguar_kit.run_kernel(as_text({**TINY, "seeds": [1]}))
    working, earlier = on_kaggle / "working", on_kaggle / "input" / "notebooks" / "a-user" / "jaguar-kit-tiny"
    earlier.parent.mkdir(parents=True)
    shutil.move(working, earlier)
    working.mkdir()
    capsys.readouterr()
    jaguar_kit.run_kernel(as_text({**TINY, "seeds": [1]}), ["train.lr=1e-3"])
    assert "has other settings, not taken up" in capsys.readouterr().out
    shutil.rmtree(working)
    working.mkdir()
    jaguar_kit.run_kernel(as_text({**TINY, "seeds": [1]}))
    said = capsys.readouterr().out
    assert "going on from" in said
    assert "default/seed1: finished before" in said
    check_outputs(working, mini)


@pytest.mark.ci
def test_a_session_that_ran_out_of_time_goes_on_in_the_next(on_kaggle, mini, capsys):
    shutil.copytree(mini, on_kaggle / "input" / "jaguar-re-id")
    long = {**TINY, "train": {**TINY["train"], "epochs": 4, "patience": 0}}
    jaguar_kit.run_kernel(as_text({**long, "train": {**long["train"], "max_hours": 1e-6}}))
    place = on_kaggle / "working" / "runs" / "tiny" / "default" / "seed42"
    stopped = json.loads((place / "metrics.json").read_text())
    assert stopped["stopped"] == "max_hours"
    check_outputs(on_kaggle / "working", mini)
    (on_kaggle / "input" / "earlier").mkdir()
    shutil.move(on_kaggle / "working" / "runs", on_kaggle / "input" / "earlier" / "runs")
    capsys.readouterr()
    jaguar_kit.run_kernel(as_text(long))
    finished = json.loads((place / "metrics.json").read_text())
    assert "stopped" not in finished
    assert finished["epochs"] == 4
    assert not (place / "checkpoint.safetensors").exists()
    assert "going on after epoch" in capsys.readouterr().out


def test_no_run_begins_that_kaggle_would_not_save(on_kaggle, mini, monkeypatch, capsys):
    shutil.copytree(mini, on_kaggle / "input" / "jaguar-re-id")
    monkeypatch.setattr(runs_room, "KAGGLE_OUTPUT", 1000.0)
    result = jaguar_kit.run_kernel(as_text({**TINY, "seeds": [1, 2]}))
    assert list(result.table.seed) == [1]
    assert "no room for another run" in capsys.readouterr().out
    assert "1 of 2 runs are not there yet" in (result.folder / "report.md").read_text()


@pytest.mark.ci
@isolated
@pytest.mark.parametrize(
    ("layout", "named"), [("nested mounts", ("final_evidence",)), ("flat mounts", ("lbe10", "eda01"))]
)
def test_a_package_alone_is_enough_for_a_kernel_a_search_and_an_analysis(layout, named, package, mini, tmp_path):
    mount(tmp_path, package, mini, layout)
    done = kaggle_session(tmp_path, *(ROOT / "kernels" / n / f"{n}.py" for n in named), empty_cache=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"/kaggle/input/{LAYOUTS[layout][1]}" in done.stdout
    assert "training a small backbone" in done.stdout
    for name in named:
        assert (tmp_path / "working" / "runs" / f"{name}-smoke" / "report.html").is_file()
    check_outputs(tmp_path / "working", mini)


@pytest.mark.ci
@isolated
def test_every_cell_of_the_starter_runs_and_shows_what_it_should(package, mini, tmp_path):
    mount(tmp_path, package, mini)
    done = kaggle_session(tmp_path, ROOT / "kernels" / "starter" / "starter.ipynb")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"/kaggle/input/{LAYOUTS['flat mounts'][1]}" in done.stdout
    shown = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("SHOWN")]
    assert sum("image/png" in formats for formats in shown) == 4
    assert ["Result", "text/html", "text/plain"] in shown
    check_outputs(tmp_path / "working", mini)


@pytest.mark.slow
def test_every_cell_of_the_starter_runs_off_kaggle_too(tmp_path):
    alone = tmp_path / "starter.ipynb"
    text = (ROOT / "kernels" / "starter" / "starter.ipynb").read_text(encoding="utf-8")
    small = 'data.size=64\\", \\"model.input_size=64\\", \\"data.mini.images=72\\", \\"data.mini.identities=6'
    text = text.replace("train.epochs=8", "train.epochs=1").replace("data.size=192", small)
    assert small in text
    alone.write_text(text, encoding="utf-8")
    settings = {key: value for key, value in os.environ.items() if not key.startswith("KAGGLE")}
    settings |= {"PYTHONPATH": str(Path(jaguar_kit.__file__).parent)}
    runner = RUN_NOTEBOOK.replace('os.chdir("/kaggle/working")\n', "")
    command = [sys.executable, "-c", runner, str(alone)]
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SHOWN Result" in done.stdout
    assert (tmp_path / "runs" / "starter" / "report.html").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs", "starter.ipynb"]


@pytest.mark.ci
def test_an_experiment_runs_offline(package, mini, on_kaggle, session_here):
    mount(on_kaggle, package, mini)
    assert session_here(ROOT / "kernels" / "lbe02" / "lbe02.py") == (0, "")
    check_outputs(on_kaggle / "working", mini)


@pytest.mark.ci
def test_packaged_weights_are_enough_to_infer_with_an_ensemble(mini, on_kaggle, session_here, tmp_path):
    trained = jaguar_kit.run_recipe(
        jaguar_kit.recipe_from_dict({**TINY, "seeds": [1, 2]}), mini, tmp_path / "runs", "cpu"
    )
    weights = [trained.folder / "default" / f"seed{seed}" for seed in (1, 2)]
    names = [package_tool.packaged_name(path) for path in weights]
    variants = {f"model{i}": {"checkpoint": name} for i, name in enumerate(names)}
    infer = {**TINY, "name": "infer", "train": {"epochs": 0}, "ensemble": "calibrated", "variants": variants}
    spots = {"name": "local", "detector": "sift", "size": 64, "points": 16}
    if hasattr(kornia.feature, "ALIKED"):
        weights.append(tmp_path / "aliked_n16.safetensors")
        state = {key: value.contiguous() for key, value in kornia.feature.ALIKED("aliked-n16").state_dict().items()}
        save_file(state, weights[-1])
        spots["detector"] = "aliked"
    infer["postprocess"] = ["posterior", spots, "fuse"]
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "infer.yaml").write_text(json.dumps(infer))
    kernels_tool.write_kernels(tmp_path / "kernels", tmp_path / "recipes", "a-user")
    mount(on_kaggle, package_kit(tmp_path / "dist", "a-user", weights), mini)
    assert session_here(tmp_path / "kernels" / "infer" / "infer.py", smoke=False) == (0, "")
    check_outputs(on_kaggle / "working", mini)
    fused = on_kaggle / "working" / "runs" / "infer" / "ensemble" / "submission.csv"
    assert fused.read_bytes() == (on_kaggle / "working" / "submission.csv").read_bytes()


@pytest.mark.ci
def test_a_kernel_that_trains_nothing_fuses_what_two_sessions_left(on_kaggle, mini, capsys):
    shutil.copytree(mini, on_kaggle / "input" / "jaguar-re-id")
    working = on_kaggle / "working"
    steps = {"postprocess": ["posterior"]}
    for name, size in (("first", 32), ("second", 48)):
        jaguar_kit.run_kernel(as_text({**TINY, **steps, "name": name, "data": {"size": size}}))
        shutil.move(working, on_kaggle / "input" / f"jaguar-kit-{name}")
        working.mkdir()
    members = ["runs/first", "runs/second/default/seed42"]
    fuse = {"name": "both", "data": {"size": 32}, "train": {"epochs": 0}}
    jaguar_kit.run_kernel(as_text({**fuse, "ensemble": {"name": "evidence", "members": members}}))
    told = json.loads((working / "runs" / "both" / "ensemble" / "metrics.json").read_text())
    assert [name.split("/")[-4:-2] for name in told["runs"]] == [["runs", "first"], ["runs", "second"]]
    jaguar_kit.validate_submission(working / "submission.csv", mini / "test.csv")
    assert kernels_tool.earlier_experiments(jaguar_kit.load_recipe("champion_fuse")) == ["champion"]


def small_champion(name: str, backbone: str, size: int) -> dict:
    """A member as recipes/champion.yaml trains it, spots by ALIKED among it, of a tiny backbone with packed weights."""
    plain = jaguar_kit.recipe_to_dict(jaguar_kit.load_recipe("champion"))
    model = {"backbone": backbone, "input_size": size, "gradient_checkpointing": False, "head": {"output": 16}}
    changes = {"name": name, "data": {"size": 48}, "model": model, "train": {"epochs": 1, "layer_decay": 1.0}}
    own = jaguar_kit.merge_recipe(plain, changes)
    local = next(step for step in own["postprocess"] if step["name"] == "local")
    local.update(size=64, points=16)
    return {**own, "variants": {}, "seeds": [1]}


@pytest.mark.ci
@isolated
@pytest.mark.skipif(not hasattr(kornia.feature, "ALIKED"), reason="this kornia has no ALIKED")
def test_champions_of_two_sessions_are_fused_in_a_third_without_a_network(mini, tmp_path):
    """Kit and weights are one dataset; each session has its own folders, and nothing but what is mounted."""
    backbones = {"first": ("test_resnet", 32), "second": ("test_vit", 160)}
    weights = [tmp_path / f"{name}.safetensors" for name in ("test_resnet", "test_vit", "aliked_n16")]
    for path, (name, size) in zip(weights, backbones.values()):
        jaguar_kit.save_backbone(path, jaguar_kit.create_backbone(name, size), name)
    state = kornia.feature.ALIKED("aliked-n16").state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, weights[-1])
    fuse = jaguar_kit.recipe_to_dict(jaguar_kit.load_recipe("champion_fuse"))
    fuse = {**fuse, "name": "together", "ensemble": {"name": "evidence", "members": ["runs/first", "runs/second"]}}
    recipes = {**{name: small_champion(name, *facts) for name, facts in backbones.items()}, "together": fuse}
    (tmp_path / "recipes").mkdir()
    for name, recipe in recipes.items():
        (tmp_path / "recipes" / f"{name}.yaml").write_text(json.dumps(recipe))
    kernels_tool.write_kernels(tmp_path / "kernels", tmp_path / "recipes", "a-user")
    package = package_kit(tmp_path / "dist", "a-user", weights)
    for name in recipes:
        place = tmp_path / "sessions" / name
        mount(place, package, mini)
        sources = json.loads((tmp_path / "kernels" / name / "kernel-metadata.json").read_text())["kernel_sources"]
        for slug in (source.rpartition("/")[2] for source in sources):
            left = tmp_path / "sessions" / slug.removeprefix("jaguar-kit-") / "working"
            shutil.copytree(left, place / "input" / slug)
        done = kaggle_session(place, tmp_path / "kernels" / name / f"{name}.py", small=False)
        assert done.returncode == 0, done.stdout + done.stderr
        check_outputs(place / "working", mini)
    runs = tmp_path / "sessions" / "together" / "working" / "runs" / "together"
    told = json.loads((runs / "ensemble" / "metrics.json").read_text())
    mounted = [f"/kaggle/input/jaguar-kit-{name}/runs/{name}/default/seed1" for name in backbones]
    assert told["runs"] == mounted
    assert not list(runs.glob("*/seed*"))  # nothing was trained
    kept = [tmp_path / "sessions" / name / "working/runs" / name / "default/seed1/test.npz" for name in backbones]
    assert all({"likeness", "shares", "strength"} <= set(np.load(path)) for path in kept)
    submitted = [pd.read_csv(path.parent / "submission.csv") for path in (*kept, runs / "ensemble" / "submission.csv")]
    assert len({tuple(table.similarity.rank()) for table in submitted}) == 3  # it says what neither member says


def test_one_kernel_is_written_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("base: quickstart\nname: mine\n")
    assert kernels_tool.kernels_command(["mine.yaml", "--user", "a-user", "--kernels", "own"]) == 0
    assert sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "own").rglob("*.*")) == [
        "own/mine/kernel-metadata.json",
        "own/mine/mine.py",
    ]
    assert json.loads((tmp_path / "own/mine/kernel-metadata.json").read_text())["id"] == "a-user/jaguar-kit-mine"
    assert kernels_tool.kernels_command(["mine.yaml", "--kernels", "own"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    for wrong in (["none"], ["mine.yaml", "--check"], ["own"]):
        with pytest.raises(KitError):
            kernels_tool.kernels_command(wrong)


def test_what_is_wrong_with_the_mounts_is_told_before_work(package, mini, on_kaggle, session_here):
    def told(code: int, spoil) -> str:
        mount(on_kaggle, package, mini)
        spoil(on_kaggle / "input")
        ended = session_here(ROOT / "kernels" / "final" / "final.py")
        assert ended[0] == code, ended
        assert not (on_kaggle / "working" / "runs").exists()
        shutil.rmtree(on_kaggle / "input")
        return ended[1]

    def append(path: Path) -> None:
        with open(path, "a") as file:
            file.write("x")

    def repackage(kit: Path) -> None:
        recipe, manifest = kit / "final.yaml", json.loads((kit / "manifest.json").read_text())
        recipe.write_text(recipe.read_text().replace("seed: 42", "seed: 7"))
        manifest["files"]["final.yaml"] = session.file_facts(recipe)
        (kit / "manifest.json").write_text(json.dumps(manifest))

    assert "attach the dataset" in told(1, lambda p: shutil.rmtree(p / "jaguar-kit"))
    assert "another kit" in told(1, lambda p: append(p / "jaguar-kit" / "jaguar_kit.py"))
    assert "another kit" in told(1, lambda p: append(p / "jaguar-kit" / "tools" / "experiments" / "report.py"))
    assert "another kit" in told(1, lambda p: shutil.rmtree(p / "jaguar-kit" / "tools"))
    assert "attach the competition" in told(2, lambda p: shutil.rmtree(p / "jaguar-re-id"))
    damaged = told(2, lambda p: append(p / "jaguar-kit" / "some_backbone.safetensors"))
    assert "some_backbone.safetensors: differs" in damaged
    assert "not the manifest" in told(2, lambda p: append(p / "jaguar-kit" / "manifest.json"))
    assert "final.yaml: differs" in told(2, lambda p: append(p / "jaguar-kit" / "final.yaml"))
    assert "recipe final: differs from" in told(2, lambda p: repackage(p / "jaguar-kit"))


# mounts, clocks and names


def mounted(on_kaggle: Path, name: str) -> Path:
    folder = on_kaggle / "input" / name
    folder.mkdir(parents=True)
    for table in ("train.csv", "test.csv"):
        (folder / table).write_text("x\n")
    return folder


def test_the_mount_of_another_competition_is_not_taken(on_kaggle):
    recipe = jaguar_kit.recipe_from_dict(TINY)
    for layout in ("{}", "competitions/{}", "datasets/owner/{}"):
        other = mounted(on_kaggle, layout.format("another-competition"))
        with pytest.raises(
            KitError, match=r"jaguar-re-id is not attached, but .*another-competition is \(attach it, or name"
        ):
            jaguar_kit.find_data(recipe)
        assert jaguar_kit.find_data(recipe, other) == other
        named = mounted(on_kaggle, layout.format("jaguar-re-id"))
        assert jaguar_kit.find_data(recipe) == named
        shutil.rmtree(on_kaggle / "input")


def test_two_mounts_of_one_competition_are_not_chosen_between(on_kaggle):
    for place in ("jaguar-re-id", "datasets/owner/jaguar-re-id"):
        mounted(on_kaggle, place)
    with pytest.raises(KitError, match=r"several mounts could be the data: .*name one in data\.root"):
        jaguar_kit.find_data(jaguar_kit.recipe_from_dict(TINY))


def test_time_counts_from_the_session_s_beginning(on_kaggle, mini, monkeypatch):
    deadlines = []

    def run_cells(grid, *_):
        deadlines.append(grid.deadline - jaguar_kit.time.monotonic())
        raise KeyboardInterrupt

    monkeypatch.setattr(jaguar_kit, "run", run_cells)
    for age, hours, left in ((0, None, 11.5), (3600, None, 10.5), (36000, 3.0, 1.5), (36000, 1.0, 1.0)):
        monkeypatch.setenv(jaguar_kit.SESSION_VARIABLE, str(jaguar_kit.time.time() - age))
        recipe = jaguar_kit.recipe_from_dict({**TINY, "train": {**TINY["train"], "max_hours": hours}})
        with pytest.raises(KeyboardInterrupt):
            jaguar_kit.run_recipe(recipe, data=mini, out=on_kaggle / "working")
        assert deadlines[-1] / 3600 == pytest.approx(left, abs=0.02)


def test_an_age_that_can_not_be_is_none(monkeypatch):
    for told in ("-100", "x"):
        monkeypatch.setenv(jaguar_kit.SESSION_VARIABLE, told)
        assert jaguar_kit.session_age() == 0, told
    monkeypatch.setenv(jaguar_kit.SESSION_VARIABLE, "")
    assert 0 <= jaguar_kit.session_age() < 12 * 3600


OWN = """OVERRIDES = [
    "train.epochs=3",  # few
    "question='[a]'",
]"""


def test_overrides_of_several_lines_stay_whole(two_kernels):
    kernels, recipes = two_kernels / "kernels", two_kernels / "recipes"
    code = kernels / "final" / "final.py"
    lines = code.read_text().splitlines()
    code.write_text("\n".join(OWN if line.startswith("OVERRIDES") else line for line in lines) + "\n")
    assert kernels_tool.kernel_faults(kernels, recipes) == []
    kernels_tool.write_kernels(kernels, recipes, "b-user")
    assert OWN in code.read_text()
    compile(code.read_text(), "final.py", "exec")


def test_a_kernel_that_is_no_python_is_told(two_kernels):
    (two_kernels / "kernels" / "final" / "final.py").write_text("OVERRIDES = [\n")
    with pytest.raises(KitError, match=r"final\.py: is no Python: .*mend it, or remove it"):
        kernels_tool.write_kernels(two_kernels / "kernels", two_kernels / "recipes")


def test_recipes_that_would_be_one_kernel_are_told(two_kernels):
    recipes = two_kernels / "recipes"
    shutil.copy(recipes / "quickstart.yaml", recipes / "two_words.yaml")
    for other in ("two-words", "Two_Words", "two.words"):
        path = Path(shutil.copy(recipes / "quickstart.yaml", recipes / f"{other}.yaml"))
        with pytest.raises(KitError, match="both would be the kernel 'jaguar-kit-two-words'; rename one"):
            kernels_tool.write_kernels(two_kernels / "kernels", recipes)
        path.unlink()


def test_the_starter_carries_what_its_cells_show_and_nothing_of_a_machine():
    text = (ROOT / "kernels" / "starter" / "starter.ipynb").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    shown = [[kind for out in cell["outputs"] for kind in out.get("data", ())] for cell in cells]
    pictures = [number for number, kinds in enumerate(shown, 1) if {"image/png", "image/jpeg"} & set(kinds)]
    assert pictures[0] == 2  # the first comes with the second cell, of which the first is folded
    assert len(pictures) == 4
    assert cells[0]["metadata"]["_kg_hide-input"]
    assert not [out for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]
    assert "validation mAP" in text
    assert not re.search(r"/home/|/root/|/tmp/|/Users/", text)
    assert len(text) < 1_000_000


def test_a_notebook_is_run_and_keeps_what_it_shows(tmp_path):
    cells = ["import jaguar_kit\nprint(jaguar_kit.cache_dir())", "from PIL import Image\nImage.new('RGB', (9, 9))"]
    blank = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    code = [{**blank, "source": cell.splitlines(keepends=True)} for cell in [*cells, "1 + 1", "None"]]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    notebooks.run_notebook(path)
    said, picture, number, nothing = [cell["outputs"] for cell in json.loads(path.read_text())["cells"]]
    assert said == [{"output_type": "stream", "name": "stdout", "text": ["~/.cache/jaguar_kit\n"]}]
    assert set(picture[0]["data"]) & {"image/png", "image/jpeg"}
    assert number[0]["data"] == {"text/plain": ["2"]}
    assert nothing == []
    path.write_text(json.dumps({"cells": [{**code[0], "source": ["1 / 0"]}]}))
    before = path.read_text()
    with pytest.raises(KitError, match=r"a\.ipynb: cell 1: ZeroDivisionError"):
        notebooks.run_notebook(path)
    assert path.read_text() == before
