"""A session rehearsed before it is pushed: what would fail is found here, and nothing of it stays."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import jaguar_kit
import pytest
import torch
from jaguar_kit import KitError
from jaguar_kit_tools.experiments import session
from jaguar_kit_tools.on_kaggle import counting, mounts, rehearsal
from jaguar_kit_tools.on_kaggle import kernels as kernels_tool
from jaguar_kit_tools.on_kaggle import run as kaggle_run
from jaguar_kit_tools.on_kaggle.mounts import Rehearsal, of_folder
from jaguar_kit_tools.on_kaggle.package import package_kit
from safetensors.torch import save_file
from tiny import TINY

ROOT = Path(jaguar_kit.__file__).parent
T4 = counting.MACHINES["NvidiaTeslaT4"]
JAGUARS = counting.Sizes(1895, 371, 31)
LOOK = Rehearsal(layouts=("flat",), runs=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The kit without any weights."""
    return package_kit(tmp_path_factory.mktemp("dist") / "jaguar-kit", "a-user")


@pytest.fixture
def kernel(tmp_path):
    """kernel(settings) -> the folder of a kernel of the smallest recipe with these settings."""

    def write(**settings: object) -> Path:
        (tmp_path / "recipes").mkdir(exist_ok=True)
        (tmp_path / "recipes" / "mine.yaml").write_text(json.dumps({**TINY, "name": "mine", **settings}))
        kernels_tool.write_kernels(tmp_path / "kernels", tmp_path / "recipes", user="a-user")
        return tmp_path / "kernels" / "mine"

    return write


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where temporary folders go; a rehearsal leaves none."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def recipe_of(**settings):
    return jaguar_kit.recipe_from_dict({**TINY, **settings})


LARGE = {"backbone": "resnet18", "pretrained": False, "freeze": False, "input_size": 224, "head": "linear"}


def large(epochs=10, batch=32, size=224, **settings):
    """A recipe whose backbone learns, of a size that is quick to count."""
    train = {"epochs": epochs, "batch_size": batch, "patience": 0, **settings.pop("train", {})}
    return recipe_of(model={**LARGE, "input_size": size}, train=train, **settings)


def counted(recipe):
    return rehearsal.counted_findings(recipe, "NvidiaTeslaT4", None)


def certain_of(found):
    return [finding.text for finding in found if finding.certain]


# the packaged kit


