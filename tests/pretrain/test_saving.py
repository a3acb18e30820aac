"""Checkpoints are written beside the training: consistent, complete or not there, and what fails is told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_shards.support.errors import MedformerError, TrainingError
from data_shards.support.files import sha256_of
from pretrain.checkpoint import CheckpointStore
from pretrain.saving.hashed import Abandoned, save_hashed
from pretrain.saving.snapshot import copied
from pretrain.saving.writer import CheckpointWriter
from pretrain.stopping import Votes
from tests.pretrain.ranks import run_ranks
from tests.pretrain.runs import GroupRuntime
from tests.pretrain.saving_ranks import Gate, Refused, lost_in_the_middle, one_rank_fails, two_ranks_write
from tests.small_disk import small_disk

pytestmark = pytest.mark.usefixtures("process_group")


@pytest.fixture
def gate() -> Iterator[Gate]:
    """What cannot be written before it is opened; no thread is left behind it."""
    gate = Gate()
    yield gate
    gate.open()


def writer_of(folder: Path, runtime: GroupRuntime | None = None) -> CheckpointWriter:
    return CheckpointWriter(CheckpointStore(folder), runtime or GroupRuntime(), lambda _: None)


def taking(**contents: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda _: {f"{name}.pt": content for name, content in contents.items()}


def test_a_copy_is_of_the_step_it_was_taken_in_whatever_the_optimizer_does_next() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    step = lambda: (layer(torch.randn(5, 4)).square().sum().backward(), optimizer.step())  # noqa: E731
    step()
    written = json.dumps([layer.state_dict(), optimizer.state_dict()], default=lambda tensor: tensor.tolist())
    taken = copied([layer.state_dict(), optimizer.state_dict()])
    step()
    assert json.dumps(taken, default=lambda tensor: tensor.tolist()) == written
    assert taken[0]._metadata == layer.state_dict()._metadata, "the versions of modules are part of a state dict"


def test_a_tensor_of_two_names_is_copied_once_and_a_view_without_the_rest_of_its_buffer() -> None:
    buffer = torch.arange(1000.0)
    weight = buffer[10:16].view(2, 3)
    taken = copied({"one": weight, "other": weight, "empty": [torch.zeros(0), torch.zeros(0)]})
    assert taken["one"] is taken["other"] and taken["one"].untyped_storage().nbytes() == 24
    buffer.zero_()
    assert taken["one"].tolist() == [[10, 11, 12], [13, 14, 15]]


def test_the_digest_taken_on_the_way_is_that_of_the_file_and_torch_reads_it(tmp_path: Path) -> None:
    content = {"large": torch.randn(5_000_000), "small": torch.ones(3), "name": "x"}
    path = tmp_path / "content.pt"
    assert save_hashed(content, path) == sha256_of(path)
    read = torch.load(path, weights_only=True)
    assert torch.equal(read["large"], content["large"]) and read["name"] == "x"


def test_a_file_is_given_up_between_two_pieces(tmp_path: Path) -> None:
    answers = iter([False, False, True])
    with pytest.raises(Abandoned):
        save_hashed(torch.zeros(20 << 20), tmp_path / "content.pt", lambda: next(answers, True))
    assert (tmp_path / "content.pt").stat().st_size < 33 << 20


def test_training_goes_on_while_a_checkpoint_is_written(gate: Gate, tmp_path: Path) -> None:
    runtime = GroupRuntime()
    with writer_of(tmp_path, runtime) as writer:
        writer.save(5, {"step": 5}, taking(weights=torch.ones(3), slow=gate))
        assert CheckpointStore(tmp_path).latest() is None and runtime.saved == []
        assert writer.votes(False) == Votes() and writer.votes(True) == Votes(stop=True)
        gate.open()
        while not writer.votes(False).complete:
            assert not writer.votes(False).failed
        newest = CheckpointStore(tmp_path).latest()
        assert newest is not None and newest.step == 5 and newest.state() == {"step": 5}
        newest.verify()
        assert runtime.saved == [], "it is announced when all ranks know"
        writer.note(Votes(complete=True))
    assert runtime.saved == [(tmp_path / "step-00000005-attempt-0", 5)]
    names = {str(path.relative_to(newest.folder)) for path in newest.folder.rglob("*")}
    assert names == {"sha256.json", "slow.pt", "state.json", "weights.pt"}


def test_the_next_checkpoint_waits_for_the_one_before_and_says_so(
    gate: Gate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = GroupRuntime()
    with writer_of(tmp_path, runtime) as writer:
        writer.save(1, {}, taking(slow=gate))
        threading.Timer(1.2, gate.open).start()
        writer.save(2, {}, taking(weights=torch.ones(3)))
        assert runtime.saved == [(tmp_path / "step-00000001-attempt-0", 1)]
        writer.finish()
    assert [checkpoint.step for checkpoint in CheckpointStore(tmp_path).complete()] == [1, 2]
    said = capsys.readouterr().err
    assert re.fullmatch(r"medformer: the checkpoint of step 2 had to wait \d+\.\d s for that of step 1 .*\n", said), (
        said
    )


def test_an_error_of_ours_lets_the_good_checkpoint_under_way_be_completed(gate: Gate, tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    writer.save(1, {}, taking(slow=gate))
    threading.Timer(0.2, gate.open).start()
    writer.__exit__(TrainingError, TrainingError("step 2: loss is nan"), None)
    assert [checkpoint.step for checkpoint in CheckpointStore(tmp_path).complete()] == [1]


def test_a_worker_lost_while_a_checkpoint_is_written_is_not_a_disk_that_refuses(tmp_path: Path) -> None:
    """An error of ours would end the run; this one must reach those who start workers again."""
    store = CheckpointStore(tmp_path)
    for result in run_ranks(lost_in_the_middle, 2, tmp_path):
        assert result == "Connection reset by peer"
    assert store.latest() is None and len(list(tmp_path.iterdir())) == 1
    store.clean()
    assert not list(tmp_path.iterdir())


def test_two_ranks_write_one_checkpoint_at_the_pace_of_the_slower(tmp_path: Path) -> None:
    assert run_ranks(two_ranks_write, 2, tmp_path) == [[3, 4], [3, 4]]
    store = CheckpointStore(tmp_path)
    assert [checkpoint.step for checkpoint in store.complete()] == [3, 4]
    for checkpoint in store.complete():
        checkpoint.verify()
        files = {path.name for path in checkpoint.folder.iterdir()}
        assert files == {"sha256.json", "state.json", "rank-0.pt", "rank-1.pt"}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_cannot_write_ends_the_run_on_all_with_its_reason(rank: int, tmp_path: Path) -> None:
    said = run_ranks(one_rank_fails, 2, tmp_path, rank)
    kept = "step-00000001-attempt-0 stays, and --resume goes on from it"
    assert said == [f"cannot write checkpoint {tmp_path}/step-00000002-attempt-0: Input/output error; {kept}"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001-attempt-0"]


def test_a_failure_is_told_at_the_next_step_not_at_the_next_checkpoint(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    writer.save(1, {}, taking(bad=Refused()))
    while not writer.votes(False).failed:
        assert not writer.votes(False).complete
    with pytest.raises(MedformerError, match="cannot write checkpoint .*: Input/output error"):
        writer.note(writer.votes(False))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", [9, 4_000_000])
def test_a_disk_that_is_full_is_named_with_what_stays(numbers: int, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2 << 20) as disk:
        store = CheckpointStore(disk)
        with writer_of(disk) as writer:
            writer.save(1, {"step": 1}, taking())
            writer.finish()
            (disk / "other").write_bytes(bytes((2 << 20) - (160 << 10)))
            # Small files take a page each.
            writer.save(2, {"step": 2}, taking(**{str(number): torch.zeros(numbers) for number in range(100)}))
            with pytest.raises(MedformerError) as told:
                writer.finish()
        assert str(told.value) == (
            f"cannot write checkpoint {store.path(2, 0)}: No space left on device; step-00000001-attempt-0 stays, and "
            "--resume goes on from it"
        )
        assert sorted(path.name for path in disk.iterdir()) == ["other", "step-00000001-attempt-0"]
