"""A season of a field biologist: features without training, decisions on a page, the next week, what comes out."""

from __future__ import annotations

import json
import re
import shutil
import sys
import types
from pathlib import Path
from urllib.parse import unquote

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import torch
from browsing import Opened, page_data, synthetic_page
from cases import every
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import KitError, load_competition, make_mini_dataset
from jaguar_kit_tools.identify import albums, decisions, facts, review
from jaguar_kit_tools.identify.encounters import Alike, encounters_of_queries
from jaguar_kit_tools.identify.grouping import group_new
from jaguar_kit_tools.identify.identify import identify
from jaguar_kit_tools.identify.likeness import MARGIN, strengths_of
from PIL import Image

MARK = "0123456789abcdef"
PROPERTY = settings(deadline=None, max_examples=60)
AWKWARD = (
    'say "cheese".png',
    "Lúcia Ñandú.png",
    "<img src=x onerror=alert(1)>.png",
    "a&b;c=1,2.png",
    f"{'long' * 50}.png",
    "50 %23.png",
)


def with_exif(image: Image.Image, path: Path, taken: str, camera: str, place: tuple | None = None) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Cam", camera
    exif.get_ifd(0x8769)[0x9003] = taken
    if place:
        exif.get_ifd(0x8825).update({1: "S", 2: (place[0], 30.0, 0.0), 3: "W", 4: (place[1], 15.0, 0.0)})
    image.convert("RGB").save(path, "JPEG", exif=exif)


class Field:
    """A catalogue of four cats, and two weeks of photographs with dates and cameras; two cats are strangers."""

    def __init__(self, root: Path):
        self.data = make_mini_dataset(root / "data", identities=6, images=84)
        train = load_competition(self.data).train
        self.truth, self.names = {}, sorted(set(train.identity))
        self.catalogue, self.weeks = root / "catalogue", [root / "week1", root / "week2"]
        for name in self.names:
            rows = train[train.identity == name]
            for number, row in enumerate(rows.itertuples()):
                image = Image.open(self.data / row.path)
                if number < 4 and name not in self.names[-2:]:
                    (self.catalogue / name).mkdir(parents=True, exist_ok=True)
                    image.convert("RGB").save(self.catalogue / name / f"{number}.png")
                elif number < 10:
                    folder = self.weeks[number % 2] / f"card{number % 3}"
                    folder.mkdir(parents=True, exist_ok=True)
                    taken = f"2026:05:{number + 1:02d} 06:{self.names.index(name):02d}:{number:02d}"
                    with_exif(image, folder / f"{name}_{number}.jpg", taken, f"T{number % 3}", (16, 56))
                    self.truth[folder.name + f"/{name}_{number}.jpg"] = name


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    return Field(tmp_path_factory.mktemp("field"))


@pytest.fixture(scope="module")
def first(field, weights, tmp_path_factory):
    """The answers of the first week, and their folder."""
    out = tmp_path_factory.mktemp("season") / "answers"
    with jaguar_kit.quiet():
        return out, identify(None, field.catalogue, field.weeks[0], out, "cpu", str(weights))


def said(out: Path, *rows: tuple[str, str, str], by: str = "Ana", name: str = "decisions.csv", hour: int = 10) -> None:
    """Writes decisions (image, decision, identity) as the page does."""
    marks = {item["i"]: item["m"] for item in page_data(out)["items"]}
    root = page_data(out)["root"]
    told = [
        (marks[image], image, root, decision, identity, by, f"2026-06-01T{hour}:{number:02d}:00.000Z")
        for number, (image, decision, identity) in enumerate(rows)
    ]
    decisions.write_decisions(out / name, pd.DataFrame(told, columns=list(decisions.COLUMNS)))


def command(*arguments) -> int:
    return jaguar_kit.main(jaguar_kit.any_command, ["identify", *map(str, arguments)])


# without training


def test_features_without_training_answer_in_one_command(field, weights, tmp_path, capsys):
    options = ("--backbone", weights, "--catalogue", field.catalogue, "--queries", field.weeks[0], "--device", "cpu")
    assert command(*options, "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert "photographs: " in told
    assert "min for a thousand photographs" in told
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"answers.csv", "review.html", "report.html", "catalogue.csv", "captures.csv", "identify.json"} <= names


@pytest.fixture
def small_squares(monkeypatch):
    """Spots are looked for in squares of a few pixels."""
    monkeypatch.setattr(albums, "LOCAL_SIZE", 96)
    monkeypatch.setattr(albums, "LOCAL_POINTS", 64)


@pytest.mark.ci
def test_matching_spots_are_drawn_and_weighed(field, weights, tmp_path, small_squares):
    with jaguar_kit.quiet():
        answers = identify(None, field.catalogue, field.weeks[0], tmp_path / "out", "cpu", str(weights), local=True)
    data = page_data(tmp_path / "out")
    spots = [one["s"] for item in data["items"] for one in item["q"] if "s" in one]
    assert spots
    assert all(0 <= v <= 1 for drawn in spots for line in drawn for v in line)
    assert len(answers) == len(data["items"])


