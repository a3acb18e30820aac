"""Rules of intensity as documents: how they are written, what is refused, and that manifests keep them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.format.manifest import digest_of, read_manifest
from data_shards.intensity import BYTES, PRESETS, Percentiles, Window, Windows, ZScore, check_values, rule_of
from data_shards.prepare import Storing
from data_shards.reading.reader import ShardedDataset
from data_shards.support.documents import parse, resolved
from data_shards.support.errors import ConfigError, DataError
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import toy_source


def rules(given: Any) -> dict[str, Any]:
    return dict(parse(Storing, {"intensity": given}, "options").intensity)


def test_short_and_long_spellings_are_one_rule() -> None:
    lung = Window(center=-600, width=1500, name="lung")
    both = Windows(windows=(lung, Window(center=40, width=400)))
    long = {"rule": "windows", "windows": ["lung", {"low": -160, "high": 240}]}
    assert rules(["lung", {"center": 40, "width": 400}]) == rules(long) == {"*": both}
    assert rules("lung") == {"*": Windows(windows=(lung,))}
    assert rules({"ct": "lung", "*": "z-score"}) == {"ct": Windows(windows=(lung,)), "*": ZScore()}
    assert rules("percentiles")["*"] == Percentiles(low=0.5, high=99.5, foreground="all")
    assert parse(Storing, resolved(Storing(intensity={"*": both})), "again").intensity == {"*": both}


def test_presets_are_the_windows_of_the_page_they_cite() -> None:
    told = {"lung": (1500, -600), "mediastinum": (350, 50), "bone": (1800, 400), "brain": (80, 40), "liver": (150, 30)}
    assert {name: (width, center) for name, (center, width) in PRESETS.items()} == told


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"low": 40, "high": 40}], "a window from 40 to 40: its ends are equal"),
        ([{"low": 240, "high": -160}], "a window from 240 to -160: its ends are reversed"),
        ([{"center": 40, "width": -1}], "its ends are reversed"),
        ([{"center": 40, "width": float("nan")}], "finite number"),
        (["lungs"], "no window is called 'lungs'.*'lung'"),
        ([{"name": "lung", "center": 0, "width": 10}], "no preset 'lung' has center 0 and width 10"),
        ([], "windows: at least one is expected"),
        ({"rule": "percentiles", "low": 99, "high": 1}, "percentiles 99 to 1: the low one comes first"),
        ({"rule": "percentile"}, "'percentile'.*'percentiles'"),
        ({"rule": "z-score", "version": 2}, "Input should be 1"),
        ({"rule": "z-score", "clip": 3}, "unknown key"),
        ("zscore", "no rule and no window is called 'zscore'; did you mean 'z-score'"),
        ("lungs", "no rule and no window is called 'lungs'; did you mean 'lung'"),
        (
            {"ct": {"kind": "z-score"}},
            r"^options: intensity\.ct: expected a key 'rule' beside 'kind'; valid: bytes, win",
        ),
        ({"rule": "zscore"}, "^options: intensity: no rule is called 'zscore'; did you mean 'z-score'"),
        ({"rule": "z-score", "limt": 3}, r"^options: unknown key 'intensity\.limt'; did you mean 'limit'"),
        ({"rule": "z-score", "limit": True}, r"^options: intensity\.limit: expected a number, and not true or false"),
        ([{"low": True, "high": 4}], r"^options: intensity\.0: the ends of a window are two numbers"),
        (5, "^options: intensity: expected the name of a rule or of a CT window, or a rule; valid: bytes, windows"),
        ({"ct": "percentile"}, "no rule and no window is called 'percentile'; did you mean 'percentiles'"),
        (
            {"window": [40, 400]},
            r"prepare\.intensity\.window of `medformer shards build`; .* it is written \[\{center: 40, width: 400\}\]",
        ),
        (
            {"*": {"percentile": [0.5, 99]}},
            r"prepare\.intensity\.percentile .*\{rule: percentiles, low: 0\.5, high: 99\}",
        ),
    ],
)
def test_what_is_no_rule_is_refused_in_one_line(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        rules(given)
    assert "\n" not in str(raised.value) and "intensity" in str(raised.value)


def test_an_image_may_be_called_window() -> None:
    assert rules({"window": ["lung", "bone"]})["window"] == Windows(
        windows=(Window.model_validate("lung"), Window.model_validate("bone"))
    )


def test_an_image_that_is_not_named_has_the_rule_of_all_and_a_mask_none() -> None:
    found = rules({"ct": "bone", "*": "z-score"})
    assert [rule_of(found, name) for name in ("ct", "mr", "mask")] == [found["ct"], ZScore(), None]
    assert rule_of({"ct": ZScore()}, "mr") is None


@pytest.mark.parametrize(
    ("rule", "pixels", "said"),
    [
        ("lung", np.array([[63488, 100]], np.uint16), "uint16 values from 100 to 63488 are no Hounsfield units: unsig"),
        ("lung", np.array([[-32000, 100]], np.int16), "int16 values from -32000 to 100 are no Hounsfield units"),
        (
            ["lung", "bone"],
            np.zeros((3, 4), np.int16),
            "2 windows become the channels of an image that has one; found 3",
        ),
        ("bytes", np.zeros((1, 4), np.int16), "rule bytes is for unsigned 8 bits, found int16"),
    ],
)
def test_images_that_a_rule_cannot_be_for_are_refused(rule: Any, pixels: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        check_values(rules(rule)["*"], pixels)


def test_a_window_without_the_name_of_a_preset_says_nothing_of_units() -> None:
    check_values(rules([{"low": 0, "high": 60000}])["*"], np.array([[63488, 100]], np.uint16))


def test_a_manifest_of_the_version_before_is_read_as_8_bits(tmp_path: Path) -> None:
    write_dataset(toy_source({"train": 3}), tmp_path / "toy")
    path = tmp_path / "toy" / "manifest.json"
    before = json.loads(path.read_text())
    assert before.pop("intensity") == {} and before["schema_version"] == 3
    before["schema_version"] = 2
    before["digest"] = digest_of(before)
    path.write_text(json.dumps(before))
    assert read_manifest(tmp_path / "toy").digest == before["digest"]
    dataset = ShardedDataset(tmp_path / "toy", "train")
    assert dataset.intensity is None and BYTES.words == "8 bits, 0 to 255"
    assert dataset.read(np.arange(3)).stacked.dtype == np.uint8
