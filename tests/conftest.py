"""What every test gets: a thread or two, a store of its own, and the shared real images where they are present."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.leftovers import mark, pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]  # a hook

mark()

# Before torch or numpy start their thread pools. Tests beside each other have one each, whatever they inherit from the
# process that starts them, which has read this file, too: two that wait for each other on a busy core cost most of it.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ[variable] = "1"
    else:
        os.environ.setdefault(variable, "2")
os.environ.setdefault("MPLBACKEND", "agg")

# A shell ignores Ctrl-C for what it starts in the background, and so would the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# One fork server serves a whole session; the test that starts it would decide whether all readers import torch anew.
multiprocessing.set_forkserver_preload(["data_shards.stream.reader_processes"])

# How long one example takes says more of the machine than of the code.
hypothesis.settings.register_profile("medformer", deadline=None)
hypothesis.settings.load_profile("medformer")

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """xdist hands out groups in the order of :func:`_turn`, not those of the most tests first."""
    config.option.loadscopereorder = False


@pytest.fixture(scope="session", autouse=True)
def medformer_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user data folder of this test session, so that no test touches the user's own models and runs."""
    home = tmp_path_factory.mktemp("medformer-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDFORMER_HOME", str(home))
        for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "RAY_ADDRESS"):
            patch.delenv(variable, raising=False)
        yield home


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """What a test draws without a seed of its own does not depend on the tests before it in its process."""
    random.seed(0)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images named by MEDFORMER_SHARED_DATA, by default ``../shared/data`` beside the checkout."""
    folder = Path(os.environ.get("MEDFORMER_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is absent; set MEDFORMER_SHARED_DATA")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run; beside each other run files, and never two with a Ray.

    Groups are for an xdist that knows them: 3.8 writes them into an attribute that pytest 9.2 no longer reads, and
    gives single tests to the workers, each of which then sets up the fixtures of every file.
    """
    has_ray = importlib.util.find_spec("ray") is not None
    items.sort(key=_turn)
    for item in items:
        group = "cluster" if item.get_closest_marker("cluster") else item.location[0]
        item.add_marker(pytest.mark.xdist_group(group))
        if item.get_closest_marker("cluster") and not has_ray:
            item.add_marker(pytest.mark.skip(reason="Ray is not installed (extra: cluster)"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _turn(item: pytest.Item) -> int:
    """The longest group begins, and many short files end, so that no worker waits long for the last one of another."""
    if item.get_closest_marker("cluster"):
        return 0
    return 2 if item.location[0].startswith("tests/data_shards/") else 1


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
