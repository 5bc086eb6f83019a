"""Two hundred pairs of settings from different sections: what must hold whatever they are does."""

import itertools
import json
from collections import Counter

import jaguar_kit
import pairs
import pytest
from cases import every

PAIRS, AT_A_TIME = 200, 10
MOST_REFUSED = 0.15  # share of the pairs that the kit may refuse, for their settings do not go together


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return pairs.World(tmp_path_factory.mktemp("world")).make()


@pytest.fixture(scope="module")
def refused():
    """Why, by pair, for those that were refused so far."""
    return {}


def try_out(planned, world, refused, folder):
    broken = []
    for one in planned:
        wrong, refusal = one.broken(world, folder / str(one.number))
        broken += wrong
        refused.update({one.words: refusal} if refusal else {})
    assert not broken, "\n".join(broken)


def sample():
    """The first pairs, as many as it takes for each invariant to come once."""
    found, tried = [], set()
    for one in pairs.planned(24):
        found += [one] if set(one.invariants) - tried else []
        tried |= set(one.invariants)
    assert tried == set(pairs.INVARIANTS)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, PAIRS, AT_A_TIME))
def test_what_must_hold_does_for_pairs_of_settings(first, world, refused, tmp_path):
    try_out(pairs.planned(PAIRS)[first : first + AT_A_TIME], world, refused, tmp_path)
    assert len(refused) <= MOST_REFUSED * PAIRS, json.dumps(refused, indent=2)


@pytest.mark.ci
@pytest.mark.parametrize("one", sample(), ids=lambda one: one.words)
def test_what_must_hold_does_for_a_few_pairs_of_settings(one, world, refused, tmp_path):
    try_out([one], world, refused, tmp_path)
    assert not refused


@every("value", pairs.VALUES)
def test_every_value_is_valid_alone(value):
    assert jaguar_kit.recipe_from_dict(pairs.settings_of([value]))


@pytest.mark.ci
def test_pairs_are_of_two_sections_and_every_section_meets_every_invariant():
    drawn = pairs.planned(PAIRS)
    assert drawn == pairs.planned.__wrapped__(PAIRS)
    assert len({one.pair for one in drawn}) == PAIRS
    assert all(first[0] != second[0] for first, second in (one.pair for one in drawn))
    assert all(len(set(one.invariants)) == 2 for one in drawn)
    often = Counter(value for one in drawn for value in one.pair)
    assert set(often) == set(pairs.VALUES)
    assert max(often.values()) - min(often.values()) <= 1
    tried = Counter(name for one in drawn for name in one.invariants)
    assert set(tried) == set(pairs.INVARIANTS)
    assert min(tried.values()) > 0.5 * 2 * PAIRS / len(pairs.INVARIANTS)
    met = {(name, section) for one in drawn for name in one.invariants for section, _ in one.pair}
    never = {  # for which an invariant does not hold, whatever the other section's value is
        ("renamed_identities_change_nothing", "soup"),
        ("two_processes_give_what_one_gives", "augmentation"),
        ("a_run_among_others_is_the_run_alone", "ensemble"),
        ("a_run_among_others_is_the_run_alone", "runs"),
    }
    assert {*itertools.product(pairs.INVARIANTS, pairs.SETTINGS)} - met == never
