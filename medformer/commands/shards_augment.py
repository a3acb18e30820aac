"""What ``medformer shards augment`` does."""

from __future__ import annotations

import argparse

from data_shards.support.documents import parse, read_mapping, resolved
from data_shards.support.errors import ConfigError
from data_shards.support.files import refuse_existing
from data_shards.support.progress import Progress
from data_shards.writing.writer import write_dataset
from pretrain.views import ViewConfig
from pretrain.views.offline import Augmented


def augment(arguments: argparse.Namespace) -> None:
    """Write the folder, and say what the policy has changed."""
    if arguments.workers < 1:
        raise ConfigError(f"--workers: expected a number above 0, found {arguments.workers}")
    if arguments.seed < 0:
        raise ConfigError(f"--seed: expected 0 or a number above it, found {arguments.seed}")
    source, out = arguments.folder.resolve(), arguments.out.resolve()
    if source == out or source in out.parents or out in source.parents:
        raise ConfigError(f"--out {arguments.out}: the images that are read lie there; choose another folder")
    refuse_existing(arguments.out, overwrite=arguments.overwrite)
    content = read_mapping(arguments.config) if arguments.config else {}
    views = parse(ViewConfig, content, str(arguments.config or "views"), arguments.overrides)
    augmented = Augmented(arguments.folder, views, arguments.copies, arguments.seed, arguments.image)
    for note in augmented.ruled.notes:
        print(f"policy {views.policy}: {note}")
    options = {"views": resolved(augmented.ruled.views), "copies": arguments.copies, "seed": arguments.seed}
    with Progress(len(augmented), "samples", f"augment {augmented.card.name}") as progress:
        manifest = write_dataset(
            augmented,
            arguments.out,
            workers=arguments.workers,
            overwrite=arguments.overwrite,
            options=options,
            progress=progress,
        )
    counts = ", ".join(f"{entry.samples} {split}" for split, entry in manifest.splits.items())
    print(f"{arguments.out}: {counts}")
