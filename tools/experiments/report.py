"""The report of an experiment: what ran, on what, what came of it, and runs to look at."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from jaguar_kit import (
    FEWEST,
    METRICS,
    SAID_BEFORE,
    Component,
    Experiment,
    Images,
    ImageStore,
    Recipe,
    RunFolder,
    RunSpec,
    average_precision,
    best_epoch,
    data_key,
    mean_interval,
    median_runs,
    recipe_to_dict,
    settings_of,
    shared_encounters,
    similarity_matrix,
    without_passwords,
)
from PIL import Image

from . import looking
from .analysis_words import pairs_words, report_answers, report_reach, report_varied
from .answer import (
    control_first,
    control_of,
    idle_schedules,
    report_answer,
    shown_runs,
    submitted_words,
)
from .curves import report_curves
from .diagnostics import Matches, report_diagnostics, tag
from .facts import again_words, alike_once, data_words, facts_of, is_drawn, kept_views, published_on
from .figures import (
    PAPER,
    bars_figure,
    contact_sheet,
    grid_heat,
    heat_figure,
    map_figure,
    marginal_figure,
    rarity_figure,
    scatter_figure,
    similarity_figure,
    spots_figure,
    threshold_figure,
    variants_figure,
)
from .findings import compare_variants, findings, first_of, images_of, next_words, same_words, summarise, with_failed
from .leaderboard import report_leaderboard
from .limits import report_limits
from .looks import Look
from .page import ANSWERING, COLUMNS, Page
from .search_page import report_search

# the report of an experiment


TOLD_ABOVE = (*SAID_BEFORE, "interpretation", "published", "leaderboard", "conclusion", "readings")  # not once more


def write_report(
    folder: Path,
    recipe: Recipe,
    table: pd.DataFrame,
    logs: Mapping[str, pd.DataFrame],
    details: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
    analyses: Sequence[Page] = (),
    extra: Page | None = None,
    comparable: bool = False,
    by_identity: pd.DataFrame | None = None,
    facts: Mapping[str, str] | None = None,
    refresh: bool = False,
    failed: Iterable[str] = (),
    by_identity_across: pd.DataFrame | None = None,
    submitted: str = "",
    again: str = "",
    diagnostics: Page | None = None,
    synthetic: bool = False,
) -> Path:
    """Writes report.md, figures and the self-contained report.html; returns the page's path.

    table: a row for each finished run; logs: their logs by "variant/seed"; details: for each run to be shown name,
    labels, embeddings, similarity, metrics and sheet (an image); notes: what the reader must know; analyses and
    extra: further parts of the page, before and after the results; comparable: whether published figures were
    measured on these data; by_identity as in `report_results`, by_identity_across the same across encounters; facts:
    what was run on what, by headings; refresh: an open page looks again every half minute; failed: runs that failed,
    as "variant/seed"; submitted: the scores of what is submitted; again: a command that makes the experiment again;
    diagnostics: what the models go by; synthetic: whether the images are drawn.
    """
    page, alone = Page(recipe.name), () if len(table) else analyses  # which tell where no run does
    asked = ("question", "hypothesis")
    page.words((word.capitalize(), getattr(recipe, word)) for word in asked)
    if len(table):
        control = control_of(list(table.variant.unique()))
        table = control_first(table, control)
        by_identity, by_identity_across = (
            None if one is None else one[sorted(one, key=lambda name: name != control)]
            for one in (by_identity, by_identity_across)
        )
        report_answer(page, recipe, table, logs, {"map": by_identity, "map_across": by_identity_across}, submitted)
    report_answers(page, alone)
    told = {word.capitalize(): getattr(recipe, word) for word in SAID_BEFORE if word not in asked} | dict(facts or {})
    if notes or any(text.strip() for text in told.values()):
        page.heading("What was run")
    page.words(told.items())
    for note in notes:
        page.note(f"Note: {note}")
    report_varied(page, alone)
    for part in analyses:
        page.add(part)
    report_reach(page, recipe, alone, synthetic)
    if len(table):
        report_results(page, recipe, table, logs, comparable, by_identity, list(failed), synthetic)
    elif recipe.published:
        report_published(page, recipe.published, comparable)
    if extra:
        page.add(extra)
    if diagnostics:
        page.add(diagnostics)
    report_readings(page, recipe)
    if leaderboard := report_leaderboard(recipe):
        page.add(leaderboard)
    if recipe.conclusion.strip():
        page.heading("What the source reports")
        page.text(recipe.conclusion)
        page.note("The source's own result on its own images, in other words; not a finding of these runs.")
    if recipe.interpretation.strip() or (folder / "interpretation.md").is_file():
        report_interpretation(page, recipe, folder)
    for number, detail in enumerate(details):
        report_detail(page, detail, number)
    if again:
        page.heading("The same again")
        page.code(again)
    page.heading("Settings")
    settings = {key: value for key, value in recipe_to_dict(recipe).items() if key not in TOLD_ABOVE}
    with page.folded("All settings, spelled out"):
        page.code(yaml.safe_dump(without_passwords(settings), sort_keys=False, allow_unicode=True))
    return page.write(folder, refresh)


def report_interpretation(page: Page, recipe: Recipe, folder: Path) -> None:
    """A person's words, from the recipe or from interpretation.md in the run's folder, which nothing overwrites."""
    page.heading("Interpretation")
    own = folder / "interpretation.md"
    words = own.read_bytes() if own.is_file() else recipe.interpretation.encode()
    try:
        page.prose(words.decode("utf-8-sig"))
    except UnicodeDecodeError:
        page.note(f"Note: {own.name} is not UTF-8 and is read as Latin-1; save it as UTF-8 if letters look wrong.")
        page.prose(words.decode("latin-1"))


def report_results(
    page: Page,
    recipe: Recipe,
    table: pd.DataFrame,
    logs: Mapping[str, pd.DataFrame],
    comparable: bool = False,
    by_identity: pd.DataFrame | None = None,
    failed: Sequence[str] = (),
    synthetic: bool = False,
) -> None:
    """Findings, tables and curves of all runs; by_identity: mean AP of each identity (rows) by variant (columns)."""
    summary = over_animals(summarise(table, logs, recipe, comparable, failed), by_identity)
    shown = with_failed(summary, failed, recipe.divergence)
    several = len(summary) > 1 and summary["map"].notna().any()
    compared = compare_variants(table, logs=logs) if several else pd.DataFrame()
    page.heading("Findings")
    trials = recipe.search.trials if recipe.search else 1
    page.bullets([*findings(summary, compared, table, by_identity, trials), *same_words(table, logs)])
    page.heading("What next", 3)
    page.bullets(next_words(summary, compared, table) or ["These numbers ask for no further run of this kind."])
    report_limits(page, recipe, table, logs, by_identity, synthetic)
    page.heading("Results")
    meanings = [f"{name}: {COLUMNS[name].meaning}" for name in shown if name in COLUMNS and COLUMNS[name].meaning]
    if (rule := recipe.divergence) is not None:
        line = f" and runs whose best mAP up to epoch {rule.epoch} is below {rule.map:g}" if rule.by == "map" else ""
        meanings.append(f"diverged: runs that failed since a loss was no number{line}")
    first = [name for name in ANSWERING if name in shown]
    page.table(shown[first], f"Means over seeds; what columns mean stands with the others. {interval_words(shown)}")
    page.fold("All columns", shown.drop(columns=first[1:]), f"Means over seeds. {'; '.join(meanings)}.")
    if (several or len(table) > 1) and summary["map"].notna().any():
        caption = (
            f"{spread_words(summary)} Mean validation mAP, with its 95 % interval where there are several seeds, on a "
            "scale that does not begin at 0; dots are single runs, upright strokes the plain backbone, without head "
            "and training."
        )
        page.figure("map", variants_figure(summary, table), caption)
    if several:
        page.heading("Differences, paired by seed", 3)
        page.table(compared.dropna(axis=1, how="all"), difference_words(compared, table.variant.iloc[0]))
        if "map_across" in summary:
            across = compare_variants(table.dropna(subset=["map_across"]), "map_across", logs)
            page.table(across.dropna(axis=1, how="all"), "The same of the mAP across encounters.")
    heat = grid_heat(recipe, summary)
    if heat is not None:
        page.figure("heat", heat_figure(heat, "validation mAP"), "Mean validation mAP by the grid's two settings.")
    if (marginal := marginal_figure(recipe, logs)) is not None:
        caption = "Mean over all other settings and seeds for each value of a grid's setting, with its standard error."
        page.figure("marginal", marginal, caption)
    wide = {c for c in ("trainable", "parameters") if c in summary and summary[c].max() > 1.5 * summary[c].min()}
    if "trainable" in wide:
        label = "trainable parameters"
        page.figure("parameters", scatter_figure(summary, "trainable", label), "Parameters that learn against mAP.")
    if "parameters" in wide:
        page.figure("size", scatter_figure(summary, "parameters", "parameters"), "All parameters against mAP.")
    if len(summary) > 2 and summary.seconds.max() > 30:
        page.figure("time", scatter_figure(summary, "seconds", "seconds of training"), "Time of training against mAP.")
    if len(stages := stages_table(logs)):
        page.table(
            stages,
            "By stage of training: its epochs and time, the mAP at its end and the best in it; means over seeds.",
        )
    if len(kept := selection_table(logs, recipe.train.select)) > 1:
        page.heading("What another choice of the epoch would have kept", 3)
        page.table(kept, "Means over runs: the epoch that is best in each metric, and the mAP there.")
    if by_identity is not None and by_identity.shape[1] > 1 and summary["map"].notna().any():
        report_identities(page, by_identity, str(summary.variant[summary["map"].idxmax()]))
    beside = set(table.variant) if comparable else set()
    others = {key: value for key, value in recipe.published.items() if key not in beside}
    if others:
        report_published(page, others, comparable)
    report_curves(page, table, logs)
    page.heading("Runs", 3)
    shown = [name for name, column in COLUMNS.items() if column.of_runs and name in table]
    page.table(table[shown].assign(seed=table.seed.astype(str)), "results.csv has more columns.")


def over_animals(summary: pd.DataFrame, by_identity: pd.DataFrame | None) -> pd.DataFrame:
    """The summary with the 95 % interval over identities of each variant's mAP, where there are enough of them."""
    own = by_identity if by_identity is not None else pd.DataFrame()
    ends = [mean_interval(own[name], 0.95, FEWEST) if name in own else (math.nan, math.nan) for name in summary.variant]
    if all(math.isnan(low) for low, _ in ends):
        return summary
    return summary.assign(low_animals=[low for low, _ in ends], high_animals=[high for _, high in ends])


