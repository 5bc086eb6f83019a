"""Cameras of one station: what people say of them in a table, and what they count as, worked out by hand."""

from __future__ import annotations

import jaguar_kit
import pytest
from test_room_ledger import history, picture, said, table

TAKEN = {"ST01_A/a": "10:00:00", "ST01_B/b": "10:00:40", "ST02_A/c": "10:00:50", "ST01_B/d": "10:20:00"}
DAYS = "2026-05-03,2026-05-05"
TOGETHER = f"ST01,ST01_A,{DAYS}\nST01,ST01_B,{DAYS}\nST02,ST02_A,{DAYS}\n"
APART = "".join(f"{name},{name},{DAYS}\n" for name in ("ST01_A", "ST01_B", "ST02_A"))


def command(*arguments) -> None:
    with jaguar_kit.quiet():
        assert jaguar_kit.main(jaguar_kit.any_command, ["identify", *map(str, arguments)]) == 0


@pytest.fixture
def place(tmp_path):
    """A catalogue, and the cards of three cameras that photographed Ara within a minute, one of them later again."""
    for number in range(6):
        picture(tmp_path / "known" / ("Ara", "Bo")[number % 2] / f"{number}.png", number)
    for number, (name, clock) in enumerate(TAKEN.items()):
        picture(tmp_path / "cards" / f"{name}.jpg", 50 + number, f"2026-05-04 {clock}", "T")
    return tmp_path


def answered(place, weights, queries, *more):
    """The encounters of the photographs, after all of them are said to show Ara."""
    out = place / "answers"
    usual = ("--backbone", weights, "--catalogue", place / "known", "--device", "cpu")
    command(*usual, "--queries", queries, "--out", out, *more)
    said(out, *((name.split("/")[1], "yes", "Ara") for name in TAKEN))
    command("--previous", out, "--export", "secr,rmark,camtrapr")
    answers = table(out / "answers.csv")
    return out, dict(zip(answers.image.str[-5], answers.encounter))


def lines(path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    ("rows", "met", "captures"),
    [
        (TOGETHER, [{"a", "b"}, {"c"}, {"d"}], ["1 Ara 2 ST01", "1 Ara 2 ST02"]),
        (APART, [{"a"}, {"b"}, {"c"}, {"d"}], ["1 Ara 2 ST01-A", "1 Ara 2 ST01-B", "1 Ara 2 ST02-A"]),
    ],
)
def test_cameras_of_a_station_count_once(rows, met, captures, place, weights):
    given = place / "deployments.csv"
    places = [f"{row},-16.5,-56.{n}\n" for n, row in enumerate(rows.splitlines())]
    given.write_text("station,camera,start,end,latitude,longitude\n" + "".join(places))
    out, encounters = answered(place, weights, place / "cards", "--cameras", given)
    found = [{name for name in encounters if encounters[name] == one} for one in dict.fromkeys(encounters.values())]
    assert sorted(found, key=sorted) == met
    assert lines(out / "secr" / "captures.txt") == captures
    assert lines(out / "rmark" / "histories.txt")[1:] == ["010\t1\tAra"]
    records = table(out / "camtrapr" / "records.csv")
    apart = dict(zip(records.FileName.str[0], records["delta.time.secs"]))
    assert apart["b"] == ("40" if rows == TOGETHER else "0")
    command("--close", "--previous", out, "--out", place / "season")
    assert history(place / "season") == {"Ara": ["04"]}


def test_a_table_of_photographs_may_tell_stations(place, weights):
    rows = [f"cards/{name}.jpg,{name[:4]},{name[:6]}" for name in TAKEN]
    (place / "week.csv").write_text("path,site,camera\n" + "\n".join(rows) + "\n")
    _, encounters = answered(place, weights, place / "week.csv")
    assert encounters["a"] == encounters["b"]
    assert len(set(encounters.values())) == 3


def test_names_that_look_like_a_pair_are_not_taken_for_a_station(place, weights):
    _, encounters = answered(place, weights, place / "cards")
    assert len(set(encounters.values())) == 4
