from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.sources.adni.tree import read_sidecars
from data_shards.support.errors import DataError
from tests.data_shards.sources.adni.export import COREG, PET, Scan, write_export, write_nifti, write_slice
from tests.data_shards.sources.adni.reading import read, reasons, sample_of, taken, visits

A, B = "011_S_0001", "022_S_0002"
FIRST = Scan(1, A, "bl", "2006-01-02")
SIDECAR = """<?xml version="1.0" encoding="UTF-8"?>
<idaxs xmlns="http://ida.loni.usc.edu"><project><subject>
 <subjectIdentifier>{ptid}</subjectIdentifier><researchGroup>AD</researchGroup><subjectSex>M</subjectSex>
 <visit><visitIdentifier>ADNI Baseline</visitIdentifier></visit>
 <study><subjectAge>71.4</subjectAge><series><seriesIdentifier>5</seriesIdentifier><modality>PET</modality>
 <dateAcquired>2006-01-02 08:00:00.0</dateAcquired></series>
 <imagingProtocol><imageUID>5</imageUID><description>Coreg, Avg</description>
 <protocolTerm><protocol term="Radiopharmaceutical">18F-AV45</protocol></protocolTerm></imagingProtocol></study>
</subject></project></idaxs>"""


def bare(root: Path, *scans: Scan, **options: Any) -> Any:
    """A source of images without any table."""
    return read(write_export(root, scans, None, header=None), label="none", **options)


def test_a_file_named_for_another_subject_than_its_folder_is_refused(tmp_path: Path) -> None:
    wrong = Scan(2, A, "bl", "2006-03-02")
    write_export(tmp_path, [FIRST, wrong], None, header=None)
    (tmp_path / wrong.file).rename(tmp_path / wrong.folder / wrong.file.name.replace(A, B))
    source = read(tmp_path, label="none")
    assert len(source) == 1
    assert reasons(source) == {"folder and file name two different subjects": 1}


def test_files_that_are_no_images_of_a_subject_are_reported(tmp_path: Path) -> None:
    write_nifti(tmp_path / "ADNI" / "nobody" / "x_S1_I2.nii", 2)
    write_nifti(tmp_path / "ADNI" / A / "MPRAGE" / "scan.nii", 3)
    (tmp_path / "ADNI" / A / "notes.txt").write_text("CANARY")
    source = bare(tmp_path, FIRST)
    assert reasons(source) == {
        "no subject identifier in its path": 1,
        "no image identifier in its path": 1,
        "neither NIfTI, DICOM, CSV, TSV nor XML by its ending": 1,
    }


def test_the_identifier_is_taken_from_the_folder_where_the_name_has_none(tmp_path: Path) -> None:
    write_nifti(tmp_path / "ADNI" / A / "MPRAGE" / "2006-01-02_08_00_00.0" / "I77" / "scan.nii", 77)
    source = read(tmp_path, label="none")
    assert taken(source.sample(0)) == {"mri": 77}


def test_hidden_files_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    outside = write_export(tmp_path / "outside", [Scan(9, B, "bl", "2006-01-02")], None, header=None)
    root = write_export(tmp_path / "root", [FIRST], None, header=None)
    os.symlink(outside / "ADNI" / B, root / "ADNI" / B)
    (root / ".hidden").mkdir()
    leading_out = root / Scan(8, B, "bl", "2006-01-02").file.name
    os.symlink(outside / Scan(9, B, "bl", "2006-01-02").file, leading_out)
    source = read(root, label="none")
    assert [taken(sample) for sample in source] == [{"mri": 1}]
    assert reasons(source) == {
        "a link to a folder or out of the root": 2,
        "names that start with a dot": 1,
    }


def test_an_image_at_two_places_is_taken_once(tmp_path: Path) -> None:
    write_export(tmp_path / "second part", [FIRST], None, header=None)
    source = bare(tmp_path, FIRST)
    assert len(source) == 1
    assert reasons(source) == {"the image lies at another place too": 1}


def test_two_volumes_under_one_id_are_refused_and_a_compressed_copy_is_not(tmp_path: Path) -> None:
    write_export(tmp_path, [FIRST, Scan(2, B, "bl", "2006-01-02")], None, header=None)
    file = tmp_path / FIRST.file
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    write_nifti(tmp_path / Scan(2, B, "bl", "2006-01-02").folder / "another_S9_I2.nii", 2)
    source = read(tmp_path, label="none")
    assert [taken(sample) for sample in source] == [{"mri": 1}]
    assert reasons(source) == {
        "a compressed copy of the file beside it": 1,
        "several volumes have one image identifier": 2,
    }


def test_a_compressed_image_alone_is_read(tmp_path: Path) -> None:
    write_export(tmp_path, [FIRST], None, header=None)
    file = tmp_path / FIRST.file
    file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    assert taken(read(tmp_path, label="none").sample(0)) == {"mri": 1}


