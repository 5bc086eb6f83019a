"""Ensembles: what several runs know of the same images, in one similarity, and what each of them is worth there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from jaguar_kit import (
    FEWEST,
    Competition,
    Component,
    Cosine,
    Experiment,
    KitError,
    NonNegative,
    PathText,
    Recipe,
    Retrieval,
    RunFolder,
    RunSpec,
    average_precision,
    by_kind,
    check_steps,
    closed_set_posterior,
    find_mounted,
    first_few,
    fit_calibration,
    fuse,
    gain_interval,
    lookup,
    mean_by_identity,
    mean_or_nan,
    nearest_is_right,
    on_kaggle,
    rank_average,
    recipe_from_dict,
    register,
    room,
    run_steps,
    shared_encounters,
    similarity_matrix,
    standardised_sum,
    submit,
    without_fitting,
    write_json,
    write_table,
)

Steps = tuple[Annotated[Component, "postprocess"], ...]
Members = tuple[PathText, ...]
Fusion = Callable[[Sequence["Evidence"]], np.ndarray]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a run knows of N images: (N, N) how alike they are, and whom its classes name.

    Of these mean and rank fuse the similarity, calibrated too (by labels), posterior the shares, and evidence the
    likeness, with spots and shares of the runs that have them.
    """

    images: np.ndarray  # (N,) file names
    similarity: np.ndarray  # after post-processing
    likeness: np.ndarray  # before any evidence was joined to it
    spots: np.ndarray | None = None  # what the step `local` matched of them, "strength" in the file
    shares: np.ndarray | None = None  # (N, C) probability of each class
    identities: tuple[str, ...] = ()  # of the C classes
    form: str = "hellinger"  # by which two images' probabilities are compared
    labels: np.ndarray | None = None  # (N,) of validation images

    def ordered(self, images: np.ndarray) -> Evidence:
        """The same with its images in this order."""
        if np.array_equal(self.images, images):
            return self
        rows = pd.Index(self.images).get_indexer(images)
        square = {key: getattr(self, key) for key in ("similarity", "likeness", "spots")}
        told = {key: None if one is None else one[np.ix_(rows, rows)] for key, one in square.items()}
        shares = None if self.shares is None else self.shares[rows]
        return replace(self, images=images, shares=shares, **told)


@dataclass(frozen=True, eq=False)
class Member:
    """A trained run of an ensemble, or one fold of it."""

    name: str
    folder: RunFolder
    recipe: Recipe

    def evidence(self, part: Literal["validation", "test"]) -> Evidence:
        """What it kept of its validation or its test images."""
        kept = self.folder.arrays(f"{part}.npz", "embeddings", "images")
        geometry = self.recipe.model.geometry.build()
        alike = similarity_matrix(kept["embeddings"], geometry=geometry) if "likeness" not in kept else kept["likeness"]
        return Evidence(
            kept["images"],
            kept.get("similarity", alike),
            alike,
            kept.get("strength"),
            kept.get("shares"),
            tuple(kept.get("identities", ())),
            str(kept.get("form", ["hellinger"])[0]),
            kept.get("labels"),
        )


# how the members' evidence becomes one similarity: each part is fitted on validation, and gives a function


@register("ensemble", "none")
def no_ensemble(held_out: Sequence[Evidence]) -> Fusion | None:
    """Every run submits for itself."""
    return None


@register("ensemble", "mean")
def mean_of_similarities(held_out: Sequence[Evidence], members: Members = (), steps: Steps = ()) -> Fusion:
    """Mean of the similarities after post-processing. `members`: folders of finished runs, too; `steps` come behind."""
    return lambda told: np.mean([one.similarity for one in told], 0)


@register("ensemble", "rank")
def mean_of_ranks(held_out: Sequence[Evidence], members: Members = (), steps: Steps = ()) -> Fusion:
    """Mean of the ranks of the similarities."""
    return lambda told: rank_average(*(one.similarity for one in told))


