"""The commands of `python -m jaguar_kit`: what they print, what they write, and how they refuse."""

import os
import re
import subprocess
import sys

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import jaguar_kit

KINDS = sorted({kind for kind, _ in jaguar_kit.REGISTRY})
RECIPE = {
    "name": "small",
    "data": {"size": 32, "mini": {"identities": 3, "images": 18}},
    "augment": ["flip", "rotation"],
    "background": "gray",
}


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


@pytest.mark.parametrize("kind", KINDS)
def test_list_of_one_kind_tells_nothing_else(kind, capsys):
    listed = paragraphs(told(capsys, "list", kind))
    assert [name for _, name in listed] == jaguar_kit.names(kind)
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


def test_sheet_draws_a_row_for_each_picture_and_a_column_for_each_view(write_recipe, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert str(out) in told(capsys, "sheet", str(write_recipe(RECIPE)), "--out", str(out))
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (7 * (128 + 6), 6 * (128 + 6) + 18)  # stored, evaluated, five times trained on
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".png"] == ["sheet.png"]


def test_sheet_shows_what_the_recipe_makes_of_its_pictures(write_recipe, tmp_path, capsys, mini):
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
    monkeypatch.setattr(jaguar_kit, "download_backbone", lambda *_: pytest.fail("the hub was asked"))
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
    monkeypatch.setattr(jaguar_kit, "download_backbone", lambda name, size: jaguar_kit.create_backbone(name))
    text = told(capsys, "fetch", "test_resnet", "test_vit", "--out", str(tmp_path))
    for name in ("test_resnet", "test_vit"):
        assert (tmp_path / f"{name}.safetensors").is_file()
        licence = timm.get_pretrained_cfg(name).license or "unknown"  # older versions know none
        assert f"architecture {name}, source timm/{name}.r160_in1k, licence {licence}" in text


def test_fetch_keeps_a_file_that_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jaguar_kit, "download_backbone", lambda *_: pytest.fail("the hub was asked"))
    save_file({"a": torch.zeros(2)}, tmp_path / "test_resnet.safetensors")
    assert "test_resnet.safetensors" in told(capsys, "fetch", "test_resnet", "--out", str(tmp_path))


# commands


@pytest.mark.parametrize(("wrong", "right"), [("lst", "list"), ("sheets", "sheet"), ("ftech", "fetch"), ("rnu", "run")])
def test_unknown_command_is_answered_with_the_nearest(wrong, right, capsys):
    assert f"there is no command '{wrong}'; did you mean '{right}'?" in refused(capsys, wrong)


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_no_command_tells_all_of_them(argv, capsys):
    text = told(capsys, *argv)
    for name in jaguar_kit.COMMANDS:
        assert re.search(rf"^  {name} ", text, re.MULTILINE)


@pytest.mark.parametrize("name", list(jaguar_kit.COMMANDS))
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        jaguar_kit.main(argv=[name, "--help"])
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_interrupted_command_ends_in_one_line(monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setitem(jaguar_kit.COMMANDS, "list", interrupted)
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


def test_module_runs_as_a_program():
    command = [sys.executable, jaguar_kit.__file__, "lits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: jaguar_kit: there is no command 'lits'; did you mean 'list'?"]
