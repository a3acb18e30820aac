"""The source of the user's own images, from a folder or a table to shards."""

from __future__ import annotations

import csv
import multiprocessing
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.inspect.verify import verify
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import Sample, subject_hash
from data_shards.sources.base import source_named
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.source import Images
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality
from data_shards.writing.writer import SKIPPED_FILE, write_dataset
from tests.data_shards.sources.images.dicom.make import CT, header, save, stack
from tests.data_shards.sources.images.make import SALT, grey_png, images, nifti, table, tree

NAMES = [f"folder{number % 3}/p{number:02}.png" for number in range(12)]


def facts(sample: Sample) -> tuple[Any, ...]:
    """All that a sample is, in a form that can be compared."""
    pictures = [(name, image.pixels.tobytes(), image.modality) for name, image in sample.images.items()]
    label = None if sample.label is None else sample.label.tolist()
    return sample.key, sample.subject, sample.split, sample.organ, label, dict(sample.attributes), pictures


def all_facts(source: Images) -> list[tuple[Any, ...]]:
    return [facts(sample) for sample in source]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tree(tmp_path / "root", NAMES)


def test_the_source_is_known_by_its_name():
    assert source_named("images") is Images


def test_samples_come_in_the_same_order_whatever_the_order_on_disk(root: Path, tmp_path: Path):
    again = tree(tmp_path / "again", {name: NAMES.index(name) for name in reversed(NAMES)})
    assert all_facts(images(root)) == all_facts(images(again))
    assert [int(sample.image.pixels[0, 0, 0]) for sample in images(root)] == [
        NAMES.index(name) for name in sorted(NAMES)
    ]


def test_a_pickled_source_gives_the_same_samples_in_another_process(root: Path):
    stack(root / "scan")
    source = images(root)
    assert all_facts(pickle.loads(pickle.dumps(source))) == all_facts(source)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(all_facts, [source]) == [all_facts(source)]


def test_keys_and_subjects_are_salted_hashes(root: Path):
    first, other = images(root), images(root, salt="another salt of this site")
    for one, two in zip(first, other, strict=True):
        assert re.fullmatch("[0-9a-f]{16}", one.key) and re.fullmatch("[0-9a-f]{16}", one.subject)
        assert one.key != two.key and one.subject != two.subject and one.key != one.subject
    assert len({sample.key for sample in first}) == len({sample.subject for sample in first}) == len(NAMES)
    assert first.card.source_checksum != other.card.source_checksum


def test_sets_of_other_names_have_other_keys_and_the_same_subjects(root: Path):
    (root / "a.dcm").write_bytes(save(header(np.zeros((3, 4), np.uint8)), root / "b.dcm").read_bytes())
    (root / "b.dcm").unlink()
    one, two = images(root).sample(0), images(root, name="other").sample(0)
    assert one.key != two.key and one.subject == two.subject == subject_hash("P1", SALT)


def test_keys_stay_when_files_are_added_and_the_checksum_does_not(root: Path):
    before = images(root)
    grey_png(root / "aaa" / "first.png", 99)
    after = images(root)
    assert {sample.key for sample in before} < {sample.key for sample in after}
    assert before.card.source_checksum != after.card.source_checksum


def test_the_patient_of_a_dicom_file_is_the_subject_unless_the_table_says_another(tmp_path: Path):
    root = tmp_path / "root"
    root.mkdir()
    for number in range(4):
        pixels = np.full((3, 4), number, np.uint8)
        save(header(pixels, PatientID=f" P{number // 2} ", SeriesInstanceUID=f"1.{number}"), root / f"{number}.dcm")
    made = images(root)
    assert [sample.subject for sample in made] == [subject_hash(name, SALT) for name in ("P0", "P0", "P1", "P1")]
    rows = [("path", "subject"), ("0.dcm", "x"), ("2.dcm", "x")]
    named = images(root, table=table(tmp_path / "t.csv", rows))
    assert {sample.subject for sample in named} == {subject_hash("x", SALT)}
    alone = images(root, subject="file")
    assert len({sample.subject for sample in alone}) == 4


