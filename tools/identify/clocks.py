"""Times of a camera's clock, and places, as programs write them into columns."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

# times of a camera's clock

CLOCK = re.compile(
    r"^(?P<a>\d{1,4})(?P<mark>[-:/.])(?P<b>\d{1,2})(?P=mark)(?P<c>\d{1,4})"
    r"(?:[T ]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?\s*(?P<half>[AaPp]\.?[Mm]\.?)?)?"
    r"\s*(?P<offset>Z|UTC|GMT|[+-]\d{2}:?\d{2}|[+-]\d{2})?$"
)
YEARS = (1900, 2100)  # a camera of another year has lost its clock


@dataclass(frozen=True)
class Told:
    """How many values of a column tell what is to be said."""

    unreadable: int = 0  # no dates at all, or such as 03/05/2026, which may be March or May
    implausible: int = 0  # before 1900, after 2100, or of no calendar
    offsets: int = 0  # from UTC, left out
    example: str = ""  # of those that tell no time

    def notes(self, where: str) -> list[str]:
        strange = self.unreadable + self.implausible
        first = (
            f"{where}: {strange} values are no dates such as 2026-05-03, and tell no time (the first: {self.example!r})"
        )
        more = f"; {self.implausible} of them are before {YEARS[0]}, after {YEARS[1]} or in no calendar"
        local = (
            f"{where}: {self.offsets} times tell an offset from UTC, which is left out: times are the camera's clock"
        )
        return [first + (more if self.implausible else "")] * bool(strange) + [local] * bool(self.offsets)


def times_of(values: pd.Series) -> tuple[pd.Series, Told]:
    """Dates and times as "2026-05-03 14:05:09", days without a time as "2026-05-03", and what is to be said of them.

    A time is that of the camera's clock: an offset from UTC is left out, not reckoned with. Where all rows tell
    midnight a program wrote days as times. Dates such as 25/12/2026 are read in the order that all rows allow.
    """
    values = values.fillna("").astype(str).str.strip()
    part = values.str.extract(CLOCK)
    number = part[["a", "b", "c", "hour", "minute", "second"]].apply(pd.to_numeric, errors="coerce")
    iso = part.a.str.len() == 4
    year, month, day = number.a.where(iso, number.c), number.b, number.c.where(iso, number.a)
    other = part.a.notna() & ~iso & (part.c.str.len() == 4)
    day_first, month_first = (number.a[other] > 12).any(), (number.b[other] > 12).any()
    if month_first and not day_first:
        month, day = month.where(~other, number.a), day.where(~other, number.b)
    readable = (iso & (part.c.str.len() <= 2)) | (other & (day_first != month_first))
    hour = number.hour % 12 + 12 * part.half.fillna("").str.lower().str.startswith("p")
    hour = number.hour.where(part.half.isna(), hour)
    second = number.second.fillna(0)
    calendar = pd.to_datetime(pd.DataFrame({"year": year, "month": month, "day": day}), errors="coerce")
    fine = readable & year.between(*YEARS) & calendar.notna()
    fine &= number.hour.isna() | ((hour < 24) & (number.minute < 60) & (second < 60))
    timed = fine & number.hour.notna()
    if not ((hour != 0) | (number.minute != 0) | (second != 0))[timed].any():
        timed &= False
    clock = [f" {h:02.0f}:{m:02.0f}:{s:02.0f}" for h, m, s in zip(hour[timed], number.minute[timed], second[timed])]
    told = calendar.where(fine).dt.strftime("%Y-%m-%d").fillna("").astype(object)
    told[timed] += clock
    strange = values[(values != "") & ~fine]
    example = "" if strange.empty else strange.iloc[0]
    unreadable = int((~readable)[strange.index].sum())
    offsets = int((timed & part.offset.notna()).sum())
    return told.astype(str), Told(unreadable, len(strange) - unreadable, offsets, example)


def places_of(latitude: pd.Series, longitude: pd.Series) -> tuple[pd.Series, pd.Series, int]:
    """Latitudes and longitudes as they are told, "" where they can be no place, and how many those are.

    0, 0 is what a device writes that knows no place.
    """
    texts = [values.fillna("").astype(str).str.strip() for values in (latitude, longitude)]
    north, east = (pd.to_numeric(text.str.replace(",", ".", regex=False), errors="coerce") for text in texts)
    fine = (north.abs() <= 90) & (east.abs() <= 180) & ~((north == 0) & (east == 0))
    strange = int((((texts[0] != "") | (texts[1] != "")) & ~fine).sum())
    first, second = (text.str.replace(",", ".", regex=False).where(fine, "") for text in texts)
    return first, second, strange
