"""Work that outgrows a session: parts, engines and shared searches end as one plain run would."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jaguar_kit
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import KitError, RunFolder, expand, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments import engines, parts
from jaguar_kit_tools.on_kaggle import client as kaggle_client
from jaguar_kit_tools.on_kaggle import kernels as kernels_tool
from jaguar_kit_tools.on_kaggle import run as kaggle_run
from jaguar_kit_tools.on_kaggle import sessions as kaggle_sessions
from kaggle_server import KaggleServer, Session, kaggle_client_module, playing_kaggle, session_output
from tiny import ARCFACE, TINY

ROOT = Path(jaguar_kit.__file__).parent
TIMES = ["seconds", "images_per_second", "embedded_per_second"]
FOUR = {**TINY, "seeds": [1, 2], "variants": {"arcface": {"loss": ARCFACE}, "softmax": {"loss": "cross_entropy"}}}


def recipe_of(**changes):
    return recipe_from_dict(jaguar_kit.merge_recipe(FOUR, changes))


def table_of(folder: Path) -> pd.DataFrame:
    """results.csv without what a clock says."""
    return pd.read_csv(folder / "results.csv").drop(columns=TIMES, errors="ignore")


def assert_same(folder: Path, other: Path) -> None:
    pd.testing.assert_frame_equal(table_of(folder), table_of(other), check_exact=True)


@pytest.fixture(scope="module")
def whole(mini, tmp_path_factory) -> Path:
    """The four runs, one after the other."""
    return run_recipe(recipe_of(), mini, tmp_path_factory.mktemp("whole"), device="cpu").folder


# dealing out


def of_epochs(*epochs: int):
    """Runs of a backbone that learns, whose cost is that of their epochs."""
    model = {**TINY["model"], "freeze": False}
    variants = {f"v{number}": {"train": {"epochs": count}} for number, count in enumerate(epochs)}
    return expand(recipe_from_dict({**TINY, "model": model, "variants": variants}))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 3))
def test_every_run_is_in_one_part_and_no_part_is_much_longer_than_it_must_be(epochs, count):
    count = min(count, len(epochs))
    dealt = parts.deal(of_epochs(*epochs), count)
    assert sorted(itertools.chain(*dealt)) == list(range(1, len(epochs) + 1))
    assert all(dealt)
    assert dealt == parts.deal(of_epochs(*epochs), count)
    longest = max(sum(epochs[number - 1] for number in own) for own in dealt)
    every_way = itertools.product(range(count), repeat=len(epochs))
    loads = ([sum(e for e, at in zip(epochs, way) if at == part) for part in range(count)] for way in every_way)
    best = min(max(load) for load in loads if all(load))
    assert longest <= (4 / 3 - 1 / (3 * count)) * best + 1e-9  # Graham (1969), of the longest first


def test_runs_that_share_features_stay_together_where_that_ends_sooner():
    crops = {name: {"background": name} for name in ("original", "black", "gray", "blur")}
    specs = expand(recipe_from_dict({**TINY, "variants": crops, "grid": {"train.lr": [0.1, 0.01]}}))
    for count in (2, 4):
        shown = [{specs[n - 1].recipe.background.name for n in own} for own in parts.deal(specs, count)]
        assert sum(map(len, shown)) == 4, count  # no features are extracted twice
    shown = [{specs[n - 1].recipe.background.name for n in own} for own in parts.deal(specs, 8)]
    assert sum(map(len, shown)) == 8  # nor does a session stay idle


# parts


@pytest.mark.ci
def test_parts_in_folders_of_their_own_are_brought_together(whole, mini, tmp_path, capsys):
    line = [str(written(tmp_path)), "--data", str(mini), "--device", "cpu", "--jobs", "1"]
    for number in (1, 2):
        command = [*line, "--out", str(tmp_path / f"p{number}"), "--part", f"{number}/2"]
        assert jaguar_kit.main(jaguar_kit.run_command, command) == 0
        said = capsys.readouterr().out
        assert f"part {number} of 2: 2 of 4 runs" in said
        assert f"not there yet: {3 - number}/2 (2 runs)" in said
    folders = [tmp_path / f"p{number}" / whole.name for number in (1, 2)]
    assert [len(table_of(folder)) for folder in folders] == [2, 2]
    assert "2 of 4 runs are not there yet" in (folders[0] / "report.md").read_text()
    merge = [*map(str, folders), "--merge", str(tmp_path / "merged")]
    assert jaguar_kit.main(report_command(), merge) == 0
    assert_same(tmp_path / "merged", whole)
    assert jaguar_kit.main(report_command(), merge) == 0  # once more changes nothing
    assert_same(tmp_path / "merged", whole)
    assert "recipe" in json.loads((tmp_path / "merged" / "experiment.json").read_text())
    told = run_recipe(recipe_of(), mini, tmp_path / "p1", device="cpu")  # without a part: what is missing is made
    assert_same(told.folder, whole)


def written(folder: Path, **changes) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(jaguar_kit.merge_recipe(FOUR, changes)))
    return path


def report_command():
    from jaguar_kit_tools.experiments.comparison import report_command

    return report_command


@pytest.mark.ci
def test_a_merge_that_was_killed_ends_as_one_that_was_not(whole, mini, tmp_path, monkeypatch):
    folders = []
    for number in (1, 2):
        result = run_recipe(recipe_of(part=f"{number}/2"), mini, tmp_path / f"p{number}", device="cpu")
        folders.append(result.folder)
    copy, calls = shutil.copytree, itertools.count()

    def killed(*arguments, **named):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return copy(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(parts.shutil, "copytree", killed)
        with pytest.raises(KeyboardInterrupt):
            parts.merge_parts(folders, tmp_path / "merged", "cpu")
    assert not list((tmp_path / "merged").rglob("*.tmp*"))
    parts.merge_parts(folders, tmp_path / "merged", "cpu")
    assert_same(tmp_path / "merged", whole)


@pytest.mark.ci
def test_a_run_that_time_stopped_gives_way_to_one_that_is_over(whole, tmp_path):
    """Though both have metrics: of the stopped one there is a checkpoint to go on from."""
    [spec, *_] = expand(recipe_of())
    early = tmp_path / "early"
    shutil.copytree(whole, early)
    metrics = early / spec.folder / "metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), "stopped": "time", "map": 0.0}))
    (early / spec.folder / "checkpoint.safetensors").write_bytes(b"")
    assert RunFolder(early / spec.folder).finished
    assert not parts.gather_run(spec, [early], tmp_path / "one")
    assert parts.gather_run(spec, [early, whole], tmp_path / "two")
    assert RunFolder(tmp_path / "two" / spec.folder).metrics()["map"] > 0


@pytest.mark.ci
def test_folders_of_other_experiments_are_no_parts(whole, mini, tmp_path):
    other = run_recipe(recipe_of(train={"lr": 0.5}, part="1/2"), mini, tmp_path, device="cpu").folder
    with pytest.raises(KitError, match=r"is no part of the experiment in .*train\.lr"):
        parts.merge_parts([whole, other], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.ci
def test_a_run_that_is_made_elsewhere_is_passed_over(whole, mini, tmp_path, capsys):
    [first, *_] = expand(recipe_of())
    place = tmp_path / whole.name / first.folder
    with jaguar_kit.only_one(place):
        run_recipe(recipe_of(part="1/1"), mini, tmp_path, device="cpu")
    said = capsys.readouterr().out
    assert f"{first.folder}: is being made elsewhere, passed over" in said
    assert "not there yet: 1/1 (1 runs)" in said
    assert len(table_of(tmp_path / whole.name)) == 3
    run_recipe(recipe_of(part="1/1"), mini, tmp_path, device="cpu")
    assert_same(tmp_path / whole.name, whole)


@pytest.mark.ci
def test_an_ensemble_waits_for_all_parts(mini, tmp_path, capsys):
    fused = recipe_of(ensemble="mean", seeds=[1])
    folder = run_recipe(replace(fused, part="1/2"), mini, tmp_path, device="cpu").folder
    assert not (folder / "ensemble").exists()
    assert "by the same command without a part" in capsys.readouterr().out
    run_recipe(replace(fused, part="2/2"), mini, tmp_path, device="cpu")
    assert (folder / "ensemble" / "submission.csv").is_file()


def test_a_part_that_can_not_be_is_one_line(mini, tmp_path, capsys):
    search = {"search": {"trials": 2, "space": {"train.lr": {"low": 0.1, "high": 1.0}}}, "variants": {}, "seeds": []}
    for text, changes, expected in (
        ("3/2", {}, r"'3/2' is no part \(expected k/n"),
        ("0/2", {}, "is no part"),
        ("half", {}, "is no part"),
        ("2/5", {}, "2/5, but there are 4 runs"),
        ("1/2", search, "a search draws its trials one after the other"),
    ):
        line = [str(written(tmp_path, **changes)), "--data", str(mini), "--out", str(tmp_path / "out"), "--part", text]
        assert jaguar_kit.main(jaguar_kit.run_command, line) == 2, text
        assert pd.Series([capsys.readouterr().err]).str.contains(expected).all(), text
        assert not (tmp_path / "out").exists(), text


# engines


@pytest.mark.ci
def test_processes_know_parts_that_were_registered_where_no_file_is(mini, tmp_path):
    """As in a notebook, whose cells no other process can import."""
    space = {"__name__": "__main__", "jaguar_kit": jaguar_kit}
    code = """
