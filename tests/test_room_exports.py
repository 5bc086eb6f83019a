"""Tables that come in from the field's programs, and those that go out to them: two stations, by hand."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
from cases import every
from jaguar_kit import KitError
from jaguar_kit_tools.identify import captures, clocks, decisions, exports, facts, field_tables, metres
from jaguar_kit_tools.identify.identify import export_earlier
from PIL import Image
from test_room_season import Field, command, said

# two stations: A worked from the 1st to the 5th, B from the 3rd to the 6th but for the 4th; nobody passed on the 2nd

CAMERAS = (
    "Station,Setup_date,Retrieval_date,Problem1_from,Problem1_to,latitude,longitude\n"
    "A,2026-05-01,2026-05-05,,,-16.5,-56.25\n"
    "B,2026-05-03,2026-05-06,2026-05-04,2026-05-04,-16.6,-56.3\n"
)
SEEN = (  # image, taken, animal or nobody, basis, flank
    ("week/A/1.jpg", "2026-05-01 06:00:00", "Ana Ñ", "named", "left"),
    ("week/A/2.jpg", "2026-05-01 06:10:30", "Ana Ñ", "named", "right"),
    ("week/A/3.jpg", "2026-05-03 22:00:00", "Bo_1", "sure", "left"),
    ("week/B/1.jpg", "2026-05-06 01:00:00", "Ana Ñ", "sure", ""),
    ("week/B/2.jpg", "2026-05-04 01:00:00", "Bo_1", "named", "left"),  # B did not work on that day
    ("week/B/3.jpg", "", "Bo_1", "named", "right"),  # of a card that lost its clock
    ("week/C/1.jpg", "2026-05-02 01:00:00", "Bo_1", "named", "left"),  # of no station
    ("week/A/4.jpg", "2026-05-05 08:00:00", "", "", ""),  # nobody knows who
    ("week/A copy/1.jpg", "2026-05-01 06:00:00", "Ana Ñ", "named", "left"),  # the first, copied
)


def answers_of(folder: Path, cameras: str | None = CAMERAS, rows=SEEN) -> Path:
    """A folder of answers as identify leaves it, with these photographs; the folder of a path is its station."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=["image", "taken", "identity", "basis", "flank"])
    marks = [hashlib.sha256(image.replace(" copy", "").encode()).hexdigest()[:16] for image in table.image]
    table = table.assign(mark=marks, camera=table.image.str.split("/").str[1].str.replace(" copy", ""))
    table["probability"] = np.where(table.basis == "sure", "0.97", "")
    photographs = captures.one_of_each(table.reindex(columns=captures.OF_PHOTOGRAPHS))
    photographs.to_csv(folder / "photographs.csv", index=False, encoding="utf-8-sig")
    known = pd.DataFrame({"identity": ["Cy"], "taken": ["2019-01-01"], "image": ["cy/1.jpg"], "basis": ["catalogue"]})
    seen = pd.concat([known.assign(mark="c" * 16), table[table.identity != ""]])
    seen = captures.as_text(seen.reindex(columns=captures.COLUMNS))
    seen.to_csv(folder / "captures.csv", index=False, encoding="utf-8-sig")
    (folder / "identify.json").write_text("{}")
    if cameras is not None:
        (folder / "given.csv").write_text(cameras)
        captures.keep_cameras(folder, folder / "given.csv", None)
    return folder


def written(folder: Path, formats: str = "all", **options) -> dict[str, pd.DataFrame | str]:
    export = exports.Export.of(formats, **options)
    with jaguar_kit.quiet():
        return read_back(folder, exports.export_tables(folder, export))


def read_back(folder: Path, paths: list[Path]) -> dict[str, pd.DataFrame | str]:
    found = {}
    for path in paths:
        name = str(path.relative_to(folder))
        csv = path.suffix == ".csv"
        found[name] = pd.read_csv(path, dtype=str, keep_default_na=False) if csv else path.read_text(encoding="utf-8")
    return found


def secr_lines(text: str) -> list[list[str]]:
    """What read.capthist takes: lines of words, without what stands behind a #."""
    return [line.split() for line in (line.partition("#")[0] for line in text.splitlines()) if line.strip()]


# what goes out


def test_secr_has_captures_at_traps_with_usage(tmp_path):
    found = written(answers_of(tmp_path), "secr")
    assert secr_lines(found["secr/captures.txt"]) == [
        ["1", "Ana-Ñ", "1", "A"], ["1", "Ana-Ñ", "6", "B"], ["1", "Bo_1", "3", "A"],
    ]  # fmt: skip
    traps = secr_lines(found["secr/traps.txt"])
    assert [row[0] for row in traps] == ["A", "B"]
    assert [row[3:] for row in traps] == [list("111110"), list("001011")]
    metres = np.array([row[1:3] for row in traps], float)
    apart = np.hypot(*(metres[0] - metres[1]))
    assert apart == pytest.approx(np.hypot(0.1 * 110_660, 0.05 * 106_710), rel=2e-3)  # degrees at 16.5 south
    assert "zone 21 south" in found["secr/traps.txt"]
    assert "noccasions = 6" in found["secr/captures.txt"]
    plain = found["secr/names.csv"].set_index("name").in_secr
    assert plain["Ana Ñ"] == "Ana-Ñ"


def test_occasions_of_three_days_sum_effort(tmp_path):
    found = written(answers_of(tmp_path), "secr,rmark", occasion=3)
    assert [row[3:] for row in secr_lines(found["secr/traps.txt"])] == [["3", "2"], ["1", "2"]]
    assert found["rmark/occasions.csv"].to_dict("list") == {
        "occasion": ["1", "2"], "first": ["2026-05-01", "2026-05-04"], "last": ["2026-05-03", "2026-05-06"],
        "effort": ["4", "4"], "interval": ["1", ""],
    }  # fmt: skip
    assert found["rmark/histories.txt"] == "ch\tfreq\tanimal\n11\t1\tAna-Ñ\n10\t1\tBo_1\n"


def test_mark_has_a_zero_for_each_day_that_cameras_worked(tmp_path):
    found = written(answers_of(tmp_path), "rmark")
    lines = found["rmark/histories.inp"].splitlines()
    assert lines[1:] == ["/* Ana-Ñ */ 100001 1;", "/* Bo_1 */ 001000 1;"]
    assert "time.intervals = c(1, 1, 1, 1, 1)" in lines[0]
    assert all(re.fullmatch(r"/\* \S+ \*/ [01]{6} 1;", line) for line in lines[1:])


def test_a_gap_between_seasons_is_an_interval_and_no_occasion(tmp_path):
    cameras = "station,start,end\nA,2026-05-01,2026-05-02\nA,2026-07-01,2026-07-03\n"
    found = written(answers_of(tmp_path, cameras), "rmark")
    assert found["rmark/occasions.csv"].interval.tolist() == ["1", "60", "1", "1", ""]
    assert found["rmark/histories.txt"].splitlines()[1].split("\t")[0] == "10000"


