"""Submissions: joined by image names, mapped into [0, 1] without new ties, and checked before they count."""

import itertools
import math
import re

import jaguar_kit
import numpy as np
import pandas as pd
import pytest
import torch
from cases import every
from hypothesis import given, settings
from hypothesis import strategies as st
from jaguar_kit import KitError, validate_submission, write_submission

PROPERTY = settings(deadline=None, max_examples=40)
NAMES = ["a.png", "b.png", "c.png", "d.png"]
# A similarity of its own for every pair, asymmetric: [row of the query, column of the image in the gallery]
SIMILARITY = (np.arange(16, dtype=np.float32).reshape(4, 4) - 8) / 16


def table(row_ids=None, names=NAMES) -> pd.DataFrame:
    pairs = pd.DataFrame(itertools.permutations(names, 2), columns=["query_image", "gallery_image"])
    pairs.insert(0, "row_id", np.arange(len(pairs)) if row_ids is None else row_ids)
    return pairs


def read(path) -> pd.DataFrame:
    """row_id as text, similarity as the nearest float64."""
    written = pd.read_csv(path, dtype=str, keep_default_na=False)
    return written.assign(similarity=[float(text) for text in written.similarity])


def expected(pairs: pd.DataFrame, similarity=SIMILARITY) -> list[float]:
    """(s + 1) / 2 of each row, looked up by name."""
    places = {name: i for i, name in enumerate(NAMES)}
    return [
        (float(similarity[places[query]][places[gallery]]) + 1) / 2
        for query, gallery in zip(pairs.query_image, pairs.gallery_image)
    ]


def as_categories(pairs: pd.DataFrame) -> pd.DataFrame:
    return pairs.astype({"query_image": "category", "gallery_image": "category"})


@pytest.fixture
def place(tmp_path):
    return tmp_path / "submission.csv"


def assert_submission(path, pairs, similarity=SIMILARITY):
    written = read(path)
    assert list(written.columns) == ["row_id", "similarity"]
    assert written.row_id.tolist() == [str(i) for i in pairs.row_id]
    np.testing.assert_allclose(written.similarity, expected(pairs, similarity), atol=1e-14)


# writing


def test_each_pair_gets_the_similarity_of_its_two_images(place):
    assert write_submission(place, SIMILARITY, NAMES, table()) == place
    assert_submission(place, table())


def test_rows_are_queries(place):
    pairs = pd.DataFrame({"row_id": [0, 1], "query_image": ["a.png", "d.png"], "gallery_image": ["d.png", "a.png"]})
    write_submission(place, SIMILARITY, NAMES, pairs)
    assert read(place).similarity.tolist() == pytest.approx([(-5 / 16 + 1) / 2, (4 / 16 + 1) / 2])


def test_table_may_come_in_any_order(place):
    for seed in range(3):
        pairs = table().sample(frac=1, random_state=seed)
        write_submission(place, SIMILARITY, NAMES, pairs)
        assert_submission(place, pairs)


def test_table_need_not_be_complete(place):
    pairs = table().iloc[[7, 2, 9]]
    write_submission(place, SIMILARITY, NAMES, pairs)
    assert_submission(place, pairs)


def test_pair_may_stand_in_several_rows(place):
    pairs = pd.concat([table().iloc[:2], table().iloc[:2].assign(row_id=[90, 91])])
    write_submission(place, SIMILARITY, NAMES, pairs)
    assert_submission(place, pairs)


def test_images_may_come_in_any_order(place):
    order = [2, 0, 3, 1]
    write_submission(place, SIMILARITY[np.ix_(order, order)], [NAMES[i] for i in order], table())
    assert_submission(place, table())


def test_images_that_the_table_does_not_name_are_left_out(place):
    pairs = table(names=["d.png", "b.png"])
    write_submission(place, SIMILARITY, NAMES, pairs)
    assert_submission(place, pairs)


def test_categories_are_joined_by_name_too(place):
    pairs = as_categories(table(names=["d.png", "b.png", "a.png"]))
    write_submission(place, SIMILARITY, NAMES, pairs)
    assert_submission(place, pairs)