def test_an_experiment_lists_its_runs(tmp_path, field):
    for seed in (1, 2):
        (tmp_path / "runs" / "default" / f"seed{seed}").mkdir(parents=True)
        (tmp_path / "runs" / "default" / f"seed{seed}" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(KitError, match=r"an experiment of 2 runs .*default/seed1, .*default/seed2"):
        identify(tmp_path / "runs", field.catalogue, field.weeks[0], tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--backbone", "resnet5000"), "resnet5000"),
        (("--backbone", "gone.safetensors"), "there is no such file"),
        ((), "give one of them"),
        (("--backbone", "test_resnet", "--sure", "1.5"), "--sure: 1.5 (expected a share"),
        (("--previous", "nowhere"), "holds no identify.json"),
    ],
)
def test_wrong_options_are_one_line(options, part, field, tmp_path, capsys):
    usual = ("--catalogue", field.catalogue, "--queries", field.weeks[0], "--out", tmp_path / "out")
    assert command(*usual, *options) == 2
    told = capsys.readouterr().err
    assert part in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_words_but_out_are_needed_to_be_told_what_is_missing(capsys):
    assert command() == 2
    assert capsys.readouterr().err.startswith("error: --out: is missing")


# what files tell


def test_dates_cameras_and_places_come_from_the_files(field):
    _, table, _ = facts.load_queries(field.weeks[0])
    told, notes = facts.with_facts(field.weeks[0], table)
    assert not notes
    assert told.taken.str.fullmatch(r"2026-05-\d\d 06:\d\d:\d\d").all()
    assert set(told.camera) == {"Cam T0 card0", "Cam T1 card1", "Cam T2 card2"}  # no number of its own: by its folder
    assert set(told.latitude) == {"-16.5"}
    assert set(told.longitude) == {"-56.25"}
    assert told.mark.nunique() == len(told)


