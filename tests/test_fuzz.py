"""Three hundred bad inputs of every kind: no traceback, no hang, no crash, and nothing left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fuzz
import jaguar_kit
import pytest
from jaguar_kit_tools.experiments import report as report_room
from PIL import Image

WORKER, ROOT = Path(__file__).parent / "fuzz.py", Path(jaguar_kit.__file__).parent
INPUTS, AT_A_TIME = 300, 50


def tried(first: int, last: int, folder: Path, mini: Path, cache: Path) -> list[dict]:
    """What became of the inputs; a crash counts as the fault of the one that was under way."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "JAGUAR_KIT_CACHE": str(cache), "PYTHONPATH": path}
    command = [sys.executable, str(WORKER), str(first), str(last), str(folder), str(mini)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=folder)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    if len(told) < last - first:
        told.append({"number": first + len(told), "fault": f"crashed with {done.returncode}: {done.stderr[-1500:]}"})
    return told


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, INPUTS, AT_A_TIME))
def test_bad_input_ends_in_one_line_and_leaves_nothing(first, mini, tmp_path):
    told = tried(first, first + AT_A_TIME, tmp_path, mini, tmp_path / "cache")
    faults = [one for one in told if "fault" in one]
    assert not faults, json.dumps(faults, indent=2)
    assert len(told) == AT_A_TIME


@pytest.mark.ci
def test_one_bad_input_of_each_kind_ends_in_one_line(mini, tmp_path, monkeypatch):
    """In this process, without the images of reports, so that the generator itself stays alive."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAGUAR_KIT_CACHE", str(tmp_path / "cache"))
    dot = Image.new("RGB", (1, 1))
    monkeypatch.setattr(jaguar_kit.Page, "figure", lambda page, name, _, caption: page.image(name, dot, caption))
    monkeypatch.setattr(report_room, "map_figure", lambda *_: None)
    jaguar_kit.run_recipe(jaguar_kit.recipe_from_dict(fuzz.TINY), data=mini, out=tmp_path / "finished")
    for number in [0, 1, *map(fuzz.KINDS.index, dict.fromkeys(fuzz.KINDS[2:]))]:
        place = tmp_path / str(number)
        place.mkdir(exist_ok=True)
        told = fuzz.fault_of(number, place, mini, tmp_path / "finished")
        assert "fault" not in told, json.dumps(told, indent=2)
