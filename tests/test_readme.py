"""The five pages: their links, their tables beside the code, and every command and block of code that they show."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jaguar_kit
import pandas as pd
import pytest
import yaml
from cases import every
from jaguar_kit_tools.experiments import smoke as smoke_room
from jaguar_kit_tools.experiments.commands import ROOM_OF_COMMAND
from jaguar_kit_tools.on_kaggle import package as package_tool
from jaguar_kit_tools.on_kaggle import run as kaggle_run
from jaguar_kit_tools.on_kaggle import weights as weights_tool
from kaggle_server import Session, kaggle_client_module, playing_kaggle, session_output
from PIL import Image
from tiny import SMALLER

ROOT = Path(jaguar_kit.__file__).parent
PAGES = ("README.md", "recipes/README.md", "tools/README.md", "tests/README.md", "tools/benches/README.md")
LONG = PAGES[1:]  # these begin with a line of contents
EVERY_SETTING, PYTHON = "recipes/README.md", ".venv/bin/python"

# Commands that this file does not run, and why.
LEFT = {
    "python3 -m venv": "needs a network behind it: .ci/run builds an environment so",
    ".venv/bin/pip install": "needs a network: test_00_module installs the kit without one",
    ".venv/bin/pytest": "would run this file again",
    ".venv/bin/ruff": "is what .ci/run runs",
    ".ci/run": "runs all tests",
    "torchrun": "joins machines: test_room_parts starts two nodes of one so",
}


class Block(NamedTuple):
    page: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Shell commands: without comments, joined where a line goes on, apart where && joins them."""
        text = re.sub(r"(^|\s+)#\s.*$", "", self.text, flags=re.MULTILINE)
        lines = re.sub(r"(?:\\|(?<=&&))\n\s*", " ", text).splitlines()
        return [" ".join(part.split()) for line in lines for part in line.split("&&") if part.strip()]


@cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(language: str, *pages: str) -> list[Block]:
    found = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    every = [Block(page, *match.groups()) for page in pages or PAGES for match in found.finditer(text_of(page))]
    return [block for block in every if block.language == language]


def prose_of(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def headings(page: str) -> list[tuple[int, str]]:
    return [(len(marks), title) for marks, title in re.findall(r"^(#+) (.+)$", prose_of(page), re.MULTILINE)]


def anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def section(page: str, title: str) -> str:
    """What stands below a heading, up to the next of its rank."""
    [(marks, rest)] = re.findall(rf"^(#+) {re.escape(title)}\n(.*)", text_of(page), re.DOTALL | re.MULTILINE)
    return re.split(rf"^#{{1,{len(marks)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The rows of Markdown tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = [i for i, line in enumerate(lines) if i + 1 < len(lines) and set(lines[i + 1]) <= set("|-: ")]
    body = [line for i, line in enumerate(lines) if i not in heads and i - 1 not in heads]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# pages


def test_readme_is_one_page_and_begins_with_what_most_readers_want():
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 200
    first = "\n".join(lines[:40])
    for wanted in ("from photographs", "recipes/quickstart.png", "recipes/quickstart.yaml", "pytest", "## On Kaggle"):
        assert wanted in first, wanted
    assert {"tools/package.py", "tools/kaggle_run.py"} <= set(re.findall(r"tools/\w+\.py", first))


def test_no_line_is_wider_than_code_is():
    for page in PAGES:
        wide = [line for line in prose_of(page).splitlines() if len(line) > 130 and not line.startswith("|")]
        assert wide == [], page
    shown = [
        line for block in blocks("", "README.md") + blocks("python", "README.md") for line in block.text.splitlines()
    ]
    assert max(map(len, shown)) <= 97, "GitHub shows no more without scrolling"


def test_every_page_is_reached_from_the_first():
    reached = {target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text_of("README.md"))}
    assert set(LONG) <= reached


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"`[^`\n]*`", "", prose_of(page))
    targets = re.findall(r"\]\(([^)\s]+)\)", prose_of(page)) + re.findall(r'(?:src|href)="([^"]+)"', text)
    assert targets
    for target in targets:
        if target.startswith("https://"):
            continue
        path, _, wanted = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if wanted:
            other = file.resolve().relative_to(ROOT).as_posix()
            anchors = [anchor(title) for _, title in headings(other)]
            assert anchors.count(wanted) == 1, target


