"""What goes over the wire: the real Kaggle client, led to a server of our own that records, and fails when told to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import jaguar_kit
import pytest
import torch
from jaguar_kit import KitError
from jaguar_kit_tools.experiments import leaderboard, session
from jaguar_kit_tools.on_kaggle import client as kaggle_client
from jaguar_kit_tools.on_kaggle import kernels as kernels_tool
from jaguar_kit_tools.on_kaggle import mounts, rehearsal, scores
from jaguar_kit_tools.on_kaggle import package as package_tool
from jaguar_kit_tools.on_kaggle import run as kaggle_run
from jaguar_kit_tools.on_kaggle.client import KaggleError, Patience
from kaggle_server import (
    HTML,
    Dataset,
    KaggleServer,
    Session,
    hurried,
    kaggle_client_module,
    playing_kaggle,
    session_output,
    unpacked,
)
from safetensors.torch import save_file

if sys.version_info < (3, 11):
    pytest.skip("Kaggle's client needs Python 3.11", allow_module_level=True)

ROOT = Path(jaguar_kit.__file__).parent
KERNELS = sorted(path.parent.name for path in (ROOT / "kernels").glob("*/kernel-metadata.json"))
FINAL, KIT, COMPETITION = "a-user/jaguar-kit-final", "a-user/jaguar-kit", "jaguar-re-id"
WEIGHTS = "a-user/jaguar-kit-weights"
QUICK = ("--every", "0.02", "--stale", "0.3")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return kaggle_client_module(tmp_path_factory.mktemp("home"))


@pytest.fixture
def server(client: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    monkeypatch.setattr(kaggle_run, "rehearse", lambda *_: [])  # rehearsals have tests of their own
    with playing_kaggle(client, tmp_path) as server:
        monkeypatch.chdir(tmp_path / "home")  # where scores are kept
        yield server


@pytest.fixture(scope="module")
def all_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kernels = tmp_path_factory.mktemp("all") / "kernels"
    shutil.copytree(ROOT / "kernels", kernels)
    kernels_tool.write_kernels(kernels, ROOT / "recipes", user="a-user")
    return kernels


@pytest.fixture
def kernel(all_kernels: Path, tmp_path: Path) -> Path:
    """The folder kernels/final of a-user."""
    return Path(shutil.copytree(all_kernels / "final", tmp_path / "kernels" / "final"))


@pytest.fixture
def output(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    """output(): what a session of now leaves, as `session_output` tells."""
    return partial(session_output, tmp_path / "session")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "some_backbone.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    return path


@pytest.fixture
def package(weights: Path, tmp_path: Path) -> Path:
    """A small package: weights alone, as its content does not matter here."""
    return package_tool.package_kit(
        tmp_path / "dist", "a-user", [weights], slug="jaguar-kit-weights", weights_only=True
    )


class Ended(NamedTuple):
    code: int
    said: str
    error: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture) -> Callable[..., Ended]:
    def run(command: Callable, *argv: str | Path) -> Ended:
        capsys.readouterr()
        try:
            code = jaguar_kit.main(command, [str(word) for word in argv])
        except (AttributeError, LookupError, OSError, ValueError) as error:
            pytest.fail(f"ended in {type(error).__name__}: {error}")
        return Ended(code, *capsys.readouterr())

    return run


def run_python(server: KaggleServer, tmp_path: Path, *argv: str | Path) -> subprocess.CompletedProcess:
    """In a process of its own, in the folder tmp_path."""
    own = server.environment(tmp_path / "home", tmp_path / "scratch")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KAGGLE_")}
    env = {**kept, **own, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])}
    return subprocess.run([sys.executable, *argv], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)


def uploaded(server: KaggleServer, files: list[dict]) -> dict[str, bytes]:
    came = (server.blobs[file["token"]] for file in files)
    return {inner: content for name, blob in came for inner, content in unpacked(name, blob)}


def content_of(package: Path) -> dict[str, bytes]:
    files = [path for path in package.rglob("*") if path.is_file() and path.name != "dataset-metadata.json"]
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in files}


def change(folder: Path, **settings: object) -> None:
    """Changes settings in a folder's kernel-metadata.json; None takes one out."""
    path = folder / "kernel-metadata.json"
    told = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))


def assert_one_line(ended: Ended, *words: str, code: int = 1) -> None:
    assert ended.code == code, ended
    assert ended.error.startswith("error: ")
    assert ended.error.count("\n") == 1
    for word in words:
        assert word in ended.error


def assert_nothing_left(tmp_path: Path, *gone: str) -> None:
    assert [path.name for path in tmp_path.rglob("*.tmp*")] == []
    assert list((tmp_path / "scratch").iterdir()) == []
    assert [name for name in gone if (tmp_path / name).exists()] == []


# push


def as_sent(folder: Path) -> str:
    """A folder's code file as it should arrive."""
    path = folder / json.loads((folder / "kernel-metadata.json").read_text())["code_file"]
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        if cell["cell_type"] == "code":
            cell["outputs"] = []
    return json.dumps(notebook)


def check_pushed(sent: dict, folder: Path) -> None:
    told = json.loads((folder / "kernel-metadata.json").read_text())
    unsent = {"kernelDataSources": [], "modelDataSources": [], "categoryIds": []}  # the client leaves out empty lists
    assert {**unsent, **sent} == {
        "slug": told["id"],
        "newTitle": told["title"],
        "text": as_sent(folder),
        "language": "python",
        "kernelType": "notebook" if told["code_file"].endswith(".ipynb") else "script",
        "isPrivate": True,
        "enableGpu": True,
        "enableTpu": False,
        "enableInternet": False,
        "machineShape": "NvidiaTeslaT4",
        "datasetDataSources": told["dataset_sources"],
        "competitionDataSources": told["competition_sources"],
        "kernelDataSources": told["kernel_sources"],
        "modelDataSources": told["model_sources"],
        "categoryIds": [],
        "dockerImagePinningType": "latest",
    }
    assert sent["slug"] == "a-user/" + sent["newTitle"]
    assert sent["datasetDataSources"] == [KIT]
    recipe = ROOT / "recipes" / f"{folder.name}.yaml"
    competition = jaguar_kit.load_recipe(recipe).data.competition if recipe.is_file() else COMPETITION
    assert sent["competitionDataSources"] == [competition]
    assert all(source.startswith("a-user/jaguar-kit-") for source in sent.get("kernelDataSources", []))


def test_every_kernel_arrives_as_its_folder_says(all_kernels, server, capsys):
    for name in KERNELS:
        slug = "a-user/jaguar-kit-" + name.replace("_", "-")
        assert kaggle_client.push_kernel(all_kernels / name) == (slug, 1)
        assert f"pushed {slug} version 1: https://www.kaggle.com/code/{slug}" in capsys.readouterr().out
        check_pushed(server.calls("SaveKernel")[-1], all_kernels / name)
    first = server.calls("SaveKernel")[0]
    assert kaggle_client.push_kernel(all_kernels / KERNELS[0])[1] == 2
    assert server.calls("SaveKernel")[-1] == first


