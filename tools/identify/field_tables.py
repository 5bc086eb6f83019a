"""Tables as the field's programs write them: which column tells what, times of a camera's clock, places, and cameras.

Columns are known by their names, however they are capitalised: those of Camtrap DP, Wildlife Insights, camtrapR's
record table, Wildbook's export, and the metadata of WildlifeReID-10k and AnimalCLEF, beside the kit's own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from jaguar_kit import FolderScan, KitError, check_images, first_few, read_table

from ..experiments.boxes import ANIMAL, BLANK, box_columns, box_texts, kind_of
from .clocks import places_of, times_of

# columns, by their names

NAMES = {  # what is told, and the columns that tell it, the surest first
    "path": ("path", "filepath", "file_path", "image_path", "filename", "file_name", "file"),
    "identity": (
        *("identity", "ground_truth", "individualid", "individual_id", "individual"),
        *("encounter.individualid", "markedindividual.individualid", "name0.value"),
    ),
    "taken": ("taken", "timestamp", "datetimeoriginal", "date_time", "datetime", "eventstart"),
    "date": ("date",),
    "camera": (
        *("camera", "deploymentid", "deployment_id", "cameraid", "camera_id", "station", "locationid", "location_id"),
        *("locationname", "placename", "encounter.locationid"),
    ),
    "station": (
        *("station", "locationid", "location_id", "locationname", "placename", "site", "location"),
        "encounter.locationid",
    ),
    "deployment": ("deployment", "deploymentid", "deployment_id"),
    "encounter": ("encounter", "eventid", "event_id", "sequence_id", "sequenceid", "encounter.catalognumber"),
    "latitude": ("latitude", "lat", "decimallatitude", "encounter.decimallatitude"),
    "longitude": ("longitude", "lon", "long", "lng", "decimallongitude", "encounter.decimallongitude"),
    "species": ("species", "scientificname", "scientific_name"),
    "flank": ("flank", "side", "viewpoint"),
    "media": ("media", "mediaid", "image_id"),
}
FOLDERS = ("directory", "relativepath")  # beside a file's name: where it lay
ALSO_USED = ("sighting", "burst", "day", "orientation")  # by other parts of the kit, under these names
ABSENT = {"na", "nan", "null", "none", "unassigned"}  # what programs write where they know nothing
ASSET = re.compile(r"encounter\.mediaasset\.?(\d+)")


def told_by(columns: set[str]) -> str:
    """The program or standard whose names these columns have, in lower case; "" for the kit's own."""
    if any(name.startswith("encounter.") for name in columns):
        return "Wildbook"
    for name, needed in (
        ("Camtrap DP", {"deploymentid", "filepath"}),
        ("Wildlife Insights", {"deployment_id", "image_id"}),
        ("camtrapR", {"station", "datetimeoriginal"}),
        ("WildlifeReID-10k or AnimalCLEF", {"image_id", "identity"}),
    ):
        if needed <= columns:
            return name
    return ""


@dataclass(eq=False)
class Sheet:
    """A table whose columns have lower-case names, and how each is written, and in which file."""

    table: pd.DataFrame
    spelled: dict[str, str]
    notes: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    @staticmethod
    def read(path: Path) -> Sheet:
        table = read_table(path, ())
        spelled: dict[str, str] = {}
        for name in table.columns:
            spelled.setdefault(str(name).strip().lower(), name)
        table = table[list(spelled.values())].set_axis(list(spelled), axis=1)
        return Sheet(table.fillna(""), {key: str(name).strip() for key, name in spelled.items()})

    def join(self, other: Sheet, key: str, name: str) -> None:
        """Takes over what another table tells of the same key and this one does not, in a row for each that it has."""
        new = [column for column in other.table if column not in self.table]
        there = other.table[other.table[key] != ""].set_index(key)[new]
        self.table = self.table.join(there, on=key).fillna("").reset_index(drop=True)
        self.spelled |= {column: f"{other.spelled[column]} of {name}" for column in new}

    def find(self, role: str) -> str | None:
        """The column that tells it: the first that holds anything, else the first."""
        there = [name for name in NAMES[role] if name in self.table and not (name == "location" and self.links())]
        return next((name for name in there if (self.table[name] != "").any()), there[0] if there else None)

    def links(self) -> bool:
        """Whether `location` is where a file lies on a server, as Wildlife Insights says it."""
        return "location" in self.table and self.table.location.str.contains("://", regex=False).any()


