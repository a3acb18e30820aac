"""Samples of shards that stock webdataset wrote: members grouped by key, labels and other facts read out of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from data_shards.foreign.facts import PICKLED, PICKLED_REFUSED, fact
from data_shards.foreign.labels import ForeignLabels
from data_shards.format.tar_walk import TarWalk, WalkedMember
from data_shards.sources.tables.cells import MISSING, Spellings, is_missing
from data_shards.sources.tables.privacy import identifies, kept_number, kept_value
from data_shards.support.documents import Document
from data_shards.support.errors import DataError

_PICTURE_SUFFIXES = ("png", "jpg", "jpeg")
# Key and suffix as webdataset tells them: the suffix begins at the first dot of the file name.
_MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")
# An image of 2 GiB and its header, the same limit as when it is decoded; a label or a description is far smaller.
_IMAGE_BYTES = (2 << 30) + (16 << 10)
_FACT_BYTES = 16 << 20
# Members that hold the number of a class, or its name.
_CLASS_NUMBERS = ("cls", "cls2", "index", "inx", "id")
_LONGEST_WORD = 1000


class ForeignFields(Document):
    """Where the parts of a sample are.

    A fact is found at ``SUFFIX`` or ``SUFFIX:PATH``: the member of that suffix, decoded as webdataset decodes it
    (``cls``, ``txt``, ``json``, ``npy``, ``ten``, ``mp`` and so on; others are read as JSON), and the keys that lead to
    it in a mapping, with dots between them. Pickled members are refused.
    """

    images: dict[str, str] = Field(
        {"npy": "image", "png": "image", "jpg": "image", "jpeg": "image"},
        description="suffix of a member (npy, png, jpg, t1.npy, ...) to the name of the image",
    )
    axes: dict[str, str] = Field(
        {}, description="image name to the axes of its arrays: HWC, DHW, DHWC; default HW, CHW or CDHW by their number"
    )
    label: str = Field("cls", description="where the label is: cls, json:diagnosis, ...; empty for none")
    label_dtype: Literal["int64", "float64"] | None = Field(
        None, description="default: that of the first label; int64 for classes"
    )
    missing: Spellings = Field(
        MISSING, description="labels that say nothing, beside an empty or absent one; numbers such as -1 too"
    )
    subject: str = Field("", description="where the subject is, such as json:patient; empty: every key is a subject")
    attributes: dict[str, str] = Field({}, description="attribute name to where its number is, such as json:age")
    dots_in_keys: bool = Field(
        False, description="keys have dots, as DICOM UIDs do: the suffix begins at the last dot, not at the first"
    )

    @field_validator("images")
    @classmethod
    def _readable(cls, images: dict[str, str]) -> dict[str, str]:
        for suffix in images:
            if suffix.rpartition(".")[2] in PICKLED:
                raise ValueError(f"a {suffix} member {PICKLED_REFUSED}")
            if suffix.rpartition(".")[2] not in ("npy", *_PICTURE_SUFFIXES):
                raise ValueError(f"suffix {suffix!r}: images are read from npy, {', '.join(_PICTURE_SUFFIXES)}")
        return images

    @model_validator(mode="after")
    def _nobody_is_identified(self) -> ForeignFields:
        for name, place in (("label", self.label), *self.attributes.items()):
            reason = identifies(name) or identifies(place.rpartition(":")[2])
            if reason:
                raise ValueError(f"{place!r} for {name} is {reason}")
        return self

    def wanted_bytes(self, name: str) -> int:
        """The most bytes that are read of a member; 0 for one that holds nothing of interest."""
        _, suffix = self.split(name)
        if suffix in self.images:
            return _IMAGE_BYTES
        return _FACT_BYTES if suffix in self._facts else 0

    @property
    def _facts(self) -> set[str]:
        return {place.partition(":")[0] for place in (self.label, self.subject, *self.attributes.values())}

    def split(self, name: str) -> tuple[str, str]:
        """Key and suffix of a member; both are empty when it belongs to no sample."""
        if not self.dots_in_keys:
            return split_name(name)
        folder, _, base = name.rpartition("/")
        known = [suffix for suffix in {*self.images, *self._facts} if base.lower().endswith(f".{suffix}")]
        suffix = max(known, key=len, default=base.rpartition(".")[2].lower())
        key = base[: -len(suffix) - 1]
        return (f"{folder}/{key}" if folder else key, suffix) if key and suffix else ("", "")

    def hint(self, suffixes: Iterable[str]) -> str:
        """What may be wrong with a sample that has these suffixes and no image."""
        if any(suffix.endswith(f".{image}") for suffix in suffixes for image in self.images):
            return (
                "; its names have several dots and a key ends at the first: dots_in_keys=true ends it at the last, for "
                "keys such as DICOM UIDs"
            )
        return ""


@dataclass(frozen=True)
class ForeignSample:
    """The members of one sample.

    Attributes:
        key: what their names have in common; may have slashes, and may name a person.
        members: by suffix.
    """

    key: str
    members: dict[str, WalkedMember]

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"the sample at entry {min(member.entry for member in self.members.values())}"

    def number(self, place: str, name: str) -> float | None:
        """The number at ``SUFFIX:PATH``; None when there is none. An age above 89 is 90.

        Args:
            place: where it is.
            name: how it is to be called.

        Raises:
            DataError: something else is there.
        """
        value = self._value(place)
        if value is None or (isinstance(value, str) and is_missing(value.strip())):
            return None
        if not isinstance(value, int | float | str):
            raise DataError(f"{self.where}: {place}: expected a number, found {type(value).__name__}")
        try:
            return (
                float(kept_value(value, name, place)) if not isinstance(value, str) else kept_number(value, name, place)
            )
        except DataError as error:
            raise DataError(f"{self.where}: {place}: the text {error}") from None
        except OverflowError:
            raise DataError(f"{self.where}: {place}: a number that is too large") from None

    def text(self, place: str) -> str:
        """The text or whole number at ``SUFFIX:PATH``.

        Raises:
            DataError: there is none.
        """
        value = self._value(place)
        if not isinstance(value, str | int) or not str(value):
            raise DataError(f"{self.where}: {place}: expected a text, found {type(value).__name__}")
        return str(value)

    def label(self, place: str, how: ForeignLabels) -> np.ndarray | None:
        """The number, the word or the list of them at ``SUFFIX:PATH`` as a vector; None when there is none.

        Raises:
            DataError: something else is there.
        """
        try:
            return how.vector(self._value(place, words=True))
        except DataError as error:
            raise DataError(f"{self.where}: {place}: {error}") from None

    def _value(self, place: str, *, words: bool = False) -> Any:
        """What is at a place; with ``words`` that of a label may be no number."""
        suffix, _, path = place.partition(":")
        member = self.members.get(suffix)
        if member is None:
            return None
        try:
            value = fact(suffix, member.content)
        except DataError as error:
            word = _word(suffix, member.content) if words and not path else None
            if word is None:
                raise DataError(f"{self.where}: its {suffix} member {error}") from None
            return word
        for key in path.split(".") if path else ():
            value = value.get(key) if isinstance(value, dict) else None
        return value


def _word(suffix: str, content: bytes) -> str | None:
    """The text of a member that should hold the number of a class, such as ``benign``; None when it is none."""
    if suffix.rpartition(".")[2] not in _CLASS_NUMBERS or len(content) > _LONGEST_WORD:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def foreign_samples(walk: TarWalk, fields: ForeignFields) -> Iterator[ForeignSample]:
    """The samples of a tar; members without a suffix are left out, as webdataset does.

    Args:
        walk: over the members.
        fields: what ends a key.

    Raises:
        DataError: as for :class:`~data_shards.format.tar_walk.TarWalk`; a member occurs twice, or the members of a
            sample do not stand together.
    """
    seen: set[str] = set()
    key = ""
    members: dict[str, WalkedMember] = {}
    for member in walk:
        found, suffix = fields.split(member.name)
        if not found:
            continue
        if found != key:
            if key:
                yield ForeignSample(key, members)
            if found in seen:
                raise DataError(
                    f"{walk.path}: entry {member.entry}: its sample began and ended before: members of a sample stand "
                    f"together, and its key occurs once{fields.hint([suffix])}"
                )
            seen.add(found)
            key, members = found, {}
        if suffix in members:
            raise DataError(f"{walk.path}: entry {member.entry}: a member of this name stands before it")
        members[suffix] = member
    if key:
        yield ForeignSample(key, members)


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member; both are empty when it belongs to no sample."""
    match = _MEMBER.fullmatch(name)
    return (match[1], match[2].lower()) if match else ("", "")
