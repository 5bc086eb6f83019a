"""Curves of an experiment's runs on its page: live there, as pictures in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from jaguar_kit import MEASURES

from .figures import MOST_BANDS, bands_figure, losses_figure, other_scales
from .live import Curve, Panel, live_curves
from .page import Page

Logs = Mapping[str, Mapping[str, pd.DataFrame]]  # by variant, by seed

MOST_CURVES = 12  # variants whose curves are drawn


def labelled(*names: str) -> list[tuple[str, str]]:
    """Measures and what axes call them."""
    return [(name, MEASURES[name].label) for name in names]


def put_bands(
    page: Page,
    name: str,
    grouped: Logs,
    columns: Sequence[tuple[str, str]],
    caption: str,
    one_scale: bool = False,
    of: Sequence[str] | None = None,
) -> None:
    """Columns of the logs by epoch, a panel for each. of: all variants, by whose places colours are given."""
    places = {variant: place for place, variant in enumerate(of or grouped)}
    panels = [
        Panel(label, curves, log=column == "lr")
        for column, label in columns
        if (curves := [Curve(places[one], one, label, values_of(runs, column)) for one, runs in grouped.items()])
    ]
    page.live(name, bands_figure(grouped, columns, one_scale, places), caption, live_curves(panels, one_scale))


def values_of(runs: Mapping[str, pd.DataFrame], column: str) -> dict[str, pd.Series]:
    """A column of the logs by epoch, by seed; NaN where a log of an earlier version lacks it."""
    return {str(seed): log.set_index("epoch").reindex(columns=[column])[column] for seed, log in runs.items()}


def put_losses(page: Page, grouped: Logs, alone: Sequence[str], caption: str) -> None:
    """Training and validation loss, a panel with its own axis for each variant."""
    kinds = (("train_loss", "training loss", ""), ("val_loss", "validation loss", "6 4"))
    panels = []
    for place, (variant, runs) in enumerate(grouped.items()):
        curves = [Curve(place, variant, label, values_of(runs, column), strokes) for column, label, strokes in kinds]
        panels += [Panel(variant, curves, alone=place)] if variant in alone else []
    page.live("losses", losses_figure({name: grouped[name] for name in alone}), caption, live_curves(panels))


def report_curves(page: Page, table: pd.DataFrame, logs: Mapping[str, pd.DataFrame]) -> None:
    """Losses, mAP and what else was measured by epoch, of the control, which is first, and of the best variants."""
    if max(log.epoch.max() for log in logs.values()) < 1:
        return  # nothing was trained
    page.heading("Curves")
    every_variant = list(table.variant.unique())
    best = list(table.groupby("variant")["map"].mean().sort_values(ascending=False, kind="stable").index)
    shown = {every_variant[0], *[name for name in best if name != every_variant[0]][: MOST_CURVES - 1]}
    table = table[table.variant.isin(shown)]
    grouped = {
        variant: {seed: logs[f"{variant}/seed{seed}"] for seed in runs.seed}
        for variant, runs in table.groupby("variant", sort=False)
    }
    caption = "By epoch; epoch 0 is before training."
    if len(table) > len(grouped):
        bands = len(grouped) <= MOST_BANDS
        beside = " and the band between lowest and highest" if bands else ""
        alone = " Thin lines are single runs that went on." if bands else ""
        caption = f"By epoch: mean over seeds{beside}, as far as all runs go.{alone} Epoch 0 is before training."
    if len(shown) < len(every_variant):
        caption += f" The control and the {len(shown) - 1} best of {len(every_variant)} variants."
    every = pd.concat(log for runs in grouped.values() for log in runs.values())
    across = (
        [("map_across", "mAP across encounters")] if "map_across" in every and every.map_across.notna().any() else []
    )
    scale = " Both panels have one scale; the second leaves out pairs of one encounter." if across else ""
    caption = f"{peak_words(grouped)} {caption}{scale}".strip()
    put_bands(page, "curves", grouped, labelled("map") + across, caption, one_scale=True)
    if alone := other_scales(grouped):
        note = (
            f"{falls_words(grouped, LOSSES)} Training loss (solid) and validation loss (dashed) by epoch, each variant "
            "on its own axis: their losses do not compare."
        )
        put_losses(page, grouped, alone, note)
    else:
        losses = [("train_loss", "training loss"), *labelled("val_loss")]
        caption = f"{falls_words(grouped, LOSSES)} Losses by epoch, on one scale."
        put_bands(page, "losses", grouped, losses, caption, one_scale=True)
    rates = [("lr", "learning rate"), ("grad_norm", "norm of the gradient")]
    told = falls_words(grouped, dict(rates))
    put_bands(page, "rates", grouped, rates, f"{told} Learning rate (of the head) and mean gradient norm by epoch.")
    report_rarer_curves(page, grouped, every)


def peak_words(grouped: Logs) -> str:
    """How many runs were best in their last epoch, and how many long before: the message of the curves."""
    runs = [log[log.epoch > 0].dropna(subset=["map"]) for own in grouped.values() for log in own.values()]
    runs = [log for log in runs if len(log) > 1]
    if not runs:
        return ""
    if len(runs) == 1:
        [log] = runs
        return f"Of {log.epoch.max():g} epochs number {log.epoch[log['map'].idxmax()]:g} has the highest mAP."
    last = sum(log["map"].idxmax() == log.index[-1] for log in runs)
    early = sum(log.epoch[log["map"].idxmax()] <= log.epoch.max() / 2 for log in runs)
    return (
        f"Of {len(runs)} runs {last} {'has' if last == 1 else 'have'} the highest mAP in the last epoch, {early} in "
        "the first half of training."
    )


LOSSES = {"train_loss": "training loss", "val_loss": "validation loss"}


def falls_words(grouped: Logs, columns: Mapping[str, str]) -> str:
    """In how many runs each of the columns is lower in the last epoch than in the first; "" where one epoch is all."""
    runs = [log[log.epoch > 0] for own in grouped.values() for log in own.values()]
    told = []
    for column, name in columns.items():
        own = [log[column].dropna() for log in runs if column in log]
        own = [values for values in own if len(values) > 1]
        if own:
            fallen = sum(values.iloc[-1] < values.iloc[0] for values in own)
            alone = f"{name}: {'yes' if fallen else 'no'}"
            told.append(f"{name} in {fallen} of {len(own)} runs" if len(own) > 1 else alone)
    return f"Lower in the last epoch than in the first: {', '.join(told)}." if told else ""


def report_rarer_curves(page: Page, grouped: Logs, every: pd.DataFrame) -> None:
    """Curves that some losses, geometries and poolings have."""
    of = list(grouped)
    if "hardest_positive" in every and every.hardest_positive.notna().any():
        mined = [
            ("hardest_positive", "similarity of the hardest positive"),
            ("hardest_negative", "similarity of the hardest negative"),
        ]
        met = [("hardest_met", "share of hardest positives of one encounter")] if "hardest_met" in every else []
        mined += met if met and every.hardest_met.notna().any() else []
        caption = f"{falls_words(grouped, dict(mined))} What batches offer to learn from: means over images that have "
        caption += "another of their identity there."
        put_bands(page, "mining", grouped, mined, caption)
    if inside := with_column(grouped, "distance_to_rim"):
        lying = [("embedding_norm", "mean norm in the ball"), ("distance_to_rim", "outermost embedding to the rim")]
        caption = "Where validation embeddings lie in the Poincare ball, by epoch."
        put_bands(page, "ball", inside, lying, caption, of=of)
    if with_gem := with_column(grouped, "gem_p"):
        put_bands(page, "gem", with_gem, [("gem_p", "exponent p of GeM")], "Exponent of the pooling by epoch.", of=of)


def with_column(grouped: Logs, column: str) -> Logs:
    return {name: runs for name, runs in grouped.items() if column in next(iter(runs.values()))}
