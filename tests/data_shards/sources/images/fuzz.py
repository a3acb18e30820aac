"""A process of its own that reads damaged files: ``fuzz.py SEED COUNT SECONDS MEBIBYTES FOLDER``.

Each file is an intact one of some format with seeded damage. The alarm of the system ends the process when one file
takes longer than SECONDS; it has no more than MEBIBYTES to reserve. Prints one line for each file: its number, its
format and what came of it.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_shards.sources.base import Source

SALT = "a salt for tests only"


def mutated(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """Flipped bits at start, end or anywhere, rubbish, extreme numbers, a cut, a piece moved in from another file."""
    changed = bytearray(content)
    kind = dice.choice(("start", "end", "anywhere", "rubbish", "numbers", "last numbers", "cut", "splice", "twice"))
    # Headers stand at the start, the directory of an archive at the end.
    first = max(0, len(changed) - 600) if kind in ("end", "last numbers") else 0
    end = min(len(changed), 400) if kind in ("start", "numbers") else len(changed)
    place = dice.randrange(first, end)
    if kind in ("start", "end", "anywhere"):
        for _ in range(dice.randint(1, 8)):
            changed[dice.randrange(first, end)] ^= 1 << dice.randrange(8)
    elif kind == "rubbish":
        changed[place : place + 8] = dice.randbytes(8)
    elif kind in ("numbers", "last numbers"):
        number = dice.choice(
            (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xc0\x7f")
        )
        changed[place : place + 4] = number
    elif kind == "cut":
        del changed[place:]
    elif kind == "splice":
        start = dice.randrange(len(other))
        changed[place : place + dice.randint(0, 64)] = other[start : start + dice.randint(1, 200)]
    else:
        changed[place:place] = changed[place : place + dice.randint(1, 500)]
    return bytes(changed)


def intact(folder: Path) -> dict[str, bytes]:
    """One or more files of each format."""
    import nibabel
    import numpy as np
    import PIL.Image
    import tifffile

    from tests.data_shards.sources.images.dicom.make import header, save
    from tests.data_shards.sources.medmnist.test_medmnist import breast_arrays

    values = np.random.default_rng(0)
    grey = values.integers(0, 255, (24, 20), np.uint8)
    colour = values.integers(0, 255, (24, 20, 3), np.uint8)
    volume = values.integers(0, 999, (5, 6, 7, 2)).astype(np.int16)
    for name, array in {"grey.png": grey, "colour.png": colour, "colour.jpg": colour, "lzw.tif": colour}.items():
        PIL.Image.fromarray(array).save(folder / name, **({"compression": "tiff_lzw"} if name == "lzw.tif" else {}))
    tifffile.imwrite(folder / "pages.tif", np.stack([grey] * 3).astype(np.uint16), photometric="minisblack")
    tifffile.imwrite(folder / "big.tif", grey.astype(np.float32), bigtiff=True, compression="zlib")
    np.save(folder / "plane.npy", grey)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, 2, 3, 1])), folder / "frames.nii")
    nibabel.save(nibabel.Nifti2Image(volume[..., 0].astype(np.float32), np.eye(4)), folder / "two.nii")
    nibabel.save(nibabel.Nifti1Image(volume[..., 0], np.eye(4)), folder / "packed.nii.gz")
    save(header(volume[0, ..., 0].astype(np.uint16), PatientAge="077Y"), folder / "slice.dcm")
    text = "path,subject,label,split,age\n" + "".join(f"plane{n}.npy,p{n},{n % 2},train,{n}\n" for n in range(20))
    (folder / "table.csv").write_text(text)
    np.savez(folder / "plain.npz", **breast_arrays())
    zeros = {name: np.zeros_like(array) for name, array in breast_arrays().items()}
    np.savez_compressed(folder / "deflated.npz", **zeros)
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    for path in folder.iterdir():
        path.unlink()
    return contents


def source_of(folder: Path, name: str) -> Source:
    """What reads a file of this name: an archive of MedMNIST, a table, or the whole folder."""
    from data_shards.sources.images.options import ImagesConfig
    from data_shards.sources.images.source import Images
    from data_shards.sources.medmnist.source import MedMNIST

    if name.endswith(".npz"):
        return MedMNIST("breastmnist", file=folder / name, unofficial="damaged")
    table = folder / name if name.endswith(".csv") else None
    columns = {"attributes": {"age_years": "age"}} if table else {}
    config = ImagesConfig(root=folder, name="fuzz", table=table, frames="all", columns=columns)  # type: ignore[arg-type]
    return Images(config, SALT)


def outcome(folder: Path, name: str) -> str:
    """List the folder and read what is in it; only errors for users count as refusals."""
    from data_shards.sample import Sample
    from data_shards.support.errors import DataError

    try:
        source = source_of(folder, name)
    except DataError as error:
        return "unlisted" if "\n" not in str(error) else "two-lines"
    results = set()
    for position in range(min(len(source), 5)):
        try:
            assert isinstance(source.sample(position), Sample)
            results.add("sample")
        except DataError as error:
            results.add("refused" if "\n" not in str(error) else "two-lines")
    return "+".join(sorted(results))


def main(seed: int, count: int, seconds: int, mebibytes: int, folder: Path) -> None:
    contents = intact(folder)
    for name, content in contents.items():  # everything is imported before memory is counted
        (folder / name).write_bytes(content)
        if name.endswith(".csv"):
            for number in range(20):
                (folder / f"plane{number}.npy").write_bytes(contents["plane.npy"])
        assert outcome(folder, name) == "sample", name
        empty(folder)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (mebibytes << 20),) * 2)
    dice = random.Random(seed)
    names = list(contents)
    for number in range(count):
        name = names[number % len(names)]
        (folder / name).write_bytes(mutated(contents[name], contents[dice.choice(names)], dice))
        signal.alarm(seconds)
        found = outcome(folder, name)
        signal.alarm(0)
        print(number, name, found, flush=True)
        empty(folder)


def empty(folder: Path) -> None:
    """Remove what lies in the folder of this process."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]), Path(sys.argv[5]))
