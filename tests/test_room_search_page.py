"""What a report tells of a search: history, importance, slices, and the best among what it was chosen from."""

import math

import numpy as np
import optuna
import pandas as pd
import pytest
import tiny
from jaguar_kit import Page, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments import search_page
from jaguar_kit_tools.experiments.answer import space_table
from jaguar_kit_tools.experiments.search import distribution_of, settings_words
from jaguar_kit_tools.experiments.search_page import Found

SPACE = {
    "train.lr": {"low": "1e-5", "high": 1e-1, "log": True},  # as YAML reads 1e-5
    "loss.margin": {"low": 0.0, "high": 0.5},
    "model.head.output": {"choices": [64, 128, 256]},
}


def found_of(scores, pruned=()):
    """A search whose score is the rate's, by its logarithm, plus what is given; pruned ones end early, at 0.1."""
    study = optuna.create_study(direction="maximize")
    draws = np.random.default_rng(0)
    names = {name: distribution_of(rule) for name, rule in SPACE.items()}
    for number, more in enumerate(scores):
        params = {"train.lr": float(10 ** draws.uniform(-5, -1)), "loss.margin": float(draws.uniform(0, 0.5))}
        params["model.head.output"] = int(draws.choice([64, 128, 256]))
        value = 0.5 + 0.05 * math.log10(params["train.lr"]) + more
        early = number in pruned
        told = {"state": optuna.trial.TrialState.PRUNED if early else optuna.trial.TrialState.COMPLETE}
        told |= {} if early else {"value": value}
        trial = optuna.trial.create_trial(
            **told, params=params, distributions=names, intermediate_values={1: 0.1 if early else value}
        )
        study.add_trial(trial)
    rows = [
        {"number": t.number, "value": t.value, "state": t.state.name, "last": search_page.last_of(t), **t.params}
        for t in study.get_trials()
    ]
    return Found("space", SPACE, study, pd.DataFrame(rows).astype({"value": float}))


def test_the_best_stands_beside_what_it_was_chosen_among():
    found = found_of([0.0] * 12, pruned=(3, 5))
    first, among = search_page.best_words(found)
    best = found.done.value.max()
    assert first.startswith(f"Trial {found.best.number}, mAP {best:.4f}: train.lr ")
    assert among.startswith("Chosen among 10 of 12 trials that ended (2 pruned): median mAP ")
    assert f"sd {found.done.value.std():.4f}; the second best has {found.done.value.nlargest(2).iloc[1]:.4f}." in among


def test_noise_alone_is_found_to_be_luck_and_a_real_lead_is_not():
    """The best of forty that differ by noise alone is too good by what the largest of as many draws is."""
    gaps, size, trials = [], 40, 40
    for seed in range(30):
        noise = np.random.default_rng(seed).normal(0.5, 0.2, (trials, size))
        there, elsewhere = search_page.luck_of_the_best(pd.DataFrame(noise), halves=30)
        gaps.append(there - elsewhere)
    largest = np.random.default_rng(1).normal(size=(20_000, trials)).max(1).mean()
    assert np.mean(gaps) == pytest.approx(largest * 0.2 / math.sqrt(size / 2), rel=0.15)
    led = np.random.default_rng(0).normal(0.5, 0.01, (trials, size))
    led[7] += 0.3
    there, elsewhere = search_page.luck_of_the_best(pd.DataFrame(led))
    assert abs(there - elsewhere) < 0.005
    assert elsewhere == pytest.approx(0.8, abs=0.01)


def test_luck_is_not_told_of_few_identities_or_one_trial():
    for shape, why in (((5, 9), "9 identities are fewer than 10"), ((1, 30), "it takes two trials")):
        told = search_page.luck_words(pd.DataFrame(np.random.default_rng(0).random(shape)))
        assert "By how much is not told" in told
        assert why in told
    told = search_page.luck_words(pd.DataFrame(np.random.default_rng(0).random((5, 10))))
    assert "Where the best of 5 trials is chosen on one half of the 10 identities" in told


