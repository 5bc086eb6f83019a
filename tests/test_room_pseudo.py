"""Pseudo-labels: a gate by measured accuracy, rounds, and what must not decide anything."""

from __future__ import annotations

import shutil

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
from jaguar_kit import PseudoLabels, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments import pseudo as pseudo_room
from jaguar_kit_tools.experiments.ensemble import Evidence
from tiny import ARCFACE, TINY


def recipe_of(**changes):
    told = {**TINY, "name": "labels", "loss": ARCFACE, "seeds": [1, 2], "postprocess": ["posterior"]}
    return recipe_from_dict(jaguar_kit.merge_recipe(told, changes))


def evidence(names, shares, labels=None):
    alike = np.eye(len(names))
    return Evidence(np.array(list(names)), alike, alike, shares=np.array(shares), identities=("x", "y"), labels=labels)


def test_only_what_all_runs_name_alike_and_surely_is_labelled_and_of_each_the_surest():
    one = evidence("abcde", [[0.9, 0.1], [0.95, 0.05], [0.2, 0.8], [0.6, 0.4], [0.4, 0.6]])
    two = evidence("abcde", [[0.9, 0.1], [0.99, 0.01], [0.1, 0.9], [0.6, 0.4], [0.9, 0.1]])
    found = pseudo_room.named_alike([one, two], least=0.8, cap=9)
    assert found.filename.tolist() == ["a", "b", "c"]  # d is not sure, of e the runs differ
    assert found.identity.tolist() == ["x", "x", "y"]
    assert found.probability.tolist() == pytest.approx([0.9, 0.97, 0.85])
    assert pseudo_room.named_alike([one, two], least=0.8, cap=1).filename.tolist() == ["b", "c"]


def test_the_gate_measures_the_rule_where_names_are_known():
    names = [f"{i}" for i in range(20)]
    shares = np.where(np.arange(20)[:, None] % 2 == np.arange(2), 0.95, 0.05)
    labels = np.array(["x", "y"] * 10)
    labels[:4] = ["y", "x", "y", "x"]  # four of them are wrong
    rule = pseudo_room.measured([[evidence(names, shares, labels)]], PseudoLabels(cap=20))
    assert (rule.named, rule.right) == (20, 16)
    assert rule.opens(0.8)
    assert not rule.opens(0.81)
    few = pseudo_room.measured([[evidence(names[:9], shares[:9], labels[:9])]], PseudoLabels(cap=20))
    assert not few.opens(0.0)


