"""The options of the source ``images``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from data_shards.sources.images.array import Axes
from data_shards.sources.images.background import NotFinite
from data_shards.sources.images.channels import Channels
from data_shards.sources.images.dicom.rules import SliceRules
from data_shards.sources.images.masks import MaskHeader
from data_shards.sources.images.nifti import Frames
from data_shards.sources.images.picture import Pages
from data_shards.sources.splits import Shares
from data_shards.sources.tables.cells import Spellings
from data_shards.sources.tables.labels import Partial
from data_shards.sources.tables.roles import Columns
from data_shards.support.documents import Document
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task, word


class ImagesConfig(Document):
    """A folder of images, or a table of images in a folder, as one dataset.

    Folder levels that mean something come in this order: split, class, subject; each only when its option says so.
    """

    root: Path = Field(description="folder of the images")
    table: Path | None = Field(None, description="CSV with one image in each row; without it every file is looked at")
    columns: Columns = Field(Columns(), description="names of the columns of the table, by role")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", description="short name of the dataset")
    title: str = Field("", description="one line for people")
    licence: str = Field("not stated", description="the licence of the images, as their owner writes it")
    homepage: str = Field("", description="where the dataset comes from")
    version: str = Field("", description="version of the archive")
    organ: str = Field("unknown", description="body part, unless the table says it")
    modality: str = Field("unknown", description="how the images were made, unless the table or a DICOM header says it")
    task: str = Field("unknown", description="how labels are to be read; unknown: by what they look like")
    classes: dict[int, str] | None = Field(None, description="name of each label value; else they are numbered sorted")
    class_values: bool = Field(True, description="whether a label may be the value of a named class, beside its name")
    missing: Spellings | None = Field(
        None, description="spellings of no label beside the empty cell; default NA, NaN, None, null, '.', '-', '?' ..."
    )
    missing_columns: Partial = Field(
        "refuse", description="some of several label columns say nothing: refuse; no: they say no; drop: no label"
    )
    label: Literal["auto", "none", "folder"] = Field(
        "auto", description="auto: from the table when it has a label column; folder: the name of a folder"
    )
    subject: Literal["auto", "file", "folder"] = Field(
        "auto", description="auto: the table's column, else the DICOM PatientID, else each file is its own subject"
    )
    split: Literal["auto", "shares", "folders"] = Field(
        "auto", description="auto: the table's column, else shares; folders: top folders called train, val, test"
    )
    shares: Shares = Field(Shares(), description="share of the subjects in each split")
    axes: Axes | None = Field(None, description="what the axes of npy arrays with more than two of them are")
    frames: Frames = Field(
        "refuse", description="what to do with NIfTI files of several volumes and with pictures of several frames"
    )
    pages: Pages = Field("depth", description="the pages of a TIFF are slices of a volume, or frames")
    channels: Channels = Field(
        "auto", description="1, 3, or keep; auto: where grey and colour are mixed, what most pictures have"
    )
    mask_header: MaskHeader = Field(
        "refuse", description="whose header counts when mask and image lie at different places: image or mask"
    )
    not_finite: NotFinite = Field("refuse", description="NaN and infinity: refuse, or take such voxels for background")
    times: Literal["all", "first"] = Field(
        "all", description="DICOM images that differ in time: each a sample of its subject, or the first alone"
    )
    slice_tolerance: float = Field(
        0.02, ge=0, lt=0.2, description="how far DICOM slices may lie off a regular grid, as part of their distance..."
    )
    slice_tolerance_mm: float = Field(
        0.05, ge=0, description="...or in mm, for rounded positions; of this at most a tenth of the distance counts"
    )
    uneven_slices: Literal["refuse", "resample"] = Field(
        "refuse",
        description="DICOM slices off the grid: refuse, or interpolate them onto a regular one along their axis",
    )
    voi: bool = Field(False, description="apply the window that a DICOM header gives for viewing")
    salt_file: Path | None = Field(None, description="secret for the hashes of subjects; default: the user's own")
    show_paths: bool = Field(False, description="messages give relative paths; only where paths identify nobody")

    @field_validator("organ", "modality", "task")
    @classmethod
    def _in_vocabulary(cls, name: str, info: object) -> str:
        enumerations = {"organ": Organ, "modality": Modality, "task": Task}
        try:
            word(enumerations[info.field_name], name)  # type: ignore[attr-defined]
        except DataError as error:
            raise ValueError(str(error)) from None
        return name

    @model_validator(mode="after")
    def _one_origin(self) -> ImagesConfig:
        if self.table is None and self.columns != Columns():
            raise ValueError("columns are named and there is no table")
        if self.table is not None and (self.label == "folder" or self.split == "folders"):
            raise ValueError("labels and splits come from the table or from folders, not from both")
        return self

    @property
    def slice_rules(self) -> SliceRules:
        """The options on the places of DICOM slices."""
        return SliceRules(self.slice_tolerance, self.slice_tolerance_mm, self.uneven_slices == "resample")
