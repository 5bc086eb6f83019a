"""The ledger of sightings: weeks with mistakes, names that change, and what people said, which is never lost."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from pathlib import Path

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
from cases import every
from jaguar_kit import KitError
from jaguar_kit_tools.identify import decisions, facts, individuals, marks
from jaguar_kit_tools.identify import identify as identify_room
from jaguar_kit_tools.identify import ledger as ledger_room
from jaguar_kit_tools.identify.answers import answer_table
from jaguar_kit_tools.identify.decisions import Decisions
from jaguar_kit_tools.identify.identify import close_season, identify
from jaguar_kit_tools.identify.ledger import ENTRY, Ledger
from jaguar_kit_tools.identify.marks import picture_mark
from PIL import Image, PngImagePlugin


def picture(path: Path, seed: int, taken: str = "", camera: str = "", caption: str = "") -> Path:
    """A photograph of coloured squares; caption: into EXIF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    squares = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Cam", camera
    if caption:
        exif[0x010E] = caption
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken.replace("-", ":")
        exif.get_ifd(0x8825).update({1: "S", 2: (16.0, 30.0, 0.0), 3: "W", 4: (56.0, 15.0, 0.0)})
    Image.fromarray(squares).resize((96, 72), Image.Resampling.NEAREST).save(path, exif=exif)
    return path


class Season:
    """A catalogue of Ara and Bo, and four weeks of two cameras; photographs are called by their week and number."""

    def __init__(self, root: Path, weights: Path):
        self.root, self.weights = root, weights
        for n in range(6):
            picture(root / "known" / ("Ara", "Bo")[n % 2] / f"{n}.png", n)
        self.photos = root / "photos"

    def cards(self, week: int, caption: str = "") -> Path:
        """The photographs of a week, one a day; with a caption where one is written into all of them."""
        folder = self.photos / f"week{week}"
        for n in range(1, 6):
            day = f"2026-05-{7 * (week - 1) + n:02d} 0{n}:00:00"
            picture(folder / f"w{week}_{n}.jpg", 100 * week + n, day, f"T{n % 2}", caption)
        return folder

    def answer(self, week: int, queries: Path, **more) -> Path:
        out = self.root / f"answers{week}"
        if week == 1:
            more = {"catalogue": self.root / "known", "backbone": str(self.weights), **more}
        else:
            more["previous"] = self.root / f"answers{week - 1}"
        identify(queries=queries, out=out, device="cpu", **more)
        return out


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False)


def said(out: Path, *rows: tuple[str, str, str], by: str = "Ana", name: str = "decisions.csv", time: str = "") -> None:
    """Writes decisions (name of the photograph, decision, identity) as the page of these answers does."""
    answers = table(out / "answers.csv")
    answers = answers.assign(name=answers.image.map(lambda image: Path(image).stem)).set_index("name")
    root = json.loads((out / "identify.json").read_text())["root"]
    told = [
        (answers.mark[photo], answers.image[photo], root, decision, identity, by, f"{time or out.name}.{number:03d}")
        for number, (photo, decision, identity) in enumerate(rows)
    ]
    decisions.write_decisions(out / name, pd.DataFrame(told, columns=list(decisions.COLUMNS)))


def captured(out: Path, basis: str = "person") -> dict[str, str]:
    """The names of the sightings of a basis, by photograph."""
    seen = table(out / "captures.csv")
    seen = seen[seen.basis == basis]
    return dict(zip(seen.image.map(lambda image: Path(image).stem), seen.identity))


def history(out: Path) -> dict[str, list[str]]:
    """The days on which each animal was seen."""
    seen = pd.read_csv(out / "capture_history.csv", encoding="utf-8-sig").set_index("identity")
    assert set(np.unique(seen)) <= {0, 1}
    return {name: [day[-2:] for day in seen.columns if row[day]] for name, row in seen.iterrows() if row.any()}


def asked(out: Path) -> set[str]:
    return {Path(image).stem for image in table(out / "answers.csv").image}


# four weeks


