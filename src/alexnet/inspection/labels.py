"""Wrong labels: training images ranked by how much a cross-validation contradicts the label that they were given."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet.data.dataset import PreparedDataset, Split
from alexnet.inspection.crossval import HELD_OUT, PREDICTIONS
from alexnet.network.features import BATCH_SIZE, layer_features
from alexnet.runs.run import Run
from alexnet.runtime.devices import choose_device
from alexnet.runtime.errors import AlexNetError, UsageError
from alexnet.runtime.files import csv_text, write_atomic
from alexnet.runtime.progress import progress
from alexnet.search.exact import nearest

DECISIONS = "labels.csv"
"""The file of a cross-validation with the decisions about its suspects, which `alexnet prepare --labels` reads."""
NEIGHBORS = "neighbors.npz"
COUNT = 10
"""Nearest neighbors of an image whose labels are compared with its own."""
FEWEST = 20
"""Suspects that are shown at least."""
OFTEN_WRONG = 5
"""Disagreements for each label that is expected to be wrong from which the networks are called often wrong."""


class Neighbor(NamedTuple):
    """A similar image: its position in the training split, and its distance in feature space."""

    position: int
    distance: float


@dataclass(frozen=True)
class Suspect:
    """A training image and what contradicts its label.

    Attributes
    ----------
    rank : int
        Position among all training images, from 1, by the mean of both ranks.
    index : int
        Index in the training split.
    path : str
        Name in the source.
    label : str
        The given class.
    suggested : str
        The class that the out-of-fold prediction suggests.
    confidence : float
        Out-of-fold probability of the given class, 0 to 1.
    disagreement : float
        Share of the nearest neighbors with another label, 0 to 1; a nearer one counts more.
    confident : bool
        Whether confident learning counts the label as wrong.
    confidence_rank, neighbor_rank : float
        Ranks by out-of-fold probabilities and by neighbors; equal ones share the mean of their ranks.
    probabilities : tuple of float
        Out-of-fold probability of each class.
    neighbors : tuple of Neighbor
        The nearest neighbors, nearest first.
    """

    rank: int
    index: int
    path: str
    label: str
    suggested: str
    confidence: float
    disagreement: float
    confident: bool
    confidence_rank: float
    neighbor_rank: float
    probabilities: tuple[float, ...]
    neighbors: tuple[Neighbor, ...]

    def to_dict(self) -> dict[str, Any]:
        """The columns of the CSV."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS = (
    *("rank", "path", "label", "suggested", "confidence", "disagreement", "confident"),
    *("confidence_rank", "neighbor_rank"),
)


@dataclass(frozen=True)
class LabelErrors:
    """The result of `find_label_errors`.

    Attributes
    ----------
    path : Path
        The folder of the cross-validation.
    dataset : PreparedDataset
        The dataset with the images.
    suspects : list of Suspect
        All training images, the most suspicious first.
    expected : int
        Number of labels that confident learning counts as wrong.
    disagreements : int
        Number of images of which the network that has not seen them predicts another class than their label.
    """

    path: Path
    dataset: PreparedDataset
    suspects: list[Suspect]
    expected: int
    disagreements: int

    def first(self, top: int | None = None) -> list[Suspect]:
        """The first `top` suspects; by default as many as labels are expected to be wrong, and at least 20."""
        return self.suspects[: max(self.expected, FEWEST) if top is None else top]

    @property
    def warning(self) -> str | None:
        """A sentence, where the networks are wrong so often that their suspects say little of the labels."""
        if self.disagreements < OFTEN_WRONG * max(self.expected, FEWEST):
            return None
        return (
            f"out of fold, the networks predict another class for {self.disagreements / len(self.suspects):.0%} of the "
            "images, many more than labels are expected to be wrong: most suspects are errors of the networks; train "
            "them longer, or with more images"
        )

    def to_dict(self, top: int | None = None) -> dict[str, Any]:
        """The first suspects as JSON has them."""
        return {
            "images": len(self.suspects),
            "expected": self.expected,
            "disagreements": self.disagreements,
            "suspects": [suspect.to_dict() for suspect in self.first(top)],
        }

    def csv(self, top: int | None = None) -> str:
        """The first suspects as CSV."""
        rows: list[Sequence[object]] = [COLUMNS]
        for suspect in self.first(top):
            row = suspect.to_dict() | {"confident": str(suspect.confident).lower()}
            rows.append([f"{value:.6g}" if isinstance(value, float) else value for value in row.values()])
        return csv_text(rows)


