"""The animal is the unit: boxes of a detector, crops, marks and decisions of each animal, and what is set aside."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
from browsing import Opened, page_data
from cases import every
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import KitError, load_competition, make_mini_dataset, open_data, recipe_from_dict
from jaguar_kit_tools.experiments import boxes, crops
from jaguar_kit_tools.experiments.boxes import Boxes, Detection, Upright, by_photograph, read_boxes
from jaguar_kit_tools.experiments.crops import Look, look_at
from jaguar_kit_tools.identify import animals, captures, decisions, facts
from jaguar_kit_tools.identify.animals import Wanted
from jaguar_kit_tools.identify.exports import Export
from jaguar_kit_tools.identify.identify import close_season, export_earlier, identify
from PIL import Image
from test_room_exports import CHECKS, read_back
from test_room_ledger import said, table
from test_room_season import command

LEFT, RIGHT = [0.05, 0.1, 0.4, 0.8], [0.55, 0.1, 0.4, 0.8]


def coat(seed: int) -> np.ndarray:
    """The squares of a coat, of one animal."""
    return np.random.default_rng(seed).integers(0, 255, (6, 4, 3), np.uint8).repeat(12, 0).repeat(10, 1)


def photograph(
    path: Path, *animals_on_it: tuple[list[float], int], taken: str = "", more: Image.Exif | None = None
) -> Path:
    """A gray photograph of 120 x 90 px with coats in boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image, exif = Image.new("RGB", (120, 90), (90, 90, 90)), more or Image.Exif()
    for (x, y, w, h), seed in animals_on_it:
        size = round(w * 120), round(h * 90)
        image.paste(Image.fromarray(coat(seed)).resize(size), (round(x * 120), round(y * 90)))
    exif[0x0110] = "Cam"
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken.replace("-", ":")
    image.save(path, exif=exif, quality=95)
    return path


def detections(*found: tuple[str, float, list[float]]) -> list[dict]:
    return [{"category": category, "conf": conf, "bbox": bbox} for category, conf, bbox in found]


def detector_file(path: Path, images: dict[str, list[dict] | None]) -> Path:
    """MegaDetector's JSON; None: it could not read that photograph."""
    rows = [
        {"file": name, "detections": found} if found is not None else {"file": name, "failure": "Failure image access"}
        for name, found in images.items()
    ]
    names = {"1": "animal", "2": "person", "3": "vehicle"}
    path.write_text(json.dumps({"images": rows, "detection_categories": names, "info": {"format_version": "1.3"}}))
    return path


# from photographs to answers, page, ledger and exports


class Study:
    """A catalogue of Ara and Bo, and a week of one card: two animals on one picture, one animal, blanks, a person."""

    def __init__(self, root: Path, backbone: Path):
        self.root, self.weights, self.card = root, backbone, root / "week1" / "T1"
        for seed, name in ((1, "Ara"), (2, "Bo")):
            for n in range(3):
                photograph(root / "known" / name / f"{n}.jpg", (LEFT, seed), ([0.6, 0.1 * n, 0.3, 0.3], 50 + seed + n))
        photograph(self.card / "both.jpg", (LEFT, 1), (RIGHT, 2), taken="2026-05-01 10:00:00")
        photograph(self.card / "one.jpg", (LEFT, 2), taken="2026-05-02 11:00:00")
        photograph(self.card / "person.jpg", taken="2026-05-03 08:00:00")
        for n in range(3):
            photograph(self.card / f"blank{n}.jpg", ([0.1, 0.1, 0.1, 0.1], 90 + n), taken=f"2026-05-0{4 + n} 08:00:00")
        self.boxes = detector_file(
            root / "week1.json",
            {
                "T1/both.jpg": detections(("1", 0.9, LEFT), ("1", 0.8, RIGHT), ("2", 0.3, LEFT)),
                "D:\\cards\\week1\\T1\\one.jpg": detections(("1", 0.7, LEFT), ("1", 0.1, RIGHT)),
                "T1/person.jpg": detections(("2", 0.95, LEFT), ("1", 0.15, LEFT)),
                "T1/blank0.jpg": detections(("1", 0.05, RIGHT)),
                "T1/blank1.jpg": [],
                "T1/blank2.jpg": [],
                **{f"{name}/{n}.jpg": detections(("1", 0.9, LEFT)) for name in ("Ara", "Bo") for n in range(3)},
            },
        )

    def identify(self, out: str, boxes: Wanted | None = None, **more) -> Path:
        given = {"catalogue": self.root / "known", "backbone": str(self.weights), "queries": self.root / "week1"}
        with jaguar_kit.quiet():
            identify(**{**given, **more}, out=self.root / out, device="cpu", boxes=boxes or Wanted([self.boxes]))
        return self.root / out


@pytest.fixture(scope="module")
def study(tmp_path_factory, weights):
    """A week that was answered with boxes."""
    made = Study(tmp_path_factory.mktemp("study"), weights)
    made.out = made.identify("answers1")
    return made