def test_an_mri_of_several_volumes_is_refused_and_pet_frames_are_averaged(tmp_path: Path) -> None:
    mri, pet = Scan(40, A, "bl", "2006-01-02", frames=2), Scan(41, B, "bl", "2006-01-02", frames=4, **PET)
    source = bare(tmp_path, mri, pet)
    averaged = sample_of(source, B, "date 2006-01-02").images["pet"].pixels
    assert averaged.dtype == np.float32
    assert (averaged == np.mean([41, 43, 45, 47])).all()
    with pytest.raises(DataError, match=r"^visit \d: mri: 2 volumes in one image; an MRI is expected to have one$"):
        sample_of(source, A, "date 2006-01-02")
    write_nifti(tmp_path / pet.file, 41, frames=257)
    with pytest.raises(DataError, match=r"^visit \d: pet: 257 frames; at most 256 are expected$"):
        sample_of(source, B, "date 2006-01-02")


def test_a_dicom_folder_with_a_missing_or_foreign_slice_is_refused(tmp_path: Path) -> None:
    scan = Scan(3, A, "bl", "2006-01-02", "MP-RAGE", dicom=True)
    for fault in ("none", "missing", "another series", "another subject", "cut short", "no DICOM"):
        root = write_export(tmp_path / fault, [scan], None, header=None)
        slices = sorted((root / scan.folder).iterdir())
        if fault == "missing":
            slices[4].unlink()
        elif fault == "another series":
            write_slice(root / scan.folder, scan, 4, series=1)
        elif fault == "another subject":
            for k in range(10):
                write_slice(root / scan.folder, scan, k, patient=B)
        elif fault == "cut short":
            slices[4].write_bytes(slices[4].read_bytes()[:-9])
        elif fault == "no DICOM":
            slices[4].write_bytes(b"CANARY" * 100)
        source = read(root, label="none")
        if fault == "none":
            assert source.sample(0).images["mri"].pixels.shape == (1, 10, 8, 6)
            continue
        with pytest.raises(DataError, match=r"^visit 1: mri: [^\n]+$") as caught:
            source.sample(0)
        assert not any(word in str(caught.value) for word in (A, B, "CANARY", "I3", "MP-RAGE"))


def test_sidecars_fill_what_paths_do_not_say(tmp_path: Path) -> None:
    pet = Scan(5, A, "", "2006-01-02", **PET)
    root = write_export(tmp_path, [pet], None, header=None)
    xml = (root / pet.file).with_suffix(".xml")
    xml.write_text(SIDECAR.format(ptid=A))
    source = read(root)
    assert visits(source) == [(A, "m000")]
    sample = source.sample(0)
    assert taken(sample) == {"pet_av45": 5}
    assert sample.label is not None and sample.label.tolist() == [2]
    assert sample.attributes == {"age_years": 71.4, "sex": 0, "month": 0}
    xml.write_text(SIDECAR.format(ptid=B))
    with pytest.raises(DataError, match="no visit with a usable image; file 1: its XML file names another subject"):
        read(root)


def test_a_table_says_more_than_a_sidecar(tmp_path: Path) -> None:
    pet = Scan(5, A, "bl", "2006-01-02", f"PIB {COREG}", "PET", age="60")
    root = write_export(tmp_path, [pet], None)
    (root / pet.file).with_suffix(".xml").write_text(SIDECAR.format(ptid=A))
    sample = read(root).sample(0)
    assert sample.label is not None and sample.label.tolist() == [0]
    assert sample.attributes["age_years"] == 60


@pytest.mark.parametrize(
    "content, problem",
    [
        (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><idaxs>&a;</idaxs>', "a document type, an entity"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/hostname"><idaxs/>', "a document type, an entity"),
        ('<?xml version="1.0"?><!DOCTYPE x><idaxs/>'.encode("utf-16"), "not UTF-8"),
        (b'<?xml version="1.0" encoding="utf-7"?><idaxs/>', "another encoding"),
        (b'<?xml version="1.0" encoding="martian"?><idaxs/>', "another encoding"),
        (b"", "not XML"),
        (b"<idaxs><imageUID>CANARY", "not XML"),
        (b"<idaxs>" + b"<a>" * 40_000 + b"</a>" * 40_000 + b"</idaxs>", "has no image identifier"),
        (b"<idaxs>" + b" " * (1 << 20) + b"</idaxs>", "larger than 1 MiB"),
    ],
    ids=["entity", "external", "utf-16", "utf-7", "martian", "empty", "cut short", "deep", "large"],
)
def test_a_hostile_sidecar_is_refused_and_the_image_is_kept(tmp_path: Path, content: bytes, problem: str) -> None:
    root = write_export(tmp_path, [FIRST])
    (root / "x.xml").write_bytes(content)
    source = read(root)
    assert len(source) == 1
    (entry,) = source.skipped
    assert entry.item == "file 4" and problem in entry.reason and "CANARY" not in entry.reason


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text("<>/!?&;\"'=aI1 \0", max_size=60).map(str.encode))
def test_any_bytes_are_a_sidecar_or_a_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fuzzed.xml").write_bytes(content)
    found, left_out = read_sidecars(tmp_path, {"fuzzed.xml": "file 1"})
    assert len(found) + len(left_out) == 1
    assert all(entry.reason.startswith("the XML file ") for entry in left_out)
