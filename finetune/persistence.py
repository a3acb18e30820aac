"""A fitted classifier on disk: a model bundle, a safetensors file and a JSON document; nothing is pickled.

The folder stands alone: ``backbone/`` is a bundle with the weights as they are after fitting, ``head.safetensors`` the
head, ``classifier.json`` parameters, classes, the record of the fit, and which bundle the classifier was adapted from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from data_shards.support.errors import CheckpointError
from data_shards.support.files import finite, new_folder, read_json, write_atomic, write_json
from data_shards.vocabulary import Modality, Organ, Task
from finetune.adaptation import Predictor
from finetune.backbones import BundleReference
from finetune.heads import Head, create_head
from finetune.logistic import Logistic, Selection, Standardiser
from finetune.metrics import CLASSIFICATION
from finetune.objective import logit_count
from finetune.record import FitRecord
from pretrain.bundle import load_bundle, save_bundle

FORMAT = "medformer-classifier"
VERSION = 2
"""Version 1 kept neither the bundle it came from nor the prevalence of the classes."""


@dataclass(frozen=True)
class Fitted:
    """All that a fitted classifier is.

    Attributes:
        params: parameters of the estimator, without the backbone and the device.
        source: reference to the bundle, or name of the fresh network, that it was adapted from.
        classes: its labels, sorted.
        predictor: the adapted model.
        record: of the fit.
        architecture: name by which timm makes the backbone.
        model_args: arguments the backbone is made with.
    """

    params: dict[str, Any]
    source: BundleReference | str
    classes: np.ndarray
    predictor: Predictor
    record: FitRecord
    architecture: str
    model_args: dict[str, Any]


def save_fitted(fitted: Fitted, folder: Path, *, overwrite: bool = False) -> None:
    """Write a fitted classifier.

    Raises:
        MedformerError: the folder exists, or the disk refuses; nothing is left behind.
    """
    predictor, record = fitted.predictor, fitted.record.as_json()
    document = {
        "format": FORMAT,
        "version": VERSION,
        "params": fitted.params,
        "source": asdict(fitted.source) if isinstance(fitted.source, BundleReference) else fitted.source,
        "classes": fitted.classes.tolist(),
        "task": predictor.task.name,
        "organ": predictor.organ.name,
        "modality": predictor.modality.name,
        "head": "logistic" if isinstance(predictor.head, Selection) else fitted.params["head"],
        "offset": None if predictor.offset_K is None else predictor.offset_K.tolist(),
        "record": record,
    }
    provenance = finite({"fine_tuned": record, "datasets": [], "objectives": []})
    with new_folder(folder, overwrite=overwrite) as partial:
        save_bundle(partial / "backbone", predictor.backbone, fitted.architecture, fitted.model_args, provenance, {})
        write_atomic(partial / "head.safetensors", save(_head_tensors(predictor.head)))
        write_json(partial / "classifier.json", finite(document))


def load_fitted(folder: Path, device: str) -> Fitted:
    """Read a classifier back.

    Args:
        folder: what :func:`save_fitted` wrote.
        device: where its networks are to run.

    Raises:
        CheckpointError: a file is missing, damaged, or not of this kind.
    """
    document = _read_document(folder / "classifier.json")
    bundle = load_bundle(folder / "backbone")
    try:
        tensors = load_file(folder / "head.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / 'head.safetensors'}: not a readable safetensors file: {error}") from None
    try:
        source = document["source"]
        source = source if isinstance(source, str) else BundleReference(**source)
        task = Task[document["task"]]
        classes = _classes_of(document["classes"], task)
        logits = logit_count(task, len(classes))
        head = _head_of(document["head"], tensors, task, logits, int(bundle.backbone.embed_dim))
        organ, modality = Organ[document["organ"]], Modality[document["modality"]]
        record, params = FitRecord(**document["record"]), dict(document["params"])
        offset_K = None if document["offset"] is None else np.array(document["offset"], dtype=np.float64)
        if offset_K is not None:
            _check("offset", offset_K, (logits,))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: not a complete classifier: {' '.join(str(error).split())}") from None
    head = head.to(device) if isinstance(head, Head) else head
    predictor = Predictor(bundle.backbone.to(device), head, task, organ, modality, offset_K)
    architecture, model_args = bundle.config["architecture"], dict(bundle.config.get("model_args", {}))
    return Fitted(params, source, classes, predictor, record, architecture, model_args)


def _head_tensors(head: Selection | Head) -> dict[str, torch.Tensor]:
    if isinstance(head, Head):
        return {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    arrays = {
        "mean": head.standardiser.mean_D,
        "scale": head.standardiser.scale_D,
        "weight": head.logistic.weight_KD,
        "bias": head.logistic.bias_K,
        "strength": np.array([head.strength]),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def _classes_of(names: list[Any], task: Task) -> np.ndarray:
    """The classes as an array.

    Raises:
        ValueError: they are not a list of different labels, or not as many as the task has.
    """
    classes = np.array(names)
    if task not in CLASSIFICATION:
        raise ValueError(f"a {task.name} task has no classes")
    if classes.ndim != 1 or classes.dtype.kind not in "biufU" or len(np.unique(classes)) != len(classes):
        raise ValueError("classes: expected a list of different labels")
    least = 1 if task is Task.multilabel else 2
    if len(classes) < least or (task is Task.binary and len(classes) != 2):
        raise ValueError(f"{len(classes)} classes do not fit a {task.name} task")
    return classes


def _head_of(kind: str, tensors: dict[str, torch.Tensor], task: Task, logits: int, dim: int) -> Selection | Head:
    """The head, with all its tensors of the size that the task and the backbone call for.

    Raises:
        KeyError: a tensor is missing.
        RuntimeError: a tensor of a network is missing, is not known or has another shape.
        ValueError: another shape, or a value that no fit gives.
    """
    if kind == "logistic":
        shapes = {"mean": (dim,), "scale": (dim,), "weight": (logits, dim), "bias": (logits,), "strength": (1,)}
        arrays = {name: tensors[name].numpy() for name in shapes}
        for name, shape in shapes.items():
            _check(name, arrays[name], shape)
        for name in ("scale", "strength"):
            if not (arrays[name] > 0).all():
                raise ValueError(f"{name}: expected values above 0")
        logistic = Logistic(arrays["weight"], arrays["bias"], task)
        return Selection(Standardiser(arrays["mean"], arrays["scale"]), logistic, float(arrays["strength"][0]), {})
    head = create_head(kind, dim, logits)
    head.load_state_dict(tensors, strict=True)
    for name, tensor in tensors.items():
        _check(name, tensor.numpy(), tuple(tensor.shape))
    return head.eval()


def _check(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape or not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite numbers of shape {shape}, found shape {values.shape}")


def _read_document(path: Path) -> dict[str, Any]:
    document = read_json(path, CheckpointError)
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        found = f"{document.get('format')} of version {document.get('version')}"
        raise CheckpointError(f"{path}: expected a {FORMAT} document of version {VERSION}, found {found}; fit it again")
    return document