def test_each_animal_on_a_photograph_has_its_own_answer_and_mark(study):
    answers = table(study.out / "answers.csv")
    assert answers.image.tolist() == ["T1/both.jpg", "T1/both.jpg", "T1/one.jpg"]
    assert answers.box.map(lambda box: [float(v) for v in box.split()]).tolist() == [LEFT, RIGHT, LEFT]
    assert answers.mark.is_unique
    assert answers.encounter.is_unique  # two animals on one photograph are not one
    assert answers.identity.tolist() == ["Ara", "Bo", "Bo"]  # by their coats alone


def test_blanks_and_people_are_set_aside_and_counted_in_one_line(study):
    aside = table(study.out / "set_aside.csv").set_index("image")
    assert aside.why.to_dict() == {f"T1/blank{n}.jpg": "blank" for n in range(3)} | {"T1/person.jpg": "person"}
    assert aside.sure[["T1/person.jpg", "T1/blank0.jpg"]].tolist() == ["0.950", "0.950"]
    report = (study.out / "report.md").read_text()
    assert (
        "queries: 4 photographs show no animal from confidence 0.2 on: 3 blank, 1 person; they are set aside" in report
    )
    assert "queries: 3 animals in boxes on 2 photographs, 1 of which show several" in report
    assert "of its 12 files" not in report  # all are here, or in the catalogue
    assert "3 animals on 2 photographs: " in report
    assert len(table(study.out / "photographs.csv")) == 7  # blanks tell that a camera worked


def test_the_page_shows_each_animal_and_where_it_is(study):
    items = page_data(study.out)["items"]
    assert [item.get("b") for item in items] == ["animal 1 of 2", "animal 2 of 2", None]
    for item, box in zip(items, (LEFT, RIGHT, LEFT)):
        large = Image.open(study.out / item["f"])
        assert large.size[0] < 120 * box[2] * 1.25 + 2  # the box and a margin
        whole = Image.open(study.out / item["o"])
        assert whole.size == (120, 90)
        edge = whole.getpixel((round(120 * box[0]) + 1, 45))
        assert min(edge[:2]) > 150 > edge[2]  # the yellow frame
        assert item["a"].endswith(item["i"])
    assert {item["m"] for item in items} == set(table(study.out / "answers.csv").mark)


def test_a_person_decides_on_each_animal_of_a_photograph(study, browser, tmp_path):
    from playwright.sync_api import expect

    one = Opened(browser, study.out / "review.html")
    assert one.page.locator(".whole img").count() == 3
    pictures = one.page.locator(".row img").all()
    assert pictures
    for picture in pictures:
        expect(picture).not_to_have_js_property("naturalWidth", 0)
    one.press("y", "2", "y")  # the first animal is the first candidate, the second the second
    one.wait_for_count("2 of 3 decided")
    one.export(tmp_path / "decisions.csv")
    told = table(tmp_path / "decisions.csv")
    answers = table(study.out / "answers.csv")
    assert told.mark.tolist() == answers.mark[:2].tolist()
    assert told.image.tolist() == ["T1/both.jpg"] * 2
    assert told.identity.tolist() == [answers.identity[0], answers.identity_2[1]]
    assert not one.faults


def test_every_photograph_is_asked_for_on_request(study):
    out = study.identify("every", Wanted([study.boxes], every=True))
    answers = table(out / "answers.csv")
    assert len(answers) == 7
    assert (answers.box == "").sum() == 4
    assert not (out / "set_aside.csv").exists()


def test_decisions_on_two_animals_go_into_ledger_captures_and_exports(study, tmp_path):
    answers = table(study.out / "answers.csv")
    rows = [
        (row.mark, row.image, str(study.root / "week1"), "yes", name, "Ana", f"2026-05-07T00:00:0{n}")
        for n, (row, name) in enumerate(zip(answers.itertuples(), ("Ara", "Bo", "Bo")))
    ]
    kept = study.out / "decisions.csv"
    pd.DataFrame(rows, columns=list(decisions.COLUMNS)).to_csv(kept, index=False)
    with jaguar_kit.quiet():
        season = tmp_path / "season"
        seen = close_season(study.out, season)
        export_earlier(study.out, Export.of("camtrapr,camtrapdp,rmark", zone="-03:00"))
    kept.unlink()
    own = seen[seen.basis == "person"]
    assert sorted(zip(own.image, own.identity)) == [
        ("T1/both.jpg", "Ara"), ("T1/both.jpg", "Bo"), ("T1/one.jpg", "Bo"),
    ]  # fmt: skip
    assert (own.box != "").all()
    assert not len(table(season / "open.csv"))
    history = table(season / "capture_history.csv").set_index("identity")
    assert history.loc["Ara"].tolist() == ["1", "0", "0", "0", "0", "0"]
    assert history.loc["Bo"].tolist() == ["1", "1", "0", "0", "0", "0"]
    assert table(season / "effort.csv").photographs.tolist() == ["1"] * 6  # photographs, not animals
    records = pd.read_csv(study.out / "camtrapr/records.csv")
    assert sorted(zip(records.FileName, records.Individual)) == [
        ("both.jpg", "Ara"),
        ("both.jpg", "Bo"),
        ("one.jpg", "Bo"),
    ]
    media, observed = (
        pd.read_csv(study.out / f"camtrapdp/{n}.csv", dtype=str).fillna("") for n in ("media", "observations")
    )
    assert len(media) == media.mediaID.nunique() == 6
    assert set(observed.mediaID) == set(media.mediaID)
    assert observed.observationID.is_unique
    both = observed[observed.mediaID == media.mediaID[media.fileName == "both.jpg"].item()]
    assert both.individualID.tolist() == ["Ara", "Bo"]
    assert both[["bboxX", "bboxY", "bboxWidth", "bboxHeight"]].astype(float).to_numpy().tolist() == [LEFT, RIGHT]
    assert sorted(observed.observationType) == ["animal"] * 3 + ["blank"] * 3 + ["human"]


