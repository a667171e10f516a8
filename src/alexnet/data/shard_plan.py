"""The plan of the shards of a dataset: which images, with which labels, each of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from alexnet.data.columns import numbers, texts, values
from alexnet.data.corrections import Corrected, Correction, apply_corrections
from alexnet.data.dataset import SHARD_ROWS
from alexnet.data.shards import WORK_FOLDER, SampleFlags
from alexnet.data.sources.groups import ItemCounts, draw_groups
from alexnet.data.sources.item_list import ItemList
from alexnet.data.sources.items import Item
from alexnet.data.sources.names import SPLITS
from alexnet.data.sources.plan import SourcePlan
from alexnet.data.splitting import grouped_split, stratified_split

LIST_NAME = "items.arrow"
"""The list of the images, in the folder of an unfinished preparation."""


class ShardPlan(NamedTuple):
    """The images, their classes, and which images each shard holds."""

    items: ItemList
    classes: list[str]
    descriptions: dict[str, str]
    shards: dict[str, np.ndarray]
    split: dict[str, float] | None
    columns: SampleFlags
    corrected: dict[int, str | None]

    def take(self, indices: np.ndarray) -> list[Item]:
        """The items of `indices`, with corrected labels."""
        items = self.items.take(indices)
        if not self.corrected:
            return items
        labels = [self.corrected.get(index) for index in indices.tolist()]
        return [
            item if label in (None, item.label) else _with_label(item, str(label))
            for item, label in zip(items, labels, strict=True)
        ]


def _with_label(item: Item, label: str) -> Item:
    """An item with a corrected label, which is certain: a soft label was about the one before."""
    return item._replace(label=label, sample=item.sample._replace(confidence=None, probabilities=None))


def plan_shards(
    folder: Path,
    plan: SourcePlan,
    counts: ItemCounts,
    descriptions: dict[str, str],
    seed: int,
    corrections: Sequence[Correction],
    corrections_name: str,
) -> tuple[ShardPlan, list[str]]:
    """The shards and notes about corrected labels; the split is drawn by the labels of the source."""
    items = ItemList(folder / WORK_FOLDER / LIST_NAME)
    coded = items.labels.combine_chunks().dictionary_encode()
    label_of = {name: label for label, name in enumerate(plan.classes)}
    labels = np.array([label_of[name] for name in coded.dictionary.to_pylist()])[values(coded.indices, np.int32)]
    if items.splits.null_count:
        splits = np.zeros(len(items), dtype=np.int8)
    else:
        splits = values(pc.index_in(items.splits, texts(SPLITS)), np.int32).astype(np.int8)
    if plan.drawn:
        training = np.flatnonzero(splits == 0)
        if counts.has_groups:
            draw = draw_groups(counts, plan.drawn, seed)
            groups = items.groups.take(numbers(training, np.int64)).to_pylist()
            splits[training] = grouped_split(labels[training], groups, plan.classes, draw, seed)
        else:
            splits[training] = stratified_split(labels[training], plan.classes, plan.drawn, seed)
    corrected = Corrected({}, [])
    if corrections:
        corrected = apply_corrections(corrections, items.names(), items.labels.to_pylist(), corrections_name)
        splits[[position for position, label in corrected.labels.items() if label is None]] = -1  # in no shard
    shards = {}
    for code, name in enumerate(SPLITS):
        members = np.flatnonzero(splits == code)
        for number, start in enumerate(range(0, len(members), SHARD_ROWS)):
            shards[f"{name}-{number:05}.arrow"] = members[start : start + SHARD_ROWS]
    flags = SampleFlags(counts.has_weights, counts.has_soft_labels, counts.has_groups)
    return ShardPlan(items, plan.classes, descriptions, shards, plan.drawn, flags, corrected.labels), corrected.notes
