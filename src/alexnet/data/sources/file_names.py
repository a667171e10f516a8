"""Classes in file names, such as cat.0.jpg or crazing_12.jpg."""

from __future__ import annotations

from collections import Counter

from alexnet.data.sources.items import Source
from alexnet.data.sources.layout import Layout, Place, class_in_name
from alexnet.data.sources.names import first_names, name_tokens
from alexnet.data.sources.plan import printable
from alexnet.data.sources.reading import Reading
from alexnet.data.sources.split_lists import splits_by_lists
from alexnet.data.sources.tree import Parts
from alexnet.runtime.errors import UsageError

_GENERIC = {
    *("img", "image", "images", "dsc", "dscn", "dscf", "photo", "photos", "picture", "pic", "frame", "pxl", "p", "im"),
    *("screenshot", "screen", "shot", "untitled", "download", "sample", "scan", "file", "capture", "snapshot", "cam"),
    *("camera", "vid", "video", "mvimg", "kakaotalk", "whatsapp", "page", "output", "result", "crop", "tile", "slice"),
    *("unnamed", "gopr", "dji", "ilsvrc", "x", "new", "copy", "of", "at", "am", "pm", "test", "train", "val", "사진"),
}


def source_by_file_names(reading: Reading, places: dict[Parts, Place], forced: bool = False) -> Source | None:
    """Classes in file names, such as cat.0.jpg; None when they are not, unless forced."""
    labels: dict[Parts, Counter[str | None]] = {parts: Counter() for parts in places}
    unnamed: dict[Parts, str] = {}
    depths = sorted({len(parts) for parts in places}, reverse=True)
    for entry in reading.tree.entries():
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
            reading.left.add(
                "no class in the file names",
                printable(unnamed.get(parts, "/".join(parts))),
                sum(labels[parts].values()),
            )
    classes = sorted({str(label) for parts in good for label in labels[parts]})
    layout = Layout(good, "name", [f"the classes are in the file names: {first_names(classes)}"])
    return reading.source_of(layout, splits_by_lists(reading, layout))


def _are_classes(labels: Counter[str | None], forced: bool) -> bool:
    """Whether the classes in file names are classes, not what a camera calls its files."""
    if None in labels or not labels:
        return False
    if forced:
        return True
    images = sum(labels.values())
    generic = any(set(name_tokens(str(label))) <= _GENERIC for label in labels)
    return len(labels) >= 2 and not generic and min(labels.values()) >= 2 and len(labels) * 2 <= images
