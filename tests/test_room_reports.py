"""Statistics against scipy, findings that the numbers support, pages that stand alone, figures for one and for many."""

import io
import math
import re
from functools import partial

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import sklearn.manifold
from cases import every
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaguar_kit import Page, compare_variants, recipe_from_dict, summarise, write_report
from jaguar_kit_tools.experiments import leaderboard
from jaguar_kit_tools.experiments.analysis import groups_words, hash_words
from jaguar_kit_tools.experiments.analysis_words import pairs_words
from jaguar_kit_tools.experiments.answer import changes_table, changes_words, effects_caption
from jaguar_kit_tools.experiments.curves import falls_words
from jaguar_kit_tools.experiments.facts import published_on
from jaguar_kit_tools.experiments.figures import (
    bands_figure,
    grid_heat,
    heat_figure,
    histograms_figure,
    losses_figure,
    map_figure,
    other_scales,
    roc_figure,
    scatter_figure,
    similarity_figure,
    tiles,
    variants_figure,
)
from jaguar_kit_tools.experiments.findings import (
    background_column,
    best_up_to,
    findings,
    first_of,
    mean_interval,
    range_words,
    with_failed,
)
from jaguar_kit_tools.experiments.page import show_value
from jaguar_kit_tools.experiments.report import difference_words, rarity_words, weakest_words
from jaguar_kit_tools.experiments.search_page import parallel_figure
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

SIGNS = "_a <b> & $x^2$ | c"


def table_of(**variants):
    """A table of runs from `variant={seed: map}`."""
    rows = [
        {"variant": name, "seed": seed, "map": value, "untrained": 0.1, "plain": 0.2, "top1": value / 2, "epochs": 3}
        for name, runs in variants.items()
        for seed, value in runs.items()
    ]
    return pd.DataFrame(rows).assign(best_epoch=2, seconds=5.0, parameters=20_000, trainable=100)


def log_of(*maps):
    """A log, epoch 0 first."""
    count = len(maps)
    return pd.DataFrame(
        {
            "epoch": range(count),
            "map": maps,
            "train_loss": np.r_[math.nan, np.linspace(2, 1, count)[1:]],
            "val_loss": np.linspace(2, 1.5, count),
            "lr": 1e-3,
            "grad_norm": np.r_[math.nan, np.full(count - 1, 0.7)],
        }
    )


def logs_of(table, log=None):
    log = log_of(0.2, 0.3, 0.5, 0.4) if log is None else log
    return {f"{row.variant}/seed{row.seed}": log for row in table.itertuples()}


def recipe_of(**settings):
    return recipe_from_dict({"name": "tried", **settings})


THREE = {1: 0.50, 2: 0.55, 3: 0.48}


# statistics


def test_the_interval_is_that_of_student():
    for count in (2, 3, 20):
        values = np.random.default_rng(count).normal(0.7, 0.1, count)
        expected = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
        assert mean_interval(values) == pytest.approx(expected)


def test_less_than_two_values_have_no_interval():
    assert all(map(math.isnan, [*mean_interval([]), *mean_interval([0.5])]))


def test_differences_are_tested_as_scipy_does():
    other = {1: 0.61, 2: 0.64, 3: 0.60}
    row = compare_variants(table_of(first=THREE, second=other)).iloc[0]
    difference = [other[s] - THREE[s] for s in THREE]
    assert row.variant == "second - first"
    assert row.n == 3
    assert row.difference == pytest.approx(np.mean(difference))
    assert row.p == pytest.approx(stats.ttest_rel(list(other.values()), list(THREE.values())).pvalue)
    assert (row.low, row.high) == pytest.approx(stats.t.interval(0.95, 2, np.mean(difference), stats.sem(difference)))
    assert row.verdict == "higher"


def test_only_seeds_that_both_have_are_paired():
    other = {9: 0.0, 3: 0.60, 1: 0.61}
    row = compare_variants(table_of(first=THREE, second=other)).iloc[0]
    assert row.n == 2
    assert row.difference == pytest.approx(((0.61 - 0.50) + (0.60 - 0.48)) / 2)


def test_without_a_common_seed_nothing_is_told_apart():
    row = compare_variants(table_of(first={1: 0.1}, second={2: 0.9})).iloc[0]
    assert row.n == 0
    assert math.isnan(row.difference)
    assert row.verdict == "not distinguishable"


def test_every_variant_is_compared_with_the_first():
    compared = compare_variants(table_of(z=THREE, a=THREE, m=THREE))
    assert list(compared.variant) == ["a - z", "m - z"]


@every(
    ("other", "verdict"),
    [
        ({1: 0.60, 2: 0.651, 3: 0.579}, "higher"),
        ({1: 0.40, 2: 0.451, 3: 0.379}, "lower"),
        ({1: 0.60, 2: 0.50, 3: 0.48}, "not distinguishable"),
        ({1: 0.99}, "not distinguishable"),
        (THREE, "not distinguishable"),
    ],
)
def test_the_verdict_follows_from_the_interval(other, verdict):
    row = compare_variants(table_of(first=THREE, second=other)).iloc[0]
    assert row.verdict == verdict
    assert (row.low > 0 or row.high < 0) == (verdict != "not distinguishable")


