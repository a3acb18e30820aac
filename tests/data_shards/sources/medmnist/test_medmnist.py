from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import medmnist
import numpy as np
import pytest
from medmnist import INFO

from data_shards.reading.reader import ShardedDataset
from data_shards.sample import SPLITS
from data_shards.sources.base import source_named
from data_shards.sources.medmnist.sets import make_card, published, sizes_of
from data_shards.sources.medmnist.source import CONTENT, MedMNIST, MedMNISTConfig
from data_shards.support.documents import parse
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task, word
from data_shards.writing.writer import write_dataset

COUNTS = {"train": 546, "val": 78, "test": 156}


def breast_arrays() -> dict[str, np.ndarray]:
    """Arrays with the shapes and dtypes of BreastMNIST, made of noise."""
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = random.integers(0, 2, (count, 1), dtype=np.uint8)
    return arrays


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "breastmnist.npz"
    np.savez_compressed(path, **breast_arrays())
    return path


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's archives nor the network decide what a test finds."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDMNIST_ROOT", raising=False)


@pytest.mark.parametrize("name", INFO)
def test_every_set_of_the_package_has_a_card_at_every_size_that_says_what_info_says(name: str) -> None:
    info = INFO[name]
    volumetric = name.endswith("3d")
    sizes = (28, 64) if volumetric else (28, 64, 128, 224)
    assert sizes_of(info) == sizes == tuple(getattr(medmnist, info["python_class"]).available_sizes)
    for size in sizes:
        archive = published(name, size)
        card = make_card(archive, md5=archive.md5)
        suffix = "" if size == 28 else f"_{size}"
        assert card.name == archive.stem == name + suffix and card.source_checksum == {"md5": info[f"MD5{suffix}"]}
        assert card.title == f"{info['python_class']} " + "x".join([str(size)] * (3 if volumetric else 2))
        assert f"/{name}{suffix}.npz" in archive.url and archive.url in card.source_version
        assert word(Organ, card.organ) is not Organ.unknown and word(Modality, card.modality) is not Modality.unknown
        assert len(card.classes) == len(info["label"]) and card.classes[0] == info["label"]["0"]
        assert card.licence == info["license"] and card.official and not card.note
        assert "own subject" in card.split_rule
        assert card.dimensionality == ("volumetric" if volumetric else "planar")
        expected = {"binary-class": "binary", "multi-class": "multiclass", "ordinal-regression": "ordinal"}
        assert card.task == expected.get(info["task"], "multilabel")


def test_our_table_covers_the_sets_of_the_package_and_no_others() -> None:
    assert list(CONTENT) == list(INFO) and len(CONTENT) == 18