def test_categories_that_no_row_has_are_not_asked_for(place):
    pairs = as_categories(table())
    few = pairs[(pairs.query_image != "d.png") & (pairs.gallery_image != "d.png")]
    write_submission(place, SIMILARITY[:3, :3], NAMES[:3], few)
    assert_submission(place, few)


def test_table_is_read_from_a_path(place, tmp_path):
    pairs = table().sample(frac=1, random_state=0)
    pairs.to_csv(tmp_path / "test.csv", index=False)
    for path in (tmp_path / "test.csv", str(tmp_path / "test.csv")):
        write_submission(place, SIMILARITY, NAMES, path)
        assert_submission(place, pairs)


def test_arrays_tensors_and_lists_are_written_alike(place):
    for dtype in ("float16", "float32", "float64"):
        array = SIMILARITY.astype(dtype)
        for similarity in (array, torch.from_numpy(array), array.tolist()):
            write_submission(place, similarity, NAMES, table())
            assert_submission(place, table())


def test_submission_of_a_competition_is_written_from_its_table(mini, place):
    competition = jaguar_kit.load_competition(mini)
    names = list(competition.test.filename)
    similarity = jaguar_kit.similarity_matrix(np.random.default_rng(0).normal(size=(len(names), 8)))
    write_submission(place, similarity, names, competition.pairs)
    told = validate_submission(place, mini / "test.csv")
    assert told["rows"] == len(names) * (len(names) - 1) == len(competition.pairs)
    written = read(place).set_index("row_id").similarity
    for row in competition.pairs.sample(20, random_state=0).itertuples():
        cosine = similarity[names.index(row.query_image), names.index(row.gallery_image)]
        assert written[str(row.row_id)] == pytest.approx((float(cosine) + 1) / 2, abs=1e-6)


def test_many_rows_are_written_in_pieces(place, monkeypatch):
    monkeypatch.setattr(jaguar_kit, "CHUNK", 5)
    write_submission(place, SIMILARITY, NAMES, table())
    assert_submission(place, table())


def test_folder_of_the_submission_is_made(tmp_path):
    path = tmp_path / "new" / "folder" / "submission.csv"
    write_submission(path, SIMILARITY, NAMES, table())
    assert_submission(path, table())


# row_ids


def test_row_ids_may_be_text(place):
    pairs = table([f"pair-{i:02d} é" for i in range(12)])
    write_submission(place, SIMILARITY, NAMES, pairs)
    assert_submission(place, pairs)
    assert validate_submission(place, pairs)["rows"] == 12


def test_row_ids_of_text_are_read_from_a_path(place, tmp_path):
    pairs = table([f"a.png__{i}" for i in range(12)])
    pairs.to_csv(tmp_path / "test.csv", index=False)
    write_submission(place, SIMILARITY, NAMES, tmp_path / "test.csv")
    assert_submission(place, pairs)


@pytest.mark.parametrize("form", ["{:04d}", "{}.50"])
def test_row_ids_are_written_as_they_stand_in_the_table(place, tmp_path, form):
    pairs = table([form.format(i) for i in range(12)])
    pairs.to_csv(tmp_path / "test.csv", index=False)
    write_submission(place, SIMILARITY, NAMES, tmp_path / "test.csv")
    assert_submission(place, pairs)


def test_row_ids_may_hold_what_csv_must_quote(place):
    for form in ("a,{}", 'a"{}', '"{}"'):
        pairs = table([form.format(i) for i in range(12)])
        write_submission(place, SIMILARITY, NAMES, pairs)
        assert_submission(place, pairs)


def test_row_ids_may_be_of_any_type(place):
    for dtype in ("int32", "int64", "uint16", "Int64", "object", "string", "category"):
        pairs = table().astype({"row_id": dtype})
        write_submission(place, SIMILARITY, NAMES, pairs)
        assert_submission(place, pairs)


# values

# Below 2 ** -20 the steps between float32 numbers are finer than those of float64 around 1/2.
COSINES = st.one_of(st.just(0.0), st.floats(2**-20, 1, width=32), st.floats(-1, -(2**-20), width=32))


