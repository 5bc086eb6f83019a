"""The kit's own files, each truncated, emptied and garbled: one line with the remedy, and --force gets past it."""

import io
import json
import re
import shutil
from pathlib import Path

import identify
import jaguar_kit
import pytest
import report
import tiny
import torch
import yaml

TINY = {
    **tiny.TINY,
    "loss": tiny.ARCFACE,
    "train": {"epochs": 2, "batch_size": 16},
    "test_backgrounds": ["gray"],
    "postprocess": ["query_expansion"],
}


def truncated(path: Path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path: Path):
    path.write_bytes(b"")


def garbled(path: Path):
    path.write_bytes(b"\x80\x03garbled\xff" * 9)


def of_another_kind(path: Path):
    path.write_text("[1, 2]\n")


def with_wrong_values(path: Path):
    """Still what it was in form, with values that make no sense."""
    if path.suffix == ".json":
        told = json.loads(path.read_text())
        path.write_text(json.dumps(dict.fromkeys(told, "nonsense")))
    elif path.suffix == ".csv":
        head, *rows = path.read_text().splitlines()
        path.write_text("\n".join([head, *("x," * head.count(",") + "x" for _ in rows)]))
    elif path.suffix == ".yaml":
        path.write_text("name: tiny\ntrain: {lr: abc}\n")
    elif path.suffix == ".npz":
        import numpy as np

        np.savez(path, embeddings=np.zeros((3, 2)), images=["a", "b"], labels=["a"])
    else:
        jaguar_kit.save_tensors(path, {"x": torch.zeros(1)}, {"state": "{}", "format": "jaguar_kit 1"})


SPOILS = [truncated, emptied, garbled, of_another_kind, with_wrong_values]


@pytest.fixture(scope="module")
def finished(mini, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    recipe = out / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY))
    assert jaguar_kit.main(jaguar_kit.run_command, [str(recipe), "--data", str(mini), "--out", str(out / "runs")]) == 0
    return out


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def run(copy: Path, mini: Path, *more: str) -> tuple[int, str]:
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", told)
        arguments = [str(copy / "tiny.yaml"), "--data", str(mini), "--out", str(copy / "runs"), *more]
        return jaguar_kit.main(jaguar_kit.run_command, arguments), told.getvalue()


def check_one_line(code: int, told: str, path: Path):
    assert code == 2, told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert path.name in told
    assert "--force" in told or "remove" in told


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("name", ["metrics.json", "recipe.yaml", "log.csv", "validation.npz"])
def test_a_damaged_file_of_a_finished_run_is_one_line(name, spoil, copy, mini):
    place = copy / "runs" / f"tiny@{mini.name}" / "default" / "seed42"
    spoil(place / name)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    check_one_line(*run(copy, mini), place / name)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


@pytest.mark.parametrize(
    "name", ["metrics.json", "recipe.yaml", "log.csv", "validation.npz", "failed.json", "checkpoint"]
)
def test_force_gets_past_any_damaged_file(name, copy, mini):
    place = copy / "runs" / f"tiny@{mini.name}" / "default" / "seed42"
    path = place / ("checkpoint.safetensors" if name == "checkpoint" else name)
    path.touch()
    garbled(path)
    assert run(copy, mini, "--force") == (0, "")
    assert (place.with_name("seed42.old1") / path.name).is_file()


