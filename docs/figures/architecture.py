"""The map of the packages: floors as the import contracts of pyproject.toml have them, and the way data flow."""

from __future__ import annotations

import tomllib
from pathlib import Path

from docs.figures.svg import AMBER, BLUE, SOFT, TEAL, Drawing

ROOT = Path(__file__).resolve().parents[2]
WHAT = {
    "medformer": ("the face: the command, the public names", "no logic of its own"),
    "cluster": ("Ray jobs and Ray Train, MLflow registry", "planner, search, restarts"),
    "finetune": ("heads, strategies, steppers, targets", "estimator, scores, explanation, report"),
    "pretrain": ("Perceiver IO backbone, objectives, views", "DeepSpeed engine, checkpoints, model bundles"),
    "data_shards": (
        "sources, preparation, shards, manifest, index",
        "the sample stream: one order for any number of ranks",
    ),
}
INKS = {"medformer": SOFT, "cluster": AMBER, "finetune": BLUE, "pretrain": TEAL, "data_shards": TEAL}
LEFT, WIDTH, HEIGHT, GAP = 16, 720, 84, 16


def floors() -> list[list[str]]:
    """The packages of each floor, the highest first: what one imports stands below it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "floors")
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def draw() -> str:
    """The SVG."""
    rows = floors()
    page = Drawing(2 * LEFT + WIDTH + 260, 2 * LEFT + len(rows) * (HEIGHT + GAP) + 24, "The packages of Medformer")
    page.words(LEFT, LEFT + 14, "A package imports only what stands below it.", ink=SOFT)
    page.words(LEFT + WIDTH + 30, LEFT + 14, "What flows between them", ink=SOFT)
    for number, names in enumerate(rows):
        y = LEFT + 28 + number * (HEIGHT + GAP)
        width = (WIDTH - GAP * (len(names) - 1)) / len(names)
        for place, name in enumerate(names):
            x = LEFT + place * (width + GAP)
            page.box(x, y, width, HEIGHT, fill="#f6f9fa", edge=INKS[name])
            page.words(x + 14, y + 26, f"{name}/", size=16, bold=True, mono=True, ink=INKS[name])
            page.lines(x + 14, y + 48, WHAT[name], size=12.5, ink=SOFT)
    _flow(page, LEFT + WIDTH + 30, LEFT + 28, len(rows))
    return page.text()


def _flow(page: Drawing, x: float, y: float, count: int) -> None:
    """Upwards: an archive becomes a model, and a model with labels becomes a report."""
    told = (
        "report, predictions",
        "registry: name@alias",
        "model bundle: safetensors",
        "batches for a rank",
        "archive of images",
    )
    step = (count * (HEIGHT + GAP) - GAP - 40) / (len(told) - 1)
    for place, text in enumerate(told):
        page.box(x, y + place * step, 216, 40)
        page.words(x + 108, y + place * step + 25, text, size=13, anchor="middle")
        if place:
            page.arrow((x + 108, y + place * step), (x + 108, y + (place - 1) * step + 42))
