"""Members that other sessions made: which source of a kernel brings each, and fusing them in a rehearsal."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import jaguar_kit
import pytest
from jaguar_kit import KitError, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments import ensemble, session, smoke
from jaguar_kit_tools.on_kaggle import kernels, members, mounts, rehearsal
from jaguar_kit_tools.on_kaggle.mounts import Attached, Output, Rehearsal
from tiny import ARCFACE, TINY

FUSE = {"name": "both", "data": {"size": 32}, "train": {"epochs": 0}}
FUSE["ensemble"] = {"name": "evidence", "members": ["runs/one", "runs/two/default"]}
FUSES = recipe_from_dict(FUSE)
METADATA = {"id": "me/jaguar-kit-both", "kernel_sources": ["me/jaguar-kit-one", "me/jaguar-kit-two"]}
RUNS = {"one": frozenset({"runs/one/default/seed42"}), "two": frozenset({"runs/two/default/seed42"})}


def left_by(place: Path, kernel: str, runs: Path, begun: float = 1.0) -> Path:
    """A folder as a session of a kernel leaves it, with an experiment's runs."""
    shutil.copytree(runs, place / "runs" / kernel)
    (place / "run.json").write_text(json.dumps({"kernel": kernel, "begun": begun}))
    return place


@pytest.fixture(scope="module")
def trained(mini, tmp_path_factory) -> Path:
    """Two experiments of one run each."""
    out = tmp_path_factory.mktemp("trained")
    for name, loss in (("one", ARCFACE), ("two", "cross_entropy")):
        recipe = recipe_from_dict({**TINY, "name": name, "loss": loss, "postprocess": ["posterior"]})
        folder = run_recipe(recipe, mini, out, device="cpu").folder
        folder.rename(out / name)
    return out


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, and the kernel that fuses."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "both.yaml").write_text(json.dumps(FUSE))
    kernels.write_kernels(tmp_path / "kernels", tmp_path / "recipes", "me")
    return tmp_path


# which sources there are


def test_a_kernel_names_the_kernels_of_all_that_it_fuses(here):
    metadata = json.loads((here / "kernels" / "both" / "kernel-metadata.json").read_text())
    assert metadata["kernel_sources"] == METADATA["kernel_sources"]


def test_outputs_are_known_by_what_they_tell_of_themselves_and_others_by_their_order(here, trained):
    left_by(here / "results" / "second", "two", trained / "two")
    left_by(here / "results" / "old", "two", trained / "two", begun=0.5)
    found = mounts.outputs_of(METADATA, Rehearsal())
    assert [one.folder for one in found] == [None, Path("results/second")]
    assert [one.runs for one in found] == [None, RUNS["two"]]
    unnamed = shutil.copytree(here / "results" / "second", here / "unnamed")
    (unnamed / "run.json").unlink()
    found = mounts.outputs_of(METADATA, Rehearsal(attach=[str(unnamed), "results/old"]))
    assert [(one.folder, one.named) for one in found] == [(unnamed, True), (Path("results/old"), True)]
    strange = left_by(here / "strange", "three", trained / "one")
    found = mounts.outputs_of(METADATA, Rehearsal(attach=[str(strange)]))
    assert [(one.folder, one.named) for one in found if one.folder != Path("results/second")] == [
        (None, True),
        (strange, False),
    ]


def test_a_dataset_of_runs_is_known_by_its_folders_name(here, trained):
    folder = left_by(here / "my-runs", "one", trained / "one")
    (folder / "run.json").unlink()
    found = mounts.outputs_of({"id": "me/x"}, Rehearsal(attach=["my-runs"]), [Attached("me/my-runs")])
    assert [(one.source, one.kind, one.runs) for one in found] == [("me/my-runs", "dataset", RUNS["one"])]


def test_the_output_of_a_part_is_known_by_its_place(here, trained):
    folder = left_by(here / "results" / "one" / "part2" / "session1", "one", trained / "one")
    (folder.parents[1] / "sessions.json").write_text(json.dumps({"parts": [{}, {}, {}]}))
    assert mounts.slug_of(folder) == "jaguar-kit-one-2-of-3"
    found = mounts.outputs_of({**METADATA, "kernel_sources": ["me/jaguar-kit-one-2-of-3"]}, Rehearsal())
    assert [one.runs for one in found] == [RUNS["one"]]


def test_what_kaggle_serves_counts_and_a_folder_of_another_session_does_not(here, trained):
    left_by(here / "results" / "one", "one", trained / "one", begun=1.0)
    files = {f"runs/one/default/seed42/{name}": {} for name in ("metrics.json", "recipe.yaml")}
    told = {"me/jaguar-kit-one": {"begun": 1.0, "files": files}, "me/jaguar-kit-two": None}
    one, two = mounts.outputs_of(METADATA, Rehearsal(), (), told.get)
    assert (one.folder, one.runs) == (Path("results/one"), RUNS["one"])
    assert (two.folder, two.runs) == (None, frozenset())
    told["me/jaguar-kit-one"] = {"begun": 2.0, "files": {}}
    one, _ = mounts.outputs_of(METADATA, Rehearsal(), (), told.get)
    assert (one.folder, one.runs) == (None, frozenset())


