"""Whether a cluster adds machines by itself when a run asks for more than there are."""

from __future__ import annotations

import json


def can_grow() -> bool:
    """Whether an autoscaler looks after the cluster that this process is connected to.

    Ray has no question of this name. Version 2 of the autoscaler is switched on only where one is set up. Version 1
    also runs where there is nothing to scale, to report what there is; it then calls every machine ``node_ID``, and
    otherwise by its type in the autoscaler's configuration (``ray.autoscaler._private.readonly``).
    """
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.autoscaler._private.util import format_readonly_node_type
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2(fetch_from_server=True):
        return True
    status = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS) or b"{}")
    types = (status.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return any(kind != format_readonly_node_type(node) for node, kind in types.items())
