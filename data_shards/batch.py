"""What one rank receives in one step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """The rows of one rank of a global batch; all rows are of one dataset.

    ``b`` is the number of rows of this rank, which may be 0 when there are more ranks than samples.

    Attributes:
        images: ``b,C,H,W`` (``b,C,D,H,W`` for volumes) in the native dtype of the dataset.
        label_BL: int64 or float64; -1 or NaN where a sample is not labelled, ``L`` is 0 when none is.
        sample_B: index of each row within its dataset, int64: the identity of the sample, on any number of ranks.
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

    @property
    def global_size(self) -> int:
        """Rows of all ranks together."""
        return sum(self.rows)