def test_kaggles_own_command_pushes_the_same(kernel, server, tmp_path):
    done = run_python(server, tmp_path, "-m", "kaggle", "kernels", "push", "-p", kernel)
    assert done.returncode == 0, done.stderr
    assert "Kernel version 1 successfully pushed" in done.stdout
    check_pushed(*server.calls("SaveKernel"), kernel)


SOURCES = {"Dataset": KIT, "Competition": COMPETITION, "Kernel": "a-user/jaguar-kit-nas", "Model": "a/b/c/d/1"}


def test_a_push_without_one_of_its_sources_is_no_success(kernel, server, run):
    for kind, name in SOURCES.items():
        server.push_reply = {f"invalid{kind}Sources": [name]}
        ended = run(kaggle_run.push_command, kernel, "--wait", *QUICK)
        assert_one_line(ended, f"{kind.lower()}_sources: {name}", "are the names right", "push again")
    assert server.calls("GetKernelSessionStatus") == []


def test_a_push_that_kaggle_answers_oddly_is_no_success(kernel, server, run):
    for reply, words in (
        ({"error": "Maximum batch GPU session count of 2 reached."}, "session count of 2 reached"),
        ({"versionNumber": 0}, "no version came of it"),
        ({"url": "https://www.kaggle.com/code/a-user/jaguar-kit-final-2"}, "became another kernel"),
        ({"url": "https://www.kaggle.com/code/b-user/jaguar-kit-final"}, "became another kernel"),
        ({"invalidTags": ["cats"]}, "tags: cats"),
    ):
        server.push_reply = reply
        assert_one_line(run(kaggle_run.push_command, kernel), words)


STATUSES = [
    (401, "401 SaveKernel was told to fail: the credentials are not valid; make a new token at"),
    (403, "403 SaveKernel was told to fail: not allowed; is it yours, is its name right"),
    (404, "404 SaveKernel was told to fail: there is no such thing; is its name right?"),
    (429, "429 SaveKernel was told to fail: too many requests; try again in some minutes"),
    (500, "500 SaveKernel was told to fail: Kaggle itself has a fault; try again later"),
    ("cut", "no connection"),
    ("half", "no connection"),
    ("html", "Expecting value"),
]


def test_a_push_that_fails_says_why_and_what_to_do(kernel, server, run):
    for how, words in STATUSES:
        server.failures.clear()
        server.fail("SaveKernel", how)
        ended = run(kaggle_run.push_command, kernel, "--wait", *QUICK)
        assert_one_line(ended, f"Kaggle: pushing {kernel}: ", words)
    assert server.calls("GetKernelSessionStatus") == []


# a session


def start(server: KaggleServer, kernel: str = FINAL, session: Session | None = None) -> None:
    """A session that was pushed just now."""
    server.sessions[kernel] = session or Session()


def test_a_kernel_is_pushed_awaited_fetched_and_submitted(kernel, server, run, output, tmp_path):
    server.next_session = Session(output=output(), log="all went well")
    out = tmp_path / "fetched" / "out"
    ended = run(kaggle_run.push_command, kernel, "--fetch", out, "--submit", "-m", "first try", *QUICK)
    assert (ended.code, ended.error) == (0, "")
    check_pushed(*server.calls("SaveKernel"), kernel)
    for words in ("queued after 0 min", "running after", "complete after", f"wrote {out / 'submission.csv'}"):
        assert words in ended.said
    assert "    all went well\n" in ended.said  # the log
    left = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert left == {**server.next_session.output, "jaguar-kit-final.log": b"all went well"}
    [token] = [body["blobFileTokens"] for body in server.submissions]
    assert server.submissions == [
        {"competitionName": COMPETITION, "blobFileTokens": token, "submissionDescription": "first try"}
    ]
    assert server.blobs[token] == ("submission.csv", left["submission.csv"])
    assert f"submitted {out / 'submission.csv'} to jaguar-re-id: Successfully" in ended.said
    assert_nothing_left(tmp_path)


def test_the_same_goes_for_a_code_competition(kernel, server, run, output, tmp_path):
    server.next_session = Session(output=output())
    server.kernels[FINAL] = [{}, {}]
    asked = ("--fetch", tmp_path / "out", "--submit", "--code-competition", "-m", "try 2")
    ended = run(kaggle_run.push_command, kernel, *asked, *QUICK)
    assert (ended.code, ended.error) == (0, "")
    kaggle_client.check_output(tmp_path / "out", FINAL)
    assert server.submissions == [
        {
            "competitionName": COMPETITION,
            "kernelOwner": "a-user",
            "kernelSlug": "jaguar-kit-final",
            "kernelVersion": 3,
            "fileName": "submission.csv",
            "submissionDescription": "try 2",
        }
    ]
    assert_nothing_left(tmp_path)


def test_what_a_session_left_is_fetched_and_submitted_without_a_new_one(kernel, server, run, output, tmp_path):
    start(server, session=Session(output=output()))
    asked = ("--no-push", "--fetch", tmp_path / "out", "--submit", "-m", "again")
    ended = run(kaggle_run.push_command, kernel, *asked, *QUICK)
    assert (ended.code, ended.error) == (0, "")
    assert not server.calls("SaveKernel")
    assert [body["submissionDescription"] for body in server.submissions] == ["again"]


def test_an_interrupt_while_waiting_says_how_to_go_on(kernel, server, run, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kaggle_run, "await_kernel", interrupted)
    ended = run(kaggle_run.push_command, kernel, "--wait", *QUICK)
    assert ended.code == 130
    assert "--no-push" in ended.error


def test_output_for_another_competition_is_not_submitted(kernel, server, run, output, tmp_path):
    left = output()
    record = {**json.loads(left["run.json"]), "competition": "another-one"}
    server.next_session = Session(output={**left, "run.json": json.dumps(record).encode()})
    ended = run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", "--submit", "-m", "x", *QUICK)
    assert_one_line(ended, "is for another-one, not for jaguar-re-id")
    assert not server.submissions


def test_runs_that_failed_in_the_session_are_told_and_their_output_is_kept(kernel, server, run, output, tmp_path):
    left = output()
    record = {**json.loads(left["run.json"]), "failed": {"bad/seed1": "the loss is no number"}}
    server.next_session = Session(output={**left, "run.json": json.dumps(record).encode()})
    ended = run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", *QUICK)
    assert ended.code == 1
    assert "bad/seed1 failed there: the loss is no number" in ended.said
    assert (tmp_path / "out" / "submission.csv").is_file()


