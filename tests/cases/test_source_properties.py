"""A random tree of classes, splits, junk and enclosing folders is read back exactly, or refused."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from alexnet.data.sources.interpretation import interpret
from alexnet.data.sources.items import Source
from alexnet.data.sources.names import SPLIT_NAMES
from alexnet.runtime.errors import AlexNetError

# A JPEG's first bytes: the interpreter looks at no more, and at those only of files without an ending.
IMAGE = b"\xff\xd8\xff\xe0 an image"

SPLITS = {
    "train": ("train", "Train", "training_set", "train_images", "seg_train"),
    "val": ("val", "valid", "Validation", "val_images", "seg_val"),
    "test": ("test", "Testing", "test_set", "test_images", "seg_test"),
}
CLASSES = (
    *("cat", "dog", "Rosa canina", "n01440764", "0", "1", "2", "사과", "배", "café", "test tube", "steam train", "Ω"),
    *("images of birds", "007", "a.b", "data center", "very long " * 8, "none", "normal", "train"),
)
JUNK = ("Thumbs.db", ".DS_Store", "__MACOSX/x.jpg", "desktop.ini", ".ipynb_checkpoints/a.jpg")
BESIDE = ("README.md", "LICENSE.txt", "notes.json", "labels.txt", "model.pkl")
ENCLOSING = ("my set", "v1.0", "flowers", "데이터셋", "images", "dataset")

Found = set[tuple[str, str, str | None]]


class Made(NamedTuple):
    """Files, and what each image is: (path, class, split)."""

    files: dict[str, bytes]
    images: Found


@st.composite
def trees(draw: st.DrawFn) -> Made:
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=5, unique_by=str.casefold))
    style = draw(st.integers(-1, 4))  # -1: no splits
    splits = (
        ["train", *draw(st.lists(st.sampled_from(["val", "test"]), max_size=2, unique=True))] if style >= 0 else [None]
    )
    around = "".join(f"{name}/" for name in draw(st.lists(st.sampled_from(ENCLOSING), max_size=3)))
    doubled = draw(st.booleans()) and style >= 0
    images: Found = set()
    files: dict[str, bytes] = {}
    for split in splits:
        folder = around
        if split is not None:
            name = SPLITS[split][style]
            folder += f"{name}/" + f"{name}/" * doubled
        for label in classes:
            for number in range(draw(st.integers(2, 4))):
                inner = draw(st.sampled_from(["", "", "", "indoors/", "a/b/"]))
                ending = draw(st.sampled_from([".jpg", ".JPG", ".png", ".jpeg", ""]))
                path = f"{folder}{label}/{inner}{number:03}x{ending}"
                files[path] = IMAGE
                images.add((path, label, split))
    folders = sorted({path.rpartition("/")[0] for path in files} | {around.rstrip("/")})
    for name in draw(st.lists(st.sampled_from(JUNK + BESIDE), max_size=4, unique=True)):
        at = draw(st.sampled_from(folders))
        files[f"{at}/{name}" if at else name] = b"text"
    return Made(files, images)


def as_folder(made: Made, place: Path) -> Path:
    for name, content in made.files.items():
        (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "source" / name).write_bytes(content)
    return place / "source"


def as_zip(made: Made, place: Path) -> Path:
    with zipfile.ZipFile(place / "source.zip", "w") as archive:
        for name, content in made.files.items():
            archive.writestr(name, content)
    return place / "source.zip"


def as_tar(made: Made, place: Path) -> Path:
    with tarfile.open(place / "source.tar", "w") as archive:
        for name, content in made.files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return place / "source.tar"


def read_back(source: Source) -> Found:
    return {(item.name, item.label, item.split or "train") for item in source.items}


def expected(made: Made) -> Found:
    """Images without a split, and those of a source with training images only, are the same to `prepare`."""
    return {(path, label, split or "train") for path, label, split in made.images}


@given(made=trees(), render=st.sampled_from([as_folder, as_zip, as_tar]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_random_tree_is_read_back_exactly_or_refused(made: Made, render: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = render(made, Path(folder))  # type: ignore[operator]
        (Path(folder) / "spool").mkdir()
        try:
            found = interpret(source, Path(folder) / "spool")
            read = read_back(found)
        except AlexNetError:
            event("refused")
            return
    event("read back")
    assert read == expected(made)


@given(made=trees())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_most_random_trees_are_understood(made: Made) -> None:
    """A tree without folders within classes, and without a class that is called as a split, is never refused."""
    plain = not any("/indoors/" in path or "/a/b/" in path for path in made.files)
    labels = {label for _, label, _ in made.images}
    if not plain or any(label.split()[-1] in SPLIT_NAMES or label.split()[0] in SPLIT_NAMES for label in labels):
        return
    with tempfile.TemporaryDirectory() as folder:
        source = as_folder(made, Path(folder))
        (Path(folder) / "spool").mkdir()
        assert read_back(interpret(source, Path(folder) / "spool")) == expected(made)
