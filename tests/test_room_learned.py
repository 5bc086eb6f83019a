"""A head that is learned on a catalogue: used where it helps, the same each time, and honest where it is used.

Features are pictures of 8 x 8 squares: what tells animals apart is faint there, beside what changes from day to day.
"""

import json

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import torch
from cases import every
from jaguar_kit_tools.benches.strangers import season_of
from jaguar_kit_tools.identify import albums, season
from jaguar_kit_tools.identify.answers import rank_animals
from jaguar_kit_tools.identify.confidence import leave_one_out
from jaguar_kit_tools.identify.decisions import Decisions
from jaguar_kit_tools.identify.evidence import Recognised
from jaguar_kit_tools.identify.grouping import Sameness
from jaguar_kit_tools.identify.learned import figures_of, head, parts_of, with_head
from jaguar_kit_tools.identify.likeness import CrossFitted, Gallery, Likeness
from jaguar_kit_tools.identify.odds import Odds
from PIL import Image

SIZE = 64


def features_of(rng, seen, animals, faint=12.0, strong=45.0, noise=4.0):
    """Features (N, 64) of the animals that were seen: twelve directions are faint and theirs, sixteen strong and the
    day's."""
    own = np.random.default_rng(7).normal(size=(animals, 12)) * faint
    found = noise * rng.normal(size=(len(seen), SIZE))
    found[:, :12] += own[seen]
    found[:, 12:28] += strong * rng.normal(size=(len(seen), 16))
    return found


def catalogue_of(rng, animals=24, encounters=5, **more):
    seen = np.repeat(np.arange(animals), encounters)
    return np.char.add("a", np.char.zfill(seen.astype(str), 3)), features_of(rng, seen, 2 * animals, **more)


def likeness_of(features):
    return Likeness(torch.from_numpy(features).float(), jaguar_kit.build("geometry", "cosine"))


def random_catalogue(rng, animals=24, encounters=5):
    return catalogue_of(rng, animals, encounters, faint=0.0, strong=25.0, noise=25.0)


# which is used


def test_a_head_is_used_where_a_linear_map_reveals_animals_and_left_out_where_none_does():
    for make, used in ((catalogue_of, True), (random_catalogue, False)):
        identity, features = make(np.random.default_rng(0))
        before = likeness_of(features)
        likeness, learned = with_head(before, identity, np.arange(len(identity)))
        assert learned.used is used
        assert (learned.figures["least"] > 0) is used
        assert (likeness is before) is not used
        assert (learned.crossed is not None) is used
        assert str(learned.figures["head_right"]) in learned.words
        assert learned.kept["used"] is used


def test_a_head_is_not_tried_where_few_were_met_twice_or_nobody_wants_it(capsys):
    identity, features = catalogue_of(np.random.default_rng(0), animals=19)
    likeness, learned = with_head(likeness_of(features), identity, np.arange(len(identity)))
    assert not learned.used
    assert "19 individuals have two encounters (of 20 at least)" in learned.words
    assert "19 individuals" in capsys.readouterr().out
    likeness, learned = with_head(likeness_of(features), identity, np.arange(len(identity)), "always")
    assert learned.used
    assert likeness.embeddings.shape[1] != SIZE
    assert not with_head(likeness_of(features), identity, np.arange(len(identity)), "never")[1].used


def test_always_holds_for_the_smallest_catalogues():
    for names in (["a", "b"], ["a", "a", "b"], ["a", "a"]):
        features = np.random.default_rng(0).normal(size=(len(names), SIZE))
        likeness, learned = with_head(likeness_of(features), np.array(names), np.arange(len(names)), "always")
        assert learned.used
        assert torch.isfinite(likeness.embeddings).all()


def test_the_gain_is_a_share_of_encounters_with_an_interval_over_individuals():
    rng = np.random.default_rng(0)
    animal = np.repeat(np.arange(60), rng.integers(1, 5, 60))
    helped = rng.random(60)[animal] < 0.5  # all encounters of an animal together
    plain = Recognised(np.full(len(animal), 0.5), animal)
    figures = figures_of(plain, Recognised(np.where(helped, 1.0, 0.5), animal))
    drawn = [np.flatnonzero(np.isin(animal, [one])) for one in range(60)]
    means = [helped[np.concatenate([drawn[one] for one in rng.integers(0, 60, 60)])].mean() for _ in range(2000)]
    assert figures["gain"] == pytest.approx(helped.mean(), abs=1e-3)
    assert (figures["least"], figures["most"]) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)
    assert (figures["features_right"], figures["head_right"]) == (0, helped.sum())
    assert "gain" not in figures_of(plain, Recognised(np.full(len(animal), np.nan), animal))


# what it was fitted on


