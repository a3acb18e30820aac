"""What networks take is bounded by bytes, whatever the size of the images, and images are read as they are needed."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from data_shards.sample import Image
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality
from finetune import memory
from finetune.classifier.estimator import FewLabelClassifier
from finetune.classifier.seen import Seen
from finetune.fit import features, room
from finetune.fit.features import features_of, summaries
from finetune.fit.learners import CachedLearner, ImageLearner
from finetune.fit.loop import train
from finetune.fit.network import Network, Readout
from finetune.fit.room import blocks, studies_at_once
from finetune.heads import create_head
from finetune.images import ReadPictures, Study
from finetune.memory import fitting, images_at_once, need_of
from finetune.strategies import Rates, create_strategy
from tests.finetune.samples import Reader, blobs, plane, solid_blobs, studies_of, tiny_backbone
from tests.finetune.test_loop import learner_of, objective, recipe

CPU = torch.device("cpu")
_CHILD = """
import resource
import numpy as np, timm
from data_shards.vocabulary import Task
from finetune import memory
from finetune.cases import Cases
from finetune.fit.features import summaries
import pretrain.backbone
memory.WORK_BYTES = 300 << 20
network = timm.create_model("medformer_nano", num_classes=0)
def read(count, *shape):
    images = np.zeros((count, 1, *shape), np.uint8)
    cases = Cases("zeros", images, None, Task.unknown, {}, np.arange(count))
    return summaries(network, cases, dense=False).embedding_ND
read(2, 64, 64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert read(12, 480, 640).shape == (12, network.embed_dim)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_large_pictures_are_embedded_in_bounded_memory() -> None:
    """Twelve at a time take 1.4 GiB; the bound is 300 MiB, and kernels get a margin."""
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 600 << 10


def test_the_need_grows_with_the_voxels_and_with_a_backward_pass() -> None:
    network = timm.create_model("medformer_nano", num_classes=0)

    def need(side: int, *, train: bool) -> int:
        return need_of(lambda batch: network.features(batch).embedding_BD, 1, 2, CPU, train=train)((side, side))

    small, large = need(256, train=False), need(512, train=False)
    assert 3.5 < large / small <= 4.0
    assert need(256, train=True) > 1.5 * small


def test_the_size_that_a_refusal_names_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    network = timm.create_model("medformer_nano", num_classes=0)
    free = 20 << 20
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    monkeypatch.setattr(room, "_SMALL_VOXELS", 0)
    with pytest.raises(DataError, match=r"one image of 1 x 480 x 640 takes .* MiB .*; --size \d+ fits") as caught:
        summaries(network, replace(blobs(2), images=np.zeros((2, 1, 480, 640), np.uint8)))
    side = int(str(caught.value).split("--size ")[1].split()[0])
    study = Study({"image": plane(np.zeros((1, side, side)))})
    assert studies_at_once(network, study, dense=False) >= 1
    assert images_at_once(1, (1, side, side), CPU, most=7) == 7


def test_no_size_is_named_where_none_fits() -> None:
    assert fitting((1, 480, 640), 1e-9) == "" and "prepare.size" in fitting((1, 64, 64, 64), 0.5)


def test_no_more_voxels_than_fit_are_taken_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()

    def at_once(*shape: int) -> int:
        return studies_at_once(backbone, Study({"image": plane(np.zeros(shape))}), dense=False)

    assert at_once(1, 28, 28) == 256
    assert at_once(1, 28, 28, 28) == room.BATCH_VOXELS // 28**3
    assert at_once(1, 104, 104, 104) == 1
    monkeypatch.setattr(room, "_SMALL_VOXELS", 0)
    monkeypatch.setattr(memory, "WORK_BYTES", 2 << 20)
    assert 1 <= at_once(1, 28, 28) < 256


@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_parts_of_a_batch_train_as_the_batch_does(at_once: int) -> None:
    weights = []
    for size in (100, at_once):

        class Parts(CachedLearner):
            pass

        Parts.at_once = size  # type: ignore[assignment, method-assign]
        learner = learner_of(24, 1.0, kind=Parts)
        list(train(learner, objective(24), np.arange(24), recipe(6, 8)))
        weights.append([parameter.detach().clone() for parameter in learner.module.parameters()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_case_of_many_images_is_encoded_a_few_at_a_time_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = blobs(23, seed=1)
    cases = replace(pool[:3], images=pool.pictures, spacing_mm=None, rows=None, bags=np.repeat([0, 1, 2], [2, 20, 1]))
    backbone = tiny_backbone()
    whole = features_of(backbone, cases, dense=True)
    sizes: list[int] = []
    handle = backbone.encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[1])))
    monkeypatch.setattr(room, "BATCH_SIZE", 6)
    assert [cases for cases, _ in blocks(backbone, cases, dense=True)] == [[0], [1], [2]]
    cases.pictures.memo.clear()
    parts = features_of(backbone, cases, dense=True)
    handle.remove()
    assert sizes == [2, 6, 6, 6, 2, 1]
    for name in ("embedding_BD", "tokens_BTD", "weight_BT", "study_BT", "studies_BSD", "present_BS"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-5, rtol=0)


