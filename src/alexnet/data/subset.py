"""A prepared dataset that consists of some images of another one and refers to its shards instead of copying them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from alexnet.data.dataset import PreparedDataset, Split, write_index, write_statistics
from alexnet.data.duplicates import to_index
from alexnet.data.statistics import Statistics, pixel_sum, statistics
from alexnet.kernels.rgb_products import rgb_products
from alexnet.runtime.files import sha256_of, write_array

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
        write_array(folder / file, source.rows(np.asarray(indices, dtype=np.int64)))
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
    index |= {
        **write_statistics(folder, _statistics(dataset.split(source_name), np.sort(indices))),
        "left_out": [],
        **to_index([], []),
        "source": str(dataset.path.absolute()),
    }
    write_index(folder, index)
    return PreparedDataset.open(folder)


def _statistics(split: Split, indices: np.ndarray) -> Statistics:
    pixel_sums = np.zeros((split.size, split.size, 3), dtype=np.int64)
    products = np.zeros((3, 3), dtype=np.int64)
    for _, images in split.batches(indices, _BATCH):
        pixel_sums += pixel_sum(images)
        products += rgb_products(images)
    return statistics(pixel_sums, products, len(indices))