def test_nothing_is_asked_by_a_head_that_was_fitted_on_it():
    identity, features = catalogue_of(np.random.default_rng(0), animals=21, encounters=4)
    met = np.random.default_rng(1).permutation(np.repeat(np.arange(42), 2))  # of two images each
    met = np.unique(np.char.add(identity, met.astype(str)), return_inverse=True)[1]
    gallery, fits = Gallery.of(identity, met), []

    def remembering(found, names):
        fits.append({tuple(row.tolist()) for row in found})
        return lambda rows: rows

    likeness = likeness_of(features)
    _, learned = with_head(likeness, identity, met, "always", remembering)
    crossed, rows = learned.crossed, [tuple(row.tolist()) for row in likeness.embeddings]
    assert len(fits) == len(crossed.known) + len(crossed.strange) + 1
    for row, code in enumerate(gallery.met):
        assert rows[row] not in fits[crossed.part[code]]
        own = {rows[other] for other in np.flatnonzero(identity == identity[row])}
        assert not own & fits[len(crossed.known) + crossed.group[code]]
        assert rows[row] in fits[-1]


def test_the_encounters_of_an_animal_are_of_different_parts():
    identity = np.repeat([f"a{i}" for i in range(20)], 4)
    part = parts_of(Gallery.of(identity, np.arange(80)))
    assert all(len(set(part[4 * i : 4 * i + 4])) == 4 for i in range(20))
    assert np.bincount(part).tolist() == [16] * 5


def test_each_encounter_is_asked_for_by_its_likenesses():
    likenesses = [likeness_of(np.eye(SIZE)) for _ in range(4)]
    crossed = CrossFitted(likenesses[:2], np.array([0, 0, 1, 1, 1]), likenesses[2:], np.array([0, 1, 0, 1, 1]))
    found = [(one, other, some.tolist()) for one, other, some in crossed.asking(np.array([0, 1, 3, 4]))]
    one, two, three, four = likenesses
    assert found == [(one, three, [0]), (one, four, [1]), (two, four, [3, 4])]
    whole = CrossFitted.of(one, 5)
    assert [(a, b, some.tolist()) for a, b, some in whole.asking(np.arange(5))] == [(one, one, [0, 1, 2, 3, 4])]


def test_the_same_catalogue_has_the_same_head_whatever_was_drawn_before():
    identity, features = catalogue_of(np.random.default_rng(0))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        with torch.no_grad():  # as where networks are asked
            found.append(head(torch.from_numpy(features), identity)(torch.from_numpy(features)))
        assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(*found)


# how honest it is


def week_of(share, mode, seed=0):
    """A season of 24 animals, and of photographs `share` of which show 24 others; and who is on them."""
    rng = np.random.default_rng(seed)
    identity, features = catalogue_of(rng)
    seen = np.r_[rng.integers(0, 24, round(120 * (1 - share))), rng.integers(24, 48, round(120 * share))]
    truth = np.char.add("a", np.char.zfill(seen.astype(str), 3))
    tables = [pd.DataFrame({"identity": names, "taken": "", "camera": ""}) for names in (identity, truth)]
    tables = [table.assign(path=table.index.astype(str), mark=table.index.astype(str)) for table in tables]
    known, new = map(albums.Album, tables, (torch.from_numpy(features).float(), None))
    new = albums.Album(tables[1], torch.from_numpy(features_of(rng, seen, 48)).float())
    return season_of(known, new, np.arange(len(identity)), np.arange(len(truth)), head=mode), truth


def told_of(one, crossed):
    """Whom each photograph shows, and how probable it is that this is so, and that it shows a new animal."""
    ranked, everyone = rank_animals(one, Decisions.none()), np.ones(len(one.known), bool)
    odds = Odds.of(leave_one_out(one.known, one.known_met, crossed, everyone))
    odds, score = odds.of_week(ranked.score[:, 0], one.encounters), ranked.score[:, 0]
    return ranked.names[:, 0], odds.of_right(score), odds.of_new(score)


@pytest.mark.ci
def test_names_are_as_probable_as_they_are_told_to_be_at_any_share_of_strangers():
    for share in (0.0, 0.5, 1.0):
        one, truth = week_of(share, "always")
        names, probability, strange = told_of(one, one.learned.crossed)
        right = (names == truth).mean()
        # never too many: a head that lacks a fifth of an animal's encounters names fewer than one that knows them all
        assert -0.2 < probability.mean() - right < 0.1, share
        assert strange.mean() == pytest.approx(share, abs=0.2), share
        if share < 1:  # beside a head that was fitted on all that is asked for, all that come seem new
            assert told_of(one, one.likeness)[2].mean() > share + 0.3, share


