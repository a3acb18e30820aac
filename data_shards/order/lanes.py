"""An order of samples in which each node reads few shards at a time and, over an epoch, only its part of the dataset.

A full shuffle takes the next sample from anywhere: right where every shard lies on the node, ruinous where shards are
fetched. Here the shards are shuffled, laid end to end and cut into lanes; every global batch takes the same share from
each lane, and within a lane samples are shuffled in a window that moves along it. Ranks hold neighbouring lanes, so
what a node reads in an epoch is its share of the dataset, and what it needs at one time a window for each of its lanes.
The idea of a fixed number of lanes, apart from the number of nodes, is that of canonical nodes in MosaicML Streaming.
"""

from __future__ import annotations

import functools

import numpy as np
from pydantic import Field

from data_shards.order.permutation import Permutation
from data_shards.support.documents import Document


class Locality(Document):
    """How far samples that are shown together may lie apart."""

    lanes: int = Field(
        ge=1, description="places of the dataset that are read side by side; a multiple of the largest number of nodes"
    )
    window: int = Field(ge=1, description="neighbouring samples of a lane that are shuffled together; several shards")


class LaneOrder:
    """A bijection of ``range(N)``, position in the epoch to sample, in memory proportional to the number of shards.

    Position ``p`` belongs to lane ``p % lanes``.

    Args:
        shard_samples: samples of each shard, int64, shape (S,); ``N`` is their sum.
        locality: lanes and window.
        key: what the order depends on, such as seed, dataset and epoch.
    """

    def __init__(self, shard_samples: np.ndarray, locality: Locality, *key: int | str) -> None:
        self._key = key
        self._lanes = locality.lanes
        self._window = locality.window
        self._shards = Permutation(len(shard_samples), *key, "shards")(np.arange(len(shard_samples)))
        ends = np.cumsum(shard_samples)
        self._first = (ends - shard_samples)[self._shards]  # index of the first sample of each shard, in shuffled order
        self._ends = np.cumsum(shard_samples[self._shards])  # where each ends when they are laid end to end
        self.size = int(ends[-1]) if len(ends) else 0
        # Neighbouring batches are in the same windows; two for each lane span a change of window.
        self._shuffle = functools.lru_cache(2 * locality.lanes)(Permutation)

    def __len__(self) -> int:
        return self.size

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The sample at each position.

        Args:
            positions: integers in ``range(N)``, shape (B,).

        Returns:
            int64 of the same shape.

        Raises:
            IndexError: a position is outside.
        """
        if positions.size and not (positions.min() >= 0 and positions.max() < self.size):
            raise IndexError(f"positions outside range({self.size})")
        step_B, lane_B = np.divmod(positions.astype(np.int64), self._lanes)
        window_B, inner_B = np.divmod(step_B, self._window)
        place_B = self._lane_start(lane_B) + window_B * self._window
        # Rows of one lane and window are neighbours after sorting, so that each shuffle is asked once.
        by_window = np.lexsort((window_B, lane_B))
        changes = np.flatnonzero(np.diff(lane_B[by_window]) | np.diff(window_B[by_window])) + 1
        for rows in np.split(by_window, changes) if positions.size else ():
            lane, window = int(lane_B[rows[0]]), int(window_B[rows[0]])
            start, end = self._lane_start(np.array([lane, lane + 1]))
            size = min(self._window, int(end - start) - window * self._window)
            place_B[rows] += self._shuffle(size, *self._key, "window", lane, window)(inner_B[rows])
        slot_B = np.searchsorted(self._ends, place_B, side="right")
        begin_B = np.where(slot_B > 0, self._ends[slot_B - 1], 0)
        return self._first[slot_B] + place_B - begin_B

    def shards_of(self, first_lane: int, last_lane: int) -> np.ndarray:
        """The shards that the lanes from ``first_lane`` to ``last_lane - 1`` read in an epoch."""
        start, end = self._lane_start(np.array([first_lane, last_lane]))
        if start == end:
            return self._shards[:0]
        begin, last = np.searchsorted(self._ends, [start, end - 1], side="right")
        return self._shards[begin : last + 1]

    def _lane_start(self, lane_B: np.ndarray) -> np.ndarray:
        """Where lanes begin when the shards are laid end to end; lane ``l`` has every position ``p % lanes == l``."""
        return lane_B * (self.size // self._lanes) + np.minimum(lane_B, self.size % self._lanes)
