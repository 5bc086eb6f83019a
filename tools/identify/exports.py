"""What the field's programs read: secr, RMark and MARK, camtrapR, and Camtrap DP, from a folder of answers.

All formats hold the same captures: of animals that a person or a sure answer names, on days that their station worked.
"""

from __future__ import annotations

import mimetypes
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from jaguar_kit import KitError, __version__, echo, first_few, suggest, write_table, write_text

from .captures import (
    CAMERAS,
    SILENCE,
    Study,
    in_study,
    picture_of,
    read_kept_cameras,
    read_photographs,
    read_sightings,
    study_of,
)
from .decisions import Decisions, earlier_settings
from .metres import metres_of

# what is asked for


FLANKS = ("left", "right", "both")


@dataclass(frozen=True)
class Export:
    """Which tables are written, and of what."""

    formats: Sequence[str]
    occasion: int = 1  # days
    flank: str = "both"  # left, right: sightings of that flank alone
    catalogue: bool = False  # whether the catalogue's dated photographs are captures as well
    zone: str = ""  # what the cameras' clocks are apart from UTC, such as -03:00

    @staticmethod
    def of(formats: str, occasion: int = 1, flank: str = "both", catalogue: bool = False, zone: str = "") -> Export:
        """Checks what somebody typed; formats: names with commas between them, or all."""
        asked = [name.strip().lower() for name in formats.split(",") if name.strip()]
        if not asked:
            raise KitError(f"--export: {formats!r} (expected some of {','.join(FORMATS)}, or all)")
        for name in asked:
            if name != "all" and name not in FORMATS:
                raise KitError(f"--export: {name!r}; {suggest(name, (*FORMATS, 'all'))}")
        if occasion < 1:
            raise KitError(f"--occasion: {occasion} (expected a number of days, 1 or more)")
        if flank not in FLANKS:
            raise KitError(f"--flank: {flank!r}; {suggest(flank, FLANKS)}")
        if zone and not re.fullmatch(r"Z|[+-](0\d|1[0-4]):[0-5]\d", zone):
            raise KitError(f"--zone: {zone!r} (expected what the clocks are apart from UTC, such as -03:00, or Z)")
        return Export(FORMATS if "all" in asked else list(dict.fromkeys(asked)), occasion, flank, catalogue, zone)


@dataclass(frozen=True, eq=False)
class Captured:
    """What is written: captures at stations that worked, and the study around them."""

    study: Study
    captures: pd.DataFrame  # identity, station, day, occasion (from 1), taken, image, mark, basis, ...
    sightings: pd.DataFrame  # all with a date, of either flank, at work or not
    export: Export
    empty: Mapping[str, str]  # by mark, why a photograph has no name, as people said: blank or unusable

    @property
    def occasions(self) -> pd.DataFrame:
        return self.study.occasions(self.export.occasion)


def export_tables(
    folder: Path, export: Export, ledger: Decisions | None = None, empty: Mapping[str, str] | None = None
) -> list[Path]:
    """Writes the tables that are asked for into a folder of answers, and says what they hold and what they leave out.

    ledger: decisions that came after the answers. empty: by mark, why photographs have no name, where these are not
    given. Returns what was written.
    """
    captured, notes = gather(folder, export, ledger, empty or {})
    written = []
    for name in export.formats:
        tables, said = WRITERS[name](captured)
        notes += said
        for path, content in tables.items():
            file = folder / name / path
            if isinstance(content, str):
                write_text(file, content)
            else:
                write_table(file, content)
            written.append(file)
    told = [
        f"{len(captured.captures)} photographs of {captured.captures.identity.nunique()} animals are captures",
        *notes,
    ]
    for note in told:
        echo(f"  note: {note}")
    write_text(folder / "exports.txt", "\n".join([*told, "", *(str(p.relative_to(folder)) for p in written)]) + "\n")
    return [*written, folder / "exports.txt"]


