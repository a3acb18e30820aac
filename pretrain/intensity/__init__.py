"""Rules of intensity applied on the device: from stored values to the range that views and networks work in."""

from pretrain.intensity.apply import in_range
from pretrain.intensity.of_dataset import dataset_rule, shown_shape
from pretrain.intensity.trained import TrainedOn, difference

__all__ = ["TrainedOn", "dataset_rule", "difference", "in_range", "shown_shape"]
