"""Evidence cards: what they tell of a pair, by whom it is asked for, and how it is shown."""

import re

import jaguar_kit
import numpy as np
import pytest
from jaguar_kit import KitError
from jaguar_kit_tools.experiments import cards
from jaguar_kit_tools.experiments.cards import Card, Evidence, drawn, evidence_card, pairs_to_show, place_of, wrapped
from jaguar_kit_tools.experiments.comparison import report_command
from jaguar_kit_tools.experiments.figures import OTHER, SAME, sheet_font
from PIL import Image, ImageColor
from test_room_diagnostics import look_at, trained  # noqa: F401 - a fixture

pytestmark = pytest.mark.ci


FACTS = ("Together", "Likeness", "Flanks", "Scenes", "Encounter", "Without scenes", "Spots", "Where it rests")


@pytest.fixture(scope="module")
def pair(trained):  # noqa: F811
    """A run, two of its validation images of one animal, and their card."""
    run = look_at(trained)
    first = next(i for i in range(len(run.labels)) if (run.labels == run.labels[i]).sum() > 1)
    second = next(i for i in np.flatnonzero(run.labels == run.labels[first]) if i != first)
    return run, (first, second), evidence_card(run, first, second)


def test_a_card_tells_all_that_is_known_of_a_pair(pair):
    run, (one, other), card = pair
    told = dict(card.evidence.facts)
    assert tuple(told) == FACTS
    assert told["Together"].startswith("the labels say one animal; by likeness alone one animal with probability ")
    assert told["Likeness"].startswith(f"{run.similarity[one, other]:.3f}, ")
    flanks = run.flanks[[one, other]]
    assert told["Flanks"].startswith(f"{flanks[0]} and {flanks[1]}: ")
    assert ("which share no spots" in told["Flanks"]) == (flanks[0] != flanks[1])
    shared = run.encounters[one] == run.encounters[other]
    assert told["Encounter"] == ("one: light and background are shared" if shared else "two different ones")
    assert "each before the scene of the other image" in told["Without scenes"]
    upper, lower = card.evidence.names
    assert all(sum(share for _, share in own) <= 1.0001 for own in (upper, lower))
    logits = run.network.logits(run.network.embeddings(run.positions[[one]]))[0]
    assert upper[0][0] == run.network.identities[int(logits.argmax())]


def test_a_card_is_a_picture_a_part_of_a_page_and_files(pair, tmp_path):
    card = pair[2]
    assert card.picture.width >= 700
    assert card._repr_html_() == card.html
    assert "data:image/webp;base64," in card.html
    assert "<dt>Names of the upper</dt>" in card.html
    page = card.write(tmp_path)
    assert page.suffix == ".html"
    assert "<script" not in page.read_text()
    assert Image.open(page.with_suffix(".png")).size == card.picture.size


def test_the_same_pair_by_file_names_and_by_folders(pair, trained):  # noqa: F811
    run, (one, other), card = pair
    names = run.kept["images"][[one, other]]
    for where in (trained.folder / run.spec.folder, run):
        again = evidence_card(where, *names, spots=False, attribution=False, device="cpu")
        assert dict(again.evidence.facts)["Likeness"] == dict(card.evidence.facts)["Likeness"]
        assert again.evidence.maps is again.evidence.spots is None
    best = cards.run_at(trained, "cpu")
    assert best.there.metrics()["map"] == max(trained.table["map"])


def test_what_can_not_be_shown_is_refused_in_a_line(pair, tmp_path):
    run = pair[0]
    with pytest.raises(KitError, match=r"evidence_card: 'gone.png' is no validation image of original/seed1"):
        evidence_card(run, "gone.png", 1)
    with pytest.raises(KitError, match="are one image"):
        evidence_card(run, 1, 1)
    with pytest.raises(KitError, match="no experiment of this kit"):
        evidence_card(tmp_path, 0, 1)
    with pytest.raises(KitError, match="is no validation image"):
        place_of(run, 10_000)


def plain_evidence(**more):
    pictures = (Image.new("RGB", (40, 40), "white"),) * 2
    return Evidence(pictures, ("one", "other"), (("Together", "nothing is known"),), **more)


@pytest.mark.parametrize("failed", [(), ("deleting by it is no better than at random",)])
def test_a_map_that_fails_is_framed_as_failed(failed):
    maps = (Image.new("RGB", (40, 40), "gray"),) * 2
    shown = np.asarray(drawn(plain_evidence(maps=maps, maps_failed=failed)))
    colours = {colour: (shown == ImageColor.getrgb(colour)).all(-1).sum() for colour in (SAME, OTHER)}
    assert (colours[OTHER] > 1000) == bool(failed)
    assert (colours[SAME] > 1000) == (not failed)


def test_what_nobody_measured_is_left_out():
    card = Card(plain_evidence())
    assert "Names of" not in card.html
    assert card.picture.height < drawn(plain_evidence(names=([("a", 0.5)], [("b", 0.4)]))).height


def test_lines_are_broken_between_words_and_no_word_is_lost():
    text = "how probable it is that two images as alike as this show one animal " * 3
    lines = wrapped(text, 200, sheet_font(13))
    assert " ".join(lines).split() == text.split()
    assert all(sheet_font(13).getlength(line) <= 200 for line in lines)


def test_files_are_named_by_safe_letters_alone(tmp_path):
    page = Card(plain_evidence(), "../a b/c.jpg").write(tmp_path)
    assert page.parent == tmp_path
    assert re.fullmatch(r"[\w-]+-a-b-c\.jpg\.html|a-b-c\.jpg\.html", page.name)


def test_shown_pairs_are_confusions_with_what_was_to_be_found_and_pairs_of_two_encounters(pair):
    run = pair[0]
    found = pairs_to_show(run, 3)
    assert len({tuple(sorted(one[:2])) for one in found}) == len(found)
    for one, other, why in found:
        assert (run.labels[one] == run.labels[other]) == (why != "A wrong first match")
        if why != "A wrong first match":
            assert run.encounters[one] != run.encounters[other]


@pytest.mark.ci
def test_a_report_shows_cards_when_it_is_asked_to(trained):  # noqa: F811
    report_command([str(trained.folder), "--look", "cards", "--device", "cpu"])
    page = (trained.folder / "report.md").read_text()
    assert "### Evidence of single pairs" in page
    assert (trained.folder / "figures" / "card0.png").is_file()
    assert list((trained.folder / "analysis" / "cards").glob("*.html"))
    assert jaguar_kit.room("experiments.looking").looks_there() == ["attribution", "cards", "scene"]
