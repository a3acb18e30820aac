"""Facts of foreign samples: what webdataset's writer wrote is read as its decoders read it, and nothing runs."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from webdataset.autodecode import basichandlers
from webdataset.writer import make_encoder

from data_shards.foreign.adopt import AdoptConfig, adopt
from data_shards.foreign.facts import PICKLED, fact
from data_shards.support.documents import parse
from data_shards.support.errors import ConfigError, DataError
from tests.data_shards.made_sources import card
from tests.data_shards.shards import whole_split

PIXELS = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)


def npy(values: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def written(sample: dict[str, Any]) -> dict[str, bytes]:
    """The members as webdataset's writer encodes them."""
    encoded: dict[str, bytes] = make_encoder(True)({"__key__": "a", **sample})
    return encoded


@pytest.mark.parametrize(
    ("suffix", "value"),
    [("cls", 3), ("cls", -1), ("id", 7), ("index", 12), ("txt", "left lung"), ("json", {"a": [1, 2.5, None, True]})],
)
def test_a_fact_that_webdataset_wrote_is_the_one_it_reads(suffix: str, value: Any) -> None:
    content = written({suffix: value})[suffix]
    assert fact(suffix, content) == value == basichandlers(f".{suffix}", content)


def test_arrays_come_as_lists() -> None:
    labels = np.array([0, 1, 1], np.int32)
    assert fact("npy", npy(labels)) == [0, 1, 1] and fact("label.npy", npy(np.float32(0.5))) == 0.5
    assert fact("ten", written({"ten": [labels]})["ten"]) == [0, 1, 1]
    pytest.importorskip("msgpack")
    assert fact("mp", written({"mp": {"site": "A", "age": 61.5}})["mp"]) == {"site": "A", "age": 61.5}


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [("cls", b"0.5", 0.5), ("cls", b"[0, 1]", [0, 1]), ("txt", b"12\n", 12), ("txt", b"007\n", "007"), ("dx", b"4", 4)],
)
def test_numbers_and_lists_are_read_under_any_suffix(suffix: str, content: bytes, expected: object) -> None:
    assert fact(suffix, content) == expected


class Program:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", PICKLED)
def test_pickled_members_are_refused_with_one_message_and_do_not_run(tmp_path: Path, suffix: str) -> None:
    ran = tmp_path / "ran"
    folder = tmp_path / "set"
    folder.mkdir()
    with webdataset.TarWriter(str(folder / "train.tar"), encoder=False) as writer:
        writer.write({"__key__": "a", "npy": npy(PIXELS), suffix: pickle.dumps(Program(ran))})
    content = {"card": card().model_dump(), "label": suffix}
    with pytest.raises(DataError, match=f"train.tar: .*its {suffix} member is pickled Python, .* store numbers as cls"):
        adopt(folder, parse(AdoptConfig, content, "options"))
    with pytest.raises(ConfigError, match=f"a {suffix} member is pickled Python, .* images as npy, png or jpg"):
        parse(AdoptConfig, content | {"label": "", "images": {suffix: "image"}}, "options")
    adopt(folder, parse(AdoptConfig, content | {"label": ""}, "options"))  # one that nobody asks for is left alone
    assert not ran.exists()


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("json", b'{"a": NaN}', "neither a finite number nor JSON"),
        ("npy", npy(np.array([1.0, np.inf])), "not finite"),
        ("npy", npy(np.array([1, 2]))[:-3], "cannot be decoded as npy"),
        ("npy", npy(np.array([{}], object)), "cannot be decoded as npy"),
        ("npy", npy(np.zeros(3)).replace(b"(3,), }            ", b"(9999999999999,), }"), "cannot be decoded as npy"),
        ("ten", b"not a tensor", "cannot be decoded as ten"),
        ("txt", b"\xff\xfe", "not text in UTF-8"),
        ("npz", b"PK\x03\x04", "neither a finite number nor JSON"),
        ("json.gz", b"\x1f\x8b\x08", "neither a finite number nor JSON"),
    ],
)
def test_what_cannot_be_read_is_said_without_the_content(suffix: str, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fact(suffix, content)


def test_a_set_with_labels_in_arrays_and_subjects_in_texts_is_adopted(tmp_path: Path) -> None:
    with webdataset.TarWriter(str(tmp_path / "train.tar")) as writer:
        for number in range(6):
            label = np.array([number % 2, 1, 0])
            image = PIXELS + number
            writer.write(
                {"__key__": f"{number}", "image.npy": image, "label.npy": label, "txt": f"patient {number // 2}"}
            )
    fields = {"images": {"image.npy": "image"}, "label": "label.npy", "subject": "txt"}
    manifest = adopt(tmp_path, parse(AdoptConfig, {"card": card().model_dump(), **fields}, "options"))
    records = whole_split(tmp_path, "train")
    assert records.label_BL.tolist() == [[number % 2, 1, 0] for number in range(6)]
    assert manifest.splits["train"].subjects == 3 and (records.stacked[5] == PIXELS + 5).all()
