"""Who was seen when and where, and how long cameras worked: sightings, effort, capture histories, and a summary.

A photograph counts once however often it was copied, by its mark. Days on which cameras worked and nobody was seen are
zeros; the catalogue's years are no occasions.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from jaguar_kit import AS_TEXT, KitError, atomic, echo, read_table, write_table

from ..experiments.figures import new_figure, plain_label
from ..experiments.page import Page
from .decisions import FOR_SPREADSHEETS
from .field_tables import read_cameras
from .season import Season

WHERE = ("taken", "camera", "latitude", "longitude")
MORE = ("station", "deployment", "flank", "species", "mark", "box", "picture")  # of photographs and sightings alike
COLUMNS = ("identity", "occasion", *WHERE, "image", "basis", *MORE, "probability")
PHOTOGRAPHS, CAMERAS = "photographs.csv", "cameras.csv"  # kept beside the answers, from week to week
OF_PHOTOGRAPHS = ("image", *WHERE, *MORE, "encounter", "media", "folder", "aside")
STAY = ("camera", "station", "deployment", "folder")  # as they were told first: a file may lie elsewhere by now
SILENCE = 30  # days without a photograph after which a camera is taken not to have worked, where no table tells

# sightings and photographs


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(object).where(table.notna(), "").astype(str)


def flanks(table: pd.DataFrame, answers: pd.DataFrame | None = None) -> pd.Series:
    """The flank that photographs show, by their own table or else by what they are known by."""
    told = next((table[column] for column in ("flank", "orientation") if column in table), "")
    told = pd.Series(told, table.index).fillna("").astype(str)
    return told if answers is None or "flank" not in answers else told.where(told != "", answers.flank.to_numpy(str))


def keep_photographs(out: Path, earlier: Path | None, season: Season, answers: pd.DataFrame) -> None:
    """Writes photographs.csv: all that were asked for or set aside up to now, of earlier weeks too, a row a mark."""
    asked = season.new.table
    first = asked.mark.groupby(answers.encounter.to_numpy()).transform("first")  # names an encounter in all weeks
    tables = [album.table.assign(flank=flanks(album.table)) for album in season.shelf.albums[1:]]
    tables.append(asked.assign(flank=flanks(asked, answers), encounter=first))
    tables += [season.aside.assign(aside=season.aside.why)] if len(season.aside) else []
    kept = [] if earlier is None else [read_photographs(earlier)]
    table = pd.concat([*kept, *(one.assign(image=one.path) for one in tables)], ignore_index=True)
    copies = int(asked.drop_duplicates(["path"]).mark.duplicated().sum())
    if copies:
        echo(f"  note: {copies} photographs are copies of others, and count once")
    write_table(out / PHOTOGRAPHS, one_of_each(table.reindex(columns=OF_PHOTOGRAPHS)), FOR_SPREADSHEETS)


def picture_of(table: pd.DataFrame) -> pd.Series:
    """The mark of the photograph of each animal."""
    return table.picture.where(table.picture != "", table.mark)


def one_of_each(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each mark, with what was told last of each fact, and first of what took it."""
    table = as_text(table)
    table["mark"] = table.mark.where(table.mark != "", "file " + table.image)
    lies = [str(PurePosixPath(image.replace("\\", "/")).parent) for image in table.image]
    table["folder"] = table.folder.where(table.folder != "", lies)
    groups = table.replace("", None).groupby("mark", sort=False)
    found = groups.last().assign(**groups[list(STAY)].first())
    return found.reset_index().reindex(columns=table.columns).fillna("")


def read_photographs(folder: Path) -> pd.DataFrame:
    """The photographs of a folder of answers: those that it keeps, or else those that it asked for or named."""
    if (folder / PHOTOGRAPHS).is_file():
        return (
            read_table(folder / PHOTOGRAPHS, ("image", "mark", "taken")).reindex(columns=OF_PHOTOGRAPHS).pipe(as_text)
        )
    if not (folder / "answers.csv").is_file():
        return pd.DataFrame(columns=list(OF_PHOTOGRAPHS), dtype=str)
    asked = read_table(folder / "answers.csv", ("image", "mark"))
    asked["encounter"] = asked.mark.groupby(asked.encounter).transform("first") if "encounter" in asked else ""
    seen = read_sightings(folder)
    named = seen[(seen.basis == "named") & ~seen.image.isin(set(asked.image))]
    return as_text(pd.concat([asked, named]).reindex(columns=OF_PHOTOGRAPHS)).reset_index(drop=True)


