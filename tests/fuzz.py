"""Bad input by the hundred: numbered, drawn from a fixed seed, each tried as a command in a folder of its own.

python tests/fuzz.py FIRST LAST FOLDER DATA tries the inputs from FIRST to before LAST, with a mini-dataset at DATA, and
prints a JSON line for each: what was wrong with how it ended, or nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import io
import json
import math
import random
import shutil
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import jaguar_kit
import numpy as np
import pandas as pd
import tiny
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

TINY = {**tiny.TINY, "loss": tiny.ARCFACE}
LONGEST = 60  # seconds that one input may take
VALUES = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3,
        0.5,
        -0.5,
        1e-300,
        1e300,
        2**31,
        2**63,
        10**400,
        math.nan,
        math.inf,
        -math.inf,
    ),
    *(
        "",
        " ",
        "x",
        "null",
        "1e3",
        "../..",
        "/",
        "/dev/null",
        "\0",
        "🐆",
        "x" * 5000,
        "a\nb",
        "{}",
        "-1",
        "\ud800",
        "%s",
    ),
    *(
        [],
        [None],
        [[]],
        [1, 2],
        [2, 1],
        [0.1, 0.2, 0.3],
        ["flip"],
        {},
        {"name": None},
        {"name": "x"},
        {"name": "flip", "p": 9},
    ),
    *({"a": 1}, {"name": ["x"]}, datetime.date(2024, 1, 1), b"bytes", {"x": {"y": {"z": []}}}),
]


class Input:
    """One input: the command to run, where results may lie, and whether those were there before."""

    def __init__(self, number: int, folder: Path, data: Path, finished: Path):
        self.rng = random.Random(number)
        self.folder, self.data, self.finished = folder, data, finished
        self.recipe = json.loads(json.dumps(TINY))
        self.out = folder / "out"
        self.options: list[str] = []

    def own_data(self) -> Path:
        self.data = Path(shutil.copytree(self.data, self.folder / "data"))
        return self.data

    def own_results(self) -> Path:
        shutil.copytree(self.finished, self.out)
        (folder,) = self.out.iterdir()
        return folder.rename(folder.with_name(f"tiny@{self.data.name}"))

    def spoil(self, path: Path) -> None:
        """Cuts, empties, garbles or edits a file at random places."""
        content, rng = bytearray(path.read_bytes()), self.rng
        how = rng.choice(["cut", "empty", "bytes", "flip", "double", "delete", "text", "json"])
        if how == "delete":
            path.unlink()
            return
        if how == "cut":
            content = content[: rng.randrange(len(content) + 1)]
        elif how == "empty":
            content = bytearray()
        elif how == "bytes":
            content = bytearray(rng.randbytes(rng.choice([1, 10, 1000])))
        elif how == "double":
            content = content + content
        elif how in ("text", "json"):
            content = bytearray(
                rng.choice([b"null", b"[]", b'{"a": 1}', b"0", b"name: x\n", b"a,b\n1,2\n", b"\xff\xfe"])
            )
        for _ in range(rng.choice([1, 3, 20]) if how == "flip" and content else 0):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)

    def write_recipe(self) -> Path:
        path = self.folder / "tiny.yaml"
        if not path.exists():
            try:
                text = yaml.safe_dump(self.recipe, sort_keys=False, allow_unicode=True)
                path.write_text(text, encoding="utf-8", errors="replace")
            except yaml.YAMLError:
                path.write_text(repr(self.recipe), encoding="utf-8", errors="replace")
        return path

    def command(self) -> list[str]:
        arguments = ["run", str(self.write_recipe()), "--data", str(self.data), "--out", str(self.out), "--jobs", "1"]
        return [*arguments, *self.options]


# kinds of input


def a_value(one: Input) -> None:
    """A setting of any kind with a value of any kind, sometimes in a variant, a grid or an override."""
    plain = jaguar_kit.recipe_to_dict(jaguar_kit.recipe_from_dict(one.recipe))
    places: list[tuple[str, ...]] = []

    def walk(value: object, place: tuple[str, ...]) -> None:
        places.append(place)
        for key, inner in value.items() if isinstance(value, dict) else ():
            walk(inner, (*place, key))

    walk(plain, ())
    for _ in range(one.rng.choice([1, 1, 1, 2, 4])):
        place, value = one.rng.choice(places[1:]), one.rng.choice(VALUES)
        change = jaguar_kit.nested(".".join(place), value)
        where = one.rng.choice(["base", "base", "base", "variant", "grid", "option", "search"])
        if where == "variant":
            change = {"variants": {one.rng.choice(["a", "b", "", "x/y", 3]): change}}
        elif where == "grid":
            change = {"grid": {".".join(place): [value, one.rng.choice(VALUES)]}}
        elif where == "search":
            rule = {"low": value, "high": one.rng.choice(VALUES)} if one.rng.random() < 0.5 else {"choices": [value]}
            change = {"search": {"trials": 1, "space": {".".join(place): rule}}}
        elif where == "option":
            one.options += ["-o", f"{'.'.join(place)}={value}".replace("\0", "")]
            continue
        with contextlib.suppress(TypeError, AttributeError):
            one.recipe = jaguar_kit.merge_settings(one.recipe, change)


def a_text(one: Input) -> None:
    """A recipe whose text is spoiled, or is none."""
    path, rng = one.write_recipe(), one.rng
    text = path.read_text()
    choices = [
        lambda: one.spoil(path) or path.exists() or path.mkdir(),
        lambda: path.write_text(
            text + rng.choice(["\n\tx: 1", "\n- a", "\n? [x]", "\n<<: 3", "\n!!python/object:os.system x"])
        ),
        lambda: path.write_text(text.replace(":", rng.choice(["", "::", " ", ":\t", ": &a *a"]), rng.randrange(1, 9))),
        lambda: path.write_text(
            "".join(rng.choice("{}[]:,&*#?|-<>=!%@\\\"' \n\tax1") for _ in range(rng.randrange(300)))
        ),
        lambda: path.write_text(f"base: {rng.choice(['tiny.yaml', 'nowhere.yaml', '/', '[]', '.', '3'])}\n" + text),
    ]
    rng.choice(choices)()


def a_table(one: Input) -> None:
    """A table whose bytes, cells, columns or rows are spoiled."""
    data, rng = one.own_data(), one.rng
    path = data / rng.choice(["train.csv", "test.csv", "views.csv", "solution.csv"])
    how = rng.choice(["bytes", "cell", "column", "rows", "encoding", "twice", "quotes", "header"])
    if how == "bytes":
        one.spoil(path)
        return
    table = pd.read_csv(path, dtype=str)
    row, column = rng.randrange(len(table)), rng.choice(list(table))
    if how == "cell":
        table.loc[row, column] = rng.choice(
            [str(v) for v in VALUES if not isinstance(v, bytes) and "\ud800" not in str(v)]
        )
    elif how == "column":
        table = (
            table.drop(columns=column)
            if rng.random() < 0.5
            else table.rename(columns={column: rng.choice(["", "x", "path"])})
        )
    elif how == "rows":
        table = table.iloc[: rng.choice([0, 1, 2])]
    elif how == "twice":
        table = pd.concat([table, table.iloc[[row]]])
    table.to_csv(
        path, index=False, quoting=1 if how == "quotes" else 0, encoding="utf-16" if how == "encoding" else "utf-8"
    )
    if how == "header":
        path.write_text(path.read_text().partition("\n")[2])


def image_writers(rng: random.Random) -> list[Callable[[Path], object]]:
    pixels = np.random.default_rng(rng.randrange(99)).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    header = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 100_000, 100_000, 8, 2, 0, 0, 0) + b"\0\0\0\0"
    )
    return [
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(rng.randbytes(500)),
        lambda p: p.write_bytes(header),
        lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
        lambda p: image.resize((1, 1)).save(p, "PNG"),
        lambda p: image.resize((1, 900)).save(p, "PNG"),
        lambda p: image.convert("CMYK").save(p, "JPEG"),
        lambda p: image.convert("P").save(p, "GIF", save_all=True, append_images=[image.convert("P")]),
        lambda p: image.convert("1").save(p, "PNG"),
        lambda p: image.convert("LA").save(p, "PNG"),
        lambda p: Image.fromarray(pixels[..., 0].astype(np.uint16) * rng.choice([1, 16, 257])).save(p, "PNG"),
        lambda p: Image.fromarray(np.where(pixels[..., 0] > 250, np.nan, pixels[..., 0] / 255).astype(np.float32)).save(
            p, "TIFF"
        ),
        lambda p: image.save(p, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + rng.randbytes(60)),
        lambda p: p.mkdir(),
        lambda p: p.symlink_to("nowhere.png"),
        lambda p: p.symlink_to(p.name),
    ]


def a_image(one: Input) -> None:
    """Images that are cut, of odd kinds, or no files."""
    data, rng = one.own_data(), one.rng
    for path in rng.sample(sorted((data / rng.choice(["train/train", "test/test"])).iterdir()), rng.choice([1, 2, 5])):
        if rng.random() < 0.3:
            one.spoil(path)
        else:
            path.unlink()
            rng.choice(image_writers(rng))(path)
    one.recipe["data"]["bad_images"] = rng.choice(["stop", "skip"])


def some_weights(one: Input) -> None:
    """Weights of a backbone, or of a run, that are not what they should be."""
    rng = one.rng
    path = one.folder / rng.choice(
        ["x.safetensors", "x.safetensors", "x.pth", "test_resnet.safetensors", "model.safetensors"]
    )
    backbone = jaguar_kit.create_backbone("test_resnet")
    tensors = {key: value.clone() for key, value in backbone.state_dict().items()}
    prefix = rng.choice(["", "", "module.", "odd.", "backbone.", "embedder.backbone."])
    tensors = {prefix + key: value for key, value in tensors.items() if rng.random() > rng.choice([0, 0, 0.1])}
    kind = rng.choice([torch.float32, torch.float32, torch.int8, torch.float16, torch.bfloat16, torch.float64])
    metadata = rng.choice(
        [None, {"config": "{"}, {"config": "[1]"}, {"config": '{"mean": 3}'}, {"architecture": "resnet50"}]
    )
    save_file({key: value.to(kind) for key, value in tensors.items()}, path, metadata)
    if rng.random() < 0.4:
        one.spoil(path)
    target = path if rng.random() < 0.7 else one.folder
    if rng.random() < 0.6:
        one.recipe["model"].update(weights=str(target), pretrained=True)
    else:
        one.recipe.update(checkpoint=str(target), train={"epochs": 0, "batch_size": 16})


def a_result(one: Input) -> None:
    """A finished experiment, or one that failed or was interrupted, whose own files are spoiled."""
    folder, rng = one.own_results(), one.rng
    place = folder / "default" / "seed42"
    state = rng.choice(["finished", "finished", "failed", "interrupted"])
    if state != "finished":
        (place / "metrics.json").unlink()
    if state == "failed":
        (place / "failed.json").write_text('{"reason": "the loss"}')
    if state == "interrupted":
        shutil.copy(place / "weights.safetensors", place / "checkpoint.safetensors")
    files = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in (".png", ".html", ".md")
    ]
    for path in rng.sample(files, rng.choice([1, 1, 2])):
        one.spoil(path)
    if rng.random() < 0.3:
        one.options.append("--force")


def a_cache(one: Input) -> None:
    """Decoded images and features that are spoiled between two runs."""
    files = [path for path in sorted(jaguar_kit.cache_dir().rglob("*")) if path.is_file() and "mini" not in path.parts]
    for path in one.rng.sample(files, min(len(files), 2)):
        one.spoil(path)
    jaguar_kit.CHECKED.clear()
    jaguar_kit.checksums_of.cache_clear()


def a_line(one: Input) -> None:
    """Options and commands of any kind."""
    rng = one.rng
    words = [
        "--jobs",
        "--gpus",
        "--device",
        "--out",
        "--data",
        "-o",
        "--smoke",
        "--force",
        "--nothing",
        "x",
        "=",
        "-o=",
        "--",
    ]
    values = [
        "0",
        "-1",
        "x",
        "",
        "cpu",
        "cuda",
        "/dev/null",
        "a.b=1",
        "train.lr=x",
        "=",
        "\udce9",
        "x" * 400,
        "🐆",
        str(one.out),
    ]
    one.options += [rng.choice(words if rng.random() < 0.6 else values) for _ in range(rng.randrange(1, 4))]


def another_command(one: Input) -> None:
    """Commands beside `run`, with files that are none of theirs."""
    rng = one.rng
    things = [
        str(one.write_recipe()),
        str(one.data),
        str(one.data / "train.csv"),
        str(one.folder),
        "nowhere",
        "",
        str(one.finished),
    ]
    name = rng.choice(["sheet", "report", "identify", "list", "kernels", "package", "nonsense"])
    arguments = {
        "sheet": [rng.choice(things), "--data", rng.choice(things), "--out", str(one.out / "x.png")],
        "report": rng.sample(things, rng.choice([1, 2])) + rng.choice([[], ["--out", str(one.out)]]),
        "identify": [w for o in ("--weights", "--catalogue", "--queries") for w in (o, rng.choice(things))]
        + ["--out", str(one.out)],
        "list": [rng.choice(["loss", "losses", "", "backbone"])],
        "kernels": ["--check", "--kernels", rng.choice(things), "--recipes", rng.choice(things)],
        "package": ["--user", rng.choice(["me", "", "a/b"]), "--weights", rng.choice(things), "--out", str(one.out)],
        "nonsense": things[:2],
    }[name]
    one.command = lambda: [name, *arguments]


KINDS = [a_value] * 9 + [a_text] * 3 + [a_table] * 5 + [a_image] * 4 + [some_weights] * 3 + [a_result] * 5 + [a_cache]
KINDS += [a_line] * 2 + [another_command] * 3


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fault_of(number: int, folder: Path, data: Path, finished: Path) -> dict[str, str]:
    """Tries an input; what was wrong with how it ended, {} where nothing was."""
    one, said, code = Input(number, folder, data, finished), io.StringIO(), None
    kind = KINDS[number % len(KINDS)]
    kind(one)
    command, begun = one.command(), time.monotonic()
    before, there = contents(one.out), one.out.exists()
    told = {"kind": kind.__name__, "command": " ".join(command)[:600], "recipe": str(one.recipe)[:600]}

    def too_long(*_: object) -> None:
        raise TimeoutError(f"took {LONGEST} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = jaguar_kit.main(argv=command)
    except SystemExit as error:  # argparse tells its usage too
        code = error.code
        return {} if code in (0, 2) else {**told, "fault": f"ended with {code}"}
    except BaseException:  # noqa: BLE001 - whatever it is, it is the fault that is looked for
        return {**told, "fault": traceback.format_exc()[-1500:]}
    finally:
        signal.alarm(0)
    errors = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    if code not in (0, 1, 2):
        return {**told, "fault": f"ended with {code}"}
    if code and (len(errors) != 1 or len(errors[0]) > 2000) and not (code == 1 and (one.out.exists() or not errors)):
        return {**told, "fault": f"{code}, but said {said.getvalue()[:600]!r}"}
    after = contents(one.out)
    healed = {
        path for path in {*before, *after} if there and Path(path).name == "experiment.json"
    }  # a run writes it first
    differing = {path for path in {*before, *after} - healed if before.get(path) != after.get(path)}
    if code == 2 and (differing or one.out.exists() != there):
        return {**told, "fault": f"left behind {sorted(differing)[:5] or 'an empty folder'} ({errors[0][:200]})"}
    return {**told, "seconds": str(time.monotonic() - begun)} if time.monotonic() - begun > LONGEST else {}


def main() -> None:
    faulthandler.enable()
    first, last, folder, data = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    finished = folder / "finished"
    if not finished.is_dir():
        recipe = jaguar_kit.recipe_from_dict(TINY)
        with contextlib.redirect_stdout(io.StringIO()):
            jaguar_kit.run_recipe(recipe, data=data, out=finished)
    for number in range(first, last):
        place = folder / str(number)
        place.mkdir()
        print(json.dumps({"number": number, **fault_of(number, place, data, finished)}), flush=True)
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
