"""From what a user calls a model to a folder on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from data_shards.storage.scratch import scratch_folder
from data_shards.support.errors import ConfigError, MedformerError, nearest
from pretrain.foreign.reference import is_network, own_networks


@contextlib.contextmanager
def local_model(reference: str, tracking_uri: str | None = None, *, networks: bool = False) -> Iterator[str]:
    """A local folder or name for ``reference``; a registered model is pulled into a folder that lives for the block.

    Args:
        reference: a folder, ``name@alias`` or ``name:version`` of the registry, or the name of a network.
        tracking_uri: the registry's store; None for the default.
        networks: whether a backbone is wanted, which the name of a network gives as well, see
            :func:`~pretrain.foreign.reference.parse_network`; else it is a fitted classifier.

    Yields:
        The folder, or ``reference`` itself when it is the name of a network.

    Raises:
        RegistryError: the registry has no such model; or it has the name, and the aliases to choose from are told.
        ConfigError: it is none of the three, or the name of a network where a fitted classifier is wanted.
    """
    if Path(reference).is_dir() or (networks and is_network(reference)):
        yield reference
        return
    if is_network(reference):
        raise ConfigError(
            f"{reference}: the name of a network, not a fitted classifier; expected the folder that medformer finetune "
            "wrote, or NAME@ALIAS of the registry"
        )
    if not set(reference) & {"@", ":"}:
        raise _unknown(reference, tracking_uri, networks)
    from cluster.registry import Registry  # only here: a local folder needs no registry software

    with scratch_folder("medformer-model-") as folder:
        pulled = Registry(tracking_uri).pull(reference, folder / "model")
        try:
            yield str(pulled)
        except MedformerError as error:  # its place says nothing to whoever gave a name, and is gone
            error.args = tuple(str(word).replace(str(pulled), reference) for word in error.args)
            raise


def _unknown(name: str, tracking_uri: str | None, networks: bool) -> Exception:
    """What to say of a word that is neither a folder nor a network: most likely it is a model without its version."""
    models: list[str] = []
    with contextlib.suppress(ModuleNotFoundError):  # without registry software nothing is registered
        from cluster.errors import RegistryError
        from cluster.registry import Registry
        from cluster.store import is_there

        with contextlib.suppress(RegistryError):  # a server that is away has no say in a word that need not be its own
            if is_there(tracking_uri):
                registry = Registry(tracking_uri)
                models = [model.name for model in registry.list()]
                if name in models:
                    return registry.which_version(name)
    what, network = ("model bundle", ", nor the name of a network") if networks else ("fitted classifier", "")
    choices = [*models, *(own_networks() if networks else ())]
    hint = nearest(name, choices) if choices else ""
    return ConfigError(f"{name}: neither the folder of a {what} nor a model of the registry{network}{hint}")
