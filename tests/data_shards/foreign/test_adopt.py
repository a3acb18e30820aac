"""Sets written by stock webdataset are indexed in place; what a shard has no use for is refused."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pictures

from data_shards.foreign.adopt import adopt
from data_shards.format.manifest import read_manifest
from data_shards.inspect.verify import verify
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import subject_hash
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.errors import DataError, MedformerError
from tests.data_shards.foreign.foreign_tars import IMAGE, SALT, config, handmade, npy, picture, pixels, refused
from tests.data_shards.made_sources import card


def written(folder: Path, shards: dict[str, list[dict[str, Any]]]) -> Path:
    """Shards as stock webdataset writes them."""
    webdataset = pytest.importorskip("webdataset")
    folder.mkdir()
    for name, samples in shards.items():
        with webdataset.TarWriter(str(folder / name)) as writer:
            for sample in samples:
                writer.write(sample)
    return folder


def test_a_set_of_stock_webdataset_streams_as_ours_do_and_its_tars_are_not_touched(tmp_path: Path) -> None:
    def sample(number: int) -> dict[str, Any]:
        return {
            "__key__": f"site/{number:04d}",
            "npy": pixels(number),
            "cls": number % 3,
            "json": {"who": {"id": f"patient {number // 2}"}, "age": 50 + number},
        }

    numbers = iter(range(100))
    names = ["x-train-0.tar", "x-train-1.tar", "x-val-0.tar", "x-test-0.tar"]
    content = {name: [sample(number) for number in itertools.islice(numbers, 6)] for name in names}
    folder = written(tmp_path / "set", content)
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    manifest = adopt(folder, config(tmp_path, subject="json:who.id", attributes={"age_years": "json:age"}))
    assert manifest == read_manifest(folder) and manifest.adopted and manifest.attributes == ("age_years",)
    assert [(split.samples, split.subjects) for split in manifest.splits.values()] == [(12, 6), (6, 3), (6, 3)]
    after = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}
    assert after == before and len(list(folder.iterdir())) == 4 + 4 + 1
    assert verify(folder) == []

    dataset = ShardedDataset(folder, "train")
    order = np.random.default_rng(0).permutation(12)
    records = dataset.read(order)
    assert (records.stacked == np.stack([pixels(number) for number in order])).all()
    assert records.label_BL[:, 0].tolist() == [number % 3 for number in order]
    assert records.attributes["age_years"].tolist() == [50.0 + number for number in order]
    assert records.subject_B.tolist() == [subject_hash(f"patient {n // 2}", SALT).encode() for n in order]
    assert records.key_B.tolist() == [f"site/{number:04d}".encode() for number in order]
    stream = SampleStream([dataset], batch_size=5, seed=0, readers=2)
    shown = [place for batch in itertools.islice(stream, stream.batches_per_epoch) for place in batch.sample_B.tolist()]
    assert sorted(shown) == list(range(12))
    assert b"patient" not in b"".join(path.read_bytes() for path in folder.glob("*.index.npy"))
    with pytest.raises(MedformerError, match="exists already"):
        adopt(folder, config(tmp_path))
    adopt(folder, config(tmp_path, label=""), overwrite=True)
    assert ShardedDataset(folder, "train").read(np.array([0])).label_BL.shape == (1, 0)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    "array, axes, expected",
    [
        (pixels(0), None, pixels(0)),
        (pixels(0, dtype="<i2"), None, pixels(0)),
        (pixels(0, dtype=">f4"), None, pixels(0)),
        (np.asfortranarray(pixels(0, dtype=">u2")), None, pixels(0)),
        (pixels(1, (6, 5)), None, pixels(1, (6, 5))[None]),
        (pixels(1, (4, 6, 5)), "DHW", pixels(1, (4, 6, 5))[None]),
        (np.asfortranarray(pixels(1, (4, 6, 5))), "DHW", pixels(1, (4, 6, 5))[None]),
        (pixels(1, (3, 3, 3)), "HWC", pixels(1, (3, 3, 3)).transpose(2, 0, 1)),
        (np.asfortranarray(pixels(1, (4, 6, 5, 2), ">i4")), "DHWC", pixels(1, (4, 6, 5, 2)).transpose(3, 0, 1, 2)),
        (pixels(2) > 100, None, pixels(2) > 100),
    ],
)
def test_arrays_of_every_order_and_version_come_back(
    tmp_path: Path, array: np.ndarray, axes: str | None, expected: np.ndarray, version: tuple[int, int]
) -> None:
    handmade(tmp_path / "train.tar", [(f"s{n}.npy", npy(array, version)) for n in range(2)])
    adopt(tmp_path, config(tmp_path, axes={"image": axes} if axes else {}))
    dataset = ShardedDataset(tmp_path, "train")
    found = dataset.read(np.array([1, 0])).stacked
    assert found.shape == (2, *expected.shape) and (found == expected).all() and found.dtype.byteorder in "=|"
    assert dataset.image_shape == expected.shape


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_pictures_come_back_as_they_were_saved(tmp_path: Path, mode: str) -> None:
    shape = (9, 7, 3) if mode == "RGB" else (9, 7)
    arrays = [pixels(n, shape, "u2" if mode == "I;16" else "u1") for n in range(3)]
    handmade(tmp_path / "train.tar", [(f"{n}.png", picture(array, "PNG")) for n, array in enumerate(arrays)])
    adopt(tmp_path, config(tmp_path))
    found = ShardedDataset(tmp_path, "train").read(np.arange(3)).stacked
    assert (found == np.stack([a[None] if a.ndim == 2 else a.transpose(2, 0, 1) for a in arrays])).all()


def test_jpeg_pictures_of_different_sizes_come_as_a_list(tmp_path: Path) -> None:
    members = [(f"{n}.jpg", picture(pixels(n, (16, 16 + n, 3)), "JPEG")) for n in range(3)]
    handmade(tmp_path / "train.tar", members)
    adopt(tmp_path, config(tmp_path))
    found = ShardedDataset(tmp_path, "train").read(np.array([2, 0])).images
    for array, (_, content) in zip(found, (members[2], members[0]), strict=True):
        assert (array == np.asarray(Pictures.open(io.BytesIO(content))).transpose(2, 0, 1)).all()


MEASURED = card().model_copy(update={"task": "regression", "classes": {}})
UNKNOWN = card().model_copy(update={"task": "unknown", "classes": {}})
SEVERAL = card().model_copy(update={"task": "multilabel", "classes": {0: "a", 1: "b"}})


@pytest.mark.parametrize(
    "labels, options, expected",
    [
        ([b"2", b" 0\n"], {}, [[2], [0]]),
        ([b"[1, 0, 1]", b"[0, 0, 1]"], {}, [[1, 0, 1], [0, 0, 1]]),
        ([b"0.5", b"1.5"], {"card": MEASURED}, [[0.5], [1.5]]),
        ([b"71", b"71.5"], {"card": MEASURED}, [[71.0], [71.5]]),
        ([b"0.5", b"1"], {"card": UNKNOWN}, [[0.5], [1.0]]),
        ([b"true", b"false"], {}, [[1], [0]]),
        ([b"0.0", b"2.0"], {}, [[0], [2]]),
        ([b"0.0", b"2"], {"label_dtype": "float64"}, [[0.0], [2.0]]),
        ([b'"two"', b"one"], {}, [[2], [1]]),
        ([b"2", b"NA"], {}, [[2], [-1]]),
        ([b"2", b"NaN"], {}, [[2], [-1]]),
        ([b"2", b"-1"], {"missing": ["-1"]}, [[2], [-1]]),
        ([b"1.0", b""], {}, [[1], [-1]]),
        ([b'["yes", 0]', b"[false, 1.0]"], {"card": SEVERAL}, [[1, 0], [0, 1]]),
    ],
)
def test_labels_are_numbers_or_vectors(
    tmp_path: Path, labels: list[bytes], options: dict[str, Any], expected: list[list[float]]
) -> None:
    members = [(f"{n}.{kind}", part) for n, text in enumerate(labels) for kind, part in (("npy", IMAGE), ("cls", text))]
    handmade(tmp_path / "train.tar", members)
    adopt(tmp_path, config(tmp_path, **options))
    assert ShardedDataset(tmp_path, "train").read(np.arange(2)).label_BL.tolist() == expected


def test_keys_and_subjects_are_checked_over_all_shards(tmp_path: Path) -> None:
    handmade(tmp_path / "train-0.tar", [("a.npy", IMAGE), ("b.npy", IMAGE)])
    handmade(tmp_path / "train-1.tar", [("b.npy", IMAGE)])
    refused(tmp_path, "train-1.tar: sample number 0 has the key of .*train-0.tar: sample number 1")
    who = [("c.npy", IMAGE), ("c.json", json.dumps({"id": 7}).encode())]
    handmade(tmp_path / "train-0.tar", who)
    (tmp_path / "train-1.tar").unlink()
    handmade(tmp_path / "val-1.tar", [(name.replace("c.", "d."), content) for name, content in who])
    refused(tmp_path, "val-1.tar: sample number 0 has the subject of .*train-0.tar: sample", subject="json:id")


def test_splits_come_from_names_or_from_patterns(tmp_path: Path) -> None:
    handmade(tmp_path / "part-a.tar", [("a.npy", IMAGE)])
    handmade(tmp_path / "part-b.tar", [])
    refused(tmp_path, "part-a.tar: its split is not clear")
    refused(tmp_path, "part-b.tar: its split is not clear", splits={"part-a*": "train"})
    manifest = adopt(tmp_path, config(tmp_path, splits={"*-a.tar": "train", "*-b.tar": "train"}))
    assert [shard.samples for shard in manifest.splits["train"].shards] == [1, 0]  # a tar may be empty
    assert ShardedDataset(tmp_path, "train").read(np.array([0])).stacked.shape == (1, 1, 3, 4)


def test_damage_is_named_by_the_number_of_the_sample_for_a_key_may_name_a_person(tmp_path: Path) -> None:
    handmade(tmp_path / "train.tar", [(f"jane-doe-{n}.npy", npy(pixels(n))) for n in range(4)])
    adopt(tmp_path, config(tmp_path))
    path = tmp_path / "train.tar"
    content = bytearray(path.read_bytes())
    content[2 * 1024 + 512 + 128 + 3] ^= 1
    path.write_bytes(content)
    assert verify(tmp_path) == [f"{path}: sample number 2: damaged: the pixels of image fail their CRC-32"]
    with pytest.raises(DataError, match="train.tar: damaged: the pixels of sample number 2 fail their CRC-32"):
        ShardedDataset(tmp_path, "train").read(np.arange(4))
    path.write_bytes(content[:2600])
    assert "cut off in sample number 2; 2 samples are lost" in verify(tmp_path)[1]
    content[2 * 1024 + 512 + 128 + 3] ^= 1
    content[5] ^= 1
    path.write_bytes(content)
    assert verify(tmp_path) == [f"{path}: damaged outside of the pixels of its samples"]


def test_long_names_of_gnu_and_pax_are_understood(tmp_path: Path) -> None:
    key = "folder/" * 30 + "x" * 120
    for form, name in ((tarfile.GNU_FORMAT, "train-gnu.tar"), (tarfile.PAX_FORMAT, "train-pax.tar")):
        handmade(tmp_path / name, [(f"{key}-{name[6:9]}.npy", IMAGE)], format=form)
    adopt(tmp_path, config(tmp_path))
    keys = ShardedDataset(tmp_path, "train").read(np.arange(2)).key_B.tolist()
    assert keys == [f"{key}-gnu".encode(), f"{key}-pax".encode()]


@pytest.mark.parametrize("form", ["{}", "{}.0", '"{}"'])
@pytest.mark.parametrize("dtype", [None, "int64", "float64"])
def test_samples_of_each_class_are_counted_however_the_label_is_written(
    tmp_path: Path, form: str, dtype: str | None
) -> None:
    members = [(f"{n}.{kind}", part) for n in range(6) for kind, part in (
        ("npy", npy(pixels(n))), ("cls", form.format(n % 2).encode())
    )]  # fmt: skip
    handmade(tmp_path / "train.tar", members)
    manifest = adopt(tmp_path, config(tmp_path, label_dtype=dtype))
    assert manifest.splits["train"].classes == {0: 3, 1: 3}


def test_keys_with_dots_are_read_when_they_are_said_to_have_them(tmp_path: Path) -> None:
    uids = ["1.2.840.113619.2.55.3", "1.2.840.113619.2.55.4"]
    members = [(f"a/{uid}.{kind}", part) for n, uid in enumerate(uids) for kind, part in (
        ("t1.npy", npy(pixels(n))), ("t2.npy", npy(pixels(n + 2))), ("cls", b"1"), ("notes", b"x")
    )]  # fmt: skip
    handmade(tmp_path / "train.tar", members)
    images = {"t1.npy": "t1", "t2.npy": "t2"}
    refused(tmp_path, "no image; .* dots_in_keys=true ends it at the last", images=images)
    adopt(tmp_path, config(tmp_path, images=images, dots_in_keys=True))
    dataset = ShardedDataset(tmp_path, "train", image="t2")
    records = dataset.read(np.arange(2))
    assert records.key_B.tolist() == [f"a/{uid}".encode() for uid in uids]
    assert (records.stacked == np.stack([pixels(2), pixels(3)])).all() and records.label_BL.tolist() == [[1], [1]]


@pytest.mark.parametrize("written", [b"97", b"97.5", b'"097Y"', b'"90+"'])
def test_ages_above_89_become_90_in_the_index(tmp_path: Path, written: bytes) -> None:
    handmade(tmp_path / "train.tar", [("a.npy", IMAGE), ("a.json", b'{"PatientAge": ' + written + b"}")])
    adopt(tmp_path, config(tmp_path, label="", attributes={"years": "json:PatientAge"}))
    assert ShardedDataset(tmp_path, "train").read(np.array([0])).attributes["years"].tolist() == [90.0]
    adopt(tmp_path, config(tmp_path, card=MEASURED, label="json:PatientAge"), overwrite=True)
    found = ShardedDataset(tmp_path, "train").read(np.array([0])).label_BL
    assert found.tolist() == [[90.0]]
