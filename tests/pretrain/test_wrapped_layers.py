"""Linear layers are called, so that what is wrapped around them or hooked into them takes part."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pretrain.backbone import Medformer, StudyImage
from pretrain.backbone.attention import Attention
from pretrain.backbone.plain import is_plain

RANK = 2
VARIANTS = [
    *(
        # At one width the sizes differ in their numbers of heads and latents: the least and the most of them tell.
        pytest.param(
            {"model_name": name, "embed_dim": 48, "depth": 1},
            marks=[] if name.endswith(("_nano", "_large")) else [pytest.mark.slow],
        )
        for name in timm.list_models("medformer_*")
    ),
    {"stem": "patch", "stride": 4, "embed_dim": 32, "depth": 1},
    {"stem": "pixel", "stride": 1, "embed_dim": 32, "depth": 1, "embedding": "pooled_tokens"},
    {"embed_dim": 32, "num_heads": 1, "depth": 2, "cross_attends": 2, "latents": 4, "embedding": "reads_tokens"},
    {"embed_dim": 32, "num_heads": 1, "depth": 1, "latents": 1, "latents_per_entry": 0, "num_classes": 3},
]


class LowRank(nn.Module):
    """A linear layer and an adapter of low rank beside it (Hu et al., ICLR 2022), which counts its calls."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.calls = base, 0
        scale = base.in_features**-0.5
        self.a = nn.Parameter(torch.randn(RANK, base.in_features, dtype=base.weight.dtype) * scale)
        self.b = nn.Parameter(torch.randn(base.out_features, RANK, dtype=base.weight.dtype) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.base(x) + (x @ self.a.T) @ self.b.T


def backbone(model_name: str = "medformer_nano", **arguments: Any) -> Medformer:
    torch.manual_seed(0)
    model = timm.create_model(model_name, **{"num_classes": 0, **arguments}).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in ("tags", "adapter.proj_depth") or name.endswith("bias"):
                parameter.normal_(std=0.2)
    return model


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def outputs(model: Medformer) -> list[Tensor]:
    """Everything that a backbone makes: of planes and volumes, of a study, of places, and classes where there are."""
    generator = torch.Generator().manual_seed(1)
    planes, volumes = (torch.rand(2, 1, *size, generator=generator).double() for size in ((18, 21), (5, 13, 12)))
    one_each = torch.tensor([[2.0, 1.5, 1.0], [4.0, 1.0, torch.nan]], dtype=torch.float64)
    with torch.no_grad():
        found = [model.features(images, dense=True) for images in (planes, volumes)]
        told = model.features(volumes, spacing_mm=one_each)
        study = model.study([StudyImage(planes), StudyImage(volumes, spacing_mm=(2.0, 1.0, 1.0))])
        places = [model.adapter.at(torch.rand(1, 4, axes, generator=generator).double() * 90) for axes in (2, 3)]
        dense = [features.tokens_BTD for features in found if features.tokens_BTD is not None]
        return [f.embedding_BD for f in (*found, told, study)] + dense + places + [model(planes)]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(str(value) for value in variant.values()))
def test_every_linear_layer_is_called_and_gives_what_the_merged_weights_predict(variant: dict[str, Any]) -> None:
    model = backbone(**variant)
    before, merged = outputs(model), copy.deepcopy(model)
    wrapped = {name: LowRank(layer) for name, layer in linears(model).items()}
    with torch.no_grad():
        for name, layer in linears(merged).items():
            layer.weight += wrapped[name].b @ wrapped[name].a
    for name, layer in wrapped.items():
        owner, _, own = name.rpartition(".")
        setattr(model.get_submodule(owner), own, layer)
    found = outputs(model)
    assert not [name for name, layer in wrapped.items() if not layer.calls]
    for after, expected, old in zip(found, outputs(merged), before, strict=True):
        torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-6)
        assert (after - old).abs().max() > 1e-2


class Doubled(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def by_parametrization(layer: nn.Linear) -> None:
    for name in ("weight", "bias"):
        parametrize.register_parametrization(layer, name, Doubled())


def by_hook(layer: nn.Linear) -> None:
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)


def by_forward(layer: nn.Linear) -> None:
    forward = layer.forward
    layer.forward = lambda x: 2 * forward(x)


@pytest.mark.parametrize("double", [by_parametrization, by_hook, by_forward])
def test_what_has_taken_hold_of_a_layer_is_heard(double: Callable[[nn.Linear], None]) -> None:
    model = backbone(embed_dim=32, num_heads=1, depth=1, latents=1, latents_per_entry=0)
    expected, before = copy.deepcopy(model), outputs(model)
    for name, layer in linears(expected).items():
        with torch.no_grad():
            layer.weight *= 2
            layer.bias *= 2
        double(linears(model)[name])
    for after, right, old in zip(outputs(model), outputs(expected), before, strict=True):
        torch.testing.assert_close(after, right, rtol=1e-6, atol=1e-6)
        assert (after - old).abs().max() > 1e-2


def test_untouched_layers_are_plain_and_the_short_cuts_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone(embed_dim=32, num_heads=1, depth=1, latents=1, latents_per_entry=0)
    assert all(is_plain(layer) for layer in linears(model).values())
    called: list[str] = []
    absorbed = Attention._absorbed
    monkeypatch.setattr(Attention, "_absorbed", lambda self, *inputs: called.append("kv") or absorbed(self, *inputs))
    outputs(model)
    assert called


@pytest.mark.parametrize("axes", [2, 3])
def test_an_adapter_on_the_projection_leaves_every_parameter_a_gradient(axes: int) -> None:
    model = backbone(embed_dim=32, depth=1, latents=2)
    model.adapter.proj = LowRank(model.adapter.proj)
    embedding_BD = model.features(torch.rand(2, 1, *[9] * axes).double()).embedding_BD
    embedding_BD[:, :5].square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.adapter.parameters())
    assert model.adapter.proj.b.grad.abs().sum() > 0
    assert (model.adapter.proj_depth.grad.abs().sum() > 0) == (axes == 3)
