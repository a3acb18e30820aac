"""The tangent space of covariances: what a linear model reads in place of matrices, fitted to training cases alone.

Barachant et al., Classification of covariance matrices using a Riemannian-based kernel (Neurocomputing 2013): at the
mean of the training cases under the affine-invariant metric a covariance becomes the vector of
``log(M^-1/2 C M^-1/2)``. Before, the channels are reduced to those directions along which tokens of training cases vary
most, and each matrix is shrunk toward the identity, for it may be of lower rank than it has channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_shards.support.errors import DataError
from finetune.spd.covariance import shrunk
from finetune.spd.eigen import inverse_square_root, logarithm
from finetune.spd.mean import airm_mean
from finetune.spd.vector import matrices, vectorised
from finetune.targets.logistic import finite
from pretrain.threads import one_thread

SHRINKAGE = 0.1
FLOOR = 1e-5
"""Of the mean variance of a channel over all training cases."""
_AT_ONCE = 256
"""Whole matrices of so many cases are held."""


@dataclass(frozen=True)
class TangentSpace:
    """From covariances to vectors.

    Attributes:
        basis_DK: orthonormal columns to which channels are reduced.
        whitener_KK: ``M^-1/2`` of the mean of the training cases.
        floor: what is added to each variance.
        scale: by which vectors are divided, so that their coordinates have mean square 1 over the training cases.
    """

    basis_DK: np.ndarray
    whitener_KK: np.ndarray
    floor: float
    scale: float

    @classmethod
    def of(cls, covariances_NV: np.ndarray, channels: int) -> TangentSpace:
        """The tangent space at the mean of these covariances.

        Args:
            covariances_NV: as :func:`~finetune.spd.vector.vectorised` writes them.
            channels: to how many they are reduced, if they have more.

        Raises:
            DataError: they are not finite, or tokens do not vary in any case.
        """
        mean_DD = matrices(torch.from_numpy(finite(covariances_NV).mean(axis=0, dtype=np.float64)))
        floor = FLOOR * float(mean_DD.diagonal().mean())
        if not floor > 0:
            raise DataError("reads tangent: in no given case there are tokens that differ, so there is no covariance")
        with one_thread():
            basis_DK = torch.linalg.eigh(mean_DD).eigenvectors.flip(-1)[:, :channels]
        whitener_KK = inverse_square_root(airm_mean(_reduced(covariances_NV, basis_DK, floor)))
        space = cls(basis_DK.numpy(), whitener_KK.numpy(), floor, 1.0)
        scale = float(np.sqrt(np.mean(space(covariances_NV) ** 2)))
        # A single case, or cases that are all equal, lie at their mean.
        return cls(space.basis_DK, space.whitener_KK, floor, scale if scale > 0 else 1.0)

    def __call__(self, covariances_NV: np.ndarray) -> np.ndarray:
        """Vectors ``(N, K (K + 1) / 2)``, float64."""
        basis_DK, whitener_KK = torch.from_numpy(self.basis_DK), torch.from_numpy(self.whitener_KK)
        reduced_NKK = _reduced(covariances_NV, basis_DK, self.floor)
        vectors_NV: np.ndarray = vectorised(logarithm(whitener_KK @ reduced_NKK @ whitener_KK)).numpy() / self.scale
        return vectors_NV

    def arrays(self) -> dict[str, np.ndarray]:
        """All there is to it, by name."""
        return {
            "basis": self.basis_DK,
            "whitener": self.whitener_KK,
            "floor": np.array(self.floor),
            "scale": np.array(self.scale),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], width: int) -> TangentSpace:
        """Read back what :meth:`arrays` gave.

        Args:
            arrays: by name.
            width: of the vectors it is to read.

        Raises:
            KeyError: one is missing.
            ValueError: one has another shape, or a value that no fit gives.
        """
        basis_DK, whitener_KK = arrays["basis"], arrays["whitener"]
        floor, scale = (float(arrays[name].item()) for name in ("floor", "scale"))
        dim, channels = basis_DK.shape
        if dim * (dim + 1) // 2 != width or not channels <= dim or whitener_KK.shape != (channels, channels):
            raise ValueError(f"tangent space of {basis_DK.shape} and {whitener_KK.shape} for vectors of {width}")
        if not all(np.isfinite(array).all() for array in arrays.values()) or not floor > 0 or not scale > 0:
            raise ValueError("tangent space: expected finite numbers, floor and scale above 0")
        return cls(basis_DK, whitener_KK, floor, scale)

    @property
    def width(self) -> int:
        """Of the vectors it gives."""
        return int(self.basis_DK.shape[1] * (self.basis_DK.shape[1] + 1) // 2)


def varies(covariances_NV: np.ndarray) -> bool:
    """Whether there is anything in these covariances: a tangent space exists."""
    return len(covariances_NV) > 0 and bool(np.any(covariances_NV))


def _reduced(covariances_NV: np.ndarray, basis_DK: Tensor, floor: float) -> Tensor:
    """Reduced and shrunk, ``(N, K, K)`` float64; the whole matrices of all cases at once may not fit into memory."""
    parts = []
    for start in range(0, len(covariances_NV), _AT_ONCE):
        part = torch.from_numpy(np.ascontiguousarray(covariances_NV[start : start + _AT_ONCE])).double()
        parts.append(basis_DK.mT @ matrices(part) @ basis_DK)
    return shrunk(torch.cat(parts), SHRINKAGE, floor)
