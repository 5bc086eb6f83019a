"""Reports that answer first: what the numbers bear, differences to the control, what varies, and the same again."""

from __future__ import annotations

import base64
import io
import re
import shlex

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
from cases import every
from jaguar_kit import Page, recipe_from_dict, run_recipe, write_report
from jaguar_kit_tools.experiments.answer import (
    answer_words,
    changes_table,
    control_first,
    control_of,
    effects,
    effects_message,
    expected_words,
    scores_words,
    shown_runs,
    things_changed,
)
from jaguar_kit_tools.experiments.comparison import report_command
from jaguar_kit_tools.experiments.facts import again_words, same_by_name
from jaguar_kit_tools.experiments.figures import MOST_NAMED, effects_figure, map_figure, scale_of
from jaguar_kit_tools.experiments.report import across_of, idle_steps
from PIL import Image
from test_room_reports import THREE, log_of, logs_of, recipe_of, table_of

SMALL = {
    "data": {"size": 32},
    "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
    "train": {"epochs": 2},
}


def moved(by, wobble=0.001):
    """The runs of THREE, each higher by about so much."""
    return {seed: value + by + wobble * seed for seed, value in THREE.items()}


def identities_of(*, noise=0.01, **gains):
    """Mean AP of twenty identities by variant: `first`, and others that gain so much, each identity a little else."""
    rng = np.random.default_rng(0)
    start = rng.random(20) / 2
    others = {name: start + gain + noise * rng.normal(size=20) for name, gain in gains.items()}
    return pd.DataFrame({"first": start, **others})


# the control


@every(
    ("variants", "control"),
    [(["a", "b"], "a"), (["a", "Baseline"], "Baseline"), (["a", "control", "default"], "control"), (["x"], "x")],
)
def test_the_control_is_the_first_or_the_one_of_its_name(variants, control):
    assert control_of(variants) == control


def test_a_control_by_name_is_what_all_is_compared_with(tmp_path):
    table = table_of(tried=moved(0.1), control=THREE)
    write_report(tmp_path, recipe_of(variants={"tried": {}, "control": {}}), table, logs_of(table), [])
    told = (tmp_path / "report.md").read_text()
    assert "A gain over control is held for tried" in told
    assert "| tried - control |" in told
    assert control_first(table, "control").variant.tolist() == ["control"] * 3 + ["tried"] * 3


def test_a_control_without_a_finished_run_is_missed(tmp_path):
    table = table_of(second=THREE, third=moved(0.1))
    recipe = recipe_of(variants={"first": {}, "second": {}, "third": {}})
    write_report(tmp_path, recipe, table, logs_of(table), [])
    told = (tmp_path / "report.md").read_text()
    assert "first, the control, has no finished run: second stands in." in told


def test_the_control_is_shown_and_equal_runs_once():
    table = table_of(first=THREE, same=THREE, best=moved(0.2), good=moved(0.1), low=moved(-0.1))
    rows, alike = shown_runs(table, "first", 3)
    assert [table.variant[row] for row in rows] == ["first", "best", "good"]
    assert alike == {"same": "first"}
    rows, alike = shown_runs(table, "low", 1)
    assert [table.variant[row] for row in rows] == ["low", "best"]


# what the numbers bear


def said_of(by_identity=None, across=None, **variants):
    table = table_of(**variants)
    if across is not None:
        table = table.assign(map_across=across, identities_across=20)
    told = effects(table, {}, {"map": by_identity})
    return told, " ".join(answer_words(told, table.variant.iloc[0]))


def test_a_gain_is_held_by_seeds_and_identities_together():
    told, said = said_of(identities_of(second=0.1), first=THREE, second=moved(0.1))
    assert told.verdict.tolist() == ["higher"]
    assert said.startswith("A gain over first is held for second (mAP +0.1020 [")
    assert "3 seeds, paired, and on 20 identities" in said


def test_seeds_alone_hold_no_gain_that_other_animals_may_not_have():
    told, said = said_of(identities_of(second=0.01, noise=0.3), first=THREE, second=moved(0.1))
    assert told.low[0] > 0 > told.identity_low[0]
    assert told.verdict.tolist() == ["not to be told"]
    assert said.startswith("A gain over first is held for no variant. Not to be told from first: second (")


def test_one_seed_holds_nothing_however_sure_the_identities():
    told, said = said_of(identities_of(second=0.1), first={1: 0.5}, second={1: 0.6})
    assert told.identity_low[0] > 0
    assert told.verdict.tolist() == ["not to be told"]
    assert "over identities" in said
    assert "one seed holds nothing" in said