def gather(
    folder: Path, export: Export, ledger: Decisions | None, empty: Mapping[str, str]
) -> tuple[Captured, list[str]]:
    """The captures of a folder of answers, and what they leave out, with counts."""
    photographs, seen, cameras = read_photographs(folder), read_sightings(folder), read_kept_cameras(folder)
    notes = []
    if ledger is not None:
        empty = ledger.nothing
        seen = decided(photographs, seen, ledger, earlier_settings(folder).get("week") or 1)
    of_catalogue = seen.basis == "catalogue"
    if export.catalogue:
        dated = seen[of_catalogue & (seen.taken != "")]
        photographs = pd.concat([photographs, dated.reindex(columns=photographs.columns)]).fillna("")
        photographs = photographs.drop_duplicates("mark").reset_index(drop=True)
    else:
        if of_catalogue.any():
            notes.append(
                f"{of_catalogue.sum()} photographs of the catalogue are no captures (--with-catalogue makes them so)"
            )
        seen = seen[~of_catalogue]
    study = study_of(photographs, cameras)
    if study.cameras.empty:
        raise KitError(f"{folder}: no photograph tells a date (expected some that do, or --cameras)")
    notes += notes_on_effort(study, cameras is not None, export)
    seen = in_study(seen, study)
    undated = seen.day.isna()
    if undated.any():
        notes.append(
            f"{undated.sum()} photographs of known animals tell no date, and are of no occasion: {few(seen[undated])}"
        )
    seen = seen[~undated]
    lost = seen.row < 0
    if lost.any():
        notes.append(f"{lost.sum()} photographs of known animals are of no station of {CAMERAS}: {few(seen[lost])}")
    idle = ~lost & ~study.at_work(seen)
    if idle.any():
        notes.append(
            f"{idle.sum()} photographs of known animals are of days on which their station did not work by {CAMERAS}, "
            f"and are left out: {few(seen[idle])}"
        )
    captures = seen[~lost & ~idle]
    twice = captures.assign(picture=picture_of(captures)).duplicated(["picture", "identity"])
    if twice.any():
        notes.append(f"{twice.sum()} animals have two boxes on one photograph, and count once: {few(captures[twice])}")
    captures = captures[~twice].reset_index(drop=True)
    captures["occasion"] = study.occasion_of(captures.day, export.occasion)
    fits, said = of_flank(captures, export.flank)
    return Captured(study, captures[fits].reset_index(drop=True), seen, export, empty), [*notes, *said]


def few(rows: pd.DataFrame) -> str:
    return first_few(list(rows.image))


def decided(photographs: pd.DataFrame, seen: pd.DataFrame, ledger: Decisions, week: int) -> pd.DataFrame:
    """Sightings of a week as decisions have it now: with what was named since, without what somebody denied."""
    seen = seen.assign(identity=[ledger.names.at(name, mark, week) for name, mark in zip(seen.identity, seen.mark)])
    names = dict(zip(ledger.named.mark, ledger.named.identity))
    denied = [name in ledger.rejected.get(mark, ()) for mark, name in zip(seen.mark, seen.identity)]
    answered, without = seen.basis != "catalogue", {*ledger.disputed, *ledger.nothing}
    kept = seen[~(answered & (np.array(denied, bool) | seen.mark.isin({*names, *without})))]
    named = photographs[photographs.mark.isin(list(names))]
    named = named.assign(identity=named.mark.map(names), basis="named", occasion=named.taken.str[:10], probability="")
    gone = seen[answered & seen.mark.isin(list(names)) & ~seen.mark.isin(set(named.mark))]
    return pd.concat([kept, gone, named.reindex(columns=seen.columns)], ignore_index=True).fillna("")


def of_flank(seen: pd.DataFrame, flank: str) -> tuple[np.ndarray, list[str]]:
    """Which sightings show the flank that is asked for, and how many are left out."""
    if flank == "both":
        return np.ones(len(seen), bool), []
    told = seen.flank.str.strip().str.lower()
    fits = (told.str[:1] == flank[0]) | (told == "both")
    unknown = int((~told.str[:1].isin(["l", "r"]) & (told != "both")).sum())
    other = int((~fits).sum()) - unknown
    return fits.to_numpy(bool), [
        f"--flank {flank}: {other} photographs of the other flank and {unknown} of none are left out"
    ]


