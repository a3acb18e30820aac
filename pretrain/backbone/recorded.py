"""Arguments of networks that were made before the default stem was another one.

A bundle records the arguments that its network was made with. Those that name no ``stem`` are from before, when it was
``conv``, and the token was of so many pixels whatever the size of the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BEFORE: dict[str, Any] = {"stem": "conv", "stride": 4}
_BEFORE_COARSE: dict[str, Any] = {"stem": "conv", "stride": 8, "stem_width": 32}
_COARSE = ("medformer_base", "medformer_large")
STEM_KEYS = ("stem", "stride", "stem_width")


def as_recorded(architecture: str, model_args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a network that was saved, with what was the default then where they name no stem.

    Args:
        architecture: name by which timm makes it.
        model_args: as they were written.
    """
    found = dict(model_args)
    if "stem" not in found:
        for name, value in before(architecture).items():
            found.setdefault(name, value)
    return found


def before(architecture: str) -> dict[str, Any]:
    """What the arguments of the stem were when there was nothing to choose."""
    return dict(_BEFORE_COARSE if architecture in _COARSE else _BEFORE)
