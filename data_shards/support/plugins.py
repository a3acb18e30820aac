"""What installed distributions add to the registries, found by entry points."""

from __future__ import annotations

from importlib.metadata import entry_points

from data_shards.support.errors import ConfigError


def load_plugins(group: str) -> list[str]:
    """Import what every installed distribution declares under ``group``; to be imported is to register itself.

    A distribution declares it in its ``pyproject.toml``::

        [project.entry-points."medformer.objectives"]
        vicreg = "their_package.vicreg"

    Args:
        group: such as ``medformer.objectives``.

    Returns:
        The names of the entry points, sorted.

    Raises:
        ConfigError: one cannot be imported; it is named, with its distribution and the reason.
    """
    found = sorted(entry_points(group=group), key=lambda entry: entry.name)
    for entry in found:
        try:
            entry.load()
        except Exception as error:  # Code of others may raise anything.
            origin = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigError(
                f"the plug-in {entry.name!r} ({entry.value}, group {group}) of {origin} cannot be imported: {reason}; "
                "repair or uninstall it"
            ) from error
    return [entry.name for entry in found]