def test_output_without_a_submission_is_not_submitted(kernel, server, run, output, tmp_path):
    left = output()
    record = json.loads(left["run.json"])
    del left["submission.csv"], record["files"]["submission.csv"]
    server.next_session = Session(output={**left, "run.json": json.dumps(record).encode()})
    ended = run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", "--submit", "-m", "x", *QUICK)
    assert_one_line(ended, "has no submission.csv")
    assert not server.submissions


def test_without_wait_nothing_is_asked_after_the_push(kernel, server, run):
    assert run(kaggle_run.push_command, kernel).code == 0
    assert [asked.name for asked in server.requests] == ["SaveKernel"]


def test_a_session_too_short_to_be_seen_running_is_known_by_its_output(kernel, server, run, output, tmp_path):
    start(server, session=Session(["COMPLETE"], output()))
    server.next_session = Session(["COMPLETE"], output(**{"submission.csv": b"row_id,similarity\n0,0.5\n"}))
    assert run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", *QUICK).code == 0
    assert (tmp_path / "out" / "submission.csv").read_bytes() == b"row_id,similarity\n0,0.5\n"


def check_stale(ended: Ended, server: KaggleServer, tmp_path: Path) -> None:
    assert_one_line(
        ended,
        "may be an earlier session",
        "no new one was seen to begin within",
        f"https://www.kaggle.com/code/{FINAL}",
    )
    assert server.submissions == []
    assert_nothing_left(tmp_path, "out")


def test_an_earlier_sessions_end_is_not_taken_for_this_ones(kernel, server, run, output, tmp_path):
    start(server, session=Session(["COMPLETE"], output()))
    server.next_session = None
    ended = run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", "--submit", "-m", "mine", *QUICK)
    check_stale(ended, server, tmp_path)


def test_an_earlier_sessions_end_is_not_taken_when_its_beginning_could_not_be_read(
    kernel, server, run, output, tmp_path
):
    start(server, session=Session(["COMPLETE"], output()))
    server.next_session = None
    server.fail("ListKernelSessionOutput", 500, times=1)
    ended = run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", "--submit", "-m", "mine", *QUICK)
    check_stale(ended, server, tmp_path)


RECORDS = json.dumps([{"stream_name": "stderr", "time": 1.5, "data": "error: no jaguar_kit.py\n"}, {"data": "bye\n"}])


@pytest.mark.parametrize("state", ["ERROR", "CANCEL_ACKNOWLEDGED", "CANCEL_REQUESTED"])
def test_a_session_that_did_not_end_well_is_told_with_its_reason(state, kernel, server, run, tmp_path):
    for failure, log, words in (
        ("Your notebook was stopped", RECORDS, "Your notebook was stopped"),
        ("", RECORDS, "error: no jaguar_kit.py | bye"),
        ("", "first\nlast words", "first | last words"),
        ("", "", "its log is empty"),
    ):
        server.next_session = Session(["RUNNING", state], log=log, failure=failure)
        ended = run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", "--submit", "-m", "mine", *QUICK)
        assert_one_line(ended, f"{FINAL}: ended as {state}: {words}")
        assert server.submissions == []
        assert_nothing_left(tmp_path, "out")


def test_a_session_that_fails_before_it_is_seen_running_is_told_too(kernel, server, run):
    server.next_session = Session(["ERROR"], log="no GPU left")
    assert_one_line(
        run(kaggle_run.push_command, kernel, "--wait", *QUICK),
        "ended as ERROR, which may be an earlier session",
        "no GPU left",
    )


def test_a_log_that_cannot_be_read_hides_nothing(kernel, server, run):
    server.next_session = Session(["RUNNING", "ERROR"])
    server.fail("ListKernelSessionOutput", 500)
    ended = run(kaggle_run.push_command, kernel, "--wait", *QUICK)
    assert_one_line(ended, "ended as ERROR: its log can't be read")


@pytest.mark.parametrize("how", [429, 500, "cut", "html"])
def test_waiting_survives_what_passes(how, kernel, server, run, output, tmp_path):
    server.next_session = Session(output=output())
    server.fail("GetKernelSessionStatus", how, times=5, after=1)
    assert run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", *QUICK).code == 0
    assert len(server.calls("GetKernelSessionStatus")) == 8


def test_waiting_ends_when_too_many_questions_fail(server, capsys):
    start(server)
    server.fail("GetKernelSessionStatus", 500, after=1)
    with pytest.raises(KaggleError, match="500 GetKernelSessionStatus was told to fail: Kaggle itself has a fault"):
        kaggle_client.await_kernel(FINAL, None, Patience(every=0.01, stale=1, longest=5, failures=3))
    assert len(server.calls("GetKernelSessionStatus")) == 5


@pytest.mark.parametrize("status", [401, 403])
def test_waiting_ends_at_once_when_it_is_not_allowed(status, kernel, server, run):
    server.fail("GetKernelSessionStatus", status, after=1)
    ended = run(kaggle_run.push_command, kernel, "--wait", *QUICK)
    assert_one_line(ended, "status of a-user/jaguar-kit-final")
    asked = len(server.calls("GetKernelSessionStatus"))
    assert asked == 2, f"asked {asked - 1} times after the first {status}"


def test_waiting_ends_when_patience_does(server, capsys):
    start(server, session=Session(["RUNNING"]))
    with pytest.raises(KaggleError, match=f"waited .* h for {FINAL}; look at it on Kaggle"):
        kaggle_client.await_kernel(FINAL, None, Patience(every=0.01, longest=0.1))


def test_a_state_that_the_client_does_not_know_is_told(kernel, server, run):
    server.next_session = Session(["RUNNING", "HIBERNATING"])
    ended = run(kaggle_run.push_command, kernel, "--wait", *QUICK)
    assert_one_line(ended, "HIBERNATING")


# fetching


def test_output_of_many_pages_comes_whole(server, output, tmp_path, capsys):
    left = output(**{f"runs/final/page{i}.txt": b"x" * i for i in range(45)})
    start(server, session=Session(["COMPLETE"], left))
    out = kaggle_client.fetch_output(FINAL, tmp_path / "out")
    assert {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()} == left
    assert [body.get("pageToken") or "" for body in server.calls("ListKernelSessionOutput")] == ["", "20", "40"]


def without_record(left: dict[str, bytes]) -> None:
    del left["run.json"]


def unfinished(left: dict[str, bytes]) -> None:
    told = json.loads(left["run.json"])
    left["run.json"] = json.dumps({name: told[name] for name in told if name != "files"}).encode()


def without_submission(left: dict[str, bytes]) -> None:
    del left["submission.csv"]


def with_page_for_submission(left: dict[str, bytes]) -> None:
    left["submission.csv"] = HTML


def with_page_for_record(left: dict[str, bytes]) -> None:
    left["run.json"] = HTML


def with_list_for_files(left: dict[str, bytes]) -> None:
    left["run.json"] = json.dumps({**json.loads(left["run.json"]), "files": ["submission.csv"]}).encode()