from jaguar_kit import nn, register
@register("head", "of_a_cell")
def of_a_cell(in_features: int, output: int = 4):
    head = nn.Linear(in_features, output)
    head.num_features = output
    return head
"""
    exec(code, space)
    try:
        model = {**TINY["model"], "head": {"name": "of_a_cell", "output": 5}}
        recipe = recipe_from_dict({**TINY, "model": model, "loss": ARCFACE, "seeds": [1, 2]})
        result = run_recipe(recipe, mini, tmp_path, device="cpu", jobs=2)
    finally:
        del jaguar_kit.REGISTRY["head", "of_a_cell"]
    assert len(result.table) == 2
    weights = jaguar_kit.load_weights(result.folder / "default" / "seed1")[0]
    assert {len(tensor) for name, tensor in weights.items() if "head" in name} == {5}, list(weights)


def test_an_address_without_its_engine_is_one_line(mini, tmp_path, capsys):
    line = [str(written(tmp_path)), "--data", str(mini), "--out", str(tmp_path / "out"), "--address", "tcp://x:1"]
    assert jaguar_kit.main(jaguar_kit.run_command, line) == 2
    assert "expected --engine dask with it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_dask_is_one_line(mini, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(KitError, match="needs the package distributed"):
        run_recipe(recipe_of(), mini, tmp_path, device="cpu", engine="dask")


@contextmanager
def dask_cluster(folder: Path, workers: int = 2):
    """A scheduler and workers in processes of their own; their address, and the workers."""
    pytest.importorskip("distributed")
    file = folder / "scheduler.json"
    folder.mkdir(parents=True, exist_ok=True)
    dask = [sys.executable, "-m", "distributed.cli"]
    scheduler = ["dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    worker = ["dask_worker", "--nthreads", "1", "--no-dashboard", "--scheduler-file", str(file)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = []

    def start(module: str, *rest: str) -> None:
        command = [*dask[:2], f"distributed.cli.{module}", *rest]
        begun.append(subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.DEVNULL, start_new_session=True))

    try:
        start(*scheduler)
        until(lambda: file.is_file() and file.stat().st_size)
        for number in range(workers):
            start(*worker, "--local-directory", str(folder / f"worker{number}"))
        yield json.loads(file.read_text())["address"], begun[1:]
    finally:
        for process in begun:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(condition, limit: float = 120) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_dask_cluster_makes_the_runs_of_a_plain_loop_though_a_worker_dies(whole, mini, tmp_path, capsys):
    with dask_cluster(tmp_path / "cluster") as (address, workers):

        def kill() -> None:
            until(lambda: list((tmp_path / "out").rglob("log.csv")))
            os.killpg(workers[0].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        result = run_recipe(recipe_of(), mini, tmp_path / "out", device="cpu", engine="dask", address=address)
        killer.join()
    assert "2 workers; data and weights are seen there" in capsys.readouterr().out
    assert_same(result.folder, whole)


@pytest.mark.slow
def test_workers_that_see_nothing_are_sent_data_once_and_send_runs_back(whole, mini, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engines, "all_see", lambda client, path: False)
    with dask_cluster(tmp_path / "cluster") as (address, _):
        result = run_recipe(recipe_of(), mini, tmp_path / "out", device="cpu", engine="dask", address=address)
        assert "results come back with each run" in capsys.readouterr().out
        assert_same(result.folder, whole)
        sent = [path for path in (tmp_path / "cluster").rglob("luggage-*") if path.is_dir()]
        assert 1 <= len(sent) <= 2
        assert all((path / "data" / "train.csv").is_file() for path in sent)
    assert {RunFolder(result.folder / spec.folder).finished for spec in expand(recipe_of())} == {True}


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line(mini, tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(KitError, match="no scheduler of Dask answers there"):
        run_recipe(recipe_of(), mini, tmp_path, device="cpu", engine="dask", address="tcp://127.0.0.1:9")


# searches that several sessions share

SPACE = {"train.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "train.batch_size": {"choices": [16, 32]}}
SEARCH = {**TINY, "loss": ARCFACE, "search": {"trials": 6, "space": SPACE}}


def searched(mini: Path, out: Path, monkeypatch, **search) -> Path:
    monkeypatch.setattr(jaguar_kit.Page, "figure", lambda *_: None)
    recipe = recipe_from_dict(jaguar_kit.merge_recipe(SEARCH, {"search": search}))
    return run_recipe(recipe, mini, out, device="cpu").folder


def trials_in(folder: Path) -> dict[int, dict]:
    """What became of each trial that has ended, by its number."""
    files = folder.glob("trials/space*/trial.json")
    found = {int(path.parent.name[5:]): json.loads(path.read_text()) for path in files}
    return {number: {key: found[number][key] for key in ("settings", "state", "value")} for number in sorted(found)}


@pytest.mark.ci
def test_a_session_alone_draws_from_a_journal_what_it_draws_from_files(mini, tmp_path, monkeypatch):
    alone = searched(mini, tmp_path / "alone", monkeypatch)
    shared = searched(mini, tmp_path / "shared", monkeypatch, storage=str(tmp_path / "trials.journal"))
    assert trials_in(shared) == trials_in(alone)
    assert len(trials_in(alone)) == 6


@pytest.mark.ci
def test_the_trial_of_a_session_that_died_is_taken_up(mini, tmp_path, monkeypatch, capsys):
    journal, out = str(tmp_path / "trials.journal"), tmp_path / "shared"
    folder = searched(mini, out, monkeypatch, storage=journal, trials=2)
    import optuna
    from jaguar_kit_tools.experiments import search

    recipe = recipe_from_dict(jaguar_kit.merge_recipe(SEARCH, {"search": {"storage": journal}}))
    own = search.Trials(recipe, "space", recipe.search.space, folder)
    dead = own.study().ask()
    dead.set_user_attr("folder", own.here)  # and its session is gone: nobody holds its lock
    elsewhere = own.study().ask()
    elsewhere.set_user_attr("folder", "another")  # of which this folder can't tell whether it lives
    capsys.readouterr()
    searched(mini, out, monkeypatch, storage=journal, trials=4)
    assert f"space trial {dead.number}: its session has ended, taken up" in capsys.readouterr().out
    states = Counter(t.state for t in own.study().get_trials())
    assert states[optuna.trial.TrialState.RUNNING] == 1
    assert sum(states.values()) == 5


@pytest.mark.slow
def test_three_sessions_of_which_one_is_killed_make_each_of_thirty_trials_once(mini, tmp_path):
    path, journal = tmp_path / "tiny.yaml", tmp_path / "trials.journal"
    search = {**SEARCH["search"], "trials": 30, "storage": str(journal)}
    path.write_text(yaml.safe_dump({**SEARCH, "train": {"epochs": 4, "batch_size": 16}, "search": search}))
    line = [sys.executable, str(ROOT / "tools" / "run_recipe.py"), str(path), "--data", str(mini), "--device", "cpu"]
    line += ["--out", str(tmp_path / "out"), "--jobs", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    sessions = [subprocess.Popen(line, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    folder = tmp_path / "out" / f"tiny@{mini.name}"
    until(lambda: len(trials_in(folder)) >= 4, 300)
    sessions[0].kill()
    said = [session.communicate(timeout=600)[0] for session in sessions]
    assert [session.returncode for session in sessions] == [-signal.SIGKILL, 0, 0]
    ended = [n for text in said for n in numbers_ended(text)]
    assert sorted(trials_in(folder)) == list(range(30))
    assert Counter(ended).most_common(1)[0][1] == 1


@pytest.mark.slow
def test_sessions_that_share_a_search_make_its_last_runs_once_by_several_processes_each(mini, tmp_path, monkeypatch):
    """Fewer trials than the sampler needs before it looks at the others, so that one session draws the same."""
    alone = searched(mini, tmp_path / "alone", monkeypatch, trials=3)
    path, journal = tmp_path / "tiny.yaml", tmp_path / "trials.journal"
    search = {**SEARCH["search"], "trials": 3, "storage": str(journal)}
    path.write_text(yaml.safe_dump({**SEARCH, "search": search}, sort_keys=False))  # the space has an order
    line = [sys.executable, str(ROOT / "tools" / "run_recipe.py"), str(path), "--data", str(mini), "--device", "cpu"]
    line += ["--out", str(tmp_path / "out"), "--jobs", "2"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    sessions = [subprocess.Popen(line, env=env, **pipes) for _ in range(2)]
    said = [session.communicate(timeout=500)[0] for session in sessions]
    assert [session.returncode for session in sessions] == [0, 0], said
    folder = tmp_path / "out" / alone.name
    assert trials_in(folder) == trials_in(alone)
    assert sorted(n for text in said for n in numbers_ended(text)) == [0, 1, 2]
    assert_same(folder, alone)
    made = [line.split()[0] for text in said for line in text.splitlines() if " of 2)" in line]
    assert sorted(made) == ["baseline/seed42", "best/seed42"], said


def numbers_ended(text: str) -> list[int]:
    """Numbers of the trials that a session told the end of."""
    lines = [line.split() for line in text.splitlines() if line.startswith("  space trial")]
    return [int(words[2].rstrip(":")) for words in lines if "taken" not in words]


# several sessions of one kernel


class Machine(KaggleServer):
    """Gives to each push the session that was prepared for its kernel and version."""

    prepared: dict[tuple[str, int], dict[str, bytes]]

    def SaveKernel(self, body: dict) -> dict:
        version = len(self.kernels.get(body["slug"], [])) + 1
        self.next_session = Session(output=self.prepared[body["slug"].partition("/")[2], version])
        return super().SaveKernel(body)


@pytest.fixture(scope="module")
def left(mini, tmp_path_factory) -> dict[tuple[str, int], dict[str, bytes]]:
    """What the first session of each of two parts leaves."""
    outputs = {}
    for number in (1, 2):
        place = tmp_path_factory.mktemp("part")
        made = run_recipe(recipe_of(part=f"{number}/2"), mini, place, device="cpu").folder
        whole_part = {f"runs/tiny/{p.relative_to(made).as_posix()}": p.read_bytes() for p in files_in(made)}
        outputs[f"jaguar-kit-tiny-{number}-of-2", 1] = session_output(place / "s", **whole_part)
    return outputs


@pytest.fixture
def dealt_out(left, mini, tmp_path, monkeypatch):
    """A machine that has what each session leaves, and the command that deals a kernel out to two."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "tiny.yaml").write_text(yaml.safe_dump(FOUR))
    kernels_tool.write_kernels(tmp_path / "kernels", tmp_path / "recipes", "a-user")
    monkeypatch.setattr(kaggle_run, "rehearse", lambda *_: [])
    monkeypatch.setattr("kaggle_server.KaggleServer", Machine)
    line = [str(tmp_path / "kernels" / "tiny"), "--sessions", "2", "--fetch", str(tmp_path / "fetched")]
    line += ["--data", str(mini), "--every", "0.02", "--stale", "0.3"]
    with playing_kaggle(kaggle_client_module(tmp_path / "client"), tmp_path) as server:
        server.prepared = dict(left)
        yield server, line


