"""Confounders and limits of an experiment: what else differs than the intervention, and what no number tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from jaguar_kit import FEWEST, Recipe, RunSpec, expand

from .answer import changes_table, few_across, idle_schedules
from .findings import first_of, images_of
from .page import Page


def report_limits(
    page: Page,
    recipe: Recipe,
    table: pd.DataFrame,
    logs: Mapping[str, pd.DataFrame],
    by_identity: pd.DataFrame | None = None,
    synthetic: bool = False,
) -> None:
    """What may stand behind a difference beside what was varied, and how far the numbers reach."""
    page.heading("Confounders and limits")
    page.heading("Confounders", 3)
    page.bullets(confounder_words(recipe, table, logs))
    page.heading("Limits", 3)
    page.bullets(limit_words(recipe, table, by_identity, synthetic))


# confounders


def confounder_words(recipe: Recipe, table: pd.DataFrame, logs: Mapping[str, pd.DataFrame]) -> list[str]:
    """What differs between the variants beside the intervention, as far as recipe and numbers show it."""
    specs = [] if recipe.search else expand(recipe)
    said = [*several_things(recipe), *unequal_runs(table), *idle_words(specs, logs)] if several(table) else []
    if several(table) and not said:
        said = ["Each variant has the seeds, the validation images and the length of training of the control."]
    return [*said, scene_words(recipe, table)]


def several(table: pd.DataFrame) -> bool:
    return table.variant.nunique() > 1


def several_things(recipe: Recipe) -> list[str]:
    """Variants that change more than one thing at once."""
    if recipe.search:
        return ["A trial draws all its settings at once: no difference is that of one setting alone."]
    changes = changes_table(recipe)
    names = list(changes.variant[changes.note != ""]) if "note" in changes else []
    return (
        [f"More than one thing at once differs in {first_of(names)}: what it gains or loses is of all."]
        if names
        else []
    )


def unequal_runs(table: pd.DataFrame) -> list[str]:
    """Where variants differ in their seeds, their validation images, how long they trained, or how much learns."""
    said, control = [], table.variant.iloc[0]
    seeds = {name: set(own.seed) for name, own in table.groupby("variant", sort=False)}
    if others := [name for name, own in seeds.items() if own != seeds[control]]:
        said.append(f"Other seeds than {control}'s: {first_of(others)}; differences are paired over those in common.")
    on = {name: set(zip(own.seed, images_of(own))) for name, own in table.groupby("variant", sort=False)}
    if others := [name for name, own in on.items() if dict(own) != dict(on[control]) and name not in others]:
        said.append(f"Validated on other images than {control}: {first_of(others)}; their mAP is not paired.")
    for column, what in (("epochs", "epochs of training"), ("trainable", "parameters that learn")):
        means = table.groupby("variant", sort=False)[column].mean() if column in table else pd.Series(dtype=float)
        if len(means) and means.max() > 1.25 * max(means.min(), 1):
            least, most = means.idxmin(), means.idxmax()
            ends = f"{means.min():,.0f} ({least}) to {means.max():,.0f} ({most})"
            said.append(f"Variants differ in {what}, from {ends}: that goes with what varies.")
    return said


def idle_words(specs: Sequence[RunSpec], logs: Mapping[str, pd.DataFrame]) -> list[str]:
    idle = idle_schedules(specs, logs)
    if not idle or len({str(spec.recipe.train.schedule) for spec in specs}) < 2:
        return []
    return [
        f"The schedule had not acted when the kept weights were made: {first_of(idle)}; nothing is learned of it there."
    ]


def scene_words(recipe: Recipe, table: pd.DataFrame) -> str:
    """How much of mAP may be the scene."""
    shared = "Images of one encounter share light and background, and mAP counts them as right answers"
    across, few = table.get("map_across", pd.Series(dtype=float)).notna().any(), few_across(table)
    if across and not few:
        return f"{shared}; mAP across encounters, which stands beside it, leaves them out."
    if across:
        return f"{shared}; mAP across encounters leaves them out, but of {few} identities, too few to tell anything."
    more = "" if recipe.data.split.name == "encounter_safe" else " (data.split: encounter_safe keeps encounters whole)"
    return f"{shared}: without a mAP across encounters, how much of it is the scene is not told{more}."


# limits


def limit_words(
    recipe: Recipe, table: pd.DataFrame, by_identity: pd.DataFrame | None = None, synthetic: bool = False
) -> list[str]:
    """Of what seeds, animals, images and models the numbers tell nothing."""
    drawn = ["The images are drawn: nothing here is of real animals."] if synthetic else []
    rest = [seed_limit(table), animal_limit(by_identity), choice_limit(recipe, table), reach_words(recipe)]
    return [*drawn, *rest]


def seed_limit(table: pd.DataFrame) -> str:
    seeds = int(table.groupby("variant").seed.nunique().min())
    if seeds < 2:
        return "One seed: what another would give is not told, and no difference is held by it."
    return f"{seeds} seeds: intervals over them tell of other seeds, not of other animals."


def animal_limit(by_identity: pd.DataFrame | None) -> str:
    """How many animals the numbers rest on."""
    count = 0 if by_identity is None or by_identity.empty else int(by_identity.notna().any(axis=1).sum())
    if not count:
        return "Seeds split anew, so that no identity has one score: what other animals would give is not told."
    if count < FEWEST:
        return f"{count} identities are fewer than {FEWEST}: no interval tells what other animals would give."
    return f"{count} identities: intervals over them tell what other animals of the kind would give, at this place."


def choice_limit(recipe: Recipe, table: pd.DataFrame) -> str:
    """What was chosen by the validation images, which flatters what they say."""
    chosen = ["the epoch"] if recipe.train.select != "last" and (table.epochs > 1).any() else []
    chosen += [f"the best of {recipe.search.trials} trials"] if recipe.search else []
    others = table.variant.nunique()
    chosen += [f"the best of {others} variants"] if others > 1 and not recipe.search else []
    tested = "test_map" in table and table.test_map.notna().any()
    apart = "The test images, which chose nothing, are told beside." if tested else "No test image was scored."
    if not chosen:
        return f"Nothing is chosen by the validation images. {apart}"
    return (
        f"Chosen by these same validation images: {' and '.join(chosen)}; scores of what is chosen flatter it. {apart}"
    )


def reach_words(recipe: Recipe) -> str:
    """Of which model and images the numbers are."""
    models = [recipe.model] if recipe.search else [spec.recipe.model for spec in expand(recipe)]
    backbones = list(dict.fromkeys(model.backbone for model in models))
    frozen = "frozen" if all(model.freeze for model in models) else "learning"
    one = f"{first_of(backbones, 3)}, {frozen}, on images of {recipe.data.size} px"
    return f"They are of {one}; other backbones, and other populations, may say otherwise."
