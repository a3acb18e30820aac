"""What a test registers is gone after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def restored(*registries: dict[Any, Any]) -> Iterator[None]:
    """Registries hold afterwards what they hold now."""
    before = [dict(registry) for registry in registries]
    try:
        yield
    finally:
        for registry, content in zip(registries, before, strict=True):
            registry.clear()
            registry.update(content)