def interval_words(shown: pd.DataFrame) -> str:
    """Which intervals a table of results has, and why it has none."""
    kinds = {"low": "low to high: 95 % over seeds", "low_animals": "low animals to high animals: 95 % over identities"}
    told = [words for name, words in kinds.items() if name in shown]
    why = f"One seed, and fewer than {FEWEST} identities that count: there is no interval."
    return f"{'; '.join(told)}." if told else why


def spread_words(summary: pd.DataFrame) -> str:
    """The message of the figure of means: how far apart the variants lie."""
    ranked = summary.dropna(subset=["map"]).sort_values("map", ascending=False)
    if len(ranked) < 2:
        return f"The mean is {ranked['map'].iloc[0]:.4f}."
    best, second, last = ranked.iloc[0], ranked.iloc[1], ranked.iloc[-1]
    between = f"; the lowest is {last.variant}, {last['map']:.4f}" if len(ranked) > 2 else ""
    return (
        f"The highest mean is {best.variant}'s, {best['map']:.4f}, {best['map'] - second['map']:.4f} above "
        f"{second.variant}'s{between}."
    )


def report_readings(page: Page, recipe: Recipe) -> None:
    """Where the source's text and code differ, what these runs took, and its scores on a leaderboard."""
    if recipe.leaderboard:
        page.heading("Leaderboard, by others", 3)
        rows = {"submission": list(recipe.leaderboard), "score": [str(v) for v in recipe.leaderboard.values()]}
        page.table(
            pd.DataFrame(rows), "Scores of somebody else's submissions on other images than validation's; not ours."
        )
    if not recipe.readings:
        return
    page.heading("Readings of the source")
    how = {
        "published": "what made the published numbers, or what is said below",
        "text": "its text",
        "code": "its code",
    }
    page.text(f"Where the source's text, its code and this recipe differ, these runs follow {how[recipe.reading]}.")

    def words(told: Any, dotted: str = "") -> str:
        if not isinstance(told, Mapping) or not told:
            return f"{dotted}: {told}" if dotted else str(told).strip()
        return "; ".join(
            words(v, f"{dotted}.{key}" if dotted else str(key)) for key, v in told.items() if key != "name"
        )

    rows = [
        {
            "about": one.about,
            "text": words(one.text),
            "code": words(one.code),
            "taken": one.taken,
            "why": one.why.strip(),
        }
        for one in recipe.readings
    ]
    page.table(
        pd.DataFrame(rows), "taken: by the recipe as it stands; -o reading=text or -o reading=code takes the other."
    )


