"""Curves that a page draws: what stands in them, and what a person does with them in a browser."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from browsing import Opened
from hypothesis import given
from hypothesis import strategies as st
from jaguar_kit import Page, recipe_from_dict, write_report
from jaguar_kit_tools.experiments import live
from jaguar_kit_tools.experiments.curves import peak_words, put_bands, put_losses
from jaguar_kit_tools.experiments.figures import DASHES, PALETTE
from test_room_reports import logs_of, table_of

SIGNS = "_a <b> & $x^2$ 'c' \"d\""


def log_of(*maps, **columns):
    count = len(maps)
    losses = {"train_loss": np.r_[math.nan, np.linspace(2, 1, count)[1:]], "val_loss": np.linspace(2, 1.5, count)}
    return pd.DataFrame({"epoch": range(count), "map": maps, "lr": 1e-3, **losses, **columns})


TWO = {"first": {1: log_of(0.1, 0.3, 0.5), 2: log_of(0.3, 0.5, 0.7, 0.4)}, SIGNS: {1: log_of(0.2, 0.25, math.nan)}}


def drawn(grouped, columns=(("map", "mAP"),), **more):
    page = Page()
    put_bands(page, "curves", grouped, columns, "Caption.", **more)
    return page


def numbers_of(page):
    """What the page's curves hold for the script: by name and seed, values by epoch."""
    found = {}
    for curve in re.findall(r'<g class="curve[^>]*>', page.html[-1]):
        name = re.search(r'data-name="([^"]*)"', curve)[1]
        runs = re.search(r"data-runs='([^']*)'", curve)[1].replace("&#39;", "'").replace("&amp;", "&")
        epochs = json.loads(re.search(r'data-epochs="([^"]*)"', curve)[1])
        found |= {(name, seed): dict(zip(epochs, values)) for seed, values in json.loads(runs).items()}
    return found


def test_a_page_has_the_numbers_of_every_run():
    numbers = numbers_of(drawn(TWO))
    signs = "_a &lt;b&gt; &amp; $x^2$ &#x27;c&#x27; &quot;d&quot;"
    assert numbers["first", "2"] == {0: 0.3, 1: 0.5, 2: 0.7, 3: 0.4}
    assert numbers["first", "1"] == {0: 0.1, 1: 0.3, 2: 0.5, 3: None}
    assert numbers[signs, "1"] == {0: 0.2, 1: 0.25, 2: None}


def test_lines_are_means_and_lie_where_the_axes_say():
    page = drawn({"first": TWO["first"]})
    left, width, top, height = json.loads(re.search(r'data-box="([^"]*)"', page.html[-1])[1])
    x0, x1, y0, y1 = json.loads(re.search(r'data-scale="([^"]*)"', page.html[-1])[1])
    line = re.search(r'<path class="line" d="M([^"]*)"', page.html[-1])[1]
    places = np.array([[float(v) for v in pair.split(",")] for pair in line.split("L")])
    np.testing.assert_allclose((places[:, 0] - left) / width * (x1 - x0) + x0, [0, 1, 2], atol=0.01)
    np.testing.assert_allclose(y1 - (places[:, 1] - top) / height * (y1 - y0), [0.2, 0.4, 0.6], atol=0.002)
    assert page.html[-1].count('class="thin"') == 1, "the run that went on"
    assert page.html[-1].count('class="band"') == 1


def test_the_picture_for_markdown_is_kept_and_not_on_the_page(tmp_path):
    page = Page("curves")
    put_bands(page, "curves", TWO, [("map", "mAP")], "Caption.")
    text = page.write(tmp_path).read_text()
    assert (tmp_path / "figures" / "curves.png").is_file()
    assert "![Caption.](figures/curves.png)" in (tmp_path / "report.md").read_text()
    assert "base64,iVBOR" not in text
    assert "data:image" not in text


def test_colours_come_again_with_other_strokes():
    looks = {(live.colour_class(place), live.dash_of(place)) for place in range(len(PALETTE) * len(DASHES))}
    assert len(looks) == len(PALETTE) * len(DASHES)


def test_on_axes_of_their_own_training_is_drawn_through_and_validation_dashed():
    page, grouped = Page(), {f"variant{i}": {1: log_of(0.1, 0.2)} for i in range(len(PALETTE) + 1)}
    put_losses(page, grouped, list(grouped), "Losses.")
    lines = re.findall(r'data-what="(\w+) loss".*?<path class="line"([^>]*)>', page.html[-1])
    assert len(lines) == 2 * len(grouped)
    assert all(("dasharray" in told) == (what == "validation") for what, told in lines)