def read_sightings(folder: Path) -> pd.DataFrame:
    """captures.csv of a folder of answers; what has no mark, as an earlier version wrote it, is known by its name."""
    path = folder / "captures.csv"
    if not path.is_file():
        raise KitError(f"{folder}: holds no captures.csv (expected a folder that identify wrote)")
    table = pd.read_csv(path, dtype=str, **AS_TEXT).reindex(columns=COLUMNS).pipe(as_text)
    return table.assign(mark=table.mark.where(table.mark != "", "file " + table.image))


# how long cameras worked


@dataclass(frozen=True, eq=False)
class Study:
    """Stations, the days on which they worked, and the photographs that they took."""

    cameras: pd.DataFrame  # a row for each time that a camera stood somewhere, as field_tables.read_cameras gives them
    photographs: (
        pd.DataFrame
    )  # a row for each animal on them, with row (of cameras, -1: of none), station and day (NaT: undated)
    stations: Sequence[str]  # S, in order
    days: np.ndarray  # T, datetime64[D], from the first to the last on which a camera stood
    up: np.ndarray  # bool (S, T): a camera stood there
    worked: np.ndarray  # bool (S, T): and at least one worked

    @property
    def pictures(self) -> pd.DataFrame:
        """A row for each photograph, however many animals are on it."""
        return self.photographs[~picture_of(self.photographs).duplicated()]

    @property
    def missing(self) -> pd.DataFrame:
        """Photographs with a date that are of no station."""
        return self.pictures[(self.pictures.row < 0) & self.pictures.day.notna()]

    def at_work(self, rows: pd.DataFrame) -> np.ndarray:
        """Whether the station of each photograph worked on that day."""
        station = pd.Index(self.stations).get_indexer(rows.station)
        day = pd.Index(self.days).get_indexer(rows.day.to_numpy("datetime64[D]"))
        return (station >= 0) & (day >= 0) & self.worked[station, day] if len(self.days) else np.zeros(len(rows), bool)

    def occasions(self, length: int) -> pd.DataFrame:
        """Occasions of so many days from the first day, a row for each on which a camera worked: first, last (days),
        number from 1, start (days since the first), and effort (days, summed over stations)."""
        of = np.arange(len(self.days)) // length
        effort = np.bincount(of, self.worked.sum(0)) if len(of) else np.zeros(0)
        kept = np.flatnonzero(effort)
        table = pd.DataFrame({"number": np.arange(1, len(kept) + 1), "start": kept * length, "effort": effort[kept]})
        table["first"] = self.days[kept * length]
        table["last"] = self.days[np.minimum(kept * length + length, len(self.days)) - 1]
        return table.astype({"effort": int})

    def occasion_of(self, days: pd.Series, length: int) -> np.ndarray:
        """The number of the occasion of each day; 0: of none."""
        table = self.occasions(length)
        if table.empty:
            return np.zeros(len(days), int)
        since = (pd.to_datetime(days) - pd.Timestamp(self.days[0])).dt.days
        return (since // length).map(dict(zip(table.start // length, table.number))).fillna(0).to_numpy(int)

    def usage(self, length: int) -> np.ndarray:
        """Days on which each station worked in each occasion (S, K)."""
        table = self.occasions(length)
        starts = table.start.to_numpy()
        return (
            np.stack([self.worked[:, s : s + length].sum(1) for s in starts], 1) if len(starts) else self.worked[:, :0]
        )


def study_of(photographs: pd.DataFrame, cameras: pd.DataFrame | None) -> Study:
    """When and where cameras worked, by a table of them or else by photographs, and which took which."""
    photographs = photographs.assign(day=pd.to_datetime(photographs.taken.str[:10], errors="coerce"))
    if cameras is None:
        named = photographs.station.where(photographs.station != "", photographs.camera)
        photographs = photographs.assign(station=named.where(named != "", "unknown"), deployment="")
        cameras = cameras_of(photographs)
    starts, ends = (pd.to_datetime(cameras[name], errors="coerce") for name in ("start", "end"))
    ends = ends.fillna(photographs.day.max())
    ends = ends.where(ends >= starts, starts)
    cameras = cameras.assign(end=ends.dt.strftime("%Y-%m-%d"))
    photographs = placed(photographs, cameras)
    stations = sorted(set(cameras.station))
    if cameras.empty:
        return Study(cameras, photographs, stations, np.zeros(0, "datetime64[D]"), *[np.zeros((0, 0), bool)] * 2)
    days = pd.date_range(starts.min(), ends.max()).to_numpy().astype("datetime64[D]")
    up, worked = np.zeros((2, len(stations), len(days)), bool)
    for camera in cameras.itertuples():
        row = stations.index(camera.station)
        own = (days >= np.datetime64(camera.start)) & (days <= np.datetime64(camera.end))
        up[row] |= own
        for span in camera.idle.split():
            begin, end = span.split("/")
            own &= ~((days >= np.datetime64(begin)) & (days <= np.datetime64(end)))
        worked[row] |= own
    return Study(cameras, photographs, stations, days, up, worked)


def cameras_of(photographs: pd.DataFrame) -> pd.DataFrame:
    """Cameras by their photographs: each from its first to its last, silences of more than `SILENCE` days apart."""
    rows = []
    dated = photographs[photographs.day.notna()].sort_values("day", kind="stable")
    for station, own in dated.groupby("station"):
        place = [pd.to_numeric(own[name], errors="coerce").mean() for name in ("latitude", "longitude")]
        place = ["" if pd.isna(value) else f"{value:.6f}" for value in place]
        spell = (own.day.diff().dt.days > SILENCE).cumsum()
        for number, days in own.day.groupby(spell):
            begin, end = days.min().strftime("%Y-%m-%d"), days.max().strftime("%Y-%m-%d")
            name = station if number == 0 else f"{station} ({number + 1})"
            rows.append((station, name, "", begin, end, *place, np.nan, np.nan, ""))
    names = ("station", "deployment", "camera", "start", "end", "latitude", "longitude", "x", "y", "idle")
    return pd.DataFrame(rows, columns=list(names))


def placed(photographs: pd.DataFrame, cameras: pd.DataFrame) -> pd.DataFrame:
    """Photographs with the row of the camera that took them, and its station, by their table or else their folders.

    Of a camera that stood in several places it is that of the day.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, camera in enumerate(cameras.itertuples()):
        for name in dict.fromkeys((camera.deployment, camera.station, camera.camera)):
            if name:
                rows[name.casefold()].append(row)
    start, end = cameras.start.to_numpy(str), cameras.end.to_numpy(str)
    found = np.full(len(photographs), -1)
    for at, photograph in enumerate(photographs.itertuples()):
        folders = photograph.folder.split("/")[::-1]
        names = (photograph.deployment, photograph.station, photograph.camera, *folders)
        there = next((rows[name.casefold()] for name in names if name and name.casefold() in rows), [])
        day = photograph.taken[:10]
        today = [row for row in there if start[row] <= day <= end[row]]
        if today:
            found[at] = today[0]
        elif len(set(cameras.station.iloc[there])) == 1:
            found[at] = there[0]
    station = np.where(found >= 0, cameras.station.to_numpy(object)[found] if len(cameras) else "", "")
    return photographs.assign(row=found, station=station)


def with_stations(table: pd.DataFrame, cameras: pd.DataFrame | None) -> pd.DataFrame:
    """Photographs with the station and the deployment that a table of cameras tells, where their own tells none."""
    if cameras is None:
        return table
    told = as_text(table.reindex(columns=["deployment", "station", "camera", "taken"]))
    found = placed(told.assign(folder=[str(PurePosixPath(p.replace("\\", "/")).parent) for p in table.path]), cameras)
    deployment = np.where(found.row >= 0, cameras.deployment.to_numpy(object)[found.row], "")
    return table.assign(
        station=told.station.where(told.station != "", found.station),
        deployment=told.deployment.where(told.deployment != "", deployment),
    )


# capture histories by days


def histories(seen: pd.DataFrame, study: Study, length: int = 1) -> pd.DataFrame:
    """Animal x occasion, by the first day of each: 1 where the animal was photographed, else 0."""
    occasions = study.occasions(length)
    days = occasions["first"].dt.strftime("%Y-%m-%d")
    number = study.occasion_of(seen.day, length)
    names = sorted(set(seen.identity[number > 0]))
    table = np.zeros((len(names), len(occasions)), int)
    table[[names.index(name) for name in seen.identity[number > 0]], number[number > 0] - 1] = 1
    return pd.DataFrame(table, columns=list(days)).assign(identity=names)[["identity", *days]]


def effort_table(seen: pd.DataFrame, study: Study, length: int = 1) -> pd.DataFrame:
    """For each occasion: photographs, cameras that worked, photographs with a name, and animals."""
    occasions = study.occasions(length)
    taken, named = (study.occasion_of(rows.day, length) for rows in (study.pictures, seen))
    animals = seen.identity.groupby(named).nunique()
    table = pd.DataFrame({"occasion": occasions["first"].dt.strftime("%Y-%m-%d")})
    table["photographs"] = np.bincount(taken, minlength=len(table) + 1)[1:]
    table["cameras"] = (study.usage(length) > 0).sum(0)
    table["named"] = np.bincount(named, minlength=len(table) + 1)[1:]
    return table.assign(animals=occasions.number.map(animals).fillna(0).astype(int))


def in_study(seen: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Sightings with the station, day and camera of their photographs; each photograph once."""
    own = study.photographs.set_index("mark")[["station", "day", "row"]]
    return seen.drop_duplicates("mark").drop(columns="station").join(own, on="mark", how="inner").reset_index(drop=True)


def write_captures(out: Path, seen: pd.DataFrame, asked: pd.DataFrame) -> None:
    """captures.csv (a row for each sighting), capture_history.csv (animal x day) and effort.csv."""
    if (out / PHOTOGRAPHS).is_file():
        photographs = read_photographs(out)
    else:
        photographs = pd.concat([seen[seen.basis != "catalogue"], asked.rename(columns={"path": "image"})])
        photographs = one_of_each(photographs.reindex(columns=OF_PHOTOGRAPHS))
    study = study_of(photographs, read_kept_cameras(out))
    own = in_study(seen[seen.basis != "catalogue"], study)
    tables = {"captures": seen, "capture_history": histories(own, study), "effort": effort_table(own, study)}
    for name, table in tables.items():
        write_table(out / f"{name}.csv", table, FOR_SPREADSHEETS)


def carry_over(out: Path, earlier: Path, name: str) -> None:
    """Takes a table of an earlier folder of answers along as it is, where there is one."""
    if (earlier / name).is_file():
        with atomic(out / name) as temporary:
            shutil.copyfile(earlier / name, temporary)


def keep_cameras(out: Path, cameras: str | Path | None, earlier: Path | None) -> None:
    """Writes cameras.csv: the table that was given, else that of the week before as it is."""
    if cameras is not None:
        table, notes = read_cameras(Path(cameras))
        for note in notes:
            echo(f"  note: {note}")
        write_table(out / CAMERAS, table, FOR_SPREADSHEETS)
    elif earlier is not None:
        carry_over(out, earlier, CAMERAS)


def read_kept_cameras(folder: Path) -> pd.DataFrame | None:
    """cameras.csv beside answers, where there is one."""
    if not (folder / CAMERAS).is_file():
        return None
    table = read_table(folder / CAMERAS, ("station", "start", "end")).fillna("")
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in ("x", "y")})