def outside(left: dict[str, bytes]) -> None:
    left["run.json"] = left["run.json"].replace(b'"report.html"', b'"../report.html"')


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_record, "its output has no run.json: there is report.html, runs, submission.csv"),
        (dict.clear, "its output has no run.json: nothing came down"),
        (unfinished, "run.json is not what a session that ended well leaves; look at its log, or fetch again"),
        (with_list_for_files, "run.json is not what a session that ended well leaves"),
        (with_page_for_record, "run.json is not what a session that ended well leaves"),
        (without_submission, "submission.csv did not come down; fetch again"),
        (with_page_for_submission, "submission.csv is not what the session wrote (it begins with '<!DOCTYPE"),
        (outside, "run.json names '../report.html', outside the output"),
    ],
)
def test_output_that_is_not_what_the_session_wrote_is_refused(spoil, words, kernel, server, run, output, tmp_path):
    left = output()
    spoil(left)
    server.next_session = Session(output=left)
    ended = run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", "--submit", "-m", "mine", *QUICK)
    assert_one_line(ended, f"Kaggle: {FINAL}: ", words)
    assert server.submissions == []
    assert_nothing_left(tmp_path, "out")


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("ListKernelSessionOutput", 500, "500 ListKernelSessionOutput was told to fail: Kaggle itself has a fault"),
        ("ListKernelSessionOutput", 403, "403 ListKernelSessionOutput"),
        ("ListKernelSessionOutput", "cut", "no connection"),
        ("download", "cut", "no connection"),
        ("download", "half", "no connection"),
        ("download", 500, "submission.csv"),
        ("download", "html", "submission.csv is not what the session wrote"),
    ],
)
def test_a_download_that_fails_leaves_nothing(name, how, words, kernel, server, run, output, tmp_path):
    """Clients differ in whether they raise, or save an error's page as the file; either way it is told and not kept."""
    server.next_session = Session(output=output())
    server.fail(name, how, path="submission.csv" if name == "download" else "")
    ended = run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", *QUICK)
    assert_one_line(ended, words, *(["--no-push"] if name == "download" else []))
    assert_nothing_left(tmp_path, "out")


@pytest.mark.parametrize("table", [b"row_id,similarity\n0,nan\n", b"row_id,score\n0,0.5\n", b"row_id,similarity\n"])
def test_a_submission_that_cannot_score_is_not_kept_and_not_submitted(table, kernel, server, run, output, tmp_path):
    server.next_session = Session(output=output(**{"submission.csv": table}))
    ended = run(kaggle_run.push_command, kernel, "--fetch", tmp_path / "out", "--submit", "-m", "mine", *QUICK)
    assert_one_line(ended, "submission.csv")
    assert ".tmp" not in ended.error, "names a file that is gone by then"
    assert server.submissions == []
    assert_nothing_left(tmp_path, "out")


def test_answers_for_an_open_set_are_a_submission_too(server, output, tmp_path, capsys):
    answers = b"image_id,identity\n7,new_individual\n8,LynxID2025_lynx_37\n"
    start(server, session=Session(["COMPLETE"], output(**{"submission.csv": answers})))
    out = kaggle_client.fetch_output(FINAL, tmp_path / "out")
    kaggle_client.submit_file(out / "submission.csv", "animal-clef-2025", "mine")
    assert server.calls("upload") == [answers]
    assert [body["competitionName"] for body in server.submissions] == ["animal-clef-2025"]


def test_an_empty_folder_is_filled_and_one_that_holds_something_is_left_alone(server, output, tmp_path, capsys):
    start(server, session=Session(["COMPLETE"], output()))
    (tmp_path / "out").mkdir()
    kaggle_client.fetch_output(FINAL, tmp_path / "out")
    asked = len(server.requests)
    with pytest.raises(KitError, match="holds something already; choose a new folder"):
        kaggle_client.fetch_output(FINAL, tmp_path / "out")
    assert len(server.requests) == asked


# submitting


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    path = tmp_path / "submission.csv"
    path.write_text("row_id,similarity\n0,0.5\n")
    return path


def test_a_file_goes_where_it_should(submission, server, capsys):
    kaggle_client.submit_file(submission, COMPETITION, "two words")
    [begun] = server.calls("StartSubmissionUpload")
    assert begun.pop("lastModifiedEpochSeconds") == int(submission.stat().st_mtime)
    assert begun == {"competitionName": COMPETITION, "fileName": "submission.csv", "contentLength": 24}
    assert server.calls("upload") == [submission.read_bytes()]
    assert server.calls("CreateSubmission") == [
        {"competitionName": COMPETITION, "blobFileTokens": "token0", "submissionDescription": "two words"}
    ]


REFUSED = {"message": "You must first accept the rules\nof this competition.", "ref": 0}


NOT_TAKEN = [
    ("StartSubmissionUpload", 403, "403 .*have the competition's rules been accepted"),
    ("StartSubmissionUpload", 404, "404 .*is its name right"),
    ("StartSubmissionUpload", "cut", "no connection"),
    ("upload", 403, "did not take .*submission.csv: Could not submit to competition"),
    ("upload", "cut", "did not take .*submission.csv: Could not submit to competition"),
    ("CreateSubmission", 429, "429 .*try again in some minutes"),
    ("CreateSubmission", 500, "500 .*Kaggle itself has a fault"),
    ("CreateSubmission", REFUSED, "did not take .*: You must first accept the rules of this competition"),
    ("CreateSubmission", {}, "did not take .*: no reason was given"),
]


def test_a_file_that_kaggle_does_not_take_is_told(submission, server):
    for name, how, words in NOT_TAKEN:
        server.failures.clear()
        server.fail(name, how)
        with pytest.raises(KaggleError, match=words):
            kaggle_client.submit_file(submission, COMPETITION, "mine")
    assert server.submissions == []


def test_a_kernel_that_kaggle_does_not_take_is_told(server):
    for how, words in (
        (403, "403 .*have the competition's rules been accepted"),
        (500, "500 .*Kaggle itself has a fault"),
        ("cut", "no connection"),
        (REFUSED, "did not take a-user/jaguar-kit-final: You must first accept"),
        ({}, "did not take a-user/jaguar-kit-final: no reason was given"),
    ):
        server.failures.clear()
        server.fail("CreateCodeSubmission", how)
        with pytest.raises(KaggleError, match=words):
            kaggle_client.submit_kernel(FINAL, 3, COMPETITION, "mine")
    assert server.submissions == []


def test_a_wrong_file_is_refused_before_anything_is_sent(submission, server):
    submission.write_text("row_id,similarity\n0,0.5\n0,0.75\n")
    with pytest.raises(KitError, match="row_id: more than one row for 0"):
        kaggle_client.submit_file(submission, COMPETITION, "mine")
    assert server.requests == []


# scores


