"""Is Backforward worth its passes, and what does it say about internal covariate shift? On small networks of digits.

``python -m benchmarks.studies backforward FOLDER``. Stoica and Simionescu, AAAI 2023, found that removing the shift
converges faster at some learning rates. Each network is trained by SGD and by Backforward from the same weights on the
same batches, at several rates and seeds, and SGD goes on for as many steps as there are layers: equal steps and equal
compute. What has been computed is kept in the folder, a file for each run, and a run that was stopped goes on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.studies import backforward_runs as runs
from benchmarks.studies.backforward_batch import COMMAND, costs, flops, one_batch
from benchmarks.studies.backforward_figures import draw
from benchmarks.studies.backforward_runs import ARMS, SEEDS, SHORT, STEPS, Run, Setting, at
from benchmarks.studies.paired import interval, limits, ratio
from benchmarks.table import Table

CHANCE = 0.1


def run(folder: Path) -> list[Table]:
    """Train what is missing, and put it together."""
    for seed in SEEDS:
        parts = runs.drawn(seed)
        for setting in runs.SETTINGS:
            for rate, arm in itertools.product(setting.rates, ARMS):
                runs.run(folder, setting, rate, arm, seed, parts)
    draw(folder)
    return [by_rate(folder), at_best_rates(folder), weights(folder), one_batch(), costs()]


def _runs(folder: Path, setting: Setting, rate: float, arm: str) -> list[Run]:
    found = runs.found(folder, setting, rate, arm)
    assert found is not None
    return found


def _values(found: Sequence[Run], curve: str, step: int) -> np.ndarray:
    return np.array([at(each, curve, step) for each in found])


def by_rate(folder: Path) -> Table:
    """Training loss."""
    rows = []
    for setting in runs.SETTINGS:
        for rate in setting.rates:
            plain, own = _runs(folder, setting, rate, "SGD"), _runs(folder, setting, rate, "Backforward")
            layers, plain_cost, own_cost = flops(setting)
            same_flops = runs.EVERY * round(STEPS * own_cost / plain_cost / runs.EVERY)
            given = ((plain, STEPS), (plain, same_flops), (plain, STEPS * layers), (own, STEPS))
            *others, mine = (np.log(_values(found, "training loss", step)) for found, step in given)
            means = [f"{np.exp(logs.mean()):.3g}" if np.isfinite(logs).all() else "-" for logs in (*others, mine)]
            ratios = [ratio(mine - logs) if np.isfinite(mine - logs).all() else "-" for logs in others]
            lost = ", ".join(str(int(np.isnan(logs).sum())) for logs in (others[0], mine))
            rows.append((setting.name, f"{rate:g}", *means, *ratios, lost))
    return Table(
        title="Training loss by learning rate",
        command=COMMAND,
        columns=(
            "network",
            "rate",
            f"SGD, {STEPS} steps",
            "as many flop",
            "as many passes",
            f"Backforward, {STEPS} steps",
            "ratio at equal steps",
            "at equal flop",
            "at equal passes",
            "diverged",
        ),
        rows=tuple(rows),
        remarks=f"Cross-entropy on the {10 * runs.PER_CLASS['training']:,} training images, geometric mean of "
        f"{len(SEEDS)} seeds; ratio of Backforward to SGD with its 95 % t interval over paired seeds (of logarithms), "
        "below 1 where Backforward is ahead. SGD goes on for as many flop as Backforward takes, see below, and for as "
        "many passes: the steps times the layers. Diverged: seeds whose loss was not finite within the steps, of SGD "
        f"and of Backforward. Batches of {runs.BATCH}; hidden layers of "
        f"{runs.WIDTH}. Momentum: 0.9, Nesterov, weight decay 0.0005; elsewhere neither. torch {torch.__version__}.",
    )


def chosen(folder: Path, setting: Setting, arm: str, steps: int) -> tuple[float, list[Run]]:
    """The rate with the best mean accuracy on the images for choices, and its runs."""
    found = {rate: _runs(folder, setting, rate, arm) for rate in setting.rates}

    def accuracy(rate: float) -> float:
        return float(np.nan_to_num(_values(found[rate], "choice accuracy", steps), nan=CHANCE).mean())

    best = max(setting.rates, key=accuracy)
    return best, found[best]


def at_best_rates(folder: Path) -> Table:
    """Held-out accuracy of each arm, against SGD at its best rate for as many steps and for as much compute."""
    rows = []
    for setting in runs.SETTINGS:
        layers = _runs(folder, setting, setting.rates[0], "SGD")[0]["layers"]
        for arm in ARMS:
            rate, found = chosen(folder, setting, arm, STEPS)
            own = _accuracy(found, STEPS)
            passes = {"SGD": STEPS, "Backforward": STEPS * layers}.get(arm, STEPS + SHORT * (layers - 1))
            against = [_accuracy(chosen(folder, setting, "SGD", steps)[1], steps) for steps in (STEPS, passes)]
            gains = [interval(own - other, 2) for other in against] if arm != "SGD" else ["-", "-"]
            rows.append((setting.name, arm, f"{rate:g}", str(passes), f"{own.mean():.2f}", *gains))
    return Table(
        title="Held-out accuracy, each arm at the rate that suits it",
        command=COMMAND,
        columns=("network", "arm", "rate", "passes", "accuracy, %", "gain at equal steps", "gain at equal passes"),
        rows=tuple(rows),
        remarks=f"{STEPS} steps. The rate has the best mean accuracy on {10 * runs.PER_CLASS['choice']:,} images, the "
        f"accuracy is that on {10 * runs.PER_CLASS['held out']:,} others, mean of {len(SEEDS)} seeds; gains over SGD, "
        "at its own best rate for that many steps, in points with 95 % t intervals over paired seeds. All images are "
        f"of the training split of MNIST. Backforward first, last: {SHORT} steps of it, the others are SGD.",
    )


def _accuracy(found: Sequence[Run], steps: int) -> np.ndarray:
    return 100 * np.nan_to_num(_values(found, "held-out accuracy", steps), nan=CHANCE)


def weights(folder: Path) -> Table:
    """Norms at equal steps, at equal passes and at equal training loss; held-out accuracy at equal training loss."""
    rows, count, higher, above, below = [], 0, 0, 0, 0
    for setting in runs.SETTINGS[1:]:
        whole = {}
        for rate in setting.rates:
            pair = _runs(folder, setting, rate, "SGD"), _runs(folder, setting, rate, "Backforward")
            if all(run["diverged_at"] is None for run in itertools.chain(*pair)):
                whole[rate] = pair
                logs = np.log(_values(pair[1], "norm", STEPS) / _values(pair[0], "norm", STEPS))
                mean, low, high = limits(logs)
                count, higher, above, below = count + 1, higher + (mean > 0), above + (low > 0), below + (high < 0)
        best = max(whole, key=lambda rate: _values(whole[rate][0], "choice accuracy", STEPS).mean())
        plain, own = whole[best]
        norms = [_values(own, "norm", STEPS)]
        norms += [_values(plain, "norm", steps) for steps in (STEPS, STEPS * own[0]["layers"])]
        same = [at_equal_loss(one, other) for one, other in zip(own, plain, strict=True)]
        ratios = [np.log(norms[0] / norms[1]), np.log(norms[0] / norms[2]), [math.log(norm) for norm, _ in same]]
        rows.append((
            setting.name, f"{best:g}", f"{norms[1].mean():.2f}", f"{norms[0].mean():.2f}",
            *(ratio(logs, ".3f") for logs in ratios), interval([100 * accuracy for _, accuracy in same], 2),
        ))  # fmt: skip
    return Table(
        title="Norms of the weights, and overfitting",
        command=COMMAND,
        columns=(
            "network",
            "rate",
            "SGD",
            "Backforward",
            "ratio at equal steps",
            "ratio at equal passes",
            "ratio at equal training loss",
            "held-out accuracy at equal training loss",
        ),
        rows=tuple(rows),
        remarks=f"Norm of all weight matrices and kernels after {STEPS} steps at the best rate of SGD at which no run "
        f"diverged, mean of {len(SEEDS)} seeds; ratio of Backforward to SGD with its 95 % t interval over paired "
        "seeds. Equal training loss: where both first come to the higher of their two losses after "
        f"{STEPS} steps, between records every {runs.EVERY} steps; accuracy is Backforward less SGD, in points. Of all "
        f"{count} pairs of network and rate at which no run diverged the norm is larger by Backforward in {higher}, "
        f"with an interval above 1 in {above}, and smaller with an interval below 1 in {below}.",
    )


def at_equal_loss(own: Run, plain: Run) -> tuple[float, float]:
    """Ratio of norms and difference of held-out accuracies where both have come to one training loss.

    It is the higher of the two after the steps of Backforward, so both have come to it by then.
    """
    records = STEPS // runs.EVERY
    target = max(run["curve"]["training loss"][records - 1] for run in (own, plain))
    norms, accuracies = [], []
    for run in (own, plain):
        logs = np.log(run["curve"]["training loss"][:records])
        first = int(np.argmax(logs <= math.log(target)))
        share = 1.0 if not first else (logs[first - 1] - math.log(target)) / (logs[first - 1] - logs[first])
        for values, name in ((norms, "norm"), (accuracies, "held-out accuracy")):
            curve = run["curve"][name]
            values.append(curve[first] * share + curve[max(first - 1, 0)] * (1 - share))
    return norms[0] / norms[1], accuracies[0] - accuracies[1]
