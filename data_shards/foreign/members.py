"""Samples of shards that stock webdataset wrote: members grouped by key, labels and other facts read out of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from data_shards.foreign.facts import PICKLED, PICKLED_REFUSED, fact
from data_shards.format.tar_walk import TarWalk, WalkedMember
from data_shards.support.documents import Document
from data_shards.support.errors import DataError

_PICTURE_SUFFIXES = ("png", "jpg", "jpeg")
# Key and suffix as webdataset tells them: the suffix begins at the first dot of the file name.
_MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)")
# An image of 2 GiB and its header, the same limit as when it is decoded; a label or a description is far smaller.
_IMAGE_BYTES = (2 << 30) + (16 << 10)
_FACT_BYTES = 16 << 20


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
    label_dtype: Literal["int64", "float64"] | None = Field(None, description="default: that of the first label")
    subject: str = Field("", description="where the subject is, such as json:patient; empty: every key is a subject")
    attributes: dict[str, str] = Field({}, description="attribute name to where its number is, such as json:age")

    @field_validator("images")
    @classmethod
    def _readable(cls, images: dict[str, str]) -> dict[str, str]:
        for suffix in images:
            if suffix.rpartition(".")[2] in PICKLED:
                raise ValueError(f"a {suffix} member {PICKLED_REFUSED}")
            if suffix.rpartition(".")[2] not in ("npy", *_PICTURE_SUFFIXES):
                raise ValueError(f"suffix {suffix!r}: images are read from npy, {', '.join(_PICTURE_SUFFIXES)}")
        return images

    def wanted_bytes(self, name: str) -> int:
        """The most bytes that are read of a member; 0 for one that holds nothing of interest."""
        _, suffix = split_name(name)
        if suffix in self.images:
            return _IMAGE_BYTES
        facts = {place.partition(":")[0] for place in (self.label, self.subject, *self.attributes.values())}
        return _FACT_BYTES if suffix in facts else 0


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

    def number(self, place: str) -> float | None:
        """The number at ``SUFFIX:PATH``; None when there is none.

        Raises:
            DataError: something else is there.
        """
        value = self._value(place)
        if value is not None and not isinstance(value, int | float):
            raise DataError(f"{self.where}: {place}: expected a number, found {type(value).__name__}")
        return None if value is None else float(value)

    def text(self, place: str) -> str:
        """The text or whole number at ``SUFFIX:PATH``.

        Raises:
            DataError: there is none.
        """
        value = self._value(place)
        if not isinstance(value, str | int) or not str(value):
            raise DataError(f"{self.where}: {place}: expected a text, found {type(value).__name__}")
        return str(value)

    def label(self, place: str, dtype: str | None) -> np.ndarray | None:
        """The number or list of numbers at ``SUFFIX:PATH`` as a vector; None when there is none.

        Raises:
            DataError: something else is there.
        """
        value = self._value(place)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(item, int | float) for item in values):
            raise DataError(f"{self.where}: {place}: expected a number or a list of numbers")
        if dtype == "int64" and not all(float(item).is_integer() for item in values):
            raise DataError(f"{self.where}: {place}: not a whole number as before; label_dtype=float64 takes both")
        try:
            return np.array(values, dtype or ("f8" if any(isinstance(item, float) for item in values) else "i8"))
        except (OverflowError, ValueError):
            raise DataError(f"{self.where}: {place}: a number that is too large") from None

    def _value(self, place: str) -> Any:
        suffix, _, path = place.partition(":")
        member = self.members.get(suffix)
        if member is None:
            return None
        try:
            value = fact(suffix, member.content)
        except DataError as error:
            raise DataError(f"{self.where}: its {suffix} member {error}") from None
        for key in path.split(".") if path else ():
            value = value.get(key) if isinstance(value, dict) else None
        return value


def foreign_samples(walk: TarWalk) -> Iterator[ForeignSample]:
    """The samples of a tar; members without a suffix are left out, as webdataset does.

    Raises:
        DataError: as for :class:`~data_shards.format.tar_walk.TarWalk`; a member occurs twice, or the members of a
            sample do not stand together.
    """
    seen: set[str] = set()
    key = ""
    members: dict[str, WalkedMember] = {}
    for member in walk:
        found, suffix = split_name(member.name)
        if not found:
            continue
        if found != key:
            if key:
                yield ForeignSample(key, members)
            if found in seen:
                raise DataError(
                    f"{walk.path}: entry {member.entry}: its sample began and ended before: members of a sample stand "
                    "together, and its key occurs once"
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
