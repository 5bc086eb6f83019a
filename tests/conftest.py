"""Fixtures for all sections."""

from __future__ import annotations

import gc
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import jaguar_kit as jk
import matplotlib.figure
import pytest
import sklearn.manifold
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

jk.room("experiments.page")  # from here on tests may import jaguar_kit_tools, installed or not
MINI = jk.room("experiments.mini_dataset")


def pytest_collection_finish() -> None:
    """What was imported by now stays: the collector of garbage need not go through all of it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


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


DRAW = jk.Page.figure
DRAWN: set[str] | None = None  # the kinds of figures that were drawn for a module; None where none are
EVERY_FIGURE = {"test_room_reports", "test_room_pages", "test_room_asked"}  # modules that look at what is drawn
NO_FIGURE = {"test_02_readings", "test_04_extra", "test_04_names", "test_12_shapes", "test_12_weights"}  # usual ones
LOOKING = {"test_room_diagnostics", "test_room_attribution", "test_room_cards", "test_readme"}  # reports look at runs
LOOKING |= {"test_14_odd_inputs", "test_14_damaged"}


def _draw_once(page: jk.Page, name: str, made: matplotlib.figure.Figure, caption: str) -> None:
    assert isinstance(made, matplotlib.figure.Figure)
    kind = re.sub(r"^run\d+", "run", name)
    if DRAWN is None or kind in DRAWN:
        page.image(name, Image.new("RGB", (1, 1)), caption)
    else:
        DRAW(page, name, made, caption)
        DRAWN.add(kind)


@pytest.fixture(autouse=True, scope="module")
def quick_reports(request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures are made each time, but drawn at most once for a module, by their names; maps settle sooner; networks are
    looked through for the modules that ask for it."""
    global DRAWN
    DRAWN = None if request.module.__name__ in NO_FIGURE else set()
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ not in EVERY_FIGURE:
            patch.setattr(jk.Page, "figure", _draw_once)
            patch.setattr(sklearn.manifold, "TSNE", partial(sklearn.manifold.TSNE, max_iter=250))
        if request.module.__name__ not in LOOKING:
            patch.setattr(jk.room("experiments.report"), "diagnosed", lambda *_: None)
        yield


def _copied(draw: Callable[..., None], shelf: Path) -> Callable[..., None]:
    """Draws a mini-dataset the first time that it is asked for, and copies it from the shelf ever after."""

    def drawn(root: Path, **made_with: int) -> None:
        if MINI.draw_animal is not DRAW_ANIMAL:  # a test draws others
            return draw(root, **made_with)
        kept = shelf / "-".join([draw.__name__, *(f"{key}{value}" for key, value in sorted(made_with.items()))])
        with jk.only_one(kept, wait=True):
            if not (kept / "whole").is_dir():
                with jk.atomic(kept / "whole") as temporary:
                    draw(temporary, **made_with)
        shutil.copytree(kept / "whole", root, dirs_exist_ok=True)
        return None

    return drawn


DRAW_ANIMAL = MINI.draw_animal
DRAWING = {name: getattr(MINI, name) for name in ("draw_mini_dataset", "draw_open_dataset")}


@pytest.fixture(autouse=True, scope="session")
def drawn_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Mini-datasets of the same arguments are drawn once for all tests, in whichever process they run."""
    base = tmp_path_factory.getbasetemp()
    shelf = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "drawn"
    shelf.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, draw in DRAWING.items():
            patch.setattr(MINI, name, _copied(draw, shelf))
        yield


@pytest.fixture
def drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test of the drawing itself."""
    for name, draw in DRAWING.items():
        monkeypatch.setattr(MINI, name, draw)


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small mini-dataset; it is shared, so only read it."""
    return jk.make_mini_dataset(tmp_path_factory.mktemp("mini") / "round1", identities=6, images=72, seed=0, round=1)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small backbone's weights as a file: random ones, of which nobody expects much."""
    path = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


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


@pytest.fixture(scope="module")
def chromium():
    """A browser for the tests of a module, where it and Playwright are there."""
    api = pytest.importorskip("playwright.sync_api")
    from browsing import BROWSER  # opens rooms

    if BROWSER is None:
        pytest.skip("there is no browser here")
    with api.sync_playwright() as play:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-precise-memory-info"]
        opened = play.chromium.launch(executable_path=BROWSER, args=quiet)
        yield opened
        opened.close()


@pytest.fixture
def browser(chromium):
    """The browser, which keeps nothing of a test for the next one."""
    yield chromium
    for context in chromium.contexts:
        context.close()
