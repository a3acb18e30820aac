"""Parts of the system that other packages bring: modules named by entry points, imported once."""

from __future__ import annotations

import functools
from importlib.metadata import entry_points

from data_shards.support.errors import DataError


@functools.cache
def load_plugins(group: str) -> tuple[str, ...]:
    """Import every module that an installed package offers in an entry point group; importing it registers its parts.

    Args:
        group: for instance ``medformer.sources``.

    Returns:
        The names of the entry points.

    Raises:
        DataError: one cannot be imported; its package, its name and the reason are given.
    """
    found = sorted(entry_points(group=group), key=lambda point: (point.name, point.value))
    for point in found:
        try:
            point.load()
        except Exception as error:
            package = point.dist.name if point.dist else "an installed package"
            reason = f"{type(error).__name__}: {error}"
            raise DataError(
                f"{package} offers {point.name!r} ({point.value}) to {group}, and it cannot be loaded: {reason}"
            ) from error
    return tuple(point.name for point in found)
