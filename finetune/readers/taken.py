"""What reading folders for learning and for prediction share: the source, and all studies read once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards.sources.images.options import ImagesConfig
from data_shards.sources.images.source import Images
from data_shards.support.errors import DataError
from finetune.images import Pictures
from finetune.readers.listed import NAMED, Listed
from finetune.readers.survey import Progress, Survey


@contextmanager
def told_of(where: Path) -> Iterator[None]:
    """Errors begin with what was read."""
    try:
        yield
    except DataError as error:
        told = str(error).startswith(str(where))
        if told:
            raise
        raise DataError(f"{where}: {error}") from None


@dataclass(frozen=True)
class Taken:
    """Cases whose images were read once.

    Attributes:
        listed: those that could be read.
        pictures: all studies.
        rows: the position among them of each study of ``listed``.
        survey: what they have in common.
        warnings: what was left out.
    """

    listed: Listed
    pictures: Pictures
    rows: np.ndarray
    survey: Survey
    warnings: tuple[str, ...] = ()


def take(listed: Listed, pictures: Pictures, *, skip: bool, show_paths: bool, progress: Progress | None) -> Taken:
    """Read all studies once.

    Args:
        listed: the cases.
        pictures: their studies.
        skip: leave out what cannot be read.
        show_paths: whether ``listed`` names files; where it does not, a message says what would.
        progress: is told how far it is.

    Raises:
        DataError: a study cannot be read, or none can.
    """
    try:
        survey = Survey.of(pictures, listed.names, skip=skip, progress=progress)
    except DataError as error:
        raise DataError(_naming(str(error), show_paths)) from None
    if not survey.lost:
        return Taken(listed, pictures, np.arange(len(pictures)), survey)
    row_of = {position: row for row, position in enumerate(listed.positions) if row not in survey.lost}
    lost = list(survey.lost.values())
    if not row_of:
        raise DataError(_naming(f"no image can be read: {lost[0]}", show_paths))
    kept = Listed.of(listed.source, list(row_of))
    warning = f"{len(lost)} of {len(pictures)} studies cannot be read and are left out: {'; '.join(lost[:NAMED])}"
    return Taken(kept, pictures, np.array([row_of[position] for position in kept.positions]), survey, (warning,))


def opened(config: ImagesConfig, on_error: str) -> tuple[Images, list[str]]:
    """The source, and what its owner has to know.

    Raises:
        DataError: it cannot be listed, or holds a file that is lost, unless these are to be skipped.
    """
    source = Images(config, secrets.token_hex(16))  # nothing that is hashed with it leaves this process
    warnings = list(source.warnings)
    lost = [f"{entry.item}: {entry.reason}" for entry in source.skipped if entry.lost]
    if lost and on_error == "stop":
        raise DataError(_naming(lost[0], config.show_paths))
    if source.skipped:
        some = "; ".join(f"{entry.item}: {entry.reason}" for entry in source.skipped[:NAMED])
        warnings.append(f"{len(source.skipped)} files are not used: {some}{'; ...' * (len(source.skipped) > NAMED)}")
    return source, warnings


def _naming(message: str, show_paths: bool) -> str:
    return message if show_paths else f"{message}; --show-paths names the file"