@pytest.mark.parametrize("age, years", [("045Y", 45.0), ("089Y", 89.0), ("090Y", 90.0), ("104Y", 90.0), ("", None)])
def test_ages_of_dicom_files_above_89_become_90(tmp_path: Path, age: str, years: float | None):
    save(header(np.zeros((3, 4), np.uint8), PatientAge=age), tmp_path / "a.dcm")
    assert images(tmp_path).sample(0).attributes == ({} if years is None else {"age_years": years})


def test_the_modality_of_a_header_counts_before_that_of_the_set(tmp_path: Path):
    root = tree(tmp_path, ["b.png"])
    save(header(np.zeros((3, 4), np.uint8), Modality="CT", SOPClassUID=CT), root / "a.dcm")
    assert [sample.image.modality for sample in images(root, modality="xray")] == [Modality.ct, Modality.xray]


def test_origin_gives_the_owner_the_way_back(root: Path, tmp_path: Path):
    source = images(root)
    for position, sample in enumerate(source):
        origin = source.origin(position)
        assert origin["key"] == sample.key and subject_hash(origin["subject"], SALT) == sample.subject
        assert origin["path_image"] == sorted(NAMES)[position]


def test_text_burned_into_the_pixels_is_pointed_out(tmp_path: Path):
    for number, said in enumerate(("YES", "NO", "")):
        dataset = header(np.full((3, 4), number, np.uint8), SeriesInstanceUID=f"1.{number}", BurnedInAnnotation=said)
        save(dataset, tmp_path / f"{number}.dcm")
    said = images(tmp_path).warnings
    assert "1 images have text burned into the pixels, says their header: file 1" in said
    assert "1 of 3 DICOM images do not say whether text is burned into the pixels" in said


def test_files_without_a_subject_are_pointed_out(root: Path):
    assert images(root).warnings == ["12 of 12 studies name no subject: each file counts as a subject of its own"]
    assert images(root, subject="file").warnings == []
    assert "12 of 12 studies name none" in images(root, subject="file").card.split_rule


def test_shares_divide_subjects_and_never_split_one(tmp_path: Path):
    root = tree(tmp_path / "root", [f"s{number % 100}/p{number}.png" for number in range(300)])
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    splits: dict[str, set[str]] = {}
    for sample in images(root, subject="folder", shares=shares):
        splits.setdefault(sample.subject, set()).add(sample.split)
    assert len(splits) == 100 and all(len(found) == 1 for found in splits.values())
    # Four standard deviations of a binomial count.
    for split, share in shares.items():
        count = sum(found == {split} for found in splits.values())
        assert abs(count - 100 * share) < 4 * (100 * share * (1 - share)) ** 0.5


def test_frames_of_a_nifti_file_are_samples_of_one_subject(tmp_path: Path):
    volumes = np.arange(4 * 4 * 2 * 3, dtype=np.int16).reshape(4, 4, 2, 3)
    nifti(tmp_path / "v.nii", volumes, np.diag([-1.0, -1.0, 1.0, 1.0]))
    with pytest.raises(DataError, match="file 1: the NIfTI volume has 3 frames"):
        images(tmp_path).sample(0)
    assert len(images(tmp_path, frames="first")) == 1
    made = images(tmp_path, frames="all")
    assert [made.name_of(position) for position in range(3)] == ["file 1", "file 1, frame 2", "file 1, frame 3"]
    for frame, sample in enumerate(made):
        np.testing.assert_array_equal(sample.image.pixels[0], volumes[..., frame].T)
    assert len({sample.subject for sample in made}) == 1 and len({sample.key for sample in made}) == 3


