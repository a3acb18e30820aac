"""A classifier with second-order pooling is fitted, saved and opened as any other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.support.errors import ConfigError
from finetune.classifier.estimator import FewLabelClassifier


def striped(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, of which every second image has stripes."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % 2
    images = generator.integers(90, 160, (count, 1, 28, 28), dtype=np.uint8)
    images[labels == 1, :, ::4] = 255
    return images, labels


@pytest.mark.parametrize("options", [{"channels": 8}, {"channels": 8, "dims": [6], "map": "sqrt"}])
def test_it_learns_and_comes_back_as_it_was(tmp_path: Path, options: dict) -> None:
    images, labels = striped(32)
    model = FewLabelClassifier("medformer_nano", head="spd", head_options=options, max_steps=40).fit(images, labels)
    assert model.score(images, labels) > 0.9
    for weight in model.predictor_.members[0].head.head.maps:
        assert (weight.mT @ weight - torch.eye(weight.shape[1])).abs().max() < 1e-5
    model.save(tmp_path / "classifier")
    again = FewLabelClassifier.load(tmp_path / "classifier")
    np.testing.assert_array_equal(again.predict_proba(images), model.predict_proba(images))


def test_it_is_trained_with_the_network() -> None:
    images, labels = striped(16)
    model = FewLabelClassifier("medformer_nano", head="spd", strategy="full", max_steps=2, learning_rate=1e-3)
    assert np.isfinite(model.fit(images, labels).predict_proba(images)).all()


def test_sizes_that_rise_are_refused() -> None:
    images, labels = striped(16)
    with pytest.raises(ConfigError, match="none above the one before"):
        FewLabelClassifier("medformer_nano", head="spd", head_options={"channels": 8, "dims": [9]}).fit(images, labels)