def with_file(package, folder, name, content):
    """A package with another file, or without one, whose manifest agrees."""
    shutil.copytree(package, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    if content is None:
        (folder / name).unlink()
        del manifest["files"][name]
    else:
        (folder / name).write_bytes(content)
        manifest["files"][name] = session.file_facts(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_package_older_than_the_kernel_is_found(package, kernel, tmp_path):
    older = with_file(package, tmp_path / "older" / "jaguar-kit", "tools/experiments/report.py", b"print()\n")
    found = rehearsal.rehearse(kernel(), replace(LOOK, packages=[str(older)]))
    assert certain_of(found) == [
        "a-user/jaguar-kit: another kit than the kernel was written for (tools/experiments/report.py); run "
        "tools/package.py with --update"
    ]


def test_a_room_that_is_not_packed_is_found_and_what_of_the_recipe_needs_it(package, tmp_path):
    lacking = of_folder(with_file(package, tmp_path / "jaguar-kit", "tools/experiments/search.py", None))
    search = recipe_of(search={"trials": 2, "space": {"train.lr": {"low": 1e-4, "high": 1e-2}}})
    [told] = certain_of(rehearsal.kit_findings([lacking], search))
    assert "tools/experiments/search.py: is not packed, and recipe tiny needs it for a search" in told
    [told] = certain_of(rehearsal.kit_findings([lacking], recipe_of()))
    assert "search.py: is not packed; run tools/package.py" in told


def test_a_package_that_fits_is_enough_and_no_kit_is_told(package):
    assert rehearsal.kit_findings([of_folder(package)], recipe_of()) == []
    assert "holds no jaguar_kit.py" in certain_of(rehearsal.kit_findings([], recipe_of()))[0]
    [unknown] = rehearsal.kit_findings([mounts.Attached("a-user/jaguar-kit")], recipe_of())
    assert not unknown.certain


def test_sources_that_do_not_fit_the_recipe_are_found(kernel):
    metadata = json.loads((kernel() / "kernel-metadata.json").read_text())
    assert rehearsal.source_findings(metadata, large(), LOOK) == []
    wrong = {**metadata, "competition_sources": ["another"], "enable_gpu": False}
    told = certain_of(rehearsal.source_findings(wrong, large(), LOOK))
    assert "lacks jaguar-re-id" in told[0]
    assert "resnet18 is to be trained" in told[1]


# limits, by counting


def test_memory_is_counted_as_the_network_keeps_it():
    """A head of one layer on a frozen backbone keeps its input; fp16 halves what a convolution keeps."""
    linear = {**LARGE, "freeze": True, "head": {"name": "linear", "output": 8}}
    network = counting.network_of(recipe_of(model=linear, loss="cross_entropy"), 10, half=False, identities=31)
    assert network.learning == 512 * 8 + 8 + 31 * 8 + 31
    assert network.saved < 10 * 4 * 600 + 4 * 8 * 512
    parameters = sum(p.numel() for p in jaguar_kit.create_backbone("resnet18").parameters())
    assert network.parameters - network.learning == parameters
    whole, half = (counting.network_of(large(), 4, half, 31).saved for half in (False, True))
    assert 0.4 * whole < half < 0.9 * whole
    one, two = (counting.network_of(large(), images, True, 31).saved for images in (8, 16))
    assert one < two < 2 * one


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_what_is_counted_in_shapes_is_what_a_cpu_saves(backbone):
    """The same batch, run for real: the tensors that autograd keeps, but for parameters."""
    model = {**TINY["model"], "backbone": backbone, "freeze": False, "input_size": None}
    recipe = recipe_of(model=model)
    embedder = jaguar_kit.build_embedder(recipe.model).train()
    own, kept = {p.untyped_storage().data_ptr() for p in embedder.parameters()}, {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    size = jaguar_kit.native_size(embedder.backbone)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        embeddings = embedder(torch.randn(3, 3, size, size))
    saved = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in own)
    counted = counting.network_of(recipe, 3, half=False, identities=31).saved
    assert counted == pytest.approx(saved, rel=0.02)
    assert len(embeddings) == 3


@pytest.mark.parametrize(
    ("optimizer", "copies"), [("adamw", 2), ({"name": "sgd", "momentum": 0.0}, 0), ("nesterov", 1)]
)
def test_an_optimizers_state_is_counted(optimizer, copies):
    plain = jaguar_kit.recipe_to_dict(recipe_of(train={"optimizer": optimizer}))["train"]["optimizer"]
    assert counting.state_of(json.dumps(plain)) == copies


def test_too_little_memory_for_a_batch_is_found():
    [told] = certain_of(counted(large(batch=1024, size=448)))
    assert told.startswith("memory: resnet18 with 512 images at a time takes ")
    assert "of the 15 of a T4" in told
    assert counted(large(batch=64)) == []
    alone = counted(large(batch=1024, size=448, train={"mix": "mixup"}))  # in one process, which takes fewer at a time
    assert [finding.certain for finding in alone] == [False]
    assert "fewer will go through the backbone" in alone[0].text
    assert counted(large(batch=1024, size=448, train={"micro_batch": 64})) == []


def test_a_session_too_short_is_found():
    [told] = certain_of(counted(large(epochs=600000)))
    assert "hours: the first run takes" in told
    [told] = certain_of(counted(large(epochs=100, train={"max_hours": 1e-5})))
    assert "training ends after" in told
    many = counted(large(epochs=8000, seeds=list(range(20))))
    assert [finding.certain for finding in many] == [False]
    assert "of 20 runs); attach the output to the next version" in many[0].text


def test_output_over_20_gb_is_found():
    base = {**LARGE, "backbone": "vit_base_patch16_224"}
    many = recipe_of(model=base, train={"epochs": 1}, seeds=list(range(60)))
    [told] = certain_of(counted(many))
    assert told.startswith("output: 60 runs leave 2")
    assert "and Kaggle saves 20" in told
    some = counted(replace(many, seeds=tuple(range(54))))
    assert [finding.certain for finding in some] == [False]
    assert "of 54 runs no other begins" in some[0].text
    assert counted(replace(many, seeds=(1, 2))) == []


def test_no_run_begins_for_which_those_before_it_left_no_room():
    """Nine times the largest weights so far must be free: two checkpoints of four times them, and their own."""
    small, large = (counting.Cost(0, 0, size, size) for size in (1e9, 2e9))
    assert counting.runs_that_fit([small] * 10) == 10
    assert counting.runs_that_fit([small] * 12) == 11
    assert counting.runs_that_fit([small, small, large, small]) == 3
    assert counting.runs_that_fit([large, small]) == 1


def test_operations_are_counted_as_training_has_them():
    """Three times the forward pass of each training image in each epoch, once that of validation and test images."""
    network = counting.network_of(large(), 2, True, 31)
    once = counting.flops_of(large(), network, JAGUARS, 1, known_features=False)
    assert once == pytest.approx((3 * 0.8 * 1895 + 0.2 * 1895 + 371) * network.flops)
    frozen = recipe_of(model={**LARGE, "freeze": True})
    assert counting.flops_of(frozen, network, JAGUARS, 50, known_features=False) == pytest.approx(2266 * network.flops)
    assert counting.flops_of(frozen, network, JAGUARS, 50, known_features=True) == 0
    assert 1.7e9 < network.flops / 2 < 1.9e9  # multiplications of ResNet-18 at 224 px, as its paper has them


def test_what_is_not_known_is_told_and_not_counted():
    [told] = rehearsal.counted_findings(large(), "NvidiaSomething", None)
    assert "machine_shape NvidiaSomething is not known here" in told.text
    assert not told.certain


# a session


@pytest.mark.ci
def test_missing_weights_are_found_before_any_push(package, kernel, temporary, mini, monkeypatch):
    monkeypatch.setattr(mounts, "synthetic", lambda *_: mini)
    variants = {"a": {}, "b": {"checkpoint": "runs/x/y/seed1"}}
    folder = kernel(model={**TINY["model"], "pretrained": True}, variants=variants)
    [known, earlier] = rehearsal.rehearse(folder, replace(LOOK, packages=[str(package)]))
    assert known.certain
    assert "no weights for 'test_resnet'" in known.text
    assert "pack them: tools/package.py --weights" in known.text
    assert not earlier.certain
    assert "x/y/seed1/weights.safetensors: there is no such weights file (unless in a-user/jaguar-kit-x" in earlier.text
    assert not [*temporary.iterdir()]


def test_weights_of_too_few_numbers_are_found(tmp_path):
    path = tmp_path / "test_resnet.safetensors"
    recipe = recipe_of(model={**TINY["model"], "pretrained": True})
    attached = [mounts.Attached("a/b", {path.name: {}}, tmp_path), mounts.Attached("a/c")]
    save_file({"weight": torch.zeros(3)}, path)
    [told] = certain_of(rehearsal.weights_findings(recipe, attached))
    assert "test_resnet.safetensors: holds 3 numbers, but test_resnet has " in told
    jaguar_kit.save_backbone(path, jaguar_kit.create_backbone("test_resnet"), "test_resnet")
    assert rehearsal.weights_findings(recipe, attached) == []


def test_what_nobody_looked_at_may_hold_what_is_lacking(tmp_path):
    path = tmp_path / "scratch" / "jaguar_kit" / session.LACKING
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"kind": kind, "text": "it"} for kind in ("weights", "trained", "data")]))

    def told(attached=(), outputs=()):
        return [finding.certain for finding in rehearsal.lacking_findings(tmp_path, attached, outputs, {})]

    assert told() == [True, True, True]
    assert told([mounts.Attached("a/b")]) == [False, False, True]
    assert told([mounts.Attached("a/b", {})]) == [True, True, True]
    assert told(outputs=[mounts.Output("a/c", "kernel")]) == [True, False, True]
    assert told(outputs=[mounts.Output("a/c", "kernel", tmp_path)]) == [True, True, True]


