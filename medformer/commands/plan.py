"""``medformer plan``: what a pretraining needs, before it is paid for."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

_FOLLOWED = "a step is followed on tensors without values"


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "plan",
        help="what a pretraining needs: memory, time, checkpoints",
        description="Say what the pretraining that CONFIG describes needs on so many GPUs: parameters, operations, "
        "memory by stage of ZeRO, the batch that fits, time, and how often a checkpoint pays. Nothing is trained "
        f"unless --measure is given: {_FOLLOWED}, and of the shards the manifests are read.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the YAML document of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace single values, such as seed=1")
    parser.add_argument("--gpus", type=int, metavar="N", help="workers, each with one (default: cluster.workers)")
    parser.add_argument("--gpu-memory", type=float, metavar="GIB", help="memory of each")
    parser.add_argument("--gpu", metavar="NAME", help="such as H100: its peak gives an estimate of the time")
    parser.add_argument("--utilisation", type=float, default=0.3, help="fraction of the peak it goes by (default: .3)")
    parser.add_argument("--images-per-s", type=float, metavar="RATE", help="images per second of each GPU, if known")
    parser.add_argument(
        "--measure", type=int, nargs="?", const=5, metavar="STEPS", help="take so many steps here (default: 5)"
    )
    failures = parser.add_mutually_exclusive_group()
    failures.add_argument("--mtbf", type=float, metavar="HOURS", help="mean time between failures of a GPU")
    failures.add_argument("--node-mtbf", type=float, metavar="HOURS", help="mean time between failures of a node")
    parser.add_argument("--gpus-per-node", type=int, default=8, metavar="N", help="for --node-mtbf (default: 8)")
    parser.add_argument(
        "--restart-s", type=float, default=120.0, metavar="S", help="from a failure to the next step (default: 120)"
    )
    parser.add_argument(
        "--write-mib-s", type=float, default=500.0, metavar="RATE", help="checkpoints are written at (default: 500)"
    )
    parser.add_argument("--checkpoint-s", type=float, metavar="S", help="training waits so long for one, if known")
    parser.add_argument(
        "--shape", action="append", type=_shape, metavar="C,H,W", help="of the images, where there are no shards yet"
    )
    parser.add_argument("--images", type=int, metavar="N", help="how many there are, with --shape")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(run=run_plan)


def run_plan(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    from cluster.plan.images import read_mixture, told_mixture
    from cluster.plan.plan import Machines, check_machines, make_plan
    from cluster.plan.report import lines
    from cluster.plan.step import shapes_of
    from data_shards.support.documents import load
    from data_shards.support.errors import MedformerError
    from pretrain.config import PretrainConfig

    config = load(PretrainConfig, arguments.config, arguments.overrides)
    if arguments.gpus_per_node < 1:
        raise MedformerError(f"--gpus-per-node {arguments.gpus_per_node}: at least one is expected")
    mtbf_h = arguments.mtbf
    if arguments.node_mtbf is not None:
        mtbf_h = arguments.node_mtbf * arguments.gpus_per_node
    machines = Machines(
        gpus=config.cluster.max_workers if arguments.gpus is None else arguments.gpus,
        memory_gib=arguments.gpu_memory,
        gpu=arguments.gpu,
        utilisation=arguments.utilisation,
        images_per_s=arguments.images_per_s,
        mtbf_h=mtbf_h,
        restart_s=arguments.restart_s,
        write_mib_s=arguments.write_mib_s,
        write_s=arguments.checkpoint_s,
    )
    check_machines(machines)
    shapes_of(config)  # a wrong name of the document is told before shards that are not there
    if arguments.shape and arguments.measure is not None:
        raise MedformerError("--measure: steps are taken on the images of the shards; leave --shape out")
    if arguments.shape:
        mixture = told_mixture(config, arguments.shape, arguments.images)
    else:
        mixture = read_mixture(config, machines.gpus)
    measurement = None
    if arguments.measure is not None:
        from cluster.plan.measure import measure

        measurement = measure(config, machines.gpus, arguments.measure)
    plan = make_plan(config, machines, mixture, measurement)
    print(json.dumps(plan.as_json(), indent=1) if arguments.json else "\n".join(lines(plan)))
    return 0


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected C,H,W or C,D,H,W") from None
