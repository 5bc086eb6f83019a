"""One test of many cases: all are tried, and those that fail are told together, each with its values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

FAILURES = (Exception, pytest.fail.Exception, pytest.skip.Exception)  # a case may not be skipped unseen


def every(names: str | tuple[str, ...], values: Iterable) -> Callable[[Callable], Callable]:
    """As pytest.mark.parametrize, but in one test: the function is called with all the values, one after the other.

    Each case has a folder and a monkeypatch of its own, where the function asks for `tmp_path` or `monkeypatch`.
    Other fixtures are the same for all cases: a case must not change them.
    """
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    cases = [dict(zip(keys, value if len(keys) > 1 else [value])) for value in values]
    assert cases, f"{names}: there is no case"

    def collapse(test: Callable) -> Callable:
        signature = inspect.signature(test)
        fixtures = [parameter for name, parameter in signature.parameters.items() if name not in keys]
        assert len(fixtures) == len(signature.parameters) - len(keys), f"{test.__name__} has no {names}"

        @functools.wraps(test)
        def all_cases(**given: Any) -> None:
            errors = [_error_of(test, case, given, number) for number, case in enumerate(cases)]
            failed = [(_words(case), error) for case, error in zip(cases, errors) if error is not None]
            if failed:
                told = "\n\n".join(f"{words}: {type(error).__name__}: {error}" for words, error in failed)
                raise AssertionError(f"{len(failed)} of {len(cases)} cases fail:\n{told}") from failed[0][1]

        all_cases.__signature__ = signature.replace(parameters=fixtures)
        return all_cases

    return collapse


def _error_of(test: Callable, case: dict[str, Any], given: dict[str, Any], number: int) -> BaseException | None:
    own = {**given, **case}
    if "tmp_path" in given:
        own["tmp_path"] = Path(given["tmp_path"]) / f"case{number}"
        own["tmp_path"].mkdir()
    with pytest.MonkeyPatch.context() as patch:
        if "monkeypatch" in given:
            own["monkeypatch"] = patch
        try:
            test(**own)
        except FAILURES as error:
            return error
    return None


def _words(case: dict[str, Any]) -> str:
    """The values of a case; of a function without a name the line it stands in."""
    return ", ".join(f"{name}={_told(value)}" for name, value in case.items())


def _told(value: Any) -> str:
    if getattr(value, "__name__", "") == "<lambda>":
        return f"the function in line {value.__code__.co_firstlineno}"
    return getattr(value, "__name__", None) or repr(value)[:200]
