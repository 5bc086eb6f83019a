"""Pages as somebody opens them, what is told while runs go on, and parts taken by name into a notebook."""

from __future__ import annotations

import re

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import torch
from browsing import Opened
from hypothesis import given
from hypothesis import strategies as st
from jaguar_kit import KitError, Page, load_recipe, recipe_from_dict, run_recipe
from jaguar_kit_tools.experiments import report as report_room
from jaguar_kit_tools.experiments import runs as runs_room
from jaguar_kit_tools.experiments.figures import new_figure
from jaguar_kit_tools.experiments.page import MOST_COLUMNS, markdown_html
from PIL import Image

SMALL = {
    "data": {"size": 32},
    "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
    "train": {"epochs": 2},
}


# a person's words


def test_words_are_rendered_and_nothing_else_is_markup():
    text = "# What we saw\nTwo **clear** and *one* `odd` case.\n\n- first <b>\n- second\n\n1. one\n2. two"
    assert markdown_html(text) == (
        "<h3>What we saw</h3><p>Two <strong>clear</strong> and <em>one</em> <code>odd</code> case.</p>"
        "<ul><li>first &lt;b&gt;</li><li>second</li></ul><ol><li>one</li><li>two</li></ol>"
    )
    assert markdown_html("2 * 3 * 4, a_b_c") == "<p>2 * 3 * 4, a_b_c</p>"


@given(st.text(max_size=200))
def test_no_words_bring_in_markup_of_their_own(text):
    tags = set(re.findall(r"</?([a-zA-Z0-9]+)", markdown_html(text)))
    assert tags <= {"p", "ul", "ol", "li", "strong", "em", "code", *(f"h{n}" for n in range(3, 7))}


# pages in a browser


def long_page(folder):
    page = Page("A title")
    for name in ("Findings", "Results", "Curves", "By identity"):
        page.heading(name)
        page.text("Words. " * 40)
    columns = {f"column_{i}": np.linspace(0, 1, 3) for i in range(18)}
    page.table(pd.DataFrame({"variant": ["b", "a", "c"], "map": [0.3, 0.1, 0.2]}))
    page.fold("All columns", pd.DataFrame({"variant": ["b", "a", "c"], **columns}), "What they mean.")
    figure, ax = new_figure(9, 3)
    ax.plot([0, 1])
    page.figure("line", figure, "A line.")
    page.code("a: 1\n" + "long " * 80)
    return page.write(folder)


def test_a_page_has_contents_folded_tables_and_an_end_of_looking_again(tmp_path):
    text = long_page(tmp_path).read_text(encoding="utf-8")
    assert re.findall(r'<a href="#([a-z-]+)">', text) == ["findings", "results", "curves", "by-identity"]
    assert all(f'<h2 id="{mark}">' in text for mark in ("findings", "by-identity"))
    assert text.count("<details>") == text.count("</details>") == 1
    assert 'http-equiv="refresh"' not in text
    page = Page("going on")
    assert 'http-equiv="refresh"' in page.write(tmp_path, refresh=True).read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1280, 794, 500, 390])
def test_a_page_fits_its_window_sorts_and_folds(width, browser, tmp_path):
    opened = Opened(browser, long_page(tmp_path), width, ready="table")
    page = opened.page

    def column() -> list[str]:
        return page.locator("table").first.locator("td:nth-child(2)").all_inner_texts()

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("img").first.scroll_into_view_if_needed()
    assert page.evaluate("Promise.all([...document.images].map(one => one.decode())).then(() => true)")
    head, fold = page.locator("table").first.locator("th:nth-child(2)"), page.locator("details")
    head.click()
    assert column() == ["0.3000", "0.2000", "0.1000"]
    head.click()
    assert column() == ["0.1000", "0.2000", "0.3000"]
    assert not fold.evaluate("one => one.open")
    fold.locator("summary").click()
    assert fold.evaluate("one => one.open")
    assert opened.faults == []


