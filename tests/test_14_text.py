"""Names and words of every language, through training, report, identify and kernels."""

import io
import json
import os
import subprocess
import sys
import unicodedata

import jaguar_kit
import numpy as np
import pytest
import tiny
import yaml
from cases import every
from jaguar_kit_tools.experiments.figures import sheet_font, shortened_to
from jaguar_kit_tools.identify import identify
from jaguar_kit_tools.on_kaggle import kernels
from PIL import Image

NAMES = [
    "Zoë",
    unicodedata.normalize("NFD", "Ňuñez"),
    "Ягуар",
    "Ξένια",
    "雪豹",
    "علي",
    "हाथी",
    "Jaguar 🐆",
    "$a^2_b$",
    "_under & <b>bold",
    "O'Neil, Jr.",
    'a "quoted" one',
    "100%",
    "a=b;c",
    "very long name " * 8,
    "#1",
]
TINY = {
    **tiny.TINY,
    "question": "Wer ist wer? 🐆 «кто»",
    "data": {"size": 32, "split": {"name": "stratified", "validation": 0.4}},
}


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A folder with a folder of five images for each of the names."""
    root, rng = tmp_path_factory.mktemp("of words") / "ägypten 🐆", np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        (root / name.strip()).mkdir(parents=True)
        for i in range(5):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) // 4 + number * 10
            Image.fromarray(pixels.astype(np.uint8)).save(root / name.strip() / f"{i} {name[:9].strip()}.png")
    return root


@pytest.fixture(scope="module")
def run(album, tmp_path_factory):
    """A run on that folder by the command, whose output is plain ASCII."""
    place = tmp_path_factory.mktemp("run")
    (place / "tiny.yaml").write_text(yaml.safe_dump(TINY, allow_unicode=True), encoding="utf-8")
    arguments = [place / "tiny.yaml", "--data", album, "--out", place / "runs"]
    printed = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", printed)
        assert jaguar_kit.main(jaguar_kit.run_command, list(map(str, arguments))) == 0
    (folder,) = (place / "runs").iterdir()
    return folder, printed.buffer.getvalue().decode("ascii")


def test_every_individual_is_learned_under_its_own_name(run):
    _, told = jaguar_kit.load_weights(run[0] / "default" / "seed42")
    assert told["identities"] == sorted(jaguar_kit.clean_label(name) for name in NAMES)


def test_the_page_shows_words_as_they_are(run):
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert "Wer ist wer? 🐆 «кто»" in page
    assert "<b>bold" not in page


def test_output_that_is_ascii_shows_what_it_can(run):
    assert "\\xe4gypten" in run[1] or "?gypten" in run[1]


def test_identify_answers_with_these_names(run, album, tmp_path):
    queries = tmp_path / "photos éà"
    for name in NAMES[:3]:
        path = queries / f"{name.strip()}.png"
        path.parent.mkdir(exist_ok=True)
        image = np.asarray(Image.open(next((album / name.strip()).glob("*.png")))).copy()
        image[0, 0] = 0
        Image.fromarray(image).save(path)
    answers = identify.identify(run[0] / "default" / "seed42", album, queries, tmp_path / "out", device="cpu")
    assert set(answers.image) == {f"{name.strip()}.png" for name in NAMES[:3]}
    known = {jaguar_kit.clean_label(name) for name in NAMES}
    assert set(answers.identity) <= known
    page = json.loads(
        (tmp_path / "out/review.html").read_text("utf-8").partition('id="data">')[2].partition("</script")[0]
    )
    assert {item["i"] for item in page["items"]} == {f"{name.strip()}.png" for name in NAMES[:3]}
    assert {one["n"] for item in page["items"] for one in item["q"]} <= known


@every("text", ["🐆", "\\ 'a' \"b\" {c}", 'ends in """', "two\nlines", "tab\tand \x07 bell", "\u2028"])
def test_words_of_a_recipe_survive_a_kernel(text):
    recipe = jaguar_kit.recipe_from_dict({**TINY, "question": text, "data": {}})
    space = {"__name__": "kernel"}
    code = kernels.kernel_script(recipe).partition('RECIPE = """')[2]
    exec('RECIPE = """' + code.partition("\nsys.exit")[0], space)  # the recipe's text alone
    assert jaguar_kit.read_yaml(space["RECIPE"], "x")["question"] == text


def test_words_of_a_recipe_reach_several_processes(album, tmp_path, monkeypatch):
    recipe = jaguar_kit.recipe_from_dict(
        {
            **TINY,
            "model": {**TINY["model"], "freeze": False},
            "hypothesis": "🐆 \ud83d".encode("utf-8", "ignore").decode(),
        }
    )
    reached = []

    class Process:
        """One that reads the recipe that it is given, and is done."""

        def __init__(self, command, env):
            reached.append(jaguar_kit.load_recipe(command[command.index("run") + 1]))

        def poll(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    with pytest.raises(jaguar_kit.TrainingFailed, match="no run is finished"):
        jaguar_kit.run_recipe(recipe, data=album, out=tmp_path, device="cpu", gpus=2)
    assert [(told.hypothesis, told.question) for told in reached] == [("🐆 ", TINY["question"])] * 2


def test_text_that_is_no_unicode_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text('question: "\\ud83d"\n')
    with pytest.raises(jaguar_kit.KitError, match=r"question: .* holds what no file can"):
        jaguar_kit.load_recipe(path)


@pytest.mark.parametrize("option", ["--data", "--out"])
def test_folders_that_are_not_utf8_are_refused_before_any_work(option, album, tmp_path, capsys):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**TINY, "question": ""}))
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    folders = {"--data": str(album), "--out": str(tmp_path / "runs"), option: odd}
    os.makedirs(odd)
    arguments = [str(recipe), *(word for pair in folders.items() for word in pair)]
    assert jaguar_kit.main(jaguar_kit.run_command, arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {option}: ")
    assert told.count("\n") == 1


LETTERS = {"latin": "Ž", "greek": "Ξ", "cyrillic": "Я", "arabic": "ع", "hebrew": "ש", "armenian": "Ա", "georgian": "ა"}


def test_sheets_have_the_letters_of_alphabets():
    """A letter is drawn, and not as the box that stands for what a font lacks."""
    font = sheet_font(24)
    box = bytes(font.getmask("\U0010fffd"))
    for alphabet, letter in LETTERS.items():
        drawn = bytes(font.getmask(letter))
        assert any(drawn), alphabet
        assert drawn != box, alphabet


CAPTIONS = ["short", "x" * 300, "a/very/long/path/to/IMG_0001.jpg" * 3, "", "雪豹" * 40, "two\nlines"]


@pytest.mark.parametrize("width", [40, 120, 400])
def test_long_captions_keep_their_beginning_and_their_end(width):
    length = sheet_font(11).getlength
    for text in CAPTIONS:
        shown = shortened_to(text, width)
        assert length(shown) <= width or len(shown) <= 3
        if length(text.replace("\n", " ")) <= width:
            assert shown == text.replace("\n", " ")
        else:
            head, _, tail = shown.partition("…")
            assert text.startswith(head)
            assert text.endswith(tail) or len(text) >= 300
