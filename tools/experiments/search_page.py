"""What a report tells of a search: history, importance, slices, and the best trial beside what it was chosen among."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaguar_kit import FEWEST, KitError, Recipe, RunFolder, read_own_table

from .figures import EFFECT, INK, OTHER, PALETTE, PAPER, bars_figure, new_figure, plain_label
from .page import Page
from .search import SEARCHES, Trials, free_space, search_baseline, setting_text

STATES = {"COMPLETE": "ended", "PRUNED": "pruned", "FAIL": "failed"}
TOLD = ("number", "state", "value", "last")  # columns of trials that are no settings


@dataclass(frozen=True, eq=False)
class Found:
    """The trials of one space of a search."""

    title: str
    space: Mapping[str, Any]
    study: Any
    trials: pd.DataFrame  # number, state, value, last (mAP when it ended, of pruned ones too) and the settings

    @property
    def done(self) -> pd.DataFrame:
        return self.trials.dropna(subset=["value"])

    @property
    def best(self) -> pd.Series | None:
        return self.done.loc[self.done.value.idxmax()] if len(self.done) else None

    @property
    def settings(self) -> list[str]:
        return [name for name in self.trials if name not in TOLD]


def found_in(recipe: Recipe, title: str, folder: Path) -> Found | str:
    """The trials of a space, or why there is nothing to show."""
    space = free_space(recipe, title)
    try:
        study = Trials(recipe, title, space, folder).study()
    except KitError as error:
        return f"the trials of search.{title} are not shown: {error}"
    rows = [
        {"number": one.number, "value": one.value, "state": one.state.name, "last": last_of(one), **one.params}
        for one in study.get_trials(deepcopy=False)
    ]
    if not rows:
        return f"search.{title} has no trials that could be shown."
    return Found(title, space, study, pd.DataFrame(rows).assign(value=lambda table: table.value.astype(float)))


def last_of(trial: Any) -> float:
    """The mAP that a trial had when it ended; NaN where it had none."""
    reported = trial.intermediate_values
    return trial.value if trial.value is not None else reported[max(reported)] if reported else math.nan


def report_search(recipe: Recipe, folder: Path) -> Page:
    """History, best trial, slices and importance for each space, and all trials."""
    page = Page()
    every = {title: found_in(recipe, title, folder) for title in SEARCHES if free_space(recipe, title)}
    for told in every.values():
        if isinstance(told, str):
            page.note(f"Note: {told}")
    shown = [found for found in every.values() if isinstance(found, Found)]
    for number, found in enumerate(shown):
        page.heading(f"Search: {found.title}")
        if not number:
            put_history(page, shown, mean_of(folder / search_baseline(recipe).variant))
        report_space(page, found, folder)
    return page


def mean_of(variant: Path) -> float:
    """The mean mAP of the finished runs of a variant; NaN where there is none."""
    runs = [RunFolder(place) for place in sorted(variant.glob("seed*")) if place.is_dir()]
    scores = [run.metrics()["map"] for run in runs if run.finished]
    return float(np.mean(scores)) if scores else math.nan


def report_space(page: Page, found: Found, folder: Path) -> None:
    title, trials = found.title, found.trials
    if found.best is not None:
        page.heading("The best trial, and what it was chosen among", 3)
        label = SEARCHES[title][0]
        page.bullets([*best_words(found), luck_words(precision_by_identity(found, folder)), again_words(found, folder)])
        page.note(f"Its settings are those of the variant {label}; {label}.yaml is a recipe of them.")
        caption = f"{slice_words(found)} Score of every trial by each setting; the ring is the best trial."
        page.figure(f"slices-{title}", slices_figure(found), caption)
    if importance := importance_of(found.study):
        ranked = bars_figure(importance, "share of the variance of mAP")
        first = next(iter(importance))
        caption = (
            f"{first} matters most ({importance[first]:.0%} of the variance of mAP). Importance of the settings "
            f"(fANOVA) by {len(found.done)} trials{'; of fewer than fifty it is rough' * (len(found.done) < 50)}."
        )
        page.figure(f"importance-{title}", ranked, caption)
    elif len(found.done):
        page.note(f"Importance is not told: {len(found.done)} trials that ended are too few, or all have one score.")
    if len(found.done) > 1:
        table = choices_table(trials.drop(columns="last"))
        page.fold("mAP by choice", table, "mAP of the trials by each choice, or third of a range.")
        caption = "Trials as lines through their settings, coloured by mAP: light is high."
        page.figure(f"parallel-{title}", parallel_figure(trials.drop(columns="last")), caption)
    listed = trials.drop(columns="last").sort_values("value", ascending=False)
    page.fold(f"All {len(trials)} trials", listed.assign(state=listed.state.replace(STATES)))
    spent = sum(trial_seconds(folder / "trials" / f"{title}{number}") for number in trials.number)
    took = f"{spent / 3600:.2f} hours" if spent > 360 else f"{spent:.0f} seconds"
    page.note(f"{len(trials)} trials took {took} of training on this machine.")


# the best among many


def best_words(found: Found) -> list[str]:
    """The best trial by its settings, and the trials that it was chosen among."""
    best, done = found.best, found.done
    settings = ", ".join(f"{name} {setting_text(best[name])}" for name in found.settings)
    states = found.trials.state.value_counts()
    lost = [f"{states[state]} {word}" for state, word in (("PRUNED", "pruned"), ("FAIL", "failed")) if state in states]
    said = f"Chosen among {len(done)} of {len(found.trials)} trials that ended" + f" ({', '.join(lost)})" * bool(lost)
    others = done.value.drop(best.name)
    if len(others):
        low, middle, high = done.value.quantile([0.25, 0.5, 0.75])
        said += (
            f": median mAP {middle:.4f}, the middle half {low:.4f} to {high:.4f}, sd {done.value.std():.4f}; the "
            f"second best has {others.max():.4f}"
        )
    return [f"Trial {best.number}, mAP {best.value:.4f}: {settings}.", f"{said}."]


def precision_by_identity(found: Found, folder: Path) -> pd.DataFrame:
    """Mean AP of each identity (columns) by trial (rows), of the trials whose results lie here."""
    rows = {}
    for number in found.done.number:
        there = RunFolder(folder / "trials" / f"{found.title}{number}")
        if there.finished:
            rows[number] = there.metrics().get("per_identity", {})
    return pd.DataFrame.from_dict(rows, orient="index").dropna(axis=1)


def luck_of_the_best(precision: pd.DataFrame, halves: int = 200) -> tuple[float, float]:
    """mAP of the trial that is best on one half of the identities: there, and on the other half; means over halves.

    precision: trials (rows) by identities (columns). NaN for fewer than two trials or FEWEST identities.
    """
    values = precision.to_numpy(float)
    if len(values) < 2 or values.shape[1] < FEWEST:
        return math.nan, math.nan
    rng, there, elsewhere = np.random.default_rng(0), [], []
    for _ in range(halves):
        order = rng.permutation(values.shape[1])
        half = len(order) // 2
        for own, other in ((order[:half], order[half:]), (order[half:], order[:half])):
            scores = values[:, own].mean(1)
            best = scores.argmax()
            there.append(scores[best])
            elsewhere.append(values[best, other].mean())
    return float(np.mean(there)), float(np.mean(elsewhere))


def luck_words(precision: pd.DataFrame) -> str:
    """How much too high the score of the best is, since it was chosen by that very score."""
    said = "The score of the best of many is optimistic: it was chosen by that very score."
    there, elsewhere = luck_of_the_best(precision)
    if math.isnan(there):
        few = precision.shape[1] if len(precision) > 1 else 0
        why = f"{few} identities are fewer than {FEWEST}" if few else "it takes two trials whose results lie here"
        return f"{said} By how much is not told: {why}."
    return (
        f"{said} Where the best of {len(precision)} trials is chosen on one half of the {precision.shape[1]} "
        f"identities, it has mAP {there:.4f} there and {elsewhere:.4f} on the other half, {there - elsewhere:.4f} less "
        "(means over 200 halves). Chosen on all of them, as here, the luck is smaller, but not none."
    )


def again_words(found: Found, folder: Path) -> str:
    """What the settings of the best gave when they were trained again."""
    again, value = mean_of(folder / SEARCHES[found.title][0]), found.best.value
    if math.isnan(again):
        return "Trained again it has no result yet."
    return (
        f"The same settings trained again, with the same seed, have mAP {again:.4f} ({again - value:+.4f}), on the "
        "images that chose them: no second opinion."
    )


# figures


def put_history(page: Page, every: Sequence[Found], baseline: float) -> None:
    told = [history_words(found, f"search.{found.title}") for found in every]
    caption = " ".join([*told, "Dots: trials; hollow: pruned, at the mAP they had; line: the best so far."])
    caption += "" if math.isnan(baseline) else f" Dashed: the baseline, {baseline:.4f}."
    page.figure("history", history_figure(every, baseline), caption)


def history_words(found: Found, name: str) -> str:
    """When the best was found, and what the last third of the trials still gained."""
    if found.best is None:
        return f"{name}: no trial came to an end."
    before = found.done[found.done.number < len(found.trials) * 2 / 3].value.max()
    gained = found.best.value - before if len(found.trials) > 2 else math.nan  # two have no last third
    later = (
        "" if math.isnan(gained) else f", by {gained:.4f} in the last third" if gained else ", before the last third"
    )
    return (
        f"{name}: the best of {len(found.trials)} trials is number {found.best.number}, {found.best.value:.4f}{later}."
    )


def history_figure(every: Sequence[Found], baseline: float = math.nan) -> Any:
    """mAP of every trial by its number, and the best so far, for each space that was searched."""
    figure, ax = new_figure(8, 3.8)
    for found, colour in zip(every, PALETTE):
        trials = found.trials.sort_values("number")
        done, pruned = found.done, trials[trials.value.isna()].dropna(subset=["last"])
        ax.scatter(done.number, done.value, s=18, color=colour, alpha=0.8)
        ax.scatter(pruned.number, pruned["last"], s=18, color=PAPER, edgecolor=colour)
        ax.step(trials.number, trials.value.cummax().ffill(), where="post", color=colour, label=found.title)
    if not math.isnan(baseline):
        ax.axhline(baseline, color=INK, ls="--", lw=1, label="baseline")
    ax.set(xlabel="trial", ylabel="validation mAP")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False, fontsize=8)
    return figure


def slice_words(found: Found) -> str:
    """The setting that goes most with the score: by rank correlation, of those that are ranges."""
    from scipy.stats import spearmanr

    done = found.done
    ranges = [name for name in found.settings if "choices" not in found.space[name] and done[name].nunique() > 1]
    if len(done) < FEWEST or not ranges:
        return "Fewer than ten trials tell no trend." if len(done) < FEWEST else ""
    told = {name: spearmanr(done[name], done.value) for name in ranges}
    name = max(told, key=lambda one: abs(told[one].statistic))
    sure = told[name].pvalue * len(ranges) < 0.05
    return (
        f"{'Most goes with' if sure else 'No trend is told from chance; most goes with'} {name}: rank correlation "
        f"{told[name].statistic:+.2f} with mAP."
    )


def place_of(choices: Sequence[Any], value: Any) -> int:
    """Which of the choices a value from a table is, where a whole number may have become 16.0, or a text."""
    return next(i for i, choice in enumerate(choices) if value in (choice, str(choice)))


def slices_figure(found: Found, columns: int = 4) -> Any:
    """mAP of the trials by each setting, a panel for each."""
    names = found.settings
    columns = min(columns, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = new_figure(1 + 2.6 * columns, 0.4 + 2.3 * rows, columns, rows)
    axes, done = np.ravel(axes), found.done
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    for number, (ax, name) in enumerate(zip(axes, names)):
        rule, places = found.space[name], done[name]
        if "choices" in rule:
            known = [str(choice) for choice in rule["choices"]]
            places = places.map(partial(place_of, rule["choices"]))
            turned = {"rotation": 30, "ha": "right"} if sum(map(len, known)) > 24 else {}
            ax.set_xticks(range(len(known)), [plain_label(text) for text in known], fontsize=8, **turned)
            ax.set_xlim(-0.5, len(known) - 0.5)
        elif rule.get("log"):
            ax.set_xscale("log")
        ax.scatter(places, done.value, s=16, color=EFFECT, alpha=0.8)
        ax.scatter(places[found.best.name], found.best.value, s=90, facecolor="none", edgecolor=OTHER, lw=1.6)
        ax.set_xlabel(plain_label(name), fontsize=9)
        ax.set_ylabel("" if number % columns else "mAP")
        ax.sharey(axes[0])
        ax.tick_params(axis="y", labelleft=not number % columns)
    return figure


def parallel_figure(trials: pd.DataFrame) -> Any:
    """Parallel coordinates: a line for each trial through its settings, each scaled to its own range."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    trials = trials.dropna(subset=["value"])
    columns = [c for c in trials if c not in ("number", "state", "value")] + ["value"]
    figure, ax = new_figure(1.6 * len(columns) + 1, 4)
    scaled, ends = pd.DataFrame(index=trials.index), []
    for column in columns:
        values = trials[column]
        if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
            codes, known = pd.factorize(values.astype(str), sort=True)
            values, ends_here = pd.Series(codes, trials.index), (known[0], known[-1])
        else:
            ends_here = tuple(
                f"{end:.4f}" if column == "value" else setting_text(end) for end in (values.min(), values.max())
            )
        positive = (values > 0).all() and values.max() > 20 * values.min()
        values = np.log(values) if positive else values
        scaled[column] = (values - values.min()) / max(np.ptp(values), 1e-12)
        ends.append(ends_here)
    norm = Normalize(trials.value.min(), max(trials.value.max(), trials.value.min() + 1e-9))
    for index, row in scaled.iterrows():
        ax.plot(range(len(columns)), row, color=colormaps["viridis"](norm(trials.value[index])), alpha=0.8)
    for i, (low, high) in enumerate(ends):
        ax.axvline(i, color="#bbbbbb", lw=0.8, zorder=0)
        ax.text(i, -0.04, low, ha="center", va="top", fontsize=8)
        if high != low:
            ax.text(i, 1.04, high, ha="center", va="bottom", fontsize=8)
    labels = ["mAP" if c == "value" else c.rpartition(".")[2] for c in columns]
    ax.set_xticks(range(len(columns)), labels)
    ax.tick_params(axis="x", pad=16)
    ax.set(yticks=[], ylim=(-0.12, 1.12))
    ax.spines[["left", "bottom"]].set_visible(False)
    return figure


