"""Any folder or table of pictures, npy, NIfTI and DICOM images as a source."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from data_shards.card import DatasetCard
from data_shards.sample import MASK, Image, Sample, subject_hash
from data_shards.sources.base import Source, register_source
from data_shards.sources.images.array import read_array
from data_shards.sources.images.channels import with_channels
from data_shards.sources.images.depth import has_8_bits
from data_shards.sources.images.dicom import read_series
from data_shards.sources.images.folder import own_subject, studies_of_folder
from data_shards.sources.images.kinds import Kind
from data_shards.sources.images.masks import as_mask, placing_of
from data_shards.sources.images.nifti import read_nifti
from data_shards.sources.images.nifti_header import Header
from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.picture import read_picture
from data_shards.sources.images.rows import studies_of_table
from data_shards.sources.images.study import Place, Study, check_splits, with_frames
from data_shards.sources.images.summary import channels_of, dimensionality, repeats_note, split_rule, warnings_of
from data_shards.sources.splits import split_by_subject
from data_shards.sources.tables.cells import MISSING
from data_shards.sources.tables.labels import Reading, encode_labels
from data_shards.support.errors import DataError
from data_shards.support.salt import read_salt
from data_shards.vocabulary import Modality, Organ, Task

_NOTE = "files of their owner, not compared with a published archive"


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
        if config.table is None:
            found = studies_of_folder(config, salt)
        else:
            found = studies_of_table(config, config.table, salt)
        self._studies = (
            with_frames(found.studies, config.root, config.pages) if config.frames == "all" else found.studies
        )
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
            Reading(
                Task[config.task],
                config.classes,
                missing,
                config.missing_columns,
                found.decimal_comma,
                config.class_values,
            ),
        )
        self._label_names = tuple(found.label_names)
        self.skipped = found.skipped
        self._channels, mixed = channels_of(self._studies, config)
        self.warnings = [*found.warnings, *self._labels.warnings, *mixed, *warnings_of(self._studies, config)]
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

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of files that hold the images, masks included."""
        places = (place for study in self._studies for place in study.images.values())
        return frozenset(place.kind for place in places if place.kind is not None)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The label columns as the header of the table calls them; ``folder`` where folders are classes."""
        return self._label_names

    def bag_of(self, position: int) -> str | None:
        """The bag of a study, None when nothing is said: raw text, for comparing and never for a message."""
        return self._studies[position].bag or None

    def subject_of(self, position: int) -> str:
        """Who is shown, or the file itself where that is not known: raw text, for comparing, never for a message."""
        return self._studies[position].subject

    def knows_subject(self, position: int) -> bool:
        """Whether the table, a folder or a DICOM header says who is shown."""
        return not self._studies[position].subject.startswith(own_subject(self._config.name, ""))

    def split_of(self, position: int) -> str | None:
        """The split that the table or the folders say, or None."""
        return self._studies[position].split

    def label_of(self, position: int) -> np.ndarray | None:
        """The label vector of a study, or None."""
        return self._labels.vectors[position]

    def groups_of(self, position: int) -> dict[str, str]:
        """What stands in the columns that scores are grouped by, by name: text that its owner asked to be told."""
        return self._studies[position].groups

    def has_8_bits(self, position: int) -> dict[str, bool | None]:
        """By image name, see :func:`~data_shards.sources.images.depth.has_8_bits`; masks are left out."""
        config = self._config
        places = self._studies[position].images
        return {name: has_8_bits(config.root, place, voi=config.voi) for name, place in places.items() if name != MASK}

    def sample(self, position: int) -> Sample:
        """The study at ``position``, all its images read.

        Raises:
            DataError: an image cannot be read, or the images do not fit together.
        """
        study = self._studies[position]
        try:
            placing = placing_of(self._config.root, study.images, self._config.mask_header)
        except DataError as error:
            raise DataError(f"{study.images[MASK].name}: {error}") from None
        images = {}
        for name, place in study.images.items():
            try:
                image = self._read(place, placing.headers.get(name), ids=name == MASK)
                images[name] = as_mask(image) if name == MASK else self._with_channels(name, image)
            except DataError as error:
                raise DataError(f"{place.name}: {error}") from None
        if MASK in images:
            images[MASK] = replace(images[MASK], notes=(*images[MASK].notes, *placing.notes))
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

    def _read(self, place: Place, placed_by: Header | None, *, ids: bool) -> Image:
        """The image at ``place``; what the table says of the modality counts first, then the file, then the options."""
        path, config = self._config.root / place.path, self._config
        if place.kind == "picture":
            image = read_picture(
                path,
                frame=place.frame,
                frames=config.frames,
                pages=config.pages,
                not_finite=config.not_finite,
                ids=ids,
            )
        elif place.kind == "npy":
            image = read_array(path, axes=config.axes, not_finite=config.not_finite)
        elif place.kind == "nifti":
            image = read_nifti(
                path,
                frame=place.frame,
                frames=config.frames,
                not_finite=config.not_finite,
                placed_by=placed_by,
            )
        elif place.series is not None:
            image = read_series(place.series, voi=config.voi, rules=config.slice_rules)
        else:
            raise DataError(place.problem)
        modality = Modality[place.modality or config.modality]
        if not place.modality and image.modality is not Modality.unknown:
            modality = image.modality
        return replace(image, modality=modality)

    def _with_channels(self, name: str, image: Image) -> Image:
        count = self._channels.get(name)
        if count is None:
            return image
        return replace(image, pixels=with_channels(image.pixels, count, lossless=self._config.channels == "auto"))

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
            note="; ".join(filter(None, [_NOTE, repeats_note(self._studies)])),
            split_rule=split_rule(self._studies, config),
        )

    def _listing_digest(self) -> str:
        """Changes when a file is added, removed or renamed; keyed, so that no path can be found by trying."""
        digest = hashlib.blake2b(key=self._salt.encode()[:64], digest_size=16)
        for study in self._studies:
            for name, place in study.images.items():
                digest.update(_text(f"{study.identifier}\n{name}\n{place.path}\n").encode())
        return digest.hexdigest()


def _text(name: str) -> str:
    """A name that can be encoded, also when the file system holds bytes that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
