"""What is kept of single pictures: an added photograph costs its own work, and the cache changes no answer."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jaguar_kit
import numpy as np
import pytest
import torch
from jaguar_kit_tools.identify import albums, kept, likeness
from jaguar_kit_tools.identify.kept import found_rows, gather, keep_below, kept_rows, row_key, write_rows
from PIL import Image

TABLES = ("answers.csv", "captures.csv", "ledger.csv", "catalogue.csv")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, which is written after every few pictures."""
    monkeypatch.setenv("JAGUAR_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(albums, "AT_ONCE", 4)
    monkeypatch.setattr(kept, "ROWS", 4)
    return tmp_path / "cache"


# rows by keys


def doubled(asked: list[int], keys: np.ndarray):
    """Makes rows of two values for keys, all but negative ones, and notes which it was asked for."""

    def make(positions):
        asked.extend(keys[positions].tolist())
        good = keys[positions] >= 0
        return good, {"value": torch.from_numpy(np.stack([keys[positions][good], 2 * keys[positions][good]], 1))}

    return make


def rows_for(keys, asked):
    keys = np.array(keys, np.int64)
    return kept_rows("doubled", keys, doubled(asked, keys), "doubling", batch=3)


def test_each_key_is_worked_out_once(cache):
    asked = []
    positions, rows = rows_for([5, 3, 5, -1, 9], asked)
    assert positions.tolist() == [0, 1, 2, 4]
    assert rows["value"].tolist() == [[5, 10], [3, 6], [5, 10], [9, 18]]
    assert sorted(asked) == [-1, 3, 5, 9]
    asked.clear()
    positions, rows = rows_for([9, 7, 3, -1], asked)
    assert positions.tolist() == [0, 1, 2]
    assert rows["value"].tolist() == [[9, 18], [7, 14], [3, 6]]
    assert sorted(asked) == [-1, 7]  # what could not be worked out is tried again


def test_nothing_gives_nothing(cache):
    positions, rows = rows_for([-1, -2], [])
    assert (len(positions), rows) == (0, {})
    assert len(rows_for([], [])[0]) == 0


def test_what_was_done_before_an_end_is_kept(cache):
    keys, asked = np.arange(10, dtype=np.int64), []
    make = doubled(asked, keys)

    def stopped(positions):
        if 7 in keys[positions]:
            raise KeyboardInterrupt
        return make(positions)

    with pytest.raises(KeyboardInterrupt):
        kept_rows("doubled", keys, stopped, "doubling", batch=3)
    asked.clear()
    assert rows_for(range(10), asked)[1]["value"][:, 1].tolist() == list(range(0, 20, 2))
    assert asked == [6, 7, 8, 9]


def test_a_damaged_file_is_made_anew(cache, capsys):
    rows_for(range(8), [])
    one, other = sorted((cache / "by_image" / "doubled").glob("*.safetensors"))
    one.write_bytes(one.read_bytes()[:-4] + b"\1\1\1\1")
    other.write_bytes(b"of an earlier version")
    asked = []
    assert rows_for(range(8), asked)[1]["value"][:, 1].tolist() == list(range(0, 16, 2))
    assert asked == list(range(8))
    told = capsys.readouterr().out
    assert told.count("was damaged and is made anew") == 2
    asked.clear()
    rows_for(range(8), asked)
    assert asked == []


def test_small_files_are_gathered(tmp_path):
    for key in range(20):
        write_rows(tmp_path, np.array([key, key + 100]), {"value": torch.tensor([key, 2 * key])})
    gather(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    ((places, rows),) = found_rows(tmp_path, np.array([3, 7, 103, 500]))
    assert dict(zip(places.tolist(), rows["value"].tolist())) == {0: 3, 1: 7, 2: 6}


def test_several_processes_at_once_lose_nothing(cache, monkeypatch):
    monkeypatch.setattr(kept, "MANY", 3)  # gathered all the time
    several = multiprocessing.get_context("fork")
    told = several.SimpleQueue()

    def work(start):
        told.put((start, rows_for(range(start, start + 60), [])[1]["value"][:, 1].tolist()))

    workers = [several.Process(target=work, args=(start,)) for start in (0, 20, 40, 40)]
    for worker in workers:
        worker.start()
    found = [told.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert all(values == list(range(2 * start, 2 * start + 120, 2)) for start, values in found)
    asked = []
    rows_for(range(100), asked)
    assert asked == []


def test_what_was_used_longest_ago_goes_first(tmp_path, monkeypatch, capsys):
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "two"]
    paths = [write_rows(folder, np.array([n]), {"value": torch.zeros(1, 1000)}) for n, folder in enumerate(folders)]
    for age, path in enumerate(paths):
        os.utime(path, (1e9 - age, 1e9 - age))
    monkeypatch.setattr(kept, "_used", {paths[2]})  # the oldest, which this process needs
    keep_below(tmp_path, 9000)
    assert [path.exists() for path in paths] == [True, False, True]
    assert "what was used longest ago is removed" in capsys.readouterr().out
    keep_below(tmp_path, 1000)
    assert [path.exists() for path in paths] == [False, False, True]


def test_keys_are_numbers_of_all_that_they_are_told():
    assert row_key("a", 1.0) != row_key("a", 2.0)
    assert -(2**63) <= row_key("a") < 2**63


# a season, by commands and files


class Place:
    """A catalogue of two animals and a week of photographs, and what answering costs."""

    def __init__(self, root: Path, weights: Path, monkeypatch):
        self.root, self.weights, self.cost = root, weights, Counter()
        for number in range(10):
            self.draw(root / "known" / ("Ara", "Bo")[number % 2] / f"{number}.jpg", number)
        for number in range(5):
            self.draw(root / "week" / f"w{number}.jpg", 20 + number)
        strengths, finder = likeness.strengths_of, albums.spot_finder

        def counted_strengths(features, pairs, device):
            self.cost["pairs"] += len(pairs)
            return strengths(features, pairs, device)

        def counted_finder(*arguments):
            find = finder(*arguments)

            def counted(picture):
                self.cost["spots"] += 1
                return find(picture)

            return counted

        monkeypatch.setattr(likeness, "strengths_of", counted_strengths)
        monkeypatch.setattr(albums, "spot_finder", counted_finder)

    @staticmethod
    def draw(path: Path, seed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        squares = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
        Image.fromarray(squares).resize((144, 108), Image.Resampling.NEAREST).save(path, quality=95)

    def answer(self, name: str, *options: str) -> dict[str, str]:
        """The tables of a command's answers; what it cost is in `cost`."""

        def passed(module, inputs, _):
            if isinstance(module, jaguar_kit.Embedder):
                self.cost["passes"] += len(inputs[0])

        self.cost.clear()
        given = ["--backbone", self.weights, "--catalogue", self.root / "known", "--queries", self.root / "week"]
        given += ["--out", self.root / f"answers-{name}", "--device", "cpu", *options]
        with torch.nn.modules.module.register_module_forward_hook(passed), jaguar_kit.quiet():
            assert jaguar_kit.main(jaguar_kit.any_command, ["identify", *map(str, given)]) == 0
        return {
            table: (self.root / f"answers-{name}" / table).read_text().replace(f"answers-{name}", "")
            for table in TABLES
        }


@pytest.fixture
def place(tmp_path, weights, cache, monkeypatch):
    monkeypatch.setattr(albums, "LOCAL_SIZE", 96)
    monkeypatch.setattr(albums, "LOCAL_POINTS", 16)
    return Place(tmp_path, weights, monkeypatch)


@pytest.mark.ci
def test_an_added_photograph_costs_one_pass(place, cache):
    cold = place.answer("cold", "--local")
    assert (place.cost["passes"], place.cost["spots"]) == (15, 15)
    pairs = place.cost["pairs"]
    assert place.answer("warm", "--local") == cold
    assert place.cost == {}
    place.draw(place.root / "known" / "Ara" / "new.jpg", 40)
    added = place.answer("added", "--local")
    assert (place.cost["passes"], place.cost["spots"]) == (1, 1)
    assert 0 < place.cost["pairs"] < pairs / 2
    shutil.rmtree(cache)
    assert place.answer("again", "--local") == added
    (place.root / "known" / "Ara" / "new.jpg").unlink()
    assert place.answer("before", "--local") == cold
    assert place.cost == {}


def test_renamed_folders_and_captions_cost_nothing(place):
    place.answer("first")
    (place.root / "week").rename(place.root / "card 1")
    (place.root / "week").mkdir()
    (place.root / "card 1").rename(place.root / "week" / "card 1")
    place.answer("second")
    assert place.cost["passes"] == 0
    for path in (place.root / "week").rglob("*.jpg"):
        content = path.read_bytes()
        path.write_bytes(content[:2] + b"\xff\xfe\x00\x08seen!!" + content[2:])  # a comment
    place.answer("third")
    assert place.cost["passes"] == 0


def test_a_picture_that_is_turned_by_its_tag_is_another(place):
    place.answer("first")
    path = place.root / "week" / "w0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    content, told = path.read_bytes(), exif.tobytes()
    path.write_bytes(content[:2] + b"\xff\xe1" + (len(told) + 2).to_bytes(2, "big") + told + content[2:])
    place.answer("second")
    assert place.cost["passes"] == 1


@pytest.mark.ci
def test_half_a_cache_gives_the_same_answers(place, cache):
    cold = place.answer("cold", "--local")
    for kind in (cache / "by_image").iterdir():
        for path in sorted(kind.iterdir())[::2]:
            path.unlink()
    assert place.answer("half", "--local") == cold
    assert 0 < place.cost["passes"] < 15


@pytest.mark.ci
def test_a_box_is_a_picture_of_its_own(place):
    place.answer("whole")
    boxes = place.root / "boxes.csv"
    boxes.write_text("path,bbox\n" + "".join(f"w{n}.jpg,0.1 0.1 0.8 0.8\n" for n in range(3)))
    first = place.answer("boxed", "--boxes", str(boxes))
    assert place.cost["passes"] == 3
    assert place.answer("again", "--boxes", str(boxes)) == first
    assert place.cost["passes"] == 0


def test_a_photograph_that_can_not_be_read_is_told_each_time(place, capsys):
    (place.root / "week" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    for name, passes in (("first", 15), ("second", 0)):
        place.answer(name)
        assert place.cost["passes"] == passes
        report = (place.root / f"answers-{name}" / "report.html").read_text()
        assert "1 images in" in report
        assert "broken.jpg" in report


KILLED = """
import os, sys
import jaguar_kit
jaguar_kit.room("experiments.page")
from jaguar_kit_tools.identify import albums, kept

albums.AT_ONCE, kept.ROWS, left, embed = 4, 4, [9], albums.embed

def ends(*arguments):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), 9)
    return embed(*arguments)

albums.embed = ends
jaguar_kit.main(jaguar_kit.any_command, sys.argv[1:])
"""


@pytest.mark.ci
def test_what_was_embedded_before_a_kill_is_not_embedded_again(place):
    words = ["identify", "--backbone", place.weights, "--catalogue", place.root / "known", "--queries"]
    words += [place.root / "week", "--out", place.root / "killed", "--device", "cpu"]
    env = {**os.environ, "PYTHONPATH": str(Path(jaguar_kit.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", KILLED, *map(str, words)], env=env, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    after = place.answer("after")
    assert place.cost["passes"] == 15 - 8  # two times four were written
    shutil.rmtree(Path(os.environ["JAGUAR_KIT_CACHE"]))
    assert place.answer("cold") == after
