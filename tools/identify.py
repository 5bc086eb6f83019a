"""Who is on these photographs? python tools/identify.py --weights RUN --catalogue DIR --queries DIR --out DIR"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaguar_kit import (
    ANSWERS,
    ENCOUNTERS,
    LEFT_OUT,
    NEW,
    OTHER,
    PAPER,
    SAME,
    Calibrator,
    Embedder,
    FolderScan,
    Geometry,
    ImageStore,
    KitError,
    Page,
    PixelSource,
    Preparation,
    Recipe,
    Tile,
    allowed_answers,
    average_precision,
    cache_dir,
    calibrate_matches,
    check_images,
    check_model,
    check_names,
    claim,
    clean_labels,
    column_groups,
    computed_by,
    confident,
    connected_groups,
    cross_fitted_score,
    cut_batches,
    device_name,
    differing_bits,
    echo,
    embed,
    embedder_for,
    ends_alike,
    fingerprint,
    first_few,
    fit_thresholds,
    guesses_table,
    in_precision,
    kept_tensor,
    load_competition,
    load_weights,
    main,
    memory_format,
    module_fingerprint,
    native_size,
    nearest_identities,
    notes_on_labels,
    open_store,
    perceptual_hashes,
    pick_device,
    precision_of,
    read_arrays,
    read_table,
    recipe_from_dict,
    refuse_other_contents,
    rows_at_a_time,
    save_tensors,
    sheet,
    similarity_matrix,
    threshold_figure,
    weights_path,
    write_table,
)
from PIL import Image
from torch import Tensor


def load_catalogue(path: str | Path, masks: str | None = None) -> tuple[Path, pd.DataFrame, list[str]]:
    """Root, a table with path and identity of known individuals, from a folder or a CSV, and what is to be said of it.

    A folder is read as `load_competition` does. A CSV has a column path or filename (below its own folder), and
    identity or ground_truth; flank, burst and sighting may be told too.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        competition = load_competition(path, masks)
        return competition.root, competition.train, list(competition.notes)
    table = album_table(path)
    table = table if "identity" in table else table.rename(columns={"ground_truth": "identity"})
    if "identity" not in table:
        raise KitError(
            f"{path}: column 'identity' is missing (expected path,identity; found {','.join(table.columns)})"
        )
    table = table.assign(filename=table.path)
    notes = clean_labels(path, table, "identity")
    return path.parent, table, notes + notes_on_labels(table)


def album_table(path: Path) -> pd.DataFrame:
    """A CSV of images below its own folder, with a column path."""
    table = read_table(path, ())
    table = table if "path" in table else table.rename(columns={"filename": "path"})
    if "path" not in table:
        raise KitError(f"{path}: column 'path' is missing (expected path or filename; found {','.join(table.columns)})")
    check_names(path, "path", table.path)
    check_images(path, "path", path.parent, table.path)
    return table


def load_queries(path: str | Path) -> tuple[Path, pd.DataFrame, list[str]]:
    """Root, a table with the paths of the photographs to identify, those below a folder or of a CSV, and notes."""
    path = Path(path)
    if path.suffix.lower() == ".csv":
        return path.parent, album_table(path), []
    if not path.is_dir():
        raise KitError(f"--queries: {path}: there is no such folder (expected one with images, or a CSV with paths)")
    if (path / "train.csv").is_file() or (path / "metadata.csv").is_file():
        asked = load_competition(path).test
        if asked.empty:
            raise KitError(f"--queries: {path}: its tables name no test images")
        return path, asked, []
    found = FolderScan(path)
    if not found.images:
        raise KitError(f"--queries: {path}: has no images that can be read here ({found.others() or 'empty'})")
    return path, pd.DataFrame({"path": list(map(str, found.images))}), found.notes


@dataclass(frozen=True, eq=False)
class Album:
    """Photographs that could be read, and their embeddings."""

    table: pd.DataFrame  # path and what else is known, a row for each
    store: ImageStore
    rows: np.ndarray  # where in the store
    embeddings: Tensor
    notes: tuple[str, ...] = ()  # what a reader of the answers must know

    def thumbnail(self, position: int) -> Image.Image:
        return self.store.thumbnail(int(self.rows[position]))


