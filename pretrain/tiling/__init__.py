"""Images that are too large for a network, or unlike those it was trained on: read in windows that overlap."""

from __future__ import annotations

from pretrain.tiling.blending import blended
from pretrain.tiling.restoring import restored
from pretrain.tiling.sliding import SlidingWindows
from pretrain.tiling.windows import Tiling, Window, window_of_crops

__all__ = ["SlidingWindows", "Tiling", "Window", "blended", "restored", "window_of_crops"]
