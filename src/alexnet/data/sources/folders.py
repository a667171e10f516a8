"""Folders and archives: which folders are splits, which are classes, and when that cannot be told.

The files are counted by folder first (`Folder`), without reading any; the rules below look at names and counts only:

- Folders around everything are passed through, whatever files lie beside them.
- Folders are splits when their names mean splits (train, train_images, seg_test, test1, valid) and they hold class
  folders. What lies beside them is ignored.
- Otherwise the folders are the classes. Folders within a class belong to it.
- Where no folder is a class, a table beside the images says the classes, or the file names do (cat.0.jpg).

When two readings are plausible, `UsageError` shows both with the commands that choose one.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import NamedTuple

from alexnet.data.sources.items import Item, Origin, Source
from alexnet.data.sources.missing_images import detected_dataset, why_no_images
from alexnet.data.sources.names import (
    SPLIT_NAMES,
    class_and_split,
    composed,
    first_names,
    is_neutral,
    is_unlabeled,
    name_tokens,
    split_of,
)
from alexnet.data.sources.plan import count, printable
from alexnet.data.sources.published import CUB_FILES, read_cub
from alexnet.data.sources.registry import Request
from alexnet.data.sources.split_lists import read_lists, split_of_list, splits_of_lists
from alexnet.data.sources.tables import (
    FileIndex,
    Table,
    first_line,
    read_listing,
    read_table,
    table_source,
)
from alexnet.data.sources.tree import Folder, Parts, Tree
from alexnet.data.sources.walking import Entry, Tally, read_entry
from alexnet.data.sources.workbooks import WORKBOOK_ENDINGS, WorkbookError
from alexnet.runtime.errors import AlexNetError, UsageError

_GENERIC = {
    *("img", "image", "images", "dsc", "dscn", "dscf", "photo", "photos", "picture", "pic", "frame", "pxl", "p", "im"),
    *("screenshot", "screen", "shot", "untitled", "download", "sample", "scan", "file", "capture", "snapshot", "cam"),
    *("camera", "vid", "video", "mvimg", "kakaotalk", "whatsapp", "page", "output", "result", "crop", "tile", "slice"),
    *("unnamed", "gopr", "dji", "ilsvrc", "x", "new", "copy", "of", "at", "am", "pm", "test", "train", "val", "사진"),
}
_SUBMISSION = re.compile(r"sample|submi", re.IGNORECASE)
_OTHER_TABLES = ("(.mat)", "(.pkl)", "(.h5)", "(.hdf5)")
_ARCHIVES = ("(.zip)", "(.tar)", "(.gz)", "(.tgz)")
_LARGEST_TABLE = 1 << 30  # bytes; a larger text file is no table of images


class Place(NamedTuple):
    """A folder whose images are taken: the split they belong to, and their class where the folder says it."""

    split: str | None
    label: str | None = None


@dataclass
class Layout:
    """A reading of a folder: which folders hold the images of which split, and what says their class."""

    places: dict[Parts, Place]
    classes_from: str = "folder"
    assumptions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._depths = sorted({len(parts) for parts in self.places}, reverse=True)

    def assign(self, parts: Parts) -> tuple[str, str | None] | None:
        """Class and split of a file by its path; None when it belongs to none."""
        for depth in self._depths:
            place = self.places.get(parts[:depth]) if len(parts) > depth else None
            if place is None:
                continue
            folders = parts[depth:-1]
            if place.label is not None:
                label: str | None = place.label
            elif self.classes_from == "name":
                label = class_in_name(parts[-1])
            else:
                label = (folders[0] if self.classes_from == "folder" else folders[-1]) if folders else None
            return None if label is None else (label, place.split)
        return None


def read_tree(request: Request, kind: str) -> Source:
    """Interpret a folder or an archive.

    Parameters
    ----------
    request
        The source and the options.
    kind
        "folder", "zip file" or "tar file".

    Raises
    ------
    AlexNetError
        When there are no images, or nothing says their classes.
    UsageError
        When two readings are plausible, with the commands that choose one.
    """
    tree = Tree(request, kind)
    if not tree.top.total:
        raise AlexNetError(why_no_images(tree))
    if not (request.root or request.splits or request.classes_from):
        for folder in tree.top.below():
            if {entry.parts[-1] for entry in folder.tables} >= CUB_FILES:
                texts = {entry.parts[-1]: read_entry(entry).decode("utf-8", "replace") for entry in folder.tables}
                place = (*folder.parts, "images")
                found = {
                    entry.parts[len(place) :]: entry for entry in tree.entries() if entry.parts[: len(place)] == place
                }
                return read_cub(folder.place, texts, found)
    return Interpreter(tree).source()


class Interpreter:
    """The rules for one tree."""

    def __init__(self, tree: Tree) -> None:
        self.tree, self.request = tree, tree.request
        self.assumptions: list[str] = []
        self.warnings: list[str] = []
        self.left = Tally()
        self.extra: list[Source] = []
        self.used: set[str] = set()
        self.unread: list[str] = []  # why tables cannot be read

    @cached_property
    def index(self) -> FileIndex:
        """All images of the source by path and name."""
        return FileIndex(self.tree.entries())

    def source(self) -> Source:
        """Apply the options, then the rules."""
        classes_from = self.request.classes_from
        top = self.tree.find(self.request.root) if self.request.root else self.tree.top
        if top is not self.tree.top:
            outside = self.tree.top.total - top.total
            if outside:
                self.left.add(f"outside --root {self.request.root}", "images", outside)
        if classes_from and classes_from not in ("folder", "parent", "name"):
            return self._by_named_table(top, classes_from)
        if self.request.splits:
            return self._by_split_folders(top)
        node = self._descend(top)
        if classes_from == "name":
            return self._forced_names(self._split_places(node))
        found = self._folders(node, classes_from)
        if found is None or (classes_from is None and self._is_neutral(found)):
            return self._without_class_folders(node)
        if classes_from:
            found.classes_from = classes_from
        else:
            self._compare_with_tables(node, found)
        return self._from_layout(found, self._split_lists(found))

    def _is_neutral(self, layout: Layout) -> bool:
        """Whether the only class folder of a layout says what its files are, as in part_1/images/, part_2/images/."""
        classes = {kid.name for parts in layout.places for kid in self._at(parts).filled}
        return len(layout.places) > 1 and len(classes) == 1 and all(map(is_neutral, classes))

    # Enclosing folders, splits and classes

    def _descend(self, node: Folder) -> Folder:
        """Pass through folders that enclose everything: one folder with images, which has such folders itself."""
        while True:
            beside = [kid for kid in node.filled if is_unlabeled(kid.name) and not kid.filled]
            filled = [kid for kid in node.filled if kid not in beside]
            inner = filled[0] if len(filled) == 1 else None
            if inner is None or not inner.filled or node.images * 10 > inner.total or _exact_split(inner):
                return node
            if node.images:
                self.left.add("beside the folder of everything", _first(node), node.images)
            for kid in beside:
                self.left.add("beside the folder of everything", kid.place, kid.total)
            node = inner

    def _peel(self, split: Folder) -> Folder:
        """Pass through folders that enclose a split, as in seg_train/seg_train/."""
        while not split.images and len(split.filled) == 1 and split.filled[0].filled:
            inner = split.filled[0]
            if split_of(inner.name) is None and not is_neutral(inner.name):
                break
            split = inner
        return split

    def _folders(self, node: Folder, classes_from: str | None) -> Layout | None:
        """The layout that folder names say; None when no folder is a class."""
        kids = node.filled
        if not kids:
            return None
        split_kids = {kid.name: named for kid in kids if (named := split_of(kid.name)) is not None}
        peeled = {kid.name: self._peel(kid) for kid in kids}
        with_classes = [kid for kid in kids if kid.name in split_kids and _has_class_folders(peeled[kid.name])]
        if with_classes and not (classes_from == "folder" and self._splits_are_doubtful(kids, with_classes)):
            layout = self._splits(node, kids, with_classes, peeled, classes_from)
            if layout is not None:
                return layout
        inverted = self._splits_below_classes(kids)
        if inverted is None and classes_from is None:
            inverted = self._splits_in_class_names(node, kids)
        if inverted is not None:
            return inverted
        others = [kid for kid in kids if kid.name not in split_kids]
        if classes_from is None:
            if not others:
                return None
            if all(is_neutral(kid.name) or is_unlabeled(kid.name) for kid in others):
                return self._in_neutral_folders(node, kids)
            classed = sum(kid.total for kid in kids)
            if node.images >= max(classed, 2):
                raise self._ambiguous(
                    f"{count(node.images, 'image')} lie in {node.place} itself and {classed:,} in its folders",
                    [
                        (f"classes {first_names(kid.name for kid in kids)}", ["--classes-from", "folder"]),
                        ("classes in file names", ["--classes-from", "name"]),
                        (f"only the folder {kids[0].name}", ["--root", "/".join(kids[0].parts)]),
                    ],
                )
            self._check_nesting(kids, node)
            enclosing = [kid for kid in kids if is_neutral(kid.name) and len(kid.filled) > 1 and not kid.images]
            if len(enclosing) == 1:
                inner = sorted(folder.name for folder in enclosing[0].filled)
                raise self._ambiguous(
                    f"{enclosing[0].place} holds folders of images, beside "
                    f"{first_names(kid.name for kid in kids if kid not in enclosing)}",
                    [
                        (f"classes {first_names(inner)}", ["--root", "/".join(enclosing[0].parts)]),
                        (f"classes {first_names(kid.name for kid in kids)}", ["--classes-from", "folder"]),
                    ],
                )
        if split_kids:
            self.warnings.append(
                f"{first_names(sorted(split_kids))} {'are' if len(split_kids) > 1 else 'is'} called as a split and "
                "taken as a class, because other folders beside it are classes"
            )
        if odd := [kid.name for kid in kids if is_neutral(kid.name)]:
            self.warnings.append(f"{first_names(odd)} is taken as a class, although it is not called as one")
        self._note_empty(node)
        return Layout({node.parts: Place(None)})

    def _in_neutral_folders(self, node: Folder, kids: Sequence[Folder]) -> Layout | None:
        """The layout where folders such as images/ or part_1/, beside masks/, hold the class folders."""
        bases = [kid for kid in kids if not is_unlabeled(kid.name) and self._peel(kid).filled]
        if not bases:
            return None
        if len(bases) > 1 and len({re.sub(r"\d+", "", kid.name) for kid in bases}) > 1:
            raise self._ambiguous(
                f"{node.place} holds {first_names(kid.name for kid in bases)}, each with class folders",
                [(f"only {kid.name!r}", ["--root", "/".join(kid.parts)]) for kid in bases[:3]],
            )
        for kid in kids:
            if kid not in bases:
                self.left.add("beside the folder of everything", kid.place, kid.total)
        if len(bases) == 1:
            return self._folders(self._descend(bases[0]), None)
        self.assumptions.append(f"{first_names(kid.name for kid in bases)} are parts of one set")
        return Layout({self._peel(kid).parts: Place(None) for kid in bases})

    def _splits_are_doubtful(self, kids: Sequence[Folder], splits: Sequence[Folder]) -> bool:
        """Whether folders called as splits may be classes: other folders beside them could be classes too."""
        others = [kid for kid in kids if kid not in splits and not is_unlabeled(kid.name) and not is_neutral(kid.name)]
        return bool(others) and len({_split(kid) for kid in splits}) < 2

    def _splits(
        self,
        node: Folder,
        kids: Sequence[Folder],
        splits: list[Folder],
        peeled: dict[str, Folder],
        classes_from: str | None,
    ) -> Layout | None:
        """The layout with `splits` as split folders; None when they are rather something else."""
        splits = _with_known_classes(splits, peeled)
        found = _classes_of(splits, peeled)
        exact = all(_exact_split(kid) for kid in splits)
        shared = set.intersection(*found.values())
        # seg_train and seg_test are splits; steam_train and test_tube are not.
        named = [one for kid in kids if (one := split_of(kid.name)) is not None]
        rests = {one.rest for one in named}
        if not exact and (len({one.split for one in named}) < 2 or not shared or len(rests) > 1):
            return None
        own = {one.rest for kid in splits if (one := split_of(kid.name)) is not None}
        others = [kid for kid in kids if kid not in splits]
        loose = [kid for kid in others if split_of(kid.name) is None]
        rivals = [kid for kid in loose if not is_unlabeled(kid.name) and not is_neutral(kid.name)]
        rivals += [kid for kid in others if (one := split_of(kid.name)) is not None and one.rest not in ((), *own)]
        if rivals and (len(found) < 2 or not shared):
            where = node.place
            raise self._ambiguous(
                f"{where} holds {first_names(kid.name for kid in splits)}, called as a split, beside "
                f"{first_names(kid.name for kid in rivals)}",
                [
                    (
                        f"splits with the classes {first_names(sorted(set().union(*found.values())))}",
                        self._splits_option((_split(kid), peeled[kid.name]) for kid in splits),
                    ),
                    (f"classes {first_names(kid.name for kid in kids)}", ["--classes-from", "folder"]),
                ],
            )
        if "train" not in found and len(found) == 1:
            kid = splits[0]
            raise self._ambiguous(
                f"{node.place} holds only a split for {_split(kid)}, {kid.name!r}, and none to train on",
                [
                    ("all of it, with validation drawn from it", ["--root", "/".join(kid.parts)]),
                    ("that folder as the training split", self._splits_option([("train", kid)])),
                ],
            )
        if node.images:
            self.left.add("beside the folders of splits", _first(node), node.images)
        for kid in others:
            if kid not in loose and self._classed_by_table(kid, node):
                continue
            why = "its images lie in no class folder" if kid not in loose else "beside the folders of splits"
            if kid not in loose and len(peeled[kid.name].filled) == 1:
                why = f"its only folder, {peeled[kid.name].filled[0].name!r}, is no class of the training images"
            self.left.add(why, "/".join(kid.parts) + "/", kid.total)
        places = {}
        classes: dict[str, list[Folder]] = {}
        for kid in splits:
            inner = peeled[kid.name]
            places[inner.parts] = Place(_split(kid))
            self._note_empty(inner)
            if inner.images:
                self.left.add("in no class folder", _first(inner), inner.images)
            for folder in inner.filled:
                classes.setdefault(folder.name, []).append(folder)
        if classes_from is None:
            self._check_nesting([folder for same in classes.values() for folder in same], node)
        return Layout(places)

    def _classed_by_table(self, split: Folder, node: Folder) -> bool:
        """Take the images of a split without class folders from a table that names their classes."""
        index = FileIndex(entry for entry in self.tree.entries() if entry.parts[: len(split.parts)] == split.parts)
        for entry, table in self._tables([*self._above(node), node, *split.below()]):
            folder = self.tree.clean(entry.parts)[:-1]
            matched = sum(isinstance(index.find(row.path, folder), Entry) for row in table.rows)
            if matched * 2 > len(table.rows):
                name = printable(entry.name)
                source = table_source([(name, folder, table)], index, lambda _: _split(split), self.request)
                self.extra.append(source)
                self.used.add(entry.name)
                unlisted = split.total - matched
                if unlisted:
                    self.left.add(f"not in {name}", split.place, unlisted)
                return True
        return False

    def _above(self, node: Folder) -> list[Folder]:
        return [self._at(node.parts[:depth]) for depth in range(len(node.parts))]

    def _root(self) -> Parts:
        return self.tree.find(self.request.root).parts if self.request.root else ()

    def _splits_below_classes(self, kids: Sequence[Folder]) -> Layout | None:
        """Layout cats/train/, cats/test/, dogs/train/: splits within each class."""
        if len(kids) < 2:
            return None
        places = {}
        for kid in kids:
            if kid.images or not all(_exact_split(folder) for folder in kid.filled):
                return None
            for folder in kid.filled:
                places[folder.parts] = Place(_split(folder), kid.name)
        if "train" not in {place.split for place in places.values()}:
            return None
        inner = sorted({folder.name for parts in places for folder in self._at(parts).filled})
        if inner and self.request.classes_from is None:
            outer = [kid.name for kid in kids]
            raise self._ambiguous(
                f"{first_names(outer)} hold folders of splits, and those hold folders",
                [
                    (f"{len(outer)} classes {first_names(outer)}", ["--classes-from", "folder"]),
                    (f"{len(inner)} classes {first_names(inner)}", ["--classes-from", "parent"]),
                    (f"only {outer[0]!r}", ["--root", "/".join(kids[0].parts)]),
                ],
            )
        if self.request.classes_from == "parent":
            places = {parts: place._replace(label=None) for parts, place in places.items()}
        return Layout(places, assumptions=["each class folder holds folders of splits"])

    def _splits_in_class_names(self, node: Folder, kids: Sequence[Folder]) -> Layout | None:
        """Layout cat_train/, cat_test/, dog_train/, dog_test/: the split in the name of each class folder."""
        named = {kid: one for kid in kids if (one := class_and_split(kid.name)) is not None}
        of_class: dict[str, set[str]] = {}
        for label, split in named.values():
            of_class.setdefault(label, set()).add(split)
        paired = [label for label, splits in of_class.items() if "train" in splits and len(splits) > 1]
        others = [kid for kid in kids if kid not in named and not is_unlabeled(kid.name)]
        taught = all("train" in splits for splits in of_class.values())
        if not paired or (len(paired) < 2 and (others or not taught)):
            return None
        nested = all(not kid.images and len(kid.filled) > 1 for kid in named)
        if others or not taught or nested:
            splits = [*((split, kid) for kid, (_, split) in named.items()), *(("train", kid) for kid in others)]
            classes = {inner.name for kid in named for inner in kid.filled} if nested else {*of_class}
            classes |= {kid.name for kid in others}
            raise self._ambiguous(
                f"the folders {first_names(kid.name for kid in named)} of {node.place} are called as a class and a "
                f"split, and {'hold folders of images' if nested else 'not all folders are called as both'}",
                [
                    (f"splits with the classes {first_names(sorted(classes))}", self._splits_option(splits)),
                    (f"classes {first_names(kid.name for kid in kids)}", ["--classes-from", "folder"]),
                ],
            )
        for kid in kids:
            if kid not in named:
                self.left.add("beside the folders of splits", kid.place, kid.total)
        if node.images:
            self.left.add("beside the folders of splits", _first(node), node.images)
        self._note_empty(node)
        places = {kid.parts: Place(split, label) for kid, (label, split) in named.items()}
        first = next(kid for kid, (_, split) in named.items() if split == "train")
        what = (
            f"folder names hold class and split: {first.name!r} is class {named[first][0]!r}, split {named[first][1]}"
        )
        return Layout(places, assumptions=[f"{what}; --classes-from folder takes each folder as a class"])

    def _splits_option(self, splits: Iterable[tuple[str, Folder]]) -> list[str]:
        """The option --splits with these folders."""
        below = [(split, "/".join(folder.parts[len(self._root()) :])) for split, folder in splits]
        return ["--splits", ",".join(f"{split}={_quoted(folder)}" for split, folder in below)]

    def _check_nesting(self, classes: Sequence[Folder], node: Folder) -> None:
        """Stop when every class folder holds its images in several folders: those may be the classes as well."""
        total = sum(folder.total for folder in classes)
        for folder in classes:
            # One folder with nearly everything, in folders: it may enclose the classes, and the others be strays.
            if len(classes) == 2 and not folder.images and len(folder.filled) > 2 and folder.total * 10 >= total * 9:
                inner = sorted(kid.name for kid in folder.filled)
                raise self._ambiguous(
                    f"{folder.place} holds nearly all images, in several folders",
                    [
                        (f"{len(inner)} classes {first_names(inner)}", ["--root", "/".join(folder.parts)]),
                        (
                            f"{len(classes)} classes {first_names(sorted(one.name for one in classes))}",
                            ["--classes-from", "folder"],
                        ),
                    ],
                )
        nested = [folder for folder in classes if not folder.images and len(folder.filled) > 1]
        if len(classes) < 2 or len(nested) < len(classes):
            for folder in nested[:3]:
                within = first_names(sorted(kid.name for kid in folder.filled))
                what = f"{folder.place} is one class, with the folders {within}"
                self.assumptions.append(f"{what}; --classes-from parent takes each as a class")
            return
        inner = sorted({kid.name for folder in classes for kid in folder.filled})
        outer = sorted({folder.name for folder in classes})
        readings = [
            (f"{len(outer)} classes {first_names(outer)}", ["--classes-from", "folder"]),
            (f"{len(inner)} classes {first_names(inner)}", ["--classes-from", "parent"]),
        ]
        if len(outer) > 1:
            readings.append((f"only {outer[0]!r}", ["--root", "/".join(classes[0].parts)]))
        raise self._ambiguous(f"the folders of {node.place} all hold several folders of images", readings)

    def _note_empty(self, node: Folder) -> None:
        for folder in node.folders.values():
            if not folder.total and not is_neutral(folder.name):
                self.left.add("a folder without any image, not a class", folder.place, 1)

    # Options

    def _by_split_folders(self, top: Folder) -> Source:
        places: dict[Parts, Place] = {}
        for split, folders in self.request.splits.items():
            for name in folders:
                folder = self.tree.find("/".join((*top.parts, name)) if top.parts else name)
                places[self._peel(folder).parts] = Place(split)
        rest = top.total - sum(self._at(parts).total for parts in places)
        if rest > 0:
            self.left.add("outside the folders of --splits", "images", rest)
        if self.request.classes_from == "name":
            return self._forced_names(places)
        if any(not self._at(parts).filled for parts in places):
            if self.request.classes_from is None and (layout := self._classes_of_split_folders(places)) is not None:
                return self._from_layout(layout)
            return self._by_table_or_name(top, places)
        return self._from_layout(Layout(places, self.request.classes_from or "folder"))

    def _classes_of_split_folders(self, places: Mapping[Parts, Place]) -> Layout | None:
        """Classes in the names of the folders of --splits, as in train=cat_train,train=dog_train; else None."""
        named = {parts: class_and_split(parts[-1]) if parts else None for parts in places}
        labels = [one[0] for one in named.values() if one is not None]
        if len(set(labels)) < 2 or len(set(labels)) == len(labels):
            return None
        labeled = {parts: place._replace(label=(named[parts] or parts[-1:])[0]) for parts, place in places.items()}
        what = f"the names of the folders of --splits hold the classes: {first_names(sorted(set(labels)))}"
        return Layout(labeled, assumptions=[what])

    def _at(self, parts: Parts) -> Folder:
        folder = self.tree.top
        for name in parts:
            folder = folder.folders[name]
        return folder

    def _by_named_table(self, top: Folder, named: str) -> Source:
        file, _, column = named.rpartition(":") if ":" in named and not os.path.isfile(named) else (named, "", "")
        inside = [entry for folder in top.below() for entry in folder.tables if entry.name.endswith(file)][:1]
        if os.path.isfile(file):
            inside = [Entry((os.path.basename(file),), os.path.abspath(file))]
        elif not inside and re.search(r"[*?]", file):
            inside = [one for folder in top.below() for one in folder.tables if fnmatchcase(one.name, f"*{file}")]
        if not inside:
            raise UsageError(
                f"--classes-from {named!r} is neither folder, parent, name nor a table in {self.request.path} or here"
            )
        tables = []
        for entry in inside:
            data, name, encoding = read_entry(entry), printable(entry.name), self.request.encoding
            table = read_table(data, name, encoding, column or None, ignored=self.request.ignore_columns)
            table = table or read_listing(data, name, encoding, self.index)
            if table is None:
                raise UsageError(f"{name} has no columns of paths and labels")
            tables.append((entry, table))
        return self._from_tables(tables, top, self._split_places(top))

    # Where no folder is a class

    def _split_places(self, node: Folder) -> dict[Parts, Place]:
        """The folders of splits below `node`, or the node itself."""
        kids = [kid for kid in node.filled if split_of(kid.name) is not None]
        beside = [kid for kid in node.filled if is_unlabeled(kid.name)]
        if not kids and beside and len(beside) < len(node.filled) and not node.images:
            for kid in beside:
                self.left.add("called as something else than images to classify", kid.place, kid.total)
            return {kid.parts: Place(None) for kid in node.filled if kid not in beside}
        if not kids or node.images:
            return {node.parts: Place(None)}
        return {self._peel(kid).parts: Place(_split(kid)) for kid in kids}

    def _without_class_folders(self, node: Folder) -> Source:
        places = self._split_places(node)
        if {place.split for place in places.values()} == {"test"} and len(node.filled) == 1:
            places = {node.parts: Place(None)}
        return self._by_table_or_name(node, places)

    def _by_table_or_name(self, node: Folder, places: dict[Parts, Place]) -> Source:
        tables = self._tables([*self._above(node), *node.below()])
        if tables:
            return self._from_tables(tables, node, places)
        source = self._by_class_files(places) or self._by_name(places)
        if source is not None:
            return source
        raise self._no_classes(node)

    def _by_class_files(self, places: dict[Parts, Place]) -> Source | None:
        """Classes in a .cls file beside each image, as WebDataset has them; None where there are none."""
        if not any("(.cls)" in one.reason for one in self.tree.others.list()):
            return None
        labels = {}
        for entry in self.tree.walk:
            if entry.parts[-1].endswith(".cls"):
                label = composed(read_entry(entry).decode("utf-8", "replace")).strip()
                labels[self.tree.clean(entry.parts)[:-1], entry.parts[-1][:-4]] = label
        layout = Layout(places, "name")
        items = []
        for entry in self.tree.entries():
            found = labels.get((entry.parts[:-1], os.path.splitext(entry.parts[-1])[0]))
            split = next((place.split for at, place in layout.places.items() if entry.parts[: len(at)] == at), None)
            if found:
                items.append(Item(entry.name, found, split, *entry[1:5]))
            else:
                self.left.add("no .cls file beside it", entry.name)
        return self._finished(Source(items, origins=[Origin(None, ".cls files beside the images")]))

    def _by_name(self, places: dict[Parts, Place], forced: bool = False) -> Source | None:
        """Classes in file names, such as cat.0.jpg; None when they are not, unless forced."""
        labels: dict[Parts, Counter[str | None]] = {parts: Counter() for parts in places}
        unnamed: dict[Parts, str] = {}
        depths = sorted({len(parts) for parts in places}, reverse=True)
        for entry in self.tree.entries():
            at = next((entry.parts[:depth] for depth in depths if entry.parts[:depth] in places), None)
            if at is None:
                continue
            label = class_in_name(entry.parts[-1])
            labels[at][label] += 1
            if label is None:
                unnamed.setdefault(at, entry.name)
        good = {parts: place for parts, place in places.items() if _are_classes(labels[parts], forced)}
        if not good or not ({place.split for place in good.values()} & {"train", None}):
            if forced:
                first = next(iter(unnamed.values()), "all of them")
                raise UsageError(
                    f"--classes-from name: {printable(first)} has no class in its name, as in cat.0.jpg or cat_12.jpg"
                )
            return None
        for parts in places:
            if parts not in good:
                self.left.add(
                    "no class in the file names",
                    printable(unnamed.get(parts, "/".join(parts))),
                    sum(labels[parts].values()),
                )
        classes = sorted({str(label) for parts in good for label in labels[parts]})
        layout = Layout(good, "name", [f"the classes are in the file names: {first_names(classes)}"])
        return self._from_layout(layout, self._split_lists(layout))

    def _forced_names(self, places: dict[Parts, Place]) -> Source:
        source = self._by_name(places, forced=True)
        assert source is not None
        return source

    def _tables(self, folders: Iterable[Folder], named_columns: bool = False) -> list[tuple[Entry, Table]]:
        """The tables in `folders` that have paths and labels, other than samples of submissions."""
        found = []
        for folder in folders:
            for entry in folder.tables:
                size = entry.length if entry.length >= 0 else os.path.getsize(entry.file)
                if _SUBMISSION.search(entry.parts[-1]) or size > _LARGEST_TABLE:
                    continue
                data, name, encoding = read_entry(entry), printable(entry.name), self.request.encoding
                try:
                    table = read_table(data, name, encoding, None, named_columns, self.request.ignore_columns)
                except WorkbookError as error:
                    self.unread.append(str(error))
                    continue
                if table is None and not named_columns:
                    table = read_listing(data, name, encoding, self.index)
                if table is not None:
                    found.append((entry, table))
                elif name.lower().endswith((".csv", ".tsv", *WORKBOOK_ENDINGS)):
                    first = first_line(data, name, encoding)
                    self.unread.append(
                        f"{name} has no columns path and label, its first line is {first!r}: rename them"
                    )
        return found

    def _from_tables(self, tables: list[tuple[Entry, Table]], node: Folder, places: dict[Parts, Place]) -> Source:
        depths = {len(at) for at in places}
        index = FileIndex(
            entry for entry in self.tree.entries() if any(entry.parts[:depth] in places for depth in depths)
        )
        matching = [(entry, table) for entry, table in tables if table.matches(index, self._images_of(entry, places))]
        if not matching:
            by_name = self._by_name(places)
            if by_name is not None:
                return by_name
            names = first_names(printable(entry.name) for entry, _ in tables)
            first = tables[0][1].rows[0].path
            why = index.find(first, self._images_of(tables[0][0], places))
            raise AlexNetError(
                f"no classes in {self.request.path}: none of the images that {names} names is there, "
                f"such as {first!r}: {why}"
            )

        matching = self._without_unions(matching)
        self._check_agreement(matching, index, places)
        self.used |= {entry.name for entry, _ in matching}

        def split(entry: Entry) -> str | None:
            parts = self.tree.clean(entry.parts)
            return next((place.split for at, place in places.items() if parts[: len(at)] == at), None)

        source = table_source(
            [(printable(entry.name), self._images_of(entry, places), table) for entry, table in matching],
            index,
            split,
            self.request,
        )
        used = sum(1 for item in source.items if not item.packing.startswith("unreadable:"))
        if self.tree.top.total > used:
            names = first_names(printable(entry.name) for entry, _ in matching)
            self.left.add(f"not in {names}", "images", self.tree.top.total - used)
        return self._finished(source)

    def _without_unions(self, tables: list[tuple[Entry, Table]]) -> list[tuple[Entry, Table]]:
        """The tables but for those of training and validation together, such as trainval.txt beside both."""
        names = {entry.name for entry, _ in tables}
        for entry, _ in tables:
            folder, stem, ending = _name_parts(entry)
            parts = [f"{folder}{stem.replace('trainval', split)}{ending}" for split in ("train", "val")]
            if "trainval" in stem and set(parts) <= names:
                self.left.add(f"repeats {' and '.join(map(printable, parts))}", printable(entry.name))
                names.discard(entry.name)
        return [one for one in tables if one[0].name in names]

    def _images_of(self, table: Entry, places: Mapping[Parts, Place]) -> Parts:
        """The folder that the paths of a table are relative to: its own, or that of its split: train/ of train.csv."""
        named = split_of(_name_parts(table)[1])
        own = self.tree.clean(table.parts)[:-1]
        if named is None or not named.exact:
            return own
        of_split = [parts for parts, place in places.items() if place.split == named.split]
        return of_split[0] if len(of_split) == 1 and of_split[0][: len(own)] == own else own

    def _check_agreement(
        self, tables: Sequence[tuple[Entry, Table]], index: FileIndex, places: Mapping[Parts, Place]
    ) -> None:
        """Stop when tables are about other properties: images_variant_train.txt beside images_family_train.txt."""
        groups: dict[str, list[tuple[Entry, Table]]] = {}
        for entry, table in tables:
            groups.setdefault(_pattern_of_splits(entry), []).append((entry, table))
        if len(groups) < 2:
            return
        classes: dict[str, dict[tuple[str, int], str]] = {}
        for pattern, group in groups.items():
            classes[pattern] = {}
            for entry, table in group:
                folder = self._images_of(entry, places)
                found = ((index.find(row.path, folder), row.label) for row in table.rows)
                classes[pattern] |= {(at.file, at.offset): label for at, label in found if isinstance(at, Entry)}
        first, *others = classes.values()
        for other in others:
            shared = first.keys() & other.keys()
            if shared and sum(first[image] != other[image] for image in shared) * 10 > len(shared):
                readings = []
                for pattern, group in groups.items():
                    named = printable(group[0][0].name) if len(group) == 1 else pattern
                    labels = first_names(sorted(set(classes[pattern].values())), 3)
                    readings.append((f"{named}: {labels}", ["--classes-from", named]))
                raise self._ambiguous("its tables say different classes of the same images", readings)

    def _compare_with_tables(self, node: Folder, layout: Layout) -> None:
        """Stop when a table beside the class folders says other classes than they do."""
        try:
            places = {parts[:depth] for parts in layout.places for depth in range(len(parts) + 1)}
            tables = self._tables(map(self._at, sorted(places)), named_columns=True)
        except AlexNetError as error:
            self.warnings.append(f"a table beside the class folders is not used: {error}")
            return
        if not tables:
            return
        total = sum(self._at(parts).total for parts in layout.places)
        for entry, table in tables:
            pairs: Counter[tuple[str, str]] = Counter()
            unclear: list[str] = []
            for row in table.rows:
                found = self.index.find(row.path, self.tree.clean(entry.parts)[:-1])
                assigned = layout.assign(self.tree.clean(found.parts)) if isinstance(found, Entry) else None
                if assigned is not None:
                    pairs[assigned[0], row.label] += 1
                elif isinstance(found, str) and "files have this name" in found:
                    unclear.append(f"line {row.line}: {row.path}: {found}")
            if len(unclear) * 2 > len(table.rows):
                self.warnings.append(
                    f"{printable(entry.name)} beside the class folders says classes and is not used: {unclear[0]}"
                )
            by_folder, by_table = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
            if sum(pairs.values()) * 2 < total or len(by_table) < 2 or len(by_table) * 2 > sum(pairs.values()):
                continue
            if len(pairs) == len(by_folder) == len(by_table):
                continue
            raise self._ambiguous(
                f"the folders and the column {table.label_column!r} of {printable(entry.name)} say different classes",
                [
                    (f"the folders: {first_names(sorted(by_folder))}", ["--classes-from", "folder"]),
                    (f"the table: {first_names(sorted(by_table))}", ["--classes-from", printable(entry.name)]),
                ],
            )

    def _split_lists(self, layout: Layout) -> dict[tuple[str, int], str]:
        """The split of each image by lists such as meta/train.txt; empty where folders say it or there are none."""
        if self.request.classes_from or any(place.split for place in layout.places.values()):
            return {}
        lists = []
        for folder in self.tree.top.below():
            for entry in folder.tables:
                size = entry.length if entry.length >= 0 else os.path.getsize(entry.file)
                is_list = split_of_list(entry.parts[-1]) is not None or entry.parts[-1].lower().endswith(".json")
                if not is_list or size > _LARGEST_TABLE:
                    continue
                name = printable(entry.name)
                for split, lines in read_lists(read_entry(entry), name, self.request.encoding).items():
                    lists.append((name, split, self.tree.clean(entry.parts)[:-1], lines))
        if not lists:
            return {}
        splits, used, assumptions = splits_of_lists(lists, self.index, f"--classes-from {layout.classes_from}")
        self.used |= set(used)
        self.assumptions += assumptions
        return splits

    # Results

    def _from_layout(self, layout: Layout, splits: Mapping[tuple[str, int], str] | None = None) -> Source:
        self.assumptions += layout.assumptions
        tree = self.tree
        loose = sum(self._at(parts).images for parts in layout.places) if layout.classes_from != "name" else 0
        if loose and not any(place.label for place in layout.places.values()):
            for parts in layout.places:
                folder = self._at(parts)
                if folder.images and not any(place.split for place in layout.places.values()):
                    self.left.add("in no class folder", _first(folder), folder.images)
        origins = []
        for parts, place in layout.places.items():
            where = "/".join(parts) + "/" if parts else "its folders"
            if layout.classes_from == "name":
                where = ("/".join(parts) + "/" if parts else "its file names") + (
                    "" if not parts else ", by file names"
                )
            origins.append(Origin(place.split, printable(where)))
        if len(origins) > 2 and all(place.label for place in layout.places.values()):
            origins = [
                Origin(split, f"{split} folders of the classes") for split in sorted({str(o.split) for o in origins})
            ]

        rest = None
        if splits:
            folders = origins[0].place
            origins = [Origin(split, f"{folders}, by a list") for split in sorted(set(splits.values()) | {"train"})]
            unlisted = sum(self._at(parts).total for parts in layout.places) - len(splits)
            if "train" not in splits.values():
                rest = "train"
            elif unlisted > 0:
                self.left.add("in none of the lists of splits", "images", unlisted)

        def items() -> Iterator[Item]:
            last: tuple[Parts, tuple[str, str | None] | None] | None = None
            for entry in tree.entries():
                folder = entry.parts[:-1]
                if last is None or last[0] != folder or layout.classes_from == "name":
                    last = (folder, layout.assign(entry.parts))
                assigned = last[1]
                if assigned is None:
                    continue
                split = splits.get((entry.file, entry.offset), rest) if splits else assigned[1]
                if split is not None or not splits:
                    yield Item("/".join(entry.parts), assigned[0], split, *entry[1:5])
            for source in self.extra:
                yield from source.items

        for source in self.extra:
            origins += source.origins
            self.assumptions += source.assumptions
            self.warnings += source.warnings

        return self._finished(Source(Items(items), kind=tree.kind, origins=origins))

    def _finished(self, source: Source) -> Source:
        left = [*self.left.list(), *self.tree.walk.tally.list(), *self.tree.unused(self.used), *source.ignored]
        return Source(
            source.items,
            source.descriptions,
            self.tree.kind,
            source.origins,
            [one._replace(first=printable(one.first)) for one in left],
            [*self.tree.assumptions, *self.assumptions, *source.assumptions],
            [*self.warnings, *source.warnings],
        )

    def _ambiguous(self, what: str, readings: Sequence[tuple[str, list[str]]]) -> UsageError:
        choices = "; ".join(
            f"({number}) {reading}: {self.request.command(*options)}"
            for number, (reading, options) in enumerate(readings, start=1)
        )
        ways = {2: "two", 3: "three"}.get(len(readings), str(len(readings)))
        return UsageError(f"{self.request.path} can be understood in {ways} ways, as {what}. Choose one: {choices}")

    def _no_classes(self, node: Folder) -> AlexNetError:
        where = self.request.path
        detected = detected_dataset(self.tree)
        if detected:
            return AlexNetError(f"{where} is {detected}: `alexnet` classifies images and needs one class for each")
        kids = node.filled
        table = next((one.first for one in self.tree.unused() if one.reason.endswith(_OTHER_TABLES)), None)
        hint = f"; if {printable(table)} names the classes, save it as CSV beside the images" if table else ""
        if self.unread:
            hint = f"; {self.unread[0]}"
        archives = [one for one in self.tree.unused() if one.reason.endswith(_ARCHIVES)]
        if archives:
            hint += (
                f"; {printable(archives[0].first)} is an archive, and is read where the folder holds no image beside it"
            )
        if kids and not node.images:
            names = first_names(sorted(kid.name for kid in kids))
            commands = self._commands_of_splits(kids)
            if commands:
                return UsageError(
                    f"{where} can be understood in several ways, as its folders {names} hold class folders and are "
                    f"called as splits and as something else. Choose the folders of each split: {commands}"
                )
            command = self.request.command("--classes-from", "folder")
            as_classes = f"To take the folders as the classes: {command}; otherwise put" if len(kids) > 1 else "Put"
            return UsageError(
                f"no classes in {where}: its folders {names} are called as splits or as images in general, and hold "
                "neither class folders nor file names with classes, and no table names the classes. "
                f"{as_classes} each image in a folder named after its class, or write a CSV of path,label{hint}"
            )
        first = printable("/".join((*node.parts, node.first)))
        return AlexNetError(
            f"no classes in {where}: {first} lies in no class folder, as all of its {count(node.images, 'image')}; "
            f"put each in a folder named after its class, or write a CSV of path,label{hint}"
        )

    def _commands_of_splits(self, kids: Sequence[Folder]) -> str:
        """Commands that name the folders of the splits: those called as such exactly, and all; empty without two."""
        splits = [kid for kid in kids if split_of(kid.name) is not None and _has_class_folders(self._peel(kid))]
        readings = [[kid for kid in splits if _exact_split(kid) and split_of(kid.name) is not None], splits]
        commands = []
        for chosen in readings:
            if {"train"} <= {_split(kid) for kid in chosen}:
                commands.append(self.request.command(*self._splits_option((_split(kid), kid) for kid in chosen)))
        return " or ".join(dict.fromkeys(commands))


class Items:
    """Items that are listed anew by a function each time they are iterated."""

    def __init__(self, make: Callable[[], Iterable[Item]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Item]:
        return iter(self._make())


def class_in_name(name: str) -> str | None:
    """The class in a file name that ends or begins with a number: cat.0.jpg, crazing_12.jpg, 7-dog.png; else None."""
    stem = composed(printable(os.path.splitext(name)[0])).strip()
    for pattern in (r"(.+?)(?:[\s._-]+\(?\d+\)?|\s*\(\d+\))+", r"(.*[^\W\d])\d+", r"\d+[\s._-]+(.+)"):
        match = re.fullmatch(pattern, stem)
        if match and re.search(r"[^\W\d_]", match[1]):
            return match[1].strip(" ._-")
    return None


def _name_parts(entry: Entry) -> tuple[str, str, str]:
    """Folder with its slash, stem and ending of a file."""
    folder, slash, name = entry.name.rpartition("/")
    return (folder + slash, *os.path.splitext(name))


def _pattern_of_splits(entry: Entry) -> str:
    """A pattern of the names of a table and of those of other splits: images_variant_*.txt."""
    folder, stem, ending = _name_parts(entry)
    named = split_of(stem)
    if named is None:
        return printable(entry.name)
    parts = (rf"(?<![^\W\d_]){re.escape(term)}(?![^\W\d_])" for term in (*SPLIT_NAMES,))
    return printable(folder + re.sub("|".join(parts), "*", stem, flags=re.IGNORECASE) + ending)


def _has_class_folders(split: Folder) -> bool:
    """Whether a split holds folders other than one that only says what its files are, as in val/images/."""
    filled = split.filled
    if split.images * 2 >= split.total:
        return False
    return len(filled) > 1 or any(
        kid.filled or not (is_neutral(kid.name) or split_of(kid.name) or kid.name == split.name) for kid in filled
    )


def _classes_of(splits: Iterable[Folder], peeled: Mapping[str, Folder]) -> dict[str, set[str]]:
    """Split → names of its class folders."""
    found: dict[str, set[str]] = {}
    for kid in splits:
        found.setdefault(_split(kid), set()).update(folder.name for folder in peeled[kid.name].filled)
    return found


def _with_known_classes(splits: list[Folder], peeled: Mapping[str, Folder]) -> list[Folder]:
    """The splits but for those with one folder that is no class of the training images: test/unknown/."""
    taught = _classes_of(splits, peeled).get("train")
    if taught is None:
        return splits
    single = [kid for kid in splits if _split(kid) != "train" and len(peeled[kid.name].filled) == 1]
    return [kid for kid in splits if kid not in single or peeled[kid.name].filled[0].name in taught]


def _are_classes(labels: Counter[str | None], forced: bool) -> bool:
    """Whether the classes in file names are classes, not what a camera calls its files."""
    if None in labels or not labels:
        return False
    if forced:
        return True
    images = sum(labels.values())
    generic = any(set(name_tokens(str(label))) <= _GENERIC for label in labels)
    return len(labels) >= 2 and not generic and min(labels.values()) >= 2 and len(labels) * 2 <= images


def _first(folder: Folder) -> str:
    return "/".join((*folder.parts, folder.first))


def _split(folder: Folder) -> str:
    named = split_of(folder.name)
    assert named is not None
    return named.split


def _quoted(folder: str) -> str:
    """A folder as --splits takes it: in quotation marks where it has a comma."""
    return f'"{folder}"' if "," in folder else folder


def _exact_split(folder: Folder) -> bool:
    named = split_of(folder.name)
    return named is not None and named.exact
