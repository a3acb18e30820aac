"""Small shards of phantoms, and one process group for everything that runs in this process."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset
from pretrain.runtime import TorchRuntime
from tests.data_shards.made_sources import Coloured
from tests.pretrain.runs import Run, document, write_document

# The one fork server of a session (see tests/conftest.py) is that of the ranks too.
multiprocessing.set_forkserver_preload(["data_shards.stream.reader_processes", "tests.pretrain.warm"])


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Greyscale phantoms, 28 x 28; 116 images to train on, so that global batches of 16 come in 14s and 15s."""
    folder = tmp_path_factory.mktemp("shards") / "knee"
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=77, images_per_subject=2), folder)
    return folder


@pytest.fixture(scope="session")
def colour_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "colour"
    write_dataset(Coloured(subjects=60), folder)
    return folder


@pytest.fixture(scope="session")
def solid_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of 12 voxels along each axis, with known spacing."""
    folder = tmp_path_factory.mktemp("shards") / "brain"
    write_dataset(Phantoms("phantom-brain-mri", size=12, subjects=60, images_per_subject=1), folder)
    return folder


@pytest.fixture(scope="module")
def process_group() -> Iterator[None]:
    """A gloo group of this process alone, which no test of another file is to find."""
    handler = signal.getsignal(signal.SIGTERM)
    runtime = TorchRuntime()
    signal.signal(signal.SIGTERM, handler)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    if (communication := sys.modules.get("deepspeed.comm.comm")) is not None and communication.cdb is not None:
        communication.destroy_process_group()  # DeepSpeed would go on with what it has kept of this one
    runtime.close()


@pytest.fixture(scope="session")
def unbroken(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The reference: 50 steps of all three objectives on one process, never interrupted."""
    folder = tmp_path_factory.mktemp("unbroken")
    run = Run(write_document(folder / "config.yaml", document(shards, folder / "out")), folder / "out")
    finished = run.start()
    finished.expect(0)
    return run
