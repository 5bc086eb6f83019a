"""Of how many shapes the batches are that a backbone sees."""

from __future__ import annotations

import jaguar_kit
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaguar_kit import recipe_from_dict, run_recipe


@pytest.fixture
def shapes(monkeypatch):
    """The shapes that the first convolution of any backbone was given, as on a device where each new one is dear."""
    seen = set()

    def remember(module, inputs):
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3:
            seen.add(tuple(inputs[0].shape))

    monkeypatch.setattr(jaguar_kit, "wants_one_shape", lambda device: True)
    handle = torch.nn.modules.module.register_module_forward_pre_hook(remember)
    yield seen
    handle.remove()


LEARNING = {
    "name": "shapes",
    "data": {"size": 32},
    "augment": ["flip"],
    "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32, "freeze": False},
    "train": {"epochs": 2, "batch_size": 10, "patience": 0},
    "postprocess": [{"name": "tta", "scales": [1.0, 0.9]}, "query_expansion"],
    "test_backgrounds": ["black", "swap"],
}


@pytest.mark.ci
@pytest.mark.parametrize(
    ("changes", "most"),
    [
        ({}, 3),
        ({"train": {"batch_size": 13, "accumulate": 2, "micro_batch": 4}}, 3),
        ({"train": {"sampler": {"name": "pk", "identities": 4, "images": 3}}}, 2),
        ({"model": {"freeze": True}, "train": {"views": 2}}, 1),
    ],
    ids=["learning", "in parts", "pk", "frozen"],
)
def test_a_whole_run_has_three_shapes_at_most(mini, tmp_path, shapes, changes, most):
    recipe = recipe_from_dict(jaguar_kit.merge_recipe(LEARNING, changes))
    result = run_recipe(recipe, data=mini, out=tmp_path, device="cpu")
    assert result.table["test_map_postprocessed"].notna().all()
    assert 1 <= len(shapes) <= most, sorted(shapes)


@pytest.mark.ci
def test_one_shape_changes_no_embedding(mini, tmp_path, monkeypatch):
    recipe = recipe_from_dict({**LEARNING, "postprocess": [], "test_backgrounds": [], "train": {"epochs": 1}})
    run_recipe(recipe, data=mini, out=tmp_path / "as they come", device="cpu")
    monkeypatch.setattr(jaguar_kit, "wants_one_shape", lambda device: True)
    run_recipe(recipe, data=mini, out=tmp_path / "padded", device="cpu")
    for name in ("validation.npz", "test.npz"):
        one, other = (np.load(next((tmp_path / where).rglob(name))) for where in ("as they come", "padded"))
        np.testing.assert_allclose(one["embeddings"], other["embeddings"], atol=1e-5)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=20), st.integers(2, 12))
def test_batches_are_evened_out_without_losing_a_row(sizes, part):
    rows = np.random.default_rng(0).permutation(sum(sizes))
    even = jaguar_kit.even_out(np.split(rows, np.cumsum(sizes)[:-1]))
    assert np.array_equal(np.concatenate(even), rows)
    assert len(even) == len(sizes)
    assert max(map(len, even)) - min(map(len, even)) <= 1
    parts = [own for batch in even for own in jaguar_kit.cut_micro_batches(batch, part)]
    assert max(map(len, parts)) <= part
    assert len({len(own) for own in parts}) <= 3
    assert np.array_equal(np.concatenate(parts), rows)


@given(st.integers(1, 50), st.integers(1, 20))
def test_whole_batches_begin_with_all_positions_in_order(count, size):
    batches = jaguar_kit.whole_batches(np.arange(count), size)
    assert {len(batch) for batch in batches} == {size}
    assert np.array_equal(np.concatenate(batches)[:count], np.arange(count))
    assert len(batches) == -(-count // size)
