"""A process of its own with little memory that reads one file: ``child_limits.py MEBIBYTES FILE``.

Prints what came of it and by how many mebibytes the process grew.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


def main(mebibytes: int, path: Path) -> None:
    import nibabel  # before memory is counted
    import PIL.Image
    import pydicom

    from data_shards.sources.images.array import read_array
    from data_shards.sources.images.kinds import kind_of
    from data_shards.sources.images.nifti import read_nifti
    from data_shards.sources.images.picture import read_picture
    from data_shards.support.errors import DataError

    assert nibabel and PIL.Image.init() is not None and pydicom
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (mebibytes << 20),) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind, _ = kind_of(path)
    readers = {"nifti": read_nifti, "npy": read_array, "picture": read_picture}
    try:
        print("read", readers[str(kind)](path).pixels.shape)
    except DataError as error:
        print("refused:", error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(grown >> 10)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