def embed_album(
    recipe: Recipe, embedder: Embedder, root: Path, table: pd.DataFrame, device: torch.device, label: str
) -> Album:
    """Reads and embeds photographs, or finds their embeddings in the cache; unreadable ones are told and left out."""
    data, size, notes = recipe.data, recipe.model.input_size or native_size(embedder.backbone), []
    turns = [data.turn.get(label, 0.0) for label in table.get("orientation", ())]
    masks = data.masks if data.masks and (root / data.masks).is_dir() else None
    store = open_store(root, list(table.path), data.size, data.fit, masks, "skip", turns=turns)
    if store.unreadable:
        broken = first_few(list(table.path.iloc[list(store.unreadable)]))
        notes.append(f"{len(store.unreadable)} images in {root} can't be read and are left out: {broken}")
    if recipe.background.build().needs_masks and not store.has_masks:
        notes.append(f"the weights were trained with background {recipe.background.name}, but {root} has no masks")
    if data.turn and "orientation" not in table:
        notes.append(f"the weights were trained on images turned by their orientation, which {root} does not tell")
    rows = np.setdiff1d(np.arange(len(store)), store.unreadable)
    if not len(rows):
        raise KitError(f"{root}: none of its {len(store)} images can be read")
    for note in notes:
        echo(f"  note: {note}")
    cfg, precision = embedder.backbone.pretrained_cfg, precision_of("auto", device)
    source = PixelSource(
        store, Preparation(recipe.background, (), size, cfg["mean"], cfg["std"], recipe.model.crop), device
    )
    network = in_precision(embedder, precision)
    settings = (asdict(recipe.background), asdict(recipe.model), size, tuple(cfg["mean"]), tuple(cfg["std"]))
    settings += computed_by(precision, device)
    key = fingerprint("album 2", store.key, module_fingerprint(embedder), *settings, rows.tolist())
    path = cache_dir() / "features" / f"{key}.safetensors"
    if (embeddings := kept_tensor(path, "embeddings", len(rows))) is None:
        embeddings = embed(network, source, rows, label=label)
        save_tensors(path, {"embeddings": embeddings})
    return Album(table.iloc[rows].reset_index(drop=True), store, rows, embeddings, tuple(notes))


def held_out_images(weights: str | Path, table: pd.DataFrame) -> np.ndarray:
    """Which images of a catalogue a run held out from its training, bool (N,), as the folder of its weights tells.

    An image is known by its path, of which the catalogue may tell less or more folders, or by its bare name where no
    image that was trained on has the same.
    """
    file = weights_path(weights).parent / "validation.npz"
    if not file.is_file():
        return np.zeros(len(table), bool)
    kept = read_arrays(file, "images", "labels")
    if "trained" not in kept:  # of an earlier version, which does not tell enough to know an image by its bare name
        pairs = set(zip(kept["images"], kept["labels"]))
        known = zip(table.path, table.get("filename", table.path), table.identity)
        return np.array([(path, label) in pairs or (name, label) in pairs for path, name, label in known], bool)
    by_name: dict[str, list[tuple]] = {}
    told = [*zip(kept["paths"], kept["labels"]), *((path, None) for path in kept["trained"])]
    for parts, label in ((Path(path).parts, label) for path, label in told):
        by_name.setdefault(parts[-1], []).append((parts, label))

    def held_out(path: str, identity: str) -> bool:
        own, called = Path(path).parts, by_name.get(Path(path).name, [])
        alike = [(parts, label) for parts, label in called if ends_alike(parts, own)] or called
        return bool(alike) and all(label == identity for _, label in alike)

    return np.array([held_out(path, identity) for path, identity in zip(table.path, table.identity)], bool)


MEETINGS = (*ENCOUNTERS, "date")  # columns by which images of one identity were taken together
NEAR_DUPLICATE = 11  # bits of the perceptual hash that may differ


