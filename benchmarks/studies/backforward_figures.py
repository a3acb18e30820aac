"""Pictures of the study of Backforward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.studies import backforward_runs as runs
from benchmarks.studies.backforward_runs import EVERY, STEPS, Setting
from benchmarks.studies.paired import limits

SHOWN = (("MLP, 4 layers", 0.1), ("MLP, 8 layers", 0.03), ("convolutions, BatchNorm apart", 1.0))
DEEP = ("MLP, 2 layers", "MLP, 4 layers", "MLP, 8 layers")
COLOURS = {"SGD": "#1f5fa8", "Backforward": "#c8501e"}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "backforward",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(folder: Path) -> None:
    """Curves of the training loss, and its ratio by learning rate, as SVG files in the folder."""
    with mpl.rc_context(STYLE):
        for name, figure in (("curves", curves(folder)), ("rates", rates(folder))):
            figure.savefig(folder / f"backforward-{name}.svg", metadata={"Date": None}, bbox_inches="tight")


def curves(folder: Path) -> Figure:
    """Training loss against steps and against passes: geometric mean and 95 % interval over seeds."""
    figure = Figure(figsize=(8, 7.5), layout="constrained")
    axes = figure.subplots(len(SHOWN), 2, sharey="row")
    for row, (name, rate) in zip(axes, SHOWN, strict=True):
        setting = _setting(name)
        for arm, colour in COLOURS.items():
            found = runs.found(folder, setting, rate, arm)
            assert found is not None
            layers = found[0]["layers"]
            losses = np.array([run["curve"]["training loss"] for run in found])
            steps = EVERY * np.arange(1, losses.shape[1] + 1)
            for axis, scale, last in (
                (row[0], 1, STEPS),
                (row[1], layers if arm == "Backforward" else 1, STEPS * layers),
            ):
                kept = steps * scale <= last
                _band(axis, steps[kept] * scale, np.log(losses[:, kept]), arm, colour)
        row[0].set_ylabel(f"training loss\n{name}, rate {rate:g}")
        row[0].set_yscale("log")
        row[0].set_title("equal steps" if (name, rate) == SHOWN[0] else "")
        row[1].set_title("equal passes" if (name, rate) == SHOWN[0] else "")
        row[0].set_xlabel("steps")
        row[1].set_xlabel("forward passes")
    axes[0, 0].legend(frameon=False)
    return figure


def rates(folder: Path) -> Figure:
    """Ratio of the training losses by learning rate and depth."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, title in zip(axes, ("equal steps", "equal passes"), strict=True):
        for number, (name, marker) in enumerate(zip(DEEP, "os^", strict=True)):
            setting = _setting(name)
            points = []
            for rate in setting.rates:
                own, plain = (runs.found(folder, setting, rate, arm) for arm in ("Backforward", "SGD"))
                assert own is not None and plain is not None
                step = STEPS * (own[0]["layers"] if title == "equal passes" else 1)
                pairs = zip(own, plain, strict=True)
                logs = [
                    np.log(runs.at(a, "training loss", STEPS) / runs.at(b, "training loss", step)) for a, b in pairs
                ]
                if np.isfinite(logs).all():
                    points.append((rate * 1.06 ** (number - 1), *np.exp(limits(logs))))
            x, mean, low, high = np.array(points).T
            style = {"marker": marker, "color": f"C{number}", "label": name, "capsize": 2, "linewidth": 1}
            axis.errorbar(x, mean, [mean - low, high - mean], **style)
        axis.axhline(1, color="0.6", linewidth=1)
        axis.set(xscale="log", yscale="log", title=title, xlabel="learning rate")
    axes[0].set_ylabel("training loss, Backforward / SGD")
    axes[0].legend(frameon=False)
    return figure


def _setting(name: str) -> Setting:
    return next(setting for setting in runs.SETTINGS if setting.name == name)


def _band(axis: Any, x: np.ndarray, logs_SP: np.ndarray, label: str, colour: str) -> None:
    mean, low, high = np.exp(np.array([limits(column) for column in logs_SP.T])).T
    axis.plot(x, mean, color=colour, label=label)
    axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
