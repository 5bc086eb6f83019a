"""Further folders to train on, which never validate or answer."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from jaguar_kit import EXTRA, Competition, DataConfig, KitError, file_sample, load_competition, refuse


def with_extra(competition: Competition, data: DataConfig) -> Competition:
    """The data with the images of further folders to train on, behind its own; identities and names begin with theirs.

    The column EXTRA names the folder, "" for the data's own.
    """
    tables, notes = [competition.train.assign(**{EXTRA: ""})], []
    there = {file_sample(competition.root / path) for path in competition.paths}
    for folder in data.extra:
        where = f"data.extra: {folder}"
        if data.masks is not None:
            raise KitError(f"{where}: masks of a folder of their own are not looked for (expected alpha)")
        try:
            other = load_competition(folder)
        except KitError as error:
            raise KitError(f"data.extra: {error}") from None
        name = other.root.resolve().name
        if name in {table[EXTRA].iloc[0] for table in tables}:
            raise KitError(f"{where}: two folders are called {name!r}, which names identities (rename one)")
        same = [path for path in other.train.path if file_sample(other.root / path) in there]
        also = f"of its images are images of {competition.root}, which may validate, or of an earlier folder, too"
        refuse(same, also, where, " (expected other photographs)")
        there |= {file_sample(other.root / path) for path in other.train.path}
        renamed = {column: f"{name}/" + other.train[column] for column in ("identity", "filename")}
        renamed["path"] = [str((other.root / path).resolve()) for path in other.train.path]
        tables.append(other.train.assign(**renamed, **{EXTRA: name}))
        count = f"{len(other.train)} images of {len(other.identities)} identities"
        notes.append(f"{where}: {count} train besides, and never validate or answer")
    train = pd.concat(tables, ignore_index=True)
    words = [c for c in train if train[c].dtype == object or pd.api.types.is_string_dtype(train[c])]
    return replace(competition, train=train.fillna(dict.fromkeys(words, ""))).noted(*notes)