def test_next_week_boxes_are_remembered_and_only_open_animals_are_asked_for(study, weights, tmp_path):
    made = Study(tmp_path, weights)
    first = made.identify("answers1")
    answers = table(first / "answers.csv")
    said(first, ("one", "yes", "Bo"))
    row = answers.iloc[1]
    told = (row.mark, row.image, str(made.root / "week1"), "yes", "Bo", "Ana", "2026-05-08")
    pd.DataFrame([told], columns=list(decisions.COLUMNS)).to_csv(first / "more decisions.csv", index=False)
    photograph(made.root / "week1" / "T2" / "late.jpg", (RIGHT, 1), taken="2026-05-09 10:00:00")
    moved = [0.06, 0.11, 0.4, 0.79]  # another version of the detector sees the first animal about where it was
    more = detector_file(
        tmp_path / "week2.json",
        {"T2/late.jpg": detections(("1", 0.9, RIGHT)), "both.jpg": detections(("1", 0.9, moved))},
    )
    with jaguar_kit.quiet():
        second = identify(
            previous=first, queries=made.root / "week1", out=tmp_path / "answers2", device="cpu", boxes=Wanted([more])
        )
    assert sorted(second.image) == ["T1/both.jpg", "T2/late.jpg"]  # blanks and the person stay aside without any box
    again = second[second.image == "T1/both.jpg"]
    assert again.mark.item() == answers.mark[0]
    now = table(tmp_path / "answers2" / "catalogue.csv")
    assert (now.box != "").all()  # the catalogue's boxes too
    assert sorted(now.path[now.path.str.startswith("T1")]) == ["T1/both.jpg", "T1/one.jpg"]


# two cameras of a station


@pytest.mark.ci
def test_cameras_of_a_station_that_a_table_tells_meet_one_animal_from_both_sides(study, tmp_path):
    for folder, second, seed in (("west", 0, 1), ("east", 20, 7)):
        photograph(tmp_path / "pair" / folder / "1.jpg", (LEFT, seed), taken=f"2026-05-01 10:00:{second:02d}")
    text = "Station,Camera,Setup_date,Retrieval_date\nS,west,2026-05-01,2026-05-04\nS,east,2026-05-01,2026-05-04\n"
    (tmp_path / "cameras.csv").write_text(text)
    usual = {"queries": tmp_path / "pair", "boxes": Wanted()}
    apart = table(study.identify("no stations", **usual) / "answers.csv")
    assert apart.encounter.nunique() == 2
    out = study.identify("stations", cameras=tmp_path / "cameras.csv", **usual)
    assert table(out / "answers.csv").encounter.nunique() == 1
    assert set(table(out / "photographs.csv").station) == {"S"}


# a small study, by hand: A worked from the 1st to the 4th, B from the 2nd to the 5th; nobody passed on the 2nd and 4th

