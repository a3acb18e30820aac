"""Do the latents of organ, modality, dimensionality and task earn their place?

``python -m benchmarks.studies latents FOLDER``. Three arms over five seeds, pretrained alike on planes and volumes of
four organs: *present* as they are; *removed*, with as many shared latents instead and no metadata; *shuffled*, where
every sample is told organ and modality of any of the sets, in pretraining and afterwards (dimensionality follows from
the image and cannot be shuffled). What is compared is the linear probe of the frozen embedding.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.studies.paired import interval, spread
from benchmarks.studies.runs import PLANES, VOLUMES, document, pretrained, shards, source
from benchmarks.table import Table
from data_shards.sample import Sample
from data_shards.sources.base import Source
from data_shards.vocabulary import Modality, Organ
from finetune.cases import Cases
from finetune.fit.features import summaries
from finetune.images import ReadPictures, Study
from finetune.readers import read_cases
from finetune.study.probing import evaluate
from pretrain.backbone import Medformer
from pretrain.bundle import load_bundle

SEEDS = range(5)
STEPS, BATCH = 400, 32
ARMS = ("present", "removed", "shuffled")
SETS = (*PLANES, *VOLUMES)
_PAIRS = tuple((Organ[card.organ], Modality[card.modality]) for card in (source(name).card for name in SETS))


def other(dataset: str, key: str) -> tuple[Organ, Modality]:
    """What the sample is told in the shuffled arm: organ and modality of any of the sets, by a hash of its key."""
    return _PAIRS[hashlib.sha256(f"{dataset}/{key}".encode()).digest()[0] % len(_PAIRS)]


class Shuffled(Source):
    """A source whose samples carry organ and modality of any of the sets."""

    def __init__(self, given: Source) -> None:
        self._given = given
        self.card = given.card
        self.duplicates = given.duplicates

    def __len__(self) -> int:
        return len(self._given)

    def sample(self, position: int) -> Sample:
        """The sample at ``position``, told something else."""
        sample = self._given.sample(position)
        organ, modality = other(self.card.name, sample.key)
        images = {name: replace(image, modality=modality) for name, image in sample.images.items()}
        return replace(sample, organ=organ, images=images)


@dataclass(frozen=True)
class Told:
    """The embedding of a network that is told what its arm was told."""

    name: str
    backbone: Medformer

    def __call__(self, cases: Cases) -> np.ndarray:
        """Features ``(N, D)``."""

        def told(case: int) -> Study:
            (study,) = cases.studies_of(case)
            organ, modality = Organ.unknown, Modality.unknown
            if self.name == "shuffled":
                organ, modality = other(cases.name, str(cases.keys[case]))
            images = {name: replace(image, modality=modality) for name, image in study.images.items()}
            return Study(images, organ)

        shown = cases
        if self.name != "present":
            shown = replace(cases, images=ReadPictures(len(cases), told), rows=None, spacing_mm=None)
        return summaries(self.backbone, shown, dense=False).embedding_ND


def jobs(folder: Path) -> list[dict[str, object]]:
    """The documents of all pretraining runs."""
    right = [shards(folder / "shards", source(name)) for name in SETS]
    wrong = [shards(folder / "shuffled", Shuffled(source(name))) for name in SETS]
    removed = {"metadata_dropout": 1.0, "kwargs": {"latents": 24, "latents_per_entry": 0}}
    models = {"present": {}, "removed": removed, "shuffled": {}}
    return [
        document(folder / f"{arm}-{seed}", wrong if arm == "shuffled" else right, seed, STEPS, BATCH, models[arm])
        for seed in SEEDS
        for arm in ARMS
    ]


def run(folder: Path) -> Table:
    """Pretrain what is missing, probe everything."""
    found: dict[tuple[str, str], list[float]] = {}
    for job in jobs(folder):
        arm = Path(str(job["out"])).name.rpartition("-")[0]
        told = Told(arm, load_bundle(pretrained(job)).backbone)
        for name in SETS:
            for row in evaluate(read_cases(folder / "shards" / name), [told], seed=int(job["seed"])):  # type: ignore[call-overload]
                if row.probe == "linear":
                    found.setdefault((name, arm), []).append(float(row.scores.auc.estimate))
    for arm in ARMS:
        found["mean of the four", arm] = list(np.mean([found[name, arm] for name in SETS], axis=0))
    rows = []
    for name in (*SETS, "mean of the four"):
        scores = {arm: found[name, arm] for arm in ARMS}
        differences = [
            interval([a - b for a, b in zip(scores["present"], scores[arm], strict=True)]) for arm in ARMS[1:]
        ]
        rows.append((name, *(spread(scores[arm]) for arm in ARMS), *differences))
    return Table(
        title="Latents of organ, modality, dimensionality and task: present, removed, shuffled",
        command="python -m benchmarks.studies latents FOLDER",
        columns=("used on", *ARMS, "present less removed", "present less shuffled"),
        rows=tuple(rows),
        remarks=f"Test AUC of a linear probe of the frozen embedding; mean (lowest to highest) of {len(SEEDS)} "
        "seeds, differences with their 95 % t interval over paired seeds. medformer_nano with a stem of 8 channels, 24 "
        f"latents in every arm, SimCLR on all four sets, {STEPS} steps of {BATCH} images. pneumoniamnist is "
        "reassembled, not the official file.",
    )