def test_a_wide_table_stands_in_parts_that_a_sheet_holds(tmp_path):
    page = Page()
    page.table(pd.DataFrame({"variant": ["a", "b"], **{f"column_{i}": [i, -i] for i in range(32)}}))
    heads = [re.findall(r"<th[^>]*>([^<]*)</th>", part) for part in page.html[0].split("<table>")[1:]]
    assert [names[0] for names in heads] == ["variant"] * 3
    assert [name for names in heads for name in names[1:]] == [f"column {i}" for i in range(32)]
    assert max(map(len, heads)) <= MOST_COLUMNS
    page.table(pd.DataFrame())
    assert "<td" not in page.html[-1]


def test_a_printed_page_keeps_the_shape_of_pictures_and_shows_no_marks_to_click(browser, tmp_path):
    page = Page("A title")
    page.image("tall", Image.new("RGB", (400, 1600)), "A tall picture.")
    page.words([("Data", "97 images")])
    page.fold("All columns", pd.DataFrame({"variant": ["a"], "map": [0.5]}))
    shown = Opened(browser, page.write(tmp_path), ready="img").page
    picture = shown.locator("img")
    assert picture.evaluate("one => [one.getAttribute('width'), one.getAttribute('height')]") == ["400", "1600"]
    shown.emulate_media(media="print")
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("one => one.decode().then(() => true)")
    size = picture.bounding_box()
    assert size["height"] < 900  # px, of a sheet
    assert size["width"] / size["height"] == pytest.approx(400 / 1600, abs=0.01)
    assert shown.locator("summary").evaluate("one => getComputedStyle(one).listStyleType") == "none"
    assert shown.locator("dt").evaluate("one => getComputedStyle(one).breakAfter") == "avoid"


def test_a_page_runs_no_script_but_its_own(browser, tmp_path):
    path = long_page(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("</h1>", "</h1><script>document.title = 'another'</script>"), encoding="utf-8")
    opened = Opened(browser, path, ready="table")
    assert opened.page.title() == "A title"
    assert any("Content Security Policy" in fault for fault in opened.faults)


# while runs go on


@pytest.mark.ci
def test_lines_of_epochs_stay_and_each_result_is_told_as_its_run_ends(mini, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jaguar_kit, "is_watched", lambda *_: True)
    clock = iter(range(0, 10**9, 2))
    monkeypatch.setattr(jaguar_kit.time, "monotonic", lambda: float(next(clock)))
    recipe = recipe_from_dict({"name": "told", **SMALL, "seeds": [1, 2]})
    result = run_recipe(recipe, data=mini, out=tmp_path, device="cpu")
    told = capsys.readouterr().out
    epochs = re.findall(r"default/seed(\d) epoch (\d): loss [\d.]+, validation [\d.]+, mAP ([\d.]+)", told)
    assert [(seed, epoch) for seed, epoch, _ in epochs] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    assert "(best" in told
    assert "images/s, at most" in told
    first, second = (told.index(f"default/seed{seed}: validation mAP") for seed in (1, 2))
    assert first < told.index("default/seed2 (2 of 2)") < second
    end = told[second:]
    assert f"report, open it: {result.report}" in end
    assert end.count(str(tmp_path)) == 3  # runs, submission, report


@pytest.mark.ci
def test_few_lines_go_where_nobody_looks_on(mini, tmp_path, capsys):
    run_recipe(recipe_from_dict({"name": "quiet", **SMALL}), data=mini, out=tmp_path, device="cpu")
    assert "epoch 1: loss" not in capsys.readouterr().out


@pytest.mark.ci
def test_a_report_is_there_when_the_first_run_ends_and_says_that_others_come(mini, tmp_path, monkeypatch):
    seen, whole = [], jaguar_kit.execute_run

    def watched(spec, images, place, *more):
        page = place.parent.parent / "report.html"
        seen.append(page.read_text(encoding="utf-8") if page.is_file() else "")
        whole(spec, images, place, *more)

    monkeypatch.setattr(jaguar_kit, "execute_run", watched)
    monkeypatch.setattr(runs_room, "FIRST_REPORT", 0)
    result = run_recipe(
        recipe_from_dict({"name": "soon", **SMALL, "seeds": [1, 2]}), data=mini, out=tmp_path, device="cpu"
    )
    assert seen[0] == ""
    assert "1 of 2 runs are not there yet; this page shows them as they end" in seen[1]
    assert 'http-equiv="refresh"' in seen[1]
    assert 'http-equiv="refresh"' not in result.report.read_text(encoding="utf-8")


