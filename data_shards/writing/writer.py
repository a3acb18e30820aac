"""Turns a source into shards, indices and a manifest: the same bytes every time, also when a build is cut off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.format.manifest import SCHEMA_VERSION, Manifest, read_manifest
from data_shards.sources.base import Source
from data_shards.support.errors import DataError
from data_shards.support.files import refuse_existing
from data_shards.support.progress import Progress
from data_shards.writing.build import SKIPPED_FILE, Build
from data_shards.writing.build_folder import BuildFolder, build_folder, fingerprint
from data_shards.writing.duplicates import Excluding, Policy
from data_shards.writing.workers import Probe, encoded_chunks, probe

__all__ = ["SHARD_BYTES", "SKIPPED_FILE", "write_dataset"]

SHARD_BYTES = 64 << 20


def write_dataset(
    source: Source,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    workers: int = 1,
    skip_errors: bool = False,
    duplicates: Policy | None = None,
    overwrite: bool = False,
    restart: bool = False,
    compress: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Write every sample of ``source`` below ``out``, in the order of the source within each split.

    The folder appears when it is complete. The bytes depend on the source and on ``shard_bytes``, not on the number of
    processes nor on interruptions. Memory does not grow with the number of samples. A build that was cut off, by
    whatever, goes on from its last closed shard when the same call is made again; also with another ``skip_errors``,
    as long as nothing was left out that may not be.

    Args:
        source: where the samples come from.
        out: the folder to make.
        shard_bytes: a shard is closed before it would grow larger; one sample may exceed it alone.
        workers: processes that read and encode samples; with more than one, a script that calls this needs the usual
            ``if __name__ == "__main__"``.
        skip_errors: leave out samples that cannot be read, and list them in ``skipped.csv``; the default stops.
        duplicates: what to do with images that occur twice: ``refuse``, ``drop`` all but the first, or ``allow``. The
            default is the source's own.
        overwrite: replace ``out`` when it exists.
        restart: throw away what an unfinished build has left, instead of going on.
        compress: store images gzipped, as ``.npy.gz``: smaller, read whole or not at all, and slower.
        options: JSON values from which the source was made; an unfinished build with other ones does not go on. Without
            them it is told by the card and the first sample.
        progress: is advanced by the number of samples.

    Returns:
        The manifest that was written.

    Raises:
        MedformerError: ``out`` exists, the disk refuses, a process died, or an unfinished build of something else
            stands in the way.
        DataError: a sample cannot be read or stored, a key occurs twice, a subject is in two splits, an image occurs
            twice, or there is no sample.
    """
    if shard_bytes < 1:
        raise DataError(f"shards of {shard_bytes} bytes cannot be written; at least 1")
    refuse_existing(out, overwrite=overwrite)
    if not skip_errors:
        _refuse_losses(source)
    policy: Policy = duplicates or source.duplicates
    probed = probe(source)
    card = source.card.model_dump(mode="json")
    mark = fingerprint(
        SCHEMA_VERSION, card, options or {}, len(source), shard_bytes, probed.length, probed.digest, policy, compress
    )
    with build_folder(out, mark, restart=restart) as folder:
        refuse_existing(out, overwrite=overwrite)  # another process may have been faster
        if folder.complete is not None:
            return read_manifest(folder.path)
        build = _run(source, folder, policy, shard_bytes, probed, workers, skip_errors, compress, progress)
        dropped = build.ledgers.repeated(policy)
        if dropped:
            folder.begin(dropped)
            build = _run(source, folder, "refuse", shard_bytes, probed, workers, skip_errors, compress, progress)
        return build.finished()


def _refuse_losses(source: Source) -> None:
    """Raise :class:`DataError` when the listing already found images that cannot be read."""
    lost = [skipped for skipped in source.skipped if skipped.lost]
    if lost:
        others = f", and {len(lost) - 1} more like it" if len(lost) > 1 else ""
        raise DataError(f"{lost[0].item}: {lost[0].reason}{others}; --on-error skip leaves such items out")


def _run(
    source: Source,
    folder: BuildFolder,
    policy: Policy,
    shard_bytes: int,
    probed: Probe,
    workers: int,
    skip_errors: bool,
    compress: bool,
    progress: Progress | None,
) -> Build:
    """Append every chunk that the folder does not have yet."""
    chosen = Excluding(source, np.array(folder.dropped, np.int64)) if folder.dropped else source
    build = Build.begun(chosen, folder, shard_bytes)
    if build.unreadable and not skip_errors:
        first = build.unreadable[0]
        raise DataError(
            f"{first.item}: {first.reason} (the unfinished build left it out; --on-error skip goes on with it, "
            "--restart begins anew)"
        )
    if progress is not None:
        progress.begin(len(chosen), build.position)
    for chunk in encoded_chunks(
        chosen, probed, start=build.position, workers=workers, skip_errors=skip_errors, compress=compress
    ):
        build.add(chunk, policy)
        if progress is not None:
            progress.advance(chunk.last - chunk.first)
    build.ledgers.check(policy)
    return build
