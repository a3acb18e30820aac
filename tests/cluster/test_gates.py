"""A version takes an alias only when it is not worse, as far as what was measured can tell."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from cluster.errors import RegistryError
from cluster.gates import Requirement, compared
from cluster.metrics import Measured, metrics_in
from cluster.records import PublishedModel
from cluster.registry import Registry
from medformer.cli import main

MakeBundle = Callable[..., Path]
AUC = "pretraining/probe/chest/knn_auc"


def version(number: int) -> PublishedModel:
    return PublishedModel("nano", str(number), (), "", "medformer_nano", None, {}, "")


def alone(value: float) -> Measured:
    return Measured(value, value, value)


def judged(own: Measured, other: Measured, asked: str, name: str = AUC) -> bool:
    try:
        compared(Requirement.parse(asked), version(2), {name: own}, version(1), {name: other})
    except RegistryError:
        return False
    return True


def probed(auc: float, loss: float = 1.0) -> str:
    return json.dumps({"pretraining": {"step": 10, "loss": loss, "probe/chest/knn_auc": auc, "note": "x", "nan": None}})


def test_metrics_are_flat_names_with_intervals_where_there_are_any() -> None:
    document = {
        "cross-validation": {
            "metric": "auc",
            "by_repeat": [0.7],
            "scores": {
                "auc": {"estimate": 0.7, "low": 0.6, "high": 0.8, "level": 0.95, "replicates": 1000, "seed": 0},
                "acc": {"estimate": 0.5, "low": None, "high": None, "level": 0.95},
                "images": 80,
            },
        },
        "flag": True,
        "bad": float("nan"),
    }
    assert metrics_in(document) == {
        "cross-validation/scores/auc": Measured(0.7, 0.6, 0.8, 0.95),
        "cross-validation/scores/acc": alone(0.5),
        "cross-validation/scores/images": alone(80.0),
    }


@pytest.mark.parametrize(
    ("own", "asked", "passes"),
    [(0.90, AUC, True), (0.89, AUC, False), (0.89, f"{AUC}:0.01", True), (0.88, "knn_auc:0.01", False)],
)
def test_without_intervals_the_numbers_and_the_margin_decide(own: float, asked: str, passes: bool) -> None:
    # As floating-point numbers 0.90 - 0.89 is above 0.01.
    assert judged(alone(own), alone(0.90), asked) is passes


@pytest.mark.parametrize(("own", "passes"), [(1.0, True), (0.9, True), (1.1, False)])
def test_of_a_loss_less_is_better(own: float, passes: bool) -> None:
    assert judged(alone(own), alone(1.0), "loss", "pretraining/loss") is passes
    assert judged(alone(own), alone(1.0), "mae:0.2", "scores/mae")


def test_the_interval_of_the_difference_is_that_of_two_independent_means() -> None:
    # Normal intervals of two means: the closed form is the z interval of their difference.
    z = norm.ppf(0.975)
    for own, other, spread, others in ((0.70, 0.80, 0.03, 0.04), (0.69, 0.80, 0.03, 0.04), (0.5, 0.9, 0.2, 0.3)):
        upper = own - other + z * np.hypot(spread, others)
        ours = Measured(own, own - z * spread, own + z * spread, 0.95)
        theirs = Measured(other, other - z * others, other + z * others, 0.95)
        assert judged(ours, theirs, AUC) is bool(upper >= 0)
        # The same numbers as errors, where more is worse.
        assert judged(ours.negative, theirs.negative, "mae", "mae") is bool(upper >= 0)
        edge = max(-upper, 0.0)
        assert judged(ours, theirs, f"{AUC}:{edge + 1e-9}")
        assert edge == 0 or not judged(ours, theirs, f"{AUC}:{edge - 1e-9}")


@pytest.mark.parametrize("text", ["auc:x", "auc:-1", "auc:nan", ":0.1"])
def test_a_margin_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RegistryError, match=r"expected METRIC or METRIC:MARGIN"):
        Requirement.parse(text)


def test_a_promotion_is_refused_with_both_numbers_and_nothing_moves(
    tracking_uri: str, make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, registry = f"nano-{uuid.uuid4().hex[:8]}", Registry(tracking_uri)
    for seed, auc in enumerate((0.9, 0.8, 0.95)):
        registry.publish(make_bundle(seed=seed, metrics=probed(auc)), name)
    store = ["--tracking-uri", tracking_uri]
    first = ["models", "promote", f"{name}:1", "champion", "--not-worse", "knn_auc", *store]
    assert main(first) == 0  # there is no champion to be worse than
    assert f"not worse: {AUC} 0.9, no champion\n" in capsys.readouterr().out
    assert main(["models", "promote", f"{name}:2", "champion", "--not-worse", "knn_auc:0.05", *store]) == 2
    assert capsys.readouterr().err == (
        f"medformer: error: {name}:2 is not promoted: its {AUC} is 0.8, that of {name}:1 is 0.9: worse by 0.1, more "
        "than the margin 0.05 allows\n"
    )
    assert registry.show(name).aliases == {"champion": "1"} and len(registry.show(name).history) == 1
    assert (
        main(["models", "promote", f"{name}:3", "champion", "--not-worse", "knn_auc", "--not-worse", "loss", *store])
        == 0
    )
    capsys.readouterr()
    assert main(["models", "show", name, *store]) == 0
    assert f"{AUC} 0.95 against 0.9 of version 1, margin 0; pretraining/loss 1 against 1" in capsys.readouterr().out


def test_a_metric_that_one_of_the_two_lacks_is_told_with_those_there_are(
    sqlite_uri: str, make_bundle: MakeBundle
) -> None:
    name, registry = f"nano-{uuid.uuid4().hex[:8]}", Registry(sqlite_uri)
    registry.publish(make_bundle(seed=1, metrics='{"a": {"auc": 1}, "b": {"auc": 1}}'), name)
    registry.publish(make_bundle(seed=2, metrics=probed(0.9)), name)
    registry.publish(make_bundle(seed=3), name)
    registry.promote(name, "1", "champion")
    for number, metric, message in (
        ("2", "dice", f"{name}:2: no metric 'dice'; it has pretraining/loss, {AUC}, pretraining/step"),
        ("2", "knn_auc", f"{name}:1: no metric '{AUC}'; it has a/auc, b/auc"),
        ("3", "knn_auc", f"{name}:3: no metric 'knn_auc'; it has none"),
    ):
        with pytest.raises(RegistryError) as refused:
            registry.promote(name, number, "champion", not_worse=[Requirement(metric)])
        assert str(refused.value) == message
    with pytest.raises(RegistryError, match=f"{name}:1: which 'auc'\\? a/auc, b/auc"):
        registry.promote(name, "1", "other", not_worse=[Requirement("auc")])
    assert registry.show(name).aliases == {"champion": "1"}
