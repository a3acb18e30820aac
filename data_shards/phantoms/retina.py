"""Fundus photograph phantom: disc, fovea and vessels; the grade is how many spots there are, and which."""

from __future__ import annotations

import numpy as np

from data_shards.phantoms.canvas import Canvas, bias_field, to_uint8

CLASSES = {0: "none", 1: "mild", 2: "moderate", 3: "severe", 4: "proliferative"}
_SPOTS = (0, 4, 10, 20, 24)
_EXUDATES = (0, 0, 4, 9, 12)


def draw(anatomy: np.random.Generator, view: np.random.Generator, label: int, size: int) -> np.ndarray:
    """One fundus photograph.

    Args:
        anatomy: random numbers of the subject: the same for each of its images.
        view: random numbers of this image.
        label: grade 0 to 4: dark red spots from 1 on, yellow exudates from 2 on, more of both with the grade, and a
            tuft of new vessels on the disc at 4.
        size: pixels along an axis.

    Returns:
        uint8 of shape (3, size, size), red, green, blue.
    """
    canvas = Canvas(size).moved(
        angle=anatomy.normal(0, 0.1) + view.normal(0, 0.05),
        scale=anatomy.uniform(0.92, 1.1),
        shift=tuple(view.normal(0, 0.06, 2)),
    )
    side = anatomy.choice([-1.0, 1.0])
    disc_x, disc_y = side * anatomy.uniform(0.4, 0.55), anatomy.normal(0, 0.06)
    tint = np.array([anatomy.uniform(0.6, 0.85), anatomy.uniform(0.25, 0.42), anatomy.uniform(0.08, 0.2)])
    image = tint[:, None, None] * (1 + 0.05 * canvas.texture(anatomy, 3))
    image = _paint(image, canvas.ellipse(0, 0.02, 0.18, 0.18, softness=0.15) * 0.4, tint * [0.7, 0.4, 0.4])
    image = _paint(image, _vessels(canvas, anatomy, disc_x, disc_y, side) * 0.7, tint * [0.7, 0.35, 0.5])
    image = _paint(image, canvas.ellipse(disc_x, disc_y, 0.14, 0.17, softness=0.03) * 0.85, (0.95, 0.8, 0.5))
    image = _paint(image, _spots(canvas, anatomy, _SPOTS[label], 0.09), (0.3, 0.06, 0.05))
    image = _paint(image, _spots(canvas, anatomy, _EXUDATES[label], 0.1), (0.95, 0.85, 0.4))
    # Reflections and dust look like exudates and spots, in every grade.
    image = _paint(image, _spots(canvas, view, int(view.integers(0, 4)), 0.07), (0.9, 0.8, 0.5))
    image = _paint(image, _spots(canvas, view, int(view.integers(0, 4)), 0.07), (0.3, 0.1, 0.08))
    if label == 4:
        tuft = np.abs(canvas.texture(anatomy, 9)) < 0.35
        image = _paint(image, tuft * canvas.ellipse(disc_x, disc_y, 0.38, 0.38) * 0.7, tint * [0.6, 0.25, 0.3])
    image *= bias_field(canvas, view, 0.3) * view.uniform(0.75, 1.2)
    image = image * Canvas(size).ellipse(0, 0, 0.97, 0.97) + view.normal(0, view.uniform(0.01, 0.03), image.shape)
    return to_uint8(image)


def _paint(image_CHW: np.ndarray, cover_HW: np.ndarray, colour: object) -> np.ndarray:
    """Lay a colour over the image where ``cover_HW`` says, from 0 to 1."""
    return image_CHW + (np.asarray(colour)[:, None, None] - image_CHW) * cover_HW


def _vessels(canvas: Canvas, anatomy: np.random.Generator, x: float, y: float, side: float) -> np.ndarray:
    """Arcades that leave the disc above and below and bend around the fovea."""
    cover = np.zeros_like(canvas.x_HW)
    for direction in (-1, -1, 1, 1):
        reach, lift = anatomy.uniform(0.9, 1.6), anatomy.uniform(0.35, 0.75)
        along = np.clip((x - canvas.x_HW) * side / reach, 0, 1)
        course = y + direction * lift * np.sin(np.pi * along**0.7) + 0.03 * np.sin(9 * along + anatomy.uniform(0, 6))
        width = anatomy.uniform(0.015, 0.04) * (1.2 - along)
        cover = np.maximum(cover, canvas.inside(np.abs(canvas.y_HW - course) - width) * (along > 0))
    return cover


def _spots(canvas: Canvas, random: np.random.Generator, count: int, size: float) -> np.ndarray:
    cover = np.zeros_like(canvas.x_HW)
    for _ in range(count):
        angle, distance = random.uniform(0, 2 * np.pi), 0.85 * np.sqrt(random.uniform(0, 1))
        radius = size * random.uniform(0.3, 1.0)
        spot = canvas.ellipse(distance * np.cos(angle), distance * np.sin(angle), radius, radius)
        cover = np.maximum(cover, random.uniform(0.4, 0.9) * spot)
    return cover
