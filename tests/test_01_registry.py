"""1. Errors and registry."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import jaguar_kit as jk
import numpy as np
import pytest
from cases import every
from hypothesis import given
from hypothesis import strategies as st
from jaguar_kit import KitError, Range, convert


def refusal(value: object, hint: Any) -> str:
    """The line with which a value of a setting x is refused; empty when it is taken."""
    try:
        convert(value, hint, "x")
    except KitError as error:
        return str(error)
    return ""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict:
    """A copy of the registry that a test may add to."""
    copy = dict(jk.REGISTRY)
    monkeypatch.setattr(jk, "REGISTRY", copy)
    return copy


# names that suggest


def test_suggest_offers_the_nearest_name():
    assert jk.suggest("arcfase", ["arcface", "triplet"]) == "did you mean 'arcface'?"


def test_suggest_lists_all_names_in_order_when_none_is_near():
    assert jk.suggest("zzz", {"b", "a"}) == "expected one of: a, b"


def test_suggest_says_so_when_nothing_is_known():
    assert jk.suggest("x", []) == "expected one of: nothing"


def test_a_name_with_none_near_is_told_what_to_expect_instead():
    assert jk.suggest("x", ["arcface"], "a loss, see the list") == "expected a loss, see the list"
    assert jk.suggest("arcfase", ["arcface"], "a loss, see the list") == "did you mean 'arcface'?"


def test_suggest_takes_words_that_are_no_text():
    assert "a, b" in jk.suggest(7, ["a", "b"])


# ranges


@every(
    ("limits", "inside", "outside"),
    [
        (Range(low=0), [0, 0.0, 1e9], [-1, -1e-9]),
        (Range(above=0), [1e-9, 5], [0, -1]),
        (Range(high=1), [-5, 1], [1.0001, 2]),
        (Range(low=2, high=3), [2, 2.5, 3], [1.9, 3.1]),
        (Range(above=0, high=0.9), [0.9], [0, 0.91]),
    ],
)
def test_range_includes_low_and_high_but_not_above(limits, inside, outside):
    for value in inside:
        limits.check(value, "x")
    for value in outside:
        with pytest.raises(KitError, match="out of range"):
            limits.check(value, "x")


def test_range_error_names_place_value_and_limits():
    with pytest.raises(KitError) as error:
        Range(above=0, high=1).check(1.5, "recipe: train.lr")
    assert str(error.value) == "recipe: train.lr: 1.5 is out of range (expected above 0 and at most 1)"


def test_range_refuses_what_is_not_a_number():
    with pytest.raises(KitError, match="out of range"):
        Range(low=0).check(math.nan, "x")


# convert: scalars


@every(("value", "expected"), [("5e-4", 5e-4), ("1e3", 1000.0), (3, 3.0), (0.25, 0.25), ("-1.5", -1.5)])
def test_numbers_may_be_whole_or_written_as_text(value, expected):
    number = convert(value, float, "x")
    assert number == expected
    assert type(number) is float


def test_what_is_no_finite_number_is_refused():
    for value in ("fast", "", None, True, False, math.nan, math.inf, "nan", "-inf", [1], {"a": 1}):
        assert refusal(value, float) == f"x: {value!r} is not a number (example: 5e-4)", repr(value)


def test_a_whole_number_too_large_for_a_float_is_refused():
    with pytest.raises(KitError, match="is not a number"):
        convert(10**400, float, "lr")


@every(
    ("hint", "others", "words"),
    [
        (int, [True, False, 1.0, "32", None, [1]], "is not a whole number (example: 32)"),
        (bool, [0, 1, "true", "yes", None, 0.0], "is not true or false"),
        (str, [7, 1.5, True, None, ["a"]], "is not text (quote it if it looks like a number)"),
        (Literal[1, 2], [True, 1.0, "1", [1], {}], "is not known"),
        (tuple[int, ...], ["12", 12, {"a": 1}], "is not a list (example: [1, 2])"),
    ],
)
def test_values_of_another_type_are_refused(hint, others, words):
    for value in others:
        assert refusal(value, hint).startswith(f"x: {value!r} {words}"), repr(value)


def test_values_of_the_right_type_stay_as_they_are():
    assert convert(32, int, "x") == 32
    assert convert(True, bool, "x") is True
    assert convert("007", str, "x") == "007"


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**15), 10**15))
def test_a_number_and_its_text_mean_the_same(number):
    assert convert(repr(number), float, "x") == convert(number, float, "x") == number


def test_any_takes_everything():
    value = object()
    assert convert(value, Any, "x") is value


# convert: composite types


def test_optional_takes_null_and_the_type():
    assert convert(None, int | None, "x") is None
    assert convert(3, int | None, "x") == 3
    with pytest.raises(KitError, match="whole number"):
        convert("three", int | None, "x")


def test_annotated_checks_type_before_range():
    assert convert("0.5", jk.Fraction, "x") == 0.5
    with pytest.raises(KitError, match="is not a number"):
        convert("half", jk.Fraction, "x")
    with pytest.raises(KitError, match="at least 0 and at most 1"):
        convert(2, jk.Fraction, "x")


def test_literal_suggests_the_nearest_choice():
    assert convert("pad", Literal["pad", "crop"], "fit") == "pad"
    with pytest.raises(KitError, match=r"^fit: 'padd' is not known; did you mean 'pad'\?$"):
        convert("padd", Literal["pad", "crop"], "fit")


def test_lists_become_tuples_with_every_value_converted():
    assert convert([1, "2e0"], tuple[float, float], "x") == (1.0, 2.0)
    assert convert([], tuple[int, ...], "x") == ()
    assert convert((1, 2, 3), tuple[int, ...], "x") == (1, 2, 3)


def test_list_errors_name_the_position():
    with pytest.raises(KitError, match=r"^seeds\[1\]: 'b' is not a whole number"):
        convert([1, "b"], tuple[int, ...], "seeds")


def test_lists_of_a_fixed_length_are_counted():
    with pytest.raises(KitError, match="has 3 values, expected 2"):
        convert([1, 2, 3], tuple[float, float], "scale")


def test_mappings_get_text_keys():
    assert convert({2024: 1}, dict, "published") == {"2024": 1}
    assert convert({"a": "1e-3"}, dict[str, float], "x") == {"a": 1e-3}
    with pytest.raises(KitError, match="is not a mapping"):
        convert([1], dict, "published")


def test_section_suggests_the_nearest_setting():
    with pytest.raises(KitError, match=r"^train\.epoch: there is no such setting; did you mean 'epochs'\?$"):
        convert({"epoch": 3}, jk.TrainConfig, "train")


def test_section_must_be_a_mapping():
    with pytest.raises(KitError, match="train: None is not a section"):
        convert(None, jk.TrainConfig, "train")


# register, names, settings_of


def test_a_registered_part_is_listed_and_built(registry):
    @jk.register("loss", "doubled")
    def doubled(embedding_dim: int, factor: float = 2.0) -> float:
        return embedding_dim * factor

    assert doubled(3) == 6  # the decorated function is still itself
    assert "doubled" in jk.registered("loss")
    assert jk.settings_of("loss", "doubled") == {"factor": 2.0}
    assert jk.build("loss", "doubled", embedding_dim=4, factor=3) == 12


def test_a_class_can_be_registered(registry):
    @jk.register("head", "thing")
    class Thing:
        def __init__(self, in_features: int, width: jk.Count = 8):
            self.size = (in_features, width)

    assert jk.settings_of("head", "thing") == {"width": 8}
    assert jk.build("head", "thing", in_features=3, width=2).size == (3, 2)
    with pytest.raises(KitError, match="head thing: width: 0 is out of range"):
        jk.build("head", "thing", in_features=3, width=0)


def test_names_are_sorted_and_of_one_kind():
    assert jk.registered("loss") == sorted(jk.registered("loss"))
    assert "arcface" in jk.registered("loss")
    assert "mlp" not in jk.registered("loss")
    assert jk.registered("no such kind") == []


def test_settings_leave_out_what_the_kit_supplies():
    settings = jk.settings_of("loss", "arcface")
    assert {"margin", "scale"} <= settings.keys()
    assert not {"embedding_dim", "num_identities"} & settings.keys()


def test_every_default_is_a_value_that_its_own_annotation_allows():
    for kind, name in sorted(jk.REGISTRY):
        hints = jk.hints_of(jk.REGISTRY[kind, name])
        for key, default in jk.settings_of(kind, name).items():
            assert convert(default, hints[key], key) == default, f"{kind} {name}: {key}"


# build


def test_build_follows_the_example_of_its_docstring():
    loss = jk.build("loss", "arcface", embedding_dim=256, num_identities=31, margin=0.5)
    assert loss.scale == 64.0
    assert loss.weight.shape == (31, 256)


def test_build_suggests_the_nearest_name():
    with pytest.raises(KitError, match=r"there is no loss 'arcfase'; did you mean 'arcface'\?"):
        jk.build("loss", "arcfase")


def test_build_suggests_the_nearest_kind():
    with pytest.raises(KitError, match=r"no kind of part 'lose'; did you mean 'loss'\?"):
        jk.build("lose", "arcface")


def test_build_suggests_the_nearest_setting():
    with pytest.raises(KitError, match=r"^loss arcface: unknown setting 'margn'; did you mean 'margin'\?$"):
        jk.build("loss", "arcface", embedding_dim=8, num_identities=3, margn=0.5)


def test_build_names_all_that_must_be_given():
    with pytest.raises(KitError, match="loss arcface: embedding_dim, num_identities must be given"):
        jk.build("loss", "arcface", margin=0.5)


@every(
    ("settings", "expectation"),
    [
        ({"margin": "wide"}, r"loss arcface: margin: 'wide' is not a number"),
        ({"margin": 90}, r"loss arcface: margin: 90\.0 is out of range \(expected at least 0 and at most 1\.5708\)"),
        ({"scale": 0}, r"loss arcface: scale: 0\.0 is out of range \(expected above 0\)"),
        ({"scale": True}, r"loss arcface: scale: True is not a number"),
    ],
)
def test_build_checks_types_and_ranges(settings, expectation):
    with pytest.raises(KitError, match=f"^{expectation}"):
        jk.build("loss", "arcface", embedding_dim=8, num_identities=3, **settings)


def test_build_takes_numbers_as_text():
    assert jk.build("loss", "arcface", embedding_dim=8, num_identities=3, scale="3.2e1").scale == 32.0


def test_build_hands_supplied_values_through_unchecked(registry):
    @jk.register("split", "echo")
    def echo(train: int, share: jk.Fraction = 0.5) -> Any:
        return train

    table = object()  # annotations of what the kit supplies are for readers
    assert jk.build("split", "echo", train=table) is table


@pytest.mark.parametrize("hint", [Path, list[int], tuple])
def test_own_parts_with_unusual_types_refuse_wrong_values_in_one_line(registry, hint):
    def part(folder: Any = None) -> Any:
        return folder

    part.__annotations__["folder"] = hint
    jk.register("loss", "unusual")(part)
    with pytest.raises(KitError, match="loss unusual: folder: 7 is not"):
        jk.build("loss", "unusual", folder=7)


def test_a_class_that_is_called_by_its_name_checks_and_converts_as_build_does():
    for name, margin, words in (
        ("ArcFace", 30, r"^ArcFace: margin: 30\.0 is out of range \(expected at least 0 and at most 1\.5708\)$"),
        ("CosFace", -1, r"^CosFace: margin: -1\.0 is out of range"),
        ("Triplet", "wide", r"^Triplet: margin: 'wide' is not a number"),
    ):
        with pytest.raises(KitError, match=words):
            getattr(jk, name)(embedding_dim=4, num_identities=3, margin=margin)
    loss = jk.ArcFace(embedding_dim=4, num_identities=3, margin="0.25", scale=np.float32(8))
    assert (loss.margin, loss.scale) == (0.25, 8.0)
    with pytest.raises(KitError, match=r"^BlurBackground: radius: 'far' is not a number"):
        jk.BlurBackground(radius="far")


@every("number", [np.int64(3), np.uint8(3), np.float32(0.5), np.float64(0.5)])
def test_numbers_of_numpy_are_numbers(number):
    hint = int if isinstance(number, np.integer) else float
    converted = convert(number, hint, "x")
    assert (type(converted), converted) == (hint, number)
    assert "is not a whole number" in refusal(np.float64(3), int)
    assert convert(np.bool_(True), bool, "x") is True
    assert "is not a number" in refusal(np.float32("nan"), float)


# components


def test_component_may_be_just_a_name():
    assert jk.component("loss", "arcface", "loss") == jk.Component("loss", "arcface", {})


def test_component_converts_its_settings():
    part = jk.component("loss", {"name": "arcface", "margin": "2e-1"}, "loss")
    assert part.settings == {"margin": 0.2}
    assert part.build(embedding_dim=8, num_identities=3).scale == 64.0


@every("value", [None, 3, {}, {"margin": 0.5}, {"name": 3}, ["arcface"]])
def test_component_without_a_name_is_refused_with_an_example(value):
    with pytest.raises(KitError, match=r"^loss: .* names no loss \(example: \{name: \w+\}\)$"):
        jk.component("loss", value, "loss")


def test_component_of_an_unknown_name_or_setting_suggests():
    with pytest.raises(KitError, match=r"^r\.yaml: loss: there is no loss 'arcfce'; did you mean 'arcface'\?$"):
        jk.component("loss", "arcfce", "r.yaml: loss")
    with pytest.raises(KitError, match=r"^loss\.scal: loss 'arcface' has no such setting; did you mean 'scale'\?$"):
        jk.component("loss", {"name": "arcface", "scal": 3}, "loss")


def test_component_can_not_set_what_the_kit_supplies():
    with pytest.raises(KitError, match=r"loss\.num_identities: loss 'arcface' has no such setting"):
        jk.component("loss", {"name": "arcface", "num_identities": 3}, "loss")


def test_component_of_another_kind_is_refused_even_where_both_kinds_have_its_name():
    with pytest.raises(KitError, match="names no mix"):
        convert(jk.Component("head", "none"), Annotated[jk.Component, "mix"], "train.mix")


@every(
    ("settings", "words"),
    [
        ({"loss": {"name": "supcon", "queue": 4096}}, r"loss\.queue: .* left out: a queue adds"),
        ({"postprocess": [{"name": "local", "detector": "lightglue"}]}, "left out: a learned matcher"),
        ({"model": {"pooling": "concat"}}, "left out: concatenated stages .* tell scenes"),
        ({"postprocess": [{"name": "fuse", "kind": "boosting"}]}, "left out: fusion by boosting lost"),
    ],
)
def test_what_was_left_out_on_purpose_is_refused_with_the_reason(settings, words):
    with pytest.raises(jk.KitError, match=words):
        jk.recipe_from_dict({"name": "x", **settings})
