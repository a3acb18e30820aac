"""Do maps point at what they should, and do they depend on the model?

``python -m benchmarks.studies explain FOLDER [fits=10]``. Three tasks whose evidence has a mask:

- slices, and volumes, of brain phantoms with a tumour or none;
- real brain volumes around the hippocampus (Medical Segmentation Decathlon, task 4), in half of which, drawn by a hash
  of the file name, the signal of the hippocampus is raised by a standard deviation of the volume, as sclerosis raises
  it on FLAIR. The finding is made, so that it is known where it is; anatomy, noise and masks are real.

A network of nano size is trained from random weights with each head, on training subjects. Options of the methods
are their defaults but for what stands in the place of an occluded block, the mean of the image or the image blurred:
that of the two whose maps have more of their mass in the masks of validation cases. Nothing was chosen on the test
subjects. Maps of the finding are made of all test cases that have it, on the grid of the image, whatever the classifier
says of them. A random map scores the share of the mask in the image in the mean; a centre prior is a Gaussian around
the middle. Intervals are over subjects. What has been computed is kept in the folder, and a run that was stopped goes
on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import timm
import torch

from benchmarks.studies.runs import DATA
from benchmarks.table import Table
from data_shards.sources.phantoms import Phantoms
from data_shards.support.errors import ConfigError, DataError
from data_shards.support.files import write_json
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier
from finetune.explain.asking import maps_of
from finetune.explain.base import CaseMethod
from finetune.explain.intervals import mean_interval
from finetune.explain.localisation import centre_prior, chance, hit, mass
from finetune.explain.methods import create_method
from finetune.explain.question import reads_tokens
from finetune.explain.sanity import check_sanity
from finetune.scores.metrics import auc

SEED = 0
DIFFICULTY = 0.0
"""Of the phantoms: no clutter, little noise. A network that does not find the lesion has nothing to explain."""
CASES = 40
"""At most so many cases with the finding are explained."""
SANITY = 8
VALIDATION = 16
"""At most so many validation cases with the finding choose the baseline of occlusion."""
BASELINES = ("mean", "blur")
FINDING = 1
HEADS: dict[str, dict[str, Any]] = {
    "linear, embedding": {"head": "linear", "head_options": {"reads": "embedding"}},
    "linear, mean": {"head": "linear", "head_options": {"reads": "mean"}},
    "attention": {"head": "attention"},
    "mil": {"head": "mil"},
    "spd": {"head": "spd"},
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "grad_cam": ("grad_cam", {}),
    "grad_cam, dense, mean": ("grad_cam", {"layer": "dense", "weights": "mean"}),
    "integrated gradients": ("integrated_gradients", {}),
    "rollout": ("rollout", {}),
    "rollout, any class": ("rollout", {"gradients": False}),
    "occlusion": ("occlusion", {"block": 6}),
    "instances": ("instances", {}),
}


@dataclass(frozen=True)
class Findings:
    """Cases of one split with the mask of the finding of each."""

    cases: Cases
    masks: np.ndarray


def phantoms(name: str, size: int, subjects: int, images: int) -> dict[str, Findings]:
    """Brain phantoms with a tumour or none, by split; whoever has small vessel lesions is left out."""
    source = Phantoms(name, size=size, subjects=subjects, images_per_subject=images, difficulty=DIFFICULTY, masks=True)
    rows: dict[str, list[Any]] = {}
    for position in range(len(source)):
        sample = source.sample(position)
        mask = sample.images["mask"].pixels[0]
        assert sample.label is not None
        if sample.label[0] < 2 and mask.max() < 2:
            row = (sample.images["image"].pixels, int(sample.label[0]), mask > 0, sample.subject)
            rows.setdefault(sample.split, []).append(row)
    image = source.sample(0).images["image"]
    return {split: _findings(f"{name} {split}", each, image.spacing_mm, Modality.mri) for split, each in rows.items()}


def hippocampi() -> dict[str, Findings]:
    """Real volumes, cut or padded around the middle to one size, in half of which the hippocampus is brighter."""
    size = (36, 52, 36)
    rows: dict[str, list[Any]] = {}
    files = sorted((DATA / "hippocampus" / "images").resolve().glob("*.nii.gz"))
    for path in files:
        digest = sha256(path.name.encode()).digest()
        split = ("test", "test", "test", "val", "val", *["train"] * 5)[digest[0] % 10]
        values = np.asarray(nib.load(path).dataobj, np.float32)
        mask = np.asarray(nib.load(DATA / "hippocampus" / "labels" / path.name).dataobj) > 0
        low, high = np.percentile(values, (1, 99))
        values = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
        label = digest[1] % 2
        values = np.clip(0.8 * values + label * 0.8 * values.std() * mask, 0, 1)
        centred = [_centred(each, size) for each in (values, mask)]
        rows.setdefault(split, []).append(
            (np.rint(255 * centred[0]).astype(np.uint8)[None], label, centred[1] > 0, path.name)
        )
    return {split: _findings(f"hippocampus {split}", each, (1.0,) * 3, Modality.mri) for split, each in rows.items()}


def _centred(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    found = np.zeros(size, values.dtype)
    inner, outer = [], []
    for before, after in zip(values.shape, size, strict=True):
        kept = min(before, after)
        inner.append(slice((before - kept) // 2, (before - kept) // 2 + kept))
        outer.append(slice((after - kept) // 2, (after - kept) // 2 + kept))
    found[tuple(outer)] = values[tuple(inner)]
    return found


def _findings(name: str, rows: list[Any], spacing_mm: tuple[float, ...], modality: Modality) -> Findings:
    images, labels, masks, subjects = zip(*rows, strict=True)
    cases = Cases(
        name=name,
        images=np.stack(images),
        labels=np.array(labels)[:, None],
        task=Task.binary,
        classes={0: "none", 1: "finding"},
        keys=np.arange(len(rows)),
        organ=Organ.brain,
        modality=modality,
        subjects=np.array(subjects),
        spacing_mm=np.array(spacing_mm, np.float32),
    )
    return Findings(cases, np.stack(masks))


@dataclass(frozen=True)
class Ground:
    """One task: its images, and how long a network is trained on them."""

    images: Callable[[], dict[str, Findings]]
    heads: tuple[str, ...]
    steps: int
    batch_size: int
    network: dict[str, Any]


TASKS = {
    "phantom slices, 36 x 36": Ground(
        cache(lambda: phantoms("phantom-brain-mri-2d", 36, 240, 4)),
        tuple(HEADS),
        2000,
        16,
        {"stem": "conv", "stride": 4, "stem_width": 32, "depth": 2},  # the best of four by AUC on validation cases
    ),
    "phantom volumes, 28^3": Ground(
        cache(lambda: phantoms("phantom-brain-mri", 28, 240, 1)),
        ("linear, embedding", "mil", "spd"),
        400,
        8,
        {"stem": "patch"},  # 400 steps of 400 and 1,000, by AUC on validation cases
    ),
    "hippocampus, 36 x 52 x 36": Ground(
        cache(hippocampi), ("linear, embedding", "mil"), 200, 8, {"stem": "patch", "depth": 2}
    ),
}


def fitted(task: Ground, head: str) -> FewLabelClassifier:
    """A network of nano size from random weights, trained whole."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        backbone = timm.create_model("medformer_nano", **task.network)
    model = FewLabelClassifier(
        backbone, strategy="full", max_steps=task.steps, batch_size=task.batch_size, learning_rate=1e-3,
        backbone_rate=1e-3, layer_decay=1.0, calibrate=False, seed=SEED, **HEADS[head],
    )  # fmt: skip
    model.fit(task.images()["train"].cases)
    return model