@pytest.fixture
def scored(kernel, server, run, output, tmp_path) -> Callable[..., Ended]:
    """scored(*options): submits what the latest session left, which has a run of its own."""
    file = b"row_id,similarity\n0,0.25\n1,1.0\n"
    metrics, recipe = {"map": 0.871234567, "map_across": 0.5}, jaguar_kit.recipe_from_dict({"name": "final"})
    record = json.dumps({"recipe": jaguar_kit.recipe_to_dict(recipe)}).encode()
    run_folder = "runs/final/default/seed42"
    files = {"submission.csv": file, f"{run_folder}/submission.csv": file, "runs/final/experiment.json": record}
    files[f"{run_folder}/metrics.json"] = json.dumps(metrics).encode()
    start(server, session=Session(output=output(**files)))
    numbers = iter(range(100))

    def submit(*options: str) -> Ended:
        asked = ("--no-push", "--fetch", tmp_path / f"out{next(numbers)}", "--submit", "-m", "two words", *QUICK)
        return run(kaggle_run.push_command, kernel, *asked, *options)

    return submit


def test_a_score_is_awaited_and_kept_beside_the_validation(scored, server):
    ended = scored()
    assert (ended.code, ended.error) == (0, "")
    assert "jaguar-re-id: 4 submissions left today, 1 made" in ended.said
    assert "public score 0.90123, validation mAP 0.8712, across encounters 0.5000" in ended.said
    [row] = scores.read_scores(leaderboard.SCORES).to_dict("records")
    told = {"competition": COMPETITION, "kernel": FINAL, "message": "two words", "status": "complete", "private": ""}
    told |= {"map": "0.871235", "map_across": "0.500000", "public": "0.90123", "run": "default/seed42", "ref": "1"}
    assert {name: row[name] for name in told} == told
    assert (row["recipe"], len(row["recipe_hash"]), len(row["sha256"])) == ("final", 16, 64)


def test_the_same_file_is_not_submitted_twice(scored, server):
    assert scored().code == 0
    assert_one_line(scored(), "was submitted to jaguar-re-id on", "'two words' (public score 0.90123)", code=2)
    assert len(server.submissions) == 1
    table = scores.read_scores(leaderboard.SCORES)
    scores.keep_score(leaderboard.SCORES, {**table.iloc[0], "sha256": "0" * 64})
    table = scores.read_scores(leaderboard.SCORES)
    assert list(table.sha256) == [table.sha256[0], "0" * 64]
    table.assign(competition="another").to_csv(leaderboard.SCORES, index=False)
    assert scored().code == 0


def test_a_scoring_error_is_told_in_the_competitions_own_words(scored, server):
    server.scores = [{"status": "ERROR", "errorDescription": "Submission contains\nnull values"}]
    assert_one_line(scored(), "the submission was not scored: Submission contains null values")
    [row] = scores.read_scores(leaderboard.SCORES).to_dict("records")
    assert row["status"] == "error: Submission contains null values"


def test_a_submission_without_a_score_yet_is_kept_and_listed_later(scored, server, run):
    server.scores = [{"status": "PENDING"}]
    server.fail("GetSubmission", 404, times=2)  # it does not show at once
    server.fail("GetSubmission", 403, after=3)
    assert_one_line(scored(), "403", "it is submitted: --list reads its score later")
    assert list(scores.read_scores(leaderboard.SCORES).status) == ["pending"]
    server.failures.clear()
    server.scores = [{"status": "COMPLETE", "publicScore": "0.8", "privateScore": "0.75"}]
    server.sessions["a-user/jaguar-kit-mine"] = Session(["ERROR"], failure="out of\nmemory")
    server.sessions["a-user/something-else"] = Session(["ERROR"])
    ended = run(kaggle_run.push_command, "--list")
    assert (ended.code, ended.error) == (0, "")
    assert f"  {FINAL}: complete, last run 2026-11-30 12:00\n" in ended.said
    assert "  a-user/jaguar-kit-mine: error: out of memory, last run" in ended.said
    assert "something-else" not in ended.said
    assert "'two words': jaguar-re-id: public score 0.8, private 0.75, validation mAP 0.8712" in ended.said
    assert list(scores.read_scores(leaderboard.SCORES).private) == ["0.75"]


def test_one_kernel_is_listed_alone_and_one_that_was_never_pushed(kernel, server, run):
    ended = run(kaggle_run.push_command, kernel, "--list")
    assert ended.said == f"  {FINAL}: never pushed\n"
    start(server)
    assert run(kaggle_run.push_command, kernel, "--list").said == f"  {FINAL}: queued\n"
    server.sessions.clear()
    assert "no kernel of the kit is on Kaggle" in run(kaggle_run.push_command, "--list").said


def test_an_interrupt_after_the_submission_says_how_to_read_the_score(scored, server, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scores, "patiently", interrupted)
    ended = scored()
    assert ended.code == 130
    assert "it is submitted: --list reads its score later" in ended.said
    assert list(scores.read_scores(leaderboard.SCORES).status) == ["pending"]


def test_an_older_client_is_asked_by_its_list(scored, server, client, monkeypatch):
    for name in ("get_submission", "competition_get_submission_limits"):
        monkeypatch.delattr(client.KaggleApi, name)
    ended = scored()
    assert (ended.code, ended.error) == (0, "")
    assert "left today" not in ended.said
    assert list(scores.read_scores(leaderboard.SCORES).public) == ["0.90123"]
    assert not server.calls("GetSubmission")


def test_nothing_is_said_of_limits_that_kaggle_does_not_tell(scored, server):
    server.limits = {}
    assert "left today" not in scored().said


def test_a_table_of_scores_that_is_another_is_refused_before_the_submission(scored, server):
    leaderboard.SCORES.parent.mkdir()
    for text in ("a,b\n1,2\n", ""):
        leaderboard.SCORES.write_text(text)
        assert_one_line(scored(), "results/scores.csv: ", code=2)
    assert not server.submissions


# a rehearsal before the push


@pytest.fixture
def rehearsed(monkeypatch) -> None:
    """A push rehearses, as far as no process is needed."""
    monkeypatch.setattr(kaggle_run, "rehearse", rehearsal.rehearse)
    monkeypatch.setattr(rehearsal, "sessions", lambda *_: [])


@pytest.fixture
def on_server(server, tmp_path) -> dict[str, bytes]:
    """The files of the kit's dataset as Kaggle serves them."""
    folder = package_tool.package_kit(tmp_path / "packed", "a-user")
    files = content_of(folder)
    server.datasets[KIT] = Dataset([files])
    return files


def with_facts(files: dict[str, bytes], name: str, content: bytes) -> None:
    """Another content of a file, which the manifest knows."""
    manifest = json.loads(files["manifest.json"])
    told = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"][name], files[name] = told, content
    files["manifest.json"] = json.dumps(manifest).encode()


