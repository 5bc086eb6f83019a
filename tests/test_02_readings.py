"""Readings: where a source's text, its code and a recipe differ, and runs wholly in one of them."""

from __future__ import annotations

from pathlib import Path

import jaguar_kit
import numpy as np
import pytest
import torch
import yaml
from cases import every
from jaguar_kit import KitError, expand, load_recipe, recipe_to_dict, run_recipe
from jaguar_kit_tools.experiments import report as report_room
from jaguar_kit_tools.experiments.search import search_baseline
from jaguar_kit_tools.experiments.smoke import check_buildable
from tiny import smaller

ROOT = Path(jaguar_kit.__file__).parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
ROWS = yaml.safe_load((ROOT / "tests" / "contradictions.yaml").read_text())
TAKEN = {"text": ("text",), "code": ("code",), "both": ("text", "code"), "neither": ()}


def test_every_contradiction_has_its_entry_or_its_test():
    assert sorted(ROWS) == list(range(1, 52))
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for row, told in ROWS.items():
        if "test" in told:
            assert f"def {told['test']}(" in tests, row
            continue
        recipe = load_recipe(ROOT / "recipes" / f"{told['recipe']}.yaml")
        (entry,) = [entry for entry in recipe.readings if entry.about == told["about"]]
        assert entry.text, row
        assert entry.code, row
        assert entry.taken != "neither" or entry.why, row


@pytest.mark.ci
@every("path", RECIPES)
def test_a_recipe_runs_in_either_reading_and_has_what_it_says_it_takes(path):
    recipe = load_recipe(path)
    own = recipe_to_dict(recipe)
    for entry in recipe.readings:
        for side in TAKEN[entry.taken]:
            if isinstance(getattr(entry, side), dict):
                changed = jaguar_kit.merge_recipe(own, getattr(entry, side))
                assert recipe_to_dict(jaguar_kit.recipe_from_dict(changed)) == own, entry.about
    for reading in ("text", "code"):
        other = load_recipe(path, [f"reading={reading}"])
        assert other.reading == reading
        told = [getattr(entry, reading) for entry in recipe.readings]
        settings = [one for one, entry in zip(told, recipe.readings) if isinstance(one, dict)]
        differs = {k: v for k, v in recipe_to_dict(other).items() if v != own[k]}
        assert (set(differs) - {"reading", "overrides"} <= {key for one in settings for key in one}) or not settings
        for spec in expand(other):
            check_buildable(spec.recipe)


WITH_READINGS = """
name: two
readings:
  - {about: rate, text: {train: {lr: 1e-3}}, code: 5e-4, taken: code, why: it made the numbers}
  - {about: noise, text: not told, code: {variants: {a: {train: {batch_size: 8}}}}, taken: neither, why: ours is better}
variants: {a: {why: one}, b: {why: another}}
"""


@pytest.fixture
def written(tmp_path):
    (tmp_path / "two.yaml").write_text(WITH_READINGS)
    return tmp_path / "two.yaml"


def test_a_reading_lays_its_settings_upon_the_recipe(written):
    assert [spec.recipe.train.lr for spec in expand(load_recipe(written))] == [5e-4, 5e-4]
    assert [spec.recipe.train.lr for spec in expand(load_recipe(written, ["reading=text"]))] == [1e-3, 1e-3]
    assert [spec.recipe.train.batch_size for spec in expand(load_recipe(written, ["reading=code"]))] == [8, 64]


def test_what_the_command_line_sets_besides_wins_over_the_reading_in_any_order(written):
    for overrides in (["reading=text", "train.lr=2e-3"], ["train.lr=2e-3", "reading=text"]):
        assert {spec.recipe.train.lr for spec in expand(load_recipe(written, overrides))} == {2e-3}


def test_a_recipe_may_name_its_reading_itself_and_its_record_keeps_it(written):
    written.write_text(WITH_READINGS + "reading: text\n")
    recipe = load_recipe(written)
    assert recipe.train.lr == 1e-3
    assert jaguar_kit.recipe_from_dict(recipe_to_dict(recipe)) == recipe