class Ranking(NamedTuple):
    """Ranks of images by their labels and predictions; every array is (n,).

    Attributes
    ----------
    order : ndarray
        int64 indices, the most suspicious image first.
    suggested : ndarray
        int64 label that each prediction suggests.
    confident : ndarray
        bool: counted as wrong by confident learning.
    confidence_rank, neighbor_rank : ndarray
        float64, from 1.
    """

    order: np.ndarray
    suggested: np.ndarray
    confident: np.ndarray
    confidence_rank: np.ndarray
    neighbor_rank: np.ndarray


def find_label_errors(
    cv: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    neighbors: int = COUNT,
    device: str | None = None,
) -> LabelErrors:
    """Rank the training images of a cross-validation by how likely their labels are wrong.

    Two signs are combined, the mean of the ranks by each: the out-of-fold probabilities (confident learning, Northcutt
    et al., J. Artificial Intelligence Research 70, 2021), and the labels of the nearest neighbors in the feature layer.
    Features are out of fold too: an image and its neighbors are held-out images of the same fold, so that no network
    has seen their labels.

    Parameters
    ----------
    cv : str or path
        A folder that `cross_validate` has finished.
    data : str or path, optional
        The prepared dataset, if it was moved since.
    neighbors : int
        Number of nearest neighbors, at least 1.
    device : str, optional
        Device of the forward passes, such as "cpu" or "cuda:1"; by default the best available.

    Returns
    -------
    LabelErrors

    Raises
    ------
    UsageError
        If `neighbors` is out of range.
    AlexNetError
        If `cv` is not a finished cross-validation, or its dataset is missing.
    """
    if neighbors < 1:
        raise UsageError(f"neighbors is {neighbors}; it must be at least 1")
    folder = Path(cv)
    paths, folds, probabilities, classes = _read_predictions(folder)
    dataset = _find_data(folder, data)
    split = dataset.split("train")
    if (
        len(split) != len(paths)
        or dataset.classes != classes
        or any(split.paths(i) != paths[i] for i in range(len(split)))
    ):
        raise AlexNetError(f"{dataset.path} is not the dataset of {folder}: name it with --data DATA")
    distances, rows = _neighbors(folder, folds, neighbors, device)
    labels = split.labels
    disagreement = neighbor_disagreement(labels, rows)
    found = rank_label_errors(labels, probabilities, disagreement)
    suspects = [
        Suspect(
            rank,
            index,
            paths[index],
            classes[labels[index]],
            classes[found.suggested[index]],
            float(probabilities[index, labels[index]]),
            float(disagreement[index]),
            bool(found.confident[index]),
            float(found.confidence_rank[index]),
            float(found.neighbor_rank[index]),
            tuple(probabilities[index].tolist()),
            tuple(
                Neighbor(int(row), float(d)) for row, d in zip(rows[index], distances[index], strict=True) if row >= 0
            ),
        )
        for rank, index in enumerate(found.order.tolist(), start=1)
    ]
    disagreements = int((probabilities.argmax(axis=1) != labels).sum())
    return LabelErrors(folder, dataset, suspects, int(found.confident.sum()), disagreements)