def notes_on_effort(study: Study, told: bool, export: Export) -> list[str]:
    """How effort is known, and of which photographs it isn't."""
    photographs, occasions = study.pictures, study.occasions(export.occasion)
    days, count = int(study.worked.sum()), len(occasions)
    effort = f"{len(study.stations)} stations worked {days} days in {count} occasions of {export.occasion} days"
    how = (
        f"by {CAMERAS}"
        if told
        else f"each taken to work from its first to its last photograph, silences of more than {SILENCE} days apart; "
        "--cameras tells it"
    )
    notes = [f"{effort}, {how}"]
    if undated := int(photographs.day.isna().sum()):
        notes.append(
            f"{undated} of {len(photographs)} photographs tell no date: {few(photographs[photographs.day.isna()])}"
        )
    if len(study.days) > 2 * 366 and not told:
        first = photographs.sort_values("day", kind="stable").iloc[0]
        notes.append(
            f"photographs are {len(study.days) // 365} years apart, from {first.taken} ({first.image}) on: a camera "
            "whose clock was set back puts its photographs into other years"
        )
    if len(missing := study.missing):
        notes.append(f"{len(missing)} photographs are of no station of {CAMERAS}: {few(missing)}")
    if len(occasions) and len(study.days) % export.occasion and occasions["last"].iloc[-1] == study.days[-1]:
        notes.append(f"the last occasion has {len(study.days) % export.occasion} days instead of {export.occasion}")
    return notes


def plain_names(names: Iterable[str], forbidden: str) -> dict[str, str]:
    """Names without what a format forbids (a class of characters), each other than the rest."""
    found: dict[str, str] = {}
    for name in names:
        plain = base = re.sub(f"{forbidden}+", "-", name).strip("-") or "x"
        number = 2
        while plain in found.values():
            plain, number = f"{base}-{number}", number + 1
        found[name] = plain
    return found


Tables = dict[str, pd.DataFrame | str]  # by name below the format's folder

# secr


def for_secr(captured: Captured) -> tuple[Tables, list[str]]:
    """captures.txt (Session, ID, Occasion, Detector), traps.txt (Detector, X, Y, days of each occasion), and names.csv.

    Names hold no blanks, commas or marks of comments, those of detectors no underscores.
    """
    study = captured.study
    places, zone = metres_of(study)
    lacking = places.index[places.x.isna()]
    if len(lacking):
        return {}, [
            f"secr: not written: {len(lacking)} of {len(places)} stations tell no place: {first_few(list(lacking))}"
        ]
    if captured.captures.empty:
        return {}, ["secr: not written: there is no capture"]
    seen = captured.captures.drop_duplicates(["identity", "occasion", "station"])
    animals = plain_names(sorted(set(seen.identity)), r"[\s,#;/\"']")
    traps = plain_names(study.stations, r"[\s,#;/\"'_]")
    seen = seen.sort_values(["identity", "occasion", "station"])
    lines = [f"1 {animals[s.identity]} {s.occasion} {traps[s.station]}" for s in seen.itertuples()]
    count = len(captured.occasions)
    read = f'"captures.txt", "traps.txt", detector = "proximity", noccasions = {count}, binary.usage = FALSE'
    effort = study.usage(captured.export.occasion)
    rows = [
        f"{traps[name]} {place.x:.1f} {place.y:.1f} {' '.join(map(str, days))}"
        for (name, place), days in zip(places.iterrows(), effort)
    ]
    names = [("animal", name, plain) for name, plain in animals.items()]
    names += [("station", name, plain) for name, plain in traps.items()]
    tables = {
        "captures.txt": "\n".join([f"# read.capthist({read})", "# Session ID Occasion Detector", *lines]) + "\n",
        "traps.txt": "\n".join([f"# metres, {zone}; days of each occasion", "# Detector X Y Usage", *rows]) + "\n",
        "names.csv": pd.DataFrame(names, columns=["kind", "name", "in_secr"]),
        "occasions.csv": occasion_table(captured),
    }
    return tables, []