def test_camtrapr_reads_records_stations_and_operation(tmp_path):
    found = written(answers_of(tmp_path), "camtrapr")
    records, stations = found["camtrapr/records.csv"], found["camtrapr/stations.csv"]
    assert list(records) == [
        "Station", "Species", "Individual", "DateTimeOriginal", "Date", "Time", "delta.time.secs", "delta.time.mins",
        "delta.time.hours", "delta.time.days", "Directory", "FileName",
    ]  # fmt: skip
    assert records.DateTimeOriginal.str.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d").all()
    own = records[records.Individual == "Ana Ñ"]
    assert list(zip(own.Station, own["delta.time.secs"], own["delta.time.mins"], own.FileName)) == [
        ("A", "0", "0.0", "1.jpg"), ("A", "630", "10.5", "2.jpg"), ("B", "0", "0.0", "1.jpg"),
    ]  # fmt: skip
    operation = found["camtrapr/operation.csv"].set_index("Station")
    assert list(operation) == [f"2026-05-{day:02d}" for day in range(1, 7)]
    assert operation.loc["A"].tolist() == ["1", "1", "1", "1", "1", "NA"]
    assert operation.loc["B"].tolist() == ["NA", "NA", "1", "0", "1", "1"]
    assert set(records.Station) <= set(stations.Station) == set(operation.index)
    row = stations.set_index("Station").loc["B"]
    assert (row.Setup_date, row.Retrieval_date, row.Problem1_from, row.Problem1_to) == (
        "2026-05-03", "2026-05-06", "2026-05-04", "2026-05-04",
    )  # fmt: skip


def test_the_station_table_tells_the_same_effort_when_it_is_read_again(tmp_path):
    cameras = "station,start,end\nA,2026-05-01,2026-05-02\nA,2026-05-05,2026-05-06\nB,2026-05-02,2026-05-03\n"
    found = written(answers_of(tmp_path / "one", cameras), "camtrapr")
    again = written(answers_of(tmp_path / "two", (tmp_path / "one/camtrapr/stations.csv").read_text()), "camtrapr")
    assert found["camtrapr/operation.csv"].set_index("Station").loc["A"].tolist() == ["1", "1", "0", "0", "1", "1"]
    pd.testing.assert_frame_equal(found["camtrapr/operation.csv"], again["camtrapr/operation.csv"])


def test_camtrap_dp_tables_have_keys_that_join(tmp_path):
    found = written(answers_of(tmp_path), "camtrapdp", zone="-04:00")
    deployments, media, observations = (found[f"camtrapdp/{n}.csv"] for n in ("deployments", "media", "observations"))
    for table, key in ((deployments, "deploymentID"), (media, "mediaID"), (observations, "observationID")):
        assert table[key].is_unique
        assert (table[key] != "").all()
    assert set(media.deploymentID) <= set(deployments.deploymentID)
    assert set(observations.mediaID) == set(media.mediaID)
    assert set(observations.deploymentID) <= set(deployments.deploymentID)
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)"
    for table, columns in (
        (deployments, ("deploymentStart", "deploymentEnd")), (media, ("timestamp",)),
        (observations, ("eventStart", "eventEnd")),
    ):  # fmt: skip
        for column in columns:
            assert table[column].str.fullmatch(stamp).all()
    assert media.filePath.str.fullmatch(r"(?=[^./~])((?!\.{2}).)*").all()
    assert set(media.filePublic) == {"false"}
    assert media.fileMediatype.str.fullmatch("(image|video|audio)/.*").all()
    assert (deployments.deploymentStart <= deployments.deploymentEnd).all()
    assert pd.to_numeric(deployments.latitude).between(-90, 90).all()
    assert set(observations.observationLevel) == {"media"}
    named = observations[observations.individualID != ""].set_index("mediaID").individualID
    by_file = media.set_index("mediaID").filePath
    assert {by_file[key]: name for key, name in named.items()} == {
        "week/A copy/1.jpg": "Ana Ñ", "week/A/2.jpg": "Ana Ñ", "week/A/3.jpg": "Bo_1", "week/B/1.jpg": "Ana Ñ",
        "week/B/2.jpg": "Bo_1",
    }  # fmt: skip
    assert set(observations.observationType) == {"animal", "unclassified"}
    machine = observations[observations.classificationMethod == "machine"]
    assert set(machine.classificationProbability) == {"0.97"}
    assert media.timestamp.iloc[0].endswith("-04:00")
    assert set(deployments.timestampIssues) == {"false"}


def test_what_is_left_out_is_counted_aloud(tmp_path, capsys):
    exports.export_tables(answers_of(tmp_path), exports.Export.of("all"))
    told = capsys.readouterr().out
    for part in (
        "4 photographs of 2 animals are captures",
        "2 stations worked 8 days in 6 occasions of 1 days, by cameras.csv",
        "1 photographs of the catalogue are no captures",
        "1 photographs of known animals tell no date, and are of no occasion: week/B/3.jpg",
        "1 of 8 photographs tell no date",
        "1 photographs of known animals are of no station of cameras.csv: week/C/1.jpg",
        "1 photographs of known animals are of days on which their station did not work",
        "times are the cameras' clocks, written as Z",
    ):
        assert part in told, part
        assert part in (tmp_path / "exports.txt").read_text(encoding="utf-8")


def test_where_nobody_is_known_there_is_effort_and_no_capture(tmp_path):
    rows = [(image, taken, "", "", "") for image, taken, *_ in SEEN]
    found = written(answers_of(tmp_path, rows=rows))
    assert "secr: not written: there is no capture" in found["exports.txt"]
    assert "rmark: not written: there is no capture" in found["exports.txt"]
    assert found["camtrapr/records.csv"].empty
    assert set(found["camtrapdp/observations.csv"].observationType) == {"unclassified"}
    assert len(found["camtrapdp/media.csv"]) == 6


def test_where_no_photograph_is_of_a_station_there_is_effort_alone(tmp_path):
    found = written(answers_of(tmp_path, "station,start,end,latitude,longitude\nX,2026-05-01,2026-05-02,,\n"))
    assert "0 photographs of 0 animals are captures" in found["exports.txt"]
    assert found["camtrapr/operation.csv"].to_numpy().tolist() == [["X", "1", "1"]]
    assert found["camtrapdp/media.csv"].empty


def test_where_nothing_is_dated_it_is_one_line(tmp_path):
    folder = answers_of(tmp_path, None, [(image, "", name, basis, flank) for image, _, name, basis, flank in SEEN])
    with pytest.raises(KitError, match="no photograph tells a date"):
        written(folder)


