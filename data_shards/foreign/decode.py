"""From the members of a foreign sample to a sample of ours, and to where its pixels stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from isal.isal_zlib import crc32

from data_shards.card import DatasetCard
from data_shards.foreign.labels import ForeignLabels
from data_shards.foreign.members import ForeignFields, ForeignSample
from data_shards.format.codecs import decode, examine_npy, examine_picture
from data_shards.format.index import ImageEntry
from data_shards.sample import Image, Sample, subject_hash
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task


class ForeignDecoder:
    """Reads one sample after the other; labels without a given dtype get that of the first one.

    Args:
        fields: where the parts of a sample are.
        card: organ, modality and task of all samples.
        salt: of the subject hashes.
    """

    def __init__(self, fields: ForeignFields, card: DatasetCard, salt: str) -> None:
        self._fields = fields
        self._organ, self._modality, self._task = Organ[card.organ], Modality[card.modality], Task[card.task]
        self._salt = salt
        dtype = fields.label_dtype or ("float64" if self._task is Task.regression else None)
        self._labels = ForeignLabels(self._task, card.classes, fields.missing, dtype, fields.label)

    def decode(self, found: ForeignSample, split: str, position: int) -> tuple[Sample, dict[str, ImageEntry]]:
        """The sample, and the index entries of its images.

        Args:
            found: its members.
            split: the split of its shard.
            position: the key of the sample that is returned, for theirs may be none of ours.

        Raises:
            DataError: an image, label or other fact is missing or cannot be read.
        """
        fields = self._fields
        images: dict[str, Image] = {}
        slots: dict[str, ImageEntry] = {}
        for name, slot, pixels in self._images(found):
            if name in images:
                raise DataError(f"{found.where}: two members hold the image {name!r}")
            if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
                raise DataError(f"{found.where}: image {name!r} has values that are not finite")
            images[name], slots[name] = Image(pixels, self._modality), slot
        if not images:
            raise DataError(
                f"{found.where}: no image; expected a member {' or '.join(fields.images)}{fields.hint(found.members)}"
            )
        label = found.label(fields.label, self._labels) if fields.label else None
        if label is not None and self._labels.dtype is None:
            self._labels = replace(self._labels, dtype=label.dtype.name)
        values = {name: found.number(place, name) for name, place in fields.attributes.items()}
        sample = Sample(
            key=str(position),
            images=images,
            organ=self._organ,
            subject=subject_hash(found.text(fields.subject) if fields.subject else found.key, self._salt),
            split=split,
            label=label,
            task=self._task,
            attributes={name: value for name, value in values.items() if value is not None},
        )
        return sample, slots

    def _images(self, found: ForeignSample) -> Iterator[tuple[str, ImageEntry, np.ndarray]]:
        for suffix, name in self._fields.images.items():
            member = found.members.get(suffix)
            if member is None:
                continue
            try:
                if suffix.rpartition(".")[2] == "npy":
                    stored = examine_npy(member.content, self._fields.axes.get(name))
                else:
                    stored = examine_picture(member.content)
                payload = member.content[stored.start :]
                pixels = decode(payload, stored.codec, stored.dtype, stored.shape)
            except DataError as error:
                raise DataError(f"entry {member.entry}: {error}") from None
            slot = ImageEntry(
                offset=member.offset + stored.start,
                bytes=len(payload),
                crc32=crc32(payload),
                dtype=stored.dtype,
                shape=stored.shape,
                spacing_mm=(),
                modality=int(self._modality),
                codec=stored.codec,
            )
            yield name, slot, pixels
