"""Shards whose images are not alike are refused with what differs and what makes it the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_shards.intensity import Percentiles
from data_shards.reading.reader import ShardedDataset
from data_shards.support.errors import ConfigError
from data_shards.writing.writer import write_dataset
from pretrain.intensity.of_dataset import shown_shape
from tests.data_shards.made_sources import Listed, card, toy_sample

SIZE, VALUES = "prepare.size=64", r"prepare.intensity.percentile=\[0.5,99.5\]"


@pytest.mark.parametrize(
    "shape, dtype, told",
    [
        ((1, 8, 8), "int16", f"; dtypes differ: {VALUES} of medformer shards build"),
        ((1, 8, 9), "uint8", f"; sizes differ: {SIZE} of medformer shards build"),
        ((1, 8, 9), "int16", f"; sizes and dtypes differ: {SIZE} and {VALUES} of medformer shards build"),
    ],
)
def test_what_differs_is_named_with_its_cure(shape: tuple[int, ...], dtype: str, told: str, tmp_path: Path) -> None:
    images = [np.zeros((1, 8, 8), np.uint8), np.ones(shape, dtype)]
    samples = [toy_sample(f"i-{place}", pixels=pixels) for place, pixels in enumerate(images)]
    write_dataset(Listed(samples, card()), tmp_path / "shards")
    with pytest.raises(ConfigError, match=told):
        shown_shape(ShardedDataset(tmp_path / "shards", "train"), Percentiles())
