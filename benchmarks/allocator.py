"""What the kernel takes of training on volumes, with glibc's allocator as it comes and as training sets it.

Each run is a process of its own, with a neutral word in ``GLIBC_TUNABLES`` where the allocator is to stay as it comes:
what the user has set is left alone.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.table import Table

AS_IT_COMES = {"GLIBC_TUNABLES": "glibc.malloc.check=0"}
ARMS = {"as it comes": AS_IT_COMES, "as training sets it": {}}
REPEATS = 3
STEMS = {"hmlp": {}, "conv, the old default": {"stem": "conv", "stride": 4}}


def fine_tuned(kwargs: dict[str, object]) -> None:
    """A full fine-tuning on 48 volumes of 28^3."""
    import timm

    from finetune.classifier.estimator import FewLabelClassifier

    drawing = np.random.default_rng(0)
    volumes = drawing.integers(256, size=(48, 1, 28, 28, 28), dtype=np.uint8)
    backbone = timm.create_model("medformer_nano", num_classes=0, img_size=(28, 28, 28), **kwargs)
    estimator = FewLabelClassifier(backbone, strategy="full", head="attention", max_steps=30, seed=0)
    estimator.fit(volumes, np.arange(48) % 2)


def pretrained(kwargs: dict[str, object]) -> None:
    """Thirty steps of SimCLR on volumes of 28^3."""
    from data_shards.sources.phantoms import Phantoms
    from data_shards.writing.writer import write_dataset
    from pretrain.config import PretrainConfig
    from pretrain.engine import run
    from pretrain.runtime import TorchRuntime

    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "shards"
        write_dataset(Phantoms("phantom-brain-mri", size=28, subjects=60, images_per_subject=1), shards)
        content = {
            "out": f"{folder}/out",
            "data": {"datasets": [{"path": str(shards)}], "batch_size": 16},
            "model": {"name": "medformer_nano", "kwargs": {"img_size": [28, 28, 28], **kwargs}},
            "objectives": {"simclr": {}},
            "schedule": {"epochs": 100, "max_steps": 30},
            "checkpoint": {"every_steps": 1000},
            "cluster": {"threads_per_worker": 1},
        }
        began = _used()
        run(PretrainConfig.model_validate(content), TorchRuntime())
        _say(began)


JOBS = ("full fine-tuning", "pretraining")


def run() -> Table:
    """Both jobs, with either stem and allocator, in turn."""
    rows = []
    for job in JOBS:
        for stem, kwargs in STEMS.items():
            found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
            for _ in range(REPEATS):
                for arm, environment in ARMS.items():
                    found[arm].append(_measured(job, kwargs, environment))
            for arm, runs in found.items():
                median = sorted(runs, key=lambda each: each["user"] + each["system"])[REPEATS // 2]
                whole = median["user"] + median["system"]
                rows.append((
                    job, stem, arm, f"{whole:.1f}", f"{median['system']:.2f}", f"{median['system'] / whole:.1%}",
                    f"{median['faults']:,.0f}", f"{median['peak_mib']:,.0f}",
                ))  # fmt: skip
    return Table(
        title="What the kernel takes of training on volumes",
        command="python -m benchmarks allocator",
        columns=("job", "stem", "allocator", "CPU s", "of which the kernel", "share", "page faults", "peak, MiB"),
        rows=tuple(rows),
        remarks=f"medformer_nano on volumes of 28^3, one thread; the run with the median CPU time of {REPEATS}, in "
        "turn. Imports and the making of the data are left out of the times.",
    )


def _measured(job: str, kwargs: dict[str, object], environment: dict[str, str]) -> dict[str, float]:
    root = Path(__file__).parents[1]
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.allocator", json.dumps([job, kwargs])]
    variables = os.environ | one | environment
    made = subprocess.run(command, cwd=root, env=variables, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(made.stdout.splitlines()[-1])
    return found


def _used() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_SELF)


def _say(began: resource.struct_rusage) -> None:
    """What was used since then, as a line of output."""
    ended = _used()
    print(json.dumps({
        "user": ended.ru_utime - began.ru_utime,
        "system": ended.ru_stime - began.ru_stime,
        "faults": ended.ru_minflt - began.ru_minflt,
        "peak_mib": ended.ru_maxrss / 1024,
    }))  # fmt: skip


def main(job: str, kwargs: dict[str, object]) -> None:
    """One job in this process."""
    if job == "pretraining":
        pretrained(kwargs)
        return
    import_module("finetune.classifier.estimator")  # imports are not measured

    began = _used()
    fine_tuned(kwargs)
    _say(began)


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
