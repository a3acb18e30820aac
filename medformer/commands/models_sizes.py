"""``medformer models sizes``: parameters and operations of the backbone in all its sizes."""

from __future__ import annotations

import argparse

from medformer.commands.text_table import print_table

PLANE, VOLUME = (224, 224), (96, 96, 96)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.description = (
        "Parameters of the backbone as it comes, and operations of a forward pass for one image by the backbone made "
        "for images of that size. A multiplication with its addition counts as two operations; a training step costs "
        "about three times as many."
    )
    parser.add_argument(
        "--size",
        nargs="+",
        type=int,
        metavar="PIXELS",
        help="one number for a square plane, rows and columns, or slices, rows and columns "
        "(default: planes of 224 x 224 and volumes of 96 x 96 x 96)",
    )
    parser.add_argument("--channels", type=int, default=1, metavar="N", help="channels of the images (default: 1)")
    parser.set_defaults(run=run_sizes)


def run_sizes(arguments: argparse.Namespace) -> int:
    """Print one line per size of the backbone; an image is asked for its embedding, then for dense tokens too."""
    import timm
    import torch

    from pretrain.backbone.flops import forward_cost

    sizes = [_size(arguments.size, arguments.channels)] if arguments.size else [PLANE, VOLUME]
    head = ["NAME", "CHANNELS", "LAYERS", "HEADS", "LATENTS", "PARAMETERS"]
    for size in sizes:
        head += ["TOKENS " + "x".join(map(str, size)), "GFLOP", "GFLOP DENSE"]
    rows = []
    names = timm.list_models("medformer_*")
    with torch.device("meta"):
        models = [
            [timm.create_model(name, num_classes=0, **known) for known in ({}, *({"img_size": size} for size in sizes))]
            for name in names
        ]
    for name, (model, *made) in sorted(zip(names, models, strict=True), key=lambda pair: pair[1][0].embed_dim):
        latents = len(model.latents.shared) + sum(group.shape[1] for group in model.latents.collections.values())
        parameters = sum(parameter.numel() for parameter in model.parameters())
        numbers = [model.embed_dim, len(model.blocks), model.blocks[0].attention.heads, latents, parameters]
        row = [name, *(f"{number:,}" for number in numbers)]
        for size, own in zip(sizes, made, strict=True):
            costs = [forward_cost(own, size, arguments.channels, dense=dense) for dense in (False, True)]
            row += [f"{costs[0].tokens:,}", *(f"{cost.total / 1e9:.3g}" for cost in costs)]
        rows.append(row)
    print_table(head, rows)
    return 0


def _size(numbers: list[int], channels: int) -> tuple[int, ...]:
    from data_shards.support.errors import MedformerError

    size = tuple(numbers) * 2 if len(numbers) == 1 else tuple(numbers)
    if len(size) > 3 or min(*size, channels) < 1:
        raise MedformerError(
            f"--size {' '.join(map(str, numbers))} --channels {channels}: expected 1, 2 or 3 positive numbers of "
            "pixels, and at least one channel"
        )
    return size
