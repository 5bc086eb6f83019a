"""Open sets: naming the queries of known individuals, and saying of the others that nobody knows them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from jaguar_kit import (
    NEW,
    Calibrator,
    Competition,
    Count,
    KitError,
    OpenSet,
    Range,
    Recipe,
    RunFolder,
    RunSpec,
    Split,
    Trainer,
    as_labels,
    as_matrix,
    atomic,
    check_images,
    check_unique,
    class_logits,
    clean_label,
    clean_labels,
    convert,
    cut_batches,
    describe_steps,
    fit_calibration,
    own_rows,
    read_table,
    register,
    retrieval_metrics,
    rows_at_a_time,
    shared_encounters,
    similarity_matrix,
    stratified_split,
    suggest,
    write_json,
    write_table,
)
from torch import Tensor

LEFT_OUT = " (left out)"  # marks the true identity of a query that is asked for without it in the gallery
SOURCE_THRESHOLDS = (0.6, 0.65, 0.68, 0.7)  # fixed ones of a published system, for comparison


def open_set_score(truth: Any, answer: Any, known: Iterable[str]) -> dict[str, float]:
    """{"baks", "baus", "score"} of AnimalCLEF 2025, each in [0, 1].

    truth, answer: identities of N queries, `new_individual` as the answer for an animal that nobody knows; known: the
    identities in the database. baks is the balanced accuracy on queries of known individuals, baus that on queries of
    unknown ones: the mean, over the true identities, of the share of their queries that are answered rightly. score is
    sqrt(baks * baus). What has no queries is NaN, and the score with it.

    >>> open_set_score(["a", "a", "b", "x"], ["a", "b", "b", "new_individual"], known=["a", "b"])["baks"]
    0.75
    """
    truth, answer = as_labels(truth, "truth").astype(str), as_labels(answer, "answer").astype(str)
    known = set(map(str, known))
    if truth.shape != answer.shape:
        raise KitError(
            f"open_set_score: {len(truth)} true identities and {len(answer)} answers (expected one for each)"
        )
    there = np.array([name in known for name in truth], bool)
    baks = balanced_accuracy(truth[there], (answer == truth)[there])
    baus = balanced_accuracy(truth[~there], (answer == NEW)[~there])
    return {"baks": baks, "baus": baus, "score": math.sqrt(baks * baus)}


def balanced_accuracy(truth: np.ndarray, right: np.ndarray) -> float:
    return float(pd.Series(right.astype(float)).groupby(truth).mean().mean()) if len(truth) else math.nan


def nearest_identities(
    similarity: Any, identities: Any, k: int = 1, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar identities of each query, and the similarity of the most similar image of each: (N, k) both.

    similarity (N, M) of queries and gallery; identities (M,) of the gallery; allowed: bool (N, M), which of them may be
    the answer. Where fewer than k identities are there, or allowed, the others are "" with similarity -inf.
    """
    convert(k, Count, "nearest_identities: k")
    matrix = as_matrix(similarity).cpu().numpy()
    try:
        allowed = None if allowed is None else np.asarray(allowed)
    except ValueError as error:
        raise KitError(f"allowed: is no matrix: {error}") from None
    if allowed is not None and (allowed.shape != matrix.shape or allowed.dtype != bool):
        raise KitError(f"allowed: {allowed.dtype} of shape {allowed.shape} (expected true or false, {matrix.shape})")
    names_there, codes = np.unique(as_labels(identities, "identities").astype(str), return_inverse=True)
    if matrix.shape[1:] != codes.shape:
        raise KitError(f"similarity: shape {matrix.shape} does not fit {len(codes)} identities (expected N x M)")
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names_there)))
    found, scores = np.full((len(matrix), k), "", names_there.dtype), np.full((len(matrix), k), -np.inf)
    for rows in cut_batches(np.arange(len(matrix)), rows_at_a_time(matrix.shape[1])):
        block = matrix[rows].astype(np.float64)
        if allowed is not None:
            block = np.where(allowed[rows], block, -np.inf)
        best = np.maximum.reduceat(block[:, order], starts, axis=1)  # (rows, C)
        top = np.argsort(-best, axis=1, kind="stable")[:, :k]
        scores[rows, : top.shape[1]] = np.take_along_axis(best, top, 1)
        found[rows, : top.shape[1]] = names_there[top]
    return np.where(np.isneginf(scores), "", found), scores