def test_a_photograph_is_known_again_by_what_it_holds(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x" * 200_000)
    shutil.copy(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert facts.mark_of(tmp_path / "a.jpg") == facts.mark_of(tmp_path / "b.jpg")
    for other in (b"x" * 200_001, b"y" + b"x" * 199_999, b"x" * 199_999 + b"y", b""):
        (tmp_path / "b.jpg").write_bytes(other)
        assert facts.mark_of(tmp_path / "a.jpg") != facts.mark_of(tmp_path / "b.jpg")


def test_encounters_are_found_by_time_and_likeness():
    taken = ["2026-05-01 10:00:00", "2026-05-01 10:00:30", "2026-05-01 10:10:00", "2026-05-01 12:00:00", ""]
    table = pd.DataFrame({"taken": [*taken, taken[0]], "camera": ["A"] * 5 + ["B"]})
    hashes = np.random.default_rng(0).random((6, 64)) < 0.5
    none, every = (Alike(lambda rows: np.zeros((len(rows), len(rows))), usual) for usual in (1, 0))
    apart = encounters_of_queries(table, hashes, none)
    assert apart[0] == apart[1]
    assert len(set(apart)) == 5
    alike = encounters_of_queries(table, hashes, every)
    assert alike[0] == alike[1] == alike[2]
    assert len(set(alike)) == 4  # another hour, no time at all, and another camera
    hashes[4] = hashes[3]
    assert encounters_of_queries(table.assign(taken=""), hashes, none)[4] == 3


def test_a_long_burst_is_one_encounter():
    clock = pd.date_range("2026-05-01", periods=600, freq="s").strftime("%Y-%m-%d %H:%M:%S")
    hashes = np.random.default_rng(0).random((600, 64)) < 0.5
    none = Alike(lambda rows: np.zeros((len(rows), len(rows))), 1)
    found = encounters_of_queries(pd.DataFrame({"taken": clock, "camera": "A"}), hashes, none)
    assert len(set(found)) == 1


def test_strengths_of_pairs_are_those_of_all():
    torch.manual_seed(0)
    spots = jaguar_kit.LocalFeatures(torch.rand(5, 6, 2), jaguar_kit.l2_normalize(torch.rand(5, 6, 4) - 0.3))
    every = jaguar_kit.local_similarity(spots, MARGIN)
    pairs = np.array([(i, j) for i in range(5) for j in range(i + 1, 5)])
    found = strengths_of(spots, pairs, torch.device("cpu"))
    torch.testing.assert_close(found, every[pairs[:, 0], pairs[:, 1]])
    assert found.sum() > 0


def test_columns_tell_encounters_before_time_does():
    table = pd.DataFrame({"taken": ["2026-05-01 10:00:00"] * 3, "camera": "A", "burst": ["1", "2", "1"]})
    found = encounters_of_queries(table, np.zeros((3, 64), bool), None)
    assert found[0] == found[2] != found[1]


def told_by(likeness: dict[tuple[int, int], float], count: int, usual: float = 0.8, least: float = 0.3) -> Alike:
    """Likenesses of these pairs, 0 of all others."""
    values = np.eye(count)
    for (i, j), value in likeness.items():
        values[i, j] = values[j, i] = value
    return Alike(lambda rows: values[np.ix_(rows, rows)], usual, least)


def at_station(*told: tuple[str, int], **columns: list[str]) -> pd.DataFrame:
    """Photographs of cameras of one station, some seconds after ten o'clock."""
    clock = [f"2026-05-01 10:{second // 60:02d}:{second % 60:02d}" for _, second in told]
    table = {"taken": clock, "camera": [camera for camera, _ in told], "station": "S", **columns}
    return pd.DataFrame({**table, "path": columns.get("path", [f"{n}.jpg" for n in range(len(told))])})


def far(count: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, 64)) < 0.5


def test_two_unlike_animals_within_a_minute_stay_two():
    table = at_station(("L", 0), ("L", 10), ("L", 20), ("L", 30))
    found = encounters_of_queries(table, far(4), told_by({(0, 2): 0.5, (1, 3): 0.5}, 4))
    assert found[0] == found[2] != found[1] == found[3]
    walking = told_by({(0, 1): 0.5, (1, 2): 0.5, (2, 3): 0.5}, 4)  # who turns is like the photograph before
    assert len(set(encounters_of_queries(table, far(4), walking))) == 1


def test_two_cameras_of_a_station_see_one_encounter():
    alone = at_station(("L", 0), ("R", 20), ("R", 30))
    unlike = told_by({(1, 2): 0.9}, 3)  # left is not like right
    assert len(set(encounters_of_queries(alone, far(3), unlike))) == 1
    assert len(set(encounters_of_queries(alone.assign(station=""), far(3), unlike))) == 2
    assert len(set(encounters_of_queries(alone.assign(station=["S", "T", "T"]), far(3), unlike))) == 2
    late = at_station(("L", 0), ("R", 61))
    assert len(set(encounters_of_queries(late, far(2), told_by({}, 2)))) == 2
    for flank, count in ((["left", "left"], 2), (["left", "right"], 1), (["left", ""], 1)):
        table = at_station(("L", 0), ("R", 5), flank=flank)
        assert len(set(encounters_of_queries(table, far(2), told_by({}, 2)))) == count


def test_cameras_of_the_same_name_at_two_stations_are_two():
    table = at_station(("A", 0), ("A", 5)).assign(station=["S", "T"])
    assert len(set(encounters_of_queries(table, far(2), told_by({(0, 1): 0.9}, 2)))) == 2


def test_what_several_animals_left_is_not_joined_by_force():
    table = at_station(("L", 0), ("L", 10), ("R", 5))
    found = encounters_of_queries(table, far(3), told_by({}, 3))
    assert len(set(found)) == 3
    found = encounters_of_queries(table, far(3), told_by({(1, 2): 0.85, (0, 2): 0.82}, 3))
    assert found[0] != found[1] == found[2]  # with the one that is most like it, and with no other


@pytest.mark.parametrize("told", ["", "one event"])
def test_two_animals_on_one_photograph_are_never_one(told):
    paths = ["a.jpg", "a.jpg", "b.jpg", "b.jpg"]
    table = at_station(("L", 0), ("L", 0), ("L", 5), ("L", 5), path=paths, encounter=[told] * 4)
    likeness = {(i, j): 0.9 for i in range(4) for j in range(i)} | {(0, 3): 0.99, (1, 2): 0.95}
    found = encounters_of_queries(table, far(4), told_by(likeness, 4))
    assert found[0] == found[3] != found[1] == found[2]


@PROPERTY
@given(st.integers(2, 9), st.integers(0, 10_000))
def test_encounters_of_any_likeness_keep_photographs_apart(size, seed):
    rng = np.random.default_rng(seed)
    paths = rng.integers(0, 4, size).astype(str)
    places = [
        ("LR"[camera], int(second)) for camera, second in zip(rng.integers(0, 2, size), rng.integers(0, 150, size))
    ]
    values = {(i, j): rng.random() for i in range(size) for j in range(i)}
    table = at_station(*places, path=list(paths))
    found = encounters_of_queries(table, far(size), told_by(values, size))
    for path in set(paths):
        assert len(set(found[paths == path])) == (paths == path).sum()


def test_raw_files_are_read_by_their_preview(tmp_path, monkeypatch):
    image = Image.fromarray(np.full((20, 30, 3), 77, np.uint8))
    image.save(tmp_path / "preview.jpg")
    kinds = types.SimpleNamespace(JPEG="jpeg", BITMAP="bitmap")

    class Raw:
        def __init__(self, path):
            assert path.endswith(".nef")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def extract_thumb(self):
            return types.SimpleNamespace(format="jpeg", data=(tmp_path / "preview.jpg").read_bytes())

    fake = types.ModuleType("rawpy")
    fake.ThumbFormat, fake.imread, fake.__spec__ = kinds, Raw, types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "rawpy", fake)
    jaguar_kit.image_suffixes.cache_clear()
    try:
        (tmp_path / "camera").mkdir()
        (tmp_path / "camera" / "IMG_1.nef").write_bytes(b"raw")
        assert jaguar_kit.FolderScan(tmp_path / "camera").images == [Path("IMG_1.nef")]
        store = jaguar_kit.open_store(tmp_path / "camera", ["IMG_1.nef"], 16)
        assert abs(int(store[0][..., 0].mean()) - 77) <= 2
    finally:
        monkeypatch.undo()
        jaguar_kit.image_suffixes.cache_clear()
    scan = jaguar_kit.FolderScan(tmp_path / "camera")
    assert not scan.images
    assert "pip install rawpy" in scan.notes[0] or jaguar_kit.importlib.util.find_spec("rawpy")


