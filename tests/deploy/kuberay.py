"""The keys of KubeRay's ``ray.io/v1`` and of the Kubernetes objects in it that our manifests use.

A mistyped key is dropped or refused by a cluster, depending on its version. Whole schemas are megabytes; these are the
names that were found in those of KubeRay 1.5.1 to 1.7.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

KEYS: dict[str, set[str]] = {
    "RayJob": {
        "entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "submissionMode",
        "rayClusterSpec",
    },
    "cluster": {
        "rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
        "workerGroupSpecs",
    },
    "authOptions": {"mode", "secretName"},
    "autoscalerOptions": {"idleTimeoutSeconds"},
    "head": {"rayStartParams", "template"},
    "group": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
    "pod": {
        "automountServiceAccountToken", "terminationGracePeriodSeconds", "securityContext", "containers", "volumes",
    },
    "podSecurity": {"runAsNonRoot", "runAsUser", "fsGroup", "fsGroupChangePolicy", "seccompProfile"},
    "container": {"name", "image", "securityContext", "resources", "env", "envFrom", "volumeMounts"},
    "security": {"allowPrivilegeEscalation", "capabilities"},
    "volume": {"name", "persistentVolumeClaim", "emptyDir"},
    "mount": {"name", "mountPath"},
}  # fmt: skip


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The specification of the Ray cluster in a RayCluster or RayJob."""
    spec: dict[str, Any] = manifest["spec"]
    return spec["rayClusterSpec"] if manifest["kind"] == "RayJob" else spec


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod specifications: that of the head, then those of the groups."""
    cluster = cluster_of(manifest)
    return [part["template"]["spec"] for part in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def unknown_keys(manifest: dict[str, Any]) -> list[str]:
    """Keys of a manifest that are not in :data:`KEYS`."""
    return [f"{place}.{key}" for place, content in _parts(manifest) for key in content if key not in KEYS[place]]


def _parts(manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if manifest["kind"] == "RayJob":
        yield "RayJob", manifest["spec"]
    cluster = cluster_of(manifest)
    yield "cluster", cluster
    for name in ("authOptions", "autoscalerOptions"):
        yield name, cluster.get(name, {})
    yield "head", cluster["headGroupSpec"]
    yield from (("group", group) for group in cluster["workerGroupSpecs"])
    for pod in pods(manifest):
        yield "pod", pod
        yield "podSecurity", pod["securityContext"]
        yield from (("volume", volume) for volume in pod["volumes"])
        for container in pod["containers"]:
            yield "container", container
            yield "security", container["securityContext"]
            yield from (("mount", mount) for mount in container["volumeMounts"])
