"""The answer of an experiment, which stands first in its report: what the numbers bear, and of what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from jaguar_kit import (
    FEWEST,
    Recipe,
    Result,
    RunSpec,
    best_epoch,
    differing_settings,
    expand,
    median_runs,
    settings_that_count,
    submission_of,
)

from .figures import effects_figure, scale_of
from .findings import compare_variants, first_of, identity_gain, results_of
from .page import Page
from .search import SEARCHES, bounds_of, free_space, search_baseline

# the control

CONTROLS = ("baseline", "control", "default")  # names by which a variant says that it is one


def control_of(variants: Sequence[str]) -> str:
    """The variant that all others are compared with: the one of such a name, else the first."""
    return next((name for name in variants if name.lower() in CONTROLS), variants[0])


def control_first(table: pd.DataFrame, control: str) -> pd.DataFrame:
    """The table of runs with those of the control on top, to which `compare_variants` compares the others."""
    own = table.variant == control
    return pd.concat([table[own], table[~own]], ignore_index=True)


def intended_control(recipe: Recipe) -> str:
    """The control that the recipe has, whether or not it has run; "" for a search, whose runs it does not name."""
    return "" if recipe.search else control_of(list(dict.fromkeys(spec.variant for spec in expand(recipe))))


def shown_runs(table: pd.DataFrame, control: str, most: int) -> tuple[list[int], dict[str, str]]:
    """The rows that a report shows in detail: the median run of the control, then those of the best `most` variants.

    Of variants whose numbers are the very same, one is shown; the second value has the others, and whose they are.
    """
    ranked = median_runs(table)
    own = [row for row in ranked if table.variant[row] == control]
    chosen: list[int] = []
    alike: dict[str, str] = {}
    for row in [*own, *(row for row in ranked if row not in own)][: most + len(own)]:
        name = table.variant[row]
        twin = next((table.variant[one] for one in chosen if same_numbers(table, name, table.variant[one])), None)
        if twin is None:
            chosen.append(row)
        else:
            alike[name] = twin
    return chosen, alike


def same_numbers(table: pd.DataFrame, name: str, other: str) -> bool:
    """Whether two variants ran with the same seeds and measured the very same, to the last digit."""
    seeds = [sorted(table.seed[table.variant == one]) for one in (name, other)]
    return seeds[0] == seeds[1] and results_of(table, name, seeds[0]).equals(results_of(table, other, seeds[0]))


# effects

BOTH = {"map": "mAP", "map_across": "mAP across encounters"}
SAME, UNSURE, ELSEWHERE = "same", "not to be told", "not paired"


def effects(
    table: pd.DataFrame,
    logs: Mapping[str, pd.DataFrame],
    by_identity: Mapping[str, pd.DataFrame | None],
    trials: int = 1,
) -> pd.DataFrame:
    """A row for each measure and each variant but the first, which is the control: the paired difference to it.

    low and high: over seeds, as `compare_variants` has them; identity_low and identity_high: over identities, from
    by_identity (mean AP of identities by variant, for each measure). The verdict is "higher" or "lower" where the
    seeds tell a difference and the identities, where there are enough of them, tell the same one.
    """
    rows: list[dict[str, Any]] = []
    control = table.variant.iloc[0]
    for measure in BOTH:
        if measure not in table or (measure == "map_across" and few_across(table)):
            continue
        own = table.dropna(subset=[measure])
        if control not in set(own.variant) or own.variant.nunique() < 2:
            continue
        compared = compare_variants(own, measure, logs)
        for row in compared.to_dict("records"):
            name = row["variant"].removesuffix(f" - {control}")
            told = {"variant": name, "measure": measure, **{c: row[c] for c in ("n", "difference", "low", "high")}}
            gain = identity_gain(name, control, by_identity.get(measure), trials * len(compared))
            rows.append({**told, **gain, "verdict": verdict_of(row, gain)})
    return pd.DataFrame(rows)


def few_across(table: pd.DataFrame) -> int:
    """How many identities can be asked for across encounters, where they are too few to tell anything; else 0."""
    asked = table.get("identities_across", pd.Series(dtype=float)).dropna()
    return int(asked.min()) if (asked < FEWEST).any() else 0


def verdict_of(row: Mapping[str, Any], gain: Mapping[str, Any]) -> str:
    """What seeds and identities together allow to say of a variant's difference to the control."""
    if row["verdict"] == "other validation images" or math.isnan(row["difference"]):
        return ELSEWHERE
    if row["verdict"] == "identical" or (not row["difference"] and (row["n"] == 1 or row["low"] == row["high"])):
        return SAME
    low, high = gain["identity_low"], gain["identity_high"]
    other_animals = math.isnan(low) or (low > 0 if row["verdict"] == "higher" else high < 0)
    return row["verdict"] if row["verdict"] in ("higher", "lower") and other_animals else UNSURE


