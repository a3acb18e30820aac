"""``medformer shards``: build folders of shards, index those of others, look into them, verify them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

_BUILD_HELP = """\
Turns a source into shards. SOURCE is one of the names that `medformer shards sources` lists; its options are given as
key=value, in a YAML document (--config), or both, and `medformer shards sources SOURCE` explains them. Options that
begin with `prepare.` resample, crop and scale what the source yields.

  medformer shards build medmnist --set breastmnist --out runs/shards
  medformer shards build images root=scans organ=chest modality=xray name=clinic --out runs/shards
  medformer shards build images root=scans organ=brain modality=mri name=head prepare.spacing_mm=1 prepare.size=64 \\
      prepare.intensity.percentile=[0.5,99.5] --out runs/shards

`prepare.intensity` makes 8 bits; `intensity` keeps values as they are and says how they are to be read:

  medformer shards build images root=ct organ=chest modality=ct name=ct intensity=[lung,mediastinum] --out runs/shards
"""


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its actions."""
    parser = subparsers.add_parser("shards", help="build, inspect and verify data shards")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _register_build(actions)
    sources = actions.add_parser("sources", help="list the sources, or the options of one")
    sources.add_argument("source", nargs="?", help="explain the options of this one")
    sources.set_defaults(run=run_sources)
    _register_adopt(actions)
    _register_augment(actions)
    inspect = actions.add_parser("inspect", help="say what a folder of shards holds")
    inspect.add_argument("folder", type=Path, help="a folder of shards, or a folder of such folders")
    inspect.add_argument("--sheet", type=Path, metavar="PNG", help="also draw a contact sheet into this file")
    inspect.add_argument("--overwrite", action="store_true", help="replace the contact sheet when it exists")
    inspect.set_defaults(run=run_inspect)
    verify = actions.add_parser("verify", help="check every checksum; name the damaged shard and sample")
    verify.add_argument("folder", type=Path, help="a folder of shards, or a folder of such folders")
    verify.set_defaults(run=run_verify)


def _register_build(actions: argparse._SubParsersAction) -> None:
    build = actions.add_parser(
        "build",
        help="turn a source into shards",
        description=_BUILD_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.add_argument("source", help="medmnist, images, adni, phantoms, ...")
    build.add_argument("overrides", nargs="*", metavar="key=value", help="options of the source")
    build.add_argument("--config", type=Path, metavar="YAML", help="document with the options of the source")
    build.add_argument("--set", action="append", metavar="NAME", dest="sets", help="add NAME to the option `sets`")
    build.add_argument("--out", type=Path, required=True, help="each dataset becomes a folder in this one")
    build.add_argument("--workers", type=int, default=_cores(), help="processes that read (default: one per core)")
    build.add_argument("--shard-mb", type=float, default=64, metavar="MB", help="largest shard, in MiB (default 64)")
    build.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what to do with an item that cannot be read: stop (default), or skip and list it in skipped.csv",
    )
    build.add_argument(
        "--duplicates",
        choices=("refuse", "drop", "allow"),
        help="what to do with an image that occurs twice (default: the source's own, mostly refuse)",
    )
    build.add_argument(
        "--key-table",
        type=Path,
        metavar="CSV",
        help="private table from sample keys to files and patients; keep it with the archive",
    )
    build.add_argument(
        "--compress", action="store_true", help="gzip every image (.npy.gz): smaller shards that are slower to read"
    )
    build.add_argument("--overwrite", action="store_true", help="replace folders that exist")
    build.add_argument("--restart", action="store_true", help="throw away what an unfinished build has left")
    build.set_defaults(run=run_build)


