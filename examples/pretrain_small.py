"""Pretrain a small backbone on synthetic scans: from a source to shards, to a model bundle.

Needs ``medformer[pretrain]``. The same without Python: ``medformer shards build`` and ``medformer pretrain``::

    python examples/pretrain_small.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from data_shards.sources.phantoms import Phantoms
from data_shards.support.documents import parse
from medformer import load_bundle, write_dataset
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.runtime import TorchRuntime


def main(out: Path = Path("runs/example/pretraining")) -> None:
    """Write shards, pretrain on them, open the bundle."""
    shutil.rmtree(out, ignore_errors=True)
    write_dataset(Phantoms("phantom-brain-mri-2d", size=32, subjects=24, images_per_subject=4), out / "shards")
    document = {
        "out": str(out / "run"),
        "data": {"datasets": [{"path": str(out / "shards")}], "batch_size": 32},
        "model": {"name": "medformer_nano", "kwargs": {"depth": 1}},
        "objectives": {"simclr": {}},
        "schedule": {"epochs": 2},
        "log_every_steps": 1,
    }
    runtime = TorchRuntime()  # one process, or one of those that torchrun has started
    try:
        bundle = run(parse(PretrainConfig, document, "pretrain_small.py"), runtime)
    finally:
        runtime.close()
    assert bundle is not None, "stopped by a signal"
    backbone = load_bundle(bundle).backbone
    print(f"{bundle}: {sum(parameter.numel() for parameter in backbone.parameters()):,} parameters")


if __name__ == "__main__":
    main()