@pytest.fixture(scope="module")
def strong(tmp_path_factory):
    """Images that any network tells apart, for each identity has a colour; of the test one in six has another's."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("strong") / "colours"
    colours = rng.integers(0, 255, (6, 3))
    rows, truth = [], []
    for part, count in (("train", 15), ("test", 6)):
        (root / part).mkdir(parents=True)
        for identity in range(6):
            for number in range(count):
                name = f"{part}_{identity}_{number}.png"
                shown = (identity + 1) % 6 if part == "test" and number == 0 else identity
                pixels = colours[shown] + rng.integers(-12, 12, (32, 32, 3))
                image = jaguar_kit.Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(root / part / name)
                (rows if part == "train" else truth).append((name, f"animal{identity}"))
    pd.DataFrame(rows, columns=["filename", "ground_truth"]).to_csv(root / "train.csv", index=False)
    pd.DataFrame(truth, columns=["filename", "ground_truth"]).to_csv(root / "solution.csv", index=False)
    pairs = [(a, b) for a, _ in truth for b, _ in truth if a != b]
    table = pd.DataFrame(pairs, columns=["query_image", "gallery_image"])
    table.insert(0, "row_id", range(len(table)))
    table.to_csv(root / "test.csv", index=False)
    return root


HEAD = {"name": "mlp", "layers": 1, "output": 16}
STRONG = {
    "train": {"epochs": 12, "lr": 0.02, "select": "last", "patience": 0},
    "data": {"unmasked": "keep"},
    "model": {"head": HEAD},
    "loss": "cross_entropy",
}
ROUNDS = {"rounds": 2, "epochs": 2, "least": 0.3, "accuracy": 0.8}


@pytest.fixture(scope="module")
def labelled(strong, tmp_path_factory):
    return run_recipe(recipe_of(**STRONG, pseudo=ROUNDS), strong, tmp_path_factory.mktemp("open"), device="cpu")


@pytest.mark.ci
def test_a_strong_model_labels_in_rounds_and_the_report_counts_the_wrong_ones(labelled, strong):
    rows = jaguar_kit.read_json(labelled.folder / "pseudo" / "rounds.json")
    assert [row["round"] for row in rows] == [1, 2]
    first = pd.read_csv(labelled.folder / "pseudo" / "round1.csv", dtype=str)
    truth = pd.read_csv(strong / "solution.csv").set_index("filename").ground_truth
    right = int((truth[first.filename].to_numpy() == first.identity.to_numpy()).sum())
    assert len(first) >= 24
    assert (rows[0]["named"], rows[0]["right_by_solution"]) == (len(first), right)
    assert len(first) - right == int(first.filename.str.endswith("_0.png").sum())  # those that the dataset put in
    assert rows[0]["right"] >= 0.8 * rows[0]["measured"] >= 8
    assert list(dict.fromkeys(labelled.table.variant)) == ["default", "default+pseudo1", "default+pseudo2"]
    told = jaguar_kit.RunFolder(labelled.folder / "default+pseudo1" / "seed1").metrics()
    assert told["trained_images"] == labelled.table.trained_images[0] + len(first)
    assert "right by the solution, which chose nothing" in labelled.report.read_text(encoding="utf-8")


@pytest.mark.ci
def test_a_poisoned_solution_changes_nothing(labelled, strong, tmp_path):
    poisoned = tmp_path / strong.name
    shutil.copytree(strong, poisoned)
    table = pd.read_csv(poisoned / "solution.csv")
    table["ground_truth"] = table.ground_truth.to_numpy()[::-1]
    table.to_csv(poisoned / "solution.csv", index=False)
    again = run_recipe(recipe_of(**STRONG, pseudo=ROUNDS), poisoned, tmp_path / "out", device="cpu")
    for number in (1, 2):
        name = f"pseudo/round{number}.csv"
        assert (again.folder / name).read_bytes() == (labelled.folder / name).read_bytes()
    assert again.table["map"].tolist() == labelled.table["map"].tolist()


@pytest.mark.ci
def test_a_kill_in_the_second_round_changes_nothing(labelled, strong, tmp_path, monkeypatch):
    begun = []

    def killed(spec, *arguments):
        begun.append(spec.folder)
        if spec.folder == "default+pseudo2/seed2":
            raise KeyboardInterrupt
        return execute(spec, *arguments)

    execute = jaguar_kit.execute_run
    monkeypatch.setattr(jaguar_kit, "execute_run", killed)
    recipe = recipe_of(**STRONG, pseudo=ROUNDS)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, strong, tmp_path, device="cpu")
    monkeypatch.undo()
    again = run_recipe(recipe, strong, tmp_path, device="cpu")
    assert len(begun) == 6
    pd.testing.assert_frame_equal(again.table[["variant", "seed", "map"]], labelled.table[["variant", "seed", "map"]])


@pytest.mark.ci
def test_a_weak_model_leaves_the_gate_shut_and_says_the_figure(mini, tmp_path, capsys):
    recipe = recipe_of(pseudo={"least": 0.0, "cap": 100})
    result = run_recipe(recipe, mini, tmp_path, device="cpu")
    assert "the gate stays shut" in capsys.readouterr().out
    [row] = jaguar_kit.read_json(result.folder / "pseudo" / "rounds.json")
    assert "expected 80%" in row["why"] or "images tell it" in row["why"]
    assert set(result.table.variant) == {"default"}
    assert not list(result.folder.glob("pseudo/round*.csv"))


@pytest.mark.ci
def test_without_validation_images_the_gate_asks_runs_that_have_some(labelled, strong, tmp_path):
    everything = {**STRONG, "data": {"split": "all", "unmasked": "keep"}}
    alone = run_recipe(recipe_of(**everything, pseudo=ROUNDS), strong, tmp_path / "a", device="cpu")
    [row] = jaguar_kit.read_json(alone.folder / "pseudo" / "rounds.json")
    assert row["why"] == "0 images tell it, expected 10"
    told = {**ROUNDS, "rounds": 1, "measured_on": str(labelled.folder / "default")}
    beside = run_recipe(recipe_of(**everything, pseudo=told), strong, tmp_path / "b", device="cpu")
    [row] = jaguar_kit.read_json(beside.folder / "pseudo" / "rounds.json")
    assert "why" not in row
    assert "default+pseudo1" in set(beside.table.variant)