def _register_adopt(actions: argparse._SubParsersAction) -> None:
    adopt = actions.add_parser(
        "index",
        help="index tar files written by webdataset, in place",
        description="Writes indices and a manifest beside the tar files of FOLDER, which are not touched.",
    )
    adopt.add_argument("folder", type=Path, help="folder of the tar files; their names say train, val or test")
    adopt.add_argument("overrides", nargs="*", metavar="key=value", help="what the files hold; see docs/shards.md")
    adopt.add_argument("--config", type=Path, metavar="YAML", help="document with the options")
    adopt.add_argument("--overwrite", action="store_true", help="replace indices and manifest that exist")
    adopt.set_defaults(run=run_index)


def _register_augment(actions: argparse._SubParsersAction) -> None:
    augment = actions.add_parser(
        "augment",
        help="write augmented copies of the training images beside them",
        description="Writes a folder of shards with the images of FOLDER and COPIES augmented ones of each image of "
        "its training split, made by the code and under the policy of pretraining. Copies keep label and subject.",
    )
    augment.add_argument("folder", type=Path, help="a folder of shards")
    augment.add_argument("overrides", nargs="*", metavar="key=value", help="parameters of the views, as crop.aspect=1")
    augment.add_argument("--config", type=Path, metavar="YAML", help="document with the parameters of the views")
    augment.add_argument("--copies", type=int, default=1, help="of each training image (default 1)")
    augment.add_argument("--image", help="which image of the studies, where they have several")
    augment.add_argument("--seed", type=int, default=0, help="of the random numbers (default 0)")
    augment.add_argument("--out", type=Path, required=True, help="the new folder of shards")
    augment.add_argument("--workers", type=int, default=_cores(), help="processes (default: one per core)")
    augment.add_argument("--overwrite", action="store_true", help="replace a folder that exists")
    augment.set_defaults(run=run_augment)


def run_build(arguments: argparse.Namespace) -> int:
    """``shards build``."""
    from medformer.commands.shards_build import build

    build(arguments)
    return 0


def run_sources(arguments: argparse.Namespace) -> int:
    """``shards sources``."""
    from medformer.commands.shards_build import explain

    print(explain(arguments.source))
    return 0


def run_index(arguments: argparse.Namespace) -> int:
    """``shards index``."""
    from medformer.commands.shards_build import index

    index(arguments)
    return 0


def run_augment(arguments: argparse.Namespace) -> int:
    """``shards augment``."""
    from medformer.commands.shards_augment import augment

    augment(arguments)
    return 0


def run_inspect(arguments: argparse.Namespace) -> int:
    """``shards inspect``."""
    from data_shards.format.manifest import read_manifest
    from data_shards.inspect.contact_sheet import contact_sheet
    from data_shards.inspect.survey import survey
    from data_shards.support.errors import ConfigError
    from data_shards.support.files import refuse_existing
    from medformer.commands.shards_table import describe

    if arguments.sheet is not None:
        refuse_existing(arguments.sheet, overwrite=arguments.overwrite)  # folders above it are made
        if arguments.sheet.is_dir():
            raise ConfigError(f"{arguments.sheet}: a folder; expected the name of a file")
    folders = _datasets(arguments.folder)
    print("\n\n".join(describe(folder, read_manifest(folder), survey(folder)) for folder in folders))
    if arguments.sheet is not None:
        contact_sheet(folders, arguments.sheet)
        print(f"\ncontact sheet: {arguments.sheet}")
    return 0


def run_verify(arguments: argparse.Namespace) -> int:
    """``shards verify``; the status is 2 when anything is damaged."""
    from data_shards.format.manifest import read_manifest
    from data_shards.inspect.verify import verify
    from data_shards.support.errors import DataError
    from data_shards.support.progress import Progress

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


def _datasets(folder: Path) -> list[Path]:
    """The folder itself when it has a manifest, else the folders in it that have one."""
    from data_shards.format.manifest import FILE_NAME

    inner = sorted(path.parent for path in folder.glob(f"[!.]*/{FILE_NAME}"))
    return inner if inner and not (folder / FILE_NAME).exists() else [folder]


def _cores() -> int:
    return len(os.sched_getaffinity(0))