# what is found of each member


ONE, TWO = (Output(f"me/jaguar-kit-{name}", "kernel", None, runs) for name, runs in RUNS.items())


@pytest.mark.parametrize(
    ("outputs", "words", "certain"),
    [
        ([ONE, TWO], [], []),
        ([ONE, replace(TWO, runs=None)], ["should lie in me/jaguar-kit-two, of which nothing is here"], [False]),
        ([ONE, replace(TWO, runs=frozenset())], ["holds no finished run of it .*let kernels/two end first"], [True]),
        ([ONE], ["me/jaguar-kit-one holds no finished run of it"], [True]),
        ([ONE, replace(TWO, named=False, folder=Path("x"))], ["lies in x, which no source of the kernel"], [True]),
        ([], ["no source .*expected me/jaguar-kit-one among", "no source .*me/jaguar-kit-two among"], [True, True]),
        ([ONE, replace(TWO, runs=frozenset({"runs/two2/default/seed42"}))], ["holds no finished run of it"], [True]),
    ],
)
def test_each_member_is_told_or_named_with_what_was_expected(outputs, words, certain, capsys):
    found = members.member_findings(METADATA, FUSES, outputs)
    assert [finding.certain for finding in found] == certain
    for finding, pattern in zip(found, words):
        assert re.search(pattern, finding.text), finding.text
        assert "\n" not in finding.text
    lacking = [finding.text.split(":")[0] for finding in found]
    told = capsys.readouterr().out
    for name in ("runs/one", "runs/two/default"):
        assert (f"member {name}: 1 finished run in" in told) != (f"member {name}" in lacking)


def test_runs_that_measure_pseudo_labels_are_looked_for_too_and_a_small_run_needs_none(capsys):
    pseudo = {"rounds": 1, "epochs": 1, "measured_on": "runs/one"}
    recipe = recipe_from_dict({**TINY, "name": "labels", "data": {"split": "all"}, "pseudo": pseudo})
    assert kernels.earlier_experiments(recipe) == ["one"]
    [told] = members.member_findings({"id": "me/labels"}, recipe, [])
    assert "member runs/one: no source of the kernel brings it (expected me/jaguar-kit-one" in told.text
    assert members.member_findings({"id": "me/labels"}, recipe, [ONE]) == []
    with pytest.raises(KitError, match=r"^pseudo\.measured_on: nowhere: holds no finished run"):
        ensemble.members_in("nowhere", "pseudo.measured_on")
    assert smoke.smoke(recipe).pseudo.measured_on is None


# in a session


@pytest.mark.ci
def test_a_rehearsal_fuses_what_sessions_left_here_and_refuses_what_none_left(here, trained, capfd):
    for name in ("one", "two"):
        left_by(here / "results" / name, name, trained / name)
    assert rehearsal.rehearse(here / "kernels" / "both", Rehearsal(layouts=("nested",))) == []
    said = capfd.readouterr().out
    assert "member runs/two/default: 1 finished run in me/jaguar-kit-two (kernel_sources)" in said
    assert "both: 0 runs on" in said
    assert "submission: /kaggle/working/runs/both/ensemble/submission.csv" in said
    (here / "results" / "two" / "runs" / "two" / "default" / "seed42" / "metrics.json").unlink()
    [told] = rehearsal.rehearse(here / "kernels" / "both", Rehearsal(layouts=("nested",), runs=False))
    assert str(told).startswith("certain: member runs/two/default: me/jaguar-kit-one, me/jaguar-kit-two holds no")


def test_a_member_dealt_out_to_two_sessions_is_found_in_both(here, trained, monkeypatch):
    parts = [here / "input" / f"jaguar-kit-one-{n}-of-2" for n in (1, 2)]
    for number, place in enumerate(parts):
        left_by(place, "one", trained / "one")
        (place / "runs" / "one" / "default" / "seed42").rename(place / "runs" / "one" / "default" / f"seed{number}")
    shutil.copytree(parts[0] / "runs", parts[1] / "runs", dirs_exist_ok=True)  # of a session that went on from it
    monkeypatch.setattr(jaguar_kit.find_mounted, "__defaults__", (here / "input", 8))
    found = [member.folder.path for member in ensemble.members_in("runs/one")]
    assert found == [place / "runs/one/default" / f"seed{n}" for n, place in enumerate(parts)]


def test_a_small_session_fuses_where_all_members_are_there(trained, tmp_path):
    def fuses(*places: Path, **settings: object) -> bool:
        part = {"name": "mean", "members": [str(place) for place in places]}
        return session.fuses_what_is_there(recipe_from_dict({**FUSE, "ensemble": part, **settings}))

    assert fuses(trained / "one", trained / "two")
    assert not fuses(trained / "one", tmp_path / "nowhere")
    assert not fuses(trained / "one", train={"epochs": 1})
    assert not session.fuses_what_is_there(recipe_from_dict(TINY))


def test_a_missing_member_is_named_in_one_line(monkeypatch, here):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    with pytest.raises(KitError, match=r"runs/one: holds no finished run .*attach the output of the kernel that made"):
        ensemble.members_in("runs/one")