needs_client = pytest.mark.skipif(sys.version_info < (3, 11), reason="Kaggle's client needs Python 3.11")


@pytest.mark.ci
@needs_client
@pytest.mark.parametrize("moment", ["before", "on the way", "after"])
def test_an_interrupted_fetch_goes_on_where_it_was(moment, whole, dealt_out, tmp_path, monkeypatch, capsys):
    (server, line), fetch, fetched = dealt_out, kaggle_sessions.fetch_output, []

    def interrupted(kernel, out):
        fetched.append(kernel)
        if len(fetched) == 2 and moment == "before":
            raise KeyboardInterrupt
        fetch(kernel, out)
        if len(fetched) == 2 and moment == "after":
            raise KeyboardInterrupt
        return out

    def half(folder, kernel, check=kaggle_client.check_output):
        if len(fetched) == 2 and moment == "on the way":  # when files have come, which are not yet in their place
            assert any(folder.iterdir())
            raise KeyboardInterrupt
        return check(folder, kernel)

    monkeypatch.setattr(kaggle_sessions, "fetch_output", interrupted)
    monkeypatch.setattr(kaggle_client, "check_output", half)
    assert jaguar_kit.main(kaggle_run.push_command, line) == 130
    assert "the same command waits for them again" in capsys.readouterr().err
    assert jaguar_kit.main(kaggle_run.push_command, line) == 0, capsys.readouterr()
    assert {slug: len(versions) for slug, versions in server.kernels.items()} == {
        "a-user/jaguar-kit-tiny-1-of-2": 1,
        "a-user/jaguar-kit-tiny-2-of-2": 1,
    }  # no session is begun again
    first, second, *again = fetched
    assert first != second
    assert again == ([] if moment == "after" else [second])  # nor is anything fetched twice
    assert_same(tmp_path / "fetched" / "tiny", whole)
    assert not [path for path in (tmp_path / "fetched").rglob("*") if path.name.startswith(".tmp")]


