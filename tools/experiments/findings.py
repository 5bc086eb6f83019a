"""What results say: statistics over seeds, comparisons, and findings as sentences."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from jaguar_kit import (
    FEWEST,
    MEASURES,
    METRICS,
    Count,
    Divergence,
    Natural,
    Range,
    Recipe,
    checked,
    compare,
    interval_over_identities,
    mean_interval,
    mean_or_nan,
    score_queries,
)

from .page import COLUMNS

# statistics over seeds


def best_up_to(log: pd.DataFrame, epoch: int) -> float:
    """The best validation mAP of the trained epochs up to this one; NaN where there is none."""
    trained = log[log.epoch > 0]
    return float(trained["map"][trained.epoch <= epoch].max())


def summarise(
    table: pd.DataFrame,
    logs: Mapping[str, pd.DataFrame],
    recipe: Recipe,
    comparable: bool = False,
    failed: Iterable[str] = (),
) -> pd.DataFrame:
    """A row for each variant: mean, standard deviation and 95 % interval of mAP over seeds, and what else was asked.

    `logs` has the log of each run by "variant/seed". Published figures stand beside ours only where they are
    `comparable`, measured on these very data. failed: runs that failed, as "variant/seed". Columns that say the same of
    every variant are left out.
    """
    rows, lost = [], failed_runs(failed)
    for variant, runs in table.groupby("variant", sort=False):
        own = [logs[f"{variant}/seed{seed}"] for seed in runs.seed]
        rows.append(
            {
                "variant": variant,
                **over_seeds(runs["map"]),
                "published": str(recipe.published.get(variant, "")) if comparable else "",
                **{c: runs[c].mean() for c in runs if c.startswith("map@") or (c in COLUMNS and COLUMNS[c].averaged)},
                **({"failed": lost[variant]} if variant in lost else {}),
                **divergence_of(own, recipe.divergence, lost.get(variant, 0)),
                "best_epoch": runs.best_epoch.mean(),
                "best_epoch_sd": runs.best_epoch.std(ddof=1),
                "best_epochs": range_words(runs.best_epoch) if len(runs) > 1 else "",
                "epochs": runs.epochs.mean(),
                **{f"last_{c}": mean_or_nan(np.array([log[c].iloc[-1] for log in own])) for c in LOSSES},
                "loss_variance": float(np.mean([log.train_loss.iloc[1:].tail(10).var() for log in own])),
                "map_variance": float(np.mean([log["map"].iloc[1:].var() for log in own])),
                **spread_of_steps(own),
                **{
                    c: float(np.mean([log[c].iloc[1:].mean() for log in own if c in log]))
                    for c in MEASURED
                    if c in own[0]
                },
                "seconds": runs.seconds.mean(),
                **reliance_of(runs),
                "parameters": int(runs.parameters.iloc[0]),
                "trainable": int(runs.trainable.iloc[0]),
            }
        )
    summary = pd.DataFrame(rows)
    optional = [c for c in summary if c not in ("variant", "n", "map")]
    empty = [c for c in optional if summary[c].isna().all() or (summary[c].astype(str) == "").all()]
    return summary.drop(columns=empty)


def failed_runs(failed: Iterable[str]) -> dict[str, int]:
    """How many runs of each variant failed; they are given as "variant/seed"."""
    return dict(Counter(place.rpartition("/")[0] for place in failed))


def with_failed(summary: pd.DataFrame, failed: Iterable[str], rule: Divergence | None) -> pd.DataFrame:
    """The summary with a row for each variant of which no run ended, so that none is missing from the table."""
    lost = {name: count for name, count in failed_runs(failed).items() if name not in set(summary.variant)}
    rows = [{"variant": n, "n": 0, "failed": count, **divergence_of([], rule, count)} for n, count in lost.items()]
    return pd.concat([summary, pd.DataFrame(rows)], ignore_index=True) if rows else summary


LOSSES = ("train_loss", "val_loss")
TIMES = ("seconds", "embedded_per_second")  # measures in which the very same runs differ


def over_seeds(scores: pd.Series) -> dict[str, float]:
    """How many seeds measured a variant's mAP, its mean, spread and interval; seeds that decide nothing are one."""
    scores = scores.dropna()
    scores = scores if scores.nunique() > 1 else scores[:1]
    low, high = mean_interval(scores)
    return {
        "n": len(scores),
        "map": scores.mean(),
        "sd": scores.std(ddof=1),
        "se": scores.sem(),
        "least": scores.min() if len(scores) > 1 else math.nan,
        "most": scores.max() if len(scores) > 1 else math.nan,
        "low": low,
        "high": high,
    }