# words


def answer_words(told: pd.DataFrame, control: str) -> list[str]:
    """Of which variants a gain over the control is held by the numbers, of which not, and of which it can't be told."""
    groups: dict[str, list[str]] = {}
    for name, own in told.groupby("variant", sort=False):
        groups.setdefault(group_of(own), []).append(name)
    said = [group_words(kind, names, told, control) for kind in GROUPS if (names := groups.get(kind))]
    both = " by both measures" if told.measure.nunique() > 1 else ""
    gained = "" if "gain" in groups else f"A gain over {control} is held{both} for no variant. "
    return [f"{gained}{' '.join(said)}", basis_words(told)]


def expected_words(told: pd.DataFrame, control: str, expects: Mapping[str, str]) -> list[str]:
    """What the numbers say of the hypothesis, where the recipe tells what it expects of each variant."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, own in told.groupby("variant", sort=False):
        if wanted := expects.get(name, expects.get("*")):
            found.setdefault((wanted, outcome_of(wanted, own)), []).append(name)
    said = []
    for wanted in dict.fromkeys(wanted for wanted, _ in found):
        parts = [f"{how} for {', '.join(found[wanted, how])}" for how in OUTCOMES if (wanted, how) in found]
        expected = f"the same as {control}" if wanted == "same" else f"{wanted} than {control}"
        said.append(f"Expected to be {expected}: {'; '.join(parts)}.")
    return said


OUTCOMES = ("held", "refuted", "not refuted", "not to be told")


def outcome_of(wanted: str, own: pd.DataFrame) -> str:
    """What a variant's differences say of an expectation; that nothing differs is never held, and needs an interval."""
    group, bounded = group_of(own), own[["low", "high"]].notna().all(axis=None)
    if group in ("gain", "loss"):
        return "held" if (group == "gain") == (wanted == "higher") and wanted != "same" else "refuted"
    return "not refuted" if wanted == "same" and group == UNSURE and bounded else "not to be told"


GROUPS = {  # in the order in which they are said
    "gain": "A gain over {control} is held for {names}.",
    "gain by one": "By one measure alone a gain is held for {names}.",
    "split": "The two measures contradict each other for {names}.",
    "loss by one": "By one measure alone a loss is held for {names}.",
    "loss": "Worse than {control}: {names}.",
    UNSURE: "Not to be told from {control}: {names}.",
    SAME: "With the very same mAP as {control}, so that nothing is learned of what varies: {names}.",
    ELSEWHERE: "Not paired with {control}, for want of common seeds or images: {names}.",
}


def group_of(own: pd.DataFrame) -> str:
    """What both measures say of one variant."""
    verdicts = set(own.verdict)
    if {"higher", "lower"} <= verdicts:
        return "split"
    for verdict, kind in (("higher", "gain"), ("lower", "loss")):
        if verdict in verdicts:
            return kind if verdicts == {verdict} else f"{kind} by one"
    return next(kind for kind in (UNSURE, ELSEWHERE, SAME) if kind in verdicts)


def group_words(kind: str, names: Sequence[str], told: pd.DataFrame, control: str, most: int = 3) -> str:
    """A sentence on variants of one kind, with the numbers of those that differ most."""
    own = told[told.variant.isin(names)]
    size = own.groupby("variant").difference.apply(lambda values: values.abs().max())
    ranked = sorted(names, key=lambda name: -size.get(name, 0))
    numbered = 0 if kind in (SAME, ELSEWHERE) else 1 if kind == UNSURE else most
    shown = [
        f"{name} ({difference_words(own[own.variant == name])})" if place < numbered else name
        for place, name in enumerate(ranked[: 2 * most])
    ]
    rest = [f"{len(ranked) - len(shown)} more"] if len(ranked) > len(shown) else []
    return GROUPS[kind].format(control=control, names=", ".join([*shown, *rest]))


def difference_words(own: pd.DataFrame) -> str:
    """The differences of one variant, each with the interval over seeds, else over identities, where there is one."""
    said = []
    for row in own.itertuples():
        low, high, over = row.low, row.high, ""
        if math.isnan(low):
            low, high, over = row.identity_low, row.identity_high, " over identities"
        interval = "" if math.isnan(low) else f" [{low:+.4f}, {high:+.4f}]{over}"
        said.append(f"{BOTH[row.measure]} {row.difference:+.4f}{interval}")
    return "; ".join(said)