@pytest.fixture(scope="module")
def season(tmp_path_factory, weights):
    """Four weeks with mistakes; what was said is checked at the end."""
    field = Season(tmp_path_factory.mktemp("season"), weights)
    with jaguar_kit.quiet():
        first = field.answer(1, field.cards(1).parent)
        said(
            first, ("w1_1", "yes", "Ara"), ("w1_2", "yes", "Bo"), ("w1_3", "new", "Kudu"), ("w1_4", "skip", ""),
        )  # fmt: skip
        said(first, ("w1_1", "yes", "Ara"), by="Ben", name="Ben.csv")  # a second name for the file, and a second person
        # the folder is renamed, and captions go into EXIF
        field.cards(1, caption="seen by the river")
        (field.photos / "week1").rename(field.photos / "May, first week")
        field.cards(2)
        second = field.answer(2, field.photos)
        said(second, ("w2_1", "yes", "Ara"), ("w2_2", "new", "kudu"), ("w2_3", "yes", "Bo"), ("w1_4", "yes", "Ara"))
        said(second, ("w2_3", "no", "Bo"), ("w2_1", "yes", "Ara"), by="Ben", name="decisions-Ben.csv")
        # Ana thinks again of a photograph of week 1, whose page she still has
        said(first, ("w1_2", "yes", "Ara"), name="anna.csv", time="answers2.9")
        third = field.answer(3, field.cards(3))
        said(third, ("w3_1", "yes", "kudu"), ("w3_2", "yes", "Bo"), ("w1_5", "yes", "Bo"))
        said(third, ("w2_3", "yes", "Bo"), by="Cy", name="decisions-Cy.csv")  # a third person settles it
        (third / "individuals.csv").write_text("action,from,to,marks\nmerge,kudu,Kudu,\nrename,Bo,Boris,\n")
        shutil.rmtree(field.photos / "May, first week")  # the disk of that week is full
        fourth = field.answer(4, field.cards(4))
        said(fourth, ("w4_1", "yes", "Kudu"), ("w4_2", "yes", "Boris"))
    return field


def test_every_sighting_of_the_first_week_is_there_in_the_fourth(season):
    end = season.root / "answers4"
    assert captured(end) == {
        "w1_1": "Ara", "w1_2": "Ara", "w1_3": "Kudu", "w1_4": "Ara", "w1_5": "Boris",
        "w2_1": "Ara", "w2_2": "Kudu", "w2_3": "Boris", "w3_1": "Kudu", "w3_2": "Boris",
    }  # fmt: skip
    seen = table(end / "captures.csv").set_index("image")
    assert set(seen.latitude[seen.basis == "person"]) == {"-16.5"}
    row = next(row for image, row in seen.iterrows() if image.endswith("w2_2.jpg"))
    assert "week 2: new kudu by Ana; week 3: merge kudu to Kudu" in row.history
    assert len(captured(end, "catalogue")) == 6


def test_capture_histories_are_right_by_hand(season):
    assert history(season.root / "answers4") == {
        "Ara": ["01", "02", "04", "08"], "Kudu": ["03", "09", "15"], "Boris": ["05", "10", "16"],
    }  # fmt: skip
    effort = pd.read_csv(season.root / "answers4" / "effort.csv", encoding="utf-8-sig")
    assert sorted(effort.photographs) == [0, 0, *[1] * 20]  # five days of four weeks, and days without a photograph


def test_what_is_open_is_asked_for_until_it_is_settled(season):
    assert asked(season.root / "answers2") == {"w1_4", "w1_5", *(f"w2_{n}" for n in range(1, 6))}
    assert asked(season.root / "answers3") == {"w1_5", "w2_3", "w2_4", "w2_5", *(f"w3_{n}" for n in range(1, 6))}
    assert asked(season.root / "answers4") == {
        "w2_4", "w2_5", "w3_3", "w3_4", "w3_5", *(f"w4_{n}" for n in range(1, 6)),
    }  # fmt: skip
    report = (season.root / "answers3" / "report.md").read_text(encoding="utf-8")
    assert "4 photographs of earlier weeks are asked for again: 3 undecided, 1 disputed" in report
    assert "1 decisions were put into" in report  # of Ana, who thought again
    assert "'Kudu' and 'kudu' are taken for different animals; if they are one, put merge,kudu,Kudu," in report
    report = (season.root / "answers4" / "report.md").read_text(encoding="utf-8")
    assert "merge: 'kudu' to 'Kudu', with 2 sightings" in report
    assert "known: 3 pictures of 'Bo' count as 'Boris', as individuals.csv says" in report
    assert "5 photographs that were named are no longer where they were; their sightings are kept" in report


