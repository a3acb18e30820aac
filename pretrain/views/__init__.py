"""Augmented views whose randomness belongs to the sample, not to the worker that happens to hold it."""

from pretrain.views.config import ViewConfig
from pretrain.views.pipeline import Pipeline, augment

__all__ = ["Pipeline", "ViewConfig", "augment"]
