"""The plane on which the embedding plot is drawn."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA


def principal_plane(embeddings_ND: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Project onto the two largest principal components.

    A linear map keeps distances in proportion and has nothing to tune, so it cannot draw clusters that are not there,
    as t-SNE and UMAP can. The sign of a component, which is arbitrary, makes its largest coordinate positive.

    Args:
        embeddings_ND: at least one row, finite.

    Returns:
        Coordinates ``(N, 2)`` and the share of the variance that each component holds.
    """
    points_N2, shares = np.zeros((len(embeddings_ND), 2)), np.zeros(2)
    if np.ptp(embeddings_ND, axis=0).any():
        plane = PCA(min(2, *embeddings_ND.shape), svd_solver="full")
        found = plane.fit_transform(embeddings_ND.astype(np.float64))
        points_N2[:, : found.shape[1]], shares[: found.shape[1]] = found, plane.explained_variance_ratio_
    largest = points_N2[np.abs(points_N2).argmax(axis=0), [0, 1]]
    points_N2 *= np.where(largest < 0, -1.0, 1.0)
    return points_N2, (float(shares[0]), float(shares[1]))
