"""The smallest recipe that trains; tests lay upon it what they vary."""

import jaguar_kit

SMALLER = ("data.mini.images=120", "data.size=32", "model.input_size=32", "train.batch_size=32")


def smaller(recipe):
    """A smoke run on fewer images than the command's, and for one epoch."""
    for text in (*SMALLER, *(["train.epochs=1"] if recipe.train.epochs else [])):
        recipe = jaguar_kit.override(recipe, text, recipe.name)
    return recipe


TINY = {
    "name": "tiny",
    "data": {"size": 32},
    "model": {
        "backbone": "test_resnet",
        "pretrained": False,
        "input_size": 32,
        "head": {"name": "linear", "output": 8},
    },
    "train": {"epochs": 1, "batch_size": 16},
}
ARCFACE = {"name": "arcface", "margin": 0.2, "scale": 16}
