"""The smallest recipe that trains; tests lay upon it what they vary."""

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