def occasion_table(captured: Captured) -> pd.DataFrame:
    """Occasions with their first and last day, days of effort, and the time to the next, in occasions' lengths."""
    table = captured.occasions
    intervals = (table.start.shift(-1) - table.start) / captured.export.occasion
    table = table.assign(interval=["" if pd.isna(v) else f"{v:g}" for v in intervals])
    for name in ("first", "last"):
        table[name] = table[name].dt.strftime("%Y-%m-%d")
    return table.rename(columns={"number": "occasion"})[["occasion", "first", "last", "effort", "interval"]]


# RMark and MARK


def for_rmark(captured: Captured) -> tuple[Tables, list[str]]:
    """histories.inp for MARK, histories.txt (ch, freq, animal) for RMark's import.chdata, and occasions.csv."""
    seen, count = captured.captures, len(captured.occasions)
    if seen.empty:
        return {}, ["rmark: not written: there is no capture"]
    animals = plain_names(sorted(set(seen.identity)), r"[\s*/;]")
    table = np.zeros((len(animals), count), int)
    rows = seen.identity.map({name: row for row, name in enumerate(animals)})
    table[rows, seen.occasion - 1] = 1
    histories = ["".join(map(str, row)) for row in table]
    occasions = occasion_table(captured)
    intervals = ", ".join(occasions.interval[:-1])
    head = f"/* {count} occasions of {captured.export.occasion} days; time.intervals = c({intervals}) */"
    lines = [f"/* {plain} */ {ch} 1;" for plain, ch in zip(animals.values(), histories)]
    text = pd.DataFrame({"ch": histories, "freq": 1, "animal": list(animals.values())})
    tables = {
        "histories.inp": "\n".join([head, *lines]) + "\n",
        "histories.txt": "\n".join(["\t".join(text), *("\t".join(map(str, row)) for row in text.to_numpy())]) + "\n",
        "occasions.csv": occasions,
    }
    return tables, ['rmark: import.chdata("histories.txt", field.types = c("n", "s")) reads the table']


# camtrapR


def for_camtrapr(captured: Captured) -> tuple[Tables, list[str]]:
    """records.csv as recordTableIndividual makes it, stations.csv, and operation.csv, the camera operation matrix."""
    study, notes = captured.study, []
    stood = np.maximum.accumulate(study.up, 1) & np.maximum.accumulate(study.up[:, ::-1], 1)[:, ::-1]
    days = np.datetime_as_string(study.days, "D")
    operation = pd.DataFrame(np.where(stood, study.worked.astype(int).astype(object), "NA"), columns=days)
    operation.insert(0, "Station", study.stations)
    records = record_table(captured.captures)
    if bare := int((captured.captures.taken.str.len() == 10).sum()):
        notes.append(f"camtrapr: {bare} photographs tell a day and no time: their time is written as midnight")
    if nameless := int((records.Species == "unknown").sum()):
        notes.append(f"camtrapr: no table tells the species of {nameless} photographs: it is written as unknown")
    return {"records.csv": records, "stations.csv": station_table(study), "operation.csv": operation}, notes


def record_table(seen: pd.DataFrame) -> pd.DataFrame:
    """A row for each capture, and the time since the one before of the same animal at the same station."""
    clock = pd.to_datetime(seen.taken, format="mixed")
    table = pd.DataFrame({"Station": seen.station, "Species": seen.species.where(seen.species != "", "unknown")})
    table["Individual"], table["DateTimeOriginal"] = seen.identity, clock
    paths = [PurePosixPath(image.replace("\\", "/")) for image in seen.image]
    table["Directory"], table["FileName"] = [str(path.parent) for path in paths], [path.name for path in paths]
    table = table.sort_values(["Station", "Species", "Individual", "DateTimeOriginal", "FileName"], ignore_index=True)
    seconds = table.groupby(["Station", "Species", "Individual"]).DateTimeOriginal.diff().dt.total_seconds().fillna(0)
    when = table.DateTimeOriginal
    table["DateTimeOriginal"] = when.dt.strftime("%Y-%m-%d %H:%M:%S")
    table.insert(4, "Date", when.dt.strftime("%Y-%m-%d"))
    table.insert(5, "Time", when.dt.strftime("%H:%M:%S"))
    table.insert(6, "delta.time.secs", seconds.astype(int))
    for place, (unit, size) in enumerate((("mins", 60), ("hours", 3600), ("days", 86400)), 7):
        table.insert(place, f"delta.time.{unit}", (seconds / size).round(1))
    return table