def test_readings_are_inherited_but_for_those_about_the_same(written):
    child = written.parent / "child.yaml"
    child.write_text("base: two.yaml\nreadings: [{about: rate, text: as here, code: as here, taken: both}]\n")
    assert [entry.about for entry in load_recipe(child).readings] == ["rate", "noise"]
    assert load_recipe(child, ["reading=text"]).train.lr == 5e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("reading: txt", "reading: 'txt' is not known; did you mean 'text'"),
        ("reading: text\nreadings: [{about: x, text: {trian: {lr: 1}}}]", "trian: there is no such setting"),
        ("reading: text\nreadings: [{about: x, text: 5}]", r"readings\[0\]\.text: 5 is not text"),
        ("readings: [{about: x, taken: maybe}]", r"readings\[0\]\.taken: 'maybe' is not known"),
        ("readings: [{abuot: x}]", "did you mean 'about'"),
    ],
)
def test_a_reading_that_can_not_be_is_one_line(tmp_path, change, message):
    (tmp_path / "odd.yaml").write_text(f"name: odd\n{change}\n")
    with pytest.raises(KitError, match=message):
        load_recipe(tmp_path / "odd.yaml")


def test_the_report_tells_the_reading_and_what_the_source_says(mini, written, tmp_path):
    more = "conclusion: The second is best.\nleaderboard: {theirs: 0.5}\n"
    small = "data: {size: 32}\nmodel: {backbone: test_resnet, pretrained: false, input_size: 32}\n"
    text = WITH_READINGS.replace("{train: {lr: 1e-3}}", "{train: {epochs: 1, lr: 1e-3}}")
    written.write_text(text + more + small + "train: {epochs: 1}\n")
    recipe = load_recipe(written, ["reading=text"])
    page = run_recipe(recipe, data=mini, out=tmp_path / "runs", device="cpu").report.read_text(encoding="utf-8")
    assert "these runs follow its text" in page
    assert "it made the numbers" in page
    assert "What the source reports" in page
    assert "The second is best." in page
    assert "Leaderboard, by others" in page


# what the readings need