@pytest.mark.parametrize("page", LONG)
def test_long_pages_begin_with_their_contents(page):
    contents = text_of(page).partition("**Contents:**")[2].partition("\n\n")[0]
    listed = re.findall(r"\[([^\]]+)\]\(#([^)]+)\)", contents)
    assert [anchor(title) for title, _ in listed] == [target for _, target in listed]
    chapters = [title for rank, title in headings(page) if rank == 2]
    assert [title for title, _ in listed if title in chapters] == chapters


def test_nothing_is_told_twice():
    where: dict[str, str] = {}
    for page in PAGES:
        plain = " ".join(line for line in prose_of(page).splitlines() if not line.startswith("|"))
        for sentence in re.split(r"(?<=[.:;])\s+", re.sub(r"\s+", " ", plain)):
            if len(sentence) > 60:
                assert sentence not in where, f"{sentence!r} stands in {where.get(sentence)} and {page}"
                where[sentence] = page


# tables beside the code


@cache
def setting_rows() -> dict[str, str]:
    """Defaults as the page tells them, by setting."""
    told: dict[str, str] = {}
    for names, default, _ in rows(section(EVERY_SETTING, "Every setting") + section(EVERY_SETTING, "A search")):
        names, defaults = quoted(names), default.split(", ")
        assert len(defaults) in (1, len(names)), names
        assert not told.keys() & set(names), names
        told |= dict(zip(names, defaults * len(names)))
    return told


def default_of(dotted: str) -> object:
    value = jaguar_kit.recipe_to_dict(jaguar_kit.Recipe(name=""))
    value = value if dotted == "search" else {**value, "search": jaguar_kit.recipe_to_dict(jaguar_kit.Search())}
    for key in dotted.split("."):
        value = value[key]
    return value["name"] if isinstance(value, dict) and "name" in value else value


def test_every_setting_is_on_the_page_with_its_default():
    config = {f.name: getattr(jaguar_kit.Recipe(name=""), f.name) for f in fields(jaguar_kit.Recipe)}
    expected = {name for name, value in config.items() if not is_dataclass(value)} | {"loss", "background", "ensemble"}
    for name in ("data", "model", "train"):
        expected |= {f"{name}.{f.name}" for f in fields(config[name])}
    expected |= {f"search.{f.name}" for f in fields(jaguar_kit.Search)}
    assert set(setting_rows()) == expected
    for name, told in setting_rows().items():
        assert is_told(default_of(name), told), f"{name}: {told}, but its default is {default_of(name)!r}"


def is_told(default: object, told: str) -> bool:
    """Whether a cell of the page says this default."""
    if told in ("", "none", "empty"):
        return default in ([], {}, "")
    text = told.strip("`")
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        return float(text) == default
    return yaml.safe_load(text) == default


def test_settings_within_settings_are_named_too():
    words = set(re.findall(r"\w+", section(EVERY_SETTING, "Every setting")))
    for inner in ("MiniConfig", "Stage", "OpenSet", "Divergence", "Reading", "PseudoLabels"):
        missing = {f.name for f in fields(getattr(jaguar_kit, inner))} - words
        assert not missing, inner


KINDS = {  # of the rows whose names are those of parts
    "data.split": ["split"],
    "background": ["background"],
    "augment": ["augmentation"],
    "model.pooling": ["pooling", "head"],
    "model.geometry": ["geometry"],
    "loss": ["loss"],
    "train.sampler": ["sampler", "mix"],
    "train.schedule": ["schedule"],
    "analysis": ["analysis"],
    "postprocess": ["postprocess"],
    "ensemble": ["ensemble"],
}


