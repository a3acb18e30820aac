"""Files of random bytes as a manifest would list them, and what the tests ask of a cache folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from data_shards.storage import Retries, Storage, StoredFile

QUICK = Retries(attempts=4, stall_s=0.4, pause_s=0.01, longest_pause_s=0.05)


def content_of(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def listed(name: str, content: bytes) -> StoredFile:
    return StoredFile(name, len(content), hashlib.sha256(content).hexdigest())


def fetched(storage: Storage, file: StoredFile) -> bytes:
    with storage.local(file.name, size=file.size, sha256=file.sha256) as lease:
        return lease.path.read_bytes()


def complete(folder: Path) -> list[str]:
    """The SHA-256 of the files that are visible in a cache."""
    return sorted(path.name.split(".")[0] for path in folder.glob("*.file"))


def partial_bytes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.glob("*.partial")]