def read_field_table(path: Path) -> tuple[pd.DataFrame, str, list[str]]:
    """A CSV of photographs below its own folder: with a column path and as many of `NAMES` as it tells; whose names it
    has (`told_by`); and what is to be said of it.

    Of a Camtrap DP its media.csv or observations.csv may be named, what lies beside it is joined; deployments.csv is
    joined to Wildlife Insights' images too.
    """
    sheet = Sheet.read(with_media(path))
    kind = told_by(set(sheet.table))
    if kind == "Camtrap DP":
        join_observations(sheet, path.parent)
    for key in ("deploymentid", "deployment_id"):
        if key in sheet.table and (file := beside(path.parent, "deployments.csv")) and file.name != path.name:
            deployments = Sheet.read(file)
            if key in deployments.table:
                deployments.table = deployments.table.drop_duplicates(key)
                sheet.join(deployments, key, file.name)
    if kind:
        blank = sheet.table.apply(lambda column: column.str.strip().str.lower().isin(ABSENT))
        sheet.table = sheet.table.mask(blank, "")
    if kind == "Wildbook":
        spread_assets(sheet, path)
    told = roles_of(sheet, path)
    kept = [name for name in sheet.table if name not in told and name not in sheet.used]
    rest = sheet.table[kept].rename(columns={name: name if name in ALSO_USED else sheet.spelled[name] for name in kept})
    table = rest.drop(columns=[name for name in rest if name in told]).assign(**told)
    sheet.notes.insert(0, what_was_read(path, kind, sheet, told, kept))
    return find_files(path, kind, table, sheet.notes), kind, sheet.notes


def with_media(path: Path) -> Path:
    """The table that names files: that of media beside one of observations, else the one that is given."""
    media = beside(path.parent, "media.csv")
    return media if media and path.name.lower() == "observations.csv" and path.is_file() else path


def beside(folder: Path, name: str) -> Path | None:
    return next((file for file in sorted(folder.glob("*.csv")) if file.name.lower() == name), None)


def join_observations(sheet: Sheet, folder: Path) -> None:
    """Joins what the observations of a Camtrap DP tell: of a file, and of an event that a file's time lies in.

    Of a file with boxes each of them has a row, of any other the first that names somebody.
    """
    file = beside(folder, "observations.csv")
    if file is None or "mediaid" not in sheet.table:
        return
    observed = Sheet.read(file)
    table = observed.table
    if "mediaid" not in table or "individualid" not in table:
        return
    columns = box_columns(table)
    boxed = box_texts(table, columns) != "" if columns else pd.Series(False, table.index)
    with_boxes = table.mediaid.isin(set(table.mediaid[boxed]))
    several = table[(table.individualid != "") & ~with_boxes].groupby("mediaid").individualid.nunique()
    several = int((several[several.index != ""] > 1).sum())
    if several:
        sheet.notes.append(f"{file}: {several} files show several individuals, of which the first is taken")
    table = table[boxed | ~with_boxes]
    first = table.iloc[np.argsort(table.individualid == "", kind="stable")]  # those with a name
    observed.table = first[first.mediaid.isin(set(table.mediaid[boxed])) | ~first.mediaid.duplicated()]
    sheet.join(observed, "mediaid", file.name)
    events = table[(table.mediaid == "") & (table.individualid != "")]
    if {"eventstart", "eventend", "deploymentid"} <= set(table) and "timestamp" in sheet.table and len(events):
        taken, begin, end = (times_of(v)[0] for v in (sheet.table.timestamp, events.eventstart, events.eventend))
        for row, first, last in zip(events.itertuples(), begin, end):
            inside = (sheet.table.deploymentid == row.deploymentid) & (taken >= first) & (taken <= last) & (taken != "")
            inside &= sheet.table.individualid == ""
            sheet.table.loc[inside, "individualid"] = row.individualid
            for column in ("eventid", "scientificname"):
                if column in table:
                    sheet.table.loc[inside, column] = getattr(row, column)


