"""Networks by what a user calls them: ``medformer_nano``, ``timm:resnet18``, ``timm:NAME,patch_size=4@FILE``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import yaml

from data_shards.support.errors import ConfigError, nearest
from pretrain.foreign.volumes import VOLUMETRIC

PREFIX = "timm:"
OURS = "medformer_*"

_FILES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
"""Arguments by which timm would fetch weights, or read a pickle."""
NOT_OURS = (
    *_FILES,
    *("num_classes", "features_only", "out_indices", "feature_cls", "feature_cfg", "model_cfg", "kwargs_filter"),
    *("pruned", "scriptable", "exportable", "no_jit", "device", "dtype"),
    *("pretrained_strict", "pretrained_filter_fn", "pretrained_model_args"),
)
"""Those, and arguments that would make something else than a backbone."""
_NEAREST = 3


@dataclass(frozen=True)
class NetworkReference:
    """A network by name.

    Attributes:
        name: as timm knows it, perhaps with a tag that says whose weights' mean and deviation it is to have, such as
            ``resnet18.a1_in1k``.
        model_args: arguments it is made with.
        weights: local safetensors file; None for fresh weights.
    """

    name: str
    model_args: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None

    @property
    def foreign(self) -> bool:
        """Whether it is one of :mod:`pretrain.foreign`, and not a Medformer."""
        return not self.name.startswith(OURS.removesuffix("*"))


def own_networks() -> list[str]:
    """Names that need no prefix: the sizes of Medformer, and the volumetric networks built of timm's blocks."""
    return [*timm.list_models(OURS), *VOLUMETRIC]


def is_network(text: str) -> bool:
    """Whether a word calls for a network by name, and is neither a folder nor a model of the registry."""
    return text.startswith(PREFIX) or text in own_networks()


def parse_network(text: str) -> NetworkReference:
    """The network that a word calls for.

    Args:
        text: one of :func:`own_networks`, or ``timm:NAME``, then perhaps ``,key=value`` for each argument, the value as
            in YAML, and ``@FILE`` for weights in a local safetensors file.

    Raises:
        ConfigError: timm has no such model (the nearest are named), an argument cannot be used, or there is no such
            file.
    """
    if not text.startswith(PREFIX):
        if text in own_networks():
            return NetworkReference(text)
        hint = f"; timm's is {PREFIX}{text}" if timm.is_model(text) else nearest(text, own_networks())
        raise ConfigError(f"unknown model {text!r}{hint}")
    described, at, file = text.removeprefix(PREFIX).partition("@")
    name, *pairs = re.split(r",(?=\w+=)", described)  # a value may be a list
    model_args: dict[str, Any] = {}
    if "," in name:
        raise ConfigError(f"{text}: {name.partition(',')[2]!r} is no argument; {PREFIX}NAME,key=value@FILE is expected")
    for key, _, value in (pair.partition("=") for pair in pairs):
        model_args[key] = yaml.safe_load(value)
    if at and not Path(file).is_file():
        raise ConfigError(
            f"{text}: {file or 'the name after @'} is no file; weights come from a local safetensors file"
        )
    reference = NetworkReference(checked_name(name), model_args, Path(file) if at else None)
    if not reference.foreign:
        raise ConfigError(f"{text}: {name} is not timm's; call it {name}, and its weights by the folder of a bundle")
    check_arguments(name, model_args)
    return reference


def checked_name(name: str) -> str:
    """``name`` itself when timm can make it.

    Raises:
        ConfigError: it cannot; the nearest names are given.
    """
    plain = name.partition(".")[0]
    if timm.is_model(plain):
        return name
    near = difflib.get_close_matches(plain, timm.list_models(), n=_NEAREST, cutoff=0.5)
    hint = f"; the nearest are {', '.join(near)}" if near else "; timm.list_models() says which there are"
    raise ConfigError(f"timm has no model {plain!r}{hint}")


def check_arguments(name: str, model_args: Mapping[str, Any]) -> None:
    """Refuse arguments with which timm would fetch weights, or make something else than a backbone.

    Raises:
        ConfigError: the argument is named.
    """
    for key in model_args:
        if key in _FILES:
            raise ConfigError(
                f"{name}: {key}: nothing is downloaded, and weights are read from local safetensors files alone; fetch "
                f"them yourself and say {PREFIX}{name}@FILE, or model.init_from in a document"
            )
        if key in NOT_OURS:
            raise ConfigError(f"{name}: {key} is no argument of a backbone; it is not given here")
