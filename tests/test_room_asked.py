"""What reports must answer beyond mAP: spread, cost, choice of the epoch, identities, searches, near-duplicates."""

from __future__ import annotations

import math

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaguar_kit import KitError, compare_variants, recipe_from_dict, summarise
from jaguar_kit_tools.experiments import quality as quality_room
from jaguar_kit_tools.experiments.analysis import (
    SENSITIVITY,
    counts_by_kind,
    counts_by_size,
    keep_sharper,
    thresholds_tried,
)
from jaguar_kit_tools.experiments.comparison import means_in_common
from jaguar_kit_tools.experiments.figures import marginal_figure
from jaguar_kit_tools.experiments.findings import across_words, findings, holm, next_words, same_words
from jaguar_kit_tools.experiments.quality import quality_of, quality_of_files
from jaguar_kit_tools.experiments.report import report_identities, selection_table, stages_table
from jaguar_kit_tools.experiments.search_page import choices_table, trial_seconds
from test_room_reports import THREE, log_of, logs_of, recipe_of, table_of


def test_the_summary_tells_the_spread_of_map_and_of_the_best_epoch():
    table = table_of(first=THREE).assign(best_epoch=[2, 5, 3])
    row = summarise(table, logs_of(table), recipe_of()).iloc[0]
    values = np.array(list(THREE.values()))
    assert row.se == pytest.approx(values.std(ddof=1) / math.sqrt(3))
    assert (row.least, row.most) == (0.48, 0.55)
    assert row.best_epoch_sd == pytest.approx(np.std([2, 5, 3], ddof=1))
    assert row.best_epochs == "2 to 5"
    assert row.map_variance == pytest.approx(np.var([0.3, 0.5, 0.4], ddof=1))


def test_steps_without_a_gradient_and_the_spread_of_norms_are_told():
    log = log_of(0.2, 0.3, 0.5).assign(steps_skipped=[math.nan, 1, 2], grad_norm=[math.nan, 1.0, 3.0])
    table = table_of(first={1: 0.5})
    row = summarise(table, logs_of(table, log), recipe_of()).iloc[0]
    assert row.steps_skipped == 3
    assert row.grad_norm_sd == pytest.approx(math.sqrt(2))


def test_a_comparison_tells_what_it_costs():
    table = table_of(first=THREE, second=THREE).assign(seconds=[100.0] * 3 + [150.0] * 3, epochs=[30] * 3 + [20] * 3)
    row = compare_variants(table).iloc[0]
    assert row["epochs more"] == -10
    assert row["time more"] == "+50%"


def test_the_summary_tells_the_last_losses_and_how_many_images_took_part():
    table = table_of(first=THREE).assign(trained_images=[30, 30, 36], validated_images=10)
    row = summarise(table, logs_of(table), recipe_of()).iloc[0]
    last = logs_of(table)["first/seed1"].iloc[-1]
    assert (row.last_train_loss, row.last_val_loss) == (last.train_loss, last.val_loss)
    assert (row.trained_images, row.validated_images) == (32, 10)
    table = table_of(first={1: 0.5, 2: 0.5}, second={1: 0.55, 2: 0.45}, third={1: 0.6, 2: 0.61})
    assert list(compare_variants(table).change) == ["+0.0%", "+21.0%"]


def test_a_comparison_has_the_means_over_what_all_experiments_ran():
    told = {"a: x": 0.4, "a: y": 0.6, "a: alone": 0.9, "b: x": 0.5, "b: y": 0.8}
    summary = pd.DataFrame({"variant": told.keys(), "map": told.values()})
    means = means_in_common(summary, ["a", "b"])
    assert means[["experiment", "map", "variants", "names"]].to_numpy().tolist() == [
        ["a", 0.5, 2, "x, y"],
        ["b", pytest.approx(0.65), 2, "x, y"],
    ]
    assert means_in_common(summary[:4], ["a", "b"]).empty


