"""The page to review: animals looked up and compared, whole encounters, groups, what is taken back, lost pictures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import timm
from browsing import Opened, page_data, synthetic_page
from jaguar_kit_tools.identify import decisions, review
from jaguar_kit_tools.identify.decisions import Decisions
from jaguar_kit_tools.identify.identify import close_season
from safetensors.torch import save_file
from test_room_ledger import Season, captured, said, table


def changed(path: Path, change) -> Path:
    """The page again, after its photographs were changed."""
    data = page_data(path.parent)
    change(data["items"])
    return review.write_page(path, data)


@pytest.fixture
def opened(browser, tmp_path):
    """A page of twelve photographs: 3 to 6 are of one encounter, 7 to 10 of a group of new animals."""

    def change(items):
        for item in items[3:7]:
            item.update(e=99, es=4)
        for i in range(7, 11):
            items[i].update(g="new 1", gp=0.8, gm=[k for k in range(7, 11) if k != i][:3], c="new")

    path = changed(synthetic_page(tmp_path / "page", 12), change)
    page = Opened(browser, path)
    page.page.fill("#by", "Ana")
    page.page.focus("#list")
    yield page
    assert page.faults == []


def names(table: pd.DataFrame) -> dict[int, str]:
    """The names of photographs by their number, as the ledger understands a file of decisions."""
    found = Decisions(table[table.decision.isin(decisions.KINDS)].reset_index(drop=True)).named
    return {int(mark, 16): name for mark, name in zip(found.mark, found.identity)}


# any animal


def test_an_animal_that_was_not_offered_is_found_compared_and_confirmed(opened, tmp_path):
    page = opened.page
    opened.press("f")
    page.keyboard.type("l 42")  # of animal 42
    assert page.locator("#c-found li").all_inner_texts()[0].startswith("animal 42")
    assert page.inner_text("#c-title") == "card0/IMG_0.jpg and animal 42"
    assert "1 of 15" in page.inner_text("#c-note")
    assert page.locator("#c-strip .part > .soft").all_inner_texts() == ["flank: left"]
    dates = page.locator("#c-strip figcaption").all_inner_texts()
    assert dates == sorted(dates)
    opened.press("Enter")
    assert not page.is_visible("#compare")
    assert opened.words(0) == "✓ animal 42"
    assert page.locator(".row.here").get_attribute("id") == "row1"
    assert names(opened.exported(tmp_path / "decisions.csv")) == {0: "animal 42"}


def test_a_part_of_a_name_finds_it_and_arrows_choose(opened):
    page = opened.page
    opened.press("f")
    assert page.locator("#c-found li").count() == 8
    opened.press("Enter")  # nothing is chosen yet
    assert page.is_visible("#compare")
    assert "Choose an animal first" in page.inner_text("#c-hint")
    page.keyboard.type("animal 5")
    told = [text.splitlines()[0] for text in page.locator("#c-found li").all_inner_texts()]
    assert told == ["animal 5", *(f"animal {k}" for k in range(50, 57))]
    opened.press("ArrowDown", "ArrowDown", "ArrowUp", "Enter")
    assert opened.words(0) == "✓ animal 50"
    opened.press("f", "ArrowDown", "Enter")  # who was named last comes first
    assert opened.words(1) == "✓ animal 50"
    opened.press("f")
    page.keyboard.type("nobody of this name")
    assert "No animal is called so" in page.inner_text("#c-found")
    opened.press("Enter", "Escape")
    assert not page.is_visible("#compare")
    assert opened.words(2) == ""


def test_the_pictures_of_a_candidate_go_on_to_all_of_the_animal_by_flank_and_date(opened):
    page = opened.page
    opened.press("j", "c")
    assert page.inner_text("#c-note").endswith("1 of 17")  # three that are most alike, and the others
    parts = page.locator("#c-strip .part > .soft").all_inner_texts()
    assert parts[0] == "most alike"
    opened.press("ArrowLeft")
    assert page.inner_text("#c-note").endswith("17 of 17")
    page.click("#c-strip figure:nth-child(2) img >> nth=0")
    assert page.inner_text("#c-note").endswith("2 of 17")
    opened.press("y")
    assert opened.words(1) == "✓ animal 1"


def test_zoom_and_brightness_go_together_until_they_are_parted(opened):
    page = opened.page
    look = lambda: [  # noqa: E731
        page.evaluate(f"(s => [s.transform, s.filter])(document.getElementById('{one}').style)")
        for one in ("c-one", "c-two")
    ]
    opened.press("c", "+", "+", "l")
    one, other = look()
    assert one == other
    assert "scale(1.5625)" in one[0]
    assert one[1] == "brightness(1.2)"
    box = page.locator(".pane").first.bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 50)
    page.mouse.up()
    moved = look()
    assert moved[0] == moved[1] != one
    page.uncheck("#c-linked")
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.wheel(0, -100)
    opened.press("d")
    apart = look()
    assert apart[1] == moved[1]
    assert apart[0][0] != moved[0][0]
    assert apart[0][1] != moved[0][1]
    page.click("#c-reset")
    assert look() == [["scale(1) translate(0%, 0%)", ""]] * 2


# what is said


def test_no_animal_and_unusable_are_decisions(opened, tmp_path):
    opened.press("b", "x")
    assert [opened.words(row) for row in (0, 1)] == ["∅ no animal", "∅ unusable"]
    assert opened.count().startswith("2 of 12 decided")
    opened.press("j", "B")  # Shift: the whole encounter
    assert opened.count().startswith("6 of 12 decided")
    told = opened.exported(tmp_path / "decisions.csv")
    expected = {f"{i:016x}": "unusable" if i == 1 else "blank" for i in (0, 1, 3, 4, 5, 6)}
    assert Decisions(told).nothing == expected
    assert Decisions(told).named.empty
    opened.page.select_option("#f-kind", "nothing")
    assert ", 6 shown" in opened.count()
    other = pd.DataFrame(
        [(f"{0:016x}", "i", "/w", "yes", "animal 1", "Ben", "2030-01-01")], columns=list(decisions.COLUMNS)
    )
    decisions.write_decisions(tmp_path / "Ben.csv", other)
    opened.page.set_input_files("#import", tmp_path / "Ben.csv")
    opened.wait_for_count("1 decisions of Ben.csv merged")
    opened.page.select_option("#f-kind", "dispute")
    assert opened.words(0) == "! Ana: no animal, Ben: animal 1"
    assert Decisions(pd.concat([told, other], ignore_index=True)).disputed == {f"{0:016x}"}


def test_a_key_without_a_card_confirms_nothing(opened, tmp_path):
    opened.press("6", "y")
    assert opened.count().startswith("0 of 12")
    assert opened.page.inner_text("#told") == "Choose a card first: 1 to 5."
    opened.press("2", "y")
    assert opened.words(0) == "✓ animal 1"
    assert len(opened.exported(tmp_path / "decisions.csv")) == 1


def test_naming_a_group_names_all_that_it_confirmed(opened, tmp_path):
    opened.press(*"jjjjjjj", "6", "y")  # photograph 7 shows the animal of 8, 9 and 10
    assert [opened.words(row) for row in (7, 8)] == ["✓ of one group", ""]
    opened.press("k", "w") if opened.page.locator(".row.here").get_attribute("id") != "row7" else opened.press("w")
    assert "3 more photographs that were confirmed" in opened.page.inner_text("#n-note")
    opened.page.fill("#n-name", "Zula")
    opened.press("Enter")
    assert names(opened.exported(tmp_path / "named.csv")) == dict.fromkeys((7, 8, 9, 10), "Zula")
    opened.press("u")  # one press takes back one press
    told = opened.exported(tmp_path / "back.csv")
    assert names(told) == {}
    assert len(Decisions(told).links("yes")) == 3
    opened.press("u")
    assert Decisions(opened.exported(tmp_path / "all.csv")).links("yes") == []
    opened.press("u")
    assert opened.page.inner_text("#told") == "Nothing is left to undo."


def test_a_photograph_that_is_confirmed_with_a_named_one_has_its_name(opened, tmp_path):
    opened.press(*"jjjjjjj", "w")
    opened.page.fill("#n-name", "Zula")
    opened.press("Enter", "6", "y")  # photograph 8 shows the animal of 7, 9 and 10
    assert names(opened.exported(tmp_path / "decisions.csv")) == {7: "Zula", 8: "Zula"}


def test_an_undo_takes_back_one_press_however_many_photographs_it_was_about(opened, tmp_path):
    opened.press("y", *"jj", "2", "a")
    assert names(opened.exported(tmp_path / "1.csv")) == {0: "animal 0", **dict.fromkeys((3, 4, 5, 6), "animal 4")}
    opened.press("w")
    opened.page.fill("#n-name", "Zula")
    opened.press("Enter", "u")
    assert names(opened.exported(tmp_path / "2.csv")) == {0: "animal 0", **dict.fromkeys((3, 4, 5, 6), "animal 4")}
    opened.press("u")
    assert names(opened.exported(tmp_path / "3.csv")) == {0: "animal 0"}
    assert "for 4 photographs" in opened.page.inner_text("#told")
    opened.press("u", "u")
    assert names(opened.exported(tmp_path / "4.csv")) == {}


def test_a_new_animal_has_a_name_for_its_whole_encounter(opened, tmp_path):
    opened.press("j", "j", "j", "w", "Shift+Enter")  # of this one alone
    assert names(opened.exported(tmp_path / "one.csv")) == {3: "new-Ana-001"}
    opened.press("u", "w", "Enter")
    assert names(opened.exported(tmp_path / "decisions.csv")) == dict.fromkeys((3, 4, 5, 6), "new-Ana-001")
    assert opened.page.locator(".row.here").get_attribute("id") == "row7"
    opened.press("k", "k", "f")  # one of the four is another animal
    opened.page.keyboard.type("animal 7")
    opened.press("Enter")
    assert names(opened.exported(tmp_path / "other.csv"))[5] == "animal 7"
    assert names(opened.exported(tmp_path / "other.csv"))[6] == "new-Ana-001"
    opened.press("w")
    opened.page.fill("#n-name", "photo: by the river")
    opened.press("Enter")
    assert "means something else" in opened.page.inner_text("#n-note")
    opened.press("Escape")


@pytest.mark.parametrize("seed", range(3))
def test_page_and_ledger_come_to_the_same_verdicts(browser, tmp_path, seed):
    rng, rows = np.random.default_rng(seed), []
    for number in range(150):
        who, photo = rng.choice(["Ana", "Ben", "Cy"]), int(rng.integers(12))
        mark, kind = f"{photo:016x}", rng.choice(["yes", "yes", "new", "no", "no", "skip", "blank", "unusable", "undo"])
        own = [row for row in rows if row[0] == mark and row[5] == who]
        name = f"animal {rng.integers(3)}" if kind in ("yes", "new", "no") else ""
        if kind == "undo" and own and rng.random() < 0.5:
            name = own[int(rng.integers(len(own)))][6]
        rows.append((mark, "i", "/w", kind, name, who, f"2026-05-01T10:00:{number // 10:02d}.{number % 10}00Z"))
    told = pd.DataFrame(rows, columns=list(decisions.COLUMNS))
    decisions.write_decisions(tmp_path / "all.csv", told)
    page = Opened(browser, synthetic_page(tmp_path / "page", 12))
    page.page.set_input_files("#import", tmp_path / "all.csv")
    page.wait_for_count("150 decisions of all.csv merged")
    said = Decisions(told)
    named = {**names(told), **{int(mark, 16): f"photo:{word}" for mark, word in said.nothing.items()}}
    assert len(named) > 3
    assert page.page.evaluate("items.map(item => outcome(item.m).name || '')") == [named.get(i, "") for i in range(12)]
    disputed = page.page.evaluate("items.map(item => Boolean(outcome(item.m).dispute))")
    assert disputed == [f"{i:016x}" in said.disputed for i in range(12)]
    skipped = page.page.evaluate("items.map(item => Boolean(outcome(item.m).skipped))")
    assert skipped == [f"{i:016x}" in said.skipped for i in range(12)]


# how it looks


def test_the_help_lists_every_key(opened):
    script = (review.HERE / "review_keys.js").read_text(encoding="utf-8")
    maps = re.findall(r"keys = \{(.*?)\};", script, re.DOTALL)
    assert len(maps) == 2
    keys = {key for text in maps for key in re.findall(r'(?:^|,)\s*"?([a-z0+/-])"?:', text)}
    assert len(keys) > 18
    listed = set(opened.page.locator("footer kbd").all_inner_texts())
    assert keys <= listed, keys - listed


def test_paper_has_all_rows_and_no_buttons(opened):
    page = opened.page
    assert page.locator(".row").count() < 12
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".row").count() == 12
    assert page.evaluate("[...document.querySelectorAll('button')].every(one => !one.offsetHeight)")
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".row").count() < 12


@pytest.mark.parametrize("width", [1280, 390])
def test_every_dialog_fits_its_window(browser, tmp_path, width):
    opened = Opened(browser, synthetic_page(tmp_path / "page", 12), width)
    for keys, dialog in (("c", "#compare"), ("f", "#compare"), ("w", "#naming"), ("i", "#folk")):
        opened.press(keys)
        opened.page.locator(dialog).wait_for()
        wide = "one => one.scrollWidth <= one.clientWidth && one.getBoundingClientRect().right <= innerWidth"
        assert opened.page.locator(dialog).evaluate(wide), (keys, width)
        opened.press("Escape")
        assert not opened.page.is_visible(dialog)
    assert opened.faults == []


# pictures


def test_originals_that_were_not_mailed_are_shown_by_their_thumbnails(browser, tmp_path):
    def change(items):
        for item in items:
            item["f"] = "../photographs/" + item["i"]

    path = changed(synthetic_page(tmp_path / "page", 4), change)
    mailed = Path(shutil.copytree(path.parent, tmp_path / "mailed" / "answers"))
    opened = Opened(browser, mailed / "review.html")
    opened.press("c")
    opened.page.locator("#c-lost", has_text="The original is not beside this page; this is its thumbnail.").wait_for()
    assert opened.page.evaluate("[...document.querySelectorAll('.pane img')].every(i => i.naturalWidth > 0)")
    opened.press("Escape")
    broken = "[...document.images].filter(i => i.getAttribute('src') && i.complete && !i.naturalWidth).length"
    assert opened.page.evaluate(broken) == 0
    assert all("ERR_FILE_NOT_FOUND" in fault for fault in opened.faults)
    shutil.rmtree(mailed / "pictures")
    opened.page.reload()
    opened.page.locator("#told", has_text="keep the folder").wait_for()


# all weeks


@pytest.fixture(scope="module")
def weeks(tmp_path_factory):
    """Two weeks of a small season, with what was said of the first: Ana and Ben dispute w1_2, and w1_3 is skipped."""
    root = tmp_path_factory.mktemp("weeks")
    path = root / "test_resnet.safetensors"
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    field = Season(root, path)
    with jaguar_kit.quiet():
        first = field.answer(1, field.cards(1))
        rows = ("w1_1", "yes", "Ara"), ("w1_2", "yes", "Bo"), ("w1_3", "skip", ""), ("w1_4", "new", "Kudu")
        said(first, *rows, time="2026-05-08T10:00:00")
        said(first, ("w1_2", "no", "Bo"), by="Ben", name="decisions-Ben.csv", time="2026-05-08T11:00:00")
        second = field.answer(2, field.cards(2))
        rows = ("w2_1", "yes", "Ara"), ("w2_2", "new", "kudu"), ("w2_3", "blank", "")
        said(second, *rows, time="2026-05-15T10:00:00")
    return field


def reviewed(field: Season, out: Path, previous: str = "answers2") -> Path:
    line = ["identify", "--review", "--previous", field.root / previous, "--out", out]
    with jaguar_kit.quiet():
        assert jaguar_kit.main(jaguar_kit.any_command, list(map(str, line))) == 0
    return out


def closed(previous: Path, out: Path) -> Path:
    with jaguar_kit.quiet():
        close_season(previous, out)
    return out


def row_of(opened: Opened, name: str) -> str:
    """The row of a photograph, which is brought into sight."""
    at = next(i for i, item in enumerate(page_data(opened.path.parent)["items"]) if Path(item["i"]).stem == name)
    for _ in range(30):
        if opened.page.locator(f"#row{at}.here").count():
            return f"#row{at}"
        opened.press("j")
    for _ in range(30):
        if opened.page.locator(f"#row{at}.here").count():
            return f"#row{at}"
        opened.press("k")
    raise AssertionError(f"{name} is not shown")


def find_and_say(opened: Opened, photo: str, animal: str) -> None:
    row_of(opened, photo)
    opened.press("f")
    opened.page.keyboard.type(animal)
    opened.press("Enter")


@pytest.mark.ci
def test_decisions_of_all_weeks_are_corrected_settled_and_asked_again(browser, weeks, tmp_path):
    out = reviewed(weeks, tmp_path / "review")
    data = page_data(out)
    assert {Path(item["i"]).stem: item["wk"] for item in data["items"]} == {
        f"w{week}_{n}": week for week in (1, 2) for n in range(1, 6)
    }
    opened = Opened(browser, out / "review.html")
    opened.page.fill("#by", "Cy")
    opened.page.focus("#list")
    rows = opened.page.locator(".row").evaluate_all("rows => rows.map(row => row.id)")
    told = [opened.page.inner_text(f"#{row} .said") for row in rows[:2]]
    assert told[0] == "! Ana: Bo, Ben: not Bo"  # what is disputed is asked first, then what was skipped
    assert told[1] == "… skipped"
    assert opened.count() == "5 of 10 decided, 10 shown"
    opened.press("s")
    assert opened.page.locator(".row.here").get_attribute("id") == rows[1]  # the next that is open, whoever spoke of it
    opened.press("u")
    assert opened.page.locator(".row.here").get_attribute("id") == rows[0]
    find_and_say(opened, "w1_2", "Bo")  # a third person settles it
    find_and_say(opened, "w1_3", "Ara")  # who was skipped
    find_and_say(opened, "w1_4", "Bo")  # another name than Ana's is a dispute
    assert opened.page.inner_text(f"{row_of(opened, 'w1_2')} .said") == "✓ Bo"
    assert opened.page.inner_text(f"{row_of(opened, 'w1_4')} .said") == "! Ana: Kudu, Cy: Bo"
    opened.page.fill("#by", "Ana")
    opened.page.focus("#list")
    find_and_say(opened, "w1_4", "Bo")  # and Ana corrects herself
    find_and_say(opened, "w2_3", "Ara")  # where she said that there was none
    assert opened.page.inner_text(f"{row_of(opened, 'w1_4')} .said") == "✓ Bo"
    assert opened.count() == "7 of 10 decided, 10 shown"
    opened.export(out / "decisions.csv")
    assert opened.faults == []
    end = closed(out, tmp_path / "end")
    assert captured(end) == {
        "w1_1": "Ara", "w1_2": "Bo", "w1_3": "Ara", "w1_4": "Bo", "w2_1": "Ara", "w2_2": "kudu", "w2_3": "Ara",
    }  # fmt: skip
    assert {Path(image).stem for image in table(end / "open.csv").image} == {"w1_5", "w2_4", "w2_5"}
    again = Opened(browser, reviewed(weeks, tmp_path / "again", str(out)) / "review.html")
    assert again.count() == "7 of 10 decided, 10 shown"
    again.page.set_input_files("#import", out / "decisions.csv")
    again.wait_for_count("0 decisions of decisions.csv merged")  # it knows them


@pytest.mark.ci
def test_individuals_are_renamed_merged_split_and_taken_back_on_the_page(browser, weeks, tmp_path):
    out = reviewed(weeks, tmp_path / "review")
    opened = Opened(browser, out / "review.html")
    page = opened.page
    page.fill("#by", "Cy")
    page.focus("#list")

    def act(kind: str, name: str, to: str, *files: str) -> str:
        if not page.is_visible("#folk"):
            opened.press("i")
        page.click(f"#i-list li:has(span:text-is('{name}'))")
        page.select_option("#i-act", kind)
        for file in files:
            page.check(f"#i-pics label[title*='{file}'] input")
        page.fill("#i-to", to)
        page.click("#i-form button")
        return page.inner_text("#i-said")

    assert act("rename", "Ara", "Bo") == "“Bo” is another animal already. Merge them, if they are one."
    assert act("merge", "Ara", "Zoe") == "Nobody is called “Zoe”. Rename it, if this is a new name."
    assert act("split", "Ara", "Zoe") == "Tick the pictures that show another animal first."
    assert act("merge", "kudu", "Kudu") == "Done: kudu merged into Kudu."
    assert act("rename", "Ara", "Aurora") == "Done: Ara renamed Aurora."
    assert act("split", "Aurora", "Zoe", "w2_1", "2.png") == "Done: 2 pictures of Aurora split off as Zoe."
    assert act("rename", "Bo", "Boris") == "Done: Bo renamed Boris."
    page.click("#i-undo")
    assert page.inner_text("#i-said") == "Taken back: Bo renamed Boris."
    assert page.locator("#i-list li").all_inner_texts() == ["Aurora 3", "Bo 3", "Kudu 2", "Zoe 2"]
    assert len(page.locator("#i-past li").all_inner_texts()) == 3
    page.click("#i-close")
    assert page.inner_text(f"{row_of(opened, 'w2_1')} .said") == "✓ Zoe"
    assert page.inner_text(f"{row_of(opened, 'w1_1')} .said") == "✓ Aurora"
    find_and_say(opened, "w1_5", "Aur")
    find_and_say(opened, "w2_1", "Aur")  # what is said after a split is meant as it is said: Ana and Cy disagree
    assert page.inner_text(f"{row_of(opened, 'w2_1')} .said") == "! Ana: Zoe, Cy: Aurora"
    opened.export(out / "decisions.csv")
    assert opened.faults == []
    end = closed(out, tmp_path / "end")
    assert captured(end) == {"w1_1": "Aurora", "w1_4": "Kudu", "w1_5": "Aurora", "w2_2": "Kudu"}
    catalogue = table(end / "captures.csv").query("basis == 'catalogue'")
    assert sorted(catalogue.identity) == ["Aurora", "Aurora", "Bo", "Bo", "Bo", "Zoe"]
    row = next(row for row in table(end / "captures.csv").itertuples() if row.image.endswith("w2_2.jpg"))
    assert "week 2: new kudu by Ana; week 3: merge kudu to Kudu by Cy" in row.history
    assert "w2_1" in {Path(image).stem for image in table(end / "open.csv").image}
    # an undo that is exported later takes back what the ledger has already
    later = Opened(browser, reviewed(weeks, tmp_path / "later", str(end)) / "review.html")
    later.press("i")
    assert "week 3: kudu merged into Kudu, by Cy" in later.page.locator("#i-past li").all_text_contents()
    told = decisions.read_decisions(out / "decisions.csv")
    rename = told[told.decision == "rename"].iloc[0]
    row = {"mark": "", "image": "", "root": "", "decision": "undo", "identity": rename.time, "by": "Cy", "time": "2099"}
    decisions.write_decisions(tmp_path / "later" / "decisions.csv", pd.DataFrame([row]))
    last = closed(tmp_path / "later", tmp_path / "last")
    assert captured(last)["w1_1"] == "Ara"
    assert captured(last)["w1_4"] == "Kudu"


def test_tables_for_other_programs_have_the_names_that_a_page_gave(weeks, tmp_path):
    out = Path(shutil.copytree(weeks.root / "answers2", tmp_path / "answers2"))
    settings = (out / "identify.json").read_text().replace(f'"{weeks.root}/answers1"', f'"{weeks.root}/answers1/."')
    (out / "identify.json").write_text(settings)
    row = {**dict.fromkeys(decisions.COLUMNS, ""), "by": "Cy", "time": "2026-06-01T10:00:00.000Z"}
    acts = [{**row, "decision": "rename", "of": "Ara", "identity": "Aurora"}]
    pd.DataFrame(acts).to_csv(out / "decisions-Cy.csv", index=False)
    line = ["identify", "--previous", out, "--export", "camtrapdp"]
    with jaguar_kit.quiet():
        assert jaguar_kit.main(jaguar_kit.any_command, list(map(str, line))) == 0
    told = pd.read_csv(out / "camtrapdp" / "observations.csv", keep_default_na=False).individualID
    assert sorted(set(told) - {""}) == ["Aurora", "Kudu", "kudu"]


def test_what_two_people_do_to_one_individual_ends_in_a_note(weeks, tmp_path, capsys):
    for name, to in (("Ana", "Aurora"), ("Ben", "Zoe")):
        row = {**dict.fromkeys(decisions.COLUMNS, ""), "decision": "rename", "of": "Ara", "identity": to, "by": name}
        pd.DataFrame([{**row, "time": f"2026-06-0{len(to) % 5 + 1}T10:00:00.000Z"}]).to_csv(
            tmp_path / f"decisions-{name}.csv", index=False
        )
    files = sorted(tmp_path.glob("*.csv"))
    line = [
        "identify",
        "--close",
        "--previous",
        weeks.root / "answers2",
        "--out",
        tmp_path / "end",
        "--decisions",
        *files,
    ]
    assert jaguar_kit.main(jaguar_kit.any_command, list(map(str, line))) == 0
    told = capsys.readouterr().out
    assert "note: rename: 'Ara' to 'Aurora'" in told
    assert "note: not done: " in told
    assert "line 2 (Ben): from: 'Ara' is nobody here" in told


def moved(weeks: Season, field: Path) -> Path:
    """The answers of both weeks elsewhere, as if all had lain there always, without any photograph."""
    for name in ("answers1", "answers2"):
        shutil.copytree(weeks.root / name, field / name)
        for file in ("identify.json", "ledger.csv"):
            text = (field / name / file).read_text(encoding="utf-8")
            (field / name / file).write_text(text.replace(str(weeks.root), str(field)), encoding="utf-8")
    return field


def test_a_page_over_all_weeks_shows_pictures_whose_originals_are_gone(browser, weeks, tmp_path):
    field, out = moved(weeks, tmp_path / "field"), tmp_path / "review"
    with jaguar_kit.quiet():
        close_season(field / "answers2", out, review=True)
    data = page_data(out)
    assert len(data["items"]) == 10
    assert all(one["f"] == one["t"] and (out / one["t"]).is_file() for one in (*data["items"], *data["pics"]))
    known = set(table(out / "captures.csv").query("basis == 'catalogue'").mark)
    assert known <= {one["m"] for one in data["pics"]}
    opened = Opened(browser, out / "review.html")
    opened.press("c")
    assert opened.page.is_visible("#compare")
    assert opened.faults == []


@pytest.mark.ci
def test_a_page_over_all_weeks_is_made_without_earlier_pages_and_with_those_of_an_earlier_version(
    browser, weeks, tmp_path
):
    field = moved(weeks, tmp_path / "field")
    old = page_data(field / "answers2")
    for one in old["pics"]:  # as pages told it once
        del one["m"], one["d"]
    del old["animals"]
    review.write_page(field / "answers2" / "review.html", old)
    (field / "answers1" / "review.html").write_text("<html>", encoding="utf-8")
    with jaguar_kit.quiet():
        close_season(field / "answers2", tmp_path / "one", review=True)
        (field / "answers2" / "review.html").unlink()
        close_season(field / "answers2", tmp_path / "none", review=True)
    for name, pictures in (("one", 8), ("none", 0)):  # of ten, eight were asked for in week 2
        data = page_data(tmp_path / name)
        assert sum(bool(one["t"]) for one in data["items"]) == pictures
        opened = Opened(browser, tmp_path / name / "review.html")
        assert opened.count() == "5 of 10 decided, 10 shown"
        find_and_say(opened, "w1_5", "Bo")
        opened.press("i", "Escape")
        assert opened.faults == []
