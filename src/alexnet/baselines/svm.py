"""Linear support vector machines, one class against the others, for vectors that lie in a file."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.progress import Progress, notify, progress

COSTS = (0.1, 1.0, 10.0)
"""The values of C among which cross-validation chooses."""
FOLDS = 3
EXACT_IMAGES = 5000
"""Images up to which the dual problem is solved exactly; stochastic gradient descent for more."""
CHOICE_IMAGES = 20_000
"""The most training images, and the most held-out images, by which C is chosen; more than `EXACT_IMAGES`."""
SGD_BATCH = 128
SGD_EPOCHS, SGD_STEPS = 5, 1000
"""The least number of epochs, and of steps, of stochastic gradient descent."""
ROWS = 512
"""Vectors in memory at a time."""


@dataclass(frozen=True)
class LinearSvm:
    """Weights, and the scale that turns scores into probabilities.

    Parameters
    ----------
    weights : ndarray
        (classes, length) float32.
    biases : ndarray
        (classes,) float32.
    scale : float
        Probabilities are the softmax of the scores times it, which keeps their order.
    cost : float
        C, the cost of a violated margin.
    validation_accuracy : float or None
        Accuracy on the images that the machines of cross-validation had not seen.
    """

    weights: np.ndarray
    biases: np.ndarray
    scale: float
    cost: float
    validation_accuracy: float | None

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """(N, length) float32 → (N, classes) float64."""
        from scipy.special import softmax

        return np.asarray(softmax(self.scale * (vectors @ self.weights.T + self.biases).astype(np.float64), axis=1))


def fit_svm(
    vectors: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    cost: float | None = None,
    balanced: bool = False,
    weights: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> LinearSvm:
    """Fit a linear SVM; choose C and the scale of the probabilities by cross-validation.

    Parameters
    ----------
    vectors : ndarray
        (n, length) floating point, of unit length; may be a memory map. More than `EXACT_IMAGES` must be in random
        order: they are read in sequence.
    labels : ndarray
        (n,) int64
    classes : int
        Number of classes; each needs an image.
    cost : float, optional
        C. Default: the value of `COSTS` with the highest accuracy in cross-validation.
    balanced : bool
        Weight images in inverse proportion to the images of their class.
    weights : ndarray, optional
        (n,) weight of each image.
    groups : ndarray, optional
        (n,) group of each image; the images of a group stay in one fold.
    seed : int
        Seed of the folds and of stochastic gradient descent.

    Raises
    ------
    AlexNetError
        If a class has no image.
    """
    counts = np.bincount(labels, minlength=classes)
    if not counts.all():
        raise AlexNetError(f"{int((counts == 0).sum())} of {classes} classes have no training image: an SVM needs one")
    each = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    if balanced:
        sums = np.bincount(labels, weights=each, minlength=classes)
        each = each * (each.sum() / (classes * np.maximum(sums, 1e-12)))[labels]
    problem = _Exact(vectors) if len(vectors) <= EXACT_IMAGES else _Streamed(vectors, seed)
    found = list(_cross_validated(problem, labels, classes, each, groups, cost, seed))
    chosen, scale, accuracy = 1.0 if cost is None else cost, 1.0, None
    if found:
        chosen, scores, seen = max(found, key=lambda one: (_accuracy(one[1], labels[one[2]]), -one[0]))
        scale, accuracy = _scale(scores, labels[seen]), _accuracy(scores, labels[seen])
    with progress(problem.steps(len(labels)), f"fit the SVM, C = {chosen:g}") as bar:
        fitted = problem.fit(np.arange(len(labels)), labels, classes, each, chosen, bar)
    return LinearSvm(*fitted, scale, chosen, accuracy)


def _cross_validated(
    problem: _Exact | _Streamed,
    labels: np.ndarray,
    classes: int,
    weights: np.ndarray,
    groups: np.ndarray | None,
    cost: float | None,
    seed: int,
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Yield each C with the scores of held-out images and their indices; nothing where no class can be split."""
    folds = [
        (train[:CHOICE_IMAGES], held[:CHOICE_IMAGES]) for train, held in _folds(labels, groups, seed)[: problem.folds]
    ]
    if cost is None and any(len(train) == CHOICE_IMAGES for train, _ in folds):
        notify(f"C is chosen by SVMs fitted to {CHOICE_IMAGES:,} images, the final one to all {len(labels):,}")
    costs = COSTS if cost is None else (cost,)
    steps = len(costs) * sum(problem.steps(len(train)) for train, _ in folds)
    with progress(steps, "cross-validate C") as bar:
        for one in costs if folds else ():
            scores = []
            for train, held in folds:
                scores.append(problem.scores(held, *problem.solve(train, labels, classes, weights, one, bar)))
            yield one, np.concatenate(scores), np.concatenate([held for _, held in folds])


