"""What every rank needs, imported once by the fork server that ranks come from: seconds of each that are not spent."""

from __future__ import annotations

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # As pretrain.sharding says it where there is no other.

import deepspeed  # noqa: F401

import pretrain.engine  # noqa: F401
