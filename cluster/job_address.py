"""Which cluster a job of Ray belongs to, also where a machine runs several.

Ray's supervisor of a job sets ``RAY_ADDRESS`` to a cluster that it finds on the machine, and with two of them (a head
and the local Ray of another user, say) to the one that started last: the job would run there, or find that it has
ended. A job descends from the raylet of its cluster, whose command line tells the right one.
"""

from __future__ import annotations

from collections.abc import Mapping

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_FLAG = "--gcs-address="


def address_of_job(environment: Mapping[str, str]) -> str | None:
    """``HOST:PORT`` of the cluster that runs this process as a job; None outside of a job, or if it cannot be told.

    Args:
        environment: of the process.
    """
    if _JOB not in environment:
        return None
    import psutil

    try:
        for ancestor in psutil.Process().parents():
            for word in ancestor.cmdline():
                if word.startswith(_FLAG) and len(word) > len(_FLAG):
                    return word.removeprefix(_FLAG)
    except psutil.Error:
        pass  # processes of another user, or a container that sees none of them: Ray's word stands
    return None