@pytest.mark.ci
@needs_client
def test_two_sessions_of_which_one_ends_by_time_are_gone_on_with_and_merged(whole, dealt_out, tmp_path, capsys):
    server, line = dealt_out
    outputs = server.prepared
    ended = outputs["jaguar-kit-tiny-2-of-2", 1]
    second = parts.deal(expand(recipe_of()), 2)[1][1]
    late = f"runs/tiny/{expand(recipe_of())[second - 1].folder}/"
    files = {name: content for name, content in ended.items() if name.startswith("runs/tiny/")}
    outputs["jaguar-kit-tiny-2-of-2", 2] = session_output(tmp_path / "s", **files)
    early = {name: content for name, content in files.items() if not name.startswith(late)}
    outputs["jaguar-kit-tiny-2-of-2", 1] = session_output(tmp_path / "s", **early)
    code = jaguar_kit.main(kaggle_run.push_command, line)
    told = capsys.readouterr()
    assert code == 0, told.out + told.err
    pushed = server.kernels
    assert {slug: len(versions) for slug, versions in pushed.items()} == {
        "a-user/jaguar-kit-tiny-1-of-2": 1,
        "a-user/jaguar-kit-tiny-2-of-2": 2,
    }
    first, again = pushed["a-user/jaguar-kit-tiny-2-of-2"]
    assert first.get("kernelDataSources", []) == []
    assert again["kernelDataSources"] == ["a-user/jaguar-kit-tiny-2-of-2"]  # what it left is gone on with
    assert 'OVERRIDES = ["part=2/2"]' in first["text"]
    assert "part 2 of 2: 1 of 2 runs are left for another session" in told.out
    assert_same(tmp_path / "fetched" / "tiny", whole)


def files_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]


# several machines at each batch


@pytest.mark.slow
def test_two_nodes_of_torchrun_end_as_two_processes_of_one(mini, tmp_path):
    model = {**TINY["model"], "freeze": False}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "loss": ARCFACE, "model": model, "train": {"epochs": 2, "batch_size": 16}}))
    line = [str(ROOT / "tools" / "run_recipe.py"), str(path), "--data", str(mini), "--device", "cpu"]
    port, env = free_port(), {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    at = ["--master-addr", "127.0.0.1", "--master-port", str(port), "--nproc-per-node", "1", "--nnodes", "2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *at]
    nodes = [
        subprocess.Popen([*torchrun, "--node-rank", str(node), *line, "--out", str(tmp_path / "nodes")], env=env)
        for node in range(2)
    ]
    assert [node.wait(300) for node in nodes] == [0, 0]
    assert (
        subprocess.run([sys.executable, *line, "--out", str(tmp_path / "one"), "--gpus", "2"], env=env).returncode == 0
    )
    assert_same(tmp_path / "nodes" / f"tiny@{mini.name}", tmp_path / "one" / f"tiny@{mini.name}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
