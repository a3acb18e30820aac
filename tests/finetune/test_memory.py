"""What networks take is bounded by bytes, whatever the size of the images."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import timm
import torch

from data_shards.support.errors import DataError
from finetune import features, memory
from finetune.features import embed, rows_that_fit
from finetune.heads.linear import LinearHead
from finetune.learners import CachedLearner
from finetune.memory import bytes_of_one, fitting, images_at_once
from finetune.readers import together
from finetune.readers.together import read_together
from finetune.training import Recipe, train
from tests.finetune.test_training import _learner, _targets

CPU = torch.device("cpu")
_CHILD = """
import resource
import numpy as np, timm
from finetune import memory
from finetune.features import embed
import pretrain.backbone
memory.WORK_BYTES = 300 << 20
network = timm.create_model("medformer_nano", num_classes=0)
embed(network, np.zeros((2, 1, 64, 64), np.uint8))
images = np.zeros((12, 1, 480, 640), np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert embed(network, images).shape == (12, network.embed_dim)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_large_pictures_are_embedded_in_bounded_memory() -> None:
    """Twelve at a time take 1.4 GiB; the bound is 300 MiB, and kernels get a margin."""
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 600 << 10


def test_the_need_grows_with_the_voxels_and_with_a_backward_pass() -> None:
    network = timm.create_model("medformer_nano", num_classes=0)

    def need(side: int, *, train: bool) -> int:
        return bytes_of_one(lambda batch: network.features(batch).embedding_BD, (1, side, side), CPU, train=train)

    small, large = need(256, train=False), need(512, train=False)
    assert 3.5 < large / small <= 4.0
    assert need(256, train=True) > 1.5 * small


def test_the_size_that_a_refusal_names_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    network = timm.create_model("medformer_nano", num_classes=0)
    free = 20 << 20
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    monkeypatch.setattr(features, "_SMALL_VOXELS", 0)
    images = np.zeros((4, 1, 480, 640), np.uint8)
    with pytest.raises(DataError, match=r"one image of 1 x 480 x 640 takes .* MiB .*; --size \d+ fits") as caught:
        embed(network, images)
    side = int(str(caught.value).split("--size ")[1].split()[0])
    assert rows_that_fit(network, np.zeros((4, 1, side, side), np.uint8), None, dense=False) >= 1
    assert images_at_once(1, (1, side, side), CPU, most=7) == 7


def test_no_size_is_named_where_none_fits() -> None:
    assert fitting((1, 480, 640), 1e-9) == "" and "prepare.size" in fitting((1, 64, 64, 64), 0.5)


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_parts_of_a_batch_train_as_the_batch_does(at_once: int) -> None:
    weights = []
    for size in (100, at_once):
        torch.manual_seed(0)

        class Parts(CachedLearner):
            pass

        Parts.at_once = size  # type: ignore[assignment, method-assign]
        plain = _learner(24, 1.0)
        head = LinearHead(20, 1)
        torch.nn.init.zeros_(next(head.parameters()))
        learner = Parts(head, plain._features.numpy(), 0.1, 0.0)
        list(train(learner, _targets(24), np.arange(24), Recipe(max_steps=6, batch_size=8), seed=0))
        weights.append([parameter.detach().clone() for parameter in head.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_more_images_than_memory_holds_are_refused_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "available_bytes", lambda: 1 << 20)
    read: list[int] = []

    def one(position: int) -> np.ndarray:
        read.append(position)
        return np.zeros((1, 480, 640), np.uint8)

    with pytest.raises(DataError, match=r"364 images of 1 x 480 x 640 take .* free; --size 27 fits"):
        read_together([str(number) for number in range(364)], one)
    assert read == [0]


def test_grey_and_colour_are_read_together_and_colours_are_named() -> None:
    grey, colour = np.full((1, 4, 4), 7, np.uint8), np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    images, _ = read_together(["a", "b", "c"], [grey, grey, np.repeat(grey, 3, axis=0)].__getitem__)
    assert images.shape == (3, 1, 4, 4) and (images == 7).all()
    with pytest.raises(DataError, match=r"c\.png has 3 channels of different colours.*2 with 1 channel and 1 with 3"):
        read_together(["a.png", "b.png", "c.png"], [grey, grey, colour].__getitem__)
    assert read_together(["a", "b", "c"], [grey, grey, colour].__getitem__, 3)[0].shape == (3, 3, 4, 4)
    with pytest.raises(DataError, match="different numbers of channels"):
        read_together(["a", "b"], [grey, colour].__getitem__, "keep")
