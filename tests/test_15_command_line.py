"""The commands of `python -m jaguar_kit`: what they print, what they write, and how they refuse."""

import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jaguar_kit
import pandas as pd
import pytest
import timm
import torch
import yaml
from jaguar_kit_tools.experiments import commands
from jaguar_kit_tools.experiments import reference as describe
from jaguar_kit_tools.experiments import smoke as smoke_room
from jaguar_kit_tools.identify import identify
from jaguar_kit_tools.on_kaggle import weights as fetch_weights
from PIL import Image
from safetensors.torch import save_file
from tiny import TINY

KINDS, ROOT = sorted({kind for kind, _ in jaguar_kit.REGISTRY}), Path(jaguar_kit.__file__).parent
RECIPE = {
    "name": "small",
    "data": {"size": 32, "mini": {"identities": 3, "images": 18}},
    "augment": ["flip", "rotation"],
    "background": "gray",
}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures of reports are made, but not drawn."""
    dot = Image.new("RGB", (1, 1))
    monkeypatch.setattr(jaguar_kit.Page, "figure", lambda page, name, _, caption: page.image(name, dot, caption))


def told(capsys, *argv) -> str:
    """What a command that succeeds prints."""
    assert jaguar_kit.main(argv=argv) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def refused(capsys, *argv) -> str:
    """The one line of a command that refuses its input."""
    assert jaguar_kit.main(argv=argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


def paragraphs(text: str) -> dict[tuple[str, str], list[str]]:
    """The lines about each part that `list` prints, by kind and name."""
    found, kind, name = {}, "", ""
    for line in text.splitlines():
        if not line.startswith(" "):
            kind = line
        elif line[2] != " ":
            name = line.split()[0]
            found[kind, name] = [line]
        else:
            found[kind, name].append(line)
    return found


# list


def test_list_tells_every_registered_part_with_its_settings(capsys):
    listed = paragraphs(told(capsys, "list"))
    assert set(jaguar_kit.REGISTRY) <= set(listed)
    for kind, name in jaguar_kit.REGISTRY:
        first, *settings = listed[kind, name]
        assert jaguar_kit.REGISTRY[kind, name].__doc__.splitlines()[0] in first
        assert [line.split(":")[0].strip() for line in settings] == list(jaguar_kit.settings_of(kind, name))


def test_list_tells_every_short_name_with_its_architecture(capsys):
    listed = paragraphs(told(capsys, "list", "backbone"))
    for name, known in jaguar_kit.BACKBONES.items():
        (line,) = listed["backbone", name]
        assert known.architecture in line
        assert known.hub in line


def test_list_of_one_kind_tells_nothing_else(capsys):
    for kind in KINDS:
        listed = paragraphs(told(capsys, "list", kind))
        assert [name for _, name in listed] == jaguar_kit.registered(kind)
        assert {k for k, _ in listed} == {kind}


def test_list_takes_several_kinds_in_their_order(capsys):
    text = told(capsys, "list", "pooling", "geometry")
    assert [line for line in text.splitlines() if not line.startswith(" ")] == ["pooling", "geometry"]


def test_list_tells_default_type_and_range_of_a_setting(capsys):
    lines = [re.sub(" +", " ", line).strip() for line in told(capsys, "list", "loss").splitlines()]
    assert "scale: 64.0 number above 0" in lines
    assert 'mining: "batch_hard" one of: batch_hard, semi_hard' in lines
    lines = [re.sub(" +", " ", line).strip() for line in told(capsys, "list", "geometry", "mix").splitlines()]
    assert "radius: null number above 0, or null" in lines
    assert "p: 1.0 number at least 0 and at most 1" in lines


def test_list_of_an_unknown_kind_is_refused_in_one_line(capsys):
    assert "there is no kind of part 'nonsense'" in refused(capsys, "list", "nonsense")
    assert "did you mean 'pooling'?" in refused(capsys, "list", "poling")


# sheet


def test_sheet_draws_a_row_for_each_image_and_a_column_for_each_view(write_recipe, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert str(out) in told(capsys, "sheet", str(write_recipe(RECIPE)), "--out", str(out))
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (7 * (128 + 12), 6 * (128 + 30))  # stored, evaluated, five times trained on
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".png"] == ["sheet.png"]


def test_sheet_shows_what_the_recipe_makes_of_its_images(write_recipe, tmp_path, capsys, mini):
    sheets = []
    for number, override in enumerate(("background=gray", "background=gray", "background=black")):
        out = tmp_path / f"{number}.png"
        arguments = [str(write_recipe(RECIPE)), "--data", str(mini), "--out", str(out), "-o", override]
        told(capsys, "sheet", *arguments)
        sheets.append(torch.frombuffer(bytearray(Image.open(out).tobytes()), dtype=torch.uint8))
    assert torch.equal(sheets[0], sheets[1])  # the same seed
    assert not torch.equal(sheets[0], sheets[2])


def test_sheet_of_a_recipe_that_is_not_there_is_refused(tmp_path, capsys):
    assert "can't be read" in refused(capsys, "sheet", str(tmp_path / "nowhere.yaml"))


# fetch


def test_fetch_of_an_unknown_name_is_refused_before_anything_is_downloaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch_weights, "download_backbone", lambda *_: pytest.fail("the hub was asked"))
    line = refused(capsys, "fetch", "resnet50", "dinov3_m", "--out", str(tmp_path / "weights"))
    assert "did you mean 'dinov3_l'?" in line
    assert not (tmp_path / "weights").exists()


def test_fetch_that_fails_is_one_line(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise ConnectionError("the line is dead\nand more of it")

    monkeypatch.setattr(jaguar_kit, "create_backbone", fail)
    assert jaguar_kit.main(argv=["fetch", "test_resnet", "--out", str(tmp_path / "weights")]) == 2
    said = capsys.readouterr()
    assert said.out == "  asking the hub for the weights of test_resnet\n"
    assert said.err.count("\n") == 1
    assert "the line is dead" in said.err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_fetch_writes_the_weights_and_tells_what_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch_weights, "download_backbone", lambda name, size: jaguar_kit.create_backbone(name))
    text = told(capsys, "fetch", "test_resnet", "test_vit", "--out", str(tmp_path))
    for name in ("test_resnet", "test_vit"):
        assert (tmp_path / f"{name}.safetensors").is_file()
        licence = timm.get_pretrained_cfg(name).license or "unknown"  # older versions know none
        assert f"architecture {name}, source timm/{name}.r160_in1k, licence {licence}" in text


def test_fetch_keeps_a_file_that_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fetch_weights, "download_backbone", lambda *_: pytest.fail("the hub was asked"))
    save_file({"a": torch.zeros(2)}, tmp_path / "test_resnet.safetensors")
    assert "test_resnet.safetensors" in told(capsys, "fetch", "test_resnet", "--out", str(tmp_path))


# commands


def test_unknown_command_is_answered_with_the_nearest(capsys):
    for wrong, right in {"lst": "list", "sheets": "sheet", "ftech": "fetch", "rnu": "run"}.items():
        assert f"there is no command '{wrong}'; did you mean '{right}'?" in refused(capsys, wrong)


def test_no_command_tells_all_of_them(capsys):
    for argv in ([], ["--help"], ["-h"]):
        text = told(capsys, *argv)
        for name in ("run", *commands.ROOM_OF_COMMAND):
            assert re.search(rf"^  {name} ", text, re.MULTILINE)


def test_every_command_has_help(capsys):
    for name in ("run", *commands.ROOM_OF_COMMAND):
        with pytest.raises(SystemExit) as ended:
            jaguar_kit.main(argv=[name, "--help"])
        assert ended.value.code == 0
        assert "usage:" in capsys.readouterr().out


def test_interrupted_command_ends_in_one_line(monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(describe, "list_command", interrupted)
    assert jaguar_kit.main(argv=["list"]) == 130
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (jaguar_kit.KitError("data: no"), 2, "error: data: no"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("a fault"), 1, "ZeroDivisionError: a fault"),
    ],
)
def test_one_of_several_processes_ends_without_waiting_for_the_others(fault, code, told, monkeypatch, capsys):
    class Left(BaseException):
        pass

    def leave(code):
        raise Left(code)

    def failing(argv):
        raise fault

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Left) as left:
        jaguar_kit.main(failing)
    assert left.value.args == (code,)
    assert told in capsys.readouterr().err


PROGRAMS = [  # a program, its argument, and what is said where errors go, with the exit code
    ("jaguar_kit.py", "list", ["0"]),
    ("jaguar_kit.py", "lits", ["error: jaguar_kit: there is no command 'lits'; did you mean 'list'?", "2"]),
    ("tools/run_recipe.py", "none.yaml", ["error: none.yaml: can't be read", "2"]),
    ("tools/report.py", "none", ["error: none: no experiment of this kit", "2"]),
]
ONE_AFTER_THE_OTHER = """
import runpy, sys
for path, argument in zip(sys.argv[1::2], sys.argv[2::2]):
    sys.argv = [path, argument]
    for name in [name for name in sys.modules if name.startswith("jaguar_kit")]:
        del sys.modules[name]  # as in a process of its own
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as ended:
        print(ended.code, file=sys.stderr)