def test_the_table_of_parts_names_all_there_are():
    told = {
        quoted(part)[0]: re.sub(r"\([^)]*\)|:.*", "", names)
        for part, names in rows(section(EVERY_SETTING, "What a recipe can name"))
    }
    assert set(told) == {*KINDS, "model.backbone", "train.optimizer"}
    for part, kinds in KINDS.items():
        jaguar_kit.room("experiments.analysis")
        registered = {name for kind in kinds for name in jaguar_kit.registered(kind)}
        assert registered <= set(re.findall(r"\w+", told[part])), part
    assert set(jaguar_kit.BACKBONES) <= set(re.findall(r"\w+", told["model.backbone"]))


def test_tables_list_every_recipe_option_bench_and_room():
    experiments = section(EVERY_SETTING, "The experiments").partition("### ")[0]
    assert set(re.findall(r"\((\w+)\.yaml\)", experiments)) == {p.stem for p in (ROOT / "recipes").glob("*.yaml")}
    options = {quoted(option)[0].split()[0] for option, _ in rows(section(EVERY_SETTING, "Run a recipe"))}
    parser = parser_of(jaguar_kit.run_command, ["recipe"])
    assert options == {action.option_strings[0] for action in parser._actions if action.option_strings} - {"-h"}
    benches = {quoted(name)[0] for name, _ in rows(section("tools/benches/README.md", "Measure yourself"))}
    assert benches == set(bench().BENCHES)
    commands = section("tools/README.md", "The commands")
    files = {name for row in rows(commands) for name in quoted(row[0])}
    assert files == {f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py")}
    named = {name for row in rows(commands) for name in quoted(row[1])}
    assert named == {"run", *ROOM_OF_COMMAND}
    folders = {quoted(name)[0] for name, _ in rows(section("tests/README.md", "Where things are"))}
    assert folders == {"*.py", *(f"{path.parent.name}/" for path in (ROOT / "tools").glob("*/*.py"))}


# commands, by their own parsers


class Parsed(Exception):
    """Stands for the work that would begin once the options are read."""


def parser_of(command: Callable, argv: list[str]) -> argparse.ArgumentParser:
    """The parser with which a command has read these words; SystemExit where it refuses them."""
    read, used = argparse.ArgumentParser.parse_args, []

    def parse(self, words=None, namespace=None):
        used.append(self)
        read(self, words, namespace)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        with pytest.raises(Parsed):
            command(argv)
    return used[0]


@cache
def bench():
    spec = importlib.util.spec_from_file_location("bench_of_pages", ROOT / "tools" / "bench.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words_of(command: str) -> tuple[Callable, list[str]] | None:
    """The function that a command of the pages calls, and its words; None for what this file leaves alone."""
    if command.startswith(tuple(LEFT)):
        return None
    words = shlex.split(command)
    words = words[1:] if words[0] == PYTHON else words
    if words[0].startswith("tools/"):
        (script,), rest = words[:1], words[1:]
        if script == "tools/bench.py":
            return bench().parse, rest
        name = re.search(r'\["(\w+)", \*sys', (ROOT / script).read_text(encoding="utf-8"))
        return jaguar_kit.any_command, [name[1] if name else "run", *rest]
    assert words[:2] == ["-m", "jaguar_kit"], f"{command}: is none that this file knows"
    return jaguar_kit.any_command, words[2:]


COMMANDS = list(dict.fromkeys(command for block in blocks("") for command in block.commands))
INLINE = sorted({
    re.sub(r"^python -m", f"{PYTHON} -m", command)
    for page in PAGES
    for command in quoted(prose_of(page))
    if re.match(r"(tools/\w+\.py|python -m jaguar_kit) ", command) and not re.search(r"\.\.\.|COMMAND", command)
})  # fmt: skip


@every("command", [*COMMANDS, *INLINE])
def test_every_command_is_one_that_its_parser_takes(command):
    found = words_of(command)
    if found:
        function, words = found
        parser_of(function, words)
        for path in (word for word in words if word.startswith(("recipes/", "kernels/"))):
            assert (ROOT / path).exists() or path == "recipes/margins.yaml", path
        if words[0] == "fetch":
            for name in words[1:]:
                assert name in weights_tool.SPOTS or jaguar_kit.known_backbone(name)


def test_what_is_left_alone_is_there():
    assert all(any(command.startswith(left) for command in COMMANDS) for left in LEFT)
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in COMMANDS:
        if command.startswith((".venv/bin/ruff", ".venv/bin/pytest")):
            assert command.replace(".venv", ".ci/venv") in checks
        for extra in re.findall(r"'\.\[(\w+)\]'", command):
            assert f"\n{extra} =\n" in (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_every_override_in_the_text_is_one():
    found = {text for page in PAGES for text in re.findall(r"`-o ([\w.]+=[^`\s]+)", prose_of(page))}
    assert len(found) > 8
    for text in found:
        jaguar_kit.load_recipe("lbe08", [text])


# a place to work in


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    """A few images in the competition's layout; only read them."""
    return jaguar_kit.make_mini_dataset(tmp_path_factory.mktemp("few") / "photographs", identities=4, images=36)


@pytest.fixture(scope="module")
def place(tmp_path_factory, photographs) -> Iterator[Path]:
    """A folder like a clone's, with what the pages call photographs, DIR, known and week1."""
    place = tmp_path_factory.mktemp("clone")
    (place / "recipes").mkdir()
    for name in {name for command in COMMANDS for name in re.findall(r"(?:recipes|kernels)/(\w+)", command)}:
        shutil.copytree(ROOT / "kernels" / name, place / "kernels" / name)
        if name != "starter":
            shutil.copy(ROOT / "recipes" / f"{name}.yaml", place / "recipes")
    shutil.copytree(photographs, place / "photographs")
    for number, row in enumerate(jaguar_kit.load_competition(photographs).train.itertuples()):
        for folder in (place / "DIR" / row.identity, place / ("known" if number % 3 else "week1") / row.identity):
            folder.mkdir(parents=True, exist_ok=True)
            with Image.open(photographs / row.path) as image:
                image.convert("RGB").resize((64, 64)).save(folder / f"{number}.png")
    shutil.copytree(place / "week1", place / "week2")
    (place / "weights").mkdir()
    small = jaguar_kit.create_backbone("test_resnet")
    for name in ("dinov3_l", "test_resnet"):
        jaguar_kit.save_backbone(place / "weights" / f"{name}.safetensors", small, "test_resnet")
    [margins] = [block.text for block in blocks("yaml") if "name: margins" in block.text]
    (place / "recipes" / "margins.yaml").write_text(margins)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


def run_here(command: str, *more: str) -> None:
    function, words = words_of(command)
    assert jaguar_kit.main(function, [*words, *more]) == 0, command


SMALLEST = (*SMALLER, "train.epochs=1", "data.mini.images=48", "data.mini.identities=4")
SMALL = [word for text in SMALLEST for word in ("-o", text)]


def command_like(beginning: str, *pages: str) -> str:
    """The command of these pages that is this one, or else the only one that begins so."""
    known = {command for block in blocks("", *pages) for command in block.commands}
    found = known & {beginning} or {command for command in known if command.startswith(beginning)}
    [found] = [command for command in found if "--export" not in command and "--close" not in command] or found
    return found


# blocks that run


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.text.splitlines()[0])
def test_every_recipe_of_the_pages_is_one(block, place):
    raw = yaml.safe_load(block.text)
    if "base" in raw:
        recipe = jaguar_kit.load_recipe(f"recipes/{raw['name']}.yaml")
    else:
        recipe = jaguar_kit.recipe_from_dict({"name": "block", **raw})
    assert jaguar_kit.expand(recipe)
    if "splits" in raw:
        assert len(jaguar_kit.expand(recipe)) == 16  # as the page says


@pytest.mark.ci
def test_the_notebook_runs_beside_the_module_alone(photographs, tmp_path):
    [block] = blocks("python", "README.md")
    shutil.copy(jaguar_kit.__file__, tmp_path)
    shutil.copytree(photographs, tmp_path / "photographs")
    alone = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-c", block.text]
    done = subprocess.run(words, cwd=tmp_path, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = jaguar_kit.validate_submission(tmp_path / "again.csv", tmp_path / "photographs" / "test.csv")
    assert rows["rows"] > 0
    assert pd.read_csv(tmp_path / "runs" / "first@photographs" / "results.csv")["map"].between(0, 1).all()


@pytest.mark.parametrize("block", blocks("python", *LONG), ids=lambda block: block.page)
def test_other_blocks_of_python_run_as_they_stand(block, place, monkeypatch):
    monkeypatch.setattr(jaguar_kit, "REGISTRY", dict(jaguar_kit.REGISTRY))  # parts of the page's own leave it again
    before = set(place.glob("runs/**/results.csv"))
    if "run_recipe" in block.text:  # without pages, which the tests below look at
        monkeypatch.setattr(jaguar_kit, "rooms_folder", lambda: None)
    exec(compile(block.text, block.page, "exec"), {"__name__": "notebook"})
    if "run_recipe" in block.text:
        [table] = set(place.glob("runs/**/results.csv")) - before
        assert pd.read_csv(table)["map"].between(0, 1).all()


@pytest.fixture(scope="module")
def trained(place) -> Path:
    """What the quickstart's command leaves, smaller."""
    run_here(command_like(f"{PYTHON} tools/run_recipe.py recipes/quickstart.yaml", "README.md"), *SMALL)
    return place / "runs" / "quickstart"


def test_the_main_job_leaves_what_the_page_lists(trained):
    told = section("README.md", "What a run leaves")
    [listed] = blocks("text", "README.md")
    run = trained / "default" / "seed0"
    of_runs = set(re.findall(r"\b\w+\.(?:yaml|csv|json|safetensors|npz)\b", listed.text.partition("\n")[2]))
    of_runs.remove("test.csv")  # of the competition
    assert {path.name for path in run.iterdir()} >= of_runs
    assert len(of_runs) == 7
    assert all((trained / name).is_file() for name in ("report.html", "report.md", "results.csv", ".jaguar_kit"))
    assert ".jaguar_kit" in told


def test_a_trained_run_is_evaluated_again(trained, place):
    again = command_like(f"{PYTHON} tools/run_recipe.py recipes/quickstart.yaml -o name=again")
    run_here(again, *SMALL[:-6], *SMALL[-4:])
    assert pd.read_csv(place / "runs" / "again" / "results.csv")["map_postprocessed"].notna().all()


@pytest.mark.ci
def test_reports_are_made_again_and_compared(trained, place):
    for name in ("lbe08", "lbe09", "first/lbe09", "second/lbe09", "eda02"):
        shutil.copytree(trained, place / "runs" / name)
    (trained / "report.html").unlink()
    for command in dict.fromkeys(c for c in COMMANDS if "tools/report.py" in c):
        run_here(command)
    assert (place / "runs" / "lbe09" / "report.html").is_file()
    assert (place / "runs" / "comparison" / "report.html").is_file()


def test_other_runs_have_what_they_need(place, monkeypatch):
    """Recipes and overrides of all commands that run one, as far as the runs that they would begin."""
    planned = []
    small = place / "weights" / "test_resnet.safetensors"  # in place of one that --smoke trains once
    monkeypatch.setattr(smoke_room, "small_backbone", lambda: small)
    monkeypatch.setattr(jaguar_kit, "run_recipe", lambda recipe, *rest, **named: planned.append(recipe) or Done())
    commands = [c for c in COMMANDS if "tools/run_recipe.py" in c and words_of(c)]
    for command in commands:
        run_here(command)
    assert len(planned) == len(commands) > 6
    assert all(jaguar_kit.expand(recipe) for recipe in planned)


class Done:
    failed = ()


def test_lists_sheets_and_kernels_are_made(place, capsys):
    for beginning in ("list loss pooling", "sheet", "list --html reference"):
        command = next(c for c in [*COMMANDS, *INLINE] if c.startswith(f"{PYTHON} -m jaguar_kit {beginning}"))
        run_here(command)
    assert "arcface" in capsys.readouterr().out
    assert (place / "sheet.png").is_file()
    assert list((place / "reference").glob("*.html"))
    (place / "mine.yaml").write_text("base: final.yaml\nname: mine\n")
    run_here("tools/kernels.py mine.yaml")
    assert (place / "kernels" / "mine" / "mine.py").is_file()
    shutil.rmtree(place / "kernels" / "mine")


@pytest.mark.ci
def test_a_season_is_answered_and_goes_on(place):
    """identify, with a small backbone in place of miewid."""
    first = command_like(f"{PYTHON} -m jaguar_kit identify --backbone miewid", "README.md")
    run_here(first.replace("miewid", "weights/test_resnet.safetensors"))
    run_here(command_like(f"{PYTHON} -m jaguar_kit identify --previous answers1"))
    written = rows(section("tools/README.md", "What it writes"))
    named = {name for row in written if not row[1].startswith("with `--") for name in quoted(row[0])}
    assert named <= {path.name for path in (place / "answers2").iterdir()}


@pytest.fixture
def kaggle(tmp_path, tmp_path_factory):
    if sys.version_info < (3, 11):
        pytest.skip("Kaggle's client needs Python 3.11")
    with playing_kaggle(kaggle_client_module(tmp_path_factory.mktemp("home")), tmp_path) as server:
        yield server


@pytest.mark.ci
def test_a_first_score_and_the_final_one_reach_kaggle(place, kaggle, tmp_path, monkeypatch):
    """The README's commands for Kaggle, in their order, against a server that plays it."""
    monkeypatch.setattr(kaggle_run, "rehearse", lambda *_: [])  # rehearsals have tests of their own
    monkeypatch.setattr(package_tool, "RECIPES", place / "recipes")
    commands = [c for c in COMMANDS if re.search(r"tools/(kernels|package|kaggle_run)\.py", c)]
    of_readme = [c for block in blocks("", "README.md") for c in block.commands if c in commands]
    assert [re.search(r"tools/(\w+)", c)[1] for c in of_readme] == [
        "kernels",
        "package",
        "kaggle_run",
        "package",
        "kaggle_run",
    ]
    for command in of_readme:
        name = "starter" if "starter" in command else "final"
        rows = b"row_id,similarity\n0,%.2f\n1,1.0\n" % (0.5 if name == "final" else 0.25)
        kaggle.next_session = Session(output=session_output(tmp_path / "session", name, **{"submission.csv": rows}))
        more = ("--every", "0.02", "--stale", "0.3") if "kaggle_run" in command else ()
        run_here(command.replace("YOUR-KAGGLE-NAME", "a-user"), *more)
    assert [body["submissionDescription"] for body in kaggle.submissions] == ["first", "seed 42"]
    first, second = kaggle.datasets["a-user/jaguar-kit"].versions
    assert second.keys() - first.keys() == {"dinov3_l.safetensors"}
    run_here(command_like(f"{PYTHON} tools/kernels.py --competition"))
    run_here(command_like(f"{PYTHON} tools/kernels.py --check"))
