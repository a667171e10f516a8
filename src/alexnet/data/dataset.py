"""The prepared dataset: `dataset.json` and memory-mapped Arrow shards with random access by index.

A shard is an Arrow IPC file with the columns `image` (fixed_size_binary, size × size × 3 bytes of RGB, row by row),
`label` (int32) and `path` (string), in one record batch of up to 256 rows. Where the source says more of its images,
there are also `weight` (float64), `target` (fixed_size_list of float32, one probability per class) and `group` (string,
null for an image of no group). The image column of a shard is one block of (rows, size, size, 3) bytes, and an image is
a slice of a memory map.

A split of `dataset.json` lists its shards, by paths relative to the folder or absolute. With a file `rows` (int64) it
consists of those rows of its shards only, counted through all of them: a subset of another dataset, without a copy
of its images (`alexnet.data.subset`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from alexnet.data.columns import floats, numbers, texts, values
from alexnet.data.pixel_range import PixelRange
from alexnet.data.remote import fetch, is_address
from alexnet.data.statistics import Statistics
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import sha256_of, write_array, write_atomic

FORMAT_VERSION = 1
SHARD_ROWS = 256
INDEX_NAME = "dataset.json"
MEAN_NAME = "mean.npy"
PLAN_NAME = "prepare.json"  # in a folder whose preparation has not finished


class PreparedDataset:
    """A prepared dataset on disk, opened with `PreparedDataset.open(path)`.

    Attributes
    ----------
    classes : list of str
        Class names, sorted; a label is a position in this list.
    descriptions : list of str or None
        A readable name for each class, where the source has them (ImageNet).
    size : int
        Side of the square images in pixels.
    mean_image : numpy.ndarray
        (size, size, 3) float32, 0 to 255, over the training split.
    mean_rgb : numpy.ndarray
        (3,) float64, its mean color.
    pca_eigenvalues, pca_eigenvectors : numpy.ndarray
        (3,) float64, descending, in squared pixel values, and (3, 3) float64, one per column.
    pixel_range : PixelRange or None
        Black and white of the source's images with more than 8 bits; None: it has none.
    source_side : int or None
        Median of the shorter sides of the source's images in pixels; None if it is not known.
    splits : list of str
        Names of the splits.
    left_out : list of dict
        Images that could not be read, as {"path", "reason"}.
    source : str
        Source that the dataset was prepared from.
    options : dict
        Options of `prepare`.
    samples : dict
        What the source says of its images besides their classes: "weights", "soft_labels" and "groups", those that
        there are, each with its summary.
    """

    def __init__(self, path: str | os.PathLike[str], index: dict[str, Any]):
        self.path = Path(path)
        self.address = str(path)  # where other processes find it
        self.index = index
        self.classes: list[str] = index["classes"]
        self.descriptions: list[str] | None = index.get("descriptions")
        self.size: int = index["size"]
        self.mean_rgb = np.array(index["mean_rgb"], dtype=np.float64)
        self.pca_eigenvalues = np.array(index["pca"]["eigenvalues"], dtype=np.float64)
        self.pca_eigenvectors = np.array(index["pca"]["eigenvectors"], dtype=np.float64)
        self.splits: list[str] = list(index["splits"])
        self.left_out: list[dict[str, str]] = index["left_out"]
        self.source: str = index["source"]
        self.options: dict[str, Any] = index["options"]
        self.samples: dict[str, dict[str, Any]] = index.get("samples", {})
        self.pixel_range = PixelRange.from_dict(index.get("pixel_range"))
        self.source_side: int | None = index.get("source_side")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> PreparedDataset:
        """Open a prepared dataset.

        Parameters
        ----------
        path : str or path
            The folder, or its address (`s3://…`), from which it is fetched first.

        Raises
        ------
        AlexNetError
            It is not a prepared dataset, has another format version, or lacks a file.
        """
        if is_address(path):
            dataset = cls.open(fetch(str(path), INDEX_NAME))
            dataset.address = str(path)
            return dataset
        folder = Path(path)
        try:
            index = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
            version = index["format_version"]
        except (FileNotFoundError, NotADirectoryError):
            raise AlexNetError(_why_not_prepared(folder)) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AlexNetError(f"{folder / INDEX_NAME} can't be read ({error}): prepare the dataset again") from error
        if version != FORMAT_VERSION:
            raise AlexNetError(
                f"{folder} has format version {version}, this alexnet reads {FORMAT_VERSION}: prepare the dataset again"
            )
        files = [index["mean_image"]]
        files += [shard["file"] for split in index["splits"].values() for shard in split["shards"]]
        files += [split["rows"] for split in index["splits"].values() if "rows" in split]
        missing = [name for name in files if not (folder / name).is_file()]
        if missing:
            raise AlexNetError(f"{folder} misses {len(missing)} of its files, {missing[0]} first: prepare it again")
        return cls(folder, index)

    @cached_property
    def mean_image(self) -> np.ndarray:
        return np.load(self.path / self.index["mean_image"], allow_pickle=False)

    def split(self, name: str) -> Split:
        """Return the split called `name`; AlexNetError, with the names of all splits, if there is none."""
        if name not in self.index["splits"]:
            raise AlexNetError(f"{self.path} has no split {name!r}: it has {', '.join(self.splits)}")
        return Split(self.path, name, self.size, self.index["splits"][name])

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each split."""
        return {name: len(self.split(name)) for name in self.splits}

    @property
    def measured_on(self) -> str | None:
        """The split that networks are evaluated on: "test" if it has images, else "val", else None."""
        return next((name for name in ("test", "val") if self.counts.get(name)), None)

    def checksums(self) -> dict[str, str]:
        """Return file name → SHA-256 (hex) of the shards and the mean image, as recorded when they were written."""
        recorded = {self.index["mean_image"]: self.index["mean_image_sha256"]}
        for split in self.index["splits"].values():
            recorded |= {shard["file"]: shard["sha256"] for shard in split["shards"]}
            if "rows" in split:
                recorded[split["rows"]] = split["rows_sha256"]
        return recorded

    def verify(self) -> None:
        """Compare every file with its recorded checksum; AlexNetError names those that differ."""
        differing = [name for name, recorded in self.checksums().items() if sha256_of(self.path / name) != recorded]
        if differing:
            raise AlexNetError(
                f"{self.path}: {len(differing)} files are not what was written ({', '.join(differing[:5])}): "
                "prepare the dataset again"
            )


