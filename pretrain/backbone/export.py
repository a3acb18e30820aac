"""The backbone as a graph: for ``torch.export``, and for ONNX and what runs it.

One graph takes batches of any number of planes (or of volumes) of any size: images and vocabulary ids go in, the
embedding and, when asked for, the dense tokens come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from data_shards.support.errors import MedformerError
from pretrain.backbone.latents import COLLECTIONS
from pretrain.backbone.modes import evaluating
from pretrain.backbone.timm_model import TimmModel
from pretrain.metadata import Metadata

# A protocol buffer cannot hold more than 2 GiB; the weights of a larger network go into a file beside it.
_ONE_FILE_BYTES = 1_900_000_000


class Graph(nn.Module):
    """:meth:`~pretrain.backbone.perceiver.Medformer.features` with tensors alone as inputs and outputs.

    Args:
        backbone: what it calls.
        dense: whether the dense tokens are an output.
        spacing: whether the spacing of voxels is an input.
    """

    def __init__(self, backbone: TimmModel, dense: bool, spacing: bool) -> None:
        super().__init__()
        self.backbone, self.dense = backbone, dense
        self.inputs = ["images", "organ", "modality", "task", *(["spacing_mm"] if spacing else [])]
        self.outputs = ["embedding", *(["tokens"] if dense else [])]

    def forward(
        self, images: Tensor, organ_B: Tensor, modality_B: Tensor, task_B: Tensor, spacing_mm: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The embedding ``B, D``, and the dense tokens ``B, T, D`` when they are an output."""
        metadata = Metadata(organ_B, modality_B, task_B)
        features = self.backbone.features(images, metadata, spacing_mm, dense=self.dense)
        if features.tokens_BTD is None:
            return (features.embedding_BD,)
        return features.embedding_BD, features.tokens_BTD


def export_program(
    backbone: TimmModel, axes: int = 2, *, channels: int | None = None, dense: bool = False, spacing: bool = False
) -> ExportedProgram:
    """The backbone as a program of ``torch.export``; its ``module()`` is called like :class:`Graph`.

    Args:
        backbone: its weights; it stays as it is.
        axes: 2 for planes, 3 for volumes.
        channels: of the images; the default is the canonical number.
        dense: whether the dense tokens ``B, T, D`` are an output beside the embedding ``B, D``.
        spacing: whether the distance of voxels ``spacing_mm``, ``B, axes`` with NaN where unknown, is an input.

    Returns:
        A program for any batch and for images longer than a token along every axis.

    Raises:
        ValueError: ``axes`` is neither 2 nor 3, ``channels`` is below 1, or ``spacing`` is asked of a network with
            ``voxel_mm``.
    """
    graph, inputs, shapes = _traced(backbone, axes, channels, dense, spacing)
    with evaluating(graph), torch.no_grad():
        return torch.export.export(graph, inputs, dynamic_shapes=shapes)


def export_onnx(
    backbone: TimmModel,
    path: Path,
    axes: int = 2,
    *,
    channels: int | None = None,
    dense: bool = False,
    spacing: bool = False,
) -> Path:
    """Write the backbone as an ONNX file, with inputs ``images``, ``organ``, ``modality``, ``task``.

    The names that the ids stand for are in its metadata: ``organ`` is ``unknown,chest,...``, in the order of the ids.

    Args:
        backbone: see :func:`export_program`, as are the other arguments.
        path: the file to write; weights beyond 2 GB go into ``path`` with ``.data`` appended.
        axes: 2 for planes, 3 for volumes.
        channels: of the images.
        dense: whether ``tokens`` is an output beside ``embedding``.
        spacing: whether ``spacing_mm`` is an input.

    Returns:
        ``path``.

    Raises:
        ValueError: see :func:`export_program`.
        MedformerError: a package for ONNX is not installed, or the disk refuses.
    """
    if not path.parent.is_dir():  # before the graph is made, which takes long
        raise MedformerError(f"{path}: cannot write: there is no folder {path.parent}")
    program = export_program(backbone, axes, channels=channels, dense=dense, spacing=spacing)
    graph = Graph(backbone, dense, spacing)
    try:
        onnx = torch.onnx.export(
            program, dynamo=True, input_names=graph.inputs, output_names=graph.outputs, verbose=False
        )
        assert onnx is not None
        for name, entries in COLLECTIONS.items():
            onnx.model.metadata_props[name] = ",".join(entry.name for entry in entries)
        size = sum(tensor.numel() * tensor.element_size() for tensor in backbone.state_dict().values())
        onnx.save(path, external_data=size > _ONE_FILE_BYTES)
    except ImportError as error:
        raise MedformerError(f"export to ONNX: {error.name or error} is missing: pip install onnx onnxscript") from None
    except OSError as error:
        raise MedformerError(f"{path}: cannot write: {error}") from None
    return path


def _traced(
    backbone: TimmModel, axes: int, channels: int | None, dense: bool, spacing: bool
) -> tuple[Graph, tuple[Tensor, ...], tuple[dict[int, object], ...]]:
    """What is exported, inputs to trace it with, and which of their axes may be of any length."""
    channels = backbone.in_chans if channels is None else channels
    if axes not in (2, 3):
        raise ValueError(f"axes {axes}: 2 for planes or 3 for volumes")
    if channels < 1:
        raise ValueError(f"channels {channels}: at least one is expected")
    if spacing and backbone.voxel_mm is not None:
        raise ValueError(
            f"a network with voxel_mm {backbone.voxel_mm} and spacing as an input: a graph cannot choose the size of "
            "its images; bring them to that spacing before, and export without"
        )
    stride, like = backbone.stride, backbone.query
    # Lengths that differ and are no multiple of the stride, lest the graph takes either for granted.
    size: Sequence[int] = [(axis + 3) * stride + 1 for axis in range(axes)]
    graph = Graph(backbone, dense, spacing)
    inputs = [torch.zeros(2, channels, *size, dtype=like.dtype, device=like.device)]
    inputs += [torch.zeros(2, dtype=torch.int64, device=like.device) for _ in range(3)]
    shapes: list[dict[int, object]] = [{0: Dim.DYNAMIC, **{2 + axis: Dim.DYNAMIC for axis in range(axes)}}]
    shapes += [{0: Dim.DYNAMIC} for _ in range(3)]
    if spacing:
        inputs.append(torch.ones(2, axes, device=like.device))
        shapes.append({0: Dim.DYNAMIC})
    return graph, tuple(inputs), tuple(shapes)
