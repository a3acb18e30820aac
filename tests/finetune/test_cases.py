"""Cases of several images, of several modalities, of several sizes: through the features and the estimators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from data_shards.sample import Image
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier, FewLabelModel, FewLabelRegressor
from finetune.fit.encoding import encode
from finetune.fit.features import features_of, joined, summaries
from finetune.fit.raw import raw_pixels, raw_sides
from finetune.heads import CaseFeatures, create_head
from finetune.heads.features import SUMMARIES
from finetune.images import Study
from pretrain.backbone import StudyImage, normalise
from pretrain.metadata import Metadata
from tests.finetune.samples import (
    TARGETS,
    Reader,
    blobs,
    of_target,
    plane,
    seeing_backbone,
    solid_blobs,
    studies_of,
    tiny_backbone,
)

WAYS = [
    ("linear", "frozen"),
    ("attention", "frozen"),
    pytest.param("linear", "full", marks=pytest.mark.slow),
    pytest.param("linear", "two_stage", marks=pytest.mark.slow),
]
QUICK = {"max_steps": 60, "batch_size": 8, "learning_rate": 3e-3, "backbone_rate": 1e-3, "augmentation": False}


def estimator(name: str, **options: object) -> FewLabelModel:
    kind = FewLabelRegressor if name == "regression" else FewLabelClassifier
    return kind(seeing_backbone(), **options)


def bagged(cases: Cases, sizes: Sequence[int], seed: int = 0) -> Cases:
    """Each case with so many images of its own class, of which the sizes are taken in turn."""
    generator = np.random.default_rng(seed)
    studies, bags = [], []
    for case, study in enumerate(studies_of(cases)):
        for _ in range(sizes[case % len(sizes)]):
            pixels = study.images["image"].pixels.astype(int) + generator.integers(-20, 20, (1, 16, 16))
            studies.append(Study({"image": plane(pixels.clip(0, 255))}, Organ.chest))
            bags.append(case)
    return Reader(studies).cases(cases, np.array(bags))


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize(("head", "strategy"), WAYS)
def test_every_target_is_learned_from_cases_of_several_images(name: str, head: str, strategy: str) -> None:
    given, new = bagged(of_target(name, 36, seed=1), [1, 3, 2]), bagged(of_target(name, 36, seed=2), [2, 1])
    steps = {"max_steps": 200} if name == "regression" else {}
    options = {} if (head, strategy) == ("linear", "frozen") else {**QUICK, **steps}
    if head == "linear":
        options["head_options"] = {"reads": "embedding_mean_spread"}
    model = estimator(name, head=head, strategy=strategy, **options).fit(given)
    told = model.predictor_.predict_proba(new)
    assert told.shape == (36, {"binary": 2, "multilabel": 2, "regression": 1}.get(name, 3))
    assert model.score(new) > {"regression": 0.3, "multiclass": 0.45, "ordinal": 0.45}.get(name, 0.7)
    if name == "regression":
        assert model.score(new) == pytest.approx(r2_score(new.targets, model.predict(new)))
    # What is said of a case does not depend on which others are asked for beside it.
    few = new[[5, 0, 7]]
    np.testing.assert_allclose(model.predictor_.predict_proba(few), told[[5, 0, 7]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reads", SUMMARIES)
def test_summaries_of_bags_are_those_of_all_their_tokens(reads: str) -> None:
    cases, backbone = bagged(blobs(7, seed=1), [1, 4, 2]), tiny_backbone()
    every = features_of(backbone, cases, dense=True)
    found = summaries(backbone, cases).read(reads)
    np.testing.assert_allclose(found, every.summary(reads).numpy(), atol=1e-5)
    for case in range(7):
        tokens = torch.cat([encode_one(backbone, study).tokens[0] for study in cases.studies_of(case)])
        mean, spread = tokens.mean(dim=0), tokens.std(dim=0, correction=0)  # all studies have as many tokens
        embeddings = [encode_one(backbone, study).embedding_BD for study in cases.studies_of(case)]
        embedding = torch.cat(embeddings).mean(dim=0)
        parts = {"embedding": [embedding], "mean": [mean], "mean_spread": [mean, spread]}
        expected = torch.cat(parts.get(reads, [embedding, mean, spread]))
        np.testing.assert_allclose(found[case], expected.numpy(), atol=1e-5)


def encode_one(backbone: torch.nn.Module, study: Study) -> CaseFeatures:
    with torch.no_grad():
        return encode(backbone.eval(), [[study]], dense=True)


def test_studies_of_a_case_are_worth_the_same_whatever_their_size() -> None:
    small, large = blobs(1, side=16), blobs(1, side=32)
    studies = [*studies_of(small), *studies_of(large)]
    cases = Reader(studies).cases(blobs(1), np.array([0, 0]))
    backbone = tiny_backbone()
    one, other = (encode_one(backbone, study) for study in studies)
    assert one.tokens.shape[1] != other.tokens.shape[1]
    (found,) = features_of(backbone, cases, dense=True).mean()
    torch.testing.assert_close(found, (one.mean()[0] + other.mean()[0]) / 2, atol=1e-5, rtol=0)
    np.testing.assert_allclose(summaries(backbone, cases).mean_ND[0], found.numpy(), atol=1e-5)


def _two_modalities(cases: Cases, missing: Sequence[int] = ()) -> list[Study]:
    """A plane and its negative; the negative is missing in some."""
    studies = []
    for case, study in enumerate(studies_of(cases)):
        pixels = study.images["image"].pixels
        images = {"t1w": plane(pixels, Modality.mri), "flair": plane(255 - pixels[:, ::2, ::2], Modality.mri)}
        if case in missing:
            del images["flair"]
        studies.append(Study(images, Organ.brain))
    return studies


def test_a_missing_modality_is_fewer_tokens() -> None:
    backbone = tiny_backbone().eval()
    studies = _two_modalities(blobs(4), missing=[1, 3])
    cases = Reader(studies).cases(blobs(4))
    found = features_of(backbone, cases, dense=True)

    def network(study: Study) -> tuple[torch.Tensor, torch.Tensor]:
        images = [
            StudyImage(normalise(torch.from_numpy(image.pixels)[None]), torch.tensor([int(image.modality)]))
            for _, image in sorted(study.images.items())
        ]
        metadata = Metadata.uniform(1, Organ.brain, Modality.unknown, Task.self_supervised)
        with torch.no_grad():
            said = backbone.study(images, metadata, dense=True)
        return said.embedding_BD[0], torch.cat(said.tokens, dim=1)[0]

    for case, study in enumerate(studies):
        embedding, tokens = network(study)
        torch.testing.assert_close(found.embedding_BD[case], embedding, atol=1e-5, rtol=0)
        assert int(found.mask_BT[case].sum()) == len(tokens)
        torch.testing.assert_close(found.tokens[case, : len(tokens)], tokens, atol=1e-5, rtol=0)
    assert found.mask_BT.sum(dim=1).tolist() == [20, 16, 20, 16]
    alone = Reader([Study({"t1w": studies[1].images["t1w"]}, Organ.brain)]).cases(blobs(1))
    torch.testing.assert_close(
        features_of(backbone, alone, dense=True).embedding_BD[0], found.embedding_BD[1], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("head", "strategy"), WAYS)
def test_modalities_are_learned_from_also_where_one_is_missing(head: str, strategy: str) -> None:
    given = Reader(_two_modalities(blobs(28, seed=1), missing=[1, 4, 9])).cases(blobs(28, seed=1))
    new = Reader(_two_modalities(blobs(20, seed=2), missing=[0, 3])).cases(blobs(20, seed=2))
    model = FewLabelClassifier(tiny_backbone(), head=head, strategy=strategy, **QUICK).fit(given)
    assert model.score(new) > 0.8
    assert model.predictor_.seen.always == ("t1w",)
    stranger = Study({"adc": plane(np.arange(256).reshape(1, 16, 16))})
    with pytest.raises(DataError, match="blobs: blob-0000: an image 'adc'; the classifier knows flair, t1w"):
        model.predict(Reader([stranger]).cases(blobs(1)))


def test_raw_pixels_are_not_read_where_images_differ_by_name() -> None:
    some = Reader(_two_modalities(blobs(4), missing=[1])).cases(blobs(4))
    assert raw_sides(some) is None
    with pytest.raises(DataError, match="no raw pixels in common"):
        raw_pixels(some)
    every = Reader(_two_modalities(blobs(4))).cases(blobs(4))
    assert raw_sides(every) == {"flair": (8, 8), "t1w": (16, 16)}
    pixels = every.pictures.study(2).images
    expected = np.concatenate([pixels["flair"].pixels.ravel(), pixels["t1w"].pixels.ravel()]) / 255
    np.testing.assert_allclose(raw_pixels(every)[2], expected, atol=1e-6)
    bags = bagged(blobs(3), [2, 3])
    means = [np.mean([s.images["image"].pixels for s in bags.studies_of(case)], axis=0) / 255 for case in range(3)]
    np.testing.assert_allclose(raw_pixels(bags), np.stack(means).reshape(3, -1), atol=1e-6)


def _sizes(count: int, seed: int = 0) -> Cases:
    """Planes of three sizes."""
    parts = [studies_of(blobs(count, seed=seed, side=side)) for side in (16, 24, 32)]
    return Reader([parts[case % 3][case] for case in range(count)]).cases(blobs(count, seed=seed))


@pytest.mark.parametrize(("head", "strategy"), WAYS)
def test_images_of_several_sizes_are_learned_from_and_told_as_each_alone(head: str, strategy: str) -> None:
    model = FewLabelClassifier(seeing_backbone(), head=head, strategy=strategy, **QUICK).fit(_sizes(30, seed=1))
    new = _sizes(12, seed=2)
    told = model.predict_proba(new)
    assert model.score(new) > 0.6
    for case in range(0, 12, 3):
        np.testing.assert_allclose(model.predict_proba(_sizes(12, seed=2)[case]), told[[case]], atol=2e-5)


def test_padding_of_volumes_of_several_sizes_does_not_reach_the_attention_head() -> None:
    volumes = [*studies_of(solid_blobs(3, depth=4)), *studies_of(solid_blobs(3, depth=12, seed=1))]
    volumes = [Study({"image": replace(s.images["image"], spacing_mm=(2.0, 1.0, 1.0))}, s.organ) for s in volumes]
    cases = Reader(volumes).cases(blobs(6))
    backbone, head = tiny_backbone(), create_head("attention", 32, 3)
    torch.nn.init.normal_(head.query_HE)
    together = features_of(backbone, cases, dense=True)
    assert not together.mask_BT.all()
    with torch.no_grad():
        logits = head.eval()(together)
        for case in range(6):
            alone = head(features_of(backbone, cases[case], dense=True))
            torch.testing.assert_close(alone[0], logits[case], atol=1e-6, rtol=1e-5)
        parts = joined([features_of(backbone, cases[rows], dense=True) for rows in ([0, 1, 2], [3, 4, 5])])
        torch.testing.assert_close(head(parts), logits, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("spacing", [None, (2.0, 1.0), (float("nan"), 1.0)])
def test_planes_are_encoded_with_what_is_known_of_their_spacing(spacing: tuple[float, ...] | None) -> None:
    backbone, images = tiny_backbone(), blobs(3, channels=3)
    mixed = np.array([(float("nan"),) * 2, spacing or (float("nan"),) * 2, (1.0, 1.0)])
    cases = replace(images, spacing_mm=mixed)
    found = summaries(backbone, cases).embedding_ND
    with torch.no_grad():
        direct = backbone.eval().features(
            normalise(torch.from_numpy(images.images)), images.metadata, torch.from_numpy(mixed).float()
        )
    np.testing.assert_allclose(found, direct.embedding_BD.numpy(), atol=1e-5)
    unknown = summaries(backbone, images).embedding_ND
    assert np.abs(found - unknown)[2].max() > 1e-3 and np.abs(found - unknown)[0].max() < 1e-5


def test_images_that_were_given_are_not_known_for_volumes_and_planes_at_once() -> None:
    mixed = Reader([*studies_of(blobs(3)), *studies_of(solid_blobs(3))]).cases(blobs(6))
    with pytest.raises(DataError, match="1 channels and 3 axes beside images of 1 channels and 2 axes"):
        FewLabelClassifier(tiny_backbone()).fit(mixed)


def test_a_selection_of_cases_reads_the_right_images_and_keeps_bags_together() -> None:
    cases = bagged(blobs(6, seed=1), [1, 3, 2])
    for part in (cases[[4, 1, 1]], cases[np.array([False, True, False, False, True, False])], cases[1:5]):
        order = [int(str(key).split("-")[1]) for key in part.keys]
        for place, case in enumerate(order):
            ours = [study.images["image"].pixels for study in part.studies_of(place)]
            theirs = [study.images["image"].pixels for study in cases.studies_of(case)]
            np.testing.assert_array_equal(ours, theirs)
        assert part.digests() == [cases.digests()[case] for case in order]
    arrays = blobs(6, seed=1)
    np.testing.assert_array_equal(arrays[[4, 1]][[1]].images, arrays.images[[1]])
    assert arrays[[4, 1]][[1]].digests() == [arrays.digests()[1]]
    with pytest.raises(DataError, match="no case is left"):
        cases[[]]
    for bags in ([0, 0, 2], [0, 1, 0], [1, 1, 2], []):
        with pytest.raises(DataError, match="a case without an image"):
            replace(blobs(3), bags=np.array(bags, dtype=np.int64))


def test_arrays_can_be_bags_too() -> None:
    pool = blobs(5, seed=1)
    spacing_mm, bags = np.arange(1, 11).reshape(5, 2), np.repeat([0, 1], [2, 3])
    cases = replace(pool[:2], images=pool.images, spacing_mm=spacing_mm, rows=None, bags=bags)
    part = cases[[1]]
    assert [study.images["image"].spacing_mm for study in part.studies_of(0)] == [(5, 6), (7, 8), (9, 10)]
    np.testing.assert_array_equal(part.studies_of(0)[2].images["image"].pixels, pool.images[4])


def test_co_registered_images_are_moved_alike() -> None:
    from finetune.fit.learners import LIGHT
    from pretrain.views import augment
    from pretrain.views.random import sample_keys

    pixels = blobs(1).images[0]
    study = Study({"t1w": plane(pixels), "t2w": plane(pixels)})
    made: list[torch.Tensor] = []

    def inputs(images: torch.Tensor, numbers: np.ndarray, spacing: torch.Tensor | None) -> torch.Tensor:
        made.append(augment(images, sample_keys(0, 1, 0, torch.from_numpy(numbers), 0), LIGHT, spacing))
        return made[-1]

    encode(tiny_backbone(), [[study]], dense=False, numbers=np.array([7]), inputs=inputs)
    assert torch.equal(*made)


def test_an_image_has_its_own_pixels_at_every_position() -> None:
    with pytest.raises(DataError, match="8 bits"):
        Reader([Study({"image": Image(np.zeros((1, 4, 4), np.float32))})]).cases(blobs(1)).pictures.study(0)
