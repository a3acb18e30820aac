"""Cells, voxels and the images that prepared ones were made of."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from data_shards.prepare.document import Preparation
from data_shards.sample import Image
from finetune.explain.files import write_map
from finetune.explain.space import CellMap, of_tokens, of_volumes, of_whole, token_grid
from finetune.images import Study
from finetune.readers.recipe import ImageRecipe, Recipe
from finetune.slices import Slices
from tests.finetune.samples import tiny_backbone


def recipe(axes: int, **prepare: object) -> Recipe:
    kind = "planar" if axes == 2 else "volumetric"
    images = {"image": ImageRecipe(channels=1, dimensionality=kind, depth="any")}
    return Recipe(data="array", images=images, preparation=Preparation(**prepare))


@pytest.mark.parametrize(
    "prepare",
    [{}, {"size": 9}, {"size": 40}, {"size": 20, "fit": "resize"}, {"spacing_mm": 2.5},
     {"crop": "foreground", "threshold": 100, "margin": 1},
     {"crop": "foreground", "threshold": 100, "margin": 0, "size": 12, "fit": "resize"}],
)  # fmt: skip
@pytest.mark.parametrize("axes", [2, 3])
def test_a_prepared_image_knows_where_each_of_its_voxels_was(axes: int, prepare: dict) -> None:
    """A smooth image, prepared, has at each voxel what the original has where the voxel is said to come from."""
    shape = (23, 30, 17)[:axes]
    grid = np.indices(shape).astype(np.float32)
    values = (100 + 2 * grid[0] + 3 * grid[1] + (grid[2] if axes == 3 else 0))[None].astype(np.float32)
    inner = (slice(None), *[slice(3, -3)] * axes)
    held = np.full_like(values, 20.0)
    held[inner] = values[inner]
    study = recipe(axes, **prepare).brought(
        Study({"image": Image(held.round().astype(np.uint8), spacing_mm=(2.0,) * axes)})
    )
    image, origin = study.images["image"], study.origins["image"]
    assert origin.shape == shape and image.affine is None
    places = np.indices(image.pixels.shape[1:]).reshape(axes, -1)
    there = origin.change @ np.vstack([places, np.ones(places.shape[1])])
    sure = np.all([(each > 5) & (each < length - 6) for each, length in zip(there, shape, strict=False)], axis=0)
    expected = map_coordinates(held[0].round(), there[:axes], order=1)
    assert sure.sum() > 20
    assert np.abs(image.pixels[0].ravel().astype(float) - expected)[sure].max() <= 1.5


def test_a_map_on_the_original_lies_where_it_lay_on_the_prepared_image() -> None:
    study = recipe(2, crop="foreground", threshold=100, margin=0, size=12, fit="resize").brought(
        Study({"image": Image(np.pad(np.full((1, 24, 24), 200, np.uint8), ((0, 0), (5, 11), (7, 9))))})
    )
    origin = study.origins["image"]
    values = np.zeros((3, 3), np.float32)
    values[2, 0] = 1.0
    said = CellMap(0, "image", (12, 12), values, (1.5, 1.5), (4.0, 4.0))
    found = said.on_grid(origin.shape, origin.change)
    assert found.shape == (40, 40)
    rows, columns = np.nonzero(found == found.max())
    # The lower left ninth of the box that begins at 5, 7 and is 24 long.
    assert abs(rows.mean() - (5 + 20 - 0.5)) <= 2 and abs(columns.mean() - (7 + 4 - 0.5)) <= 2
    outside = np.ones((40, 40), bool)
    outside[5:29, 7:31] = False
    assert (found[outside] == 0).all() and (said.on_voxels[-1, :2] == 1).all()


@pytest.mark.parametrize("size", [(28, 28), (30, 17), (9, 12, 13)])
def test_tokens_lie_where_the_network_says(size: tuple[int, ...]) -> None:
    import torch

    backbone = tiny_backbone()
    image = Image(np.zeros((1, *size), np.uint8))
    grid = backbone.adapter(torch.zeros(1, 1, *size))[1]
    assert token_grid(backbone, image) == grid.cells
    said = of_tokens(backbone, 0, "image", image, np.arange(np.prod(grid.cells)))
    assert said.firsts == (grid.offset,) * len(size) and said.steps == (grid.stride,) * len(size)
    assert said.on_voxels.shape == size and said.on_voxels.flat[0] == 0
    reached = [min(int((count - 1) * grid.stride + 2 * grid.offset), length - 1)
               for count, length in zip(grid.cells, size, strict=True)]  # fmt: skip
    cells = [
        min((place - grid.offset) / grid.stride, count - 1) for place, count in zip(reached, grid.cells, strict=True)
    ]
    expected = float(np.dot(cells, [np.prod(grid.cells[axis + 1 :]) for axis in range(len(size))]))
    assert said.on_voxels[tuple(reached)] == pytest.approx(expected)  # the number of a cell is linear in its place


def test_slices_become_volumes() -> None:
    slices, image = Slices(axis=1, every=3), Image(np.zeros((1, 6, 4), np.uint8))
    lengths = [10, 2]
    count = sum(len(slices.places(length)) for length in lengths)
    maps = [of_whole(number, "image", image, number) for number in range(count)]
    first, second = of_volumes(maps, slices, lengths)
    assert first.shape == (6, 10, 4) and second.shape == (6, 2, 4) and (first.study, second.study) == (0, 1)
    assert first.on_voxels[0, :, 0].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2, 2, 2])
    assert (second.on_voxels == 3).all()


def test_a_volume_without_an_affine_keeps_its_distances(tmp_path) -> None:
    given = Image(np.full((1, 10, 8, 6), 9, np.uint8), spacing_mm=(3.0, 1.0, 2.0))
    study = recipe(3, size=(5, 8, 12), fit="resize").brought(Study({"image": given}))
    name = write_map(tmp_path, "a", of_whole(0, "image", study.images["image"], 2.5), study)
    found = nibabel.load(tmp_path / name)
    assert found.shape == (10, 8, 6) and found.get_data_dtype() == np.float32
    np.testing.assert_allclose(np.diag(found.affine), [3, 1, 2, 1])
    assert (np.asarray(found.dataobj) == 2.5).all()
