"""Values of one frame of a file, wherever the file keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_shards.sources.images.dicom import elements
from data_shards.support.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# The functional group macro that holds an attribute in enhanced multi-frame objects (PS3.3 section C.7.6.16.2).
_MACRO = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
    "VOILUTFunction": "FrameVOILUTSequence",
    "StackID": "FrameContentSequence",
    "InStackPositionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "FrameAcquisitionDateTime": "FrameContentSequence",
    "FrameReferenceDateTime": "FrameContentSequence",
    "DimensionIndexValues": "FrameContentSequence",
    "TemporalPositionTimeOffset": "TemporalPositionSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "ActualCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
    "NominalPercentageOfCardiacPhase": "CardiacSynchronizationSequence",
    "CardiacCyclePosition": "CardiacSynchronizationSequence",
    "RespiratoryCyclePosition": "RespiratorySynchronizationSequence",
}


@dataclass(frozen=True)
class Frame:
    """One frame: its own functional group is asked first, then the shared one, then the data set.

    Attributes:
        dataset: of the file.
        groups: functional groups that apply to the frame, the nearest first.
        index: position of the frame in an enhanced file, counted from 0; None in other files.
    """

    dataset: Dataset
    groups: tuple[Dataset, ...] = ()
    index: int | None = None

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """The attribute as finite numbers, or None when no place has it.

        Raises:
            DataError: it is there and is not so many finite numbers.
        """
        return elements.as_numbers(self.value(keyword), keyword, count)

    def value(self, keyword: str) -> Any:
        """The attribute as pydicom gives it, or None when no place has it."""
        if keyword == "DiffusionGradientOrientation":
            return self._gradient()
        macro = _MACRO.get(keyword)
        for group in self.groups:
            item = elements.first_item(group, macro) if macro else None
            found = None if item is None else elements.value(item, keyword)
            if found is not None:
                return found
        return elements.value(self.dataset, keyword)

    def dimensions(self) -> tuple[str, ...]:
        """The numbers that an enhanced file gives to the frame along its own dimensions (PS3.3 section C.7.6.17)."""
        found = self.numbers("DimensionIndexValues") if self.index is not None else None
        return tuple(f"{number:g}" for number in found or ())

    def _gradient(self) -> Any:
        """Direction of the diffusion gradient, which lies one sequence deeper than the rest."""
        keyword = "DiffusionGradientOrientation"
        for group in self.groups:
            diffusion = elements.first_item(group, "MRDiffusionSequence")
            item = None if diffusion is None else elements.first_item(diffusion, "DiffusionGradientDirectionSequence")
            if item is not None:
                return elements.value(item, keyword)
        return elements.value(self.dataset, keyword)


def is_enhanced(dataset: Dataset) -> bool:
    """Whether each frame has a functional group of its own."""
    return elements.value(dataset, "PerFrameFunctionalGroupsSequence") is not None


def frame_of(dataset: Dataset, index: int) -> Frame:
    """The frame at a position counted from 0.

    Raises:
        DataError: the file has functional groups, and none for this frame.
    """
    shared = elements.first_item(dataset, "SharedFunctionalGroupsSequence")
    groups = () if shared is None else (shared,)
    own = elements.value(dataset, "PerFrameFunctionalGroupsSequence")
    if own is None:
        return Frame(dataset, groups)
    try:
        return Frame(dataset, (own[index], *groups), index)
    except (TypeError, IndexError, KeyError):
        raise DataError(f"frame {index + 1} has no functional group") from None