def test_where_nothing_is_told_the_answer_says_how_much_stays_possible():
    told, said = said_of(first=THREE, second={1: 0.60, 2: 0.50, 3: 0.48})
    most = max(abs(told.low[0]), abs(told.high[0]))
    assert f"may still differ by up to {most:.4f}: a hypothesis of no difference is not refuted there" in said


def test_what_was_expected_is_held_or_refuted_or_not_to_be_told():
    higher, lower, alike = moved(0.1), moved(-0.1), {1: 0.60, 2: 0.50, 3: 0.48}
    told, _ = said_of(first=THREE, up=higher, down=lower, near=alike)
    for expects, expected in (
        ({"*": "higher"}, "Expected to be higher than first: held for up; refuted for down; not to be told for near."),
        ({"*": "lower"}, "Expected to be lower than first: held for down; refuted for up; not to be told for near."),
        ({"*": "same"}, "Expected to be the same as first: refuted for up, down; not refuted for near."),
        ({"up": "higher", "near": "same"}, "Expected to be higher than first: held for up. Expected to be the same as"),
    ):
        assert " ".join(expected_words(told, "first", expects)).startswith(expected), expects
    assert expected_words(told, "first", {}) == []
    one, _ = said_of(first={1: 0.5}, near={1: 0.51})
    assert expected_words(one, "first", {"*": "same"}) == ["Expected to be the same as first: not to be told for near."]


def test_measures_that_disagree_are_not_one_answer():
    first, other = np.array(list(THREE.values())), np.array(list(moved(0.1).values()))
    runs = {"first": THREE, "second": moved(0.1)}
    assert "contradict each other for second" in said_of(across=[*first, *(2 * first - other)], **runs)[1]
    alone = said_of(across=[*first, *(first + np.array([0.1, -0.1, 0.02]))], **runs)[1]
    assert "held by both measures for no variant. By one measure alone a gain is held for second" in alone


def test_equal_numbers_and_losses_are_said_as_such():
    told, said = said_of(first=THREE, same=THREE, worse=moved(-0.1))
    assert told.set_index("variant").verdict.to_dict() == {"same": "same", "worse": "lower"}
    assert "Worse than first: worse (mAP -0.0980 [" in said
    assert "With the very same mAP as first, so that nothing is learned of what varies: same." in said


def test_too_few_identities_across_encounters_give_no_answer(tmp_path):
    table = table_of(first=THREE, second=moved(0.1)).assign(map_across=0.3, identities_across=9)
    assert effects(table, {}, {}).measure.unique().tolist() == ["map"]
    write_report(tmp_path, recipe_of(), table, logs_of(table), [])
    assert "Across encounters 9 identities can be asked for" in (tmp_path / "report.md").read_text()


def test_one_variant_answers_nothing(tmp_path):
    table = table_of(only=THREE)
    write_report(tmp_path, recipe_of(hypothesis="It helps."), table, logs_of(table), [])
    told = (tmp_path / "report.md").read_text()
    assert "Not to be told: only alone was measured" in told
    assert "effects" not in told
    table = table_of(first={1: np.nan}, second={1: 0.5})
    write_report(tmp_path, recipe_of(), table, logs_of(table), [])
    assert "first, or all others, lack a validation mAP" in (tmp_path / "report.md").read_text()


def test_what_is_submitted_is_told_with_both_measures_and_a_warning():
    row = {"map": 0.5, "map_across": 0.3, "map_postprocessed": 0.4, "map_postprocessed_across": 0.35, "test_map": 0.6}
    said = scores_words(row)
    assert said.startswith("validation mAP after its steps 0.4000; across encounters after its steps 0.3500; test mAP")
    assert "WARNING, its steps lose: raw validation mAP 0.5000, across encounters 0.3000" in said
    assert "WARNING" not in scores_words({**row, "map": 0.3, "map_across": 0.2})


# the figure


def test_differences_are_drawn_about_0_sorted_and_on_a_scale_of_their_own_size():
    table = table_of(first=THREE, low=moved(-0.005, 1e-4), high=moved(0.005, 1e-4), same=THREE)
    told = effects(table, {}, {})
    names = ["high", "same", "low"]
    by_seed = table.pivot_table(index="seed", columns="variant", values="map")
    figure = effects_figure(told, by_seed.sub(by_seed["first"], axis=0), names, scale_of(told), "mAP")
    ax = figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    assert ax.get_xlim()[1] == -ax.get_xlim()[0] < 0.01, "an effect of .005 is half the panel"
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)
    assert [text.get_text() for text in ax.texts] == ["+0.0052", "the same", "-0.0048"]


def test_a_huge_interval_does_not_hide_the_others():
    table = table_of(first=THREE, sure=moved(0.005, 1e-4), fine=moved(0.006, 1e-4), wild={1: 0.9, 2: 0.1, 3: 0.5})
    told = effects(table, {}, {})
    told.loc[told.variant == "wild", "difference"] = 0.001
    assert told.high.max() > 0.5
    assert scale_of(told) < 0.1


