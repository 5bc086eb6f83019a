"""The loop over cases itself: it tries all of them, names those that fail, and lets none change another."""

import os

import pytest
from cases import every


def test_all_cases_are_tried_and_those_that_fail_are_named():
    tried = []

    @every("number", [1, 2, 3, 4])
    def odd(number):
        tried.append(number)
        assert number % 2

    with pytest.raises(AssertionError) as told:
        odd()
    assert tried == [1, 2, 3, 4]
    assert str(told.value).startswith("2 of 4 cases fail:\nnumber=2: AssertionError: ")
    assert "\n\nnumber=4: AssertionError: " in str(told.value)
    assert "number=1" not in str(told.value)


def test_a_case_that_raises_nothing_is_skipped_or_fails_itself_is_named_too():
    @every(("kind", "words"), [("nothing", "DID NOT RAISE"), ("skip", "not here"), ("fail", "so"), ("good", "")])
    def all_kinds(kind, words):
        if kind == "nothing":
            with pytest.raises(ValueError, match="x"):
                pass
        if kind in ("skip", "fail"):
            getattr(pytest, kind)(words)

    with pytest.raises(AssertionError) as told:
        all_kinds()
    first, *others = str(told.value).split("\n\n")
    assert first.startswith("3 of 4 cases fail:\nkind='nothing', words='DID NOT RAISE': Failed: DID NOT RAISE")
    assert [line.split(": ", 1)[1] for line in others] == ["Skipped: not here", "Failed: so"]


def test_cases_of_two_loops_are_all_told():
    @every("first", "ab")
    @every("second", [lambda: 0, len])
    def pairs(first, second):
        raise ValueError(first)

    with pytest.raises(AssertionError) as told:
        pairs()
    assert str(told.value).count("first='a'") == str(told.value).count("first='b'") == 1
    assert str(told.value).count("second=len: ValueError: ") == 2
    assert str(told.value).count("second=the function in line ") == 2


@every("number", range(3))
def test_each_case_has_a_folder_and_a_monkeypatch_of_its_own(number, tmp_path, monkeypatch):
    assert not list(tmp_path.iterdir())
    assert "A_CASE_BEFORE" not in os.environ
    (tmp_path / "x").touch()
    monkeypatch.setenv("A_CASE_BEFORE", str(number))


def test_no_cases_and_no_place_for_them_are_refused():
    with pytest.raises(AssertionError, match="there is no case"):
        every("number", [])
    with pytest.raises(AssertionError, match="has no number"):
        every("number", [1])(lambda: None)
