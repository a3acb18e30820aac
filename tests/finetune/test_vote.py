"""Who votes in the default of the linear head, and what that costs on many images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.classifier.estimator import FewLabelClassifier
from finetune.fit import features, second_order
from finetune.fit.features import summaries
from finetune.fit.linear import RAW, TANGENT, VOTE
from finetune.fit.second_order import cases_at_once, moments, width
from tests.finetune.samples import blobs, tiny_backbone


def fitted(cases, **options) -> FewLabelClassifier:
    return FewLabelClassifier(tiny_backbone(), calibrate=False, **options).fit(cases)


def voters(model: FewLabelClassifier) -> tuple[str, ...]:
    return model.predictor_.members[0].head.reads


def test_by_default_embedding_spread_covariances_and_pixels_vote(tmp_path: Path) -> None:
    cases = blobs(24)
    model = fitted(cases)
    assert model.record_.chosen["reads"] == "vote"
    assert voters(model) == VOTE and set(VOTE) == {"embedding", "mean_spread", TANGENT, RAW}
    assert set(model.record_.chosen["held_out_loss"]) == {"vote", *VOTE}
    each = [fitted(cases, head_options={"reads": read}).predict_proba(cases) for read in VOTE]
    np.testing.assert_allclose(model.predict_proba(cases), np.mean(each, axis=0), atol=1e-6)
    named = FewLabelClassifier("medformer_nano").fit(blobs(24, side=28))
    named.save(tmp_path / "classifier")
    again = FewLabelClassifier.load(tmp_path / "classifier")
    assert voters(again) == voters(named) == VOTE


def test_covariances_do_not_vote_where_there_are_none() -> None:
    cases, backbone = blobs(24), tiny_backbone()
    one_token = replace(cases, images=cases.images[..., :4, :4])
    assert not moments(backbone, one_token)[1].any()
    model = fitted(one_token)
    assert voters(model) == ("embedding", "mean_spread", RAW)
    assert np.isfinite(model.predict_proba(one_token)).all()


def test_covariances_do_not_vote_where_they_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = blobs(24)
    monkeypatch.setattr(second_order, "MOST_KEPT", 23 * width(tiny_backbone()))
    assert cases_at_once(tiny_backbone(), cases) == 23
    assert TANGENT not in voters(fitted(cases))


def test_many_cases_are_told_in_runs_and_their_covariances_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    given, new = blobs(24), blobs(20, seed=1)
    model = fitted(given)
    at_once = model.predict_proba(new)
    few = 3 * width(tiny_backbone())
    monkeypatch.setattr(second_order, "MOST_KEPT", few)
    monkeypatch.setattr(features, "MOST_KEPT", few)
    again = blobs(20, seed=1)
    np.testing.assert_allclose(model.predict_proba(again), at_once, atol=1e-6)
    assert not again.pictures.memo.get("covariances")


def test_summaries_read_beside_covariances_are_the_summaries() -> None:
    cases, backbone = blobs(6), tiny_backbone()
    beside, alone = moments(backbone, cases)[0], summaries(backbone, blobs(6))
    for read in ("embedding", "mean_spread"):
        np.testing.assert_allclose(beside.read(read), alone.read(read), atol=1e-6)