BY_HAND = (  # photograph, taken, and who is in which box
    ("A/1.jpg", "2026-05-01 10:00:00", (LEFT, "Ara"), (RIGHT, "Bo")),  # two on one photograph
    ("A/2.jpg", "2026-05-01 12:00:00"),  # blank
    ("A/3.jpg", "2026-05-03 08:00:00", (LEFT, "a person")),
    ("B/1.jpg", "2026-05-03 22:00:00", (LEFT, "Bo")),
    ("B/2.jpg", "2026-05-05 06:00:00", (LEFT, "Ara"), (RIGHT, "Ara")),  # one animal in two boxes
    ("B/no clock/1.jpg", "", (LEFT, "Bo")),  # of a card that lost its clock
)
CAMERAS = (
    "Station,Setup_date,Retrieval_date,latitude,longitude\n"
    "A,2026-05-01,2026-05-04,-16.5,-56.25\nB,2026-05-02,2026-05-05,-16.6,-56.3\n"
)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory, weights):
    """The answers of that study, all animals named by a person."""
    root = tmp_path_factory.mktemp("by hand")
    for seed, name in ((1, "Ara"), (2, "Bo")):
        for n in range(2):
            photograph(root / "known" / name / f"{n}.jpg", (LEFT, seed + 10 * n))
    found = {}
    for number, (name, taken, *shown) in enumerate(BY_HAND):
        coats = [(box, 100 + 10 * number + k) for k, (box, _) in enumerate(shown)]
        photograph(root / "week" / name, *coats, taken=taken)
        found[name] = detections(*(("2" if who == "a person" else "1", 0.9, box) for box, who in shown))
    (root / "cameras.csv").write_text(CAMERAS)
    out = root / "answers"
    with jaguar_kit.quiet():
        identify(
            backbone=str(weights), catalogue=root / "known", queries=root / "week", out=out, device="cpu",
            boxes=Wanted([detector_file(root / "boxes.json", found)]), cameras=root / "cameras.csv",
        )  # fmt: skip
    names = {(name, boxes.box_text(box)): who for name, _, *shown in BY_HAND for box, who in shown}
    told = [
        (row.mark, row.image, str(root / "week"), "yes", names[row.image, row.box], "Ana", f"2026-05-09T{n:02d}")
        for n, row in enumerate(table(out / "answers.csv").itertuples())
    ]
    pd.DataFrame(told, columns=list(decisions.COLUMNS)).to_csv(out / "decisions.csv", index=False)
    return out


def exported(out: Path, capsys, formats: str, occasion: int) -> str:
    capsys.readouterr()
    export_earlier(out, Export.of(formats, occasion, zone="-04:00"))
    return capsys.readouterr().out


def plain_lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def test_histories_usage_and_effort_are_right_by_hand(by_hand, capsys):
    said_there = exported(by_hand, capsys, "all", 1)
    assert "4 photographs of 2 animals are captures" in said_there
    assert "2 stations worked 8 days in 5 occasions of 1 days, by cameras.csv" in said_there
    assert "1 of 6 photographs tell no date: B/no clock/1.jpg" in said_there
    assert "1 photographs of known animals tell no date, and are of no occasion: B/no clock/1.jpg" in said_there
    assert "1 animals have two boxes on one photograph, and count once: B/2.jpg" in said_there
    assert plain_lines(by_hand / "secr/captures.txt") == [
        ["1", "Ara", "1", "A"], ["1", "Ara", "5", "B"], ["1", "Bo", "1", "A"], ["1", "Bo", "3", "B"],
    ]  # fmt: skip
    traps = plain_lines(by_hand / "secr/traps.txt")
    assert [(row[0], row[3:]) for row in traps] == [("A", list("11110")), ("B", list("01111"))]
    histories = [line.split("\t") for line in (by_hand / "rmark/histories.txt").read_text().splitlines()]
    assert histories == [["ch", "freq", "animal"], ["10001", "1", "Ara"], ["10100", "1", "Bo"]]
    operation = table(by_hand / "camtrapr/operation.csv")
    days = [f"2026-05-0{day}" for day in range(1, 6)]
    assert list(operation) == ["Station", *days]
    assert operation.to_numpy().tolist() == [["A", "1", "1", "1", "1", "NA"], ["B", "NA", "1", "1", "1", "1"]]
    observed = table(by_hand / "camtrapdp/observations.csv")
    assert sorted(zip(observed.observationType, observed.individualID)) == [
        ("animal", "Ara"), ("animal", "Ara"), ("animal", "Ara"), ("animal", "Bo"), ("animal", "Bo"), ("blank", ""),
        ("human", ""),
    ]  # fmt: skip


def test_occasions_of_two_days_are_right_by_hand(by_hand, capsys):
    said_there = exported(by_hand, capsys, "secr,rmark", 2)
    assert "2 stations worked 8 days in 3 occasions of 2 days" in said_there
    assert "the last occasion has 1 days instead of 2" in said_there
    assert [row[1:] for row in plain_lines(by_hand / "secr/captures.txt")] == [
        ["Ara", "1", "A"], ["Ara", "3", "B"], ["Bo", "1", "A"], ["Bo", "2", "B"],
    ]  # fmt: skip
    assert [row[3:] for row in plain_lines(by_hand / "secr/traps.txt")] == [["2", "2", "0"], ["1", "2", "1"]]
    assert (by_hand / "rmark/histories.inp").read_text().splitlines()[1:] == ["/* Ara */ 101 1;", "/* Bo */ 110 1;"]


def test_each_format_keeps_its_rules_with_boxes(by_hand):
    for occasion in (1, 2):
        with jaguar_kit.quiet():
            tables = read_back(by_hand, export_earlier(by_hand, Export.of("all", occasion, zone="-04:00")))
        for check in CHECKS.values():
            check(tables)


