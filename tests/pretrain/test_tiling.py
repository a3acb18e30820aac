"""Windows and their blending against MONAI's definition written down anew, closed forms, and networks themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Modality, Organ
from finetune.memory import _Live
from pretrain.backbone import Medformer, StudyImage
from pretrain.backbone.decoders import RestorationDecoder
from pretrain.metadata import Metadata
from pretrain.tiling import SlidingWindows, Tiling, Window, blended, restored
from tests.pretrain import test_backbone

Predictor = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
Weights = Callable[[tuple[int, ...], Sequence[int], Sequence[int]], np.ndarray]


def small(**changes: object) -> Medformer:
    return test_backbone.small(**{"stride": 4, "stem": "conv", **changes}).eval()


def monai_starts(length: int, roi: int, overlap: float) -> list[int]:
    """``_get_scan_interval`` and ``dense_patch_slices`` of monai.inferers and monai.data.utils, along one axis."""
    interval = int(roi) if roi == length else max(1, int(roi * (1 - overlap)))
    steps = math.ceil(length / interval)
    last = next(step for step in range(steps) if step * interval + roi >= length)
    return [step * interval - max(step * interval + roi - length, 0) for step in range(last + 1)]


def monai_importance(roi: Sequence[int], floor: float = 1e-3) -> np.ndarray:
    """``compute_importance_map(mode=GAUSSIAN, sigma_scale=0.125)`` of monai.data.utils."""
    weight = np.ones(())
    for side in roi:
        away = np.arange(-(side - 1) / 2, (side - 1) / 2 + 1)
        weight = weight[..., None] * np.exp(away**2 / (-2 * (0.125 * side) ** 2))
    return np.maximum(weight, max(weight.min(), floor))


def nnunet_starts(length: int, tile: int, overlap: float) -> list[int]:
    """``compute_steps_for_sliding_window`` of nnU-Net, whose stride is rounded down to whole voxels as MONAI's is."""
    stride = max(1, int(tile * (1 - overlap)))
    count = int(np.ceil((length - tile) / stride)) + 1
    actual = (length - tile) / (count - 1) if count > 1 else 99999999999
    return [int(np.round(actual * number)) for number in range(count)]


