"""Samplers: how long an epoch is, that nothing is skipped, and never a batch of one."""

import itertools
import sys
from collections import Counter

import jaguar_kit
import numpy as np
import pytest
from cases import every
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import Component, balanced_batches, pk_batches, random_batches

PROPERTY = settings(deadline=None, max_examples=100)


def batches_of(rows, batch_size, seed=0):
    return random_batches(rows, np.zeros(len(rows)), batch_size, np.random.default_rng(seed))


@PROPERTY
@given(count=st.integers(1, 200), batch_size=st.integers(2, 70), seed=st.integers(0, 99))
def test_an_epoch_has_every_row_exactly_once(count, batch_size, seed):
    rows = np.arange(count) * 3 + 5  # positions, not simply a range from zero
    assert sorted(np.concatenate(batches_of(rows, batch_size, seed))) == rows.tolist()


@PROPERTY
@given(count=st.integers(2, 200), batch_size=st.integers(2, 70))
def test_no_batch_has_one_row(count, batch_size):
    assert min(map(len, batches_of(np.arange(count), batch_size))) >= 2


@PROPERTY
@given(count=st.integers(2, 200), batch_size=st.integers(2, 70))
def test_all_batches_are_full_but_the_last(count, batch_size):
    sizes = [len(b) for b in batches_of(np.arange(count), batch_size)]
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] <= batch_size + 1


@every(
    ("count", "sizes"), [(12, [4, 4, 4]), (11, [4, 4, 3]), (10, [4, 4, 2]), (9, [4, 5]), (5, [5]), (3, [3]), (1, [1])]
)
def test_a_single_last_row_joins_the_batch_before(count, sizes):
    assert [len(b) for b in batches_of(np.arange(count), 4)] == sizes