@register("ensemble", "calibrated")
def mean_of_calibrated_ones(held_out: Sequence[Evidence], members: Members = (), steps: Steps = ()) -> Fusion:
    """Mean of the similarities as probabilities, calibrated by isotonic regression on each run's validation pairs."""
    calibrators = []
    for one in held_out:
        pairs = ~np.eye(len(one.labels), dtype=bool)
        same = one.labels[:, None] == one.labels
        calibrators.append(fit_calibration(one.similarity[pairs], same[pairs]))
    return lambda told: fuse([one.similarity for one in told], calibrators)


@register("ensemble", "posterior")
def mean_of_posteriors(held_out: Sequence[Evidence], members: Members = (), steps: Steps = ()) -> Fusion:
    """The posterior of the mean of the classes' probabilities."""
    return lambda told: mean_posterior(told, np.ones(len(told)))


@register("ensemble", "evidence")
def evidence_apart(
    held_out: Sequence[Evidence],
    members: Members = (),
    steps: Steps = (),
    weights: tuple[NonNegative, ...] = (),
    fitted: bool = False,
    by: Literal["pairs", "query"] = "pairs",
) -> Fusion:
    """Likeness, names and spots, each averaged over the runs, then added, each standardised `by` all pairs, or by each
    query's. weights: one for each run, all alike where none are given; `fitted`: on validation, and taken only where
    cross-fitting over identities shows them to be better."""
    return partial(fused_evidence, weights=weights or np.ones(len(held_out)), by=by)


def shares_by_name(told: Sequence[Evidence]) -> tuple[list[str], np.ndarray]:
    """All identities that the runs know, sorted, and each run's probabilities of them (M, N, C), 0 of those unknown."""
    known = sorted({name for one in told for name in one.identities})
    shares = np.zeros((len(told), len(told[0].images), len(known)))
    for own, one in zip(shares, told):
        own[:, np.searchsorted(known, one.identities)] = one.shares
    return known, shares


def mean_posterior(told: Sequence[Evidence], weights: Sequence[float]) -> np.ndarray:
    """How probably two images show one identity (N, N), by the weighted mean of the runs' probabilities."""
    known, shares = shares_by_name(told)
    knows = np.array([np.isin(known, one.identities) for one in told], float)
    mean = np.tensordot(weights, shares, 1) / np.maximum(np.asarray(weights) @ knows, 1e-12)
    mean = torch.from_numpy(mean / mean.sum(1, keepdims=True)).clamp(min=1e-30).log()
    return closed_set_posterior(mean, told[0].form).float().numpy()


def fused_evidence(told: Sequence[Evidence], weights: Sequence[float], by: str = "pairs") -> np.ndarray:
    """Likeness, log posterior and spots (N, N), each a weighted mean over the runs that have it, standardised and added
    as `fuse` does."""
    used = [(one, weight) for one, weight in zip(told, weights) if weight]
    named = [(one, weight) for one, weight in used if one.shares is not None]
    found = []
    for kind in ("likeness", "spots"):
        there = [(getattr(one, kind), weight) for one, weight in used if getattr(one, kind) is not None]
        if there:
            matrices = [torch.from_numpy(matrix).float() for matrix, _ in there]
            found.append(standardised_sum(matrices, [weight for _, weight in there], by))
    if named:
        posterior = mean_posterior([one for one, _ in named], [weight for _, weight in named])
        found.append(torch.from_numpy(posterior).clamp(min=1e-12).log())
    return standardised_sum(found, [1.0] * len(found), by).numpy()


# who takes part


def check_ensemble(recipe: Recipe, specs: Sequence[RunSpec]) -> None:
    """Refuses an ensemble of runs of other images, of something that no run leaves, or with nothing to calibrate by."""
    part = recipe.ensemble
    where, told = f"{recipe.name}: ensemble: {part.name!r}", part.settings
    by_run = ("size", "fit", "split", "split_seed", "split_by_seed", "turn", "masks", "unmasked", "encounter")
    data = [{k: v for k, v in asdict(spec.recipe.data).items() if k not in by_run} for spec in specs]
    if any(other != data[0] for other in data) or recipe.search:
        raise KitError(
            f"{where} needs runs on the same images, without a search (expected ensemble: none, or equal data settings)"
        )
    splits = {spec.recipe.data.split.name for spec in specs}
    if part.name != "evidence" and "kfold" in splits:
        raise KitError(f"{where} needs runs without folds (expected evidence, or another data.split)")
    if part.name == "calibrated" and "all" in splits:
        raise KitError(f"{where} needs validation images (expected mean or rank)")
    check_behind(told.get("steps", ()), f"{where}: steps")
    if weights := told.get("weights", ()):
        if told.get("fitted") or not any(weights):
            raise KitError(f"{where}: weights: {list(weights)} (expected some above 0, or fitted: true without any)")
        if not told.get("members") and len(weights) != len(specs):
            raise KitError(f"{where}: weights: {len(weights)} for {len(specs)} runs (expected one for each)")
    for member in told.get("members", ()):
        members_in(member)


