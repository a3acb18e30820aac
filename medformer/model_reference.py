"""From what a user calls a model to a folder on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from data_shards.storage.scratch import scratch_folder


@contextlib.contextmanager
def local_model(reference: str, tracking_uri: str | None = None) -> Iterator[str]:
    """A local folder or name for ``reference``; a registered model is pulled into a folder that lives for the block.

    Args:
        reference: a folder, ``name@alias`` or ``name:version`` of the registry, or the name of a network.
        tracking_uri: the registry's store; None for the default.

    Yields:
        The folder, or ``reference`` itself when it is not one of the registry.

    Raises:
        RegistryError: the registry has no such model.
    """
    if Path(reference).is_dir() or not set(reference) & {"@", ":"}:
        yield reference
        return
    from cluster.registry import Registry  # only here: a local folder needs no registry software

    with scratch_folder("medformer-model-") as folder:
        yield str(Registry(tracking_uri).pull(reference, folder / "model"))
