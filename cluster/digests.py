"""The files of a model bundle, of a fitted classifier or of a generator of BrainFuse, and their SHA-256."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.errors import RegistryError
from data_shards.support.documents import Document
from data_shards.support.files import read_json, sha256_of

CLASSIFIER_FILE = "classifier.json"
BUNDLE_FILES = ("README.md", "config.json", "metrics.json", "model.safetensors", "provenance.json")
GENERATOR_FILES = ("config.json", "generator.safetensors", "metrics.json", "provenance.json")
_BACKBONE = re.compile(r"backbone(-\d+)?(?=/)")


class FileDigest(Document):
    """What a file must hold, without the file."""

    sha256: str
    size_bytes: int

    def matches(self, path: Path) -> bool:
        """Whether ``path`` is a file with exactly this content."""
        return path.is_file() and path.stat().st_size == self.size_bytes and sha256_of(path) == self.sha256


def digest_model(folder: Path) -> dict[str, FileDigest]:
    """Check that ``folder`` is a model bundle, a fitted classifier or a generator of BrainFuse and hash its files.

    A classifier is a document, the weights of its head, and one bundle or several in folders of their own.

    Raises:
        RegistryError: the folder or one of the files is missing, a file does not belong there, a document is not JSON,
            or weights are cut off.
    """
    if not folder.is_dir():
        raise RegistryError(f"{folder}: no such model bundle")
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    what, expected = "model bundle", set(BUNDLE_FILES)
    if is_classifier(folder):
        what, expected = "fitted classifier", _classifier_files(_backbones(present))
    elif is_generator(folder):
        what, expected = "generator", set(GENERATOR_FILES)
    elif (folder / "classifier" / CLASSIFIER_FILE).is_file():
        raise RegistryError(f"{folder}: what finetune wrote; the classifier is {folder / 'classifier'}")
    if missing := sorted(expected - present):
        raise RegistryError(f"{folder}: not a {what}, {missing[0]} is missing; expected {', '.join(sorted(expected))}")
    if surplus := sorted(present - expected):
        raise RegistryError(f"{folder / surplus[0]}: not part of a {what}; expected {', '.join(sorted(expected))}")
    for name in sorted(expected):
        if name.endswith(".json"):
            read_json(folder / name, RegistryError)
        elif name.endswith(".safetensors"):
            _check_weights(folder / name)
    return {
        name: FileDigest(sha256=sha256_of(folder / name), size_bytes=(folder / name).stat().st_size)
        for name in sorted(expected)
    }


def is_classifier(folder: Path) -> bool:
    """Whether a folder is meant to be a fitted classifier."""
    return (folder / CLASSIFIER_FILE).is_file()


def is_generator(folder: Path) -> bool:
    """Whether a folder is meant to be a generator of BrainFuse."""
    return (folder / "generator.safetensors").is_file()


def architecture_of(folder: Path) -> str:
    """The network of a model, and that it is one of a classifier, in words."""
    if is_generator(folder):
        return "brainfuse generator"
    home = folder / "backbone" if is_classifier(folder) else folder
    name = str(read_json(home / "config.json", RegistryError).get("architecture", "unknown"))
    return f"{name} classifier" if is_classifier(folder) else name


def _backbones(names: Iterable[str]) -> set[str]:
    """The folders of a classifier that are called as those of its bundles are."""
    return {"backbone"} | {match[0] for name in names if (match := _BACKBONE.match(name))}


def _classifier_files(backbones: Iterable[str]) -> set[str]:
    bundles = {f"{backbone}/{name}" for backbone in backbones for name in BUNDLE_FILES}
    return {CLASSIFIER_FILE, "head.safetensors"} | bundles


def encode(digests: Mapping[str, FileDigest]) -> str:
    """The digests as one line of JSON; equal bundles give equal lines."""
    return json.dumps({name: digest.model_dump() for name, digest in digests.items()}, sort_keys=True)


def decode(text: str) -> dict[str, FileDigest]:
    """The inverse of :func:`encode`.

    Raises:
        ValueError: the text was not made by :func:`encode`; a path that leaves the folder counts as such.
    """
    digests = {name: FileDigest.model_validate(entry) for name, entry in json.loads(text).items()}
    if set(digests) not in (set(BUNDLE_FILES), set(GENERATOR_FILES), _classifier_files(_backbones(digests))):
        raise ValueError(
            f"files {sorted(digests)}, expected {list(BUNDLE_FILES)} or those of a classifier or generator"
        )
    return digests


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as weights:
            names = weights.keys()
    except (SafetensorError, OSError) as error:
        raise RegistryError(f"{path}: not a complete safetensors file: {error}") from None
    if not names:
        raise RegistryError(f"{path}: holds no weights")
