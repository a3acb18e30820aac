"""What stands where a part is taken away has the values and the dtype of the image, of however many bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_shards.intensity import Window, Windows
from data_shards.sample import Image
from finetune.explain.methods import create_method
from finetune.explain.question import Question
from finetune.explain.removed import baseline
from tests.finetune.explain.fits import made


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("kind", ["mean", "blur", "zero"])
def test_it_is_the_same_for_values_that_are_stored_in_another_way(kind: str, dtype: type) -> None:
    scale, shift = {np.uint8: (1, 0), np.int16: (10, -1000), np.uint16: (200, 3000), np.float32: (0.1, -3)}[dtype]
    bytes_CHW = np.random.default_rng(0).integers(0, 256, (2, 12, 12), np.uint8)
    image = Image((bytes_CHW * float(scale) + shift).astype(dtype))
    found = baseline(image, kind, 4)
    assert found.dtype == dtype and found.shape == image.pixels.shape
    expected = baseline(Image(bytes_CHW.astype(np.float64)), kind, 4) * scale + shift
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0.5 if np.issubdtype(dtype, np.integer) else 1e-5)


@pytest.mark.parametrize("name", ["occlusion", "integrated_gradients", "grad_cam"])
def test_hounsfield_units_under_a_window_are_explained_as_the_bytes_they_are_shown_as(name: str) -> None:
    """A window from -1000 to 1550 shows ten units as one level, far beyond what a byte holds."""
    model, cases = made("attention", "volumes")
    (member,) = model.predictor_.members
    (study,) = cases.studies_of(1)
    image = study.images["image"]
    units = replace(image, pixels=(image.pixels.astype(np.int16) * 10 - 1000))
    rule = Windows(windows=(Window(center=275, width=2550),))
    measured = replace(study, images={"image": units}, rules={"image": rule})
    options = {"occlusion": {"block": 8, "step": 8, "baseline": "blur"}}.get(name, {})
    maps = [create_method(name, options).maps(Question(member, [each], 1))[0].values for each in (study, measured)]
    assert np.ptp(maps[0]) > 0
    np.testing.assert_allclose(maps[1], maps[0], atol=0.02 * np.abs(maps[0]).max())
