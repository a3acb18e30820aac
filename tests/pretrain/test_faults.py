"""Faults: one clear line, nothing half-written, and what was good before stays."""

from __future__ import annotations

import json
import math
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from data_shards.support.errors import CheckpointError, ConfigError, DataError, MedformerError, TrainingError
from data_shards.support.files import sha256_of
from pretrain import preflight
from pretrain.__main__ import main
from pretrain.backbone import Medformer
from pretrain.checkpoint import Checkpoint, CheckpointStore
from pretrain.config import PretrainConfig, run_digest
from pretrain.engine import run
from pretrain.meter import MetricsFile
from pretrain.objectives import OBJECTIVES, Views
from pretrain.objectives.base import objective
from tests.pretrain.runs import GroupRuntime, Run, document, write_document

pytestmark = pytest.mark.usefixtures("process_group")

STEPS = 4


def short(shards: Path, out: Path, **changes: Any) -> PretrainConfig:
    changes = {"schedule": {"max_steps": STEPS}, "checkpoint": {"every_steps": 2}, **changes}
    return PretrainConfig.model_validate(document(shards, out, **changes))


@pytest.fixture(scope="module")
def trained(shards: Path, tmp_path_factory: pytest.TempPathFactory, process_group: None) -> Path:
    """The output of a run that was asked to stop after step 3."""
    out = tmp_path_factory.mktemp("trained") / "out"
    assert run(short(shards, out), GroupRuntime(stop_after=3)) is None
    return out


@pytest.fixture
def out(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "out"))


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def newest(out: Path) -> Checkpoint:
    checkpoint = CheckpointStore(out / "checkpoints").latest()
    assert checkpoint is not None and checkpoint.step == 3
    return checkpoint


@pytest.mark.slow
def test_the_command_prints_one_line_and_ends_with_status_2(shards: Path, tmp_path: Path) -> None:
    process = Run(write_document(tmp_path / "config.yaml", document(shards, tmp_path)), tmp_path).start()
    text = process.expect(2)
    assert text == f"medformer: error: {tmp_path} exists already; choose another out, or pass --resume to go on\n"


