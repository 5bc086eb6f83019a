"""Evidence beyond likeness: a classifier's posterior, spots that match, and their fusion."""

from __future__ import annotations

import shutil
from functools import partial

import jaguar_kit
import kornia.feature
import numpy as np
import pandas as pd
import pytest
import torch
from cases import every
from hypothesis import given
from hypothesis import strategies as st
from jaguar_kit import (
    KitError,
    build,
    choose_steps,
    closed_set_posterior,
    extract_local,
    local_similarity,
    multi_scale_tta,
    postprocess,
    recipe_from_dict,
    run_recipe,
)
from jaguar_kit_tools.experiments import encounters as encounters_room
from jaguar_kit_tools.experiments.figures import image_type
from safetensors.torch import save_file
from scipy.stats import ttest_1samp

LOGITS = st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=6)


def softmax(row):
    powers = [np.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


# posterior


@given(LOGITS, st.sampled_from([0.5, 1.0, 4.0]))
def test_the_posterior_follows_its_formula(logits, temperature):
    shares = [softmax([value / temperature for value in row]) for row in logits]
    for form, power in (("product", 1.0), ("hellinger", 0.5)):
        found = closed_set_posterior(np.array(logits), form, temperature)
        slow = [[sum((p * q) ** power for p, q in zip(one, other)) for other in shares] for one in shares]
        np.testing.assert_allclose(found, slow, atol=1e-6)
    assert np.allclose(np.diag(closed_set_posterior(np.array(logits))), 1, atol=1e-6)


@given(LOGITS, st.randoms(use_true_random=False))
def test_the_posterior_does_not_see_the_order_of_images_or_classes(logits, random):
    logits = np.array(logits)
    rows, classes = (random.sample(range(n), n) for n in logits.shape)
    found = closed_set_posterior(logits[np.ix_(rows, classes)])
    np.testing.assert_allclose(found, closed_set_posterior(logits)[np.ix_(rows, rows)], atol=1e-6)


def test_probabilities_of_several_models_are_averaged():
    one, other = np.array([[9.0, 0.0], [0.0, 9.0]]), np.array([[0.0, 9.0], [0.0, 9.0]])
    mean = (torch.tensor(one).softmax(1) + torch.tensor(other).softmax(1)) / 2
    np.testing.assert_allclose(closed_set_posterior([one, other], "product"), (mean @ mean.T).numpy(), atol=1e-6)


def test_the_posterior_takes_half_precision_and_one_identity():
    assert closed_set_posterior(torch.zeros(3, 1, dtype=torch.float16)).tolist() == [[1.0] * 3] * 3


@every(
    ("arguments", "message"),
    [
        ((np.eye(2), "helinger"), "did you mean 'hellinger'"),
        ((np.eye(2), "product", 0), "temperature"),
        (([],), "logits"),
    ],
)
def test_a_posterior_that_there_is_not_is_one_line(arguments, message):
    with pytest.raises(KitError, match=message):
        closed_set_posterior(*arguments)


@every(
    ("changes", "message"),
    [
        ({"loss": "triplet", "postprocess": ["posterior"]}, "posterior needs a loss with a class"),
        ({"loss": "triplet", "ensemble": "posterior"}, "posterior needs a loss with a class"),
        ({"postprocess": ["fuse"]}, "fuse has no evidence to add"),
        ({"postprocess": ["posterior", "tta"]}, "out of order"),
    ],
)
def test_steps_that_can_not_be_taken_are_refused_before_work(changes, message):
    with pytest.raises(KitError, match=message):
        recipe_from_dict({"name": "wrong", **changes})


# spots


@pytest.fixture(scope="module")
def spotted():
    """Two images of one pattern, shifted, two of another, and one of nothing; the left half of each is masked out."""
    rng = np.random.default_rng(0)
    patterns = [np.kron(rng.integers(0, 256, (20, 20)), np.ones((8, 8))).astype(np.uint8) for _ in range(2)]
    images = np.zeros((5, 128, 128, 4), np.uint8)
    for i, (pattern, shift) in enumerate([(0, 0), (0, 9), (1, 0), (1, 9)]):
        images[i, ..., :3] = patterns[pattern][shift : shift + 128, shift : shift + 128, None]
    images[:, :, 64:, 3] = 255
    return images


@pytest.fixture(scope="module")
def spots(spotted):
    return extract_local(jaguar_kit.as_store(spotted), "sift", 64)


def test_no_spot_lies_outside_the_mask_and_an_image_of_nothing_has_none(spots):
    there = spots.descriptors.float().norm(dim=2) > 0
    assert there[:4].any(1).all()
    assert not there[4].any()
    assert (spots.places[there][:, 0] >= 0.49).all()


def test_the_same_pattern_matches_and_another_does_not(spots):
    strength = local_similarity(spots)
    assert torch.equal(strength, strength.T)
    assert strength.diagonal().eq(0).all()
    assert strength[4].eq(0).all()
    assert min(strength[0, 1], strength[2, 3]) > 2 * strength[:2, 2:4].max()


def test_strengths_are_those_of_a_slow_loop(spots):
    one, other = spots.descriptors[0].float(), spots.descriptors[2].float()
    cosine, total = (one @ other.T).tolist(), 0.0
    for i, row in enumerate(cosine):
        j = max(range(len(row)), key=row.__getitem__)
        if max(range(len(cosine)), key=lambda k: cosine[k][j]) == i and row[j] > 0.7:
            total += row[j] - 0.7
    assert float(local_similarity(spots)[0, 2]) == pytest.approx(total, abs=1e-3)


def test_only_the_pairs_that_are_asked_for_are_matched(spots):
    pairs = np.zeros((5, 5), bool)
    pairs[0, 1] = True
    some, every = local_similarity(spots, pairs=pairs, block=1), local_similarity(spots)
    assert some[0, 1] == some[1, 0] == pytest.approx(float(every[0, 1]), abs=1e-4)
    assert some.count_nonzero() == 2


def test_spots_are_kept_and_found_again(spotted, spots, monkeypatch):
    monkeypatch.setattr(jaguar_kit.room("experiments.spots"), "load_detector", None)
    again = extract_local(jaguar_kit.as_store(spotted), "sift", 64)
    assert torch.equal(again.descriptors, spots.descriptors)


def test_other_weights_under_the_same_name_find_spots_anew(spotted, monkeypatch, tmp_path):
    monkeypatch.setenv(jaguar_kit.WEIGHTS_VARIABLE, str(tmp_path))
    keys = set()
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            save_file(kornia.feature.DISK().state_dict(), tmp_path / "disk.safetensors")
        keys.add(extract_local(jaguar_kit.as_store(spotted[:1]), "disk", 8).key)
    assert len(keys) == 2  # what they match is kept by these keys


def test_matches_are_drawn(spotted, spots):
    drawn = np.asarray(jaguar_kit.match_figure(spotted, 0, 1, spots))
    assert drawn.shape == (128, 264, 3)
    assert (drawn[:, 128:136] != 255).any()  # lines cross the gap


def test_a_detector_without_weights_is_told_before_work(mini, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = recipe_from_dict({"name": "none", "postprocess": [{"name": "local", "detector": "disk"}]})
    recipe = jaguar_kit.override(recipe, "model.pretrained=false", "here")
    with pytest.raises(KitError, match=r"local\.detector: no weights for 'disk' .*disk\.safetensors.*sift"):
        run_recipe(recipe, data=mini, out=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()


# fusion


def some_evidence(seed=0, images=60, identities=6, noise=1.6):
    """Embeddings and logits that err independently, labels, and encounters of two images."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % identities
    embeddings = rng.normal(size=(identities, 16))[labels] + noise * rng.normal(size=(images, 16))
    logits = 3 * np.eye(identities)[labels] + 1.5 * rng.normal(size=(images, identities))
    return embeddings.astype(np.float32), logits.astype(np.float32), labels.astype(str), np.arange(images) // 2


@pytest.mark.parametrize("kind", ["sum", "logistic", "isotonic", "rank"])
def test_evidence_together_is_better_than_each_alone(kind):
    embeddings, logits, labels, met = some_evidence()
    state = jaguar_kit.Retrieval.of(embeddings, None, None, lambda _: torch.from_numpy(logits))
    chosen = choose_steps(["posterior", {"name": "fuse", "kind": kind}], state, labels, met)
    raw, posterior, fused = (row["map_across"] for row in chosen.rows)
    assert fused > max(raw, posterior)
    assert [row["used"] for row in chosen.rows] == [False, False, True]
    fitted = jaguar_kit.run_steps(chosen.fitted, state).matrix()
    assert fitted.diagonal().eq(1).all()
    assert 0 <= fitted.min() <= fitted.max() <= 1
    if kind == "logistic":
        assert len(chosen.fitted[1].settings["weights"]) == 2


def test_fusion_does_not_see_the_order_of_images():
    embeddings, logits, *_ = some_evidence()
    order, steps = np.random.default_rng(1).permutation(len(logits)), ["posterior", "fuse"]
    one = postprocess(steps, embeddings, logits=logits)
    other = postprocess(steps, embeddings[order], logits=logits[order])
    np.testing.assert_allclose(one[np.ix_(order, order)], other, atol=1e-5)


def test_steps_on_arrays_of_images():
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    local = {"name": "local", "detector": "sift", "points": 32, "shortlist": 2}
    found = postprocess([local, "fuse", {"name": "k_reciprocal", "k1": 2, "k2": 1}], np.eye(4), images=images)
    assert found.shape == (4, 4)
    with pytest.raises(KitError, match="give images"):
        postprocess([local], np.eye(4))


def test_diffusion_follows_its_formula():
    points = np.random.default_rng(0).normal(size=(12, 4))
    cosine = jaguar_kit.similarity_matrix(points)
    near = [set(np.argsort(-cosine[i], kind="stable")[:4]) for i in range(12)]
    weights = np.array(
        [
            [max(cosine[i, j], 0) ** 3 if i != j and i in near[j] and j in near[i] else 0 for j in range(12)]
            for i in range(12)
        ]
    )
    scale = 1 / np.sqrt(np.maximum(weights.sum(1), 1e-12))
    spread = 0.2 * np.linalg.inv(np.eye(12) - 0.8 * scale[:, None] * weights * scale) + 1e-3 * cosine
    found = postprocess([{"name": "diffusion", "k": 3, "alpha": 0.8}], points)
    pairs = ~np.eye(12, dtype=bool)
    low, high = spread[pairs].min(), spread[pairs].max()
    np.testing.assert_allclose(found[pairs], ((spread - low) / (high - low))[pairs], atol=1e-5)


def test_training_images_stand_in_the_graph_of_k_reciprocal():
    points = np.random.default_rng(0).normal(size=(30, 4))
    step = {"name": "k_reciprocal", "k1": 4, "k2": 2, "training": True}
    found = postprocess([step], points[:12], training=points[12:])
    np.testing.assert_allclose(found, jaguar_kit.k_reciprocal_rerank(points, k1=4, k2=2)[:12, :12], atol=1e-6)
    alone = postprocess([{**step, "training": False}], points[:12], training=points[12:])
    assert np.abs(found - alone).max() > 0.01
    with pytest.raises(KitError, match="give training"):
        postprocess([step], points)
    with pytest.raises(KitError, match=r"k_reciprocal\.training starts from embeddings"):
        postprocess(["diffusion", step], points, training=points)


def test_auto_tries_the_training_images_where_there_are_some():
    embeddings, _, labels, met = some_evidence()
    graph = jaguar_kit.Retrieval.of(embeddings, None, None, None, None, jaguar_kit.CPU, lambda: torch.eye(4, 16))
    tried = [{row["steps"] for row in choose_steps(["auto"], state, labels, met).rows} for state in (embeddings, graph)]
    assert tried[1] - tried[0] == {"k_reciprocal (k1 10, k2 4, training True)"}


# choice


def test_auto_begins_with_all_evidence_and_leaves_it_only_for_what_is_better():
    embeddings, logits, labels, met = some_evidence(images=240, identities=12)
    state = jaguar_kit.Retrieval.of(embeddings, None, None, lambda _: torch.from_numpy(logits))
    chosen = choose_steps(["auto"], state, labels, met)
    assert [part.name for part in chosen.parts] == ["posterior", "fuse"]
    labels = np.repeat(np.arange(30), 6)
    clear = np.eye(30)[labels] + 0.3 * np.random.default_rng(0).standard_normal((180, 30))
    noise = 3 * np.random.default_rng(1).standard_normal((180, 30))  # names that are wrong
    misled = choose_steps(
        ["auto"], jaguar_kit.Retrieval.of(clear, None, None, lambda _: torch.from_numpy(noise)), labels
    )
    first, used = (
        next(r for r in misled.rows if test(r))
        for test in (lambda r: r["steps"] == "posterior, fuse", lambda r: r["used"])
    )
    assert "posterior" not in used["steps"]
    assert used["map"] > first["map"] + 0.1
    few = choose_steps(
        ["auto"], jaguar_kit.Retrieval.of(clear[:36], None, None, lambda _: torch.from_numpy(noise[:36])), labels[:36]
    )
    assert [part.name for part in few.parts] == ["posterior", "fuse"]
    assert few.why == "auto keeps its first list: 6 identities are too few to choose by (expected 10)"
    alone = choose_steps(["auto"], np.repeat(np.eye(12), 2, axis=0), np.repeat(list("abcdefghijkl"), 2))
    assert (alone.parts, alone.why) == ((), "")


def slow_mean_over_encounters(similarity, met):
    found = np.eye(len(met))
    for i in range(len(met)):
        for j in range(len(met)):
            pairs = [(a, b) for a in np.flatnonzero(met == met[i]) for b in np.flatnonzero(met == met[j]) if a != b]
            if i != j:
                found[i, j] = np.mean([similarity[pair] for pair in pairs])
    return found


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_encounters_answer_by_the_mean_of_their_pairs(met, random):
    met = np.array(met)
    similarity = np.random.default_rng(len(met)).random((len(met), len(met)))
    found = encounters_room.mean_over_encounters(torch.from_numpy(similarity), met).numpy()
    np.testing.assert_allclose(found, slow_mean_over_encounters(similarity, met), atol=1e-9)
    order = random.sample(range(len(met)), len(met))
    again = encounters_room.mean_over_encounters(torch.from_numpy(similarity[np.ix_(order, order)]), met[order]).numpy()
    np.testing.assert_allclose(again, found[np.ix_(order, order)], atol=1e-9)
    alone = encounters_room.mean_over_encounters(torch.from_numpy(similarity), np.arange(len(met))).numpy()
    np.testing.assert_allclose(alone[~np.eye(len(met), dtype=bool)], similarity[~np.eye(len(met), dtype=bool)])


def test_encounters_are_told_to_a_list_of_steps_and_change_nothing_where_none_are():
    embeddings = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    plain, told = (postprocess(["encounters"], embeddings, encounters=met) for met in (None, [0, 0, 1, 1, 2, 3]))
    torch.testing.assert_close(plain, postprocess([], embeddings))
    np.testing.assert_allclose(told, slow_mean_over_encounters(plain.numpy(), np.array([0, 0, 1, 1, 2, 3])), atol=1e-6)
    with pytest.raises(KitError, match="encounters: 2 for 6 images"):
        postprocess(["encounters"], embeddings, encounters=[0, 1])


def test_encounters_are_found_in_test_images_without_a_solution(mini, tmp_path):
    """By near-duplicates with neighbouring numbers, nearly as the dataset drew its bursts, which views.csv tells."""
    plain = tmp_path / "plain"
    shutil.copytree(mini, plain)
    (plain / "solution.csv").unlink()
    views = pd.read_csv(plain / "views.csv")
    (plain / "views.csv").unlink()
    recipe = recipe_from_dict({"name": "x", "data": {"size": 64}})
    test = jaguar_kit.open_data(recipe, jaguar_kit.load_competition(plain)).competition.test
    bursts = test.path.map(views.set_index("path").burst)
    assert bursts.notna().all()
    found, drawn = (
        np.equal.outer(codes, codes)[np.triu_indices(len(test), 1)]
        for codes in (test.encounter.to_numpy(), bursts.to_numpy())
    )
    assert found.sum() > 0
    assert (found & drawn).sum() / found.sum() > 0.9
    assert (found & drawn).sum() / drawn.sum() > 0.9


def test_evidence_may_be_standardised_for_each_query():
    torch.manual_seed(0)
    embeddings, logits = torch.randn(9, 4), 20 * torch.randn(9, 3)
    parts = (
        jaguar_kit.similarity_matrix(embeddings).double(),
        closed_set_posterior(logits).clamp(min=1e-12).log().double(),
    )
    total = torch.zeros(9, 9, dtype=torch.float64)
    for one in parts:
        for row in range(9):
            others = one[row][torch.arange(9) != row]
            total[row] += (one[row] - others.mean()) / others.std(correction=0)
    found = postprocess(["posterior", {"name": "fuse", "by": "query"}], embeddings, logits=logits).double()
    pairs = ~torch.eye(9, dtype=torch.bool)
    spread = (total[pairs] - total[pairs].min()) / (total[pairs].max() - total[pairs].min())
    torch.testing.assert_close(found[pairs], spread, atol=1e-5, rtol=0)


def test_spots_are_those_of_the_box_where_there_is_no_mask():
    images = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    box = (0.25, 0.5, 0.75, 1.0)
    found = extract_local(images, "sift", 32, box=box)
    there = (found.descriptors != 0).any(2)
    assert there.any()
    low, high = torch.tensor(box).view(2, 2)
    assert ((found.places[there] >= low - 1e-6) & (found.places[there] <= high + 1e-6)).all()
    masked = np.concatenate([images, np.full((2, 64, 64, 1), 255, np.uint8)], 3)
    assert extract_local(masked, "sift", 32, box=box).key == extract_local(masked, "sift", 32).key  # the mask tells
    with pytest.raises(KitError, match=r"box: \[0.5, 0.0, 0.5, 1.0\] is empty"):
        extract_local(images, "sift", 32, box=(0.5, 0, 0.5, 1))


def test_spots_that_a_camera_puts_on_every_photograph_are_left_out(capsys):
    """Twelve images of noise, of six encounters, with one and the same bar of text at their foot."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (12, 96, 96, 3), np.uint8)
    images[:, 80:] = np.kron(rng.integers(0, 2, (4, 24, 1)), np.ones((4, 4, 1)) * 255).astype(np.uint8)
    spots, met = extract_local(images, "sift", 200), np.repeat(np.arange(6), 2)
    room = jaguar_kit.room("experiments.spots")
    fixed = room.fixed_to_camera(spots, met)
    there, bar = (spots.descriptors != 0).any(2), spots.places[..., 1] > 84 / 95
    assert fixed[there & bar].float().mean() > 0.8
    assert fixed[there & (spots.places[..., 1] < 70 / 95)].float().mean() < 0.1
    assert not room.fixed_to_camera(spots, np.zeros(12)).any()  # within one encounter an animal may stand still
    left = room.without_fixed(spots, met)
    assert f"{int(fixed.sum())} spots of 12 images are fixed to a camera" in capsys.readouterr().out
    assert not (left.descriptors[fixed] != 0).any()


def test_many_images_are_compared_by_a_shortlist_unless_all_pairs_are_asked_for():
    room = jaguar_kit.room("experiments.spots")
    few, many = torch.rand(20, 20), torch.rand(900, 900)
    assert room.compared(few, None) is None
    assert room.compared(many, 0) is None
    pairs = room.compared(many, None)
    assert pairs.sum(1).eq(1 + room.ALL_PAIRS // 900).all()
    assert room.compared(many, 5).sum(1).eq(6).all()


def test_a_fitted_temperature_is_the_plainest_of_those_not_told_from_the_best():
    embeddings, logits, labels, met = some_evidence(images=120, identities=12)
    state = jaguar_kit.Retrieval.of(embeddings, None, None, lambda _: torch.from_numpy(logits))
    chosen = choose_steps([{"name": "posterior", "form": "product"}], state, labels, met)
    found = {}
    for t in jaguar_kit.TEMPERATURES:
        precision = jaguar_kit.average_precision(closed_set_posterior(logits, "product", t), labels, met)
        found[t] = np.array([np.nanmean(precision[labels == name]) for name in np.unique(labels)])
    best = max(found, key=lambda t: found[t].mean())
    behind = {t: ttest_1samp(found[best] - one, 0).confidence_interval().low > 0 for t, one in found.items()}
    plainest = min((t for t in found if not behind[t]), key=lambda t: abs(np.log(t)))
    assert chosen.fitted[0].settings["temperature"] == plainest
    assert f"temperature {plainest:g}" in chosen.rows[-1]["fitted"]
    assert plainest != best


# in a run


def test_a_run_uses_all_evidence_and_shows_each_step(mini, tmp_path):
    recipe = recipe_from_dict(
        {
            "name": "evidence",
            "data": {"size": 32},
            "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
            "train": {"epochs": 2},
            "postprocess": [
                "tta",
                "posterior",
                {"name": "local", "detector": "sift", "size": 48, "points": 32},
                {"name": "fuse", "kind": "logistic"},
            ],
            "seeds": [1, 2],
            "ensemble": "posterior",
        }
    )
    result = run_recipe(recipe, data=mini, out=tmp_path, device="cpu")
    told = jaguar_kit.RunFolder(result.folder / "default" / "seed1").metrics()
    assert [row["steps"] for row in told["postprocess"]][:2] == ["raw", "tta"]
    assert len(told["postprocess"]) == len(told["postprocess_test"]) == 5
    assert told["postprocess_test"][-1]["map"] == told["test_map_postprocessed"]
    fused = jaguar_kit.read_json(result.folder / "ensemble" / "metrics.json")
    assert {"map", "map_across", "test_map", "test_map_across"} <= fused.keys()
    for path in (result.folder / "ensemble", result.folder / "default" / "seed2"):
        jaguar_kit.validate_submission(path / "submission.csv", mini / "test.csv")
    report = result.report.read_text(encoding="utf-8")
    assert "The test images after each step" in report
    strongest, median, other = told["matches"]
    assert strongest["strength"] >= median["strength"]
    assert len(set(strongest["identities"])) == len(set(median["identities"])) == 1 < len(set(other["identities"]))
    assert f"{' and '.join(other['identities'])} ({other['strength']:.2f}" in report
    (drawn,) = (result.folder / "figures").glob("run0-matches.*")
    assert image_type(drawn.read_bytes()) == "jpeg"


def test_a_sum_adds_likeness_and_evidence_standardised_over_all_pairs():
    torch.manual_seed(0)
    embeddings, logits = torch.randn(9, 4), 20 * torch.randn(9, 3)
    likeness = jaguar_kit.similarity_matrix(embeddings)
    evidence = closed_set_posterior(logits).clamp(min=1e-12).log()
    pairs = ~torch.eye(9, dtype=torch.bool)
    total = sum((one.double() - one.double()[pairs].mean()) / one.double()[pairs].std() for one in (likeness, evidence))
    found = postprocess(["posterior", "fuse"], embeddings, logits=logits).double()
    spread = (total[pairs] - total[pairs].min()) / (total[pairs].max() - total[pairs].min())
    torch.testing.assert_close(found[pairs], spread, atol=1e-5, rtol=0)


def test_the_loss_names_whom_the_posterior_compares():
    loss = build("loss", "arcface", embedding_dim=4, num_identities=3, scale=16.0)
    logits = loss.logits(torch.randn(5, 4))
    assert closed_set_posterior(logits.detach()).shape == (5, 5)


def test_posterior_is_the_same_after_views_that_are_all_alike():
    """Steps that compare directions alone leave the lengths by which a loss such as cross-entropy names."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 5
    points = 3 * torch.randn(5, 8, generator=generator)[labels] + 4 * torch.randn(60, 8, generator=generator)
    weight = torch.randn(8, 5, generator=generator)

    def names(embeddings):
        return embeddings @ weight

    plain = postprocess(["posterior"], points, logits=names)
    same_views = partial(multi_scale_tta, lambda images: images, points)
    after = postprocess(["tta", "posterior"], points, views=lambda s, flip: same_views(s, False), logits=names)
    torch.testing.assert_close(after, plain, atol=1e-5, rtol=1e-5)


@every("between", ["k_reciprocal", "diffusion", {"name": "blend", "raw_weight": 0.9}])
def test_a_step_that_nothing_reads_is_refused(between):
    for steps in (["posterior", between, "fuse"], ["k_reciprocal", "posterior"]):
        with pytest.raises(KitError, match="nothing reads what"):
            recipe_from_dict({"name": "x", "postprocess": steps})


def test_two_pieces_of_evidence_of_one_kind_are_both_added():
    embeddings, logits, _, _ = some_evidence(images=30)
    forms = [{"name": "posterior", "form": "product"}, {"name": "posterior", "form": "hellinger"}]
    one, other, both = (
        postprocess([*steps, "fuse"], embeddings, logits=logits) for steps in (forms[:1], forms[1:], forms)
    )
    assert not np.allclose(both, one)
    assert not np.allclose(both, other)


# spots and steps on what a notebook has at hand


def test_spots_are_found_in_arrays_as_in_a_store(spotted, spots):
    found = extract_local(spotted, "sift", np.int64(64))
    assert torch.equal(found.descriptors, spots.descriptors)
    assert torch.equal(local_similarity(found), local_similarity(spots))
    with pytest.raises(KitError, match=r"^extract_local: images: there are none"):
        extract_local(spotted[:0], "sift")
    with pytest.raises(KitError, match=r"^extract_local: detector: 'sfit' is not known; did you mean 'sift'\?$"):
        extract_local(spotted, "sfit")


class PaddedDetector:
    """Finds two spots in an image, unlike in each, and fills up with spots of one place that it did not find."""

    def __init__(self, points):
        self.points, self.looked_at = points, 0

    def __call__(self, images):
        found = torch.zeros(self.points, dtype=torch.bool)
        found[:2] = True
        frames = torch.full((1, self.points, 2, 3), 10.0)
        frames[:, :2, :, 2] = torch.tensor([[20.0, 30.0], [40.0, 50.0]])
        descriptors = torch.ones(1, self.points, 128)
        descriptors[0, :2] = torch.eye(128)[2 * self.looked_at :][:2]
        self.looked_at += 1
        return frames, 1e-3 * found[None], descriptors


def test_spots_that_sift_fills_up_with_are_none(monkeypatch):
    monkeypatch.setattr(kornia.feature, "SIFTFeature", PaddedDetector)
    found = extract_local(np.random.default_rng(7).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8), "sift", 16)
    assert (found.descriptors.float().norm(dim=2) > 0).sum(1).tolist() == [2, 2, 2]
    assert local_similarity(found).eq(0).all()


FEW = np.random.default_rng(3).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@every(
    ("steps", "given", "words"),
    [
        (["tta"], {"views": lambda scales, flip: torch.eye(3)}, r"^postprocess: views: \(3, 3\) \(expected \(4, 4\)"),
        (["tta", "blend"], {"views": lambda scales, flip: np.eye(4)[:, :2]}, r"^postprocess: views: \(4, 2\)"),
        (["posterior"], {"logits": np.ones((3, 2))}, r"^postprocess: posterior: of 3 images \(expected 4\)$"),
        (["posterior", "fuse"], {"logits": np.ones((5, 2))}, r"^postprocess: posterior: of 5 images \(expected 4\)$"),
        (
            [{"name": "local", "detector": "sift", "size": 64, "points": 8}],
            {"images": FEW},
            r"^postprocess: local: of 3 images \(expected 4\)$",
        ),
    ],
)
def test_steps_never_answer_for_another_number_of_images(steps, given, words):
    with pytest.raises(KitError, match=words):
        postprocess(steps, np.eye(4), **given)
