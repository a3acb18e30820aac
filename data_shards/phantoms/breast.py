"""Breast ultrasound phantom: layers, speckle and one mass; what tells malignant from benign is outline and shadow."""

from __future__ import annotations

import numpy as np

from data_shards.phantoms.canvas import Canvas, bias_field, to_uint8

CLASSES = {0: "malignant", 1: "benign"}


def draw(anatomy: np.random.Generator, view: np.random.Generator, label: int, size: int) -> np.ndarray:
    """One ultrasound image.

    Args:
        anatomy: random numbers of the subject: the same for each of its images.
        view: random numbers of this image.
        label: 0 draws an irregular mass, rather upright, with an acoustic shadow behind it; 1 a smooth flat one,
            with enhancement behind it. Both tendencies overlap between the classes.
        size: pixels along an axis.

    Returns:
        uint8 of shape (1, size, size).
    """
    canvas = Canvas(size).moved(
        angle=view.normal(0, 0.08), scale=anatomy.uniform(0.85, 1.2), shift=(view.normal(0, 0.1), 0.0)
    )
    echo = _layers(canvas, anatomy)
    x, y = anatomy.uniform(-0.45, 0.45) + view.normal(0, 0.05), anatomy.uniform(-0.25, 0.35)
    radius = anatomy.uniform(0.16, 0.38)
    mass = _mass(canvas, anatomy, x, y, radius, malignant=label == 0)
    echo += (anatomy.uniform(0.04, 0.2) - echo) * mass * anatomy.uniform(0.6, 0.95)
    echo *= np.exp(_behind(canvas, x, y, radius) * _attenuation(anatomy, malignant=label == 0))
    for _ in range(int(view.integers(0, 3))):
        x, y, width = view.uniform(-0.9, 0.9), view.uniform(-0.9, 0.2), view.uniform(0.05, 0.2)
        echo *= np.exp(-view.uniform(0.2, 0.7) * _behind(canvas, x, y, width))
    echo *= bias_field(canvas, view, 0.3)
    speckle = view.rayleigh(0.8, echo.shape)
    echo = np.clip(echo, 0.01, None) * (1 + view.uniform(0.25, 0.45) * (speckle - 1))
    return to_uint8(echo ** view.uniform(0.8, 1.2))[None]


def _layers(canvas: Canvas, anatomy: np.random.Generator) -> np.ndarray:
    """Skin, fat, glandular tissue and muscle, with wavy borders."""
    wave = anatomy.uniform(0.02, 0.08) * np.sin(canvas.x_HW * anatomy.uniform(1, 4) + anatomy.uniform(0, 6))
    depth = canvas.y_HW + wave
    echo = np.full_like(depth, anatomy.uniform(0.25, 0.35))
    borders = np.cumsum([-0.85, *anatomy.uniform(0.25, 0.5, 2), anatomy.uniform(0.5, 0.8)])
    for border, level in zip(borders, anatomy.uniform(0.3, 0.7, 4), strict=True):
        echo += (level - echo) * canvas.inside(border - depth, 0.04)
    return echo + anatomy.uniform(0.03, 0.08) * canvas.texture(anatomy, anatomy.uniform(3, 7))


def _mass(
    canvas: Canvas, anatomy: np.random.Generator, x: float, y: float, radius: float, *, malignant: bool
) -> np.ndarray:
    amplitude = anatomy.uniform(0.08, 0.28, 7) if malignant else anatomy.uniform(0, 0.07, 7)
    lobes = np.stack([amplitude, anatomy.uniform(0, 2 * np.pi, 7)], axis=1)
    upright = anatomy.normal(1.15, 0.2) if malignant else anatomy.normal(0.75, 0.15)
    squeezed = Canvas(canvas.size)
    squeezed.x_HW, squeezed.y_HW = canvas.x_HW - x, (canvas.y_HW - y) / np.clip(upright, 0.5, 1.6)
    return squeezed.blob(0, 0, radius, lobes, softness=0.05 if malignant else 0.02)


def _behind(canvas: Canvas, x: float, y: float, radius: float) -> np.ndarray:
    """1 in the column below a mass."""
    return canvas.inside(np.abs(canvas.x_HW - x) - radius * 0.8, 0.06) * canvas.inside(y - canvas.y_HW, 0.1)


def _attenuation(anatomy: np.random.Generator, *, malignant: bool) -> float:
    return float(anatomy.normal(-0.5, 0.35) if malignant else anatomy.normal(0.15, 0.25))
