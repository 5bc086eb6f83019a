"""Searches: drawn alike whether they were killed or not, alone in their folder, and silent about passwords."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jaguar_kit
import optuna
import pandas as pd
import pytest
import tiny
import yaml
from jaguar_kit import KitError, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments import search as search_room
from jaguar_kit_tools.on_kaggle import kernels

ROOT = Path(jaguar_kit.__file__).parent
TINY = {
    **tiny.TINY,
    "loss": tiny.ARCFACE,
    "train": {"epochs": 5, "batch_size": 16, "checkpoint_minutes": 0.0001},
    "search": {
        "trials": 8,
        "space": {
            "train.lr": {"low": 1e-4, "high": 1e-1, "log": True},
            "loss.margin": {"low": 0.0, "high": 0.5},
            "model.head.output": {"low": 4, "high": 16},
            "train.batch_size": {"choices": [16, 32]},
        },
    },
}


def recipe_of(**changes):
    return recipe_from_dict(jaguar_kit.merge_recipe(TINY, changes))


def search(folder: Path, mini: Path, force: bool = False, **changes) -> Path:
    """Runs the search, or goes on with it; the figures of its report stay undrawn. Returns the experiment's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaguar_kit.Page, "figure", lambda *_: None)
        return run_recipe(recipe_of(**changes), data=mini, out=folder, force=force).folder


def trials_of(folder: Path) -> list[dict]:
    files = sorted(folder.glob("trials/space*/trial.json"), key=lambda path: int(path.parent.name[5:]))
    return [json.loads(path.read_text()) for path in files]


@pytest.fixture(scope="module")
def whole(mini, tmp_path_factory):
    """The trials of a search that nothing disturbed."""
    return trials_of(search(tmp_path_factory.mktemp("whole"), mini))


FEW = {"search": {"trials": 2}, "train": {"epochs": 2}}


@pytest.fixture(scope="module")
def finished(mini, tmp_path_factory):
    """The folder for results of a small search that has ended."""
    out = tmp_path_factory.mktemp("few")
    search(out, mini, **FEW)
    return out


@pytest.fixture
def few(finished, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "few"))


@pytest.mark.ci
def test_a_search_tells_of_every_trial_what_became_of_it(whole):
    assert len(whole) == 8
    assert {told["state"] for told in whole} == {"COMPLETE", "PRUNED"}
    assert len({told["settings"]["train.lr"] for told in whole}) == 8
    assert all(isinstance(told["settings"]["model.head.output"], int) for told in whole)


@pytest.mark.ci
def test_another_seed_draws_others(whole, mini, tmp_path):
    (other,) = trials_of(search(tmp_path, mini, search={"seed": 1, "trials": 1}))
    assert other["settings"] != whole[0]["settings"]


@pytest.mark.ci
def test_a_search_that_goes_on_later_draws_what_it_would_have_drawn(whole, mini, tmp_path):
    for trials in (1, 5, 8):
        assert trials_of(search(tmp_path, mini, search={"trials": trials})) == whole[:trials]


@pytest.mark.ci
def test_a_search_that_was_interrupted_draws_what_it_would_have_drawn(whole, mini, tmp_path, monkeypatch):
    plain, calls = jaguar_kit.Checkpointer.save_or_stop, []

    def interrupted(self, *due, **late):
        calls.append(None)
        if len(calls) in (3, 11, 25):
            raise KeyboardInterrupt
        return plain(self, *due, **late)

    monkeypatch.setattr(jaguar_kit.Checkpointer, "save_or_stop", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path, mini)
    assert trials_of(search(tmp_path, mini)) == whole


@pytest.mark.ci
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_trial_that_ended_but_was_not_told_of_is_not_run_again(moment, whole, mini, tmp_path, monkeypatch):
    """Killed between a trial's results and the file that tells of it, before or after that took its place."""
    write, run, ran = jaguar_kit.write_json, jaguar_kit.execute_run, []

    def killed(path, value):
        if Path(path).name == "trial.json" and Path(path).parent.name == "space2":
            if moment == "after":
                write(path, value)
            raise KeyboardInterrupt
        write(path, value)

    three = {"search": {"trials": 3}}
    with monkeypatch.context() as patch:
        patch.setattr(search_room, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path, mini, **three)

    def counted(cell, images, place, *more):
        ran.append(place.name)
        return run(cell, images, place, *more)

    monkeypatch.setattr(search_room, "execute_run", counted)
    assert whole[2]["state"] == "COMPLETE"
    assert trials_of(search(tmp_path, mini, **three)) == whole[:3]
    assert not {"space0", "space1", "space2"} & set(ran)