def test_a_deviation_is_judged_by_what_it_lets_one_claim():
    for spread, words in ((0.001, "small enough"), (0.1, "large")):
        table = table_of(first={seed: 0.5 + spread * (seed - 2) for seed in (1, 2, 3)})
        summary = summarise(table, logs_of(table), recipe_of())
        told = " ".join(findings(summary, pd.DataFrame(), table))
        assert (
            f"of about {2.8 * spread / math.sqrt(3):.3f} be seen, {5.6 * spread / math.sqrt(3):.0%} of mAP: {words}"
            in told
        )
    paired = table_of(first=THREE, second={seed: value + 0.1 for seed, value in THREE.items()})
    paired.loc[5, "map"] += 0.001
    compared = compare_variants(paired)
    half = float(compared.high[0] - compared.low[0]) / 2
    told = " ".join(findings(summarise(paired, logs_of(paired), recipe_of()), compared, paired))
    assert f"paired by seed of about {half:.3f} be seen" in told


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_that_of_its_definition(p):
    order, slow, most = sorted(range(len(p)), key=lambda i: p[i]), [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        most = max(most, (len(p) - rank) * p[i])
        slow[i] = min(most, 1.0)
    assert holm(np.array(p)).tolist() == pytest.approx(slow)
    with_gap = holm(np.array([*p, math.nan]))
    assert with_gap[:-1].tolist() == pytest.approx(slow)
    assert math.isnan(with_gap[-1])


def test_one_of_many_small_p_values_is_no_finding():
    others = {
        f"v{i}": {seed: value + 0.001 * i + 0.01 * math.sin(7 * i + seed) for seed, value in THREE.items()}
        for i in range(8)
    }
    others["clear"] = {seed: value + 0.3 + 0.001 * seed for seed, value in THREE.items()}
    compared = compare_variants(table_of(first=THREE, **others)).set_index("variant")
    assert compared.verdict["clear - first"] == "higher"
    assert (compared.p_holm >= compared.p - 1e-12).all()
    assert ((compared.verdict == "higher") == ((compared.p_holm < 0.05) & (compared.difference > 0))).all()


def test_what_was_validated_on_other_images_is_not_paired():
    table = table_of(first=THREE, second=THREE).assign(validated_on=["x"] * 3 + ["y"] * 3)
    row = compare_variants(table).iloc[0]
    assert row.verdict == "other validation images"
    assert math.isnan(row.low)


def test_runs_that_do_not_tell_their_images_compare_the_same_from_a_file(tmp_path):
    table = table_of(first={1: 0.5, 2: 0.6, 3: 0.55}, second={1: 0.6, 2: 0.71, 3: 0.66}).assign(validated_on="")
    table.to_csv(tmp_path / "results.csv", index=False)
    read = pd.read_csv(tmp_path / "results.csv")
    assert read.validated_on.isna().all()
    pd.testing.assert_frame_equal(compare_variants(read), compare_variants(table))
    both = pd.concat([read[read.variant == "first"], table[table.variant == "second"]])  # of two experiments
    assert compare_variants(both).verdict.tolist() == ["higher"]


def test_a_difference_on_one_seed_has_an_interval_over_identities():
    table = table_of(first={1: 0.5}, second={1: 0.6})
    by_identity = pd.DataFrame({"first": [0.5, 0.4, 0.6, 0.5] * 3, "second": [0.6, 0.55, 0.7, 0.58] * 3})
    compared = compare_variants(table)
    told = findings(summarise(table, logs_of(table), recipe_of()), compared, table, by_identity)
    low, high = jaguar_kit.mean_interval(by_identity["second"] - by_identity["first"])
    assert f"second - first: +0.1000 on one seed, over identities [{low:+.4f}, {high:+.4f}]: holds" in " ".join(told)
    assert "can't be told from noise" in " ".join(
        findings(summarise(table, logs_of(table), recipe_of()), compared, table)
    )


def test_what_is_the_very_same_counts_once_and_has_no_interval():
    table = table_of(first={1: 0.5}, same={1: 0.5}, other={1: 0.6}).assign(plain=0.4, epochs=3)
    by_identity = pd.DataFrame({"first": np.linspace(0.2, 0.8, 12)})
    by_identity = by_identity.assign(same=by_identity["first"], other=by_identity["first"] + np.linspace(0, 0.2, 12))
    compared = compare_variants(table)
    told = " ".join(findings(summarise(table, logs_of(table), recipe_of()), compared, table, by_identity))
    assert "mAP is higher in 2 of 2 runs" in told
    assert "same - first: +0.0000 on one seed, the very same for every identity." in told


def test_scenes_are_blamed_only_where_both_measures_are_certain():
    both = {seed: value + 0.1 for seed, value in THREE.items()}
    table = table_of(first=both, second=THREE).assign(plain_across=0.1)
    for across, certain in (([0.1, 0.11, 0.12, 0.3, 0.31, 0.33], True), ([0.1, 0.3, 0.2, 0.3, 0.1, 0.25], False)):
        own = table.assign(map_across=across)
        summary = summarise(own, logs_of(own), recipe_of())
        told = " ".join(across_words(own, summary))
        assert ("recognising the scene" in told) == certain
        assert ("can't be told from noise" in told) != certain


def test_variants_that_are_the_same_runs_are_one_result():
    table = table_of(first=THREE, a=THREE, b=THREE, c=THREE)
    logs = logs_of(table)
    logs |= {f"c/seed{seed}": log_of(0.2, 0.9) for seed in THREE}
    assert same_words(table, logs) == ["The very same runs, one result in all: a, b."]


@pytest.mark.ci
def test_the_top_of_a_report_says_what_ran_and_how_much_it_rests_on(mini, tmp_path):
    small = {"data": {"size": 32}, "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32}}
    recipe = jaguar_kit.override(recipe_from_dict({"name": "top", **small}), "train.epochs=1", "here")
    result = jaguar_kit.run_recipe(recipe, data=mini, out=tmp_path, device="cpu")
    page = result.report.read_text(encoding="utf-8")
    told = jaguar_kit.RunFolder(result.folder / "default" / "seed42").metrics()["validated"]
    labels = np.load(result.folder / "default" / "seed42" / "validation.npz")["labels"]
    pairs = sum(labels[i] == labels[j] for i in range(len(labels)) for j in range(i))
    assert told["pairs"] == pairs
    assert f"{told['images']} images, of which {told['queries']} are queries that count" in page
    assert "Changed on the command line" in page
    assert "train.epochs=1" in page
    assert "random weights" in page
    assert 0 < told["chance"] < 1


def test_what_next_follows_from_the_numbers():
    def told(table, compared=False):
        summary = summarise(table, logs_of(table), recipe_of())
        return " ".join(next_words(summary, compare_variants(table) if compared else pd.DataFrame(), table))

    assert "more seeds" in told(table_of(first={1: 0.5}))
    assert "more seeds" not in told(table_of(first=THREE))
    assert "Train longer: first was best in the last epoch" in told(table_of(first=THREE).assign(best_epoch=3))
    unsure = table_of(first=THREE, second={1: 0.53, 2: 0.54, 3: 0.52})
    row = compare_variants(unsure).iloc[0]
    half = (row.high - row.low) / 2
    assert f"takes about {math.ceil(3 * (half / abs(row.difference)) ** 2)} seeds" in told(unsure, True)


def test_the_epoch_that_each_metric_would_keep():
    log = log_of(0.2, 0.3, 0.5, 0.4).assign(top1=[0.1, 0.9, 0.2, 0.3])
    kept = selection_table({"a/seed1": log, "a/seed2": log}, "map").set_index("by")
    assert kept.epoch.to_dict() == {"map (used)": 2.0, "val_loss": 3.0, "top1": 1.0}
    assert kept["map"].to_dict() == {"map (used)": 0.5, "val_loss": 0.4, "top1": 0.3}


def test_stages_are_told_one_by_one():
    log = log_of(0.2, 0.3, 0.5, 0.4).assign(stage=[math.nan, 0, 0, 1], seconds=[math.nan, 1.0, 2.0, 4.0])
    table = stages_table({"a/seed1": log, "a/seed2": log})
    assert table.stage.tolist() == [1, 2]
    assert table.seconds.tolist() == [3.0, 4.0]
    assert table["map at end"].tolist() == [0.5, 0.4]
    assert stages_table({"a/seed1": log_of(0.2, 0.3)}).empty


def test_identities_that_gain_and_lose_stand_in_the_report():
    page = jaguar_kit.Page()
    by_identity = pd.DataFrame({"first": [0.5, 0.2, 0.4], "second": [0.9, 0.1, 0.4]}, index=["Ana", "Bela", "Cara"])
    report_identities(page, by_identity, "second")
    text = "\n".join(page.lines)
    assert "second against first" in text
    assert "1 gain, 1 lose" in text
    assert text.index("| Bela |") < text.index("| Ana |")


def test_a_search_tells_its_patterns_and_its_hours(tmp_path):
    trials = pd.DataFrame({"number": range(9), "state": "COMPLETE", "value": np.arange(9) / 10})
    trials["hidden"], trials["lr"] = [256, 512, 1024] * 3, np.linspace(1, 9, 9)
    table = choices_table(trials)
    hidden = table[table.setting == "hidden"].set_index("value")
    assert hidden["mean mAP"].to_dict() == pytest.approx({"256": 0.3, "512": 0.4, "1024": 0.5})
    assert hidden.trials.tolist() == [3, 3, 3]
    assert len(table[table.setting == "lr"]) == 3
    log_of(0.1, 0.2, 0.3).assign(seconds=[math.nan, 2.0, 3.0]).to_csv(tmp_path / "log.csv", index=False)
    assert trial_seconds(tmp_path) == 5
    assert trial_seconds(tmp_path / "none") == 0


def test_a_grid_has_marginal_curves():
    grid = {"model.head.layers": [2, 3], "model.head.hidden": [256, 512]}
    recipe = recipe_of(grid=grid)
    logs = {f"layers={a},hidden={b}/seed1": log_of(0.1, a / 10, b / 1000) for a in (2, 3) for b in (256, 512)}
    left, right = marginal_figure(recipe, logs).axes
    lines = {line.get_label(): line.get_ydata() for ax in (left, right) for line in ax.lines}
    assert lines["layers 2"][2] == pytest.approx((0.256 + 0.512) / 2)
    assert lines["hidden 256"][1] == pytest.approx(0.25)
    assert marginal_figure(recipe_of(), logs) is None


def test_queries_that_a_step_mends_or_breaks_are_counted():
    labels = np.array(list("aabbc"))
    before, after = (np.eye(5) for _ in range(2))
    before[0, 1] = before[1, 0] = 0.9  # a, a: right before and after
    before[2, 4] = before[3, 4] = 0.5  # b: wrong before
    after[:] = before
    after[2, 3] = after[3, 2] = 0.8  # mended
    after[1, 4] = 0.95  # broken
    told = [jaguar_kit.nearest_is_right(one, labels) for one in (before, after)]
    assert told[0].tolist()[:4] == [1, 1, 0, 0]
    assert math.isnan(told[0][4])
    measured = [{"": np.zeros(5), jaguar_kit.TOP1: one} for one in told]
    rows = jaguar_kit.rows_of_steps(["raw", "+ step"], measured, np.array([0, 0, 1, 1, 2]))
    assert (rows[0]["mended"], rows[0]["broken"]) == (0, 0)
    assert (rows[1]["mended"], rows[1]["broken"]) == (0.5, 0.25)


# the data


def test_identities_are_grouped_by_how_many_images_they_have():
    table = counts_by_size(pd.Series([1, 1, 3, 20, 21, 500])).set_index("images of an identity")
    assert table.identities.to_dict() == {"1": 2, "2 to 5": 1, "6 to 20": 1, "21 to 60": 1, "more than 60": 1}
    assert table.images.sum() == 546


def test_species_are_counted_and_the_dataset_where_species_are_untold():
    train = pd.DataFrame({"species": ["", "lynx", "lynx"], "dataset": ["s", "l", "l"], "identity": ["a", "b", "b"]})
    test = pd.DataFrame({"dataset": ["s", "s"]})
    table = counts_by_kind(train, test, "dataset").set_index("dataset")
    assert table.loc["l"].to_dict() == {
        "images": 2,
        "individuals": 1,
        "with one image": 0,
        "largest": 2,
        "test images": 0,
    }
    assert table.loc["s", "with one image"] == 1
    assert table.loc["s", "test images"] == 2


PAIRS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda p: p[0] < p[1]), max_size=12, unique=True
)