def guesses_table(names: Sequence[str], species: Any, identity: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    """A row for each query: its name, its species ("" where there are none), the best identity, and how sure it is."""
    return pd.DataFrame({"image_id": list(names), "species": species, "identity": identity, "score": score})


def check_guesses(guesses: Any, *columns: str) -> None:
    """Refuses what is no table of guesses."""
    missing = (
        [c for c in columns if c not in guesses] if isinstance(guesses, pd.DataFrame) else [type(guesses).__name__]
    )
    if missing:
        raise KitError(f"guesses: lack {missing[0]} (expected a table with a row for each query: {', '.join(columns)})")


def answers_of(guesses: pd.DataFrame, thresholds: Mapping[str, float]) -> np.ndarray:
    """The best identity of each query, or `new_individual` where it scores below the threshold of its species.

    thresholds: by species, or one under "" for all that have none of their own. A query without a guess is new.
    """
    check_guesses(guesses, "species", "identity", "score")
    least = guesses.species.map(lambda name: thresholds.get(name, thresholds.get("", math.nan))).to_numpy(float)
    if np.isnan(least).any():
        missing = guesses.species[np.isnan(least)].iloc[0]
        raise KitError(f"thresholds: there is none for species {missing!r} (found {', '.join(map(repr, thresholds))})")
    identity = guesses.identity.to_numpy(str)
    return np.where((guesses.score.to_numpy() >= least) & (identity != ""), identity, NEW)


def candidate_thresholds(values: np.ndarray) -> np.ndarray:
    """Thresholds that part rising values: one below all, one for each step, one above all."""
    middle = (values[1:] + values[:-1]) / 2
    middle = np.where(middle > values[:-1], middle, values[1:])  # of neighbouring numbers the middle is the lower one
    return np.r_[values[0] - 1e-6, middle, values[-1] + 1e-6]


def shares_of_score(guesses: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """What each query adds to baks when its guess is taken, and to baus when it is not: (N,) both.

    guesses has truth (the true identity) and known (whether the database has it).
    """

    def weight(rows: np.ndarray) -> np.ndarray:
        truth = guesses.truth[rows]
        return np.where(rows, 1 / (guesses.truth.map(truth.value_counts()).fillna(1) * max(truth.nunique(), 1)), 0.0)

    known = guesses.known.to_numpy(bool)
    right = (guesses.truth == guesses.identity).to_numpy()
    return weight(known) * right, weight(~known)


def threshold_curve(guesses: pd.DataFrame) -> pd.DataFrame:
    """baks, baus and score for every threshold that makes a difference: between each two neighbouring scores, below the
    lowest and above the highest. `guesses` as in `fit_thresholds`."""
    check_guesses(guesses, "identity", "score", "truth", "known")
    values, baks, baus = sums_by_threshold(guesses.score.to_numpy(float), *shares_of_score(guesses))
    return pd.DataFrame(
        {"threshold": candidate_thresholds(values), "baks": baks, "baus": baus, "score": np.sqrt(baks * baus)}
    )


def sums_by_threshold(scores: np.ndarray, taken: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, ...]:
    """The distinct scores, rising; for each of their `candidate_thresholds` the shares taken above and left below."""
    values, place = np.unique(scores, return_inverse=True)
    gain, loss = (np.bincount(place, share, len(values)) for share in (taken, left))
    return values, np.r_[gain[::-1].cumsum()[::-1], 0.0], np.r_[0.0, loss.cumsum()]


def fit_thresholds(guesses: pd.DataFrame, per_species: bool = False) -> dict[str, float]:
    """The thresholds with the best sqrt(baks * baus): one under "", and with per_species one more for each species.

    guesses: a row for each query with image_id, species, identity (the best), score, truth, and known (whether the
    database has the true identity). Those of the species are fitted in turn, the others held, until none improves.
    Raises KitError without queries of both kinds, for then any threshold would do.
    """
    check_guesses(guesses, "species", "identity", "score", "truth", "known")
    if guesses.known.all() or not guesses.known.any():
        kind = "known" if guesses.known.all() else "unknown"
        raise KitError(
            f"threshold: all {len(guesses)} queries are of {kind} individuals; both kinds are needed to fit one"
        )
    curve = threshold_curve(guesses)
    single = float(curve.threshold[curve.score.idxmax()])
    species = sorted(set(guesses.species) - {""})
    if not per_species or len(species) < 2:
        return {"": single}
    fitted, (taken, left) = dict.fromkeys(species, single), shares_of_score(guesses)
    for _ in range(20):
        before = dict(fitted)
        for name in species:
            own = (guesses.species == name).to_numpy()
            accepted = guesses.score.to_numpy() >= guesses.species.map(fitted).fillna(single).to_numpy()
            others = taken[~own & accepted].sum(), left[~own & ~accepted].sum()
            fitted[name] = best_beside(guesses.score.to_numpy()[own], taken[own], left[own], others, fitted[name])
        if fitted == before:
            break
    return {"": single, **fitted}


def best_beside(
    scores: np.ndarray, taken: np.ndarray, left: np.ndarray, others: tuple[float, float], now: float
) -> float:
    """The threshold of one species that makes the score best, given what the others add; the present one on a tie."""
    values, baks, baus = sums_by_threshold(scores, taken, left)
    products = (others[0] + baks) * (others[1] + baus)
    present = products[np.searchsorted(values, now)]
    best = int(products.argmax())
    return float(candidate_thresholds(values)[best]) if products[best] > present + 1e-12 else now


def calibrate_matches(scores: Any, right: Any) -> Calibrator:
    """How probable it is, given a query's best score, that its best match is right: N scores, N of bool.

    Isotonic from 1,000 queries on, logistic below (Niculescu-Mizil & Caruana 2005).
    """
    return fit_calibration(np.asarray(scores, float), right, "isotonic" if len(scores) >= 1000 else "logistic")


def score_guesses(guesses: pd.DataFrame, thresholds: Mapping[str, float]) -> dict[str, float]:
    """`open_set_score` of guesses with a truth, at these thresholds."""
    return open_set_score(guesses.truth, answers_of(guesses, thresholds), guesses.truth[guesses.known])


def cross_fitted_score(guesses: pd.DataFrame, per_species: bool = False, seed: int = 0) -> dict[str, float]:
    """`open_set_score` when each half of the identities is judged by thresholds fitted on the other half.

    An honest estimate, where a threshold judged on the queries that it was fitted on would flatter itself. NaN where
    either half lacks known or unknown individuals.
    """
    check_guesses(guesses, "species", "identity", "score", "truth", "known")
    animal = guesses.truth.str.removesuffix(LEFT_OUT)
    rng, second = np.random.default_rng(seed), set()
    for known in (True, False):
        identities = sorted(set(animal[guesses.known == known]) - set(animal[guesses.known] if not known else ()))
        second |= set(rng.permutation(identities)[::2])
    half = animal.isin(second).astype(int)
    answers = np.full(len(guesses), "", object)
    try:
        for own in (0, 1):
            rows = (half == own).to_numpy()
            answers[rows] = answers_of(guesses[rows], fit_thresholds(guesses[~rows], per_species))
    except KitError:
        return dict.fromkeys(("baks", "baus", "score"), math.nan)
    return open_set_score(guesses.truth, answers, guesses.truth[guesses.known])


def write_answers(path: str | Path, images: Sequence[str], answers: Sequence[str], known: Iterable[str]) -> Path:
    """Writes `image_id,identity` for every query of an open set, and reads the file back.

    images, answers: names and answers of N queries, an identity of `known` or `new_individual`. Raises KitError on any
    other answer.
    """
    if len(images) != len(answers):
        raise KitError(f"answers: {len(answers)} for {len(images)} images (expected one for each)")
    with atomic(path) as temporary:
        pd.DataFrame({"image_id": list(images), "identity": list(answers)}).to_csv(temporary, index=False)
        validate_answers(temporary, images, known, path)
    return Path(path)


def validate_answers(
    path: str | Path, images: Sequence[str], known: Iterable[str], shown: str | Path | None = None
) -> dict[str, int]:
    """Checks a submission of answers: its columns, every query once, known identities or `new_individual`.

    Returns {"rows": how many}; raises KitError naming the first fault.
    """
    shown, table = shown or path, read_table(Path(path), ())
    if list(table.columns) != ["image_id", "identity"]:
        raise KitError(f"{shown}: columns {','.join(map(str, table.columns))} (expected image_id,identity)")
    allowed = {*known, NEW}
    wrong = table[~table.identity.isin(allowed)]
    if len(wrong):
        first = wrong.iloc[0]
        raise KitError(
            f"{shown}: image_id {first.image_id}: identity: {first.identity!r} is not known; "
            f"{suggest(first.identity, allowed)}"
        )
    expected = pd.Series(list(map(str, images)))
    twice = table.image_id[table.image_id.duplicated()]
    missing, unknown = sorted(set(expected) - set(table.image_id)), sorted(set(table.image_id) - set(expected))
    if len(twice) or missing or unknown:
        fault = f"{twice.iloc[0]} stands more than once" if len(twice) else f"{(missing or unknown)[0]} is "
        fault += "" if len(twice) else ("missing" if missing else "no query")
        raise KitError(f"{shown}: image_id {fault} (expected each of {len(expected)} queries once)")
    return {"rows": len(table)}


# a run, and several


def check_open_set(recipe: Recipe, competition: Competition) -> None:
    """Refuses a recipe that would leave the queries of an open set without answers."""
    config, split = recipe.open_set or OpenSet(), recipe.data.split.name
    if not competition.open_set:
        return
    told = "data.split: kfold" if split == "kfold" else f"ensemble: {recipe.ensemble.name}"
    told = f"postprocess: {describe_steps(recipe.postprocess)}" if recipe.postprocess else told
    if split == "kfold" or recipe.ensemble.name not in ("none", "mean") or recipe.postprocess:
        raise KitError(
            f"{recipe.name}: {told}: can't answer an open set (expected no such steps, and one model or ensemble: mean)"
        )
    if split == "all" and config.threshold is None:
        raise KitError(
            f"{recipe.name}: open_set.threshold: null is fitted in validation, but data.split all has none (expected a "
            "number that another run fitted)"
        )


def as_they_are(scores: Any) -> np.ndarray:
    return np.asarray(scores, np.float64)


def confident(calibrate: Callable[[Any], np.ndarray], scores: Any) -> np.ndarray:
    """The confidence of scores; none where there was nothing to compare with, a score of -inf."""
    values = np.asarray(scores, np.float64)
    confidence, there = np.zeros(values.shape), np.isfinite(values)
    confidence[there] = calibrate(values[there])
    return confidence


def allowed_answers(queries: pd.DataFrame, gallery: pd.DataFrame, without_own: bool) -> np.ndarray | None:
    """Which images of the gallery may answer which query, bool (N, M): those of its species, of other identities."""
    allowed = None
    if "species" in queries and "species" in gallery:
        allowed = queries.species.to_numpy(str)[:, None] == gallery.species.to_numpy(str)
    if without_own:
        others = queries.identity.to_numpy(str)[:, None] != gallery.identity.to_numpy(str)
        allowed = others if allowed is None else allowed & others
    return allowed


@dataclass(frozen=True, eq=False)
class OpenSetJudge:
    """Names the queries of an open set, or says that nobody knows them, by the recipe's way and fitted thresholds."""

    trainer: Trainer
    competition: Competition
    identities: Sequence[str]  # that were learned

    @property
    def config(self) -> OpenSet:
        return self.trainer.recipe.open_set or OpenSet()

    @cached_property
    def known(self) -> set[str]:
        """The identities that may be an answer."""
        train = self.competition.train
        return set(train.identity[own_rows(train)])

    def own(self, positions: np.ndarray) -> np.ndarray:
        """Positions of the data's own images among these."""
        return positions[own_rows(self.competition.train)[positions]]

    @cached_property
    def database(self) -> Tensor:
        """Embeddings of all training images; validation and test compare with parts of it."""
        return self.trainer.embed(np.arange(len(self.competition.train)))

    def retrieved(self, queries: Tensor, rows: pd.DataFrame, truth: Any, gallery: np.ndarray) -> dict[str, float]:
        """mAP and top-1 of the queries (N, D) of known individuals against the gallery, and across encounters."""
        there = self.competition.train.iloc[gallery]
        similarity = similarity_matrix(queries, self.database[gallery], self.trainer.embedder.geometry)
        if (allowed := allowed_answers(rows, there, False)) is not None:
            similarity = torch.where(torch.from_numpy(allowed), similarity, similarity.min() - 1)
        found: dict[str, float] = {}
        told = shared_encounters(pd.concat([rows, there]))
        met = {} if told is None else {"_across": (told[: len(rows)], told[len(rows) :])}
        for kind, (own, theirs) in {"": (None, None), **met}.items():
            metrics = retrieval_metrics(similarity, truth, own, there.identity, theirs)
            found |= {f"{name}{kind}": metrics[name] for name in ("map", "top1")}
        return found

    def guess(
        self, queries: Tensor, rows: pd.DataFrame, gallery: np.ndarray, without_own: bool = False
    ) -> pd.DataFrame:
        """The most probable class of each query (N, D), or the identity of the most similar image of the gallery.

        rows: of the queries' table; gallery: positions; without_own: as if the query's own identity were not there.
        """
        species = rows.get("species", "")
        if self.config.decide == "softmax":
            logits = class_logits(self.trainer.loss, queries.to(self.trainer.device))
            others = [name not in self.known for name in self.identities]  # of data.extra, which nobody asks for
            logits = logits.masked_fill(torch.tensor(others, device=logits.device), -torch.inf)
            score, best = logits.detach().softmax(1).max(1)
            named = np.asarray(self.identities, str)[best.cpu().numpy()]
            return guesses_table(rows.filename, species, named, score.cpu().numpy().astype(np.float64))
        there = self.competition.train.iloc[gallery]
        similarity = similarity_matrix(queries, self.database[gallery], self.trainer.embedder.geometry)
        allowed = allowed_answers(rows, there, without_own)
        best, score = nearest_identities(similarity, there.identity, allowed=allowed)
        return guesses_table(rows.filename, species, best[:, 0], score[:, 0])

    def validation(self, embeddings: Tensor) -> tuple[pd.DataFrame, str]:
        """Raw guesses for the validation queries, with their truth, and in words who the unknown among them are."""
        train, task = self.competition.train, self.trainer.task
        rows, gallery = train.iloc[task.validation], self.own(task.train)
        table = self.guess(embeddings, rows, gallery)
        table["truth"] = rows.identity.to_numpy(str)
        table["known"] = rows.identity.isin(set(train.identity.iloc[gallery])).to_numpy()
        if not table.known.all():
            return table, "Unknown individuals are identities that were held out whole."
        if self.config.decide == "softmax":
            return table, "No identity was held out, so that there are no unknown individuals to find."
        absent = self.guess(embeddings, rows, gallery, without_own=True)
        absent = absent.assign(truth=table.truth + LEFT_OUT, known=False)
        return pd.concat([table, absent[absent.identity != ""]], ignore_index=True), (
            "No identity was held out whole: each query stands for an unknown one too, its own identity left out of "
            "the gallery, which flatters a model that was trained on it."
        )

    def calibration(self, table: pd.DataFrame) -> tuple[Callable[[Any], np.ndarray], str]:
        """From raw scores to confidence, and what that is in words; probabilities stay as they are."""
        right = (table.truth == table.identity).to_numpy()
        if self.config.decide == "softmax":
            return as_they_are, "the largest softmax probability"
        if right.all() or not right.any() or self.config.threshold is not None:
            return as_they_are, "the similarity of the most similar image"
        return calibrate_matches(table.score, right), "the calibrated probability that the best match is right"

    def per_species(self, table: pd.DataFrame) -> bool:
        """Whether each species has a threshold of its own; auto: when that is better for identities not seen."""
        if self.config.thresholds != "auto":
            return self.config.thresholds == "per_species"
        one, each = (cross_fitted_score(table, per_species)["score"] for per_species in (False, True))
        return each > one

    def judge(self, embeddings: Tensor, place: Path) -> dict[str, Any]:
        """Fits thresholds on the validation queries, answers the test's, writes both tables and the submission.

        The gallery is the training part in validation, the whole database for the test. embeddings: of the validation
        images (N, D).
        """
        config, competition, task = self.config, self.competition, self.trainer.task
        found: dict[str, Any] = {"decide": config.decide}
        calibrate, thresholds = as_they_are, {"": config.threshold}
        if len(task.validation):
            table, found["unknown"] = self.validation(embeddings)
            calibrate, found["confidence"] = self.calibration(table)
            raw, table["score"] = table.score, confident(calibrate, table.score)
            if config.threshold is None:
                thresholds = fit_thresholds(table, per_species := self.per_species(table))
                found["fitted"] = score_guesses(table, thresholds)
                found["cross_fitted"] = cross_fitted_score(table, per_species)
            else:
                found["given"] = score_guesses(table, thresholds)
            found["similarity" if config.decide == "nearest" else "probability"] = on_raw_scale(table, raw, thresholds)
            found["fixed"] = {str(fixed): score_guesses(table, {"": fixed}) for fixed in SOURCE_THRESHOLDS}
            if config.decide == "nearest":
                rows = competition.train.iloc[task.validation]
                found["retrieval"] = {
                    "validation": self.retrieved(embeddings, rows, rows.identity, self.own(task.train))
                }
            write_table(place / "validation_guesses.csv", table.assign(answer=answers_of(table, thresholds)))
        found["thresholds"] = thresholds
        if competition.open_set and len(competition.test):
            queries = self.trainer.embed(len(competition.train) + np.arange(len(competition.test)))
            everything = self.own(np.sort(np.r_[task.train, task.validation]))
            test = self.guess(queries, competition.test, everything)
            test["score"] = confident(calibrate, test.score)
            found.update(self.answer_test(test, thresholds, place))
            if config.decide == "nearest" and competition.solution is not None:
                told = self.retrieved(queries, competition.test, competition.solution, everything)
                found.setdefault("retrieval", {})["test"] = told
        return found

    def answer_test(self, test: pd.DataFrame, thresholds: Mapping[str, float], place: Path) -> dict[str, Any]:
        """Writes the test's guesses and the submission; their scores where a solution is known."""
        known, solution = self.known, self.competition.solution
        test = test.assign(answer=answers_of(test, thresholds))
        write_table(place / "test_guesses.csv", test)
        write_answers(place / "submission.csv", test.image_id, test.answer, known)
        if solution is None:
            return {}
        test = test.assign(truth=solution.to_numpy(str))
        test["known"] = test.truth.isin(known)
        fixed = {str(fixed): score_guesses(test, {"": fixed}) for fixed in SOURCE_THRESHOLDS}
        return {"test": score_guesses(test, thresholds), "test_fixed": fixed}


def on_raw_scale(validation: pd.DataFrame, raw: pd.Series, thresholds: Mapping[str, float]) -> dict[str, float]:
    """The thresholds as similarities, or probabilities, to give to another run: halfway between what each parts."""
    told = {}
    for species, least in thresholds.items():
        own = (validation.species == species) if species else pd.Series(True, index=validation.index)
        taken, left = raw[own & (validation.score >= least)], raw[own & (validation.score < least)]
        ends = ([float(taken.min())] if len(taken) else []) + ([float(left.max())] if len(left) else [])
        told[species] = float(np.mean(ends)) if ends else math.nan
    return told


def vote(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Guesses of several models in one: each votes for its identity by its confidence; score: the best mean vote.

    Tables have the same queries in the same order; what else the first tells is kept.
    """
    names = [table.identity.fillna("").to_numpy(str) for table in tables]
    scores = [table.score.to_numpy(float) for table in tables]
    votes = np.stack([sum(s * (n == one) for n, s in zip(names, scores)) for one in names]) / len(tables)  # (runs, Q)
    best, rows = votes.argmax(0), np.arange(votes.shape[1])
    return tables[0].assign(identity=np.stack(names)[best, rows], score=votes[best, rows])


def combine_open_set(
    recipe: Recipe, specs: Sequence[RunSpec], competition: Competition, folder: Path
) -> dict[str, Any]:
    """Answers of all runs together to an open set, into ensemble/submission.csv and metrics.json; what they are worth.

    Thresholds are fitted on what the runs together guess about the validation queries, which they must share.
    """
    places, config = [folder / spec.folder for spec in specs], recipe.open_set or OpenSet()
    held_out = [RunFolder(place).guesses() for place in places]
    held_out = [] if any(table is None for table in held_out) else held_out
    if any(
        list(t.image_id) != list(held_out[0].image_id) or list(t.truth) != list(held_out[0].truth) for t in held_out
    ):
        raise KitError(f"{recipe.name}: ensemble: the runs validate on other queries (expected one split_seed for all)")
    told: dict[str, Any] = {"kind": recipe.ensemble.name, "runs": [spec.folder for spec in specs]}
    thresholds = {"": config.threshold}
    if held_out:
        table = vote(held_out)
        scores = {each: cross_fitted_score(table, each) for each in (False, True)}
        each = config.thresholds == "per_species"
        each = scores[True]["score"] > scores[False]["score"] if config.thresholds == "auto" else each
        thresholds = fit_thresholds(table, each) if config.threshold is None else thresholds
        told["cross_fitted"] = scores[each] if config.threshold is None else score_guesses(table, thresholds)
    if len(competition.test):
        test = vote([read_table(place / "test_guesses.csv", ("species", "identity", "score")) for place in places])
        test["answer"] = answers_of(test.assign(score=test.score.astype(float)), thresholds)
        known = set(competition.train.identity[own_rows(competition.train)])
        write_answers(folder / "ensemble" / "submission.csv", test.image_id, test.answer, known)
        if competition.solution is not None:
            truth = competition.solution.to_numpy(str)
            told["test"] = open_set_score(truth, test.answer, known)
    told["thresholds"] = thresholds
    write_json(folder / "ensemble" / "metrics.json", told)
    return told


# its data, and its split

METADATA = ("image_id", "identity", "path", "orientation", "species", "split")  # date and dataset may be there too


def load_metadata(root: Path) -> Competition:
    """AnimalCLEF's layout: metadata.csv lists the database, with identities, and the queries, without."""
    table = root / "metadata.csv"
    rows = read_table(table, METADATA).drop(columns=["filename"], errors="ignore")
    rows = rows.rename(columns={"image_id": "filename"})
    check_unique(rows.filename, table, "image_id")
    labels = rows.columns.intersection(["species", "orientation", "split", "dataset"])
    rows[labels] = rows[labels].map(clean_label)
    strange = sorted(set(rows.split) - {"database", "query"})
    if strange:
        raise KitError(f"{table}: split: {strange[0]!r} is not known (expected database or query)")
    check_images(table, "path", root, rows.path)
    check_unique(rows.path.map(os.path.normpath), table, "path")
    train, test = (rows[rows.split == part].reset_index(drop=True) for part in ("database", "query"))
    told = test.filename[test.identity.map(clean_label) != ""]
    if len(told):
        raise KitError(
            f"{table}: identity: given for {len(told)} queries, such as {told.iloc[0]} (expected empty; what is known "
            "of queries goes into solution.csv, for scoring only)"
        )
    if train.empty:
        raise KitError(f"{table}: split: no row is of the database, which tells the known individuals")
    notes = clean_labels(table, train, "identity")
    if "dataset" in rows and (nameless := rows.species == "").any():
        notes.append(f"{table}: species: empty in {nameless.sum()} rows, where dataset stands for it")
        train, test = (t.assign(species=t.species.where(t.species != "", t.dataset)) for t in (train, test))
    return Competition(root, train, None, test.drop(columns="identity"), open_set=True).noted(*notes)


@register("split", "open_set")
def open_set_split(
    train: pd.DataFrame,
    hashes: Callable[[], np.ndarray],
    split_seed: int,
    validation: Annotated[float, Range(above=0, high=0.9)] = 0.2,
    unknown: Annotated[float, Range(above=0, high=0.5)] = 0.1,
) -> list[Split]:
    """A share of the identities is held out whole, of each species, to validate what nobody knows; else stratified.

    Of identities with one image none is held out; the others' images are split by identity as `stratified` does.
    """
    species = train.species if "species" in train else pd.Series("", index=train.index)
    counts = train.identity.map(train.identity.value_counts())
    rng, held_out = np.random.default_rng(split_seed), []
    for _, names_there in sorted(train.identity[counts > 1].groupby(species[counts > 1])):
        pool = sorted(set(names_there))
        if len(pool) < 3:
            raise KitError(
                f"data.split: open_set needs three identities with two images or more a species, not {len(pool)}"
            )
        held_out += list(rng.permutation(pool)[: max(1, round(unknown * len(pool)))])
    unknown_rows = train.identity.isin(held_out).to_numpy()
    kept = np.flatnonzero(~unknown_rows)
    parts = stratified_split(train.iloc[kept], hashes, split_seed, validation)
    return [(kept[a], np.sort(np.r_[kept[b], np.flatnonzero(unknown_rows)])) for a, b in parts]