@pytest.mark.ci
def test_a_push_rehearses_by_what_kaggle_holds(kernel, server, run, on_server, rehearsed):
    ended = run(kaggle_run.push_command, kernel)
    assert (ended.code, ended.error) == (0, "")
    assert f"  {KIT}: Kaggle\n" in ended.said
    assert "counted: memory: dinov3_l with 16 images" in ended.said
    assert len(server.calls("SaveKernel")) == 1


def test_a_push_of_what_is_certain_to_fail_is_refused_unless_unrehearsed(kernel, server, run, on_server, rehearsed):
    with_facts(on_server, "tools/experiments/report.py", b"print()\n")
    ended = run(kaggle_run.push_command, kernel)
    assert_one_line(ended, "1 thing is certain to fail its session", "--unrehearsed pushes all the same", code=2)
    assert "certain: a-user/jaguar-kit: another kit than the kernel was written for" in ended.said
    assert not server.calls("SaveKernel")
    assert run(kaggle_run.push_command, kernel, "--unrehearsed").code == 0
    assert len(server.calls("SaveKernel")) == 1


def test_a_dataset_that_is_not_there_is_refused_and_a_strange_one_is_not(kernel, server, run, on_server, rehearsed):
    kernels_tool.write_kernels(kernel.parent, ROOT / "recipes", datasets=[WEIGHTS], only=["final"])
    assert_one_line(run(kaggle_run.push_command, kernel), f"{WEIGHTS}: there is no such dataset on Kaggle", code=2)
    server.datasets[WEIGHTS] = Dataset([{"weights.bin": b"0"}])
    kernels_tool.write_kernels(kernel.parent, ROOT / "recipes", datasets=["other/one"], only=["final"])
    ended = run(kaggle_run.push_command, kernel)
    assert ended.code == 0
    for source in (WEIGHTS, "other/one"):
        assert f"  {source}: nowhere here: not looked at" in ended.said


def test_members_that_no_session_left_on_kaggle_are_refused_before_a_push(
    all_kernels, server, run, on_server, rehearsed, output
):
    fuse, champion = all_kernels / "champion_fuse", "a-user/jaguar-kit-champion"
    ended = run(kaggle_run.push_command, fuse)
    assert_one_line(ended, "3 things are certain to fail its session", code=2)
    told = "runs/champion/eva02: a-user/jaguar-kit-champion holds no finished run of it (expected metrics.json and "
    assert f"certain: member {told}" in ended.said
    assert "let kernels/champion end first" in ended.said
    assert not server.calls("SaveKernel")
    names = ("metrics.json", "recipe.yaml")
    runs = {f"runs/champion/{v}/seed42/{name}": b"{}" for v in ("eva02", "dinov3", "miewid") for name in names}
    server.sessions[champion] = Session(output=output("champion", **runs))
    ended = run(kaggle_run.push_command, fuse)
    assert (ended.code, ended.error) == (0, "")
    assert f"  member runs/champion/miewid: 1 finished run in {champion} (kernel_sources)" in ended.said


def test_a_package_of_kaggle_is_laid_out_with_small_files_for_its_weights(server, on_server, tmp_path):
    with_facts(on_server, "dinov3_l.safetensors", b"0" * 1000)
    with_facts(on_server, "final.yaml", b"name: other\n")
    attached = mounts.of_kaggle(kaggle_client.kaggle_api(), "a-user", KIT)
    place = tmp_path / "root" / "input" / "jaguar-kit"
    mounts.mount_package(attached, place, tmp_path / "root")
    session.check_manifest(place)
    assert (place / "final.yaml").read_bytes() == b"name: other\n"
    assert (place / "tools" / "experiments" / "session.py").is_file()
    with jaguar_kit.open_safetensors(place / "dinov3_l.safetensors") as file:
        assert list(file.keys()) == ["stands_in"]


# the dataset


@pytest.fixture
def package_weights(run: Callable[..., Ended], weights: Path, tmp_path: Path) -> Callable[..., Ended]:
    start = ("--user", "a-user", "--weights-only", "--weights", weights, "--out", tmp_path / "dist")
    return partial(run, package_tool.package_command, *start)


@pytest.mark.ci
def test_the_kit_is_uploaded_as_a_new_dataset_and_then_as_a_new_version(run, weights, server, tmp_path):
    dist = tmp_path / "dist"
    start = ("--user", "a-user", "--out", dist, "--weights", weights)
    ended = run(package_tool.package_command, *start, "--create")
    assert (ended.code, ended.error) == (0, "")
    assert f"{KIT}: ready, all {len(content_of(dist))} files are there" in ended.said
    [sent] = server.calls("CreateDataset")
    assert uploaded(server, sent.pop("files")) == server.datasets[KIT].versions[0] == content_of(dist)
    assert {"jaguar_kit.py", "final.yaml", weights.name, "manifest.json"} <= content_of(dist).keys()
    assert sent == {
        "title": "jaguar-kit",
        "slug": "jaguar-kit",
        "ownerSlug": "a-user",
        "licenseName": "other",
        "isPrivate": True,
    }
    assert all(body["type"] == "DATASET" for body in server.calls("StartBlobUpload"))

    more = tmp_path / "more.safetensors"
    save_file({"weight": torch.ones(5)}, more)
    ended = run(package_tool.package_command, *start, more, "--update", "-m", "more weights")
    assert (ended.code, ended.error) == (0, "")
    [sent] = server.calls("CreateDatasetVersion")
    assert (sent["ownerSlug"], sent["datasetSlug"]) == ("a-user", "jaguar-kit")
    assert sent["body"]["versionNotes"] == "more weights"
    assert not sent["body"].get("deleteOldVersions")
    assert uploaded(server, sent["body"]["files"]) == content_of(dist)
    assert more.name in server.datasets[KIT].versions[1]
    assert list((tmp_path / "scratch").rglob("*.json")) == []


@pytest.mark.ci
def test_the_tool_uploads_and_waits(weights, server, tmp_path):
    server.new_states = ["READY"]
    tool = ROOT / "tools" / "package.py"
    done = run_python(server, tmp_path, tool, "--user", "a-user", "--weights-only", "--weights", weights, "--create")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{WEIGHTS}: ready, all 2 files are there" in done.stdout
    assert server.datasets[WEIGHTS].versions == [content_of(tmp_path / "dist" / "jaguar-kit-weights")]


def test_a_dataset_that_is_there_is_not_created(package_weights, server):
    server.datasets[WEIGHTS] = Dataset([{}])
    assert_one_line(package_weights("--create"), f"{WEIGHTS} exists already; use --update for a new version of it")
    assert [asked.name for asked in server.requests] == ["GetDatasetStatus"]


def test_a_version_without_the_weights_of_the_last_is_refused(run, weights, package, server, tmp_path):
    kaggle_client.upload_package(package, True, patience=hurried())
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(2)}, other)
    slug = json.loads((package / "dataset-metadata.json").read_text())["id"].partition("/")[2]
    lesser = package_tool.package_kit(tmp_path / "lesser", "a-user", [other], slug=slug, weights_only=True)
    with pytest.raises(KitError, match=f"{weights.name}.*--drop"):
        kaggle_client.upload_package(lesser, False, patience=hurried())
    kaggle_client.upload_package(lesser, False, patience=hurried(), drop=True)


