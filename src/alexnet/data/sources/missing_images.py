"""Why a source has no images, or no classes: what it holds instead, and what to do."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from alexnet.data.sources.class_folders import has_class_folders, peel, splits_option
from alexnet.data.sources.names import first_names, split_of
from alexnet.data.sources.plan import count, printable
from alexnet.data.sources.reading import Reading
from alexnet.data.sources.tree import Folder, Tree
from alexnet.data.sources.walking import archive_kind
from alexnet.runtime.errors import AlexNetError, UsageError

_OTHER_TABLES = ("(.mat)", "(.pkl)", "(.h5)", "(.hdf5)")
_ARCHIVES = ("(.zip)", "(.tar)", "(.gz)", "(.tgz)")


def _detected_dataset(tree: Tree) -> str | None:
    """Which dataset of boxes or masks a tree without classes is."""
    names = {entry.parts[-1].lower() for folder in tree.top.below() for entry in folder.tables}
    folders = {folder.name.lower() for folder in tree.top.below()}
    reasons = {left.reason for left in tree.unused()}
    if any("coco" in name or name.startswith("instances_") for name in names):
        return "an object detection dataset (COCO annotations)"
    if "not an image file (.xml)" in reasons and "annotations" in folders:
        return "an object detection dataset (Pascal VOC annotations)"
    if "labels" in folders and "images" in folders and "not an image file (.txt)" in reasons:
        return "an object detection dataset (YOLO labels)"
    if folders & {"masks", "mask", "segmentationclass", "ground_truth"}:
        return "a segmentation dataset (images and masks)"
    return None


def why_no_images(tree: Tree) -> str:
    """The message for a source without images."""
    where = tree.request.path
    others = tree.unused()
    walk = tree.walk.tally.list()
    by_ending = {left.reason: left for left in others}
    for ending, what, remedy in _FOREIGN_FILES:
        left = next((left for reason, left in by_ending.items() if f"({ending}" in reason), None)
        if left is not None and remedy == _UNPACK and where.is_file():
            shell = f"`unzip {shlex.quote(str(where))} -d {shlex.quote(str(where.with_suffix('')))}`"
            how = shell if archive_kind(where) == "zip" else "unpack it"
            return f"no images in {where}: it holds {what}, {printable(left.first)}: {how}, and give the folder"
        if left is not None:
            return f"no images in {where}: {printable(left.first)} is {what}; {remedy}"
    if walk and not others:
        return f"no images in {where}: {printable(walk[0].first)} is {walk[0].reason}"
    if others:
        files = sum(left.files for left in others)
        return f"no images in {where}: {count(files, 'other file')}, {printable(others[0].first)} first"
    return f"no images in {where}: it has no files"


def why_no_classes(reading: Reading, node: Folder) -> AlexNetError:
    """The error of a source that has images, and nothing that says their classes."""
    where = reading.request.path
    detected = _detected_dataset(reading.tree)
    if detected:
        return AlexNetError(f"{where} is {detected}: `alexnet` classifies images and needs one class for each")
    kids = node.filled
    table = next((one.first for one in reading.tree.unused() if one.reason.endswith(_OTHER_TABLES)), None)
    hint = f"; if {printable(table)} names the classes, save it as CSV beside the images" if table else ""
    if reading.unread:
        hint = f"; {reading.unread[0]}"
    archives = [one for one in reading.tree.unused() if one.reason.endswith(_ARCHIVES)]
    if archives:
        hint += f"; {printable(archives[0].first)} is an archive, and is read where the folder holds no image beside it"
    if kids and not node.images:
        names = first_names(sorted(kid.name for kid in kids))
        commands = _commands_of_splits(reading, kids)
        if commands:
            return UsageError(
                f"{where} can be understood in several ways, as its folders {names} hold class folders and are "
                f"called as splits and as something else. Choose the folders of each split: {commands}"
            )
        command = reading.request.command("--classes-from", "folder")
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


def _commands_of_splits(reading: Reading, kids: Sequence[Folder]) -> str:
    """Commands that name the folders of the splits: those called as such exactly, and all; empty without two."""
    splits = [kid for kid in kids if split_of(kid.name) is not None and has_class_folders(peel(kid))]
    readings = [[kid for kid in splits if kid.exact_split and split_of(kid.name) is not None], splits]
    commands = []
    for chosen in readings:
        if {"train"} <= {kid.split for kid in chosen}:
            commands.append(reading.request.command(*splits_option(reading, ((kid.split, kid) for kid in chosen))))
    return " or ".join(dict.fromkeys(commands))


_UNPACK = "unpack it and give the folder, or give the archive itself"
_FOREIGN_FILES = (
    (".tfrecord", "a TensorFlow record file", "write its images to folders named after their classes first"),
    (".zip", "an archive", _UNPACK),
    (".tar", "an archive", _UNPACK),
    (".gz", "a compressed file", _UNPACK),
    (".tgz", "an archive", _UNPACK),
    (".7z", "a 7-Zip archive", "unpack it (`7z x FILE`) and give the folder"),
    (".rar", "a RAR archive", "unpack it (`unrar x FILE`) and give the folder"),
    (".mat", "a MATLAB file", "write its images to folders named after their classes first"),
    (".h5", "an HDF5 file", "write its images to folders named after their classes first"),
    (".npz", "a NumPy archive", "save each image as a .npy or PNG file in a folder named after its class"),
    (".pkl", "a Python pickle", "write its images to folders named after their classes first"),
    (".mp4", "a video", "extract frames (`ffmpeg -i FILE FOLDER/%05d.jpg`) into folders named after their classes"),
    (".csv", "a table", "its images are not here: put them beside it, or give the table itself"),
)
