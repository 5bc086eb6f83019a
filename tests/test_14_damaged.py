"""The kit's own files, each truncated, emptied and garbled: one line with the remedy, and --force gets past it."""

import io
import json
import re
import shutil
from pathlib import Path

import jaguar_kit
import numpy as np
import pytest
import tiny
import torch
import yaml
from jaguar_kit_tools.experiments import comparison as report
from jaguar_kit_tools.identify import identify

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
        path.write_text("\n".join([head, *("x," * head.count(",") + "x" for _ in rows), ""]))
    elif path.suffix == ".yaml":
        path.write_text("name: tiny\ntrain: {lr: abc}\n")
    elif path.suffix == ".npz":
        np.savez(path, embeddings=np.zeros((3, 2)), images=["a", "b"], labels=["a"])
    else:
        jaguar_kit.save_tensors(path, {"x": torch.zeros(1)}, {"state": "{}", "format": "jaguar_kit 1"})


SPOILS = [truncated, emptied, garbled, of_another_kind, with_wrong_values]


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Reports without their figures, which nothing here looks at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaguar_kit.Page, "figure", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def finished(undrawn, mini, tmp_path_factory):
    """A finished experiment, and one whose run has two folds."""
    out = tmp_path_factory.mktemp("finished")
    folds = {"data": {"size": 32, "split": {"name": "kfold", "folds": 2}}, "train": {"epochs": 1, "batch_size": 16}}
    for name, changes in (("tiny", {}), ("folded", folds)):
        (out / f"{name}.yaml").write_text(yaml.safe_dump({**TINY, "name": name, **changes}))
        assert run(out, mini, name=name) == (0, "")
    return out


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def folder(copy, mini):
    return copy / "runs" / f"tiny@{mini.name}"


@pytest.fixture
def place(folder):
    return folder / "default" / "seed42"


def told_by(command, arguments) -> tuple[int, str]:
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", told)
        return jaguar_kit.main(command, [str(word) for word in arguments]), told.getvalue()


def run(copy: Path, mini: Path, *more: str, name: str = "tiny") -> tuple[int, str]:
    return told_by(jaguar_kit.run_command, [copy / f"{name}.yaml", "--data", mini, "--out", copy / "runs", *more])


def check_one_line(code: int, told: str, path: Path, how: str = ""):
    assert code == 2, f"{how}: {told}"
    assert told.startswith("error: "), how
    assert told.count("\n") == 1, how
    assert path.name in told, how
    assert "--force" in told or "remove" in told, how


def spoiled(path: Path, spoils=SPOILS):
    """Spoils a file in one way after the other, and puts it right again."""
    content = path.read_bytes()
    for spoil in spoils:
        path.write_bytes(content)
        spoil(path)
        jaguar_kit.CHECKED.clear()
        yield spoil.__name__
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["metrics.json", "recipe.yaml", "log.csv", "validation.npz"])
def test_a_damaged_file_of_a_finished_run_is_one_line(name, place, copy, mini):
    for how in spoiled(place / name):
        before = {path.name: path.read_bytes() for path in place.iterdir()}
        check_one_line(*run(copy, mini), place / name, how)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before, how


@pytest.mark.ci
@pytest.mark.parametrize(
    "names",
    [["metrics.json"], ["recipe.yaml", "log.csv", "validation.npz"], ["failed.json", "checkpoint.safetensors"]],
    ids=" ".join,
)
def test_force_gets_past_any_damaged_file(names, place, copy, mini):
    for name in names:
        (place / name).touch()
        garbled(place / name)
    assert run(copy, mini, "--force") == (0, "")
    aside = place.with_name("seed42.old1")
    assert [(aside / name).is_file() for name in names] == [True] * len(names)


def test_metrics_of_other_values_are_one_line(place, copy, mini):
    path = place / "metrics.json"
    told = json.loads(path.read_text())
    for odd in ({"per_identity": {"cat00": "x"}}, {"untrained": {}}, {"map_postprocessed": "x"}):
        path.write_text(json.dumps({**told, **odd}))
        check_one_line(*run(copy, mini), path, str(odd))


def test_a_log_with_a_word_among_its_numbers_is_one_line(place, copy, mini):
    head, first, *rest = (place / "log.csv").read_text().splitlines(keepends=True)
    values = dict(zip(head.strip().split(","), first.strip().split(",")), val_loss="x")
    (place / "log.csv").write_text("".join([head, ",".join(values.values()) + "\n", *rest]))
    check_one_line(*run(copy, mini), place / "log.csv")