def encounters_of(catalogue: Album) -> np.ndarray:
    """The encounter of each image (N,): images of one identity are of one when a column of `MEETINGS` has the same for
    them, or when they are near-duplicates by perceptual hash."""
    table, hashes = catalogue.table, perceptual_hashes(catalogue.store.subset(catalogue.rows))
    columns = [column_groups(table[name]) for name in MEETINGS if name in table]
    pairs = []
    for rows in table.groupby("identity").indices.values():
        together = differing_bits(hashes[rows], hashes[rows]) <= NEAR_DUPLICATE
        for column in columns:
            together |= column[rows, None] == column[rows]
        pairs.append(rows[np.argwhere(together)])
    return connected_groups(np.concatenate(pairs), len(table))


def leave_one_out(catalogue: Album, geometry: Geometry, asked: np.ndarray) -> pd.DataFrame:
    """Guesses for images of the catalogue as queries: once among all others, once without their own identity.

    asked: bool (N,), which of the catalogue's images. Images of one encounter are not matched with each other, for a
    new photograph has no such twin there. precision: the query's average precision among images of other encounters.
    """
    table, identity, met = catalogue.table, catalogue.table.identity.to_numpy(str), encounters_of(catalogue)
    found = []
    for rows in cut_batches(np.flatnonzero(asked), rows_at_a_time(len(table))):
        similarity = similarity_matrix(catalogue.embeddings[rows], catalogue.embeddings, geometry)
        own, twins, paths = identity[rows, None] == identity, met[rows, None] == met, table.path.iloc[rows]
        best, score = nearest_identities(similarity, identity, allowed=~twins)
        precision = average_precision(similarity, identity[rows], met[rows], identity, met)
        known = guesses_table(paths, "", best[:, 0], score[:, 0])
        known = known.assign(truth=identity[rows], known=True, precision=precision)
        best, score = nearest_identities(similarity, identity, allowed=~own)
        absent = guesses_table(paths, "", best[:, 0], score[:, 0])
        absent = absent.assign(truth=[name + LEFT_OUT for name in identity[rows]], known=False)
        found.append((known[(own & ~twins).any(1)], absent[absent.identity != ""]))
    return pd.concat([table for part in zip(*found) for table in part], ignore_index=True)


def group_new(similarity: np.ndarray, threshold: float) -> list[str]:
    """Names "new 1", "new 2", ... for queries (M, M) that resemble each other; "" for those that resemble none.

    Average linkage: the likeness of their images, averaged over two groups, must reach `threshold`.
    """
    from sklearn.cluster import AgglomerativeClustering

    if len(similarity) < 2:
        return [""] * len(similarity)
    distance = 1 - similarity
    np.fill_diagonal(distance, 0)
    linked = AgglomerativeClustering(
        None, metric="precomputed", linkage="average", distance_threshold=1 - threshold + 1e-9
    )
    labels = linked.fit_predict((distance + distance.T) / 2)
    sizes = pd.Series(labels).value_counts()
    numbers = {label: f"new {i}" for i, label in enumerate(sizes.index[sizes > 1], 1)}
    return [numbers.get(label, "") for label in labels]


