"""Documents of views: nested by transform, with overrides, defaults and one clear error for what cannot be."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data_shards.support.documents import load, parse, resolved, write_resolved
from data_shards.support.errors import ConfigError, DataError
from data_shards.support.plugins import load_plugins
from pretrain.config import PretrainConfig, run_digest
from pretrain.data import check_objectives
from pretrain.module import create_backbone
from pretrain.objectives import check_parameters
from pretrain.objectives.base import OBJECTIVES
from pretrain.views import ViewConfig, augment
from pretrain.views.config import IDENTITY
from pretrain.views.transforms import TRANSFORMS, Change, transform
from pretrain.views.transforms.base import TransformConfig
from pretrain.views.transforms.crop import Crop
from pretrain.views.transforms.elastic import Elastic
from pretrain.views.transforms.noise import Noise
from tests.data_shards.support.test_plugins import install
from tests.pretrain.objective_views import document_of
from tests.pretrain.view_samples import keys, noise_images
from tests.registries import restored

RUN: dict[str, Any] = {"out": "runs/x", "data": {"datasets": [{"path": "a"}]}, "objectives": {"simclr": {}}}
GREY, COLOUR, VOLUME = (1, 28, 28), (3, 28, 28), (1, 9, 28, 28)


def views_of(*overrides: str) -> ViewConfig:
    return parse(PretrainConfig, copy.deepcopy(RUN), "run.yaml", overrides).views


def test_left_out_is_the_default_and_null_or_zero_is_off() -> None:
    assert views_of() == ViewConfig() == views_of("views={}")
    names = [each.name for each in ViewConfig().acting_on(COLOUR)]
    assert sorted(names) == sorted(
        ["blur", "brightness", "colour", "contrast", "crop", "flip", "gamma", "noise", "rotation"]
    )
    for override in ("views.noise=null", "views.noise.strength=0", "views.noise.probability=0"):
        left = [each.name for each in views_of(override).acting_on(COLOUR)]
        assert left == [name for name in names if name != "noise"], override
    nothing = [f"views.{name}=null" for name in TRANSFORMS]
    assert views_of(*nothing) == IDENTITY and not IDENTITY.acting_on(VOLUME)


def test_overrides_reach_into_transforms_and_switch_on_what_is_off() -> None:
    views = views_of("views.elastic.strength=0.1", "views.crop.scale=[0.5, 0.9]", "views.blur=null", "views.blur={}")
    assert views.of(Elastic.Config) == Elastic.Config(strength=0.1)
    assert views.of(Crop.Config) == Crop.Config(scale=(0.5, 0.9), aspect=1.25)
    assert views.transforms["blur"] == TRANSFORMS["blur"].Config()
    assert views_of("views.noise=null").of(Noise.Config) is None


def test_the_resolved_document_says_everything_and_is_read_back(tmp_path: Path) -> None:
    config = parse(PretrainConfig, copy.deepcopy(RUN), "run.yaml", ["views.stain={}", "views.padding=border"])
    content = resolved(config)["views"]
    assert set(content) == {*TRANSFORMS, "padding", "coarser", "slices", "policy"}
    assert content["stain"] == {"probability": 0.8, "strength": 0.05, "shift": 0.02} and content["rician"] is None
    again = load(PretrainConfig, write_resolved(config, tmp_path))
    assert again == config and run_digest(again) == run_digest(config)
    other = parse(PretrainConfig, copy.deepcopy(RUN), "run.yaml", ["views.stain.shift=0.03", "views.padding=border"])
    assert run_digest(other) != run_digest(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("views.crpo.scale=[1,1]", r"^run.yaml: views: unknown transform 'crpo'; did you mean 'crop'\?$"),
        ("views.paddign=border", r"^run.yaml: views: unknown transform 'paddign'; did you mean 'padding'\?$"),
        ("views.transforms={}", "^run.yaml: views: unknown transform 'transforms'; valid: anisotropy, .*slices"),
        ("views.rotation.degres=3", r"^run.yaml: unknown key 'views.rotation.degres'; did you mean 'degrees'\?$"),
        ("views.noise.strength=3", "^run.yaml: views.noise.strength: Input should be less than or equal to 1; found 3"),
        ("views.crop.scale=[0.9, 0.2]", "^run.yaml: views.crop.scale: 0.9 is above 0.2; the smallest area comes first"),
        ("views.noise=3", "^run.yaml: views.noise: Input should be a valid dictionary"),
        ("views=3", "^run.yaml: views: Input should be a valid dictionary"),
        ("views.elastic.strength=0.5", "^run.yaml: views.elastic.strength: .*less than or equal to 0.4"),
        (
            "data.datasets.0.views={crop: {aspct: 1}}",
            r"^run.yaml: unknown key 'data.datasets.0.views.crop.aspct'; did you mean 'aspect'\?$",
        ),
        ("views.crop_scale_min=0.3", "^run.yaml: views: unknown transform 'crop_scale_min'"),
    ],
)
def test_what_cannot_be_is_named_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        views_of(override)
    assert "\n" not in str(raised.value)


class Pretended:
    folder = "somewhere"
    split, intensity, layout = "train", None, SimpleNamespace(dtype="uint8")

    def __init__(self, *shape: int) -> None:
        self.image_shape = shape
        self.manifest = SimpleNamespace(vocabulary={})  # nothing is known of what they show


def check(objectives: dict[str, Any], shape: tuple[int, ...], views: ViewConfig) -> None:
    config = document_of(objectives, views=views.model_dump())
    check_objectives(config, [Pretended(*shape)], create_backbone(config.model))  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["simclr", "byol", "barlow_twins"])
def test_views_that_cannot_differ_are_refused_where_two_must(name: str) -> None:
    message = rf"^objectives.{name}: somewhere: views leave no transform that changes images of \(1, 28, 28\)"
    for nothing in (
        IDENTITY,
        IDENTITY.changed(colour={}),  # there are no colours
        IDENTITY.changed(rotation={"degrees": 0, "tilt_degrees": 9}, flip={"horizontal": 0, "depth": 1}),  # nor depth
        IDENTITY.changed(coarser=(2.0, 2.0)),
        IDENTITY.changed(slices=(True, True)),
    ):
        with pytest.raises(ConfigError, match=message):
            check({name: {}}, GREY, nothing)
    check({name: {}}, COLOUR, IDENTITY.changed(colour={}))
    check({name: {}}, GREY, IDENTITY.changed(noise={}))
    check({name: {}}, GREY, IDENTITY.changed(coarser=(1.0, 2.0)))
    check({name: {}}, VOLUME, IDENTITY.changed(slices=(True, True)))  # other slices


def test_objectives_of_one_view_or_of_small_ones_need_no_transform() -> None:
    for objectives in ({"masked": {}}, {"rotation": {}}, {"swav": {}}, {"dino": {}}):
        check(objectives, GREY, IDENTITY)
    with pytest.raises(ConfigError, match="objectives.swav: .*views leave no transform"):
        check({"swav": {"small": {"count": 0}}}, GREY, IDENTITY)
    fusion = {"brainfuse": {"views": IDENTITY.model_dump()}}
    with pytest.raises(ConfigError, match="objectives.brainfuse: .*views leave no transform"):
        check(fusion, GREY, ViewConfig())
    check({"brainfuse": {"joint": "none", "views": IDENTITY.model_dump()}}, GREY, ViewConfig())
    nested = check_parameters("brainfuse", {"views": {"flip": None}})
    assert nested.views == ViewConfig().changed(flip=None)
    assert OBJECTIVES["brainfuse"].Config.model_validate(nested.model_dump()) == nested


def test_stains_of_what_is_no_colour_image_are_refused_before_training_and_when_it_is_tried() -> None:
    stained = ViewConfig().changed(stain={})
    with pytest.raises(ConfigError, match=r"^somewhere: views.stain: .*of 3 channels, these have 1; stain: null$"):
        check({"simclr": {}}, GREY, stained)
    with pytest.raises(ConfigError, match="views.stain: .*these have 4"):
        augment(noise_images(2, 4, 8, 8), keys(2), stained)
    check({"simclr": {}}, COLOUR, stained)
    check({"simclr": {}}, GREY, stained.changed(stain={"probability": 0}))


@pytest.fixture
def registry() -> Any:
    with restored(TRANSFORMS):
        yield TRANSFORMS


def test_two_transforms_of_one_name_are_refused(registry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="transform 'gamma' of .* has the name of that of pretrain.views"):

        @transform("gamma")
        class Other(Change):
            order = 1


INVERT = """
from pretrain.views.transforms import Change, TransformConfig, transform