def test_a_dataset_that_is_not_there_is_not_updated(package_weights, server):
    assert_one_line(package_weights("--update"), f"there is no dataset {WEIGHTS} yet; use --create")
    assert [asked.name for asked in server.requests] == ["GetDatasetStatus"]


@pytest.mark.parametrize("how", [403, "cut"])
def test_a_file_that_did_not_arrive_is_named(how, package_weights, weights, server):
    server.fail("upload", how, path=weights.name)
    ended = package_weights("--create")
    assert_one_line(ended, WEIGHTS, weights.name, "run tools/package.py")
    assert all(weights.name not in version for version in server.datasets.get(WEIGHTS, Dataset([])).versions)


def test_a_file_that_kaggle_lost_is_named(package_weights, server):
    server.lost = {"manifest.json"}
    assert_one_line(package_weights("--create"), "1 files did not arrive: manifest.json", "--update again")


def test_a_file_of_another_length_is_named(package, weights, server, capsys):
    cut = {**content_of(package), weights.name: b"short"}
    server.datasets[WEIGHTS], server.stale_datasets = Dataset([cut]), True
    with pytest.raises(KaggleError, match=rf"{weights.name}: 5 bytes there, {weights.stat().st_size} here; run tools/"):
        kaggle_client.upload_package(package, create=False)


def assert_nothing_left_but_uploads(tmp_path: Path) -> None:
    """The client may keep a hidden folder of its own, with what it needs to go on with an upload."""
    assert [path.name for path in (tmp_path / "scratch").iterdir() if not path.name.startswith(".kaggle")] == []


def test_a_version_that_never_shows_is_told(package, server, capsys):
    """The earlier one has files of the same names and lengths, so that only the manifest tells."""
    earlier = {name: bytes(len(content)) for name, content in content_of(package).items()}
    server.datasets[WEIGHTS], server.stale_datasets = Dataset([earlier]), True
    with pytest.raises(KaggleError, match=rf"{WEIGHTS}: Kaggle still serves an earlier version; run .* --update again"):
        kaggle_client.upload_package(package, create=False)
    assert_nothing_left_but_uploads(package.parent)


def test_a_version_that_shows_late_is_waited_for(package, server, capsys):
    earlier = {"datasetFiles": [{"name": "manifest.json", "totalBytes": 2}]}
    server.datasets[WEIGHTS] = Dataset([{}])
    server.fail("ListDatasetFiles", earlier, times=3)
    kaggle_client.upload_package(package, create=False, patience=Patience(every=0.01, stale=5.0, longest=10.0))
    assert "ready, all 2 files are there" in capsys.readouterr().out
    assert len(server.calls("ListDatasetFiles")) == 4


@pytest.mark.parametrize("state", ["FAILED", "DELETED"])
def test_a_version_that_failed_is_told(state, package_weights, server):
    server.new_states = ["NOT_YET_PERSISTED", state]
    assert_one_line(package_weights("--create"), f"{WEIGHTS}: its version is {state.lower()}; upload it again")


def test_a_version_that_is_never_ready_is_told(package, server, capsys):
    server.new_states = ["NOT_YET_PERSISTED"]
    with pytest.raises(KaggleError, match=f"waited .* h for {WEIGHTS} to be ready"):
        kaggle_client.upload_package(package, create=True, patience=Patience(every=0.01, longest=0.1))


def test_a_dataset_that_shows_late_is_waited_for(package, server, capsys):
    server.fail("GetDatasetStatus", 404, times=3, after=2)
    assert kaggle_client.upload_package(package, create=True) == WEIGHTS


def test_a_long_list_of_files_is_read_whole(package, server, capsys):
    server.page_size = 1
    kaggle_client.upload_package(package, create=True)
    assert [body.get("pageToken") or "" for body in server.calls("ListDatasetFiles")] == ["", "1"]


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("GetDatasetStatus", 401, f"status of {WEIGHTS}: 401 .*make a new token"),
        ("GetDatasetStatus", 403, f"status of {WEIGHTS}: 403 .*is it yours"),
        ("GetDatasetStatus", 500, f"status of {WEIGHTS}: 500 .*try again later"),
        ("GetDatasetStatus", "cut", f"status of {WEIGHTS}: no connection"),
        ("StartBlobUpload", 401, f"uploading {WEIGHTS}: 401 .*make a new token"),
        ("StartBlobUpload", 429, f"uploading {WEIGHTS}: 429 .*try again in some minutes"),
        ("CreateDataset", 403, f"uploading {WEIGHTS}: 403 .*is it yours"),
        ("CreateDataset", 500, f"uploading {WEIGHTS}: 500 .*try again later"),
        ("CreateDataset", "cut", f"uploading {WEIGHTS}: no connection"),
        ("CreateDataset", {"status": "error", "error": "The title is taken"}, f"{WEIGHTS}: The title is taken"),
        ("CreateDataset", {"status": "Error"}, f"{WEIGHTS}: the upload failed"),
        ("ListDatasetFiles", {"errorMessage": "no version"}, f"listing {WEIGHTS}: no version"),
    ],
)
def test_an_upload_that_kaggle_refuses_is_told(name, how, words, package, server, capsys):
    server.fail(name, how)
    with pytest.raises(KaggleError, match=words) as error:
        kaggle_client.upload_package(package, create=True)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)
    assert_nothing_left_but_uploads(package.parent)


@pytest.mark.parametrize("name", ["GetDatasetStatus", "ListDatasetFiles", "DownloadDataset"])
def test_waiting_for_a_dataset_survives_what_passes(name, package, server, capsys):
    for how in (429, 500, "cut"):
        server.failures.clear()
        server.datasets.clear()
        server.fail(name, how, times=2, after=3 if name == "GetDatasetStatus" else 0)
        try:
            kaggle_client.upload_package(package, create=True)
        except KaggleError as error:
            pytest.fail(f"{how}: the upload was done, but the wait for it ended: {error}")
        assert "ready, all 2 files are there" in capsys.readouterr().out, how
        assert [failure.times for _, failure in server.failures] == [0], how


def test_after_a_failure_the_same_command_goes_through(package, server, capsys):
    server.fail("CreateDataset", 500, times=1)
    with pytest.raises(KaggleError):
        kaggle_client.upload_package(package, create=True)
    kaggle_client.upload_package(package, create=True)
    assert server.datasets[WEIGHTS].versions == [content_of(package)]


