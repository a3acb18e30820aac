"""What a trial does, in a process of Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.search.kinds import Kind
from cluster.search.space import with_values
from data_shards.support.errors import ConfigError, nearest

STEP, TOTAL, SCORE, REPORTED = "step", "steps_in_all", "score", "reported"
"""Names of what a trial tells Tune; Tune takes a name with a slash, as metrics have them, apart."""
TRIALS = "trials"
_PROBE = "probe/"


@dataclass(frozen=True)
class Trial:
    """The function that Ray Tune calls with the values of a trial.

    Attributes:
        kind: of run.
        base: the document that is varied.
        out: folder of the search.
        metric: what is to be among the metrics.
        threads: of each trial.
        gpus: of each trial; with none, those of the machine are not for it.
        cwd: where relative paths begin.
    """

    kind: Kind
    base: Mapping[str, Any]
    out: Path
    metric: str
    threads: int
    gpus: float
    cwd: str

    def __call__(self, values: dict[str, Any]) -> None:
        """Run the trial; its folder has the name that Ray Tune gave it."""
        import torch
        from ray import tune

        if not self.gpus:
            os.environ.update({"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"})
        torch.set_num_threads(self.threads)
        if os.path.isdir(self.cwd):
            os.chdir(self.cwd)
        content = with_values(self.base, values)
        total = self.kind.steps(content)

        def report(metrics: Mapping[str, float], step: int) -> None:
            if self.metric not in metrics:
                # Probes are taken at some of the steps only.
                probed = any(name.startswith(_PROBE) for name in metrics)
                if probed or step == total or not self.metric.startswith(_PROBE):
                    raise ConfigError(f"metric: a trial has no {self.metric!r}{nearest(self.metric, metrics)}")
                return
            tune.report({SCORE: metrics[self.metric], STEP: step, TOTAL: total, REPORTED: dict(metrics)})

        self.kind.run(content, self.out / TRIALS / tune.get_context().get_trial_id(), report)
