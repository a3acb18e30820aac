"""Tars that are damaged, a trap, or hold what a shard has no use for, are refused with the entry and the reason."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.foreign.adopt import AdoptConfig, adopt
from data_shards.support.documents import parse
from data_shards.support.errors import ConfigError, DataError
from tests.data_shards.foreign.foreign_tars import IMAGE, config, handmade, npy, picture, refused
from tests.data_shards.made_sources import card


def special(kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo("b.npy")
    entry.type = kind
    return entry


@pytest.mark.parametrize(
    "entry, message",
    [
        (special(tarfile.LNKTYPE), "entry 2: a hard link"),
        (special(tarfile.SYMTYPE), "entry 2: a symbolic link"),
        (special(tarfile.CHRTYPE), "entry 2: a device"),
        (special(tarfile.BLKTYPE), "entry 2: a device"),
        (special(tarfile.FIFOTYPE), "entry 2: a pipe"),
        ("/etc/a.npy", "entry 2: its name is absolute or has '..' in it"),
        ("x/../../a.npy", "entry 2: its name is absolute or has '..' in it"),
        ("ä.npy", "entry 2: its name is not"),
        ("a.npy", "entry 2: a member of this name stands before it"),
    ],
)
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_entries_that_a_shard_has_no_use_for_are_refused(
    tmp_path: Path, entry: tarfile.TarInfo | str, message: str, form: int
) -> None:
    with tarfile.open(tmp_path / "train.tar", "w", format=form) as archive:
        first = tarfile.TarInfo("a.npy")
        first.size = len(IMAGE)
        archive.addfile(first, io.BytesIO(IMAGE))
        second = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
        second.size = len(IMAGE) if isinstance(entry, str) else 0
        archive.addfile(second, io.BytesIO(IMAGE) if isinstance(entry, str) else None)
    refused(tmp_path, message)


def plain_tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("a.npy")
        entry.size = len(IMAGE)
        archive.addfile(entry, io.BytesIO(IMAGE))
    return stream.getvalue()


def patched(where: int, content: bytes) -> bytes:
    """The plain tar with other bytes in its first header, and the checksum of that."""
    block = bytearray(plain_tar()[:512])
    block[where : where + len(content)] = content
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + plain_tar()[512:]


def sparse_by_pax() -> bytes:
    entry = tarfile.TarInfo("a.npy")
    entry.pax_headers = {"GNU.sparse.major": "1"}
    return entry.tobuf(tarfile.PAX_FORMAT) + bytes(tarfile.RECORDSIZE)


SIZE, KIND = 124, 156


@pytest.mark.parametrize(
    "content, message",
    [
        (patched(SIZE, b"77777777777\0"), "train.tar: entry 1: 8589934591 bytes, more than the rest of the file"),
        (patched(SIZE, b"\x80" + b"\x7f" * 11), "train.tar: entry 1: .* more than the rest of the file"),
        (patched(SIZE, b"\xff" * 12), "train.tar: entry 1: a size of -1 bytes"),
        (patched(KIND, b"S"), "train.tar: entry 1: a sparse file"),
        (patched(KIND, b"V"), "train.tar: entry 1: an entry of type b'V'"),
        (sparse_by_pax(), "train.tar: entry 1: a sparse file"),
        (plain_tar()[:600], "train.tar: entry 1: .* more than the rest of the file"),
        (plain_tar()[:1024], "train.tar: cut off after entry 1: no end-of-archive mark"),
        (b"", "train.tar: cut off after entry 0"),
        (plain_tar() + plain_tar(), "two archives in one file"),
        (gzip.compress(plain_tar()), "train.tar: compressed with gzip"),
        (b"BZh91AY" + bytes(900), "train.tar: compressed with bzip2"),
        (b"not a tar at all".ljust(1024, b"!"), "train.tar: entry 1: not a tar header"),
        (plain_tar().replace(b"a.npy", b"b.npy"), "train.tar: entry 1: not a tar header"),
    ],
)
def test_tars_that_are_damaged_or_a_trap_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.tar").write_bytes(content)
    refused(tmp_path, message)


@pytest.mark.parametrize("name", ["train.tar.gz", "train.tgz"])
def test_compressed_shards_are_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(plain_tar()))
    refused(tmp_path, f"{name}: compressed; samples are found by position: unpack it")


HUGE = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999, 99999, 99999), }".ljust(118)


@pytest.mark.parametrize(
    "members, message, options",
    [
        ([("a.npy", IMAGE), ("b.npy", IMAGE), ("a.cls", b"1")], "entry 3: its sample began and ended before", {}),
        ([("a.cls", b"1")], "the sample at entry 1: no image", {}),
        ([("a.npy", IMAGE), ("a.png", b"x")], "entry 2: not a readable PNG or JPEG", {}),
        ([("a.npy", IMAGE), ("a.t1.npy", IMAGE)], "two members hold", {"images": {"npy": "x", "t1.npy": "x"}}),
        ([("a.npy", IMAGE[:-1])], "entry 1: an .npy file with 11 bytes of pixels, its header says 12", {}),
        ([("a.npy", b"\x93NUMPY\x01\x00\x76\x00" + HUGE)], "entry 1: an image of .* 2147483648 are accepted", {}),
        ([("a.npy", b"\x93NUMPY\x01\x00\xff\xff" + HUGE)], "entry 1: an .npy header of 65535 bytes", {}),
        ([("a.npy", npy(np.array([["x"]])))], "entry 1: an array of dtype <U1", {}),
        ([("a.npy", npy(np.full((1, 2, 2), np.nan)))], "not finite", {}),
        ([("a.npy", npy(np.zeros(3)))], r"entry 1: an array of shape \(3,\)", {}),
        ([("a.npy", IMAGE)], "expected one of HW, CHW", {"axes": {"image": "XYZ"}}),
        ([("a.npy", IMAGE), ("a.cls", b"cat")], "entry 1: cls: is not a finite number", {}),
        ([("a.npy", IMAGE), ("a.cls", b"cat " * 999)], "its cls member is neither a finite number nor JSON", {}),
        ([("a.npy", IMAGE), ("a.cls", b"\xff")], "its cls member is neither a finite number nor JSON", {}),
        ([("a.npy", IMAGE), ("a.cls", b"1e999")], "entry 1: cls: is not a finite number", {}),
        ([("a.npy", IMAGE), ("a.cls", b"7")], "cls: is none of the classes of the card, 0, 1, 2; missing lists", {}),
        ([("a.npy", IMAGE), ("a.cls", b"-1")], "cls: is none of the classes of the card, 0, 1, 2; missing lists", {}),
        ([("a.npy", IMAGE), ("a.cls", b"1"), ("b.npy", IMAGE), ("b.cls", b"1.5")], "none of the classes", {}),
        ([("a.npy", IMAGE), ("a.json", b'{"y": "cat"}')], "json:y: is not a finite number", {"label": "json:y"}),
        ([("a.npy", IMAGE), ("a.json", b'{"y": {}}')], "json:y: expected a number", {"label": "json:y"}),
        ([("a.npy", IMAGE), ("a.cls", b"[1, null]")], "cls: expected a number", {}),
        ([("1.2.840.1.npy", IMAGE)], "no image; .*; its names have several dots .* dots_in_keys=true", {}),
        ([("1.2.npy", IMAGE), ("2.1.npy", IMAGE), ("1.3.npy", IMAGE)], "entry 1: no image; .* dots_in_keys=true", {}),
        ([("a.npy", IMAGE), ("a.json", b"[" * 99999)], "neither a finite number nor JSON", {"label": "json:y"}),
        ([("a.npy", IMAGE)], "json:id: expected a text", {"subject": "json:id"}),
        ([("a.npy", IMAGE), ("a.cls", b"1"), ("b.npy", IMAGE), ("b.cls", b"[1, 2]")], "a label of 2", {}),
        ([("README", b"hello")], "no sample with npy", {}),
    ],
)
def test_samples_that_cannot_be_used_are_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str, options: dict[str, Any]
) -> None:
    handmade(tmp_path / "train.tar", members)
    refused(tmp_path, message, **options)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    bomb = bytearray(picture(np.zeros((4, 4), np.uint8), "PNG"))
    bomb[16:24] = (1 << 16).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    handmade(tmp_path / "train.tar", [("a.png", bytes(bomb))])
    refused(tmp_path, "entry 1: not a readable PNG or JPEG file .DecompressionBombError")


def test_a_folder_without_tars_is_named(tmp_path: Path) -> None:
    refused(tmp_path, "no .tar file in it")


@pytest.mark.parametrize("digits", [20, 30, 310, 4000, 5000])
@pytest.mark.parametrize("task", ["unknown", "regression", "multiclass"])
def test_integers_of_any_length_are_a_label_or_one_line_of_error(tmp_path: Path, digits: int, task: str) -> None:
    large = b"9" * digits
    members = [("a.npy", IMAGE), ("a.cls", large), ("a.json", b'{"n": ' + large + b"}")]
    handmade(tmp_path / "train.tar", members)
    whose = card().model_copy(update={"task": task, "classes": {}})
    message = "too large|neither a finite number nor JSON|not a finite number"
    for options in ({}, {"label": "", "attributes": {"n": "json:n"}}, {"label_dtype": "float64"}):
        if digits < 300 and (options.get("label") == "" or options or task == "regression"):
            continue  # fits into a float
        with pytest.raises(DataError, match=message) as caught:
            adopt(tmp_path, config(tmp_path, card=whose, **options), overwrite=True)
        assert "99999" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["json:birth_date", "json:patient.id", "json:MRN", "json:PatientBirthDate"])
def test_a_place_that_identifies_somebody_is_no_number_to_keep(place: str) -> None:
    for options in ({"label": place}, {"attributes": {"x": place}}):
        with pytest.raises(ConfigError, match="is (a birth date|the number or name of a person)"):
            parse(AdoptConfig, {"card": card().model_dump(), **options}, "options")