def background_column(names_there: Iterable[str], background: str) -> str | None:
    """The column of mAP behind a background, whatever its settings: "map@swap", or "map@swap (radius 0.1)"."""
    return next((c for c in names_there if re.fullmatch(rf"map@{background}( \(.*\))?", c)), None)


def reliance_of(runs: pd.DataFrame) -> dict[str, float]:
    """What is lost when other images' backgrounds stand behind the animals in place of their own."""
    own, swapped = background_column(runs, "original"), background_column(runs, "swap")
    plain = "background" not in runs or (runs.background == "original").all()
    own = own or ("map" if plain else None)
    return {"reliance": float((runs[own] - runs[swapped]).mean())} if swapped and own else {}


def spread_of_steps(logs: Sequence[pd.DataFrame]) -> dict[str, float]:
    """How much the gradient's norm varies over epochs, and how many steps had none that is a number."""
    if not all({"grad_norm", "steps_skipped"} <= set(log) for log in logs):
        return {}
    skipped = float(np.mean([log.steps_skipped.sum() for log in logs]))
    spread = float(np.mean([log.grad_norm.iloc[1:].std() for log in logs]))
    return {"grad_norm_sd": spread, "steps_skipped": skipped or math.nan}


MEASURED = ("grad_norm", "images_per_second", "embedding_norm", "distance_to_rim")  # in every epoch


def divergence_of(logs: Sequence[pd.DataFrame], rule: Divergence | None, failed: int = 0) -> dict[str, Any]:
    """How many runs diverged, by the rule, those included that failed; and how many of them ended before its epoch."""
    if rule is None:
        return {}
    if rule.by == "loss":
        return {"diverged": f"{failed} of {len(logs) + failed}"}
    below = [log for log in logs if best_up_to(log, rule.epoch) < rule.map]
    short = sum(log.epoch.max() < rule.epoch for log in below)
    words = f"; {short} of them ended before epoch {rule.epoch}" if short else ""
    return {"diverged": f"{len(below) + failed} of {len(logs) + failed}{words}"}


def images_of(table: pd.DataFrame) -> pd.Series:
    """What tells the images that each run validated on, "" where it does not say."""
    told = table.get("validated_on", pd.Series("", table.index))
    return told.map(lambda value: value if isinstance(value, str) else "")