def check_behind(steps: Sequence[Component], where: str) -> None:
    """Refuses steps behind an ensemble that ask for more than similarities and encounters."""
    for step in steps:
        asks = getattr(lookup("postprocess", step.name), "reads", "similarity")
        if asks != "similarity" or step.settings.get("training") or step.name in ("auto", "blend"):
            raise KitError(f"{where}: {step.name} asks for more than similarities (expected k_reciprocal, encounters)")
    check_steps(steps, where)


def members_in(place: str, setting: str = "ensemble.members") -> list[Member]:
    """The finished runs in a folder: of a run, its folds, or an experiment; on Kaggle also below all that is mounted.

    Of a run that several mounts hold, as outputs of sessions that went on from each other do, the first counts.
    """
    path, runs = Path(place), {}
    homes = [path] if path.exists() or path.is_absolute() else mounted_homes(path)
    for home in homes:
        for file in sorted(home.rglob("metrics.json")):
            if (file.parent / "recipe.yaml").is_file() and ".old" not in file.parent.name:
                runs.setdefault(file.parent.relative_to(home), file.parent)
    if not runs:
        attached = "; on Kaggle attach the output of the kernel that made it" if on_kaggle() else ""
        raise KitError(
            f"{setting}: {place}: holds no finished run (expected the folder of a run or an experiment, with "
            f"metrics.json and recipe.yaml of one{attached})"
        )
    return [member for _, run in sorted(runs.items()) for member in members_of(str(run), RunFolder(run))]


def mounted_homes(path: Path) -> list[Path]:
    """The folders of this relative path below what is mounted, wherever there is a finished run in it."""
    folders = {up for file in find_mounted("metrics.json", depth=12) for up in file.parents}
    homes = {up for up in folders if up.parts[-len(path.parts) :] == path.parts}
    return sorted(homes, key=lambda up: (len(up.parts), up))


def members_of(name: str, run: RunFolder, recipe: Recipe | None = None) -> list[Member]:
    """A run as a member, or each of its folds."""
    if recipe is None:
        told = {key: value for key, value in run.settings().items() if key not in ("data_fingerprint", "weights")}
        recipe = recipe_from_dict(told, str(run.path))
    folds = sorted(run.path.glob("fold*"))
    places = [RunFolder(fold) for fold in folds if RunFolder(fold).finished] if folds else [run]
    return [Member(name if len(places) == 1 else f"{name}/{there.path.name}", there, recipe) for there in places]


def members_among(experiment: Experiment, specs: Sequence[RunSpec]) -> list[Member]:
    """These runs of an experiment as members."""
    return [m for spec in specs for m in members_of(spec.folder, experiment.run_folder(spec), spec.recipe)]


# what it is worth


def gained(new: np.ndarray, old: np.ndarray, codes: np.ndarray, tries: int = 1) -> list[float]:
    """What mAP gains from the average precision of queries (N,), old to new, and its interval over identities."""
    gains = new - old
    return [mean_or_nan(mean_by_identity(gains, codes)), *gain_interval(gains, codes, tries)]


def behind(similarity: np.ndarray, met: np.ndarray | None, steps: Sequence[Component]) -> np.ndarray:
    """The similarities after the steps that come behind the ensemble."""
    matrix = torch.from_numpy(np.asarray(similarity, np.float32))
    state = Retrieval(torch.zeros(len(matrix), 1), matrix, Cosine(), similarity=matrix, encounters=met)
    return run_steps(without_fitting(steps), state).matrix().numpy()


