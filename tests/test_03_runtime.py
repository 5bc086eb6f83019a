"""3. Runtime."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jaguar_kit as jk
import numpy as np
import pytest
import torch
from jaguar_kit import KitError, atomic, find_mounted


@pytest.fixture(scope="module")
def dead_pid() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# files that appear whole or not at all


def test_atomic_renames_when_the_block_ends_well(tmp_path):
    path = tmp_path / "table.csv"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == tmp_path  # a rename is atomic only within a file system
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_atomic_keeps_the_suffix_for_writers_that_go_by_it(tmp_path):
    with atomic(tmp_path / "a.npy") as temporary:
        np.save(temporary, np.arange(3))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == ["a.npy"]


def test_atomic_replaces_what_was_there(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def write_half(path: Path, kind: type[BaseException]) -> None:
    with atomic(path) as temporary:
        temporary.write_text("half")
        raise kind("stop")


@pytest.mark.parametrize("kind", [ValueError, KitError, KeyboardInterrupt, SystemExit])
def test_atomic_leaves_the_old_file_when_the_block_fails(tmp_path, kind):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(kind, match="stop"):
        write_half(path, kind)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_atomic_makes_the_folders_above(tmp_path):
    with atomic(str(tmp_path / "a" / "b" / "x.txt")) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a" / "b" / "x.txt").read_text() == "new"


def test_atomic_makes_whole_folders_too(tmp_path):
    with atomic(tmp_path / "data") as temporary:
        (temporary / "inner").mkdir(parents=True)
    assert os.listdir(tmp_path) == ["data"]
    assert os.listdir(tmp_path / "data") == ["inner"]


def test_atomic_removes_half_a_folder(tmp_path):
    def fill_half(path: Path) -> None:
        with atomic(path) as temporary:
            (temporary / "inner").mkdir(parents=True)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fill_half(tmp_path / "data")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["x.npy", "data", "odd [a]*?.txt"])
def test_atomic_sweeps_what_dead_processes_left(tmp_path, dead_pid, name):
    path = tmp_path / name
    left = tmp_path / f".{name}.{dead_pid}.tmp{path.suffix}"
    left.write_text("half")
    with atomic(path) as temporary:
        assert not left.exists()
        temporary.write_text("new")
    assert os.listdir(tmp_path) == [name]


def test_atomic_sweeps_folders_that_dead_processes_left(tmp_path, dead_pid):
    (tmp_path / f".data.{dead_pid}.tmp" / "inner").mkdir(parents=True)
    with atomic(tmp_path / "data") as temporary:
        temporary.mkdir()
    assert os.listdir(tmp_path) == ["data"]


def test_atomic_keeps_what_living_processes_are_writing(tmp_path):
    left = tmp_path / f".x.npy.{os.getppid()}.tmp.npy"
    left.write_text("half")
    with atomic(tmp_path / "x.npy") as temporary:
        temporary.write_text("new")
    assert left.read_text() == "half"


def test_atomic_keeps_what_belongs_to_other_names(tmp_path, dead_pid):
    others = [f".x.npy.{dead_pid}.tmp.npy", f".xx.{dead_pid}.tmp", f"x.{dead_pid}.tmp", ".x.notes.tmp", ".x.tmp"]
    for name in others:
        (tmp_path / name).write_text("mine")
    with atomic(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "x"])


def test_atomic_starts_afresh_where_a_dead_process_had_this_number(tmp_path):
    # containers number their processes anew, so that a session that goes on often has the number of the killed one
    path = tmp_path / "data"
    with pytest.raises(ValueError, match="stop"), atomic(path) as temporary:
        raise ValueError("stop")
    (temporary / "half").mkdir(parents=True)
    with atomic(path) as again:
        assert not again.exists()
        again.mkdir()
    assert os.listdir(tmp_path) == ["data"]


def test_process_alive_knows_the_living_and_the_dead(dead_pid):
    assert jk.process_alive(os.getpid())
    assert jk.process_alive(os.getppid())
    assert not jk.process_alive(dead_pid)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_process_that_has_ended_is_not_alive_though_nobody_asked_how():
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    child.stdout.read()  # until it ends
    deadline = time.monotonic() + 10
    while jk.process_alive(child.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not jk.process_alive(child.pid)
    os.kill(child.pid, 0)  # it is listed still
    child.wait()


def test_remove_takes_files_folders_links_and_nothing(tmp_path):
    (tmp_path / "kept" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").write_text("")
    for name in ("link", "file", "nothing"):
        jk.remove_path(tmp_path / name)
    assert os.listdir(tmp_path) == ["kept"]
    assert (tmp_path / "kept" / "inner").is_dir()
    jk.remove_path(tmp_path / "kept")
    assert os.listdir(tmp_path) == []


def test_json_keeps_letters_readable(tmp_path):
    jk.write_json(tmp_path / "x.json", {"name": "Ñandú"})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert "Ñandú" in text
    assert json.loads(text) == {"name": "Ñandú"}


# files on Kaggle


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


def test_files_are_found_under_every_kaggle_layout(tmp_path):
    for number, mount in enumerate(
        (
            "slug",
            "slug/pytorch/default/1",
            "competitions/slug",
            "datasets/owner/slug",
            "notebooks/owner/slug",
            "models/owner/slug/pytorch/default/1",
        )
    ):
        path = touch(tmp_path / str(number) / mount / "weights.safetensors")
        assert find_mounted("weights.safetensors", tmp_path / str(number)) == [path]


def test_files_inside_a_mount_are_found(tmp_path):
    path = touch(tmp_path / "datasets" / "owner" / "slug" / "folder" / "x.safetensors")
    assert find_mounted("*.safetensors", tmp_path) == [path]


def test_nearest_files_come_first_and_equals_in_order(tmp_path):
    deep = touch(tmp_path / "datasets" / "owner" / "a" / "train.csv")
    near = [touch(tmp_path / name / "train.csv") for name in ("b", "c")]
    assert find_mounted("train.csv", tmp_path) == [*near, deep]


def test_a_folder_with_a_match_is_not_searched_further(tmp_path):
    path = touch(tmp_path / "slug" / "train.csv")
    touch(tmp_path / "slug" / "copy" / "train.csv")
    assert find_mounted("train.csv", tmp_path) == [path]


@pytest.mark.parametrize(("folders", "found"), [(200, 1), (201, 0)])
def test_a_folder_of_very_many_folders_is_not_searched(tmp_path, folders, found):
    for number in range(folders):
        (tmp_path / "slug" / str(number)).mkdir(parents=True)
    touch(tmp_path / "slug" / "7" / "train.csv")
    assert len(find_mounted("train.csv", tmp_path)) == found


def test_folders_do_not_match_and_depth_ends_the_search(tmp_path):
    (tmp_path / "train.csv").mkdir()
    deep = touch(tmp_path / "a" / "b" / "train.csv")
    assert find_mounted("train.csv", tmp_path, depth=2) == []
    assert find_mounted("train.csv", tmp_path, depth=3) == [deep]


def test_nothing_is_found_where_nothing_is_mounted(tmp_path):
    assert find_mounted("train.csv", tmp_path / "nowhere") == []


def test_links_in_a_circle_do_not_hang_the_search(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert find_mounted("train.csv", tmp_path) == []


def test_kaggle_is_known_by_its_environment(monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert not jk.on_kaggle()
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert jk.on_kaggle()


def test_cache_is_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("JAGUAR_KIT_CACHE", str(tmp_path))
    assert jk.cache_dir() == tmp_path


@pytest.mark.parametrize("told", [None, ""])
def test_cache_is_in_the_scratch_on_kaggle_and_at_home_elsewhere(monkeypatch, tmp_path, told):
    monkeypatch.delenv("JAGUAR_KIT_CACHE", raising=False)
    if told is not None:
        monkeypatch.setenv("JAGUAR_KIT_CACHE", told)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    assert jk.cache_dir() == tmp_path / ".cache" / "jaguar_kit"
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert jk.cache_dir() == jk.KAGGLE_SCRATCH / "jaguar_kit"


# devices


def test_the_cpu_is_always_there(monkeypatch):
    assert jk.pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert jk.pick_device() == jk.pick_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(("name", "near"), [("cdua", "cuda"), ("Auto", "auto"), ("CPU", "auto, cpu, cuda")])
def test_an_unknown_device_suggests(name, near):
    with pytest.raises(KitError, match=f"device: '{name}' is not known; .*{near}"):
        jk.pick_device(name)


def test_a_gpu_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(KitError, match=r"torch sees no GPU; use --device cpu or auto$"):
        jk.pick_device("cuda")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_that_torch_can_not_use_is_told_in_one_line(monkeypatch, name):
    def broken(*args, **kwargs):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore\nlines")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_70", "sm_80"])
    monkeypatch.setattr(torch, "ones", broken)
    with pytest.raises(KitError) as error:
        jk.pick_device(name)
    line = str(error.value)
    assert "\n" not in line
    for part in ("Tesla P100", "sm_70, sm_80", "no kernel image is available", "T4 x2", "--device cpu"):
        assert part in line


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_works_is_taken():
    assert jk.pick_device("auto").type == jk.pick_device("cuda").type == "cuda"


# chance


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_the_same_numbers_seed_the_same_draws():
    jk.seed_everything(3, 1, 4)
    first = draws()
    assert draws() != first
    jk.seed_everything(3, 1, 4)
    assert draws() == first


def test_other_numbers_seed_other_draws():
    for other in ((3, 1, 5), (3, 14), (4, 1, 3), (3, 1), (31, 4), (-3, 1, 4), (3, 1, 4, 0)):
        jk.seed_everything(3, 1, 4)
        first = draws()
        jk.seed_everything(*other)
        assert all(a != b for a, b in zip(draws(), first))


def test_numpy_integers_seed_like_python_integers():
    jk.seed_everything(3, 1)
    first = draws()
    jk.seed_everything(np.int64(3), np.int32(1))
    assert draws() == first


# fingerprints


def test_a_fingerprint_changes_with_every_value():
    parts = [("a", 1), ("a", 2), ("b", 1), ("a", 1, None), (["a", 1],), ("a1",), ({"a": 1},), ({"a": 2},)]
    marks = [jk.fingerprint(*part) for part in parts]
    assert len(set(marks)) == len(parts)
    assert all(len(mark) == 16 and int(mark, 16) >= 0 for mark in marks)


def test_a_fingerprint_is_the_same_in_every_process_and_order():
    assert jk.fingerprint({"a": 1, "b": [2]}) == jk.fingerprint({"b": [2], "a": 1})
    assert jk.fingerprint("jaguar", 1) == "97cc61ed703612d9"


def test_file_sha256_reads_files_larger_than_its_buffer(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"")
    assert jk.sha_of(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    path.write_bytes(b"\0" * (1 << 20) + b"a")
    before = jk.sha_of(path)
    path.write_bytes(b"\0" * (1 << 20) + b"b")
    assert jk.sha_of(path) != before


def test_progress_hands_on_what_it_gets_and_is_quiet_in_files(capfd):
    assert list(jk.progress(range(3), "counting")) == [0, 1, 2]
    assert list(jk.progress((i for i in "ab"), "letters", total=2)) == ["a", "b"]
    assert capfd.readouterr() == ("", "")


# one process at a time


def in_another_process(target, *arguments) -> int:
    """The exit code of a function in a child process."""
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    process.join(30)
    return process.exitcode


def try_to_enter(folder: Path) -> None:
    try:
        with jk.only_one(folder):
            os._exit(0)
    except KitError as error:
        os._exit(3 if str(folder) in str(error) and "another process" in str(error) else 4)


def test_a_second_process_is_kept_out(tmp_path):
    with jk.only_one(tmp_path / "run"):
        assert in_another_process(try_to_enter, tmp_path / "run") == 3
    assert in_another_process(try_to_enter, tmp_path / "run") == 0


def test_other_folders_stay_open(tmp_path):
    with jk.only_one(tmp_path / "a"):
        assert in_another_process(try_to_enter, tmp_path / "b") == 0


def test_the_lock_dies_with_its_process(tmp_path):
    assert in_another_process(try_to_enter, tmp_path) == 0  # ends inside, without tidying up
    assert in_another_process(try_to_enter, tmp_path) == 0
    with jk.only_one(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_the_lock_is_free_again_after_a_fault(tmp_path):
    with pytest.raises(ValueError, match="stop"), jk.only_one(tmp_path):
        raise ValueError("stop")
    assert in_another_process(try_to_enter, tmp_path) == 0
