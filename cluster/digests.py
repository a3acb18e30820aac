"""The files of a model bundle and their SHA-256."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import RegistryError
from data_shards.support.documents import Document
from data_shards.support.files import read_json, sha256_of

BUNDLE_FILES = ("README.md", "config.json", "metrics.json", "model.safetensors", "provenance.json")


class FileDigest(Document):
    """What a file must hold, without the file."""

    sha256: str
    size_bytes: int

    def matches(self, path: Path) -> bool:
        """Whether ``path`` is a file with exactly this content."""
        return path.is_file() and path.stat().st_size == self.size_bytes and sha256_of(path) == self.sha256


def digest_bundle(folder: Path) -> dict[str, FileDigest]:
    """Check that ``folder`` is a model bundle and hash its files.

    Raises:
        RegistryError: the folder or one of the five files is missing, a file does not belong there, a document is
            not JSON, or the weights are cut off.
    """
    if not folder.is_dir():
        raise RegistryError(f"{folder}: no such model bundle")
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if missing := sorted(set(BUNDLE_FILES) - present):
        raise RegistryError(
            f"{folder}: not a model bundle, {missing[0]} is missing; expected {', '.join(BUNDLE_FILES)}"
        )
    if surplus := sorted(present - set(BUNDLE_FILES)):
        raise RegistryError(f"{folder / surplus[0]}: not part of a model bundle; expected {', '.join(BUNDLE_FILES)}")
    for name in BUNDLE_FILES:
        if name.endswith(".json"):
            read_json(folder / name, RegistryError)
    _check_weights(folder / "model.safetensors")
    return {
        name: FileDigest(sha256=sha256_of(folder / name), size_bytes=(folder / name).stat().st_size)
        for name in BUNDLE_FILES
    }


def encode(digests: Mapping[str, FileDigest]) -> str:
    """The digests as one line of JSON; equal bundles give equal lines."""
    return json.dumps({name: digest.model_dump() for name, digest in digests.items()}, sort_keys=True)


def decode(text: str) -> dict[str, FileDigest]:
    """The inverse of :func:`encode`.

    Raises:
        ValueError: the text was not made by :func:`encode`; a path that leaves the folder counts as such.
    """
    digests = {name: FileDigest.model_validate(entry) for name, entry in json.loads(text).items()}
    if set(digests) != set(BUNDLE_FILES):
        raise ValueError(f"files {sorted(digests)}, expected {list(BUNDLE_FILES)}")
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
