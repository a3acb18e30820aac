"""A training step: one graph for ``torch.compile``, nothing that waits for the device, and bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data_shards.vocabulary import Modality, Organ, Task
from pretrain.backbone import Medformer, StudyImage
from pretrain.metadata import Metadata
from tests.pretrain.test_backbone import images, small
from tests.pretrain.test_volumes import trained_in_depth, volumes

Step = Callable[..., Tensor]
KINDS = ["planes", "volumes", "studies"]


def inputs(rows: int, device: str = "cpu") -> list[Tensor]:
    """Planes, volumes, organ, modality, task, spacing of the volumes, and which subjects have the planes."""
    ids = [torch.full((rows,), int(entry)) for entry in (Organ.chest, Modality.ct, Task.binary)]
    spacing = torch.full((rows, 3), 1.5)
    spacing[0, 0] = torch.nan
    given = [images(rows, 3, 12, 9), volumes(rows, 1, 6, 7, 5), *ids, spacing, torch.arange(rows) % 2 == 0]
    return [tensor.to(device) for tensor in given]


def step_of(model: Medformer, kind: str) -> Step:
    def step(
        planes: Tensor, boxes: Tensor, organ: Tensor, modality: Tensor, task: Tensor, spacing: Tensor, present: Tensor
    ) -> Tensor:
        metadata = Metadata(organ, modality, task)
        if kind == "studies":
            study = [StudyImage(boxes, modality, spacing), StudyImage(planes, None, (1.0, 2.0), present)]
            found = model.study(study, metadata, dense=True)
            return found.embedding_BD.sin().mean() + sum(tokens.square().mean() for tokens in found.tokens)
        batch, distance = (planes, None) if kind == "planes" else (boxes, spacing)
        features = model.features(batch, metadata, distance, dense=True)
        return features.embedding_BD.sin().mean() + features.tokens_BTD.square().mean()

    return step


def gradients(model: Medformer, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize(
    "kind, checkpointing",
    [
        pytest.param("planes", False, marks=pytest.mark.slow),
        ("volumes", True),
        pytest.param("studies", True, marks=pytest.mark.slow),
    ],
)
def test_a_step_compiles_to_one_graph_that_serves_every_batch_size(kind: str, checkpointing: bool) -> None:
    torch._dynamo.reset()
    model = trained_in_depth(small(depth=1)).train()
    model.set_grad_checkpointing(checkpointing)
    step, counter = step_of(model, kind), CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(step, backend=counter, fullgraph=True)
    for rows in (3, 5):
        batch = inputs(rows)
        for tensor in batch:
            torch._dynamo.mark_dynamic(tensor, 0)
        loss, expected = compiled(*batch), step(*batch)
        torch.testing.assert_close(loss, expected)
        found, wanted = gradients(model, loss), gradients(model, expected)
        assert found.keys() == wanted.keys() == dict(model.named_parameters()).keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)
        assert counter.frame_count == 1


class OnOneDevice(TorchDispatchMode):
    """Fails where a value would have to come from the device, or tensors to go from one to another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves([args, kwargs, found]):
            assert not isinstance(tensor, Tensor) or tensor.device.type == "meta", f"{func} uses {tensor.device}"
        return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_never_waits_for_the_device(kind: str) -> None:
    """Tensors of the meta device have no values: whatever asks for one fails."""
    model = small(drop_path_rate=0.1, drop_rate=0.1, cross_attends=2).train().to("meta")
    batch = inputs(3, "meta")
    with OnOneDevice():
        step_of(model, kind)(*batch).backward()
        # Without metadata as well, and as a classifier.
        model.reset_classifier(4, "avg")
        model(batch[kind == "volumes"]).sum().backward()
        model.forward_intermediates(batch[kind == "volumes"], 2, return_prefix_tokens=True)


def test_what_would_wait_for_the_device_is_found() -> None:
    with OnOneDevice(), pytest.raises(RuntimeError, match="meta"):
        torch.ones(2, device="meta").sum().item()
    with OnOneDevice(), pytest.raises(AssertionError, match="cpu"):
        torch.tensor([1.0, 2.0]).to("meta")


@pytest.mark.gpu
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_a_gpu_never_waits_for_it(kind: str, checkpointing: bool) -> None:
    model = small(drop_path_rate=0.1).train().to("cuda")
    model.set_grad_checkpointing(checkpointing)
    batch, step = inputs(4, "cuda"), step_of(model, kind)
    step(*batch).backward()  # libraries that start up may wait
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss = step(*batch)
        loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_stays_near_float32_and_its_gradients_are_finite(kind: str) -> None:
    model = trained_in_depth(small(embed_dim=64)).train()
    batch, step = inputs(4), step_of(model, kind)
    wanted = gradients(model, step(*batch))
    expected = model.features(batch[0]).embedding_BD
    with torch.autocast("cpu", torch.bfloat16):
        loss = step(*batch)
        embedding = model.features(batch[0]).embedding_BD
    found = gradients(model, loss)
    relative = (embedding.float() - expected).norm() / expected.norm()
    assert relative < 8 * torch.finfo(torch.bfloat16).eps, f"{float(relative):.3g}"
    assert all(gradient.isfinite().all() for gradient in found.values())
    first, second = (torch.cat([value.flatten() for value in part.values()]) for part in (found, wanted))
    assert torch.nn.functional.cosine_similarity(first, second, dim=0) > 0.99
    assert found.keys() == wanted.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_in_bfloat16_gives_bfloat16(kind: str) -> None:
    model = small(num_classes=3).to(torch.bfloat16)
    batch = inputs(2)[kind == "volumes"].to(torch.bfloat16)
    assert model(batch).dtype == torch.bfloat16 and model(batch).isfinite().all()