def basis_words(told: pd.DataFrame) -> str:
    """What the answer rests on, and how large a difference it leaves possible where none is told."""
    paired = told[~told.verdict.isin((SAME, ELSEWHERE))]
    if paired.empty:
        return "Nothing was measured that could tell a variant from another."
    seeds, asked = int(paired.n.min()), sorted({int(paired.identities.min()), int(paired.identities.max())})
    over = f"{' to '.join(map(str, asked))} identities"
    over = over if asked[0] >= FEWEST else f"fewer than {FEWEST} identities that can be paired"
    alone = "" if seeds > 1 else "; one seed holds nothing, since another may say otherwise"
    said = f"It rests on {seeds} seed{'s' * (seeds != 1)}, paired, and on {over}{alone}."
    unsure = paired[paired.verdict == UNSURE]
    ends = unsure[["low", "high", "identity_low", "identity_high"]].abs().max(axis=1)
    if unsure.empty:
        return said
    if ends.isna().any():
        return f"{said} Without an interval, a hypothesis of no difference is neither held nor refuted."
    return (
        f"{said} What is not to be told may still differ by up to {ends.max():.4f}: a hypothesis of no difference is "
        "not refuted there, and held only within that."
    )


def submitted_words(folder: Path, table: pd.DataFrame, ensemble: Mapping[str, Any] | None = None) -> str:
    """The scores of the list that is submitted; "" where there is none."""
    chosen = submission_of(Result(folder, table, None))
    if chosen is None:
        return ""
    if ensemble is not None and chosen.parent.name == "ensemble":
        return f"Submitted: the ensemble of {len(ensemble['runs'])} runs, {scores_words(ensemble)}."
    places = {folder / row["variant"] / f"seed{row['seed']}": row for row in table.to_dict("records")}
    row = places.get(chosen.parent)
    return "" if row is None else f"Submitted: {row['variant']}/seed{row['seed']}, {scores_words(row)}."


SCORES = {  # of what is submitted, as far as they were measured
    "open_set": "cross-fitted score",
    "map_postprocessed": "validation mAP after its steps",
    "map": "validation mAP",
    "map_postprocessed_across": "across encounters after its steps",
    "map_across": "across encounters",
    "test_open_set": "test score",
    "test_map_postprocessed": "test mAP after its steps",
    "test_map": "test mAP",
}


def scores_words(row: Mapping[str, Any]) -> str:
    """Scores by their names; a list that went through steps has its raw similarities' beside."""
    told = {key: row[key] for key in SCORES if isinstance(row.get(key), float) and not math.isnan(row[key])}
    raw = [key for key in told if key.replace("map", "map_postprocessed", 1) in told]
    raw += ["map_across"] if {"map_across", "map_postprocessed_across"} <= told.keys() else []
    said = [f"{SCORES[key]} {value:.4f}" for key, value in told.items() if key not in raw]
    lost = [key for key in raw if told[key] > told.get(key.replace("map", "map_postprocessed", 1), told[key])]
    warning = "WARNING, its steps lose: " if lost else ""
    said += [f"{warning}raw {', '.join(f'{SCORES[key]} {told[key]:.4f}' for key in dict.fromkeys(raw))}"] if raw else []
    return "; ".join(said) or "of which nothing was measured"


# what each variant changes


def things_changed(base: Recipe, other: Recipe) -> dict[str, str]:
    """What differs from one recipe to another, by thing: a part with its settings is one, a setting without is too."""
    here, there = settings_that_count(base), settings_that_count(other)
    changed: dict[str, dict[str, str]] = {}
    for key, one, two in differing_settings(replace(base, seed=0), replace(other, seed=0)):
        part = key.rpartition(".")[0]
        thing = part if f"{part}.name" in {**here, **there} else key
        changed.setdefault(thing, {})[key] = f"{key}: {plain(one)} to {plain(two)}"
    for thing, said in changed.items():
        if f"{thing}.name" in said:  # another part, whose settings are told whole
            own = {key.rpartition(".")[2]: value for key, value in there.items() if key.startswith(f"{thing}.")}
            said.clear()
            said[thing] = f"{thing}: {here.get(f'{thing}.name', 'none')} to {plain(own)}"
    return {thing: "; ".join(said.values()) for thing, said in changed.items()}


