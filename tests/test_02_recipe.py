"""2. Recipe."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import jaguar_kit as jk
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import KitError, expand, load_recipe, recipe_from_dict, recipe_to_dict
from jaguar_kit_tools.on_kaggle import kernels

RECIPES = sorted((Path(jk.__file__).parent / "recipes").rglob("*.yaml"))


def fails(path: Path, *overrides: str) -> str:
    """The one line with which a recipe is refused."""
    line = ""
    try:
        load_recipe(path, overrides)
    except KitError as error:
        line = str(error)
    assert line, f"{path.read_text()!r} was taken with {overrides}"
    assert "\n" not in line
    return line


# loading


def test_what_is_not_told_has_its_default(write_recipe):
    for text in ("seed: 7", "seed: 7\ntrain: {}\ndata: {}\nvariants: {}\naugment: []"):
        recipe = load_recipe(write_recipe(text, "first.yaml"))
        assert recipe_to_dict(recipe) == {**recipe_to_dict(jk.Recipe(name="first")), "seed": 7}, text


def test_the_name_is_the_file_name_unless_told(write_recipe):
    assert load_recipe(write_recipe("seed: 1", "losses.v2.yaml")).name == "losses.v2"
    assert load_recipe(write_recipe("name: other", "x.yaml")).name == "other"


def test_path_may_be_text(write_recipe):
    assert load_recipe(str(write_recipe("seed: 3"))).seed == 3


def test_numbers_in_scientific_notation_are_numbers(write_recipe):
    recipe = load_recipe(write_recipe("train: {lr: 5e-4, weight_decay: 1e-2}"))
    assert (recipe.train.lr, recipe.train.weight_decay) == (5e-4, 1e-2)


def test_parts_may_be_names_or_mappings(write_recipe):
    recipe = load_recipe(
        write_recipe("loss: focal_arcface\nmodel: {head: {name: linear, output: 7}}\naugment: [flip, {name: erasing}]")
    )
    assert recipe.loss.name == "focal_arcface"
    assert recipe.model.head == jk.Component("head", "linear", {"output": 7})
    assert [part.name for part in recipe.augment] == ["flip", "erasing"]


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 3\r\nquestion: why\r\n")
    assert load_recipe(path).seed == 3


# error lines


def test_error_line_names_file_setting_value_and_expectation(write_recipe):
    for text, line in (
        ("train: {lr: fast}", "train.lr: 'fast' is not a number (example: 5e-4)"),
        ("train: {lr: 0}", "train.lr: 0.0 is out of range (expected above 0)"),
        ("train: {epochs: 2.5}", "train.epochs: 2.5 is not a whole number (example: 32)"),
        ("train: {epochs: true}", "train.epochs: True is not a whole number (example: 32)"),
        ("train: {epochs: -1}", "train.epochs: -1 is out of range (expected at least 0)"),
        ("train: {epoch: 1}", "train.epoch: there is no such setting; did you mean 'epochs'?"),
        ("trian: {epochs: 1}", "trian: there is no such setting; did you mean 'train'?"),
        ("train:", "train: None is not a section (expected 'key: value' lines)"),
        ("name: 12", "name: 12 is not text (quote it if it looks like a number)"),
        ("data: {fit: sqash}", "data.fit: 'sqash' is not known; did you mean 'squash'?"),
        ("data: {size: 8}", "data.size: 8 is out of range (expected at least 16 and at most 4096)"),
        ("loss: arcfase", "loss: there is no loss 'arcfase'; did you mean 'arcface'?"),
        ("loss: {margin: x}", "loss.margin: 'x' is not a number (example: 5e-4)"),
        ("loss: {margn: 1}", "loss.margn: loss 'arcface' has no such setting; did you mean 'margin'?"),
        ("augment: 3", "augment: 3 is not a list (example: [1, 2])"),
        ("augment: [flip, flop]", "augment[1]: there is no augmentation 'flop'; did you mean 'flip'?"),
        ("augment: [{name: affine, scale: [1]}]", "augment[0].scale: [1] has 1 values, expected 2"),
        ("seeds: [0, x]", "seeds[1]: 'x' is not a whole number (example: 32)"),
        ("seeds: 3", "seeds: 3 is not a list (example: [1, 2])"),
        ("model: {freeze: 1}", "model.freeze: 1 is not true or false"),
        ("published: 0.9", "published: 0.9 is not a mapping (expected 'key: value' lines)"),
        ("variants: {a: {train: {lr: x}}}", "variants.a: train.lr: 'x' is not a number (example: 5e-4)"),
        ("variants: {a: 3}", "variants.a: 3 is not a mapping (expected 'key: value' lines)"),
        ("variants: {a: {seed: 3}}", "variants.a.seed: can't vary between variants"),
        ("variants: {a: {why: 3}}", "variants.a.why: 3 is not text (quote it if it looks like a number)"),
        ("grid: {train.lr: 3}", "grid.train.lr: 3 is not a list of values (example: [256, 512])"),
        ("grid: {train.lr: []}", "grid.train.lr: [] is not a list of values (example: [256, 512])"),
        ("grid: {train.lrx: [3]}", "train.lrx: there is no such setting; did you mean 'lr'?"),
    ):
        path = write_recipe(text)
        assert fails(path) == f"{path}: {line}"


def test_a_name_that_can_name_no_folder_is_refused(write_recipe):
    for name in ("../up", "a/b", "", ".hidden", "-o", "a b", "a\nb"):
        assert "can't name a folder" in fails(write_recipe({"name": name})), repr(name)


def test_a_variant_that_can_name_no_folder_is_refused(write_recipe):
    for name in ("../up", "a/b", "..", "a b", "."):
        assert "can't name a folder" in fails(write_recipe({"variants": {name: {"train": {"epochs": 1}}}})), repr(name)


def test_a_missing_file_suggests_its_neighbour(write_recipe):
    path = write_recipe("seed: 1", "quickstart.yaml")
    line = fails(path.with_name("quikstart.yaml"))
    assert "No such file" in line
    assert f"did you mean '{path}'?" in line


def test_a_file_without_settings_is_refused(write_recipe):
    for text in ("", "- a\n- b", "just text", "# nothing but a comment"):
        path = write_recipe(text)
        assert fails(path) == f"{path}: holds no settings (expected 'key: value' lines)", text


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("question: é\n".encode("latin-1"))
    assert fails(path).startswith(f"{path}: can't be read")


def test_broken_yaml_is_told_with_its_line(write_recipe):
    broken = {
        "train: {lr: [1": "line 1",
        "seed: 1\n  lr: 2": "line 2",
        "seed: 1\n\tlr: 2": "line 2",
        "question: 'open": "line 1",
        "question: !!python/object/apply:os.getcwd []": "line 1",
        "? [a, b]\n: 1": "line 1",
        "a: &a {b: *a}": "line 1",
        "question: *nothing": "line 1",
        "seed: 1\n---\nseed: 2": "line 2",
        "question: \x00": "",
    }
    for text, line in broken.items():
        path = write_recipe(text)
        message = fails(path)
        assert message.startswith(f"{path}: {line}"), text
        assert "not valid YAML" in message, text


def test_values_that_yaml_can_not_read_are_told_in_one_line(write_recipe):
    for value in ("2024-02-31", "!!int many", "!!bool perhaps", "!!float x"):
        path = write_recipe(f"question: {value}")
        assert fails(path).startswith(f"{path}: "), value


# keys that stand twice


def test_a_key_that_stands_twice_is_refused(write_recipe):
    twice = {
        "seed: 1\nseed: 2": "seed",
        "train:\n  lr: 1\n  epochs: 2\n  lr: 3": "lr",
        "variants:\n  a: {}\n  b: {}\n  a: {}": "a",
        "published:\n  x: {map: 1, map: 2}": "map",
        "seed: 1\n'seed': 2": "seed",
    }
    for text, key in twice.items():
        assert f"key '{key}' stands twice in one section" in fails(write_recipe(text)), text


def test_the_same_key_in_two_sections_is_no_fault(write_recipe):
    recipe = load_recipe(write_recipe("model: {head: {name: mlp, dropout: 0}}\nloss: {name: arcface}\nname: x"))
    assert (recipe.name, recipe.model.head.name, recipe.loss.name) == ("x", "mlp", "arcface")


def test_yaml_anchors_can_be_used(write_recipe):
    recipe = load_recipe(write_recipe("variants:\n  a: {train: &t {lr: 1e-2}}\n  b: {train: *t, data: {size: 64}}"))
    assert [cell.recipe.train.lr for cell in expand(recipe)] == [1e-2, 1e-2]


def test_a_yaml_merge_key_may_be_overruled_beside_it(write_recipe):
    text = "variants:\n  a: {train: &t {lr: 1e-2, epochs: 5}}\n  b: {train: {<<: *t, lr: 3e-2}}"
    b = expand(load_recipe(write_recipe(text)))[1].recipe
    assert (b.train.lr, b.train.epochs) == (3e-2, 5)


# base recipes


def test_a_recipe_inherits_from_its_base(write_recipe):
    write_recipe("question: why\ntrain: {lr: 1e-2, epochs: 5}\ndata: {size: 64}", "below.yaml")
    recipe = load_recipe(write_recipe("base: below.yaml\ntrain: {epochs: 9}", "above.yaml"))
    assert recipe.name == "above"
    assert recipe.question == "why"
    assert (recipe.train.lr, recipe.train.epochs, recipe.data.size) == (1e-2, 9, 64)


def test_a_base_may_have_a_base_and_lie_in_another_folder(write_recipe):
    write_recipe("train: {lr: 1e-2, epochs: 5}\nseed: 1", "shared/root.yaml")
    write_recipe("base: root.yaml\ntrain: {epochs: 6}", "shared/middle.yaml")
    recipe = load_recipe(write_recipe("base: ../shared/middle.yaml\nseed: 2", "mine/leaf.yaml"))
    assert (recipe.train.lr, recipe.train.epochs, recipe.seed) == (1e-2, 6, 2)


def test_a_base_does_not_lend_its_name_even_when_it_tells_one(write_recipe):
    write_recipe("name: told", "below.yaml")
    assert load_recipe(write_recipe("base: below.yaml", "above.yaml")).name == "above"


def test_a_fault_in_a_base_is_told_with_the_file_of_the_base(write_recipe):
    below = write_recipe("train: {lr: x}", "below.yaml")
    assert fails(write_recipe("base: below.yaml", "above.yaml")).startswith(f"{below}: train.lr: 'x'")


def test_a_missing_base_is_told(write_recipe):
    assert "recipe.yaml: base: nowhere: there is no recipe of this name" in fails(write_recipe("base: nowhere.yaml"))
    assert "other/nowhere.yaml: can't be read" in fails(write_recipe("base: other/nowhere.yaml"))


def test_a_base_is_found_beside_the_recipe_or_by_name(write_recipe, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for base in ("quickstart", "quickstart.yaml"):
        assert load_recipe(write_recipe(f"base: {base}\nseeds: [7]")).loss.name == load_recipe("quickstart").loss.name
    (write_recipe("base: own").parent / "own.yaml").write_text("train: {epochs: 3}")
    assert load_recipe(write_recipe("base: own")).train.epochs == 3


def test_a_base_is_one_file_name(write_recipe):
    assert "base: ['a.yaml'] is not text" in fails(write_recipe("base: [a.yaml]"))


def test_bases_in_a_circle_are_refused(write_recipe):
    write_recipe("base: ../loop/a.yaml", "loop/b.yaml")
    for first in ("a.yaml", "b.yaml", "../loop/a.yaml", "../loop/b.yaml"):
        assert "based on each other in a circle" in fails(write_recipe(f"base: {first}", "loop/a.yaml")), first


# merging


def test_merging_goes_key_by_key():
    assert jk.merge_settings({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 4}, "e": 5}) == {
        "a": 1,
        "b": {"c": 2, "d": 4},
        "e": 5,
    }


def test_lists_are_replaced_whole():
    assert jk.merge_settings({"a": [1, 2]}, {"a": [3]}) == {"a": [3]}


def test_null_and_scalars_replace_a_mapping():
    assert jk.merge_settings({"a": {"b": 1}}, {"a": None}) == {"a": None}
    assert jk.merge_settings({"a": None}, {"a": {"b": 1}}) == {"a": {"b": 1}}


def test_a_part_keeps_its_settings_while_its_name_stays():
    part = {"name": "arcface", "margin": 0.2, "scale": 8}
    assert jk.merge_settings(part, {"margin": 0.3}) == {"name": "arcface", "margin": 0.3, "scale": 8}
    assert jk.merge_settings(part, {"name": "arcface", "margin": 0.3}) == {"name": "arcface", "margin": 0.3, "scale": 8}


def test_a_part_whose_name_changes_is_replaced_whole():
    part = {"name": "arcface", "margin": 0.2}
    assert jk.merge_settings(part, {"name": "triplet"}) == {"name": "triplet"}
    assert jk.merge_settings(part, "triplet") == "triplet"


def test_settings_can_be_laid_upon_a_part_that_is_just_a_name():
    assert jk.merge_settings("arcface", {"margin": 0.3}) == {"name": "arcface", "margin": 0.3}


def test_a_bare_name_means_the_same_as_a_mapping_with_that_name(write_recipe):
    text = "loss: {name: arcface, margin: 0.2}\nvariants:\n  a: {loss: {name: arcface}}\n  b: {loss: arcface}"
    a, b = expand(load_recipe(write_recipe(text)))
    assert recipe_to_dict(a.recipe)["loss"] == recipe_to_dict(b.recipe)["loss"]


TREES = st.recursive(
    st.integers() | st.none() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(TREES, TREES)
def test_laying_the_same_on_top_again_changes_nothing(a, b):
    assert jk.merge_settings(a, a) == a
    assert jk.merge_settings(jk.merge_settings(a, b), b) == jk.merge_settings(a, b)


@settings(max_examples=50)
@given(TREES, TREES)
def test_merging_changes_neither_side(a, b):
    before = repr((a, b))
    jk.merge_settings(a, b)
    assert repr((a, b)) == before


# overrides


def test_overrides_reach_every_depth(write_recipe):
    path = write_recipe("train: {epochs: 5}\nloss: {name: arcface, margin: 0.3}")
    recipe = load_recipe(path, ["train.epochs=3", "loss.margin=2e-1", "data.mini={identities: 4}", "seed=9"])
    assert recipe.train.epochs == 3
    assert recipe.loss.settings["margin"] == 0.2
    assert recipe.data.mini.identities == 4
    assert recipe.seed == 9


def test_override_values_are_yaml(write_recipe):
    path = write_recipe("data: {root: x}")
    for text, value in {"": None, "null": None, "'007'": "007", "a=b": "a=b"}.items():
        assert load_recipe(path, [f"data.root={text}"]).data.root == value, text


def test_the_last_override_wins(write_recipe):
    assert load_recipe(write_recipe("seed: 1"), ["train.epochs=3", "train.epochs=4"]).train.epochs == 4


def test_overrides_win_over_variants_and_grid(write_recipe):
    path = write_recipe("variants: {a: {train: {epochs: 7}}, b: {}}\ngrid: {train.lr: [1e-3, 1e-2]}")
    with pytest.raises(KitError, match=r"the recipe's grid varies train\.lr"):
        load_recipe(path, ["train.lr=1"])
    cells = expand(load_recipe(path, ["train.epochs=2", "train.batch_size=8"]))
    assert {(cell.recipe.train.epochs, cell.recipe.train.batch_size) for cell in cells} == {(2, 8)}
    assert {cell.recipe.train.lr for cell in cells} == {1e-3, 1e-2}


def test_an_override_may_exchange_a_part_that_a_variant_sets(write_recipe):
    path = write_recipe("variants: {a: {loss: {name: arcface, margin: 0.1}}}")
    (cell,) = expand(load_recipe(path, ["loss=focal_arcface"]))
    assert recipe_to_dict(cell.recipe)["loss"]["name"] == "focal_arcface"
    assert recipe_to_dict(cell.recipe)["loss"]["margin"] == jk.settings_of("loss", "focal_arcface")["margin"]


def test_an_override_of_the_seeds_decides_the_runs(write_recipe):
    path = write_recipe("seeds: [0, 1, 2]")
    cells = expand(load_recipe(path, ["seeds=[5, 6]"]))
    assert [cell.recipe.seed for cell in cells] == [5, 6]
    assert all(cell.recipe.seeds == () for cell in cells)


def test_an_override_of_one_setting_of_a_variant_leaves_cells_without_variants(write_recipe):
    path = write_recipe("variants: {a: {train: {epochs: 7}}, b: {}}")
    cells = expand(load_recipe(path, ["variants.a.train.epochs=2"]))
    assert [cell.recipe.train.epochs for cell in cells] == [2, 100]
    assert all(cell.recipe.variants == {} for cell in cells)


def test_an_override_without_setting_or_value_is_refused_with_an_example(write_recipe):
    path = write_recipe("seed: 1")
    for text in ("train.epochs", "=3", ".epochs=3", "train..epochs=3", "", "train.=3"):
        assert fails(path, text) == f"-o {text}: expected dotted.setting=value (example: -o train.epochs=3)"


def test_a_fault_in_an_override_is_told_with_the_override(write_recipe):
    path = write_recipe("seed: 1")
    faults = {
        "train.epochs=x": "train.epochs: 'x' is not a whole number (example: 32)",
        "train.epoch=3": "train.epoch: there is no such setting; did you mean 'epochs'?",
        "train.epochs.x=3": "train.epochs: {'x': 3} is not a whole number (example: 32)",
        "loss=arcfase": "loss: there is no loss 'arcfase'; did you mean 'arcface'?",
    }
    for text, line in faults.items():
        assert fails(path, text) == f"{path} with -o {text}: {line}"


def test_an_override_that_is_no_yaml_is_refused(write_recipe):
    path = write_recipe("seed: 1")
    for text in ("train={epochs: 1, epochs: 2}", "train.epochs=[1", "seed=: :"):
        assert fails(path, text).startswith(f"-o {text}: ")


# runs of an experiment


def test_a_plain_recipe_is_one_run(write_recipe):
    (cell,) = expand(load_recipe(write_recipe("seed: 3")))
    assert (cell.variant, cell.folder, cell.why) == ("default", "default/seed3", "")


def test_a_seed_that_splits_gives_its_own_number(write_recipe):
    recipe = load_recipe(write_recipe("seeds: [3, 5]\ndata: {split_by_seed: true, split_seed: 9}"))
    assert [(spec.recipe.seed, spec.recipe.data.split_seed) for spec in expand(recipe)] == [(3, 3), (5, 5)]
    fixed = jk.override(recipe, "data.split_by_seed=false", "here")
    assert {spec.recipe.data.split_seed for spec in expand(fixed)} == {9}


def test_variants_times_grid_times_seeds(write_recipe):
    path = write_recipe(
        "variants: {a: {why: first}, b: {data: {size: 64}}}\n"
        "grid: {model.head.layers: [1, 2], model.head.hidden: [8]}\nseeds: [0, 5]"
    )
    cells = expand(load_recipe(path))
    assert [cell.folder for cell in cells] == [
        f"{name},layers={layers},hidden=8/seed{seed}" for name in "ab" for layers in (1, 2) for seed in (0, 5)
    ]
    assert [cell.why for cell in cells] == ["first"] * 4 + [""] * 4
    assert [cell.recipe.data.size for cell in cells] == [256] * 4 + [64] * 4
    assert [cell.recipe.model.head.settings["layers"] for cell in cells] == [1, 1, 2, 2] * 2
    assert [cell.recipe.seed for cell in cells] == [0, 5] * 4


def test_a_grid_alone_names_its_runs(write_recipe):
    cells = expand(load_recipe(write_recipe("grid: {train.lr: [1e-3, 0.5]}\nseed: 1")))
    assert [cell.folder for cell in cells] == ["lr=1e-3/seed1", "lr=0.5/seed1"]
    assert [cell.recipe.train.lr for cell in cells] == [1e-3, 0.5]


def test_runs_hold_no_further_runs(write_recipe):
    path = write_recipe("variants: {a: {}}\ngrid: {train.lr: [1, 2]}\nseeds: [1, 2]")
    for cell in expand(load_recipe(path, ["train.epochs=1"])):
        assert (cell.recipe.variants, cell.recipe.grid, cell.recipe.seeds) == ({}, {}, ())
        assert expand(cell.recipe)[0].recipe == cell.recipe


def test_runs_of_one_experiment_lie_in_folders_of_their_own(write_recipe):
    path = write_recipe("variants: {a: {}, b: {}}\ngrid: {train.lr: [1, 2], train.epochs: [1, 2]}\nseeds: [0, 1]")
    folders = [cell.folder for cell in expand(load_recipe(path))]
    assert len(folders) == len(set(folders)) == 16


def test_runs_that_would_share_a_folder_are_refused(write_recipe):
    for text in ("seeds: [1, 1]", "grid: {train.epochs: [1, 1]}", "variants: {1: {}, '1': {}}"):
        path = write_recipe(text)
        assert fails(path).startswith(f"{path}: "), text


def test_a_grid_can_not_vary_the_name(write_recipe):
    assert "name" in fails(write_recipe("grid: {name: [a, b]}"))


def test_a_variant_may_be_empty(write_recipe):
    cells = expand(load_recipe(write_recipe("variants:\n  plain:\n  small: {data: {size: 32}}")))
    assert [(cell.variant, cell.recipe.data.size) for cell in cells] == [("plain", 256), ("small", 32)]


def test_a_variant_may_exchange_a_part_and_its_settings(write_recipe):
    text = "loss: {name: arcface, margin: 0.1}\nvariants: {a: {}, b: {loss: {name: focal_arcface, gamma: 1}}}"
    a, b = expand(load_recipe(write_recipe(text)))
    assert recipe_to_dict(a.recipe)["loss"]["margin"] == 0.1
    settings = {**jk.settings_of("loss", "focal_arcface"), "gamma": 1.0}
    assert recipe_to_dict(b.recipe)["loss"] == {"name": "focal_arcface", **settings}


# plain values


def some(values: dict) -> st.SearchStrategy:
    """Mappings with any of the keys."""
    return st.fixed_dictionaries({}, optional=values)


positive = st.floats(1e-9, 1e9)
share = st.floats(0, 1)
words = st.text(max_size=8)
head = some({"layers": st.integers(1, 4), "hidden": st.integers(1, 9), "dropout": share}).map(
    lambda given: {"name": "mlp", **given}
)
RAW = some(
    {
        "question": words,
        "published": st.dictionaries(words, st.integers() | words | st.lists(st.integers(), max_size=2), max_size=2),
        "data": some(
            {
                "root": st.none() | words.filter(lambda text: text.strip() and "\0" not in text),
                "mini": st.none() | some({"identities": st.integers(2, 20), "seed": st.integers(0, 9)}),
                "size": st.integers(16, 4096),
                "fit": st.sampled_from(["squash", "pad", "crop"]),
                "split": st.sampled_from(["kfold", {"name": "stratified", "validation": 0.3}, {"validation": "5e-1"}]),
            }
        ),
        "augment": st.lists(
            st.sampled_from(["flip", {"name": "flip", "p": 1}, {"name": "affine", "scale": [1, 2]}]), max_size=3
        ),
        "model": some({"freeze": st.booleans(), "input_size": st.none() | st.integers(16, 99), "head": head}),
        "loss": st.sampled_from(["arcface", "focal_arcface", {"margin": 0.25}, {"name": "arcface", "scale": "1e1"}]),
        "train": some({"lr": positive, "weight_decay": share, "epochs": st.integers(0, 500)}),
        "seeds": st.lists(st.integers(0, 99), max_size=3, unique=True),
        "variants": st.dictionaries(
            st.from_regex(r"[A-Za-z0-9_]{1,6}", fullmatch=True),
            some({"why": words, "train": some({"lr": positive})}),
            max_size=2,
        ),
    }
)


@settings(max_examples=25, deadline=None)
@given(RAW)
def test_plain_values_and_recipe_round_trip(raw):
    recipe = recipe_from_dict({"name": "some", **raw})
    plain = recipe_to_dict(recipe)
    again = recipe_from_dict(plain)
    assert recipe_to_dict(again) == plain
    assert yaml.load(yaml.safe_dump(plain, sort_keys=False), jk.StrictLoader) == plain
    assert [cell.folder for cell in expand(again)] == [cell.folder for cell in expand(recipe)]


def test_plain_values_spell_out_every_setting():
    plain = recipe_to_dict(recipe_from_dict({"name": "x", "augment": ["flip"]}))
    assert plain["augment"] == [{"name": "flip", "p": 0.5}]
    assert plain["loss"] == {"name": "arcface", **jk.settings_of("loss", "arcface")}
    assert plain.keys() == {field.name for field in jk.fields(jk.Recipe)}
    assert plain["train"].keys() == {field.name for field in jk.fields(jk.TrainConfig)}


def test_making_a_recipe_leaves_the_plain_values_alone():
    raw = {"name": "x", "loss": {"margin": 0.1}, "variants": {"a": {"why": "w"}}, "grid": {"train.lr": [1]}}
    before = repr(raw)
    recipe = recipe_from_dict(raw)
    expand(recipe)
    jk.smoke(recipe)
    assert repr(raw) == before


def test_recipe_from_dict_tells_where():
    with pytest.raises(KitError, match=r"^recipe: train\.lr: 'x' is not a number"):
        recipe_from_dict({"name": "x", "train": {"lr": "x"}})
    with pytest.raises(KitError, match=r"^notebook: seed: -1 is out of range"):
        recipe_from_dict({"name": "x", "seed": -1}, "notebook")


# the small version

SMALL = {
    ("data", "root"): None,
    ("data", "masks"): None,
    ("data", "size"): 64,
    ("model", "backbone"): "test_resnet",
    ("model", "pretrained"): False,
    ("model", "weights"): None,
    ("model", "input_size"): 64,
    ("train", "epochs"): 2,
    ("checkpoint",): None,
    ("seeds",): [],
}


def at(plain: dict, place: tuple[str, ...]) -> object:
    for key in place:
        plain = plain[key]
    return plain


LARGE = """
data: {root: /nowhere, masks: masks, size: 512}
model: {backbone: vit_base_patch14_dinov2, weights: v.safetensors, input_size: 518}
train: {epochs: 500, batch_size: 256, patience: 30}
checkpoint: runs/earlier
seeds: [0, 1, 2]
variants: {a: {train: {epochs: 300}}, b: {model: {input_size: 224}}, c: {checkpoint: runs/other}}
"""


def test_the_small_version_and_each_of_its_runs_are_small(write_recipe):
    small = jk.smoke(load_recipe(write_recipe(LARGE)))
    assert small.name == "recipe-smoke"
    assert [cell.folder for cell in expand(small)] == ["a/seed42", "b/seed42", "c/seed42"]
    assert small.data.mini is not None
    for recipe in (small, *(cell.recipe for cell in expand(small))):
        plain = recipe_to_dict(recipe)
        assert {place: at(plain, place) for place in SMALL} == SMALL


def test_overrides_do_not_bring_a_checkpoint_back_into_the_small_version(write_recipe):
    small = jk.smoke(load_recipe(write_recipe("seed: 1"), ["checkpoint=runs/x"]))
    assert [cell.recipe.checkpoint for cell in expand(small)] == [None]


def test_the_small_version_keeps_the_recipes_own_mini_dataset(write_recipe):
    small = jk.smoke(load_recipe(write_recipe("data: {mini: {identities: 5, images: 60}}")))
    assert expand(small)[0].recipe.data.mini.identities == 5


# the recipes of the project


def test_there_are_recipes():
    assert "quickstart" in {path.stem for path in RECIPES}


@pytest.mark.ci
def test_every_recipe_asks_a_question_round_trips_and_has_a_small_version():
    for path in RECIPES:
        recipe = load_recipe(path)
        assert recipe.name == path.stem
        assert recipe.question, path
        plain, short = recipe_to_dict(recipe), yaml.safe_dump(kernels.recipe_in_short(recipe), sort_keys=False)
        whole = yaml.safe_dump(plain, sort_keys=False)
        assert len(short) < len(whole), path
        assert yaml.load(whole, jk.StrictLoader) == plain, path
        for again in (plain, yaml.safe_load(short)):
            assert recipe_to_dict(recipe_from_dict(again, str(path))) == plain, path
        epochs = 0 if recipe.analysis and not recipe.train.epochs else 2
        for cell in expand(jk.smoke(recipe)):
            assert (cell.recipe.model.backbone, cell.recipe.train.epochs) == ("test_resnet", epochs), path


# values that would be fatal later


def test_what_would_be_fatal_later_is_refused_at_once(write_recipe):
    for text, words in (
        ("published: {a: 2024-01-01}", r"published\.a: .* is a date \(expected .*quote it"),
        ("published: {a: 2024-01-01 10:00:00}", r"published\.a: .* is a datetime"),
        ("published: {a: !!binary aGVsbG8=}", r"published\.a: .* is a bytes"),
        ("published: {a: {b: [1, 2024-01-01]}}", r"published\.a\.b\[1\]: .* is a date"),
        ("variants: {a: {published: {x: 2024-01-01}}}", r"variants\.a\.published\.x: .* is a date"),
        ("postprocess: [{name: tta, scales: []}]", r"scales: \(\) is empty"),
        ("postprocess: [{name: tta, scales: [1e9]}]", r"scales\[0\]: 1000000000\.0 is out of range"),
        ("seed: 4294967296", r"seed: 4294967296 is out of range \(expected at most 4\.29497e\+09\)"),
        ("seeds: [-1]", r"seeds\[0\]: -1 is out of range"),
        ("data: {split_seed: 4294967296}", "out of range"),
        ("augment: [{name: affine, scale: null}]", r"scale: None is not a list"),
        ("augment: [{name: erasing, area: null}]", r"area: None is not a list"),
        ("augment: [{name: elastic, sigma: 1e9}]", r"sigma: 1000000000\.0 is out of range"),
        ("augment: [{name: gaussian_blur, sigma: [1, 1e6]}]", "is out of range"),
        ("model: {head: {name: mlp, hidden: 1000000000}}", r"hidden: 1000000000 is out of range"),
        ("model: {head: {name: mlp, layers: 100000}}", "is out of range"),
        ("model: {head: {name: linear, output: 99999999}}", "is out of range"),
        ("train: {batch_size: 1000000000}", "is out of range"),
        ("train: {epochs: 99999999999999999999}", "is out of range"),
        ("train: {sampler: {name: pk, images: 1000000000}}", "is out of range"),
        ("data: {subset: ''}", r"data\.subset: '' is empty"),
        ("data: {root: ' '}", r"data\.root: ' ' is empty"),
        ("model: {weights: ''}", r"model\.weights: '' is empty"),
        ("checkpoint: ''", r"checkpoint: '' is empty"),
        ('data: {masks: "a\\0b"}', "without NUL"),
        ("name: " + "x" * 200, "use up to 100 letters"),
        ("variants: {" + "x" * 300 + ": {}}", "use up to 200 letters"),
        (
            "grid: {train.lr: "
            + str([i / 1e4 + 1e-5 for i in range(101)])
            + ", train.weight_decay: "
            + str([i / 1e4 for i in range(101)])
            + "}",
            "make 10,201 runs",
        ),
        ("soup: [a]", "there is none"),
    ):
        line = fails(write_recipe(text))
        assert re.search(words, line), text
        assert len(line) < 1700, text


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


def peak_memory(work) -> int:
    import tracemalloc

    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("text", ["published:\n" + textwrap.indent(BOMB, "  "), BOMB, "x: " + "[" * 200 + "]" * 200])
def test_a_small_text_takes_no_large_memory(text, write_recipe):
    path = write_recipe(text)

    def load():
        with pytest.raises(KitError, match="stands for too much"):
            load_recipe(path)

    assert peak_memory(load) < 20e6


def test_a_large_file_is_no_recipe(write_recipe):
    with pytest.raises(KitError, match=r"can't be read .*more than"):
        load_recipe(write_recipe("question: " + "x" * (2 << 20)))


def test_an_error_shows_a_part_of_a_long_value(write_recipe):
    with pytest.raises(KitError) as error:
        load_recipe(write_recipe(f"train: {{lr: {'x' * 500_000}}}"))
    assert "train.lr: 'xxx" in str(error.value)
    assert "is not a number" in str(error.value)
    assert len(str(error.value)) < 1600


def test_a_pipe_is_no_recipe(tmp_path, write_recipe):
    import os

    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", write_recipe("base: pipe.yaml")):
        with pytest.raises(KitError, match=r"pipe\.yaml: can't be read \(not a file\)"):
            load_recipe(path)


def test_plain_values_stay_in_what_others_published():
    published = {"a": "words", "b": [7, 2.5, [True, "x"]], "c": None, "d": {"e": {"f": None}}}
    assert recipe_from_dict({"name": "x", "published": published}).published == published


def test_null_empties_a_list_and_a_mapping_alone(write_recipe):
    write_recipe("seeds: [1, 2]\naugment: [flip]\npublished: {a: 1}\ndata: {turn: {top: 90}}", "base.yaml")
    recipe = load_recipe(
        write_recipe("base: base.yaml\nseeds: null\naugment: null\npublished: null\ndata: {turn: null}")
    )
    assert (recipe.seeds, recipe.augment, recipe.published, recipe.data.turn) == ((), (), {}, {})


def test_null_takes_a_variant_of_the_base_away(write_recipe):
    write_recipe("variants: {plain: {}, large: {loss: {margin: 0.6}}, small: {loss: arcface}}", "below.yaml")
    above = write_recipe("base: below.yaml\nvariants: {large: null, other: null}", "above.yaml")
    assert [spec.variant for spec in expand(load_recipe(above))] == ["plain", "small", "other"]
    assert [spec.variant for spec in expand(load_recipe(above, ["variants.small=null"]))] == ["plain", "other"]
