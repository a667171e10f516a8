"""Datasets in the form in which their authors publish them: MNIST, CIFAR-10 and CIFAR-100, Tiny ImageNet, CUB-200.

MNIST and CIFAR are arrays in files of their own; their images are copied to the spool, where each can be read alone.
"""

from __future__ import annotations

import gzip
import io
import pickle
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from alexnet.data.sources.items import Item, Origin, Source
from alexnet.data.sources.registry import Request
from alexnet.data.sources.walking import Entry, Walk, archive_kind, read_entry
from alexnet.runtime.errors import AlexNetError

_IDX = re.compile(r"(emnist-\w+-)?(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte(\.gz)?")
_CIFAR = re.compile(r"(data_batch_[1-5]|test_batch|train|test)(\.bin)?")
_CIFAR_ARCHIVE = re.compile(r"cifar-10{1,2}-(python|binary)\.tar\.gz")
CUB_FILES = {"images.txt", "image_class_labels.txt", "classes.txt"}
"""Lists that CUB-200 has beside its folder images/."""
_SPLITS = {"train": "train", "t10k": "test", "test": "test"}


def is_published(path: Path) -> bool:
    """Whether a path is one of these datasets: its folder, the archive, or a file of it."""
    if path.is_file():
        return bool(_IDX.fullmatch(path.name) or _CIFAR_ARCHIVE.fullmatch(path.name))
    return bool(_idx_files(path) or _cifar_folder(path) or _tiny(path))


def read_published(request: Request) -> Source:
    """List the images of one of these datasets.

    Raises
    ------
    AlexNetError
        When a file of it is missing or damaged.
    """
    path = request.path
    if path.is_file() and _CIFAR_ARCHIVE.fullmatch(path.name):
        return _cifar(path, {entry.parts[-1]: entry for entry in Walk(path, spool=request.spool)}, request.spool)
    if path.is_file():
        return _mnist(path.parent, request.spool)
    if _idx_files(path):
        return _mnist(path, request.spool)
    folder = _cifar_folder(path)
    if folder:
        return _cifar(path, {entry.parts[-1]: entry for entry in Walk(folder)}, request.spool)
    return _read_tiny(_tiny(path) or path)


def _roots(path: Path) -> list[Path]:
    """The folder, and one or two levels of folders that enclose everything."""
    roots = [path]
    for _ in range(2):
        folders = [child for child in roots[-1].iterdir() if child.is_dir() and not child.name.startswith(("._", "__"))]
        if len(folders) != 1:
            break
        roots.append(folders[0])
    return roots


# MNIST


def _idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """(split, "images" or "labels") → file, also within folders called as the files, as Kaggle packs them."""
    found: dict[tuple[str, str], Path] = {}
    for root in _roots(folder):
        for path in sorted(root.iterdir()):
            inner = path / path.name if path.is_dir() else path
            match = _IDX.fullmatch(path.name)
            if match and inner.is_file():
                found.setdefault((_SPLITS[match[2]], match[3]), inner)
    return found


def _mnist(folder: Path, spool: Path) -> Source:
    files = _idx_files(folder)
    items: list[Item] = []
    place = spool / "arrays"
    with place.open("wb") as file:
        for split in ("train", "test"):
            if (split, "images") not in files:
                continue
            if (split, "labels") not in files:
                raise AlexNetError(f"{files[split, 'images']} has no file of labels beside it: download that too")
            images, labels = (_idx(files[split, kind]) for kind in ("images", "labels"))
            if len(images) != len(labels):
                raise AlexNetError(f"{files[split, 'images']} has {len(images):,} images and {len(labels):,} labels")
            items += _spooled(file, place, split, images, [str(label) for label in labels])
    if not items:
        raise AlexNetError(f"{folder} has labels of MNIST and no images: download train-images-idx3-ubyte.gz too")
    origins = [Origin(split, files[split, "images"].name) for split in ("train", "test") if (split, "images") in files]
    return Source(items, kind="IDX files, as MNIST", origins=origins)


def _idx(path: Path) -> np.ndarray:
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        shape = np.frombuffer(data, ">u4", data[3], 4).tolist()
        return np.frombuffer(data, np.uint8, int(np.prod(shape)), 4 + 4 * data[3]).reshape(shape)
    except (ValueError, IndexError, OSError, EOFError) as error:
        raise AlexNetError(f"{path} is a damaged IDX file ({error}): download it again") from error


def _spooled(file: Any, place: Path, split: str, images: np.ndarray, labels: list[str]) -> Iterator[Item]:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        offset = file.tell()
        np.save(file, image, allow_pickle=False)
        yield Item(f"{split}/{number:05}", label, split, str(place), offset, file.tell() - offset)


# CIFAR


def _cifar_folder(path: Path) -> Path | None:
    for root in _roots(path):
        names = {child.name for child in root.iterdir()}
        if {"batches.meta", "data_batch_1"} <= names or "data_batch_1.bin" in names:
            return root
        if {"meta", "train", "test"} <= names and (root / "train").is_file():
            return root
        if {"train.bin", "test.bin"} <= names:
            return root
    return None


