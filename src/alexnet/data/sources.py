"""Where pictures come from: every kind of source becomes one list of items, each a byte range of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from alexnet.errors import AlexNetError

SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
JUNK = {"thumbs.db", "desktop.ini", "__macosx"}


class Item(NamedTuple):
    """One picture: its name in the source, its class, its split (None: the source has none), where its bytes are."""

    name: str
    label: str
    split: str | None
    file: str
    offset: int = 0
    length: int = -1
    packing: str = "plain"


@dataclass(frozen=True)
class Source:
    """A set of pictures: the name the user gave it and its items, sorted by name."""

    name: str
    items: list[Item]


def open_source(source: str | os.PathLike[str]) -> Source:
    """List the pictures of `source`. Raises AlexNetError when there is nothing to be made of it."""
    path = Path(source)
    if not path.is_dir():
        raise AlexNetError(f"{path} is not a folder of pictures")
    return Source(str(source), list(_folder_items(path)))


def read_item(item: Item) -> bytes:
    """The bytes of a picture."""
    return Path(item.file).read_bytes()


def _folder_items(root: Path) -> Iterator[Item]:
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if not path.is_file() or any(part.startswith(".") or part.lower() in JUNK for part in parts):
            continue
        split = SPLIT_NAMES.get(parts[0].lower())
        folders = parts[1:-1] if split else parts[:-1]
        if folders:
            yield Item("/".join(parts), folders[0], split, str(path))