@pytest.mark.slow
def test_a_session_runs_small_in_both_layouts_and_leaves_nothing(package, kernel, temporary, tmp_path, capsys):
    weights = tmp_path / "test_resnet.safetensors"
    jaguar_kit.save_backbone(weights, jaguar_kit.create_backbone("test_resnet"), "test_resnet")
    folder = kernel(model={**TINY["model"], "pretrained": True})
    before = sorted(path for path in ROOT.rglob("*") if "__pycache__" not in path.parts and ".git" not in path.parts)
    options = Rehearsal(weights=[str(weights)])
    said = []
    for _ in range(2):
        assert rehearsal.rehearse(folder, options) == []
        said.append([line for line in capsys.readouterr().out.splitlines() if "mAP" in line or "counted" in line])
    assert said[0][0] == said[1][0]
    assert "validation mAP" in said[0][-1]
    assert not [*temporary.iterdir()]
    after = sorted(path for path in ROOT.rglob("*") if "__pycache__" not in path.parts and ".git" not in path.parts)
    assert after == before


@pytest.mark.slow
def test_a_backbone_that_learns_runs_whole_without_a_gpu_on_data_of_its_own(package, kernel, mini, capsys):
    folder = kernel(model={**LARGE, "input_size": 32}, train={"epochs": 1, "batch_size": 16})
    options = Rehearsal(data=str(mini), packages=[str(package)], layouts=("flat",), whole=True)
    assert rehearsal.rehearse(folder, options) == []
    assert "flat mounts" in (said := capsys.readouterr().out)
    assert "mine: 1 run on" in said


