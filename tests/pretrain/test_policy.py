"""What a policy allows, what gives way to it, and what it refuses."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
import torch
import yaml

from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Modality, Organ
from pretrain.views import ViewConfig
from pretrain.views.pipeline import Pipeline
from pretrain.views.policy import Policy, policy_named, under_policy
from pretrain.views.random import sample_keys
from pretrain.views.transforms import TRANSFORMS

PLANE, COLOUR, VOLUME = (1, 28, 28), (3, 28, 28), (1, 28, 28, 28)
POLICY = policy_named("medical")
KINDS = [(organ, modality) for organ in Organ.__members__ for modality in Modality.__members__]


def views(**content) -> ViewConfig:
    return ViewConfig.model_validate(content)


def test_every_rule_gives_a_reason_and_every_modality_has_rules() -> None:
    content = yaml.safe_load(resources.files("pretrain.views.policies").joinpath("medical.yaml").read_text())
    rules = [rule for kind in ("modality", "organ") for each in content[kind].values() for rule in each]
    assert all(len(rule["why"]) > 10 for rule in rules)
    assert set(POLICY.modality) == set(Modality.__members__) - {"unknown"}


@pytest.mark.parametrize("shape", [PLANE, COLOUR, VOLUME], ids=["plane", "colour", "volume"])
def test_defaults_give_way_once_and_what_is_left_keeps_every_rule(shape: tuple[int, ...]) -> None:
    for organ, modality in KINDS:
        ruled = under_policy(ViewConfig(), [organ], [modality], shape)
        again = under_policy(ruled.views, [organ], [modality], shape)
        assert again.views == ruled.views and again.notes == ()
        for _, rule in POLICY.rules([organ], [modality]):
            for name in rule.transforms:
                left = ruled.views.transforms[name]
                if left is not None and left.acts_on(shape):
                    assert not rule.never, (organ, modality, name)
                    assert all(getattr(left, parameter) <= most for parameter, most in rule.most.items())


def test_a_chest_is_never_mirrored_and_an_image_of_nothing_known_is() -> None:
    images = torch.from_numpy(np.arange(64 * 28 * 28, dtype=np.uint32).reshape(64, 1, 28, 28).astype(np.uint8))
    alone = {name: None for name in TRANSFORMS if name != "flip"}
    keys = sample_keys(0, 0, 0, torch.arange(64), 0)
    plain = Pipeline(views(**dict.fromkeys(TRANSFORMS)))(images, keys)
    chest = under_policy(views(**alone), ["chest"], ["xray"], PLANE).views
    assert torch.equal(Pipeline(chest)(images, keys), plain)
    unknown = under_policy(views(**alone), ["unknown"], ["unknown"], PLANE).views
    shown = Pipeline(unknown)(images, keys)
    mirrored = ((shown - plain.flip(-1)).abs() < 1e-3).flatten(1).all(dim=1)
    assert 16 < int(mirrored.sum()) < 48 and not torch.equal(shown, plain)


def test_slides_of_the_lung_may_be_mirrored() -> None:
    ruled = under_policy(views(flip={"horizontal": 0.5, "vertical": 0.5}), ["chest"], ["histology"], COLOUR)
    assert ruled.notes == () and ruled.views.transforms["flip"].vertical == 0.5


def test_the_rules_of_all_kinds_of_a_dataset_count_together() -> None:
    both = under_policy(ViewConfig(), ["brain", "chest"], ["mri", "ct"], VOLUME).views
    assert both.transforms["flip"].horizontal == 0 and both.transforms["gamma"].strength == 0.15


@pytest.mark.parametrize(
    ("asked", "organ", "modality", "message"),
    [
        (
            {"stain": {}},
            "chest",
            "ct",
            r"views\.stain is not for such images: stain: never \(ct: numbers are densities",
        ),
        ({"flip": {"horizontal": 0.3}}, "chest", "xray", r"flip\.horizontal: at most 0.*the heart lies to the left"),
        ({"flip": {"vertical": 0.5}}, "breast", "ultrasound", "sound comes from above"),
        ({"rotation": {"degrees": 90}}, "retina", "oct", "rotation.degrees: at most 20"),
        ({"solarise": {"probability": 0.1}}, "knee", "xray", "views.policy: null asks no policy"),
    ],
)
def test_what_is_asked_for_by_name_is_refused_with_the_reason(
    asked: dict, organ: str, modality: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        under_policy(views(**asked), [organ], [modality], COLOUR)
    ruled = under_policy(views(**asked, policy=None), [organ], [modality], COLOUR)
    assert ruled.notes == () and ruled.views == views(**asked, policy=None)


def test_a_transform_that_does_nothing_to_such_images_is_not_refused() -> None:
    asked = views(colour={"strength": 0.5}, stain={"probability": 0})
    assert under_policy(asked, ["chest"], ["ct"], PLANE).views.transforms["colour"] == asked.transforms["colour"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"transforms": ["flop"], "never": True}, "unknown transform 'flop'"),
        ({"transforms": ["flip"], "most": {"sideways": 0}}, "has no parameter 'sideways'"),
        ({"transforms": ["flip"]}, "never applied, or"),
        ({"transforms": ["flip"], "never": True, "modalities": ["mir"]}, "did you mean 'mri'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(rule: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy.model_validate({"modality": {"ct": [{**rule, "why": "because"}]}, "organ": {}})
