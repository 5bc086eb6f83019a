"""Fixtures for all sections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jaguar_kit as jk
import pytest
import torch
import yaml

jk.room("experiments.page")  # from here on tests may import jaguar_kit_tools, installed or not


@pytest.fixture(autouse=True, scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache that begins empty and ends with the tests, so that neither can mislead the other."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAGUAR_KIT_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny networks are quickest on one thread, here and in the processes that tests start."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small mini-dataset; it is shared, so only read it."""
    return jk.make_mini_dataset(tmp_path_factory.mktemp("mini") / "round1", identities=6, images=72, seed=0, round=1)


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """write_recipe("train: {lr: 1}", name="x.yaml") -> path; plain values are written as YAML."""

    def write(content: str | Mapping, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else yaml.safe_dump(dict(content), sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return path

    return write