# numbers


def trial_seconds(folder: Path) -> float:
    """How long a trial trained, as far as its log tells."""
    path = folder / "log.csv"
    return float(read_own_table(path).get("seconds", pd.Series(dtype=float)).sum()) if path.is_file() else 0.0


def choices_table(trials: pd.DataFrame) -> pd.DataFrame:
    """How many trials had each choice of a setting, or a value in each third of its range, and their mAP."""
    done, rows = trials.dropna(subset=["value"]), []
    for setting in [c for c in trials if c not in ("number", "state", "value")]:
        values = done[setting]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and values.nunique() > 6:
            thirds = pd.qcut(values.rank(method="first"), 3, labels=False)
            spans = values.groupby(thirds).agg(["min", "max"])
            values = thirds.map({k: " to ".join(map(setting_text, row)) for k, row in spans.iterrows()})
            done = done.sort_values(setting)
        for value, own in done.groupby(values[done.index].map(setting_text), sort=False).value:
            rows.append(
                {"setting": setting, "value": value, "trials": len(own), "mean mAP": own.mean(), "best": own.max()}
            )
    return pd.DataFrame(rows)


def importance_of(study: Any) -> dict[str, float]:
    """How much of the variance each setting explains; nothing where there are too few trials, or all are alike."""
    import optuna

    done = [t for t in study.get_trials(deepcopy=False) if t.state == optuna.trial.TrialState.COMPLETE]
    if len(done) < 4 or len({t.value for t in done}) < 2:
        return {}
    fanova = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=fanova))