def plain(value: Any) -> str:
    """A setting's value as a person writes it: parts of a list by name, with their settings behind."""
    if isinstance(value, (list, tuple)):
        return (
            ", ".join(map(plain, value)) if any(isinstance(v, Mapping) for v in value) else str(list(value) or "none")
        )
    if isinstance(value, Mapping):
        own = ", ".join(f"{key} {plain(inner)}" for key, inner in value.items() if key != "name" and inner is not None)
        return f"{value['name']}{f' ({own})' if own else ''}" if "name" in value else own or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def changes_table(recipe: Recipe, control: str = "") -> pd.DataFrame:
    """A row for each variant but the control: what it changes, as the recipe has it, and a word where that is much."""
    if recipe.search:
        return pd.DataFrame()
    specs = {spec.variant: spec for spec in expand(recipe)}
    control = control if control in specs else control_of(list(specs))
    rows = []
    for name, spec in specs.items():
        if name != control:
            things = things_changed(specs[control].recipe, spec.recipe)
            much = f"{len(things)} things at once: a confounder" if len(things) > 1 else ""
            changed = "; ".join(things.values()) or "nothing that counts"
            rows.append({"variant": name, f"differs from {control} in": changed, "note": much, "why": spec.why})
    table = pd.DataFrame(rows)
    return table.drop(columns=[c for c in ("note", "why") if c in table and not table[c].any()])


def space_table(recipe: Recipe) -> pd.DataFrame:
    """A row for each setting that is searched: what it is drawn from, and what the baseline has."""
    own = settings_that_count(search_baseline(recipe).recipe)
    rows = []
    for title in SEARCHES:
        for name, rule in free_space(recipe, title).items():
            drawn = (", " if "choices" in rule else " to ").join(map(plain, bounds_of(rule, name)))
            scale = ", on a logarithmic scale" if rule.get("log") else ""
            baseline = plain(own[name]) if name in own else ""
            rows.append({"space": title, "setting": name, "drawn from": f"{drawn}{scale}", "baseline": baseline})
    return pd.DataFrame(rows)


def changes_words(changes: pd.DataFrame) -> str:
    """Which variants change more than one thing, so that no difference is that of one setting alone."""
    several = list(changes.variant[changes.note != ""]) if "note" in changes else []
    if not several:
        return "Settings as the recipe has them; everything else is the same."
    return f"More than one thing differs in {first_of(several, 6)}: such a difference is of all of it together."


def idle_schedules(specs: Sequence[RunSpec], logs: Mapping[str, pd.DataFrame]) -> list[str]:
    """Variants whose schedule had not acted when the weights that are kept were made."""
    idle: dict[str, list[bool]] = {}
    for spec in specs:
        log, train = logs.get(f"{spec.variant}/seed{spec.recipe.seed}"), spec.recipe.train
        trained = [] if log is None else log[log.epoch > 0].to_dict("records")
        if trained and train.schedule.name != "none":
            kept = [row["lr"] for row in trained[: best_epoch(trained, train.select) + 1]]
            idle.setdefault(spec.variant, []).append(len(set(kept)) == 1 and len(trained) > 1)
    return [name for name, runs in idle.items() if all(runs)]


# the page


def report_answer(
    page: Page,
    recipe: Recipe,
    table: pd.DataFrame,
    logs: Mapping[str, pd.DataFrame],
    by_identity: Mapping[str, pd.DataFrame | None],
    submitted: str = "",
) -> None:
    """The answer from the numbers, a figure of differences to the control, and what each variant changes.

    table: of runs, those of the control first.
    """
    control = table.variant.iloc[0]
    page.heading("Answer")
    trials = recipe.search.trials if recipe.search else 1
    told = effects(table, logs, by_identity, trials)
    intended = intended_control(recipe)
    said = (
        [f"{intended}, the control, has no finished run: {control} stands in."] if intended not in ("", control) else []
    )
    if len(told):
        said += [*expected_words(told, control, recipe.expects), *answer_words(told, control)]
    else:
        said.append(alone_words(table))
    few = few_across(table)
    said += [f"Across encounters {few} identities can be asked for, too few to tell anything."] if few else []
    page.bullets([*said, *filter(None, [submitted])])
    if len(told) and told.difference.notna().any():
        report_effects(page, told, table, trials)
    report_changes(page, recipe, control, told, logs)