@pytest.mark.ci
def test_the_space_is_drawn_at_random_beside_with_the_same_budget(mini, tmp_path):
    """As Optuna's own random sampler draws, whatever came out of earlier trials; told beside the search's best."""
    folder = search(tmp_path, mini, **jaguar_kit.merge_settings(FEW, {"search": {"random": True}}))
    drawn = [jaguar_kit.read_json(path / "trial.json") for path in sorted(folder.glob("trials/random*"))]
    assert len(drawn) == len(trials_of(folder)) == FEW["search"]["trials"]
    recipe = recipe_of(**jaguar_kit.merge_settings(FEW, {"search": {"random": True}}))
    trials = search_room.Trials(recipe, "random", search_room.free_space(recipe, "random"), folder)
    seed = int(jaguar_kit.fingerprint(recipe.search.seed, "random", 0), 16) % 2**32
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    assert drawn[0]["settings"] == study.ask(trials.distributions).params
    assert set(pd.read_csv(folder / "results.csv").variant) >= {"baseline", "best", "random"}


def test_a_second_search_on_a_folder_is_refused(few, mini):
    with (
        jaguar_kit.only_one(few / f"tiny@{mini.name}" / "trials"),
        pytest.raises(KitError, match="trials: another process is at work on it"),
    ):
        search(few, mini, **FEW)


@pytest.mark.ci
def test_a_search_with_other_settings_is_refused_and_force_sets_it_aside(few, mini):
    other = {**FEW, "search": {"trials": 2, "space": {"train.lr": {"low": 1e-3, "high": 1e-2}}}}
    with pytest.raises(
        KitError, match="holds a search with other settings; choose another --out, or set the search aside"
    ):
        search(few, mini, **other)
    folder = search(few, mini, **other, force=True)
    assert (folder / "trials.old1" / "space1" / "trial.json").is_file()


@pytest.mark.ci
def test_a_search_of_an_earlier_version_is_told(few, mini):
    folder = few / f"tiny@{mini.name}"
    (folder / "search-space.log").write_text("{}")
    with pytest.raises(KitError, match="holds a search of an earlier version; set the search aside with --force"):
        search(few, mini, **FEW)
    assert search(few, mini, **FEW, force=True) == folder


def spoilt(content: bytes) -> dict[str, bytes]:
    told = json.loads(content)
    values = {how: json.dumps({**told, how: "nonsense"}).encode() for how in ("state", "settings", "epochs")}
    values["space"] = json.dumps({**told, "settings": {}}).encode()
    return {"truncated": content[:-20], "empty": b"", "garbled": b"\x80\x81", "another": b"[]", **values}


@pytest.mark.ci
def test_a_damaged_trial_is_one_line_and_force_gets_past_it(few, mini):
    path = few / f"tiny@{mini.name}" / "trials" / "space0" / "trial.json"
    for how, content in spoilt(path.read_bytes()).items():
        path.write_bytes(content)
        with pytest.raises(KitError, match=r"space0/trial\.json: is damaged: .*--force") as error:
            search(few, mini, **FEW)
        assert "\n" not in str(error.value), how
    search(few, mini, **FEW, force=True)


# a storage that several machines share


SECRET = "hunter2"


URLS = [
    f"mysql+nothing://me:{SECRET}@localhost/x",
    f"nonsense://me:{SECRET}@host",
    "no url at all",
    "sqlite:////nowhere/at/all.db",
    "",
    f"postgresql://me:{SECRET}@127.0.0.1:1/x",
    f"postgresql://127.0.0.1:1/x?user=me&password={SECRET}",
    f"host=127.0.0.1 password={SECRET}",
    f"oracle://me/{SECRET}@127.0.0.1:1",
    "sqlite:///:memory:",
]


def test_a_bad_storage_is_one_line_without_its_password(mini, tmp_path, capsys):
    path = tmp_path / "search.yaml"
    for url in URLS:
        path.write_text(yaml.safe_dump({**TINY, "search": {**TINY["search"], "storage": url}}))
        arguments = [str(path), "--data", str(mini), "--out", str(tmp_path / "runs")]
        code, told = jaguar_kit.main(jaguar_kit.run_command, arguments), capsys.readouterr()
        assert code == 2, url
        assert re.match(r"error: .*search\.storage: ", told.err), url
        assert told.err.count("\n") == 1, url
        assert SECRET not in told.err + told.out, url
        assert not (tmp_path / "runs").exists(), url