def spread_assets(sheet: Sheet, path: Path) -> None:
    """Gives each image of Wildbook's encounters a row of its own, and date, species and encounter a column each."""
    table = sheet.table.reset_index(drop=True)
    assets = {name: int(found[1]) for name in table if (found := ASSET.fullmatch(name))}
    parts = [
        table.assign(
            path=table[name].str.strip(),
            flank=next((table[v] for v in names_of_annotation(number, "viewpoint") if v in table), ""),
            bbox=next((table[v] for v in names_of_annotation(number, "bbox") if v in table), ""),
            row=np.arange(len(table)),
        )
        for name, number in sorted(assets.items(), key=lambda item: item[1])
    ]
    if not parts:
        return
    told = [
        name
        for number in assets.values()
        for what in ("viewpoint", "bbox")
        for name in names_of_annotation(number, what)
    ]
    sheet.used |= {*assets, *told} & set(table)
    spread = pd.concat(parts, ignore_index=True).sort_values("row", kind="stable")
    spread = spread[spread.path != ""].reset_index(drop=True)
    if spread.empty:
        raise KitError(f"{path}: {sheet.spelled[next(iter(assets))]}: names no image")
    sheet.spelled |= {"path": sheet.spelled[next(iter(assets))], "flank": "viewpoint", "bbox": "the annotation's bbox"}
    if len(assets) > 1 and "encounter.catalognumber" not in spread:
        spread["encounter"] = [f"row {number + 2}" for number in spread.row]
        sheet.spelled["encounter"] = "the row"
    clock = ("encounter.year", "encounter.month", "encounter.day", "encounter.hour", "encounter.minutes")
    if set(clock[:3]) <= set(spread):
        year, month, day, hour, minute = (spread.get(c, pd.Series("", spread.index)).str.strip() for c in clock)
        whole = (year != "") & (month != "") & (day != "")
        date = (year + "-" + month + "-" + day).where(whole, "")
        time = (" " + hour + ":" + minute.where(minute != "", "0").str.zfill(2)).where(hour != "", "")
        spread["taken"] = (date + time).where(whole, "")
        sheet.spelled["taken"] = "Encounter.year, month, day and hour"
        sheet.used |= {name for name in clock if name in spread}
    names = ("encounter.genus", "encounter.specificepithet")
    if set(names) <= set(spread):
        spread["species"] = (spread[names[0]] + " " + spread[names[1]]).str.strip()
        sheet.spelled["species"] = "Encounter.genus and specificEpithet"
        sheet.used |= set(names)
    sheet.table = spread.drop(columns="row")


def names_of_annotation(number: int, what: str) -> tuple[str, str]:
    return f"annotation{number}.{what}", f"encounter.annotation{number}.{what}"


def roles_of(sheet: Sheet, path: Path) -> dict[str, pd.Series]:
    """What the table tells, by role; notes in the sheet which columns it took."""
    table, told = sheet.table, {}
    for role in NAMES:
        if column := sheet.find(role):
            told[role] = table[column].str.strip() if role != "path" else table[column]
            sheet.used.add(column)
    if "path" not in told and sheet.links():
        told["path"] = table.location.str.rsplit("/", n=1).str[-1]
        sheet.used.add("location")
    if "path" not in told:
        raise KitError(
            f"{path}: column 'path' is missing (expected path or filename; found {','.join(sheet.spelled.values())})"
        )
    folder = next((name for name in FOLDERS if name in table and sheet.find("path") in ("filename", "file")), None)
    if folder:
        told["path"] = (table[folder].str.strip().str.rstrip("/\\") + "/" + told["path"]).str.lstrip("/")
        sheet.used.add(folder)
    if "taken" not in told and {"date", "time"} <= set(table):
        told["taken"] = (table.date.str.strip() + " " + table.time.str.strip()).str.strip()
        sheet.used |= {"date", "time"}
    if {"genus", "species"} <= set(table):
        told["species"] = (table.genus.str.strip() + " " + table.species.str.strip()).str.strip()
        sheet.used |= {"genus", "species"}
    if columns := box_columns(table):
        told["box"] = box_texts(table, columns)
        sheet.used |= set(columns)
        sheet.spelled["box"] = ", ".join(sheet.spelled[name] for name in columns)
    if "observationtype" in table or "is_blank" in table:
        column = "observationtype" if "observationtype" in table else "is_blank"
        told["seen"] = table[column].str.strip().str.lower().map(kind_that_is_told)
        sheet.used.add(column)
        sheet.spelled["seen"] = sheet.spelled[column]
    return told