@pytest.mark.ci
def test_two_encounters_of_strangers_are_compared_by_heads_that_know_neither():
    one, _ = week_of(1.0, "always")
    honest, naive = Sameness.of(one), Sameness.of(season.Season(
        one.shelf, one.new, one.likeness, one.known_met, one.encounters
    ))  # fmt: skip
    assert honest.share == naive.share
    assert honest.tilt.slope < naive.tilt.slope


# by the command


def pictures(folder, names, features):
    """A picture of each row of features, below a folder for each name."""
    paths = []
    for number, (name, row) in enumerate(zip(names, features)):
        squares = np.clip(128 + row.round(), 0, 255).astype(np.uint8).reshape(8, 8)
        path = folder / name / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.kron(squares, np.ones((8, 8), np.uint8))).convert("RGB").save(path)
        paths.append(path)
    return paths


class Field:
    """Catalogues of pictures in which a linear map reveals animals, and in which nothing does; and a week."""

    def __init__(self, root, weights):
        self.weights, rng = weights, np.random.default_rng(0)
        self.catalogues = {True: root / "faint", False: root / "random"}
        for used, make in ((True, catalogue_of), (False, random_catalogue)):
            pictures(self.catalogues[used], *make(rng))
        self.seen = rng.integers(0, 24, 30)
        pictures(self.week(root), ["week"] * 30, features_of(rng, self.seen, 48))
        self.queries = self.week(root)

    @staticmethod
    def week(root):
        return root / "photographs"

    def ask(self, out, *more, used=True):
        where = ("--catalogue", self.catalogues[used], "--queries", self.queries, "--out", out, "--device", "cpu")
        line = ["identify", "--backbone", self.weights, *where, *more]
        assert jaguar_kit.main(jaguar_kit.any_command, list(map(str, line))) == 0
        return json.loads((out / "identify.json").read_text()), (out / "answers.csv").read_bytes()


def squares_of(_, source):
    """The pictures' own squares, as a network's features."""
    pixels = np.stack([source.store[i][..., 0] for i in range(len(source.store))]).astype(np.float32)
    side = pixels.shape[1] // 8
    return torch.from_numpy(pixels.reshape(len(pixels), 8, side, 8, side).mean((2, 4)).reshape(-1, SIZE) - 128)


@pytest.fixture(scope="module")
def field(tmp_path_factory, weights):
    return Field(tmp_path_factory.mktemp("field"), weights)


@pytest.fixture
def by_squares(monkeypatch, tmp_path):
    monkeypatch.setattr(albums, "embed", squares_of)
    monkeypatch.setenv("JAGUAR_KIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.ci
@every("used", [True, False])
def test_the_command_says_which_was_used_and_why(used, field, by_squares, tmp_path, capsys):
    out = tmp_path / f"answers{used}"
    settings, table = field.ask(out, used=used)
    words = settings["learned"]["why"]
    assert settings["head"] == "auto"
    assert settings["learned"]["used"] is used
    assert words.startswith("A head learned on the catalogue is used" if used else "No head learned on the catalogue")
    assert settings["learned"]["individuals"] == 24
    assert (settings["learned"]["least"] > 0) is used
    for page in (capsys.readouterr().out, (out / "report.md").read_text(), (out / "review.html").read_text()):
        assert words in page
    assert ("through a head that was learned on the catalogue" in table.decode("utf-8-sig")) is used


@pytest.mark.ci
def test_answers_are_the_same_again_after_a_kill_and_the_next_week(field, by_squares, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(season, "with_head", killed)
        with pytest.raises((KeyboardInterrupt, AssertionError)):
            field.ask(tmp_path / "killed")
    one, again = (field.ask(tmp_path / name)[1] for name in ("one", "again"))
    assert one == again
    settings, _ = field.ask(tmp_path / "never", "--head", "never")
    assert settings["learned"] == {
        "used": False,
        "why": "A head learned on the catalogue was not tried (--head never).",
    }
    answers = [pd.read_csv(tmp_path / name / "answers.csv", encoding="utf-8-sig") for name in ("one", "never")]
    truth = np.char.add("a", np.char.zfill(field.seen.astype(str), 3))
    right = [(table.sort_values("image").identity.to_numpy() == truth).sum() for table in answers]
    assert right[0] > right[1] + 5
    line = ("identify", "--previous", tmp_path / "one", "--queries", field.queries, "--out", tmp_path / "next")
    assert jaguar_kit.main(jaguar_kit.any_command, [*map(str, line), "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "next" / "identify.json").read_text())["head"] == "auto"


def test_a_head_of_another_name_is_refused(field, tmp_path):
    from jaguar_kit_tools.identify.identify import identify

    with pytest.raises(jaguar_kit.KitError, match=r"--head: 'often' \(expected auto, never, always\)"):
        identify(None, field.catalogues[True], field.queries, tmp_path / "out", "cpu", "x", head="often")