def test_a_closed_season_tells_the_same_days(by_hand, tmp_path):
    with jaguar_kit.quiet():
        close_season(by_hand, tmp_path / "season")
    history = table(tmp_path / "season" / "capture_history.csv").set_index("identity")
    assert ["".join(history.loc[name]) for name in ("Ara", "Bo")] == ["10001", "10100"]
    effort = table(tmp_path / "season" / "effort.csv")
    assert effort.photographs.tolist() == list("20201")
    assert effort.cameras.tolist() == list("12221")
    assert effort.animals.tolist() == list("20101")


# files of boxes


def read(folder: Path, told: object, name: str = "boxes.json") -> Boxes:
    path = folder / name
    path.write_text(told if isinstance(told, str) else json.dumps(told))
    return read_boxes(path)


def test_coco_boxes_are_pixels_of_their_own_frame(tmp_path):
    photograph(tmp_path / "a.jpg")
    told = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 240, "height": 180}, {"id": "8", "file_name": "b.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "bbox": [24, 18, 48, 90]},
            {"id": 2, "image_id": 7, "category_id": 5, "bbox": [0, 0, 240, 180], "score": 0.9},
            {"id": 3, "image_id": "8", "category_id": 9},
        ],
        "categories": [{"id": 1, "name": "Panthera onca"}, {"id": 5, "name": "Human"}, {"id": 9, "name": "empty"}],
    }
    found = read(tmp_path, told).found
    assert [(one.kind, one.sure) for one in found["a.jpg"]] == [("animal", 1.0), ("person", 0.9)]
    assert Upright().box(found["a.jpg"][0], tmp_path / "a.jpg") == pytest.approx((0.1, 0.1, 0.2, 0.5))
    assert [one.kind for one in found["b.jpg"]] == ["blank"]


@every(
    ("text", "expected"),
    [
        ('path,bbox\na.jpg,"[12, 9, 60, 45]"\n', (0.1, 0.1, 0.5, 0.5)),
        ("FileName,x,y,w,h\na.jpg,12,9,60,45\n", (0.1, 0.1, 0.5, 0.5)),
        ("file,xmin,ymin,xmax,ymax\na.jpg,12,9,72,54\n", (0.1, 0.1, 0.5, 0.5)),
        ("path,bbox_x,bbox_y,bbox_w,bbox_h,conf\na.jpg,0.1,0.1,0.5,0.5,0.8\n", (0.1, 0.1, 0.5, 0.5)),
        ("filePath,bboxX,bboxY,bboxWidth,bboxHeight\na.jpg,0.1,0.1,0.5,0.5\n", (0.1, 0.1, 0.5, 0.5)),
    ],
)
def test_columns_tell_boxes_in_pixels_or_in_shares(text, expected, tmp_path):
    photograph(tmp_path / "a.jpg")
    ((found,),) = read(tmp_path, text, "boxes.csv").found.values()
    assert Upright().box(found, tmp_path / "a.jpg") == pytest.approx(expected)


@every(
    ("told", "part"),
    [
        ("{", "can't be read"),
        ([1], "images: is missing"),
        ({"images": [{"file": "a.jpg"}]}, "neither detections nor annotations"),
        ({"images": [{"file": 3, "detections": []}]}, r"images\[0\].file: 3"),
        (
            {"images": [{"file": "a", "detections": detections(("1", 0.5, [1, 2, 3]))}]},
            r"detections\[0\].bbox: \[1, 2, 3\]",
        ),
        (
            {"images": [{"file": "a", "detections": detections(("1", 5, LEFT))}]},
            r"conf: 5 \(expected a number from 0 to 1",
        ),
        ({"images": [{"file": "a", "detections": 3}]}, r"images\[0\].detections: 3 \(expected a list"),
        ({"images": [{"file": "a", "detections": detections(("1", 0.5, [10**400, 0, 1, 1]))}]}, "expected x, y, width"),
        ({"images": [], "annotations": [{"image_id": [4], "category_id": {}}], "categories": 3}, "is no image"),
        ({"images": [], "annotations": [{"image_id": 4, "bbox": [0, 0, 1, 1]}]}, "image_id: '4' is no image"),
    ],
)
def test_a_file_that_holds_no_boxes_is_one_line(told, part, tmp_path):
    with pytest.raises(KitError, match=part):
        read(tmp_path, told)


def test_a_csv_without_boxes_and_a_missing_file_are_one_line(tmp_path):
    with pytest.raises(KitError, match="column 'bbox' is missing"):
        read(tmp_path, "path,colour\na.jpg,red\n", "boxes.csv")
    with pytest.raises(KitError, match="there is no such file"):
        read_boxes(tmp_path / "none.json")


