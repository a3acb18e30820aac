"""The reference recipe against the same in plain torch: network, schedule, order of operations, choice of the epoch."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from medmnist.evaluator import getAUC
from torch import Tensor, nn

from data_shards.support.errors import CheckpointError, ConfigError, DataError, TrainingError
from finetune.reference.baseline import reference_network
from finetune.reference.fit import fit_reference
from finetune.reference.recipe import ReferenceRecipe, axes_of, recipe_for
from finetune.splits import shuffled
from tests.finetune.samples import TARGETS, Reader, blobs, of_target, solid_blobs, studies_of, tiny_backbone

SHORT = ReferenceRecipe(epochs=4, batch_size=16)


class Block(nn.Module):
    """Two convolutions of 3 and a shortcut (He et al., CVPR 2016, figure 2), written out."""

    def __init__(self, before: int, after: int, stride: int, conv: type[nn.Module], norm: type[nn.Module]) -> None:
        super().__init__()
        self.first, self.second = conv(before, after, 3, stride, 1, bias=False), conv(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([norm(after), norm(after)])
        self.shortcut = nn.Sequential()
        if stride > 1 or before != after:
            self.shortcut = nn.Sequential(conv(before, after, 1, stride, bias=False), norm(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))
        return F.relu(y + self.shortcut(x))


class CifarResNet18(nn.Module):
    """The network that the benchmark of MedMNIST describes: a stem of 3 without stride, four stages of two blocks."""

    def __init__(self, channels: int, classes: int, axes: int) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.stem, self.norm = conv(channels, 64, 3, 1, 1, bias=False), norm(64)
        widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
        self.blocks = nn.ModuleList(
            Block(before, after, 2 if before != after else 1, conv, norm)
            for before, after in itertools.pairwise(widths)
        )
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            y = block(y)
        return self.linear(y.flatten(2).mean(dim=2))


def copied(network: nn.Module, plain: nn.Module) -> None:
    """Give the written-out network the weights of ours; both list them from stem to head, block by block."""
    ours = sorted(network.backbone.network.named_parameters(), key=lambda pair: _place(pair[0]))
    theirs = sorted(((name, each) for name, each in plain.named_parameters() if not name.startswith("linear")),
                    key=lambda pair: _place_written(pair[0]))  # fmt: skip
    assert len(ours) == len(theirs)
    with torch.no_grad():
        for (_, mine), (_, written) in zip(ours, theirs, strict=True):
            written.copy_(mine)
        head = network.readout.head.linear
        plain.linear.weight.copy_(head.weight)
        plain.linear.bias.copy_(head.bias)


_PARTS = ("conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias",
          "downsample.0.weight", "downsample.1.weight", "downsample.1.bias")  # fmt: skip
_WRITTEN = ("first.weight", "norms.0.weight", "norms.0.bias", "second.weight", "norms.1.weight", "norms.1.bias",
            "shortcut.0.weight", "shortcut.1.weight", "shortcut.1.bias")  # fmt: skip
_STEM = ("stem.weight", "norm.weight", "norm.bias")


def _place(name: str) -> tuple[int, int]:
    if not name.startswith("layer"):
        return -1, _PARTS.index(name)
    layer, block, part = name.split(".", 2)
    return 2 * (int(layer[-1]) - 1) + int(block), _PARTS.index(part)


def _place_written(name: str) -> tuple[int, int]:
    if name in _STEM:
        return -1, _STEM.index(name)
    _, block, part = name.split(".", 2)
    return int(block), _WRITTEN.index(part)


def test_the_network_has_the_weights_of_a_cifar_resnet_18() -> None:
    color = replace(blobs(2), images=np.zeros((2, 3, 28, 28), np.uint8))
    ours = reference_network(color)(0)
    plain = CifarResNet18(3, 10, 2)
    count = sum(each.numel() for each in ours.parameters()) + 512 * 10 + 10
    assert count == sum(each.numel() for each in plain.parameters()) == 11_173_962


@pytest.mark.parametrize("axes", [2, 3])
def test_the_network_computes_what_the_written_out_one_does(axes: int) -> None:
    cases = blobs(4, side=8)
    if axes == 3:
        cases = replace(cases, images=np.repeat(cases.images[:, :, None], 4, axis=2))
    fitted = fit_reference(reference_network(cases)(1), cases, None, replace(SHORT, epochs=1), seed=0)
    plain = CifarResNet18(1, 2, axes)
    copied(fitted.network, plain)
    pixels = torch.from_numpy(np.asarray(cases.images)).float() / 255
    network = fitted.network.train()  # by the statistics of the batch, so that running ones need not be copied
    with torch.no_grad():
        features = network.backbone.features(2 * pixels - 1).embedding_BD
        found = network.readout.head.linear(features)
        expected = plain.train()((pixels - 0.5) / 0.5 if axes == 2 else pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_first_weights_are_those_torch_gives_and_follow_the_seed() -> None:
    make = reference_network(blobs(2))
    same, other = make(0).state_dict(), make(1).state_dict()
    for name, weight in make(0).state_dict().items():
        torch.testing.assert_close(weight, same[name], rtol=0, atol=0)
        if weight.ndim > 1:
            bound = (weight[0].numel()) ** -0.5  # of a uniform draw: He et al. with a slope of the root of 5
            assert 0.9 * bound < weight.abs().max() <= bound
            assert not torch.equal(weight, other[name])
        elif name.endswith("weight"):
            assert torch.equal(weight, torch.ones_like(weight))


@pytest.mark.parametrize("epochs", [4, 100])
def test_the_rate_is_a_tenth_after_half_and_a_hundredth_after_three_quarters(epochs: int) -> None:
    recipe = ReferenceRecipe(epochs=epochs)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight], lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [0.5 * epochs, 0.75 * epochs], 0.1)
    for epoch in range(epochs):
        assert recipe.rate_in(epoch + 1) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        schedule.step()


def test_what_the_recipe_is_for_each_kind_of_set() -> None:
    assert recipe_for("breastmnist", 2) == ReferenceRecipe(100, 1e-3, 128, (0.5, 0.75), 0.1, False)
    assert recipe_for("organmnist3d", 3, 7) == ReferenceRecipe(7, 1e-3, 32, (0.5, 0.75), 0.1, False)
    assert recipe_for("adrenalmnist3d", 3).shapes and recipe_for("vesselmnist3d", 3).shapes
    assert (axes_of(blobs(2)), axes_of(solid_blobs(2))) == (2, 3)


def test_a_fit_is_adam_on_the_cross_entropy_written_out() -> None:
    """A linear network on pixels, by hand: the same batches, the same steps, the same weights in the end."""
    train = blobs(40, side=8)
    backbone = tiny_backbone()
    fitted = fit_reference(backbone, train, None, SHORT, seed=3)
    once = fit_reference(backbone, train, None, replace(SHORT, epochs=1, rate=0.0), seed=3)
    network, target = once.network, once.target
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    pixels = 2 * torch.from_numpy(np.asarray(train.images)).float() / 255 - 1
    labels = torch.from_numpy(train.known_labels[:, 0])
    for epoch in range(4):
        for group in optimizer.param_groups:
            group["lr"] = (1e-3, 1e-3, 1e-4, 1e-5)[epoch]
        order = torch.from_numpy(shuffled(40, 3, f"reference epoch {epoch + 1}"))
        for rows in (order[:16], order[16:32], order[32:]):
            embedding = network.train().backbone.features(pixels[rows], train[rows.numpy()].metadata).embedding_BD
            loss = F.cross_entropy(network.readout.head.linear(embedding), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        expected = network.readout.head.linear(network.backbone.features(pixels, train.metadata).embedding_BD).softmax(
            1
        )
    np.testing.assert_allclose(fitted.probabilities(train), expected.numpy(), atol=1e-5)
    assert target.task.name == "multiclass" and fitted.epoch == 4
    before = tiny_backbone().state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in backbone.state_dict().items())


def test_the_epoch_is_the_first_with_the_best_validation_auc_and_its_weights_are_kept() -> None:
    train, val = blobs(48, side=8, seed=1), blobs(30, side=8, seed=2)
    seen: list[tuple[int, float]] = []
    recipe = replace(SHORT, epochs=6, rate=3e-3)
    fitted = fit_reference(tiny_backbone(), train, val, recipe, seed=0, say=lambda *told: seen.append(told[::2]))
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4, 5, 6] and [score for _, score in seen] == list(fitted.curve)
    assert fitted.epoch == 1 + int(np.argmax(fitted.curve))
    area = getAUC(val.known_labels, fitted.probabilities(val)[:, 1], "binary-class")
    assert area == pytest.approx(max(fitted.curve), abs=1e-12)
    last = getAUC(val.known_labels, fitted.at_last(val)[:, 1], "binary-class")
    assert last == pytest.approx(fitted.curve[-1], abs=1e-12)
    assert fitted.selection("the val split") == "the epoch with the best AUC on the val split"


@pytest.mark.parametrize("name", TARGETS)
def test_every_kind_of_label_is_learnt_and_told_in_its_own_form(name: str) -> None:
    train, val = of_target(name, 48, seed=1, side=8), of_target(name, 24, seed=2, side=8)
    fitted = fit_reference(tiny_backbone(), train, val, replace(SHORT, epochs=2), seed=0)
    said = fitted.probabilities(val)
    assert said.shape == (24, len(val.classes)) and len(fitted.curve) == 2
    if name in ("binary", "multiclass", "ordinal"):
        np.testing.assert_allclose(said.sum(axis=1), 1)
    metric = val.target.metrics[0]
    best = float(metric.score(val.known_labels, said, val.task, None))
    assert best == pytest.approx(max(fitted.curve), abs=1e-9)


def test_intensities_of_shapes_are_halved_outside_of_training_and_vary_within() -> None:
    train = solid_blobs(8, depth=4)
    fitted = fit_reference(tiny_backbone(), train, None, replace(SHORT, epochs=1, shapes=True), seed=0)
    halved = replace(train, images=(np.asarray(train.images) // 2).astype(np.uint8))
    even = replace(train, images=2 * (np.asarray(train.images) // 2).astype(np.uint8))
    plain = replace(fitted, recipe=replace(fitted.recipe, shapes=False))
    np.testing.assert_allclose(fitted.probabilities(even), plain.probabilities(halved), atol=1e-6)
    still = fit_reference(tiny_backbone(), train, None, replace(SHORT, epochs=1), seed=0)
    assert still.losses != fitted.losses


def test_without_a_validation_score_the_last_epoch_is_taken_and_that_is_said() -> None:
    train = blobs(24, side=8)
    one_class = train[train.known_labels[:, 0] == 0]
    fitted = fit_reference(tiny_backbone(), train, one_class, replace(SHORT, epochs=2), seed=0)
    assert fitted.epoch == 2 and np.isnan(fitted.curve).all()
    assert fitted.selection("the val split") == "none: the last epoch, the score on the val split is undefined"
    alone = fit_reference(tiny_backbone(), train, None, replace(SHORT, epochs=2), seed=0)
    assert alone.selection("x") == "none: the last epoch, nothing was held out"
    np.testing.assert_array_equal(alone.probabilities(train), alone.at_last(train))


class Stopped(Exception):
    """What ends a fit from outside."""


def test_a_fit_that_was_stopped_ends_with_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    train, val = blobs(40, side=8, seed=1), blobs(20, side=8, seed=2)
    recipe = replace(SHORT, epochs=8, shapes=True)
    whole = fit_reference(tiny_backbone(), train, val, recipe, seed=0)
    state = tmp_path / "fit.safetensors"

    def stop(epoch: int, loss: float, score: float) -> None:
        if epoch == 7:
            raise Stopped

    with pytest.raises(Stopped):
        fit_reference(tiny_backbone(), train, val, recipe, seed=0, say=stop, checkpoint=state)
    seen: list[int] = []
    again = fit_reference(
        tiny_backbone(), train, val, recipe, seed=0, say=lambda epoch, *_: seen.append(epoch), checkpoint=state
    )
    assert seen == [6, 7, 8]
    assert (again.epoch, again.curve, again.losses) == (whole.epoch, whole.curve, whole.losses)
    np.testing.assert_array_equal(again.probabilities(val), whole.probabilities(val))
    np.testing.assert_array_equal(again.at_last(val), whole.at_last(val))


def test_the_state_of_another_fit_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    train, state = blobs(16, side=8), tmp_path / "fit.safetensors"
    fit_reference(tiny_backbone(), train, None, replace(SHORT, epochs=1), seed=0, checkpoint=state)
    for change in ({"seed": 1}, {"recipe": replace(SHORT, epochs=2)}):
        given = {"recipe": replace(SHORT, epochs=1), "seed": 0, **change}
        with pytest.raises(CheckpointError, match=r"fit\.safetensors: of another fit"):
            fit_reference(tiny_backbone(), train, None, given["recipe"], seed=given["seed"], checkpoint=state)
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"fit\.safetensors: not the state of a fit"):
        fit_reference(tiny_backbone(), train, None, replace(SHORT, epochs=1), seed=0, checkpoint=state)


def test_a_loss_that_is_not_finite_stops_at_its_epoch() -> None:
    with pytest.raises(TrainingError, match="blobs: reference recipe: the loss of epoch 1 is nan"):
        fit_reference(tiny_backbone(), blobs(24, side=8), None, replace(SHORT, rate=1e30), seed=0)


def test_a_batch_that_memory_has_no_room_for_is_refused_before_anything_is_trained() -> None:
    huge = replace(blobs(2), images=np.broadcast_to(np.uint8(0), (2, 1, 30_000, 30_000)))
    network = reference_network(huge)(0)
    with pytest.raises(DataError, match="blobs: the reference recipe takes 2 cases at once: .* --size [0-9]+ fits"):
        fit_reference(network, huge, None, SHORT, seed=0)


def test_the_baseline_reads_one_image_per_case() -> None:
    assert reference_network(solid_blobs(2))(0).architecture == "resnet18_3d_cifar"
    planes = blobs(4)
    pairs = [
        replace(study, images={"a": study.images["image"], "b": study.images["image"]}) for study in studies_of(planes)
    ]
    with pytest.raises(ConfigError, match="blobs: the reference recipe reads one image per case, found 2"):
        reference_network(Reader(pairs).cases(planes))