@pytest.mark.parametrize(
    "override, message",
    [
        ("optimizer.learning_rat=1", "unknown key 'optimizer.learning_rat'"),
        ("schedule.epoch=3", "unknown key 'schedule.epoch'; did you mean 'epochs'?"),
        ("objectives.simclrr={}", "unknown objective 'simclrr'; did you mean 'simclr'?"),
        ("objectives.byol.taau=1", "unknown key 'taau'; did you mean 'tau'?"),
        ("deepspeed.gradient_clipping=1", "'gradient_clipping' is set by 'optimizer.clip_norm'"),
        ("seed=many", "seed"),
        ("nonsense", "an override has the form key=value"),
    ],
)
def test_a_wrong_document_names_the_key(
    override: str, message: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_document(tmp_path / "config.yaml", document(shards, tmp_path / "out"))
    assert main([str(config), override]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("medformer: error: ") and message in printed and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes, error, message",
    [
        (
            {"model": {"name": "medformer_nanoo"}},
            ConfigError,
            "unknown model 'medformer_nanoo'; did you mean 'medformer_nano'",
        ),
        (
            {"model": {"kwargs": {"embed_dm": 3}}},
            ConfigError,
            "model.kwargs: medformer_nano cannot be made: .*embed_dm",
        ),
        ({"model": {"kwargs": {"num_heads": 0}}}, ConfigError, "model.kwargs: medformer_nano cannot be made"),
        ({"data": {"datasets": [{"path": "absent"}]}}, DataError, "absent"),
        (
            {"optimizer": {"name": "lars"}, "deepspeed": {"zero_optimization": {"stage": 1}}},
            ConfigError,
            "lars .*ZeRO stage 1",
        ),
        ({"deepspeed": {"zero_optimization": {"stage": 4}}}, ConfigError, "4 is not supported; expected 0, 1, 2 or 3"),
        (
            {"deepspeed": {"zero_optimization": {"stage": 1, "reduce_bucket_size": "big"}}},
            ConfigError,
            "deepspeed: refuses",
        ),
    ],
)
def test_a_run_that_cannot_start_leaves_nothing(
    changes: dict[str, Any], error: type[Exception], message: str, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        run(short(shards, tmp_path / "out", **changes), GroupRuntime())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": {"name": "medformer_nanoo"}}, "model.name: unknown model 'medformer_nanoo'"),
        (
            {"model": {"kwargs": {"embed_dm": 3}}},
            "model.kwargs: medformer_nano cannot be made: it takes no argument 'embed_dm'; did you mean 'embed_dim'",
        ),
        ({"optimizer": {"name": "lars"}, "deepspeed": {"zero_optimization": {"stage": 1}}}, "lars .*ZeRO stage 1"),
    ],
)
def test_what_a_document_says_by_itself_is_told_before_data_that_are_not_there(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        preflight.check(short(tmp_path / "absent", tmp_path / "out", **changes), 1, resume=False)
    with pytest.raises(DataError, match="absent"):
        preflight.check(short(tmp_path / "absent", tmp_path / "out"), 1, resume=False)


def test_a_document_with_two_errors_is_two_lines_each_with_its_key(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_document(tmp_path / "config.yaml", document(shards, tmp_path / "out"))
    assert main([str(config), "schedule.epoch=3", "optimizer.lr=-1"]) == 2
    first, second = sorted(capsys.readouterr().err.splitlines())
    assert first == f"medformer: error: {config}: optimizer.lr: Input should be greater than 0; found -1"
    assert second == f"medformer: error: {config}: unknown key 'schedule.epoch'; did you mean 'epochs'?"


@pytest.mark.parametrize("batch_size, world_size", [(1, 1), (3, 2), (16, 64)])
def test_too_few_images_for_the_workers(batch_size: int, world_size: int, shards: Path, tmp_path: Path) -> None:
    runtime = GroupRuntime()
    runtime.world_size = world_size
    config = short(shards, tmp_path / "out", data={"datasets": [{"path": str(shards)}], "batch_size": batch_size})
    with pytest.raises(ConfigError, match=rf"{shards}: .* too few for {world_size} workers"):
        run(config, runtime)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_refused_and_left_alone(shards: Path, out: Path) -> None:
    before = content_of(out)
    with pytest.raises(ConfigError, match=f"{out} exists already"):
        run(short(shards, out), GroupRuntime())
    assert content_of(out) == before


def test_another_configuration_is_refused_and_nothing_changes(shards: Path, out: Path) -> None:
    before = content_of(out)
    with pytest.raises(
        CheckpointError, match=r"another configuration \(seed: 3 then, 4 now\); a resumed run may only change out, cl"
    ):
        run(short(shards, out, seed=4), GroupRuntime(), resume=True)
    assert content_of(out) == before


def test_place_keys_may_change(shards: Path, out: Path) -> None:
    config = short(shards, out, log_every_steps=2, checkpoint={"every_steps": 100, "keep": 1})
    assert run(config, GroupRuntime(), resume=True) == out / "bundle"
    assert yaml.safe_load((out / "config.yaml").read_text())["log_every_steps"] == 2


def reseal(checkpoint: Checkpoint, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a checkpoint's state, and its digest with it."""
    path = checkpoint.folder / "state.json"
    change(state := json.loads(path.read_text()))
    path.write_text(json.dumps(state))
    digests = json.loads((checkpoint.folder / "sha256.json").read_text())
    (checkpoint.folder / "sha256.json").write_text(json.dumps(digests | {"state.json": sha256_of(path)}))


def test_a_checkpoint_of_another_model_size_names_the_tensor(shards: Path, out: Path) -> None:
    larger = short(shards, out, model={"kwargs": {"embed_dim": 64, "depth": 1, "num_heads": 2, "latents": 2}})
    reseal(newest(out), lambda state: state.update(config_sha256=run_digest(larger)))
    before = content_of(out)
    with pytest.raises(CheckpointError, match=r"cannot be loaded: .*size mismatch for backbone\.\S+"):
        run(larger, GroupRuntime(), resume=True)
    assert content_of(out) == before


def test_optimizer_state_that_cannot_be_cut_anew_needs_as_many_workers(shards: Path, out: Path) -> None:
    ordered = short(shards, out, deepspeed={"zero_optimization": {"stage": 1, "round_robin_gradients": True}})
    reseal(newest(out), lambda state: state.update(world_size=2, zero_stage=1, config_sha256=run_digest(ordered)))
    with pytest.raises(CheckpointError, match="round_robin_gradients .* go on with 2 workers, not 1"):
        run(ordered, GroupRuntime(), resume=True)
    ranged = ordered.model_copy(update={"cluster": ordered.cluster.model_copy(update={"workers": "1:4"})})
    with pytest.raises(ConfigError, match=r"cluster\.workers: 1:4: .*round_robin_gradients"):
        preflight.check(ranged, 4, resume=False, least=1)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["state.json", "rng-rank-0.pt", "engine/mp_rank_00_model_states.pt", "sha256.json"])
@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_named_with_the_way_out(
    name: str, damage: Callable[[Path], None], shards: Path, out: Path
) -> None:
    checkpoint = newest(out)
    damage(checkpoint.folder / name)
    before = content_of(out)
    with pytest.raises(
        CheckpointError, match=rf"damaged.* remove {checkpoint.folder} to go on from the checkpoint before"
    ):
        run(short(shards, out), GroupRuntime(), resume=True)
    assert content_of(out) == before


def test_the_way_out_leads_to_the_end(shards: Path, out: Path) -> None:
    shutil.rmtree(newest(out).folder)
    assert run(short(shards, out), GroupRuntime(), resume=True)


def test_hidden_checkpoints_are_cleaned_and_never_loaded(shards: Path, out: Path) -> None:
    stale = out / "checkpoints" / ".step-00000099-attempt-0.partial"
    shutil.copytree(newest(out).folder, stale)
    assert CheckpointStore(out / "checkpoints").latest() == newest(out)
    runtime = GroupRuntime()
    assert run(short(shards, out), runtime, resume=True)
    assert runtime.reported == [4]
    assert not stale.exists()


def test_a_full_disk_keeps_the_checkpoint_before(shards: Path, out: Path, tmp_path: Path) -> None:
    checkpoints = CheckpointStore(out / "checkpoints").complete()
    before = content_of(out / "checkpoints")
    largest = max(len(content) for content in before.values())
    content = document(shards, out, schedule={"max_steps": STEPS}, checkpoint={"every_steps": 2})
    resumed = Run(write_document(tmp_path / "config.yaml", content), out)
    # What is larger than the limit cannot be written, as on a disk that is nearly full.
    limits = (largest // 2, largest // 2)
    text = resumed.start("--resume", preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits)).expect(2)
    (line,) = [line for line in text.splitlines() if "error" in line.lower()]
    assert line.startswith(f"medformer: error: cannot write checkpoint {out / 'checkpoints' / 'step-00000004'}")
    assert "Traceback" not in text
    assert content_of(out / "checkpoints") == before
    assert CheckpointStore(out / "checkpoints").complete() == checkpoints
    assert [path.name for path in (out / "checkpoints").iterdir() if path.name.startswith(".")] == []


def test_a_damaged_shard_is_named(shards: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shards, tmp_path / "shards"))
    shard = next(folder.glob("*train*.tar"))
    content = bytearray(shard.read_bytes())
    for position in range(len(content) // 4, len(content), 997):
        content[position] ^= 255
    shard.write_bytes(content)
    with pytest.raises(DataError, match=rf"{shard}: damaged: the pixels of sample \S+ fail their CRC-32"):
        run(short(folder, tmp_path / "out"), GroupRuntime())


@pytest.fixture
def brittle() -> Iterator[None]:
    """An objective whose loss is not a number after the second step."""

    @objective("brittle")
    class Brittle(OBJECTIVES["simclr"]):
        def forward(self, backbone: Medformer, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
            outcome = super().forward(backbone, views)
            return {"loss": outcome["loss"] * (math.nan if self.training_progress >= 0.5 else 1.0)}

        training_progress = 0.0

        def after_step(self, backbone: Medformer, progress: float) -> None:
            self.training_progress = progress

    yield
    del OBJECTIVES["brittle"]


def test_a_loss_that_is_not_a_number_is_named_and_the_good_checkpoint_kept(
    brittle: None, shards: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    objectives = {"byol": {"hidden": 8, "out": 4}, "brittle": {"hidden": 8, "out": 4}}
    config = short(shards, out, objectives=objectives, checkpoint={"every_steps": 1, "keep": 1})
    with pytest.raises(TrainingError, match="step 3: brittle/loss is nan"):
        run(config, GroupRuntime())
    (kept,) = CheckpointStore(out / "checkpoints").complete()
    assert kept.step == 2
    state = torch.load(kept.folder / "engine" / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert not (out / "bundle").exists()


def test_an_absurd_learning_rate_is_noticed(shards: Path, tmp_path: Path) -> None:
    config = short(shards, tmp_path / "out", optimizer={"name": "sgd", "lr": 1e38, "clip_norm": 0})
    with pytest.raises(TrainingError, match=r"step \d: (\S*loss is (nan|inf)|gradients exploded)"):
        run(config, GroupRuntime())
    assert not list((tmp_path / "out" / "checkpoints").iterdir()) and not (tmp_path / "out" / "bundle").exists()


def test_a_collapse_stops_the_run_and_keeps_its_checkpoint(shards: Path, tmp_path: Path) -> None:
    config = short(shards, tmp_path / "out", health={"min_embedding_std": 0.99, "patience": 3})
    with pytest.raises(TrainingError, match="step 3: representation collapsed"):
        run(config, GroupRuntime())
    assert [checkpoint.step for checkpoint in CheckpointStore(tmp_path / "out" / "checkpoints").complete()] == [2]
    assert not (tmp_path / "out" / "bundle").exists()


def test_a_record_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    record = MetricsFile(tmp_path / "metrics.jsonl", 0)
    record.path.unlink()
    record.path.mkdir()
    with pytest.raises(MedformerError, match=r"cannot write .*metrics\.jsonl"):
        record.append({"loss": 1.0}, 1)