class Split:
    """One split of a prepared dataset: images by index, from 0 to `len(split) - 1`, in the order of the source.

    It can be pickled: another process maps the shards itself.

    Attributes
    ----------
    class_counts : list of int
        Number of images of each class, in the order of `classes`.
    """

    def __init__(self, folder: Path, name: str, size: int, index: dict[str, Any]):
        self.name = name
        self.size = size
        self.class_counts: list[int] = index["class_counts"]
        self._files = [folder / shard["file"] for shard in index["shards"]]
        self._starts = np.cumsum([0] + [shard["rows"] for shard in index["shards"]])
        self._rows = np.load(folder / index["rows"], allow_pickle=False) if "rows" in index else None
        self._mapped: dict[int, tuple[np.ndarray, pa.RecordBatch]] = {}

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} images)"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": {}}

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return image (size, size, 3) uint8 RGB, a read-only view of the memory map, and label of `index`."""
        shard, row = self._locate(index)
        return self._images(shard)[row], int(self.labels[index])

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels of all images, (len,) int64; read once."""
        columns = [values(self._batch(shard).column("label"), np.int32) for shard in range(len(self._files))]
        labels = np.concatenate(columns, dtype=np.int64) if columns else np.empty(0, dtype=np.int64)
        return labels if self._rows is None else labels[self._rows]

    @cached_property
    def weights(self) -> np.ndarray | None:
        """How much each image counts, (len,) float64, 0 or more; None: all count alike."""
        columns = self._columns("weight")
        return None if columns is None else self._chosen([values(column, np.float64) for column in columns])

    @cached_property
    def targets(self) -> np.ndarray | None:
        """Soft labels, the probabilities of the classes, (len, classes) float32; None: all labels are certain."""
        columns = self._columns("target")
        if columns is None:
            return None
        classes = len(self.class_counts)
        return self._chosen([values(column.flatten(), np.float32).reshape(-1, classes) for column in columns])

    @cached_property
    def groups(self) -> np.ndarray | None:
        """Group of each image, such as the part that it shows, (len,) of str; None: the dataset has no groups.

        An image of no group has one of its own, "image: " and its path.
        """
        columns = self._columns("group")
        if columns is None:
            return None
        names = [
            np.array(
                [group if group is not None else f"image: {path}" for group, path in zip(*pair, strict=True)],
                dtype=object,
            )
            for pair in zip(
                (column.to_pylist() for column in columns),
                (self._batch(shard).column("path").to_pylist() for shard in range(len(self._files))),
                strict=True,
            )
        ]
        return self._chosen(names)

    def _columns(self, name: str) -> list[pa.Array] | None:
        """A column of all shards; None where they have none."""
        batches = [self._batch(shard) for shard in range(len(self._files))]
        if not batches or name not in batches[0].schema.names:
            return None
        return [batch.column(name) for batch in batches]

    def _chosen(self, parts: list[np.ndarray]) -> np.ndarray:
        whole = np.concatenate(parts)
        return whole if self._rows is None else whole[self._rows]

    def paths(self, index: int) -> str:
        """Return the name that the image of `index` had in its source."""
        shard, row = self._locate(index)
        return self._batch(shard).column("path")[row].as_py()

    def gather(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copy images.

        Parameters
        ----------
        indices : numpy.ndarray
            (n,) integers.
        out : numpy.ndarray, optional
            (n, size, size, 3) uint8 to copy to. Default: a new array.

        Returns
        -------
        numpy.ndarray
            (n, size, size, 3) uint8 RGB, in the order of `indices`.

        Raises
        ------
        IndexError
            An index is outside 0 … len - 1.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"index outside 0 … {len(self) - 1} of split {self.name!r}")
        indices = self.rows(indices)
        if out is None:
            out = np.empty((len(indices), self.size, self.size, 3), dtype=np.uint8)
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        rows = indices - self._starts[shards]
        for image, shard, row in zip(out, shards.tolist(), rows.tolist(), strict=True):
            np.copyto(image, self._images(shard)[row])
        return out

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Positions of the images of `indices` (n,) among all rows of the split's shards, (n,) int64."""
        return indices if self._rows is None else self._rows[indices]

    def batches(self, indices: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield `indices`, `count` at a time, with their images as `gather` returns them."""
        for start in range(0, len(indices), count):
            part = indices[start : start + count]
            yield part, self.gather(part)

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} outside 0 … {len(self) - 1} of split {self.name!r}")
        row = index if self._rows is None else self._rows[index]
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        return shard, int(row - self._starts[shard])

    def _images(self, shard: int) -> np.ndarray:
        self._batch(shard)
        return self._mapped[shard][0]

    def _batch(self, shard: int) -> pa.RecordBatch:
        if shard not in self._mapped:
            batch = read_shard(self._files[shard])
            self._mapped[shard] = images_of(batch, self.size), batch
        return self._mapped[shard][1]


def read_shard(path: Path) -> pa.RecordBatch:
    """Memory-map the record batch of a shard; AlexNetError if the file is not a complete shard."""
    try:
        # Closing the file ends its descriptor, not the mapping, which lives as long as the batch:
        # ImageNet has 5,000 shards, more than a process may hold open.
        with pa.memory_map(str(path)) as file:
            return ipc.open_file(file).get_batch(0)
    except (OSError, pa.ArrowInvalid, IndexError) as error:
        raise AlexNetError(f"{path} can't be read as a shard ({error}): prepare the dataset again") from error


def images_of(batch: pa.RecordBatch, size: int) -> np.ndarray:
    """Return the image column of a shard as (rows, size, size, 3) uint8, without a copy."""
    pixels = np.frombuffer(batch.column("image").buffers()[1], dtype=np.uint8)
    return pixels[: len(batch) * size * size * 3].reshape(len(batch), size, size, 3)


def write_shard(
    path: Path,
    images: np.ndarray,
    labels: list[int],
    paths: list[str],
    classes: list[str],
    *,
    weights: list[float] | None = None,
    targets: np.ndarray | None = None,
    groups: list[str | None] | None = None,
) -> str:
    """Write a shard atomically.

    Parameters
    ----------
    path : Path
        The file.
    images : numpy.ndarray
        (rows, size, size, 3) uint8.
    labels, paths : list
        Label and name in the source of each image.
    classes : list of str
        Class names, stored in the metadata.
    weights : list of float, optional
        Weight of each image.
    targets : numpy.ndarray, optional
        (rows, classes) float32, probabilities of the classes.
    groups : list, optional
        Group of each image; None for an image of no group.

    Returns
    -------
    str
        SHA-256 (hex) of the file.
    """
    size = images.shape[1]
    image = pa.Array.from_buffers(pa.binary(size * size * 3), len(images), [None, pa.py_buffer(images)])
    columns = {"image": image, "label": numbers(labels, np.int32), "path": texts(paths)}
    if weights is not None:
        columns["weight"] = floats(weights)
    if targets is not None:
        column = np.ascontiguousarray(targets, dtype=np.float32)
        flat = pa.Array.from_buffers(pa.float32(), column.size, [None, pa.py_buffer(column)])
        columns["target"] = pa.FixedSizeListArray.from_arrays(flat, column.shape[1])
    if groups is not None:
        columns["group"] = texts(groups)
    schema = pa.schema(
        [(name, column.type) for name, column in columns.items()],
        metadata={"size": str(size), "classes": json.dumps(classes, ensure_ascii=False)},
    )
    batch = pa.record_batch(list(columns.values()), schema=schema)
    digest = hashlib.sha256()

    def write(file: IO[bytes]) -> None:
        with ipc.new_file(_Digesting(file, digest), schema) as writer:
            writer.write_batch(batch)

    write_atomic(path, write)
    return digest.hexdigest()


def write_index(folder: Path, index: dict[str, Any]) -> None:
    """Write `dataset.json`, the last file of a prepared dataset."""
    write_atomic(folder / INDEX_NAME, (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode())


def write_statistics(folder: Path, found: Statistics) -> dict[str, Any]:
    """Write the mean image of the training split; returns the entries of `dataset.json` for its statistics."""
    write_array(folder / MEAN_NAME, found.mean_image)
    return {
        "mean_image": MEAN_NAME,
        "mean_image_sha256": sha256_of(folder / MEAN_NAME),
        "mean_rgb": found.mean_rgb.tolist(),
        "pca": {"eigenvalues": found.eigenvalues.tolist(), "eigenvectors": found.eigenvectors.tolist()},
    }


class _Digesting:
    """A file that computes the checksum of what is written to it."""

    closed = False

    def __init__(self, file: IO[bytes], digest: Any) -> None:
        self._file, self._digest = file, digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _why_not_prepared(folder: Path) -> str:
    quoted = shlex.quote(str(folder))
    if not folder.exists():
        return f"{folder} does not exist: make it with `alexnet prepare SOURCE {quoted}`"
    if (folder / PLAN_NAME).is_file():
        return f"{folder} is not finished: run its `alexnet prepare` again to continue"
    return f"{folder} is not a prepared dataset (no {INDEX_NAME}): make one with `alexnet prepare {quoted} DATA`"