@dataclass(frozen=True, eq=False)
class Judged:
    """Images whose names are known, and how the ensembles of some members are scored on them."""

    part: Component
    held_out: Sequence[Evidence]  # of validation images, by which a fusion is fitted
    told: Sequence[Evidence]  # of the images that are judged
    labels: np.ndarray
    met: np.ndarray | None

    def fused(self, *numbers: int) -> np.ndarray:
        """Similarities by the members of these numbers, who all weigh the same."""
        settings = {key: value for key, value in self.part.settings.items() if key != "weights"}
        fusion = replace(self.part, settings=settings).build(held_out=[self.held_out[n] for n in numbers])
        return fusion([self.told[n] for n in numbers])

    def ranked(self, similarity: np.ndarray) -> np.ndarray:
        """The similarities after the steps behind the ensemble."""
        return behind(similarity, self.met, self.part.settings.get("steps", ()))

    def precision(self, ranked: np.ndarray) -> dict[str, np.ndarray]:
        return by_kind(average_precision, ranked, self.labels, self.met)

    def worth(self, together: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """What the ensemble scores, each member alone and the others without it, and which errors they share.

        together: the similarities (N, N) of the ensemble, `ranked`.
        `overlap`: of the queries whose nearest image is wrong by one of two members, the share that is wrong by both;
        `best_choice`: the mAP if for each query the member were taken that answers it best, which no method can know.
        """
        codes, every = np.unique(self.labels, return_inverse=True)[1].reshape(-1), range(len(self.told))
        whole, own = self.precision(together), [self.fused(number) for number in every]
        alone = [self.precision(self.ranked(one)) for one in own]
        others = [self.fused(*(n for n in every if n != left)) for left in every if len(every) > 1]
        without = [self.precision(self.ranked(one)) for one in others]
        scored: dict[str, Any] = {f"map{kind}": mean_or_nan(mean_by_identity(v, codes)) for kind, v in whole.items()}
        for kind, values in whole.items():
            rows = []
            for number, name in enumerate(names):
                row = {"member": name, "map": mean_or_nan(mean_by_identity(alone[number][kind], codes))}
                row["gain_of_all"] = gained(values, alone[number][kind], codes, len(names))
                if without:
                    row["without_map"] = mean_or_nan(mean_by_identity(without[number][kind], codes))
                    row["gain_by_it"] = gained(values, without[number][kind], codes, len(names))
                rows.append(row)
            best = np.fmax.reduce([one[kind] for one in alone])
            scored |= {f"members{kind}": rows, f"best_choice{kind}": mean_or_nan(mean_by_identity(best, codes))}
        wrong = [nearest_is_right(one, self.labels) == 0 for one in own]
        scored["overlap"] = [[float((a & b).sum() / max((a | b).sum(), 1)) for b in wrong] for a in wrong]
        return scored


FACTORS = (0.0, 0.5, 1.0, 2.0)  # that a fitted weight may have


def fitted_weights(
    told: Sequence[Evidence], labels: np.ndarray, met: np.ndarray | None, rows: np.ndarray, by: str
) -> np.ndarray:
    """Weights (M,) by which the queries of `rows` score best, one after the other, beginning with all alike."""
    codes, kind = np.unique(labels, return_inverse=True)[1].reshape(-1), "" if met is None else "_across"

    def score(weights: np.ndarray) -> float:
        if not weights.any():
            return -math.inf
        values = by_kind(average_precision, fused_evidence(told, weights, by), labels, met)[kind]
        return mean_or_nan(mean_by_identity(np.where(rows, values, math.nan), codes))

    best, weights = score(np.ones(len(told))), np.ones(len(told))
    for _ in range(2):
        for number in range(len(told)):
            for factor in FACTORS:
                tried = weights.copy()
                tried[number] = factor
                if (value := score(tried)) > best + 1e-9:
                    best, weights = value, tried
    return weights


def choose_weights(
    told: Sequence[Evidence], labels: np.ndarray, met: np.ndarray | None, by: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Fitted weights where they beat equal ones on identities that they were not fitted on, else equal ones."""
    codes, equal = np.unique(labels, return_inverse=True)[1].reshape(-1), np.ones(len(told))
    kind = "" if met is None else "_across"
    plain = by_kind(average_precision, fused_evidence(told, equal, by), labels, met)[kind]
    if len(np.unique(codes[~np.isnan(plain)])) < FEWEST:
        return equal, {"weights": equal.tolist(), "why": f"below {FEWEST} identities nothing is fitted"}
    half = np.isin(codes, np.random.default_rng(0).permutation(codes.max() + 1)[::2])
    crossed = plain.copy()
    for rows in (half, ~half):
        weights = fitted_weights(told, labels, met, ~rows, by)
        crossed[rows] = by_kind(average_precision, fused_evidence(told, weights, by), labels, met)[kind][rows]
    gain = gained(crossed, plain, codes)
    found = fitted_weights(told, labels, met, np.ones(len(labels), bool), by)
    taken = found if gain[1] > 0 else equal
    why = "cross-fitted they gain" if gain[1] > 0 else "cross-fitted ones can't be told from equal ones"
    return taken, {"weights": taken.tolist(), "fitted": found.tolist(), "why": why, "gain": gain}


# from the runs to the submission


def combine(experiment: Experiment) -> dict[str, Any]:
    """Fuses all runs, and the members that the recipe names, into ensemble/submission.csv and ensemble/metrics.json."""
    recipe, specs, part = experiment.recipe, experiment.finished, experiment.recipe.ensemble
    competition = next(iter(experiment.opened.values())).competition
    if competition.open_set:
        return room("experiments.open_set").combine_open_set(recipe, specs, competition, experiment.folder)
    members = members_among(experiment, specs)
    members += [member for place in part.settings.get("members", ()) for member in members_in(place)]
    if not members:
        raise KitError(f"{recipe.name}: ensemble: there are no members (expected runs, or ensemble.members)")
    weights = part.settings.get("weights", ())
    if weights and len(weights) != len(members):
        names = first_few([member.name for member in members])
        raise KitError(f"{recipe.name}: ensemble.weights: {len(weights)} for {len(members)} members ({names})")
    return fuse_members(recipe, members, competition, experiment.folder / "ensemble")


def fuse_members(recipe: Recipe, members: Sequence[Member], competition: Competition, place: Path) -> dict[str, Any]:
    part, names = recipe.ensemble, [member.name for member in members]
    held_out = [member.evidence("validation") for member in members]
    told: dict[str, Any] = {"kind": part.name, "runs": names}
    fusion = part.build(held_out=held_out)
    known = competition.train.set_index("filename")
    shared = len(held_out[0].images) > 0 and all(set(one.images) == set(held_out[0].images) for one in held_out)
    if shared and set(held_out[0].images) <= set(known.index):
        evidence = [one.ordered(held_out[0].images) for one in held_out]
        labels, met = held_out[0].labels, shared_encounters(known.loc[held_out[0].images])
        if part.settings.get("fitted"):
            weights, chosen = choose_weights(evidence, labels, met, part.settings.get("by", "pairs"))
            fusion, told["chosen"] = partial(fusion.func, **{**fusion.keywords, "weights": weights}), chosen
        judged = Judged(part, held_out, evidence, labels, met)
        told |= judged.worth(judged.ranked(fusion(evidence)), names)
    elif part.settings.get("fitted"):
        told["chosen"] = {"why": "the members validate on different images, so that nothing is fitted"}
    if competition.pairs is not None:
        tests = [evidence_of_test(member, competition) for member in members]
        met, steps = shared_encounters(competition.test), part.settings.get("steps", ())
        similarity = behind(fusion(tests), met, steps)
        told |= submit(competition, similarity, None, place)
        if competition.solution is not None:
            judged = Judged(part, held_out, tests, competition.solution.to_numpy(str), met)
            told |= {f"test_{key}": value for key, value in judged.worth(similarity, names).items()}
    write_table(place / "members.csv", pd.DataFrame(told.get("members", told.get("test_members", []))))
    write_json(place / "metrics.json", told)
    return told


def evidence_of_test(member: Member, competition: Competition) -> Evidence:
    """What a member knows of the test images, in their order; KitError where it knows others."""
    found, images = member.evidence("test"), competition.test.filename.to_numpy(str)
    if set(found.images) != set(images):
        raise KitError(f"ensemble: {member.folder.path}: its test images are others than those of {competition.root}")
    return found.ordered(images)
