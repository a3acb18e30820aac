"""The manifests of Kubernetes: known keys, our versions, commands that our parser takes, nobody as root, a token."""

from __future__ import annotations

import copy
import shlex
from typing import Any

import pytest
import yaml

from data_shards.support.documents import parse
from medformer import __version__
from medformer.cli import parse_words
from pretrain.config import PretrainConfig
from tests.deploy.files import manifests, versions
from tests.deploy.kuberay import cluster_of, pods, unknown_keys
from tests.documents import ROOT

CLUSTERS = [manifests(name)[0] for name in ("rayjob.yaml", "raycluster.yaml")]
named = pytest.mark.parametrize("manifest", CLUSTERS, ids=lambda manifest: manifest["kind"])


@named
def test_every_key_is_one_that_kuberay_knows(manifest: dict[str, Any]) -> None:
    assert manifest["apiVersion"] == "ray.io/v1"
    assert unknown_keys(manifest) == []
    mistyped = copy.deepcopy(manifest)
    cluster_of(mistyped)["workerGroupSpecs"][0]["minReplica"] = 1
    assert unknown_keys(mistyped) == ["group.minReplica"]


@named
def test_ray_and_image_are_of_the_versions_that_are_tested(manifest: dict[str, Any]) -> None:
    assert cluster_of(manifest)["rayVersion"] == versions()["ray"]
    assert {container["image"] for pod in pods(manifest) for container in pod["containers"]} == {
        f"medformer:{__version__}"
    }


@named
def test_whoever_has_no_token_is_refused_and_nobody_is_root(manifest: dict[str, Any]) -> None:
    assert cluster_of(manifest)["authOptions"] == {"mode": "token"}
    for pod in pods(manifest):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert not any("PASSWORD" in entry["name"] or "TOKEN" in entry["name"] for entry in container["env"])


@named
def test_a_worker_machine_that_is_taken_has_time_for_a_checkpoint(manifest: dict[str, Any]) -> None:
    constants = pytest.importorskip("ray._private.ray_constants", reason="Ray is not installed (extra: cluster)")
    name = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert hasattr(constants, name)
    for pod in pods(manifest)[1:]:
        environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
        assert 60 <= float(environment[name]) < pod["terminationGracePeriodSeconds"]


@named
def test_every_mount_has_its_volume_and_head_and_workers_share_the_storage(manifest: dict[str, Any]) -> None:
    shared = []
    for pod in pods(manifest):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
            shared += [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "data"]
    assert shared == ["/data"] * len(pods(manifest))


@named
def test_the_head_takes_no_workers_and_each_worker_machine_has_a_gpu(manifest: dict[str, Any]) -> None:
    cluster = cluster_of(manifest)
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        container = group["template"]["spec"]["containers"][0]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_command_of_the_job_is_one_of_ours_and_asks_for_the_machines_that_are_there() -> None:
    job = CLUSTERS[0]
    program, *words = shlex.split(job["spec"]["entrypoint"])
    arguments = parse_words(words)
    assert program == "medformer" and arguments.resume
    document = yaml.safe_load((ROOT / "configs" / "medmnist-small-gpu.yaml").read_text())
    config = parse(PretrainConfig, document, "rayjob.yaml", arguments.overrides)
    assert config.out.is_relative_to("/data") and arguments.config.is_relative_to("/data")
    assert config.cluster.workers == sum(group["replicas"] for group in cluster_of(job)["workerGroupSpecs"])
    assert config.cluster.wait_s > 0


def test_only_pods_of_the_namespace_and_the_operator_reach_the_cluster() -> None:
    namespace, policy = manifests("kubernetes.yaml")
    assert policy["metadata"]["namespace"] == namespace["metadata"]["name"]
    assert policy["spec"]["podSelector"] == {} and policy["spec"]["policyTypes"] == ["Ingress"]
    inside, operator = policy["spec"]["ingress"][0]["from"]
    assert inside == {"podSelector": {}}
    assert operator["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