def identify(
    weights: str | Path, catalogue: str | Path, queries: str | Path, out: str | Path, device: str = "auto"
) -> pd.DataFrame:
    """Names the animals on photographs by those of a catalogue; writes answers.csv and report.html into `out`.

    weights: a run's folder or weights.safetensors. catalogue: a folder of identity/*.jpg, one in a competition's
    layout, or a CSV with path and identity. queries: a folder of photographs, or a CSV with path. Confidence is the
    probability that a match is right, calibrated on the catalogue, each image being asked for once with and once
    without its identity there; below the threshold with the best sqrt(BAKS x BAUS) the answer is `new_individual`. New
    ones that resemble each other are grouped. Unreadable photographs are told and left out. Returns the answers, a row
    for each query.
    """
    out = Path(out)
    if (out / "answers.csv").exists():
        raise KitError(f"{out}: holds answers already; choose a new --out, so that nothing is overwritten")
    refuse_other_contents(out, ANSWERS)
    chosen = pick_device(device)
    _, metadata = load_weights(weights)
    recipe = recipe_from_dict(metadata["recipe"], str(weights))
    recipe = replace(recipe, checkpoint=str(weights_path(weights)), soup=())
    (known_root, known, said), (asked_root, asked, more) = (
        load_catalogue(catalogue, recipe.data.masks),
        load_queries(queries),
    )
    for note in (*said, *more):
        echo(f"  note: {note}")
    if not known.identity.duplicated().any():
        raise KitError(
            f"{catalogue}: every individual has one image, so that there is nothing to fit confidence on (expected "
            "some individuals with two images or more)"
        )
    asked, notes = without_known(asked_root, asked, known_root, known)
    check_model(recipe)
    embedder = embedder_for(recipe)[0].to(chosen, memory_format=memory_format(chosen)).eval()
    individuals = known.identity.nunique()
    echo(f"{len(asked)} photographs against {len(known)} of {individuals} individuals on {device_name(chosen)}")
    there = embed_album(recipe, embedder, known_root, known, chosen, "embedding the catalogue")
    guesses, fitted_on = catalogue_guesses(weights, there, embedder.geometry, set(metadata["identities"]))
    calibrate, threshold = confidence_of(guesses, catalogue)
    guesses["score"] = calibrate(guesses.score)
    new = embed_album(recipe, embedder, asked_root, asked, chosen, "embedding the queries")
    answers = answer_queries(there, new, embedder.geometry, calibrate, threshold)
    notes = dict.fromkeys((*said, *more, *notes, *there.notes, *new.notes))
    claim(out, ANSWERS)
    page = identify_page(there, new, answers, guesses, threshold, fitted_on, tuple(notes))
    report, found = page.write(out), (answers.answer != NEW)
    write_table(out / "answers.csv", answers)  # last, for it says that all is there
    groups = answers.group[answers.group != ""].nunique()
    echo(f"  {found.sum()} recognised, {(~found).sum()} perhaps new ({groups} groups that may be one animal each)")
    for path in (out / "answers.csv", report):
        echo(f"  wrote {path}")
    return answers


