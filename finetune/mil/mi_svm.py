"""Support vector machines on bags of vectors: mi-SVM and MI-SVM (Andrews et al., NIPS 2002, eq. 4 and 6, figures 2, 3).

Both alternate between two exact steps on one objective, so it never rises:

- mi-SVM: ``min over y, f of ||f||^2 / 2 + C sum_i hinge(y_i f(x_i))``, all instances of negative bags negative, one of
  each positive bag positive at least. For given ``f`` the best ``y`` is its sign, and where a bag has no positive sign
  then, its largest value;
- MI-SVM: ``min over f of ||f||^2 / 2 + C sum_I hinge(Y_I max_(i in I) f(x_i))``, where one
  witness speaks for a positive bag, and every instance for a negative one.

Shape suffixes: N instances of all bags together, H of one, B bags, D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted

from data_shards.support.errors import ConfigError, DataError

Bags = Sequence[np.ndarray]
FORMS = ("mi", "MI")


@dataclass(frozen=True)
class Machine:
    """A support vector machine on a kernel matrix.

    Attributes:
        support: positions of the support vectors.
        coefficients: of these.
        intercept: of the decision.
        objective: half the squared norm, and ``C`` times the hinge losses of what it was fitted to.
    """

    support: np.ndarray
    coefficients: np.ndarray
    intercept: float
    objective: float

    @classmethod
    def fit(cls, kernel_NN: np.ndarray, rows: np.ndarray, signs: np.ndarray, penalty: float) -> Machine:
        """Fitted to the instances at ``rows``, labelled -1 and +1."""
        svc = SVC(C=penalty, kernel="precomputed", tol=1e-6)
        svc.fit(kernel_NN[np.ix_(rows, rows)], signs)
        support, coefficients = rows[svc.support_], svc.dual_coef_[0]
        machine = cls(support, coefficients, float(svc.intercept_[0]), 0.0)
        hinge = np.maximum(0, 1 - signs * machine.decide(kernel_NN[rows])).sum()
        norm = coefficients @ kernel_NN[np.ix_(support, support)] @ coefficients
        return cls(support, coefficients, machine.intercept, float(norm / 2 + penalty * hinge))

    def decide(self, kernel_MN: np.ndarray) -> np.ndarray:
        """Signed distances ``(M,)``, from the kernels with all instances of the fit."""
        decisions: np.ndarray = kernel_MN[:, self.support] @ self.coefficients + self.intercept
        return decisions


class MISVC(ClassifierMixin, BaseEstimator):
    """A classifier of bags of vectors into two classes, in the shape scikit-learn users know.

    Args:
        C: weight of the hinge losses.
        kernel: ``linear``, ``rbf`` or another of :func:`sklearn.metrics.pairwise.pairwise_kernels`.
        gamma: of the kernel; ``scale`` is 1 over the number of channels and the variance of all values.
        form: ``mi`` labels every instance of a positive bag; ``MI`` has one witness speak for it.
        max_rounds: of relabelling; reached only where signs change without end within the tolerance of the solver.

    Attributes:
        classes_: the two labels, sorted; a bag is of the second one when an instance is.
        objective_: after the fit of each round; it never rises.
        signs_: of each instance, a list of arrays: for ``mi`` the label it was given at the end, for ``MI`` +1 for the
            witness of a positive bag and 0 for its others.
    """

    def __init__(
        self, C: float = 1.0, kernel: str = "rbf", gamma: float | str = "scale", form: str = "mi", max_rounds: int = 50
    ) -> None:
        self.C = C
        self.kernel = kernel
        self.gamma = gamma
        self.form = form
        self.max_rounds = max_rounds

    def fit(self, X: Bags, y: Any) -> Self:
        """Fit to bags, each ``(H, D)`` with one instance at least, and a label for each.

        Raises:
            DataError: a bag has no instance or other channels, or there are not two labels.
            ConfigError: ``form`` is neither.
        """
        if self.form not in FORMS:
            raise ConfigError(f"form {self.form!r}, expected {' or '.join(FORMS)}")
        vectors_ND, owner_N = _stacked(X)
        self.classes_, index_B = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) != 2 or len(index_B) != len(X):
            raise DataError(f"{len(X)} bags, {len(index_B)} labels of {len(self.classes_)} values; expected 2 values")
        self._vectors_ND = vectors_ND
        self._gamma = 1 / (vectors_ND.shape[1] * (vectors_ND.var() or 1.0)) if self.gamma == "scale" else self.gamma
        kernel_NN = self._kernels(vectors_ND)
        positive_N = index_B[owner_N] == 1
        signs_N = np.where(positive_N, 1, -1)
        if self.form == "MI":
            # The bags start with their means; these are no instances, so the objective of that fit is of another task.
            first = self._of_means(vectors_ND, owner_N, positive_N)
            signs_N = _witnesses(first, owner_N, positive_N)
        self.objective_: list[float] = []
        for _ in range(self.max_rounds):
            machine = Machine.fit(kernel_NN, np.flatnonzero(signs_N), signs_N[signs_N != 0], self.C)
            if self.objective_ and machine.objective >= self.objective_[-1]:
                break  # less than what the solver can tell apart
            self.objective_.append(machine.objective)
            self._machine, kept_N = machine, signs_N
            decisions_N = machine.decide(kernel_NN)
            relabel = _witnesses if self.form == "MI" else _relabelled
            signs_N = relabel(decisions_N, owner_N, positive_N)
            if np.array_equal(signs_N, kept_N):
                break
        self.signs_ = np.split(kept_N, np.flatnonzero(np.diff(owner_N)) + 1)
        return self

    def instance_scores(self, X: Bags) -> list[np.ndarray]:
        """The decision about each instance of each bag, ``(H,)``.

        Raises:
            NotFittedError: it is not fitted.
            DataError: a bag has no instance or other channels.
        """
        check_is_fitted(self, "objective_")
        vectors_ND, owner_N = _stacked(X)
        if vectors_ND.shape[1] != self._vectors_ND.shape[1]:
            raise DataError(f"instances of {vectors_ND.shape[1]} channels, expected {self._vectors_ND.shape[1]}")
        decisions_N = self._machine.decide(self._kernels(vectors_ND))
        return np.split(decisions_N, np.flatnonzero(np.diff(owner_N)) + 1)

    def decision_function(self, X: Bags) -> np.ndarray:
        """The largest decision of each bag, ``(B,)``. Raises: as :meth:`instance_scores`."""
        return np.array([scores.max() for scores in self.instance_scores(X)])

    def predict(self, X: Bags) -> np.ndarray:
        """The label of each bag, ``(B,)``. Raises: as :meth:`instance_scores`."""
        labels: np.ndarray = self.classes_[(self.decision_function(X) > 0).astype(int)]
        return labels

    def _kernels(self, vectors_MD: np.ndarray) -> np.ndarray:
        """Kernels of vectors with all instances of the fit, ``(M, N)``."""
        found: np.ndarray = pairwise_kernels(
            vectors_MD, self._vectors_ND, metric=self.kernel, filter_params=True, gamma=self._gamma
        )
        return found

    def _of_means(self, vectors_ND: np.ndarray, owner_N: np.ndarray, positive_N: np.ndarray) -> np.ndarray:
        """Decisions about the instances by a machine that was fitted to the means of positive bags."""
        bags = np.unique(owner_N[positive_N])
        means = np.stack([vectors_ND[owner_N == bag].mean(axis=0) for bag in bags])
        given = np.concatenate([means, vectors_ND[~positive_N]])
        signs = np.repeat([1, -1], [len(means), (~positive_N).sum()])
        arguments = {"metric": self.kernel, "filter_params": True, "gamma": self._gamma}
        machine = Machine.fit(pairwise_kernels(given, given, **arguments), np.arange(len(given)), signs, self.C)
        return machine.decide(pairwise_kernels(vectors_ND, given, **arguments))


def _stacked(bags: Bags) -> tuple[np.ndarray, np.ndarray]:
    """All instances ``(N, D)`` in float64, and the bag of each."""
    arrays = [np.asarray(bag, np.float64) for bag in bags]
    for number, bag in enumerate(arrays):
        if bag.ndim != 2 or not len(bag) or bag.shape[1] != arrays[0].shape[1] or not np.isfinite(bag).all():
            raise DataError(
                f"bag {number}: expected finite vectors H,{arrays[0].shape[-1]} with one instance at least, "
                f"found shape {bag.shape}"
            )
    if not arrays:
        raise DataError("no bags")
    return np.concatenate(arrays), np.repeat(np.arange(len(arrays)), [len(bag) for bag in arrays])


def _witnesses(decisions_N: np.ndarray, owner_N: np.ndarray, positive_N: np.ndarray) -> np.ndarray:
    """-1 in negative bags; +1 for the largest of each positive bag, 0 for its others."""
    signs_N = np.where(positive_N, 0, -1)
    for bag in np.unique(owner_N[positive_N]):
        mine = np.flatnonzero(owner_N == bag)
        signs_N[mine[decisions_N[mine].argmax()]] = 1
    return signs_N


def _relabelled(decisions_N: np.ndarray, owner_N: np.ndarray, positive_N: np.ndarray) -> np.ndarray:
    """-1 in negative bags; the signs in positive ones, of which the largest is +1 in any case."""
    signs_N = np.where(positive_N & (decisions_N > 0), 1, -1)
    signs_N[_witnesses(decisions_N, owner_N, positive_N) == 1] = 1
    return signs_N