def test_same_seed_same_batches():
    first, again, other = (batches_of(np.arange(50), 8, seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.array_equal(np.concatenate(first), np.concatenate(other))


def test_given_rows_keep_their_order():
    rows = np.arange(50)
    batches_of(rows, 8)
    assert rows.tolist() == list(range(50))


def test_every_row_comes_first_sometimes():
    rng = np.random.default_rng(0)
    firsts = {int(random_batches(np.arange(5), np.zeros(5), 2, rng)[0][0]) for _ in range(100)}
    assert firsts == set(range(5))


# class-balanced


LABELS = st.lists(st.integers(0, 6), min_size=2, max_size=60)


@PROPERTY
@given(LABELS, st.integers(2, 20), st.integers(0, 99))
def test_balanced_epochs_have_as_many_rows_of_every_identity_and_skip_none(labels, batch_size, seed):
    rows, codes = np.arange(len(labels)) + 7, np.array(labels)
    drawn = np.concatenate(balanced_batches(rows, codes, batch_size, np.random.default_rng(seed), None))
    most = max(Counter(labels).values())
    assert set(Counter(codes[drawn - 7]).values()) == {most}
    assert set(drawn) == set(rows)


def test_balanced_epochs_may_be_shorter_and_then_draw_other_rows_each_time():
    codes = np.repeat([0, 1], [30, 5])
    rng = np.random.default_rng(0)
    epochs = [np.concatenate(balanced_batches(np.arange(35), codes, 4, rng, 5)) for _ in range(2)]
    assert all(Counter(codes[epoch]) == {0: 5, 1: 5} for epoch in epochs)
    assert set(epochs[0]) != set(epochs[1])


# identities x images


@PROPERTY
@given(LABELS, st.integers(2, 5), st.integers(2, 5), st.integers(0, 99))
def test_pk_batches_hold_images_of_identities_and_an_epoch_skips_no_row(labels, identities, images, seed):
    rows, codes = np.arange(len(labels)) * 2, np.array(labels)
    batches = pk_batches(rows, codes, 0, np.random.default_rng(seed), identities, images)
    expected = min(identities, len(set(labels)))
    for batch in batches:
        counts = Counter(codes[batch // 2])
        assert len(counts) == expected
        assert set(counts.values()) == {images}
    assert set(np.concatenate(batches)) == set(rows)


@PROPERTY
@given(LABELS, st.integers(2, 5), st.integers(2, 5))
def test_a_pk_epoch_is_as_short_as_the_groups_allow(labels, identities, images):
    codes = np.array(labels)
    groups = [-(-count // images) for count in Counter(labels).values()]
    batches = pk_batches(np.arange(len(labels)), codes, 0, np.random.default_rng(0), identities, images)
    assert len(batches) == max(max(groups), -(-sum(groups) // min(identities, len(groups))))


def test_a_pk_batch_repeats_a_row_only_when_the_identity_has_too_few():
    codes = np.repeat(np.arange(4), 8)
    for batch in pk_batches(np.arange(32), codes, 0, np.random.default_rng(0), 2, 4):
        assert len(set(batch)) == len(batch)


class CountingGenerator(np.random.Generator):
    """Draws as any other, and counts how many values it was given or asked for."""

    count = 0

    def permutation(self, values, *more):
        self.count += np.size(values)
        return super().permutation(values, *more)

    def choice(self, values, *more, **named):
        self.count += np.size(values)
        return super().choice(values, *more, **named)

    def random(self, size=None, *more):
        self.count += size or 1
        return super().random(size, *more)


def test_the_work_of_a_pk_epoch_grows_as_its_images_do():
    """Four times as many images, of as many more identities, take about four times as many draws and lines of code."""
    work = []
    for count, longest in itertools.product((500, 2000), (0.0, 0.5)):  # the share of the images of one identity
        identities, rest = count // 5, count - count // 5
        drawn = np.random.default_rng(0).integers(0, identities, rest)
        codes = np.r_[np.arange(identities), np.where(np.arange(rest) < longest * count, 0, drawn)]
        rng, lines = CountingGenerator(np.random.PCG64(0)), []

        def trace(frame, event, _, lines=lines):
            lines += [1] * (event == "line")
            return trace if "jaguar_kit" in frame.f_code.co_filename else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            pk_batches(np.arange(count), codes, 0, rng)
        finally:
            sys.settrace(before)
        work.append(np.array([rng.count, len(lines)]))
    assert (work[2] < 6 * work[0]).all(), work
    assert (work[3] < 6 * work[1]).all(), work


@pytest.mark.parametrize("name", ["random", "class_balanced", "pk"])
def test_samplers_of_a_recipe_repeat_with_their_seed(name):
    sample, codes = Component("sampler", name), np.repeat(np.arange(5), 4)
    first, again, other = (
        [b.tolist() for b in sample(np.arange(20), codes, 6, np.random.default_rng(seed))] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_an_encounter_counts_once_an_epoch():
    met = np.array([0, 0, 0, 1, 1, 2])
    rows, rng = np.arange(10, 16), np.random.default_rng(0)
    drawn = [np.concatenate(jaguar_kit.lookup("sampler", "encounter")(rows, met, 2, rng, met)) for _ in range(60)]
    assert {len(epoch) for epoch in drawn} == {3}
    assert all(sorted(met[epoch - 10]) == [0, 1, 2] for epoch in drawn)
    assert set(np.concatenate(drawn)) == set(rows)


def test_images_of_rare_identities_are_drawn_by_a_power_of_their_number():
    codes, rng = np.repeat([0, 1], [64, 4]), np.random.default_rng(0)
    sampler = jaguar_kit.lookup("sampler", "by_rarity")
    drawn = np.concatenate([np.concatenate(sampler(np.arange(68), codes, 16, rng)) for _ in range(300)])
    assert len(drawn) == 300 * 68
    expected = 4 * 4**-0.5 / (4 * 4**-0.5 + 64 * 64**-0.5)
    assert (codes[drawn] == 1).mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.ci
def test_a_run_trains_by_encounters(mini, tmp_path):
    recipe = {
        "name": "encounters",
        "data": {"size": 32},
        "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
        "train": {"epochs": 2, "batch_size": 8, "sampler": "encounter"},
    }
    result = jaguar_kit.run_recipe(recipe, mini, tmp_path, device="cpu")
    assert len(result.table) == 1