def measured(
    model: FewLabelClassifier, method: CaseMethod, findings: Findings, some: np.ndarray
) -> dict[str, list[float]]:
    """Hit and mass of the map of each case, and what the two blind maps score."""
    found: dict[str, list[float]] = {name: [] for name in ("hit", "mass", "chance", "centre_hit", "centre_mass")}
    prior = centre_prior(findings.masks.shape[1:])
    for case in some.tolist():
        (said,) = maps_of(model.predictor_, method, findings.cases, case, [FINDING])
        values, mask = said.maps[0].on_voxels, findings.masks[case]
        for name, value in (
            ("hit", hit(values, mask)), ("mass", mass(values, mask)), ("chance", chance(mask)),
            ("centre_hit", hit(prior, mask)), ("centre_mass", mass(prior, mask)),
        ):  # fmt: skip
            found[name].append(value)
    return found


def explained(name: str, head: str, split: str = "test") -> dict[str, Any]:
    """Fit, score, and measure every method that explains the head."""
    task = TASKS[name]
    model = fitted(task, head)
    findings = task.images()[split]
    some = with_finding(findings)[:CASES]
    subjects = [str(subject) for subject in np.asarray(findings.cases.subjects)[some]]
    area = auc(findings.cases.known_labels, model.predict_proba(findings.cases), Task.binary)
    row: dict[str, Any] = {
        "task": name, "head": head, "split": split, "auc": float(area), "subjects": subjects, "methods": {},
        "labelled": model.record_.labelled_images, "given_sha256": model.record_.given_sha256,
    }  # fmt: skip
    for called, (method_name, options) in METHODS.items():
        if called == "occlusion":
            masses = validated(model, task.images()["val"])
            row["occlusion"] = {"baseline": max(masses, key=masses.__getitem__), "validation_mass": masses}
            options = {**options, "baseline": row["occlusion"]["baseline"]}
        method = create_method(method_name, options)
        assert isinstance(method, CaseMethod)
        if not _explains(method, model) or (called == "instances" and not reads_tokens(model.predictor_.members[0])):
            continue
        scores = measured(model, method, findings, some)
        row["methods"][called] = {**scores, "sanity": _sanity(model, method, findings.cases[some[:SANITY]])}
    return row


