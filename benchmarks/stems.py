"""What the stem takes of a training step; see :func:`benchmarks.costs.shares`."""

from __future__ import annotations

from benchmarks.costs import shares as run

__all__ = ["run"]
