"""Why tensors of a file are not those of a network, in one line."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def misfit(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """What keeps the tensors from being those of a network; None where all have their names and shapes.

    Args:
        tensors: of the file.
        own: of the network, in its order, such as its ``state_dict()``.

    Returns:
        The first tensor that is missing, of another shape or too many, and the shapes.
    """
    for name, tensor in own.items():
        if name not in tensors:
            return f"tensor {name} is missing; the file is of another model"
        if tensors[name].shape != tensor.shape:
            return (
                f"tensor {name} has shape {tuple(tensors[name].shape)}, the model expects {tuple(tensor.shape)}; the "
                "file is of another model size"
            )
    unknown = sorted(tensors.keys() - own.keys())
    return f"tensor {unknown[0]} is not in the model; the file is of another model" if unknown else None
