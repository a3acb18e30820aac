"""A process of its own that reads files through a cache: ``child.py URL CACHE LIMIT JSON``, one list of files."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from data_shards.storage import Cache, Retries, open_storage


def main(url: str, folder: str, limit: str, files: str) -> None:
    retries = Retries(attempts=50, stall_s=20, pause_s=0.01, longest_pause_s=0.05)
    storage = open_storage(url, cache=Cache(Path(folder), int(limit), wait_s=60), retries=retries)
    print("ready", flush=True)
    sys.stdin.readline()
    for name, size, sha256 in json.loads(files):
        with storage.local(name, size=size, sha256=sha256) as lease:
            assert hashlib.sha256(lease.path.read_bytes()).hexdigest() == sha256, name
    print("done", flush=True)


main(*sys.argv[1:])