def _folds(labels: np.ndarray, groups: np.ndarray | None, seed: int) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out indices of each fold; every training part has images of all classes."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    present, counts = np.unique(labels, return_counts=True)
    number = min(FOLDS, int(counts.max()), FOLDS if groups is None else len(np.unique(groups)))
    if counts.min() < 2 or number < 2:
        return []
    folds = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds
        splits = list(folds(number, shuffle=True, random_state=seed).split(labels, labels, groups))
    return [(train, held) for train, held in splits if len(np.unique(labels[train])) == len(present)]


def _accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    return float((scores.argmax(1) == labels).mean())


def _scale(scores: np.ndarray, labels: np.ndarray) -> float:
    """The factor of the scores with the smallest log loss."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def log_loss(exponent: float) -> float:
        return float(-log_softmax(math.exp(exponent) * scores, axis=1)[np.arange(len(labels)), labels].mean())

    return math.exp(minimize_scalar(log_loss, bounds=(-5, 5), method="bounded").x)


def _for_each_class(weights: np.ndarray, biases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One row per class, also where two classes share one machine."""
    if len(biases) == 1:
        weights, biases = np.concatenate([-weights, weights]), np.concatenate([-biases, biases])
    return weights.astype(np.float32), biases.astype(np.float32)


class _Exact:
    """The dual problem. A linear SVM depends on scalar products only, and n vectors span at most n dimensions: the
    vectors are replaced by their coordinates in an orthonormal basis of that space, from the eigenvectors of their
    Gram matrix.
    """

    folds = FOLDS

    def __init__(self, vectors: np.ndarray) -> None:
        from scipy.linalg import eigh

        self.vectors = vectors
        count = len(vectors)
        gram = np.empty((count, count), dtype=np.float32)
        with progress(count, "scalar products") as bar:
            for first in range(0, count, ROWS):
                block = np.asarray(vectors[first : first + ROWS], dtype=np.float32)
                for second in range(0, first + 1, ROWS):
                    other = block if second == first else np.asarray(vectors[second : second + ROWS], dtype=np.float32)
                    product = block @ other.T
                    gram[first : first + ROWS, second : second + ROWS] = product
                    gram[second : second + ROWS, first : first + ROWS] = product.T
                bar.advance(len(block))
        values, basis = eigh(gram.astype(np.float64), overwrite_a=True)
        kept = values > 1e-7 * values[-1]
        self._roots, self._basis = np.sqrt(values[kept]), basis[:, kept]
        self.coordinates = self._basis * self._roots

    def steps(self, images: int) -> int:
        """Steps of a progress bar in `solve`."""
        return 1

    def solve(
        self, train: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray, cost: float, bar: Progress
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights and biases in the small basis."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        if classes == 1:
            return np.zeros((1, self.coordinates.shape[1])), np.ones(1)
        machine = LinearSVC(C=cost, dual=True, random_state=0, tol=1e-3, max_iter=500)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # at a large C the last digits take minutes
            machine.fit(self.coordinates[train], labels[train], weights[train])
        bar.advance()
        return _for_each_class(machine.coef_, machine.intercept_)

    def scores(self, indices: np.ndarray, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
        return np.asarray(self.coordinates[indices] @ weights.T + biases)

    def fit(
        self, train: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray, cost: float, bar: Progress
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights and biases for the vectors themselves."""
        small, biases = self.solve(train, labels, classes, weights, cost, bar)
        combined = ((small / self._roots) @ self._basis.T).astype(np.float32)  # weights as a sum of training vectors
        large = np.zeros((len(combined), self.vectors.shape[1]), dtype=np.float32)
        for first in range(0, len(self.vectors), ROWS):
            part = np.asarray(self.vectors[first : first + ROWS], dtype=np.float32)
            large += combined[:, first : first + ROWS] @ part
        return large, biases


class _Streamed:
    """Stochastic gradient descent on the primal problem, for all classes at once, with few vectors in memory.

    A batch is a contiguous part of the vectors. From a file larger than memory, random rows would be read together with
    their neighbors.
    """

    folds = 1  # one held-out part: as large as it is, it says enough

    def __init__(self, vectors: np.ndarray, seed: int) -> None:
        self.vectors, self.seed = vectors, seed

    def steps(self, images: int) -> int:
        """Steps of a progress bar in `solve`, which are those of the optimizer."""
        return self._epochs(images) * math.ceil(images / SGD_BATCH)

    @staticmethod
    def _epochs(images: int) -> int:
        return max(SGD_EPOCHS, math.ceil(SGD_STEPS * SGD_BATCH / images))

    def solve(
        self, train: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray, cost: float, bar: Progress
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights and biases that minimize |w|² / (2 C n) plus the mean squared hinge loss, as `LinearSVC` does.

        At a large C, or where few images have most of the weight, the steps end before the minimum.
        """
        if classes == 1:
            return np.zeros((1, self.vectors.shape[1])), np.ones(1)
        machine = torch.nn.Linear(self.vectors.shape[1], 1 if classes == 2 else classes)
        torch.nn.init.zeros_(machine.weight)
        torch.nn.init.zeros_(machine.bias)
        signs = 2 * torch.eye(classes)[:, -machine.out_features :] - 1
        rng, steps = np.random.default_rng(self.seed), self.steps(len(train))
        batches = list(self._batches(train, weights, rng))
        # The curvature of a batch is at most twice its weight times the squared length of a vector and a bias, 2.
        optimizer = torch.optim.SGD(
            machine.parameters(),
            lr=0.25 / max(*(float(each.sum()) for _, each in batches), 1e-12),
            momentum=0.9,
            nesterov=True,
            weight_decay=1 / (cost * len(train)),
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        for _ in range(self._epochs(len(train))):
            for number in rng.permutation(len(batches)):
                batch, each = batches[number]
                violations = (1 - signs[labels[batch]] * machine(self._read(batch))).clamp_min(0)
                loss = each @ violations.square().sum(1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.advance()
        return _for_each_class(machine.weight.detach().numpy(), machine.bias.detach().numpy())

    @classmethod
    def _batches(
        cls, train: np.ndarray, weights: np.ndarray, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield images and their weights, whose sum over the images of a batch estimates a mean over all.

        An image that counts much more than the mean is in several batches, with a part of its weight in each: with all
        of it in one batch the descent would diverge.
        """
        each = weights[train]
        copies = np.maximum(1, np.ceil(each / max(2 * each.mean(), 1e-12))).astype(np.int64)
        parts = list(cls._parts(np.arange(len(train)), SGD_BATCH))
        others = np.array_split(rng.permutation(np.repeat(np.arange(len(train)), copies - 1)), len(parts))
        for part, other in zip(parts, others, strict=True):
            batch = np.concatenate([part, other])
            yield train[batch], torch.from_numpy(each[batch] / copies[batch] * len(parts) / len(train)).float()

    def scores(self, indices: np.ndarray, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
        parts = [self._read(part).numpy() @ weights.T + biases for part in self._parts(indices)]
        return np.concatenate(parts).astype(np.float64)

    def fit(
        self, train: np.ndarray, labels: np.ndarray, classes: int, weights: np.ndarray, cost: float, bar: Progress
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.solve(train, labels, classes, weights, cost, bar)

    def _read(self, indices: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.vectors[indices]).float()  # several times as fast as NumPy's conversion

    @staticmethod
    def _parts(indices: np.ndarray, rows: int = ROWS) -> Iterator[np.ndarray]:
        for first in range(0, len(indices), rows):
            yield indices[first : first + rows]
