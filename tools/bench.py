"""Measures the kit against other ways to do the same: python tools/bench.py retrieval (--help lists the commands).

Each command is a module of tools/benches, whose docstring says what it measures, how, and beside what. What several of
them use is in measuring.py, samples.py and trainers.py there. `pip install -e '.[bench]'` installs the peers.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

BENCHES = {  # and what each measures
    "retrieval": "mAP, re-ranking, query expansion, submission: checked, then timed",
    "augment": "images a second through each policy, beside torchvision v2",
    "train": "head epochs on cached features, and a whole grid",
    "engines": "the same 30 short runs by a loop, by processes, by Dask and in parts",
    "optimizers": "lbe08 by its source's text and by its code, on synthetic features",
    "final": "training steps of the final recipe on a GPU, beside plain fp32",
    "evidence": "matching spots, posterior and fusion: seconds and memory",
    "gpu": "what only a GPU can tell, within eight minutes, beside its targets",
    "season": "three weeks of photographs, with decisions in between",
    "review": "key presses a photograph on the page to review, and how fluid it is",
    "strangers": "how honest identify is at any share of strangers",
    "learned": "whether what is learned on a catalogue names more photographs",
    "catalogue": "identify with a large catalogue: seconds and memory",
    "scale": "how seconds and memory grow with the number of images",
    "data": "warm reads and cold decoding of images",
}

# The rooms beside this file, as `jaguar_kit.room` opens them, but without the kit: each process that `retrieval` starts
# runs this file before it measures, and loads no more than what it measures.
ROOMS = "jaguar_kit_tools"
if ROOMS not in sys.modules:
    sys.modules[ROOMS] = ModuleType(ROOMS)
    sys.modules[ROOMS].__path__ = [str(Path(__file__).resolve().parent)]


def parse(argv: list[str]) -> argparse.Namespace:
    """The options of a command, and as `run` what measures; no other command's module is loaded."""
    parser = argparse.ArgumentParser(prog="bench.py", description="Measures the kit against other ways to do the same.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in BENCHES.items():
        command = commands.add_parser(name, help=what)
        if argv[:1] == [name]:
            if find_spec("jaguar_kit") is None:
                parser.error("jaguar_kit is not installed (expected: pip install -e . in the project's folder)")
            bench = import_module(f"{ROOMS}.benches.{name}")
            bench.add_options(command)
            command.set_defaults(run=bench.run)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if argv is None else argv)
    from jaguar_kit import KitError

    try:
        options.run(options)
    except KitError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
