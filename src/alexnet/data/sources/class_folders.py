"""The layout that the names of folders say: which folders are splits, and which are classes.

- Folders around everything are passed through, whatever files lie beside them.
- Folders are splits when their names mean splits (train, train_images, seg_test, test1, valid) and they hold class
  folders. What lies beside them is ignored.
- Otherwise the folders are the classes. Folders within a class belong to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from alexnet.data.sources.label_tables import classed_by_table
from alexnet.data.sources.layout import Layout, Place
from alexnet.data.sources.names import class_and_split, first_names, is_neutral, is_unlabeled, split_of
from alexnet.data.sources.plan import count
from alexnet.data.sources.reading import Reading
from alexnet.data.sources.tree import Folder, Parts


def only_neutral_classes(reading: Reading, layout: Layout) -> bool:
    """Whether the only class folder of a layout says what its files are, as in part_1/images/, part_2/images/."""
    classes = {kid.name for parts in layout.places for kid in reading.at(parts).filled}
    return len(layout.places) > 1 and len(classes) == 1 and all(map(is_neutral, classes))


def descend(reading: Reading, node: Folder) -> Folder:
    """Pass through folders that enclose everything: one folder with images, which has such folders itself."""
    while True:
        beside = [kid for kid in node.filled if is_unlabeled(kid.name) and not kid.filled]
        filled = [kid for kid in node.filled if kid not in beside]
        inner = filled[0] if len(filled) == 1 else None
        if inner is None or not inner.filled or node.images * 10 > inner.total or inner.exact_split:
            return node
        if node.images:
            reading.left.add("beside the folder of everything", node.first_image, node.images)
        for kid in beside:
            reading.left.add("beside the folder of everything", kid.place, kid.total)
        node = inner


def peel(split: Folder) -> Folder:
    """Pass through folders that enclose a split, as in seg_train/seg_train/."""
    while not split.images and len(split.filled) == 1 and split.filled[0].filled:
        inner = split.filled[0]
        if split_of(inner.name) is None and not is_neutral(inner.name):
            break
        split = inner
    return split


def layout_of_class_folders(reading: Reading, node: Folder, classes_from: str | None) -> Layout | None:
    """The layout that folder names say; None when no folder is a class."""
    kids = node.filled
    if not kids:
        return None
    split_kids = {kid.name: named for kid in kids if (named := split_of(kid.name)) is not None}
    peeled = {kid.name: peel(kid) for kid in kids}
    with_classes = [kid for kid in kids if kid.name in split_kids and has_class_folders(peeled[kid.name])]
    if with_classes and not (classes_from == "folder" and _splits_are_doubtful(kids, with_classes)):
        layout = _layout_of_splits(reading, node, kids, with_classes, peeled, classes_from)
        if layout is not None:
            return layout
    inverted = _layout_of_splits_below_classes(reading, kids)
    if inverted is None and classes_from is None:
        inverted = _layout_of_splits_in_class_names(reading, node, kids)
    if inverted is not None:
        return inverted
    others = [kid for kid in kids if kid.name not in split_kids]
    if classes_from is None:
        if not others:
            return None
        if all(is_neutral(kid.name) or is_unlabeled(kid.name) for kid in others):
            return _layout_in_neutral_folders(reading, node, kids)
        classed = sum(kid.total for kid in kids)
        if node.images >= max(classed, 2):
            raise reading.ambiguous(
                f"{count(node.images, 'image')} lie in {node.place} itself and {classed:,} in its folders",
                [
                    (f"classes {first_names(kid.name for kid in kids)}", ["--classes-from", "folder"]),
                    ("classes in file names", ["--classes-from", "name"]),
                    (f"only the folder {kids[0].name}", ["--root", "/".join(kids[0].parts)]),
                ],
            )
        _check_nesting(reading, kids, node)
        enclosing = [kid for kid in kids if is_neutral(kid.name) and len(kid.filled) > 1 and not kid.images]
        if len(enclosing) == 1:
            inner = sorted(folder.name for folder in enclosing[0].filled)
            raise reading.ambiguous(
                f"{enclosing[0].place} holds folders of images, beside "
                f"{first_names(kid.name for kid in kids if kid not in enclosing)}",
                [
                    (f"classes {first_names(inner)}", ["--root", "/".join(enclosing[0].parts)]),
                    (f"classes {first_names(kid.name for kid in kids)}", ["--classes-from", "folder"]),
                ],
            )
    if split_kids:
        reading.warnings.append(
            f"{first_names(sorted(split_kids))} {'are' if len(split_kids) > 1 else 'is'} called as a split and "
            "taken as a class, because other folders beside it are classes"
        )
    if odd := [kid.name for kid in kids if is_neutral(kid.name)]:
        reading.warnings.append(f"{first_names(odd)} is taken as a class, although it is not called as one")
    _note_empty(reading, node)
    return Layout({node.parts: Place(None)})


def _layout_in_neutral_folders(reading: Reading, node: Folder, kids: Sequence[Folder]) -> Layout | None:
    """The layout where folders such as images/ or part_1/, beside masks/, hold the class folders."""
    bases = [kid for kid in kids if not is_unlabeled(kid.name) and peel(kid).filled]
    if not bases:
        return None
    if len(bases) > 1 and len({re.sub(r"\d+", "", kid.name) for kid in bases}) > 1:
        raise reading.ambiguous(
            f"{node.place} holds {first_names(kid.name for kid in bases)}, each with class folders",
            [(f"only {kid.name!r}", ["--root", "/".join(kid.parts)]) for kid in bases[:3]],
        )
    for kid in kids:
        if kid not in bases:
            reading.left.add("beside the folder of everything", kid.place, kid.total)
    if len(bases) == 1:
        return layout_of_class_folders(reading, descend(reading, bases[0]), None)
    reading.assumptions.append(f"{first_names(kid.name for kid in bases)} are parts of one set")
    return Layout({peel(kid).parts: Place(None) for kid in bases})


def _splits_are_doubtful(kids: Sequence[Folder], splits: Sequence[Folder]) -> bool:
    """Whether folders called as splits may be classes: other folders beside them could be classes too."""
    others = [kid for kid in kids if kid not in splits and not is_unlabeled(kid.name) and not is_neutral(kid.name)]
    return bool(others) and len({kid.split for kid in splits}) < 2


def _layout_of_splits(
    reading: Reading,
    node: Folder,
    kids: Sequence[Folder],
    splits: list[Folder],
    peeled: dict[str, Folder],
    classes_from: str | None,
) -> Layout | None:
    """The layout with `splits` as split folders; None when they are rather something else."""
    splits = _with_known_classes(splits, peeled)
    found = _classes_of(splits, peeled)
    exact = all(kid.exact_split for kid in splits)
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
        raise reading.ambiguous(
            f"{where} holds {first_names(kid.name for kid in splits)}, called as a split, beside "
            f"{first_names(kid.name for kid in rivals)}",
            [
                (
                    f"splits with the classes {first_names(sorted(set().union(*found.values())))}",
                    splits_option(reading, ((kid.split, peeled[kid.name]) for kid in splits)),
                ),
                (f"classes {first_names(kid.name for kid in kids)}", ["--classes-from", "folder"]),
            ],
        )
    if "train" not in found and len(found) == 1:
        kid = splits[0]
        raise reading.ambiguous(
            f"{node.place} holds only a split for {kid.split}, {kid.name!r}, and none to train on",
            [
                ("all of it, with validation drawn from it", ["--root", "/".join(kid.parts)]),
                ("that folder as the training split", splits_option(reading, [("train", kid)])),
            ],
        )
    if node.images:
        reading.left.add("beside the folders of splits", node.first_image, node.images)
    for kid in others:
        if kid not in loose and classed_by_table(reading, kid, node):
            continue
        why = "its images lie in no class folder" if kid not in loose else "beside the folders of splits"
        if kid not in loose and len(peeled[kid.name].filled) == 1:
            why = f"its only folder, {peeled[kid.name].filled[0].name!r}, is no class of the training images"
        reading.left.add(why, "/".join(kid.parts) + "/", kid.total)
    places = {}
    classes: dict[str, list[Folder]] = {}
    for kid in splits:
        inner = peeled[kid.name]
        places[inner.parts] = Place(kid.split)
        _note_empty(reading, inner)
        if inner.images:
            reading.left.add("in no class folder", inner.first_image, inner.images)
        for folder in inner.filled:
            classes.setdefault(folder.name, []).append(folder)
    if classes_from is None:
        _check_nesting(reading, [folder for same in classes.values() for folder in same], node)
    return Layout(places)


def _layout_of_splits_below_classes(reading: Reading, kids: Sequence[Folder]) -> Layout | None:
    """Layout cats/train/, cats/test/, dogs/train/: splits within each class."""
    if len(kids) < 2:
        return None
    places = {}
    for kid in kids:
        if kid.images or not all(folder.exact_split for folder in kid.filled):
            return None
        for folder in kid.filled:
            places[folder.parts] = Place(folder.split, kid.name)
    if "train" not in {place.split for place in places.values()}:
        return None
    inner = sorted({folder.name for parts in places for folder in reading.at(parts).filled})
    if inner and reading.request.classes_from is None:
        outer = [kid.name for kid in kids]
        raise reading.ambiguous(
            f"{first_names(outer)} hold folders of splits, and those hold folders",
            [
                (f"{len(outer)} classes {first_names(outer)}", ["--classes-from", "folder"]),
                (f"{len(inner)} classes {first_names(inner)}", ["--classes-from", "parent"]),
                (f"only {outer[0]!r}", ["--root", "/".join(kids[0].parts)]),
            ],
        )
    if reading.request.classes_from == "parent":
        places = {parts: place._replace(label=None) for parts, place in places.items()}
    return Layout(places, assumptions=["each class folder holds folders of splits"])


def _layout_of_splits_in_class_names(reading: Reading, node: Folder, kids: Sequence[Folder]) -> Layout | None:
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
        raise reading.ambiguous(
            f"the folders {first_names(kid.name for kid in named)} of {node.place} are called as a class and a "
            f"split, and {'hold folders of images' if nested else 'not all folders are called as both'}",
            [
                (f"splits with the classes {first_names(sorted(classes))}", splits_option(reading, splits)),
                (f"classes {first_names(kid.name for kid in kids)}", ["--classes-from", "folder"]),
            ],
        )
    for kid in kids:
        if kid not in named:
            reading.left.add("beside the folders of splits", kid.place, kid.total)
    if node.images:
        reading.left.add("beside the folders of splits", node.first_image, node.images)
    _note_empty(reading, node)
    places = {kid.parts: Place(split, label) for kid, (label, split) in named.items()}
    first = next(kid for kid, (_, split) in named.items() if split == "train")
    what = f"folder names hold class and split: {first.name!r} is class {named[first][0]!r}, split {named[first][1]}"
    return Layout(places, assumptions=[f"{what}; --classes-from folder takes each folder as a class"])


def splits_option(reading: Reading, splits: Iterable[tuple[str, Folder]]) -> list[str]:
    """The option --splits with these folders."""
    below = [(split, "/".join(folder.parts[len(reading.root) :])) for split, folder in splits]
    return ["--splits", ",".join(f"{split}={_quoted(folder)}" for split, folder in below)]


def _check_nesting(reading: Reading, classes: Sequence[Folder], node: Folder) -> None:
    """Stop when every class folder holds its images in several folders: those may be the classes as well."""
    total = sum(folder.total for folder in classes)
    for folder in classes:
        # One folder with nearly everything, in folders: it may enclose the classes, and the others be strays.
        if len(classes) == 2 and not folder.images and len(folder.filled) > 2 and folder.total * 10 >= total * 9:
            inner = sorted(kid.name for kid in folder.filled)
            raise reading.ambiguous(
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
            reading.assumptions.append(f"{what}; --classes-from parent takes each as a class")
        return
    inner = sorted({kid.name for folder in classes for kid in folder.filled})
    outer = sorted({folder.name for folder in classes})
    readings = [
        (f"{len(outer)} classes {first_names(outer)}", ["--classes-from", "folder"]),
        (f"{len(inner)} classes {first_names(inner)}", ["--classes-from", "parent"]),
    ]
    if len(outer) > 1:
        readings.append((f"only {outer[0]!r}", ["--root", "/".join(classes[0].parts)]))
    raise reading.ambiguous(f"the folders of {node.place} all hold several folders of images", readings)


def _note_empty(reading: Reading, node: Folder) -> None:
    for folder in node.folders.values():
        if not folder.total and not is_neutral(folder.name):
            reading.left.add("a folder without any image, not a class", folder.place, 1)


def layout_of_named_splits(places: Mapping[Parts, Place]) -> Layout | None:
    """Classes in the names of the folders of --splits, as in train=cat_train,train=dog_train; else None."""
    named = {parts: class_and_split(parts[-1]) if parts else None for parts in places}
    labels = [one[0] for one in named.values() if one is not None]
    if len(set(labels)) < 2 or len(set(labels)) == len(labels):
        return None
    labeled = {parts: place._replace(label=(named[parts] or parts[-1:])[0]) for parts, place in places.items()}
    what = f"the names of the folders of --splits hold the classes: {first_names(sorted(set(labels)))}"
    return Layout(labeled, assumptions=[what])


def has_class_folders(split: Folder) -> bool:
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
        found.setdefault(kid.split, set()).update(folder.name for folder in peeled[kid.name].filled)
    return found


def _with_known_classes(splits: list[Folder], peeled: Mapping[str, Folder]) -> list[Folder]:
    """The splits but for those with one folder that is no class of the training images: test/unknown/."""
    taught = _classes_of(splits, peeled).get("train")
    if taught is None:
        return splits
    single = [kid for kid in splits if kid.split != "train" and len(peeled[kid.name].filled) == 1]
    return [kid for kid in splits if kid not in single or peeled[kid.name].filled[0].name in taught]


def _quoted(folder: str) -> str:
    """A folder as --splits takes it: in quotation marks where it has a comma."""
    return f'"{folder}"' if "," in folder else folder