def test_progress_is_told_in_lines_where_nobody_looks_on(monkeypatch, capsys):
    clock = iter(np.arange(0, 1e6, 20.0))
    monkeypatch.setattr("tqdm.std.time", lambda: float(next(clock)))
    with jaguar_kit.progress(range(8), "embedding") as bar:
        list(bar)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(re.fullmatch(r"    embedding: \d of 8, [\d:?]+ left", line) for line in lines)


# decisions


def rows_of(*rows):
    table = pd.DataFrame(rows, columns=["mark", "decision", "identity", "by", "time"])
    return decisions.Decisions(table.assign(image=table.mark + ".jpg", root="/w")[list(decisions.COLUMNS)])


def test_the_last_word_of_each_counts_and_who_disagrees_is_asked_again():
    ledger = rows_of(
        ("m1", "yes", "a", "Ana", "1"), ("m1", "yes", "b", "Ana", "2"),  # Ana thought again
        ("m2", "yes", "a", "Ana", "1"), ("m2", "new", "n1", "Bo", "2"),  # two people disagree
        ("m3", "yes", "a", "Ana", "1"), ("m3", "undo", "", "Ana", "2"),
        ("m4", "skip", "", "Ana", "1"), ("m5", "yes", "c", "Ana", "1"), ("m5", "yes", "c", "Bo", "3"),
        ("m6", "no", "a", "Ana", "1"), ("m6", "no", "b", "Bo", "2"), ("m7", "no", "a", "Ana", "1"),
        ("m7", "undo", "", "Ana", "2"), ("m8", "no", "a", "Ana", "1"), ("m8", "yes", "a", "Ana", "2"),
    )  # fmt: skip
    assert dict(zip(ledger.named.mark, ledger.named.identity)) == {"m1": "b", "m5": "c", "m8": "a"}
    assert ledger.disputed == {"m2"}
    assert "1 photographs are named differently" in ledger.notes(["a", "b", "c"])[0]
    assert "1 photographs are confirmed as somebody whom the catalogue lacks: c" in ledger.notes(["a", "b"])
    assert ledger.rejected == {"m6": {"a", "b"}}


