"""Features of the frozen backbone are computed once, and are the same when they are found again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune.cases import Cases
from finetune.classifier.estimate import cross_validated
from finetune.classifier.estimator import FewLabelClassifier
from finetune.fit import features as module
from finetune.fit.encoding import encode
from finetune.fit.features import features_of, frozen
from finetune.images import Study
from pretrain.backbone import Medformer
from tests.finetune.samples import Reader, blobs, plane, tiny_backbone

FIELDS = ("embedding_BD", "tokens_BTD", "weight_BT", "study_BT", "studies_BSD", "present_BS", "image_BT")


def counted(backbone: Medformer) -> list[int]:
    sizes: list[int] = []
    backbone.encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[1])))
    return sizes


def of_two_modalities() -> Cases:
    """Seven cases of one study or two, each of t1 and flair, of t1 alone, or of flair alone, of two sizes."""
    generator = np.random.default_rng(0)
    image = lambda side: plane(generator.integers(0, 255, (1, side, side)))  # noqa: E731
    studies = [
        Study({name: image(side) for name in names})
        for names, side in [
            (("t1", "flair"), 16), (("t1",), 16), (("flair",), 16), (("t1", "flair"), 20), (("flair",), 20),
            (("t1", "flair"), 16), (("t1",), 20), (("t1", "flair"), 16), (("flair",), 16),
        ]
    ]  # fmt: skip
    return Reader(studies).cases(blobs(7), np.array([0, 1, 1, 2, 3, 4, 4, 5, 6]))


@pytest.mark.parametrize("make", [lambda: blobs(9), of_two_modalities], ids=["one", "several"])
def test_what_was_kept_is_what_is_computed(make) -> None:
    cases, backbone = make(), tiny_backbone().eval()
    with torch.no_grad():
        plain = encode(backbone, [cases.studies_of(case) for case in range(len(cases))], dense=True)
    sizes = counted(backbone)
    first = features_of(backbone, cases, dense=True)
    passes = len(sizes)
    # Half of them known and half not, in another order, and then all known.
    order = np.random.default_rng(1).permutation(len(cases))
    again = features_of(backbone, cases[order], dense=True).take(torch.from_numpy(np.argsort(order)))
    assert len(sizes) == passes > 0
    for found in (first, again):
        assert (found.grid, found.images) == (plain.grid, plain.images)
        for name in FIELDS:
            mine, theirs = getattr(found, name), getattr(plain, name)
            assert (mine is None) == (theirs is None), name
            if theirs is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_half_of_them_known() -> None:
    cases, backbone = of_two_modalities().shared(), tiny_backbone().eval()
    whole = features_of(backbone, cases, dense=True)
    fresh = of_two_modalities().shared()
    features_of(backbone, fresh[[1, 4]], dense=True)
    found = features_of(backbone, fresh, dense=True)
    for name in FIELDS:
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-4, atol=1e-5)


def test_each_token_knows_its_image() -> None:
    cases, backbone = of_two_modalities(), tiny_backbone().eval()
    found = features_of(backbone, cases, dense=True)
    assert found.images == ("flair", "t1")
    for case in range(len(cases)):
        expected = []
        for study in cases.studies_of(case):
            for name, image in study.sorted_images:
                alone = encode(backbone, [[Study({name: image})]], dense=True)
                expected += [found.images.index(name)] * alone.tokens.shape[1]
        here = found.mask_BT[case]
        assert found.image_BT[case][here].tolist() == expected


def test_a_cross_validation_encodes_each_image_once() -> None:
    cases = blobs(24).shared()
    backbone = tiny_backbone()
    model = FewLabelClassifier(backbone, head="attention", max_steps=5, learning_rate=1e-3).fit(cases)
    sizes = counted(backbone)
    with_memo = cross_validated(model, cases, repeats=2)
    assert not sizes
    cases.pictures.memo.clear()
    assert cross_validated(model, cases, repeats=2).by_repeat == pytest.approx(with_memo.by_repeat, abs=1e-6)


def test_weights_that_changed_are_not_taken_for_those_before() -> None:
    cases, backbone = blobs(4).shared(), tiny_backbone().eval()
    before = features_of(backbone, cases, dense=True).tokens
    with torch.no_grad():
        next(backbone.encoder.parameters()).add_(0.5)
    after = features_of(backbone, cases, dense=True).tokens
    assert not torch.allclose(before, after)


def test_nothing_is_kept_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    cases, backbone = blobs(6).shared(), tiny_backbone().eval()
    full = features_of(backbone, cases, dense=True).tokens
    cases.pictures.memo.clear()
    monkeypatch.setattr(module, "_LEFT_FREE", 1 << 60)
    found = [features.tokens for _, features in frozen(backbone, cases, dense=True)]
    torch.testing.assert_close(torch.cat(found), full)
    assert not any(cases.pictures.memo["studies"].values())
    assert replace(cases).pictures is cases.pictures