def station_table(study: Study) -> pd.DataFrame:
    """A row for each station: where it is, from when to when, and days in between that it did not work, as problems."""
    places, _ = metres_of(study)
    rows = []
    for number, name in enumerate(study.stations):
        up, place = np.flatnonzero(study.up[number]), places.loc[name]
        first, last = up[0], up[-1]
        row = {"Station": name}
        row |= {f"utm_{axis}": "" if pd.isna(place[axis]) else f"{place[axis]:.1f}" for axis in "xy"}
        row |= {axis: "" if pd.isna(place[axis]) else f"{place[axis]:.6f}" for axis in ("longitude", "latitude")}
        row |= {"Setup_date": str(study.days[first]), "Retrieval_date": str(study.days[last])}
        idle = ~study.worked[number, first : last + 1]
        edges = np.flatnonzero(np.diff(np.r_[False, idle, False]))
        for problem, (begin, end) in enumerate(edges.reshape(-1, 2), 1):
            row[f"Problem{problem}_from"] = str(study.days[first + begin])
            row[f"Problem{problem}_to"] = str(study.days[first + end - 1])
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


# Camtrap DP

DEPLOYMENTS = (
    *("deploymentID", "locationID", "locationName", "latitude", "longitude", "deploymentStart", "deploymentEnd"),
    *("cameraID", "timestampIssues"),
)
MEDIA = ("mediaID", "deploymentID", "timestamp", "filePath", "filePublic", "fileName", "fileMediatype")
OBSERVATIONS = (
    *("observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd", "observationLevel"),
    *("observationType", "scientificName", "count", "individualID", "bboxX", "bboxY", "bboxWidth", "bboxHeight"),
    *("classificationMethod", "classifiedBy", "classificationProbability"),
)


def for_camtrapdp(captured: Captured) -> tuple[Tables, list[str]]:
    """deployments.csv, media.csv and observations.csv of Camtrap DP 1.0, an observation of each animal on a medium."""
    study, zone = captured.study, captured.export.zone or "Z"
    notes = ["camtrapdp: tables without datapackage.json, which tells of the project what photographs do not"]
    if not captured.export.zone:
        notes.append(
            "camtrapdp: times are the cameras' clocks, written as Z; --zone tells what they are apart from UTC"
        )
    cameras = study.cameras
    own = [
        name or f"{station}-{row + 1}" for row, (name, station) in enumerate(zip(cameras.deployment, cameras.station))
    ]
    degrees = metres_of(study)[0][["latitude", "longitude"]].loc[list(cameras.station)].reset_index(drop=True)
    deployments = pd.DataFrame({"deploymentID": own, "locationID": cameras.station, "locationName": cameras.station})
    for name in ("latitude", "longitude"):
        deployments[name] = [
            told or ("" if pd.isna(v) else f"{v:.6f}") for told, v in zip(cameras[name], degrees[name])
        ]
    deployments["deploymentStart"] = cameras.start + "T00:00:00" + zone
    deployments["deploymentEnd"] = cameras.end + "T23:59:59" + zone
    deployments["cameraID"] = cameras.camera
    deployments["timestampIssues"] = "false" if captured.export.zone else "true"
    if nowhere := int((deployments.latitude == "").sum()):
        notes.append(f"camtrapdp: {nowhere} deployments tell no place, which the standard requires")
    photographs = study.photographs[(study.photographs.row >= 0) & study.photographs.day.notna()].reset_index(drop=True)
    pictures = photographs[~picture_of(photographs).duplicated()].reset_index(drop=True)
    if left := len(study.pictures) - len(pictures):
        notes.append(f"camtrapdp: {left} photographs without a date or a deployment are left out")
    if bare := int((pictures.taken.str.len() == 10).sum()):
        notes.append(f"camtrapdp: {bare} photographs tell a day and no time: their time is written as midnight")
    media = media_table(pictures, np.array(own, object)[pictures.row], zone)
    of_medium = pd.Index(picture_of(pictures)).get_indexer(picture_of(photographs))
    media_of = media.iloc[of_medium].reset_index(drop=True)
    observations = observation_table(photographs, media_of, captured.sightings, captured.empty)
    tables = {"deployments.csv": deployments[list(DEPLOYMENTS)], "media.csv": media, "observations.csv": observations}
    return tables, notes


