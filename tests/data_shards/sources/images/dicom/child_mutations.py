"""A process of its own that reads damaged files: ``child_mutations.py SEED COUNT SECONDS MEBIBYTES FOLDER FILE...``.

Ends by the alarm of the system when one file takes longer than SECONDS, and has no more than MEBIBYTES to reserve.
Prints one line for each file read.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
from pathlib import Path


def mutated(content: bytes, other: bytes, random: random.Random) -> bytes:
    """Flipped bits in the header or anywhere, rubbish bytes, a cut, a piece moved in from elsewhere."""
    changed = bytearray(content)
    kind = random.choice(("header", "anywhere", "bytes", "cut", "splice", "lengths"))
    end = min(len(changed), 2000) if kind in ("header", "lengths") else len(changed)
    if kind in ("header", "anywhere"):
        for _ in range(random.randint(1, 8)):
            changed[random.randrange(128, end)] ^= 1 << random.randrange(8)
    elif kind == "bytes":
        place = random.randrange(128, end)
        changed[place : place + 8] = random.randbytes(8)
    elif kind == "cut":
        del changed[random.randrange(100, end) :]
    elif kind == "splice":
        place, start = random.randrange(128, end), random.randrange(len(other))
        changed[place : place + random.randint(0, 64)] = other[start : start + random.randint(1, 200)]
    else:
        place = random.randrange(132, end)
        changed[place : place + 4] = random.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"))
    return bytes(changed)


def main(seed: int, count: int, seconds: int, mebibytes: int, folder: Path, files: list[Path]) -> None:
    from data_shards.sample import Image
    from data_shards.sources.images.dicom import find_series, is_dicom, read_series
    from data_shards.support.errors import DataError

    contents = [path.read_bytes() for path in files]
    for path in files:  # everything is imported before memory is counted
        read_series(find_series([path])[0][0])
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = used + (mebibytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    dice = random.Random(seed)
    target = folder / "mutant.dcm"
    for number in range(count):
        target.write_bytes(mutated(contents[number % len(contents)], dice.choice(contents), dice))
        signal.alarm(seconds)
        outcome = []
        try:
            is_dicom(target)
            series, unused = find_series([target])
            assert series or unused
            for each in series:
                image = read_series(each, voi=bool(number % 2))
                assert isinstance(image, Image)
                outcome.append("image")
        except DataError as error:
            outcome.append("error" if "\n" not in str(error) else "two-lines")
        signal.alarm(0)
        print(number, files[number % len(files)].name, *(outcome or ["unused"]), flush=True)


if __name__ == "__main__":
    *numbers, place = sys.argv[1:6]
    main(*map(int, numbers), Path(place), [Path(name) for name in sys.argv[6:]])