@every(
    ("flank", "animals", "said"),
    [
        ("left", {"Ana Ñ": "100000", "Bo_1": "001000"}, "1 photographs of the other flank and 1 of none"),
        ("right", {"Ana Ñ": "100000"}, "2 photographs of the other flank and 1 of none"),
    ],
)
def test_captures_may_be_of_one_flank(flank, animals, said, tmp_path):
    found = written(answers_of(tmp_path), "rmark", flank=flank)
    rows = [line.split("\t") for line in found["rmark/histories.txt"].splitlines()[1:]]
    assert {name: ch for ch, _, name in rows} == {name.replace(" ", "-"): ch for name, ch in animals.items()}
    assert said in found["exports.txt"]


def test_the_catalogue_is_captures_when_asked_for(tmp_path):
    folder = answers_of(tmp_path, None)
    found = written(folder, "rmark", catalogue=True)
    assert found["rmark/histories.txt"].splitlines()[3].split("\t")[0].startswith("1")
    assert found["rmark/occasions.csv"]["first"].iloc[0] == "2019-01-01"
    assert "Cy" not in written(folder, "rmark")["rmark/histories.txt"]


def test_without_a_table_cameras_work_from_their_first_to_their_last_photograph(tmp_path):
    found = written(answers_of(tmp_path, None), "camtrapr,rmark,secr")
    operation = found["camtrapr/operation.csv"].set_index("Station")
    assert operation.loc["A"].tolist() == ["1", "1", "1", "1", "1", "NA"]
    assert operation.loc["B"].tolist() == ["NA", "NA", "NA", "1", "1", "1"]
    assert "from its first to its last photograph" in found["exports.txt"]
    assert "secr: not written: 3 of 3 stations tell no place: A, B, C" in found["exports.txt"]
    assert not (tmp_path / "secr").exists()


def test_a_clock_that_went_back_does_not_make_years_of_effort(tmp_path):
    rows = (*SEEN, ("week/A/9.jpg", "2000-01-01 00:00:10", "", "", ""))
    found = written(answers_of(tmp_path, None, rows), "rmark")
    assert len(found["rmark/occasions.csv"]) == 7
    assert found["rmark/occasions.csv"].interval.iloc[0] == "9617"
    assert "26 years apart, from 2000-01-01 00:00:10 (week/A/9.jpg)" in found["exports.txt"]


