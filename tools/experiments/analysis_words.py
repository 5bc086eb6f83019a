"""What an analysis answers, what varies in it, what else may explain it, how far it reaches, and what comes next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaguar_kit import Recipe, mean_interval

from .page import Page

ANSWER, VARIED, CONFOUNDERS, LIMITS, NEXT = "Answer", "What varied", "Confounders", "Limits", "What next"


def report_answers(page: Page, analyses: Sequence[Page]) -> None:
    """The top of a page without runs: what its analyses answer."""
    if answers := points_of(analyses, ANSWER):
        page.heading(ANSWER)
        page.bullets(answers)


def report_varied(page: Page, analyses: Sequence[Page]) -> None:
    if varied := points_of(analyses, VARIED):
        page.heading(VARIED, 3)
        page.bullets(varied)


def report_reach(page: Page, recipe: Recipe, analyses: Sequence[Page], synthetic: bool) -> None:
    """The end of a page without runs: what may stand behind its numbers, how far they reach, and what comes next."""
    if not points_of(analyses, LIMITS):
        return
    page.heading("Confounders and limits")
    page.heading(CONFOUNDERS, 3)
    page.bullets(points_of(analyses, CONFOUNDERS))
    page.heading(LIMITS, 3)
    drawn = ["The images are drawn: nothing here is of real animals."] if synthetic else []
    one = f"{recipe.model.backbone}, frozen, on images of {recipe.data.size} px"
    page.bullets([*drawn, *points_of(analyses, LIMITS), f"Embeddings are those of {one}; others may say otherwise."])
    page.heading(NEXT, 3)
    page.bullets(points_of(analyses, NEXT) or ["These numbers ask for no further analysis of this kind."])


def points_of(analyses: Iterable[Page], kind: str) -> list[str]:
    return list(dict.fromkeys(point for part in analyses for point in part.points.get(kind, [])))


def background_words(recipe: Recipe) -> str:
    """What is in the pictures beside the animal."""
    behind = recipe.background.name
    seen = "with their background" if behind == "original" else f"with the background {behind}"
    return f"Images are compared {seen}; those of one encounter share its light and place, and are alike by these, too."


# counts and quality


def points_of_counts(counts: pd.Series, shares: pd.Series, masked: bool) -> dict[str, list[str]]:
    """counts: images by identity; shares: of each that validates."""
    few, single = counts[counts < 5], int((counts == 1).sum())
    answers = [
        f"{counts.sum()} images of {len(counts)} identities, {counts.min()} to {counts.max()} each (median "
        f"{counts.median():g}); {len(few)} identities have fewer than 5, {few.sum() / counts.sum():.0%} of all."
    ]
    signals = "the animal's own pixels" if masked else "whole images, since there are no masks: background included"
    limits = [f"Quality is measured on {signals}.", "Counts are of these files, not of a population."]
    steps = [f"{single} identities have one image, which can't train and validate."] if single else []
    if shares.max() - shares.min() > 0.3:
        steps.append("What validates is unequal by identity; data.split: stratified evens it out.")
    return {
        ANSWER: answers,
        VARIED: ["Nothing varies: the data are described."],
        CONFOUNDERS: ["Images of one encounter count one by one, though they tell of one meeting."],
        LIMITS: limits,
        NEXT: steps,
    }


# pairs


def pairs_words(area: float) -> str:
    """How far pairs of one identity stand apart from the others, by the AUC of pairs; "" where nothing tells it."""
    if math.isnan(area):
        return ""
    return f"A pair of one identity is more alike than one of two identities {area:.0%} of the time (AUC of pairs). "


# near-duplicates


def separation(models: Mapping[str, np.ndarray], identities: np.ndarray) -> pd.DataFrame:
    """How well the cosine ranks pairs of one identity above others, for each model: AUC of all pairs, and of each
    identity's images against all others, with the interval of its mean over identities."""
    from sklearn.metrics import roc_auc_score

    upper = np.triu_indices(len(identities), 1)
    same, rows = identities[:, None] == identities, []
    for model, similarity in models.items():
        own = []
        for name in np.unique(identities):
            mine = np.flatnonzero(identities == name)
            apart = np.ones((len(mine), len(identities)), bool)
            apart[np.arange(len(mine)), mine] = False
            truth = same[mine][apart]
            own.append(roc_auc_score(truth, similarity[mine][apart]) if truth.any() and not truth.all() else np.nan)
        low, high = mean_interval(own)
        whole = roc_auc_score(same[upper], similarity[upper]) if len(set(same[upper])) == 2 else np.nan
        rows.append({"model": model, "auc": whole, "of_an_identity": np.nanmean(own), "low": low, "high": high})
    return pd.DataFrame(rows)