def media_table(photographs: pd.DataFrame, deployment: np.ndarray, zone: str) -> pd.DataFrame:
    path = photographs.image.str.replace("\\", "/", regex=False).str.replace(r"^(\.{1,2}/|/)+", "", regex=True)
    name = [PurePosixPath(image).name for image in path]
    told = photographs.media.where(~photographs.media.duplicated(keep=False), "")
    table = pd.DataFrame({"mediaID": told.where(told != "", picture_of(photographs)), "deploymentID": deployment})
    clock = photographs.taken.where(photographs.taken.str.len() > 10, photographs.taken + " 00:00:00")
    table["timestamp"] = clock.str.replace(" ", "T", regex=False) + zone
    table["filePath"], table["filePublic"], table["fileName"] = path, "false", name
    table["fileMediatype"] = [mimetypes.guess_type(name)[0] or "image/jpeg" for name in path]
    return table[list(MEDIA)]


TYPES = {"person": "human", "unusable": "unknown"}  # what Camtrap DP calls what is on a medium, where it is no animal


def observation_table(
    photographs: pd.DataFrame, media: pd.DataFrame, seen: pd.DataFrame, empty: Mapping[str, str]
) -> pd.DataFrame:
    """Who is on each medium; "unclassified" where nobody is sure. media: a row for each animal; empty: by mark, what
    people said of those that show none. A medium that shows anything is not blank."""
    known = seen.drop_duplicates("mark").set_index("mark").reindex(photographs.mark).reset_index(drop=True)
    named = known.identity.notna()
    event = photographs.encounter.where(photographs.encounter != "", photographs.mark)
    begin, end = (media.timestamp.groupby([media.deploymentID, event]).transform(how) for how in ("min", "max"))
    species = known.species.where(named & (known.species != ""), photographs.species)
    sure = known.basis == "sure"
    table = pd.DataFrame({"deploymentID": media.deploymentID, "mediaID": media.mediaID, "eventID": event})
    table["observationID"] = [uuid.uuid5(uuid.NAMESPACE_OID, mark).hex for mark in photographs.mark]
    table = table.assign(eventStart=begin, eventEnd=end, observationLevel="media", scientificName=species)
    said = pd.Series([empty.get(mark, "") for mark in photographs.mark], photographs.index, dtype=str)
    found = named | ((photographs.box != "") & (said == ""))
    other = said.where(said != "", photographs.aside).replace(TYPES)
    table["observationType"] = np.where(found, "animal", other.where(other != "", "unclassified"))
    table["scientificName"] = table.scientificName.where(table.observationType != "blank", "")
    table["count"] = np.where(found, "1", "")
    boxes = photographs.box.where(photographs.box != "", "   ").str.split(" ", expand=True).reindex(columns=range(4))
    table[["bboxX", "bboxY", "bboxWidth", "bboxHeight"]] = boxes.fillna("").to_numpy()
    table["individualID"] = known.identity.fillna("")
    table["classificationMethod"] = np.where(sure, "machine", np.where(named | (said != ""), "human", ""))
    table["classifiedBy"] = np.where(sure, f"jaguar_kit {__version__}", "")
    table["classificationProbability"] = known.probability.where(sure, "").fillna("")
    blank = table.observationType == "blank"
    shown = (~blank).groupby(table.mediaID).transform("any")
    twice = blank & table.assign(blank=blank).duplicated(["mediaID", "blank"])
    return table.loc[~(blank & shown) & ~twice, list(OBSERVATIONS)].reset_index(drop=True)


WRITERS = {"secr": for_secr, "rmark": for_rmark, "camtrapr": for_camtrapr, "camtrapdp": for_camtrapdp}
FORMATS = tuple(WRITERS)
