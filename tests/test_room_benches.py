"""Benches: each command by its options, the quickest ones for real; and how rooms import each other."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from cases import every
from jaguar_kit_tools.benches import calibration, learned, measuring, peers, samples, scale, strangers, trainers
from safetensors.torch import save_file

TOOLS = Path(jaguar_kit.__file__).parent / "tools"
SPEC = importlib.util.spec_from_file_location("bench", TOOLS / "bench.py")
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)


def test_all_commands_are_listed_without_loading_any(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert all(f"{name} {what}" in said for name, what in bench.BENCHES.items())


@every("name", bench.BENCHES)
def test_each_command_tells_its_options(name, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: bench.py {name}" in capsys.readouterr().out


@every(
    ("arguments", "told"),
    [
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["retrieval", "--sizes", "10"], "'10' is not a whole number of at least 40"),
        (["data", "--repeat", "none"], "'none' is not a whole number of at least 1"),
        (["season"], "required: --data"),
        (["strangers", "--shares", "0.5", "2"], "'2' is not a share from 0 to 1"),
        (["strangers", "--shares", "some"], "'some' is not a share from 0 to 1"),
    ],
)
def test_bad_options_end_in_a_line(arguments, told, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("command", "option"), [("gpu", "--parts"), ("scale", "--functions")])
def test_unknown_parts_are_refused(command, option, capsys):
    assert bench.main([command, option, "nothing"]) == 2
    assert f"{option}: 'nothing' is not known" in capsys.readouterr().err


def run_bench(*arguments: object) -> list[str]:
    """The lines of a bench that runs from another folder, as a command does, with the kit of these tests."""
    env = {**os.environ, "PYTHONPATH": str(TOOLS.parent)}
    words = [sys.executable, TOOLS / "bench.py", *map(str, arguments)]
    done = subprocess.run(words, cwd=TOOLS.anchor, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_retrieval_checks_and_times_in_processes_of_their_own(tmp_path):
    lines = run_bench(
        "retrieval", "--sizes", 50, "--functions", "query_expansion", "--repeat", 1, "--json", tmp_path / "rows.json"
    )
    assert re.match(r"query_expansion +50  ours .* s \d+ MB .*loop .* s \d+ MB", lines[-1])
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [one["name"] for one in row["implementations"]] == ["loop", "ours"]
    assert row["difference"] < 1e-5


@pytest.mark.slow
def test_scale_measures_in_processes_of_their_own():
    lines = run_bench("scale", "--quick", "--functions", "encounters_of")
    sizes = ("1,250", "2,500", "5,000", "10,000")
    assert [line.split()[:2] for line in lines[2:-1]] == [["encounters_of", size] for size in sizes]


@pytest.mark.slow
def test_parts_for_a_gpu_run_in_processes_of_their_own():
    lines = run_bench("gpu", "--quick", "--device", "cpu", "--parts", "map")
    assert re.match(r"identity_balanced_map, N = 300 +[\d.,e-]+ ms", lines[-1]), lines


@pytest.mark.slow
def test_a_photograph_takes_less_than_three_keys(browser, tmp_path):
    browser.close()  # the bench opens its own
    path = tmp_path / "test_resnet.safetensors"
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    data = jaguar_kit.make_mini_dataset(tmp_path / "data", identities=8, images=80)
    lines = run_bench("review", "--data", data, "--backbone", path, "--weeks", 1, "--size", 200, "--repeat", 1)
    told = re.search(r"photographs (\d+) .* mean ([\d.]+) +median ([\d.]+) +typed mean ([\d.]+)", lines[-2])
    assert int(told[1]) > 10
    assert 0.5 < float(told[3]) < 3
    assert float(told[2]) < float(told[4])
    assert re.match(r"200 photographs: ready after \d+ ms, [\d.]+ ms a decision", lines[-1])


@pytest.mark.slow
def test_strangers_tell_what_was_told_and_what_is_so(tmp_path):
    path = tmp_path / "test_resnet.safetensors"
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    data = jaguar_kit.make_mini_dataset(tmp_path / "data", identities=12, images=120)
    lines = run_bench("strangers", "--data", data, "--backbone", path, "--draws", 1, "--shares", 0, 0.5)
    weeks = [line for line in lines if line.startswith("strangers ")]
    assert [line.split()[1] for line in weeks] == ["0", "0.5"]
    photographs = [int(re.search(r"photographs (\d+)", line)[1]) for line in weeks]
    names = [line.split("|")[3:5] for line in lines if line.startswith("| names |")]
    told = [[int(cell.split(",")[0]) for cell in column if cell.strip()] for column in zip(*names)]
    assert [sum(column) for column in told] == photographs


def test_what_was_told_stands_beside_what_is_so(capsys):
    names = (np.array([0.02, 0.03, 0.97, 0.99, np.nan]), np.array([False, True, True, True, True]))
    groups = [(np.ones(count), np.ones(count, bool)) for count in range(2)]
    weeks = [{"names": names, "groups": own} for own in groups]
    table = calibration.calibration_table(weeks)
    assert table[["of", "told", "number"]].to_numpy().tolist() == [
        ["names", "0.00 to 0.05", 4], ["names", "0.95 to 1.00", 4], ["groups", "0.95 to 1.00", 1],
    ]  # fmt: skip
    np.testing.assert_allclose(table["mean"], [0.025, 0.98, 1.0])
    np.testing.assert_allclose(table.so, [0.5, 1.0, 1.0])
    calibration.print_calibration(pd.concat([table.assign(strangers=0.0), table.iloc[1:].assign(strangers=1.0)]))
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| names | 0.00 to 0.05 | 4, 0.025, 0.500 |  |",
        "| names | 0.95 to 1.00 | 4, 0.980, 1.000 | 4, 0.980, 1.000 |",
        "| groups | 0.95 to 1.00 | 1, 1.000, 1.000 | 1, 1.000, 1.000 |",
    ]


def test_groups_are_told_of_those_that_the_catalogue_lacks():
    season, truth = strangers.simulated(0.5, animals=20)(0, 0.5)
    told, so = calibration.pairs_of_groups(season, truth)
    assert len(told) == len(so) > 0
    assert so.mean() > 0.9  # of features as clear as these
    lacking = np.isin(truth, season.known.identity)
    assert len(calibration.pairs_of_groups(season, np.where(lacking, truth, season.known.identity.iloc[0]))[0]) == 0


def test_maps_that_are_learned_tell_individuals_apart():
    rng, identity = np.random.default_rng(0), np.repeat(list("abcdefgh"), 12)  # half of the directions are noise
    own = np.repeat(rng.normal(size=(8, 16)), 12, 0) * np.r_[np.ones(8), np.zeros(8)]
    features = torch.from_numpy(own + rng.normal(size=own.shape) * np.r_[np.full(8, 0.5), np.full(8, 3.0)]).float()

    def told_apart(found: torch.Tensor) -> float:
        unit = samples.unit_rows(found.numpy())
        return jaguar_kit.identity_balanced_map(unit @ unit.T, identity)

    plain = told_apart(features)
    for fit in learned.WAYS.values():
        assert told_apart(fit(features, identity)(features)) > plain + 0.1


def test_peers_agree_with_the_kit():
    embeddings, labels = samples.clustered(60)
    unit = samples.unit_rows(embeddings)
    score = jaguar_kit.identity_balanced_map(unit @ unit.T, labels)
    for found in (peers.map_loop(unit @ unit.T, labels), peers.map_ranked_matrix(unit @ unit.T, labels)):
        assert found == pytest.approx(score, abs=1e-6)
    expected = jaguar_kit.k_reciprocal_rerank(embeddings, k1=samples.K1, k2=peers.K2, lambda_value=peers.LAMBDA)
    for rerank in (peers.rerank_loops, peers.rerank_inverted_index):
        np.testing.assert_allclose(rerank(embeddings), expected, atol=1e-5)


def test_exponents_are_the_slopes_of_logarithms():
    sizes = [10, 20, 40]
    assert scale.slope(sizes, [n**1.5 for n in sizes]) == pytest.approx(1.5)
    assert np.isnan(scale.slope(sizes[:1], [1.0]))


def test_a_head_of_a_bench_trains(tmp_path):
    trainer = trainers.head_run(2, 16)
    with jaguar_kit.quiet():
        trainer.fit(measuring.fresh(tmp_path, "run"))
    assert len(trainer.history) == 3


# how rooms import each other


def imports_of(path: Path) -> set[str]:
    """The rooms and parts of them that a module of a room imports, such as "identify.season"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            place = [path.parent.name] if node.level == 1 else []
            place += [node.module] if node.module else []
            found |= {".".join([*place, alias.name]) for alias in node.names} | {".".join(place)}
    return found


def test_no_room_imports_itself_by_a_detour():
    every = {f"{path.parent.name}.{path.stem}": imports_of(path) for path in TOOLS.glob("*/*.py")}
    left = {name: used & set(every) for name, used in every.items()}
    while free := {name for name, used in left.items() if not used & set(left)}:
        left = {name: used for name, used in left.items() if name not in free}
    assert left == {}


LONG = {"ledger.py": 720, "exports.py": 480, "field_tables.py": 450, "decisions.py": 370}  # formats, and what was said


@pytest.mark.parametrize("room", ["benches", "identify"])
def test_a_module_of_these_rooms_can_be_held(room):
    for path in [*(TOOLS / room).glob("*.py"), TOOLS / "bench.py"]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONG.get(path.name, 350), path.name


def test_identify_reads_as_steps():
    tree = ast.parse((TOOLS / "identify" / "identify.py").read_text(encoding="utf-8"))
    (whole,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "identify")
    assert whole.end_lineno - whole.lineno < 60
