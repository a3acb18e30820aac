"""DICOM files: which of them make one image or volume, and its pixels in one convention of axes, units and types."""

from __future__ import annotations

from data_shards.sources.images.dicom.detect import is_dicom
from data_shards.sources.images.dicom.read import read_series
from data_shards.sources.images.dicom.series import Series, find_series

__all__ = ["Series", "find_series", "is_dicom", "read_series"]