"""


@pytest.mark.ci
def test_programs_end_with_the_code_of_their_command_though_the_reader_has_enough(tmp_path):
    lines = [word for path, argument, _ in PROGRAMS for word in (str(ROOT / path), argument)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    line = f"{shlex.join([sys.executable, '-c', ONE_AFTER_THE_OTHER, *lines])} | head -n 1; exit ${{PIPESTATUS[0]}}"
    command, env = ["bash", "-c", line], {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (0, "backbone\n")
    expected = [words for *_, said in PROGRAMS for words in said]
    for told, words in zip(done.stderr.splitlines(), expected, strict=True):
        assert told.startswith(words)


# what the file system says


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def test_numbers_of_processes_that_there_are_not_are_refused(tiny, mini, tmp_path, capsys):
    for option, number in (("--jobs", "0"), ("--jobs", "-1"), ("--gpus", "0"), ("--gpus", "-2")):
        out = str(tmp_path / "out")
        line = refused(capsys, "run", str(tiny), "--data", str(mini), "--out", out, option, number)
        assert line.startswith(f"error: {option}: {number} is out of range (expected at least 1)")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("{}/a file/runs", "Not a directory|can't be written"),
        ("{}/" + "x" * 300, "File name too long|can't be written"),
        ("/proc/nowhere", "can't be written|No such file"),
        ("", "--out: '' is empty"),
        ("{}/other", "holds something else"),
    ],
)
def test_a_place_that_can_not_be_written_to_is_one_line(out, words, tiny, mini, tmp_path, capsys):
    (tmp_path / "a file").write_text("x")
    (tmp_path / "other" / f"tiny@{mini.name}").mkdir(parents=True)
    (tmp_path / "other" / f"tiny@{mini.name}" / "thesis.doc").write_text("x")
    code = jaguar_kit.main(argv=["run", str(tiny), "--data", str(mini), "--out", out.format(tmp_path)])
    told = capsys.readouterr().err
    assert code == 2
    assert told.count("\n") == 1
    assert re.search(words, told), told


def as_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "solution.csv", "views.csv", "train/train/train_0001.png"])
def test_a_folder_where_a_file_should_be_is_one_line_or_left_out(name, tiny, mini, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(mini, data)
    as_folder(data / name)
    code = jaguar_kit.main(argv=["run", str(tiny), "--data", str(data), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert (code, told) == (0, "") or (code == 2 and told.count("\n") == 1 and told.startswith("error: "))
    assert (tmp_path / "out").exists() == (code == 0)


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(jaguar_kit.CACHE_VARIABLE)
    monkeypatch.setattr(jaguar_kit.Path, "home", nobody)
    with pytest.raises(jaguar_kit.KitError, match="set \\$JAGUAR_KIT_CACHE to a folder"):
        jaguar_kit.cache_dir()


def test_whatever_the_file_system_says_is_one_line(capsys):
    for fault in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT, errno.ENAMETOOLONG, errno.EIO):

        def command(argv, fault=fault):
            raise OSError(fault, os.strerror(fault), "some/file")

        assert jaguar_kit.main(command, []) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: some/file: {os.strerror(fault)}")
        assert told.count("\n") == 1


def test_an_unexpected_fault_keeps_its_traceback():
    def command(argv):
        return {}["missing"]

    with pytest.raises(KeyError):
        jaguar_kit.main(command, [])


@pytest.fixture
def run_printing_to(tiny, mini, tmp_path, monkeypatch, capsys):
    """Runs the recipe while output goes to a file; what was said where errors go."""

    def run(file) -> str:
        with file, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", file)
            assert jaguar_kit.main(argv=["run", str(tiny), "--data", str(mini), "--out", str(tmp_path / "out")]) == 0
        assert (tmp_path / "out" / f"tiny@{mini.name}" / "report.html").is_file()
        return capsys.readouterr().err

    return run


def test_a_reader_that_has_enough_does_not_end_the_work(run_printing_to):
    reader, writer = os.pipe()
    os.close(reader)
    assert run_printing_to(os.fdopen(writer, "w")) == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_an_output_that_is_full_does_not_end_the_work(run_printing_to):
    told = run_printing_to(open("/dev/full", "w"))  # noqa: SIM115 - it is closed where it is used
    assert told == "note: the output can't be written any more: No space left on device\n"


# smoke checks the real settings


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"backbone": "resnet5"}, "has no 'resnet5'"),
        (
            {"backbone": "vit_base_patch16_384", "input_size": 100},
            "100 is not a multiple of the backbone's patches of 16",
        ),
        ({"backbone": "resnet50", "pooling": "class_token"}, "has no class token"),
        ({"backbone": "vit_l_384", "freeze": False, "train_blocks": 500}, "500 is more than the"),
    ],
)
def test_smoke_refuses_what_could_not_run(model, words, tmp_path, capsys, monkeypatch):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"name": "x", "model": model}))
    monkeypatch.setattr(smoke_room, "small_backbone", lambda: pytest.fail("went on"))
    assert words in refused(capsys, "run", str(path), "--smoke", "--out", str(tmp_path / "out"))


def test_smoke_on_data_of_ones_own_needs_the_masks_that_the_recipe_needs(mini, tmp_path, capsys, monkeypatch):
    data = tmp_path / "cats"
    for row in pd.read_csv(mini / "views.csv").query("split == 'train'").itertuples():
        target = data / row.identity / row.filename.replace("png", "jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(mini / row.path).convert("RGB").save(target)
    path = tmp_path / "x.yaml"
    monkeypatch.setattr(smoke_room, "small_backbone", lambda: None)
    for settings, words in (({"masks": "outlines"}, "there is no such folder"), ({}, "needs masks, but the images")):
        path.write_text(yaml.safe_dump({**TINY, "background": "black", "data": settings}))
        assert (
            jaguar_kit.main(argv=["run", str(path), "--smoke", "--data", str(data), "--out", str(tmp_path / "o")]) == 2
        )
        assert words in capsys.readouterr().err


# nothing is written over


def test_a_sheet_writes_over_an_earlier_sheet_and_nothing_else(tmp_path, capsys):
    path, out = tmp_path / "small.yaml", tmp_path / "sheet.png"
    path.write_text(yaml.safe_dump(RECIPE))
    for _ in range(2):
        told(capsys, "sheet", str(path), "--out", str(out))
    Image.new("RGB", (9, 9)).save(tmp_path / "mine.png")
    (tmp_path / "mine.txt").write_text("x")
    for name in ("mine.png", "mine.txt", "."):
        assert jaguar_kit.main(argv=["sheet", str(path), "--out", str(tmp_path / name)]) == 2
        assert "something else than an earlier sheet" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "x"


@pytest.mark.ci
def test_a_sheet_turns_images_as_training_does(tmp_path, capsys):
    data = {"mini": {"identities": 9, "images": 120, "layout": "animalclef"}, "size": 32, "turn": {"top": -90}}
    path, seen = tmp_path / "x.yaml", []
    path.write_text(yaml.safe_dump({"name": "x", "data": data}))
    with pytest.MonkeyPatch.context() as patch:
        opened = jaguar_kit.open_store
        patch.setattr(
            describe, "open_store", lambda *a, turns=(), **k: seen.append(list(turns)) or opened(*a, turns=turns, **k)
        )
        told(capsys, "sheet", str(path), "--out", str(tmp_path / "sheet.png"))
    assert len(seen[0]) == 6
    assert set(seen[0]) == {0.0, -90.0}
    competition = jaguar_kit.load_competition(jaguar_kit.find_data(jaguar_kit.load_recipe(path)))
    tops = (competition.train.orientation == "top").sum() + (competition.test.orientation == "top").sum()
    assert jaguar_kit.turns_of(competition, {"top": -90}).count(-90) == tops


@pytest.mark.parametrize("name", ["train.csv", "report.html", "a.png"])
def test_answers_are_written_into_a_folder_of_their_own(name, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("x")
    with pytest.raises(jaguar_kit.KitError, match=rf"out: holds something else \({name}\); choose another --out"):
        identify.identify("w", "c", "q", tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "x"


@pytest.mark.parametrize(
    ("holds", "wanted"), [("an experiment", "answers"), ("answers", "an experiment"), ("a comparison", "answers")]
)
def test_results_of_one_kind_are_not_mixed_with_another(holds, wanted, tmp_path):
    jaguar_kit.claim(tmp_path / "x", holds)
    jaguar_kit.claim(tmp_path / "x", holds)
    with pytest.raises(jaguar_kit.KitError, match=f"x: holds {holds}; choose another --out"):
        jaguar_kit.claim(tmp_path / "x", wanted)


def test_experiments_of_an_earlier_version_are_known_without_a_mark(tmp_path):
    (tmp_path / "x" / "default").mkdir(parents=True)
    for name in ("experiment.json", "report.html", "results.csv"):
        (tmp_path / "x" / name).write_text("{}")
    jaguar_kit.claim(tmp_path / "x", "an experiment")
    with pytest.raises(jaguar_kit.KitError):
        jaguar_kit.claim(tmp_path / "x", "answers")


def test_of_a_folder_that_is_somebody_elses_nothing_is_removed(tiny, mini, tmp_path, capsys):
    place = tmp_path / "out" / f"tiny@{mini.name}"
    (place / "empty").mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    line = refused(capsys, "run", str(tiny), "--data", str(mini), "--out", str(tmp_path / "out"))
    assert "holds something else (notes.txt); choose another --out" in line
    assert (place / "empty").is_dir()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("report", "x", "--out", "y"), "--out: is for a comparison"),
        (("package", "--user", "me", "--drop"), "--drop: lets weights leave"),
    ],
)
def test_options_that_would_do_nothing_are_refused(argv, words, capsys):
    assert words in refused(capsys, *argv)


def test_the_reference_page_has_every_part_and_every_public_function(tmp_path, capsys):
    assert jaguar_kit.any_command(["list", "--html", str(tmp_path / "reference")]) == 0
    text = (tmp_path / "reference" / "report.md").read_text(encoding="utf-8")
    for name in jaguar_kit.__all__:
        assert f"### {name}\n" in text, name
    for kind in ("loss", "pooling", "head", "postprocess", "background"):
        for name in jaguar_kit.registered(kind):
            assert f"| {name} |" in text, (kind, name)
    assert "k_reciprocal_rerank(embeddings: Any = None" in text.replace("'", "")
    assert text.count(">>>") > 30
