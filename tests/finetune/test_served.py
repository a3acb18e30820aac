"""Files that are sent give the numbers that ``predict`` gives for the same files in a folder."""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest

from data_shards.support.errors import DataError
from finetune.classifier.estimator import FewLabelClassifier
from finetune.readers import read_cases, read_new
from finetune.served import ServedClassifier
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, solid_blobs, tiny_backbone


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("bundle") / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})


def write_pictures(folder: Path, count: int, seed: int) -> Path:
    cases = blobs(count, seed=seed)
    for index, (pixels, place) in enumerate(zip(cases.images, cases.targets, strict=True)):
        path = folder / ("left", "right")[place] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels[0]).save(path)
    return folder


def write_volumes(folder: Path, count: int, seed: int) -> Path:
    cases = solid_blobs(count, seed=seed)
    for index, (voxels, place) in enumerate(zip(cases.images, cases.targets, strict=True)):
        path = folder / ("left", "right")[place] / f"{index:02}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels[0].T.astype(np.int16), np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return folder


def fitted(bundle: Path, data: Path, out: Path) -> Path:
    FewLabelClassifier(bundle, head_options={"reads": "embedding"}).fit(read_cases(data)["train"]).save(out)
    return out


def sent(path: Path) -> dict[str, Any]:
    return {"content": base64.b64encode(path.read_bytes()).decode()}


@pytest.mark.parametrize("write", [write_pictures, write_volumes])
def test_sent_files_are_answered_in_their_order_as_files_in_a_folder_are(
    bundle: Path, tmp_path: Path, write: Any
) -> None:
    classifier = fitted(bundle, write(tmp_path / "train", 12, 1), tmp_path / "classifier")
    new = write(tmp_path / "new", 6, 2)
    model = FewLabelClassifier.load(classifier)
    cases = read_new(new, model.record_.recipe, show_paths=True)
    expected = {str(key): row for key, row in zip(cases.keys, model.predict_proba(cases), strict=True)}
    order = sorted(expected, reverse=True)
    answers = ServedClassifier(classifier).predict([sent(new / name) for name in order])
    assert [answer["row"] for answer in answers] == list(range(6))
    told = [[answer["p(left)"], answer["p(right)"]] for answer in answers]
    np.testing.assert_allclose(told, [expected[name] for name in order], rtol=0, atol=1e-9)
    assert {answer["predicted"] for answer in answers} <= {"left", "right"}


def write_series(slices: list[Path], folder: Path, case: int) -> Path:
    """Four real slices from ``case`` on, coarser, as a series of their own; odd cases are inverted."""
    folder.mkdir(parents=True)
    series = pydicom.uid.generate_uid()
    for path in slices[case : case + 4]:
        read = pydicom.dcmread(path)
        coarse = np.ascontiguousarray(read.pixel_array[::8, ::8])
        read.PixelData = (coarse.max() - coarse if case % 2 else coarse).tobytes()
        read.Rows, read.Columns = coarse.shape
        read.PixelSpacing = [8 * float(each) for each in read.PixelSpacing]
        read.SeriesInstanceUID, read.PatientID = series, f"patient-{case}"
        read.save_as(folder / path.name)
    return folder


def test_the_slices_of_a_series_come_as_a_zip(bundle: Path, tmp_path: Path, shared_data: Path) -> None:
    slices = sorted((shared_data / "dicom_mr_series").glob("*.dcm"))
    for case in range(8):
        write_series(slices, tmp_path / "train" / ("left", "right")[case % 2] / f"case-{case}", case)
    classifier = fitted(bundle, tmp_path / "train", tmp_path / "classifier")
    series = write_series(slices, tmp_path / "new" / "case", 9)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in series.iterdir():
            archive.write(path, f"../../{path.name}")  # names in it are not used
    before = sorted(tmp_path.rglob("*"))
    answers = ServedClassifier(classifier).predict([{"content": base64.b64encode(packed.getvalue()).decode()}])
    model = FewLabelClassifier.load(classifier)
    expected = model.predict_proba(read_new(tmp_path / "new", model.record_.recipe))
    told = [[answer["p(left)"], answer["p(right)"]] for answer in answers]
    np.testing.assert_allclose(told, expected, rtol=0, atol=1e-9)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "/etc/passwd"}, "row 0: expected the column 'content' with a file in base64"),
        ({"content": None}, "row 0: expected the column 'content'"),
        ({"content": "%%%"}, "row 0: 'content' is not base64"),
        ({"content": base64.b64encode(b"no image").decode()}, "not a PNG"),
        ({"content": base64.b64encode(b"PK\x03\x04 no zip").decode()}, "row 0: the zip cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(
    bundle: Path, tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    classifier = fitted(bundle, write_pictures(tmp_path / "train", 12, 1), tmp_path / "classifier")
    with pytest.raises(DataError, match=message) as refused:
        ServedClassifier(classifier).predict([row])
    assert "\n" not in str(refused.value) and str(tmp_path) not in str(refused.value)


def test_a_classifier_fitted_to_arrays_is_not_served(bundle: Path, tmp_path: Path) -> None:
    cases = blobs(12, seed=1)
    FewLabelClassifier(bundle).fit(cases.images, cases.targets).save(tmp_path / "classifier")
    with pytest.raises(DataError, match="fitted to arrays"):
        ServedClassifier(tmp_path / "classifier")