def test_the_best_up_to_an_epoch_leaves_out_the_untrained_one():
    log = log_of(0.9, 0.3, 0.5, 0.4, 0.8)
    assert [best_up_to(log, epoch) for epoch in (1, 2, 3, 4)] == [0.3, 0.5, 0.5, 0.8]
    assert best_up_to(log, 5) == 0.8, "what ended early is judged by what it reached"


def test_the_summary_has_means_over_seeds():
    table = table_of(first=THREE, second={1: 0.7})
    summary = summarise(table, logs_of(table), recipe_of(published={"second": "0.81 +- 0.02"}), True).set_index(
        "variant"
    )
    first, values = summary.loc["first"], list(THREE.values())
    assert first.n == 3
    assert first["map"] == pytest.approx(np.mean(values))
    assert first.sd == pytest.approx(np.std(values, ddof=1))
    assert (first.low, first.high) == pytest.approx(mean_interval(values))
    assert first.top1 == pytest.approx(np.mean(values) / 2)
    assert first.grad_norm == pytest.approx(0.7)
    assert math.isnan(summary.sd["second"])
    assert summary.published.to_dict() == {"first": "", "second": "0.81 +- 0.02"}


def test_columns_that_say_nothing_are_left_out():
    table = table_of(first={1: 0.5})
    summary = summarise(table, logs_of(table), recipe_of())
    assert not {"sd", "low", "high", "published", "diverged", "reliance"} & set(summary)


def test_divergence_counts_the_runs_below_the_line():
    table = table_of(first={**THREE, 4: 0.5}, short={1: 0.5})
    logs = {
        "first/seed1": log_of(0.9, 0.1, 0.2, 0.9),  # too late
        "first/seed2": log_of(0.1, 0.8, 0.2, 0.1),
        "first/seed3": log_of(0.1, 0.9),  # ended early, above the line
        "first/seed4": log_of(0.9, 0.3, 0.7),
        "short/seed1": log_of(0.1, 0.2),
    }
    rule = {"map": 0.75, "epoch": 2}
    summary = summarise(table, logs, recipe_of(divergence=rule))
    assert list(summary.diverged) == ["2 of 4", "1 of 1; 1 of them ended before epoch 2"]
    failed = ["first/seed5", "first/seed6", "lost/seed1"]
    summary = summarise(table, logs, recipe_of(divergence=rule), failed=failed)
    assert list(summary.diverged) == ["4 of 6", "1 of 1; 1 of them ended before epoch 2"]
    assert list(summary.failed.fillna(0)) == [2, 0]
    shown = with_failed(summary, failed, recipe_of(divergence=rule).divergence).set_index("variant")
    assert shown.loc["lost", ["n", "failed", "diverged"]].tolist() == [0, 1, "1 of 1"]
    by_loss = summarise(table, logs, recipe_of(divergence={**rule, "by": "loss"}), failed=failed)
    assert list(by_loss.diverged) == ["2 of 6", "0 of 1"], "by the loss only what failed has diverged"


def test_reliance_is_what_other_backgrounds_cost():
    table = table_of(first=THREE).assign(**{"map@swap": 0.3, "map@chance": 0.2})
    summary = summarise(table, logs_of(table), recipe_of())
    assert summary.reliance[0] == pytest.approx(0.51 - 0.3)
    assert summary["map@chance"][0] == pytest.approx(0.2)


# findings


def told_of(table):
    summary = summarise(table, logs_of(table), recipe_of())
    return findings(summary, compare_variants(table) if len(summary) > 1 else pd.DataFrame(), table)


def test_one_seed_cannot_be_told_from_noise():
    told = told_of(table_of(first={1: 0.5}, second={1: 0.9}))
    assert told[0] == "The highest mean validation mAP is that of second: 0.9000 (one seed)."
    assert told[-1] == "second - first: +0.4000 on one seed, which can't be told from noise."


def test_an_interval_around_0_claims_nothing():
    told = told_of(table_of(first=THREE, second={1: 0.60, 2: 0.50, 3: 0.48}))[-1]
    assert told.endswith("not distinguishable.")
    assert not re.search("higher|lower|better|worse", told)


def test_a_difference_beyond_the_noise_is_told_with_its_interval():
    told = told_of(table_of(first=THREE, second={1: 0.40, 2: 0.451, 3: 0.379}))
    assert re.fullmatch(r"second - first: lower by 0\.1000 \[-0\.\d{4}, -0\.\d{4}\]\.", told[-1])
    assert told[0] == "The highest mean validation mAP is that of first: 0.5100 (sd 0.0361 over 3 seeds)."


def test_gains_are_counted_against_the_plain_backbone():
    table = table_of(first={1: 0.5, 2: 0.1, 3: 0.2})
    assert told_of(table)[2] == (
        "Against the plain backbone, without head and training (mAP 0.2000), mAP is higher in 1 of 3 runs; the mean "
        "difference is +0.0667 [-0.4504, +0.5838]."
    )
    assert not [line for line in told_of(table.drop(columns="plain")) if "plain" in line]


def test_runs_in_which_nothing_learns_are_no_trained_runs():
    table = table_of(none={1: 0.2, 2: 0.2}, head={1: 0.5, 2: 0.6}).assign(learns=[0, 0, 1, 1])
    assert "mAP is higher in 2 of 2 runs; the mean difference is +0.3500" in " ".join(told_of(table))


