"""Notebooks with what they show: run here, from the first cell to the last, and kept with their outputs."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from jaguar_kit import KitError, cache_dir, echo, write_text
from PIL import Image

KEPT = ("text/html", "image/png", "text/plain")  # what a page shows of a value, the best first
QUALITY = 70  # of pictures that are no smaller as PNG


def run_notebook(path: Path) -> None:
    """Runs all cells in an empty folder and writes the notebook with what they showed.

    Paths of this machine do not travel: the cache and the home folder are written as `~`. KitError where a cell fails.
    """
    try:
        from IPython.core.interactiveshell import InteractiveShell
    except ImportError:
        raise KitError("--show: needs IPython (pip install ipython)") from None
    notebook = json.loads(path.read_text(encoding="utf-8"))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.displayhook.write_format_data = lambda *_: None  # what a cell ends with is kept, not printed
    shell.displayhook.write_output_prompt = lambda: None
    with tempfile.TemporaryDirectory() as folder, working_in(Path(folder)):
        for number, cell in enumerate((c for c in notebook["cells"] if c["cell_type"] == "code"), 1):
            said = io.StringIO()
            with redirect_stdout(said):
                done = shell.run_cell("".join(cell["source"]))
            if not done.success:
                raise KitError(f"{path}: cell {number}: {type(done.error_in_exec or done.error_before_exec).__name__}")
            cell["execution_count"] = number
            cell["outputs"] = list(outputs_of(shell, number, said.getvalue(), done.result))
    write_text(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    echo(f"  ran {path}: {path.stat().st_size / 1e3:.0f} kB with what it shows")


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before, found = Path.cwd(), list(sys.path)
    os.chdir(folder)
    sys.path.append(str(before))  # where the kit lies
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = found


def outputs_of(shell: Any, number: int, said: str, value: Any) -> Iterator[dict[str, Any]]:
    """What a cell printed, and what it ends with, as a notebook keeps them."""
    if said:
        yield {"output_type": "stream", "name": "stdout", "text": at_home(said).splitlines(keepends=True)}
    if value is None:
        return
    formats, _ = shell.display_formatter.format(value)
    data = {kind: formats[kind] for kind in KEPT if kind in formats}
    if "image/png" in data:
        data = smaller(data["image/png"]) | {"text/plain": f"a picture of {value.width} x {value.height} pixels"}
    data = {kind: at_home(text).splitlines(keepends=True) if "text" in kind else text for kind, text in data.items()}
    yield {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}


def smaller(png: bytes | str) -> dict[str, str]:
    """A picture as PNG or JPEG, whichever is smaller, in base64."""
    content = png if isinstance(png, bytes) else base64.b64decode(png)
    made = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").save(made, "JPEG", quality=QUALITY, optimize=True)
    kind, content = ("image/png", content) if len(content) < made.tell() else ("image/jpeg", made.getvalue())
    return {kind: base64.b64encode(content).decode()}


def at_home(text: str) -> str:
    for place, shown in ((cache_dir().resolve(), "~/.cache/jaguar_kit"), (Path.home(), "~")):
        text = text.replace(str(place), shown)
    return text
