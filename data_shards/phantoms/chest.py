"""Chest radiograph phantom: thorax, lungs, heart, ribs; pneumonia is a cloudy opacity somewhere in a lung."""

from __future__ import annotations

import numpy as np

from data_shards.phantoms.canvas import Canvas, bias_field, to_uint8

CLASSES = {0: "clear", 1: "opacity"}


def draw(anatomy: np.random.Generator, view: np.random.Generator, label: int, size: int) -> np.ndarray:
    """One radiograph.

    Args:
        anatomy: random numbers of the subject: the same for each of its images.
        view: random numbers of this image.
        label: 1 puts an opacity into one lung; 0 leaves its place clear.
        size: pixels along an axis.

    Returns:
        uint8 of shape (1, size, size).
    """
    canvas = Canvas(size).moved(
        angle=anatomy.normal(0, 0.06) + view.normal(0, 0.04),
        scale=anatomy.uniform(0.88, 1.12),
        shift=tuple(anatomy.normal(0, 0.06, 2) + view.normal(0, 0.04, 2)),
    )
    image = 0.12 + 0.5 * canvas.ellipse(0, 0.1, 0.95, 1.25, softness=0.1)
    lungs = _lungs(canvas, anatomy)
    both = np.maximum(*lungs)
    image -= anatomy.uniform(0.28, 0.4) * both
    image += anatomy.uniform(0.25, 0.4) * canvas.ellipse(
        anatomy.uniform(0.08, 0.2), anatomy.uniform(0.25, 0.45), anatomy.uniform(0.25, 0.42), 0.3, softness=0.05
    )
    image += 0.2 * canvas.ellipse(0, 0, anatomy.uniform(0.08, 0.15), 1.2, softness=0.05)
    image += _ribs(canvas, anatomy) * canvas.ellipse(0, 0.1, 0.85, 1.1, softness=0.05)
    image += 0.05 * both * canvas.texture(view, anatomy.uniform(5, 9))
    side = int(anatomy.integers(2))
    opacity = _opacity(canvas, anatomy, view, -1 if side == 0 else 1)
    if label:
        image += opacity * lungs[side]
    if view.random() < 0.3:
        image += _wire(canvas, view)
    gamma = view.uniform(0.75, 1.35)
    image = np.clip(image * bias_field(canvas, view, 0.25), 0, 1) ** gamma
    image += view.normal(0, view.uniform(0.02, 0.05), image.shape)
    return to_uint8(image)[None]


def _lungs(canvas: Canvas, anatomy: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    height, width = anatomy.uniform(0.6, 0.8), anatomy.uniform(0.26, 0.36)
    gap, tilt = anatomy.uniform(0.38, 0.46), anatomy.uniform(0.05, 0.2)
    left = canvas.ellipse(-gap, anatomy.normal(0, 0.05), width, height, angle=tilt, softness=0.04)
    right = canvas.ellipse(gap, anatomy.normal(0, 0.05), width * anatomy.uniform(0.8, 1), height, angle=-tilt)
    return left, right


def _ribs(canvas: Canvas, anatomy: np.random.Generator) -> np.ndarray:
    """Bright bands that bend downwards to the sides."""
    bend, pitch, phase = anatomy.uniform(0.2, 0.6), anatomy.uniform(4, 6), anatomy.uniform(0, 2 * np.pi)
    bands = np.cos(2 * np.pi * pitch / 2 * (canvas.y_HW - bend * canvas.x_HW**2) + phase)
    return anatomy.uniform(0.04, 0.12) * np.maximum(bands, 0)


def _opacity(canvas: Canvas, anatomy: np.random.Generator, view: np.random.Generator, side: int) -> np.ndarray:
    x, y = side * anatomy.uniform(0.25, 0.6), anatomy.uniform(-0.4, 0.55)
    x, y = x + view.normal(0, 0.03), y + view.normal(0, 0.03)
    radius = anatomy.uniform(0.16, 0.4)
    lobes = np.stack([anatomy.uniform(0, 0.2, 4), anatomy.uniform(0, 2 * np.pi, 4)], axis=1)
    cloud = canvas.blob(x, y, radius, lobes, softness=0.12)
    return anatomy.uniform(0.12, 0.34) * cloud * (1 + 0.35 * canvas.texture(view, 6))


def _wire(canvas: Canvas, view: np.random.Generator) -> np.ndarray:
    """A lead or a tube: clutter that says nothing of the label."""
    slope, offset, bend = view.normal(0, 0.8), view.uniform(-0.6, 0.6), view.normal(0, 0.5)
    distance = np.abs(canvas.x_HW - offset - slope * canvas.y_HW - bend * canvas.y_HW**2)
    return view.uniform(0.2, 0.5) * canvas.inside(distance - 0.02)
