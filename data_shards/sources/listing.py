"""How archives are listed: by how many processes, and where a listing is kept for a build that is taken up again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Listing:
    """What a source may use while it lists an archive.

    Attributes:
        workers: processes.
        folder: where datasets are built; listings are kept there, sealed, until the build is done. None: nowhere.
        names: of the datasets whose listing is there.
    """

    workers: int = 1
    folder: Path | None = None
    names: set[str] = field(default_factory=set, compare=False)

    def file(self, name: str) -> Path | None:
        """Where the listing of the dataset called ``name`` is kept."""
        return None if self.folder is None else self.folder / f".{name}.listing"

    def forget(self, name: str) -> None:
        """Delete the listing of a dataset, and the folder when nothing else came into it."""
        file = self.file(name)
        if file is None or not file.exists():
            return
        file.unlink()
        with contextlib.suppress(OSError):  # it is not empty
            file.parent.rmdir()


_DEFAULT = Listing()
_current: ContextVar[Listing] = ContextVar("listing", default=_DEFAULT)


def current_listing() -> Listing:
    """What the caller of a source has set by :func:`listing_with`; one process and no file where nobody did."""
    return _current.get()


@contextlib.contextmanager
def listing_with(listing: Listing) -> Iterator[Listing]:
    """Sources that are made inside list their archives so."""
    token = _current.set(listing)
    try:
        yield listing
    finally:
        _current.reset(token)
