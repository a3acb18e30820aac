"""DICOM files: which of them make one image or volume, and its pixels in one convention of axes, units and types."""

from __future__ import annotations

from data_shards.sources.images.dicom.detect import is_dicom
from data_shards.sources.images.dicom.headers import Header, Unusable, read_header
from data_shards.sources.images.dicom.read import read_series
from data_shards.sources.images.dicom.rules import SliceRules
from data_shards.sources.images.dicom.series import Series, Unused, find_series

__all__ = [
    "Header",
    "Series",
    "SliceRules",
    "Unusable",
    "Unused",
    "find_series",
    "is_dicom",
    "read_header",
    "read_series",
]
