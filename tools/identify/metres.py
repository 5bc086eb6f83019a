"""Where stations are, in metres: UTM of their degrees, on WGS84."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .captures import Study


def metres_of(study: Study) -> tuple[pd.DataFrame, str]:
    """x and y of each station in metres, and what they are: as a table tells them, or UTM of its degrees."""
    table = study.cameras.assign(
        **{name: pd.to_numeric(study.cameras[name], errors="coerce") for name in ("latitude", "longitude")}
    )
    places = table.groupby("station")[["x", "y", "latitude", "longitude"]].first()
    photographs = study.photographs[study.photographs.row >= 0]
    for name in ("latitude", "longitude"):
        told = pd.to_numeric(photographs[name], errors="coerce").astype(float)
        places[name] = places[name].fillna(told.groupby(photographs.station).mean())
    if places.x.notna().all() and places.y.notna().all():
        return places, "as the table of cameras tells them"
    zone = 31 if places.longitude.isna().all() else int((places.longitude.mean() + 180) // 6) % 60 + 1
    south = bool(places.latitude.mean() < 0)
    places["x"], places["y"] = utm_of(places.latitude.to_numpy(float), places.longitude.to_numpy(float), zone, south)
    return places, f"UTM zone {zone} {'south' if south else 'north'}, WGS84"


def utm_of(latitude: np.ndarray, longitude: np.ndarray, zone: int, south: bool) -> tuple[np.ndarray, np.ndarray]:
    """Easting and northing in metres of degrees on WGS84, by Krüger's series to the third order (to a millimetre)."""
    radius, flattening, scale = 6378137.0, 1 / 298.257223563, 0.9996
    n = flattening / (2 - flattening)
    size = radius / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    alpha = (n / 2 - 2 / 3 * n**2 + 5 / 16 * n**3, 13 / 48 * n**2 - 3 / 5 * n**3, 61 / 240 * n**3)
    sine, away = np.sin(np.radians(latitude)), np.radians(longitude - (6 * zone - 183))
    root = 2 * np.sqrt(n) / (1 + n)
    t = np.sinh(np.arctanh(sine) - root * np.arctanh(root * sine))
    xi, eta = np.arctan2(t, np.cos(away)), np.arctanh(np.sin(away) / np.hypot(1, t))
    east = eta + sum(a * np.cos(2 * j * xi) * np.sinh(2 * j * eta) for j, a in enumerate(alpha, 1))
    north = xi + sum(a * np.sin(2 * j * xi) * np.cosh(2 * j * eta) for j, a in enumerate(alpha, 1))
    return 500_000 + scale * size * east, (10_000_000 if south else 0) + scale * size * north
