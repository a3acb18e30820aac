"""What the eighteen sets of MedMNIST show: organs, modalities, sizes and cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_shards.card import DatasetCard
from data_shards.support.errors import DataError, nearest
from data_shards.vocabulary import Modality, Organ, Task

# What the images show and how they were made; the package's INFO says it only in prose.
CONTENT: dict[str, tuple[Organ, Modality]] = {
    "pathmnist": (Organ.colon, Modality.histology),
    "chestmnist": (Organ.chest, Modality.xray),
    "dermamnist": (Organ.skin, Modality.dermatoscopy),
    "octmnist": (Organ.retina, Modality.oct),
    "pneumoniamnist": (Organ.chest, Modality.xray),
    "retinamnist": (Organ.retina, Modality.fundus),
    "breastmnist": (Organ.breast, Modality.ultrasound),
    "bloodmnist": (Organ.blood, Modality.microscopy),
    "tissuemnist": (Organ.kidney, Modality.microscopy),
    "organamnist": (Organ.abdomen, Modality.ct),
    "organcmnist": (Organ.abdomen, Modality.ct),
    "organsmnist": (Organ.abdomen, Modality.ct),
    "organmnist3d": (Organ.abdomen, Modality.ct),
    "nodulemnist3d": (Organ.chest, Modality.ct),
    "adrenalmnist3d": (Organ.abdomen, Modality.ct),  # shape masks drawn on CT
    "fracturemnist3d": (Organ.chest, Modality.ct),  # ribs
    "vesselmnist3d": (Organ.brain, Modality.mri),  # shapes reconstructed from MR angiography
    "synapsemnist3d": (Organ.brain, Modality.electron_microscopy),
}

# Edge of the cube that a volume shows, in mm, where INFO says it: crops of 64 mm for two sets, in the published files
# of the first the same at both sizes; 28 voxels of 1 mm for nodules, where nothing is said of the larger size. Crops
# of bounding boxes, shapes without a scale and micrographs have none.
_EDGE_MM = {("adrenalmnist3d", 28): 64.0, ("adrenalmnist3d", 64): 64.0, ("nodulemnist3d", 28): 28.0}
_EDGE_MM |= {("fracturemnist3d", 28): 64.0, ("fracturemnist3d", 64): 64.0}

_TASKS = {
    "binary-class": Task.binary,
    "multi-class": Task.multiclass,
    "multi-label, binary-class": Task.multilabel,
    "ordinal-regression": Task.ordinal,
}

_SPLIT_RULE = (
    "the split of the published archive; MedMNIST publishes no patient identifiers, so every image counts as its own "
    "subject and a patient on both sides of a split cannot be found"
)


@dataclass(frozen=True)
class Published:
    """One archive of the collection: a set at one size.

    Attributes:
        name: the set.
        size: pixels or voxels along each axis.
        info: the entry of the package's INFO.
    """

    name: str
    size: int
    info: Mapping[str, Any]

    @property
    def stem(self) -> str:
        """Name of the archive without its suffix: ``breastmnist``, ``breastmnist_64``."""
        return self.name if self.size == 28 else f"{self.name}_{self.size}"

    @property
    def url(self) -> str:
        """Where the package downloads the archive."""
        return str(self.info[self._key("url")])

    @property
    def md5(self) -> str:
        """MD5 of the archive."""
        return str(self.info[self._key("MD5")])

    @property
    def volumetric(self) -> bool:
        """Whether the images are volumes."""
        return self.name.endswith("3d")

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.info["n_channels"])

    @property
    def samples(self) -> dict[str, int]:
        """Images of each split."""
        return dict(self.info["n_samples"])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image in the archive: ``H,W``, ``H,W,C`` or ``D,H,W``."""
        edges = (self.size,) * (3 if self.volumetric else 2)
        return edges if self.channels == 1 else (*edges, self.channels)

    @property
    def label_width(self) -> int:
        """Numbers in one label."""
        return len(self.info["label"]) if self.task is Task.multilabel else 1

    @property
    def task(self) -> Task:
        """How the label is to be read."""
        return _TASKS[self.info["task"]]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between voxels, empty when it is not known."""
        edge_mm = _EDGE_MM.get((self.name, self.size))
        return () if edge_mm is None else (edge_mm / self.size,) * 3

    def _key(self, kind: str) -> str:
        return kind if self.size == 28 else f"{kind}_{self.size}"


def sizes_of(info: Mapping[str, Any]) -> tuple[int, ...]:
    """The sizes at which the package offers a set, from its INFO entry."""
    return (28, *sorted(int(key.removeprefix("MD5_")) for key in info if key.startswith("MD5_")))


def published(name: str, size: int = 28) -> Published:
    """The archive of a set.

    Raises:
        DataError: there is no such set, or not at this size.
    """
    if name not in CONTENT:
        raise DataError(f"unknown MedMNIST set {name!r}{nearest(name, CONTENT)}")
    from medmnist import INFO  # imports torchvision: only when a set is asked for

    sizes = sizes_of(INFO[name])
    if size not in sizes:
        raise DataError(f"{name} is not published at size {size}; sizes: {', '.join(map(str, sizes))}")
    return Published(name, size, INFO[name])


def make_card(archive: Published, *, md5: str, unofficial: str | None = None) -> DatasetCard:
    """The card of an archive, from the package's INFO and our table of organs and modalities."""
    import medmnist

    organ, modality = CONTENT[archive.name]
    edges = "x".join([str(archive.size)] * (3 if archive.volumetric else 2))
    return DatasetCard(
        name=archive.stem,
        title=f"{archive.info['python_class']} {edges}",
        organ=organ.name,
        modality=modality.name,
        dimensionality="volumetric" if archive.volumetric else "planar",
        task=archive.task.name,
        classes={int(value): text for value, text in archive.info["label"].items()},
        licence=archive.info["license"],
        homepage="https://medmnist.com",
        source_version=f"MedMNIST {medmnist.__version__}, {archive.url}",
        source_checksum={"md5": md5},
        official=unofficial is None,
        note=f"not the official archive: {unofficial}" if unofficial else "",
        split_rule=_SPLIT_RULE,
    )
