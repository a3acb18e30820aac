"""``medformer embed``: features of images by a frozen model."""

from __future__ import annotations

import argparse
from pathlib import Path

from medformer.commands.data_options import (
    add_data_options,
    add_document_options,
    add_run_options,
    add_window_options,
    document,
)


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``embed`` to the command line."""
    given = argparse.SUPPRESS
    parser = subparsers.add_parser(
        "embed",
        help="features of images by a frozen model",
        description="Write one vector per case, with its key, split and, where there is one, label. NPZ holds arrays "
        "key, split, label and features; Parquet has one row per case and needs pyarrow.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a bundle's folder, NAME@ALIAS, or a network's name, such as timm:resnet18@FILE"
    )
    parser.add_argument("--data", required=True, type=Path, help="folder of images, MedMNIST npz, or folder of shards")
    parser.add_argument(
        "--reads",
        default=given,
        metavar="WHAT",
        help="embedding, mean (of the tokens), mean_spread, embedding_mean_spread (default: embedding)",
    )
    add_window_options(parser)
    parser.add_argument("--split", default=given, metavar="NAME", help="of an archive or of shards (default: all)")
    add_document_options(parser)
    add_data_options(parser)
    add_run_options(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="features.npz or features.parquet")
    parser.set_defaults(run=run_embed)


def run_embed(arguments: argparse.Namespace) -> int:
    """Embed and write."""
    from finetune.config import EmbedConfig
    from finetune.embedding import embed_to
    from finetune.progress import watched
    from medformer.model_reference import local_model

    config = document(arguments, EmbedConfig, "medformer embed")
    with local_model(config.model, arguments.tracking_uri, networks=True) as backbone, watched():
        shape = embed_to(config, backbone, arguments.out, overwrite=arguments.overwrite, say=print)
    print(f"{shape[0]} cases, {shape[1]} numbers each\n{arguments.out}")
    return 0