def test_a_case_of_more_images_than_a_training_step_has_room_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = blobs(40, seed=1)
    cases = replace(pool[:2], images=pool.pictures, spacing_mm=None, rows=None, bags=np.repeat([0, 1], 20))
    network = Network(tiny_backbone(), Readout(create_head("linear", 32, 1, {"reads": "embedding"}), None))
    rates = Rates(1e-3, 1e-3, 1.0, 0.0)
    learner = ImageLearner(network, cases, create_strategy("full"), rates, augmented=False, seed=0)
    assert learner.at_once == 12  # of 256 images at a time
    monkeypatch.setattr(room, "_SMALL_VOXELS", 0)
    one = need_of(lambda batch: network.backbone.features(batch).embedding_BD, 1, 2, CPU, train=True)((16, 16))
    monkeypatch.setattr(memory, "available_bytes", lambda: 10 * one)
    del learner.at_once
    with pytest.raises(DataError, match=r"a case of 20 images: .* 1 x 16 x 16 takes"):
        _ = learner.at_once


class Watched:
    """Reads planes and counts how many of them live."""

    def __init__(self, count: int) -> None:
        self.pool = blobs(count, seed=1)
        self.live, self.most = 0, 0
        self.read = [0] * count

    def __call__(self, position: int) -> Study:
        self.read[position] += 1
        pixels = self.pool.images[position].copy()
        self.live += 1
        self.most = max(self.most, self.live)
        weakref.finalize(pixels, self._gone)
        return Study({"image": Image(pixels, Modality.xray)})

    def _gone(self) -> None:
        self.live -= 1


@pytest.mark.parametrize(("head", "strategy"), [("linear", "frozen"), ("attention", "frozen"), ("linear", "full")])
def test_a_fit_holds_no_more_than_a_batch_and_reads_each_image_once(
    head: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "BATCH_SIZE", 4)
    held: list[int] = []
    real = ReadPictures.study
    alive: list[weakref.ref] = []

    def study(self: ReadPictures, position: int) -> Study:
        found = real(self, position)
        alive[:] = [each for each in alive if each() is not None]
        alive.extend(weakref.ref(image.pixels) for image in found.images.values())
        held.append(len(alive))
        return found

    monkeypatch.setattr(ReadPictures, "study", study)
    reader = Watched(30)
    cases = replace(reader.pool, images=ReadPictures(30, reader))
    classifier = FewLabelClassifier(tiny_backbone(), head=head, strategy=strategy, max_steps=3, batch_size=4)
    classifier.fit(cases)
    classifier.predict_proba(cases)
    gc.collect()
    assert reader.read == [1] * 30
    # A held-out part is looked at in runs of eight batches; a frozen one in those of the network and one look-ahead.
    assert max(held) <= (8 * 4 + 1 if strategy == "full" else 4 + 2)
    assert reader.most <= max(held) + 1


