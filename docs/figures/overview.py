"""The picture of the README: from an archive to a report, the command of each step, and who takes it."""

from __future__ import annotations

import numpy as np

from data_shards.sources.phantoms import Phantoms
from docs.figures.svg import AMBER, BLUE, INK, SOFT, TEAL, Drawing

STEPS = (
    ("Archive", ("DICOM, NIfTI, PNG", "ADNI, MedMNIST"), "shards build"),
    ("Shards", ("tar, manifest, index", "splits by subject"), "pretrain"),
    ("Backbone", ("Perceiver IO, 2D and 3D", "SimCLR, BYOL and others"), "models promote"),
    ("Registry", ("versions, aliases,", "a card for each model"), "models pull"),
    ("Few labels", ("tens to hundreds of cases", "heads, calibration"), "finetune"),
    ("Report", ("scores with intervals", "maps, abstention"), "predict, explain"),
)
WIDTH, GAP, LEFT, TOP, HEIGHT = 178, 14, 14, 74, 176
PHANTOMS = ("phantom-brain-mri-2d", "phantom-chest-xray", "phantom-abdomen-ct-2d", "phantom-knee-mri-2d")


def draw() -> str:
    """The SVG."""
    page = Drawing(LEFT * 2 + 6 * WIDTH + 5 * GAP, 318, "From an archive of images to a report, step by step")
    for place, (name, told, command) in enumerate(STEPS):
        x = _left(place)
        page.box(x, TOP, WIDTH, HEIGHT, fill="#f6f9fa")
        page.words(x + 12, TOP + 24, name, size=16, bold=True)
        page.lines(x + 12, TOP + 46, told, size=12, ink=SOFT, step=16)
        page.words(x + 12, TOP + HEIGHT + 24, command, size=12.5, mono=True, ink=INK)
        if place:
            page.arrow((x - GAP, TOP + 20), (x - 2, TOP + 20))
    _images(page, _left(0) + 12)
    _tars(page, _left(1) + 12)
    _latents(page, _left(2) + 12)
    _versions(page, _left(3) + 12)
    _labels(page, _left(4) + 12)
    _intervals(page, _left(5) + 12)
    middle = _left(3) + WIDTH / 2  # of the registry, where one hands over to the other
    _user(page, _left(0), middle - 4, 40, "the pretrainer: one machine, or a Ray cluster", TEAL)
    _user(page, middle + 4, _left(5) + WIDTH, 40, "the clinic-side researcher: a workstation", BLUE)
    told = "the method researcher: one file for an objective, a head or a source"
    _user(page, _left(2), _left(4) + WIDTH, TOP + HEIGHT + 58, told, AMBER)
    return page.text()


def _left(place: int) -> float:
    return LEFT + place * (WIDTH + GAP)


def _user(page: Drawing, left: float, right: float, y: float, who: str, ink: str) -> None:
    rule = y + 12 if y < TOP else y - 18
    page.line(left, rule, right, rule, ink=ink, width=2.5)
    page.words((left + right) / 2, y, who, size=13, ink=ink, bold=True, anchor="middle")


def _images(page: Drawing, x: float) -> None:
    for place, name in enumerate(PHANTOMS):
        image_HW = Phantoms(name, size=48, subjects=4, images_per_subject=3).sample(1).image.pixels[0]
        page.picture(x + (place % 2) * 54, TOP + 72 + place // 2 * 50, 46, image_HW)


def _tars(page: Drawing, x: float) -> None:
    for place in range(4):
        page.box(x + place * 14, TOP + 80 + place * 14, 74, 34, edge=TEAL)
    page.words(x + 50, TOP + 144, ".tar", size=12, ink=TEAL, mono=True)


def _latents(page: Drawing, x: float) -> None:
    """A grid of tokens read by a few latents."""
    for place in range(25):
        page.box(x + place % 5 * 15, TOP + 82 + place // 5 * 15, 12, 12, edge=SOFT)
    for place in range(4):
        page.box(x + 120, TOP + 82 + place * 19, 22, 12, fill=TEAL, edge=TEAL)
        page.line(x + 74, TOP + 118, x + 120, TOP + 88 + place * 19, ink=TEAL)


def _versions(page: Drawing, x: float) -> None:
    for place, alias in enumerate(("", "staging", "champion")):
        page.box(x, TOP + 80 + place * 28, 44, 22, edge=BLUE)
        page.words(x + 22, TOP + 95 + place * 28, f"v{place + 1}", size=12, ink=BLUE, anchor="middle")
        page.words(x + 54, TOP + 95 + place * 28, alias, size=12, ink=SOFT, mono=True)


def _labels(page: Drawing, x: float) -> None:
    """Many cases, of which few are labelled."""
    labelled = {3, 8, 17, 22, 27}
    for place in range(32):
        ink = (BLUE if place % 2 else AMBER) if place in labelled else "#dde4e8"
        page.box(x + place % 8 * 19, TOP + 86 + place // 8 * 19, 15, 15, fill=ink, edge=ink)


def _intervals(page: Drawing, x: float) -> None:
    """Points with whiskers; they stand for no measurement."""
    for place, (low, middle, high) in enumerate(np.array([(20, 48, 76), (44, 74, 104), (70, 98, 126)])):
        y = TOP + 92 + place * 26
        page.line(x + low, y, x + high, y, ink=BLUE, width=2)
        page.box(x + middle - 4, y - 4, 8, 8, fill=BLUE, edge=BLUE)
    page.line(x, TOP + 164, x + 150, TOP + 164)
