"""The list of a source's items in a file of its own."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from alexnet.data.columns import binaries, floats, numbers, texts
from alexnet.data.sources.items import Item, Sample
from alexnet.runtime.files import write_atomic


class ItemList:
    """A list of items in a file, memory-mapped: ImageNet's 1.4 million take no memory of their own.

    Attributes
    ----------
    labels, splits, groups
        Arrow arrays (len,) of strings; those of splits and groups are null where the source has none.
    """

    _SCHEMA = pa.schema(
        {
            **{"name": pa.string(), "label": pa.string(), "split": pa.string(), "file": pa.binary()},
            **{"offset": pa.int64(), "length": pa.int64(), "packing": pa.string()},
            **{"weight": pa.float64(), "confidence": pa.float64(), "probabilities": pa.string(), "group": pa.string()},
        }
    )

    def __init__(self, path: Path) -> None:
        with pa.memory_map(str(path)) as file:
            self._table = pa.ipc.open_file(file).read_all()
        self.labels: pa.ChunkedArray = self._table.column("label")
        self.splits: pa.ChunkedArray = self._table.column("split")
        self.groups: pa.ChunkedArray = self._table.column("group")

    @classmethod
    def write(cls, path: Path, items: Iterable[Item]) -> None:
        """Write the list."""
        rows = iter(items)

        def write(file: IO[bytes]) -> None:
            with pa.ipc.new_file(file, cls._SCHEMA) as writer:
                while chunk := list(itertools.islice(rows, 1 << 14)):
                    names, labels, splits, files, offsets, lengths, packings, samples = zip(*chunk, strict=True)
                    weights, confidences, probabilities, groups = zip(*samples, strict=True)
                    columns = [
                        texts([os.fsencode(name).decode("utf-8", "replace") for name in names]),
                        *(texts(labels), texts(splits)),
                        # Absolute, for who goes on from another folder; bytes, for a name on disk need not be UTF-8.
                        binaries([os.fsencode(os.path.abspath(name)) for name in files]),
                        *(numbers(offsets, np.int64), numbers(lengths, np.int64), texts(packings)),
                        *(floats(weights), floats(confidences)),
                        texts([None if given is None else json.dumps(given) for given in probabilities]),
                        texts(groups),
                    ]
                    writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=cls._SCHEMA))

        write_atomic(path, write)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Item]:
        for start in range(0, len(self), 1 << 14):
            yield from self.take(np.arange(start, min(start + (1 << 14), len(self))))

    def names(self) -> list[str]:
        """The names of all items."""
        return self._table.column("name").to_pylist()

    def take(self, indices: np.ndarray) -> list[Item]:
        """The items of `indices`."""
        rows = self._table.take(numbers(indices, np.int64)).to_pydict()
        rows["file"] = [os.fsdecode(name) for name in rows["file"]]
        rows["probabilities"] = [None if given is None else json.loads(given) for given in rows["probabilities"]]
        samples = map(Sample, *(rows.pop(name) for name in Sample._fields))
        return [Item(*row) for row in zip(*rows.values(), samples, strict=True)]
