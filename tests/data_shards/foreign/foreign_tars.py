"""Tars as somebody else might write them, for the tests of adoption."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pictures

from data_shards.foreign.adopt import AdoptConfig, adopt
from data_shards.support.errors import DataError
from tests.data_shards.made_sources import card

SALT = "a salt that is long enough"


def config(folder: Path, **options: Any) -> AdoptConfig:
    salt = folder / "salt"
    salt.write_text(SALT)
    return AdoptConfig(**{"card": card(), "salt_file": salt} | options)


def pixels(number: int, shape: tuple[int, ...] = (3, 6, 5), dtype: str = "u1") -> np.ndarray:
    return np.random.default_rng(number).integers(0, 200, shape).astype(dtype)


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def picture(array: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Pictures.fromarray(array).save(stream, kind)
    return stream.getvalue()


def handmade(path: Path, members: list[tuple[str, bytes]], **options: Any) -> None:
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def refused(folder: Path, message: str, **options: Any) -> None:
    """Adoption says why not, and leaves nothing behind."""
    names = {path.name for path in folder.iterdir()} | {"salt"}
    with pytest.raises(DataError, match=message):
        adopt(folder, config(folder, **options))
    assert {path.name for path in folder.iterdir()} == names


IMAGE = npy(np.arange(12, dtype=np.uint8).reshape(1, 3, 4))