@transform("invert")
class Invert(Change):
    class Config(TransformConfig):
        share: float = 1.0

    order = 15

    def __call__(self, images, draws):
        return self.config.share * (1 - images)
"""


def test_a_transform_of_another_distribution_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: dict[str, Any]
) -> None:
    install(tmp_path, "invert", INVERT, TRANSFORMS.plugins)
    monkeypatch.syspath_prepend(str(tmp_path))
    load_plugins.cache_clear()
    config = views_of("views.invert.share=1", *[f"views.{name}=null" for name in TRANSFORMS])
    images = noise_images(3, 1, 6, 6)
    torch.testing.assert_close(augment(images, keys(3), config), 1 - images / 127.5, atol=1e-6, rtol=0)
    assert ViewConfig().transforms["invert"] is None, "those of others are off where they are not named"
    with pytest.raises(ConfigError, match=r"unknown key 'views.invert.shar'; did you mean 'share'\?"):
        views_of("views.invert.shar=1")
    sys.modules.pop("invert_module", None)
    load_plugins.cache_clear()


def test_a_broken_one_is_told_to_who_asks_for_it_and_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "broken", "import nothing_of_that_name", TRANSFORMS.plugins)
    monkeypatch.syspath_prepend(str(tmp_path))
    load_plugins.cache_clear()
    assert views_of("views.noise=null").of(Noise.Config) is None
    with pytest.raises(DataError, match="offers 'broken' .* to medformer.transforms, and it cannot be loaded"):
        views_of("views.sparkle={}")
    load_plugins.cache_clear()


def test_every_transform_says_when_it_does_nothing() -> None:
    """With probability or strength at zero none acts; as it is switched on by its name alone each does."""
    for name, each in TRANSFORMS.items():
        assert IDENTITY.changed(**{name: {}}).acting_on(COLOUR), name
        for key in ("probability", "strength", "fraction", "sigma_px"):
            if key in each.Config.model_fields and (name, key) not in {("stain", "strength")}:
                assert not IDENTITY.changed(**{name: {key: 0}}).acting_on(COLOUR), (name, key)
        assert issubclass(each.Config, TransformConfig) and each.__doc__ and each.Config.__doc__
