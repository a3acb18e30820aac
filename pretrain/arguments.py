"""Which argument of a network or an optimizer is not one it takes, and which is the nearest."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Collection
from typing import Any

from timm.models import model_entrypoint

from data_shards.support.errors import nearest

_UNEXPECTED = re.compile(r"(?:(\w+)\.)?\w+\(\) got an unexpected keyword argument '(\w+)'")
"""What Python says of a call; the class, where it is one's ``__init__``, and the argument."""


def said_of(error: Exception, owner: Callable[..., Any] | None, hidden: Collection[str] = ()) -> str:
    """Why something cannot be made, in one line of at most a few hundred characters.

    Args:
        error: that came of making it.
        owner: what was called, whose arguments the nearest name is looked for among; None when that is not known.
        hidden: arguments that are not to be proposed.
    """
    found = _UNEXPECTED.search(str(error)) if isinstance(error, TypeError) else None
    if found is None:
        return " ".join(str(error).split())[:300]
    names = [] if owner is None else [name for name in _named(owner) if name not in hidden]
    return f"it takes no argument {found[2]!r}{nearest(found[2], names) if names else ''}"


def maker_of(network: str, error: Exception) -> Callable[..., Any] | None:
    """The class of a network that refused an argument: what its name stands for where the network is registered.

    Args:
        network: as timm knows it, perhaps with a tag.
        error: what came of making it.
    """
    found = _UNEXPECTED.search(str(error))
    entry = model_entrypoint(network.partition(".")[0])
    owner: Callable[..., Any] | None = getattr(sys.modules[entry.__module__], (found and found[1]) or "", None)
    return owner


def _named(owner: Callable[..., Any]) -> list[str]:
    """The arguments that can be given by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, each in inspect.signature(owner).parameters.items() if each.kind in by_name]
