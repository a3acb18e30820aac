"""``medformer shards``: build folders of shards, look into them, verify them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_shards.sources.base import Source


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its actions."""
    parser = subparsers.add_parser("shards", help="build, inspect and verify data shards")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _register_build(actions.add_parser("build", help="turn a source into shards").add_subparsers(required=True))
    inspect = actions.add_parser("inspect", help="say what a folder of shards holds")
    inspect.add_argument("folder", type=Path, help="a folder of shards, or a folder of such folders")
    inspect.set_defaults(run=run_inspect)
    verify = actions.add_parser("verify", help="check every checksum; name the damaged shard and sample")
    verify.add_argument("folder", type=Path, help="a folder of shards, or a folder of such folders")
    verify.set_defaults(run=run_verify)


def _register_build(sources: argparse._SubParsersAction) -> None:
    medmnist = sources.add_parser(
        "medmnist",
        help="the twelve 2D sets of MedMNIST at 28x28",
        epilog="An archive is looked for in --root, $MEDMNIST_ROOT and ~/.medmnist, then downloaded.",
    )
    chosen = medmnist.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--set", action="append", metavar="NAME", dest="sets", help="breastmnist, ...; repeatable")
    chosen.add_argument("--all", action="store_true", help="all twelve")
    medmnist.add_argument("--root", type=Path, help="folder of the npz archives")
    medmnist.add_argument("--file", type=Path, metavar="NPZ", help="this archive, for one set")
    medmnist.add_argument("--unofficial", metavar="REASON", help="why --file is not the published archive")
    medmnist.set_defaults(run=run_build_medmnist)
    phantoms = sources.add_parser("phantoms", help="synthetic organ images with labels")
    phantoms.add_argument(
        "--set", action="append", metavar="NAME", dest="sets", required=True, help="phantom-chest, ...; repeatable"
    )
    phantoms.add_argument("--seed", type=int, default=0, help="another seed is another population (default 0)")
    phantoms.add_argument("--size", type=int, default=28, help="pixels along an axis (default 28)")
    phantoms.set_defaults(run=run_build_phantoms)
    for parser in (medmnist, phantoms):
        parser.add_argument("--out", type=Path, required=True, help="each set becomes a folder in this one")
        parser.add_argument("--overwrite", action="store_true", help="replace folders that exist")


def run_build_medmnist(arguments: argparse.Namespace) -> int:
    """``shards build medmnist``."""
    from data_shards.sources.medmnist import CONTENT, MedMNIST
    from data_shards.support.errors import DataError

    names = list(CONTENT) if arguments.all else list(dict.fromkeys(arguments.sets))
    if arguments.file is not None and len(names) != 1:
        raise DataError(f"--file gives the archive of one set; {len(names)} sets were asked for")
    for name in names:
        source = MedMNIST(name, root=arguments.root, file=arguments.file, unofficial=arguments.unofficial)
        _build(source, len(source), arguments)
    return 0


def run_build_phantoms(arguments: argparse.Namespace) -> int:
    """``shards build phantoms``."""
    from data_shards.sources.phantoms import Phantoms

    for name in dict.fromkeys(arguments.sets):
        source = Phantoms(name, seed=arguments.seed, size=arguments.size)
        _build(source, len(source), arguments)
    return 0


def run_inspect(arguments: argparse.Namespace) -> int:
    """``shards inspect``."""
    from data_shards.manifest import read_manifest
    from medformer.commands.shards_table import describe

    manifests = [(folder, read_manifest(folder)) for folder in _datasets(arguments.folder)]
    print("\n\n".join(describe(folder, manifest) for folder, manifest in manifests))
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    """``shards verify``; the status is 2 when anything is damaged."""
    from data_shards.manifest import read_manifest
    from data_shards.support.errors import DataError
    from data_shards.support.progress import Progress
    from data_shards.verify import verify

    findings: list[str] = []
    for folder in _datasets(arguments.folder):
        splits = read_manifest(folder).splits.values()
        with Progress(sum(split.samples for split in splits), "samples", f"verify {folder}") as progress:
            found = verify(folder, progress)
        findings += found
        if not found:
            print(f"{folder}: every checksum of {sum(len(split.shards) for split in splits)} shards is right")
    if findings:
        raise DataError("\n".join(findings))
    return 0


def _build(source: Source, samples: int, arguments: argparse.Namespace) -> None:
    from data_shards.support.progress import Progress
    from data_shards.writer import write_dataset

    out = arguments.out / source.card.name
    with Progress(samples, "samples", source.card.name) as progress:
        manifest = write_dataset(source, out, overwrite=arguments.overwrite, progress=progress)
    counts = ", ".join(f"{entry.samples} {split}" for split, entry in manifest.splits.items())
    print(f"{out}: {counts}" + (f"; {manifest.card.note}" if manifest.card.note else ""))


def _datasets(folder: Path) -> list[Path]:
    """The folder itself when it has a manifest, else the folders in it that have one."""
    from data_shards.manifest import FILE_NAME

    inner = sorted(path.parent for path in folder.glob(f"[!.]*/{FILE_NAME}"))
    return inner if inner and not (folder / FILE_NAME).exists() else [folder]