def test_both_measures_stand_side_by_side_on_one_scale(tmp_path, monkeypatch):
    drawn = {}
    dot = Image.new("RGB", (1, 1))

    def kept(page, name, figure, caption):
        drawn[name] = figure
        page.image(name, dot, caption)

    monkeypatch.setattr(Page, "figure", kept)
    table = table_of(first=THREE, a=moved(0.1), b=moved(0.2)).assign(identities_across=20)
    table["map_across"] = table["map"] / 3
    logs = logs_of(table, log_of(0.2, 0.3, 0.5).assign(map_across=0.1))
    write_report(tmp_path, recipe_of(), table, logs, [])
    one, other = (drawn[name].axes[0] for name in ("effects", "effects_map_across"))
    assert one.get_xlim() == other.get_xlim()
    labels = [[text.get_text() for text in ax.get_yticklabels()] for ax in (one, other)]
    assert labels == [["b", "a"]] * 2
    page = (tmp_path / "report.html").read_text()
    beside = page.partition('<div class="beside">')[2].partition("</div></div>")[0]
    assert beside.count("<img") >= 1
    curves = [ax.get_ylabel() for figure in drawn.values() for ax in figure.axes]
    assert curves.count("validation mAP") == 1, "the curve of validation mAP is drawn once"
    left, right = drawn["curves"].axes
    assert left.get_ylim() == right.get_ylim()


# what varies


def test_a_part_is_one_thing_and_each_setting_without_a_part_too():
    base = recipe_of()
    schedule = {"train": {"schedule": {"name": "step", "factor": 0.5, "every": 10}}}
    two = {"train": {"lr": 0.1, "patience": 9}}
    told = [things_changed(base, recipe_of(**one)) for one in (schedule, two)]
    assert list(told[0]) == ["train.schedule"]
    assert told[0]["train.schedule"].endswith("plateau to step (factor 0.5, every 10)")
    assert sorted(told[1]) == ["train.lr", "train.patience"]


def test_the_table_of_changes_names_the_control_what_differs_and_what_was_found(tmp_path):
    variants = {
        "hot": {"why": "a hotter rate", "train": {"lr": 0.1}},
        "control": {"why": "as it is"},
        "both": {"train": {"lr": 0.1}, "augment": [{"name": "erasing", "p": 0.4}]},
        "late": {"train": {"schedule": {"name": "step", "every": 50}}},
    }
    recipe = recipe_of(variants=variants, seeds=[1, 2, 3])
    changes = changes_table(recipe)
    assert changes.variant.tolist() == ["hot", "both", "late"]
    assert "augment: none to erasing (p 0.4" in changes["differs from control in"][1]
    assert changes.note.tolist() == ["", "2 things at once: a confounder", ""]
    table = table_of(hot=moved(-0.1), control=THREE, both=moved(0.1), late=THREE)
    write_report(tmp_path, recipe, table, logs_of(table), [])
    rows = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| late |")]
    assert "| the very mAP of the control; its schedule never acted |" in rows[0]


# the page


def test_the_answer_stands_first_and_settings_last_and_folded(tmp_path):
    readings = [{"about": "the rate", "text": {"train": {"lr": 0.01}}, "code": "a tenth", "taken": "code"}]
    recipe = recipe_of(hypothesis="Hotter helps.", protocol="Three seeds.", readings=readings)
    table = table_of(first=THREE, second=moved(0.1))
    write_report(
        tmp_path, recipe, table, logs_of(table), [], ["a note"], again="python again", submitted="Submitted: x."
    )
    page, told = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    parts = ("Hotter helps.", "## Answer", "Submitted: x.", "Three seeds.", "a note", "## Findings", "python again")
    places = [told.index(part) for part in (*parts, "## Settings")]
    assert places == sorted(places)
    assert [told.count(word) for word in ("the rate", "a tenth", "Hotter helps.")] == [1, 1, 1]
    assert re.search(r"<h2[^>]*>Settings</h2><details><summary>[^<]*</summary><pre>[^<]*</pre></details>", page)


def test_a_page_carries_pictures_as_it_shows_them_and_the_folder_the_originals(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 2400, 3), dtype=np.uint8))
    page = Page("pictures")
    page.image("wide", noise, "Wide.")
    text = page.write(tmp_path).read_text()
    small = base64.b64decode(re.search(r"data:image/webp;base64,([^\"]+)", text)[1])
    shown = Image.open(io.BytesIO(small))
    assert (shown.format, shown.size) == ("WEBP", (1208, 453))
    assert Image.open(tmp_path / "figures" / "wide.png").size == noise.size


