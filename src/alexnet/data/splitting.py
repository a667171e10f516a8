"""The splits of the images: shares and folders as options name them, and the draw of what a source does not divide."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping

import numpy as np

from alexnet.data.sources.groups import GroupDraw
from alexnet.data.sources.names import SPLITS
from alexnet.data.sources.plan import split_sizes
from alexnet.runtime.errors import UsageError


def parse_split(text: str) -> dict[str, float]:
    """Read the shares of splits from an argument such as "val=0.2,test=0.1".

    Raises
    ------
    UsageError
        When it has another form, or the shares are out of range.
    """
    try:
        shares = {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(",") if part)}
    except ValueError:
        raise UsageError(f"--split {text!r} is not of the form val=0.2,test=0.1") from None
    check_shares(shares)
    return shares


def parse_folders(text: str) -> dict[str, list[str]]:
    """Read the folders of splits from an argument such as "train=seg_train,val=seg_test".

    A folder with a comma in its name is in quotation marks: train="cats, dogs".

    Raises
    ------
    UsageError
        When it has another form, or names no folder to train on.
    """
    folders: dict[str, list[str]] = {}
    for part in re.findall(r'(?:"[^"]*"|[^,])+', text):
        name, equals, folder = part.replace('"', "").partition("=")
        if not equals or not folder.strip():
            raise UsageError(f"--splits {text!r} is not of the form train=DIR,val=DIR")
        if name.strip() not in SPLITS:
            raise UsageError(f"--splits: split {name.strip()!r} does not exist: the splits are train, val and test")
        folders.setdefault(name.strip(), []).append(folder.strip())
    if "train" not in folders:
        raise UsageError(f"--splits {text!r} names no folder to train on: add train=DIR")
    return folders


def check_shares(shares: Mapping[str, float]) -> None:
    """Raise UsageError for shares of unknown splits, or that leave nothing to train."""
    if unknown := [name for name in shares if name not in SPLITS]:
        raise UsageError(f"split {unknown[0]!r} does not exist: the splits are train, val and test")
    rest = 1 - sum(share for name, share in shares.items() if name != "train")
    if any(not 0 <= share < 1 for name, share in shares.items() if name != "train") or rest <= 0:
        raise UsageError("the shares of val and test must be 0 to 1 and leave something to train")
    if "train" in shares and abs(shares["train"] - rest) > 1e-6:
        raise UsageError(f"the shares of the splits add up to {1 - rest + shares['train']:g}, not to 1")


def stratified_split(labels: np.ndarray, classes: list[str], shares: Mapping[str, float], seed: int) -> np.ndarray:
    """Draw a split for each image, per class.

    Every split gets its share of each class, rounded, and at least one image where there are enough, "train" first.
    The images drawn of a class depend on its name, its number of images and the seed, not on the other classes.

    Parameters
    ----------
    labels
        Labels, (n,) integers: positions in `classes`.
    classes
        Class names.
    shares
        Share of "val" and "test", 0 to 1.
    seed
        Seed.

    Returns
    -------
    numpy.ndarray
        Positions in `SPLITS`, (n,) int8.
    """
    splits = np.zeros(len(labels), dtype=np.int8)
    order = np.argsort(labels, kind="stable")
    members_of = np.split(order, np.searchsorted(labels[order], np.arange(1, len(classes))))
    for name, members in zip(classes, members_of, strict=True):
        _draw(splits, members, split_sizes(len(members), shares), name, seed)
    return splits


def grouped_split(
    labels: np.ndarray, groups: list[str | None], classes: list[str], draw: GroupDraw, seed: int
) -> np.ndarray:
    """The split of each training image as positions in `SPLITS`, (n,) int8, from a draw of groups."""
    splits = np.array(
        [SPLITS.index(draw.split_of[group]) if group is not None else 0 for group in groups], dtype=np.int8
    )
    single = np.array([group is None for group in groups])
    for label, name in enumerate(classes):
        members = np.flatnonzero(single & (labels == label))
        _draw(splits, members, draw.singles.get(name, {}), name, seed)
    return splits


def _draw(splits: np.ndarray, members: np.ndarray, sizes: Mapping[str, int], name: str, seed: int) -> None:
    """Give as many of the images `members` of a class to each split as `sizes` says."""
    drawn = np.random.default_rng((seed, zlib.crc32(name.encode()))).permutation(members)
    start = 0
    for split, size in sizes.items():
        splits[drawn[start : start + size]] = SPLITS.index(split)
        start += size