def test_rmsprop_has_a_momentum():
    weight = torch.nn.Parameter(torch.full((1,), 5.0))
    optimizer = jaguar_kit.build("optimizer", "rmsprop", parameters=[weight], lr=0.1, weight_decay=0.0, momentum=0.9)
    square, velocity, value = 0.0, 0.0, 5.0
    for gradient in (1.0, -0.5, 2.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        square = 0.99 * square + 0.01 * gradient**2
        velocity = 0.9 * velocity + gradient / (square**0.5 + 1e-8)
        value -= 0.1 * velocity
        assert float(weight.detach()) == pytest.approx(value, rel=1e-5)


def test_prototypes_begin_far_out_and_stay_below_their_own_radius():
    ball = jaguar_kit.build("geometry", "poincare", curvature=1.0, radius=0.6)
    sizes = {"embedding_dim": 256, "num_identities": 31, "geometry": ball}
    near, far = (
        jaguar_kit.build("loss", "hyperbolic_arcface", **sizes, proxies=proxies, proxy_radius=radius)
        for proxies, radius in (("normal", None), ("xavier", 0.95))
    )
    norms = [float(loss.proxy_space(loss.weight).norm(dim=1).mean()) for loss in (near, far)]
    assert norms[0] == pytest.approx(np.tanh(0.5), abs=0.03)
    assert norms[1] == pytest.approx(0.87, abs=0.03)
    with torch.no_grad():
        far.weight.mul_(100)
    assert float(far.proxy_space(far.weight).norm(dim=1).max()) == pytest.approx(0.95, abs=1e-5)


def test_an_anchor_without_a_positive_may_be_its_own():
    embeddings, labels = torch.randn(5, 4), torch.tensor([0, 0, 1, 2, 3])
    vectors = embeddings / embeddings.norm(dim=1, keepdim=True)
    distance = torch.cdist(vectors, vectors).tolist()
    slow = []
    for i in range(5):
        positives = [distance[i][j] for j in range(5) if labels[j] == labels[i] and j != i] or [0.0]
        slow.append(max(0.0, 0.3 + max(positives) - min(distance[i][j] for j in range(5) if labels[j] != labels[i])))
    loss = jaguar_kit.build("loss", "triplet", embedding_dim=4, num_identities=4, alone="itself")
    assert float(loss(embeddings, labels)) == pytest.approx(np.mean(slow), abs=1e-5)


def test_validation_loss_may_be_the_mean_over_batches():
    loss = jaguar_kit.build("loss", "triplet", embedding_dim=4, num_identities=3)
    embeddings, labels = torch.randn(10, 4), torch.arange(10) % 3
    told = jaguar_kit.classifier_metrics(loss, embeddings, labels, batch=4)["val_loss"]
    parts = [float(loss(embeddings[i : i + 4], labels[i : i + 4])) for i in (0, 4, 8)]
    assert told == pytest.approx(np.mean(parts))


def test_gem_may_learn_its_exponent_itself():
    places = torch.rand(2, 3, 4, 4)
    pools = [jaguar_kit.build("pooling", "gem", p=2.5, learns=learns) for learns in ("p", "log_p")]
    one, other = (pool.reduce(places) for pool in pools)
    torch.testing.assert_close(one, other)
    one.sum().backward(), other.sum().backward()
    slopes = [float(next(pool.parameters()).grad) for pool in pools]
    assert slopes[1] == pytest.approx(2.5 * slopes[0], rel=1e-4)  # of the logarithm


def test_a_backbone_may_see_the_centre_of_an_image():
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    part = jaguar_kit.Component("background", "original")
    prepare = jaguar_kit.Preparation(part, (), 28, (0.0,) * 3, (1.0,) * 3, crop=0.875)
    whole = jaguar_kit.Preparation(part, (), 32, (0.0,) * 3, (1.0,) * 3)
    torch.testing.assert_close(prepare(pixels, False), whole(pixels, False)[..., 2:30, 2:30])


def test_noise_drawn_in_a_larger_image_is_nearly_flat_and_a_whole_blur_takes_the_animal_in():
    rgb = torch.zeros(1, 3, 64, 64)
    alpha = torch.zeros(1, 1, 64, 64)
    rgb[..., 16:48, 16:48], alpha[..., 16:48, 16:48] = 1.0, 1.0
    noise = jaguar_kit.build("background", "random", grain=15.0).paint(rgb, alpha)
    fine = torch.rand(64 * 15, 64 * 15).unfold(0, 15, 15).unfold(1, 15, 15).mean((2, 3))  # drawn at full size
    assert float(noise.std()) == pytest.approx(float(fine.std()), rel=0.1)
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.01)
    apart, whole = (
        jaguar_kit.build("background", "blur", radius=0.1, whole=one).paint(rgb, alpha) for one in (False, True)
    )
    assert float(apart.max()) == 0
    assert float(whole[..., 0, 32].mean()) > 0.001


def test_the_growing_set_of_k_reciprocal_is_that_of_a_loop():
    points = np.random.default_rng(0).normal(size=(40, 3))
    similarity = jaguar_kit.similarity_matrix(torch.from_numpy(points))
    ranked = jaguar_kit.ranked_neighbours(similarity, 9)
    columns = ranked.tolist()

    def mutual(i, k):
        return [c for c in columns[i][:k] if i in columns[c][:k]]

    expected = []
    for i in range(40):
        grown = set(mutual(i, 9))
        for member in mutual(i, 9):
            own = set(mutual(member, 5))
            grown |= own if 3 * len(own & grown) > 2 * len(own) else set()
        expected += [i * 40 + c for c in sorted(grown)]
    keys = jaguar_kit.grown_reciprocal_keys(ranked, 5).tolist()
    assert keys == expected
    assert keys != jaguar_kit.expanded_reciprocal_keys(ranked, 5).tolist()
    found = jaguar_kit.k_reciprocal_rerank(points, k1=8, k2=3, growing=True)
    assert np.abs(found - jaguar_kit.k_reciprocal_rerank(points, k1=8, k2=3)).max() > 1e-3


def test_a_reading_of_a_step_reaches_the_lists_of_all_variants():
    code = {spec.variant: spec.recipe.postprocess for spec in expand(load_recipe("lbe12", ["reading=code"]))}
    text = {spec.variant: spec.recipe.postprocess for spec in expand(load_recipe("lbe12", ["reading=text"]))}
    for name, steps in code.items():
        assert [step.settings.get("growing") for step in steps if step.name == "k_reciprocal"] == ["rerank" in name] * (
            "rerank" in name
        )
        expanding = [step.settings.get("sides") for step in text[name] if step.name == "query_expansion"]
        assert expanding == ["query"] * ("qe" in name)


