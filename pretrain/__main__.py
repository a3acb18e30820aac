"""``python -m pretrain CONFIG [key=value ...] [--resume]``, alone or under ``torchrun``; Ray is not needed."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from data_shards.support.documents import load
from data_shards.support.errors import MedformerError


def main(argv: list[str] | None = None) -> int:
    """Run the engine in the plain runtime; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pretrain", description=__doc__, allow_abbrev=False)
    parser.add_argument("config", type=Path, help="the YAML document of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="replace single values of the document")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint in out, or start when there is none; give it with --max-restarts too",
    )
    arguments = parser.parse_intermixed_args(argv)
    try:
        return _run(arguments)
    except MedformerError as error:
        for line in str(error).splitlines():  # one for each error of a document
            print(f"medformer: error: {line}", file=sys.stderr, flush=True)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    import torch

    from pretrain.config import PretrainConfig
    from pretrain.engine import run
    from pretrain.preflight import remarks
    from pretrain.resumption import check_resumption, finished_bundle
    from pretrain.runtime import TorchRuntime

    config = load(PretrainConfig, arguments.config, arguments.overrides)
    if arguments.resume:
        check_resumption(config, int(os.environ.get("WORLD_SIZE", "1")))
        if (finished := finished_bundle(config)) is not None:
            if os.environ.get("RANK", "0") == "0":
                print(f"finished already: {finished}")
            return 0
    if threads := config.cluster.threads_per_worker:
        torch.set_num_threads(threads)
    if os.environ.get("RANK", "0") == "0":
        for remark in remarks(config):
            print(f"medformer: {remark}", file=sys.stderr, flush=True)
    runtime = TorchRuntime()
    try:
        bundle = run(config, runtime, resume=arguments.resume)
    finally:
        runtime.close()
    if runtime.rank == 0:
        print(f"model bundle: {bundle}" if bundle else f"stopped as asked; go on with --resume (out={config.out})")
    return 0 if bundle else 3


if __name__ == "__main__":
    status = main()
    # A rank that failed must not wait for the others in an exit handler.
    sys.stdout.flush()
    os._exit(status) if status == 2 else sys.exit(status)