def written_values(folder, values) -> np.ndarray:
    """What a submission says for these similarities, in their order."""
    names = [f"{i}.png" for i in range(len(values) + 1)]
    similarity = np.zeros((len(names), len(names)), np.asarray(values).dtype)
    similarity[0, 1:] = values
    pairs = pd.DataFrame({"row_id": range(len(values)), "query_image": "0.png", "gallery_image": names[1:]})
    write_submission(folder / "submission.csv", similarity, names, pairs)
    return read(folder / "submission.csv").similarity.to_numpy(np.float64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("submissions")


@PROPERTY
@given(values=st.lists(COSINES, min_size=1, max_size=20, unique=True))
def test_different_cosines_stay_different_and_in_order(folder, values):
    values = np.array(sorted(values), np.float32)
    written = written_values(folder, values)
    assert (np.diff(written) > 0).all()
    np.testing.assert_allclose(written, (values.astype(np.float64) + 1) / 2, atol=1e-15)


@PROPERTY
@given(start=COSINES, steps=st.integers(1, 20))
def test_neighbouring_float32_cosines_stay_different(folder, start, steps):
    values = [np.float32(start)]
    for _ in range(steps):
        values.append(np.nextafter(values[-1], np.float32(-2 if start > 0 else 2)))
    values = np.array([v for v in values if abs(v) >= 2**-20])
    written = written_values(folder, values) if len(values) else values
    assert len(np.unique(written)) == len(values)


@PROPERTY
@given(values=st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=20))
def test_order_never_turns_round(folder, values):
    values = np.array(sorted(values), np.float32)
    assert (np.diff(written_values(folder, values)) >= 0).all()


@PROPERTY
@given(values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=20))
def test_equal_cosines_stay_equal(folder, values):
    written = written_values(folder, np.array(values + values, np.float32))
    assert written[: len(values)].tolist() == written[len(values) :].tolist()


@PROPERTY
@given(values=st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=20))
def test_values_beyond_minus_one_and_one_are_mapped_affinely(folder, values):
    values = np.array(values, np.float32)
    low, high = min(-1.0, float(values.min())), max(1.0, float(values.max()))
    written = written_values(folder, values)
    assert written.min() >= 0
    assert written.max() <= 1
    np.testing.assert_allclose(written, (values.astype(np.float64) - low) / (high - low), atol=1e-14)


def test_values_beyond_one_are_not_clipped_into_ties(folder):
    written = written_values(folder, np.array([0.9, 1.0, 1.0000001, 1.0000002, 3.0], np.float32))
    assert (np.diff(written) > 0).all()
    assert written[-1] == 1


def test_both_ends_are_written(folder):
    assert written_values(folder, np.array([-1.0, 0.0, 1.0])).tolist() == [0.0, 0.5, 1.0]


def test_every_value_is_a_plain_decimal_number(place):
    write_submission(place, SIMILARITY * 1e-7, NAMES, table())
    lines = place.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "row_id,similarity"
    assert all(re.fullmatch(r"\d+,[01]\.\d+", line) for line in lines[1:])
    assert len(lines) == 13


# refusals


def assert_refused(folder, text, similarity=SIMILARITY, names=NAMES, pairs=None):
    """One line that holds `text`; what was there before stays, and nothing else is left."""
    folder.mkdir()
    path = folder / "submission.csv"
    path.write_text("from before", encoding="utf-8")
    with pytest.raises(KitError, match=text) as caught:
        write_submission(path, similarity, names, table() if pairs is None else pairs)
    assert "\n" not in str(caught.value)
    assert ".tmp" not in str(caught.value)
    assert [p.name for p in folder.iterdir()] == ["submission.csv"]
    assert path.read_text(encoding="utf-8") == "from before"


@every("value", [math.nan, math.inf, -math.inf])
def test_similarity_that_is_no_number_is_refused(tmp_path, value):
    similarity = SIMILARITY.copy()
    similarity[1, 2] = value
    assert_refused(tmp_path / "out", "row 1, column 2", similarity)


@every("shape", [(3, 3), (4, 3), (16,), (5, 5)])
def test_wrong_shape_is_refused(tmp_path, shape):
    assert_refused(tmp_path / "out", "shape", np.zeros(shape))


@every("column", ["query_image", "gallery_image"])
@every("form", [pd.DataFrame.copy, as_categories])
def test_image_without_a_similarity_is_refused_by_name(tmp_path, column, form):
    pairs = table().replace({column: {"b.png": "stranger.png"}})
    assert_refused(tmp_path / "out", f"{column}.*stranger.png", pairs=form(pairs))


