"""random_batches: every row once an epoch, and never a batch of one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaguar_kit import random_batches

PROPERTY = settings(deadline=None, max_examples=100)


def batches_of(rows, batch_size, seed=0):
    return random_batches(rows, batch_size, np.random.default_rng(seed))


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


@pytest.mark.parametrize(
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
    firsts = {int(random_batches(np.arange(5), 2, rng)[0][0]) for _ in range(100)}
    assert firsts == set(range(5))
