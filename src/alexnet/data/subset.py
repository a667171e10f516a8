"""A prepared dataset that consists of some images of another one and refers to its shards instead of copying them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from alexnet.data.dataset import INDEX_NAME, MEAN_NAME, PreparedDataset, Split, sha256_of
from alexnet.data.duplicates import to_index
from alexnet.data.statistics import Statistics, pixel_sum, statistics
from alexnet.kernels.rgb_products import rgb_products
from alexnet.runtime.files import write_atomic

_BATCH = 256


def write_subset(
    path: str | os.PathLike[str], dataset: PreparedDataset, splits: Mapping[str, tuple[str, np.ndarray]]
) -> PreparedDataset:
    """Write a dataset of some images of another one.

    It holds the indices of its images, and the mean image and principal components of its own training images. The
    shards of `dataset` must stay where they are.

    Parameters
    ----------
    path : str or path
        The folder to create.
    dataset : PreparedDataset
        The dataset with the images.
    splits : mapping of str to (str, ndarray)
        For each split of the subset the split of `dataset` and the indices (n,) of its images there. "train" is
        required and has at least one image.

    Returns
    -------
    PreparedDataset
        The subset, opened.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    index = dict(dataset.index)
    index["splits"] = {}
    for name, (source_name, indices) in splits.items():
        source = dataset.split(source_name)
        file = f"{name}.npy"
        _write_array(folder / file, source.rows(np.asarray(indices, dtype=np.int64)))
        shards = dataset.index["splits"][source_name]["shards"]
        counts = np.bincount(source.labels[indices], minlength=len(dataset.classes))
        index["splits"][name] = {
            "count": len(indices),
            "class_counts": counts.tolist(),
            "shards": [{**shard, "file": str((dataset.path / shard["file"]).absolute())} for shard in shards],
            "rows": file,
            "rows_sha256": sha256_of(folder / file),
        }
    source_name, indices = splits["train"]
    found = _statistics(dataset.split(source_name), np.sort(indices))
    _write_array(folder / MEAN_NAME, found.mean_image)
    index |= {
        "mean_image": MEAN_NAME,
        "mean_image_sha256": sha256_of(folder / MEAN_NAME),
        "mean_rgb": found.mean_rgb.tolist(),
        "pca": {"eigenvalues": found.eigenvalues.tolist(), "eigenvectors": found.eigenvectors.tolist()},
        "left_out": [],
        **to_index([], []),
        "source": str(dataset.path.absolute()),
    }
    write_atomic(folder / INDEX_NAME, (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())
    return PreparedDataset.open(folder)


def _statistics(split: Split, indices: np.ndarray) -> Statistics:
    pixel_sums = np.zeros((split.size, split.size, 3), dtype=np.int64)
    products = np.zeros((3, 3), dtype=np.int64)
    for _, images in split.batches(indices, _BATCH):
        pixel_sums += pixel_sum(images)
        products += rgb_products(images)
    return statistics(pixel_sums, products, len(indices))


def _write_array(path: Path, array: np.ndarray) -> None:
    content = io.BytesIO()
    np.save(content, array)
    write_atomic(path, content.getvalue())
