"""Optional software and the extra of the distribution that brings it."""

from __future__ import annotations

EXTRA_OF = {"deepspeed": "pretrain", "ninja": "pretrain", "mlflow": "registry", "ray": "cluster"}


def remedy(package: str) -> str:
    """The command that installs the extra with ``package``."""
    return f"pip install 'medformer[{EXTRA_OF[package]}]'"