def test_a_season_is_closed_without_new_photographs(season, tmp_path, capsys):
    line = ["identify", "--close", "--previous", season.root / "answers4", "--out", tmp_path / "season"]
    assert jaguar_kit.main(jaguar_kit.any_command, list(map(str, line))) == 0
    told = capsys.readouterr().out
    assert "18 sightings of 3 animals: 12 person, 6 catalogue" in told
    assert "8 photographs are not settled: 8 undecided" in told
    assert captured(tmp_path / "season").keys() >= captured(season.root / "answers4").keys() | {"w4_1", "w4_2"}
    assert history(tmp_path / "season")["Kudu"] == ["03", "09", "15", "22"]
    assert len(table(tmp_path / "season" / "open.csv")) == 8
    report = (tmp_path / "season" / "report.md").read_text(encoding="utf-8")
    assert "Renamed, merged and split" in report
    assert jaguar_kit.main(jaguar_kit.any_command, list(map(str, line))) == 2
    assert "holds answers already" in capsys.readouterr().err
    with jaguar_kit.quiet():  # and a fifth week goes on from there
        identify(previous=tmp_path / "season", queries=season.cards(5), out=tmp_path / "fifth", device="cpu")
    assert captured(tmp_path / "fifth") == captured(tmp_path / "season")


def test_the_ledger_only_grows(season):
    before = pd.DataFrame(columns=list(ENTRY))
    for week in range(1, 5):
        now = table(season.root / f"answers{week}" / "ledger.csv")
        assert len(now) > len(before)
        pd.testing.assert_frame_equal(now[: len(before)].astype(object), before.astype(object))
        before = now


