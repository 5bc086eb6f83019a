"""What `python -m jaguar_kit COMMAND` does beside running a recipe: each command in its room."""

from __future__ import annotations

from collections.abc import Sequence

from jaguar_kit import KitError, echo, room, suggest

ROOM_OF_COMMAND = {  # and what it does
    "list": ("experiments.reference", "[KIND ...]: everything that a recipe can name"),
    "sheet": ("experiments.reference", "RECIPE [--data DIR] [--out sheet.png]: what background and augmentation do"),
    "identify": ("identify.identify", "--backbone NAME --catalogue DIR --queries DIR --out DIR: who is on these"),
    "report": (
        "experiments.comparison",
        "FOLDER [FOLDER ...] [--look NAME ...]: a report again, or a comparison",
    ),
    "fetch": ("on_kaggle.weights", "NAME ... [--out weights]: backbones as safetensors"),
    "package": ("on_kaggle.package", "--user NAME [--weights FILE ...] [--create | --update]: the Kaggle Dataset"),
    "kernels": ("on_kaggle.kernels", "[--user NAME] [--competition SLUG] | --check: a Kaggle kernel for every recipe"),
    "push": ("on_kaggle.run", "kernels/X [--wait] [--fetch DIR] [--submit -m MESSAGE]: from push to submission"),
}


def call(name: str, argv: Sequence[str]) -> int:
    """Calls the command of this name; "" and --help tell all of them."""
    if name in ("", "-h", "--help"):
        said = {"run": "RECIPE [--data DIR] [--out DIR] ...: trains, validates, writes submission and report"}
        said |= {command: what for command, (_, what) in ROOM_OF_COMMAND.items()}
        echo("python -m jaguar_kit COMMAND ...\n" + "\n".join(f"  {known:<10}{what}" for known, what in said.items()))
        return 0
    if name not in ROOM_OF_COMMAND:
        raise KitError(f"jaguar_kit: there is no command {name!r}; {suggest(name, ('run', *ROOM_OF_COMMAND))}")
    return getattr(room(ROOM_OF_COMMAND[name][0], name), f"{name}_command")(argv)