def test_seeds_that_decide_nothing_are_one_run():
    told = told_of(table_of(first={1: 0.5, 2: 0.5, 3: 0.5}, second={1: 0.55, 2: 0.55, 3: 0.55}))
    assert told[0].endswith("0.5500 (the very same over 3 seeds, which decide nothing).")
    assert told[-1] == "second - first: +0.0500 on one seed, which can't be told from noise."


def test_a_choice_among_trials_is_said_and_paid_for():
    table, rng = table_of(first={1: 0.5}, second={1: 0.53}), np.random.default_rng(0)
    start = rng.random(20)
    by_identity = pd.DataFrame({"first": start, "second": start + rng.normal(0.03, 0.06, 20)})
    summary, compared = summarise(table, logs_of(table), recipe_of()), compare_variants(table)
    alone, among = (findings(summary, compared, table, by_identity, trials)[-1] for trials in (1, 40))
    assert "holds for these images" in alone and "not distinguishable" in among  # noqa: PT018
    assert "corrected for 40" in among
    assert any("chosen among 40 trials" in line for line in findings(summary, compared, table, by_identity, 40))


def test_nothing_is_told_across_encounters_of_fewer_than_ten_identities():
    table = table_of(first=THREE, second={1: 0.6, 2: 0.7, 3: 0.65})
    for asked in (9, 10):
        told = told_of(table.assign(map_across=[0.1, 0.2, 0.15, 0.3, 0.4, 0.35], identities_across=asked))
        assert any("9 identities can be asked for" in line for line in told) == (asked == 9)
        assert any("Across encounters the highest mean" in line for line in told) == (asked == 10)


def test_a_background_that_changed_no_pixel_was_not_measured():
    table = table_of(first=THREE).assign(**{"map@swap": math.nan, "map@background_only": 0.25})
    told = told_of(table)
    assert "Not measured, for it changed no pixel: swap." in told
    assert not [line for line in told if "Reliance" in line]


def test_variants_that_change_more_than_one_thing_are_named():
    recipe = recipe_of(
        variants={"base": {}, "one": {"train": {"lr": 0.1}}, "two": {"train": {"lr": 0.1}, "loss": "triplet"}}
    )
    changes = changes_table(recipe)
    assert set(changes.variant) == {"one", "two"}
    assert "differs in two:" in changes_words(changes)
    assert changes.note.tolist() == ["", "2 things at once: a confounder"]
    assert "everything else is the same" in changes_words(changes[changes.variant == "one"])


def test_nothing_is_claimed_when_nothing_was_validated():
    table = table_of(first={1: math.nan}, second={1: math.nan})
    assert told_of(table) == ["Nothing was validated: all images were trained on."]


def test_reliance_is_told_beside_chance():
    table = table_of(first=THREE).assign(**{"map@swap": 0.3, "map@background_only": 0.25, "map@chance": 0.2})
    assert told_of(table)[-1] == (
        "Reliance on background: first has mAP 0.5100 on images as they are, 0.3000 behind the backgrounds of other "
        "images, 0.2500 from the background alone (chance 0.2000); it loses 0.2100."
    )