def test_expanded_queries_may_be_compared_with_the_gallery_as_it_was():
    points = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = torch.nn.functional.normalize(points, dim=1)
    expected = (jaguar_kit.query_expansion(points, 2) @ unit.T).fill_diagonal_(1)
    step = {"name": "query_expansion", "k": 2, "sides": "query"}
    torch.testing.assert_close(jaguar_kit.postprocess([step], points), expected)
    reranked = jaguar_kit.postprocess([step, {"name": "k_reciprocal", "k1": 3, "k2": 2}], points)
    torch.testing.assert_close(reranked, jaguar_kit.k_reciprocal_rerank(similarity=expected, k1=3, k2=2))
    with pytest.raises(KitError, match="out of order"):
        jaguar_kit.postprocess([step, "query_expansion"], points)


def test_the_code_s_reading_of_euclidean_embeddings_ranks_by_the_cosine(capsys):
    for reading, geometry, notes in (("published", "euclidean", 1), ("code", "cosine", 0)):
        recipe = load_recipe("lbe05", [f"reading={reading}"] if reading != "published" else [])
        (one,) = [spec.recipe for spec in expand(recipe) if spec.variant == "euclidean"]
        assert one.model.geometry.name == geometry
        said = jaguar_kit.notes_on_settings(one)
        assert len(said) == notes
        assert all("arcface' teaches nothing: it compares directions" in note for note in said)
    plain = jaguar_kit.merge_recipe(recipe_to_dict(one), {"model": {"geometry": "euclidean"}, "loss": "cross_entropy"})
    assert jaguar_kit.notes_on_settings(jaguar_kit.recipe_from_dict(plain)) == []


@pytest.mark.ci
def test_validation_images_may_be_of_the_stage_and_patience_may_end_the_run(mini, tmp_path):
    told = {}
    for at, ends in (("size", "stage"), ("stage", "run")):
        recipe = jaguar_kit.recipe_from_dict(
            {
                "name": at,
                "data": {"size": 64},
                "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 64},
                "train": {
                    "stages": [{"epochs": 4, "size": 16}, {"epochs": 3, "size": 64}],
                    "patience": 1,
                    "lr": 1e-9,
                    "schedule": "none",
                    "validate_at": at,
                    "patience_ends": ends,
                },
            }
        )
        result = run_recipe(recipe, data=mini, out=tmp_path, device="cpu")
        told[at] = jaguar_kit.RunFolder(result.folder / "default" / "seed42").log()
    assert set(told["size"].stage.dropna()) == {0, 1}
    assert set(told["stage"].stage.dropna()) == {0}
    assert told["size"]["map"][0] != told["stage"]["map"][0]
    page = (tmp_path / f"size@{mini.name}" / "report.md").read_text()
    assert "By stage of training" in page


def test_a_search_compares_with_its_baseline(tmp_path):
    search = {"space": {"train.lr": {"low": 1e-4, "high": 1e-2}}, "baseline": {"train.lr": 3e-3, "loss": "cosface"}}
    recipe = jaguar_kit.recipe_from_dict({"name": "s", "search": search})
    once = search_baseline(recipe).recipe
    assert (once.train.lr, once.loss.name) == (3e-3, "cosface")
    with pytest.raises(KitError, match=r"search\.baseline.*no such setting"):
        jaguar_kit.recipe_from_dict({"name": "s", "search": {**search, "baseline": {"train.rate": 1}}})


def changed_by(path, reading):
    own, other = (recipe_to_dict(load_recipe(path, told)) for told in ([], [f"reading={reading}"]))
    return [key for key in own if own[key] != other[key] and key not in ("reading", "overrides")]


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["text", "code"])
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_both_readings_have_a_smoke_run(path, reading, tmp_path, monkeypatch):
    if not load_recipe(path).readings or not changed_by(path, reading):
        pytest.skip("this reading is the recipe as it stands, or there is none")
    monkeypatch.setattr(report_room, "SHOWN", 1)
    recipe = smaller(jaguar_kit.smoke(load_recipe(path, [f"reading={reading}"]), jaguar_kit.small_backbone()))
    result = run_recipe(recipe, out=tmp_path, device="cpu")
    assert not result.failed
    assert "Readings of the source" in result.report.read_text(encoding="utf-8")