@pytest.mark.parametrize("spoil", SPOILS[:-1], ids=lambda spoil: spoil.__name__)
def test_a_damaged_record_of_a_failure_is_one_line(spoil, copy, mini):
    place = copy / "runs" / f"tiny@{mini.name}" / "default" / "seed42"
    (place / "metrics.json").unlink()
    (place / "failed.json").write_text('{"reason": "the loss"}')
    spoil(place / "failed.json")
    check_one_line(*run(copy, mini), place / "failed.json")


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_a_damaged_checkpoint_is_one_line(spoil, copy, mini):
    place = copy / "runs" / f"tiny@{mini.name}" / "default" / "seed42"
    (place / "metrics.json").unlink()
    shutil.copy(place / "weights.safetensors", place / "checkpoint.safetensors")
    spoil(place / "checkpoint.safetensors")
    jaguar_kit.CHECKED.clear()
    check_one_line(*run(copy, mini), place / "checkpoint.safetensors")
    (place / "checkpoint.safetensors").unlink()
    assert run(copy, mini)[0] == 0


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_a_damaged_experiment_is_told_by_report_and_written_anew_by_a_run(spoil, copy, mini, capsys):
    folder = copy / "runs" / f"tiny@{mini.name}"
    spoil(folder / "experiment.json")
    assert jaguar_kit.main(report.report_command, [str(folder)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "experiment.json" in told
    assert run(copy, mini)[0] == 0
    assert jaguar_kit.main(report.report_command, [str(folder)]) == 0


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_damaged_tables_of_results_are_told_by_a_comparison(spoil, copy, mini, tmp_path, capsys):
    folder = copy / "runs" / f"tiny@{mini.name}"
    spoil(folder / "results.csv")
    arguments = [str(folder), str(folder), "--out", str(tmp_path / "both")]
    assert jaguar_kit.main(report.report_command, arguments) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "results.csv" in told
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_damaged_weights_are_told_where_they_are_used(spoil, copy, mini, capsys):
    place = copy / "runs" / f"tiny@{mini.name}" / "default" / "seed42"
    spoil(place / "weights.safetensors")
    jaguar_kit.CHECKED.clear()
    arguments = ["--weights", str(place), "--catalogue", str(mini), "--queries", str(mini / "test")]
    assert jaguar_kit.main(identify.identify_command, [*arguments, "--out", str(copy / "answers")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "weights.safetensors" in told or str(place) in told
    assert not (copy / "answers").exists()


@pytest.mark.parametrize("words", ["Größer hilft.", "\ufeffWith a mark."])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_an_interpretation_is_read_whatever_its_encoding(words, encoding, copy, mini):
    folder = copy / "runs" / f"tiny@{mini.name}"
    (folder / "interpretation.md").write_bytes(words.encode(encoding, "replace"))
    assert run(copy, mini) == (0, "")
    page = (folder / "report.md").read_text()
    shown = words.lstrip("\ufeff") if encoding == "utf-8" else words.replace("\ufeff", "?")
    assert shown in page
    assert ("is not UTF-8 and is read as Latin-1" in page) == (encoding == "latin-1" and "ß" in words)


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_a_damaged_fold_is_one_line(spoil, mini, tmp_path):
    raw = {
        **TINY,
        "data": {"size": 32, "split": {"name": "kfold", "folds": 2}},
        "train": {"epochs": 1, "batch_size": 16},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(raw))
    assert run(tmp_path, mini)[0] == 0
    place = tmp_path / "runs" / f"tiny@{mini.name}" / "default" / "seed42"
    told = json.loads((place / "metrics.json").read_text())
    assert set(told["other_backgrounds"]) == {"gray", "chance"}
    (place / "metrics.json").unlink()
    spoil(place / "fold1" / "metrics.json")
    check_one_line(*run(tmp_path, mini), place / "fold1" / "metrics.json")


@pytest.mark.parametrize(
    "odd",
    [
        {"embeddings": [[[1.0]], [[2.0]]]},
        {"embeddings": [["a"], ["b"]]},
        {"embeddings": [[1.0], [float("nan")]]},
        {"labels": [["a"], ["b"]]},
        {"labels": "a"},
        {"labels": [1.0, 2.0]},
        {"images": [1, 2]},
        {"paths": [1.5, 2.5]},
        {"labels": ["a", "b", "c"]},
    ],
)
def test_arrays_of_another_kind_are_one_line(odd, tmp_path):
    import numpy as np

    whole = {"embeddings": [[1.0], [2.0]], "images": ["x", "y"], "labels": ["a", "b"], "paths": ["x", "y"]}
    np.savez(tmp_path / "validation.npz", **whole)
    assert set(jaguar_kit.read_arrays(tmp_path / "validation.npz", "embeddings", "labels")) == set(whole)
    np.savez(tmp_path / "validation.npz", **{**whole, **odd})
    with pytest.raises(jaguar_kit.KitError, match=r"validation\.npz: is damaged: .*--force"):
        jaguar_kit.read_arrays(tmp_path / "validation.npz", "embeddings", "images", "labels")


@pytest.mark.parametrize("data", [3, 1.5, [], {}])
def test_an_experiment_on_data_that_are_no_folder_is_one_line(data, copy, mini, capsys):
    folder = copy / "runs" / f"tiny@{mini.name}"
    told = json.loads((folder / "experiment.json").read_text())
    (folder / "experiment.json").write_text(json.dumps({**told, "data": data}))
    assert jaguar_kit.main(report.report_command, [str(folder)]) == 2
    assert re.match(r"error: .*experiment\.json: is damaged: data: .*\n$", capsys.readouterr().err)