@every("column", ["query_image", "gallery_image"])
@every("form", [pd.DataFrame.copy, as_categories])
def test_row_without_an_image_is_refused(tmp_path, column, form):
    pairs = table()
    pairs.loc[3, column] = None
    assert_refused(tmp_path / "out", column, pairs=form(pairs))


def test_two_images_of_one_name_are_refused(tmp_path):
    assert_refused(tmp_path / "out", "b.png", names=["a.png", "b.png", "b.png", "d.png"], pairs=table(names=NAMES[:2]))


def test_two_rows_of_one_row_id_are_refused(tmp_path):
    assert_refused(tmp_path / "out", "more than one row for 4", pairs=table([0, 1, 2, 3, 4, 4, 6, 7, 8, 9, 10, 11]))


def test_table_without_rows_is_refused(tmp_path):
    assert_refused(tmp_path / "out", "no rows", pairs=table().iloc[:0])


@every("column", ["row_id", "query_image", "gallery_image"])
def test_table_without_a_column_is_refused(tmp_path, column):
    assert_refused(tmp_path / "out", f"'{column}' is missing", pairs=table().drop(columns=column))


def test_table_that_is_not_there_is_refused(tmp_path):
    assert_refused(tmp_path / "out", "nowhere.csv", pairs=tmp_path / "nowhere.csv")


def test_nothing_is_left_when_the_first_submission_is_refused(tmp_path):
    with pytest.raises(KitError):
        write_submission(tmp_path / "submission.csv", SIMILARITY, NAMES, table([0] * 12))
    assert list(tmp_path.iterdir()) == []


# validation

FIT = ["row_id,similarity", "0,0.25", "1,0", "2,1.0", "3,0.25"]
FOUR = table().iloc[:4]


def validate(folder, lines, pairs=FOUR):
    path = folder / "checked.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return validate_submission(path, pairs)


def test_fit_submission_has_all_rows_of_the_table(tmp_path):
    assert validate(tmp_path, FIT) == {"rows": 4}


def test_rows_may_come_in_any_order(tmp_path):
    assert validate(tmp_path, [FIT[0], *reversed(FIT[1:])]) == {"rows": 4}


def test_table_to_validate_against_may_be_a_path(tmp_path):
    FOUR.to_csv(tmp_path / "test.csv", index=False)
    assert validate(tmp_path, FIT, tmp_path / "test.csv")["rows"] == 4


def test_every_fault_is_named(tmp_path):
    for lines, text in (
        (["row_id", "0", "1", "2", "3"], "expected row_id,similarity"),
        (["similarity", "0", "1", "0", "1"], "expected row_id,similarity"),
        (["id,similarity", *FIT[1:]], "expected row_id,similarity"),
        (["row_id;similarity", "0;0.5"], "expected row_id,similarity"),
        (["row_id,similarity,more", "0,1,1", "1,1,1", "2,1,1", "3,1,1"], "columns row_id,similarity,more"),
        (["similarity,row_id", "0.5,0", "0.5,1", "0.5,2", "0.5,3"], "columns similarity,row_id"),
        ([*FIT, "3,0.25"], "row_id 3 stands more than once"),
        ([*FIT[:4], "2,0.25"], "row_id 2 stands more than once"),
        (FIT[:4], r"1 row_ids of the test table are missing and 0 are unknown \(first: 3\)"),
        ([*FIT, "4,0.25"], r"0 row_ids of the test table are missing and 1 are unknown \(first: 4\)"),
        ([*FIT[:4], "30,0.25"], "1 row_ids of the test table are missing and 1 are unknown"),
        ([*FIT[:4], "three,0.25"], "1 row_ids of the test table are missing and 1 are unknown"),
        (["row_id,similarity"], "4 row_ids of the test table are missing"),
        ([""], "not a readable CSV"),
        ([*FIT[:4], "3,0.25,0.5"], "not a readable CSV"),
        ([*FIT[:4], "3,1.0000001"], "row_id 3: similarity: '1.0000001' is not a number in"),
        ([*FIT[:4], "3,-0.1"], "row_id 3: similarity: '-0.1'"),
        ([*FIT[:4], "3,nan"], "row_id 3: similarity: 'nan'"),
        ([*FIT[:4], "3,"], "row_id 3: similarity: ''"),
        ([*FIT[:4], "3,inf"], "row_id 3: similarity: 'inf'"),
        ([*FIT[:4], "3,high"], "row_id 3: similarity: 'high'"),
        ([*FIT[:4], "3,True"], "row_id 3: similarity: 'True'"),
    ):
        with pytest.raises(KitError, match=text) as caught:
            validate(tmp_path, lines)
        assert "checked.csv" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_submission_is_named(tmp_path):
    with pytest.raises(KitError, match=r"nowhere\.csv: there is no such file"):
        validate_submission(tmp_path / "nowhere.csv", FOUR)