def test_what_was_seen_and_digests_read_each_study_once_and_are_found_again() -> None:
    reader = Reader(studies_of(blobs(12, seed=1)))
    cases = reader.cases(blobs(12, seed=1))
    Seen.of(cases)
    assert cases.distinct_images() == 12
    assert cases.digests() == blobs(12, seed=1).digests()
    Seen.of(cases[::2])
    assert reader.read == [1] * 12


def test_lazy_images_reach_another_process_and_are_read_there() -> None:
    cases = Reader(studies_of(blobs(6, seed=1))).cases(blobs(6, seed=1))
    expected = cases.digests()
    copy = pickle.loads(pickle.dumps(cases))
    assert copy.pictures._kept == {} and copy[2:].digests() == expected[2:]
    for position in range(6):
        np.testing.assert_array_equal(
            copy.pictures.study(position).images["image"].pixels, cases.pictures.study(position).images["image"].pixels
        )


def test_the_backbone_sees_each_image_once_in_a_whole_cross_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.model_selection import cross_val_score

    seen: list[int] = []
    real = features.encode

    def encode(backbone: object, cases: list, **options: object) -> object:
        seen.append(len(cases))
        return real(backbone, cases, **options)

    monkeypatch.setattr(features, "encode", encode)
    arrays = blobs(30, seed=1)
    lazy = Reader(studies_of(arrays)).cases(arrays)
    backbone, scores = tiny_backbone(), []
    for cases in (arrays, lazy):
        seen.clear()
        reads = {"reads": "embedding"}
        scores.append(cross_val_score(FewLabelClassifier(backbone, head_options=reads), cases, cases.targets, cv=3))
        assert sum(seen) == 30
        cross_val_score(FewLabelClassifier(backbone, head_options=reads), cases, cases.targets, cv=2)
        assert sum(seen) == 30
        FewLabelClassifier(tiny_backbone(1), head_options=reads).fit(cases)
        assert sum(seen) == 60
    np.testing.assert_array_equal(*scores)


def test_a_backbone_that_was_changed_is_never_answered_from_memory() -> None:
    cases, backbone = blobs(5, seed=1), tiny_backbone()

    def fresh() -> np.ndarray:
        return summaries(backbone, blobs(5, seed=1)).read("embedding_mean_spread")

    def kept() -> np.ndarray:
        return summaries(backbone, cases).read("embedding_mean_spread")

    before = kept()
    np.testing.assert_array_equal(before, kept())
    with torch.no_grad():
        backbone.norm.bias[0] += 1
    np.testing.assert_array_equal(kept(), fresh())
    assert not np.array_equal(kept(), before)
    spaced = replace(cases, spacing_mm=np.full((5, 2), 2.0))
    told = replace(blobs(5, seed=1), spacing_mm=np.full((5, 2), 2.0))
    backbone.voxel_mm = 1.0
    read = summaries(backbone, spaced).embedding_ND
    np.testing.assert_array_equal(read, summaries(backbone, told).embedding_ND)
    backbone.voxel_mm = 4.0
    assert not np.array_equal(summaries(backbone, spaced).embedding_ND, read)
    buffer = next(iter(backbone.buffers()), None)
    if buffer is not None:
        previous = kept()
        buffer += 1
        np.testing.assert_array_equal(kept(), fresh())
        assert not np.array_equal(kept(), previous)


def test_summaries_of_a_few_backbones_are_kept() -> None:
    cases = blobs(3)
    for seed in range(8):
        summaries(tiny_backbone(seed), cases, dense=False)
    assert len(cases.pictures.memo["summaries"]) == 4


def test_solid_images_of_two_sizes_are_not_read_ahead() -> None:
    studies = [study for count in (2, 3) for study in studies_of(solid_blobs(2, depth=count))]
    reader = Reader(studies)
    cases = reader.cases(blobs(4))
    first = next(blocks(tiny_backbone(), cases, dense=True))
    assert first[0] == [0, 1, 2, 3] and reader.read == [1] * 4