def test_links_between_photographs_are_no_names():
    ledger = rows_of(
        ("m1", "yes", "photo:m2", "Ana", "1"), ("m3", "no", "photo:m4", "Ana", "1"),
        ("m5", "yes", "photo:m6", "Ana", "1"), ("m5", "no", "photo:m6", "Ana", "2"),
        ("m7", "yes", "photo:m8", "Ana", "1"), ("m7", "undo", "", "Ana", "2"),
    )  # fmt: skip
    assert ledger.named.empty
    assert ledger.links("yes") == [("m1", "m2")]
    assert ledger.links("no") == [("m3", "m4"), ("m5", "m6")]


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 9), st.integers(0, 10**6))
def test_links_hold_in_groups_of_new_animals(size, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.random((size, size))
    matrix = (matrix + matrix.T) / 2
    pairs = [tuple(sorted(rng.choice(size, 2, replace=False).tolist())) for _ in range(4)]
    must, cannot = pairs[:2], [pair for pair in pairs[2:] if pair not in pairs[:2]]
    names, _ = group_new(matrix.copy(), 0.5, must, cannot)
    for i, j in cannot:
        assert not names[i] or names[i] != names[j]
    if not cannot:
        for i, j in must:
            assert names[i] == names[j] != ""


@every(
    ("text", "part"),
    [
        ("mark,image\nm,i\n", "column 'root' is missing"),
        (f"{MARK},i,/w,maybe,a,Ana,1\n", "line 2: decision: 'maybe'"),
        (f"{MARK},i,/w,yes,,Ana,1\n", "line 2: identity: is empty"),
        ("1.23457E+15,i,/w,yes,a,Ana,1\n", "line 2: mark: '1.23457E+15' is none"),
    ],
)
def test_a_wrong_file_of_decisions_is_told_by_its_line(text, part, tmp_path):
    head = "" if text.startswith("mark") else ",".join(decisions.COLUMNS) + "\n"
    (tmp_path / "decisions.csv").write_text(head + text)
    with pytest.raises(KitError, match=re.escape(part)):
        decisions.read_decisions(tmp_path / "decisions.csv")


def test_what_a_spreadsheet_saves_again_is_read(tmp_path):
    rows = [[MARK, "a.jpg", "/w", "yes", "007", "Ana", "1"], [""] * 7]
    text = "\n".join(";".join(row) for row in [list(decisions.COLUMNS), *rows]) + "\n"
    (tmp_path / "decisions.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    table = decisions.read_decisions(tmp_path / "decisions.csv")
    assert table.identity.tolist() == ["007"]


def test_people_without_a_name_are_known_by_their_file(tmp_path):
    for name, identity in (("decisions-1.csv", "a"), ("decisions-2.csv", "b")):
        row = [MARK, "a.jpg", "/w", "yes", identity, "", "1"]
        decisions.write_decisions(tmp_path / name, pd.DataFrame([row], columns=list(decisions.COLUMNS)))
    assert decisions.Decisions.read(tmp_path).disputed == {MARK}


def test_times_are_read_as_they_are_written():
    values = ["2026-05-03T14:05:09Z", "2026-05-03 14:05", "2026-05-03", "03/05/2026", "", "2026-05-03 14:05:19.5"]
    told, strange = facts.times_of(pd.Series(values))
    assert told.tolist() == [
        "2026-05-03 14:05:09", "2026-05-03 14:05:00", "2026-05-03", "", "", "2026-05-03 14:05:19",
    ]  # fmt: skip
    assert (strange.unreadable, strange.implausible, strange.offsets) == (1, 0, 1)


def test_a_date_of_the_table_keeps_the_time_of_its_day(field):
    _, table, _ = facts.load_queries(field.weeks[0])
    own, _ = facts.with_facts(field.weeks[0], table)
    dated, notes = facts.with_facts(
        field.weeks[0], table.assign(date=["3/5/26", *own.taken.str[:10][1:-1], "2020-01-01"])
    )
    assert dated.taken[:-1].tolist() == own.taken[:-1].tolist()
    assert dated.taken.iloc[-1] == "2020-01-01"
    assert "column date: 1 values are no dates" in notes[0]


def test_a_file_without_any_decision_is_read(tmp_path):
    decisions.write_decisions(tmp_path / "decisions.csv", pd.DataFrame(columns=list(decisions.COLUMNS), dtype=str))
    assert decisions.Decisions.read(tmp_path).rows.empty


# next week


@pytest.mark.ci
def test_the_next_week_goes_on_from_what_was_decided(field, first, tmp_path, capsys):
    out = Path(shutil.copytree(first[0], tmp_path / "answers1"))
    images = first[1].image.tolist()
    known = [image for image in images if field.truth[image] in field.names[:4]]
    stranger = next(image for image in images if field.truth[image] == field.names[4])
    said(
        out, (known[0], "yes", field.truth[known[0]]), (known[1], "no", "cat00"), (stranger, "new", "new-001"),
        (known[2], "skip", ""),
    )  # fmt: skip
    again = ("--previous", out, "--queries", field.weeks[0], "--out", tmp_path / "answers1b", "--device", "cpu")
    assert command(*again) == 0
    told = capsys.readouterr().out
    assert "the catalogue grows by 2 photographs that were named" in told
    answers = pd.read_csv(tmp_path / "answers1b" / "answers.csv", encoding="utf-8-sig", keep_default_na=False)
    assert set(answers.image) == set(images) - {known[0], stranger}
    rejected = answers.set_index("image").loc[known[1]]
    assert "cat00" not in [rejected[name] for name in ("identity", "identity_2", "identity_3", "identity_4")]
    catalogue = pd.read_csv(tmp_path / "answers1b" / "catalogue.csv", encoding="utf-8-sig", dtype=str)
    assert set(catalogue.identity) == {*field.names[:4], "new-001"}
    assert len(catalogue) == 18
    said(tmp_path / "answers1b", (known[2], "yes", "cat01"), hour=11)
    moved = shutil.copytree(field.weeks[1], tmp_path / "week2")  # with an old photograph that lies elsewhere now
    shutil.copy(field.weeks[0] / known[0], moved / "old one.jpg")
    assert command("--previous", tmp_path / "answers1b", "--queries", moved, "--out", tmp_path / "answers2") == 0
    answers = pd.read_csv(tmp_path / "answers2" / "answers.csv", encoding="utf-8-sig", keep_default_na=False)
    assert "old one.jpg" not in set(answers.image)
    of_week = ~answers.image.str.startswith("..")
    assert of_week.sum() == len(list(field.weeks[1].rglob("*.jpg")))
    earlier = {Path(image).name for image in answers.image[~of_week]}  # which nobody has decided, and are asked again
    assert earlier == {Path(image).name for image in set(images) - {known[0], stranger, known[2]}}
    history = decisions.read_decisions(tmp_path / "answers2" / "history.csv")
    assert len(history) == 5  # of both weeks, skips and rejections too
    catalogue = pd.read_csv(tmp_path / "answers2" / "catalogue.csv", encoding="utf-8-sig", dtype=str)
    assert len(catalogue) == 19


@pytest.mark.ci
def test_another_photograph_under_an_old_name_is_not_taken_for_it(field, first, tmp_path, weights):
    card = Path(shutil.copytree(field.weeks[0], tmp_path / "card"))
    with jaguar_kit.quiet():
        identify(None, field.catalogue, card, tmp_path / "one", "cpu", str(weights))
    image = first[1].image[0]
    said(tmp_path / "one", (image, "yes", "cat00"))
    shutil.copy(next(field.weeks[1].rglob("*.jpg")), card / image)
    with jaguar_kit.quiet():
        answers = identify(previous=tmp_path / "one", out=tmp_path / "two", device="cpu")
    assert image in set(answers.image)
    told = (tmp_path / "two" / "report.md").read_text(encoding="utf-8")
    assert "1 photographs that were named are no longer where they were" in told
    assert len(pd.read_csv(tmp_path / "two" / "catalogue.csv", encoding="utf-8-sig")) == 16


@pytest.mark.ci
def test_settings_go_on_from_week_to_week(field, weights, tmp_path):
    with jaguar_kit.quiet():
        first = {"sure": 0.6, "fresh": 0.7, "share_new": 0.2}
        identify(None, field.catalogue, field.weeks[0], tmp_path / "one", "cpu", str(weights), **first)
        identify(previous=tmp_path / "one", queries=field.weeks[1], out=tmp_path / "two", device="cpu", fresh=0.8)
    told = json.loads((tmp_path / "two" / "identify.json").read_text())
    assert (told["sure"], told["new"], told["share_new"]) == (0.6, 0.8, None)


def test_files_of_several_people_are_merged(field, first, tmp_path, capsys):
    out = Path(shutil.copytree(first[0], tmp_path / "answers"))
    images = first[1].image.tolist()
    said(out, (images[0], "yes", "cat00"), (images[1], "yes", "cat01"))
    said(out, (images[1], "yes", "cat02"), (images[2], "yes", "cat02"), by="Bo", name="decisions-Bo.csv")
    more = Path(shutil.copytree(first[0], tmp_path / "more"))
    said(more, (images[3], "yes", "cat03"), by="Cy")
    line = ("--previous", out, "--decisions", more / "decisions.csv", "--out", tmp_path / "next", "--device", "cpu")
    assert command(*line) == 0
    told = capsys.readouterr().out
    assert f"1 photographs are named differently, and asked for again: {images[1]}" in told
    asked = pd.read_csv(tmp_path / "next" / "answers.csv", encoding="utf-8-sig").image
    assert set(images) - set(asked) == {images[0], images[2], images[3]}


def test_where_everything_is_decided_there_is_nothing_to_ask(field, first, tmp_path):
    out = Path(shutil.copytree(first[0], tmp_path / "answers"))
    said(out, *((image, "yes", "cat00") for image in first[1].image))
    with pytest.raises(KitError, match="all of its photographs are decided"):
        identify(previous=out, out=tmp_path / "next", device="cpu")


# what comes out


def test_sightings_are_written_with_their_basis(field, first, tmp_path):
    out = Path(shutil.copytree(first[0], tmp_path / "answers"))
    image = first[1].image[0]
    said(out, (image, "yes", "cat00"))
    with jaguar_kit.quiet():
        identify(previous=out, out=tmp_path / "next", device="cpu")
    seen = pd.read_csv(tmp_path / "next" / "captures.csv", encoding="utf-8-sig", dtype=str, keep_default_na=False)
    assert set(seen.basis) <= {"catalogue", "person", "sure"}
    (row,) = seen[seen.basis == "person"].to_dict("records")
    assert (row["identity"], row["image"], row["latitude"]) == ("cat00", image, "-16.5")
    history = pd.read_csv(tmp_path / "next" / "capture_history.csv", encoding="utf-8-sig")
    assert history.set_index("identity").loc["cat00", row["occasion"]] == 1
    report = (tmp_path / "next" / "report.md").read_text(encoding="utf-8")
    assert "## Who was seen" in report
    assert "map.png" in report  # photographs tell where they were taken


# the page


def test_awkward_names_go_through_page_and_files(field, weights, tmp_path):
    folder = tmp_path / "odd & <i>"
    folder.mkdir()
    sources = sorted(field.weeks[0].rglob("*.jpg"))
    for name, source in zip(AWKWARD, sources):
        Image.open(source).save(folder / name)
    with jaguar_kit.quiet():
        answers = identify(None, field.catalogue, folder, tmp_path / "out", "cpu", str(weights))
    assert sorted(answers.image) == sorted(AWKWARD)
    written = pd.read_csv(tmp_path / "out" / "answers.csv", encoding="utf-8-sig")
    assert sorted(written.image) == sorted(AWKWARD)
    page = (tmp_path / "out" / "review.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    for item in page_data(tmp_path / "out")["items"]:
        assert (tmp_path / "out" / item["t"]).is_file()
        assert (tmp_path / "out" / unquote(item["f"])).resolve() == (folder / item["i"]).resolve()


def test_a_name_that_is_no_text_is_told_in_one_line(field, weights, tmp_path, capsys):
    (tmp_path / "odd").mkdir()
    try:
        Path(tmp_path / "odd" / b"caf\xe9.jpg".decode("utf-8", "surrogateescape")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    line = ("--backbone", weights, "--catalogue", field.catalogue, "--queries", tmp_path / "odd")
    assert command(*line, "--out", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "is not UTF-8; rename it" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.ci
def test_a_person_decides_reloads_exports_merges_and_goes_on_next_week(browser, field, first, tmp_path):
    out = Path(shutil.copytree(first[0], tmp_path / "answers"))
    one = Opened(browser, out / "review.html")
    total = len(first[1])
    one.page.fill("#by", "Ana")
    one.page.focus("#list")
    for number in range(10):  # twenty keys: the second candidate is no, then the first is yes
        one.press("2", "n", "1", "y") if number % 2 else one.press("y")
    assert one.count() == f"10 of {total} decided, {total} shown"
    one.press("w")
    one.page.fill("#n-name", "Niña <b>")
    one.press("Shift+Enter")  # this photograph alone, not its encounter
    one.press("s", "u")
    one.press("w", "Escape")
    assert one.count() == f"11 of {total} decided, {total} shown"
    one.page.reload()
    one.page.wait_for_selector(".row")
    assert one.count() == f"11 of {total} decided, {total} shown"
    assert one.page.input_value("#by") == "Ana"
    one.page.click("#filters > summary") if not one.page.is_visible("#f-kind") else None
    one.page.select_option("#f-kind", "open")
    assert one.count() == f"11 of {total} decided, {total - 11} shown"
    one.page.select_option("#f-kind", "")
    one.export(out / "decisions-Ana.csv")
    told = decisions.read_decisions(out / "decisions-Ana.csv")
    assert (told.decision == "yes").sum() == 10
    assert told[told.decision == "new"].identity.tolist() == ["Niña <b>"]
    other = Opened(browser, out / "review.html")  # somebody else's browser
    assert other.count().startswith("0 of")
    other.page.fill("#by", "Bo")
    other.page.focus("#list")
    other.press("2", "y")
    other.page.set_input_files("#import", out / "decisions-Ana.csv")
    other.wait_for_count("merged")
    other.page.select_option("#f-kind", "dispute")
    assert "10 of" in other.count()
    assert ", 1 shown" in other.count()
    assert "Ana: " in other.page.inner_text(".said.dispute")
    other.export(out / "decisions-Bo.csv")
    assert one.faults == other.faults == []
    with jaguar_kit.quiet():
        answers = identify(previous=out, queries=field.weeks[1], out=tmp_path / "next", device="cpu")
    assert "Niña <b>" in set(pd.read_csv(tmp_path / "next" / "catalogue.csv", encoding="utf-8-sig").identity)
    second = Opened(browser, tmp_path / "next" / "review.html")
    assert second.count() == f"0 of {len(answers)} decided, {len(answers)} shown"
    assert second.page.evaluate("document.querySelectorAll('b').length") == 1  # the comparison's own title
    assert second.faults == []


def test_an_encounter_is_confirmed_at_once(browser, tmp_path):
    path = synthetic_page(tmp_path / "page", 12)
    text = path.read_text(encoding="utf-8")
    data = page_data(tmp_path / "page")
    for item in data["items"][3:7]:
        item.update(e=99, es=4)
    review.write_page(path, data)
    assert text != path.read_text(encoding="utf-8")
    opened = Opened(browser, path)
    opened.press("j", "j", "j", "j", "2", "a")
    assert opened.count() == "4 of 12 decided, 12 shown"
    opened.export(tmp_path / "decisions.csv")
    told = decisions.read_decisions(tmp_path / "decisions.csv")
    assert set(told.mark) == {f"{i:016x}" for i in range(3, 7)}
    assert set(told.identity) == {data["items"][4]["q"][1]["n"]}
    assert opened.faults == []


def test_keys_act_on_what_is_shown(browser, tmp_path):
    path = synthetic_page(tmp_path / "page", 12)
    opened = Opened(browser, path)
    opened.press("j", "4", "c", "ArrowDown", "j", "s", "y")  # behind the comparison nothing moves
    opened.press("u")
    opened.press("5")
    opened.page.select_option("#f-camera", "camera 3")
    opened.page.focus("#list")
    opened.press("y")
    second = opened.page.context.new_page()  # another window of the same page
    second.goto(path.as_uri())
    second.wait_for_selector(".row")
    second.keyboard.press("s")
    opened.page.fill("#by", "Ana")
    opened.page.focus("#list")
    opened.press("j", "y")
    opened.export(tmp_path / "decisions.csv")
    told = decisions.read_decisions(tmp_path / "decisions.csv")
    history = told.assign(mark="f" * 16, time="2030-01-01")  # of another page, and later
    decisions.write_decisions(tmp_path / "history.csv", history)
    opened.page.set_input_files("#import", tmp_path / "history.csv")
    opened.wait_for_count("merged")
    opened.page.focus("#list")
    opened.press("u")
    opened.export(tmp_path / "later.csv")
    last = decisions.read_decisions(tmp_path / "later.csv").iloc[-1]
    assert (last.mark, last.decision) == (f"{3:016x}", "undo")
    assert list(zip(told.mark.str.lstrip("0"), told.decision, told.identity)) == [
        ("1", "yes", "animal 4"), ("1", "undo", told.time[0]), ("3", "yes", "animal 3"), ("", "skip", ""),
        ("3", "yes", "animal 3"),
    ]  # fmt: skip
    assert set(told.by) == {"Ana"}
    assert opened.faults == []


def test_a_word_is_taken_back_disputed_and_settled_on_the_page(browser, tmp_path):
    path = synthetic_page(tmp_path / "page", 12)
    data = page_data(tmp_path / "page")
    for item in data["items"][3:6]:
        item.update(e=99, es=3)
    review.write_page(path, data)
    opened = Opened(browser, path)
    opened.page.fill("#by", "Ana")
    opened.page.focus("#list")
    words = lambda: [opened.page.inner_text(f"#row{row} .said") for row in range(3)]  # noqa: E731
    opened.press("n", "2", "y", "u")  # the first is not the one, and the second after all neither
    assert opened.page.locator("#row0 .card.out").count() == 1  # what was said before stands
    assert words()[0] == ""
    opened.press("2", "y", "k", "2", "n")
    assert words()[0] == ""  # she thought again
    opened.press("j", "y")
    assert words()[1] == "✓ animal 1"
    decided = [
        (f"{1:016x}", "i", "/w", "no", "animal 1", by, f"2030-01-0{day}") for day, by in enumerate(("Ben", "Cy"), 1)
    ]
    for number, counts in ((1, "! Ana: animal 1, Ben: not animal 1"), (2, "")):
        told = pd.DataFrame(decided[number - 1 : number], columns=list(decisions.COLUMNS))
        decisions.write_decisions(tmp_path / f"{number}.csv", told)
        opened.page.set_input_files("#import", tmp_path / f"{number}.csv")
        opened.wait_for_count(f"1 decisions of {number}.csv merged")
        assert words()[1] == counts
    opened.page.focus("#list")
    opened.press("j", "3", "n", "j", "j", "a")  # of three together one is no animal 5, and the last is, with all
    opened.export(tmp_path / "decisions.csv")
    told = decisions.Decisions(decisions.read_decisions(tmp_path / "decisions.csv"))
    assert told.rejected[f"{1:016x}"] == {"animal 1"}
    assert dict(zip(told.named.mark, told.named.identity)) == {f"{i:016x}": "animal 5" for i in (4, 5)}
    assert opened.faults == []


@pytest.mark.ci
@pytest.mark.parametrize("width", [1280, 390])
def test_five_thousand_photographs_stay_fluid(browser, width, tmp_path):
    path = synthetic_page(tmp_path / "page", 5000)
    opened = Opened(browser, path, width)
    first_row = opened.page.evaluate("performance.now()")
    assert first_row < 2000
    for fraction in (0.2, 0.9, 0.5, 1.0):
        opened.page.evaluate(f"(l => l.scrollTop = l.scrollHeight * {fraction})(document.getElementById('list'))")
        opened.page.wait_for_timeout(60)
        assert opened.page.evaluate("document.querySelectorAll('.row').length") < 20
    begun = opened.page.evaluate("performance.now()")
    opened.press(*["y"] * 20)
    assert (opened.page.evaluate("performance.now()") - begun) / 20 < 250  # ms for each decision
    assert opened.page.evaluate("performance.memory.usedJSHeapSize") < 2**30
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.faults == []


@pytest.mark.ci
def test_two_pictures_are_compared_with_their_spots(browser, field, weights, tmp_path, small_squares):
    with jaguar_kit.quiet():
        identify(None, field.catalogue, field.weeks[0], tmp_path / "out", "cpu", str(weights), local=True)
    data = page_data(tmp_path / "out")
    at = next(i for i, item in enumerate(data["items"]) if item["q"][0].get("s"))
    opened = Opened(browser, tmp_path / "out" / "review.html")
    opened.press(*["j"] * at, "c")
    opened.page.wait_for_selector("#compare svg line", state="attached")
    drawn = opened.page.evaluate("document.querySelectorAll('#compare svg line').length")
    assert drawn == 2 * len(data["items"][at]["q"][0]["s"])
    assert opened.page.evaluate("document.getElementById('c-one').naturalWidth") > 0
    opened.press("ArrowRight")
    assert "2 of" in opened.page.inner_text("#c-note")
    opened.press("Escape")
    assert not opened.page.is_visible("#compare")
    assert opened.faults == []
