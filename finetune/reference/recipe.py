"""What the reference recipe of MedMNIST says, as data.

Yang et al., MedMNIST v2 (Scientific Data 2023), section "Baseline methods", and the scripts of its authors
(github.com/MedMNIST/experiments): a ResNet-18 for small images from random weights, Adam at 1e-3, 100 epochs, a tenth
of the rate after half and after three quarters of them, no augmentation, no weights of classes; of all epochs that
with the best AUC on the validation split is kept. Batches hold 128 planes or 32 volumes. Of sets that show shapes
(adrenal glands, vessels) intensities are multiplied by a random factor in training and by one half afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune.cases import Cases

PLANES, VOLUMES = "resnet18_cifar", "resnet18_3d_cifar"
"""The networks, as timm's registry has them: see :mod:`pretrain.foreign.resnet_3d`."""

BATCH_OF_PLANES, BATCH_OF_VOLUMES = 128, 32
SHAPES = ("adrenalmnist3d", "vesselmnist3d")
"""The sets whose intensities mean nothing."""

SHAPE_FACTOR = 0.5
"""What intensities of shapes are multiplied by outside of training."""


@dataclass(frozen=True)
class ReferenceRecipe:
    """How a network is trained on all of its weights.

    Attributes:
        epochs: passes over the training cases.
        rate: of Adam, at the beginning.
        batch_size: cases of a step; the last batch of an epoch holds what is left.
        milestones: shares of the epochs after which the rate falls.
        gamma: by which factor.
        shapes: whether intensities are multiplied, see the module.
    """

    epochs: int = 100
    rate: float = 1e-3
    batch_size: int = BATCH_OF_PLANES
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    shapes: bool = False

    def rate_in(self, epoch: int) -> float:
        """The rate in an epoch, counted from 1."""
        falls = [round(share * self.epochs) for share in self.milestones]
        return self.rate * self.gamma ** sum(epoch > fall for fall in falls)

    @property
    def words(self) -> str:
        """In a few words, for a table."""
        return f"Adam {self.rate:g}, {self.epochs} epochs of batches of {self.batch_size}"


def recipe_for(dataset: str, axes: int, epochs: int = 100) -> ReferenceRecipe:
    """The recipe of a dataset.

    Args:
        dataset: its name.
        axes: 2 for planes, 3 for volumes.
        epochs: passes over the training cases.
    """
    batch = BATCH_OF_PLANES if axes == 2 else BATCH_OF_VOLUMES
    return ReferenceRecipe(epochs=epochs, batch_size=batch, shapes=dataset in SHAPES)


def axes_of(cases: Cases) -> int:
    """2 for planes, 3 for volumes, by the first image of the first case."""
    return next(iter(cases.studies_of(0)[0].images.values())).pixels.ndim - 1