# Yang et al., Scientific Data 2023, table 1, with the counts of package version 3: channels, task, classes, samples.
COUNTED = {
    "pathmnist": (3, "multiclass", 9, (89996, 10004, 7180)),
    "chestmnist": (1, "multilabel", 14, (78468, 11219, 22433)),
    "dermamnist": (3, "multiclass", 7, (7007, 1003, 2005)),
    "octmnist": (1, "multiclass", 4, (97477, 10832, 1000)),
    "pneumoniamnist": (1, "binary", 2, (4708, 524, 624)),
    "retinamnist": (3, "ordinal", 5, (1080, 120, 400)),
    "breastmnist": (1, "binary", 2, (546, 78, 156)),
    "bloodmnist": (3, "multiclass", 8, (11959, 1712, 3421)),
    "tissuemnist": (1, "multiclass", 8, (165466, 23640, 47280)),
    "organamnist": (1, "multiclass", 11, (34561, 6491, 17778)),
    "organcmnist": (1, "multiclass", 11, (12975, 2392, 8216)),
    "organsmnist": (1, "multiclass", 11, (13932, 2452, 8827)),
    "organmnist3d": (1, "multiclass", 11, (971, 161, 610)),
    "nodulemnist3d": (1, "binary", 2, (1158, 165, 310)),
    "adrenalmnist3d": (1, "binary", 2, (1188, 98, 298)),
    "fracturemnist3d": (1, "multiclass", 3, (1027, 103, 240)),
    "vesselmnist3d": (1, "binary", 2, (1335, 191, 382)),
    "synapsemnist3d": (1, "binary", 2, (1230, 177, 352)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_counts_channels_and_classes_are_the_published_ones(name: str) -> None:
    archive = published(name)
    task = word(Task, COUNTED[name][1])
    assert (archive.channels, archive.task, len(archive.info["label"])) == (COUNTED[name][0], task, COUNTED[name][2])
    assert tuple(archive.samples[split] for split in SPLITS) == COUNTED[name][3]
    assert archive.label_width == (14 if name == "chestmnist" else 1)


def test_a_size_that_is_not_published_is_refused() -> None:
    with pytest.raises(DataError, match="breastmnist is not published at size 32; sizes: 28, 64, 128, 224"):
        MedMNIST("breastmnist", size=32)
    with pytest.raises(DataError, match="organmnist3d is not published at size 128; sizes: 28, 64"):
        MedMNIST("organmnist3d", size=128)


def test_source_is_found_by_name() -> None:
    assert source_named("medmnist") is MedMNIST
    with pytest.raises(DataError, match="unknown source 'medmnits'; did you mean 'medmnist'"):
        source_named("medmnits")


def test_an_archive_that_is_not_official_needs_a_reason_and_repeats_it(archive: Path) -> None:
    with pytest.raises(DataError, match="MD5 is .*, expected 750601b1f35ba3300ea97c75c52ff8f6 for breastmnist"):
        MedMNIST("breastmnist", file=archive)
    with pytest.raises(DataError, match="needs both"):
        MedMNIST("breastmnist", file=archive, unofficial=" ")
    with pytest.raises(DataError, match="needs both"):
        MedMNIST("breastmnist", unofficial="because")
    source = MedMNIST("breastmnist", file=archive, unofficial="noise for a test")
    assert not source.card.official and source.card.note == "not the official archive: noise for a test"
    samples, arrays = list(source), breast_arrays()
    assert len(samples) == len(source) == 780
    assert (samples[600].image.pixels == arrays["val_images"][54][None]).all() and samples[600].split == "val"
    assert samples[0].label is not None and samples[0].label.tolist() == arrays["train_labels"][0].tolist()
    assert samples[0].task is Task.binary and len({sample.subject for sample in samples}) == 780


def test_the_archive_in_the_root_is_checked_before_use(archive: Path) -> None:
    with pytest.raises(DataError, match=f"{archive}: MD5"):
        MedMNIST("breastmnist", root=archive.parent)


def test_places_are_searched_in_order(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMNIST_ROOT", str(archive.parent))
    with pytest.raises(DataError, match=f"{archive}: MD5"):
        MedMNIST("breastmnist", root=archive.parent / "empty")


def test_an_archive_found_nowhere_names_the_set_and_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path / "b"))
    places = f"{tmp_path / 'a'}, {tmp_path / 'b'}, {tmp_path / 'home' / '.medmnist'}"
    with pytest.raises(
        DataError, match=f"bloodmnist: no bloodmnist.npz in {places}; root=FOLDER names another folder$"
    ):
        MedMNIST("bloodmnist", root=tmp_path / "a", download=False)


def test_a_file_of_the_set_under_another_name_is_named_with_the_option_that_takes_it(tmp_path: Path) -> None:
    """As pasted from the message; an archive of the set at another size is no such file."""
    np.savez(tmp_path / "breastmnist_64.npz", **breast_arrays())
    with pytest.raises(DataError, match=r"root=FOLDER names another folder$"):
        MedMNIST("breastmnist", root=tmp_path, download=False)
    np.savez(tmp_path / "breastmnist_reassembled.npz", **breast_arrays())
    with pytest.raises(DataError, match=r"file=\S+breastmnist_reassembled\.npz unofficial=REASON") as caught:
        MedMNIST("breastmnist", root=tmp_path, download=False)
    words = str(caught.value).replace(",", "").split()
    given = dict(word.split("=", 1) for word in words if word.startswith(("file=", "unofficial=")))
    content = parse(MedMNISTConfig, {"sets": ["breastmnist"], **given}, "options")
    (source,) = MedMNIST.from_config(content)
    assert len(source) == 780 and not source.card.official


def test_every_set_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    content = {"sets": ["bloodmnist", "pathmnist"], "root": str(tmp_path), "download": False}
    with pytest.raises(DataError) as caught:
        MedMNIST.from_config(parse(MedMNISTConfig, content, "options"))
    first, second = str(caught.value).splitlines()
    assert first.startswith("bloodmnist: no bloodmnist.npz") and second.startswith("pathmnist: no pathmnist.npz")


def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INFO, "bloodmnist", INFO["bloodmnist"] | {"url": "http://127.0.0.1:9/bloodmnist.npz"})
    with pytest.raises(DataError, match="bloodmnist: no bloodmnist.npz in .*could not be downloaded from http"):
        MedMNIST("bloodmnist", root=tmp_path / "new" / "root")
    assert list(tmp_path.iterdir()) == []


def _drop(arrays: dict[str, np.ndarray]) -> None:
    del arrays["test_images"]