def test_boxes_of_other_photographs_are_one_line_or_counted(study, tmp_path):
    strange = detector_file(tmp_path / "strange.json", {"elsewhere/z.jpg": detections(("1", 0.9, LEFT))})
    with pytest.raises(KitError, match=r"--boxes: .*strange.json: names none of these photographs: elsewhere/z.jpg"):
        study.identify("none", Wanted([strange]))
    some = detector_file(
        tmp_path / "some.json",
        {"z.jpg": [], "T1/one.jpg": detections(("1", 0.9, LEFT)), "T1/both.jpg": None, "2/one.jpg": []},
    )
    out = study.identify("some", Wanted([some]))
    report = (out / "report.md").read_text()
    assert "2 of its 3 files are none of these photographs: z.jpg, 2/one.jpg" in report
    assert "1 photographs could not be read there, and are looked at whole" in report
    assert "queries: 5 photographs have no entry among the boxes, and are looked at whole" in report


def test_wrong_options_are_one_line(study, capsys):
    usual = ("--previous", study.out, "--queries", study.root / "week1", "--out", study.root / "wrong")
    for option, part in (("--box-confidence=2", "--box-confidence: 2.0"), ("--box-margin=-1", "--box-margin: -1.0")):
        assert command(*usual, option) == 2
        assert part in capsys.readouterr().err


# on the photograph


