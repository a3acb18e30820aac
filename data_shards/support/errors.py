"""The one family of errors that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MedformerError(Exception):
    """Something the user can put right; the message names the thing and what was expected.

    The command line prints the message alone, without a traceback, and exits with status 2.
    """


class ConfigError(MedformerError):
    """A configuration document or an override that cannot be accepted."""


class DataError(MedformerError):
    """A file, a sample or a table that is missing, damaged or not what it says it is."""


class CheckpointError(MedformerError):
    """A checkpoint or a model bundle that is missing, incomplete or made for another model."""


class TrainingError(MedformerError):
    """A run that had to stop: loss not finite, gradients exploding, representation collapsed."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """A clause that names the valid choice nearest to ``word``.

    Returns:
        ``"; did you mean 'x'?"`` when one is close, else ``"; valid: a, b, c"``.
    """
    options = sorted(choices)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(options)}"
