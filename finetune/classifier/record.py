"""What a fit used and chose."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class FitRecord:
    """What a fit used and chose; it goes into every result row.

    Attributes:
        backbone: where the backbone came from.
        pretrained: whether it was trained before.
        seed: of initial weights, splits, batches and augmentation.
        index_sha256: of the index file the labels were taken by, or empty.
        given_sha256: over the pixels and labels that were given.
        labelled_images: cases given.
        distinct_labelled_images: different cases among them, by content. No other labelled image was seen.
        per_class: cases of each class.
        selection: how hyper-parameters were chosen, in words.
        chosen: what was chosen, and the held-out loss of every candidate.
        members: how many models are averaged.
        temperature: that probabilities were brought to, see :mod:`finetune.classifier.calibration`.
        calibrated_on: how many held-out cases that, and the sets, were fitted on.
        data: name, licence and digests of the data.
        recipe: how images were read and prepared; None for arrays.
        unlabelled_images: cases without labels that were learned from.
        unlabelled_left_out: cases that were given without labels and are among the labelled ones, or of their subjects.
        target_images: cases of the target site without labels that were given, see :mod:`finetune.classifier.site`.
        target_labelled: labelled cases of the target site; they are among ``labelled_images``.
        target_left_out: cases of the target site that are among the labelled ones of the source site, or of their
            subjects.
        alignment: of the two sites, by name with its options; None for none.
        other_rules: where images came by another rule of intensity than the backbone was trained with, in words.
    """

    backbone: str
    pretrained: bool
    seed: int
    index_sha256: str
    given_sha256: str
    labelled_images: int
    distinct_labelled_images: int
    per_class: dict[str, int]
    selection: str
    chosen: dict[str, Any]
    members: int = 1
    temperature: float = 1.0
    calibrated_on: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] | None = None
    unlabelled_images: int = 0
    unlabelled_left_out: int = 0
    target_images: int = 0
    target_labelled: int = 0
    target_left_out: int = 0
    alignment: dict[str, Any] | None = None
    other_rules: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)