def test_unknown_text_among_row_ids_of_text_is_named(tmp_path):
    pairs = FOUR.assign(row_id=["p0", "p1", "p2", "p3"])
    with pytest.raises(KitError, match=r"1 row_ids of the test table are missing and 1 are unknown \(first: p3\)"):
        validate(tmp_path, ["row_id,similarity", "p0,0.5", "p1,0.5", "p2,0.5", "p9,0.5"], pairs)


def test_row_ids_of_text_are_compared_letter_by_letter(tmp_path):
    pairs = FOUR.assign(row_id=["00", "01", "02", "03"])
    with pytest.raises(KitError, match="4 row_ids of the test table are missing"):
        validate(tmp_path, FIT, pairs)


# row ids to the letter, however far down the table


FORMS = {
    "zeros": "{:07d}",
    "plus": "+{}",
    "blank": " {}",
    "behind": "{} ",
    "large": "{}9223372036854775808",
    "negative": "-{}",
}


def test_a_row_id_is_told_again_to_the_letter(tmp_path):
    """One odd id in 2,450 rows, the others plain numbers."""
    for form in FORMS.values():
        for row in (0, 1500, 2449):
            names = [f"{i}.png" for i in range(50)]
            pairs = list(itertools.permutations(names, 2))
            ids = [str(i) for i in range(len(pairs))]
            ids[row] = form.format(row + 1)
            lines = [f"{i},{q},{g}" for i, (q, g) in zip(ids, pairs)]
            (tmp_path / "test.csv").write_text("row_id,query_image,gallery_image\n" + "\n".join(lines) + "\n")
            write_submission(tmp_path / "out.csv", np.eye(50), names, tmp_path / "test.csv")
            written = [line.rpartition(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
            assert written == ids
            assert validate_submission(tmp_path / "out.csv", tmp_path / "test.csv") == {"rows": 2450}


@every("ids", [[2**63, 2**63 + 1], [2**64 - 1, 0], [5, 4]])
def test_row_ids_of_any_size_are_taken_from_a_table(ids, tmp_path):
    test = pd.DataFrame({"row_id": np.array(ids, np.uint64), "query_image": ["a", "b"], "gallery_image": ["b", "a"]})
    write_submission(tmp_path / "out.csv", np.eye(2), ["a", "b"], test)
    assert [line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]] == list(map(str, ids))


def test_row_ids_with_a_point_are_refused(tmp_path):
    test = pd.DataFrame({"row_id": [0.0, 1.0], "query_image": ["a", "b"], "gallery_image": ["b", "a"]})
    with pytest.raises(KitError, match="row_id: holds numbers with a point"):
        write_submission(tmp_path / "out.csv", np.eye(2), ["a", "b"], test)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(("most", "told"), [(1.0, False), (1.0000003, False), (3.0, True), (-7.0, True)])
def test_similarities_that_are_no_cosines_are_mapped_aloud_and_tie_nothing(most, told, tmp_path, capsys):
    similarity = np.array([[1.0, 0.3, most], [0.4, 1.0, 0.31], [0.2, 0.9, 1.0]])
    names = ["a", "b", "c"]
    write_submission(tmp_path / "out.csv", similarity, names, table(names=names))
    values = pd.read_csv(tmp_path / "out.csv").similarity
    assert values.nunique() == 6
    assert values.between(0, 1).all()
    assert ("no cosines" in capsys.readouterr().out) == told
