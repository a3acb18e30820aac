"""New images go through what the learned ones went through, or are refused: files, tables, shards, archives, arrays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from data_shards.sample import Image as Picture
from data_shards.sources.medmnist.source import MedMNIST
from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Modality, Organ, Task
from data_shards.writing.writer import write_dataset
from finetune.cases import Cases
from finetune.images import Study
from finetune.readers import array_recipe, read_cases, read_new
from finetune.readers.recipe import ImageRecipe, Recipe
from tests.data_shards.sources.images.make import images, table
from tests.finetune.test_files import picture, pixels


def volume(path: Path, seed: int, shape: tuple[int, int, int] = (6, 7, 8), *, placed: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    image = nibabel.Nifti1Image(values, np.diag([1.0, 2.0, 3.0, 1.0]))
    if not placed:
        image.header["pixdim"][1:4] = 0
        image.set_sform(None, 0)
        image.set_qform(None, 0)
    nibabel.save(image, path)
    return path


def same(one: Cases, other: Cases) -> None:
    """The pixels, spacings and names of two sets of cases."""
    assert len(one.rows) == len(other.rows)
    for first, second in zip(one.rows, other.rows, strict=True):
        left, right = one.pictures.study(int(first)), other.pictures.study(int(second))
        assert left.organ is right.organ and left.images.keys() == right.images.keys()
        for name, image in left.images.items():
            np.testing.assert_array_equal(image.pixels, right.images[name].pixels)
            assert (image.spacing_mm, image.modality) == (right.images[name].spacing_mm, right.images[name].modality)


def learned(folder: Path, **told: Any) -> Cases:
    (part,) = read_cases(folder, **told).values()
    return part


def test_the_same_files_become_the_same_pixels(tmp_path: Path) -> None:
    for number in range(4):
        volume(tmp_path / "ab"[number % 2] / f"{number}.nii.gz", number, (6 + number, 7, 8))
    prepare = {"spacing_mm": 2, "crop": "foreground", "size": 12, "fit": "crop"}
    part = learned(tmp_path, organ=Organ.brain, modality=Modality.mri, prepare=prepare)
    record = json.loads(json.dumps(part.recipe))
    assert Recipe.of(record).model_dump(mode="json") == part.recipe
    again = read_new(tmp_path, record)
    same(part, again)
    assert again.labels.tolist() == part.labels.tolist() and again.recipe == part.recipe
    new = tmp_path / "new"
    shutil.copytree(tmp_path / "a", new / "scans")
    (only,) = {read_new(new, record)[:1].keys[0]}
    assert only == "file 1" and read_new(new, record).labels is None
    np.testing.assert_array_equal(pixels(read_new(new, record))[0], pixels(part)[0])


def test_labels_of_a_table_are_read_with_the_classes_that_were_learned(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / f"{number}.png", number)
    columns = {"path": "Image", "label": "Grade", "subject": "Who"}
    rows = [("Image", "Grade", "Who"), ("0.png", "mild", 1), ("1.png", "moderate", 2), ("2.png", "severe", 3)]
    part = learned(tmp_path, csv=table(tmp_path / "t.csv", rows), options={"columns": columns})
    new = table(tmp_path / "new.csv", [("Image", "Grade"), ("3.png", "severe"), ("0.png", "mild")])
    found = read_new(tmp_path, part.recipe, csv=new)
    assert found.labels[:, 0].tolist() == [2, 0] and dict(found.classes) == {0: "mild", 1: "moderate", 2: "severe"}
    found = read_new(tmp_path, part.recipe, csv=table(tmp_path / "bare.csv", [("Image",), ("3.png",)]))
    assert found.labels is None and found.keys.tolist() == ["row 2"]
    found = read_new(tmp_path, part.recipe, csv=table(tmp_path / "s.csv", [*rows, ("3.png", "", 4)]))
    assert found.labels is None and "1 of 4 cases have no label: none is scored" in found.warnings
    with pytest.raises(DataError, match="row 2 of the table: the label is none of the 3 classes that are given"):
        read_new(tmp_path, part.recipe, csv=table(tmp_path / "x.csv", [("Image", "Grade"), ("3.png", "Doe")]))


def test_numbers_are_read_as_numbers_and_bags_as_bags(tmp_path: Path) -> None:
    rows = [("path", "label", "bag")]
    rows += [
        (picture(tmp_path / f"{number}.png", number).name, number // 2 / 2, f"b{number // 2}") for number in range(6)
    ]
    part = learned(tmp_path, csv=table(tmp_path / "t.csv", rows), task=Task.regression)
    found = read_new(tmp_path, part.recipe, csv=tmp_path / "t.csv")
    assert found.labels.tolist() == part.labels.tolist() == [[0.0], [0.5], [1.0]]
    assert found.bags.tolist() == [0, 0, 1, 1, 2, 2]
    same(part, found)


def test_a_table_scores_what_was_learned_from_folders(tmp_path: Path) -> None:
    recipe = planes(tmp_path / "old")
    new = tmp_path / "new"
    rows = [("file", "label"), (picture(new / "0.png", 7).name, "b"), (picture(new / "1.png", 8).name, "a")]
    found = read_new(new, recipe, csv=table(tmp_path / "t.csv", rows))
    assert found.labels[:, 0].tolist() == [1, 0]
    assert read_new(new, recipe, csv=table(tmp_path / "t.csv", [cells[:1] for cells in rows])).labels is None


def test_subjects_by_folder_are_not_asked_of_new_images(tmp_path: Path) -> None:
    for number in range(8):
        picture(tmp_path / "old" / "ab"[number % 2] / f"p{number // 2 * 2 + number % 2 % 2}" / f"{number}.png", number)
    part = learned(tmp_path / "old", options={"subject": "folder"})
    assert len(np.unique(part.subjects)) == 8
    picture(tmp_path / "new" / "0.png", 1)
    assert read_new(tmp_path / "new", part.recipe).subjects is None


def planes(folder: Path, **told: Any) -> dict[str, Any]:
    for number in range(4):
        picture(folder / "ab"[number % 2] / f"{number}.png", number)
    return learned(folder, **told).recipe


def refused(message: str, folder: Path, recipe: Any, **told: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_new(folder, recipe, **told)
    assert "\n" not in str(caught.value) and "Doe" not in str(caught.value)


def test_what_does_not_fit_pictures_is_refused_with_its_number(tmp_path: Path) -> None:
    recipe = planes(tmp_path / "old")
    new = tmp_path / "new"
    picture(new / "0.png", 9)
    file = new / "Doe.png"
    for shape, dtype, message in [
        (
            (6, 7),
            np.uint16,
            r"file 2: holds measured values \(uint16\); those learned from have the 8 bits",
        ),
        ((5, 7), np.uint8, r"file 2: has 5 x 7 voxels; all images learned from have 6 x 7"),
        ((6, 7, 3), np.uint8, r"file 2: has 3 channels of different colours; those learned from have 1"),
    ]:
        picture(file, 1, shape, dtype)
        refused(message, new, recipe)
    file.unlink()
    volume(new / "Doe.nii.gz", 1)
    refused("file 2: is volumetric; those learned from are planar", new, recipe)
    (new / "Doe.nii.gz").write_bytes(b"\x1f\x8b" + bytes(30))
    refused("file 2", new, recipe)
    assert len(read_new(new, recipe, on_error="skip")) == 1
    refused("no such file or folder", tmp_path / "nowhere", recipe)
    refused("no image in this folder", (tmp_path / "empty", (tmp_path / "empty").mkdir())[0], recipe)
    with pytest.raises(ConfigError, match="recipe: unknown key 'imagess'; did you mean 'images'"):
        read_new(new, {"imagess": {}})


def test_what_loses_nothing_is_brought(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "old" / "ab"[number % 2] / f"{number}.png", number, (6, 7, 3))
    recipe = learned(tmp_path / "old", size=4).recipe
    grey = np.asarray(Image.open(picture(tmp_path / "new" / "0.png", 1, (9, 9))))
    (image,) = pixels(read_new(tmp_path / "new", recipe))
    assert image.shape == (3, 4, 4) and (image == image[0]).all() and grey.shape == (9, 9)
    for number in range(2):
        shutil.rmtree(tmp_path / "new")
        picture(tmp_path / "grey" / "ab"[number] / "0.png", number)
        equal = np.repeat(np.asarray(Image.open(picture(tmp_path / "new" / "0.png", 5)))[..., None], 3, axis=2)
        Image.fromarray(equal).save(tmp_path / "new" / "0.png")
    recipe = learned(tmp_path / "grey", label="folder").recipe
    np.testing.assert_array_equal(pixels(read_new(tmp_path / "new", recipe))[0][0], equal[..., 0])
    picture(tmp_path / "new" / "0.png", 3, (6, 7, 3))
    lossy = learned(tmp_path / "grey", label="folder", channels=1).recipe
    assert pixels(read_new(tmp_path / "new", lossy))[0].shape == (1, 6, 7)


def test_what_does_not_fit_volumes_is_refused(tmp_path: Path) -> None:
    for number in range(4):
        volume(tmp_path / "old" / "ab"[number % 2] / f"{number}.nii", number, (6 + number, 7, 8))
    recipe = learned(tmp_path / "old").recipe
    new = tmp_path / "new"
    volume(new / "0.nii", 9, (11, 12, 13))
    (brought,) = pixels(read_new(new, recipe))
    stored = np.asarray(nibabel.load(new / "0.nii").dataobj)
    low, high = np.percentile(stored, [0.5, 99.5])
    expected = np.rint(np.clip((stored - low) / (high - low), 0, 1) * 255)[::-1, ::-1].transpose(2, 1, 0)
    assert np.abs(brought[0] - expected).max() <= 1  # numpy's percentile of float32 is rounded to float32
    volume(new / "1.nii", 9, placed=False)
    refused("file 2: does not say the distance of its voxels; all images learned from do", new, recipe)
    (new / "1.nii").unlink()
    np.save(new / "1.npy", np.zeros((1, 6, 7, 8), np.uint8))
    refused("file 2: does not say the distance", new, recipe)
    free = learned(tmp_path / "old").recipe
    free["images"]["image"]["spacing"] = "some"
    refused("file 2: has the 8 bits of a picture; those learned from hold measured values", new, free)


def test_names_of_images_that_were_never_seen_are_refused(tmp_path: Path) -> None:
    rows = [("path", "study", "image", "label")]
    for number in range(4):
        for name in ("t1", "t2"):
            file = picture(tmp_path / f"{number}{name}.png", 10 * number + (name == "t2"))
            rows.append((file.name, number, name, number % 2))
    recipe = learned(tmp_path, csv=table(tmp_path / "t.csv", rows)).recipe
    only = table(tmp_path / "new.csv", [("path", "study", "image"), ("0t2.png", 0, "t2")])
    assert list(read_new(tmp_path, recipe, csv=only).pictures.study(0).images) == ["t2"]
    other = table(tmp_path / "new.csv", [("path", "study", "image"), ("0t2.png", 0, "Doe")])
    refused(
        "row 2 of the table: 1 of its 1 images have a name that was never seen; known are t1, t2",
        tmp_path,
        recipe,
        csv=other,
    )
    both = table(tmp_path / "new.csv", [("path", "study", "image"), ("0t2.png", 0, "mask"), ("0t1.png", 0, "t1")])
    assert list(read_new(tmp_path, recipe, csv=both).pictures.study(0).images) == ["t1"]


def test_an_archive_and_shards_have_recipes_and_licences(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "medmnist" / "breastmnist.npz"
    splits = read_cases(archive)
    recipe = Recipe.of(splits["test"].recipe)
    assert (recipe.data, recipe.images["image"].size, recipe.images["image"].channels) == ("archive", (28, 28), 1)
    assert splits["test"].licence.startswith("CC BY 4.0") and recipe.organ == "breast"
    found = read_new(archive, recipe, split="test")
    same(splits["test"], found)
    assert found.labels.tolist() == splits["test"].labels.tolist() and len(read_new(archive, recipe)) == 780
    folder = write_dataset(MedMNIST("breastmnist", file=archive), tmp_path / "shards") and tmp_path / "shards"
    from_shards = read_cases(folder)
    assert Recipe.of(from_shards["test"].recipe).images == recipe.images
    assert from_shards["test"].licence == splits["test"].licence
    found = read_new(folder, from_shards["test"].recipe, split="test")
    same(splits["test"], found)
    assert found.labels.tolist() == splits["test"].labels.tolist()
    assert read_cases(folder, label="none")["val"].labels is None
    files = tmp_path / "files"
    for number, pixels_CHW in enumerate(splits["test"].images[:3]):
        picture(files / f"{number}.png", 0)
        Image.fromarray(pixels_CHW[0]).save(files / f"{number}.png")
    np.testing.assert_array_equal(np.stack(pixels(read_new(files, recipe))), splits["test"].images[:3])
    picture(files / "Doe.png", 0)
    refused("file 4: has 6 x 7 voxels; all images learned from have 28 x 28", files, recipe)
    refused("no split 'other'; valid: ", folder, recipe, split="other")
    refused("a split is for shards and archives", files, recipe, split="test")
    adrenal = shared_data / "medmnist" / "adrenalmnist3d.npz"
    refused("is volumetric; those learned from are planar", adrenal, recipe)


def test_shards_of_different_sizes_and_several_images_are_read_when_needed(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("path", "study", "image", "label", "split", "subject")]
    for number in range(8):
        for name in ("t1", "t2")[: 1 + (number != 3)]:
            file = picture(
                tmp_path / f"{number}{name}.png", 10 * number + (name == "t2"), (5 + number, 6),
                np.uint16 if name == "t2" else np.uint8,
            )  # fmt: skip
            rows.append((file.name, number, name, number % 2, "train" if number < 6 else "test", number))
    listing = table(tmp_path / "t.csv", rows)
    source = images(tmp_path, table=listing, name="pair")
    write_dataset(source, tmp_path / "shards")
    from_shards, from_files = read_cases(tmp_path / "shards"), read_cases(tmp_path, csv=listing)
    for split, part in from_shards.items():
        assert not isinstance(part.images, np.ndarray)
        order = np.argsort([part.pictures.study(int(row)).images["t1"].pixels.shape[1] for row in part.rows])
        same(part.select(order), from_files[split])
        assert part.labels[order].tolist() == from_files[split].labels.tolist()
        assert part.recipe["images"] == from_files[split].recipe["images"]
        assert dict(part.classes) == dict(from_files[split].classes)
    found = read_new(tmp_path / "shards", from_files["train"].recipe, split="test")
    assert {image.shape for image in pixels(found, "t1")} == {(1, 11, 6), (1, 12, 6)}
    same(found, from_shards["test"])


def test_shards_deeper_than_8_bits_are_scaled(tmp_path: Path) -> None:
    for number in range(4):
        volume(tmp_path / "files" / "ab"[number % 2] / f"{number}.nii", number)
    write_dataset(images(tmp_path / "files", label="folder", name="deep"), tmp_path / "shards")
    splits = read_cases(tmp_path / "shards")
    (whole,) = read_cases(tmp_path / "files").values()
    found = sorted(image.tobytes() for part in splits.values() for image in pixels(part))
    assert found == sorted(image.tobytes() for image in pixels(whole))
    assert {part.recipe["images"]["image"]["depth"] for part in splits.values()} == {"measured"}


def test_arrays_have_a_recipe_that_checks_others() -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 5, 6), dtype=np.uint8)
    recipe = array_recipe([values], [np.array([1.0, 2.0, 3.0])], organ=Organ.brain)
    assert recipe.data == "array" and recipe.images["image"] == ImageRecipe(
        channels=1, dimensionality="volumetric", size=(4, 5, 6), spacing="all"
    )
    studies = recipe.brought_array(values, np.full((3, 3), 1.0))
    np.testing.assert_array_equal(studies[2].images["image"].pixels, values[2])
    for other, spacing, message in [
        (values, None, "image 0: does not say the distance of its voxels"),
        (values[..., :5], np.ones(3), "image 0: has 4 x 5 x 5 voxels"),
        (values[:, :, 0], np.ones(2), "image 0: is planar; those learned from are volumetric"),
        (values.astype(np.int16), np.ones(3), r"image 0: holds measured values \(int16\)"),
        (np.repeat(values, 2, axis=1), np.ones(3), "image 0: has 2 channels; those learned from have 1"),
        (values, np.array([[1, 1, 1], [1, np.nan, 1], [1, 1, 1]]), "image 1: does not say the distance"),
    ]:
        with pytest.raises(DataError, match=message):
            recipe.brought_array(other, spacing)
    unknown = array_recipe([values], [None])
    assert unknown.images["image"].spacing == "none"
    half = array_recipe([values], [np.array([[1, 1, 1], [np.nan] * 3, [1, 1, 1]])])
    assert half.images["image"].spacing == "some" and len(half.brought_array(values)) == 3


def test_an_image_without_a_name_is_the_only_one_there_is() -> None:
    recipe = Recipe(data="files", images={"t1": ImageRecipe(channels=1, dimensionality="planar")})
    image = Picture(np.zeros((1, 4, 4), np.uint8))
    assert list(recipe.brought(Study({"image": image})).images) == ["t1"]
    with pytest.raises(DataError, match="known are t1"):
        recipe.brought(Study({"t2": image}))
    with pytest.raises(DataError, match="has none of the images t1"):
        recipe.brought(Study({"mask": image}))


_MEASURE = """
import resource, sys
from pathlib import Path
from finetune.readers import read_cases, read_new
import nibabel, PIL.Image
folder, prepare = Path(sys.argv[1]), {"intensity": {"percentile": [0.5, 99.5]}}
(few,) = read_cases(folder / "few", prepare=prepare).values()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(part,) = read_cases(folder / "many", prepare=prepare).values()
for row in part.rows:
    part.pictures.study(int(row))
part.content_sha256() if part.labels is not None else part.digests()
new = read_new(folder / "many", part.recipe)
assert len(new) == len(part)
print(len(part), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_volumes_are_read_in_the_memory_of_a_few(tmp_path: Path) -> None:
    """200 volumes of 96^3 are 177 MB of pixels, read, read again and read as new ones; the process grows by a few."""
    values = np.random.default_rng(0).integers(0, 4000, (96, 96, 96)).astype(np.int16)
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    for number in range(200):
        values[number % 96] += 1
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "many" / f"{number}.nii")
    for number in range(2):
        os.link(tmp_path / "many" / f"{number}.nii", tmp_path / "few" / f"{number}.nii")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)], capture_output=True, text=True, check=True, env=os.environ
    )
    count, grown_kib = map(int, done.stdout.split())
    assert count == 200 and grown_kib < 40 << 10
