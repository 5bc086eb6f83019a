"""Trains recipes/final.yaml on Kaggle, offline, and leaves submission.csv and report.html in the working folder."""

import sys
from pathlib import Path

mounts = ("*", "*/*", "datasets/*/*")  # /kaggle/input/<slug>, or /kaggle/input/datasets/<owner>/<slug>
kits = sorted(kit for mount in mounts for kit in Path("/kaggle/input").glob(f"{mount}/jaguar_kit.py"))
if not kits:
    sys.exit("error: no jaguar_kit.py under /kaggle/input; attach the dataset that tools/package.py built")
sys.path.insert(0, str(kits[0].parent))

import jaguar_kit  # noqa: E402

sys.exit(jaguar_kit.main(jaguar_kit.kernel_command, ["final"]))
