"""Batches that go through the backbone in parts: the loss is the whole batch's, and nothing happens twice."""

import jaguar_kit
import numpy as np
import pytest
import torch
from jaguar_kit import recipe_from_dict
from torch import nn

LABELS = torch.arange(12) // 3  # four identities with three images each, as the pk sampler gives them
LOSSES = [
    "triplet",
    {"name": "triplet", "mining": "semi_hard"},
    "circle",
    "supcon",
    "proxy_anchor",
    "arcface",
    "adaface",
]
LOSSES += ["cross_entropy_triplet", {"name": "arcface", "beta": 0.99}]


def run_of(loss="triplet", backbone="test_vit", dtype=torch.float32, **settings):
    """A trainer of a whole network, and a task whose only batch are twelve images sorted by identity."""
    recipe = recipe_from_dict(
        {
            "name": "parts",
            "data": {"size": 32},
            "model": {
                "backbone": backbone,
                "pretrained": False,
                "input_size": 32,
                "freeze": False,
                "head": {"name": "mlp", "layers": 2, "hidden": 16, "output": 8, "dropout": 0.0},
                **settings.pop("model", {}),
            },
            "loss": loss,
            "train": {"batch_size": 12, "optimizer": "sgd", "lr": 0.05, "schedule": "none", **settings},
        }
    )
    torch.manual_seed(0)
    embedder = jaguar_kit.build_embedder(recipe.model).to(dtype)
    sizes = {"embedding_dim": 8, "num_identities": 4, "counts": [3, 3, 3, 3]}
    built = recipe.loss.build(**sizes, geometry=embedder.geometry)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    prepare = jaguar_kit.Preparation(recipe.background, (), 32, (0.5,) * 3, (0.5,) * 3)
    source = jaguar_kit.PixelSource(jaguar_kit.ImageStore(pixels, "x"), prepare, torch.device("cpu"))
    task = jaguar_kit.Task(source, source, (source,), LABELS, np.arange(12), np.arange(0))
    trainer = jaguar_kit.Trainer(
        recipe, embedder, built, jaguar_kit.Trainer.make_optimizer(recipe.train, embedder, built), task
    )
    trainer.embedder.train()
    trainer.loss.train()
    return trainer, task


def backward(trainer, task, batches=1):
    rows = np.array_split(np.arange(12), batches)
    group = [(step, own, task.pixels.read(own)) for step, own in enumerate(rows)]
    return trainer.backward_that_fits(task.pixels, group, 1)


def gradients(trainer) -> dict[str, torch.Tensor]:
    named = [*trainer.embedder.named_parameters(), *trainer.loss.named_parameters(prefix="loss")]
    return {name: parameter.grad for name, parameter in named if parameter.grad is not None}


def buffers(trainer) -> dict[str, torch.Tensor]:
    return {name: b.clone() for m in (trainer.embedder, trainer.loss) for name, b in m.named_buffers()}


def assert_same_gradients(parts, whole, about=""):
    one, other = gradients(whole), gradients(parts)
    assert one.keys() == other.keys()
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    assert largest > 1e-4
    for name in one:
        close = {"rtol": 1e-5, "atol": 1e-5 * max(largest, 1)}
        torch.testing.assert_close(other[name], one[name], **close, msg=f"{name}, {about}")


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_parts_have_loss_and_gradients_of_the_whole_batch(loss):
    whole = run_of(loss)
    expected = backward(*whole)
    assert float(expected[0][0]) > 0
    for size in (2, 5, 6):
        parts = run_of(loss, micro_batch=size)
        torch.testing.assert_close(backward(*parts)[0], expected[0], rtol=1e-5, atol=1e-5)
        assert_same_gradients(parts[0], whole[0], f"{size} at a time")


def test_parts_of_several_batches_to_a_step_weigh_as_the_batches_do():
    whole, parts = run_of("supcon", accumulate=2), run_of("supcon", accumulate=2, micro_batch=2)
    torch.testing.assert_close(backward(*parts, batches=2), backward(*whole, batches=2), rtol=1e-5, atol=1e-5)
    assert_same_gradients(parts[0], whole[0])


