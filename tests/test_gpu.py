"""What needs a GPU: `pytest -m gpu`, where there is one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import jaguar_kit
import numpy as np
import pytest
import torch
from jaguar_kit import recipe_from_dict, run_recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

LEARNING = {
    "name": "gpu",
    "data": {"size": 64},
    "augment": ["flip", "affine", "erasing"],
    "model": {"backbone": "test_resnet", "pretrained": False, "input_size": 64, "freeze": False},
    "loss": {"name": "arcface", "margin": 0.2, "scale": 16},
    "train": {"epochs": 4, "batch_size": 16, "lr": 2e-3, "patience": 0},
}


def learning(**changes):
    return recipe_from_dict(jaguar_kit.merge_recipe(LEARNING, changes))


def precisions():
    bf16 = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
    return ["fp32", "fp16", *(["bf16"] if bf16 else [])]


@pytest.mark.parametrize("precision", precisions())
def test_every_precision_learns(precision, mini, tmp_path):
    result = run_recipe(learning(train={"precision": precision, "epochs": 8}), data=mini, out=tmp_path, device="cuda")
    (row,) = result.table.itertuples()
    assert row.map > row.untrained
    log = jaguar_kit.RunFolder(result.folder / "default" / "seed42").log()
    assert log.train_loss.iloc[-1] < log.train_loss.iloc[1]


def test_precisions_agree_on_features(mini):
    images = torch.rand(32, 3, 64, 64, device="cuda")
    torch.manual_seed(0)
    embedder = jaguar_kit.build_embedder(learning().model).to("cuda").eval()
    with torch.no_grad():
        exact = embedder(images)
        for precision in (torch.float16, torch.bfloat16):
            rough = jaguar_kit.in_precision(embedder, precision)(images)
            cosine = torch.nn.functional.cosine_similarity(exact, rough.float())
            assert cosine.min() > 0.98


def test_a_killed_run_goes_on_from_its_checkpoint(mini, tmp_path, write_recipe):
    raw = jaguar_kit.merge_recipe(LEARNING, {"train": {"epochs": 40, "checkpoint_minutes": 0}})
    command = [sys.executable, jaguar_kit.__file__, "run", str(write_recipe(raw)), "--data", str(mini)]
    command += ["--out", str(tmp_path / "runs"), "--device", "cuda", "--gpus", "1"]
    begun = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline, kept = (
        time.monotonic() + 60,
        tmp_path / "runs" / f"gpu@{mini.name}" / "default" / "seed42" / "checkpoint.safetensors",
    )
    while not kept.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "going on after epoch" in told
    (metrics,) = (tmp_path / "runs").rglob("metrics.json")
    assert json.loads(metrics.read_text())["epochs"] == 40


def test_out_of_memory_is_met_by_smaller_parts(mini, tmp_path, capsys):
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction(min(1.0, 0.7e9 / whole))
        recipe = learning(
            data={"size": 320},
            model={"backbone": "resnet18", "input_size": 320},
            train={"epochs": 1, "batch_size": 32, "precision": "fp32"},
        )
        result = run_recipe(recipe, data=mini, out=tmp_path, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert "out of memory" in capsys.readouterr().out
    assert result.table["map"].notna().all()


def test_a_compiled_backbone_gives_what_a_plain_one_gives():
    torch.manual_seed(0)
    embedder = jaguar_kit.build_embedder({"backbone": "vit_tiny_patch16_224", "pretrained": False}).to("cuda").eval()
    images = torch.rand(8, 3, 224, 224, device="cuda")
    with torch.no_grad():
        plain = embedder(images)
        jaguar_kit.compile_backbone(embedder.backbone)
        torch.testing.assert_close(embedder(images), plain, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("identities", [3, 40, 400])
@pytest.mark.parametrize("decimals", [1, 8])
def test_metrics_are_those_of_the_cpu(identities, decimals):
    rng = np.random.default_rng(identities)
    labels = rng.integers(0, identities, 800)
    similarity = np.round(rng.uniform(-1, 1, (800, 800)), decimals).astype(np.float32)
    here = jaguar_kit.retrieval_metrics(similarity, labels)
    there = jaguar_kit.retrieval_metrics(torch.from_numpy(similarity).cuda(), labels)
    assert there["per_identity"] == pytest.approx(here.pop("per_identity"), abs=1e-12)
    assert {key: there[key] for key in here} == pytest.approx(here, abs=1e-12, nan_ok=True)


def test_reranking_and_search_are_those_of_the_cpu():
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((500, 32)).astype(np.float32)
    there = torch.from_numpy(embeddings).cuda()
    one, other = jaguar_kit.k_reciprocal_rerank(embeddings), jaguar_kit.k_reciprocal_rerank(there).cpu().numpy()
    np.testing.assert_allclose(one, other, atol=1e-4)
    for here, found in zip(jaguar_kit.top_k(embeddings, embeddings, 5), jaguar_kit.top_k(there, there, 5)):
        np.testing.assert_allclose(here, found.cpu().numpy(), atol=1e-5)