@given(PAIRS, st.permutations(range(8)))
def test_of_one_pair_after_the_other_the_sharper_stays(pairs, sharpness):
    pairs = np.array(sorted(pairs), int).reshape(-1, 2)
    kept, seen = keep_sharper(pairs, np.array(sharpness, float))
    gone, counted = set(), 0
    for one, other in pairs.tolist():
        if one not in gone and other not in gone:
            counted += 1
            gone.add(one if sharpness[one] < sharpness[other] else other)
    assert set(np.flatnonzero(~kept)) == gone
    assert seen == counted
    assert not any(kept[one] and kept[other] for one, other in pairs)


def curated(**how):
    rng = np.random.default_rng(0)
    identities = np.repeat(list("abc"), (60, 20, 20))
    vectors = rng.normal(size=(100, 8))
    vectors[:5] = vectors[5:10]  # near-duplicates
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    signals = pd.DataFrame({"sharpness": rng.random(100), "contrast": rng.random(100)})
    return signals, jaguar_kit.curate(signals, vectors @ vectors.T, identities, **how)


def test_percentiles_and_the_cap_of_all_images_are_those_before_any_stage():
    signals, done = curated(percentiles="all", cap="median", removal="greedy")
    rules = done.stages.set_index("stage").rule
    low = [np.percentile(signals[c], 5) for c in ("sharpness", "contrast")]
    assert rules["quality"] == f"sharpness < {low[0]:.2f}, contrast < {low[1]:.2f}"
    counts = pd.Series([60, 20, 20])
    assert rules["too many"] == f"more than {int(counts.median() + counts.std())} of an identity"
    assert rules["near-duplicate"].startswith("5 pairs")
    _, other = curated()
    assert other.stages.set_index("stage").rule["quality"] != rules["quality"]
    with pytest.raises(KitError, match="cap: 'medain' is not known; did you mean 'median'"):
        curated(cap="medain")


