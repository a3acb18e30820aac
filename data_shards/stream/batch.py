"""What one rank receives in one step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The rows of one rank of a global batch; all rows are of one dataset.

    ``b`` is the number of rows of this rank, which may be 0 when there are more ranks than samples.

    Attributes:
        images: ``b,C,H,W`` (``b,C,D,H,W`` for volumes) in the native dtype of the dataset.
        label_BL: int64 or float64; -1 or NaN where a sample is not labelled, ``L`` is 0 when none is.
        sample_B: index of each row within its dataset, int64: the identity of the sample, on any number of ranks. Of a
            dataset of crops, each crop of a volume has an index of its own.
        organ_B: ids of :class:`~data_shards.vocabulary.Organ`, int64.
        modality_B: ids of :class:`~data_shards.vocabulary.Modality`, int64.
        task_B: ids of :class:`~data_shards.vocabulary.Task`, int64.
        spacing_mm_BA: float32, one column per spatial axis, NaN where not known.
        dataset: position of the dataset in the mixture.
        name: name of the dataset.
        dataset_epoch: the dataset's own epoch: together with ``sample_B`` it tells one showing of a sample from every
            other, also in a mixture that shows a dataset several times in an epoch of the stream.
        epoch: epoch of the stream.
        batch: position in the epoch.
        rows: rows that each rank holds; their sum is the size of the global batch.
        attributes: further numbers of the studies by name, float64 of length ``b``, NaN where not known.
    """

    images: Tensor
    label_BL: Tensor
    sample_B: Tensor
    organ_B: Tensor
    modality_B: Tensor
    task_B: Tensor
    spacing_mm_BA: Tensor
    dataset: int
    name: str
    dataset_epoch: int
    epoch: int
    batch: int
    rows: tuple[int, ...]
    attributes: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def global_size(self) -> int:
        """Rows of all ranks together."""
        return sum(self.rows)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which copies to a CUDA device need not be waited for.

        Raises:
            RuntimeError: there is no such device.
        """
        pinned: dict[str, Any] = {
            name: value.pin_memory() for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        pinned["attributes"] = {name: value.pin_memory() for name, value in self.attributes.items()}
        return dataclasses.replace(self, **pinned)

    def __reduce__(self) -> tuple[Any, ...]:
        """Only the images go to another process as shared memory: each such tensor takes a file descriptor there."""
        fields = {name: _plain(value) for name, value in vars(self).items() if name != "images"}
        return _rebuilt, (self.images, fields)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    return {name: _plain(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value


def _tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _tensors(inner) for name, inner in value.items()}
    return value if isinstance(value, int | str | tuple) else torch.from_numpy(value)


def _rebuilt(images: Tensor, fields: dict[str, Any]) -> Batch:
    return Batch(images=images, **{name: _tensors(value) for name, value in fields.items()})