def identical_runs(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two logs tell the very same training, to the last digit and in every epoch."""
    columns = [c for c in ("epoch", "train_loss", "grad_norm", *METRICS) if c in one and c in other]
    return one[columns].equals(other[columns])


def results_of(table: pd.DataFrame, variant: str, seeds: Iterable[int]) -> pd.DataFrame:
    """What the runs of a variant measured, without the time that it took."""
    rows = table[table.variant == variant].set_index("seed").loc[list(seeds)]
    return rows.drop(columns=["variant", "background", "validated_on", *TIMES], errors="ignore")


def costs_of(table: pd.DataFrame, name: str, first: str) -> dict[str, float]:
    """How many epochs and which share of the time a variant takes more than the first, on average."""
    if not {"epochs", "seconds"} <= set(table):
        return {}
    own, base = (table[table.variant == one][["epochs", "seconds"]].mean() for one in (name, first))
    share = own.seconds / base.seconds - 1 if base.seconds > 30 else math.nan  # less is noise
    return {"epochs more": own.epochs - base.epochs, "time more": f"{share:+.0%}" if math.isfinite(share) else ""}


def compare_variants(
    table: pd.DataFrame, metric: str = "map", logs: Mapping[str, pd.DataFrame] | None = None
) -> pd.DataFrame:
    """Each variant against the first, paired by seed: difference of the metric, its 95 % interval, p of the t-test.

    The verdict is "not distinguishable" when the interval holds 0, when there are fewer than two common seeds, or when
    p, corrected for the number of variants by Holm's method (p_holm), is not below 0.05; "other validation images"
    where those of the two differ, so that nothing is paired; and "identical" where the runs' `logs` (by "variant/seed")
    are the same to the last digit.
    """
    from scipy.stats import ttest_1samp

    by_variant = {name: runs.set_index("seed") for name, runs in table.groupby("variant", sort=False)}
    (first, base), *others = by_variant.items()
    rows = []
    for name, own in others:
        seeds = base.index.intersection(own.index)
        values, start = own[metric][seeds], base[metric][seeds]
        difference = (values - start).dropna().to_numpy()
        if len(difference) > 1 and not (np.ptp(values) or np.ptp(start)):  # seeds that decide nothing are one
            difference = difference[:1]
        where = [images_of(runs.loc[seeds]) for runs in (own, base)]
        elsewhere = len(difference) > 0 and (where[0] != where[1]).any()
        low, high = (math.nan, math.nan) if elsewhere else mean_interval(difference)
        certain = low > 0 or high < 0
        verdict = ("higher" if low > 0 else "lower") if certain else "not distinguishable"
        pairs = [(f"{name}/seed{seed}", f"{first}/seed{seed}") for seed in seeds] if logs else []
        alike = all(identical_runs(logs[a], logs[b]) for a, b in pairs)
        if pairs and alike and results_of(table, name, seeds).equals(results_of(table, first, seeds)):
            verdict = "identical"
        tested = len(difference) > 1 and np.ptp(difference) > 0 and not elsewhere
        rows.append(
            {
                "variant": f"{name} - {first}",
                "n": len(difference),
                "difference": difference.mean() if len(difference) else math.nan,
                "change": share_words(difference, start),
                "low": low,
                "high": high,
                **costs_of(table, name, first),
                "p": float(ttest_1samp(difference, 0).pvalue) if tested else math.nan,
                "verdict": "other validation images" if elsewhere else verdict,
            }
        )
    compared = pd.DataFrame(rows)
    if "time more" in compared and not compared["time more"].any():
        compared = compared.drop(columns="time more")
    if len(compared) > 1:
        compared.insert(compared.columns.get_loc("p") + 1, "p_holm", holm(compared.p.to_numpy(float)))
        unsure = compared.verdict.isin(("higher", "lower")) & (compared.p_holm >= 0.05)
        compared.loc[unsure, "verdict"] = "not distinguishable"
    return compared


def share_words(difference: np.ndarray, start: pd.Series) -> str:
    """A mean difference as a share of what it starts from, such as +3.1%."""
    base = start.dropna().mean()
    return f"{difference.mean() / base:+.1%}" if len(difference) and base > 0 else ""


def holm(p: np.ndarray) -> np.ndarray:
    """P-values corrected for their number (Holm 1979); NaN stays."""
    order = np.argsort(p)  # NaN last
    tested = int((~np.isnan(p)).sum())
    factors = np.maximum(tested - np.arange(len(p)), 1)
    corrected = np.full(len(p), math.nan)
    corrected[order[:tested]] = np.minimum(np.maximum.accumulate((p[order] * factors)[:tested]), 1)
    return corrected


def findings(
    summary: pd.DataFrame,
    compared: pd.DataFrame,
    table: pd.DataFrame,
    by_identity: pd.DataFrame | None = None,
    trials: int = 1,
) -> list[str]:
    """Sentences that the numbers of these runs support, and no others; by_identity as in `report_results`.

    trials: among how many, measured on these images, the variants beyond the first were chosen; intervals pay for it.
    """
    if table["map"].isna().all():
        return ["Nothing was validated: all images were trained on."]
    best = summary.loc[summary["map"].idxmax()]
    seeds = int((table.variant == best.variant).sum())
    spread = "one seed" if seeds == 1 else f"the very same over {seeds} seeds, which decide nothing"
    if best.n > 1 and "sd" in summary:
        spread = f"sd {best.sd:.4f} over {best.n} seeds"
    elif by_identity is not None and best.variant in by_identity:
        low, high = mean_interval(by_identity[best.variant], fewest=FEWEST)
        told = by_identity[best.variant].notna().sum()
        few = f"{told} identities are too few for an interval"
        spread += f"; {few if math.isnan(low) else f'95 % over identities [{low:.4f}, {high:.4f}]'}"
    several = len(summary) > 1
    said = [
        f"The {'highest ' * several}mean validation mAP is {'that of ' * several}{best.variant * several}"
        f"{': ' * several}{best['map']:.4f} ({spread})."
    ]
    if trials > 1:
        said.append(f"The best was chosen among {trials} trials on these images, so that its mAP flatters it.")
    if (table.epochs > 1).any():
        said.append("The epoch is chosen by these same images, so that mAP is a little higher than on new ones.")
    if "test_map" in summary and several:
        top = summary.loc[summary.test_map.idxmax()]
        first = f"On the test images the highest is {top.variant} ({top.test_map:.4f})"
        told = f"; {best.variant} has {best.test_map:.4f}." if not math.isnan(best.test_map) else "."
        said.append(first + (" too." if top.variant == best.variant else told))
    said += gain_words(learning_runs(table))
    if "map_across" in summary:
        said += across_words(table, summary)
    said += [claim_words(best, compared)] if best.n > 1 and "sd" in summary else []
    only, swap = (background_column(summary, name) for name in ("background_only", "swap"))
    for _, row in (summary[summary.reliance.notna()] if "reliance" in summary else summary[:0]).iterrows():
        alone, chance = (row.get(name, math.nan) for name in (only, "map@chance"))
        beside = "" if math.isnan(alone) else f", {alone:.4f} from the background alone"
        beside += "" if math.isnan(chance) else f" (chance {chance:.4f})"
        said.append(
            f"Reliance on background: {row.variant} has mAP {row[swap] + row.reliance:.4f} on images as they are, "
            f"{row[swap]:.4f} behind the backgrounds of other images{beside}; it loses {row.reliance:.4f}."
        )
    others = [name for name in table if name.startswith("map@") and name != "map@chance"]
    unseen = [name for name in others if table[name].isna().all()]
    if unseen:
        said.append(f"Not measured, for it changed no pixel: {', '.join(name[4:] for name in unseen)}.")
    tries = trials * max(len(compared), 1)
    for row in compared.itertuples():
        if row.verdict == "identical":
            said.append(f"{row.variant}: identical runs; what varies changed nothing on these images.")
        elif math.isnan(row.difference):
            said.append(f"{row.variant}: no seed in common.")
        elif row.verdict == "other validation images":
            said.append(f"{row.variant}: {row.difference:+.4f}, on other validation images, so that nothing is paired.")
        elif math.isnan(row.low):
            said.append(
                f"{row.variant}: {row.difference:+.4f} on one seed{identity_words(row.variant, by_identity, tries)}."
            )
        elif row.verdict == "not distinguishable":
            said.append(f"{row.variant}: {row.difference:+.4f} [{row.low:+.4f}, {row.high:+.4f}], not distinguishable.")
        else:
            said.append(f"{row.variant}: {row.verdict} by {abs(row.difference):.4f} [{row.low:+.4f}, {row.high:+.4f}].")
    return said


def range_words(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def first_of(names: Iterable[str], most: int = 6) -> str:
    """The first of the names, and how many there are beside them."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def learning_runs(table: pd.DataFrame) -> pd.DataFrame:
    """The runs in which something before the embeddings learned: epochs alone do not make a head."""
    learns = table["learns"].fillna(1) if "learns" in table else pd.Series(1, table.index)
    return table[(table.epochs > 0) & (learns > 0)]


def gain_words(trained: pd.DataFrame) -> list[str]:
    """What training adds to the plain backbone, whose features need none, also across encounters."""
    measured = [name for name in MEASURES if name in trained and name not in TIMES]
    trained = trained.drop_duplicates(["seed", *measured])  # the very same run is one, under how many names it stands
    gains = (trained["map"] - trained["plain"]).dropna() if "plain" in trained else pd.Series(dtype=float)
    if gains.empty:
        return []
    low, high = mean_interval(gains) if trained.variant.nunique() == 1 else (math.nan, math.nan)
    said = f"the mean difference is {gains.mean():+.4f}" + ("" if math.isnan(low) else f" [{low:+.4f}, {high:+.4f}]")
    both = {"map_across", "plain_across"} <= set(trained)
    if both and (across := (trained.map_across - trained.plain_across).dropna()).size:
        said += f", across encounters {across.mean():+.4f}"
    start = trained.plain[gains.index].mean()
    return [
        f"Against the plain backbone, without head and training (mAP {start:.4f}), mAP is higher in "
        f"{int((gains > 0).sum())} of {len(gains)} runs; {said}."
    ]


def identity_gain(name: str, control: str, by_identity: pd.DataFrame | None, tries: int = 1) -> dict[str, float]:
    """How many identities two variants share, and the interval over them of the difference of their mean AP.

    tries: of how many that were looked at on these images it is one (Bonferroni). NaN below FEWEST identities.
    """
    gains = pd.Series(dtype=float)
    if by_identity is not None and {name, control} <= set(by_identity):
        gains = (by_identity[name] - by_identity[control]).dropna()
    low, high = mean_interval(gains, 1 - 0.05 / tries, FEWEST)
    return {"identities": len(gains), "identity_low": low, "identity_high": high}


def identity_words(pair: str, by_identity: pd.DataFrame | None, tries: int = 1) -> str:
    """What other animals would make of a difference between two variants, "one - other", that one seed has shown.

    tries: as in `identity_gain`.
    """
    one, _, other = pair.partition(" - ")
    if by_identity is None or not {one, other} <= set(by_identity):
        return ", which can't be told from noise"
    gains = (by_identity[one] - by_identity[other]).dropna()
    if len(gains) and not gains.any():
        return ", the very same for every identity"
    _, low, high = identity_gain(one, other, by_identity, tries).values()
    if math.isnan(low):
        return f", not distinguishable: fewer than {FEWEST} identities"
    verdict = "holds for these images, not for other seeds" if low > 0 or high < 0 else "not distinguishable"
    paid = f", corrected for {tries}" if tries > 1 else ""
    return f", over identities [{low:+.4f}, {high:+.4f}]{paid}: {verdict}"


def claim_words(best: pd.Series, compared: pd.DataFrame) -> str:
    """What the spread over seeds allows to claim: differences paired by seed where there are some, else means."""
    told = compared[compared.verdict != "identical"] if len(compared) else compared
    halves = ((told.high - told.low) / 2).dropna() if len(told) else pd.Series(dtype=float)
    paired = "paired by seed " if len(halves) else ""
    least = halves.median() if len(halves) else 2.8 * best.sd / math.sqrt(best.n)  # 2.8: seen in four of five tries
    share = least / max(best["map"], 1e-9)
    verdict = (
        "small enough to claim differences that matter" if share < 0.025 else "large: small gains can't be claimed"
    )
    return (
        f"The spread over {best.n} seeds lets differences {paired}of about {least:.3f} be seen, {share:.0%} of mAP: "
        f"{verdict}."
    )


def same_words(table: pd.DataFrame, logs: Mapping[str, pd.DataFrame]) -> list[str]:
    """Which variants beyond the first are the very same runs, so that they are one result and not several."""
    groups: list[list[str]] = []
    for name, runs in list(table.groupby("variant", sort=False))[1:]:
        for group in groups:
            there = [(f"{name}/seed{seed}", f"{group[0]}/seed{seed}") for seed in runs.seed]
            if all(b in logs and identical_runs(logs[a], logs[b]) for a, b in there):
                group.append(name)
                break
        else:
            groups.append([name])
    return [f"The very same runs, one result in all: {', '.join(group)}." for group in groups if len(group) > 1]


def next_words(summary: pd.DataFrame, compared: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """What to try next, as far as these numbers suggest it."""
    said, trained = [], table[table.epochs > 0]
    if len(trained) and (trained.groupby("variant").size() == 1).all():
        said.append("Run more seeds (seeds: [1, 2, 3, 4, 5]): one can't tell a gain from noise.")
    late = summary[(summary.epochs > 1) & (summary.best_epoch >= summary.epochs - 0.5)].variant
    if len(late):
        said.append(f"Train longer: {first_of(late, 4)} {'was' if len(late) == 1 else 'were'} best in the last epoch.")
    unsure = compared[compared.verdict == "not distinguishable"] if len(compared) else compared
    unsure = unsure[(unsure.n > 1) & (unsure.difference.abs() > 1e-4)] if len(unsure) else unsure
    if len(unsure):
        row = unsure.loc[unsure.difference.abs().idxmax()]
        wanted = math.ceil(row.n * ((row.high - row.low) / 2 / abs(row.difference)) ** 2)
        if wanted <= 100:
            said.append(f"To tell {row.variant} ({row.difference:+.4f}) from noise takes about {wanted} seeds.")
    if "map_across" in summary and scenes_decide(summary, table):
        said.append("Select by map_across (train.select): the usual mAP prefers a variant that knows scenes.")
    if "test_map" in summary and (summary["map"] - summary.test_map).abs().max() > 0.1:
        said.append("Look at the split: validation and test mAP lie far apart (data.split: encounter_safe).")
    return said


def across_words(table: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """What mAP across encounters says, and where the usual one says otherwise."""
    asked = table.get("identities_across", pd.Series(dtype=float)).dropna()
    if (asked < FEWEST).any():
        few = f"{asked.min():.0f} identities"
        return [f"Across encounters {few} can be asked for: too few to choose by, or to tell anything of."]
    trained = learning_runs(table[table.map_across.notna()])
    start = {c: trained.get(c, pd.Series(math.nan, trained.index)) for c in ("plain", "plain_across")}
    gains = [trained["map"] - start["plain"], trained.map_across - start["plain_across"]]
    (usual, across), told = (gain.mean() for gain in gains), [mean_interval(gain) for gain in gains]
    scenes = "images of one encounter share light and background, so that mAP rewards recognising the scene"
    best = {column: summary.loc[summary[column].idxmax()] for column in ("map", "map_across")}
    several = len(summary) > 1
    said = [
        f"Across encounters the {'highest ' * several}mean is {'that of ' * several}"
        f"{best['map_across'].variant * several}{': ' * several}{summary.map_across.max():.4f}."
    ]
    if usual * across < 0:
        why = f": {scenes}" if all(low > 0 or high < 0 for low, high in told) else ""
        return [*said, f"Training changes mAP by {usual:+.4f}, but across encounters by {across:+.4f}{why}."]
    if best["map"].variant != best["map_across"].variant:
        why = scenes if scenes_decide(summary, table) else "which of the two can't be told from noise"
        said.append(f"By mAP another is best, {best['map'].variant}: {why}.")
    return said


def scenes_decide(summary: pd.DataFrame, table: pd.DataFrame) -> bool:
    """Whether the best by mAP and the best across encounters are each better by its measure, paired by seed."""
    if summary["map"].isna().all():
        return False
    one, other = (summary.variant[summary[column].idxmax()] for column in ("map", "map_across"))
    runs = {name: own.set_index("seed") for name, own in table.groupby("variant")}
    differences = {c: (runs[one][c] - runs[other][c]).dropna() for c in ("map", "map_across")}
    return mean_interval(differences["map"])[0] > 0 and mean_interval(differences["map_across"])[1] < 0


@checked
def bootstrap_interval(
    similarity: Any,
    labels: Any,
    baseline: Any = None,
    over: Literal["identities", "queries"] = "identities",
    rounds: Count = 2000,
    level: Annotated[float, Range(above=0, high=0.999999)] = 0.95,
    seed: Natural = 0,
    encounters: Any = None,
    gallery_labels: Any = None,
    gallery_encounters: Any = None,
) -> tuple[float, float]:
    """Interval (low, high) of the identity-balanced mAP.

    over="identities": would other animals give the same? Student's interval over identities, which for twelve, twenty
    and forty-eight of them holds the truth as often as it says (a percentile bootstrap is too narrow); NaN below ten.
    over="queries": would other images of these animals? Percentiles of `rounds` draws of queries within each identity
    (Efron & Tibshirani 1993). With `baseline`, another similarity (N, N) of the same images, it is the interval of the
    paired difference similarity minus baseline: one that excludes 0 is a gain beyond this noise. Encounters and a
    gallery of its own as in `average_precision`.

    >>> similarity = [[1.0, 0.9, 0.1, 0.2], [0.9, 1.0, 0.3, 0.2], [0.1, 0.3, 1.0, 0.8], [0.2, 0.2, 0.8, 1.0]]
    >>> bootstrap_interval(similarity, ["a", "a", "b", "b"], over="queries")
    (1.0, 1.0)
    """
    told = (labels, encounters, gallery_labels, gallery_encounters)
    compared = compare(similarity, *told)
    values, codes = score_queries(compared).precision, compared.labels
    if baseline is not None:
        values = values - score_queries(compare(baseline, *told)).precision
    if over == "identities":
        return interval_over_identities(values, codes, level)
    groups = [values[(codes == code) & ~np.isnan(values)] for code in np.unique(codes[~np.isnan(values)])]
    if not groups:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    drawn = np.mean([g[rng.integers(len(g), size=(rounds, len(g)))].mean(1) for g in groups], 0)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