def test_quality_is_measured_at_full_resolution_and_kept(mini, tmp_path, monkeypatch):
    paths = sorted(str(p.relative_to(mini)) for p in (mini / "train" / "train").iterdir())[:3]
    told = quality_of_files(mini, paths, None, "three")
    whole = [np.dstack(jaguar_kit.read_image(mini / path)) for path in paths]
    np.testing.assert_allclose(told, [quality_of(image) for image in whole])
    small = jaguar_kit.quality_signals(jaguar_kit.open_store(mini, paths, 32))
    assert (told.sharpness != small.sharpness).all()
    monkeypatch.setattr(quality_room, "quality_of", None)
    pd.testing.assert_frame_equal(quality_of_files(mini, paths, None, "three"), told)


def test_methods_are_tried_at_other_thresholds():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    pixels[1] = pixels[0]
    points = rng.normal(size=(6, 4))
    points[1] = points[0]
    likeness = jaguar_kit.PairSimilarity(pixels, jaguar_kit.similarity_matrix(points))
    table = thresholds_tried(likeness, np.array(list("aabbcc")))
    assert set(table.method) == set(SENSITIVITY)
    assert (table.pairs >= 1).all()
    for _, own in table.groupby("method"):
        assert own.kept.between(1, 5).all()
    hashes = table[table.method == "perceptual_hash"]
    assert (hashes.pairs + hashes.across).is_monotonic_increasing


@pytest.mark.ci
def test_an_analysis_may_look_at_the_training_part_alone(mini, tmp_path):
    counts = {}
    for images in ("all", "training"):
        recipe = recipe_from_dict(
            {
                "name": images,
                "data": {"size": 32},
                "analysis": [{"name": "characteristics", "images": images}],
                "train": {"epochs": 0},
            }
        )
        result = jaguar_kit.run_recipe(recipe, data=mini, out=tmp_path, device="cpu")
        counts[images] = len(pd.read_csv(result.folder / "analysis" / "quality.csv"))
    train = len(pd.read_csv(mini / "train.csv"))
    assert counts["all"] == train
    assert 0.7 * train < counts["training"] < 0.9 * train