def kind_that_is_told(value: str) -> str:
    """What is on a photograph that shows no animal: blank, person or vehicle; "" for any other."""
    if value in ("1", "true", "yes"):
        return BLANK
    return "" if kind_of(value) == ANIMAL else kind_of(value)


def what_was_read(path: Path, kind: str, sheet: Sheet, told: Iterable[str], kept: Sequence[str]) -> str:
    """Which columns tell what, and which are not used."""
    found = {role: sheet.spelled.get((sheet.find(role) if role in NAMES else role) or "") or role for role in told}
    words = ", ".join(name if name == role else f"{role} from {name}" for role, name in found.items())
    rest = [sheet.spelled[name] for name in kept if name not in ALSO_USED]
    left = f"; {len(rest)} columns are not used: {first_few(rest)}" if rest else ""
    return f"{path}: read{f' as {kind}' if kind else ''}: {words}{left}"


def find_files(path: Path, kind: str, table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """The rows whose files are below the table's folder, with the paths that they have there.

    A table of the kit's own must find all. What another program names may have lain elsewhere: a file is looked for by
    its name and as much of its folders as fits.
    """
    root = path.parent
    if not kind:
        check_images(path, "path", root, table.path)
        return table
    wanted = table.path.str.replace("\\", "/", regex=False).str.strip()
    where = {name: name for name in wanted.unique() if is_below(root, name)}
    if len(where) < wanted.nunique():
        by_name: dict[str, list[str]] = defaultdict(list)
        for image in FolderScan(root).images:
            by_name[image.name].append(image.as_posix())
        for name in wanted.unique():
            if name not in where and (best := best_fit(name, by_name.get(PurePosixPath(name).name, []))):
                where[name] = best
    there = wanted.isin(list(where))
    if not there.any():
        raise KitError(f"{path}: path: none of its {len(table)} images is in {root} (the first: {wanted.iloc[0]!r})")
    if not there.all():
        gone = first_few(list(wanted[~there]))
        notes.append(f"{path}: {(~there).sum()} of {len(table)} images are not in {root} and are left out: {gone}")
    return table[there].assign(path=wanted[there].map(where)).reset_index(drop=True)


def is_below(root: Path, name: str) -> bool:
    """Whether a file of that name lies in a folder, and the name does not lead out of it."""
    pieces = PurePosixPath(name).parts
    return bool(pieces) and ".." not in pieces and pieces[0] != "/" and ":" not in pieces[0] and (root / name).is_file()


def best_fit(name: str, choices: Sequence[str]) -> str | None:
    """Of several files of one name that whose folders are most like those asked for; None where two are equally so."""
    asked = PurePosixPath(name).parts[::-1]
    fits = [next((i for i, (a, b) in enumerate(zip(asked, c.split("/")[::-1])) if a != b), len(asked)) for c in choices]
    best = [choice for choice, fit in zip(choices, fits) if fit == max(fits)]
    return best[0] if len(best) == 1 else None


# where cameras stood, and when they worked

STATION = ("station", "locationid", "location_id", "locationname", "placename", "site", "location")
CAMERA_NAMES = {
    "station": (*STATION, "deploymentid", "deployment_id", "camera", "cameraid", "camera_id"),
    "deployment": ("deploymentid", "deployment_id", "deployment"),
    "camera": ("cameraid", "camera_id", "camera"),
    "start": ("start", "deploymentstart", "setup_date", "start_date", "startdate", "setup"),
    "end": ("end", "deploymentend", "retrieval_date", "end_date", "enddate", "retrieval"),
    "latitude": NAMES["latitude"],
    "longitude": NAMES["longitude"],
    "x": ("utm_x", "x", "easting"),
    "y": ("utm_y", "y", "northing"),
}
PROBLEM = re.compile(r"problem(\d+)_(from|to)")


def read_cameras(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """A row for each time that a camera stood somewhere, and notes.

    Columns: station, deployment, camera, start and end (days; end "" while it still works), latitude, longitude, x and
    y (metres), and idle: days that it did not work, "from/to" with blanks between them.
    """
    sheet = Sheet.read(path)
    table, told = sheet.table, {}
    for role, names in CAMERA_NAMES.items():
        column = next((name for name in names if name in table), None)
        if column is None and role in ("station", "start", "end"):
            raise KitError(
                f"{path}: column '{role}' is missing (expected station,start,end, or their names in Camtrap DP or "
                f"camtrapR; found {','.join(sheet.spelled.values())})"
            )
        told[role] = table[column].str.strip() if column else pd.Series("", table.index)
        sheet.used |= {column} - {None}
    found = pd.DataFrame(told)
    problems = sorted({match[1] for name in table if (match := PROBLEM.fullmatch(name))}, key=int)
    pairs = [(f"problem{number}_from", f"problem{number}_to") for number in problems]
    pairs = [pair for pair in pairs if set(pair) <= set(table)]
    sheet.used |= {name for pair in pairs for name in pair}
    dates = pd.concat([found.start, found.end, *(table[name] for pair in pairs for name in pair)], ignore_index=True)
    days = times_of(dates)[0].str[:10].to_numpy(str).reshape(-1, len(table))  # one order of day and month for all
    raw = dates.str.strip().to_numpy(str).reshape(days.shape)
    names = ["start", "end", *(name for pair in pairs for name in pair)]
    for column, name in enumerate(names):
        for row in np.flatnonzero((days[column] == "") & ((raw[column] != "") | (name == "start"))):
            value = str(raw[column, row])
            raise KitError(f"{path}: line {row + 2}: {name}: {value!r} is no date (expected one such as 2026-05-03)")
    found["start"], found["end"] = days[0], days[1]
    spans = days[2:].reshape(-1, 2, len(table))
    found["idle"] = [" ".join(f"{a}/{b}" for a, b in spans[:, :, row] if a and b) for row in range(len(table))]
    check_cameras(path, found)
    found["latitude"], found["longitude"], strange = places_of(found.latitude, found.longitude)
    found["x"], found["y"] = (pd.to_numeric(found[name], errors="coerce") for name in ("x", "y"))
    notes = [f"{path}: {strange} places are none (such as 0, 0), and left out"] if strange else []
    if open_ended := int((found.end == "").sum()):
        notes.append(f"{path}: {open_ended} cameras tell no end: they are taken to work until the last photograph")
    rest = [sheet.spelled[name] for name in table if name not in sheet.used]
    if rest:
        notes.append(f"{path}: {len(rest)} columns are not used: {first_few(rest)}")
    return found, notes


def check_cameras(path: Path, found: pd.DataFrame) -> None:
    """Refuses a row without a station, an end before its start, and one deployment in two rows."""
    for row, told in enumerate(found.itertuples(), 2):
        if not told.station:
            raise KitError(f"{path}: line {row}: station: is empty (expected a name)")
        if told.end and told.end < told.start:
            raise KitError(f"{path}: line {row}: end: {told.end} (expected no day before the start, {told.start})")
    named = found.deployment[found.deployment != ""]
    if named.duplicated().any():
        raise KitError(f"{path}: deploymentID: {named[named.duplicated()].iloc[0]!r} stands in two rows")
