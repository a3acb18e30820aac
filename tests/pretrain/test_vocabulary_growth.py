"""The vocabulary is append-only: what was saved with fewer entries opens, and nothing else of it changes."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from data_shards.support.errors import CheckpointError
from pretrain.backbone import Medformer
from pretrain.backbone.latents import COLLECTIONS
from pretrain.bundle import load_bundle, save_bundle
from pretrain.checkpoint import CheckpointStore
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.metadata import Metadata
from tests.pretrain.engine_ranks import resumed_under_zero
from tests.pretrain.ranks import run_ranks
from tests.pretrain.runs import GroupRuntime, document
from tests.pretrain.test_backbone import SMALL, images, small

TABLES = ["tags", *(f"latents.collections.{name}" for name in COLLECTIONS)]


def grow(patch: pytest.MonkeyPatch, entries: int = 2) -> None:
    """Let every enumeration of the vocabulary have further members, as a later version would."""
    for name, enumeration in list(COLLECTIONS.items()):
        members = {member.name: member.value for member in enumeration}
        members |= {f"later_{number}": len(enumeration) + number for number in range(entries)}
        patch.setitem(COLLECTIONS, name, IntEnum(enumeration.__name__, members))


def trained() -> Medformer:
    """Every row of every table differs from the others."""
    model = small()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in TABLES:
                parameter.normal_()
    return model


@pytest.fixture
def old_bundle(tmp_path: Path) -> tuple[Medformer, Path]:
    model = trained()
    return model, save_bundle(tmp_path / "bundle", model, "medformer_nano", SMALL, {}, {})


def opened_by_us(folder: Path) -> Medformer:
    return load_bundle(folder).backbone


def opened_by_timm(folder: Path) -> Medformer:
    return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()


def opened_by_torch(folder: Path) -> Medformer:
    model = small()
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return model


@pytest.mark.parametrize("opened", [opened_by_us, opened_by_timm, opened_by_torch])
def test_a_bundle_of_a_smaller_vocabulary_opens_and_new_entries_are_as_unknown(
    opened: Any, old_bundle: tuple[Medformer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, folder = old_bundle
    grow(monkeypatch)
    new = opened(folder)
    for name, tensor in old.state_dict().items():
        found = new.state_dict()[name]
        if name not in TABLES:
            assert torch.equal(found, tensor), name
            continue
        assert torch.equal(found[:-2], tensor), name
        assert torch.equal(found[-2:], tensor[:1].expand_as(found[-2:])), name

    batch, ids = images(3), torch.tensor([0, 2, 5])
    with torch.no_grad():
        expected = old.features(batch, Metadata(ids, ids, ids)).embedding_BD
        assert torch.equal(new.features(batch, Metadata(ids, ids, ids)).embedding_BD, expected)
        last = Metadata(*(torch.full((3,), len(COLLECTIONS[name]) - 1) for name in ("organ", "modality", "task")))
        unknown = old.features(batch, Metadata.uniform(3)).embedding_BD
        assert torch.equal(new.features(batch, last).embedding_BD, unknown)


@pytest.mark.parametrize("name", TABLES)
def test_a_new_network_begins_its_later_entries_as_unknown_and_all_else_as_before(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    before = timm.create_model("medformer_nano", num_classes=0, **SMALL).state_dict()
    grow(monkeypatch)
    torch.manual_seed(5)
    after = timm.create_model("medformer_nano", num_classes=0, **SMALL).state_dict()
    assert torch.equal(after[name][:-2], before[name])
    assert torch.equal(after[name][-2:], before[name][:1].expand_as(after[name][-2:]))
    assert all(torch.equal(after[other], tensor) for other, tensor in before.items() if other not in TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_strict_about_everything_but_missing_last_rows(
    name: str, old_bundle: tuple[Medformer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = old_bundle
    file = folder / "model.safetensors"
    tensors = load_file(file)
    rows = tensors[name]
    newer = rf"is of a vocabulary of {len(rows) + 1} entries, .* knows {len(rows)}; .* newer"
    cases = [(rows[..., :-1], "has shape"), (rows[:0], "has shape"), (torch.cat([rows, rows[:1]]), newer)]
    for wrong, told in cases:
        save_file({**tensors, name: wrong.contiguous()}, file)
        with pytest.raises(CheckpointError, match=rf"model\.safetensors: tensor {name} {told}"):
            load_bundle(folder)


CHANGES: dict[str, Any] = {"schedule": {"max_steps": 3}, "checkpoint": {"every_steps": 3}}


@pytest.mark.usefixtures("process_group")
def test_a_run_goes_on_with_a_larger_vocabulary_to_the_same_weights(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = PretrainConfig.model_validate(document(shards, tmp_path / "whole", **CHANGES))
    run(whole, GroupRuntime())
    config = PretrainConfig.model_validate(document(shards, tmp_path / "grown", **CHANGES))
    assert run(config, GroupRuntime(stop_after=2)) is None
    with monkeypatch.context() as patch:
        grow(patch)
        assert run(config, GroupRuntime(), resume=True)
    before, after = (load_file(config.out / "bundle" / "model.safetensors") for config in (whole, config))
    for name, tensor in before.items():
        assert torch.equal(after[name][: len(tensor)] if name in TABLES else after[name], tensor), name
        assert len(after[name]) == len(tensor) + 2 * (name in TABLES)


@pytest.mark.slow
def test_a_run_whose_optimizer_is_split_over_the_workers_says_that_it_cannot(shards: Path, tmp_path: Path) -> None:
    for found in run_ranks(resumed_under_zero, 2, shards, tmp_path / "out"):
        assert "is from before an entry joined the vocabulary" in found and "ZeRO stage 1" in found
    assert CheckpointStore(tmp_path / "out" / "checkpoints").latest() is not None
