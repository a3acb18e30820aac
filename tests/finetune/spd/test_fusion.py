"""Fusion of modalities: what each form can tell, what a missing modality does, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Modality
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier
from finetune.fit.network import Readout
from finetune.heads import CaseFeatures, create_head
from finetune.heads.modalities import by_image
from finetune.images import Study
from finetune.spd.covariance import covariance, shrunk
from finetune.spd.eigen import eigen_function, logarithm
from finetune.spd.stiefel import optimizer_of
from finetune.spd.vector import vectorised
from tests.finetune.samples import Reader, blobs, plane

FUSIONS = ("early", "intermediate", "late")
NAMES = ["adc", "t2w"]


def case_features(count: int, seed: int, *, across: bool) -> tuple[CaseFeatures, torch.Tensor]:
    """Two modalities of 32 cells; the class is in the correlation across them, or in that within the second."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    first, second = torch.randn(2, count, 32, 8, generator=generator)
    sign = (2 * labels - 1)[:, None, None]
    if across:
        second = 0.8 * sign * first + 0.6 * second
    else:
        second = torch.cat([second[..., :4], 0.8 * sign * second[..., :4] + 0.6 * second[..., 4:]], dim=-1)
    tokens = torch.cat([first, second], dim=1)
    image_BT = torch.arange(64).div(32, rounding_mode="floor").expand(count, -1)
    return CaseFeatures(tokens.mean(1), tokens, image_BT=image_BT, images=tuple(NAMES)), labels


def scored(fusion: str, *, across: bool) -> float:
    torch.manual_seed(0)
    (train, labels), (test, truth) = (case_features(n, seed, across=across) for n, seed in ((96, 0), (200, 1)))
    head = create_head("spd", 8, 1, {"fusion": fusion, "images": NAMES})
    optimizer = optimizer_of(Readout(head, None).groups(0.01, 0.01))
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(head(train)[:, 0], labels.float()).backward()
        optimizer.step()
    return float(roc_auc_score(truth, head(test)[:, 0].detach()))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_only_early_fusion_tells_what_is_between_modalities(fusion: str) -> None:
    auc = scored(fusion, across=True)
    assert auc > 0.95 if fusion == "early" else 0.3 < auc < 0.7
    assert scored(fusion, across=False) > 0.9


def by_hand(head, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    """The pooled vector of one case, modality by modality."""
    share = head.shrinkage.sigmoid()
    normed = {name: head.norm(each) for name, each in tokens.items()}
    if head.config.fusion == "early":
        zeros = torch.zeros_like(next(iter(normed.values())))
        both = torch.cat([normed.get(name, zeros) for name in NAMES], dim=-1)
        return vectorised(logarithm(shrunk(covariance(both @ head.maps[0]), share)))
    each = {
        name: logarithm(shrunk(covariance(normed[name] @ head.maps[NAMES.index(name)]), share)) for name in normed
    }  # fmt: skip
    if head.config.fusion == "intermediate":
        mean = torch.stack(list(each.values())).mean(dim=0)
        return vectorised(logarithm(eigen_function(mean, torch.exp, torch.exp)))
    size = next(iter(each.values()))
    return vectorised(torch.cat([each.get(name, torch.zeros_like(size)) for name in NAMES])).flatten()[None]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_it_is_what_it_says_with_a_modality_missing_too(fusion: str) -> None:
    torch.manual_seed(1)
    features, _ = case_features(3, 2, across=True)
    head = create_head("spd", 8, 2, {"fusion": fusion, "images": NAMES, "channels": 4})
    # The second case lacks t2w, the third adc; padding is not a number.
    weight = torch.full((3, 64), 1 / 64)
    weight[1, 32:], weight[1, :32] = 0, 1 / 32
    weight[2, :32], weight[2, 32:] = 0, 1 / 32
    tokens = features.tokens.clone()
    tokens[1, 32:] = tokens[2, :32] = 7.0
    given = CaseFeatures(
        features.embedding_BD, tokens, weight, image_BT=features.image_BT, images=features.images
    )  # fmt: skip
    expected = [
        by_hand(head, {"adc": tokens[:1, :32], "t2w": tokens[:1, 32:]}),
        by_hand(head, {"adc": tokens[1:2, :32]}),
        by_hand(head, {"t2w": tokens[2:, 32:]}),
    ]
    torch.testing.assert_close(head.pool(given), torch.cat(expected), rtol=1e-4, atol=1e-4)
    head.pool(given).sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in head.parameters())


def test_tokens_are_sorted_by_image() -> None:
    features, _ = case_features(2, 0, across=True)
    mixed = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    shuffled = CaseFeatures(
        features.embedding_BD, features.tokens[:, mixed], image_BT=features.image_BT[:, mixed], images=features.images
    )
    for found, rows in zip(by_image(shuffled, NAMES), (mixed[mixed < 32], mixed[mixed >= 32]), strict=True):
        torch.testing.assert_close(found.tokens, features.tokens[:, rows])
        torch.testing.assert_close(found.weight_BT, torch.full((2, 32), 1 / 32))
    with pytest.raises(DataError, match="an image t2w; the head knows adc"):
        by_image(features, ["adc"])


def prostates(count: int, *, side: int = 16, other: int = 16, missing: bool = False) -> Cases:
    generator = np.random.default_rng(0)
    studies = []
    for number in range(count):
        images = {
            name: plane(generator.integers(0, 255, (1, size, size)), Modality.mri)
            for name, size in zip(NAMES, (side, other), strict=True)
        }
        if missing and number % 5 == 0:
            del images["t2w"]
        studies.append(Study(images))
    return Reader(studies).cases(blobs(count))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_classifier_of_two_modalities_is_fitted_saved_and_opened(tmp_path: Path, fusion: str) -> None:
    cases = prostates(16, missing=True)
    options = {"fusion": fusion, "channels": 6, "dims": [4]}
    model = FewLabelClassifier("medformer_nano", head="spd", head_options=options, max_steps=3).fit(cases)
    said = model.predict_proba(cases)
    assert np.isfinite(said).all()
    model.save(tmp_path / "classifier")
    again = FewLabelClassifier.load(tmp_path / "classifier")
    np.testing.assert_allclose(again.predict_proba(prostates(16, missing=True)), said, atol=1e-6)


def test_what_cannot_be_joined_is_refused() -> None:
    def fit(cases: Cases, **options) -> None:
        FewLabelClassifier("medformer_nano", head="spd", head_options=options, max_steps=2).fit(cases)

    with pytest.raises(DataError, match="fusion early joins the tokens of images that lie on each other"):
        fit(prostates(8, other=24), fusion="early")
    fit(prostates(8, other=24), fusion="late")
    with pytest.raises(ConfigError, match="fusion late joins two modalities at least .*found image"):
        fit(blobs(8), fusion="late")
    with pytest.raises(ConfigError, match="images adc, flair; those of the given cases are adc, t2w"):
        fit(prostates(8), fusion="late", images=["adc", "flair"])