def report_effects(page: Page, told: pd.DataFrame, table: pd.DataFrame, trials: int) -> None:
    """Figures of the differences to the control, one for each measure, on one scale and sorted by the first."""
    control, limit = table.variant.iloc[0], scale_of(told)
    measures = [measure for measure in BOTH if (told.measure == measure).any()]
    ranked = told[told.measure == measures[0]].sort_values("difference", ascending=False, kind="stable")
    names = list(dict.fromkeys([*ranked.variant, *told.variant]))
    caption = effects_caption(told, control, trials)
    with page.beside():
        for measure in measures:
            by_seed = table.pivot_table(index="seed", columns="variant", values=measure, dropna=False)
            by_seed, own = by_seed.sub(by_seed[control], axis=0), told[told.measure == measure]
            figure = effects_figure(own, by_seed, names, limit, f"{BOTH[measure]}: difference to {control}")
            page.figure("effects" if measure == measures[0] else f"effects_{measure}", figure, caption)
            caption = "The same across encounters, in the same order and on the same scale."


def alone_words(table: pd.DataFrame) -> str:
    """Why nothing is answered where no variant is compared."""
    if table["map"].isna().all():
        return "Not to be told: nothing was validated, for all images were trained on."
    if table.variant.nunique() > 1:
        return f"Not to be told: {table.variant.iloc[0]}, or all others, lack a validation mAP to compare."
    return f"Not to be told: {table.variant.iloc[0]} alone was measured, and there is no control to compare it with."


def effects_message(told: pd.DataFrame, control: str) -> str:
    """What the figure shows, in a sentence: which variants are told from the control, else the largest difference."""
    own = told[told.measure == told.measure.iloc[0]].dropna(subset=["difference"])
    sure = own[own.verdict.isin(("higher", "lower"))]
    if len(sure):
        names = [f"{row.variant} {row.difference:+.4f}" for row in sure.itertuples()]
        return f"Told from {control}: {first_of(names, 4)}."
    if own.empty:
        return f"No variant has a run to pair with {control}'s by this measure."
    most = own.loc[own.difference.abs().idxmax()]
    return f"No variant is told from {control}; {most.variant} differs most, by {most.difference:+.4f}."


def effects_caption(told: pd.DataFrame, control: str, trials: int) -> str:
    """What the marks of the figure are."""
    tries = trials * told.variant.nunique()
    paid = f", corrected for {tries} comparisons" if tries > 1 else ""
    parts = [effects_message(told, control)]
    parts.append(f"Difference of each variant to {control}, the line at 0; to the right is better.")
    if (told.n > 1).any():
        parts.append("Dots: single seeds, paired; thick: 95 % interval over seeds.")
    if told.identity_low.notna().any():
        parts.append(f"Thin: over identities{paid}.")
    if (told[["low", "high", "identity_low", "identity_high"]].abs() > scale_of(told)).any(axis=None):
        parts.append("Arrows: the interval reaches beyond the scale.")
    return " ".join([*parts, "Filled: told from the control; hollow: not."])


def report_changes(
    page: Page, recipe: Recipe, control: str, told: pd.DataFrame, logs: Mapping[str, pd.DataFrame], most: int = 12
) -> None:
    """The table of what each variant changes, with what was found of it; folded where it is long."""
    if recipe.search:
        page.heading("What the search varies", 3)
        space = space_table(recipe)
        space = space.drop(columns="space") if space.space.nunique() == 1 else space
        page.table(space, "Everything else is the recipe's own; the baseline is what the best is held against.")
        return
    changes = changes_table(recipe, control)
    if changes.empty:
        page.note("Nothing varies between the runs but their seeds." if len(recipe.seeds) > 1 else "Nothing varies.")
        return
    found = {name: group_of(own) for name, own in told.groupby("variant")} if len(told) else {}
    idle = set(idle_schedules(expand(recipe), logs))
    words = {SAME: "the very mAP of the control", "gain": "better", "loss": "worse"}
    results = [words.get(found.get(name, ""), found.get(name, "")) for name in changes.variant]
    varies = changes.iloc[:, 1].str.contains("train.schedule")
    acted = ["its schedule never acted" if name in idle and own else "" for name, own in zip(changes.variant, varies)]
    changes.insert(1, "found", ["; ".join(filter(None, pair)) for pair in zip(results, acted)])
    if not changes.found.any():
        changes = changes.drop(columns="found")
    page.heading("What each variant changes", 3)
    if len(changes) > most:
        page.fold(f"{len(changes)} variants", changes, changes_words(changes))
    else:
        page.table(changes, changes_words(changes))
