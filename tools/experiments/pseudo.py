"""Pseudo-labels: test images that all runs name alike join the training, where the rule is measured to be right."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaguar_kit import (
    EXTRA,
    Competition,
    Experiment,
    PseudoLabels,
    RunSpec,
    check_unique,
    data_key,
    echo,
    load_competitions,
    open_data,
    rank,
    read_table,
    refuse,
    wait_for_all,
    write_json,
    write_table,
)

from .ensemble import Evidence, members_among, members_in, shares_by_name
from .page import Page

FEWEST_NAMED = 10  # images whose names are known that the rule must name, to be measured


@dataclass(frozen=True, eq=False)
class Measured:
    """How often the rule is right, on images whose names are known and that none of the runs was trained on."""

    named: int
    right: int

    @property
    def share(self) -> float:
        return self.right / self.named if self.named else math.nan

    def opens(self, accuracy: float) -> bool:
        return self.named >= FEWEST_NAMED and self.share >= accuracy


def named_alike(told: Sequence[Evidence], least: float, cap: int) -> pd.DataFrame:
    """Images that all runs name alike, with a mean probability of `least`; of an identity the `cap` surest.

    Columns filename, identity, probability; in the order of the images.
    """
    known, shares = shares_by_name(told)
    best = shares.argmax(2)
    table = pd.DataFrame(
        {
            "filename": told[0].images,
            "identity": np.array(known)[shares.mean(0).argmax(1)],
            "probability": shares.mean(0).max(1),
        }
    )
    table = table[(best == best[0]).all(0) & (table.probability >= least)]
    surest = table.sort_values("probability", ascending=False, kind="stable").groupby("identity").head(cap)
    return surest.sort_index().reset_index(drop=True)


def measured(groups: Sequence[Sequence[Evidence]], settings: PseudoLabels) -> Measured:
    """The rule applied to validation images, by groups of runs that hold out the same."""
    named, right = 0, 0
    for told in groups:
        table = named_alike(told, settings.least, settings.cap)
        truth = dict(zip(told[0].images, told[0].labels))
        named, right = named + len(table), right + sum(truth[n] == i for n, i in zip(table.filename, table.identity))
    return Measured(named, right)


def held_out(experiment: Experiment, specs: Sequence[RunSpec]) -> list[list[Evidence]]:
    """Validation evidence of the runs, or of those that `measured_on` names, by what they hold out."""
    place = experiment.recipe.pseudo.measured_on
    members = members_in(place, "pseudo.measured_on") if place else members_among(experiment, specs)
    groups: dict[tuple, list[Evidence]] = {}
    for one in (member.evidence("validation") for member in members):
        if one.shares is not None and len(one.images):
            groups.setdefault(tuple(sorted(one.images)), []).append(one)
    return [[one.ordered(group[0].images) for one in group] for group in groups.values()]


def next_round(experiment: Experiment, specs: Sequence[RunSpec], number: int) -> tuple[list[RunSpec], dict[str, Any]]:
    """The runs of a round, by those of the round before, and what is told of it; no runs where the gate is shut."""
    settings, competition = experiment.recipe.pseudo, experiment.images(specs[0]).competition
    rule = measured(held_out(experiment, specs), settings)
    told: dict[str, Any] = {"round": number, "measured": rule.named, "right": rule.right, "accuracy": rule.share}
    tests = [member.evidence("test") for member in members_among(experiment, specs)]
    images = competition.test.filename.to_numpy(str)
    chosen = named_alike([one.ordered(images) for one in tests], settings.least, settings.cap)
    told |= {"named": len(chosen), "of": len(images), "identities": int(chosen.identity.nunique())}
    if competition.solution is not None:  # told for the reader alone: nothing is chosen by it
        told["right_by_solution"] = int((competition.solution[chosen.filename].to_numpy(str) == chosen.identity).sum())
    if not rule.opens(settings.accuracy):
        few = f"{rule.named} images tell it, expected {FEWEST_NAMED}"
        told["why"] = few if rule.named < FEWEST_NAMED else f"{rule.share:.1%} right, expected {settings.accuracy:.0%}"
    elif not len(chosen):
        told["why"] = "no test image is named alike and surely enough"
    if "why" in told:
        return [], told
    path = f"pseudo/round{number}.csv"
    if rank() == 0:
        write_table(experiment.folder / path, chosen)
    wait_for_all()
    return [of_round(spec, path, number, experiment) for spec in specs], told


def of_round(spec: RunSpec, labels: str, number: int, experiment: Experiment) -> RunSpec:
    """A run that goes on from another one, with labels more, for a few epochs."""
    recipe, settings = spec.recipe, experiment.recipe.pseudo
    data, train = replace(recipe.data, pseudo=labels), replace(recipe.train, epochs=settings.epochs, stages=())
    begun = str(experiment.run_folder(spec).path)
    name = f"{spec.variant.partition('+pseudo')[0]}+pseudo{number}"
    recipe = replace(recipe, data=data, train=train, checkpoint=begun, soup=(), pseudo=None)
    return RunSpec(name, f"round {number} of pseudo-labels", recipe, derived=True)


def run_rounds(experiment: Experiment, make: Callable[[], Mapping[str, str]]) -> dict[str, str]:
    """Rounds of pseudo-labels behind the runs that are there; why by folder for those that failed.

    make: makes the runs of the experiment that are not finished.
    """
    failed: dict[str, str] = {}
    settings, specs, rows, runs = experiment.recipe.pseudo, experiment.finished, [], len(experiment.specs)
    for number in range(1, settings.rounds + 1):
        if len(specs) < runs:
            echo("  note: pseudo: there are runs that are not finished, so that nothing is labelled yet")
            break
        specs, told = next_round(experiment, specs, number)
        rows.append(told)
        echo(f"  pseudo-labels, round {number}: {told_in_words(told)}")
        if not specs:
            break
        experiment.specs = [*experiment.specs, *specs]
        experiment.competitions = {**experiment.competitions, **load_competitions(specs, experiment.data)}
        for spec in specs:
            key = data_key(spec.recipe)
            if key not in experiment.opened:
                opened = open_data(spec.recipe, experiment.competitions[key], experiment.folder)
                experiment.opened = {**experiment.opened, key: opened}
        failed |= make()
        specs = [spec for spec in specs if experiment.run_folder(spec).finished]
    if rank() == 0 and rows:
        write_json(experiment.folder / "pseudo" / "rounds.json", rows)
    experiment.analyses = [*experiment.analyses, page_of(rows)]
    return failed


def told_in_words(told: Mapping[str, Any]) -> str:
    """What a round did, in a line."""
    gate = f"the rule names {told['right']} of {told['measured']} images right whose names are known"
    found = f"{told['named']} of {told['of']} test images of {told['identities']} identities"
    if "right_by_solution" in told:
        found += f" ({told['right_by_solution']} of them right by the solution, which chose nothing)"
    return f"the gate stays shut: {told['why']}" if "why" in told else f"{gate}; {found} join the training"


def page_of(rows: Sequence[Mapping[str, Any]]) -> Page:
    page = Page()
    page.heading("Pseudo-labels")
    page.bullets([f"Round {told['round']}: {told_in_words(told)}." for told in rows])
    page.table(
        pd.DataFrame(rows),
        "measured, right: images with known names, which no run was trained on, that the rule names, and names right; "
        "named: test images that it names. A solution is read for this table alone.",
    )
    return page


def with_pseudo(competition: Competition, path: Path) -> tuple[Competition, np.ndarray]:
    """The data with test images that a table names behind the training images, to train on alone; their rows."""
    told, test = read_table(path, ("filename", "identity")), competition.test
    check_unique(told.filename, path, "filename")
    refuse(sorted(set(told.filename) - set(test.filename)), "are no test images", f"{path}: filename")
    refuse(sorted(set(told.identity) - set(competition.train.identity)), "are no individuals", f"{path}: identity")
    rows = pd.Index(test.filename).get_indexer(told.filename)
    own = test.iloc[rows].assign(identity=told.identity.to_numpy(), **{EXTRA: "pseudo"})
    own["filename"] = "pseudo/" + own.filename  # a training image may have the name of a test image
    train = competition.train if EXTRA in competition.train else competition.train.assign(**{EXTRA: ""})
    train = pd.concat([train, own], ignore_index=True)
    note = f"{path}: {len(own)} test images of {own.identity.nunique()} identities train as if these were their names"
    return replace(competition, train=train).noted(note), rows