def our_weight(first: tuple[int, ...], roi: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """The Gaussian, level from the centre to a side that lies on the edge of the image."""
    weight = np.ones(())
    for start, side, length in zip(first, roi, size, strict=True):
        line = []
        for place in range(side):
            away = place - (side - 1) / 2
            level = (away < 0 and start == 0) or (away > 0 and start + side == length)
            line.append(1.0 if level else math.exp(-(away**2) / 2 / (side / 8) ** 2))
        weight = weight[..., None] * np.array(line)
    return weight


def by_loops(
    image: np.ndarray, roi: Sequence[int], starts: Sequence[list[int]], weigh: Weights, predict: Predictor
) -> np.ndarray:
    """``sliding_window_inference`` of one image ``C,...`` that is no smaller than the window."""
    total, count = np.zeros(image.shape), np.zeros(image.shape[1:])
    for first in itertools.product(*starts):
        place = tuple(slice(start, start + side) for start, side in zip(first, roi, strict=True))
        weight = weigh(first, roi, image.shape[1:])
        total[(slice(None), *place)] += predict(image[(slice(None), *place)], first) * weight
        count[place] += weight
    return total / count


def monai(image: np.ndarray, roi: Sequence[int], overlap: float, predict: Predictor, floor: float) -> np.ndarray:
    starts = [monai_starts(*pair, overlap) for pair in zip(image.shape[1:], roi, strict=True)]
    return by_loops(image, roi, starts, lambda _, sides, __: monai_importance(sides, floor), predict)


def ours(image: np.ndarray, roi: Sequence[int], overlap: float, predict: Predictor, at_once: int = 3) -> np.ndarray:
    tensor = torch.from_numpy(image)[None]

    def run(windows: Sequence[Window]) -> Tensor:
        assert 1 <= len(windows) <= at_once and len({window.size for window in windows}) == 1
        return torch.stack(
            [torch.from_numpy(predict(window.of(tensor)[0].numpy(), window.first)) for window in windows]
        )

    parts = list(blended(run, Tiling(image.shape[1:], roi, overlap), at_once))
    assert [start for start, _ in parts] == np.cumsum([0, *(values.shape[1] for _, values in parts)])[:-1].tolist()
    return torch.cat([values for _, values in parts], dim=1).numpy()


def opinion(image: np.ndarray, first: tuple[int, ...]) -> np.ndarray:
    """Each window sees things its own way."""
    return image * (1 + sum(first) % 5) + np.random.default_rng(first).normal()


CASES = [
    ((23,), (8,), 0.5), ((24,), (7,), 0.25), ((31, 20), (8, 9), 0.5), ((12, 13), (12, 5), 0.6), ((9, 8), (9, 8), 0.5),
    ((14, 15, 10), (6, 7, 10), 0.5), ((11, 11, 11), (4, 4, 4), 0.0), ((10, 7, 9), (5, 4, 3), 0.9),
]  # fmt: skip


@pytest.mark.parametrize("size, window, overlap", CASES)
def test_windows_and_weights_are_those_of_the_published_rules(
    size: tuple[int, ...], window: tuple[int, ...], overlap: float
) -> None:
    tiling = Tiling(size, window, overlap)
    found = [each.first for layer in tiling.layers() for each in layer]
    axes = [nnunet_starts(*pair, overlap) for pair in zip(size, window, strict=True)]
    assert found == list(itertools.product(*axes)) and len(tiling) == len(found)
    for pair, starts in zip(zip(size, window, strict=True), axes, strict=True):
        assert len(starts) == len(monai_starts(*pair, overlap))
    image = np.random.default_rng(0).normal(size=(2, *size))
    np.testing.assert_allclose(
        ours(image, window, overlap, opinion), by_loops(image, window, axes, our_weight, opinion), atol=2e-6, rtol=2e-6
    )


@pytest.mark.parametrize(
    "size, window, overlap",
    [((20,), (8,), 0.5), ((28, 16), (8, 8), 0.5), ((12, 18, 9), (6, 6, 3), 0.5), ((20, 10), (8, 4), 0.25)],
)
def test_where_whole_strides_fit_into_the_image_it_is_what_monai_computes_without_its_floor(
    size: tuple[int, ...], window: tuple[int, ...], overlap: float
) -> None:
    """There a place at which a weight is level belongs to one window alone along that axis."""
    image = np.random.default_rng(0).normal(size=(2, *size))
    expected = monai(image, window, overlap, opinion, floor=0.0)
    np.testing.assert_allclose(ours(image, window, overlap, opinion), expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("size, window, overlap", CASES)
def test_shares_add_up_to_one_everywhere_and_over_the_windows(
    size: tuple[int, ...], window: tuple[int, ...], overlap: float
) -> None:
    tiling = Tiling(size, window, overlap)
    total = torch.zeros(size, dtype=torch.float64)
    for each in itertools.chain.from_iterable(tiling.layers()):
        share = torch.ones((), dtype=torch.float64)
        for factor in tiling.shares(each):
            share = share[..., None] * factor
        total[tiling.cells_of(each)] += share
        assert tiling.share(each) == pytest.approx(float(share.sum()) / math.prod(size), rel=1e-12)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size, window, overlap", CASES)
def test_what_windows_agree_on_comes_out_as_it_is(
    size: tuple[int, ...], window: tuple[int, ...], overlap: float
) -> None:
    """A constant, and a ramp along every axis that each window tells of the places it covers."""
    places = np.stack(np.meshgrid(*(np.arange(length) / 10 for length in size), indexing="ij"))
    image = np.concatenate([np.full((1, *size), 3.25), places])
    np.testing.assert_allclose(ours(image, window, overlap, lambda each, _: each), image, atol=1e-5)


def counted_where_they_end(length: int, side: int, overlap: float) -> float:
    """The most that a window along an axis counts at its first or last cell, where that is inside the image."""
    most = 0.0
    for (window,) in Tiling((length,), side, overlap).layers():
        (share,), first = Tiling((length,), side, overlap).shares(window), window.first[0]
        most = max(most, float(share[0]) if first else 0.0, float(share[-1]) if first + side < length else 0.0)
    return most


def test_at_half_overlap_a_window_counts_for_less_than_a_hundredth_where_it_ends() -> None:
    """So no field has a seam above 1 % of what its windows disagree about: shares of several axes are products."""
    for side in (*range(6, 25), 32, 48, 96):
        lengths = [*range(side + 1, 5 * side)] if side < 25 else [side + 1, 2 * side - 1, 2 * side + 1, 300, 512]
        assert max(counted_where_they_end(length, side, 0.5) for length in lengths if length > side) < 0.01
    assert 0.01 < max(counted_where_they_end(length, 12, 0.25) for length in range(13, 60)) < 0.04


def test_where_windows_disagree_by_the_whole_range_there_is_no_seam() -> None:
    """Steps from voxel to voxel where windows begin and end bend no more than the blend itself; not so with others."""
    side, roi = 32, (32,) * 3

    def disagreeing(each: np.ndarray, first: tuple[int, ...]) -> np.ndarray:
        return np.full(each.shape, np.random.default_rng(first).integers(2), np.float32)

    def seam(field: np.ndarray, starts: Sequence[int]) -> float:
        """How far steps at borders of windows are from the steps beside them, along all axes."""
        turned = [np.moveaxis(field[0], axis, 0) for axis in range(3)]
        borders = sorted({start - 1 for start in starts if start} | {start + side - 1 for start in starts})
        kept = [border for border in borders if 1 < border < len(field[0]) - 3]
        steps = [np.diff(each, axis=0) for each in turned]
        beside = [(each[[at - 1 for at in kept]] + each[[at + 1 for at in kept]]) / 2 for each in steps]
        return max(float(np.abs(each[kept] - other).max()) for each, other in zip(steps, beside, strict=True))

    image = np.zeros((1, 83, 83, 83), np.float32)
    found = ours(image, roi, 0.5, disagreeing)
    assert found.min() < 0.01 and found.max() > 0.99
    assert seam(found, nnunet_starts(83, side, 0.5)) < 0.01
    assert seam(monai(image, roi, 0.5, disagreeing, floor=1e-3), monai_starts(83, side, 0.5)) > 0.02
    assert seam(ours(image[:, :64, :64, :64], roi, 0.0, disagreeing), [0, 32]) > 0.4


def smooth(size: tuple[int, ...], batch: int = 1) -> Tensor:
    """Waves along every axis, one channel in [-1, 1]."""
    axes = [torch.linspace(0, 2 + 0.5 * axis, length) for axis, length in enumerate(size)]
    waves = [torch.sin(3 * axis).view(-1, *[1] * (len(size) - 1 - place)) for place, axis in enumerate(axes)]
    field = sum(waves[1:], waves[0]) / len(size)
    return torch.stack([field * (1 - 0.3 * row) for row in range(batch)])[:, None]


def known(batch: int) -> Metadata:
    return Metadata.uniform(batch, Organ.brain, Modality.mri)


SIZES = [(30, 41), (22, 24, 29)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dense", [False, True])
@torch.no_grad()
def test_one_window_that_covers_the_image_changes_nothing(size: tuple[int, ...], dense: bool) -> None:
    network, images = small().eval(), smooth(size, batch=2)
    expected = network.features(images, known(2), (1.5,) * len(size), dense=dense)
    for window in (max(size), tuple(length + 4 for length in size)):
        found = SlidingWindows(network, 44 if window == max(size) else tuple(-(-side // 4) * 4 for side in window))
        features = found.features(images, known(2), (1.5,) * len(size), dense=dense)
        torch.testing.assert_close(features.embedding_BD, expected.embedding_BD, atol=1e-5, rtol=0)
        assert (features.grid, features.voxels) == (expected.grid, expected.voxels)
        if dense:
            torch.testing.assert_close(features.tokens_BTD, expected.tokens_BTD, atol=1e-5, rtol=0)
    decoder = RestorationDecoder(32, 3, 4, len(size)).eval()
    whole = network.features(images[:1], known(1), dense=True)
    (slab,) = restored(network, decoder, images[:1], known(1), window=max(size))
    torch.testing.assert_close(slab[1], decoder(whole, images[:1])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(22, 29), (14, 16, 17)])
@torch.no_grad()
def test_tokens_and_embedding_are_the_weighted_means_of_those_of_the_windows(size: tuple[int, ...]) -> None:
    network, images, side = small().eval(), smooth(size), 12
    cells = [-(-length // 4) for length in size]
    tokens, count, embedding = np.zeros((*cells, 32)), np.zeros(cells), np.zeros((*cells, 32))
    starts = [[*range(0, -(-(length - side) // 4) * 4, 4), -(-(length - side) // 4) * 4] for length in size]
    for first in itertools.product(*starts):
        cut = images[(..., *(slice(start, start + side) for start in first))]
        features = network.features(cut, known(1), (2.0,) * len(size), dense=True)
        assert features.tokens_BTD is not None
        place = tuple(slice(start // 4, start // 4 + side // 4) for start in first)
        weight = our_weight(tuple(start // 4 for start in first), (side // 4,) * len(size), cells)
        tokens[place] += features.tokens_BTD[0].unflatten(0, features.grid).numpy() * weight[..., None]
        embedding[place] += features.embedding_BD[0].numpy() * weight[..., None]
        count[place] += weight
    found = SlidingWindows(network, side, overlap=0.5).features(images, known(1), (2.0,) * len(size), dense=True)
    assert found.grid == tuple(cells) and found.tokens_BTD is not None
    expected = (tokens / count[..., None]).reshape(1, -1, 32)
    np.testing.assert_allclose(found.tokens_BTD.numpy(), expected, atol=1e-5)
    expected = (embedding / count[..., None]).reshape(-1, 32).mean(axis=0, keepdims=True)
    np.testing.assert_allclose(found.embedding_BD.numpy(), expected, atol=1e-5)


def seams(values: Sequence[Tensor], field: Tensor, tiling: Tiling, windows: Sequence[Window]) -> float:
    """The most by which a window moves the field where it ends inside the image: its share times its difference."""
    most = 0.0
    for window, value in zip(windows, values, strict=True):
        place = tiling.cells_of(window)
        weight = torch.ones((), dtype=torch.float64)
        for factor in tiling.shares(window):
            weight = weight[..., None] * factor
        moved = (weight * (value - field[(slice(None), *place)]).abs()).amax(0)
        for axis, (cells, length) in enumerate(zip(place, tiling.cells, strict=True)):
            if cells.start:
                most = max(most, float(moved.select(axis, 0).max()))
            if cells.stop < length:
                most = max(most, float(moved.select(axis, -1).max()))
    return most


@torch.no_grad()
@pytest.mark.slow
def test_tokens_and_restoration_of_a_smooth_volume_have_no_seam_above_a_hundredth_of_their_range() -> None:
    """Windows of 6 cells, at half overlap; an untrained network makes different things of the same place in each."""
    network, decoder, image = small(), RestorationDecoder(32, 1, 4, 3, hidden=8).eval(), smooth((60, 42, 36))
    found = SlidingWindows(network, 24).features(image, known(1), (1.0,) * 3, dense=True)
    assert found.tokens_BTD is not None
    tokens = found.tokens_BTD[0].T.unflatten(1, found.grid)
    slabs = list(restored(network, decoder, image, known(1), (1.0,) * 3, window=24, at_once=2))
    voxels = torch.cat([values for _, values in slabs], dim=1)
    assert len(slabs) == 4 and voxels.shape == (1, 60, 42, 36)
    for field, step in ((tokens, 4), (voxels, 1)):
        tiling = Tiling(image.shape[2:], 24, step=step)
        windows = list(itertools.chain.from_iterable(tiling.layers()))
        told = []
        for window in windows:
            features = network.features(window.of(image), known(1), (1.0,) * 3, dense=True)
            assert features.tokens_BTD is not None
            unfolded = features.tokens_BTD[0].T.unflatten(1, features.grid)
            told.append(unfolded if step == 4 else decoder(features, window.of(image))[0])
        reach = float(field.max() - field.min())
        assert seams(told, field, tiling, windows) < 0.01 * reach
        centre = told[len(windows) // 2] - field[(slice(None), *tiling.cells_of(windows[len(windows) // 2]))]
        assert centre.abs().max() > 0.05 * reach  # they do differ


@torch.no_grad()
def test_a_study_of_images_on_one_grid_is_cut_alike_and_others_are_refused() -> None:
    network, sliding = small().eval(), SlidingWindows(small().eval(), 16)
    sliding.network.load_state_dict(network.state_dict())
    first, second = smooth((24, 24, 24), batch=2), -smooth((24, 24, 24), batch=2)
    modality = torch.tensor([int(Modality.mri), int(Modality.ct)])
    pair = [StudyImage(first, modality, (1.0,) * 3), StudyImage(second, modality, None, torch.tensor([True, False]))]
    both = sliding.study(pair, known(2), dense=True)
    assert [each.shape for each in both.tokens] == [(2, 216, 32)] * 2
    alone = sliding.study([StudyImage(first[1:], modality[1:], (1.0,) * 3)], known(1), dense=True)
    torch.testing.assert_close(both.embedding_BD[1:], alone.embedding_BD, atol=1e-5, rtol=0)
    torch.testing.assert_close(both.tokens[0][1:], alone.tokens[0], atol=1e-5, rtol=0)
    with pytest.raises(DataError, match="images of one study with sizes"):
        sliding.study([StudyImage(first), StudyImage(second[..., 1:])])
    covered = [StudyImage(first[..., :16, :16, :16]), StudyImage(second[..., :12, :16, :16])]
    torch.testing.assert_close(sliding.study(covered).embedding_BD, network.study(covered).embedding_BD)


@torch.no_grad()
def test_a_network_of_one_resolution_reads_windows_of_it() -> None:
    """With voxel_mm 2 an image of 1 mm is first made half as large; rows may differ in spacing."""
    network = small(voxel_mm=2.0).eval()
    images, spacing_mm = smooth((40, 40, 40), batch=2), torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    sliding = SlidingWindows(network, 20)
    found = sliding.features(images, known(2), spacing_mm)
    whole = network.features(images[:1], known(1), spacing_mm[:1])  # 20 voxels of 2 mm: one window
    torch.testing.assert_close(found.embedding_BD[:1], whole.embedding_BD, atol=1e-5, rtol=0)
    windows = sliding.features(images[1:], known(1), (2.0, 2.0, 2.0))
    torch.testing.assert_close(found.embedding_BD[1:], windows.embedding_BD, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.slow
def test_memory_does_not_grow_with_the_depth_of_the_image() -> None:
    network, decoder = small().eval(), RestorationDecoder(32, 1, 4, 3, hidden=4).eval()

    def peak(depth: int) -> int:
        image = smooth((depth, 24, 24))
        with _Live() as live:
            for _, values in restored(network, decoder, image, window=16):
                assert values.shape[0] == 1
        return live.peak - image.nbytes  # of which windows are views

    assert peak(160) <= 1.02 * peak(48)


def test_windows_that_cannot_be_used_are_refused() -> None:
    network = small()
    for window, overlap, message in (
        (10, 0.5, "window 10: a multiple of 4, the voxels of a token, is expected"),
        (8, 1.0, "overlap 1.0: from 0 and below 1 is expected"),
        (0, 0.5, "window 0: a multiple of 4"),
    ):
        with pytest.raises(ConfigError, match=message):
            SlidingWindows(network, window, overlap)
    with pytest.raises(ConfigError, match="for each of the 2 axes is expected"):
        SlidingWindows(network, (8, 8, 8)).features(smooth((30, 30)))
    with pytest.raises(ValueError, match="2 images; one at a time"):
        next(restored(network, RestorationDecoder(32, 1, 4, 2), smooth((30, 30), batch=2), window=16))
    assert isinstance(network, Medformer)
