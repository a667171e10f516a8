"""Why a source without usable images is none: what it holds instead, and what to do."""

from __future__ import annotations

import shlex

from alexnet.data.sources.plan import count, printable
from alexnet.data.sources.tree import Tree
from alexnet.data.sources.walking import archive_kind


def detected_dataset(tree: Tree) -> str | None:
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