def test_the_history_has_every_trial_and_the_best_so_far():
    found = found_of([0.0, 0.1, 0.05, 0.0, 0.3, 0.0, 0.1, 0.0, 0.0], pruned=(2,))
    ax = search_page.history_figure([found], 0.25).axes[0]
    line, dashed = ax.lines
    scores = found.trials.value.fillna(-1).tolist()
    assert line.get_ydata().tolist() == pytest.approx([max(scores[: i + 1]) for i in range(9)])
    assert set(dashed.get_ydata()) == {0.25}
    done, pruned = (points.get_offsets() for points in ax.collections)
    assert len(done) == 8
    assert pruned.tolist() == [[2, 0.1]]
    assert "is number 4, " in search_page.history_words(found, "search.space")
    assert "before the last third" in search_page.history_words(found, "search.space")


def test_each_setting_has_a_slice_that_shows_the_best():
    found = found_of([0.0] * 12)
    figure = search_page.slices_figure(found)
    lr, margin, output = (ax for ax in figure.axes if ax.get_visible())
    assert [ax.get_xlabel() for ax in (lr, margin, output)] == list(SPACE)
    assert (lr.get_xscale(), margin.get_xscale()) == ("log", "linear")
    assert [text.get_text() for text in output.get_xticklabels()] == ["64", "128", "256"]
    every, ring = (points.get_offsets() for points in lr.collections)
    np.testing.assert_allclose(every[:, 0], found.done["train.lr"])
    assert ring[0].tolist() == pytest.approx([found.best["train.lr"], found.best.value])
    assert search_page.slice_words(found).startswith("Most goes with train.lr: rank correlation +1.00")
    noise = found_of(np.random.default_rng(3).normal(0, 5, 12))
    assert search_page.slice_words(noise).startswith("No trend is told from chance")


def test_the_setting_that_decides_is_the_most_important():
    assert next(iter(search_page.importance_of(found_of([0.0] * 20).study))) == "train.lr"
    assert search_page.importance_of(found_of([0.0] * 3).study) == {}


def test_what_a_search_varies_stands_beside_the_baseline():
    search = {
        "space": SPACE,
        "baseline": {"train.lr": 3e-4},
        "matched": {"train.weight_decay": {"low": 0, "high": 0.1}},
    }
    table = space_table(recipe_from_dict({**tiny.TINY, "search": search})).set_index("setting")
    assert table.loc["train.lr"].tolist() == ["space", "1e-05 to 0.1, on a logarithmic scale", "0.0003"]
    assert table.loc["model.head.output", "drawn from"] == "64, 128, 256"
    assert table.loc["train.weight_decay", "space"] == "matched"


@pytest.mark.ci
def test_a_search_has_all_of_it_on_its_page(mini, tmp_path):
    search = {"trials": 5, "prune": False, "random": True, "space": SPACE}
    recipe = {**tiny.TINY, "loss": tiny.ARCFACE, "train": {"epochs": 2, "batch_size": 16}, "search": search}
    result = run_recipe(recipe, data=mini, out=tmp_path, device="cpu")
    told = (result.folder / "report.md").read_text()
    for name in ("history", "slices-space", "importance-space", "parallel-random"):
        assert f"](figures/{name}.png)" in told, name
    assert told.count("### The best trial, and what it was chosen among") == 2
    assert "search.random: the best of 5 trials is number" in told
    assert "The same settings trained again, with the same seed, have mAP" in told
    assert "identities are fewer than 10." in told
    assert "### What the search varies" in told
    assert told.index("## Search: space") < told.index("## Settings")


def test_a_search_of_which_nothing_ended_says_so():
    page = Page()
    found = found_of([0.0] * 3, pruned=(0, 1, 2))
    search_page.put_history(page, [found], math.nan)
    assert "search.space: no trial came to an end." in page.lines[-1]


def test_two_trials_have_no_last_third():
    found = found_of([0.0, 0.3])
    assert search_page.history_words(found, "search.space") == (
        f"search.space: the best of 2 trials is number 1, {found.best.value:.4f}."
    )


def test_settings_are_told_in_words_and_whole_numbers_as_such():
    own = {"loss": {"name": "arcface", "margin": 0.5, "scale": 64.0}, "train.lr": 0.00045674523, "width": 1024}
    assert settings_words(own) == "loss arcface (margin 0.5, scale 64), train.lr 0.000457, width 1024"
    trials = pd.DataFrame({"number": [0, 1], "state": "COMPLETE", "value": [0.36, 0.4]})
    figure = search_page.parallel_figure(trials.assign(**{"head.hidden": [1024.0, 1024.0], "train.lr": [1e-4, 2e-4]}))
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["1024", "0.0001", "0.0002", "0.3600", "0.4000"]  # what has one value has one mark
