"""When the number of workers changes during a run: fewer after a loss, more when there is room and a checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)

from cluster.capacity import Share
from cluster.ray_runtime import GROW_FILE, read_attempt
from cluster.restarts import note
from cluster.room import room_for

_LOOK_S = 1.0


class RoomPolicy(ElasticScalingPolicy):
    """Takes as many workers as there is room for, within the range that was asked for.

    Ray's own policy counts all that the machines have, also what others use; looks at them every 20 s, so that it
    waits for machines that are gone; and ends the workers without a word when it wants more of them. This one counts
    what is free, starts what fits, and lets the workers write a checkpoint before more of them are started: not a step
    is lost. A healthy group is never made smaller. An autoscaler is asked for all the workers, by Ray's part.

    Args:
        scaling_config: the range.
        share: of each worker.
        out: the folder of the run.
    """

    def __init__(self, scaling_config: ScalingConfig, share: Share, out: Path) -> None:
        super().__init__(scaling_config)
        self._share, self._grow_file = share, out / GROW_FILE
        self._out = out
        self._asked = False
        self._looked_s = float("-inf")

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """At the start, and after a loss: as many as there is room for, or none before there is for the fewest."""
        self._maybe_send_resource_request()
        self._forget()
        workers = self._room()
        if workers >= self.scaling_config.min_workers:
            return self._get_resize_decision(workers)
        time.sleep(_LOOK_S)  # Ray asks again at once
        return NoopDecision()

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """While they train: whether there is room for more."""
        self._maybe_send_resource_request()
        have = worker_group_state.num_workers
        if self._asked:
            if self._grow_file.exists():
                return NoopDecision()  # the step is not done, or the checkpoint
            self._asked = False
            workers = max(self._room(), self.scaling_config.min_workers)
            note(self._out, read_attempt(self._out), f"there is room for {workers} workers, {have} trained")
            return self._get_resize_decision(workers)
        now_s = time.monotonic()
        if now_s - max(worker_group_state.start_time, self._looked_s) < (
            self.scaling_config.elastic_resize_monitor_interval_s
        ):
            return NoopDecision()
        self._looked_s = now_s
        if self._room() > have:
            self._asked = True
            self._grow_file.touch()
        return NoopDecision()

    def _room(self) -> int:
        return min(room_for(self._share), self.scaling_config.max_workers)

    def _forget(self) -> None:
        self._asked = False
        self._grow_file.unlink(missing_ok=True)

    def _get_resize_decision(self, num_workers: int) -> ResizeDecision:
        return ResizeDecision(num_workers=num_workers, resources_per_worker=self._share.as_resources())
