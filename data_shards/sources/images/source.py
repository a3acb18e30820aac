"""Any folder or table of PNG, JPEG, TIFF, npy, NIfTI and DICOM images as a source."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from data_shards.card import DatasetCard
from data_shards.sample import MASK, Image, Sample, subject_hash
from data_shards.sources.base import Source, register_source
from data_shards.sources.images.folder import studies_of_folder
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.rows import studies_of_table
from data_shards.sources.images.study import Place, Study, check_splits, with_frames
from data_shards.sources.images.summary import dimensionality, split_rule, warnings_of
from data_shards.sources.splits import split_by_subject
from data_shards.sources.tables.cells import MISSING
from data_shards.sources.tables.labels import Reading, encode_labels
from data_shards.support.errors import DataError
from data_shards.support.salt import read_salt
from data_shards.vocabulary import Modality, Organ, Task


@register_source("images")
class Images(Source):
    """Images as they lie in a folder, each in its native dtype.

    Listing reads the first bytes of every file and the headers of DICOM files; pixels are read one study at a time. A
    file that is no image is in ``skipped``, and so is a DICOM file whose header cannot be used; any other image that is
    damaged is found when its sample is read. In messages file 17 is the 17th of all files that are not hidden, sorted
    by relative path; series 3 the third DICOM series of several files in that order; row 17 of a table the one that a
    spreadsheet counts so. Keys are salted hashes of relative paths, or of the study in a table.

    Args:
        config: the options.
        salt: secret for the hashes of keys and subjects.

    Raises:
        DataError: the folder or the table cannot be used, or holds no image.
    """

    Config = ImagesConfig

    def __init__(self, config: ImagesConfig, salt: str) -> None:
        if not config.root.is_dir():
            raise DataError(f"{config.root}: no such folder")
        self._config, self._salt = config, salt
        found = studies_of_folder(config) if config.table is None else studies_of_table(config, config.table)
        self._studies = with_frames(found.studies, config.root) if config.frames == "all" else found.studies
        if not self._studies:
            first = f"; {found.skipped[0].item}: {found.skipped[0].reason}" if found.skipped else ""
            raise DataError(f"{config.root}: no image in this folder{first}")
        check_splits(self._studies)
        # The name of a folder is never empty: what looks like a missing value there is a class.
        missing = config.missing if config.missing is not None else () if config.label == "folder" else MISSING
        self._labels = encode_labels(
            [study.label for study in self._studies],
            [study.name for study in self._studies],
            found.label_names,
            Reading(Task[config.task], config.classes, missing, config.missing_columns, found.decimal_comma),
        )
        self.skipped = found.skipped
        self.warnings = [*found.warnings, *self._labels.warnings, *warnings_of(self._studies, config)]
        self.card = self._make_card()

    @classmethod
    def from_config(cls, config: Any) -> list[Source]:
        """One source; the salt is read from its file."""
        return [cls(config, read_salt(config.salt_file))]

    def __len__(self) -> int:
        return len(self._studies)

    def name_of(self, position: int) -> str:
        """``file 17``, ``series 3`` or ``row 17 of the table``; with ``show_paths`` the relative path."""
        return self._studies[position].name

    def sample(self, position: int) -> Sample:
        """The study at ``position``, all its images read.

        Raises:
            DataError: an image cannot be read, or the images do not fit together.
        """
        study = self._studies[position]
        images = {}
        for name, place in study.images.items():
            try:
                image = self._read(place)
                images[name] = _as_mask(image) if name == MASK else image
            except DataError as error:
                raise DataError(f"{place.name}: {error}") from None
        subject = subject_hash(_text(study.subject), self._salt)
        try:
            return Sample(
                key=self._key(study),
                images=images,
                organ=Organ[study.organ or self._config.organ],
                subject=subject,
                split=study.split or split_by_subject(subject, self._config.shares),
                label=self._labels.vectors[position],
                task=self._labels.task,
                attributes=study.attributes,
            )
        except DataError as error:
            raise DataError(f"{study.name}: {error}") from None

    def origin(self, position: int) -> dict[str, str]:
        """Key, relative path of each image and raw subject: for a table that its owner keeps private."""
        study = self._studies[position]
        paths = {f"path_{name}": _text(place.path) for name, place in study.images.items()}
        return {"key": self._key(study), **paths, "subject": _text(study.subject)}

    def _key(self, study: Study) -> str:
        return subject_hash(_text(f"key {self._config.name}/{study.identifier}"), self._salt)

    def _read(self, place: Place) -> Image:
        """The image at ``place``; what the table says of the modality counts first, then the file, then the options."""
        path = self._config.root / place.path
        if place.kind == "picture":
            from data_shards.sources.images.picture import read_picture

            image = read_picture(path)
        elif place.kind == "npy":
            from data_shards.sources.images.array import read_array

            image = read_array(path, axes=self._config.axes)
        elif place.kind == "nifti":
            from data_shards.sources.images.nifti import read_nifti

            image = read_nifti(path, frame=place.frame, frames=self._config.frames)
        elif place.series is not None:
            from data_shards.sources.images.dicom import read_series

            image = read_series(place.series, voi=self._config.voi)
        else:
            raise DataError(place.problem)
        modality = Modality[place.modality or self._config.modality]
        if not place.modality and image.modality is not Modality.unknown:
            modality = image.modality
        return replace(image, modality=modality)

    def _make_card(self) -> DatasetCard:
        config, labels = self._config, self._labels
        return DatasetCard(
            name=config.name,
            title=config.title or config.name,
            organ=config.organ,
            modality=config.modality,
            dimensionality=dimensionality(self._studies, config),
            task=labels.task.name,
            classes=labels.classes,
            licence=config.licence,
            homepage=config.homepage,
            source_version=config.version or f"{len(self)} studies",
            source_checksum={"blake2b of the listing": self._listing_digest()},
            official=False,
            note="files of their owner, not compared with a published archive",
            split_rule=split_rule(self._studies, config),
        )

    def _listing_digest(self) -> str:
        """Changes when a file is added, removed or renamed; keyed, so that no path can be found by trying."""
        digest = hashlib.blake2b(key=self._salt.encode()[:64], digest_size=16)
        for study in self._studies:
            for name, place in study.images.items():
                digest.update(_text(f"{study.identifier}\n{name}\n{place.path}\n").encode())
        return digest.hexdigest()


def _as_mask(image: Image) -> Image:
    """Class ids as uint8, from whatever dtype the drawing tool wrote.

    Raises:
        DataError: a value is no class id.
    """
    values = image.pixels
    ids = values.astype(np.uint8)
    if values.shape[0] != 1 or not np.array_equal(ids, values):
        raise DataError("a mask has one channel of whole numbers from 0 to 255")
    return replace(image, pixels=ids)


def _text(name: str) -> str:
    """A name that can be encoded, also when the file system holds bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
