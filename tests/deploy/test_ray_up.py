"""The clusters of ``ray up`` pass what Ray itself checks, and start Ray behind a token."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from cluster import defaults
from tests.deploy.files import manifests

util = pytest.importorskip("ray.autoscaler._private.util", reason="Ray is not installed (extra: cluster)")
pytest.importorskip("jsonschema")

NAMES = ["ray-up-onprem.yaml", "ray-up-aws.yaml"]


def prepared(name: str) -> dict[str, Any]:
    """With Ray's defaults filled in, as ``ray up`` does it first."""
    config: dict[str, Any] = util.prepare_config(manifests(name)[0])
    return config


@pytest.mark.parametrize("name", NAMES)
def test_ray_accepts_the_file(name: str) -> None:
    config = prepared(name)
    util.validate_config(config)
    util.check_legacy_fields(config)
    with pytest.raises(Exception, match="nonsense"):
        util.validate_config({**config, "nonsense": 1})


@pytest.mark.parametrize("name", NAMES)
def test_ray_is_started_with_options_it_has_and_a_token_and_its_page_on_loopback(name: str) -> None:
    from ray.scripts.scripts import start

    config = manifests(name)[0]
    for key, first in (("head_start_ray_commands", "--head"), ("worker_start_ray_commands", "--address")):
        stop, command = config[key]
        assert shlex.split(stop)[1:] == ["stop"]
        environment, words = re.split(r"\bray start\b", command)
        silent = f"RAY_USAGE_STATS_REPORT_URL={defaults.RAY['RAY_USAGE_STATS_REPORT_URL']}"
        assert (silent in environment) == (first == "--head")
        assert "RAY_AUTH_MODE=token" in environment and "~/medformer/bin:$PATH" in environment
        parsed = start.make_context("start", shlex.split(words.replace("$RAY_HEAD_IP", "192.0.2.1"))).params
        assert words.split()[0].startswith(first) and parsed["disable_usage_stats"]
        assert parsed["dashboard_host"] == "127.0.0.1"
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]


def test_the_cloud_grows_from_no_worker_and_the_machines_at_hand_are_all_used() -> None:
    cloud = prepared("ray-up-aws.yaml")
    assert (
        cloud["available_node_types"]["gpu"]["min_workers"] == 0 < cloud["available_node_types"]["gpu"]["max_workers"]
    )
    assert cloud["available_node_types"]["head"]["resources"] == {"CPU": 0}
    machines = manifests("ray-up-onprem.yaml")[0]
    assert machines["min_workers"] == machines["max_workers"] == len(machines["provider"]["worker_ips"])
