"""The backbone as a graph gives what it gives in Python, for batches and sizes other than those it was traced with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data_shards.support.errors import MedformerError
from data_shards.vocabulary import Modality, Organ, Task
from pretrain.backbone.export import export_onnx, export_program
from pretrain.metadata import Metadata
from tests.pretrain.test_backbone import images, small
from tests.pretrain.test_volumes import trained_in_depth, volumes

SIZES = {2: [(2, 3, 14, 9), (1, 3, 16, 32)], 3: [(3, 3, 8, 5, 12), (1, 3, 6, 11, 7)]}


def batch_of(shape: tuple[int, ...]) -> tuple[Tensor, Metadata]:
    batch = images(*shape) if len(shape) == 4 else volumes(*shape)
    ids = torch.arange(shape[0])
    return batch, Metadata(ids + int(Organ.chest), ids + int(Modality.ct), ids + int(Task.binary))


@pytest.mark.parametrize("axes", [2, 3])
def test_an_exported_program_takes_any_batch_and_size(axes: int) -> None:
    # Patches are cut from sizes that they fit and from others; the stem of convolutions is in the test below.
    model = trained_in_depth(small(stem="patch", depth=1)).train()
    model.head_drop.eval()
    program = export_program(model, axes, dense=True).module()
    assert model.training and not model.head_drop.training
    model.eval()
    for shape in SIZES[axes]:
        batch, metadata = batch_of(shape)
        embedding, tokens = program(batch, metadata.organ_B, metadata.modality_B, metadata.task_B)
        expected = model.features(batch, metadata, dense=True)
        torch.testing.assert_close(embedding, expected.embedding_BD, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(tokens, expected.tokens_BTD, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axes", [pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.slow
def test_onnx_runtime_gives_what_python_gives(axes: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = trained_in_depth(small(depth=1))
    path = export_onnx(model, tmp_path / "backbone.onnx", axes, dense=True, spacing=True)
    assert [file.name for file in tmp_path.iterdir()] == ["backbone.onnx"]
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["organ"].split(",") == [entry.name for entry in Organ]
    for shape in SIZES[axes]:
        batch, metadata = batch_of(shape)
        spacing = torch.full((shape[0], axes), 1.5)
        spacing[0, 0] = torch.nan  # unknown
        inputs = {
            "images": batch,
            "organ": metadata.organ_B,
            "modality": metadata.modality_B,
            "task": metadata.task_B,
            "spacing_mm": spacing,
        }
        found = session.run(["embedding", "tokens"], {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad():
            expected = model.features(batch, metadata, spacing, dense=True)
        np.testing.assert_allclose(found[0], expected.embedding_BD, atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(found[1], expected.tokens_BTD, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("arguments, message", [({"axes": 4}, "axes 4"), ({"channels": 0}, "channels 0")])
def test_graphs_that_cannot_be_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_program(small(), **arguments)


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(MedformerError, match="cannot write"):
        export_onnx(small(depth=1), tmp_path / "missing" / "backbone.onnx")
