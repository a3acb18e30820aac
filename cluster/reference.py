"""How a model is named: ``name@alias`` or ``name:version``, and which names are allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cluster.errors import RegistryError

# The narrowest of what MLflow allows for registered models, logged models and aliases, and safe as a file name.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
_VERSION = re.compile(r"[1-9]\d{0,8}")
_NETWORK = "timm:"
"""What networks by name begin with, as in :mod:`pretrain.foreign.reference`, which brings torch and timm."""
_EXPECTED = "name@alias or name:version"
_RESERVED_ALIAS = re.compile(r"v\d+|latest|\d+")


@dataclass(frozen=True)
class ModelReference:
    """One version of a model, named by alias or by number: exactly one of the two is set."""

    name: str
    alias: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.alias}" if self.alias else f"{self.name}:{self.version}"


def parse_reference(text: str) -> ModelReference:
    """Read ``name@alias`` or ``name:version``.

    Raises:
        RegistryError: the text has neither form, or the name, the alias or the version is not a valid one.
    """
    if text.startswith(_NETWORK) and not _VERSION.fullmatch(text.removeprefix(_NETWORK)):
        raise RegistryError(f"{text!r}: the name of a network, not of a model in the registry; expected {_EXPECTED}")
    name, separator, rest = text.partition("@")
    if separator:
        return ModelReference(check_name(name), alias=check_alias(rest))
    name, separator, rest = text.partition(":")
    if not separator:
        raise RegistryError(f"{text!r}: which version? expected {_EXPECTED}")
    return ModelReference(check_name(name), version=check_version(rest))


def check_name(name: str) -> str:
    """The name itself, if a model may be called that."""
    if name.startswith(_NETWORK):
        raise RegistryError(f"{name!r}: the name of a network, not of a model in the registry")
    if "/" in name:
        raise RegistryError(
            f"{name!r}: a path, not the name of a model in the registry; 'medformer models publish' puts a folder there"
        )
    if not _NAME.fullmatch(name):
        raise RegistryError(
            f"model name {name!r}: expected at most 100 lower-case letters, digits, '-' and '_', "
            "the first a letter or a digit"
        )
    return name


def check_alias(alias: str) -> str:
    """The alias itself, if a version may be called that; words that MLflow reads as a version are refused."""
    if not _NAME.fullmatch(alias):
        raise RegistryError(f"alias {alias!r}: expected lower-case letters, digits, '-' and '_'")
    if _RESERVED_ALIAS.fullmatch(alias):
        raise RegistryError(f"alias {alias!r}: it reads like a version; choose a word such as 'champion'")
    return alias


def check_version(version: str) -> str:
    """The version itself, if it is a whole number from 1."""
    if not _VERSION.fullmatch(version):
        raise RegistryError(f"version {version!r}: expected a whole number from 1")
    return version
