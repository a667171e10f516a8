"""Every kind of source becomes the same list of items."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_trees import Files, tar_bytes, write_files, zip_bytes
from file_trees import gray_png as png
from ilsvrc_tree import meta_mat, write_tar
from PIL import Image

from alexnet.data.decoding import decode
from alexnet.data.sources.interpretation import interpret
from alexnet.data.sources.item_list import ItemList
from alexnet.data.sources.items import Ignored, Item, Reader, Source
from alexnet.data.unreadable import UnreadableImageError
from alexnet.runtime.errors import AlexNetError, UsageError

FLAT: Files = {"cats/a.png": png(1), "cats/b.png": png(2), "dogs/a.png": png(3)}
SPLIT: Files = {
    **{"train/cats/a.png": png(1), "train/dogs/a.png": png(2)},
    **{"valid/cats/a.png": png(3), "valid/dogs/a.png": png(4), "test/cats/a.png": png(5)},
}
FLAT_ITEMS = {("cats", None, 1), ("cats", None, 2), ("dogs", None, 3)}
SPLIT_ITEMS = {
    *(("cats", "train", 1), ("dogs", "train", 2), ("cats", "val", 3), ("dogs", "val", 4), ("cats", "test", 5)),
}


def write_zip(path: Path, files: Files, method: int = zipfile.ZIP_STORED) -> Path:
    path.write_bytes(zip_bytes(files, method))
    return path


@pytest.fixture
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


def read(source: Source) -> set[tuple[str, str | None, int]]:
    """Class, split and the value of every image, read where the items say it is."""
    reader = Reader()
    return {(item.label, item.split, int(decode(reader.read(item))[0, 0, 0])) for item in source.items}


MAKERS: dict[str, Callable[[Path, Files], Path]] = {
    "folder": lambda folder, files: write_files(folder / "images", files),
    "zip": lambda folder, files: write_zip(folder / "images.zip", files),
    "deflated zip": lambda folder, files: write_zip(folder / "images.zip", files, zipfile.ZIP_DEFLATED),
    "tar": lambda folder, files: write_tar(folder / "images.tar", files),
    "tar.gz": lambda folder, files: write_tar(folder / "images.tar.gz", files, "w:gz"),
    "tgz": lambda folder, files: write_tar(folder / "images.tgz", files, "w:gz"),
    "tar.bz2": lambda folder, files: write_tar(folder / "images.tar.bz2", files, "w:bz2"),
    "tar.xz": lambda folder, files: write_tar(folder / "images.tar.xz", files, "w:xz"),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Files], Path]:
    return lambda files: MAKERS[request.param](tmp_path, files)


def test_one_folder_a_class(make: Callable[[Files], Path], spool: Path) -> None:
    source = interpret(make(FLAT), spool)
    assert read(source) == FLAT_ITEMS
    assert [item.name for item in source.items] == sorted(FLAT)


def test_folders_of_splits(make: Callable[[Files], Path], spool: Path) -> None:
    assert read(interpret(make(SPLIT), spool)) == SPLIT_ITEMS


def test_a_folder_around_everything_is_looked_through(make: Callable[[Files], Path], spool: Path) -> None:
    wrapped = {f"my set/images/{name}": content for name, content in SPLIT.items()}
    assert read(interpret(make(wrapped), spool)) == SPLIT_ITEMS


def test_files_of_file_managers_are_ignored(make: Callable[[Files], Path], spool: Path) -> None:
    junk = (
        "__MACOSX/cats/._a.png",
        "cats/.DS_Store",
        "cats/Thumbs.db",
        ".git/config",
        "dogs/.a.png.swp",
        "desktop.ini",
    )
    source = interpret(make({**FLAT, **dict.fromkeys(junk, b"junk")}), spool)
    assert read(source) == FLAT_ITEMS
    assert source.ignored == source.warnings == []


def test_files_in_no_class_are_mentioned(make: Callable[[Files], Path], spool: Path) -> None:
    source = interpret(make({**FLAT, "README.txt": b"text", "extra.png": png(9)}), spool)
    assert read(source) == FLAT_ITEMS
    assert set(source.ignored) == {
        Ignored("in no class folder", 1, "extra.png"),
        Ignored("not an image file (.txt)", 1, "README.txt"),
    }


def test_folders_within_a_class_belong_to_it(make: Callable[[Files], Path], spool: Path) -> None:
    files = {"train/cats/indoors/a.png": png(1), "train/dogs/images/more/b.png": png(2)}
    assert read(interpret(make(files), spool)) == {("cats", "train", 1), ("dogs", "train", 2)}


def test_classes_may_be_called_as_splits(spool: Path, tmp_path: Path) -> None:
    files = {"train/a.png": png(1), "tram/a.png": png(2), "test/b.png": png(3)}
    assert {label for label, _, _ in read(interpret(write_files(tmp_path, files), spool))} == {
        "train",
        "tram",
        "test",
    }


def test_images_in_no_folder(make: Callable[[Files], Path], spool: Path) -> None:
    with pytest.raises(AlexNetError, match=r"no classes in .*a\.png lies in no class folder"):
        interpret(make({"a.png": png(1), "b.png": png(2)}), spool)


def test_nothing_in_it(make: Callable[[Files], Path], spool: Path) -> None:
    path = make({".hidden": b""})
    with pytest.raises(AlexNetError, match="no images in"):
        interpret(path, spool)


def test_an_odd_name_on_disk(tmp_path: Path, spool: Path) -> None:
    folder = write_files(tmp_path / "images", {**FLAT, "caffè ☕/ä b.png": png(7)})
    (folder / "dogs" / b"\xff\xfe.png".decode("utf-8", "surrogateescape")).write_bytes(png(8))
    source = interpret(folder, spool)
    ItemList.write(tmp_path / "items", source.items)
    items = ItemList(tmp_path / "items").take(np.arange(len(list(source.items))))
    assert read(Source(items)) == FLAT_ITEMS | {("caffè ☕", None, 7), ("dogs", None, 8)}
    json.dumps([item.name for item in items]).encode("utf-8")


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_damaged_archive(ending: str, tmp_path: Path, spool: Path) -> None:
    maker = {"zip": "deflated zip"}.get(ending, ending)
    path = MAKERS[maker](tmp_path, {f"cats/{n}.png": np.random.default_rng(n).bytes(5000) for n in range(9)})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(AlexNetError, match=r"images.* is (a )?damaged"):
        interpret(path, spool)


def test_text_called_zip_or_tar(tmp_path: Path, spool: Path) -> None:
    for name in ("text.zip", "text.tar", "text.tar.gz"):
        (tmp_path / name).write_text("this is text, not an archive\n" * 100, encoding="utf-8")
        with pytest.raises(AlexNetError, match="damaged"):
            interpret(tmp_path / name, spool)


def test_damage_within_a_zip_is_the_images_own(tmp_path: Path, spool: Path) -> None:
    path = write_zip(tmp_path / "images.zip", {f"cats/{n}.png": png(n) * 20 for n in range(3)}, zipfile.ZIP_DEFLATED)
    source = interpret(path, spool)
    items = list(source.items)
    content = bytearray(path.read_bytes())
    content[items[1].offset + 50 : items[1].offset + 70] = b"\xff" * 20
    path.write_bytes(content)
    reader = Reader()
    reader.read(items[0])
    with pytest.raises(UnreadableImageError, match="damaged in the zip file"):
        reader.read(items[1])
    reader.read(items[2])


def test_an_encrypted_zip(tmp_path: Path, spool: Path) -> None:
    path = write_zip(tmp_path / "images.zip", FLAT)
    content = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(magic, at + 1)) >= 0:
            content[at + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(AlexNetError, match="is encrypted"):
        interpret(path, spool)


# ImageNet's own files, in small

SYNSETS = {"n02119789": "kit fox, Vulpes macrotis", "n01440764": "tench, Tinca tinca"}

TRAIN_TARS = {
    "n01440764.tar": tar_bytes({"n01440764_10.JPEG": png(1), "n01440764_2.JPEG": png(2)}),
    "n02119789.tar": tar_bytes({"n02119789_1.JPEG": png(3)}),
}


def test_ilsvrc_2012(tmp_path: Path, spool: Path) -> None:
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", TRAIN_TARS)
    write_tar(tmp_path / "ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_{n:08}.JPEG": png(10 + n) for n in (2, 1, 3)})
    write_tar(tmp_path / "ILSVRC2012_img_test.tar", {"ILSVRC2012_test_00000001.JPEG": png(99)})
    kit = "ILSVRC2012_devkit_t12/data"
    truth = {f"{kit}/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n1\n", f"{kit}/meta.mat": meta_mat(2012, SYNSETS)}
    write_tar(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", truth, "w:gz")
    source = interpret(tmp_path, spool)
    assert read(source) == {
        *(("n01440764", "train", 1), ("n01440764", "train", 2), ("n02119789", "train", 3)),
        *(("n01440764", "val", 11), ("n02119789", "val", 12), ("n02119789", "val", 13)),
    }
    assert source.descriptions["n01440764"] == "tench, Tinca tinca"
    assert [warning.split(" is")[0] for warning in source.warnings] == ["ILSVRC2012_img_test.tar"]
    assert [item.name for item in source.items][-3:] == [f"val/ILSVRC2012_val_{n:08}.JPEG" for n in (1, 2, 3)]


def test_ilsvrc_2010(tmp_path: Path, spool: Path) -> None:
    write_tar(tmp_path / "ILSVRC2010_images_train.tar", TRAIN_TARS)
    write_tar(tmp_path / "ILSVRC2010_images_val.tar", {f"val/ILSVRC2010_val_{n:08}.JPEG": png(10 + n) for n in (1, 2)})
    tested = {
        "test/ILSVRC2010_test_00000001.JPEG": png(21),
        "test/ILSVRC2010_test_00000002.JPEG": gzip.compress(png(22)),
    }
    write_tar(tmp_path / "ILSVRC2010_images_test.tar", tested)
    write_tar(tmp_path / "crop_images.tar", {"crop_images/train/n02119789_1.JPEG": png(33)})
    (tmp_path / "ILSVRC2010_test_ground_truth.txt").write_text("1\n2\n", encoding="utf-8")
    truth = {"ILSVRC2010_validation_ground_truth.txt": b"2\n1\n", "meta.mat": meta_mat(2010, SYNSETS)}
    kit = {f"devkit-1.0/data/{name}": content for name, content in truth.items()}
    write_tar(tmp_path / "ILSVRC2010_devkit-1.0.tar.gz", kit, "w:gz")
    assert read(interpret(tmp_path, spool)) == {
        *(("n01440764", "train", 1), ("n01440764", "train", 2), ("n02119789", "train", 33)),
        *(("n01440764", "val", 11), ("n02119789", "val", 12), ("n02119789", "test", 21), ("n01440764", "test", 22)),
    }


def test_ilsvrc_without_its_devkit(tmp_path: Path, spool: Path) -> None:
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", TRAIN_TARS)
    with pytest.raises(AlexNetError, match="misses the devkit"):
        interpret(tmp_path, spool)


def test_a_tar_of_tars_is_a_folder_of_classes(tmp_path: Path, spool: Path) -> None:
    path = write_tar(tmp_path / "train_images.tar", TRAIN_TARS)
    assert read(interpret(path, spool)) == {("n01440764", None, 1), ("n01440764", None, 2), ("n02119789", None, 3)}


# Tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(delimiter: str, tmp_path: Path, spool: Path) -> None:
    write_files(tmp_path, SPLIT)
    rows = [("Path", "Label", "Split"), *((name, name.split("/")[1], name.split("/")[0]) for name in SPLIT)]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    (tmp_path / "images.csv").write_text("\ufeff" + text.getvalue(), encoding="utf-8")
    source = interpret(tmp_path / "images.csv", spool)
    assert read(source) == SPLIT_ITEMS
    assert [item.name for item in source.items] == list(SPLIT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: download or write it again"),
        ("a.png,cats\n", "needs the columns path and label; its first line is 'a.png,cats'"),
        ("path,label\n", "no images"),
        ("path,label\na.png,cats\nb.png,\n", "line 3: the label is missing"),
        ("path,label\n,cats\n", "line 2: the path is missing"),
        ("path,label\nb.png\n", "line 2: the label is missing"),
        ("path,label,split\na.png,cats,holdout\n", "line 2: there is no split 'holdout', only train, val and test"),
    ],
)
def test_a_csv_that_is_not_right(text: str, message: str, tmp_path: Path, spool: Path) -> None:
    (tmp_path / "images.csv").write_text(text, encoding="utf-8")
    with pytest.raises(AlexNetError, match=message):
        interpret(tmp_path / "images.csv", spool)


def test_a_csv_in_another_encoding(tmp_path: Path, spool: Path) -> None:
    (tmp_path / "images.csv").write_bytes("path,label\na.png,Käfer\n".encode("latin-1"))
    with pytest.raises(AlexNetError, match="is not UTF-8"):
        interpret(tmp_path / "images.csv", spool)


def test_a_file_that_the_csv_names_is_missing(tmp_path: Path, spool: Path) -> None:
    (tmp_path / "images.csv").write_text("path,label\nnothing.png,cats\n", encoding="utf-8")
    (item,) = interpret(tmp_path / "images.csv", spool).items
    with pytest.raises(UnreadableImageError, match="no such file"):
        Reader().read(item)


def hf_dataset(values: range, names: tuple[str, ...] = ("dogs", "cats")) -> Any:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    rows = {"image": [{"bytes": png(v), "path": f"{v}.png"} for v in values], "label": [v % 2 for v in values]}
    return datasets.Dataset.from_dict(rows, features=features)


HF_ITEMS = {("cats" if v % 2 else "dogs", v) for v in range(30)}


def test_hugging_face_dataset_saved_to_disk(tmp_path: Path, spool: Path) -> None:
    hf_dataset(range(30)).save_to_disk(tmp_path / "saved", num_shards=3)
    assert {(label, value) for label, _, value in read(interpret(tmp_path / "saved", spool))} == HF_ITEMS


def test_hugging_face_dataset_dict_saved_to_disk(tmp_path: Path, spool: Path) -> None:
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict({"train": hf_dataset(range(20)), "validation": hf_dataset(range(20, 30))})
    both.save_to_disk(tmp_path / "saved")
    items = read(interpret(tmp_path / "saved", spool))
    assert {(label, value) for label, _, value in items} == HF_ITEMS
    assert {value for _, split, value in items if split == "val"} == set(range(20, 30))


@pytest.mark.parametrize("rows_a_group", [4, 1000])
def test_parquet_of_the_hub(rows_a_group: int, tmp_path: Path, spool: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, values in (("train-00000-of-00001", range(20)), ("test-00000-of-00001", range(20, 30))):
        table = hf_dataset(values).with_format("arrow")[:]
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet", row_group_size=rows_a_group)
    source = interpret(tmp_path, spool)
    items = read(source)
    assert {(label, value) for label, _, value in items} == HF_ITEMS
    assert {split for _, split, value in items if value >= 20} == {"test"}
    reader = Reader()
    for item in reversed(source.items):  # any order
        assert decode(reader.read(item)).shape == (4, 4, 3)


def test_plain_parquet_with_bytes_and_names(tmp_path: Path, spool: Path) -> None:
    table = pa.table({"image": [png(1), png(2), png(3)], "class": ["cats", "dogs", None]})
    pq.write_table(table, tmp_path / "images.parquet")
    source = interpret(tmp_path / "images.parquet", spool)
    assert read(source) == {("cats", None, 1), ("dogs", None, 2)}
    assert source.warnings == ["1 image without a label not used"]


@pytest.mark.parametrize(("columns", "missing"), [({"image": [b""]}, "labels"), ({"label": [1]}, "images")])
def test_a_table_without_a_column(columns: dict[str, list[Any]], missing: str, tmp_path: Path, spool: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "images.parquet")
    with pytest.raises(AlexNetError, match=f"has no column of {missing}"):
        interpret(tmp_path / "images.parquet", spool)


def test_text_called_parquet(tmp_path: Path, spool: Path) -> None:
    (tmp_path / "text.parquet").write_text("text", encoding="utf-8")
    with pytest.raises(AlexNetError, match="cannot be read as parquet"):
        interpret(tmp_path / "text.parquet", spool)


def test_a_dataset_by_name(tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` takes a folder where it takes a name of the hub, which the tests do not reach."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "repository").mkdir()
    for name, values in (("train", range(20)), ("test", range(20, 30))):
        hf_dataset(values).to_parquet(tmp_path / "repository" / f"{name}.parquet")
    items = read(interpret(f"hf:{tmp_path / 'repository'}", spool))
    assert {(label, value) for label, _, value in items} == HF_ITEMS
    assert {split for _, split, value in items if value >= 20} == {"test"}


def test_a_name_that_the_hub_does_not_have(spool: Path, tmp_path: Path) -> None:
    with pytest.raises(AlexNetError, match="cannot be loaded"):
        interpret(f"hf:{tmp_path}/nothing", spool)


# Python


def test_a_python_iterator(tmp_path: Path, spool: Path) -> None:
    write_files(tmp_path, FLAT)

    def images() -> Any:
        yield tmp_path / "cats/a.png", "cats"
        yield png(2), "cats", "train"
        yield np.full((4, 4, 3), 3, np.uint8), "dogs", "validation"
        yield Image.new("RGB", (4, 4), (4, 4, 4)), 7
        yield np.full((4, 4), 5 * 257, np.uint16), "dogs", None

    assert read(interpret(images(), spool)) == {
        *(("cats", None, 1), ("cats", "train", 2), ("dogs", "val", 3), ("7", None, 4), ("dogs", None, 5))
    }


def test_a_torch_style_dataset(spool: Path) -> None:
    class Images:
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            if index >= 3:
                raise IndexError
            return Image.new("L", (4, 4), index), index % 2

    assert read(interpret(Images(), spool)) == {("0", None, 0), ("1", None, 1), ("0", None, 2)}


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ([], AlexNetError, "the source is empty"),
        ([b"x"], UsageError, "must be \\(image, label\\)"),
        ([(3, "cats")], UsageError, "is a int; it must be a path"),
        ([(b"x", "cats", "holdout")], AlexNetError, "no split 'holdout'"),
        (17, UsageError, "a int is not a source of images"),
    ],
)
def test_python_sources_that_are_not_right(source: Any, error: type, message: str, spool: Path) -> None:
    with pytest.raises(error, match=message):
        interpret(source, spool)


def test_paths_that_are_no_source(tmp_path: Path, spool: Path) -> None:
    with pytest.raises(AlexNetError, match="does not exist"):
        interpret(tmp_path / "nothing", spool)
    (tmp_path / "image.png").write_bytes(png(1))
    with pytest.raises(
        AlexNetError, match="is one image, not a source of images: give a folder with one folder per class"
    ):
        interpret(tmp_path / "image.png", spool)


def test_a_file_of_gigabytes_is_not_read_as_an_image(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    for item in (Item("large", "a", None, str(path)), Item("large", "a", None, str(path), 0, 3 << 30)):
        with pytest.raises(UnreadableImageError, match="3,221,225,472 bytes: too large"):
            Reader().read(item)