def test_a_map_of_many_identities_has_a_legend_for_those_it_colours():
    labels = np.repeat([f"cat{n:02d}" for n in range(MOST_NAMED + 5)], 2)
    figure = map_figure(np.random.default_rng(0).normal(size=(len(labels), 8)), labels)
    named = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(named) == MOST_NAMED + 1
    assert "5 others" in named


def test_steps_that_change_no_score_are_named():
    rows = [
        {"steps": "raw", "map": 0.5, "map_across": 0.3, "mended": 0.0, "broken": 0.0},
        {"steps": "+ a", "map": 0.6, "map_across": 0.3, "mended": 0.1, "broken": 0.0},
        {"steps": "+ b", "map": 0.6, "map_across": 0.3, "mended": 0.1, "broken": 0.0},
    ]
    assert idle_steps(rows) == ["+ b"]
    assert idle_steps([]) == []


# a whole experiment


@pytest.fixture(scope="module")
def whole(mini, tmp_path_factory):
    """An experiment of three variants and two seeds, one variant of which changes nothing."""
    variants = {
        "hot": {"train": {"lr": 0.01}},
        "control": {"why": "as it is"},
        "idle": {"train": {"schedule": {"name": "step", "every": 50}}},
    }
    recipe = recipe_from_dict({"name": "whole", **SMALL, "seeds": [1, 2], "variants": variants})
    return run_recipe(recipe, data=mini, out=tmp_path_factory.mktemp("whole"), device="cpu")


def test_a_report_shows_its_control_and_says_what_is_submitted(whole):
    told = (whole.folder / "report.md").read_text()
    details = re.findall(r"^## (\w+)/seed\d$", told, re.MULTILINE)
    assert details[0] == "control"
    assert "the numbers of idle are the very same as those of control, shown once" in told or "idle" in details
    chosen = jaguar_kit.submission_of(whole)
    row = whole.table[(whole.table.variant == chosen.parts[-3]) & (whole.table.seed == int(chosen.parts[-2][4:]))]
    assert f"Submitted: {chosen.parts[-3]}/{chosen.parts[-2]}, validation mAP {row['map'].iloc[0]:.4f}" in told
    assert len(re.findall("submitted", told, re.IGNORECASE)) == 1, "it is said in one place"
    assert whole.report.stat().st_size < 3e6


def test_precision_across_encounters_by_identity_has_the_mean_of_the_run(whole, mini):
    run = jaguar_kit.RunFolder(whole.folder / "control" / "seed1")
    spec = next(c for c in jaguar_kit.expand(recipe_from_dict({"name": "whole", **SMALL, "seeds": [1]})))
    images = jaguar_kit.open_data(spec.recipe, jaguar_kit.load_competition(mini))
    told = across_of(run, spec, images)
    assert np.mean(list(told.values())) == pytest.approx(run.metrics()["map_across"])


@pytest.mark.ci
def test_the_command_of_a_report_makes_the_very_same_again(whole, tmp_path):
    told = (whole.folder / "report.md").read_text()
    command = told.partition("## The same again")[2].partition("```\n")[2].partition("\n```")[0].splitlines()
    assert command[0].startswith("# jaguar_kit ")
    assert command[1] == "# seeds: 1, 2"
    words = shlex.split(command[-1])
    assert words[:4] == ["python", "-m", "jaguar_kit", "report"]
    words[words.index("--again") + 1] = str(tmp_path / "again")
    assert report_command(words[4:]) == 0
    again = pd.read_csv(next((tmp_path / "again").glob("*/results.csv")))
    kept = ["variant", "seed", "map", "map_across", "best_epoch"]
    pd.testing.assert_frame_equal(again[kept], pd.read_csv(whole.folder / "results.csv")[kept])


def test_a_recipe_of_the_kit_is_made_again_by_its_name(tmp_path):
    recipe = jaguar_kit.load_recipe("quickstart", ["train.epochs=1"])
    assert same_by_name(recipe)
    assert not same_by_name(jaguar_kit.replace(recipe, seed=7))
    command = again_words(recipe, tmp_path, "my data", "cpu", {"torch": "2.0"})
    assert command == (
        "# torch 2.0\n# seed: 0\npython -m jaguar_kit run quickstart -o train.epochs=1 --data 'my data' --device cpu "
        "--out again"
    )


def test_again_is_for_one_folder():
    with pytest.raises(jaguar_kit.KitError, match="--again: is for one folder"):
        report_command(["a", "b", "--again", "there"])


def test_a_measure_without_any_difference_has_a_message():
    told = pd.DataFrame({"measure": ["map"], "variant": ["b"], "difference": [float("nan")], "verdict": [""]})
    assert effects_message(told, "a") == "No variant has a run to pair with a's by this measure."