# pages


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made, but not drawn."""
    dot = Image.new("RGB", (1, 1))
    monkeypatch.setattr(Page, "figure", lambda page, name, _, caption: page.image(name, dot, caption))


def report_of(folder, table=None, **settings):
    table = table_of(first=THREE, second={1: 0.60, 2: 0.62, 3: 0.61}) if table is None else table
    comparable = settings.pop("comparable", False)
    write_report(folder, recipe_of(**settings), table, logs_of(table), [], comparable=comparable)
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


MAYBE = st.one_of(st.just(math.nan), st.floats(0, 1))
COLUMNS_OF_RUNS = {
    **dict.fromkeys(("plain_across", "untrained_across", "map_across", "map_postprocessed", "test_map"), MAYBE),
    **dict.fromkeys(("map@swap", "map@background_only", "map@chance", "open_set", "minp"), MAYBE),
    "identities_across": st.one_of(st.just(math.nan), st.integers(0, 40)),
    "learns": st.one_of(st.just(math.nan), st.booleans()),
    "validated_on": st.sampled_from(["", "a", "b", math.nan]),
}


@st.composite
def tables(draw):
    """Results that runs could have left: unequal seeds, columns that lack, values that lack, images of their own."""
    names = draw(st.lists(st.sampled_from(["first", "second", SIGNS, "with space"]), min_size=1, unique=True))
    runs = [(name, seed) for name in names for seed in draw(st.sets(st.integers(1, 4), min_size=1))]
    table = pd.DataFrame(runs, columns=["variant", "seed"])
    for column in ("map", "plain", "untrained"):
        table[column] = [draw(MAYBE) for _ in runs]
    for column in draw(st.sets(st.sampled_from(sorted(COLUMNS_OF_RUNS)))):
        table[column] = [draw(COLUMNS_OF_RUNS[column]) for _ in runs]
    epochs = draw(st.integers(0, 3))
    return table.assign(
        best_epoch=epochs, epochs=epochs, seconds=5.0, parameters=20, trainable=10, background="original"
    )


def submitted(*rows):
    """scores.csv as it grows below the folder in which commands are given: recipe, validation mAP, public score."""
    told = {"date": "2026-01-01", "competition": "jaguar-re-id", "run": "default/seed1", "status": "complete"}
    columns = ("recipe", "map", "public")
    path = leaderboard.SCORES
    path.parent.mkdir(exist_ok=True)
    empty = dict.fromkeys(leaderboard.COLUMNS, "")
    jaguar_kit.write_table(path, pd.DataFrame([{**empty, **told, **dict(zip(columns, row))} for row in rows]))
    return path


@pytest.mark.ci
def test_a_report_shows_scores_beside_the_validation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = recipe_of().name
    assert "On the leaderboard" not in report_of(tmp_path / "none")[1]
    submitted(("another", "0.5", "0.6"))
    assert "On the leaderboard" not in report_of(tmp_path / "others")[1]
    submitted((name, "0.7", "0.8"), ("another", "0.5", "0.6"), ("third", "0.6", "0.5"), ("unscored", "0.9", ""))
    _, text = report_of(tmp_path / "some")
    assert "## On the leaderboard" in text
    assert "of 3 submissions" in text
    assert "In 2 of 3 pairs the better one by validation is the better one there." in text
    assert "unscored" not in text
    assert (tmp_path / "some" / "figures" / "leaderboard.png").is_file()
    submitted((name, "0.7", "0.8")).write_text("damaged")
    assert "Note: the leaderboard is not shown: results/scores.csv" in report_of(tmp_path / "damaged")[1]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(table=tables(), data=st.data())
def test_every_table_of_results_has_a_report(undrawn, tmp_path, table, data):
    by_identity = None
    if data.draw(st.booleans()) and table.variant.nunique() > 1:
        aps = {name: [data.draw(MAYBE) for _ in range(3)] for name in table.variant.unique()}
        by_identity = pd.DataFrame(aps, index=list("xyz"))
    recipe = recipe_of(published={"first": 0.5}) if data.draw(st.booleans()) else recipe_of()
    logs = logs_of(table, log_of(*[0.2, 0.3, 0.5, 0.4][: table.epochs.max() + 1]))
    write_report(tmp_path, recipe, table, logs, [], comparable=data.draw(st.booleans()), by_identity=by_identity)
    told = (tmp_path / "report.md").read_text()
    assert "## Results" in told
    assert " nan " not in told.partition("## Results")[0], "no sentence rests on nothing"


def test_losses_of_other_scales_have_axes_of_their_own():
    def logs(**losses):
        return {name: {1: pd.DataFrame({"epoch": [0, 1], "train_loss": [math.nan, v]})} for name, v in losses.items()}

    assert other_scales(logs(arcface=20.0, triplet=0.3)) == ["arcface", "triplet"]
    assert other_scales(logs(arcface=20.0, cosface=18.0)) == []
    wide = logs(arcface=20.0, triplet=0.3)
    for runs in wide.values():
        runs[1]["val_loss"] = 1.0
    axes = [ax for ax in losses_figure(wide).axes if ax.get_visible()]
    assert [ax.get_title() for ax in axes] == ["arcface", "triplet"]
    assert axes[0].get_ylim()[1] > 10 > axes[1].get_ylim()[1]


def test_a_page_stands_alone_and_its_images_exist(tmp_path):
    page, told = report_of(tmp_path)
    linked = re.findall(r"!\[.*?\]\((.*?)\)", told)
    assert linked
    assert sorted(linked) == sorted(p.relative_to(tmp_path).as_posix() for p in (tmp_path / "figures").iterdir())
    for path in linked:
        Image.open(tmp_path / path).verify()
    assert page.count("data:image/webp;base64,") + page.count('class="curves"') == len(linked)
    assert not re.search(r"https?://|<script[^>]|<link|src=\"(?!data:)", page)


def test_signs_with_a_meaning_are_shown_as_they_are(tmp_path):
    page = Page(SIGNS)
    page.heading(SIGNS)
    page.words([(SIGNS, SIGNS), ("empty", " ")])
    page.text(SIGNS)
    page.note(SIGNS)
    page.bullets([SIGNS])
    page.table(pd.DataFrame({"name": [SIGNS]}), SIGNS)
    page.image("tile", tiles([None], [SIGNS]), SIGNS)
    page.code(SIGNS)
    written = page.write(tmp_path).read_text()
    assert "<b>" not in written
    assert written.count("_a &lt;b&gt; &amp; $x^2$ | c") == 13  # title, name and all blocks; an image has it twice
    assert "empty" not in written
    rows = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("|")]
    assert rows == ["| name |", "| --- |", "| _a <b> & $x^2$ \\| c |"]


def test_numbers_in_tables_are_short():
    shown = [show_value(v) for v in (0.12345678, 12.345, math.nan, 1234567, np.int64(9999), "text")]
    assert shown == ["0.1235", "12.3", "", "1,234,567", "9999", "text"]


def test_words_of_the_recipe_are_on_the_page(undrawn, tmp_path):
    page, told = report_of(tmp_path, question="Does it <help>?", protocol="Five seeds.")
    assert "Does it &lt;help&gt;?" in page
    assert "**Protocol.** Five seeds." in told


def test_interpretation_of_the_folder_wins_and_is_never_overwritten(undrawn, tmp_path):
    own = tmp_path / "interpretation.md"
    own.write_text("It helped & <mattered>.\n\nTwice.")
    page, told = report_of(tmp_path, interpretation="From the recipe.")
    assert "<p>It helped &amp; &lt;mattered&gt;.</p><p>Twice.</p>" in page
    assert "It helped & <mattered>." in told
    assert "From the recipe." not in page.partition("Settings")[0]
    report_of(tmp_path)
    assert own.read_text() == "It helped & <mattered>.\n\nTwice."


def test_interpretation_of_the_recipe_is_embedded(undrawn, tmp_path):
    assert (
        '<h2 id="interpretation">Interpretation</h2><p>From the recipe.</p>'
        in report_of(tmp_path, interpretation="From the recipe.")[0]
    )
    assert not (tmp_path / "interpretation.md").exists()


def columns_of(told, title):
    """The table in Markdown below a title as columns of text."""
    lines = told.partition(title)[2].strip().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[: lines.index("")]]
    return {name: [row[i] for row in rows[2:]] for i, name in enumerate(rows[0])}


def test_published_numbers_stand_in_a_column_of_their_own(undrawn, tmp_path):
    page, told = report_of(tmp_path, published={"second": "0.8888 +- 0.01", "elsewhere": 0.7777}, comparable=True)
    results = columns_of(told, "## Results")
    assert results["published"] == ["", "0.8888 +- 0.01"]
    assert all("0.8888" not in cell for name, cells in results.items() if name != "published" for cell in cells)
    others = columns_of(told, "### Published by others")
    assert others == {"published by others": ["elsewhere"], "value": ["0.7777"]}
    assert ">published</th>" in page
    assert "0.8888" not in "".join(columns_of(told, "### Runs")["map"])


def test_published_numbers_are_told_where_nothing_ran(tmp_path):
    _, told = report_of(tmp_path, pd.DataFrame(), published={"elsewhere": 0.7777})
    assert "Measured by somebody else" in told
    assert "Findings" not in told


def test_one_variant_is_compared_with_nothing(undrawn, tmp_path):
    _, told = report_of(tmp_path, table_of(only={1: 0.5}))
    assert "Differences" not in told
    assert not (tmp_path / "figures" / "map.png").exists()


def test_notes_and_parts_come_where_they_belong(undrawn, tmp_path):
    table, analysed, searched = table_of(first=THREE), Page(), Page()
    analysed.text("analysed")
    searched.text("searched")
    write_report(tmp_path, recipe_of(), table, logs_of(table), [], ["one is missing"], [analysed], searched)
    told = (tmp_path / "report.md").read_text()
    order = ("## Answer", "Note: one is missing", "analysed", "## Findings", "searched", "## Settings")
    order = [told.index(x) for x in order]
    assert order == sorted(order)


# figures


def test_each_cell_of_the_heat_is_that_of_its_settings():
    recipe = recipe_of(grid={"train.lr": [0.001, 0.01], "loss.margin": [0.1, 0.2, 0.3]})
    names = [cell.variant for cell in jaguar_kit.expand(recipe)]
    summary = pd.DataFrame({"variant": names, "map": np.arange(6) / 10}).sample(frac=1, random_state=0)
    summary = summary[summary.variant != "lr=0.01,margin=0.2"]
    heat = grid_heat(recipe, summary)
    assert (heat.index.name, heat.columns.name) == ("lr", "margin")
    assert heat.loc[0.001].tolist() == [0, 0.1, 0.2]
    np.testing.assert_array_equal(heat.loc[0.01], [0.3, math.nan, 0.5])
    text = {t.get_position(): t.get_text() for t in heat_figure(heat, "mAP").axes[0].texts}
    assert text[(2, 0)] == "0.200"
    assert text[(0, 1)] == "0.300"


TWO = {"train.lr": [0.1, 0.2], "train.epochs": [1, 2]}


def test_there_is_no_heat_unless_two_settings_alone_vary():
    for varied in ({}, {"grid": {"train.lr": [0.1, 0.2]}}, {"grid": TWO, "variants": {"a": {}}}):
        assert grid_heat(recipe_of(**varied), table_of(first=THREE)) is None


def assert_drawn(figure):
    assert isinstance(figure, Figure)
    page = Page("figures")
    page.figure("one", figure, "")
    assert Image.open(io.BytesIO(page.images["one"])).width > 100


def test_curves_have_the_mean_and_a_band_of_seeds_of_unequal_length():
    logs = {"first": {1: log_of(0.1, 0.3), 2: log_of(0.3, 0.5, 0.6, 0.7)}, SIGNS: {1: log_of(0.2)}}
    figure = bands_figure(logs, [("map", "mAP"), ("train_loss", "loss")])
    first, *thin, second = figure.axes[0].lines
    np.testing.assert_allclose(first.get_xydata(), [[0, 0.2], [1, 0.4]], err_msg="the mean ends with the first run")
    assert [line.get_linewidth() < 1 for line in thin] == [True, True]
    np.testing.assert_allclose(thin[1].get_xydata(), [[1, 0.5], [2, 0.6], [3, 0.7]])
    np.testing.assert_allclose(second.get_xydata(), [[0, 0.2]])
    assert len(figure.axes[0].collections) == 1
    assert_drawn(figure)


@pytest.mark.parametrize("variants", [{"a": THREE}, {"a": {1: 0.5}}, {"a": THREE, SIGNS: {1: 0.7}, "c": {2: 0.9}}])
def test_means_and_points_are_drawn_for_one_and_several_variants(variants):
    table = table_of(**variants)
    summary = summarise(table, logs_of(table), recipe_of())
    drawn = variants_figure(summary)
    means = next(c for c in drawn.axes[0].collections if c.get_label() == "mean").get_offsets()
    assert means[:, 0].tolist() == pytest.approx(list(summary["map"]))
    assert_drawn(drawn)
    assert_drawn(scatter_figure(summary, "trainable", "parameters"))


@pytest.mark.parametrize("models", [1, 3])
def test_curves_of_pairs_tell_the_area_below_them(models):
    rng = np.random.default_rng(0)
    names = rng.integers(0, 3, 12)
    similar = {f"{SIGNS}{i}": rng.random((12, 12)) for i in range(models)}
    figure = roc_figure(similar, names, {name: 0.5 + i / 8 for i, name in enumerate(similar)})
    told = [line.get_label().rpartition(", ")[2] for line in figure.axes[0].lines if "AUC" in line.get_label()]
    assert told == [f"AUC {0.5 + i / 8:.4f}" for i in range(models)]
    share = figure.axes[1].lines[0].get_ydata()
    same = names[:, None] == names
    assert share[-1] == pytest.approx((~same[np.triu_indices(12, 1)]).mean())
    assert_drawn(figure)


def test_figures_of_a_run_say_what_is_to_be_seen():
    precision = {f"a{i:02d}": i / 20 for i in range(12)}
    told = weakest_words(precision)
    assert told == "a00 is found worst, with average precision 0.00; half of 12 identities reach 0.28."
    rising = {name: 3 + i for i, name in enumerate(precision)}
    assert "with more images are found better (Spearman's +1.00 over 12" in rarity_words(rising, precision)
    falling = dict(zip(rising, reversed(rising.values())))
    assert "with more images are found worse (Spearman's -1.00 over 12" in rarity_words(falling, precision)
    mixed = dict(zip(rising, [3, 9, 1, 8, 2, 7, 7, 2, 8, 1, 9, 3]))
    assert "can't be told to be found better or worse" in rarity_words(mixed, precision)
    assert rarity_words(dict.fromkeys(precision, 4), precision) == ""  # all have as many
    assert rarity_words(rising, dict(list(precision.items())[:9])) == ""  # nine identities tell nothing
    assert "90% of the time" in pairs_words(0.9)
    assert pairs_words(math.nan) == ""


@pytest.mark.parametrize("columns", [1, 3])
def test_histograms_lay_tables_over_each_other(columns):
    table = pd.DataFrame(np.random.default_rng(0).random((30, columns)), columns=list("abc")[:columns])
    assert_drawn(histograms_figure({"all": table}))
    assert_drawn(histograms_figure({"all": table, "kept": table[:5]}))


@pytest.mark.parametrize("trials", [1, 5])
def test_every_finished_trial_is_a_line_through_its_settings(trials):
    table = pd.DataFrame(
        {
            "number": range(trials + 1),
            "value": [*np.linspace(0.1, 0.9, trials), math.nan],  # the last was pruned
            "train.lr": np.logspace(-5, -1, trials + 1),
            "loss.name": [SIGNS, "b", "a", SIGNS, "b", "a"][: trials + 1],
            "state": "COMPLETE",
        }
    )
    figure = parallel_figure(table)
    assert sum(len(line.get_xdata()) == 3 for line in figure.axes[0].lines) == trials
    assert_drawn(figure)


def test_tiles_leave_gaps_and_break_rows():
    red = Image.new("RGB", (10, 20), (255, 0, 0))
    sheet = tiles([red, None, red], ["a", "b", SIGNS], columns=2, side=50)
    assert sheet.size == (2 * 62, 2 * 80)
    assert sheet.getpixel((20, 20)) == (255, 0, 0)
    assert sheet.getpixel((90, 20)) == (255, 255, 255)
    assert sheet.getpixel((20, 110)) == (255, 0, 0)


# numbers that were measured, and no others


def test_variants_rank_by_their_mean_and_show_their_median_run():
    table = table_of(
        lucky={1: 0.1, 2: 0.2, 3: 0.9}, steady={1: 0.5, 2: 0.6, 3: 0.7}, pair={1: 0.7, 2: 0.4}, none={1: math.nan}
    )
    shown = [(table.variant[i], table.seed[i]) for i in jaguar_kit.median_runs(table)]
    assert shown == [("steady", 2), ("pair", 2), ("lucky", 2)]


def test_identical_runs_are_named_as_such():
    table = table_of(first=THREE, same=THREE, other={seed: value + 0.01 for seed, value in THREE.items()})
    logs = logs_of(table)
    logs |= {f"same/seed{seed}": logs[f"first/seed{seed}"].assign(seconds=9.0) for seed in THREE}
    logs |= {f"other/seed{seed}": logs[f"first/seed{seed}"].assign(train_loss=0.123) for seed in THREE}
    compared = compare_variants(table, logs=logs)
    assert list(compared.verdict) == ["identical", "higher"]
    told = findings(summarise(table, logs, recipe_of()), compared, table)
    assert any("same - first: identical runs; what varies changed nothing on these images." in line for line in told)


def test_equal_scores_of_other_runs_are_not_identical():
    table = table_of(first=THREE, second=THREE)
    logs = {key: log.assign(train_loss=log.train_loss + ("second" in key)) for key, log in logs_of(table).items()}
    assert list(compare_variants(table, logs=logs).verdict) == ["not distinguishable"]


@pytest.mark.parametrize("settings", ["", " (radius 0.1)"])
def test_reliance_is_found_whatever_the_background_s_settings(settings):
    own = {f"map@swap{settings}": 0.3, f"map@background_only{settings}": 0.25, "map@chance": 0.2}
    table = table_of(first=THREE).assign(**own)
    summary = summarise(table, logs_of(table), recipe_of())
    assert summary.reliance[0] == pytest.approx(np.mean(list(THREE.values())) - 0.3)
    told = " ".join(findings(summary, pd.DataFrame(columns=["variant"]), table))
    assert "0.3000 behind the backgrounds of other images, 0.2500 from the background alone (chance 0.2000)" in told


def test_a_background_is_not_taken_for_another_of_a_longer_name():
    assert background_column(["map@swapped", "map@swap_x"], "swap") is None


def test_published_figures_stand_apart_from_other_data(undrawn, tmp_path):
    _, told = report_of(tmp_path, published={"second": "0.8888"})
    assert "published" not in columns_of(told, "## Results")
    assert columns_of(told, "### Published by others") == {"published by others": ["second"], "value": ["0.8888"]}
    assert "on other images than these: not to be compared" in told


@every(
    ("images", "identities", "slug", "same"),
    [
        (1895, 31, "jaguar-re-id", True),
        (1894, 31, "jaguar-re-id", False),
        (1895, 30, "jaguar-re-id", False),
        (1895, 31, "round-2-jaguar-reidentification-challenge", True),
        (1895, 31, "animal-clef-2025", False),
        (1895, 31, "another", False),
    ],
)
def test_published_figures_belong_to_data_of_their_number(images, identities, slug, same):
    train = pd.DataFrame({"identity": [f"cat{i % identities}" for i in range(images)]})
    competition = jaguar_kit.Competition(None, train, None, train.iloc[:0], None)
    assert published_on(competition, slug) == same


# whatever a model yields


DEGENERATE = {
    "all alike": np.ones((12, 8)),
    "all zero": np.zeros((12, 8)),
    "nearly alike": np.ones((12, 8)) + 1e-9 * np.random.default_rng(0).normal(size=(12, 8)),
    "two places": np.repeat(np.eye(2, 8), 6, axis=0),
    "one wide": np.random.default_rng(0).normal(size=(12, 1)),
    "huge": np.random.default_rng(0).normal(size=(12, 8)) * 1e30,
    "tiny": np.random.default_rng(0).normal(size=(12, 8)) * 1e-30,
    "two images": np.random.default_rng(0).normal(size=(2, 8)),
    "three images": np.random.default_rng(0).normal(size=(3, 8)),
    "one image": np.ones((1, 8)),
}


@pytest.mark.parametrize("embeddings", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_a_report_is_written_whatever_a_model_yields(embeddings, tmp_path, monkeypatch):
    """Of two identities, and of one."""
    monkeypatch.setattr(sklearn.manifold, "TSNE", partial(sklearn.manifold.TSNE, max_iter=250))
    embeddings, details, count = embeddings.astype(np.float32), [], len(embeddings)
    similarity, images = jaguar_kit.similarity_matrix(embeddings), [Image.new("RGB", (8, 8))] * count
    for names in ("ab", "a"):
        labels = np.array([*names] * count)[:count]
        metrics = jaguar_kit.retrieval_metrics(similarity, labels)
        sheet = jaguar_kit.contact_sheet(images, labels, similarity, range(count), [""] * count)
        detail = {"name": names, "why": "", "labels": labels, "embeddings": embeddings, "similarity": similarity}
        details.append({**detail, "metrics": metrics, "sheet": sheet})
    table = table_of(first={1: details[0]["metrics"]["map"]})
    write_report(tmp_path, recipe_of(), table, logs_of(table, log_of(0.2)), details)
    told = (tmp_path / "report.md").read_text()
    assert told.count("No map of the") == 2 - told.count("-map.png")
    if count < 4 or np.ptp(embeddings) == 0:
        assert told.count(f"No map of the {count} validation embeddings: they are fewer than four, or all alike.") == 2


def test_embeddings_that_are_no_numbers_have_no_map():
    assert map_figure(np.full((9, 4), np.nan), np.array(["a"] * 9)) is None


def test_runs_that_end_alike_but_are_used_otherwise_are_not_identical():
    table = table_of(first=THREE, second=THREE)
    table["map_postprocessed"] = [0.5, 0.6, 0.7, 0.5, 0.6, 0.71]
    logs = {key: log_of(0.1, 0.2) for key in logs_of(table)}
    assert list(compare_variants(table, logs=logs).verdict) == ["not distinguishable"]
    table["map_postprocessed"] = [0.5, 0.6, 0.7] * 2
    assert list(compare_variants(table, logs=logs).verdict) == ["identical"]


def test_reliance_needs_the_animals_own_background():
    swapped = table_of(first=THREE).assign(**{"map@swap": 0.3, "background": "black"})
    assert "reliance" not in summarise(swapped, logs_of(swapped), recipe_of())
    both = swapped.assign(**{"map@original": 0.45, "map@chance": 0.1})
    summary = summarise(both, logs_of(both), recipe_of())
    assert summary.reliance[0] == pytest.approx(0.15)
    assert "has mAP 0.4500 on images as they are, 0.3000 behind" in " ".join(
        findings(summary, pd.DataFrame(columns=["variant"]), both)
    )


def test_numbers_of_a_column_are_written_alike_and_what_no_row_fills_has_no_column(tmp_path):
    page = Page("A page")
    rows = [
        {"steps": "raw", "gain": 0.0054, "low": math.nan, "mended": "", "used": True, "seconds": 0.6882,
         "train.lr": 1e-4},
        {"steps": "tta", "gain": -0.000334, "low": math.nan, "mended": "", "used": False, "seconds": 143.2,
         "train.lr": 2.5e-3},
    ]  # fmt: skip
    page.table(pd.DataFrame(rows))
    assert page.lines[-1].splitlines() == [
        "| steps | gain | used | seconds | train.lr |",
        "| --- | --- | --- | --- | --- |",
        "| raw | 0.0054 | yes | 0.7 | 0.0001 |",
        "| tta | -0.0003 | no | 143 | 0.0025 |",
    ]
    assert "<thead><tr>" in page.html[-1]  # a sheet of paper repeats it
    assert ">train.<wbr>lr</th>" in page.html[-1]


def test_a_table_of_one_seed_has_no_words_for_columns_that_it_lacks():
    one = table_of(first={1: 0.5}, second={1: 0.6})
    assert difference_words(compare_variants(one, logs=logs_of(one)), "first") == (
        "difference: of mAP to first on the same seeds; epochs more: what it takes more."
    )
    rising = {seed: value + 0.01 * seed for seed, value in THREE.items()}
    three = table_of(first=THREE, second=rising, third=rising)
    told = difference_words(compare_variants(three, logs=logs_of(three)), "first")
    assert "with its 95 % interval; p: paired t-test; p_holm: corrected" in told


def test_what_is_left_out_of_a_list_is_counted():
    assert first_of(["a", "b"], 2) == "a, b"
    assert first_of(list("abcde"), 2) == "a, b and 3 more"
    assert [range_words(pd.Series(values)) for values in ([2, 2], [1, 3])] == ["2", "1 to 3"]


def test_curves_say_in_how_many_runs_a_loss_falls():
    rising, falling = (log_of(0.1, 0.2, 0.3).assign(train_loss=loss, val_loss=2.0) for loss in ([9, 1, 2], [9, 2, 1]))
    grouped = {"first": {1: rising, 2: falling}, "second": {1: falling}}
    assert falls_words(grouped, {"train_loss": "training loss", "val_loss": "validation loss"}) == (
        "Lower in the last epoch than in the first: training loss in 2 of 3 runs, validation loss in 0 of 3 runs."
    )
    assert falls_words({"first": {1: rising[:2]}}, {"train_loss": "training loss"}) == ""
    alone = falls_words({"first": {1: rising}}, {"train_loss": "training loss"})
    assert alone == "Lower in the last epoch than in the first: training loss: no."


def test_a_caption_speaks_of_arrows_where_there_are_some():
    told = pd.DataFrame({"variant": ["a", "b", "c"], "difference": [0.01, 0.02, 0.01], "verdict": "", "measure": "map"})
    told = told.assign(n=2, low=-0.03, high=[0.03, 0.03, 0.04], identity_low=math.nan, identity_high=math.nan)
    assert "Arrows" not in effects_caption(told, "first", 1)
    told["high"] = [0.03, 0.03, 9]
    assert "Arrows: the interval reaches beyond the scale." in effects_caption(told, "first", 1)


def test_the_page_of_near_duplicates_says_what_its_figures_show():
    names = np.array(["a", "a", "b", "b"])
    distance = np.full((4, 4), 20)
    distance[0, 1] = distance[1, 0] = distance[2, 3] = distance[3, 2] = 3
    assert hash_words(distance, names) == "Where 20 bits may differ, more pairs show two identities than one."
    assert hash_words(distance[:2, :2], names[:2]).startswith("At no number of bits ")
    assert groups_words("ssim", np.array([0, 0, 0, 1, 2, 2])).startswith(
        "ssim finds 2 groups, the largest of 3 images."
    )


def test_the_legend_of_similarities_covers_no_bar():
    rng = np.random.default_rng(0)
    figure = similarity_figure(rng.uniform(-1, 1, (20, 20)), np.repeat(["a", "b"], 10))
    figure.canvas.draw()
    (ax,) = figure.axes
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1