def points_of_duplicates(
    recipe: Recipe, table: pd.DataFrame, apart: pd.DataFrame, decisions: pd.DataFrame, total: int
) -> dict[str, list[str]]:
    """table: a row for each method; apart: of `separation`; decisions: of the first model, by threshold."""
    answers = [
        f"The cosine of {row.model} ranks pairs of one identity above others with AUC {row.auc:.3f}; for an identity's "
        f"images {row.of_an_identity:.3f} [{row.low:.3f}, {row.high:.3f}] on average."
        for row in apart.itertuples()
    ]
    answers += [above_words(row) for row in decisions.to_dict("records") if row["pairs above"]]
    within = table[table.scope == "within"]
    fewest = within.loc[within.kept.idxmin()]
    answers.append(f"Without near-duplicates {fewest.kept} to {within.kept.max()} of {total} images stay, by method.")
    crossing = int(within["across the split"].max())
    other = table[table.scope == "across"]["across identities"].sum()
    steps = [f"{crossing} pairs lie across the split, which flatters validation: data.split: burst_safe."] * (
        crossing > 0
    )
    if other:
        steps.append(f"Look at {other} pairs that bear two names (the sheets above): a label may be wrong.")
    steps.append(
        "Train with all images, and without near-duplicates (data.subset: analysis/kept-embedding.csv of this folder)."
    )
    methods = ", ".join(dict.fromkeys(within.method))
    return {
        ANSWER: answers,
        VARIED: [f"The method, and the threshold where it has one: {methods}."],
        CONFOUNDERS: [background_words(recipe)],
        LIMITS: [
            "Pairs share images, so that intervals are over identities; what counts as a duplicate is a threshold."
        ],
        NEXT: steps,
    }


def above_words(row: Mapping[str, float]) -> str:
    """What lies above a threshold on the cosine."""
    found = row["same identity"] / max(row["same identity"] + row["missed"], 1)
    return (
        f"Above a cosine of {row['threshold']:g} lie {row['pairs above']:,} pairs, {1 - row['fdr']:.0%} of them of one "
        f"identity, which are {found:.1%} of all such pairs."
    )


# curation


def points_of_curation(recipe: Recipe, stages: pd.DataFrame, kept: np.ndarray, lost: int) -> dict[str, list[str]]:
    """stages: a row for each, with how many images it takes; kept: bool (N,); lost: identities without an image."""
    taken = {str(row["stage"]): int(row["removed"]) for row in stages.to_dict("records")}
    most = max(taken, key=lambda stage: taken[stage])
    share = f"{kept.sum()} of {len(kept)} images stay ({kept.mean():.0%})"
    return {
        ANSWER: [f"{share}; most go by {most} ({taken[most]}); {lost} identities lose all of theirs."],
        VARIED: [f"The stages, one after the other: {', '.join(taken)}."],
        CONFOUNDERS: [
            background_words(recipe),
            "Fewer images train: a loss may be of their number, not of the choice.",
        ],
        LIMITS: ["Nothing is trained here: whether what stays teaches more is not told."],
        NEXT: [
            "Train on what stays (data.subset: analysis/curated.csv of this folder), and on as many drawn at random."
        ],
    }