def test_the_axes_of_arrays_are_an_option(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(DataError, match="file 1: the array has 3 axes and axes is not given"):
        images(tmp_path).sample(0)
    assert images(tmp_path, axes="DHW").sample(0).image.pixels.shape == (1, 2, 3, 4)
    assert images(tmp_path, axes="DHW").card.dimensionality == "volumetric"
    assert images(tmp_path, axes="HWC").card.dimensionality == "planar"


def test_the_viewing_window_is_an_option(tmp_path: Path):
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 100
    save(header(pixels, WindowCenter=500, WindowWidth=200), tmp_path / "a.dcm")
    shown, real = images(tmp_path, voi=True).sample(0).image.pixels, images(tmp_path).sample(0).image.pixels
    np.testing.assert_array_equal(real[0], pixels)
    assert shown.dtype == np.uint8 and shown[0, 0, 0] == 0 and shown[0, 2, 3] == 255


def test_the_card_says_what_the_options_say(root: Path):
    card = images(root, title="T", licence="L", homepage="H", version="7", organ="brain", modality="mri").card
    assert (card.name, card.title, card.licence, card.homepage, card.source_version) == ("own", "T", "L", "H", "7")
    assert (card.organ, card.modality, card.dimensionality, card.official) == ("brain", "mri", "planar", False)
    assert card.note and images(root).card.source_version == "12 studies"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"organ": "brian"}, "did you mean 'brain'"),
        ({"modality": "mr"}, "did you mean 'mri'"),
        ({"columns": {"path": "x"}}, "columns are named and there is no table"),
        ({"table": "t.csv", "label": "folder"}, "not from both"),
        ({"table": "t.csv", "split": "folders"}, "not from both"),
        ({"name": "../x"}, "name"),
        ({"shares": {"train": 0.5, "val": 0.1, "test": 0.1}}, "add up to 0.7"),
        ({"axes": "WHD"}, "axes"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ImagesConfig(root=tmp_path, **({"name": "own"} | options))


def test_the_salt_is_read_from_its_file_and_made_where_there_is_none(root: Path, tmp_path: Path):
    config = ImagesConfig(root=root, name="own", salt_file=tmp_path / "salt")
    (first,) = Images.from_config(config)
    (second,) = Images.from_config(config)
    assert [sample.key for sample in first] == [sample.key for sample in second]
    made = Images(config, (tmp_path / "salt").read_text().strip())
    assert [sample.key for sample in made] == [sample.key for sample in first]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_with_damaged_files_becomes_shards_without_them(tmp_path: Path, workers: int):
    root = tree(
        tmp_path / "root", {f"{kind}/p{number}.png": 20 * kind + number for kind in (0, 1) for number in range(9)}
    )
    (root / "0" / "notes.txt").write_text("x")
    (root / "1" / "p4.png").write_bytes((root / "1" / "p4.png").read_bytes()[:30])
    source = images(root, label="folder", shares={"train": 0.5, "val": 0.5, "test": 0})
    with pytest.raises(DataError, match=r"^file 15: the picture cannot be decoded \(\w+\)$"):
        write_dataset(source, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    manifest = write_dataset(source, tmp_path / "out", skip_errors=True, workers=workers)
    assert verify(tmp_path / "out") == []
    with (tmp_path / "out" / SKIPPED_FILE).open() as file:
        assert sorted(row["item"] for row in csv.DictReader(file)) == ["file 1", "file 15"]
    assert manifest.skipped == 2 and sum(split.samples for split in manifest.splits.values()) == 17
    expected = [source.sample(position) for position in range(len(source)) if source.name_of(position) != "file 15"]
    for split in manifest.splits:
        own = [sample for sample in expected if sample.split == split]
        records = ShardedDataset(tmp_path / "out", split).read(np.arange(len(own)))
        for row, sample in enumerate(own):
            np.testing.assert_array_equal(records.images[row], sample.image.pixels)


def test_a_real_folder_of_volumes_and_masks_becomes_shards(shared_data: Path, tmp_path: Path):
    root = shared_data / "hippocampus"
    names = sorted(path.name for path in (root / "images").glob("*.nii.gz"))[:3]
    rows = [
        ("path", "study", "image"),
        *((f"{kind}/{name}", name, image) for name in names for kind, image in (("images", "mr"), ("labels", "mask"))),
    ]
    source = images(root, table=table(tmp_path / "t.csv", rows), organ="brain", modality="mri", task="segmentation")
    manifest = write_dataset(source, tmp_path / "out")
    assert verify(tmp_path / "out") == [] and manifest.card.dimensionality == "volumetric"
    assert sum(split.samples for split in manifest.splits.values()) == 3
    for sample in source:
        assert set(sample.images) == {"mr", "mask"} and sample.images["mask"].pixels.max() == 2
        assert sample.images["mr"].spacing_mm == (1.0, 1.0, 1.0)