def sightings_page(page: Page, seen: pd.DataFrame, most: int = 200) -> None:
    """Who was seen how often, when and where; a map only where photographs tell coordinates."""
    if seen.empty:
        return
    page.heading("Who was seen")
    by = seen.groupby("identity")
    dated = seen[seen.occasion != ""].groupby("identity").occasion
    table = pd.DataFrame({"photographs": by.size(), "days": dated.nunique(), "first": dated.min(), "last": dated.max()})
    table["where"] = by.camera.agg(lambda cameras: ", ".join(sorted(set(cameras) - {""})[:4]))
    table = table.fillna({"days": 0, "first": "", "last": "", "where": ""}).astype({"days": int})
    shown = table.sort_values("photographs", ascending=False).head(most).reset_index()
    page.table(shown, f"{len(table)} animals, by the catalogue, by what people named, and by sure answers.")
    place = seen.assign(x=pd.to_numeric(seen.longitude, "coerce"), y=pd.to_numeric(seen.latitude, "coerce")).dropna()
    if len(place):
        figure, ax = new_figure(7, 5)
        for number, (name, own) in enumerate(place.groupby("identity")):
            ax.scatter(
                own.x, own.y, s=24, marker="osv^DP*X"[number % 8], label=plain_label(name) if number < 24 else None
            )
        ax.set(xlabel="longitude", ylabel="latitude", aspect="equal")
        ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        page.figure("map", figure, f"Where {len(place)} photographs were taken, by animal (the first 24 named).")