@pytest.mark.ci
def test_answers_of_an_earlier_version_are_taken_over(weights, tmp_path, monkeypatch):
    field = Season(tmp_path, weights)
    with jaguar_kit.quiet(), monkeypatch.context() as patch:
        patch.setattr(marks, "picture_mark", facts.mark_of)  # as that version knew a photograph again
        first = field.answer(1, field.cards(1))
    said(first, ("w1_1", "yes", "Ara"), ("w1_2", "new", "Kudu"), ("w1_3", "yes", "Bo"))
    (first / "ledger.csv").unlink()
    settings = json.loads((first / "identify.json").read_text())
    (first / "identify.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "week"}))
    (first / "captures.csv").unlink()
    (field.photos / "week1" / "w1_3.jpg").unlink()
    with jaguar_kit.quiet():
        second = field.answer(2, field.cards(2))
        field.cards(1, caption="a caption")
        (field.photos / "week1").rename(field.photos / "other")
        third = field.answer(3, field.photos)
    for out in (second, third):
        assert captured(out) == {"w1_1": "Ara", "w1_2": "Kudu", "w1_3": "Bo"}
        assert len(captured(out, "catalogue")) == 6
        seen = table(out / "captures.csv").set_index("identity")
        assert seen.latitude["Kudu"] == "-16.5"
    assert len(table(third / "history.csv")) == 3
    assert "w1_1" not in asked(third)
    assert history(third) == {"Ara": ["01"], "Kudu": ["02"], "Bo": ["03"]}


@pytest.mark.ci
def test_a_renamed_folder_is_found_beside_its_old_name(weights, tmp_path, capsys):
    field = Season(tmp_path, weights)
    with jaguar_kit.quiet():
        first = field.answer(1, field.cards(1))
    said(first, ("w1_1", "yes", "Ara"), ("w1_2", "skip", ""))
    field.cards(1, caption="a caption")
    (field.photos / "week1").rename(field.photos / "card of May")
    (field.photos / "another").mkdir()
    field.answer(2, field.cards(2))
    told = capsys.readouterr().out
    assert f"{field.photos / 'week1'} is called {field.photos / 'card of May'} now" in told
    assert "4 photographs of earlier weeks are asked for again: 3 undecided, 1 skipped" in told
    assert "no longer" not in told
    assert "w1_1.jpg" in set(table(tmp_path / "answers2" / "catalogue.csv").path)


@pytest.mark.ci
def test_open_photographs_that_are_gone_are_told_with_a_count(weights, tmp_path, capsys):
    field = Season(tmp_path, weights)
    with jaguar_kit.quiet():
        first = field.answer(1, field.cards(1))
    said(first, ("w1_1", "yes", "Ara"), ("w1_2", "skip", ""))
    for n in (1, 2, 3):
        (field.photos / "week1" / f"w1_{n}.jpg").unlink()
    second = field.answer(2, field.cards(2))
    told = capsys.readouterr().out
    assert "1 photographs that were named are no longer where they were; their sightings are kept" in told
    gone = "2 open photographs of earlier weeks (1 skipped, 1 undecided) are no longer where they were: "
    assert f"{gone}w1_2.jpg, w1_3.jpg" in told
    assert captured(second) == {"w1_1": "Ara"}
    said(second, ("w2_1", "yes", "Bo"))
    third = field.answer(3, field.cards(3))  # they stay open, and their sightings stay
    assert "2 open photographs of earlier weeks" in capsys.readouterr().out
    assert captured(third) == {"w1_1": "Ara", "w2_1": "Bo"}


@pytest.mark.ci
def test_what_a_table_tells_of_a_photograph_goes_with_it(weights, tmp_path):
    field = Season(tmp_path, weights)
    told = pd.DataFrame({"path": [f"w1_{n}.jpg" for n in range(1, 6)], "station": "north", "orientation": "left"})
    told.assign(taken="2026-04-01", camera="C7").to_csv(field.cards(1) / "photos.csv", index=False)
    with jaguar_kit.quiet():
        first = field.answer(1, field.photos / "week1" / "photos.csv")
        said(first, ("w1_1", "yes", "Ara"))
        second = field.answer(2, field.cards(2))
    row = table(second / "captures.csv").query("basis == 'person'").iloc[0]
    assert (row.taken, row.camera, row.station, row.orientation) == ("2026-04-01", "C7", "north", "left")
    answers = table(second / "answers.csv").set_index("image")
    assert set(answers.camera[answers.index.str.startswith("..")]) == {"C7"}
    assert set(answers.flank[answers.index.str.startswith("..")]) == {"left"}


@pytest.mark.ci
def test_a_sure_name_of_the_first_week_is_kept_when_its_photograph_is_not_asked_for(weights, tmp_path, monkeypatch):
    field = Season(tmp_path, weights)

    def sure_of_the_first(*arguments):
        answers, pictures = answer_table(*arguments)
        answers.loc[answers.image == "w1_1.jpg", ["class", "identity"]] = "sure", "Ara"
        return answers, pictures

    with jaguar_kit.quiet():
        with monkeypatch.context() as patch:
            patch.setattr(identify_room, "answer_table", sure_of_the_first)
            first = field.answer(1, field.cards(1))
        assert captured(first, "sure") == {"w1_1": "Ara"}
        second = field.answer(2, field.cards(2))
        assert captured(second, "sure") == {"w1_1": "Ara"}
        assert "w1_1" not in asked(second)
        said(first, ("w1_1", "no", "Ara"))  # on the page of the first week
        third = field.answer(3, field.cards(3))
    assert captured(third, "sure") == {}
    assert "w1_1" in asked(third)


# marks


def test_a_picture_is_known_by_its_pixels(tmp_path):
    one = picture(tmp_path / "a.jpg", 1, "2026-05-01 10:00:00", "T1")
    other = picture(tmp_path / "b.jpg", 1, "2020-01-01 10:00:00", "T2", "a caption")
    assert facts.mark_of(one) != facts.mark_of(other)
    assert picture_mark(one) == picture_mark(other)
    assert picture_mark(picture(tmp_path / "c.jpg", 2)) != picture_mark(one)
    words = PngImagePlugin.PngInfo()
    words.add_text("Description", "a caption")
    Image.open(one).save(tmp_path / "a.png")
    Image.open(one).save(tmp_path / "b.png", pnginfo=words, compress_level=1)
    Image.open(one).convert("L").save(tmp_path / "c.png")
    assert picture_mark(tmp_path / "a.png") == picture_mark(tmp_path / "b.png") != picture_mark(tmp_path / "c.png")


@every("content", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x04ab", b"\xff\xd8\xff\xda\xff", b"no picture"])
def test_a_broken_file_is_its_own_mark(content, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    (tmp_path / "b.jpg").write_bytes(content + b"x")
    assert decisions.MARK.fullmatch(picture_mark(tmp_path / "a.jpg"))
    assert facts.mark_of(tmp_path / "a.jpg") != facts.mark_of(tmp_path / "b.jpg")


# what people say of each other's words


def decided(*rows: tuple[str, str, str, str]) -> Decisions:
    """Decisions (mark, decision, identity, by), one after the other."""
    told = [(mark, f"{mark}.jpg", "/w", *rest, f"{number:03d}") for number, (mark, *rest) in enumerate(rows)]
    return Decisions(pd.DataFrame(told, columns=list(decisions.COLUMNS)))


@every(
    ("rows", "named", "disputed", "rejected"),
    [
        ([("yes", "a", "Ana")], "a", False, set()),
        ([("yes", "a", "Ana"), ("no", "a", "Ben")], None, True, set()),
        ([("no", "a", "Ben"), ("yes", "a", "Ana")], None, True, set()),
        ([("yes", "a", "Ana"), ("no", "a", "Ben"), ("yes", "a", "Cy")], "a", False, set()),
        ([("yes", "a", "Ana"), ("no", "a", "Ben"), ("no", "a", "Cy")], None, False, {"a"}),
        ([("yes", "a", "Ana"), ("yes", "b", "Ben")], None, True, set()),
        ([("yes", "a", "Ana"), ("yes", "b", "Ben"), ("yes", "b", "Cy")], "b", False, set()),
        ([("yes", "a", "Ana"), ("yes", "b", "Ben"), ("yes", "b", "Ana")], "b", False, set()),
        ([("yes", "a", "Ana"), ("no", "a", "Ana")], None, False, {"a"}),  # she takes it back
        ([("no", "a", "Ana"), ("yes", "a", "Ana")], "a", False, set()),
        ([("yes", "a", "Ana"), ("no", "b", "Ben")], "a", False, {"b"}),
        ([("yes", "a", "Ana"), ("skip", "", "Ben")], "a", False, set()),
        ([("yes", "a", "Ana"), ("skip", "", "Ana")], None, False, set()),
        ([("yes", "a", "Ana"), ("undo", "", "Ana")], None, False, set()),
        ([("no", "b", "Ana"), ("yes", "a", "Ana"), ("undo", "", "Ana")], None, False, {"b"}),  # the last word alone
        ([("yes", "a", "Ana"), ("yes", "b", "Ana"), ("undo", "", "Ana")], "a", False, set()),
        ([("yes", "a", "Ana"), ("skip", "", "Ana"), *[("undo", "", "Ana")] * 3], None, False, set()),
        ([("yes", "a", "Ana"), ("yes", "b", "Ben"), ("undo", "", "Ben")], "a", False, set()),
        ([("yes", "a", "Ana"), ("yes", "b", "Ana"), ("undo", "000", "Ana")], "b", False, set()),  # by its time
        ([("yes", "a", "Ana"), ("yes", "b", "Ana"), ("undo", "000", "Ben")], "b", False, set()),  # of another
        ([("blank", "", "Ana"), ("yes", "a", "Ben")], None, True, set()),
        ([("blank", "", "Ana"), ("yes", "a", "Ben"), ("yes", "a", "Cy")], "a", False, set()),
        ([("yes", "a", "Ana"), ("unusable", "", "Ana")], None, False, set()),
        ([("unusable", "", "Ana"), ("blank", "", "Ben")], None, True, set()),
    ],
)
def test_votes_settle_a_photograph(rows, named, disputed, rejected):
    told = decided(*(("m", *row) for row in rows))
    assert dict(zip(told.named.mark, told.named.identity)).get("m") == named
    assert bool(told.disputed) == disputed
    assert told.rejected.get("m", set()) == rejected


@pytest.mark.ci
def test_a_photograph_without_an_animal_is_settled_and_not_asked_for_again(weights, tmp_path):
    field = Season(tmp_path, weights)
    with jaguar_kit.quiet():
        first = field.answer(1, field.cards(1))
        said(first, ("w1_1", "blank", ""), ("w1_2", "unusable", ""), ("w1_3", "skip", ""), ("w1_4", "yes", "Ara"))
        second = field.answer(2, field.photos)
    assert asked(second) == {"w1_3", "w1_5"}
    report = (second / "report.md").read_text(encoding="utf-8")
    assert "2 photographs show no animal or are unusable, as people said, and are not asked for" in report
    effort = pd.read_csv(second / "effort.csv", encoding="utf-8-sig")
    assert effort.photographs.sum() == 5  # the camera worked
    with jaguar_kit.quiet():
        close_season(second, tmp_path / "end")
    assert len(table(tmp_path / "end" / "open.csv")) == 2
    report = (tmp_path / "end" / "report.md").read_text(encoding="utf-8")
    assert "2 photographs without an animal that can be told: 1 blank, 1 unusable" in report


@every(
    ("row", "part"),
    [
        ({"decision": "rename", "of": "", "identity": "a"}, "line 2: of: is empty"),
        ({"decision": "rename", "of": "a", "identity": "photo:x"}, "line 2: identity: 'photo:x' is no name"),
        ({"decision": "split", "of": "a", "identity": "b"}, "line 2: mark: '' is none"),
        ({"decision": "merge", "of": "a", "identity": "b", "mark": "IMG_1"}, "line 2: mark: 'IMG_1' is none"),
        ({"decision": "undo", "identity": ""}, "line 2: mark: '' is none"),
        ({"decision": "blank"}, "line 2: mark: '' is none"),
    ],
)
def test_what_a_page_can_not_have_said_of_individuals_is_one_line(row, part, tmp_path):
    pd.DataFrame([{**dict.fromkeys(decisions.COLUMNS, ""), **row}]).to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(KitError, match=re.escape(part)):
        decisions.read_decisions(tmp_path / "d.csv")


def test_a_skipped_photograph_is_open_until_somebody_can_tell():
    told = decided(("m", "skip", "", "Ana"), ("n", "skip", "", "Ana"), ("n", "yes", "a", "Ben"))
    assert told.skipped == {"m"}


@every(
    ("identity", "decision", "part"),
    [
        ("photo:", "yes", "'photo:' is no name of an individual"),
        ("Photo: by the river", "new", "is no name of an individual"),
        (f"photo:{'0' * 16}", "no", "is the photograph itself"),
        (f"photo:{'1' * 16}", "new", "is no name of an individual"),
        ("new_individual", "new", "'new_individual' is no name of an individual"),
        ("New_Individual", "yes", "is no name of an individual"),
    ],
)
def test_names_that_mean_something_else_are_refused_in_one_line(identity, decision, part, tmp_path):
    row = ["0" * 16, "a.jpg", "/w", decision, identity, "Ana", "1"]
    decisions.write_decisions(tmp_path / "d.csv", pd.DataFrame([row], columns=list(decisions.COLUMNS)))
    with pytest.raises(KitError, match=re.escape(part)) as caught:
        decisions.read_decisions(tmp_path / "d.csv")
    assert "line 2: identity" in str(caught.value)
    assert "\n" not in str(caught.value)


@every("name", ["Decisions.csv", "anna.csv", "DECISIONS (1).CSV", "decisions-Ben.csv", "x.csv"])
def test_a_file_of_decisions_is_read_whatever_it_is_called(name, tmp_path):
    row = ["0" * 16, "a.jpg", "/w", "yes", "Ara", "Ana", "1"]
    decisions.write_decisions(tmp_path / name, pd.DataFrame([row], columns=list(decisions.COLUMNS)))
    found, notes = decisions.read_folder(tmp_path)
    assert found.identity.tolist() == ["Ara"]
    assert not notes
    (tmp_path / name).unlink()


def test_other_files_are_told_and_never_ignored(tmp_path):
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    (tmp_path / "decisions.xlsx").write_bytes(b"PK")
    (tmp_path / "export.csv").write_text("a,b\n")
    (tmp_path / "effort.csv").write_text("a,b\n")
    found, notes = decisions.read_folder(tmp_path, ["export.csv"])
    assert found.empty
    assert [note.partition(" is ")[0].rpartition("/")[2] for note in notes] == ["decisions.xlsx", "notes.csv"]
    (tmp_path / "my decisions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(KitError, match=r"my decisions\.csv: column 'mark' is missing"):
        decisions.read_folder(tmp_path)


# individuals


MARKS = [f"{number:016x}" for number in range(1, 7)]


def ledger_of(*rows: dict) -> Ledger:
    empty = Ledger(pd.DataFrame(columns=list(ENTRY)).astype({"week": int}), 1, "answers1")
    return empty.grown(rows)


def a_ledger() -> Ledger:
    """Two of the catalogue's Ara, one of Bo; a sure Ara; a photograph that Ana calls Kudu, one that Ben calls kudu."""
    known = [
        {"said": "catalogue", "basis": "catalogue", "mark": mark, "name": name, "image": f"{mark}.png", "root": "/k"}
        for mark, name in zip(MARKS, ("Ara", "Ara", "Bo"))
    ]
    seen = [
        {
            "said": "asked",
            "basis": kind,
            "mark": mark,
            "name": name,
            "image": f"{mark}.jpg",
            "taken": f"2026-05-0{n} 10:00",
        }
        for n, (mark, name, kind) in enumerate(zip(MARKS[3:], ("Ara", "Bo", "Bo"), ("sure", "look", "look")), 1)
    ]
    words = [
        {"said": "new", "basis": "person", "mark": mark, "name": name, "who": who, "when": "1"}
        for mark, name, who in ((MARKS[4], "Kudu", "Ana"), (MARKS[5], "kudu", "Ben"))
    ]
    return ledger_of(*known, *seen, *words)


def with_acts(ledger: Ledger, text: str, folder: Path, week: int = 1) -> tuple[Ledger, list[str]]:
    (folder / "individuals.csv").write_text(f"action,from,to,marks\n{text}\n")
    return ledger.with_individuals(individuals.read_individuals(folder / "individuals.csv"), week, "answers1")


def called(ledger: Ledger) -> list[str]:
    seen = ledger.sightings.set_index("mark").identity
    return [seen.get(mark, "") for mark in MARKS]


def test_names_are_renamed_merged_and_split_once(tmp_path):
    ledger = a_ledger()
    assert called(ledger) == ["Ara", "Ara", "Bo", "Ara", "Kudu", "kudu"]
    text = f"rename,Ara,Aurora,\nmerge,kudu,Kudu,\nsplit,Aurora,Zoe,{MARKS[1]} {MARKS[3]}"
    ledger, notes = with_acts(ledger, text, tmp_path)
    assert called(ledger) == ["Aurora", "Zoe", "Bo", "Zoe", "Kudu", "Kudu"]
    assert notes == [
        "rename: 'Ara' to 'Aurora', with 3 sightings", "merge: 'kudu' to 'Kudu', with 1 sightings",
        "split: 'Aurora' to 'Zoe', with 2 sightings",
    ]  # fmt: skip
    again, notes = with_acts(ledger, text, tmp_path)
    assert len(again.entries) == len(ledger.entries)
    assert all("was done before" in note for note in notes)
    seen = ledger.sightings.set_index("mark")
    assert seen.history[MARKS[3]] == (
        "week 1: sure Ara; week 1: rename Ara to Aurora; week 1: split Aurora to Zoe"
    )  # fmt: skip
    assert ledger.sightings.groupby("identity").size().to_dict() == {"Aurora": 1, "Zoe": 2, "Bo": 1, "Kudu": 2}


def test_names_may_change_places_and_later_words_are_of_the_new_ones(tmp_path):
    ledger, _ = with_acts(a_ledger(), "rename,Kudu,x,\nrename,Bo,Kudu,\nrename,x,Bo,", tmp_path)
    assert called(ledger)[2] == "Kudu"
    assert called(ledger)[4] == "Bo"
    later = {"week": 2, "said": "yes", "basis": "person", "name": "Bo", "who": "Ana", "when": "2", "mark": "f" * 16}
    assert ledger.grown([later]).sightings.identity.tolist()[-1] == "Bo"


def test_who_was_ruled_out_for_another_does_not_take_a_name_back_when_both_are_one(tmp_path):
    rows = [("yes", "Kudu"), ("no", "Bo")]
    words = [
        {"said": said, "basis": "person", "mark": "e" * 16, "name": name, "who": "Ana", "when": str(number)}
        for number, (said, name) in enumerate(rows, 5)
    ]
    ledger, _ = with_acts(a_ledger().grown(words), "merge,Bo,Kudu,", tmp_path)
    assert ledger.sightings.set_index("mark").identity["e" * 16] == "Kudu"


@every(
    ("text", "part"),
    [
        ("rename,Arra,Aurora,", "line 2: from: 'Arra' is nobody here; did you mean 'Ara'?"),
        ("rename,Ara,Bo,", "line 2: to: 'Bo' is another animal already (expected action merge)"),
        ("merge,Ara,Nobody,", "line 2: to: 'Nobody' is nobody here"),
        ("split,Ara,Zoe,", "line 2: marks: '' (expected marks of the pictures that are another individual)"),
        (f"split,Ara,Zoe,{MARKS[2]}", f"marks: '{MARKS[2]}' is no picture of 'Ara'"),
        ("split,Ara,Zoe,IMG_1.jpg", "marks: 'IMG_1.jpg' is none"),
        (f"merge,Ara,Bo,{MARKS[0]}", "expected none with 'merge'"),
        ("join,Ara,Bo,", "action: 'join'"),
        ("rename,Ara,photo:x,", "line 2: to: 'photo:x' is no name"),
        ("rename,Ara,Ara,", "is the name itself"),
        ("rename,,Ara,", "line 2: from: is empty"),
    ],
)
def test_what_can_not_be_meant_of_individuals_is_one_line(text, part, tmp_path):
    with pytest.raises(KitError, match=re.escape(part)) as caught:
        with_acts(a_ledger(), text, tmp_path)
    assert "\n" not in str(caught.value)
    assert "individuals.csv: " in str(caught.value)


# sure names


def test_a_sure_name_stays_until_something_speaks_against_it():
    ledger = a_ledger()
    row = {"week": 2, "said": "asked", "mark": MARKS[3], "basis": "look"}
    assert ledger.grown([{**row, "name": "Ara"}]).sure == {MARKS[3]: "Ara"}
    other = ledger.grown([{**row, "name": "Bo"}])
    assert other.sure == {}
    assert "1 photographs that had a sure name are answered otherwise now" in other.notes_since(ledger.sure)[0]
    assert ledger.grown([{**row, "name": "Ara", "basis": "new"}]).sure == {}
    word = {"week": 2, "said": "no", "basis": "person", "mark": MARKS[3], "name": "Ara", "who": "Ana", "when": "3"}
    no = ledger.grown([word])
    assert no.sure == {}
    assert no.open[MARKS[3]] == "undecided"
    assert ledger.open == {}


# files


@every(
    ("column", "value"),
    [("said", "maybe"), ("mark", "1.2E+15"), ("week", "one"), ("mark", "")],
)
def test_a_damaged_ledger_is_told_by_its_line(column, value, tmp_path):
    ledger = a_ledger()
    ledger.entries.assign(**{column: value}).to_csv(tmp_path / "ledger.csv", index=False)
    with pytest.raises(KitError, match=rf"ledger\.csv: is damaged: line 2: {column}: "):
        ledger_room.read_ledger(tmp_path / "ledger.csv")


def test_a_ledger_is_read_as_it_was_written(tmp_path):
    ledger = a_ledger()
    ledger.write(tmp_path / "ledger.csv")
    pd.testing.assert_frame_equal(
        ledger_room.read_ledger(tmp_path / "ledger.csv").astype(object), ledger.entries.astype(object)
    )


def test_a_ledger_of_a_version_that_told_less_is_read(tmp_path):
    ledger = a_ledger()
    ledger.entries.drop(columns=["orientation", "box"]).to_csv(tmp_path / "ledger.csv", index=False)
    found = ledger_room.read_ledger(tmp_path / "ledger.csv")
    pd.testing.assert_frame_equal(found.astype(object), ledger.entries.astype(object))
    ledger.entries.drop(columns=["who"]).to_csv(tmp_path / "ledger.csv", index=False)
    with pytest.raises(KitError, match=r"ledger\.csv: is damaged: column 'who' is missing"):
        ledger_room.read_ledger(tmp_path / "ledger.csv")


def test_two_processes_are_not_at_work_in_one_folder(weights, tmp_path):
    field = Season(tmp_path, weights)
    with open(tmp_path / ".answers1.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(KitError, match="another process is at work on it"):
            field.answer(1, field.cards(1))
        with pytest.raises(KitError, match="another process is at work on it"):
            close_season(tmp_path / "nowhere", tmp_path / "answers1")
    assert not (tmp_path / "answers1").exists()


@every(
    ("options", "part"),
    [
        (("--close",), "--previous: is missing"),
        (("--close", "--previous", "x", "--queries", "y"), "--queries: y (expected nothing with --close"),
        (("--close", "--previous", "nowhere"), "holds no identify.json"),
        (("--review",), "--previous: is missing (expected the last folder of answers with --review)"),
        (("--review", "--previous", "x", "--sure", ".9"), "--sure: 0.9 (expected nothing with --review"),
    ],
)
def test_a_season_that_can_not_be_closed_is_one_line(options, part, tmp_path, capsys):
    assert jaguar_kit.main(jaguar_kit.any_command, ["identify", *options, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert part in told
    assert told.count("\n") == 1
