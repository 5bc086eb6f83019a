"""The packaged kit, and the kernel as Kaggle runs it: offline, on read-only mounts, from its code file alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import jaguar_kit
from jaguar_kit import KitError, package_kit

ROOT = Path(jaguar_kit.__file__).parent
KERNELS = sorted(p.parent for p in (ROOT / "kernels").glob("*/kernel-metadata.json"))

# a root of its own with the machine's folders, a read-only /kaggle/input and no network interface
SESSION = """
set -e
mount -t tmpfs tmpfs "$1/root"
for folder in /*; do
    name=$(basename "$folder")
    if [ "$name" = kaggle ]; then continue
    elif [ -L "$folder" ]; then cp -a "$folder" "$1/root/$name"
    elif [ -d "$folder" ]; then mkdir "$1/root/$name"; mount --rbind "$folder" "$1/root/$name"; fi
done
mkdir -p "$1/root/kaggle/input" "$1/root/kaggle/working"
mount --bind "$1/input" "$1/root/kaggle/input"
mount -o remount,bind,ro "$1/root/kaggle/input"
mount --bind "$1/working" "$1/root/kaggle/working"
exec chroot "$1/root" "$2" -c 'import os, runpy, sys; os.chdir("/kaggle/working"); runpy.run_path(sys.argv[1])' "$3"
"""


def can_isolate() -> bool:
    try:
        return subprocess.run(["unshare", "-rmn", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def kaggle_session(place: Path, code_file: Path) -> subprocess.CompletedProcess:
    """Runs the code file, alone in a folder, with place/input mounted and place/working to write to."""
    for name in ("root", "working", "src"):
        (place / name).mkdir()
    alone = shutil.copy(code_file, place / "src")
    (place / "session.sh").write_text(SESSION)
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", jaguar_kit.CACHE_VARIABLE)}
    settings = {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "JAGUAR_KIT_SMOKE": "1", "TMPDIR": str(place / "working")}
    command = ["unshare", "-rmn", "bash", place / "session.sh", place, sys.executable, alone]
    return subprocess.run(command, env={**kept, **settings}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    weights = tmp_path_factory.mktemp("weights") / "some_backbone.safetensors"
    save_file({"weight": torch.zeros(3)}, weights)
    return package_kit(tmp_path_factory.mktemp("dist") / "jaguar-kit", "a-user", [weights])


def test_package_lists_every_file_with_its_hash(package):
    manifest = json.loads((package / "manifest.json").read_text())
    metadata = json.loads((package / "dataset-metadata.json").read_text())
    assert set(manifest["files"]) == {p.name for p in package.iterdir()} - {"manifest.json", "dataset-metadata.json"}
    assert {"jaguar_kit.py", "final.yaml", "some_backbone.safetensors"} <= set(manifest["files"])
    assert metadata["id"] == "a-user/jaguar-kit"
    assert 6 <= len(metadata["title"]) <= 50
    assert len(metadata["licenses"]) == 1
    assert all(p.is_file() for p in package.iterdir())  # the client drops folders
    jaguar_kit.check_manifest(package)


def test_package_refuses_pickled_and_damaged_weights(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    for name, words in (("model.pth", "only safetensors"), ("cut.safetensors", "not a complete safetensors")):
        with pytest.raises(KitError, match=words):
            package_kit(tmp_path / "out", "a-user", [tmp_path / name])
    assert not (tmp_path / "out").exists()


def test_package_replaces_an_earlier_one_and_nothing_else(tmp_path):
    first = package_kit(tmp_path / "out", "a-user")
    assert package_kit(tmp_path / "out", "b-user") == first
    assert json.loads((first / "dataset-metadata.json").read_text())["id"] == "b-user/jaguar-kit"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(KitError, match="something other"):
        package_kit(tmp_path / "mine", "a-user")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_damaged_package_is_named(package, tmp_path):
    copy = Path(shutil.copytree(package, tmp_path / "kit"))
    with open(copy / "some_backbone.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(KitError, match=r"some_backbone\.safetensors: differs"):
        jaguar_kit.check_manifest(copy)
    (copy / "some_backbone.safetensors").unlink()
    with pytest.raises(KitError, match=r"some_backbone\.safetensors: is missing"):
        jaguar_kit.check_manifest(copy)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda p: p.name)
def test_kernel_metadata_is_what_kaggle_takes(kernel):
    metadata = json.loads((kernel / "kernel-metadata.json").read_text())
    owner, slug = metadata["id"].split("/")
    assert len(slug) >= 5
    assert metadata["title"].lower().replace(" ", "-") == slug  # or Kaggle makes another kernel
    assert (kernel / metadata["code_file"]).is_file()
    assert metadata["enable_internet"] is False
    assert metadata["enable_gpu"] is True
    assert metadata["machine_shape"] == "NvidiaTeslaT4"
    assert metadata["dataset_sources"] == [f"{owner}/jaguar-kit"]
    assert metadata["competition_sources"] == ["jaguar-re-id"]


@pytest.mark.skipif(not can_isolate(), reason="needs user, mount and network namespaces (unshare -rmn)")
@pytest.mark.parametrize(
    ("kit", "data"),
    [("jaguar-kit", "jaguar-re-id"), ("datasets/a-user/jaguar-kit", "competitions/jaguar-re-id")],
    ids=["flat mounts", "nested mounts"],
)
def test_kernel_runs_offline_and_ends_with_a_valid_submission(kit, data, package, mini, tmp_path):
    shutil.copytree(package, tmp_path / "input" / kit)
    shutil.copytree(mini, tmp_path / "input" / data)
    (tmp_path / "input" / data / "solution.csv").unlink()
    done = kaggle_session(tmp_path, ROOT / "kernels" / "final" / "final.py")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = jaguar_kit.validate_submission(tmp_path / "working" / "submission.csv", mini / "test.csv")["rows"]
    assert rows == len(jaguar_kit.load_pairs(mini / "test.csv"))
    assert "<html" in (tmp_path / "working" / "report.html").read_text()
    assert f"/kaggle/input/{data}" in done.stdout


@pytest.mark.skipif(not can_isolate(), reason="needs user, mount and network namespaces (unshare -rmn)")
def test_kernel_without_its_kit_says_so(tmp_path):
    (tmp_path / "input").mkdir()
    done = kaggle_session(tmp_path, ROOT / "kernels" / "final" / "final.py")
    assert done.returncode == 1
    assert "attach the dataset" in done.stderr
