"""Maps of importance against networks that are known to see one part only, and the tests that a map must pass."""

import numpy as np
import pandas as pd
import pytest
import torch
from cases import every
from jaguar_kit_tools.experiments import attribution
from jaguar_kit_tools.experiments.attribution import (
    METHODS,
    Question,
    Scorer,
    Trial,
    animal_share,
    animals_in,
    cells_of,
    deletion_gain,
    overlay,
    pairs_to_ask,
    rank_correlation,
    shuffled_from_top,
    tried,
)
from jaguar_kit_tools.experiments.comparison import report_command
from PIL import Image
from test_room_diagnostics import Stand, coats_and_scenes, look_at, trained  # noqa: F401 - a fixture

pytestmark = pytest.mark.ci


def asked_of(part, images=6, **made):
    """A scorer that reads one part, and questions of likeness within an animal."""
    pixels, labels = coats_and_scenes(identities=images, each=2, **made)
    stand = Stand(part, pixels, labels)
    inputs = stand.network.inputs(np.arange(len(pixels)))
    animals = animals_in(stand.network, np.arange(len(pixels)))
    return Scorer(stand.network), [
        Question(inputs[i], animals[i], other=inputs[i + 1]) for i in range(0, 2 * images, 2)
    ]


@every("method", METHODS)
def test_a_network_points_at_what_it_learned(method):
    shares = {}
    for part in ("coat", "scene"):
        scorer, questions = asked_of(part)
        trial, maps = tried(scorer, questions, method, grid=8)
        shares[part] = np.mean(trial.shares)
        assert not trial.failures, part
        assert trial.correlation["all"] < 0.5
        assert trial.area == pytest.approx(0.5, abs=0.05)
        assert maps[0].shape == (8, 8)
    assert shares["coat"] > 0.8
    assert shares["scene"] < 0.2


@every("method", METHODS)
def test_shuffled_weights_fail_the_randomisation_test(method):
    scorer, questions = asked_of("coat")
    failed = []
    for seed in range(3):
        trial, _ = tried(shuffled_from_top(scorer, 1.0, 100 + seed), questions, method, grid=8, shuffles=9)
        failed.append("shuffled weights point as much at the animal" in trial.failures)
    assert sum(failed) >= 2, "one in twenty lies outside by chance"


def test_a_map_that_does_not_hang_on_the_weights_fails(monkeypatch):
    def edges(scorer, asked, grid):
        return cells_of(asked.image.abs().sum(0)[None], grid)[0]

    monkeypatch.setitem(METHODS, "edges", edges)
    scorer, questions = asked_of("coat")
    trial, _ = tried(scorer, questions, "edges", grid=8)
    assert trial.correlation["all"] == pytest.approx(1)
    assert "it hardly changes when weights are shuffled" in trial.failures
    assert "shuffled weights point as much at the animal" in trial.failures


def test_deleting_by_a_good_map_is_quicker_than_at_random_and_by_a_turned_one_slower():
    scorer, questions = asked_of("coat")
    for asked in questions[:3]:
        good = METHODS["occlusion"](scorer, asked, 8)
        assert deletion_gain(scorer, asked, good) > 0.02
        assert deletion_gain(scorer, asked, -good) < -0.02


