"""A miniature ADNI export: names, tables and quirks as LONI IDA makes them, with invented subjects and tiny volumes.

The voxels of an image hold its image identifier, so that a test sees which image was taken.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

N3 = "MPR; GradWarp; B1 Correction; N3; Scaled"
COREG = "Coreg, Avg, Std Img and Vox Siz, Uniform Resolution"
SHAPE_ijk = (6, 8, 10)
SPACING_DHW = (1.5, 1.25, 1.0)

DOWNLOAD = ("Image Data ID", "Subject", "Group", "Sex", "Age", "Visit", "Modality", "Description", "Type", "Acq Date")
SEARCH = ("Subject ID", "Sex", "Research Group", "Visit", "Study Date", "Age", "Modality", "Description", "Type")
ADNIMERGE = (
    "RID", "COLPROT", "ORIGPROT", "PTID", "SITE", "VISCODE", "EXAMDATE", "DX_bl", "AGE", "PTGENDER", "APOE4", "ABETA",
    "MMSE", "DX", "EXAMDATE_bl", "MMSE_bl", "Years_bl", "Month_bl", "Month", "M", "update_stamp",
)  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """One image of the export, with its row in the collection."""

    number: int
    ptid: str
    visit: str
    date: str
    description: str = N3
    modality: str = "MRI"
    kind: str = "Processed"
    group: str = "CN"
    sex: str = "F"
    age: str = "70"
    frames: int = 1
    dicom: bool = False
    in_tree: bool = True
    in_table: bool = True

    @property
    def folder(self) -> Path:
        name = self.description.replace(";", "_").replace(" ", "_")
        return Path("ADNI", self.ptid, name, f"{self.date}_08_00_00.0", f"I{self.number}")

    @property
    def stem(self) -> str:
        short = {"MRI": "MR", "PET": "PT", "fMRI": "MR"}[self.modality]
        return f"ADNI_{self.ptid}_{short}_{self.folder.parts[2]}"

    @property
    def file(self) -> Path:
        return self.folder / f"{self.stem}_Br_20070101120000000_S{self.number + 7}_I{self.number}.nii"

    def cells(self) -> dict[str, str]:
        date = datetime.date.fromisoformat(self.date)
        american = f"{date.month}/{date.day}/{date.year}"
        return {
            "Image Data ID": f"I{self.number}",
            **dict.fromkeys(("Subject", "Subject ID"), self.ptid),
            **dict.fromkeys(("Group", "Research Group"), self.group),
            **dict.fromkeys(("Acq Date", "Study Date"), american),
            "Sex": self.sex,
            "Age": self.age,
            "Visit": self.visit,
            "Modality": self.modality,
            "Description": self.description,
            "Type": self.kind,
        }


PET = {"modality": "PET", "description": COREG}
SCANS = (
    # Repeats and versions of one visit, a PET of the visit, a second visit.
    Scan(1001, "011_S_0001", "sc", "2006-01-02", "MPR", kind="Original"),
    Scan(1002, "011_S_0001", "sc", "2006-01-02"),
    Scan(1003, "011_S_0001", "sc", "2006-01-02", f"{N3}_2"),
    Scan(1000, "011_S_0001", "sc", "2006-01-02", f"{N3.replace('MPR', 'MPR-R')}_2"),
    Scan(1004, "011_S_0001", "bl", "2006-01-12", **PET),
    Scan(1005, "011_S_0001", "m06", "2006-07-05"),
    # Ages around 89.
    Scan(2001, "022_S_0002", "bl", "2007-03-01", group="MCI", sex="M", age="88"),
    Scan(2002, "022_S_0002", "m12", "2008-03-01", group="MCI", sex="M", age="89"),
    # The middle visit has no diagnosis.
    *(Scan(3001 + n, "033_S_0003", visit, date, group="MCI") for n, (visit, date) in enumerate(
        (("bl", "2006-02-01"), ("m06", "2006-08-01"), ("m12", "2007-02-01")))),
    # Joined in ADNI2: codes of that phase; a DICOM folder; PET in two frames.
    Scan(4001, "044_S_4004", "v02", "2011-05-01", "MP-RAGE", kind="Original", group="EMCI", dicom=True),
    Scan(4002, "044_S_4004", "v03", "2011-05-20", f"AV45 {COREG}", "PET", group="EMCI", frames=2),
    Scan(4003, "044_S_4004", "v11", "2012-05-03", "MP-RAGE", kind="Original", group="EMCI"),
    # ADNI3: whole numbers as codes, only dates tell; the last is far from every examination.
    *(Scan(5001 + n, "055_S_6005", visit, date, "Accelerated Sagittal MPRAGE", kind="Original") for n, (visit, date)
        in enumerate((("1", "2017-06-01"), ("4", "2018-09-20"), ("9", "2021-06-01")))),
    # In no table; in no tree; withdrawn.
    Scan(6001, "066_S_0006", "bl", "2006-03-03", in_table=False),
    Scan(7001, "077_S_0007", "bl", "2006-03-04", in_tree=False),
    Scan(8001, "381_S_10123", "bl", "2020-03-04"),
    # What is no T1-weighted MRI of a head.
    Scan(8101, "088_S_0008", "bl", "2006-03-05", "3 Plane Localizer", kind="Original"),
    Scan(8102, "088_S_0008", "bl", "2006-03-05", "Axial FLAIR", kind="Original"),
    Scan(8103, "088_S_0008", "bl", "2006-03-05", "Axial T1 rsfMRI", "fMRI", kind="Original"),
    Scan(8104, "088_S_0008", "bl", "2006-03-05", "ADNI Phantom MPRAGE", kind="Original"),
    # Not in the study table: the group counts at the baseline only.
    Scan(9001, "099_S_0009", "bl", "2012-01-01", group="SMC", age="91"),
    Scan(9002, "099_S_0009", "m12", "2013-01-01", group="SMC", age="92"),
    # Without codes: 29 days apart is one visit, 151 days are two.
    Scan(9101, "012_S_0010", "", "2010-01-01", group="AD"),
    Scan(9102, "012_S_0010", "", "2010-01-30", f"PIB {COREG}", "PET", group="AD"),
    Scan(9103, "012_S_0010", "", "2010-06-01", f"PIB {COREG}", "PET", group="AD"),
)  # fmt: skip


def exam(ptid: str, visit: str, date: str, dx: str, *, age: str, years: str = "0.0", **cells: str) -> dict[str, str]:
    """One row of ADNIMERGE; columns that are not named have a common value or are empty."""
    usual = {
        "RID": str(int(ptid[-4:])), "COLPROT": "ADNI1", "ORIGPROT": "ADNI1", "PTID": ptid, "SITE": ptid[1:3],
        "VISCODE": visit, "EXAMDATE": date, "AGE": age, "Years_bl": years, "PTGENDER": "Female", "APOE4": "1",
        "ABETA": "<8", "MMSE": "29", "DX": dx, "update_stamp": "2023-04-19 22:28:06.0",
    }  # fmt: skip
    return dict.fromkeys(ADNIMERGE, "") | usual | cells


EXAMS = (
    exam("011_S_0001", "bl", "2006-01-10", "CN", age="70.0"),
    exam("011_S_0001", "m06", "2006-07-05", "MCI", age="70.0", years="0.5", MMSE="27"),
    exam("022_S_0002", "bl", "2007-03-01", "MCI", age="88.5", PTGENDER="Male", APOE4="2"),
    exam("022_S_0002", "m12", "2008-03-01", "MCI to Dementia", age="88.5", years="1.0", PTGENDER="Male", MMSE="-4"),
    exam("033_S_0003", "bl", "2006-02-01", "MCI", age="75.0"),
    exam("033_S_0003", "m06", "2006-08-01", "", age="75.0", years="0.5", DX_bl="LMCI"),
    exam("033_S_0003", "m12", "2007-02-01", "Dementia", age="75.0", years="1.0"),
    exam("044_S_4004", "bl", "2011-05-10", "", age="65.0", ORIGPROT="ADNI2", DX_bl="EMCI"),
    exam("044_S_4004", "m12", "2012-05-02", "CN", age="65.0", years="0.98", ORIGPROT="ADNI2", DX_bl="EMCI"),
    exam("055_S_6005", "bl", "2017-06-20", "CN", age="60.0", ORIGPROT="ADNI3"),
    exam("055_S_6005", "m12", "2018-08-01", "MCI", age="60.0", years="1.12", ORIGPROT="ADNI3", ABETA="712.3"),
)


def write_export(
    folder: Path,
    scans: Sequence[Scan] = SCANS,
    exams: Sequence[Mapping[str, str]] | None = EXAMS,
    *,
    header: Sequence[str] | None = DOWNLOAD,
    rename: Mapping[str, str] | None = None,
    pixels: bool = True,
) -> Path:
    """Write tree and tables; returns the root. Without ``pixels`` the image files are empty."""
    for scan in scans:
        if scan.in_tree:
            write_image(folder, scan, pixels=pixels)
    if header is not None:
        rows = [scan.cells() for scan in scans if scan.in_table]
        write_table(folder / "mini_3_21_2015.csv", header, rows, rename)
    if exams is not None:
        write_table(folder / "ADNIMERGE_01Jan2025.csv", ADNIMERGE, exams, rename)
    return folder


def write_table(
    path: Path, header: Sequence[str], rows: Sequence[Mapping[str, str]], rename: Mapping[str, str] | None = None
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, quoting=csv.QUOTE_ALL)
        table.writerow([(rename or {}).get(name, name) for name in header])
        table.writerows([row[name] for name in header] for row in rows)


def write_image(folder: Path, scan: Scan, *, pixels: bool = True) -> None:
    file = folder / scan.file
    file.parent.mkdir(parents=True, exist_ok=True)
    if not pixels:
        file.touch()
    elif scan.dicom:
        for k in range(SHAPE_ijk[2]):
            write_slice(folder / scan.folder, scan, k)
    else:
        write_nifti(file, scan.number, scan.frames)


def write_nifti(file: Path, number: int, frames: int = 1) -> None:
    """Constant voxels, ``number`` in the first frame, two more in the next; the header says whose it is."""
    import nibabel

    file.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.stack([np.full(SHAPE_ijk, number + 2 * frame, np.int16) for frame in range(frames)], axis=-1)
    image = nibabel.Nifti1Image(voxels if frames > 1 else voxels[..., 0], np.diag((1.0, 1.25, 1.5, 1.0)))
    image.header["descrip"] = b"CANARY-DESCRIP"
    image.header["db_name"] = b"CANARY-DBNAME"
    nibabel.save(image, file)


def write_slice(folder: Path, scan: Scan, k: int, *, patient: str = "", series: int = 0) -> None:
    """Slice ``k`` of a DICOM image; files are not numbered in the order of the slices."""
    columns, rows, _ = SHAPE_ijk
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
    uid = generate_uid(entropy_srcs=[str(scan.number), str(k), str(series)])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[scan.ptid])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[str(scan.number), str(series)])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=[scan.ptid, "frame"])
    dataset.Modality, dataset.PatientID, dataset.PatientName = "MR", patient or scan.ptid, "CANARY^NAME"
    dataset.SeriesDescription, dataset.StudyDate = "CANARY-SERIES", scan.date.replace("-", "")
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelSpacing, dataset.SliceThickness = [1.25, 1.0], 1.5
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 1.5 * k]
    dataset.InstanceNumber = k + 1
    dataset.PixelData = np.full((rows, columns), scan.number, np.uint16).tobytes()
    name = f"{scan.stem}_br_raw_20070101120000000_{99 - k}_S{scan.number + 7 + series}_I{scan.number}.dcm"
    dataset.save_as(folder / name, enforce_file_format=True)


def one(scan: Scan, **changes: object) -> Scan:
    """A scan with some fields changed."""
    return replace(scan, **changes)  # type: ignore[arg-type]