def test_code_that_fails_asks_for_the_internet_or_takes_too_long_is_told(package, tmp_path, temporary):
    def told(code, minutes=1.0):
        root = tmp_path / f"root{len([*tmp_path.iterdir()])}"
        for name in ("input", "working", "scratch"):
            (root / name).mkdir(parents=True)
        (root.parent / "mine.py").write_text(code)
        ended = mounts.run_session(root, root.parent / "mine.py", "small", minutes, show=False)
        return [str(finding) for finding in rehearsal.run_findings(ended, root, "it")]

    assert told("open('/kaggle/working/x', 'w').write('1')") == []
    assert told("raise SystemExit('error: no kit')") == ["certain: it ended with exit code 1: no kit"]
    asks = "import urllib.request\ntry: urllib.request.urlopen('http://example.invalid/')\nexcept OSError: pass"
    assert told(asks) == ["warning: it asked for the internet (example.invalid), which a session does not have"]
    assert told("import time; time.sleep(60)", 0.02) == ["warning: it was not over after 1 s"]


def test_output_that_grows_too_large_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "SAVED", 1000)
    for name in ("input", "working", "scratch"):
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "mine.py").write_text("open('big', 'w').write('x' * 2000)\nimport time; time.sleep(60)")
    ended = mounts.run_session(tmp_path / "root", tmp_path / "mine.py", "small", 1.0, show=False)
    [told] = certain_of(rehearsal.run_findings(ended, tmp_path / "root", "it"))
    assert told.startswith("it left more than the")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_rehearsal_that_is_killed_leaves_nothing_in_the_checkout(how, package, kernel, tmp_path, temporary):
    folder = kernel()
    code = folder / "mine.py"
    code.write_text(
        code.read_text().replace("import jaguar_kit  #", "import time; time.sleep(300)\nimport jaguar_kit  #")
    )
    place = tmp_path / "here"
    place.mkdir()
    env = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        str(ROOT / "tools" / "kaggle_run.py"),
        str(folder),
        "--rehearse",
        "--package",
        str(package),
    ]
    process = subprocess.Popen(command, cwd=place, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not [*temporary.glob("*/*/runner.py")] and time.monotonic() < limit:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(how)
    assert process.wait(30) == (130 if how == signal.SIGTERM else -signal.SIGKILL)
    assert not [*place.iterdir()]
    with mounts.session_folder():
        assert len([*temporary.iterdir()]) == 1
    limit = time.monotonic() + 5
    while (left := running_in(temporary)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not left


def running_in(place):
    """Processes whose command names a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if str(place).encode() in command:
            found.append(path.parent.name)
    return found


def test_what_is_asked_wrongly_ends_in_a_line(kernel, package, tmp_path):
    folder = kernel()
    for options, words in (
        ((tmp_path,), "kernel-metadata.json: there is no such file"),
        ((tmp_path / "none",), "there is no such file"),
        ((), "which kernel"),
        ((folder, "--data", tmp_path / "none"), "--data: .*there is no such folder"),
        ((folder, "--attach", tmp_path / "none"), "--attach: .*there is no such folder"),
        ((folder, "--package", tmp_path), "manifest.json: is missing"),
        ((folder, "--package", package, "--weights", "x.safetensors"), "expected no --package"),
        ((folder, "--weights", tmp_path / "x.safetensors"), "there is no such weights file"),
        ((folder, "--whole", "--no-run"), "expected no --no-run"),
        ((folder, "--minutes", "0"), "--minutes"),
        ((folder, "--fetch", tmp_path / "out"), "expected no --fetch with it"),
    ):
        with pytest.raises(KitError, match=words):
            kaggle_run.push_command([*map(str, options), "--rehearse"])


def test_a_notebook_of_its_own_is_run_cell_by_cell(package, tmp_path):
    cells = [["x = 1\n", "%matplotlib inline\n"], ["import os\n", "open('left', 'w').write(str(x) + os.getcwd())"]]
    notebook = {"cells": [{"cell_type": "code", "source": source} for source in cells]}
    (tmp_path / "mine.ipynb").write_text(json.dumps(notebook))
    for name in ("input", "working", "scratch"):
        (tmp_path / "root" / name).mkdir(parents=True)
    ended = mounts.run_session(tmp_path / "root", tmp_path / "mine.ipynb", "small", 1.0, show=False)
    assert ended.code == 0, ended.lines
    assert (tmp_path / "root" / "working" / "left").read_text() == f"1{tmp_path / 'root' / 'working'}"


def test_a_recipe_that_only_fuses_lacks_no_weights():
    kinds = {told["kind"] for told in session.lacking(jaguar_kit.load_recipe("champion_fuse"))}
    assert "weights" not in kinds
