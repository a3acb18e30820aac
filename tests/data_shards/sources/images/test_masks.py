"""The voxels of a stored mask are those it was drawn on, whatever its header says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from data_shards.sample import Sample
from data_shards.sources.images.masks import placing_of
from data_shards.sources.images.study import Place
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.make import images, nifti, reference, stored_as, table

MASK = (reference() % 7 == 0).astype(np.uint8)
IMAGE = np.where(MASK > 0, 200, reference()).astype(np.int16)


def study(root: Path, **options: Any) -> Sample:
    """The sample of ``img`` and ``seg``, whatever their formats."""
    names = sorted(path.name for path in root.iterdir() if path.stem.startswith(("img", "seg")))
    rows = [(name, "s1", "mask" if name.startswith("seg") else name.partition(".")[0]) for name in names]
    listed = table(root / "t.csv", [("path", "study", "image"), *rows])
    return images(root, table=listed, **options).sample(0)


def written(root: Path, codes: str, affine: np.ndarray | None, mask_codes: str | None = None) -> None:
    data, own = stored_as(IMAGE, codes)
    nifti(root / "img.nii", data, own)
    nifti(root / "seg.nii", stored_as(MASK, mask_codes or codes)[0], affine)


def on_its_voxels(sample: Sample) -> bool:
    mask = sample.images["mask"].pixels
    return all(
        bool((image.pixels[mask > 0] == 200).all() and (image.pixels[mask == 0] != 200).all())
        for name, image in sample.images.items()
        if name != "mask"
    )


def place(name: str) -> Place:
    return Place(name, "seg.nii" if name == "mask" else f"{name}.nii", "nifti")


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SAL"])
def test_a_mask_with_another_affine_is_refused_by_name(tmp_path: Path, codes: str):
    written(tmp_path, codes, np.diag([0.5, 2.0, 3.0, 1.0]) if codes != "RAS" else np.diag([-0.5, -2.0, 3.0, 1.0]))
    with pytest.raises(DataError, match=r"row 3 of the table.*: mask: header and image disagree.*mask_header: image"):
        study(tmp_path)


@pytest.mark.parametrize("rule", ["image", "mask"])
@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR"])
def test_whichever_header_counts_the_drawing_stays_on_its_voxels(tmp_path: Path, rule: str, codes: str):
    turned = stored_as(MASK, "AIR")[1]
    turned[:3, 3] += 3
    written(tmp_path, codes, turned)
    sample = study(tmp_path, mask_header=rule)
    assert on_its_voxels(sample)
    right = IMAGE if rule == "image" else None
    if right is not None:
        np.testing.assert_array_equal(sample.images["img"].pixels[0], right)
    assert "elsewhere" in sample.images["mask"].notes[0]


@pytest.mark.parametrize("mask_codes", ["LPS", "RAS", "PIR"])
def test_a_mask_stored_in_another_order_whose_affine_is_right_is_taken(tmp_path: Path, mask_codes: str):
    nifti(tmp_path / "img.nii", *stored_as(IMAGE, "LPS"))
    nifti(tmp_path / "seg.nii", *stored_as(MASK, mask_codes))
    sample = study(tmp_path)
    assert on_its_voxels(sample) and sample.images["mask"].notes == ()


@pytest.mark.parametrize("shift, taken", [(0.04, True), (0.2, False), (0.5, False)])
def test_rounding_is_told_from_another_place(tmp_path: Path, shift: float, taken: bool):
    affine = stored_as(IMAGE, "LPS")[1]
    affine[0, 3] += shift * 0.5  # of the smallest side of a voxel
    written(tmp_path, "LPS", affine)
    if taken:
        assert on_its_voxels(study(tmp_path))
    else:
        with pytest.raises(DataError, match="disagree"):
            study(tmp_path)


def test_a_mask_that_says_nothing_lies_voxel_on_voxel_and_it_is_told(tmp_path: Path):
    written(tmp_path, "PIR", None)
    sample = study(tmp_path)
    assert on_its_voxels(sample) and "does not say where" in sample.images["mask"].notes[0]
    assert sample.images["mask"].spacing_mm == sample.images["img"].spacing_mm


def test_images_of_a_study_may_lie_elsewhere_when_the_mask_fits_one_of_them(tmp_path: Path):
    data, affine = stored_as(IMAGE, "LPS")
    nifti(tmp_path / "img.nii", data, affine)
    nifti(tmp_path / "seg.nii", stored_as(MASK, "LPS")[0], affine)
    affine[:3, 3] += 40
    nifti(tmp_path / "img2.nii", data, affine)
    sample = study(tmp_path)
    assert on_its_voxels(sample) and "not on those of img2" in sample.images["mask"].notes[0]


@pytest.mark.parametrize("rule", ["refuse", "image", "mask"])
@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize("kind", ["mirrored", "moved", "reordered"])
def test_between_images_that_differ_nothing_says_on_which_a_mask_was_drawn(
    tmp_path: Path, rule: str, elsewhere: bool, kind: str
):
    nifti(tmp_path / "img.nii", *stored_as(IMAGE, "LPS"))
    data, affine = stored_as(IMAGE, "RPS" if kind == "mirrored" else "PIR" if kind == "reordered" else "LPS")
    affine[:3, 3] += 40 * (kind == "moved")
    nifti(tmp_path / "img2.nii", data, affine)
    nifti(tmp_path / "seg.nii", stored_as(MASK, "LPS")[0], np.diag([0.6, 2.0, 3.0, 1.0]) if elsewhere else None)
    with pytest.raises(DataError, match=r"row 4 of the table.*which it was drawn on is not known, img or img2"):
        study(tmp_path, mask_header=rule)


@pytest.mark.parametrize("rule", ["image", "mask"])
def test_a_mask_lies_on_all_images_of_one_grid_and_not_on_those_of_another_size(tmp_path: Path, rule: str):
    data, affine = stored_as(IMAGE, "LPS")
    nifti(tmp_path / "img.nii", data[:-1], affine)
    nifti(tmp_path / "img2.nii", data, affine)
    nifti(tmp_path / "img3.nii", data, affine)
    turned = stored_as(MASK, "AIR")[1]
    nifti(tmp_path / "seg.nii", stored_as(MASK, "LPS")[0], turned)
    placing = placing_of(tmp_path, {n: place(n) for n in ("img", "img2", "img3", "mask")}, rule)
    assert set(placing.headers) == ({"mask"} if rule == "image" else {"img2", "img3"})
    expected = affine if rule == "image" else turned
    for header in placing.headers.values():
        np.testing.assert_allclose(header.affine, expected)
    assert "that of img2 and img3" in placing.notes[0]


def test_a_mask_of_the_size_of_an_image_without_a_place_lies_on_that_one(tmp_path: Path):
    data, affine = stored_as(IMAGE, "LPS")
    nifti(tmp_path / "img.nii", data, None)
    nifti(tmp_path / "img2.nii", data[:-1], affine)
    nifti(tmp_path / "seg.nii", stored_as(MASK, "LPS")[0], np.diag([0.6, 2.0, 3.0, 1.0]))
    placing = placing_of(tmp_path, {n: place(n) for n in ("img", "img2", "mask")}, "refuse")
    assert placing.headers["mask"].affine is None and "voxels of img one by one" in placing.notes[0]


def test_a_mask_of_another_size_is_refused(tmp_path: Path):
    data, affine = stored_as(IMAGE, "LPS")
    nifti(tmp_path / "img.nii", data, affine)
    nifti(tmp_path / "seg.nii", stored_as(MASK[:-1], "LPS")[0], affine)
    with pytest.raises(DataError, match="disagree|differ in grid"):
        study(tmp_path, mask_header="image")


def flat(root: Path, mask: PIL.Image.Image) -> None:
    PIL.Image.fromarray(np.arange(480, dtype=np.uint8).reshape(20, 24)).save(root / "img.png")
    mask.save(root / "seg.png")


IDS = np.zeros((20, 24), np.uint8)
IDS[4:9, 5:12], IDS[12:15, 3:8] = 1, 2


def test_the_entries_of_a_palette_are_class_ids(tmp_path: Path):
    picture = PIL.Image.fromarray(IDS, mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    flat(tmp_path, picture)
    np.testing.assert_array_equal(study(tmp_path).images["mask"].pixels[0], IDS)


@pytest.mark.parametrize("kind", ["grey", "palette", "frames"])
def test_a_gif_is_no_mask_as_it_numbers_its_colours_anew(tmp_path: Path, kind: str):
    ids = PIL.Image.fromarray(np.where(IDS == 1, np.uint8(5), IDS))
    flat(tmp_path, ids)
    (tmp_path / "seg.png").unlink()
    if kind == "palette":
        ids = PIL.Image.fromarray(IDS, mode="P")
        ids.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    more = [PIL.Image.fromarray(IDS)] if kind == "frames" else []
    ids.save(tmp_path / "seg.gif", save_all=bool(more), append_images=more)
    with pytest.raises(DataError, match=r"row 3 of the table.*: a GIF keeps colours.*expected as PNG"):
        study(tmp_path)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_pixels_of_few_bits_are_the_ids_that_were_stored(tmp_path: Path, bits: int):
    from tests.data_shards.sources.images.make import png

    ids = np.minimum(IDS, 2**bits - 1)
    unpacked = np.unpackbits(ids[..., None], axis=-1)[..., 8 - bits :].reshape(20, -1)
    raw = b"".join(b"\0" + np.packbits(row).tobytes() for row in unpacked)
    flat(tmp_path, PIL.Image.fromarray(IDS))
    (tmp_path / "seg.png").write_bytes(png(24, 20, raw, depth=bits))
    np.testing.assert_array_equal(study(tmp_path).images["mask"].pixels[0], ids)


def test_equal_channels_are_one_and_colours_are_refused(tmp_path: Path):
    flat(tmp_path, PIL.Image.fromarray(np.dstack([IDS, IDS, IDS])))
    np.testing.assert_array_equal(study(tmp_path).images["mask"].pixels[0], IDS)
    flat(tmp_path, PIL.Image.fromarray(np.dstack([IDS, IDS, 0 * IDS])))
    with pytest.raises(DataError, match="row 3 of the table: a mask has one channel of class ids; this one has 3"):
        study(tmp_path)


def test_a_mask_picture_of_another_size_is_refused(tmp_path: Path):
    flat(tmp_path, PIL.Image.fromarray(IDS[:-1]))
    with pytest.raises(DataError, match="differ in grid"):
        study(tmp_path)
