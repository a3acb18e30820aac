"""Ray Tune's part of a search. Runs in the process of Ray."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.search.document import SearchConfig
from cluster.search.outcome import Tried, outcome
from cluster.search.records import Records
from cluster.search.space import as_tune
from cluster.search.trial import SCORE, STEP, Trial
from data_shards.support.documents import resolved

_FOLDER = "tune"
_ENVIRONMENT = {
    # Files beside ours, one of them for TensorBoard, which is not installed. Default: written.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # How often the state of the search is kept, from which --resume goes on. Default: chosen by Tune, 10 s and more.
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    # Frames with paths before and after the trials, whatever the verbosity. Default: on.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Signals are for the process of the user.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Trials that wait for resources are told by us.
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "0",
}


@dataclass(frozen=True)
class Tuning:
    """Runs the trials of a search; goes to the process of Ray by pickle.

    Attributes:
        config: the search.
        trial: what each does.
        resume: whether to go on with what lies in the folder.
    """

    config: SearchConfig
    trial: Trial
    resume: bool

    def drive(self) -> list[Tried]:
        """Run them; Ray is there."""
        os.environ.update(_ENVIRONMENT)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what went wrong is told by us, with its reason
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
        from ray.tune.search.basic_variant import BasicVariantGenerator

        from cluster.search.watcher import Watcher

        config = self.config
        Records(config.out, config.tracking_uri, config.experiment).begin(config.out.name, resolved(config))
        resources = {"cpu": config.cpus_per_trial, "gpu": config.gpus_per_trial}
        trial = self.trial

        def trainable(values: dict[str, Any]) -> None:  # Tune takes nothing but plain functions
            trial(values)

        trainable = tune.with_resources(trainable, resources)
        folder = config.out / _FOLDER
        if self.resume and tune.Tuner.can_restore(str(folder)):
            tuner = tune.Tuner.restore(str(folder), trainable=trainable, resume_unfinished=True)
        else:
            scheduler: Any = FIFOScheduler()
            if config.early is not None:
                scheduler = ASHAScheduler(
                    time_attr=STEP,
                    max_t=10**9,  # trials end by themselves
                    grace_period=config.early.grace,
                    reduction_factor=config.early.reduction,
                )
            tuner = tune.Tuner(
                trainable,
                param_space=as_tune(config.space),
                tune_config=tune.TuneConfig(
                    metric=SCORE,
                    mode=config.mode,
                    num_samples=config.trials,
                    search_alg=BasicVariantGenerator(random_state=config.seed, max_concurrent=config.concurrent or 0),
                    scheduler=scheduler,
                    reuse_actors=False,  # A process holds one process group.
                    trial_name_creator=_name,
                    trial_dirname_creator=_name,
                ),
                run_config=tune.RunConfig(
                    name=_FOLDER, storage_path=str(config.out), verbose=0, callbacks=[Watcher(config)]
                ),
            )
        return sorted((_tried(result) for result in tuner.fit()), key=lambda each: each.number)


def _name(trial: Any) -> str:
    return str(trial.trial_id)


def _tried(result: Any) -> Tried:
    return outcome(Path(result.path).name, result.config or {}, result.metrics or {}, result.error)