def confident_labels(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The class that an image is counted under in the confident joint (Northcutt et al. 2021, equation 1).

    A class is possible for an image if its probability is at least the mean of that probability over the images with
    that label. Of the possible classes the most probable one is counted.

    Parameters
    ----------
    labels : ndarray
        (n,) int: the given labels.
    probabilities : ndarray
        (n, classes): out-of-fold probabilities.

    Returns
    -------
    ndarray
        (n,) int64; -1 where no class is possible.
    """
    classes = probabilities.shape[1]
    thresholds = np.array(
        [probabilities[labels == name, name].mean() if (labels == name).any() else np.inf for name in range(classes)]
    )
    possible = np.where(probabilities >= thresholds, probabilities, -1.0)
    return np.where(possible.max(axis=1) >= 0, possible.argmax(axis=1), -1)


def neighbor_disagreement(labels: np.ndarray, neighbors: np.ndarray) -> np.ndarray:
    """The share of an image's neighbors that have another label; of k neighbors the nearest has weight k, the last 1.

    Parameters
    ----------
    labels : ndarray
        (n,) int.
    neighbors : ndarray
        (n, k) int: indices of the neighbors, nearest first; -1 for none.

    Returns
    -------
    ndarray
        (n,) float64, 0 to 1; 0 for an image without neighbors.
    """
    count = neighbors.shape[1]
    weights = np.where(neighbors >= 0, np.arange(count, 0, -1.0), 0.0)
    other = labels[neighbors] != labels[:, None]
    return (weights * other).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)


def rank_label_errors(labels: np.ndarray, probabilities: np.ndarray, disagreement: np.ndarray | None = None) -> Ranking:
    """Rank images by how likely their labels are wrong.

    Parameters
    ----------
    labels : ndarray
        (n,) int: the given labels.
    probabilities : ndarray
        (n, classes): out-of-fold probabilities.
    disagreement : ndarray, optional
        (n,): share of the neighbors with another label. Without it the probabilities decide alone.

    Returns
    -------
    Ranking
        By probabilities, the label with the smallest margin is first: its probability minus that of the most probable
        other class.
    """
    from scipy.stats import rankdata

    rows = np.arange(len(labels))
    given = probabilities[rows, labels]
    others = probabilities.copy()
    others[rows, labels] = -1.0
    margin = given - others.max(axis=1)
    counted = confident_labels(labels, probabilities)
    confident = (counted >= 0) & (counted != labels)
    suggested = np.where(confident, counted, probabilities.argmax(axis=1))
    by_confidence = rankdata(margin)
    by_neighbors = by_confidence if disagreement is None else rankdata(-disagreement)
    order = np.lexsort((rows, margin, by_confidence + by_neighbors))
    return Ranking(order, suggested, confident, by_confidence, by_neighbors)


def _read_predictions(folder: Path) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """Path and first fold of each image, its mean out-of-fold probabilities over the repeats, and the classes."""
    file = folder / PREDICTIONS
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as text:
            header, *table = csv.reader(text)
    except (FileNotFoundError, NotADirectoryError):
        raise AlexNetError(
            f"{folder} is not a finished cross-validation (no {PREDICTIONS}): "
            f"make one with `alexnet crossval DATA --out {shlex.quote(str(folder))}`"
        ) from None
    classes = [name.removeprefix("probability_") for name in header[4:]]
    repeats = max(int(row[2]) for row in table)
    count = len(table) // repeats
    values = np.array([row[4:] for row in table], dtype=np.float64).reshape(repeats, count, len(classes))
    folds = np.array([int(row[3]) for row in table[:count]])
    return [row[0] for row in table[:count]], folds, values.mean(axis=0), classes


def _find_data(folder: Path, data: str | os.PathLike[str] | None) -> PreparedDataset:
    """The dataset of a cross-validation: that of `data`, or the one that the first fold refers to."""
    if data is not None:
        return PreparedDataset.open(data)
    try:
        return PreparedDataset.open(PreparedDataset.open(folder / "data" / "fold-1").source)
    except AlexNetError as error:
        raise AlexNetError(f"the dataset of {folder} is not found ({error}); name it with --data DATA") from error


def _neighbors(folder: Path, folds: np.ndarray, count: int, device: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices (n, count) of the nearest images of the same fold; computed once, and stored."""
    file = folder / NEIGHBORS
    if file.is_file():
        with np.load(file, allow_pickle=False) as stored:
            if stored["rows"].shape == (len(folds), count):
                return stored["distances"], stored["rows"]
    distances = np.full((len(folds), count), np.inf, dtype=np.float32)
    rows = np.full((len(folds), count), -1, dtype=np.int64)
    with progress(len(folds), "features of held-out images") as bar:
        for number in range(1, int(folds.max()) + 1):
            members = np.flatnonzero(folds == number)
            network, preprocess = Run.open(folder / f"fold-{number}").load(choose_device(device))
            held_out = PreparedDataset.open(folder / "data" / f"fold-{number}").split(HELD_OUT)
            features = []
            for part in layer_features(network, preprocess, _images(held_out)):
                features.append(part)
                bar.advance(len(part))
            near, found = nearest_others(np.concatenate(features), count)
            distances[members, : near.shape[1]], rows[members, : near.shape[1]] = near, members[found]
    content = io.BytesIO()
    np.savez(content, distances=distances, rows=rows)
    write_atomic(file, content.getvalue())
    return distances, rows


def nearest_others(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other vectors of each of `features` (n, d): distances and indices, (n, min(count, n - 1))."""
    distances, rows = nearest(features, features, count + 1)
    # A vector is its own nearest, but may come after equal ones.
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(axis=1), -1] = True
    kept = ~own
    return distances[kept].reshape(len(rows), -1), rows[kept].reshape(len(rows), -1)


def _images(split: Split) -> Any:
    return (images for _, images in split.batches(np.arange(len(split)), BATCH_SIZE))


def table(suspects: Sequence[Suspect]) -> list[str]:
    """Suspects for people, a line each."""
    lines = [f"{'rank':>5}  {'given':<18} {'suggested':<18} {'confidence':>10} {'neighbors':>9}  image"]
    for one in suspects:
        lines.append(
            f"{one.rank:>5}  {one.label:<18} {one.suggested:<18} {one.confidence:>10.1%} {one.disagreement:>9.0%}"
            f"  {one.path}"
        )
    return lines