def without_known(
    root: Path, asked: pd.DataFrame, known_root: Path, known: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """The queries without images that are the catalogue's own, and what is to be said about those."""
    there = {(known_root / path).resolve() for path in known.path}
    own = np.array([(root / path).resolve() in there for path in asked.path], bool)
    if own.all():
        raise KitError(f"--queries: {root}: all of its {len(asked)} images are in the catalogue")
    notes = [f"{own.sum()} of the photographs are in the catalogue itself and are left out"] if own.any() else []
    return asked[~own].reset_index(drop=True), notes


def catalogue_guesses(
    weights: str | Path, there: Album, geometry: Geometry, identities: set[str]
) -> tuple[pd.DataFrame, str]:
    """Guesses for the catalogue's own images to fit confidence on, and in words which images they are.

    Where the weights were trained on some of its individuals, those images that were held out, if there are enough.
    """
    learned, held_out = identities & set(there.table.identity), held_out_images(weights, there.table)
    if learned and held_out.sum() >= LEAST_HELD_OUT:
        guesses = leave_one_out(there, geometry, held_out)
        if guesses.known.any():
            return guesses, (
                f"{held_out.sum()} images of the catalogue that the training of these weights left out (of "
                "individuals that it did see, so that strangers are harder to tell than here)"
            )
    told = "the catalogue" + (
        f", on {len(learned)} of whose individuals these weights were trained, so that confidence is too high"
        if learned
        else ""
    )
    return leave_one_out(there, geometry, np.ones(len(there.table), bool)), told


def confidence_of(guesses: pd.DataFrame, catalogue: str | Path) -> tuple[Calibrator, float]:
    """From similarity to confidence, and the least confidence of an answer, both fitted on the catalogue's guesses."""
    right = (guesses.truth == guesses.identity).to_numpy()
    if not right.any() or right.all() or not guesses.known.any() or guesses.known.all():
        raise KitError(
            f"{catalogue}: nothing to fit confidence on: no image is recognised among the others (expected several "
            "identities, some with two images or more that are no twins, and weights that fit the species)"
        )
    calibrate = calibrate_matches(guesses.score, right)
    return calibrate, fit_thresholds(guesses.assign(score=calibrate(guesses.score)))[""]


def answer_queries(
    there: Album, new: Album, geometry: Geometry, calibrate: Calibrator, threshold: float
) -> pd.DataFrame:
    """A row for each query: its answer, its group among the new ones, and its three best identities with confidence."""
    similarity = similarity_matrix(new.embeddings, there.embeddings, geometry).numpy()
    identity = there.table.identity.to_numpy(str)
    best, score = nearest_identities(similarity, identity, k=3, allowed=allowed_answers(new.table, there.table, False))
    confidence = confident(calibrate, score)
    wrong_above = np.cumprod(1 - confidence[:, :-1], axis=1)
    confidence[:, 1:] *= wrong_above
    members = {name: np.flatnonzero(identity == name) for name in np.unique(identity)}
    paths = there.table.path.to_numpy(str)
    match = [[members[n][row[members[n]].argmax()] if n else -1 for n in names] for row, names in zip(similarity, best)]
    match = np.array(match)
    answers = pd.DataFrame(
        {"query": new.table.path, "answer": np.where(confidence[:, 0] >= threshold, best[:, 0], NEW)}
    )
    strange = np.flatnonzero(answers.answer == NEW)
    answers["group"] = ""
    if len(strange) <= MOST_GROUPED:
        among = similarity_matrix(new.embeddings[strange], geometry=geometry).numpy()
        answers.loc[strange, "group"] = group_new(confident(calibrate, among), threshold)
    for rank in range(best.shape[1]):
        answers[f"identity_{rank + 1}"] = best[:, rank]
        answers[f"confidence_{rank + 1}"] = confidence[:, rank].round(4)
        answers[f"match_{rank + 1}"] = np.where(best[:, rank] == "", "", paths[match[:, rank]])
    flank = flank_of(new.table, there.table.iloc[match[:, 0]], answers.answer != NEW)
    return answers if flank is None else answers.assign(flank=flank)


def flank_of(asked: pd.DataFrame, matches: pd.DataFrame, recognised: pd.Series) -> np.ndarray | None:
    """The flank that a query shows: its own, where its table tells, else that of the image it was recognised by.

    None where neither table has a column flank or orientation.
    """
    for table, told in ((asked, np.ones(len(asked), bool)), (matches, recognised.to_numpy(bool))):
        column = next((c for c in ("flank", "orientation") if c in table), None)
        if column:
            return np.where(told, table[column].to_numpy(str), "")
    return None


SHOWN_QUERIES = 1000  # on a page

MOST_GROUPED = 5000  # new ones that are compared with each other

LEAST_HELD_OUT = 30  # images to fit confidence on, where the weights were trained on the others


def identify_page(
    there: Album,
    new: Album,
    answers: pd.DataFrame,
    guesses: pd.DataFrame,
    threshold: float,
    fitted_on: str,
    notes: Sequence[str] = (),
) -> Page:
    """Every query beside its best matches, for a person to look through: new ones by group, then the least sure."""
    page, honest = Page("Who is who"), cross_fitted_score(guesses)
    page.text(
        f"{len(answers)} photographs against {len(there.table)} of {there.table.identity.nunique()} known individuals: "
        f"{(answers.answer != NEW).sum()} recognised, {(answers.answer == NEW).sum()} new to the catalogue."
    )
    for note in notes:
        page.note(f"Note: {note}")
    page.note(
        f"Confidence is the probability that a match is right, if every second photograph showed a new animal; that of "
        f"the second and third is for when those before are wrong. Below {threshold:.2f} the answer is {NEW}. Both "
        f"are fitted on {fitted_on}. Who is known from one flank only may be called new when seen from the other."
    )
    if not math.isnan(honest["score"]):
        page.note(
            f"What to expect, by thresholds fitted on the other half of the individuals ({guesses.known.sum()} "
            f"images): of known individuals' photographs {honest['baks']:.0%} are named rightly, of new ones' "
            f"{honest['baus']:.0%} are told to be new (means over individuals)."
        )
    known = guesses[guesses.known]
    page.note(
        f"{len(known)} of these images, each asked for among the images of other encounters: the right individual is "
        f"first for {(known.identity == known.truth).mean():.0%}; identity-balanced mAP across encounters "
        f"{known.groupby('truth').precision.mean().mean():.3f}."
    )
    page.figure(
        "confidence",
        threshold_figure(guesses, {"": threshold}, fixed=()),
        "The catalogue's images as queries. Left, by the least confidence of an answer: share of known individuals "
        "named rightly, of unknown ones told to be new, and the geometric mean of both; right, how sure answers are.",
    )
    order = answers.assign(new=answers.answer == NEW, alone=answers.group == "")
    order = order.sort_values(
        ["new", "alone", "group", "confidence_1"], ascending=[False, True, True, True], kind="stable"
    )
    for new_ones, title in ((True, "Perhaps new individuals"), (False, "Recognised, the least sure first")):
        shown = order[order.new == new_ones].index[:SHOWN_QUERIES]
        page.heading(f"{title} ({(order.new == new_ones).sum()})")
        if len(shown) < (order.new == new_ones).sum():
            page.note(f"Note: {len(shown)} of them are shown; answers.csv has all.")
        for number, rows in enumerate(cut_batches(np.asarray(shown), 10)):
            shown_rows = match_sheet(
                [match_row(there, new, answers.loc[row]) for row in rows], [not new_ones] * len(rows)
            )
            name = f"{'new' if new_ones else 'recognised'}-{number + 1:03d}"
            page.image(name, shown_rows, f"{', '.join(answers['query'].loc[rows])}, each with its best matches.")
    return page


def match_sheet(rows: Sequence[Sequence[tuple[Image.Image, str]]], taken: Sequence[bool]) -> bytes:
    """A JPEG with a row for each query: its image, then its best matches, each with a line of text under it.

    taken: whether the first match is the answer, which a blue frame tells; else the query has an orange one.
    """
    framed = []
    for row, known in zip(rows, taken):
        frames = {1: SAME} if known else {0: OTHER}
        framed.append([Tile(image, text, frames.get(i, PAPER)) for i, (image, text) in enumerate(row)])
    buffer = io.BytesIO()
    sheet(framed, side=150, gap=20, whole=True).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def match_row(there: Album, new: Album, answer: pd.Series) -> list[tuple[Image.Image, str]]:
    place = {path: i for i, path in enumerate(there.table.path)}
    group = f"  {answer.group}" if answer.group else ""
    row = [(new.thumbnail(answer.name), answer["query"] + group)]
    ranks = [k for k in (1, 2, 3) if answer[f"identity_{k}"]]
    return row + [
        (
            there.thumbnail(place[answer[f"match_{k}"]]),
            f"{answer[f'identity_{k}']}  {answer[f'confidence_{k}']:.0%}",
        )
        for k in ranks
    ]


def identify_command(argv: Sequence[str] | None = None) -> int:
    """`python -m jaguar_kit identify --weights RUN --catalogue DIR --queries DIR --out DIR`."""
    parser = argparse.ArgumentParser(
        prog="jaguar_kit identify",
        description="Names the animals on photographs by a catalogue of known ones, and tells which are new.",
    )
    parser.add_argument("--weights", required=True, help="a run's folder, such as runs/final/default/seed42")
    parser.add_argument("--catalogue", required=True, help="folder of identity/*.jpg, or a CSV with path and identity")
    parser.add_argument("--queries", required=True, help="folder of photographs, or a CSV with path")
    parser.add_argument("--out", required=True, help="new folder for answers.csv and report.html")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    given = parser.parse_args(argv)
    identify(given.weights, given.catalogue, given.queries, given.out, given.device)
    return 0


if __name__ == "__main__":
    sys.exit(main(identify_command))