def deuteranope(colour):
    """A colour as a deuteranope sees it (Machado et al. 2009, severity 1), in CIE Lab."""
    seen = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(np.array(seen) @ linear, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("palette", [PALETTE, live.DARK], ids=["light", "dark"])
def test_deuteranopes_tell_the_colours_apart(palette):
    seen = [deuteranope(colour) for colour in palette]
    assert len(palette) == len(PALETTE)
    assert min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]) > 30


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.booleans())
def test_ticks_lie_between_the_bounds_and_are_few(low, span, whole):
    found = live.ticks(low, low + span, whole=whole)
    room = 1e-6 * max(abs(low), span, 1)
    assert all(low - room <= tick <= low + span + room for tick in found)
    assert len(found) <= 8
    assert not whole or all(float(tick).is_integer() for tick in found)


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [(-4, -2, ["1e-4", "2e-4", "5e-4", "1e-3", "2e-3", "5e-3", "1e-2"][::3]), (-3.6, -3, ["5e-4", "1e-3"])],
)
def test_ticks_of_logarithms_are_round(low, high, told):
    assert [live.tick_text(tick, log=True) for tick in live.log_ticks(low, high)] == told


def test_a_rate_that_stays_has_ticks_that_differ():
    page = drawn({"first": {1: log_of(0.1, 0.2).assign(lr=[5e-4, 5e-4])}}, [("lr", "learning rate")])
    told = re.findall(r'text-anchor="end">([^<]*)<', page.html[-1])
    assert "5e-4" in told
    assert len(told) == len(set(told))


def test_curves_of_nothing_and_of_rates_are_drawn():
    empty = {"first": {1: log_of(math.nan, math.nan)}}
    assert "NaN" not in drawn(empty).html[-1]
    rates = drawn({"first": {1: log_of(0.1, 0.2).assign(lr=[1e-4, 1e-2])}}, [("lr", "learning rate")])
    assert 'data-log="1"' in rates.html[-1]
    assert ">1e-3<" in rates.html[-1]


def test_the_message_of_the_curves_counts_peaks():
    grouped = {"a": {1: log_of(0.9, 0.1, 0.2, 0.3), 2: log_of(0.1, 0.3, 0.2, 0.1, 0.1)}}
    one = {"first": dict(list(next(iter(grouped.values())).items())[:1])}
    assert re.fullmatch(r"Of \d+ epochs number \d+ has the highest mAP\.", peak_words(one))
    assert peak_words(grouped).startswith("Of 2 runs 1 has the highest mAP in the last epoch, 1 in the first half")


# in a browser


@pytest.fixture
def opened(browser, tmp_path):
    page = Page("Curves")
    both = [("map", "validation mAP"), ("train_loss", "training loss")]
    grouped = {**TWO, "third": {1: log_of(0.6, 0.62, 0.64)}}
    put_bands(page, "curves", grouped, both, "Caption.")
    put_losses(page, grouped, list(grouped), "Losses.")
    path = page.write(tmp_path)
    return lambda **more: Opened(browser, path, ready=".curves", **more)


def test_a_variant_is_switched_off_and_on_everywhere(opened):
    at = opened()
    key = at.page.locator(".curves").first.get_by_role("button", name="third")
    curves = at.page.locator('.curve[data-v="2"]')
    assert curves.count() == 4  # mAP, training loss, and both losses on axes of its own
    assert key.get_attribute("aria-pressed") == "true"
    key.click()
    assert [one.is_visible() for one in curves.all()] == [False] * 4
    keys = at.page.get_by_role("button", name="third")
    assert [one.get_attribute("aria-pressed") for one in keys.all()] == ["false", "false"]
    assert at.page.locator('.curve[data-v="0"] .line').first.is_visible()
    key.focus()
    at.press("Enter")
    assert all(one.locator(".line").is_visible() for one in curves.all())
    at.page.get_by_role("button", name="hide all").first.click()
    assert not any(one.is_visible() for one in at.page.locator(".curve .line").all())
    at.page.get_by_role("button", name="show all").first.click()
    assert at.page.locator(".curve").first.is_visible()
    assert at.faults == []


def place_of(at, epoch, value):
    """Where a point of the first panel lies in the window."""
    panel = at.page.locator(".panels svg").first
    left, width, top, height = json.loads(panel.get_attribute("data-box"))
    x0, x1, y0, y1 = json.loads(panel.get_attribute("data-scale"))
    box = panel.bounding_box()
    scale = box["width"] / live.WIDE
    x, y = left + width * (epoch - x0) / (x1 - x0), top + height * (y1 - value) / (y1 - y0)
    return box["x"] + scale * x, box["y"] + scale * y