@pytest.mark.ci
def test_a_report_that_can_not_be_made_ends_no_run(mini, tmp_path, monkeypatch, capsys):
    made = jaguar_kit.write_report

    def once(*given, refresh=False, **more):
        if refresh:
            raise RuntimeError("no ink")
        return made(*given, refresh=refresh, **more)

    monkeypatch.setattr(report_room, "write_report", once)
    monkeypatch.setattr(runs_room, "FIRST_REPORT", 0)
    result = run_recipe(
        recipe_from_dict({"name": "ink", **SMALL, "seeds": [1, 2]}), data=mini, out=tmp_path, device="cpu"
    )
    assert len(result.table) == 2
    assert "the report is not there yet: RuntimeError: no ink" in capsys.readouterr().out


def test_times_are_told_in_words():
    assert [jaguar_kit.duration(s) for s in (4, 600, 9000)] == ["4 s", "10 min", "2.5 h"]


# parts in one's own notebook


def test_recipes_are_found_by_their_name(tmp_path, monkeypatch):
    assert load_recipe("quickstart").name == "quickstart"
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("base: other.yaml\ntrain: {lr: 1e-3}\n")
    (tmp_path / "recipes" / "other.yaml").write_text("name: other\ntrain: {epochs: 7}\n")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("mine")
    assert (recipe.train.lr, recipe.train.epochs) == (1e-3, 7)
    with pytest.raises(
        KitError, match=r"quikstart: there is no recipe of this name in recipes, .*did you mean 'quickstart'"
    ):
        load_recipe("quikstart")


def test_recipes_of_a_packaged_dataset_are_found_by_their_name(tmp_path, monkeypatch):
    mount = tmp_path / "input" / "jaguar-kit" / "recipes"
    mount.mkdir(parents=True)
    (mount / "packed.yaml").write_text("name: packed\n")
    monkeypatch.setattr(jaguar_kit, "KAGGLE_INPUT", tmp_path / "input")
    monkeypatch.setattr(jaguar_kit.find_mounted, "__defaults__", (tmp_path / "input", 8))
    assert load_recipe("packed").name == "packed"


def test_images_as_they_are_become_features_in_three_lines():
    images = np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3), dtype=np.uint8)
    embedder = jaguar_kit.build_embedder({"backbone": "test_resnet", "pretrained": False, "head": "none"})
    vectors = jaguar_kit.embed(embedder, images)
    assert vectors.shape == (5, embedder.embedding_dim)
    cfg, size = embedder.backbone.pretrained_cfg, jaguar_kit.native_size(embedder.backbone)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    pixels = torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        expected = embedder((pixels - mean) / std)
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-4)
    some = jaguar_kit.embed(embedder, images, np.array([3, 1]))
    torch.testing.assert_close(some, vectors[[3, 1]], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(jaguar_kit.embed(lambda x: x * 2, torch.ones(3, 2)), 2 * torch.ones(3, 2))


@pytest.mark.ci
def test_a_result_from_before_a_setting_was_there_is_still_a_result(mini, tmp_path, capsys):
    recipe = recipe_from_dict({"name": "older", **SMALL})
    result = run_recipe(recipe, data=mini, out=tmp_path, device="cpu")
    path = result.folder / "default" / "seed42" / "recipe.yaml"
    told = jaguar_kit.yaml.safe_load(path.read_text())
    del told["data"]["extra"], told["train"]["loss_batch"], told["train"]["validate_at"], told["model"]["crop"]
    path.write_text(jaguar_kit.yaml.safe_dump(told))
    run_recipe(recipe, data=mini, out=tmp_path, device="cpu")
    assert "finished before" in capsys.readouterr().out
    with pytest.raises(KitError, match=r"train\.validate_at: size there, stage now"):
        run_recipe(jaguar_kit.override(recipe, "train.validate_at=stage", "x"), data=mini, out=tmp_path, device="cpu")