def report_identities(page: Page, by_identity: pd.DataFrame, best: str, most: int = 12) -> None:
    """Whose average precision changes most from the first variant to the best, or where that is best to the second."""
    first = by_identity.columns[0]
    best = best if best in by_identity.columns[1:] else by_identity.columns[1]  # others validated on other images
    change = (by_identity[best] - by_identity[first]).dropna().sort_values()
    if change.empty:
        return
    shown = change if len(change) <= 2 * most else pd.concat([change[:most], change[-most:]])
    page.heading("By identity", 3)
    table = pd.DataFrame({"identity": shown.index, first: by_identity[first][shown.index].to_numpy()})
    table[best] = by_identity[best][shown.index].to_numpy()
    table["change"] = shown.to_numpy()
    page.table(
        table,
        f"Average precision by identity, {best} against {first}, means over seeds: {(change > 0).sum()} gain, "
        f"{(change < 0).sum()} lose; of many those that change most.",
    )


def selection_table(logs: Mapping[str, pd.DataFrame], used: str) -> pd.DataFrame:
    """For each metric of the log the epoch that it would have kept, and the mAP there: means over the runs."""
    rows, trained = [], [log[log.epoch > 0].to_dict("records") for log in logs.values() if log.epoch.max() > 1]
    for metric in dict.fromkeys([used, *METRICS]):
        told = [
            one for one in trained if metric not in METRICS or pd.Series([row.get(metric) for row in one]).notna().any()
        ]
        if told:
            kept = [one[best_epoch(one, metric)] for one in told]
            row = {"by": f"{metric} (used)" if metric == used else metric, "runs": len(kept)}
            row["epoch"] = float(np.mean([one["epoch"] for one in kept]))
            both = {key: [one[key] for one in kept if key in one] for key in ("map", "map_across")}
            rows.append({**row, **{key: float(np.mean(values)) for key, values in both.items() if values}})
    return pd.DataFrame(rows).dropna(axis=1, how="all")