def test_a_damaged_record_of_a_failure_is_one_line(place, copy, mini):
    (place / "metrics.json").unlink()
    (place / "failed.json").write_text('{"reason": "the loss"}')
    for how in spoiled(place / "failed.json", SPOILS[:-1]):
        check_one_line(*run(copy, mini), place / "failed.json", how)


def test_a_damaged_checkpoint_is_one_line(place, copy, mini):
    (place / "metrics.json").unlink()
    shutil.copy(place / "weights.safetensors", place / "checkpoint.safetensors")
    for how in spoiled(place / "checkpoint.safetensors"):
        check_one_line(*run(copy, mini), place / "checkpoint.safetensors", how)
    (place / "checkpoint.safetensors").unlink()
    assert run(copy, mini)[0] == 0


@pytest.mark.ci
def test_a_damaged_experiment_is_told_by_report_and_written_anew_by_a_run(folder, copy, mini):
    whole = (folder / "experiment.json").read_bytes()
    for how in spoiled(folder / "experiment.json"):
        code, told = told_by(report.report_command, [folder])
        assert (code, told.count("\n")) == (2, 1), how
        assert "experiment.json" in told, how
        assert run(copy, mini)[0] == 0, how
        assert (folder / "experiment.json").read_bytes() == whole, how


def test_damaged_tables_of_results_are_told_by_a_comparison(folder, tmp_path):
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    for how in spoiled(folder / "results.csv"):
        code, told = told_by(report.report_command, [folder, other, "--out", tmp_path / "both"])
        assert (code, told.count("\n")) == (2, 1), how
        assert "results.csv" in told, how
        assert not (tmp_path / "both").exists(), how


def test_damaged_weights_are_told_where_they_are_used(place, copy, mini):
    arguments = ["--weights", place, "--catalogue", mini, "--queries", mini / "test", "--out", copy / "answers"]
    for how in spoiled(place / "weights.safetensors"):
        code, told = told_by(identify.identify_command, arguments)
        assert (code, told.count("\n")) == (2, 1), how
        assert "weights.safetensors" in told or str(place) in told, how
        assert not (copy / "answers").exists(), how


@pytest.mark.ci
def test_an_interpretation_is_read_whatever_its_encoding(folder):
    note = "is not UTF-8 and is read as Latin-1"
    for written, shown in (
        ("\ufeffGrößer hilft.".encode(), "<p>Größer hilft."),
        ("Größer hilft.".encode("latin-1"), "Größer hilft."),
    ):
        (folder / "interpretation.md").write_bytes(written)
        assert told_by(report.report_command, [folder]) == (0, "")
        page = (folder / "report.html").read_text()
        assert shown in page
        assert (note in page) == (not shown.startswith("<p>"))


def test_a_damaged_fold_is_one_line(copy, mini):
    place = copy / "runs" / f"folded@{mini.name}" / "default" / "seed42"
    told = json.loads((place / "metrics.json").read_text())
    assert set(told["other_backgrounds"]) == {"gray", "chance"}
    (place / "metrics.json").unlink()
    for how in spoiled(place / "fold1" / "metrics.json"):
        check_one_line(*run(copy, mini, name="folded"), place / "fold1" / "metrics.json", how)


def test_arrays_of_another_kind_are_one_line(tmp_path):
    whole = {"embeddings": [[1.0], [2.0]], "images": ["x", "y"], "labels": ["a", "b"], "paths": ["x", "y"]}
    np.savez(tmp_path / "validation.npz", **whole)
    assert set(jaguar_kit.read_arrays(tmp_path / "validation.npz", "embeddings", "labels")) == set(whole)
    for odd in (
        {"embeddings": [[[1.0]], [[2.0]]]},
        {"embeddings": [["a"], ["b"]]},
        {"embeddings": [[1.0], [float("nan")]]},
        {"labels": [["a"], ["b"]]},
        {"labels": "a"},
        {"labels": [1.0, 2.0]},
        {"images": [1, 2]},
        {"paths": [1.5, 2.5]},
        {"labels": ["a", "b", "c"]},
    ):
        np.savez(tmp_path / "validation.npz", **{**whole, **odd})
        with pytest.raises(jaguar_kit.KitError, match=r"validation\.npz: is damaged: .*--force"):
            print(odd, jaguar_kit.read_arrays(tmp_path / "validation.npz", "embeddings", "images", "labels"))


def test_an_experiment_on_data_that_are_no_folder_is_one_line(folder):
    told = json.loads((folder / "experiment.json").read_text())
    for data in (3, 1.5, [], {}):
        (folder / "experiment.json").write_text(json.dumps({**told, "data": data}))
        code, said = told_by(report.report_command, [folder])
        assert code == 2, data
        assert re.match(r"error: .*experiment\.json: is damaged: data: .*\n$", said), data