def test_occlusion_is_the_fall_of_the_score_with_a_cell_hidden():
    scorer, (asked, *_) = asked_of("coat")
    found = METHODS["occlusion"](scorer, asked, 4)
    for row, column in ((0, 0), (1, 2), (3, 3)):
        image = asked.image.clone()
        image[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
        fall = scorer(asked.image[None], asked) - scorer(image[None], asked)
        assert float(found[row, column]) == pytest.approx(float(fall), abs=1e-5)


def test_integrated_gradients_sum_to_what_the_image_changes():
    scorer, questions = asked_of("coat")
    for asked in questions[:3]:
        found = attribution.by_gradients(scorer, asked, 8, steps=200)
        before = scorer(asked.image[None] * 1e-3, asked)  # at the very start a cosine is not told
        assert float(found.sum()) == pytest.approx(float(scorer(asked.image[None], asked) - before), abs=0.02)


def test_the_share_on_the_animal_is_weighed_by_its_cover():
    animal = torch.zeros(4, 4)
    animal[:2] = 1
    asked = Question(torch.zeros(3, 4, 4), animal)
    assert animal_share(torch.tensor([[3.0, 0.0], [-1.0, 0.0]]), asked) == pytest.approx(0.75)
    assert animal_share(torch.ones(2, 2), asked) == pytest.approx(0.5)
    assert np.isnan(animal_share(torch.zeros(2, 2), asked))


def test_weights_are_shuffled_from_the_top_down():
    scorer, _ = asked_of("coat")
    scorer.embedder.last = torch.nn.Linear(4, 4)
    before = {name: weight.clone() for name, weight in scorer.named_parameters()}
    changed = {}
    for share in (0.1, 1.0):
        other = dict(shuffled_from_top(scorer, share, 0).named_parameters())
        changed[share] = [name for name, weight in before.items() if not torch.equal(weight, other[name])]
        assert all(
            torch.equal(weight.flatten().sort()[0], other[n].flatten().sort()[0]) for n, weight in before.items()
        )
    assert changed[0.1] == ["embedder.last.bias"]
    assert set(changed[1.0]) == set(before)
    assert all(torch.equal(weight, before[name]) for name, weight in scorer.named_parameters()), "a copy is shuffled"


def test_rank_correlation_of_flat_maps_is_none():
    values = torch.arange(9.0).view(3, 3)
    assert rank_correlation(values, 2 * values) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(1), "importance of either sign"
    assert rank_correlation(values, torch.ones(3, 3)) == 0


def test_what_a_trial_fails_is_told():
    good = {"asked": "likeness", "method": "occlusion", "area": 0.3, "gains": (0.2, 0.3, 0.25)}
    good |= {"shares": (0.8, 0.9), "share": 0.85, "correlation": {"all": 0.1}, "shuffled": (0.3, 0.31, 0.29, 0.32)}
    assert Trial(**good).failures == []
    worse = {"gains": (-0.1, 0.2, 0.05), "share": 0.3, "correlation": {"all": 0.7}}
    for key, value in worse.items():
        assert len(Trial(**{**good, key: value}).failures) == 1, key
    assert len(Trial(**{**good, "share": float("nan")}).failures) == 1, "what is not known passes no test"


def test_what_supports_the_score_glows():
    picture = Image.new("RGB", (32, 32), "black")
    importance = torch.zeros(4, 4)
    importance[0, 0] = 1
    importance[3, 3] = -1
    shown = np.asarray(overlay(picture, importance, 64)).astype(int)
    assert shown[4, 4].sum() > 4 * shown[60, 60].sum()


def test_pairs_are_of_two_encounters_and_of_as_many_animals_as_there_are():
    class Run:
        labels = np.repeat(list("abcd"), 4)
        encounters = np.arange(16) // 2

    pairs = pairs_to_ask(Run, 4)
    assert sorted(Run.labels[pairs[:, 0]]) == list("abcd")
    assert (Run.labels[pairs[:, 0]] == Run.labels[pairs[:, 1]]).all()
    assert (Run.encounters[pairs[:, 0]] != Run.encounters[pairs[:, 1]]).all()


def test_animals_are_where_masks_say_or_in_the_central_box():
    images, labels = coats_and_scenes(identities=2, each=1)
    masked = animals_in(Stand("coat", images, labels).network, np.arange(2))
    np.testing.assert_allclose(masked, images[..., 3] / 255, atol=1e-5)
    plain = animals_in(Stand("coat", images[..., :3], labels).network, np.arange(2))
    assert plain[0].mean() == pytest.approx(0.65 * 0.5, abs=0.03)
    whole = images.copy()
    whole[..., 3] = 255
    assert torch.equal(animals_in(Stand("coat", whole, labels).network, np.arange(2)), plain)


@pytest.mark.ci
def test_a_report_looks_where_in_the_image_when_it_is_asked_to(trained):  # noqa: F811
    report_command([str(trained.folder), "--look", "attribution", "--device", "cpu"])
    page = (trained.folder / "report.md").read_text()
    assert "### Where in the image" in page
    table = pd.read_csv(trained.folder / "analysis" / "attribution.csv")
    assert set(table.of) == {"likeness", "name"}
    assert set(table.by) == set(METHODS)
    assert set(table.variant) == {"original", "black"}
    assert table["on the animal"].between(0, 1).all()
    assert table.tests.str.match("passes|FAILED: ").all()
    for kind in ("likeness", "name"):
        assert (trained.folder / "figures" / f"attribution-{kind}.png").is_file()


def test_names_are_asked_of_the_true_animal(trained):  # noqa: F811
    run = look_at(trained)
    pairs = pairs_to_ask(run, 3)
    scorer = Scorer(run.network)
    for asked, label in zip(attribution.questions_of(run, pairs, "name"), run.labels[pairs[:, 0]]):
        assert run.network.identities[asked.name] == label
        assert float(scorer(asked.image[None], asked)) < 0, "a logarithm of a probability"