def test_decisions_that_came_later_count(tmp_path):
    folder = answers_of(tmp_path)
    marks = pd.read_csv(folder / "photographs.csv").set_index("image").mark
    rows = [("week/A/3.jpg", "no", "Bo_1"), ("week/A/4.jpg", "new", "Dora"), ("week/B/1.jpg", "yes", "Bo_1")]
    told = [
        (marks[image], image, "/w", kind, name, "Ana", f"2026-06-0{i + 1}")
        for i, (image, kind, name) in enumerate(rows)
    ]
    decisions.write_decisions(folder / "decisions.csv", pd.DataFrame(told, columns=list(decisions.COLUMNS)))
    with jaguar_kit.quiet():
        export_earlier(folder, exports.Export.of("rmark"))
    rows = (folder / "rmark/histories.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert [row.split("\t")[::2] for row in rows] == [["100000", "Ana-Ñ"], ["000001", "Bo_1"], ["000010", "Dora"]]


def test_what_people_call_empty_is_so_in_camtrap_dp(tmp_path):
    folder = answers_of(tmp_path)
    photographs = pd.read_csv(folder / "photographs.csv", dtype=str, keep_default_na=False)
    boxes = {"week/A/4.jpg": "0.1 0.1 0.2 0.2", "week/A/2.jpg": "0.5 0.5 0.2 0.2"}  # what a detector took for animals
    photographs["box"] = photographs.image.map(boxes).fillna("")
    beside = photographs[photographs.image == "week/A/2.jpg"].assign(mark="b" * 16, box="0 0 0.1 0.1")
    beside["picture"] = photographs.mark[photographs.image == "week/A/2.jpg"].iloc[0]
    photographs = pd.concat([photographs, beside])
    photographs.to_csv(folder / "photographs.csv", index=False, encoding="utf-8-sig")
    marks = photographs.drop_duplicates("image").set_index("image").mark
    said = {marks["week/A/4.jpg"]: "blank", "b" * 16: "blank", marks["week/A/3.jpg"]: "unusable"}
    told = [(mark, "", "/w", kind, "", "Ana", f"2026-06-0{i + 1}") for i, (mark, kind) in enumerate(said.items())]
    decisions.write_decisions(folder / "decisions.csv", pd.DataFrame(told, columns=list(decisions.COLUMNS)))
    assert command("--previous", folder, "--export", "camtrapdp") == 0
    media, observed = (
        pd.read_csv(folder / f"camtrapdp/{name}.csv", dtype=str, keep_default_na=False)
        for name in ("media", "observations")
    )
    observed = observed.merge(media, on="mediaID").set_index("filePath")
    assert observed.observationType.to_dict() == {
        "week/A copy/1.jpg": "animal", "week/A/2.jpg": "animal", "week/A/3.jpg": "unknown", "week/A/4.jpg": "blank",
        "week/B/1.jpg": "animal", "week/B/2.jpg": "animal",
    }  # fmt: skip
    assert observed.index.is_unique  # a part without an animal makes no photograph blank
    assert observed.loc["week/A/4.jpg", ["count", "classificationMethod", "individualID"]].tolist() == ["", "human", ""]


def test_metres_are_those_of_utm():
    east, north = metres.utm_of(np.array([43.6425667]), np.array([-79.3871389]), 17, False)
    assert (east[0], north[0]) == (pytest.approx(630084, abs=1), pytest.approx(4833438, abs=2))  # Toronto's tower
    east, north = metres.utm_of(np.array([0.0, -0.0001]), np.array([-57.0, -57.0]), 21, True)
    np.testing.assert_allclose(east, 500_000)
    np.testing.assert_allclose(north, [10_000_000, 10_000_000 - 11.0532], atol=1e-3)


def test_names_are_plain_and_stay_apart():
    assert list(exports.plain_names(["a b", "a-b", "a  b", "#", " "], r"[\s#]").values()) == [
        "a-b",
        "a-b-2",
        "a-b-3",
        "x",
        "x-2",
    ]


@every(
    ("options", "part"),
    [
        ({"formats": "serc"}, "--export: 'serc'; did you mean 'secr'?"),
        ({"formats": ","}, "--export: ','"),
        ({"formats": "secr", "occasion": 0}, "--occasion: 0"),
        ({"formats": "secr", "zone": "3"}, "--zone: '3'"),
        ({"formats": "secr", "flank": "rigth"}, "--flank: 'rigth'; did you mean 'right'?"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line(options, part):
    with pytest.raises(KitError, match=re.escape(part)) as caught:
        exports.Export.of(**options)
    assert "\n" not in str(caught.value)


@every(
    ("text", "part"),
    [
        ("Station,Setup_date\nA,2026-05-01\n", "column 'end' is missing"),
        ("station,start,end\nA,2026-05-01,2026-04-01\n", "line 2: end: 2026-04-01"),
        ("station,start,end\nA,01/02/2026,03/04/2026\n", "line 2: start: '01/02/2026' is no date"),
        ("station,start,end\nA,2026-13-01,\n", "line 2: start: '2026-13-01' is no date"),
        ("station,start,end\n,2026-05-01,\n", "line 2: station: is empty"),
        ("deploymentID,start,end\nd,2026-05-01,\nd,2026-06-01,\n", "'d' stands in two rows"),
    ],
)
def test_a_wrong_table_of_cameras_is_told_by_its_line(text, part, tmp_path):
    (tmp_path / "cameras.csv").write_text(text)
    with pytest.raises(KitError, match=re.escape(part)):
        field_tables.read_cameras(tmp_path / "cameras.csv")


@every(
    "text",
    [
        "station,start,end,latitude,longitude\nA,2026-05-01,2026-05-05,1.5,2\n",
        "deploymentID,locationID,deploymentStart,deploymentEnd,latitude,longitude\n"
        "d1,A,2026-05-01T09:00:00-03:00,2026-05-05T10:00:00-03:00,1.5,2\n",
        "Station,Setup_date,Retrieval_date,Latitude,Longitude\nA,01/05/2026,05/05/2026,1.5,2\nA,20/06/2026,21/06/2026,,\n",
        "deployment_id,placename,start_date,end_date,latitude,longitude\n"
        "d,A,2026-05-01 00:00:00,2026-05-05 00:00:00,1.5,2\n",
    ],
)
def test_cameras_are_read_by_the_names_of_several_programs(text, tmp_path):
    (tmp_path / "cameras.csv").write_text(text)
    row = field_tables.read_cameras(tmp_path / "cameras.csv")[0].iloc[0]
    assert (row.station, row.start, row.end, row.latitude, row.longitude) == (
        "A",
        "2026-05-01",
        "2026-05-05",
        "1.5",
        "2",
    )


def test_a_camera_that_moved_is_where_it_was_on_the_day():
    cameras = captures.cameras_of(pd.DataFrame({"day": [], "station": [], "latitude": [], "longitude": []}))
    rows = [("A", "d1", "cam7", "2026-05-01", "2026-05-05"), ("B", "d2", "cam7", "2026-05-06", "2026-05-09")]
    cameras = pd.DataFrame(rows, columns=["station", "deployment", "camera", "start", "end"]).reindex(
        columns=cameras.columns
    )
    photographs = pd.DataFrame({"taken": ["2026-05-02 01:00:00", "2026-05-07", "2026-06-01", ""], "camera": "CAM7"})
    photographs = photographs.assign(folder="x", station="", deployment="")
    assert captures.placed(photographs, cameras).station.tolist() == ["A", "B", "", ""]
    assert captures.placed(photographs.assign(folder="x/D2", camera=""), cameras).station.tolist() == ["B"] * 4


# capture histories and effort beside the answers


def test_histories_have_zeros_and_one_card_copied_twice_counts_once(tmp_path):
    seen = captures.read_sightings(answers_of(tmp_path, None))
    captures.write_captures(tmp_path, seen, pd.DataFrame())
    history = pd.read_csv(tmp_path / "capture_history.csv", encoding="utf-8-sig").set_index("identity")
    assert list(history) == [
        f"2026-05-{day:02d}" for day in range(1, 7)
    ]  # the second too, and no year of the catalogue
    assert history.loc["Ana Ñ"].tolist() == [1, 0, 0, 0, 0, 1]
    effort = pd.read_csv(tmp_path / "effort.csv", encoding="utf-8-sig").set_index("occasion")
    assert effort.photographs.tolist() == [2, 1, 1, 1, 1, 1]
    assert effort.cameras.tolist() == [1, 2, 1, 2, 2, 1]
    assert effort.named.tolist() == [2, 1, 1, 1, 0, 1]
    assert effort.animals.tolist() == [1, 1, 1, 1, 0, 1]


# the documented rules of each format

STAMP = r"\d{4}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d(Z|[+-]\d{2}:\d{2})"
NUMBER, SHARE = r"-?\d+(\.\d+)?", r"(0(\.\d+)?|1(\.0+)?)"
KINDS = "animal|human|vehicle|blank|unknown|unclassified"
CAMTRAP_DP = {  # of 1.0: a pattern for each field, and whether it is required
    "deployments": {
        "deploymentID": (".+", True), "locationID": (".*", False), "locationName": (".*", False),
        "latitude": (NUMBER, True), "longitude": (NUMBER, True), "deploymentStart": (STAMP, True),
        "deploymentEnd": (STAMP, True), "cameraID": (".*", False), "timestampIssues": ("true|false", False),
    },
    "media": {
        "mediaID": (".+", True), "deploymentID": (".+", True), "timestamp": (STAMP, True),
        "filePath": (r"(?=[^./~])((?!\.{2}).)*", True), "filePublic": ("true|false", True), "fileName": (".*", False),
        "fileMediatype": (r"(image|video)/.*", True),
    },
    "observations": {
        "observationID": (".+", True), "deploymentID": (".+", True), "mediaID": (".+", False), "eventID": (".*", False),
        "eventStart": (STAMP, True), "eventEnd": (STAMP, True), "observationLevel": ("media|event", True),
        "observationType": (KINDS, True), "scientificName": (".*", False), "count": (r"[1-9]\d*", False),
        "individualID": (".*", False), "bboxX": (SHARE, False), "bboxY": (SHARE, False), "bboxWidth": (SHARE, False),
        "bboxHeight": (SHARE, False), "classificationMethod": ("human|machine", False), "classifiedBy": (".*", False),
        "classificationProbability": (SHARE, False),
    },
}  # fmt: skip


def check_camtrapdp(tables: dict[str, pd.DataFrame]) -> None:
    """Columns, types, required fields, keys that join."""
    for name, fields in CAMTRAP_DP.items():
        own = tables[f"camtrapdp/{name}.csv"]
        assert list(own) == list(fields), name
        for column, (pattern, required) in fields.items():
            told = own[column] if required else own[column][own[column] != ""]
            assert told.str.fullmatch(pattern).all(), (name, column, sorted(set(told))[:3])
    deployments, media, observed = (tables[f"camtrapdp/{name}.csv"] for name in CAMTRAP_DP)
    keys = deployments.deploymentID, media.mediaID, observed.observationID
    assert all(key.is_unique for key in keys)
    assert set(media.deploymentID) | set(observed.deploymentID) <= set(deployments.deploymentID)
    assert set(observed.mediaID) - {""} <= set(media.mediaID)
    own = observed.merge(media, on="mediaID")
    assert (own.deploymentID_x == own.deploymentID_y).all()
    assert ((own.eventStart <= own.timestamp) & (own.timestamp <= own.eventEnd)).all()
    assert (observed.observationType[observed.individualID != ""] == "animal").all()
    boxes = observed[["bboxX", "bboxY", "bboxWidth", "bboxHeight"]][observed.bboxX != ""].astype(float)
    assert ((boxes.bboxX + boxes.bboxWidth <= 1.0001) & (boxes.bboxY + boxes.bboxHeight <= 1.0001)).all()


def check_secr(tables: dict) -> None:
    """Fields, occasions, detectors and usage, as read.capthist and verify want them."""
    captures, traps = (secr_lines(tables[f"secr/{name}.txt"]) for name in ("captures", "traps"))
    assert {len(line) for line in captures} == {4}
    count = int(re.search(r"noccasions = (\d+)", tables["secr/captures.txt"])[1])
    assert {len(line) for line in traps} == {3 + count}
    usage = {line[0]: [int(days) for days in line[3:]] for line in traps}
    assert len(usage) == len(traps)
    assert all(re.fullmatch(NUMBER, value) for line in traps for value in line[1:3])
    assert all(usage[trap][int(occasion) - 1] > 0 for _, _, occasion, trap in captures)
    assert len(set(map(tuple, captures))) == len(captures)  # of a proximity detector one for each occasion


def check_rmark(tables: dict) -> None:
    """Histories of one length, of 0 and 1, and an interval between each two occasions."""
    head, *lines = tables["rmark/histories.inp"].splitlines()
    assert all(re.fullmatch(r"/\* \S+ \*/ [01]+ 1;", line) for line in lines)
    histories = [line.split()[3] for line in lines]
    intervals = re.search(r"time\.intervals = c\((.*)\)", head)[1].split(", ")
    assert {len(history) for history in histories} == {len(intervals) + 1}
    table = [line.split("\t") for line in tables["rmark/histories.txt"].splitlines()]
    assert table[0] == ["ch", "freq", "animal"]
    assert [row[0] for row in table[1:]] == histories
    assert all("1" in history for history in histories)


def check_camtrapr(tables: dict[str, pd.DataFrame]) -> None:
    """Stations of all three, consecutive days, records of days that worked, and times between them."""
    records, stations, operation = (tables[f"camtrapr/{name}.csv"] for name in ("records", "stations", "operation"))
    assert stations.Station.is_unique
    assert list(stations.Station) == list(operation.Station)
    days = pd.to_datetime(pd.Series(operation.columns[1:]), format="%Y-%m-%d")
    assert (days.diff().dropna().dt.days == 1).all()
    up = operation.set_index("Station")
    assert set(np.unique(up)) <= {"0", "1", "NA"}
    assert all(up.loc[row.Station, row.Date] == "1" for row in records.itertuples())
    when = pd.to_datetime(records.DateTimeOriginal, format="%Y-%m-%d %H:%M:%S")
    assert (records.Date + " " + records.Time == records.DateTimeOriginal).all()
    since = when.groupby([records.Station, records.Species, records.Individual]).diff().dt.total_seconds().fillna(0)
    assert records["delta.time.secs"].astype(float).tolist() == since.tolist()
    for row in stations.itertuples():
        own = up.loc[row.Station]
        assert [row.Setup_date, row.Retrieval_date] == [own[own != "NA"].index[k] for k in (0, -1)]


CHECKS = {"secr": check_secr, "rmark": check_rmark, "camtrapr": check_camtrapr, "camtrapdp": check_camtrapdp}


@every(("occasion", "cameras"), [(1, CAMERAS), (3, CAMERAS), (1, None), (2, None)])
def test_each_format_keeps_the_rules_that_its_makers_document(occasion, cameras, tmp_path):
    rows = [(f"../{image}", *rest) if "A/2" in image else (image, *rest) for image, *rest in SEEN]  # of another week
    folder = answers_of(tmp_path, cameras, rows)
    placed = folder / "photographs.csv"
    told = pd.read_csv(placed, encoding="utf-8-sig", dtype=str, keep_default_na=False)
    told.assign(latitude="-16.5", longitude="-56.25").to_csv(placed, index=False, encoding="utf-8-sig")
    tables = written(folder, occasion=occasion, zone="-03:00")
    for check in CHECKS.values():
        check(tables)


# as a user does it


@pytest.mark.ci
def test_two_weeks_go_out_with_decisions_and_effort_whatever_became_of_the_files(tmp_path, weights, capsys):
    field = Field(tmp_path)
    cards = "".join(f"d{n},card{n},2026-05-01,2026-05-1{n},-16.5,-56.{n}\n" for n in range(3))
    (tmp_path / "deployments.csv").write_text("deploymentID,locationID,start,end,latitude,longitude\n" + cards)
    one, two = tmp_path / "answers1", tmp_path / "answers2"
    usual = ("--catalogue", field.catalogue, "--queries", field.weeks[0], "--out", one, "--device", "cpu")
    assert command("--backbone", weights, *usual, "--cameras", tmp_path / "deployments.csv") == 0
    told = capsys.readouterr().out
    assert "catalogue: of 16 photographs 16 no date, 16 no place" in told
    assert not (one / "secr").exists()
    images = pd.read_csv(one / "answers.csv", encoding="utf-8-sig").image
    said(one, *((image, "yes", "cat00") for image in images[:3]), (images[4], "new", "Dora"), (images[5], "blank", ""))
    assert command("--previous", one, "--export", "all", "--occasion", "5") == 0
    assert "4 photographs of 2 animals are captures" in capsys.readouterr().out
    histories = (one / "rmark/histories.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[2] for line in histories[1:]] == ["Dora", "cat00"]
    assert {len(line.split("\t")[0]) for line in histories[1:]} == {3}  # twelve days
    moved = shutil.copytree(field.weeks[1], tmp_path / "cards of two weeks")
    for number, image in enumerate(images[:2]):
        shutil.move(field.weeks[0] / image, moved / f"seen {number}.jpg")
    assert (
        command("--previous", one, "--queries", moved, "--out", two, "--export", "rmark,camtrapdp", "--occasion", "5")
        == 0
    )
    told = capsys.readouterr().out
    assert "4 photographs of 2 animals are captures" in told
    assert "no station" not in told
    again = (two / "rmark/histories.txt").read_text(encoding="utf-8").splitlines()
    assert again == histories
    effort = pd.read_csv(two / "effort.csv", encoding="utf-8-sig")
    assert effort.photographs.sum() == len(images) + len(list(field.weeks[1].rglob("*.jpg")))
    assert len(effort) == 12
    media = pd.read_csv(two / "camtrapdp/media.csv", dtype=str)
    assert {"seen 0.jpg", "seen 1.jpg"} <= set(media.fileName)
    observed = pd.read_csv(two / "camtrapdp/observations.csv", dtype=str).merge(media, on="mediaID")
    (blank,) = observed[observed.observationType == "blank"].itertuples()
    assert blank.fileName == Path(images[5]).name
    assert set(media.deploymentID) == {"d0", "d1", "d2"}


def test_answers_of_an_earlier_version_are_exported(tmp_path):
    folder = answers_of(tmp_path, None)
    photographs = captures.read_photographs(folder)
    asked = photographs[photographs.image.str.contains("A/")]
    asked[["image", "taken", "camera", "mark"]].to_csv(folder / "answers.csv", index=False, encoding="utf-8-sig")
    (folder / "photographs.csv").unlink()
    seen = captures.read_sightings(folder)
    seen[["identity", "occasion", "taken", "camera", "latitude", "longitude", "image", "basis"]].to_csv(
        folder / "captures.csv", index=False, encoding="utf-8-sig"
    )
    found = written(folder, "camtrapr")
    assert set(found["camtrapr/operation.csv"].Station) == {"A", "B", "C"}


# what comes in


def picture(path: Path, number: int, exif: Image.Exif | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (number, 0, 0)).save(path, **({"exif": exif} if exif else {}))


def tables_in(folder: Path, **texts: str) -> Path:
    """Four pictures, and tables beside them; returns the first table."""
    for number in range(4):
        picture(folder / f"card/IMG_{number}.jpg", number)
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return folder / f"{next(iter(texts))}.csv"


COMMON = {
    "Camtrap DP": {
        "media": "mediaID,deploymentID,timestamp,filePath,exifData\n"
        "m0,d1,2026-05-03T14:05:09-03:00,card/IMG_0.jpg,x\nm1,d1,2026-05-04T14:00:00-03:00,card/IMG_1.jpg,x\n",
        "observations": "observationID,deploymentID,mediaID,eventID,eventStart,eventEnd,scientificName,individualID\n"
        "o0,d1,m0,e0,,,Panthera onca,Ana\n"
        "o1,d1,,e1,2026-05-04T13:00:00-03:00,2026-05-04T15:00:00-03:00,Panthera onca,Bo\n",
        "deployments": "deploymentID,locationID,latitude,longitude,deploymentStart,deploymentEnd\nd1,L1,-16.5,-56,,\n",
    },
    "Wildlife Insights": {
        "images": "project_id,deployment_id,image_id,filename,location,genus,species,timestamp,individual_id,"
        "sequence_id\n"
        "1,d1,m0,IMG_0.jpg,gs://x/y/IMG_0.jpg,Panthera,onca,2026-05-03 14:05:09,Ana,e0\n"
        "1,d1,m1,IMG_1.jpg,gs://x/y/IMG_1.jpg,Panthera,onca,2026-05-04 14:00:00,Bo,e1\n",
        "deployments": "project_id,deployment_id,placename,longitude,latitude\n1,d1,L1,-56,-16.5\n",
    },
    "camtrapR": {
        "records": "Station,Species,Individual,DateTimeOriginal,Directory,FileName,latitude,longitude,eventID\n"
        "L1,Panthera onca,Ana,2026-05-03 14:05:09,C:\\old\\card,IMG_0.jpg,-16.5,-56,e0\n"
        "L1,Panthera onca,Bo,2026-05-04 14:00:00,C:\\old\\card,IMG_1.jpg,-16.5,-56,e1\n",
    },
    "Wildbook": {
        "export": "Encounter.catalogNumber,Encounter.mediaAsset0,Encounter.individualID,Encounter.year,Encounter.month,"
        "Encounter.day,Encounter.hour,Encounter.minutes,Encounter.locationID,Encounter.decimalLatitude,"
        "Encounter.decimalLongitude,Encounter.genus,Encounter.specificEpithet\n"
        "e0,IMG_0.jpg,Ana,2026,5,3,14,5,L1,-16.5,-56,Panthera,onca\n"
        "e1,IMG_1.jpg,Bo,2026,5,4,14,0,L1,-16.5,-56,Panthera,onca\n",
    },
}


@every("kind", list(COMMON))
def test_tables_of_the_fields_programs_are_understood(kind, tmp_path):
    path = tables_in(tmp_path, **COMMON[kind])
    root, table, notes = facts.load_catalogue(path)
    told, more = facts.with_facts(root, table)
    assert told.path.tolist() == ["card/IMG_0.jpg", "card/IMG_1.jpg"]
    assert told.identity.tolist() == ["Ana", "Bo"]
    assert told.taken.str[:16].tolist() == ["2026-05-03 14:05", "2026-05-04 14:00"]  # the camera's clock
    assert set(told.species) == {"Panthera onca"}
    assert set(told.station) == {"L1"}
    assert told.encounter.tolist() == ["e0", "e1"]
    assert set(zip(told.latitude, told.longitude)) == {("-16.5", "-56")}
    assert f"read as {kind}: " in notes[0]
    assert any("2 times tell an offset" in note for note in more) == (kind == "Camtrap DP")


DP_MEDIA = "mediaID,deploymentID,captureMethod,timestamp,filePath,filePublic,fileName,fileMediatype,exifData,favorite"
DP_OBSERVATIONS = (
    "observationID,deploymentID,mediaID,eventID,eventStart,eventEnd,observationLevel,observationType,scientificName,count,"
    "sex,individualID,bboxX,bboxY,bboxWidth,bboxHeight,classificationMethod,classificationProbability"
)
WHOLE = {  # what each program writes, by the columns that its makers document, with boxes and blanks where it has them
    "Camtrap DP": {
        "media": f"{DP_MEDIA}\n"
        + "".join(
            f"m{n},d1,motionDetection,2026-05-03T14:0{n}:09Z,card/IMG_{n}.jpg,true,,image/jpeg,,\n" for n in range(4)
        ),
        "observations": f"{DP_OBSERVATIONS}\n"
        "o0,d1,m0,e0,,,media,animal,Panthera onca,1,female,Ana,0.1,0.2,0.3,0.4,human,\n"
        "o1,d1,m0,e0,,,media,animal,Panthera onca,1,male,Bo,0.5,0.2,0.3,0.4,human,\n"
        "o2,d1,m1,e1,,,media,human,,,,,,,,,machine,0.9\no3,d1,m2,e2,,,media,blank,,,,,,,,,machine,0.8\n"
        "o4,d1,m3,e3,,,media,animal,Panthera onca,1,,Ana,,,,,human,\n"
        "o5,d1,m3,e3,,,media,animal,Panthera onca,1,,Bo,,,,,human,\n",
        "deployments": "deploymentID,locationID,locationName,latitude,longitude,deploymentStart,deploymentEnd,"
        "cameraID,baitUse\n"
        "d1,L1,the river,-16.5,-56,2026-05-01T00:00:00Z,2026-05-09T00:00:00Z,cam7,false\n",
    },
    "Wildlife Insights": {
        "images": "project_id,deployment_id,image_id,filename,location,is_blank,identified_by,wi_taxon_id,class,order,"
        "family,genus,species,common_name,uncertainty,timestamp,age,sex,animal_recognizable,individual_id,number_of_objects,"
        "highlighted,markings,cv_confidence,license,fuzzed\n"
        + "".join(
            f"1,d1,m{n},IMG_{n}.jpg,gs://x/y/IMG_{n}.jpg,{blank},Computer vision,u,Mammalia,Carnivora,Felidae,"
            f"Panthera,onca,Jaguar,,2026-05-03 14:0{n}:09,,,TRUE,{who},1,FALSE,,0.9,CC-BY,false\n"
            for n, (blank, who) in enumerate(((0, "Ana"), (1, ""), (0, "Bo"), (1, "")))
        ),
        "deployments": "project_id,deployment_id,placename,longitude,latitude,start_date,end_date,camera_id,bait_type\n"
        "1,d1,L1,-56,-16.5,2026-05-01 00:00:00,2026-05-09 00:00:00,cam7,None\n",
    },
    "camtrapR": {
        "records": "Station,Camera,Species,Individual,DateTimeOriginal,Date,Time,delta.time.secs,delta.time.mins,"
        "delta.time.hours,delta.time.days,Directory,FileName\n"
        "L1,left,Panthera onca,Ana,2026-05-03 14:05:09,2026-05-03,14:05:09,0,0,0,0,C:/x/card,IMG_0.jpg\n"
        "L1,right,Panthera onca,Ana,2026-05-03 14:05:19,2026-05-03,14:05:19,10,0.2,0,0,C:/x/card,IMG_1.jpg\n",
    },
    "Wildbook": {
        "export": "Encounter.mediaAsset0,Encounter.mediaAsset0.imageUrl,Annotation0.ViewPoint,Annotation0.bbox,"
        "Annotation0.MatchAgainst,Name0.label,Name0.value,Encounter.year,Encounter.month,Encounter.day,Encounter.genus,"
        "Encounter.specificEpithet,Encounter.locationID,Encounter.state\n"
        'IMG_0.jpg,https://x,left,"[1, 2, 3, 4]",true,nick,Ana,2026,5,3,Panthera,onca,L1,approved\n'
        'IMG_1.jpg,https://x,right,"[2, 2, 4, 4]",true,nick,Bo,2026,5,3,Panthera,onca,L1,approved\n',
    },
    "WildlifeReID-10k or AnimalCLEF": {
        "metadata": "image_id,identity,path,bbox,date,orientation,species,split,dataset\n"
        '0,Ana,card/IMG_0.jpg,"[1, 2, 3, 4]",2026-05-03,left,jaguar,train,Jaguars\n'
        '1,Bo,card/IMG_1.jpg,"[2.0, 2.0, 4.0, 4.0]",2026-05-03,right,jaguar,test,Jaguars\n',
    },
}
TOLD = {  # path, individual, box and what else is on the photograph; and how many columns are not used
    "Camtrap DP": (
        [
            ("0", "Ana", "0.1 0.2 0.3 0.4", ""), ("0", "Bo", "0.5 0.2 0.3 0.4", ""), ("1", "", "", "person"),
            ("2", "", "", "blank"), ("3", "Ana", "", ""),
        ],
        19,
    ),
    "Wildlife Insights": (
        [("0", "Ana", "", ""), ("1", "", "", "blank"), ("2", "Bo", "", ""), ("3", "", "", "blank")],
        22,
    ),
    "camtrapR": ([("0", "Ana", "", ""), ("1", "Ana", "", "")], 5),
    "Wildbook": ([("0", "Ana", "[1, 2, 3, 4]", ""), ("1", "Bo", "[2, 2, 4, 4]", "")], 4),
    "WildlifeReID-10k or AnimalCLEF": ([("0", "Ana", "[1, 2, 3, 4]", ""), ("1", "Bo", "[2.0, 2.0, 4.0, 4.0]", "")], 2),
}  # fmt: skip


@every("kind", list(WHOLE))
def test_each_program_is_read_by_its_own_columns_with_boxes_and_blanks(kind, tmp_path):
    _, found, notes = facts.load_queries(tables_in(tmp_path, **WHOLE[kind]))
    found = found.reindex(columns=["path", "identity", "box", "seen"], fill_value="")
    numbers = found.path.str.extract(r"IMG_(\d)")[0]
    expected, unused = TOLD[kind]
    assert list(zip(numbers, found.identity, found.box, found.seen)) == expected
    assert f"read as {kind}: " in notes[0]
    assert f"{unused} columns are not used" in notes[0]
    assert any("1 files show several individuals" in note for note in notes) == (kind == "Camtrap DP")


def test_two_cameras_of_a_station_stay_two_in_camtraprs_records(tmp_path):
    _, found, _ = facts.load_queries(tables_in(tmp_path, **WHOLE["camtrapR"]))
    assert list(zip(found.station, found.camera)) == [("L1", "left"), ("L1", "right")]


def test_columns_that_are_used_and_that_are_not_are_told(tmp_path):
    path = tables_in(tmp_path, known="PATH,Identity,Torn Ear,Weather\ncard/IMG_0.jpg,a,x,y\ncard/IMG_1.jpg,b,x,y\n")
    _, table, notes = facts.load_catalogue(path)
    assert table.identity.tolist() == ["a", "b"]
    assert (
        notes[0] == f"{path}: read: path from PATH, identity from Identity; 2 columns are not used: Torn Ear, Weather"
    )
    told, _ = facts.with_facts(tmp_path, table)
    assert facts.facts_nobody_has("catalogue", told) == [
        "catalogue: of 2 photographs 2 no date, 2 no place (neither in the files nor in a table)"
    ]


def test_metadata_of_wildlife_reid_names_its_test_images_nobody(tmp_path):
    text = "image_id,identity,path,date,orientation,species,split,dataset\n"
    rows = [
        f"{n},{who},card/IMG_{n}.jpg,2021-03-0{n + 1},left,jaguar,train,J\n" for n, who in enumerate(("a", "b", ""))
    ]
    _, table, notes = facts.load_catalogue(tables_in(tmp_path, known=text + "".join(rows)))
    assert table.identity.tolist() == ["a", "b"]
    assert any("1 images name nobody and are left out" in note for note in notes)
    assert facts.with_facts(tmp_path, table)[0].taken.tolist() == ["2021-03-01", "2021-03-02"]


def test_a_table_that_names_no_image_is_one_line(tmp_path):
    text = "Encounter.mediaAsset0,Encounter.mediaAsset1,Encounter.individualID\n,,Ana\n"
    with pytest.raises(KitError, match=r"Encounter\.mediaAsset0: names no image"):
        facts.load_catalogue(tables_in(tmp_path, export=text))


def test_observations_may_be_named_instead_of_media(tmp_path):
    tables_in(tmp_path, **COMMON["Camtrap DP"])
    _, table, _ = facts.load_queries(tmp_path / "observations.csv")
    assert table.path.tolist() == ["card/IMG_0.jpg", "card/IMG_1.jpg"]


def test_files_that_are_not_there_are_counted_and_two_of_a_name_are_told_apart_by_folders(tmp_path):
    picture(tmp_path / "other/IMG_0.jpg", 9)
    rows = ["D:/x/other", "card", "gone", "D:/elsewhere"]
    text = "Station,DateTimeOriginal,Directory,FileName\n" + "".join(
        f"A,2026-05-01 10:00:00,{row},IMG_0.jpg\n" for row in rows
    )
    _, table, notes = facts.load_queries(tables_in(tmp_path, records=text))
    assert table.path.tolist() == ["other/IMG_0.jpg", "card/IMG_0.jpg"]
    assert any("2 of 4 images are not in" in note for note in notes)
    (tmp_path / "records.csv").write_text("Station,DateTimeOriginal,FileName\nA,2026-05-01,none.jpg\n")
    with pytest.raises(KitError, match="none of its 1 images is in"):
        facts.load_queries(tmp_path / "records.csv")


def test_each_image_of_an_encounter_has_a_row(tmp_path):
    text = "Encounter.mediaAsset0,Encounter.mediaAsset1,Encounter.individualID\n"
    text += "IMG_0.jpg,IMG_1.jpg,Ana\nIMG_2.jpg,,Bo\nIMG_3.jpg,,Unassigned\n"
    _, table, notes = facts.load_catalogue(tables_in(tmp_path, export=text))
    assert list(zip(table.path, table.identity, table.encounter)) == [
        ("card/IMG_0.jpg", "Ana", "row 2"), ("card/IMG_1.jpg", "Ana", "row 2"), ("card/IMG_2.jpg", "Bo", "row 3"),
    ]  # fmt: skip
    assert any("1 images name nobody" in note for note in notes)


@every(
    ("values", "told", "offsets", "strange"),
    [
        (["2026-05-03 00:00:00"] * 2, ["2026-05-03"] * 2, 0, 0),  # a day, as pandas writes it
        (["2026-05-03 00:00:00", "2026-05-03 06:00:00"], ["2026-05-03 00:00:00", "2026-05-03 06:00:00"], 0, 0),
        (["2026-05-03T23:30:00-04:00", "2026-05-03 10:00:00Z"], ["2026-05-03 23:30:00", "2026-05-03 10:00:00"], 2, 0),
        (["0001-01-01", "9999-12-31 10:00:00", "2026:13:40 10:00:00", "2026-02-30"], [""] * 4, 0, 4),
        (["1899-12-31", "2101-01-01", "1900-01-01"], ["", "", "1900-01-01"], 0, 2),
        (["2026-05-03 25:10:00", "yesterday", "20260503"], [""] * 3, 0, 3),
        (["25/12/2026 06:05", "01/02/2026"], ["2026-12-25 06:05:00", "2026-02-01"], 0, 0),  # days before months
        (["12/25/2026 6:05:00 PM", "01/02/2026"], ["2026-12-25 18:05:00", "2026-01-02"], 0, 0),
        (["01/02/2026", "25/12/2026", "12/25/2026"], [""] * 3, 0, 3),  # both orders in one column
        (["2026:05:03 06:00:00", ""], ["2026-05-03 06:00:00", ""], 0, 0),
    ],
)
def test_times_are_those_of_the_cameras_clock(values, told, offsets, strange):
    found, counts = clocks.times_of(pd.Series(values))
    assert found.tolist() == told
    assert (counts.offsets, counts.unreadable + counts.implausible) == (offsets, strange)
    assert len(counts.notes("x")) == (offsets > 0) + (strange > 0)


def test_places_that_are_none_are_counted():
    latitude, longitude, strange = clocks.places_of(
        pd.Series(["0", "-16,5", "nan", "91", "", "5", "inf"]), pd.Series(["0.0", "-56", "1", "3", "", "", "1"])
    )
    assert list(zip(latitude, longitude)) == [("", ""), ("-16.5", "-56"), *[("", "")] * 5]
    assert strange == 5


def exif_with(when: dict[int, str], changed: str = "", program: str = "", place: tuple | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0110] = "Cam"
    for tag, value in ((0x0132, changed), (0x0131, program)):
        if value:
            exif[tag] = value
    exif.get_ifd(0x8769).update(when)
    if place:
        exif.get_ifd(0x8825).update({1: "S", 2: place, 3: "W", 4: place})
    return exif


def test_what_cameras_write_wrongly_is_no_date_and_no_place(tmp_path):
    cases = {
        "a.jpg": exif_with({0x9003: "2026:13:40 10:00:00"}),
        "b.jpg": exif_with({0x9003: "0000:00:00 00:00:00", 0x9004: "2026:05:03 10:00:00"}),
        "c.jpg": exif_with({}, changed="2026:05:04 10:00:00"),
        "d.jpg": exif_with({}, changed="2026:05:04 10:00:00", program="An editor 3.1"),
        "e.jpg": exif_with({0x9003: "2300:01:01 10:00:00"}, place=(0.0, 0.0, 0.0)),
        "f.jpg": exif_with({0x9003: "2026:05:05 10:00:00"}, place=(16.0, 30.0, 0.0)),
    }
    for number, (name, exif) in enumerate(cases.items()):
        picture(tmp_path / name, number, exif)
    told, notes = facts.with_facts(tmp_path, pd.DataFrame({"path": list(cases)}))
    assert told.taken.tolist() == ["", "2026-05-03 10:00:00", "2026-05-04 10:00:00", "", "", "2026-05-05 10:00:00"]
    assert told.latitude.tolist() == [*[""] * 5, "-16.5"]
    assert "EXIF: 2 values are no dates" in notes[0]
    assert "1 places are none" in notes[1]


def test_midnight_of_a_table_leaves_times_of_files(tmp_path):
    for number in range(2):
        picture(tmp_path / f"{number}.jpg", number, exif_with({0x9003: f"2026:05:03 1{number}:00:00"}))
    table = pd.DataFrame({"path": ["0.jpg", "1.jpg"], "date": "2026-05-03 00:00:00"})
    told, notes = facts.with_facts(tmp_path, table)
    assert told.taken.tolist() == ["2026-05-03 10:00:00", "2026-05-03 11:00:00"]
    assert not notes