@pytest.mark.ci
def test_a_password_is_written_nowhere(mini, tmp_path, monkeypatch):
    """Not in settings, reports, weights or errors; the search itself runs in a database of this machine."""
    import optuna

    create, url = optuna.create_study, f"mysql://me:{SECRET}@host/x"

    def local(storage=None, **settings):
        if storage is None:
            return create(**settings)
        assert storage == url
        return create(storage=f"sqlite:///{tmp_path}/study.db", **settings)

    monkeypatch.setattr(optuna, "create_study", local)
    recipe = recipe_of(search={"trials": 2}, train={"epochs": 2})
    recipe = jaguar_kit.override(recipe, f"search.storage={url}", "-o")
    result = run_recipe(recipe, data=mini, out=tmp_path / "runs")
    written = [path for path in result.folder.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
    assert "mysql://***@host/x" in (result.folder / "report.html").read_text()
    assert "Search: space" in (result.folder / "report.md").read_text()
    assert len(trials_of(result.folder)) == 2


def test_a_recipe_with_a_password_does_not_travel(tmp_path):
    recipe = recipe_of(search={"storage": f"mysql://me:{SECRET}@host/x"})
    for refused in (lambda: kernels.kernel_script(recipe), lambda: kernels.check_no_password(recipe, "x.yaml")):
        with pytest.raises(KitError, match="tells a password, which must not travel") as error:
            refused()
        assert SECRET not in str(error.value)


# kills

KILLED = """
import os, random, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
import jaguar_kit
seconds, storage = float(sys.argv[2]), sys.argv[3] == "storage"
begin = jaguar_kit.search_space
def search_space(*arguments):
    threading.Thread(target=lambda: (time.sleep(seconds), os.kill(os.getpid(), signal.SIGKILL)), daemon=True).start()
    return begin(*arguments)
def dying(path, value, write=jaguar_kit.write_text):
    if os.path.basename(path) == "trial.json":
        with jaguar_kit.atomic(path) as temporary:
            temporary.write_text(value[: len(value) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
    write(path, value)
if storage:
    jaguar_kit.write_text = dying
elif seconds:
    jaguar_kit.search_space = search_space
jaguar_kit.write_report = lambda folder, *_, **__: folder / "report.html"
sys.exit(jaguar_kit.main(jaguar_kit.run_command, sys.argv[4:]))
"""


@pytest.mark.slow
def test_thirty_kills_change_no_trial(mini, tmp_path):
    """A search that is killed thirty times, once in the middle of writing a trial down, ends as one that was not."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        yaml.safe_dump(jaguar_kit.merge_recipe(TINY, {"train": {"epochs": 40}, "search": {"trials": 16}}))
    )
    script = tmp_path / "killed.py"
    script.write_text(textwrap.dedent(KILLED))

    def run(out: str, seconds: float = 0.0, where: str = ""):
        arguments = [str(recipe), "--data", str(mini), "--out", str(tmp_path / out), "--jobs", "1"]
        command = [sys.executable, str(script), str(ROOT), str(seconds), where, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ})

    begun = time.monotonic()
    assert run("whole").returncode == 0
    whole, rng, killed = trials_of(tmp_path / "whole" / f"tiny@{mini.name}"), random.Random(0), 0
    took = time.monotonic() - begun
    while killed < 29:
        done = run("cut", rng.uniform(0.02, max(0.15, took / 25)))
        if done.returncode == 0:  # it came to its end between two kills: begin with a new one
            assert trials_of(tmp_path / "cut" / f"tiny@{mini.name}") == whole
            (tmp_path / "cut").rename(tmp_path / f"cut{killed}")
            continue
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
    assert run("cut", where="storage").returncode == -signal.SIGKILL
    last = run("cut")
    assert last.returncode == 0, last.stderr
    assert trials_of(tmp_path / "cut" / f"tiny@{mini.name}") == whole
    assert not list((tmp_path / "cut").rglob("*.tmp*"))


def test_a_password_in_a_value_of_another_kind_is_not_told():
    url = f"postgresql://me:{SECRET}@h/x"
    for storage in ([url], {"url": url}):
        with pytest.raises(KitError, match="is not text") as error:
            recipe_of(search={"storage": storage})
        assert SECRET not in str(error.value)


@pytest.mark.ci
def test_a_search_whose_own_settings_are_overridden_goes_on(few, mini, monkeypatch):
    monkeypatch.setattr(jaguar_kit.Page, "figure", lambda *_: None)
    recipe = jaguar_kit.override(recipe_of(**FEW), "search.trials=3", "-o")
    folder = run_recipe(recipe, data=mini, out=few).folder
    assert len(trials_of(folder)) == 3
    assert jaguar_kit.load_recipe(folder / "best.yaml").search is None


@pytest.mark.ci
def test_a_choice_that_can_not_run_is_a_trial_that_failed(mini, tmp_path):
    space = {"model.backbone": {"choices": ["test_resnet", "nothing_of_that_name"]}}
    told = trials_of(search(tmp_path, mini, search={"trials": 5, "space": space}, train={"epochs": 1}))
    assert {(one["settings"]["model.backbone"], one["state"]) for one in told} == {
        ("test_resnet", "COMPLETE"),
        ("nothing_of_that_name", "FAIL"),
    }