@every("orientation", range(1, 9))
def test_boxes_of_a_turned_photograph_hold_the_animal(orientation, tmp_path):
    """Stored sideways or mirrored: a box of the pixels as stored, which COCO's frame tells, holds the same animal."""
    upright = Image.new("RGB", (120, 90), (90, 90, 90))
    upright.paste((255, 0, 0), (12, 9, 48, 27))
    back = {2: 0, 3: 1, 4: 2, 5: 3, 6: 6, 7: 5, 8: 4}  # what undoes UPRIGHT
    stored = upright.transpose(Image.Transpose[jaguar_kit.UPRIGHT[back[orientation]]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    red = np.asarray(stored)[..., 1] < 50
    (top, bottom), (left, right) = ((v[0], v[-1] + 1) for v in map(np.flatnonzero, (red.any(1), red.any(0))))
    box, frame = (left, top, right - left, bottom - top), stored.size
    reader = Upright()
    if frame != upright.size:  # where the frame tells that the box is of the photograph as it is stored
        found = reader.box(Detection("animal", tuple(map(float, box)), pixels=True, frame=frame), tmp_path / "a.png")
        assert reader.turned == 1
    else:
        shares = (left / frame[0], top / frame[1], (right - left) / frame[0], (bottom - top) / frame[1])
        found = boxes.turned_box(shares, orientation)
    assert found == pytest.approx((0.1, 0.1, 0.3, 0.2))
    whole = jaguar_kit.read_image(tmp_path / "a.png")[0]
    crop = np.asarray(crops.cut(whole, boxes.box_text(found), 0))
    assert crop.shape[:2] == (18, 36)
    assert (crop[..., 1] < 50).all()


@settings(deadline=None, max_examples=80)
@given(st.lists(st.floats(-2, 3), min_size=4, max_size=4))
def test_a_box_is_cut_at_the_edge_or_counted(values):
    reader = Upright()
    found = reader.box(Detection("animal", tuple(values)), Path("none.jpg"))
    if found is None:
        assert reader.nowhere == 1
        return
    x, y, w, h = found
    assert min(found) >= 0
    assert x + w <= 1 + 1e-9
    assert y + h <= 1 + 1e-9
    left, top, right, bottom = crops.pixels_of(found, (37, 23), 0.1)
    assert 0 <= left < right <= 37
    assert 0 <= top < bottom <= 23


def test_boxes_outside_are_counted(tmp_path):
    photograph(tmp_path / "a.jpg")
    found = Boxes(
        tmp_path / "x.json",
        {"a.jpg": [Detection("animal", (0.8, 0.2, 0.5, 0.5)), Detection("animal", (1.2, 0, 0.2, 0.2))]},
    )
    seen = look_at("queries", tmp_path, pd.DataFrame({"path": ["a.jpg"]}), Look([found]), False, None)
    assert seen.table.box.tolist() == ["0.8000 0.2000 0.2000 0.5000"]
    assert any("1 boxes reach beyond" in note for note in seen.notes)
    assert any("1 boxes hold no part" in note for note in seen.notes)


def test_names_fit_one_photograph_alone(tmp_path):
    told = Boxes(
        tmp_path / "x.json", {"a/1.jpg": [], "1.jpg": [], "C:\\cards\\b\\2.jpg": [], "c/3.jpg": [], "./d/4.jpg": []}
    )
    found, meant = by_photograph(told, ["a/1.jpg", "b/1.jpg", "b/2.jpg", "d/3.jpg", "week/d/4.jpg"])
    assert set(found) == {"a/1.jpg", "b/2.jpg", "week/d/4.jpg"}
    assert meant == {"a/1.jpg", "C:\\cards\\b\\2.jpg", "./d/4.jpg"}  # 1.jpg may be either, 3.jpg lies in another folder


def test_a_mask_is_the_box_where_no_other_is(tmp_path):
    image = Image.new("RGBA", (100, 50), (9, 9, 9, 0))
    image.paste((200, 0, 0, 255), (20, 10, 60, 40))
    image.save(tmp_path / "a.png")
    Image.new("RGB", (100, 50)).save(tmp_path / "b.png")
    paths = pd.DataFrame({"path": ["a.png", "b.png"]})
    seen = look_at("queries", tmp_path, paths, Wanted(["masks"]).look(0.2), False, None)
    assert seen.table.box.tolist() == ["0.2000 0.2000 0.4000 0.6000", ""]
    assert look_at("queries", tmp_path, paths, Look(), False, None).table.box.tolist() == ["", ""]
    files, masks = crops.files_to_read(tmp_path, seen.table, None, 0.0)
    crop = Image.open(files[0])
    assert (crop.size, crop.mode, masks) == ((40, 30), "RGBA", None)
    assert files[1] == "b.png"


def test_crops_carry_their_masks_and_broken_files_are_told(tmp_path):
    photograph(tmp_path / "a.jpg", (LEFT, 1))
    (tmp_path / "c.jpg").write_bytes(b"no image")
    (tmp_path / "m").mkdir()
    for name in "ac":
        Image.fromarray(np.eye(90, 120, dtype=np.uint8) * 255).save(tmp_path / "m" / f"{name}.png")
    shown = pd.DataFrame({"path": ["a.jpg", "c.jpg"], "box": ["0.0000 0.0000 0.5000 1.0000"] * 2})
    files, masks = crops.files_to_read(tmp_path, shown, "m", 0.0)
    crop = Image.open(files[0])
    assert (crop.mode, masks) == ("RGBA", None)
    assert np.array_equal(np.asarray(crop)[..., 3], np.eye(90, 60, dtype=np.uint8) * 255)
    assert Path(files[1]) == (tmp_path / "c.jpg").resolve()


def test_the_catalogue_takes_the_largest_box_and_columns_go_before_files(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        photograph(tmp_path / name)
    small = [0.1, 0.1, 0.1, 0.1]
    look = Look(
        [
            Boxes(
                tmp_path / "x",
                {n: [Detection("animal", tuple(small)), Detection("animal", tuple(LEFT))] for n in ("a.jpg", "b.jpg")},
            )
        ]
    )
    own = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "box": ["", "12 9 12 9"]})
    seen = look_at("catalogue", tmp_path, own, look, True, None)
    assert seen.table.box.tolist() == [boxes.box_text(LEFT), boxes.box_text(small)]
    assert any("1 photographs show several animals" in note for note in seen.notes)


# boxes of a recipe's data


def recipe_with(boxes_of: str | None, **more) -> jaguar_kit.Recipe:
    model = {"backbone": "test_resnet", "pretrained": False, "input_size": 32, "head": "none", "freeze": True}
    data = {"size": 32, "boxes": boxes_of, **more}
    return recipe_from_dict(
        {"name": "cut", "data": data, "model": model, "background": "original", "train": {"epochs": 0}}
    )


@pytest.fixture
def cats(tmp_path):
    """A small data set; boxes of its left halves, all but one, as a file below it."""
    data = make_mini_dataset(tmp_path / "data", identities=3, images=60)
    paths = load_competition(data).paths
    lines = [f"{path},0 0 0.5 1" for path in paths[1:]]
    (data / "boxes.csv").write_text("\n".join(["path,bbox", *lines]) + "\n")
    return data


def stored(data: Path, recipe: jaguar_kit.Recipe) -> np.ndarray:
    return open_data(recipe, load_competition(data)).store.read(range(60)).numpy()


def test_training_and_test_images_are_cut_out(cats, capsys):
    whole, cut = stored(cats, recipe_with(None)), stored(cats, recipe_with("boxes.csv"))
    assert np.array_equal(cut[0], stored(cats, recipe_with("masks"))[0])  # which has no box, but a mask
    said_there = capsys.readouterr().out
    assert "data.boxes: 60 animals in boxes on 60 photographs" in said_there
    assert (
        "data.boxes: 1 photographs have no entry among the boxes, and are looked at where their mask is" in said_there
    )
    competition = load_competition(cats)
    for row in (1, 59):  # of training, and of the test
        image = jaguar_kit.read_image(cats / competition.paths[row])[0]
        left = image.crop((0, 0, round(0.55 * image.width), image.height))  # with its margin
        shown = np.asarray(jaguar_kit.fit_square(left, 32, "squash")).transpose(2, 0, 1)
        assert np.abs(shown.astype(int) - cut[row, :3]).mean() < 2
        assert np.abs(whole[row, :3].astype(int) - cut[row, :3]).mean() > 5


def test_boxes_of_a_column_and_of_masks_cut_as_a_file_does(cats):
    competition = load_competition(cats)
    by_file = stored(cats, recipe_with("boxes.csv"))
    (cats / "views.csv").write_text("path,part\n" + "".join(f"{p},0 0 0.5 1\n" for p in competition.paths[1:]))
    assert np.array_equal(stored(cats, recipe_with("part")), by_file)
    cut = stored(cats, recipe_with("masks"))
    assert (cut[:, 3] > 127).mean() > (by_file[:, 3] > 127).mean()  # the animal fills its crop


@pytest.mark.ci
@every(
    ("value", "part"),
    [
        ("none.csv", r"data.boxes: 'none.csv' is no file in .* and no column \(expected one of filename"),
        ("elsewhere.csv", r"data.boxes: .*elsewhere.csv: names none of the images"),
    ],
)
def test_boxes_that_are_not_there_are_one_line(value, part, tmp_path):
    data = make_mini_dataset(tmp_path / "data", identities=3, images=24)
    (data / "elsewhere.csv").write_text("path,bbox\nz.jpg,0 0 1 1\n")
    with pytest.raises(KitError, match=part):
        stored(data, recipe_with(value))


@pytest.mark.ci
def test_a_run_of_other_boxes_is_another_run(cats, tmp_path, capsys):
    recipe = recipe_with("boxes.csv")

    def made() -> bool:
        capsys.readouterr()
        jaguar_kit.run_recipe(recipe, data=cats, out=tmp_path / "runs", device="cpu", force=False)
        return "finished before" not in capsys.readouterr().out

    assert made()
    assert not made()
    text = (cats / "boxes.csv").read_text()
    (cats / "boxes.csv").write_text(text.replace("0 0 0.5 1", "0 0 0.6 1"))
    with pytest.raises(KitError, match=r"holds a run with other settings \(the data: other images or labels\)"):
        made()
    changed = jaguar_kit.differing_settings(recipe, recipe_with(None))
    assert changed == [("data.boxes", "boxes.csv", None)]


# marks


def rows(*told: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(told, columns=["path", "mark", "box"])


P, A, B = "1" * 16, "0.1000 0.1000 0.3000 0.3000", "0.6000 0.1000 0.3000 0.3000"


def test_an_animal_keeps_its_mark_whatever_else_is_found():
    alone, _ = animals.with_animal_marks(rows(("a", P, A)), {}, False)
    assert alone[["mark", "picture"]].to_numpy().tolist() == [[P, ""]]  # as if there were no box
    both, parted = animals.with_animal_marks(rows(("a", P, A), ("a", P, B)), {P: [(P, A)]}, False)
    assert both.mark[0] == P != both.mark[1]  # the first is where it was
    assert both.picture.tolist() == ["", P]
    assert parted == 0
    again, _ = animals.with_animal_marks(
        rows(("a", P, "0.5900 0.1000 0.3000 0.3000")), {P: [(P, A), (both.mark[1], B)]}, False
    )
    assert again.mark.tolist() == [both.mark[1]]
    new, _ = animals.with_animal_marks(rows(("a", P, "0.1 0.7 0.2 0.2")), {P: [(P, A)]}, False)
    assert new.mark[0] not in (P, both.mark[1])


def test_a_photograph_that_was_whole_and_shows_two_is_told():
    both, parted = animals.with_animal_marks(rows(("a", P, A), ("a", P, B)), {P: [(P, "")]}, False)
    assert P not in set(both.mark)
    assert parted == 1


def test_a_photograph_without_boxes_has_those_of_before():
    known = {P: [("a" * 16, A), ("b" * 16, B)]}
    found, _ = animals.with_animal_marks(rows(("x", P, ""), ("copy of x", P, "")), known, False)
    assert found.mark.tolist() == ["a" * 16, "b" * 16] * 2
    named, _ = animals.with_animal_marks(rows(("x", P, "")), {P: known[P][:1]}, True)
    assert named.box.tolist() == [A]


def test_photographs_are_counted_once_however_many_animals_are_on_them():
    told = pd.DataFrame({"mark": ["a", "b", "c"], "picture": ["p", "p", ""]})
    assert captures.picture_of(told).nunique() == 2


def test_boxes_of_columns_come_through_a_catalogue(tmp_path):
    for n in range(2):
        photograph(tmp_path / f"{n}.jpg")
    text = "image_id,identity,path,bbox,species\n"
    text += '1,Ara,0.jpg,"[12, 9, 60, 45]",onca\n2,Bo,0.jpg,"[72, 9, 36, 45]",onca\n3,Bo,1.jpg,,onca\n'
    (tmp_path / "metadata.csv").write_text(text)
    root, found, notes = facts.load_catalogue(tmp_path / "metadata.csv")
    assert re.search("read as WildlifeReID-10k or AnimalCLEF: .*box from bbox", notes[0])
    seen = look_at("catalogue", root, found, Look(), True, None)
    assert seen.table.box.tolist() == ["0.1000 0.1000 0.5000 0.5000", "0.6000 0.1000 0.3000 0.5000", ""]
    assert seen.table.identity.tolist() == ["Ara", "Bo", "Bo"]
