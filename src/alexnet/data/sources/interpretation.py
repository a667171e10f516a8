"""Which kind of source something is; every kind becomes one list of items, each a range of bytes in a file.

Nothing is unpacked: workers read an image where it is, by file, offset and length. What has no such place (compressed
tar files, arrays, images from Python) is first copied to a spool, once.

`interpret` decides and lists; `plan_source` shows what it decided, before any image is read.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet.data.rgb import to_rgb
from alexnet.data.sources.arrow_tables import open_hub, open_tables, table_files
from alexnet.data.sources.folders import read_tree
from alexnet.data.sources.groups import ItemCounts, check_groups, draw_groups, with_groups
from alexnet.data.sources.ilsvrc import is_ilsvrc, open_ilsvrc
from alexnet.data.sources.items import Item, Origin, Source
from alexnet.data.sources.names import SPLITS, called_split, check_encoding, comparable, composed, first_names
from alexnet.data.sources.plan import SourcePlan, count, printable, split_sizes
from alexnet.data.sources.published import is_archive_of_cifar, is_published, read_published
from alexnet.data.sources.registry import Request, source_formats
from alexnet.data.sources.tables import TABLE_ENDINGS, open_csv
from alexnet.data.sources.walking import archive_kind, is_image_name
from alexnet.data.sources.workbooks import WORKBOOK_ENDINGS
from alexnet.runtime.errors import AlexNetError, UsageError

KINDS = (
    "a folder with one folder per class, a zip or tar file of one, a folder of the ILSVRC tar files, a CSV of "
    "path,label, parquet or Arrow files of Hugging Face datasets, or hf:NAME"
)
"""The kinds of sources, for messages."""

DEFAULT_SPLIT = {"val": 0.2}
"""Shares drawn from the training images where the source has neither a validation nor a test split."""

_ABSENT = ("na", "n/a", "#n/a", "null", "<na>", "-1", "?", "unlabeled", "unlabelled")
"""Labels, in lower case, that may mark images without one."""

_NO_CLASSES = (
    (re.compile(r"(19|20)\d\d([-_. ]?[01]?\d([-_. ]?[0-3]?\d([-_. T].*)?)?)?"), "dates"),
    (re.compile(r"\d{3}([A-Z_]{5}|[A-Z]{2,4}\d{1,3}|_\d{4})"), "folders of a camera"),
)

_MARKS = {
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "7z x {} -o{}"),
    b"Rar!": ("a RAR archive", "unrar x {} {}/"),
    b"\x89HDF": ("an HDF5 file", ""),
    b"PAR1": ("a parquet file without the ending .parquet", "mv {} {}.parquet"),
    b"SQLite": ("an SQLite database", ""),
    b"PK\x07\x08": ("a part of a divided zip archive", ""),
    b"\x04\x22\x4d\x18": ("an LZ4 file", "lz4 -d {}"),
    b"MZ": ("a Windows program", ""),
}
_FOREIGN = {
    ".7z": ("a 7-Zip archive", "7z x {} -o{}"),
    ".rar": ("a RAR archive", "unrar x {} {}/"),
    ".mat": ("a MATLAB file", ""),
    ".h5": ("an HDF5 file", ""),
    ".hdf5": ("an HDF5 file", ""),
    ".tfrecord": ("a TensorFlow record file", ""),
    ".npz": ("a NumPy archive", ""),
    ".pkl": ("a Python pickle", ""),
    ".pickle": ("a Python pickle", ""),
    ".pt": ("a PyTorch file", ""),
    ".pth": ("a PyTorch file", ""),
    ".lmdb": ("an LMDB database", ""),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm", ".wmv"), ("a video", "ffmpeg -i {} {}/%05d.jpg")),
    ".iso": ("a disk image", ""),
    ".pdf": ("a PDF document", ""),
}


def interpret(
    source: Any,
    spool: Path,
    *,
    output: Path | None = None,
    root: str | None = None,
    splits: Mapping[str, list[str]] | None = None,
    classes_from: str | None = None,
    encoding: str | None = None,
    group_regex: str | None = None,
    ignore_columns: Sequence[str] = (),
) -> Source:
    """Decide what a source is and list its images, without reading any.

    Parameters
    ----------
    source
        A path or "hf:NAME" as `KINDS` says; an iterable of (image, label) or (image, label, split), image being a path,
        the bytes of a file, an array or a PIL image; or a `Source`.
    spool
        An existing folder for what must be copied to be read at random. It must last as long as the items.
    output
        The folder that is written to; it is not part of the source.
    root
        Folder of the source in which the interpretation begins.
    splits
        Folders of each split, such as {"train": ["seg_train"]}.
    classes_from
        "folder" (the class is the first folder), "parent" (the folder that an image lies in), "name" (the file name),
        or a table as FILE or FILE:COLUMN; None decides by what is there.
    encoding
        Encoding of names and tables that are not UTF-8; None guesses where there is no doubt.
    group_regex
        Regular expression whose first capturing group, in the file name, names the group of an image.
    ignore_columns
        Columns of tables that are not read.

    Raises
    ------
    AlexNetError
        When it is no source of images.
    UsageError
        When it can be understood in several ways; the message shows them with the commands that choose.
    """
    found = _interpret(source, spool, output, root, splits, classes_from, encoding, tuple(ignore_columns))
    return with_groups(found, group_regex)


def _interpret(
    source: Any,
    spool: Path,
    output: Path | None,
    root: str | None,
    splits: Mapping[str, list[str]] | None,
    classes_from: str | None,
    encoding: str | None,
    ignore_columns: tuple[str, ...],
) -> Source:
    """`interpret`, with the groups that the source itself names."""
    if isinstance(source, Source):
        return source
    if not isinstance(source, str | os.PathLike):
        return _from_python(source, spool)
    name = os.fspath(source)
    if name.startswith("hf:"):
        return open_hub(name[3:], ignore_columns)
    if match := re.match(r"([a-z][a-z0-9+.-]+):/{1,2}", name, re.IGNORECASE):
        _refuse_address(name, match[1].lower())
    request = Request(
        Path(name),
        spool,
        Path(output) if output is not None else None,
        root,
        dict(splits or {}),
        classes_from,
        check_encoding(encoding) if encoding else None,
        ignore_columns,
    )
    if not request.path.exists():
        raise AlexNetError(f"{name} does not exist")
    for source_format in source_formats():
        if source_format.recognizes(request.path):
            return source_format.read(request)
    return _open_folder(request) if request.path.is_dir() else _open_file(request)


def plan_source(
    source: Any,
    *,
    split: Mapping[str, float] | None = None,
    output: str | os.PathLike[str] | None = None,
    root: str | None = None,
    splits: Mapping[str, list[str]] | None = None,
    classes_from: str | None = None,
    encoding: str | None = None,
    group_regex: str | None = None,
    ignore_columns: Sequence[str] = (),
    seed: int = 0,
) -> SourcePlan:
    """Show what `alexnet prepare` would make of a source, without reading an image or writing a file.

    Parameters are those of `alexnet.prepare`.

    Returns
    -------
    SourcePlan
        The plan.

    Raises
    ------
    AlexNetError
        As `interpret`, and when the images cannot train a classifier.
    """
    with tempfile.TemporaryDirectory(prefix="alexnet-") as spool:
        found = interpret(
            source,
            Path(spool),
            output=Path(output) if output is not None else None,
            root=root,
            splits=splits,
            classes_from=classes_from,
            encoding=encoding,
            group_regex=group_regex,
            ignore_columns=ignore_columns,
        )
        return make_plan(source_name(source), found, ItemCounts.of(found.items), split, seed)


def source_name(source: Any) -> str:
    """The name of a source, for people."""
    return printable(os.fspath(source)) if isinstance(source, str | os.PathLike) else "images from Python"


def make_plan(
    name: str, source: Source, counts: ItemCounts, shares: Mapping[str, float] | None, seed: int = 0
) -> SourcePlan:
    """Check what was found and decide the splits.

    Parameters
    ----------
    name
        The source, as it was named.
    source
        What was found.
    counts
        What was counted of its images.
    shares
        Shares for "val" and "test" that are to be drawn; None draws validation images where the source has neither a
        validation nor a test split.
    seed
        Seed of the draw.

    Raises
    ------
    AlexNetError
        When there are no images or only one class, two classes have one name, a class has no image to train on, only
        some images have a split, or a group has images in two splits.
    UsageError
        When `shares` names a split that the source has.
    """
    if not counts.classes:
        raise AlexNetError(f"no images in {name}")
    classes = sorted({label for _, label in counts.classes})
    check_classes(classes, name)
    own = {split for split, _ in counts.classes}
    if None in own and len(own) > 1:
        without = sum(number for (split, _), number in counts.classes.items() if split is None)
        raise AlexNetError(f"{without:,} images of {name} have no split, the others have one: name it for all")
    drawn = _shares(own, shares)
    check_groups(counts, name, "leave the groups out (--ignore-columns group, or no --group-regex)")
    per_split: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    by_group = _sizes_by_group(counts, drawn, seed) if drawn and counts.has_groups else None
    for (split, label), number in sorted(counts.classes.items(), key=str):
        if split in (None, "train"):
            sizes = split_sizes(number, drawn or {}) if by_group is None else by_group.get(label, {})
            per_split["train"][label] = number - sum(sizes.values())
            for other, size in sizes.items():
                per_split[other][label] = per_split[other].get(label, 0) + size
        else:
            per_split[str(split)][label] = number
    untaught = [label for label in classes if not per_split["train"].get(label)]
    if untaught:
        raise AlexNetError(
            f"{count(len(untaught), 'class')} of {name} without an image to train on ({first_names(untaught)}): add "
            "some, or remove the class from the other splits"
        )
    per_split = {split: per_split[split] for split in SPLITS if per_split[split]}
    return SourcePlan(
        name,
        source.kind,
        classes,
        per_split,
        source.origins,
        drawn,
        source.ignored,
        list(source.assumptions),
        [*source.warnings, *_sample_warnings(counts), *_warnings(classes, per_split, own, drawn)],
        *_sample_summaries(counts),
    )


def _sizes_by_group(counts: ItemCounts, shares: Mapping[str, float], seed: int) -> dict[str, dict[str, int]]:
    """Class → number of images of each split that are drawn by whole groups."""
    split_of, singles = draw_groups(counts, shares, seed)
    sizes: dict[str, Counter[str]] = {label: Counter(per_split) for label, per_split in singles.items()}
    for group, split in split_of.items():
        for (own, label), number in counts.groups[group].items():
            if split != "train" and own in (None, "train"):
                sizes.setdefault(label, Counter())[split] += number
    return {label: dict(per_split) for label, per_split in sizes.items()}


def _sample_summaries(counts: ItemCounts) -> tuple[dict[str, Any] | None, dict[str, Any] | None, dict[str, Any] | None]:
    """Weights, soft labels and groups of a source, each None where it has none."""
    weights = soft_labels = groups = None
    if counts.has_weights:
        values = [1.0 if weight is None else weight for weight in counts.weights]
        weights = {"smallest": min(values), "largest": max(values), "zero": counts.weights[0.0]}
    if counts.has_soft_labels:
        values = [confidence for confidence in counts.confidences if confidence is not None]
        doubtful = sum(number for value, number in counts.confidences.items() if value not in (None, 1.0))
        soft_labels = {"form": counts.soft_form, "smallest": min(values), "doubtful": doubtful}
    if counts.has_groups:
        sizes = [per_class.total() for per_class in counts.groups.values()]
        groups = {"groups": len(sizes), "largest": max(sizes), "without": counts.singles.total()}
    return weights, soft_labels, groups


def _sample_warnings(counts: ItemCounts) -> list[str]:
    """Sentences about weights, soft labels and groups that are likely not intended."""
    warnings = []
    if counts.has_weights and (number := counts.weights[None]):
        warnings.append(f"{count(number, 'image')} without a weight counts 1 each")
    if counts.has_soft_labels and (number := counts.confidences[None]):
        warnings.append(f"{count(number, 'image')} without a confidence: taken as certain")
    if counts.unlikely:
        warnings.append(f"another class is more probable than the label of {count(counts.unlikely, 'image')}")
    if counts.has_groups and counts.singles:
        names = ", ".join(map(printable, counts.first_singles))
        warnings.append(f"{count(counts.singles.total(), 'image')} without a group, each one of its own, first {names}")
    return warnings


def _shares(own: set[str | None], shares: Mapping[str, float] | None) -> dict[str, float] | None:
    if own in ({None}, {"train"}):
        return dict(DEFAULT_SPLIT if shares is None else shares)
    if shares is None:
        return None
    if taken := [split for split in SPLITS[1:] if shares.get(split) and split in own]:
        raise UsageError(f"the source has a split {taken[0]!r} of its own: leave {taken[0]} out of --split")
    return dict(shares)


def _warnings(
    classes: list[str], counts: dict[str, dict[str, int]], own: set[str | None], drawn: dict[str, float] | None
) -> list[str]:
    """Sentences about splits and classes that are likely not intended."""
    warnings = []
    if "val" not in counts and drawn and drawn.get("val"):
        warnings.append("no validation split: no class has two images to train on, of which one could be drawn")
    elif "val" not in counts:
        what = "no validation split: training cannot choose or stop by it"
        warnings.append(f"{what}; draw one from the training images with --split val=0.1")
    for split in SPLITS[1:]:
        missing = [label for label in classes if label not in counts.get(split, {})]
        if split in counts and missing:
            warnings.append(f"split {split} has no image of {count(len(missing), 'class')} ({first_names(missing)})")
    if absent := [label for label in classes if label.casefold() in _ABSENT]:
        warnings.append(f"class {first_names(absent)}: if that marks a missing label, remove its images")
    if spaced := [label for label in classes if label != label.strip()]:
        warnings.append(f"class {first_names(spaced)} has spaces around its name: rename it if that is not intended")
    if len(classes) > 1 and (
        kind := next((kind for kind in _NO_CLASSES if all(map(kind[0].fullmatch, classes))), None)
    ):
        warnings.append(f"the classes {first_names(classes, 3)} look like {kind[1]}: are they classes?")
    images = sum(sum(per_class.values()) for per_class in counts.values())
    if len(classes) > 2 and len(classes) * 2 > images:
        warnings.append(
            f"{len(classes):,} classes for {count(images, 'image')}: nearly every image has a class of its own; is "
            "that the class, or a name or number of the image? Another column or folder is chosen by --classes-from"
        )
    return warnings


def check_classes(classes: list[str], source: str) -> None:
    """Raise AlexNetError when there are fewer than two classes, or two differ only by case or spaces."""
    if len(classes) == 1:
        raise AlexNetError(f"only one class in {source}, {classes[0]!r}: a classifier needs at least two")
    seen: dict[str, str] = {}
    for name in classes:
        plain = comparable(name)
        if plain in seen:
            raise AlexNetError(
                f"two classes of {source} have one name, {seen[plain]!r} and {name!r}: rename one, or make them one"
            )
        seen[plain] = name


def _refuse_address(name: str, scheme: str) -> None:
    if scheme in ("http", "https", "ftp"):
        address = name if "://" in name else name.replace(":/", "://", 1)
        file = address.rstrip("/").rpartition("/")[2].partition("?")[0] or "images.zip"
        raise UsageError(
            f"{address} is a web address: download it with `curl -L -o {file} {address}`, then give the file {file}"
        )
    raise UsageError(f"{name} is an address: copy the images to this machine and give the folder or archive")


def _open_folder(request: Request) -> Source:
    root = request.path
    names = {path.name for path in root.iterdir()}
    if "dataset.json" in names and ("mean.npy" in names or any(name.endswith(".arrow") for name in names)):
        quoted = shlex.quote(str(root))
        raise AlexNetError(f"{root} is a prepared dataset already: train on it with `alexnet train {quoted} --out run`")
    if "config.json" in names and names & {"model.safetensors", "metrics.jsonl", "checkpoint.pt"}:
        raise AlexNetError(f"{root} is a run folder, not a source of images: name the folder of the images")
    if is_ilsvrc(root):
        return open_ilsvrc(root, request.spool)
    explicit = request.root or request.splits or request.classes_from
    if not explicit:
        saved = any(name in names for name in ("dataset_info.json", "dataset_dict.json"))
        tables = table_files(root, saved)
        if tables:
            return open_tables(tables, root, request.ignore_columns)
        if is_published(root):
            return read_published(request)
    return read_tree(request, "folder")


def _open_file(request: Request) -> Source:
    path = request.path
    ending = path.suffix.lower()
    if not path.is_file():
        raise AlexNetError(f"{path} is neither a file nor a folder: give {KINDS}")
    _refuse_failed_download(path)
    if is_published(path) or is_archive_of_cifar(path):
        return read_published(request)
    if ending in (".parquet", ".arrow"):
        return open_tables([path], None, request.ignore_columns)
    kind = archive_kind(path)
    if kind is not None and ending not in WORKBOOK_ENDINGS:  # which are zip files too
        return read_tree(request, f"{kind} file")
    if ending in TABLE_ENDINGS:
        return open_csv(request)
    if what := _foreign(path, ending):
        raise AlexNetError(what)
    if is_image_name(path.name):
        raise AlexNetError(f"{path} is one image, not a source of images: give {KINDS}")
    raise AlexNetError(f"{path} is not a source of images: give {KINDS}")


def _refuse_failed_download(path: Path) -> None:
    """Raise AlexNetError for an empty file, a web page or a pointer of Git LFS, whatever its name."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if not start:
        raise AlexNetError(f"{path} is empty: download or write it again")
    if start.startswith(b"version https://git-lfs"):
        raise AlexNetError(f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    if start.lower().startswith((b"<!doctype html", b"<html")):
        raise AlexNetError(f"{path} is a web page, not the file itself: the download has failed; download it again")


def _foreign(path: Path, ending: str) -> str | None:
    """The description of a file that other programs read, and the remedy."""
    with path.open("rb") as file:
        start = file.read(8)
    what, command = next(
        (found for mark, found in _MARKS.items() if start.startswith(mark)), _FOREIGN.get(ending, ("", ""))
    )
    if ending in (".gz", ".bz2", ".xz", ".zst"):
        what, command = (
            "a compressed file, not a tar file",
            {".gz": "gunzip -k {}", ".bz2": "bunzip2 -k {}"}.get(ending, ""),
        )
    if not what:
        return None
    folder = path.with_suffix("")
    if command:
        done = command.format(*(f"'{part}'" if " " in str(part) else str(part) for part in (path, folder)))
        return f"{path} is {what}: unpack it with `{done}`, then give what comes of it"
    return f"{path} is {what}: write its images to folders named after their classes, and give the folder around them"


def _from_python(images: Any, spool: Path) -> Source:
    """(image, label) or (image, label, split): what is not a file goes to the spool, without loss."""
    if not isinstance(images, Iterable) and not hasattr(images, "__getitem__"):
        raise UsageError(f"a {type(images).__name__} is not a source of images: give {KINDS}")
    items: list[Item] = []
    place = spool / "images"
    with place.open("wb") as file:
        for number, entry in enumerate(images):
            where = f"image {number} of the source"
            if not isinstance(entry, tuple | list) or len(entry) not in (2, 3):
                raise UsageError(f"{where} must be (image, label) or (image, label, split)")
            image, label, split = (*entry, None)[:3]
            split = called_split(split, where)
            label = composed(str(label))
            if isinstance(image, str | os.PathLike):
                items.append(Item(os.fspath(image), label, split, os.path.abspath(image)))
                continue
            offset = file.tell()
            if isinstance(image, bytes | bytearray | memoryview):
                file.write(image)
            elif isinstance(image, np.ndarray | Image.Image):
                np.save(file, image if isinstance(image, np.ndarray) else to_rgb(image), allow_pickle=False)
            else:
                raise UsageError(f"{where} is a {type(image).__name__}; it must be a path, bytes, array or PIL image")
            items.append(Item(f"image {number}", label, split, str(place), offset, file.tell() - offset))
    if not items:
        raise AlexNetError("no images: the source is empty")
    return Source(items, kind="Python", origins=[Origin(None, "the iterable")])
