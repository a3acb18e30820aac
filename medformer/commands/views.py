"""``medformer views``: augmented images of the datasets of a run, and what is valid for images of which kind."""

from __future__ import annotations

import argparse
from pathlib import Path


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its actions."""
    parser = subparsers.add_parser("views", help="look at augmented images, and at what is valid for which")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = actions.add_parser(
        "show",
        help="draw a contact sheet of the views that a run will train on",
        description="Draws, for every dataset of a pretraining document, images as they are, under each of its "
        "transforms alone, and as the first and second view; and says what the policy has changed, and why.",
    )
    show.add_argument("config", type=Path, metavar="CONFIG", help="the YAML document of a pretraining")
    show.add_argument("overrides", nargs="*", metavar="key=value", help="replace single values, as views.crop.aspect=1")
    show.add_argument("--sheet", type=Path, metavar="PNG", required=True, help="the file to draw into")
    show.add_argument("--overwrite", action="store_true", help="replace the contact sheet when it exists")
    show.set_defaults(run=run_show)
    policy = actions.add_parser(
        "policy", help="print the rules for an organ and a modality, or all, with their reasons"
    )
    policy.add_argument("kinds", nargs="*", metavar="KIND", help="organs and modalities, as brain mri")
    policy.set_defaults(run=run_policy)


def run_show(arguments: argparse.Namespace) -> int:
    """``views show``."""
    from data_shards.support.documents import load
    from data_shards.support.files import refuse_existing
    from medformer.commands.views_sheet import draw
    from pretrain.config import PretrainConfig

    refuse_existing(arguments.sheet, overwrite=arguments.overwrite, file=True)
    for line in draw(load(PretrainConfig, arguments.config, arguments.overrides), arguments.sheet):
        print(line)
    print(f"contact sheet: {arguments.sheet}")
    return 0


def run_policy(arguments: argparse.Namespace) -> int:
    """``views policy``."""
    from data_shards.support.errors import ConfigError, nearest
    from data_shards.vocabulary import Modality, Organ
    from pretrain.views.policy import policy_named

    policy = policy_named("medical")
    organs = [kind for kind in arguments.kinds if kind in Organ.__members__]
    modalities = [kind for kind in arguments.kinds if kind in Modality.__members__]
    for kind in arguments.kinds:
        if kind not in organs and kind not in modalities:
            raise ConfigError(
                f"unknown kind {kind!r}{nearest(kind, dict.fromkeys([*Organ.__members__, *Modality.__members__]))}"
            )
    if not arguments.kinds:
        organs, modalities = list(policy.organ), list(policy.modality)
    if organs and not modalities:
        modalities = list(policy.modality)
        rules = [(whose, rule) for whose, rule in policy.rules(organs, modalities) if whose in organs]
    else:
        rules = list(policy.rules(organs, modalities))
    for whose, rule in rules:
        where = f" (of {', '.join(rule.modalities)})" if rule.modalities else ""
        print(f"{whose}{where}: {'; '.join(map(rule.in_words, rule.transforms))}\n    {rule.why}")
    if not rules:
        print(f"no rule for {' '.join(arguments.kinds)}: what the document says is done")
    return 0
