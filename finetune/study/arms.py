"""The arms of a comparison, as data: where the backbone comes from, and parameters of the estimator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

RAW = "raw pixels, linear"
BASELINE = "ResNet-18, reference recipe"
"""The baseline of MedMNIST, see :mod:`finetune.reference`."""
RECIPE = "recipe"
"""What a network that is trained whole by that recipe is called in place of a strategy."""
TANGENT = "frozen, tangent"
RANDOM = "random network, frozen"
PRETRAINED = "pretrained, frozen"
SCRATCH = "from scratch, full"
FINETUNED = "pretrained, full"


@dataclass(frozen=True)
class Arm:
    """One way to make a classifier of a few labels.

    Attributes:
        name: as tables show it.
        weights: ``pretrained``, or ``random``: the same network with new weights from each seed.
        params: of :class:`~finetune.classifier.estimator.FewLabelClassifier`, beside what the data say.
        model: which of several pretrained networks.
        epochs: of the reference recipe, by which the network is trained whole in place of the estimator; 0: not by it.
    """

    name: str
    weights: Literal["pretrained", "random"]
    params: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    epochs: int = 0


def raw_arm() -> Arm:
    """Logistic regression on pixels, averaged down to at most 28 along each axis; no network is asked."""
    return Arm(RAW, "random", {"head_options": {"reads": "raw"}})


def arms_of(
    models: Sequence[str],
    heads: Sequence[str] = ("linear",),
    strategies: Sequence[str] = ("frozen", "full"),
    params: Mapping[str, Any] | None = None,
) -> list[Arm]:
    """Raw pixels, then every head with every strategy on each model and, where that makes sense, on a fresh twin.

    A network from random weights is frozen or trained as a whole; the other strategies keep what was learned before,
    and there is nothing to keep.

    Args:
        models: names of pretrained networks.
        heads: names of heads.
        strategies: names of strategies.
        params: of the estimator, for strategies that train the backbone.
    """
    found = [raw_arm()]
    for model in models:
        whose = "" if len(models) == 1 else f"{model}: "
        for strategy in strategies:
            for head in heads:
                suffix = strategy + (f", {head}" if head != "linear" else "")
                given = {"strategy": strategy, "head": head, **((params or {}) if strategy != "frozen" else {})}
                if strategy == "frozen":
                    found.append(Arm(f"{whose}random network, {suffix}", "random", given, model))
                elif strategy == "full":
                    found.append(Arm(f"{whose}from scratch, {suffix}", "random", given, model))
                found.append(Arm(f"{whose}pretrained, {suffix}", "pretrained", given, model))
    return found


def tangent_arms(models: Sequence[str]) -> list[Arm]:
    """Logistic regression on covariances of tokens in their tangent space, of each network and of a fresh one."""
    params = {"head_options": {"reads": "tangent"}}
    found = []
    for model in models:
        whose = "" if len(models) == 1 else f"{model}: "
        found.append(Arm(f"{whose}random network, {TANGENT}", "random", params, model))
        found.append(Arm(f"{whose}pretrained, {TANGENT}", "pretrained", params, model))
    return found


def recipe_arms(models: Sequence[str], epochs: int) -> list[Arm]:
    """Each network and a fresh one, trained whole by the reference recipe."""
    found = []
    for model in models:
        whose = "" if len(models) == 1 else f"{model}: "
        found.append(Arm(f"{whose}from scratch, {RECIPE}", "random", {}, model, epochs))
        found.append(Arm(f"{whose}pretrained, {RECIPE}", "pretrained", {}, model, epochs))
    return found


def baseline_arm(epochs: int) -> Arm:
    """The ResNet-18 of MedMNIST by its own recipe, from random weights."""
    return Arm(BASELINE, "random", {}, BASELINE, epochs)


def pairs_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which arms are set against which.

    A pretrained one against its fresh twin, raw pixels, the baseline of MedMNIST, and linear-frozen; and, of several
    models, those of the first against the same of each other one, or against its fresh ones where it has no weights.
    """
    known = dict.fromkeys(names)
    wanted: list[tuple[str, str]] = []
    for name in known:
        whose, _, rest = name.rpartition(": ")
        prefix = f"{whose}: " if whose else ""
        if not rest.startswith("pretrained, "):
            continue
        what = rest.removeprefix("pretrained, ")
        strategy = what.split(", ")[0]
        fresh = "random network" if strategy == "frozen" else "from scratch"
        wanted.append((name, f"{prefix}{fresh}, {what}"))
        if strategy not in ("frozen", "full"):
            wanted.append((name, f"{prefix}{SCRATCH}"))
        wanted.append((name, f"{prefix}{PRETRAINED}"))
        wanted += [(name, RAW), (name, BASELINE)]
        for other in dict.fromkeys(each.rpartition(": ")[0] for each in known):
            if whose and other and other != whose and name.startswith(f"{_first(known)}: "):
                same = f"{other}: pretrained, {what}"
                wanted.append((name, same if same in known else f"{other}: {fresh}, {what}"))
    return [(arm, baseline) for arm, baseline in dict.fromkeys(wanted) if baseline in known and arm != baseline]


def _first(names: Iterable[str]) -> str:
    """The model that is named first."""
    return next((whose for name in names if (whose := name.rpartition(": ")[0])), "")