def _sanity(model: FewLabelClassifier, method: CaseMethod, cases: Cases) -> dict[str, Any] | None:
    """The check of shuffled weights; None where every map of the method is the same everywhere."""
    try:
        return check_sanity(model.predictor_, method, cases, [FINDING] * len(cases), seed=SEED).as_json()
    except DataError:
        return None


def with_finding(findings: Findings) -> np.ndarray:
    """Positions of the cases that have the finding and a mask of it."""
    masked = findings.masks.any(tuple(range(1, findings.masks.ndim)))
    return np.flatnonzero((findings.cases.known_labels[:, 0] == FINDING) & masked)


def validated(model: FewLabelClassifier, findings: Findings) -> dict[str, float]:
    """Mean mass in the masks of validation cases, by what stands in the place of an occluded block."""
    some = with_finding(findings)[:VALIDATION]
    found = {}
    for baseline in BASELINES:
        method = create_method("occlusion", {**METHODS["occlusion"][1], "baseline": baseline})
        assert isinstance(method, CaseMethod)
        found[baseline] = float(np.mean(measured(model, method, findings, some)["mass"]))
    return found


def _explains(method: CaseMethod, model: FewLabelClassifier) -> bool:
    try:
        method.check(model.predictor_.members[0])
    except ConfigError:
        return False
    return True


def run(folder: Path, fits: float = 10) -> Table:
    """Fit and explain what is missing of the first ``fits``, and put together what is there."""
    place = folder / "explain"
    place.mkdir(parents=True, exist_ok=True)
    for name, head in [(name, head) for name, task in TASKS.items() for head in task.heads][: int(fits)]:
        file = place / f"{name}-{head}.json".replace(" ", "-").replace(",", "").replace("^", "")
        if not file.is_file():
            write_json(file, explained(name, head))
    return table(folder)


def table(folder: Path) -> Table:
    """Everything that is there."""
    found = [json.loads(file.read_text()) for file in (folder / "explain").glob("*.json")]
    names = list(TASKS)
    found.sort(key=lambda row: (names.index(row["task"]), list(HEADS).index(row["head"])))
    rows = []
    for row in found:
        for called, said in row["methods"].items():
            subjects = np.array(row["subjects"])
            cells = [
                each
                for what in ("hit", "mass")
                for each in (
                    f"{np.mean(said[what]):.2f}",
                    _less(said, what, f"centre_{what}", subjects),
                    _less(said, what, "chance", subjects),
                )
            ]
            verdict = "the maps are flat"
            if said["sanity"] is not None:
                last = said["sanity"]["rows"][-1]
                verdict = f"{last['spearman']:.2f} ({'passes' if said['sanity']['passes'] else 'fails'})"
            if called == "occlusion" and "occlusion" in row:
                called = f"occlusion, {row['occlusion']['baseline']}"
            rows.append((row["task"], row["head"], f"{row['auc']:.3f}", called, str(len(subjects)), *cells, verdict))
    return Table(
        title="Maps against masks",
        command="python -m benchmarks.studies explain FOLDER",
        columns=(
            "images", "head", "AUC", "method", "cases", "pointing game", "less centre", "less random",
            "mass in the mask", "less centre", "less random", "randomised",
        ),
        rows=tuple(rows),
        remarks="Test subjects. Pointing game: share of cases whose largest value lies in the mask; mass: share of the "
        "positive values in it. Differences by case with 95 % intervals over subjects; a random map scores the share "
        "of the mask. Randomised: rank correlation with the map of the same network, all weights shuffled, the mean "
        f"of {SANITY} cases; the check passes when the upper end of its interval is below 0.5. Occlusion: with the "
        f"baseline, mean or blur, that has more mass in the masks of at most {VALIDATION} validation cases. AUC: of "
        f"the classifier, on all test cases. One network for each head, seed {SEED}; torch {torch.__version__}.",
    )  # fmt: skip


def _less(said: dict[str, Any], what: str, baseline: str, subjects: np.ndarray) -> str:
    found = mean_interval(np.array(said[what]) - np.array(said[baseline]), subjects, seed=SEED)
    return f"{found.estimate:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