def test_a_damaged_package_is_not_uploaded(package, server):
    with open(package / "some_backbone.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(KitError, match=r"some_backbone\.safetensors: differs"):
        kaggle_client.upload_package(package, create=True)
    assert server.requests == []


# bad input


def with_internet(folder: Path) -> None:
    change(folder, enable_internet=True)


def without_internet_setting(folder: Path) -> None:
    change(folder, enable_internet=None)


def with_placeholder(folder: Path) -> None:
    change(folder, id="YOUR-KAGGLE-NAME/jaguar-kit-final")


def with_wrong_title(folder: Path) -> None:
    change(folder, title="My jaguars")


def without_code(folder: Path) -> None:
    (folder / "final.py").unlink()


def with_renamed_code(folder: Path) -> None:
    (folder / "final.py").rename(folder / "mine.py")
    change(folder, code_file="mine.py")


def without_metadata(folder: Path) -> None:
    (folder / "kernel-metadata.json").unlink()


def with_broken_metadata(folder: Path) -> None:
    (folder / "kernel-metadata.json").write_text("{")


def without_machine(folder: Path) -> None:
    change(folder, machine_shape=None)


def edited(folder: Path) -> None:
    code = folder / "final.py"
    code.write_text(code.read_text().replace("batch_size: 32", "batch_size: 16"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (with_internet, "enable_internet: True (expected false; left out it is true)"),
        (without_internet_setting, "enable_internet: None (expected false; left out it is true)"),
        (with_placeholder, "lacks your name; run tools/kernels.py --user NAME"),
        (with_wrong_title, "title: 'My jaguars' (expected 'jaguar-kit-final'"),
        (without_code, "code_file: 'final.py' (expected a file of this folder)"),
        (with_renamed_code, "tools/kernels.py"),
        (without_metadata, "kernel-metadata.json: there is no such file (expected a folder such as kernels/final)"),
        (with_broken_metadata, "kernel-metadata.json: not valid JSON"),
        (without_machine, "machine_shape: None (expected such as NvidiaTeslaT4"),
        (edited, "final.py: is not what final.yaml and the module give now; run tools/kernels.py"),
        (shutil.rmtree, "kernel-metadata.json: there is no such file"),
    ],
)
def test_a_kernel_that_would_not_do_is_not_pushed(spoil, words, kernel, server, run):
    spoil(kernel)
    assert_one_line(run(kaggle_run.push_command, kernel, "--wait"), words, code=2)
    assert server.requests == []


def test_a_notebook_for_another_version_of_the_module_is_not_pushed(all_kernels, server, run, tmp_path):
    folder = Path(shutil.copytree(all_kernels / "starter", tmp_path / "kernels" / "starter"))
    notebook = folder / "starter.ipynb"
    notebook.write_text(notebook.read_text().replace(session.kit_sha256(), "0" * 64))
    ended = run(kaggle_run.push_command, folder)
    assert_one_line(ended, "starter.ipynb", "run tools/kernels.py", code=2)
    assert server.requests == []


def test_options_that_would_not_do_are_told_before_the_push(kernel, server, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for options, words in (
        (("--fetch", "new", "--submit"), "--submit: needs a few words about it (expected -m MESSAGE)"),
        (("--fetch", "new", "--submit", "-m", ""), "--submit: needs a few words about it"),
        (("--submit", "-m", "mine"), "--submit: what is submitted is checked first (expected --fetch DIR)"),
        (("--fetch", "kernels"), "--fetch: kernels: holds something already; choose a new folder"),
        (("--fetch", "kernels/final/final.py"), "--fetch: kernels/final/final.py: holds something already"),
        (("--wait", "--every", "-1"), "--every"),
        (("-m", "words"), "expected"),
        (("--code-competition",), "expected"),
        (("--no-push", "--submit", "--code-competition", "-m", "words"), "expected"),
    ):
        assert_one_line(run(kaggle_run.push_command, kernel, *options), words, code=2)
    assert server.requests == []


def test_a_kernel_without_a_competition_to_submit_to_is_told_before_the_push(
    all_kernels, server, run, output, tmp_path
):
    folder = Path(shutil.copytree(all_kernels / "starter", tmp_path / "kernels" / "starter"))
    change(folder, competition_sources=[])
    server.next_session = Session(output=output())
    ended = run(kaggle_run.push_command, folder, "--fetch", tmp_path / "out", "--submit", "-m", "mine", *QUICK)
    assert_one_line(ended, "competition_sources", code=2)
    assert server.requests == []


# credentials


@pytest.mark.parametrize("there", [(), ("KAGGLE_USERNAME",), ("KAGGLE_KEY",)])
def test_without_credentials_nothing_begins(there, kernel, weights, server, run, tmp_path, monkeypatch):
    for name in {"KAGGLE_USERNAME", "KAGGLE_KEY"} - {*there}:
        monkeypatch.delenv(name)
    for command in (
        (kaggle_run.push_command, kernel, "--wait"),
        (package_tool.package_command, "--user", "a-user", "--out", tmp_path / "dist", "--create"),
    ):
        ended = run(*command)
        assert_one_line(ended, "no credentials in KAGGLE_API_TOKEN", "https://www.kaggle.com/settings", code=2)
    assert server.requests == []
    assert_nothing_left(tmp_path, "dist")


@pytest.mark.parametrize("folder", [".kaggle", ".config/kaggle"])
def test_a_key_in_either_of_the_clients_folders_is_found(folder, kernel, client, server, run, tmp_path, monkeypatch):
    """The client looks into ~/.kaggle where there is such a folder when it is imported, and else into ~/.config."""
    key = tmp_path / "home" / folder / "kaggle.json"
    key.parent.mkdir(parents=True)
    key.write_text('{"username": "u", "key": "k"}')
    key.chmod(0o600)
    monkeypatch.setattr(client.KaggleApi, "config_dir", str(key.parent))
    monkeypatch.setattr(client.KaggleApi, "config", str(key))
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    ended = run(kaggle_run.push_command, kernel)
    assert (ended.code, ended.error) == (0, "")
    assert len(server.calls("SaveKernel")) == 1


def test_a_key_that_kaggle_does_not_know_is_told(kernel, server, run, monkeypatch):
    monkeypatch.setenv("KAGGLE_KEY", "old")
    assert_one_line(run(kaggle_run.push_command, kernel), "401 Unauthorized: the credentials are not valid")


def test_a_token_signs_in_alone(kernel, server, run, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_good")
    server.tokens = {"KGAT_good": "a-user"}
    assert run(kaggle_run.push_command, kernel).code == 0
    assert server.requests[-1].headers["Authorization"] == "Bearer KGAT_good"


@pytest.mark.parametrize(
    ("how", "words"),
    [(401, "signing in: 401 "), (403, "the credentials were not accepted"), ("cut", "signing in: no connection")],
)
def test_a_token_that_is_not_accepted_is_told(how, words, kernel, server, run, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_old")
    server.fail("IntrospectToken", how)
    assert_one_line(run(kaggle_run.push_command, kernel), words)
    assert server.calls("SaveKernel") == []
