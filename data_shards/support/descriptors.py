"""Open files, of which a process may have so many: the share that shards may take, and telling when there are no more.

A file that cannot be opened because too many are open is sound, so no reader may call it damaged, and no build may
leave it out. The lack is therefore an error of its own.
"""

from __future__ import annotations

import errno
import resource

from data_shards.support.errors import MedformerError

# What a program of torch has open besides shards: libraries, sockets, pipes, the shared memory of batches on their way.
_OTHERS = 256


class OutOfFiles(MedformerError):
    """No file can be opened any more; whatever was to be read may be sound."""


def most_open_files() -> int:
    """How many files this process may have open: the soft limit, as it is now (getrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    return soft if soft != unlimited else (hard if hard != unlimited else 1 << 20)


def descriptors_for_shards() -> int:
    """How many of them the open shards of this process may take; the rest is left to everything else."""
    limit = most_open_files()
    return max(limit // 2, limit - _OTHERS)


def out_of_files() -> OutOfFiles:
    """The error of a process that has as many files open as it may."""
    return OutOfFiles(
        f"too many open files: this process may have {most_open_files()} (ulimit -n); raise the limit, or open fewer "
        "things at a time"
    )


def raise_out_of_files(error: BaseException) -> None:
    """Raise :class:`OutOfFiles` when ``error``, or one that led to it, is a lack of descriptors.

    Call it first in every handler that turns the error of opening something into one of the thing.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OutOfFiles):
            raise seen
        if isinstance(seen, OSError) and seen.errno == errno.EMFILE:
            raise out_of_files() from error
        if isinstance(seen, OSError) and seen.errno == errno.ENFILE:
            raise OutOfFiles(
                "too many open files: this machine has as many open as it may (sysctl fs.file-max)"
            ) from error
        seen = seen.__cause__ or seen.__context__
