"""How many workers a cluster has room for: what is free, and what this run holds already."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cluster.capacity import Machine, Share, room

Resources = Mapping[str, float]
_ANSWER_S, _AT_ONCE = 2.0, 64


def own_groups() -> list[Any]:
    """The placement groups of this Ray job, as the head has them (``PlacementGroupTableData``).

    Ray's public table does not say whose a group is.
    """
    import ray
    from ray._private.state import state
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    job = ray.get_runtime_context().get_job_id()
    table = map(PlacementGroupTableData.FromString, state._connect_and_get_accessor().get_placement_group_table())
    return [group for group in table if group.creator_job_id.hex() == job]


def release_groups() -> None:
    """Give back what this Ray job holds: of an actor that was lost Ray keeps it for as long as the job lives."""
    from ray import PlacementGroupID
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    for group in own_groups():
        if group.state != PlacementGroupTableData.REMOVED:
            remove_placement_group(PlacementGroup(PlacementGroupID(group.placement_group_id)))


def room_for(share: Share) -> int:
    """How many workers with this share this run can have now: beside those of others, its own included."""
    import ray
    from ray._private.state import available_resources_per_node
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    alive = {node["NodeID"] for node in answering([node for node in ray.nodes() if node["Alive"]])}
    held = [
        (bundle.node_id.hex(), dict(bundle.unit_resources))
        for group in own_groups()
        if group.state != PlacementGroupTableData.REMOVED
        for bundle in group.bundles
    ]
    return counted(share, alive, available_resources_per_node(), held)


def answering(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The machines of ``ray.nodes()`` whose Ray takes a connection: the head believes in a lost one for a while."""

    def answers(node: Mapping[str, Any]) -> bool:
        try:
            socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), _ANSWER_S).close()
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(answers, nodes)
        return [node for node, answered in zip(nodes, found, strict=True) if answered]


def counted(
    share: Share, alive: Iterable[str], free: Mapping[str, Resources], held: Iterable[tuple[str, Resources]]
) -> int:
    """Workers that machines hold.

    Args:
        share: of each worker.
        alive: the machines that are there.
        free: by machine, what nobody holds.
        held: machine and resources of what this run holds; a machine that is gone does not count.
    """
    sums: dict[str, dict[str, float]] = {node: defaultdict(float, free.get(node, {})) for node in alive}
    for node, resources in held:
        for name, amount in resources.items():
            if node in sums:
                sums[node][name] += amount
    return room(map(Machine.of, sums.values()), share)