@pytest.mark.parametrize("pooling", ["gem", "gem_bn"])
def test_a_frozen_backbone_in_parts_teaches_its_pooling_and_head_alike(pooling):
    model = {"freeze": True, "pooling": pooling}
    whole, parts = run_of(model=model), run_of(model=model, micro_batch=4)
    backward(*whole)
    backward(*parts)
    one, other = gradients(whole[0]), gradients(parts[0])
    assert any(name.endswith("log_p") for name in one)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-4, atol=1e-6, msg=name)


def test_batch_norm_and_adaface_see_each_image_once():
    """Statistics after parts: of a backbone those of one pass over its parts, of head and loss those of the whole."""
    trainer, task = run_of("adaface", "test_resnet", micro_batch=6)
    twin, _ = run_of("adaface", "test_resnet")
    with torch.no_grad():
        vectors = [
            twin.embedder.pooled(task.pixels.prepare(task.pixels.read(np.arange(12))[i : i + 6], True)) for i in (0, 6)
        ]
        twin.loss(twin.embedder.from_pooled(torch.cat(vectors)), LABELS)
    backward(trainer, task)
    expected, got = buffers(twin), buffers(trainer)
    assert expected.keys() == got.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_step_that_did_not_fit_the_memory_leaves_no_trace_in_statistics(monkeypatch, capsys):
    fits, task = run_of("adaface", "test_resnet", micro_batch=6)
    backward(fits, task)
    short, _ = run_of("adaface", "test_resnet")
    loss_of, tried = jaguar_kit.Trainer.loss_of_pooled, []

    def fails_once(trainer, *arguments):
        result = loss_of(trainer, *arguments)  # all statistics have moved by now
        tried.append(1)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    monkeypatch.setattr(jaguar_kit.Trainer, "loss_of_pooled", fails_once)
    backward(short, task)
    assert "6 images at a time" in capsys.readouterr().out
    for name, value in buffers(fits).items():
        torch.testing.assert_close(buffers(short)[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_mixed_images_in_parts_keep_their_partners():
    """Each image's loss is that of itself and of its partner within its part, by their shares."""
    trainer, task = run_of("cross_entropy", micro_batch=4, mix={"name": "mixup", "alpha": 1.0})
    seen, loss_of = [], jaguar_kit.mixed_loss

    def watched(loss, embeddings, labels, partner, share):
        seen.append((partner, share))
        return loss_of(loss, embeddings, labels, partner, share)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaguar_kit, "mixed_loss", watched)
        rows = np.arange(12)
        trainer.backward(task.pixels, [(0, rows, task.pixels.read(rows))], 1)
    (partner, share), *_ = seen
    assert len(partner) == len(share) == 12
    assert torch.equal(partner // 4, torch.arange(12) // 4), "a partner comes from its own part"
    assert sorted(partner.tolist()) == list(range(12))


class Doubling(nn.Module):
    """Stands for a layer with a statistic of its own, such as one that timm may bring."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return x


def test_any_statistic_of_a_backbone_moves_once_a_part():
    trainer, task = run_of(micro_batch=4)
    trainer.embedder.backbone.norm = nn.Sequential(trainer.embedder.backbone.norm, Doubling())
    backward(trainer, task)
    assert float(trainer.embedder.backbone.norm[1].seen) == 3


def frozen_run(size, **changes):
    model = {"backbone": "test_resnet", "pretrained": False, "freeze": True}
    train = {"micro_batch": size, **changes.pop("train", {})}
    return recipe_from_dict({"name": "frozen", "model": model, "train": train, **changes})


def test_how_many_images_go_at_a_time_counts_where_each_part_draws_for_itself():
    drawn = [
        {"augment": ["flip"]},
        {"background": "random"},
        {"background": "noise"},
        {"background": "swap"},
        {"loss": "arcface", "train": {"mix": "mixup"}},
    ]
    for changes in drawn:
        told = jaguar_kit.differing_settings(frozen_run(4, **changes), frozen_run(8, **changes))
        assert told == [("train.micro_batch", 4, 8)], changes
    for changes in ({}, {"background": "black"}, {"background": "inpaint"}):
        assert not jaguar_kit.differing_settings(frozen_run(4, **changes), frozen_run(8, **changes)), changes