def stages_table(logs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Epochs, seconds and mAP of each stage of training, means over the seeds of a variant."""
    rows = []
    for run, log in logs.items():
        for stage, own in log[log.epoch > 0].groupby("stage") if "stage" in log else ():
            told = {"variant": run.rpartition("/")[0], "stage": int(stage) + 1, "epochs": len(own)}
            rows.append(
                {**told, "seconds": own.seconds.sum(), "map at end": own["map"].iloc[-1], "best": own["map"].max()}
            )
    return pd.DataFrame(rows).groupby(["variant", "stage"], sort=False).mean().reset_index() if rows else pd.DataFrame()


def report_published(page: Page, published: Mapping[str, Any], comparable: bool) -> None:
    page.heading("Published by others", 3)
    data = "on images of the same number" if comparable else "on other images than these: not to be compared"
    rows = {"published by others": list(published), "value": [str(value) for value in published.values()]}
    page.table(pd.DataFrame(rows), f"Measured by somebody else, {data}; not ours.")


def report_detail(page: Page, detail: Mapping[str, Any], number: int) -> None:
    """One run: retrievals to look at, identities, similarities, and a map."""
    labels, name = np.asarray(detail["labels"]), f"run{number}"
    page.heading(detail["name"])
    if detail["why"]:
        page.note(detail["why"])
    steps = pd.DataFrame(detail["metrics"].get("postprocess", []))
    fitted = [name for name in steps.pop("fitted") if isinstance(name, str)] if "fitted" in steps else []
    if len(steps):
        page.table(
            steps,
            "map: validation mAP after these steps, map_across the same across encounters; low and high: the "
            "interval over identities of the gain over raw similarities, at 95 %, or wider where several lists are "
            "measured, so that one choice in twenty is a false gain; mended, broken: shares of queries whose nearest "
            "image becomes right, or wrong, by the steps; used: what the submission went through. What is fitted was "
            "fitted on the other half of the identities. Measured, and by auto chosen, on these images.",
        )
    if fitted:
        page.note(f"Fitted on all validation images, and so used: {', '.join(fitted)}.")
    if idle := idle_steps(detail["metrics"].get("postprocess", [])):
        page.note(f"Note: these steps changed no score: {', '.join(idle)}.")
    if tested := detail["metrics"].get("postprocess_test"):
        page.table(pd.DataFrame(tested), "The test images after each step, by their solution; gains over raw.")
    if detail.get("guesses") is not None:
        report_open_set(page, detail["metrics"]["open_set"], detail["guesses"], name)
    if not all(detail["sheet"].size):
        page.note("No identity has two validation images, so that nothing can be asked for.")
        return
    page.image(
        f"{name}-retrievals",
        detail["sheet"],
        "Queries (left) and their five nearest images: the worst queries, median ones, and the best. Blue frames with "
        "a tick show the same identity, orange ones with a cross another; last the nearest image that shows it, with "
        f"its rank; AP: average precision.{detail.get('marks', '')}",
    )
    if detail.get("matches") is not None:
        pairs = detail["pairs"]
        page.image(
            f"{name}-matches",
            detail["matches"],
            f"Spots that match, the strongest boldest, with the sum of their margins: {'; '.join(pairs)}. First the "
            "strongest and the median pair of one identity (of two encounters, where these are told), then the "
            "strongest pair of two identities.",
        )
    precision = detail["metrics"]["per_identity"]
    if precision:
        weakest = dict(sorted(precision.items(), key=lambda item: item[1])[:80])
        caption = f"{weakest_words(precision)} Average precision by identity, weakest on top (at most 80)."
        page.figure(f"{name}-identities", bars_figure(weakest, "average precision"), caption)
    if counts := detail.get("counts"):
        caption = (
            f"{rarity_words(counts, precision)}Average precision by the number of images that it was learned from."
        )
        page.figure(f"{name}-rarity", rarity_figure(counts, precision), caption)
    caption = f"{pairs_words(detail['metrics'].get('pair_auc', math.nan))}Similarity of validation pairs."
    page.figure(f"{name}-similarity", similarity_figure(detail["similarity"], labels), caption)
    places = map_figure(detail["embeddings"], labels)
    if places is None:
        page.note(f"No map of the {len(labels)} validation embeddings: they are fewer than four, or all alike.")
    else:
        caption = "The validation embeddings in two dimensions: near ones are alike, how far others lie tells little."
        page.figure(f"{name}-map", places, caption)


def difference_words(compared: pd.DataFrame, control: str) -> str:
    """What the columns of the table of differences mean, those that it has."""
    there = set(compared.dropna(axis=1, how="all"))
    interval = ", with its 95 % interval" if "low" in there else ""
    meanings = [f"difference: of mAP to {control} on the same seeds{interval}"]
    meanings += ["p: paired t-test"] if "p" in there else []
    meanings += ["p_holm: corrected for the number of variants"] if "p_holm" in there else []
    more = [name for name in ("epochs more", "time") if name in there]
    meanings += [f"{' and '.join(more)}: what it takes more"] if more else []
    return f"{'; '.join(meanings)}."


def weakest_words(precision: Mapping[str, float]) -> str:
    """Who is found worst, beside the usual identity."""
    name = min(precision, key=precision.__getitem__)
    usual = np.median(list(precision.values()))
    return (
        f"{name} is found worst, with average precision {precision[name]:.2f}; half of {len(precision)} identities "
        f"reach {usual:.2f}."
    )


def rarity_words(counts: Mapping[str, int], precision: Mapping[str, float]) -> str:
    """Whether identities with more training images are found better; "" where too few tell it."""
    from scipy.stats import spearmanr

    there = [name for name in precision if name in counts]
    images, found = ([table[name] for name in there] for table in (counts, precision))
    if len(there) < FEWEST or len(set(images)) == 1 or len(set(found)) == 1:
        return ""
    told = spearmanr(images, found)
    kind = f"are found {'better' if told.statistic > 0 else 'worse'}"
    words = kind if told.pvalue < 0.05 else "can't be told to be found better or worse"
    return f"Identities with more images {words} (Spearman's {told.statistic:+.2f} over {len(there)} identities). "


def idle_steps(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lists of post-processing whose scores are those of the list before, so that their last step did nothing."""
    measured = ("map", "map_across", "mended", "broken")

    def scores(row: Mapping[str, Any]) -> list[float]:
        return [round(value, 12) for key in measured if not math.isnan(value := row.get(key, math.nan) or 0.0)]

    return [other["steps"] for one, other in pairwise(rows) if scores(one) == scores(other)]


def report_open_set(page: Page, told: Mapping[str, Any], guesses: pd.DataFrame, name: str) -> None:
    """How well known individuals are named and unknown ones found, by fitted and by fixed thresholds."""
    page.heading("Known or new", 3)
    kinds = {
        "given": "given",
        "fitted": "fitted on these queries",
        "cross_fitted": "fitted on the other half of the identities",
    }
    rows = [{"thresholds": label, **told[kind]} for kind, label in kinds.items() if kind in told]
    published = "published" if told["decide"] == "softmax" else "published for softmax"
    rows += [{"thresholds": f"{fixed}, {published}", **score} for fixed, score in told["fixed"].items()]
    validated = "given" if "given" in told else "fitted in validation"
    rows += [{"thresholds": f"test, {validated}", **told["test"]}] if "test" in told else []
    rows += [{"thresholds": f"test, {fixed}", **score} for fixed, score in told.get("test_fixed", {}).items()]
    scale = "similarity" if told["decide"] == "nearest" else "probability"
    least = ", ".join(
        f"{species or 'all'} {value:.4f} (a {scale} of {told[scale][species]:.4f})"
        for species, value in told["thresholds"].items()
    )
    page.table(
        pd.DataFrame(rows),
        f"baks, baus: balanced accuracy on known and unknown individuals; score: sqrt(baks x baus). Least confidence: "
        f"{least}. Confidence: {told['confidence']}. {told['unknown']} The epoch, and one threshold or several, were "
        "chosen on these images.",
    )
    if "retrieval" in told:
        page.table(
            pd.DataFrame([{"queries": part, **scores} for part, scores in told["retrieval"].items()]),
            "Queries of known individuals against the gallery, which alone are compared: mAP and top-1, and the same "
            "across encounters.",
        )
    page.figure(
        f"{name}-thresholds",
        threshold_figure(guesses, told["thresholds"]),
        "Score by threshold, and confidence of the best guess; dashed the threshold used, dotted the fixed ones.",
    )


def report_ensemble(told: Mapping[str, Any]) -> Page:
    page = Page()
    page.heading("Ensemble")
    maps = {name: told.get(name) for name in ("map", "map_across", "test_map", "test_map_across")}
    maps |= {f"{kind} score": told[kind]["score"] for kind in ("cross_fitted", "test") if kind in told}
    shown = {"kind": told["kind"], "runs": len(told["runs"]), **maps}
    page.table(
        pd.DataFrame([{key: value for key, value in shown.items() if value is not None}]),
        "Similarities of all runs after their post-processing, averaged on one scale; map: on the validation images, "
        "where all runs hold out the same; those of calibrated ones are fitted on these very images.",
    )
    if "chosen" in told:
        weights = f": {', '.join(f'{w:g}' for w in told['chosen']['weights'])}" if "weights" in told["chosen"] else ""
        page.text(f"Weights{weights} ({told['chosen']['why']}).")
    for end, what in ENSEMBLE_MEASURES.items():
        if rows := told.get(end):
            page.table(
                members_table(rows),
                f"{what}, what each member is worth. gain of all: of the whole ensemble over this member alone; gain "
                "by it: over the ensemble without it; intervals over identities, corrected for so many members. "
                f"With the best member taken for each query, which nobody can know: "
                f"{told[end.replace('members', 'best_choice')]:.4f}.",
            )
    overlap = told.get("test_overlap", told.get("overlap", []))
    if len(overlap) > 1:
        page.table(
            pd.DataFrame(np.round(overlap, 2), told["runs"], told["runs"]).rename_axis("").reset_index(),
            "Errors in common: of the queries whose nearest image is wrong by one of two members, the share that is "
            "wrong by both.",
        )
    return page


ENSEMBLE_MEASURES = {  # tables of members, and what they are measured by
    "members_across": "Validation, across encounters",
    "members": "Validation",
    "test_members_across": "Test, across encounters",
    "test_members": "Test",
}


def members_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each member of an ensemble: its own mAP, and the gains of the whole over it and over the others."""

    def told(gain: Sequence[float] | None) -> str:
        return "" if gain is None else "{:+.4f} [{:+.3f}, {:+.3f}]".format(*gain)

    shown = {"gain of all": "gain_of_all", "gain by it": "gain_by_it"}
    return pd.DataFrame(
        [{"member": r["member"], "mAP alone": r["map"], **{k: told(r.get(v)) for k, v in shown.items()}} for r in rows]
    )


@dataclass(frozen=True, eq=False)
class Thumbnails(Sequence):
    """Images of a store, made when they are asked for."""

    store: ImageStore
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, item: int) -> Image.Image:
        return self.store.thumbnail(self.positions[item])


def run_details(look: Look, rows: int = 10) -> dict[str, Any]:
    """What the report shows of one run (of its first fold, where there are folds)."""
    spec, images, there, matches = look.spec, look.images, look.there, Matches.of(look)
    labels, similarity, names = look.labels, look.similarity, look.kept["images"]
    thumbnails = Thumbnails(images.store, look.positions)
    precision = average_precision(similarity, labels)
    order = [i for i in np.argsort(precision, kind="stable") if not np.isnan(precision[i])]
    few = max(1, rows // 3)
    middle = order[(len(order) - few) // 2 :][:few] if len(order) > rows else []
    shown = [*order[: rows - 2 * few], *middle, *order[-few:]] if len(order) > rows else order
    captions = [f"AP {precision[i]:.2f}  {labels[i]}" for i in shown]
    sheet = contact_sheet(thumbnails, labels, similarity, shown, captions, tag=partial(tag, matches))
    return {
        "name": f"{spec.folder} (its first fold)" if there.path.name == "fold0" else spec.folder,
        "why": spec.why,
        "labels": labels,
        "similarity": similarity,
        "sheet": sheet,
        "marks": marks_words(matches),
        "embeddings": look.geometry.logmap0(look.geometry.project(torch.from_numpy(look.kept["embeddings"]))).numpy(),
        "metrics": there.metrics(),
        "guesses": there.guesses(),
        "matches": matches_picture(spec.recipe, images, dict(zip(names, look.positions)), there),
        "pairs": pairs_told(matches, {name: i for i, name in enumerate(names)}, there.metrics().get("matches", [])),
        "counts": images.competition.train.identity.iloc[images.splits[0][0]].value_counts().to_dict(),
    }


def marks_words(matches: Matches) -> str:
    """What the words in the corners of a sheet mean."""
    flank = "the flank" if matches.flanks is not None else ""
    met = "= for the query's own encounter" if matches.encounters is not None else ""
    told = ", and ".join(filter(None, [flank, met]))
    return f" In the corners: {told}." if told else ""


def pairs_told(matches: Matches, place: Mapping[str, int], pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Pairs whose matching spots are drawn, in words: who they are, their flanks, and whether they were met at once."""
    said = []
    for pair in pairs:
        (one, other), at = pair["identities"], [place.get(name) for name in pair["images"]]
        told = [f"{pair['strength']:.2f}"]
        if None not in at and matches.flanks is not None:
            told.append(" and ".join(matches.flanks[i] or "flank untold" for i in at))
        if None not in at and matches.encounters is not None:
            told += ["one encounter"] if matches.encounters[at[0]] == matches.encounters[at[1]] else []
        said.append(f"{one} and {other if one != other else 'itself'} ({', '.join(told)})")
    return said


SHOWN = 3  # variants that a report shows in detail


def tell(
    experiment: Experiment,
    table: pd.DataFrame,
    failed: Mapping[str, str],
    ensemble: Mapping[str, Any] | None = None,
    going_on: bool = False,
) -> Path:
    """The report over the finished runs, or over those that are so far.

    Of the control and of the variants best by their mean it shows the median run in detail.
    """
    recipe, folder, opened, specs = experiment.recipe, experiment.folder, experiment.opened, experiment.finished
    submitted = submitted_words(folder, table, ensemble)
    if going_on and (shared := shared_seeds(table)):
        specs = [spec for spec in specs if spec.recipe.seed in shared]
        table = table[table.seed.isin(shared)].reset_index(drop=True)
    logs = {f"{c.variant}/seed{c.recipe.seed}": RunFolder(folder / c.folder).log() for c in specs}
    control = control_of(list(table.variant.unique())) if len(table) else ""
    shown, alike = shown_runs(table, control, SHOWN) if len(table) else ([], {})
    looks = [look_at(experiment, specs[i]) for i in shown]
    details = [run_details(look) for look in looks]
    diagnostics = None if going_on or not looks else diagnosed(experiment, table, specs, looks)
    notes = notes_on(experiment, failed, going_on) + shown_words(table, control, len(shown), alike)
    if idle := idle_schedules(specs, logs):
        notes.append(f"the schedule had not changed the rate by the epoch that is kept: {first_of(idle, 8)}")
    extra = report_search(recipe, folder) if recipe.search else None
    extra = report_ensemble(ensemble) if ensemble is not None else extra
    used = [images.competition for images in opened.values()] or [*experiment.competitions.values()]
    comparable = all(published_on(competition, recipe.data.competition) for competition in used)
    facts = facts_of(recipe, specs, opened, folder)
    facts |= {} if specs or not used else {"Data": data_words(used[0])}
    versions = RunFolder(folder / specs[0].folder).with_log.metrics().get("versions", {}) if specs else {}
    return write_report(
        folder,
        recipe,
        table,
        logs,
        details,
        notes,
        experiment.analyses,
        extra,
        comparable,
        by_identity_of(table, specs, folder),
        facts,
        refresh=going_on,
        failed=failed,
        by_identity_across=by_identity_of(table, specs, folder, opened),
        submitted=submitted,
        again=again_words(recipe, folder, experiment.data, experiment.device.type, versions),
        diagnostics=diagnostics,
        synthetic=any(is_drawn(competition) for competition in used),
    )


def look_at(experiment: Experiment, spec: RunSpec) -> Look:
    there = RunFolder(experiment.folder / spec.folder).with_log
    return Look(spec, experiment.images(spec), there, experiment.device)


def diagnosed(experiment: Experiment, table: pd.DataFrame, specs: Sequence[RunSpec], looks: Sequence[Look]) -> Page:
    """What the runs that are shown go by, and what the recipe or the command asks, or earlier ones asked, of all."""
    ranked = [look_at(experiment, specs[row]) for row in median_runs(table)]
    ranked.sort(key=lambda look: look.spec.variant != looks[0].spec.variant)  # the control first
    context = looking.LookContext(looks, ranked, experiment.folder / "analysis")
    asked, page = looking.asked_of(experiment.recipe), Page()
    found, state = {part.name: part(context) for part in asked}, looking.state_of(experiment.folder, specs)
    looking.keep_looks(experiment.folder, found, state)
    found |= looking.kept_looks(experiment.folder, state, besides=found)
    report_diagnostics(page, looks, found.pop("scene", None))
    for part in found.values():
        page.add(part)
    return page


def shown_words(table: pd.DataFrame, control: str, shown: int, alike: Mapping[str, str]) -> list[str]:
    """Which runs are shown in detail, and which are not since their numbers are those of one that is."""
    variants = table.variant.nunique() if len(table) else 0
    said = [f"the numbers of {name} are the very same as those of {twin}, shown once" for name, twin in alike.items()]
    if variants > shown + len(alike):
        best = f" and of the {shown - 1} best by their mean of {variants - 1} others" * (shown > 1)
        said.append(f"of the control ({control}){best} the median run is shown in detail")
    return said


def shared_seeds(table: pd.DataFrame) -> set[int]:
    """The seeds that every variant has by now, which alone compare while runs go on."""
    return set.intersection(*(set(runs.seed) for _, runs in table.groupby("variant"))) if len(table) else set()


def notes_on(experiment: Experiment, failed: Mapping[str, str], going_on: bool) -> list[str]:
    """What a reader must know before the numbers: of the data, and of runs that are missing."""
    specs, folder = experiment.finished, experiment.folder
    notes = alike_once(experiment.notes)
    notes += [f"{place} failed: {reason}" for place, reason in failed.items()]
    notes += [
        f"{spec.folder} was stopped by train.max_hours; the same command goes on with it"
        for spec in specs
        if RunFolder(folder / spec.folder).stopped
    ]
    wanted = len(experiment.specs)
    missing = wanted - len(specs) - len(failed)
    wait = "; this page shows them as they end" if going_on else ""
    notes += [f"{missing} of {wanted} runs are not there yet{wait}"] if missing else []
    return notes + [
        f"{names} saw {views} random views of each training image, in turn" for views, names in kept_views(specs)
    ]


def by_identity_of(
    table: pd.DataFrame, specs: Sequence[RunSpec], folder: Path, across: Mapping[str, Images] | None = None
) -> pd.DataFrame:
    """Mean AP of each identity (rows) by variant (columns), of the runs that validated on the images of the first.

    across: the images by data_key, where it is asked for across encounters.
    """
    on = images_of(table)
    if not len(table) or on[table.variant == table.variant.iloc[0]].nunique() > 1:
        return pd.DataFrame()  # seeds that split anew have no images in common
    there = on.eq(on.iloc[0]).groupby(table.variant, sort=False).all()
    told = {name: [] for name in there.index[there]}
    for spec in specs:
        if spec.variant in told:
            run = RunFolder(folder / spec.folder)
            images = None if across is None else across[data_key(spec.recipe)]
            told[spec.variant].append(run.metrics()["per_identity"] if images is None else across_of(run, spec, images))
    return pd.DataFrame({name: pd.DataFrame(own).mean() for name, own in told.items()})


def across_of(run: RunFolder, spec: RunSpec, images: Images) -> dict[str, float]:
    """AP across encounters of each identity that a run can ask for; {} for folds, and where no encounter is told."""
    train = images.competition.train
    if run.with_log != run or not len(train) or not (run.path / "validation.npz").is_file():
        return {}
    kept = run.arrays("validation.npz", "embeddings", "images", "labels")
    rows = train.index.get_indexer(train.index[train.filename.isin(kept["images"])])
    position = dict(zip(train.filename.iloc[rows], rows))
    if len(position) < len(kept["images"]):
        return {}
    met = shared_encounters(train.iloc[[position[name] for name in kept["images"]]])
    if met is None:
        return {}
    similarity = similarity_matrix(kept["embeddings"], geometry=spec.recipe.model.geometry.build())
    precision = pd.Series(average_precision(similarity, kept["labels"], met))
    return precision.groupby(kept["labels"]).mean().dropna().to_dict()


def matches_picture(recipe: Recipe, images: Images, position: Mapping[str, int], there: RunFolder) -> bytes | None:
    """The pairs whose matching spots a run kept, one below the other; what an earlier version drew; or None."""
    pairs, drawn = there.metrics().get("matches", []), there.path / "matches.jpg"
    if not all("spots" in pair for pair in pairs):
        return drawn.read_bytes() if drawn.is_file() else None
    if not pairs:
        return None
    step = next((part for part in recipe.postprocess if part.name == "local"), Component("postprocess", "local"))
    store = images.at_size({**settings_of("postprocess", "local"), **step.settings}["size"])
    shown = [[store.thumbnail(position[name]) for name in pair["images"]] for pair in pairs]
    rows = [spots_figure(*both, pair["spots"]) for both, pair in zip(shown, pairs)]
    page = Image.new("RGB", (rows[0].width, sum(row.height + 8 for row in rows)), PAPER)
    for number, row in enumerate(rows):
        page.paste(row, (0, number * (row.height + 8)))
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