def test_a_point_tells_its_run_its_epoch_and_its_numbers(opened):
    at = opened()
    told = at.page.locator(".told").first
    assert "Point at a curve" in told.inner_text()
    at.page.mouse.move(*place_of(at, 1, 0.5))
    words = told.inner_text()
    assert words.startswith("first/seed2, epoch 1: validation mAP 0.5000, training loss 1.667; ")
    assert "validation mAP of 2 seeds: mean 0.4000, 0.3000 to 0.5000." in words
    assert at.page.locator(".mark").count() == 1
    at.page.mouse.move(5, 5)
    assert "Point at a curve" in told.inner_text()
    assert at.page.locator(".mark").count() == 0
    at.page.get_by_role("button", name="first").first.click()
    at.page.mouse.move(*place_of(at, 1, 0.5))
    assert "first" not in told.inner_text().replace("Point at", ""), "what is switched off is not pointed at"
    assert at.faults == []


def test_keys_go_from_point_to_point(opened):
    at = opened()
    told = at.page.locator(".told").first
    at.page.locator(".curves").first.get_by_role("button", name="hide all").focus()
    at.press("Tab")
    assert told.inner_text().startswith("third/seed1, epoch 2: validation mAP 0.6400")
    at.press("ArrowLeft")
    assert told.inner_text().startswith("third/seed1, epoch 1: validation mAP 0.6200")
    at.press("ArrowUp")
    assert told.inner_text().startswith(f"{SIGNS}/seed1, epoch 1: validation mAP 0.2500")
    at.press("ArrowUp", "End")
    assert told.inner_text().startswith("first/seed2, epoch 3: validation mAP 0.4000")
    at.press("Home")
    assert told.inner_text().startswith("first/seed2, epoch 0: validation mAP 0.3000")
    at.press("Escape")
    assert "Point at a curve" in told.inner_text()
    assert at.faults == []


def luminance(words):
    """Of a colour as a browser computes it."""
    rgb = np.array([float(v) for v in re.findall(r"[\d.]+", words)[:3]]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_lines_stand_out_on_either_paper(scheme, opened):
    at = opened(color_scheme=scheme)
    style = "(one, name) => getComputedStyle(one).getPropertyValue(name)"
    paper = luminance(at.page.locator("body").evaluate(style, "background-color"))
    looks = [(".curves svg text", "fill", 4.5), (".told", "color", 4.5), (".keys button", "color", 4.5)]
    looks += [(f'.curve[data-v="{v}"] .line', "stroke", 3) for v in range(3)]
    for selector, name, least in looks:
        own = luminance(at.page.locator(selector).first.evaluate(style, name))
        assert (max(own, paper) + 0.05) / (min(own, paper) + 0.05) >= least, selector


@pytest.mark.parametrize("width", [1280, 390])
def test_curves_fit_the_window_and_are_large_enough_to_read(width, opened):
    at = opened(width=width)
    assert at.page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = at.page.evaluate(
        "[...document.querySelectorAll('.panels svg')].map(one => 12 * one.getBoundingClientRect().width / 440)"
    )
    assert min(sizes) >= 9.5, "px of the letters in the panels"
    keys = at.page.evaluate("[...document.querySelectorAll('.keys button')].map(one => one.offsetHeight)")
    assert min(keys) >= (24 if width > 700 else 36)


@pytest.mark.ci
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_whole_report_works_in_a_browser(width, scheme, browser, tmp_path):
    seeds = {1: 0.50, 2: 0.55, 3: 0.48}
    second = {seed: score + 0.1 for seed, score in seeds.items()}
    table = table_of(first=seeds, second=second, a_third_of_a_long_name=seeds)
    path = write_report(tmp_path, recipe_from_dict({"name": "tried", "question": "Why?"}), table, logs_of(table), [])
    at = Opened(browser, path, width, ready=".curves", color_scheme=scheme)
    assert at.page.evaluate("document.documentElement.scrollWidth") <= width
    at.page.get_by_role("button", name="second").first.click()
    assert not any(one.is_visible() for one in at.page.locator('.curve[data-v="1"]').all())
    assert at.page.locator('.curve[data-v="0"] .line').first.is_visible()
    at.page.locator(".panels svg").first.focus()
    at.press("Home")
    assert re.match(r"\w+/seed\d, epoch 0: validation mAP 0.2000", at.page.locator(".told").first.inner_text())
    ink, paper = (
        luminance(at.page.locator("body").evaluate("(one, name) => getComputedStyle(one)[name]", name))
        for name in ("color", "backgroundColor")
    )
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7
    assert at.faults == []