def _shorten(arrays: dict[str, np.ndarray]) -> None:
    arrays["val_images"] = arrays["val_images"][:-1]


def _enlarge(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_images"] = np.zeros((546, 64, 64), np.uint8)


def _to_float(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_images"] = arrays["train_images"] / 255.0


def _flatten_labels(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_labels"] = arrays["train_labels"][:, 0]


def _shift_labels(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_labels"] = arrays["train_labels"] + 1


def _pickle_labels(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_labels"] = arrays["train_labels"].astype(object)


def _reorder(arrays: dict[str, np.ndarray]) -> None:
    arrays["train_images"] = np.asfortranarray(arrays["train_images"])


@pytest.mark.parametrize(
    "spoil, message",
    [
        (_drop, "no array 'test_images'; the archive holds"),
        (_shorten, r"'val_images' is uint8 of shape \(77, 28, 28\), expected uint8 of shape \(78, 28, 28\)"),
        (_enlarge, r"'train_images' is uint8 of shape \(546, 64, 64\)"),
        (_to_float, "'train_images' is float64"),
        (_flatten_labels, r"'train_labels' is uint8 of shape \(546,\), expected integers of shape \(546, 1\)"),
        (_shift_labels, "'train_labels' has values 1 to 2, expected 0 to 1"),
        (_pickle_labels, r"'train_labels' is object of shape \(546, 1\), expected integers"),
        (_reorder, "in Fortran order, expected uint8"),
    ],
)
def test_an_archive_of_another_content_is_named_with_what_was_expected(
    tmp_path: Path, spoil: Callable[[dict[str, np.ndarray]], None], message: str
) -> None:
    arrays = breast_arrays()
    spoil(arrays)
    np.savez(tmp_path / "foreign.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        MedMNIST("breastmnist", file=tmp_path / "foreign.npz", unofficial="a test")
    assert str(tmp_path / "foreign.npz") in str(caught.value)


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.99])
def test_a_truncated_archive_is_one_clear_error(archive: Path, kept: float) -> None:
    content = archive.read_bytes()
    archive.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match="truncated, damaged or not the published"):
        MedMNIST("breastmnist", root=archive.parent)
    with pytest.raises(DataError, match="breastmnist.npz: not a readable npz archive"):
        MedMNIST("breastmnist", file=archive, unofficial="a test")


def test_a_damaged_member_of_an_archive_is_an_error_not_wrong_pixels(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    for place in range(2000, 2200):
        content[place] ^= 0x55
    archive.write_bytes(content)
    with pytest.raises(DataError, match="not a readable npz archive"):
        list(MedMNIST("breastmnist", file=archive, unofficial="a test"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(DataError, match="not a readable npz archive .* not a zip file"):
        list(MedMNIST("breastmnist", file=tmp_path / "single.npy", unofficial="a test"))
    with pytest.raises(DataError, match="cannot be read"):
        MedMNIST("breastmnist", file=tmp_path / "absent.npz")
    with pytest.raises(DataError, match="unknown MedMNIST set 'brestmnist'; did you mean 'breastmnist'"):
        MedMNIST("brestmnist")


@pytest.mark.parametrize(
    "name, counts, channels, classes",
    [("breastmnist", COUNTS, 1, {0: 147, 1: 399}), ("retinamnist", {"train": 1080, "val": 120, "test": 400}, 3, None)],
)
def test_real_archives_become_shards_with_the_published_counts_and_equal_pixels(
    shared_data: Path, tmp_path: Path, name: str, counts: dict[str, int], channels: int, classes: dict[int, int] | None
) -> None:
    manifest = write_dataset(MedMNIST(name, root=shared_data / "medmnist"), tmp_path / name)
    assert {split: entry.samples for split, entry in manifest.splits.items()} == counts
    assert manifest.card.official and (classes is None or manifest.splits["train"].classes == classes)
    with np.load(shared_data / "medmnist" / f"{name}.npz") as arrays:
        for split, count in counts.items():
            records = ShardedDataset(tmp_path / name, split).read(np.arange(count))
            assert records.stacked.shape == (count, channels, 28, 28)
            images = arrays[f"{split}_images"].reshape(count, 28, 28, channels).transpose(0, 3, 1, 2)
            assert (records.stacked == images).all() and (records.label_BL == arrays[f"{split}_labels"]).all()


def test_the_reassembled_chest_xrays_are_taken_and_marked(shared_data: Path) -> None:
    file = shared_data / "derived" / "pneumoniamnist_reassembled.npz"
    source = MedMNIST("pneumoniamnist", file=file, unofficial="reassembled, order differs")
    assert sum(1 for _ in source) == 4708 + 524 + 624 and "reassembled" in source.card.note
