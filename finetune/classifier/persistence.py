"""A fitted classifier on disk: model bundles, a safetensors file and a JSON document; nothing is pickled.

The folder stands alone: ``backbone/`` is a bundle with the weights as they are after fitting (``backbone-1/`` and so on
those of further members of an ensemble), ``head.safetensors`` holds the heads of all members, ``classifier.json``
parameters, classes, calibration, what images were like and how they were prepared, the record of the fit, the estimate
of how good it is, and which bundle it was adapted from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from data_shards.support.documents import parse
from data_shards.support.errors import CheckpointError, ConfigError, MedformerError
from data_shards.support.files import finite, new_folder, read_json, write_atomic, write_json
from finetune.backbones import CLASSIFIER_FILE, BundleReference
from finetune.classifier.conformal import Conformal
from finetune.classifier.member import Member
from finetune.classifier.predictor import Predictor
from finetune.classifier.record import FitRecord
from finetune.classifier.seen import Seen
from finetune.fit.linear import RAW, TANGENT, LinearModel, LinearVote, Scaling, Standardiser
from finetune.fit.network import Readout
from finetune.fit.tangent import TangentSpace
from finetune.heads import create_head
from finetune.heads.features import SUMMARIES, width_of
from finetune.random_state import seeded
from finetune.slices import Slices
from finetune.targets import Affine, Target, target_from_state
from pretrain.backbone import Backbone
from pretrain.bundle import Bundle, load_bundle, save_bundle
from pretrain.misfit import misfit

FORMAT = "medformer-classifier"
VERSION = 4
"""Version 2 had one linear model or head, and knew neither how images were prepared nor calibration."""


@dataclass(frozen=True)
class Fitted:
    """All that a fitted model is.

    Attributes:
        kind: name of the class of the estimator.
        params: its parameters, without the backbone and the device.
        source: reference to the bundle, or name of the fresh network, that it was adapted from.
        classes: its labels, sorted; None for numbers.
        predictor: the adapted model.
        record: of the fit.
        architecture: name by which timm makes the backbone.
        model_args: arguments the backbone is made with.
        estimate: how good it is, as plain JSON types.
    """

    kind: str
    params: dict[str, Any]
    source: BundleReference | str
    classes: np.ndarray | None
    predictor: Predictor
    record: FitRecord
    architecture: str
    model_args: dict[str, Any]
    estimate: dict[str, Any]


def save_fitted(fitted: Fitted, folder: Path, *, overwrite: bool = False) -> None:
    """Write a fitted model.

    Raises:
        ConfigError: classes or parameters are of a kind that JSON does not keep.
        MedformerError: the folder exists, or the disk refuses; nothing is left behind.
    """
    predictor, record = fitted.predictor, fitted.record.as_json()
    classes = None if fitted.classes is None else fitted.classes.tolist()
    for name, value in {"classes": classes, **fitted.params}.items():
        _check_plain(name, value)
    tensors: dict[str, torch.Tensor] = {}
    backbones: dict[int, str] = {}
    members = []
    for number, member in enumerate(predictor.members):
        name = backbones.setdefault(id(member.backbone), "backbone" + f"-{number}" * (number > 0))
        tensors |= {f"{number}.{key}": tensor for key, tensor in _tensors(member.head).items()}
        members.append({"backbone": name, **_described(member)})
    document = {
        "format": FORMAT,
        "version": VERSION,
        "kind": fitted.kind,
        "params": fitted.params,
        "source": asdict(fitted.source) if isinstance(fitted.source, BundleReference) else fitted.source,
        "classes": classes,
        "target": predictor.target.state(),
        "members": members,
        "temperature": predictor.temperature,
        "conformal": None if predictor.conformal is None else predictor.conformal.state(),
        "seen": predictor.seen.state(),
        "estimate": fitted.estimate,
        "record": record,
    }
    provenance = finite({"fine_tuned": record, "datasets": [], "objectives": []})
    with new_folder(folder, overwrite=overwrite) as partial:
        for member in predictor.members:
            home = partial / backbones[id(member.backbone)]
            if not home.exists():
                save_bundle(home, member.backbone, fitted.architecture, fitted.model_args, provenance, {})
        write_atomic(partial / "head.safetensors", save(tensors))
        write_json(partial / CLASSIFIER_FILE, finite(document))


def load_fitted(folder: Path, device: str) -> Fitted:
    """Read a model back.

    Args:
        folder: what :func:`save_fitted` wrote.
        device: where its networks are to run.

    Raises:
        CheckpointError: a file is missing, damaged, or not of this kind.
    """
    document = read_fitted_document(folder)
    try:
        tensors = load_file(folder / "head.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / 'head.safetensors'}: not a readable safetensors file: {error}") from None
    try:
        with seeded(0):  # weights are drawn before those that were kept take their place
            return _fitted(document, tensors, folder, device)
    except CheckpointError:
        raise
    except (
        AttributeError,
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        MedformerError,
    ) as error:
        said = " ".join(str(error).split())
        raise CheckpointError(f"{folder}: not a complete classifier: {said}") from None


def _fitted(document: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], folder: Path, device: str) -> Fitted:
    """What a document and its tensors say."""
    source = document["source"]
    source = source if isinstance(source, str) else BundleReference(**source)
    target = target_from_state(document["target"])
    bundles: dict[str, Bundle] = {}
    owned: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        owner, _, name = key.partition(".")
        owned.setdefault(owner, {})[name] = tensor
    members = []
    for number, described in enumerate(document["members"]):
        name = str(described["backbone"])
        if "/" in name or not name.startswith("backbone"):
            raise ValueError(f"backbone {name!r} is not a folder of this classifier")
        if name not in bundles:
            bundles[name] = load_bundle(folder / name)
            bundles[name].backbone.to(device).eval()
        members.append(_member(described, bundles[name].backbone, target, owned.pop(str(number), {}), device))
    if not members:
        raise ValueError("no member")
    if owned:
        raise ValueError(f"tensors of member {next(iter(owned))!r}, which there is not")
    conformal, params = document["conformal"], dict(document["params"])
    predictor = Predictor(
        tuple(members),
        target,
        _temperature(document["temperature"]),
        None if conformal is None else Conformal.from_state(conformal),
        Seen.from_state(document["seen"]),
        int(params["mc_dropout"]),
        int(params["seed"]),
        None if params.get("slices") is None else parse(Slices, params["slices"], "slices"),
        params.get("window"),
        float(params.get("overlap", 0.5)),
    )
    config = bundles[str(document["members"][0]["backbone"])].config
    return Fitted(
        kind=str(document["kind"]),
        params=params,
        source=source,
        classes=_classes_of(document["classes"], target),
        predictor=predictor,
        record=FitRecord(**document["record"]),
        architecture=config["architecture"],
        model_args=dict(config.get("model_args", {})),
        estimate=dict(document["estimate"]),
    )


def read_fitted_document(folder: Path) -> dict[str, Any]:
    """The document of a saved classifier, its kind and version checked.

    Raises:
        CheckpointError: it is missing, damaged, or not of this kind.
    """
    if not (folder / CLASSIFIER_FILE).is_file() and (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder}: a model bundle, not a fitted classifier; medformer finetune makes one of it")
    if not (folder / CLASSIFIER_FILE).is_file():
        raise CheckpointError(f"{folder}: not a fitted classifier: {CLASSIFIER_FILE} is missing")
    document = read_json(folder / CLASSIFIER_FILE, CheckpointError)
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        path, found = folder / CLASSIFIER_FILE, f"{document.get('format')} of version {document.get('version')}"
        raise CheckpointError(f"{path}: expected a {FORMAT} document of version {VERSION}, found {found}; fit it again")
    return document


def _check_plain(name: str, value: Any) -> None:
    try:
        json.dumps(finite(value))
    except TypeError as error:
        raise ConfigError(f"{name} cannot be saved: {error}") from None


def _described(member: Member) -> dict[str, Any]:
    offset = None if member.offset is None else member.offset.tolist()
    if isinstance(member.head, Readout):
        head = member.head.head
        return {"kind": "head", "head": head.name, "options": head.config.model_dump(mode="json"), "offset": offset}
    vote = member.head
    return {
        "kind": "linear",
        "models": [{"reads": model.reads, "strength": model.strength} for model in vote.models],
        "sides": None if member.sides is None else {name: list(sides) for name, sides in member.sides.items()},
        "offset": None if vote.offset is None else vote.offset.tolist(),
    }


def _tensors(head: LinearVote | Readout) -> dict[str, torch.Tensor]:
    if isinstance(head, Readout):
        return {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    arrays: dict[str, np.ndarray] = {}
    for number, model in enumerate(head.models):
        named = {**model.scaling.arrays(), "weight": model.affine.weight_KD, "bias": model.affine.bias_K}
        arrays |= {f"{number}.{name}": array for name, array in named.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}


def _member(
    described: Mapping[str, Any], backbone: Backbone, target: Target, tensors: dict[str, torch.Tensor], device: str
) -> Member:
    """A member, with all its tensors of the size that target and backbone call for.

    Raises:
        KeyError: something is missing.
        ValueError: a tensor of a network is missing, is not known or has another shape; or a value that no fit gives.
    """
    count = len(target.classes)
    offset = None if described["offset"] is None else _checked("offset", np.array(described["offset"]), (count,))
    dim = int(backbone.embed_dim)
    if described["kind"] == "head":
        outlet = Readout.of(create_head(described["head"], dim, target.outputs, described["options"]), target)
        if fault := misfit(tensors, outlet.state_dict()):
            raise ValueError(fault)
        outlet.load_state_dict(tensors, strict=True)
        for name, tensor in tensors.items():
            _checked(name, tensor.numpy(), tuple(tensor.shape))
        return Member(backbone, outlet.eval().to(device), target, offset)
    sides = described["sides"]
    sides = None if sides is None else {str(name): tuple(map(int, each)) for name, each in sides.items()}
    models = []
    for number, model in enumerate(described["models"]):
        arrays = {}
        for name in [name for name in tensors if name.startswith(f"{number}.")]:
            arrays[name.partition(".")[2]] = tensors.pop(name).numpy()
        models.append(_linear_model(model, arrays, target, dim, pixels=sides is not None))
    if not models or tensors:
        raise ValueError(f"{len(models)} linear models, and {len(tensors)} tensors of none of them")
    return Member(backbone, LinearVote(tuple(models), target, offset), target, sides=sides)


def _linear_model(
    described: Mapping[str, Any], arrays: dict[str, np.ndarray], target: Target, dim: int, *, pixels: bool
) -> LinearModel:
    """A linear model of one read.

    Raises:
        KeyError: something is missing.
        ValueError: another shape, or a value that no fit gives.
    """
    reads, strength = str(described["reads"]), float(described["strength"])
    if reads not in (*SUMMARIES, TANGENT, RAW) or (reads == RAW and not pixels):
        raise ValueError(f"reads {reads!r}, which nothing gives")
    if not strength > 0:
        raise ValueError(f"strength {strength}: expected a number above 0")
    weight, bias = arrays.pop("weight"), arrays.pop("bias")
    if reads == TANGENT:
        scaling: Scaling = TangentSpace.from_arrays(arrays, dim * (dim + 1) // 2)
    else:
        scaling = Standardiser.from_arrays(arrays, arrays["mean"].size if reads == RAW else width_of(reads, dim))
    if set(arrays) != set(scaling.arrays()):
        raise ValueError(f"tensors {', '.join(sorted(arrays))} for reads {reads!r}")
    _checked("weight", weight, (target.logits, scaling.width))
    _checked("bias", bias, (target.logits,))
    return LinearModel(reads, scaling, Affine(weight, bias), strength)


def _classes_of(names: list[Any] | None, target: Target) -> np.ndarray | None:
    """The classes as an array.

    Raises:
        ValueError: they are not a list of different labels, or not as many as the target has.
    """
    if not target.classifies:
        if names is not None:
            raise ValueError("a regression has no classes")
        return None
    classes = np.array(names)
    if classes.ndim != 1 or classes.dtype.kind not in "biufU" or len(np.unique(classes)) != len(classes):
        raise ValueError("classes: expected a list of different labels")
    if len(classes) != len(target.classes):
        raise ValueError(f"{len(classes)} classes do not fit a target of {len(target.classes)}")
    return classes


def _temperature(value: Any) -> float:
    temperature = float(value)
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature {temperature}: expected a number above 0")
    return temperature


def _checked(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape != shape or not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite numbers of shape {shape}, found shape {values.shape}")
    return values