def _cifar(path: Path, files: dict[str, Entry], spool: Path) -> Source:
    batches = {name: entry for name, entry in sorted(files.items()) if _CIFAR.fullmatch(name)}
    if not batches:
        raise AlexNetError(f"{path} holds no batches of CIFAR")
    items: list[Item] = []
    place = spool / "arrays"
    with place.open("wb") as file:
        for name, entry in batches.items():
            split = "test" if name.startswith("test") else "train"
            try:
                binary = name.endswith(".bin")
                images, labels = _cifar_binary(name, files, entry) if binary else _cifar_pickle(files, entry)
            except (ValueError, KeyError, IndexError, EOFError, pickle.UnpicklingError) as error:
                raise AlexNetError(
                    f"{path}: {name} is a damaged batch of CIFAR ({error}): download it again"
                ) from error
            found = list(_spooled(file, place, split, images, labels))
            items += [item._replace(name=f"{name}/{item.name.partition('/')[2]}") for item in found]
    origins = [Origin("train", "the training batches"), Origin("test", "the test batch")]
    return Source(items, kind="batches of CIFAR", origins=origins)


def _planar(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _cifar_binary(name: str, files: dict[str, Entry], entry: Entry) -> tuple[np.ndarray, list[str]]:
    labels = 1 if name.startswith(("data", "test_")) else 2  # CIFAR-100 has a coarse label before the fine one
    rows = np.frombuffer(read_entry(entry), np.uint8).reshape(-1, 3072 + labels)
    text = "batches.meta.txt" if labels == 1 else "fine_label_names.txt"
    names = read_entry(files[text]).decode().split() if text in files else [str(number) for number in range(256)]
    return _planar(rows[:, labels:]), [names[label] for label in rows[:, labels - 1]]


def _cifar_pickle(files: dict[str, Entry], entry: Entry) -> tuple[np.ndarray, list[str]]:
    batch = _ArrayUnpickler.load_bytes(read_entry(entry))
    labels = batch.get(b"labels", batch.get(b"fine_labels"))
    meta = files.get("batches.meta", files.get("meta"))
    known = _ArrayUnpickler.load_bytes(read_entry(meta)) if meta else {}
    names = known.get(b"label_names", known.get(b"fine_label_names"))
    return _planar(np.asarray(batch[b"data"], np.uint8)), [
        names[label].decode() if names else str(label) for label in labels
    ]


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of arrays, lists and strings; anything else is refused, so that no code in a file runs."""

    _ALLOWED: ClassVar = {
        *(("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")),
        *(("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")),
    }

    @classmethod
    def load_bytes(cls, data: bytes) -> Any:
        return cls(io.BytesIO(data), encoding="bytes").load()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR needs")
        return super().find_class(
            module.replace("numpy.core", "numpy._core") if np.__version__ >= "2" else module, name
        )


# Tiny ImageNet and CUB-200


def _tiny(path: Path) -> Path | None:
    return next((root for root in _roots(path) if (root / "wnids.txt").is_file() and (root / "train").is_dir()), None)


def _read_tiny(root: Path) -> Source:
    descriptions = dict(line.split("\t", 1) for line in _lines(root / "words.txt") if "\t" in line)
    items = []
    for entry in Walk(root / "train"):
        if entry.image:
            items.append(Item(f"train/{entry.name}", entry.parts[0], "train", *entry[1:5]))
    annotations = root / "val" / "val_annotations.txt"
    wnids = dict(line.split("\t")[:2] for line in _lines(annotations) if "\t" in line)
    left = 0
    for entry in Walk(root / "val") if (root / "val").is_dir() else ():
        label = wnids.get(entry.parts[-1]) or (entry.parts[0] if len(entry.parts) > 1 and not wnids else None)
        if entry.image and label:
            items.append(Item(f"val/{entry.name}", label, "val", *entry[1:5]))
        else:
            left += entry.image
    warnings = [f"{left:,} validation images have no class in val_annotations.txt and are not used"] if left else []
    classes = {item.label for item in items}
    return Source(
        items,
        {wnid: descriptions.get(wnid, wnid) for wnid in classes} if descriptions else {},
        "Tiny ImageNet",
        [Origin("train", "train/"), Origin("val", "val/, by val_annotations.txt")],
        assumptions=["test/ has no classes and is not used"] if (root / "test").is_dir() else [],
        warnings=warnings,
    )


def read_cub(place: str, texts: Mapping[str, str], files: Mapping[tuple[str, ...], Entry]) -> Source:
    """List the images of CUB-200 by its lists.

    Parameters
    ----------
    place
        Its folder, for messages.
    texts
        Its text files by name.
    files
        Its images, by their path below images/.

    Raises
    ------
    AlexNetError
        When an image has no class in the lists.
    """
    images, labels, classes, training = (
        dict(line.split(None, 1) for line in texts.get(name, "").splitlines() if line.strip())
        for name in ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt")
    )
    items = []
    for number, name in images.items():
        if labels.get(number, "").strip() not in classes:
            raise AlexNetError(f"{place}: image {number} ({name.strip()}) has no class in image_class_labels.txt")
        split = ("train" if training.get(number, "").strip() == "1" else "test") if training else None
        label = classes[labels[number].strip()].strip()
        entry = files.get(tuple(name.strip().split("/")))
        where = entry[1:5] if entry else ("", 0, -1, "unreadable:no such file")
        items.append(Item(name.strip(), label, split, *where))
    origins = [Origin(split, "train_test_split.txt") for split in ("train", "test")] if training else []
    return Source(items, kind="CUB-200", origins=origins or [Origin(None, "images.txt")])


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def is_archive_of_cifar(path: Path) -> bool:
    """Whether a tar file holds CIFAR's batches, whatever it is called."""
    if archive_kind(path) != "tar":
        return False
    try:
        with tarfile.open(path) as archive:
            first = [archive.next() for _ in range(3)]
    except (tarfile.TarError, OSError, EOFError):
        return False
    return any(member is not None and member.name.startswith("cifar-10") for member in first)
