"""The plane on which the embedding plot is drawn."""

from __future__ import annotations

import numpy as np


def principal_plane(embeddings_ND: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Project onto the two largest principal components.

    A linear map keeps distances in proportion and has nothing to tune, so it cannot draw clusters that are not there,
    as t-SNE and UMAP can. The sign of a component, which is arbitrary, makes its largest coordinate positive.

    Args:
        embeddings_ND: at least one row, finite.

    Returns:
        Coordinates ``(N, 2)`` and the share of the variance that each component holds.
    """
    centred = embeddings_ND.astype(np.float64) - embeddings_ND.mean(axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(centred), 2))
    kept = min(2, len(sizes))
    points[:, :kept] = left[:, :kept] * sizes[:kept]
    largest = points[np.abs(points).argmax(axis=0), [0, 1]]
    points *= np.where(largest < 0, -1.0, 1.0)
    variances = np.zeros(2)
    total = float(np.square(sizes).sum())
    if total > 0:
        variances[:kept] = np.square(sizes[:kept]) / total
    return points, (float(variances[0]), float(variances[1]))
