"""A run whose mixture of datasets changes as it goes on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from data_shards.sources.phantoms import Phantoms
from data_shards.support.errors import ConfigError
from data_shards.writing.writer import write_dataset
from pretrain.config import PretrainConfig
from pretrain.data import open_datasets, open_stream
from pretrain.engine import run
from pretrain.preflight import check
from tests.pretrain.runs import GroupRuntime, Run, document, untimed

pytestmark = pytest.mark.usefixtures("process_group")
STEPS = 20
CURRICULUM = [
    {"until": 0.3, "weights": [1, 0, 0]},
    {"until": 0.6, "weights": [1, 1, 0]},
    {"weights": [0, 1, 2]},
]


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same phantoms, from easy to hard: of one name, and told apart by their content."""
    home = tmp_path_factory.mktemp("levels")
    for level in (0.0, 0.5, 1.0):
        source = Phantoms("phantom-knee-mri-2d", subjects=60, images_per_subject=1, difficulty=level)
        write_dataset(source, home / str(level))
    return [home / str(level) for level in (0.0, 0.5, 1.0)]


def config_of(levels: list[Path], out: Path, curriculum: list[dict[str, Any]], **changes: Any) -> PretrainConfig:
    content = document(levels[0], out, schedule={"epochs": 100, "max_steps": STEPS}, **changes)
    content["data"] = {
        "datasets": [{"path": str(path)} for path in levels],
        "batch_size": 10,
        "curriculum": curriculum,
    }
    return PretrainConfig.model_validate(content)


class Ranked(GroupRuntime):
    """One of several workers, to ask for the batches that it would get."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self.rank, self.world_size = rank, world_size


def shown(config: PretrainConfig, world_size: int, first: int = 0) -> list[tuple[int, list[int]]]:
    """Dataset and samples of every global batch, put together from those of the workers."""
    streams = [open_stream(config, open_datasets(config), Ranked(rank, world_size)) for rank in range(world_size)]
    for stream in streams:
        stream.load_state_dict(
            {
                **stream.state_dict(),
                "epoch": first // stream.batches_per_epoch,
                "batch": first % stream.batches_per_epoch,
            }
        )
    found = []
    for batches in zip(*(islice(iter(stream), STEPS - first) for stream in streams), strict=True):
        found.append((batches[0].dataset, [sample for batch in batches for sample in batch.sample_B.tolist()]))
    return found


def test_the_mixture_follows_the_stages_on_any_number_of_workers_and_from_any_step(
    levels: list[Path], tmp_path: Path
) -> None:
    config = config_of(levels, tmp_path, CURRICULUM)
    alone = shown(config, 1)
    order = [dataset for dataset, _ in alone]
    assert order[:6] == [0] * 6
    assert sorted(order[6:12]) == [0, 0, 0, 1, 1, 1]
    assert sorted(order[12:]) == [1, 1, 1, 2, 2, 2, 2, 2]
    assert shown(config, 2) == shown(config, 3) == alone
    assert shown(config, 2, first=9) == alone[9:]


def test_a_run_resumed_in_a_stage_has_the_weights_of_one_that_was_not_interrupted(
    levels: list[Path], tmp_path: Path
) -> None:
    alone = {"objectives": {"simclr": {"hidden": 16, "out": 8}}}
    whole = config_of(levels, tmp_path / "whole", CURRICULUM, **alone)
    assert run(whole, GroupRuntime())
    stopped = config_of(levels, tmp_path / "stopped", CURRICULUM, **alone)
    assert run(stopped, GroupRuntime(stop_after=8)) is None
    assert run(stopped, GroupRuntime(), resume=True)
    files = [config.out / "bundle" / "model.safetensors" for config in (whole, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert untimed(Run(stopped.out, stopped.out).metrics()) == untimed(Run(whole.out, whole.out).metrics())
    other = config_of(levels, tmp_path / "stopped", [{"weights": [1, 1, 1]}], **alone)
    with pytest.raises(Exception, match=r"data\.curriculum"):
        run(other, GroupRuntime(), resume=True)
    assert torch.load(next((whole.out / "checkpoints").glob("*/rng-rank-0.pt")), weights_only=True)


@pytest.mark.parametrize(
    ("curriculum", "message"),
    [
        ([{"until": 0.5, "weights": [1, 1, 1]}], r"stages end at \[0\.5\]; expected rising fractions"),
        ([{"until": 0.5, "weights": [1, 1, 1]}] * 2, "expected rising fractions of the run, the last one 1"),
        ([], "the last one 1"),
        ([{"weights": [1, 1]}], r"stage 1 has weights \[1\.0, 1\.0\]; expected one for each of 3 datasets"),
        ([{"weights": [0, 0, 0]}], "and one above 0"),
        ([{"weights": [1, 1, 0]}], "has weight 0 in every stage; leave it out"),
        ([{"weights": [1, 1, -1]}], "greater than or equal to 0"),
    ],
)
def test_stages_that_make_no_sense_are_refused(
    levels: list[Path], tmp_path: Path, curriculum: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(levels, tmp_path, curriculum)


def test_what_the_length_of_the_run_decides_is_refused_before_training(levels: list[Path], tmp_path: Path) -> None:
    short = [{"until": 0.01, "weights": [1, 0, 0]}, {"weights": [1, 1, 1]}]
    with pytest.raises(ConfigError, match=r"data\.curriculum: stage 1 has none of the 20 steps of the run"):
        check(config_of(levels, tmp_path / "out", short), 1, resume=False)
    small = [{"until": 0.5, "weights": [1, 0.001, 0]}, {"weights": [1, 1, 1]}]
    with pytest.raises(ConfigError, match=r"weight 0\.001 of stage 1 is too small"):
        check(config_of(levels, tmp_path / "out", small), 1, resume=False)


def test_weights_beside_a_curriculum_are_refused(levels: list[Path], tmp_path: Path) -> None:
    content = document(levels[0], tmp_path)
    content["data"] |= {"curriculum": [{"weights": [1]}], "temperature": 2}
    with pytest.raises(ValueError, match="give a curriculum, or weights or a temperature of the datasets, not both"):
        PretrainConfig.model_validate(content)
