"""Tangent space with logistic regression: equal to pyriemann, fitted to training cases alone, saved as it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyriemann.geometry.distance import distance_riemann
from pyriemann.geometry.mean import mean_riemann
from pyriemann.tangentspace import TangentSpace as Peer
from scipy.linalg import cholesky
from sklearn.metrics import roc_auc_score

from data_shards.support.errors import ConfigError, DataError
from finetune.classifier.estimator import FewLabelClassifier
from finetune.fit.features import features_of
from finetune.fit.linear import TANGENT, select_linear
from finetune.fit.second_order import moments
from finetune.fit.tangent import FLOOR, SHRINKAGE, TangentSpace
from finetune.spd.mean import airm_distance, airm_mean
from finetune.spd.vector import matrices, vectorised
from finetune.splits import cross_folds
from finetune.targets import create_target
from tests.finetune.samples import blobs, tiny_backbone


def spd(count: int, size: int, condition: float = 1e3, seed: int = 0) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    vectors = np.linalg.qr(generator.normal(size=(count, size, size)))[0]
    values = np.exp(generator.uniform(-np.log(condition), 0, (count, 1, size)))
    return torch.from_numpy((vectors * values) @ vectors.swapaxes(1, 2))


@pytest.mark.parametrize("condition", [10.0, 1e3, 1e6])
def test_mean_and_distance_are_those_of_pyriemann(condition: float) -> None:
    given = spd(12, 6, condition)
    theirs = mean_riemann(given.numpy(), tol=1e-12, maxiter=200)
    np.testing.assert_allclose(airm_mean(given).numpy(), theirs, rtol=1e-6, atol=1e-6 * np.abs(theirs).max())
    distances = [
        distance_riemann(first, second) for first, second in zip(given[:-1].numpy(), given[1:].numpy(), strict=True)
    ]
    np.testing.assert_allclose(airm_distance(given[:-1], given[1:]).numpy(), distances, rtol=1e-6)


def test_distance_and_mean_do_not_depend_on_the_basis() -> None:
    given = spd(8, 5)
    basis = torch.from_numpy(np.random.default_rng(3).normal(size=(5, 5)))
    moved = basis.mT @ given @ basis
    torch.testing.assert_close(
        airm_distance(moved[:4], moved[4:]), airm_distance(given[:4], given[4:]), rtol=1e-8, atol=0
    )
    torch.testing.assert_close(airm_mean(moved), basis.mT @ airm_mean(given) @ basis, rtol=1e-7, atol=1e-7)


def test_vectors_are_those_of_pyriemann_up_to_the_scale() -> None:
    given = spd(20, 6)
    vectors = vectorised(given).numpy()
    space = TangentSpace.of(vectors[:15], 6)
    # With all channels kept the reduction only turns the basis; pyriemann is given what is shrunk in the same basis.
    basis = torch.from_numpy(space.basis_DK)
    turned = basis.mT @ given @ basis
    mean_variance = float(given[:15].mean(dim=0).diagonal().mean())
    size = turned.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    shrunk = (1 - SHRINKAGE) * turned + (SHRINKAGE * size + FLOOR * mean_variance) * torch.eye(6)
    peer = Peer(metric="riemann").fit(shrunk[:15].numpy())
    theirs = peer.transform(shrunk.numpy())
    found = space(vectors) * space.scale
    np.testing.assert_allclose(found, theirs, rtol=1e-6, atol=1e-6)
    assert np.mean(space(vectors[:15]) ** 2) == pytest.approx(1)
    np.testing.assert_allclose(found[:15].mean(axis=0), 0, atol=1e-7)  # the mean of the training cases is the origin


def test_vectorised_matrices_come_back() -> None:
    given = spd(3, 7)
    torch.testing.assert_close(matrices(vectorised(given)), given)


def test_covariances_are_those_of_all_tokens_of_a_case() -> None:
    cases = blobs(6)
    backbone = tiny_backbone()
    tokens = features_of(backbone, cases, dense=True).tokens.double()
    expected = torch.stack([torch.cov(each.T, correction=0) for each in tokens])
    np.testing.assert_allclose(moments(backbone, cases)[1], vectorised(expected), rtol=1e-4, atol=1e-6)
    bagged = replace(
        cases, labels=cases.known_labels[:3], keys=cases.keys[:3], rows=np.arange(6), bags=np.array([0, 0, 0, 1, 1, 2])
    )  # fmt: skip
    together = [torch.cat(list(tokens[part])) for part in (slice(0, 3), slice(3, 5), slice(5, 6))]
    expected = torch.stack([torch.cov(each.T, correction=0) for each in together])
    np.testing.assert_allclose(moments(backbone, bagged)[1], vectorised(expected), rtol=1e-4, atol=1e-6)


def correlated(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Covariances of samples whose channels have the same variances, and correlations by class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    found = []
    for label in labels:
        root = cholesky(np.array([[1, 0.5 - label], [0.5 - label, 1]]), lower=True)
        samples = generator.normal(size=(60, 6))
        samples[:, :2] = samples[:, :2] @ root.T
        found.append(np.cov(samples.T, bias=True))
    return vectorised(torch.from_numpy(np.stack(found))).numpy(), labels


def test_what_only_correlations_tell_is_told_and_held_out_cases_leave_no_trace() -> None:
    vectors, labels = correlated(80)
    target = create_target("binary", ("a", "b"))
    given = np.arange(40)
    folds = cross_folds(labels[given], 0)
    options = {"balanced": True, "candidates": [TANGENT]}
    found = select_linear({TANGENT: vectors[given]}, labels[given][:, None], target, folds, **options)
    said = found.fit.log_scores({TANGENT: vectors[40:]})[:, 1]
    assert roc_auc_score(labels[40:], said) >= 0.95
    # Each held-out score is that of a fit that has never seen the case, its covariance no more than its label.
    train, held = folds[0]
    alone = select_linear(
        {TANGENT: vectors[train]}, labels[train][:, None], target, (), strengths=found.strengths, **options
    )
    np.testing.assert_allclose(
        alone.fit.log_scores({TANGENT: vectors[held]}), found.held_out[held], rtol=1e-3, atol=1e-4
    )


def test_a_classifier_that_reads_it_is_saved_and_opened(tmp_path: Path) -> None:
    cases = blobs(24, side=28)
    options = {"reads": "tangent", "channels": 8}
    model = FewLabelClassifier("medformer_nano", head_options=options).fit(cases)
    assert model.record_.chosen["reads"] == "tangent"
    assert model.predictor_.members[0].head.models[0].scaling.width == 36
    model.save(tmp_path / "classifier")
    again = FewLabelClassifier.load(tmp_path / "classifier")
    np.testing.assert_array_equal(again.predict_proba(cases), model.predict_proba(cases))


def test_what_it_cannot_read_is_refused() -> None:
    cases = blobs(8)
    options = {"head_options": {"reads": "tangent"}}
    with pytest.raises(ConfigError, match="reads 'tangent' is for frozen features"):
        FewLabelClassifier("medformer_nano", strategy="full", **options).fit(cases)
    tiny = replace(cases, images=cases.images[..., :4, :4])
    with pytest.raises(DataError, match="there are tokens that differ"):
        FewLabelClassifier("medformer_nano", **options).fit(tiny)
    with pytest.raises(DataError, match="there are tokens that differ"):
        TangentSpace.of(np.zeros((4, 6)), 3)
    with pytest.raises(DataError, match="NaN or infinity"):
        TangentSpace.of(np.full((4, 6), np.nan), 3)
