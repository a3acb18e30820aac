"""A range of workers: how it is read, what share of the machines each gets, and how much room there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.capacity import Machine, Share, shared_out
from cluster.errors import ClusterError
from cluster.launch import worker_group
from cluster.ray_train import on_this_machine
from cluster.room import counted
from cluster.worker_group import WorkerGroup
from data_shards.support.documents import load, parse, resolved
from data_shards.support.errors import ConfigError
from pretrain.config import ClusterConfig


@pytest.mark.parametrize(
    ("written", "least", "most"), [("2", 2, 2), ("1:4", 1, 4), ("'1:4'", 1, 4), ("3:3", 3, 3), ("1:59", 1, 59)]
)
def test_a_range_is_read_from_a_document_and_from_the_command_line(
    written: str, least: int, most: int, tmp_path: Path
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(f"workers: {written}\n")
    for config in (load(ClusterConfig, path), parse(ClusterConfig, {}, "here", [f"workers={written}"])):
        assert (config.min_workers, config.max_workers) == (least, most)
        group = worker_group(config)
        assert (group.least, group.workers, group.elastic) == (least, most, least < most)
        path.write_text(yaml.safe_dump(resolved(config)))
        assert load(ClusterConfig, path) == config, "the resolved document says the same"


@pytest.mark.parametrize("value", [0, "0:2", "3:2", "1:", ":2", "two", 1.5, None, "-1", "1:2:3"])
def test_what_is_no_range_is_refused_with_the_key(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"workers: expected a number above 0, or MIN:MAX .* first; found"):
        parse(ClusterConfig, {"workers": value}, "here")


def test_true_is_no_number_of_workers() -> None:
    with pytest.raises(ConfigError, match="workers: expected a number, and not true or false; found True"):
        parse(ClusterConfig, {"workers": True}, "here")


def test_machines_that_do_not_hold_all_workers_share_out_what_they_have() -> None:
    small = [Machine(4)]
    assert shared_out(small, 2, threads=None, gpus=None, least=1) == Share(2, 0)
    assert shared_out(small, 8, threads=None, gpus=None, least=1) == Share(1, 0)
    assert shared_out(small, 8, threads=3, gpus=None, least=1) == Share(3, 0)
    assert shared_out([Machine(8, 2)], 4, threads=None, gpus=None, least=1) == Share(4, 1), "two workers with a GPU"
    assert shared_out([Machine(8, 2)], 4, threads=None, gpus=None, least=3) == Share(2, 0), "three GPUs there are not"


def test_a_ray_of_our_own_has_as_many_workers_of_a_range_as_this_machine_holds() -> None:
    chosen = on_this_machine(WorkerGroup(workers=8, min_workers=1), gpus=0, cpus=3)
    assert (chosen.least, chosen.workers, chosen.gpus_per_worker) == (1, 3, 0)
    chosen = on_this_machine(WorkerGroup(workers=8, min_workers=1), gpus=2, cpus=16)
    assert (chosen.least, chosen.workers, chosen.gpus_per_worker) == (1, 2, 1)
    with pytest.raises(ClusterError, match="4 workers need as many CPUs, this machine has 3"):
        on_this_machine(WorkerGroup(workers=8, min_workers=4), gpus=0, cpus=3)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4),
    st.integers(1, 2),
)
def test_room_is_what_would_be_free_if_the_run_were_not_there(nodes: list[tuple[int, int, int]], threads: int) -> None:
    """Each machine has some workers of this run and of others; the last one has gone with all its workers."""
    share = Share(threads)
    sizes = [free + (mine + others) * threads for free, mine, others in nodes]
    free = {f"node-{number}": {"CPU": float(free)} for number, (free, _, _) in enumerate(nodes)}
    held = [
        (f"node-{number}", {"CPU": float(threads)}) for number, (_, mine, _) in enumerate(nodes) for _ in range(mine)
    ]
    alive = list(free)[:-1]
    expected = sum((sizes[number] - nodes[number][2] * threads) // threads for number in range(len(alive)))
    assert counted(share, alive, free, held) == expected
